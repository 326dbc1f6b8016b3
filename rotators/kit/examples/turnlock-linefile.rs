//! Rotates a password in a file of lines `login:password`, as small servers have one.

use std::{fs, io::Write, path::PathBuf, process::ExitCode};

use schemars::JsonSchema;
use serde::Deserialize;
use turnlock_kit::{
    Admin, Change, Credential, Done, Fault, Findings, Kind, MayRotate, Rotator, Secret, Threshold, Traits, Verdicts,
};

fn main() -> ExitCode {
    turnlock_kit::run::<Linefile>()
}

struct Linefile;

/// What a record may say: `cmdr:file`, and its login.
#[derive(Deserialize, JsonSchema)]
struct Account {
    /// The file of lines `login:password`.
    file: PathBuf,
    /// The account.
    login: String,
}

impl Rotator for Linefile {
    type Account = Account;
    const PLUGIN: &'static str = "linefile";
    const SUMMARY: &'static str = "Rotates a password in a file of lines `login:password`.";
    const EXAMPLE_ACCOUNT: &'static str = r#"{"file": "/etc/server/users", "login": "app"}"#;

    /// A password that the host makes, and nobody can reset without it.
    fn traits(_account: Option<&Account>) -> Traits {
        Traits { admin_reset: false, ..Traits::password() }
    }

    async fn check(account: &Account, current: &Credential, _admin: Option<&Admin>) -> Result<Findings, Fault> {
        let authenticated = account.accepts(current)?;
        let may_rotate = if authenticated { MayRotate::Yes } else { MayRotate::No };
        Ok(Findings { authenticated, may_rotate, ..Findings::default() })
    }

    async fn apply(account: &Account, change: &Change, threshold: Threshold) -> Result<Done, Fault> {
        if !account.accepts(&change.current)? {
            return Err(Fault::new(
                Kind::Authentication,
                format!("the file has another password for {}", account.login),
            )
            .hint("correct the password in the record"));
        }
        let text = account.text_with(change.next_password()?)?;
        // Up to here nothing has changed; without a permit nothing will.
        let crossed = threshold.cross().await?;
        account.replace(&text)?;
        Ok(crossed.done())
    }

    async fn verify(account: &Account, credential: &Credential, _admin: Option<&Admin>) -> Result<Verdicts, Fault> {
        Ok(if account.accepts(credential)? { Verdicts::accepted() } else { Verdicts::refused() })
    }
}

impl Account {
    fn lines(&self) -> Result<Vec<(String, Secret)>, Fault> {
        let text = fs::read_to_string(&self.file).map_err(|error| self.fault("cannot be read", &error))?;
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        Ok(lines.map(|(login, password)| (login.to_owned(), Secret::new(password.to_owned()))).collect())
    }

    /// Refused is what the file says; a file that cannot be read says nothing.
    fn accepts(&self, credential: &Credential) -> Result<bool, Fault> {
        let lines = self.lines()?;
        let Some((_, password)) = lines.iter().find(|(login, _)| *login == self.login) else {
            return Err(Fault::new(Kind::NotFound, format!("{} has no line for {}", self.file.display(), self.login)));
        };
        Ok(credential.get("password").is_some_and(|shown| shown.same_as(password)))
    }

    fn text_with(&self, next: &Secret) -> Result<Vec<u8>, Fault> {
        let mut text = Vec::new();
        for (login, password) in self.lines()? {
            let password = if login == self.login { next } else { &password };
            #[expect(clippy::disallowed_methods, reason = "the file is where the password belongs")]
            let line = format!("{login}:{}\n", password.expose());
            text.extend(line.into_bytes());
        }
        Ok(text)
    }

    /// The old file or the new one, whole, and on the disk when it says so.
    fn replace(&self, text: &[u8]) -> Result<(), Fault> {
        let draft = self.file.with_extension("new");
        // A copy first: it has the old file's mode.
        fs::copy(&self.file, &draft)
            .and_then(|_| fs::File::create(&draft))
            .and_then(|mut file| file.write_all(text).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&draft, &self.file))
            .map_err(|error| self.fault("cannot be written", &error))
    }

    fn fault(&self, what: &str, error: &std::io::Error) -> Fault {
        Fault::new(Kind::Unreachable, format!("{} {what}", self.file.display())).caused_by(error)
    }
}
