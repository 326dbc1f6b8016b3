//! Programs at the other end.

use russh::client::{Handle, Msg};
use russh::{Channel, ChannelMsg, Pty};
use turnlock_kit::{Fault, Kind, Secret, dialogue};

use crate::connection::{Connection, Facts, Judge};

use crate::route::Place;

/// More than this no program has to say to us.
const ENOUGH: usize = 4 << 20;

/// Somebody is logged in.
pub struct Session {
    pub(crate) handle: Handle<Judge>,
    place: Place,
    facts: Facts,
    _through: Option<Box<Session>>,
}

/// What a program left behind.
#[derive(Debug, Default)]
pub struct Ran {
    /// Its exit status; nothing when a signal or the host ended it.
    pub status: Option<u32>,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
}

/// Where a program's questions appear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Terminal {
    /// On a terminal, where the host gives one.
    Wanted,
    /// On its standard streams.
    None,
}

impl Session {
    pub(crate) fn of(connection: Connection) -> Self {
        let Connection { handle, place, facts, through } = connection;
        Self { handle, place, facts, _through: through }
    }

    /// The server's product and version as it told them.
    pub fn server(&self) -> &str {
        &self.facts.server
    }

    /// How the connection is protected and the host believed, for people.
    pub fn protection(&self) -> &str {
        &self.facts.protection
    }

    /// Runs a command with this on its standard input, and waits for its end.
    /// The command is seen by everybody on that host: no secret belongs in it.
    ///
    /// # Errors
    /// `unreachable` when the connection ends first, `unsupported` when the
    /// host starts no programs.
    pub async fn run(&self, command: &str, stdin: &[u8]) -> Result<Ran, Fault> {
        use dialogue::Program as _;
        let mut program = self.start(command, Terminal::None).await?;
        program.write(stdin).await?;
        program.end_of_input().await?;
        while program.hear().await?.is_some() {}
        Ok(program.ran)
    }

    /// Starts a command.
    ///
    /// # Errors
    /// Like [`Session::run`].
    pub async fn start(&self, command: &str, terminal: Terminal) -> Result<Program, Fault> {
        let lost = |error: russh::Error| lost(&self.place, &error);
        let channel = self.handle.channel_open_session().await.map_err(lost)?;
        let mut program = Program { channel, place: self.place.clone(), ran: Ran::default() };
        if terminal == Terminal::Wanted {
            program.channel.request_pty(true, "dumb", 500, 24, 0, 0, MODES).await.map_err(lost)?;
            // A host that gives none gives the standard streams.
            program.granted().await?;
        }
        program.channel.exec(true, command).await.map_err(lost)?;
        if program.granted().await? {
            return Ok(program);
        }
        Err(Fault::new(Kind::Unsupported, format!("{} starts no programs for this account", self.place.host))
            .hint("a forced command or a shell that refuses cannot change a password; name an admin"))
    }
}

/// A terminal that shows nothing it is told, and takes every character but
/// the newline for what it is.
const MODES: &[(Pty, u32)] = &[
    (Pty::ECHO, 0),
    (Pty::ECHOE, 0),
    (Pty::ECHOK, 0),
    (Pty::ECHONL, 0),
    (Pty::ISIG, 0),
    (Pty::IXON, 0),
    (Pty::IXOFF, 0),
    (Pty::IEXTEN, 0),
    (Pty::ICRNL, 0),
    (Pty::INLCR, 0),
    (Pty::OPOST, 0),
    (Pty::VERASE, NO_CHARACTER),
    (Pty::VKILL, NO_CHARACTER),
    (Pty::VEOF, NO_CHARACTER),
    (Pty::VWERASE, NO_CHARACTER),
    (Pty::VLNEXT, NO_CHARACTER),
    (Pty::VREPRINT, NO_CHARACTER),
];

/// RFC 4254, section 8.
const NO_CHARACTER: u32 = 255;

/// A program that runs.
pub struct Program {
    channel: Channel<Msg>,
    place: Place,
    ran: Ran,
}

impl Program {
    /// Gives it bytes.
    ///
    /// # Errors
    /// `unreachable` when the connection has ended.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.channel.data(bytes).await.map_err(|error| lost(&self.place, &error))
    }

    /// Nothing more will come.
    ///
    /// # Errors
    /// `unreachable` when the connection has ended.
    pub async fn end_of_input(&mut self) -> Result<(), Fault> {
        self.channel.eof().await.map_err(|error| lost(&self.place, &error))
    }

    /// What it left behind, as far as it was heard.
    pub fn ran(self) -> Ran {
        self.ran
    }

    /// Waits for the answer to a request. What a program says before counts.
    async fn granted(&mut self) -> Result<bool, Fault> {
        loop {
            match self.channel.wait().await {
                Some(ChannelMsg::Success) => return Ok(true),
                Some(ChannelMsg::Failure) => return Ok(false),
                Some(ChannelMsg::Close) | None => return Err(lost(&self.place, &russh::Error::Disconnect)),
                Some(_) => {}
            }
        }
    }
}

impl dialogue::Program for Program {
    /// On either stream.
    async fn hear(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        loop {
            let data = match self.channel.wait().await {
                Some(ChannelMsg::Data { data }) => {
                    self.ran.stdout.extend_from_slice(&data);
                    data
                }
                Some(ChannelMsg::ExtendedData { data, .. }) => {
                    self.ran.stderr.extend_from_slice(&data);
                    data
                }
                Some(ChannelMsg::ExitStatus { exit_status }) => {
                    self.ran.status = Some(exit_status);
                    continue;
                }
                Some(ChannelMsg::Close) => return Ok(None),
                Some(_) => continue,
                // The host closes a channel whose program has ended; without
                // that nobody knows what became of it.
                None if self.ran.status.is_some() => return Ok(None),
                None => return Err(lost(&self.place, &russh::Error::Disconnect)),
            };
            if self.ran.stdout.len() + self.ran.stderr.len() > ENOUGH {
                return Err(Fault::new(
                    Kind::Unsupported,
                    format!("a program at {} writes without end", self.place.host),
                ));
            }
            return Ok(Some(data.to_vec()));
        }
    }

    async fn type_line(&mut self, secret: &Secret) -> Result<(), Fault> {
        #[expect(clippy::disallowed_methods, reason = "the host is believed, and its program asks for it")]
        let secret = secret.expose();
        self.write(secret.as_bytes()).await?;
        self.write(b"\n").await
    }

    fn status(&self) -> Option<u32> {
        self.ran.status
    }
}

fn lost(place: &Place, error: &russh::Error) -> Fault {
    Fault::new(Kind::Unreachable, format!("{} ended the connection", place.host)).caused_by(error)
}
