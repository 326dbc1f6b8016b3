//! Rotates the password of an account in Active Directory or another LDAP
//! directory: its own, or with `admin` another's. A password is shown only to
//! a directory that has proven who it is.

mod change;
mod controller;
mod directory;
mod name;
mod ppolicy;
mod refusal;
mod rights;
mod session;

use schemars::JsonSchema;
use serde::Deserialize;
use turnlock_kit::tls::{Mode, Tls};
use turnlock_kit::{
    Admin, Change, Credential, Done, Fault, Findings, Lockout, NotIn, PasswordLimits, Rotator, Threshold, Traits,
    Verdicts, WorkingSet,
};

use name::Whom;
use session::Session;

/// The password of an account in a directory.
#[derive(Debug)]
pub struct Adpasswd;

/// Where the directory is, and which account.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct Account {
    /// A server, or an Active Directory domain: then DNS tells its controller for passwords.
    pub host: String,
    /// TCP port.
    #[serde(default = "default_port")]
    pub port: u16,
    /// A DN, `user@domain`, `DOMAIN\user`, or a name alone: sAMAccountName in Active Directory, uid or cn elsewhere.
    #[serde(default)]
    pub login: String,
    /// The account's DN, where the login does not lead to it.
    #[serde(default)]
    pub userdn: Option<String>,
    /// Where below to look for the login; the directory's own naming contexts unless told.
    #[serde(default)]
    pub base_dn: Option<String>,
    /// TLS by StartTLS instead of from the first byte; by default on ports 389 and 3268.
    #[serde(default)]
    pub starttls: Option<bool>,
    /// With `admin`, in Active Directory: the account's lock-out ends with the reset.
    #[serde(default)]
    pub unlock: bool,
    /// With `admin`, in Active Directory: the new password has to be changed at the next log-in.
    #[serde(default)]
    pub must_change: bool,
    /// How failed log-ins are counted there.
    #[serde(flatten)]
    pub lockout: Lockout,
    /// Keeper's word for how far the server's certificate is checked: `none`, `optional` or `required`.
    #[serde(default)]
    pub tls_verify: Option<TlsVerify>,
    /// How the server is believed.
    #[serde(flatten)]
    pub tls: Tls,
}

/// Keeper's three words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TlsVerify {
    /// Encrypted, by anybody.
    None,
    /// The same: a certificate that is looked at but need not be right proves nothing.
    Optional,
    /// Encrypted, by a server whose certificate names it.
    Required,
}

fn default_port() -> u16 {
    636
}

impl Account {
    /// Where the directory is, for people.
    pub(crate) fn place(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The account, for people.
    pub(crate) fn of_whom(&self) -> &str {
        if self.login.is_empty() { self.userdn.as_deref().unwrap_or_default() } else { &self.login }
    }

    /// Who it is about.
    pub(crate) fn whom(&self) -> Result<Whom<'_>, Fault> {
        Whom::of(&self.login, self.userdn.as_deref())
    }

    /// Whether TLS begins with a request for it.
    pub(crate) fn starttls(&self) -> bool {
        self.starttls.unwrap_or(matches!(self.port, 389 | 3268))
    }

    /// The TLS fields, Keeper's word included.
    pub(crate) fn tls(&self) -> Tls {
        let mut tls = self.tls.clone();
        tls.tls = tls.tls.or(self.tls_verify.map(|word| match word {
            TlsVerify::Required => Mode::VerifyFull,
            TlsVerify::None | TlsVerify::Optional => Mode::Require,
        }));
        tls
    }
}

impl Rotator for Adpasswd {
    type Account = Account;
    const PLUGIN: &'static str = "adpasswd";
    const SUMMARY: &'static str = "Rotates the password of an account in Active Directory or another LDAP directory.";
    const EXAMPLE_ACCOUNT: &'static str =
        r#"{"host": "dc1.corp.example.com", "login": "svc-backup", "ca": "/etc/ssl/corp-ca.pem"}"#;
    const DEFAULT_PORT: Option<u16> = Some(636);
    const PORTS: &'static [u16] = &[389];
    const URL_SCHEMES: &'static [&'static str] = &["ldaps", "ldap"];

    fn traits(account: Option<&Account>) -> Traits {
        Traits {
            // More cannot be typed at a Windows log-in.
            password: PasswordLimits { min_length: Some(1), max_length: Some(127), forbidden: "\0".to_owned() },
            ..account.map(|account| account.lockout).unwrap_or_default().traits()
        }
    }

    async fn check(account: &Account, current: &Credential, admin: Option<&Admin>) -> Result<Findings, Fault> {
        let worker = WorkingSet::choose(&account.login, current, admin)?;
        let account = &controller::located(account).await?;
        let mut session = Session::connect(account).await?;
        let entry = session.log_in(account, &worker, admin).await?;
        let (may_rotate, findings) = change::findings(&mut session, account, &entry, &worker).await?;
        let server = Some(session.directory.server());
        Ok(Findings { server, tls: session.tls.clone(), authenticated: true, may_rotate, findings })
    }

    async fn apply(account: &Account, change: &Change, threshold: Threshold) -> Result<Done, Fault> {
        let worker = WorkingSet::choose(&account.login, &change.current, change.admin.as_ref())?;
        let next = change.next_password()?;
        change::possible(account, &worker, next)?;
        let account = &controller::located(account).await?;
        let mut session = Session::connect(account).await?;
        let entry = session.log_in(account, &worker, change.admin.as_ref()).await?;
        change::sensible(&session, account, &entry, &worker)?;

        let crossed = threshold.cross().await?;
        let answer = change::send(&mut session, account, &entry, &worker, next).await;
        let Err(trouble) = answer else {
            return Ok(crossed.done());
        };
        let fault = refusal::of_change(account, &worker, &trouble);
        if !trouble.is_definite_refusal() {
            return Err(fault);
        }
        let fault = crossed.definitely_refused(fault);
        Err(change::with_the_directorys_rules(&mut session, &entry, fault).await)
    }

    async fn verify(account: &Account, credential: &Credential, _admin: Option<&Admin>) -> Result<Verdicts, Fault> {
        let own = WorkingSet::choose(&account.login, credential, None)?;
        let account = &controller::located(account).await?;
        let mut session = Session::connect(account).await?;
        let name = session.name_to_log_in(account, &account.whom()?).await?;
        NotIn::verdict(session.bind(account, &name, &own).await)
    }
}
