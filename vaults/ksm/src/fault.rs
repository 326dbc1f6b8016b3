//! What went wrong, in the words of Turnlock's protocol.

use serde::Serialize;

/// Named by what the caller does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// The request makes no sense.
    InvalidInput,
    /// The service could not be reached; nothing was sent.
    Unreachable,
    /// The service could not prove who it is.
    Tls,
    /// It does not know this device or application.
    Authentication,
    /// It knows us, and we may not.
    Permission,
    /// It asks to slow down, and we have for long enough.
    RateLimited,
    /// No such record, folder or transaction.
    NotFound,
    /// It refused a change; usually somebody else was faster.
    Conflict,
    /// The answer was lost.
    Timeout,
    /// Turnlock took its request back.
    Cancelled,
    /// Not with this service.
    Unsupported,
    /// A defect, here or in the SDK.
    Internal,
}

/// Whether a change was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Applied {
    /// Certainly not.
    No,
    /// Perhaps.
    Unknown,
}

/// A request that failed. Its texts hold no secret: the SDK's own are not repeated.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Fault {
    #[serde(skip)]
    pub(crate) message: String,
    pub(crate) kind: Kind,
    pub(crate) applied: Applied,
    pub(crate) retryable: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) causes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<String>,
}

impl Fault {
    /// Nothing was changed.
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        let retryable = matches!(kind, Kind::Unreachable | Kind::RateLimited | Kind::Timeout);
        Self { message: message.into(), kind, applied: Applied::No, retryable, causes: Vec::new(), hint: None }
    }

    /// With something that can be done.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With one cause.
    pub(crate) fn cause(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    /// The change may have been made all the same.
    pub(crate) fn unknown(mut self) -> Self {
        self.applied = Applied::Unknown;
        self.retryable = false;
        self
    }
}
