//! Telling those who use a credential that there is a new one: a command that
//! gets a document on its standard input, or a webhook. After the commit and
//! before the old credential is removed; a failure is told, tried again, and
//! takes nothing back.
//!
//! The vault keeps that hooks are owed ([`Untold`]), in the commit itself. Which
//! hooks those are is read from record and configuration whenever they run. So
//! each runs at least once for the newest credential, perhaps twice, and a
//! wrong one can be mended.

mod command;
mod document;
mod webhook;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::pin;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use reqwest::Url;
use serde::Deserialize;
use turnlock_protocol::{Credential, Secret};

use crate::engine::{Engine, durable};
use crate::failure::{Failure, State};
use crate::lease;
use crate::plan::{Identity, Plan};
use crate::record::{Record, Uid};
use crate::resolve;
use crate::stage::Untold;
use crate::vault::{Lease, Stored};

/// Between the tries of one run.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(2)];
/// No further try begins later than this.
const TRIED_FOR: Duration = Duration::from_secs(5);
/// The pause after a run that failed; each further one is five times as long…
const FIRST_PAUSE_S: i64 = 60;
/// …and never longer than this.
const LONGEST_PAUSE_S: i64 = 6 * 3600;
const DEFAULT_TIMEOUT_S: u64 = 30;
const LONGEST_TIMEOUT_S: u64 = 3600;

/// `[hooks]` in `turnlock.toml`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hooks {
    /// The only places whose programs a record may name: whoever may edit a
    /// record must not choose what runs on this machine.
    pub directories: Vec<PathBuf>,
    /// Hooks of every record, by their names.
    pub global: BTreeMap<String, Global>,
}

/// A hook of every record.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Global {
    command: Vec<String>,
    webhook: Option<String>,
    /// Tell this command the new secret of those records that allow it.
    secret: bool,
    timeout: Option<u64>,
    key_file: Option<PathBuf>,
    ca: Option<PathBuf>,
}

/// One hook of one record.
#[derive(Debug)]
pub(crate) struct Hook {
    /// Tells it from the record's others; may be a secret address.
    name: String,
    /// The same for people.
    pub(crate) shown: String,
    way: Result<Way, String>,
    timeout: Duration,
}

#[derive(Debug)]
enum Way {
    Command { program: PathBuf, arguments: Vec<String>, within: Option<Vec<PathBuf>>, with_secret: bool },
    Webhook { url: Url, ca: Option<PathBuf>, key: Option<Key> },
}

/// What a webhook is signed with.
#[derive(Debug)]
enum Key {
    Text(Secret),
    File(PathBuf),
}

impl Hooks {
    /// Whether the configuration makes sense by itself.
    ///
    /// # Errors
    /// What is wrong with which hook.
    pub fn validate(&self) -> Result<(), Failure> {
        for (name, global) in &self.global {
            let wrong = match (global.command.is_empty(), &global.webhook) {
                (true, None) => Some("says neither `command` nor `webhook`"),
                (false, Some(_)) => Some("says both `command` and `webhook`"),
                (true, Some(_)) if global.secret => Some("a webhook is never told a secret"),
                (false, None) if global.key_file.is_some() || global.ca.is_some() => {
                    Some("`key_file` and `ca` are for webhooks")
                }
                _ => None,
            };
            let way = global.hook(name, false).way.err();
            if let Some(wrong) = wrong.map(str::to_owned).or(way) {
                return Err(Failure::usage(format!("[hooks.global.{name}] {wrong}")));
            }
        }
        Ok(())
    }

    /// The hooks of a record: everybody's, then its own.
    pub(crate) fn of(&self, record: &Record) -> Vec<Hook> {
        let said = |name: &str| resolve::said(record, name).first().map(clear).map(str::to_owned);
        let with_secret = said("hook_secret").is_some_and(|text| text.eq_ignore_ascii_case("true"));
        let mut hooks: Vec<Hook> = self.global.iter().map(|(name, global)| global.hook(name, with_secret)).collect();
        for text in resolve::said(record, "hook") {
            for line in clear(&text).lines().map(str::trim).filter(|line| !line.is_empty()) {
                if !hooks.iter().any(|hook| hook.name == line) {
                    let key = resolve::said(record, "hook_key").pop().map(Key::Text);
                    hooks.push(self.own(line, with_secret, key, said("hook_timeout").as_deref()));
                }
            }
        }
        hooks
    }

    /// The hooks that every record has.
    pub(crate) fn of_everybody(&self) -> Vec<Hook> {
        self.global.iter().map(|(name, global)| global.hook(name, true)).collect()
    }

    /// A hook that a record names itself.
    fn own(&self, line: &str, with_secret: bool, key: Option<Key>, timeout: Option<&str>) -> Hook {
        let mut words = line.split_whitespace().map(str::to_owned);
        let first = words.next().unwrap_or_default();
        let way = if first.starts_with('/') {
            let (program, within) = (PathBuf::from(&first), Some(self.directories.clone()));
            Ok(Way::Command { program, arguments: words.collect(), within, with_secret })
        } else {
            address(line).map(|url| Way::Webhook { url, ca: None, key })
        };
        let (timeout, way) = match timeout.map(str::parse).transpose() {
            Ok(timeout) => (timeout, way),
            Err(_) => (None, Err("hook_timeout is a number of seconds".to_owned())),
        };
        let shown = match &way {
            Ok(Way::Webhook { url, .. }) => host_of(url),
            _ if first.starts_with('/') => first,
            _ => "turnlock:hook".to_owned(),
        };
        Hook { name: line.to_owned(), shown, way, timeout: seconds(timeout) }
    }

    /// What keeps this record's hooks from running, as far as it can be told
    /// before they do.
    pub(crate) fn problems(&self, record: &Record) -> Vec<String> {
        let problem = |hook: &Hook| hook.problem().map(|problem| format!("hook {}: {problem}", hook.shown));
        self.of(record).iter().filter_map(problem).collect()
    }
}

impl Global {
    fn hook(&self, name: &str, with_secret: bool) -> Hook {
        let way = match (&self.webhook, self.command.split_first()) {
            (Some(webhook), _) => address(webhook).map(|url| {
                let key = self.key_file.clone().map(Key::File);
                Way::Webhook { url, ca: self.ca.clone(), key }
            }),
            (None, Some((program, arguments))) => Ok(Way::Command {
                program: PathBuf::from(program),
                arguments: arguments.to_vec(),
                within: None,
                with_secret: with_secret && self.secret,
            }),
            (None, None) => Err("it says neither what to run nor whom to call".to_owned()),
        };
        Hook { name: format!("@{name}"), shown: name.to_owned(), way, timeout: seconds(self.timeout) }
    }
}

fn seconds(timeout: Option<u64>) -> Duration {
    Duration::from_secs(timeout.unwrap_or(DEFAULT_TIMEOUT_S).clamp(1, LONGEST_TIMEOUT_S))
}

/// Only what is encrypted and proves who it is.
fn address(text: &str) -> Result<Url, String> {
    match Url::parse(text) {
        Ok(url) if url.scheme() == "https" && url.host_str().is_some() => Ok(url),
        _ => Err("a hook is a program's absolute path or an address that begins with https://".to_owned()),
    }
}

/// An address for people: what follows the host is often all that protects it.
fn host_of(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("https://{}{port}/…", url.host_str().unwrap_or_default())
}

impl Hook {
    /// What keeps it from running, as far as it can be told before it does.
    pub(crate) fn problem(&self) -> Option<String> {
        let wrong = match &self.way {
            Err(wrong) => return Some(wrong.clone()),
            Ok(Way::Command { program, within, .. }) => command::believed(program, within.as_deref()).err(),
            Ok(Way::Webhook { ca, key, .. }) => webhook::problem(ca.as_deref(), key.as_ref()),
        };
        wrong.map(|failure| failure.message)
    }

    /// How it tells, for people.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.way {
            Ok(Way::Command { with_secret: true, .. }) => "command, told the secret",
            Ok(Way::Command { .. }) => "command",
            Ok(Way::Webhook { key: Some(_), .. }) => "webhook, signed",
            Ok(Way::Webhook { .. }) => "webhook",
            Err(_) => "wrong",
        }
    }

    /// Runs it, a few times if need be.
    async fn run(&self, engine: &Engine, stored: &Stored, owed: &Untold) -> Result<(), Failure> {
        let begun = Instant::now();
        let mut pauses = PAUSES.iter();
        loop {
            let failure = match self.once(engine, stored, owed).await {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            match pauses.next() {
                // What is wrong with the hook itself does not mend itself, and
                // one that fails slowly must not hold up a whole fleet.
                Some(pause) if !failure.usage && !engine.stopping() && begun.elapsed() < TRIED_FOR => {
                    tokio::time::sleep(*pause).await;
                }
                _ => return Err(failure),
            }
        }
    }

    async fn once(&self, engine: &Engine, stored: &Stored, owed: &Untold) -> Result<(), Failure> {
        match &self.way {
            Err(wrong) => Err(Failure::usage(wrong.clone())),
            Ok(Way::Command { program, arguments, within, with_secret }) => {
                let secret =
                    if *with_secret { Some(credential(engine, &stored.record, &owed.identity)?) } else { None };
                let document = document::of(&self.shown, stored, owed, secret.as_ref())?;
                let program = command::believed(program, within.as_deref())?;
                command::run(&program, arguments, &document, !*with_secret, self.timeout).await
            }
            Ok(Way::Webhook { url, ca, key }) => {
                let document = document::of(&self.shown, stored, owed, None)?;
                let id = document::id(&self.name, stored, owed);
                webhook::post(url, ca.as_deref(), key.as_ref(), &id, document.to_vec(), self.timeout).await
            }
        }
    }
}

/// Which of these records have hooks: they are owed with the commit.
pub(crate) fn of_all(engine: &Engine, record: &Record, duplicates: &[Uid]) -> Result<Vec<Uid>, Failure> {
    let mut tell = Vec::new();
    if !engine.hooks.of(record).is_empty() {
        tell.push(record.uid.clone());
    }
    for uid in duplicates {
        if !engine.hooks.of(&durable(|| engine.vault.read(uid))?.record).is_empty() {
            tell.push(uid.clone());
        }
    }
    Ok(tell)
}

/// The account whose new credential a record's hooks are to be told of, if the
/// record has any.
pub(crate) fn owed<'a>(engine: &Engine, uid: &Uid, plan: &'a Plan) -> Result<Option<&'a Identity>, Failure> {
    let record = durable(|| engine.vault.read(uid))?.record;
    Ok((!engine.hooks.of(&record).is_empty()).then_some(&plan.identity))
}

/// Runs what these records owe. Its failure never fails a rotation. Returns
/// whether something stays owed.
pub(crate) async fn tell(engine: &Engine, lease: &Lease, records: &[Uid], warnings: &mut Vec<String>) -> bool {
    let mut open = false;
    for uid in records {
        match tell_of(engine, lease, uid).await {
            Ok(failures) => {
                open |= !failures.is_empty();
                warnings.extend(failures.iter().map(in_one_line));
            }
            Err(failure) => {
                open = true;
                warnings.push(in_one_line(&failure));
            }
        }
    }
    open
}

async fn tell_of(engine: &Engine, lease: &Lease, uid: &Uid) -> Result<Vec<Failure>, Failure> {
    let stored = durable(|| engine.vault.read(uid))?;
    let Some(mut owed) = stored.untold.clone() else {
        return Ok(Vec::new());
    };
    let (mut failures, mut said) = (Vec::new(), Vec::new());
    for hook in engine.hooks.of(&stored.record) {
        if owed.done.contains(&hook.name) {
            continue;
        }
        engine.progress(&stored.record.title, &format!("hook {}", hook.shown));
        match holding(engine, lease, hook.run(engine, &stored, &owed)).await {
            Ok(()) => {
                said.push(hook.shown);
                owed.done.push(hook.name);
            }
            Err(mut failure) => {
                failure.message = format!("hook {}: {}", hook.shown, failure.message);
                failures.push(failure);
            }
        }
    }
    said.extend(failures.iter().map(|failure| failure.message.clone()));
    owed.tries = owed.tries.saturating_add(1);
    owed.next_try = next_try(owed.tries, Timestamp::now());
    owed.last_failure = failures.first().map(|failure| failure.message.clone());
    let left = owed.last_failure.is_some().then_some(&owed);
    durable(|| engine.vault.told(lease, uid, left, &said.join("; ")))?;
    Ok(failures)
}

/// Keeps a lease while something takes as long as it takes.
async fn holding<T>(engine: &Engine, lease: &Lease, work: impl Future<Output = T>) -> T {
    let every = Duration::from_millis((lease.ttl_ms / 3).max(1));
    let mut renewals = tokio::time::interval_at(tokio::time::Instant::now() + every, every);
    let mut work = pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            // Whoever takes the lease meanwhile runs the hooks once more.
            _ = renewals.tick() => drop(durable(|| engine.vault.renew(lease))),
        }
    }
}

fn next_try(tries: u32, now: Timestamp) -> Timestamp {
    let pause = FIRST_PAUSE_S.saturating_mul(5_i64.saturating_pow(tries.saturating_sub(1))).min(LONGEST_PAUSE_S);
    now.saturating_add(SignedDuration::from_secs(pause)).unwrap_or(now)
}

fn in_one_line(failure: &Failure) -> String {
    let mut line = failure.message.clone();
    if !failure.causes.is_empty() {
        line.push_str(&format!(" ({})", failure.causes.join("; ")));
    }
    line
}

/// Runs what a record still owes, under a lease of its own.
///
/// # Errors
/// When something stays owed.
pub(crate) async fn retry(engine: &Engine, uid: &Uid, title: &str) -> Result<(), Failure> {
    let lease = lease::take(engine, vec![uid.clone()], None, title).await?;
    let mut failures = Vec::new();
    let open = tell(engine, &lease, std::slice::from_ref(uid), &mut failures).await;
    // A lease that cannot be given back runs out or is taken from the dead.
    let _ = durable(|| engine.vault.release(&lease));
    if open { Err(not_all(title, uid, failures)) } else { Ok(()) }
}

/// Runs all of a record's hooks, whatever is owed: to try them, or because a
/// consumer has lost what it was told.
///
/// # Errors
/// When one of them fails.
pub(crate) async fn again(engine: &Engine, stored: &Stored, plan: &Plan) -> Result<usize, Failure> {
    let since = stored.rotated_at.unwrap_or_else(Timestamp::now);
    let told = Untold::at(since, None, plan.identity.clone());
    let hooks = engine.hooks.of(&stored.record);
    let mut failures = Vec::new();
    for hook in &hooks {
        if let Err(failure) = hook.run(engine, stored, &told).await {
            failures.push(format!("hook {}: {}", hook.shown, in_one_line(&failure)));
        }
    }
    if failures.is_empty() {
        return Ok(hooks.len());
    }
    Err(not_all(&stored.record.title, &stored.record.uid, failures))
}

/// The rotation stands; somebody has not heard of it.
pub(crate) fn not_all(title: &str, uid: &Uid, failures: Vec<String>) -> Failure {
    let mut failure = Failure::new(format!("not all hooks of \"{title}\" have run")).state(State::Committed);
    failure.causes = failures;
    failure.hint(format!("mend what is wrong, then turnlock hooks retry {uid}"))
}

/// What a record's consumers log in with.
fn credential(engine: &Engine, record: &Record, identity: &Identity) -> Result<Credential, Failure> {
    let places = resolve::write_back(record, &identity.plugin, &engine.catalogue)
        .ok_or_else(|| Failure::usage("the record does not say where its credential is"))?;
    Ok(places.into_iter().filter_map(|one| Some((one.field, record.get(&one.place)?))).collect())
}

fn clear(value: &Secret) -> &str {
    #[expect(clippy::disallowed_methods, reason = "a hook's own options: its program or address, its flag, its time")]
    value.expose().trim()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Body, CustomField, Untyped};

    fn record(fields: &[(&str, &str)]) -> Record {
        let custom = fields
            .iter()
            .map(|(name, value)| CustomField {
                name: (*name).to_owned(),
                value: Secret::new((*value).to_owned()),
                kind: None,
            })
            .collect();
        Record {
            uid: Uid::new("AAAA"),
            title: "Orders".to_owned(),
            notes: None,
            folders: Vec::new(),
            body: Body::Untyped(Untyped { custom, ..Untyped::default() }),
            writable: true,
            extra: serde_json::Map::new(),
            earlier: Vec::new(),
        }
    }

    fn configured(text: &str) -> Hooks {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn a_record_has_everybodys_hooks_and_its_own() {
        let hooks = configured(
            "[global.log]\ncommand = ['/opt/log', '-v']\n[global.list]\ncommand = ['/opt/list']\nsecret = true\n",
        );
        let with = |fields: &[(&str, &str)]| {
            let found = hooks.of(&record(fields));
            found.iter().map(|hook| format!("{}: {}", hook.shown, hook.kind())).collect::<Vec<_>>()
        };
        assert_eq!(with(&[]), ["list: command", "log: command"]);
        let own = ("turnlock:hook", "/opt/a one  two\nhttps://chat.example.com:8443/T0/secret");
        let webhook = "https://chat.example.com:8443/…: webhook";
        assert_eq!(with(&[own]), ["list: command", "log: command", "/opt/a: command", webhook]);
        // The record allows it, and who hears of every record must ask for it, too.
        let secret = ("cmdr:hook_secret", "TRUE");
        assert_eq!(
            with(&[own, secret]),
            ["list: command, told the secret", "log: command", "/opt/a: command, told the secret", webhook]
        );
    }

    #[test]
    fn what_is_no_hook_is_told_and_never_run() {
        let hooks = Hooks::default();
        for wrong in ["http://chat.example.com/", "relative/path", "https://?x", "ftp://x/", "sh -c id"] {
            let problems = hooks.problems(&record(&[("turnlock:hook", wrong)]));
            assert_eq!(problems.len(), 1, "{wrong}");
            assert!(problems[0].contains("https://") && !problems[0].contains(wrong), "{problems:?}");
        }
        let timeout = record(&[("turnlock:hook", "https://a.example"), ("turnlock:hook_timeout", "soon")]);
        assert!(hooks.problems(&timeout)[0].contains("hook_timeout"));
        for (wrong, word) in [
            ("[global.a]\n", "neither"),
            ("[global.a]\ncommand = ['/a']\nwebhook = 'https://b'\n", "both"),
            ("[global.a]\nwebhook = 'http://b'\n", "https"),
            ("[global.a]\nwebhook = 'https://b'\nsecret = true\n", "never told a secret"),
            ("[global.a]\ncommand = ['/a']\nkey_file = '/k'\n", "webhooks"),
        ] {
            let failure = configured(wrong).validate().unwrap_err();
            assert!(failure.message.contains(word) && failure.message.contains("global.a"), "{}", failure.message);
        }
    }

    #[test]
    fn pauses_grow_and_end_growing() {
        let now = Timestamp::UNIX_EPOCH;
        let after = |tries| next_try(tries, now).duration_since(now).as_secs();
        assert_eq!([1, 2, 3, 4, 5, u32::MAX].map(after), [60, 300, 1500, 7500, 21_600, 21_600]);
    }
}
