//! A stand-in for SQL Server: no real one can be had where these tests run.
//! `mssql/server.py` says in its first lines what it does and what it does not
//! prove; whether a log-in works is told by FreeTDS, not by us.

use std::{
    io::{BufRead, BufReader, Write},
    net::Ipv4Addr,
    os::unix::net::UnixStream,
    path::PathBuf,
    process::Command,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    Authority, LabError, Result,
    error::Context,
    process::{self, Ending, Owned, clean_command},
    python,
    real::{Real, file_in, written_down},
    server::{self, Recipe, Site},
};

const SERVER: &str = include_str!("mssql/server.py");
const CLIENT: &str = include_str!("mssql/client.py");

/// What a test may want different from the default.
#[derive(Debug, Clone)]
pub struct SqlServerOptions {
    /// The names in the server's certificate.
    pub names: Vec<String>,
    /// What tells of a real server in the stand-in's place: the file that `TURNLOCK_LAB_MSSQL` names, unless told.
    pub real: Option<PathBuf>,
    /// A named instance: the server gets an address for itself, with a SQL Server Browser.
    pub instance: Option<String>,
}

impl Default for SqlServerOptions {
    fn default() -> Self {
        Self {
            names: vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
            real: file_in("TURNLOCK_LAB_MSSQL"),
            instance: None,
        }
    }
}

/// A running stand-in that is gone when this value is.
pub struct SqlServer {
    // Dropped before the site: the server must end before its directory does.
    process: Option<Owned>,
    port: u16,
    recipe: StandIn,
    site: Site,
    /// What was told to it, for it keeps nothing across a restart.
    told: std::cell::RefCell<Vec<Value>>,
}

impl SqlServer {
    /// Starts a server and returns once it accepts connections.
    pub fn start(options: SqlServerOptions) -> Result<Self> {
        let address = if options.instance.is_some() { server::free_address(1434)? } else { Ipv4Addr::LOCALHOST };
        let own = address.to_string();
        let names: Vec<&str> = options.names.iter().map(String::as_str).chain([own.as_str()]).collect();
        let site = Site::new("mssql", None, &Authority::new()?, &names)?;
        process::write_file(&site.file("server.py"), SERVER)?;
        let recipe = StandIn { address, instance: options.instance, real: Real::told_by("mssql", options.real)? };
        let (process, port) = server::start(&recipe, &site)?;
        Ok(Self { process: Some(process), port, recipe, site, told: std::cell::RefCell::default() })
    }

    /// The address it listens at.
    pub fn host(&self) -> String {
        self.recipe.address.to_string()
    }

    /// Its TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The certificate of the authority that issued the server's certificate.
    pub fn ca_path(&self) -> PathBuf {
        self.recipe.real.as_ref().map_or_else(|| self.site.file("ca.crt"), Real::ca)
    }

    /// Makes a login that may change its own password.
    pub fn create(&self, login: &str, password: &str) -> Result<()> {
        self.tell(json!({"do": "create", "login": login, "password": password})).map(drop)
    }

    /// Makes a login with ALTER ANY LOGIN.
    pub fn create_admin(&self, login: &str, password: &str) -> Result<()> {
        self.tell(json!({"do": "create", "login": login, "password": password, "admin": true})).map(drop)
    }

    /// Sets properties of a login: `password`, `locked`, `disabled`, `expired`, `must_change`, `policy`, `expiration`.
    pub fn set(&self, login: &str, to: Value) -> Result<()> {
        self.tell(json!({"do": "set", "login": login, "to": to})).map(drop)
    }

    /// Sets the server's rules: `min_length`, `classes`, `remembered`, `threshold`.
    pub fn set_policy(&self, to: Value) -> Result<()> {
        self.tell(json!({"do": "policy", "to": to})).map(drop)
    }

    /// A property of a login, `failures` besides those of [`Self::set`].
    pub fn get(&self, login: &str, what: &str) -> Result<Value> {
        self.ask(&json!({"do": "get", "login": login, "what": what}))
    }

    /// Whether FreeTDS gets in. `false` only when the server said that name or
    /// password is wrong; anything else is an error, never a guess.
    pub fn accepts(&self, login: &str, password: &str) -> Result<bool> {
        let mut client = python::script(CLIENT, &[&self.host(), &self.port.to_string(), login])?;
        let output = process::run(&mut client, password.as_bytes())?;
        match (output.status, output.stdout.split(' ').next()) {
            (0, _) | (1, Some("18487" | "18488")) => Ok(true),
            (1, Some("18456")) => Ok(false),
            _ => Err(LabError::new(format!(
                "FreeTDS could not tell whether {login:?} may log in: {}{}",
                output.stdout, output.stderr
            ))),
        }
    }

    /// Everything the server has logged, across restarts.
    pub fn log(&self) -> String {
        self.of_the_real().map_or_else(|| self.site.log(), |(_, lines)| lines)
    }

    /// How many log-ins the server refused because of a wrong name or password.
    pub fn failed_logins(&self) -> usize {
        match self.of_the_real() {
            Some((refused, _)) => refused,
            None => self.log().lines().filter(|line| line.ends_with("refused: 18456")).count(),
        }
    }

    /// What a real server has written down. Without its word no count is right.
    fn of_the_real(&self) -> Option<(usize, String)> {
        self.recipe.real.as_ref()?;
        match self.ask(&json!({"do": "log"})) {
            Ok(told) => Some(written_down(&told)),
            Err(error) => Some((usize::MAX, error.to_string())),
        }
    }

    /// Ends the server.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.stop(true, Duration::from_secs(20))?;
        }
        Ok(())
    }

    /// Starts it again on the same port, with the logins it had.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.process = Some(server::start_on(&self.recipe, &self.site, self.port)?);
        self.told.borrow().iter().try_for_each(|told| self.ask(told).map(drop))
    }

    /// Freezes the server: connections stay open, nothing answers.
    pub fn pause(&self) {
        if let Some(process) = &self.process {
            process.pause();
        }
    }

    /// Ends a [`Self::pause`].
    pub fn resume(&self) {
        if let Some(process) = &self.process {
            process.resume();
        }
    }

    fn tell(&self, command: Value) -> Result<Value> {
        let value = self.ask(&command)?;
        self.told.borrow_mut().push(command);
        Ok(value)
    }

    fn ask(&self, command: &Value) -> Result<Value> {
        let path = self.site.file("control");
        let mut stream = UnixStream::connect(&path).could_not(|| format!("connect to {}", path.display()))?;
        stream.write_all(format!("{command}\n").as_bytes()).could_not(|| "tell the stand-in".to_owned())?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).could_not(|| "hear the stand-in".to_owned())?;
        let told: Value = serde_json::from_str(&line).map_err(|error| LabError::new(format!("{error}: {line}")))?;
        match (told.get("value"), told.get("error")) {
            (Some(value), None) => Ok(value.clone()),
            _ => Err(LabError::new(format!("{command}: {told}"))),
        }
    }
}

/// How the stand-in is run.
struct StandIn {
    address: Ipv4Addr,
    instance: Option<String>,
    /// What stands in its place.
    real: Option<Real>,
}

impl Recipe for StandIn {
    const ENDING: Ending = Ending::Kill;

    fn ready(&self) -> &'static str {
        "ready"
    }

    fn command(&self, site: &Site, port: u16) -> Result<Command> {
        let control = site.file("control");
        if control.exists() {
            std::fs::remove_file(&control).could_not(|| format!("remove {}", control.display()))?;
        }
        if let Some(real) = &self.real {
            return real.command(site, (port, 0), &control);
        }
        let mut command = clean_command(process::need_program("python3")?);
        command.arg("-I").arg(site.file("server.py")).args([self.address.to_string(), port.to_string()]);
        command.args([site.file("server.crt"), site.file("server.key"), control]).args(self.instance.as_deref());
        Ok(command)
    }
}
