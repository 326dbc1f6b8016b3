//! What an application with a certificate says instead of a secret: a token of
//! its own, signed (RFC 7523; Microsoft: "Microsoft identity platform
//! application authentication certificate credentials").

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{KeyPair, RSA_PSS_SHA256, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use turnlock_kit::{Fault, Kind, Secret};
use zeroize::Zeroizing;

/// How long a service may take it, in seconds: it is used at once, by clocks
/// that differ by minutes.
const VALID_FOR: u64 = 600;

/// A certificate with its private key.
pub(crate) struct Identity {
    thumbprint: String,
    key: RsaKeyPair,
}

impl Identity {
    /// Reads both from one PEM text.
    ///
    /// # Errors
    /// `invalid_input` for what is none, or not one pair.
    pub(crate) fn read(pem: &Secret) -> Result<Self, Fault> {
        let wrong = |what: &str| {
            Fault::new(Kind::InvalidInput, format!("azure_certificate {what}")).hint(
                "put the certificate and its unencrypted RSA private key into it, both as PEM \
                 (\"BEGIN CERTIFICATE\", \"BEGIN PRIVATE KEY\")",
            )
        };
        #[expect(clippy::disallowed_methods, reason = "the private key is read from it, to sign with")]
        let pem = pem.expose().as_bytes();
        let certificate = CertificateDer::from_pem_slice(pem).map_err(|_| wrong("holds no certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| wrong("holds no private key that can be read"))?;
        let key = match &key {
            PrivateKeyDer::Pkcs1(key) => RsaKeyPair::from_der(key.secret_pkcs1_der()),
            PrivateKeyDer::Pkcs8(key) => RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()),
            _ => return Err(wrong("holds a private key that is not RSA, which Entra ID does not take")),
        };
        let key = key.map_err(|_| wrong("holds a private key that is not RSA, which Entra ID does not take"))?;
        // The public half stands in its certificate as it is.
        let public = key.public_key().as_ref();
        if !certificate.windows(public.len()).any(|part| part == public) {
            return Err(wrong("holds a private key that is not the certificate's"));
        }
        Ok(Self { thumbprint: URL_SAFE_NO_PAD.encode(digest(&SHA256, &certificate)), key })
    }

    /// Signs that it is this application which asks `audience`, now.
    ///
    /// # Errors
    /// `internal` where clock, chance or signature fail.
    pub(crate) fn assertion(&self, application: &str, audience: &str) -> Result<Secret, Fault> {
        let failed = || Fault::new(Kind::Internal, "the application's assertion could not be signed");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| failed())?.as_secs();
        let mut chance = [0_u8; 16];
        getrandom::fill(&mut chance).map_err(|_| failed())?;
        let header = json!({"alg": "PS256", "typ": "JWT", "x5t#S256": self.thumbprint});
        let claims = json!({
            "aud": audience, "iss": application, "sub": application, "jti": URL_SAFE_NO_PAD.encode(chance),
            "iat": now, "nbf": now, "exp": now + VALID_FOR,
        });
        let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let mut text = Zeroizing::new(format!("{}.{}", part(header), part(claims)));
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key.sign(&RSA_PSS_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature).map_err(|_| failed())?;
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut text);
        Ok(Secret::new(std::mem::take(&mut *text)))
    }
}
