//! The built programs, run as a user runs them, in a world of their own.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::{
    Output, Result, UnixHost,
    error::{Context, LabError},
    process::{self, clean_command},
};

/// A program that this workspace built, beside the test or xtask that asks.
pub fn bin(name: &str) -> Result<PathBuf> {
    let mut directory = std::env::current_exe().could_not(|| "find this program".to_owned())?;
    directory.pop();
    if directory.ends_with("deps") {
        directory.pop();
    }
    let path = directory.join(name);
    if path.is_file() {
        return Ok(path);
    }
    Err(LabError::new(format!("{} is not built; run `cargo build --workspace`", path.display())))
}

/// A user's home for one test: vault, key, state, configuration and plugins in a directory that goes away.
pub struct Turnlock {
    home: TempDir,
    /// What starts the programs somewhere else, such as in a box.
    prefix: Vec<OsString>,
}

impl Turnlock {
    /// An empty home.
    pub fn new() -> Result<Self> {
        Self::new_in(&process::ground())
    }

    /// An empty home below a directory of one's own choice.
    pub fn new_in(ground: &Path) -> Result<Self> {
        let home = tempfile::Builder::new()
            .prefix("turnlock-home-")
            .tempdir_in(ground)
            .could_not(|| "create a home directory".to_owned())?;
        for name in ["vault", "state", "config", "cache", "data", "run", "plugins", "tmp"] {
            let path = home.path().join(name);
            fs::create_dir(&path).could_not(|| format!("create {}", path.display()))?;
        }
        Ok(Self { home, prefix: Vec::new() })
    }

    /// A home whose programs are started by another one, which gets them as its last arguments.
    pub(crate) fn behind(prefix: Vec<OsString>) -> Result<Self> {
        Ok(Self { prefix, ..Self::new()? })
    }

    /// A home whose programs run in a host's box, as root or as one of its accounts.
    pub fn within(host: &UnixHost, login: Option<&str>) -> Result<Self> {
        let enter = host.inside(Path::new("env"), login)?;
        let turnlock =
            Self::behind(std::iter::once(enter.get_program()).chain(enter.get_args()).map(OsString::from).collect())?;
        if let Some(login) = login {
            let (user, group) = host.ids(login)?;
            let mut chown = clean_command("chown");
            chown.arg("-R").arg(format!("{user}:{group}")).arg(turnlock.home());
            process::run(&mut chown, b"")?;
        }
        Ok(turnlock)
    }

    /// The home directory itself.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The directory that holds the vault and nothing else.
    pub fn vault_directory(&self) -> PathBuf {
        self.home().join("vault")
    }

    /// The vault.
    pub fn vault(&self) -> PathBuf {
        self.vault_directory().join("vault.db")
    }

    /// The file with the vault's key, outside of the vault's directory.
    pub fn key_file(&self) -> PathBuf {
        self.home().join("vault.key")
    }

    /// Where state is kept between runs.
    pub fn state_directory(&self) -> PathBuf {
        self.home().join("state")
    }

    /// Where the configuration is looked for.
    pub fn config_directory(&self) -> PathBuf {
        self.home().join("config")
    }

    /// A directory for rotators that a test brings itself.
    pub fn plugin_directory(&self) -> PathBuf {
        self.home().join("plugins")
    }

    /// A `turnlock` in a directory of its own, where a rotator's stand-in is found
    /// beside it.
    pub fn own_program(&self, built: &Path) -> Result<PathBuf> {
        let place = self.home().join("bin");
        fs::create_dir_all(&place).could_not(|| format!("create {}", place.display()))?;
        let program = place.join("turnlock");
        process::put_program(built, &program)?;
        Ok(program)
    }

    /// `turnlock` with these arguments, as a command that can still be changed.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        self.program("turnlock", arguments)
    }

    /// Another built program in the same home.
    pub fn program(&self, name: &str, arguments: &[&str]) -> Result<Command> {
        Ok(self.program_at(&bin(name)?, arguments))
    }

    /// A program at some other place, such as a copy of `turnlock` among
    /// stand-ins for rotators, in the same home.
    pub fn program_at(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = match self.prefix.split_first() {
            Some((first, rest)) => {
                let mut command = clean_command(first);
                command.args(rest).arg(program);
                command
            }
            None => clean_command(program),
        };
        command
            .args(arguments)
            .current_dir(self.home())
            .env("HOME", self.home())
            .env("XDG_CONFIG_HOME", self.config_directory())
            .env("XDG_STATE_HOME", self.state_directory())
            .env("XDG_CACHE_HOME", self.home().join("cache"))
            .env("XDG_DATA_HOME", self.home().join("data"))
            .env("XDG_RUNTIME_DIR", self.home().join("run"))
            .env("TURNLOCK_VAULT", self.vault());
        command
    }

    /// Runs `turnlock` to its end.
    pub fn run(&self, arguments: &[&str]) -> Result<Output> {
        self.run_with(arguments, b"", &[])
    }

    /// Runs `turnlock` with bytes on standard input and more environment, as of a [`crate::shim::Shim`].
    pub fn run_with(&self, arguments: &[&str], stdin: &[u8], environment: &[(String, String)]) -> Result<Output> {
        let mut command = self.command(arguments)?;
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        process::run(&mut command, stdin)
    }
}
