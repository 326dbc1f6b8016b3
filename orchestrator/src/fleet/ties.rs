//! Which record must not fly beside which: an admin's record is not rotated
//! while a record that it administers is, nor the other way round. Those that
//! are administered go first, so that what goes wrong with an admin's own
//! credential goes wrong when nobody needs it any more.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::Job;
use super::scheduler::Waiting;
use crate::record::Uid;

/// What waits for whom.
#[derive(Default)]
pub(super) struct Ties {
    /// By the admin's record: those it administers.
    wards: HashMap<Uid, Wards>,
    flying: HashSet<Uid>,
    /// By the admin's record: its own job or its wards' jobs, out of their queues.
    held: BTreeMap<Uid, Vec<Waiting>>,
}

#[derive(Default)]
struct Wards {
    /// Still to end.
    open: usize,
    /// Under way.
    flying: usize,
}

impl Ties {
    /// A job will come.
    pub(super) fn expect(&mut self, job: &Job) {
        if let Some(admin) = admin_of(job) {
            self.wards.entry(admin.clone()).or_default().open += 1;
        }
    }

    /// Gives a job back that may begin; keeps one that may not.
    pub(super) fn ask(&mut self, waiting: Waiting) -> Option<Waiting> {
        let job = &waiting.job;
        let behind = match (admin_of(job), self.wards.get(&job.uid)) {
            (Some(admin), _) if self.flying.contains(admin) => admin,
            (_, Some(wards)) if wards.flying > 0 || wards.open > 0 && !waiting.breaks_a_circle => &job.uid,
            _ => return Some(waiting),
        };
        self.held.entry(behind.clone()).or_default().push(waiting);
        None
    }

    /// A job has begun.
    pub(super) fn began(&mut self, job: &Job) {
        self.flying.insert(job.uid.clone());
        if let Some(wards) = admin_of(job).and_then(|admin| self.wards.get_mut(admin)) {
            wards.flying += 1;
        }
    }

    /// A job has come down and will begin again. Gives back what waited for that.
    pub(super) fn rests(&mut self, job: &Job) -> Vec<Waiting> {
        self.flying.remove(&job.uid);
        if let Some(wards) = admin_of(job).and_then(|admin| self.wards.get_mut(admin)) {
            wards.flying = wards.flying.saturating_sub(1);
        }
        self.held.remove(&job.uid).unwrap_or_default()
    }

    /// A job has ended. Gives back what waited for that.
    pub(super) fn ended(&mut self, job: &Job) -> Vec<Waiting> {
        let flew = self.flying.contains(&job.uid);
        let mut free = self.held.remove(&job.uid).unwrap_or_default();
        self.flying.remove(&job.uid);
        let Some(admin) = admin_of(job) else { return free };
        if let Some(wards) = self.wards.get_mut(admin) {
            wards.open = wards.open.saturating_sub(1);
            wards.flying = wards.flying.saturating_sub(usize::from(flew));
            if wards.open == 0 {
                self.wards.remove(admin);
            }
            free.extend(self.held.remove(admin).unwrap_or_default());
        }
        free
    }

    /// Where only those are left that wait for each other, one goes first.
    pub(super) fn break_a_circle(&mut self) -> Option<Waiting> {
        let mut waiting = self.take_any()?;
        waiting.breaks_a_circle = true;
        Some(waiting)
    }

    /// Whatever is held.
    pub(super) fn take_any(&mut self) -> Option<Waiting> {
        let mut first = self.held.first_entry()?;
        let waiting = first.get_mut().pop();
        if first.get().is_empty() {
            first.remove();
        }
        waiting
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

/// Another record than the job's own.
fn admin_of(job: &Job) -> Option<&Uid> {
    job.admin.as_ref().filter(|admin| **admin != job.uid)
}
