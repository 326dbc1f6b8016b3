//! `turnlock audit`

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Context;
use crate::engine::durable;
use crate::failure::{Failure, exit};
use crate::vault::{AuditRow, Vault};

#[derive(Debug, Subcommand)]
pub(super) enum Audit {
    /// Prove that no row was changed, added or removed; prints the chain's head
    #[command(
        after_help = "Examples:\n  turnlock audit verify -o json\n  turnlock audit verify --anchors /mnt/worm/turnlock.anchors\n  turnlock audit verify --exported audit.ndjson --anchors turnlock.anchors   # without the vault"
    )]
    Verify {
        /// Prove also that the chain holds every head that was kept in this file
        #[arg(long, value_name = "FILE")]
        anchors: Option<PathBuf>,
        /// Prove rows that were exported to this file, instead of the vault's
        #[arg(long, value_name = "FILE")]
        exported: Option<PathBuf>,
    },
    /// Add the chain's head to a file outside of the vault: whoever rewrites the chain would have to rewrite that, too
    #[command(
        after_help = "Examples:\n  turnlock audit anchor /mnt/worm/turnlock.anchors\n  turnlock audit anchor - | ssh log-host 'cat >> turnlock.anchors'"
    )]
    Anchor {
        /// The file, made if need be; with `-` the line goes to standard output
        file: PathBuf,
    },
    /// Write the rows as JSON lines
    #[command(after_help = "Examples:\n  turnlock audit export --after 1000 >> audit.ndjson")]
    Export {
        /// Only rows after this number
        #[arg(long, default_value_t = 0)]
        after: u64,
    },
}

/// A head of the chain, kept outside of the vault; one a line.
#[derive(Debug, Serialize, Deserialize)]
struct Anchor {
    at: Timestamp,
    rows: u64,
    head: String,
}

pub(super) async fn run(context: &Context, audit: Audit) -> Result<u8, Failure> {
    match audit {
        Audit::Verify { anchors, exported } => {
            let anchors = anchors.as_deref().map(read_anchors).transpose()?.unwrap_or_default();
            let (rows, head) = match exported {
                Some(file) => prove_export(&file, &anchors)?,
                None => prove(context.vault().await?.as_ref(), &anchors)?,
            };
            context.report.answer(&json!({"rows": rows, "head": head, "anchors": anchors.len()}), || {
                let held = match anchors.len() {
                    0 => String::new(),
                    count => format!("; holds all {count} anchors"),
                };
                format!("{rows} rows, unbroken{held}; head {head}")
            });
        }
        Audit::Anchor { file } => anchor(context, &file).await?,
        Audit::Export { after } => {
            let vault = context.vault().await?;
            let mut told = Ok(());
            durable(|| {
                vault.audit_rows(after.saturating_add(1), &mut |row| {
                    told = context.report.deliver(&serde_json::to_string(&row).unwrap_or_default());
                    told.is_ok()
                })
            })?;
            told?;
        }
    }
    Ok(exit::DONE)
}

/// Proves the vault's chain, and that it holds these heads.
fn prove(vault: &dyn Vault, anchors: &[Anchor]) -> Result<(u64, String), Failure> {
    let (rows, head) = durable(|| vault.audit_verify())?;
    for anchor in anchors {
        let mut found = None;
        durable(|| {
            vault.audit_rows(anchor.rows, &mut |row| {
                found = (row.number == anchor.rows).then_some(row.chain);
                false
            })
        })?;
        anchor.is(found.as_deref())?;
    }
    Ok((rows, head))
}

/// Proves rows that were exported: each follows from the one before. What came
/// before the first is proven by an anchor alone.
fn prove_export(file: &Path, anchors: &[Anchor]) -> Result<(u64, String), Failure> {
    let name = file.display();
    let text = fs::read_to_string(file)
        .map_err(|error| Failure::usage(format!("{name} cannot be read")).caused_by(&error).hint("name an export"))?;
    let broken = |line: usize, what: &str| Failure::new(format!("{name}, line {line}: {what}")).hint(KEEP);
    let mut last: Option<AuditRow> = None;
    let mut waiting: Vec<&Anchor> = anchors.iter().collect();
    for (number, line) in (1..).zip(text.lines()) {
        let row: AuditRow =
            serde_json::from_str(line).map_err(|_| broken(number, "this is no row of an audit chain"))?;
        if let Some(last) = &last
            && (row.number != last.number + 1 || !row.follows(&last.chain))
        {
            return Err(broken(number, "the chain is broken"));
        }
        for anchor in waiting.extract_if(.., |anchor| anchor.rows == row.number) {
            anchor.is(Some(&row.chain))?;
        }
        last = Some(row);
    }
    let last = last.ok_or_else(|| broken(1, "there is no row"))?;
    // Heads from before its first row say nothing of it.
    match waiting.into_iter().find(|anchor| anchor.rows > last.number) {
        Some(anchor) => Err(anchor.is(None).err().unwrap_or_else(|| broken(1, "rows are missing"))),
        None => Ok((last.number, last.chain)),
    }
}

const KEEP: &str = "keep everything as it is: somebody, or a restored backup, has changed what had happened";

impl Anchor {
    /// Whether the chain's row of that number is the one that was anchored.
    fn is(&self, found: Option<&str>) -> Result<(), Failure> {
        let day = self.at.strftime("%Y-%m-%d %H:%M:%SZ");
        let what = match found {
            Some(chain) if chain == self.head => return Ok(()),
            Some(_) => format!("row {} is not the one whose head was kept at {day}", self.rows),
            None => format!("row {}, whose head was kept at {day}, is missing", self.rows),
        };
        Err(Failure::new(format!("the audit chain was rewritten: {what}")).hint(KEEP))
    }
}

fn read_anchors(file: &Path) -> Result<Vec<Anchor>, Failure> {
    let name = file.display();
    let text = fs::read_to_string(file).map_err(|error| {
        Failure::usage(format!("the anchors {name} cannot be read"))
            .caused_by(&error)
            .hint("turnlock audit anchor FILE makes such a file")
    })?;
    let anchor = |(number, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|_| {
            Failure::usage(format!("{name}, line {number} is no anchor")).hint("name a file of turnlock audit anchor")
        })
    };
    (1..).zip(text.lines()).map(anchor).collect()
}

/// Nothing is anchored over a chain that does not hold the earlier heads.
async fn anchor(context: &Context, file: &Path) -> Result<(), Failure> {
    let vault = context.vault().await?;
    let to_stdout = file.as_os_str() == "-";
    let known = if to_stdout || !file.exists() { Vec::new() } else { read_anchors(file)? };
    let (rows, head) = prove(vault.as_ref(), &known)?;
    let line = serde_json::to_string(&Anchor { at: Timestamp::now(), rows, head: head.clone() }).unwrap_or_default();
    if to_stdout {
        return context.report.deliver(&line);
    }
    let unwritable = |error: std::io::Error| {
        Failure::new(format!("{} cannot be written", file.display()))
            .caused_by(&error)
            .hint("name a file that may be appended to")
    };
    let mut kept = OpenOptions::new().append(true).create(true).mode(0o644).open(file).map_err(unwritable)?;
    kept.write_all(format!("{line}\n").as_bytes()).and_then(|()| kept.sync_all()).map_err(unwritable)?;
    let value = json!({"rows": rows, "head": head, "anchors": known.len() + 1});
    context.report.answer(&value, || format!("{rows} rows anchored in {}; head {head}", file.display()));
    Ok(())
}
