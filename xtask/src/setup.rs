//! `cargo xtask setup`: installs what tests and demo need, and nothing that is there already.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use lab::{LabError, Postgresql, Result, mysql, process, python};

use crate::{
    root,
    say::{line, step},
};

/// Something that the tests or the demo need on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// The server's programs and psql.
    Postgresql,
    /// The server's programs and its client.
    Mariadb,
    /// A C compiler, for the power-cut shim and bundled SQLite.
    Compiler,
    /// Python with its standard library, for toy rotators and stand-ins in tests.
    Python,
    /// Other people's clients in Python, by which stand-ins are checked.
    PythonClients,
    /// The openssl program, for tests of certificates.
    Openssl,
    /// keepassxc-cli, which opens what was exported.
    Keepassxc,
    /// sshd, dropbear, PAM's modules and sudo, for hosts with accounts.
    UnixHosts,
    /// jq, by which the hooks of docs/hooks.md read what they are told.
    Jq,
    /// systemd's journal, which logs are sent to.
    Journal,
    /// slapd and the clients that come with it.
    Openldap,
    /// Samba as a domain controller, and what provisions one.
    Samba,
    /// podman and what it stands on, and buildah.
    Containers,
    /// What judges packages, units, manual pages and shell scripts.
    Packaging,
    /// The test runner.
    Nextest,
    /// MySQL 9 from Debian sid, unpacked into the lab's cache.
    Mysql,
    /// What builds for Windows and runs it: `cargo xtask windows` alone needs it.
    Windows,
}

/// Everything that tests and demo need, in the order of installation.
pub(crate) const ALL: &[Need] = &[
    Need::Postgresql,
    Need::Mariadb,
    Need::Compiler,
    Need::Python,
    Need::PythonClients,
    Need::Openssl,
    Need::Keepassxc,
    Need::UnixHosts,
    Need::Jq,
    Need::Journal,
    Need::Openldap,
    Need::Samba,
    Need::Containers,
    Need::Packaging,
    Need::Nextest,
    Need::Mysql,
];

const REFRESH: &str = "cargo xtask setup --refresh-mysql";
const PATIENCE: Duration = Duration::from_secs(1800);

/// The verb itself.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => {
            ensure(ALL)?;
            line("everything is there; next: cargo xtask test");
            Ok(())
        }
        ["--check"] => check(),
        ["--refresh-mysql"] => step("look for the newest MySQL in Debian sid", refresh_mysql),
        _ => Err(LabError::new("`cargo xtask setup` knows --check and --refresh-mysql")),
    }
}

/// Installs those of `needs` that are missing; silent when none is.
pub(crate) fn ensure(needs: &[Need]) -> Result<()> {
    let missing: Vec<Need> = needs.iter().copied().filter(|need| !need.is_met()).collect();
    let packages: Vec<&str> = missing.iter().flat_map(|need| need.packages()).copied().collect();
    if !packages.is_empty() {
        step(&format!("install {} with apt-get", packages.join(", ")), || apt_install(&packages))?;
    }
    if missing.contains(&Need::Nextest) {
        step("build cargo-nextest, which takes some minutes", || {
            quietly(crate::cargo(&["install", "--locked", "cargo-nextest"]).current_dir("/"))
        })?;
    }
    if missing.contains(&Need::Mysql) {
        step("download and unpack MySQL 9 (60 MB)", || unpack_mysql(mysql::LOCK))?;
    }
    if missing.contains(&Need::PythonClients) {
        step("install clients in Python", install_python_clients)?;
    }
    match missing.into_iter().find(|need| !need.is_met()) {
        None => Ok(()),
        Some(need) => Err(LabError::new(format!("{} was installed, and still cannot be found", need.name()))),
    }
}

fn check() -> Result<()> {
    let mut missing = 0;
    for need in ALL {
        let met = need.is_met();
        missing += usize::from(!met);
        line(&format!("{:<8} {}", if met { "there" } else { "missing" }, need.name()));
    }
    if missing == 0 { Ok(()) } else { Err(LabError::new(format!("{missing} missing; run: cargo xtask setup"))) }
}

impl Need {
    fn name(self) -> &'static str {
        match self {
            Self::Postgresql => "PostgreSQL, server and client",
            Self::Mariadb => "MariaDB, server and client",
            Self::Compiler => "a C compiler",
            Self::Python => "Python 3",
            Self::PythonClients => "clients in Python",
            Self::Openssl => "openssl",
            Self::Keepassxc => "KeePassXC's command line",
            Self::UnixHosts => "sshd, dropbear, sudo and PAM's modules",
            Self::Jq => "jq",
            Self::Journal => "systemd's journal",
            Self::Openldap => "OpenLDAP, server and clients",
            Self::Samba => "Samba's domain controller and a name server",
            Self::Containers => "podman, runc and buildah",
            Self::Packaging => "Debian's tools for packages, jq and make",
            Self::Nextest => "cargo-nextest",
            Self::Mysql => "MySQL 9 from Debian sid",
            Self::Windows => "Debian's own Rust with its source, mingw and wine",
        }
    }

    fn is_met(self) -> bool {
        let there = |name| process::find_program(name).is_some();
        match self {
            Self::Postgresql => Postgresql::programs().is_ok(),
            Self::Mariadb => there("mariadbd") && there("mariadb") && there("mariadb-install-db"),
            Self::Compiler => there("cc"),
            Self::Python => there("python3"),
            Self::PythonClients => python::environment().is_dir(),
            Self::Openssl => there("openssl"),
            Self::Keepassxc => there("keepassxc-cli"),
            Self::UnixHosts => {
                ["sshd", "ssh", "sshpass", "dropbear", "sudo", "unshare", "setpriv"].into_iter().all(there)
                    && pam_module().is_file()
                    && Path::new("/usr/bin/python3").is_file()
            }
            Self::Jq => there("jq"),
            Self::Journal => there("journalctl") && Path::new("/lib/systemd/systemd-journald").is_file(),
            Self::Openldap => {
                ["slapd", "slapadd", "ldapmodify", "ldapsearch", "ldapwhoami"].into_iter().all(there)
                    && process::User::for_server("openldap").is_ok()
            }
            Self::Samba => {
                ["samba", "samba-tool", "smbd", "smbclient", "net", "ldapmodify", "unshare", "dnsmasq"].into_iter().all(there)
                    // Without it provisioning ends half-way.
                    && Path::new("/usr/share/samba/setup/provision.ldif").is_file()
            }
            Self::Containers => ["podman", "runc", "buildah"].into_iter().all(there),
            Self::Packaging => {
                ["dpkg-deb", "lintian", "systemd-analyze", "man", "jq", "make"].into_iter().all(there)
                    && Path::new("/etc/ssl/certs/ca-certificates.crt").is_file()
            }
            Self::Nextest => there("cargo-nextest"),
            Self::Mysql => mysql::tree(mysql::LOCK).is_dir(),
            Self::Windows => {
                there("x86_64-w64-mingw32-gcc")
                    && [
                        "/usr/bin/cargo",
                        "/usr/bin/cargo-clippy",
                        "/usr/bin/rustc",
                        "/usr/lib/rustlib/src/rust/library/Cargo.lock",
                        "/usr/lib/wine/wine64",
                        "/usr/lib/wine/wineserver64",
                    ]
                    .into_iter()
                    .all(|path| Path::new(path).is_file())
            }
        }
    }

    fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Postgresql => &["postgresql", "postgresql-client"],
            Self::Mariadb => &["mariadb-server", "mariadb-client"],
            Self::Compiler => &["gcc", "libc6-dev"],
            Self::Python => &["python3"],
            Self::PythonClients => &["python3", "python3-venv"],
            Self::Openssl => &["openssl"],
            Self::Keepassxc => &["keepassxc"],
            Self::UnixHosts => &[
                "openssh-server",
                "openssh-client",
                "sshpass",
                "dropbear-bin",
                "sudo",
                "util-linux",
                "libpam-modules",
                "libpam-pwquality",
                "libcrypt-dev",
                "python3",
            ],
            Self::Jq => &["jq"],
            Self::Journal => &["systemd"],
            Self::Openldap => &["slapd", "ldap-utils"],
            Self::Samba => &[
                "samba",
                "samba-ad-dc",
                "samba-ad-provision",
                "samba-dsdb-modules",
                "samba-vfs-modules",
                "samba-common-bin",
                "smbclient",
                "ldap-utils",
                "util-linux",
                "dnsmasq-base",
            ],
            Self::Containers => &["podman", "runc", "buildah", "netavark"],
            Self::Packaging => &["dpkg", "lintian", "systemd", "man-db", "jq", "make", "ca-certificates"],
            Self::Windows => {
                &["rustc-web", "cargo-web", "rust-web-clippy", "rust-web-src", "gcc-mingw-w64-x86-64", "wine", "wine64"]
            }
            Self::Nextest | Self::Mysql => &[],
        }
    }
}

/// What the lab's hosts ask of PAM besides the modules that are always there.
fn pam_module() -> PathBuf {
    PathBuf::from(format!("/usr/lib/{}-linux-gnu/security/pam_pwquality.so", std::env::consts::ARCH))
}

/// Runs a command of which only a failure is worth reading.
fn quietly(command: &mut Command) -> Result<()> {
    let output = process::run_within(command, b"", PATIENCE)?;
    if output.succeeded() {
        return Ok(());
    }
    let name = command.get_program().to_string_lossy().into_owned();
    Err(LabError::new(format!("{name} ended with status {}:\n{}{}", output.status, output.stdout, output.stderr)))
}

fn apt_install(packages: &[&str]) -> Result<()> {
    let by_hand =
        format!("sudo apt-get update && sudo apt-get install -y --no-install-recommends {}", packages.join(" "));
    if process::find_program("apt-get").is_none() {
        return Err(LabError::new(format!(
            "this machine has no apt-get; install by other means what Debian calls: {}",
            packages.join(" ")
        )));
    }
    let prefix: &[&str] = if process::User::is_root() {
        &["env"]
    } else if quietly(process::command("sudo").args(["-n", "true"])).is_ok() {
        &["sudo", "-n", "env"]
    } else {
        return Err(LabError::new(format!(
            "you are not root and sudo asks for a password; run this, then again:\n  {by_hand}"
        )));
    };
    let apt = |arguments: &[&str]| {
        let (first, rest) = prefix.split_first().unwrap_or((&"env", &[]));
        let mut command = process::command(first);
        command.args(rest).args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]).args(arguments);
        quietly(&mut command)
    };
    apt(&["update"])?;
    let mut arguments = vec!["install", "-y", "--no-install-recommends"];
    arguments.extend(packages);
    apt(&arguments)
}

fn install_python_clients() -> Result<()> {
    install_python(&python::environment(), python::REQUIREMENTS)
}

/// A virtual environment with these packages, in place as a whole or not at all.
pub(crate) fn install_python(place: &Path, packages: &str) -> Result<()> {
    let parent = place.parent().unwrap_or(place);
    fs::create_dir_all(parent)
        .map_err(|error| LabError::new(format!("could not create {}: {error}", parent.display())))?;
    let requirements = parent.join("requirements.txt");
    process::write_file(&requirements, packages)?;
    // Its scripts name the place where it was made, so it is made there; a half one is made anew.
    let made = quietly(process::command("python3").args(["-m", "venv", "--clear"]).arg(place)).and_then(|()| {
        let mut pip = process::command(place.join("bin/python"));
        quietly(pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]).arg(&requirements))
    });
    made.inspect_err(|_| drop(fs::remove_dir_all(place)))
}

/// An apt of its own, beside the machine's: it knows Debian sid and no installed package.
struct Sid {
    directory: tempfile::TempDir,
}

impl Sid {
    fn new() -> Result<Self> {
        let directory =
            tempfile::tempdir().map_err(|error| LabError::new(format!("no temporary directory: {error}")))?;
        let place = directory.path();
        for name in ["state/lists/partial", "cache/archives/partial", "etc", "debs"] {
            fs::create_dir_all(place.join(name))
                .map_err(|error| LabError::new(format!("could not create {name}: {error}")))?;
        }
        let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
        if !Path::new(keyring).is_file() {
            return Err(LabError::new(format!(
                "{keyring} is missing: MySQL for the lab comes from Debian sid and is checked with it; install debian-archive-keyring"
            )));
        }
        let mirror = debian_mirror()?;
        process::write_file(&place.join("state/status"), "")?;
        process::write_file(&place.join("etc/sources.list"), format!("deb [signed-by={keyring}] {mirror} sid main\n"))?;
        let path = place.display();
        let conf = format!(
            "Dir::State \"{path}/state\";\nDir::State::status \"{path}/state/status\";\nDir::Cache \"{path}/cache\";\n\
             Dir::Etc::sourcelist \"{path}/etc/sources.list\";\nDir::Etc::sourceparts \"/nonexistent\";\n\
             APT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\n\
             Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n\
             #clear APT::Update::Post-Invoke;\n#clear APT::Update::Post-Invoke-Success;\n\
             #clear DPkg::Post-Invoke;\n"
        );
        process::write_file(&place.join("apt.conf"), conf)?;
        let sid = Self { directory };
        quietly(&mut sid.apt(&["update"]))?;
        Ok(sid)
    }

    fn apt(&self, arguments: &[&str]) -> Command {
        let mut apt = process::command("apt-get");
        apt.args(arguments)
            .env("APT_CONFIG", self.directory.path().join("apt.conf"))
            .current_dir(self.directory.path().join("debs"));
        apt
    }
}

/// Downloads exactly the locked packages, checks their hashes, and unpacks them beside each other.
fn unpack_mysql(lock: &str) -> Result<()> {
    let locked: Vec<Package> = lock.lines().filter_map(Package::parse).collect();
    if locked.is_empty() {
        return Err(LabError::new(format!("tests/lab/mysql-sid.lock names no package; run: {REFRESH}")));
    }
    let sid = Sid::new()?;
    let names: Vec<String> = locked.iter().map(|package| format!("{}={}", package.name, package.version)).collect();
    let mut arguments = vec!["download"];
    arguments.extend(names.iter().map(String::as_str));
    quietly(&mut sid.apt(&arguments)).map_err(|error| {
        LabError::new(format!(
            "{error}\nDebian sid moves, and the packages locked in tests/lab/mysql-sid.lock may be gone from the mirror; \
             lock the present ones with: {REFRESH}"
        ))
    })?;
    let found = packages_in(&sid.directory.path().join("debs"))?;
    for package in &locked {
        if !found.iter().any(|(_, found)| found == package) {
            return Err(LabError::new(format!(
                "the package {} {} from the mirror has not the hash in tests/lab/mysql-sid.lock; \
                 when that is as it should be, lock the present one with: {REFRESH}",
                package.name, package.version
            )));
        }
    }
    unpack(found.iter().map(|(path, _)| path.as_path()), &mysql::tree(lock))
}

fn refresh_mysql() -> Result<()> {
    let sid = Sid::new()?;
    quietly(&mut sid.apt(&["-y", "--no-install-recommends", "--download-only", "install", "mysql-server-core"]))?;
    let mut found = packages_in(&sid.directory.path().join("cache/archives"))?;
    found.sort_by(|one, other| one.1.name.cmp(&other.1.name));
    let mut lock = format!("# MySQL for the lab, from Debian sid: name version sha256. Written by `{REFRESH}`.\n");
    for (_, package) in &found {
        lock.push_str(&format!("{} {} {}\n", package.name, package.version, package.sha256));
    }
    unpack(found.iter().map(|(path, _)| path.as_path()), &mysql::tree(&lock))?;
    process::write_file(&root().join("tests/lab/mysql-sid.lock"), lock)?;
    line(&format!("    tests/lab/mysql-sid.lock holds {} packages", found.len()));
    Ok(())
}

/// A line of the lock.
#[derive(Debug, PartialEq, Eq)]
struct Package {
    name: String,
    version: String,
    sha256: String,
}

impl Package {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace().map(str::to_owned);
        let package = Self { name: words.next()?, version: words.next()?, sha256: words.next()? };
        (!package.name.starts_with('#')).then_some(package)
    }
}

fn packages_in(directory: &Path) -> Result<Vec<(PathBuf, Package)>> {
    let entries = fs::read_dir(directory)
        .map_err(|error| LabError::new(format!("could not list {}: {error}", directory.display())))?;
    entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .map(|path| {
            let mut show = process::command("dpkg-deb");
            show.args(["--showformat=${Package} ${Version} ", "--show"]).arg(&path);
            let shown = process::run(&mut show, b"")?.stdout;
            let summed = process::run(process::command("sha256sum").arg(&path), b"")?.stdout;
            Package::parse(&format!("{shown}{summed}"))
                .map(|package| (path.clone(), package))
                .ok_or_else(|| LabError::new(format!("{} is not a Debian package", path.display())))
        })
        .collect()
}

/// Unpacks into a draft and renames it, so that the tree is there as a whole or not at all.
fn unpack<'a>(packages: impl Iterator<Item = &'a Path>, tree: &Path) -> Result<()> {
    if tree.is_dir() {
        return Ok(());
    }
    let could_not =
        |what: &str, error: std::io::Error| LabError::new(format!("could not {what} {}: {error}", tree.display()));
    let parent = tree.parent().unwrap_or(tree);
    fs::create_dir_all(parent).map_err(|error| could_not("make room for", error))?;
    let draft = tempfile::tempdir_in(parent).map_err(|error| could_not("make a draft of", error))?;
    for package in packages {
        quietly(process::command("dpkg-deb").arg("--extract").arg(package).arg(draft.path()))?;
    }
    let draft = draft.keep();
    // The server runs as another user.
    quietly(process::command("chmod").arg("755").arg(&draft))?;
    match fs::rename(&draft, tree) {
        Ok(()) => Ok(()),
        // Somebody else was faster, with the same packages.
        Err(_) if tree.is_dir() => fs::remove_dir_all(&draft).map_err(|error| could_not("remove a draft of", error)),
        Err(error) => Err(could_not("rename to", error)),
    }
}

/// The mirror from which this machine itself installs Debian.
fn debian_mirror() -> Result<String> {
    let os = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let release = os.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).unwrap_or("").trim_matches('"');
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    files.extend(fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten().map(|entry| entry.path()));
    files
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .find_map(|text| mirror_in(&text, release))
        .ok_or_else(|| {
            LabError::new(format!(
                "the apt sources of this machine name no Debian mirror for {release:?}; MySQL for the lab comes from such a mirror"
            ))
        })
}

/// Finds the mirror of a release in a sources file of either form.
fn mirror_in(text: &str, release: &str) -> Option<String> {
    let one_line = text.lines().find_map(|line| {
        let rest = line.trim().strip_prefix("deb ")?.trim_start();
        let rest = if rest.starts_with('[') { rest.split_once(']')?.1 } else { rest };
        let words: Vec<&str> = rest.split_whitespace().collect();
        match words.as_slice() {
            [uri, suite, components @ ..] if *suite == release && components.contains(&"main") => {
                Some((*uri).to_owned())
            }
            _ => None,
        }
    });
    one_line.or_else(|| {
        text.split("\n\n").find_map(|stanza| {
            let field = |name: &str| stanza.lines().find_map(|line| line.strip_prefix(name));
            let has =
                |name: &str, word: &str| field(name).is_some_and(|value| value.split_whitespace().any(|w| w == word));
            (has("Types:", "deb") && has("Suites:", release) && has("Components:", "main"))
                .then(|| field("URIs:")?.split_whitespace().next().map(str::to_owned))?
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_the_machines_own() {
        let stanzas = "Types: deb\n# a comment\nURIs: http://one.test/debian\nSuites: stable stable-updates\nComponents: main\n\n\
                       Types: deb\nURIs: http://two.test/security\nSuites: stable-security\nComponents: main\n";
        assert_eq!(mirror_in(stanzas, "stable").as_deref(), Some("http://one.test/debian"));
        assert_eq!(mirror_in(stanzas, "other"), None);
        let lines = "# deb http://no.test/ stable main\ndeb http://two.test/ stable-security main\n\
                     deb [arch=amd64 signed-by=/k] http://one.test/debian stable main contrib\n";
        assert_eq!(mirror_in(lines, "stable").as_deref(), Some("http://one.test/debian"));
    }

    #[test]
    fn the_lock_is_read_whole() {
        let packages: Vec<Package> = mysql::LOCK.lines().filter_map(Package::parse).collect();
        assert!(packages.iter().any(|package| package.name == "mysql-server-core"));
        assert!(packages.iter().all(|package| package.sha256.len() == 64));
        assert_eq!(packages.len() + 1, mysql::LOCK.lines().count());
    }
}
