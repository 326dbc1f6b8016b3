//! A stand-in for Keeper's cloud: no vault can be had where these tests run.
//! `ksm/server.py` says in its first lines what it does and what it does not
//! prove; what lies in it is told by Keeper's own SDK for Python, not by us.

#![expect(clippy::indexing_slicing, reason = "reading a JSON value by name gives null where there is none")]

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::{
    Authority, LabError, Result, process, python,
    server::Site,
    stand_in::{Script, StandIn},
};

const SERVER: &str = include_str!("ksm/server.py");
const CLIENT: &str = include_str!("ksm/client.py");

/// A running stand-in that is gone when this value is.
pub struct Ksm {
    stand_in: StandIn<Script>,
    client: python::OnDemand,
}

impl Ksm {
    /// Starts an empty vault with one application.
    pub fn start() -> Result<Self> {
        let site = Site::new("ksm", None, &Authority::new()?, &["localhost", "127.0.0.1"])?;
        process::write_file(&site.file("server.py"), SERVER)?;
        let kept = site.file("state.json").into_os_string();
        let script = Script { more: vec![kept], ..Script::with(python::program()?) };
        Ok(Self { stand_in: StandIn::start(script, site)?, client: python::OnDemand::default() })
    }

    /// Where it listens, as configurations name it.
    pub fn host(&self) -> String {
        format!("localhost:{}", self.stand_in.port())
    }

    /// The certificate of the authority that issued the server's certificate.
    pub fn ca_path(&self) -> PathBuf {
        self.stand_in.ca_path()
    }

    /// A one-time token of the application, as Keeper shows it.
    pub fn token(&self) -> Result<String> {
        Ok(format!("{}:{}", self.host(), text(&self.stand_in.ask(&json!({"do": "token"}))?)?))
    }

    /// What a configuration has to hold before it is bound, where the server's key is none of Keeper's.
    pub fn server_key(&self) -> Result<Value> {
        let key = self.stand_in.ask(&json!({"do": "public_key"}))?;
        Ok(json!({"serverPublicKey": key["key"], "serverPublicKeyId": key["id"]}))
    }

    /// Makes a folder: a shared one, or one below `parent`.
    pub fn folder(&self, name: &str, parent: Option<&str>) -> Result<String> {
        text(&self.stand_in.ask(&json!({"do": "folder", "name": name, "parent": parent}))?)
    }

    /// Puts a record in; `with` are `folder`, `editable` and `uid`.
    pub fn record(&self, data: &Value, with: Value) -> Result<String> {
        let mut command = json!({"do": "record", "data": data});
        merge(&mut command, with);
        text(&self.stand_in.ask(&command)?)
    }

    /// Changes a record as a person does: `data` (title, notes), `fields` (by type), `set` (`editable`).
    pub fn edit(&self, uid: &str, with: Value) -> Result<()> {
        let mut command = json!({"do": "edit", "uid": uid});
        merge(&mut command, with);
        self.stand_in.ask(&command).map(drop)
    }

    /// A record as it lies there: `data`, `revision`, and whether a transaction is `open`.
    pub fn look(&self, uid: &str) -> Result<Value> {
        self.stand_in.ask(&json!({"do": "look", "uid": uid}))
    }

    /// Orders a fault: `{"at": operation | "write" | "any", "number"?, "times"?, "what": "cut before" | "cut after"}`
    /// or with `"what": "refuse"` an answer of `status` and `body`.
    pub fn fault(&self, fault: Value) -> Result<()> {
        self.stand_in.ask(&json!({"do": "fault", "fault": fault})).map(drop)
    }

    /// Ends every fault and forgets the requests.
    pub fn heal(&self) -> Result<()> {
        self.stand_in.ask(&json!({"do": "heal"})).map(drop)
    }

    /// The operations that were asked for since the last [`Self::heal`].
    pub fn requests(&self) -> Result<Vec<String>> {
        let requests = self.stand_in.ask(&json!({"do": "requests"}))?;
        let names = requests.as_array().into_iter().flatten();
        Ok(names.filter_map(Value::as_str).map(str::to_owned).collect())
    }

    /// What reads return while a transaction is open: `visible` or `hidden`.
    pub fn pending(&self, reads: &str) -> Result<()> {
        self.stand_in.ask(&json!({"do": "pending", "reads": reads})).map(drop)
    }

    /// Ends open transactions as if they had run out, and says how many there were.
    pub fn expire(&self) -> Result<u64> {
        Ok(self.stand_in.ask(&json!({"do": "expire"}))?.as_u64().unwrap_or_default())
    }

    /// Takes the application away from every device.
    pub fn remove_devices(&self) -> Result<()> {
        self.stand_in.ask(&json!({"do": "remove_devices"})).map(drop)
    }

    /// Everything the vault holds, for [`Self::restore`].
    pub fn snapshot(&self) -> Result<Value> {
        self.stand_in.ask(&json!({"do": "snapshot"}))
    }

    /// Puts everything back, without faults.
    pub fn restore(&self, state: &Value) -> Result<()> {
        self.stand_in.ask(&json!({"do": "restore", "state": state})).map(drop)
    }

    /// A question to Keeper's SDK for Python, which `ksm/client.py` describes, and its answer.
    pub fn through_sdk(&self, question: &Value) -> Result<Value> {
        let answer = self.client.ask(|| self.client(&self.stand_in.site.file("python.json")), question)?;
        match answer.get("error").and_then(Value::as_str) {
            None => Ok(answer["value"].clone()),
            Some(error) => Err(LabError::new(error.to_owned())),
        }
    }

    /// Makes the next question come from another process of the same device.
    pub fn new_client(&self) {
        self.client.end();
    }

    fn client(&self, config: &Path) -> Result<python::Client> {
        let key = self.server_key()?;
        let token = if config.exists() { String::new() } else { self.token()? };
        // The SDK takes what stands before the first colon for the host.
        let token = token.rsplit(':').next().unwrap_or_default().to_owned();
        let (key, id) = (text(&key["serverPublicKey"])?, text(&key["serverPublicKeyId"])?);
        let (ca, config) = (self.ca_path().display().to_string(), config.display().to_string());
        python::Client::start("Keeper's SDK", CLIENT, &[&self.host(), &key, &id, &ca, &config, &token])
    }

    /// Everything the server has logged, across restarts.
    pub fn log(&self) -> String {
        self.stand_in.site.log()
    }

    /// Kills the server.
    pub fn stop(&mut self) -> Result<()> {
        self.stand_in.stop()
    }

    /// Starts it again on the same port, with what it held.
    pub fn restart(&mut self) -> Result<()> {
        self.stand_in.restart()
    }
}

fn text(value: &Value) -> Result<String> {
    value.as_str().map(str::to_owned).ok_or_else(|| LabError::new(format!("no text: {value}")))
}

fn merge(command: &mut Value, with: Value) {
    if let (Some(command), Value::Object(with)) = (command.as_object_mut(), with) {
        command.extend(with);
    }
}
