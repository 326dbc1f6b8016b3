//! Who resets: an application with a secret, or with a certificate.

use turnlock_kit::protocol::field;
use turnlock_kit::{Admin, Fault, Kind, Secret};

/// The credential's fields, and the record's that they come from.
pub(crate) const CLIENT_SECRET: &str = "client_secret";
pub(crate) const CERTIFICATE: &str = "certificate";

/// The application that logs in.
#[derive(Debug)]
pub(crate) struct Application<'a> {
    pub(crate) id: &'a str,
    pub(crate) proof: Proof<'a>,
}

/// How it proves who it is.
#[derive(Debug)]
pub(crate) enum Proof<'a> {
    Secret(&'a Secret),
    /// PEM, certificate and private key.
    Certificate(&'a Secret),
}

impl<'a> Application<'a> {
    /// The application that the record names, or that of its admin record,
    /// where login and password are client id and secret.
    ///
    /// # Errors
    /// `invalid_input` where there is none, or more than one proof.
    pub(crate) fn of(admin: Option<&'a Admin>) -> Result<Self, Fault> {
        let hint = "set cmdr:azure_client_id and cmdr:azure_secret or cmdr:azure_certificate, or name an admin record \
                    with turnlock:admin";
        let admin = admin.ok_or_else(|| {
            Fault::new(Kind::InvalidInput, "no application is named that resets passwords").hint(hint)
        })?;
        let id = admin.login.trim();
        if id.is_empty() {
            return Err(Fault::new(Kind::InvalidInput, "the application has a secret, but no client id").hint(hint));
        }
        let found = |name: &str| admin.credential.get(name);
        let proofs = [
            found(CLIENT_SECRET).map(Proof::Secret),
            found(CERTIFICATE).map(Proof::Certificate),
            found(field::PASSWORD).map(Proof::Secret),
        ];
        let mut proofs = proofs.into_iter().flatten();
        match (proofs.next(), proofs.next()) {
            (Some(proof), None) => Ok(Self { id, proof }),
            (None, _) => {
                Err(Fault::new(Kind::InvalidInput, format!("there is no secret for the application \"{id}\""))
                    .hint(hint))
            }
            (Some(_), Some(_)) => {
                let message =
                    format!("there are several secrets for the application \"{id}\", and only one is its own");
                Err(Fault::new(Kind::InvalidInput, message).hint(
                    "keep one of azure_secret, azure_certificate and the admin record's password in both records together",
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use turnlock_kit::Credential;

    use super::*;

    fn admin(login: &str, fields: &[&str]) -> Admin {
        let credential = fields
            .iter()
            .fold(Credential::empty(), |credential, name| credential.with(name, Secret::new("s3cret".to_owned())));
        Admin { login: login.to_owned(), credential, account: turnlock_kit::protocol::operation::Account::new() }
    }

    #[test]
    fn one_application_with_one_proof() {
        assert!(matches!(Application::of(Some(&admin("a", &[CLIENT_SECRET]))).unwrap().proof, Proof::Secret(_)));
        assert!(matches!(Application::of(Some(&admin("a", &[CERTIFICATE]))).unwrap().proof, Proof::Certificate(_)));
        assert!(matches!(Application::of(Some(&admin("a", &[field::PASSWORD]))).unwrap().proof, Proof::Secret(_)));
        for wrong in [
            None,
            Some(admin("", &[CLIENT_SECRET])),
            Some(admin("a", &[])),
            Some(admin("a", &[CLIENT_SECRET, CERTIFICATE])),
        ] {
            let fault = Application::of(wrong.as_ref()).unwrap_err();
            assert!(fault.kind == Kind::InvalidInput && fault.hint.is_some(), "{fault:?}");
        }
    }
}
