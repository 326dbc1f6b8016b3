//! Where things are: flags over variables over `turnlock.toml` over the XDG
//! directories. The only file that reads the environment.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::container::{Image, PODMANS};
use crate::failure::Failure;
use crate::fleet::Kindness;
use crate::hooks::Hooks;

/// What the command line says about where things are.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--config`
    pub config: Option<PathBuf>,
    /// `--vault`
    pub vault: Option<PathBuf>,
    /// `--key-file`
    pub key_file: Option<PathBuf>,
    /// `--passphrase-file`
    pub passphrase_file: Option<PathBuf>,
    /// `--recovery-key-file`
    pub recovery_key_file: Option<PathBuf>,
    /// `--keyring`
    pub keyring: bool,
    /// `--plugin-dir`
    pub plugin_directories: Vec<PathBuf>,
}

/// Where things are.
#[derive(Debug, Clone)]
pub struct Config {
    /// The configuration file that was read.
    pub read_from: Option<PathBuf>,
    /// The vault's file.
    pub vault: PathBuf,
    /// Where a key file is found although nobody named one.
    pub default_key_file: Option<PathBuf>,
    /// The key file that opens it.
    pub key_file: Option<PathBuf>,
    /// A file with the passphrase that opens it.
    pub passphrase_file: Option<PathBuf>,
    /// A file with the printed recovery key.
    pub recovery_key_file: Option<PathBuf>,
    /// Whether the kernel's keyring holds the key.
    pub keyring: bool,
    /// What systemd's `LoadCredential=turnlock.key` left for us.
    pub systemd_credential: Option<PathBuf>,
    /// The authority that a vault elsewhere is believed by.
    pub vault_ca: Option<PathBuf>,
    /// What systemd's `LoadCredential=turnlock.vault` left for us: the
    /// configuration of a vault elsewhere.
    pub vault_credential: Option<PathBuf>,
    /// What this machine remembers of its vaults.
    pub state_directory: PathBuf,
    /// Descriptions of rotators, kept between runs.
    pub cache_directory: Option<PathBuf>,
    /// Where rotators are looked for besides this program's own directory.
    pub plugin_directories: Vec<PathBuf>,
    /// Plugins whose program must have this SHA-256.
    pub pinned_plugins: Vec<(String, String)>,
    /// How many rotations at once, and how gently.
    pub fleet: FleetSection,
    /// What the daemon does besides rotating what is due.
    pub daemon: DaemonSection,
    /// Who is told of a new credential.
    pub hooks: Hooks,
    /// The images that rotators run from, where podman runs them.
    pub images: Option<BTreeMap<String, Image>>,
    /// The variables a rotator starts with.
    pub rotator_environment: Vec<(String, OsString)>,
}

/// `turnlock.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    vault: VaultSection,
    rotators: RotatorSection,
    fleet: FleetSection,
    daemon: DaemonSection,
    hooks: Hooks,
}

/// How a fleet behaves, where the command line does not say.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FleetSection {
    /// How many records at once.
    pub jobs: Option<usize>,
    /// How many of them at one host.
    pub per_host: Option<usize>,
    /// How single hosts want to be treated.
    pub host: BTreeMap<String, Kindness>,
    /// How single plugins want to be treated.
    pub plugin: BTreeMap<String, Kindness>,
}

/// What the daemon does besides rotating what is due.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DaemonSection {
    /// When every credential is proven again, as a schedule.
    pub verify: Option<String>,
    /// Whether one that does not work any more is reset through its admin.
    pub reconcile: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct VaultSection {
    path: Option<PathBuf>,
    key_file: Option<PathBuf>,
    passphrase_file: Option<PathBuf>,
    keyring: bool,
    ca: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RotatorSection {
    directories: Vec<PathBuf>,
    pin: BTreeMap<String, String>,
    runtime: Runtime,
    images: BTreeMap<String, String>,
}

/// What runs rotators.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Runtime {
    /// This program, as processes of its own.
    #[default]
    Process,
    /// podman, as containers.
    Podman,
}

/// Where records may name commands, besides the user's own configuration.
const HOOKS: &str = "/etc/turnlock/hooks";

/// The variables that pass through to a rotator: none of them bears a secret.
const PASSED_ON: &[&str] = &[
    "HOME",
    "LANG",
    "LC_ALL",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "TNS_ADMIN",
];

impl Config {
    /// Puts everything together.
    ///
    /// # Errors
    /// A configuration file that cannot be read or says something unknown.
    pub fn load(overrides: Overrides) -> Result<Self, Failure> {
        let home = variable("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
        let xdg = |name: &str, below_home: &str| {
            variable(name)
                .map(PathBuf::from)
                .filter(|directory| directory.is_absolute())
                .or_else(|| home.as_ref().map(|home| home.join(below_home)))
                .map(|directory| directory.join("turnlock"))
        };
        let config_directory = xdg("XDG_CONFIG_HOME", ".config");
        let own = |name: &str| config_directory.as_ref().map(|directory| directory.join(name));
        let asked = overrides.config.or_else(|| variable("TURNLOCK_CONFIG").map(PathBuf::from));
        let read_from = asked.or_else(|| own("turnlock.toml").filter(|path| path.exists()));
        let file = read_from.as_deref().map(File::read).transpose()?.unwrap_or_default();
        file.hooks.validate()?;
        let mut hooks = file.hooks;
        if hooks.directories.is_empty() {
            hooks.directories = own("hooks").into_iter().collect();
            hooks.directories.push(PathBuf::from(HOOKS));
        }
        let nowhere = || {
            Failure::usage("there is no home directory to keep a vault in").hint("name the vault's file with --vault")
        };
        let data = xdg("XDG_DATA_HOME", ".local/share");
        let vault = overrides
            .vault
            .or_else(|| variable("TURNLOCK_VAULT").map(PathBuf::from))
            .or_else(|| file.vault.path.clone())
            .or_else(|| data.map(|data| data.join("vault.db")))
            .ok_or_else(nowhere)?;
        let state_directory = variable("TURNLOCK_STATE")
            .map(PathBuf::from)
            .or_else(|| xdg("XDG_STATE_HOME", ".local/state"))
            .or_else(|| vault.parent().map(|parent| parent.join("state")))
            .ok_or_else(nowhere)?;
        let vault_ca = file.vault.ca.clone();
        let credentials = variable("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        // A key named on the command line is the one that is meant, whatever
        // other kind the environment or the configuration names.
        let flag = overrides.key_file.is_some() || overrides.passphrase_file.is_some() || overrides.keyring;
        let variable_key = variable("TURNLOCK_KEY_FILE").map(PathBuf::from).filter(|_| !flag);
        let configured = if flag || variable_key.is_some() { VaultSection::default() } else { file.vault };
        let systemd_credential = variable("CREDENTIALS_DIRECTORY")
            .map(|directory| Path::new(&directory).join("turnlock.key"))
            .filter(|credential| !flag && credential.exists());
        let default_key_file = own("vault.key");
        let named = flag
            || configured.keyring
            || configured.passphrase_file.is_some()
            || systemd_credential.is_some()
            || overrides.recovery_key_file.is_some();
        let found = default_key_file.clone().filter(|file| !named && file.exists());
        Ok(Self {
            key_file: overrides.key_file.or(variable_key).or(configured.key_file).or(found),
            default_key_file,
            keyring: overrides.keyring || configured.keyring,
            recovery_key_file: overrides.recovery_key_file,
            passphrase_file: overrides.passphrase_file.or(configured.passphrase_file),
            systemd_credential,
            read_from,
            vault_ca,
            vault_credential: credentials.as_ref().map(|directory| directory.join("turnlock.vault")),
            cache_directory: xdg("XDG_CACHE_HOME", ".cache"),
            plugin_directories: overrides.plugin_directories.into_iter().chain(file.rotators.directories).collect(),
            images: images(file.rotators.runtime, file.rotators.images)?,
            pinned_plugins: file.rotators.pin.into_iter().collect(),
            fleet: file.fleet,
            daemon: file.daemon,
            hooks,
            rotator_environment: PASSED_ON
                .iter()
                .chain(PODMANS.iter().filter(|_| file.rotators.runtime == Runtime::Podman))
                .filter_map(|name| variable(name).map(|value| ((*name).to_owned(), value)))
                .collect(),
            vault,
            state_directory,
        })
    }

    /// Whether the vault opens without asking anybody.
    pub(crate) fn names_a_key(&self) -> bool {
        let files = [&self.key_file, &self.passphrase_file, &self.recovery_key_file, &self.systemd_credential];
        self.keyring || files.into_iter().any(Option::is_some)
    }
}

/// A vault that is not a file of ours: the name of its program and where its
/// configuration is, from `NAME:PATH`. A file of such a name is `./NAME:PATH`.
pub fn elsewhere(vault: &Path) -> Option<(&str, &Path)> {
    let (name, path) = vault.to_str()?.split_once(':')?;
    (name.len() > 1 && crate::record::is_plugin_name(name)).then(|| (name, Path::new(path)))
}

impl File {
    fn read(path: &Path) -> Result<Self, Failure> {
        let place = path.display();
        let text = fs::read_to_string(path)
            .map_err(|error| Failure::usage(format!("the configuration {place} cannot be read")).caused_by(&error))?;
        toml::from_str(&text).map_err(|error| {
            Failure::usage(format!("the configuration {place} cannot be understood")).caused_by(&error)
        })
    }
}

/// The images by plugin, each named by its content.
fn images(runtime: Runtime, listed: BTreeMap<String, String>) -> Result<Option<BTreeMap<String, Image>>, Failure> {
    if runtime == Runtime::Process {
        return match listed.into_keys().next() {
            None => Ok(None),
            Some(plugin) => Err(Failure::usage(format!("rotators.images names {plugin}, and nothing runs images"))
                .hint("say runtime = \"podman\" under [rotators]")),
        };
    }
    let read = |(plugin, reference): (String, String)| match Image::parse(&reference) {
        Some(image) => Ok((plugin, image)),
        None => Err(Failure::usage(format!("rotators.images.{plugin} is not pinned: \"{reference}\""))
            .hint("write NAME@sha256:…; podman image inspect NAME --format '{{.Digest}}' tells it")),
    };
    listed.into_iter().map(read).collect::<Result<_, _>>().map(Some)
}

/// Whether colours are unwelcome (<https://no-color.org>).
pub(crate) fn no_color() -> bool {
    variable("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// Those variables that a rotator declares and that are set. What bears a
/// secret by its name, or is meant for us or the loader, is not passed on.
pub(crate) fn declared(names: &[String]) -> Vec<(String, OsString)> {
    let passed = names.iter().filter(|name| may_be_declared(name));
    passed.filter_map(|name| variable(name).map(|value| (name.clone(), value))).collect()
}

fn may_be_declared(name: &str) -> bool {
    let bears_a_secret = ["KEY", "PASSPHRASE", "PASSWORD", "SECRET", "TOKEN"].iter().any(|word| name.contains(word));
    let is_a_place = name.ends_with("_FILE");
    (is_a_place || !bears_a_secret) && !name.starts_with("TURNLOCK_") && !name.starts_with("LD_")
}

fn variable(name: &str) -> Option<OsString> {
    #[expect(clippy::disallowed_methods, reason = "this is the one file that reads the environment")]
    std::env::var_os(name).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotator_gets_no_variable_that_bears_a_secret() {
        for passed in ["AWS_PROFILE", "AWS_CONFIG_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "PATH"] {
            assert!(may_be_declared(passed), "{passed}");
        }
        for kept in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "PGPASSWORD", "LD_PRELOAD"] {
            assert!(!may_be_declared(kept), "{kept}");
        }
        assert!(!may_be_declared("TURNLOCK_PASSPHRASE_FILE"));
    }

    #[test]
    fn a_vault_elsewhere_is_told_from_a_file() {
        assert_eq!(elsewhere(Path::new("ksm:/etc/ksm.json")), Some(("ksm", Path::new("/etc/ksm.json"))));
        assert_eq!(elsewhere(Path::new("ksm:")), Some(("ksm", Path::new(""))));
        for file in ["vault.db", "./ksm:x", "/a/ksm:x", "c:x", "KSM:x"] {
            assert_eq!(elsewhere(Path::new(file)), None, "{file}");
        }
    }
}
