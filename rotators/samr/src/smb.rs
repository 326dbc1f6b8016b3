//! SMB 3.1.1 over TCP (MS-SMB2), as little of it as leads to a pipe: the newest
//! dialect, which all supported Windows and Samba speak, one cipher, which all
//! of them have, and no message in clear once the keys are there.

use std::io;

use aes::Aes128;
use aes_gcm::aead::AeadInPlace;
use aes_gcm::{Aes128Gcm, KeyInit, Nonce, Tag};
use cmac::{Cmac, Mac};
use hmac::Hmac;
use sha2::{Digest, Sha256, Sha512};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use zeroize::Zeroizing;

pub(crate) const SUCCESS: u32 = 0;
pub(crate) const MORE_PROCESSING_REQUIRED: u32 = 0xc000_0016;
const PENDING: u32 = 0x103;

const NEGOTIATE: u16 = 0;
const SESSION_SETUP: u16 = 1;
const TREE_CONNECT: u16 = 3;
const CREATE: u16 = 5;
const IOCTL: u16 = 11;

const HEADER: usize = 64;
const LONGEST: usize = 1 << 20;
const DIALECT: u16 = 0x0311;
const SIGNING_REQUIRED: u8 = 2;
const ENCRYPTION: u32 = 0x40;
const AES_128_GCM: u16 = 2;
const PIPE_TRANSCEIVE: u32 = 0x0011_c017;

/// A connection. Everything it says and hears before the keys are there goes
/// into a digest that the keys depend on.
pub(crate) struct Connection {
    stream: TcpStream,
    next: u64,
    session: u64,
    tree: u32,
    spoken: [u8; 64],
    keys: Option<Keys>,
}

/// What a session's messages are encrypted with.
struct Keys {
    ours: Aes128Gcm,
    theirs: Aes128Gcm,
    sent: u64,
    /// What is passed on to those who speak through the session.
    application: Zeroizing<[u8; 16]>,
}

/// An answer: its status, and all of it.
pub(crate) struct Answer {
    pub(crate) status: u32,
    message: Vec<u8>,
}

/// An opened pipe.
#[derive(Clone, Copy)]
pub(crate) struct Pipe([u8; 16]);

impl Answer {
    fn body<const N: usize>(&self, offset: usize) -> io::Result<[u8; N]> {
        let place = HEADER + offset;
        let bytes = self.message.get(place..place + N).and_then(|bytes| bytes.try_into().ok());
        bytes.ok_or_else(|| garbage("an answer is too short"))
    }

    /// What a length and an offset in the body point at.
    fn part(&self, offset: usize, length: usize) -> io::Result<&[u8]> {
        let end = offset.checked_add(length);
        end.and_then(|end| self.message.get(offset..end)).ok_or_else(|| garbage("an answer points behind its end"))
    }
}

impl Connection {
    /// Agrees with a server on the dialect and the cipher.
    pub(crate) async fn negotiate(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let mut connection = Self { stream, next: 0, session: 0, tree: 0, spoken: [0; 64], keys: None };
        let mut salt = [0u8; 32];
        let mut name = [0u8; 16];
        let random = getrandom::fill(&mut salt).and_then(|()| getrandom::fill(&mut name));
        random.map_err(|_| io::Error::other("there is no randomness"))?;
        // SHA-512 for what is spoken; the cipher; CMAC for the one signature.
        let digest = [&1u16.to_le_bytes()[..], &32u16.to_le_bytes(), &1u16.to_le_bytes(), &salt].concat();
        let cipher = [1u16.to_le_bytes(), AES_128_GCM.to_le_bytes()].concat();
        let signature = [1u16.to_le_bytes(), 1u16.to_le_bytes()].concat();
        let contexts = [context(1, &digest), context(2, &cipher), context(8, &signature)].concat();
        let offset = (HEADER + 38).next_multiple_of(8);
        let mut body = Vec::new();
        body.extend([36, 0, 1, 0, SIGNING_REQUIRED, 0, 0, 0]);
        body.extend(ENCRYPTION.to_le_bytes());
        body.extend(name);
        body.extend(u32::try_from(offset).unwrap_or_default().to_le_bytes());
        body.extend([3, 0, 0, 0]);
        body.extend(DIALECT.to_le_bytes());
        body.resize(offset - HEADER, 0);
        body.extend(contexts);
        let answer = connection.ask(NEGOTIATE, &body).await?;
        connection.hear(&answer);
        let chosen = u16::from_le_bytes(answer.body(4)?);
        if answer.status != SUCCESS || chosen != DIALECT || connection.cipher(&answer)? != Some(AES_128_GCM) {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "no SMB 3.1.1 with AES-128-GCM"));
        }
        Ok(connection)
    }

    fn cipher(&self, answer: &Answer) -> io::Result<Option<u16>> {
        let mut place = usize::try_from(u32::from_le_bytes(answer.body(60)?)).unwrap_or(usize::MAX);
        for _ in 0..u16::from_le_bytes(answer.body(6)?) {
            let head = answer.part(place, 8)?;
            let length =
                usize::from(u16::from_le_bytes(head.get(2..4).and_then(|two| two.try_into().ok()).unwrap_or_default()));
            if head.first() == Some(&2) {
                let cipher = answer.part(place + 8, 4)?;
                return Ok(cipher.get(2..).and_then(|two| two.try_into().ok()).map(u16::from_le_bytes));
            }
            place = (place + 8 + length).next_multiple_of(8);
        }
        Ok(None)
    }

    /// One step of a log-in: a token there, and one back.
    pub(crate) async fn set_up(&mut self, token: &[u8]) -> io::Result<(u32, Answer)> {
        let length = u16::try_from(token.len()).map_err(io::Error::other)?;
        let mut body = vec![25, 0, 0, SIGNING_REQUIRED];
        body.extend([0; 8]);
        body.extend(88u16.to_le_bytes());
        body.extend(length.to_le_bytes());
        body.extend([0; 8]);
        body.extend(token);
        let answer = self.ask(SESSION_SETUP, &body).await?;
        if answer.status == MORE_PROCESSING_REQUIRED {
            self.hear(&answer);
            self.session = u64::from_le_bytes(answer.part(40, 8)?.try_into().map_err(io::Error::other)?);
        }
        Ok((answer.status, answer))
    }

    /// The token in the answer to a step of a log-in.
    pub(crate) fn token(answer: &Answer) -> io::Result<&[u8]> {
        let number = |at| answer.body(at).map(|two| usize::from(u16::from_le_bytes(two)));
        answer.part(number(4)?, number(6)?)
    }

    /// Ends a log-in that the server took: its last answer has to be signed with
    /// the key, so it knows it, too. From here on all is encrypted.
    pub(crate) fn finish(&mut self, answer: &Answer, key: &[u8; 16]) -> io::Result<()> {
        const NOT_A_SESSION_OF_OURS: u16 = 1 | 2;
        let unproven = |what: &str| io::Error::new(io::ErrorKind::PermissionDenied, what.to_owned());
        if u16::from_le_bytes(answer.body(2)?) & NOT_A_SESSION_OF_OURS != 0 {
            return Err(unproven("it let us in as a guest"));
        }
        let key = |label: &str| derived(key, label, &self.spoken);
        let mut unsigned = answer.message.clone();
        unsigned.get_mut(48..64).ok_or_else(|| garbage("an answer is too short"))?.fill(0);
        let mut mac =
            <Cmac<Aes128> as Mac>::new_from_slice(key("SMBSigningKey").as_slice()).map_err(io::Error::other)?;
        mac.update(&unsigned);
        mac.verify_slice(answer.part(48, 16)?).map_err(|_| unproven("its signature is wrong"))?;
        let cipher = |label| Aes128Gcm::new_from_slice(key(label).as_slice()).map_err(io::Error::other);
        self.keys = Some(Keys {
            ours: cipher("SMBC2SCipherKey")?,
            theirs: cipher("SMBS2CCipherKey")?,
            sent: 0,
            application: key("SMBAppKey"),
        });
        Ok(())
    }

    /// The key for those who speak through the session (MS-SMB2 3.2.4.25).
    pub(crate) fn application_key(&self) -> Option<&[u8; 16]> {
        self.keys.as_ref().map(|keys| &*keys.application)
    }

    /// Enters the share that holds the pipes.
    pub(crate) async fn enter(&mut self, host: &str) -> io::Result<u32> {
        let path: Vec<u8> = format!("\\\\{host}\\IPC$").encode_utf16().flat_map(u16::to_le_bytes).collect();
        let mut body = vec![9, 0, 0, 0, 72, 0];
        body.extend(u16::try_from(path.len()).map_err(io::Error::other)?.to_le_bytes());
        body.extend(path);
        let answer = self.ask(TREE_CONNECT, &body).await?;
        self.tree = u32::from_le_bytes(answer.part(36, 4)?.try_into().map_err(io::Error::other)?);
        Ok(answer.status)
    }

    /// Opens a pipe.
    pub(crate) async fn open(&mut self, name: &str) -> io::Result<Result<Pipe, u32>> {
        const READ_AND_WRITE: u32 = 0x0012_019f;
        const IMPERSONATION: u32 = 2;
        let name: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let mut body = vec![57, 0, 0, 0];
        body.extend(IMPERSONATION.to_le_bytes());
        body.extend([0; 16]);
        // Access, no attributes, shared, only if it is there, no options.
        for number in [READ_AND_WRITE, 0, 7, 1, 0] {
            body.extend(number.to_le_bytes());
        }
        body.extend(120u16.to_le_bytes());
        body.extend(u16::try_from(name.len()).map_err(io::Error::other)?.to_le_bytes());
        body.extend([0; 8]);
        body.extend(name);
        let answer = self.ask(CREATE, &body).await?;
        Ok(if answer.status == SUCCESS { Ok(Pipe(answer.body(64)?)) } else { Err(answer.status) })
    }

    /// Says something into a pipe, and hears what comes back.
    pub(crate) async fn transceive(&mut self, pipe: Pipe, message: &[u8]) -> io::Result<Result<Vec<u8>, u32>> {
        let mut body = Zeroizing::new(vec![57, 0, 0, 0]);
        body.extend(PIPE_TRANSCEIVE.to_le_bytes());
        body.extend(pipe.0);
        body.extend(120u32.to_le_bytes());
        body.extend(u32::try_from(message.len()).map_err(io::Error::other)?.to_le_bytes());
        // Nothing comes back of the input; the longest output; a call to a file system.
        for number in [0u32, 0, 0, 65536, 1, 0] {
            body.extend(number.to_le_bytes());
        }
        body.extend(message);
        let answer = self.ask(IOCTL, &body).await?;
        if answer.status != SUCCESS {
            return Ok(Err(answer.status));
        }
        let number = |at| answer.body(at).map(|four| usize::try_from(u32::from_le_bytes(four)).unwrap_or(usize::MAX));
        answer.part(number(32)?, number(36)?).map(|output| Ok(output.to_vec()))
    }

    fn hear(&mut self, answer: &Answer) {
        self.spoken = digest(&self.spoken, &answer.message);
    }

    async fn ask(&mut self, command: u16, body: &[u8]) -> io::Result<Answer> {
        let number = self.next;
        self.next += 1;
        let mut message = Zeroizing::new(Vec::with_capacity(HEADER + body.len()));
        message.extend([0xfe, b'S', b'M', b'B', 64, 0, u8::from(command != NEGOTIATE), 0, 0, 0, 0, 0]);
        message.extend(command.to_le_bytes());
        message.extend([16, 0]);
        message.extend([0; 8]);
        message.extend(number.to_le_bytes());
        message.extend([0; 4]);
        message.extend(self.tree.to_le_bytes());
        message.extend(self.session.to_le_bytes());
        message.extend([0; 16]);
        message.extend(body);
        match &mut self.keys {
            Some(keys) => {
                let sealed = keys.seal(self.session, &mut message)?;
                self.send(&sealed).await?;
            }
            None => {
                if command == NEGOTIATE || command == SESSION_SETUP {
                    self.spoken = digest(&self.spoken, &message);
                }
                self.send(&message).await?;
            }
        }
        loop {
            let message = self.receive().await?;
            let answer = Answer { status: u32::from_le_bytes(word(&message, 8)?), message };
            if u64::from_le_bytes(word(&answer.message, 24)?) == number && answer.status != PENDING {
                return Ok(answer);
            }
        }
    }

    async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let length = u32::try_from(message.len()).map_err(io::Error::other)?.to_be_bytes();
        self.stream.write_all(&[&length, message].concat()).await
    }

    async fn receive(&mut self) -> io::Result<Vec<u8>> {
        let length = usize::try_from(self.stream.read_u32().await?).unwrap_or(usize::MAX);
        if !(HEADER..=LONGEST).contains(&length) {
            return Err(garbage("a message has no sensible length"));
        }
        let mut message = vec![0; length];
        self.stream.read_exact(&mut message).await?;
        match (&mut self.keys, message.first()) {
            (Some(keys), Some(0xfd)) => keys.unseal(&message),
            (None, Some(0xfe)) => Ok(message),
            _ => Err(garbage("a message is not encrypted as it has to be")),
        }
    }
}

impl Keys {
    /// A message in its envelope (MS-SMB2 2.2.41).
    fn seal(&mut self, session: u64, message: &mut [u8]) -> io::Result<Vec<u8>> {
        self.sent += 1;
        let mut nonce = [0u8; 16];
        nonce.get_mut(..8).unwrap_or_default().copy_from_slice(&self.sent.to_le_bytes());
        let length = u32::try_from(message.len()).map_err(io::Error::other)?;
        let bound = [&nonce[..], &length.to_le_bytes(), &[0, 0, 1, 0], &session.to_le_bytes()].concat();
        let tag = self
            .ours
            .encrypt_in_place_detached(Nonce::from_slice(nonce.get(..12).unwrap_or_default()), &bound, message)
            .map_err(|_| io::Error::other("a message could not be encrypted"))?;
        Ok([&[0xfd, b'S', b'M', b'B'][..], &tag, &bound, message].concat())
    }

    fn unseal(&mut self, envelope: &[u8]) -> io::Result<Vec<u8>> {
        const ENVELOPE: usize = 52;
        let torn = || garbage("an encrypted message was changed on its way");
        let (head, content) = envelope.split_at_checked(ENVELOPE).ok_or_else(torn)?;
        let (tag, bound) = (head.get(4..20).ok_or_else(torn)?, head.get(20..).ok_or_else(torn)?);
        let mut message = content.to_vec();
        let nonce = Nonce::from_slice(bound.get(..12).ok_or_else(torn)?);
        self.theirs.decrypt_in_place_detached(nonce, bound, &mut message, Tag::from_slice(tag)).map_err(|_| torn())?;
        if message.len() < HEADER {
            return Err(torn());
        }
        Ok(message)
    }
}

/// A key for one purpose (MS-SMB2 3.1.4.2; SP 800-108 in counter mode).
fn derived(key: &[u8; 16], label: &str, spoken: &[u8; 64]) -> Zeroizing<[u8; 16]> {
    const BITS: [u8; 4] = 128u32.to_be_bytes();
    let mut out = Zeroizing::new([0; 16]);
    if let Ok(mut mac) = <Hmac<Sha256> as Mac>::new_from_slice(key) {
        for part in [&1u32.to_be_bytes()[..], label.as_bytes(), &[0, 0], spoken, &BITS] {
            mac.update(part);
        }
        out.iter_mut().zip(mac.finalize().into_bytes()).for_each(|(out, byte)| *out = byte);
    }
    out
}

fn digest(before: &[u8; 64], message: &[u8]) -> [u8; 64] {
    Sha512::new_with_prefix(before).chain_update(message).finalize().into()
}

/// A context of the negotiation, filled up to eight bytes.
fn context(kind: u16, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap_or_default();
    let mut out = [&kind.to_le_bytes()[..], &length.to_le_bytes(), &[0; 4], data].concat();
    out.resize(out.len().next_multiple_of(8), 0);
    out
}

fn word<const N: usize>(message: &[u8], at: usize) -> io::Result<[u8; N]> {
    message.get(at..at + N).and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| garbage("a message is too short"))
}

fn garbage(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}
