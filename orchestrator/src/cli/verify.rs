//! `turnlock verify`

use clap::Args;
use serde_json::json;
use turnlock_protocol::{Kind, VerifyBy};

use super::Context;
use crate::engine::{Engine, durable};
use crate::failure::{Failure, State, exit};
use crate::lease;
use crate::plan::Plan;
use crate::resolve::Options;
use crate::rotate::traits;
use crate::settle::{self, Heard};
use crate::vault::Summary;

#[derive(Debug, Args)]
#[command(
    after_help = "Exit status 3 when a credential does not work any more.\n\nExamples:\n  turnlock verify \"Orders database\"\n  turnlock verify --all"
)]
pub(super) struct Verify {
    /// A record: UID, title, folder/title, or an endpoint's name
    #[arg(required_unless_present = "all")]
    name: Option<String>,
    /// Every record that can be rotated
    #[arg(long, conflicts_with = "name")]
    all: bool,
    /// Where the current credential is refused, try the record's past ones, too
    #[arg(long)]
    try_history: bool,
}

pub(super) async fn run(context: &Context, verify: Verify) -> Result<u8, Failure> {
    let engine = context.engine(false).await?;
    let records = match &verify.name {
        Some(name) => vec![engine.record_named(name)?],
        None => super::list::sorted(engine.vault.as_ref(), |summary| summary.plugin.is_some())?,
    };
    let mut statuses = Vec::new();
    for record in &records {
        let (status, outcome, sentence) = match one(&engine, record, verify.try_history).await {
            Ok(Proven::Works) => (exit::DONE, "accepted", "works".to_owned()),
            Ok(Proven::Adopted) => {
                (exit::DONE, "adopted", "an earlier candidate works and is the current one now".to_owned())
            }
            Ok(Proven::CannotBeAsked) => (exit::DONE, "not_asked", "this target cannot be asked".to_owned()),
            Err(failure) => {
                let status = failure.exit_status();
                context.report.failure(&failure);
                statuses.push(status);
                continue;
            }
        };
        context.report.answer(&json!({"record": record.uid, "title": record.title, "outcome": outcome}), || {
            format!("{}: {sentence}", record.title)
        });
        statuses.push(status);
    }
    Ok(exit::of_many(&statuses))
}

enum Proven {
    Works,
    Adopted,
    CannotBeAsked,
}

async fn one(engine: &Engine, record: &Summary, try_history: bool) -> Result<Proven, Failure> {
    let (stored, mut plan) = engine.plan_of(&record.uid, &Options::default())?;
    if plan.traits.verify == VerifyBy::None {
        return Ok(Proven::CannotBeAsked);
    }
    let lease = lease::take(engine, vec![record.uid.clone()], Some(&plan), &record.title).await?;
    let outcome = holding(engine, &lease, record, &mut plan, !stored.stage.is_empty(), try_history).await;
    // A lease that cannot be given back runs out or is taken from the dead.
    let _ = durable(|| engine.vault.release(&lease));
    outcome
}

async fn holding(
    engine: &Engine,
    lease: &crate::vault::Lease,
    record: &Summary,
    plan: &mut Plan,
    open: bool,
    try_history: bool,
) -> Result<Proven, Failure> {
    if open {
        return Err(Failure::new(format!("\"{}\" has an open rotation", record.title))
            .state(State::Unknown)
            .hint(format!("turnlock recover {}", record.uid)));
    }
    let mut rotator = engine.rotators.begin(&plan.plugin).await?;
    plan.traits = traits(&mut rotator, plan).await?;
    let mut found = None;
    let mut heard = settle::ask(engine, plan, &plan.current, &mut rotator).await;
    if heard == Heard::Refused {
        (heard, found) = settle::ask_abandoned(engine, &record.uid, plan, &mut rotator).await?;
    }
    if heard == Heard::Refused && try_history {
        for past in durable(|| engine.vault.history(&record.uid))? {
            heard = settle::ask(engine, plan, &past.credential, &mut rotator).await;
            if heard != Heard::Refused {
                found = Some(past.credential);
                break;
            }
        }
    }
    rotator.end().await;
    match (heard, found) {
        (Heard::Accepted, None) => Ok(Proven::Works),
        (Heard::Accepted, Some(credential)) => {
            settle::adopt_as_current(
                engine,
                lease,
                &record.uid,
                plan,
                &credential,
                "found to be the live one by verify",
            )?;
            Ok(Proven::Adopted)
        }
        (heard, _) => {
            let why = heard.accepted().err().unwrap_or_else(|| Failure::new("not accepted"));
            let failure = why.about(&record.title);
            if failure.kind != Some(Kind::Authentication) {
                return Err(failure);
            }
            let uid = &record.uid;
            Err(failure.hint(if try_history {
                format!("turnlock resolve {uid} --use password, with the right one")
            } else {
                format!("turnlock verify {uid} --try-history, or turnlock resolve {uid} --use password")
            }))
        }
    }
}
