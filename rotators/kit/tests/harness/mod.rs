//! Talks to the fixture's processes. Nothing here sleeps: every wait is for a
//! line or an exit, with a deadline.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::fs::{File, read_to_string};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

/// Longer than anything here takes, so that only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const OLD: &str = "old-canary-1111";
pub(crate) const NEW: &str = "new-canary-2222";

/// A file that holds a password, and what was asked of it.
pub(crate) struct Target {
    pub(crate) directory: TempDir,
}

impl Target {
    pub(crate) fn holding(text: &str) -> Self {
        let target = Self { directory: TempDir::new().unwrap() };
        target.put("password", text);
        target
    }

    pub(crate) fn put(&self, name: &str, text: &str) {
        let mut file = File::create(self.directory.path().join(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("password")
    }

    pub(crate) fn holds(&self) -> String {
        read_to_string(self.path()).unwrap()
    }

    pub(crate) fn of(&self, name: &str) -> String {
        read_to_string(self.directory.path().join(name)).unwrap_or_default()
    }

    /// What was asked of it, in order.
    pub(crate) fn log(&self) -> Vec<String> {
        self.of("password.log").lines().map(str::to_owned).collect()
    }

    /// An account of the fixture `database`, with more fields.
    pub(crate) fn account(&self, more: Value) -> Value {
        let mut account = json!({"target": self.path(), "login": "app"});
        merge(&mut account, more);
        account
    }

    /// Params of `apply` and of `rotate`.
    pub(crate) fn change(&self, more: Value) -> Value {
        json!({
            "protocol": 1,
            "deadline_ms": 15_000,
            "account": self.account(more),
            "current": {"password": OLD},
            "next": {"password": NEW},
            "attempt": "a-1",
        })
    }
}

pub(crate) fn merge(into: &mut Value, more: Value) {
    let (Value::Object(into), Value::Object(more)) = (into, more) else {
        return;
    };
    into.extend(more);
}

/// What a process left behind.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn lines(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap();
        self.stdout.lines().map(parse).collect()
    }

    pub(crate) fn last(&self) -> Value {
        self.lines().pop().unwrap_or_default()
    }
}

#[expect(clippy::disallowed_methods, reason = "the tests' one place that starts a fixture")]
fn fixture(plugin: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kit-fixture"));
    command.arg0(format!("turnlock-{plugin}")).args(arguments).env_clear().current_dir("/");
    command
}

/// Waits for a process, and kills it when it does not end.
fn wait(mut child: Child) -> i32 {
    let pid = child.id();
    let (sender, receiver) = channel();
    thread::spawn(move || sender.send(child.wait()));
    match receiver.recv_timeout(PATIENCE) {
        Ok(status) => status.unwrap().code().unwrap_or(-1),
        Err(_) => {
            let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            panic!("the fixture did not end");
        }
    }
}

fn drain(mut from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut text = Vec::new();
        let _ = from.read_to_end(&mut text);
        let _ = sender.send(String::from_utf8_lossy(&text).into_owned());
    });
    receiver
}

/// One-shot: arguments and standard input in, everything else out.
pub(crate) fn call(plugin: &str, arguments: &[&str], input: impl AsRef<[u8]>) -> Ended {
    call_into(plugin, arguments, input, Stdio::piped())
}

/// One-shot, with another standard output.
pub(crate) fn call_into(plugin: &str, arguments: &[&str], input: impl AsRef<[u8]>, stdout: impl Into<Stdio>) -> Ended {
    let mut child =
        fixture(plugin, arguments).stdin(Stdio::piped()).stdout(stdout).stderr(Stdio::piped()).spawn().unwrap();
    let stdout = child.stdout.take().map(drain);
    let stderr = drain(child.stderr.take().unwrap());
    let mut stdin = child.stdin.take().unwrap();
    // A fixture that does not read its input is no reason to fail here.
    let _ = stdin.write_all(input.as_ref());
    drop(stdin);
    Ended {
        status: wait(child),
        stdout: stdout.map_or_else(String::new, |text| text.recv_timeout(PATIENCE).unwrap()),
        stderr: stderr.recv_timeout(PATIENCE).unwrap(),
    }
}

/// One-shot, started with its standard output closed.
pub(crate) fn call_closed(arguments: &str, input: &str) -> Ended {
    #[expect(clippy::disallowed_methods, reason = "only a shell can close a descriptor")]
    let mut command = Command::new("/bin/sh");
    let mut child = command
        .arg("-c")
        .arg(format!("exec \"$0\" {arguments} >&-"))
        .arg(env!("CARGO_BIN_EXE_kit-fixture"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    ended(child)
}

/// One-shot with a terminal as standard input.
pub(crate) fn call_at_terminal(plugin: &str, arguments: &[&str], terminal: File) -> Ended {
    let child =
        fixture(plugin, arguments).stdin(terminal).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    ended(child)
}

fn ended(mut child: Child) -> Ended {
    let stdout = drain(child.stdout.take().unwrap());
    let stderr = drain(child.stderr.take().unwrap());
    Ended {
        status: wait(child),
        stdout: stdout.recv_timeout(PATIENCE).unwrap(),
        stderr: stderr.recv_timeout(PATIENCE).unwrap(),
    }
}

/// A serving fixture, and the host's side of the conversation.
pub(crate) struct Serving {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    stderr: Receiver<String>,
    pub(crate) hello: Value,
    asked: u64,
}

impl Serving {
    pub(crate) fn start(plugin: &str) -> Self {
        let mut child = fixture(plugin, &["serve"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in stdout.lines() {
                if sender.send(line.unwrap()).is_err() {
                    return;
                }
            }
        });
        let mut serving = Self {
            stdin: child.stdin.take(),
            stderr: drain(child.stderr.take().unwrap()),
            child,
            lines,
            hello: Value::Null,
            asked: 0,
        };
        let hello = serving.lines.recv_timeout(Duration::from_secs(5)).unwrap();
        serving.hello = serde_json::from_str(&hello).unwrap();
        serving
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(bytes.as_ref()).unwrap();
        stdin.flush().unwrap();
    }

    pub(crate) fn say(&mut self, message: &Value) {
        self.send(format!("{message}\n"));
    }

    /// A request; its id.
    pub(crate) fn ask(&mut self, method: &str, params: &Value) -> u64 {
        self.asked += 1;
        let id = self.asked;
        self.say(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        id
    }

    /// The next message.
    pub(crate) fn hear(&self) -> Value {
        serde_json::from_str(&self.hear_text()).unwrap()
    }

    pub(crate) fn hear_text(&self) -> String {
        self.lines.recv_timeout(PATIENCE).unwrap()
    }

    /// Answers the request `threshold` that comes next.
    pub(crate) fn answer_threshold(&mut self, answer: &Value) {
        let threshold = self.hear();
        assert_eq!(threshold["method"], "threshold", "{threshold}");
        assert_eq!(threshold["params"]["id"], self.asked);
        assert!(threshold["id"].is_string());
        self.say(&json!({"jsonrpc": "2.0", "id": threshold["id"], "result": answer}));
    }

    pub(crate) fn permit(&mut self) {
        self.answer_threshold(&json!({"proceed": true}));
    }

    pub(crate) fn close(&mut self) {
        self.stdin = None;
    }

    /// Closes its input and takes what it still says.
    pub(crate) fn end(mut self) -> Ended {
        self.stdin = None;
        self.left()
    }

    /// What it still says, without its input being closed.
    pub(crate) fn left(self) -> Ended {
        let mut rest = String::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => rest += &format!("{line}\n"),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it does not end; it said {rest}"),
            }
        }
        Ended { status: wait(self.child), stdout: rest, stderr: self.stderr.recv_timeout(PATIENCE).unwrap() }
    }
}

/// The parts of an error that callers decide by.
pub(crate) fn kind_and_applied(reply: &Value) -> (String, String) {
    let data = &reply["error"]["data"];
    let text = |name: &str| data[name].as_str().unwrap_or("none").to_owned();
    (text("kind"), text("applied"))
}

/// Params whose secret is still to be made.
pub(crate) fn without_next(mut params: Value) -> String {
    params.as_object_mut().unwrap().remove("next");
    params.to_string()
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

/// The same account with a shorter list of hosts.
pub(crate) fn only(account: &Value, hosts: &[&str]) -> Value {
    let mut account = account.clone();
    account["hosts"] = json!(hosts);
    account
}
