//! A conversation in which the host may say anything, also what no host
//! should. Every wait is for a line or an end, and has a limit.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use turnlock_protocol::message::{Hello, MintedParams, RpcError, ThresholdParams, object};
use turnlock_protocol::{Credential, HELLO_WITHIN_MS, Incoming, Kind, MAX_LINE, Operation, RequestId};
use zeroize::Zeroizing;

use super::bench::Watch;
use super::{Stopped, broken, must};
use crate::child;

/// How long an operation may take.
pub(super) const DEADLINE_MS: u64 = 30_000;
/// How much longer than its deadline an answer is waited for.
const SLACK: Duration = Duration::from_secs(5);
/// How long anything else is waited for.
const PATIENCE: Duration = Duration::from_secs(35);
/// How long a process may take to end once nothing is left to do.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// A rotator that serves.
pub(super) struct Dialogue {
    process: Process,
    input: Option<ChildStdin>,
    lines: Receiver<Line>,
    errors: Receiver<Zeroizing<Vec<u8>>>,
    watch: Rc<Watch>,
    asked: u64,
    /// How long the next message is waited for.
    patience: Duration,
}

/// What came out of standard output.
enum Line {
    Whole(Zeroizing<Vec<u8>>),
    TooLong,
    Unfinished,
}

/// What the rotator said, progress and log aside.
pub(super) enum Said {
    /// It asks for a permit.
    Threshold { id: RequestId, about: u64 },
    /// The target made this credential.
    Minted { id: RequestId, next: Credential },
    /// It answers with a result, whose line this is.
    Result { id: RequestId, line: Zeroizing<Vec<u8>> },
    /// It answers with an error.
    Error { id: Option<RequestId>, error: RpcError },
    /// It says nothing any more.
    End,
}

/// How a process ended that was called for one operation.
pub(super) struct Ended {
    pub(super) status: i32,
    pub(super) output: Zeroizing<Vec<u8>>,
}

impl Dialogue {
    /// Starts a rotator and hears its hello.
    pub(super) fn start(command: &mut Command, watch: &Rc<Watch>) -> Result<(Self, Hello), Stopped> {
        let mut child = command
            .arg("serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| broken(format!("it cannot be started: {error}")))?;
        let output = child.stdout.take();
        let (sender, lines) = channel();
        thread::spawn(move || {
            let Some(output) = output else {
                return;
            };
            let mut output = BufReader::new(output);
            while let Some(line) = read_line(&mut output) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let errors = drained(child.stderr.take());
        let input = child.stdin.take();
        let mut dialogue = Self {
            process: Process::of(child),
            input,
            lines,
            errors,
            watch: Rc::clone(watch),
            asked: 0,
            patience: PATIENCE,
        };
        let line = dialogue.line(Duration::from_millis(HELLO_WITHIN_MS))?;
        let line = line.ok_or_else(|| broken("it ended before it said hello"))?;
        match Incoming::parse(&line) {
            Ok(Incoming::Notification { method: "hello", params: Some(params) }) => {
                let hello = object(params).map_err(|_| broken("its hello does not fit"))?;
                Ok((dialogue, hello))
            }
            _ => Err(broken("its first line is no hello")),
        }
    }

    /// Sends bytes as they are.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<(), Stopped> {
        let Some(input) = &mut self.input else {
            return Err(broken("its input is closed already"));
        };
        input.write_all(bytes).and_then(|()| input.flush()).map_err(|_| broken("it closed its input"))
    }

    /// Sends a message.
    pub(super) fn say(&mut self, message: &impl Serialize) -> Result<(), Stopped> {
        let mut line = Zeroizing::new(Vec::with_capacity(8 * 1024));
        serde_json::to_writer(&mut *line, message).map_err(|_| broken("a message cannot be written as JSON"))?;
        line.push(b'\n');
        self.send(&line)
    }

    /// A request with any method and params. Its id.
    pub(super) fn request(&mut self, method: &str, params: &Value) -> Result<u64, Stopped> {
        self.asked += 1;
        self.say(&json!({"jsonrpc": "2.0", "id": self.asked, "method": method, "params": params}))?;
        Ok(self.asked)
    }

    /// A request that a host makes. Its id.
    pub(super) fn ask(
        &mut self,
        operation: Operation,
        params: &impl Serialize,
        deadline_ms: u64,
    ) -> Result<u64, Stopped> {
        self.asked += 1;
        self.patience = Duration::from_millis(deadline_ms) + SLACK;
        let id = RequestId::Host(self.asked);
        self.say(&child::request(id, operation, params, deadline_ms))?;
        Ok(self.asked)
    }

    /// Performs an operation that changes nothing.
    pub(super) fn read<R: DeserializeOwned>(
        &mut self,
        operation: Operation,
        params: &impl Serialize,
    ) -> Result<Result<R, RpcError>, Stopped> {
        let id = self.ask(operation, params, DEADLINE_MS)?;
        self.outcome(id)
    }

    /// The answer to a request, which must be the next thing that is said.
    pub(super) fn outcome<R: DeserializeOwned>(&mut self, id: u64) -> Result<Result<R, RpcError>, Stopped> {
        match self.hear()? {
            Said::Result { id: RequestId::Host(answered), line } if answered == id => result(&line).map(Ok),
            Said::Error { id: Some(RequestId::Host(answered)), error } if answered == id => Ok(Err(error)),
            other => Err(broken(format!("its answer to request {id} was expected, and it {other}"))),
        }
    }

    /// The refusal of a request, by its kind and `applied: no`.
    pub(super) fn refusal(&mut self, id: u64, kind: Kind) -> Result<(), Stopped> {
        match self.outcome::<Value>(id)? {
            Err(error) => is_fault(&error, kind),
            Ok(_) => Err(broken(format!("{kind} was expected, and it succeeded"))),
        }
    }

    /// The refusal of a request that the rotator cannot serve at all.
    pub(super) fn code(&mut self, id: Option<RequestId>, code: i64) -> Result<(), Stopped> {
        match self.hear()? {
            Said::Error { id: answered, error } if answered == id => {
                must(error.code == code, || format!("the error {code} was expected, and it said {}", error.code))
            }
            other => Err(broken(format!("the error {code} was expected, and it {other}"))),
        }
    }

    /// The request for a permit that comes next. Its id.
    pub(super) fn threshold(&mut self, asked: u64) -> Result<RequestId, Stopped> {
        match self.hear()? {
            Said::Threshold { id, about } => {
                must(about == asked, || format!("it asks for a permit for request {about}, not for {asked}"))?;
                Ok(id)
            }
            other => Err(broken(format!("it should have asked for its permit, and it {other}"))),
        }
    }

    /// Answers a request of the rotator.
    pub(super) fn answer(&mut self, id: &RequestId, result: &Value) -> Result<(), Stopped> {
        self.say(&json!({"jsonrpc": "2.0", "id": id, "result": result}))
    }

    /// Gives the permit that is asked for next.
    pub(super) fn permit(&mut self, asked: u64) -> Result<(), Stopped> {
        let id = self.threshold(asked)?;
        self.answer(&id, &json!({"proceed": true}))
    }

    /// What it says next.
    pub(super) fn hear(&mut self) -> Result<Said, Stopped> {
        loop {
            let Some(line) = self.line(self.patience)? else {
                return Ok(Said::End);
            };
            let unknown = |what: &str| broken(format!("it said something that is {what}"));
            return Ok(match Incoming::parse(&line).map_err(|malformed| unknown(&malformed.to_string()))? {
                Incoming::Notification { .. } => {
                    self.watch.look(&line, "a notification");
                    continue;
                }
                Incoming::Request { id: id @ RequestId::Rotator(_), method: "threshold", params: Some(params) } => {
                    let params: ThresholdParams = object(params).map_err(|_| unknown("no request for a permit"))?;
                    Said::Threshold { id, about: params.id }
                }
                Incoming::Request { id: id @ RequestId::Rotator(_), method: "minted", params: Some(params) } => {
                    let params: MintedParams = object(params).map_err(|_| unknown("no minted secret"))?;
                    Said::Minted { id, next: params.next }
                }
                Incoming::Request { .. } => return Err(unknown("a request that hosts do not know")),
                Incoming::Error { id, error } => {
                    self.watch.look(&line, "an error");
                    Said::Error { id, error }
                }
                Incoming::Result { id, .. } => Said::Result { id, line },
            });
        }
    }

    /// Closes its input.
    pub(super) fn close(&mut self) {
        self.input = None;
    }

    /// Sends it SIGTERM.
    pub(super) fn terminate(&self) {
        self.process.signal(Signal::TERM);
    }

    /// Closes its input, and it must end with this status and say nothing more.
    pub(super) fn end(mut self, status: i32) -> Result<(), Stopped> {
        self.close();
        self.ends(status)
    }

    /// It must end by itself with this status and say nothing more.
    pub(super) fn ends(mut self, status: i32) -> Result<(), Stopped> {
        match self.hear()? {
            Said::End => {}
            other => return Err(broken(format!("it should have ended, and it {other}"))),
        }
        let ended = self.process.ended()?;
        if let Ok(errors) = self.errors.recv_timeout(ENDS_WITHIN) {
            self.watch.look(&errors, "its standard error");
        }
        must(ended == status, || format!("it ended with status {ended}, not {status}"))
    }

    /// It must end, however.
    pub(super) fn gone(mut self) -> Result<(), Stopped> {
        while !matches!(self.hear()?, Said::End) {}
        self.process.ended().map(drop)
    }

    fn line(&mut self, within: Duration) -> Result<Option<Zeroizing<Vec<u8>>>, Stopped> {
        match self.lines.recv_timeout(within) {
            Ok(Line::Whole(line)) => Ok(Some(line)),
            Ok(Line::TooLong) => Err(broken("it sent a line longer than 1 MiB")),
            Ok(Line::Unfinished) => Err(broken("it ended in the middle of a line")),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => Err(broken(format!("it said nothing within {} s", within.as_secs()))),
        }
    }
}

/// Calls a rotator for one operation.
pub(super) fn call(command: &mut Command, input: &[u8], output: Stdio, watch: &Watch) -> Result<Ended, Stopped> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(output)
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| broken(format!("it cannot be started: {error}")))?;
    let (stdin, stdout, stderr) = (child.stdin.take(), drained(child.stdout.take()), drained(child.stderr.take()));
    let mut process = Process::of(child);
    let input = Zeroizing::new(input.to_vec());
    // A program that does not read its input is no reason to fail here.
    thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(&input)));
    let output = stdout.recv_timeout(PATIENCE).map_err(|_| broken("it did not end"))?;
    let errors = stderr.recv_timeout(PATIENCE).map_err(|_| broken("it did not end"))?;
    watch.look(&errors, "its standard error");
    Ok(Ended { status: process.ended()?, output })
}

impl Ended {
    /// Its lines as JSON.
    pub(super) fn lines<R: DeserializeOwned>(&self) -> Result<Vec<R>, Stopped> {
        let lines = self.output.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines
            .map(|line| serde_json::from_slice(line).map_err(|_| broken("it wrote a line that does not fit")))
            .collect()
    }

    pub(super) fn must_end_with(&self, status: i32) -> Result<(), Stopped> {
        must(self.status == status, || format!("it ended with status {}, not {status}", self.status))
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Threshold { .. } => f.write_str("asked for a permit"),
            Self::Minted { .. } => f.write_str("handed over a minted secret"),
            Self::Result { .. } => f.write_str("answered with a result"),
            Self::End => f.write_str("ended"),
            Self::Error { error, .. } => {
                write!(f, "answered with the error {}", error.code)?;
                error
                    .data
                    .as_ref()
                    .map_or(Ok(()), |fault| write!(f, " ({}, applied: {})", fault.kind, applied(fault.applied)))
            }
        }
    }
}

/// The result in an answer's line.
pub(super) fn result<R: DeserializeOwned>(line: &[u8]) -> Result<R, Stopped> {
    child::result(line).ok_or_else(|| broken("its result does not fit"))
}

/// The error must be this one, and say that nothing was changed.
pub(super) fn is_fault(error: &RpcError, kind: Kind) -> Result<(), Stopped> {
    let Some(fault) = &error.data else {
        return Err(broken(format!("{kind} was expected, and its error {} has no data", error.code)));
    };
    must(fault.kind == kind, || format!("{kind} was expected, and it said {}", fault.kind))?;
    must(fault.applied == turnlock_protocol::Applied::No, || {
        format!("applied: no was expected with {kind}, and it said {}", applied(fault.applied))
    })
}

fn applied(applied: turnlock_protocol::Applied) -> &'static str {
    match applied {
        turnlock_protocol::Applied::No => "no",
        turnlock_protocol::Applied::Yes => "yes",
        turnlock_protocol::Applied::Unknown => "unknown",
    }
}

/// A process that is killed with its group when nobody waits for it any more.
struct Process {
    pid: Option<Pid>,
    status: Receiver<io::Result<ExitStatus>>,
}

impl Process {
    fn of(mut child: Child) -> Self {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let (sender, status) = channel();
        thread::spawn(move || sender.send(child.wait()));
        Self { pid, status }
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid {
            // One that has ended is not there to hear it.
            let _ = kill_process(pid, signal);
        }
    }

    /// Its exit status; −1 for one that a signal ended.
    fn ended(&mut self) -> Result<i32, Stopped> {
        let status = self.status.recv_timeout(ENDS_WITHIN).map_err(|_| broken("it did not end"))?;
        self.pid = None;
        let status = status.map_err(|error| broken(format!("it cannot be waited for: {error}")))?;
        Ok(status.code().unwrap_or(-1))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(pid) = self.pid.take() {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

fn read_line(output: &mut impl BufRead) -> Option<Line> {
    let mut line = Zeroizing::new(Vec::with_capacity(8 * 1024));
    match output.take(MAX_LINE as u64 + 2).read_until(b'\n', &mut line) {
        Ok(0) | Err(_) => return None,
        Ok(_) if line.last() == Some(&b'\n') => {}
        Ok(_) if line.len() > MAX_LINE => return Some(Line::TooLong),
        Ok(_) => return Some(Line::Unfinished),
    }
    line.pop();
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Some(Line::Whole(line))
}

fn drained(from: Option<impl Read + Send + 'static>) -> Receiver<Zeroizing<Vec<u8>>> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut bytes = Zeroizing::new(Vec::with_capacity(64 * 1024));
        if let Some(mut from) = from {
            let _ = from.read_to_end(&mut bytes);
        }
        sender.send(bytes)
    });
    receiver
}
