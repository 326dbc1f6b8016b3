//! What one rotation will do, resolved once and then held.
//!
//! A plan is staged beside its candidate, so that settling after a crash works
//! with the endpoint, login and write-back places of that day and never with
//! newly resolved ones.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use turnlock_protocol::operation::{Account, Admin};
use turnlock_protocol::{Credential, Policy, Secret, Traits};

use crate::record::{Place, Record, Uid};

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

impl Plan {
    /// When the old credential's remains may be removed: at once, or after the
    /// account's `grace` in days.
    pub fn finish_due(&self, committed: Timestamp) -> Timestamp {
        let days = self.account.get("grace").and_then(serde_json::Value::as_u64).unwrap_or(0).min(36_500);
        let grace = SignedDuration::from_hours(24 * i64::try_from(days).unwrap_or(0));
        committed.saturating_add(grace).unwrap_or(committed)
    }

    /// A new secret together with what of the current credential stays as it
    /// is: the whole that opens the account.
    #[must_use]
    pub fn completed(&self, candidate: Credential) -> Credential {
        candidate.keeping(&self.current, |field| self.rotates(field))
    }

    /// Whether a rotation replaces this field of the credential.
    pub fn rotates(&self, field: &str) -> bool {
        self.write_back.iter().any(|write_back| write_back.field == field)
    }

    /// Whether a record still says what this plan was made from. A person who
    /// entered the candidate by hand has not contradicted it.
    ///
    /// # Errors
    /// The names of the fields that were edited.
    pub fn still_describes(&self, record: &Record, candidate: &Credential) -> Result<(), String> {
        let has_candidate = self.write_back.iter().all(|write_back| {
            matches!((record.get(&write_back.place), candidate.get(&write_back.field)),
                (Some(found), Some(next)) if found.same_as(next))
        });
        if has_candidate {
            return Ok(());
        }
        let now = record.basis();
        let names = self.basis.keys().chain(now.keys());
        let mut edited: Vec<&str> =
            names.filter(|name| self.basis.get(*name) != now.get(*name)).map(String::as_str).collect();
        edited.sort_unstable();
        edited.dedup();
        if edited.is_empty() { Ok(()) } else { Err(format!("{} changed", edited.join(", "))) }
    }

    /// Writes a credential to its places in a record.
    ///
    /// # Errors
    /// A field that cannot be written.
    pub fn write(&self, record: &mut Record, credential: &Credential) -> Result<(), String> {
        record.write(&self.write_back, credential).map_err(|error| error.to_string())
    }
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
    /// The record itself, where nothing lies behind it that two records could share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<Uid>,
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
