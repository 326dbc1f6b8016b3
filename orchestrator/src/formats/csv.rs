//! Commander's CSV: no heading; folder, title, login, password, URL, notes,
//! shared folder, then names and values of further fields in turn.

use std::io::{self, Read, Write};

use ::csv::{ErrorKind, ReaderBuilder, StringRecord, Terminator, WriterBuilder};
use turnlock_protocol::{RandomSource, Secret};

use super::flat::Flat;
use super::keeper::json::{Node, clear};
use super::keeper::path_to_keeper;
use super::loss::differences;
use super::{Export, ExportError, ImportError, Intake, Loss, Sink, reread, text};
use crate::generate;
use crate::record::{Folder, Record};

/// Columns before the names and values.
const FIXED: usize = 7;
/// Rows with fewer columns are none.
const LEAST: usize = 6;
/// What a shared folder's name may end with, and what that grants.
const RIGHTS: [(&str, &str); 2] = [("#edit", "can_edit"), ("#reshare", "can_share")];

/// Reads records, one a row. Those without a UID get one.
pub fn import(source: impl Read, sink: &mut dyn Sink) -> Result<(), ImportError> {
    import_with(source, sink, &mut generate::SystemRandom)
}

/// The same with another source of new UIDs.
pub fn import_with(source: impl Read, sink: &mut dyn Sink, random: &mut dyn RandomSource) -> Result<(), ImportError> {
    let mut intake = Intake::new(sink, random);
    let mut rows = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text(source)?);
    let mut row = StringRecord::new();
    loop {
        match rows.read_record(&mut row) {
            Ok(true) if row.len() >= LEAST => {
                let rest = row.len().saturating_sub(FIXED);
                if rest % 2 == 1 && row.get(row.len() - 1).is_some_and(|name| !name.is_empty()) {
                    let title = row.get(1).unwrap_or_default().to_owned();
                    intake.sink.loss(Loss { uid: None, title, what: "its last field, which has a name only".into() });
                }
                intake.node(Node::Object(members(&row)))?;
            }
            Ok(true) => {
                let line = row.position().map_or(0, ::csv::Position::line);
                intake.lost(&format!("line {line}"), "a row of fewer than 6 columns");
            }
            Ok(false) => break,
            Err(error) => {
                let line = error.position().map_or(0, ::csv::Position::line);
                return Err(match error.into_kind() {
                    ErrorKind::Io(error) => ImportError::Unreadable(error.to_string()),
                    _ => ImportError::NotText { line },
                });
            }
        }
    }
    intake.finish();
    Ok(())
}

/// A row as an object in Commander's JSON form.
fn members(row: &StringRecord) -> Vec<(String, Node)> {
    let cell = |at: usize| row.get(at).unwrap_or_default();
    let text = |text: &str| Node::Text(Secret::new(text.to_owned()));
    let secret = |text: &str| (!text.is_empty()).then(|| Secret::new(text.to_owned()));
    let mut flat = Flat { login: secret(cell(2)), password: secret(cell(3)), url: secret(cell(4)), pairs: Vec::new() };
    let (mut uid, mut record_type) = (None, None);
    let mut rest = row.iter().skip(FIXED);
    while let (Some(name), Some(value)) = (rest.next(), rest.next()) {
        match name {
            "" => {}
            _ if value.is_empty() => {}
            "$record_uid" => uid = Some(value),
            "$type" => record_type = Some(value.to_owned()),
            name => flat.pairs.push((name.to_owned(), Secret::new(value.to_owned()))),
        }
    }
    let mut members = vec![("title".to_owned(), text(cell(1)))];
    members.extend(uid.map(|uid| ("uid".to_owned(), text(uid))));
    members.extend(secret(cell(5)).map(|notes| ("notes".to_owned(), Node::Text(notes))));
    members.extend(flat.into_members(record_type, None));
    let mut shared = cell(6);
    let mut folder = Vec::new();
    while let Some((right, name)) =
        RIGHTS.iter().find_map(|(suffix, right)| shared.strip_suffix(suffix).map(|name| (*right, name)))
    {
        folder.push((right.to_owned(), Node::Bool(true)));
        shared = name;
    }
    for (key, path) in [("shared_folder", shared), ("folder", cell(0))] {
        if !path.is_empty() {
            folder.push((key.to_owned(), text(path)));
        }
    }
    if !folder.is_empty() {
        members.push(("folders".to_owned(), Node::List(vec![Node::Object(folder)])));
    }
    members
}

/// Writes records, one a row.
pub struct Exporter<W: Write> {
    out: ::csv::Writer<W>,
}

impl<W: Write> Exporter<W> {
    /// Begins a file.
    pub fn start(out: W) -> Self {
        Self { out: WriterBuilder::new().flexible(true).terminator(Terminator::CRLF).from_writer(out) }
    }
}

impl<W: Write> Export for Exporter<W> {
    fn record(&mut self, record: &Record) -> Result<Vec<String>, ExportError> {
        let row = row_of(record);
        self.out.write_record(&row).map_err(|error| match error.into_kind() {
            ErrorKind::Io(error) => error,
            _ => io::Error::other("a row cannot be written"),
        })?;
        Ok(match reread(Node::Object(members(&row))) {
            Some((read, _)) => differences(record, &read),
            None => vec!["the whole record: no import would take it".to_owned()],
        })
    }

    fn finish(mut self: Box<Self>) -> Result<(), ExportError> {
        Ok(self.out.flush()?)
    }
}

fn row_of(record: &Record) -> StringRecord {
    let flat = Flat::of(&record.body);
    let first = record.folders.first();
    let path = |path: Option<&String>| path.map(|path| path_to_keeper(path)).unwrap_or_default();
    let mut row = StringRecord::new();
    row.push_field(&path(first.and_then(|folder| folder.path.as_ref())));
    row.push_field(&record.title);
    for text in [&flat.login, &flat.password, &flat.url, &record.notes] {
        row.push_field(text.as_ref().map_or("", clear));
    }
    row.push_field(&shared(first));
    row.push_field("$record_uid");
    row.push_field(record.uid.as_str());
    if let Some(record_type) = record.record_type() {
        row.push_field("$type");
        row.push_field(record_type);
    }
    for (name, value) in &flat.pairs {
        row.push_field(name);
        row.push_field(clear(value));
    }
    row
}

/// A shared folder with what is granted in it.
fn shared(folder: Option<&Folder>) -> String {
    let Some(folder) = folder else { return String::new() };
    let mut name = folder.shared.as_deref().map(path_to_keeper).unwrap_or_default();
    for (suffix, right) in RIGHTS {
        if !name.is_empty() && folder.extra.get(right) == Some(&serde_json::Value::Bool(true)) {
            name.push_str(suffix);
        }
    }
    name
}

#[cfg(test)]
mod tests;
