//! `turnlock run`: the automatic execution that a configuration of Keeper
//! Commander describes.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::{Context, rotate};
use crate::failure::{Failure, exit};

#[derive(Debug, Args)]
#[command(after_help = "\
Here --config names Commander's file; Turnlock's own is found where it always is [TURNLOCK_CONFIG].
Of its commands, rotate is done, sync-down is not needed, and all others are told and left out.

Examples:
  turnlock run --config config.json")]
pub(super) struct Run {
    /// What the global --config named.
    #[arg(skip)]
    pub(super) file: Option<PathBuf>,
}

/// What matters of Commander's `config.json`.
#[derive(Debug, Deserialize)]
struct Commander {
    #[serde(default)]
    commands: Vec<String>,
    #[serde(default)]
    timedelay: Value,
    password: Option<IgnoredAny>,
}

/// One of its commands.
#[derive(Debug)]
enum Line {
    Rotate(Box<rotate::Rotate>),
    /// The vault is always read as it is.
    Needless,
    Unknown(String),
    Wrong(Failure),
}

#[derive(Debug, Parser)]
#[command(name = "rotate", no_binary_name = true)]
struct RotateLine {
    #[command(flatten)]
    rotate: rotate::Rotate,
}

pub(super) async fn run(context: &Context, run: Run) -> Result<u8, Failure> {
    let file = run.file.ok_or_else(|| {
        Failure::usage("nothing says what to run")
            .hint("name Commander's configuration: turnlock run --config config.json")
    })?;
    let place = file.display();
    let text = fs::read_to_string(&file).map_err(|error| {
        Failure::usage(format!("{place} cannot be read")).caused_by(&error).hint("name Commander's config.json")
    })?;
    // The parser's own words may repeat a value.
    let commander: Commander = serde_json::from_str(&text).map_err(|error| {
        Failure::usage(format!(
            "{place} is no configuration of Commander: line {}, column {}",
            error.line(),
            error.column()
        ))
        .hint("name Commander's config.json, with \"commands\" and perhaps \"timedelay\"")
    })?;
    if commander.commands.is_empty() {
        return Err(Failure::usage(format!("{place} has no commands"))
            .hint("write for example \"commands\": [\"rotate 'Orders database'\"]"));
    }
    if commander.password.is_some() {
        context.report.warn(&format!("{place} holds a password in clear, which Turnlock does not need: take it out"));
    }
    let pause = seconds(&commander.timedelay).ok_or_else(|| {
        Failure::usage(format!("the timedelay in {place} is no number of seconds")).hint("write for example 3600")
    })?;
    loop {
        let status = round(context, &commander.commands).await;
        if pause.is_zero() || tokio::time::timeout(pause, context.stop.cancelled()).await.is_ok() {
            return Ok(status);
        }
    }
}

/// Every command once, whatever became of those before it.
async fn round(context: &Context, commands: &[String]) -> u8 {
    let mut statuses = Vec::new();
    for command in commands {
        let outcome = match Line::read(command) {
            Line::Rotate(rotate) => Box::pin(rotate::run(context, *rotate)).await,
            Line::Needless => {
                context.report.note("sync-down: left out, the vault is always read as it is");
                continue;
            }
            Line::Unknown(name) => {
                context.report.warn(&format!("{name}: left out, Turnlock only rotates"));
                continue;
            }
            Line::Wrong(failure) => Err(failure),
        };
        statuses.push(outcome.unwrap_or_else(|failure| {
            context.report.failure(&failure);
            failure.exit_status()
        }));
        if context.stop.is_cancelled() {
            break;
        }
    }
    exit::of_many(&statuses)
}

impl Line {
    fn read(command: &str) -> Self {
        let Some(words) = shlex::split(command.trim()) else {
            return Self::Wrong(
                Failure::usage("a command of the configuration has a quotation mark without its other one")
                    .hint("close it, or write \\ before it"),
            );
        };
        // Commander's `@`: go on though it fails, which is done anyway.
        let Some((first, arguments)) = words.split_first() else {
            return Self::Needless;
        };
        match first.trim_start_matches('@') {
            "rotate" | "r" => match RotateLine::try_parse_from(arguments) {
                Ok(line) => Self::Rotate(Box::new(line.rotate)),
                // Its words may repeat a password that stands in the file.
                Err(_) => Self::Wrong(
                    Failure::usage("a rotate command of the configuration has arguments that Turnlock does not know")
                        .hint("turnlock rotate --help lists them"),
                ),
            },
            "sync-down" | "d" => Self::Needless,
            other => Self::Unknown(other.to_owned()),
        }
    }
}

/// Seconds between rounds, written as a number or a text; none for a single round.
fn seconds(said: &Value) -> Option<Duration> {
    let seconds = match said {
        Value::Null => 0,
        Value::Number(number) => number.as_u64()?,
        Value::String(text) if text.trim().is_empty() => 0,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn commands_are_split_as_commander_splits_them() {
        let plugin = |command: &str| match Line::read(command) {
            Line::Rotate(_) => "rotate",
            Line::Needless => "needless",
            Line::Unknown(_) => "unknown",
            Line::Wrong(_) => "wrong",
        };
        for (command, wanted) in [
            ("rotate 'Orders database' --length 30", "rotate"),
            ("@r --match \"^prod\" --force", "rotate"),
            ("rotate --match prod -r -4,-6,-3,-2", "rotate"),
            (" sync-down", "needless"),
            ("", "needless"),
            ("list --format json", "unknown"),
            ("rotate 'Orders", "wrong"),
            ("rotate --nonsense", "wrong"),
        ] {
            assert_eq!(plugin(command), wanted, "{command}");
        }
    }

    #[test]
    fn the_time_between_rounds_is_a_number_or_a_text() {
        for (said, wanted) in [
            (json!(null), Some(0)),
            (json!(60), Some(60)),
            (json!("60"), Some(60)),
            (json!(""), Some(0)),
            (json!("soon"), None),
            (json!(-1), None),
            (json!([]), None),
        ] {
            assert_eq!(seconds(&said), wanted.map(Duration::from_secs), "{said}");
        }
    }
}
