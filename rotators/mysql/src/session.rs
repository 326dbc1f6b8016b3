//! One log-in, which the server must really have asked a password for.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use turnlock_kit::tls::Effective;
use turnlock_kit::{Fault, Kind, Secret};

use crate::Account;
use crate::accounts::Description;
use crate::refusal::{self, code};
use crate::statement::{AccountRow, Quoting, Server};
use crate::wire::{Login, Privacy, Row, Transport, Trouble, Wire};

const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// A connection that is logged in.
pub(crate) struct Session {
    wire: Wire,
    /// MySQL or MariaDB, and which.
    pub(crate) server: Server,
    /// The row that this log-in matched; nothing can be asked while the
    /// password is expired.
    pub(crate) own: Option<AccountRow>,
    /// Whether the server takes no changes from ordinary accounts.
    pub(crate) read_only: bool,
    /// How the connection is protected, for people.
    pub(crate) tls: Option<String>,
    surely_utf8: bool,
}

/// Why a log-in failed.
pub(crate) enum NotIn {
    /// The password is right, but expired, and the server ends the connection.
    Expired(Fault),
    /// Anything else.
    Other(Fault),
}

impl From<NotIn> for Fault {
    fn from(not_in: NotIn) -> Self {
        match not_in {
            NotIn::Expired(fault) | NotIn::Other(fault) => fault,
        }
    }
}

impl From<Fault> for NotIn {
    fn from(fault: Fault) -> Self {
        Self::Other(fault)
    }
}

impl Session {
    /// Logs in, and learns what decides the statements.
    pub(crate) async fn open(account: &Account, login: &str, password: &Secret) -> Result<Self, NotIn> {
        let connecting = async {
            let (stream, privacy, believed) = connect(account).await?;
            #[expect(clippy::disallowed_methods, reason = "it is proven to the server that the account names")]
            let terms = Login { user: login, password: password.expose(), db: account.db.as_deref() };
            if terms.password.is_empty() {
                return Err(NotIn::Other(
                    Fault::new(Kind::InvalidInput, format!("the password of \"{login}\" is empty"))
                        .hint("a server that takes an empty password proves nothing: give the account one first"),
                ));
            }
            match Wire::log_in(stream, privacy, &terms).await {
                Ok(wire) => Ok((wire, believed)),
                Err(trouble) if trouble.code() == Some(code::MUST_CHANGE_PASSWORD_LOGIN) => {
                    Err(NotIn::Expired(refusal::of_log_in(account, login, &trouble)))
                }
                Err(trouble) => Err(refusal::of_log_in(account, login, &trouble).into()),
            }
        };
        let (wire, believed) = tokio::time::timeout(CONNECT_WITHIN, connecting)
            .await
            .map_err(|_| Fault::new(Kind::Unreachable, format!("{} did not answer within 10 s", account.place())))??;
        let tls = wire.tls.map(|version| format!("{version}, {believed}"));
        let server = Server::named(&wire.server_version);
        let mut session = Self { wire, server, own: None, read_only: false, tls, surely_utf8: false };
        session.settle(account, login).await?;
        Ok(session)
    }

    /// Makes literals unambiguous, and learns who we are. While the password
    /// is expired both may be refused, which changes nothing: the log-in has
    /// told already how the server reads backslashes.
    async fn settle(&mut self, account: &Account, login: &str) -> Result<(), Fault> {
        let lost = |trouble: &Trouble| {
            Fault::new(Kind::Unreachable, format!("{} ended the session of \"{login}\"", account.place()))
                .caused_by(trouble)
        };
        match self.execute("SET NAMES utf8mb4, SESSION sql_mode = 'NO_BACKSLASH_ESCAPES'").await {
            Ok(_) => self.surely_utf8 = true,
            Err(trouble) if trouble.code() == Some(code::MUST_CHANGE_PASSWORD) => {}
            Err(trouble) => return Err(lost(&trouble)),
        }
        let rows = match self.execute("SELECT CURRENT_USER(), @@GLOBAL.read_only").await {
            Ok(rows) => rows,
            Err(trouble) if trouble.code() == Some(code::MUST_CHANGE_PASSWORD) => {
                return self.was_asked(account, login).await;
            }
            Err(trouble) => return Err(lost(&trouble)),
        };
        let mut columns = rows.into_iter().flatten().flatten();
        let own = columns.next().unwrap_or_default();
        let (user, host) = own.rsplit_once('@').unwrap_or_default();
        self.own = Some(AccountRow { user: user.to_owned(), host: host.to_owned() });
        self.read_only = columns.next().is_some_and(|value| value != "0");
        self.was_asked(account, login).await
    }

    /// A log-in only counts where the server asked this account for its
    /// password. It did not under `skip-grant-tables`, and perhaps not where
    /// the operating system vouches for us on a socket. An account without a
    /// password refuses one, so that needs no look.
    async fn was_asked(&mut self, account: &Account, login: &str) -> Result<(), Fault> {
        if let Some(own) = self.own.as_ref().filter(|own| own.user != login) {
            return Err(Fault::new(
                Kind::Unsupported,
                format!("the server took \"{login}\" for {own}"),
            )
            .hint("it runs without grant tables, or an anonymous or proxied account matches first: a log-in proves nothing there"));
        }
        if account.unix_socket.is_none() {
            return Ok(());
        }
        let own = self.own.clone();
        let asked = match own {
            Some(own) => self.describe(&own).await.is_some_and(|description| !description.trusts_the_system()),
            None => false,
        };
        if asked {
            return Ok(());
        }
        Err(Fault::new(
            Kind::Unsupported,
            format!("on its socket the server may let \"{login}\" in without its password"),
        )
        .hint("leave out `unix_socket` and name the server by `host`"))
    }

    /// How this server describes an account; nothing where we may not see it.
    pub(crate) async fn describe(&mut self, row: &AccountRow) -> Option<Description> {
        let whose = if self.own.as_ref() == Some(row) {
            "CURRENT_USER()".to_owned()
        } else {
            self.quoting().account(row).ok()?
        };
        let rows = self.execute(&format!("SHOW CREATE USER {whose}")).await.ok()?;
        let text = rows.into_iter().flatten().flatten().next()?;
        Some(Description::read(&text))
    }

    /// How literals are written here and now.
    pub(crate) fn quoting(&self) -> Quoting {
        Quoting {
            backslash_escapes: !self.surely_utf8 && !self.wire.no_backslash_escapes(),
            surely_utf8: self.surely_utf8,
        }
    }

    /// Sends one statement, once.
    pub(crate) async fn execute(&mut self, statement: &str) -> Result<Vec<Row>, Trouble> {
        self.wire.execute(statement).await
    }
}

type Connected = (Box<dyn Transport>, Privacy, &'static str);

/// Connects as the account's TLS policy wants it.
async fn connect(account: &Account) -> Result<Connected, Fault> {
    if let Some(path) = &account.unix_socket {
        return connect_socket(path).await;
    }
    let stream = TcpStream::connect((account.host.as_str(), account.port))
        .await
        .map_err(|error| unreachable_at(&account.place(), &error))?;
    // Without it every second packet waits for an acknowledgement.
    stream.set_nodelay(true).map_err(|error| unreachable_at(&account.place(), &error))?;
    let effective = account.tls.effective(&account.host);
    let Some(mode) = effective.mode() else {
        return Ok((Box::new(stream), Privacy::None, ""));
    };
    let required = effective != Effective::Opportunistic;
    let name = account.tls.server_name.as_ref().unwrap_or(&account.host);
    let name = match name.parse::<IpAddr>() {
        Ok(address) => ServerName::from(address),
        Err(_) => ServerName::try_from(name.clone()).map_err(|error| {
            Fault::new(Kind::InvalidInput, format!("\"{name}\" cannot be the name in a certificate")).caused_by(&error)
        })?,
    };
    let privacy = Privacy::Tls { config: Arc::new(account.tls.client_config(mode)?), name, required };
    Ok((Box::new(stream), privacy, effective.believed()))
}

#[cfg(unix)]
async fn connect_socket(path: &str) -> Result<Connected, Fault> {
    let stream = tokio::net::UnixStream::connect(path).await.map_err(|error| unreachable_at(path, &error))?;
    Ok((Box::new(stream), Privacy::Given, ""))
}

#[cfg(not(unix))]
async fn connect_socket(_path: &str) -> Result<Connected, Fault> {
    Err(Fault::new(Kind::Unsupported, "there are no Unix sockets on this system"))
}

fn unreachable_at(place: &str, error: &std::io::Error) -> Fault {
    Fault::new(Kind::Unreachable, format!("{place} could not be reached")).caused_by(error)
}
