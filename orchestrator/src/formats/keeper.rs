//! Keeper's JSON, in and out: what Commander's `export --format json` writes,
//! and raw records of either shape as vaults and other tools show them.
//!
//! Commander's form forgets some things of a typed record (which list a field
//! stood in, the label of the first login, the order of repeated fields). What
//! it would forget is written beside it under the key `turnlock`, which
//! Commander ignores, so that our own round trip is exact.

pub(in crate::formats) mod export;
pub(in crate::formats) mod import;
pub(crate) mod json;
pub(crate) mod raw;

use crate::record::{Folder, Section, standard_fields};

pub use export::Exporter;
pub use import::{import, import_with};
pub use raw::RawExporter;

/// The key under which a record keeps what Commander's form forgets.
pub(in crate::formats) const OURS: &str = "turnlock";

/// Typed fields that hold many values; other lists are several fields.
const MANY_VALUED: [&str; 6] = ["fileRef", "cardRef", "addressRef", "recordRef", "phone", "pamResources"];

/// The fields that stand at the top of a record: their key and type.
const TOP: [(&str, &str); 3] = [("login", "login"), ("password", "password"), ("login_url", "url")];

/// One field of a typed record and where its values stand in Commander's form.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shape {
    /// `login`, `password`, `login_url`, or a key of `custom_fields`.
    at: String,
    /// Whether `at` is one of the three at the top.
    top: bool,
    section: Section,
    kind: String,
    label: Option<String>,
    /// How many of the values there are this field's.
    values: usize,
}

/// `$type` or `$type:label`.
pub(in crate::formats) fn key_of(kind: &str, label: Option<&str>) -> String {
    match label {
        Some(label) => format!("${kind}:{label}"),
        None => format!("${kind}"),
    }
}

/// Splits a key at its first colon; a key without `$` is a text's label.
pub(in crate::formats) fn split_key(key: &str) -> (String, Option<String>) {
    match key.strip_prefix('$') {
        None => ("text".to_owned(), Some(key.to_owned())),
        Some(name) => match name.split_once(':') {
            Some((kind, label)) => (kind.to_owned(), Some(label.to_owned())),
            None => (name.to_owned(), None),
        },
    }
}

/// The fields that Commander's form alone says a typed record has.
///
/// `top` are the keys at the top that are there, `custom` the keys of
/// `custom_fields` with the number of their values, `schema` that of a type of
/// the vault's own.
fn plain_shapes(record_type: &str, schema: &[String], top: &[&str], custom: &[(&str, usize)]) -> Vec<Shape> {
    let standard = standard_fields(record_type);
    let rank = |kind: &str, label: Option<&str>| match standard {
        Some(fields) => fields.iter().position(|field| *field == (kind, label)),
        None => {
            let key = key_of(kind, label);
            schema.iter().position(|listed| *listed == key)
        }
    };
    let mut fields: Vec<(usize, Shape)> = Vec::new();
    let mut others: Vec<Shape> = Vec::new();
    let mut add = |at: &str, top: bool, kind: String, label: Option<String>, values: usize| {
        let rank = rank(&kind, label.as_deref()).or((top && standard.is_none() && schema.is_empty()).then_some(0));
        let section = if rank.is_some() { Section::Fields } else { Section::Custom };
        let shape = Shape { at: at.to_owned(), top, section, kind, label, values };
        match rank {
            Some(rank) => fields.push((rank, shape)),
            None => others.push(shape),
        }
    };
    for at in top {
        let kind = TOP.iter().find(|(key, _)| key == at).map_or(*at, |(_, kind)| kind);
        add(at, true, kind.to_owned(), None, 1);
    }
    for (key, count) in custom {
        let (kind, label) = split_key(key);
        if *count == 0 || MANY_VALUED.contains(&kind.as_str()) {
            add(key, false, kind, label, *count);
        } else {
            for _ in 0..*count {
                add(key, false, kind.clone(), label.clone(), 1);
            }
        }
    }
    fields.sort_by_key(|(rank, _)| *rank);
    fields.into_iter().map(|(_, shape)| shape).chain(others).collect()
}

/// A path as Keeper writes it (`\` between folders, doubled where meant
/// literally) as we write it (`/` between folders, `\` before a literal `/` or `\`).
pub(in crate::formats) fn path_from_keeper(path: &str) -> String {
    let mut ours = String::with_capacity(path.len());
    let mut rest = path.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\\' if rest.peek() == Some(&'\\') => {
                rest.next();
                ours.push_str("\\\\");
            }
            '\\' => ours.push('/'),
            '/' => ours.push_str("\\/"),
            c => ours.push(c),
        }
    }
    ours
}

/// The way back.
pub(in crate::formats) fn path_to_keeper(path: &str) -> String {
    let mut keepers = String::with_capacity(path.len());
    let mut rest = path.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => match rest.next() {
                Some('\\') | None => keepers.push_str("\\\\"),
                Some(c) => keepers.push(c),
            },
            '/' => keepers.push('\\'),
            c => keepers.push(c),
        }
    }
    keepers
}

fn folder_from_keeper(shared: Option<&str>, path: Option<&str>) -> Folder {
    Folder { shared: shared.map(path_from_keeper), path: path.map(path_from_keeper), extra: serde_json::Map::new() }
}

#[cfg(test)]
pub(in crate::formats) mod tests;
