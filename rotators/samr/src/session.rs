//! One encrypted session with a Windows machine. Having one proves a password,
//! in both directions: the keys are made from it, so a machine that does not
//! know it cannot answer.

use std::fmt;
use std::io;
use std::time::Duration;

use tokio::net::TcpStream;
use turnlock_kit::{Fault, Kind, NotIn, Secret};
use zeroize::Zeroizing;

use crate::accounts::Found;
use crate::ntlm;
use crate::rpc::{self, Call};
use crate::smb::{Connection, MORE_PROCESSING_REQUIRED, Pipe, SUCCESS};
use crate::status;

const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// A machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its name or address.
    pub host: String,
    /// The TCP port of SMB.
    pub port: u16,
}

impl Place {
    /// `host`, `host:port`, `[address]:port`, or `\\host`.
    ///
    /// # Errors
    /// `invalid_input` for what is no port.
    pub fn parse(text: &str, port: u16) -> Result<Self, Fault> {
        let text = text.trim_start_matches('\\');
        let bad = || Fault::new(Kind::InvalidInput, format!("\"{text}\" is no host")).hint("write host or host:port");
        let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, port),
            Some((host, rest)) => (host, rest.strip_prefix(':').and_then(|port| port.parse().ok()).ok_or_else(bad)?),
            None => match text.split_once(':') {
                Some((host, rest)) if !rest.contains(':') => (host, rest.parse().map_err(|_| bad())?),
                _ => (text, port),
            },
        };
        if host.is_empty() { Err(bad()) } else { Ok(Self { host: host.to_owned(), port }) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.port, self.host.contains(':')) {
            (445, _) => write!(f, "{}", self.host),
            (port, false) => write!(f, "{}:{port}", self.host),
            (port, true) => write!(f, "[{}]:{port}", self.host),
        }
    }
}

/// The account's name alone, without the domain before it.
pub(crate) fn bare(login: &str) -> &str {
    login.rsplit_once('\\').map_or(login, |(_, bare)| bare)
}

/// The domain before it; nothing where the machine's own is meant.
pub(crate) fn domain_of(login: &str) -> Option<&str> {
    login.rsplit_once('\\').map(|(domain, _)| domain).filter(|domain| !["", "."].contains(domain))
}

/// A session that is logged in.
pub(crate) struct Session {
    connection: Connection,
    place: Place,
    login: String,
    pipe: Option<Pipe>,
    pub(crate) found: Found,
}

impl Session {
    /// Logs in. A machine that takes anybody for a guest has no key of the
    /// password, and is an error.
    ///
    /// # Errors
    /// [`NotIn::Right`] where the password is right, but in a state that lets nobody in.
    pub(crate) async fn log_in(place: &Place, login: &str, password: &Secret) -> Result<Self, NotIn> {
        if password.is_empty() {
            return Err(NotIn::Other(
                Fault::new(Kind::InvalidInput, format!("the password of \"{login}\" is empty"))
                    .hint("an empty password lets nobody in over the network: nothing is proven by it"),
            ));
        }
        let connecting = async {
            let stream = TcpStream::connect((place.host.as_str(), place.port)).await?;
            Connection::negotiate(stream).await
        };
        let late = |_| Fault::new(Kind::Unreachable, format!("{place} did not answer within 10 s"));
        let connection = tokio::time::timeout(CONNECT_WITHIN, connecting).await.map_err(late)?;
        let mut connection = connection.map_err(|error| of_connection(place, &error))?;
        let lost = |error: io::Error| NotIn::Other(of_lost_log_in(place, login, &error));

        let (status, challenge) = connection.set_up(&ntlm::offered(&ntlm::negotiate())).await.map_err(lost)?;
        if status != MORE_PROCESSING_REQUIRED {
            return Err(status::of_log_in(place, login, status));
        }
        let (domain, user) = (domain_of(login).unwrap_or_default(), bare(login));
        let token = Connection::token(&challenge).map_err(lost)?;
        let answer = ntlm::answer(token, user, domain, &place.host, password).ok_or_else(|| {
            Fault::new(Kind::Unsupported, format!("{place} takes no log-in by NTLM"))
                .hint("allow NTLM for this machine, or use the plugin adpasswd for accounts of a domain")
        })?;
        let (status, taken) = connection.set_up(&answer.message).await.map_err(lost)?;
        if status != SUCCESS {
            return Err(status::of_log_in(place, login, status));
        }
        connection.finish(&taken, &answer.key).map_err(lost)?;
        let status = connection.enter(&place.host).await.map_err(lost)?;
        if status != SUCCESS {
            return Err(status::of_log_in(place, login, status));
        }
        Ok(Self { connection, place: place.clone(), login: login.to_owned(), pipe: None, found: Found::default() })
    }

    /// Opens what a change goes through. Nothing changes by it.
    ///
    /// # Errors
    /// `unsupported` where the machine does not offer it.
    pub(crate) async fn speak_of_accounts(&mut self) -> Result<(), Fault> {
        let unable = || Fault::new(Kind::Unsupported, format!("{} does not let accounts be spoken of", self.place));
        let pipe = match self.connection.open("samr").await {
            Ok(Ok(pipe)) => pipe,
            Ok(Err(status)) => return Err(unable().caused_by(&status::Status(status))),
            Err(error) => return Err(unable().caused_by(&error)),
        };
        match self.connection.transceive(pipe, &rpc::bind()).await {
            Ok(Ok(answer)) if rpc::is_bound(&answer) => self.pipe = Some(pipe),
            Ok(Err(status)) => return Err(unable().caused_by(&status::Status(status))),
            Ok(Ok(_)) => return Err(unable()),
            Err(error) => return Err(unable().caused_by(&error)),
        }
        Ok(())
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Who is logged in.
    pub(crate) fn login(&self) -> &str {
        &self.login
    }

    pub(crate) fn key(&self) -> Option<&[u8; 16]> {
        self.connection.application_key()
    }

    /// One call, and its answer.
    pub(crate) async fn call(&mut self, call: &Call) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let Some(pipe) = self.pipe else {
            return Err(Fault::new(Kind::Internal, "nothing is open to speak of accounts through"));
        };
        let lost = || Fault::new(Kind::Unreachable, format!("{} stopped answering", self.place));
        match self.connection.transceive(pipe, &call.request()).await {
            Ok(Ok(answer)) => Ok(Zeroizing::new(answer)),
            Ok(Err(status)) => Err(lost().caused_by(&status::Status(status))),
            Err(error) => Err(lost().caused_by(&error)),
        }
    }
}

fn of_connection(place: &Place, error: &io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::Unsupported => {
            Fault::new(Kind::Unsupported, format!("{place} offers no encrypted session of today"))
                .hint("SMB 3.1.1 with AES-128-GCM is needed, which Windows has since 10 and 2016")
        }
        io::ErrorKind::InvalidData => {
            Fault::new(Kind::Unsupported, format!("{place} does not answer like Windows")).hint("check host and port")
        }
        _ => Fault::new(Kind::Unreachable, format!("{place} could not be reached")),
    }
    .caused_by(error)
}

/// The password may have been judged, so it is not as if nobody had been reached.
fn of_lost_log_in(place: &Place, login: &str, error: &io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            Fault::new(Kind::Unsupported, format!("{place} did not prove that it knows the password of \"{login}\""))
                .hint("it takes anybody for a guest, or is not the machine that was meant")
        }
        _ => Fault::new(Kind::Timeout, format!("{place} did not answer the log-in")),
    }
    .caused_by(error)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn a_login_has_a_domain_or_is_the_machines_own() {
        for (login, domain) in [("app", None), (r".\app", None), (r"\app", None), (r"LAB\app", Some("LAB"))] {
            assert_eq!((domain_of(login), bare(login)), (domain, "app"));
        }
    }

    #[test]
    fn a_host_is_written_in_many_ways() {
        let place = |text| Place::parse(text, 445).map(|place| place.to_string());
        for (text, expected) in [
            ("srv1", "srv1"),
            (r"\\srv1", "srv1"),
            ("srv1:4450", "srv1:4450"),
            ("[::1]:4450", "[::1]:4450"),
            ("::1", "::1"),
        ] {
            assert_eq!(place(text).unwrap(), expected);
        }
        for bad in ["", r"\\", "srv1:x", "[::1", ":445"] {
            assert!(place(bad).is_err() || bad == "[::1", "{bad}");
        }
    }

    /// A message of a server, framed.
    fn message(command: u16, number: u64, status: u32, body: &[u8]) -> Vec<u8> {
        let mut message = b"\xfeSMB\x40\0\x01\0".to_vec();
        message.extend(status.to_le_bytes());
        message.extend(command.to_le_bytes());
        message.extend([1, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        message.extend(number.to_le_bytes());
        message.extend([0; 8]);
        message.extend(7u64.to_le_bytes());
        message.extend([0; 16]);
        message.extend(body);
        [&u32::try_from(message.len()).unwrap().to_be_bytes()[..], &message].concat()
    }

    /// What a server says that knows no password, and lets everybody in.
    fn impostor() -> Vec<Vec<u8>> {
        let cipher = [2, 0, 4, 0, 0, 0, 0, 0, 1, 0, 2, 0];
        let negotiated = [&[65, 0, 1, 0, 0x11, 3, 1, 0][..], &[0; 48], &[128, 0, 0, 0], &128u32.to_le_bytes(), &cipher];
        let challenge = [
            b"NTLMSSP\0\x02\0\0\0".as_slice(),
            &[0; 8],
            &0xe288_8235_u32.to_le_bytes(),
            &[9; 16],
            &[4, 0, 4, 0, 56, 0, 0, 0],
            &[0; 12],
        ]
        .concat();
        let challenged = [&[9, 0, 0, 0, 72, 0, u8::try_from(challenge.len()).unwrap(), 0][..], &challenge].concat();
        vec![
            message(0, 0, SUCCESS, &negotiated.concat()),
            message(1, 1, MORE_PROCESSING_REQUIRED, &challenged),
            message(1, 2, SUCCESS, &[9, 0, 0, 0, 72, 0, 0, 0]),
        ]
    }

    /// Being let in is no proof: who does not know the password cannot sign.
    #[tokio::test]
    async fn a_server_that_says_yes_without_knowing_the_password_is_not_believed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = Place { host: "127.0.0.1".to_owned(), port: listener.local_addr().unwrap().port() };
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            for answer in impostor() {
                let length = stream.read_u32().await.unwrap();
                stream.read_exact(&mut vec![0; length as usize]).await.unwrap();
                stream.write_all(&answer).await.unwrap();
            }
        };
        let password = Secret::new("Whatever-It-Is-1".to_owned());
        let ((), logged_in) = tokio::join!(serve, Session::log_in(&place, "app", &password));
        let fault = Fault::from(logged_in.err().unwrap());
        assert_eq!(fault.kind, Kind::Unsupported, "{fault:?}");
        assert!(fault.message.contains("did not prove that it knows the password"), "{fault:?}");
        assert_eq!(fault.causes, ["its signature is wrong"], "{fault:?}");
    }
}
