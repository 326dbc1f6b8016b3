//! What this machine writes down of a vault that lies elsewhere: the audit
//! chain of what was done from here, log-ins of accounts that no record of the
//! vault holds, and since when records have the schedules they have.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::state::Budget;
use super::typed::hexadecimal;
use crate::moment::Moment;
use crate::plan::Identity;
use crate::record::Uid;
use crate::vault::{AuditEvent, AuditRow, VaultError, beside};

/// The files of one vault.
pub(super) struct Notes {
    audit: PathBuf,
    budgets: PathBuf,
    schedules: PathBuf,
    lock: PathBuf,
}

/// A schedule, and since when a record was seen with it.
#[derive(Serialize, Deserialize)]
struct Seen {
    schedule: String,
    since: Timestamp,
}

impl Notes {
    /// The notes of the vault at this place, in the directory of this machine's memory.
    pub(super) fn new(directory: &Path, place: &str) -> Self {
        let digest = hexadecimal(&Sha256::digest(place.as_bytes()));
        let name = digest.get(..16).unwrap_or(&digest);
        let file = |kind: &str| directory.join("stores").join(format!("{name}.{kind}"));
        Self {
            audit: file("audit.ndjson"),
            budgets: file("budgets.json"),
            schedules: file("schedules.json"),
            lock: file("lock"),
        }
    }

    /// Appends a row, durably.
    pub(super) fn note(&self, event: &AuditEvent) -> Result<(), VaultError> {
        self.alone(|| {
            let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&self.audit)?;
            let last = last_row(&mut file)?;
            let number = last.as_ref().map_or(1, |row| row.number + 1);
            let at = Timestamp::now();
            let before = last.map(|row| row.chain).unwrap_or_default();
            let mut row = AuditRow { number, at, event: event.clone(), chain: before };
            row.chain = hexadecimal(&Sha256::digest(serde_json::to_vec(&row)?));
            let mut line = serde_json::to_vec(&row)?;
            line.push(b'\n');
            file.write_all(&line)?;
            file.sync_all()
        })
    }

    /// Shows the rows in order, from a number on.
    pub(super) fn rows(&self, from: u64, visit: &mut dyn FnMut(AuditRow) -> bool) -> Result<(), VaultError> {
        self.each(&mut |row, _| Ok(row.number < from || visit(row)))
    }

    /// Proves the chain: returns its length and head.
    pub(super) fn verify(&self) -> Result<(u64, String), VaultError> {
        let (mut count, mut head) = (0, String::new());
        self.each(&mut |row, _| {
            if row.number != count + 1 || !row.follows(&head) {
                return Err(io::Error::other(format!("its audit chain is broken at row {}", count + 1)));
            }
            (count, head) = (count + 1, row.chain);
            Ok(true)
        })?;
        Ok((count, head))
    }

    /// Changes the log-ins of an account.
    pub(super) fn budget<T>(
        &self,
        identity: &Identity,
        change: impl FnOnce(&mut Vec<Moment>) -> Result<T, VaultError>,
    ) -> Result<T, VaultError> {
        self.alone(|| {
            let mut budgets: Vec<Budget> = match fs::read(&self.budgets) {
                Ok(text) => serde_json::from_slice(&text)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
                Err(error) => return Err(error),
            };
            let at = budgets.iter().position(|budget| budget.identity == *identity);
            let mut budget = match at {
                Some(at) => budgets.swap_remove(at),
                None => Budget { identity: identity.clone(), spent: Vec::new() },
            };
            let changed = change(&mut budget.spent);
            let was_there = at.is_some();
            let is_there = !budget.spent.is_empty();
            if is_there {
                budgets.push(budget);
            }
            if changed.is_ok() && (was_there || is_there) {
                crate::durable::write(&self.budgets, &serde_json::to_vec(&budgets)?)?;
            }
            Ok(changed)
        })?
    }

    /// Counts one log-in, or refuses it.
    pub(super) fn spend(&self, identity: &Identity, window_ms: u64, limit: u32) -> Result<(), VaultError> {
        self.budget(identity, |spent| beside::spend(spent, Moment::called(Timestamp::now()), window_ms, limit))
    }

    /// Since when these records, which are all that have one, have their
    /// schedules. The store does not tell, so it is since they were first seen.
    pub(super) fn scheduled(&self, all: BTreeMap<Uid, String>) -> Result<BTreeMap<Uid, Timestamp>, VaultError> {
        if all.is_empty() {
            return Ok(BTreeMap::new());
        }
        self.alone(|| {
            let known = match fs::read(&self.schedules) {
                Ok(text) => serde_json::from_slice(&text)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
                Err(error) => return Err(error),
            };
            let mut known: BTreeMap<Uid, Seen> = known;
            let (before, mut changed) = (known.len(), false);
            known.retain(|uid, seen| all.get(uid).is_some_and(|schedule| *schedule == seen.schedule));
            changed |= known.len() != before;
            for (uid, schedule) in all {
                known.entry(uid).or_insert_with(|| {
                    changed = true;
                    Seen { schedule, since: Timestamp::now() }
                });
            }
            if changed {
                crate::durable::write(&self.schedules, &serde_json::to_vec(&known)?)?;
            }
            Ok(known.into_iter().map(|(uid, seen)| (uid, seen.since)).collect())
        })
    }

    fn each(&self, visit: &mut dyn FnMut(AuditRow, u64) -> io::Result<bool>) -> Result<(), VaultError> {
        let mut read = || {
            let file = match File::open(&self.audit) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                file => file?,
            };
            for (number, line) in (1..).zip(BufReader::new(file).lines()) {
                let row = serde_json::from_str(&line?)
                    .map_err(|_| io::Error::other(format!("row {number} of its audit chain cannot be read")))?;
                if !visit(row, number)? {
                    break;
                }
            }
            Ok(())
        };
        read().map_err(|error: io::Error| unusable("read", &error))
    }

    /// Other runs on this machine wait for each other here.
    fn alone<T>(&self, job: impl FnOnce() -> io::Result<T>) -> Result<T, VaultError> {
        let locked = || {
            if let Some(directory) = self.lock.parent() {
                fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
            }
            let lock = OpenOptions::new().create(true).write(true).truncate(false).mode(0o600).open(&self.lock)?;
            flock(&lock, FlockOperation::LockExclusive)?;
            let done = job();
            drop(lock);
            done
        };
        locked().map_err(|error| unusable("written", &error))
    }
}

/// The last whole row. One that was cut short by a crash is closed, so that
/// `verify` finds it and nothing is appended to it.
fn last_row(file: &mut File) -> io::Result<Option<AuditRow>> {
    let length = file.seek(SeekFrom::End(0))?;
    if length == 0 {
        return Ok(None);
    }
    file.seek(SeekFrom::Start(length.saturating_sub(64 * 1024)))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    if tail.last() != Some(&b'\n') {
        // What had not been flushed was not told to anybody either.
        let whole = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        file.set_len(length - (tail.len() - whole) as u64)?;
        tail.truncate(whole);
    }
    let last = tail.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty());
    last.map(|line| serde_json::from_slice(line).map_err(io::Error::from)).transpose()
}

fn unusable(doing: &'static str, error: &io::Error) -> VaultError {
    VaultError::Storage { doing, why: format!("what this machine notes of it: {error}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(what: &str) -> AuditEvent {
        AuditEvent { what: what.to_owned(), uid: None, attempt: None, account: None, detail: None }
    }

    #[test]
    fn the_chain_tells_of_every_change_and_survives_a_torn_row() {
        let directory = tempfile::tempdir().unwrap();
        let notes = Notes::new(directory.path(), "ksm:one");
        for what in ["staged", "permitted", "committed"] {
            notes.note(&event(what)).unwrap();
        }
        let (count, head) = notes.verify().unwrap();
        assert_eq!((count, head.len()), (3, 64));
        let text = fs::read(&notes.audit).unwrap();
        crate::durable::write(&notes.audit, &text[..text.len() - 9]).unwrap();
        notes.note(&event("committed")).unwrap();
        assert_eq!(notes.verify().unwrap().0, 3);
        let text = fs::read_to_string(&notes.audit).unwrap();
        crate::durable::write(&notes.audit, text.replace("permitted", "forgotten").as_bytes()).unwrap();
        assert!(notes.verify().is_err());
    }

    #[test]
    fn a_schedule_counts_from_when_it_was_first_seen() {
        let directory = tempfile::tempdir().unwrap();
        let notes = Notes::new(directory.path(), "ksm:one");
        let all = |texts: [&str; 2]| {
            BTreeMap::from([(Uid::new("A"), texts[0].to_owned()), (Uid::new("B"), texts[1].to_owned())])
        };
        let first = notes.scheduled(all(["every 1d", "every 2d"])).unwrap();
        assert_eq!(Notes::new(directory.path(), "ksm:one").scheduled(all(["every 1d", "every 2d"])).unwrap(), first);
        let then = notes.scheduled(all(["every 1d", "every 3d"])).unwrap();
        assert_eq!(then[&Uid::new("A")], first[&Uid::new("A")]);
        assert!(then[&Uid::new("B")] > first[&Uid::new("B")]);
    }

    #[test]
    fn log_ins_of_accounts_without_a_record_are_counted_here() {
        let directory = tempfile::tempdir().unwrap();
        let notes = Notes::new(directory.path(), "ksm:one");
        let who = Identity { plugin: "x".into(), host: "h".into(), port: 1, login: "l".into(), record: None };
        notes.spend(&who, 60_000, 2).unwrap();
        notes.spend(&who, 60_000, 2).unwrap();
        assert!(matches!(notes.spend(&who, 60_000, 2), Err(VaultError::BudgetSpent { .. })));
        notes.budget(&who, |spent| Ok(spent.pop())).unwrap();
        notes.spend(&who, 60_000, 2).unwrap();
        notes
            .budget(&who, |spent| {
                spent.clear();
                Ok(())
            })
            .unwrap();
        assert_eq!(fs::read_to_string(&notes.budgets).unwrap(), "[]");
    }
}
