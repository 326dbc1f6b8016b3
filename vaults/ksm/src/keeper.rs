//! Keeper Secrets Manager, by the official SDK: its requests, its keys, its
//! back-off. Only connections are ours, and two payloads.

use std::collections::HashMap;
use std::error::Error;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use keeper_secrets_manager_core::config_keys::ConfigKeys;
use keeper_secrets_manager_core::constants::get_keeper_servers;
use keeper_secrets_manager_core::crypto::CryptoUtils;
use keeper_secrets_manager_core::dto::{
    CreatePayload, EncryptedPayload, KsmHttpResponse, TransmissionKey, UpdatePayload, UpdateTransactionType,
};
use keeper_secrets_manager_core::keeper_globals::KEEPER_SECRETS_MANAGER_SDK_CLIENT_ID;
use keeper_secrets_manager_core::storage::{InMemoryKeyValueStorage, KeyValueStorage};
use keeper_secrets_manager_core::utils::{base64_to_bytes, bytes_to_base64, generate_random_bytes};
use keeper_secrets_manager_core::{ClientOptions, KSMRError, KvStoreType, Record, SecretsManager};
use reqwest::blocking::Client;
use reqwest::{Certificate, redirect};
use serde::Serialize;
use serde_json::{Value, json};

use crate::fault::{Fault, Kind};
use crate::serve::progress;

const CONNECT_WITHIN: Duration = Duration::from_secs(10);
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// How often the service may ask for another of its keys.
const MOST_HINTS: u32 = 3;
/// How often somebody who waits looks whether to go on waiting.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often those who wait are told so.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// A record as Turnlock sees it.
#[derive(Debug, Serialize)]
pub(crate) struct Shown {
    uid: String,
    revision: i64,
    writable: bool,
    /// Its folder as a path with `/`.
    #[serde(skip_serializing_if = "Option::is_none")]
    folder: Option<String>,
    /// The record as Keeper keeps it; none where it cannot be read.
    data: Option<Value>,
}

/// An application's vault.
pub(crate) struct Keeper {
    sdk: SecretsManager,
    wire: Arc<Wire>,
    /// What the configuration was when it was opened.
    before: HashMap<ConfigKeys, String>,
    folders: Option<Vec<Place>>,
    /// The keys of the records that were shown, and whether they may be changed.
    seen: HashMap<String, (Vec<u8>, bool)>,
}

/// A folder and the shared one it belongs to.
struct Place {
    uid: String,
    path: String,
    shared_uid: String,
    shared_key: Vec<u8>,
}

/// What the SDK's hooks share with us.
struct Wire {
    client: Client,
    host: String,
    private_key: String,
    /// Goes out in place of what the SDK would send.
    letter: Mutex<Option<Letter>>,
    /// What became of the latest request.
    heard: Mutex<Heard>,
    /// How often the service has asked for another key within one request.
    hints: AtomicU32,
    cancelled: Arc<AtomicBool>,
}

/// A payload of ours. The SDK rewrites the `fileRef` fields of every record it
/// updates and draws the UID of every record it creates; so it carries these.
struct Letter {
    operation: &'static str,
    payload: String,
}

/// What became of a request, which the SDK's errors do not tell.
#[derive(Default)]
enum Heard {
    /// Nothing went out.
    #[default]
    Nothing,
    /// It went out, and no answer came.
    Silence(String),
    /// No connection.
    NoConnection(String),
    /// No connection that can be trusted.
    NoTrust(String),
    /// An answer.
    Answer { status: u16, code: String, message: String },
}

/// Makes the configuration of a new device from a one-time token. Nothing goes
/// out: what this returns must be durable before the token is used up.
pub(crate) fn bind(token: &str, config: Option<&str>) -> Result<String, Fault> {
    let storage = config.map_or_else(|| storage("{}"), storage)?;
    if storage.contains(ConfigKeys::KeyAppKey).unwrap_or(false) {
        return Err(Fault::new(Kind::Conflict, "this configuration is bound already").hint("name another file"));
    }
    let token = token.trim();
    // The SDK takes what stands before the first colon for the host, and so loses a port.
    let (host, token) = match token.rsplit_once(':') {
        Some((host, key)) if !token.to_uppercase().starts_with("IL5:") => {
            let known = get_keeper_servers().get(host.to_uppercase().as_str()).map(|host| (*host).to_owned());
            (Some(known.unwrap_or_else(|| host.to_owned())), key)
        }
        _ => (storage.get(ConfigKeys::KeyHostname).ok().flatten(), token),
    };
    if token.is_empty() {
        return Err(Fault::new(Kind::InvalidInput, "the one-time token is empty"));
    }
    let mut options = ClientOptions::new_client_options_with_token(token.to_owned(), KvStoreType::InMemory(storage));
    options.hostname = host;
    let sdk = SecretsManager::new(options).map_err(|_| {
        Fault::new(Kind::InvalidInput, "this is no one-time token")
            .hint("it reads REGION:KEY or HOST:KEY, as Keeper shows it when a device is added to the application")
    })?;
    Ok(text_of(&entries(&sdk.config)))
}

impl Keeper {
    /// Opens a bound configuration, or one that [`bind`] has made.
    pub(crate) fn open(config: &str, ca: Option<&str>, cancelled: Arc<AtomicBool>) -> Result<Self, Fault> {
        let storage = storage(config)?;
        let value = |key| storage.get(key).ok().flatten().unwrap_or_default();
        let (host, private_key) = (value(ConfigKeys::KeyHostname), value(ConfigKeys::KeyPrivateKey));
        if private_key.is_empty() || value(ConfigKeys::KeyClientId).is_empty() {
            return Err(Fault::new(Kind::InvalidInput, "the configuration is not bound to an application")
                .hint("turnlock vault init --token-file binds it, with a one-time token of Keeper"));
        }
        let known = get_keeper_servers().get(host.to_uppercase().as_str()).map(|host| (*host).to_owned());
        let host = known.unwrap_or_else(|| host.trim_start_matches("https://").trim_end_matches('/').to_owned());
        let wire = Arc::new(Wire {
            client: client(ca)?,
            host: if host.is_empty() { "keepersecurity.com".to_owned() } else { host },
            private_key,
            letter: Mutex::default(),
            heard: Mutex::default(),
            hints: AtomicU32::new(0),
            cancelled,
        });
        let before = storage.read_storage().unwrap_or_default();
        let mut options = ClientOptions::new_client_options(KvStoreType::InMemory(storage));
        let carrier = Arc::clone(&wire);
        options.set_custom_post_function(move |url, key, payload| carrier.post(&url, &key, payload));
        let mut sdk = SecretsManager::new(options)
            .map_err(|_| Fault::new(Kind::InvalidInput, "the configuration cannot be used").hint("bind a new one"))?;
        let waiting = Arc::clone(&wire);
        sdk.set_custom_sleep_function(move |time| waiting.slow_down(time));
        Ok(Self { sdk, wire, before, folders: None, seen: HashMap::new() })
    }

    /// Asks the service once, which also binds a new device.
    pub(crate) fn make_sure(&mut self) -> Result<(), Fault> {
        // A UID that nobody has: an answer without records.
        self.fetch(vec!["AAAAAAAAAAAAAAAAAAAAAA".to_owned()]).map(drop)
    }

    /// The configuration, if this session changed it.
    pub(crate) fn changed_config(&self) -> Option<String> {
        let now = entries(&self.sdk.config);
        (now != self.before).then(|| text_of(&now))
    }

    /// Every record that the application is given.
    pub(crate) fn list(&mut self) -> Result<Vec<Shown>, Fault> {
        self.folders = None;
        self.fetch(Vec::new())
    }

    /// These records; those that are not there are left out.
    pub(crate) fn get(&mut self, uids: Vec<String>) -> Result<Vec<Shown>, Fault> {
        if uids.is_empty() {
            return Ok(Vec::new());
        }
        self.fetch(uids)
    }

    /// Replaces a record if its revision is still this one; as the first half
    /// of a transaction, if one is wanted.
    pub(crate) fn put(&mut self, uid: &str, revision: i64, data: &Value, transaction: bool) -> Result<(), Fault> {
        if !self.seen.contains_key(uid) {
            self.records(vec![uid.to_owned()])?;
        }
        let (key, writable) = self.seen.get(uid).ok_or_else(|| missing(uid))?;
        if !writable {
            return Err(not_writable(uid));
        }
        let sealed = CryptoUtils::encrypt_aes_gcm(data.to_string().as_bytes(), key, None)
            .map_err(|_| Fault::new(Kind::Internal, "the record cannot be encrypted"))?;
        let mut payload = UpdatePayload::new(
            KEEPER_SECRETS_MANAGER_SDK_CLIENT_ID.to_string(),
            self.client_id(),
            uid.to_owned(),
            revision,
            CryptoUtils::bytes_to_url_safe_str(&sealed),
        );
        if transaction {
            payload.set_transaction_type(UpdateTransactionType::Rotation);
        }
        self.send("update_secret", payload.to_json())
    }

    /// Ends a transaction for good, or undoes it.
    pub(crate) fn complete(&mut self, uid: &str, roll_back: bool) -> Result<(), Fault> {
        self.call(|sdk| sdk.complete_transaction(uid, roll_back)).map_err(|fault| match fault.kind {
            // The service has said no to ending something: there is nothing to end.
            Kind::Conflict => Fault { kind: Kind::NotFound, ..fault },
            _ => fault,
        })
    }

    /// Adds a record under this UID.
    pub(crate) fn create(&mut self, uid: &str, folder: Option<&str>, data: &Value) -> Result<(), Fault> {
        if CryptoUtils::url_safe_str_to_bytes(uid).is_ok_and(|bytes| bytes.len() != 16) {
            return Err(Fault::new(Kind::Unsupported, format!("{uid} is no UID that Keeper takes"))
                .hint("16 bytes in base64url, which are 22 letters, digits, - and _"));
        }
        let owner = self.config(ConfigKeys::KeyOwnerPublicKey);
        // SDKs have written it in either alphabet.
        let owner = base64_to_bytes(&owner).or_else(|_| CryptoUtils::url_safe_str_to_bytes(&owner)).unwrap_or_default();
        let client_id = self.client_id();
        let places = self.places()?;
        let wanted = folder.unwrap_or_default();
        let place = match places.iter().find(|place| place.path == wanted) {
            Some(place) => place,
            None => match places.iter().filter(|place| place.uid == place.shared_uid).collect::<Vec<_>>().as_slice() {
                [only] => only,
                [] => {
                    return Err(Fault::new(Kind::Permission, "the application has no shared folder to add records to")
                        .hint("share a folder with it, with the right to edit"));
                }
                _ => {
                    return Err(Fault::new(Kind::NotFound, format!("the application has no folder \"{wanted}\""))
                        .hint(format!("name one of: {}", names(places))));
                }
            },
        };
        let unsealed = |_| Fault::new(Kind::Internal, "the record cannot be encrypted");
        let key = generate_random_bytes(32);
        let sealed = CryptoUtils::encrypt_aes_gcm(data.to_string().as_bytes(), &key, None).map_err(unsealed)?;
        let for_owner = CryptoUtils::public_encrypt(&key, &owner, None).map_err(|_| {
            Fault::new(
                Kind::Unsupported,
                "this configuration was bound without the owner's key, and cannot add records",
            )
            .hint("bind a new one")
        })?;
        let for_folder = CryptoUtils::encrypt_aes_gcm(&key, &place.shared_key, None).map_err(unsealed)?;
        let payload = CreatePayload::new(
            KEEPER_SECRETS_MANAGER_SDK_CLIENT_ID.to_string(),
            client_id,
            uid.to_owned(),
            bytes_to_base64(&for_owner),
            place.shared_uid.clone(),
            bytes_to_base64(&for_folder),
            bytes_to_base64(&sealed),
            (place.uid != place.shared_uid).then(|| place.uid.clone()),
        );
        self.send("create_secret", payload.to_json())
    }

    /// Removes a record.
    pub(crate) fn delete(&mut self, uid: &str) -> Result<(), Fault> {
        self.call(|sdk| sdk.delete_secret(vec![uid.to_owned()])).map(drop)
    }

    fn fetch(&mut self, uids: Vec<String>) -> Result<Vec<Shown>, Fault> {
        let records = self.records(uids)?;
        if self.folders.is_none() && records.iter().any(|record| !record.folder_uid.is_empty()) {
            self.places()?;
        }
        let places = self.folders.as_deref().unwrap_or_default();
        let shown = records.into_iter().map(|record| {
            let inner = record.inner_folder_uid.clone().filter(|uid| !uid.is_empty());
            let folder = inner.unwrap_or_else(|| record.folder_uid.clone());
            Shown {
                folder: places.iter().find(|place| place.uid == folder).map(|place| place.path.clone()),
                data: serde_json::from_str(&record.raw_json).ok(),
                uid: record.uid,
                revision: record.revision.unwrap_or_default(),
                writable: record.is_editable,
            }
        });
        Ok(shown.collect())
    }

    /// Records, whose keys are kept for a change.
    fn records(&mut self, uids: Vec<String>) -> Result<Vec<Record>, Fault> {
        let records = self.call(|sdk| sdk.get_secrets_full_response(uids))?.records;
        for record in &records {
            self.seen.insert(record.uid.clone(), (record.record_key_bytes.clone(), record.is_editable));
        }
        Ok(records)
    }

    /// The application's folders, asked for once in a listing.
    fn places(&mut self) -> Result<&[Place], Fault> {
        if self.folders.is_none() {
            let folders = self.call(SecretsManager::get_folders)?;
            let places = folders.iter().map(|folder| {
                let (mut path, mut top) = (folder.name.clone(), folder);
                // As many steps as there are folders: a circle ends as well.
                for _ in &folders {
                    let Some(above) = folders.iter().find(|one| one.folder_uid == top.parent_uid) else { break };
                    path = format!("{}/{path}", above.name);
                    top = above;
                }
                Place {
                    uid: folder.folder_uid.clone(),
                    path,
                    shared_uid: top.folder_uid.clone(),
                    shared_key: top.folder_key.clone(),
                }
            });
            self.folders = Some(places.collect());
        }
        Ok(self.folders.as_deref().unwrap_or_default())
    }

    fn client_id(&self) -> String {
        self.config(ConfigKeys::KeyClientId)
    }

    fn config(&self, key: ConfigKeys) -> String {
        self.sdk.config.get(key).ok().flatten().unwrap_or_default()
    }

    /// Sends a payload of ours the SDK's way.
    fn send(&mut self, operation: &'static str, payload: Result<String, KSMRError>) -> Result<(), Fault> {
        let payload = payload.map_err(|_| Fault::new(Kind::Internal, "a request could not be written"))?;
        *self.wire.letter() = Some(Letter { operation, payload });
        // What the SDK seals itself is nothing, and goes nowhere.
        let nothing = Record { record_key_bytes: vec![0; 32], ..Record::default() };
        let sent = self.call(|sdk| sdk.update_secret(nothing));
        *self.wire.letter() = None;
        sent
    }

    fn call<T>(&mut self, request: impl FnOnce(&mut SecretsManager) -> Result<T, KSMRError>) -> Result<T, Fault> {
        *self.wire.heard() = Heard::Nothing;
        self.wire.hints.store(0, Ordering::Relaxed);
        request(&mut self.sdk).map_err(|error| self.wire.fault(&error))
    }
}

impl Wire {
    /// The SDK's own way to send drops ports, and trusts no authority of ours.
    fn post(
        &self,
        url: &str,
        key: &TransmissionKey,
        mut payload: EncryptedPayload,
    ) -> Result<KsmHttpResponse, KSMRError> {
        let stop = || KSMRError::CustomError("interrupted".to_owned());
        if self.cancelled.load(Ordering::Relaxed) {
            *self.heard() = Heard::Nothing;
            return Err(stop());
        }
        let mut operation = url.rsplit('/').next().unwrap_or_default();
        if let Some(letter) = &*self.letter() {
            operation = letter.operation;
            payload = self.sealed(letter, key)?;
        }
        let url = format!("https://{}/api/rest/sm/v1/{operation}", self.host);
        let signature = bytes_to_base64(payload.signature.as_bytes());
        let request = self
            .client
            .post(url)
            .header("Content-Type", "application/octet-stream")
            .header("Authorization", format!("Signature {signature}"))
            .header("TransmissionKey", bytes_to_base64(&key.encrypted_key))
            .header("PublicKeyId", key.public_key_id.clone())
            .body(payload.encrypted_payload);
        let answered = request.send().and_then(|answer| Ok((answer.status().as_u16(), answer.bytes()?.to_vec())));
        match answered {
            Ok((status, data)) => {
                let text = String::from_utf8_lossy(&data).into_owned();
                *self.heard() = Heard::of(status, &text);
                // With a key of its own the SDK asks the same again, for ever.
                let is_hint = matches!(&*self.heard(), Heard::Answer { code, .. } if code == "key");
                if is_hint && self.hints.fetch_add(1, Ordering::Relaxed) >= MOST_HINTS {
                    return Err(stop());
                }
                Ok(KsmHttpResponse::new(status, data, text))
            }
            Err(error) => {
                *self.heard() = Heard::failed(&error);
                Err(KSMRError::HTTPError("no answer".to_owned()))
            }
        }
    }

    fn sealed(&self, letter: &Letter, key: &TransmissionKey) -> Result<EncryptedPayload, KSMRError> {
        let encrypted = CryptoUtils::encrypt_aes_gcm(letter.payload.as_bytes(), &key.key, None)?;
        let private_key = CryptoUtils::der_base64_private_key_to_private_key(&self.private_key)?;
        let signed = [key.encrypted_key.as_slice(), encrypted.as_slice()].concat();
        let signature = CryptoUtils::sign_data(&signed, private_key)?;
        Ok(EncryptedPayload::new(encrypted, signature))
    }

    /// Waits as long as the SDK wants to, and tells why; ends early when the
    /// request was taken back.
    fn slow_down(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut told: Option<Instant> = None;
        while let Some(rest) = until.checked_duration_since(Instant::now()) {
            if self.cancelled.load(Ordering::Relaxed) {
                return;
            }
            if told.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
                progress(&format!("Keeper asks to slow down: going on in {} s", rest.as_secs() + 1));
                told = Some(Instant::now());
            }
            #[expect(clippy::disallowed_methods, reason = "the service wants this very time to pass")]
            thread::sleep(rest.min(LOOK_EVERY));
        }
    }

    /// What the SDK's error means. Its text is not repeated: it may hold anything.
    fn fault(&self, error: &KSMRError) -> Fault {
        let host = &self.host;
        match std::mem::take(&mut *self.heard()) {
            Heard::Nothing if self.cancelled.load(Ordering::Relaxed) => {
                Fault::new(Kind::Cancelled, "interrupted while Keeper was asked")
            }
            Heard::Answer { code, .. } if code == "throttled" && self.cancelled.load(Ordering::Relaxed) => {
                Fault::new(Kind::Cancelled, "interrupted while Keeper asked to slow down")
            }
            Heard::NoConnection(why) => Fault::new(Kind::Unreachable, format!("{host} cannot be reached")).cause(why),
            Heard::NoTrust(why) => Fault::new(Kind::Tls, format!("{host} cannot prove who it is"))
                .cause(why)
                .hint("name its certificate authority: ca in the section [vault] of turnlock.toml"),
            Heard::Silence(why) => {
                Fault::new(Kind::Timeout, format!("the answer of {host} was lost")).cause(why).unknown()
            }
            Heard::Answer { code, .. } if code == "throttled" => {
                Fault::new(Kind::RateLimited, format!("{host} goes on asking to slow down")).hint("try again later")
            }
            Heard::Answer { status, code, message } => refused(host, status, &code, &message),
            Heard::Nothing => match error {
                KSMRError::Throttled(_) => Fault::new(Kind::RateLimited, format!("{host} goes on asking to slow down")),
                _ => Fault::new(Kind::Internal, "Keeper's SDK could not carry the request out"),
            },
        }
    }

    fn letter(&self) -> MutexGuard<'_, Option<Letter>> {
        self.letter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Heard {
    fn of(status: u16, body: &str) -> Self {
        let said: Value = serde_json::from_str(body).unwrap_or_default();
        let text = |name: &str| said.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let code = if text("result_code").is_empty() { text("error") } else { text("result_code") };
        Self::Answer { status, code, message: text("message") }
    }

    fn failed(error: &reqwest::Error) -> Self {
        let mut why = Vec::new();
        let mut next: Option<&dyn Error> = error.source();
        while let Some(cause) = next {
            why.push(cause.to_string());
            next = cause.source();
        }
        let why = why.join(": ");
        match error.is_connect() {
            true if why.contains("certificate") || why.contains("UnknownIssuer") => Self::NoTrust(why),
            true => Self::NoConnection(why),
            false => Self::Silence(why),
        }
    }
}

/// A refusal in the service's own words, which name codes and never values.
fn refused(host: &str, status: u16, code: &str, message: &str) -> Fault {
    let said = format!("{host} says {code}: {message} (HTTP {status})");
    match (status, code) {
        // The answer was good, and could not be understood.
        (200, _) => Fault::new(Kind::Internal, format!("Keeper's SDK could not read the answer of {host}")).unknown(),
        (500.., _) => Fault::new(Kind::Timeout, format!("{host} has failed")).cause(said).unknown(),
        (_, "access_denied" | "signature" | "session_token" | "invalid_client") => Fault::new(
            Kind::Authentication,
            "Keeper does not take this device",
        )
        .cause(said)
        .hint(
            "look whether the device or its application was removed; turnlock vault init --token-file binds a new one",
        ),
        (_, "permission_denied" | "insufficient_permissions" | "not_editable") => {
            Fault::new(Kind::Permission, "the application may not change this record")
                .cause(said)
                .hint("give it the right to edit, in Keeper")
        }
        _ => Fault::new(Kind::Conflict, "Keeper refused the change").cause(said),
    }
}

fn missing(uid: &str) -> Fault {
    Fault::new(Kind::NotFound, format!("the application has no record {uid}"))
}

fn not_writable(uid: &str) -> Fault {
    Fault::new(Kind::Permission, format!("the application may not change record {uid}"))
        .hint("give it the right to edit, in Keeper")
}

fn names(places: &[Place]) -> String {
    places.iter().map(|place| place.path.as_str()).collect::<Vec<_>>().join(", ")
}

/// Reads a configuration: JSON, or the same in base64.
fn storage(config: &str) -> Result<InMemoryKeyValueStorage, Fault> {
    let config = config.trim();
    let config = match serde_json::from_str::<Value>(config) {
        Ok(_) => config.to_owned(),
        Err(_) => {
            let packed: String = config.split_whitespace().collect();
            base64_to_bytes(&packed).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
        }
    };
    let unreadable = || {
        Fault::new(Kind::InvalidInput, "this is no configuration of Keeper Secrets Manager")
            .hint("JSON or base64, as Keeper gives it when a device is added; a one-time token is bound with vault init --token-file")
    };
    // An empty text would be taken for an empty configuration.
    if config.is_empty() {
        return Err(unreadable());
    }
    InMemoryKeyValueStorage::new(Some(config)).map_err(|_| unreadable())
}

fn entries(config: &KvStoreType) -> HashMap<ConfigKeys, String> {
    config.read_storage().unwrap_or_default()
}

/// As the SDKs of all languages read it.
fn text_of(entries: &HashMap<ConfigKeys, String>) -> String {
    let mut lines: Vec<_> =
        entries.iter().map(|(key, value)| format!("  {}: {}", json!(key.value()), json!(value))).collect();
    lines.sort();
    format!("{{\n{}\n}}\n", lines.join(",\n"))
}

fn client(ca: Option<&str>) -> Result<Client, Fault> {
    let mut builder = Client::builder()
        .connect_timeout(CONNECT_WITHIN)
        .timeout(ANSWER_WITHIN)
        .redirect(redirect::Policy::none())
        .https_only(true);
    if let Some(ca) = ca {
        let unreadable = |_| Fault::new(Kind::Tls, "the certificate authority named by ca cannot be read");
        let certificates = Certificate::from_pem_bundle(ca.as_bytes()).map_err(unreadable)?;
        builder = builder.tls_certs_only(certificates);
    }
    builder.build().map_err(|_| Fault::new(Kind::Internal, "no TLS client can be made"))
}
