//! TLS for a driver that judges certificates more simply than every other
//! rotator here: the connection is believed first, by the kit, and the driver
//! gets it as one without encryption. Until version 8 of the protocol the
//! handshake travels in packets, behind a first message in clear (MS-TDS
//! 2.2.6.5, 3.2.5.2); in version 8 TLS comes first.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, copy, copy_bidirectional, duplex};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;

const BUFFER: usize = 16 * 1024;
/// The kind of packet that carries the first message and the handshake. No
/// record of TLS begins with it.
const PRELOGIN: u8 = 0x12;
const HEADER: usize = 8;
/// What the first message says of encryption, and the values that option has.
const ENCRYPTION: u8 = 1;
const ON: u8 = 1;
const NOT_SUPPORTED: u8 = 2;
const REQUIRED: u8 = 3;
const STRICT: u8 = 5;
const END: u8 = 0xff;

/// Makes a connection private, and gives it as one whose driver need not.
///
/// # Errors
/// A TLS error inside where the server is not believed; `Unsupported` where it
/// offers no TLS; `InvalidData` where it does not speak the protocol.
pub(crate) async fn secure(
    mut stream: TcpStream,
    mut config: ClientConfig,
    name: ServerName<'static>,
    strict: bool,
) -> io::Result<DuplexStream> {
    if strict {
        config.alpn_protocols = vec![b"tds/8.0".to_vec()];
        let mut private = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        let answer = first_message(&mut private, STRICT).await?;
        return Ok(introduced(private, answer));
    }
    let answer = first_message(&mut stream, ON).await?;
    if !matches!(encryption(&answer), Some(ON | REQUIRED)) {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "the server offers no TLS"));
    }
    let (near, far) = duplex(BUFFER);
    let (shaken, over) = oneshot::channel();
    tokio::spawn(in_packets(stream, far, over));
    let private = TlsConnector::from(Arc::new(config)).connect(name, near).await?;
    // Whoever carries the bytes is gone if this fails, and so is the connection.
    let _ = shaken.send(());
    Ok(introduced(private, answer))
}

/// Carries bytes between TLS and the wire, in packets while hands are shaken.
async fn in_packets(stream: TcpStream, far: DuplexStream, over: oneshot::Receiver<()>) -> io::Result<()> {
    let (from_wire, to_wire) = stream.into_split();
    let (from_tls, to_tls) = tokio::io::split(far);
    tokio::try_join!(outwards(from_tls, to_wire, over), inwards(from_wire, to_tls)).map(drop)
}

async fn outwards(
    mut from_tls: impl AsyncRead + Unpin,
    mut to_wire: OwnedWriteHalf,
    mut over: oneshot::Receiver<()>,
) -> io::Result<()> {
    let mut part = vec![0; BUFFER / 4];
    loop {
        tokio::select! {
            // First what was written before the end of the handshake was told.
            biased;
            length = from_tls.read(&mut part) => match length? {
                0 => return to_wire.shutdown().await,
                length => to_wire.write_all(&packet(part.get(..length).unwrap_or_default())).await?,
            },
            _ = &mut over => break,
        }
    }
    copy(&mut from_tls, &mut to_wire).await?;
    to_wire.shutdown().await
}

async fn inwards(mut from_wire: OwnedReadHalf, mut to_tls: impl AsyncWrite + Unpin) -> io::Result<()> {
    loop {
        let mut header = [0; HEADER];
        let mut there = from_wire.read(&mut header).await?;
        if there == 0 {
            return to_tls.shutdown().await;
        }
        if header.first() != Some(&PRELOGIN) {
            to_tls.write_all(header.get(..there).unwrap_or_default()).await?;
            break;
        }
        while there < HEADER {
            there += match from_wire.read(header.get_mut(there..).unwrap_or_default()).await? {
                0 => return to_tls.shutdown().await,
                more => more,
            };
        }
        let mut content = (&mut from_wire).take(content_length(header)? as u64);
        copy(&mut content, &mut to_tls).await?;
    }
    copy(&mut from_wire, &mut to_tls).await?;
    to_tls.shutdown().await
}

/// A connection whose first message was exchanged already: the driver's own is
/// swallowed, and answered with what the server said, but of encryption.
fn introduced(mut stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, mut answer: Vec<u8>) -> DuplexStream {
    if let Some(place) = place_of_encryption(&answer).and_then(|place| answer.get_mut(place)) {
        *place = NOT_SUPPORTED;
    }
    let (near, mut far) = duplex(BUFFER);
    tokio::spawn(async move {
        read_packet(&mut far).await?;
        far.write_all(&answer).await?;
        copy_bidirectional(&mut far, &mut stream).await.map(drop)
    });
    near
}

/// Says that we want TLS, and gives the server's answer as a whole packet.
async fn first_message(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), wish: u8) -> io::Result<Vec<u8>> {
    let encryption = [wish];
    // Version, encryption, instance, thread, several result sets.
    let options: [(u8, &[u8]); 5] =
        [(0, &[0, 0, 0, 0, 0, 0]), (ENCRYPTION, &encryption), (2, &[0]), (3, &[0, 0, 0, 0]), (4, &[0])];
    let mut message = Vec::new();
    let mut values = Vec::<u8>::new();
    for (option, value) in options {
        let offset = 5 * options.len() + 1 + values.len();
        message.push(option);
        message.extend(short(offset));
        message.extend(short(value.len()));
        values.extend(value);
    }
    message.push(END);
    message.extend(values);
    stream.write_all(&packet(&message)).await?;
    stream.flush().await?;
    read_packet(stream).await
}

async fn read_packet(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut header = [0; HEADER];
    stream.read_exact(&mut header).await?;
    let mut packet = header.to_vec();
    packet.resize(HEADER + content_length(header)?, 0);
    stream.read_exact(packet.get_mut(HEADER..).unwrap_or_default()).await?;
    Ok(packet)
}

fn packet(content: &[u8]) -> Vec<u8> {
    const LAST: u8 = 1;
    let [high, low] = short(HEADER + content.len());
    [&[PRELOGIN, LAST, high, low, 0, 0, 0, 0], content].concat()
}

fn short(number: usize) -> [u8; 2] {
    u16::try_from(number).unwrap_or(u16::MAX).to_be_bytes()
}

/// How much follows a packet's header.
fn content_length([_, _, high, low, ..]: [u8; HEADER]) -> io::Result<usize> {
    let garbage = || io::Error::new(io::ErrorKind::InvalidData, "the server does not answer like SQL Server");
    usize::from(u16::from_be_bytes([high, low])).checked_sub(HEADER).ok_or_else(garbage)
}

/// Where an answer holds what it says of encryption.
fn place_of_encryption(answer: &[u8]) -> Option<usize> {
    let mut options = answer.get(HEADER..)?.chunks_exact(5).take_while(|option| option.first() != Some(&END));
    let option = options.find(|option| option.first() == Some(&ENCRYPTION))?;
    let [_, high, low, ..] = option else { return None };
    Some(HEADER + usize::from(u16::from_be_bytes([*high, *low])))
}

fn encryption(answer: &[u8]) -> Option<u8> {
    answer.get(place_of_encryption(answer)?).copied()
}
