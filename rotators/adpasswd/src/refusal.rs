//! What directories' answers mean to a person, and which of them prove that
//! nothing changed.

use std::fmt;

use ldap3::{LdapError, LdapResult};
use turnlock_kit::{CredentialState, Fault, Kind, NotIn, WorkingSet};

use crate::Account;
use crate::ppolicy::{Complaint, Said};
use crate::session::said;

/// Why a question got no good answer.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The directory answered, and it was not a success.
    Refused(LdapResult),
    /// There was no answer.
    Connection(LdapError),
}

impl From<LdapError> for Trouble {
    fn from(error: LdapError) -> Self {
        match error {
            LdapError::LdapResult { result } => Self::Refused(result),
            error => Self::Connection(error),
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(answer) => write!(f, "{answer}"),
            Self::Connection(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for Trouble {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Refused(_) => None,
            Self::Connection(error) => error.source(),
        }
    }
}

/// LDAP's result codes (RFC 4511, appendix A) by the names used there.
pub(crate) mod code {
    pub(crate) const PROTOCOL_ERROR: u32 = 2;
    pub(crate) const STRONGER_AUTH_REQUIRED: u32 = 8;
    pub(crate) const REFERRAL: u32 = 10;
    pub(crate) const UNAVAILABLE_CRITICAL_EXTENSION: u32 = 12;
    pub(crate) const CONFIDENTIALITY_REQUIRED: u32 = 13;
    pub(crate) const NO_SUCH_ATTRIBUTE: u32 = 16;
    pub(crate) const UNDEFINED_ATTRIBUTE_TYPE: u32 = 17;
    pub(crate) const CONSTRAINT_VIOLATION: u32 = 19;
    pub(crate) const INVALID_ATTRIBUTE_SYNTAX: u32 = 21;
    pub(crate) const NO_SUCH_OBJECT: u32 = 32;
    pub(crate) const INVALID_DN_SYNTAX: u32 = 34;
    pub(crate) const INAPPROPRIATE_AUTHENTICATION: u32 = 48;
    pub(crate) const INVALID_CREDENTIALS: u32 = 49;
    pub(crate) const INSUFFICIENT_ACCESS_RIGHTS: u32 = 50;
    pub(crate) const BUSY: u32 = 51;
    pub(crate) const UNWILLING_TO_PERFORM: u32 = 53;
    pub(crate) const OBJECT_CLASS_VIOLATION: u32 = 65;
}

/// The answers that prove a single change changed nothing: a directory gives
/// them when it has checked the request, its rights and the password's rules,
/// and an LDAP modification is made whole or not at all (RFC 4511, 4.6). Not
/// on the list: 1 operationsError, 3 timeLimitExceeded, 51 busy, 52
/// unavailable, 80 other and lost connections, which may come from in between.
const DEFINITE_REFUSALS: &[u32] = &[
    code::PROTOCOL_ERROR,
    code::STRONGER_AUTH_REQUIRED,
    code::REFERRAL,
    code::UNAVAILABLE_CRITICAL_EXTENSION,
    code::CONFIDENTIALITY_REQUIRED,
    code::NO_SUCH_ATTRIBUTE,
    code::UNDEFINED_ATTRIBUTE_TYPE,
    code::CONSTRAINT_VIOLATION,
    code::INVALID_ATTRIBUTE_SYNTAX,
    code::NO_SUCH_OBJECT,
    code::INVALID_DN_SYNTAX,
    code::INVALID_CREDENTIALS,
    code::INSUFFICIENT_ACCESS_RIGHTS,
    code::UNWILLING_TO_PERFORM,
    code::OBJECT_CLASS_VIOLATION,
];

impl Trouble {
    /// Whether nothing changed for certain.
    pub(crate) fn is_definite_refusal(&self) -> bool {
        matches!(self, Self::Refused(answer) if DEFINITE_REFUSALS.contains(&answer.rc))
    }
}

/// A connection that could not be made or broke.
pub(crate) fn of_connection(account: &Account, error: &LdapError) -> Fault {
    let place = account.place();
    match error {
        LdapError::Io { source } if is_tls(source) => {
            Fault::new(Kind::Tls, format!("no trusted TLS connection to {place}"))
                .caused_by(source)
                .hint("give the record the server's authority as `ca`, or its certificate's name as `server_name`")
        }
        LdapError::LdapResult { result } => Fault::new(Kind::Tls, format!("{place} refused StartTLS"))
            .caused_by(result)
            .hint("set up TLS on the server, or name its port for LDAPS, mostly 636"),
        _ => Fault::new(Kind::Unreachable, format!("{place} could not be reached")).caused_by(error),
    }
}

/// A log-in whose answer was lost. The password may have been judged, so it is
/// not as if nobody had been reached.
pub(crate) fn of_lost_log_in(account: &Account, error: &LdapError) -> Fault {
    Fault::new(Kind::Timeout, format!("{} did not answer the log-in", account.place())).caused_by(error)
}

/// No connection at all.
pub(crate) fn unreachable(account: &Account, error: &std::io::Error) -> Fault {
    Fault::new(Kind::Unreachable, format!("{} could not be reached", account.place())).caused_by(error)
}

fn is_tls(error: &std::io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
}

/// What a right password is worth, by the policy's word.
pub(crate) fn state(said: Said) -> Option<CredentialState> {
    match said.complaint {
        Some(Complaint::ChangeAfterReset) => Some(CredentialState::MustChange),
        Some(Complaint::Expired) => Some(CredentialState::Expired),
        _ if said.grace.is_some() => Some(CredentialState::Expired),
        _ => None,
    }
}

/// A failed log-in.
pub(crate) fn of_log_in(account: &Account, login: &str, answer: &LdapResult, said: Said, locked: bool) -> NotIn {
    let place = account.place();
    if let Some(data) = data(&answer.text).filter(|_| answer.rc == code::INVALID_CREDENTIALS) {
        return of_active_directory(&place, login, data, answer);
    }
    let (kind, message, hint) = match (answer.rc, said.complaint) {
        (code::INVALID_CREDENTIALS, Some(Complaint::Expired)) => {
            let (state, fault) = expired(&place, login, answer);
            return NotIn::Right(state, fault);
        }
        // 389 Directory Server answers a locked account like the second.
        (code::INVALID_CREDENTIALS | code::CONSTRAINT_VIOLATION, Some(Complaint::Locked)) => locked_out(&place, login),
        (code::CONSTRAINT_VIOLATION, _) => locked_out(&place, login),
        (code::INVALID_CREDENTIALS, _) if locked => locked_out(&place, login),
        (code::INVALID_CREDENTIALS, _) => {
            (Kind::Authentication, format!("{place} refused the password of \"{login}\""), None)
        }
        (code::NO_SUCH_OBJECT, _) => {
            (Kind::NotFound, format!("{place} has no account \"{login}\""), Some("correct the login or `userdn`"))
        }
        (code::INVALID_DN_SYNTAX, _) => (
            Kind::InvalidInput,
            format!("{place} does not understand the name \"{login}\""),
            Some("correct the login or `userdn`"),
        ),
        (code::CONFIDENTIALITY_REQUIRED | code::STRONGER_AUTH_REQUIRED, _) => {
            (Kind::Tls, format!("{place} wants TLS"), Some("leave out `tls = disable`"))
        }
        (code::INAPPROPRIATE_AUTHENTICATION, _) => (
            Kind::Unsupported,
            format!("\"{login}\" does not log in by password on {place}"),
            Some("give the account a password first"),
        ),
        (code::UNWILLING_TO_PERFORM, _) => (
            Kind::Permission,
            format!("{place} does not let \"{login}\" log in"),
            Some("the cause says why; the account may be switched off"),
        ),
        (code::BUSY, _) => (Kind::RateLimited, format!("{place} is busy"), None),
        _ => (Kind::Unreachable, format!("{place} did not let \"{login}\" in"), None),
    };
    NotIn::Other(with_hint(Fault::new(kind, message).caused_by(answer), hint))
}

/// Active Directory's own word for why it let nobody in: the Windows error
/// number behind `data` (Microsoft: "LDAP simple bind error codes"). Those
/// that follow a right password only are told apart from a wrong one.
fn of_active_directory(place: &str, login: &str, data: u32, answer: &LdapResult) -> NotIn {
    let admin = "name an admin record that resets it";
    let (kind, message, hint) = match data {
        0x52e => (Kind::Authentication, format!("{place} refused the password of \"{login}\""), None),
        0x525 => (Kind::NotFound, format!("{place} has no account \"{login}\""), Some("correct the login")),
        0x530 => (
            Kind::Permission,
            format!("\"{login}\" may not log in to {place} at this hour"),
            Some("try again within the account's logon hours"),
        ),
        0x531 => (
            Kind::Permission,
            format!("\"{login}\" may not log in to {place} from here"),
            Some("add this machine to the account's workstations, or the controller to them"),
        ),
        0x532 => {
            let (state, fault) = expired(place, login, answer);
            return NotIn::Right(state, fault);
        }
        0x533 => (
            Kind::Permission,
            format!("the account \"{login}\" is disabled in {place}"),
            Some("enable the account; its password cannot be proven before"),
        ),
        0x568 => (
            Kind::Unsupported,
            format!("\"{login}\" is in too many groups to log in to {place}"),
            Some("take the account out of some groups"),
        ),
        0x701 => (
            Kind::Permission,
            format!("the account \"{login}\" has expired in {place}"),
            Some("extend the account; its password cannot be proven before"),
        ),
        0x773 => {
            let fault = Fault::new(
                Kind::Permission,
                format!(
                    "the password of \"{login}\" must be changed at the next log-in, and {place} lets nobody do that by LDAP"
                ),
            );
            return NotIn::Right(CredentialState::MustChange, fault.caused_by(answer).hint(admin));
        }
        0x775 => locked_out(place, login),
        _ => (Kind::Permission, format!("{place} does not let \"{login}\" log in"), Some("the cause says why")),
    };
    NotIn::Other(with_hint(Fault::new(kind, message).caused_by(answer), hint))
}

type Told = (Kind, String, Option<&'static str>);

fn locked_out(place: &str, login: &str) -> Told {
    (
        Kind::LockedOut,
        format!("the account \"{login}\" is locked in {place}"),
        Some("wait until the lock-out has ended, or let an admin unlock it; its password was not judged"),
    )
}

fn expired(place: &str, login: &str, answer: &LdapResult) -> (CredentialState, Fault) {
    let message = format!("the password of \"{login}\" has expired, and {place} does not let it change itself");
    let fault = Fault::new(Kind::Permission, message).caused_by(answer);
    (CredentialState::Expired, fault.hint("name an admin record that resets it"))
}

fn with_hint(fault: Fault, hint: Option<&'static str>) -> Fault {
    match hint {
        Some(hint) => fault.hint(hint),
        None => fault,
    }
}

/// A change that was refused, or that got no answer.
pub(crate) fn of_change(account: &Account, worker: &WorkingSet<'_>, trouble: &Trouble) -> Fault {
    let (whose, by) = (account.of_whom(), worker.login);
    let Trouble::Refused(answer) = trouble else {
        return Fault::new(
            Kind::Unreachable,
            format!("changing the password of \"{whose}\" did not end with an answer"),
        )
        .caused_by(trouble);
    };
    let said = said(answer);
    let (kind, message, hint) = match (answer.rc, said.complaint, windows_error(&answer.text)) {
        // The number decides, not LDAP's code: a reset says 53 where a change says 19.
        (_, _, Some(0x52d))
        | (_, Some(Complaint::TooWeak | Complaint::TooShort | Complaint::TooYoung | Complaint::InHistory), _) => {
            (Kind::Policy, format!("the directory refuses this password for \"{whose}\""), None)
        }
        (_, _, Some(0x56)) => (
            Kind::Conflict,
            format!("the password of \"{whose}\" was changed by somebody else meanwhile"),
            Some("verify which password works now"),
        ),
        (_, Some(Complaint::OldPasswordNeeded), _) => (
            Kind::Permission,
            format!("\"{by}\" may not reset the password of \"{whose}\" without the old one"),
            Some("the policy has pwdSafeModify: grant the admin `manage` on userPassword, not `write`"),
        ),
        (_, Some(Complaint::ChangeNotAllowed), _) | (code::INSUFFICIENT_ACCESS_RIGHTS, ..) | (_, _, Some(0x5)) => {
            return remarked(no_right(account, worker).caused_by(answer), said);
        }
        (code::CONSTRAINT_VIOLATION, ..) => {
            (Kind::Policy, format!("the directory refuses this password for \"{whose}\""), None)
        }
        (code::REFERRAL, ..) => (
            Kind::Unsupported,
            format!("{} takes no changes", account.place()),
            Some("name a writable server, not a replica; a read-only domain controller is one"),
        ),
        (code::NO_SUCH_OBJECT, ..) => {
            (Kind::NotFound, format!("the account \"{whose}\" is gone"), Some("correct the login or `userdn`"))
        }
        (code::STRONGER_AUTH_REQUIRED | code::CONFIDENTIALITY_REQUIRED, ..) => {
            (Kind::Tls, format!("{} wants TLS for this", account.place()), Some("leave out `tls = disable`"))
        }
        (code::PROTOCOL_ERROR | code::UNWILLING_TO_PERFORM, ..) => (
            Kind::Unsupported,
            format!("{} does not change the password of \"{whose}\" like this", account.place()),
            Some("the cause says why"),
        ),
        _ => (
            Kind::Unreachable,
            format!("changing the password of \"{whose}\" did not end with an answer that says whether it was made"),
            None,
        ),
    };
    remarked(with_hint(Fault::new(kind, message).caused_by(answer), hint), said)
}

/// Whoever does the work may not do it.
pub(crate) fn no_right(account: &Account, worker: &WorkingSet<'_>) -> Fault {
    let message = format!("\"{}\" may not change the password of \"{}\"", worker.login, account.of_whom());
    Fault::new(Kind::Permission, message).hint(if worker.is_admin {
        "grant the admin \"Reset password\" on the account (elsewhere `manage` on userPassword)"
    } else {
        "name an admin record that may reset it, or let the account change its own password"
    })
}

fn remarked(mut fault: Fault, said: Said) -> Fault {
    fault.causes.extend(said.complaint.map(|complaint| complaint.words().to_owned()));
    fault
}

/// The number behind `data` in what Active Directory says of a failed bind:
/// `80090308: LdapErr: DSID-0C0903A9, comment: AcceptSecurityContext error, data 52e, v1db1`.
fn data(text: &str) -> Option<u32> {
    let (_, rest) = text.split_once(", data ")?;
    u32::from_str_radix(rest.split(',').next()?.trim(), 16).ok()
}

/// The Windows error number with which Active Directory begins what it says of
/// a failed change: `0000052D: …`.
fn windows_error(text: &str) -> Option<u32> {
    let (number, _) = text.split_once(':')?;
    u32::from_str_radix(number, 16).ok().filter(|_| number.len() == 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_out_of_what_active_directory_says() {
        let said = "80090308: LdapErr: DSID-0C0903A9, comment: AcceptSecurityContext error, data 52e, v1db1";
        assert_eq!(data(said), Some(0x52e));
        assert_eq!(data("password expired"), None);
        assert_eq!(
            windows_error("0000052D: SvcErr: DSID-031A124C, problem 5003 (WILL_NOT_PERFORM), data 0\n"),
            Some(0x52d)
        );
        assert_eq!(windows_error("error: 5"), None);
    }
}
