//! `cargo xtask images`: one image for each rotator and one for the
//! orchestrator with all of them. Built from scratch without a registry; two
//! builds of the same programs give the same digests. Each is run afterwards,
//! and those of PostgreSQL and MariaDB rotate an account of a real server.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use lab::{
    AccountOptions, LabError, MysqlOptions, Postgresql, PostgresqlOptions, Result, containers::Podman, mariadb, process,
};
use serde_json::{Value, json};

use crate::{
    demo::aligned,
    dist::{arguments_of, succeed},
    programs::{Build, ORCHESTRATOR, Package, Workspace, size, source_date},
    root,
    say::{line, step},
    setup::{self, Need},
};

/// The authorities that a program in an image trusts: this machine's.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Nobody's number on any machine, and distroless images' custom.
const USER: u32 = 65532;

/// Options of every container that runs here, as docs/containers.md has them.
const MODEST: [&str; 5] = ["--rm", "--interactive", "--log-driver=none", "--read-only", "--network=host"];

/// The verb itself: all images, or the named ones; with `--quick` of what tests have built, and tried by nobody.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let (quick, plugins) = arguments_of(arguments)?;
    setup::ensure(&[Need::Compiler, Need::Containers])?;
    if !quick {
        setup::ensure(&[Need::Postgresql, Need::Mariadb])?;
    }
    let workspace = Workspace::read()?;
    let packages = workspace.chosen(plugins)?;
    let how = if quick { Build::Plain } else { Build::Release };
    let programs = step("build the programs", || workspace.build(&packages, how))?;
    let builder = Builder {
        programs,
        quick,
        date: source_date()?,
        revision: revision()?,
        podman: Podman::of_this_user(&workspace.place("podman"))?,
    };
    let mut rows = vec![["IMAGE", "PROGRAMS", "IMAGE", "BEYOND", "DIGEST"].map(str::to_owned)];
    for package in &packages {
        let within = match package.name == ORCHESTRATOR {
            true => packages.clone(),
            false if package.has_image() => vec![*package],
            false => continue,
        };
        let name = format!("turnlock/{}", package.short_name());
        rows.push(step(&format!("build {name}"), || builder.build(&name, package, &within))?);
    }
    if !quick {
        let built: Vec<&str> = rows.iter().skip(1).map(|[reference, ..]| reference.as_str()).collect();
        step("run each of them", || builder.run_each(&built))?;
        step("rotate an account of PostgreSQL from its image", || builder.rotate_postgresql(&built))?;
        step("rotate an account of MariaDB from its image", || builder.rotate_mariadb(&built))?;
    }
    line("");
    for row in aligned(&rows) {
        line(&row);
    }
    line("\nSizes are megabytes of a million bytes; by digest an image is named in turnlock.toml.");
    Ok(())
}

struct Builder {
    programs: PathBuf,
    quick: bool,
    date: String,
    revision: String,
    podman: Podman,
}

impl Builder {
    /// Builds one image; what the table says of it.
    fn build(&self, name: &str, package: &Package, within: &[&Package]) -> Result<[String; 5]> {
        let context = tempfile::tempdir().map_err(|error| LabError::new(format!("no temporary directory: {error}")))?;
        self.lay_out(&context.path().join("root"), package, within)?;
        fs::create_dir(context.path().join("home"))
            .map_err(|error| LabError::new(format!("could not lay out a home: {error}")))?;
        process::write_file(&context.path().join("Containerfile"), self.containerfile(package))?;
        let reference = format!("localhost/{name}:{}", package.version);
        let mut build = self.podman.buildah();
        build.args(["build", "--quiet", "--isolation=chroot", "--layers=false", "--pull-never", "--format=oci"]);
        // Of the files, and of the image itself.
        build.arg(format!("--timestamp={}", self.date)).args(["--identity-label=false", "--tag", &reference]);
        succeed(build.arg(context.path()))?;
        let mut inspect = self.podman.command();
        let told = succeed(inspect.args(["image", "inspect", "--format={{.Digest}} {{.Size}}", &reference]))?;
        let (digest, image) = told.trim().split_once(' ').unwrap_or((told.trim(), "0"));
        let programs = within.iter().map(|one| size(&self.programs.join(&one.name))).sum::<Result<u64>>()? as f64;
        let image: f64 = image.parse().unwrap_or(f64::NAN);
        let megabytes = |bytes: f64| format!("{:.2}", bytes / 1e6);
        let row = [reference, megabytes(programs), megabytes(image), megabytes(image - programs), digest.to_owned()];
        Ok(row)
    }

    /// The whole file system: programs, authorities, a name for the user, the licences.
    fn lay_out(&self, place: &Path, package: &Package, within: &[&Package]) -> Result<()> {
        let failed = |error| LabError::new(format!("could not lay out {}: {error}", place.display()));
        for directory in ["etc/ssl/certs", "usr/bin", "usr/share/licenses/turnlock"] {
            fs::create_dir_all(place.join(directory)).map_err(failed)?;
        }
        for one in within {
            let (from, to) = (self.programs.join(&one.name), place.join("usr/bin").join(&one.name));
            fs::copy(&from, &to).map_err(failed)?;
            if self.quick {
                succeed(process::command("strip").arg(&to))?;
                for library in libraries(&from)? {
                    let to = place.join(library.trim_start_matches('/'));
                    fs::create_dir_all(to.parent().unwrap_or(place)).map_err(failed)?;
                    fs::copy(&library, to).map_err(failed)?;
                }
            }
        }
        fs::copy(AUTHORITIES, place.join("etc/ssl/certs/ca-certificates.crt")).map_err(failed)?;
        let home = if package.name == ORCHESTRATOR { HOME } else { "/" };
        process::write_file(&place.join("etc/passwd"), format!("turnlock:x:{USER}:{USER}::{home}:/nonexistent\n"))?;
        process::write_file(&place.join("etc/group"), format!("turnlock:x:{USER}:\n"))?;
        for license in ["LICENSE-MIT", "LICENSE-APACHE"] {
            fs::copy(root().join(license), place.join("usr/share/licenses/turnlock").join(license)).map_err(failed)?;
        }
        // Modes as they shall be, whatever the umask was.
        succeed(process::command("chmod").args(["--recursive", "u=rwX,go=rX"]).arg(place))?;
        Ok(())
    }

    fn containerfile(&self, package: &Package) -> String {
        let title = &package.name;
        let about = package.description.as_deref().unwrap_or_default().replace('"', "'");
        let (version, revision) = (&package.version, &self.revision);
        let license = package.license.as_deref().unwrap_or_default();
        let home = match package.plugin() {
            Some(_) => String::new(),
            None => format!("COPY --chown={USER}:{USER} home/ {HOME}/\nENV HOME={HOME}\nVOLUME {HOME}\n"),
        };
        format!(
            "FROM scratch\nCOPY root/ /\n{home}USER {USER}:{USER}\nWORKDIR /\n\
             LABEL org.opencontainers.image.title=\"{title}\" \\\n\
             \x20     org.opencontainers.image.description=\"{about}\" \\\n\
             \x20     org.opencontainers.image.version=\"{version}\" \\\n\
             \x20     org.opencontainers.image.revision=\"{revision}\" \\\n\
             \x20     org.opencontainers.image.licenses=\"{license}\"\n\
             ENTRYPOINT [\"/usr/bin/{title}\"]\n"
        )
    }
}

impl Builder {
    /// Every image starts, and says what it is.
    fn run_each(&self, images: &[&str]) -> Result<()> {
        for image in images {
            let ours = image.contains(&format!("/{ORCHESTRATOR}:"));
            let told = self.run(image, if ours { "--version" } else { "describe" }, None)?;
            if told.is_empty() {
                return Err(LabError::new(format!("{image} says nothing")));
            }
        }
        Ok(())
    }

    fn rotate_postgresql(&self, images: &[&str]) -> Result<()> {
        let Some(image) = of("postgresql", images) else { return Ok(()) };
        let server = Postgresql::start(PostgresqlOptions::default())?;
        server.create_role("app", BEGIN)?;
        let next = self.rotate(image, server.host(), server.port(), &server.ca_path())?;
        proven(server.accepts("app", &next)?, server.accepts("app", BEGIN)?)
    }

    fn rotate_mariadb(&self, images: &[&str]) -> Result<()> {
        let Some(image) = of("mysql", images) else { return Ok(()) };
        let server = mariadb::start(MysqlOptions::default())?;
        server.create_account("app", "%", BEGIN, AccountOptions::default())?;
        let next = self.rotate(image, server.host(), server.port(), &server.ca_path())?;
        proven(server.accepts("app", &next)?, server.accepts("app", BEGIN)?)
    }

    /// Rotates an account; its new password.
    fn rotate(&self, image: &str, host: &str, port: u16, ca: &Path) -> Result<String> {
        let ca = fs::read_to_string(ca).map_err(|error| LabError::new(format!("no authority: {error}")))?;
        let account = json!({"host": host, "port": port, "login": "app", "ca": ca});
        let params = json!({"account": account, "current": {"password": BEGIN}});
        let told = self.run(image, "rotate", Some(&params))?;
        let candidate = told.lines().next().and_then(|line| serde_json::from_str::<Value>(line).ok());
        let candidate = candidate.as_ref().and_then(|line| line.pointer("/candidate/password")?.as_str());
        candidate.map(str::to_owned).ok_or_else(|| LabError::new(format!("{image} told no candidate")))
    }

    fn run(&self, image: &str, operation: &str, params: Option<&Value>) -> Result<String> {
        let mut run = self.podman.command();
        run.arg("run").args(MODEST).args([image, operation]);
        let told = process::run(&mut run, params.map(Value::to_string).unwrap_or_default().as_bytes())?;
        // What it wrote to standard output may be a secret.
        let failed = || LabError::new(format!("{image} {operation} ended with {}: {}", told.status, told.stderr));
        told.succeeded().then_some(told.stdout.clone()).ok_or_else(failed)
    }
}

/// The password before the rotation.
const BEGIN: &str = "Begin-With-This-1";

fn of<'a>(plugin: &str, images: &[&'a str]) -> Option<&'a str> {
    images.iter().copied().find(|image| image.contains(&format!("/{plugin}:")))
}

fn proven(new: bool, old: bool) -> Result<()> {
    match (new, old) {
        (true, false) => Ok(()),
        _ => Err(LabError::new(format!("afterwards, the server takes the new password: {new}, the old one: {old}"))),
    }
}

/// The shared libraries that a program of the tests needs, by their paths.
fn libraries(program: &Path) -> Result<BTreeSet<String>> {
    let told = succeed(process::command("ldd").arg(program))?;
    Ok(told.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned).collect())
}

/// Where the orchestrator keeps vault, key and configuration; to be mounted.
const HOME: &str = "/var/lib/turnlock";

fn revision() -> Result<String> {
    let mut git = process::command("git");
    succeed(git.args(["rev-parse", "HEAD"]).current_dir(root())).map(|told| told.trim().to_owned())
}
