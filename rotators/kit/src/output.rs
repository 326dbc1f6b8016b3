//! The two ways out: standard output for the protocol, standard error for people.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::cleared::Cleared;
use crate::system;

/// Writes one line for people.
pub(crate) fn to_people(text: &str) {
    // Nobody may be there to read it, and nothing depends on it.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Writes a text that was asked for (`--help`, `--version`) to standard output.
pub(crate) fn answer_people(text: &str) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// The protocol's own standard output. While it is open, everybody else's
/// is standard error, so that a stray print of a library cannot forge a message.
#[derive(Debug)]
pub(crate) struct Output {
    file: RefCell<File>,
}

impl Output {
    /// Takes standard output over.
    pub(crate) fn take_stdout() -> io::Result<Self> {
        Ok(Self { file: RefCell::new(system::take_stdout()?) })
    }

    /// Whether a person would see what is written.
    pub(crate) fn is_terminal(&self) -> bool {
        self.file.borrow().is_terminal()
    }

    /// Whether everything written is lost: to the null device, or because
    /// there was no standard output when the process started.
    pub(crate) fn is_lost(&self) -> bool {
        system::is_lost(&self.file.borrow())
    }

    /// Writes one message and its line end at once.
    pub(crate) fn line(&self, message: &impl Serialize) -> io::Result<()> {
        let mut line = Cleared::with_capacity(4096);
        serde_json::to_writer(&mut line, message)?;
        line.extend(b"\n");
        self.file.borrow_mut().write_all(&line.into_bytes())
    }

    /// Makes what was written durable where standard output is a regular file.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let file = self.file.borrow();
        if system::is_on_disk(&file)? { file.sync_all() } else { Ok(()) }
    }
}
