//! Finding a rotator's binary or image, and believing it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};
use turnlock_protocol::{Describe, Fault, Kind, Operation};

use crate::catalogue::Catalogue;
use crate::child::{Conversation, ReadOnly};
use crate::config::{self, Config};
use crate::container::{Image, PODMAN};
use crate::record::is_plugin_name;

/// A rotator's program, checked.
#[derive(Debug, Clone)]
pub struct Rotator {
    /// The plugin's name.
    pub plugin: String,
    /// What is started.
    pub program: Program,
}

/// What is started to speak with a rotator.
#[derive(Debug, Clone)]
pub enum Program {
    /// A file, without symbolic links in its path.
    File(PathBuf),
    /// An image, which podman runs.
    Image(Image),
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(program) => program.display().fmt(f),
            Self::Image(image) => image.fmt(f),
        }
    }
}

/// Where rotators are looked for: the directory of this program, then the
/// configured ones, never by `PATH`; or among the configured images alone.
#[derive(Debug, Clone)]
pub struct Rotators {
    directories: Vec<PathBuf>,
    pinned: Vec<(String, String)>,
    images: Option<BTreeMap<String, Image>>,
    environment: Vec<(String, OsString)>,
    cache: Option<PathBuf>,
}

/// How long a rotator may take to describe itself.
const DESCRIBE_WITHIN_MS: u64 = 5_000;

impl Rotators {
    /// As the configuration says.
    pub fn new(config: &Config) -> Self {
        let own = std::env::current_exe().ok().and_then(|program| program.parent().map(Path::to_owned));
        Self {
            directories: own.into_iter().chain(config.plugin_directories.iter().cloned()).collect(),
            pinned: config.pinned_plugins.clone(),
            images: config.images.clone(),
            environment: config.rotator_environment.clone(),
            cache: config.cache_directory.clone(),
        }
    }

    /// The rotator of that name.
    ///
    /// # Errors
    /// `not_found` when there is none, `permission` when others could have
    /// replaced it, `conflict` when it is not the pinned one.
    pub fn find(&self, plugin: &str) -> Result<Rotator, Fault> {
        if !is_plugin_name(plugin) {
            return Err(Fault::new(Kind::InvalidInput, format!("\"{plugin}\" is no plugin name"))
                .hint("a plugin's name has small letters, digits and hyphens only"));
        }
        if let Some(images) = &self.images {
            return Self::find_image(images, plugin);
        }
        self.find_file(plugin)
    }

    /// Finds a program among the files; a vault program is always one.
    ///
    /// # Errors
    /// Like [`Rotators::find`].
    pub(crate) fn find_file(&self, plugin: &str) -> Result<Rotator, Fault> {
        let name = format!("turnlock-{plugin}");
        let found = self.directories.iter().map(|directory| directory.join(&name)).find(|program| program.is_file());
        let Some(program) = found else {
            let what = if plugin.starts_with("vault-") { "vault program" } else { "rotator" };
            return Err(Fault::new(Kind::NotFound, format!("the {what} {name} is not installed"))
                .hint(format!("put {name} beside turnlock, or name its directory with --plugin-dir")));
        };
        self.believed(plugin, &program)
    }

    /// The rotator at a place that somebody named, found by its own name.
    ///
    /// # Errors
    /// Like [`Rotators::find`].
    pub fn at(&self, program: &Path) -> Result<Rotator, Fault> {
        let name = program.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        match name.strip_prefix("turnlock-") {
            Some(plugin) if is_plugin_name(plugin) => self.believed(plugin, program),
            _ => Err(Fault::new(Kind::InvalidInput, format!("{} is no rotator's name", program.display()))
                .hint("a rotator is called turnlock-PLUGIN, of small letters, digits and hyphens")),
        }
    }

    /// A program that nobody else could have put there, and that is the pinned one.
    fn believed(&self, plugin: &str, program: &Path) -> Result<Rotator, Fault> {
        let unreadable = |error: io::Error| {
            Fault::new(Kind::Permission, format!("{} cannot be checked", program.display())).caused_by(&error)
        };
        let program = program.canonicalize().map_err(unreadable)?;
        believed(&program)?;
        if let Some((_, pin)) = self.pinned.iter().find(|(name, _)| name == plugin) {
            let digest = hexadecimal(&Sha256::digest(fs::read(&program).map_err(unreadable)?));
            if !digest.eq_ignore_ascii_case(pin) {
                return Err(Fault::new(Kind::Conflict, format!("{} is not the pinned program", program.display()))
                    .hint(format!("its SHA-256 is {digest}")));
            }
        }
        Ok(Rotator { plugin: plugin.to_owned(), program: Program::File(program) })
    }

    fn find_image(images: &BTreeMap<String, Image>, plugin: &str) -> Result<Rotator, Fault> {
        let image = images.get(plugin).ok_or_else(|| {
            Fault::new(Kind::NotFound, format!("turnlock.toml names no image for turnlock-{plugin}"))
                .hint(format!("add {plugin} = \"NAME@sha256:…\" under [rotators.images]"))
        })?;
        let podman = Path::new(PODMAN).canonicalize().map_err(|error| {
            Fault::new(Kind::NotFound, format!("{PODMAN} cannot be found"))
                .caused_by(&error)
                .hint("apt-get install podman, or take rotators.runtime out of turnlock.toml")
        })?;
        believed(&podman)?;
        Ok(Rotator { plugin: plugin.to_owned(), program: Program::Image(image.clone()) })
    }

    /// A rotator's program, to be started like every other one. What runs in a
    /// container is not started this way.
    pub(crate) fn command(&self, rotator: &Rotator) -> io::Result<Command> {
        match &rotator.program {
            Program::File(program) => crate::child::command(program, &self.environment),
            Program::Image(_) => Err(io::Error::new(io::ErrorKind::Unsupported, "it is an image, not a program")),
        }
    }

    /// Starts a rotator.
    ///
    /// # Errors
    /// See [`Conversation::begin`] and [`Rotators::find`].
    pub async fn begin(&self, plugin: &str) -> Result<Conversation, Fault> {
        let mut environment = self.environment.clone();
        if let Ok(describe) = self.describe(plugin).await {
            environment.extend(config::declared(&describe.environment));
        }
        Conversation::begin(&self.find(plugin)?, &environment).await
    }

    /// The names of all rotators that can be found, first directory first.
    pub fn names(&self) -> Vec<String> {
        if let Some(images) = &self.images {
            return images.keys().cloned().collect();
        }
        let mut names: Vec<String> = self
            .directories
            .iter()
            .filter_map(|directory| fs::read_dir(directory).ok())
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter_map(|name| name.strip_prefix("turnlock-").map(str::to_owned))
            .filter(|name| is_plugin_name(name) && !name.starts_with("vault-"))
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// What a rotator says of itself, from the cache where its program has not
    /// changed since.
    ///
    /// # Errors
    /// Like [`Rotators::begin`].
    pub async fn describe(&self, plugin: &str) -> Result<Describe, Fault> {
        let rotator = self.find(plugin)?;
        let cached = self.cache.as_deref().and_then(|cache| cache_file(cache, &rotator));
        if let Some(describe) =
            cached.as_deref().and_then(|file| fs::read(file).ok()).and_then(|text| serde_json::from_slice(&text).ok())
        {
            return Ok(describe);
        }
        let mut conversation = Conversation::begin(&rotator, &self.environment).await?;
        let describe: Describe =
            conversation.call(Operation::Describe, &serde_json::Map::new(), DESCRIBE_WITHIN_MS, &mut ReadOnly).await?;
        conversation.end().await;
        if let Some(file) = cached {
            // Only a cache: without it the rotator is asked again.
            let _ = crate::durable::write(&file, &serde_json::to_vec(&describe).unwrap_or_default());
        }
        Ok(describe)
    }

    /// Everything that can be found, described. A rotator that cannot describe
    /// itself is left out, and told.
    pub async fn catalogue(&self) -> (Catalogue, Vec<Fault>) {
        let mut faults = Vec::new();
        let mut catalogue = Catalogue::new();
        for name in self.names() {
            let added = match self.describe(&name).await {
                Ok(describe) => catalogue.insert(describe).map_err(|error| {
                    Fault::new(Kind::Unsupported, format!("turnlock-{name} describes itself wrongly")).caused_by(&error)
                }),
                Err(fault) => Err(fault),
            };
            faults.extend(added.err());
        }
        (catalogue, faults)
    }
}

/// The empty directory that rotators run in.
pub(crate) fn empty_directory() -> io::Result<PathBuf> {
    let directory = PathBuf::from("/var/empty");
    if fs::read_dir(&directory).is_ok_and(|mut entries| entries.next().is_none()) {
        return Ok(directory);
    }
    let user = rustix::process::getuid().as_raw();
    let directory = std::env::temp_dir().join(format!("turnlock-empty-{user}"));
    match fs::DirBuilder::new().mode(0o500).create(&directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(&directory)?;
    if found.is_dir() && found.uid() == user && found.permissions().mode() & 0o022 == 0 {
        Ok(directory)
    } else {
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "the empty working directory belongs to somebody else"))
    }
}

/// A cached description is named by what identifies the program's content
/// without reading it: an image's digest, a file's path, size, times and inode.
fn cache_file(cache: &Path, rotator: &Rotator) -> Option<PathBuf> {
    let mut hasher = Sha256::new();
    match &rotator.program {
        Program::Image(image) => hasher.update(image.to_string()),
        Program::File(program) => {
            let found = fs::metadata(program).ok()?;
            hasher.update(program.as_os_str().as_encoded_bytes());
            for number in [found.dev(), found.ino(), found.size()] {
                hasher.update(number.to_le_bytes());
            }
            for number in [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()] {
                hasher.update(number.to_le_bytes());
            }
        }
    }
    Some(cache.join(format!("describe-{}-{}.json", rotator.plugin, hexadecimal(&hasher.finalize()))))
}

/// A program that nobody else could have replaced.
pub(crate) fn believed(program: &Path) -> Result<(), Fault> {
    match writable_by_others(program) {
        Ok(None) => Ok(()),
        Ok(Some(open)) => Err(Fault::new(
            Kind::Permission,
            format!("{} is not run: others may write {}", program.display(), open.display()),
        )
        .hint(format!("chmod go-w {}", open.display()))),
        Err(error) => {
            Err(Fault::new(Kind::Permission, format!("{} cannot be checked", program.display())).caused_by(&error))
        }
    }
}

/// The first part of a path that somebody other than its owner, root or this
/// user could replace. A sticky directory such as `/tmp` protects its entries.
pub(crate) fn writable_by_others(program: &Path) -> io::Result<Option<PathBuf>> {
    let user = rustix::process::getuid().as_raw();
    for part in program.ancestors() {
        let found = fs::metadata(part)?;
        let mode = found.permissions().mode();
        let foreign = found.uid() != user && found.uid() != 0;
        let open = mode & 0o022 != 0 && !(found.is_dir() && mode & 0o1000 != 0);
        if foreign || open {
            return Ok(Some(part.to_owned()));
        }
    }
    Ok(None)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
