//! A vault that lies elsewhere, behind a program that knows how to list, get
//! and put records there and nothing of rotations.
//!
//! What a rotation needs besides is kept in the record itself (`state.rs`), so
//! that it is in the vault, for every machine to see. Every change goes out
//! with the revision that it was made from, is looked at afterwards, and is
//! made again where somebody else was faster; so two machines fence each other.
//! `program.rs` speaks with the program, `typed.rs` knows its records,
//! `notes.rs` is what this machine writes down by itself.

mod notes;
mod program;
mod state;
mod typed;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use jiff::{Timestamp, Unit};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use turnlock_protocol::{Applied, Credential, Fault, Kind, PasswordLimits, Secret};
use zeroize::Zeroizing;

use self::notes::Notes;
use self::program::Program;
use self::state::{Budget, Held, State};
use self::typed::Told as Wire;
use super::beside::{self, Keep, Parked, Waiting, lost};
use super::{
    Acquired, AuditEvent, AuditRow, Backup, CleanUp, Commit, Failed, Fate, Holder, Import, Lease, LeaseRequest,
    LeftBehind, Note, OpenItem, RecordState, Revision, Stored, Summary, Upkeep, Vault, VaultError,
};
use crate::moment::Moment;
use crate::plan::Identity;
use crate::record::{Body, Record, Uid};
use crate::rotators::Rotators;
use crate::stage::{Attempt, Excluded, Past, PendingFinish, PermitGiven, STAGE_FORMAT, Untold};

pub use self::program::{Configuration, Told};

/// How often a change is made again when somebody else was faster.
const TRIES: usize = 8;
/// How often one write is sent whose answer was lost or that was refused without a reason that shows.
const SENDINGS: u32 = 3;
/// How long a listing is good for finding records by name and account. What
/// is then done with a record is done with the record itself.
const LISTING_LIVES: Duration = Duration::from_secs(60);
/// The longest record that is written: Commander reads no longer ones.
const LONGEST: usize = 32_000;

/// Which accounts a record resolves to.
pub type Accounts = Box<dyn Fn(&Record) -> Vec<Identity> + Send + Sync>;

/// Everything that opens a vault elsewhere.
pub struct Opening {
    /// Where its program is found.
    pub rotators: Rotators,
    /// The program's name, without `turnlock-vault-`.
    pub name: String,
    /// What the program needs to reach it.
    pub configuration: Configuration,
    /// The authority that its service is believed by, instead of the system's.
    pub ca: Option<PathBuf>,
    /// Where this machine keeps its notes.
    pub state_directory: PathBuf,
    /// Set by Ctrl-C.
    pub stop: CancellationToken,
    /// Told what is waited for.
    pub told: Told,
    /// Which accounts a record resolves to.
    pub accounts: Accounts,
}

/// A vault elsewhere.
pub struct StoreVault {
    program: Program,
    place: String,
    accounts: Accounts,
    notes: Notes,
    listing: Mutex<Option<(Instant, Arc<Vec<Listed>>)>>,
    /// Records as they were left by our latest look, for the next change alone.
    kept: Mutex<BTreeMap<Uid, Fetched>>,
    /// What this process holds: its jobs exclude each other here.
    here: Mutex<Vec<Here>>,
    /// Attempts that have a permit and are not settled: what is done for them is not interrupted.
    permitted: Mutex<BTreeSet<String>>,
    /// Transactions that were finalized for certain.
    finalized: Mutex<BTreeSet<String>>,
}

/// What a look at the whole vault tells of one record.
struct Listed {
    summary: Summary,
    identities: Vec<Identity>,
    writable: bool,
    open: Vec<OpenItem>,
    attempts: usize,
    pending: usize,
    past: usize,
    problem: Option<&'static str>,
}

/// A record as the store had it at some moment.
struct Fetched {
    record: Record,
    state: State,
    revision: u64,
}

/// A lease of this process.
struct Here {
    records: Vec<Uid>,
    account: Option<Identity>,
    admin: Option<Uid>,
    holder: Held,
}

/// What an edit wants done with what it has changed.
enum Then<T> {
    /// Write it.
    Write(T),
    /// It changed nothing.
    Leave(T),
}

/// Whether a write was made.
enum Landed {
    Yes,
    /// Somebody else was faster.
    No,
}

/// What a look at everything found.
#[derive(Debug, Default)]
pub struct StoreChecked {
    /// Records.
    pub records: usize,
    /// Open attempts.
    pub attempts: usize,
    /// Clean-ups.
    pub finishes: usize,
    /// Past credentials.
    pub history: usize,
    /// Rows of this machine's audit chain.
    pub audit: u64,
    /// Records that nothing may write.
    pub read_only: usize,
    /// What does not fit, for people.
    pub problems: Vec<String>,
}

impl std::fmt::Debug for StoreVault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("StoreVault").field(&self.place).finish()
    }
}

impl StoreVault {
    /// Names a vault; its program is started by the first question.
    pub fn new(opening: Opening) -> Self {
        let Opening { rotators, name, configuration, ca, state_directory, stop, told, accounts } = opening;
        let place = format!("{name}:{}", configuration.path.display());
        Self {
            notes: Notes::new(&state_directory, &place),
            program: Program::new(rotators, &name, configuration, ca, stop, told),
            place,
            accounts,
            listing: Mutex::default(),
            kept: Mutex::default(),
            here: Mutex::default(),
            permitted: Mutex::default(),
            finalized: Mutex::default(),
        }
    }

    /// Binds the configuration to the application of a one-time token.
    ///
    /// # Errors
    /// What the service says.
    pub fn bind(&self, token: &Secret) -> Result<(), VaultError> {
        self.program.bind(token).map_err(remote)
    }

    /// Reads everything and says what does not fit.
    ///
    /// # Errors
    /// What the service says.
    pub fn check(&self) -> Result<StoreChecked, VaultError> {
        let mut checked = StoreChecked::default();
        for listed in self.listing(true)?.iter() {
            checked.records += 1;
            checked.attempts += listed.attempts;
            checked.finishes += listed.pending;
            checked.history += listed.past;
            checked.read_only += usize::from(!listed.writable);
            if let Some(problem) = listed.problem {
                let Summary { title, uid, .. } = &listed.summary;
                checked.problems.push(format!("record {uid} \"{title}\": {problem}"));
            }
        }
        match self.notes.verify() {
            Ok((rows, _)) => checked.audit = rows,
            Err(error) => checked.problems.push(error.to_string()),
        }
        Ok(checked)
    }

    // ── looking ─────────────────────────────────────────────────────────────

    fn listing(&self, fresh: bool) -> Result<Arc<Vec<Listed>>, VaultError> {
        let mut place = self.listing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((since, listing)) = &*place
            && !fresh
            && since.elapsed() < LISTING_LIVES
        {
            return Ok(Arc::clone(listing));
        }
        let mut listing = Vec::new();
        let mut hear = |text: &str| {
            let told: Wire = serde_json::from_str(text)
                .map_err(|_| Fault::new(Kind::Internal, "the vault's program told a record that is none"))?;
            listing.push(self.listed(told));
            Ok(())
        };
        let _: IgnoredAny =
            self.program.call_and_hear("list", &json!({}), self.interruptible(), &mut hear).map_err(remote)?;
        self.schedule(&mut listing);
        let listing = Arc::new(listing);
        *place = Some((Instant::now(), Arc::clone(&listing)));
        Ok(listing)
    }

    /// The store does not tell since when a record has its schedule: this machine remembers it.
    fn schedule(&self, listing: &mut [Listed]) {
        let with_one = listing.iter().filter_map(|Listed { summary, .. }| {
            let schedule = summary.upkeep.schedule.clone()?;
            Some((summary.uid.clone(), schedule))
        });
        // Where it cannot, each look is the first.
        let since = self.notes.scheduled(with_one.collect()).unwrap_or_default();
        for Listed { summary, .. } in listing {
            summary.fate.scheduled_at = since.get(&summary.uid).copied();
        }
    }

    fn listed(&self, told: Wire) -> Listed {
        let uid = told.uid();
        let broken = |problem| Listed {
            summary: Summary {
                uid: uid.clone(),
                title: String::new(),
                folders: Vec::new(),
                record_type: None,
                plugin: None,
                endpoints: Vec::new(),
                revision: 0,
                state: RecordState::Parked,
                account: None,
                upkeep: Upkeep::default(),
                fate: Fate::default(),
            },
            identities: Vec::new(),
            writable: false,
            open: Vec::new(),
            attempts: 0,
            pending: 0,
            past: 0,
            problem: Some(problem),
        };
        let read = match told.read() {
            Ok(read) => read,
            Err(problem) => return broken(problem),
        };
        let (record, state) = (read.record, State::read(read.state.as_ref()));
        let identities = (self.accounts)(&record);
        let all = record.endpoints();
        let named = all.iter().filter(|endpoint| endpoint.name.is_some()).count();
        let own = all.iter().find(|endpoint| endpoint.name.is_none()).and_then(|endpoint| endpoint.plugin.clone());
        // Identities come default first, then one for each endpoint.
        let first = (identities.len() > named).then(|| identities.first().map(|first| first.plugin.clone())).flatten();
        let summary = Summary {
            uid: record.uid.clone(),
            title: record.title.clone(),
            folders: record.folder_paths(),
            record_type: record.record_type().map(str::to_owned),
            plugin: own.or(first),
            endpoints: all
                .into_iter()
                .filter_map(|endpoint| Some((endpoint.name?, endpoint.plugin?, endpoint.description)))
                .collect(),
            revision: typed::content(&record),
            state: state.as_ref().map_or(RecordState::Parked, State::record_state),
            account: None,
            upkeep: Upkeep::of(&record),
            fate: state.as_ref().map(|state| state.fate.clone()).unwrap_or_default(),
        };
        let of_the_default = |account: &&Identity| summary.plugin.as_ref() == Some(&account.plugin);
        let account = identities.iter().find(of_the_default).cloned();
        let summary = Summary { account, ..summary };
        Listed {
            summary,
            identities,
            writable: record.writable,
            open: state.as_ref().map(|state| state.open_items(&record)).unwrap_or_default(),
            attempts: state.as_ref().map_or(0, |state| state.stage.len()),
            pending: state.as_ref().map_or(0, |state| state.pending.len()),
            past: state.as_ref().map_or(0, |state| state.history.len()),
            problem: state.err(),
        }
    }

    fn fetch(&self, uid: &Uid) -> Result<Fetched, VaultError> {
        self.find_record(uid)?.ok_or_else(|| VaultError::NoRecord(uid.to_string()))
    }

    fn find_record(&self, uid: &Uid) -> Result<Option<Fetched>, VaultError> {
        Ok(self.fetch_all(std::slice::from_ref(uid))?.pop())
    }

    /// Records as they are now.
    fn fetch_all(&self, uids: &[Uid]) -> Result<Vec<Fetched>, VaultError> {
        let told = self.tell(uids)?;
        told.into_iter()
            .map(|told| {
                let (uid, revision) = (told.uid(), told.revision);
                let damaged = |what: &str| self.damaged(&format!("record {uid}: {what}"));
                let read = told.read().map_err(damaged)?;
                let state = State::read(read.state.as_ref()).map_err(damaged)?;
                Ok(Fetched { record: read.record, state, revision })
            })
            .collect()
    }

    fn tell(&self, uids: &[Uid]) -> Result<Vec<Wire>, VaultError> {
        #[derive(Deserialize)]
        struct Records {
            records: Vec<Wire>,
        }
        let ask = || self.program.call("get", &json!({"uids": uids}), self.interruptible());
        // A program that has died is started again; looking twice costs nothing.
        let answer: Records =
            ask().or_else(|fault| if is_broken(&fault) { ask() } else { Err(fault) }).map_err(remote)?;
        Ok(answer.records)
    }

    /// Nothing that a permitted attempt needs is given up because of a Ctrl-C.
    fn interruptible(&self) -> bool {
        locked(&self.permitted).is_empty()
    }

    fn damaged(&self, what: &str) -> VaultError {
        VaultError::Damaged { path: PathBuf::from(&self.place), what: what.to_owned() }
    }

    // ── changing ────────────────────────────────────────────────────────────

    /// Changes a record and what stands beside it. When this returns, the
    /// change is in the vault, or an error says why it is not.
    fn change<T>(
        &self,
        uid: &Uid,
        transaction: bool,
        mut edit: impl FnMut(&mut Record, &mut State) -> Result<Then<T>, VaultError>,
    ) -> Result<T, VaultError> {
        let mut kept = locked(&self.kept).remove(uid);
        for _ in 0..TRIES {
            let mut now = match kept.take() {
                Some(kept) => kept,
                None => self.fetch(uid)?,
            };
            if !now.record.writable {
                return Err(VaultError::ReadOnly(uid.clone()));
            }
            if let Some(write) = now.state.transaction.clone()
                && !locked(&self.finalized).contains(&write)
            {
                if self.finalize(uid)? {
                    locked(&self.finalized).insert(write);
                }
                now = self.fetch(uid)?;
            }
            let done = match edit(&mut now.record, &mut now.state)? {
                Then::Write(done) => done,
                Then::Leave(done) => {
                    locked(&self.kept).insert(uid.clone(), now);
                    return Ok(done);
                }
            };
            if let Landed::Yes = self.write(uid, now, transaction)? {
                return Ok(done);
            }
            kept = locked(&self.kept).remove(uid);
        }
        Err(VaultError::Stale(uid.clone()))
    }

    /// Sends a record out and looks what became of it.
    fn write(&self, uid: &Uid, mut now: Fetched, transaction: bool) -> Result<Landed, VaultError> {
        let write = random_name()?;
        now.state.sign(&write);
        now.state.transaction = transaction.then(|| write.clone());
        let state = fitting(&now.record, &mut now.state)?;
        let data = typed::Whole { record: &now.record, state: Some(&state) };
        let params = Put { uid, revision: now.revision, data, transaction };
        let mut last = None;
        for sending in 1..=SENDINGS {
            let sent: Result<IgnoredAny, Fault> = self.program.call("put", &params, self.interruptible());
            let refused = sent.err();
            if let Some(fault) = &refused
                && fault.applied == Applied::No
                && fault.kind != Kind::Conflict
            {
                return Err(remote(fault.clone()));
            }
            // What reads return between the two is not documented, so nothing is read there.
            let is_final = transaction && self.finalize(uid).unwrap_or(false);
            let found = self.fetch(uid)?;
            if found.state.was_written_by(&write) {
                if is_final || transaction && self.finalize(uid)? {
                    locked(&self.finalized).insert(write);
                }
                locked(&self.kept).insert(uid.clone(), found);
                return Ok(Landed::Yes);
            }
            if found.revision != now.revision {
                locked(&self.kept).insert(uid.clone(), found);
                return Ok(Landed::No);
            }
            if refused.as_ref().is_some_and(|fault| fault.kind == Kind::Conflict) {
                // Nobody was faster: a transaction that somebody left open may be in
                // the way. One whose outcome shows is what it shows.
                if found.state.transaction.is_some() {
                    self.finalize(uid)?;
                } else {
                    self.roll_back(uid);
                }
            } else if sending < SENDINGS {
                #[expect(clippy::disallowed_methods, reason = "a service that has failed is given a moment")]
                thread::sleep(Duration::from_millis(100 * u64::from(sending)));
            }
            last = refused;
        }
        Err(last.map_or_else(
            || VaultError::Storage {
                doing: "written",
                why: format!("it took a change of record {uid} and does not show it"),
            },
            remote,
        ))
    }

    /// Makes a transaction final: whether the service says that it did, or
    /// that there is none.
    fn finalize(&self, uid: &Uid) -> Result<bool, VaultError> {
        let ask = || self.program.call::<IgnoredAny>("finalize", &json!({"uid": uid}), false);
        let done = ask().or_else(|fault| if fault.applied == Applied::Unknown { ask() } else { Err(fault) });
        match done {
            Ok(_) => Ok(true),
            Err(fault) if fault.kind == Kind::NotFound => Ok(false),
            Err(fault) => Err(remote(fault)),
        }
    }

    fn roll_back(&self, uid: &Uid) {
        // Whether there was one, and whether it is gone, shows when the write is sent again.
        drop(self.program.call::<IgnoredAny>("rollback", &json!({"uid": uid}), false));
    }

    /// Changes what stands beside a record that the lease holds, and notes it.
    fn held(
        &self,
        lease: &Lease,
        uid: &Uid,
        attempt: Option<&str>,
        mut edit: impl FnMut(&mut State, Timestamp) -> Result<(&'static str, Option<String>), VaultError>,
    ) -> Result<(), VaultError> {
        let (what, detail) = self.change(uid, false, |_, state| {
            check(lease, uid, state)?;
            edit(state, now()).map(Then::Write)
        })?;
        self.notes.note(&event(what, Some(uid), attempt, detail))
    }

    // ── leases ──────────────────────────────────────────────────────────────

    /// Takes every record of a request, or none; `seen` are holders that were
    /// watched standing still.
    fn take(&self, wanted: &LeaseRequest, seen: &[Holder]) -> Result<Acquired, VaultError> {
        let mut uids: Vec<&Uid> = wanted.records.iter().collect();
        uids.sort();
        uids.dedup();
        let records: Vec<Uid> = uids.iter().copied().cloned().collect();
        {
            let mut here = locked(&self.here);
            let busy: Vec<Holder> = here.iter().filter_map(|here| here.in_the_way(wanted)).collect();
            if !busy.is_empty() {
                return Ok(Acquired::Busy(busy));
            }
            let holder = Held { fence: 0, renewal: 0, ttl_ms: wanted.ttl_ms, owner: wanted.owner.clone() };
            let (account, admin) = (wanted.account.clone(), wanted.admin.clone());
            here.push(Here { records: records.clone(), account, admin, holder });
        }
        let taken = self.take_there(wanted, &uids, seen);
        if !matches!(taken, Ok(Acquired::Granted(_))) {
            locked(&self.here).retain(|here| here.records != records);
        }
        taken
    }

    fn take_there(&self, wanted: &LeaseRequest, uids: &[&Uid], seen: &[Holder]) -> Result<Acquired, VaultError> {
        if let Some(admin) = wanted.admin.as_ref().filter(|admin| !uids.contains(admin)) {
            // Only looked at: an application may often not write the admin's record.
            let lease = self.fetch(admin)?.state.lease.filter(|held| held.owner != wanted.owner);
            if let Some(holder) = lease.map(|held| held.of(admin)).filter(|holder| !stood_still(holder, seen)) {
                return Ok(Acquired::Busy(vec![holder]));
            }
        }
        let mut lease = Lease { fence: 0, keys: Vec::new(), ttl_ms: wanted.ttl_ms };
        for uid in uids {
            match self.take_one(uid, wanted, seen) {
                Ok(Ok(fence)) => {
                    lease.fence = lease.fence.max(fence);
                    lease.keys.push(key(uid, fence));
                }
                Ok(Err(holder)) => {
                    self.give_back(&lease)?;
                    return Ok(Acquired::Busy(vec![holder]));
                }
                Err(error) => {
                    // What was taken runs out, if it cannot be given back.
                    drop(self.give_back(&lease));
                    return Err(error);
                }
            }
        }
        match self.other_holder_of_the_account(wanted, uids)?.filter(|holder| !stood_still(holder, seen)) {
            None => Ok(Acquired::Granted(lease)),
            Some(holder) => {
                self.give_back(&lease)?;
                Ok(Acquired::Busy(vec![holder]))
            }
        }
    }

    /// Takes one record: its fence, or who is in the way.
    fn take_one(&self, uid: &Uid, wanted: &LeaseRequest, seen: &[Holder]) -> Result<Result<u64, Holder>, VaultError> {
        // What was kept is from an earlier rotation of this process.
        locked(&self.kept).remove(uid);
        let (taken, from) = self.change(uid, false, |_, state| {
            let mut from = None;
            if let Some(held) = &state.lease {
                let holder = held.of(uid);
                if !stood_still(&holder, seen) {
                    return Ok(Then::Leave((Err(holder), None)));
                }
                from = Some(format!("from process {} on {}", held.owner.process.pid, held.owner.machine));
            }
            state.fence += 1;
            state.lease =
                Some(Held { fence: state.fence, renewal: 0, ttl_ms: wanted.ttl_ms, owner: wanted.owner.clone() });
            Ok(Then::Write((Ok(state.fence), from)))
        })?;
        if from.is_some() {
            self.notes.note(&event("seized", Some(uid), None, from))?;
        }
        Ok(taken)
    }

    /// Ours is written by now; whoever takes another record of the same account
    /// at this moment sees it, or is seen.
    fn other_holder_of_the_account(&self, wanted: &LeaseRequest, uids: &[&Uid]) -> Result<Option<Holder>, VaultError> {
        let Some(account) = &wanted.account else {
            return Ok(None);
        };
        let others: Vec<Uid> = self.same_account(account)?.into_iter().filter(|uid| !uids.contains(&uid)).collect();
        if others.is_empty() {
            return Ok(None);
        }
        let found = self.fetch_all(&others)?;
        Ok(found.iter().find_map(|other| Some(other.state.lease.as_ref()?.of(&other.record.uid))))
    }

    fn give_back(&self, lease: &Lease) -> Result<(), VaultError> {
        let mut outcome = Ok(());
        for (uid, fence) in lease.keys.iter().filter_map(|key| of_key(key)) {
            let given = self.change(&uid, false, |_, state| {
                if state.lease.as_ref().is_some_and(|held| held.fence == fence) {
                    state.lease = None;
                    return Ok(Then::Write(()));
                }
                Ok(Then::Leave(()))
            });
            locked(&self.kept).remove(&uid);
            outcome = outcome.and(given);
        }
        outcome
    }

    // ── records ─────────────────────────────────────────────────────────────

    fn create(&self, record: &Record, mut state: State) -> Result<(), VaultError> {
        let uid = &record.uid;
        if !matches!(record.body, Body::Typed(_)) {
            return Err(self.typed_only(record));
        }
        let write = random_name()?;
        state.sign(&write);
        let text = fitting(record, &mut state)?;
        let folder = record.folder_paths().into_iter().next();
        let params = Creation { uid, folder, data: typed::Whole { record, state: Some(&text) } };
        let made: Result<IgnoredAny, Fault> = self.program.call("create", &params, self.interruptible());
        if let Err(fault) = made {
            let landed = fault.applied == Applied::Unknown
                && self.find_record(uid)?.is_some_and(|found| found.state.was_written_by(&write));
            if !landed {
                return Err(remote(fault));
            }
        }
        *locked(&self.listing) = None;
        Ok(())
    }

    fn replace(
        &self,
        record: &Record,
        expected: Option<Revision>,
        beside_open: bool,
        why: &'static str,
    ) -> Result<Revision, VaultError> {
        let uid = &record.uid;
        if !matches!(record.body, Body::Typed(_)) {
            return Err(self.typed_only(record));
        }
        locked(&self.kept).remove(uid);
        let revision = self.change(uid, false, |old, state| {
            if expected.is_some_and(|expected| typed::content(old) != expected) {
                return Err(VaultError::Stale(uid.clone()));
            }
            if !beside_open && state.has_open() {
                return Err(VaultError::OpenRotation(uid.clone()));
            }
            state.previous("", lost(old, record, Keep::Secrets, &[]), why, now());
            copy_into(old, record)?;
            Ok(Then::Write(typed::content(old)))
        })?;
        *locked(&self.listing) = None;
        Ok(revision)
    }

    fn typed_only(&self, record: &Record) -> VaultError {
        let what = format!("\"{}\" is an untyped record, and {} keeps typed records only", record.title, self.place);
        remote(Fault::new(Kind::Unsupported, what).hint("give it a type, such as turnlock add --type login"))
    }

    /// The record on which this account's log-ins are counted.
    fn counted_on(&self, identity: &Identity) -> Result<Option<Uid>, VaultError> {
        let listing = self.listing(false)?;
        let found = listing.iter().find(|listed| listed.writable && listed.identities.contains(identity));
        Ok(found.map(|listed| listed.summary.uid.clone()))
    }
}

impl Vault for StoreVault {
    fn list(&self, visit: &mut dyn FnMut(Summary) -> bool) -> Result<(), VaultError> {
        for listed in self.listing(true)?.iter() {
            if !visit(listed.summary.clone()) {
                break;
            }
        }
        Ok(())
    }

    fn find(&self, name: &str) -> Result<Vec<Summary>, VaultError> {
        let wanted = name.to_lowercase();
        let listing = self.listing(false)?;
        // Asked for by its UID, a record is told as it is now: whoever knows it goes by what became of it.
        if let Some(Listed { summary: known, .. }) = listing.iter().find(|listed| listed.summary.uid.as_str() == name) {
            let now = self.tell(std::slice::from_ref(&known.uid))?.into_iter().map(|told| {
                let mut summary = self.listed(told).summary;
                if summary.upkeep.schedule == known.upkeep.schedule {
                    summary.fate.scheduled_at = known.fate.scheduled_at;
                }
                summary
            });
            return Ok(now.collect());
        }
        let called = |summary: &Summary| {
            let below = summary.folders.iter().map(|folder| format!("{folder}/{}", summary.title));
            let endpoints = summary.endpoints.iter().map(|(name, ..)| name.clone());
            let names = std::iter::once(summary.title.clone()).chain(below).chain(endpoints);
            names.into_iter().any(|one| one.to_lowercase() == wanted)
        };
        Ok(listing.iter().map(|listed| &listed.summary).filter(|summary| called(summary)).cloned().collect())
    }

    fn read(&self, uid: &Uid) -> Result<Stored, VaultError> {
        let Fetched { record, state, .. } = self.fetch(uid)?;
        Ok(Stored {
            revision: typed::content(&record),
            record,
            stage: state.stage,
            parked: state.parked.map(|parked| parked.reason),
            pending: state.pending.into_iter().map(|waiting| waiting.finish).collect(),
            learned: state.learned,
            untold: state.untold,
            rotated_at: state.fate.rotated_at,
            unverified: state.unverified,
        })
    }

    fn same_account(&self, identity: &Identity) -> Result<Vec<Uid>, VaultError> {
        let listing = self.listing(false)?;
        let same = listing.iter().filter(|listed| listed.identities.contains(identity));
        Ok(same.map(|listed| listed.summary.uid.clone()).collect())
    }

    fn put(
        &self,
        record: &Record,
        expected: Option<Revision>,
        _identities: &[Identity],
        beside_open: bool,
    ) -> Result<Revision, VaultError> {
        if expected.is_some() {
            let revision = self.replace(record, expected, beside_open, "edited")?;
            self.notes.note(&event("edited", Some(&record.uid), None, None))?;
            return Ok(revision);
        }
        if self.find_record(&record.uid)?.is_some() {
            return Err(VaultError::Stale(record.uid.clone()));
        }
        self.create(record, State::default())?;
        self.notes.note(&event("added", Some(&record.uid), None, None))?;
        Ok(typed::content(record))
    }

    /// One record after the other: a store has no transaction over several.
    fn import(&self) -> Result<Box<dyn Import + '_>, VaultError> {
        Ok(Box::new(Importing { vault: self, records: Vec::new() }))
    }

    fn receive(&self, stored: &Stored, history: &[Past], _identities: &[Identity]) -> Result<(), VaultError> {
        let uid = &stored.record.uid;
        let mut state = State::default();
        state.learned.clone_from(&stored.learned);
        state.fate.rotated_at = stored.rotated_at;
        state.untold.clone_from(&stored.untold);
        state.unverified = stored.unverified;
        state.parked = stored.parked.clone().map(|reason| Parked { reason, at: now() });
        state.stage = copy_of(&stored.stage)?;
        let pending: Vec<PendingFinish> = copy_of(&stored.pending)?;
        state.pending = pending.into_iter().map(|finish| Waiting { since: now(), finish }).collect();
        state.history = copy_of(history)?;
        state.history.reverse();
        match self.find_record(uid)? {
            None => self.create(&stored.record, state)?,
            Some(_) => {
                // The record came from there, and is written over what it was.
                let known: Vec<&Credential> = history.iter().map(|past| &past.credential).collect();
                self.change(uid, false, |old, there| {
                    let conflict = |what: &str| VaultError::NotCopied { uid: uid.clone(), what: what.to_owned() };
                    if !there.is_blank() {
                        return Err(conflict("rotations have left something beside it there"));
                    }
                    if !lost(old, &stored.record, Keep::Secrets, &known).is_empty() {
                        return Err(conflict("it holds a secret there that would be lost"));
                    }
                    copy_into(old, &stored.record)?;
                    *there = copy_of(&state)?;
                    Ok(Then::Write(()))
                })?;
            }
        }
        self.notes.note(&event("copied here", Some(uid), None, None))
    }

    fn delete(&self, uid: &Uid, expected: Revision) -> Result<(), VaultError> {
        let found = self.fetch(uid)?;
        if typed::content(&found.record) != expected {
            return Err(VaultError::Stale(uid.clone()));
        }
        if found.state.has_open() {
            return Err(VaultError::OpenRotation(uid.clone()));
        }
        let _: IgnoredAny = self.program.call("delete", &json!({"uid": uid}), self.interruptible()).map_err(remote)?;
        *locked(&self.listing) = None;
        self.notes.note(&event("deleted", Some(uid), None, None))
    }

    fn acquire(&self, wanted: &LeaseRequest) -> Result<Acquired, VaultError> {
        self.take(wanted, &[])
    }

    fn seize(&self, wanted: &LeaseRequest, seen: &[Holder]) -> Result<Acquired, VaultError> {
        self.take(wanted, seen)
    }

    fn renew(&self, lease: &Lease) -> Result<(), VaultError> {
        for (uid, _) in lease.keys.iter().filter_map(|key| of_key(key)) {
            self.change(&uid, false, |_, state| {
                check(lease, &uid, state)?.renewal += 1;
                Ok(Then::Write(()))
            })?;
        }
        Ok(())
    }

    fn release(&self, lease: &Lease) -> Result<(), VaultError> {
        locked(&self.here).retain(|here| !lease.keys.iter().any(|key| here.has(key)));
        self.give_back(lease)
    }

    fn stage(&self, lease: &Lease, uid: &Uid, revision: Revision, attempt: &Attempt) -> Result<(), VaultError> {
        if attempt.format != STAGE_FORMAT {
            return Err(VaultError::NewerFormat { found: attempt.format, known: STAGE_FORMAT });
        }
        self.change(uid, false, |record, state| {
            check(lease, uid, state)?;
            if typed::content(record) != revision {
                return Err(VaultError::Stale(uid.clone()));
            }
            if state.attempt(&attempt.id).is_ok() {
                let what = format!("the attempt {} is staged already", attempt.id);
                return Err(VaultError::Conflict { uid: uid.clone(), what });
            }
            state.stage.push(copy_of(attempt)?);
            Ok(Then::Write(()))
        })?;
        let account = Some(attempt.plan.identity.to_string());
        self.notes.note(&AuditEvent { account, ..event("staged", Some(uid), Some(&attempt.id), None) })
    }

    fn read_back(&self, uid: &Uid, attempt: &str) -> Result<Attempt, VaultError> {
        self.fetch(uid)?.state.close(attempt)
    }

    fn permit(&self, lease: &Lease, uid: &Uid, attempt: &str, permit: &PermitGiven) -> Result<(), VaultError> {
        for (other, _) in lease.keys.iter().filter_map(|key| of_key(key)).filter(|(other, _)| other != uid) {
            self.change(&other, false, |_, state| {
                check(lease, &other, state)?.renewal += 1;
                Ok(Then::Write(()))
            })?;
        }
        let mut refund = None;
        self.held(lease, uid, Some(attempt), |state, _| {
            check(lease, uid, state)?.renewal += 1;
            let open = state.attempt(attempt)?;
            let is_the_first = open.permit.replace(permit.clone()).is_none();
            let own = open.plan.traits.lockout_sensitive && open.plan.admin.is_none();
            let identity = open.plan.identity.clone();
            refund = None;
            // A candidate that is sent again has had its count given back before.
            if is_the_first && own {
                match state.budget(&identity) {
                    Some(budget) => {
                        budget.spent.pop();
                    }
                    None => refund = Some(identity),
                }
            }
            Ok(("permitted", None))
        })?;
        locked(&self.permitted).insert(attempt.to_owned());
        refund.map_or(Ok(()), |identity| self.refund(&identity))
    }

    fn exclude(&self, lease: &Lease, uid: &Uid, attempt: &str, excluded: &Excluded) -> Result<(), VaultError> {
        self.held(lease, uid, Some(attempt), |state, _| {
            state.attempt(attempt)?.exclude(excluded);
            Ok(("excluded", Some(excluded.to_string())))
        })
    }

    fn minted(&self, lease: &Lease, uid: &Uid, attempt: &str, candidate: &Credential) -> Result<(), VaultError> {
        self.held(lease, uid, Some(attempt), |state, _| {
            let open = state.attempt(attempt)?;
            if open.candidate.as_ref().is_some_and(|known| !known.same_as(candidate)) {
                let what = "the attempt has another candidate already".to_owned();
                return Err(VaultError::Conflict { uid: uid.clone(), what });
            }
            open.candidate = Some(candidate.duplicate());
            Ok(("minted", None))
        })
    }

    /// The stage's own record comes last: cut short, the commit is made again.
    fn commit(
        &self,
        lease: &Lease,
        commit: &Commit<'_>,
        merge: &dyn Fn(&mut Record) -> Result<(), String>,
    ) -> Result<Revision, VaultError> {
        let (uid, name) = (commit.uid, commit.attempt);
        let mut found = self.fetch(uid)?;
        let attempt = found.state.close(name)?;
        if attempt.candidate.is_none() {
            return Err(VaultError::Conflict {
                uid: uid.clone(),
                what: format!("the attempt {name} has no candidate"),
            });
        }
        let replaced = &attempt.plan.current;
        let conflict = |uid: &Uid, what| VaultError::Conflict { uid: uid.clone(), what };
        let others: BTreeSet<&Uid> = commit.duplicates.iter().filter(|other| *other != uid).collect();
        // Whatever does not fit is found before the first record is written.
        let mut records = vec![found.record];
        let uids: Vec<Uid> = others.iter().copied().cloned().collect();
        if !uids.is_empty() {
            records.extend(self.fetch_all(&uids)?.into_iter().map(|found| found.record));
        }
        for record in &mut records {
            merge(record).map_err(|what| conflict(&record.uid.clone(), what))?;
            if !record.writable {
                return Err(VaultError::ReadOnly(record.uid.clone()));
            }
        }
        let into = |record: &mut Record, state: &mut State, uid: &Uid| {
            check(lease, uid, state)?;
            let old: Record = copy_of(record)?;
            merge(record).map_err(|what| conflict(uid, what))?;
            let typed_over = lost(&old, record, Keep::Everything, &[replaced]);
            state.previous("", typed_over, "rotated", now());
            Ok(())
        };
        for other in others {
            self.change(other, true, |record, state| {
                into(record, state, other)?;
                state.rotated(commit, other, &attempt, now());
                Ok(Then::Write(()))
            })?;
            self.notes.note(&event("committed with", Some(other), None, Some(format!("with record {uid}"))))?;
        }
        let revision = self.change(uid, true, |record, state| {
            into(record, state, uid)?;
            state.committed(commit, now())?;
            Ok(Then::Write(typed::content(record)))
        })?;
        locked(&self.permitted).remove(name);
        let identity = &attempt.plan.identity;
        let detail = commit.unverified.then(|| "without proof".to_owned());
        let account = Some(identity.to_string());
        self.notes.note(&AuditEvent { account, ..event("committed", Some(uid), Some(name), detail) })?;
        if self.counted_on(identity)?.as_ref() == Some(uid) {
            Ok(revision)
        } else {
            self.forgive(identity).map(|()| revision)
        }
    }

    fn erase(&self, lease: &Lease, uid: &Uid, attempt: &str, reason: &str) -> Result<(), VaultError> {
        self.held(lease, uid, Some(attempt), |state, _| {
            if state.attempt(attempt)?.permit.is_some() {
                let what = "the attempt had a permit: its candidate may be alive and is not erased".to_owned();
                return Err(VaultError::Conflict { uid: uid.clone(), what });
            }
            state.close(attempt)?;
            Ok(("erased", Some(reason.to_owned())))
        })
    }

    fn abandon(
        &self,
        lease: &Lease,
        uid: &Uid,
        attempt: &str,
        reason: &str,
        left: Option<&LeftBehind>,
    ) -> Result<(), VaultError> {
        self.held(lease, uid, Some(attempt), |state, now| {
            if let Some(LeftBehind { credential, due }) = left {
                let (previous, plan) = (credential.duplicate(), copy_of(&state.attempt(attempt)?.plan)?);
                let finish =
                    PendingFinish { attempt: attempt.to_owned(), due: *due, previous, plan, last_failure: None };
                state.pending.push(Waiting { since: now, finish });
            }
            state.abandon(attempt, reason, now)?;
            Ok(("abandoned", Some(reason.to_owned())))
        })?;
        locked(&self.permitted).remove(attempt);
        Ok(())
    }

    fn park(&self, lease: &Lease, uid: &Uid, attempt: Option<&str>, reason: &str) -> Result<(), VaultError> {
        self.held(lease, uid, attempt, |state, now| {
            match attempt {
                Some(attempt) => state.attempt(attempt)?.park(reason),
                None => state.parked = Some(Parked { reason: reason.to_owned(), at: now }),
            }
            Ok(("parked", Some(reason.to_owned())))
        })?;
        attempt.map(|attempt| locked(&self.permitted).remove(attempt));
        Ok(())
    }

    fn unpark(&self, lease: &Lease, uid: &Uid) -> Result<(), VaultError> {
        self.held(lease, uid, None, |state, _| {
            state.parked = None;
            Ok(("unparked", None))
        })
    }

    fn adopt(
        &self,
        lease: &Lease,
        uid: &Uid,
        credential: &Credential,
        why: &str,
        tell: Option<&Identity>,
        merge: &dyn Fn(&mut Record) -> Result<(), String>,
    ) -> Result<Revision, VaultError> {
        let (revision, adopted, abandoned) = self.change(uid, true, |record, state| {
            check(lease, uid, state)?;
            let old: Record = copy_of(record)?;
            merge(record).map_err(|what| VaultError::Conflict { uid: uid.clone(), what })?;
            let (mut known, mut adopted, mut abandoned) = (Vec::<Credential>::new(), None, Vec::new());
            for name in state.stage.iter().map(|open| open.id.clone()).collect::<Vec<_>>() {
                let open = state.attempt(&name)?;
                let current = open.plan.current.duplicate();
                let is_adopted =
                    adopted.is_none() && open.candidate.as_ref().is_some_and(|candidate| candidate.same_as(credential));
                // A staged plan may know more of what was current than the record's fields do.
                if !current.same_as(credential) && !known.iter().any(|known| known.same_as(&current)) {
                    state.previous(&name, current.duplicate(), why, now());
                    known.push(current);
                }
                if is_adopted {
                    let closed = state.close(&name)?;
                    state.forgive(&closed.plan.identity);
                    adopted = Some(name);
                } else {
                    state.abandon(&name, "another credential was adopted", now())?;
                    abandoned.push(name);
                }
            }
            let typed_over = lost(&old, record, Keep::Everything, &known.iter().collect::<Vec<_>>());
            state.previous("", typed_over, why, now());
            state.parked = None;
            (state.fate.drifted, state.fate.failed) = (None, None);
            state.untold = tell.map(|identity| Untold::at(now(), adopted.clone(), identity.clone()));
            Ok(Then::Write((typed::content(record), adopted, abandoned)))
        })?;
        for name in &abandoned {
            locked(&self.permitted).remove(name);
            let reason = Some("another credential was adopted".to_owned());
            self.notes.note(&event("abandoned", Some(uid), Some(name), reason))?;
        }
        if let Some(name) = &adopted {
            locked(&self.permitted).remove(name);
        }
        self.notes.note(&event("adopted", Some(uid), adopted.as_deref(), Some(why.to_owned())))?;
        Ok(revision)
    }

    fn history(&self, uid: &Uid) -> Result<Vec<Past>, VaultError> {
        Ok(self.fetch(uid)?.state.history.into_iter().rev().collect())
    }

    fn finished(&self, lease: &Lease, uid: &Uid, attempt: &str, outcome: CleanUp<'_>) -> Result<(), VaultError> {
        self.held(lease, uid, Some(attempt), |state, _| {
            let at = state.pending.iter().position(|waiting| waiting.finish.attempt == attempt);
            let Some(at) = at else {
                return Err(VaultError::NoAttempt(attempt.to_owned()));
            };
            let (what, failure) = match outcome {
                CleanUp::Done => {
                    state.pending.remove(at);
                    return Ok(("finished", None));
                }
                CleanUp::Waits => ("published", None),
                CleanUp::Failed(failure) => ("not finished", Some(failure.to_owned())),
            };
            if let Some(waiting) = state.pending.get_mut(at) {
                waiting.finish.last_failure.clone_from(&failure);
            }
            Ok((what, failure))
        })
    }

    fn told(&self, lease: &Lease, uid: &Uid, owed: Option<&Untold>, said: &str) -> Result<(), VaultError> {
        self.held(lease, uid, None, |state, _| {
            state.untold = owed.cloned();
            Ok((if owed.is_some() { "hooks failed" } else { "hooks run" }, Some(said.to_owned())))
        })
    }

    fn note(&self, uid: &Uid, note: &Note) -> Result<(), VaultError> {
        let noted = self.change(uid, false, |_, state| {
            let fate = &mut state.fate;
            Ok(Then::Write(match note.clone() {
                Note::Failed(why) => {
                    let times = fate.failed.as_ref().map_or(0, |failed| failed.times).saturating_add(1);
                    fate.failed = Some(Failed { at: now(), times, why: why.clone() });
                    ("failed", Some(why))
                }
                Note::Proven => {
                    (fate.asked_at, fate.drifted) = (Some(now()), None);
                    ("proven", None)
                }
                Note::Drifted(why) => {
                    (fate.asked_at, fate.drifted) = (Some(now()), Some(why.clone()));
                    ("drifted", Some(why))
                }
            }))
        });
        let (what, why) = noted?;
        self.notes.note(&event(what, Some(uid), None, why))
    }

    fn generation(&self) -> Result<Option<u64>, VaultError> {
        Ok(None)
    }

    /// Keys and earlier versions of records are the service's: a copy of ours
    /// could be put back by nobody.
    fn backup(&self, _to: &Path) -> Result<Backup, VaultError> {
        Ok(Backup::NotOurs { vault: self.place.clone() })
    }

    fn learn(&self, lease: &Lease, uid: &Uid, limits: &PasswordLimits) -> Result<(), VaultError> {
        self.held(lease, uid, None, |state, _| {
            state.learned = state.learned.and(limits);
            Ok(("learned", None))
        })
    }

    fn spend(&self, identity: &Identity, window_ms: u64, limit: u32) -> Result<(), VaultError> {
        let Some(uid) = self.counted_on(identity)? else {
            return self.notes.spend(identity, window_ms, limit);
        };
        self.change(&uid, false, |_, state| {
            if state.budget(identity).is_none() {
                state.budgets.push(Budget { identity: identity.clone(), spent: Vec::new() });
            }
            if let Some(budget) = state.budget(identity) {
                beside::spend(&mut budget.spent, Moment::called(now()), window_ms, limit)?;
            }
            Ok(Then::Write(()))
        })
    }

    fn refund(&self, identity: &Identity) -> Result<(), VaultError> {
        let Some(uid) = self.counted_on(identity)? else {
            return self.notes.budget(identity, |spent| {
                spent.pop();
                Ok(())
            });
        };
        self.change(&uid, false, |_, state| match state.budget(identity) {
            Some(budget) => {
                budget.spent.pop();
                Ok(Then::Write(()))
            }
            None => Ok(Then::Leave(())),
        })
    }

    fn forgive(&self, identity: &Identity) -> Result<(), VaultError> {
        let Some(uid) = self.counted_on(identity)? else {
            return self.notes.budget(identity, |spent| {
                spent.clear();
                Ok(())
            });
        };
        self.change(&uid, false, |_, state| {
            if state.budget(identity).is_none() {
                return Ok(Then::Leave(()));
            }
            state.forgive(identity);
            Ok(Then::Write(()))
        })
    }

    fn open_items(&self) -> Result<Vec<OpenItem>, VaultError> {
        Ok(self.listing(true)?.iter().flat_map(|listed| listed.open.iter().cloned()).collect())
    }

    fn audit(&self, event: &AuditEvent) -> Result<(), VaultError> {
        self.notes.note(event)
    }

    fn audit_rows(&self, from: u64, visit: &mut dyn FnMut(AuditRow) -> bool) -> Result<(), VaultError> {
        self.notes.rows(from, visit)
    }

    fn audit_verify(&self) -> Result<(u64, String), VaultError> {
        self.notes.verify()
    }
}

impl Here {
    /// Whether this lease excludes what is wanted.
    fn in_the_way(&self, wanted: &LeaseRequest) -> Option<Holder> {
        let record = wanted.records.iter().find(|uid| self.records.contains(uid) || self.admin.as_ref() == Some(uid));
        let admin = wanted.admin.iter().find(|uid| self.records.contains(uid));
        let account = self.account.is_some() && self.account == wanted.account;
        let uid = record.or(admin).or(if account { self.records.first() } else { None })?;
        Some(self.holder.of(uid))
    }

    fn has(&self, key: &[u8]) -> bool {
        of_key(key).is_some_and(|(uid, _)| self.records.contains(&uid))
    }
}

/// A state as it goes out. Where its record would be too long, credentials that
/// were replaced long ago are let go.
fn fitting(record: &Record, state: &mut State) -> Result<Secret, VaultError> {
    let unwritable = |_| VaultError::Storage { doing: "written", why: "a record cannot be written as JSON".to_owned() };
    loop {
        let text = state.written().map_err(unwritable)?;
        let length = typed::written(record, Some(&text)).map_err(unwritable)?.len();
        if length <= LONGEST {
            return Ok(text);
        }
        if !state.forget_oldest() {
            let why = format!(
                "record {} with all that stands beside it would have {length} bytes, and may have {LONGEST}",
                record.uid
            );
            return Err(VaultError::Storage { doing: "written", why });
        }
    }
}

/// Refuses a lease that was taken over.
fn check<'a>(lease: &Lease, uid: &Uid, state: &'a mut State) -> Result<&'a mut Held, VaultError> {
    let ours = lease.keys.iter().filter_map(|key| of_key(key)).find(|(held, _)| held == uid);
    match (&mut state.lease, ours) {
        (Some(held), Some((_, fence))) if held.fence == fence => Ok(held),
        _ => Err(VaultError::Fenced),
    }
}

/// Whether this is one of the holders that were watched, and has not moved since.
fn stood_still(holder: &Holder, seen: &[Holder]) -> bool {
    seen.iter().any(|seen| seen.key == holder.key && seen.fence == holder.fence && seen.renewal == holder.renewal)
}

/// A record's own fence goes with its name: fences of different records are not the same.
fn key(uid: &Uid, fence: u64) -> Vec<u8> {
    format!("{fence} {uid}").into_bytes()
}

fn of_key(key: &[u8]) -> Option<(Uid, u64)> {
    let (fence, uid) = std::str::from_utf8(key).ok()?.split_once(' ')?;
    Some((Uid::new(uid), fence.parse().ok()?))
}

/// What the store alone says of a record stays as it says.
fn copy_into(old: &mut Record, new: &Record) -> Result<(), VaultError> {
    let copy: Record = copy_of(new)?;
    old.title = copy.title;
    old.notes = copy.notes;
    old.body = copy.body;
    old.extra = copy.extra;
    Ok(())
}

/// Records on their way in: held until all of them are there, because a store
/// has no transaction over many records. What fails in the middle is repeated.
struct Importing<'a> {
    vault: &'a StoreVault,
    records: Vec<Record>,
}

impl Import for Importing<'_> {
    fn put(&mut self, record: &Record, _identities: &[Identity]) -> Result<(), VaultError> {
        // What cannot go in at all is told before anything goes in.
        if !matches!(record.body, Body::Typed(_)) {
            return Err(self.vault.typed_only(record));
        }
        self.records.push(copy_of(record)?);
        Ok(())
    }

    fn commit(self: Box<Self>) -> Result<(), VaultError> {
        let vault = self.vault;
        let there: BTreeSet<Uid> = vault.listing(true)?.iter().map(|listed| listed.summary.uid.clone()).collect();
        for record in &self.records {
            if there.contains(&record.uid) {
                vault.replace(record, None, false, "imported over")?;
            } else {
                vault.create(record, State::default())?;
            }
            vault.notes.note(&event("imported", Some(&record.uid), None, None))?;
        }
        Ok(())
    }
}

/// The same once more, as it would be read after it was written.
fn copy_of<T: DeserializeOwned>(value: &(impl Serialize + ?Sized)) -> Result<T, VaultError> {
    let mut json = Zeroizing::new(Vec::with_capacity(16 * 1024));
    let copied = serde_json::to_writer(&mut *json, value).and_then(|()| serde_json::from_slice(&json));
    copied.map_err(|_| VaultError::Storage { doing: "written", why: "a record cannot be written as JSON".to_owned() })
}

#[derive(Serialize)]
struct Put<'a> {
    uid: &'a Uid,
    revision: u64,
    data: typed::Whole<'a>,
    transaction: bool,
}

#[derive(Serialize)]
struct Creation<'a> {
    uid: &'a Uid,
    folder: Option<String>,
    data: typed::Whole<'a>,
}

/// A fault after which the program is started anew.
fn is_broken(fault: &Fault) -> bool {
    fault.kind == Kind::Internal && fault.applied == Applied::Unknown
}

fn remote(fault: Fault) -> VaultError {
    VaultError::Remote(Box::new(fault))
}

fn event(what: &str, uid: Option<&Uid>, attempt: Option<&str>, detail: Option<String>) -> AuditEvent {
    AuditEvent { what: what.to_owned(), uid: uid.cloned(), attempt: attempt.map(str::to_owned), account: None, detail }
}

fn random_name() -> Result<String, VaultError> {
    let mut name = [0u8; 8];
    getrandom::fill(&mut name).map_err(|_| VaultError::Storage {
        doing: "written",
        why: "the system's source of randomness failed".to_owned(),
    })?;
    Ok(typed::hexadecimal(&name))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Now, to the millisecond: what is written is what is read.
fn now() -> Timestamp {
    let now = Timestamp::now();
    now.round(Unit::Millisecond).unwrap_or(now)
}
