//! Record + options + catalogue → plan, or an error that says what to do.
//!
//! Pure: nothing is read, asked or written here. Only what a plugin's schema
//! marks `account` leaves this file in clear; every other value stays a secret
//! and is named by its field alone.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv6Addr;

use serde_json::Value;
use turnlock_protocol::operation::{Account, Admin};
use turnlock_protocol::{
    Credential, Hosts, Mark, Origin, PasswordLimits, Policy, PolicyError, RandomSource, Secret, Traits, VerifyBy, field,
};

use crate::catalogue::{Catalogue, Entry, Property, ValueKind, nearest};
use crate::plan::{Decision, Identity, Plan, WriteBack};
use crate::record::{FoundKeys, Place, Prefix, Record, Uid, is_plugin_name};
use crate::secret_policy::{self, RulesError, Wishes};

/// What a command line says about one rotation; it wins over every record.
#[derive(Debug, Default)]
pub struct Options {
    /// The endpoint asked for by name.
    pub endpoint: Option<String>,
    /// `--plugin`.
    pub plugin: Option<String>,
    /// `--host`; may carry a port.
    pub host: Option<String>,
    /// `--port`.
    pub port: Option<u16>,
    /// `--rules`.
    pub rules: Option<String>,
    /// `--length`.
    pub length: Option<u32>,
    /// `--passphrase`: a number of words.
    pub passphrase: Option<u32>,
    /// `--timeout`, in seconds.
    pub timeout: Option<u64>,
    /// A password a person supplied instead of a drawn one.
    pub password: Option<Secret>,
}

/// How a record's plugin was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// The plugin's name.
    pub plugin: String,
    /// The named endpoint that was asked for, as the record spells it.
    pub endpoint: Option<String>,
    /// What decided: "option --plugin", "custom field 'cmdr:plugin'", …
    pub from: String,
}

/// Why a record cannot be rotated as asked.
#[derive(Debug, thiserror::Error)]
#[error("record '{}' ({uid}): {problem}", title.escape_debug())]
pub struct ResolveError {
    /// The record.
    pub uid: Uid,
    /// Its title.
    pub title: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a record or the options. Never holds a value that could
/// be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Its vault does not let us write it.
    #[error("it is read-only in its vault, so a new secret could not be kept")]
    NotWritable,
    /// Nothing says which plugin.
    #[error("nothing says which plugin rotates it")]
    NoPlugin {
        /// The names of its endpoints.
        endpoints: Vec<String>,
    },
    /// It has no endpoint of the name asked for.
    #[error("it has no endpoint of that name")]
    NoEndpoint {
        /// The names it has.
        known: Vec<String>,
    },
    /// A plugin's name that cannot be one.
    #[error("{from} holds no name of a plugin")]
    PluginName {
        /// The field or option.
        from: String,
    },
    /// No rotator for the plugin.
    #[error("rotator turnlock-{plugin} is not installed")]
    NotInstalled {
        /// The plugin.
        plugin: String,
        /// A known plugin with a similar name.
        nearest: Option<String>,
    },
    /// Values the plugin cannot do without; all of them.
    #[error("{plugin} needs {}", Missing::list(fields))]
    Missing {
        /// The plugin.
        plugin: String,
        /// What is missing, and where it may be set.
        fields: Vec<Missing>,
    },
    /// A text where a number belongs.
    #[error("{from} is not {wanted}")]
    NotANumber {
        /// The field or option.
        from: String,
        /// "a whole number", "a port from 1 to 65535", …
        wanted: &'static str,
    },
    /// A text where yes or no belongs.
    #[error("{from} is neither true nor false")]
    NotABoolean {
        /// The field.
        from: String,
    },
    /// A text that is none of those the plugin knows.
    #[error("{from} is none of: {}", choices.join(", "))]
    NotOneOf {
        /// The field.
        from: String,
        /// What it may be.
        choices: Vec<String>,
    },
    /// A text that names no host.
    #[error("{from} is not a host, host:port or [IPv6]:port")]
    NotAHost {
        /// The field or option.
        from: String,
    },
    /// Several hosts for a plugin that takes one.
    #[error("it names {count} different hosts ({}), but {plugin} takes one", from.join(", "))]
    ManyHosts {
        /// The plugin.
        plugin: String,
        /// How many.
        count: usize,
        /// Where they stand.
        from: Vec<String>,
    },
    /// One option with different values.
    #[error("{from} is there several times with different values")]
    Contradictory {
        /// The field.
        from: String,
    },
    /// Rules or a complexity that cannot be read.
    #[error("{from}: {error}")]
    Rules {
        /// The field or option.
        from: String,
        /// What is wrong.
        error: RulesError,
    },
    /// No secret can keep the rules and the target's limits.
    #[error("no new secret can keep the rules ({from}) and the limits of {plugin}: {error}")]
    Unkeepable {
        /// The plugin.
        plugin: String,
        /// Where the rules came from.
        from: String,
        /// The rule.
        error: PolicyError,
    },
    /// The supplied password breaks a rule.
    #[error("the supplied password does not keep the rules ({from}): {error}")]
    Supplied {
        /// Where the rules came from.
        from: String,
        /// The rule.
        error: PolicyError,
    },
    /// The plugin's secrets cannot be supplied.
    #[error("{plugin} takes no supplied password: its secrets are made by {maker}")]
    NotSuppliable {
        /// The plugin.
        plugin: String,
        /// Who makes them.
        maker: &'static str,
    },
    /// The supplied password is the old one.
    #[error("the supplied password is the one it already has")]
    SameSecret,
    /// A number of words that makes no good passphrase.
    #[error("{from} is not a number of words from 5 to 9")]
    Passphrase {
        /// The field or option.
        from: String,
    },
    /// The record of its admin was not handed in.
    #[error("the admin record that {from} names was not found")]
    AdminMissing {
        /// The field.
        from: String,
    },
    /// The record of its admin has no login.
    #[error("the admin record '{}' has no login", title.escape_debug())]
    AdminWithoutLogin {
        /// Its title.
        title: String,
    },
}

/// One missing value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The property.
    pub name: String,
    /// Where it may be set.
    pub places: String,
}

impl Missing {
    fn list(fields: &[Self]) -> String {
        let texts: Vec<String> = fields.iter().map(ToString::to_string).collect();
        texts.join("; ")
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} (set it in {})", self.name, self.places)
    }
}

impl ResolveError {
    fn of(record: &Record, problem: Problem) -> Self {
        Self { uid: record.uid.clone(), title: record.title.clone(), problem }
    }

    /// What to do about it.
    pub fn hint(&self) -> String {
        self.problem.hint()
    }
}

impl Problem {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::NotWritable => "ask the record's owner for the right to edit it".into(),
            Self::NoPlugin { endpoints } if !endpoints.is_empty() => {
                format!("ask for one of its endpoints by name: {}", endpoints.join(", "))
            }
            Self::NoPlugin { .. } => "add the custom field cmdr:plugin, or give --plugin".into(),
            Self::NoEndpoint { known } if known.is_empty() => "it has none; add cmdr:plugin:NAME".into(),
            Self::NoEndpoint { known } => format!("it has {}", known.join(", ")),
            Self::PluginName { .. } => "a plugin's name is made of a-z, 0-9 and -, such as postgresql".into(),
            Self::NotInstalled { nearest: Some(name), .. } => format!("did you mean {name}?"),
            Self::NotInstalled { plugin, .. } => {
                format!("put turnlock-{plugin} beside turnlock or into a configured plugin directory")
            }
            Self::Missing { fields, .. } => match fields.first() {
                Some(first) => format!("set {}", first.places),
                None => "see the plugin's page".into(),
            },
            Self::NotANumber { from, wanted } => format!("write {wanted} into {from}"),
            Self::NotABoolean { from } => format!("write true or false into {from}"),
            Self::NotOneOf { from, choices } => {
                format!("write one of {} into {from}", choices.join(", "))
            }
            Self::NotAHost { from } => {
                format!("write db.example.com, db.example.com:3307 or [::1]:3307 into {from}")
            }
            Self::ManyHosts { .. } => "choose one with --host, or keep one host in this record".into(),
            Self::Contradictory { from } => format!("keep one {from}"),
            Self::Rules { error, .. } => error.hint().into(),
            Self::Unkeepable { .. } => "change the rules or the length".into(),
            Self::Supplied { .. } => "supply another password, or let one be made".into(),
            Self::NotSuppliable { .. } => "leave --password out".into(),
            Self::SameSecret => "supply another password, or let one be made".into(),
            Self::Passphrase { .. } => "write 6 for six words".into(),
            Self::AdminMissing { from } => {
                format!("write the UID or title of the admin's record into {from}")
            }
            Self::AdminWithoutLogin { .. } => "give that record a login".into(),
        }
    }
}

/// Options of the engine itself; no rotator sees them unless its schema asks.
const ENGINE: [&str; 14] = [
    "plugin",
    "rules",
    "length",
    "passphrase",
    "admin",
    "schedule",
    "tag",
    "hook",
    "hook_secret",
    "hook_key",
    "hook_timeout",
    "timeout",
    "grace",
    "description",
];

/// Options every Keeper record may carry, used by the plugin or not.
const COMMON: [&str; 5] = ["host", "port", "login", "password", "url"];

/// Options that hold halves of a key pair.
const KEY_OPTIONS: [&str; 4] = ["private_key", "ssh_public_key", "rsa_public_key", "passphrase"];

const DEFAULT_TIMEOUT_S: u64 = 30;
const LONGEST_TIMEOUT_S: u64 = 86_400;
const PORT: &str = "a port from 1 to 65535";

/// The plan of one rotation.
///
/// `admin` is the record [`admin_of`] names; `learned` are the limits the
/// record's target has told before.
pub fn resolve(
    record: &Record,
    options: &Options,
    catalogue: &Catalogue,
    admin: Option<&Record>,
    learned: &PasswordLimits,
) -> Result<Plan, ResolveError> {
    plan(record, options, catalogue, admin, learned).map_err(|problem| ResolveError::of(record, problem))
}

/// The plugin alone, for lists.
pub fn plugin_of(record: &Record, options: &Options, catalogue: &Catalogue) -> Result<Chosen, ResolveError> {
    choose(record, &Said::of(record), options, catalogue).map_err(|problem| ResolveError::of(record, problem))
}

/// The accounts a record stands for without options: that of its default and
/// those of its named endpoints. What does not resolve is left out.
pub fn identities(record: &Record, catalogue: &Catalogue) -> Vec<Identity> {
    let names = record.endpoints().into_iter().map(|endpoint| endpoint.name);
    let mut found: Vec<Identity> = [None]
        .into_iter()
        .chain(names)
        .filter_map(|endpoint| {
            let options = Options { endpoint, ..Options::default() };
            let said = Said::of(record);
            let chosen = choose(record, &said, &options, catalogue).ok()?;
            let entry = catalogue.get(&chosen.plugin)?;
            let facts = Facts::read(record, &said, &options, catalogue, entry).ok()?;
            Some(facts.identity(record, entry))
        })
        .collect();
    found.sort();
    found.dedup();
    found
}

/// Where a record keeps the fields of a plugin's credential; none where it
/// contradicts itself. Two records of one account may keep them differently.
pub fn write_back(record: &Record, plugin: &str, catalogue: &Catalogue) -> Option<Vec<WriteBack>> {
    let said = Said::of(record);
    let keys = Keys::of(record, &said).ok()?;
    let (_, places) = credential(record, &said, &keys, catalogue.get(plugin)?, &mut Told::default()).ok()?;
    Some(places)
}

/// UID or title of the record that may reset this one.
pub fn admin_of(record: &Record) -> Option<String> {
    let said = Said::of(record);
    let (value, _) = said.0.get("admin")?.first()?;
    Some(clear(value).trim().to_owned()).filter(|name| !name.is_empty())
}

/// What a record says under one of the engine's own options, in its order.
pub(crate) fn said(record: &Record, name: &str) -> Vec<Secret> {
    let said = Said::of(record).0.remove(name);
    said.into_iter().flatten().map(|(value, _)| value).collect()
}

/// How many words a passphrase shall have, where one is wanted instead of a
/// password.
pub fn passphrase_words(record: &Record, options: &Options) -> Result<Option<u32>, ResolveError> {
    words(&Said::of(record), options).map_err(|problem| ResolveError::of(record, problem))
}

fn plan(
    record: &Record,
    options: &Options,
    catalogue: &Catalogue,
    admin: Option<&Record>,
    learned: &PasswordLimits,
) -> Result<Plan, Problem> {
    if !record.writable {
        return Err(Problem::NotWritable);
    }
    let said = Said::of(record);
    let chosen = choose(record, &said, options, catalogue)?;
    let Some(entry) = catalogue.get(&chosen.plugin) else {
        let nearest = catalogue.nearest(&chosen.plugin).map(str::to_owned);
        return Err(Problem::NotInstalled { plugin: chosen.plugin, nearest });
    };
    let mut told = Told::default();
    told.decide("plugin", chosen.plugin.clone(), chosen.from.clone());
    if let Some(endpoint) = &chosen.endpoint {
        told.decide("endpoint", endpoint.escape_debug().to_string(), "asked for by name".into());
    }

    let facts = Facts::read(record, &said, options, catalogue, entry)?;
    let identity = facts.identity(record, entry);
    let mut missing = facts.missing(entry);
    let account = facts.tell(&mut told);

    let keys = Keys::of(record, &said)?;
    let (current, write_back) = credential(record, &said, &keys, entry, &mut told)?;
    let (admin_uid, admin) = admin_login(&said, record, admin, entry, &mut told)?;
    missing.extend(missing_secrets(entry, &current, admin.is_some()));
    if !missing.is_empty() {
        return Err(Problem::Missing { plugin: chosen.plugin, fields: missing });
    }

    let traits = &entry.describe.traits;
    let (policy, rules_from) = policy(record, &said, options, entry, learned, &mut told)?;
    if let Some(words) = words(&said, options)? {
        told.decide("passphrase", format!("{words} words"), said.origin("passphrase", "option --passphrase"));
    }
    let supplied = supplied(options, traits, &write_back, &current, &policy, &rules_from, &chosen.plugin)?;
    let deadline_ms = deadline(&said, options, &mut told)?;
    said.remark_unknown(entry, &mut told);

    Ok(Plan {
        plugin: chosen.plugin,
        endpoint: chosen.endpoint,
        account,
        identity,
        current,
        admin,
        admin_uid,
        policy,
        supplied,
        write_back,
        basis: record.basis(),
        deadline_ms,
        traits: traits.clone(),
        decisions: told.decisions,
        remarks: told.remarks,
    })
}

// ---- what the record says ----

/// A record's options by name: `turnlock:x` instead of its twin `cmdr:x`,
/// repeated fields as several values, empty ones left out.
struct Said(BTreeMap<String, Vec<(Secret, Place)>>);

impl Said {
    fn of(record: &Record) -> Self {
        let mut said: BTreeMap<String, (Prefix, Vec<(Secret, Place)>)> = BTreeMap::new();
        for option in record.options() {
            let values: Vec<(Secret, Place)> = option
                .values
                .into_iter()
                .filter(|value| !clear(value).trim().is_empty())
                .map(|value| (value, option.place.clone()))
                .collect();
            if values.is_empty() {
                continue;
            }
            match said.get_mut(&option.name) {
                Some((prefix, there)) if *prefix == option.prefix => there.extend(values),
                Some((prefix, _)) if *prefix > option.prefix => {}
                _ => {
                    said.insert(option.name, (option.prefix, values));
                }
            }
        }
        Self(said.into_iter().map(|(name, (_, values))| (name, values)).collect())
    }

    fn all(&self, name: &str) -> &[(Secret, Place)] {
        self.0.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// The one value of an option.
    fn one(&self, name: &str) -> Result<Option<(&Secret, &Place)>, Problem> {
        let Some(((value, place), others)) = self.all(name).split_first() else {
            return Ok(None);
        };
        if others.iter().any(|(other, _)| !other.same_as(value)) {
            return Err(Problem::Contradictory { from: place.to_string() });
        }
        Ok(Some((value, place)))
    }

    /// Where an option's value stands, or else what it is called on a command line.
    fn origin(&self, name: &str, option: &str) -> String {
        self.all(name).first().map_or_else(|| option.to_owned(), |(_, place)| place.to_string())
    }

    fn remark_unknown(&self, entry: &Entry, told: &mut Told) {
        let plugin = &entry.describe.plugin;
        let keys = entry.properties.values().any(|property| property.field == field::PRIVATE_KEY);
        let known = |name: &str| {
            entry.properties.contains_key(name)
                || ENGINE.contains(&name)
                || COMMON.contains(&name)
                || name.starts_with("plugin:")
                || (keys && KEY_OPTIONS.contains(&name))
        };
        for (name, values) in self.0.iter().filter(|(name, _)| !known(name)) {
            let Some((_, place)) = values.first() else {
                continue;
            };
            let names = entry.properties.keys().map(String::as_str).chain(ENGINE).chain(COMMON);
            let guess = match nearest(name, names) {
                Some(near) => format!("; did you mean cmdr:{near}?"),
                None => String::new(),
            };
            told.remarks.push(format!("{place} is not known to {plugin}; it is kept, and held as a secret{guess}"));
        }
    }
}

/// What has been decided so far, and what a person should know of it.
#[derive(Default)]
struct Told {
    decisions: Vec<Decision>,
    remarks: Vec<String>,
}

impl Told {
    fn decide(&mut self, what: impl Into<String>, value: String, from: String) {
        self.decisions.push(Decision { what: what.into(), value, from });
    }

    fn decide_secret(&mut self, what: &str, place: &Place) {
        self.decide(what, "(secret)".into(), place.to_string());
    }
}

// ---- which plugin ----

fn choose(record: &Record, said: &Said, options: &Options, catalogue: &Catalogue) -> Result<Chosen, Problem> {
    let endpoints = record.endpoints();
    let names = || endpoints.iter().filter_map(|endpoint| endpoint.name.clone()).collect::<Vec<_>>();
    let asked = match &options.endpoint {
        None => None,
        Some(asked) => {
            let same = |name: &str| name.to_lowercase() == asked.to_lowercase();
            let found = endpoints.iter().find(|endpoint| endpoint.name.as_deref().is_some_and(same));
            Some(found.ok_or_else(|| Problem::NoEndpoint { known: names() })?)
        }
    };
    let endpoint = asked.and_then(|asked| asked.name.clone());
    let chosen =
        |plugin: &str, from: String| Ok(Chosen { plugin: plugin.to_owned(), endpoint: endpoint.clone(), from });

    if let Some(plugin) = &options.plugin {
        let from = "option --plugin".to_owned();
        let plugin = plugin.trim();
        return if is_plugin_name(plugin) { chosen(plugin, from) } else { Err(Problem::PluginName { from }) };
    }
    if let Some(asked) = asked {
        let name = format!("plugin:{}", asked.name.as_deref().unwrap_or_default());
        said.one(&name)?;
        let from = said.origin(&name, &asked.field);
        return match &asked.plugin {
            Some(plugin) => chosen(plugin, from),
            None => Err(Problem::PluginName { from }),
        };
    }
    if let Some((value, place)) = said.one("plugin")? {
        let plugin = clear(value).trim();
        let from = place.to_string();
        return if is_plugin_name(plugin) { chosen(plugin, from) } else { Err(Problem::PluginName { from }) };
    }
    match detect(record, said, options, catalogue) {
        Some((plugin, from)) => chosen(&plugin, from),
        None => Err(Problem::NoPlugin { endpoints: names() }),
    }
}

/// The plugin by what the record is: typed facts, then the URL's scheme, then
/// a port.
fn detect(record: &Record, said: &Said, options: &Options, catalogue: &Catalogue) -> Option<(String, String)> {
    if let Some(fact) = record.fact("databaseType")
        && let Some(plugin) = catalogue.plugin_of_database_type(clear(&fact.value))
    {
        return Some((plugin.to_owned(), fact.place.to_string()));
    }
    if let Some(fact) = record.fact("directoryType")
        && let Some(plugin) = catalogue.plugin_of_directory_type(clear(&fact.value))
    {
        return Some((plugin.to_owned(), fact.place.to_string()));
    }
    if record.record_type() == Some("sshKeys") {
        return Some(("sshkey".to_owned(), "record type sshKeys".to_owned()));
    }
    let with_key = |plugin: &str| match plugin {
        "ssh" if record.key_pair().is_some_and(|keys| keys.private.is_some()) => "sshkey".to_owned(),
        plugin => plugin.to_owned(),
    };
    let url = record.url();
    let host_fields = record.hosts();
    let mut texts: Vec<(&Secret, &Place)> = Vec::new();
    texts.extend(url.iter().map(|found| (&found.value, &found.place)));
    texts.extend(host_fields.iter().map(|found| (&found.host, &found.place)));
    texts.extend(said.all("host").iter().map(|(value, place)| (value, place)));
    for (text, place) in texts {
        let scheme = scheme_of(clear(text)).map(|(scheme, _)| scheme);
        if let Some(plugin) = scheme.and_then(|scheme| catalogue.plugin_of_scheme(scheme)) {
            return Some((with_key(plugin), format!("scheme of the {place}")));
        }
    }

    let port_of = |text: &str| Url::read(text).and_then(|url| url.port);
    let mut ports: Vec<(Option<u16>, String)> = vec![(options.port, "option --port".to_owned())];
    ports.push((options.host.as_deref().and_then(port_of), "port in option --host".to_owned()));
    for found in &host_fields {
        let beside = found.port.as_ref().and_then(|port| number_of_port(clear(port)));
        ports.push((beside.or_else(|| port_of(clear(&found.host))), format!("port of the {}", found.place)));
    }
    let in_option = said.all("host").iter();
    ports.extend(in_option.map(|(value, place)| (port_of(clear(value)), format!("port of the {place}"))));
    let own = said.all("port").iter();
    ports.extend(own.map(|(value, place)| (number_of_port(clear(value)), place.to_string())));
    ports.extend(url.iter().map(|found| (port_of(clear(&found.value)), format!("port of the {}", found.place))));
    ports.into_iter().find_map(|(port, from)| catalogue.plugin_of_port(port?).map(|plugin| (with_key(plugin), from)))
}

// ---- which values ----

/// The non-secret side of a plan.
struct Facts {
    account: Account,
    decisions: Vec<Decision>,
    remarks: Vec<String>,
    hosts: Vec<Spot>,
    port: u16,
    login: String,
}

/// One host, and where it stands.
#[derive(Debug, Clone)]
struct Spot {
    host: String,
    port: Option<u16>,
    from: String,
}

impl Spot {
    fn same_as(&self, other: &Self) -> bool {
        self.host.eq_ignore_ascii_case(&other.host) && self.port == other.port
    }

    fn text(&self) -> String {
        match self.port {
            Some(port) if self.host.contains(':') => format!("[{}]:{port}", self.host),
            Some(port) => format!("{}:{port}", self.host),
            None => self.host.clone(),
        }
    }
}

impl Facts {
    fn read(
        record: &Record,
        said: &Said,
        options: &Options,
        catalogue: &Catalogue,
        entry: &Entry,
    ) -> Result<Self, Problem> {
        let plugin = entry.describe.plugin.as_str();
        let has = |name: &str| entry.properties.get(name).is_some_and(|property| property.mark == Mark::Account);
        let mut facts = Self {
            account: Account::new(),
            decisions: Vec::new(),
            remarks: Vec::new(),
            hosts: Vec::new(),
            port: 0,
            login: String::new(),
        };
        let url = record.url();
        let url =
            url.as_ref().and_then(|found| Url::read(clear(&found.value)).map(|url| (url, found.place.to_string())));
        let owned = url
            .as_ref()
            .filter(|(url, _)| url.scheme.as_deref().is_some_and(|scheme| catalogue.owns_scheme(plugin, scheme)));

        if has("host") || has("hosts") {
            let many = has("hosts") && entry.describe.traits.hosts == Hosts::Many;
            let url_spot = owned.map(|(url, from)| url.spot(from));
            let bare = url.as_ref().filter(|(url, _)| url.bare).map(|(url, from)| url.spot(from));
            facts.place_hosts(record, said, options, plugin, many, url_spot, bare)?;
        } else if options.host.is_some() {
            facts.remarks.push(format!("{plugin} has no host: option --host was not used"));
        }
        if has("port") {
            let url_spot = owned.map(|(url, from)| url.spot(from));
            facts.place_port(record, said, options, catalogue, plugin, url_spot)?;
        } else if options.port.is_some() {
            facts.remarks.push(format!("{plugin} has no port: option --port was not used"));
        }
        facts.place_login(record, said, has("login"))?;

        for property in entry.marked(&[Mark::Account]) {
            let name = property.name.as_str();
            if matches!(name, "host" | "hosts" | "port" | "login") {
                continue;
            }
            let from_url = owned.filter(|_| matches!(name, "db" | "database"));
            if let Some((database, from)) = from_url.and_then(|(url, from)| Some((url.database.clone()?, from))) {
                facts.put(name, Value::String(database), format!("database in the {from}"));
                continue;
            }
            if let Some((value, from)) = account_value(said, property)? {
                facts.remarks.extend(weakness(name, &value).map(|what| format!("{from}: {what}")));
                facts.put(name, value, from);
            }
        }
        Ok(facts)
    }

    fn put(&mut self, name: &str, value: Value, from: String) {
        let shown = match &value {
            Value::String(text) => text.clone(),
            Value::Array(items) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
            other => other.to_string(),
        };
        self.decisions.push(Decision { what: name.to_owned(), value: shown, from });
        self.account.insert(name.to_owned(), value);
    }

    #[expect(clippy::too_many_arguments, reason = "the sources of one value, most binding first")]
    fn place_hosts(
        &mut self,
        record: &Record,
        said: &Said,
        options: &Options,
        plugin: &str,
        many: bool,
        url: Option<Spot>,
        bare: Option<Spot>,
    ) -> Result<(), Problem> {
        let name = if many { "hosts" } else { "host" };
        if let Some(text) = &options.host {
            self.hosts = vec![spot(text, "option --host")?];
        } else {
            let fields = host_fields(record)?;
            let listed = said
                .all("host")
                .iter()
                .map(|(value, place)| spot(clear(value), &place.to_string()))
                .collect::<Result<Vec<_>, _>>()?;
            self.hosts = if many {
                let all = fields.into_iter().map(|(spot, _)| spot).chain(listed);
                let mut hosts = distinct(all);
                if hosts.is_empty() {
                    hosts.extend(url.or(bare));
                }
                hosts
            } else if !fields.is_empty() {
                self.one_of_the_fields(fields, plugin)?
            } else if let Some(url) = url {
                if listed.iter().any(|listed| !listed.host.eq_ignore_ascii_case(&url.host)) {
                    self.remarks.push(format!("the host in the {} wins over cmdr:host", url.from));
                }
                vec![url]
            } else if !listed.is_empty() {
                one_host(distinct(listed.into_iter()), plugin)?
            } else {
                bare.into_iter().collect()
            };
        }
        if self.hosts.is_empty() {
            return Ok(());
        }
        let from = self.hosts.iter().map(|spot| spot.from.clone());
        let mut from: Vec<String> = from.collect();
        from.dedup();
        let value = if many {
            Value::Array(self.hosts.iter().map(|spot| Value::String(spot.text())).collect())
        } else {
            Value::String(self.hosts.first().map(|spot| spot.host.clone()).unwrap_or_default())
        };
        self.put(name, value, from.join(", "));
        Ok(())
    }

    /// A typed record's host for a plugin that takes one: the only unlabelled
    /// one, or the only one there is.
    fn one_of_the_fields(&mut self, fields: Vec<(Spot, bool)>, plugin: &str) -> Result<Vec<Spot>, Problem> {
        let (labelled, plain): (Vec<_>, Vec<_>) = fields.into_iter().partition(|(_, labelled)| *labelled);
        let plain = distinct(plain.into_iter().map(|(spot, _)| spot));
        let labelled = distinct(labelled.into_iter().map(|(spot, _)| spot));
        if plain.is_empty() {
            return one_host(labelled, plugin);
        }
        let chosen = one_host(plain, plugin)?;
        for spot in labelled.iter().filter(|spot| !chosen.iter().any(|chosen| chosen.same_as(spot))) {
            self.remarks.push(format!("{} was not used: the host without a label comes first", spot.from));
        }
        Ok(chosen)
    }

    fn place_port(
        &mut self,
        record: &Record,
        said: &Said,
        options: &Options,
        catalogue: &Catalogue,
        plugin: &str,
        url: Option<Spot>,
    ) -> Result<(), Problem> {
        let many = self.hosts.len() > 1 || self.account.contains_key("hosts");
        let own = self.hosts.first().filter(|_| !many);
        let by_option = options.host.is_some();
        let (port, from) = if let Some(port) = options.port {
            if port == 0 {
                return Err(Problem::NotANumber { from: "option --port".into(), wanted: PORT });
            }
            (port, "option --port".to_owned())
        } else if let Some((port, spot)) = own.and_then(|spot| Some((spot.port?, spot))) {
            (port, format!("port of the {}", spot.from))
        } else if let Some((port, from)) = self.elsewhere(record, by_option && !many, url)? {
            (port, from)
        } else if let Some((value, place)) = said.one("port")? {
            let from = place.to_string();
            let port = number_of_port(clear(value)).ok_or(Problem::NotANumber { from: from.clone(), wanted: PORT })?;
            (port, from)
        } else if let Some(port) = catalogue.default_port(plugin) {
            (port, format!("default of {plugin}"))
        } else {
            return Ok(());
        };
        self.port = port;
        self.put("port", Value::from(port), from);
        Ok(())
    }

    /// The port of a record's own field or URL whose host was overridden by
    /// `--host`, or of a URL that names the very host.
    fn elsewhere(&self, record: &Record, by_option: bool, url: Option<Spot>) -> Result<Option<(u16, String)>, Problem> {
        if by_option
            && let Some((port, from)) =
                host_fields(record)?.into_iter().find_map(|(spot, _)| Some((spot.port?, spot.from)))
        {
            return Ok(Some((port, format!("port of the {from}"))));
        }
        let names_the_host = |url: &Spot| match self.hosts.as_slice() {
            [host] => by_option || host.host.eq_ignore_ascii_case(&url.host),
            _ => false,
        };
        let url = url.filter(names_the_host);
        Ok(url.and_then(|url| Some((url.port?, format!("port of the {}", url.from)))))
    }

    fn place_login(&mut self, record: &Record, said: &Said, wanted: bool) -> Result<(), Problem> {
        let found = match record.login() {
            Some(found) => Some((clear(&found.value).to_owned(), found.place.to_string())),
            None => said.one("login")?.map(|(value, place)| (clear(value).to_owned(), place.to_string())),
        };
        if let (Some((login, from)), true) = (found, wanted) {
            self.login.clone_from(&login);
            self.put("login", Value::String(login), from);
        }
        Ok(())
    }

    fn missing(&self, entry: &Entry) -> Vec<Missing> {
        entry
            .marked(&[Mark::Account])
            .filter(|property| property.required && !self.account.contains_key(&property.name))
            .map(|property| Missing { name: property.name.clone(), places: places_of(&property.name) })
            .collect()
    }

    fn identity(&self, record: &Record, entry: &Entry) -> Identity {
        let text = |name: &str| self.account.get(name).and_then(Value::as_str);
        let mut host = match text("dsn") {
            Some(dsn) => dsn.to_lowercase(),
            None => {
                let mut hosts: Vec<String> = match self.hosts.as_slice() {
                    [one] if !self.account.contains_key("hosts") => vec![one.host.to_lowercase()],
                    many => many.iter().map(|spot| spot.text().to_lowercase()).collect(),
                };
                hosts.sort();
                hosts.join(",")
            }
        };
        for property in entry.properties.values().filter(|property| property.identity) {
            if let Some(value) = text(&property.name) {
                if !host.is_empty() {
                    host.push(',');
                }
                host.push_str(&format!("{}={}", property.name, value.to_lowercase()));
            }
        }
        let nothing_behind = host.is_empty() && self.port == 0 && entry.describe.traits.verify == VerifyBy::None;
        Identity {
            plugin: entry.describe.plugin.clone(),
            host,
            port: self.port,
            login: self.login.clone(),
            record: nothing_behind.then(|| record.uid.clone()),
        }
    }

    fn tell(self, told: &mut Told) -> Account {
        told.decisions.extend(self.decisions);
        told.remarks.extend(self.remarks);
        self.account
    }
}

/// A typed record's hosts as spots, and whether each has a label. pamHostname
/// counts only where there is no host.
fn host_fields(record: &Record) -> Result<Vec<(Spot, bool)>, Problem> {
    let found = record.hosts();
    let plain = found.iter().any(|found| !found.pam);
    let mut spots = Vec::new();
    for found in found.iter().filter(|found| !(plain && found.pam)) {
        if clear(&found.host).trim().is_empty() {
            continue;
        }
        let from = found.place.to_string();
        let mut spot = spot(clear(&found.host), &from)?;
        if let Some(port) = found.port.as_ref().map(|port| clear(port).trim()).filter(|port| !port.is_empty()) {
            let port = number_of_port(port)
                .ok_or(Problem::NotANumber { from: format!("port of the {from}"), wanted: PORT })?;
            spot.port = Some(port);
        }
        spots.push((spot, found.labelled));
    }
    Ok(spots)
}

fn spot(text: &str, from: &str) -> Result<Spot, Problem> {
    match Url::read(text) {
        Some(url) => Ok(url.spot(from)),
        None => Err(Problem::NotAHost { from: from.to_owned() }),
    }
}

fn distinct(spots: impl Iterator<Item = Spot>) -> Vec<Spot> {
    let mut kept: Vec<Spot> = Vec::new();
    for spot in spots {
        if !kept.iter().any(|there| there.same_as(&spot)) {
            kept.push(spot);
        }
    }
    kept
}

fn one_host(spots: Vec<Spot>, plugin: &str) -> Result<Vec<Spot>, Problem> {
    if spots.len() > 1 {
        let mut from: Vec<String> = spots.iter().map(|spot| spot.from.clone()).collect();
        from.dedup();
        return Err(Problem::ManyHosts { plugin: plugin.to_owned(), count: spots.len(), from });
    }
    Ok(spots)
}

/// An option's value as the schema's type wants it.
fn account_value(said: &Said, property: &Property) -> Result<Option<(Value, String)>, Problem> {
    if property.kind == ValueKind::List {
        let values = said.all(&property.name);
        let Some((_, place)) = values.first() else {
            return Ok(None);
        };
        let items = values.iter().map(|(value, _)| Value::String(clear(value).trim().to_owned())).collect();
        return Ok(Some((Value::Array(items), place.to_string())));
    }
    let Some((value, place)) = said.one(&property.name)? else {
        return Ok(None);
    };
    let (text, from) = (clear(value).trim(), place.to_string());
    let not_a_number = |wanted| Problem::NotANumber { from: from.clone(), wanted };
    let value = match property.kind {
        ValueKind::Integer => Value::from(text.parse::<i64>().map_err(|_| not_a_number("a whole number"))?),
        ValueKind::Number => {
            let number = text.parse::<f64>().ok().and_then(serde_json::Number::from_f64);
            Value::Number(number.ok_or_else(|| not_a_number("a number"))?)
        }
        ValueKind::Boolean => match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Value::Bool(true),
            "false" | "no" | "off" | "0" => Value::Bool(false),
            _ => return Err(Problem::NotABoolean { from }),
        },
        ValueKind::Text | ValueKind::List if property.choices.is_empty() => Value::String(text.to_owned()),
        ValueKind::Text | ValueKind::List => {
            match property.choices.iter().find(|choice| choice.eq_ignore_ascii_case(text)) {
                Some(choice) => Value::String(choice.clone()),
                None => {
                    return Err(Problem::NotOneOf { from, choices: property.choices.clone() });
                }
            }
        }
    };
    Ok(Some((value, from)))
}

/// What an option gives up, if it does.
fn weakness(name: &str, value: &Value) -> Option<&'static str> {
    let off = "the connection is neither encrypted nor is the server's identity proven";
    let unproven = "the connection is encrypted, but the server's identity is not proven";
    let unnamed = "the server's certificate is checked, but not that it is this server's";
    match (name, value) {
        ("tls" | "tls_verify" | "encrypt" | "use_ssl" | "ssl", Value::Bool(false)) => Some(off),
        ("tls", Value::String(text)) => match text.to_ascii_lowercase().as_str() {
            "disable" | "off" | "false" | "no" | "none" | "plain" => Some(off),
            "require" | "prefer" | "allow" | "optional" | "insecure" => Some(unproven),
            "verify-ca" => Some(unnamed),
            _ => None,
        },
        ("tls_verify", Value::String(text)) => match text.to_ascii_lowercase().as_str() {
            "none" | "optional" | "false" | "no" | "off" => Some(unproven),
            _ => None,
        },
        _ => None,
    }
}

// ---- secrets ----

/// A record's key pair and options that stand for its halves.
struct Keys {
    pair: Option<FoundKeys>,
    /// The field keys go to when the record has none yet.
    typed: bool,
}

impl Keys {
    fn of(record: &Record, said: &Said) -> Result<Self, Problem> {
        said.one("private_key")?;
        Ok(Self { pair: record.key_pair(), typed: record.record_type().is_some() })
    }

    /// Whether the keyPair field is where the private key lives.
    fn in_pair(&self, said: &Said) -> bool {
        match &self.pair {
            Some(pair) => pair.private.is_some() || said.all("private_key").is_empty(),
            None => self.typed && said.all("private_key").is_empty(),
        }
    }

    fn place_in_pair(&self, part: &str) -> Place {
        match &self.pair {
            Some(pair) => pair.place(part),
            None => Place::Typed {
                section: crate::record::Section::Custom,
                kind: "keyPair".to_owned(),
                label: None,
                index: 0,
                part: Some(part.to_owned()),
            },
        }
    }
}

/// The current credential, and where each replaced field of the new one goes.
fn credential(
    record: &Record,
    said: &Said,
    keys: &Keys,
    entry: &Entry,
    told: &mut Told,
) -> Result<(Credential, Vec<WriteBack>), Problem> {
    let mut current = Credential::empty();
    let mut write_back: Vec<WriteBack> = Vec::new();
    for property in entry.marked(&[Mark::Current, Mark::WriteBack]) {
        let (value, places) = secret_of(record, said, keys, property)?;
        if let Some((value, place)) = value
            && current.get(&property.field).is_none()
        {
            told.decide_secret(&property.field, &place);
            current = current.with(&property.field, value);
        }
        if property.mark == Mark::WriteBack {
            for place in places {
                let write = WriteBack { field: property.field.clone(), place };
                if !write_back.contains(&write) {
                    write_back.push(write);
                }
            }
        }
    }
    Ok((current, write_back))
}

type ValueAndPlaces = (Option<(Secret, Place)>, Vec<Place>);

/// A credential's field in the record: its value with its place, and the
/// places a new value goes to.
fn secret_of(record: &Record, said: &Said, keys: &Keys, property: &Property) -> Result<ValueAndPlaces, Problem> {
    let option = |name: &str| -> Result<Option<(Secret, Place)>, Problem> {
        Ok(said.one(name)?.map(|(value, place)| (value.duplicate(), place.clone())))
    };
    let there = |name: &str| {
        record.options().into_iter().filter(|option| option.name == name).map(|option| option.place).collect::<Vec<_>>()
    };
    let password = |name: &str| -> Result<ValueAndPlaces, Problem> {
        let value = match record.password() {
            Some(found) => Some((found.value, found.place)),
            None => option(name)?,
        };
        let place = value.as_ref().map_or_else(|| record.place_of_password(), |(_, place)| place.clone());
        Ok((value, vec![place]))
    };
    match property.field.as_str() {
        _ if property.name == "password" => password("password"),
        field::PASSPHRASE => password("passphrase"),
        field::PRIVATE_KEY => {
            if keys.in_pair(said) {
                let place = keys.place_in_pair("privateKey");
                let value = keys.pair.as_ref().and_then(|pair| pair.private.as_ref()).map(Secret::duplicate);
                return Ok((value.map(|value| (value, place.clone())), vec![place]));
            }
            let value = option("private_key")?;
            let fallback = || record.place_of_option("cmdr:private_key", "secret");
            let place = value.as_ref().map_or_else(fallback, |(_, place)| place.clone());
            Ok((value, vec![place]))
        }
        field::PUBLIC_KEY => {
            let in_pair = keys.in_pair(said);
            let of_pair = keys.pair.as_ref().filter(|_| in_pair).and_then(|pair| pair.public.as_ref());
            let mut value = of_pair.map(|public| (public.duplicate(), keys.place_in_pair("publicKey")));
            let mut places = Vec::new();
            if in_pair {
                places.push(keys.place_in_pair("publicKey"));
            }
            for name in ["ssh_public_key", "rsa_public_key"] {
                places.extend(there(name));
                if value.is_none() {
                    value = option(name)?;
                }
            }
            if places.is_empty() {
                places.push(record.place_of_option("cmdr:ssh_public_key", "text"));
            }
            Ok((value, places))
        }
        _ => {
            let value = option(&property.name)?;
            let fallback = || {
                let first = there(&property.name).into_iter().next();
                first.unwrap_or_else(|| record.place_of_option(&format!("cmdr:{}", property.name), "secret"))
            };
            let place = value.as_ref().map_or_else(fallback, |(_, place)| place.clone());
            Ok((value, vec![place]))
        }
    }
}

/// The credential fields a rotation cannot do without. With an admin who may
/// reset the account, none.
fn missing_secrets(entry: &Entry, current: &Credential, admin: bool) -> Vec<Missing> {
    let traits = &entry.describe.traits;
    if admin && traits.admin_reset {
        return Vec::new();
    }
    let absent = |property: &&Property| current.get(&property.field).is_none();
    let told = |property: &Property| Missing { name: property.name.clone(), places: places_of(&property.name) };
    let secrets = || entry.marked(&[Mark::Current, Mark::WriteBack]).filter(absent);
    let required: Vec<Missing> = secrets().filter(|property| property.required).map(told).collect();
    if required.is_empty() && traits.needs_current && current.is_empty() {
        let main = entry.properties.get("password").filter(|property| absent(property));
        return match main {
            Some(property) => vec![told(property)],
            None => secrets().map(told).collect(),
        };
    }
    required
}

/// Where a value may be set, for people.
fn places_of(name: &str) -> String {
    match name {
        "host" => "a host field, the URL, cmdr:host or --host".into(),
        "hosts" => "host fields, cmdr:host or --host".into(),
        "port" => "a host field, the URL, cmdr:port or --port".into(),
        "login" => "the record's login or cmdr:login".into(),
        "password" => "the record's password".into(),
        "private_key" => "a keyPair field or cmdr:private_key".into(),
        "public_key" => "a keyPair field or cmdr:ssh_public_key".into(),
        "passphrase" => "the record's password".into(),
        name => format!("the custom field cmdr:{name}"),
    }
}

/// The login that may reset the account: the record `turnlock:admin` names,
/// and what the record itself holds for an admin.
fn admin_login(
    said: &Said,
    record: &Record,
    admin: Option<&Record>,
    entry: &Entry,
    told: &mut Told,
) -> Result<(Option<Uid>, Option<Admin>), Problem> {
    let named = said.one("admin")?.map(|(_, place)| place.to_string());
    let plugin = &entry.describe.plugin;
    let mut credential = Credential::empty();
    let mut login = None;
    let mut account = Account::new();
    let mut uid = None;
    for property in entry.marked(&[Mark::Admin]) {
        if let Some((value, place)) = said.one(&property.name)? {
            told.decide_secret(&format!("admin {}", property.field), place);
            if property.field == "login" {
                login = Some(clear(value).to_owned());
            } else {
                credential = credential.with(&property.field, value.duplicate());
            }
        }
    }
    let usable = entry.describe.traits.admin_reset || entry.marked(&[Mark::Admin]).next().is_some();
    match (named, admin) {
        (Some(from), None) => return Err(Problem::AdminMissing { from }),
        (Some(from), Some(_)) if !usable => {
            told.remarks.push(format!("{from} was not used: no other login can reset an account of {plugin}"));
        }
        // Fleets of records are given one admin, and it is among them.
        (Some(from), Some(admin)) if admin.uid == record.uid => {
            told.remarks.push(format!("{from} names the record itself: it changes its own credential"));
        }
        (named, Some(admin)) if usable => {
            let from = named.unwrap_or_else(|| "admin record".to_owned());
            let theirs = Said::of(admin);
            let mut facts = Facts::read_admin(&theirs, entry)?;
            account.append(&mut facts);
            let found = match admin.login() {
                Some(found) => Some(clear(&found.value).to_owned()),
                None => theirs.one("login")?.map(|(value, _)| clear(value).to_owned()),
            };
            login = Some(found.ok_or_else(|| Problem::AdminWithoutLogin { title: admin.title.clone() })?);
            credential = admin_credential(admin, &theirs, entry, credential)?;
            told.decide("admin", admin.title.escape_debug().to_string(), from);
            uid = Some(admin.uid.clone());
        }
        _ => {}
    }
    if uid.is_none() && credential.is_empty() && login.is_none() {
        return Ok((None, None));
    }
    Ok((uid, Some(Admin { login: login.unwrap_or_default(), credential, account })))
}

impl Facts {
    /// What an admin's own record says of the account side: its options that
    /// the schema marks `account`, without those that name the target.
    fn read_admin(theirs: &Said, entry: &Entry) -> Result<Account, Problem> {
        let mut account = Account::new();
        for property in entry.marked(&[Mark::Account]) {
            if matches!(property.name.as_str(), "host" | "hosts" | "port" | "login" | "dsn") {
                continue;
            }
            if let Some((value, _)) = account_value(theirs, property)? {
                account.insert(property.name.clone(), value);
            }
        }
        Ok(account)
    }
}

/// An admin record's secrets: its password, its key, and its options that the
/// schema marks as secrets.
fn admin_credential(
    admin: &Record,
    theirs: &Said,
    entry: &Entry,
    mut credential: Credential,
) -> Result<Credential, Problem> {
    let password = match admin.password() {
        Some(found) => Some(found.value),
        None => theirs.one("password")?.map(|(value, _)| value.duplicate()),
    };
    let keys = Keys::of(admin, theirs)?;
    let key = match keys.pair.and_then(|pair| pair.private) {
        Some(key) => Some(key),
        None => theirs.one("private_key")?.map(|(value, _)| value.duplicate()),
    };
    if let Some(key) = key {
        credential = credential.with(field::PRIVATE_KEY, key);
        if let Some(password) = &password {
            credential = credential.with(field::PASSPHRASE, password.duplicate());
        }
    }
    if let Some(password) = password {
        credential = credential.with(field::PASSWORD, password);
    }
    for property in entry.marked(&[Mark::Admin, Mark::Current, Mark::WriteBack]) {
        let taken = matches!(property.name.as_str(), "password" | "private_key" | "public_key" | "passphrase");
        if taken || property.field == "login" {
            continue;
        }
        if let Some((value, _)) = theirs.one(&property.name)? {
            credential = credential.with(&property.field, value.duplicate());
        }
    }
    Ok(credential)
}

// ---- the new secret ----

fn policy(
    record: &Record,
    said: &Said,
    options: &Options,
    entry: &Entry,
    learned: &PasswordLimits,
    told: &mut Told,
) -> Result<(Policy, String), Problem> {
    let plugin = entry.describe.plugin.clone();
    let said_rules = said.one("rules")?.map(|(value, place)| (clear(value), place.to_string()));
    let rules = match (&options.rules, &said_rules) {
        (Some(text), _) => Some(secret_policy::Said { text, from: "option --rules" }),
        (None, Some((text, from))) => Some(secret_policy::Said { text, from }),
        (None, None) => None,
    };
    let said_length = match (options.length, said.one("length")?) {
        (Some(length), _) => Some((length, "option --length".to_owned())),
        (None, Some((value, place))) => {
            let from = place.to_string();
            let length = clear(value).trim().parse::<u32>();
            Some((length.map_err(|_| Problem::NotANumber { from: from.clone(), wanted: "a whole number" })?, from))
        }
        (None, None) => None,
    };
    let complexity = record.password_extra("complexity").filter(|value| !value.is_null());
    let from_complexity = "complexity of the password field";
    let wishes = Wishes {
        rules,
        complexity: complexity.map(|value| (value, from_complexity)),
        length: said_length.as_ref().map(|(length, from)| (*length, from.as_str())),
    };
    let resolved = secret_policy::policy(&wishes).map_err(|(error, from)| Problem::Rules { from, error })?;
    let asked = resolved.policy.length;
    let limits = entry.describe.traits.password.and(learned);
    let policy = resolved.policy.within(&limits);

    let drawn = entry
        .marked(&[Mark::WriteBack])
        .any(|property| matches!(property.field.as_str(), field::PASSWORD | field::PASSPHRASE));
    if drawn {
        if policy.length != asked {
            told.remarks.push(format!(
                "new secrets of {plugin} have {} characters instead of {asked} ({}): the target's limit",
                policy.length, resolved.length_from
            ));
        }
        if options.password.is_none()
            && let Err(error) = policy.draw(&mut NoRandomness)
        {
            return Err(Problem::Unkeepable { plugin, from: resolved.rules_from, error });
        }
        told.decide("rules", secret_policy::describe(&policy), resolved.rules_from.clone());
        told.decide("length", policy.length.to_string(), resolved.length_from);
    }
    Ok((policy, resolved.rules_from))
}

/// Enough to ask a policy whether it can be kept at all; what it draws is
/// thrown away.
struct NoRandomness;

impl RandomSource for NoRandomness {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), PolicyError> {
        buffer.fill(0);
        Ok(())
    }
}

fn words(said: &Said, options: &Options) -> Result<Option<u32>, Problem> {
    let (words, from) = match (options.passphrase, said.one("passphrase")?) {
        (Some(words), _) => (Some(words), "option --passphrase".to_owned()),
        (None, Some((value, place))) => (clear(value).trim().parse().ok(), place.to_string()),
        (None, None) => return Ok(None),
    };
    match words {
        Some(words @ 5..=9) => Ok(Some(words)),
        _ => Err(Problem::Passphrase { from }),
    }
}

fn supplied(
    options: &Options,
    traits: &Traits,
    write_back: &[WriteBack],
    current: &Credential,
    policy: &Policy,
    rules_from: &str,
    plugin: &str,
) -> Result<Option<Secret>, Problem> {
    let Some(password) = &options.password else {
        return Ok(None);
    };
    let maker = match traits.origin {
        Origin::Orchestrator if write_back.iter().any(|write| write.field == field::PASSWORD) => None,
        Origin::Target => Some("the target"),
        Origin::Orchestrator | Origin::Rotator => Some("the rotator"),
    };
    if let Some(maker) = maker {
        return Err(Problem::NotSuppliable { plugin: plugin.to_owned(), maker });
    }
    if current.get(field::PASSWORD).is_some_and(|old| old.same_as(password)) {
        return Err(Problem::SameSecret);
    }
    policy.validate(password).map_err(|error| Problem::Supplied { from: rules_from.to_owned(), error })?;
    Ok(Some(password.duplicate()))
}

fn deadline(said: &Said, options: &Options, told: &mut Told) -> Result<u64, Problem> {
    let (seconds, from) = match (options.timeout, said.one("timeout")?) {
        (Some(seconds), _) => (Some(seconds), "option --timeout".to_owned()),
        (None, Some((value, place))) => (clear(value).trim().parse().ok(), place.to_string()),
        (None, None) => (Some(DEFAULT_TIMEOUT_S), "default".to_owned()),
    };
    match seconds {
        Some(seconds @ 1..=LONGEST_TIMEOUT_S) => {
            told.decide("timeout", format!("{seconds} s"), from);
            Ok(seconds * 1000)
        }
        _ => Err(Problem::NotANumber { from, wanted: "a number of seconds from 1 to 86400" }),
    }
}

// ---- hosts and URLs ----

/// A host with what may stand around it.
struct Url {
    scheme: Option<String>,
    host: String,
    port: Option<u16>,
    database: Option<String>,
    /// Nothing but host and port.
    bare: bool,
}

impl Url {
    /// Reads `host`, `host:port`, `[v6]:port`, `scheme://user@host:port/db?…`.
    fn read(text: &str) -> Option<Self> {
        let text = text.trim();
        let Some((scheme, rest)) = scheme_of(text) else {
            let (host, port) = address(text)?;
            return Some(Self { scheme: None, host, port, database: None, bare: true });
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(end)?;
        let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let (host, port) = address(authority)?;
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let segment = path.strip_prefix('/').and_then(|path| path.split('/').next()).filter(|text| !text.is_empty());
        let database = segment.and_then(percent_decoded);
        Some(Self { scheme: Some(scheme.to_ascii_lowercase()), host, port, database, bare: false })
    }

    fn spot(&self, from: &str) -> Spot {
        Spot { host: self.host.clone(), port: self.port, from: from.to_owned() }
    }
}

/// Splits a URL at its scheme; `jdbc:` before it is ignored.
fn scheme_of(text: &str) -> Option<(&str, &str)> {
    let text = text.trim();
    let text = text.strip_prefix("jdbc:").unwrap_or(text);
    let (scheme, rest) = text.split_once("://")?;
    let mut letters = scheme.chars();
    let good = letters.next().is_some_and(|c| c.is_ascii_alphabetic())
        && letters.all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '.' | '-'));
    good.then_some((scheme, rest))
}

/// Splits a host from its port.
fn address(text: &str) -> Option<(String, Option<u16>)> {
    let text = text.trim();
    let text = text.strip_prefix("\\\\").unwrap_or(text);
    let v6 = |text: &str| text.split('%').next().is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    let clean = |text: &str| {
        !text.is_empty()
            && text.len() <= 1024
            && !text.chars().any(|c| c.is_whitespace() || c.is_control() || "@?#[]".contains(c))
            && (text.starts_with('/') || !text.contains('/'))
    };
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        let port = match rest {
            "" | ":" => None,
            rest => Some(number_of_port(rest.strip_prefix(':')?)?),
        };
        return (v6(host) && clean(host)).then(|| (host.to_owned(), port));
    }
    if !clean(text) {
        return None;
    }
    if text.starts_with('/') {
        return Some((text.to_owned(), None));
    }
    match text.split_once(':') {
        None => Some((text.to_owned(), None)),
        Some((_, rest)) if rest.contains(':') => v6(text).then(|| (text.to_owned(), None)),
        Some(("", _)) => None,
        Some((host, "")) => Some((host.to_owned(), None)),
        Some((host, port)) => Some((host.to_owned(), Some(number_of_port(port)?))),
    }
}

fn number_of_port(text: &str) -> Option<u16> {
    let text = text.trim();
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|port| *port > 0)
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
            let value = digit(rest.next())? * 16 + digit(rest.next())?;
            bytes.push(u8::try_from(value).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

fn clear(value: &Secret) -> &str {
    #[expect(
        clippy::disallowed_methods,
        reason = "read to be routed: only what the schema marks account is told, the rest stays in a Secret"
    )]
    value.expose()
}

#[cfg(test)]
mod tests;
