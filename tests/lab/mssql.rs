//! A stand-in for SQL Server: no real one can be had where these tests run.
//! `mssql/server.py` says in its first lines what it does and what it does not
//! prove; whether a log-in works is told by FreeTDS, not by us.

use std::{net::Ipv4Addr, path::PathBuf, process::Command};

use serde_json::{Value, json};

use crate::{
    Authority, LabError, Result,
    process::{self, Ending},
    python,
    real::{Real, file_in, written_down},
    server::{self, Recipe, Site},
    stand_in::{Script, StandIn, control},
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
    stand_in: StandIn<Server>,
}

impl SqlServer {
    /// Starts a server and returns once it accepts connections.
    pub fn start(options: SqlServerOptions) -> Result<Self> {
        let address = if options.instance.is_some() { server::free_address(1434)? } else { Ipv4Addr::LOCALHOST };
        let own = address.to_string();
        let names: Vec<&str> = options.names.iter().map(String::as_str).chain([own.as_str()]).collect();
        let site = Site::new("mssql", None, &Authority::new()?, &names)?;
        process::write_file(&site.file("server.py"), SERVER)?;
        let more = options.instance.map(Into::into).into_iter().collect();
        let script = Script { address, more, ..Script::plain()? };
        let server = Server { script, real: Real::told_by("mssql", options.real)? };
        Ok(Self { stand_in: StandIn::start(server, site)? })
    }

    /// The address it listens at.
    pub fn host(&self) -> String {
        self.stand_in.recipe.script.address.to_string()
    }

    /// Its TCP port.
    pub fn port(&self) -> u16 {
        self.stand_in.port()
    }

    /// The certificate of the authority that issued the server's certificate.
    pub fn ca_path(&self) -> PathBuf {
        self.stand_in.recipe.real.as_ref().map_or_else(|| self.stand_in.ca_path(), Real::ca)
    }

    /// Makes a login that may change its own password.
    pub fn create(&self, login: &str, password: &str) -> Result<()> {
        self.stand_in.tell(json!({"do": "create", "login": login, "password": password})).map(drop)
    }

    /// Makes a login with ALTER ANY LOGIN.
    pub fn create_admin(&self, login: &str, password: &str) -> Result<()> {
        self.stand_in.tell(json!({"do": "create", "login": login, "password": password, "admin": true})).map(drop)
    }

    /// Sets properties of a login: `password`, `locked`, `disabled`, `expired`, `must_change`, `policy`, `expiration`.
    pub fn set(&self, login: &str, to: Value) -> Result<()> {
        self.stand_in.tell(json!({"do": "set", "login": login, "to": to})).map(drop)
    }

    /// Sets the server's rules: `min_length`, `classes`, `remembered`, `threshold`.
    pub fn set_policy(&self, to: Value) -> Result<()> {
        self.stand_in.tell(json!({"do": "policy", "to": to})).map(drop)
    }

    /// A property of a login, `failures` besides those of [`Self::set`].
    pub fn get(&self, login: &str, what: &str) -> Result<Value> {
        self.stand_in.ask(&json!({"do": "get", "login": login, "what": what}))
    }

    /// Whether FreeTDS gets in. `false` only when the server said that name or
    /// password is wrong; anything else is an error, never a guess.
    pub fn accepts(&self, login: &str, password: &str) -> Result<bool> {
        let mut client = python::script(CLIENT, &[&self.host(), &self.stand_in.port().to_string(), login])?;
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
        self.of_the_real().map_or_else(|| self.stand_in.site.log(), |(_, lines)| lines)
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
        self.stand_in.recipe.real.as_ref()?;
        match self.stand_in.ask(&json!({"do": "log"})) {
            Ok(told) => Some(written_down(&told)),
            Err(error) => Some((usize::MAX, error.to_string())),
        }
    }

    /// Ends the server.
    pub fn stop(&mut self) -> Result<()> {
        self.stand_in.stop()
    }

    /// Starts it again on the same port, with the logins it had.
    pub fn restart(&mut self) -> Result<()> {
        self.stand_in.restart()
    }

    /// Freezes the server: connections stay open, nothing answers.
    pub fn pause(&self) {
        self.stand_in.pause();
    }

    /// Ends a [`Self::pause`].
    pub fn resume(&self) {
        self.stand_in.resume();
    }
}

/// The stand-in, or what stands in its place.
struct Server {
    script: Script,
    real: Option<Real>,
}

impl Recipe for Server {
    const ENDING: Ending = Ending::Kill;

    fn ready(&self) -> &'static str {
        self.script.ready()
    }

    fn command(&self, site: &Site, port: u16) -> Result<Command> {
        match &self.real {
            Some(real) => real.command(site, (port, 0), &control(site)?),
            None => self.script.command(site, port),
        }
    }
}
