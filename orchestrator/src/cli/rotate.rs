//! `turnlock rotate`

use std::io::{BufRead, IsTerminal, stdin};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use clap::Args;
use regex::RegexBuilder;
use turnlock_protocol::Secret;

use super::{Context, open};
use crate::engine::Engine;
use crate::failure::{Failure, exit};
use crate::fleet::{self, Ended};
use crate::record::Uid;
use crate::resolve::Options;
use crate::vault::Summary;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  turnlock rotate \"Orders database\"
  turnlock rotate infra/db/orders --dry-run
  turnlock rotate --match 'prod' --force --jobs 8
  printf '%s\\n' \"$NEW\" | turnlock rotate Orders --password -")]
pub(super) struct Rotate {
    /// A record: UID, title, folder/title, or an endpoint's name
    name: Option<String>,
    /// Rotate every record whose title matches this regular expression; asks for each
    #[arg(short = 'm', long = "match", value_name = "REGEX", conflicts_with = "name")]
    pattern: Option<String>,
    /// With --match: do not ask
    #[arg(long)]
    force: bool,
    /// Use this plugin whatever the record says
    #[arg(long)]
    plugin: Option<String>,
    /// Use this host, or host:port, whatever the record says
    #[arg(long)]
    host: Option<String>,
    /// Use this port whatever the record says
    #[arg(long)]
    port: Option<u16>,
    /// What the new secret must hold: upper,lower,digits,symbols (negative: exactly)
    #[arg(short, long, allow_hyphen_values = true)]
    rules: Option<String>,
    /// Length of the new secret
    #[arg(short, long)]
    length: Option<u32>,
    /// Draw a passphrase of this many words instead
    #[arg(long, value_name = "WORDS")]
    passphrase: Option<u32>,
    /// Use a secret of your own: asks at the terminal, with `-` reads standard input
    #[arg(long, value_name = "-", num_args = 0..=1, default_missing_value = "?")]
    password: Option<String>,
    /// Seconds one operation may take
    #[arg(long)]
    timeout: Option<u64>,
    /// Show the record afterwards
    #[arg(long)]
    print: bool,
    /// With --print: show its secrets, too
    #[arg(long, requires = "print")]
    reveal: bool,
    /// How many records at once
    #[arg(short, long, default_value_t = 1)]
    jobs: usize,
    /// Commit all records of the same account together
    #[arg(long)]
    with_duplicates: bool,
    /// Wait for another run that holds the record
    #[arg(long)]
    wait: bool,
    /// Show what would be done and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Fail with status 7 when hooks or clean-ups stay open
    #[arg(long)]
    strict: bool,
}

pub(super) async fn run(context: &Context, rotate: Rotate) -> Result<u8, Failure> {
    let engine = context.engine(rotate.wait).await?;
    let records = match (&rotate.name, &rotate.pattern) {
        (Some(name), _) => vec![engine.record_named(name)?],
        (None, Some(pattern)) => matching(context, &engine, pattern, rotate.force)?,
        (None, None) => return super::list::rotatable(context, &engine),
    };
    if rotate.password.is_some() && records.len() > 1 {
        return Err(Failure::usage("one password for several records would be a password they share")
            .hint("name one record, or let each get its own"));
    }
    let endpoint = rotate.name.as_deref().and_then(|name| endpoint_called(&records, name));
    let password = rotate.password.as_deref().map(supplied).transpose()?;
    let options = || Options {
        endpoint: endpoint.clone(),
        plugin: rotate.plugin.clone(),
        host: rotate.host.clone(),
        port: rotate.port,
        rules: rotate.rules.clone(),
        length: rotate.length,
        passphrase: rotate.passphrase,
        timeout: rotate.timeout,
        password: password.as_ref().map(Secret::duplicate),
    };
    if rotate.dry_run {
        return dry_run(context, &engine, &records, options);
    }

    let count = records.len();
    context.report.begin_progress((count > 1).then_some(count as u64));
    let mut statuses = Vec::with_capacity(count);
    let mut open = false;
    let told = |ended: Ended| {
        context.report.advance();
        context.report.ended(&ended);
        match &ended.outcome {
            Ok(rotated) => {
                open |= rotated.finish_open;
                statuses.push(exit::DONE);
            }
            Err(failure) => statuses.push(failure.exit_status()),
        }
    };
    let chosen: Vec<(Uid, String)> = records.iter().map(|one| (one.uid.clone(), one.title.clone())).collect();
    fleet::rotate_all(Arc::clone(&engine), chosen, options, rotate.with_duplicates, rotate.jobs, told).await;
    context.report.end_progress();
    if count > 1 && !context.report.is_json() {
        let done = statuses.iter().filter(|status| **status == exit::DONE).count();
        context.report.note(&format!("{done} of {count} rotated, {} failed", count - done));
    }
    if rotate.print {
        for record in &records {
            super::show::print(context, &engine, &record.uid, rotate.reveal)?;
        }
    }
    Ok(match exit::of_many(&statuses) {
        exit::DONE if open && rotate.strict => exit::OPEN,
        exit::DONE => exit::DONE,
        status if context.stop.load(Ordering::Relaxed) && ![exit::LIVE, exit::UNKNOWN].contains(&status) => {
            exit::INTERRUPTED
        }
        status => status,
    })
}

/// Records that match, each confirmed unless forced.
fn matching(context: &Context, engine: &Engine, pattern: &str, force: bool) -> Result<Vec<Summary>, Failure> {
    let pattern = RegexBuilder::new(pattern).case_insensitive(true).build().map_err(|error| {
        Failure::usage("--match is no regular expression").caused_by(&error).hint(r"write \( for a literal (")
    })?;
    let mut found = Vec::new();
    crate::engine::durable(|| {
        engine.vault.list(&mut |summary| {
            let named = pattern.is_match(&summary.title)
                || summary.folders.iter().any(|folder| pattern.is_match(&format!("{folder}/{}", summary.title)));
            if named && summary.plugin.is_some() {
                found.push(summary);
            }
            true
        })
    })?;
    found.sort_by(|one, other| one.title.cmp(&other.title).then_with(|| one.uid.cmp(&other.uid)));
    if !force && !found.is_empty() {
        if !stdin().is_terminal() {
            return Err(Failure::usage(format!(
                "{} records match and there is no terminal to confirm them at",
                found.len()
            ))
            .hint("look with --dry-run, then say --force"));
        }
        found.retain(|summary| {
            context.report.note(&format!("Rotate \"{}\"? [y/N]", summary.title));
            let mut answer = String::new();
            stdin().lock().read_line(&mut answer).is_ok() && answer.trim().eq_ignore_ascii_case("y")
        });
    }
    if found.is_empty() {
        return Err(
            Failure::usage("no record that can be rotated matches").hint("turnlock rotate lists those that can")
        );
    }
    Ok(found)
}

fn endpoint_called(records: &[Summary], name: &str) -> Option<String> {
    let [record] = records else { return None };
    record.endpoints.iter().map(|(endpoint, ..)| endpoint).find(|endpoint| endpoint.eq_ignore_ascii_case(name)).cloned()
}

fn supplied(argument: &str) -> Result<Secret, Failure> {
    match argument {
        "-" => open::first_line(Path::new("-")),
        "?" => {
            let first = open::prompt_for("New password")?;
            if !first.same_as(&open::prompt_for("Once more")?) {
                return Err(Failure::usage("the two passwords differ"));
            }
            Ok(first)
        }
        _ => Err(Failure::usage("a password on the command line can be seen by everybody on this machine")
            .hint("say --password to be asked, or --password - to give it over standard input")),
    }
}

fn dry_run(
    context: &Context,
    engine: &Engine,
    records: &[Summary],
    options: impl Fn() -> Options,
) -> Result<u8, Failure> {
    let mut statuses = Vec::new();
    for record in records {
        match engine.plan_of(&record.uid, &options()) {
            Ok((_, plan)) => {
                let policy = crate::secret_policy::describe(&plan.policy);
                let value = serde_json::json!({"record": record.uid, "title": record.title, "plugin": plan.plugin,
                    "account": plan.identity.to_string(), "policy": policy, "admin": plan.admin_uid,
                    "remarks": plan.remarks, "state": record.state});
                context.report.answer(&value, || {
                    format!("would rotate {}  {}  new secret: {policy}", record.title, plan.identity)
                });
                for remark in &plan.remarks {
                    context.report.warn(&format!("{}: {remark}", record.title));
                }
                statuses.push(exit::DONE);
            }
            Err(failure) => {
                let failure = failure.about(&record.title);
                context.report.failure(&failure);
                statuses.push(failure.exit_status());
            }
        }
    }
    Ok(exit::of_many(&statuses))
}
