//! Power cuts for programs that write files: whatever was not synced is lost.
//!
//! The C library `shim/unsynced.c`
//! is preloaded into the program under test, keeps a copy of each file as it was
//! at its last sync, and kills the program right after a chosen one.
//! [`roll_back`] then makes the directory what a machine would find after a
//! power cut: the harshest case, in which nothing reached the disk unasked.
//!
//! A second library, `shim/faulty.c`, makes disk and clock fail ([`FaultyShim`]).

use std::{
    collections::BTreeMap,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use crate::{
    error::{Context, LabError, Result},
    process::{self, write_file},
    template,
};

const SOURCE: &str = include_str!("shim/unsynced.c");
const FAULTY: &str = include_str!("shim/faulty.c");

/// The moment of a power cut, by the number of a sync, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// When the program asks for this sync. Finds what was told as done but never
    /// synced: all that was written since the sync before is lost.
    Before(u32),
    /// When this sync is done and the program does not know it yet. Finds what was
    /// done but not told: work in flight that is there after all.
    After(u32),
}

/// The compiled shim.
#[derive(Debug, Clone)]
pub struct Shim {
    library: PathBuf,
}

impl Shim {
    /// Compiles the shim, unless it was compiled before.
    pub fn build() -> Result<Self> {
        compile("unsynced", SOURCE).map(|library| Self { library })
    }

    /// What the program under test needs in its environment. Takes what lies in
    /// `watched` now as durable and forgets what `shadow` held before.
    pub fn environment(
        &self,
        watched: &Path,
        shadow: &Path,
        cut: Option<Cut>,
        count_file: &Path,
    ) -> Result<Vec<(String, String)>> {
        let watched = fs::canonicalize(watched).could_not(|| format!("find {}", watched.display()))?;
        settle(&watched, shadow)?;
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let mut variables = vec![
            ("LD_PRELOAD".to_owned(), text(&self.library)),
            ("LAB_SHIM_DIR".to_owned(), text(&watched)),
            ("LAB_SHIM_SHADOW".to_owned(), text(shadow)),
            ("LAB_SHIM_COUNT".to_owned(), text(count_file)),
        ];
        if let Some(cut) = cut {
            let (number, when) = match cut {
                Cut::Before(number) => (number, "before"),
                Cut::After(number) => (number, "after"),
            };
            variables.push(("LAB_SHIM_KILL_AT".to_owned(), number.to_string()));
            variables.push(("LAB_SHIM_WHEN".to_owned(), when.to_owned()));
        }
        Ok(variables)
    }
}

/// What a disk or a clock does wrong, to one program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Faulty {
    /// From the operation with this number (a write, a truncation or a sync, counted from 1) on,
    /// so many fail with this error number; 0 is all of them.
    Disk {
        /// The first that fails.
        at: u32,
        /// How many fail.
        times: u32,
        /// As in `errno.h`.
        error: i32,
    },
    /// The writes of one transaction are acknowledged and not made; at the second sync after that
    /// the program is killed. A disk that loses what it said it had, found out by a power cut.
    Lie {
        /// The transaction, by the number of its sync of SQLite's log.
        at: u32,
    },
    /// The program is killed at this sync of SQLite's log.
    KilledAt {
        /// Counted from 1.
        sync: u32,
    },
    /// From this reading of the clock of the day on, it is off by so many seconds.
    Clock {
        /// Counted from 1.
        at: u32,
        /// May be negative.
        by: i64,
    },
}

/// The compiled `shim/faulty.c`.
#[derive(Debug, Clone)]
pub struct FaultyShim {
    library: PathBuf,
}

impl FaultyShim {
    /// Compiles it, unless it was compiled before.
    pub fn build() -> Result<Self> {
        compile("faulty", FAULTY).map(|library| Self { library })
    }

    /// What a program needs in its environment so that files below `directory`, and its clock, fail
    /// like this. `note` gets a line for everything that came to pass.
    pub fn environment(&self, directory: &Path, note: &Path, faults: &[Faulty]) -> Vec<(String, String)> {
        let mut variables = vec![
            ("LD_PRELOAD", self.library.display().to_string()),
            ("LAB_FAULTY_DIR", directory.display().to_string()),
            ("LAB_FAULTY_NOTE", note.display().to_string()),
        ];
        for fault in faults {
            match fault {
                Faulty::Disk { at, times, error } => variables.extend([
                    ("LAB_FAULTY_AT", at.to_string()),
                    ("LAB_FAULTY_FOR", times.to_string()),
                    ("LAB_FAULTY_ERRNO", error.to_string()),
                ]),
                Faulty::Lie { at } => variables.push(("LAB_FAULTY_LIE", at.to_string())),
                Faulty::KilledAt { sync } => variables.push(("LAB_FAULTY_KILL", sync.to_string())),
                Faulty::Clock { at, by } => {
                    variables.extend([("LAB_FAULTY_CLOCK_AT", at.to_string()), ("LAB_FAULTY_CLOCK_BY", by.to_string())])
                }
            }
        }
        variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// The library made of this source, compiled when it does not exist yet.
fn compile(name: &str, source: &str) -> Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    source.hash(&mut hasher);
    let shelf = template::shelf()?;
    let library = shelf.join(format!("{name}-{:016x}.so", hasher.finish()));
    if library.is_file() {
        return Ok(library);
    }
    // Many tests find it missing at once: the first compiles, the others wait.
    let lock_path = shelf.join(format!("{name}.lock"));
    let lock = fs::File::create(&lock_path).could_not(|| format!("create {}", lock_path.display()))?;
    lock.lock().could_not(|| format!("lock {}", lock_path.display()))?;
    if library.is_file() {
        return Ok(library);
    }
    let draft = shelf.join(format!("{name}.draft"));
    let mut compiler = process::clean_command(process::need_program("cc")?);
    compiler.args(["-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-format-truncation"]);
    compiler.args(["-shared", "-fPIC", "-x", "c", "-o"]).arg(&draft).args(["-", "-ldl", "-pthread"]);
    let output = process::run(&mut compiler, source.as_bytes())?;
    if !output.succeeded() {
        return Err(LabError::new(format!("cc could not compile the shim: {}", output.stderr)));
    }
    fs::rename(&draft, &library).could_not(|| format!("rename {}", draft.display()))?;
    Ok(library)
}

/// The syncs so far, by the names of the files (`.` is the directory itself), in order.
pub fn syncs(count_file: &Path) -> Vec<String> {
    let text = fs::read_to_string(count_file).unwrap_or_default();
    text.lines().filter_map(|line| line.splitn(3, ' ').nth(2).map(str::to_owned)).collect()
}

/// Makes `watched` what it would be after a power cut: every file as it was at
/// its last sync, no file whose name was never synced, and no `*-shm`, which is
/// shared memory.
pub fn roll_back(watched: &Path, shadow: &Path) -> Result<()> {
    let mut durable = read_names(shadow)?;
    durable.retain(|name, _| !name.ends_with("-shm"));
    // What stays is written in place: a power cut does not give a file another inode.
    for entry in files(watched)? {
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !durable.contains_key(&name) {
            fs::remove_file(&entry).could_not(|| format!("remove {}", entry.display()))?;
        }
    }
    for (name, key) in &durable {
        // A name without content: the directory was synced, the file never. Its length is 0 then.
        let content = fs::read(shadow.join("content").join(key)).unwrap_or_default();
        write_file(&watched.join(name), content)?;
    }
    Ok(())
}

fn settle(watched: &Path, shadow: &Path) -> Result<()> {
    if shadow.exists() {
        fs::remove_dir_all(shadow).could_not(|| format!("empty {}", shadow.display()))?;
    }
    let content = shadow.join("content");
    fs::create_dir_all(&content).could_not(|| format!("create {}", content.display()))?;
    let mut names = String::new();
    for file in files(watched)? {
        let key = key(&file)?;
        fs::copy(&file, content.join(&key)).could_not(|| format!("copy {}", file.display()))?;
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        names.push_str(&format!("{key} {name}\n"));
    }
    write_file(&shadow.join("names"), names)
}

fn read_names(shadow: &Path) -> Result<BTreeMap<String, String>> {
    let path = shadow.join("names");
    let text = fs::read_to_string(&path).could_not(|| format!("read {}", path.display()))?;
    Ok(text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(key, name)| (name.to_owned(), key.to_owned()))
        .collect())
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).could_not(|| format!("list {}", directory.display()))?;
    Ok(entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
        .map(|entry| entry.path())
        .collect())
}

/// Inode and birth, spelled as the C side spells them.
fn key(file: &Path) -> Result<String> {
    let found = fs::metadata(file).could_not(|| format!("look at {}", file.display()))?;
    let born = found.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    Ok(format!("{}-{}-{}", found.ino(), born.as_secs(), born.subsec_nanos()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes rows one by one, and tells each row once its commit has returned.
    const WRITER: &str = r#"
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA journal_mode = WAL"); db.execute("PRAGMA synchronous = FULL")
db.execute("PRAGMA wal_autocheckpoint = 3")
db.execute("CREATE TABLE IF NOT EXISTS rows (number INTEGER)")
print("table", flush=True)
for number in range(4):
    db.execute("INSERT INTO rows VALUES (?)", (number,))
    print(number, flush=True)
"#;
    const READER: &str = r#"
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
if db.execute("SELECT name FROM sqlite_master").fetchall():
    print("table")
    for (number,) in db.execute("SELECT number FROM rows ORDER BY number"): print(number)
"#;

    fn python(script: &str, argument: &Path, environment: Vec<(String, String)>) -> process::Output {
        let mut python = process::clean_command("python3");
        python.args(["-I", "-S", "-c", script]).arg(argument).envs(environment);
        process::run(&mut python, b"").expect("python ends")
    }

    /// The rows that the writer told of, and those that were found after the cut.
    type Rows = (Vec<String>, Vec<String>);

    /// Cuts the power once, and says whether the writer had come to its end before,
    /// which rows it had told of, and which are found (the first "row" is the table).
    fn cut_once(shim: &Shim, mode: &str, cut: Cut) -> (bool, Rows) {
        let place = tempfile::tempdir_in(process::ground()).expect("a directory");
        let (watched, shadow) = (place.path().join("vault"), place.path().join("shadow"));
        fs::create_dir(&watched).expect("it is new");
        let database = watched.join("vault.db");
        let counts = place.path().join("counts");
        let environment = shim.environment(&watched, &shadow, Some(cut), &counts).expect("it is set up");
        let writer = python(&WRITER.replace("FULL", mode), &database, environment);
        let ended = writer.status == 0;
        assert!(ended || writer.status == 137, "{cut:?}: {}", writer.stderr);
        let expected = match cut {
            Cut::Before(number) => number as usize - 1,
            Cut::After(number) => number as usize,
        };
        assert!(ended || syncs(&counts).len() == expected, "{cut:?}: {:?}", syncs(&counts));
        roll_back(&watched, &shadow).expect("the power is cut");
        let rows = |text: &str| text.lines().map(str::to_owned).collect();
        let reader = python(READER, &database, Vec::new());
        assert_eq!(reader.status, 0, "{cut:?}: {}", reader.stderr);
        (ended, (rows(&writer.stdout), rows(&reader.stdout)))
    }

    #[test]
    fn a_power_cut_keeps_exactly_the_committed_rows() {
        let shim = Shim::build().expect("it compiles");
        let mut cuts = 0;
        for number in 1.. {
            let (before_ended, before) = cut_once(&shim, "FULL", Cut::Before(number));
            let (_, after) = cut_once(&shim, "FULL", Cut::After(number));
            for (told, found) in [before, after] {
                // One row may be there that was not told of yet; none may be missing.
                let in_flight = found.len() == told.len() + 1 && found.starts_with(&told);
                assert!(found == told || in_flight, "sync {number}: told {told:?}, found {found:?}");
            }
            if before_ended {
                break;
            }
            cuts += 2;
        }
        assert!(cuts > 12, "only {cuts} power cuts");
    }

    #[test]
    fn a_writer_that_tells_before_it_syncs_is_found_out() {
        let shim = Shim::build().expect("it compiles");
        let lossy = (1..20).find_map(|number| {
            let (_, rows) = cut_once(&shim, "NORMAL", Cut::Before(number));
            (rows.0.len() > rows.1.len()).then_some(rows)
        });
        assert!(lossy.is_some(), "no row was lost");
    }

    #[test]
    fn what_was_not_synced_is_lost() {
        let shim = Shim::build().expect("it compiles");
        let place = tempfile::tempdir_in(process::ground()).expect("a directory");
        let (watched, shadow) = (place.path().join("watched"), place.path().join("shadow"));
        fs::create_dir(&watched).expect("it is new");
        write_file(&watched.join("before"), "old").expect("written");
        write_file(&watched.join("removed"), "stays until the directory is synced").expect("written");
        let environment = shim.environment(&watched, &shadow, None, &place.path().join("counts")).expect("set up");
        let script = r#"
import os, sys
os.chdir(sys.argv[1])
def write(name, text, sync):
    with open(name, "w") as file:
        file.write(text); file.flush()
        if sync: os.fsync(file.fileno())
write("before", "new", False)
write("unsynced", "never there", False)
write("draft", "renamed and told", True); os.rename("draft", "final")
directory = os.open(".", os.O_RDONLY); os.fsync(directory)
write("draft", "renamed, not told", True); os.rename("draft", "late")
os.unlink("removed")
write("x-shm", "memory", True)
"#;
        let writer = python(script, &watched, environment);
        assert_eq!(writer.status, 0, "{}", writer.stderr);
        roll_back(&watched, &shadow).expect("the power is cut");
        let read = |name: &str| fs::read_to_string(watched.join(name)).ok();
        assert_eq!(read("before").as_deref(), Some("old"));
        assert_eq!(read("removed").as_deref(), Some("stays until the directory is synced"));
        assert_eq!(read("final").as_deref(), Some("renamed and told"));
        assert_eq!(read("draft").as_deref(), Some("renamed, not told"));
        assert_eq!(read("unsynced").as_deref(), Some(""), "its name was synced with the directory, its content never");
        assert_eq!((read("late"), read("x-shm")), (None, None));
    }
}
