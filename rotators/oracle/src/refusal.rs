//! What Oracle's numbers mean to a person, and which of them prove that nothing
//! changed ("Database Error Messages").

use turnlock_kit::{CredentialState, Fault, Kind, NotIn, WorkingSet};

use crate::Account;
use crate::driver::{Failed, Why};
use crate::place::Place;

/// The answers that prove a single change of a password changed nothing: the
/// server gives them while it reads the statement, checks rights or judges
/// passwords, before it writes. Not on the list: everything about the session,
/// the instance or its storage, and ORA-01045, which comes after a log-in.
const DEFINITE_REFUSALS: &[u32] = &[
    900, 911, 921, 922, 936, 970, 972, 988, 1935, // not understood
    1017, 28000, 28008, // the old password, or the account
    1031, 1918, 65066, // no right, no such user, not in this container
    28003, 28007, 28218, 28219, 28221, // the new password's rules
];

/// Whether nothing changed for certain.
pub(crate) fn is_definite(failed: &Failed) -> bool {
    matches!(failed.why, Why::Database(number) if DEFINITE_REFUSALS.contains(&number))
}

/// A failed log-in.
pub(crate) fn of_log_in(place: &Place, login: &str, failed: &Failed) -> NotIn {
    let place = &place.name;
    let number = match failed.why {
        Why::Database(number) => number,
        other => return NotIn::Other(of_connection(place, other, failed)),
    };
    let (kind, message, hint) = match number {
        1017 => {
            let message = format!("{place} refused the password of \"{login}\"");
            return NotIn::Other(Fault::new(Kind::Authentication, message).caused_by(failed));
        }
        28000 => (
            Kind::LockedOut,
            format!("the user \"{login}\" is locked in {place}"),
            "wait for the profile's PASSWORD_LOCK_TIME, or let an admin reset it with `unlock = true`",
        ),
        28001 => {
            let message = format!("the password of \"{login}\" has expired in {place}");
            let fault = Fault::new(Kind::Permission, message)
                .caused_by(failed)
                .hint("rotate the account itself, or let an admin reset it");
            return NotIn::Right(CredentialState::Expired, fault);
        }
        1045 => (
            Kind::Permission,
            format!("\"{login}\" may not log in to {place}"),
            "grant it CREATE SESSION: its password cannot be proven before",
        ),
        28009 => (Kind::Unsupported, format!("\"{login}\" logs in as SYSDBA only"), "change it with orapwd"),
        28040 => (
            Kind::Unsupported,
            format!("{place} takes no log-in of this driver's kind"),
            "the cause names what is missing; `driver = thick` may know it",
        ),
        18 | 20 | 2391 => (Kind::RateLimited, format!("{place} takes no more sessions"), "try again later"),
        1033 | 1034 | 1089 | 1090 | 1109 | 12528 => {
            (Kind::Unreachable, format!("the database at {place} is not open"), "start it, or wait until it has")
        }
        _ => (Kind::Unsupported, format!("{place} did not let \"{login}\" in"), "the cause says why"),
    };
    NotIn::Other(Fault::new(kind, message).caused_by(failed).hint(hint))
}

/// What went wrong before the database was asked anything, or without it.
fn of_connection(place: &str, why: Why, failed: &Failed) -> Fault {
    let (kind, message, hint) = match why {
        Why::Listener(12514 | 12521) => (
            Kind::NotFound,
            format!("{place} knows no such service"),
            "`db` names the service as `lsnrctl services` does",
        ),
        Why::Listener(12505) => {
            (Kind::NotFound, format!("{place} knows no such instance"), "name the service as `db` rather than a `sid`")
        }
        Why::Listener(12516 | 12519 | 12520) => {
            (Kind::RateLimited, format!("the listener of {place} has no free server"), "try again later")
        }
        Why::Listener(_) => (Kind::Unreachable, format!("the listener of {place} refused"), "the cause has its number"),
        Why::Tls => (
            Kind::Tls,
            format!("no trusted TLS connection to {place}"),
            "give the record the server's authority as `ca`; its certificate has to name the host",
        ),
        Why::Input => (Kind::InvalidInput, format!("{place} cannot be spoken to like this"), "the cause says why"),
        Why::Driver => (
            Kind::Unsupported,
            format!("the driver cannot speak to {place}"),
            "a server that demands native network encryption needs `driver = thick`, or a listener with TCPS",
        ),
        Why::Hung => {
            (Kind::Timeout, format!("{place} did not answer the log-in"), "look at the server's listener and log")
        }
        Why::Connection | Why::Database(_) => (
            Kind::Unreachable,
            format!("{place} could not be reached"),
            "check host and port; a listener of TCPS closes a connection that is in clear",
        ),
    };
    Fault::new(kind, message).caused_by(failed).hint(hint)
}

/// A change that was refused, or that got no answer.
pub(crate) fn of_change(account: &Account, worker: &WorkingSet<'_>, failed: &Failed) -> Fault {
    let (login, by) = (&account.login, worker.login);
    let Why::Database(number) = failed.why else {
        let message = format!("changing the password of \"{login}\" did not end with an answer");
        let kind = if failed.why == Why::Hung { Kind::Timeout } else { Kind::Unreachable };
        return Fault::new(kind, message).caused_by(failed);
    };
    let (kind, message, hint) = match number {
        28003 | 28007 | 28218 | 28219 => {
            (Kind::Policy, format!("the server refuses this password for \"{login}\""), "the cause names the rule")
        }
        988 | 972 => (
            Kind::Policy,
            format!("the server takes no such password for \"{login}\""),
            "it may be too long for this release: 30 bytes are what all of them take",
        ),
        1017 | 28008 => {
            (Kind::Authentication, format!("the old password of \"{login}\" was refused"), "correct it in the vault")
        }
        28000 => {
            (Kind::LockedOut, format!("the user \"{login}\" is locked"), "set `unlock = true` with an admin record")
        }
        28221 => (
            Kind::Permission,
            format!("the server wants the old password of \"{login}\" said (REPLACE)"),
            "its profile checks passwords: let the account rotate itself, or grant the admin ALTER USER",
        ),
        1918 => (
            Kind::NotFound,
            format!("there is no user \"{login}\""),
            "correct the login; in double quotes, letter for letter, where it is not in capitals",
        ),
        1031 if worker.is_admin => (
            Kind::Permission,
            format!("\"{by}\" may not change the password of \"{login}\""),
            "grant the admin ALTER USER",
        ),
        1031 => (
            Kind::Permission,
            format!("\"{by}\" may not change its own password"),
            "name an admin record with ALTER USER",
        ),
        65066 => (
            Kind::Permission,
            format!("\"{login}\" is a common user"),
            "change it in the root container: `db` names the service of CDB$ROOT",
        ),
        number if DEFINITE_REFUSALS.contains(&number) => {
            (Kind::Unsupported, format!("the server does not take this change of \"{login}\""), "the cause says why")
        }
        _ => {
            let message = format!(
                "changing the password of \"{login}\" did not end with an answer that says whether it was made"
            );
            return Fault::new(Kind::Unreachable, message).caused_by(failed);
        }
    };
    Fault::new(kind, message).caused_by(failed).hint(hint)
}
