//! A private Python with the clients that check the lab's stand-ins, made by
//! `cargo xtask setup` in the lab's cache.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    path::PathBuf,
    process::Command,
};

use crate::{
    LabError, Result,
    process::{self, clean_command},
};

/// Names and versions of the packages.
pub const REQUIREMENTS: &str = include_str!("requirements.txt");

/// The virtual environment with exactly these packages: there as a whole or
/// not at all, and other requirements mean another one.
pub fn environment() -> PathBuf {
    let mut hasher = DefaultHasher::new();
    REQUIREMENTS.hash(&mut hasher);
    cache().join("python").join(format!("{:016x}", hasher.finish()))
}

/// Where the lab keeps what it downloaded. Root's servers run as users who
/// cannot enter root's home, so root's cache is the system's.
pub(crate) fn cache() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/cache/turnlock-lab");
    }
    let home = || PathBuf::from(process::environment("HOME").unwrap_or_else(|| "/".to_owned())).join(".cache");
    process::environment("XDG_CACHE_HOME").map_or_else(home, PathBuf::from).join("turnlock-lab")
}

/// The Python that finds these packages.
pub(crate) fn program() -> Result<PathBuf> {
    let python = environment().join("bin/python");
    if python.is_file() {
        return Ok(python);
    }
    Err(LabError::new("the lab's Python packages are not installed; run `cargo xtask setup`"))
}

/// Runs a script with these packages.
pub fn script(text: &str, arguments: &[&str]) -> Result<Command> {
    let mut command = clean_command(program()?);
    command.args(["-I", "-c", text]).args(arguments);
    Ok(command)
}
