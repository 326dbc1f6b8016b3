//! Speaking HTTPS to others: believed by the system's authorities or by one's
//! own, never followed to another place, never asked twice behind our back.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, redirect, retry};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::failure::Failure;

const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// A client that trusts the authorities in this PEM file, or the system's.
///
/// # Errors
/// When there are none, or they cannot be read.
pub(crate) fn client(ca: Option<&Path>) -> Result<Client, Failure> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::new("no TLS version is available").caused_by(&error))?
        .with_root_certificates(roots(ca)?)
        .with_no_client_auth();
    Client::builder()
        .tls_backend_preconfigured(config)
        .https_only(true)
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        // On a connection that was used before, a request may be sent twice.
        .pool_max_idle_per_host(0)
        .connect_timeout(CONNECT_WITHIN)
        .referer(false)
        .user_agent(concat!("turnlock/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| Failure::new("no HTTPS client could be made").caused_by(&error))
}

/// Why a question to somebody got no answer. The address is left out: it may
/// be a secret by itself.
pub(crate) fn unanswered(error: reqwest::Error, who: &str) -> Failure {
    let error = error.without_url();
    let what = match &error {
        error if is_tls(error) => "is not believed: its certificate proves nothing to us",
        error if error.is_connect() => "could not be reached",
        error if error.is_timeout() => "did not answer in time",
        _ => "did not end its answer",
    };
    Failure::new(format!("{who} {what}")).caused_by(&error)
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    let Some(ca) = ca else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return if roots.is_empty() {
            Err(Failure::new("the system trusts no certificate authority").hint("install ca-certificates"))
        } else {
            Ok(roots)
        };
    };
    let unreadable = |error: &dyn Error| {
        Failure::usage(format!("the authority {} cannot be read", ca.display()))
            .caused_by(error)
            .hint("name a PEM file")
    };
    for certificate in CertificateDer::pem_file_iter(ca).map_err(|error| unreadable(&error))? {
        let certificate = certificate.map_err(|error| unreadable(&error))?;
        roots.add(certificate).map_err(|error| unreadable(&error))?;
    }
    if roots.is_empty() {
        return Err(Failure::usage(format!("{} holds no certificate", ca.display())).hint("name a PEM file"));
    }
    Ok(roots)
}

/// Whether the server was not believed. An I/O error hides what it holds from
/// `source()`, and one may hold another.
fn is_tls(error: &(dyn Error + 'static)) -> bool {
    let held = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    let within = held.map(|held| held as &(dyn Error + 'static)).or_else(|| error.source());
    error.is::<rustls::Error>() || within.is_some_and(is_tls)
}
