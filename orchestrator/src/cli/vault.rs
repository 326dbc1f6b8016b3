//! `turnlock vault`

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Context, copy, open};
use crate::catalogue::Catalogue;
use crate::config::elsewhere;
use crate::engine::durable;
use crate::failure::{Failure, exit};
use crate::resolve::Options;
use crate::settle::{self, Heard};

use crate::vault::Vault;
use crate::vault::local::{Key, LocalVault, make_key_file, make_recovery_key};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Make a new vault
    #[command(
        after_help = "Examples:\n  turnlock vault init\n  turnlock vault init --key-file ~/.config/turnlock/vault.key --recovery-key"
    )]
    Init(Init),
    /// Replace the key of the vault; everything in it is encrypted anew
    Rekey(Rekey),
    /// Write a backup that can be opened with the same keys
    #[command(after_help = "Examples:\n  turnlock vault backup /backup/vault-$(date +%F).db")]
    Backup {
        /// The file to write; must not exist
        to: PathBuf,
    },
    /// Read and prove everything in the vault
    #[command(after_help = "Exit status 3 when something does not fit.\n\nExamples:\n  turnlock vault check")]
    Check,
    /// Take a restored or copied vault into use: proves every credential first
    Adopt(Adopt),
    /// Copy records with their history and open attempts to another vault, and compare
    Copy(copy::Copy),
}

#[derive(Debug, Args)]
pub(super) struct Init {
    /// Print a recovery key that opens the vault when the other key is lost
    #[arg(long)]
    recovery_key: bool,
    /// Bind a vault elsewhere (--vault ksm:FILE) with the one-time token in this file's first
    /// line; `-` reads standard input
    #[arg(long, value_name = "FILE", conflicts_with = "recovery_key")]
    token_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  turnlock vault rekey --new-key-file new.key --recovery-key\n  turnlock --recovery-key-file - vault rekey --new-key-file new.key"
)]
pub(super) struct Rekey {
    /// Open it with this key file from now on; made when it is not there
    #[arg(long, value_name = "FILE")]
    new_key_file: Option<PathBuf>,
    /// Open it with the passphrase in this file's first line from now on
    #[arg(long, value_name = "FILE", conflicts_with = "new_key_file")]
    new_passphrase_file: Option<PathBuf>,
    /// Open it with a new key in the kernel's keyring from now on
    #[arg(long, requires = "recovery_key", conflicts_with_all = ["new_key_file", "new_passphrase_file"])]
    new_keyring: bool,
    /// Print a new recovery key; the old one ends
    #[arg(long)]
    recovery_key: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  turnlock vault adopt")]
pub(super) struct Adopt {
    /// Adopt although some credentials were refused or could not be asked
    #[arg(long)]
    unverified: bool,
}

pub(super) async fn run(context: &Context, verb: Verb) -> Result<u8, Failure> {
    match verb {
        Verb::Init(init) => make(context, &init),
        Verb::Rekey(rekey) => change_keys(context, &rekey),
        Verb::Backup { to } => {
            let vault = context.local_vault()?;
            durable(|| vault.backup(&to))?;
            context.report.answer(&json!({"backup": to}), || format!("backed up to {}", to.display()));
            Ok(exit::DONE)
        }
        Verb::Check => match elsewhere(&context.config.vault) {
            Some((name, path)) => check_store(context, name, path),
            None => check(context),
        },
        Verb::Copy(copy) => copy::run(context, copy).await,
        Verb::Adopt(adopt) => adopt_copy(context, &adopt).await,
    }
}

fn make(context: &Context, init: &Init) -> Result<u8, Failure> {
    let path = &context.config.vault;
    match (elsewhere(path), &init.token_file) {
        (Some((name, file)), Some(token)) => return bind(context, name, file, token),
        (None, None) => {}
        (Some((name, _)), None) => {
            return Err(Failure::usage(format!("{} is bound by a one-time token", path.display())).hint(format!(
                "say --token-file; a configuration that is bound already is used as it is, with --vault {name}:FILE"
            )));
        }
        (None, Some(_)) => {
            return Err(
                Failure::usage("a one-time token binds a vault elsewhere").hint("name it with --vault ksm:FILE")
            );
        }
    }
    if path.exists() {
        return Err(crate::vault::VaultError::Exists(path.clone()).into());
    }
    if let Some(file) = context.config.key_file.as_deref().filter(|file| !file.exists()) {
        make_key_file(file)?;
        context.report.note(&format!("wrote a new key to {}: without it the vault cannot be opened", file.display()));
    }
    if context.config.keyring {
        if !init.recovery_key {
            return Err(Failure::usage("the kernel's keyring is empty after the next boot")
                .hint("say --recovery-key as well, and keep what it prints"));
        }
        open::keyring::make(path)?;
    }
    let key = match context.key("New passphrase for the vault")? {
        Key::Passphrase(first)
            if context.config.passphrase_file.is_none() && context.config.systemd_credential.is_none() =>
        {
            if !first.same_as(&open::prompt_for("Once more")?) {
                return Err(Failure::usage("the two passphrases differ"));
            }
            Key::Passphrase(first)
        }
        key => key,
    };
    let (keys, recovery) = with_recovery(key, init.recovery_key)?;
    durable(|| LocalVault::create(path, &keys, &context.host_state().map_err(|failure| storage(&failure))?))?;
    told(context, json!({"vault": path}), &format!("made {}", path.display()), recovery)
}

/// Makes this machine a device of an application that keeps records elsewhere.
fn bind(context: &Context, name: &str, file: &Path, token: &Path) -> Result<u8, Failure> {
    let token = open::first_line(token)?;
    let vault = context.store(name, file, Catalogue::new())?;
    durable(|| vault.bind(&token))?;
    let place = context.config.vault.display().to_string();
    context
        .report
        .answer(&json!({"vault": place}), || format!("bound {place}; whoever reads that file reads the vault"));
    Ok(exit::DONE)
}

fn change_keys(context: &Context, rekey: &Rekey) -> Result<u8, Failure> {
    let vault = context.local_vault()?;
    let key = match (&rekey.new_key_file, &rekey.new_passphrase_file) {
        (Some(file), _) => {
            if !file.exists() {
                make_key_file(file)?;
            }
            Key::KeyFile(file.clone())
        }
        (None, Some(file)) => Key::Passphrase(open::first_line(file)?),
        (None, None) if rekey.new_keyring => {
            open::keyring::make(&context.config.vault)?;
            Key::Raw(open::keyring::read(&context.config.vault)?)
        }
        (None, None) => {
            let first = open::prompt_for("New passphrase for the vault")?;
            if !first.same_as(&open::prompt_for("Once more")?) {
                return Err(Failure::usage("the two passphrases differ"));
            }
            Key::Passphrase(first)
        }
    };
    let (keys, recovery) = with_recovery(key, rekey.recovery_key)?;
    durable(|| vault.rekey(&keys))?;
    told(context, json!({"rekeyed": true}), "every key of the vault is new; older backups keep the old ones", recovery)
}

fn with_recovery(key: Key, wanted: bool) -> Result<(Vec<Key>, Option<turnlock_protocol::Secret>), Failure> {
    if !wanted {
        return Ok((vec![key], None));
    }
    let recovery = make_recovery_key()?;
    Ok((vec![key, Key::Recovery(recovery.duplicate())], Some(recovery)))
}

/// Says what was done, and once only the recovery key.
fn told(
    context: &Context,
    mut value: serde_json::Value,
    sentence: &str,
    recovery: Option<turnlock_protocol::Secret>,
) -> Result<u8, Failure> {
    let Some(recovery) = recovery else {
        context.report.answer(&value, || sentence.to_owned());
        return Ok(exit::DONE);
    };
    #[expect(clippy::disallowed_methods, reason = "the person asked for it, to print and lock away")]
    let key = recovery.expose();
    let shown = if context.report.is_json() {
        if let Some(value) = value.as_object_mut() {
            value.insert("recovery_key".to_owned(), json!(key));
        }
        context.report.deliver(&value.to_string())
    } else {
        context.report.answer(&value, || sentence.to_owned());
        context.report.note("The recovery key, shown this once; print it and lock it away:");
        context.report.deliver(key)
    };
    shown.map_err(|failure| {
        let mut failure = failure.hint("turnlock vault rekey --recovery-key makes another one");
        failure.message = format!("{}: the recovery key is lost", failure.message);
        failure
    })?;
    Ok(exit::DONE)
}

fn check_store(context: &Context, name: &str, file: &Path) -> Result<u8, Failure> {
    let vault = context.store(name, file, Catalogue::new())?;
    let checked = durable(|| vault.check())?;
    let value = json!({"records": checked.records, "read_only": checked.read_only, "open": checked.attempts,
        "history": checked.history, "finishes": checked.finishes, "audit": checked.audit,
        "problems": checked.problems, "adopt": null});
    context.report.answer(&value, || {
        let fits = if checked.problems.is_empty() { "all readable and consistent" } else { "PROBLEMS" };
        format!(
            "{} records ({} that nothing may write), {} open attempts, {} past credentials, {} audit rows here: {fits}",
            checked.records, checked.read_only, checked.attempts, checked.history, checked.audit
        )
    });
    for problem in &checked.problems {
        context.report.warn(problem);
    }
    Ok(if checked.problems.is_empty() { exit::DONE } else { exit::FAILED })
}

fn check(context: &Context) -> Result<u8, Failure> {
    let vault = context.local_vault()?;
    context.report.begin_progress(None);
    context.report.step("vault", "reading everything");
    let checked = durable(|| vault.check())?;
    context.report.end_progress();
    let value = json!({"records": checked.records, "open": checked.attempts, "history": checked.history,
        "finishes": checked.finishes, "audit": checked.audit, "problems": checked.problems,
        "adopt": vault.adopt_required()});
    context.report.answer(&value, || {
        format!(
            "{} records, {} open attempts, {} past credentials, {} audit rows: {}",
            checked.records,
            checked.attempts,
            checked.history,
            checked.audit,
            if checked.problems.is_empty() { "all readable and consistent" } else { "PROBLEMS" }
        )
    });
    for problem in &checked.problems {
        context.report.warn(problem);
    }
    if let Some(doubt) = vault.adopt_required() {
        context.report.warn(&format!("this vault is {doubt}: nothing rotates until turnlock vault adopt"));
    }
    Ok(if checked.problems.is_empty() { exit::DONE } else { exit::FAILED })
}

/// Asks every target about the credential this copy holds, then takes the copy
/// into use.
async fn adopt_copy(context: &Context, adopt: &Adopt) -> Result<u8, Failure> {
    let engine = context.engine(false).await?;
    let mut records = Vec::new();
    durable(|| {
        engine.vault.list(&mut |summary| {
            if summary.plugin.is_some() {
                records.push(summary);
            }
            true
        })
    })?;
    let mut doubtful = 0;
    for record in &records {
        let heard = match engine.plan_of(&record.uid, &Options::default()) {
            Err(failure) => failure.message,
            Ok((_, mut plan)) => match engine.rotator_for(&mut plan).await {
                Err(fault) => fault.message,
                Ok(mut rotator) => {
                    let heard = settle::ask(&engine, &plan, &plan.current, &mut rotator).await;
                    rotator.end().await;
                    match heard {
                        Heard::Accepted => continue,
                        heard => heard.accepted().err().map_or_else(String::new, |failure| failure.message),
                    }
                }
            },
        };
        doubtful += 1;
        context.report.warn(&format!("{}: {heard}", record.title));
    }
    if doubtful > 0 && !adopt.unverified {
        return Err(Failure::new(format!("{doubtful} of {} credentials are not proven", records.len())).hint(
            "find out why, or adopt all the same with --unverified, and then turnlock verify NAME --try-history",
        ));
    }
    drop(engine);
    let vault = context.local_vault()?;
    durable(|| vault.adopt_vault())?;
    context
        .report
        .answer(&json!({"adopted": true, "unproven": doubtful}), || "this vault is in use here now".to_owned());
    Ok(exit::DONE)
}

fn storage(failure: &Failure) -> crate::vault::VaultError {
    crate::vault::VaultError::Storage { doing: "written", why: failure.message.clone() }
}
