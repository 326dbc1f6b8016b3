//! The client's half of the MySQL protocol, as much of it as a log-in and a
//! few statements take.
//!
//! Packets and scrambles are `mysql_common`'s. The conversation is ours,
//! because a rotator has to do what no driver lets it: log in although the
//! password has expired, without a query of the driver's own in between, see
//! the server's version before any query, forbid several statements in one,
//! and have its certificate judged like everybody else's here.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use aws_lc_rs::rsa::{OAEP_SHA1_MGF1SHA1, OaepPublicEncryptingKey, PublicEncryptingKey};
use mysql_common::constants::{CapabilityFlags, StatusFlags};
use mysql_common::io::ParseBuf;
use mysql_common::packets::{AuthPlugin, AuthSwitchRequest, HandshakePacket, HandshakeResponse, SslRequest};
use mysql_common::proto::MySerialize;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{ServerName, SubjectPublicKeyInfoDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use zeroize::Zeroizing;

/// No answer to anything asked here comes near this.
const LARGEST_PACKET: usize = 1 << 20;
/// `utf8mb4_general_ci`, which every server since 5.5.3 has.
const UTF8MB4: u8 = 45;
const SHA256_PASSWORD: &[u8] = b"sha256_password";

/// Everything a connection may run over.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Transport for T {}

/// A connection that is logged in.
pub(crate) struct Wire {
    stream: Box<dyn Transport>,
    sequence: u8,
    /// Nobody between us and the server reads along: TLS, or a Unix socket.
    private: bool,
    status: StatusFlags,
    /// What the server called itself before anything else.
    pub(crate) server_version: String,
    /// The TLS version, where there is TLS.
    pub(crate) tls: Option<&'static str>,
}

/// How a connection becomes a private one.
pub(crate) enum Privacy {
    /// It is one already: a Unix socket.
    Given,
    /// It stays in clear.
    None,
    /// By TLS.
    Tls {
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        /// Whether a server without TLS is refused.
        required: bool,
    },
}

/// Who logs in.
pub(crate) struct Login<'a> {
    pub(crate) user: &'a str,
    pub(crate) password: &'a str,
    pub(crate) db: Option<&'a str>,
}

/// One row of an answer in text.
pub(crate) type Row = Vec<Option<String>>;

/// Why a conversation ended.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The server said no.
    Server { code: u16, message: String },
    /// The connection broke, or the TLS handshake failed.
    Connection(io::Error),
    /// TLS is required and the server offers none.
    NoTls,
    /// The account authenticates in a way that is not spoken here.
    Plugin(String),
    /// What came was not the protocol.
    Garbage(&'static str),
}

impl Trouble {
    /// The server's error number.
    pub(crate) fn code(&self) -> Option<u16> {
        match self {
            Self::Server { code, .. } => Some(*code),
            _ => None,
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server { code, message } => write!(f, "the server answered {code}: {message}"),
            Self::Connection(_) => f.write_str("the connection failed"),
            Self::NoTls => f.write_str("the server offers no TLS"),
            Self::Plugin(name) => write!(f, "the account authenticates by \"{name}\""),
            Self::Garbage(what) => write!(f, "the server does not speak the protocol: {what}"),
        }
    }
}

impl std::error::Error for Trouble {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Connection(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Connection(error)
    }
}

impl Wire {
    /// Logs in over a fresh connection.
    pub(crate) async fn log_in(
        stream: Box<dyn Transport>,
        privacy: Privacy,
        login: &Login<'_>,
    ) -> Result<Self, Trouble> {
        let mut wire = Self {
            stream,
            sequence: 0,
            private: matches!(privacy, Privacy::Given),
            status: StatusFlags::empty(),
            server_version: String::new(),
            tls: None,
        };
        let greeting = wire.receive().await?;
        let greeting: HandshakePacket<'_> = parsed(&greeting, "no greeting")?;
        wire.server_version = greeting.server_version_str().into_owned();

        let offered = greeting.capabilities();
        let mut capabilities = CapabilityFlags::CLIENT_PROTOCOL_41
            | CapabilityFlags::CLIENT_SECURE_CONNECTION
            | CapabilityFlags::CLIENT_LONG_PASSWORD
            | CapabilityFlags::CLIENT_TRANSACTIONS
            | CapabilityFlags::CLIENT_PLUGIN_AUTH
            | CapabilityFlags::CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA
            | CapabilityFlags::CLIENT_CONNECT_ATTRS
            | CapabilityFlags::CLIENT_CAN_HANDLE_EXPIRED_PASSWORDS;
        // MariaDB leaves CLIENT_LONG_PASSWORD out and means something else by it.
        capabilities &= offered;
        if login.db.is_some() {
            capabilities |= CapabilityFlags::CLIENT_CONNECT_WITH_DB;
        }
        if let Privacy::Tls { config, name, required } = privacy {
            if offered.contains(CapabilityFlags::CLIENT_SSL) {
                capabilities |= CapabilityFlags::CLIENT_SSL;
                wire.send(&SslRequest::new(capabilities, LARGEST_PACKET as u32, UTF8MB4)).await?;
                wire.encrypt(config, name).await?;
            } else if required {
                return Err(Trouble::NoTls);
            }
        }

        let mut nonce = greeting.nonce();
        let mut plugin = match greeting.auth_plugin() {
            Some(AuthPlugin::CachingSha2Password) => AuthPlugin::CachingSha2Password,
            _ => AuthPlugin::MysqlNativePassword,
        };
        let scramble = plugin.gen_data(Some(login.password), &nonce);
        let attributes = HashMap::from([("program_name".to_owned(), "turnlock".to_owned())]);
        wire.send(&HandshakeResponse::new(
            scramble.as_deref(),
            (5, 7, 0),
            Some(login.user.as_bytes()),
            login.db.map(str::as_bytes),
            Some(plugin.borrow()),
            capabilities,
            capabilities.contains(CapabilityFlags::CLIENT_CONNECT_ATTRS).then_some(attributes),
            LARGEST_PACKET as u32,
        ))
        .await?;

        let mut switched = false;
        loop {
            let packet = wire.receive().await?;
            match packet.split_first() {
                Some((0x00, _)) => {
                    wire.note_status(&packet)?;
                    return Ok(wire);
                }
                Some((0xfe, rest)) if !switched && !rest.is_empty() => {
                    switched = true;
                    let request: AuthSwitchRequest<'_> = parsed(&packet, "no log-in method")?;
                    plugin = request.auth_plugin().into_owned();
                    nonce = request.plugin_data().to_vec();
                    wire.answer_switch(&plugin, &nonce, login.password).await?;
                }
                Some((0xfe, _)) => return Err(Trouble::Plugin("mysql_old_password".to_owned())),
                Some((0x01, rest)) => wire.answer_more(&plugin, rest, &nonce, login.password).await?,
                _ => return Err(Trouble::Garbage("not an answer to a log-in")),
            }
        }
    }

    /// Sends one statement, once, and reads its answer to the end.
    pub(crate) async fn execute(&mut self, statement: &str) -> Result<Vec<Row>, Trouble> {
        const COM_QUERY: u8 = 3;
        let mut command = Zeroizing::new(Vec::with_capacity(statement.len() + 1));
        command.push(COM_QUERY);
        command.extend_from_slice(statement.as_bytes());
        self.sequence = 0;
        self.send_bytes(&command).await?;

        let first = self.receive().await?;
        let columns = match first.first() {
            Some(0x00) => {
                self.note_status(&first)?;
                return Ok(Vec::new());
            }
            Some(0xfb) => return Err(Trouble::Garbage("it asks for a file of ours")),
            _ => ParseBuf(&first).checked_eat_lenenc_int().ok_or(Trouble::Garbage("not an answer to a statement"))?,
        };
        for _ in 0..columns {
            self.receive().await?;
        }
        if !is_end(&self.receive().await?) {
            return Err(Trouble::Garbage("an answer without its columns' end"));
        }
        let mut rows = Vec::new();
        loop {
            let packet = self.receive().await?;
            if is_end(&packet) {
                return Ok(rows);
            }
            rows.push(row(&packet)?);
        }
    }

    /// Whether the server reads a backslash in a literal as itself. It tells
    /// with every success, so this needs no query.
    pub(crate) fn no_backslash_escapes(&self) -> bool {
        self.status.contains(StatusFlags::SERVER_STATUS_NO_BACKSLASH_ESCAPES)
    }

    async fn answer_switch(&mut self, plugin: &AuthPlugin<'_>, nonce: &[u8], password: &str) -> Result<(), Trouble> {
        match plugin {
            AuthPlugin::CachingSha2Password | AuthPlugin::MysqlNativePassword | AuthPlugin::Ed25519 => {
                let scramble = plugin.gen_data(Some(password), nonce);
                self.send_bytes(scramble.as_deref().unwrap_or_default()).await
            }
            AuthPlugin::Other(name) if name.as_ref() == SHA256_PASSWORD => {
                if self.private {
                    self.send_password(password).await
                } else {
                    const ASK_FOR_KEY: u8 = 1;
                    self.send_bytes(&[ASK_FOR_KEY]).await
                }
            }
            // Whatever else there is would have the password in clear, or in a
            // form as good as clear, or is not about passwords.
            other => Err(Trouble::Plugin(String::from_utf8_lossy(other.as_bytes()).into_owned())),
        }
    }

    async fn answer_more(
        &mut self,
        plugin: &AuthPlugin<'_>,
        more: &[u8],
        nonce: &[u8],
        password: &str,
    ) -> Result<(), Trouble> {
        const ALREADY_PROVEN: &[u8] = &[3];
        const SEND_PASSWORD: &[u8] = &[4];
        const ASK_FOR_KEY: u8 = 2;
        let is_sha2 = *plugin == AuthPlugin::CachingSha2Password;
        let is_sha256 = plugin.as_bytes() == SHA256_PASSWORD;
        match more {
            ALREADY_PROVEN if is_sha2 => Ok(()),
            SEND_PASSWORD if is_sha2 && self.private => self.send_password(password).await,
            SEND_PASSWORD if is_sha2 => self.send_bytes(&[ASK_FOR_KEY]).await,
            key if (is_sha2 || is_sha256) && key.starts_with(b"-----BEGIN") && !self.private => {
                let sealed = sealed(key, nonce, password)?;
                self.send_bytes(&sealed).await
            }
            _ => Err(Trouble::Garbage("not a step of this log-in method")),
        }
    }

    /// The password itself: only where nobody can read along.
    async fn send_password(&mut self, password: &str) -> Result<(), Trouble> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(password.len() + 1));
        bytes.extend_from_slice(password.as_bytes());
        bytes.push(0);
        self.send_bytes(&bytes).await
    }

    async fn encrypt(&mut self, config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<(), Trouble> {
        let plain = std::mem::replace(&mut self.stream, Box::new(tokio::io::empty()));
        let stream = TlsConnector::from(config).connect(name, plain).await?;
        self.tls = stream
            .get_ref()
            .1
            .protocol_version()
            .and_then(|version| match version {
                tokio_rustls::rustls::ProtocolVersion::TLSv1_3 => Some("TLS 1.3"),
                tokio_rustls::rustls::ProtocolVersion::TLSv1_2 => Some("TLS 1.2"),
                _ => None,
            })
            .or(Some("TLS"));
        self.stream = Box::new(stream);
        self.private = true;
        Ok(())
    }

    async fn send(&mut self, packet: &impl MySerialize) -> Result<(), Trouble> {
        let mut bytes = Zeroizing::new(Vec::new());
        packet.serialize(&mut bytes);
        self.send_bytes(&bytes).await
    }

    async fn send_bytes(&mut self, payload: &[u8]) -> Result<(), Trouble> {
        if payload.len() > LARGEST_PACKET {
            return Err(Trouble::Garbage("a packet of ours is too large"));
        }
        let mut packet = Zeroizing::new(Vec::with_capacity(payload.len() + 4));
        packet.extend(payload.len().to_le_bytes().into_iter().take(3));
        packet.push(self.sequence);
        packet.extend_from_slice(payload);
        self.sequence = self.sequence.wrapping_add(1);
        self.stream.write_all(&packet).await?;
        self.stream.flush().await?;
        Ok(())
    }

    /// The next packet; an error packet is an error.
    async fn receive(&mut self) -> Result<Vec<u8>, Trouble> {
        let mut header = [0; 4];
        self.stream.read_exact(&mut header).await?;
        let [low, middle, high, sequence] = header;
        let length = u32::from_le_bytes([low, middle, high, 0]) as usize;
        if length > LARGEST_PACKET {
            return Err(Trouble::Garbage("a packet is too large"));
        }
        if sequence != self.sequence {
            return Err(Trouble::Garbage("packets out of order"));
        }
        self.sequence = sequence.wrapping_add(1);
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).await?;
        match payload.as_slice() {
            // 0xff, the number, then `#` and five characters of SQLSTATE unless
            // the server gives up before the greeting.
            [0xff, low, high, text @ ..] => Err(Trouble::Server {
                code: u16::from_le_bytes([*low, *high]),
                message: String::from_utf8_lossy(match text {
                    [b'#', _, _, _, _, _, text @ ..] => text,
                    text => text,
                })
                .into_owned(),
            }),
            _ => Ok(payload),
        }
    }

    fn note_status(&mut self, ok: &[u8]) -> Result<(), Trouble> {
        let mut rest = ParseBuf(ok);
        let status = rest
            .checked_eat(1)
            .and_then(|_| rest.checked_eat_lenenc_int())
            .and_then(|_| rest.checked_eat_lenenc_int())
            .and_then(|_| rest.checked_eat_u16_le())
            .ok_or(Trouble::Garbage("a success without a status"))?;
        self.status = StatusFlags::from_bits_retain(status);
        Ok(())
    }
}

fn is_end(packet: &[u8]) -> bool {
    packet.len() < 9 && packet.first() == Some(&0xfe)
}

fn row(packet: &[u8]) -> Result<Row, Trouble> {
    const NULL: u8 = 0xfb;
    let mut rest = ParseBuf(packet);
    let mut row = Vec::new();
    while !rest.is_empty() {
        if rest.0.first() == Some(&NULL) {
            rest.skip(1);
            row.push(None);
            continue;
        }
        let value = rest.checked_eat_lenenc_str().ok_or(Trouble::Garbage("a broken row"))?;
        row.push(Some(String::from_utf8_lossy(value).into_owned()));
    }
    Ok(row)
}

fn parsed<'a, T: mysql_common::proto::MyDeserialize<'a, Ctx = ()>>(
    packet: &'a [u8],
    otherwise: &'static str,
) -> Result<T, Trouble> {
    ParseBuf(packet).parse(()).map_err(|_| Trouble::Garbage(otherwise))
}

/// The password for the server's own key, as SHA-2 log-ins want it without
/// TLS: with its NUL, masked by the nonce, RSA-OAEP.
fn sealed(key: &[u8], nonce: &[u8], password: &str) -> Result<Vec<u8>, Trouble> {
    let unusable = || Trouble::Garbage("a public key that cannot be used");
    let key = SubjectPublicKeyInfoDer::from_pem_slice(key).map_err(|_| unusable())?;
    let key = PublicEncryptingKey::from_der(&key).map_err(|_| unusable())?;
    let key = OaepPublicEncryptingKey::new(key).map_err(|_| unusable())?;
    let masked: Zeroizing<Vec<u8>> =
        Zeroizing::new(password.bytes().chain([0]).zip(nonce.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect());
    let mut sealed = vec![0; key.ciphertext_size()];
    let length = key.encrypt(&OAEP_SHA1_MGF1SHA1, &masked, &mut sealed, None).map_err(|_| unusable())?.len();
    sealed.truncate(length);
    Ok(sealed)
}
