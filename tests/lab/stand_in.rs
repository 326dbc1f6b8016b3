//! Servers of our own making in Python, and the socket through which they are
//! told what to do.

use std::{
    cell::RefCell,
    ffi::OsString,
    fs,
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::Command,
    time::Duration,
};

use serde_json::Value;

use crate::{
    LabError, Result,
    error::Context,
    process::{self, Ending, Owned, clean_command},
    server::{self, Recipe, Site},
};

/// A running one; it is gone when this value is.
pub(crate) struct StandIn<R> {
    // Dropped before the site: the server must end before its directory does.
    process: Option<Owned>,
    port: u16,
    pub(crate) recipe: R,
    pub(crate) site: Site,
    /// What it forgets when it ends.
    told: RefCell<Vec<Value>>,
}

impl<R: Recipe> StandIn<R> {
    /// Starts it, and returns once it accepts connections.
    pub(crate) fn start(recipe: R, site: Site) -> Result<Self> {
        let (process, port) = server::start(&recipe, &site)?;
        Ok(Self { process: Some(process), port, recipe, site, told: RefCell::default() })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub(crate) fn ca_path(&self) -> PathBuf {
        self.site.file("ca.crt")
    }

    pub(crate) fn stop(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.stop(true, Duration::from_secs(20))?;
        }
        Ok(())
    }

    /// Starts it again on the same port, and tells it what it has forgotten.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.process = Some(server::start_on(&self.recipe, &self.site, self.port)?);
        self.told.borrow().iter().try_for_each(|told| self.ask(told).map(drop))
    }

    pub(crate) fn pause(&self) {
        if let Some(process) = &self.process {
            process.pause();
        }
    }

    pub(crate) fn resume(&self) {
        if let Some(process) = &self.process {
            process.resume();
        }
    }

    /// Tells it something that it has to know after a restart, too.
    pub(crate) fn tell(&self, command: Value) -> Result<Value> {
        let value = self.ask(&command)?;
        self.remember(command);
        Ok(value)
    }

    /// What it is told after a restart besides.
    pub(crate) fn remember(&self, command: Value) {
        self.told.borrow_mut().push(command);
    }

    /// Tells it something, and hears what it says.
    pub(crate) fn ask(&self, command: &Value) -> Result<Value> {
        let path = self.site.file(CONTROL);
        let mut stream = UnixStream::connect(&path).could_not(|| format!("connect to {}", path.display()))?;
        stream.write_all(format!("{command}\n").as_bytes()).could_not(|| "tell a stand-in".to_owned())?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).could_not(|| "hear a stand-in".to_owned())?;
        let told: Value = serde_json::from_str(&line).map_err(|error| LabError::new(format!("{error}: {line}")))?;
        match (told.get("value"), told.get("error")) {
            (Some(value), None) => Ok(value.clone()),
            _ => Err(LabError::new(format!("{command}: {told}"))),
        }
    }
}

const CONTROL: &str = "control";

/// Where a server is to make its socket: a place that is free.
pub(crate) fn control(site: &Site) -> Result<PathBuf> {
    let control = site.file(CONTROL);
    if control.exists() {
        fs::remove_file(&control).could_not(|| format!("remove {}", control.display()))?;
    }
    Ok(control)
}

/// `server.py ADDRESS PORT CERTIFICATE KEY CONTROL`, and what else it wants to know.
pub(crate) struct Script {
    pub(crate) address: Ipv4Addr,
    /// With the lab's packages, where it uses any.
    pub(crate) python: PathBuf,
    pub(crate) more: Vec<OsString>,
}

impl Script {
    /// One that needs nothing but Python itself.
    pub(crate) fn plain() -> Result<Self> {
        Ok(Self::with(process::need_program("python3")?))
    }

    /// One that this Python runs.
    pub(crate) fn with(python: PathBuf) -> Self {
        Self { address: Ipv4Addr::LOCALHOST, python, more: Vec::new() }
    }
}

impl Recipe for Script {
    const ENDING: Ending = Ending::Kill;

    fn ready(&self) -> &'static str {
        "ready"
    }

    fn command(&self, site: &Site, port: u16) -> Result<Command> {
        let mut command = clean_command(&self.python);
        command.args(["-I", "-B"]).arg(site.file("server.py")).args([self.address.to_string(), port.to_string()]);
        command.args([site.file("server.crt"), site.file("server.key"), control(site)?]).args(&self.more);
        Ok(command)
    }
}
