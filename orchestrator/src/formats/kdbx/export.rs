use std::collections::{BTreeSet, HashMap};
use std::io::{self, Write};
use std::time::Duration;

use jiff::Timestamp;
use keepass::Database;
use keepass::config::{DatabaseConfig, KdfConfig};
use keepass::db::{CustomDataItem, CustomDataValue, Entry, EntryId, GroupId, Times, Value as Text, fields};
use serde_json::{Map, Value, json};
use turnlock_protocol::Secret;

use super::import::read_back;
use super::{KEEPASS, Key, ONE_TIME_CODE, OTP, OURS, STANDARD, TYPE, number_of};
use crate::formats::flat::{Flat, layout_of};
use crate::formats::keeper::export::folder;
use crate::formats::keeper::json::clear;
use crate::formats::loss::differences;
use crate::formats::{Export, ExportError};
use crate::record::{Body, Earlier, Record};

/// Names of strings that a person may see without asking for them.
const SHOWN: [&str; 6] = ["$type", "$host", "$pamHostname", "cmdr:plugin", "cmdr:host", "cmdr:port"];

/// Gathers records and writes them as one document.
pub struct Exporter<W: Write> {
    out: W,
    key: Key,
    database: Database,
    groups: HashMap<Vec<String>, GroupId>,
}

impl<W: Write> Exporter<W> {
    /// Begins a file that this key will open.
    pub fn start(out: W, key: Key) -> Self {
        let mut config = DatabaseConfig::default();
        config.kdf_config =
            KdfConfig::Argon2id { iterations: 10, memory: 64 << 20, parallelism: 2, version: Default::default() };
        let mut database = Database::with_config(config);
        database.meta.generator = Some("Turnlock".to_owned());
        database.meta.database_name = Some("Turnlock".to_owned());
        // All of it stays, however long it is.
        database.meta.history_max_items = Some(-1);
        database.meta.history_max_size = Some(-1);
        Self { out, key, database, groups: HashMap::new() }
    }

    /// What opening the file shall cost whoever guesses.
    #[cfg(test)]
    pub(super) fn cost(&mut self, cost: KdfConfig) {
        self.database.config.kdf_config = cost;
    }

    fn group(&mut self, path: &[String]) -> GroupId {
        let mut at = self.database.root().id();
        for depth in 1..=path.len() {
            let Some((name, there)) = path.get(..depth).and_then(|there| Some((there.last()?, there))) else { break };
            if let Some(id) = self.groups.get(there) {
                at = *id;
                continue;
            }
            let Some(mut parent) = self.database.group_mut(at) else { break };
            let mut group = parent.add_group();
            group.name = sane(name);
            at = group.id();
            self.groups.insert(there.to_vec(), at);
        }
        at
    }
}

impl<W: Write> Export for Exporter<W> {
    fn record(&mut self, record: &Record) -> Result<Vec<String>, ExportError> {
        let path = path_of(record);
        let group = self.group(&path);
        let number = number_of(&record.uid);
        let twice = || io::Error::other("two records would have one number in KeePass");
        let Some(mut group) = self.database.group_mut(group) else { return Err(twice().into()) };
        let mut entry = group.add_entry_with_id(EntryId::from_uuid(number)).map_err(|_| twice())?;
        let mut past = (*entry).clone();
        past.history = None;
        fill(&mut entry, &record.title, record.notes.as_ref(), &record.body);
        attach(&mut entry, &beside(record, &path));
        only_keepass(&mut entry, record.extra.get(KEEPASS));
        let versions: Vec<Entry> = record.earlier.iter().map(|earlier| version(&past, earlier)).collect();
        let history = entry.history.get_or_insert_default();
        // The newest first: each is put before those that are there.
        versions.into_iter().rev().for_each(|version| history.add_entry(version));
        let id = entry.id();
        let read = self.database.entry(id).and_then(|entry| read_back(&self.database, &entry, &path));
        Ok(read.map_or_else(
            || vec!["the whole record: no import would take it".to_owned()],
            |read| differences(record, &read),
        ))
    }

    fn finish(mut self: Box<Self>) -> Result<(), ExportError> {
        let key = self.key.of_database().ok_or_else(|| io::Error::other("the key file cannot be used"))?;
        self.database.save(&mut self.out, key).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(self.out.flush()?)
    }
}

/// The groups of a record: those of its first folder.
fn path_of(record: &Record) -> Vec<String> {
    let Some(first) = record.folders.first() else { return Vec::new() };
    let parts = [first.shared.as_deref(), first.path.as_deref()].into_iter().flatten();
    parts.flat_map(components).filter(|name| !name.is_empty()).collect()
}

/// The names in a path: `/` between them, `\` before a literal one.
fn components(path: &str) -> Vec<String> {
    let mut names = vec![String::new()];
    let mut rest = path.chars();
    while let Some(c) = rest.next() {
        let literal = match c {
            '/' => {
                names.push(String::new());
                continue;
            }
            '\\' => rest.next().unwrap_or('\\'),
            c => c,
        };
        if let Some(name) = names.last_mut() {
            name.push(literal);
        }
    }
    names
}

/// Puts a record's fields into an entry.
fn fill(entry: &mut Entry, title: &str, notes: Option<&Secret>, body: &Body) {
    let flat = Flat::of(body);
    let texts = [(fields::USERNAME, &flat.login), (fields::PASSWORD, &flat.password), (fields::URL, &flat.url)];
    put(entry, fields::TITLE, title);
    for (name, text) in texts {
        put(entry, name, text.as_ref().map_or("", clear));
    }
    put(entry, fields::NOTES, notes.map_or("", clear));
    let typed = match body {
        Body::Untyped(_) => None,
        Body::Typed(body) => Some(body.record_type.as_str()),
    };
    let mut used: BTreeSet<String> = STANDARD.iter().map(|name| (*name).to_owned()).collect();
    if let Some(record_type) = typed {
        put(entry, TYPE, record_type);
        used.insert(TYPE.to_owned());
    }
    for (name, value) in &flat.pairs {
        let name = match name.as_str() {
            ONE_TIME_CODE if typed.is_some() => OTP.to_owned(),
            OTP if typed.is_some() => format!("$text:{OTP}"),
            name => sane(name),
        };
        let free = (2..).map(|number| format!("{name}#{number}"));
        let Some(name) = std::iter::once(name.clone()).chain(free).find(|name| !used.contains(name)) else { continue };
        put(entry, &name, clear(value));
        used.insert(name);
    }
    attach(entry, &json!({ "layout": layout_of(body) }));
}

/// Everything of a record that an entry's strings and groups do not tell.
fn beside(record: &Record, path: &[String]) -> Value {
    let mut beside = Map::from_iter([("layout".to_owned(), layout_of(&record.body))]);
    let told = match record.folders.as_slice() {
        [] => true,
        [one] => one.shared.is_none() && one.extra.is_empty() && path.iter().all(|name| *name == sane(name)),
        _ => false,
    };
    if !told {
        beside.insert("folders".to_owned(), record.folders.iter().map(folder).collect());
    }
    let extra: Map<String, Value> = record
        .extra
        .iter()
        .filter(|(key, _)| *key != KEEPASS)
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    if !extra.is_empty() {
        beside.insert("extra".to_owned(), Value::Object(extra));
    }
    if super::uid_of(&number_of(&record.uid)) != record.uid.as_str() {
        beside.insert("uid".to_owned(), record.uid.as_str().into());
    }
    Value::Object(beside)
}

fn attach(entry: &mut Entry, beside: &Value) {
    let item =
        CustomDataItem { value: Some(CustomDataValue::String(beside.to_string())), last_modification_time: None };
    entry.custom_data.insert(OURS.to_owned(), item);
}

/// One earlier version, from an entry without any field.
fn version(empty: &Entry, earlier: &Earlier) -> Entry {
    let mut version = empty.clone();
    fill(&mut version, &earlier.title, earlier.notes.as_ref(), &earlier.body);
    let seconds = earlier.at.and_then(|at| u64::try_from(at.as_second()).ok());
    version.times.last_modification = seconds.map(|seconds| Times::epoch() + Duration::from_secs(seconds));
    version
}

/// Puts back what an import from KeePass said.
fn only_keepass(entry: &mut Entry, said: Option<&Value>) {
    let Some(said) = said else { return };
    let tags = said.get("tags").and_then(Value::as_array).into_iter().flatten();
    entry.tags = tags.filter_map(Value::as_str).map(str::to_owned).collect();
    let expires = said.get("expires").and_then(Value::as_str).and_then(|text| text.parse::<Timestamp>().ok());
    if let Some(seconds) = expires.and_then(|at| u64::try_from(at.as_second()).ok()) {
        entry.times.expires = Some(true);
        entry.times.expiry = Times::epoch() + Duration::from_secs(seconds);
    }
}

/// Protected in memory, and kept to the letter, unless it may be shown and
/// survives XML by itself.
fn put(entry: &mut Entry, name: &str, text: &str) {
    let shown =
        (STANDARD.contains(&name) && name != fields::PASSWORD) || SHOWN.iter().any(|prefix| name.starts_with(prefix));
    let plain = text.trim() == text && text.chars().all(|c| c == '\n' || c == '\t' || is_xml(c));
    let value = if shown && plain { Text::unprotected(text) } else { Text::protected(text) };
    entry.set(name, value);
}

/// A name as XML can hold it.
fn sane(name: &str) -> String {
    name.chars().map(|c| if is_xml(c) { c } else { '\u{fffd}' }).collect()
}

fn is_xml(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}')
}
