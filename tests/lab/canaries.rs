//! Whether a secret stands in anything that was written, also encoded, also
//! broken over two lines. It searches for many at once.

use std::collections::BTreeMap;

use aho_corasick::AhoCorasick;
use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{LabError, Result};

/// Secrets that must be nowhere.
#[derive(Debug)]
pub struct Canaries {
    search: AhoCorasick,
    names: Vec<String>,
}

/// What was found of a secret, and where in the bytes that were searched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Which secret, and how it is spelt.
    pub what: String,
    /// Its place.
    pub at: usize,
}

impl Canaries {
    /// A search for these, in every spelling that a program may come to by itself.
    pub fn of(secrets: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self> {
        let mut needles = BTreeMap::new();
        for (number, secret) in secrets.into_iter().enumerate() {
            for (needle, spelling) in spellings(secret.as_ref()) {
                needles.insert(needle, format!("secret {number} {spelling}"));
            }
        }
        let (needles, names): (Vec<_>, Vec<_>) = needles.into_iter().unzip();
        let search = AhoCorasick::new(needles).map_err(|error| LabError::new(error.to_string()))?;
        Ok(Self { search, names })
    }

    /// The first secret in these bytes, also where a line break tears it.
    pub fn found_in(&self, hay: &[u8]) -> Option<String> {
        let unbroken: Vec<u8> = hay.iter().copied().filter(|byte| !b"\r\n".contains(byte)).collect();
        [hay, &unbroken].into_iter().find_map(|hay| self.all_in(hay).next()).map(|found| found.what)
    }

    /// Every place of a secret in these bytes.
    pub fn all_in<'a>(&'a self, hay: &'a [u8]) -> impl Iterator<Item = Found> + 'a {
        self.search.find_iter(hay).map(|found| Found {
            what: self.names.get(found.pattern().as_usize()).cloned().unwrap_or_default(),
            at: found.start(),
        })
    }
}

fn spellings(secret: &str) -> Vec<(Vec<u8>, &'static str)> {
    let bytes = secret.as_bytes();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let url = bytes
        .iter()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(*byte).to_string() } else { format!("%{byte:02X}") });
    let json = serde_json::to_string(secret).unwrap_or_default();
    let mut all = vec![
        (json.trim_matches('"').as_bytes().to_vec(), "in JSON"),
        (bytes.to_vec(), "in clear"),
        (hex.to_uppercase().into_bytes(), "in hex"),
        (hex.into_bytes(), "in hex"),
        (url.collect::<String>().into_bytes(), "in a URL"),
        (secret.encode_utf16().flat_map(u16::to_le_bytes).collect(), "in UTF-16"),
    ];
    // The middle of it is the same wherever it stands in what was encoded.
    for shift in 0..3 {
        let length = bytes.len().saturating_sub(shift) / 3 * 3;
        let middle = bytes.get(shift..shift + length).unwrap_or_default();
        all.push((STANDARD.encode(middle).into_bytes(), "in base64"));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_in_every_spelling() {
        let secret = "vEry+Secret/4f8=\"Bird\"";
        let canaries = Canaries::of([secret]).unwrap();
        let around = format!("ab{secret}cd");
        let encoded = STANDARD.encode(&around);
        for (hay, name) in [
            (around.clone().into_bytes(), "in clear"),
            (encoded.clone().into_bytes(), "in base64"),
            (STANDARD.encode(&around[1..]).into_bytes(), "in base64"),
            (STANDARD.encode(&around[2..]).into_bytes(), "in base64"),
            (format!("{}\r\n{}", &encoded[..16], &encoded[16..]).into_bytes(), "in base64"),
            (around.replace("/4", "/\n4").into_bytes(), "in clear"),
            (serde_json::to_string(&around).unwrap().into_bytes(), "in JSON"),
            (around.encode_utf16().flat_map(u16::to_le_bytes).collect(), "in UTF-16"),
        ] {
            let found = canaries.found_in(&hay).unwrap_or_default();
            assert!(found.ends_with(name), "{found:?} in {}", hay.escape_ascii());
        }
        assert_eq!(canaries.found_in(b"nothing of it"), None);
    }
}
