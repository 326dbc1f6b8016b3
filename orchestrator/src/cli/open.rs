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
            owner: Engine::owner_of_this_run(),
            stop: Arc::clone(&self.stop),
            wait,
            progress: Arc::new(move |title, step| report.step(title, step)),
        }))
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
    let text = Zeroizing::new(
        read.map_err(|error| Failure::new(format!("{} cannot be read", file.display())).caused_by(&error))?,
    );
    Ok(Secret::new(text.lines().next().unwrap_or_default().to_owned()))
}
