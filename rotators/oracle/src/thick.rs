//! Oracle's own client libraries, found when the program runs: what the pure
//! driver cannot do, they can.

use oracle::{Connector, ErrorKind};
use turnlock_kit::Secret;

use crate::driver::{Connection, Failed, Why};
use crate::session::LogIn;

/// ODPI-C's number for libraries that are not there.
const NO_LIBRARIES: i32 = 1047;
/// And for a log-in that went well but warns.
const EXPIRES_SOON: i32 = 28002;

struct Thick {
    connection: oracle::Connection,
    expires_soon: bool,
}

/// Logs in, with a new password if there is one.
pub(crate) fn log_in(log_in: &LogIn, new: Option<&Secret>) -> Result<Box<dyn Connection>, Failed> {
    if log_in.ca.is_some() {
        let cause = "Oracle's libraries take authorities from a wallet only: name it as `wallet` instead of `ca`";
        return Err(Failed { why: Why::Input, cause: cause.to_owned() });
    }
    #[expect(clippy::disallowed_methods, reason = "the libraries prove them to the server, encrypted")]
    let mut connector = Connector::new(&log_in.user, log_in.password.expose(), secured(log_in));
    if let Some(new) = new {
        #[expect(clippy::disallowed_methods, reason = "the libraries encrypt it for the server")]
        connector.new_password(new.expose());
    }
    let connection = connector.connect().map_err(|error| failed(&error))?;
    let expires_soon = connection.last_warning().is_some_and(|warning| warning.oci_code() == Some(EXPIRES_SOON));
    Ok(Box::new(Thick { connection, expires_soon }))
}

/// The descriptor, with the record's wallet.
fn secured(log_in: &LogIn) -> String {
    let mut descriptor = log_in.place.descriptor.clone();
    if let (Some(wallet), None) = (&log_in.wallet, &log_in.place.wallet) {
        let named = format!("(SECURITY=(MY_WALLET_DIRECTORY={})", wallet.display());
        descriptor = descriptor.replace("(SECURITY=", &named);
    }
    descriptor
}

impl Connection for Thick {
    fn change_password(&mut self, user: &str, old: &Secret, new: &Secret) -> Result<(), Failed> {
        #[expect(clippy::disallowed_methods, reason = "the libraries encrypt them for the server")]
        self.connection.change_password(user, old.expose(), new.expose()).map_err(|error| failed(&error))
    }

    fn execute(&mut self, statement: &str) -> Result<(), Failed> {
        self.connection.execute(statement, &[]).map(drop).map_err(|error| failed(&error))
    }

    fn text(&mut self, query: &str, parameter: Option<&str>) -> Result<Option<String>, Failed> {
        let row = match parameter {
            Some(parameter) => self.connection.query_row_as(query, &[&parameter]),
            None => self.connection.query_row_as(query, &[]),
        };
        match row {
            Err(error) if error.kind() == ErrorKind::NoDataFound => Ok(None),
            row => row.map(Some).map_err(|error| failed(&error)),
        }
    }

    fn version(&mut self) -> Result<String, Failed> {
        self.connection.server_version().map(|(version, _)| version.to_string()).map_err(|error| failed(&error))
    }

    fn expires_soon(&self) -> bool {
        self.expires_soon
    }
}

fn failed(error: &oracle::Error) -> Failed {
    let number = error.oci_code().and_then(|code| u32::try_from(code).ok());
    let (why, cause) = match (error.dpi_code(), number) {
        (Some(NO_LIBRARIES), _) => {
            let cause = format!(
                "Oracle Instant Client was not found: install its Basic or Basic Light package, \
                 and make its directory known by LD_LIBRARY_PATH or ldconfig ({error})"
            );
            (Why::Input, cause)
        }
        (_, Some(number)) => (of(number), error.to_string()),
        _ => (Why::Driver, error.to_string()),
    };
    Failed { why, cause }
}

/// Oracle Net's numbers are the libraries', all others the database's.
fn of(number: u32) -> Why {
    match number {
        12154 | 12504 | 12533 | 28759 => Why::Input,
        12505 | 12514 | 12516 | 12518..=12521 | 12526..=12528 => Why::Listener(number),
        28750..=28999 | 29024..=29040 | 29106 => Why::Tls,
        3113 | 3114 | 3135 | 12150..=12699 => Why::Connection,
        3136 => Why::Hung,
        _ => Why::Database(number),
    }
}
