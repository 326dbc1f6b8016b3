use std::collections::BTreeSet;
use std::io::{self, Write};

use serde::Serialize;
use serde::ser::{SerializeMap, SerializeSeq as _, Serializer};
use serde_json::{Value, json};
use turnlock_protocol::Secret;

use super::import::schema_of;
use super::raw::RawValue;
use super::{OURS, Shape, TOP, key_of, path_to_keeper, plain_shapes};
use crate::formats::{Export, ExportError};
use crate::record::{Body, Earlier, Field, FieldValue, Folder, Record, Section, Typed, Untyped, standard_fields};

/// Writes Commander's JSON one record at a time; nothing is held back but the
/// names of the shared folders, which Commander makes before their records.
#[derive(Debug)]
pub struct Exporter<W: Write> {
    out: W,
    first: bool,
    shared: BTreeSet<String>,
}

impl<W: Write> Exporter<W> {
    /// Begins a file.
    pub fn start(mut out: W) -> Result<Self, ExportError> {
        out.write_all(b"{\"records\":[")?;
        Ok(Self { out, first: true, shared: BTreeSet::new() })
    }
}

impl<W: Write> Export for Exporter<W> {
    fn record(&mut self, record: &Record) -> Result<Vec<String>, ExportError> {
        self.out.write_all(if self.first { b"\n" } else { b",\n" })?;
        self.first = false;
        for shared in record.folders.iter().filter_map(|folder| folder.shared.as_ref()) {
            if !shared.is_empty() && !self.shared.contains(shared) {
                self.shared.insert(shared.clone());
            }
        }
        serde_json::to_writer(&mut self.out, &Exported(record)).map_err(io::Error::from)?;
        Ok(Vec::new())
    }

    fn finish(mut self: Box<Self>) -> Result<(), ExportError> {
        let shared: Vec<Value> = self.shared.iter().map(|path| json!({ "path": path_to_keeper(path) })).collect();
        self.out.write_all(b"\n],\"shared_folders\":")?;
        serde_json::to_writer(&mut self.out, &shared).map_err(io::Error::from)?;
        self.out.write_all(b",\"teams\":[]}\n")?;
        Ok(self.out.flush()?)
    }
}

/// A record in Commander's form.
struct Exported<'a>(&'a Record);

impl Serialize for Exported<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let record = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("title", &record.title)?;
        map.serialize_entry("uid", &record.uid)?;
        if let Some(notes) = &record.notes {
            map.serialize_entry("notes", notes)?;
        }
        match &record.body {
            Body::Untyped(body) => {
                let top = [&body.login, &body.password, &body.link];
                for ((key, _), value) in TOP.iter().zip(top) {
                    if let Some(value) = value {
                        map.serialize_entry(key, value)?;
                    }
                }
                let slots = untyped_slots(body);
                map.serialize_entry("custom_fields", &Slots(&slots))?;
                ours(&mut map, record, untyped_layout(body, &slots))?;
            }
            Body::Typed(body) => {
                map.serialize_entry("$type", &body.record_type)?;
                let placed = Placed::of(body);
                for (key, value) in &placed.top {
                    map.serialize_entry(key, value)?;
                }
                map.serialize_entry("custom_fields", &Slots(&placed.slots))?;
                let schema = schema_of(body);
                let own_type = standard_fields(&body.record_type).is_none() && !record.extra.contains_key("schema");
                if own_type && !schema.is_empty() {
                    map.serialize_entry("schema", &schema)?;
                }
                let listed = record.extra.get("schema").and_then(Value::as_array);
                let listed = listed.map(|keys| keys.iter().filter_map(Value::as_str).map(str::to_owned).collect());
                ours(&mut map, record, placed.layout(body, &listed.unwrap_or(schema)))?;
            }
        }
        if !record.folders.is_empty() {
            map.serialize_entry("folders", &record.folders.iter().map(folder).collect::<Vec<_>>())?;
        }
        for (key, value) in &record.extra {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// What Commander's form would forget, under the one key that is ours.
pub(super) fn ours<M: SerializeMap>(map: &mut M, record: &Record, layout: Option<Vec<Value>>) -> Result<(), M::Error> {
    #[derive(Serialize)]
    struct Ours<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        layout: Option<Vec<Value>>,
        #[serde(skip_serializing_if = "<[Earlier]>::is_empty")]
        earlier: &'a [Earlier],
    }
    if layout.is_none() && record.earlier.is_empty() {
        return Ok(());
    }
    map.serialize_entry(OURS, &Ours { layout, earlier: &record.earlier })
}

pub(in crate::formats) fn folder(folder: &Folder) -> Value {
    let mut value = serde_json::Map::new();
    if let Some(shared) = &folder.shared {
        value.insert("shared_folder".into(), path_to_keeper(shared).into());
    }
    if let Some(path) = &folder.path {
        value.insert("folder".into(), path_to_keeper(path).into());
    }
    value.extend(folder.extra.iter().map(|(key, extra)| (key.clone(), extra.clone())));
    Value::Object(value)
}

/// The keys of `custom_fields`, each with its values.
pub(in crate::formats) type SlotList<'a> = Vec<(String, Vec<SlotValue<'a>>)>;

pub(in crate::formats) enum SlotValue<'a> {
    Text(&'a Secret),
    Field(&'a FieldValue),
}

impl SlotValue<'_> {
    /// Whether it may stand alone: a list would be read as several values.
    fn stands_alone(&self) -> bool {
        !matches!(self, Self::Field(FieldValue::Other(Value::Array(_))))
    }
}

impl Serialize for SlotValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => text.serialize(serializer),
            Self::Field(value) => RawValue(value).serialize(serializer),
        }
    }
}

struct Slots<'a, 'b>(&'b SlotList<'a>);

impl Serialize for Slots<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, values) in self.0 {
            match values.as_slice() {
                [value] if value.stands_alone() => map.serialize_entry(key, value)?,
                values => map.serialize_entry(key, &List(values))?,
            }
        }
        map.end()
    }
}

struct List<'a, 'b>(&'b [SlotValue<'a>]);

impl Serialize for List<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for value in self.0 {
            list.serialize_element(value)?;
        }
        list.end()
    }
}

fn push<'a>(slots: &mut SlotList<'a>, key: String, values: impl IntoIterator<Item = SlotValue<'a>>) {
    match slots.iter_mut().find(|(there, _)| *there == key) {
        Some((_, there)) => there.extend(values),
        None => slots.push((key, values.into_iter().collect())),
    }
}

fn untyped_slots(body: &Untyped) -> SlotList<'_> {
    let mut slots = SlotList::new();
    for field in &body.custom {
        push(&mut slots, field.name.clone(), [SlotValue::Text(&field.value)]);
    }
    slots
}

/// Order and kinds of an untyped record's custom fields, where the slots alone
/// would not tell them.
fn untyped_layout(body: &Untyped, slots: &SlotList<'_>) -> Option<Vec<Value>> {
    let told = slots.iter().flat_map(|(key, values)| values.iter().map(move |_| key.as_str()));
    let plain = body.custom.iter().map(|field| field.name.as_str()).eq(told)
        && body.custom.iter().all(|field| field.kind.as_deref() == Some("text"));
    (!plain).then(|| untyped_order(body))
}

/// Order and kinds of an untyped record's custom fields.
pub(in crate::formats) fn untyped_order(body: &Untyped) -> Vec<Value> {
    body.custom.iter().map(|field| json!({ "at": field.name, "type": field.kind })).collect()
}

/// A typed record's fields, each at its place in Commander's form.
pub(in crate::formats) struct Placed<'a> {
    pub(in crate::formats) top: Vec<(&'static str, &'a Secret)>,
    pub(in crate::formats) slots: SlotList<'a>,
    shapes: Vec<Shape>,
}

impl<'a> Placed<'a> {
    pub(in crate::formats) fn of(body: &'a Typed) -> Self {
        let mut top = Vec::new();
        let mut chosen: Vec<(*const Field, &'static str)> = Vec::new();
        for (key, kind) in TOP {
            // The first of its type, if it is one text and nothing else.
            let first = body.of_kind(kind).into_iter().next().map(|found| found.field);
            if let Some(field) = first
                && let [FieldValue::Text(text)] = field.value.as_slice()
            {
                top.push((key, text));
                chosen.push((std::ptr::from_ref(field), key));
            }
        }
        let (mut slots, mut shapes) = (SlotList::new(), Vec::new());
        let sections = [(Section::Fields, &body.fields), (Section::Custom, &body.custom)];
        for (section, fields) in sections {
            for field in fields {
                let key = chosen.iter().find(|(there, _)| std::ptr::eq(*there, field)).map(|(_, key)| *key);
                let at = key.map_or_else(|| key_of(&field.kind, field.label.as_deref()), str::to_owned);
                if key.is_none() {
                    push(&mut slots, at.clone(), field.value.iter().map(SlotValue::Field));
                }
                shapes.push(Shape {
                    at,
                    top: key.is_some(),
                    section,
                    kind: field.kind.clone(),
                    label: field.label.clone(),
                    values: field.value.len(),
                });
            }
        }
        Self { top, slots, shapes }
    }

    /// What Commander's form would forget, or none.
    fn layout(&self, body: &Typed, schema: &[String]) -> Option<Vec<Value>> {
        let top: Vec<&str> = self.top.iter().map(|(key, _)| *key).collect();
        let custom: Vec<(&str, usize)> = self.slots.iter().map(|(key, values)| (key.as_str(), values.len())).collect();
        let fields = || body.fields.iter().chain(&body.custom);
        let plain = fields().all(|field| field.extra.is_empty())
            && plain_shapes(&body.record_type, schema, &top, &custom) == self.shapes;
        (!plain).then(|| self.whole_layout(body))
    }

    /// List, type, label and rules of every field in its order.
    pub(in crate::formats) fn whole_layout(&self, body: &Typed) -> Vec<Value> {
        let fields = body.fields.iter().chain(&body.custom);
        let entries = self.shapes.iter().zip(fields).map(|(shape, field)| {
            let mut entry = json!({ "at": shape.at, "in": "custom", "type": shape.kind, "values": shape.values });
            if let Value::Object(entry) = &mut entry {
                if shape.section == Section::Fields {
                    entry.insert("in".into(), "fields".into());
                }
                if shape.top {
                    entry.insert("top".into(), true.into());
                }
                if let Some(label) = &shape.label {
                    entry.insert("label".into(), label.clone().into());
                }
                if !field.extra.is_empty() {
                    entry.insert("extra".into(), Value::Object(field.extra.clone()));
                }
            }
            entry
        });
        entries.collect()
    }
}
