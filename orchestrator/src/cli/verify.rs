//! `turnlock verify`

use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::Context;
use super::fleet::{Choice, Pace};
use crate::drift::{Proven, Remedy, prove};
use crate::failure::Failure;
use crate::fleet::{self, Outcome, Selection, Why, Work};

#[derive(Debug, Args)]
#[command(after_help = "\
Exit status 3 when a credential does not work any more.

Examples:
  turnlock verify \"Orders database\"
  turnlock verify --all --jobs 8
  turnlock verify --folder infra --reconcile")]
pub(super) struct Verify {
    /// A record: UID, title, folder/title, or an endpoint's name
    name: Option<String>,
    /// Every record that can be rotated
    #[arg(long, conflicts_with = "name")]
    all: bool,
    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    pace: Pace,
    /// Where the current credential is refused, try the record's past ones, too
    #[arg(long)]
    try_history: bool,
    /// Where no credential works, let the admin that turnlock:admin names set a new one
    #[arg(long)]
    reconcile: bool,
}

pub(super) async fn run(context: &Context, verify: Verify) -> Result<u8, Failure> {
    let selection = match verify.choice.selection()? {
        None if verify.all => Some(Selection::default()),
        selection => selection,
    };
    let engine = context.engine(false).await?;
    let jobs = match (&verify.name, selection) {
        (Some(name), _) => vec![fleet::job_of(&engine, engine.record_named(name)?, Why::Proof)?],
        (None, Some(selection)) => super::fleet::chosen(context, &engine, &selection, false, None)?,
        (None, None) => {
            return Err(Failure::usage("nothing says which credentials").hint("name a record, or say --all"));
        }
    };
    let remedy = Remedy { try_history: verify.try_history, reconcile: verify.reconcile };
    if remedy.reconcile && jobs.len() > 1 {
        super::fleet::back_up(context, &engine)?;
    }
    let work: Work<Proven> = Arc::new(move |job| {
        let (engine, uid) = (Arc::clone(&engine), job.uid.clone());
        Box::pin(async move { prove(&engine, &uid, remedy).await })
    });
    let tally = super::fleet::work(context, verify.pace.rules(&context.config.fleet), jobs, work, |ended| {
        if let Outcome::Done(proven) = &ended.outcome {
            let (outcome, sentence) = match proven {
                Proven::Works => ("accepted", "works"),
                Proven::Adopted => ("adopted", "an earlier candidate works and is the current one now"),
                Proven::Reconciled(_) => ("reconciled", "did not work any more; its admin has set a new one"),
                Proven::CannotBeAsked => ("not_asked", "this target cannot be asked"),
            };
            let job = &ended.job;
            context.report.answer(&json!({"record": job.uid, "title": job.title, "outcome": outcome}), || {
                format!("{}: {sentence}", job.title)
            });
        }
        super::fleet::failure_of(context, ended);
    })
    .await;
    Ok(tally.exit_status())
}
