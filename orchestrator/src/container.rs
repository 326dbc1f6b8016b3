//! A rotator in a container: podman runs the image that the configuration
//! pins, and the protocol goes over the container's standard streams.

use std::ffi::OsString;
use std::fmt;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;
use turnlock_protocol::{Fault, Kind};

use crate::stage::Process;

/// Where podman is: never looked for by `PATH`.
pub(crate) const PODMAN: &str = "/usr/bin/podman";

/// What podman finds its own parts by.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What podman itself wants to know besides a rotator's variables.
pub(crate) const PODMANS: &[&str] = &["XDG_RUNTIME_DIR", "CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF"];

/// Variables that name files of this machine and mean nothing in a container.
const OF_THIS_MACHINE: &[&str] = &["HOME", "SSL_CERT_FILE", "SSL_CERT_DIR", "TNS_ADMIN"];

/// How long podman may take to answer a question about what it runs.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// An image, named by its content: `NAME@sha256:…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image(String);

impl Image {
    /// Reads a reference with a digest; a tag alone can mean another image
    /// tomorrow.
    pub fn parse(reference: &str) -> Option<Self> {
        let (name, digest) = reference.split_once("@sha256:")?;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-/:".contains(c);
        let named = name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(plain);
        let pinned = digest.len() == 64 && digest.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c));
        (named && pinned).then(|| Self(reference.to_owned()))
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One container, from before its start to after its end.
#[derive(Debug)]
pub(crate) struct Container {
    image: Image,
    name: String,
    environment: Vec<(String, OsString)>,
}

impl Container {
    /// A container of this image, not started yet.
    pub(crate) fn new(image: &Image, plugin: &str, environment: &[(String, OsString)]) -> Result<Self, Fault> {
        let mut random = [0u8; 8];
        getrandom::fill(&mut random)
            .map_err(|_| Fault::new(Kind::Internal, "the system's source of randomness failed"))?;
        Ok(Self {
            image: image.clone(),
            name: format!("turnlock-{plugin}-{:016x}", u64::from_ne_bytes(random)),
            environment: environment.to_vec(),
        })
    }

    /// What starts it. Its image is taken as it is here, nothing in it can be
    /// written, nothing it says is logged, and it reaches what this machine
    /// reaches.
    pub(crate) fn command(&self) -> Command {
        let stays = |name: &str| PODMANS.contains(&name) || OF_THIS_MACHINE.contains(&name);
        let passed_on = self.environment.iter().filter(|(name, _)| !stays(name)).map(|(name, _)| name);
        let mut command = self.podman(&["run", "--interactive", "--rm", "--log-driver=none", "--pull=never"]);
        command
            .args(["--read-only", "--network=host", "--cap-drop=all", "--security-opt=no-new-privileges"])
            .args(passed_on.map(|name| format!("--env={name}")))
            .arg(format!("--name={}", self.name))
            .args([&self.image.0, "serve"]);
        command
    }

    /// The rotator itself, as this machine sees it. podman may be killed and
    /// the rotator live on, so podman's death would prove nothing.
    pub(crate) async fn process(&self) -> Result<Process, Fault> {
        let mut inspect = self.podman(&["container", "inspect", "--format={{.State.Pid}}", &self.name]);
        let told = timeout(ANSWER_WITHIN, inspect.stdin(Stdio::null()).kill_on_drop(true).output()).await;
        let pid = match told {
            Ok(Ok(told)) => String::from_utf8_lossy(&told.stdout).trim().parse().ok().filter(|pid| *pid != 0),
            _ => None,
        };
        pid.map(Process::of)
            .ok_or_else(|| Fault::new(Kind::Internal, format!("podman does not tell the process of {}", self.name)))
    }

    /// Ends it at once. podman does it, for the process may belong to a user
    /// whom only podman may signal.
    pub(crate) fn kill(&self) {
        let mut kill = self.podman(&["kill", "--signal=KILL", &self.name]);
        // One that is gone already cannot be killed, and need not be.
        drop(kill.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn());
    }

    /// The fault of a start that failed because there was nothing to start.
    pub(crate) async fn missing(&self) -> Option<Fault> {
        let mut exists = self.podman(&["image", "exists", &self.image.0]);
        exists.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        match timeout(ANSWER_WITHIN, exists.status()).await {
            Ok(Ok(status)) if status.code() == Some(1) => Some(
                Fault::new(Kind::NotFound, format!("the image {} is not on this machine", self.image))
                    .hint(format!("podman pull {}, or correct its digest in turnlock.toml", self.image)),
            ),
            _ => None,
        }
    }

    fn podman(&self, arguments: &[&str]) -> Command {
        #[expect(clippy::disallowed_methods, reason = "this is the one place that starts podman")]
        let mut command = Command::from(std::process::Command::new(PODMAN));
        command.args(arguments).env_clear();
        command.envs(self.environment.iter().map(|(name, value)| (name, value))).env("PATH", PATH);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_named_by_its_content_or_not_at_all() {
        let digest = "0123456789abcdef".repeat(4);
        for name in ["localhost/turnlock/postgresql", "registry.example.com:5000/a/b", "a"] {
            let reference = format!("{name}@sha256:{digest}");
            assert_eq!(Image::parse(&reference).map(|image| image.to_string()), Some(reference));
        }
        for wrong in [
            "localhost/turnlock/postgresql".to_owned(),
            "localhost/turnlock/postgresql:0.1.0".to_owned(),
            format!("--privileged@sha256:{digest}"),
            format!("a b@sha256:{digest}"),
            format!("@sha256:{digest}"),
            format!("a@sha256:{}", digest.to_uppercase()),
            format!("a@sha256:{}", &digest[1..]),
            format!("a@sha256:{digest}0"),
        ] {
            assert_eq!(Image::parse(&wrong), None, "{wrong}");
        }
    }
}
