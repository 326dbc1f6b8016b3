//! KDBX 4, the databases of KeePass 2 and KeePassXC.
//!
//! A file is one document, encrypted as a whole, so it is held as a whole. An
//! entry has strings with names: Commander's keys, a `#2` behind those that
//! are there twice. What they would forget stands beside them in the entry's
//! plugin data under `turnlock`, as in our JSON.

mod export;
mod import;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keepass::DatabaseKey;
use turnlock_protocol::Secret;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::digest;
use super::keeper::OURS;
use super::keeper::json::clear;
use crate::record::Uid;

pub use export::Exporter;
pub use import::{import, import_with};

/// Strings that every entry has.
const STANDARD: [&str; 5] = ["Title", "UserName", "Password", "URL", "Notes"];
/// Where KeePassXC looks for what makes one-time codes.
const OTP: &str = "otp";
/// The same in Commander's form.
const ONE_TIME_CODE: &str = "$oneTimeCode";
/// The string that says that a record is a typed one.
const TYPE: &str = "$type";
/// The key under which a record keeps what only KeePass knows.
const KEEPASS: &str = "keepass";

/// What opens a file: a passphrase, a key file, or both.
#[derive(Debug, Default)]
pub struct Key {
    /// The passphrase.
    pub passphrase: Option<Secret>,
    /// The content of the key file.
    pub key_file: Option<Zeroizing<Vec<u8>>>,
}

impl Key {
    fn of_database(&self) -> Option<DatabaseKey> {
        let mut key = DatabaseKey::new();
        if let Some(passphrase) = &self.passphrase {
            key = key.with_password(clear(passphrase));
        }
        if let Some(file) = &self.key_file {
            key = key.with_keyfile(&mut file.as_slice()).ok()?;
        }
        Some(key)
    }
}

/// The number KeePass knows a record by: the UID itself where it is one, else
/// made from it, so that it is the same at every export.
fn number_of(uid: &Uid) -> Uuid {
    let bytes = URL_SAFE_NO_PAD.decode(uid.as_str()).ok().and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
    Uuid::from_bytes(bytes.unwrap_or_else(|| digest(uid.as_str())))
}

fn uid_of(number: &Uuid) -> String {
    URL_SAFE_NO_PAD.encode(number.as_bytes())
}

#[cfg(test)]
mod tests;
