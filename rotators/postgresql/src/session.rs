//! One log-in, which the server must really have asked a password for.

use std::error::Error as _;
use std::io;
use std::num::NonZeroU32;
#[cfg(unix)]
use std::path::Path;
use std::time::Duration;

use rustls::NamedGroup;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_postgres::config::{ChannelBinding, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage, SimpleQueryRow};
use tokio_postgres_rustls::MakeRustlsConnect;
use turnlock_kit::tls::{Effective, Mode};
use turnlock_kit::{Fault, Kind, Secret};

use crate::Account;
use crate::verifier::Encryption;

const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// A connection that is logged in.
pub(crate) struct Session {
    client: Client,
    /// How the connection is protected, for people.
    pub(crate) tls: Option<String>,
    /// How often SCRAM hashes this log-in's next password, where the greeting
    /// says so of a log-in that SCRAM has proven.
    pub(crate) iterations: Option<NonZeroU32>,
}

/// What is read about the role before anything changes.
pub(crate) struct Role {
    pub(crate) server_version: String,
    pub(crate) encryption: Encryption,
    pub(crate) read_only: bool,
    pub(crate) may_change: bool,
    pub(crate) valid_until: Option<String>,
    pub(crate) expired: bool,
    /// What `valid_days` comes to by the server's clock.
    pub(crate) new_valid_until: Option<String>,
}

impl Session {
    /// Logs in.
    ///
    /// A server that lets anybody in (`trust`, `peer`) must never count as
    /// having accepted a secret. SCRAM with channel binding proves that it was
    /// asked for; where that is not to be had, a connection without any
    /// password tells.
    pub(crate) async fn open(account: &Account, login: &str, password: &Secret) -> Result<Self, Fault> {
        let databases = match &account.db {
            Some(db) => vec![db.as_str()],
            None => vec!["postgres", login],
        };
        let mut last = None;
        for database in databases {
            match Self::open_database(account, login, password, database).await {
                Err(Failure::Database(fault)) => last = Some(fault),
                Err(Failure::Other(fault)) => return Err(fault),
                Ok(session) => return Ok(session),
            }
        }
        Err(last.unwrap_or_else(|| Fault::new(Kind::Internal, "no database to try")))
    }

    async fn open_database(account: &Account, login: &str, password: &Secret, database: &str) -> Result<Self, Failure> {
        let config = |binding, with_password| {
            let mut config = Config::new();
            config.user(login).dbname(database).application_name("turnlock").channel_binding(binding);
            if with_password {
                #[expect(clippy::disallowed_methods, reason = "the driver proves it to the server")]
                config.password(password.expose());
            }
            config
        };
        let describe = |error: tokio_postgres::Error| failure(account, login, database, &error);

        match connect(account, config(ChannelBinding::Require, true)).await? {
            Ok(session) => return Ok(session),
            Err(error) if says_more_than_unbound(&error) => return Err(describe(error)),
            Err(_) => {}
        }
        match connect(account, config(ChannelBinding::Prefer, false)).await? {
            Ok(_) => Err(Failure::Other(
                Fault::new(
                    Kind::Unsupported,
                    format!("the server lets \"{login}\" in without asking for a password"),
                )
                .hint("a pg_hba.conf line with trust, peer or cert matches this log-in: nothing can be proven through it"),
            )),
            Err(error) if says_more_than_unbound(&error) => Err(describe(error)),
            Err(_) => connect(account, config(ChannelBinding::Prefer, true)).await?.map_err(describe),
        }
    }

    /// Reads what decides the statement, in one round trip.
    pub(crate) async fn role(&self, role: &str, by_admin: bool, valid_days: Option<u32>) -> Result<Role, Fault> {
        let query = format!(
            "SELECT current_setting('server_version'), current_setting('password_encryption'), \
             current_setting('scram_iterations', true), pg_is_in_recovery(), \
             r.rolvaliduntil, r.rolvaliduntil < now(), \
             (SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user), \
             now() + make_interval(days => {}) \
             FROM (SELECT 1) one LEFT JOIN pg_roles r ON r.rolname = {}",
            valid_days.unwrap_or(0),
            postgres_protocol::escape::escape_literal(role),
        );
        let unreadable = || Fault::new(Kind::Unsupported, "the server does not answer like PostgreSQL");
        let messages = self.client.simple_query(&query).await.map_err(|error| {
            Fault::new(Kind::Unreachable, format!("role \"{role}\" could not be looked up")).caused_by(&error)
        })?;
        let row = messages
            .iter()
            .find_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(row),
                _ => None,
            })
            .ok_or_else(unreadable)?;
        let text = |column: usize| column_of(row, column);
        let is_true = |column: usize| text(column) == Some("t");
        let iterations = text(2).and_then(|count| count.parse().ok()).and_then(NonZeroU32::new);
        Ok(Role {
            server_version: text(0).ok_or_else(unreadable)?.to_owned(),
            encryption: match text(1) {
                Some("md5" | "on") => Encryption::Md5,
                _ => Encryption::Scram(iterations.unwrap_or(Encryption::DEFAULT_ITERATIONS)),
            },
            read_only: is_true(3),
            may_change: !by_admin || is_true(6),
            valid_until: text(4).filter(|until| *until != "infinity").map(str::to_owned),
            expired: is_true(5),
            new_valid_until: valid_days.and(text(7)).map(str::to_owned),
        })
    }

    /// Sends one statement, once.
    pub(crate) async fn execute(&self, statement: &str) -> Result<(), tokio_postgres::Error> {
        self.client.batch_execute(statement).await
    }
}

/// Why a log-in failed.
enum Failure {
    /// This database cannot be connected to; another may.
    Database(Fault),
    /// Anything else.
    Other(Fault),
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Other(fault)
    }
}

type Attempt = Result<Session, tokio_postgres::Error>;

/// Connects as the account's TLS policy wants it. The outer error is a server
/// that cannot be reached, or a policy that cannot be followed at all.
///
/// The driver's own `connect` would show the password to every address of the
/// host in turn, each time as a failed log-in. Here it is shown once.
async fn connect(account: &Account, mut config: Config) -> Result<Attempt, Fault> {
    if let Some(directory) = &account.unix_socket {
        let stream =
            within(open_socket(directory, account.port)).await.map_err(|error| unreachable(account, &error))?;
        return Ok(log_in(config.ssl_mode(SslMode::Disable), stream, NoTls, None).await);
    }
    let effective = account.tls.effective(&account.host);
    let tls = match effective.mode() {
        Some(mode) => Some(tls_for(account, mode)?),
        None => None,
    };
    let stream = within(TcpStream::connect((account.host.as_str(), account.port)))
        .await
        .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
        .map_err(|error| unreachable(account, &error))?;
    config.ssl_mode(match effective {
        Effective::Tls(_) => SslMode::Require,
        Effective::Opportunistic => SslMode::Prefer,
        Effective::Clear => SslMode::Disable,
    });
    Ok(match tls {
        Some(tls) => log_in(&config, stream, tls, Some(format!("TLS, {}", effective.believed()))).await,
        None => log_in(&config, stream, NoTls, None).await,
    })
}

fn tls_for(
    account: &Account,
    mode: Mode,
) -> Result<<MakeRustlsConnect as MakeTlsConnect<TcpStream>>::TlsConnect, Fault> {
    let name = account.tls.server_name.as_deref().unwrap_or(&account.host);
    let mut tls = MakeRustlsConnect::new(account.tls.client_config_with(mode, cryptography())?);
    MakeTlsConnect::<TcpStream>::make_tls_connect(&mut tls, name)
        .map_err(|_| Fault::new(Kind::InvalidInput, format!("\"{name}\" cannot be the name in a certificate")))
}

/// Offers a key on P-256 first: until version 18 a server takes no other curve
/// unless it was told to (`ssl_ecdh_curve`), and asks once more.
fn cryptography() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups.sort_by_key(|group| group.name() != NamedGroup::secp256r1);
    provider
}

async fn log_in<S, T>(config: &Config, stream: S, tls: T, believed: Option<String>) -> Attempt
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: TlsConnect<S>,
    T::Stream: Send + 'static,
{
    let (client, connection) = config.connect_raw(stream, tls).await?;
    let is_proven = config.get_channel_binding() == ChannelBinding::Require;
    let iterations = is_proven.then(|| greeted_iterations(|name| connection.parameter(name))).flatten();
    tokio::spawn(connection);
    Ok(Session { client, tls: believed, iterations })
}

/// The count that a server reports to every client from version 16 on
/// (PostgreSQL manual, "Asynchronous Operations"); before, there was only one.
fn greeted_iterations<'a>(parameter: impl Fn(&str) -> Option<&'a str>) -> Option<NonZeroU32> {
    if let Some(count) = parameter("scram_iterations") {
        return count.parse().ok();
    }
    let version: u32 = parameter("server_version")?.split('.').next()?.parse().ok()?;
    (10..16).contains(&version).then_some(Encryption::DEFAULT_ITERATIONS)
}

async fn within<T>(connecting: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(CONNECT_WITHIN, connecting).await {
        Ok(connected) => connected,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

#[cfg(unix)]
async fn open_socket(directory: &str, port: u16) -> io::Result<tokio::net::UnixStream> {
    tokio::net::UnixStream::connect(Path::new(directory).join(format!(".s.PGSQL.{port}"))).await
}

#[cfg(not(unix))]
async fn open_socket(_directory: &str, _port: u16) -> io::Result<TcpStream> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "there are no Unix sockets on this system"))
}

fn place(account: &Account) -> String {
    match &account.unix_socket {
        Some(directory) => directory.clone(),
        None => format!("{}:{}", account.host, account.port),
    }
}

fn unreachable(account: &Account, error: &io::Error) -> Fault {
    Fault::new(Kind::Unreachable, format!("{} could not be reached", place(account))).caused_by(error)
}

/// Whether an error is an answer of the server or the network, and not only
/// the driver's own "no channel binding" or "no password given".
fn says_more_than_unbound(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some() || error.is_closed() || io_cause(error).is_some()
}

fn io_cause(error: &tokio_postgres::Error) -> Option<&std::io::Error> {
    let mut next = error.source();
    while let Some(cause) = next {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            return Some(io);
        }
        next = cause.source();
    }
    None
}

fn is_tls(error: &tokio_postgres::Error) -> bool {
    // An I/O error that carries an error of rustls is a failed handshake.
    io_cause(error).and_then(std::io::Error::get_ref).is_some_and(|inner| inner.is::<rustls::Error>())
        || error.to_string().contains("TLS")
}

/// A failed log-in as a fault.
fn failure(account: &Account, login: &str, database: &str, error: &tokio_postgres::Error) -> Failure {
    let server = place(account);
    let fault = |kind, message: String| Fault::new(kind, message).caused_by(error);
    let Some(answer) = error.as_db_error() else {
        if is_tls(error) {
            return Failure::Other(
                fault(Kind::Tls, format!("no trusted TLS connection to {server}"))
                    .hint("give the record the server's authority as `ca`, or its certificate's name as `server_name`"),
            );
        }
        return Failure::Other(fault(Kind::Unreachable, format!("{server} could not be reached")));
    };
    let code = answer.code();
    if *code == SqlState::INVALID_CATALOG_NAME || *code == SqlState::INSUFFICIENT_PRIVILEGE {
        return Failure::Database(
            fault(Kind::NotFound, format!("\"{login}\" cannot connect to database \"{database}\" on {server}"))
                .hint("name a database it may connect to as `db`"),
        );
    }
    Failure::Other(if *code == SqlState::INVALID_PASSWORD {
        fault(Kind::Authentication, format!("{server} refused the password of \"{login}\""))
    } else if *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION {
        fault(Kind::Permission, format!("{server} does not let \"{login}\" log in from here"))
            .hint("check LOGIN of the role and pg_hba.conf for this client, database and TLS")
    } else if *code == SqlState::TOO_MANY_CONNECTIONS {
        fault(Kind::RateLimited, format!("{server} has no connection left for \"{login}\""))
    } else {
        fault(Kind::Unreachable, format!("{server} did not let \"{login}\" in"))
    })
}

fn column_of(row: &SimpleQueryRow, column: usize) -> Option<&str> {
    row.try_get(column).ok().flatten()
}

/// A role's name as an SQL identifier.
pub(crate) fn quoted(role: &str) -> Result<String, Fault> {
    if role.contains('\0') {
        return Err(Fault::new(Kind::InvalidInput, "a role's name cannot hold a NUL character"));
    }
    Ok(postgres_protocol::escape::escape_identifier(role))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greeting_tells_the_count_or_that_it_must_be_asked() {
        let told = |version, count| {
            let greeting = [("server_version", version), ("scram_iterations", count)];
            greeted_iterations(|name| greeting.iter().find(|(key, _)| *key == name).and_then(|(_, value)| *value))
                .map(NonZeroU32::get)
        };
        assert_eq!(told(Some("17.2 (Debian 17.2-1)"), Some("10000")), Some(10_000));
        assert_eq!(told(Some("15.14 (Debian 15.14-0+deb12u1)"), None), Some(4096));
        for (version, count) in [(Some("17.2"), None), (Some("16beta1"), None), (None, None), (Some("18"), Some("0"))] {
            assert_eq!(told(version, count), None, "{version:?}");
        }
    }
}
