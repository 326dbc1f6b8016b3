//! One server, one vault with records of its accounts, and a proxy before each account.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use fastrand::Rng;
use lab::{
    Canaries, LabError, Output, Proxy, Result, Turnlock,
    interposer::Interposer,
    process,
    shim::{FaultyShim, Shim},
};
use serde_json::json;

use crate::{
    campaign::Broken,
    plan::ACCOUNTS,
    target::{Kind, Target},
};

/// No command has a reason to take longer, whatever fails around it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// What rounds are played on.
pub(crate) struct Lane {
    pub(crate) kind: Kind,
    // Before the target: a connection that still hangs must not hold up its end.
    pub(crate) accounts: Vec<Account>,
    pub(crate) target: Box<dyn Target>,
    pub(crate) turnlock: Turnlock,
    pub(crate) interposer: Interposer,
    pub(crate) rotator: PathBuf,
    pub(crate) faulty: FaultyShim,
    pub(crate) unsynced: Shim,
    program: PathBuf,
    /// Everything that was said where no secret belongs.
    pub(crate) heard: Vec<u8>,
    /// Every secret there ever was.
    pub(crate) secrets: BTreeSet<String>,
}

/// An account, and the way to it.
pub(crate) struct Account {
    pub(crate) login: String,
    pub(crate) proxy: Proxy,
}

impl Lane {
    /// Starts a server and makes a vault with records of its accounts, for this
    /// `turnlock` or the one that was built.
    pub(crate) fn open(kind: Kind, turnlock: Option<&Path>) -> Result<Self> {
        let target = kind.start()?;
        let home = Turnlock::new()?;
        let program = home.own_program(&turnlock.map_or_else(|| lab::bin("turnlock"), |path| Ok(path.to_owned()))?)?;
        let rotator = lab::bin(&format!("turnlock-{}", kind.plugin()))?;
        let interposer = Interposer::beside(&program, &rotator, None)?;
        let mut accounts = Vec::new();
        for number in 0..ACCOUNTS {
            let login = format!("chaos{number:02}");
            accounts.push(Account { login, proxy: Proxy::start(target.address())? });
        }
        let mut lane = Self {
            kind,
            accounts,
            target,
            turnlock: home,
            interposer,
            rotator,
            faulty: FaultyShim::build()?,
            unsynced: Shim::build()?,
            program,
            heard: Vec::new(),
            secrets: BTreeSet::new(),
        };
        lane.furnish()?;
        Ok(lane)
    }

    fn furnish(&mut self) -> Result<()> {
        self.need(&["vault", "init"], "")?;
        let mut records = Vec::new();
        for account in &self.accounts {
            // Not of the campaign's seed: what a lane begins with decides nothing.
            let password = format!("Begin-{}-{:012x}", account.login, Rng::new().u64(..) >> 16);
            self.target.create(&account.login, &password)?;
            let (url, custom) = self.target.record(&account.login, account.proxy.port())?;
            records.push(json!({"title": account.login, "uid": format!("{:A<22}", account.login),
                "login": account.login, "password": password, "login_url": url, "custom_fields": custom}));
            self.secrets.insert(password);
        }
        let export = json!({"shared_folders": [], "records": records}).to_string();
        self.need(&["import", "keeper", "-"], &export)?;
        Ok(())
    }

    /// `turnlock` with these arguments, in this lane's home.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.turnlock.program_at(&self.program, arguments);
        command.env("TURNLOCK_KEY_FILE", self.turnlock.key_file()).env("TMPDIR", self.turnlock.home().join("tmp"));
        command
    }

    /// Runs it and remembers what it said.
    pub(crate) fn run(&mut self, arguments: &[&str], stdin: &str) -> Result<Output> {
        let output = process::run_within(&mut self.command(arguments), stdin.as_bytes(), PATIENCE)?;
        self.hear(&output);
        Ok(output)
    }

    /// Runs what shows secrets, which is not remembered.
    pub(crate) fn reveal(&self, arguments: &[&str]) -> Result<String> {
        let output = process::run_within(&mut self.command(arguments), b"", PATIENCE)?;
        if output.succeeded() {
            return Ok(output.stdout);
        }
        Err(LabError::new(format!("turnlock {arguments:?} ended with {}: {}", output.status, output.stderr)))
    }

    /// Runs what has to succeed.
    pub(crate) fn need(&mut self, arguments: &[&str], stdin: &str) -> Result<Output> {
        let output = self.run(arguments, stdin)?;
        if output.succeeded() {
            return Ok(output);
        }
        Err(LabError::new(format!(
            "turnlock {arguments:?} ended with {}: {}{}",
            output.status, output.stdout, output.stderr
        )))
    }

    pub(crate) fn hear(&mut self, output: &Output) {
        self.heard.extend(output.stdout.as_bytes());
        self.heard.extend(output.stderr.as_bytes());
    }

    /// A file of the harness's own in this lane's home.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.turnlock.home().join(name)
    }

    /// Searches everything that was written for every secret there ever was.
    pub(crate) fn sweep(&mut self) -> Result<Option<Broken>> {
        self.learn_every_secret()?;
        let canaries = Canaries::of(&self.secrets)?;
        let mut places = vec![("what was printed".to_owned(), self.heard.clone())];
        places.push(("the server's log".to_owned(), self.target.log().into_bytes()));
        for path in files_below(self.turnlock.home()) {
            // The programs themselves, which know nothing.
            if !path.starts_with(self.file("bin")) || path.extension().is_some_and(|kind| kind == "log") {
                places.push((path.display().to_string(), path.display().to_string().into_bytes()));
                places.push((path.display().to_string(), fs::read(&path).unwrap_or_default()));
            }
        }
        let found = places.iter().find_map(|(place, hay)| canaries.found_in(hay).map(|how| (place, how)));
        Ok(found.map(|(place, how)| Broken::Leaked(format!("{how} stands in {place}"))))
    }
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}
