//! The vault's file: where it may lie, how it is opened, what its tables are.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use sha2::{Digest, Sha256};

use super::broken::{Broken, damaged, io, other_io};
use super::seal::{hex, random};
use crate::vault::VaultError;

/// The newest format this program reads.
pub(super) const FORMAT: u32 = 1;

/// "TlV1": tells a vault from any other SQLite file.
const APPLICATION: u32 = 0x546c_5631;

/// How long a lock of another program is waited for.
pub(super) const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// What the writing connection keeps of the file in memory, in KiB. An import
/// touches indices all over, and a page that does not fit is written twice.
const CACHE_KIB: i64 = 32 * 1024;

/// More than there are different statements in this module.
const STATEMENTS: usize = 96;

/// Everything but row numbers, revisions, counters and states is sealed or a
/// keyed look-up value. `state` and `parked` (1: parked, 2: hooks are owed) repeat
/// what sealed cells say, so that open items are found without looking at
/// settled records.
const SCHEMA: &str = "
CREATE TABLE meta (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    format INTEGER NOT NULL, vault BLOB NOT NULL, instance BLOB NOT NULL, machine BLOB NOT NULL,
    epoch INTEGER NOT NULL, generation INTEGER NOT NULL, tip BLOB NOT NULL, fence INTEGER NOT NULL,
    audit INTEGER NOT NULL, doubt INTEGER NOT NULL, slots BLOB NOT NULL, proof BLOB NOT NULL
) STRICT;
CREATE TABLE slots (
    id INTEGER PRIMARY KEY, kind INTEGER NOT NULL, salt BLOB NOT NULL,
    memory INTEGER NOT NULL, passes INTEGER NOT NULL, lanes INTEGER NOT NULL,
    wrapped BLOB NOT NULL, checksum BLOB NOT NULL
) STRICT;
CREATE TABLE records (
    id INTEGER PRIMARY KEY AUTOINCREMENT, uid BLOB NOT NULL UNIQUE, revision INTEGER NOT NULL,
    state INTEGER NOT NULL DEFAULT 0, parked INTEGER NOT NULL DEFAULT 0,
    card BLOB NOT NULL, body BLOB NOT NULL, aside BLOB
) STRICT;
CREATE INDEX records_open ON records (state) WHERE state <> 0;
CREATE TABLE names (
    name BLOB NOT NULL, record INTEGER NOT NULL REFERENCES records ON DELETE CASCADE,
    PRIMARY KEY (name, record)
) STRICT, WITHOUT ROWID;
CREATE INDEX names_record ON names (record);
CREATE TABLE accounts (
    account BLOB NOT NULL, record INTEGER NOT NULL REFERENCES records ON DELETE CASCADE,
    PRIMARY KEY (account, record)
) STRICT, WITHOUT ROWID;
CREATE INDEX accounts_record ON accounts (record);
CREATE TABLE attempts (
    id INTEGER PRIMARY KEY AUTOINCREMENT, record INTEGER NOT NULL REFERENCES records,
    parked INTEGER NOT NULL DEFAULT 0, body BLOB NOT NULL
) STRICT;
CREATE INDEX attempts_record ON attempts (record);
CREATE TABLE finishes (
    id INTEGER PRIMARY KEY AUTOINCREMENT, record INTEGER NOT NULL REFERENCES records, body BLOB NOT NULL
) STRICT;
CREATE INDEX finishes_record ON finishes (record);
CREATE TABLE history (
    id INTEGER PRIMARY KEY AUTOINCREMENT, record INTEGER NOT NULL REFERENCES records ON DELETE CASCADE,
    number INTEGER NOT NULL, kind INTEGER NOT NULL, at INTEGER NOT NULL, body BLOB NOT NULL,
    UNIQUE (record, number)
) STRICT;
CREATE TABLE leases (
    name BLOB NOT NULL, fence INTEGER NOT NULL, shared INTEGER NOT NULL, renewal INTEGER NOT NULL,
    ttl INTEGER NOT NULL, holder BLOB NOT NULL,
    PRIMARY KEY (name, fence)
) STRICT, WITHOUT ROWID;
CREATE INDEX leases_fence ON leases (fence);
CREATE TABLE budgets (account BLOB PRIMARY KEY, body BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE audit (number INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT;
";

/// The file as it was when it was opened: a path can come to mean another file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identified {
    pub(super) path: PathBuf,
    pub(super) device: u64,
    pub(super) inode: u64,
}

/// Looks at the path without opening it. (A descriptor of ours that is closed
/// again would take away the locks that SQLite holds on the same file for
/// another handle of this process: POSIX locks belong to the process.)
pub(super) fn identify(path: &Path) -> Result<Identified, VaultError> {
    let path = fs::canonicalize(path).map_err(|error| io(&error, path, "read"))?;
    refuse_network(&path)?;
    let meta = fs::metadata(&path).map_err(|error| io(&error, &path, "read"))?;
    if !meta.is_file() {
        return Err(VaultError::Damaged { path, what: "it is not a file".to_owned() });
    }
    if meta.len() < 512 {
        return Err(VaultError::Damaged { path, what: "it is shorter than any vault".to_owned() });
    }
    Ok(Identified { device: meta.dev(), inode: meta.ino(), path })
}

/// Tells a vault from another file, and from one whose end is missing.
pub(super) fn recognise(connection: &Connection, path: &Path) -> Result<(), Broken> {
    let ask = |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get::<_, u32>(0));
    if ask("application_id")? != APPLICATION {
        return Err(damaged("it does not begin as a vault does"));
    }
    let pages = u64::from(ask("page_count")?) * u64::from(ask("page_size")?);
    // With a log beside it, pages may wait there to be copied into the file.
    let logged = fs::metadata(beside(path, "-wal")).is_ok_and(|log| log.len() > 0);
    let length = fs::metadata(path).map_err(|error| io(&error, path, "read"))?.len();
    if !logged && length < pages {
        return Err(damaged("its end is missing"));
    }
    let stamped = ask("user_version")?;
    let found: u32 = connection.query_row("SELECT format FROM meta", (), |row| row.get(0))?;
    if stamped != found {
        return Err(damaged("its two format numbers differ"));
    }
    if found > FORMAT {
        return Err(VaultError::NewerFormat { found, known: FORMAT }.into());
    }
    Ok(())
}

impl Identified {
    /// Refuses when the path has come to mean another file: what is written
    /// into the file that we hold open would be gone with it.
    pub(super) fn still_there(&self) -> Result<(), VaultError> {
        let there = fs::metadata(&self.path).is_ok_and(|meta| meta.dev() == self.device && meta.ino() == self.inode);
        if there {
            return Ok(());
        }
        Err(VaultError::Storage {
            doing: "written",
            why: format!("{} was replaced or removed while it was open; start again", self.path.display()),
        })
    }
}

/// A connection that reads, and changes nothing, not even by being closed.
pub(super) fn reader(path: &Path) -> Result<Connection, Broken> {
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(LOCK_PATIENCE)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

/// The connection that writes. What its promise rests on is read back.
pub(super) fn writer(path: &Path) -> Result<Connection, Broken> {
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(LOCK_PATIENCE)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "secure_delete", true)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    if mode != "wal" {
        return Err(damaged(format!("its journal is `{mode}`, not `wal`")));
    }
    for (pragma, wanted) in [("synchronous", 2), ("foreign_keys", 1), ("secure_delete", 1), ("trusted_schema", 0)] {
        let found: i64 = connection.pragma_query_value(None, pragma, |row| row.get(0))?;
        if found != wanted {
            return Err(VaultError::Storage {
                doing: "written",
                why: format!("SQLite does not keep `{pragma}` at {wanted}: it says {found}"),
            }
            .into());
        }
    }
    Ok(connection)
}

/// Makes a new file beside the place it is meant for, lets `fill` write it,
/// and moves it there when all of it is durable. A crash leaves no half vault,
/// and a file that is there already is never touched.
pub(super) fn new_file(path: &Path, fill: impl FnOnce(&Path) -> Result<(), Broken>) -> Result<(), Broken> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    make_directory(&directory)?;
    refuse_network(&directory)?;
    // A log that an earlier file left behind would be played into the new one.
    for suffix in ["", "-wal", "-journal"] {
        let there = beside(path, suffix);
        if fs::symlink_metadata(&there).is_ok() {
            return Err(VaultError::Exists(there).into());
        }
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let unfinished = directory.join(format!(".{name}.{}", hex(&random::<8>()?)));
    let made = fill_and_move(&unfinished, path, &directory, fill);
    if made.is_err() {
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let _ = fs::remove_file(beside(&unfinished, suffix));
        }
    }
    made
}

fn fill_and_move(
    unfinished: &Path,
    path: &Path,
    directory: &Path,
    fill: impl FnOnce(&Path) -> Result<(), Broken>,
) -> Result<(), Broken> {
    let failed = |error: std::io::Error| io(&error, path, "written");
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(unfinished).map_err(failed)?;
    fill(unfinished)?;
    file.sync_all().map_err(failed)?;
    rustix::fs::renameat_with(rustix::fs::CWD, unfinished, rustix::fs::CWD, path, rustix::fs::RenameFlags::NOREPLACE)
        .map_err(|error| failed(error.into()))?;
    flush_directory(directory).map_err(failed)?;
    Ok(())
}

/// Closes a connection to a file that is to be moved: nothing of it may wait
/// in the log, which stays behind.
pub(super) fn close_whole(connection: Connection) -> Result<(), Broken> {
    if !empty_log(&connection)? {
        let why = "its log cannot be copied into the file".to_owned();
        return Err(VaultError::Storage { doing: "written", why }.into());
    }
    connection.close().map_err(|(_, error)| error.into())
}

/// Copies the log into the file and cuts it to nothing; false when somebody
/// is still reading from it.
pub(super) fn empty_log(connection: &Connection) -> Result<bool, Broken> {
    let busy: i64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |row| row.get(0))?;
    Ok(busy == 0)
}

/// Copies the log of a file that is behind what this machine remembers, before
/// SQLite plays in the part that it can read and drops what it cannot.
pub(super) fn keep_log(path: &Path) -> std::io::Result<()> {
    let log = match fs::read(beside(path, "-wal")) {
        Ok(log) if !log.is_empty() => log,
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => return Ok(()),
    };
    // Named by its content: the same log is kept once.
    let digest = Sha256::digest(&log);
    let kept = beside(path, &format!("-wal.kept-{}", hex(digest.get(..8).unwrap_or_default())));
    if kept.exists() { Ok(()) } else { write_durably(&kept, &log) }
}

/// Empty tables in a file that is there and empty.
pub(super) fn lay_out(path: &Path) -> Result<Connection, Broken> {
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.pragma_update(None, "page_size", 4096)?;
    connection.pragma_update(None, "application_id", APPLICATION)?;
    connection.pragma_update(None, "user_version", FORMAT)?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute_batch(SCHEMA)?;
    Ok(connection)
}

/// Writes a small file so that after a crash it is the old or the new one.
pub(super) fn write_durably(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let suffix = random::<8>().map_err(|error| std::io::Error::other(error.to_string()))?;
    let unfinished = beside(path, &format!(".{}", hex(&suffix)));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        flush_directory(directory)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    written
}

/// Makes a directory that only its owner may enter, with those above it.
pub(super) fn make_directory(directory: &Path) -> Result<(), VaultError> {
    if directory.is_dir() {
        return Ok(());
    }
    let failed = |error: std::io::Error| other_io(&error, directory, "written");
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    if let Some(above) = directory.parent().filter(|above| !above.as_os_str().is_empty()) {
        flush_directory(above).map_err(failed)?;
    }
    Ok(())
}

/// The path with something appended to its last name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn flush_directory(directory: &Path) -> std::io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Locks and flushes mean little across a network.
fn refuse_network(path: &Path) -> Result<(), VaultError> {
    let about = rustix::fs::statfs(path).map_err(|error| io(&error.into(), path, "read"))?;
    match network_name(about.f_type as u64 & 0xffff_ffff) {
        None => Ok(()),
        Some(name) => Err(VaultError::NetworkFilesystem { path: path.to_owned(), filesystem: name.to_owned() }),
    }
}

fn network_name(magic: u64) -> Option<&'static str> {
    match magic {
        0x6969 => Some("NFS"),
        0x517b | 0xff53_4d42 | 0xfe53_4d42 => Some("SMB"),
        0x0102_1997 => Some("9P"),
        0x5346_414f | 0x6b41_4653 => Some("AFS"),
        0x00c3_6400 => Some("Ceph"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_known_by_their_numbers() {
        assert_eq!(network_name(0x6969), Some("NFS"));
        assert_eq!(network_name(0xff53_4d42), Some("SMB"));
        assert_eq!(network_name(0x0102_1997), Some("9P"));
        assert_eq!(network_name(0xef53), None);
    }
}
