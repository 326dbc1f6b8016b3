//! Keys that people and machines hold, and the slots in which each of them
//! wraps the data key.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use argon2::{Algorithm, Argon2, Params, Version};
use rusqlite::{Connection, params};
use sha2::{Digest, Sha256};
use turnlock_protocol::Secret;
use zeroize::Zeroizing;

use super::broken::{Broken, damaged};
use super::seal::{KeyBytes, derive, random, unwrap, wrap};
use crate::vault::VaultError;

/// A key that opens a vault.
pub enum Key {
    /// Words that a person knows; stretched with Argon2id.
    Passphrase(Secret),
    /// A file with 32 random bytes that nobody else may read; see [`make_key_file`].
    KeyFile(PathBuf),
    /// 32 random bytes that somebody else keeps: a systemd credential, a keyring.
    Raw(Zeroizing<[u8; 32]>),
    /// The printed key for the day when the others are lost; see [`make_recovery_key`].
    Recovery(Secret),
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Passphrase(_) => f.write_str("Passphrase(..)"),
            Self::KeyFile(path) => f.debug_tuple("KeyFile").field(path).finish(),
            Self::Raw(_) => f.write_str("Raw(..)"),
            Self::Recovery(_) => f.write_str("Recovery(..)"),
        }
    }
}

/// One of a vault's key slots, as far as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Its number.
    pub id: u32,
    /// What kind of key opens it.
    pub kind: &'static str,
}

/// How hard a passphrase is to guess: the price of each try.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    pub(super) memory_kib: u32,
    pub(super) passes: u32,
    pub(super) lanes: u32,
}

impl Cost {
    /// 64 MiB, three passes: about 0.15 s and a real price per guess.
    pub(super) const DEFAULT: Self = Self { memory_kib: 64 * 1024, passes: 3, lanes: 1 };
    const NONE: Self = Self { memory_kib: 0, passes: 0, lanes: 0 };

    /// A slot can be altered by whoever can write the file; it must not be
    /// able to ask for all of the memory before the key is even tried.
    fn believable(self) -> bool {
        self.memory_kib <= 4 * 1024 * 1024 && self.passes <= 64 && self.lanes <= 64
    }
}

/// A key that opened a slot, kept for reading back what was staged.
pub(super) struct Opened {
    pub(super) slot: u32,
    pub(super) kek: KeyBytes,
}

/// Makes a key file: 32 random bytes, readable by its owner alone.
///
/// # Errors
/// [`VaultError::Exists`] when there is one already, or what the system says.
pub fn make_key_file(path: &Path) -> Result<(), VaultError> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => VaultError::Exists(path.to_owned()),
        _ => super::broken::other_io(&error, path, "written"),
    };
    let directory = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    super::file::make_directory(directory)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(&*Zeroizing::new(random::<32>()?)).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)
}

/// Makes a key to be printed: 176 random bits and 24 check bits, in eight
/// groups of five characters that are hard to mistake for one another.
///
/// # Errors
/// When the system gives no random bytes.
pub fn make_recovery_key() -> Result<Secret, VaultError> {
    Ok(Secret::new(printed(&Zeroizing::new(random::<RECOVERY>()?))))
}

const RECOVERY: usize = 22;
const CHECK: usize = 3;
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

fn printed(key: &[u8; RECOVERY]) -> String {
    let mut text = String::with_capacity(47);
    let (mut held, mut bits, mut characters) = (0_u32, 0_u32, 0_u32);
    for byte in key.iter().chain(&recovery_check(key)) {
        held = held << 8 | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            if characters > 0 && characters % 5 == 0 {
                text.push('-');
            }
            let index = (held >> bits & 31) as usize;
            text.push(ALPHABET.get(index).map_or('0', |symbol| char::from(*symbol)));
            characters += 1;
        }
        held &= (1 << bits) - 1;
    }
    text
}

/// Reads a printed key as people type it: any case, any grouping, O for 0.
fn typed(text: &str) -> Option<Zeroizing<[u8; RECOVERY]>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(RECOVERY + CHECK));
    let (mut held, mut bits) = (0_u32, 0_u32);
    for character in text.chars().filter(|c| !c.is_whitespace() && *c != '-') {
        let symbol = match character.to_ascii_uppercase() {
            'O' => '0',
            'I' | 'L' => '1',
            other => other,
        };
        let value = ALPHABET.iter().position(|known| char::from(*known) == symbol)?;
        held = held << 5 | value as u32;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits & 255) as u8);
            held &= (1 << bits) - 1;
        }
    }
    let (key, check) = bytes.split_at_checked(RECOVERY)?;
    let key = Zeroizing::new(<[u8; RECOVERY]>::try_from(key).ok()?);
    (bits == 0 && check == recovery_check(&key)).then_some(key)
}

fn recovery_check(key: &[u8; RECOVERY]) -> [u8; CHECK] {
    let digest = Sha256::new().chain_update(b"turnlock recovery key").chain_update(key).finalize();
    let mut check = [0; CHECK];
    for (to, from) in check.iter_mut().zip(digest) {
        *to = from;
    }
    check
}

impl Key {
    fn kind(&self) -> u32 {
        match self {
            Self::Passphrase(_) => 1,
            Self::KeyFile(_) => 2,
            Self::Raw(_) => 3,
            Self::Recovery(_) => 4,
        }
    }

    /// A key file and 32 bytes from elsewhere are the same kind of key: a
    /// systemd credential may well hold what once was a key file.
    fn may_open(&self, kind: u32) -> bool {
        match self {
            Self::KeyFile(_) | Self::Raw(_) => kind == 2 || kind == 3,
            _ => kind == self.kind(),
        }
    }

    /// The key as 32 bytes, before the slot's salt; none for passphrases,
    /// which are stretched per slot.
    fn material(&self) -> Result<Material<'_>, VaultError> {
        Ok(match self {
            Self::Passphrase(words) => Material::Words(words),
            Self::KeyFile(path) => Material::Bytes(read_key_file(path)?),
            Self::Raw(bytes) => Material::Bytes(bytes.clone()),
            Self::Recovery(text) => {
                #[expect(clippy::disallowed_methods, reason = "the printed key is turned into the bytes it stands for")]
                let key = typed(text.expose()).ok_or_else(|| VaultError::Storage {
                    doing: "read",
                    why: "the recovery key has a typing error: its check characters do not fit".to_owned(),
                })?;
                let mut bytes = Zeroizing::new([0; 32]);
                for (to, from) in bytes.iter_mut().zip(key.iter()) {
                    *to = *from;
                }
                Material::Bytes(bytes)
            }
        })
    }
}

enum Material<'a> {
    Words(&'a Secret),
    Bytes(KeyBytes),
}

impl Material<'_> {
    fn kek(&self, salt: &[u8], cost: Cost) -> Result<KeyBytes, Broken> {
        match self {
            Self::Words(words) => {
                let mut kek = Zeroizing::new([0; 32]);
                let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32))
                    .map_err(|_| damaged("a key slot's costs make no sense"))?;
                #[expect(clippy::disallowed_methods, reason = "the passphrase is stretched into the slot's key")]
                let words = words.expose().as_bytes();
                Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
                    .hash_password_into(words, salt, &mut *kek)
                    .map_err(|_| damaged("a key slot's costs make no sense"))?;
                Ok(kek)
            }
            Self::Bytes(bytes) => {
                let salted = super::seal::hex(salt);
                Ok(derive(bytes, &format!("turnlock slot key {salted}")))
            }
        }
    }
}

fn read_key_file(path: &Path) -> Result<KeyBytes, VaultError> {
    let refused = |why: String| VaultError::KeyFile { path: path.to_owned(), why };
    let mut file = File::open(path).map_err(|error| refused(format!("cannot be opened: {error}")))?;
    let meta = file.metadata().map_err(|error| refused(format!("cannot be looked at: {error}")))?;
    if meta.mode() & 0o077 != 0 {
        return Err(refused(format!("may be used by others (mode {:o}): chmod 600 it", meta.mode() & 0o777)));
    }
    if meta.len() != 32 {
        return Err(refused(format!("has {} bytes; a key file has 32", meta.len())));
    }
    let mut bytes = Zeroizing::new([0; 32]);
    file.read_exact(&mut *bytes).map_err(|error| refused(format!("cannot be read: {error}")))?;
    Ok(bytes)
}

struct Row {
    id: u32,
    kind: u32,
    salt: Vec<u8>,
    cost: Cost,
    wrapped: Vec<u8>,
    checksum: Vec<u8>,
}

impl Row {
    fn facts(&self, vault: &[u8; 16]) -> Vec<u8> {
        let mut facts = b"turnlock slot 1\0".to_vec();
        facts.extend_from_slice(vault);
        for number in [self.id, self.kind, self.cost.memory_kib, self.cost.passes, self.cost.lanes] {
            facts.extend_from_slice(&number.to_be_bytes());
        }
        facts.extend_from_slice(&(self.salt.len() as u64).to_be_bytes());
        facts.extend_from_slice(&self.salt);
        facts
    }

    /// Without a key: tells a damaged slot from a wrong key.
    fn checksum(&self, vault: &[u8; 16]) -> [u8; 32] {
        Sha256::new().chain_update(self.facts(vault)).chain_update(&self.wrapped).finalize().into()
    }
}

fn rows(connection: &Connection) -> Result<Vec<Row>, Broken> {
    let mut select = connection
        .prepare_cached("SELECT id, kind, salt, memory, passes, lanes, wrapped, checksum FROM slots ORDER BY id")?;
    let rows = select.query_map((), |row| {
        Ok(Row {
            id: row.get(0)?,
            kind: row.get(1)?,
            salt: row.get(2)?,
            cost: Cost { memory_kib: row.get(3)?, passes: row.get(4)?, lanes: row.get(5)? },
            wrapped: row.get(6)?,
            checksum: row.get(7)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Tries a key on every slot it may open.
pub(super) fn open(
    connection: &Connection,
    vault: &[u8; 16],
    path: &Path,
    key: &Key,
) -> Result<(Opened, KeyBytes), Broken> {
    let rows = rows(connection)?;
    if rows.is_empty() {
        return Err(damaged("it has no key slot"));
    }
    for row in &rows {
        if row.checksum != row.checksum(vault) || !row.cost.believable() {
            return Err(damaged("a key slot was altered"));
        }
    }
    let material = key.material()?;
    for row in rows.iter().filter(|row| key.may_open(row.kind)) {
        let kek = material.kek(&row.salt, row.cost)?;
        if let Some(data) = data_key(row, vault, &kek) {
            return Ok((Opened { slot: row.id, kek }, data));
        }
    }
    Err(VaultError::WrongKey(path.to_owned()).into())
}

/// Unwraps the data key again, from what the file holds now.
pub(super) fn reopen(
    connection: &Connection,
    vault: &[u8; 16],
    path: &Path,
    opened: &Opened,
) -> Result<KeyBytes, Broken> {
    rows(connection)?
        .iter()
        .find(|row| row.id == opened.slot)
        .and_then(|row| data_key(row, vault, &opened.kek))
        .ok_or_else(|| VaultError::WrongKey(path.to_owned()).into())
}

fn data_key(row: &Row, vault: &[u8; 16], kek: &KeyBytes) -> Option<KeyBytes> {
    let plain = unwrap(kek, &row.facts(vault), &row.wrapped)?;
    Some(Zeroizing::new(plain.as_slice().try_into().ok()?))
}

/// A slot that was computed (Argon2 takes its time) and not yet written.
pub(super) struct Prepared {
    kind: u32,
    salt: [u8; 16],
    cost: Cost,
    kek: KeyBytes,
}

pub(super) fn prepare(key: &Key, cost: Cost) -> Result<Prepared, Broken> {
    let cost = if matches!(key, Key::Passphrase(_)) { cost } else { Cost::NONE };
    let salt = random()?;
    let kek = key.material()?.kek(&salt, cost)?;
    Ok(Prepared { kind: key.kind(), salt, cost, kek })
}

/// Writes a slot around the data key.
pub(super) fn insert(
    connection: &Connection,
    vault: &[u8; 16],
    data: &KeyBytes,
    slot: &Prepared,
) -> Result<Opened, Broken> {
    // Numbers are never used again, so that no old slot can pass for a new one.
    let id: u32 = connection.query_row("SELECT coalesce(max(id), 0) + 1 FROM slots", (), |row| row.get(0))?;
    let mut row = Row {
        id,
        kind: slot.kind,
        salt: slot.salt.to_vec(),
        cost: slot.cost,
        wrapped: Vec::new(),
        checksum: Vec::new(),
    };
    row.wrapped = wrap(&slot.kek, &row.facts(vault), data.as_slice())?;
    row.checksum = row.checksum(vault).to_vec();
    connection.execute(
        "INSERT INTO slots (id, kind, salt, memory, passes, lanes, wrapped, checksum) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            row.id,
            row.kind,
            row.salt,
            row.cost.memory_kib,
            row.cost.passes,
            row.cost.lanes,
            row.wrapped,
            row.checksum
        ],
    )?;
    Ok(Opened { slot: id, kek: slot.kek.clone() })
}

pub(super) fn list(connection: &Connection) -> Result<Vec<Slot>, Broken> {
    let kind = |number| match number {
        1 => "passphrase",
        2 => "key file",
        3 => "raw key",
        4 => "recovery key",
        _ => "unknown",
    };
    Ok(rows(connection)?.iter().map(|row| Slot { id: row.id, kind: kind(row.kind) }).collect())
}

/// One value over all slots; the vault's proof covers it.
pub(super) fn digest(connection: &Connection) -> Result<[u8; 32], Broken> {
    let mut digest = Sha256::new();
    for row in rows(connection)? {
        digest.update(row.id.to_be_bytes());
        digest.update(&row.checksum);
    }
    Ok(digest.finalize().into())
}

/// Removes a key file's, a passphrase's, … slot.
pub(super) fn remove(connection: &Connection, id: u32) -> Result<(), Broken> {
    let refused = |why: String| Broken::Vault(VaultError::Storage { doing: "written", why });
    let left: u32 = connection.query_row("SELECT count(*) FROM slots WHERE id <> ?", [id], |row| row.get(0))?;
    if left == 0 {
        return Err(refused("the last key slot cannot be removed: nothing would open the vault".to_owned()));
    }
    match connection.execute("DELETE FROM slots WHERE id = ?", [id])? {
        0 => Err(refused(format!("there is no key slot {id}"))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_key_reads_back_however_it_is_typed() {
        let key = [7_u8, 0, 255, 1, 2, 3, 4, 5, 6, 9, 8, 7, 100, 200, 31, 32, 33, 0, 0, 1, 128, 64];
        let text = printed(&key);
        assert_eq!((text.len(), text.split('-').count()), (47, 8), "{text}");
        assert_eq!(typed(&text).as_deref(), Some(&key));
        let sloppy = text.to_lowercase().replace('-', " ").replace('0', "o").replace('1', "l");
        assert_eq!(typed(&sloppy).as_deref(), Some(&key));
    }

    #[test]
    fn every_single_typing_error_is_noticed() {
        let text = printed(&[42; RECOVERY]);
        for at in 0..text.len() {
            let mut wrong = text.clone().into_bytes();
            if wrong[at] == b'-' {
                continue;
            }
            wrong[at] = if wrong[at] == b'7' { b'8' } else { b'7' };
            assert!(typed(std::str::from_utf8(&wrong).unwrap()).is_none());
        }
        assert!(typed("").is_none());
        assert!(typed(&text[..46]).is_none());
    }
}
