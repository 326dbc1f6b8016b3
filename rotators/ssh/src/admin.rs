//! Another's password: `chpasswd` as root, which reads login and password
//! from its standard input.

use turnlock_kit::dialogue::{Program as _, refusal_kind, with_remarks};
use turnlock_kit::{Admin, Done, Fault, Kind, Secret, Threshold};
use turnlock_secureshell::{Ran, Session, Terminal};
use zeroize::Zeroizing;

use crate::{Account, PASSWORD, PRIVATE_KEY, SUDO_PASSWORD};

/// How an admin may run `chpasswd`. Each was tried with nothing to change.
pub(crate) enum Way<'a> {
    /// As root.
    Root,
    /// By `sudo`, without a password.
    Sudo,
    /// By `sudo`, which asks for this one.
    SudoAsks(&'a Secret),
}

/// What `sudo` asks with, so that it is known when it asks again.
const PROMPT: &str = "[turnlock] sudo:";

impl<'a> Way<'a> {
    /// Finds out by running `chpasswd` with nothing to change.
    pub(crate) async fn find(session: &Session, account: &Account, admin: &'a Admin) -> Result<Self, Fault> {
        if account.login.contains([':', '\n', '\0']) {
            return Err(Fault::new(Kind::InvalidInput, format!("\"{}\" is no login of a Unix host", account.login)));
        }
        let id = session.run("LC_ALL=C id -u", b"").await?;
        if id.stdout.trim_ascii() == b"0" {
            let ran = session.run("LC_ALL=C chpasswd", b"").await?;
            return if ran.status == Some(0) { Ok(Self::Root) } else { Err(no_chpasswd(account, &ran)) };
        }
        let free = session.run("LC_ALL=C sudo -k -n chpasswd", b"").await?;
        match (free.status, sudo_password(admin)) {
            (Some(0), _) => Ok(Self::Sudo),
            (Some(127), _) | (_, None) => Err(may_not(account, admin, &free)),
            (_, Some(password)) => {
                let way = Self::SudoAsks(password);
                let ran = way.run(session, b"").await?;
                if ran.status == Some(0) {
                    return Ok(way);
                }
                Err(if asks_again(&ran) {
                    Fault::new(
                        Kind::Authentication,
                        format!("sudo refused the password of the admin \"{}\"", admin.login),
                    )
                    .hint("correct sudo_password, or the password, of the admin's record")
                } else {
                    may_not(account, admin, &ran)
                })
            }
        }
    }

    /// Runs `chpasswd` with these lines.
    async fn run(&self, session: &Session, lines: &[u8]) -> Result<Ran, Fault> {
        match self {
            Self::Root => session.run("LC_ALL=C exec chpasswd", lines).await,
            Self::Sudo => session.run("LC_ALL=C exec sudo -k -n chpasswd", lines).await,
            Self::SudoAsks(password) => {
                let command = format!("LC_ALL=C exec sudo -k -S -p '{PROMPT}' chpasswd");
                let mut program = session.start(&command, Terminal::None).await?;
                let mut given = false;
                let mut said = Vec::new();
                while let Some(heard) = program.hear().await? {
                    said.extend_from_slice(&heard);
                    let asked = count(&said, PROMPT.as_bytes());
                    if asked == 1 && !given {
                        given = true;
                        program.type_line(password).await?;
                        program.write(lines).await?;
                        program.end_of_input().await?;
                    }
                }
                Ok(program.ran())
            }
        }
    }
}

/// Changes it.
pub(crate) async fn by_chpasswd(
    session: &Session,
    account: &Account,
    admin: &Admin,
    next: &Secret,
    threshold: Threshold,
) -> Result<Done, Fault> {
    let way = Way::find(session, account, admin).await?;
    let known = session.run(&format!("LC_ALL=C id -u -- {}", quoted(&account.login)), b"").await?;
    if known.status != Some(0) {
        let missing = format!("there is no account \"{}\" at {}", account.login, account.host);
        return Err(Fault::new(Kind::NotFound, missing));
    }
    #[expect(clippy::disallowed_methods, reason = "chpasswd reads it from its standard input")]
    let line = Zeroizing::new(format!("{}:{}\n", account.login, next.expose()));
    let crossed = threshold.cross().await?;
    let ran = way.run(session, line.as_bytes()).await?;
    if ran.status == Some(0) {
        return Ok(crossed.done());
    }
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    let who = format!("\"{}\" at {}", account.login, account.host);
    // PAM's modules refuse before pam_unix writes; all other failures may come after it.
    if refusal_kind(&said) == Some(Kind::Policy) && ran.status == Some(1) {
        let fault = Fault::new(Kind::Policy, format!("the host refuses this password for {who}"));
        return Err(crossed.definitely_refused(with_remarks(fault, &said)));
    }
    Err(with_remarks(Fault::new(Kind::Internal, format!("chpasswd for {who} did not end well")), &said))
}

/// What `sudo` asks the admin for. A key's passphrase is no log-in password.
fn sudo_password(admin: &Admin) -> Option<&Secret> {
    let password = admin.credential.get(PASSWORD.name).filter(|_| admin.credential.get(PRIVATE_KEY).is_none());
    admin.credential.get(SUDO_PASSWORD).or(password)
}

fn asks_again(ran: &Ran) -> bool {
    count(&ran.stderr, PROMPT.as_bytes()) > 1
}

fn count(said: &[u8], what: &[u8]) -> usize {
    said.windows(what.len()).filter(|window| *window == what).count()
}

fn may_not(account: &Account, admin: &Admin, ran: &Ran) -> Fault {
    let fault = Fault::new(
        Kind::Permission,
        format!("\"{}\" may not set the password of \"{}\" at {}", admin.login, account.login, account.host),
    )
    .hint("let the admin run chpasswd by sudo, or name root; where sudo asks a password, set sudo_password");
    with_remarks(fault, &String::from_utf8_lossy(&ran.stderr))
}

fn no_chpasswd(account: &Account, ran: &Ran) -> Fault {
    let fault = Fault::new(Kind::Unsupported, format!("{} has no chpasswd", account.host))
        .hint("without chpasswd an admin cannot reset a password; let the account change its own");
    with_remarks(fault, &String::from_utf8_lossy(&ran.stderr))
}

/// A word for the shell, whatever is in it.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_stays_one_word() {
        assert_eq!(quoted("app"), "'app'");
        assert_eq!(quoted("it's; $(reboot) `x` \\"), r"'it'\''s; $(reboot) `x` \'");
    }
}
