//! What opens a KDBX file: never an argument, always a file, standard input or
//! a person at the terminal.

use std::fs;
use std::io::{IsTerminal, stdin};
use std::path::{Path, PathBuf};

use clap::Args;
use zeroize::Zeroizing;

use super::open;
use crate::failure::Failure;
use crate::formats::kdbx::Key;

#[derive(Debug, Args)]
pub(super) struct KdbxKey {
    /// KDBX: the passphrase in this file's first line; `-` reads standard input [default: asks]
    #[arg(long, value_name = "FILE")]
    kdbx_passphrase_file: Option<PathBuf>,
    /// KDBX: this key file, alone or together with the passphrase
    #[arg(long, value_name = "FILE")]
    kdbx_key_file: Option<PathBuf>,
}

impl KdbxKey {
    /// The key of a file that is there.
    pub(super) fn to_open(&self, file: &Path) -> Result<Key, Failure> {
        let both = file.as_os_str() == "-" && self.kdbx_passphrase_file.as_deref() == Some(Path::new("-"));
        if both {
            return Err(Failure::usage("standard input cannot be both the database and its passphrase")
                .hint("name a file for one of them"));
        }
        self.key(|| open::prompt_for("Passphrase of the KDBX file"))
    }

    /// The key of a file to be made.
    pub(super) fn to_make(&self) -> Result<Key, Failure> {
        self.key(|| {
            let first = open::prompt_for("Passphrase for the KDBX file")?;
            if !first.same_as(&open::prompt_for("Once more")?) {
                return Err(Failure::usage("the two passphrases differ").hint("try again"));
            }
            Ok(first)
        })
    }

    fn key(&self, ask: impl FnOnce() -> Result<turnlock_protocol::Secret, Failure>) -> Result<Key, Failure> {
        let key_file = self.kdbx_key_file.as_ref().map(|file| {
            fs::read(file).map(Zeroizing::new).map_err(|error| {
                Failure::usage(format!("the key file {} cannot be read", file.display()))
                    .caused_by(&error)
                    .hint("name the key file that belongs to the database")
            })
        });
        let passphrase = match (&self.kdbx_passphrase_file, &self.kdbx_key_file) {
            (Some(file), _) => Some(open::first_line(file)?),
            (None, Some(_)) => None,
            (None, None) if stdin().is_terminal() => Some(ask()?),
            (None, None) => {
                return Err(Failure::usage(
                    "nothing opens the KDBX file: no key was named and there is no terminal to ask at",
                )
                .hint("name one with --kdbx-passphrase-file or --kdbx-key-file"));
            }
        };
        Ok(Key { passphrase, key_file: key_file.transpose()? })
    }
}
