//! A record as people keep it: untyped (a few standard fields and named custom
//! ones) or typed (lists of typed fields). Both are first class and survive
//! every round trip untouched.
//!
//! Any text of a record may be a secret, so every value is held as one.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use turnlock_protocol::Secret;

/// A record's identifier: 22 characters of unpadded base64url over 16 bytes in
/// vaults of Keeper's family; any non-empty text without control characters is
/// accepted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Uid(String);

impl Uid {
    /// An identifier as it stands in an import or an argument.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One record.
#[derive(Debug, Serialize, Deserialize)]
pub struct Record {
    /// Its identifier.
    pub uid: Uid,
    /// Its title.
    pub title: String,
    /// Free text; may hold secrets.
    pub notes: Option<Secret>,
    /// The folders it lies in.
    pub folders: Vec<Folder>,
    /// Its fields.
    pub body: Body,
    /// Whether its vault lets us write it.
    #[serde(default = "yes")]
    pub writable: bool,
    /// What an import said besides, kept for the export.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub extra: Map<String, Value>,
}

fn yes() -> bool {
    true
}

/// A place in the folder tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Folder {
    /// The shared folder it belongs to, path components joined by `/`.
    pub shared: Option<String>,
    /// The path below it.
    pub path: Option<String>,
    /// What an import said besides (`can_edit`, `can_share`).
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub extra: Map<String, Value>,
}

/// A record's fields in one of the two shapes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// The older shape: standard fields and named custom ones.
    Untyped(Untyped),
    /// The newer shape: a record type and typed fields.
    Typed(Typed),
}

/// The older shape.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Untyped {
    /// Login name.
    pub login: Option<Secret>,
    /// Password.
    pub password: Option<Secret>,
    /// URL.
    pub link: Option<Secret>,
    /// Custom fields in their order; names may repeat.
    pub custom: Vec<CustomField>,
}

/// A custom field of an untyped record.
#[derive(Debug, Serialize, Deserialize)]
pub struct CustomField {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Secret,
    /// Its kind as the vault says, usually `text`.
    pub kind: Option<String>,
}

/// The newer shape.
#[derive(Debug, Serialize, Deserialize)]
pub struct Typed {
    /// The record type, such as `login` or `pamDatabase`.
    pub record_type: String,
    /// The fields of the type.
    pub fields: Vec<Field>,
    /// Further fields.
    pub custom: Vec<Field>,
}

/// A typed field.
#[derive(Debug, Serialize, Deserialize)]
pub struct Field {
    /// Its type, such as `password` or `host`.
    pub kind: String,
    /// Its label.
    pub label: Option<String>,
    /// Its values; most fields have one.
    pub value: Vec<FieldValue>,
    /// What an import said besides (`complexity`, `required`, `enforceGeneration`, …).
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub extra: Map<String, Value>,
}

/// One value of a typed field.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FieldValue {
    /// A string.
    Text(Secret),
    /// A composite such as `{hostName, port}`: its parts in order.
    Parts(Vec<(String, FieldValue)>),
    /// Anything else (numbers, booleans, null, nested lists), as JSON.
    Other(Value),
}

/// Which of a typed record's lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Section {
    /// The fields of the record type.
    Fields,
    /// The further fields.
    Custom,
}

/// One place in a record where a value can be read and written; stable across
/// edits of other fields.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// An untyped record's password.
    Password,
    /// An untyped record's custom field, created when it is not there.
    Named(String),
    /// A typed record's field: the n-th of that type and label (from 0), and
    /// for composites the part; created in `custom` when it is not there.
    Typed {
        /// Which list.
        section: Section,
        /// The field's type.
        kind: String,
        /// Its label.
        label: Option<String>,
        /// Which of several alike.
        index: usize,
        /// Part of a composite, such as `privateKey`.
        part: Option<String>,
    },
}
