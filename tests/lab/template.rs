//! Data directories that are expensive to make and cheap to copy.
//!
//! `initdb` and its kin take seconds. Each runs once per machine, program build
//! and recipe; every later server starts from a copy.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use crate::{
    error::{Context, LabError, Result},
    process::{self, User},
};

/// The template's directory, made by `make` when it does not exist yet.
/// `make` gets an empty directory that belongs to `user`.
pub(crate) fn prepare(
    name: &str,
    program: &Path,
    recipe: &str,
    user: Option<&User>,
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let shelf = shelf()?;
    let template = shelf.join(format!("{name}-{:016x}", fingerprint(program, recipe)?));
    if template.exists() {
        return Ok(template);
    }
    let lock_path = shelf.join(format!("{name}.lock"));
    let lock = fs::File::create(&lock_path).could_not(|| format!("create {}", lock_path.display()))?;
    lock.lock().could_not(|| format!("lock {}", lock_path.display()))?;
    if template.exists() {
        return Ok(template);
    }
    // Built under another name: a half-made template must never look like a whole one.
    let draft = shelf.join(format!("{name}.draft"));
    if draft.exists() {
        fs::remove_dir_all(&draft).could_not(|| format!("remove {}", draft.display()))?;
    }
    make_directory(&draft, user)?;
    make(&draft)?;
    fs::rename(&draft, &template).could_not(|| format!("rename {}", draft.display()))?;
    Ok(template)
}

/// Copies a template's content to `target`, which must not exist, owners and modes included.
pub(crate) fn copy(template: &Path, target: &Path) -> Result<()> {
    let output =
        process::run(process::clean_command("cp").args(["-a", "--reflink=auto"]).arg(template).arg(target), b"")?;
    if output.succeeded() {
        return Ok(());
    }
    Err(LabError::new(format!("could not copy {}: {}", template.display(), output.stderr)))
}

/// Makes a directory that `user` owns and everybody may enter.
pub(crate) fn make_directory(path: &Path, user: Option<&User>) -> Result<()> {
    fs::DirBuilder::new().mode(0o755).create(path).could_not(|| format!("create {}", path.display()))?;
    give_to(path, user)
}

/// Gives a file or directory to `user`.
pub(crate) fn give_to(path: &Path, user: Option<&User>) -> Result<()> {
    let Some(user) = user else { return Ok(()) };
    std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid))
        .could_not(|| format!("change the owner of {}", path.display()))
}

/// Where templates and compiled helpers are kept between runs.
pub(crate) fn shelf() -> Result<PathBuf> {
    let uid = rustix::process::geteuid().as_raw();
    let shelf = std::env::temp_dir().join(format!("turnlock-lab-{uid}"));
    match fs::DirBuilder::new().mode(0o755).create(&shelf) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(error).could_not(|| format!("create {}", shelf.display()))?;
        }
        _ => {}
    }
    // The name is guessable and the place is everybody's: what somebody else put there is not run.
    let found = fs::symlink_metadata(&shelf).could_not(|| format!("look at {}", shelf.display()))?;
    if !found.is_dir() || found.uid() != uid || found.mode() & 0o022 != 0 {
        return Err(LabError::new(format!(
            "{} is not a directory that only you can write to; remove it",
            shelf.display()
        )));
    }
    Ok(shelf)
}

fn fingerprint(program: &Path, recipe: &str) -> Result<u64> {
    let file = fs::metadata(program).could_not(|| format!("look at {}", program.display()))?;
    let mut hasher = DefaultHasher::new();
    (program, file.len(), file.mtime(), recipe).hash(&mut hasher);
    Ok(hasher.finish())
}
