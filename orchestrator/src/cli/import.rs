//! `turnlock import`

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::Context;
use super::kdbx::KdbxKey;
use crate::engine::{Engine, durable};
use crate::failure::{Failure, exit};
use crate::formats::{ImportError, Loss, Sink, Stopped, csv, kdbx, keeper};
use crate::record::Record;
use crate::report::Report;
use crate::vault::{Import, VaultError};

#[derive(Debug, Subcommand)]
pub(super) enum Source {
    /// Keeper Commander's `export --format json`, or raw record JSON
    #[command(
        after_help = "Examples:\n  turnlock import keeper export.json --dry-run\n  gpg -d export.json.gpg | turnlock import keeper -"
    )]
    Keeper(File),
    /// Keeper Commander's `export --format csv`
    #[command(after_help = "Examples:\n  turnlock import csv export.csv --dry-run")]
    Csv(File),
    /// A database of KeePass 2 or KeePassXC
    #[command(
        after_help = "Examples:\n  turnlock import kdbx team.kdbx --dry-run\n  pass show team | turnlock import kdbx team.kdbx --kdbx-passphrase-file -"
    )]
    Kdbx(Kdbx),
}

#[derive(Debug, Args)]
pub(super) struct File {
    /// The file, `-` for standard input
    file: PathBuf,
    /// Tell what would be imported and change nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
pub(super) struct Kdbx {
    #[command(flatten)]
    file: File,
    #[command(flatten)]
    key: KdbxKey,
}

pub(super) async fn run(context: &Context, source: Source) -> Result<u8, Failure> {
    let (file, key) = match &source {
        Source::Keeper(file) | Source::Csv(file) => (file, None),
        Source::Kdbx(Kdbx { file, key }) => (file, Some(key.to_open(&file.file)?)),
    };
    let place = file.file.display();
    let content = open(file).map_err(|error| {
        Failure::usage(format!("{place} cannot be read"))
            .caused_by(&error)
            .hint("name the file that was exported, or - for standard input")
    })?;
    let engine = context.engine(false).await?;
    let mut taking = Taking::new(&engine, &context.report, file.dry_run);
    let read = tokio::task::block_in_place(|| match (&source, key) {
        (Source::Csv(_), _) => csv::import(content, &mut taking),
        (_, Some(key)) => kdbx::import(content, &key, &mut taking),
        (_, None) => keeper::import(content, &mut taking),
    });
    match (read, taking.failure.take()) {
        (Err(ImportError::Stopped), Some(error)) => return Err(error.into()),
        (Err(error), _) => {
            return Err(Failure::usage(format!("{place} is not imported: {error}")).hint(error.hint()));
        }
        (Ok(()), _) => {}
    }
    let (count, rotatable, losses) = taking.end()?;
    let value = json!({"records": count, "rotatable": rotatable, "dry_run": file.dry_run, "losses": losses});
    context.report.answer(&value, || {
        let would = if file.dry_run { "would import" } else { "imported" };
        format!("{would} {count} records, {rotatable} of them can be rotated")
    });
    Ok(exit::DONE)
}

fn open(file: &File) -> io::Result<Box<dyn Read + Send>> {
    if file.file.as_os_str() == "-" {
        return Ok(Box::new(io::stdin()));
    }
    Ok(Box::new(fs::File::open(&file.file)?))
}

/// Takes records into the vault as they are read: all of them, or none.
struct Taking<'a> {
    engine: &'a Arc<Engine>,
    report: &'a Report,
    dry_run: bool,
    /// Begun with the first record, so that a slow source keeps nobody waiting.
    import: Option<Box<dyn Import + 'a>>,
    /// Why the vault took no more.
    failure: Option<VaultError>,
    count: usize,
    rotatable: usize,
    /// The title that first named each account, by a digest of the account.
    accounts: HashMap<[u8; 32], Box<str>>,
    losses: Vec<String>,
}

impl<'a> Taking<'a> {
    fn new(engine: &'a Arc<Engine>, report: &'a Report, dry_run: bool) -> Self {
        Self {
            engine,
            report,
            dry_run,
            import: None,
            failure: None,
            count: 0,
            rotatable: 0,
            accounts: HashMap::new(),
            losses: Vec::new(),
        }
    }

    fn put(&mut self, record: &Record) -> Result<(), VaultError> {
        let identities = self.engine.identities(record);
        self.count += 1;
        self.rotatable += usize::from(!identities.is_empty());
        for identity in &identities {
            let account = identity.to_string();
            let first = self.accounts.entry(Sha256::digest(&account).into());
            match first {
                std::collections::hash_map::Entry::Vacant(free) => {
                    free.insert(record.title.as_str().into());
                }
                std::collections::hash_map::Entry::Occupied(first) => self.report.warn(&format!(
                    "\"{}\" and \"{}\" hold the same account {account}: rotate them together with --with-duplicates",
                    first.get(),
                    record.title
                )),
            }
        }
        if self.dry_run {
            return Ok(());
        }
        let import = match &mut self.import {
            Some(import) => import,
            None => self.import.insert(self.engine.vault.import()?),
        };
        import.put(record, &identities)
    }

    fn end(self) -> Result<(usize, usize, Vec<String>), Failure> {
        if let Some(import) = self.import {
            durable(|| import.commit())?;
        }
        Ok((self.count, self.rotatable, self.losses))
    }
}

impl Sink for Taking<'_> {
    fn record(&mut self, record: Record) -> Result<(), Stopped> {
        self.put(&record).map_err(|error| {
            self.failure = Some(error);
            Stopped
        })
    }

    fn loss(&mut self, loss: Loss) {
        self.report.warn(&format!("not kept: {loss}"));
        if self.report.is_json() {
            self.losses.push(loss.to_string());
        }
    }
}
