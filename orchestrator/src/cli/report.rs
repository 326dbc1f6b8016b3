//! `turnlock report`

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::Context;
use crate::durable;
use crate::failure::{Failure, exit};
use crate::observe::{History, Overview, metrics, page};
use crate::vault::RecordState;

#[derive(Debug, Args)]
#[command(after_help = "\
The page holds no secret, opens offline, and can be printed; it does hold titles
and accounts. The figures are OpenMetrics, for node_exporter's textfile collector.

Examples:
  turnlock report --html report.html
  turnlock report --metrics-file /var/lib/prometheus/node-exporter/turnlock.prom")]
pub(super) struct Report {
    /// Write the page to this file
    #[arg(long, value_name = "FILE", required_unless_present = "metrics_file")]
    html: Option<PathBuf>,
    /// Write figures to this file, which everybody may read
    #[arg(long, value_name = "FILE")]
    metrics_file: Option<PathBuf>,
}

pub(super) async fn run(context: &Context, report: &Report) -> Result<u8, Failure> {
    let vault = context.vault().await?;
    let history = History::of(vault.as_ref())?;
    let overview = Overview::take(vault.as_ref())?;
    let mut written = Vec::new();
    if let Some(file) = &report.html {
        let name = context.config.vault.display().to_string();
        written.push((file, durable::write(file, page::page(&name, &overview, &history).as_bytes())));
    }
    if let Some(file) = &report.metrics_file {
        written.push((file, durable::write_for_all(file, metrics::text(&overview, &history)?.as_bytes())));
    }
    for (file, written) in written {
        written.map_err(|error| {
            Failure::new(format!("{} cannot be written", file.display()))
                .caused_by(&error)
                .hint("name a file in a directory that you may write")
        })?;
    }
    let (records, overdue) = (overview.kept.len(), overview.overdue().count());
    let (open, parked) = (overview.open.len(), overview.count(RecordState::Parked));
    let value = json!({"records": records, "rotations": history.rotated, "failures": history.failed,
        "overdue": overdue, "open": open, "parked": parked});
    context
        .report
        .answer(&value, || format!("{records} records, {overdue} overdue, {open} open, {parked} of them parked"));
    Ok(exit::DONE)
}
