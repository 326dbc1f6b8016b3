//! `turnlock hooks`

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;

use super::Context;
use crate::engine::{Engine, durable};
use crate::failure::{Failure, exit};
use crate::hooks;
use crate::resolve::Options;
use crate::vault::{RecordState, Summary};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Show which hooks run for a record, or for every record, and what keeps them from running
    #[command(
        after_help = "Exit status 3 when one of them could not run.\n\nExamples:\n  turnlock hooks list\n  turnlock hooks list \"Orders database\""
    )]
    List(List),
    /// Run the hooks that have not run or have failed
    #[command(
        after_help = "Examples:\n  turnlock hooks retry\n  turnlock hooks retry \"Orders database\" --again   # those that have succeeded, too"
    )]
    Retry(Retry),
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// A record: UID, title, folder/title, or an endpoint's name
    name: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Retry {
    /// Only this record
    name: Option<String>,
    /// Run all of this record's hooks, also when none is open
    #[arg(long, requires = "name")]
    again: bool,
    /// Wait for another run that holds a record
    #[arg(long)]
    wait: bool,
}

pub(super) async fn run(context: &Context, verb: Verb) -> Result<u8, Failure> {
    match verb {
        Verb::List(list) => self::list(context, &list).await,
        Verb::Retry(retry) => {
            let engine = context.engine(retry.wait).await?;
            let only = retry.name.as_deref().map(|name| engine.record_named(name)).transpose()?;
            match only {
                Some(record) if retry.again => again(context, &engine, &record).await,
                only => self::retry(context, &engine, only.as_ref()).await,
            }
        }
    }
}

async fn list(context: &Context, list: &List) -> Result<u8, Failure> {
    #[derive(Serialize)]
    struct Row {
        hook: String,
        kind: &'static str,
        problem: Option<String>,
    }
    let found = match &list.name {
        None => context.config.hooks.of_everybody(),
        Some(name) => {
            let engine = context.engine(false).await?;
            let uid = engine.record_named(name)?.uid;
            engine.hooks.of(&durable(|| engine.vault.read(&uid))?.record)
        }
    };
    let rows: Vec<Row> =
        found.into_iter().map(|hook| Row { problem: hook.problem(), kind: hook.kind(), hook: hook.shown }).collect();
    let problem = rows.iter().any(|row| row.problem.is_some());
    context.report.rows(
        &["hook", "kind", "problem"],
        &rows,
        |row| vec![row.hook.clone(), row.kind.to_owned(), row.problem.clone().unwrap_or_default()],
        "no hooks; [hooks.global] in turnlock.toml or turnlock:hook in a record makes one",
    );
    Ok(if problem { exit::FAILED } else { exit::DONE })
}

async fn retry(context: &Context, engine: &Engine, only: Option<&Summary>) -> Result<u8, Failure> {
    let mut items = durable(|| engine.vault.open_items())?;
    items.retain(|item| item.state == RecordState::Hooks && only.is_none_or(|only| only.uid == item.uid));
    if items.is_empty() {
        context.report.note("no hooks are open");
        return Ok(exit::DONE);
    }
    context.report.begin_progress((items.len() > 1).then_some(items.len() as u64));
    let mut statuses = Vec::with_capacity(items.len());
    for item in &items {
        context.report.advance();
        statuses.push(match hooks::retry(engine, &item.uid, &item.title).await {
            Ok(()) => {
                let value = json!({"record": item.uid, "title": item.title, "outcome": "told"});
                context.report.answer(&value, || format!("{}: its hooks have run", item.title));
                exit::DONE
            }
            Err(failure) => {
                context.report.failure(&failure);
                failure.exit_status()
            }
        });
    }
    Ok(exit::of_many(&statuses))
}

async fn again(context: &Context, engine: &Engine, record: &Summary) -> Result<u8, Failure> {
    let (stored, plan) = engine.plan_of(&record.uid, &Options::default())?;
    let count = hooks::again(engine, &stored, &plan).await?;
    let value = json!({"record": record.uid, "title": record.title, "outcome": "told", "hooks": count});
    context.report.answer(&value, || match count {
        0 => format!("{} has no hooks", record.title),
        1 => format!("{}: its hook has run", record.title),
        _ => format!("{}: its {count} hooks have run", record.title),
    });
    Ok(exit::DONE)
}
