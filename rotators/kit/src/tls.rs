//! TLS for rotators: one policy, one place where certificates are judged.

mod named;

use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use schemars::JsonSchema;
use serde::Deserialize;
use turnlock_protocol::{Fault, Kind};

use self::named::Named;
use crate::{Finding, Severity};

/// How much of TLS is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Encrypted, by a server whose certificate names it. The default for
    /// anything but loopback addresses and sockets.
    VerifyFull,
    /// Encrypted, by any server of the right authority.
    VerifyCa,
    /// Encrypted, by anybody.
    Require,
    /// In clear.
    Disable,
}

/// The TLS fields of an account. Part of it by `#[serde(flatten)]`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
pub struct Tls {
    /// `verify-full` (default but for loopback addresses), `verify-ca`, `require` or `disable`.
    #[serde(default)]
    pub tls: Option<Mode>,
    /// The authority to trust instead of the system's: PEM text, or a file's path.
    #[serde(default)]
    pub ca: Option<String>,
    /// The name to expect in the certificate, where it is not the host's.
    #[serde(default)]
    pub server_name: Option<String>,
}

/// What these fields come to for one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effective {
    /// TLS, judged like this.
    Tls(Mode),
    /// A loopback address and nothing said: TLS if offered, else in clear.
    Opportunistic,
    /// In clear because the account says so.
    Clear,
}

impl Effective {
    /// How the server is judged, nothing where the connection stays in clear.
    pub fn mode(self) -> Option<Mode> {
        match self {
            Self::Tls(mode) => Some(mode),
            Self::Opportunistic => Some(Mode::Require),
            Self::Clear => None,
        }
    }

    /// How far the server is believed, for people.
    pub fn believed(self) -> &'static str {
        match self {
            Self::Tls(Mode::VerifyFull) => "certificate and name verified",
            Self::Tls(Mode::VerifyCa) => "certificate verified, name not",
            Self::Tls(_) => "certificate not verified",
            Self::Opportunistic => "if offered, loopback",
            Self::Clear => "in clear",
        }
    }
}

impl Tls {
    /// The policy for this host.
    pub fn effective(&self, host: &str) -> Effective {
        match self.tls {
            Some(Mode::Disable) => Effective::Clear,
            Some(mode) => Effective::Tls(mode),
            None if self.ca.is_none() && is_loopback(host) => Effective::Opportunistic,
            None => Effective::Tls(Mode::VerifyFull),
        }
    }

    /// What a person should know of a weaker choice than the default.
    pub fn findings(&self) -> Vec<Finding> {
        let message = match self.tls {
            None | Some(Mode::VerifyFull) => return Vec::new(),
            Some(Mode::VerifyCa) => "tls = verify-ca: any server of that authority is believed, whatever its name",
            Some(Mode::Require) => {
                "tls = require: the server's certificate is not checked; anybody in between can read and change everything"
            }
            Some(Mode::Disable) => "tls = disable: everything but the log-in exchange travels in clear",
        };
        vec![Finding { severity: Severity::Warning, message: message.to_owned() }]
    }

    /// The trusted authorities: the account's own, or the system's.
    ///
    /// # Errors
    /// `tls` when there are none, or the account's cannot be read.
    pub fn roots(&self) -> Result<RootCertStore, Fault> {
        let mut roots = RootCertStore::empty();
        match &self.ca {
            Some(_) => {
                for certificate in self.ca_certificates()? {
                    roots.add(certificate).map_err(|error| {
                        Fault::new(Kind::Tls, "a certificate in `ca` cannot be used as an authority").caused_by(&error)
                    })?;
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                if roots.is_empty() {
                    return Err(Fault::new(Kind::Tls, "the system trusts no certificate authority")
                        .hint("install ca-certificates, or give the record `ca`"));
                }
            }
        }
        Ok(roots)
    }

    /// The certificates of `ca`, none where the system's are trusted.
    ///
    /// # Errors
    /// `tls` when the file or the text cannot be read.
    pub fn ca_certificates(&self) -> Result<Vec<CertificateDer<'static>>, Fault> {
        let Some(ca) = &self.ca else {
            return Ok(Vec::new());
        };
        let certificates: Result<Vec<_>, _> = if ca.contains("-----BEGIN") {
            CertificateDer::pem_slice_iter(ca.as_bytes()).collect()
        } else {
            CertificateDer::pem_file_iter(ca).and_then(Iterator::collect)
        };
        let hint = "`ca` is PEM text, or the path of a PEM file that this user may read";
        let certificates =
            certificates.map_err(|error| Fault::new(Kind::Tls, "`ca` cannot be read").caused_by(&error).hint(hint))?;
        if certificates.is_empty() {
            return Err(Fault::new(Kind::Tls, "`ca` holds no certificate").hint(hint));
        }
        Ok(certificates)
    }

    /// A client configuration that judges servers by this mode.
    ///
    /// # Errors
    /// `tls` when the trusted authorities cannot be read.
    pub fn client_config(&self, mode: Mode) -> Result<ClientConfig, Fault> {
        self.client_config_with(mode, rustls::crypto::aws_lc_rs::default_provider())
    }

    /// The same with the cryptography that one kind of server is best met with.
    ///
    /// # Errors
    /// Like [`Self::client_config`].
    pub fn client_config_with(&self, mode: Mode, provider: CryptoProvider) -> Result<ClientConfig, Fault> {
        let provider = Arc::new(provider);
        configured(self.verifier(mode, &provider)?, provider)
    }

    /// The same for a client that expects the name in the address it is told:
    /// `server_name` is expected instead.
    ///
    /// # Errors
    /// Like [`Self::client_config`]; `invalid_input` for what no certificate can bear.
    pub fn client_config_by_address(&self, mode: Mode) -> Result<ClientConfig, Fault> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = self.verifier(mode, &provider)?;
        match (&self.server_name, mode) {
            (Some(name), Mode::VerifyFull) => configured(Arc::new(Named::new(name, verifier)?), provider),
            _ => configured(verifier, provider),
        }
    }

    /// Who judges certificates by this mode.
    fn verifier(&self, mode: Mode, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, Fault> {
        let lenient = |roots| Arc::new(Lenient { roots, provider: Arc::clone(provider) });
        Ok(match mode {
            Mode::VerifyFull => {
                WebPkiServerVerifier::builder_with_provider(Arc::new(self.roots()?), Arc::clone(provider))
                    .build()
                    .map_err(|error| {
                        Fault::new(Kind::Tls, "the trusted authorities cannot be used").caused_by(&error)
                    })?
            }
            Mode::VerifyCa => lenient(Some(self.roots()?)),
            Mode::Require | Mode::Disable => lenient(None),
        })
    }
}

fn configured(verifier: Arc<dyn ServerCertVerifier>, provider: Arc<CryptoProvider>) -> Result<ClientConfig, Fault> {
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Fault::new(Kind::Internal, "no TLS version is available").caused_by(&error))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(config)
}

/// Whether it is the server that was not believed. An I/O error hides what it
/// holds from `source()`, and one may hold another.
pub fn is_to_blame(error: &(dyn Error + 'static)) -> bool {
    let held = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    let within = held.map(|held| held as &(dyn Error + 'static)).or_else(|| error.source());
    error.is::<rustls::Error>() || within.is_some_and(is_to_blame)
}

/// Whether a host is this machine by its very address.
pub fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.starts_with('/')
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Judges less than the name, because the account says so: the authority with
/// `verify-ca`, nothing with `require`. Signatures are always checked, so that
/// a replayed certificate is of no use.
#[derive(Debug)]
struct Lenient {
    roots: Option<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.roots {
            let certificate = ParsedCertificate::try_from(end_entity)?;
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, algorithms)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_without_an_authority_is_opportunistic() {
        let nothing = Tls::default();
        for host in ["localhost", "127.0.0.9", "::1", "/run/postgresql"] {
            assert_eq!(nothing.effective(host), Effective::Opportunistic, "{host}");
        }
        for host in ["db1", "10.0.0.1", "localhost.example.com", "::2"] {
            assert_eq!(nothing.effective(host), Effective::Tls(Mode::VerifyFull), "{host}");
        }
        let with_ca = Tls { ca: Some("/ca.pem".into()), ..Tls::default() };
        assert_eq!(with_ca.effective("127.0.0.1"), Effective::Tls(Mode::VerifyFull));
    }
}
