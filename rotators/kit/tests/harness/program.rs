//! Talks to a rotator's process. Every wait is for a line or an exit, with a
//! deadline.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Longer than anything here takes, so that only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(20);

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

/// One-shot: standard input in, everything else out.
pub(crate) fn call(command: &mut Command, input: impl AsRef<[u8]>, stdout: impl Into<Stdio>) -> Ended {
    let mut child = started(command.stdin(Stdio::piped()).stdout(stdout).stderr(Stdio::piped()));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.as_ref().to_vec();
    // A program that does not read its input is no reason to fail here.
    thread::spawn(move || drop(stdin.write_all(&input)));
    ended(child)
}

/// Everything that a program leaves behind; its standard output, if it is a pipe.
pub(crate) fn ended(mut child: Child) -> Ended {
    let stdout = child.stdout.take().map(drain);
    let stderr = drain(child.stderr.take().unwrap());
    Ended {
        status: wait(child),
        stdout: stdout.map_or_else(String::new, |text| text.recv_timeout(PATIENCE).unwrap()),
        stderr: stderr.recv_timeout(PATIENCE).unwrap(),
    }
}

/// A program that has begun. Where there is too much to do, wine may tell of an
/// internal error instead of starting one.
fn started(command: &mut Command) -> Child {
    const INTERNAL_ERROR: i32 = 1359;
    for _ in 0..3 {
        match command.spawn() {
            Err(error) if cfg!(windows) && error.raw_os_error() == Some(INTERNAL_ERROR) => {}
            begun => return begun.unwrap(),
        }
    }
    command.spawn().unwrap()
}

/// A serving rotator, and the host's side of the conversation.
pub(crate) struct Serving {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    stderr: Receiver<String>,
    pub(crate) hello: Value,
    asked: u64,
}

impl Serving {
    pub(crate) fn of(command: &mut Command) -> Self {
        let mut child = started(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()));
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

/// Waits for a process, and kills it when it does not end.
fn wait(mut child: Child) -> i32 {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().unwrap_or(-1);
        }
        if begun.elapsed() > PATIENCE {
            let _ = child.kill();
            panic!("the program did not end");
        }
        #[expect(clippy::disallowed_methods, reason = "the pause between two looks at a program that is ending")]
        thread::sleep(Duration::from_millis(1));
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
