//! A hook that is a program of this machine: believed like a rotator, started
//! like one, and told everything on its standard input.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::child::{kill_group, last_lines};
use crate::failure::Failure;
use crate::rotators::{empty_directory, writable_by_others};

/// How many of its last words are repeated.
const LAST_LINES: usize = 5;
/// How long its standard error may stay open after its end: what it has left
/// running may hold it.
const LAST_WORDS_WITHIN: Duration = Duration::from_millis(500);

/// The program without symbolic links in its path, if nobody else could have
/// put it there, and where a record named it, if it lies within one of these
/// directories.
pub(super) fn believed(program: &Path, within: Option<&[PathBuf]>) -> Result<PathBuf, Failure> {
    let name = program.display();
    if !program.is_absolute() {
        return Err(Failure::usage(format!("{name} is no absolute path")));
    }
    let unreadable = |error: std::io::Error| Failure::usage(format!("{name} cannot be run")).caused_by(&error);
    let found = program.canonicalize().map_err(unreadable)?;
    let mode = fs::metadata(&found).map_err(unreadable)?.permissions().mode();
    if !found.is_file() || mode & 0o111 == 0 {
        return Err(Failure::usage(format!("{name} is no program")).hint(format!("chmod +x {name}")));
    }
    if let Some(open) = writable_by_others(&found).map_err(unreadable)? {
        let open = open.display();
        return Err(Failure::usage(format!("{name} is not run: others may write {open}"))
            .hint(format!("chmod go-w {open}, or chown it to root")));
    }
    let Some(directories) = within else {
        return Ok(found);
    };
    let lies_in = |directory: &PathBuf| directory.canonicalize().is_ok_and(|directory| found.starts_with(directory));
    if directories.iter().any(lies_in) {
        return Ok(found);
    }
    let named: Vec<String> = directories.iter().map(|directory| directory.display().to_string()).collect();
    Err(Failure::usage(format!("{name} lies in none of the directories for hooks: {}", named.join(", ")))
        .hint("put it there, or name its directory under [hooks] directories in turnlock.toml"))
}

/// Runs the program to its end. With `repeat`, a failure repeats its last
/// words; without, it was told a secret that they may hold.
pub(super) async fn run(
    program: &Path,
    arguments: &[String],
    document: &[u8],
    repeat: bool,
    within: Duration,
) -> Result<(), Failure> {
    let cannot_start = |error: &std::io::Error| Failure::new("it cannot be started").caused_by(error);
    #[expect(clippy::disallowed_methods, reason = "this is the one place that starts hooks")]
    let mut command = tokio::process::Command::from(std::process::Command::new(program));
    let mut child = command
        .args(arguments)
        .env_clear()
        .current_dir(empty_directory().map_err(|error| cannot_start(&error))?)
        .process_group(0)
        .kill_on_drop(false)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| cannot_start(&error))?;
    let (Some(mut input), Some(errors)) = (child.stdin.take(), child.stderr.take()) else {
        return Err(Failure::new("it started without its pipes"));
    };
    let errors = tokio::spawn(last_lines(errors));
    let telling = async move {
        // Whoever does not want to know may close its input.
        let _ = input.write_all(document).await;
    };
    let ended = timeout(within, async { tokio::join!(telling, child.wait()).1 }).await;
    let failure = match ended {
        Ok(Ok(status)) if status.success() => return Ok(()),
        Ok(Ok(status)) => Failure::new(words(status)),
        Ok(Err(error)) => Failure::new("its end could not be awaited").caused_by(&error),
        Err(_) => {
            kill_group(&child);
            let _ = child.wait().await;
            Failure::new(format!("it did not end within {} s and was killed", within.as_secs()))
        }
    };
    Err(match timeout(LAST_WORDS_WITHIN, errors).await {
        Ok(Ok(lines)) if repeat => {
            let kept = lines.len().saturating_sub(LAST_LINES);
            Failure { causes: failure.causes.into_iter().chain(lines.into_iter().skip(kept)).collect(), ..failure }
        }
        _ => failure,
    })
}

fn words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("it ended with status {code}"),
        (None, Some(signal)) => format!("it was ended by signal {signal}"),
        (None, None) => "it ended by itself".to_owned(),
    }
}
