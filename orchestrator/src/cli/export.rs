//! `turnlock export`

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Context;
use super::kdbx::KdbxKey;
use crate::durable as files;
use crate::engine::{Engine, durable};
use crate::failure::{Failure, exit};
use crate::formats::kdbx::Key;
use crate::formats::{self, ExportError, csv, kdbx, keeper};
use crate::record::{Earlier, Record, Uid};
use crate::resolve::{self, Options};
use crate::vault::Stored;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  turnlock export --to export.json\n  turnlock export | gpg -er ops@example.com > export.json.gpg\n  turnlock export --format kdbx --to team.kdbx"
)]
pub(super) struct Export {
    /// The form
    #[arg(long, value_enum, default_value_t = Form::Keeper)]
    format: Form,
    /// The file to write, mode 0600 [default: standard output]
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    /// Write to standard output even where that is a terminal
    #[arg(long)]
    reveal: bool,
    #[command(flatten)]
    key: KdbxKey,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// What Commander's `import --format json` reads; keeps everything
    Keeper,
    /// Raw record JSON of either shape
    Raw,
    /// What Commander's `import --format csv` reads
    Csv,
    /// A database of KeePass 2 and KeePassXC, with history
    Kdbx,
}

pub(super) async fn run(context: &Context, export: Export) -> Result<u8, Failure> {
    if export.to.is_none() && context.report.stdout_is_terminal() && !export.reveal {
        return Err(Failure::usage("an export holds every secret in clear and standard output is a terminal")
            .hint("name a file with --to, or say --reveal"));
    }
    let key = (export.format == Form::Kdbx).then(|| export.key.to_make()).transpose()?;
    let engine = context.engine(false).await?;
    let mut uids = Vec::new();
    durable(|| {
        engine.vault.list(&mut |summary| {
            uids.push(summary.uid);
            true
        })
    })?;
    uids.sort();
    let write =
        |out: &mut dyn Write| tokio::task::block_in_place(|| written(context, &engine, &uids, export.format, key, out));
    let unwritable = |error: io::Error| Failure::new("the export cannot be written").caused_by(&error);
    let mut failure = None;
    let outcome = match &export.to {
        Some(file) => files::write_with(file, |out| stopped_by(write(out), &mut failure)),
        None => {
            let mut out = BufWriter::new(context.report.stdout());
            stopped_by(write(&mut out), &mut failure).and_then(|()| out.flush())
        }
    };
    if let Some(failure) = failure {
        return Err(failure);
    }
    outcome.map_err(unwritable)?;
    if let Some(file) = &export.to {
        context.report.note(&format!("{} records written to {}", uids.len(), file.display()));
    }
    Ok(exit::DONE)
}

/// Ends the writing of a file with a failure that is no file's.
fn stopped_by(outcome: Result<(), Stop>, failure: &mut Option<Failure>) -> io::Result<()> {
    match outcome {
        Ok(()) => Ok(()),
        Err(Stop::Export(ExportError(error))) => Err(error),
        Err(Stop::Vault(error)) => {
            *failure = Some(*error);
            Err(io::Error::other("the vault cannot be read"))
        }
    }
}

enum Stop {
    Export(ExportError),
    Vault(Box<Failure>),
}

impl From<ExportError> for Stop {
    fn from(error: ExportError) -> Self {
        Self::Export(error)
    }
}

fn written(
    context: &Context,
    engine: &Engine,
    uids: &[Uid],
    form: Form,
    key: Option<Key>,
    out: &mut dyn Write,
) -> Result<(), Stop> {
    let mut exporter: Box<dyn formats::Export + '_> = match (form, key) {
        (Form::Kdbx, Some(key)) => Box::new(kdbx::Exporter::start(out, key)),
        (Form::Csv, _) => Box::new(csv::Exporter::start(out)),
        (Form::Raw, _) => Box::new(keeper::RawExporter::start(out)?),
        (Form::Keeper | Form::Kdbx, _) => Box::new(keeper::Exporter::start(out)?),
    };
    for uid in uids {
        let record = with_history(context, engine, uid, form).map_err(|failure| Stop::Vault(Box::new(failure)))?;
        for loss in exporter.record(&record)? {
            context.report.warn(&format!("not kept: '{}' ({uid}): {loss}", record.title.escape_debug()));
        }
    }
    Ok(exporter.finish()?)
}

/// A record and, where the form has a place for them, its past credentials as
/// earlier versions.
fn with_history(context: &Context, engine: &Engine, uid: &Uid, form: Form) -> Result<Record, Failure> {
    let stored = durable(|| engine.vault.read(uid))?;
    if !stored.stage.is_empty() {
        context.report.warn(&format!(
            "\"{}\" has an open rotation, whose candidate is not exported: turnlock recover settles it",
            stored.record.title
        ));
    }
    let mut record = stored.record;
    if form == Form::Kdbx {
        let mut past = durable(|| engine.vault.history(uid))?;
        past.sort_by_key(|past| past.number);
        for past in past {
            let plugin = past.plan.as_ref().map(|plan| plan.plugin.clone());
            let plugin = plugin.or_else(|| {
                resolve::plugin_of(&record, &Options::default(), &engine.catalogue).ok().map(|chosen| chosen.plugin)
            });
            let Stored { record: mut version, .. } = durable(|| engine.vault.read(uid))?;
            let places = plugin.and_then(|plugin| resolve::write_back(&version, &plugin, &engine.catalogue));
            version.write_past(&places.unwrap_or_default(), &past.credential).map_err(|error| {
                Failure::new(format!("a past credential of \"{}\" has no place in it", record.title)).caused_by(&error)
            })?;
            let Record { title, notes, body, .. } = version;
            record.earlier.push(Earlier { at: Some(past.at), title, notes, body });
        }
        record.earlier.sort_by_key(|earlier| earlier.at);
    }
    Ok(record)
}
