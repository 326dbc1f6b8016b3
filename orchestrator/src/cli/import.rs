//! `turnlock import` and `turnlock export`

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;
use zeroize::Zeroizing;

use super::Context;
use crate::durable as files;
use crate::engine::durable;
use crate::failure::{Failure, exit};
use crate::keeper;
use crate::record::Record;

#[derive(Debug, Subcommand)]
pub(super) enum Source {
    /// Keeper Commander's `export --format json`, or raw record JSON
    #[command(
        after_help = "Examples:\n  turnlock import keeper export.json --dry-run\n  gpg -d export.json.gpg | turnlock import keeper -"
    )]
    Keeper(Keeper),
}

#[derive(Debug, Args)]
pub(super) struct Keeper {
    /// The file, `-` for standard input
    file: PathBuf,
    /// Tell what would be imported and change nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  turnlock export --to export.json\n  turnlock export | gpg -er ops@example.com > export.json.gpg"
)]
pub(super) struct Export {
    /// The file to write, mode 0600 [default: standard output]
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    /// Write to standard output even where that is a terminal
    #[arg(long)]
    reveal: bool,
}

pub(super) async fn run(context: &Context, Source::Keeper(keeper): Source) -> Result<u8, Failure> {
    let place = keeper.file.display();
    let text = read(&keeper.file).map_err(|error| {
        Failure::usage(format!("{place} cannot be read"))
            .caused_by(&error)
            .hint("name the file that Commander's 'export --format json' wrote, or - for standard input")
    })?;
    let imported = keeper::import(&text)
        .map_err(|error| Failure::usage(format!("{place} is not imported: {error}")).hint(error.hint()))?;
    let engine = context.engine(false).await?;
    let records: Vec<_> = imported
        .records
        .into_iter()
        .map(|record| {
            let identities = engine.identities(&record);
            (record, identities)
        })
        .collect();
    let count = records.len();
    let rotatable = records.iter().filter(|(_, identities)| !identities.is_empty()).count();
    if !keeper.dry_run {
        durable(|| engine.vault.put_all(&records))?;
    }
    for loss in &imported.losses {
        context.report.warn(&format!("not kept: {loss}"));
    }
    let mut accounts: Vec<_> = records
        .iter()
        .flat_map(|(record, identities)| identities.iter().map(move |identity| (identity, &record.title)))
        .collect();
    accounts.sort();
    for pair in accounts.windows(2) {
        if let [(one, first), (other, second)] = pair
            && one == other
        {
            context.report.warn(&format!(
                "\"{first}\" and \"{second}\" hold the same account {one}: rotate them together with --with-duplicates"
            ));
        }
    }
    let value = json!({"records": count, "rotatable": rotatable, "dry_run": keeper.dry_run,
        "losses": imported.losses.iter().map(ToString::to_string).collect::<Vec<_>>()});
    context.report.answer(&value, || {
        let would = if keeper.dry_run { "would import" } else { "imported" };
        format!("{would} {count} records, {rotatable} of them can be rotated")
    });
    Ok(exit::DONE)
}

pub(super) async fn export(context: &Context, export: Export) -> Result<u8, Failure> {
    if export.to.is_none() && context.report.stdout_is_terminal() && !export.reveal {
        return Err(Failure::usage("an export holds every secret in clear and standard output is a terminal")
            .hint("name a file with --to, or say --reveal"));
    }
    let vault = context.vault()?;
    let mut uids = Vec::new();
    durable(|| {
        crate::vault::Vault::list(&vault, &mut |summary| {
            uids.push(summary.uid);
            true
        })
    })?;
    uids.sort();
    let records: Vec<Record> = uids
        .iter()
        .map(|uid| Ok(durable(|| crate::vault::Vault::read(&vault, uid))?.record))
        .collect::<Result<_, Failure>>()?;
    let mut text = Zeroizing::new(Vec::new());
    let unwritable = |error: &dyn std::error::Error| Failure::new("the export cannot be written").caused_by(error);
    keeper::export(&records, &mut *text).map_err(|error| unwritable(&error))?;
    match &export.to {
        Some(file) => {
            files::write(file, &text).map_err(|error| unwritable(&error))?;
            context.report.note(&format!("{} records written to {}", records.len(), file.display()));
        }
        None => context.report.bytes(&text).map_err(|error| unwritable(&error))?,
    }
    Ok(exit::DONE)
}

fn read(file: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut text = Zeroizing::new(Vec::new());
    if file.as_os_str() == "-" {
        io::stdin().lock().read_to_end(&mut text)?;
    } else {
        fs::File::open(file)?.read_to_end(&mut text)?;
    }
    Ok(text)
}
