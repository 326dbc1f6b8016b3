//! Others that change passwords: Keeper Commander's plugins and OpenBao, each
//! by a script that says what it does.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    path::PathBuf,
};

use lab::{Postgresql, Result, process, python};
use serde_json::json;

use super::measure::{figure, finish, median};
use crate::setup;

const REQUIREMENTS: &str = include_str!("requirements.txt");
const COMMANDER: &str = include_str!("commander.py");
const OPENBAO: &str = include_str!("openbao.py");

/// Where they are installed; other versions mean another place.
fn environment() -> PathBuf {
    let mut hasher = DefaultHasher::new();
    REQUIREMENTS.hash(&mut hasher);
    python::cache().join("rivals").join(format!("{:016x}", hasher.finish()))
}

/// Installs them where they are missing.
pub(super) fn install() -> Result<()> {
    if environment().is_dir() {
        return Ok(());
    }
    setup::install_python(&environment(), REQUIREMENTS)
}

fn python(script: &str) -> std::process::Command {
    let mut command = process::clean_command(environment().join("bin/python"));
    command.args(["-I", "-c", script]);
    command
}

/// One of Commander's plugins.
pub(super) struct Commander {
    plugin: &'static str,
}

impl Commander {
    pub(super) fn new(plugin: &'static str) -> Self {
        Self { plugin }
    }

    /// Rotates these accounts one after the other in one process: how many a second.
    pub(super) fn serial(&self, port: u16, logins: &[String], old: &str, new: &str) -> Result<f64> {
        let question = json!({"plugin": self.plugin, "port": port, "logins": logins, "old": old, "new": new});
        let printed = finish(&mut python(COMMANDER), question.to_string().as_bytes())?;
        Ok(logins.len() as f64 / figure(&printed, "seconds")?)
    }

    /// Starts it for one account each: milliseconds.
    pub(super) fn cold(&self, port: u16, logins: &[String], old: &str, new: &str) -> Result<f64> {
        let mut left = logins.iter();
        median(logins.len(), || {
            let login: Vec<String> = left.next().cloned().into_iter().collect();
            self.serial(port, &login, old, new).map(drop)
        })
    }
}

/// OpenBao's database engine, with its storage on disk.
pub(super) struct Openbao<'a> {
    pub(super) server: &'a Postgresql,
    pub(super) logins: &'a [String],
}

impl Openbao<'_> {
    /// How many roles a second it rotates, for so many requests at a time.
    pub(super) fn rates(&self, jobs: &[usize]) -> Result<Vec<(usize, f64)>> {
        let admin = self.server.admin();
        let question = json!({"program": environment().join("bin/bao"), "port": self.server.port(),
            "ca": self.server.ca_path(), "login": admin.login, "password": admin.password,
            "roles": self.logins, "jobs": jobs});
        let printed = finish(&mut python(OPENBAO), question.to_string().as_bytes())?;
        jobs.iter().map(|jobs| Ok((*jobs, figure(&printed, &jobs.to_string())?))).collect()
    }
}
