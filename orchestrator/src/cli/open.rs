//! Opening what commands work on.

use std::fs;
use std::io::{IsTerminal, stdin};
use std::path::Path;
use std::sync::Arc;

use turnlock_protocol::Secret;
use zeroize::Zeroizing;

use super::Context;
use crate::catalogue::Catalogue;
use crate::config::elsewhere;
use crate::engine::Engine;
use crate::failure::Failure;
use crate::record::Record;
use crate::resolve;
use crate::rotators::Rotators;
use crate::vault::Vault;
use crate::vault::local::{HostState, Key, LocalVault};
use crate::vault::store::{Configuration, Opening, StoreVault};

impl Context {
    /// What this machine remembers of its vaults.
    pub(super) fn host_state(&self) -> Result<HostState, Failure> {
        Ok(HostState::new(&self.config.state_directory)?)
    }

    /// The vault, wherever it lies.
    pub(super) async fn vault(&self) -> Result<Arc<dyn Vault>, Failure> {
        self.vault_at(&self.config.vault).await
    }

    /// The vault of this place.
    pub(super) async fn vault_at(&self, place: &Path) -> Result<Arc<dyn Vault>, Failure> {
        self.vault_by(place, None).await
    }

    /// The same, opened with another key file.
    pub(super) async fn vault_by(&self, place: &Path, key_file: Option<&Path>) -> Result<Arc<dyn Vault>, Failure> {
        Ok(match elsewhere(place) {
            Some((name, path)) => {
                let (catalogue, _) = Rotators::new(&self.config).catalogue().await;
                Arc::new(self.store(name, path, catalogue)?)
            }
            None => Arc::new(self.local_vault_at(place, key_file)?),
        })
    }

    /// The embedded vault, for what no other kind can do.
    pub(super) fn local_vault(&self) -> Result<LocalVault, Failure> {
        self.local_vault_at(&self.config.vault, None)
    }

    /// Opened with the first key that was named: key file, passphrase file,
    /// systemd credential, else a prompt.
    fn local_vault_at(&self, path: &Path, key_file: Option<&Path>) -> Result<LocalVault, Failure> {
        if elsewhere(path).is_some() {
            return Err(Failure::usage(format!("{} is no file of ours", path.display()))
                .hint("its keys, backups and copies are matters of the service that keeps it"));
        }
        if !path.exists() {
            return Err(crate::vault::VaultError::Missing(path.to_owned()).into());
        }
        let key = match key_file {
            Some(file) => Key::KeyFile(file.to_owned()),
            None => self.key("Passphrase of the vault")?,
        };
        Ok(LocalVault::open(path, &key, &self.host_state()?)?)
    }

    /// A vault elsewhere. Its accounts are found by this catalogue.
    pub(super) fn store(&self, name: &str, path: &Path, catalogue: Catalogue) -> Result<StoreVault, Failure> {
        let config = &self.config;
        let configuration = match &config.vault_credential {
            Some(credential) if path.as_os_str().is_empty() => {
                Configuration { path: credential.clone(), read_only: true }
            }
            None if path.as_os_str().is_empty() => {
                return Err(Failure::usage(format!("the vault {name}: has no configuration")).hint(format!(
                    "name its file, {name}:FILE, or hand it over as systemd's credential turnlock.vault"
                )));
            }
            _ => {
                Configuration { path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()), read_only: false }
            }
        };
        let report = self.report.clone();
        Ok(StoreVault::new(Opening {
            rotators: Rotators::new(config),
            name: name.to_owned(),
            configuration,
            ca: config.vault_ca.clone(),
            state_directory: config.state_directory.clone(),
            stop: self.stop.clone(),
            told: Arc::new(move |step| report.note(step)),
            accounts: Box::new(move |record| resolve::identities(record, &catalogue)),
        }))
    }

    /// The key that was named.
    pub(super) fn key(&self, prompt: &str) -> Result<Key, Failure> {
        let config = &self.config;
        if let Some(file) = &config.recovery_key_file {
            return Ok(Key::Recovery(first_line(file)?));
        }
        if let Some(file) = &config.key_file {
            if !file.exists() {
                return Err(Failure::new(format!("there is no key file {}", file.display())).hint(
                    "name the right one with --key-file; where it is lost, --recovery-key-file opens the vault",
                ));
            }
            return Ok(Key::KeyFile(file.clone()));
        }
        if let Some(file) = &config.passphrase_file {
            return Ok(Key::Passphrase(first_line(file)?));
        }
        if let Some(file) = &config.systemd_credential {
            let bytes = Zeroizing::new(fs::read(file).map_err(|error| {
                Failure::new(format!("the credential {} cannot be read", file.display())).caused_by(&error)
            })?);
            return Ok(match <[u8; 32]>::try_from(bytes.as_slice()) {
                Ok(raw) => Key::Raw(Zeroizing::new(raw)),
                Err(_) => Key::Passphrase(first_line(file)?),
            });
        }
        if config.keyring {
            return Ok(Key::Raw(keyring::read(&config.vault)?));
        }
        if !stdin().is_terminal() {
            return Err(Failure::usage("nothing opens the vault: no key was named and there is no terminal to ask at")
                .hint("name one with --key-file or --passphrase-file"));
        }
        Ok(Key::Passphrase(prompt_for(prompt)?))
    }

    /// Everything a rotation needs.
    pub(super) async fn engine(&self, wait: bool) -> Result<Arc<Engine>, Failure> {
        let rotators = Rotators::new(&self.config);
        let (catalogue, faults) = rotators.catalogue().await;
        for fault in faults {
            self.report.warn(&fault.message);
        }
        let report = self.report.clone();
        let vault: Arc<dyn Vault> = match elsewhere(&self.config.vault) {
            Some((name, path)) => Arc::new(self.store(name, path, catalogue.clone())?),
            None => {
                let vault = self.local_vault()?;
                let accounts = |record: &Record| resolve::identities(record, &catalogue);
                // Where nothing can be written, whatever is begun will say so.
                let _ = vault.find_again(&catalogue.versions(), &accounts);
                Arc::new(vault)
            }
        };
        Ok(Arc::new(Engine {
            vault,
            rotators,
            catalogue,
            hooks: self.config.hooks.clone(),
            owner: Engine::owner_of_this_run(),
            stop: self.stop.clone(),
            wait,
            progress: Arc::new(move |title, step| report.step(title, step)),
        }))
    }
}

/// The kernel's keyring of this user: it is gone at the next boot, so a vault
/// that is opened this way needs a recovery key, too.
pub(super) mod keyring {
    use std::path::{Path, absolute};

    use linux_keyutils::{KeyRing, KeyRingIdentifier};
    use zeroize::Zeroizing;

    use crate::failure::Failure;

    /// Draws a key and leaves it in the keyring.
    pub(in crate::cli) fn make(vault: &Path) -> Result<(), Failure> {
        let mut key = Zeroizing::new([0u8; 32]);
        getrandom::fill(key.as_mut()).map_err(|_| Failure::new("the system's source of randomness failed"))?;
        ring()?.add_key(&name(vault)?, key.as_slice()).map_err(|error| {
            Failure::new("the kernel's keyring did not take the key").caused_by(&error).hint("use --key-file instead")
        })?;
        Ok(())
    }

    /// The key that [`make`] left there.
    pub(in crate::cli) fn read(vault: &Path) -> Result<Zeroizing<[u8; 32]>, Failure> {
        let missing = |error: linux_keyutils::KeyError| {
            Failure::new("the kernel's keyring has no key for this vault")
                .caused_by(&error)
                .hint("after a reboot, open it with --recovery-key-file and make new keys: turnlock vault rekey --new-keyring")
        };
        let mut key = Zeroizing::new([0u8; 32]);
        let read = ring()?.search(&name(vault)?).and_then(|found| found.read(&mut *key)).map_err(missing)?;
        if read == key.len() { Ok(key) } else { Err(Failure::new("the key in the kernel's keyring is none of ours")) }
    }

    fn ring() -> Result<KeyRing, Failure> {
        KeyRing::from_special_id(KeyRingIdentifier::User, true)
            .map_err(|error| Failure::new("the kernel's keyring cannot be used").caused_by(&error))
    }

    fn name(vault: &Path) -> Result<String, Failure> {
        let path = absolute(vault).map_err(|error| Failure::new("the vault has no path").caused_by(&error))?;
        Ok(format!("turnlock:{}", path.display()))
    }
}

/// Asks at the terminal, without an echo.
pub(super) fn prompt_for(prompt: &str) -> Result<Secret, Failure> {
    rpassword::prompt_password(format!("{prompt}: "))
        .map(Secret::new)
        .map_err(|error| Failure::new("the terminal cannot be asked").caused_by(&error))
}

/// A secret that stands alone in a file, or with `-` comes over standard input.
pub(super) fn first_line(file: &std::path::Path) -> Result<Secret, Failure> {
    let read = if file.as_os_str() == "-" { std::io::read_to_string(stdin()) } else { fs::read_to_string(file) };
    let text = Zeroizing::new(read.map_err(|error| {
        Failure::new(format!("{} cannot be read", file.display()))
            .caused_by(&error)
            .hint("name a file that holds one line of UTF-8 text")
    })?);
    Ok(Secret::new(text.lines().next().unwrap_or_default().to_owned()))
}
