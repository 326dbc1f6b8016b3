//! What the installed rotators say of themselves, and a built-in table that
//! fixes Keeper's own names, ports and URL schemes: a record keeps its plugin
//! whatever is installed.

use std::collections::BTreeMap;

use serde_json::Value;
use turnlock_protocol::{Describe, Mark};

/// The rotators that can be used, by plugin.
#[derive(Debug, Default, Clone)]
pub struct Catalogue {
    entries: BTreeMap<String, Entry>,
}

/// One rotator: its description, and its schema read once.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The rotator's own words.
    pub describe: Describe,
    /// What a record may say to it, by name.
    pub properties: BTreeMap<String, Property>,
}

/// One property of a plugin's schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Property {
    /// Its name, which is the option's.
    pub name: String,
    /// Where it goes.
    pub mark: Mark,
    /// Its name in the credential.
    pub field: String,
    /// Its JSON type.
    pub kind: ValueKind,
    /// Whether the plugin cannot do without.
    pub required: bool,
    /// The values it may have, where the schema lists them.
    pub choices: Vec<String>,
    /// Whether it tells one account from another (`x-turnlock-identity`), as a
    /// database does where each has users of its own.
    pub identity: bool,
}

/// The JSON type of a property.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    /// A string.
    Text,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// true or false.
    Boolean,
    /// A list of strings.
    List,
}

/// Why a description cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CatalogueError {
    /// Its plugin's name could not be part of a file name.
    #[error("a rotator's name must be of a-z, 0-9 and -")]
    Name,
    /// Its schema is not one of an object with properties.
    #[error("the schema of {plugin} has no properties")]
    Schema {
        /// The plugin.
        plugin: String,
    },
    /// A property does not say where it goes.
    #[error("the schema of {plugin} does not mark {property} with x-turnlock: account, current, admin or write-back")]
    Unmarked {
        /// The plugin.
        plugin: String,
        /// The property.
        property: String,
    },
}

/// Ports by which Keeper's records are known.
const PORTS: [(u16, &str); 8] = [
    (22, "ssh"),
    (1433, "mssql"),
    (3306, "mysql"),
    (1521, "oracle"),
    (2484, "oracle"),
    (5432, "postgresql"),
    (389, "adpasswd"),
    (636, "adpasswd"),
];

/// URL schemes by which Keeper's records are known.
const SCHEMES: [(&str, &str); 11] = [
    ("ssh", "ssh"),
    ("mssql", "mssql"),
    ("sqlserver", "mssql"),
    ("mysql", "mysql"),
    ("mariadb", "mysql"),
    ("oracle", "oracle"),
    ("oracledb", "oracle"),
    ("postgres", "postgresql"),
    ("postgresql", "postgresql"),
    ("ldap", "adpasswd"),
    ("ldaps", "adpasswd"),
];

/// Database types of Keeper's typed records, in small letters, `-flexible` cut off.
const DATABASE_TYPES: [(&str, &str); 8] = [
    ("postgresql", "postgresql"),
    ("postgres", "postgresql"),
    ("mysql", "mysql"),
    ("mariadb", "mysql"),
    ("mssql", "mssql"),
    ("sqlserver", "mssql"),
    ("oracle", "oracle"),
    ("mongodb", "mongodb"),
];

/// Directory types of Keeper's typed records, in small letters without spaces.
const DIRECTORY_TYPES: [(&str, &str); 4] =
    [("activedirectory", "adpasswd"), ("ad", "adpasswd"), ("openldap", "adpasswd"), ("ldap", "adpasswd")];

/// Keeper's plugins with a port of their own.
const DEFAULT_PORTS: [(&str, u16); 7] = [
    ("ssh", 22),
    ("sshkey", 22),
    ("mssql", 1433),
    ("mysql", 3306),
    ("oracle", 1521),
    ("postgresql", 5432),
    ("adpasswd", 636),
];

/// Keeper's plugins, so that a misspelt name finds its neighbour whatever is
/// installed.
const KEEPERS: [&str; 14] = [
    "adpasswd",
    "awskey",
    "awspswd",
    "azureadpwd",
    "mssql",
    "mysql",
    "noop",
    "oracle",
    "postgresql",
    "pspasswd",
    "ssh",
    "sshkey",
    "unixpasswd",
    "windows",
];

/// Properties that tell accounts apart where a schema does not say so itself.
const IDENTITIES: [(&str, &str); 9] = [
    ("oracle", "db"),
    ("oracle", "sid"),
    ("mssql", "instance"),
    ("awskey", "aws_profile"),
    ("awskey", "aws_assume_role"),
    ("awspswd", "aws_profile"),
    ("awspswd", "aws_assume_role"),
    ("azureadpwd", "azure_tenant_id"),
    ("azureadpwd", "azure_cloud"),
];

impl Catalogue {
    /// A catalogue without any rotator.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a rotator in; a second one of the same plugin replaces the first.
    pub fn insert(&mut self, describe: Describe) -> Result<(), CatalogueError> {
        let entry = Entry::read(describe)?;
        self.entries.insert(entry.describe.plugin.clone(), entry);
        Ok(())
    }

    /// The rotator of a plugin.
    pub fn get(&self, plugin: &str) -> Option<&Entry> {
        self.entries.get(plugin)
    }

    /// All rotators in the order of their plugins' names.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// Names these rotators in these versions.
    pub fn versions(&self) -> String {
        let named = self.entries().map(|Entry { describe, .. }| format!("{} {}\n", describe.plugin, describe.version));
        named.collect()
    }

    /// The plugin known by a port: Keeper's, else the only rotator that claims it.
    pub fn plugin_of_port(&self, port: u16) -> Option<&str> {
        if let Some((_, plugin)) = PORTS.iter().find(|(known, _)| *known == port) {
            return Some(plugin);
        }
        let mut claims = self
            .entries
            .values()
            .filter(|entry| entry.describe.default_port == Some(port) || entry.describe.ports.contains(&port));
        let first = claims.next()?;
        claims.next().is_none().then_some(first.describe.plugin.as_str())
    }

    /// The plugin known by a URL scheme: Keeper's, else the only rotator that claims it.
    pub fn plugin_of_scheme(&self, scheme: &str) -> Option<&str> {
        if let Some((_, plugin)) = SCHEMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(scheme)) {
            return Some(plugin);
        }
        let mut claims = self.entries.values().filter(|entry| entry.claims(scheme));
        let first = claims.next()?;
        claims.next().is_none().then_some(first.describe.plugin.as_str())
    }

    /// Whether a URL with this scheme speaks of this plugin's targets.
    pub fn owns_scheme(&self, plugin: &str, scheme: &str) -> bool {
        let keepers = SCHEMES.iter().any(|(known, owner)| known.eq_ignore_ascii_case(scheme) && *owner == plugin);
        let shared = plugin == "sshkey" && scheme.eq_ignore_ascii_case("ssh");
        keepers || shared || self.get(plugin).is_some_and(|entry| entry.claims(scheme))
    }

    /// The port when none is given.
    pub fn default_port(&self, plugin: &str) -> Option<u16> {
        let own = self.get(plugin).and_then(|entry| entry.describe.default_port);
        own.or_else(|| DEFAULT_PORTS.iter().find(|(known, _)| *known == plugin).map(|(_, port)| *port))
    }

    /// The plugin of a typed record's `databaseType`.
    pub fn plugin_of_database_type(&self, text: &str) -> Option<&str> {
        let text = text.trim().to_ascii_lowercase();
        let text = text.strip_suffix("-flexible").unwrap_or(&text);
        DATABASE_TYPES.iter().find(|(known, _)| *known == text).map(|(_, plugin)| *plugin)
    }

    /// The plugin of a typed record's `directoryType`.
    pub fn plugin_of_directory_type(&self, text: &str) -> Option<&str> {
        let text: String = text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
        DIRECTORY_TYPES.iter().find(|(known, _)| *known == text).map(|(_, plugin)| *plugin)
    }

    /// The known plugin with the most similar name, if one is near enough.
    pub fn nearest(&self, name: &str) -> Option<&str> {
        nearest(name, self.entries.keys().map(String::as_str).chain(KEEPERS))
    }
}

impl Entry {
    /// Reads a description's schema.
    pub fn read(describe: Describe) -> Result<Self, CatalogueError> {
        if !crate::record::is_plugin_name(&describe.plugin) {
            return Err(CatalogueError::Name);
        }
        let schema = &describe.schema;
        let Some(Value::Object(listed)) = schema.get("properties") else {
            return Err(CatalogueError::Schema { plugin: describe.plugin });
        };
        let required: Vec<&str> = match schema.get("required") {
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let mut properties = BTreeMap::new();
        for (name, property) in listed {
            let mark = property.get("x-turnlock").cloned().and_then(|mark| serde_json::from_value(mark).ok());
            let Some(mark) = mark else {
                return Err(CatalogueError::Unmarked { plugin: describe.plugin.clone(), property: name.clone() });
            };
            let field = property.get("x-turnlock-field").and_then(Value::as_str).unwrap_or(name).to_owned();
            let identity = property.get("x-turnlock-identity") == Some(&Value::Bool(true))
                || IDENTITIES.contains(&(describe.plugin.as_str(), name.as_str()));
            let property = Property {
                name: name.clone(),
                mark,
                field,
                kind: kind_of(property, schema, 8).unwrap_or(ValueKind::Text),
                required: required.contains(&name.as_str()),
                choices: choices_of(property, schema, 8),
                identity,
            };
            properties.insert(name.clone(), property);
        }
        Ok(Self { describe, properties })
    }

    /// The properties with one of these marks.
    pub fn marked(&self, marks: &'static [Mark]) -> impl Iterator<Item = &Property> {
        self.properties.values().filter(|property| marks.contains(&property.mark))
    }

    fn claims(&self, scheme: &str) -> bool {
        self.describe.url_schemes.iter().any(|known| known.eq_ignore_ascii_case(scheme))
    }
}

/// The name most similar to the one given, if one is near enough to be meant.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = name.chars().count();
    if length > 64 {
        return None;
    }
    let near = known.into_iter().map(|known| (distance(name, known), known)).min()?;
    (near.0 > 0 && near.0 <= (length / 3).max(1)).then_some(near.1)
}

/// Insertions, deletions, replacements and swaps of neighbours between two texts.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().flat_map(char::to_lowercase).collect();
    let b: Vec<char> = b.chars().flat_map(char::to_lowercase).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let at = |cells: &[usize], n: usize| cells.get(n).copied().unwrap_or(usize::MAX / 2);
            let mut best = (at(&row, j) + usize::from(x != y)).min(at(&row, j + 1) + 1).min(at(&next, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            if swapped {
                best = best.min(at(&before, j - 1) + 1);
            }
            next.push(best);
        }
        before = std::mem::replace(&mut row, next);
    }
    row.last().copied().unwrap_or(usize::MAX)
}

/// The variants of a property: itself, what it refers to, and what it combines.
fn variants<'a>(property: &'a Value, schema: &'a Value) -> Vec<&'a Value> {
    let mut variants = Vec::new();
    if let Some(reference) = property.get("$ref").and_then(Value::as_str) {
        variants.extend(reference.strip_prefix('#').and_then(|pointer| schema.pointer(pointer)));
    }
    for word in ["anyOf", "oneOf", "allOf"] {
        variants.extend(property.get(word).and_then(Value::as_array).into_iter().flatten());
    }
    variants
}

fn kind_of(property: &Value, schema: &Value, depth: u8) -> Option<ValueKind> {
    let named = |name: &str| match name {
        "string" => Some(ValueKind::Text),
        "integer" => Some(ValueKind::Integer),
        "number" => Some(ValueKind::Number),
        "boolean" => Some(ValueKind::Boolean),
        "array" => Some(ValueKind::List),
        _ => None,
    };
    match property.get("type") {
        Some(Value::String(name)) => return named(name),
        Some(Value::Array(names)) => return names.iter().filter_map(Value::as_str).find_map(named),
        _ => {}
    }
    let depth = depth.checked_sub(1)?;
    variants(property, schema).into_iter().find_map(|variant| kind_of(variant, schema, depth))
}

fn choices_of(property: &Value, schema: &Value, depth: u8) -> Vec<String> {
    if let Some(Value::Array(values)) = property.get("enum") {
        return values.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    }
    if let Some(Value::String(value)) = property.get("const") {
        return vec![value.clone()];
    }
    let Some(depth) = depth.checked_sub(1) else {
        return Vec::new();
    };
    let variants = variants(property, schema);
    variants.into_iter().flat_map(|variant| choices_of(variant, schema, depth)).collect()
}

#[cfg(test)]
pub(crate) mod fixtures;

#[cfg(test)]
mod tests {
    use super::fixtures::{catalogue, describe};
    use super::*;

    #[test]
    fn keepers_ports_and_schemes_are_known_without_any_rotator() {
        let empty = Catalogue::new();
        for (port, plugin) in PORTS {
            assert_eq!(empty.plugin_of_port(port), Some(plugin));
        }
        for (scheme, plugin) in SCHEMES {
            assert_eq!(empty.plugin_of_scheme(&scheme.to_uppercase()), Some(plugin));
            assert!(empty.owns_scheme(plugin, scheme));
        }
        assert!(empty.owns_scheme("sshkey", "ssh"));
        assert!(!empty.owns_scheme("mysql", "https"));
        assert_eq!(empty.plugin_of_port(8080), None);
    }

    #[test]
    fn a_new_rotator_brings_its_own_port_and_scheme() {
        let mut catalogue = catalogue();
        let mut mongo = describe("mongodb", serde_json::json!({ "properties": {} }));
        mongo.default_port = Some(27017);
        mongo.ports = vec![5432];
        mongo.url_schemes = vec!["mongodb".into(), "mysql".into()];
        catalogue.insert(mongo.clone()).unwrap();
        assert_eq!(catalogue.plugin_of_port(27017), Some("mongodb"));
        assert_eq!(catalogue.plugin_of_scheme("MongoDB"), Some("mongodb"));
        // Keeper's own stay what they were.
        assert_eq!(catalogue.plugin_of_port(5432), Some("postgresql"));
        assert_eq!(catalogue.plugin_of_scheme("mysql"), Some("mysql"));
        // Two claims are none.
        mongo.plugin = "documentdb".into();
        catalogue.insert(mongo).unwrap();
        assert_eq!(catalogue.plugin_of_port(27017), None);
    }

    #[test]
    fn a_schema_is_read_as_schemars_writes_it() {
        let schema = serde_json::json!({
            "$defs": {
                "Tls": { "oneOf": [{ "type": "string", "const": "verify-full" }, { "type": "string", "const": "disable" }] },
                "Secret": { "type": "string", "writeOnly": true }
            },
            "properties": {
                "tls": { "anyOf": [{ "$ref": "#/$defs/Tls" }, { "type": "null" }], "x-turnlock": "account" },
                "port": { "type": ["integer", "null"], "x-turnlock": "account" },
                "hosts": { "type": "array", "items": { "type": "string" }, "x-turnlock": "account" },
                "dual_password": { "type": "boolean", "x-turnlock": "account" },
                "aws_key_secret": { "$ref": "#/$defs/Secret", "x-turnlock": "write-back", "x-turnlock-field": "secret_access_key" }
            },
            "required": ["hosts"]
        });
        let entry = Entry::read(describe("x", schema)).unwrap();
        let property = |name: &str| entry.properties.get(name).unwrap();
        assert_eq!(property("tls").kind, ValueKind::Text);
        assert_eq!(property("tls").choices, ["verify-full", "disable"]);
        assert_eq!(property("port").kind, ValueKind::Integer);
        assert_eq!(property("hosts").kind, ValueKind::List);
        assert!(property("hosts").required);
        assert_eq!(property("dual_password").kind, ValueKind::Boolean);
        let secret = property("aws_key_secret");
        assert_eq!((secret.kind, secret.mark), (ValueKind::Text, Mark::WriteBack));
        assert_eq!(secret.field, "secret_access_key");
    }

    #[test]
    fn a_property_without_a_mark_is_refused() {
        let schema = serde_json::json!({ "properties": { "db": { "type": "string" } } });
        let error = Entry::read(describe("x", schema)).unwrap_err();
        assert_eq!(error, CatalogueError::Unmarked { plugin: "x".into(), property: "db".into() });
        assert_eq!(Entry::read(describe("../x", serde_json::json!({}))).unwrap_err(), CatalogueError::Name);
    }

    #[test]
    fn a_schema_that_refers_to_itself_ends() {
        let schema = serde_json::json!({
            "properties": { "a": { "$ref": "#/properties/a", "x-turnlock": "account" } }
        });
        assert!(Entry::read(describe("x", schema)).is_ok());
    }

    #[test]
    fn misspelt_names_find_their_neighbour() {
        let catalogue = catalogue();
        for (wrong, right) in [
            ("postgres", "postgresql"),
            ("mysqll", "mysql"),
            ("mysqk", "mysql"),
            ("awskeys", "awskey"),
            ("window", "windows"),
        ] {
            assert_eq!(catalogue.nearest(wrong), Some(right), "{wrong}");
        }
        assert_eq!(catalogue.nearest("kubernetes"), None);
    }
}
