//! Speaking with a vault program: started like a rotator, one request at a
//! time, and started again when it has died.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use turnlock_protocol::message::{CancelParams, Notification, Request};
use turnlock_protocol::{Applied, Fault, HELLO_WITHIN_MS, Incoming, Kind, MAX_LINE, RequestId, Secret};
use zeroize::Zeroizing;

use crate::rotators::Rotators;

/// The version of the contract that is spoken here.
const VERSION: u32 = 1;
/// How long a program may say nothing while it is asked something.
const SILENT_FOR: Duration = Duration::from_secs(60);
/// How long it may take to end by itself once its input is closed.
const END_WITHIN: Duration = Duration::from_secs(5);
/// How often we look whether to go on waiting.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Is told what is being waited for.
pub type Told = Arc<dyn Fn(&str) + Send + Sync>;

/// A vault program, running or not.
pub(super) struct Program {
    rotators: Rotators,
    name: String,
    configuration: Configuration,
    ca: Option<PathBuf>,
    stop: CancellationToken,
    told: Told,
    running: Mutex<Option<Running>>,
}

/// Where a program's configuration is kept. It is a secret.
#[derive(Debug, Clone)]
pub struct Configuration {
    /// The file.
    pub path: PathBuf,
    /// Whether the system gave it to us for reading only.
    pub read_only: bool,
}

struct Running {
    child: Child,
    input: ChildStdin,
    lines: mpsc::Receiver<Zeroizing<Vec<u8>>>,
    asked: u64,
}

#[derive(Deserialize)]
struct Hello {
    protocol: Vec<u32>,
    vault: String,
}

#[derive(Deserialize)]
struct Step {
    step: String,
}

#[derive(Deserialize)]
struct Configured {
    config: Option<Secret>,
}

/// What is said in the middle of a request.
type Heard<'a> = &'a mut dyn FnMut(&str) -> Result<(), Fault>;

impl Program {
    pub(super) fn new(
        rotators: Rotators,
        name: &str,
        configuration: Configuration,
        ca: Option<PathBuf>,
        stop: CancellationToken,
        told: Told,
    ) -> Self {
        Self { rotators, name: name.to_owned(), configuration, ca, stop, told, running: Mutex::default() }
    }

    /// Makes a configuration from a one-time token, durably before the token
    /// is used up, and opens it.
    pub(super) fn bind(&self, token: &Secret) -> Result<(), Fault> {
        let config = if self.configuration.path.exists() { Some(self.configuration.read()?) } else { None };
        let mut running = self.start()?;
        let made: Configured =
            self.converse(&mut running, "bind", &json!({"token": token, "config": config}), false, &mut ignore)?;
        let made = made.config.ok_or_else(|| self.nonsense("bind"))?;
        self.configuration.keep(&made)?;
        running.end();
        self.call("get", &json!({"uids": []}), true).map(|_: serde::de::IgnoredAny| ())
    }

    /// Asks something. `interruptible` requests end early once we were asked to stop.
    pub(super) fn call<R: DeserializeOwned>(
        &self,
        operation: &str,
        params: &impl Serialize,
        interruptible: bool,
    ) -> Result<R, Fault> {
        self.call_and_hear(operation, params, interruptible, &mut ignore)
    }

    /// Asks something that is answered by many records, one message each.
    pub(super) fn call_and_hear<R: DeserializeOwned>(
        &self,
        operation: &str,
        params: &impl Serialize,
        interruptible: bool,
        hear: Heard<'_>,
    ) -> Result<R, Fault> {
        let mut place = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let mut running = match place.take() {
            Some(running) => running,
            None => self.opened(interruptible)?,
        };
        let answer = self.converse(&mut running, operation, params, interruptible, hear);
        match &answer {
            // It can no longer be spoken with.
            Err(fault) if fault.kind == Kind::Internal && fault.applied == Applied::Unknown => running.kill(),
            _ => *place = Some(running),
        }
        answer
    }

    fn opened(&self, interruptible: bool) -> Result<Running, Fault> {
        let config = self.configuration.read()?;
        let unreadable = |error: io::Error| {
            Fault::new(Kind::Tls, "the certificate authority of the vault cannot be read")
                .caused_by(&error)
                .hint("name its file: ca in the section [vault] of turnlock.toml")
        };
        let ca = self.ca.as_ref().map(std::fs::read_to_string).transpose().map_err(unreadable)?;
        let mut running = self.start()?;
        let params = json!({"config": config, "ca": ca});
        let opened: Result<Configured, Fault> =
            self.converse(&mut running, "open", &params, interruptible, &mut ignore);
        match opened {
            Ok(opened) => {
                if let Some(config) = opened.config {
                    self.configuration.keep(&config)?;
                }
                Ok(running)
            }
            // Nothing of a vault was changed, whatever became of the opening.
            Err(fault) => {
                running.kill();
                Err(Fault { applied: Applied::No, ..fault })
            }
        }
    }

    fn start(&self) -> Result<Running, Fault> {
        let plugin = format!("vault-{}", self.name);
        let cannot_start = |error: io::Error| {
            Fault::new(Kind::Internal, format!("turnlock-{plugin} cannot be started")).caused_by(&error)
        };
        let mut command = self.rotators.command(&self.rotators.find_file(&plugin)?).map_err(cannot_start)?;
        command.arg("serve");
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().map_err(cannot_start)?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Fault::new(Kind::Internal, format!("turnlock-{plugin} started without its pipes")));
        };
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || read_lines(output, &sender));
        let running = Running { child, input, lines, asked: 0 };
        let hello = running.lines.recv_timeout(Duration::from_millis(HELLO_WITHIN_MS)).ok();
        let hello = hello.as_ref().and_then(|line| match Incoming::parse(line) {
            Ok(Incoming::Notification { method: "hello", params: Some(params) }) => {
                serde_json::from_str::<Hello>(params.get()).ok()
            }
            _ => None,
        });
        match hello {
            Some(hello) if hello.vault == self.name && hello.protocol.contains(&VERSION) => Ok(running),
            Some(hello) if hello.vault == self.name => {
                running.kill();
                let versions = hello.protocol;
                Err(Fault::new(
                    Kind::Unsupported,
                    format!(
                        "turnlock-{plugin} speaks version {versions:?}, this program speaks {VERSION}: bring both to versions that go together"
                    ),
                ))
            }
            _ => {
                running.kill();
                Err(Fault::new(
                    Kind::Unsupported,
                    format!("turnlock-{plugin} is no program of that vault: it said no hello"),
                ))
            }
        }
    }

    fn converse<R: DeserializeOwned>(
        &self,
        running: &mut Running,
        operation: &str,
        params: &impl Serialize,
        interruptible: bool,
        hear: Heard<'_>,
    ) -> Result<R, Fault> {
        running.asked += 1;
        let id = running.asked;
        let name = &self.name;
        let broken = |what: &str| Fault {
            applied: Applied::Unknown,
            retryable: false,
            ..Fault::new(Kind::Internal, format!("turnlock-vault-{name} {what}"))
        };
        if running.send(&Request::new(RequestId::Host(id), operation, params)).is_err() {
            return Err(broken("closed its input"));
        }
        let (mut heard_at, mut cancelled) = (Instant::now(), false);
        loop {
            let line = match running.lines.recv_timeout(LOOK_EVERY) {
                Ok(line) => line,
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Err(broken(&format!("ended in the middle of {operation}")));
                }
                Err(mpsc::RecvTimeoutError::Timeout) if heard_at.elapsed() > SILENT_FOR => {
                    return Err(broken(&format!(
                        "said nothing for {} s in the middle of {operation}",
                        SILENT_FOR.as_secs()
                    )));
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    if interruptible && !cancelled && self.stop.is_cancelled() {
                        cancelled = true;
                        // It answers all the same, or has died, which is heard next.
                        let _ = running.send(&Notification::new("cancel", CancelParams { id }));
                    }
                    continue;
                }
            };
            heard_at = Instant::now();
            match Incoming::parse(&line) {
                Ok(Incoming::Result { id: RequestId::Host(answered), result }) if answered == id => {
                    return serde_json::from_str(result.get()).map_err(|_| self.nonsense(operation));
                }
                Ok(Incoming::Error { id: Some(RequestId::Host(answered)), error }) if answered == id => {
                    let mut fault = error.into_fault();
                    if fault.kind == Kind::Internal && fault.applied == Applied::Unknown {
                        fault.message = format!("turnlock-vault-{name}: {}", fault.message);
                    }
                    return Err(fault);
                }
                Ok(Incoming::Notification { method: "record", params: Some(record) }) => hear(record.get())?,
                Ok(Incoming::Notification { method: "progress", params: Some(params) }) => {
                    if let Ok(Step { step }) = serde_json::from_str(params.get()) {
                        (self.told)(&step);
                    }
                }
                Ok(Incoming::Notification { .. }) => {}
                Ok(_) => return Err(broken("answered something that was not asked")),
                Err(malformed) => return Err(broken(&format!("said something that is {malformed}"))),
            }
        }
    }

    fn nonsense(&self, operation: &str) -> Fault {
        let what = format!("turnlock-vault-{} answered {operation} with a result that does not fit", self.name);
        Fault { applied: Applied::Unknown, ..Fault::new(Kind::Internal, what) }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(running) = self.running.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            running.end();
        }
    }
}

impl Running {
    fn send(&mut self, message: &impl Serialize) -> io::Result<()> {
        let mut line = Zeroizing::new(Vec::with_capacity(16 * 1024));
        serde_json::to_writer(&mut *line, message)?;
        line.push(b'\n');
        self.input.write_all(&line)?;
        self.input.flush()
    }

    /// Closes its input, waits, then kills the group.
    fn end(mut self) {
        drop(self.input);
        let until = Instant::now() + END_WITHIN;
        // Its output ends with it; what it still says is nobody's concern.
        while self.lines.recv_timeout(until.saturating_duration_since(Instant::now())).is_ok() {}
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            kill_group(&self.child);
        }
        let _ = self.child.wait();
    }

    fn kill(mut self) {
        kill_group(&self.child);
        let _ = self.child.wait();
    }
}

impl Configuration {
    fn read(&self) -> Result<Secret, Fault> {
        std::fs::read_to_string(&self.path).map(Secret::new).map_err(|error| {
            Fault::new(Kind::NotFound, format!("the vault's configuration {} cannot be read", self.path.display()))
                .caused_by(&error)
                .hint("turnlock vault init --token-file makes one from a one-time token")
        })
    }

    /// Writes what the program wants kept; the file is the old one or the new one, whole.
    fn keep(&self, config: &Secret) -> Result<(), Fault> {
        if self.read_only {
            // What changes in a bound configuration is a hint, found anew each time.
            return Ok(());
        }
        #[expect(clippy::disallowed_methods, reason = "this file is where the configuration is kept")]
        crate::durable::write(&self.path, config.expose().as_bytes()).map_err(|error| {
            Fault::new(Kind::Internal, format!("the vault's configuration {} cannot be written", self.path.display()))
                .caused_by(&error)
        })
    }
}

fn ignore(_: &str) -> Result<(), Fault> {
    Ok(())
}

/// Hands over whole lines until there are none.
fn read_lines(output: ChildStdout, sender: &mpsc::Sender<Zeroizing<Vec<u8>>>) {
    let mut reader = BufReader::with_capacity(16 * 1024, output);
    loop {
        let mut line = Zeroizing::new(Vec::with_capacity(8 * 1024));
        match (&mut reader).take(MAX_LINE as u64 + 1).read_until(b'\n', &mut line) {
            Ok(1..) if line.pop() == Some(b'\n') => {}
            _ => return,
        }
        if sender.send(line).is_err() {
            return;
        }
    }
}

fn kill_group(child: &Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(group, Signal::KILL);
    }
}
