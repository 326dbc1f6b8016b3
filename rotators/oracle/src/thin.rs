//! The pure driver, Oracle's own. It is young: what it cannot do it says by a
//! panic here and there.

use std::fs;
use std::time::Duration;

use oracledb::{Config, ErrorKind};
use tempfile::TempDir;
use turnlock_kit::Secret;

use crate::driver::{Connection, Failed, Why};
use crate::session::LogIn;

const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// How rustls begins to say that a server is not believed, or is none of TLS.
const OF_TLS: [&str; 4] =
    ["invalid peer certificate", "received fatal alert", "received corrupt message", "peer is incompatible"];

struct Thin {
    connection: oracledb::Connection,
    expires_soon: bool,
}

/// Logs in, with a new password if there is one.
pub(crate) fn log_in(log_in: &LogIn, new: Option<&Secret>) -> Result<Box<dyn Connection>, Failed> {
    #[expect(clippy::disallowed_methods, reason = "with it the driver prints every packet, a reset's too")]
    let shows_packets = std::env::var_os("RSO_DEBUG_PACKETS").is_some();
    if shows_packets {
        let cause = "RSO_DEBUG_PACKETS would show passwords: unset it".to_owned();
        return Err(Failed { why: Why::Input, cause });
    }
    let wallet = wallet(log_in)?;
    let mut config = Config::default()
        .set_transport_connect_timeout(Some(CONNECT_WITHIN))
        .set_driver_name("turnlock")
        .set_connect_string(&log_in.place.connect_string)
        .map_err(|error| failed(&error))?
        .set_user(&log_in.user);
    if let Some(directory) = wallet.as_ref().map(TempDir::path).or(log_in.wallet.as_deref()) {
        config = config.set_wallet_location(directory.to_string_lossy());
    }
    #[expect(clippy::disallowed_methods, reason = "the driver proves them to the server, encrypted")]
    {
        config = config.set_password(log_in.password.expose());
        if let Some(new) = new {
            config = config.set_new_password(new.expose());
        }
    }
    let connection = oracledb::connect(config).map_err(|error| failed(&error))?;
    let expires_soon = connection.last_warning().ok().flatten().is_some();
    Ok(Box::new(Thin { connection, expires_soon }))
}

/// The account's authorities where the driver looks for them. They are no secret.
fn wallet(log_in: &LogIn) -> Result<Option<TempDir>, Failed> {
    let Some(ca) = &log_in.ca else { return Ok(None) };
    let written = TempDir::new().and_then(|directory| {
        #[expect(clippy::disallowed_methods, reason = "nothing has to survive in it")]
        fs::write(directory.path().join("ewallet.pem"), ca)?;
        Ok(directory)
    });
    written.map(Some).map_err(|error| Failed { why: Why::Driver, cause: error.to_string() })
}

impl Connection for Thin {
    fn change_password(&mut self, _user: &str, old: &Secret, new: &Secret) -> Result<(), Failed> {
        #[expect(clippy::disallowed_methods, reason = "the driver encrypts them for the server")]
        self.connection.change_password(old.expose(), new.expose()).map_err(|error| failed(&error))
    }

    fn execute(&mut self, statement: &str) -> Result<(), Failed> {
        self.connection.execute(statement, &[]).map(drop).map_err(|error| failed(&error))
    }

    fn text(&mut self, query: &str, parameter: Option<&str>) -> Result<Option<String>, Failed> {
        let row = match parameter {
            Some(parameter) => self.connection.query_row(query, &[&parameter]),
            None => self.connection.query_row(query, &[]),
        };
        match row {
            Err(error) if matches!(error.kind(), ErrorKind::NoDataFound) => Ok(None),
            Err(error) => Err(failed(&error)),
            Ok(row) => row.get::<String>(0).map(Some).map_err(|error| failed(&error)),
        }
    }

    fn version(&mut self) -> Result<String, Failed> {
        self.connection.version().map(|version| version.to_string()).map_err(|error| failed(&error))
    }

    fn expires_soon(&self) -> bool {
        self.expires_soon
    }
}

/// What went wrong, in our words and the driver's.
pub(crate) fn failed(error: &oracledb::Error) -> Failed {
    let cause = error.to_string();
    let why = match error.kind() {
        ErrorKind::DbError(error) => Why::Database(u32::try_from(error.code()).unwrap_or_default()),
        ErrorKind::InvalidServiceName(..) => Why::Listener(12514),
        ErrorKind::InvalidSid(..) => Why::Listener(12505),
        ErrorKind::ListenerRefusedConnection(_, _, _, number) => {
            Why::Listener(number.to_string().parse().unwrap_or_default())
        }
        ErrorKind::TlsOperation | ErrorKind::PemFileOperation => Why::Tls,
        ErrorKind::StreamOperation if OF_TLS.iter().any(|words| cause.contains(words)) => Why::Tls,
        ErrorKind::InvalidConnectString(..)
        | ErrorKind::InvalidDescriptorNode(..)
        | ErrorKind::InvalidNetworkName(_)
        | ErrorKind::IfileCycleDetected(..)
        | ErrorKind::NoConfigDir
        | ErrorKind::NoCredentials
        | ErrorKind::TnsAliasNotFound(..)
        | ErrorKind::WalletPasswordMissingOrInvalid(..)
        | ErrorKind::WalletPrivateKeyInvalid(_)
        | ErrorKind::WalletUnreadable(_) => Why::Input,
        ErrorKind::StreamOperation | ErrorKind::DeadConnection | ErrorKind::NotConnected => Why::Connection,
        _ => Why::Driver,
    };
    Failed { why, cause }
}
