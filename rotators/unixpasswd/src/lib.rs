//! Rotates the password of an account of this machine: its own by `passwd`,
//! as root anybody's by `chpasswd`, as somebody else through `su`. PAM decides,
//! and a log-in by `su` proves it.

mod local;

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Deserialize;
use turnlock_kit::dialogue::{self, Dialogue, Program as _, Step, refusal_kind, with_remarks};
use turnlock_kit::{
    Admin, Change, Credential, CredentialState, Done, Fault, Finding, Findings, Kind, MayRotate, PASSWORD, Rotator,
    Secret, Severity, Threshold, Traits, Verdicts,
};
use zeroize::Zeroizing;

use local::{Local, is_root, run};

/// The password of an account of this machine.
#[derive(Debug)]
pub struct UnixPasswd;

/// Which account.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Account {
    /// The account whose password changes.
    pub login: String,
    /// This machine, if anything.
    #[serde(default)]
    pub host: Option<String>,
}

/// How the password can be changed, by who runs this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// As root: `chpasswd`, which asks for nothing.
    Root,
    /// As the account itself: `passwd`.
    Itself,
    /// As somebody else: `su`, and `passwd` behind it.
    Somebody,
}

impl Rotator for UnixPasswd {
    type Account = Account;
    const PLUGIN: &'static str = "unixpasswd";
    const SUMMARY: &'static str = "Rotates the password of an account of this machine.";
    const EXAMPLE_ACCOUNT: &'static str = r#"{"login": "app"}"#;

    fn traits(_account: Option<&Account>) -> Traits {
        Traits { admin_reset: false, needs_current: !is_root(), password: dialogue::limits(), ..Traits::password() }
    }

    async fn check(account: &Account, current: &Credential, admin: Option<&Admin>) -> Result<Findings, Fault> {
        let way = account.way(admin).await?;
        let mut findings = vec![Finding { severity: Severity::Info, message: way.told().to_owned() }];
        let authenticated = match current.get(PASSWORD.name) {
            None if way == Way::Root => false,
            _ => match log_in(account, account.password(current)?).await? {
                LogIn::Accepted => true,
                LogIn::MustChange => {
                    let message = "the password has expired; a rotation renews it".to_owned();
                    findings.push(Finding { severity: Severity::Warning, message });
                    true
                }
                LogIn::Refused(fault) => return Err(fault),
            },
        };
        let server = run("uname", &["-sr"], b"").await.ok();
        Ok(Findings {
            server: server.map(|ran| ran.said().trim().to_owned()),
            tls: None,
            authenticated,
            may_rotate: MayRotate::Yes,
            findings,
        })
    }

    async fn apply(account: &Account, change: &Change, threshold: Threshold) -> Result<Done, Fault> {
        let next = change.next_password()?;
        dialogue::limits_hold(next)?;
        match account.way(change.admin.as_ref()).await? {
            Way::Root => by_chpasswd(account, next, threshold).await,
            Way::Itself => {
                let mut passwd = Local::on_a_terminal("passwd", &[], false)?;
                let current = account.password(&change.current)?;
                dialogue::change(&mut passwd, current, next, threshold, &account.who()).await
            }
            Way::Somebody => {
                let mut su = Local::on_a_terminal("su", &["-c", "passwd", "--", &account.login], false)?;
                let current = account.password(&change.current)?;
                dialogue::change(&mut su, current, next, threshold, &account.who()).await
            }
        }
    }

    async fn verify(account: &Account, credential: &Credential, _admin: Option<&Admin>) -> Result<Verdicts, Fault> {
        account.way(None).await?;
        match log_in(account, account.password(credential)?).await? {
            LogIn::Accepted => Ok(Verdicts::accepted()),
            LogIn::MustChange => Ok(Verdicts::accepted_but(CredentialState::MustChange)),
            LogIn::Refused(fault) if fault.kind == Kind::Authentication => Ok(Verdicts::refused()),
            LogIn::Refused(fault) => Err(fault),
        }
    }
}

/// Changes it as root.
async fn by_chpasswd(account: &Account, next: &Secret, threshold: Threshold) -> Result<Done, Fault> {
    #[expect(clippy::disallowed_methods, reason = "chpasswd reads it from its standard input")]
    let line = Zeroizing::new(format!("{}:{}\n", account.login, next.expose()));
    let before = local::shadow_entry(&account.login).await;
    let crossed = threshold.cross().await?;
    let ran = run("chpasswd", &[], line.as_bytes()).await?;
    if ran.status == Some(0) {
        return Ok(crossed.done());
    }
    let said = ran.said();
    if refusal_kind(&said) != Some(Kind::Policy) || ran.status != Some(1) {
        let fault = Fault::new(Kind::Internal, format!("chpasswd for {} did not end well", account.who()));
        return Err(with_remarks(fault, &said));
    }
    let fault = Fault::new(Kind::Policy, format!("the new password is refused for {}", account.who()));
    let fault = with_remarks(fault, &said);
    // A module behind pam_unix may fail, in the same words, when that has written.
    let unchanged = before.is_some() && before == local::shadow_entry(&account.login).await;
    Err(if unchanged { crossed.definitely_refused(fault) } else { fault })
}

/// What `su` came to.
enum LogIn {
    Accepted,
    MustChange,
    Refused(Fault),
}

/// Logs in by `su`, as nobody where we are root, whom `su` asks for nothing.
async fn log_in(account: &Account, password: &Secret) -> Result<LogIn, Fault> {
    let mut random = [0u8; 16];
    getrandom::fill(&mut random).map_err(|_| Fault::new(Kind::Internal, "the system's source of randomness failed"))?;
    let token: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let command = format!("echo {token}");
    let mut su = Local::on_a_terminal("su", &["-c", &command, "--", &account.login], is_root())?;
    // There is no new password: where one is asked for, the current one was taken.
    let none = Secret::new(String::new());
    let mut dialogue = Dialogue::new(password, &none);
    let mut answered = 0;
    while let Some(heard) = su.hear().await? {
        match dialogue.hear(&heard) {
            Some(Step::Answer(secret)) if answered == 0 => {
                answered += 1;
                su.type_line(secret).await?;
            }
            Some(Step::Answer(_) | Step::Threshold) => return Ok(LogIn::MustChange),
            Some(Step::GiveUp) => break,
            None => {}
        }
    }
    dialogue.end();
    let said = dialogue.remarks();
    match (said.lines().any(|line| line == token), answered) {
        (true, 0) => {
            return Err(Fault::new(
                Kind::Unsupported,
                format!("su lets this program become {} without asking for a password", account.who()),
            )
            .hint("nothing can be proven by such a log-in; see /etc/pam.d/su"));
        }
        (true, _) => return Ok(LogIn::Accepted),
        _ => {}
    }
    let fault = match refusal_kind(said) {
        Some(Kind::LockedOut) => Fault::new(Kind::LockedOut, format!("the account of {} is locked", account.who())),
        Some(Kind::Permission) => Fault::new(Kind::Permission, format!("the account of {} is closed", account.who())),
        // pam_wheel says it of a right password, too.
        Some(Kind::Authentication) if said.to_lowercase().contains("permission denied") => {
            Fault::new(Kind::Unsupported, format!("su lets nobody but some become {}", account.who())).hint(
                "/etc/pam.d/su has a rule such as pam_wheel: except these accounts from it, or use the plugin ssh",
            )
        }
        Some(Kind::Authentication) if answered > 0 => {
            Fault::new(Kind::Authentication, format!("su refused the password of {}", account.who()))
        }
        _ => Fault::new(
            Kind::Unsupported,
            format!("su does not tell whether the password of {} is right", account.who()),
        )
        .hint("an account whose shell runs no commands cannot be asked"),
    };
    Ok(LogIn::Refused(with_remarks(fault, said)))
}

impl Way {
    fn told(self) -> &'static str {
        match self {
            Self::Root => "as root, chpasswd sets the password",
            Self::Itself => "passwd changes the password of the account that runs this",
            Self::Somebody => "su becomes the account, and passwd changes its password",
        }
    }
}

impl Account {
    fn who(&self) -> String {
        format!("\"{}\"", self.login)
    }

    fn password<'a>(&self, credential: &'a Credential) -> Result<&'a Secret, Fault> {
        credential.get(PASSWORD.name).ok_or_else(|| {
            Fault::new(Kind::InvalidInput, format!("there is no password for {}", self.who()))
                .hint("set the record's password, or run as root")
        })
    }

    /// Root's way, unless somebody has locked the password: `chpasswd` would
    /// open the account again.
    async fn unless_locked(&self, way: Way) -> Result<Way, Fault> {
        let told = run("passwd", &["-S", &self.login], b"").await?;
        match told.said().split_whitespace().nth(1) {
            Some("L" | "LK") => Err(Fault::new(Kind::LockedOut, format!("the password of {} is locked", self.who()))
                .hint("a new password would unlock it; if that is wanted: passwd -u, or set a first one by hand")),
            _ => Ok(way),
        }
    }

    /// Which way is ours. Only looks.
    async fn way(&self, admin: Option<&Admin>) -> Result<Way, Fault> {
        if let Some(host) = self.host.as_deref().filter(|host| !is_here(host)) {
            return Err(Fault::new(Kind::InvalidInput, format!("\"{host}\" is not this machine"))
                .hint("the plugin ssh rotates accounts of other machines"));
        }
        if admin.is_some() {
            return Err(Fault::new(Kind::Unsupported, "an account of this machine has no admin but root")
                .hint("run as root, or use the plugin ssh with an admin"));
        }
        if self.login.is_empty() || self.login.starts_with('-') || self.login.contains([':', '\n', '\0', '/']) {
            return Err(Fault::new(Kind::InvalidInput, format!("{} is no login", self.who())));
        }
        let ran = run("id", &["-u", "--", &self.login], b"").await?;
        let said = ran.said();
        // `id` takes a number for a login, `chpasswd` and `su` do not.
        let is_its_name = run("id", &["-un", "--", &self.login], b"").await?.said().trim() == self.login;
        let user: u32 = match (ran.status, said.trim().parse()) {
            (Some(0), Ok(user)) if is_its_name => user,
            _ => return Err(Fault::new(Kind::NotFound, format!("there is no account {}", self.who()))),
        };
        Ok(match rustix::process::getuid().as_raw() {
            _ if is_root() => self.unless_locked(Way::Root).await?,
            own if own == user => Way::Itself,
            _ => Way::Somebody,
        })
    }
}

fn is_here(host: &str) -> bool {
    let own = rustix::system::uname();
    host.is_empty()
        || host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        || own.nodename().to_str().is_ok_and(|name| name.eq_ignore_ascii_case(host))
}
