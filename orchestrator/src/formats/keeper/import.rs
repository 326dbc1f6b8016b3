use std::fmt;
use std::io::Read;

use serde::de::{self, Deserialize as _, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::{Map, Value};
use turnlock_protocol::{RandomSource, Secret};

use super::json::{Node, clear};
use super::{OURS, Shape, TOP, folder_from_keeper, key_of, plain_shapes};
use crate::formats::{ImportError, Intake, Sink, Where, text};
use crate::generate;
use crate::record::{
    Body, CustomField, Earlier, Field, FieldValue, Folder, Record, Section, Typed, Uid, Untyped, standard_fields,
};

/// Keys that mean something in one of the forms; in another they cannot be
/// kept, because our export would give them that meaning.
const RESERVED: [&str; 14] = [
    "$type",
    "login",
    "password",
    "login_url",
    "custom_fields",
    "secret1",
    "secret2",
    "link",
    "fields",
    "custom",
    "uid",
    "record_uid",
    "recordUid",
    OURS,
];

/// Reads Keeper's JSON of any form, one record after the other. Records
/// without a UID get one.
pub fn import(source: impl Read, sink: &mut dyn Sink) -> Result<(), ImportError> {
    import_with(source, sink, &mut generate::SystemRandom)
}

/// The same with another source of new UIDs.
pub fn import_with(source: impl Read, sink: &mut dyn Sink, random: &mut dyn RandomSource) -> Result<(), ImportError> {
    let source = text(source)?;
    let mut file = File { intake: Intake::new(sink, random), records: false, failure: None };
    let mut json = serde_json::Deserializer::from_reader(source);
    let read = (&mut file).deserialize(&mut json).and_then(|()| json.end());
    match (file.failure, read) {
        (Some(failure), _) => Err(failure),
        (None, Ok(())) => {
            file.intake.finish();
            Ok(())
        }
        (None, Err(error)) => {
            let (line, column) = (error.line(), error.column());
            Err(match error.classify() {
                Category::Io => ImportError::Unreadable(error.to_string()),
                // Its words may hold a value; here they are looked at only.
                Category::Data if !error.to_string().starts_with("invalid type") => {
                    ImportError::DuplicateKey { line, column }
                }
                Category::Data if file.records => ImportError::of_file("records", "a list"),
                Category::Data => ImportError::NotRecords,
                Category::Syntax | Category::Eof => ImportError::Syntax { line, column },
            })
        }
    }
}

/// A whole file while it is read: its records go on at once, everything else
/// of it is small.
struct File<'a> {
    intake: Intake<'a>,
    /// Whether its list of records has begun.
    records: bool,
    /// What is wrong besides the JSON.
    failure: Option<ImportError>,
}

impl File<'_> {
    /// Ends the reading with an error of ours, which the parser cannot carry.
    fn stop<E: de::Error>(&mut self, error: ImportError) -> E {
        self.failure = Some(error);
        E::custom("stopped")
    }

    fn record<E: de::Error>(&mut self, node: Node) -> Result<(), E> {
        self.intake.node(node).map_err(|error| self.stop(error))
    }

    /// What stands beside the records of an export.
    fn beside(&mut self, members: Vec<(String, Node)>) -> Result<(), ImportError> {
        for (key, node) in members {
            match (key.as_str(), node) {
                ("shared_folders", Node::List(nodes)) => nodes.into_iter().for_each(|node| self.shared_folder(node)),
                (_, node) if node.is_nothing() => {}
                ("shared_folders", _) => return Err(ImportError::of_file("shared_folders", "a list")),
                ("teams", _) => self.intake.lost("teams", "teams and their members"),
                (key, _) => self.intake.lost(key, "an unknown part of the file"),
            }
        }
        Ok(())
    }

    /// A shared folder is where its records are; who else may use it is not
    /// known to a vault of one's own.
    fn shared_folder(&mut self, node: Node) {
        let folder = node.into_value();
        let path = folder.get("path").and_then(Value::as_str).unwrap_or("shared folder").to_owned();
        let members = folder.as_object().into_iter().flatten();
        let more = members.filter(|(key, value)| *key != "path" && !is_false(value)).map(|(key, _)| key.as_str());
        let more: Vec<&str> = more.collect();
        if !more.is_empty() {
            self.intake.lost(&path, &format!("of this shared folder: {}", more.join(", ")));
        }
    }
}

/// Whether this says no more than its absence.
fn is_false(value: &Value) -> bool {
    matches!(value, Value::Null | Value::Bool(false)) || value.as_array().is_some_and(Vec::is_empty)
}

impl<'de> DeserializeSeed<'de> for &mut File<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut File<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("records")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(node) = list.next_element()? {
            self.record(node)?;
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut beside: Vec<(String, Node)> = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            if beside.iter().any(|(there, _)| *there == key) || (self.records && key == "records") {
                return Err(de::Error::custom("a key is there twice"));
            }
            if key == "records" {
                self.records = true;
                map.next_value_seed(Records(self))?;
            } else {
                beside.push((key, map.next_value()?));
            }
        }
        let record = beside.iter().any(|(key, _)| key == "title" || RESERVED.contains(&key.as_str()));
        match (self.records, record) {
            (true, _) => self.beside(beside).map_err(|error| self.stop(error)),
            (false, true) => self.record(Node::Object(beside)),
            (false, false) => Err(self.stop(ImportError::NotRecords)),
        }
    }
}

/// The list of an export's records.
struct Records<'a, 'b>(&'a mut File<'b>);

impl<'de> DeserializeSeed<'de> for Records<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Records<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of records")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<(), A::Error> {
        self.0.visit_seq(list)
    }
}

impl Intake<'_> {
    /// Takes one record in any of Keeper's forms.
    pub(in crate::formats) fn node(&mut self, node: Node) -> Result<(), ImportError> {
        let (record, at, losses) = self.read(node)?;
        self.take(record, at, losses)
    }

    /// Reads one record, its place, and what of it is not kept.
    pub(in crate::formats) fn read(&mut self, node: Node) -> Result<(Record, Where, Vec<String>), ImportError> {
        let mut reading = Reading { at: Where { number: self.next_number(), ..Where::default() }, losses: Vec::new() };
        let Node::Object(members) = node else {
            return Err(reading.shape(None, "a record"));
        };
        let record = reading.record(Members(members), self)?;
        Ok((record, reading.at, reading.losses))
    }
}

/// An object being taken apart.
struct Members(Vec<(String, Node)>);

impl Members {
    fn take(&mut self, names: &[&str]) -> Option<Node> {
        let at = self.0.iter().position(|(key, _)| names.contains(&key.as_str()))?;
        Some(self.0.remove(at).1).filter(|node| !matches!(node, Node::Null))
    }

    fn has_list(&self, name: &str) -> bool {
        self.0.iter().any(|(key, node)| key == name && node.is_list())
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name)
    }
}

/// One record being read.
struct Reading {
    at: Where,
    losses: Vec<String>,
}

impl Reading {
    fn shape(&self, field: Option<&str>, wanted: &'static str) -> ImportError {
        ImportError::Shape { at: Box::new(Where { field: field.map(str::to_owned), ..self.at.clone() }), wanted }
    }

    fn text(&self, node: Node, field: &str) -> Result<Secret, ImportError> {
        node.into_text().map_err(|_| self.shape(Some(field), "a text"))
    }

    fn record(&mut self, mut members: Members, intake: &mut Intake<'_>) -> Result<Record, ImportError> {
        let title = members.take(&["title"]).map(|node| self.text(node, "title")).transpose()?;
        let mut title = title.map(|title| clear(&title).to_owned()).unwrap_or_default();
        if title.chars().any(char::is_control) {
            title = title.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            self.losses.push("control characters in the title".into());
        }
        self.at.title = Some(title.clone());
        let uid = match members.take(&["uid", "record_uid", "recordUid"]) {
            None => intake.new_uid()?,
            Some(node) => match node.plain() {
                Some("") => intake.new_uid()?,
                Some(uid) => Uid::new(uid),
                None => return Err(self.shape(Some("uid"), "a text")),
            },
        };
        self.at.uid = Some(uid.as_str().to_owned());
        let notes = members.take(&["notes"]).map(|node| self.text(node, "notes")).transpose()?;
        let folders = self.folders(&mut members)?;
        let ours = members.take(&[OURS]).map(Node::into_value);
        let layout = ours.as_ref().and_then(|ours| ours.get("layout")).and_then(Value::as_array);
        let earlier = ours.as_ref().and_then(|ours| ours.get("earlier"));
        let earlier = self.earlier(earlier);
        if members.take(&["attachments"]).is_some_and(|node| !node.is_nothing()) {
            self.losses.push("attached files".into());
        }

        let raw_typed = members.has_list("fields") || (members.has_list("custom") && members.has("type"));
        let raw_untyped =
            members.has_list("custom") || ["secret1", "secret2", "link"].iter().any(|name| members.has(name));
        let (body, raw) = if members.has("$type") {
            (self.exported_typed(&mut members, layout)?, false)
        } else if raw_typed {
            (self.raw_typed(&mut members)?, true)
        } else if raw_untyped {
            (self.raw_untyped(&mut members)?, true)
        } else {
            (self.exported_untyped(&mut members, layout)?, false)
        };

        let mut extra = Map::new();
        for (key, node) in members.0 {
            let files = ["references", "extra"].contains(&key.as_str()) && !node.is_nothing();
            if RESERVED.contains(&key.as_str()) {
                if !matches!(node, Node::Null) {
                    let form = if raw { "raw" } else { "exported" };
                    self.losses.push(format!("'{key}', which has no meaning in a {form} record"));
                }
                continue;
            }
            let value = node.into_value();
            if files && names_files(&value) {
                self.losses.push("attached files (their references are kept)".into());
            }
            extra.insert(key, value);
        }
        if let Body::Typed(body) = &body {
            let listed: Option<Vec<&str>> = extra
                .get("schema")
                .and_then(Value::as_array)
                .map(|keys| keys.iter().filter_map(Value::as_str).collect());
            let own = schema_of(body);
            if listed.is_some_and(|listed| listed == own) && standard_fields(&body.record_type).is_none() {
                extra.shift_remove("schema");
            }
        }
        let record = Record { uid, title, notes, folders, body, writable: true, extra, earlier };
        Ok(record)
    }

    /// What our own export says the record was before.
    fn earlier(&mut self, said: Option<&Value>) -> Vec<Earlier> {
        let Some(said) = said else {
            return Vec::new();
        };
        Vec::deserialize(said).unwrap_or_else(|_| {
            self.losses.push("its earlier versions, which were edited since the export".into());
            Vec::new()
        })
    }

    fn folders(&mut self, members: &mut Members) -> Result<Vec<Folder>, ImportError> {
        let Some(node) = members.take(&["folders", "folder"]) else {
            return Ok(Vec::new());
        };
        let mut folders = Vec::new();
        for node in node.into_items() {
            let members = match node {
                Node::Object(members) => members,
                Node::Text(path) => {
                    folders.push(folder_from_keeper(None, Some(clear(&path))));
                    continue;
                }
                _ => {
                    return Err(self.shape(Some("folders"), "an object with shared_folder and folder"));
                }
            };
            let mut members = Members(members);
            let mut path = |name: &str| members.take(&[name]).map(|node| self.text(node, name)).transpose();
            let (shared, path) = (path("shared_folder")?, path("folder")?);
            let mut folder = folder_from_keeper(shared.as_ref().map(clear), path.as_ref().map(clear));
            folder.extra = members.0.into_iter().map(|(key, node)| (key, node.into_value())).collect();
            folders.push(folder);
        }
        Ok(folders)
    }

    // ---- Commander's form ----

    fn custom_fields(&self, members: &mut Members) -> Result<Vec<(String, Node)>, ImportError> {
        match members.take(&["custom_fields"]) {
            None => Ok(Vec::new()),
            Some(Node::Object(fields)) => Ok(fields),
            Some(node) if node.is_nothing() => Ok(Vec::new()),
            Some(_) => Err(self.shape(Some("custom_fields"), "an object")),
        }
    }

    fn exported_untyped(&mut self, members: &mut Members, layout: Option<&Vec<Value>>) -> Result<Body, ImportError> {
        let [login, password, link] =
            TOP.map(|(key, _)| members.take(&[key]).map(|node| self.text(node, key)).transpose());
        let mut custom = Vec::new();
        for (name, node) in self.custom_fields(members)? {
            if matches!(&node, Node::List(items) if items.is_empty()) {
                self.losses.push(format!("custom field '{}', an empty list", name.escape_debug()));
            }
            for item in node.into_items() {
                let value = self.untyped_value(item, &name);
                custom.push(CustomField { name: name.clone(), value, kind: Some("text".to_owned()) });
            }
        }
        if let Some(layout) = layout {
            custom = self.arrange(custom, layout);
        }
        Ok(Body::Untyped(Untyped { login: login?, password: password?, link: link?, custom }))
    }

    fn untyped_value(&mut self, node: Node, name: &str) -> Secret {
        match node.into_text() {
            Ok(text) => text,
            Err(Node::Null) => Secret::new(String::new()),
            Err(other) => {
                self.losses.push(format!("the shape of custom field '{}': kept as text", name.escape_debug()));
                Secret::new(other.into_value().to_string())
            }
        }
    }

    /// Puts an untyped record's custom fields into their order and gives them
    /// their kinds.
    fn arrange(&mut self, mut custom: Vec<CustomField>, layout: &[Value]) -> Vec<CustomField> {
        let fits = layout.len() == custom.len()
            && custom.iter().all(|field| {
                let named = |name: &str| layout.iter().filter(|entry| text_at(entry, "at") == Some(name)).count();
                named(&field.name) == custom.iter().filter(|other| other.name == field.name).count()
            });
        if !fits {
            self.losses.push("the order and kinds of its custom fields, which were edited since the export".into());
            return custom;
        }
        let mut arranged = Vec::with_capacity(custom.len());
        for entry in layout {
            let Some(at) = custom.iter().position(|field| text_at(entry, "at") == Some(&field.name)) else {
                continue;
            };
            let mut field = custom.remove(at);
            field.kind = text_at(entry, "type").map(str::to_owned);
            arranged.push(field);
        }
        arranged
    }

    fn exported_typed(&mut self, members: &mut Members, layout: Option<&Vec<Value>>) -> Result<Body, ImportError> {
        let record_type = members.take(&["$type"]).and_then(|node| node.plain().map(str::to_owned));
        let Some(record_type) = record_type else {
            return Err(self.shape(Some("$type"), "a text"));
        };
        let mut slots: Vec<(String, bool, Vec<FieldValue>)> = Vec::new();
        for (key, _) in TOP {
            if let Some(node) = members.take(&[key]) {
                let text = self.text(node, key)?;
                slots.push((key.to_owned(), true, vec![FieldValue::Text(text)]));
            }
        }
        for (key, node) in self.custom_fields(members)? {
            slots.push((key, false, node.into_items().into_iter().map(Node::into_field_value).collect()));
        }
        let top: Vec<&str> = slots.iter().filter(|slot| slot.1).map(|slot| slot.0.as_str()).collect();
        let custom: Vec<(&str, usize)> =
            slots.iter().filter(|slot| !slot.1).map(|slot| (slot.0.as_str(), slot.2.len())).collect();
        let schema = members.0.iter().find(|(key, _)| key == "schema").map(|(_, node)| match node {
            Node::List(keys) => keys.iter().filter_map(Node::plain).map(str::to_owned).collect(),
            _ => Vec::new(),
        });
        let plain = plain_shapes(&record_type, &schema.unwrap_or_default(), &top, &custom);

        let said: Option<Vec<(Shape, Map<String, Value>)>> = layout.map(|layout| shapes_of(layout).unwrap_or_default());
        let shapes = match said {
            Some(said) if fits(&said, &slots) => said,
            Some(_) => {
                self.losses.push("the lists and labels of its fields, which were edited since the export".into());
                plain.into_iter().map(|shape| (shape, Map::new())).collect()
            }
            None => plain.into_iter().map(|shape| (shape, Map::new())).collect(),
        };
        let mut body = Typed { record_type, fields: Vec::new(), custom: Vec::new() };
        for (shape, extra) in shapes {
            let slot = slots.iter_mut().find(|slot| slot.0 == shape.at && slot.1 == shape.top);
            let value = match slot {
                Some((_, _, values)) => values.drain(..shape.values.min(values.len())).collect(),
                None => Vec::new(),
            };
            let field = Field { kind: shape.kind, label: shape.label, value, extra };
            match shape.section {
                Section::Fields => body.fields.push(field),
                Section::Custom => body.custom.push(field),
            }
        }
        Ok(Body::Typed(body))
    }

    // ---- raw forms ----

    fn raw_untyped(&mut self, members: &mut Members) -> Result<Body, ImportError> {
        let mut standard = |names: &[&str]| {
            let field = names.first().copied().unwrap_or_default();
            members.take(names).map(|node| self.text(node, field)).transpose()
        };
        let login = standard(&["secret1", "login"])?;
        let password = standard(&["secret2", "password"])?;
        let link = standard(&["link", "login_url"])?;
        let mut custom = Vec::new();
        for node in members.take(&["custom"]).map(Node::into_items).unwrap_or_default() {
            let Node::Object(parts) = node else {
                return Err(self.shape(Some("custom"), "a list of {name, value, type}"));
            };
            let mut parts = Members(parts);
            let name = parts.take(&["name"]).map(|node| self.text(node, "custom field's name")).transpose()?;
            let name = name.map(|name| clear(&name).to_owned()).unwrap_or_default();
            let value = parts.take(&["value"]).unwrap_or(Node::Null);
            let value = self.untyped_value(value, &name);
            let kind = parts.take(&["type"]).and_then(|node| node.plain().map(str::to_owned));
            for (key, _) in parts.0.into_iter().filter(|(_, node)| !node.is_nothing()) {
                self.losses.push(format!("'{}' of custom field '{}'", key.escape_debug(), name.escape_debug()));
            }
            custom.push(CustomField { name, value, kind });
        }
        Ok(Body::Untyped(Untyped { login, password, link, custom }))
    }

    fn raw_typed(&mut self, members: &mut Members) -> Result<Body, ImportError> {
        let record_type = members.take(&["type"]).and_then(|node| node.plain().map(str::to_owned));
        let Some(record_type) = record_type else {
            return Err(self.shape(Some("type"), "the record type"));
        };
        let mut list = |name: &str| match members.take(&[name]) {
            None => Ok(Vec::new()),
            Some(Node::List(nodes)) => nodes.into_iter().map(|node| self.raw_field(node, name)).collect(),
            Some(_) => Err(self.shape(Some(name), "a list of fields")),
        };
        let (fields, custom) = (list("fields")?, list("custom")?);
        Ok(Body::Typed(Typed { record_type, fields, custom }))
    }

    fn raw_field(&self, node: Node, list: &str) -> Result<Field, ImportError> {
        let wanted = "a field {type, label, value}";
        let Node::Object(parts) = node else {
            return Err(self.shape(Some(list), wanted));
        };
        let mut parts = Members(parts);
        let kind = parts.take(&["type"]).and_then(|node| node.plain().map(str::to_owned));
        let Some(kind) = kind else {
            return Err(self.shape(Some(list), wanted));
        };
        let label = parts.take(&["label"]).map(|node| self.text(node, list)).transpose()?;
        let label = label.map(|label| clear(&label).to_owned());
        let value = parts.take(&["value"]).map(Node::into_items).unwrap_or_default();
        let value = value.into_iter().map(Node::into_field_value).collect();
        let extra = parts.0.into_iter().map(|(key, node)| (key, node.into_value())).collect();
        Ok(Field { kind, label, value, extra })
    }
}

/// The keys of a typed record's own list, as a schema names them.
pub(in crate::formats) fn schema_of(body: &Typed) -> Vec<String> {
    body.fields.iter().map(|field| key_of(&field.kind, field.label.as_deref())).collect()
}

fn text_at<'a>(entry: &'a Value, name: &str) -> Option<&'a str> {
    entry.get(name).and_then(Value::as_str)
}

fn shapes_of(layout: &[Value]) -> Option<Vec<(Shape, Map<String, Value>)>> {
    let shape = |entry: &Value| {
        let shape = Shape {
            at: text_at(entry, "at")?.to_owned(),
            top: entry.get("top") == Some(&Value::Bool(true)),
            section: if text_at(entry, "in")? == "fields" { Section::Fields } else { Section::Custom },
            kind: text_at(entry, "type")?.to_owned(),
            label: text_at(entry, "label").map(str::to_owned),
            values: usize::try_from(entry.get("values")?.as_u64()?).ok()?,
        };
        Some((shape, entry.get("extra").and_then(Value::as_object).cloned().unwrap_or_default()))
    };
    layout.iter().map(shape).collect()
}

/// Whether a layout takes every value there is exactly once.
fn fits(shapes: &[(Shape, Map<String, Value>)], slots: &[(String, bool, Vec<FieldValue>)]) -> bool {
    let taken = |at: &str, top: bool| -> usize {
        let there = shapes.iter().filter(|(shape, _)| shape.at == at && shape.top == top);
        there.fold(0, |sum, (shape, _)| sum.saturating_add(shape.values))
    };
    let known = |shape: &Shape| slots.iter().any(|slot| slot.0 == shape.at && slot.1 == shape.top);
    shapes.iter().all(|(shape, _)| known(shape))
        && slots.iter().all(|slot| {
            let there = shapes.iter().any(|(shape, _)| shape.at == slot.0 && shape.top == slot.1);
            there && taken(&slot.0, slot.1) == slot.2.len()
        })
}

/// Whether kept JSON refers to files.
fn names_files(value: &Value) -> bool {
    match value {
        Value::Object(members) => members.iter().any(|(key, value)| {
            (key.contains("fileRef") || key == "files") && value.as_array().is_none_or(|items| !items.is_empty())
        }),
        _ => false,
    }
}
