//! The one place where the lab starts programs, reads the environment and waits.

use std::{
    ffi::OsStr,
    io::{Read, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::error::{Context, LabError, Result};

/// No client in the lab has a reason to take longer; one that does hangs.
const CLIENT_DEADLINE: Duration = Duration::from_secs(60);

/// What a program left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its exit status; 128 + the signal's number when a signal ended it, as a shell would say it.
    pub status: i32,
    /// Standard output, invalid UTF-8 replaced.
    pub stdout: String,
    /// Standard error, invalid UTF-8 replaced.
    pub stderr: String,
}

impl Output {
    /// Whether the exit status is 0.
    pub fn succeeded(&self) -> bool {
        self.status == 0
    }
}

/// A command that inherits the environment, for tools of the developer's own (cargo, apt).
#[expect(clippy::disallowed_methods, reason = "this is the place where lab and xtask start programs")]
pub fn command(program: impl AsRef<OsStr>) -> Command {
    Command::new(program)
}

/// A command whose environment holds PATH and a neutral locale only, so that a
/// developer's `PGHOST` or a machine's `SSL_CERT_FILE` cannot decide a test.
pub fn clean_command(program: impl AsRef<OsStr>) -> Command {
    let mut command = command(program);
    command.env_clear().env("PATH", search_path()).env("LC_ALL", "C.UTF-8");
    command
}

/// The value of an environment variable, `None` when it is unset or empty.
#[expect(clippy::disallowed_methods, reason = "this is the place where lab and xtask read the environment")]
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The search path for programs: PATH and the directories where Debian keeps servers.
pub fn search_path() -> String {
    let path = environment("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".to_owned());
    format!("{path}:/usr/local/sbin:/usr/sbin:/sbin")
}

/// Where a program lies on the [`search_path`].
pub fn find_program(name: &str) -> Option<PathBuf> {
    search_path().split(':').map(|directory| Path::new(directory).join(name)).find(|path| path.is_file())
}

/// Like [`find_program`], with an error that names the cure.
pub fn need_program(name: &str) -> Result<PathBuf> {
    find_program(name)
        .ok_or_else(|| LabError::new(format!("the program `{name}` is not installed; run `cargo xtask setup`")))
}

/// Runs a command to its end, feeding it `stdin`, and collects what it says.
/// A program that hangs is killed and is an error.
pub fn run(command: &mut Command, stdin: &[u8]) -> Result<Output> {
    run_within(command, stdin, CLIENT_DEADLINE)
}

/// [`run`] with a deadline of one's own.
pub fn run_within(command: &mut Command, stdin: &[u8], deadline: Duration) -> Result<Output> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .could_not(|| format!("start {name}"))?;
    let (Some(mut input), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(LabError::new(format!("{name} was started without pipes")));
    };
    let stdin = stdin.to_vec();
    // A program may stop reading early (EPIPE) or never start to; both are its business.
    // Not joined: a program that hangs would hold up its own deadline.
    thread::spawn(move || drop(input.write_all(&stdin)));
    let stdout = thread::spawn(move || read_all(stdout));
    let stderr = thread::spawn(move || read_all(stderr));
    let Ok(status) = wait_until(&format!("{name} to end"), deadline, || child.try_wait().ok().flatten()) else {
        drop(child.kill());
        drop(child.wait());
        let said = if stderr.is_finished() { stderr.join().unwrap_or_default() } else { String::new() };
        return Err(LabError::new(format!("{name} did not end within {deadline:?} and was killed; it said: {said}")));
    };
    Ok(Output {
        status: status_number(status),
        stdout: stdout.join().unwrap_or_default(),
        stderr: stderr.join().unwrap_or_default(),
    })
}

/// The exit status as a shell would say it.
pub fn status_number(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

fn read_all(mut stream: impl Read) -> String {
    let mut bytes = Vec::new();
    drop(stream.read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Asks `probe` again and again until it answers, or until `deadline` has passed.
pub fn wait_until<T>(what: &str, deadline: Duration, mut probe: impl FnMut() -> Option<T>) -> Result<T> {
    let begun = Instant::now();
    let mut pause = Duration::from_micros(500);
    loop {
        if let Some(answer) = probe() {
            return Ok(answer);
        }
        if begun.elapsed() > deadline {
            return Err(LabError::new(format!("waited {deadline:?} for {what}, in vain")));
        }
        #[expect(clippy::disallowed_methods, reason = "the pause between two questions of this very helper")]
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

/// A program owned by the lab: stopped on drop, and by its guard when this process is gone.
#[derive(Debug)]
pub struct Owned {
    child: Child,
    guard: Child,
    ending: Ending,
}

/// How a program is asked to end before it is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// SIGQUIT first: PostgreSQL then gives its shared memory segment back, which SIGKILL would leak.
    Quit,
    /// SIGKILL at once.
    Kill,
}

/// Waits for the end of its input, which comes when the harness is gone for
/// whatever reason; the word "done" says that the harness has cleaned up itself.
/// A zombie, which nobody may be left to reap, has a process id and no `exe`.
const GUARD: &str = r#"
read -r word && exit 0
all="$1 $(cat /proc/"$1"/task/*/children 2>/dev/null)"
kill -CONT $all
if [ "$2" = QUIT ]; then
    kill -QUIT "$1"
    i=0; while [ -e "/proc/$1/exe" ] && [ $i -lt 20 ]; do sleep 0.05; i=$((i + 1)); done
fi
kill -KILL $all
kill -KILL -- "-$1"
[ -z "$3" ] || rm -rf -- "$3"
"#;

impl Owned {
    /// Starts `command` in a process group of its own. When this process ends
    /// without dropping the value, the guard ends the program and removes `directory`.
    pub fn start(command: &mut Command, ending: Ending, directory: Option<&Path>) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command.stdin(Stdio::null()).process_group(0).spawn().could_not(|| format!("start {name}"))?;
        let guard = clean_command("/bin/sh")
            .args(["-c", GUARD, "turnlock-lab-guard", &child.id().to_string()])
            .arg(if ending == Ending::Quit { "QUIT" } else { "KILL" })
            .arg(directory.unwrap_or(Path::new("")))
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        match guard {
            Ok(guard) => Ok(Self { child, guard, ending }),
            Err(error) => {
                drop(child.kill());
                drop(child.wait());
                Err(LabError::new(format!("could not start the guard of {name}: {error}")))
            }
        }
    }

    /// The program's process id, which is also its process group.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The exit status once the program has ended, `None` while it runs.
    pub fn ended(&mut self) -> Option<i32> {
        self.child.try_wait().ok().flatten().map(status_number)
    }

    /// Freezes the program and its children: connections stay open and nothing
    /// answers. Returns once they stand still, which a signal alone does not promise.
    pub fn pause(&self) {
        drop(wait_until("a server to stand still", Duration::from_secs(5), || {
            // Again each time: a child may have been born before the leader stood still.
            self.signal_all("STOP");
            std::iter::once(self.id()).chain(children(self.id())).all(stands_still).then_some(())
        }));
    }

    /// Lets a paused program go on.
    pub fn resume(&self) {
        self.signal_all("CONT");
    }

    /// Sends SIGINT or SIGTERM, then waits for an orderly end.
    pub fn stop(&mut self, interrupt: bool, patience: Duration) -> Result<i32> {
        self.resume();
        signal(self.child.id(), if interrupt { "INT" } else { "TERM" });
        let child = &mut self.child;
        wait_until("a server to shut down", patience, || child.try_wait().ok().flatten()).map(status_number)
    }

    fn signal_all(&self, name: &str) {
        // The leader first: a stopped postmaster starts no further children behind our back.
        signal(self.id(), name);
        for child in children(self.id()) {
            signal(child, name);
        }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        if self.ended().is_none() {
            // PostgreSQL's backends leave the process group, so the group alone is not enough.
            let all = children(self.id());
            self.resume();
            if self.ending == Ending::Quit {
                signal(self.id(), "QUIT");
                let child = &mut self.child;
                drop(wait_until("a server to quit", Duration::from_secs(2), || child.try_wait().ok().flatten()));
            }
            if self.ended().is_none() {
                signal_group(self.id());
                drop(self.child.kill());
                all.into_iter().for_each(|child| signal(child, "KILL"));
                drop(self.child.wait());
            }
        }
        if let Some(mut pipe) = self.guard.stdin.take() {
            drop(pipe.write_all(b"done\n"));
        }
        drop(self.guard.wait());
    }
}

/// Sends a signal to one process; one that is gone already is fine.
pub fn signal(id: u32, name: &str) {
    use rustix::process::{Pid, Signal, kill_process};
    let signal = match name {
        "STOP" => Signal::STOP,
        "CONT" => Signal::CONT,
        "QUIT" => Signal::QUIT,
        "INT" => Signal::INT,
        "TERM" => Signal::TERM,
        "HUP" => Signal::HUP,
        "ABRT" => Signal::ABORT,
        _ => Signal::KILL,
    };
    if let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

fn signal_group(leader: u32) {
    use rustix::process::{Pid, Signal, kill_process_group};
    if let Some(pid) = i32::try_from(leader).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

fn stands_still(id: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    // The name before the state is in brackets and may hold anything. A zombie stands still, too.
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['T', 't', 'Z', 'X']))
}

/// The direct children of a process, through all of its threads.
pub fn children(id: u32) -> Vec<u32> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{id}/task")) else {
        return Vec::new();
    };
    tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|line| line.split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<u32>>())
        .collect()
}

/// Makes a command run as another user when this process is root (PostgreSQL
/// refuses to run as root); without root a server runs as whoever started it.
pub fn run_as(command: &mut Command, user: Option<&User>) {
    if let Some(user) = user {
        command.uid(user.uid).gid(user.gid);
    }
}

/// An operating system user that a server runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// The numeric user id.
    pub uid: u32,
    /// The numeric primary group id.
    pub gid: u32,
}

impl User {
    /// Whether this process is root.
    pub fn is_root() -> bool {
        rustix::process::geteuid().is_root()
    }

    /// The user to run a server as: `name` when this process is root, otherwise `None`.
    pub fn for_server(name: &str) -> Result<Option<Self>> {
        if !Self::is_root() {
            return Ok(None);
        }
        let users = std::fs::read_to_string("/etc/passwd").could_not(|| "read /etc/passwd".to_owned())?;
        users
            .lines()
            .find_map(|line| {
                let mut fields = line.split(':');
                (fields.next() == Some(name)).then_some(())?;
                Some(Self { uid: fields.nth(1)?.parse().ok()?, gid: fields.next()?.parse().ok()? })
            })
            .map(Some)
            .ok_or_else(|| LabError::new(format!("there is no user `{name}` here; run `cargo xtask setup`")))
    }
}

/// Where throw-away directories live: in memory when there is plenty of it for that, because a
/// data directory is a thousand files, and a disk takes seconds to create them
/// where memory takes tens of milliseconds. A developer's TMPDIR wins.
pub fn ground() -> PathBuf {
    const PLENTY: u64 = 2 << 30;
    let memory = Path::new("/dev/shm");
    let roomy = rustix::fs::statvfs(memory).is_ok_and(|found| found.f_bavail.saturating_mul(found.f_frsize) > PLENTY);
    if environment("TMPDIR").is_none() && roomy { memory.to_owned() } else { std::env::temp_dir() }
}

/// Puts a program at another place.
pub fn put_program(program: &Path, place: &Path) -> Result<()> {
    // A copy that was just written can be "busy" when another thread forks at
    // that moment; a link cannot. Two file systems leave no choice.
    if std::fs::hard_link(program, place).is_err() {
        std::fs::copy(program, place).could_not(|| format!("copy {}", program.display()))?;
    }
    Ok(())
}

/// Writes a small file of the lab's own; nothing here needs to survive a power cut.
pub fn write_file(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    #[expect(clippy::disallowed_methods, reason = "throw-away files of tests; the durable writer is for vaults")]
    std::fs::write(path, content).could_not(|| format!("write {}", path.display()))
}
