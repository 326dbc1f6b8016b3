//! The params and the result of every operation.
//!
//! Params are read by method, never through a tagged enum: a tagged enum would
//! buffer secrets in memory nobody clears.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Credential, Policy, Traits};

/// What a host can ask of a rotator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Tell who you are; the target is not touched.
    Describe,
    /// Tell the traits of one account; the target is not touched.
    Plan,
    /// Look, log in, and tell what could go wrong; changes nothing.
    Check,
    /// Make a candidate, or narrow the policy by the target's own limits.
    Prepare,
    /// Change the target. The only operation, with `finish` and `revert`, that may.
    Apply,
    /// Ask the target whether it accepts a credential.
    Verify,
    /// Remove what the old credential left behind.
    Finish,
    /// Roll back a partial change of many hosts.
    Revert,
}

impl Operation {
    /// All of them, in the order of a rotation.
    pub const ALL: [Operation; 8] =
        [Self::Describe, Self::Plan, Self::Check, Self::Prepare, Self::Apply, Self::Verify, Self::Finish, Self::Revert];

    /// The method's name on the wire and the sub-command's name in a shell.
    pub fn name(self) -> &'static str {
        match self {
            Self::Describe => "describe",
            Self::Plan => "plan",
            Self::Check => "check",
            Self::Prepare => "prepare",
            Self::Apply => "apply",
            Self::Verify => "verify",
            Self::Finish => "finish",
            Self::Revert => "revert",
        }
    }

    /// The operation of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|operation| operation.name() == name)
    }
}

/// The non-secret facts of one account, as the rotator's schema declares them.
pub type Account = Map<String, Value>;

/// Another login with the right to reset this one.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Admin {
    /// Its login on the same target.
    pub login: String,
    /// Its secret fields.
    #[serde(default)]
    pub credential: Credential,
    /// What else the rotator needs to know about it; never secret.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub account: Account,
}

/// What every request's params carry besides the operation's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Terms {
    /// The protocol version of this request.
    #[serde(default = "Terms::version")]
    pub protocol: u32,
    /// How long the operation may take from now on, in milliseconds.
    #[serde(default = "Terms::deadline")]
    pub deadline_ms: u64,
}

impl Terms {
    fn version() -> u32 {
        1
    }

    fn deadline() -> u64 {
        30_000
    }

    /// Version 1 and this deadline.
    pub fn within(deadline_ms: u64) -> Self {
        Self { protocol: Self::version(), deadline_ms }
    }
}

/// Params of `plan`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct PlanParams {
    /// Where and who.
    pub account: Account,
    /// The login that may reset it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<Admin>,
}

/// Result of `plan`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlanResult {
    /// The effective traits of this account.
    pub traits: Traits,
}

/// Params of `check`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct CheckParams {
    /// Where and who.
    pub account: Account,
    /// What the target accepts now.
    #[serde(default)]
    pub current: Credential,
    /// The login that may reset it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<Admin>,
}

/// Result of `check`: what was reached and proven.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Findings {
    /// The server's product and version as it told them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Protocol, and who vouched for the server; absent without TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<String>,
    /// Whether the current credential logged in.
    #[serde(default)]
    pub authenticated: bool,
    /// Whether this login may change the secret.
    #[serde(default)]
    pub may_rotate: MayRotate,
    /// What a person should know.
    #[serde(default)]
    pub findings: Vec<Finding>,
}

/// Whether a login may change a secret.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MayRotate {
    /// It may.
    Yes,
    /// It may not.
    No,
    /// The target does not tell before it is tried.
    #[default]
    #[serde(other)]
    Unknown,
}

/// One thing a person should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// One sentence.
    pub message: String,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Safe to rotate, but weaker than it should be; also a severity that
    /// only a newer peer knows.
    Warning,
    /// A rotation will fail.
    Error,
}

impl<'de> Deserialize<'de> for Severity {
    fn deserialize<D: serde::Deserializer<'de>>(name: D) -> Result<Self, D::Error> {
        Ok(match String::deserialize(name)?.as_str() {
            "info" => Self::Info,
            "error" => Self::Error,
            _ => Self::Warning,
        })
    }
}

/// Params of `prepare`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct PrepareParams {
    /// Where and who.
    pub account: Account,
    /// What the target accepts now, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<Credential>,
    /// What the new secret must look like.
    #[serde(default)]
    pub policy: Policy,
    /// The login that may reset it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<Admin>,
}

/// Result of `prepare`: a candidate, or the policy to draw one from, and what
/// must be staged before anything changes.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Prepared {
    /// The candidate, where the rotator makes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Credential>,
    /// The policy narrowed by the target's own limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
    /// Ids that exist already on a target that mints secrets; whatever is not
    /// among them later may be an orphan of ours.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub existing: Vec<String>,
}

/// Params of `apply`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct ApplyParams {
    /// Where and who.
    pub account: Account,
    /// What the target accepts now, if anything.
    #[serde(default)]
    pub current: Credential,
    /// The candidate; absent where the target mints it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Credential>,
    /// The login that may reset it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<Admin>,
    /// The attempt's id; the same on a repeated apply of the same candidate.
    #[serde(default)]
    pub attempt: String,
}

/// Result of `apply`.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct ApplyResult {
    /// The whole new credential where the target or the rotator completed it;
    /// absent when it is the candidate as it was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Credential>,
    /// One outcome for each host of a many-host account.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostOutcome>,
    /// What a person should know although it worked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// What happened on one host of many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostOutcome {
    /// The host as the account names it.
    pub host: String,
    /// Whether it took the change.
    pub applied: crate::Applied,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Params of `verify`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct VerifyParams {
    /// Where and who.
    pub account: Account,
    /// The credential to ask about.
    pub credential: Credential,
    /// The login to ask through, where the traits say `verify: admin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<Admin>,
}

/// Result of `verify`, said by the target itself on a new connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Verdicts {
    /// The verdict over all hosts: accepted only if every host accepts.
    pub verdict: Verdict,
    /// What the target says of an accepted credential besides yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<CredentialState>,
    /// One verdict for each host of a many-host account.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostVerdict>,
}

impl Verdicts {
    /// The target asked for the credential and accepted it.
    pub fn accepted() -> Self {
        Self { verdict: Verdict::Accepted, state: None, hosts: Vec::new() }
    }

    /// The target asked for the credential and refused it.
    pub fn refused() -> Self {
        Self { verdict: Verdict::Refused, state: None, hosts: Vec::new() }
    }

    /// Accepted, but the target wants something first.
    pub fn accepted_but(state: CredentialState) -> Self {
        Self { verdict: Verdict::Accepted, state: Some(state), hosts: Vec::new() }
    }
}

/// What the target said to a credential it asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It opens the account.
    Accepted,
    /// It does not.
    Refused,
}

/// A right credential that cannot be used without more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CredentialState {
    /// Right, but expired.
    Expired,
    /// Right, but must be changed at the next log-in.
    MustChange,
    /// Right in some other state a newer peer knows.
    #[serde(other)]
    Other,
}

/// One host's verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostVerdict {
    /// The host as the account names it.
    pub host: String,
    /// Absent when it could not be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// Why it could not be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Params of `finish`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct FinishParams {
    /// Where and who.
    pub account: Account,
    /// The credential that is live and committed.
    pub current: Credential,
    /// The one before it.
    #[serde(default)]
    pub previous: Credential,
    /// The login that may reset it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<Admin>,
    /// Whether the account's grace is not over yet: the new credential is
    /// published, and nothing is removed. Only where the traits say `publishes`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_grace: bool,
}

/// Params of `revert`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct RevertParams {
    /// Where and who.
    pub account: Account,
    /// The credential that shall be taken back; without fields where the
    /// target made it and nobody learned it.
    #[serde(default)]
    pub current: Credential,
    /// The one before it, which stays.
    #[serde(default)]
    pub previous: Credential,
    /// The login that may reset it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<Admin>,
    /// What a target that mints secrets may have made without anybody
    /// learning of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orphans: Option<Orphans>,
}

/// How to know an orphan: a secret that the target made in an attempt of ours
/// and that never reached the vault. It is not among the existing ones, was
/// made since the attempt began, and was never used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Orphans {
    /// The ids that existed before the attempt, as `prepare` told them.
    pub existing: Vec<String>,
    /// How long ago the attempt began, in milliseconds; relative, because the
    /// target's clock is another one.
    pub began_ms_ago: u64,
    /// How long ago it could change the target for the last time, in
    /// milliseconds. What was made later is somebody else's.
    #[serde(default)]
    pub ended_ms_ago: u64,
}

/// Result of `finish` and of `revert`.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Finished {
    /// What is gone now, for people: "access key AKIA…", "retained password".
    #[serde(default)]
    pub removed: Vec<String>,
    /// What was made unusable and shall be removed by a `finish` later, as its
    /// `previous`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<Credential>,
    /// What a person should know although it worked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}
