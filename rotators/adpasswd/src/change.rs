//! The one change, what is decided before it, and what is said about one that
//! was refused.

use std::collections::HashSet;
use std::time::{SystemTime, UNIX_EPOCH};

use ldap3::Mod;
use ldap3::exop::{Exop, PasswordModify};
use turnlock_kit::{Fault, Finding, Kind, MayRotate, PasswordLimits, Secret, Severity, WorkingSet};
use zeroize::Zeroizing;

use crate::Account;
use crate::directory::Entry;
use crate::ppolicy;
use crate::refusal::{self, Trouble};
use crate::rights;
use crate::session::Session;

/// `UserAccountControl`: switched off.
const DISABLED: i64 = 0x2;
/// The same, computed: locked, expired.
const LOCKED: i64 = 0x10;

/// What can be told without asking anybody.
pub(crate) fn possible(account: &Account, worker: &WorkingSet<'_>, next: &Secret) -> Result<(), Fault> {
    if next.is_empty() {
        return Err(Fault::new(Kind::InvalidInput, "an empty password would open the account to everybody"));
    }
    let wanted = [(account.unlock, "unlock"), (account.must_change, "must_change")];
    match wanted.into_iter().find(|(wanted, _)| *wanted && !worker.is_admin) {
        Some((_, name)) => Err(Fault::new(Kind::InvalidInput, format!("`{name}` is for a reset by an admin"))
            .hint(format!("name an admin record, or leave out `{name}`"))),
        None => Ok(()),
    }
}

/// What would be refused anyway, or could not be proven afterwards. Only reads.
pub(crate) fn sensible(
    session: &Session,
    account: &Account,
    entry: &Entry,
    worker: &WorkingSet<'_>,
) -> Result<(), Fault> {
    let (whose, place) = (account.of_whom(), account.place());
    if !session.directory.is_active_directory() {
        if account.must_change || account.unlock {
            return Err(Fault::new(Kind::Unsupported, "`unlock` and `must_change` are for Active Directory")
                .hint("elsewhere a reset unlocks by itself, and the policy's pwdMustChange demands the change"));
        }
        if !session.directory.takes_password_modify() {
            return Err(Fault::new(
                Kind::Unsupported,
                format!("{place} has no operation to change passwords (RFC 3062)"),
            ));
        }
        return Ok(());
    }
    if !worker.is_admin {
        return Ok(());
    }
    if entry.number("userAccountControl").is_some_and(|flags| flags & DISABLED != 0) {
        return Err(Fault::new(Kind::Permission, format!("the account \"{whose}\" is disabled in {place}"))
            .hint("enable the account first: nobody could prove its new password"));
    }
    if account_expired(entry) {
        return Err(Fault::new(Kind::Permission, format!("the account \"{whose}\" has expired in {place}"))
            .hint("extend the account first: nobody could prove its new password"));
    }
    if is_locked(entry) && !account.unlock {
        return Err(Fault::new(Kind::LockedOut, format!("the account \"{whose}\" is locked in {place}"))
            .hint("set `unlock = true`, or wait until the lock-out has ended: nobody could prove its new password"));
    }
    Ok(())
}

fn is_locked(entry: &Entry) -> bool {
    match entry.number("msDS-User-Account-Control-Computed") {
        Some(flags) => flags & LOCKED != 0,
        None => entry.number("lockoutTime").is_some_and(|time| time != 0),
    }
}

fn account_expired(entry: &Entry) -> bool {
    entry.number("accountExpires").is_some_and(|at| at > 0 && at < i64::MAX && at < now())
}

/// Active Directory's time: units of 100 ns since 1601.
fn now() -> i64 {
    const TO_1970: i64 = 116_444_736_000_000_000;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos() / 100).unwrap_or(i64::MAX - TO_1970).saturating_add(TO_1970)
}

/// Sends the one change, once.
pub(crate) async fn send(
    session: &mut Session,
    account: &Account,
    entry: &Entry,
    worker: &WorkingSet<'_>,
    next: &Secret,
) -> Result<(), Trouble> {
    let answer = if session.directory.is_active_directory() {
        let changes = modifications(account, worker, next);
        session.ldap().modify(&entry.dn, changes).await?
    } else {
        #[expect(clippy::disallowed_methods, reason = "RFC 3062 takes passwords as they are, over TLS")]
        let (old, new) = (worker.password.expose(), next.expose());
        let request = PasswordModify {
            user_id: worker.is_admin.then_some(entry.dn.as_str()),
            old_pass: (!worker.is_admin).then_some(old),
            new_pass: Some(new),
        };
        session.ldap().with_controls(vec![ppolicy::wanted()]).extended(Exop::from(request)).await?.1
    };
    if answer.rc == 0 { Ok(()) } else { Err(Trouble::Refused(answer)) }
}

/// Everything in one modification, which is made whole or not at all.
fn modifications(account: &Account, worker: &WorkingSet<'_>, next: &Secret) -> Vec<Mod<Vec<u8>>> {
    let text = |value: &str| value.as_bytes().to_vec();
    let to = |name: &str, value: &str| Mod::Replace(text(name), HashSet::from([text(value)]));
    let password = |secret: &Secret| HashSet::from([quoted(secret).to_vec()]);
    let name = || text("unicodePwd");
    if !worker.is_admin {
        return vec![Mod::Delete(name(), password(worker.password)), Mod::Add(name(), password(next))];
    }
    let mut changes = vec![Mod::Replace(name(), password(next))];
    changes.extend(account.unlock.then(|| to("lockoutTime", "0")));
    changes.extend(account.must_change.then(|| to("pwdLastSet", "0")));
    changes
}

/// A password as `unicodePwd` wants it: in quotes, UTF-16LE.
fn quoted(secret: &Secret) -> Zeroizing<Vec<u8>> {
    #[expect(clippy::disallowed_methods, reason = "Active Directory takes the password itself, over TLS")]
    let text = secret.expose();
    let units = ['"'].into_iter().chain(text.chars()).chain(['"']);
    let mut bytes = Zeroizing::new(Vec::with_capacity(4 * (text.len() + 2)));
    for one in units {
        let mut pair = [0; 2];
        for unit in one.encode_utf16(&mut pair) {
            bytes.extend_from_slice(&unit.to_le_bytes());
        }
    }
    bytes
}

/// What Active Directory wants of a password here, as far as it shows it.
struct Rules {
    min_length: Option<u32>,
    words: Vec<String>,
    /// When the account may change its own password again; units of 100 ns.
    young_until: Option<i64>,
}

const OF_A_DOMAIN: [&str; 6] =
    ["minPwdLength", "pwdHistoryLength", "pwdProperties", "minPwdAge", "lockoutThreshold", "lockOutObservationWindow"];
const OF_SETTINGS: [&str; 6] = [
    "msDS-MinimumPasswordLength",
    "msDS-PasswordHistoryLength",
    "msDS-PasswordComplexityEnabled",
    "msDS-MinimumPasswordAge",
    "msDS-LockoutThreshold",
    "msDS-LockoutObservationWindow",
];

impl Rules {
    /// The fine-grained settings of this account, or the domain's.
    async fn read(session: &mut Session, entry: &Entry) -> Option<Self> {
        let domain = session.directory.domain().to_owned();
        let (names, place) = match entry.text("msDS-ResultantPSO") {
            Some(settings) => (OF_SETTINGS, settings.to_owned()),
            None => (OF_A_DOMAIN, domain),
        };
        let found = session.read(&place, &names).await.ok()?;
        let [length, history, complex, age, threshold, window] = names;
        let number = |name: &str| found.number(name).filter(|number| *number != 0);
        let is_complex = number(complex).is_some_and(|bits| bits & 1 != 0)
            || found.text(complex).is_some_and(|text| text.eq_ignore_ascii_case("true"));
        let min_length = number(length).and_then(|length| u32::try_from(length).ok());
        let min_age = number(age).map(i64::saturating_abs);
        let words = [
            min_length.map(|length| format!("at least {length} characters")),
            is_complex.then(|| "characters of three classes, and no part of the account's name".to_owned()),
            number(history).map(|count| format!("none of the last {count} passwords")),
            min_age.map(|age| format!("no change within {} of the last one", span(age))),
            number(threshold).zip(number(window)).map(|(count, window)| {
                format!("{count} wrong passwords within {} lock the account", span(window.saturating_abs()))
            }),
        ];
        Some(Self {
            min_length,
            words: words.into_iter().flatten().collect(),
            young_until: entry
                .number("pwdLastSet")
                .filter(|set| *set > 0)
                .zip(min_age)
                .map(|(set, age)| set.saturating_add(age)),
        })
    }

    fn is_too_young(&self) -> bool {
        self.young_until.is_some_and(|until| until > now())
    }
}

const TOO_YOUNG: &str = "the password was changed too recently: the domain's minimum age is not over";

/// A time in words; units of 100 ns.
fn span(units: i64) -> String {
    let seconds = units / 10_000_000;
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A refusal by policy, with the rules that the directory shows.
pub(crate) async fn with_the_directorys_rules(session: &mut Session, entry: &Entry, mut fault: Fault) -> Fault {
    if fault.kind != Kind::Policy || !session.directory.is_active_directory() {
        return fault;
    }
    let Some(rules) = Rules::read(session, entry).await else {
        return fault;
    };
    if rules.is_too_young() {
        fault.causes.push(TOO_YOUNG.to_owned());
    }
    if let Some(min_length) = rules.min_length {
        fault.learned = Some(Box::new(PasswordLimits { min_length: Some(min_length), ..PasswordLimits::default() }));
    }
    fault.causes.push(format!("the domain wants: {}", rules.words.join("; ")));
    fault
}

/// What a person should know before the change, and whether it can succeed as
/// far as was seen.
pub(crate) async fn findings(
    session: &mut Session,
    account: &Account,
    entry: &Entry,
    worker: &WorkingSet<'_>,
) -> Result<(MayRotate, Vec<Finding>), Fault> {
    let mut findings = account.tls().findings();
    let mut find = |severity, message: String| findings.push(Finding { severity, message });
    if let Some(grace) = session.said.grace {
        find(Severity::Warning, format!("the password has expired; {grace} more log-ins are granted"));
    }
    if let Some(seconds) = session.said.expires_in {
        find(Severity::Info, format!("the password expires in {}", span(i64::from(seconds) * 10_000_000)));
    }
    if let Some(complaint) = session.said.complaint {
        find(Severity::Warning, complaint.words().to_owned());
    }
    if let Err(fault) = sensible(session, account, entry, worker) {
        find(Severity::Error, fault.message);
    }
    let mut may = None;
    if session.directory.is_active_directory() {
        may = rights::may_change(session, &entry.dn, worker.is_admin).await;
        if may == Some(false) {
            find(Severity::Error, refusal::no_right(account, worker).message);
        }
        if let Some(rules) = Rules::read(session, entry).await {
            if rules.is_too_young() && !worker.is_admin {
                find(Severity::Error, TOO_YOUNG.to_owned());
            }
            if !rules.words.is_empty() {
                find(Severity::Info, format!("the domain wants: {}", rules.words.join("; ")));
            }
        }
    } else if worker.is_admin {
        find(Severity::Info, "the directory does not tell whether the admin may reset this password".to_owned());
    } else {
        may = Some(true);
    }
    let is_hopeless = findings.iter().any(|finding| finding.severity == Severity::Error);
    let may_rotate = match may {
        _ if is_hopeless => MayRotate::No,
        Some(_) => MayRotate::Yes,
        None => MayRotate::Unknown,
    };
    Ok((may_rotate, findings))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_travels_in_quotes_and_utf_16() {
        let bytes = quoted(&Secret::new("Aß\u{1F4A3}\"".to_owned()));
        let expected: Vec<u8> = "\"Aß\u{1F4A3}\"\"".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(*bytes, expected);
    }
}
