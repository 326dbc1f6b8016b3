//! What this machine remembers of its vaults, to recognise a copy.
//!
//! A vault file alone cannot know that it was restored from yesterday's
//! backup: everything in it fits together. So the machine keeps, per vault, how
//! far it had come. When the file is behind that, or is another file, or
//! belongs to another machine, reading is allowed and rotating is not, until a
//! person has adopted it ([`super::LocalVault::adopt_vault`]).
//!
//! **When it is written.** Not with every transaction: that would double the
//! flushes. It is written after the commit that grants leases and before the
//! leases are handed out, and when a vault that was written is closed. No
//! rotation changes a target without a lease, so a file from before the last
//! lease is always noticed, also after a crash. What a power failure can hide is
//! a copy that was made *during* the last rotation: it holds that rotation's
//! lease, and usually its stage, which is settled by asking the target.
//!
//! Between those, every commit leaves an unflushed note (`*.mark`). It costs
//! nothing, outlives a killed process, and is ignored when a power failure tore
//! or lost it: so after a kill even the last commit is missed when it is not
//! there, because a copy came back or because SQLite left out a damaged end of
//! its log.
//!
//! Written after and not before the commit, because a crash in between must
//! not make the honest file look like a restored one. A group of rotations that
//! start together shares one such write, as it shares one commit.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::broken::other_io;
use super::file::{Identified, make_directory, write_durably};
use super::seal::{hex, random};
use crate::vault::VaultError;

/// Where this machine remembers its vaults, and which machine it is.
#[derive(Debug, Clone)]
pub struct HostState {
    directory: PathBuf,
    machine: String,
}

/// Why a vault is not taken for the one that this machine knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    Restored,
    OtherMachine,
    Copy,
    Backup,
    Unreadable,
}

/// How far a vault file has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// Which file of all that share the vault's id.
    pub(super) instance: String,
    /// The number of its last transaction.
    pub(super) generation: u64,
    /// A random value of that transaction: two files that went different ways
    /// from a common past differ in it, even at the same number.
    pub(super) tip: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Remembered {
    machine: String,
    path: PathBuf,
    device: u64,
    inode: u64,
    #[serde(flatten)]
    mark: Mark,
}

impl HostState {
    /// The state kept in this directory, on the machine that the system names
    /// in `/etc/machine-id`; where there is no such name, one is drawn and
    /// kept beside the state.
    ///
    /// # Errors
    /// When the directory can be neither made nor read.
    pub fn new(directory: impl Into<PathBuf>) -> Result<Self, VaultError> {
        let directory = directory.into();
        make_directory(&directory)?;
        let named = ["/etc/machine-id", "/var/lib/dbus/machine-id"]
            .iter()
            .filter_map(|path| fs::read_to_string(path).ok())
            .map(|text| text.trim().to_owned())
            .find(|text| text.len() >= 32);
        let machine = match named {
            Some(machine) => machine,
            None => drawn_name(&directory.join("machine"))?,
        };
        Ok(Self { directory, machine })
    }

    /// The same on a machine with another name; for tests.
    pub fn named(directory: impl Into<PathBuf>, machine: &str) -> Result<Self, VaultError> {
        let directory = directory.into();
        make_directory(&directory)?;
        Ok(Self { directory, machine: machine.to_owned() })
    }

    pub(super) fn machine(&self) -> &str {
        &self.machine
    }

    /// Whether a file is the one this machine knows.
    pub(super) fn judge(&self, vault: &[u8; 16], ours: bool, file: &Identified, mark: &Mark) -> Option<Doubt> {
        let remembered = match self.recall(vault) {
            Ok(Some(remembered)) => remembered,
            Ok(None) => return (!ours).then_some(Doubt::OtherMachine),
            Err(_) => return Some(Doubt::Unreadable),
        };
        // A home directory may have been copied, state and all.
        if !ours || remembered.machine != digest_of(&self.machine) {
            return Some(Doubt::OtherMachine);
        }
        let known = &remembered.mark;
        if known.instance != mark.instance {
            return Some(Doubt::Copy);
        }
        if mark.generation < known.generation || (mark.generation == known.generation && mark.tip != known.tip) {
            return Some(Doubt::Restored);
        }
        let same_file = remembered.device == file.device && remembered.inode == file.inode;
        if same_file {
            return None;
        }
        // Another file. Where the known one is gone, this one is it, moved —
        // if it is exactly as far: a copy made before the end is not.
        let known_file_lives = super::file::identify(&remembered.path)
            .is_ok_and(|known| known.device == remembered.device && known.inode == remembered.inode);
        match (known_file_lives, known == mark) {
            (true, _) => Some(Doubt::Copy),
            (false, true) => None,
            (false, false) => Some(Doubt::Restored),
        }
    }

    /// Remembers how far a vault has come; never less than before, unless
    /// this is another instance, which a person has adopted.
    pub(super) fn advance(&self, vault: &[u8; 16], file: &Identified, mark: &Mark) -> Result<(), VaultError> {
        let lock_path = self.directory.join(format!("{}.lock", hex(vault)));
        let failed = |error: std::io::Error| other_io(&error, &self.directory, "written");
        make_directory(&self.directory)?;
        let lock =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(lock_path).map_err(failed)?;
        lock.lock().map_err(failed)?;
        if let Ok(text) = fs::read(self.of(vault))
            && let Ok(known) = serde_json::from_slice::<Remembered>(&text)
            && known.mark.instance == mark.instance
            && known.mark.generation >= mark.generation
            && known.machine == digest_of(&self.machine)
            && (known.device, known.inode, &known.path) == (file.device, file.inode, &file.path)
        {
            return Ok(());
        }
        let remembered = Remembered {
            machine: digest_of(&self.machine),
            path: file.path.clone(),
            device: file.device,
            inode: file.inode,
            mark: mark.clone(),
        };
        let text = serde_json::to_vec_pretty(&remembered).map_err(|error| failed(error.into()))?;
        write_durably(&self.of(vault), &text).map_err(failed)?;
        drop::<File>(lock);
        Ok(())
    }

    /// The generation that a vault had reached when it was last remembered.
    pub(super) fn reached(&self, vault: &[u8; 16]) -> Option<u64> {
        Some(self.recall(vault).ok()??.mark.generation)
    }

    /// Notes a commit without flushing; only ever a help, so failures are
    /// nobody's concern.
    pub(super) fn note(&self, vault: &[u8; 16], mark: &Mark) {
        let known = self.noted(vault);
        if known.is_some_and(|known| known.instance == mark.instance && known.generation >= mark.generation) {
            return;
        }
        let Ok(text) = serde_json::to_string(mark) else {
            return;
        };
        // Always as long as the one before, and in one call: it is overwritten
        // in place, and what was torn does not fit its own digest.
        let line = format!("{text:<160} {}\n", digest_of(&text));
        let path = self.directory.join(format!("{}.mark", hex(vault)));
        if let Ok(file) = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path) {
            let _ = file.write_all_at(line.as_bytes(), 0);
        }
    }

    /// The catalogue by which a vault's records were last found; none where
    /// that is not known.
    pub(super) fn found_by(&self, vault: &[u8; 16]) -> Option<String> {
        fs::read_to_string(self.catalogue_of(vault)).ok()
    }

    /// Notes it without flushing: whoever does not know it looks again.
    pub(super) fn note_found_by(&self, vault: &[u8; 16], catalogue: &str) {
        let path = self.catalogue_of(vault);
        if let Ok(mut file) = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path) {
            let _ = file.write_all(catalogue.as_bytes());
        }
    }

    fn catalogue_of(&self, vault: &[u8; 16]) -> PathBuf {
        self.directory.join(format!("{}.catalogue", hex(vault)))
    }

    fn noted(&self, vault: &[u8; 16]) -> Option<Mark> {
        let line = fs::read_to_string(self.directory.join(format!("{}.mark", hex(vault)))).ok()?;
        let (text, digest) = line.trim_end().rsplit_once(' ')?;
        let text = text.trim_end();
        (digest_of(text) == digest).then(|| serde_json::from_str(text).ok()).flatten()
    }

    fn recall(&self, vault: &[u8; 16]) -> std::io::Result<Option<Remembered>> {
        match fs::read(self.of(vault)) {
            Ok(text) => {
                let mut remembered: Remembered = serde_json::from_slice(&text)?;
                if let Some(noted) = self.noted(vault)
                    && noted.instance == remembered.mark.instance
                    && noted.generation > remembered.mark.generation
                {
                    remembered.mark = noted;
                }
                Ok(Some(remembered))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn of(&self, vault: &[u8; 16]) -> PathBuf {
        self.directory.join(format!("{}.json", hex(vault)))
    }
}

impl Doubt {
    pub(super) fn number(doubt: Option<Self>) -> u32 {
        match doubt {
            None => 0,
            Some(Self::Restored) => 1,
            Some(Self::OtherMachine) => 2,
            Some(Self::Copy) => 3,
            Some(Self::Backup) => 4,
            Some(Self::Unreadable) => 5,
        }
    }

    pub(super) fn of_number(number: u32) -> Option<Self> {
        match number {
            0 => None,
            1 => Some(Self::Restored),
            2 => Some(Self::OtherMachine),
            3 => Some(Self::Copy),
            4 => Some(Self::Backup),
            _ => Some(Self::Unreadable),
        }
    }

    /// As it stands in [`VaultError::NotAdopted`].
    pub(super) fn words(self) -> String {
        match self {
            Self::Restored => "a restored backup",
            Self::OtherMachine => "a copy made on another machine",
            Self::Copy => "a copy of a vault that is used elsewhere",
            Self::Backup => "a backup",
            Self::Unreadable => "not known to this machine, whose own notes on it cannot be read",
        }
        .to_owned()
    }
}

/// The machine's name is not ours to write down.
fn digest_of(machine: &str) -> String {
    use sha2::{Digest, Sha256};
    hex(&Sha256::new().chain_update(b"turnlock machine\0").chain_update(machine).finalize())
}

fn drawn_name(path: &Path) -> Result<String, VaultError> {
    if let Ok(name) = fs::read_to_string(path)
        && name.len() >= 32
    {
        return Ok(name);
    }
    let name = hex(&random::<16>()?);
    write_durably(path, name.as_bytes()).map_err(|error| other_io(&error, path, "written"))?;
    Ok(name)
}
