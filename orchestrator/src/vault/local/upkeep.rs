//! Backup, check, and new keys.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::backup::Backup;
use rusqlite::{Connection, OpenFlags};

use super::audit::{self, event};
use super::broken::{Broken, damaged};
use super::host::Doubt;
use super::rows::{Row, Written};
use super::seal::{Keys, random};
use super::slots::{self, Cost, Key};
use super::writer::{After, Meta, Txn, View};
use super::{LocalVault, file, leases};
use crate::plan::Identity;
use crate::record::{Record, Uid};
use crate::vault::{RecordState, VaultError};

/// How many records are found again in one transaction.
const AT_ONCE: u32 = 1_000;

/// What a check has seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// Records opened.
    pub records: u64,
    /// Open attempts opened.
    pub attempts: u64,
    /// Past credentials opened.
    pub history: u64,
    /// Pending finishes opened.
    pub finishes: u64,
    /// Audit rows, all of them in the chain.
    pub audit: u64,
    /// What does not fit, in words; empty when all is well.
    pub problems: Vec<String>,
}

impl LocalVault {
    /// Copies the vault, consistent and durable, to a new file that opens with
    /// the same keys. The copy knows that it is one: before anything is rotated
    /// with it, it has to be adopted.
    ///
    /// # Errors
    /// [`VaultError::Exists`] where there is a file already; what the storage says.
    pub fn backup(&self, to: &Path) -> Result<(), VaultError> {
        let keys = self.shared.keys();
        file::new_file(to, |unfinished| {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let mut copy = Connection::open_with_flags(unfinished, flags)?;
            self.shared.with_reader(|source| {
                Ok(Backup::new(source, &mut copy)?.run_to_completion(i32::MAX, Duration::from_millis(10), None)?)
            })?;
            drop(copy);
            let copy = file::writer(unfinished)?;
            let mut meta = Meta::read(&copy)?;
            if meta.epoch != keys.epoch {
                return Err(super::other_keys().into());
            }
            meta.prove(&keys)?;
            meta.instance = random()?;
            meta.doubt = Some(Doubt::Backup);
            copy.execute_batch("BEGIN IMMEDIATE; DELETE FROM leases")?;
            meta.write(&copy, &keys)?;
            copy.execute_batch("COMMIT")?;
            file::close_whole(copy)
        })
        .map_err(|broken| broken.at(to, "written"))
    }

    /// Finds all records again by what they resolve to, unless that was done
    /// with this very catalogue: rotators may have come, or know more, since a
    /// record was written. One that resolves to less stays found as it was,
    /// for what is missing here may be somewhere else.
    ///
    /// # Errors
    /// What the storage says.
    pub fn find_again(&self, catalogue: &str, accounts: &dyn Fn(&Record) -> Vec<Identity>) -> Result<(), VaultError> {
        let vault = self.shared.keys().vault;
        if self.shared.host.found_by(&vault).is_some_and(|known| known == catalogue) {
            return Ok(());
        }
        let mut behind = 0;
        loop {
            let (reached, found) = self.read_view(|view| {
                let (mut reached, mut found) = (behind, Vec::new());
                for row in rows_behind(view, behind, AT_ONCE)? {
                    reached = row.id;
                    let (record, known) = (view.record(row)?, view.card(row)?.identities);
                    let identities = accounts(&record);
                    if identities != known && identities.len() >= known.len() {
                        found.push((row, Written::new(&record, &identities)?));
                    }
                }
                Ok((reached, found))
            })?;
            if reached == behind {
                break;
            }
            behind = reached;
            if found.is_empty() {
                continue;
            }
            self.write(After::Nothing, move |txn| {
                for (row, written) in &found {
                    // Whoever wrote it meanwhile has found it himself.
                    if txn.view.find_row(&written.uid)?.is_some_and(|now| now.revision == row.revision) {
                        txn.view.rewrite(*row, written)?;
                    }
                }
                Ok(())
            })?;
        }
        self.shared.host.note_found_by(&vault, catalogue);
        Ok(())
    }

    /// Opens everything and proves the audit chain. What does not fit is told,
    /// and the check goes on.
    ///
    /// # Errors
    /// When the file cannot be read at all.
    pub fn check(&self) -> Result<Checked, VaultError> {
        self.read_view(|view| {
            let mut checked = Checked::default();
            let mut quick = view.connection.prepare("PRAGMA quick_check")?;
            for line in quick.query_map((), |row| row.get::<_, String>(0))? {
                let line = line?;
                if line != "ok" {
                    checked.problems.push(line);
                }
            }
            let mut keys = view.connection.prepare("PRAGMA foreign_key_check")?;
            if keys.exists(())? {
                checked.problems.push("a row belongs to a record that is not there".to_owned());
            }
            let meta = Meta::read(view.connection)?;
            tell(&mut checked, view.path, meta.prove(&view.keys));
            if slots::digest(view.connection)? != meta.slots {
                checked.problems.push("its key slots were altered".to_owned());
            }
            for row in record_rows(view)? {
                let seen = check_record(view, row, &mut checked);
                tell(&mut checked, view.path, seen);
            }
            tell(&mut checked, view.path, view.budgets());
            tell(&mut checked, view.path, held(view));
            if let Some((rows, _)) = tell(&mut checked, view.path, audit::verify(view, meta.audit)) {
                checked.audit = rows;
            }
            Ok(checked)
        })
    }

    /// Gives the vault new keys: a new data key, everything sealed again, the
    /// old key slots gone, in one transaction. Backups made before still open
    /// with the old keys.
    ///
    /// Leases stay with their holders' fences, so that what they guard keeps
    /// being waited for, but their holders are fenced: a rotation that is under
    /// way is settled by whoever takes its lease over.
    ///
    /// # Errors
    /// What the storage or a key file says.
    pub fn rekey(&self, keys: &[Key]) -> Result<(), VaultError> {
        self.rekey_at_cost(keys, Cost::DEFAULT)
    }

    pub(super) fn rekey_at_cost(&self, keys: &[Key], cost: Cost) -> Result<(), VaultError> {
        let prepared = keys.iter().map(|key| slots::prepare(key, cost)).collect::<Result<Vec<_>, _>>();
        let prepared = prepared.map_err(|broken| broken.at(self.path(), "written"))?;
        if prepared.is_empty() {
            return Err(VaultError::Storage { doing: "written", why: "a vault needs a key".to_owned() });
        }
        self.write(After::Nothing, move |txn| {
            let new = Arc::new(Keys::new(txn.meta.vault, txn.meta.epoch + 1, random()?.into()));
            reseal(txn, &new)?;
            let connection = txn.view.connection;
            // Slot numbers go on, so that no old slot passes for a new one.
            let last: u32 = connection.query_row("SELECT max(id) FROM slots", (), |row| row.get(0))?;
            let mut opened = None;
            for slot in &prepared {
                let slot = slots::insert(connection, &new.vault, new.data(), slot)?;
                opened.get_or_insert(slot);
            }
            connection.execute("DELETE FROM slots WHERE id <= ?", [last])?;
            txn.meta.slots = slots::digest(connection)?;
            txn.meta.epoch = new.epoch;
            if txn.meta.machine == txn.view.keys.lookup("machine", &[txn.shared.host.machine()]) {
                txn.meta.machine = new.lookup("machine", &[txn.shared.host.machine()]);
            }
            txn.view.keys = new;
            txn.opened = opened;
            txn.note(event("keys replaced", None, None, None))
        })
    }
}

/// Seals everything again under new keys.
fn reseal(txn: &Txn<'_>, new: &Arc<Keys>) -> Result<(), Broken> {
    let old = &txn.view;
    let fresh = View { connection: old.connection, keys: Arc::clone(new), path: old.path };
    for row in record_rows(old)? {
        let (written, aside) = (old.taken(row)?, old.aside(row.id)?);
        let (attempts, finishes, history) = (old.attempts(row.id)?, old.finishes(row.id)?, old.history(row.id)?);
        fresh.rewrite(row, &written)?;
        fresh.put_aside(row.id, &aside)?;
        for (id, attempt) in &attempts {
            fresh.put_attempt(row.id, *id, attempt)?;
        }
        for (id, waiting) in &finishes {
            fresh.put_finish(row.id, *id, waiting)?;
        }
        for (id, past) in &history {
            fresh.put_past(Some(*id), row.id, past)?;
        }
    }
    let budgets = old.budgets()?;
    old.connection.execute("DELETE FROM budgets", ())?;
    for budget in &budgets {
        fresh.put_budget(budget)?;
    }
    for (name, fence, held) in held(old)? {
        let sealed = new.seal(leases::cell(fence), &held)?;
        old.connection
            .prepare_cached("UPDATE leases SET name = ?, holder = ? WHERE name = ? AND fence = ?")?
            .execute((held.name.lookup(new), sealed, name, fence))?;
    }
    for number in 1..=txn.meta.audit {
        audit::rows(old, number, &mut |row| {
            audit::insert(&fresh, &row)?;
            Ok(false)
        })?;
    }
    Ok(())
}

fn record_rows(view: &View<'_>) -> Result<Vec<Row>, Broken> {
    rows_behind(view, 0, u32::MAX)
}

/// So many records, from the one behind that number on.
fn rows_behind(view: &View<'_>, behind: u64, count: u32) -> Result<Vec<Row>, Broken> {
    let sql = "SELECT id, revision FROM records WHERE id > ? ORDER BY id LIMIT ?";
    let mut select = view.connection.prepare_cached(sql)?;
    let rows = select.query_map((behind, count), |row| {
        Ok(Row { id: row.get(0)?, revision: row.get(1)?, state: RecordState::Settled })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn held(view: &View<'_>) -> Result<Vec<(Vec<u8>, u64, leases::Held)>, Broken> {
    let mut select = view.connection.prepare_cached("SELECT name, fence, holder FROM leases")?;
    let mut rows = select.query(())?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        let fence: u64 = row.get(1)?;
        all.push((row.get(0)?, fence, view.keys.unseal(leases::cell(fence), &row.get::<_, Vec<u8>>(2)?)?));
    }
    Ok(all)
}

fn check_record(view: &View<'_>, row: Row, checked: &mut Checked) -> Result<(), Broken> {
    let record = view.record(row)?;
    if view.find_row(&record.uid)?.is_none_or(|found| found.id != row.id) {
        return Err(damaged(format!("record {} is not found by its UID", record.uid)));
    }
    check_names(view, row, &record.uid)?;
    let aside = view.aside(row.id)?;
    let parked = aside.parked.is_some();
    checked.records += 1;
    let attempts = view.attempts(row.id)?;
    let finishes = view.finishes(row.id)?;
    checked.attempts += attempts.len() as u64;
    checked.finishes += finishes.len() as u64;
    for (id, past) in view.history(row.id)? {
        if !view.tells_of(id, &past)? {
            return Err(damaged(format!("the history of record {} was altered", record.uid)));
        }
        checked.history += 1;
    }
    let wanted =
        match (parked || attempts.iter().any(|(_, open)| open.parked.is_some()), attempts.len(), finishes.len()) {
            (true, _, _) => RecordState::Parked,
            (false, 1.., _) => RecordState::Open,
            (false, 0, 1..) => RecordState::Finishing,
            (false, 0, 0) if aside.untold.is_some() => RecordState::Hooks,
            (false, 0, 0) => RecordState::Settled,
        };
    if view.row(&record.uid)?.state != wanted {
        return Err(damaged(format!("the state of record {} does not tell what is open", record.uid)));
    }
    Ok(())
}

/// Whether a record is found under its title and its accounts.
fn check_names(view: &View<'_>, row: Row, uid: &Uid) -> Result<(), Broken> {
    let card = view.card(row)?;
    let lookups = card.lookups(&view.keys);
    let (names, accounts): (u64, u64) = view.connection.query_row(
        "SELECT (SELECT count(*) FROM names WHERE record = ?1), (SELECT count(*) FROM accounts WHERE record = ?1)",
        [row.id],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let mut name = view.connection.prepare_cached("SELECT 1 FROM names WHERE name = ? AND record = ?")?;
    let mut account = view.connection.prepare_cached("SELECT 1 FROM accounts WHERE account = ? AND record = ?")?;
    let mut found = lookups.names.len() as u64 == names && lookups.accounts.len() as u64 == accounts;
    for lookup in &lookups.names {
        found &= name.exists((lookup, row.id))?;
    }
    for lookup in &lookups.accounts {
        found &= account.exists((lookup, row.id))?;
    }
    if !found {
        return Err(damaged(format!("record {uid} is not found by its names or accounts")));
    }
    Ok(())
}

fn tell<T>(checked: &mut Checked, path: &Path, seen: Result<T, Broken>) -> Option<T> {
    match seen {
        Ok(seen) => Some(seen),
        Err(broken) => {
            let words = match broken.at(path, "read") {
                VaultError::Damaged { what, .. } => what,
                other => other.to_string(),
            };
            checked.problems.push(words);
            None
        }
    }
}
