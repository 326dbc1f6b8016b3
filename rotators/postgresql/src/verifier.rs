//! What the server stores instead of a password, computed on our side.

use std::num::NonZeroU32;

use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use turnlock_kit::{Fault, Kind, Secret};
use zeroize::Zeroizing;

/// How the server wants new passwords stored (`password_encryption`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encryption {
    /// SCRAM-SHA-256 with this iteration count (`scram_iterations`).
    Scram(NonZeroU32),
    /// The old digest, only where the server is set to it.
    Md5,
}

impl Encryption {
    /// PostgreSQL's own default count.
    pub(crate) const DEFAULT_ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).unwrap();

    /// The verifier as an SQL literal. Its alphabet needs no escaping.
    pub(crate) fn verifier(self, password: &Secret, login: &str) -> Result<String, Fault> {
        #[expect(clippy::disallowed_methods, reason = "the verifier is computed from it; only the verifier travels")]
        let password = password.expose();
        if password.contains('\0') {
            return Err(Fault::new(Kind::InvalidInput, "a PostgreSQL password cannot hold a NUL character"));
        }
        let verifier = match self {
            Self::Scram(iterations) => {
                let mut salt = [0u8; 16];
                aws_lc_rs::rand::fill(&mut salt)
                    .map_err(|_| Fault::new(Kind::Internal, "the system's source of randomness failed"))?;
                scram_sha_256(password, &salt, iterations)
            }
            Self::Md5 => postgres_protocol::password::md5(password.as_bytes(), login),
        };
        Ok(format!("'{verifier}'"))
    }
}

/// RFC 5803 with the key derivation of RFC 5802 section 3, written as
/// PostgreSQL stores it: `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`.
/// Like the server and libpq it falls back to the raw bytes where SASLprep
/// (RFC 4013) forbids a character.
fn scram_sha_256(password: &str, salt: &[u8], iterations: NonZeroU32) -> String {
    let prepared = Zeroizing::new(
        stringprep::saslprep(password).map_or_else(|_| password.to_owned(), std::borrow::Cow::into_owned),
    );
    let mut salted = Zeroizing::new([0u8; digest::SHA256_OUTPUT_LEN]);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, prepared.as_bytes(), salted.as_mut());
    let key = hmac::Key::new(hmac::HMAC_SHA256, salted.as_ref());
    let stored_key = digest::digest(&digest::SHA256, hmac::sign(&key, b"Client Key").as_ref());
    let server_key = hmac::sign(&key, b"Server Key");
    format!(
        "SCRAM-SHA-256${iterations}:{}${}:{}",
        STANDARD.encode(salt),
        STANDARD.encode(stored_key.as_ref()),
        STANDARD.encode(server_key.as_ref())
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_the_example_of_rfc_7677() {
        // Section 3: user "user", password "pencil", 4096 iterations. The RFC
        // gives the exchange; StoredKey and ServerKey are derived from it by
        // ServerSignature = HMAC(ServerKey, AuthMessage).
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = scram_sha_256("pencil", &salt, Encryption::DEFAULT_ITERATIONS);
        let server_key = STANDARD.decode(verifier.rsplit(':').next().unwrap()).unwrap();
        let auth_message = "n=user,r=rOprNGfwEbeRWgbNEkqO,\
            r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,\
            c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &server_key), auth_message.as_bytes());
        assert_eq!(STANDARD.encode(signature.as_ref()), "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn the_iteration_count_is_the_servers() {
        let verifier = scram_sha_256("x", b"0123456789abcdef", NonZeroU32::new(10_000).unwrap());
        assert!(verifier.starts_with("SCRAM-SHA-256$10000:"));
    }
}
