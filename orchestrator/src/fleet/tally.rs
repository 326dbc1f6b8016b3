//! What came of a fleet, in a few lines.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Ended, NotTried, Outcome, Site};
use crate::failure::exit;

/// More troubles than a person reads. Further ones are counted only.
const TROUBLES: usize = 100;

/// Counts what ends.
#[derive(Debug)]
pub struct Tally {
    began: Instant,
    /// How many were done.
    pub done: u64,
    /// How many were tried and failed.
    pub failed: u64,
    /// How many were not begun.
    pub not_tried: u64,
    troubles: BTreeMap<(Arc<Site>, String), Trouble>,
    statuses: Vec<u8>,
}

/// What went wrong in the same way at the same target.
#[derive(Debug, Clone, Default)]
pub struct Trouble {
    /// How many were tried and failed.
    pub failed: u64,
    /// How many were not begun because of it.
    pub not_tried: u64,
    /// How it was told first.
    pub why: String,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            done: 0,
            failed: 0,
            not_tried: 0,
            troubles: BTreeMap::new(),
            statuses: Vec::new(),
        }
    }
}

impl Tally {
    /// Counts one that has ended.
    pub fn count<T>(&mut self, ended: &Ended<T>) {
        let (kind, why, status) = match &ended.outcome {
            Outcome::Done(_) => {
                self.done += 1;
                self.statuses.push(exit::DONE);
                return;
            }
            Outcome::Failed(failure) => {
                self.failed += 1;
                let kind = failure.kind.map_or_else(String::new, |kind| kind.name().to_owned());
                let last = failure.causes.last().unwrap_or(&failure.message).clone();
                (kind, last, failure.exit_status())
            }
            Outcome::NotTried(why) => {
                self.not_tried += 1;
                let (kind, why) = match why {
                    NotTried::Interrupted => ("interrupted", "interrupted".to_owned()),
                    NotTried::TooManyFailed => ("too_many_failed", "too many had failed".to_owned()),
                    NotTried::Target(last) => ("given_up", format!("does not answer: {last}")),
                };
                (kind.to_owned(), why, exit::FAILED)
            }
        };
        self.statuses.push(status);
        let key = (Arc::clone(&ended.job.site), kind);
        if self.troubles.len() < TROUBLES || self.troubles.contains_key(&key) {
            let trouble = self.troubles.entry(key).or_insert_with(|| Trouble { why, ..Trouble::default() });
            match &ended.outcome {
                Outcome::NotTried(_) => trouble.not_tried += 1,
                _ => trouble.failed += 1,
            }
        }
    }

    /// What went wrong, target by target.
    pub fn troubles(&self) -> impl Iterator<Item = (&Site, &Trouble)> {
        self.troubles.iter().map(|((site, _), trouble)| (site.as_ref(), trouble))
    }

    /// How many have ended.
    pub fn ended(&self) -> u64 {
        self.done + self.failed + self.not_tried
    }

    /// How long it took.
    pub fn took(&self) -> Duration {
        self.began.elapsed()
    }

    /// The exit status of all together.
    pub fn exit_status(&self) -> u8 {
        exit::of_many(&self.statuses)
    }
}
