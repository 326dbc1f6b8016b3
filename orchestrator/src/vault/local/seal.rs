//! Keys and sealed cells: nothing in the file can be read or moved to another
//! place without the data key.

use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{Key as CipherKey, KeyInit, Tag, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::broken::{Broken, damaged};
use crate::vault::VaultError;

const NONCE: usize = 24;
const TAG: usize = 16;

/// 32 bytes that open everything below them.
pub(super) type KeyBytes = Zeroizing<[u8; 32]>;

/// A column that finds a row without telling what it stands for.
pub(super) type Lookup = [u8; 16];

/// The data key and the keys derived from it.
pub(super) struct Keys {
    /// Which vault; part of every seal, so that no cell fits into another vault.
    pub(super) vault: [u8; 16],
    /// How many times the data key was replaced.
    pub(super) epoch: u64,
    data: KeyBytes,
    cipher: XChaCha20Poly1305,
    lookup: KeyBytes,
    meta: KeyBytes,
}

/// Where a sealed value stands. It is authenticated with the value, so that a
/// cell cannot be moved to another row, column or revision.
#[derive(Clone, Copy)]
pub(super) struct Cell<'a> {
    pub(super) table: &'a str,
    pub(super) column: &'a str,
    pub(super) row: u64,
    pub(super) version: u64,
}

impl Keys {
    pub(super) fn new(vault: [u8; 16], epoch: u64, data: KeyBytes) -> Self {
        let row = derive(&data, "turnlock row key");
        Self {
            vault,
            epoch,
            cipher: XChaCha20Poly1305::new(CipherKey::from_slice(row.as_slice())),
            lookup: derive(&data, "turnlock look-up key"),
            meta: derive(&data, "turnlock meta key"),
            data,
        }
    }

    /// The data key itself, to be wrapped into a slot.
    pub(super) fn data(&self) -> &KeyBytes {
        &self.data
    }

    /// Seals a value as JSON.
    pub(super) fn seal<T: Serialize>(&self, cell: Cell<'_>, value: &T) -> Result<Vec<u8>, Broken> {
        self.seal_bytes(cell, &to_json(value)?)
    }

    /// Seals bytes: nonce, ciphertext, tag.
    pub(super) fn seal_bytes(&self, cell: Cell<'_>, plain: &[u8]) -> Result<Vec<u8>, Broken> {
        seal_with(&self.cipher, &self.authenticated(cell), plain)
    }

    /// Opens a value that was sealed as JSON.
    pub(super) fn unseal<T: DeserializeOwned>(&self, cell: Cell<'_>, sealed: &[u8]) -> Result<T, Broken> {
        let plain = self.unseal_bytes(cell, sealed)?;
        from_json(&plain, cell.table)
    }

    /// Opens sealed bytes.
    pub(super) fn unseal_bytes(&self, cell: Cell<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Broken> {
        unseal_with(&self.cipher, &self.authenticated(cell), sealed)
            .ok_or_else(|| damaged(format!("a row of its table {} was altered", cell.table)))
    }

    /// The look-up value of a text for one purpose.
    pub(super) fn lookup(&self, purpose: &str, parts: &[&str]) -> Lookup {
        let mut mac = keyed(&self.lookup);
        absorb(&mut mac, purpose.as_bytes());
        for part in parts {
            absorb(&mut mac, part.as_bytes());
        }
        let full = mac.finalize().into_bytes();
        let mut short = Lookup::default();
        for (to, from) in short.iter_mut().zip(full) {
            *to = from;
        }
        short
    }

    /// The proof that the vault's own facts were written by a holder of the key.
    pub(super) fn meta_proof(&self, facts: &[u8]) -> Hmac<Sha256> {
        let mut mac = keyed(&self.meta);
        absorb(&mut mac, facts);
        mac
    }

    fn authenticated(&self, cell: Cell<'_>) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(96);
        bytes.extend_from_slice(b"turnlock cell 1\0");
        bytes.extend_from_slice(&self.vault);
        for name in [cell.table, cell.column] {
            bytes.extend_from_slice(name.as_bytes());
            bytes.push(0);
        }
        bytes.extend_from_slice(&cell.row.to_be_bytes());
        bytes.extend_from_slice(&cell.version.to_be_bytes());
        bytes
    }
}

/// One key out of another, by its purpose.
pub(super) fn derive(key: &[u8; 32], purpose: &str) -> KeyBytes {
    let mut mac = keyed(key);
    absorb(&mut mac, purpose.as_bytes());
    Zeroizing::new(mac.finalize().into_bytes().into())
}

/// Wraps a small secret under a key of its own.
pub(super) fn wrap(key: &KeyBytes, authenticated: &[u8], plain: &[u8]) -> Result<Vec<u8>, Broken> {
    let cipher = XChaCha20Poly1305::new(CipherKey::from_slice(key.as_slice()));
    seal_with(&cipher, authenticated, plain)
}

/// Opens what [`wrap`] made, or tells that the key is another.
pub(super) fn unwrap(key: &KeyBytes, authenticated: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let cipher = XChaCha20Poly1305::new(CipherKey::from_slice(key.as_slice()));
    unseal_with(&cipher, authenticated, sealed)
}

fn seal_with(cipher: &XChaCha20Poly1305, authenticated: &[u8], plain: &[u8]) -> Result<Vec<u8>, Broken> {
    let nonce: [u8; NONCE] = random()?;
    // One buffer of the final size, encrypted in place: no copy of the plain
    // text stays behind in memory that was given back.
    let mut sealed = Vec::with_capacity(NONCE + plain.len() + TAG);
    sealed.extend_from_slice(&nonce);
    sealed.extend_from_slice(plain);
    let body = sealed.get_mut(NONCE..).unwrap_or_default();
    let tag = cipher
        .encrypt_in_place_detached(XNonce::from_slice(&nonce), authenticated, body)
        .map_err(|_| damaged("a value is too long to be sealed"))?;
    sealed.extend_from_slice(&tag);
    Ok(sealed)
}

fn unseal_with(cipher: &XChaCha20Poly1305, authenticated: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, rest) = sealed.split_at_checked(NONCE)?;
    let (body, tag) = rest.split_at_checked(rest.len().checked_sub(TAG)?)?;
    let mut plain = Zeroizing::new(body.to_vec());
    cipher
        .decrypt_in_place_detached(XNonce::from_slice(nonce), authenticated, &mut plain, Tag::from_slice(tag))
        .ok()?;
    Some(plain)
}

/// Writes JSON into a buffer that is cleared when dropped. The length is
/// counted first, so that the buffer never moves and leaves a copy behind.
pub(super) fn to_json<T: Serialize>(value: &T) -> Result<Zeroizing<Vec<u8>>, Broken> {
    struct Counter(usize);
    impl std::io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let unwritable = |_| damaged("a value cannot be written as JSON");
    let mut counter = Counter(0);
    serde_json::to_writer(&mut counter, value).map_err(unwritable)?;
    let mut json = Zeroizing::new(Vec::with_capacity(counter.0));
    serde_json::to_writer(&mut *json, value).map_err(unwritable)?;
    Ok(json)
}

/// Reads JSON. The parser's own words are dropped: they may repeat a secret.
pub(super) fn from_json<T: DeserializeOwned>(json: &[u8], table: &str) -> Result<T, Broken> {
    serde_json::from_slice(json).map_err(|_| damaged(format!("a row of its table {table} cannot be understood")))
}

/// Random bytes from the system.
pub(super) fn random<const N: usize>() -> Result<[u8; N], VaultError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| VaultError::Storage {
        doing: "written",
        why: format!("the system gives no random bytes: {error}"),
    })?;
    Ok(bytes)
}

/// Bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn keyed(key: &[u8; 32]) -> Hmac<Sha256> {
    let mut block = Zeroizing::new([0_u8; 64]);
    for (to, from) in block.iter_mut().zip(key) {
        *to = *from;
    }
    // HMAC pads a shorter key with zeros to the block: the same key, and a
    // constructor that cannot fail.
    <Hmac<Sha256> as KeyInit>::new((&*block).into())
}

/// Length first, so that no two lists of parts look alike.
fn absorb(mac: &mut Hmac<Sha256>, part: &[u8]) {
    mac.update(&(part.len() as u64).to_be_bytes());
    mac.update(part);
}
