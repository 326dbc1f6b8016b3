//! Changes only the vault. The smallest rotator: copy it to begin a new one.

use schemars::JsonSchema;
use serde::Deserialize;
use turnlock_kit::{
    Admin, Change, Credential, Done, Fault, Findings, MayRotate, Rotator, Threshold, Traits, Verdicts, VerifyBy,
};

/// A password that opens nothing but the vault.
#[derive(Debug)]
pub struct Noop;

/// Nothing is needed; a login only names the account.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Account {
    /// The account's name, for people.
    #[serde(default)]
    pub login: Option<String>,
}

impl Rotator for Noop {
    type Account = Account;
    const PLUGIN: &'static str = "noop";
    const SUMMARY: &'static str = "Changes only the vault: there is no target behind it.";
    const EXAMPLE_ACCOUNT: &'static str = r#"{"login": "door code"}"#;

    fn traits(_account: Option<&Account>) -> Traits {
        Traits { needs_current: false, admin_reset: false, verify: VerifyBy::None, ..Traits::password() }
    }

    async fn check(_account: &Account, _current: &Credential, _admin: Option<&Admin>) -> Result<Findings, Fault> {
        Ok(Findings { authenticated: true, may_rotate: MayRotate::Yes, ..Findings::default() })
    }

    async fn apply(_account: &Account, change: &Change, threshold: Threshold) -> Result<Done, Fault> {
        change.next_password()?;
        Ok(threshold.cross().await?.done())
    }

    async fn verify(_account: &Account, _credential: &Credential, _admin: Option<&Admin>) -> Result<Verdicts, Fault> {
        Ok(Verdicts::accepted())
    }
}
