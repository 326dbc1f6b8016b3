//! A stand-in for Oracle Database: no real one can be had where these tests
//! run. `oracle/server.py` says in its first lines what it does and what it does
//! not prove; whether a log-in works is told by Oracle's own driver for Python.

use std::{cell::Cell, net::Ipv4Addr, path::PathBuf, process::Command};

use serde_json::{Value, json};

use crate::{
    Authority, LabError, Result, ports,
    process::{self, Ending, clean_command},
    python,
    real::{Real, file_in, written_down},
    server::{Recipe, Site},
    stand_in::{StandIn, control},
};

const PARTS: [(&str, &str); 4] = [
    ("server.py", include_str!("oracle/server.py")),
    ("database.py", include_str!("oracle/database.py")),
    ("sql.py", include_str!("oracle/sql.py")),
    ("wire.py", include_str!("oracle/wire.py")),
];
const CLIENT: &str = include_str!("oracle/client.py");

/// What a test may want different from the default.
#[derive(Debug, Clone)]
pub struct OracleOptions {
    /// The names in the server's certificate.
    pub names: Vec<String>,
    /// What tells of a real server in the stand-in's place: the file that `TURNLOCK_LAB_ORACLE` names, unless told.
    pub real: Option<PathBuf>,
}

impl Default for OracleOptions {
    fn default() -> Self {
        Self { names: vec!["localhost".to_owned(), "127.0.0.1".to_owned()], real: file_in("TURNLOCK_LAB_ORACLE") }
    }
}

/// A running stand-in that is gone when this value is. Users are named as the
/// server stores them: `APP` is who logs in as `app`, `"APP"` or `APP`.
pub struct OracleServer {
    stand_in: StandIn<Server>,
    client: python::OnDemand,
}

impl OracleServer {
    /// The one service that its listener knows.
    pub const SERVICE: &'static str = "lab.test";
    /// The same database by its SID.
    pub const SID: &'static str = "LAB";

    /// Starts a server and returns once it accepts connections.
    pub fn start(options: OracleOptions) -> Result<Self> {
        let names: Vec<&str> = options.names.iter().map(String::as_str).collect();
        let site = Site::new("oracle", None, &Authority::new()?, &names)?;
        for (name, text) in PARTS {
            process::write_file(&site.file(name), text)?;
        }
        let server = Server { ports: Cell::default(), real: Real::told_by("oracle", options.real)? };
        Ok(Self { stand_in: StandIn::start(server, site)?, client: python::OnDemand::default() })
    }

    /// The address it listens at.
    pub fn host(&self) -> String {
        Ipv4Addr::LOCALHOST.to_string()
    }

    /// Its port without TLS.
    pub fn port(&self) -> u16 {
        self.stand_in.port()
    }

    /// Its port with TLS (TCPS).
    pub fn secure_port(&self) -> u16 {
        self.stand_in.recipe.ports.get().1
    }

    /// The certificate of the authority that issued the server's certificate.
    pub fn ca_path(&self) -> PathBuf {
        self.stand_in.recipe.real.as_ref().map_or_else(|| self.stand_in.ca_path(), Real::ca)
    }

    /// Makes a user who may log in, and change its own password like everybody.
    pub fn create_user(&self, user: &str, password: &str) -> Result<()> {
        self.stand_in.ask(&json!({"do": "create", "user": user, "password": password})).map(drop)
    }

    /// Makes a user with ALTER USER and SELECT ANY DICTIONARY.
    pub fn create_admin(&self, user: &str, password: &str) -> Result<()> {
        let privileges = ["ALTER USER", "SELECT ANY DICTIONARY"];
        self.stand_in
            .ask(&json!({"do": "create", "user": user, "password": password, "privileges": privileges}))
            .map(drop)
    }

    /// Drops a user.
    pub fn drop_user(&self, user: &str) -> Result<()> {
        self.stand_in.ask(&json!({"do": "drop", "user": user})).map(drop)
    }

    /// Sets properties of a user: `password`, `locked` (`LOCKED`, `LOCKED(TIMED)` or
    /// null), `expired` (`EXPIRED`, `EXPIRED(GRACE)` or null), `failures`,
    /// `privileges`, `rolled_over` (a second password that is good for a while).
    pub fn set(&self, user: &str, to: Value) -> Result<()> {
        self.stand_in.ask(&json!({"do": "set", "user": user, "to": to})).map(drop)
    }

    /// Everything about a user: the properties of [`Self::set`], `history` and `status`.
    pub fn state(&self, user: &str) -> Result<Value> {
        self.stand_in.ask(&json!({"do": "get", "user": user}))
    }

    /// Sets limits of the one profile: `attempts` (10; 0 is no limit), `remembered`
    /// passwords (0), `verify` (`{"length": 8}` or null), `rollover` (false).
    pub fn set_profile(&self, to: Value) -> Result<()> {
        self.stand_in.ask(&json!({"do": "profile", "to": to})).map(drop)
    }

    /// Sets what holds for the database: `read_only`, the `longest` password in
    /// bytes (30), and two demands that no thin driver for Rust can meet:
    /// `encryption_required` (without TLS) and `old_verifiers` (those of 11g).
    pub fn set_database(&self, to: Value) -> Result<()> {
        self.stand_in.ask(&json!({"do": "database", "to": to})).map(drop)
    }

    /// Lets the next thing go wrong: `at` is `login`, `change` (in whichever way)
    /// or `query`; `moment` is `before` it is done, or `after`; `how` is `cut`,
    /// `hang`, `delay` (with `seconds`) or `error` (with `code` and `text`);
    /// `times` it is once unless told.
    pub fn plan_fault(&self, fault: Value) -> Result<()> {
        self.stand_in.ask(&json!({"do": "fault", "fault": fault})).map(drop)
    }

    /// All statements that clients sent, each with its `user` and its `text`.
    pub fn statements(&self) -> Result<Vec<Value>> {
        self.list("seen")
    }

    /// All changes of passwords that were asked for: `by` whom, of which `user`, in
    /// which `way` (`login`, `call`, `sql`), and the `code` of the error, or 0.
    pub fn changes(&self) -> Result<Vec<Value>> {
        self.list("changes")
    }

    /// Whether Oracle's driver gets in. `false` only when the server said that name
    /// or password is wrong; anything else is an error, never a guess.
    pub fn accepts(&self, user: &str, password: &str) -> Result<bool> {
        let told = self.python(json!({"user": format!("\"{user}\""), "password": password}))?;
        match told.get("code").and_then(Value::as_str) {
            // Who is told that its password has expired has told the right one.
            None | Some("ORA-28001") => Ok(true),
            Some("ORA-01017") => Ok(false),
            Some(_) => {
                Err(LabError::new(format!("Oracle's driver could not tell whether {user:?} may log in: {told}")))
            }
        }
    }

    /// Has Oracle's driver for Python do what `oracle/client.py` says, here unless `connect` is given.
    pub fn python(&self, mut asked: Value) -> Result<Value> {
        if asked.get("connect").is_none() {
            let connect = format!("{}:{}/{}", self.host(), self.stand_in.port(), Self::SERVICE);
            asked
                .as_object_mut()
                .into_iter()
                .for_each(|asked| drop(asked.insert("connect".to_owned(), json!(connect))));
        }
        let told = self.client.ask(|| python::Client::start("Oracle's driver", CLIENT, &[]), &asked)?;
        match told.get("wrong") {
            None => Ok(told),
            Some(wrong) => Err(LabError::new(format!("Oracle's driver failed: {wrong}"))),
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
            None => self.log().lines().filter(|line| line.ends_with("refused: 1017")).count(),
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

    /// Starts it again on the same ports, with everything it had but planned faults.
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

    fn list(&self, what: &str) -> Result<Vec<Value>> {
        Ok(self.stand_in.ask(&json!({"do": what}))?.as_array().cloned().unwrap_or_default())
    }
}

/// The stand-in, or what stands in its place.
struct Server {
    /// Its port, and the one with TLS that was chosen along with it.
    ports: Cell<(u16, u16)>,
    /// What stands in its place.
    real: Option<Real>,
}

impl Recipe for Server {
    const ENDING: Ending = Ending::Kill;

    fn ready(&self) -> &'static str {
        "ready"
    }

    fn command(&self, site: &Site, port: u16) -> Result<Command> {
        // The same one after a restart, another one when the start is tried again elsewhere.
        if self.ports.get().0 != port {
            self.ports.set((port, ports::free()?));
        }
        let control = control(site)?;
        // AES comes with the packages of the driver.
        if let Some(real) = &self.real {
            return real.command(site, self.ports.get(), &control);
        }
        let mut command = clean_command(python::program()?);
        command.args(["-I", "-B"]).arg(site.file("server.py")).arg(Ipv4Addr::LOCALHOST.to_string());
        command.args([port, self.ports.get().1].map(|port| port.to_string()));
        command.args([site.file("server.crt"), site.file("server.key"), control, site.file("database.json")]);
        Ok(command)
    }
}
