//! `turnlock check`

use clap::Args;
use jiff::Timestamp;
use serde_json::json;
use turnlock_protocol::Operation;
use turnlock_protocol::operation::{CheckParams, Findings, MayRotate, Severity};

use super::Context;
use crate::budget;
use crate::child::ReadOnly;
use crate::engine::{Engine, durable};
use crate::failure::{Failure, exit};
use crate::fleet;
use crate::resolve::Options;
use crate::rotate::duplicate;
use crate::vault::Summary;

#[derive(Debug, Args)]
#[command(
    after_help = "Exit status 3 when a rotation would fail.\n\nExamples:\n  turnlock check \"Orders database\"\n  turnlock check --all -o json"
)]
pub(super) struct Check {
    /// A record: UID, title, folder/title, or an endpoint's name
    #[arg(required_unless_present = "all")]
    name: Option<String>,
    /// Every record that can be rotated
    #[arg(long, conflicts_with = "name")]
    all: bool,
}

pub(super) async fn run(context: &Context, check: Check) -> Result<u8, Failure> {
    let engine = context.engine(false).await?;
    let records = match &check.name {
        Some(name) => vec![engine.record_named(name)?],
        None => super::list::sorted(engine.vault.as_ref(), |summary| summary.plugin.is_some())?,
    };
    let mut statuses = Vec::new();
    for record in &records {
        statuses.push(match one(&engine, record, check.name.as_deref()).await {
            Ok((remarks, findings)) => told(context, record, &remarks, &findings),
            Err(failure) => {
                let failure = failure.about(&record.title);
                context.report.failure(&failure);
                failure.exit_status()
            }
        });
    }
    Ok(exit::of_many(&statuses))
}

async fn one(engine: &Engine, record: &Summary, name: Option<&str>) -> Result<(Vec<String>, Findings), Failure> {
    let endpoint = name.and_then(|name| {
        record
            .endpoints
            .iter()
            .map(|(endpoint, ..)| endpoint)
            .find(|endpoint| endpoint.eq_ignore_ascii_case(name))
            .cloned()
    });
    let (_, mut plan) = engine.plan_of(&record.uid, &Options { endpoint, ..Options::default() })?;
    let others = durable(|| engine.vault.same_account(&plan.identity))?;
    if others.len() > 1 {
        plan.remarks.push(format!("{} records hold this account: rotate them with --with-duplicates", others.len()));
    }
    if let Some(wrong) = fleet::turn(record, Timestamp::now()).and_then(|turn| turn.wrong) {
        plan.remarks
            .push(format!("turnlock:schedule {wrong}; until it is corrected, the daemon leaves this record out"));
    }
    let mut rotator = engine.rotator_for(&mut plan).await?;
    let params =
        CheckParams { account: plan.account.clone(), current: plan.current.duplicate(), admin: duplicate(&plan.admin) };
    let log_in = budget::work(engine, &plan)?;
    let findings = rotator.call(Operation::Check, &params, plan.deadline_ms, &mut ReadOnly).await;
    match &findings {
        Ok(_) => log_in.accepted(),
        Err(fault) => log_in.failed(fault),
    }
    rotator.end().await;
    Ok((plan.remarks, findings?))
}

fn told(context: &Context, record: &Summary, remarks: &[String], findings: &Findings) -> u8 {
    let value = json!({"record": record.uid, "title": record.title, "findings": findings, "remarks": remarks});
    context.report.answer(&value, || {
        let mut lines = vec![format!(
            "{}  {}  {}  {}",
            record.title,
            findings.server.as_deref().unwrap_or("(server unknown)"),
            findings.tls.as_deref().unwrap_or("no TLS"),
            match findings.may_rotate {
                MayRotate::Yes => "may rotate",
                MayRotate::No => "MAY NOT ROTATE",
                MayRotate::Unknown => "may rotate: not known before it is tried",
            }
        )];
        lines.extend(remarks.iter().map(|remark| format!("  warning: {remark}")));
        lines.extend(findings.findings.iter().map(|finding| {
            let severity = match finding.severity {
                Severity::Info => "info",
                Severity::Warning => "warning",
                Severity::Error => "error",
            };
            format!("  {severity}: {}", finding.message)
        }));
        lines.join("\n")
    });
    let bad = findings.may_rotate == MayRotate::No
        || findings.findings.iter().any(|finding| finding.severity == Severity::Error);
    if bad { exit::FAILED } else { exit::DONE }
}
