//! One log-in, and what is asked in it.

use std::path::PathBuf;

use turnlock_kit::{Fault, Kind, NotIn, Secret};

use crate::driver::{Connection, Failed, Why, apart};
use crate::place::Place;
use crate::{Account, Driver, refusal, statement, thin};

/// What every driver needs for a log-in.
pub(crate) struct LogIn {
    pub(crate) place: Place,
    pub(crate) user: String,
    pub(crate) password: Secret,
    /// The authorities to trust, in PEM.
    pub(crate) ca: Option<String>,
    pub(crate) wallet: Option<PathBuf>,
    driver: Driver,
}

/// A connection that is logged in.
pub(crate) struct Session {
    connection: Option<Box<dyn Connection>>,
    pub(crate) place: Place,
    /// Whether the password expires soon.
    pub(crate) expires_soon: bool,
}

/// What the server tells before a change.
pub(crate) struct Facts {
    pub(crate) version: String,
    /// Whether whoever is logged in may change other users' passwords.
    pub(crate) may_reset: bool,
    /// In the dictionary's words; nothing where it may not be seen.
    pub(crate) status: Option<String>,
}

impl Session {
    /// Logs in.
    pub(crate) async fn open(account: &Account, login: &str, password: &Secret) -> Result<Self, NotIn> {
        let log_in = LogIn::at(account, login, password)?;
        let place = log_in.place.clone();
        log_in.make(None).await.map_err(|failed| refusal::of_log_in(&place, login, &failed))
    }

    /// Logs in with a password that has expired, and changes it by that.
    pub(crate) async fn open_with(account: &Account, password: &Secret, new: &Secret) -> Result<Self, Failed> {
        let log_in = LogIn::at(account, &account.login, password)
            .map_err(|fault| Failed { why: Why::Input, cause: fault.message })?;
        log_in.make(Some(new.duplicate())).await
    }

    /// Does something with the connection, on the driver's thread.
    async fn with<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut dyn Connection) -> Result<T, Failed> + Send + 'static,
    ) -> Result<T, Failed> {
        let Some(mut connection) = self.connection.take() else {
            return Err(Failed { why: Why::Connection, cause: "the connection is gone".to_owned() });
        };
        let (connection, result) = apart(move || {
            let result = work(connection.as_mut());
            Ok((connection, result))
        })
        .await?;
        self.connection = Some(connection);
        result
    }

    /// Reads what decides a change of `name`'s password.
    pub(crate) async fn facts(&mut self, name: String, is_admin: bool) -> Result<Facts, Fault> {
        let place = self.place.name.clone();
        let read = self.with(move |connection| {
            let version = connection.version()?;
            let right = "SELECT privilege FROM session_privs WHERE privilege = 'ALTER USER'";
            let may_reset = connection.text(right, None)?.is_some();
            let status = if is_admin {
                connection.text("SELECT account_status FROM dba_users WHERE username = :1", Some(&name))
            } else {
                connection.text("SELECT account_status FROM user_users", None)
            };
            // An admin that may reset passwords need not be able to see them all.
            let status = match status {
                Err(Failed { why: Why::Database(_), .. }) => None,
                Ok(None) => Some("none".to_owned()),
                status => status?,
            };
            Ok(Facts { version, may_reset, status })
        });
        read.await.map_err(|failed| {
            Fault::new(Kind::Unsupported, format!("{place} does not answer like Oracle Database")).caused_by(&failed)
        })
    }

    /// Changes the account's own password, once.
    pub(crate) async fn change(&mut self, user: &str, old: &Secret, new: &Secret) -> Result<(), Failed> {
        let (user, old, new) = (user.to_owned(), old.duplicate(), new.duplicate());
        self.with(move |connection| connection.change_password(&user, &old, &new)).await
    }

    /// Sets another's password, once.
    pub(crate) async fn reset(&mut self, name: &str, new: &Secret, unlock: bool) -> Result<(), Failed> {
        let statement = statement::reset(name, new, unlock);
        self.with(move |connection| connection.execute(&statement)).await
    }
}

impl Drop for Session {
    /// Says good-bye apart, for nobody knows whether the server still answers.
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            // Without a thread the connection is closed here.
            drop(std::thread::Builder::new().spawn(move || drop(connection)));
        }
    }
}

impl LogIn {
    pub(crate) fn at(account: &Account, login: &str, password: &Secret) -> Result<Self, Fault> {
        let name = statement::name(login)?;
        // In quotes only where it has to be: some servers take them for a part of the name.
        let user = if login.starts_with('"') { statement::quoted(&name).to_string() } else { name };
        let place = Place::of(account)?;
        Ok(Self {
            wallet: account.wallet.as_ref().or(place.wallet.as_ref()).map(PathBuf::from),
            place,
            user,
            password: password.duplicate(),
            ca: account.authorities()?,
            driver: account.driver,
        })
    }

    async fn make(self, new: Option<Secret>) -> Result<Session, Failed> {
        let place = self.place.clone();
        let connection = apart(move || match self.driver {
            Driver::Thin => thin::log_in(&self, new.as_ref()),
            #[cfg(feature = "thick")]
            Driver::Thick => crate::thick::log_in(&self, new.as_ref()),
            #[cfg(not(feature = "thick"))]
            Driver::Thick => Err(Failed { why: Why::Input, cause: "this program was built without it".to_owned() }),
        })
        .await?;
        let expires_soon = connection.expires_soon();
        Ok(Session { connection: Some(connection), place, expires_soon })
    }
}
