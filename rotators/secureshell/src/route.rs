//! Host and port as people write them, and the host to go through.

use turnlock_kit::{Credential, CredentialField, Fault, Kind, Mark, Secret};

/// A host, and a port where one is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl Place {
    /// Reads `host`, `host:port`, `address` or `[address]:port`.
    ///
    /// # Errors
    /// `invalid_input` when the port is none.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, Fault> {
        let wrong = || Fault::new(Kind::InvalidInput, format!("\"{text}\" is no host with a port"));
        let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, rest)) => (host, Some(rest.strip_prefix(':').ok_or_else(wrong)?)),
            None => match text.split_once(':') {
                Some((host, port)) if !port.contains(':') => (host, Some(port)),
                _ => (text, None),
            },
        };
        let port = port.map_or(Ok(default_port), |port| port.parse().map_err(|_| wrong()))?;
        if host.is_empty() || port == 0 {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

/// The secret field of a record with the password at its jump host.
pub const JUMP_PASSWORD: CredentialField = read_only("jump_password", "The password at the jump host.");
/// The secret field of a record with the private key for its jump host.
pub const JUMP_PRIVATE_KEY: CredentialField = read_only("jump_private_key", "The private key for the jump host.");
/// The secret field of a record with that key's passphrase.
pub const JUMP_PASSPHRASE: CredentialField = read_only("jump_passphrase", "What protects that key.");

const fn read_only(name: &'static str, description: &'static str) -> CredentialField {
    CredentialField { name, option: name, mark: Mark::Current, description }
}

/// The host to go through.
#[derive(Debug)]
pub(crate) struct Jump<'a> {
    pub(crate) login: String,
    pub(crate) place: Place,
    pub(crate) secret: JumpSecret<'a>,
}

/// What opens it.
#[derive(Debug)]
pub(crate) enum JumpSecret<'a> {
    Password(&'a Secret),
    Key { text: &'a Secret, passphrase: Option<&'a Secret> },
}

impl<'a> Jump<'a> {
    /// Reads the account's `jump`, and its secret from the record.
    pub(crate) fn read(jump: &str, credential: &'a Credential) -> Result<Self, Fault> {
        let (login, place) = jump.rsplit_once('@').ok_or_else(|| {
            Fault::new(Kind::InvalidInput, format!("`jump` = \"{jump}\" names no login"))
                .hint("write login@host or login@host:port")
        })?;
        if login.is_empty() {
            return Err(Fault::new(Kind::InvalidInput, format!("`jump` = \"{jump}\" names no login")));
        }
        let secret = match (credential.get(JUMP_PRIVATE_KEY.name), credential.get(JUMP_PASSWORD.name)) {
            (Some(text), _) => JumpSecret::Key { text, passphrase: credential.get(JUMP_PASSPHRASE.name) },
            (None, Some(password)) => JumpSecret::Password(password),
            (None, None) => {
                return Err(Fault::new(
                    Kind::InvalidInput,
                    format!("there is no secret for the jump host of `jump` = \"{jump}\""),
                )
                .hint("set the secret field cmdr:jump_password or cmdr:jump_private_key"));
            }
        };
        Ok(Self { login: login.to_owned(), place: Place::parse(place, 22)?, secret })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_people_write_it() {
        for (text, host, port) in [
            ("web1", "web1", 22),
            ("web1:2222", "web1", 2222),
            ("::1", "::1", 22),
            ("[::1]", "::1", 22),
            ("[::1]:2222", "::1", 2222),
            ("127.0.0.1:22", "127.0.0.1", 22),
        ] {
            assert_eq!(Place::parse(text, 22).unwrap(), Place { host: host.to_owned(), port }, "{text}");
        }
        for text in ["", ":22", "web1:", "web1:x", "web1:70000", "web1:0", "[::1]22", "[]:22"] {
            assert_eq!(Place::parse(text, 22).unwrap_err().kind, Kind::InvalidInput, "{text}");
        }
    }

    #[test]
    fn a_jump_host_needs_a_login_and_a_secret() {
        let secret = Credential::empty().with(JUMP_PASSWORD.name, Secret::new("x".to_owned()));
        let jump = Jump::read("me@corp@bastion:2222", &secret).unwrap();
        assert_eq!((jump.login.as_str(), jump.place.port), ("me@corp", 2222));
        for (text, credential) in
            [("bastion", &secret), ("@bastion", &secret), ("me@", &secret), ("me@bastion", &Credential::empty())]
        {
            assert_eq!(Jump::read(text, credential).unwrap_err().kind, Kind::InvalidInput, "{text}");
        }
    }
}
