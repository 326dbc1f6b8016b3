//! Rotates the access key of an IAM user. AWS makes the new key, and tells its
//! secret once: it is handed to the host the moment it is here. Old and new
//! work side by side until the new one is committed, published to the shared
//! credentials file, and the account's grace is over.

mod credentials_file;
mod keys;
mod profiles;

use std::ops::RangeInclusive;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::Instant;
use turnlock_aws::{ACCESS_KEY_ID, ENVIRONMENT, Place, Refusal, SECRET_ACCESS_KEY, Session, Signer};
use turnlock_kit::{
    Admin, Change, Credential, CredentialField, Done, Fault, Finding, Findings, Finished, Kind, Mark, MayRotate,
    Origin, Orphans, Overlap, Policy, Prepared, Rotator, Secret, Severity, Threshold, Traits, Verdicts,
};

use credentials_file::CredentialsFile;
use keys::{Key, Keys, Use};

/// The access key of an IAM user.
#[derive(Debug)]
pub struct AwsKey;

/// Which user, and who manages it.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
pub struct Account {
    /// The IAM user.
    pub login: String,
    /// Where AWS is, and who signs.
    #[serde(flatten)]
    pub place: Place,
    /// The profile of the shared credentials file that gets the new key.
    #[serde(default)]
    pub aws_sync_profile: Option<String>,
    /// What may be removed when the user has two keys already: `nothing`, or a key that was never `used`.
    #[serde(default)]
    pub aws_evict: Evict,
    /// Make a key for a record that has none.
    #[serde(default)]
    pub aws_create_key: bool,
    /// For how many days the old key goes on working.
    #[serde(default)]
    pub grace: Option<u64>,
}

/// What may be removed to make room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Evict {
    /// Nothing.
    #[default]
    Nothing,
    /// A key that was never used, and is not the record's own nor younger than a day.
    Unused,
}

/// How many keys AWS lets a user have.
const MOST_KEYS: usize = 2;
/// A change whose answer takes longer is not known to have happened. It also
/// tells which keys an attempt may have made.
const CHANGE_WITHIN: Duration = Duration::from_secs(10);
/// AWS tells times by whole seconds, those of keys and its own.
const ROUNDING_S: i64 = 1;
/// How long an orphan is looked for that the list does not show yet.
const LIST_LAG: Duration = Duration::from_secs(2);

impl Account {
    /// A session of whoever manages the user: not by a key that is about to go.
    async fn session(&self, own: &Credential, admin: Option<&Admin>, gone: Option<&str>) -> Result<Session, Fault> {
        let session = Session::open(&self.place, &Signer::choose(&self.place, &self.login, own, admin)?).await?;
        match Signer::key(own, &self.login) {
            Some(own) if gone == Some(session.key_id.as_str()) => Session::open(&self.place, &own).await,
            _ => Ok(session),
        }
    }

    fn keys<'a>(&'a self, session: &'a Session) -> Keys<'a> {
        Keys { session, login: &self.login }
    }

    /// Hands the new key to the shared credentials file.
    async fn sync(&self, current: &Credential) -> Result<(), Fault> {
        let Some(profile) = &self.aws_sync_profile else {
            return Ok(());
        };
        let (id, secret) = key_of(current, &self.login)?;
        CredentialsFile::of_this_user()?.put(profile, id, secret).await
    }
}

impl Rotator for AwsKey {
    type Account = Account;
    const PLUGIN: &'static str = "awskey";
    const SUMMARY: &'static str = "Rotates the access key of an IAM user.";
    const EXAMPLE_ACCOUNT: &'static str = r#"{"login": "backup"}"#;
    const CREDENTIAL: &'static [CredentialField] = &[
        CredentialField {
            name: ACCESS_KEY_ID,
            option: "aws_key_id",
            mark: Mark::WriteBack,
            description: "The access key's id.",
        },
        CredentialField {
            name: SECRET_ACCESS_KEY,
            option: "aws_key_secret",
            mark: Mark::WriteBack,
            description: "The access key's secret.",
        },
    ];
    const SHOWN: &'static [&'static str] = &[ACCESS_KEY_ID];
    const ENVIRONMENT: &'static [&'static str] = ENVIRONMENT;

    fn traits(account: Option<&Account>) -> Traits {
        Traits {
            origin: Origin::Target,
            overlap: Overlap::Both,
            // A record without a key may get its first.
            needs_current: false,
            settle_ms: 10_000,
            finish: true,
            publishes: account.is_none_or(|account| account.aws_sync_profile.is_some()),
            ..Traits::password()
        }
    }

    async fn check(account: &Account, current: &Credential, admin: Option<&Admin>) -> Result<Findings, Fault> {
        let session = account.session(current, admin, None).await?;
        let keys = account.keys(&session);
        let listed = keys.list().await?;
        let mut findings = account.place.findings();
        let mut find = |severity, message: String| findings.push(Finding { severity, message });
        let mut may_rotate = MayRotate::Unknown;
        if let Err(fault) = belongs(account, current, &listed) {
            may_rotate = MayRotate::No;
            find(Severity::Error, fault.message);
        }
        for key in &listed {
            let used = keys.last_use(key).await;
            find(Severity::Info, keys.told(key, &used));
        }
        if listed.len() >= MOST_KEYS {
            let (severity, message) = match to_evict(account, &keys, current, &listed).await {
                Ok(key) => (Severity::Warning, format!("access key {} will be removed to make room", key.id)),
                Err(fault) => (Severity::Error, fault.message),
            };
            if severity == Severity::Error {
                may_rotate = MayRotate::No;
            }
            find(severity, message);
        }
        if let (Some(profile), Err(fault)) =
            (&account.aws_sync_profile, CredentialsFile::of_this_user().and_then(|file| file.can_be_written()))
        {
            find(Severity::Warning, format!("the profile \"{profile}\" cannot be written: {}", fault.message));
        }
        find(Severity::Info, format!("{} asks", session.signer));
        let authenticated = match Signer::key(current, &account.login) {
            Some(own) => is_taken_for(account, &own).await?,
            None => false,
        };
        Ok(Findings {
            server: Some(session.server().to_owned()),
            tls: Some(format!("TLS, {}", session.believed())),
            authenticated,
            may_rotate,
            findings,
        })
    }

    async fn prepare(
        account: &Account,
        current: Option<&Credential>,
        admin: Option<&Admin>,
        _: &Policy,
    ) -> Result<Prepared, Fault> {
        let nothing = Credential::empty();
        let session = account.session(current.unwrap_or(&nothing), admin, None).await?;
        let listed = account.keys(&session).list().await?;
        Ok(Prepared { existing: listed.into_iter().map(|key| key.id).collect(), ..Prepared::default() })
    }

    async fn apply(account: &Account, change: &Change, threshold: Threshold) -> Result<Done, Fault> {
        let session = account.session(&change.current, change.admin.as_ref(), None).await?;
        let keys = account.keys(&session);
        let listed = keys.list().await?;
        belongs(account, &change.current, &listed)?;
        let evicted = match listed.len() {
            0..MOST_KEYS => None,
            _ => Some(to_evict(account, &keys, &change.current, &listed).await?),
        };

        let crossed = threshold.cross().await?;
        let until = Instant::now() + CHANGE_WITHIN;
        let refused = |refusal: Refusal| {
            if refusal.is_definite { crossed.definitely_refused(refusal.fault) } else { refusal.fault }
        };
        if let Some(key) = &evicted {
            keys.delete(&key.id, until).await.map_err(refused)?;
        }
        let made = keys.create(until).await.map_err(refused)?;
        let id = made.id.clone();
        match crossed.minted(made.credential()).await {
            Ok(done) => Ok(match evicted {
                Some(key) => done.warning(format!("access key {} was never used and is removed", key.id)),
                None => done,
            }),
            Err(fault) => {
                // Nobody holds its secret: this key and no other. What fails
                // here is an orphan that `revert` finds.
                let _ = keys.delete(&id, Instant::now() + CHANGE_WITHIN).await;
                Err(fault)
            }
        }
    }

    async fn verify(account: &Account, credential: &Credential, _: Option<&Admin>) -> Result<Verdicts, Fault> {
        let key = Signer::key(credential, &account.login)
            .ok_or_else(|| Fault::new(Kind::InvalidInput, format!("\"{}\" has no whole access key", account.login)))?;
        Ok(if is_taken_for(account, &key).await? { Verdicts::accepted() } else { Verdicts::refused() })
    }

    async fn publish(
        account: &Account,
        current: &Credential,
        _: Option<&Admin>,
        threshold: Threshold,
    ) -> Result<Finished, Fault> {
        threshold.cross().await?;
        account.sync(current).await?;
        Ok(Finished::default())
    }

    async fn finish(
        account: &Account,
        current: &Credential,
        previous: &Credential,
        admin: Option<&Admin>,
        threshold: Threshold,
    ) -> Result<Finished, Fault> {
        let old = shown_id(previous);
        if old.is_some() && old == shown_id(current) {
            return Err(Fault::new(Kind::InvalidInput, "current and previous are the same access key"));
        }
        threshold.cross().await?;
        // Whoever reads the file has the new key before the old one goes. It
        // may be the profile that signs here.
        account.sync(current).await?;
        let Some(old) = old else {
            return Ok(Finished::default());
        };
        let session = account.session(current, admin, Some(old)).await?;
        let keys = account.keys(&session);
        let listed = keys.list().await?;
        let Some(key) = listed.iter().find(|key| key.id == old) else {
            return Ok(Finished::default());
        };
        let used = keys.last_use(key).await;
        if previous.get(SECRET_ACCESS_KEY).is_none() && (key.active || !used.is_never()) {
            // An orphan that somebody has taken up, or switched on again.
            let warning = format!("access key {old} was taken for an orphan, but somebody uses it: it stays");
            return Ok(Finished { warnings: vec![warning], ..Finished::default() });
        }
        let newest =
            listed.iter().filter(|key| Some(key.id.as_str()) == shown_id(current)).map(|key| key.created).max();
        let late = keys.used_by_others_since(newest, &used).map(|by| {
            format!(
                "access key {old} was still used after the new one was made ({by}): whoever that is needs the new one"
            )
        });
        if key.active {
            keys.deactivate(old).await?;
        }
        keys.delete(old, Instant::now() + CHANGE_WITHIN).await.map_err(|refusal| {
            let fault = refusal.fault;
            Fault { message: format!("access key {old} is inactive, but still there: {}", fault.message), ..fault }
        })?;
        Ok(Finished {
            removed: vec![format!("access key {old}")],
            warnings: late.into_iter().collect(),
            ..Finished::default()
        })
    }

    async fn remove_orphans(
        account: &Account,
        previous: &Credential,
        orphans: &Orphans,
        admin: Option<&Admin>,
        threshold: Threshold,
    ) -> Result<Finished, Fault> {
        let session = account.session(previous, admin, None).await?;
        let keys = account.keys(&session);
        let until = Instant::now() + LIST_LAG;
        let found = loop {
            let found = possible_orphans(&keys, orphans).await?;
            if !found.is_empty() || Instant::now() >= until {
                break found;
            }
            tokio::time::sleep(LIST_LAG / 4).await;
        };
        match found.as_slice() {
            [] => Ok(Finished::default()),
            [orphan] => {
                if orphan.active {
                    threshold.cross().await?;
                    keys.deactivate(&orphan.id).await?;
                }
                let warning = format!(
                    "access key {} was made and never learned: it is inactive now, and will be removed unless somebody \
                     switches it on again",
                    orphan.id
                );
                let left = Credential::empty().with(ACCESS_KEY_ID, Secret::new(orphan.id.clone()));
                Ok(Finished { left: Some(left), warnings: vec![warning], ..Finished::default() })
            }
            several => {
                let ids: Vec<&str> = several.iter().map(|key| key.id.as_str()).collect();
                let message = format!(
                    "an attempt may have made one of the access keys {} of \"{}\", and it is not clear which: none was touched",
                    ids.join(" and "),
                    account.login
                );
                Err(Fault::new(Kind::Conflict, message).hint("remove in AWS the one that nobody uses"))
            }
        }
    }
}

/// How old, in seconds, a key is now that the attempt made. The change is
/// sent right behind the permit, or not at all.
fn window(orphans: &Orphans) -> RangeInclusive<i64> {
    let seconds = |ms: u64| i64::try_from(ms / 1000).unwrap_or(i64::MAX / 2);
    let began = seconds(orphans.began_ms_ago);
    let sent = began - seconds(u64::try_from(CHANGE_WITHIN.as_millis()).unwrap_or(0)) - ROUNDING_S;
    let ended = if orphans.ended_ms_ago == 0 { 0 } else { seconds(orphans.ended_ms_ago) + ROUNDING_S };
    sent.max(ended)..=began + 2 * ROUNDING_S
}

/// The keys that the attempt may have made and nobody has used.
async fn possible_orphans(keys: &Keys<'_>, orphans: &Orphans) -> Result<Vec<Key>, Fault> {
    let window = window(orphans);
    let mut found = Vec::new();
    for key in keys.list().await? {
        let age = keys.session.now() - key.created;
        // A clock that was set meanwhile makes a key younger than now.
        if orphans.existing.contains(&key.id) || !window.contains(&age.max(0)) {
            continue;
        }
        match keys.last_use(&key).await {
            Use::Never => found.push(key),
            Use::Last { .. } => {}
            Use::Unknown(fault) => {
                let message = format!("it cannot be told whether access key {} was used: {}", key.id, fault.message);
                return Err(Fault { message, ..fault });
            }
        }
    }
    Ok(found)
}

/// Whether AWS takes this key, and for this very user.
async fn is_taken_for(account: &Account, key: &Signer<'_>) -> Result<bool, Fault> {
    let session = Session::without_role(&account.place, key).await?;
    let caller = match session.caller().await {
        Ok(caller) => caller,
        Err(refusal) if refusal.is_of_the_key => return Ok(false),
        Err(refusal) => return Err(refusal.fault),
    };
    if caller.user() != Some(account.login.as_str()) {
        return Err(Fault::new(
            Kind::Conflict,
            format!("{} is no key of the user \"{}\", but of {}", session.signer, account.login, caller.arn),
        )
        .hint("correct the record's login or its key"));
    }
    match &account.place.aws_account_id {
        Some(id) if *id != caller.account => Err(Fault::new(
            Kind::Conflict,
            format!("{} belongs to the AWS account {}, not to {id}", session.signer, caller.account),
        )
        .hint("correct aws_account_id or the key")),
        _ => Ok(true),
    }
}

/// Refuses a record whose key is none of the user's, or that has none and
/// shall not get its first.
fn belongs(account: &Account, current: &Credential, listed: &[Key]) -> Result<(), Fault> {
    let login = &account.login;
    let Some(id) = shown_id(current) else {
        return if account.aws_create_key {
            Ok(())
        } else {
            Err(Fault::new(Kind::InvalidInput, format!("the record of \"{login}\" holds no access key")).hint(
                "set cmdr:aws_key_id and cmdr:aws_key_secret, or turnlock:aws_create_key=true to make the first one",
            ))
        };
    };
    if listed.iter().any(|key| key.id == id) {
        return Ok(());
    }
    let theirs: Vec<&str> = listed.iter().map(|key| key.id.as_str()).collect();
    let theirs = if theirs.is_empty() { "none".to_owned() } else { theirs.join(" and ") };
    Err(Fault::new(Kind::Conflict, format!("access key {id} is none of \"{login}\", whose keys are: {theirs}"))
        .hint("correct the record's login or cmdr:aws_key_id"))
}

/// The key that makes room, if one may.
async fn to_evict(account: &Account, keys: &Keys<'_>, current: &Credential, listed: &[Key]) -> Result<Key, Fault> {
    const A_DAY: i64 = 24 * 60 * 60;
    let mut told = Vec::new();
    let mut evictable = None;
    for key in listed {
        let used = keys.last_use(key).await;
        told.push(keys.told(key, &used));
        let of_record = shown_id(current) == Some(key.id.as_str());
        // AWS tells of a use some hours later.
        if used.is_never() && !of_record && keys.session.now() - key.created > A_DAY {
            evictable = Some(key.clone());
        }
    }
    match evictable {
        Some(key) if account.aws_evict == Evict::Unused => Ok(key),
        evictable => {
            let message =
                format!("\"{}\" has {} access keys already, which is all that AWS allows", account.login, listed.len());
            let hint = match evictable {
                Some(key) => format!("remove {}, or let turnlock:aws_evict=unused do it", key.id),
                None => {
                    "remove in AWS the key that nobody needs, or, if it is what an earlier rotation left, let turnlock \
                         recover --finish-now do it"
                        .to_owned()
                }
            };
            Err(Fault { causes: told, ..Fault::new(Kind::Conflict, message) }.hint(hint))
        }
    }
}

/// A credential's id, which is no secret.
fn shown_id(credential: &Credential) -> Option<&str> {
    #[expect(clippy::disallowed_methods, reason = "the id of an access key is no secret")]
    credential.get(ACCESS_KEY_ID).map(Secret::expose)
}

fn key_of<'a>(credential: &'a Credential, login: &str) -> Result<(&'a str, &'a Secret), Fault> {
    shown_id(credential)
        .zip(credential.get(SECRET_ACCESS_KEY))
        .ok_or_else(|| Fault::new(Kind::InvalidInput, format!("\"{login}\" has no whole access key")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_seconds_behind_the_permit_are_ours() {
        let of = |began_ms_ago, ended_ms_ago| {
            let orphans = Orphans { existing: Vec::new(), began_ms_ago, ended_ms_ago };
            let window = window(&orphans);
            (*window.start(), *window.end())
        };
        // Just now: the attempt may still be sending.
        assert_eq!(of(900, 0), (0, 2));
        assert_eq!(of(8_000, 0), (0, 10));
        // A minute ago: a colleague's key of half a minute ago is none of ours.
        assert_eq!(of(60_000, 20_000), (49, 62));
        // Its time was over earlier than that.
        assert_eq!(of(60_000, 55_000), (56, 62));
    }
}
