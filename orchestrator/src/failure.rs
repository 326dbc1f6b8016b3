//! How a run can end: one table from what happened to exit status, state and
//! next step.

use std::fmt;
use std::time::Duration;

use turnlock_protocol::{Applied, Fault, Kind};

use crate::resolve::ResolveError;
use crate::vault::VaultError;

/// Which credential the target accepts now, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing changed: the credential in the vault is as good as before.
    Unchanged,
    /// Nothing changed, and what the vault holds may be older than the target's.
    Unproven,
    /// The new credential is live and committed.
    Committed,
    /// The new credential is live; it is staged in the vault, not yet current.
    Live,
    /// Not known; both are in the vault.
    Unknown,
    /// Needs a person; everything is in the vault.
    Parked,
}

impl State {
    fn sentence(self) -> &'static str {
        match self {
            Self::Unchanged => "nothing changed; the credential in the vault is still the current one",
            Self::Unproven => "nothing changed; whether this vault's credentials still work is not proven",
            Self::Committed => "the new credential is live and in the vault",
            Self::Live => "the new credential is live and staged in the vault, not yet current there",
            Self::Unknown => "not known yet which credential works; the old and the new one are both in the vault",
            Self::Parked => "parked for a person; every credential that may work is in the vault",
        }
    }
}

/// Why something was not done.
#[derive(Debug)]
pub struct Failure {
    /// One sentence that names record, target and login.
    pub message: String,
    /// What is true of the target now.
    pub state: State,
    /// The chain of causes.
    pub causes: Vec<String>,
    /// Something that can be typed.
    pub hint: Option<String>,
    /// What a rotator said, where one did.
    pub kind: Option<Kind>,
    /// The command was wrong, not the world.
    pub usage: bool,
    /// The same may succeed later, unchanged; not before this time has passed.
    pub again: Option<Duration>,
}

impl Failure {
    /// Nothing changed.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            state: State::Unchanged,
            causes: Vec::new(),
            hint: None,
            kind: None,
            usage: false,
            again: None,
        }
    }

    /// The command cannot be carried out as it stands.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { usage: true, ..Self::new(message) }
    }

    /// With something that can be typed.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With what is true of the target.
    #[must_use]
    pub fn state(mut self, state: State) -> Self {
        self.state = state;
        self
    }

    /// With the record's title, unless the message names it already.
    #[must_use]
    pub fn about(mut self, title: &str) -> Self {
        if !self.message.contains(title) {
            self.message = format!("\"{title}\": {}", self.message);
        }
        self
    }

    /// With the chain of causes of an error.
    #[must_use]
    pub fn caused_by(mut self, error: &dyn std::error::Error) -> Self {
        let mut next = Some(error);
        while let Some(cause) = next {
            self.causes.push(cause.to_string());
            next = cause.source();
        }
        self
    }

    /// What is true of the target now, in one sentence for people.
    pub fn truth(&self) -> &'static str {
        match (self.state, self.kind) {
            // It may never have been the current one.
            (State::Unchanged, Some(Kind::Authentication)) => {
                "nothing changed; the target refuses the credential it was shown"
            }
            (state, _) => state.sentence(),
        }
    }

    /// The exit status of a run that ended with this alone.
    pub fn exit_status(&self) -> u8 {
        if self.usage {
            return exit::USAGE;
        }
        match self.state {
            State::Unchanged | State::Unproven | State::Committed => exit::FAILED,
            State::Live => exit::LIVE,
            State::Unknown | State::Parked => exit::UNKNOWN,
        }
    }
}

/// The exit statuses of `turnlock`.
pub mod exit {
    /// Done.
    pub const DONE: u8 = 0;
    /// A bug.
    pub const BUG: u8 = 1;
    /// The command is wrong, or nothing matched.
    pub const USAGE: u8 = 2;
    /// Failed and nothing changed; also findings, drift, open items.
    pub const FAILED: u8 = 3;
    /// Live on the target, not yet committed.
    pub const LIVE: u8 = 4;
    /// Unknown or parked.
    pub const UNKNOWN: u8 = 5;
    /// Several records, some failed with [`FAILED`].
    pub const SOME_FAILED: u8 = 6;
    /// Done, but hooks or finishes are open (with `--strict`).
    pub const OPEN: u8 = 7;
    /// Interrupted.
    pub const INTERRUPTED: u8 = 130;

    /// The status of a run over several records: the most severe of unknown
    /// and live; "some failed" only if every failure changed nothing.
    pub fn of_many(statuses: &[u8]) -> u8 {
        for severe in [UNKNOWN, LIVE] {
            if statuses.contains(&severe) {
                return severe;
            }
        }
        match statuses {
            [one] => *one,
            _ if statuses.iter().all(|status| *status == DONE) => DONE,
            _ => SOME_FAILED,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<VaultError> for Failure {
    fn from(error: VaultError) -> Self {
        if let VaultError::Remote(fault) = error {
            // What is known of a change of the vault says nothing of the target.
            return Self { state: State::Unchanged, kind: None, ..Self::from(*fault) };
        }
        let hint = match &error {
            VaultError::Missing(_) => Some("turnlock vault init makes one; --vault names another"),
            VaultError::Exists(_) => Some("name a file that is not there yet"),
            VaultError::WrongKey(_) => Some("name the right key with --key-file, or give the passphrase of this vault"),
            VaultError::KeyFile { .. } => {
                Some("name the right one with --key-file; a new vault has one made by turnlock vault init")
            }
            VaultError::NotAdopted(_) => {
                Some("turnlock vault adopt proves every credential first, then lets it rotate")
            }
            VaultError::Damaged { .. } => {
                Some("keep the file as it is and restore a backup: turnlock vault check tells more")
            }
            VaultError::NetworkFilesystem { .. } => Some("keep the vault on a local file system"),
            VaultError::NewerFormat { .. } => Some("use the Turnlock that made it, or a newer one"),
            VaultError::NoRecord(_) => Some("turnlock list shows every record"),
            VaultError::ReadOnly(_) => Some("give us the right to edit it, in the vault it belongs to"),
            VaultError::OpenRotation(_) => Some("turnlock recover settles it first"),
            VaultError::Stale(_) => Some("read it again and repeat the change"),
            VaultError::BudgetSpent { .. } => Some("wait until then: more log-ins could lock the account"),
            VaultError::Storage { .. } => Some("check free space, permissions and who else uses the vault"),
            _ => None,
        };
        let mut failure = Self::new(error.to_string());
        if matches!(error, VaultError::NotAdopted(_)) {
            failure.state = State::Unproven;
        }
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl From<ResolveError> for Failure {
    fn from(error: ResolveError) -> Self {
        Self::usage(error.to_string()).hint(error.hint())
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self {
            message: fault.message,
            state: match fault.applied {
                Applied::No => State::Unchanged,
                Applied::Yes => State::Live,
                Applied::Unknown => State::Unknown,
            },
            causes: fault.causes,
            hint: fault.hint,
            kind: Some(fault.kind),
            usage: false,
            again: fault.retryable.then(|| Duration::from_millis(fault.retry_after_ms.unwrap_or(0))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::exit::*;

    #[test]
    fn several_records_end_with_the_most_severe_status() {
        assert_eq!(of_many(&[DONE, DONE]), DONE);
        assert_eq!(of_many(&[DONE, FAILED]), SOME_FAILED);
        assert_eq!(of_many(&[FAILED, FAILED]), SOME_FAILED);
        assert_eq!(of_many(&[FAILED]), FAILED);
        assert_eq!(of_many(&[DONE, LIVE, FAILED]), LIVE);
        assert_eq!(of_many(&[LIVE, UNKNOWN, DONE]), UNKNOWN);
    }
}
