//! What only a Unix lets a test do with the fixture.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use super::program::{self, Ended};

/// Makes a program believe that this is its name.
pub(super) fn name(command: &mut Command, plugin: &str) {
    command.arg0(format!("turnlock-{plugin}"));
}

/// One-shot, started with its standard output closed.
pub(crate) fn call_closed(arguments: &str, input: &str) -> Ended {
    #[expect(clippy::disallowed_methods, reason = "only a shell can close a descriptor")]
    let mut command = Command::new("/bin/sh");
    let script = format!("exec \"$0\" {arguments} >&-");
    command.arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_kit-fixture"));
    program::call(&mut command, input, Stdio::piped())
}

/// One-shot with a terminal as standard input.
pub(crate) fn call_at_terminal(plugin: &str, arguments: &[&str], terminal: File) -> Ended {
    let mut command = super::fixture(plugin, arguments);
    program::ended(command.stdin(terminal).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

/// A terminal: the end that a person would see, and the program's end.
pub(crate) fn terminal() -> (File, File) {
    use rustix::fs::{Mode, OFlags};
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&person).unwrap();
    unlockpt(&person).unwrap();
    let name = ptsname(&person, Vec::new()).unwrap();
    let program = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    (File::from(person), File::from(program))
}
