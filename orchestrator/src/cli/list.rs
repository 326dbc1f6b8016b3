//! `turnlock list`, and what `turnlock rotate` shows without a name.

use clap::Args;
use regex::RegexBuilder;
use serde::Serialize;

use super::Context;
use crate::engine::{Engine, durable};
use crate::failure::{Failure, exit};
use crate::vault::{RecordState, Summary, Vault};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  turnlock list\n  turnlock list --match prod -o json")]
pub(super) struct List {
    /// Only records whose title or folder matches this regular expression
    #[arg(short = 'm', long = "match", value_name = "REGEX")]
    pattern: Option<String>,
}

pub(super) async fn run(context: &Context, list: List) -> Result<u8, Failure> {
    let pattern =
        list.pattern.map(|pattern| RegexBuilder::new(&pattern).case_insensitive(true).build()).transpose().map_err(
            |error| {
                Failure::usage("--match is no regular expression").caused_by(&error).hint(r"write \( for a literal (")
            },
        )?;
    let vault = context.vault().await?;
    let records = sorted(vault.as_ref(), |summary| {
        pattern.as_ref().is_none_or(|pattern| {
            pattern.is_match(&summary.title) || summary.folders.iter().any(|folder| pattern.is_match(folder))
        })
    })?;
    context.report.rows(
        &["title", "plugin", "type", "state", "folder", "uid"],
        &records,
        |record| {
            vec![
                record.title.clone(),
                record.plugin.clone().unwrap_or_default(),
                record.record_type.clone().unwrap_or_else(|| "untyped".to_owned()),
                state(record.state).to_owned(),
                record.folders.first().cloned().unwrap_or_else(|| "/".to_owned()),
                record.uid.to_string(),
            ]
        },
        "no records; turnlock import keeper FILE brings some in, turnlock add makes one",
    );
    Ok(exit::DONE)
}

/// Every record and endpoint that can be rotated, numbered.
pub(super) fn rotatable(context: &Context, engine: &Engine) -> Result<u8, Failure> {
    #[derive(Serialize)]
    struct Row {
        number: usize,
        name: String,
        description: Option<String>,
        plugin: String,
        uid: crate::record::Uid,
        title: String,
        folder: String,
    }
    let mut rows = Vec::new();
    for record in sorted(engine.vault.as_ref(), |summary| summary.plugin.is_some() || !summary.endpoints.is_empty())? {
        let own = record.plugin.clone().map(|plugin| (String::new(), plugin, None));
        for (name, plugin, description) in own.into_iter().chain(record.endpoints) {
            rows.push(Row {
                number: rows.len() + 1,
                name,
                description,
                plugin,
                uid: record.uid.clone(),
                title: record.title.clone(),
                folder: record.folders.first().cloned().unwrap_or_else(|| "/".to_owned()),
            });
        }
    }
    context.report.rows(
        &["#", "name", "plugin", "uid", "title", "folder", "description"],
        &rows,
        |row| {
            vec![
                row.number.to_string(),
                row.name.clone(),
                row.plugin.clone(),
                row.uid.to_string(),
                row.title.clone(),
                row.folder.clone(),
                row.description.clone().unwrap_or_default(),
            ]
        },
        "no record can be rotated",
    );
    Ok(exit::DONE)
}

pub(super) fn sorted(vault: &dyn Vault, wanted: impl Fn(&Summary) -> bool) -> Result<Vec<Summary>, Failure> {
    let mut records = Vec::new();
    durable(|| {
        vault.list(&mut |summary| {
            if wanted(&summary) {
                records.push(summary);
            }
            true
        })
    })?;
    records.sort_by(|one, other| one.title.cmp(&other.title).then_with(|| one.uid.cmp(&other.uid)));
    Ok(records)
}

pub(super) fn state(state: RecordState) -> &'static str {
    match state {
        RecordState::Settled => "",
        RecordState::Open => "open",
        RecordState::Parked => "parked",
        RecordState::Finishing => "clean-up",
        RecordState::Hooks => "hooks",
    }
}
