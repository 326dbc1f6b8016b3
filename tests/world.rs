//! One person's Turnlock: a vault of one's own, and questions about it.
#![allow(dead_code, reason = "every test program asks its own part of these questions")]

use std::{
    fs,
    io::{Read, Write},
    process::{Child, Command, Stdio},
    thread::{self, JoinHandle},
    time::Duration,
};

use lab::{Output, Turnlock, process, wait_until};
use serde_json::Value;

/// Nothing a test starts has a reason to take longer.
const PATIENCE: Duration = Duration::from_secs(90);

/// A home with a vault that a key file opens.
pub(crate) struct World {
    pub(crate) turnlock: Turnlock,
    /// The vault, where it is not the home's own.
    pub(crate) vault: Option<String>,
}

/// A record's fields, as `turnlock add` takes them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fields {
    pub(crate) login: String,
    pub(crate) url: Option<String>,
    pub(crate) custom: Vec<String>,
}

impl Fields {
    /// With one more custom field.
    pub(crate) fn with(mut self, field: impl Into<String>) -> Self {
        self.custom.push(field.into());
        self
    }

    /// Without a custom field.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.custom.retain(|field| field.split('=').next() != Some(name));
        self
    }
}

impl World {
    /// A new home with an empty vault.
    pub(crate) fn new() -> Self {
        Self::at(Turnlock::new().unwrap())
    }

    /// A new home with an empty vault, whose programs run in a host's box.
    pub(crate) fn within(host: &lab::UnixHost, login: Option<&str>) -> Self {
        Self::at(Turnlock::within(host, login).unwrap())
    }

    /// An empty vault in this home.
    pub(crate) fn at(turnlock: Turnlock) -> Self {
        let world = Self { turnlock, vault: None };
        world.ok(&["vault", "init"]);
        world
    }

    /// A new home with nothing in it.
    pub(crate) fn without_vault() -> Self {
        Self { turnlock: Turnlock::new().unwrap(), vault: None }
    }

    /// Where programs of this world put temporary files.
    pub(crate) fn temporary(&self) -> std::path::PathBuf {
        self.turnlock.home().join("tmp")
    }

    /// Writes this configuration, and none else.
    #[track_caller]
    pub(crate) fn configure(&self, toml: &str) {
        let directory = self.turnlock.config_directory().join("turnlock");
        fs::create_dir_all(&directory).unwrap();
        process::write_file(&directory.join("turnlock.toml"), toml).unwrap();
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.turnlock.command(arguments).unwrap();
        command.env("TURNLOCK_KEY_FILE", self.turnlock.key_file()).env("TMPDIR", self.temporary());
        if let Some(vault) = &self.vault {
            command.env("TURNLOCK_VAULT", vault);
        }
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.run_with(arguments, "")
    }

    pub(crate) fn run_with(&self, arguments: &[&str], stdin: &str) -> Output {
        process::run_within(&mut self.command(arguments), stdin.as_bytes(), PATIENCE).unwrap()
    }

    /// Runs what must succeed.
    #[track_caller]
    pub(crate) fn ok(&self, arguments: &[&str]) -> Output {
        self.ok_with(arguments, "")
    }

    #[track_caller]
    pub(crate) fn ok_with(&self, arguments: &[&str], stdin: &str) -> Output {
        let output = self.run_with(arguments, stdin);
        assert_eq!(output.status, 0, "turnlock {arguments:?}: {}{}", output.stdout, output.stderr);
        output
    }

    /// Runs what must end with this status, and gives the error it reports.
    #[track_caller]
    pub(crate) fn fails(&self, status: i32, arguments: &[&str]) -> Value {
        self.fails_with(status, arguments, "")
    }

    #[track_caller]
    pub(crate) fn fails_with(&self, status: i32, arguments: &[&str], stdin: &str) -> Value {
        let output = self.run_with(&[arguments, &["-o", "json"]].concat(), stdin);
        error_of(status, arguments, &output)
    }

    /// The JSON lines that a command prints when it succeeds.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Vec<Value> {
        lines(&self.ok(&[arguments, &["-o", "json"]].concat()).stdout)
    }

    /// Adds a record with a password.
    #[track_caller]
    pub(crate) fn add(&self, title: &str, fields: &Fields, password: &str) {
        let login = format!("--login={}", fields.login);
        let mut arguments = vec!["add", title, "--password", "-", &login];
        if let Some(url) = &fields.url {
            arguments.extend(["--url", url]);
        }
        for field in &fields.custom {
            arguments.extend(["--set", field]);
        }
        self.ok_with(&arguments, password);
    }

    /// Makes the vault hold another password, as somebody who edits the record does.
    #[track_caller]
    pub(crate) fn edit_password(&self, title: &str, password: &str) {
        self.ok_with(&["edit", title, "--password", "-"], password);
    }

    /// The password that the vault holds as the current one.
    #[track_caller]
    pub(crate) fn password(&self, title: &str) -> String {
        let shown = self.json(&["show", title, "--field", "password"]);
        shown[0]["value"].as_str().unwrap().to_owned()
    }

    /// Past credentials of a record, newest first, in clear.
    #[track_caller]
    pub(crate) fn history(&self, title: &str) -> Vec<Value> {
        self.json(&["show", title, "--history", "--reveal"])
    }

    /// Past passwords of this kind: `previous` or `abandoned`.
    #[track_caller]
    pub(crate) fn past(&self, title: &str, kind: &str) -> Vec<String> {
        let of_kind = |past: &Value| (past["kind"] == kind).then(|| past["credential"]["password"].clone());
        self.history(title).iter().filter_map(of_kind).map(|password| password.as_str().unwrap().to_owned()).collect()
    }

    /// Candidates that are staged.
    #[track_caller]
    pub(crate) fn staged(&self, title: &str) -> Vec<String> {
        let candidate = |attempt: &Value| attempt["candidate"]["password"].as_str().map(str::to_owned);
        self.json(&["show", title, "--stage", "--reveal"]).iter().filter_map(candidate).collect()
    }

    /// Every secret of a record that might be alive: current, staged, abandoned, previous.
    #[track_caller]
    pub(crate) fn every_password(&self, title: &str) -> Vec<String> {
        let mut all = vec![self.password(title)];
        all.extend(self.staged(title));
        all.extend(self.past(title, "abandoned"));
        all.extend(self.past(title, "previous"));
        all
    }

    /// The vault's records and history are what they were when `before` was taken.
    #[track_caller]
    pub(crate) fn content(&self) -> String {
        self.ok(&["export"]).stdout
    }

    #[track_caller]
    pub(crate) fn nothing_is_open(&self) {
        let status = self.run(&["status", "-o", "json"]);
        assert_eq!((status.status, status.stdout.as_str()), (0, ""), "{}", status.stderr);
        assert_eq!(self.json(&["vault", "check"])[0]["problems"], serde_json::json!([]));
    }

    /// Starts a command and goes on.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        self.start_with(arguments, "")
    }

    pub(crate) fn start_with(&self, arguments: &[&str], stdin: &str) -> Running {
        Running::start(&mut self.command(arguments), stdin)
    }
}

/// The error of a command that ended with `status`.
#[track_caller]
pub(crate) fn error_of(status: i32, arguments: &[&str], output: &Output) -> Value {
    assert_eq!(output.status, status, "turnlock {arguments:?}: {}{}", output.stdout, output.stderr);
    let error = lines(&output.stdout).into_iter().rev().find(|line| line.get("error").is_some());
    let error =
        error.unwrap_or_else(|| panic!("turnlock {arguments:?} names no error: {}{}", output.stdout, output.stderr));
    assert_eq!(error["exit_status"], status);
    error
}

/// Output that must be one JSON value a line.
#[track_caller]
pub(crate) fn lines(text: &str) -> Vec<Value> {
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("no JSON ({error}): {line}"));
    text.lines().map(parse).collect()
}

/// A program that runs beside the test; killed when the test forgets it.
pub(crate) struct Running {
    child: Child,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
}

impl Running {
    pub(crate) fn start(command: &mut Command, stdin: &str) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
        let stdout = Some(collect(child.stdout.take().unwrap()));
        let stderr = Some(collect(child.stderr.take().unwrap()));
        Self { child, stdout, stderr }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        process::signal(self.id(), name);
    }

    /// The rotator it is speaking with, once there is one.
    pub(crate) fn rotator(&self) -> u32 {
        wait_until("a rotator to start", PATIENCE, || process::children(self.id()).first().copied()).unwrap()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Output {
        let child = &mut self.child;
        let status = wait_until("turnlock to end", PATIENCE, || child.try_wait().unwrap()).unwrap();
        Output {
            status: process::status_number(status),
            stdout: self.stdout.take().unwrap().join().unwrap(),
            stderr: self.stderr.take().unwrap().join().unwrap(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn collect(mut stream: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        drop(stream.read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
