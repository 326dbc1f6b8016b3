//! The audit chain: each row carries a digest over itself and all before it.
//!
//! The digest of a row is SHA-256 over the row's JSON as `audit export` writes
//! it, with the digest of the row before in the place of its own. Whoever
//! exported the rows can prove them with any SHA-256 program; in the file they
//! are sealed, because an unsealed digest would let a guess be confirmed.

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::broken::{Broken, damaged};
use super::seal::{Cell, hex, to_json};
use super::writer::View;
use crate::vault::{AuditEvent, AuditRow};

fn cell(number: u64) -> Cell<'static> {
    Cell { table: "audit", column: "body", row: number, version: 0 }
}

/// An event of one record.
pub(super) fn event(
    what: &str,
    uid: Option<&crate::record::Uid>,
    attempt: Option<&str>,
    detail: Option<String>,
) -> AuditEvent {
    AuditEvent { what: what.to_owned(), uid: uid.cloned(), attempt: attempt.map(str::to_owned), account: None, detail }
}

/// A row's number and digest, which the next row goes on from.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) number: u64,
    chain: String,
}

/// Appends a row after row `last`, whose digest is read from the file unless
/// `known` has it.
pub(super) fn append(
    view: &View<'_>,
    last: u64,
    known: Option<Head>,
    at: Timestamp,
    event: AuditEvent,
) -> Result<Head, Broken> {
    let previous = match known {
        Some(head) if head.number == last => head.chain,
        _ => head(view, last)?,
    };
    let mut row = AuditRow { number: last + 1, at, event, chain: previous };
    row.chain = hex(&Sha256::digest(&*to_json(&row)?));
    insert(view, &row)?;
    Ok(Head { number: row.number, chain: row.chain })
}

/// Seals a row as it is.
pub(super) fn insert(view: &View<'_>, row: &AuditRow) -> Result<(), Broken> {
    let sealed = view.keys.seal(cell(row.number), row)?;
    view.connection
        .prepare_cached("INSERT OR REPLACE INTO audit (number, body) VALUES (?, ?)")?
        .execute((row.number, sealed))?;
    Ok(())
}

/// The chain up to a row.
pub(super) fn head(view: &View<'_>, number: u64) -> Result<String, Broken> {
    if number == 0 {
        return Ok(hex(&Sha256::new().chain_update(b"turnlock audit 1\0").chain_update(view.keys.vault).finalize()));
    }
    let sealed: Vec<u8> = view
        .connection
        .prepare_cached("SELECT body FROM audit WHERE number = ?")?
        .query_row([number], |row| row.get(0))
        .map_err(|error| match error {
            rusqlite::Error::QueryReturnedNoRows => damaged(format!("audit row {number} is missing")),
            other => other.into(),
        })?;
    let row: AuditRow = view.keys.unseal(cell(number), &sealed)?;
    Ok(row.chain)
}

/// Shows the rows from a number on.
pub(super) fn rows(
    view: &View<'_>,
    from: u64,
    visit: &mut dyn FnMut(AuditRow) -> Result<bool, Broken>,
) -> Result<(), Broken> {
    let mut select =
        view.connection.prepare_cached("SELECT number, body FROM audit WHERE number >= ? ORDER BY number")?;
    let mut rows = select.query([from])?;
    while let Some(row) = rows.next()? {
        let number: u64 = row.get(0)?;
        let sealed: Vec<u8> = row.get(1)?;
        if !visit(view.keys.unseal(cell(number), &sealed)?)? {
            break;
        }
    }
    Ok(())
}

/// Recomputes the whole chain; `last` is the number the vault vouches for.
pub(super) fn verify(view: &View<'_>, last: u64) -> Result<(u64, String), Broken> {
    let (mut number, mut chain) = (0, head(view, 0)?);
    rows(view, 0, &mut |mut row| {
        number += 1;
        if row.number != number {
            return Err(damaged(format!("audit row {number} is missing")));
        }
        let told = std::mem::replace(&mut row.chain, std::mem::take(&mut chain));
        chain = hex(&Sha256::digest(&*to_json(&row)?));
        if chain != told {
            return Err(damaged(format!("the audit chain breaks at row {number}")));
        }
        Ok(true)
    })?;
    if number != last {
        return Err(damaged(format!("the audit chain has {number} rows where {last} were written")));
    }
    Ok((number, chain))
}
