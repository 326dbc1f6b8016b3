use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};
use turnlock_protocol::{PolicyError, RandomSource, Secret};

use super::json::{Node, clear};
use super::{OURS, Shape, TOP, folder_from_keeper, key_of, plain_shapes};
use crate::generate;
use crate::record::{
    Body, CustomField, Field, FieldValue, Folder, Record, RecordError, Section, Typed, Uid, Untyped, standard_fields,
};

/// What a file held.
#[derive(Debug, Default)]
pub struct Imported {
    /// Its records.
    pub records: Vec<Record>,
    /// Its shared folders as they stand there, for the export.
    pub shared_folders: Vec<Value>,
    /// What a local vault does not keep.
    pub losses: Vec<Loss>,
}

/// Something that is not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// The record, where it is one's.
    pub uid: Option<Uid>,
    /// Its title, or what else the loss belongs to.
    pub title: String,
    /// What is not kept; never a value.
    pub what: String,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}'", self.title.escape_debug())?;
        if let Some(uid) = &self.uid {
            write!(f, " ({uid})")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// A place in a file, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Where {
    /// The record's number, from 1; 0 outside of records.
    pub number: usize,
    /// Its identifier.
    pub uid: Option<String>,
    /// Its title.
    pub title: Option<String>,
    /// The field.
    pub field: Option<String>,
}

impl fmt::Display for Where {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            0 => f.write_str("the file")?,
            number => write!(f, "record {number}")?,
        }
        if let Some(title) = &self.title {
            write!(f, " '{}'", title.escape_debug())?;
        }
        if let Some(uid) = &self.uid {
            write!(f, " ({})", uid.escape_debug())?;
        }
        match &self.field {
            Some(field) => write!(f, ", {}", field.escape_debug()),
            None => Ok(()),
        }
    }
}

/// Why a file cannot be imported. Nothing of its values is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// Not JSON.
    #[error("this is not JSON: line {line}, column {column}")]
    Syntax {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// One object with the same key twice.
    #[error("a key is there twice: line {line}, column {column}")]
    DuplicateKey {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// JSON, but neither a record nor a list of them.
    #[error("this is neither an export of Keeper nor a record nor a list of records")]
    NotRecords,
    /// A value of another kind than belongs there.
    #[error("{at}: {wanted} belongs here")]
    Shape {
        /// Where.
        at: Box<Where>,
        /// What belongs there.
        wanted: &'static str,
    },
    /// A record that cannot stand in a vault.
    #[error("{at}: {error}")]
    Record {
        /// Where.
        at: Box<Where>,
        /// Why.
        error: RecordError,
    },
    /// Two records with one identifier.
    #[error("{at}: record {first} has the same UID")]
    DuplicateUid {
        /// The second.
        at: Box<Where>,
        /// The first one's number.
        first: usize,
    },
    /// No identifier could be made for a record without one.
    #[error("{0}")]
    NoRandomness(PolicyError),
}

impl ImportError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Syntax { .. } => "export again, or mend that line",
            Self::DuplicateKey { .. } => "keep one of the two",
            Self::NotRecords => "use the file that Commander's 'export --format json' writes",
            Self::Shape { .. } | Self::Record { .. } => "mend that record in the file, or leave it out",
            Self::DuplicateUid { .. } => "keep one of the two records",
            Self::NoRandomness(_) => "try again",
        }
    }
}

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

/// Reads Keeper's JSON of any form. Records without a UID get one.
pub fn import(json: &[u8]) -> Result<Imported, ImportError> {
    import_with(json, &mut generate::SystemRandom)
}

/// The same with another source of new UIDs.
pub fn import_with(json: &[u8], random: &mut impl RandomSource) -> Result<Imported, ImportError> {
    let json = json.strip_prefix(b"\xef\xbb\xbf").unwrap_or(json);
    let node: Node = serde_json::from_slice(json).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        if error.is_data() { ImportError::DuplicateKey { line, column } } else { ImportError::Syntax { line, column } }
    })?;
    let mut imported = Imported::default();
    let nodes = match node {
        Node::List(nodes) => nodes,
        Node::Object(members) if members.iter().any(|(key, _)| key == "records") => file(members, &mut imported)?,
        Node::Object(members) if members.iter().any(|(key, _)| key == "title" || RESERVED.contains(&key.as_str())) => {
            vec![Node::Object(members)]
        }
        _ => return Err(ImportError::NotRecords),
    };
    let mut seen: BTreeMap<Uid, usize> = BTreeMap::new();
    for (at, node) in nodes.into_iter().enumerate() {
        let mut reading = Reading { at: Where { number: at + 1, ..Where::default() }, losses: Vec::new() };
        let Node::Object(members) = node else {
            return Err(reading.shape(None, "a record"));
        };
        let record = reading.record(Members(members), random)?;
        if let Some(first) = seen.insert(record.uid.clone(), at + 1) {
            return Err(ImportError::DuplicateUid { at: Box::new(reading.at), first });
        }
        let (uid, title) = (record.uid.clone(), record.title.clone());
        let losses = reading.losses.into_iter();
        imported.losses.extend(losses.map(|what| Loss { uid: Some(uid.clone()), title: title.clone(), what }));
        imported.records.push(record);
    }
    Ok(imported)
}

/// The members of a whole export; returns its records.
fn file(members: Vec<(String, Node)>, imported: &mut Imported) -> Result<Vec<Node>, ImportError> {
    let at = |field: &str| Box::new(Where { field: Some(field.to_owned()), ..Where::default() });
    let mut records = Vec::new();
    for (key, node) in members {
        let lost = |title: &str, what: &str| Loss { uid: None, title: title.to_owned(), what: what.to_owned() };
        match (key.as_str(), node) {
            ("records", Node::List(nodes)) => records = nodes,
            ("records", _) => {
                return Err(ImportError::Shape { at: at("records"), wanted: "a list" });
            }
            ("shared_folders", Node::List(nodes)) => {
                for node in nodes {
                    let folder = node.into_value();
                    let path = folder.get("path").and_then(Value::as_str).unwrap_or("shared folder").to_owned();
                    let permissions = folder.get("permissions").and_then(Value::as_array);
                    if permissions.is_some_and(|permissions| !permissions.is_empty()) {
                        imported.losses.push(lost(&path, "the permissions of this shared folder"));
                    }
                    imported.shared_folders.push(folder);
                }
            }
            ("shared_folders", Node::Null) => {}
            ("shared_folders", _) => {
                return Err(ImportError::Shape { at: at("shared_folders"), wanted: "a list" });
            }
            (_, node) if node.is_nothing() => {}
            ("teams", _) => imported.losses.push(lost("teams", "teams and their members")),
            (key, _) => imported.losses.push(lost(key, "an unknown part of the file")),
        }
    }
    Ok(records)
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

    fn record(&mut self, mut members: Members, random: &mut impl RandomSource) -> Result<Record, ImportError> {
        let title = members.take(&["title"]).map(|node| self.text(node, "title")).transpose()?;
        let mut title = title.map(|title| clear(&title).to_owned()).unwrap_or_default();
        if title.chars().any(char::is_control) {
            title = title.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            self.losses.push("control characters in the title".into());
        }
        self.at.title = Some(title.clone());
        let uid = match members.take(&["uid", "record_uid", "recordUid"]) {
            None => generate::uid(random).map_err(ImportError::NoRandomness)?,
            Some(node) => match node.plain() {
                Some("") => generate::uid(random).map_err(ImportError::NoRandomness)?,
                Some(uid) => Uid::new(uid),
                None => return Err(self.shape(Some("uid"), "a text")),
            },
        };
        self.at.uid = Some(uid.as_str().to_owned());
        let notes = members.take(&["notes"]).map(|node| self.text(node, "notes")).transpose()?;
        let folders = self.folders(&mut members)?;
        if members.take(&["attachments"]).is_some_and(|node| !node.is_nothing()) {
            self.losses.push("attached files".into());
        }

        let raw_typed = members.has_list("fields") || (members.has_list("custom") && members.has("type"));
        let raw_untyped =
            members.has_list("custom") || ["secret1", "secret2", "link"].iter().any(|name| members.has(name));
        let (body, raw) = if members.has("$type") {
            (self.exported_typed(&mut members)?, false)
        } else if raw_typed {
            (self.raw_typed(&mut members)?, true)
        } else if raw_untyped {
            (self.raw_untyped(&mut members)?, true)
        } else {
            (self.exported_untyped(&mut members)?, false)
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
        let record = Record { uid, title, notes, folders, body, writable: true, extra };
        record.validate().map_err(|error| ImportError::Record { at: Box::new(self.at.clone()), error })?;
        Ok(record)
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

    fn exported_untyped(&mut self, members: &mut Members) -> Result<Body, ImportError> {
        let [login, password, link] =
            TOP.map(|(key, _)| members.take(&[key]).map(|node| self.text(node, key)).transpose());
        let layout = layout_of(members);
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
            custom = self.arrange(custom, &layout);
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

    fn exported_typed(&mut self, members: &mut Members) -> Result<Body, ImportError> {
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
        let layout = layout_of(members);
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

        let said: Option<Vec<(Shape, Map<String, Value>)>> =
            layout.map(|layout| shapes_of(&layout).unwrap_or_default());
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
pub(super) fn schema_of(body: &Typed) -> Vec<String> {
    body.fields.iter().map(|field| key_of(&field.kind, field.label.as_deref())).collect()
}

fn text_at<'a>(entry: &'a Value, name: &str) -> Option<&'a str> {
    entry.get(name).and_then(Value::as_str)
}

fn layout_of(members: &mut Members) -> Option<Vec<Value>> {
    let ours = members.take(&[OURS])?.into_value();
    ours.get("layout").and_then(Value::as_array).cloned()
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
