//! One operation: params in, result or fault out, in both modes alike.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::Instant;
use turnlock_protocol::message::{RpcError, code, object};
use turnlock_protocol::operation::{
    Account, Admin, ApplyParams, ApplyResult, CheckParams, FinishParams, HostOutcome, PlanParams, PlanResult,
    PrepareParams, RevertParams, Terms, Verdict, VerifyParams,
};
use turnlock_protocol::{Applied, Credential, Fault, Kind, Operation, VERSIONS, VerifyBy};
use zeroize::Zeroizing;

use crate::cleared::json;
use crate::host::Host;
use crate::rotator::{Change, Rotator};
use crate::schema;
use crate::scrub::Scrubber;
use crate::threshold::{PermitState, Threshold};

/// One request on its way through the rotator.
pub(crate) struct Call {
    pub(crate) host: Rc<Host>,
    pub(crate) id: u64,
    pub(crate) permit: Rc<Cell<PermitState>>,
}

/// A result, serialized; cleared when it is dropped, for it may hold a secret.
pub(crate) struct RawResult(Zeroizing<Vec<u8>>);

impl RawResult {
    /// Reads it back.
    pub(crate) fn parse<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_slice(&self.0)
    }
}

impl Serialize for RawResult {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_slice(&self.0).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

/// The longest deadline that is kept; more is the same as this.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

impl Call {
    /// Performs one operation within its deadline. A failure leaves scrubbed,
    /// and with what its permit proves.
    pub(crate) async fn perform<R: Rotator>(
        &self,
        operation: Operation,
        params: Option<&RawValue>,
    ) -> Result<RawResult, RpcError> {
        let mut scrubber = Scrubber::default();
        let outcome = self.within_terms::<R>(operation, params, &mut scrubber).await;
        self.learn_made::<R>(&mut scrubber);
        outcome.map_err(|mut fault| {
            fault.applied = self.permit.get().applied();
            fault.retryable &= fault.applied == Applied::No;
            let mut error = RpcError::from(scrubber.fault(fault));
            if error.data.as_ref().is_some_and(|fault| fault.kind == Kind::InvalidInput) {
                error.code = code::INVALID_PARAMS;
            }
            error
        })
    }

    /// The operation, if its version is spoken here, until its deadline.
    async fn within_terms<R: Rotator>(
        &self,
        operation: Operation,
        params: Option<&RawValue>,
        scrubber: &mut Scrubber,
    ) -> Result<RawResult, Fault> {
        let began = Instant::now();
        if operation == Operation::Describe {
            return raw(&schema::describe::<R>());
        }
        let params = params.unwrap_or(RawValue::NULL);
        let terms: Terms = read(params)?;
        spoken(terms.protocol)?;
        let asked = Duration::from_millis(terms.deadline_ms);
        let limit = asked.min(account_timeout(params)?).min(LONGEST);
        let deadline = Deadline { at: began + limit, limit };
        let work = self.operation::<R>(operation, params, deadline, scrubber);
        match tokio::time::timeout_at(deadline.at, work).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Fault::new(
                Kind::Timeout,
                format!("{} took longer than {} ms", operation.name(), limit.as_millis()),
            )),
        }
    }

    async fn operation<R: Rotator>(
        &self,
        operation: Operation,
        params: &RawValue,
        deadline: Deadline,
        scrubber: &mut Scrubber,
    ) -> Result<RawResult, Fault> {
        match operation {
            Operation::Describe => raw(&schema::describe::<R>()),
            Operation::Plan => {
                let params: PlanParams = read(params)?;
                let account = account::<R>(&params.account)?;
                raw(&PlanResult { traits: R::traits(Some(&account)) })
            }
            Operation::Check => {
                let params: CheckParams = read(params)?;
                learn::<R, _>(scrubber, &params.account, [Some(&params.current)], params.admin.as_ref());
                let account = account::<R>(&params.account)?;
                let findings = R::check(&account, &params.current, params.admin.as_ref()).await?;
                raw(&scrubber.findings(findings))
            }
            Operation::Prepare => {
                let params: PrepareParams = read(params)?;
                learn::<R, _>(scrubber, &params.account, [params.current.as_ref()], params.admin.as_ref());
                let account = account::<R>(&params.account)?;
                raw(&R::prepare(&account, params.current.as_ref(), params.admin.as_ref(), &params.policy).await?)
            }
            Operation::Apply => {
                let params: ApplyParams = read(params)?;
                learn::<R, _>(
                    scrubber,
                    &params.account,
                    [Some(&params.current), params.next.as_ref()],
                    params.admin.as_ref(),
                );
                let account = account::<R>(&params.account)?;
                let change = Change {
                    current: params.current,
                    next: params.next,
                    admin: params.admin,
                    attempt: params.attempt,
                    deadline: deadline.limit,
                };
                let applied = self.apply::<R>(&account, &change, deadline).await?;
                self.learn_made::<R>(scrubber);
                raw(&scrubber.applied(applied))
            }
            Operation::Verify => {
                let params: VerifyParams = read(params)?;
                learn::<R, _>(scrubber, &params.account, [Some(&params.credential)], params.admin.as_ref());
                let account = account::<R>(&params.account)?;
                let verdicts = R::verify(&account, &params.credential, params.admin.as_ref()).await?;
                raw(&scrubber.verdicts(verdicts))
            }
            Operation::Finish => {
                let params: FinishParams = read(params)?;
                learn::<R, _>(
                    scrubber,
                    &params.account,
                    [Some(&params.current), Some(&params.previous)],
                    params.admin.as_ref(),
                );
                let account = account::<R>(&params.account)?;
                let (current, previous) = two(&params.current, &params.previous)?;
                let (admin, threshold) = (params.admin.as_ref(), self.threshold(deadline));
                let finished = if params.in_grace {
                    R::publish(&account, current, admin, threshold).await?
                } else {
                    R::finish(&account, current, previous, admin, threshold).await?
                };
                raw(&scrubber.finished(finished))
            }
            Operation::Revert => {
                let params: RevertParams = read(params)?;
                learn::<R, _>(
                    scrubber,
                    &params.account,
                    [Some(&params.current), Some(&params.previous)],
                    params.admin.as_ref(),
                );
                let account = account::<R>(&params.account)?;
                let (admin, threshold) = (params.admin.as_ref(), self.threshold(deadline));
                let finished = match &params.orphans {
                    Some(orphans) => R::remove_orphans(&account, &params.previous, orphans, admin, threshold).await?,
                    None => {
                        let (current, previous) = two(&params.current, &params.previous)?;
                        R::revert(&account, current, previous, admin, threshold).await?
                    }
                };
                raw(&scrubber.finished(finished))
            }
        }
    }

    /// `apply`, idempotent in the wanted end state: where the current secret
    /// is refused, the candidate is asked for once, and a target that has it
    /// already is a success. Not where a failed log-in can lock the account,
    /// and not where asking proves nothing.
    async fn apply<R: Rotator>(
        &self,
        account: &R::Account,
        change: &Change,
        deadline: Deadline,
    ) -> Result<ApplyResult, Fault> {
        if change.next.is_none() && !self.host.can_take_minted() {
            return Err(Fault::new(
                Kind::Unsupported,
                "standard output keeps nothing, so the new secret would be lost; nothing was changed",
            )
            .hint("redirect standard output to a file or a pipe"));
        }
        let fault = match R::apply(account, change, self.threshold(deadline)).await {
            Ok(done) => return Ok(done.result),
            Err(fault) => fault,
        };
        let traits = R::traits(Some(account));
        let may_ask = fault.kind == Kind::Authentication
            && self.permit.get() == PermitState::NotGiven
            && traits.verify != VerifyBy::None
            && !traits.lockout_sensitive;
        if let (true, Some(next)) = (may_ask, &change.next)
            && let Ok(verdicts) = R::verify(account, next, change.admin.as_ref()).await
            && verdicts.verdict == Verdict::Accepted
        {
            return Ok(ApplyResult {
                next: None,
                hosts: verdicts
                    .hosts
                    .into_iter()
                    .map(|host| HostOutcome { host: host.host, applied: Applied::Yes, message: None })
                    .collect(),
                warnings: vec!["the target had this secret already".to_owned()],
            });
        }
        Err(fault)
    }

    fn learn_made<R: Rotator>(&self, scrubber: &mut Scrubber) {
        for made in self.host.take_made() {
            learn::<R, _>(scrubber, &Account::new(), [Some(&made)], None);
        }
    }

    fn threshold(&self, deadline: Deadline) -> Threshold {
        Threshold {
            host: Rc::clone(&self.host),
            request: self.id,
            state: Rc::clone(&self.permit),
            deadline: deadline.at,
        }
    }
}

/// When an operation must have ended, and how long that was at its start.
#[derive(Debug, Clone, Copy)]
struct Deadline {
    at: Instant,
    limit: Duration,
}

/// The account's `timeout`, which may only shorten the deadline.
fn account_timeout(params: &RawValue) -> Result<Duration, Fault> {
    #[derive(Deserialize)]
    struct OfParams {
        #[serde(default)]
        account: OfAccount,
    }
    #[derive(Default, Deserialize)]
    struct OfAccount {
        #[serde(default)]
        timeout: Option<Value>,
    }
    match read::<OfParams>(params)?.account.timeout {
        None => Ok(LONGEST),
        Some(timeout) => timeout.as_u64().filter(|seconds| *seconds > 0).map(Duration::from_secs).ok_or_else(|| {
            Fault::new(Kind::InvalidInput, "the account's \"timeout\" is not a whole number of seconds")
        }),
    }
}

/// Two credentials that are not the same.
fn two<'a>(current: &'a Credential, previous: &'a Credential) -> Result<(&'a Credential, &'a Credential), Fault> {
    if current.same_as(previous) {
        return Err(Fault::new(Kind::InvalidInput, "current and previous are the same credential: nothing is removed"));
    }
    Ok((current, previous))
}

/// Refuses a version of the protocol that is not spoken here.
pub(crate) fn spoken(protocol: u32) -> Result<(), Fault> {
    if VERSIONS.contains(&protocol) {
        return Ok(());
    }
    Err(Fault::new(Kind::Unsupported, format!("protocol version {protocol} is not spoken here; {VERSIONS:?} are"))
        .hint("bring orchestrator and rotator to versions that go together"))
}

/// Reads params. What serde says may repeat a misplaced secret, so a person
/// gets the place and not the words.
pub(crate) fn read<'de, T: Deserialize<'de>>(params: &'de RawValue) -> Result<T, Fault> {
    object(params).map_err(|place| {
        Fault::new(
            Kind::InvalidInput,
            format!("the params do not fit at line {}, column {} of the params", place.line, place.column),
        )
        .hint("compare them with --schema and --help")
    })
}

/// Reads the account, and names the field that does not fit.
fn account<R: Rotator>(account: &Account) -> Result<R::Account, Fault> {
    parse_account(account).map_err(|what| {
        Fault::new(Kind::InvalidInput, format!("the account is not one of {}: {what}", R::PLUGIN))
            .hint(format!("turnlock-{} --schema shows every field", R::PLUGIN))
    })
}

/// What is wrong, in words that repeat names of fields and no value.
fn parse_account<A: DeserializeOwned>(account: &Account) -> Result<A, String> {
    serde_path_to_error::deserialize(Value::Object(account.clone())).map_err(|error| {
        let path = error.path().to_string();
        let text = error.into_inner().to_string();
        let missing = text
            .strip_prefix("missing field `")
            .and_then(|rest| rest.strip_suffix('`'))
            .filter(|name| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
        match missing {
            Some(name) => format!("\"{name}\" is missing"),
            None if path == "." => "a field does not fit".to_owned(),
            None => format!("\"{path}\" does not fit"),
        }
    })
}

fn raw(result: &impl Serialize) -> Result<RawResult, Fault> {
    json(result).map(RawResult).map_err(|_| Fault::new(Kind::Internal, "a result could not be written as JSON"))
}

fn learn<R: Rotator, const N: usize>(
    scrubber: &mut Scrubber,
    account: &Account,
    credentials: [Option<&Credential>; N],
    admin: Option<&Admin>,
) {
    let mut public = Vec::new();
    for value in account.values().chain(admin.iter().flat_map(|admin| admin.account.values())) {
        texts(value, &mut public);
    }
    public.extend(admin.map(|admin| admin.login.clone()));
    let credentials = || credentials.into_iter().flatten().chain(admin.map(|admin| &admin.credential));
    for (_, shown) in credentials().flat_map(Credential::fields).filter(|(name, _)| R::SHOWN.contains(name)) {
        #[expect(clippy::disallowed_methods, reason = "the rotator declares that this field is no secret")]
        public.push(shown.expose().to_owned());
    }
    for (_, secret) in credentials().flat_map(Credential::fields).filter(|(name, _)| !R::SHOWN.contains(name)) {
        scrubber.learn(secret, &public);
    }
}

/// Every text and number within a value.
fn texts(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::String(text) => into.push(text.clone()),
        Value::Number(number) => into.push(number.to_string()),
        Value::Array(values) => values.iter().for_each(|value| texts(value, into)),
        Value::Object(fields) => fields.values().for_each(|value| texts(value, into)),
        Value::Null | Value::Bool(_) => {}
    }
}
