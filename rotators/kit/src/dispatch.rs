//! One operation: params in, result or fault out, in both modes alike.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use tokio::time::Instant;
use turnlock_protocol::message::{Malformed, RpcError, code};
use turnlock_protocol::operation::{
    Account, Admin, ApplyParams, ApplyResult, CheckParams, FinishParams, PlanParams, PlanResult,
    PrepareParams, Terms, Verdict, VerifyParams,
};
use turnlock_protocol::{Credential, Fault, Kind, Operation, VERSIONS};
use zeroize::Zeroize;

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
pub(crate) struct RawResult(Box<RawValue>);

impl Serialize for RawResult {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl Drop for RawResult {
    fn drop(&mut self) {
        let text: Box<str> = std::mem::replace(&mut self.0, RawValue::NULL.to_owned()).into();
        String::from(text).zeroize();
    }
}

impl Call {
    /// Performs one operation within its deadline. A failure leaves scrubbed,
    /// and with what its permit proves.
    pub(crate) async fn perform<R: Rotator>(
        &self,
        operation: Operation,
        params: Option<&RawValue>,
    ) -> Result<RawResult, RpcError> {
        if operation == Operation::Describe {
            return raw(&schema::describe::<R>()).map_err(RpcError::from);
        }
        let params = params.unwrap_or(RawValue::NULL);
        let terms: Terms = read(params).map_err(RpcError::from)?;
        if !VERSIONS.contains(&terms.protocol) {
            return Err(Fault::new(
                Kind::Unsupported,
                format!(
                    "protocol version {} is not spoken here; {VERSIONS:?} are",
                    terms.protocol
                ),
            )
            .into());
        }
        let mut scrubber = Scrubber::default();
        let deadline = Duration::from_millis(terms.deadline_ms);
        let work = self.operation::<R>(operation, params, deadline, &mut scrubber);
        let outcome = match tokio::time::timeout(deadline, work).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Fault::new(
                Kind::Timeout,
                format!(
                    "{} took longer than {} ms",
                    operation.name(),
                    terms.deadline_ms
                ),
            )),
        };
        outcome.map_err(|mut fault| {
            fault.applied = self.permit.get().applied();
            fault.retryable &= fault.applied == turnlock_protocol::Applied::No;
            let mut error = RpcError::from(scrubber.fault(fault));
            if error
                .data
                .as_ref()
                .is_some_and(|fault| fault.kind == Kind::InvalidInput)
            {
                error.code = code::INVALID_PARAMS;
            }
            error
        })
    }

    async fn operation<R: Rotator>(
        &self,
        operation: Operation,
        params: &RawValue,
        deadline: Duration,
        scrubber: &mut Scrubber,
    ) -> Result<RawResult, Fault> {
        match operation {
            Operation::Describe => raw(&schema::describe::<R>()),
            Operation::Plan => {
                let params: PlanParams = read(params)?;
                let account = account::<R>(&params.account)?;
                raw(&PlanResult {
                    traits: R::traits(Some(&account)),
                })
            }
            Operation::Check => {
                let params: CheckParams = read(params)?;
                learn(
                    scrubber,
                    &params.account,
                    [Some(&params.current)],
                    params.admin.as_ref(),
                );
                let account = account::<R>(&params.account)?;
                let findings = R::check(&account, &params.current, params.admin.as_ref()).await?;
                raw(&scrubber.findings(findings))
            }
            Operation::Prepare => {
                let params: PrepareParams = read(params)?;
                learn(
                    scrubber,
                    &params.account,
                    [params.current.as_ref()],
                    params.admin.as_ref(),
                );
                let account = account::<R>(&params.account)?;
                raw(&R::prepare(
                    &account,
                    params.current.as_ref(),
                    params.admin.as_ref(),
                    &params.policy,
                )
                .await?)
            }
            Operation::Apply => {
                let params: ApplyParams = read(params)?;
                learn(
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
                    deadline,
                };
                raw(&scrubber.applied(self.apply::<R>(&account, &change).await?))
            }
            Operation::Verify => {
                let params: VerifyParams = read(params)?;
                learn(
                    scrubber,
                    &params.account,
                    [Some(&params.credential)],
                    params.admin.as_ref(),
                );
                let account = account::<R>(&params.account)?;
                let verdicts =
                    R::verify(&account, &params.credential, params.admin.as_ref()).await?;
                raw(&scrubber.verdicts(verdicts))
            }
            Operation::Finish | Operation::Revert => {
                let params: FinishParams = read(params)?;
                learn(
                    scrubber,
                    &params.account,
                    [Some(&params.current), Some(&params.previous)],
                    params.admin.as_ref(),
                );
                let account = account::<R>(&params.account)?;
                let (current, previous, admin) =
                    (&params.current, &params.previous, params.admin.as_ref());
                if current.same_as(previous) {
                    return Err(Fault::new(
                        Kind::InvalidInput,
                        "current and previous are the same credential: nothing is removed",
                    ));
                }
                let threshold = self.threshold(deadline);
                let finished = if operation == Operation::Finish {
                    R::finish(&account, current, previous, admin, threshold).await?
                } else {
                    R::revert(&account, current, previous, admin, threshold).await?
                };
                raw(&scrubber.finished(finished))
            }
        }
    }

    /// `apply`, idempotent in the wanted end state: where the current secret
    /// is refused, the candidate is asked for once, and a target that has it
    /// already is a success. Not where a failed log-in can lock the account.
    async fn apply<R: Rotator>(
        &self,
        account: &R::Account,
        change: &Change,
    ) -> Result<ApplyResult, Fault> {
        let fault = match R::apply(account, change, self.threshold(change.deadline)).await {
            Ok(done) => return Ok(done.result),
            Err(fault) => fault,
        };
        let may_ask = fault.kind == Kind::Authentication
            && self.permit.get() == PermitState::NotGiven
            && !R::traits(Some(account)).lockout_sensitive;
        if let (true, Some(next)) = (may_ask, &change.next)
            && let Ok(verdicts) = R::verify(account, next, change.admin.as_ref()).await
            && verdicts.verdict == Verdict::Accepted
        {
            return Ok(ApplyResult {
                warnings: vec!["the target had this secret already".to_owned()],
                ..ApplyResult::default()
            });
        }
        Err(fault)
    }

    fn threshold(&self, deadline: Duration) -> Threshold {
        Threshold {
            host: Rc::clone(&self.host),
            request: self.id,
            state: Rc::clone(&self.permit),
            deadline: Instant::now() + deadline,
        }
    }
}

/// Reads params. What serde says may repeat a misplaced secret, so a person
/// gets the place and not the words.
pub(crate) fn read<'de, T: Deserialize<'de>>(params: &'de RawValue) -> Result<T, Fault> {
    serde_json::from_str(params.get()).map_err(|error| {
        let place = Malformed::from(&error);
        Fault::new(
            Kind::InvalidInput,
            format!(
                "the params do not fit at line {}, column {} of the params",
                place.line, place.column
            ),
        )
        .hint("compare them with --schema and --help")
    })
}

/// Reads the account, and names the field that does not fit.
fn account<R: Rotator>(account: &Account) -> Result<R::Account, Fault> {
    parse_account(account).map_err(|path| {
        let what = if path == "." {
            "a required field is missing".to_owned()
        } else {
            format!("\"{path}\" does not fit")
        };
        Fault::new(
            Kind::InvalidInput,
            format!("the account is not one of {}: {what}", R::PLUGIN),
        )
        .hint(format!("turnlock-{} --schema shows every field", R::PLUGIN))
    })
}

fn parse_account<A: DeserializeOwned>(account: &Account) -> Result<A, String> {
    serde_path_to_error::deserialize(Value::Object(account.clone()))
        .map_err(|error| error.path().to_string())
}

fn raw(result: &impl Serialize) -> Result<RawResult, Fault> {
    to_raw_value(result)
        .map(RawResult)
        .map_err(|_| Fault::new(Kind::Internal, "a result could not be written as JSON"))
}

fn learn<const N: usize>(
    scrubber: &mut Scrubber,
    account: &Account,
    credentials: [Option<&Credential>; N],
    admin: Option<&Admin>,
) {
    let public: Vec<&str> = account
        .values()
        .filter_map(Value::as_str)
        .chain(admin.map(|admin| admin.login.as_str()))
        .collect();
    for credential in credentials
        .into_iter()
        .flatten()
        .chain(admin.map(|admin| &admin.credential))
    {
        scrubber.learn(credential, &public);
    }
}
