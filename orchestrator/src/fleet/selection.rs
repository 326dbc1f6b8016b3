//! Which records, and why.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use regex::Regex;

use super::{Job, Site};
use crate::engine::{Engine, durable};
use crate::failure::Failure;
use crate::record::Uid;
use crate::schedule::{Past, Schedule};
use crate::vault::{RecordState, Summary};

/// What a record must be to be selected: all that is said here.
#[derive(Debug, Default)]
pub struct Selection {
    /// Its title, or folder and title, matches.
    pub pattern: Option<Regex>,
    /// It is rotated by one of these plugins.
    pub plugins: Vec<String>,
    /// It lies in one of these folders or below it.
    pub folders: Vec<String>,
    /// It has one of these tags.
    pub tags: Vec<String>,
    /// Its schedule says that it is due.
    pub due: bool,
    /// Its last rotation failed.
    pub failed: bool,
}

/// Why a record was selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Somebody asked for it.
    Asked,
    /// Its schedule says so, since then.
    Due(Timestamp),
    /// Its last rotation failed, then.
    Failed(Timestamp),
    /// Its credential is to be proven, not replaced.
    Proof,
    /// Something beside it is to be settled.
    Open,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |at: &Timestamp| at.strftime("%Y-%m-%d %H:%M:%SZ").to_string();
        match self {
            Self::Asked => f.write_str("selected"),
            Self::Due(since) => write!(f, "due since {}", at(since)),
            Self::Failed(then) => write!(f, "failed at {}", at(then)),
            Self::Proof => f.write_str("to be proven"),
            Self::Open => f.write_str("not settled"),
        }
    }
}

impl Selection {
    /// Why this record is selected, if it is.
    pub fn takes(&self, summary: &Summary, now: Timestamp) -> Option<Why> {
        let plugin = summary.plugin.as_ref()?;
        let folders = &summary.folders;
        let named = self.pattern.as_ref().is_none_or(|pattern| {
            pattern.is_match(&summary.title)
                || folders.iter().any(|folder| pattern.is_match(&format!("{folder}/{}", summary.title)))
        });
        let tagged = |tag: &String| summary.upkeep.tags.iter().any(|own| own.eq_ignore_ascii_case(tag));
        let within = |wanted: &String| folders.iter().any(|folder| is_within(folder, wanted));
        let taken = named
            && (self.plugins.is_empty() || self.plugins.contains(plugin))
            && (self.folders.is_empty() || self.folders.iter().any(within))
            && (self.tags.is_empty() || self.tags.iter().any(tagged));
        let mut why = Why::Asked;
        if self.failed {
            why = Why::Failed(summary.fate.failed.as_ref()?.at);
        }
        if self.due {
            why = Why::Due(turn(summary, now)?.due.filter(|due| *due <= now)?);
        }
        taken.then_some(why)
    }
}

/// A record's turn, as its schedule says.
#[derive(Debug)]
pub struct Turn {
    /// When it is due; none where the schedule cannot be read or never comes.
    pub due: Option<Timestamp>,
    /// When it may begin: not before it is due, nor now, nor outside its window.
    pub begin: Option<Timestamp>,
    /// What is wrong with the schedule.
    pub wrong: Option<String>,
}

/// When a record is due; none where it has no schedule.
pub fn turn(summary: &Summary, now: Timestamp) -> Option<Turn> {
    let text = summary.upkeep.schedule.as_ref()?;
    let schedule: Schedule = match text.parse() {
        Ok(schedule) => schedule,
        Err(error) => {
            let wrong = format!("`{text}`: {error}");
            return Some(Turn { due: None, begin: None, wrong: Some(wrong) });
        }
    };
    let fate = &summary.fate;
    let past = Past {
        rotated: fate.rotated_at,
        scheduled: fate.scheduled_at,
        failed: fate.failed.as_ref().map(|failed| (failed.at, failed.times)),
    };
    let due = schedule.due(&summary.uid, &past, now);
    // A person has to look first.
    let due = due.filter(|_| summary.state != RecordState::Parked);
    Some(Turn { due, begin: due.and_then(|due| schedule.begin(due.max(now))), wrong: None })
}

/// The jobs of all records that are selected, by title.
///
/// With `once_an_account` a record is left out whose account another one
/// stands for already: they will be rotated together.
///
/// # Errors
/// What the vault says.
pub fn select(
    engine: &Engine,
    once_an_account: bool,
    mut takes: impl FnMut(&Summary) -> Option<Why>,
) -> Result<Vec<Job>, Failure> {
    let mut jobs = Vec::new();
    let mut admins = Admins::default();
    let mut sites = HashSet::new();
    let mut accounts = HashSet::new();
    durable(|| {
        engine.vault.list(&mut |summary| {
            let Some(why) = takes(&summary) else { return true };
            let another = once_an_account && summary.account.as_ref().is_some_and(|one| !accounts.insert(one.clone()));
            if !another {
                admins.wanted(jobs.len(), &summary);
                jobs.push(job(&mut sites, summary, why));
            }
            true
        })
    })?;
    admins.find(engine, &mut jobs)?;
    jobs.sort_by(|one, other| one.title.cmp(&other.title).then_with(|| one.uid.cmp(&other.uid)));
    Ok(jobs)
}

/// The job of one record.
///
/// # Errors
/// What the vault says.
pub fn job_of(engine: &Engine, summary: Summary, why: Why) -> Result<Job, Failure> {
    let mut admins = Admins::default();
    admins.wanted(0, &summary);
    let mut jobs = [job(&mut HashSet::new(), summary, why)];
    admins.find(engine, &mut jobs)?;
    let [job] = jobs;
    Ok(job)
}

fn job(sites: &mut HashSet<Arc<Site>>, summary: Summary, why: Why) -> Job {
    let site = match summary.account {
        Some(account) => Site { plugin: account.plugin, host: account.host, port: account.port },
        None => Site { plugin: summary.plugin.unwrap_or_default(), host: String::new(), port: 0 },
    };
    let site = match sites.get(&site) {
        Some(known) => Arc::clone(known),
        None => {
            let site = Arc::new(site);
            sites.insert(Arc::clone(&site));
            site
        }
    };
    Job { uid: summary.uid, title: summary.title, site, admin: None, why }
}

/// Whose admin is meant, by name; looked up once for each name.
#[derive(Default)]
struct Admins {
    names: HashMap<String, Vec<usize>>,
}

impl Admins {
    fn wanted(&mut self, job: usize, summary: &Summary) {
        if let Some(name) = &summary.upkeep.admin {
            match self.names.get_mut(name) {
                Some(jobs) => jobs.push(job),
                None => drop(self.names.insert(name.clone(), vec![job])),
            }
        }
    }

    fn find(self, engine: &Engine, jobs: &mut [Job]) -> Result<(), Failure> {
        for (name, wanted) in self.names {
            // A name that means none or several is told by the rotation itself.
            let found: Vec<Uid> = durable(|| engine.vault.find(&name))?.into_iter().map(|one| one.uid).collect();
            if let [admin] = found.as_slice() {
                for job in wanted {
                    if let Some(job) = jobs.get_mut(job) {
                        job.admin = Some(admin.clone());
                    }
                }
            }
        }
        Ok(())
    }
}

/// Whether a folder is the one that is meant, or lies below it.
fn is_within(folder: &str, wanted: &str) -> bool {
    let (folder, wanted) = (folder.to_lowercase(), wanted.trim_matches('/').to_lowercase());
    folder.strip_prefix(&wanted).is_some_and(|below| below.is_empty() || below.starts_with('/'))
}
