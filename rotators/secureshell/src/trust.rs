//! Which host keys are believed. Nothing is learned by connecting: a host is
//! known beforehand or it is a stranger.

use std::path::PathBuf;

use russh::keys::{HashAlg, PublicKey};
use schemars::JsonSchema;
use serde::Deserialize;
use turnlock_kit::{Fault, Kind};

use crate::known_hosts::{Entries, name_of};
use crate::route::Place;

/// How a host is reached and believed. Part of an account by `#[serde(flatten)]`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
pub struct Access {
    /// The host's key: fingerprint (`SHA256:…`) or public key; several are separated by commas.
    #[serde(default)]
    pub known_host: Option<String>,
    /// The file of known host keys; unless told the user's and the system's.
    #[serde(default)]
    pub known_hosts: Option<String>,
    /// The host to go through: `login@host:port`. Its secret is `jump_password` or `jump_private_key`.
    #[serde(default)]
    pub jump: Option<String>,
    /// The jump host's key, like known_host.
    #[serde(default)]
    pub jump_known_host: Option<String>,
}

/// What is known of one host.
#[derive(Debug)]
pub(crate) struct Known {
    name: String,
    /// The field that names this host's key.
    field: &'static str,
    /// `known_host`, where the account has it: then nothing else counts.
    pinned: Option<Vec<Pin>>,
    entries: Entries,
}

#[derive(Debug)]
enum Pin {
    Fingerprint(String),
    Key(Box<PublicKey>),
}

impl Known {
    /// Reads what the account and the files say about a host.
    pub(crate) fn read(access: &Access, pin: Option<&str>, field: &'static str, place: &Place) -> Result<Self, Fault> {
        let pinned = pin.map(|pin| pins(pin, field)).transpose()?;
        let mut entries = Entries::default();
        for (path, must_exist) in access.files() {
            match std::fs::read(&path) {
                Ok(bytes) => entries.read(&String::from_utf8_lossy(&bytes), &place.host, place.port),
                Err(error) if !must_exist && error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(Fault::new(
                        Kind::HostKey,
                        format!("the known host keys in {} cannot be read", path.display()),
                    )
                    .caused_by(&error));
                }
            }
        }
        Ok(Self { name: name_of(&place.host, place.port), field, pinned, entries })
    }

    /// How the host is believed, for people.
    pub(crate) fn source(&self) -> &'static str {
        if self.pinned.is_some() { self.field } else { "known_hosts" }
    }

    /// The keys that are known for it. A server is asked for one of their kinds
    /// first: it has several keys, and showing another one is no attack.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &PublicKey> {
        let pinned = self.pinned.iter().flatten().filter_map(|pin| match pin {
            Pin::Key(key) => Some(key.as_ref()),
            Pin::Fingerprint(_) => None,
        });
        let listed = if self.pinned.is_some() { &[] } else { self.entries.keys.as_slice() };
        pinned.chain(listed)
    }

    /// Whether a fingerprint is known, which does not tell the kind of its key.
    pub(crate) fn may_be_of_another_kind(&self) -> bool {
        self.pinned.iter().flatten().any(|pin| matches!(pin, Pin::Fingerprint(_)))
    }

    /// Judges the key that the host has shown.
    pub(crate) fn judge(&self, shown: &PublicKey) -> Result<(), Fault> {
        let name = &self.name;
        let fingerprint = shown.fingerprint(HashAlg::Sha256).to_string();
        let said = format!("it shows the {} key {fingerprint}", shown.algorithm());
        if same(&self.entries.revoked, shown) {
            return Err(Fault::new(Kind::HostKey, format!("the host key of {name} is revoked"))
                .hint("somebody holds a key that is no longer to be believed; look into it before you go on"));
        }
        if let Some(pins) = &self.pinned {
            let fits = pins.iter().any(|pin| match pin {
                Pin::Fingerprint(pin) => *pin == fingerprint,
                Pin::Key(key) => key.key_data() == shown.key_data(),
            });
            return if fits {
                Ok(())
            } else {
                Err(Fault::new(Kind::HostKey, format!("{name} is not the host that `{}` names: {said}", self.field))
                    .hint(format!(
                        "if its key was replaced on purpose, compare the fingerprint on the host itself \
                         (ssh-keygen -lf /etc/ssh/ssh_host_*.pub) and set turnlock:{}={fingerprint}",
                        self.field
                    )))
            };
        }
        if same(&self.entries.keys, shown) {
            return Ok(());
        }
        Err(if self.entries.keys.is_empty() {
            let why = if self.entries.has_authority { " (host certificates are not read)" } else { "" };
            Fault::new(Kind::HostKey, format!("the host key of {name} is not known{why}: {said}")).hint(format!(
                "compare the fingerprint on the host itself, then set turnlock:{}={fingerprint}, or add the host to known_hosts",
                self.field
            ))
        } else {
            Fault::new(Kind::HostKey, format!("the host key of {name} has changed: {said}"))
                .hint("nothing was shown to it; find out why it changed, then correct known_hosts")
        })
    }
}

impl Access {
    /// The files, and whether each must exist.
    fn files(&self) -> Vec<(PathBuf, bool)> {
        match &self.known_hosts {
            Some(path) => vec![(PathBuf::from(path), true)],
            None => {
                let own = std::env::home_dir().map(|home| (home.join(".ssh/known_hosts"), false));
                own.into_iter().chain([(PathBuf::from("/etc/ssh/ssh_known_hosts"), false)]).collect()
            }
        }
    }
}

fn same(keys: &[PublicKey], shown: &PublicKey) -> bool {
    keys.iter().any(|key| key.key_data() == shown.key_data())
}

fn pins(text: &str, field: &str) -> Result<Vec<Pin>, Fault> {
    let pins: Result<Vec<Pin>, Fault> = text
        .split([',', '\n'])
        .map(str::trim)
        .filter(|pin| !pin.is_empty())
        .map(|pin| {
            if let Some(hash) = pin.strip_prefix("SHA256:") {
                return Ok(Pin::Fingerprint(format!("SHA256:{}", hash.trim_end_matches('='))));
            }
            // A whole public key, or the line of a known_hosts file.
            let words = pin.split_ascii_whitespace();
            let key = words.filter_map(|word| russh::keys::parse_public_key_base64(word).ok()).next();
            key.map(|key| Pin::Key(Box::new(key))).ok_or_else(|| {
                Fault::new(Kind::InvalidInput, format!("`{field}` holds neither a fingerprint nor a public key"))
                    .hint("write SHA256:… as ssh-keygen -l prints it, or the public key itself")
            })
        })
        .collect();
    let pins = pins?;
    if pins.is_empty() {
        return Err(Fault::new(Kind::InvalidInput, format!("`{field}` is empty"))
            .hint("write SHA256:… as ssh-keygen -l prints it, or leave the field out"));
    }
    Ok(pins)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIKJFmnq5Bh9Cra2y8fJj2/0jwFX9zzTL9qAsLNl+g1d8";
    const TWO: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIMrPv4HtmCyVLnlzzLlnGXuFPdzP5W9kAAsA2Td+RpRp";

    fn web1() -> Place {
        Place { host: "web1".to_owned(), port: 22 }
    }

    fn key(text: &str) -> PublicKey {
        russh::keys::parse_public_key_base64(text).unwrap()
    }

    fn known(pin: Option<&str>, file: &str) -> Known {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("known_hosts");
        #[expect(clippy::disallowed_methods, reason = "a test's own throw-away file")]
        std::fs::write(&path, file).unwrap();
        let access = Access { known_hosts: Some(path.display().to_string()), ..Access::default() };
        Known::read(&access, pin, "known_host", &web1()).unwrap()
    }

    #[test]
    fn only_a_key_known_beforehand_is_believed() {
        let (one, two) = (format!("web1 ssh-ed25519 {ONE}\n"), format!("@revoked * ssh-ed25519 {ONE}\n"));
        let fingerprint = key(ONE).fingerprint(HashAlg::Sha256).to_string();
        for (pin, file, believed) in [
            (None, "", false),
            (None, one.as_str(), true),
            (None, &(one.clone() + &two), false),
            (Some(ONE), "", true),
            (Some(TWO), "", false),
            (Some(TWO), &one, false),
            (Some(ONE), &two, false),
            (Some(fingerprint.as_str()), "", true),
            (Some(&format!("SHA256:other, {fingerprint}=")), "", true),
            (Some(&format!("web1 ssh-ed25519 {ONE} me@here")), "", true),
        ] {
            let judged = known(pin, file).judge(&key(ONE));
            assert_eq!(judged.is_ok(), believed, "{pin:?} {file}");
            if let Err(fault) = judged {
                assert_eq!(fault.kind, Kind::HostKey);
            }
        }
    }

    #[test]
    fn an_unknown_and_a_changed_key_are_told_apart_and_the_way_out_is_shown() {
        let fingerprint = key(ONE).fingerprint(HashAlg::Sha256).to_string();
        let unknown = known(None, "").judge(&key(ONE)).unwrap_err();
        assert!(unknown.message.contains("not known") && unknown.message.contains(&fingerprint), "{unknown:?}");
        assert!(unknown.hint.unwrap().contains(&format!("turnlock:known_host={fingerprint}")));
        let changed = known(None, &format!("web1 ssh-ed25519 {TWO}\n")).judge(&key(ONE)).unwrap_err();
        assert!(changed.message.contains("has changed"), "{changed:?}");
    }

    #[test]
    fn a_pin_that_is_none_is_refused_by_name() {
        for pin in ["", " , ", "MD5:aa:bb", "ssh-ed25519"] {
            let fault = Known::read(&Access::default(), Some(pin), "known_host", &web1()).unwrap_err();
            assert!(fault.kind == Kind::InvalidInput && fault.message.contains("known_host"), "{fault:?}");
        }
        let missing = Access { known_hosts: Some("/nowhere/known_hosts".into()), ..Access::default() };
        assert_eq!(Known::read(&missing, None, "known_host", &web1()).unwrap_err().kind, Kind::HostKey);
    }
}
