//! Rotates the password of an account at a host that is reached over SSH: its
//! own through `passwd`, or with `admin` another's through `chpasswd`; at a
//! Windows host through PowerShell. Whether it worked is said by an exit
//! status and proven by a new log-in, never by words.

mod admin;
mod own;
mod windows;

use schemars::JsonSchema;
use serde::Deserialize;
use turnlock_kit::{
    Admin, Change, Credential, CredentialField, CredentialState, Done, Fault, Finding, Findings, Kind, Mark, MayRotate,
    PASSWORD, Rotator, Secret, Severity, Threshold, Traits, Verdicts, dialogue,
};
use turnlock_secureshell::{
    Access, Connection, JUMP_PASSPHRASE, JUMP_PASSWORD, JUMP_PRIVATE_KEY, NotIn, Proof, Session, private_key,
};

/// The password of an account at a host.
#[derive(Debug)]
pub struct Ssh;

/// Where the host is, and which account.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Account {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    #[serde(default = "default_port")]
    pub port: u16,
    /// The account whose password changes; `DOMAIN\user` at a Windows host.
    pub login: String,
    /// `unix` or `windows`; the server's name tells unless this does.
    #[serde(default)]
    pub os: Option<Os>,
    /// How the host is reached and believed.
    #[serde(flatten)]
    pub access: Access,
}

/// What kind of programs a host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Os {
    /// `passwd` and `chpasswd`.
    Unix,
    /// PowerShell.
    Windows,
}

fn default_port() -> u16 {
    22
}

/// An admin's private key, and what `sudo` asks the admin for.
const PRIVATE_KEY: &str = "private_key";
const SUDO_PASSWORD: &str = "sudo_password";

impl Rotator for Ssh {
    type Account = Account;
    const PLUGIN: &'static str = "ssh";
    const SUMMARY: &'static str = "Rotates the password of an account at a host that is reached over SSH.";
    const EXAMPLE_ACCOUNT: &'static str =
        r#"{"host": "web1.example.com", "login": "app", "known_host": "SHA256:uNiVztksCsDhcc0u9e8BrrqE"}"#;
    const CREDENTIAL: &'static [CredentialField] = &[
        PASSWORD,
        CredentialField {
            name: PRIVATE_KEY,
            option: PRIVATE_KEY,
            mark: Mark::Current,
            description: "An admin's private key; the admin's password is its passphrase then.",
        },
        CredentialField {
            name: SUDO_PASSWORD,
            option: SUDO_PASSWORD,
            mark: Mark::Current,
            description: "What sudo asks an admin for, where it is not the password.",
        },
        JUMP_PASSWORD,
        JUMP_PRIVATE_KEY,
        JUMP_PASSPHRASE,
    ];
    const DEFAULT_PORT: Option<u16> = Some(22);
    const URL_SCHEMES: &'static [&'static str] = &["ssh"];

    fn traits(_account: Option<&Account>) -> Traits {
        Traits { password: dialogue::limits(), ..Traits::password() }
    }

    async fn check(account: &Account, current: &Credential, admin: Option<&Admin>) -> Result<Findings, Fault> {
        let session = account.open(current, admin).await;
        let mut findings = Vec::new();
        let session = match session {
            Ok(session) => session,
            Err(NotIn::MustChange(change)) => {
                findings.push(Finding {
                    severity: Severity::Warning,
                    message: "the password has expired; a rotation renews it at the log-in".to_owned(),
                });
                return Ok(Findings {
                    server: Some(change.server().to_owned()),
                    tls: Some(change.protection().to_owned()),
                    authenticated: true,
                    may_rotate: MayRotate::Yes,
                    findings,
                });
            }
            Err(NotIn::Fault(fault)) => return Err(fault),
        };
        let may_rotate = match (account.os_of(&session), admin) {
            (Os::Windows, _) => MayRotate::Unknown,
            (Os::Unix, None) => own::may_rotate(&session, &mut findings).await?,
            (Os::Unix, Some(admin)) => match admin::Way::find(&session, account, admin).await {
                Ok(_) => MayRotate::Yes,
                Err(fault) if fault.kind == Kind::Permission => {
                    findings.push(Finding { severity: Severity::Error, message: fault.message });
                    MayRotate::No
                }
                Err(fault) => return Err(fault),
            },
        };
        Ok(Findings {
            server: Some(session.server().to_owned()),
            tls: Some(session.protection().to_owned()),
            authenticated: true,
            may_rotate,
            findings,
        })
    }

    async fn apply(account: &Account, change: &Change, threshold: Threshold) -> Result<Done, Fault> {
        let next = change.next_password()?;
        dialogue::limits_hold(next)?;
        let session = match (account.open(&change.current, change.admin.as_ref()).await, &change.admin) {
            (Ok(session), _) => session,
            (Err(NotIn::MustChange(forced)), None) => {
                return own::at_the_login(*forced, account.password(&change.current)?, next, threshold).await;
            }
            (Err(not_in), _) => return Err(not_in.into_fault()),
        };
        match (account.os_of(&session), &change.admin) {
            (Os::Windows, None) => {
                windows::change(&session, account, Some(account.password(&change.current)?), next, threshold).await
            }
            (Os::Windows, Some(_)) => windows::change(&session, account, None, next, threshold).await,
            (Os::Unix, None) => {
                own::by_passwd(&session, account, account.password(&change.current)?, next, threshold).await
            }
            (Os::Unix, Some(admin)) => admin::by_chpasswd(&session, account, admin, next, threshold).await,
        }
    }

    async fn verify(account: &Account, credential: &Credential, _admin: Option<&Admin>) -> Result<Verdicts, Fault> {
        match account.open(credential, None).await {
            Ok(_) => Ok(Verdicts::accepted()),
            Err(NotIn::MustChange(_)) => Ok(Verdicts::accepted_but(CredentialState::MustChange)),
            Err(NotIn::Fault(fault)) if fault.kind == Kind::Authentication => Ok(Verdicts::refused()),
            Err(NotIn::Fault(fault)) => Err(fault),
        }
    }
}

impl Account {
    /// Logs in as the account, or as the admin where there is one. The jump
    /// host's secret is the account's business.
    async fn open(&self, own: &Credential, admin: Option<&Admin>) -> Result<Session, NotIn> {
        let connection = Connection::open(&self.host, self.port, &self.access, own).await?;
        let Some(admin) = admin else {
            return connection.log_in(&self.login, Proof::Password(self.password(own)?)).await;
        };
        let password = admin.credential.get(PASSWORD.name);
        match (admin.credential.get(PRIVATE_KEY), password) {
            (Some(key), passphrase) => {
                let key = private_key(key, passphrase)?;
                connection.log_in(&admin.login, Proof::Key(&key)).await
            }
            (None, Some(password)) => connection.log_in(&admin.login, Proof::Password(password)).await,
            (None, None) => {
                let what = format!("there is neither a password nor a private key for the admin \"{}\"", admin.login);
                Err(Fault::new(Kind::InvalidInput, what).hint("set one of them in the admin's record").into())
            }
        }
    }

    fn password<'a>(&self, credential: &'a Credential) -> Result<&'a Secret, Fault> {
        credential.get(PASSWORD.name).ok_or_else(|| {
            Fault::new(Kind::InvalidInput, format!("there is no password for \"{}\"", self.login))
                .hint("set the record's password, or name an admin record")
        })
    }

    fn os_of(&self, session: &Session) -> Os {
        self.os.unwrap_or(if session.server().contains("Windows") { Os::Windows } else { Os::Unix })
    }
}
