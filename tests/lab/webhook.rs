//! A receiver of webhooks with a certificate of the lab's authority.

use std::{fs, path::PathBuf, process::Command};

use serde_json::Value;

use crate::{
    Authority, LabError, Result,
    error::Context,
    process::{self, Ending, Owned},
    python,
    server::{self, Recipe, Site},
};

/// What it and its callers sign with.
pub const WEBHOOK_KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A running receiver that is gone when this value is.
pub struct Receiver {
    // Dropped before the site: the server must end before its directory does.
    _process: Owned,
    port: u16,
    site: Site,
}

impl Receiver {
    /// Starts one whose certificate bears these names. It answers 204.
    pub fn start(names: &[&str]) -> Result<Self> {
        let site = Site::new("webhook", None, &Authority::new()?, names)?;
        process::write_file(&site.file("server.py"), include_str!("webhook.py"))?;
        site.private_file("signing.key", WEBHOOK_KEY)?;
        process::write_file(&site.file("heard"), "")?;
        process::write_file(&site.file("answers"), "204")?;
        let (process, port) = server::start(&Python, &site)?;
        Ok(Self { _process: process, port, site })
    }

    /// An address at it.
    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}/{path}", self.port)
    }

    /// The certificate of the authority that issued the server's certificate.
    pub fn ca_path(&self) -> PathBuf {
        self.site.file("ca.crt")
    }

    /// The file with the signing key.
    pub fn key_path(&self) -> PathBuf {
        self.site.file("signing.key")
    }

    /// What to answer from now on: statuses, or `to URL`; the last one stays.
    pub fn answer(&self, answers: &[&str]) -> Result<()> {
        process::write_file(&self.site.file("answers"), answers.join("\n"))
    }

    /// What it was told since it was last asked.
    pub fn heard(&self) -> Result<Vec<Value>> {
        let path = self.site.file("heard");
        let text = fs::read_to_string(&path).could_not(|| format!("read {}", path.display()))?;
        process::write_file(&path, "")?;
        let read =
            |line| serde_json::from_str(line).map_err(|error| LabError::new(format!("no JSON was heard: {error}")));
        text.lines().map(read).collect()
    }
}

struct Python;

impl Recipe for Python {
    fn command(&self, site: &Site, port: u16) -> Result<Command> {
        let mut command = process::clean_command(python::program()?);
        command.arg("-I").arg(site.file("server.py")).arg(port.to_string());
        for name in ["server.crt", "server.key", "signing.key"] {
            command.arg(site.file(name));
        }
        command.arg(site.path());
        Ok(command)
    }

    fn ready(&self) -> &'static str {
        "ready"
    }

    const ENDING: Ending = Ending::Kill;
}
