//! One log-in, and the two things that are asked in it.

use std::net::IpAddr;
use std::time::Duration;

use rustls_pki_types::ServerName;
use tiberius::error::Error;
use tiberius::{AuthMethod, Client, Config, EncryptionLevel, SqlBrowser};
use tokio::io::DuplexStream;
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncWriteCompatExt};
use turnlock_kit::tls::Effective;
use turnlock_kit::{Fault, Kind, NotIn, Secret};

use crate::refusal;
use crate::{Account, statement, tls};

const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// A connection that is logged in.
pub(crate) struct Session {
    client: Client<Compat<DuplexStream>>,
    /// How the connection is protected, for people.
    pub(crate) tls: String,
}

/// What the server tells before a change.
pub(crate) struct Facts {
    pub(crate) version: String,
    pub(crate) may_reset: bool,
    pub(crate) is_locked: bool,
    pub(crate) is_expired: bool,
    pub(crate) days_left: Option<i64>,
}

impl Session {
    /// Logs in.
    pub(crate) async fn open(account: &Account, login: &str, password: &Secret) -> Result<Self, NotIn> {
        match Self::open_at(account, &account.host, account.port, login, password).await {
            // A gateway, as Azure has it, names the server behind it.
            Err(Failure::ElsewhereAt(host, port)) => match Self::open_at(account, &host, port, login, password).await {
                Err(Failure::ElsewhereAt(..)) => Err(NotIn::Other(Fault::new(
                    Kind::Unsupported,
                    format!("{} sends us from one server to the next", account.place()),
                ))),
                Err(Failure::NotIn(not_in)) => Err(not_in),
                Ok(session) => Ok(session),
            },
            Err(Failure::NotIn(not_in)) => Err(not_in),
            Ok(session) => Ok(session),
        }
    }

    async fn open_at(
        account: &Account,
        host: &str,
        port: u16,
        login: &str,
        password: &Secret,
    ) -> Result<Self, Failure> {
        let mut config = Config::new();
        config.host(host);
        config.port(port);
        config.application_name("turnlock");
        config.encryption(EncryptionLevel::NotSupported);
        if let Some(db) = &account.db {
            config.database(db);
        }
        let (stream, believed) = tokio::time::timeout(CONNECT_WITHIN, connect(account, host, port))
            .await
            .map_err(|_| Fault::new(Kind::Unreachable, format!("{} did not answer within 10 s", account.place())))??;
        #[expect(clippy::disallowed_methods, reason = "the driver proves it to the server, over TLS")]
        config.authentication(AuthMethod::sql_server(login, password.expose()));
        match Client::connect(config, stream.compat_write()).await {
            Ok(client) => Ok(Self { client, tls: format!("TLS, {believed}") }),
            Err(Error::Routing { host, port }) => Err(Failure::ElsewhereAt(host, port)),
            Err(error) => Err(Failure::NotIn(refusal::of_log_in(account, login, &error))),
        }
    }

    /// Reads what decides a change, in one round trip.
    pub(crate) async fn facts(&mut self, account: &Account) -> Result<Facts, Fault> {
        let unreadable = || Fault::new(Kind::Unsupported, "the server does not answer like SQL Server");
        let answer = async { self.client.simple_query(statement::facts(account)).await?.into_row().await };
        let row = answer.await.map_err(|error| unreadable().caused_by(&error))?.ok_or_else(unreadable)?;
        let text = |column: usize| row.try_get::<&str, _>(column).ok().flatten();
        Ok(Facts {
            version: text(0).ok_or_else(unreadable)?.to_owned(),
            may_reset: text(1) == Some("1"),
            is_locked: text(2) == Some("1"),
            is_expired: text(3) == Some("1"),
            days_left: text(4).and_then(|days| days.parse().ok()),
        })
    }

    /// Sends the one change, once.
    pub(crate) async fn execute(&mut self, statement: &str) -> Result<(), Error> {
        self.client.simple_query(statement).await?.into_results().await.map(drop)
    }
}

enum Failure {
    ElsewhereAt(String, u16),
    NotIn(NotIn),
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::NotIn(NotIn::Other(fault))
    }
}

/// Connects and believes the server. No secret is shown.
async fn connect(account: &Account, host: &str, port: u16) -> Result<(DuplexStream, &'static str), Fault> {
    let effective = account.tls.effective(host);
    let Some(mode) = effective.mode().filter(|_| effective != Effective::Clear) else {
        return Err(Fault::new(Kind::Tls, "SQL Server's log-in and statements carry passwords in clear")
            .hint("leave out `tls = disable`"));
    };
    let name = account.tls.server_name.as_deref().unwrap_or(host);
    let name = match name.parse::<IpAddr>() {
        Ok(address) => ServerName::from(address),
        Err(_) => ServerName::try_from(name.to_owned()).map_err(|error| {
            Fault::new(Kind::InvalidInput, format!("\"{name}\" cannot be the name in a certificate")).caused_by(&error)
        })?,
    };
    let config = account.tls.client_config(mode)?;
    let stream = match account.instance_to_find().filter(|_| port == account.port) {
        Some(instance) => named(account, host, instance).await?,
        None => TcpStream::connect((host, port)).await.map_err(|error| refusal::of_connection(account, &error))?,
    };
    let connecting = async {
        stream.set_nodelay(true)?;
        tls::secure(stream, config, name, account.strict).await
    };
    let stream = connecting.await.map_err(|error| refusal::of_connection(account, &error))?;
    Ok((stream, if effective == Effective::Opportunistic { "certificate not verified" } else { effective.believed() }))
}

/// Asks the SQL Server Browser for an instance's port (MC-SQLR).
async fn named(account: &Account, host: &str, instance: &str) -> Result<TcpStream, Fault> {
    let mut config = Config::new();
    config.host(host);
    config.instance_name(instance);
    TcpStream::connect_named(&config).await.map_err(|error| {
        Fault::new(Kind::Unreachable, format!("the instance \"{instance}\" of {} could not be found", account.host))
            .caused_by(&error)
            .hint("start the SQL Server Browser there and let UDP port 1434 through, or name the instance's `port`")
    })
}
