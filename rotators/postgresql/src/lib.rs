//! Rotates the password of a PostgreSQL role: its own, or with `admin`
//! another's. The server only ever gets a verifier, never the password, so no
//! statement log can hold it.

mod session;
mod verifier;

use schemars::JsonSchema;
use serde::Deserialize;
use tokio_postgres::error::SqlState;
use turnlock_kit::tls::Tls;
use turnlock_kit::{
    Admin, Change, Credential, Done, Fault, Finding, Findings, Kind, MayRotate, Rotator, Severity, Threshold, Traits,
    Verdicts, WorkingSet,
};

use session::{Session, quoted};
use verifier::Encryption;

/// The password of a PostgreSQL role.
#[derive(Debug)]
pub struct Postgresql;

/// Where the server is, and which role.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Account {
    /// Host name or address.
    #[serde(default = "localhost")]
    pub host: String,
    /// TCP port.
    #[serde(default = "default_port")]
    pub port: u16,
    /// The role whose password changes.
    pub login: String,
    /// Database to connect to; unless told `postgres`, then one named like the login.
    #[serde(default)]
    pub db: Option<String>,
    /// Directory of the server's Unix socket, instead of host.
    #[serde(default)]
    pub unix_socket: Option<String>,
    /// Days from now for which the new password is valid (`VALID UNTIL`); left as it is unless told.
    #[serde(default)]
    pub valid_days: Option<u32>,
    /// How the server is believed.
    #[serde(flatten)]
    pub tls: Tls,
}

fn localhost() -> String {
    "localhost".to_owned()
}

fn default_port() -> u16 {
    5432
}

impl Rotator for Postgresql {
    type Account = Account;
    const PLUGIN: &'static str = "postgresql";
    const SUMMARY: &'static str = "Rotates the password of a PostgreSQL role.";
    const EXAMPLE_ACCOUNT: &'static str = r#"{"host": "db1.example.com", "login": "app", "ca": "/etc/ssl/db-ca.pem"}"#;
    const DEFAULT_PORT: Option<u16> = Some(5432);
    const URL_SCHEMES: &'static [&'static str] = &["postgres", "postgresql"];

    fn traits(_account: Option<&Account>) -> Traits {
        Traits::password()
    }

    async fn check(account: &Account, current: &Credential, admin: Option<&Admin>) -> Result<Findings, Fault> {
        let worker = WorkingSet::choose(&account.login, current, admin)?;
        let session = Session::open(account, worker.login, worker.password).await?;
        let role = session.role(&account.login, worker.is_admin, None).await?;
        let mut findings = account.tls.findings();
        if let Some(until) = &role.valid_until {
            let (severity, what) =
                if role.expired { (Severity::Error, "expired at") } else { (Severity::Info, "is valid until") };
            findings.push(Finding { severity, message: format!("the password {what} {until}") });
        }
        if role.encryption == Encryption::Md5 {
            findings.push(Finding {
                severity: Severity::Warning,
                message: "the server sets password_encryption = md5, which is weak and deprecated".to_owned(),
            });
        }
        if role.read_only {
            findings.push(Finding {
                severity: Severity::Error,
                message: "the server is read-only: name the primary, not a standby".to_owned(),
            });
        }
        Ok(Findings {
            server: Some(format!("PostgreSQL {}", role.server_version)),
            tls: session.tls.clone(),
            authenticated: true,
            may_rotate: if role.read_only || !role.may_change { MayRotate::No } else { MayRotate::Yes },
            findings,
        })
    }

    async fn apply(account: &Account, change: &Change, threshold: Threshold) -> Result<Done, Fault> {
        let worker = WorkingSet::choose(&account.login, &change.current, change.admin.as_ref())?;
        let next = change.next_password()?;
        let session = Session::open(account, worker.login, worker.password).await?;
        let (encryption, until) = match session.iterations {
            // What SCRAM has proven stays with SCRAM: there is nothing to ask.
            Some(iterations) if !worker.is_admin && account.valid_days.is_none() => {
                (Encryption::Scram(iterations), None)
            }
            _ => {
                let role = session.role(&account.login, worker.is_admin, account.valid_days).await?;
                (role.encryption, role.new_valid_until)
            }
        };
        let mut statement =
            format!("ALTER ROLE {} PASSWORD {}", quoted(&account.login)?, encryption.verifier(next, &account.login)?);
        if let Some(until) = until {
            statement.push_str(&format!(" VALID UNTIL '{until}'"));
        }

        let crossed = threshold.cross().await?;
        session.execute(&statement).await.map_err(|error| {
            let definite = error.code().is_some_and(|code| DEFINITE_REFUSALS.contains(code));
            let fault = refused(account, worker.login, &error);
            if definite { crossed.definitely_refused(fault) } else { fault }
        })?;
        Ok(crossed.done())
    }

    async fn verify(account: &Account, credential: &Credential, _admin: Option<&Admin>) -> Result<Verdicts, Fault> {
        let own = WorkingSet::choose(&account.login, credential, None)?;
        match Session::open(account, own.login, own.password).await {
            Ok(_) => Ok(Verdicts::accepted()),
            Err(fault) if fault.kind == Kind::Authentication => Ok(Verdicts::refused()),
            Err(fault) => Err(fault),
        }
    }
}

/// The answers that prove a single `ALTER ROLE` changed nothing: PostgreSQL
/// raises them before the catalogue row is written, and a statement that
/// raises any error of these classes is rolled back whole (PostgreSQL manual,
/// appendix A). Not on the list: 57P01 and its kin, which may end a statement
/// that has committed.
const DEFINITE_REFUSALS: &[SqlState] = &[
    SqlState::INSUFFICIENT_PRIVILEGE,
    SqlState::UNDEFINED_OBJECT,
    SqlState::INVALID_PARAMETER_VALUE,
    SqlState::READ_ONLY_SQL_TRANSACTION,
    SqlState::FEATURE_NOT_SUPPORTED,
    SqlState::SYNTAX_ERROR,
];

fn refused(account: &Account, by: &str, error: &tokio_postgres::Error) -> Fault {
    let role = &account.login;
    let (kind, message) = match error.code() {
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            (Kind::Permission, format!("\"{by}\" may not change the password of role \"{role}\""))
        }
        Some(&SqlState::UNDEFINED_OBJECT) => (Kind::NotFound, format!("there is no role \"{role}\"")),
        Some(&SqlState::INVALID_PARAMETER_VALUE) => {
            (Kind::Policy, format!("the server refuses this password for role \"{role}\""))
        }
        Some(&SqlState::READ_ONLY_SQL_TRANSACTION) => {
            (Kind::Unsupported, format!("the server {} is read-only", account.host))
        }
        _ => (Kind::Unreachable, format!("changing the password of role \"{role}\" did not end with an answer")),
    };
    let fault = Fault::new(kind, message).caused_by(error);
    match kind {
        Kind::Permission => {
            fault.hint("name an admin record with CREATEROLE and ADMIN OPTION on the role, or a superuser")
        }
        Kind::Unsupported => fault.hint("name the primary server, not a standby"),
        _ => fault,
    }
}
