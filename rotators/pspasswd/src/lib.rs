//! Rotates the password of one account at many Windows machines, as the tool
//! PsPasswd does on the wire: every machine lets us in and grants the right
//! before one is changed, and each has its own result.

use schemars::JsonSchema;
use serde::Deserialize;
use turnlock_kit::many::{everywhere, trouble, verdicts};
use turnlock_kit::{
    Admin, Applied, Change, Credential, Done, Fault, Finding, Findings, HostOutcome, Hosts, Kind, Lockout, MayRotate,
    Rotator, Severity, Threshold, Traits, Verdicts, WorkingSet,
};
use turnlock_samr::{Place, Ready, is_possible, limits, proof};

/// The password of one account at many Windows machines.
#[derive(Debug)]
pub struct Pspasswd;

/// Where the machines are, and which account.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Account {
    /// The machines, each `host` or `host:port`.
    pub hosts: Vec<String>,
    /// TCP port of machines that name none.
    #[serde(default = "default_port")]
    pub port: u16,
    /// The account: a name, or `MACHINE\name`.
    pub login: String,
    /// How failed log-ins are counted there.
    #[serde(flatten)]
    pub lockout: Lockout,
}

fn default_port() -> u16 {
    445
}

impl Account {
    fn places(&self) -> Result<Vec<(&str, Place)>, Fault> {
        if self.hosts.is_empty() {
            return Err(Fault::new(Kind::InvalidInput, "the record names no machines")
                .hint("give it the field host, several times for several machines"));
        }
        self.hosts.iter().map(|host| Place::parse(host, self.port).map(|place| (host.as_str(), place))).collect()
    }
}

impl Rotator for Pspasswd {
    type Account = Account;
    const PLUGIN: &'static str = "pspasswd";
    const SUMMARY: &'static str = "Rotates the password of one account at many Windows machines.";
    const EXAMPLE_ACCOUNT: &'static str =
        r#"{"login": "svc-backup", "hosts": ["srv1.example.com", "srv2.example.com"]}"#;
    const DEFAULT_PORT: Option<u16> = Some(445);

    fn traits(account: Option<&Account>) -> Traits {
        Traits {
            hosts: Hosts::Many,
            password: limits(),
            ..account.map(|account| account.lockout).unwrap_or_default().traits()
        }
    }

    async fn check(account: &Account, current: &Credential, admin: Option<&Admin>) -> Result<Findings, Fault> {
        let worker = WorkingSet::choose(&account.login, current, admin)?;
        let looked = everywhere(account.places()?, async |(name, place)| {
            let looked = Ready::at(&place, &account.login, &worker).await;
            match looked {
                Ok(mut ready) => (name, Ok(ready.rules().await)),
                Err(fault) => (name, Err(fault)),
            }
        })
        .await;
        if let Some(fault) = trouble(&looked) {
            return Err(fault);
        }
        let findings = looked.iter().map(|(name, rules)| {
            let rules = rules.as_ref().ok().and_then(Option::as_ref).map(turnlock_samr::Rules::words);
            let message = format!("{name}: {}", rules.unwrap_or_else(|| "its rules are not told".to_owned()));
            Finding { severity: Severity::Info, message }
        });
        Ok(Findings {
            server: Some("Windows, by SMB 3.1.1".to_owned()),
            tls: Some("SMB 3.1.1 encryption, verified by the password".to_owned()),
            authenticated: true,
            may_rotate: MayRotate::Yes,
            findings: findings.collect(),
        })
    }

    async fn apply(account: &Account, change: &Change, threshold: Threshold) -> Result<Done, Fault> {
        let worker = WorkingSet::choose(&account.login, &change.current, change.admin.as_ref())?;
        let next = change.next_password()?;
        is_possible(next)?;
        let opened = everywhere(account.places()?, async |(name, place)| {
            let opened = Ready::at(&place, &account.login, &worker).await;
            let opened = match opened {
                Ok(mut ready) => ready.would_take(&account.login, next).await.map(|()| ready),
                Err(fault) => Err(fault),
            };
            (name, opened)
        })
        .await;
        if let Some(fault) = trouble(&opened) {
            return Err(fault);
        }
        let open = opened.into_iter().filter_map(|(name, opened)| opened.ok().map(|ready| (name, ready)));

        let crossed = threshold.cross().await?;
        let outcomes = everywhere(open, async |(name, mut ready)| {
            let (applied, fault) = match ready.change(&account.login, worker.password, next).await {
                Ok(()) => (Applied::Yes, None),
                Err(refusal) if refusal.is_definite => (Applied::No, Some(refusal.fault)),
                Err(refusal) => (Applied::Unknown, Some(refusal.fault)),
            };
            (HostOutcome { host: name.to_owned(), applied, message: fault.as_ref().map(|f| f.message.clone()) }, fault)
        })
        .await;
        if outcomes.iter().all(|(outcome, _)| outcome.applied == Applied::No) {
            let refused: Vec<(&str, Result<(), Fault>)> = outcomes
                .iter()
                .filter_map(|(outcome, fault)| fault.clone().map(|fault| (outcome.host.as_str(), Err(fault))))
                .collect();
            if let Some(fault) = trouble(&refused) {
                return Err(crossed.definitely_refused(fault));
            }
        }
        Ok(crossed.done().hosts(outcomes.into_iter().map(|(outcome, _)| outcome).collect()))
    }

    async fn verify(account: &Account, credential: &Credential, _admin: Option<&Admin>) -> Result<Verdicts, Fault> {
        let own = WorkingSet::choose(&account.login, credential, None)?;
        let asked =
            everywhere(account.places()?, async |(name, place)| (name, proof(&place, own.login, own.password).await));
        verdicts(asked.await)
    }
}
