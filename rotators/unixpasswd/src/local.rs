//! Programs of this machine: on a terminal of their own where they ask, with
//! an environment that holds nothing of ours.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, tcgetattr, tcsetattr};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use turnlock_kit::dialogue::Program;
use turnlock_kit::{Fault, Kind, Secret};
use zeroize::Zeroizing;

/// More than this no program has to say to us.
const ENOUGH: usize = 1 << 20;
/// The user and group that no machine gives any right.
const NOBODY: u32 = 65_534;

/// A program on a terminal; ended when it is forgotten.
pub(crate) struct Local {
    child: Child,
    terminal: File,
    heard: usize,
    status: Option<u32>,
}

/// What a program left behind.
pub(crate) struct Ran {
    pub(crate) status: Option<u32>,
    output: Vec<u8>,
}

impl Ran {
    /// What it wrote, for people.
    pub(crate) fn said(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }
}

/// Whether this program runs as root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs a program to its end with this on its standard input.
pub(crate) async fn run(name: &str, arguments: &[&str], stdin: &[u8]) -> Result<Ran, Fault> {
    let mut child = command(name, arguments)?
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| not_started(name, &error))?;
    if let Some(mut pipe) = child.stdin.take() {
        // A program that reads nothing has its reasons, which its status tells.
        let _ = pipe.write_all(stdin).await;
    }
    let output = child.wait_with_output().await.map_err(|error| not_started(name, &error))?;
    let status = output.status.code().and_then(|code| u32::try_from(code).ok());
    Ok(Ran { status, output: [output.stdout, output.stderr].concat() })
}

/// What this machine holds of an account's password, where it is read at all:
/// root compares it, nobody looks at it.
pub(crate) async fn shadow_entry(login: &str) -> Option<Zeroizing<Vec<u8>>> {
    let ran = run("getent", &["shadow", "--", login], b"").await.ok()?;
    (ran.status == Some(0) && !ran.output.is_empty()).then(|| Zeroizing::new(ran.output))
}

impl Local {
    /// Starts a program on a terminal that shows nothing it is told. Neither
    /// `passwd` nor `su` wants it to be the controlling one.
    pub(crate) fn on_a_terminal(name: &str, arguments: &[&str], as_nobody: bool) -> Result<Self, Fault> {
        let (ours, theirs) = terminal()
            .map_err(|error| Fault::new(Kind::Internal, "this machine gives no terminal").caused_by(&error))?;
        let mut command = command(name, arguments)?;
        let again = || theirs.try_clone().map(Stdio::from).map_err(|error| not_started(name, &error));
        command.stdin(again()?).stdout(again()?).stderr(again()?);
        if as_nobody {
            command.uid(NOBODY).gid(NOBODY);
        }
        let child = command.spawn().map_err(|error| not_started(name, &error))?;
        let terminal = File::from_std(ours.into());
        Ok(Self { child, terminal, heard: 0, status: None })
    }
}

impl Program for Local {
    async fn hear(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        let mut bytes = [0u8; 4096];
        // A terminal that nobody has open any more ends with EIO.
        let count = self.terminal.read(&mut bytes).await.unwrap_or(0);
        self.heard += count;
        if self.heard > ENOUGH {
            return Err(Fault::new(Kind::Unsupported, "a program writes without end"));
        }
        if count == 0 {
            let status = self.child.wait().await.ok();
            self.status = status.and_then(|status| status.code()).and_then(|code| u32::try_from(code).ok());
            return Ok(None);
        }
        Ok(bytes.get(..count).map(<[u8]>::to_vec))
    }

    async fn type_line(&mut self, secret: &Secret) -> Result<(), Fault> {
        #[expect(clippy::disallowed_methods, reason = "the program asks for it")]
        let line = Zeroizing::new(format!("{}\n", secret.expose()));
        let gone = |error| Fault::new(Kind::Internal, "the program's terminal is gone").caused_by(&error);
        self.terminal.write_all(line.as_bytes()).await.map_err(gone)?;
        self.terminal.flush().await.map_err(gone)
    }

    fn status(&self) -> Option<u32> {
        self.status
    }
}

/// Both ends of a new terminal. It takes every character but the newline for
/// what it is.
fn terminal() -> io::Result<(OwnedFd, OwnedFd)> {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    let name = ptsname(&ours, Vec::new())?;
    let theirs = rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    let mut modes = tcgetattr(&theirs)?;
    modes.local_modes &= !(LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ISIG | LocalModes::IEXTEN);
    for code in [SpecialCodeIndex::VEOF, SpecialCodeIndex::VERASE, SpecialCodeIndex::VKILL] {
        modes.special_codes[code] = 0;
    }
    modes.input_modes = rustix::termios::InputModes::empty();
    modes.output_modes = rustix::termios::OutputModes::empty();
    tcsetattr(&theirs, OptionalActions::Now, &modes)?;
    Ok((ours, theirs))
}

fn command(name: &str, arguments: &[&str]) -> Result<Command, Fault> {
    let path = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"]
        .iter()
        .map(|directory| Path::new(directory).join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| Fault::new(Kind::Unsupported, format!("this machine has no {name}")))?;
    let mut command = Command::new(path);
    command.args(arguments).env_clear().env("LC_ALL", "C").env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.current_dir("/").kill_on_drop(true);
    Ok(command)
}

fn not_started(name: &str, error: &io::Error) -> Fault {
    Fault::new(Kind::Internal, format!("{name} could not be run")).caused_by(error)
}
