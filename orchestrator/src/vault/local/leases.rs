//! Who may rotate what. Names are keyed look-up values, holders are sealed.
//!
//! A lease is not taken away by a clock: only [`seize`] takes it, from holders
//! that the taker has watched standing still, and the fence makes sure that the
//! old holder writes nothing from then on.

use std::collections::BTreeMap;

use rusqlite::params;
use serde::{Deserialize, Serialize};

use super::broken::Broken;
use super::seal::{Cell, Keys, Lookup};
use super::writer::{Txn, View};
use crate::plan::Identity;
use crate::record::Uid;
use crate::vault::{Acquired, Holder, Lease, LeaseRequest, Owner, VaultError};

/// What stands sealed in a lease row: who, and of what (for `rekey`).
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Held {
    pub(super) owner: Owner,
    pub(super) name: Name,
}

/// What is held.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Name {
    Record(Uid),
    Account(Identity),
}

impl Name {
    pub(super) fn lookup(&self, keys: &Keys) -> Lookup {
        match self {
            Self::Record(uid) => record(keys, uid),
            Self::Account(identity) => super::rows::account(keys, "lease of account", identity),
        }
    }
}

fn record(keys: &Keys, uid: &Uid) -> Lookup {
    keys.lookup("lease of record", &[uid.as_str()])
}

pub(super) fn cell(fence: u64) -> Cell<'static> {
    Cell { table: "leases", column: "holder", row: fence, version: 0 }
}

struct Wish {
    name: Name,
    shared: bool,
}

/// What a request wants, once each, under its look-up name.
fn wishes(keys: &Keys, wanted: &LeaseRequest) -> BTreeMap<Lookup, Wish> {
    let mut wishes = BTreeMap::new();
    // First the shared one: where the same record is also wanted alone, alone wins.
    let admin = wanted.admin.iter().map(|uid| (Name::Record(uid.clone()), true));
    let records = wanted.records.iter().map(|uid| (Name::Record(uid.clone()), false));
    let account = wanted.account.iter().map(|identity| (Name::Account(identity.clone()), false));
    for (name, shared) in admin.chain(records).chain(account) {
        wishes.insert(name.lookup(keys), Wish { name, shared });
    }
    wishes
}

/// Grants all of it or none.
pub(super) fn acquire(txn: &mut Txn<'_>, wanted: &LeaseRequest) -> Result<Acquired, Broken> {
    let wishes = wishes(&txn.view.keys, wanted);
    let holders = in_the_way(&txn.view, &wishes)?;
    if !holders.is_empty() {
        return Ok(Acquired::Busy(holders));
    }
    grant(txn, wanted, wishes)
}

/// Grants what is held only by holders that stand as they were seen.
pub(super) fn seize(txn: &mut Txn<'_>, wanted: &LeaseRequest, seen: &[Holder]) -> Result<Acquired, Broken> {
    let wishes = wishes(&txn.view.keys, wanted);
    let holders = in_the_way(&txn.view, &wishes)?;
    let moved = |holder: &Holder| {
        !seen.iter().any(|seen| seen.key == holder.key && seen.fence == holder.fence && seen.renewal == holder.renewal)
    };
    if holders.iter().any(moved) {
        return Ok(Acquired::Busy(holders));
    }
    for holder in &holders {
        txn.view
            .connection
            .prepare_cached("DELETE FROM leases WHERE name = ? AND fence = ?")?
            .execute(params![holder.key, holder.fence])?;
        txn.note(super::audit::event(
            "seized",
            wanted.records.first(),
            None,
            Some(format!("from process {} on {}", holder.owner.process.pid, holder.owner.machine)),
        ))?;
    }
    grant(txn, wanted, wishes)
}

fn in_the_way(view: &View<'_>, wishes: &BTreeMap<Lookup, Wish>) -> Result<Vec<Holder>, Broken> {
    let mut select = view
        .connection
        .prepare_cached("SELECT fence, renewal, ttl, holder FROM leases WHERE name = ? AND NOT (shared AND ?)")?;
    let mut holders = Vec::new();
    for (key, wish) in wishes {
        let mut rows = select.query(params![key, wish.shared])?;
        while let Some(row) = rows.next()? {
            let fence: u64 = row.get(0)?;
            let held: Held = view.keys.unseal(cell(fence), &row.get::<_, Vec<u8>>(3)?)?;
            holders.push(Holder {
                key: key.to_vec(),
                owner: held.owner,
                fence,
                renewal: row.get(1)?,
                ttl_ms: row.get(2)?,
            });
        }
    }
    Ok(holders)
}

fn grant(txn: &mut Txn<'_>, wanted: &LeaseRequest, wishes: BTreeMap<Lookup, Wish>) -> Result<Acquired, Broken> {
    txn.meta.fence += 1;
    let fence = txn.meta.fence;
    let mut lease = Lease { fence, keys: Vec::with_capacity(wishes.len()), ttl_ms: wanted.ttl_ms };
    for (key, wish) in wishes {
        let held = Held { owner: wanted.owner.clone(), name: wish.name };
        let sealed = txn.view.keys.seal(cell(fence), &held)?;
        txn.view
            .connection
            .prepare_cached("INSERT INTO leases (name, fence, shared, renewal, ttl, holder) VALUES (?, ?, ?, 0, ?, ?)")?
            .execute(params![key, fence, wish.shared, wanted.ttl_ms, sealed])?;
        lease.keys.push(key.to_vec());
    }
    Ok(Acquired::Granted(lease))
}

/// Refuses a lease of which anything was taken over.
pub(super) fn check(view: &View<'_>, lease: &Lease) -> Result<(), Broken> {
    let mut select = view.connection.prepare_cached("SELECT 1 FROM leases WHERE name = ? AND fence = ?")?;
    for key in &lease.keys {
        if !select.exists(params![key, lease.fence])? {
            return Err(VaultError::Fenced.into());
        }
    }
    Ok(())
}

/// The same, and the lease holds this record alone.
pub(super) fn check_for(view: &View<'_>, lease: &Lease, uid: &Uid) -> Result<(), Broken> {
    check(view, lease)?;
    let mut select =
        view.connection.prepare_cached("SELECT 1 FROM leases WHERE name = ? AND fence = ? AND NOT shared")?;
    if !select.exists(params![record(&view.keys, uid), lease.fence])? {
        return Err(VaultError::Fenced.into());
    }
    Ok(())
}

pub(super) fn renew(view: &View<'_>, lease: &Lease) -> Result<(), Broken> {
    check(view, lease)?;
    view.connection
        .prepare_cached("UPDATE leases SET renewal = renewal + 1 WHERE fence = ?")?
        .execute([lease.fence])?;
    Ok(())
}

pub(super) fn release(view: &View<'_>, lease: &Lease) -> Result<(), Broken> {
    let mut delete = view.connection.prepare_cached("DELETE FROM leases WHERE name = ? AND fence = ?")?;
    for key in &lease.keys {
        delete.execute(params![key, lease.fence])?;
    }
    Ok(())
}
