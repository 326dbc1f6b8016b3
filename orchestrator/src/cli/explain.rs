//! `turnlock explain`

use clap::Args;

use super::Context;
use crate::failure::{Failure, exit};
use crate::resolve::Options;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  turnlock explain \"Orders database\"\n  turnlock explain Orders --port 5433")]
pub(super) struct Explain {
    /// A record: UID, title, folder/title, or an endpoint's name
    name: String,
    /// As if rotated with this plugin
    #[arg(long)]
    plugin: Option<String>,
    /// As if rotated with this host
    #[arg(long)]
    host: Option<String>,
    /// As if rotated with this port
    #[arg(long)]
    port: Option<u16>,
}

pub(super) async fn run(context: &Context, explain: Explain) -> Result<u8, Failure> {
    let engine = context.engine(false).await?;
    let record = engine.record_named(&explain.name)?;
    let endpoint =
        record.endpoints.iter().map(|(name, ..)| name).find(|name| name.eq_ignore_ascii_case(&explain.name)).cloned();
    let options =
        Options { endpoint, plugin: explain.plugin, host: explain.host, port: explain.port, ..Options::default() };
    let (_, plan) = engine.plan_of(&record.uid, &options)?;
    context.report.rows(
        &["what", "value", "from"],
        &plan.decisions,
        |decision| vec![decision.what.clone(), decision.value.clone(), decision.from.clone()],
        "nothing was decided",
    );
    for remark in &plan.remarks {
        context.report.warn(remark);
    }
    Ok(exit::DONE)
}
