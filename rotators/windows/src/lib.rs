//! Rotates the password of an account of one Windows machine: its own, or with
//! an admin another's, over an encrypted SMB session. The password itself never
//! travels: the log-in is a proof of it, and the change is encrypted with what
//! both sides know.

#[cfg(windows)]
mod local;

use schemars::JsonSchema;
use serde::Deserialize;
use turnlock_kit::{
    Admin, Change, Credential, Done, Fault, Finding, Findings, Kind, Lockout, MayRotate, NotIn, Rotator, Severity,
    Threshold, Traits, Verdicts, WorkingSet,
};
use turnlock_samr::{Place, Ready, Rules, is_possible, limits, proof};

/// The password of a Windows account.
#[derive(Debug)]
pub struct Windows;

/// Where the machine is, and which account.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Account {
    /// The machine's name or address. On Windows, the machine itself unless told.
    #[serde(default)]
    pub host: Option<String>,
    /// TCP port of SMB.
    #[serde(default = "default_port")]
    pub port: u16,
    /// The account: a name, or `MACHINE\name`.
    pub login: String,
    /// On Windows, without a host: a reset by the rights of this very process, which then has to be an administrator's.
    #[serde(default)]
    pub elevated: bool,
    /// How failed log-ins are counted there.
    #[serde(flatten)]
    pub lockout: Lockout,
}

fn default_port() -> u16 {
    445
}

impl Account {
    /// The machine to speak to.
    fn place(&self) -> Result<Place, Fault> {
        match &self.host {
            Some(host) => Place::parse(host, self.port),
            None if cfg!(windows) => Place::parse("127.0.0.1", self.port),
            None => Err(Fault::new(Kind::InvalidInput, "there is no host")
                .hint("name the machine; only on Windows the machine itself can be meant")),
        }
    }

    /// Whether the machine's own calls do it, and not its network.
    #[cfg(windows)]
    fn is_local(&self, worker: &WorkingSet<'_>) -> bool {
        self.host.is_none() && !worker.is_admin
    }
}

impl Rotator for Windows {
    type Account = Account;
    const PLUGIN: &'static str = "windows";
    const SUMMARY: &'static str = "Rotates the password of an account of a Windows machine.";
    const EXAMPLE_ACCOUNT: &'static str = r#"{"host": "srv1.example.com", "login": "svc-backup"}"#;
    const DEFAULT_PORT: Option<u16> = Some(445);
    const URL_SCHEMES: &'static [&'static str] = &["smb"];

    fn traits(account: Option<&Account>) -> Traits {
        Traits { password: limits(), ..account.map(|account| account.lockout).unwrap_or_default().traits() }
    }

    async fn check(account: &Account, current: &Credential, admin: Option<&Admin>) -> Result<Findings, Fault> {
        let worker = WorkingSet::choose(&account.login, current, admin)?;
        let mut ready = Ready::at(&account.place()?, &account.login, &worker).await?;
        let rules = ready.rules().await;
        let finding = |rules: Rules| Finding { severity: Severity::Info, message: rules.words() };
        Ok(Findings {
            server: Some("Windows, by SMB 3.1.1".to_owned()),
            tls: Some("SMB 3.1.1 encryption, verified by the password".to_owned()),
            authenticated: true,
            may_rotate: MayRotate::Yes,
            findings: rules.map(finding).into_iter().collect(),
        })
    }

    async fn apply(account: &Account, change: &Change, threshold: Threshold) -> Result<Done, Fault> {
        let worker = WorkingSet::choose(&account.login, &change.current, change.admin.as_ref())?;
        let next = change.next_password()?;
        is_possible(next)?;
        #[cfg(windows)]
        if account.is_local(&worker) {
            let old = (!account.elevated).then_some(worker.password);
            return local::change(&account.login, old, next, threshold.cross().await?);
        }
        let mut ready = Ready::at(&account.place()?, &account.login, &worker).await?;

        let crossed = threshold.cross().await?;
        match ready.change(&account.login, worker.password, next).await {
            Ok(()) => Ok(crossed.done()),
            Err(refusal) if refusal.is_definite => Err(crossed.definitely_refused(refusal.fault)),
            Err(refusal) => Err(refusal.fault),
        }
    }

    async fn verify(account: &Account, credential: &Credential, _admin: Option<&Admin>) -> Result<Verdicts, Fault> {
        let own = WorkingSet::choose(&account.login, credential, None)?;
        NotIn::verdict(proof(&account.place()?, own.login, own.password).await)
    }
}
