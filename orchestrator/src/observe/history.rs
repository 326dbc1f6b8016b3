//! The audit chain folded into figures, row by row, so that one who watches
//! reads on from where it was.

use std::collections::{BTreeMap, HashMap, VecDeque};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::engine::durable;
use crate::failure::Failure;
use crate::record::Uid;
use crate::vault::{AuditRow, Vault};

/// Upper bounds of how long a rotation took; behind the last there is no bound.
pub(crate) const BUCKETS_MS: [u64; 11] = [50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 300_000];
/// How many failures are kept by their words.
const KEPT_FAILURES: usize = 100;

/// What has happened in a vault.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// Rows read.
    pub(crate) rows: u64,
    /// Rotations that were committed, and those that failed.
    pub(crate) rotated: u64,
    pub(crate) failed: u64,
    /// Runs of a record's hooks in which all succeeded, and others.
    pub(crate) hooks_run: u64,
    pub(crate) hooks_failed: u64,
    /// When the last one was committed.
    pub(crate) last_rotated: Option<Timestamp>,
    /// How many took how long from stage to commit, by [`BUCKETS_MS`], and
    /// longer than all of them.
    pub(crate) durations: [u64; BUCKETS_MS.len() + 1],
    /// All of that time together, in milliseconds.
    pub(crate) took_ms: u64,
    /// What happened on which day, in UTC.
    pub(crate) days: BTreeMap<Date, Day>,
    /// The latest failures, oldest first.
    pub(crate) failures: VecDeque<Mishap>,
    staged: HashMap<String, Timestamp>,
}

/// One day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Day {
    pub(crate) rotated: u64,
    pub(crate) failed: u64,
}

/// A rotation that failed.
#[derive(Debug)]
pub(crate) struct Mishap {
    pub(crate) at: Timestamp,
    pub(crate) uid: Option<Uid>,
    pub(crate) why: String,
}

impl History {
    /// Everything from the beginning.
    pub(crate) fn of(vault: &dyn Vault) -> Result<Self, Failure> {
        let mut history = Self::default();
        history.read_on(vault)?;
        Ok(history)
    }

    /// Takes in what has been added since.
    pub(crate) fn read_on(&mut self, vault: &dyn Vault) -> Result<(), Failure> {
        durable(|| {
            vault.audit_rows(self.rows.saturating_add(1), &mut |row| {
                self.take(row);
                true
            })
        })?;
        Ok(())
    }

    fn take(&mut self, row: AuditRow) {
        self.rows = row.number;
        let day = row.at.to_zoned(TimeZone::UTC).date();
        let event = row.event;
        match (event.what.as_str(), event.attempt) {
            ("staged", Some(attempt)) => {
                self.staged.insert(attempt, row.at);
            }
            ("committed", Some(attempt)) => {
                self.rotated += 1;
                self.days.entry(day).or_default().rotated += 1;
                self.last_rotated = Some(row.at);
                if let Some(staged) = self.staged.remove(&attempt) {
                    self.took(u64::try_from(row.at.duration_since(staged).as_millis()).unwrap_or(0));
                }
            }
            ("abandoned" | "erased" | "adopted", Some(attempt)) => {
                self.staged.remove(&attempt);
            }
            ("failed", _) => {
                self.failed += 1;
                self.days.entry(day).or_default().failed += 1;
                if self.failures.len() == KEPT_FAILURES {
                    self.failures.pop_front();
                }
                let why = event.detail.unwrap_or_default();
                self.failures.push_back(Mishap { at: row.at, uid: event.uid, why });
            }
            ("hooks run", _) => self.hooks_run += 1,
            ("hooks failed", _) => self.hooks_failed += 1,
            _ => {}
        }
    }

    fn took(&mut self, ms: u64) {
        let bucket = BUCKETS_MS.iter().position(|bound| ms <= *bound).unwrap_or(BUCKETS_MS.len());
        if let Some(count) = self.durations.get_mut(bucket) {
            *count += 1;
        }
        self.took_ms = self.took_ms.saturating_add(ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::AuditEvent;

    fn row(number: u64, at: &str, what: &str, attempt: Option<&str>) -> AuditRow {
        let event = AuditEvent {
            what: what.to_owned(),
            uid: Some(Uid::new("A")),
            attempt: attempt.map(str::to_owned),
            account: None,
            detail: Some("because".to_owned()),
        };
        AuditRow { number, at: at.parse().unwrap(), event, chain: String::new() }
    }

    #[test]
    fn rotations_are_counted_by_day_and_by_how_long_they_took() {
        let mut history = History::default();
        history.take(row(1, "2026-03-01T23:59:59Z", "staged", Some("a")));
        history.take(row(2, "2026-03-01T23:59:59.020Z", "permitted", Some("a")));
        history.take(row(3, "2026-03-02T00:00:00.5Z", "committed", Some("a")));
        history.take(row(4, "2026-03-02T01:00:00Z", "staged", Some("b")));
        history.take(row(5, "2026-03-02T01:00:09Z", "abandoned", Some("b")));
        history.take(row(6, "2026-03-02T01:00:09Z", "failed", None));
        // One that another row has abandoned before took no time of its own.
        history.take(row(7, "2026-03-02T02:00:00Z", "committed", Some("b")));
        assert_eq!((history.rotated, history.failed, history.rows), (2, 1, 7));
        assert_eq!(history.days.values().copied().collect::<Vec<_>>(), [Day { rotated: 2, failed: 1 }]);
        assert_eq!((history.durations[5], history.durations.iter().sum::<u64>(), history.took_ms), (1, 1, 1_500));
        assert_eq!(history.failures[0].why, "because");
        assert!(history.staged.is_empty());
    }
}
