//! AWS's IAM and STS: moto, and what it lacks. `aws/server.py` says in its
//! first lines what that is and what it does not prove; whether an access key
//! works is told by AWS's own library for Python, not by us.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::{
    Authority, LabError, Result, process, python,
    server::Site,
    stand_in::{Script, StandIn},
};

const SERVER: &str = include_str!("aws/server.py");
const CLIENT: &str = include_str!("aws/client.py");

/// The AWS account that all users are in.
pub const ACCOUNT: &str = "123456789012";

/// A running service that is gone when this value is.
pub struct Aws {
    stand_in: StandIn<Script>,
    client: python::OnDemand,
}

/// An access key with its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessKey {
    /// `AKIA…`
    pub id: String,
    /// Its secret.
    pub secret: String,
    /// Whether it may sign.
    pub active: bool,
}

impl Aws {
    /// Starts a service whose certificate bears these names.
    pub fn start(names: &[&str]) -> Result<Self> {
        let site = Site::new("aws", None, &Authority::new()?, names)?;
        process::write_file(&site.file("server.py"), SERVER)?;
        let moto = Script::with(python::program()?);
        Ok(Self { stand_in: StandIn::start(moto, site)?, client: python::OnDemand::default() })
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

    /// Makes a user, with a console password or without, who may do nothing.
    pub fn create_user(&self, name: &str, password: Option<&str>) -> Result<()> {
        self.stand_in.tell(json!({"do": "user", "name": name, "password": password})).map(drop)
    }

    /// Lets a user do this and no more.
    pub fn allow(&self, name: &str, actions: &[&str]) -> Result<()> {
        self.stand_in.tell(json!({"do": "policy", "name": name, "actions": actions})).map(drop)
    }

    /// Lets a user do all but this.
    pub fn allow_all_but(&self, name: &str, deny: &[&str]) -> Result<()> {
        self.stand_in.tell(json!({"do": "policy", "name": name, "actions": ["iam:*", "sts:*"], "deny": deny})).map(drop)
    }

    /// Makes a role that a user may assume, and gives its ARN.
    pub fn create_role(&self, name: &str, trusts: &str, external: Option<&str>, actions: &[&str]) -> Result<String> {
        let trusts = format!("arn:aws:iam::{ACCOUNT}:user/{trusts}");
        let made = self.stand_in.tell(json!({
            "do": "role", "name": name, "trusts": [trusts], "external": external, "actions": actions,
        }))?;
        Ok(made.as_str().unwrap_or_default().to_owned())
    }

    /// Makes an access key of a user, with this secret where one is given.
    pub fn create_key(&self, name: &str, secret: Option<&str>) -> Result<AccessKey> {
        let mut order = json!({"do": "key", "name": name});
        if let (Some(secret), Some(order)) = (secret, order.as_object_mut()) {
            order.insert("secret".to_owned(), secret.into());
        }
        let made = key(&self.stand_in.ask(&order)?)?;
        let again = json!({"do": "key", "name": name, "id": made.id, "secret": made.secret});
        self.stand_in.remember(again);
        Ok(made)
    }

    /// Takes every key from a user but this one, which is as it was made.
    pub fn only_key(&self, name: &str, id: &str) -> Result<()> {
        self.stand_in.ask(&json!({"do": "only key", "name": name, "id": id})).map(drop)
    }

    /// Sets a key's `age` in seconds, the service it was `used` for (empty: never), or its `status`.
    pub fn set_key(&self, id: &str, to: Value) -> Result<()> {
        let mut order = json!({"do": "set key", "id": id});
        if let (Some(order), Some(to)) = (order.as_object_mut(), to.as_object()) {
            order.extend(to.clone());
        }
        self.stand_in.ask(&order).map(drop)
    }

    /// A user's keys, with their secrets.
    pub fn keys(&self, name: &str) -> Result<Vec<AccessKey>> {
        let keys = self.stand_in.ask(&json!({"do": "keys", "name": name}))?;
        keys.as_array().into_iter().flatten().map(key).collect()
    }

    /// A user's console password.
    pub fn password(&self, name: &str) -> Result<Option<String>> {
        let password = self.stand_in.ask(&json!({"do": "password", "name": name}))?;
        Ok(password.as_str().map(str::to_owned))
    }

    /// Sets it, behind everybody's back.
    pub fn set_password(&self, name: &str, to: Option<&str>) -> Result<()> {
        self.stand_in.ask(&json!({"do": "password", "name": name, "to": to})).map(drop)
    }

    /// Sets the account's password policy: `length`, `upper`, `lower`, `numbers`, `symbols`, `lets`.
    pub fn set_password_policy(&self, of: Value) -> Result<()> {
        self.stand_in.tell(json!({"do": "password policy", "of": of})).map(drop)
    }

    /// Sets `delay`, for how many seconds a new key does not sign yet, and `skew`, by which its clock is wrong.
    pub fn set(&self, to: Value) -> Result<()> {
        self.stand_in.tell(json!({"do": "set", "to": to})).map(drop)
    }

    /// Orders faults at an action, for so many requests. Each is one of `{"what": "status", "status", "code"}`,
    /// `{"what": "body", "body", "status"?}`, `{"what": "redirect", "to"}`, `{"what": "cut before" | "cut after"}`
    /// and `{"what": "hold before" | "hold after"}`, until [`Self::heal`].
    pub fn fault(&self, at: &str, fault: Value, times: u32) -> Result<()> {
        self.stand_in.ask(&json!({"do": "fault", "at": at, "fault": fault, "times": times})).map(drop)
    }

    /// Ends every fault.
    pub fn heal(&self) -> Result<()> {
        self.stand_in.ask(&json!({"do": "heal"})).map(drop)
    }

    /// Whether boto3 gets in with this key. `false` only when AWS refused it;
    /// anything else is an error, never a guess.
    pub fn accepts(&self, id: &str, secret: &str) -> Result<bool> {
        self.through_boto(&json!({"id": id, "secret": secret}))
    }

    /// Whether boto3 gets in with what a profile of a credentials file says.
    pub fn accepts_profile(&self, file: &Path, profile: &str) -> Result<bool> {
        self.through_boto(&json!({"file": file, "profile": profile}))
    }

    /// Whether any key has this secret, and boto3 gets in with it.
    pub fn accepts_secret(&self, name: &str, secret: &str) -> Result<bool> {
        match self.keys(name)?.iter().find(|key| key.secret == secret) {
            Some(key) => self.accepts(&key.id, secret),
            None => Ok(false),
        }
    }

    fn through_boto(&self, question: &Value) -> Result<bool> {
        let start = || {
            let service = format!("https://127.0.0.1:{}", self.stand_in.port());
            let ca = self.ca_path().display().to_string();
            python::Client::start("boto3", CLIENT, &[&service, &ca])
        };
        let told = self.client.ask(start, question)?;
        match told.get("code").and_then(Value::as_str) {
            None if told.get("arn").is_some() => Ok(true),
            Some("InvalidClientTokenId" | "SignatureDoesNotMatch") => Ok(false),
            _ => Err(LabError::new(format!("boto3 could not tell whether a key signs: {told}"))),
        }
    }

    /// Everything the server has logged, across restarts.
    pub fn log(&self) -> String {
        self.stand_in.site.log()
    }

    /// How many requests were refused because of who signed, or a wrong old password.
    pub fn failures(&self) -> usize {
        self.log().lines().filter(|line| line.starts_with("refused ")).count()
    }

    /// Ends the server.
    pub fn stop(&mut self) -> Result<()> {
        self.stand_in.stop()
    }

    /// Starts it again on the same port, with the users, roles and keys it was told of.
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

fn key(told: &Value) -> Result<AccessKey> {
    let text = |name: &str| told.get(name).and_then(Value::as_str).map(str::to_owned);
    match (text("id"), text("secret")) {
        (Some(id), Some(secret)) => Ok(AccessKey { id, secret, active: text("status").as_deref() != Some("Inactive") }),
        _ => Err(LabError::new(format!("no access key: {told}"))),
    }
}
