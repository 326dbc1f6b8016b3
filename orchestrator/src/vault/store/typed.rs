//! A record as a vault program tells it, and as ours: the same fields in the
//! same order, and what we keep beside them in one field of our own.

use std::fmt::Write as _;

use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Map;
use sha2::{Digest, Sha256};
use turnlock_protocol::Secret;
use zeroize::Zeroizing;

use crate::formats::keeper::json::Node;
use crate::formats::keeper::raw::RawField;
use crate::record::{Body, Field, FieldValue, Folder, Record, Typed, Uid};

/// The field that holds what stands beside a record.
pub(super) const FIELD: &str = "turnlock:state";
/// Its type: programs that show records hide it.
const KIND: &str = "secret";

/// A record on the wire.
#[derive(Deserialize)]
pub(super) struct Told {
    uid: String,
    /// The store's own number of its latest change.
    pub(super) revision: u64,
    writable: bool,
    folder: Option<String>,
    data: Option<Node>,
}

/// A record and the content of [`FIELD`].
pub(super) struct Read {
    pub(super) record: Record,
    pub(super) state: Option<Secret>,
}

impl Told {
    pub(super) fn uid(&self) -> Uid {
        Uid::new(&self.uid)
    }

    /// Reads the record.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(self) -> Result<Read, &'static str> {
        let Some(Node::Object(members)) = self.data else {
            return Err("it cannot be read with this application's keys");
        };
        let mut record = Record {
            uid: Uid::new(self.uid),
            title: String::new(),
            notes: None,
            folders: self.folder.iter().map(|path| folder(path)).collect(),
            body: Body::Typed(Typed { record_type: String::new(), fields: Vec::new(), custom: Vec::new() }),
            writable: self.writable,
            earlier: Vec::new(),
            extra: Map::new(),
        };
        let mut state = None;
        let (mut record_type, mut fields, mut custom) = (None, Vec::new(), Vec::new());
        for (name, node) in members {
            match name.as_str() {
                "type" => record_type = node.plain().map(str::to_owned),
                "title" => record.title = node.plain().unwrap_or_default().to_owned(),
                "notes" => record.notes = node.into_text().ok(),
                "fields" => fields = fields_of(node)?,
                "custom" => custom = fields_of(node)?,
                _ => drop(record.extra.insert(name, node.into_value())),
            }
        }
        custom.retain_mut(|field: &mut Field| {
            let ours = field.label.as_deref() == Some(FIELD);
            if ours && let Some(FieldValue::Text(text)) = field.value.pop() {
                state = Some(text);
            }
            !ours
        });
        let record_type = record_type.ok_or("it is no typed record")?;
        record.body = Body::Typed(Typed { record_type, fields, custom });
        Ok(Read { record, state })
    }
}

/// The record as a store keeps it, with what stands beside it.
pub(super) fn written(record: &Record, state: Option<&Secret>) -> Result<Zeroizing<Vec<u8>>, serde_json::Error> {
    let mut json = Zeroizing::new(Vec::with_capacity(16 * 1024));
    serde_json::to_writer(&mut *json, &Whole { record, state })?;
    Ok(json)
}

/// A number that changes with a record's content, and with nothing else.
pub(super) fn content(record: &Record) -> u64 {
    let json = written(record, None).unwrap_or_default();
    let digest = Sha256::digest(&*json);
    // As many bits as every reader of JSON keeps.
    digest.iter().take(6).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// A digest in hexadecimal.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The first part of a path is the shared folder.
fn folder(path: &str) -> Folder {
    let (shared, below) = path.split_once('/').map_or((path, None), |(shared, below)| (shared, Some(below)));
    Folder { shared: Some(shared.to_owned()), path: below.map(str::to_owned), extra: Map::new() }
}

fn fields_of(node: Node) -> Result<Vec<Field>, &'static str> {
    let Node::List(nodes) = node else {
        return Err("its fields are no list");
    };
    nodes.into_iter().map(field_of).collect()
}

fn field_of(node: Node) -> Result<Field, &'static str> {
    let Node::Object(members) = node else {
        return Err("one of its fields is no object");
    };
    let mut field = Field::new("", None);
    for (name, node) in members {
        match name.as_str() {
            "type" => node.plain().unwrap_or_default().clone_into(&mut field.kind),
            "label" => field.label = node.plain().map(str::to_owned),
            "value" => field.value = node.into_items().into_iter().map(Node::into_field_value).collect(),
            _ => drop(field.extra.insert(name, node.into_value())),
        }
    }
    Ok(field)
}

/// A record as it goes out.
pub(super) struct Whole<'a> {
    pub(super) record: &'a Record,
    pub(super) state: Option<&'a Secret>,
}

impl Serialize for Whole<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Body::Typed(body) = &self.record.body else {
            return Err(serde::ser::Error::custom("not a typed record"));
        };
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("title", &self.record.title)?;
        map.serialize_entry("type", &body.record_type)?;
        map.serialize_entry("fields", &Fields(&body.fields, None))?;
        map.serialize_entry("custom", &Fields(&body.custom, self.state))?;
        if let Some(notes) = &self.record.notes {
            map.serialize_entry("notes", notes)?;
        }
        for (name, value) in &self.record.extra {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

struct Fields<'a>(&'a [Field], Option<&'a Secret>);

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct State<'a> {
            r#type: &'static str,
            label: &'static str,
            value: [&'a Secret; 1],
        }
        let mut list = serializer.serialize_seq(None)?;
        for field in self.0 {
            list.serialize_element(&RawField(field))?;
        }
        if let Some(state) = self.1 {
            list.serialize_element(&State { r#type: KIND, label: FIELD, value: [state] })?;
        }
        list.end()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn told(data: &Value) -> Told {
        let wire = json!({"uid": "A", "revision": 7, "writable": true, "folder": "Infra/DB/prod", "data": data});
        serde_json::from_value(wire).unwrap()
    }

    #[test]
    fn a_record_survives_untouched_and_its_state_is_no_part_of_it() {
        let data = json!({"title": "PG", "type": "databaseCredentials", "fields": [
            {"type": "text", "label": "type", "value": ["postgresql"]},
            {"type": "host", "value": [{"hostName": "10.0.0.5", "port": 5432}], "required": true},
            {"type": "password", "value": ["old"], "complexity": {"length": 12}},
            {"type": "fileRef", "value": []}],
            "custom": [{"type": "checkbox", "label": "x", "value": [true]}, {"type": "date", "value": [1.5, null]}],
            "notes": "n", "unknown": {"a": [1]}});
        let read = told(&data).read().unwrap();
        assert!(read.state.is_none());
        assert_eq!(read.record.folder_paths(), ["Infra/DB/prod"]);
        let back: Value = serde_json::from_slice(&written(&read.record, None).unwrap()).unwrap();
        assert_eq!(back, data);

        let with = written(&read.record, Some(&Secret::new("{}".into()))).unwrap();
        let again = told(&serde_json::from_slice(&with).unwrap()).read().unwrap();
        assert!(again.state.unwrap().same_as(&Secret::new("{}".into())));
        assert_eq!(content(&again.record), content(&read.record));
        assert!(again.record.options().is_empty(), "the state is no option of the record");
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        assert!(told(&json!({"title": "v2", "secret1": "login"})).read().is_err());
        assert!(told(&json!({"type": "login", "fields": {}})).read().is_err());
        assert!(told(&Value::Null).read().is_err());
    }
}
