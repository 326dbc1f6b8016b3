//! What stands beside a record, kept in the record itself: one text in a
//! secret field, readable by hand, sealed by whatever seals the record.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use turnlock_protocol::{Credential, PasswordLimits, Secret};

use crate::moment::Moment;
use crate::plan::Identity;
use crate::record::{Record, Uid};
use crate::stage::{Attempt, Past, PastKind, PendingFinish, STAGE_FORMAT, Untold};
use crate::vault::beside::{KEPT, KEPT_FOR, Parked, Waiting};
use crate::vault::{Commit, Fate, Holder, OpenItem, Owner, RecordState, VaultError};

/// The format of a state; a newer one is refused, never guessed.
const FORMAT: u32 = 1;
/// How many writes a state remembers: by them a writer whose answer was lost
/// finds out whether it wrote, also when others have written since.
const WRITES: usize = 8;

/// Everything beside one record.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct State {
    format: u32,
    /// The names of the latest writes, oldest first.
    writes: Vec<String>,
    /// The write that was made in a transaction of the store, until the next
    /// write: whoever finds it makes sure that it was finalized.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) transaction: Option<String>,
    /// The highest fence there ever was.
    pub(super) fence: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lease: Option<Held>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) stage: Vec<Attempt>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) parked: Option<Parked>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) pending: Vec<Waiting>,
    pub(super) learned: PasswordLimits,
    pub(super) fate: Fate,
    /// Hooks that have not all run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) untold: Option<Untold>,
    pub(super) unverified: bool,
    /// Oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) history: Vec<Past>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) budgets: Vec<Budget>,
}

/// Who may rotate the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Held {
    pub(super) fence: u64,
    pub(super) renewal: u64,
    pub(super) ttl_ms: u64,
    pub(super) owner: Owner,
}

impl Held {
    pub(super) fn of(&self, uid: &Uid) -> Holder {
        Holder {
            key: uid.as_str().as_bytes().to_vec(),
            owner: self.owner.clone(),
            fence: self.fence,
            renewal: self.renewal,
            ttl_ms: self.ttl_ms,
        }
    }
}

/// Log-ins of one account that may have failed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Budget {
    pub(super) identity: Identity,
    pub(super) spent: Vec<Moment>,
}

impl State {
    /// Reads the field; none is a record that nobody has rotated yet.
    pub(super) fn read(text: Option<&Secret>) -> Result<Self, &'static str> {
        let Some(text) = text else {
            return Ok(Self::default());
        };
        #[expect(clippy::disallowed_methods, reason = "what is kept beside the record is read from its own field")]
        let state: Self = serde_json::from_str(text.expose()).map_err(|_| "its field turnlock:state cannot be read")?;
        let newest = state.stage.iter().map(|attempt| attempt.format).max().unwrap_or(STAGE_FORMAT);
        if state.format > FORMAT || newest > STAGE_FORMAT {
            return Err("its field turnlock:state was written by a newer Turnlock");
        }
        Ok(state)
    }

    pub(super) fn written(&self) -> Result<Secret, serde_json::Error> {
        serde_json::to_string(self).map(Secret::new)
    }

    /// Names the write that this state goes out with.
    pub(super) fn sign(&mut self, write: &str) {
        self.format = FORMAT;
        if self.writes.len() >= WRITES {
            self.writes.drain(..=self.writes.len() - WRITES);
        }
        self.writes.push(write.to_owned());
    }

    pub(super) fn was_written_by(&self, write: &str) -> bool {
        self.writes.iter().any(|one| one == write)
    }

    pub(super) fn has_open(&self) -> bool {
        !self.stage.is_empty() || !self.pending.is_empty()
    }

    /// Whether nothing has happened to the record here yet.
    pub(super) fn is_blank(&self) -> bool {
        !self.has_open()
            && self.history.is_empty()
            && self.lease.is_none()
            && self.parked.is_none()
            && self.fate.rotated_at.is_none()
    }

    pub(super) fn record_state(&self) -> RecordState {
        if self.parked.is_some() || self.stage.iter().any(|attempt| attempt.parked.is_some()) {
            RecordState::Parked
        } else if !self.stage.is_empty() || self.transaction.is_some() {
            RecordState::Open
        } else if !self.pending.is_empty() {
            RecordState::Finishing
        } else if self.untold.is_some() {
            RecordState::Hooks
        } else {
            RecordState::Settled
        }
    }

    pub(super) fn open_items(&self, record: &Record) -> Vec<OpenItem> {
        let item = |state, since, attempt, reason, due| OpenItem {
            uid: record.uid.clone(),
            title: record.title.clone(),
            state,
            since,
            attempt,
            reason,
            due,
        };
        let attempts = self.stage.iter().map(|attempt| {
            let state = if attempt.parked.is_some() { RecordState::Parked } else { RecordState::Open };
            item(state, attempt.staged_at, Some(attempt.id.clone()), attempt.parked.clone(), None)
        });
        let parked = self
            .parked
            .iter()
            .map(|parked| item(RecordState::Parked, parked.at, None, Some(parked.reason.clone()), None));
        let finishes = self.pending.iter().map(|waiting| {
            let PendingFinish { attempt, due, last_failure, .. } = &waiting.finish;
            item(RecordState::Finishing, waiting.since, Some(attempt.clone()), last_failure.clone(), Some(*due))
        });
        let half = self.transaction.iter().map(|_| {
            let why = "committed, and not known to be final in the vault".to_owned();
            item(RecordState::Open, self.fate.rotated_at.unwrap_or_default(), None, Some(why), None)
        });
        let hooks = self.untold.iter().map(|untold| {
            let Untold { since, attempt, last_failure, next_try, .. } = untold.clone();
            item(RecordState::Hooks, since, attempt, last_failure, Some(next_try))
        });
        attempts.chain(parked).chain(finishes).chain(hooks).chain(half).collect()
    }

    pub(super) fn attempt(&mut self, name: &str) -> Result<&mut Attempt, VaultError> {
        self.stage.iter_mut().find(|open| open.id == name).ok_or_else(|| VaultError::NoAttempt(name.to_owned()))
    }

    /// Takes an attempt off the stage.
    pub(super) fn close(&mut self, name: &str) -> Result<Attempt, VaultError> {
        let at = self.stage.iter().position(|open| open.id == name);
        at.map(|at| self.stage.remove(at)).ok_or_else(|| VaultError::NoAttempt(name.to_owned()))
    }

    /// Closes an attempt; its candidate, if it has one, stays in the history.
    pub(super) fn abandon(&mut self, name: &str, reason: &str, now: Timestamp) -> Result<(), VaultError> {
        let attempt = self.close(name)?;
        if let Some(credential) = attempt.candidate {
            let (attempt, plan) = (attempt.id, Some(attempt.plan));
            let reason = reason.to_owned();
            self.remember(Past { number: 0, at: now, kind: PastKind::Abandoned, attempt, credential, plan, reason });
        }
        Ok(())
    }

    /// Keeps what is current no longer.
    pub(super) fn previous(&mut self, attempt: &str, credential: Credential, reason: &str, now: Timestamp) {
        if !credential.is_empty() {
            let (attempt, reason) = (attempt.to_owned(), reason.to_owned());
            let kind = PastKind::Previous;
            self.remember(Past { number: 0, at: now, kind, attempt, credential, plan: None, reason });
        }
    }

    /// Whether this attempt has put its credential here before: a commit over
    /// several records that was cut short begins anew.
    pub(super) fn knows(&self, attempt: &str, credential: &Credential) -> bool {
        self.history.iter().any(|past| {
            past.kind == PastKind::Previous && past.attempt == attempt && past.credential.same_as(credential)
        })
    }

    /// Adds a credential to the history, and lets go of what is both old and far down.
    pub(super) fn remember(&mut self, mut past: Past) {
        past.number = self.history.iter().map(|past| past.number).max().unwrap_or(0) + 1;
        let (kind, oldest) = (past.kind, past.at - KEPT_FOR);
        self.history.push(past);
        let mut newer = self.history.iter().filter(|past| past.kind == kind).count();
        self.history.retain(|past| {
            if past.kind != kind {
                return true;
            }
            newer -= 1;
            newer < KEPT || past.at >= oldest
        });
    }

    /// Lets the oldest credential go that was replaced by a proven one, where a
    /// record can hold no more. The latest one always stays, and so does every
    /// candidate that was abandoned.
    pub(super) fn forget_oldest(&mut self) -> bool {
        let previous = |past: &Past| past.kind == PastKind::Previous;
        if self.history.iter().filter(|past| previous(past)).count() < 2 {
            return false;
        }
        self.history.iter().position(previous).map(|at| self.history.remove(at)).is_some()
    }

    /// The account's own count, if it is kept here.
    pub(super) fn budget(&mut self, identity: &Identity) -> Option<&mut Budget> {
        self.budgets.iter_mut().find(|budget| budget.identity == *identity)
    }

    pub(super) fn forgive(&mut self, identity: &Identity) {
        self.budgets.retain(|budget| budget.identity != *identity);
    }

    /// The candidate of `commit`'s attempt is the record's credential now.
    pub(super) fn committed(&mut self, commit: &Commit<'_>, now: Timestamp) -> Result<(), VaultError> {
        let attempt = self.close(commit.attempt)?;
        self.rotated(commit, commit.uid, &attempt, now);
        self.forgive(&attempt.plan.identity);
        if let Some(due) = commit.finish_due {
            let finish = PendingFinish {
                attempt: attempt.id,
                due,
                previous: attempt.plan.current.duplicate(),
                plan: attempt.plan,
                last_failure: None,
            };
            self.pending.push(Waiting { since: now, finish });
        }
        Ok(())
    }

    /// A rotation has replaced the credential of the record.
    pub(super) fn rotated(&mut self, commit: &Commit<'_>, uid: &Uid, attempt: &Attempt, now: Timestamp) {
        let replaced = &attempt.plan.current;
        if !self.knows(commit.attempt, replaced) {
            self.previous(commit.attempt, replaced.duplicate(), "rotated", now);
        }
        self.fate.rotated_at = Some(now);
        if !commit.unverified {
            self.fate.asked_at = Some(now);
        }
        (self.fate.drifted, self.fate.failed) = (None, None);
        // Whoever was to be told of an earlier credential is told of this one.
        let told = || Untold::at(now, Some(attempt.id.clone()), attempt.plan.identity.clone());
        self.untold = attempt.tell.contains(uid).then(told);
        self.unverified = commit.unverified;
        self.parked = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past(at: Timestamp, kind: PastKind) -> Past {
        let credential = Credential::password(Secret::new("x".into()));
        Past { number: 0, at, kind, attempt: "a".into(), credential, plan: None, reason: String::new() }
    }

    #[test]
    fn what_is_old_and_far_down_goes_and_nothing_else() {
        let mut state = State::default();
        let now = Timestamp::now();
        for _ in 0..KEPT + 5 {
            state.remember(past(now - KEPT_FOR - KEPT_FOR, PastKind::Abandoned));
        }
        assert_eq!(state.history.len(), KEPT + 5, "what is new to the history is judged by its own time");
        state.remember(past(now, PastKind::Previous));
        assert_eq!(state.history.len(), KEPT + 6);
        state.remember(past(now, PastKind::Abandoned));
        assert_eq!(state.history.iter().filter(|past| past.kind == PastKind::Abandoned).count(), KEPT);
        assert!(!state.forget_oldest(), "the only previous one stays");
        state.remember(past(now, PastKind::Previous));
        assert!(state.forget_oldest() && !state.forget_oldest());
    }

    #[test]
    fn a_write_is_known_until_many_others_have_followed() {
        let mut state = State::default();
        for number in 0..20 {
            state.sign(&number.to_string());
        }
        assert!(state.was_written_by("19") && state.was_written_by("12") && !state.was_written_by("11"));
        let text = state.written().unwrap();
        assert!(State::read(Some(&text)).unwrap().was_written_by("19"));
        assert!(State::read(Some(&Secret::new(r#"{"format": 2}"#.into()))).is_err());
    }
}
