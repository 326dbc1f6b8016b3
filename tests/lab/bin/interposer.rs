//! `lab-interposer`: see the module `lab::interposer`.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Write},
    path::PathBuf,
    process::{Child, ExitCode, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use lab::{
    LabError, Result,
    interposer::{CLAIM, Config, Kill, Message, MessageDirection, Victim, When, find_config},
    process::{command, signal, status_number},
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
    claim: PathBuf,
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
        claim: path.with_file_name(CLAIM),
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

    fn kill_if(&self, when: When, direction: MessageDirection, number: u64) {
        let Some(kill) = self.kill.filter(|kill| (kill.when, kill.direction, kill.number) == (when, direction, number))
        else {
            return;
        };
        if OpenOptions::new().write(true).create_new(true).open(&self.claim).is_err() {
            return;
        }
        match kill.victim {
            Victim::Orchestrator => signal(self.orchestrator, "KILL"),
            Victim::Rotator => {
                signal(self.rotator, "KILL");
                std::process::exit(137);
            }
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
