//! The log-in: one secret, shown once, and never to a host that did not ask.

use std::sync::Arc;

use russh::MethodKind;
use russh::client::{AuthResult, Handle, KeyboardInteractiveAuthResponse as Reply, Prompt};
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg};
use turnlock_kit::dialogue::{Question, refusal_kind, with_remarks};
use turnlock_kit::{Fault, Kind, Secret};

use crate::connection::{Connection, Judge};
use crate::program::Session;

/// What proves who somebody is.
#[derive(Debug, Clone, Copy)]
pub enum Proof<'a> {
    /// A password.
    Password(&'a Secret),
    /// A private key.
    Key(&'a PrivateKey),
}

/// Why somebody is not in.
pub enum NotIn {
    /// The password is right, and the host wants a new one before it lets
    /// anybody in.
    MustChange(Box<ForcedChange>),
    /// Anything else.
    Fault(Fault),
}

impl NotIn {
    /// The same for callers that cannot change a password.
    pub fn into_fault(self) -> Fault {
        match self {
            Self::Fault(fault) => fault,
            Self::MustChange(change) => Fault::new(
                Kind::Authentication,
                format!("the password of {} is right, but has expired", change.connection.who(&change.login)),
            ),
        }
    }
}

impl From<Fault> for NotIn {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// A log-in's outcome.
pub type LoggedIn = Result<Session, NotIn>;

/// Reads a private key, in any of the usual formats.
///
/// # Errors
/// `invalid_input` when it is none, or the passphrase does not open it.
pub fn private_key(text: &Secret, passphrase: Option<&Secret>) -> Result<PrivateKey, Fault> {
    #[expect(clippy::disallowed_methods, reason = "the key's own format is decoded")]
    let (text, passphrase) = (text.expose(), passphrase.map(Secret::expose));
    // A passphrase that nothing needs is no contradiction.
    russh::keys::decode_secret_key(text, None)
        .or_else(|error| match passphrase {
            Some(passphrase) => russh::keys::decode_secret_key(text, Some(passphrase)),
            None => Err(error),
        })
        .map_err(|error| {
            Fault::new(Kind::InvalidInput, "the private key cannot be read")
                .caused_by(&error)
                .hint("it must be a whole key in OpenSSH or PEM format, and the passphrase the one that opens it")
        })
}

impl Connection {
    /// Logs in. A password goes over keyboard-interactive where that is
    /// offered, because only there the host says why it refuses; it is shown
    /// once, whatever the answer.
    pub async fn log_in(mut self, login: &str, proof: Proof<'_>) -> LoggedIn {
        let offered = match self.handle.authenticate_none(login).await.map_err(|error| self.lost(&error))? {
            AuthResult::Success => {
                return Err(Fault::new(
                    Kind::Unsupported,
                    format!("the host lets {} in without asking for anything", self.who(login)),
                )
                .hint("nothing can be proven by such a log-in; make the host ask for a secret")
                .into());
            }
            AuthResult::Failure { remaining_methods, .. } => remaining_methods,
        };
        let offers = |method| offered.contains(&method);
        match proof {
            Proof::Key(key) if offers(MethodKind::PublicKey) => self.by_key(login, key).await,
            Proof::Password(password) if offers(MethodKind::KeyboardInteractive) => {
                self.by_conversation(login, password).await
            }
            Proof::Password(password) if offers(MethodKind::Password) => self.by_password(login, password).await,
            _ if offered.is_empty() => Err(self.hung_up().into()),
            Proof::Key(_) => Err(self.not_offered("keys", &offered).into()),
            Proof::Password(_) => Err(self.not_offered("passwords", &offered).into()),
        }
    }

    async fn by_password(mut self, login: &str, password: &Secret) -> LoggedIn {
        #[expect(clippy::disallowed_methods, reason = "the host is believed, and asks for it")]
        let password = password.expose();
        let answer = self.handle.authenticate_password(login, password).await;
        self.answered(login, answer)
    }

    async fn by_key(mut self, login: &str, key: &PrivateKey) -> LoggedIn {
        let hash = self.handle.best_supported_rsa_hash().await.map_err(|error| self.lost(&error))?.flatten();
        let key = PrivateKeyWithHashAlg::new(Arc::new(key.clone()), hash);
        let answer = self.handle.authenticate_publickey(login, key).await;
        self.answered(login, answer)
    }

    fn answered(self, login: &str, answer: Result<AuthResult, russh::Error>) -> LoggedIn {
        match answer.map_err(|error| self.lost(&error))? {
            AuthResult::Success => Ok(Session::of(self)),
            // What the library also says when the connection is gone.
            AuthResult::Failure { remaining_methods, .. } if remaining_methods.is_empty() => Err(self.hung_up().into()),
            AuthResult::Failure { partial_success: true, .. } => Err(self.second_factor(login).into()),
            AuthResult::Failure { .. } => Err(self.refused(login, "").into()),
        }
    }

    /// PAM's own conversation. What it says besides its questions tells a
    /// locked or expired account from a wrong password.
    async fn by_conversation(mut self, login: &str, password: &Secret) -> LoggedIn {
        let mut said = String::new();
        let mut shown = false;
        let mut reply = self.handle.authenticate_keyboard_interactive_start(login, None).await;
        loop {
            match reply.map_err(|error| self.lost(&error))? {
                Reply::Success if shown => return Ok(Session::of(self)),
                Reply::Success => {
                    return Err(Fault::new(
                        Kind::Unsupported,
                        format!("the host lets {} in without asking for a password", self.who(login)),
                    )
                    .into());
                }
                Reply::Failure { remaining_methods, .. } if remaining_methods.is_empty() => {
                    return Err(self.hung_up().into());
                }
                Reply::Failure { partial_success: true, .. } => return Err(self.second_factor(login).into()),
                Reply::Failure { .. } => return Err(self.refused(login, &said).into()),
                Reply::InfoRequest { name, instructions, prompts } => {
                    remember(&mut said, &[&name, &instructions], &prompts);
                    if shown && matches!(asked(&prompts), Some(Question::Current | Question::New)) {
                        let change = ForcedChange { connection: self, login: login.to_owned(), said, prompts };
                        return Err(NotIn::MustChange(Box::new(change)));
                    }
                    let answers = match prompts.as_slice() {
                        [] => Vec::new(),
                        // A code is not a password: it must not see one.
                        [_one] if !shown && matches!(asked(&prompts), Some(Question::Password | Question::Current)) => {
                            shown = true;
                            vec![in_clear(password)]
                        }
                        // Asked for again: the first one was wrong.
                        [_one] if shown && asked(&prompts) == Some(Question::Password) => {
                            return Err(self.refused(login, &said).into());
                        }
                        _ => return Err(self.second_factor(login).into()),
                    };
                    reply = self.handle.authenticate_keyboard_interactive_respond(answers).await;
                }
            }
        }
    }

    pub(crate) fn who(&self, login: &str) -> String {
        format!("\"{login}\" at {}", self.place.host)
    }

    fn refused(&self, login: &str, said: &str) -> Fault {
        let who = self.who(login);
        let fault = match refusal_kind(said) {
            Some(Kind::LockedOut) => Fault::new(Kind::LockedOut, format!("the account of {who} is locked")),
            Some(Kind::Permission) => Fault::new(Kind::Permission, format!("the account of {who} may not log in")),
            _ => Fault::new(Kind::Authentication, format!("the host refused the log-in of {who}")),
        };
        with_remarks(fault, said)
    }

    fn second_factor(&self, login: &str) -> Fault {
        Fault::new(Kind::Unsupported, format!("the host wants more than one secret from {}", self.who(login)))
            .hint("a log-in with a second factor cannot be done by a program; exempt the account, or use an admin")
    }

    fn not_offered(&self, what: &str, offered: &[MethodKind]) -> Fault {
        let offered: Vec<String> = offered.iter().map(String::from).collect();
        Fault::new(
            Kind::Unsupported,
            format!("{} lets nobody log in with {what}; it offers {}", self.place.host, offered.join(", ")),
        )
    }

    fn hung_up(&self) -> Fault {
        Fault::new(Kind::Unreachable, format!("{} ended the connection during the log-in", self.place.host))
    }

    fn lost(&self, error: &russh::Error) -> Fault {
        self.hung_up().caused_by(error)
    }
}

/// A log-in at which the host wants a new password now.
pub struct ForcedChange {
    connection: Connection,
    login: String,
    said: String,
    prompts: Vec<Prompt>,
}

impl ForcedChange {
    /// The server's product and version as it told them.
    pub fn server(&self) -> &str {
        &self.connection.facts.server
    }

    /// How the connection is protected and the host believed, for people.
    pub fn protection(&self) -> &str {
        &self.connection.facts.protection
    }

    /// Goes on until the host asks for the new password: the current one is
    /// given where it is asked for once more.
    ///
    /// # Errors
    /// What the host refuses it with. Nothing has changed.
    pub async fn until_it_asks_for_the_new_one(mut self, current: &Secret) -> Result<Self, Fault> {
        let mut given = false;
        loop {
            match asked(&self.prompts) {
                Some(Question::New) => return Ok(self),
                Some(Question::Current | Question::Password) if !given => {
                    given = true;
                    self = self.answer(vec![in_clear(current)]).await?.ok_or_else(|| {
                        Fault::new(Kind::Unsupported, "the host let the account in without a new password")
                    })?;
                }
                None if self.prompts.is_empty() => {
                    self = self.answer(Vec::new()).await?.ok_or_else(|| {
                        Fault::new(Kind::Unsupported, "the host let the account in without a new password")
                    })?;
                }
                Some(Question::Current | Question::Password) => {
                    return Err(self.connection.refused(&self.login, &self.said));
                }
                _ => {
                    return Err(Fault::new(
                        Kind::Unsupported,
                        "the host asks something at the log-in that is not known",
                    )
                    .hint(self.prompts.iter().map(|prompt| prompt.prompt.trim()).collect::<Vec<_>>().join(" / ")));
                }
            }
        }
    }

    /// Gives the new password, as often as the host asks to have it repeated.
    ///
    /// # Errors
    /// `policy` with the host's words when it asks for another one; anything
    /// else leaves open what happened.
    pub async fn give(mut self, next: &Secret) -> Result<(), Fault> {
        let mut given = false;
        loop {
            let answers: Vec<String> = match asked(&self.prompts) {
                Some(Question::New) if given => {
                    let fault =
                        Fault::new(Kind::Policy, format!("the host refuses this password for \"{}\"", self.login));
                    return Err(with_remarks(fault, &self.said));
                }
                Some(Question::New | Question::Again) => self.prompts.iter().map(|_| in_clear(next)).collect(),
                None if self.prompts.is_empty() => Vec::new(),
                _ => {
                    return Err(Fault::new(Kind::Internal, "the host asked for something else after the new password"));
                }
            };
            given |= !answers.is_empty();
            match self.answer(answers).await? {
                Some(more) => self = more,
                None => return Ok(()),
            }
        }
    }

    /// Answers; nothing means that the account is in.
    async fn answer(mut self, answers: Vec<String>) -> Result<Option<Self>, Fault> {
        let handle: &mut Handle<Judge> = &mut self.connection.handle;
        let reply = handle.authenticate_keyboard_interactive_respond(answers).await;
        match reply.map_err(|error| self.connection.lost(&error))? {
            Reply::Success => Ok(None),
            Reply::Failure { remaining_methods, .. } if remaining_methods.is_empty() => Err(self.connection.hung_up()),
            Reply::Failure { .. } => Err(self.connection.refused(&self.login, &self.said)),
            Reply::InfoRequest { name, instructions, prompts } => {
                remember(&mut self.said, &[&name, &instructions], &prompts);
                self.prompts = prompts;
                Ok(Some(self))
            }
        }
    }
}

fn in_clear(secret: &Secret) -> String {
    #[expect(clippy::disallowed_methods, reason = "the host is believed, and asks for it")]
    secret.expose().to_owned()
}

/// What the host asks. OpenSSH puts all that PAM says before a prompt into the
/// prompt itself; the question is its last line.
fn asked(prompts: &[Prompt]) -> Option<Question> {
    prompts.first().and_then(|prompt| prompt.prompt.lines().next_back()).and_then(Question::read)
}

/// Keeps what a host says besides its questions, as far as anybody reads it.
fn remember(said: &mut String, texts: &[&str], prompts: &[Prompt]) {
    let lines = texts.iter().flat_map(|text| text.lines());
    let before = prompts.iter().filter_map(|prompt| prompt.prompt.rsplit_once('\n')).flat_map(|(text, _)| text.lines());
    for line in lines.chain(before).map(str::trim).filter(|line| !line.is_empty()) {
        if said.len() + line.len() < 4_000 {
            said.push_str(line);
            said.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(text: &str) -> Vec<Prompt> {
        vec![Prompt { prompt: text.to_owned(), echo: false }]
    }

    #[test]
    fn the_question_is_a_prompts_last_line_and_the_rest_is_kept_for_people() {
        let locked = prompt("The account is locked due to 3 failed logins.\n(10 minutes left)\n(app@web1) Password: ");
        assert_eq!(asked(&locked), Some(Question::Password));
        let mut said = String::new();
        remember(&mut said, &["", "Welcome\r\n"], &locked);
        assert_eq!(said, "Welcome\nThe account is locked due to 3 failed logins.\n(10 minutes left)\n");
        assert_eq!(refusal_kind(&said), Some(Kind::LockedOut));
    }

    /// Whoever asks for a code must not be told the password.
    #[test]
    fn a_question_for_a_code_is_no_question_for_the_password() {
        for text in ["Verification code: ", "(app@web1) One-time code (OATH) for `app': ", "Duo two-factor login", ""] {
            assert_eq!(asked(&prompt(text)), None, "{text}");
        }
        assert_eq!(asked(&prompt("Your old password is about to expire.\nOne-time code: ")), None);
        assert_eq!(asked(&[]), None);
    }
}
