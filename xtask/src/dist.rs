//! `cargo xtask dist`: what a release consists of. A tarball, a Debian package,
//! a bill of materials and their checksums; two builds of one commit give the
//! same bytes.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use lab::{LabError, Result, process};
use serde_json::Value;

use crate::{
    bill,
    programs::{Build, ORCHESTRATOR, Package, Workspace, size, source_date},
    root,
    say::{line, step},
    setup::{self, Need},
};

const PATIENCE: Duration = Duration::from_secs(600);

/// The verb itself: everything, or what is named; with `--quick` as tests have built it.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let (quick, plugins) = arguments_of(arguments)?;
    setup::ensure(&[Need::Compiler])?;
    let workspace = Workspace::read()?;
    let packages = workspace.chosen(plugins)?;
    let how = if quick { Build::Plain } else { Build::Release };
    let programs = step("build the programs", || workspace.build(&packages, how))?;
    let place = workspace.place(if quick { "dist-quick" } else { "dist" });
    let release = Release::new(&packages, programs, &place, quick)?;
    step("lay out", || release.lay_out())?;
    let made = [
        step("write the tarball", || release.tarball())?,
        step("write the Debian package", || release.debian())?,
        step("write the bill of materials", || release.bill(&workspace))?,
    ];
    let sums = release.checksums(&made)?;
    for package in &packages {
        line(&format!("{:>12}  {}", size(&release.tree().join("bin").join(&package.name))?, package.name));
    }
    for file in made.iter().chain([&sums]) {
        line(&format!("{:>12}  {}", size(file)?, file.display()));
    }
    Ok(())
}

/// `[--quick] [NAME…]`: whether it is only a test, and of what.
pub(crate) fn arguments_of(arguments: &[String]) -> Result<(bool, &[String])> {
    let (quick, names) = match arguments.split_first() {
        Some((word, names)) if word == "--quick" => (true, names),
        _ => (false, arguments),
    };
    match names.iter().find(|name| name.starts_with('-')) {
        None => Ok((quick, names)),
        Some(word) => Err(LabError::new(format!("`{word}` is not known here: give --quick, then names, or nothing"))),
    }
}

/// One version of everything, on its way into files.
struct Release<'a> {
    packages: &'a [&'a Package],
    programs: PathBuf,
    place: &'a Path,
    /// Stripped here, and hardly compressed: it is only looked into.
    quick: bool,
    version: &'a str,
    /// Of the commit, for every time that is written down.
    date: String,
}

impl<'a> Release<'a> {
    fn new(packages: &'a [&'a Package], programs: PathBuf, place: &'a Path, quick: bool) -> Result<Self> {
        let version = packages.first().map_or("", |package| package.version.as_str());
        Ok(Self { packages, programs, place, quick, version, date: source_date()? })
    }

    /// How hard it is compressed.
    fn level(&self) -> &'static str {
        if self.quick { "1" } else { "9" }
    }

    /// The tree that tarball and package share: what goes below `/usr`.
    fn tree(&self) -> PathBuf {
        self.place.join(format!("turnlock-{}-{}-linux", self.version, std::env::consts::ARCH))
    }

    fn lay_out(&self) -> Result<()> {
        // What an earlier release left there is none of this one.
        drop(fs::remove_dir_all(self.place));
        for package in self.packages {
            let to = format!("bin/{}", package.name);
            self.put(&self.programs.join(&package.name), &to, 0o755)?;
            if self.quick {
                succeed(process::command("strip").arg(self.tree().join(to)))?;
            }
        }
        let man = self.tree().join("share/man/man1");
        fs::create_dir_all(&man).map_err(|error| LabError::new(format!("could not create {man:?}: {error}")))?;
        self.turnlock(&["man", "--directory", &man.display().to_string()])?;
        for (shell, file) in [
            ("bash", "share/bash-completion/completions/turnlock"),
            ("zsh", "share/zsh/vendor-completions/_turnlock"),
            ("fish", "share/fish/vendor_completions.d/turnlock.fish"),
        ] {
            self.write(file, &self.turnlock(&["completions", shell])?)?;
        }
        for file in ["README.md", "CHANGELOG.md", "SECURITY.md", "PROTOCOL.md", "LICENSE-MIT", "LICENSE-APACHE"] {
            self.put(&root().join(file), &format!("share/doc/turnlock/{file}"), 0o644)?;
        }
        for package in self.packages {
            let (directory, name, page) = match (package.plugin(), package.vault()) {
                (Some(plugin), _) => ("rotators", plugin, manual(&self.described(package)?)),
                (_, Some(vault)) => ("vaults", vault, manual_of_vault(package, vault)),
                _ => continue,
            };
            let readme = root().join(directory).join(name).join("README.md");
            self.put(&readme, &format!("share/doc/turnlock/{directory}/{name}.md"), 0o644)?;
            self.write(&format!("share/man/man1/{}.1", package.name), &page)?;
        }
        for (from, to) in [
            ("turnlock-rotate.service", "lib/systemd/system/turnlock-rotate.service"),
            ("turnlock-rotate.timer", "lib/systemd/system/turnlock-rotate.timer"),
            ("turnlock.sysusers", "lib/sysusers.d/turnlock.conf"),
        ] {
            self.put(&root().join("packaging").join(from), to, 0o644)?;
        }
        Ok(())
    }

    fn tarball(&self) -> Result<PathBuf> {
        let tree = self.tree();
        let name = tree.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let archive = self.place.join(format!("{name}.tar.gz"));
        let mut tar = process::command("tar");
        tar.args(["--sort=name", "--format=ustar", "--owner=0", "--group=0", "--numeric-owner"])
            .arg(format!("--mtime=@{}", self.date))
            .arg(format!("--use-compress-program=gzip -{}n", self.level()))
            .args(["--create", "--file"])
            .arg(&archive)
            .arg("--directory")
            .arg(self.place)
            .arg(name);
        succeed(&mut tar)?;
        Ok(archive)
    }

    /// By dpkg-deb itself: the package is this very tree with three files
    /// before it, and cargo-deb would build once more what is built already.
    fn debian(&self) -> Result<PathBuf> {
        let image = self.place.join("debian");
        let below = image.join("usr");
        let failed = |error| LabError::new(format!("could not lay out {}: {error}", image.display()));
        fs::create_dir_all(image.join("DEBIAN")).map_err(failed)?;
        succeed(process::command("cp").arg("--recursive").arg(self.tree()).arg(&below))?;
        for page in entries(&below.join("share/man/man1"))? {
            succeed(process::command("gzip").arg("-9n").arg(page))?;
        }
        let documents = below.join("share/doc/turnlock");
        let date = succeed(process::command("date").args(["--utc", "-R", "-d"]).arg(format!("@{}", self.date)))?;
        let changes = CHANGES.replace("{version}", self.version).replace("{date}", date.trim());
        process::write_file(&documents.join("changelog"), changes)?;
        succeed(process::command("gzip").arg("-9n").arg(documents.join("changelog")))?;
        process::write_file(&documents.join("copyright"), COPYRIGHT)?;
        let installed = succeed(process::command("du").args(["--summarize", "--apparent-size", "-k"]).arg(&below))?;
        let installed = installed.split_whitespace().next().unwrap_or("0").to_owned();
        let architecture = succeed(process::command("dpkg").arg("--print-architecture"))?.trim().to_owned();
        let control = CONTROL
            .replace("{version}", self.version)
            .replace("{architecture}", &architecture)
            .replace("{installed}", &installed);
        process::write_file(&image.join("DEBIAN/control"), control)?;
        succeed(
            process::command("install")
                .args(["-m", "755"])
                .arg(root().join("packaging/postinst"))
                .arg(image.join("DEBIAN/postinst")),
        )?;
        // Modes as Debian's own packages have them, whatever the umask was.
        succeed(process::command("chmod").args(["--recursive", "u+rwX,go+rX,go-w"]).arg(&image))?;
        let package = self.place.join(format!("turnlock_{}_{architecture}.deb", self.version));
        let mut build = process::command("dpkg-deb");
        build.env("SOURCE_DATE_EPOCH", &self.date);
        succeed(
            build
                .args(["--root-owner-group", if self.quick { "-Zgzip" } else { "-Zxz" }, "-z", self.level(), "--build"])
                .arg(&image)
                .arg(&package),
        )?;
        fs::remove_dir_all(&image).map_err(failed)?;
        Ok(package)
    }

    fn bill(&self, workspace: &Workspace) -> Result<PathBuf> {
        let file = self.place.join(format!("turnlock-{}.cdx.json", self.version));
        let bill = bill::of_materials(workspace, self.packages, &self.date)?;
        process::write_file(&file, format!("{bill:#}\n"))?;
        Ok(file)
    }

    fn checksums(&self, made: &[PathBuf]) -> Result<PathBuf> {
        let names = made.iter().filter_map(|file| file.file_name());
        let sums = succeed(process::command("sha256sum").args(names).current_dir(self.place))?;
        let file = self.place.join("SHA256SUMS");
        process::write_file(&file, sums)?;
        Ok(file)
    }

    fn turnlock(&self, arguments: &[&str]) -> Result<String> {
        // It works out where a vault would be, although none is looked for.
        succeed(process::clean_command(self.programs.join(ORCHESTRATOR)).args(arguments).env("HOME", "/nonexistent"))
    }

    fn described(&self, package: &Package) -> Result<Value> {
        let told = succeed(process::clean_command(self.programs.join(&package.name)).arg("describe"))?;
        serde_json::from_str(&told)
            .map_err(|error| LabError::new(format!("{} describes itself wrongly: {error}", package.name)))
    }

    fn put(&self, from: &Path, to: &str, mode: u32) -> Result<()> {
        let mut install = process::command("install");
        install.arg("-D").arg(format!("--mode={mode:o}")).arg(from).arg(self.tree().join(to));
        succeed(&mut install).map(drop)
    }

    fn write(&self, to: &str, text: &str) -> Result<()> {
        let path = self.tree().join(to);
        let above = path.parent().unwrap_or(&path);
        fs::create_dir_all(above).map_err(|error| LabError::new(format!("could not create {above:?}: {error}")))?;
        process::write_file(&path, text)
    }
}

const CONTROL: &str = "\
Package: turnlock
Version: {version}
Architecture: {architecture}
Maintainer: Turnlock's contributors <turnlock@example.org>
Installed-Size: {installed}
Recommends: ca-certificates
Suggests: podman
Section: admin
Priority: optional
Description: rotates credentials and loses none
 Turnlock takes a record from a vault, works out what kind of account it is,
 makes a new secret, changes it on the real system, proves by logging in that
 it works, and commits it to the vault. Every rotator is a small program of its
 own. All programs are static: nothing but the kernel is needed.
";

const CHANGES: &str = "\
turnlock ({version}) unstable; urgency=medium

  * What changed is in CHANGELOG.md beside this file.

 -- Turnlock's contributors <turnlock@example.org>  {date}
";

const COPYRIGHT: &str = "\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: turnlock

Files: *
Copyright: Turnlock's contributors
License: MIT or Apache-2.0
 The texts are beside this file, as LICENSE-MIT and LICENSE-APACHE. What is
 linked into the programs, and under which licences, is in the bill of
 materials that is published with each release.
";

/// A rotator's manual page, from its own words.
fn manual(describe: &Value) -> String {
    let text = |value: &Value| roff(value.as_str().unwrap_or_default());
    let (plugin, version) = (text(&describe["plugin"]), text(&describe["version"]));
    let mut page = format!(
        ".TH TURNLOCK\\-{} 1 \"\" \"turnlock {version}\"\n\
         .SH NAME\nturnlock\\-{plugin} \\- {}\n\
         .SH SYNOPSIS\n.B turnlock\\-{plugin}\n.I operation\n< params.json\n\
         .SH DESCRIPTION\nOne of Turnlock's rotators. Operations are describe, plan, check, prepare, rotate, apply, verify, \
         finish, revert and serve. Standard input is one JSON object, standard output one JSON value a line; the last one \
         is the result or the error. No secret goes into an argument or the environment.\n.SH FIELDS\n",
        plugin.to_uppercase(),
        text(&describe["summary"]).trim_end_matches('.'),
    );
    for (name, field) in describe.pointer("/schema/properties").and_then(Value::as_object).into_iter().flatten() {
        page.push_str(&format!(".TP\n.B {}\n{}\n", roff(name), text(&field["description"])));
    }
    page.push_str(&format!(
        ".SH EXIT STATUS\n0 done, 1 a bug, 2 malformed input, 3 failed and nothing changed, 4 changed and not all is done, \
         5 unknown.\n.SH SEE ALSO\n.BR turnlock (1),\n/usr/share/doc/turnlock/rotators/{plugin}.md\n"
    ));
    page
}

/// A vault program's manual page: it is no command of its own.
fn manual_of_vault(package: &Package, vault: &str) -> String {
    let (version, about) = (roff(&package.version), roff(package.description.as_deref().unwrap_or_default()));
    format!(
        ".TH TURNLOCK\\-VAULT\\-{} 1 \"\" \"turnlock {version}\"\n\
         .SH NAME\nturnlock\\-vault\\-{vault} \\- {}\n\
         .SH DESCRIPTION\n.BR turnlock (1)\nstarts it for\n.BR \"\\-\\-vault {vault}:\\fIPLACE\\fR\" ;\nby itself it is of no use.\n\
         .SH SEE ALSO\n.BR turnlock (1),\n/usr/share/doc/turnlock/vaults/{vault}.md\n",
        vault.to_uppercase(),
        about.trim_end_matches('.'),
    )
}

/// Text as roff takes it: no escapes of its own, no line that begins a request.
fn roff(text: &str) -> String {
    let plain = text.replace('\\', "\\e").replace('-', "\\-").split_whitespace().collect::<Vec<_>>().join(" ");
    if plain.starts_with(['.', '\'']) { format!("\\&{plain}") } else { plain }
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let listed = fs::read_dir(directory);
    let listed = listed.map_err(|error| LabError::new(format!("could not list {}: {error}", directory.display())))?;
    Ok(listed.flatten().map(|entry| entry.path()).collect())
}

/// Runs a command to its end; its standard output.
pub(crate) fn succeed(command: &mut std::process::Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = process::run_within(command, b"", PATIENCE)?;
    if output.succeeded() {
        return Ok(output.stdout);
    }
    Err(LabError::new(format!("{name} ended with status {}:\n{}{}", output.status, output.stdout, output.stderr)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_manual_page_lists_the_fields_and_no_text_becomes_a_request() {
        let describe = json!({"plugin": "one", "version": "1.0", "summary": "Does one\n.so thing.",
            "schema": {"properties": {"login": {"description": ".the account\\n"}}}});
        let page = manual(&describe);
        assert!(page.contains(".B login\n\\&.the account\\en\n"), "{page}");
        assert!(page.contains("turnlock\\-one \\- Does one .so thing\n"), "{page}");
    }
}
