//! The embedded vault: one SQLite file in which everything is sealed.
//!
//! A change is one job of the writing thread (`writer.rs`): checked, written
//! and noted in the audit chain in one transaction, flushed before it is
//! answered. Reads go through connections of their own and never wait for it.
//! `seal.rs` says what is unreadable, `slots.rs` who holds a key, `host.rs` how
//! a copy is recognised, `rows.rs` and `leases.rs` what the tables mean,
//! `upkeep.rs` is backup, check and change of keys.
//!
//! What the file shows without a key: how many rows there are and how long,
//! revisions and states, which records share a title, name or account (not
//! which one), and when a past credential left.

mod audit;
mod broken;
mod file;
mod host;
mod import;
mod leases;
mod rows;
mod seal;
mod slots;
#[cfg(test)]
mod tests;
mod upkeep;
mod writer;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use jiff::{SignedDuration, Timestamp, Unit};
use rusqlite::Connection;
use turnlock_protocol::{Credential, PasswordLimits};
use zeroize::Zeroizing;

use self::audit::event;
use self::broken::{Broken, damaged};
use self::host::Doubt;
use self::import::Importing;
use self::rows::Written;
use self::seal::{Keys, random};
use self::slots::{Cost, Opened};
use self::writer::{After, Meta, Txn, View, Writer};
use crate::moment::Moment;
use crate::plan::Identity;
use crate::record::{Record, Uid};
use crate::stage::{Attempt, Excluded, Past, PastKind, PendingFinish, PermitGiven, STAGE_FORMAT, Untold};
use crate::vault::beside::{self, Keep, Parked, Waiting};
use crate::vault::{
    Acquired, AuditEvent, AuditRow, Backup, CleanUp, Commit, Failed, Holder, Import, Lease, LeaseRequest, LeftBehind,
    Note, OpenItem, Revision, Stored, Summary, Vault, VaultError,
};

pub use self::host::HostState;
pub use self::slots::{Key, Slot, make_key_file, make_recovery_key};
pub use self::upkeep::Checked;

/// How many idle reading connections are kept.
const IDLE_READERS: usize = 8;

/// Tries that follow each other so closely are those of one run, and count once.
const TRIES_OF_ONE_RUN: SignedDuration = SignedDuration::from_secs(60);

/// How often a merge is tried again when somebody else was faster.
const MERGES: usize = 8;

/// An open vault. It may be used from many threads at once, and several
/// programs may have the same file open.
pub struct LocalVault {
    // Before `shared`: the last connection to be closed is the writing one,
    // which leaves a single clean file behind.
    writer: Mutex<Option<Writer>>,
    shared: Arc<Shared>,
}

/// What the caller's threads and the writing thread both need.
struct Shared {
    file: file::Identified,
    host: HostState,
    keys: RwLock<Arc<Keys>>,
    opened: Mutex<Opened>,
    doubt: Mutex<Option<Doubt>>,
    commits: AtomicU64,
    readers: Mutex<Vec<Connection>>,
}

impl std::fmt::Debug for LocalVault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("LocalVault").field(&self.shared.file.path).finish()
    }
}

impl LocalVault {
    /// Makes a vault that any of these keys opens, and opens it with the first.
    ///
    /// # Errors
    /// [`VaultError::Exists`] where there is a file already; what the storage says.
    pub fn create(path: &Path, keys: &[Key], host: &HostState) -> Result<Self, VaultError> {
        Self::create_at_cost(path, keys, host, Cost::DEFAULT)
    }

    fn create_at_cost(path: &Path, keys: &[Key], host: &HostState, cost: Cost) -> Result<Self, VaultError> {
        let Some(first) = keys.first() else {
            return Err(VaultError::Storage { doing: "written", why: "a vault needs a key".to_owned() });
        };
        let prepared = keys.iter().map(|key| slots::prepare(key, cost)).collect::<Result<Vec<_>, _>>();
        let prepared = prepared.map_err(|broken| broken.at(path, "written"))?;
        let made = file::new_file(path, |unfinished| {
            let connection = file::lay_out(unfinished)?;
            let keys = Arc::new(Keys::new(random()?, 1, random()?.into()));
            let mut meta = Meta::first(keys.vault, keys.lookup("machine", &[host.machine()]))?;
            for slot in &prepared {
                slots::insert(&connection, &keys.vault, keys.data(), slot)?;
            }
            meta.slots = slots::digest(&connection)?;
            let view = View { connection: &connection, keys: Arc::clone(&keys), path: unfinished };
            meta.audit = audit::append(&view, 0, None, now(), event("created", None, None, None))?.number;
            meta.write(&connection, &keys)?;
            drop(view);
            file::close_whole(connection)
        });
        made.map_err(|broken| broken.at(path, "written"))?;
        Self::open(path, first, host)
    }

    /// Opens a vault. Nothing is written before the key was proven, and
    /// nothing by opening alone.
    ///
    /// # Errors
    /// [`VaultError::Missing`], [`VaultError::WrongKey`], [`VaultError::Damaged`],
    /// [`VaultError::NewerFormat`], [`VaultError::NetworkFilesystem`], or what
    /// the storage or the key file says.
    pub fn open(path: &Path, key: &Key, host: &HostState) -> Result<Self, VaultError> {
        let file = file::identify(path)?;
        let path = file.path.clone();
        let opened = (|| {
            let connection = file::reader(&path)?;
            file::recognise(&connection, &path)?;
            let before = Meta::read(&connection)?;
            let (opened, data) = slots::open(&connection, &before.vault, &path, key)?;
            // Stretching a passphrase takes long enough for somebody else to
            // commit; the facts and their proof are read together.
            connection.execute_batch("BEGIN")?;
            let meta = Meta::read(&connection)?;
            let keys = Arc::new(Keys::new(meta.vault, meta.epoch, data));
            meta.prove(&keys)?;
            if slots::digest(&connection)? != meta.slots {
                return Err(damaged("its key slots were altered"));
            }
            let view = View { connection: &connection, keys: Arc::clone(&keys), path: &path };
            audit::head(&view, meta.audit)?;
            drop(view);
            connection.execute_batch("COMMIT")?;
            let doubt = meta.doubt_of(&keys, host, &file);
            Ok(Shared {
                host: host.clone(),
                keys: RwLock::new(keys),
                opened: Mutex::new(opened),
                doubt: Mutex::new(doubt),
                commits: AtomicU64::new(0),
                readers: Mutex::new(vec![connection]),
                file,
            })
        })();
        let shared = opened.map_err(|broken: Broken| broken.at(&path, "read"))?;
        Ok(Self { writer: Mutex::new(None), shared: Arc::new(shared) })
    }

    /// The file, with all symbolic links resolved.
    pub fn path(&self) -> &Path {
        &self.shared.file.path
    }

    /// Declares this file to be the vault from now on, on this machine. The
    /// caller has verified the current credentials. Leases of the file's other
    /// life end; their fences can never come back.
    ///
    /// # Errors
    /// What the storage says.
    pub fn adopt_vault(&self) -> Result<(), VaultError> {
        self.write(After::Remember, |txn| {
            let why = txn.shared.doubt().map(Doubt::words);
            let reached = txn.shared.host.reached(&txn.meta.vault).unwrap_or_default();
            txn.meta.instance = random()?;
            txn.meta.machine = txn.view.keys.lookup("machine", &[txn.shared.host.machine()]);
            txn.meta.generation = txn.meta.generation.max(reached);
            txn.meta.fence += 1 << 32;
            txn.meta.doubt = None;
            txn.adopted = true;
            txn.shared.set_doubt(None);
            txn.view.connection.execute("DELETE FROM leases", ())?;
            txn.note(event("vault adopted", None, None, why))
        })
    }

    /// The key slots.
    ///
    /// # Errors
    /// What the storage says.
    pub fn slots(&self) -> Result<Vec<Slot>, VaultError> {
        self.read_view(|view| slots::list(view.connection))
    }

    /// Lets one more key open the vault; returns its slot's number.
    ///
    /// # Errors
    /// What the storage or the key file says.
    pub fn add_slot(&self, key: &Key) -> Result<u32, VaultError> {
        let prepared = slots::prepare(key, Cost::DEFAULT).map_err(|broken| broken.at(self.path(), "written"))?;
        self.write(After::Nothing, move |txn| {
            let slot = slots::insert(txn.view.connection, &txn.view.keys.vault, txn.view.keys.data(), &prepared)?.slot;
            txn.meta.slots = slots::digest(txn.view.connection)?;
            txn.note(event("key slot added", None, None, Some(format!("slot {slot}"))))?;
            Ok(slot)
        })
    }

    /// Takes a key's slot away. Whoever kept a copy of the file and that key
    /// can still open the copy, and anything sealed under the same data key:
    /// [`LocalVault::rekey`] ends that too.
    ///
    /// # Errors
    /// When it is the last one, or what the storage says.
    pub fn remove_slot(&self, slot: u32) -> Result<(), VaultError> {
        self.write(After::Nothing, move |txn| {
            slots::remove(txn.view.connection, slot)?;
            txn.meta.slots = slots::digest(txn.view.connection)?;
            txn.note(event("key slot removed", None, None, Some(format!("slot {slot}"))))
        })
    }

    /// How many transactions this handle has committed.
    pub fn commits(&self) -> u64 {
        self.shared.commits.load(Ordering::Relaxed)
    }

    /// Hands a job to the writing thread and waits until it is durable.
    fn write<T: Send + 'static>(
        &self,
        after: After,
        job: impl FnOnce(&mut Txn<'_>) -> Result<T, Broken> + Send + 'static,
    ) -> Result<T, VaultError> {
        self.queue(after, job)?.recv().unwrap_or_else(|_| Err(writer_gone()))
    }

    /// Hands a job to the writing thread; the answer comes when it is durable.
    fn queue<T: Send + 'static>(
        &self,
        after: After,
        job: impl FnOnce(&mut Txn<'_>) -> Result<T, Broken> + Send + 'static,
    ) -> Result<Receiver<Result<T, VaultError>>, VaultError> {
        let path = &self.shared.file.path;
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if writer.is_none() {
            *writer = Some(Writer::start(Arc::clone(&self.shared)).map_err(|broken| broken.at(path, "written"))?);
        }
        writer.as_ref().map(|writer| writer.queue(path.clone(), after, job)).ok_or_else(writer_gone)
    }

    /// Refuses a doubted file by reading alone. A writing connection would make
    /// SQLite end the log at its first damaged byte and throw the rest away,
    /// and the rest may hold the candidate that is live.
    fn refuse_in_doubt(&self) -> Result<(), VaultError> {
        if self.shared.doubt().is_none() {
            return Ok(());
        }
        let doubt = self.read_view(|view| {
            let meta = Meta::read(view.connection)?;
            meta.prove(&view.keys)?;
            Ok(meta.doubt_of(&view.keys, &self.shared.host, &self.shared.file))
        })?;
        doubt.map_or(Ok(()), |doubt| Err(VaultError::NotAdopted(doubt.words())))
    }

    /// One consistent look at the file.
    fn read_view<T>(&self, mut look: impl FnMut(&View<'_>) -> Result<T, Broken>) -> Result<T, VaultError> {
        let path = &self.shared.file.path;
        self.shared
            .with_reader(|connection| {
                // Somebody may replace the keys between a glance at them and the
                // beginning of the read; then the second glance sees the new ones.
                for _ in 0..2 {
                    let keys = self.shared.keys();
                    connection.execute_batch("BEGIN")?;
                    let epoch: Result<u64, _> =
                        connection.prepare_cached("SELECT epoch FROM meta")?.query_row((), |row| row.get(0));
                    let seen = match epoch {
                        Ok(epoch) if epoch == keys.epoch => Some(look(&View { connection, keys, path })),
                        Ok(_) => None,
                        Err(error) => Some(Err(error.into())),
                    };
                    let ended = connection.execute_batch("COMMIT");
                    if let Some(seen) = seen {
                        return seen.and_then(|seen| ended.map(|()| seen).map_err(Into::into));
                    }
                }
                Err(other_keys().into())
            })
            .map_err(|broken| broken.at(path, "read"))
    }

    /// Merges on the caller's thread and writes only if nobody was faster;
    /// otherwise merges again into what is there now.
    fn merge_and<T: Send + 'static, J>(
        &self,
        uids: &[&Uid],
        merge: &dyn Fn(&mut Record) -> Result<(), String>,
        mut job: impl FnMut(Vec<(Written, Revision)>) -> J,
    ) -> Result<T, VaultError>
    where
        J: FnOnce(&mut Txn<'_>) -> Result<T, Broken> + Send + 'static,
    {
        let mut last = None;
        for _ in 0..MERGES {
            let mut merged = Vec::with_capacity(uids.len());
            for uid in uids {
                let (mut record, identities, revision) = self.read_view(|view| {
                    let row = view.row(uid)?;
                    Ok((view.record(row)?, view.card(row)?.identities, row.revision))
                })?;
                merge(&mut record).map_err(|what| VaultError::Conflict { uid: (*uid).clone(), what })?;
                let written = Written::new(&record, &identities).map_err(|broken| broken.at(self.path(), "written"))?;
                merged.push((written, revision));
            }
            match self.write(After::Nothing, job(merged)) {
                Err(VaultError::Stale(uid)) => last = Some(uid),
                done => return done,
            }
        }
        Err(last.map_or_else(writer_gone, VaultError::Stale))
    }
}

impl Drop for LocalVault {
    fn drop(&mut self) {
        self.shared.readers.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Shared {
    fn with_reader<T>(&self, look: impl FnOnce(&Connection) -> Result<T, Broken>) -> Result<T, Broken> {
        let idle = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => file::reader(&self.file.path)?,
        };
        let seen = look(&connection);
        // One that is still inside a transaction would show old things forever.
        if connection.is_autocommit() {
            let mut idle = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < IDLE_READERS {
                idle.push(connection);
            }
        }
        seen
    }
}

impl Vault for LocalVault {
    fn list(&self, visit: &mut dyn FnMut(Summary) -> bool) -> Result<(), VaultError> {
        self.read_view(|view| view.summaries(None, visit))
    }

    fn find(&self, name: &str) -> Result<Vec<Summary>, VaultError> {
        self.read_view(|view| view.named(name))
    }

    fn read(&self, uid: &Uid) -> Result<Stored, VaultError> {
        self.read_view(|view| {
            let row = view.row(uid)?;
            let aside = view.aside(row.id)?;
            let record = view.record(row)?;
            if record.uid != *uid {
                return Err(damaged("a record stands under another record's name"));
            }
            Ok(Stored {
                record,
                revision: row.revision,
                stage: view.attempts(row.id)?.into_iter().map(|(_, attempt)| attempt).collect(),
                parked: aside.parked.map(|parked| parked.reason),
                pending: view.finishes(row.id)?.into_iter().map(|(_, waiting)| waiting.finish).collect(),
                untold: aside.untold,
                learned: aside.learned,
                rotated_at: aside.fate.rotated_at,
                unverified: aside.unverified,
            })
        })
    }

    fn same_account(&self, identity: &Identity) -> Result<Vec<Uid>, VaultError> {
        self.read_view(|view| view.of_account(identity))
    }

    fn put(
        &self,
        record: &Record,
        expected: Option<Revision>,
        identities: &[Identity],
        beside_open: bool,
    ) -> Result<Revision, VaultError> {
        let written = Written::new(record, identities).map_err(|broken| broken.at(self.path(), "written"))?;
        self.write(After::Nothing, move |txn| {
            let uid = written.uid.clone();
            let row = match (txn.view.find_row(&uid)?, expected) {
                (None, None) => {
                    txn.note(event("added", Some(&uid), None, None))?;
                    return Ok(txn.view.insert_record(&written, txn.now)?.revision);
                }
                (None, Some(_)) => return Err(VaultError::NoRecord(uid.to_string()).into()),
                (Some(row), Some(expected)) if row.revision == expected => row,
                (Some(_), _) => return Err(VaultError::Stale(uid).into()),
            };
            if !beside_open && txn.view.has_open(row.id)? {
                return Err(VaultError::OpenRotation(uid).into());
            }
            txn.note(event("edited", Some(&uid), None, None))?;
            Ok(txn.replace(row, &written, Keep::Secrets, &[], "edited")?.revision)
        })
    }

    fn import(&self) -> Result<Box<dyn Import + '_>, VaultError> {
        Ok(Box::new(Importing::begin(self)?))
    }

    fn receive(&self, stored: &Stored, history: &[Past], identities: &[Identity]) -> Result<(), VaultError> {
        let broken = |broken: Broken| broken.at(self.path(), "written");
        let written = Written::new(&stored.record, identities).map_err(broken)?;
        let json = |value: &dyn Fn() -> Result<Zeroizing<Vec<u8>>, Broken>| value().map_err(broken);
        let attempts: Vec<_> = stored
            .stage
            .iter()
            .map(|attempt| Ok((attempt.parked.is_some(), json(&|| seal::to_json(attempt))?)))
            .collect::<Result<_, VaultError>>()?;
        let history = json(&|| seal::to_json(&history))?;
        let pending = json(&|| seal::to_json(&stored.pending))?;
        let (learned, rotated_at, unverified) = (stored.learned.clone(), stored.rotated_at, stored.unverified);
        let (parked, untold) = (stored.parked.clone(), stored.untold.clone());
        self.write(After::Nothing, move |txn| {
            let uid = written.uid.clone();
            if txn.view.find_row(&uid)?.is_some() {
                return Err(VaultError::NotCopied { uid, what: "it is there already".to_owned() }.into());
            }
            let parked = parked.map(|reason| Parked { reason, at: txn.now });
            let row = txn.view.insert_record(&written, txn.now)?;
            let mut aside = txn.view.aside(row.id)?;
            aside.fate.rotated_at = rotated_at;
            let aside = rows::Aside { learned, unverified, parked, untold, ..aside };
            txn.view.put_aside(row.id, &aside)?;
            for (parked, json) in &attempts {
                txn.view.insert_attempt(row.id, *parked, json)?;
            }
            for past in seal::from_json::<Vec<Past>>(&history, "history")? {
                txn.view.put_past(None, row.id, &past)?;
            }
            for finish in seal::from_json::<Vec<PendingFinish>>(&pending, "finishes")? {
                txn.view.insert_finish(row.id, &Waiting { since: txn.now, finish })?;
            }
            txn.note(event("copied here", Some(&uid), None, None))
        })
    }

    fn delete(&self, uid: &Uid, expected: Revision) -> Result<(), VaultError> {
        let uid = uid.clone();
        self.write(After::Nothing, move |txn| {
            let row = txn.view.row(&uid)?;
            if row.revision != expected {
                return Err(VaultError::Stale(uid).into());
            }
            if txn.view.has_open(row.id)? {
                return Err(VaultError::OpenRotation(uid).into());
            }
            txn.view.connection.execute("DELETE FROM records WHERE id = ?", [row.id])?;
            txn.note(event("deleted", Some(&uid), None, None))
        })
    }

    fn acquire(&self, wanted: &LeaseRequest) -> Result<Acquired, VaultError> {
        self.refuse_in_doubt()?;
        let wanted = wanted.clone();
        self.write(After::Remember, move |txn| {
            txn.is_the_vault()?;
            leases::acquire(txn, &wanted)
        })
    }

    fn seize(&self, wanted: &LeaseRequest, seen: &[Holder]) -> Result<Acquired, VaultError> {
        self.refuse_in_doubt()?;
        let (wanted, seen) = (wanted.clone(), seen.to_vec());
        self.write(After::Remember, move |txn| {
            txn.is_the_vault()?;
            leases::seize(txn, &wanted, &seen)
        })
    }

    fn renew(&self, lease: &Lease) -> Result<(), VaultError> {
        let lease = lease.clone();
        self.write(After::Nothing, move |txn| leases::renew(&txn.view, &lease))
    }

    fn release(&self, lease: &Lease) -> Result<(), VaultError> {
        let lease = lease.clone();
        self.write(After::Nothing, move |txn| leases::release(&txn.view, &lease))
    }

    fn stage(&self, lease: &Lease, uid: &Uid, revision: Revision, attempt: &Attempt) -> Result<(), VaultError> {
        if attempt.format != STAGE_FORMAT {
            return Err(VaultError::NewerFormat { found: attempt.format, known: STAGE_FORMAT });
        }
        let json = seal::to_json(attempt).map_err(|broken| broken.at(self.path(), "written"))?;
        let (lease, uid, name) = (lease.clone(), uid.clone(), attempt.id.clone());
        let (parked, account) = (attempt.parked.is_some(), attempt.plan.identity.to_string());
        self.write(After::Nothing, move |txn| {
            leases::check_for(&txn.view, &lease, &uid)?;
            let row = txn.view.row(&uid)?;
            if row.revision != revision {
                return Err(VaultError::Stale(uid).into());
            }
            if txn.view.attempts(row.id)?.iter().any(|(_, open)| open.id == name) {
                let what = format!("the attempt {name} is staged already");
                return Err(VaultError::Conflict { uid, what }.into());
            }
            txn.view.insert_attempt(row.id, parked, &json)?;
            txn.note(AuditEvent { account: Some(account), ..event("staged", Some(&uid), Some(&name), None) })
        })
    }

    fn read_back(&self, uid: &Uid, attempt: &str) -> Result<Attempt, VaultError> {
        let path = &self.shared.file.path;
        let read = || {
            let connection = file::reader(path)?;
            connection.execute_batch("BEGIN")?;
            let meta = Meta::read(&connection)?;
            let data = {
                let opened = self.shared.opened.lock().unwrap_or_else(PoisonError::into_inner);
                slots::reopen(&connection, &meta.vault, path, &opened)?
            };
            let keys = Keys::new(meta.vault, meta.epoch, data);
            meta.prove(&keys)?;
            let view = View { connection: &connection, keys: Arc::new(keys), path };
            Ok(view.attempt(view.row(uid)?.id, attempt)?.1)
        };
        self.shared.file.still_there()?;
        read().map_err(|broken: Broken| broken.at(path, "read"))
    }

    fn permit(&self, lease: &Lease, uid: &Uid, attempt: &str, permit: &PermitGiven) -> Result<(), VaultError> {
        let permit = permit.clone();
        self.on_attempt(lease, uid, attempt, move |txn, held| {
            leases::renew(&txn.view, held.lease)?;
            let mut open = held.open;
            // A candidate that is sent again has had its count given back before.
            let is_the_first = open.permit.replace(permit).is_none();
            txn.view.put_attempt(held.record, held.id, &open)?;
            if is_the_first && open.plan.traits.lockout_sensitive && open.plan.admin.is_none() {
                txn.view.refund(&open.plan.identity)?;
            }
            Ok(("permitted", None))
        })
    }

    fn exclude(&self, lease: &Lease, uid: &Uid, attempt: &str, excluded: &Excluded) -> Result<(), VaultError> {
        let excluded = excluded.clone();
        self.on_attempt(lease, uid, attempt, move |txn, held| {
            let mut open = held.open;
            open.exclude(&excluded);
            txn.view.put_attempt(held.record, held.id, &open)?;
            Ok(("excluded", Some(excluded.to_string())))
        })
    }

    fn minted(&self, lease: &Lease, uid: &Uid, attempt: &str, candidate: &Credential) -> Result<(), VaultError> {
        let candidate = candidate.duplicate();
        let named = uid.clone();
        self.on_attempt(lease, uid, attempt, move |txn, held| {
            let mut open = held.open;
            if open.candidate.as_ref().is_some_and(|known| !known.same_as(&candidate)) {
                let what = "the attempt has another candidate already".to_owned();
                return Err(VaultError::Conflict { uid: named, what }.into());
            }
            open.candidate = Some(candidate);
            txn.view.put_attempt(held.record, held.id, &open)?;
            Ok(("minted", None))
        })
    }

    fn commit(
        &self,
        lease: &Lease,
        commit: &Commit<'_>,
        merge: &dyn Fn(&mut Record) -> Result<(), String>,
    ) -> Result<Revision, VaultError> {
        let mut uids = vec![commit.uid];
        for uid in commit.duplicates {
            if !uids.contains(&uid) {
                uids.push(uid);
            }
        }
        self.merge_and(&uids, merge, |merged| {
            let (lease, name) = (lease.clone(), commit.attempt.to_owned());
            let (unverified, due) = (commit.unverified, commit.finish_due);
            move |txn| {
                let Some((first, _)) = merged.first() else {
                    return Err(damaged("nothing to commit"));
                };
                let uid = first.uid.clone();
                let stage = txn.view.row(&uid)?;
                let (id, attempt) = txn.view.attempt(stage.id, &name)?;
                if attempt.candidate.is_none() {
                    return Err(
                        VaultError::Conflict { uid, what: format!("the attempt {name} has no candidate") }.into()
                    );
                }
                let mut revision = 0;
                for (written, expected) in &merged {
                    leases::check_for(&txn.view, &lease, &written.uid)?;
                    let row = txn.current_row(&written.uid, *expected)?;
                    if !attempt.plan.current.is_empty() {
                        let past = Past {
                            number: 0,
                            at: txn.now,
                            kind: PastKind::Previous,
                            attempt: name.clone(),
                            credential: attempt.plan.current.duplicate(),
                            plan: None,
                            reason: "rotated".to_owned(),
                        };
                        txn.remember(row.id, past)?;
                    }
                    let now = txn.replace(row, written, Keep::Everything, &[&attempt.plan.current], "rotated")?;
                    let mut aside = txn.view.aside(row.id)?;
                    aside.fate.rotated_at = Some(txn.now);
                    if !unverified {
                        aside.fate.asked_at = Some(txn.now);
                    }
                    aside.fate.drifted = None;
                    aside.fate.failed = None;
                    aside.unverified = unverified;
                    aside.parked = None;
                    // Whoever was to be told of an earlier credential is told of this one.
                    aside.untold = attempt
                        .tell
                        .contains(&written.uid)
                        .then(|| Untold::at(txn.now, Some(name.clone()), attempt.plan.identity.clone()));
                    txn.view.put_aside(row.id, &aside)?;
                    if written.uid == uid {
                        revision = now.revision;
                    } else {
                        txn.note(event(
                            "committed with",
                            Some(&written.uid),
                            None,
                            Some(format!("with record {uid}")),
                        ))?;
                    }
                }
                txn.view.close_attempt(stage.id, id)?;
                txn.view.forget_budget(&attempt.plan.identity)?;
                let account = attempt.plan.identity.to_string();
                if let Some(due) = due {
                    let finish = PendingFinish {
                        attempt: name.clone(),
                        due,
                        previous: attempt.plan.current.duplicate(),
                        plan: attempt.plan,
                        last_failure: None,
                    };
                    txn.view.insert_finish(stage.id, &Waiting { since: txn.now, finish })?;
                }
                let detail = unverified.then(|| "without proof".to_owned());
                txn.note(AuditEvent { account: Some(account), ..event("committed", Some(&uid), Some(&name), detail) })?;
                Ok(revision)
            }
        })
    }

    fn erase(&self, lease: &Lease, uid: &Uid, attempt: &str, reason: &str) -> Result<(), VaultError> {
        let (named, reason) = (uid.clone(), reason.to_owned());
        self.on_attempt(lease, uid, attempt, move |txn, held| {
            if held.open.permit.is_some() {
                let what = "the attempt had a permit: its candidate may be alive and is not erased".to_owned();
                return Err(VaultError::Conflict { uid: named, what }.into());
            }
            txn.view.close_attempt(held.record, held.id)?;
            Ok(("erased", Some(reason)))
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
        let reason = reason.to_owned();
        let left = left.map(|left| (left.credential.duplicate(), left.due));
        self.on_attempt(lease, uid, attempt, move |txn, held| {
            // The history takes the plan that is held; this is another copy.
            let again = txn.view.attempts(held.record)?.into_iter().find(|(id, _)| *id == held.id);
            if let (Some((previous, due)), Some((_, Attempt { id: attempt, plan, .. }))) = (left, again) {
                let finish = PendingFinish { attempt, due, previous, plan, last_failure: None };
                txn.view.insert_finish(held.record, &Waiting { since: txn.now, finish })?;
            }
            txn.abandon(held.record, held.id, held.open, &reason)?;
            Ok(("abandoned", Some(reason)))
        })
    }

    fn park(&self, lease: &Lease, uid: &Uid, attempt: Option<&str>, reason: &str) -> Result<(), VaultError> {
        let reason = reason.to_owned();
        if let Some(attempt) = attempt {
            return self.on_attempt(lease, uid, attempt, move |txn, held| {
                let mut open = held.open;
                open.park(&reason);
                txn.view.put_attempt(held.record, held.id, &open)?;
                Ok(("parked", Some(reason)))
            });
        }
        self.on_record(lease, uid, move |txn, record| {
            let mut aside = txn.view.aside(record)?;
            aside.parked = Some(Parked { reason: reason.clone(), at: txn.now });
            txn.view.put_aside(record, &aside)?;
            Ok(("parked", Some(reason)))
        })
    }

    fn unpark(&self, lease: &Lease, uid: &Uid) -> Result<(), VaultError> {
        self.on_record(lease, uid, |txn, record| {
            let mut aside = txn.view.aside(record)?;
            aside.parked = None;
            txn.view.put_aside(record, &aside)?;
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
        self.merge_and(&[uid], merge, |mut merged| {
            let (lease, why, credential) = (lease.clone(), why.to_owned(), credential.duplicate());
            let tell = tell.cloned();
            let merged = merged.pop();
            move |txn| {
                let Some((written, expected)) = merged else {
                    return Err(damaged("nothing to adopt into"));
                };
                let uid = written.uid.clone();
                leases::check_for(&txn.view, &lease, &uid)?;
                let row = txn.current_row(&uid, expected)?;
                // What was current is what the record held; `replace` keeps it.
                // A staged plan may know more of it than the record's fields do.
                let mut known: Vec<Credential> = Vec::new();
                let mut adopted = None;
                for (id, attempt) in txn.view.attempts(row.id)? {
                    let current = &attempt.plan.current;
                    let new = !current.is_empty()
                        && !current.same_as(&credential)
                        && !known.iter().any(|known| known.same_as(current));
                    if new {
                        known.push(current.duplicate());
                        let past = Past {
                            number: 0,
                            at: txn.now,
                            kind: PastKind::Previous,
                            attempt: attempt.id.clone(),
                            credential: current.duplicate(),
                            plan: None,
                            reason: why.clone(),
                        };
                        txn.remember(row.id, past)?;
                    }
                    if adopted.is_none()
                        && attempt.candidate.as_ref().is_some_and(|candidate| candidate.same_as(&credential))
                    {
                        txn.view.close_attempt(row.id, id)?;
                        txn.view.forget_budget(&attempt.plan.identity)?;
                        adopted = Some(attempt.id);
                    } else {
                        let name = attempt.id.clone();
                        let reason = "another credential was adopted";
                        txn.abandon(row.id, id, attempt, reason)?;
                        txn.note(event("abandoned", Some(&uid), Some(&name), Some(reason.to_owned())))?;
                    }
                }
                let row = txn.replace(row, &written, Keep::Everything, &known.iter().collect::<Vec<_>>(), &why)?;
                let mut aside = txn.view.aside(row.id)?;
                aside.parked = None;
                aside.fate.drifted = None;
                aside.fate.failed = None;
                aside.untold = tell.map(|identity| Untold::at(txn.now, adopted.clone(), identity));
                txn.view.put_aside(row.id, &aside)?;
                txn.note(event("adopted", Some(&uid), adopted.as_deref(), Some(why)))?;
                Ok(row.revision)
            }
        })
    }

    fn history(&self, uid: &Uid) -> Result<Vec<Past>, VaultError> {
        self.read_view(|view| Ok(view.history(view.row(uid)?.id)?.into_iter().map(|(_, past)| past).collect()))
    }

    fn finished(&self, lease: &Lease, uid: &Uid, attempt: &str, outcome: CleanUp<'_>) -> Result<(), VaultError> {
        let attempt = attempt.to_owned();
        let (what, failure) = match outcome {
            CleanUp::Done => ("finished", None),
            CleanUp::Waits => ("published", None),
            CleanUp::Failed(failure) => ("not finished", Some(failure.to_owned())),
        };
        let (lease, uid) = (lease.clone(), uid.clone());
        self.write(After::Nothing, move |txn| {
            leases::check_for(&txn.view, &lease, &uid)?;
            let record = txn.view.row(&uid)?.id;
            let waiting = txn.view.finishes(record)?.into_iter().find(|(_, waiting)| waiting.finish.attempt == attempt);
            let Some((id, mut waiting)) = waiting else {
                return Err(VaultError::NoAttempt(attempt).into());
            };
            if what == "finished" {
                txn.view.close_finish(record, id)?;
            } else {
                waiting.finish.last_failure.clone_from(&failure);
                txn.view.put_finish(record, id, &waiting)?;
            }
            txn.note(event(what, Some(&uid), Some(&attempt), failure))
        })
    }

    fn told(&self, lease: &Lease, uid: &Uid, owed: Option<&Untold>, said: &str) -> Result<(), VaultError> {
        let (owed, said) = (owed.cloned(), said.to_owned());
        self.on_record(lease, uid, move |txn, record| {
            let mut aside = txn.view.aside(record)?;
            let what = if owed.is_some() { "hooks failed" } else { "hooks run" };
            aside.untold = owed;
            txn.view.put_aside(record, &aside)?;
            Ok((what, Some(said)))
        })
    }

    fn learn(&self, lease: &Lease, uid: &Uid, limits: &PasswordLimits) -> Result<(), VaultError> {
        let limits = limits.clone();
        self.on_record(lease, uid, move |txn, record| {
            let mut aside = txn.view.aside(record)?;
            aside.learned = aside.learned.and(&limits);
            txn.view.put_aside(record, &aside)?;
            Ok(("learned", None))
        })
    }

    fn spend(&self, identity: &Identity, window_ms: u64, limit: u32) -> Result<(), VaultError> {
        let identity = identity.clone();
        self.write(After::Nothing, move |txn| {
            let mut budget = txn.view.budget(&identity)?;
            beside::spend(&mut budget.spent, Moment::called(txn.now), window_ms, limit)?;
            txn.view.put_budget(&budget)
        })
    }

    fn refund(&self, identity: &Identity) -> Result<(), VaultError> {
        let identity = identity.clone();
        self.write(After::Nothing, move |txn| txn.view.refund(&identity))
    }

    fn forgive(&self, identity: &Identity) -> Result<(), VaultError> {
        let identity = identity.clone();
        self.write(After::Nothing, move |txn| txn.view.forget_budget(&identity))
    }

    fn note(&self, uid: &Uid, note: &Note) -> Result<(), VaultError> {
        self.refuse_in_doubt()?;
        let (uid, note) = (uid.clone(), note.clone());
        self.write(After::Nothing, move |txn| {
            let record = txn.view.row(&uid)?.id;
            let mut aside = txn.view.aside(record)?;
            let fate = &mut aside.fate;
            let (what, why) = match note {
                Note::Failed(why) => {
                    let times = match &fate.failed {
                        None => 1,
                        Some(before) if txn.now.duration_since(before.at) < TRIES_OF_ONE_RUN => before.times,
                        Some(before) => before.times.saturating_add(1),
                    };
                    fate.failed = Some(Failed { at: txn.now, times, why: why.clone() });
                    ("failed", Some(why))
                }
                Note::Proven => {
                    (fate.asked_at, fate.drifted) = (Some(txn.now), None);
                    ("proven", None)
                }
                Note::Drifted(why) => {
                    (fate.asked_at, fate.drifted) = (Some(txn.now), Some(why.clone()));
                    ("drifted", Some(why))
                }
            };
            txn.view.put_aside(record, &aside)?;
            txn.note(event(what, Some(&uid), None, why))
        })
    }

    fn generation(&self) -> Result<Option<u64>, VaultError> {
        self.read_view(|view| {
            Ok(view.connection.prepare_cached("SELECT generation FROM meta")?.query_row((), |row| row.get(0))?)
        })
    }

    fn backup(&self, to: &Path) -> Result<Backup, VaultError> {
        Self::backup(self, to).map(|()| Backup::Made(to.to_owned()))
    }

    fn adopt_required(&self) -> Option<String> {
        self.shared.doubt().map(Doubt::words)
    }

    fn open_items(&self) -> Result<Vec<OpenItem>, VaultError> {
        self.read_view(|view| view.open_items())
    }

    fn audit(&self, event: &AuditEvent) -> Result<(), VaultError> {
        let event = event.clone();
        self.write(After::Nothing, move |txn| txn.note(event))
    }

    fn audit_rows(&self, from: u64, visit: &mut dyn FnMut(AuditRow) -> bool) -> Result<(), VaultError> {
        self.read_view(|view| audit::rows(view, from, &mut |row| Ok(visit(row))))
    }

    fn audit_verify(&self) -> Result<(u64, String), VaultError> {
        self.read_view(|view| {
            let meta = Meta::read(view.connection)?;
            meta.prove(&view.keys)?;
            audit::verify(view, meta.audit)
        })
    }
}

/// An open attempt inside a transaction that its lease still allows.
struct HeldAttempt<'a> {
    lease: &'a Lease,
    record: u64,
    id: u64,
    open: Attempt,
}

/// What to note in the audit chain, and why.
type Noted = (&'static str, Option<String>);

impl LocalVault {
    /// Changes one open attempt of a record that the lease holds alone.
    fn on_attempt(
        &self,
        lease: &Lease,
        uid: &Uid,
        attempt: &str,
        job: impl FnOnce(&mut Txn<'_>, HeldAttempt<'_>) -> Result<Noted, Broken> + Send + 'static,
    ) -> Result<(), VaultError> {
        let (lease, uid, name) = (lease.clone(), uid.clone(), attempt.to_owned());
        self.write(After::Nothing, move |txn| {
            leases::check_for(&txn.view, &lease, &uid)?;
            let record = txn.view.row(&uid)?.id;
            let (id, open) = txn.view.attempt(record, &name)?;
            let account = Some(open.plan.identity.to_string());
            let (what, detail) = job(txn, HeldAttempt { lease: &lease, record, id, open })?;
            txn.note(AuditEvent { account, ..event(what, Some(&uid), Some(&name), detail) })
        })
    }

    /// Changes what stands beside a record that the lease holds alone.
    fn on_record(
        &self,
        lease: &Lease,
        uid: &Uid,
        job: impl FnOnce(&mut Txn<'_>, u64) -> Result<Noted, Broken> + Send + 'static,
    ) -> Result<(), VaultError> {
        let (lease, uid) = (lease.clone(), uid.clone());
        self.write(After::Nothing, move |txn| {
            leases::check_for(&txn.view, &lease, &uid)?;
            let record = txn.view.row(&uid)?.id;
            let (what, detail) = job(txn, record)?;
            txn.note(event(what, Some(&uid), None, detail))
        })
    }
}

impl Txn<'_> {
    /// Refuses to rotate with a copy: what it holds may be older than what the
    /// targets accept. Asked again before every lease, because the file may
    /// have been replaced, and the machine's memory advanced, since opening.
    fn is_the_vault(&self) -> Result<(), Broken> {
        let doubt = self.judge();
        self.shared.set_doubt(doubt);
        doubt.map_or(Ok(()), |doubt| Err(VaultError::NotAdopted(doubt.words()).into()))
    }

    fn current_row(&self, uid: &Uid, expected: Revision) -> Result<rows::Row, Broken> {
        let row = self.view.row(uid)?;
        if row.revision != expected {
            return Err(VaultError::Stale(uid.clone()).into());
        }
        Ok(row)
    }

    /// Closes an attempt; its candidate, if it has one, stays in the history.
    fn abandon(&mut self, record: u64, id: u64, attempt: Attempt, reason: &str) -> Result<(), Broken> {
        if let Some(credential) = attempt.candidate {
            let past = Past {
                number: 0,
                at: self.now,
                kind: PastKind::Abandoned,
                attempt: attempt.id,
                credential,
                plan: Some(attempt.plan),
                reason: reason.to_owned(),
            };
            self.remember(record, past)?;
        }
        self.view.close_attempt(record, id)
    }
}

/// Now, to the millisecond: what is written is what is read.
fn now() -> Timestamp {
    let now = Timestamp::now();
    now.round(Unit::Millisecond).unwrap_or(now)
}

fn other_keys() -> VaultError {
    VaultError::Storage { doing: "read", why: "another program gave the vault new keys; open it again".to_owned() }
}

fn writer_gone() -> VaultError {
    VaultError::Storage { doing: "written", why: "its writing thread has ended".to_owned() }
}
