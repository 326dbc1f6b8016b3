use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why an operation failed, named by what the caller does next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Kind {
    /// The request cannot be understood or contradicts itself: correct it.
    InvalidInput,
    /// The target could not be reached, and before the permit: no log-in was
    /// tried. Try again later.
    Unreachable,
    /// The target could not prove who it is, or offers no acceptable TLS.
    Tls,
    /// The target's host key is unknown or has changed.
    HostKey,
    /// The target refused the credential that was used to log in.
    Authentication,
    /// Logged in, but without the right to make this change.
    Permission,
    /// The target refuses this new secret: draw another one.
    Policy,
    /// The account is locked, or cannot be told apart from a locked one.
    LockedOut,
    /// The target asks to slow down.
    RateLimited,
    /// The account, user or host does not exist.
    NotFound,
    /// Somebody else changed the same thing meanwhile.
    Conflict,
    /// The deadline passed, or an answer that decides was lost.
    Timeout,
    /// The host withdrew its request or its permit.
    Cancelled,
    /// The target or the rotator cannot do this.
    Unsupported,
    /// A defect of the rotator.
    Internal,
    /// A kind that a newer peer knows and this one does not.
    #[default]
    #[serde(other)]
    Unknown,
}

impl Kind {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidInput => "invalid_input",
            Self::Unreachable => "unreachable",
            Self::Tls => "tls",
            Self::HostKey => "host_key",
            Self::Authentication => "authentication",
            Self::Permission => "permission",
            Self::Policy => "policy",
            Self::LockedOut => "locked_out",
            Self::RateLimited => "rate_limited",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::Unsupported => "unsupported",
            Self::Internal => "internal",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether the target took the change. Claiming more than is known is the
/// worst defect a rotator can have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Applied {
    /// Proven: nothing changed.
    No,
    /// Proven: the new credential is live.
    Yes,
    /// Not known, or not said; the target has to be asked.
    #[default]
    #[serde(other)]
    Unknown,
}

/// A failure as it travels: `message` for people, `kind` and `applied` for
/// callers. Never holds a secret or a part of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Fault {
    /// What the caller does next.
    #[serde(default)]
    pub kind: Kind,
    /// One sentence that names target and login.
    #[serde(skip)]
    pub message: String,
    /// What is known of the target.
    #[serde(default)]
    pub applied: Applied,
    /// Whether the same request may succeed later, unchanged.
    #[serde(default)]
    pub retryable: bool,
    /// How long to wait before that, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// The chain of causes as the driver told it, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// An instruction that can be followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// What the target said its rule is, where `kind` is `policy` and it told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learned: Option<Box<crate::PasswordLimits>>,
}

impl Fault {
    /// A failure before anything was changed; the kit corrects `applied` for
    /// failures behind the threshold.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            applied: Applied::No,
            retryable: matches!(kind, Kind::Unreachable | Kind::RateLimited | Kind::Timeout),
            retry_after_ms: None,
            causes: Vec::new(),
            hint: None,
            learned: None,
        }
    }

    /// The same failure with the whole chain of `source()` as its causes: a
    /// driver's own `Display` is often just "db error".
    #[must_use]
    pub fn caused_by(mut self, error: &dyn std::error::Error) -> Self {
        let mut next = Some(error);
        while let Some(cause) = next {
            let text = cause.to_string();
            if self.causes.last() != Some(&text) {
                self.causes.push(text);
            }
            next = cause.source();
        }
        self
    }

    /// The same failure with an instruction that can be followed.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.kind)
    }
}

impl std::error::Error for Fault {}
