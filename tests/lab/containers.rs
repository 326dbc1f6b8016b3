//! podman and buildah, so that they also work in a box that may not do all
//! that a whole machine may.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::{Resource, getrlimit};

use crate::{
    Result,
    error::Context,
    process::{self, command},
};

/// podman, as its environment makes it.
#[derive(Debug)]
pub struct Podman {
    environment: Vec<(String, String)>,
}

/// runc and its limits work where crun may not set limits, and cgroupfs where
/// no systemd runs.
const MODEST: &str = "\
[containers]
default_ulimits = [\"nofile={files}:{files}\", \"nproc={processes}:{processes}\"]
[engine]
runtime = \"runc\"
cgroup_manager = \"cgroupfs\"
";

impl Podman {
    /// This user's own, with this user's images. `place` takes a modest
    /// configuration where nobody made one and no systemd runs.
    pub fn of_this_user(place: &Path) -> Result<Self> {
        for program in ["podman", "buildah", "runc"] {
            process::need_program(program)?;
        }
        let own = ["CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF"];
        let mut environment: Vec<(String, String)> =
            own.iter().filter_map(|name| Some(((*name).to_owned(), process::environment(name)?))).collect();
        let configured = environment.iter().any(|(name, _)| name == "CONTAINERS_CONF");
        if !configured && !Path::new("/run/systemd/system").is_dir() {
            let [files, processes] = [Resource::Nofile, Resource::Nproc]
                .map(|limit| getrlimit(limit).maximum.unwrap_or(10_000).min(10_000).to_string());
            let modest = MODEST.replace("{files}", &files).replace("{processes}", &processes);
            environment.push(("CONTAINERS_CONF".to_owned(), write(place, "containers.conf", &modest)?));
        }
        Ok(Self { environment })
    }

    /// One with images of its own, all of them below `place`.
    pub fn apart(place: &Path) -> Result<Self> {
        let mut podman = Self::of_this_user(place)?;
        let (images, state) = (place.join("images"), place.join("state"));
        let storage = format!("[storage]\ndriver = \"vfs\"\ngraphroot = {images:?}\nrunroot = {state:?}\n");
        podman.environment.retain(|(name, _)| name != "CONTAINERS_STORAGE_CONF");
        podman.environment.push(("CONTAINERS_STORAGE_CONF".to_owned(), write(place, "storage.conf", &storage)?));
        Ok(podman)
    }

    /// The variables by which another program's podman works alike.
    pub fn environment(&self) -> impl Iterator<Item = (&str, &str)> {
        self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// podman, ready for its arguments.
    pub fn command(&self) -> Command {
        let mut podman = command("podman");
        podman.envs(self.environment());
        podman
    }

    /// buildah, ready for its arguments.
    pub fn buildah(&self) -> Command {
        let mut buildah = command("buildah");
        buildah.envs(self.environment());
        buildah
    }
}

/// The path of a file that holds this text, whole at every instant.
fn write(place: &Path, name: &str, text: &str) -> Result<String> {
    let (file, draft): (PathBuf, PathBuf) = (place.join(name), place.join(format!("{name}.{}", std::process::id())));
    fs::create_dir_all(place).could_not(|| format!("create {}", place.display()))?;
    process::write_file(&draft, text)?;
    fs::rename(&draft, &file).could_not(|| format!("write {}", file.display()))?;
    Ok(file.display().to_string())
}
