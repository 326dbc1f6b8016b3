use std::time::Duration;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use turnlock_protocol::operation::{Admin, Findings, Finished, Orphans, Prepared, Verdicts};
use turnlock_protocol::{Credential, Fault, Kind, Mark, Policy, Secret, Traits, field};

use crate::threshold::{Done, Threshold};

/// One field of a rotator's credential, and the record's field it lives in.
#[derive(Debug, Clone, Copy)]
pub struct CredentialField {
    /// Its name in the credential, such as `access_key_id`.
    pub name: &'static str,
    /// Its option in a record, such as `aws_key_id`.
    pub option: &'static str,
    /// Whether it is only read or also written back.
    pub mark: Mark,
    /// What it is.
    pub description: &'static str,
}

/// The credential of almost every rotator.
pub const PASSWORD: CredentialField = CredentialField {
    name: field::PASSWORD,
    option: field::PASSWORD,
    mark: Mark::WriteBack,
    description: "The account's password.",
};

/// Two secrets and the login between them. A struct, so that they cannot be
/// swapped at a call.
#[derive(Debug)]
pub struct Change {
    /// What the target accepts now, as far as the host knows.
    pub current: Credential,
    /// The candidate; absent where the target mints it.
    pub next: Option<Credential>,
    /// Another login that may reset the account.
    pub admin: Option<Admin>,
    /// The attempt's id, the same on a repeated apply.
    pub attempt: String,
    /// How long the operation may take from its start.
    pub deadline: Duration,
}

impl Change {
    /// The candidate's password.
    ///
    /// # Errors
    /// `invalid_input` when the host sent none.
    pub fn next_password(&self) -> Result<&Secret, Fault> {
        self.next
            .as_ref()
            .and_then(|next| next.get(field::PASSWORD))
            .ok_or_else(|| Fault::new(Kind::InvalidInput, "`next` has no password"))
    }
}

/// A login and its password: the account's own, or the admin's where there is one.
#[derive(Debug)]
pub struct WorkingSet<'a> {
    /// Who logs in.
    pub login: &'a str,
    /// With what.
    pub password: &'a Secret,
    /// Whether that is the admin.
    pub is_admin: bool,
}

impl<'a> WorkingSet<'a> {
    /// The admin's login where there is one, else the account's own.
    ///
    /// # Errors
    /// `invalid_input` when that login has no password.
    pub fn choose(login: &'a str, current: &'a Credential, admin: Option<&'a Admin>) -> Result<Self, Fault> {
        let (login, credential, is_admin) = match admin {
            Some(admin) => (admin.login.as_str(), &admin.credential, true),
            None => (login, current, false),
        };
        let password = credential.get(field::PASSWORD).ok_or_else(|| {
            let whose = if is_admin { "the admin" } else { "the account" };
            Fault::new(Kind::InvalidInput, format!("there is no password for {whose} \"{login}\""))
                .hint("set the record's password, or name an admin record")
        })?;
        Ok(Self { login, password, is_admin })
    }
}

/// What an author writes: one kind of credential on one kind of target.
#[expect(async_fn_in_trait, reason = "a rotator runs on one thread; no caller needs Send")]
pub trait Rotator: 'static {
    /// Where and who: serde reads it, schemars documents it, and a record's
    /// fields are routed by it.
    type Account: DeserializeOwned + JsonSchema;

    /// The plugin's name, `[a-z0-9-]+`; the program is `turnlock-<plugin>`.
    const PLUGIN: &'static str;
    /// The rotator's own version; `env!("CARGO_PKG_VERSION")` in its crate.
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    /// One sentence for people.
    const SUMMARY: &'static str;
    /// An account for the examples in `--help`, as JSON.
    const EXAMPLE_ACCOUNT: &'static str;
    /// The fields of its credential.
    const CREDENTIAL: &'static [CredentialField] = &[PASSWORD];
    /// Those fields of a credential that are no secrets and may be named to
    /// people, such as an access key's id or a public key. All others are
    /// removed from every text that leaves.
    const SHOWN: &'static [&'static str] = &[];
    /// The port when none is given; also detects the plugin.
    const DEFAULT_PORT: Option<u16> = None;
    /// Further ports that detect the plugin.
    const PORTS: &'static [u16] = &[];
    /// URL schemes that detect the plugin.
    const URL_SCHEMES: &'static [&'static str] = &[];
    /// Environment variables it needs; never secret-bearing ones.
    const ENVIRONMENT: &'static [&'static str] = &[];

    /// The facts that drive the engine: of one account, or with none the
    /// widest of any account.
    fn traits(account: Option<&Self::Account>) -> Traits;

    /// Looks, logs in, and tells what could go wrong. Changes nothing.
    async fn check(account: &Self::Account, current: &Credential, admin: Option<&Admin>) -> Result<Findings, Fault>;

    /// Makes a candidate, or narrows the policy by the target's own limits.
    async fn prepare(
        _account: &Self::Account,
        _current: Option<&Credential>,
        _admin: Option<&Admin>,
        _policy: &Policy,
    ) -> Result<Prepared, Fault> {
        Ok(Prepared::default())
    }

    /// Changes the target: everything before `threshold.cross()` only reads.
    async fn apply(account: &Self::Account, change: &Change, threshold: Threshold) -> Result<Done, Fault>;

    /// Asks the target, on a new connection, whether it accepts a credential.
    /// Not asked is [`Kind::Unsupported`], could not ask is an error, and
    /// refused is only what the target itself refused.
    async fn verify(account: &Self::Account, credential: &Credential, admin: Option<&Admin>)
    -> Result<Verdicts, Fault>;

    /// Removes what the old credential left behind. Crosses the threshold
    /// before it changes anything.
    async fn finish(
        _account: &Self::Account,
        _current: &Credential,
        _previous: &Credential,
        _admin: Option<&Admin>,
        _threshold: Threshold,
    ) -> Result<Finished, Fault> {
        Ok(Finished::default())
    }

    /// Hands the new credential to others and removes nothing: `finish` while
    /// the account's grace lasts. Only asked for where the traits say
    /// `publishes`; `finish` itself publishes, too.
    async fn publish(
        _account: &Self::Account,
        _current: &Credential,
        _admin: Option<&Admin>,
        _threshold: Threshold,
    ) -> Result<Finished, Fault> {
        Err(Fault::new(Kind::Unsupported, format!("{} hands credentials to nobody", Self::PLUGIN)))
    }

    /// Rolls back a partial change of many hosts.
    async fn revert(
        _account: &Self::Account,
        _current: &Credential,
        _previous: &Credential,
        _admin: Option<&Admin>,
        _threshold: Threshold,
    ) -> Result<Finished, Fault> {
        Err(Fault::new(Kind::Unsupported, format!("{} has nothing to roll back", Self::PLUGIN)))
    }

    /// Removes what an attempt of ours made the target mint and nobody
    /// learned of, or makes it unusable and names it as `left` for a later
    /// `finish`: `revert` with `orphans`. Logs in with `previous` or `admin`;
    /// more than one candidate for an orphan is a `conflict`.
    async fn remove_orphans(
        _account: &Self::Account,
        _previous: &Credential,
        _orphans: &Orphans,
        _admin: Option<&Admin>,
        _threshold: Threshold,
    ) -> Result<Finished, Fault> {
        Err(Fault::new(Kind::Unsupported, format!("{} leaves no orphans behind", Self::PLUGIN)))
    }
}
