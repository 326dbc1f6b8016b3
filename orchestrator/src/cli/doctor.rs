//! `turnlock doctor`: whether this machine has what a rotation needs.

use std::fs;
use std::io::{IsTerminal, stdin};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use clap::Args;
use jiff::Timestamp;
use rustix::fs::{Access, access, statvfs};
use serde::Serialize;

use super::Context;
use crate::config::elsewhere;
use crate::engine::durable;
use crate::failure::{Failure, exit};
use crate::rotators::{Rotators, believed};
use crate::vault::Vault;
use crate::vault::local::LocalVault;

#[derive(Debug, Args)]
#[command(
    after_help = "Exit status 3 when something is wrong. Nothing is changed, and no target is asked.\n\nExamples:\n  turnlock doctor\n  turnlock doctor -o json"
)]
pub(super) struct Doctor {}

/// What was looked at, and what was found.
#[derive(Debug, Serialize)]
struct Finding {
    what: &'static str,
    verdict: Verdict,
    found: String,
    hint: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Fine,
    /// Worth knowing; nothing fails because of it.
    Note,
    Wrong,
}

impl Finding {
    fn fine(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, verdict: Verdict::Fine, found: found.into(), hint: None }
    }

    fn note(what: &'static str, found: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { verdict: Verdict::Note, hint: Some(hint.into()), ..Self::fine(what, found) }
    }

    fn wrong(what: &'static str, found: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { verdict: Verdict::Wrong, hint: Some(hint.into()), ..Self::fine(what, found) }
    }

    fn failed(what: &'static str, failure: Failure, otherwise: &str) -> Self {
        let found = std::iter::once(failure.message).chain(failure.causes).collect::<Vec<_>>().join(": ");
        Self::wrong(what, found, failure.hint.unwrap_or_else(|| otherwise.to_owned()))
    }
}

pub(super) async fn run(context: &Context, _doctor: Doctor) -> Result<u8, Failure> {
    let mut findings = vec![program(), configuration(context)];
    findings.extend(rotators(context).await);
    findings.push(state(context));
    findings.extend(vault(context));
    context.report.rows(
        &["what", "", "found", "do"],
        &findings,
        |finding| {
            let verdict = match finding.verdict {
                Verdict::Fine => "fine",
                Verdict::Note => "note",
                Verdict::Wrong => "WRONG",
            };
            let hint = finding.hint.clone().unwrap_or_default();
            vec![finding.what.to_owned(), verdict.to_owned(), finding.found.clone(), hint]
        },
        "",
    );
    let wrong = findings.iter().any(|finding| finding.verdict == Verdict::Wrong);
    Ok(if wrong { exit::FAILED } else { exit::DONE })
}

fn program() -> Finding {
    let what = "program";
    let version = env!("CARGO_PKG_VERSION");
    match std::env::current_exe().map(|own| (believed(&own), own)) {
        Ok((Ok(()), own)) => Finding::fine(what, format!("turnlock {version}, {}", own.display())),
        Ok((Err(fault), _)) => Finding::failed(what, fault.into(), "install it anew"),
        // Only the rotators beside it are missed then, and told below.
        Err(_) => Finding::note(what, format!("turnlock {version}, at a place unknown"), "mount /proc"),
    }
}

fn configuration(context: &Context) -> Finding {
    match &context.config.read_from {
        Some(file) => Finding::fine("configuration", file.display().to_string()),
        None => Finding::fine("configuration", "no turnlock.toml, so the defaults"),
    }
}

/// Each rotator that can be found, asked what it is.
async fn rotators(context: &Context) -> Vec<Finding> {
    let what = "rotator";
    let rotators = Rotators::new(&context.config);
    let names = rotators.names();
    if names.is_empty() {
        let hint = "put them beside turnlock, or name their directory with --plugin-dir";
        return vec![Finding::wrong(what, "none can be found", hint)];
    }
    let mut findings = Vec::new();
    for name in names {
        findings.push(match rotators.describe(&name).await {
            Ok(found) if found.version == env!("CARGO_PKG_VERSION") => {
                Finding::fine(what, format!("{name} {}", found.version))
            }
            Ok(found) => Finding::note(
                what,
                format!("{name} {}, which is not turnlock's own version", found.version),
                "fine where you chose it; else install both from one release",
            ),
            Err(fault) => Finding::failed(what, fault.into(), "replace it, or take it away"),
        });
    }
    findings
}

/// Where this machine remembers its vaults: without it a restored backup cannot be told.
fn state(context: &Context) -> Finding {
    let directory = &context.config.state_directory;
    let shown = directory.display();
    let nearest = directory.ancestors().find(|place| place.exists()).unwrap_or(directory);
    match access(nearest, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => Finding::fine("state", shown.to_string()),
        Err(error) => Finding::wrong(
            "state",
            format!("{shown} cannot be written: {error}"),
            "give it to this user, or name another one with TURNLOCK_STATE",
        ),
    }
}

fn vault(context: &Context) -> Vec<Finding> {
    let config = &context.config;
    let path = &config.vault;
    if elsewhere(path).is_some() {
        let hint = "turnlock list shows whether it answers";
        return vec![Finding::note("vault", format!("{} is kept by a service elsewhere", path.display()), hint)];
    }
    if !path.exists() {
        return vec![Finding::wrong("vault", format!("none at {}", path.display()), "turnlock vault init")];
    }
    let mut findings: Vec<Finding> = std::iter::once(private("vault", path))
        .chain(config.key_file.as_deref().filter(|file| file.exists()).map(|file| private("key", file)))
        .collect();
    findings.extend(space(path));
    if !config.names_a_key() && !stdin().is_terminal() {
        let hint = "name a key with --key-file or --passphrase-file";
        findings.push(Finding::note("vault", "not opened: no key was named, and there is no terminal to ask at", hint));
        return findings;
    }
    match context.local_vault().and_then(|vault| health(&vault)) {
        Ok(healthy) => findings.extend(healthy),
        Err(failure) => findings.push(Finding::failed("vault", failure, "see the runbook: the vault does not open")),
    }
    findings
}

/// Whether only its owner can read a file.
fn private(what: &'static str, file: &Path) -> Finding {
    let shown = file.display();
    let found = match fs::metadata(file) {
        Ok(found) => found,
        Err(error) => return Finding::wrong(what, format!("{shown}: {error}"), format!("ls -l {shown}")),
    };
    let mode = found.permissions().mode() & 0o7777;
    let user = rustix::process::geteuid().as_raw();
    if mode & 0o077 != 0 {
        return Finding::wrong(
            what,
            format!("{shown} is open to others (mode {mode:04o})"),
            format!("chmod 600 {shown}"),
        );
    }
    if found.uid() != user {
        let hint = format!("run turnlock as that user, or chown {user} {shown}");
        return Finding::wrong(what, format!("{shown} belongs to user {}", found.uid()), hint);
    }
    Finding::fine(what, format!("{shown} (mode {mode:04o})"))
}

/// A vault that cannot grow cannot stage, and then nothing rotates.
fn space(path: &Path) -> Option<Finding> {
    const ENOUGH: u64 = 64 << 20;
    let found = statvfs(path).ok()?;
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let shown = format!("{} MiB free for the vault", free >> 20);
    Some(if free < ENOUGH { Finding::wrong("disk", shown, "free some") } else { Finding::fine("disk", shown) })
}

/// Everything in it is read; then the clock is held against what it tells.
fn health(vault: &LocalVault) -> Result<Vec<Finding>, Failure> {
    let checked = durable(|| vault.check())?;
    let mut findings: Vec<Finding> = checked
        .problems
        .iter()
        .map(|problem| Finding::wrong("vault", problem.clone(), "see the runbook: the vault does not open"))
        .collect();
    if findings.is_empty() {
        let all = format!("{} records, {} audit rows, all consistent", checked.records, checked.audit);
        findings.push(Finding::fine("vault", all));
    }
    if let Some(doubt) = vault.adopt_required() {
        findings.push(Finding::wrong("vault", format!("it is {doubt}, so nothing rotates"), "turnlock vault adopt"));
    }
    let open = durable(|| vault.open_items())?.len();
    if open > 0 {
        findings.push(Finding::wrong("vault", format!("{open} rotations are open or parked"), "turnlock status"));
    }
    let mut newest = None;
    durable(|| {
        vault.audit_rows(checked.audit.max(1), &mut |row| {
            newest = Some(row.at);
            true
        })
    })?;
    findings.push(clock(Timestamp::now(), newest));
    Ok(findings)
}

/// Leases, budgets of log-ins and due dates need a clock that does not go back.
fn clock(now: Timestamp, newest: Option<Timestamp>) -> Finding {
    let shown = now.strftime("%Y-%m-%d %H:%M:%SZ");
    match newest {
        Some(newest) if newest > now => Finding::wrong(
            "clock",
            format!("{shown} is before the vault's newest entry, {}", newest.strftime("%Y-%m-%d %H:%M:%SZ")),
            "set the clock, and keep it with a time service",
        ),
        _ => Finding::fine("clock", format!("{shown}, not before anything in the vault")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_went_back_is_told() {
        let now: Timestamp = "2026-07-01T12:00:00Z".parse().expect("an instant");
        let later: Timestamp = "2026-07-01T12:00:01Z".parse().expect("an instant");
        assert_eq!(clock(now, None).verdict, Verdict::Fine);
        assert_eq!(clock(later, Some(now)).verdict, Verdict::Fine);
        assert_eq!(clock(now, Some(later)).verdict, Verdict::Wrong);
    }
}
