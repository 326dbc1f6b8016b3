//! What the servers' error numbers mean to a person, and which of them prove
//! that nothing changed.

use turnlock_kit::{Fault, Kind};

use crate::Account;
use crate::wire::Trouble;

/// Error numbers that decide the flow, by the servers' own names.
pub(crate) mod code {
    pub(crate) const ACCESS_DENIED: u16 = 1045;
    pub(crate) const MUST_CHANGE_PASSWORD: u16 = 1820;
    pub(crate) const MUST_CHANGE_PASSWORD_LOGIN: u16 = 1862;
}

/// The answers that prove a single changing statement changed nothing. Both
/// servers check names, rights and the password's policy before they write the
/// table of accounts, and MySQL 8 rolls a failed statement back as a whole
/// (MySQL manual, "Atomic Data Definition Statement Support"). Not on the list:
/// whatever may come after the write or from in between (1053 shutdown, 1317
/// interrupted, 1205 and 1213 locks, 1598 binary log, lost connections), and
/// every number a proxy makes up.
pub(crate) const DEFINITE_REFUSALS: &[u16] = &[
    1044, // no access to the database mysql
    1064, // not understood
    1131, // anonymous accounts may not change passwords
    1132, // needs rights on the table of accounts
    1133, // no such row
    1142, // no right to that table
    1227, // needs another privilege
    1290, // read-only, or no hashes under strict_password_validation
    1372, // not a hash of this method
    1396, // no such account
    1410, // no right to make accounts
    1524, // the method's plugin is not loaded
    1699, // the account does not authenticate by password
    1819, // the password policy
    1820, // change your password first
    1827, // not a hash of this method
    1836, // read-only mode
    3638, // the password history
    3878, // an empty password cannot be retained
    3891, // REPLACE names the wrong password
    3892, // REPLACE is missing
    3893, // REPLACE is for the own password only
    3894, // RETAIN needs the same method
    3895, // the current password cannot be retained
];

/// A failed log-in as a fault.
pub(crate) fn of_log_in(account: &Account, login: &str, trouble: &Trouble) -> Fault {
    let place = account.place();
    let fault = |kind, message: String| Fault::new(kind, message).caused_by(trouble);
    let (kind, message, hint) = match trouble {
        Trouble::Server { code, .. } => return answered(account, login, *code, trouble),
        Trouble::Connection(error) if is_tls(error) => (
            Kind::Tls,
            format!("no trusted TLS connection to {place}"),
            "give the record the server's authority as `ca`, or its certificate's name as `server_name`",
        ),
        Trouble::NoTls => (
            Kind::Tls,
            format!("{place} offers no TLS"),
            "set up TLS on the server; `tls = disable` gives up every protection of the new password",
        ),
        Trouble::Plugin(_) => (
            Kind::Unsupported,
            format!("{place} wants a log-in of \"{login}\" that is not spoken here"),
            "spoken are caching_sha2_password, sha256_password, mysql_native_password and ed25519",
        ),
        Trouble::Garbage(_) => {
            (Kind::Unsupported, format!("{place} does not answer like MySQL or MariaDB"), "check host and port")
        }
        Trouble::Connection(_) => {
            return fault(Kind::Unreachable, format!("{place} could not be reached"));
        }
    };
    fault(kind, message).hint(hint)
}

fn answered(account: &Account, login: &str, number: u16, trouble: &Trouble) -> Fault {
    let place = account.place();
    let (kind, message, hint) = match number {
        code::ACCESS_DENIED => (
            Kind::Authentication,
            format!("{place} refused the password of \"{login}\""),
            "the server says the same where no row matches this client's address, or the row wants TLS or a certificate",
        ),
        code::MUST_CHANGE_PASSWORD_LOGIN => (
            Kind::Permission,
            format!("the password of \"{login}\" has expired and {place} does not let it change itself"),
            "name an admin record that resets it",
        ),
        1698 => (
            Kind::Unsupported,
            format!("\"{login}\" does not log in by password on {place}"),
            "give the account a method of authentication with a password",
        ),
        1044 | 1049 => (
            Kind::NotFound,
            format!("\"{login}\" cannot use the database named as `db` on {place}"),
            "correct or leave out `db`",
        ),
        3118 | 3955 | 4150 | 4151 => (
            Kind::LockedOut,
            format!("\"{login}\" is locked on {place}"),
            "unlock it: ALTER USER … ACCOUNT UNLOCK; after too many wrong passwords MariaDB wants FLUSH PRIVILEGES",
        ),
        1130 => (
            Kind::Permission,
            format!("{place} lets nobody in from this client's address"),
            "an account whose host part matches this machine is needed",
        ),
        1129 => (
            Kind::RateLimited,
            format!("{place} blocks this machine after too many broken connections"),
            "FLUSH HOSTS on the server (mariadb-admin flush-hosts) ends it",
        ),
        1040 | 1203 | 1226 => (
            Kind::RateLimited,
            format!("{place} has no connection left for \"{login}\""),
            "try again later, or raise max_connections or the account's limit",
        ),
        3159 => (Kind::Tls, format!("{place} wants TLS"), "leave out `tls = disable`"),
        _ => (Kind::Unreachable, format!("{place} did not let \"{login}\" in"), "the cause says why"),
    };
    Fault::new(kind, message).caused_by(trouble).hint(hint)
}

/// A refused change as a fault.
pub(crate) fn of_change(account: &Account, by: &str, trouble: &Trouble) -> Fault {
    let login = &account.login;
    let (kind, message, hint) = match trouble.code() {
        Some(1044 | 1131 | 1132 | 1142 | 1227 | 1410) => (
            Kind::Permission,
            format!("\"{by}\" may not change the password of \"{login}\""),
            if by == login {
                "name an admin record; or, for dual passwords, GRANT APPLICATION_PASSWORD_ADMIN ON *.* TO the account"
            } else {
                "the admin needs UPDATE ON mysql.* on MariaDB, CREATE USER ON *.* on MySQL, and SYSTEM_USER there for an account that has it"
            },
        ),
        Some(1133 | 1396) => (
            Kind::NotFound,
            format!("the server has no such account \"{login}\""),
            "correct `user_host`, or leave it out where there is only one row",
        ),
        Some(1819 | 3638) => (
            Kind::Policy,
            format!("the server refuses this password for \"{login}\""),
            "shape the record's policy after the server's rules, see the causes",
        ),
        Some(1699 | 1524 | 3894 | 3895 | 3878) => (
            Kind::Unsupported,
            format!("the way \"{login}\" authenticates does not allow this change"),
            "see the cause, and the account's method in SHOW CREATE USER",
        ),
        Some(1290 | 1836) => (
            Kind::Unsupported,
            format!("the server {} takes no such change", account.place()),
            "name the primary server, not a replica",
        ),
        Some(3891) => (
            Kind::Conflict,
            format!("the password of \"{login}\" was changed by somebody else meanwhile"),
            "verify which password works now",
        ),
        _ => {
            return Fault::new(
                Kind::Unreachable,
                format!("changing the password of \"{login}\" did not end with an answer"),
            )
            .caused_by(trouble);
        }
    };
    Fault::new(kind, message).caused_by(trouble).hint(hint)
}

fn is_tls(error: &std::io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<tokio_rustls::rustls::Error>())
}
