use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a rotator says of itself; the same answer every time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Describe {
    /// The plugin's name, `[a-z0-9-]+`.
    pub plugin: String,
    /// The rotator's own version.
    pub version: String,
    /// One sentence for people.
    pub summary: String,
    /// JSON Schema of everything a record may say to this plugin. Each
    /// property carries `x-turnlock` with a [`Mark`]; a property of a
    /// credential whose field has another name there carries that name as
    /// `x-turnlock-field`.
    pub schema: serde_json::Value,
    /// The port when none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_port: Option<u16>,
    /// Further ports by which a record is known to belong to this plugin.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
    /// URL schemes by which a record is known to belong to this plugin.
    #[serde(default)]
    pub url_schemes: Vec<String>,
    /// Environment variables this rotator needs, never secret-bearing ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environment: Vec<String>,
    /// The widest traits; `plan` tells those of one account.
    pub traits: Traits,
}

/// Where a record's field goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mark {
    /// Into `account`; never secret.
    Account,
    /// Into the current credential; never written back.
    Current,
    /// Into `admin`.
    Admin,
    /// Into the current credential, and replaced at commit.
    WriteBack,
}

/// Facts about a rotator and an account that drive the engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Traits {
    /// Who makes the new secret.
    pub origin: Origin,
    /// Whether old and new can be valid at once.
    pub overlap: Overlap,
    /// Whether apply needs the current credential (without `admin`).
    pub needs_current: bool,
    /// Whether `admin` may reset the account without its current credential.
    pub admin_reset: bool,
    /// How a credential is proven.
    pub verify: VerifyBy,
    /// Whether failed log-ins can lock the account.
    #[serde(default)]
    pub lockout_sensitive: bool,
    /// How long the target counts failed log-ins, in milliseconds.
    #[serde(default)]
    pub lockout_window_ms: u64,
    /// How long the target may take to agree with itself, in milliseconds.
    #[serde(default)]
    pub settle_ms: u64,
    /// How many hosts one account lives on.
    pub hosts: Hosts,
    /// Whether `prepare` reads the target's own policy.
    #[serde(default)]
    pub policy_from_target: bool,
    /// Whether `finish` has anything to remove.
    #[serde(default)]
    pub finish: bool,
    /// Whether `finish` also hands the new credential to others, such as a
    /// file of credentials, which is due at once.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub publishes: bool,
    /// What no password of this target may exceed or hold.
    #[serde(default)]
    pub password: PasswordLimits,
}

impl Traits {
    /// A password that an orchestrator makes, one host, proven by a log-in:
    /// what most databases are.
    pub fn password() -> Self {
        Self {
            origin: Origin::Orchestrator,
            overlap: Overlap::None,
            needs_current: true,
            admin_reset: true,
            verify: VerifyBy::Login,
            lockout_sensitive: false,
            lockout_window_ms: 0,
            settle_ms: 0,
            hosts: Hosts::One,
            policy_from_target: false,
            finish: false,
            publishes: false,
            password: PasswordLimits::default(),
        }
    }
}

/// Who makes the new secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The host, from a policy.
    Orchestrator,
    /// The rotator, in `prepare`.
    Rotator,
    /// The target, in `apply`; handed over as `minted`.
    Target,
}

/// Whether old and new can be valid at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// The new secret ends the old one.
    None,
    /// Both are valid until `finish`.
    Both,
}

/// How a credential is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VerifyBy {
    /// By logging in with it.
    Login,
    /// By asking an administrator's connection.
    Admin,
    /// Not at all; a definite success of apply must do.
    None,
}

/// How many hosts one account lives on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Hosts {
    /// One.
    One,
    /// A list, with an outcome each.
    Many,
}

/// What a target's passwords may not exceed or hold. All limits hold at once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PasswordLimits {
    /// The shortest length, in characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_length: Option<u32>,
    /// The greatest length, in characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_length: Option<u32>,
    /// Characters that may not occur.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub forbidden: String,
}

impl PasswordLimits {
    /// The limits that satisfy both.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let mut forbidden = self.forbidden.clone();
        forbidden.extend(other.forbidden.chars().filter(|c| !self.forbidden.contains(*c)));
        Self {
            min_length: self.min_length.max(other.min_length),
            max_length: match (self.max_length, other.max_length) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            },
            forbidden,
        }
    }
}
