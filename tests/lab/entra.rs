//! A stand-in for Microsoft Entra ID and Graph: no tenant can be had where
//! these tests run. `entra/server.py` says in its first lines what it does and
//! what it does not prove; whether a password works is told by Microsoft's own
//! library, not by us.

use std::{net::SocketAddr, path::PathBuf};

use rcgen::{CertificateParams, DnType, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::{Value, json};

use crate::{
    Authority, LabError, Result, process, python,
    server::Site,
    stand_in::{Script, StandIn},
};

const SERVER: &str = include_str!("entra/server.py");
const CLIENT: &str = include_str!("entra/client.py");

/// The stand-in's one tenant.
pub const TENANT: &str = "9f1c0a52-6a0c-4d2e-8f4b-0b8a3c1d7e55";

/// A running stand-in that is gone when this value is.
pub struct Entra {
    stand_in: StandIn<Script>,
    client: python::OnDemand,
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
        Ok(Self { stand_in: StandIn::start(Script::plain()?, site)?, client: python::OnDemand::default() })
    }

    /// Its TCP port on loopback.
    pub fn port(&self) -> u16 {
        self.stand_in.port()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.stand_in.address()
    }

    /// The certificate of the authority that issued the server's certificate.
    pub fn ca_path(&self) -> PathBuf {
        self.stand_in.ca_path()
    }

    /// Makes a user.
    pub fn create_user(&self, login: &str, password: &str) -> Result<()> {
        self.stand_in.tell(json!({"do": "user", "login": login, "password": password})).map(drop)
    }

    /// Registers an application that may reset users' passwords, and look users up.
    pub fn create_application(&self, name: &str, secret: &str) -> Result<()> {
        self.stand_in.tell(json!({"do": "application", "name": name, "secret": secret})).map(drop)
    }

    /// Sets properties of a user: `password`, `enabled`, `administrator`, `must_change`, `synced`, `type`.
    pub fn set_user(&self, login: &str, to: Value) -> Result<()> {
        self.stand_in.tell(json!({"do": "set user", "name": login, "to": to})).map(drop)
    }

    /// Sets properties of an application: `secret`, `expired`, `disabled`, `certificate`, `permissions`, `roles`, `azure`.
    pub fn set_application(&self, name: &str, to: Value) -> Result<()> {
        self.stand_in.tell(json!({"do": "set application", "name": name, "to": to})).map(drop)
    }

    /// Sets the tenant's: `cloud`, `polls`, `lifetime`.
    pub fn set(&self, to: Value) -> Result<()> {
        self.stand_in.tell(json!({"do": "set", "to": to})).map(drop)
    }

    /// A property of a user, `id` and `changes` besides those of [`Self::set_user`].
    pub fn user(&self, login: &str, what: &str) -> Result<Value> {
        self.stand_in.ask(&json!({"do": "get user", "name": login, "what": what}))
    }

    /// Orders faults at `token`, `user`, `change`, `operation` or `azure`, for so many requests. Each is one of
    /// `{"what": "status", "status", "retry_after"?, "code"?, "apply"?}`, `{"what": "redirect", "to"}`,
    /// `{"what": "body", "body", "status"?}`, `{"what": "huge", "bytes"}`, `{"what": "cut before" | "cut after"}`
    /// and `{"what": "hold"}`, until [`Self::heal`].
    pub fn fault(&self, at: &str, fault: Value, times: u32) -> Result<()> {
        self.stand_in.ask(&json!({"do": "fault", "at": at, "fault": fault, "times": times})).map(drop)
    }

    /// Ends every fault.
    pub fn heal(&self) -> Result<()> {
        self.stand_in.ask(&json!({"do": "heal"})).map(drop)
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
        let start = || {
            let service = format!("https://127.0.0.1:{}", self.stand_in.port());
            let ca = self.ca_path().display().to_string();
            python::Client::start("MSAL", CLIENT, &[&service, TENANT, &ca])
        };
        self.client.ask(start, question)
    }

    /// Everything the server has logged, across restarts.
    pub fn log(&self) -> String {
        self.stand_in.site.log()
    }

    /// How many log-ins of applications were refused because of a wrong secret.
    pub fn failed_logins(&self) -> usize {
        self.log().lines().filter(|line| *line == "refused: AADSTS7000215").count()
    }

    /// Ends the server.
    pub fn stop(&mut self) -> Result<()> {
        self.stand_in.stop()
    }

    /// Starts it again on the same port, with the users and applications it was told of.
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
