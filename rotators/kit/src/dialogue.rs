//! What programs that change a password ask, in the locale `C`, and what to
//! answer: `passwd`, `su`, `sudo` and PAM's own conversations alike.
//!
//! There is no input and no output here. A rotator hands in what it heard on a
//! terminal, a pipe or an SSH channel, and gets what to type. Whether a change
//! worked is never read from text: that is said by an exit status, and proven
//! by a log-in.

use turnlock_protocol::{Fault, Kind, PasswordLimits, Secret};

use crate::threshold::{Done, Threshold};

/// A program that asks, wherever it runs.
#[expect(async_fn_in_trait, reason = "a rotator runs on one thread; no caller needs Send")]
pub trait Program {
    /// Waits for something it writes; nothing means that it has ended.
    async fn hear(&mut self) -> Result<Option<Vec<u8>>, Fault>;
    /// Gives it one line.
    async fn type_line(&mut self, secret: &Secret) -> Result<(), Fault>;
    /// Its exit status; nothing while it runs, and when a signal ended it.
    fn status(&self) -> Option<u32>;
}

/// Changes a password through `passwd`, or a program that asks like it. That
/// the current one is right is known when the new one is asked for: only then
/// the permit is asked for, too. `who` names the account for people.
///
/// # Errors
/// `policy` when the new secret was refused, in the program's own words, and
/// what else these words tell; a definite refusal where it asked for another
/// one, or gave its reason and ended with a failure before it wanted it repeated
/// (passwd(1), PAM).
pub async fn change(
    program: &mut impl Program,
    current: &Secret,
    next: &Secret,
    threshold: Threshold,
    who: &str,
) -> Result<Done, Fault> {
    let mut dialogue = Dialogue::new(current, next);
    let mut threshold = Some(threshold);
    let mut crossed = None;
    while let Some(heard) = program.hear().await? {
        match dialogue.hear(&heard) {
            None => {}
            Some(Step::Answer(secret)) => program.type_line(secret).await?,
            Some(Step::Threshold) => {
                if let Some(threshold) = threshold.take() {
                    crossed = Some(threshold.cross().await?);
                }
                program.type_line(dialogue.permit()).await?;
            }
            Some(Step::GiveUp) => break,
        }
    }
    dialogue.end();
    let (said, status) = (dialogue.remarks(), program.status());
    match (crossed, dialogue.stopped()) {
        (Some(crossed), Stopped::AfterTheNew) if status == Some(0) => Ok(crossed.done()),
        (Some(crossed), stopped) => {
            let is_policy = refusal_kind(said) == Some(Kind::Policy);
            let ended_badly = status.is_some_and(|status| status != 0);
            let fault = if is_policy || stopped == Stopped::AtTheNew {
                Fault::new(Kind::Policy, format!("the new password is refused for {who}"))
            } else {
                Fault::new(Kind::Internal, format!("passwd of {who} did not end well"))
            };
            let fault = with_remarks(fault, said);
            // Who was not asked to repeat it has not got it yet. What comes later may fail
            // in one module after another has written, whatever the words are.
            let definite =
                stopped == Stopped::AtTheNew || (is_policy && ended_badly && !dialogue.was_asked(Question::Again));
            Err(if definite { crossed.definitely_refused(fault) } else { fault })
        }
        (None, _) => Err(with_remarks(not_begun(who, said, status), said)),
    }
}

/// It never asked for the new one.
fn not_begun(who: &str, said: &str, status: Option<u32>) -> Fault {
    match (refusal_kind(said), status) {
        (_, Some(126 | 127)) => Fault::new(Kind::Unsupported, format!("there is no passwd for {who}")),
        (Some(Kind::Policy), _) => Fault::new(Kind::Policy, format!("{who} may not change its password now")),
        (Some(Kind::LockedOut), _) => Fault::new(Kind::LockedOut, format!("the account of {who} is locked")),
        (Some(Kind::Permission), _) => Fault::new(Kind::Permission, format!("the account of {who} is closed")),
        (Some(kind), _) => Fault::new(kind, format!("the current password of {who} is refused")),
        (None, _) => Fault::new(Kind::Unsupported, format!("passwd of {who} asks nothing that is understood"))
            .hint("a forced command or an unusual passwd cannot be spoken with"),
    }
}

/// A fault with a program's own words as its causes.
#[must_use]
pub fn with_remarks(mut fault: Fault, said: &str) -> Fault {
    fault.causes.extend(said.lines().map(str::to_owned));
    fault
}

/// What a password typed at a terminal can be: PAM takes 511 bytes, `chpasswd`
/// a line, and terminals have their own ideas about control characters.
pub fn limits() -> PasswordLimits {
    let forbidden = (0..0x20u8).chain([0x7f]).map(char::from).filter(|character| *character != '\t').collect();
    PasswordLimits { min_length: Some(1), max_length: Some(127), forbidden }
}

/// The same for a secret that did not come from our generator.
///
/// # Errors
/// `invalid_input` when it cannot be typed.
pub fn limits_hold(next: &Secret) -> Result<(), Fault> {
    #[expect(clippy::disallowed_methods, reason = "its characters are looked at before a program sees them")]
    let next = next.expose();
    let forbidden = limits().forbidden;
    if next.is_empty() || next.len() > 511 || next.chars().any(|character| forbidden.contains(character)) {
        return Err(Fault::new(
            Kind::InvalidInput,
            "the new password is empty, longer than 511 bytes, or has control characters, which no terminal takes",
        ));
    }
    Ok(())
}

/// What a program asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// A password, without saying which: who is there?
    Password,
    /// The password that is to be replaced.
    Current,
    /// The one that replaces it.
    New,
    /// The new one once more.
    Again,
}

impl Question {
    /// Understands a prompt. Nothing where it asks for anything but a
    /// password, such as a code, which no password may be shown to.
    pub fn read(prompt: &str) -> Option<Self> {
        let prompt = prompt.trim().trim_end_matches(':').to_lowercase();
        // Names can be any word: "newton's Password", "(app@new.example.com) Password".
        let parts = prompt.split_whitespace().filter(|part| !part.contains('@') && !part.ends_with("'s"));
        let words: Vec<&str> = parts.flat_map(|part| part.split(|letter: char| !letter.is_alphanumeric())).collect();
        let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        let noun = words.iter().position(|word| ["password", "passphrase", "passwort"].contains(word));
        let (before, after) = words.split_at_checked(noun.map_or(words.len(), |noun| noun + 1))?;
        let has = |wanted: &[&str]| before.iter().any(|word| wanted.contains(word));
        let re = |verb: &str| before.windows(2).any(|two| two == ["re", verb]);
        // "password for newton" ends in a name; a sentence goes on otherwise.
        let ends = after.is_empty() || after == ["again"] || after.first() == Some(&"for");
        if !(noun.is_some() && ends || before == ["enter", "it", "again"]) || has(NO_PASSWORD) {
            return None;
        }
        let again = has(&["again", "retype", "reenter", "repeat", "confirm", "verify"]) || re("type") || re("enter");
        Some(if again || after == ["again"] {
            Self::Again
        } else if has(&["new"]) {
            Self::New
        } else if has(&["current", "old", "existing"]) {
            Self::Current
        } else {
            Self::Password
        })
    }
}

/// A prompt with one of these asks for a second factor, or is the begin of a
/// remark ("BAD PASSWORD: …").
const NO_PASSWORD: &[&str] = &["one", "otp", "oath", "token", "code", "pin", "challenge", "bad", "weak"];

/// What to do next.
#[derive(Debug)]
pub enum Step<'a> {
    /// Type this, and a newline.
    Answer(&'a Secret),
    /// The program wants the new secret for the first time: it took the
    /// current one. [`Dialogue::permit`] comes before the answer.
    Threshold,
    /// End the program: it asks the same again.
    GiveUp,
}

/// Why a dialogue did not come to its end, as far as its questions tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// It never asked for the new secret: what came before was refused.
    BeforeTheNew,
    /// It asked for another new secret: this one was refused.
    AtTheNew,
    /// It was given the new secret, and said nothing against it.
    AfterTheNew,
}

/// More than this nobody reads.
const REMARKS: usize = 4_000;
/// A line that is longer is no prompt.
const PROMPT: usize = 300;

/// One program's questions and our answers.
pub struct Dialogue<'a> {
    current: &'a Secret,
    next: &'a Secret,
    /// The unfinished line.
    line: Vec<u8>,
    /// Whether an escape sequence is being read.
    escape: Escape,
    remarks: String,
    asked: [u8; 4],
    permitted: bool,
    over: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escape {
    None,
    Begun,
    Inside,
}

impl<'a> Dialogue<'a> {
    /// A dialogue in which `next` replaces `current`.
    pub fn new(current: &'a Secret, next: &'a Secret) -> Self {
        Self {
            current,
            next,
            line: Vec::new(),
            escape: Escape::None,
            remarks: String::new(),
            asked: [0; 4],
            permitted: false,
            over: false,
        }
    }

    /// Takes what the program wrote, and tells what to do. The bytes may come
    /// in any pieces; after an answer the program is heard again.
    pub fn hear(&mut self, bytes: &[u8]) -> Option<Step<'a>> {
        for byte in bytes {
            self.take(*byte);
        }
        if self.over {
            return None;
        }
        // What is not understood may go on; who never gets an answer ends by the deadline.
        let question = Question::read(&self.prompt()?)?;
        self.line.clear();
        let asked = self.asked.get_mut(question as usize)?;
        *asked += 1;
        // `su` asks for the password, and `passwd` behind it once more.
        let often = *asked > 1 || (question == Question::Password && self.was_asked(Question::New));
        match question {
            _ if often => self.give_up(),
            Question::Password | Question::Current => Some(Step::Answer(self.current)),
            Question::New if self.permitted => Some(Step::Answer(self.next)),
            Question::New => Some(Step::Threshold),
            Question::Again if self.permitted => Some(Step::Answer(self.next)),
            Question::Again => self.give_up(),
        }
    }

    /// The permit was given: the answer to the question that waits for it.
    pub fn permit(&mut self) -> &'a Secret {
        self.permitted = true;
        self.next
    }

    /// How far it came.
    pub fn stopped(&self) -> Stopped {
        match self.asked.get(Question::New as usize) {
            None | Some(0) => Stopped::BeforeTheNew,
            Some(1) if self.permitted => Stopped::AfterTheNew,
            Some(1) => Stopped::BeforeTheNew,
            Some(_) => Stopped::AtTheNew,
        }
    }

    /// What the program said besides its questions, a line each.
    pub fn remarks(&self) -> &str {
        &self.remarks
    }

    /// The program has ended: what it said last counts, too.
    pub fn end(&mut self) {
        let last = self.text();
        self.line.clear();
        self.remark(&last);
    }

    fn was_asked(&self, question: Question) -> bool {
        self.asked.get(question as usize).is_some_and(|count| *count > 0)
    }

    fn give_up(&mut self) -> Option<Step<'a>> {
        self.over = true;
        Some(Step::GiveUp)
    }

    fn take(&mut self, byte: u8) {
        match (self.escape, byte) {
            (Escape::None, 0x1b) => self.escape = Escape::Begun,
            (Escape::Begun, b'[') => self.escape = Escape::Inside,
            (Escape::Begun, _) => self.escape = Escape::None,
            (Escape::Inside, 0x40..=0x7e) => self.escape = Escape::None,
            (Escape::Inside, _) => {}
            (Escape::None, b'\n') => {
                let line = self.text();
                self.line.clear();
                self.remark(&line);
            }
            (Escape::None, b'\r' | 0x07 | 0x08 | 0) => {}
            (Escape::None, byte) if self.line.len() < REMARKS => self.line.push(byte),
            _ => {}
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.line).into_owned()
    }

    /// The unfinished line, if it is one.
    fn prompt(&self) -> Option<String> {
        let text = self.text();
        (text.len() <= PROMPT && text.trim_end().ends_with(':')).then_some(text)
    }

    /// Keeps a line for people, unless it repeats a secret.
    fn remark(&mut self, line: &str) {
        let line = line.trim();
        #[expect(clippy::disallowed_methods, reason = "a line that echoes a secret must not be kept")]
        let echoes =
            [self.current, self.next].iter().any(|secret| !secret.is_empty() && line.contains(secret.expose()));
        if line.is_empty() || echoes || line.len() >= REMARKS {
            return;
        }
        self.remarks.push_str(line);
        self.remarks.push('\n');
        // A reason is told last, behind whatever greeting there is.
        while self.remarks.len() > REMARKS {
            let first = self.remarks.find('\n').map_or(self.remarks.len(), |end| end + 1);
            self.remarks.drain(..first);
        }
    }
}

/// What kind of refusal a program's own words tell of, where they tell it.
/// They refine an error that is known from elsewhere.
pub fn refusal_kind(said: &str) -> Option<Kind> {
    let said = said.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if has(LOCKED) {
        Some(Kind::LockedOut)
    } else if has(CLOSED) {
        Some(Kind::Permission)
    } else if has(POLICY) {
        Some(Kind::Policy)
    } else if has(WRONG) {
        Some(Kind::Authentication)
    } else {
        None
    }
}

const LOCKED: &[&str] =
    &["account is locked", "account locked", "locked due to", "temporarily locked", "too many failed"];
const CLOSED: &[&str] = &[
    "account has expired",
    "account expired",
    "no longer valid",
    "account is disabled",
    "not available",
    "permission denied by pam",
];
/// Words of pam_unix, pam_pwquality, pam_cracklib, pam_pwhistory, BusyBox and the BSDs.
const POLICY: &[&str] = &[
    "bad password",
    "weak password",
    "too short",
    "too simple",
    "too simplistic",
    "too similar",
    "too weak",
    "already used",
    "has been used",
    "has not been changed",
    "longer password",
    "must choose",
    "must wait",
    "wait longer",
    "dictionary",
    "palindrome",
    "similar to the old",
    "contains the user name",
    "contains less than",
    "not enough different",
    "pam_chauthtok() failed",
];
const WRONG: &[&str] = &[
    "authentication failure",
    "authentication token manipulation error",
    "incorrect password",
    "incorrect current password",
    "password incorrect",
    "permission denied",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets() -> (Secret, Secret) {
        (Secret::new("old-canary".to_owned()), Secret::new("new-canary".to_owned()))
    }

    /// Plays what a program writes, each time up to where it waits, and tells what was typed.
    fn play(parts: &[&str], pieces: usize) -> (Vec<&'static str>, Stopped, String) {
        let (old, new) = secrets();
        let mut dialogue = Dialogue::new(&old, &new);
        let mut typed = Vec::new();
        for part in parts {
            for piece in part.as_bytes().chunks(pieces) {
                match dialogue.hear(piece) {
                    Some(Step::Answer(secret)) if secret.same_as(&old) => typed.push("old"),
                    Some(Step::Answer(_)) => typed.push("new"),
                    Some(Step::Threshold) => {
                        typed.push("permit");
                        assert!(dialogue.permit().same_as(&new));
                        typed.push("new");
                    }
                    Some(Step::GiveUp) => typed.push("give up"),
                    None => {}
                }
            }
        }
        dialogue.end();
        (typed, dialogue.stopped(), dialogue.remarks().to_owned())
    }

    const WORDINGS: &[(&str, &[&str])] = &[
        (
            "Debian",
            &[
                "Changing password for app.\r\nCurrent password: ",
                "\r\nNew password: ",
                "\r\nRetype new password: ",
                "\r\npasswd: password updated successfully\r\n",
            ],
        ),
        (
            "RHEL 7",
            &[
                "Changing password for user app.\nChanging password for app.\n(current) UNIX password: ",
                "\nNew password: ",
                "\nRetype new password: ",
                "\npasswd: all authentication tokens updated successfully.\n",
            ],
        ),
        (
            "RHEL 9",
            &[
                "Changing password for user app.\nCurrent password: ",
                "\nNew password: ",
                "\nRetype new password: ",
                "\n",
            ],
        ),
        (
            "Alpine",
            &[
                "Changing password for app\nOld password: ",
                "\nNew password: ",
                "\nRetype password: ",
                "\npasswd: password for app changed by app\n",
            ],
        ),
        (
            "FreeBSD",
            &["Changing local password for app\nOld Password:", "\nNew Password:", "\nRetype New Password:", "\n"],
        ),
        ("macOS", &["Changing password for app.\nOld Password:", "\nNew Password:", "\nRetype New Password:", "\n"]),
        (
            "Solaris",
            &[
                "passwd: Changing password for app\nEnter existing login password: ",
                "\nNew Password: ",
                "\nRe-enter new Password: ",
                "\n",
            ],
        ),
        ("SUSE", &["Changing password for app.\nOld Password: ", "\nNew Password: ", "\nReenter New Password: ", "\n"]),
        (
            "AIX",
            &[
                "Changing password for \"app\"\napp's Old password: ",
                "\napp's New password: ",
                "\nEnter the new password again:",
                "\n",
            ],
        ),
        ("LDAP", &["Enter login(LDAP) password: ", "\nNew password: ", "\nRe-enter new password: ", "\n"]),
        (
            "Kerberos",
            &[
                "Current Kerberos password: ",
                "\nEnter new Kerberos password: ",
                "\nRetype new Kerberos password: ",
                "\n",
            ],
        ),
        (
            "an expired password",
            &[
                "WARNING: Your password has expired.\r\nYou must change your password now and login again!\r\nChanging password for app.\r\nCurrent password: ",
                "\r\nNew password: ",
                "\r\nRetype new password: ",
                "\r\n",
            ],
        ),
        (
            "colours",
            &["\x1b[1mOld password:\x1b[0m ", "\x1b[31m\nNew password:\x1b[0m ", "\nRetype new password: ", "\n"],
        ),
    ];

    #[test]
    fn every_wording_is_understood_in_pieces_of_every_size() {
        for (name, parts) in WORDINGS {
            for pieces in 1..60 {
                let (typed, stopped, _) = play(parts, pieces);
                assert_eq!(typed, ["old", "permit", "new", "new"], "{name} in pieces of {pieces}");
                assert_eq!(stopped, Stopped::AfterTheNew, "{name}");
            }
        }
    }

    #[test]
    fn su_asks_who_is_there_and_passwd_once_more() {
        let (typed, ..) =
            play(&["Password: ", "\nCurrent password: ", "\nNew password: ", "\nRetype new password: ", "\n"], 7);
        assert_eq!(typed, ["old", "old", "permit", "new", "new"]);
    }

    #[test]
    fn the_second_time_is_not_answered() {
        let weak = "\nYou must choose a longer password.\nNew password: ";
        let (typed, stopped, said) =
            play(&["Current password: ", "\nNew password: ", "\nRetype new password: ", weak], 9);
        assert_eq!((typed.last().copied(), stopped), (Some("give up"), Stopped::AtTheNew));
        assert_eq!((said.as_str(), refusal_kind(&said)), ("You must choose a longer password.\n", Some(Kind::Policy)));
        // pam_pwquality says it before it asks for a repetition.
        let bad = "\nBAD PASSWORD: The password is shorter than 8 characters\nNew password: ";
        let (typed, stopped, said) = play(&["Current password: ", "\nNew password: ", bad], 9);
        assert_eq!((typed, stopped), (vec!["old", "permit", "new", "give up"], Stopped::AtTheNew));
        assert_eq!(refusal_kind(&said), Some(Kind::Policy));
        let (typed, stopped, _) = play(&["Current password: ", "\nCurrent password: "], 9);
        assert_eq!((typed, stopped), (vec!["old", "give up"], Stopped::BeforeTheNew));
    }

    #[test]
    fn what_is_no_prompt_is_not_answered() {
        let (typed, stopped, said) =
            play(&["The new password: it must be long\nmotd: read /etc/motd\nold-canary\nEnter a token code: "], 500);
        assert_eq!((typed, stopped), (vec![], Stopped::BeforeTheNew));
        assert!(said.contains("it must be long") && said.contains("token code") && !said.contains("canary"), "{said}");
        assert_eq!(play(&["Retype new password: "], 5).0, ["give up"]);
    }

    #[test]
    fn a_program_that_never_stops_fills_no_memory() {
        let (old, new) = secrets();
        let mut dialogue = Dialogue::new(&old, &new);
        for _ in 0..10_000 {
            assert!(dialogue.hear(b"x y z ".repeat(100).as_slice()).is_none());
            assert!(dialogue.hear(b"\nno end\n").is_none());
        }
        dialogue.end();
        assert!(dialogue.remarks().len() <= REMARKS && dialogue.line.len() <= REMARKS);
    }

    #[test]
    fn refusals_are_told_apart() {
        for (said, kind) in [
            ("The account is locked due to 3 failed logins.\n(10 minutes left to unlock)", Some(Kind::LockedOut)),
            ("Your account has expired; please contact your system administrator.", Some(Kind::Permission)),
            ("Password has been already used. Choose another.", Some(Kind::Policy)),
            ("You must wait longer to change your password.", Some(Kind::Policy)),
            ("The password has not been changed.", Some(Kind::Policy)),
            ("passwd: Authentication token manipulation error\npasswd: password unchanged", Some(Kind::Authentication)),
            ("passwd: Authentication token manipulation error", Some(Kind::Authentication)),
            ("su: Authentication failure", Some(Kind::Authentication)),
            ("", None),
            ("Welcome to Debian", None),
        ] {
            assert_eq!(refusal_kind(said), kind, "{said}");
        }
    }

    /// A program that counts a wrong code locks; one that is told a password keeps it.
    #[test]
    fn who_asks_for_something_else_is_told_no_password() {
        for prompt in [
            "then enter the new tokencode: ",
            "Enter a new PIN: ",
            "One-time password (OATH) for `app': ",
            "Passcode or option (1-3): ",
            "Enter PASSCODE: ",
            "Verification code: ",
            "You have 3 new messages:",
            "BAD PASSWORD:",
            "New Password Requirements:",
            "Please confirm (yes/no): ",
            "Try again: ",
        ] {
            assert_eq!(Question::read(prompt), None, "{prompt}");
        }
    }

    #[test]
    fn a_name_in_a_prompt_is_only_a_name() {
        for (prompt, question) in [
            ("newton's Old password: ", Question::Current),
            ("newton's New password: ", Question::New),
            ("new's Password: ", Question::Password),
            ("Password for golden@EXAMPLE.COM: ", Question::Password),
            ("[sudo] password for arnold: ", Question::Password),
            ("[sudo] password for again: ", Question::Password),
            ("(verify@old.example.com) Password: ", Question::Password),
            ("Enter it again: ", Question::Again),
            ("New password again: ", Question::Again),
        ] {
            assert_eq!(Question::read(prompt), Some(question), "{prompt}");
        }
    }

    #[test]
    fn a_reason_is_heard_behind_a_long_greeting() {
        let greeting = "a line of a long greeting\n".repeat(1000);
        let bad = "\nBAD PASSWORD: it is too short\nNew password: ";
        let (_, stopped, said) = play(&[&greeting, "Current password: ", "\nNew password: ", bad], 500);
        assert_eq!((stopped, refusal_kind(&said)), (Stopped::AtTheNew, Some(Kind::Policy)));
        assert!(said.len() <= REMARKS);
    }
}
