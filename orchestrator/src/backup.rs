//! Copies of the vault from before many records changed.

use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::vault::{Backup, Vault, VaultError};

/// How many are kept for each vault.
const KEPT: usize = 3;

/// Where the copies of one vault are kept.
#[derive(Debug, Clone)]
pub struct Backups {
    directory: PathBuf,
    /// One directory may hold those of several vaults.
    name: String,
}

impl Backups {
    /// In the directory in which this machine keeps state.
    pub fn new(state_directory: &Path, vault: &Path) -> Self {
        let vault = vault.canonicalize().unwrap_or_else(|_| vault.to_owned());
        let digest = Sha256::digest(vault.as_os_str().as_encoded_bytes());
        let name = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        Self { directory: state_directory.join("backups"), name }
    }

    /// Copies the vault, where copies are ours to make, and lets go of the oldest one.
    ///
    /// # Errors
    /// What the storage says; then there is no new copy.
    pub fn take(&self, vault: &dyn Vault) -> Result<Backup, VaultError> {
        let now = Timestamp::now().strftime("%Y%m%dT%H%M%S%6fZ");
        let copy = self.directory.join(format!("{}-{now}.db", self.name));
        let made = vault.backup(&copy)?;
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let mut copies: Vec<_> = entries
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(&self.name))
            .map(|entry| entry.path())
            .collect();
        copies.sort();
        for old in copies.iter().rev().skip(KEPT) {
            // One that cannot be removed is only one too many.
            let _ = fs::remove_file(old);
        }
        Ok(made)
    }
}
