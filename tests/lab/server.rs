//! What all lab servers have in common: a directory, a port, a certificate, a process.

use std::{
    fs,
    hash::{BuildHasher, RandomState},
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    ca::Authority,
    error::{Context, LabError, Result},
    ports,
    process::{self, Ending, Owned, User, wait_until, write_file},
    template::give_to,
};

/// Long enough for a machine that does ten other things; a start that fails ends at once.
const START: Duration = Duration::from_secs(60);

/// How a particular server is told its port and says that it is ready.
pub(crate) trait Recipe {
    /// Writes the configuration and gives the command that runs the server in the foreground.
    fn command(&self, site: &Site, port: u16) -> Result<Command>;
    /// What the log says once connections are welcome.
    fn ready(&self) -> &'static str;
    /// How to end it without delay.
    const ENDING: Ending;
}

/// A server's directory: `data/`, `ca.crt`, `server.crt`, `server.key`, `server.log`.
pub(crate) struct Site {
    pub(crate) directory: TempDir,
    pub(crate) user: Option<User>,
}

impl Site {
    pub(crate) fn new(name: &str, user: Option<User>, authority: &Authority, names: &[&str]) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix(&format!("turnlock-{name}-"))
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir_in(process::ground())
            .could_not(|| "create a directory for a server".to_owned())?;
        let site = Self { directory, user };
        give_to(site.path(), site.user.as_ref())?;
        let issued = authority.issue(names)?;
        authority.write_to(&site.file("ca.crt"))?;
        write_file(&site.file("server.crt"), issued.certificate)?;
        site.private_file("server.key", issued.key)?;
        Ok(site)
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// A file that only the server's user can read.
    pub(crate) fn private_file(&self, name: &str, content: impl AsRef<[u8]>) -> Result<()> {
        let path = self.file(name);
        write_file(&path, content)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
            .could_not(|| format!("protect {}", path.display()))?;
        give_to(&path, self.user.as_ref())
    }

    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.file("server.log")).unwrap_or_default()).into_owned()
    }
}

/// Starts a server on a free port; when somebody else took the port in the meantime, on another one.
pub(crate) fn start<R: Recipe>(recipe: &R, site: &Site) -> Result<(Owned, u16)> {
    let mut said = String::new();
    for _ in 0..5 {
        let port = ports::free()?;
        match start_on(recipe, site, port) {
            Ok(owned) => return Ok((owned, port)),
            Err(error) => said = error.to_string(),
        }
        if !said.contains("Address already in use") {
            break;
        }
    }
    Err(LabError::new(said))
}

/// Starts a server on this very port, and returns once it says that it is ready.
pub(crate) fn start_on<R: Recipe>(recipe: &R, site: &Site, port: u16) -> Result<Owned> {
    let mut command = recipe.command(site, port)?;
    let path = site.file("server.log");
    // Appended to, so that `log()` still knows what happened before a restart.
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .could_not(|| format!("open {}", path.display()))?;
    let before = usize::try_from(log.metadata().map_or(0, |file| file.len())).unwrap_or(0);
    let errors = log.try_clone().could_not(|| format!("open {} twice", path.display()))?;
    command.stdout(Stdio::from(log)).stderr(Stdio::from(errors)).current_dir(site.path());
    process::run_as(&mut command, site.user.as_ref());
    let mut owned = Owned::start(&mut command, R::ENDING, Some(site.path()))?;
    let new_lines = || site.log().get(before..).unwrap_or_default().to_owned();
    let ready = wait_until("a server to accept connections", START, || {
        let ended = owned.ended();
        if new_lines().contains(recipe.ready()) { Some(Ok(())) } else { ended.map(Err) }
    });
    match ready {
        Ok(Ok(())) => Ok(owned),
        Ok(Err(status)) => Err(LabError::new(format!("a server ended with status {status}:\n{}", new_lines()))),
        Err(error) => Err(LabError::new(format!("{error}; its log:\n{}", new_lines()))),
    }
}

/// An address on loopback where nobody listens at this port, for servers that
/// cannot choose theirs.
pub(crate) fn free_address(port: u16) -> Result<Ipv4Addr> {
    let seed = RandomState::new().hash_one(());
    (0..1000u64)
        .map(|step| {
            let [.., low, middle, high] = seed.wrapping_add(step).to_be_bytes();
            Ipv4Addr::new(127, 64 + high % 64, middle, low.clamp(1, 254))
        })
        .find(|address| TcpListener::bind((*address, port)).is_ok())
        .ok_or_else(|| LabError::new(format!("no address of loopback has its port {port} free")))
}
