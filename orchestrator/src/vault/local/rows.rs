//! Records and what stands beside them: sealing, finding, replacing.

use std::collections::BTreeSet;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};
use serde::{Deserialize, Serialize};
use turnlock_protocol::{Credential, PasswordLimits, Secret};
use zeroize::Zeroizing;

use super::broken::{Broken, damaged};
use super::seal::{Cell, Keys, Lookup, from_json, to_json};
use super::writer::{Txn, View};
use crate::moment::Moment;
use crate::plan::Identity;
use crate::record::{Body, FieldValue, Record, Uid};
use crate::stage::{Attempt, Past, PastKind, PendingFinish, STAGE_FORMAT, Untold};
use crate::vault::beside::{KEPT, KEPT_FOR, Keep, Parked, Waiting, lost};
use crate::vault::{Fate, OpenItem, RecordState, Revision, Summary, Upkeep, VaultError};

/// What lists and look-ups need of a record; sealed apart from its body, so
/// that they never open a secret.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Card {
    uid: Uid,
    title: String,
    folders: Vec<String>,
    record_type: Option<String>,
    plugin: Option<String>,
    endpoints: Vec<(String, String, Option<String>)>,
    pub(super) identities: Vec<Identity>,
    /// None in a card that was written before there was any.
    #[serde(default)]
    upkeep: Option<Upkeep>,
}

/// What the vault itself remembers beside a record.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Aside {
    #[serde(default)]
    pub(super) learned: PasswordLimits,
    #[serde(flatten)]
    pub(super) fate: Fate,
    #[serde(default)]
    pub(super) unverified: bool,
    #[serde(default)]
    pub(super) parked: Option<Parked>,
    #[serde(default)]
    pub(super) untold: Option<Untold>,
}

/// What `parked` in the row repeats of it.
const PARKED: u32 = 1;
const UNTOLD: u32 = 2;

/// A record ready to be written: sealed only when its row and revision are known.
pub(super) struct Written {
    pub(super) uid: Uid,
    card: Card,
    body: Zeroizing<Vec<u8>>,
}

/// A record's look-up values, each once.
pub(super) struct Lookups {
    pub(super) names: BTreeSet<Lookup>,
    pub(super) accounts: BTreeSet<Lookup>,
}

/// Where a record stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) id: u64,
    pub(super) revision: Revision,
    pub(super) state: RecordState,
}

// ── look-up values ──────────────────────────────────────────────────────────

pub(super) fn account(keys: &Keys, purpose: &str, identity: &Identity) -> Lookup {
    let port = identity.port.to_string();
    let mut parts = vec![identity.plugin.as_str(), &identity.host, &port, &identity.login];
    parts.extend(identity.record.as_ref().map(Uid::as_str));
    keys.lookup(purpose, &parts)
}

fn uid_lookup(keys: &Keys, uid: &Uid) -> Lookup {
    keys.lookup("uid", &[uid.as_str()])
}

pub(super) fn name_lookup(keys: &Keys, name: &str) -> Lookup {
    keys.lookup("name", &[&name.to_lowercase()])
}

impl Card {
    /// Everything a person may call the record, besides its UID.
    fn names(&self) -> impl Iterator<Item = String> {
        let title = std::iter::once(self.title.clone());
        let below = self.folders.iter().map(|folder| format!("{folder}/{}", self.title));
        let endpoints = self.endpoints.iter().map(|(name, _, _)| name.clone());
        title.chain(below).chain(endpoints)
    }

    /// Under which look-up values the record is to be found.
    pub(super) fn lookups(&self, keys: &Keys) -> Lookups {
        Lookups {
            names: self.names().map(|called| name_lookup(keys, &called)).collect(),
            accounts: self.identities.iter().map(|identity| account(keys, "account", identity)).collect(),
        }
    }

    fn summary(self, revision: Revision, state: RecordState, upkeep: Upkeep, fate: Fate) -> Summary {
        let of_the_default = |account: &Identity| self.plugin.as_ref() == Some(&account.plugin);
        Summary {
            account: self.identities.into_iter().find(of_the_default),
            uid: self.uid,
            title: self.title,
            folders: self.folders,
            record_type: self.record_type,
            plugin: self.plugin,
            endpoints: self.endpoints,
            revision,
            state,
            upkeep,
            fate,
        }
    }
}

impl Written {
    pub(super) fn new(record: &Record, identities: &[Identity]) -> Result<Self, Broken> {
        let endpoints = endpoints(record);
        let default = text_of(record, "cmdr:plugin").or_else(|| {
            // Identities come default first, then one for each endpoint.
            (identities.len() > endpoints.len()).then(|| identities.first().map(|first| first.plugin.clone())).flatten()
        });
        let folders = record.folders.iter().map(|folder| {
            let parts = [folder.shared.as_deref(), folder.path.as_deref()];
            parts
                .into_iter()
                .flatten()
                .filter(|part| !part.is_empty())
                .map(|part| part.replace('\\', "/"))
                .collect::<Vec<_>>()
                .join("/")
        });
        let card = Card {
            uid: record.uid.clone(),
            title: record.title.clone(),
            folders: folders.filter(|path| !path.is_empty()).collect(),
            record_type: match &record.body {
                Body::Typed(typed) => Some(typed.record_type.clone()),
                Body::Untyped(_) => None,
            },
            plugin: default,
            endpoints,
            identities: identities.to_vec(),
            upkeep: Some(Upkeep::of(record)),
        };
        Ok(Self { uid: record.uid.clone(), card, body: to_json(record)? })
    }
}

/// Every named text of a record: an untyped record's custom fields, a typed
/// one's labelled fields.
fn named(record: &Record) -> Vec<(&str, &Secret)> {
    match &record.body {
        Body::Untyped(body) => body.custom.iter().map(|field| (field.name.as_str(), &field.value)).collect(),
        Body::Typed(body) => body
            .fields
            .iter()
            .chain(&body.custom)
            .filter_map(|field| match (field.label.as_deref(), field.value.first()) {
                (Some(label), Some(FieldValue::Text(text))) => Some((label, text)),
                _ => None,
            })
            .collect(),
    }
}

fn text_of(record: &Record, name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "plugin names and descriptions of endpoints are shown in lists")]
    named(record)
        .into_iter()
        .find(|(found, text)| *found == name && !text.is_empty())
        .map(|(_, text)| text.expose().to_owned())
}

fn endpoints(record: &Record) -> Vec<(String, String, Option<String>)> {
    named(record)
        .into_iter()
        .filter_map(|(name, _)| name.strip_prefix("cmdr:plugin:").filter(|name| !name.contains(':')))
        .filter_map(|name| {
            let plugin = text_of(record, &format!("cmdr:plugin:{name}"))?;
            Some((name.to_owned(), plugin, text_of(record, &format!("cmdr:plugin:{name}:description"))))
        })
        .collect()
}

// ── records ─────────────────────────────────────────────────────────────────

fn card_cell(id: u64, revision: Revision) -> Cell<'static> {
    Cell { table: "records", column: "card", row: id, version: revision }
}

fn body_cell(id: u64, revision: Revision) -> Cell<'static> {
    Cell { table: "records", column: "body", row: id, version: revision }
}

fn aside_cell(id: u64) -> Cell<'static> {
    Cell { table: "records", column: "aside", row: id, version: 0 }
}

fn state_of(number: u32) -> RecordState {
    match number {
        0 => RecordState::Settled,
        1 => RecordState::Open,
        2 => RecordState::Parked,
        3 => RecordState::Finishing,
        _ => RecordState::Hooks,
    }
}

impl View<'_> {
    pub(super) fn find_row(&self, uid: &Uid) -> Result<Option<Row>, Broken> {
        Ok(self
            .connection
            .prepare_cached("SELECT id, revision, state FROM records WHERE uid = ?")?
            .query_row([uid_lookup(&self.keys, uid)], |row| {
                Ok(Row { id: row.get(0)?, revision: row.get(1)?, state: state_of(row.get(2)?) })
            })
            .optional()?)
    }

    pub(super) fn row(&self, uid: &Uid) -> Result<Row, Broken> {
        self.find_row(uid)?.ok_or_else(|| VaultError::NoRecord(uid.to_string()).into())
    }

    pub(super) fn record(&self, row: Row) -> Result<Record, Broken> {
        let sealed: Vec<u8> = self
            .connection
            .prepare_cached("SELECT body FROM records WHERE id = ?")?
            .query_row([row.id], |found| found.get(0))?;
        self.keys.unseal(body_cell(row.id, row.revision), &sealed)
    }

    pub(super) fn card(&self, row: Row) -> Result<Card, Broken> {
        let sealed: Vec<u8> = self
            .connection
            .prepare_cached("SELECT card FROM records WHERE id = ?")?
            .query_row([row.id], |found| found.get(0))?;
        self.keys.unseal(card_cell(row.id, row.revision), &sealed)
    }

    pub(super) fn aside(&self, id: u64) -> Result<Aside, Broken> {
        let sealed: Option<Vec<u8>> = self
            .connection
            .prepare_cached("SELECT aside FROM records WHERE id = ?")?
            .query_row([id], |row| row.get(0))?;
        sealed.map_or_else(|| Ok(Aside::default()), |sealed| self.keys.unseal(aside_cell(id), &sealed))
    }

    pub(super) fn put_aside(&self, id: u64, aside: &Aside) -> Result<(), Broken> {
        let sealed = self.keys.seal(aside_cell(id), aside)?;
        let repeated =
            if aside.parked.is_some() { PARKED } else { 0 } | if aside.untold.is_some() { UNTOLD } else { 0 };
        self.connection
            .prepare_cached("UPDATE records SET aside = ?, parked = ? WHERE id = ?")?
            .execute(params![sealed, repeated, id])?;
        self.refresh_state(id)
    }

    /// Every record's summary, or those that a look-up names.
    pub(super) fn summaries(
        &self,
        named: Option<(Lookup, Lookup)>,
        visit: &mut dyn FnMut(Summary) -> bool,
    ) -> Result<(), Broken> {
        let (sql, parameters) = match named {
            None => ("SELECT id, revision, state, card, aside FROM records", vec![]),
            Some((uid, name)) => (
                "SELECT id, revision, state, card, aside FROM records
                 WHERE uid = ?1 OR id IN (SELECT record FROM names WHERE name = ?2)",
                vec![uid, name],
            ),
        };
        let mut select = self.connection.prepare_cached(sql)?;
        let mut rows = select.query(rusqlite::params_from_iter(parameters))?;
        while let Some(row) = rows.next()? {
            let (id, revision, state) = (row.get(0)?, row.get(1)?, state_of(row.get(2)?));
            let mut card: Card = self.keys.unseal(card_cell(id, revision), &row.get::<_, Vec<u8>>(3)?)?;
            let aside: Option<Vec<u8>> = row.get(4)?;
            let aside =
                aside.map_or_else(|| Ok(Aside::default()), |sealed| self.keys.unseal(aside_cell(id), &sealed))?;
            let upkeep = match card.upkeep.take() {
                Some(upkeep) => upkeep,
                None => Upkeep::of(&self.record(Row { id, revision, state })?),
            };
            if !visit(card.summary(revision, state, upkeep, aside.fate)) {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn named(&self, name: &str) -> Result<Vec<Summary>, Broken> {
        let lookups = (self.keys.lookup("uid", &[name]), name_lookup(&self.keys, name));
        let mut found = Vec::new();
        self.summaries(Some(lookups), &mut |summary| {
            found.push(summary);
            true
        })?;
        Ok(found)
    }

    pub(super) fn of_account(&self, identity: &Identity) -> Result<Vec<Uid>, Broken> {
        let mut select = self.connection.prepare_cached(
            "SELECT id, revision, state FROM records WHERE id IN (SELECT record FROM accounts WHERE account = ?)",
        )?;
        let rows = select.query_map([account(&self.keys, "account", identity)], |row| {
            Ok(Row { id: row.get(0)?, revision: row.get(1)?, state: state_of(row.get(2)?) })
        })?;
        rows.map(|row| Ok(self.card(row?)?.uid)).collect()
    }

    pub(super) fn insert_record(&self, written: &Written, now: Timestamp) -> Result<Row, Broken> {
        // The number is sealed into the cells, so it is needed before the row is there.
        let id: u64 = self
            .connection
            .prepare_cached("SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'records'), 0) + 1")?
            .query_row((), |row| row.get(0))?;
        let row = Row { id, revision: 1, state: RecordState::Settled };
        self.put_record(row, written, "INSERT INTO records (uid, revision, card, body, id) VALUES (?, ?, ?, ?, ?)")?;
        self.put_lookups(row.id, written)?;
        if written.card.upkeep.as_ref().is_some_and(|upkeep| upkeep.schedule.is_some()) {
            let fate = Fate { scheduled_at: Some(now), ..Fate::default() };
            self.put_aside(id, &Aside { fate, ..Aside::default() })?;
        }
        Ok(row)
    }

    /// Writes card, body and look-ups of a row at its revision.
    fn write_record(&self, row: Row, written: &Written) -> Result<(), Broken> {
        self.put_record(row, written, "UPDATE records SET uid = ?, revision = ?, card = ?, body = ? WHERE id = ?")?;
        self.connection.prepare_cached("DELETE FROM names WHERE record = ?")?.execute([row.id])?;
        self.connection.prepare_cached("DELETE FROM accounts WHERE record = ?")?.execute([row.id])?;
        self.put_lookups(row.id, written)
    }

    fn put_record(&self, row: Row, written: &Written, sql: &str) -> Result<(), Broken> {
        let card = self.keys.seal(card_cell(row.id, row.revision), &written.card)?;
        let body = self.keys.seal_bytes(body_cell(row.id, row.revision), &written.body)?;
        self.connection.prepare_cached(sql)?.execute(params![
            uid_lookup(&self.keys, &written.uid),
            row.revision,
            card,
            body,
            row.id
        ])?;
        Ok(())
    }

    fn put_lookups(&self, id: u64, written: &Written) -> Result<(), Broken> {
        let lookups = written.card.lookups(&self.keys);
        let mut name = self.connection.prepare_cached("INSERT INTO names (name, record) VALUES (?, ?)")?;
        for lookup in &lookups.names {
            name.execute(params![lookup, id])?;
        }
        let mut account = self.connection.prepare_cached("INSERT INTO accounts (account, record) VALUES (?, ?)")?;
        for lookup in &lookups.accounts {
            account.execute(params![lookup, id])?;
        }
        Ok(())
    }

    /// A row's content as it is, to be written under other keys.
    pub(super) fn taken(&self, row: Row) -> Result<Written, Broken> {
        let sealed: Vec<u8> = self
            .connection
            .prepare_cached("SELECT body FROM records WHERE id = ?")?
            .query_row([row.id], |found| found.get(0))?;
        let body = self.keys.unseal_bytes(body_cell(row.id, row.revision), &sealed)?;
        let card = self.card(row)?;
        Ok(Written { uid: card.uid.clone(), card, body })
    }

    /// The same content under this view's keys.
    pub(super) fn rewrite(&self, row: Row, written: &Written) -> Result<(), Broken> {
        self.write_record(row, written)
    }

    /// Repeats in the row what its sealed cells say.
    pub(super) fn refresh_state(&self, id: u64) -> Result<(), Broken> {
        self.connection
            .prepare_cached(
                "UPDATE records SET state = CASE
                     WHEN parked & 1 OR EXISTS (SELECT 1 FROM attempts WHERE record = ?1 AND parked) THEN 2
                     WHEN EXISTS (SELECT 1 FROM attempts WHERE record = ?1) THEN 1
                     WHEN EXISTS (SELECT 1 FROM finishes WHERE record = ?1) THEN 3
                     WHEN parked & 2 THEN 4
                     ELSE 0 END
                 WHERE id = ?1",
            )?
            .execute([id])?;
        Ok(())
    }

    /// Whether an attempt or a finish stands open.
    pub(super) fn has_open(&self, id: u64) -> Result<bool, Broken> {
        Ok(self
            .connection
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM attempts WHERE record = ?1) OR EXISTS (SELECT 1 FROM finishes WHERE record = ?1)",
            )?
            .query_row([id], |row| row.get(0))?)
    }
}

impl Txn<'_> {
    /// Replaces a record's content; a secret that somebody typed over goes
    /// into its history, unless `known` says that it is there already.
    pub(super) fn replace(
        &mut self,
        row: Row,
        written: &Written,
        keep: Keep,
        known: &[&Credential],
        why: &str,
    ) -> Result<Row, Broken> {
        let old = self.view.record(row)?;
        let new: Record = from_json(&written.body, "records")?;
        let credential = lost(&old, &new, keep, known);
        if !credential.is_empty() {
            let past = Past {
                number: 0,
                at: self.now,
                kind: PastKind::Previous,
                attempt: String::new(),
                credential,
                plan: None,
                reason: why.to_owned(),
            };
            self.remember(row.id, past)?;
        }
        if Upkeep::of(&old).schedule != Upkeep::of(&new).schedule {
            let mut aside = self.view.aside(row.id)?;
            aside.fate.scheduled_at = Some(self.now);
            self.view.put_aside(row.id, &aside)?;
        }
        let row = Row { revision: row.revision + 1, ..row };
        self.view.write_record(row, written)?;
        Ok(row)
    }

    /// Adds a credential to a record's history, and lets go of what is both
    /// old and far down.
    pub(super) fn remember(&mut self, record: u64, mut past: Past) -> Result<(), Broken> {
        let connection = self.view.connection;
        past.number = connection
            .prepare_cached("SELECT coalesce(max(number), 0) + 1 FROM history WHERE record = ?")?
            .query_row([record], |row| row.get(0))?;
        self.view.put_past(None, record, &past)?;
        let kind = kind_number(past.kind);
        connection
            .prepare_cached(
                "DELETE FROM history WHERE record = ?1 AND kind = ?2 AND at < ?3 AND number NOT IN
                     (SELECT number FROM history WHERE record = ?1 AND kind = ?2 ORDER BY number DESC LIMIT ?4)",
            )?
            .execute(params![record, kind, (self.now - KEPT_FOR).as_millisecond(), KEPT])?;
        Ok(())
    }
}

// ── history ─────────────────────────────────────────────────────────────────

fn kind_number(kind: PastKind) -> u32 {
    match kind {
        PastKind::Previous => 1,
        PastKind::Abandoned => 2,
    }
}

fn past_cell(record: u64, number: u64) -> Cell<'static> {
    Cell { table: "history", column: "body", row: record, version: number }
}

impl View<'_> {
    pub(super) fn history(&self, record: u64) -> Result<Vec<(u64, Past)>, Broken> {
        let mut select = self
            .connection
            .prepare_cached("SELECT id, number, body FROM history WHERE record = ? ORDER BY number DESC")?;
        let mut rows = select.query([record])?;
        let mut pasts = Vec::new();
        while let Some(row) = rows.next()? {
            let number: u64 = row.get(1)?;
            pasts.push((row.get(0)?, self.keys.unseal(past_cell(record, number), &row.get::<_, Vec<u8>>(2)?)?));
        }
        Ok(pasts)
    }

    /// Whether a row's readable columns, by which it is pruned, say what its
    /// sealed cell says.
    pub(super) fn tells_of(&self, id: u64, past: &Past) -> Result<bool, Broken> {
        Ok(self
            .connection
            .prepare_cached("SELECT 1 FROM history WHERE id = ? AND kind = ? AND at = ?")?
            .exists(params![id, kind_number(past.kind), past.at.as_millisecond()])?)
    }

    pub(super) fn put_past(&self, id: Option<u64>, record: u64, past: &Past) -> Result<(), Broken> {
        let sealed = self.keys.seal(past_cell(record, past.number), past)?;
        self.connection
            .prepare_cached(
                "INSERT OR REPLACE INTO history (id, record, number, kind, at, body) VALUES (?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![id, record, past.number, kind_number(past.kind), past.at.as_millisecond(), sealed])?;
        Ok(())
    }
}

// ── attempts ────────────────────────────────────────────────────────────────

/// An attempt's cell names its record, so that it cannot be moved to another.
fn attempt_cell(record: u64, id: u64) -> Cell<'static> {
    Cell { table: "attempts", column: "body", row: id, version: record }
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl View<'_> {
    /// A record's open attempts, oldest first, with their row numbers.
    pub(super) fn attempts(&self, record: u64) -> Result<Vec<(u64, Attempt)>, Broken> {
        let mut select =
            self.connection.prepare_cached("SELECT id, body FROM attempts WHERE record = ? ORDER BY id")?;
        let mut rows = select.query([record])?;
        let mut attempts = Vec::new();
        while let Some(row) = rows.next()? {
            let id: u64 = row.get(0)?;
            let plain = self.keys.unseal_bytes(attempt_cell(record, id), &row.get::<_, Vec<u8>>(1)?)?;
            let Format { format } = from_json(&plain, "attempts")?;
            if format > STAGE_FORMAT {
                return Err(VaultError::NewerFormat { found: format, known: STAGE_FORMAT }.into());
            }
            attempts.push((id, from_json(&plain, "attempts")?));
        }
        Ok(attempts)
    }

    pub(super) fn attempt(&self, record: u64, name: &str) -> Result<(u64, Attempt), Broken> {
        self.attempts(record)?
            .into_iter()
            .find(|(_, attempt)| attempt.id == name)
            .ok_or_else(|| VaultError::NoAttempt(name.to_owned()).into())
    }

    /// Appends an attempt that was written as JSON before.
    pub(super) fn insert_attempt(&self, record: u64, parked: bool, json: &[u8]) -> Result<(), Broken> {
        let id: u64 = self
            .connection
            .prepare_cached("INSERT INTO attempts (record, parked, body) VALUES (?, ?, x'') RETURNING id")?
            .query_row(params![record, parked], |row| row.get(0))?;
        let sealed = self.keys.seal_bytes(attempt_cell(record, id), json)?;
        self.connection.prepare_cached("UPDATE attempts SET body = ? WHERE id = ?")?.execute(params![sealed, id])?;
        self.refresh_state(record)
    }

    pub(super) fn put_attempt(&self, record: u64, id: u64, attempt: &Attempt) -> Result<(), Broken> {
        let sealed = self.keys.seal(attempt_cell(record, id), attempt)?;
        self.connection.prepare_cached("UPDATE attempts SET parked = ?, body = ? WHERE id = ?")?.execute(params![
            attempt.parked.is_some(),
            sealed,
            id
        ])?;
        self.refresh_state(record)
    }

    pub(super) fn close_attempt(&self, record: u64, id: u64) -> Result<(), Broken> {
        self.connection.prepare_cached("DELETE FROM attempts WHERE id = ?")?.execute([id])?;
        self.refresh_state(record)
    }
}

// ── finishes ────────────────────────────────────────────────────────────────

fn finish_cell(record: u64, id: u64) -> Cell<'static> {
    Cell { table: "finishes", column: "body", row: id, version: record }
}

impl View<'_> {
    pub(super) fn finishes(&self, record: u64) -> Result<Vec<(u64, Waiting)>, Broken> {
        let mut select =
            self.connection.prepare_cached("SELECT id, body FROM finishes WHERE record = ? ORDER BY id")?;
        let mut rows = select.query([record])?;
        let mut finishes = Vec::new();
        while let Some(row) = rows.next()? {
            let id: u64 = row.get(0)?;
            finishes.push((id, self.keys.unseal(finish_cell(record, id), &row.get::<_, Vec<u8>>(1)?)?));
        }
        Ok(finishes)
    }

    pub(super) fn insert_finish(&self, record: u64, waiting: &Waiting) -> Result<(), Broken> {
        let id: u64 = self
            .connection
            .prepare_cached("INSERT INTO finishes (record, body) VALUES (?, x'') RETURNING id")?
            .query_row([record], |row| row.get(0))?;
        self.put_finish(record, id, waiting)
    }

    pub(super) fn put_finish(&self, record: u64, id: u64, waiting: &Waiting) -> Result<(), Broken> {
        let sealed = self.keys.seal(finish_cell(record, id), waiting)?;
        self.connection.prepare_cached("UPDATE finishes SET body = ? WHERE id = ?")?.execute(params![sealed, id])?;
        self.refresh_state(record)
    }

    pub(super) fn close_finish(&self, record: u64, id: u64) -> Result<(), Broken> {
        self.connection.prepare_cached("DELETE FROM finishes WHERE id = ?")?.execute([id])?;
        self.refresh_state(record)
    }

    /// Everything open; settled records are not looked at.
    pub(super) fn open_items(&self) -> Result<Vec<OpenItem>, Broken> {
        let mut select = self.connection.prepare_cached(
            "SELECT id, revision, state FROM records INDEXED BY records_open WHERE state <> 0 ORDER BY id",
        )?;
        let rows = select
            .query_map((), |row| Ok(Row { id: row.get(0)?, revision: row.get(1)?, state: state_of(row.get(2)?) }))?;
        let mut items = Vec::new();
        for row in rows {
            let row = row?;
            let card = self.card(row)?;
            let item = |state, since, attempt, reason, due| OpenItem {
                uid: card.uid.clone(),
                title: card.title.clone(),
                state,
                since,
                attempt,
                reason,
                due,
            };
            for (_, attempt) in self.attempts(row.id)? {
                let state = if attempt.parked.is_some() { RecordState::Parked } else { RecordState::Open };
                items.push(item(state, attempt.staged_at, Some(attempt.id), attempt.parked, None));
            }
            let aside = self.aside(row.id)?;
            if let Some(parked) = aside.parked {
                items.push(item(RecordState::Parked, parked.at, None, Some(parked.reason), None));
            }
            if let Some(untold) = aside.untold {
                let Untold { since, attempt, last_failure, next_try, .. } = untold;
                items.push(item(RecordState::Hooks, since, attempt, last_failure, Some(next_try)));
            }
            for (_, waiting) in self.finishes(row.id)? {
                let PendingFinish { attempt, due, last_failure, .. } = waiting.finish;
                items.push(item(RecordState::Finishing, waiting.since, Some(attempt), last_failure, Some(due)));
            }
        }
        Ok(items)
    }
}

// ── budgets ─────────────────────────────────────────────────────────────────

/// Log-ins of one account that may have failed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Budget {
    pub(super) identity: Identity,
    /// In the order in which they were counted.
    pub(super) spent: Vec<Moment>,
}

const BUDGET: Cell<'static> = Cell { table: "budgets", column: "body", row: 0, version: 0 };

impl View<'_> {
    pub(super) fn budget(&self, identity: &Identity) -> Result<Budget, Broken> {
        let sealed: Option<Vec<u8>> = self
            .connection
            .prepare_cached("SELECT body FROM budgets WHERE account = ?")?
            .query_row([account(&self.keys, "budget", identity)], |row| row.get(0))
            .optional()?;
        let budget = match sealed {
            None => Budget { identity: identity.clone(), spent: Vec::new() },
            Some(sealed) => self.keys.unseal(BUDGET, &sealed)?,
        };
        if budget.identity != *identity {
            return Err(damaged("the budget of one account stands at another"));
        }
        Ok(budget)
    }

    pub(super) fn put_budget(&self, budget: &Budget) -> Result<(), Broken> {
        let sealed = self.keys.seal(BUDGET, budget)?;
        self.connection
            .prepare_cached("INSERT OR REPLACE INTO budgets (account, body) VALUES (?, ?)")?
            .execute(params![account(&self.keys, "budget", &budget.identity), sealed])?;
        Ok(())
    }

    pub(super) fn refund(&self, identity: &Identity) -> Result<(), Broken> {
        let mut budget = self.budget(identity)?;
        budget.spent.pop();
        self.put_budget(&budget)
    }

    pub(super) fn forget_budget(&self, identity: &Identity) -> Result<(), Broken> {
        self.connection
            .prepare_cached("DELETE FROM budgets WHERE account = ?")?
            .execute([account(&self.keys, "budget", identity)])?;
        Ok(())
    }

    pub(super) fn budgets(&self) -> Result<Vec<Budget>, Broken> {
        let mut select = self.connection.prepare_cached("SELECT body FROM budgets")?;
        let mut rows = select.query(())?;
        let mut budgets = Vec::new();
        while let Some(row) = rows.next()? {
            budgets.push(self.keys.unseal(BUDGET, &row.get::<_, Vec<u8>>(0)?)?);
        }
        Ok(budgets)
    }
}
