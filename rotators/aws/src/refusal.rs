//! What a failed call means: for the caller by its kind, and whether it proves
//! that nothing changed.

use aws_sdk_iam::config::http::HttpResponse;
use aws_sdk_iam::error::{ProvideErrorMetadata, SdkError};
use turnlock_kit::{Fault, Kind, tls};

use crate::session::Session;

/// What was asked for.
#[derive(Debug)]
pub struct Asked {
    /// The action, as policies name it.
    action: &'static str,
    /// What it is about, for people.
    about: String,
}

impl Asked {
    /// An action on something.
    pub fn new(action: &'static str, about: String) -> Self {
        Self { action, about }
    }
}

/// A call that failed.
#[derive(Debug)]
pub struct Refusal {
    /// Why.
    pub fault: Fault,
    /// Whether it proves that nothing changed, if the call was sent once.
    pub is_definite: bool,
    /// Whether AWS does not take the key that signs.
    pub is_of_the_key: bool,
}

impl Refusal {
    /// Nobody knows whether something changed.
    pub fn unclear(fault: Fault) -> Self {
        Self { fault, is_definite: false, is_of_the_key: false }
    }
}

/// Answers that prove that nothing was done: those that the API Reference of
/// IAM says reject the request, the errors common to all its actions, and
/// throttling. (`ServiceFailure`, `InternalFailure` and `ServiceUnavailable`
/// prove nothing.)
const DEFINITE: &[(&str, Kind)] = &[
    ("AccessDenied", Kind::Permission),
    ("AccessDeniedException", Kind::Permission),
    ("NotAuthorized", Kind::Permission),
    ("OptInRequired", Kind::Permission),
    ("ExpiredToken", Kind::Authentication),
    ("ExpiredTokenException", Kind::Authentication),
    ("IncompleteSignature", Kind::Authentication),
    ("InvalidAccessKeyId", Kind::Authentication),
    ("InvalidClientTokenId", Kind::Authentication),
    ("MissingAuthenticationToken", Kind::Authentication),
    ("RequestExpired", Kind::Authentication),
    ("SignatureDoesNotMatch", Kind::Authentication),
    ("UnrecognizedClientException", Kind::Authentication),
    ("NoSuchEntity", Kind::NotFound),
    ("PasswordPolicyViolation", Kind::Policy),
    ("ConcurrentModification", Kind::Conflict),
    ("DeleteConflict", Kind::Conflict),
    ("EntityAlreadyExists", Kind::Conflict),
    ("EntityTemporarilyUnmodifiable", Kind::Conflict),
    ("LimitExceeded", Kind::Conflict),
    ("InvalidInput", Kind::InvalidInput),
    ("InvalidParameterValue", Kind::InvalidInput),
    ("ValidationError", Kind::InvalidInput),
    ("InvalidUserType", Kind::Unsupported),
    ("RequestLimitExceeded", Kind::RateLimited),
    ("Throttling", Kind::RateLimited),
    ("ThrottlingException", Kind::RateLimited),
    ("TooManyRequestsException", Kind::RateLimited),
];

impl Session {
    /// What the failure of this call means.
    pub fn refusal<E>(&self, asked: Asked, error: SdkError<E, HttpResponse>) -> Refusal
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let (name, Asked { action, about }) = (self.server(), asked);
        match error {
            SdkError::ServiceError(context) => {
                let status = context.raw().status().as_u16();
                let error = context.err();
                self.answered(action, &about, status, error.code(), error.message())
            }
            SdkError::DispatchFailure(failure) => {
                let Some(error) = failure.as_connector_error() else {
                    let fault = Fault::new(Kind::Unreachable, format!("{name} was not asked for {action}"));
                    return Refusal::unclear(fault);
                };
                // Our own HTTP says so, and no connection means that nothing was sent.
                let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<reqwest::Error>());
                let is_definite = error.is_user() || cause.is_some_and(reqwest::Error::is_connect);
                let fault = match cause {
                    Some(cause) if tls::is_to_blame(cause) => Fault::new(
                        Kind::Tls,
                        format!("no trusted TLS connection to {name}"),
                    )
                    .hint(
                        "give the record the service's authority as `ca`, or its certificate's name as `server_name`",
                    ),
                    _ if is_definite => Fault::new(Kind::Unreachable, format!("{name} could not be reached")),
                    _ if error.is_timeout() => {
                        Fault::new(Kind::Timeout, format!("{name} did not answer {action} in time"))
                    }
                    _ => Fault::new(Kind::Unreachable, format!("{name} did not end its answer to {action}")),
                };
                Refusal { is_definite, ..Refusal::unclear(fault.caused_by(error)) }
            }
            SdkError::TimeoutError(_) => {
                Refusal::unclear(Fault::new(Kind::Timeout, format!("{name} did not answer {action} in time")))
            }
            SdkError::ConstructionFailure(_) => {
                let fault = Fault::new(Kind::InvalidInput, format!("{action} cannot be asked for {about}"));
                Refusal { is_definite: true, ..Refusal::unclear(fault) }
            }
            // What an answer that cannot be read says, it may repeat.
            _ => Refusal::unclear(
                Fault::new(Kind::Unsupported, format!("{name} answered {action}, but not like AWS"))
                    .hint("check `endpoint`, and what stands in between"),
            ),
        }
    }

    fn answered(&self, action: &str, about: &str, status: u16, code: Option<&str>, message: Option<&str>) -> Refusal {
        let (name, signer) = (self.server(), &self.signer);
        let known = DEFINITE.iter().find(|(known, _)| code == Some(*known));
        let said = code.map_or_else(|| format!("status {status}"), str::to_owned);
        let fault = match known.map(|(_, kind)| *kind) {
            Some(kind @ Kind::Permission) => Fault::new(kind, format!("{signer} may not {action} on {about}"))
                .hint("give it that permission in IAM, or name somebody who has it"),
            Some(kind @ Kind::Authentication) => match self.clock_is_wrong_by() {
                Some(skew) => {
                    // AWS tells whole seconds: an hour is also 3,599 of them.
                    let minutes = (skew.as_secs() + 30) / 60;
                    Fault::new(kind, format!("{name} refuses {signer}: this machine's clock is {minutes} minutes off"))
                        .hint("set the clock")
                }
                None => Fault::new(kind, format!("{name} refuses {signer} ({said})")),
            },
            Some(kind @ Kind::NotFound) => Fault::new(kind, format!("there is no {about}")),
            Some(kind @ Kind::RateLimited) => {
                Fault::new(kind, format!("{name} is asked too often")).hint("try again in a minute")
            }
            Some(kind) => Fault::new(kind, format!("{name} refuses {action} on {about} ({said})")),
            None if status >= 500 => Fault::new(Kind::Unreachable, format!("{name} failed at {action} ({said})")),
            None => Fault::new(Kind::Unsupported, format!("{name} answered {action} with {said}"))
                .hint("check `endpoint`, and what stands in between"),
        };
        // A refused signature is explained by repeating what was signed.
        let tells = !matches!(code, None | Some("SignatureDoesNotMatch" | "IncompleteSignature"));
        let causes = message.filter(|_| tells).map(str::to_owned).into_iter().collect();
        Refusal {
            fault: Fault { causes, ..fault },
            is_definite: known.is_some(),
            // A wrong clock is no wrong key.
            is_of_the_key: matches!(code, Some("InvalidClientTokenId" | "SignatureDoesNotMatch"))
                && self.clock_is_wrong_by().is_none(),
        }
    }
}
