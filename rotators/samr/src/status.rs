//! What Windows' status codes mean to a person, and which of them prove that
//! nothing changed (MS-ERREF 2.3.1).

use turnlock_kit::{CredentialState, Fault, Kind, NotIn};

use crate::session::Place;

/// A change that was refused, or that got no answer.
pub struct Refusal {
    /// What happened.
    pub fault: Fault,
    /// Whether nothing changed for certain.
    pub is_definite: bool,
}

/// A log-in that ended with a status.
pub(crate) fn of_log_in(place: &Place, login: &str, status: u32) -> NotIn {
    let told = |kind, message: String, hint: &str| {
        let fault = Fault::new(kind, message).caused_by(&Status(status));
        if hint.is_empty() { fault } else { fault.hint(hint) }
    };
    let admin = "name an admin record that resets it";
    NotIn::Other(match status {
        0xc000_006d | 0xc000_006a => {
            told(Kind::Authentication, format!("{place} refused the password of \"{login}\""), "")
        }
        0xc000_0064 => told(Kind::NotFound, format!("{place} has no account \"{login}\""), "correct the login"),
        0xc000_0234 => told(
            Kind::LockedOut,
            format!("the account \"{login}\" is locked at {place}"),
            "wait until the lock-out has ended, or let an administrator unlock it; its password was not judged",
        ),
        0xc000_0072 => told(
            Kind::Permission,
            format!("the account \"{login}\" is disabled at {place}"),
            "enable the account; its password cannot be proven before",
        ),
        0xc000_0193 => told(
            Kind::Permission,
            format!("the account \"{login}\" has expired at {place}"),
            "extend the account; its password cannot be proven before",
        ),
        0xc000_0071 => {
            let message = format!("the password of \"{login}\" has expired, and {place} lets nobody in with it");
            return NotIn::Right(CredentialState::Expired, told(Kind::Permission, message, admin));
        }
        0xc000_0224 => {
            let message =
                format!("the password of \"{login}\" must be changed, and {place} lets nobody in before that");
            return NotIn::Right(CredentialState::MustChange, told(Kind::Permission, message, admin));
        }
        0xc000_006e..=0xc000_0070 | 0xc000_015b | 0xc000_0413 => told(
            Kind::Permission,
            format!("\"{login}\" may not log in to {place} now, from here, or over the network"),
            "the cause says why; look at the account's hours and workstations, and at the machine's user rights",
        ),
        0xc000_0022 | 0xc000_00cc => told(
            Kind::Permission,
            format!("{place} does not let \"{login}\" use IPC$"),
            "allow the account to access this computer from the network",
        ),
        0xc000_00df | 0xc000_005e | 0xc000_0192 | 0xc000_018b..=0xc000_018d => told(
            Kind::Unreachable,
            format!("{place} cannot ask the domain of \"{login}\""),
            "use the plugin adpasswd for accounts of a domain",
        ),
        0xc000_00d0 | 0xc000_0203 => told(Kind::RateLimited, format!("{place} is busy"), "try again later"),
        _ => told(Kind::Unsupported, format!("{place} did not let \"{login}\" in"), "the cause says why"),
    })
}

/// The statuses that prove a change of a password changed nothing: the server
/// gives them while it judges the caller, the old password and the new one
/// (MS-SAMR 3.1.5.6.4, 3.1.5.10.3).
const DEFINITE_REFUSALS: &[u32] = &[
    0xc000_0022, // no right
    0xc000_0064, // no such account
    0xc000_006a, // the old password is wrong
    0xc000_006b, // the new one is no password
    0xc000_006c, // the rules
    0xc000_006e, // the minimum age
    0xc000_0072, // disabled
    0xc000_0073, // no such account
    0xc000_00bb, // not supported
    0xc000_0193, // expired account
    0xc000_0234, // locked
    0xc000_0418, // NTLM is blocked
    5,           // access denied by the call's own layer
    0x1c01_0002, // no such call
];

/// A change by the account itself that ended with a status.
pub(crate) fn of_change(place: &Place, login: &str, status: u32) -> Refusal {
    refusal(place, login, status, || match status {
        0xc000_006a => (
            Kind::Conflict,
            format!("the password of \"{login}\" was changed by somebody else meanwhile"),
            "verify which password works now",
        ),
        _ => (
            Kind::Permission,
            format!("\"{login}\" may not change its own password at {place}"),
            "name an admin record, or allow the account to change its password",
        ),
    })
}

/// An administrator's reset that ended with a status.
pub(crate) fn of_reset(place: &Place, admin: &str, login: &str, status: u32) -> Refusal {
    refusal(place, login, status, || {
        (
            Kind::Permission,
            format!("\"{admin}\" may not reset the password of \"{login}\" at {place}"),
            "resets take an administrator of the machine; a local one needs LocalAccountTokenFilterPolicy",
        )
    })
}

fn refusal(
    place: &Place,
    login: &str,
    status: u32,
    no_right: impl FnOnce() -> (Kind, String, &'static str),
) -> Refusal {
    let (kind, message, hint) = match status {
        0xc000_006b | 0xc000_006c | 0xc000_006e => (
            Kind::Policy,
            format!("{place} refuses this password for \"{login}\", or a change so soon"),
            "the machine's rules decide: length, complexity, history, minimum age",
        ),
        0xc000_0234 => (Kind::LockedOut, format!("the account \"{login}\" is locked at {place}"), "wait, or unlock it"),
        0xc000_0022 | 0xc000_006a | 5 => no_right(),
        0xc000_0064 | 0xc000_0073 => {
            (Kind::NotFound, format!("{place} has no account \"{login}\""), "correct the login")
        }
        0xc000_0072 | 0xc000_0193 => {
            (Kind::Permission, format!("the account \"{login}\" is closed at {place}"), "open the account")
        }
        0xc000_00bb | 0xc000_0418 | 0x1c01_0002 => (
            Kind::Unsupported,
            format!("{place} does not take a change of a password like this"),
            "the machine may allow newer ways only",
        ),
        _ => (
            Kind::Unreachable,
            format!(
                "changing the password of \"{login}\" at {place} did not end with an answer that says whether it was made"
            ),
            "verify which password works now",
        ),
    };
    let fault = Fault::new(kind, message).caused_by(&Status(status)).hint(hint);
    Refusal { fault, is_definite: DEFINITE_REFUSALS.contains(&status) }
}

/// A status with its name, as far as it is spoken of here.
#[derive(Debug)]
pub(crate) struct Status(pub(crate) u32);

impl std::error::Error for Status {}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self.0 {
            0xc000_0022 => "STATUS_ACCESS_DENIED",
            0xc000_0064 => "STATUS_NO_SUCH_USER",
            0xc000_006a => "STATUS_WRONG_PASSWORD",
            0xc000_006c => "STATUS_PASSWORD_RESTRICTION",
            0xc000_006d => "STATUS_LOGON_FAILURE",
            0xc000_006e => "STATUS_ACCOUNT_RESTRICTION",
            0xc000_006f => "STATUS_INVALID_LOGON_HOURS",
            0xc000_0070 => "STATUS_INVALID_WORKSTATION",
            0xc000_0071 => "STATUS_PASSWORD_EXPIRED",
            0xc000_0072 => "STATUS_ACCOUNT_DISABLED",
            0xc000_015b => "STATUS_LOGON_TYPE_NOT_GRANTED",
            0xc000_0193 => "STATUS_ACCOUNT_EXPIRED",
            0xc000_0224 => "STATUS_PASSWORD_MUST_CHANGE",
            0xc000_0234 => "STATUS_ACCOUNT_LOCKED_OUT",
            0xc000_0418 => "STATUS_NTLM_BLOCKED",
            _ => return write!(f, "status {:#010x}", self.0),
        };
        write!(f, "{name} ({:#010x})", self.0)
    }
}
