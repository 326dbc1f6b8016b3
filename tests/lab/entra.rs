//! A stand-in for Microsoft Entra ID and Graph: no tenant can be had where
//! these tests run. `entra/server.py` says in its first lines what it does and
//! what it does not prove; whether a password works is told by Microsoft's own
//! library, not by us.

use std::{
    cell::RefCell,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    os::unix::net::UnixStream,
    path::PathBuf,
    process::Command,
    time::Duration,
};

use rcgen::{CertificateParams, DnType, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::{Value, json};

use crate::{
    Authority, LabError, Result,
    error::Context,
    process::{self, Ending, Owned, clean_command},
    python,
    server::{self, Recipe, Site},
};

const SERVER: &str = include_str!("entra/server.py");
const CLIENT: &str = include_str!("entra/client.py");

/// The stand-in's one tenant.
pub const TENANT: &str = "9f1c0a52-6a0c-4d2e-8f4b-0b8a3c1d7e55";

/// A running stand-in that is gone when this value is.
pub struct Entra {
    // Dropped before the site: the server must end before its directory does.
    process: Option<Owned>,
    port: u16,
    site: Site,
    client: RefCell<Option<python::Client>>,
    /// What was told to it, for it keeps nothing across a restart.
    told: RefCell<Vec<Value>>,
}

/// An application's certificate and private key, both PEM.
#[derive(Debug, Clone)]
pub struct ApplicationCertificate {
    /// The certificate.
    pub certificate: String,
    /// The RSA key, PKCS#8.
    pub key: String,
}

impl ApplicationCertificate {
    /// A new one, signed by itself, as Entra ID takes it.
    pub fn new() -> Result<Self> {
        let refused = |error: rcgen::Error| LabError::new(format!("no certificate could be made: {error}"));
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).map_err(refused)?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Turnlock lab application");
        let certificate = params.self_signed(&key).map_err(refused)?.pem();
        Ok(Self { certificate, key: key.serialize_pem() })
    }

    /// Both in one text.
    pub fn pem(&self) -> String {
        format!("{}{}", self.certificate, self.key)
    }
}

impl Entra {
    /// Starts a stand-in whose certificate bears these names.
    pub fn start(names: &[&str]) -> Result<Self> {
        let site = Site::new("entra", None, &Authority::new()?, names)?;
        process::write_file(&site.file("server.py"), SERVER)?;
        let (process, port) = server::start(&StandIn, &site)?;
        Ok(Self { process: Some(process), port, site, client: RefCell::default(), told: RefCell::default() })
    }

    /// Its TCP port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// The certificate of the authority that issued the server's certificate.
    pub fn ca_path(&self) -> PathBuf {
        self.site.file("ca.crt")
    }

    /// Makes a user.
    pub fn create_user(&self, login: &str, password: &str) -> Result<()> {
        self.tell(json!({"do": "user", "login": login, "password": password})).map(drop)
    }

    /// Registers an application that may reset users' passwords, and look users up.
    pub fn create_application(&self, name: &str, secret: &str) -> Result<()> {
        self.tell(json!({"do": "application", "name": name, "secret": secret})).map(drop)
    }

    /// Sets properties of a user: `password`, `enabled`, `administrator`, `must_change`, `synced`, `type`.
    pub fn set_user(&self, login: &str, to: Value) -> Result<()> {
        self.tell(json!({"do": "set user", "name": login, "to": to})).map(drop)
    }

    /// Sets properties of an application: `secret`, `expired`, `disabled`, `certificate`, `permissions`, `roles`, `azure`.
    pub fn set_application(&self, name: &str, to: Value) -> Result<()> {
        self.tell(json!({"do": "set application", "name": name, "to": to})).map(drop)
    }

    /// Sets the tenant's: `cloud`, `polls`, `lifetime`.
    pub fn set(&self, to: Value) -> Result<()> {
        self.tell(json!({"do": "set", "to": to})).map(drop)
    }

    /// A property of a user, `id` and `changes` besides those of [`Self::set_user`].
    pub fn user(&self, login: &str, what: &str) -> Result<Value> {
        self.ask(&json!({"do": "get user", "name": login, "what": what}))
    }

    /// Orders faults at `token`, `user`, `change`, `operation` or `azure`, for so many requests. Each is one of
    /// `{"what": "status", "status", "retry_after"?, "code"?, "apply"?}`, `{"what": "redirect", "to"}`,
    /// `{"what": "body", "body", "status"?}`, `{"what": "huge", "bytes"}`, `{"what": "cut before" | "cut after"}`
    /// and `{"what": "hold"}`, until [`Self::heal`].
    pub fn fault(&self, at: &str, fault: Value, times: u32) -> Result<()> {
        self.ask(&json!({"do": "fault", "at": at, "fault": fault, "times": times})).map(drop)
    }

    /// Ends every fault.
    pub fn heal(&self) -> Result<()> {
        self.ask(&json!({"do": "heal"})).map(drop)
    }

    /// Whether MSAL gets in as a user. `false` only when the service said that
    /// name or password is wrong; anything else is an error, never a guess.
    pub fn accepts(&self, login: &str, password: &str) -> Result<bool> {
        let told = self.through_msal(&json!({"login": login, "password": password}))?;
        match told.get("number").and_then(Value::as_i64) {
            // Expired, or to be changed: it was right.
            None | Some(50055) => Ok(true),
            Some(50034 | 50126) => Ok(false),
            Some(_) => Err(LabError::new(format!("MSAL could not tell whether {login:?} may log in: {told}"))),
        }
    }

    /// A question to MSAL, which `entra/client.py` describes, and its answer.
    pub fn through_msal(&self, question: &Value) -> Result<Value> {
        let mut client = self.client.borrow_mut();
        if client.is_none() {
            let service = format!("https://127.0.0.1:{}", self.port);
            let ca = self.ca_path().display().to_string();
            *client = Some(python::Client::start("MSAL", CLIENT, &[&service, TENANT, &ca])?);
        }
        match client.as_mut() {
            Some(client) => client.ask(question),
            None => Err(LabError::new("there is no client")),
        }
    }

    /// Everything the server has logged, across restarts.
    pub fn log(&self) -> String {
        self.site.log()
    }

    /// How many log-ins of applications were refused because of a wrong secret.
    pub fn failed_logins(&self) -> usize {
        self.log().lines().filter(|line| *line == "refused: AADSTS7000215").count()
    }

    /// Ends the server.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.stop(true, Duration::from_secs(20))?;
        }
        Ok(())
    }

    /// Starts it again on the same port, with the users and applications it was told of.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.process = Some(server::start_on(&StandIn, &self.site, self.port)?);
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
struct StandIn;

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
        let mut command = clean_command(process::need_program("python3")?);
        command.arg("-I").arg(site.file("server.py")).args(["127.0.0.1".to_owned(), port.to_string()]);
        command.args([site.file("server.crt"), site.file("server.key"), control]);
        Ok(command)
    }
}
