//! The programs as they are shipped: which there are, and how they are built.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use lab::{LabError, Result, process};
use serde::Deserialize;

use crate::{cargo, root, show};

/// Where our programs are: this workspace, and each vault program that has to
/// be one of its own.
pub(crate) const MANIFESTS: [&str; 2] = ["Cargo.toml", "vaults/ksm/Cargo.toml"];

/// What cargo knows of our workspaces; nobody keeps a list of rotators by hand.
#[derive(Deserialize)]
pub(crate) struct Workspace {
    pub(crate) packages: Vec<Package>,
    pub(crate) resolve: Option<Resolve>,
    workspace_members: Vec<String>,
    target_directory: PathBuf,
}

/// One package, ours or another's.
#[derive(Deserialize)]
pub(crate) struct Package {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) description: Option<String>,
    pub(crate) license: Option<String>,
    pub(crate) repository: Option<String>,
    pub(crate) source: Option<String>,
    manifest_path: PathBuf,
    targets: Vec<Target>,
    metadata: Option<Metadata>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Metadata {
    turnlock: Option<OfTurnlock>,
}

/// `[package.metadata.turnlock]`
#[derive(Deserialize)]
struct OfTurnlock {
    /// Whether a container makes sense for it.
    image: bool,
}

/// Who depends on whom.
#[derive(Deserialize)]
pub(crate) struct Resolve {
    pub(crate) nodes: Vec<Node>,
}

#[derive(Deserialize)]
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) deps: Vec<Edge>,
}

#[derive(Deserialize)]
pub(crate) struct Edge {
    pub(crate) pkg: String,
    pub(crate) dep_kinds: Vec<EdgeKind>,
}

#[derive(Deserialize)]
pub(crate) struct EdgeKind {
    /// None for what the program itself uses.
    pub(crate) kind: Option<String>,
}

/// The orchestrator's package and program.
pub(crate) const ORCHESTRATOR: &str = "turnlock";

/// How it is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Build {
    /// As it is shipped.
    Release,
    /// As tests have it already: for tests of packages and images.
    Plain,
}

impl Workspace {
    /// Asks cargo.
    pub(crate) fn read() -> Result<Self> {
        let [ours, others @ ..] = MANIFESTS;
        let mut all = Self::of(ours)?;
        for manifest in others {
            let more = Self::of(manifest)?;
            all.packages.extend(more.packages);
            all.workspace_members.extend(more.workspace_members);
            if let (Some(resolve), Some(more)) = (&mut all.resolve, more.resolve) {
                resolve.nodes.extend(more.nodes);
            }
        }
        Ok(all)
    }

    fn of(manifest: &str) -> Result<Self> {
        let triple = triple();
        let mut metadata = cargo(&["metadata", "--format-version=1", "--locked", "--filter-platform", &triple]);
        let told = process::run_within(metadata.args(["--manifest-path", manifest]), b"", Duration::from_secs(300))?;
        serde_json::from_str(&told.stdout)
            .map_err(|error| LabError::new(format!("cargo metadata cannot be read: {error}\n{}", told.stderr)))
    }

    /// The packages that are shipped: the orchestrator, and every program that is named as a rotator or a vault is.
    pub(crate) fn shipped(&self) -> Vec<&Package> {
        let ours = self.packages.iter().filter(|package| self.workspace_members.contains(&package.id));
        ours.filter(|package| package.name == ORCHESTRATOR || package.plugin().is_some() || package.vault().is_some())
            .collect()
    }

    /// Those of them that were asked for, all without a name; the orchestrator first.
    pub(crate) fn chosen(&self, names: &[String]) -> Result<Vec<&Package>> {
        let mut shipped = self.shipped();
        if let Some(unknown) = names.iter().find(|name| !shipped.iter().any(|package| package.short_name() == *name)) {
            let known: Vec<&str> = shipped.iter().map(|package| package.short_name()).collect();
            return Err(LabError::new(format!("there is no `{unknown}`; there are {}", known.join(", "))));
        }
        shipped.retain(|package| names.is_empty() || names.iter().any(|name| package.short_name() == name));
        shipped.sort_by_key(|package| package.name != ORCHESTRATOR);
        Ok(shipped)
    }

    /// Builds them, and says where they are: static, or as tests have them.
    pub(crate) fn build(&self, packages: &[&Package], how: Build) -> Result<PathBuf> {
        // Each by itself: together they would carry the features of all.
        for package in packages {
            self.build_one(&package.name, &package.name, how)?;
        }
        Ok(self.output(how))
    }

    /// Builds one program of any package of ours in the same way.
    pub(crate) fn build_one(&self, package: &str, program: &str, how: Build) -> Result<()> {
        let manifest = self.packages.iter().find(|one| one.name == package && self.workspace_members.contains(&one.id));
        let manifest = manifest.map_or_else(|| root().join("Cargo.toml"), |package| package.manifest_path.clone());
        let mut build = cargo(&["build", "--quiet", "--locked", "--bin", program]);
        build.arg("--target-dir").arg(&self.target_directory).arg("--manifest-path").arg(manifest);
        if how == Build::Plain {
            return show(build.arg("--workspace"));
        }
        let triple = triple();
        let flags = format!("target.{triple}.rustflags={:?}", self.flags());
        build.args(["--package", package, "--release", "--target", &triple, "--config", &flags]);
        show(build.env("CFLAGS", self.c_flags()))
    }

    /// Where [`Self::build`] puts them.
    pub(crate) fn output(&self, how: Build) -> PathBuf {
        match how {
            Build::Release => self.target_directory.join(triple()).join("release"),
            Build::Plain => self.target_directory.join("debug"),
        }
    }

    /// Where what is made of them goes.
    pub(crate) fn place(&self, name: &str) -> PathBuf {
        self.target_directory.join(name)
    }

    fn flags(&self) -> Vec<String> {
        // Packed relocations save what would be a tenth of a static position-independent program. The
        // standard library looks for addchdir only where it is linked already; without it every start of a
        // rotator would fork the whole orchestrator instead of spawning.
        let linked = [
            "target-feature=+crt-static",
            "link-arg=-Wl,-z,pack-relative-relocs",
            "link-arg=-Wl,-u,posix_spawn_file_actions_addchdir_np",
        ];
        let linked = linked.into_iter().flat_map(|flag| ["-C".to_owned(), flag.to_owned()]);
        linked.chain(self.moved().map(|(from, to)| format!("--remap-path-prefix={from}={to}"))).collect()
    }

    fn c_flags(&self) -> String {
        let moved: Vec<String> = self.moved().map(|(from, to)| format!("-ffile-prefix-map={from}={to}")).collect();
        moved.join(" ")
    }

    /// Places that must not be seen in a program: it shall be the same wherever it was built.
    fn moved(&self) -> impl Iterator<Item = (String, &'static str)> {
        let home = process::environment("HOME").unwrap_or_default();
        let cargo = process::environment("CARGO_HOME").unwrap_or_else(|| format!("{home}/.cargo"));
        let target = self.target_directory.display().to_string();
        [(root().display().to_string(), "/turnlock"), (target, "/target"), (cargo, "/cargo")].into_iter()
    }
}

impl Package {
    /// The plugin, where its program is one.
    pub(crate) fn plugin(&self) -> Option<&str> {
        let program = self.targets.iter().find(|target| target.kind.iter().any(|kind| kind == "bin"))?;
        let name = (program.name == self.name).then(|| self.name.strip_prefix("turnlock-"))?;
        name.filter(|_| self.vault().is_none())
    }

    /// The vault that it connects, where its program does that.
    pub(crate) fn vault(&self) -> Option<&str> {
        self.name.strip_prefix("turnlock-vault-")
    }

    /// Whether it is run in a container of its own.
    pub(crate) fn has_image(&self) -> bool {
        self.vault().is_none()
            && self.metadata.as_ref().and_then(|metadata| metadata.turnlock.as_ref()).is_none_or(|ours| ours.image)
    }

    /// The plugin, `turnlock`, or `vault-` and the vault.
    pub(crate) fn short_name(&self) -> &str {
        self.name.strip_prefix("turnlock-").unwrap_or(&self.name)
    }
}

/// Builds these programs as tests have them, and no more than they need.
pub(crate) fn build_plain<'a>(programs: impl IntoIterator<Item = &'a str>) -> Result<()> {
    // Of the workspace: with fewer packages cargo would choose other features and build every library anew.
    let mut build = cargo(&["build", "--quiet", "--workspace"]);
    for program in programs {
        build.args(["--bin", program]);
    }
    show(&mut build)
}

/// The size of a file in bytes.
pub(crate) fn size(file: &Path) -> Result<u64> {
    let found = std::fs::metadata(file);
    found.map(|found| found.len()).map_err(|error| LabError::new(format!("no {}: {error}", file.display())))
}

/// When the sources were committed: the time of everything that is packed.
pub(crate) fn source_date() -> Result<String> {
    let mut log = process::command("git");
    let told = process::run(log.args(["log", "-1", "--format=%ct"]).current_dir(root()), b"")?;
    match told.stdout.trim() {
        "" => Err(LabError::new(format!("git does not tell when the sources were committed: {}", told.stderr))),
        date => Ok(date.to_owned()),
    }
}

fn triple() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}
