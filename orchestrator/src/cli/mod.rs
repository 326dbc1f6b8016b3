//! The command line: one file a command.

mod audit;
mod check;
mod copy;
mod daemon;
mod doctor;
mod due;
mod edit;
mod explain;
mod export;
mod fleet;
mod guide;
mod hooks;
mod import;
mod kdbx;
mod list;
mod open;
mod plugins;
mod recover;
mod report;
mod resolve;
mod rotate;
mod run;
mod shell;
mod show;
mod vault;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Overrides};
use crate::failure::{Failure, exit};
use crate::log::{Level, Log, LogFormat};
use crate::report::{Format, Report};

/// Rotates any credential and loses none.
#[derive(Debug, Parser)]
#[command(
    name = "turnlock",
    version,
    about,
    max_term_width = 100,
    after_help = "\
Examples:
  turnlock vault init --key-file ~/.config/turnlock/vault.key
  turnlock import keeper export.json
  turnlock rotate \"Orders database\"
  turnlock rotate --match '^prod/' --force --jobs 8
  turnlock due
  turnlock daemon
  turnlock status

Exit status: 0 done, 2 usage or nothing matched, 3 failed and nothing changed,
4 live on the target but not committed yet (run recover), 5 unknown or parked,
6 some of several failed with 3, 7 hooks or clean-ups are open (--strict), 130 interrupted, 1 a bug."
)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Args)]
struct Global {
    /// The vault's file, or ksm:FILE [default: in the XDG data directory; TURNLOCK_VAULT]
    #[arg(long, global = true, value_name = "FILE")]
    vault: Option<PathBuf>,
    /// Open the vault with this key file [TURNLOCK_KEY_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Open the vault with the passphrase in this file's first line
    #[arg(long, global = true, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Open the vault with the key that `vault init --keyring` left in the kernel's keyring
    #[arg(long, global = true)]
    keyring: bool,
    /// Open the vault with the recovery key in this file's first line; `-` reads standard input
    #[arg(long, global = true, value_name = "FILE")]
    recovery_key_file: Option<PathBuf>,
    /// The configuration [default: turnlock.toml in the XDG configuration directory]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Look for rotators here, too; may be repeated
    #[arg(long = "plugin-dir", global = true, value_name = "DIR")]
    plugin_directories: Vec<PathBuf>,
    /// How to answer
    #[arg(long, short, global = true, value_enum, default_value_t = Format::Human)]
    output: Format,
    /// Say nothing but results and errors
    #[arg(long, short, global = true)]
    quiet: bool,
    /// How to write down what is said beside results
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Human)]
    log_format: LogFormat,
    /// How much of it [default: info; warn with --quiet]
    #[arg(long, global = true, value_enum)]
    log_level: Option<Level>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a vault, change its keys, back it up, check it, adopt a copy
    #[command(
        subcommand,
        after_help = "Examples:\n  turnlock vault init --key-file ~/.config/turnlock/vault.key\n  turnlock vault check"
    )]
    Vault(vault::Verb),
    /// Bring records in from another tool's export
    #[command(subcommand, after_help = "Examples:\n  turnlock import keeper export.json --dry-run")]
    Import(import::Source),
    /// Write every record out, secrets included: Keeper's JSON or CSV, raw records, KDBX
    Export(export::Export),
    /// List records
    List(list::List),
    /// Show a record; secrets only with --reveal
    Show(show::Show),
    /// Add a record by hand
    Add(edit::Add),
    /// Change fields of a record by hand
    Edit(edit::Edit),
    /// Replace credentials on their targets; without a name, list what can be rotated
    Rotate(rotate::Rotate),
    /// Run the commands of Keeper Commander's configuration, once or again and again
    Run(run::Run),
    /// Log in and tell what could go wrong; changes nothing
    Check(check::Check),
    /// Prove that stored credentials still work
    Verify(verify::Verify),
    /// Show what is due by its schedule, or will be
    Due(due::Due),
    /// Rotate what falls due, until told to stop
    Daemon(daemon::Daemon),
    /// Settle everything that is open
    Recover(recover::Recover),
    /// Show what is open, parked or overdue, with the next step
    Status(recover::Status),
    /// Write a page that shows how old every credential is and what happened, or figures for monitoring
    Report(report::Report),
    /// Decide a parked record: which credential is the current one
    Resolve(resolve::Resolve),
    /// Make an earlier credential of a record current again, once the target accepts it
    Restore(resolve::Restore),
    /// Run the hooks that tell of a new credential, or list them
    #[command(subcommand, after_help = "Examples:\n  turnlock hooks list Orders\n  turnlock hooks retry")]
    Hooks(hooks::Verb),
    /// Show which field of a record decided what
    Explain(explain::Explain),
    /// List rotators, or describe one
    Plugins(plugins::Plugins),
    /// Look for what is missing or wrong: environment, permissions, rotators, clock, vault
    Doctor(doctor::Doctor),
    /// Prove or export the audit chain
    #[command(subcommand, after_help = "Examples:\n  turnlock audit verify\n  turnlock audit export > audit.ndjson")]
    Audit(audit::Audit),
    /// Write a completion script for a shell
    Completions(shell::Completions),
    /// Write the manual page
    Man(shell::Man),
}

/// What a command is given.
struct Context {
    config: Config,
    /// What the command line says over every configuration.
    overrides: Overrides,
    report: Report,
    stop: CancellationToken,
}

/// The whole program.
pub fn main() -> ExitCode {
    harden();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are answers, everything else is a usage error.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { exit::USAGE } else { exit::DONE });
        }
    };
    let global = &arguments.global;
    let level = global.log_level.unwrap_or(if global.quiet { Level::Warn } else { Level::Info });
    let report = Report::new(global.output, Log::new(global.log_format, level));
    let outcome = run(arguments, &report);
    report.end_progress();
    if report.has_lost() {
        // The status goes on telling what became of the credentials.
        report.warn("standard output cannot be written: what was done is not all told there");
    }
    ExitCode::from(match outcome {
        Ok(status) => status,
        Err(failure) => {
            report.failure(&failure);
            failure.exit_status()
        }
    })
}

fn run(arguments: Arguments, report: &Report) -> Result<u8, Failure> {
    let Arguments { mut global, mut command } = arguments;
    if let Some(Command::Run(run)) = &mut command {
        run.file = global.config.take();
    }
    let overrides = Overrides {
        config: global.config,
        vault: global.vault,
        key_file: global.key_file,
        passphrase_file: global.passphrase_file,
        keyring: global.keyring,
        recovery_key_file: global.recovery_key_file,
        plugin_directories: global.plugin_directories,
    };
    let config = Config::load(overrides.clone())?;
    let context = Context { config, overrides, report: report.clone(), stop: stop_on_interrupt(report)? };
    let Some(command) = command else {
        return guide::run(&context);
    };
    // Few workers: what takes long waits on targets and disks, not on us. Its
    // blocking calls move to further threads.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::new("the runtime cannot start").caused_by(&error))?;
    let outcome = runtime.block_on(async {
        // On a worker, where blocking calls may give their thread away.
        match tokio::spawn(dispatch(context, command)).await {
            Ok(outcome) => outcome,
            Err(_) => Ok(exit::BUG),
        }
    });
    runtime.shutdown_background();
    outcome
}

async fn dispatch(context: Context, command: Command) -> Result<u8, Failure> {
    match command {
        Command::Vault(verb) => vault::run(&context, verb).await,
        Command::Import(source) => import::run(&context, source).await,
        Command::Export(export) => export::run(&context, export).await,
        Command::List(list) => list::run(&context, list).await,
        Command::Show(show) => show::run(&context, show).await,
        Command::Add(add) => edit::add(&context, add).await,
        Command::Edit(edit) => edit::edit(&context, edit).await,
        Command::Rotate(rotate) => rotate::run(&context, rotate).await,
        Command::Run(run) => run::run(&context, run).await,
        Command::Check(check) => check::run(&context, check).await,
        Command::Verify(verify) => verify::run(&context, verify).await,
        Command::Due(due) => due::run(&context, due).await,
        Command::Daemon(daemon) => daemon::run(&context, daemon).await,
        Command::Recover(recover) => recover::run(&context, recover).await,
        Command::Status(status) => recover::status(&context, status).await,
        Command::Report(report) => report::run(&context, &report).await,
        Command::Resolve(resolve) => resolve::run(&context, resolve).await,
        Command::Restore(restore) => resolve::restore(&context, restore).await,
        Command::Hooks(verb) => hooks::run(&context, verb).await,
        Command::Explain(explain) => explain::run(&context, explain).await,
        Command::Plugins(plugins) => plugins::run(&context, plugins).await,
        Command::Doctor(doctor) => doctor::run(&context, doctor).await,
        Command::Audit(audit) => audit::run(&context, audit).await,
        Command::Completions(completions) => shell::completions(&context, &completions),
        Command::Man(man) => shell::man(&context, &man),
    }
}

/// No core dump, no debugger, and no panic message with a payload.
fn harden() {
    // What the system refuses is left as it is: none of it decides correctness.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    std::panic::set_hook(Box::new(|panic| {
        crate::report::bug(&panic.location().map(ToString::to_string).unwrap_or_default());
        std::process::exit(i32::from(exit::BUG));
    }));
}

/// The first Ctrl-C lets permitted changes end; the second stops now.
fn stop_on_interrupt(report: &Report) -> Result<CancellationToken, Failure> {
    let stop = CancellationToken::new();
    let mut signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM])
        .map_err(|error| Failure::new("signals cannot be watched").caused_by(&error))?;
    let (flag, report) = (stop.clone(), report.clone());
    std::thread::spawn(move || {
        for _ in signals.forever() {
            if flag.is_cancelled() {
                report.end_progress();
                report.warn("stopped at once: turnlock status shows what is staged, turnlock recover settles it");
                std::process::exit(i32::from(exit::INTERRUPTED));
            }
            flag.cancel();
            report.note("ending what has begun; Ctrl-C again stops at once");
        }
    });
    Ok(stop)
}
