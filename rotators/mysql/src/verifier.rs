//! What MariaDB stores instead of a password, computed on our side: its
//! general log shows a statement as it was sent (MySQL's masks passwords).

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA512, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use curve25519_dalek::edwards::EdwardsPoint;
use zeroize::Zeroizing;

/// The verifier of a method of authentication, `None` of an unknown one. Its
/// alphabet needs no escaping.
pub(crate) fn verifier(method: &str, password: &str) -> Option<String> {
    match method {
        "mysql_native_password" => Some(native(password)),
        "ed25519" => Some(ed25519(password)),
        _ => None,
    }
}

/// `*` and the SHA-1 of the password's SHA-1 in hexadecimal.
fn native(password: &str) -> String {
    let once = digest(&SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
    let mut twice = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    twice.update(once.as_ref());
    twice.finish().as_ref().iter().fold("*".to_owned(), |text, byte| format!("{text}{byte:02X}"))
}

/// An Ed25519 public key whose seed is the password, however long.
fn ed25519(password: &str) -> String {
    let expanded = digest(&SHA512, password.as_bytes());
    let mut scalar = Zeroizing::new([0; 32]);
    for (to, from) in scalar.iter_mut().zip(expanded.as_ref()) {
        *to = *from;
    }
    STANDARD_NO_PAD.encode(EdwardsPoint::mul_base_clamped(*scalar).compress().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verifiers_are_the_servers_own() {
        // As MariaDB 10.11 stored them for PASSWORD('…').
        let cases = [
            ("mysql_native_password", "old-pw-1", "*456895E369F0A8A8EA3644AC5336983297A55D13"),
            ("ed25519", "old-ed", "wYS0maA6nMZWnzdGN47SL2fSWi3GL0N/i+yIvGmQ8Zg"),
        ];
        for (method, password, stored) in cases {
            assert_eq!(verifier(method, password).as_deref(), Some(stored));
        }
        assert_eq!(verifier("pam", "x"), None);
    }
}
