use std::collections::BTreeSet;
use std::io::Read;

use jiff::Timestamp;
use keepass::Database;
use keepass::db::{Entry, EntryRef, GroupId, GroupRef, Icon, Value as Text, fields};
use keepass::error::{CryptographyError, DatabaseKeyError, DatabaseOpenError};
use quick_xml::events::Event;
use serde_json::{Map, Value, json};
use turnlock_protocol::{RandomSource, Secret};
use zeroize::Zeroizing;

use super::{KEEPASS, Key, ONE_TIME_CODE, OTP, OURS, STANDARD, TYPE, uid_of};
use crate::formats::flat::Flat;
use crate::formats::keeper::json::Node;
use crate::formats::{ImportError, Intake, Sink, reread};
use crate::generate;
use crate::record::{Earlier, Record};

/// How often a reference may lead to another one.
const DEEPEST: u32 = 8;

/// Reads every entry but those in the recycle bin.
pub fn import(source: impl Read, key: &Key, sink: &mut dyn Sink) -> Result<(), ImportError> {
    import_with(source, key, sink, &mut generate::SystemRandom)
}

/// The same with another source of new UIDs.
pub fn import_with(
    mut source: impl Read,
    key: &Key,
    sink: &mut dyn Sink,
    random: &mut dyn RandomSource,
) -> Result<(), ImportError> {
    let mut file = Zeroizing::new(Vec::new());
    source.read_to_end(&mut file).map_err(|error| ImportError::Unreadable(error.to_string()))?;
    let opening = || key.of_database().ok_or(ImportError::WrongKey);
    let xml = Zeroizing::new(Database::get_xml(&mut file.as_slice(), opening()?).map_err(refused)?);
    if !is_in_order(&xml) {
        return Err(ImportError::Disordered);
    }
    drop(xml);
    let database = Database::parse(&file, opening()?).map_err(refused)?;
    drop(file);
    let mut intake = Intake::new(sink, random);
    let bin = database.recycle_bin().map(|group| group.id());
    let mut groups = vec![(database.root().id(), Vec::new())];
    while let Some((id, path)) = groups.pop() {
        let Some(group) = database.group(id) else { continue };
        if Some(id) == bin {
            let count = entries_below(&group);
            if count > 0 {
                intake.lost(&group.name, &format!("{count} deleted entries"));
            }
            continue;
        }
        if group.notes.as_ref().is_some_and(|notes| !notes.is_empty()) {
            intake.lost(&group.name, "the notes of this group");
        }
        for entry in group.entries() {
            take(&database, &entry, &path, &mut intake)?;
        }
        let mut below: Vec<(GroupId, Vec<String>)> = group
            .groups()
            .map(|group| (group.id(), path.iter().cloned().chain([group.name.clone()]).collect()))
            .collect();
        below.reverse();
        groups.extend(below);
    }
    intake.finish();
    Ok(())
}

/// Whether every entry's own strings stand before its history. Protected ones
/// are encrypted one after the other in the order of the file, and the library
/// decrypts an entry's own first: others would silently become rubbish.
fn is_in_order(xml: &[u8]) -> bool {
    /// An open element.
    struct Open {
        is_history: bool,
        has_past: bool,
    }
    let mut reader = quick_xml::Reader::from_reader(xml);
    let mut buffer = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    loop {
        buffer.clear();
        match reader.read_event_into(&mut buffer) {
            Ok(Event::Start(element)) => {
                let name = element.name();
                let name: &str = name.as_ref();
                let in_history = open.last().is_some_and(|parent| parent.is_history);
                if name == "Entry" && in_history {
                    let owner = open.len().checked_sub(2).and_then(|at| open.get_mut(at));
                    owner.into_iter().for_each(|owner| owner.has_past = true);
                }
                if name == "String" && open.last().is_some_and(|entry| entry.has_past) {
                    return false;
                }
                open.push(Open { is_history: name == "History", has_past: false });
            }
            Ok(Event::End(_)) => drop(open.pop()),
            // What is no XML is told by who reads it.
            Ok(Event::Eof) | Err(_) => return true,
            Ok(_) => {}
        }
    }
}

fn refused(error: DatabaseOpenError) -> ImportError {
    match error {
        // In KDBX 3 a wrong key shows at the end of what it decrypts.
        DatabaseOpenError::Key(DatabaseKeyError::IncorrectKey)
        | DatabaseOpenError::Cryptography(CryptographyError::InvalidPadding(_)) => ImportError::WrongKey,
        other => ImportError::NotKdbx(other.to_string()),
    }
}

fn entries_below(group: &GroupRef<'_>) -> usize {
    group.entries().count() + group.groups().map(|group| entries_below(&group)).sum::<usize>()
}

fn take(
    database: &Database,
    entry: &EntryRef<'_>,
    path: &[String],
    intake: &mut Intake<'_>,
) -> Result<(), ImportError> {
    let mut losses = not_kept(entry);
    let (mut record, at, more) = intake.read(Node::Object(object(database, entry, path, &mut losses)))?;
    losses.extend(more);
    record.earlier = earlier(database, entry);
    intake.take(record, at, losses)
}

/// What an import would read in an entry that was just made.
pub(super) fn read_back(database: &Database, entry: &EntryRef<'_>, path: &[String]) -> Option<Record> {
    let (mut record, _) = reread(Node::Object(object(database, entry, path, &mut Vec::new())))?;
    record.earlier = earlier(database, entry);
    Some(record)
}

/// An entry as an object in Commander's JSON form.
fn object(database: &Database, entry: &EntryRef<'_>, path: &[String], losses: &mut Vec<String>) -> Vec<(String, Node)> {
    let mut members = members(database, entry, losses);
    let ours = beside(entry);
    let said = |name: &str| ours.as_ref().and_then(|ours| ours.get(name));
    if !members.iter().any(|(key, _)| key == "uid") {
        members.push(("uid".to_owned(), plain(&uid_of(&entry.id().uuid()))));
    }
    match said("folders") {
        Some(folders) => members.push(("folders".to_owned(), Node::of_value(folders.clone()))),
        None if path.is_empty() => {}
        None => {
            let names: Vec<String> = path.iter().map(|name| name.replace('\\', "\\\\")).collect();
            members.push(("folders".to_owned(), Node::List(vec![plain(&names.join("\\"))])));
        }
    }
    for (key, value) in said("extra").and_then(Value::as_object).into_iter().flatten() {
        members.push((key.clone(), Node::of_value(value.clone())));
    }
    members.extend(only_keepass(entry).map(|keepass| (KEEPASS.to_owned(), Node::of_value(keepass))));
    members
}

/// An entry as an object in Commander's JSON form, without its place.
fn members(database: &Database, entry: &Entry, losses: &mut Vec<String>) -> Vec<(String, Node)> {
    let ours = beside(entry);
    let read = |name: &str, losses: &mut Vec<String>| {
        let text = Zeroizing::new(entry.get(name).unwrap_or_default().to_owned());
        let resolved = resolved(database, &text, DEEPEST, losses);
        (!resolved.is_empty()).then(|| Secret::new(resolved))
    };
    let typed = entry.get(TYPE).map(str::to_owned);
    let mut flat = Flat {
        login: read(fields::USERNAME, losses),
        password: read(fields::PASSWORD, losses),
        url: read(fields::URL, losses),
        pairs: Vec::new(),
    };
    let names: BTreeSet<&str> = entry.fields.keys().map(String::as_str).collect();
    let mut strings: Vec<(&str, u32)> = names
        .iter()
        .filter(|name| !STANDARD.contains(*name) && **name != TYPE)
        .map(|name| match name.rsplit_once('#') {
            // `x#2` is a second `x` only where there is a first.
            Some((base, number)) if names.contains(base) => {
                number.parse().map_or((*name, 1), |number: u32| (base, number.max(2)))
            }
            _ => (*name, 1),
        })
        .collect();
    strings.sort_unstable();
    for (name, number) in strings {
        let there = if number == 1 { name.to_owned() } else { format!("{name}#{number}") };
        let Some(value) = read(&there, losses) else { continue };
        let key = if name == OTP && typed.is_some() { ONE_TIME_CODE } else { name };
        flat.pairs.push((key.to_owned(), value));
    }
    let title = entry.get(fields::TITLE).unwrap_or_default();
    let mut members = vec![("title".to_owned(), plain(title))];
    if let Some(uid) = ours.as_ref().and_then(|ours| ours.get("uid")).and_then(Value::as_str) {
        members.push(("uid".to_owned(), plain(uid)));
    }
    members.extend(read(fields::NOTES, losses).map(|notes| ("notes".to_owned(), Node::Text(notes))));
    let layout = ours.and_then(|mut ours| ours.get_mut("layout").map(Value::take));
    members.extend(flat.into_members(typed, layout));
    members
}

fn plain(text: &str) -> Node {
    Node::Text(Secret::new(text.to_owned()))
}

/// What our own export put beside an entry.
fn beside(entry: &Entry) -> Option<Value> {
    let item = entry.custom_data.get(OURS)?.value.as_ref()?;
    match item {
        keepass::db::CustomDataValue::String(text) => serde_json::from_str(text).ok(),
        keepass::db::CustomDataValue::Binary(_) => None,
    }
}

/// What only KeePass knows, kept for an export to it.
fn only_keepass(entry: &Entry) -> Option<Value> {
    let mut only = Map::new();
    if !entry.tags.is_empty() {
        only.insert("tags".to_owned(), json!(entry.tags));
    }
    if entry.times.expires == Some(true)
        && let Ok(at) = Timestamp::from_second(entry.times.expiry.and_utc().timestamp())
    {
        only.insert("expires".to_owned(), json!(at));
    }
    (!only.is_empty()).then(|| Value::Object(only))
}

/// What of an entry has no place in a record.
fn not_kept(entry: &EntryRef<'_>) -> Vec<String> {
    let mut lost: Vec<String> =
        entry.attachments_named().map(|(name, _)| format!("attached file '{}'", name.escape_debug())).collect();
    lost.sort();
    let typing = entry.autotype.as_ref();
    let facts = [
        (matches!(entry.icon(), Some(Icon::Custom(_))), "its icon"),
        (entry.foreground_color.is_some() || entry.background_color.is_some(), "its colours"),
        (entry.override_url.as_ref().is_some_and(|url| !url.is_empty()), "its override of the URL"),
        (
            typing.is_some_and(|typing| {
                !typing.associations.is_empty() || typing.default_sequence.as_ref().is_some_and(|keys| !keys.is_empty())
            }),
            "its auto-type",
        ),
    ];
    lost.extend(facts.into_iter().filter(|(there, _)| *there).map(|(_, what)| what.to_owned()));
    let mut foreign: Vec<&String> =
        entry.custom_data.keys().filter(|key| *key != OURS && !key.starts_with('_')).collect();
    foreign.sort();
    lost.extend(foreign.into_iter().map(|key| format!("plugin data '{}'", key.escape_debug())));
    lost
}

/// An entry's history, oldest first.
fn earlier(database: &Database, entry: &Entry) -> Vec<Earlier> {
    let history = entry.history.as_ref().map(|history| history.get_entries().iter()).into_iter().flatten();
    let mut earlier: Vec<Earlier> = history
        .filter_map(|past| {
            let (record, _) = reread(Node::Object(members(database, past, &mut Vec::new())))?;
            let Record { title, notes, body, .. } = record;
            let changed = past.times.last_modification.map(|at| at.and_utc().timestamp());
            Some(Earlier { at: changed.and_then(|second| Timestamp::from_second(second).ok()), title, notes, body })
        })
        .collect();
    earlier.sort_by_key(|earlier| earlier.at);
    earlier
}

// ---- references between entries ----

/// A text with every `{REF:FIELD@SEARCH:TEXT}` replaced by what it means.
fn resolved(database: &Database, text: &str, depth: u32, losses: &mut Vec<String>) -> String {
    let Some((before, rest)) = text.split_once("{REF:") else {
        return text.to_owned();
    };
    let Some((reference, after)) = rest.split_once('}') else {
        return text.to_owned();
    };
    let meant = if depth == 0 { None } else { referred(database, reference) };
    let mut whole = before.to_owned();
    match meant {
        Some(value) => whole.push_str(&resolved(database, &value, depth - 1, losses)),
        None => {
            losses.push("a reference that leads nowhere: kept as text".to_owned());
            whole.push_str(&format!("{{REF:{reference}}}"));
        }
    }
    whole.push_str(&resolved(database, after, depth, losses));
    whole
}

/// What `P@I:46C9B1FFBD4ABC4BBB260C6190BAD20C` means.
fn referred(database: &Database, reference: &str) -> Option<Zeroizing<String>> {
    let (wanted, search) = reference.split_once('@')?;
    let (by, sought) = search.split_once(':')?;
    let name_of = |letter: &str| match letter.to_ascii_uppercase().as_str() {
        "T" => Some(fields::TITLE),
        "U" => Some(fields::USERNAME),
        "P" => Some(fields::PASSWORD),
        "A" => Some(fields::URL),
        "N" => Some(fields::NOTES),
        _ => None,
    };
    let found = database.iter_all_entries().find(|entry| match by.to_ascii_uppercase().as_str() {
        "I" => entry.id().uuid().simple().to_string().eq_ignore_ascii_case(sought),
        "O" => entry.fields.iter().any(|(name, value)| !STANDARD.contains(&name.as_str()) && has(value, sought)),
        letter => name_of(letter).and_then(|name| entry.fields.get(name)).is_some_and(|value| has(value, sought)),
    })?;
    if wanted.eq_ignore_ascii_case("I") {
        return Some(Zeroizing::new(found.id().uuid().simple().to_string().to_uppercase()));
    }
    found.get(name_of(wanted)?).map(|text| Zeroizing::new(text.to_owned()))
}

fn has(value: &Text<String>, sought: &str) -> bool {
    value.get().to_lowercase().contains(&sought.to_lowercase())
}
