//! Speaking with one rotator process: bounded reads, deadlines, its own
//! process group, a cleared environment. Nothing it says is trusted further
//! than the protocol goes.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use turnlock_protocol::message::{
    Hello, LogParams, MintedParams, Permit, ProgressParams, Reply, Request, RpcError, Staged, code, object,
};
use turnlock_protocol::operation::Terms;
use turnlock_protocol::{
    Applied, Credential, Fault, HELLO_WITHIN_MS, Incoming, Kind, MAX_LINE, Operation, RequestId, VERSIONS,
};
use zeroize::Zeroizing;

use crate::container::Container;
use crate::rotators::{Program, Rotator};
use crate::stage::Process;

/// How long a rotator may take to end by itself once its input is closed.
const END_WITHIN: Duration = Duration::from_secs(5);
/// How long podman may take until a container runs; what the rotator in it
/// takes comes on top.
const CONTAINER_WITHIN: Duration = Duration::from_secs(30);
/// How much longer than its deadline a rotator may take to say so.
const DEADLINE_SLACK: Duration = Duration::from_millis(500);
/// How many lines of its standard error are kept for a report.
const KEPT_LINES: usize = 20;

/// A rotator that has said hello.
#[derive(Debug)]
pub struct Conversation {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    errors: Option<JoinHandle<VecDeque<String>>>,
    process: Process,
    /// Where the rotator runs, if the child is podman.
    container: Option<Container>,
    plugin: String,
    asked: u64,
    /// Nothing more is heard in it.
    over: bool,
}

/// What the host does when a rotator asks something in the middle of an
/// operation. The engine implements it; read-only operations refuse.
pub trait Threshold {
    /// The next step may change the target. True only when everything that
    /// must be durable is.
    fn permit(&mut self, rotator: &Process) -> impl Future<Output = bool>;
    /// The target made this credential. True only when it is durable.
    fn minted(&mut self, next: Credential) -> impl Future<Output = bool>;
    /// What is being done, for people.
    fn progress(&mut self, step: &str);
}

/// For operations that change nothing: no permit is ever given.
#[derive(Debug)]
pub struct ReadOnly;

impl Threshold for ReadOnly {
    async fn permit(&mut self, _rotator: &Process) -> bool {
        false
    }
    async fn minted(&mut self, _next: Credential) -> bool {
        false
    }
    fn progress(&mut self, _step: &str) {}
}

impl Conversation {
    /// Starts a rotator and waits for its hello.
    ///
    /// # Errors
    /// `unsupported` when it does not speak our protocol or is another plugin,
    /// `internal` when it cannot be started or ends at once.
    pub async fn begin(rotator: &Rotator, environment: &[(String, OsString)]) -> Result<Self, Fault> {
        let name = &rotator.program;
        let cannot_start =
            |error: &io::Error| Fault::new(Kind::Internal, format!("{name} cannot be started")).caused_by(error);
        let (mut command, container) = match &rotator.program {
            Program::File(program) => {
                let mut command = command(program, environment).map_err(|error| cannot_start(&error))?;
                command.arg("serve");
                (tokio::process::Command::from(command), None)
            }
            Program::Image(image) => {
                let container = Container::new(image, &rotator.plugin, environment)?;
                let mut command = container.command();
                let directory = crate::rotators::empty_directory().map_err(|error| cannot_start(&error))?;
                command.current_dir(directory).process_group(0);
                (command, Some(container))
            }
        };
        let mut child = command
            .kill_on_drop(false)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| cannot_start(&error))?;
        let (Some(input), Some(output), Some(errors), Some(pid)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take(), child.id())
        else {
            return Err(Fault::new(Kind::Internal, format!("{name} started without its pipes")));
        };
        let mut conversation = Self {
            child,
            input,
            output: BufReader::with_capacity(16 * 1024, output),
            errors: Some(tokio::spawn(last_lines(errors))),
            process: Process::of(pid),
            container,
            plugin: rotator.plugin.clone(),
            asked: 0,
            over: false,
        };
        let hello = Duration::from_millis(HELLO_WITHIN_MS);
        let within = if conversation.container.is_some() { CONTAINER_WITHIN + hello } else { hello };
        let begun = match timeout_at(Instant::now() + within, conversation.hello()).await {
            Ok(Ok(())) => conversation.name_the_process().await,
            Ok(Err(fault)) => Err(fault),
            Err(_) => {
                let silent = format!("{name} did not say hello within {} ms", within.as_millis());
                Err(Fault::new(Kind::Unsupported, silent))
            }
        };
        match begun {
            Ok(()) => Ok(conversation),
            Err(fault) => {
                conversation.kill();
                match &conversation.container {
                    Some(container) => Err(container.missing().await.unwrap_or(fault)),
                    None => Err(fault),
                }
            }
        }
    }

    /// In a container the rotator is not our child, and outlives podman.
    async fn name_the_process(&mut self) -> Result<(), Fault> {
        if let Some(container) = &self.container {
            self.process = container.process().await?;
        }
        Ok(())
    }

    /// The process, so that others can prove it dead.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Performs one operation. After an error other than a well-formed answer
    /// the process is gone.
    ///
    /// # Errors
    /// The rotator's own fault as it told it; or silence, garbage and death as
    /// faults with `applied` unknown if a permit was given in this call, and
    /// no otherwise.
    pub async fn call<R: DeserializeOwned>(
        &mut self,
        operation: Operation,
        params: &impl Serialize,
        deadline_ms: u64,
        threshold: &mut impl Threshold,
    ) -> Result<R, Fault> {
        let mut permitted = false;
        let deadline = Instant::now() + Duration::from_millis(deadline_ms) + DEADLINE_SLACK;
        let exchange = self.exchange(operation, params, deadline_ms, threshold, &mut permitted);
        let outcome = match timeout_at(deadline, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Broken(Fault::new(
                Kind::Timeout,
                format!("turnlock-{} did not answer {} within {deadline_ms} ms", self.plugin, operation.name()),
            ))),
        };
        let broken = |mut fault: Fault| {
            fault.applied = if permitted { Applied::Unknown } else { Applied::No };
            fault.retryable &= !permitted;
            fault
        };
        let failure = match outcome {
            Ok(Ok(line)) => match result(&line) {
                Some(result) => return Ok(result),
                None => {
                    let what = format!(
                        "turnlock-{} answered {} with a result that does not fit",
                        self.plugin,
                        operation.name()
                    );
                    Err(Broken(Fault::new(Kind::Internal, what)))
                }
            },
            Ok(Err(error)) => {
                let mut fault = error.into_fault();
                if !permitted {
                    // Without a permit nothing changed, whatever it says.
                    fault.applied = Applied::No;
                }
                Ok(fault)
            }
            Err(broken) => Err(broken),
        };
        match failure {
            Ok(fault) => Err(fault),
            Err(Broken(fault)) => {
                self.over = true;
                self.kill();
                Err(broken(self.with_last_words(fault).await))
            }
        }
    }

    /// Whether the rotator fell silent, spoke garbage or died.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Ends the conversation: closes its input, waits, then kills.
    pub async fn end(mut self) {
        drop(self.input);
        if timeout_at(Instant::now() + END_WITHIN, self.child.wait()).await.is_ok() {
            return;
        }
        if let Some(container) = &self.container {
            container.kill();
            // podman ends with its container.
            if timeout_at(Instant::now() + END_WITHIN, self.child.wait()).await.is_ok() {
                return;
            }
        }
        kill_group(&self.child);
        let _ = self.child.wait().await;
    }

    async fn hello(&mut self) -> Result<(), Fault> {
        let name = format!("turnlock-{}", self.plugin);
        let refuse = |what: &str| Fault::new(Kind::Unsupported, format!("{name} {what}"));
        let Some(line) = self.read_line().await.map_err(|Broken(fault)| fault)? else {
            return Err(self.with_last_words(refuse("ended before it said hello")).await);
        };
        let hello = match Incoming::parse(&line) {
            Ok(Incoming::Notification { method: "hello", params: Some(params) }) => object::<Hello>(params).ok(),
            _ => None,
        }
        .ok_or_else(|| refuse("does not speak the rotator protocol: its first line is no hello"))?;
        if hello.plugin != self.plugin {
            return Err(refuse("says it is another plugin"));
        }
        if !hello.protocol.iter().any(|version| VERSIONS.contains(version)) {
            return Err(refuse(&format!(
                "speaks protocol {:?}, this program speaks {VERSIONS:?}: bring both to versions that go together",
                hello.protocol
            )));
        }
        Ok(())
    }

    /// One request and everything the rotator says until it answers. The inner
    /// error is the rotator's own; the outer one means it can no longer be
    /// spoken with.
    async fn exchange(
        &mut self,
        operation: Operation,
        params: &impl Serialize,
        deadline_ms: u64,
        threshold: &mut impl Threshold,
        permitted: &mut bool,
    ) -> Result<Result<Zeroizing<Vec<u8>>, RpcError>, Broken> {
        self.asked += 1;
        let id = RequestId::Host(self.asked);
        self.send(&request(id.clone(), operation, params, deadline_ms)).await?;
        loop {
            let Some(line) = self.read_line().await? else {
                return Err(self.broken(&format!("ended in the middle of {}", operation.name())));
            };
            match Incoming::parse(&line) {
                Ok(Incoming::Result { id: answered, .. }) if answered == id => return Ok(Ok(line)),
                Ok(Incoming::Error { id: answered, error }) if answered.as_ref() == Some(&id) => return Ok(Err(error)),
                Ok(Incoming::Request { id: theirs @ RequestId::Rotator(_), method: "threshold", .. }) => {
                    let proceed = threshold.permit(&self.process.clone()).await;
                    *permitted |= proceed;
                    self.send(&Reply::result(theirs, Permit { proceed })).await?;
                }
                Ok(Incoming::Request { id: theirs @ RequestId::Rotator(_), method: "minted", params }) => {
                    let minted = params.and_then(|params| object::<MintedParams>(params).ok());
                    let staged = match minted {
                        Some(minted) => threshold.minted(minted.next).await,
                        None => false,
                    };
                    self.send(&Reply::result(theirs, Staged { staged })).await?;
                }
                Ok(Incoming::Request { id: theirs @ RequestId::Rotator(_), .. }) => {
                    let error = RpcError::new(code::METHOD_NOT_FOUND, "this host does not know that request");
                    self.send(&Reply::error(Some(theirs), error)).await?;
                }
                Ok(Incoming::Notification { method: "progress", params: Some(params) }) => {
                    if let Ok(progress) = object::<ProgressParams>(params) {
                        threshold.progress(&progress.step);
                    }
                }
                Ok(Incoming::Notification { method: "log", params: Some(params) }) => {
                    if let Ok(log) = object::<LogParams>(params) {
                        threshold.progress(&log.message);
                    }
                }
                Ok(Incoming::Notification { .. }) => {}
                Ok(Incoming::Error { id: None, error }) => return Ok(Err(error)),
                Ok(_) => return Err(self.broken("answered something that was not asked")),
                Err(malformed) => {
                    return Err(self.broken(&format!("said something that is {malformed}")));
                }
            }
        }
    }

    async fn send(&mut self, message: &impl Serialize) -> Result<(), Broken> {
        let mut line = Zeroizing::new(Vec::with_capacity(8 * 1024));
        serde_json::to_writer(&mut *line, message)
            .map_err(|_| self.broken("could not be told: a message is no JSON"))?;
        line.push(b'\n');
        let sent = match self.input.write_all(&line).await {
            Ok(()) => self.input.flush().await,
            Err(error) => Err(error),
        };
        sent.map_err(|_| self.broken("closed its input"))
    }

    /// The next line, none at the end of output.
    async fn read_line(&mut self) -> Result<Option<Zeroizing<Vec<u8>>>, Broken> {
        let mut line = Zeroizing::new(Vec::with_capacity(8 * 1024));
        let limit = MAX_LINE as u64 + 2;
        let read = (&mut self.output).take(limit).read_until(b'\n', &mut line).await;
        match read {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(_) => return Err(self.broken("cannot be read")),
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if line.len() > MAX_LINE {
            return Err(self.broken("sent a line longer than 1 MiB"));
        } else {
            return Err(self.broken("ended in the middle of a line"));
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(Some(line))
    }

    fn broken(&self, what: &str) -> Broken {
        Broken(Fault::new(Kind::Internal, format!("turnlock-{} {what}", self.plugin)))
    }

    fn kill(&mut self) {
        match &self.container {
            // podman ends with its container, and tidies up behind it.
            Some(container) => container.kill(),
            None => kill_group(&self.child),
        }
    }

    /// Adds the last lines of standard error. Ours are scrubbed by the kit; a
    /// stranger's may say anything, so only a count of them is told.
    async fn with_last_words(&mut self, mut fault: Fault) -> Fault {
        let _ = timeout_at(Instant::now() + END_WITHIN, self.child.wait()).await;
        if let Some(errors) = self.errors.take()
            && let Ok(Ok(lines)) = timeout_at(Instant::now() + END_WITHIN, errors).await
        {
            // The kit's own panic line names a place and never a payload.
            fault.causes.extend(lines.iter().filter(|line| line.starts_with("bug: panic at ")).cloned());
            if !lines.is_empty() && fault.causes.is_empty() {
                fault
                    .causes
                    .push(format!("it wrote {} lines to standard error, which are not repeated here", lines.len()));
            }
        }
        fault
    }
}

/// A rotator's program, to be started as PROTOCOL.md says: a cleared
/// environment, an empty working directory, a process group of its own.
pub(crate) fn command(program: &Path, environment: &[(String, OsString)]) -> io::Result<Command> {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that starts rotators")]
    let mut command = Command::new(program);
    command
        .env_clear()
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .current_dir(crate::rotators::empty_directory()?)
        .process_group(0);
    Ok(command)
}

/// A request for an operation, with its terms.
pub(crate) fn request<'a, P: Serialize>(
    id: RequestId,
    operation: Operation,
    params: &'a P,
    deadline_ms: u64,
) -> Request<'static, WithTerms<'a, P>> {
    Request::new(id, operation.name(), WithTerms { terms: Terms::within(deadline_ms), params })
}

/// Params and what every request's params carry besides.
#[derive(Serialize)]
pub(crate) struct WithTerms<'a, P> {
    #[serde(flatten)]
    terms: Terms,
    #[serde(flatten)]
    params: &'a P,
}

/// The rotator can no longer be spoken with.
struct Broken(Fault);

/// The result in an answer's line, if it fits.
pub(crate) fn result<R: DeserializeOwned>(line: &[u8]) -> Option<R> {
    match Incoming::parse(line) {
        Ok(Incoming::Result { result, .. }) => object(result).ok(),
        _ => None,
    }
}

pub(crate) fn kill_group(child: &Child) {
    if let Some(group) = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw) {
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// Drains standard error to its end and keeps the last lines, cut short.
pub(crate) async fn last_lines(errors: tokio::process::ChildStderr) -> VecDeque<String> {
    let mut reader = BufReader::new(errors);
    let mut lines = VecDeque::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader).take(4096).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return lines,
            Ok(_) => {
                if lines.len() == KEPT_LINES {
                    lines.pop_front();
                }
                lines.push_back(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
        }
    }
}
