//! One thread writes; callers queue, and whoever queues while a commit is
//! being flushed shares the next one.
//!
//! Each job runs in a savepoint of its own, so that one that fails takes
//! nothing with it. All answers are given after the one commit: an answer is a
//! durable fact.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;

use hmac::Mac;
use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::Shared;
use super::broken::{Broken, again, damaged};
use super::host::{Doubt, HostState, Mark};
use super::seal::{Keys, hex, random};
use super::{audit, file};
use crate::vault::{AuditEvent, VaultError};

/// The most jobs in one commit, so that the first of them need not wait long.
const BATCH: usize = 256;

/// The vault's facts about itself: one row, proven under the data key.
#[derive(Debug, Clone)]
pub(super) struct Meta {
    pub(super) format: u32,
    pub(super) vault: [u8; 16],
    pub(super) instance: [u8; 16],
    pub(super) machine: [u8; 16],
    pub(super) epoch: u64,
    pub(super) generation: u64,
    pub(super) tip: [u8; 16],
    pub(super) fence: u64,
    pub(super) audit: u64,
    pub(super) doubt: Option<Doubt>,
    pub(super) slots: [u8; 32],
    proof: Vec<u8>,
}

impl Meta {
    /// The facts of a vault that is just being made.
    pub(super) fn first(vault: [u8; 16], machine: [u8; 16]) -> Result<Self, Broken> {
        Ok(Self {
            format: file::FORMAT,
            vault,
            instance: random()?,
            machine,
            epoch: 1,
            generation: 0,
            tip: random()?,
            fence: 0,
            audit: 0,
            doubt: None,
            slots: [0; 32],
            proof: Vec::new(),
        })
    }

    /// As the file says; nothing of it is believed before [`Meta::prove`].
    pub(super) fn read(connection: &Connection) -> Result<Self, Broken> {
        let mut select = connection.prepare_cached(
            "SELECT format, vault, instance, machine, epoch, generation, tip, fence, audit, doubt, slots, proof FROM meta",
        )?;
        Ok(select.query_row((), |row| {
            Ok(Self {
                format: row.get(0)?,
                vault: row.get(1)?,
                instance: row.get(2)?,
                machine: row.get(3)?,
                epoch: row.get(4)?,
                generation: row.get(5)?,
                tip: row.get(6)?,
                fence: row.get(7)?,
                audit: row.get(8)?,
                doubt: Doubt::of_number(row.get(9)?),
                slots: row.get(10)?,
                proof: row.get(11)?,
            })
        })?)
    }

    pub(super) fn prove(&self, keys: &Keys) -> Result<(), Broken> {
        keys.meta_proof(&self.facts()).verify_slice(&self.proof).map_err(|_| damaged("its own facts were altered"))
    }

    pub(super) fn write(&mut self, connection: &Connection, keys: &Keys) -> Result<(), Broken> {
        self.proof = keys.meta_proof(&self.facts()).finalize().into_bytes().to_vec();
        connection
            .prepare_cached("INSERT OR REPLACE INTO meta VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")?
            .execute(params![
                self.format,
                self.vault,
                self.instance,
                self.machine,
                self.epoch,
                self.generation,
                self.tip,
                self.fence,
                self.audit,
                Doubt::number(self.doubt),
                self.slots,
                self.proof
            ])?;
        Ok(())
    }

    /// Why the file with these facts is not taken for the vault.
    pub(super) fn doubt_of(&self, keys: &Keys, host: &HostState, file: &file::Identified) -> Option<Doubt> {
        self.doubt.or_else(|| {
            let ours = self.machine == keys.lookup("machine", &[host.machine()]);
            host.judge(&self.vault, ours, file, &self.mark())
        })
    }

    pub(super) fn mark(&self) -> Mark {
        Mark { instance: hex(&self.instance), generation: self.generation, tip: hex(&self.tip) }
    }

    fn facts(&self) -> Vec<u8> {
        let mut facts = Vec::with_capacity(160);
        facts.extend_from_slice(&self.format.to_be_bytes());
        for id in [&self.vault, &self.instance, &self.machine, &self.tip] {
            facts.extend_from_slice(id);
        }
        for number in [self.epoch, self.generation, self.fence, self.audit, Doubt::number(self.doubt).into()] {
            facts.extend_from_slice(&number.to_be_bytes());
        }
        facts.extend_from_slice(&self.slots);
        facts
    }
}

/// A consistent look at the file with the keys that fit it.
pub(super) struct View<'a> {
    pub(super) connection: &'a Connection,
    pub(super) keys: Arc<Keys>,
    pub(super) path: &'a Path,
}

/// A transaction under way.
pub(super) struct Txn<'a> {
    pub(super) view: View<'a>,
    pub(super) meta: Meta,
    pub(super) now: Timestamp,
    pub(super) shared: &'a Shared,
    /// The audit row that this transaction wrote last.
    pub(super) audited: Option<audit::Head>,
    /// The key slot to read back with from now on, when the keys change.
    pub(super) opened: Option<super::slots::Opened>,
    /// A person has just declared this file to be the vault.
    pub(super) adopted: bool,
}

impl Txn<'_> {
    /// Why this file is not taken for the vault: the file itself knows, or
    /// this machine's memory tells.
    pub(super) fn judge(&self) -> Option<Doubt> {
        if self.adopted {
            return None;
        }
        self.meta.doubt_of(&self.view.keys, &self.shared.host, &self.shared.file)
    }

    /// Appends what happened to the audit chain.
    pub(super) fn note(&mut self, event: AuditEvent) -> Result<(), Broken> {
        let head = audit::append(&self.view, self.meta.audit, self.audited.take(), self.now, event)?;
        self.meta.audit = head.number;
        self.audited = Some(head);
        Ok(())
    }
}

/// Why a job needs more than its commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// It does not.
    Nothing,
    /// It grants leases: this machine must first remember how far the vault is.
    Remember,
}

type Reply = Box<dyn FnOnce(Result<(), VaultError>) + Send>;
/// Runs in a transaction, or hears why there is none; either way there is a reply.
type Work = Box<dyn FnOnce(Result<&mut Txn<'_>, VaultError>) -> (bool, Reply) + Send>;

struct Job {
    after: After,
    work: Work,
}

/// The writing thread, from the first change until the vault is closed.
pub(super) struct Writer {
    queue: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(shared: Arc<Shared>) -> Result<Self, Broken> {
        if shared.doubt() == Some(Doubt::Restored) {
            file::keep_log(&shared.file.path)
                .map_err(|error| super::broken::io(&error, &shared.file.path, "written"))?;
        }
        let connection = file::writer(&shared.file.path)?;
        let (queue, jobs) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("vault".to_owned())
            .spawn(move || write_all(&shared, connection, &jobs))
            .map_err(|error| VaultError::Storage { doing: "written", why: error.to_string() })?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    /// Queues a job; the answer comes through the receiver after its commit.
    pub(super) fn queue<T: Send + 'static>(
        &self,
        path: std::path::PathBuf,
        after: After,
        job: impl FnOnce(&mut Txn<'_>) -> Result<T, Broken> + Send + 'static,
    ) -> Receiver<Result<T, VaultError>> {
        let (answer, answered) = mpsc::sync_channel(1);
        let work: Work = Box::new(move |txn| match txn.map_err(Broken::Vault).and_then(job) {
            Ok(value) => (true, Box::new(move |committed| drop(answer.send(committed.map(|()| value))))),
            Err(error) => {
                let error = error.at(&path, "written");
                (false, Box::new(move |_| drop(answer.send(Err(error)))))
            }
        });
        // Without a thread the job is dropped, and the receiver tells.
        if let Some(queue) = &self.queue {
            let _ = queue.send(Job { after, work });
        }
        answered
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn write_all(shared: &Shared, connection: Connection, jobs: &Receiver<Job>) {
    while let Ok(first) = jobs.recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH
            && let Ok(job) = jobs.try_recv()
        {
            batch.push(job);
        }
        one_commit(shared, &connection, batch);
    }
    remember_at_close(shared, &connection);
}

/// Runs a batch in one transaction, and answers when it is durable.
fn one_commit(shared: &Shared, connection: &Connection, batch: Vec<Job>) {
    let mut replies: Vec<(After, bool, Reply)> = Vec::with_capacity(batch.len());
    let mut waiting = batch.into_iter();
    let ended = transaction(shared, connection, &mut waiting, &mut replies)
        .map_err(|broken| broken.at(&shared.file.path, "written"));
    if ended.is_err() && !connection.is_autocommit() {
        let _ = connection.execute_batch("ROLLBACK");
    }
    match &ended {
        Ok(done) => {
            let remembered = match done {
                Some(done) if replies.iter().any(|(after, ok, _)| *ok && *after == After::Remember) => {
                    remember(shared, connection, done)
                }
                _ => Ok(()),
            };
            for (after, _, reply) in replies {
                match &remembered {
                    Err(error) if after == After::Remember => reply(Err(again(error))),
                    _ => reply(Ok(())),
                }
            }
        }
        Err(error) => {
            for (_, _, reply) in replies {
                reply(Err(again(error)));
            }
            for job in waiting {
                let (_, reply) = (job.work)(Err(again(error)));
                reply(Ok(()));
            }
        }
    }
}

/// What a transaction did that the host's memory needs to know.
struct Done {
    meta: Meta,
    fences: std::ops::Range<u64>,
}

fn transaction(
    shared: &Shared,
    connection: &Connection,
    waiting: &mut dyn Iterator<Item = Job>,
    replies: &mut Vec<(After, bool, Reply)>,
) -> Result<Option<Done>, Broken> {
    shared.file.still_there()?;
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let keys = shared.keys();
    let meta = Meta::read(connection)?;
    if meta.epoch != keys.epoch {
        return Err(super::other_keys().into());
    }
    meta.prove(&keys)?;
    let first_fence = meta.fence;
    let now = super::now();
    let view = View { connection, keys: Arc::clone(&keys), path: &shared.file.path };
    let mut txn = Txn { view, meta, now, shared, audited: None, opened: None, adopted: false };
    if shared.doubt().is_some() {
        // Another program may have adopted it since.
        shared.set_doubt(txn.judge());
    }
    let slots = txn.meta.slots;

    let mut changed = false;
    for job in waiting {
        connection.prepare_cached("SAVEPOINT job")?.execute(())?;
        let before = (txn.meta.clone(), Arc::clone(&txn.view.keys));
        let (ok, reply) = (job.work)(Ok(&mut txn));
        replies.push((job.after, ok, reply));
        // A full disk or a failing one ends the whole transaction at once.
        if connection.is_autocommit() {
            return Err(VaultError::Storage {
                doing: "written",
                why: format!(
                    "the transaction on {} was ended by the storage: full or failing",
                    shared.file.path.display()
                ),
            }
            .into());
        }
        if !ok {
            connection.prepare_cached("ROLLBACK TO job")?.execute(())?;
            (txn.meta, txn.view.keys) = before;
            txn.audited = None;
            txn.opened = None;
            txn.adopted = false;
        }
        connection.prepare_cached("RELEASE job")?.execute(())?;
        changed |= ok;
    }
    if !changed {
        connection.execute_batch("ROLLBACK")?;
        return Ok(None);
    }
    let mut meta = txn.meta;
    meta.generation += 1;
    meta.tip = random()?;
    // What a doubted copy writes makes it longer than the real one; the doubt
    // goes into the file with it, or the next opening would believe it.
    meta.doubt = meta.doubt.or(shared.doubt().filter(|doubt| *doubt != Doubt::Unreadable));
    meta.write(connection, &txn.view.keys)?;
    connection.execute_batch("COMMIT")?;
    shared.commits.fetch_add(1, Ordering::Relaxed);
    if !Arc::ptr_eq(&txn.view.keys, &keys) || txn.opened.is_some() {
        shared.replace_keys(txn.view.keys, txn.opened);
    }
    if meta.slots != slots {
        // What an old key could open is not to lie in the log any longer. A
        // reader may be in the way; then a later checkpoint does it.
        let _ = file::empty_log(connection);
    }
    if meta.doubt.is_none() && shared.doubt().is_none() {
        shared.host.note(&meta.vault, &meta.mark());
    }
    let fences = first_fence + 1..meta.fence + 1;
    Ok(Some(Done { meta, fences }))
}

/// Remembers how far the vault is, before leases are handed out. Where that
/// fails the leases are taken back, because nobody will get them.
fn remember(shared: &Shared, connection: &Connection, done: &Done) -> Result<(), VaultError> {
    let remembered = shared.host.advance(&done.meta.vault, &shared.file, &done.meta.mark());
    if remembered.is_err() {
        let _ = connection
            .execute("DELETE FROM leases WHERE fence >= ? AND fence < ?", params![done.fences.start, done.fences.end]);
    }
    remembered
}

/// At the end the memory is exact, so that a clean file can be moved.
fn remember_at_close(shared: &Shared, connection: &Connection) {
    if shared.doubt().is_some() || shared.commits.load(Ordering::Relaxed) == 0 {
        return;
    }
    if let Ok(meta) = Meta::read(connection)
        && meta.prove(&shared.keys()).is_ok()
        && shared.file.still_there().is_ok()
    {
        let _ = shared.host.advance(&meta.vault, &shared.file, &meta.mark());
    }
}

impl Shared {
    pub(super) fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn doubt(&self) -> Option<Doubt> {
        *self.doubt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_doubt(&self, doubt: Option<Doubt>) {
        *self.doubt.lock().unwrap_or_else(PoisonError::into_inner) = doubt;
    }

    fn replace_keys(&self, keys: Arc<Keys>, opened: Option<super::slots::Opened>) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        if let Some(opened) = opened {
            *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = opened;
        }
    }
}
