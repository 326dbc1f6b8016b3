//! A certificate authority for one test, and the server certificates it issues.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use crate::{
    error::{LabError, Result},
    process::write_file,
};

/// A certificate authority nobody but its test knows. Two of them never know
/// each other, which is what a test of "unknown issuer" needs.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// A server's certificate and private key, both PEM.
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// The private key, PKCS#8.
    pub key: String,
}

impl Authority {
    /// A new authority with a new elliptic-curve key.
    pub fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Turnlock lab authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(refused)?;
        let certificate = params.self_signed(&key).map_err(refused)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    /// A server certificate for these host names and addresses.
    pub fn issue(&self, names: &[&str]) -> Result<Issued> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).map_err(refused)?;
        params.distinguished_name.push(DnType::CommonName, "Turnlock lab server");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(refused)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(refused)?.pem();
        Ok(Issued { certificate, key: key.serialize_pem() })
    }

    /// The authority's own certificate, PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Writes the authority's certificate to a file that a client can be pointed at.
    pub fn write_to(&self, path: &Path) -> Result<PathBuf> {
        write_file(path, &self.certificate)?;
        Ok(path.to_owned())
    }
}

fn refused(error: rcgen::Error) -> LabError {
    LabError::new(format!("the lab's certificate authority failed: {error}"))
}
