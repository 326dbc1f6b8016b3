//! Rotates the password of a MySQL or MariaDB account: its own, or with
//! `admin` another's, in one row or in every row of that name. The account's
//! method of authentication stays what it is.

mod accounts;
mod change;
mod refusal;
mod session;
mod statement;
mod verifier;
mod wire;

use schemars::JsonSchema;
use serde::Deserialize;
use turnlock_kit::tls::Tls;
use turnlock_kit::{
    Admin, Change, Credential, CredentialState, Done, Fault, Findings, Finished, Kind, MayRotate, Overlap,
    PasswordLimits, Rotator, Threshold, Traits, Verdicts, WorkingSet,
};

use session::{NotIn, Session};

/// The password of a MySQL or MariaDB account.
#[derive(Debug)]
pub struct Mysql;

/// Where the server is, and which account.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Account {
    /// Host name or address.
    #[serde(default = "localhost")]
    pub host: String,
    /// TCP port.
    #[serde(default = "default_port")]
    pub port: u16,
    /// The account's user name.
    pub login: String,
    /// The host part of the account (`'login'@'user_host'`), needed with `admin` where the login has several rows.
    #[serde(default)]
    pub user_host: Option<String>,
    /// With `admin`: every row of the login gets the new password.
    #[serde(default)]
    pub all_hosts: bool,
    /// MySQL 8.0.14 and later: the old password stays valid until the rotation is finished.
    #[serde(default)]
    pub dual_password: bool,
    /// Database to name when connecting; none unless told.
    #[serde(default)]
    pub db: Option<String>,
    /// The server's Unix socket, instead of host and port.
    #[serde(default)]
    pub unix_socket: Option<String>,
    /// How the server is believed.
    #[serde(flatten)]
    pub tls: Tls,
}

fn localhost() -> String {
    "localhost".to_owned()
}

fn default_port() -> u16 {
    3306
}

impl Account {
    /// Where the server is, for people.
    pub(crate) fn place(&self) -> String {
        match &self.unix_socket {
            Some(path) => path.clone(),
            None => format!("{}:{}", self.host, self.port),
        }
    }
}

impl Rotator for Mysql {
    type Account = Account;
    const PLUGIN: &'static str = "mysql";
    const SUMMARY: &'static str = "Rotates the password of a MySQL or MariaDB account.";
    const EXAMPLE_ACCOUNT: &'static str = r#"{"host": "db1.example.com", "login": "app", "ca": "/etc/ssl/db-ca.pem"}"#;
    const DEFAULT_PORT: Option<u16> = Some(3306);
    const URL_SCHEMES: &'static [&'static str] = &["mysql", "mariadb"];

    fn traits(account: Option<&Account>) -> Traits {
        let dual = account.is_none_or(|account| account.dual_password);
        Traits {
            overlap: if dual { Overlap::Both } else { Overlap::None },
            finish: dual,
            // caching_sha2_password takes 256 bytes.
            password: PasswordLimits { min_length: Some(1), max_length: Some(255), ..PasswordLimits::default() },
            ..Traits::password()
        }
    }

    async fn check(account: &Account, current: &Credential, admin: Option<&Admin>) -> Result<Findings, Fault> {
        let worker = WorkingSet::choose(&account.login, current, admin)?;
        let mut session = Session::open(account, worker.login, worker.password).await?;
        let whose = accounts::whose(&mut session, account, worker.is_admin).await?;
        let mut findings = account.tls.findings();
        findings.extend(change::findings(&mut session, account, &whose).await);
        Ok(Findings {
            server: Some(session.server.text.clone()),
            tls: session.tls.clone(),
            authenticated: true,
            may_rotate: if findings.iter().any(change::forbids) {
                MayRotate::No
            } else {
                session.may_change(account, worker.is_admin).await
            },
            findings,
        })
    }

    async fn apply(account: &Account, change: &Change, threshold: Threshold) -> Result<Done, Fault> {
        let worker = WorkingSet::choose(&account.login, &change.current, change.admin.as_ref())?;
        let next = change.next_password()?;
        let mut session = Session::open(account, worker.login, worker.password).await?;
        let whose = accounts::whose(&mut session, account, worker.is_admin).await?;
        let statements = change::statements(&mut session, account, &whose, next, worker.password).await?;

        let crossed = threshold.cross().await?;
        let mut changed = 0;
        for statement in &statements {
            let Err(trouble) = session.execute(statement).await else {
                changed += 1;
                continue;
            };
            let definite =
                changed == 0 && trouble.code().is_some_and(|code| refusal::DEFINITE_REFUSALS.contains(&code));
            let mut fault = refusal::of_change(account, worker.login, &trouble);
            if changed > 0 {
                fault.message = format!("{} (rows changed before: {})", fault.message, change::first(&whose, changed));
            }
            if !definite {
                return Err(fault);
            }
            let fault = crossed.definitely_refused(fault);
            return Err(change::with_the_servers_rules(&mut session, fault).await);
        }
        Ok(crossed.done())
    }

    async fn verify(account: &Account, credential: &Credential, _admin: Option<&Admin>) -> Result<Verdicts, Fault> {
        let own = WorkingSet::choose(&account.login, credential, None)?;
        match Session::open(account, own.login, own.password).await {
            Ok(session) if session.own.is_none() => Ok(Verdicts::accepted_but(CredentialState::Expired)),
            Ok(_) => Ok(Verdicts::accepted()),
            Err(NotIn::Expired(_)) => Ok(Verdicts::accepted_but(CredentialState::Expired)),
            Err(NotIn::Other(fault)) if fault.kind == Kind::Authentication => Ok(Verdicts::refused()),
            Err(NotIn::Other(fault)) => Err(fault),
        }
    }

    async fn finish(
        account: &Account,
        current: &Credential,
        _previous: &Credential,
        admin: Option<&Admin>,
        threshold: Threshold,
    ) -> Result<Finished, Fault> {
        if !account.dual_password {
            return Ok(Finished::default());
        }
        let worker = WorkingSet::choose(&account.login, current, admin)?;
        let mut session = Session::open(account, worker.login, worker.password).await?;
        let whose = accounts::whose(&mut session, account, worker.is_admin).await?;
        let statement = statement::discard(session.quoting(), &whose)?;

        let crossed = threshold.cross().await?;
        match session.execute(&statement).await {
            Ok(_) => Ok(Finished {
                removed: vec![format!("the retained password of \"{}\"", account.login)],
                ..Finished::default()
            }),
            Err(trouble) => {
                let fault = refusal::of_change(account, worker.login, &trouble);
                let definite = trouble.code().is_some_and(|code| refusal::DEFINITE_REFUSALS.contains(&code));
                Err(if definite { crossed.definitely_refused(fault) } else { fault })
            }
        }
    }
}
