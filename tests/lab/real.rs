//! A real server that somebody has, in a stand-in's place: the environment names
//! a file with its address and an administrator. `real.py` says how.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{
    LabError, Result,
    error::Context,
    process::{self, clean_command},
    python,
    server::Site,
};

const REAL: &str = include_str!("real.py");

/// What the file says.
pub(crate) struct Real {
    kind: &'static str,
    file: PathBuf,
    ca: PathBuf,
}

/// The file that a variable of the environment names.
pub(crate) fn file_in(variable: &str) -> Option<PathBuf> {
    process::environment(variable).map(PathBuf::from)
}

impl Real {
    /// The server that this file tells of, if there is one.
    pub(crate) fn told_by(kind: &'static str, file: Option<PathBuf>) -> Result<Option<Self>> {
        let Some(file) = file else { return Ok(None) };
        let text = fs::read_to_string(&file).could_not(|| format!("read {}", file.display()))?;
        let about: Value = serde_json::from_str(&text)
            .map_err(|error| LabError::new(format!("{} is not JSON: {error}", file.display())))?;
        let ca = about.get("ca").and_then(Value::as_str).map(PathBuf::from);
        let ca = ca.ok_or_else(|| LabError::new(format!("{} has no \"ca\"", file.display())))?;
        Ok(Some(Self { kind, file, ca }))
    }

    /// The authority of its certificate.
    pub(crate) fn ca(&self) -> PathBuf {
        self.ca.clone()
    }

    /// Stands before it, at these ports of this machine.
    pub(crate) fn command(&self, site: &Site, ports: (u16, u16), control: &Path) -> Result<Command> {
        let script = site.file("real.py");
        process::write_file(&script, REAL)?;
        let mut command = clean_command(python::program()?);
        command.args(["-I", "-B"]).arg(script).arg(self.kind).arg(&self.file).arg(Ipv4Addr::LOCALHOST.to_string());
        command.args([ports.0, ports.1].map(|port| port.to_string())).arg(control);
        Ok(command)
    }
}

/// How many log-ins were refused, and the server's lines, as an order to write them down tells it.
pub(crate) fn written_down(told: &Value) -> (usize, String) {
    let refused = told.get("refused").and_then(Value::as_u64).unwrap_or_default();
    let lines = told.get("lines").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    (usize::try_from(refused).unwrap_or(usize::MAX), lines.collect::<Vec<_>>().join("\n"))
}
