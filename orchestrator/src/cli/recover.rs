//! `turnlock recover` and `turnlock status`

use clap::Args;

use super::Context;
use crate::engine::durable;
use crate::failure::{Failure, exit};
use crate::rotate::Finish;
use crate::settle::{self, Settled};
use crate::vault::{OpenItem, RecordState};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  turnlock recover\n  turnlock recover \"Orders database\"\n  turnlock recover \"Deploy key\" --finish-now"
)]
pub(super) struct Recover {
    /// Only this record
    name: Option<String>,
    /// Wait for another run that holds a record
    #[arg(long)]
    wait: bool,
    /// Do not wait for any grace: remove now what old credentials left behind
    #[arg(long)]
    finish_now: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Exit status 3 when something is open, parked or overdue.\n\nExamples:\n  turnlock status\n  turnlock status -o json"
)]
pub(super) struct Status {}

pub(super) async fn run(context: &Context, recover: Recover) -> Result<u8, Failure> {
    let engine = context.engine(recover.wait).await?;
    let only = recover.name.as_deref().map(|name| engine.record_named(name)).transpose()?;
    let finish = if recover.finish_now { Finish::Now } else { Finish::WhenDue };
    let by = finish.by();
    let items = durable(|| engine.vault.open_items())?;
    let hooks = items.iter().filter(|item| item.state == RecordState::Hooks);
    let untold: Vec<crate::record::Uid> = hooks.map(|item| item.uid.clone()).collect();
    let mut records: Vec<(crate::record::Uid, String)> = items
        .into_iter()
        .filter(|item| !waits(item, by))
        .map(|item| (item.uid, item.title))
        .filter(|(uid, _)| only.as_ref().is_none_or(|only| only.uid == *uid))
        .collect();
    records.dedup_by(|one, other| one.0 == other.0);
    if records.is_empty() {
        context.report.note("nothing is open");
        return Ok(exit::DONE);
    }
    context.report.begin_progress(None);
    let mut statuses = Vec::new();
    for (uid, title) in records {
        match settle::recover(&engine, &uid, finish).await {
            Ok(settled) => {
                for one in settled {
                    let (outcome, sentence) = match one {
                        Settled::Committed { .. } => {
                            ("committed", "its new credential is live and committed now".to_owned())
                        }
                        Settled::NotChanged(fault) => {
                            ("not_changed", format!("its old credential is the current one ({})", fault.message))
                        }
                    };
                    let value = serde_json::json!({"record": uid, "title": title, "outcome": outcome});
                    context.report.answer(&value, || format!("settled {title}: {sentence}"));
                }
                if untold.contains(&uid) {
                    let value = serde_json::json!({"record": uid, "title": title, "outcome": "told"});
                    context.report.answer(&value, || format!("settled {title}: its hooks have run"));
                }
                statuses.push(exit::DONE);
            }
            Err(failure) => {
                let failure = failure.about(&title);
                context.report.failure(&failure);
                statuses.push(failure.exit_status());
            }
        }
    }
    Ok(exit::of_many(&statuses))
}

pub(super) async fn status(context: &Context, _status: Status) -> Result<u8, Failure> {
    let vault = context.vault().await?;
    if let Some(doubt) = vault.adopt_required() {
        context.report.warn(&format!("this vault is {doubt}: nothing rotates until turnlock vault adopt"));
    }
    let items = durable(|| vault.open_items())?;
    context.report.rows(
        &["record", "state", "since", "why", "next step"],
        &items,
        |item| {
            vec![
                item.title.clone(),
                match item.state {
                    RecordState::Settled => "settled".to_owned(),
                    RecordState::Open => "open".to_owned(),
                    RecordState::Parked => "parked".to_owned(),
                    RecordState::Finishing => "clean-up".to_owned(),
                    RecordState::Hooks => "hooks".to_owned(),
                },
                item.since.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
                item.reason.clone().unwrap_or_else(|| why(item.state).to_owned()),
                next_step(item),
            ]
        },
        "nothing is open",
    );
    let now = jiff::Timestamp::now();
    Ok(if items.iter().all(|item| waits(item, now)) { exit::DONE } else { exit::FAILED })
}

/// Whether a clean-up only waits for the end of its grace.
fn waits(item: &OpenItem, by: jiff::Timestamp) -> bool {
    item.state == RecordState::Finishing && item.reason.is_none() && item.due.is_some_and(|due| due > by)
}

/// Where nobody wrote a reason down, the state is one.
fn why(state: RecordState) -> &'static str {
    match state {
        RecordState::Open => "begun and not settled: its old and its new credential are in the vault",
        RecordState::Finishing => "rotated; the old credential waits to be removed",
        RecordState::Hooks => "rotated; its hooks have not run",
        RecordState::Settled | RecordState::Parked => "",
    }
}

fn next_step(item: &OpenItem) -> String {
    match item.state {
        RecordState::Settled => String::new(),
        RecordState::Open => format!("turnlock recover {}", item.uid),
        RecordState::Parked => {
            format!("turnlock show {} --stage --history, then turnlock resolve {0} --use …", item.uid)
        }
        RecordState::Hooks => format!("turnlock hooks retry {}", item.uid),
        RecordState::Finishing => match item.due {
            Some(due) => format!("turnlock recover {} after {}", item.uid, due.strftime("%Y-%m-%d %H:%MZ")),
            None => format!("turnlock recover {}", item.uid),
        },
    }
}
