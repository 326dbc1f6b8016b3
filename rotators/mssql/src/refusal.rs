//! What SQL Server's error numbers mean to a person, and which of them prove
//! that nothing changed (Microsoft: "Database Engine events and errors").

use std::io;

use tiberius::error::Error;
use turnlock_kit::{CredentialState, Fault, Kind, NotIn, WorkingSet};

use crate::Account;

/// The answers that prove a single `ALTER LOGIN` changed nothing: the server
/// gives them while it reads the statement, checks rights or judges the
/// password, before it writes. Not on the list: everything of severity 20 and
/// above, time-outs, deadlocks, and lost connections.
const DEFINITE_REFUSALS: &[u32] = &[
    102, 105, 156, 319, // not understood
    5011, 15247, 15151, // no right, or no such login
    15007, 15023, // no such login
    15113, 15114, 15115, 15116, 15117, 15118, 15119, // the password's rules
    15122, 15128, 15129, // options that the login's policy forbids
    33062, 33063, 33064, // password and name of a contained user
];

/// Whether nothing changed for certain.
pub(crate) fn is_definite(error: &Error) -> bool {
    matches!(error, Error::Server(token) if DEFINITE_REFUSALS.contains(&token.code()) && token.class() < 20)
}

/// A failed log-in.
pub(crate) fn of_log_in(account: &Account, login: &str, error: &Error) -> NotIn {
    let place = account.place();
    let fault = |kind, message: String, hint: &str| NotIn::Other(Fault::new(kind, message).caused_by(error).hint(hint));
    let Error::Server(token) = error else {
        let message = format!("{place} did not answer the log-in");
        return NotIn::Other(Fault::new(Kind::Timeout, message).caused_by(error));
    };
    let admin = "name an admin record that resets it: the driver cannot change a password while it logs in";
    match token.code() {
        18456 => {
            let message = format!("{place} refused the password of \"{login}\"");
            NotIn::Other(Fault::new(Kind::Authentication, message).caused_by(error))
        }
        18486 => fault(
            Kind::LockedOut,
            format!("the login \"{login}\" is locked in {place}"),
            "wait until the lock-out has ended, or let an admin reset it with `unlock = true`",
        ),
        18487 => {
            let message = format!("the password of \"{login}\" has expired in {place}");
            let fault = Fault::new(Kind::Permission, message).caused_by(error).hint(admin);
            NotIn::Right(CredentialState::Expired, fault)
        }
        18488 => {
            let message = format!("the password of \"{login}\" must be changed at the next log-in to {place}");
            let fault = Fault::new(Kind::Permission, message).caused_by(error).hint(admin);
            NotIn::Right(CredentialState::MustChange, fault)
        }
        18470 => fault(
            Kind::Permission,
            format!("the login \"{login}\" is disabled in {place}"),
            "enable it (ALTER LOGIN … ENABLE): its password cannot be proven before",
        ),
        4060 | 4062 | 4063 | 4064 | 18461 => fault(
            Kind::Permission,
            format!("\"{login}\" may not use its database in {place}"),
            "name one that it may use as `db`; the cause says which it was",
        ),
        18452 | 18458..=18460 => fault(
            Kind::Unsupported,
            format!("{place} takes no such log-in"),
            "set the server to mixed authentication, or rotate the Windows account with the plugin adpasswd",
        ),
        10928 | 10929 | 40501 | 40613 | 49918..=49920 | 17809 | 18451 => {
            fault(Kind::RateLimited, format!("{place} is busy"), "try again later")
        }
        40615 | 40914 => fault(
            Kind::Permission,
            format!("{place} lets nobody in from here"),
            "add this machine to the server's firewall rules",
        ),
        _ => fault(Kind::Unsupported, format!("{place} did not let \"{login}\" in"), "the cause says why"),
    }
}

/// A connection that could not be made, before any log-in.
pub(crate) fn of_connection(account: &Account, error: &io::Error) -> Fault {
    let place = account.place();
    let is_tls = error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
    match error.kind() {
        _ if is_tls => Fault::new(Kind::Tls, format!("no trusted TLS connection to {place}"))
            .hint("give the record the server's authority as `ca`, or its certificate's name as `server_name`"),
        io::ErrorKind::Unsupported => Fault::new(Kind::Tls, format!("{place} offers no TLS"))
            .hint("SQL Server makes itself a certificate when it has none: check what answers at this port"),
        io::ErrorKind::InvalidData => Fault::new(Kind::Unsupported, format!("{place} does not answer like SQL Server"))
            .hint("check host and port"),
        _ => Fault::new(Kind::Unreachable, format!("{place} could not be reached")),
    }
    .caused_by(error)
}

/// A change that was refused, or that got no answer.
pub(crate) fn of_change(account: &Account, worker: &WorkingSet<'_>, error: &Error) -> Fault {
    let (login, by) = (&account.login, worker.login);
    let Error::Server(token) = error else {
        let message = format!("changing the password of \"{login}\" did not end with an answer");
        return Fault::new(Kind::Unreachable, message).caused_by(error);
    };
    let (kind, message, hint) = match token.code() {
        15113 => (Kind::LockedOut, format!("the login \"{login}\" is locked"), "set `unlock = true`"),
        15114..=15119 => {
            (Kind::Policy, format!("the server refuses this password for \"{login}\""), "the cause names the rule")
        }
        15122 | 15128 | 15129 => (
            Kind::InvalidInput,
            format!("the policy of \"{login}\" does not allow this"),
            "`must_change` needs a login with CHECK_POLICY and CHECK_EXPIRATION",
        ),
        15151 | 15247 | 5011 | 15007 | 15023 if worker.is_admin => (
            Kind::Permission,
            format!("there is no \"{login}\", or \"{by}\" may not change it"),
            "grant the admin ALTER ANY LOGIN, and CONTROL SERVER for a login that has it; or correct the login",
        ),
        15151 | 15247 | 5011 | 15007 | 15023 => (
            Kind::Permission,
            format!("\"{by}\" may not change its own password"),
            "name an admin record with ALTER ANY LOGIN",
        ),
        code if DEFINITE_REFUSALS.contains(&code) => {
            (Kind::Unsupported, format!("the server does not take this change of \"{login}\""), "the cause says why")
        }
        _ => (
            Kind::Unreachable,
            format!("changing the password of \"{login}\" did not end with an answer that says whether it was made"),
            "",
        ),
    };
    let fault = Fault::new(kind, message).caused_by(error);
    if hint.is_empty() { fault } else { fault.hint(hint) }
}
