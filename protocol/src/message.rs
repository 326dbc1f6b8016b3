//! The frames: JSON-RPC 2.0, one message a line.
//!
//! The host's ids are integers, the rotator's are strings, so that either
//! side's requests and replies cannot be taken for the other's.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Applied, Credential, Fault, Kind};

/// The id of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum RequestId {
    /// A request of the host.
    Host(u64),
    /// A request of the rotator.
    Rotator(String),
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(number) => write!(f, "{number}"),
            Self::Rotator(text) => f.write_str(text),
        }
    }
}

/// JSON-RPC's own error codes, and ours.
pub mod code {
    /// Not JSON.
    pub const PARSE: i64 = -32700;
    /// JSON, but no request.
    pub const INVALID_REQUEST: i64 = -32600;
    /// An operation this rotator does not know.
    pub const METHOD_NOT_FOUND: i64 = -32601;
    /// Params that do not fit.
    pub const INVALID_PARAMS: i64 = -32602;
    /// A rotation failed: `data` says how.
    pub const FAULT: i64 = -32000;
}

/// A line that is no message. Holds no text of the line, which may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed {
    /// Line within the text, from 1.
    pub line: usize,
    /// Column within the line, from 1; 0 when the text ended too early.
    pub column: usize,
}

impl From<&serde_json::Error> for Malformed {
    fn from(error: &serde_json::Error) -> Self {
        Self { line: error.line(), column: error.column() }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a valid message at line {}, column {}", self.line, self.column)
    }
}

impl std::error::Error for Malformed {}

/// One line as it came in, its params and result still raw.
#[derive(Debug)]
pub enum Incoming<'line> {
    /// Somebody wants an answer.
    Request {
        /// To be repeated in the answer.
        id: RequestId,
        /// The operation.
        method: &'line str,
        /// Its params, or nothing.
        params: Option<&'line RawValue>,
    },
    /// Somebody says something.
    Notification {
        /// What it is about.
        method: &'line str,
        /// Its params, or nothing.
        params: Option<&'line RawValue>,
    },
    /// The answer to a request of ours.
    Result {
        /// The request's id.
        id: RequestId,
        /// The answer.
        result: &'line RawValue,
    },
    /// The refusal of a request of ours; without an id when the peer could not read it.
    Error {
        /// The request's id.
        id: Option<RequestId>,
        /// What the peer says.
        error: RpcError,
    },
}

impl<'line> Incoming<'line> {
    /// Reads one line.
    ///
    /// # Errors
    /// Where the line stops being a message; never what it said.
    pub fn parse(line: &'line [u8]) -> Result<Self, Malformed> {
        #[derive(Deserialize)]
        struct Frame<'a> {
            jsonrpc: &'a str,
            id: Option<RequestId>,
            method: Option<&'a str>,
            #[serde(borrow)]
            params: Option<&'a RawValue>,
            #[serde(borrow, default, deserialize_with = "present")]
            result: Option<&'a RawValue>,
            error: Option<RpcError>,
        }

        /// `null` is a result too; a missing one is not.
        fn present<'de: 'a, 'a, D: serde::Deserializer<'de>>(value: D) -> Result<Option<&'a RawValue>, D::Error> {
            <&RawValue>::deserialize(value).map(Some)
        }

        let nonsense = Malformed { line: 1, column: 1 };
        let frame: &RawValue = serde_json::from_slice(line).map_err(|error| Malformed::from(&error))?;
        let frame: Frame<'line> = object(frame)?;
        if frame.jsonrpc != "2.0" {
            return Err(nonsense);
        }
        match (frame.method, frame.id, frame.result, frame.error) {
            (Some(method), Some(id), None, None) => Ok(Self::Request { id, method, params: frame.params }),
            (Some(method), None, None, None) => Ok(Self::Notification { method, params: frame.params }),
            (None, Some(id), Some(result), None) => Ok(Self::Result { id, result }),
            (None, id, result, Some(error)) if result.is_none_or(|r| r.get() == "null") => {
                Ok(Self::Error { id, error })
            }
            _ => Err(nonsense),
        }
    }
}

/// Reads a message, params or a result, which are objects and nothing else:
/// serde alone would take the array `[true]` for a [`Permit`].
///
/// # Errors
/// Where it stops to fit; never what it said.
pub fn object<'json, T: Deserialize<'json>>(json: &'json RawValue) -> Result<T, Malformed> {
    if !json.get().starts_with('{') {
        return Err(Malformed { line: 1, column: 1 });
    }
    serde_json::from_str(json.get()).map_err(|error| Malformed::from(&error))
}

/// A JSON-RPC error object; `data` is there when a rotation failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RpcError {
    /// One of [`code`].
    pub code: i64,
    /// One sentence.
    pub message: String,
    /// What callers decide by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Fault>,
}

impl RpcError {
    /// An error that is not a rotation's fault.
    pub fn new(code: i64, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: None }
    }

    /// The fault with its message put back, or one made from the bare code. A
    /// bare code says nothing of the target, so `applied` is unknown then; who
    /// gave no permit knows better.
    pub fn into_fault(self) -> Fault {
        let kind = match self.code {
            code::METHOD_NOT_FOUND => Kind::Unsupported,
            code::PARSE | code::INVALID_REQUEST | code::INVALID_PARAMS => Kind::InvalidInput,
            _ => Kind::Internal,
        };
        let mut fault =
            self.data.unwrap_or_else(|| Fault { applied: Applied::Unknown, retryable: false, ..Fault::new(kind, "") });
        fault.message = self.message;
        fault
    }
}

impl From<Fault> for RpcError {
    fn from(fault: Fault) -> Self {
        Self { code: code::FAULT, message: fault.message.clone(), data: Some(fault) }
    }
}

/// An outgoing request.
#[derive(Debug, Serialize)]
pub struct Request<'a, P> {
    jsonrpc: &'static str,
    id: RequestId,
    method: &'a str,
    params: P,
}

impl<'a, P: Serialize> Request<'a, P> {
    /// A request that wants an answer.
    pub fn new(id: RequestId, method: &'a str, params: P) -> Self {
        Self { jsonrpc: "2.0", id, method, params }
    }
}

/// An outgoing notification.
#[derive(Debug, Serialize)]
pub struct Notification<'a, P> {
    jsonrpc: &'static str,
    method: &'a str,
    params: P,
}

impl<'a, P: Serialize> Notification<'a, P> {
    /// A message nobody answers.
    pub fn new(method: &'a str, params: P) -> Self {
        Self { jsonrpc: "2.0", method, params }
    }
}

/// An outgoing answer.
#[derive(Debug, Serialize)]
pub struct Reply<R> {
    jsonrpc: &'static str,
    id: Option<RequestId>,
    #[serde(flatten)]
    outcome: Outcome<R>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome<R> {
    Result(R),
    Error(RpcError),
}

impl<R: Serialize> Reply<R> {
    /// The answer to a request.
    pub fn result(id: RequestId, result: R) -> Self {
        Self { jsonrpc: "2.0", id: Some(id), outcome: Outcome::Result(result) }
    }
}

impl Reply<()> {
    /// The refusal of a request; without an id when it could not be read.
    pub fn error(id: Option<RequestId>, error: impl Into<RpcError>) -> Self {
        Self { jsonrpc: "2.0", id, outcome: Outcome::Error(error.into()) }
    }
}

/// The first thing a serving rotator says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hello {
    /// The protocol versions it speaks.
    pub protocol: Vec<u32>,
    /// Its plugin's name; must be the one it was found by.
    pub plugin: String,
    /// Its own version.
    pub version: String,
    /// The operations it knows, by name.
    pub operations: Vec<String>,
}

/// Params of the rotator's request `threshold`: the next step may change the target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ThresholdParams {
    /// The host's request this is about.
    pub id: u64,
}

/// The host's answer to `threshold`. Anything but `proceed: true` means stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Permit {
    /// Go.
    pub proceed: bool,
}

/// Params of the rotator's request `minted`: the target made this secret.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct MintedParams {
    /// The host's request this is about.
    pub id: u64,
    /// The whole new credential.
    pub next: Credential,
}

/// The host's answer to `minted`, once the secret is durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Staged {
    /// It is in the vault.
    pub staged: bool,
}

/// Params of the rotator's notification `progress`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProgressParams {
    /// The host's request this is about.
    pub id: u64,
    /// What is being done, for people.
    pub step: String,
}

/// Params of the rotator's notification `log`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogParams {
    /// The host's request this is about, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// `debug`, `info`, `warning` or `error`.
    pub level: String,
    /// One line.
    pub message: String,
}

/// Params of the host's notification `cancel`. Advisory: one reply still comes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CancelParams {
    /// The host's own request.
    pub id: u64,
}
