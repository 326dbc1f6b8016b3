//! Rotates the password of an Oracle Database user: its own through the log-in
//! exchange, without any SQL, or with `admin` another's.

mod driver;
mod place;
mod refusal;
mod session;
mod statement;
#[cfg(feature = "thick")]
mod thick;
mod thin;

use std::fs;

use schemars::JsonSchema;
use serde::Deserialize;
use turnlock_kit::protocol::operation::Prepared;
use turnlock_kit::tls::Mode;
use turnlock_kit::{
    Admin, Change, Credential, Done, Fault, Finding, Findings, Kind, Lockout, MayRotate, NotIn, PasswordLimits, Policy,
    Rotator, Severity, Threshold, Traits, Verdicts, WorkingSet,
};

use place::Place;
use session::Session;

/// The password of an Oracle Database user.
#[derive(Debug)]
pub struct Oracle;

/// Where the database is, and which user.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
pub struct Account {
    /// Host name or address.
    #[serde(default)]
    pub host: String,
    /// TCP port. 2484 is TLS (TCPS) unless told otherwise.
    #[serde(default = "default_port")]
    pub port: u16,
    /// The user whose password changes: in capitals for Oracle, unless written in double quotes.
    pub login: String,
    /// The service to connect to.
    #[serde(default)]
    pub db: Option<String>,
    /// The instance to connect to, instead of a service.
    #[serde(default)]
    pub sid: Option<String>,
    /// Easy Connect, a full descriptor or an alias of TNS_ADMIN's tnsnames.ora, instead of host, port, `db` and `sid`.
    #[serde(default)]
    pub dsn: Option<String>,
    /// `verify-full` (TCPS) or `disable`. Oracle's listeners speak one or the other at a port: unless told, TLS is
    /// used with `ca`, `wallet`, port 2484 or a `dsn` that says so.
    #[serde(default)]
    pub tls: Option<Mode>,
    /// Authorities to trust beside the public ones: PEM text, or a file's path.
    #[serde(default)]
    pub ca: Option<String>,
    /// A directory with Oracle's own store of certificates: `ewallet.pem`, for `thick` also `cwallet.sso`.
    #[serde(default)]
    pub wallet: Option<String>,
    /// `thin` (pure, the default), or `thick`: Oracle's Instant Client, for servers that demand native network encryption.
    #[serde(default)]
    pub driver: Driver,
    /// With `admin`: the account's lock ends with the reset.
    #[serde(default)]
    pub unlock: bool,
    /// The longest password the server takes, in bytes: 30 everywhere, up to 1024 in newer releases.
    #[serde(default = "everywhere")]
    pub max_bytes: u32,
    /// For how many seconds a failed log-in is remembered; 0 where accounts are never locked. Oracle itself forgets
    /// them at the next log-in that works, and unlocks after the profile's PASSWORD_LOCK_TIME.
    #[serde(default = "a_day")]
    pub lockout_window: u32,
}

/// What speaks to the database.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// Oracle's driver in pure Rust.
    #[default]
    Thin,
    /// Oracle's client libraries.
    Thick,
}

fn default_port() -> u16 {
    1521
}

/// What every release takes ("Security Guide": 30 bytes before 23ai unless the dictionary was extended).
fn everywhere() -> u32 {
    30
}

/// PASSWORD_LOCK_TIME of the profile DEFAULT.
fn a_day() -> u32 {
    86_400
}

/// The most any release takes.
const MOST_BYTES: u32 = 1024;

impl Account {
    /// The authorities of `ca`, in PEM.
    fn authorities(&self) -> Result<Option<String>, Fault> {
        let Some(ca) = &self.ca else { return Ok(None) };
        if self.wallet.is_some() {
            return Err(Fault::new(Kind::InvalidInput, "`ca` and `wallet` cannot both be")
                .hint("put the authority into the wallet's ewallet.pem, or leave the wallet out"));
        }
        if ca.contains("-----BEGIN") {
            return Ok(Some(ca.clone()));
        }
        let read = fs::read_to_string(ca);
        read.map(Some).map_err(|error| Fault::new(Kind::Tls, format!("`ca` {ca} could not be read")).caused_by(&error))
    }

    /// What can be told without asking anybody.
    fn is_possible(&self, place: &Place, worker: &WorkingSet<'_>) -> Result<(), Fault> {
        let invalid = |message: String, hint: &str| Err(Fault::new(Kind::InvalidInput, message).hint(hint));
        if !(1..=MOST_BYTES).contains(&self.max_bytes) {
            return invalid(format!("`max_bytes` is 1 to {MOST_BYTES}"), "30 is what every release takes");
        }
        if self.unlock && !worker.is_admin {
            return invalid(
                "`unlock` needs the right ALTER USER".to_owned(),
                "name an admin record, or leave out `unlock`",
            );
        }
        if self.driver == Driver::Thick && !cfg!(feature = "thick") {
            return Err(Fault::new(Kind::Unsupported, "this program was built without Oracle's client libraries")
                .hint("take the build with the feature `thick`, or leave out `driver`"));
        }
        let in_clear = !place.is_encrypted && !place.is_near && self.tls != Some(Mode::Disable);
        if worker.is_admin && in_clear {
            return Err(Fault::new(Kind::Tls, format!("an admin's reset would carry the new password in clear to {}", place.name))
                .hint("let the listener speak TCPS and give the record its port and `ca`; or set `tls = disable` where the network is protected otherwise"));
        }
        Ok(())
    }

    /// How far the connection is protected, for people.
    fn protection(place: &Place) -> String {
        let words =
            if place.is_encrypted { "TLS, certificate and name verified" } else { "in clear but for passwords" };
        words.to_owned()
    }
}

impl Rotator for Oracle {
    type Account = Account;
    const PLUGIN: &'static str = "oracle";
    const SUMMARY: &'static str = "Rotates the password of an Oracle Database user.";
    const EXAMPLE_ACCOUNT: &'static str =
        r#"{"host": "ora1.example.com", "port": 2484, "db": "orders", "login": "app", "ca": "/etc/ssl/ora-ca.pem"}"#;
    const DEFAULT_PORT: Option<u16> = Some(1521);
    const URL_SCHEMES: &'static [&'static str] = &["oracle", "oracledb"];

    fn traits(account: Option<&Account>) -> Traits {
        let (max_bytes, lockout_window) =
            account.map_or((MOST_BYTES, a_day()), |account| (account.max_bytes, account.lockout_window));
        Traits {
            policy_from_target: true,
            password: PasswordLimits {
                min_length: Some(1),
                max_length: Some(max_bytes),
                forbidden: statement::FORBIDDEN.iter().collect(),
            },
            ..Lockout { lockout_window }.traits()
        }
    }

    async fn check(account: &Account, current: &Credential, admin: Option<&Admin>) -> Result<Findings, Fault> {
        let worker = WorkingSet::choose(&account.login, current, admin)?;
        let place = Place::of(account)?;
        account.is_possible(&place, &worker)?;
        let name = statement::name(&account.login)?;
        let mut session = Session::open(account, worker.login, worker.password).await?;
        let facts = session.facts(name, worker.is_admin).await?;
        let mut findings = Vec::new();
        let mut find = |severity, message: String| findings.push(Finding { severity, message });
        if !place.is_encrypted {
            let severity = if place.is_near { Severity::Info } else { Severity::Warning };
            let what = if worker.is_admin {
                "no TLS: an admin's reset travels in clear, with the new password"
            } else {
                "no TLS: the server is not verified, and only passwords are encrypted, by Oracle's log-in exchange"
            };
            find(severity, what.to_owned());
        }
        if session.expires_soon {
            find(Severity::Warning, format!("the password of \"{}\" expires soon", worker.login));
        }
        if worker.is_admin && !facts.may_reset {
            find(Severity::Error, format!("\"{}\" has no ALTER USER", worker.login));
        }
        match facts.status.as_deref() {
            Some("none") => find(Severity::Error, format!("there is no user \"{}\"", account.login)),
            Some(status) if status.contains("LOCKED") && !account.unlock => {
                find(Severity::Error, format!("\"{}\" is locked ({status}): set `unlock = true`", account.login));
            }
            Some(status) if status.contains("EXPIRED") => find(Severity::Warning, format!("the password is {status}")),
            _ => {}
        }
        let hopeless = findings.iter().any(|finding| finding.severity == Severity::Error);
        Ok(Findings {
            server: Some(format!("Oracle Database {}", facts.version)),
            tls: Some(Account::protection(&place)),
            authenticated: true,
            may_rotate: if hopeless { MayRotate::No } else { MayRotate::Yes },
            findings,
        })
    }

    async fn prepare(
        _: &Account,
        _: Option<&Credential>,
        _: Option<&Admin>,
        policy: &Policy,
    ) -> Result<Prepared, Fault> {
        Ok(Prepared { policy: Some(statement::narrowed(policy.clone())?), ..Prepared::default() })
    }

    async fn apply(account: &Account, change: &Change, threshold: Threshold) -> Result<Done, Fault> {
        let worker = WorkingSet::choose(&account.login, &change.current, change.admin.as_ref())?;
        account.is_possible(&Place::of(account)?, &worker)?;
        let name = statement::name(&account.login)?;
        let next = change.next_password()?;
        statement::is_possible(next, account.max_bytes)?;
        let session = match Session::open(account, worker.login, worker.password).await {
            Ok(session) => Some(session),
            // The account itself comes in with its new password then.
            Err(NotIn::Right(..)) if !worker.is_admin => None,
            Err(not_in) => return Err(not_in.into()),
        };

        let crossed = threshold.cross().await?;
        let changed = match session {
            Some(mut session) if worker.is_admin => session.reset(&name, next, account.unlock).await,
            Some(mut session) => session.change(&name, worker.password, next).await,
            None => Session::open_with(account, worker.password, next).await.map(drop),
        };
        changed.map_err(|failed| {
            let fault = refusal::of_change(account, &worker, &failed);
            if refusal::is_definite(&failed) { crossed.definitely_refused(fault) } else { fault }
        })?;
        Ok(crossed.done())
    }

    async fn verify(account: &Account, credential: &Credential, _admin: Option<&Admin>) -> Result<Verdicts, Fault> {
        let own = WorkingSet::choose(&account.login, credential, None)?;
        NotIn::verdict(Session::open(account, own.login, own.password).await.map(|_| None))
    }
}
