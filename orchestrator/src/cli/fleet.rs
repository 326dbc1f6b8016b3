//! What commands over many records share: which ones, how gently, a backup
//! before anything changes, and the summary after it.

use std::io::{BufRead, IsTerminal, stdin};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use regex::{Regex, RegexBuilder};

use super::Context;
use crate::backup::Backups;
use crate::config::FleetSection;
use crate::engine::{Engine, durable};
use crate::failure::Failure;
use crate::fleet::{self, AtMost, Ended, Fleet, Job, Outcome, Rules, Selection, Tally, Work};

/// Which records: all that is said must be true of each.
#[derive(Debug, Args)]
pub(super) struct Choice {
    /// Every record whose title, or folder and title, matches this regular expression
    #[arg(short = 'm', long = "match", value_name = "REGEX", conflicts_with = "name")]
    pattern: Option<String>,
    /// Every record that this plugin rotates; may be repeated
    #[arg(long, value_name = "PLUGIN", conflicts_with = "name")]
    plugin_is: Vec<String>,
    /// Every record in this folder or below it; may be repeated
    #[arg(long, value_name = "FOLDER", conflicts_with = "name")]
    folder: Vec<String>,
    /// Every record with this word in its turnlock:tag; may be repeated
    #[arg(long, value_name = "TAG", conflicts_with = "name")]
    tag: Vec<String>,
    /// Every record that is due by its turnlock:schedule
    #[arg(long, conflicts_with = "name")]
    due: bool,
    /// Every record whose last rotation failed
    #[arg(long, conflicts_with = "name")]
    failed: bool,
}

impl Choice {
    /// The selection, if there is any.
    pub(super) fn selection(&self) -> Result<Option<Selection>, Failure> {
        let selection = Selection {
            pattern: self.pattern.as_deref().map(pattern).transpose()?,
            plugins: self.plugin_is.clone(),
            folders: self.folder.clone(),
            tags: self.tag.clone(),
            due: self.due,
            failed: self.failed,
        };
        let any = selection.pattern.is_some()
            || [&self.plugin_is, &self.folder, &self.tag].iter().any(|names| !names.is_empty())
            || self.due
            || self.failed;
        Ok(any.then_some(selection))
    }
}

/// How many at once, and when to stop.
#[derive(Debug, Args)]
pub(super) struct Pace {
    /// How many records at once [default: 1, or the configuration's]
    #[arg(short, long, value_name = "N", value_parser = at_least_one)]
    jobs: Option<usize>,
    /// How many of them at one host [default: 8, or the configuration's]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    per_host: Option<usize>,
    /// Let each record begin at a moment of its own within this time, such as 10m
    #[arg(long, value_name = "TIME", value_parser = time)]
    jitter: Option<Duration>,
    /// Begin nothing more when more than this failed: a number, or a share such as 5%
    #[arg(long, value_name = "N|N%")]
    max_failures: Option<AtMost>,
}

impl Pace {
    /// The rules: what is said here over what the configuration says.
    pub(super) fn rules(&self, said: &FleetSection) -> Rules {
        let rules = rules(said);
        Rules {
            jobs: self.jobs.unwrap_or(rules.jobs),
            per_host: self.per_host.unwrap_or(rules.per_host),
            jitter: self.jitter.unwrap_or_default(),
            max_failures: self.max_failures,
            ..rules
        }
    }
}

/// The rules of the configuration.
pub(super) fn rules(said: &FleetSection) -> Rules {
    let default = Rules::default();
    Rules {
        jobs: said.jobs.unwrap_or(default.jobs),
        per_host: said.per_host.unwrap_or(default.per_host),
        hosts: said.host.clone(),
        plugins: said.plugin.clone(),
        ..default
    }
}

/// The jobs of a selection, each confirmed unless forced.
pub(super) fn chosen(
    context: &Context,
    engine: &Engine,
    selection: &Selection,
    once_an_account: bool,
    ask: Option<&str>,
) -> Result<Vec<Job>, Failure> {
    let now = Timestamp::now();
    let mut jobs = fleet::select(engine, once_an_account, |summary| selection.takes(summary, now))?;
    if let Some(verb) = ask.filter(|_| !jobs.is_empty()) {
        if !stdin().is_terminal() {
            return Err(Failure::usage(format!(
                "{} records match and there is no terminal to confirm them at",
                jobs.len()
            ))
            .hint("look with --dry-run, then say --force"));
        }
        jobs.retain(|job| {
            context.report.note(&format!("{verb} \"{}\"? [y/N]", job.title));
            let mut answer = String::new();
            stdin().lock().read_line(&mut answer).is_ok()
                && ["y", "yes"].iter().any(|yes| answer.trim().eq_ignore_ascii_case(yes))
        });
    }
    Ok(jobs)
}

/// Works on all jobs, tells of each as it ends, and at the end of all.
pub(super) async fn work<T: Send + 'static>(
    context: &Context,
    rules: Rules,
    jobs: Vec<Job>,
    work: Work<T>,
    mut told: impl FnMut(&Ended<T>),
) -> Tally {
    let count = jobs.len() as u64;
    let one_by_one = count > 1;
    context.report.begin_progress(one_by_one.then_some(count));
    let mut fleet = Fleet::new(Rules { tries_again: one_by_one, ..rules }, context.stop.clone(), work);
    for job in jobs {
        fleet.push(job);
    }
    let mut tally = Tally::default();
    while let Some(ended) = fleet.next().await {
        context.report.advance();
        tally.count(&ended);
        told(&ended);
    }
    context.report.end_progress();
    if one_by_one {
        context.report.tally(&tally, fleet.tried_again());
    }
    tally
}

/// A failure as it is told: one line for what failed, only the summary for what
/// was not begun.
pub(super) fn failure_of<T>(context: &Context, ended: &Ended<T>) {
    match &ended.outcome {
        Outcome::Done(_) => {}
        Outcome::Failed(failure) => context.report.failed(&ended.job, failure, "failed"),
        Outcome::NotTried(why) if context.report.is_json() => {
            context.report.failed(&ended.job, &why.failure(&ended.job), "not_tried");
        }
        Outcome::NotTried(_) => {}
    }
}

/// Copies the vault before many of its records change.
pub(super) fn back_up(context: &Context, engine: &Engine) -> Result<(), Failure> {
    let backups = Backups::new(&context.config.state_directory, &context.config.vault);
    let made = durable(|| backups.take(engine.vault.as_ref())).map_err(|error| {
        Failure::from(error).hint("nothing is begun without a backup: make room, or point TURNLOCK_STATE elsewhere")
    })?;
    if let Some(why) = made.not_made() {
        context.report.note(&why);
    }
    Ok(())
}

pub(super) fn pattern(text: &str) -> Result<Regex, Failure> {
    RegexBuilder::new(text).case_insensitive(true).build().map_err(|error| {
        Failure::usage("--match is no regular expression").caused_by(&error).hint(r"write \( for a literal (")
    })
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "write a number from 1 on".to_owned())
}

fn time(text: &str) -> Result<Duration, String> {
    let time: SignedDuration = text.parse().map_err(|_| "write a time such as 90s or 10m".to_owned())?;
    Duration::try_from(time).map_err(|_| "a time cannot be negative".to_owned())
}

/// What a fleet that rotates does with each record.
pub(super) fn rotations(
    engine: &Arc<Engine>,
    wanted: impl Fn() -> crate::rotate::Wanted + Send + Sync + 'static,
) -> Work<crate::rotate::Rotated> {
    let engine = Arc::clone(engine);
    Arc::new(move |job| {
        let (engine, uid, wanted) = (Arc::clone(&engine), job.uid.clone(), wanted());
        Box::pin(async move { crate::rotate::rotate_and_note(&engine, &uid, &wanted).await })
    })
}
