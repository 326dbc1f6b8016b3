//! Every message by name, for the tests that read JSON of others.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use turnlock_protocol::message::{
    CancelParams, Hello, LogParams, MintedParams, Permit, ProgressParams, RpcError, Staged, ThresholdParams,
};
use turnlock_protocol::operation::{
    Account, Admin, ApplyParams, ApplyResult, CheckParams, Findings, FinishParams, Finished, PlanParams, PlanResult,
    PrepareParams, Prepared, RevertParams, Terms, Verdicts, VerifyParams,
};
use turnlock_protocol::{Credential, Describe, Fault, Policy};

/// A request's params: the terms, and the operation's own.
#[derive(Serialize)]
pub(crate) struct Asked<P> {
    #[serde(flatten)]
    pub(crate) terms: Terms,
    #[serde(flatten)]
    pub(crate) params: P,
}

#[derive(Serialize, Deserialize)]
struct Nothing {}

/// Params of one-shot `rotate`, which is no message.
#[derive(Serialize, Deserialize)]
struct RotateParams {
    account: Account,
    #[serde(default)]
    current: Credential,
    #[serde(default)]
    next: Option<Credential>,
    #[serde(default)]
    admin: Option<Admin>,
    #[serde(default)]
    policy: Policy,
    #[serde(default)]
    deadline_ms: u64,
}

/// A line of one-shot `rotate`.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum RotateLine {
    Progress { progress: Step },
    Candidate { candidate: Credential },
    Rotated { rotated: bool, verified: bool, next: Credential, finished: Option<Finished>, warnings: Vec<String> },
    Error { error: RpcError },
}

#[derive(Serialize, Deserialize)]
struct Step {
    step: String,
}

/// Reads a text as what is called so, and writes it again. Nothing when
/// nothing is called so.
pub(crate) fn reread(name: &str, text: &str) -> Option<serde_json::Result<String>> {
    Some(match name {
        "hello.params" => again::<Hello>(text),
        "describe.params" => asked::<Nothing>(text),
        "describe.result" => again::<Describe>(text),
        "plan.params" => asked::<PlanParams>(text),
        "plan.result" => again::<PlanResult>(text),
        "check.params" => asked::<CheckParams>(text),
        "check.result" => again::<Findings>(text),
        "prepare.params" => asked::<PrepareParams>(text),
        "prepare.result" => again::<Prepared>(text),
        "apply.params" => asked::<ApplyParams>(text),
        "apply.result" => again::<ApplyResult>(text),
        "verify.params" => asked::<VerifyParams>(text),
        "verify.result" => again::<Verdicts>(text),
        "finish.params" => asked::<FinishParams>(text),
        "finish.result" | "revert.result" => again::<Finished>(text),
        "revert.params" => asked::<RevertParams>(text),
        "threshold.params" => again::<ThresholdParams>(text),
        "threshold.result" => again::<Permit>(text),
        "minted.params" => again::<MintedParams>(text),
        "minted.result" => again::<Staged>(text),
        "progress.params" => again::<ProgressParams>(text),
        "log.params" => again::<LogParams>(text),
        "cancel.params" => again::<CancelParams>(text),
        "error" => again::<RpcError>(text),
        "fault" => again::<Fault>(text),
        "policy" => again::<Policy>(text),
        "schema" => again::<Value>(text),
        "rotate.params" => again::<RotateParams>(text),
        "rotate.output" => again::<RotateLine>(text),
        _ => return None,
    })
}

fn again<T: Serialize + DeserializeOwned>(text: &str) -> serde_json::Result<String> {
    serde_json::to_string(&serde_json::from_str::<T>(text)?)
}

/// As a rotator does: the terms first, then the operation's own.
fn asked<P: Serialize + DeserializeOwned>(text: &str) -> serde_json::Result<String> {
    let terms = serde_json::from_str(text)?;
    let params: P = serde_json::from_str(text)?;
    serde_json::to_string(&Asked { terms, params })
}

/// A file of this crate, or beside it.
pub(crate) fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Compares a file with what it should say, or with `UPDATE_GOLDEN=1` writes it.
pub(crate) fn compare_or_write(path: &Path, expected: &str) {
    #[expect(clippy::disallowed_methods, reason = "the one switch of the golden tests")]
    let write = std::env::var_os("UPDATE_GOLDEN").is_some();
    if write {
        #[expect(clippy::disallowed_methods, reason = "a golden file is no vault")]
        std::fs::write(path, expected).unwrap();
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(
        found,
        expected,
        "{} differs; UPDATE_GOLDEN=1 writes it anew, and a change of the wire needs a reason",
        path.display()
    );
}

/// The names of the files in a directory.
pub(crate) fn names_in(directory: &str) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(file(directory))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
