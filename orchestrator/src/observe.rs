//! What a vault tells of its rotations without telling a secret: figures for
//! machines that watch, a page for people.

mod charts;
mod history;
pub(crate) mod metrics;
pub(crate) mod page;
pub(crate) mod server;

use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};

pub(crate) use self::history::{BUCKETS_MS, History};
use crate::engine::durable;
use crate::failure::Failure;
use crate::schedule::{Past, Schedule};
use crate::vault::{OpenItem, RecordState, Summary, Vault};

/// How long after its time a rotation is late and not just under way.
pub(crate) const PATIENCE: SignedDuration = SignedDuration::from_hours(1);

/// One look at a vault.
#[derive(Debug)]
pub(crate) struct Overview {
    /// When it was taken.
    pub(crate) taken: Timestamp,
    /// Every record that can be rotated.
    pub(crate) kept: Vec<Kept>,
    /// What is open, parked or owed.
    pub(crate) open: Vec<OpenItem>,
}

/// A record that can be rotated.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) summary: Summary,
    /// When it is due, by its schedule.
    pub(crate) due: Option<Timestamp>,
}

impl Overview {
    /// Looks at every record, without opening a secret.
    pub(crate) fn take(vault: &dyn Vault) -> Result<Self, Failure> {
        let taken = Timestamp::now();
        let mut kept = Vec::new();
        durable(|| {
            vault.list(&mut |summary| {
                if summary.plugin.is_some() {
                    let due = due(&summary, taken);
                    kept.push(Kept { summary, due });
                }
                true
            })
        })?;
        Ok(Self { taken, kept, open: durable(|| vault.open_items())? })
    }

    /// Records whose time has passed.
    pub(crate) fn overdue(&self) -> impl Iterator<Item = &Kept> {
        self.kept.iter().filter(|kept| kept.overdue_for(self.taken) > PATIENCE)
    }

    /// How late the latest record is.
    pub(crate) fn latest(&self) -> SignedDuration {
        self.kept.iter().map(|kept| kept.overdue_for(self.taken)).max().unwrap_or_default()
    }

    /// How many items are in this state.
    pub(crate) fn count(&self, state: RecordState) -> usize {
        self.open.iter().filter(|item| item.state == state).count()
    }
}

impl Kept {
    /// How old its credential is, where a rotation of ours made it.
    pub(crate) fn age(&self, now: Timestamp) -> Option<SignedDuration> {
        let rotated = self.summary.fate.rotated_at?;
        Some(now.duration_since(rotated).max(SignedDuration::ZERO))
    }

    /// How long its time has passed.
    pub(crate) fn overdue_for(&self, now: Timestamp) -> SignedDuration {
        self.due.map_or(SignedDuration::ZERO, |due| now.duration_since(due).max(SignedDuration::ZERO))
    }
}

/// A failure makes a record rest, and is no excuse here.
fn due(summary: &Summary, now: Timestamp) -> Option<Timestamp> {
    let schedule = Schedule::from_str(summary.upkeep.schedule.as_deref()?).ok()?;
    let past = Past { rotated: summary.fate.rotated_at, scheduled: summary.fate.scheduled_at, failed: None };
    schedule.due(&summary.uid, &past, now)
}
