//! `turnlock due`

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::Context;
use crate::engine::durable;
use crate::failure::{Failure, exit};
use crate::fleet;
use crate::record::Uid;
use crate::vault::RecordState;

#[derive(Debug, Args)]
#[command(after_help = "\
Exit status 3 when a schedule cannot be read.

Examples:
  turnlock due
  turnlock due --within 7d
  turnlock due --all -o json")]
pub(super) struct Due {
    /// What falls due within this time, too, such as 12h or 7d
    #[arg(long, value_name = "TIME", value_parser = within)]
    within: Option<SignedDuration>,
    /// Every record with a schedule
    #[arg(long, conflicts_with = "within")]
    all: bool,
}

#[derive(Serialize)]
struct Row {
    record: Uid,
    title: String,
    schedule: String,
    rotated_at: Option<Timestamp>,
    due: Option<Timestamp>,
    begin: Option<Timestamp>,
    overdue: bool,
    note: Option<String>,
}

pub(super) async fn run(context: &Context, due: Due) -> Result<u8, Failure> {
    let vault = context.vault().await?;
    let now = Timestamp::now();
    let horizon = now.saturating_add(due.within.unwrap_or_default()).unwrap_or(Timestamp::MAX);
    let mut rows = Vec::new();
    let mut unreadable = false;
    durable(|| {
        vault.list(&mut |summary| {
            let Some(turn) = fleet::turn(&summary, now) else { return true };
            let parked = summary.state == RecordState::Parked;
            if due.all || parked || turn.wrong.is_some() || turn.due.is_some_and(|due| due <= horizon) {
                unreadable |= turn.wrong.is_some();
                let failed = summary.fate.failed.map(|failed| format!("failed {} times: {}", failed.times, failed.why));
                rows.push(Row {
                    record: summary.uid,
                    title: summary.title,
                    schedule: summary.upkeep.schedule.unwrap_or_default(),
                    rotated_at: summary.fate.rotated_at,
                    due: turn.due,
                    begin: turn.begin,
                    overdue: turn.due.is_some_and(|due| due <= now),
                    note: turn.wrong.or(parked.then(|| "parked: waits for a person".to_owned())).or(failed),
                });
            }
            true
        })
    })?;
    rows.sort_by(|one, other| one.due.cmp(&other.due).then_with(|| one.title.cmp(&other.title)));
    let at = |at: Option<Timestamp>| at.map_or_else(String::new, |at| at.strftime("%Y-%m-%d %H:%M:%SZ").to_string());
    context.report.rows(
        &["record", "due", "begins", "last rotated", "schedule", "note"],
        &rows,
        |row| {
            let begins = if row.begin == row.due { String::new() } else { at(row.begin) };
            let note = row.note.clone().unwrap_or_default();
            vec![row.title.clone(), at(row.due), begins, at(row.rotated_at), row.schedule.clone(), note]
        },
        "nothing is due",
    );
    Ok(if unreadable { exit::FAILED } else { exit::DONE })
}

fn within(text: &str) -> Result<SignedDuration, String> {
    let span: jiff::Span = text.parse().map_err(|_| "write a time such as 12h or 7d".to_owned())?;
    span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|error| error.to_string())
}
