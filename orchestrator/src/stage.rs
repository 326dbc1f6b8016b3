//! What stands in the vault beside a record while a rotation is open.
//!
//! Writer and reader are the types of this file; a round trip is tested.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use turnlock_protocol::Credential;

use crate::plan::{Identity, Plan};

/// The format of a stage; a newer one is refused, never guessed.
pub const STAGE_FORMAT: u32 = 1;

/// One attempt to replace a credential: candidate and resolved plan, durable
/// before the target may change.
#[derive(Debug, Serialize, Deserialize)]
pub struct Attempt {
    /// The stage's format.
    pub format: u32,
    /// A random name, the same in vault, audit and rotator.
    pub id: String,
    /// When it was staged.
    pub staged_at: Timestamp,
    /// The candidate; absent until the target has minted it.
    pub candidate: Option<Credential>,
    /// The plan as it was resolved.
    pub plan: Plan,
    /// Ids that existed on a minting target before this attempt.
    #[serde(default)]
    pub existing: Vec<String>,
    /// Records of the same account that are committed together with this one.
    #[serde(default)]
    pub duplicates: Vec<crate::record::Uid>,
    /// Those of all these records whose hooks are to run once this is committed.
    #[serde(default)]
    pub tell: Vec<crate::record::Uid>,
    /// When the permit was given, and to whom. Durable before the rotator hears of it.
    #[serde(default)]
    pub permit: Option<PermitGiven>,
    /// Why the record is parked, if it is.
    #[serde(default)]
    pub parked: Option<String>,
    /// What the target has refused already, where it counts refusals.
    #[serde(default)]
    pub excluded: Vec<Excluded>,
}

impl Attempt {
    /// Leaves it to a person, who may make any of its credentials right again.
    pub(crate) fn park(&mut self, reason: &str) {
        self.parked = Some(reason.to_owned());
        self.excluded.clear();
    }

    /// Notes that it was refused. The candidate counts from the time on when
    /// the current one was refused: the change may have come in between.
    pub(crate) fn exclude(&mut self, one: &Excluded) {
        if *one == Excluded::Current {
            self.excluded.retain(|other| *other != Excluded::Candidate);
        }
        if !self.excluded.contains(one) {
            self.excluded.push(one.clone());
        }
    }
}

/// A credential that need not be asked for again to settle an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Excluded {
    /// The attempt's own.
    Candidate,
    /// The one that was current when the attempt began.
    Current,
    /// The abandoned candidate of this attempt.
    Abandoned(String),
}

impl fmt::Display for Excluded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Candidate => f.write_str("the new credential is refused"),
            Self::Current => f.write_str("the old credential is refused"),
            Self::Abandoned(attempt) => write!(f, "the abandoned candidate of attempt {attempt} is refused"),
        }
    }
}

/// A permit that was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermitGiven {
    /// When.
    pub at: Timestamp,
    /// The process that got it.
    pub rotator: Process,
    /// The last instant at which that process may still change the target,
    /// its settle time included.
    pub until: Timestamp,
}

/// A process, named so that it can be proven dead on the machine it ran on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The kernel's boot id, so that a reboot proves the process dead.
    pub boot: String,
    /// The pid namespace, in which alone the pid means anything.
    pub namespace: String,
    /// The process id.
    pub pid: u32,
    /// Start time in clock ticks since boot (`/proc/PID/stat`, field 22).
    pub started: u64,
}

/// A credential that is no longer current.
#[derive(Debug, Serialize, Deserialize)]
pub struct Past {
    /// Its number within the record's history, newest highest.
    pub number: u64,
    /// When it left.
    pub at: Timestamp,
    /// Why it is here.
    pub kind: PastKind,
    /// The attempt that ended it or that it was the candidate of.
    pub attempt: String,
    /// The secret itself.
    pub credential: Credential,
    /// For an abandoned candidate: the plan it was made for.
    pub plan: Option<Plan>,
    /// Why it was abandoned, for people.
    pub reason: String,
}

/// Why a credential is in the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PastKind {
    /// It was current once.
    Previous,
    /// A candidate that had a permit and was not committed; it might be alive.
    Abandoned,
}

/// A committed rotation whose old credential has not been cleaned up yet.
#[derive(Debug, Serialize, Deserialize)]
pub struct PendingFinish {
    /// The attempt.
    pub attempt: String,
    /// Not before this instant (`grace`).
    pub due: Timestamp,
    /// What was current before.
    pub previous: Credential,
    /// The plan of that rotation.
    pub plan: Plan,
    /// What the last try said, if there was one.
    #[serde(default)]
    pub last_failure: Option<String>,
}

/// A record whose hooks have not all run since its credential was replaced:
/// somebody may still use the old one. Which hooks those are is read from
/// record and configuration when they run, so that a wrong one can be mended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Untold {
    /// The attempt that was committed; none where a person chose a credential.
    pub attempt: Option<String>,
    /// The account whose credential it is.
    pub identity: Identity,
    /// When it was committed.
    pub since: Timestamp,
    /// The hooks that have succeeded.
    #[serde(default)]
    pub done: Vec<String>,
    /// How often the others have failed.
    #[serde(default)]
    pub tries: u32,
    /// When to try again.
    pub next_try: Timestamp,
    /// What the last failure said.
    #[serde(default)]
    pub last_failure: Option<String>,
}

impl Untold {
    /// As the commit leaves it.
    pub fn at(since: Timestamp, attempt: Option<String>, identity: Identity) -> Self {
        Self { attempt, identity, since, done: Vec::new(), tries: 0, next_try: since, last_failure: None }
    }
}
