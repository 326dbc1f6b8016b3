//! Opening what commands work on.

use std::fs;
use std::io::{IsTerminal, stdin};
use std::sync::Arc;

use turnlock_protocol::Secret;
use zeroize::Zeroizing;

use super::Context;
use crate::engine::Engine;
use crate::failure::Failure;
use crate::rotators::Rotators;
use crate::vault::local::{HostState, Key, LocalVault};

impl Context {
    /// What this machine remembers of its vaults.
    pub(super) fn host_state(&self) -> Result<HostState, Failure> {
        Ok(HostState::new(&self.config.state_directory)?)
    }

    /// The vault, opened with the first key that was named: key file,
    /// passphrase file, systemd credential, else a prompt.
    pub(super) fn vault(&self) -> Result<LocalVault, Failure> {
        let path = &self.config.vault;
        if !path.exists() {
            return Err(crate::vault::VaultError::Missing(path.clone()).into());
        }
        Ok(LocalVault::open(path, &self.key("Passphrase of the vault")?, &self.host_state()?)?)
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
        Ok(Arc::new(Engine {
            vault: Arc::new(self.vault()?),
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
