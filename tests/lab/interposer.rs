//! A stand-in between orchestrator and rotator that kills one of them at a chosen message.
//!
//! A test puts the program `lab-interposer` under a rotator's name; it runs the
//! real rotator, passes every line on in both directions, writes down what kind
//! of message it was (never its content), and kills where the test wants it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    LabError, Result, bin,
    error::Context,
    process::{put_program, write_file},
};

/// The name of the configuration, beside the stand-in.
pub const CONFIG: &str = "interposer.json";
/// The file whose creation claims the kill.
pub const CLAIM: &str = "interposer.claimed";

/// What the stand-in is told, by `interposer.json` beside it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Config {
    /// The real rotator.
    pub program: PathBuf,
    /// Where it writes a line per message.
    pub log: PathBuf,
    /// Whom it kills, and when; `None` only listens.
    #[serde(default)]
    pub kill: Option<Kill>,
    /// What else it does, each once.
    #[serde(default)]
    pub strikes: Vec<Strike>,
}

/// A kill, or something milder, where one account is spoken of. For runs that have many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Strike {
    /// Whom, and when.
    pub kill: Kill,
    /// Only in a conversation in which this text was said.
    pub about: String,
    /// The signal: `KILL`, `TERM` or `STOP`.
    pub signal: String,
    /// After `STOP`: when it may go on.
    pub pause_ms: u64,
}

/// One kill. Only the first process that comes to it does it, so that a retry runs clean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kill {
    /// Who dies.
    pub victim: Victim,
    /// Messages of which direction are counted.
    pub direction: MessageDirection,
    /// The message's number in that direction, counted from 1.
    pub number: u64,
    /// Before or after the message is passed on.
    pub when: When,
}

/// Who dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Victim {
    /// The real rotator, and the stand-in with it: the orchestrator sees the end of the stream.
    Rotator,
    /// The stand-in's parent; the rotator goes on to its own end.
    Orchestrator,
}

/// Which way a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageDirection {
    /// From the orchestrator to the rotator.
    ToRotator,
    /// From the rotator to the orchestrator.
    FromRotator,
}

/// The moment of a kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// The message is never passed on.
    Before,
    /// The message was written and flushed.
    After,
}

/// What the log says of one message: enough to know which it was, nothing of what it said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The process that passed it on; a retry has another one.
    pub process: u32,
    /// Which way it went.
    pub direction: MessageDirection,
    /// Its number in that direction, counted from 1.
    pub number: u64,
    /// Its length, line end included.
    pub bytes: usize,
    /// `request`, `notification`, `result`, `error`, or `unreadable`.
    pub kind: String,
    /// The method of a request or notification.
    pub method: Option<String>,
    /// The id, as JSON.
    pub id: Option<String>,
}

/// A stand-in that lies in its place.
#[derive(Debug, Clone)]
pub struct Interposer {
    directory: PathBuf,
    log: PathBuf,
}

impl Interposer {
    /// [`Self::install`] beside another program, `turnlock` above all.
    pub fn beside(neighbour: &Path, program: &Path, kill: Option<Kill>) -> Result<Self> {
        Self::install(neighbour.parent().unwrap_or(neighbour), program, kill)
    }

    /// Puts the stand-in for `program` into `directory`, under the program's own name.
    pub fn install(directory: &Path, program: &Path, kill: Option<Kill>) -> Result<Self> {
        let name =
            program.file_name().ok_or_else(|| LabError::new(format!("{} has no file name", program.display())))?;
        let place = directory.join(name);
        if place.exists() {
            fs::remove_file(&place).could_not(|| format!("remove {}", place.display()))?;
        }
        put_program(&bin("lab-interposer")?, &place)?;
        let log = directory.join("interposer.log");
        let installed = Self { directory: directory.to_owned(), log };
        installed.configure(program, kill)?;
        Ok(installed)
    }

    /// Gives new orders and forgets who claimed the last kill; the log stays.
    pub fn configure(&self, program: &Path, kill: Option<Kill>) -> Result<()> {
        self.write_config(Config { program: program.to_owned(), log: self.log.clone(), kill, strikes: Vec::new() })?;
        forget(&self.directory.join(CLAIM))
    }

    /// [`Self::configure`] with any number of strikes.
    pub fn arm(&self, program: &Path, strikes: Vec<Strike>) -> Result<()> {
        (0..strikes.len()).try_for_each(|index| forget(&self.directory.join(claim_of(index))))?;
        self.write_config(Config { program: program.to_owned(), log: self.log.clone(), kill: None, strikes })
    }

    /// Whether the strike with this index has happened.
    pub fn has_struck(&self, index: usize) -> bool {
        self.directory.join(claim_of(index)).exists()
    }

    fn write_config(&self, config: Config) -> Result<()> {
        let text = serde_json::to_string(&config).map_err(|error| LabError::new(error.to_string()))?;
        // Moved into place: somebody may be reading it.
        let draft = self.directory.join("interposer.draft");
        write_file(&draft, text)?;
        fs::rename(&draft, self.directory.join(CONFIG)).could_not(|| format!("rename {}", draft.display()))
    }

    /// Every message so far, of all processes, in the order in which they were passed on.
    pub fn log(&self) -> Result<Vec<Message>> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        text.lines()
            .map(|line| {
                serde_json::from_str(line).map_err(|error| LabError::new(format!("interposer.log: {error}: {line}")))
            })
            .collect()
    }

    /// Whether the kill has happened.
    pub fn has_killed(&self) -> bool {
        self.directory.join(CLAIM).exists()
    }
}

/// The file whose creation claims the strike with this index.
pub fn claim_of(index: usize) -> String {
    format!("{CLAIM}.{index}")
}

fn forget(claim: &Path) -> Result<()> {
    match fs::remove_file(claim) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(LabError::new(format!("could not remove the claim: {error}")))
        }
        _ => Ok(()),
    }
}

/// Where a stand-in finds its configuration: beside the file it was started as,
/// or, when that is a symbolic link, beside the link.
pub fn find_config() -> Result<PathBuf> {
    let started = std::env::current_exe().ok();
    let called = std::env::args_os().next().map(PathBuf::from);
    [started, called]
        .into_iter()
        .flatten()
        .filter_map(|path| Some(path.parent()?.join(CONFIG)))
        .find(|path| path.is_file())
        .ok_or_else(|| LabError::new(format!("there is no {CONFIG} beside the stand-in")))
}
