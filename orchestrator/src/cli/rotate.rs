//! `turnlock rotate`

use std::path::Path;

use clap::Args;
use turnlock_protocol::Secret;

use super::fleet::{Choice, Pace};
use super::{Context, open};
use crate::engine::Engine;
use crate::failure::{Failure, exit};
use crate::fleet::{self, Job, Outcome, Why};
use crate::record::Uid;
use crate::resolve::Options;
use crate::rotate::Wanted;
use crate::vault::Summary;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  turnlock rotate \"Orders database\"
  turnlock rotate infra/db/orders --dry-run
  turnlock rotate --match 'prod' --force --jobs 8
  turnlock rotate --due --folder infra --force --jobs 16 --max-failures 5%
  turnlock rotate --failed --dry-run
  printf '%s\\n' \"$NEW\" | turnlock rotate Orders --password -")]
pub(super) struct Rotate {
    /// A record: UID, title, folder/title, or an endpoint's name
    name: Option<String>,
    #[command(flatten)]
    choice: Choice,
    /// Do not ask for each record that was selected
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
    #[command(flatten)]
    pace: Pace,
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
    let mut endpoint = None;
    let jobs = match (&rotate.name, rotate.choice.selection()?) {
        (Some(name), _) => {
            let record = engine.record_named(name)?;
            endpoint = endpoint_called(&record, name);
            vec![fleet::job_of(&engine, record, Why::Asked)?]
        }
        (None, Some(selection)) => {
            let ask = (!rotate.force && !rotate.dry_run).then_some("Rotate");
            let jobs = super::fleet::chosen(context, &engine, &selection, rotate.with_duplicates, ask)?;
            if jobs.is_empty() {
                return Err(Failure::usage("no record that can be rotated matches")
                    .hint("turnlock rotate lists those that can"));
            }
            jobs
        }
        (None, None) => return super::list::rotatable(context, &engine),
    };
    if rotate.password.is_some() && jobs.len() > 1 {
        return Err(Failure::usage("one password for several records would be a password they share")
            .hint("name one record, or let each get its own"));
    }
    let password = rotate.password.as_deref().map(supplied).transpose()?;
    let (plugin, host, port, rules) = (rotate.plugin, rotate.host, rotate.port, rotate.rules);
    let (length, passphrase, timeout) = (rotate.length, rotate.passphrase, rotate.timeout);
    let options = move || Options {
        endpoint: endpoint.clone(),
        plugin: plugin.clone(),
        host: host.clone(),
        port,
        rules: rules.clone(),
        length,
        passphrase,
        timeout,
        password: password.as_ref().map(Secret::duplicate),
    };
    if rotate.dry_run {
        return dry_run(context, &engine, &jobs, options);
    }
    if jobs.len() > 1 {
        super::fleet::back_up(context, &engine)?;
    }
    let shown: Vec<Uid> = if rotate.print { jobs.iter().map(|job| job.uid.clone()).collect() } else { Vec::new() };
    let with_duplicates = rotate.with_duplicates;
    let work = super::fleet::rotations(&engine, move || Wanted { options: options(), with_duplicates });
    let mut open = false;
    let tally = super::fleet::work(context, rotate.pace.rules(&context.config.fleet), jobs, work, |ended| {
        if let Outcome::Done(rotated) = &ended.outcome {
            open |= rotated.finish_open || rotated.hooks_open;
            context.report.rotated(rotated);
        }
        super::fleet::failure_of(context, ended);
    })
    .await;
    if rotate.print {
        for uid in &shown {
            super::show::print(context, &engine, uid, rotate.reveal)?;
        }
    }
    Ok(match tally.exit_status() {
        exit::DONE if open && rotate.strict => exit::OPEN,
        exit::DONE => exit::DONE,
        status if context.stop.is_cancelled() && ![exit::LIVE, exit::UNKNOWN].contains(&status) => exit::INTERRUPTED,
        status => status,
    })
}

fn endpoint_called(record: &Summary, name: &str) -> Option<String> {
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

fn dry_run(context: &Context, engine: &Engine, jobs: &[Job], options: impl Fn() -> Options) -> Result<u8, Failure> {
    let mut statuses = Vec::new();
    for job in jobs {
        match engine.plan_of(&job.uid, &options()) {
            Ok((stored, plan)) => {
                let policy = crate::secret_policy::describe(&plan.policy);
                let value = serde_json::json!({"record": job.uid, "title": job.title, "plugin": plan.plugin,
                    "account": plan.identity.to_string(), "policy": policy, "admin": plan.admin_uid,
                    "remarks": plan.remarks, "open": !stored.stage.is_empty(), "why": job.why.to_string()});
                context.report.answer(&value, || {
                    format!("would rotate {}  {}  new secret: {policy}  ({})", job.title, plan.identity, job.why)
                });
                for remark in &plan.remarks {
                    context.report.warn(&format!("{}: {remark}", job.title));
                }
                statuses.push(exit::DONE);
            }
            Err(failure) => {
                let failure = failure.about(&job.title);
                context.report.failure(&failure);
                statuses.push(failure.exit_status());
            }
        }
    }
    Ok(exit::of_many(&statuses))
}
