//! `cargo xtask windows`: what is meant for Windows is linted, built and
//! tested for it, under wine. Real Windows is another thing.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use lab::{LabError, Result, process};

use crate::{
    root,
    say::{line, step},
    setup::{self, Need},
    show,
};

/// What is meant for Windows. To add a package, name it here: its own tests,
/// compiled for Windows, are what is run.
const PACKAGES: &[&str] =
    &["turnlock-protocol", "turnlock-kit", "turnlock-noop", "turnlock-samr", "turnlock-windows", "turnlock-pspasswd"];

/// Libraries of Windows that wine lacks or has only in part. Each is
/// `tests/lab/windows/<name>.c`, which says what it does not prove.
const STAND_INS: &[&str] = &["bcryptprimitives", "netapi32"];

const TARGET: &str = "x86_64-pc-windows-gnu";
const PATIENCE: Duration = Duration::from_secs(120);

/// The verb itself.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    if let Some(word) = arguments.first() {
        return Err(LabError::new(format!("`cargo xtask windows` takes no arguments, and got `{word}`")));
    }
    setup::ensure(&[Need::Windows])?;
    let place = Place::new()?;
    step("make a Windows of wine and stand-ins", || place.furnish())?;
    step("check the stand-in for netapi32.dll", || place.try_netapi32())?;
    step("check the lints for Windows", || {
        let mut clippy = place.debian("/usr/bin/cargo-clippy");
        clippy.arg("clippy").args(place.what()).args(["--all-targets", "--quiet", "--", "-D", "warnings"]);
        show(&mut clippy)
    })?;
    let tested = step("build for Windows and test under wine", || {
        show(place.debian("/usr/bin/cargo").arg("test").args(place.what()).args(["--no-fail-fast", "--", "--quiet"]))
    });
    place.leave();
    tested?;
    line("under wine everything passed; that is not Windows");
    Ok(())
}

/// Where everything for Windows lies: cargo's output and wine's drive C.
struct Place(PathBuf);

impl Place {
    fn new() -> Result<Self> {
        let target = process::environment("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
        let place = root().join(target).join("windows");
        fs::create_dir_all(&place).map_err(|error| LabError::new(format!("could not create {place:?}: {error}")))?;
        Ok(Self(place))
    }

    /// Debian's cargo or clippy. It comes with the standard library's source,
    /// so that no toolchain for Windows has to be downloaded.
    fn debian(&self, program: &str) -> Command {
        let mut command = self.within(program);
        command
            .current_dir(root())
            .env("CARGO", "/usr/bin/cargo")
            .env("RUSTC", "/usr/bin/rustc")
            .env("RUSTDOC", "/usr/bin/rustdoc")
            // Building the standard library is not stable.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_TARGET_DIR", &self.0)
            .env("CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER", WINE)
            .env("CARGO_PROFILE_DEV_DEBUG", "false")
            // cargo, which started us, names the libraries of another compiler here.
            .env_remove("LD_LIBRARY_PATH");
        command
    }

    fn what(&self) -> Vec<&'static str> {
        let packages = PACKAGES.iter().flat_map(|package| ["--package", package]);
        ["-Zbuild-std", "--target", TARGET, "--locked"].into_iter().chain(packages).collect()
    }

    /// A command whose programs for Windows find this drive C, and the stand-ins there.
    fn within(&self, program: &str) -> Command {
        let mut command = process::command(program);
        command
            .env("WINEPREFIX", self.prefix())
            .env("WINEDEBUG", "-all")
            .env("WINEDLLOVERRIDES", format!("{}=n;mscoree,mshtml=", STAND_INS.join(",")))
            .env_remove("DISPLAY");
        command
    }

    fn prefix(&self) -> PathBuf {
        self.0.join("wine")
    }

    /// Makes drive C unless it is there, and puts the stand-ins where wine looks first.
    fn furnish(&self) -> Result<()> {
        let system = self.prefix().join("drive_c/windows/system32");
        // wine writes the registry last.
        if !self.prefix().join("system.reg").is_file() {
            let mut boot = self.within(WINE);
            // Nothing of ours is there yet.
            succeed(boot.args(["wineboot", "--init"]).env("WINEDLLOVERRIDES", "mscoree,mshtml="))?;
        }
        for name in STAND_INS {
            let library = system.join(format!("{name}.dll"));
            compile(&["-shared"], name, &library, &["-ladvapi32"])?;
        }
        Ok(())
    }

    /// The stand-in is a tool that judges others, so it is judged first.
    fn try_netapi32(&self) -> Result<()> {
        let program = self.0.join("netapi32_selftest.exe");
        compile(&[], "netapi32_selftest", &program, &["-lnetapi32"])?;
        let calls = self.0.join("netapi32.calls");
        // Left behind by an earlier run, or not there.
        drop(fs::remove_file(&calls));
        let ask = |answers: &str| {
            let mut ask = self.within(WINE);
            succeed(ask.arg(&program).env("LAB_NETAPI32_CALLS", &calls).env("LAB_NETAPI32_ANSWERS", answers))
        };
        expect("the answers", ask("2245")?.trim_end(), "2245 2245 0")?;
        expect("the answers that are not chosen", ask("")?.trim_end(), "0 0 0")?;
        let written = fs::read_to_string(&calls)
            .map_err(|error| LabError::new(format!("the stand-in wrote nothing down: {error}")))?;
        let once = "NetUserChangePassword where=- user=app old=15:041bf113707de784 new=15:ada499f9810365af\n\
                    NetUserSetInfo where=\\\\server user=app level=1003 new=15:ada499f9810365af\n";
        expect("what was written down", &written, &once.repeat(2))
    }

    /// wine's own processes stay behind for a while; nobody needs them.
    fn leave(&self) {
        drop(succeed(self.within("/usr/lib/wine/wineserver64").arg("--kill")));
    }
}

/// The program itself: the script before it warns that nothing for 32 bits is installed.
const WINE: &str = "/usr/lib/wine/wine64";

/// Compiles one file of `tests/lab/windows`.
fn compile(before: &[&str], name: &str, into: &Path, libraries: &[&str]) -> Result<()> {
    let mut compiler = process::command("x86_64-w64-mingw32-gcc");
    compiler.args(["-O2", "-Wall", "-Wextra", "-Werror"]).args(before);
    compiler.arg(root().join("tests/lab/windows").join(format!("{name}.c"))).arg("-o").arg(into).args(libraries);
    succeed(&mut compiler).map(drop)
}

/// Runs a command to its end; its standard output.
fn succeed(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = process::run_within(command, b"", PATIENCE)?;
    if output.succeeded() {
        return Ok(output.stdout);
    }
    Err(LabError::new(format!("{name} ended with status {}:\n{}{}", output.status, output.stdout, output.stderr)))
}

fn expect(what: &str, found: &str, expected: &str) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(LabError::new(format!("{what} should have been\n{expected}\nand were\n{found}")))
}
