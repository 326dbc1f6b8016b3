//! `lab-interposer`: see the module `lab::interposer`.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Write},
    path::PathBuf,
    process::{Child, ExitCode, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use lab::{
    LabError, Result,
    interposer::{CLAIM, Config, Kill, Message, MessageDirection, Strike, Victim, When, claim_of, find_config},
    process::{command, signal, status_number, wait_until},
};

fn main() -> ExitCode {
    match interpose() {
        Ok(status) => ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX)),
        Err(error) => {
            drop(writeln!(io::stderr(), "lab-interposer: {error}"));
            ExitCode::from(99)
        }
    }
}

/// What both directions share.
struct Post {
    log: Mutex<File>,
    kill: Option<Kill>,
    strikes: Vec<(Strike, AtomicBool)>,
    place: PathBuf,
    rotator: u32,
    orchestrator: u32,
}

fn interpose() -> Result<i32> {
    // Read first: once the orchestrator is dead, the parent is somebody else.
    let orchestrator = std::os::unix::process::parent_id();
    let path = find_config()?;
    let text = std::fs::read(&path).map_err(|error| LabError::new(format!("{}: {error}", path.display())))?;
    let config: Config = serde_json::from_slice(&text).map_err(|error| LabError::new(error.to_string()))?;
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&config.log)
        .map_err(|error| LabError::new(format!("{}: {error}", config.log.display())))?;
    let mut rotator = command(&config.program)
        .args(std::env::args_os().skip(1))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| LabError::new(format!("{}: {error}", config.program.display())))?;
    let (Some(input), Some(output)) = (rotator.stdin.take(), rotator.stdout.take()) else {
        return Err(LabError::new("the rotator was started without pipes"));
    };
    let post = Arc::new(Post {
        log: Mutex::new(log),
        kill: config.kill,
        strikes: config.strikes.into_iter().map(|strike| (strike, AtomicBool::new(false))).collect(),
        place: path,
        rotator: rotator.id(),
        orchestrator,
    });
    let up = Arc::clone(&post);
    // Not joined: it waits for the orchestrator's next word, which may never come.
    thread::spawn(move || carry(&up, MessageDirection::ToRotator, io::stdin(), input));
    carry(&post, MessageDirection::FromRotator, output, io::stdout());
    finish(rotator)
}

fn finish(mut rotator: Child) -> Result<i32> {
    rotator.wait().map(status_number).map_err(|error| LabError::new(error.to_string()))
}

/// Passes lines on, one by one, until their end. A reader that is gone is no
/// reason to stop: the other side must be able to finish what it does.
fn carry(post: &Post, direction: MessageDirection, from: impl Read, mut to: impl Write) {
    let mut from = BufReader::with_capacity(256 * 1024, from);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if !matches!(from.read_until(b'\n', &mut line), Ok(1..)) {
            return;
        }
        let message = describe(direction, number, &line);
        post.listen(&line);
        post.kill_if(When::Before, direction, number);
        let passed = to.write_all(&line).and_then(|()| to.flush());
        if passed.is_ok() {
            post.write_down(&message);
        }
        post.kill_if(When::After, direction, number);
    }
}

impl Post {
    fn write_down(&self, message: &Message) {
        let Ok(mut text) = serde_json::to_vec(message) else {
            return;
        };
        text.push(b'\n');
        // One write per line: two directions, and two processes, share the file.
        drop(self.log.lock().unwrap_or_else(PoisonError::into_inner).write_all(&text));
    }

    /// Learns which of the strikes are about this conversation.
    fn listen(&self, line: &[u8]) {
        for (strike, concerned) in &self.strikes {
            let about = strike.about.as_bytes();
            if line.windows(about.len().max(1)).any(|part| part == about) {
                concerned.store(true, Ordering::Relaxed);
            }
        }
    }

    fn kill_if(&self, when: When, direction: MessageDirection, number: u64) {
        let is_now = |kill: &Kill| (kill.when, kill.direction, kill.number) == (when, direction, number);
        if let Some(kill) = self.kill.filter(is_now)
            && self.claims(CLAIM)
        {
            self.strike(kill.victim, "KILL", 0);
        }
        for (index, (strike, concerned)) in self.strikes.iter().enumerate() {
            if is_now(&strike.kill) && concerned.load(Ordering::Relaxed) && self.claims(&claim_of(index)) {
                self.strike(strike.kill.victim, &strike.signal, strike.pause_ms);
            }
        }
    }

    /// Only the first of all stand-ins that come to it does it.
    fn claims(&self, name: &str) -> bool {
        OpenOptions::new().write(true).create_new(true).open(self.place.with_file_name(name)).is_ok()
    }

    fn strike(&self, victim: Victim, name: &str, pause_ms: u64) {
        let id = match victim {
            Victim::Orchestrator => self.orchestrator,
            Victim::Rotator => self.rotator,
        };
        signal(id, name);
        match (victim, name) {
            (_, "STOP") => {
                // The message waits, too: whoever gets it should find the other standing still.
                drop(wait_until::<()>("a pause to pass", Duration::from_millis(pause_ms), || None));
                signal(id, "CONT");
            }
            (Victim::Rotator, "KILL") => std::process::exit(137),
            _ => {}
        }
    }
}

fn describe(direction: MessageDirection, number: u64, line: &[u8]) -> Message {
    let json: Option<serde_json::Value> = serde_json::from_slice(line).ok();
    let field = |name: &str| json.as_ref().and_then(|json| json.get(name));
    let kind = match (field("method"), field("id"), field("result"), field("error")) {
        (Some(_), Some(_), ..) => "request",
        (Some(_), None, ..) => "notification",
        (None, _, Some(_), _) => "result",
        (None, _, None, Some(_)) => "error",
        _ => "unreadable",
    };
    Message {
        process: std::process::id(),
        direction,
        number,
        bytes: line.len(),
        kind: kind.to_owned(),
        method: field("method").and_then(|method| method.as_str()).map(str::to_owned),
        id: field("id").map(ToString::to_string),
    }
}
