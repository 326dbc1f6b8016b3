//! A record as people keep it: untyped (a few standard fields and named custom
//! ones) or typed (lists of typed fields). Both are first class and survive
//! every round trip untouched.
//!
//! Any text of a record may be a secret, so every value is held as one.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use turnlock_protocol::{Credential, Secret, field};

use crate::plan::WriteBack;

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
    /// What it was before it came here, oldest first, as its import told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<Earlier>,
}

/// What a record was before.
#[derive(Debug, Serialize, Deserialize)]
pub struct Earlier {
    /// When it became so.
    pub at: Option<Timestamp>,
    /// Its title then.
    pub title: String,
    /// Its notes then.
    pub notes: Option<Secret>,
    /// Its fields then.
    pub body: Body,
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
    /// An untyped record's login.
    Login,
    /// An untyped record's password.
    Password,
    /// An untyped record's URL.
    Link,
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

impl Place {
    /// The place where a new field of an option goes.
    fn of_new(record: &Record, field: &str, kind: &str) -> Self {
        match record.body {
            Body::Untyped(_) => Self::Named(field.to_owned()),
            Body::Typed(_) => Self::Typed {
                section: Section::Custom,
                kind: kind.to_owned(),
                label: Some(field.to_owned()),
                index: 0,
                part: None,
            },
        }
    }
}

/// For people, and as the key of a plan's basis: two places never read alike.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Login => f.write_str("login"),
            Self::Password => f.write_str("password"),
            Self::Link => f.write_str("URL"),
            Self::Named(name) => write!(f, "custom field '{}'", name.escape_debug()),
            Self::Typed { section, kind, label, index, part } => {
                let section = match section {
                    Section::Fields => "field",
                    Section::Custom => "custom field",
                };
                write!(f, "{section} {}", kind.escape_debug())?;
                if let Some(label) = label {
                    write!(f, " '{}'", label.escape_debug())?;
                }
                if *index > 0 {
                    write!(f, " #{}", index + 1)?;
                }
                match part {
                    Some(part) => write!(f, " ({})", part.escape_debug()),
                    None => Ok(()),
                }
            }
        }
    }
}

/// Why a record is no record, or a place none of this one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// An identifier that is empty, too long or not one line of text.
    #[error("the UID is empty, longer than 256 bytes, or holds spaces or control characters")]
    Uid,
    /// A title that is not one line of text.
    #[error("the title holds control characters")]
    Title,
    /// A field's name or type that is not one line of text.
    #[error("the name of field {0} holds control characters")]
    FieldName(usize),
    /// A place of the other shape.
    #[error("this record has no such place: {0}")]
    WrongShape(Place),
}

/// A value and where it stands.
#[derive(Debug)]
pub struct Found {
    /// The value.
    pub value: Secret,
    /// Its place.
    pub place: Place,
}

/// A host as a typed record's own field says it.
#[derive(Debug)]
pub struct FoundHost {
    /// Name or address; not yet read as one.
    pub host: Secret,
    /// The port beside it, as text.
    pub port: Option<Secret>,
    /// Its place.
    pub place: Place,
    /// Whether the field has a label.
    pub labelled: bool,
    /// Whether it is a pamHostname.
    pub pam: bool,
}

/// A key pair as a typed record's own field holds it.
#[derive(Debug)]
pub struct FoundKeys {
    /// The private key, if it is not empty.
    pub private: Option<Secret>,
    /// The public key, if it is not empty.
    pub public: Option<Secret>,
    section: Section,
    label: Option<String>,
    index: usize,
}

impl FoundKeys {
    /// The place of one half: `privateKey` or `publicKey`.
    pub fn place(&self, part: &str) -> Place {
        Place::Typed {
            section: self.section,
            kind: "keyPair".to_owned(),
            label: self.label.clone(),
            index: self.index,
            part: Some(part.to_owned()),
        }
    }
}

/// Whose prefix an option carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Prefix {
    /// `cmdr:`, which Keeper Commander understands too.
    Cmdr,
    /// `turnlock:`, ours; wins over its twin.
    Turnlock,
}

impl Prefix {
    /// Its text with the colon.
    pub fn text(self) -> &'static str {
        match self {
            Self::Cmdr => "cmdr:",
            Self::Turnlock => "turnlock:",
        }
    }

    /// Splits a field's name into prefix and option.
    pub fn split(field: &str) -> Option<(Self, &str)> {
        [Self::Cmdr, Self::Turnlock]
            .into_iter()
            .find_map(|prefix| field.strip_prefix(prefix.text()).map(|option| (prefix, option)))
    }
}

/// One field that is an option: `cmdr:NAME` or `turnlock:NAME`.
#[derive(Debug)]
pub struct RecordOption {
    /// Whose prefix it carries.
    pub prefix: Prefix,
    /// The option's name without its prefix.
    pub name: String,
    /// Its values, empty ones left out.
    pub values: Vec<Secret>,
    /// Its place.
    pub place: Place,
}

impl RecordOption {
    /// The field's whole name, such as `cmdr:port`.
    pub fn field(&self) -> String {
        format!("{}{}", self.prefix.text(), self.name)
    }
}

/// One way to rotate a record, made by `cmdr:plugin` or `cmdr:plugin:NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its name; none for the record's default.
    pub name: Option<String>,
    /// Its plugin, if the field holds the name of one.
    pub plugin: Option<String>,
    /// What `cmdr:plugin:NAME:description` says.
    pub description: Option<String>,
    /// The field that makes it.
    pub field: String,
}

/// Whether a text can be the name of a plugin, and so part of a file name.
pub fn is_plugin_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && !text.starts_with('-')
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// The kinds of typed fields that can decide a plan besides options.
const DECIDING: [&str; 8] =
    ["login", "password", "url", "host", "pamHostname", "keyPair", "databaseType", "directoryType"];

impl Uid {
    /// Whether this can be an identifier.
    pub fn validate(&self) -> Result<(), RecordError> {
        let bad =
            self.0.is_empty() || self.0.len() > 256 || self.0.chars().any(|c| c.is_control() || c.is_whitespace());
        if bad { Err(RecordError::Uid) } else { Ok(()) }
    }
}

impl Record {
    /// Whether this can stand in a vault: identifier, title and field names
    /// are each one line of text.
    pub fn validate(&self) -> Result<(), RecordError> {
        let has_control = |text: &str| text.chars().any(char::is_control);
        self.uid.validate()?;
        if has_control(&self.title) {
            return Err(RecordError::Title);
        }
        let bad = match &self.body {
            Body::Untyped(body) => body.custom.iter().position(|field| has_control(&field.name)),
            Body::Typed(body) => body
                .fields
                .iter()
                .chain(&body.custom)
                .position(|field| has_control(&field.kind) || field.label.as_deref().is_some_and(has_control)),
        };
        match bad {
            Some(at) => Err(RecordError::FieldName(at + 1)),
            None => Ok(()),
        }
    }

    /// The record type; none for an untyped record.
    pub fn record_type(&self) -> Option<&str> {
        match &self.body {
            Body::Untyped(_) => None,
            Body::Typed(body) => Some(&body.record_type),
        }
    }

    /// Its folders as paths with `/`.
    pub fn folder_paths(&self) -> Vec<String> {
        self.folders.iter().map(Folder::full_path).collect()
    }

    /// The login: the first that is not empty.
    pub fn login(&self) -> Option<Found> {
        self.standard("login")
    }

    /// The password: the first that is not empty.
    pub fn password(&self) -> Option<Found> {
        self.standard("password")
    }

    /// The URL: the first that is not empty.
    pub fn url(&self) -> Option<Found> {
        self.standard("url")
    }

    /// Where a new password goes when there is none to replace: the empty
    /// password field there is, or a new one.
    pub fn place_of_password(&self) -> Place {
        match &self.body {
            Body::Untyped(_) => Place::Password,
            Body::Typed(body) => match body.of_kind("password").first() {
                Some(found) => found.place(None),
                None => Place::Typed {
                    section: Section::Custom,
                    kind: "password".to_owned(),
                    label: None,
                    index: 0,
                    part: None,
                },
            },
        }
    }

    /// What the password's field says besides its value: `complexity` and such.
    pub fn password_extra(&self, name: &str) -> Option<&Value> {
        let Body::Typed(body) = &self.body else {
            return None;
        };
        let fields = body.of_kind("password");
        let chosen = fields.iter().find(|found| found.field.text().is_some()).or(fields.first())?;
        chosen.field.extra.get(name)
    }

    /// The hosts of a typed record's own fields: `host` before `pamHostname`,
    /// fields before custom, unlabelled before labelled, empty ones left out.
    pub fn hosts(&self) -> Vec<FoundHost> {
        let Body::Typed(body) = &self.body else {
            return Vec::new();
        };
        let mut hosts = Vec::new();
        for kind in ["host", "pamHostname"] {
            for found in body.of_kind(kind) {
                for value in &found.field.value {
                    let (host, port) = match value {
                        FieldValue::Parts(_) => (value.part("hostName"), value.part("port")),
                        _ => (value.text(), None),
                    };
                    if let Some(host) = host {
                        hosts.push(FoundHost {
                            host,
                            port,
                            place: found.place(None),
                            labelled: found.labelled(),
                            pam: kind == "pamHostname",
                        });
                    }
                }
            }
        }
        hosts
    }

    /// The key pair of a typed record's own field: the first that holds a
    /// private key, else the first there is.
    pub fn key_pair(&self) -> Option<FoundKeys> {
        let Body::Typed(body) = &self.body else {
            return None;
        };
        let mut pairs = body.of_kind("keyPair").into_iter().map(|found| {
            let part = |name| found.field.value.first().and_then(|value| value.part(name));
            FoundKeys {
                private: part("privateKey"),
                public: part("publicKey"),
                section: found.section,
                label: found.field.label.clone(),
                index: found.index,
            }
        });
        let first = pairs.next()?;
        if first.private.is_some() {
            return Some(first);
        }
        Some(pairs.find(|pair| pair.private.is_some()).unwrap_or(first))
    }

    /// The first value of a typed record's field of this type.
    pub fn fact(&self, kind: &str) -> Option<Found> {
        let Body::Typed(_) = &self.body else {
            return None;
        };
        self.standard(kind)
    }

    /// Every field that is an option, in the record's order, of either shape
    /// and either list.
    pub fn options(&self) -> Vec<RecordOption> {
        match &self.body {
            Body::Untyped(body) => body
                .custom
                .iter()
                .filter_map(|field| {
                    let (prefix, name) = Prefix::split(&field.name)?;
                    let values = if field.value.is_empty() { Vec::new() } else { vec![field.value.duplicate()] };
                    let place = Place::Named(field.name.clone());
                    Some(RecordOption { prefix, name: name.to_owned(), values, place })
                })
                .collect(),
            Body::Typed(body) => body
                .all()
                .into_iter()
                .filter_map(|found| {
                    let (prefix, name) = Prefix::split(found.field.label.as_deref()?)?;
                    let values = found.field.value.iter().filter_map(FieldValue::as_option).collect();
                    Some(RecordOption { prefix, name: name.to_owned(), values, place: found.place(None) })
                })
                .collect(),
        }
    }

    /// The place of an option's field: where it is, or where it would be made.
    /// `kind` is the type of a new field in a typed record.
    pub fn place_of_option(&self, field: &str, kind: &str) -> Place {
        let there = self.options().into_iter().filter(|option| option.field() == field);
        let mut places: Vec<RecordOption> = there.collect();
        let filled = places.iter().position(|option| !option.values.is_empty()).unwrap_or(0);
        if filled < places.len() {
            return places.swap_remove(filled).place;
        }
        Place::of_new(self, field, kind)
    }

    /// The ways to rotate this record, the default first, then by name.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        let options = self.options();
        let mut endpoints: Vec<Endpoint> = Vec::new();
        // Ours first, so that it wins over its twin.
        for prefix in [Prefix::Turnlock, Prefix::Cmdr] {
            for option in options.iter().filter(|option| option.prefix == prefix) {
                let name = match option.name.strip_prefix("plugin") {
                    Some("") => None,
                    Some(rest) => match rest.strip_prefix(':') {
                        Some(name) if !name.is_empty() && !name.contains(':') => Some(name.to_owned()),
                        _ => continue,
                    },
                    None => continue,
                };
                if option.values.is_empty() || endpoints.iter().any(|there| there.name == name) {
                    continue;
                }
                let description = name.as_ref().and_then(|name| {
                    let wanted = format!("plugin:{name}:description");
                    let mut said = options.iter().filter(|option| option.name == wanted);
                    said.find_map(|option| option.values.first()).map(shown)
                });
                let plugin = option.values.first().map(shown).map(|text| text.trim().to_owned());
                endpoints.push(Endpoint {
                    name,
                    plugin: plugin.filter(|text| is_plugin_name(text)),
                    description,
                    field: option.field(),
                });
            }
        }
        endpoints.sort_by(|a, b| a.name.cmp(&b.name));
        endpoints
    }

    /// A digest of every field that can decide a plan, by its place: an edit
    /// of one of them while a rotation is open is a conflict.
    pub fn basis(&self) -> BTreeMap<String, String> {
        let mut basis = BTreeMap::new();
        let mut add = |place: &Place, content: &Secret| {
            let mut key = place.to_string();
            while basis.contains_key(&key) {
                key.push('+');
            }
            let digest = self.digest(&key, content);
            basis.insert(key, digest);
        };
        match &self.body {
            Body::Untyped(body) => {
                let standard =
                    [(Place::Login, &body.login), (Place::Password, &body.password), (Place::Link, &body.link)];
                for (place, value) in standard {
                    if let Some(value) = value {
                        add(&place, value);
                    }
                }
                for field in body.custom.iter().filter(|field| Prefix::split(&field.name).is_some()) {
                    add(&Place::Named(field.name.clone()), &field.value);
                }
            }
            Body::Typed(body) => {
                for found in body.all() {
                    let field = found.field;
                    let option = field.label.as_deref().is_some_and(|label| Prefix::split(label).is_some());
                    if !option && !DECIDING.contains(&field.kind.as_str()) {
                        continue;
                    }
                    add(&found.place(None), &Secret::new(serde_json::to_string(&field.value).unwrap_or_default()));
                    if let Some(complexity) = field.extra.get("complexity") {
                        let place = found.place(Some("complexity"));
                        add(&place, &Secret::new(complexity.to_string()));
                    }
                }
                basis.insert("record type".to_owned(), body.record_type.clone());
            }
        }
        basis
    }

    /// Reads a place. A custom field that is there several times: its first
    /// value that is not empty.
    pub fn get(&self, place: &Place) -> Option<Secret> {
        match (&self.body, place) {
            (Body::Untyped(body), Place::Login) => body.login.as_ref().map(Secret::duplicate),
            (Body::Untyped(body), Place::Password) => body.password.as_ref().map(Secret::duplicate),
            (Body::Untyped(body), Place::Link) => body.link.as_ref().map(Secret::duplicate),
            (Body::Untyped(body), Place::Named(name)) => {
                let at = body.named(name)?;
                body.custom.get(at).map(|field| field.value.duplicate())
            }
            (Body::Typed(body), Place::Typed { section, kind, label, index, part }) => {
                let fields = body.section(*section);
                let alike = |field: &&Field| field.kind == *kind && field.label == *label;
                let value = fields.iter().filter(alike).nth(*index)?.value.first()?;
                match part {
                    Some(part) => value.part(part),
                    None => value.text(),
                }
            }
            _ => None,
        }
    }

    /// Writes a place, and makes its field where there is none.
    pub fn set(&mut self, place: &Place, secret: Secret) -> Result<(), RecordError> {
        match (&mut self.body, place) {
            (Body::Untyped(body), Place::Login) => body.login = Some(secret),
            (Body::Untyped(body), Place::Password) => body.password = Some(secret),
            (Body::Untyped(body), Place::Link) => body.link = Some(secret),
            (Body::Untyped(body), Place::Named(name)) => {
                let at = body.named(name);
                match at.and_then(|at| body.custom.get_mut(at)) {
                    Some(field) => field.value = secret,
                    None => body.custom.push(CustomField {
                        name: name.clone(),
                        value: secret,
                        kind: Some("text".to_owned()),
                    }),
                }
            }
            (Body::Typed(body), Place::Typed { section, kind, label, index, part }) => {
                let fields = match section {
                    Section::Fields => &mut body.fields,
                    Section::Custom => &mut body.custom,
                };
                let alike = |field: &&mut Field| field.kind == *kind && field.label == *label;
                match fields.iter_mut().filter(alike).nth(*index) {
                    Some(field) => field.write(part.as_deref(), secret),
                    None => {
                        let mut field = Field::new(kind, label.clone());
                        field.write(part.as_deref(), secret);
                        body.custom.push(field);
                    }
                }
            }
            _ => return Err(RecordError::WrongShape(place.clone())),
        }
        Ok(())
    }

    /// Writes a new credential into the places a plan names. Fields the
    /// credential does not have stay as they are.
    pub fn write(&mut self, places: &[WriteBack], credential: &Credential) -> Result<(), RecordError> {
        for WriteBack { field, place } in places {
            if let Some(secret) = credential.get(field) {
                self.set(place, secret.duplicate())?;
            }
        }
        Ok(())
    }

    /// Writes a credential that was current once. What has no place any more
    /// goes where the password is, if it is one.
    pub fn write_past(&mut self, places: &[WriteBack], credential: &Credential) -> Result<(), RecordError> {
        self.write(places, credential)?;
        let placed = places.iter().any(|place| place.field == field::PASSWORD);
        match credential.get(field::PASSWORD) {
            Some(password) if !placed => self.set(&self.place_of_password(), password.duplicate()),
            _ => Ok(()),
        }
    }

    /// The first value of a standard field that is not empty.
    fn standard(&self, kind: &str) -> Option<Found> {
        match &self.body {
            Body::Untyped(body) => {
                let (value, place) = match kind {
                    "login" => (&body.login, Place::Login),
                    "password" => (&body.password, Place::Password),
                    "url" => (&body.link, Place::Link),
                    _ => return None,
                };
                let value = value.as_ref().filter(|value| !value.is_empty())?;
                Some(Found { value: value.duplicate(), place })
            }
            Body::Typed(body) => body
                .of_kind(kind)
                .into_iter()
                .find_map(|found| found.field.text().map(|value| Found { value, place: found.place(None) })),
        }
    }

    fn digest(&self, place: &str, content: &Secret) -> String {
        #[expect(clippy::disallowed_methods, reason = "digested, so that an edit is seen without keeping the value")]
        let content = content.expose();
        let mut hash = Sha256::new();
        for part in [self.uid.as_str(), place, content] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        let mut text = String::with_capacity(64);
        for byte in hash.finalize() {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}

impl Folder {
    /// Shared folder and path below it, joined by `/`.
    pub fn full_path(&self) -> String {
        let parts = [self.shared.as_deref(), self.path.as_deref()];
        let parts: Vec<&str> = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect();
        parts.join("/")
    }
}

impl Untyped {
    /// The field of that name: the first with a value, else the first.
    fn named(&self, name: &str) -> Option<usize> {
        let filled = self.custom.iter().position(|field| field.name == name && !field.value.is_empty());
        filled.or_else(|| self.custom.iter().position(|field| field.name == name))
    }
}

/// A typed field with its number among those alike.
pub(crate) struct Numbered<'a> {
    section: Section,
    index: usize,
    pub(crate) field: &'a Field,
}

impl Numbered<'_> {
    pub(crate) fn labelled(&self) -> bool {
        self.field.label.as_deref().is_some_and(|label| !label.is_empty())
    }

    pub(crate) fn place(&self, part: Option<&str>) -> Place {
        Place::Typed {
            section: self.section,
            kind: self.field.kind.clone(),
            label: self.field.label.clone(),
            index: self.index,
            part: part.map(str::to_owned),
        }
    }
}

impl Typed {
    /// A record of a standard type with all its fields, empty; none for
    /// unknown types.
    pub fn of_type(record_type: &str) -> Option<Self> {
        let fields = standard_fields(record_type)?;
        let fields = fields.iter().map(|(kind, label)| Field::new(kind, label.map(str::to_owned))).collect();
        Some(Self { record_type: record_type.to_owned(), fields, custom: Vec::new() })
    }

    fn section(&self, section: Section) -> &[Field] {
        match section {
            Section::Fields => &self.fields,
            Section::Custom => &self.custom,
        }
    }

    /// All fields, `fields` before `custom`.
    pub(crate) fn all(&self) -> Vec<Numbered<'_>> {
        let mut all = Vec::with_capacity(self.fields.len() + self.custom.len());
        for section in [Section::Fields, Section::Custom] {
            let mut seen: BTreeMap<(&str, Option<&str>), usize> = BTreeMap::new();
            for field in self.section(section) {
                let count = seen.entry((&field.kind, field.label.as_deref())).or_default();
                all.push(Numbered { section, index: *count, field });
                *count += 1;
            }
        }
        all
    }

    /// The fields of one type that are no options: `fields` before `custom`,
    /// and in each list unlabelled before labelled.
    pub(crate) fn of_kind(&self, kind: &str) -> Vec<Numbered<'_>> {
        let option = |field: &Field| field.label.as_deref().is_some_and(|label| Prefix::split(label).is_some());
        let mut found: Vec<_> =
            self.all().into_iter().filter(|found| found.field.kind == kind && !option(found.field)).collect();
        found.sort_by_key(|found| (found.section, found.labelled()));
        found
    }
}

impl Field {
    /// A field without a value.
    pub fn new(kind: &str, label: Option<String>) -> Self {
        Self { kind: kind.to_owned(), label, value: Vec::new(), extra: Map::new() }
    }

    /// Its first value that is a text and not empty.
    fn text(&self) -> Option<Secret> {
        self.value.iter().find_map(FieldValue::text)
    }

    fn write(&mut self, part: Option<&str>, secret: Secret) {
        let Some(part) = part else {
            match self.value.first_mut() {
                Some(value) => *value = FieldValue::Text(secret),
                None => self.value.push(FieldValue::Text(secret)),
            }
            return;
        };
        if !matches!(self.value.first(), Some(FieldValue::Parts(_))) {
            self.value.clear();
            self.value.push(FieldValue::Parts(Vec::new()));
        }
        if let Some(FieldValue::Parts(parts)) = self.value.first_mut() {
            match parts.iter_mut().find(|(name, _)| name == part) {
                Some((_, value)) => *value = FieldValue::Text(secret),
                None => parts.push((part.to_owned(), FieldValue::Text(secret))),
            }
        }
    }
}

impl FieldValue {
    /// A text that is not empty; numbers and booleans as they are written.
    pub fn text(&self) -> Option<Secret> {
        match self {
            Self::Text(text) if !text.is_empty() => Some(text.duplicate()),
            Self::Other(Value::Number(number)) => Some(Secret::new(number.to_string())),
            Self::Other(Value::Bool(value)) => Some(Secret::new(value.to_string())),
            _ => None,
        }
    }

    /// The text of a composite's part.
    pub fn part(&self, name: &str) -> Option<Secret> {
        match self {
            Self::Parts(parts) => parts.iter().find(|(part, _)| part == name).and_then(|(_, value)| value.text()),
            _ => None,
        }
    }

    /// The value of an option: a text, or a composite host as `host:port`.
    fn as_option(&self) -> Option<Secret> {
        let Self::Parts(_) = self else {
            return self.text();
        };
        let host = self.part("hostName")?;
        let Some(port) = self.part("port") else {
            return Some(host);
        };
        #[expect(clippy::disallowed_methods, reason = "host and port become one text, held as a secret again")]
        let joined = match (host.expose(), port.expose()) {
            (host, port) if host.contains(':') && !host.starts_with('[') => {
                format!("[{host}]:{port}")
            }
            (host, port) => format!("{host}:{port}"),
        };
        Some(Secret::new(joined))
    }
}

/// The fields of a standard record type in their order: type and label.
pub fn standard_fields(record_type: &str) -> Option<&'static [(&'static str, Option<&'static str>)]> {
    const fn plain(kind: &'static str) -> (&'static str, Option<&'static str>) {
        (kind, None)
    }
    const fn text(label: &'static str) -> (&'static str, Option<&'static str>) {
        ("text", Some(label))
    }
    const SCRIPT: (&str, Option<&str>) = ("script", Some("Rotation Scripts"));
    const PEM: (&str, Option<&str>) = ("secret", Some("Private PEM Key"));
    const LOGIN: &[(&str, Option<&str>)] =
        &[plain("passkey"), plain("login"), plain("password"), plain("url"), plain("fileRef"), plain("oneTimeCode")];
    const DATABASE: &[(&str, Option<&str>)] =
        &[text("type"), plain("host"), plain("login"), plain("password"), plain("fileRef")];
    const SERVER: &[(&str, Option<&str>)] = &[plain("host"), plain("login"), plain("password"), plain("fileRef")];
    const KEYS: &[(&str, Option<&str>)] =
        &[plain("login"), plain("keyPair"), plain("password"), plain("host"), plain("fileRef")];
    const PAM_USER: &[(&str, Option<&str>)] = &[
        plain("login"),
        plain("password"),
        SCRIPT,
        PEM,
        text("Distinguished Name"),
        text("Connect Database"),
        ("checkbox", Some("Managed")),
        plain("fileRef"),
        plain("oneTimeCode"),
    ];
    const PAM_MACHINE: &[(&str, Option<&str>)] = &[
        plain("pamHostname"),
        plain("login"),
        plain("password"),
        SCRIPT,
        PEM,
        text("Operating System"),
        ("checkbox", Some("SSL Verification")),
        text("Instance Name"),
        text("Instance Id"),
        text("Provider Group"),
        text("Provider Region"),
        plain("fileRef"),
        plain("oneTimeCode"),
    ];
    const PAM_DATABASE: &[(&str, Option<&str>)] = &[
        plain("pamHostname"),
        ("checkbox", Some("Use SSL")),
        plain("login"),
        plain("password"),
        SCRIPT,
        text("Connect Database"),
        text("Database Id"),
        plain("databaseType"),
        text("Provider Group"),
        text("Provider Region"),
        plain("fileRef"),
        plain("oneTimeCode"),
    ];
    const PAM_DIRECTORY: &[(&str, Option<&str>)] = &[
        plain("pamHostname"),
        ("checkbox", Some("Use SSL")),
        plain("login"),
        plain("password"),
        SCRIPT,
        text("Distinguished Name"),
        text("Domain Name"),
        ("multiline", Some("Alternative IPs")),
        text("Directory Id"),
        plain("directoryType"),
        text("User Match"),
        text("Provider Group"),
        text("Provider Region"),
        plain("fileRef"),
        plain("oneTimeCode"),
    ];
    match record_type {
        "login" => Some(LOGIN),
        "databaseCredentials" => Some(DATABASE),
        "serverCredentials" => Some(SERVER),
        "sshKeys" => Some(KEYS),
        "pamUser" => Some(PAM_USER),
        "pamMachine" => Some(PAM_MACHINE),
        "pamDatabase" => Some(PAM_DATABASE),
        "pamDirectory" => Some(PAM_DIRECTORY),
        _ => None,
    }
}

/// The standard record types that can be rotated.
pub const STANDARD_TYPES: [&str; 8] = [
    "login",
    "databaseCredentials",
    "serverCredentials",
    "sshKeys",
    "pamUser",
    "pamMachine",
    "pamDatabase",
    "pamDirectory",
];

/// A field that is shown in lists by definition: a plugin's name, a description.
fn shown(value: &Secret) -> String {
    #[expect(clippy::disallowed_methods, reason = "plugin names and descriptions are shown in lists")]
    let text = value.expose();
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(body: Body) -> Record {
        Record {
            uid: Uid::new("AAAAAAAAAAAAAAAAAAAAAA"),
            title: "one".into(),
            notes: None,
            folders: Vec::new(),
            body,
            writable: true,
            extra: Map::new(),
            earlier: Vec::new(),
        }
    }

    fn secret(text: &str) -> Secret {
        Secret::new(text.into())
    }

    #[test]
    fn identifier_title_and_field_names_are_one_line_each() {
        let with = |uid: &str, title: &str| {
            let mut record = record(Body::Untyped(Untyped::default()));
            record.uid = Uid::new(uid);
            record.title = title.into();
            record.validate()
        };
        assert_eq!(with("A", ""), Ok(()));
        for bad in ["", "a b", "a\n", "\u{7f}", &"x".repeat(257)] {
            assert_eq!(with(bad, "t"), Err(RecordError::Uid), "{bad:?}");
        }
        assert_eq!(with("A", "a\u{1b}[2J"), Err(RecordError::Title));
        let custom = vec![CustomField { name: "a\nb".into(), value: secret("v\nw"), kind: None }];
        let bad = record(Body::Untyped(Untyped { custom, ..Untyped::default() }));
        assert_eq!(bad.validate(), Err(RecordError::FieldName(1)));
    }

    #[test]
    fn every_standard_type_is_known_and_has_a_login_or_a_host() {
        for name in STANDARD_TYPES {
            let body = Typed::of_type(name).unwrap();
            assert_eq!(body.fields.len(), standard_fields(name).unwrap().len());
            let record = record(Body::Typed(body));
            assert!(record.login().is_none() && record.hosts().is_empty(), "empty fields are skipped");
            let place = record.place_of_password();
            assert_eq!(place.to_string(), "field password", "{name}");
        }
        assert!(Typed::of_type("bankCard").is_none());
    }

    #[test]
    fn a_field_is_made_where_there_is_none() {
        let mut typed = record(Body::Typed(Typed::of_type("sshKeys").unwrap()));
        let place = typed.key_pair().unwrap().place("privateKey");
        typed.set(&place, secret("key")).unwrap();
        assert!(typed.get(&place).unwrap().same_as(&secret("key")));
        let option = typed.place_of_option("cmdr:ssh_public_key", "text");
        assert!(typed.get(&option).is_none());
        typed.set(&option, secret("pub")).unwrap();
        assert!(typed.get(&option).unwrap().same_as(&secret("pub")));
        assert_eq!(typed.options().len(), 1);
        let mut untyped = record(Body::Untyped(Untyped::default()));
        let option = untyped.place_of_option("cmdr:x", "secret");
        untyped.set(&option, secret("v")).unwrap();
        untyped.set(&option, secret("w")).unwrap();
        assert_eq!(untyped.options().len(), 1);
        assert!(untyped.get(&Place::Named("cmdr:x".into())).unwrap().same_as(&secret("w")));
    }

    #[test]
    fn a_place_stays_the_same_when_other_fields_are_edited() {
        let field = |label: Option<&str>, text: &str| {
            let mut field = Field::new("password", label.map(str::to_owned));
            field.value.push(FieldValue::Text(secret(text)));
            field
        };
        let fields = vec![field(Some("x"), "1"), field(None, "2"), field(Some("x"), "3")];
        let mut record = record(Body::Typed(Typed { record_type: "own".into(), fields, custom: Vec::new() }));
        let found = record.password().unwrap();
        assert!(found.value.same_as(&secret("2")));
        if let Body::Typed(body) = &mut record.body {
            body.fields.insert(0, field(Some("new"), "0"));
        }
        assert!(record.get(&found.place).unwrap().same_as(&secret("2")));
    }

    #[test]
    fn an_option_of_any_field_type_is_read_as_text() {
        let mut host = Field::new("host", Some("cmdr:host".into()));
        let part = |name: &str, text: &str| (name.to_owned(), FieldValue::Text(secret(text)));
        host.value.push(FieldValue::Parts(vec![part("hostName", "::1"), part("port", "22")]));
        let mut port = Field::new("text", Some("turnlock:port".into()));
        port.value.push(FieldValue::Other(json!(22)));
        let record = record(Body::Typed(Typed { record_type: "own".into(), fields: vec![host], custom: vec![port] }));
        let options = record.options();
        assert_eq!((options[0].field(), options[1].field()), ("cmdr:host".into(), "turnlock:port".into()));
        assert!(options[0].values[0].same_as(&secret("[::1]:22")));
        assert!(options[1].values[0].same_as(&secret("22")));
        assert!(record.hosts().is_empty(), "an option is no field of the record's own");
    }

    #[test]
    fn a_record_survives_the_vaults_own_form() {
        let mut record = record(Body::Typed(Typed::of_type("pamMachine").unwrap()));
        record.notes = Some(secret("n"));
        let text = serde_json::to_string(&record).unwrap();
        let back: Record = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&back).unwrap(), text);
        assert_eq!(back.basis(), record.basis());
    }
}
