//! Where records and everything that must survive live.
//!
//! Every changing method is one committed, flushed transaction. Those that
//! change a record or what stands beside it append their own audit row: when it
//! returns `Ok`, the change is durable; when it returns an error, nothing
//! happened. Methods block; callers in asynchronous code go through
//! `engine::durable`.

mod beside;
pub mod local;
pub mod store;

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use turnlock_protocol::Credential;

use crate::plan::Identity;
use crate::record::{Record, Uid};
use crate::stage::{Attempt, Excluded, Past, PendingFinish, PermitGiven, Process, Untold};

/// A number that grows with every change of a record.
pub type Revision = u64;

/// What a vault can do.
pub trait Vault: Send + Sync {
    /// Shows every record's summary, in no particular order, without reading
    /// secrets. Stops when the visitor says so by returning false.
    fn list(&self, visit: &mut dyn FnMut(Summary) -> bool) -> Result<(), VaultError>;

    /// The records a person may mean by this name: its UID, or without regard
    /// to case its title, `folder/title` or one of its endpoints' names.
    fn find(&self, name: &str) -> Result<Vec<Summary>, VaultError>;

    /// One record with everything that stands beside it.
    fn read(&self, uid: &Uid) -> Result<Stored, VaultError>;

    /// Records of one account, by the identities given to [`Vault::put`].
    fn same_account(&self, identity: &Identity) -> Result<Vec<Uid>, VaultError>;

    /// Adds a record (`expected` none) or replaces it. `identities` are the
    /// accounts this record resolves to. Refused while an attempt or a finish
    /// is open unless only fields outside its basis changed (the caller has
    /// checked that and says so with `beside_open`).
    fn put(
        &self,
        record: &Record,
        expected: Option<Revision>,
        identities: &[Identity],
        beside_open: bool,
    ) -> Result<Revision, VaultError>;

    /// Begins to add or replace many records in one transaction. They are taken
    /// one by one, so that their number is not bounded by memory.
    fn import(&self) -> Result<Box<dyn Import + '_>, VaultError>;

    /// Adds a record with everything that stands beside it, as another vault
    /// had it. One of that UID is written over where nothing would be lost by it.
    fn receive(&self, stored: &Stored, history: &[Past], identities: &[Identity]) -> Result<(), VaultError>;

    /// Removes a record that has neither an open attempt nor an open finish.
    fn delete(&self, uid: &Uid, expected: Revision) -> Result<(), VaultError>;

    /// Takes the leases of one rotation, all or none.
    fn acquire(&self, wanted: &LeaseRequest) -> Result<Acquired, VaultError>;

    /// Takes the same leases from holders that were seen as given and have not
    /// moved since; [`Acquired::Busy`] if any did.
    fn seize(&self, wanted: &LeaseRequest, seen: &[Holder]) -> Result<Acquired, VaultError>;

    /// Counts the lease's renewal number up. `Fenced` when somebody took it.
    fn renew(&self, lease: &Lease) -> Result<(), VaultError>;

    /// Gives the leases back. Harmless when somebody took them.
    fn release(&self, lease: &Lease) -> Result<(), VaultError>;

    /// Appends an attempt to the record's stage. Refused when the record's
    /// revision is not the one given.
    fn stage(&self, lease: &Lease, uid: &Uid, revision: Revision, attempt: &Attempt) -> Result<(), VaultError>;

    /// Reads an attempt back through a second connection with a freshly
    /// unwrapped key: proof that what was staged can be read after a crash.
    fn read_back(&self, uid: &Uid, attempt: &str) -> Result<Attempt, VaultError>;

    /// Renews the lease, checks the fence and notes the permit, in one
    /// transaction, before the rotator is told to go. The log-in that is behind
    /// it was accepted: where it was the account's own and counted, it is given
    /// back.
    fn permit(&self, lease: &Lease, uid: &Uid, attempt: &str, permit: &PermitGiven) -> Result<(), VaultError>;

    /// Notes in an open attempt what the target has refused.
    fn exclude(&self, lease: &Lease, uid: &Uid, attempt: &str, excluded: &Excluded) -> Result<(), VaultError>;

    /// Puts a minted credential into its attempt.
    fn minted(&self, lease: &Lease, uid: &Uid, attempt: &str, candidate: &Credential) -> Result<(), VaultError>;

    /// Candidate → current, current → history, stage closed, budget reset, and
    /// that hooks are owed where the attempt says so: one transaction over all
    /// `uids`. `merge` gets each record as it is now and
    /// writes the new credential into it, or says why that is a conflict;
    /// then nothing is changed.
    fn commit(
        &self,
        lease: &Lease,
        commit: &Commit<'_>,
        merge: &dyn Fn(&mut Record) -> Result<(), String>,
    ) -> Result<Revision, VaultError>;

    /// Erases an attempt whose permit was never given.
    fn erase(&self, lease: &Lease, uid: &Uid, attempt: &str, reason: &str) -> Result<(), VaultError>;

    /// Closes an attempt and keeps its candidate in the history as abandoned.
    /// What it left at the target is to be removed later, in the same
    /// transaction.
    fn abandon(
        &self,
        lease: &Lease,
        uid: &Uid,
        attempt: &str,
        reason: &str,
        left: Option<&LeftBehind>,
    ) -> Result<(), VaultError>;

    /// Marks an open attempt (or, with none, the record) as needing a person.
    /// Everything is kept.
    fn park(&self, lease: &Lease, uid: &Uid, attempt: Option<&str>, reason: &str) -> Result<(), VaultError>;

    /// Takes the mark of [`Vault::park`] off a record without an open attempt.
    fn unpark(&self, lease: &Lease, uid: &Uid) -> Result<(), VaultError>;

    /// Makes a credential that was proven (an abandoned or historical one, or
    /// one a person supplied) current: current → history, the record's parked
    /// mark taken off, open attempts abandoned. With `tell`, its hooks are owed.
    fn adopt(
        &self,
        lease: &Lease,
        uid: &Uid,
        credential: &Credential,
        why: &str,
        tell: Option<&Identity>,
        merge: &dyn Fn(&mut Record) -> Result<(), String>,
    ) -> Result<Revision, VaultError>;

    /// The record's past credentials, newest first.
    fn history(&self, uid: &Uid) -> Result<Vec<Past>, VaultError>;

    /// Notes how far a finish came.
    fn finished(&self, lease: &Lease, uid: &Uid, attempt: &str, outcome: CleanUp<'_>) -> Result<(), VaultError>;

    /// Notes that hooks have run: what is still owed, nothing when all have
    /// succeeded; `said` names them, and why the others failed.
    fn told(&self, lease: &Lease, uid: &Uid, owed: Option<&Untold>, said: &str) -> Result<(), VaultError>;

    /// Remembers limits that a target told when it refused a candidate.
    fn learn(&self, lease: &Lease, uid: &Uid, limits: &turnlock_protocol::PasswordLimits) -> Result<(), VaultError>;

    /// Counts one log-in that may fail, before it is made. Refused with
    /// [`VaultError::BudgetSpent`] when `limit` were spent within the window.
    fn spend(&self, identity: &Identity, window_ms: u64, limit: u32) -> Result<(), VaultError>;

    /// The latest log-in that was counted cost nothing.
    fn refund(&self, identity: &Identity) -> Result<(), VaultError>;

    /// The target let the account in: its own count begins anew.
    fn forgive(&self, identity: &Identity) -> Result<(), VaultError>;

    /// Notes what became of a record beside its rotations, and when.
    fn note(&self, uid: &Uid, note: &Note) -> Result<(), VaultError>;

    /// A number that grows with every change of anything; none where the vault
    /// does not tell that it has changed, and has to be looked through.
    fn generation(&self) -> Result<Option<u64>, VaultError>;

    /// Copies everything, consistent and durable, to a new file, unless that is
    /// a matter of whoever keeps the vault.
    fn backup(&self, to: &Path) -> Result<Backup, VaultError>;

    /// Why this vault must be adopted before anything is rotated, if it must:
    /// only one that can be copied has to.
    fn adopt_required(&self) -> Option<String> {
        None
    }

    /// Everything open, parked or overdue.
    fn open_items(&self) -> Result<Vec<OpenItem>, VaultError>;

    /// Appends a row that belongs to no other change.
    fn audit(&self, event: &AuditEvent) -> Result<(), VaultError>;

    /// Shows the audit rows in order, from a sequence number on.
    fn audit_rows(&self, from: u64, visit: &mut dyn FnMut(AuditRow) -> bool) -> Result<(), VaultError>;

    /// Proves the audit chain: returns its length and head, in hexadecimal.
    fn audit_verify(&self) -> Result<(u64, String), VaultError>;
}

/// What came of [`Vault::backup`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "whoever asked for a backup has to know that there is none"]
pub enum Backup {
    /// The copy is there.
    Made(PathBuf),
    /// There is none: the service that keeps the vault makes its own.
    NotOurs {
        /// Which vault, for people.
        vault: String,
    },
}

impl Backup {
    /// What has to be told of a copy that was not made.
    pub fn not_made(&self) -> Option<String> {
        match self {
            Self::Made(_) => None,
            Self::NotOurs { vault } => Some(format!(
                "no copy of the vault {vault} was made: its backups, and earlier versions of its records, are its service's own"
            )),
        }
    }
}

/// How far a finish came.
#[derive(Debug, Clone, Copy)]
pub enum CleanUp<'a> {
    /// Nothing is left to do.
    Done,
    /// All that can be done before it is due.
    Waits,
    /// Not so far, and why.
    Failed(&'a str),
}

/// What an abandoned attempt left at a target that mints its secrets.
#[derive(Debug)]
pub struct LeftBehind {
    /// The credential that shall be removed; its id is enough.
    pub credential: Credential,
    /// Not before this instant.
    pub due: Timestamp,
}

/// Many records on their way into a vault: all of them, or none where it is
/// dropped without [`Import::commit`].
pub trait Import {
    /// Adds a record or replaces the one with its UID. `identities` as for
    /// [`Vault::put`]. Refused, sooner or at the commit, while an attempt is
    /// open on one of them.
    fn put(&mut self, record: &Record, identities: &[Identity]) -> Result<(), VaultError>;

    /// Makes all of it durable.
    fn commit(self: Box<Self>) -> Result<(), VaultError>;
}

/// A record as lists show it; no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The record.
    pub uid: Uid,
    /// Its title.
    pub title: String,
    /// Its folders as paths with `/`.
    pub folders: Vec<String>,
    /// The record type, none for untyped records.
    pub record_type: Option<String>,
    /// The plugin it resolves to without options, if it does.
    pub plugin: Option<String>,
    /// Its named endpoints: name, plugin, description.
    pub endpoints: Vec<(String, String, Option<String>)>,
    /// Its revision.
    pub revision: Revision,
    /// Whether something stands open beside it.
    pub state: RecordState,
    /// The account it stands for without options, if it does.
    pub account: Option<Identity>,
    /// What it says of how it is to be kept.
    #[serde(flatten)]
    pub upkeep: Upkeep,
    /// What became of it.
    #[serde(flatten)]
    pub fate: Fate,
}

/// What a record says of how it is to be kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upkeep {
    /// `turnlock:schedule`, as it stands there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// `turnlock:admin`: a UID or a title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<String>,
    /// `turnlock:tag`, at commas.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

impl Upkeep {
    /// What this record says of it.
    fn of(record: &Record) -> Self {
        let options = record.options();
        let said = |name: &str| {
            let named = || options.iter().filter(|option| option.name == name && !option.values.is_empty());
            let prefix = named().map(|option| option.prefix).max();
            #[expect(clippy::disallowed_methods, reason = "when and by whom an account is kept is shown in lists")]
            let texts = named()
                .filter(|option| Some(option.prefix) == prefix)
                .flat_map(|option| &option.values)
                .map(|value| value.expose().trim().to_owned());
            texts.filter(|text| !text.is_empty()).collect::<Vec<_>>()
        };
        let tags = said("tag");
        Self {
            schedule: said("schedule").into_iter().next(),
            admin: said("admin").into_iter().next(),
            tags: tags.iter().flat_map(|tags| tags.split(',')).map(|tag| tag.trim().to_owned()).collect(),
        }
    }
}

/// What a vault remembers of what became of a record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fate {
    /// When its credential was last replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated_at: Option<Timestamp>,
    /// Since when it has the schedule it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_at: Option<Timestamp>,
    /// When the target was last asked whether its credential works, by a
    /// rotation or without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_at: Option<Timestamp>,
    /// Why its credential did not work when the target was last asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drifted: Option<String>,
    /// How its last rotation failed; none once one went well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<Failed>,
}

/// A rotation that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// When.
    pub at: Timestamp,
    /// How often in a row.
    pub times: u32,
    /// Why, for people.
    pub why: String,
}

/// What [`Vault::note`] notes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// Its rotation failed, for this reason.
    Failed(String),
    /// Its credential works: the target was asked.
    Proven,
    /// Its credential does not work any more, for this reason.
    Drifted(String),
}

/// Whether something stands open beside a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordState {
    /// Nothing.
    Settled,
    /// An attempt whose outcome is not settled.
    Open,
    /// A person has to look.
    Parked,
    /// The rotation is done, the old credential not yet cleaned up.
    Finishing,
    /// The rotation is done, its hooks have not all run.
    Hooks,
}

/// One record with everything that stands beside it.
#[derive(Debug)]
pub struct Stored {
    /// The record.
    pub record: Record,
    /// Its revision.
    pub revision: Revision,
    /// Open attempts, oldest first.
    pub stage: Vec<Attempt>,
    /// Why it is parked, if it is without an open attempt.
    pub parked: Option<String>,
    /// Finishes not done yet.
    pub pending: Vec<PendingFinish>,
    /// Hooks that have not all run.
    pub untold: Option<Untold>,
    /// Limits its target has told.
    pub learned: turnlock_protocol::PasswordLimits,
    /// When its credential was last committed by a rotation.
    pub rotated_at: Option<Timestamp>,
    /// Whether that credential was committed without proof (`verify: none`).
    pub unverified: bool,
}

/// What one rotation must hold alone.
#[derive(Debug, Clone)]
pub struct LeaseRequest {
    /// The record and its duplicates.
    pub records: Vec<Uid>,
    /// The account.
    pub account: Option<Identity>,
    /// The record of the admin login, held shared.
    pub admin: Option<Uid>,
    /// Who asks.
    pub owner: Owner,
    /// Time to live without a renewal, in milliseconds.
    pub ttl_ms: u64,
}

/// Who holds a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The process.
    pub process: Process,
    /// The machine's name, for people.
    pub machine: String,
    /// A random number of this run, so that one process may hold many leases.
    pub run: String,
}

/// A granted lease.
#[derive(Debug, Clone)]
pub struct Lease {
    /// Grows with every grant in this vault; a writer with a stale one is refused.
    pub fence: u64,
    /// The vault's names of what is held.
    pub keys: Vec<Vec<u8>>,
    /// Time to live without a renewal, in milliseconds.
    pub ttl_ms: u64,
}

/// Somebody who holds what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Which key.
    pub key: Vec<u8>,
    /// Who.
    pub owner: Owner,
    /// Its fence.
    pub fence: u64,
    /// How often it was renewed.
    pub renewal: u64,
    /// Its time to live, in milliseconds.
    pub ttl_ms: u64,
}

/// The answer to [`Vault::acquire`].
#[derive(Debug)]
pub enum Acquired {
    /// All of it.
    Granted(Lease),
    /// None of it.
    Busy(Vec<Holder>),
}

/// What a commit closes.
#[derive(Debug)]
pub struct Commit<'a> {
    /// The record that holds the stage.
    pub uid: &'a Uid,
    /// Further records of the same account.
    pub duplicates: &'a [Uid],
    /// The attempt.
    pub attempt: &'a str,
    /// Committed on a definite success alone (`verify: none`).
    pub unverified: bool,
    /// The clean-up to remember, and when it is due.
    pub finish_due: Option<Timestamp>,
}

/// Something that is not settled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenItem {
    /// The record.
    pub uid: Uid,
    /// Its title.
    pub title: String,
    /// What kind of open.
    pub state: RecordState,
    /// Since when.
    pub since: Timestamp,
    /// The attempt, if there is one.
    pub attempt: Option<String>,
    /// Why, for people.
    pub reason: Option<String>,
    /// When it falls due (finishes), or is tried again (hooks).
    pub due: Option<Timestamp>,
}

/// One thing that happened. Never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEvent {
    /// `staged`, `permitted`, `committed`, `abandoned`, `erased`, `parked`, …
    pub what: String,
    /// The record.
    pub uid: Option<Uid>,
    /// The attempt.
    pub attempt: Option<String>,
    /// The account, for people.
    pub account: Option<String>,
    /// Why, for people.
    pub detail: Option<String>,
}

/// One row of the audit chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRow {
    /// Its number, from 1 without gaps.
    pub number: u64,
    /// When.
    pub at: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub event: AuditEvent,
    /// The chain up to and including this row, in hexadecimal.
    pub chain: String,
}

impl AuditRow {
    /// Whether it is what comes behind a row with that chain.
    pub fn follows(&self, before: &str) -> bool {
        let row = Self { chain: before.to_owned(), ..self.clone() };
        let digest = Sha256::digest(serde_json::to_vec(&row).unwrap_or_default());
        digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>() == self.chain
    }
}

/// Why a vault did not do what was asked. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// No file there.
    #[error("there is no vault at {0}")]
    Missing(PathBuf),
    /// A file there already.
    #[error("{0} exists already")]
    Exists(PathBuf),
    /// None of the key slots opens with this key.
    #[error("this key does not open the vault {0}")]
    WrongKey(PathBuf),
    /// The file is not a vault, or was damaged or truncated.
    #[error("the vault {path} is damaged: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        what: String,
    },
    /// Made by a newer Turnlock.
    #[error("the vault has format {found}, this program reads up to {known}")]
    NewerFormat {
        /// The file's format.
        found: u32,
        /// The newest format known here.
        known: u32,
    },
    /// A copy or an old backup.
    #[error("this vault is {0}: what it holds may be older than what the targets accept")]
    NotAdopted(String),
    /// On a file system that cannot keep the promise.
    #[error("{path} lies on {filesystem}, which does not keep locks and flushes reliably")]
    NetworkFilesystem {
        /// The file.
        path: PathBuf,
        /// Its file system.
        filesystem: String,
    },
    /// No such record.
    #[error("there is no record {0}")]
    NoRecord(String),
    /// Changed since it was read.
    #[error("record {0} was changed meanwhile")]
    Stale(Uid),
    /// Refused because of an open attempt or finish.
    #[error("record {0} has an open rotation")]
    OpenRotation(Uid),
    /// The credential or the plan was edited meanwhile.
    #[error("record {uid} was edited meanwhile: {what}")]
    Conflict {
        /// The record.
        uid: Uid,
        /// What was edited.
        what: String,
    },
    /// A record that another vault shall not get, or has got otherwise.
    #[error("record {uid} is not copied: {what}")]
    NotCopied {
        /// The record.
        uid: Uid,
        /// Why.
        what: String,
    },
    /// Its vault does not let us write it.
    #[error("record {0} cannot be written by us")]
    ReadOnly(Uid),
    /// A vault elsewhere, in its own words.
    #[error("{}", .0.message)]
    Remote(Box<turnlock_protocol::Fault>),
    /// Somebody took the lease.
    #[error("the lease was taken over by another run")]
    Fenced,
    /// Too many log-ins that may fail within the window.
    #[error("the budget of log-ins for this account is spent until {until}")]
    BudgetSpent {
        /// When there is room again.
        until: Timestamp,
    },
    /// No such attempt.
    #[error("there is no open attempt {0}")]
    NoAttempt(String),
    /// The key file is none, or is not kept to its owner.
    #[error("the key file {} {why}", path.display())]
    KeyFile {
        /// Where it lies.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The storage failed: full, read-only, locked, gone.
    #[error("the vault cannot be {doing}: {why}")]
    Storage {
        /// `read` or `written`.
        doing: &'static str,
        /// The storage's own words.
        why: String,
    },
}
