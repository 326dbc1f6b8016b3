//! Rotates the password of a SQL Server login, or of a contained database's
//! user: its own, or with `admin` another's.

mod refusal;
mod session;
mod statement;
mod tls;

use schemars::JsonSchema;
use serde::Deserialize;
use turnlock_kit::tls::Tls;
use turnlock_kit::{
    Admin, Change, Credential, Done, Fault, Finding, Findings, Kind, Lockout, MayRotate, NotIn, PasswordLimits,
    Rotator, Severity, Threshold, Traits, Verdicts, WorkingSet,
};

use session::Session;

/// The password of a SQL Server login.
#[derive(Debug)]
pub struct Mssql;

/// Where the server is, and which login.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
pub struct Account {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    #[serde(default = "default_port")]
    pub port: u16,
    /// A named instance, whose port the SQL Server Browser is asked for unless `port` is another than 1433.
    #[serde(default)]
    pub instance: Option<String>,
    /// The login whose password changes.
    pub login: String,
    /// Database to connect to; the login's own unless told.
    #[serde(default)]
    pub db: Option<String>,
    /// The user of a contained database (`ALTER USER`), which `db` then names.
    #[serde(default)]
    pub contained: bool,
    /// TLS from the first byte (TDS 8.0, `Encrypt=Strict`).
    #[serde(default)]
    pub strict: bool,
    /// With `admin`: the login's lock-out ends with the reset.
    #[serde(default)]
    pub unlock: bool,
    /// With `admin`: the new password has to be changed at the next log-in.
    #[serde(default)]
    pub must_change: bool,
    /// How failed log-ins are counted there.
    #[serde(flatten)]
    pub lockout: Lockout,
    /// How the server is believed.
    #[serde(flatten)]
    pub tls: Tls,
}

fn default_port() -> u16 {
    1433
}

impl Account {
    /// Where the server is, for people.
    pub(crate) fn place(&self) -> String {
        match self.instance_to_find() {
            Some(instance) => format!("{}\\{instance}", self.host),
            None => format!("{}:{}", self.host, self.port),
        }
    }

    /// The instance whose port is not known yet.
    pub(crate) fn instance_to_find(&self) -> Option<&str> {
        self.instance.as_deref().filter(|instance| !instance.is_empty() && self.port == default_port())
    }

    /// Whether such an account is spoken of at all.
    fn is_a_login(&self, login: &str) -> Result<(), Fault> {
        if login.contains('\\') {
            return Err(Fault::new(Kind::Unsupported, format!("\"{login}\" is a Windows account"))
                .hint("the plugin adpasswd rotates accounts of a domain, windows those of one machine"));
        }
        if self.contained && self.db.is_none() {
            return Err(Fault::new(Kind::InvalidInput, "a contained user has a database").hint("name it as `db`"));
        }
        Ok(())
    }

    /// What can be told without asking anybody.
    fn is_possible(&self, worker: &WorkingSet<'_>) -> Result<(), Fault> {
        self.is_a_login(worker.login)?;
        self.is_a_login(&self.login)?;
        let wanted = [(self.unlock, "unlock"), (self.must_change, "must_change")];
        match wanted.into_iter().find(|(wanted, _)| *wanted && (!worker.is_admin || self.contained)) {
            Some((_, name)) => {
                Err(Fault::new(Kind::InvalidInput, format!("`{name}` is for a login's reset by an admin"))
                    .hint(format!("name an admin record, or leave out `{name}`")))
            }
            None => Ok(()),
        }
    }
}

impl Rotator for Mssql {
    type Account = Account;
    const PLUGIN: &'static str = "mssql";
    const SUMMARY: &'static str = "Rotates the password of a SQL Server login.";
    const EXAMPLE_ACCOUNT: &'static str =
        r#"{"host": "sql1.example.com", "login": "app", "ca": "/etc/ssl/sql-ca.pem"}"#;
    const DEFAULT_PORT: Option<u16> = Some(1433);
    const URL_SCHEMES: &'static [&'static str] = &["mssql", "sqlserver"];

    fn traits(account: Option<&Account>) -> Traits {
        let max_length = u32::try_from(statement::LONGEST).ok();
        Traits {
            // A line break behind a backslash would vanish from a literal.
            password: PasswordLimits { min_length: Some(1), max_length, forbidden: "\0\r\n".to_owned() },
            ..account.map(|account| account.lockout).unwrap_or_default().traits()
        }
    }

    async fn check(account: &Account, current: &Credential, admin: Option<&Admin>) -> Result<Findings, Fault> {
        let worker = WorkingSet::choose(&account.login, current, admin)?;
        account.is_possible(&worker)?;
        let mut session = Session::open(account, worker.login, worker.password).await?;
        let facts = session.facts(account).await?;
        let mut findings = account.tls.findings();
        let mut find = |severity, message: String| findings.push(Finding { severity, message });
        if facts.is_locked && !account.unlock {
            find(Severity::Error, format!("the login \"{}\" is locked: set `unlock = true`", account.login));
        }
        if facts.is_expired {
            find(Severity::Warning, "the password has expired".to_owned());
        }
        if let Some(days) = facts.days_left.filter(|days| *days > 0) {
            find(Severity::Info, format!("the password expires in {days} days"));
        }
        if worker.is_admin && !facts.may_reset {
            let right = if account.contained { "ALTER ANY USER" } else { "ALTER ANY LOGIN" };
            find(Severity::Error, format!("\"{}\" has no {right}", worker.login));
        }
        let hopeless = findings.iter().any(|finding| finding.severity == Severity::Error);
        Ok(Findings {
            server: Some(format!("SQL Server {}", facts.version)),
            tls: Some(session.tls),
            authenticated: true,
            may_rotate: if hopeless { MayRotate::No } else { MayRotate::Yes },
            findings,
        })
    }

    async fn apply(account: &Account, change: &Change, threshold: Threshold) -> Result<Done, Fault> {
        let worker = WorkingSet::choose(&account.login, &change.current, change.admin.as_ref())?;
        account.is_possible(&worker)?;
        let next = change.next_password()?;
        let old = (!worker.is_admin).then_some(worker.password);
        let statement = statement::change(account, old, next)?;
        let mut session = Session::open(account, worker.login, worker.password).await?;

        let crossed = threshold.cross().await?;
        session.execute(&statement).await.map_err(|error| {
            let fault = refusal::of_change(account, &worker, &error);
            if refusal::is_definite(&error) { crossed.definitely_refused(fault) } else { fault }
        })?;
        Ok(crossed.done())
    }

    async fn verify(account: &Account, credential: &Credential, _admin: Option<&Admin>) -> Result<Verdicts, Fault> {
        let own = WorkingSet::choose(&account.login, credential, None)?;
        account.is_a_login(own.login)?;
        NotIn::verdict(Session::open(account, own.login, own.password).await.map(|_| None))
    }
}
