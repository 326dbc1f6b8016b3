//! Key pairs: read in any of the usual formats, written in OpenSSH's.

use turnlock_kit::{Credential, Fault, Kind, Policy, Secret, SystemRandom};
use turnlock_secureshell::keys::ssh_key::LineEnding;
use turnlock_secureshell::keys::ssh_key::private::RsaKeypair;
use turnlock_secureshell::keys::{Algorithm, EcdsaCurve, PrivateKey, key::safe_rng};
use turnlock_secureshell::private_key;

use crate::authorized_keys::PublicLine;
use crate::{PASSPHRASE, PRIVATE_KEY, PUBLIC_KEY};

/// NIST SP 800-57 part 1: what serves beyond 2030.
const RSA_BITS: usize = 3072;

/// The key pair of a credential; nothing where it has none.
pub(crate) fn of(credential: &Credential) -> Result<Option<PrivateKey>, Fault> {
    credential
        .get(PRIVATE_KEY)
        .filter(|text| !text.is_empty())
        .map(|text| private_key(text, credential.get(PASSPHRASE)))
        .transpose()
}

/// The key pair that a log-in needs.
pub(crate) fn needed(credential: &Credential) -> Result<PrivateKey, Fault> {
    of(credential)?.ok_or_else(|| {
        Fault::new(Kind::InvalidInput, "there is no private key").hint("set the record's keyPair, or cmdr:private_key")
    })
}

/// Its line in a file of authorised keys.
pub(crate) fn public_line(key: &PrivateKey) -> Result<PublicLine, Fault> {
    let text = public_text(key)?;
    PublicLine::new(&text).ok_or_else(|| Fault::new(Kind::Internal, "the public key cannot be written"))
}

fn public_text(key: &PrivateKey) -> Result<String, Fault> {
    let written = key.public_key().to_openssh();
    written.map_err(|error| Fault::new(Kind::Internal, "the public key cannot be written").caused_by(&error))
}

/// Makes the pair that follows: of the kind that is asked for, or of the old
/// one's. Where the record has a passphrase, the new key gets a new one.
pub(crate) fn following(
    old: Option<&PrivateKey>,
    kind: Option<&str>,
    login: &str,
    current: Option<&Credential>,
    policy: &Policy,
) -> Result<Credential, Fault> {
    let made = match algorithm(old, kind)? {
        Wanted::Rsa(bits) => RsaKeypair::random(&mut safe_rng(), bits).map(PrivateKey::from),
        Wanted::Other(algorithm) => PrivateKey::random(&mut safe_rng(), algorithm),
    };
    let mut key = made.map_err(|error| Fault::new(Kind::Internal, "no key could be made").caused_by(&error))?;
    key.set_comment(old.map_or_else(|| login.to_owned(), |old| old.comment().to_string()));
    let public = public_text(&key)?;
    let mut next = Credential::empty().with(PUBLIC_KEY, Secret::new(public));
    if current.and_then(|current| current.get(PASSPHRASE)).is_some_and(|phrase| !phrase.is_empty()) {
        let passphrase = policy
            .draw(&mut SystemRandom)
            .map_err(|error| Fault::new(Kind::InvalidInput, format!("no passphrase can be made: {error}")))?;
        #[expect(clippy::disallowed_methods, reason = "it encrypts the private key")]
        let encrypted = key.encrypt(&mut safe_rng(), passphrase.expose());
        key = encrypted.map_err(|error| Fault::new(Kind::Internal, "the key cannot be encrypted").caused_by(&error))?;
        next = next.with(PASSPHRASE, passphrase);
    }
    let text = key
        .to_openssh(LineEnding::LF)
        .map_err(|error| Fault::new(Kind::Internal, "the private key cannot be written").caused_by(&error))?;
    Ok(next.with(PRIVATE_KEY, Secret::new(text.to_string())))
}

enum Wanted {
    Rsa(usize),
    Other(Algorithm),
}

fn algorithm(old: Option<&PrivateKey>, kind: Option<&str>) -> Result<Wanted, Fault> {
    let ecdsa = |curve| Ok(Wanted::Other(Algorithm::Ecdsa { curve }));
    match kind {
        Some("ed25519") => return Ok(Wanted::Other(Algorithm::Ed25519)),
        Some("rsa") => return Ok(Wanted::Rsa(RSA_BITS)),
        Some("ecdsa" | "ecdsa:256") => return ecdsa(EcdsaCurve::NistP256),
        Some("ecdsa:384") => return ecdsa(EcdsaCurve::NistP384),
        Some("ecdsa:521") => return ecdsa(EcdsaCurve::NistP521),
        Some(other) => {
            let bits = other.strip_prefix("rsa:").and_then(|bits| bits.parse().ok());
            return bits.filter(|bits| (RSA_BITS..=16_384).contains(bits)).map(Wanted::Rsa).ok_or_else(|| {
                Fault::new(Kind::InvalidInput, format!("`key_type` = \"{other}\" is no kind of key that is made here"))
                    .hint("ed25519, rsa, rsa:BITS with at least 3072, ecdsa:256, ecdsa:384 or ecdsa:521")
            });
        }
        None => {}
    }
    Ok(match old.map(PrivateKey::algorithm) {
        Some(Algorithm::Rsa { .. }) => Wanted::Rsa(old.map_or(0, rsa_bits).max(RSA_BITS)),
        Some(Algorithm::Ecdsa { curve }) => Wanted::Other(Algorithm::Ecdsa { curve }),
        // Kinds that nobody should make any more become Ed25519.
        _ => Wanted::Other(Algorithm::Ed25519),
    })
}

/// The size of an RSA key's modulus, 0 for other keys.
pub(crate) fn rsa_bits(key: &PrivateKey) -> usize {
    key.public_key().key_data().rsa().map_or(0, |key| {
        let modulus = key.n().as_positive_bytes().unwrap_or_default();
        modulus.len() * 8 - modulus.first().map_or(0, |first| first.leading_zeros() as usize)
    })
}
