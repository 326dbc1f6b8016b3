//! What one rotation will do, resolved once and then held.
//!
//! A plan is staged beside its candidate, so that settling after a crash works
//! with the endpoint, login and write-back places of that day and never with
//! newly resolved ones.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use turnlock_protocol::operation::{Account, Admin};
use turnlock_protocol::{Credential, Policy, Secret, Traits};

use crate::record::{Place, Uid};

/// One rotation, resolved.
#[derive(Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The plugin's name.
    pub plugin: String,
    /// The named endpoint that was asked for, if any.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// What the rotator learns of the account; never secret.
    pub account: Account,
    /// Who this account is, whichever record names it.
    pub identity: Identity,
    /// What the target accepts now, as the record says.
    pub current: Credential,
    /// The login that may reset it.
    #[serde(default)]
    pub admin: Option<Admin>,
    /// The record that login came from.
    #[serde(default)]
    pub admin_uid: Option<Uid>,
    /// What the new secret must look like.
    pub policy: Policy,
    /// A secret that a person supplied instead of a drawn one.
    #[serde(skip)]
    pub supplied: Option<Secret>,
    /// Where each field of the new credential goes in the record.
    pub write_back: Vec<WriteBack>,
    /// The record's fields that decided this plan, each with a digest: an edit
    /// of one of them meanwhile is a conflict at commit.
    pub basis: BTreeMap<String, String>,
    /// How long one operation may take, in milliseconds.
    pub deadline_ms: u64,
    /// The widest traits of the plugin; the rotator's `plan` narrows them.
    pub traits: Traits,
    /// Which field decided what, for `explain`.
    #[serde(default)]
    pub decisions: Vec<Decision>,
    /// What a person should know: unknown options with the nearest known name,
    /// weakenings, limits that were applied.
    #[serde(default)]
    pub remarks: Vec<String>,
}

/// Who an account is, independent of the record that names it. Two records
/// with the same identity are one account.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// The plugin's name.
    pub plugin: String,
    /// Host in lower case, or the `dsn`, or the list of hosts joined by commas.
    pub host: String,
    /// Port, 0 where there is none.
    pub port: u16,
    /// Login as the record has it.
    pub login: String,
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.plugin, self.login)?;
        match (self.host.as_str(), self.port) {
            ("", _) => Ok(()),
            (host, 0) => write!(f, "@{host}"),
            (host, port) if host.contains(':') => write!(f, "@[{host}]:{port}"),
            (host, port) => write!(f, "@{host}:{port}"),
        }
    }
}

/// One field of the new credential and its place in the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteBack {
    /// The credential's field, such as `password`.
    pub field: String,
    /// The record's field.
    pub place: Place,
}

/// One decision of the resolution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// What was decided: `plugin`, `host`, `port`, `policy`, …
    pub what: String,
    /// The value, or `(secret)`.
    pub value: String,
    /// Where it came from: "option --port", "custom field cmdr:host", "default of postgresql", …
    pub from: String,
}
