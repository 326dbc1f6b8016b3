//! Rotates an SSH key pair on all the hosts that know it, in two phases: the
//! new public key is added everywhere and proven by a log-in everywhere; only
//! when the new pair is the vault's, the old key is removed everywhere.

mod authorized_keys;
mod host;
mod key;

use schemars::JsonSchema;
use serde::Deserialize;
use turnlock_kit::many::{everywhere, trouble, verdicts};
use turnlock_kit::{
    Admin, Applied, Change, Credential, CredentialField, Done, Fault, Finding, Findings, Finished, HostOutcome, Hosts,
    Kind, Mark, MayRotate, NotIn, Origin, Overlap, Policy, Prepared, Rotator, Severity, Threshold, Traits, Verdicts,
    VerifyBy,
};
use turnlock_secureshell::{Access, JUMP_PASSPHRASE, JUMP_PASSWORD, JUMP_PRIVATE_KEY};

use host::{Host, Keys, NotReplaced};

/// A key pair on many hosts.
#[derive(Debug)]
pub struct SshKey;

/// Where the key is authorised, and for whom.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Account {
    /// The account at every host.
    pub login: String,
    /// The hosts, each `host` or `host:port`; without any only the key is made.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// TCP port of hosts that name none.
    #[serde(default = "default_port")]
    pub port: u16,
    /// The file of authorised keys, from the account's home; `.ssh/authorized_keys` unless told.
    #[serde(default)]
    pub authorized_keys: Option<String>,
    /// `ed25519`, `rsa`, `rsa:BITS`, `ecdsa:256`, `ecdsa:384` or `ecdsa:521`; the old key's kind unless told.
    #[serde(default)]
    pub key_type: Option<String>,
    /// How the hosts are reached and believed.
    #[serde(flatten)]
    pub access: Access,
}

fn default_port() -> u16 {
    22
}

const PRIVATE_KEY: &str = "private_key";
const PUBLIC_KEY: &str = "public_key";
const PASSPHRASE: &str = "passphrase";

/// How often a file is read again because somebody else edits it.
const EDITS: usize = 3;

impl Rotator for SshKey {
    type Account = Account;
    const PLUGIN: &'static str = "sshkey";
    const SUMMARY: &'static str = "Rotates an SSH key pair on all the hosts that know it.";
    const EXAMPLE_ACCOUNT: &'static str =
        r#"{"login": "deploy", "hosts": ["web1.example.com", "web2.example.com:2222"]}"#;
    const CREDENTIAL: &'static [CredentialField] = &[
        CredentialField {
            name: PRIVATE_KEY,
            option: PRIVATE_KEY,
            mark: Mark::WriteBack,
            description: "The private key, in OpenSSH or PEM format.",
        },
        CredentialField {
            name: PUBLIC_KEY,
            option: "ssh_public_key",
            mark: Mark::WriteBack,
            description: "The public key.",
        },
        CredentialField {
            name: PASSPHRASE,
            option: "password",
            mark: Mark::WriteBack,
            description: "What protects the private key.",
        },
        JUMP_PASSWORD,
        JUMP_PRIVATE_KEY,
        JUMP_PASSPHRASE,
    ];
    const SHOWN: &'static [&'static str] = &[PUBLIC_KEY];
    const DEFAULT_PORT: Option<u16> = Some(22);

    fn traits(account: Option<&Account>) -> Traits {
        let somewhere = account.is_none_or(|account| !account.hosts.is_empty());
        Traits {
            origin: Origin::Rotator,
            overlap: Overlap::Both,
            needs_current: false,
            admin_reset: false,
            verify: if somewhere { VerifyBy::Login } else { VerifyBy::None },
            hosts: Hosts::Many,
            finish: somewhere,
            ..Traits::password()
        }
    }

    async fn check(account: &Account, current: &Credential, _admin: Option<&Admin>) -> Result<Findings, Fault> {
        let key = key::needed(current)?;
        let line = key::public_line(&key)?;
        let mut found =
            Findings { authenticated: !account.hosts.is_empty(), may_rotate: MayRotate::Yes, ..Findings::default() };
        let mut note = |severity, message: String| found.findings.push(Finding { severity, message });
        if (1..3072).contains(&key::rsa_bits(&key)) {
            note(
                Severity::Warning,
                format!("the key has only {} bits; a rotation makes it longer", key::rsa_bits(&key)),
            );
        }
        if account.hosts.is_empty() {
            note(Severity::Warning, "the record names no hosts: a rotation only makes a key".to_owned());
        }
        let looked = account
            .everywhere(async |name| {
                let host = Host::log_in(account, name, &key, current).await?;
                let keys = host.read().await?;
                Ok((host.server().to_owned(), host.protection().to_owned(), authorized_keys::has(&keys.content, &line)))
            })
            .await;
        if let Some(fault) = trouble(&looked) {
            return Err(fault);
        }
        let mut server = None;
        for (name, seen) in looked {
            let Ok((product, protection, has_it)) = seen else { continue };
            let message = format!("{name}: {product}, {protection}");
            found.findings.push(Finding { severity: Severity::Info, message });
            server.get_or_insert((product, protection));
            if !has_it {
                let message = format!("{name}: {}", not_in_the_file(account));
                found.findings.push(Finding { severity: Severity::Error, message });
                found.may_rotate = MayRotate::No;
            }
        }
        (found.server, found.tls) = server.unzip();
        Ok(found)
    }

    async fn prepare(
        account: &Account,
        current: Option<&Credential>,
        _admin: Option<&Admin>,
        policy: &Policy,
    ) -> Result<Prepared, Fault> {
        let old = match current {
            Some(current) => key::of(current)?,
            None => None,
        };
        if old.is_none() && !account.hosts.is_empty() {
            return Err(Fault::new(
                Kind::InvalidInput,
                format!("there is no private key yet that lets \"{}\" in at {}", account.login, account.hosts.join(", ")),
            )
            .hint("take the hosts out of the record and rotate it: that makes a key. Install its public half by hand, then name the hosts again"));
        }
        let next = key::following(old.as_ref(), account.key_type.as_deref(), &account.login, current, policy)?;
        Ok(Prepared { next: Some(next), ..Prepared::default() })
    }

    async fn apply(account: &Account, change: &Change, threshold: Threshold) -> Result<Done, Fault> {
        let next = change.next.as_ref().ok_or_else(|| Fault::new(Kind::InvalidInput, "`next` is missing"))?;
        let next_key = key::needed(next)?;
        let new = key::public_line(&next_key)?;
        let Some(old_key) = key::of(&change.current)?.filter(|_| !account.hosts.is_empty()) else {
            let crossed = threshold.cross().await?;
            let shown = next_key.public_key().to_openssh().unwrap_or_default();
            return Ok(crossed.done().warning(format!("install this public key at the hosts: {shown}")));
        };
        let old = key::public_line(&old_key)?;
        // Every host lets us in and shows its file before one is changed.
        let opened = account
            .everywhere(async |name| {
                let host = match Host::log_in(account, name, &old_key, &change.current).await {
                    // Of an earlier run, perhaps.
                    Err(fault) if fault.kind == Kind::Authentication => {
                        let host = Host::log_in(account, name, &next_key, &change.current).await;
                        host.map_err(|_| fault)?
                    }
                    other => other?,
                };
                let keys = host.read().await?;
                match authorized_keys::has(&keys.content, &old) || authorized_keys::has(&keys.content, &new) {
                    true => Ok((host, keys)),
                    false => Err(Fault::new(Kind::Unsupported, not_in_the_file(account))
                        .hint("name the right file in authorized_keys")),
                }
            })
            .await;
        if let Some(fault) = trouble(&opened) {
            return Err(fault);
        }
        let open: Vec<(&str, Host<'_>, Keys)> = opened
            .into_iter()
            .filter_map(|(name, opened)| opened.ok().map(|(host, keys)| (name, host, keys)))
            .collect();

        let crossed = threshold.cross().await?;
        let outcomes = everywhere(open, async |(name, host, keys)| {
            let edit = async |content: &[u8]| authorized_keys::add(content, &old, &new);
            outcome(name, edited(&host, keys, edit).await.map(drop))
        })
        .await;
        Ok(crossed.done().hosts(outcomes))
    }

    async fn verify(account: &Account, credential: &Credential, _admin: Option<&Admin>) -> Result<Verdicts, Fault> {
        let key = key::needed(credential)?;
        let asked = account
            .everywhere(async |name| {
                Host::log_in(account, name, &key, credential).await.map(|_| None).map_err(NotIn::Other)
            })
            .await;
        verdicts(asked)
    }

    async fn finish(
        account: &Account,
        current: &Credential,
        previous: &Credential,
        _admin: Option<&Admin>,
        threshold: Threshold,
    ) -> Result<Finished, Fault> {
        remove(account, current, previous, threshold).await
    }

    async fn revert(
        account: &Account,
        current: &Credential,
        previous: &Credential,
        _admin: Option<&Admin>,
        threshold: Threshold,
    ) -> Result<Finished, Fault> {
        remove(account, previous, current, threshold).await
    }
}

/// Removes a key from every host, by its blob, logging in with another one.
async fn remove(
    account: &Account,
    stays: &Credential,
    goes: &Credential,
    threshold: Threshold,
) -> Result<Finished, Fault> {
    let Some(gone) = key::of(goes)?.filter(|_| !account.hosts.is_empty()) else {
        return Ok(Finished::default());
    };
    let (key, gone) = (key::needed(stays)?, key::public_line(&gone)?);
    if key::public_line(&key)?.is_key_of(&gone) {
        return Err(Fault::new(Kind::InvalidInput, "the key that would be removed is the one that stays"));
    }
    threshold.cross().await?;
    let cleaned = account
        .everywhere(async |name| {
            let host = Host::log_in(account, name, &key, stays).await?;
            let keys = host.read().await?;
            let edit = async |content: &[u8]| Some(authorized_keys::remove(content, &gone));
            edited(&host, keys, edit).await.map_err(NotReplaced::into_fault)
        })
        .await;
    if let Some(fault) = trouble(&cleaned) {
        return Err(fault);
    }
    let removed = cleaned.iter().filter(|(_, cleaned)| matches!(cleaned, Ok(true)));
    Ok(Finished {
        removed: removed.map(|(name, _)| format!("the public key at {name}")).collect(),
        ..Finished::default()
    })
}

/// Edits a host's file, once more where somebody else did meanwhile. Tells
/// whether there was anything to edit.
async fn edited(
    host: &Host<'_>,
    mut keys: Keys,
    edit: impl AsyncFn(&[u8]) -> Option<Vec<u8>>,
) -> Result<bool, NotReplaced> {
    for last in (0..EDITS).map(|round| round + 1 == EDITS) {
        let Some(content) = edit(&keys.content).await else {
            return Err(NotReplaced::Unchanged(Fault::new(Kind::Conflict, "the old key's line is gone")));
        };
        if content == keys.content {
            return Ok(false);
        }
        match host.replace(&keys, &content).await {
            Err(NotReplaced::Unchanged(fault)) if fault.kind == Kind::Conflict && !last => {
                keys = host.read().await.map_err(NotReplaced::Unchanged)?;
            }
            other => return other.map(|()| true),
        }
    }
    Ok(false)
}

impl Account {
    /// Does the same at every host, at many of them at once.
    async fn everywhere<'a, T>(&'a self, work: impl AsyncFn(&'a str) -> T) -> Vec<(&'a str, T)> {
        everywhere(&self.hosts, async |name: &'a String| (name.as_str(), work(name).await)).await
    }
}

fn outcome(name: &str, changed: Result<(), NotReplaced>) -> HostOutcome {
    let (applied, message) = match changed {
        Ok(()) => (Applied::Yes, None),
        Err(NotReplaced::Unchanged(fault)) => (Applied::No, Some(fault.message)),
        Err(NotReplaced::Unknown(fault)) => (Applied::Unknown, Some(fault.message)),
    };
    HostOutcome { host: name.to_owned(), applied, message }
}

fn not_in_the_file(account: &Account) -> String {
    let file = account.authorized_keys.as_deref().unwrap_or(".ssh/authorized_keys");
    format!("the key lets \"{}\" in, but does not stand in {file}", account.login)
}
