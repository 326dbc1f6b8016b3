//! A private Python with the clients that check the lab's stand-ins, made by
//! `cargo xtask setup` in the lab's cache.

use std::{
    cell::RefCell,
    hash::{DefaultHasher, Hash, Hasher},
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::Value;

use crate::{
    LabError, Result,
    error::Context,
    process::{self, clean_command},
};

/// Names and versions of the packages.
pub const REQUIREMENTS: &str = include_str!("requirements.txt");

/// The virtual environment with exactly these packages: there as a whole or
/// not at all, and other requirements mean another one.
pub fn environment() -> PathBuf {
    let mut hasher = DefaultHasher::new();
    REQUIREMENTS.hash(&mut hasher);
    cache().join("python").join(format!("{:016x}", hasher.finish()))
}

/// Where the lab keeps what it downloaded. Root's servers run as users who
/// cannot enter root's home, so root's cache is the system's.
pub fn cache() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/cache/turnlock-lab");
    }
    let home = || PathBuf::from(process::environment("HOME").unwrap_or_else(|| "/".to_owned())).join(".cache");
    process::environment("XDG_CACHE_HOME").map_or_else(home, PathBuf::from).join("turnlock-lab")
}

/// The Python that finds these packages.
pub(crate) fn program() -> Result<PathBuf> {
    let python = environment().join("bin/python");
    if python.is_file() {
        return Ok(python);
    }
    Err(LabError::new("the lab's Python packages are not installed; run `cargo xtask setup`"))
}

/// Runs a script with these packages.
pub fn script(text: &str, arguments: &[&str]) -> Result<Command> {
    let mut command = clean_command(program()?);
    command.args(["-I", "-c", text]).args(arguments);
    Ok(command)
}

/// A vendor's library, kept running: it takes longer to load than to ask. It
/// ends with its standard input, so that it never outlives a test.
pub(crate) struct Client {
    name: &'static str,
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Client {
    /// Starts a script that answers one line of JSON with another.
    pub(crate) fn start(name: &'static str, text: &str, arguments: &[&str]) -> Result<Self> {
        let mut child = script(text, arguments)?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .could_not(|| format!("start {name}"))?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(questions), Some(answers)) => Ok(Self { name, child, questions, answers: BufReader::new(answers) }),
            _ => Err(LabError::new(format!("{name} was started without pipes"))),
        }
    }

    fn ask(&mut self, question: &Value) -> Result<Value> {
        let (name, mut line) = (self.name, String::new());
        self.questions.write_all(format!("{question}\n").as_bytes()).could_not(|| format!("ask {name}"))?;
        self.answers.read_line(&mut line).could_not(|| format!("hear {name}"))?;
        serde_json::from_str(&line).map_err(|error| LabError::new(format!("{name} said {line:?}: {error}")))
    }
}

/// A client that is started when it is first asked.
#[derive(Default)]
pub(crate) struct OnDemand(RefCell<Option<Client>>);

impl OnDemand {
    /// Asks one question, of the client that `start` makes unless it is there.
    pub(crate) fn ask(&self, start: impl FnOnce() -> Result<Client>, question: &Value) -> Result<Value> {
        match &mut *self.0.borrow_mut() {
            Some(client) => client.ask(question),
            client => client.insert(start()?).ask(question),
        }
    }

    /// Ends it; the next question finds another one.
    pub(crate) fn end(&self) {
        self.0.take();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
