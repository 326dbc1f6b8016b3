//! A connection to a host that has proven who it is, and has been told nothing
//! yet.

use std::borrow::Cow;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use russh::client::{self, Config, Handle, Handler};
use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{Names, Preferred};
use tokio::net::TcpStream;
use turnlock_kit::{Credential, Fault, Kind};

use crate::login::{Proof, private_key};
use crate::program::Session;
use crate::route::{Jump, JumpSecret, Place};
use crate::trust::{Access, Known};

const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// A connection before any log-in. The host's key was believed.
pub struct Connection {
    pub(crate) handle: Handle<Judge>,
    pub(crate) place: Place,
    pub(crate) facts: Facts,
    /// The jump host's session, which carries this connection.
    pub(crate) through: Option<Box<Session>>,
}

/// What is known of the other end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    /// The server's product and version as it told them.
    pub(crate) server: String,
    /// How the connection is protected and the host believed, for people.
    pub(crate) protection: String,
    /// What the host says to everybody who logs in.
    pub(crate) banner: String,
}

impl Connection {
    /// Connects, through the jump host where the account names one, and
    /// judges the host's key. The jump host's secret is in `credential`.
    ///
    /// # Errors
    /// `host_key` when the host is a stranger, which was shown nothing then;
    /// `unreachable`, or what the jump host's log-in failed with.
    pub async fn open(host: &str, port: u16, access: &Access, credential: &Credential) -> Result<Self, Fault> {
        let place = Place { host: host.to_owned(), port };
        let known = Known::read(access, access.known_host.as_deref(), "known_host", &place)?;
        let through = match &access.jump {
            Some(jump) => {
                let jump = Jump::read(jump, credential)?;
                let known = Known::read(access, access.jump_known_host.as_deref(), "jump_known_host", &jump.place)?;
                Some(Box::new(log_in_at(&jump, known).await?))
            }
            None => None,
        };
        Self::believed(place, known, through).await
    }

    /// A server has keys of several kinds and shows one. Where that is not the
    /// one whose fingerprint is known, it is asked for its other kinds.
    async fn believed(place: Place, known: Known, through: Option<Box<Session>>) -> Result<Self, Fault> {
        let known = Arc::new(known);
        let mut kinds = kinds(&known);
        let mut stranger = None;
        loop {
            let facts = Arc::new(Mutex::new(Facts::default()));
            let judge = Judge { known: Arc::clone(&known), facts: Arc::clone(&facts) };
            match connect(&place, through.as_deref(), &kinds, judge).await {
                Ok(handle) => return Ok(Self { handle, facts: copy(&facts), place, through }),
                Err(Trouble::Stranger { fault, shown }) => {
                    let first = stranger.get_or_insert(*fault);
                    kinds.retain(|kind| !is_of(kind, &shown));
                    if !known.may_be_of_another_kind() || kinds.is_empty() {
                        return Err(first.clone());
                    }
                }
                Err(Trouble::Ssh(russh::Error::NoCommonAlgo { .. })) if stranger.is_some() => {
                    return Err(stranger.unwrap_or_else(|| Fault::new(Kind::HostKey, "the host is a stranger")));
                }
                Err(Trouble::Ssh(error)) => return Err(not_connected(&place, &error)),
            }
        }
    }

    /// The server's product and version as it told them.
    pub fn server(&self) -> &str {
        &self.facts.server
    }
}

/// The jump host's session.
async fn log_in_at(jump: &Jump<'_>, known: Known) -> Result<Session, Fault> {
    let connection = Connection::believed(jump.place.clone(), known, None).await?;
    let session = match jump.secret {
        JumpSecret::Password(password) => connection.log_in(&jump.login, Proof::Password(password)).await,
        JumpSecret::Key { text, passphrase } => {
            let key = private_key(text, passphrase)?;
            connection.log_in(&jump.login, Proof::Key(&key)).await
        }
    };
    session.map_err(|not_in| {
        let mut fault = not_in.into_fault();
        fault.message = format!("the jump host: {}", fault.message);
        // Whatever is wrong there says nothing of the account itself.
        if fault.kind == Kind::Authentication {
            fault.kind = Kind::Unreachable;
            fault.hint = Some("correct jump_password or jump_private_key of the record".to_owned());
        }
        fault
    })
}

async fn connect(
    place: &Place,
    through: Option<&Session>,
    kinds: &[Algorithm],
    judge: Judge,
) -> Result<Handle<Judge>, Trouble> {
    let config = Arc::new(Config {
        preferred: Preferred { key: Cow::Owned(kinds.to_vec()), ..Preferred::DEFAULT },
        nodelay: true,
        ..Config::default()
    });
    let work = async {
        match through {
            Some(jump) => {
                let channel = jump
                    .handle
                    .channel_open_direct_tcpip(place.host.as_str(), u32::from(place.port), "127.0.0.1", 0)
                    .await?;
                client::connect_stream(config, channel.into_stream(), judge).await
            }
            None => {
                let stream = TcpStream::connect((place.host.as_str(), place.port)).await.map_err(russh::Error::IO)?;
                stream.set_nodelay(true).map_err(russh::Error::IO)?;
                client::connect_stream(config, stream, judge).await
            }
        }
    };
    match tokio::time::timeout(CONNECT_WITHIN, work).await {
        Ok(connected) => connected,
        Err(_) => Err(Trouble::Ssh(russh::Error::ConnectionTimeout)),
    }
}

fn not_connected(place: &Place, error: &russh::Error) -> Fault {
    let kind = match error {
        russh::Error::NoCommonAlgo { .. } => Kind::Unsupported,
        _ => Kind::Unreachable,
    };
    Fault::new(kind, format!("{}:{} cannot be reached over SSH", place.host, place.port)).caused_by(error)
}

/// Every kind of host key that is believed, those that are known first. None
/// that signs with SHA-1.
fn kinds(known: &Known) -> Vec<Algorithm> {
    let ecdsa = |curve| Algorithm::Ecdsa { curve };
    let mut kinds = vec![
        Algorithm::Ed25519,
        ecdsa(EcdsaCurve::NistP256),
        ecdsa(EcdsaCurve::NistP384),
        ecdsa(EcdsaCurve::NistP521),
        Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
        Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
    ];
    kinds.sort_by_key(|kind| !known.keys().any(|key| is_of(kind, key)));
    kinds
}

fn is_of(kind: &Algorithm, key: &PublicKey) -> bool {
    *kind == key.algorithm() || (kind.clone().is_rsa() && key.algorithm().is_rsa())
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The host showed a key that is not believed.
    Stranger { fault: Box<Fault>, shown: Box<PublicKey> },
    /// Everything else.
    Ssh(russh::Error),
}

impl From<russh::Error> for Trouble {
    fn from(error: russh::Error) -> Self {
        Self::Ssh(error)
    }
}

/// Judges the host's key, and listens to what it tells on its own.
pub(crate) struct Judge {
    known: Arc<Known>,
    facts: Arc<Mutex<Facts>>,
}

impl Judge {
    fn note(&self, note: impl FnOnce(&mut Facts)) {
        note(&mut self.facts.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }
}

fn copy(facts: &Mutex<Facts>) -> Facts {
    facts.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
}

impl Handler for Judge {
    type Error = Trouble;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Trouble> {
        let key = shown.public_key();
        self.known
            .judge(&key)
            .map_err(|fault| Trouble::Stranger { fault: Box::new(fault), shown: Box::new(key.clone()) })?;
        let protection = format!(
            "SSH, {} host key {} verified by {}",
            key.algorithm(),
            key.fingerprint(HashAlg::Sha256),
            self.known.source()
        );
        self.note(|facts| facts.protection = protection);
        Ok(true)
    }

    async fn kex_done(
        &mut self,
        _shared_secret: Option<&[u8]>,
        _names: &Names,
        session: &mut client::Session,
    ) -> Result<(), Trouble> {
        let id = String::from_utf8_lossy(session.remote_sshid()).into_owned();
        let server = id.strip_prefix("SSH-2.0-").unwrap_or(&id).to_owned();
        self.note(|facts| facts.server = server);
        Ok(())
    }

    async fn auth_banner(&mut self, banner: &str, _session: &mut client::Session) -> Result<(), Trouble> {
        let banner = banner.chars().take(2_000).collect();
        self.note(|facts| facts.banner = banner);
        Ok(())
    }
}
