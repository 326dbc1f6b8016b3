//! Clocks, counters, and the programs that are measured.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use lab::{LabError, Result, Turnlock, process, wait_until};
use serde_json::{Value, json};

use crate::programs::{Build, Workspace};

/// The longest that a program which is measured may take.
const PATIENCE: Duration = Duration::from_secs(1800);
/// Ticks a second in which the kernel counts CPU time for user space, on every Linux.
const TICKS: f64 = 100.0;
/// The password with which accounts begin.
pub(super) const BEGIN: &str = "Begin-With-This-1";

/// The programs as they are shipped, and the floor beside them.
pub(super) struct Programs(PathBuf);

impl Programs {
    pub(super) fn build(how: Build) -> Result<Self> {
        let workspace = Workspace::read()?;
        let names = ["turnlock", "noop", "postgresql", "mysql", "adpasswd", "ssh"].map(str::to_owned);
        workspace.build(&workspace.chosen(&names)?, how)?;
        workspace.build_one("e2e", "lab-floor", how)?;
        Ok(Self(workspace.output(how)))
    }

    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A home with an empty vault, on the disk that holds the build, not in memory.
    pub(super) fn home(&self) -> Result<Home> {
        let home = Home { turnlock: Turnlock::new_in(&self.0)?, program: self.at("turnlock") };
        home.run(&["vault", "init"])?;
        Ok(home)
    }
}

/// Someone's home, and a release's `turnlock` in it.
pub(super) struct Home {
    pub(super) turnlock: Turnlock,
    program: PathBuf,
}

impl Home {
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.turnlock.program_at(&self.program, arguments);
        command.env("TURNLOCK_KEY_FILE", self.turnlock.key_file());
        command
    }

    pub(super) fn run(&self, arguments: &[&str]) -> Result<()> {
        finish(&mut self.command(arguments), b"").map(drop)
    }

    /// How long an import of these records takes.
    pub(super) fn import(&self, records: impl Iterator<Item = Value>) -> Result<Duration> {
        let export = json!({"shared_folders": [], "records": records.collect::<Vec<_>>()}).to_string();
        let begun = Instant::now();
        finish(&mut self.command(&["import", "keeper", "-"]), export.as_bytes())?;
        Ok(begun.elapsed())
    }

    /// Runs it, and looks all the while at the highest resident memory of the orchestrator and of
    /// any rotator, in megabytes of a million bytes. Its status and what it said come with them.
    pub(super) fn watched(&self, arguments: &[&str]) -> Result<(Option<i32>, String, f64, f64)> {
        let said = self.turnlock.home().join("said");
        let file = fs::File::create(&said).map_err(|error| LabError::new(format!("no {}: {error}", said.display())))?;
        let mut command = self.command(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        let mut child = command.spawn().map_err(|error| LabError::new(format!("could not start turnlock: {error}")))?;
        let (mut orchestrator, mut rotator) = (0.0_f64, 0.0_f64);
        let status = wait_until("the fleet to end", PATIENCE, || {
            orchestrator = orchestrator.max(peak(child.id(), "turnlock"));
            for one in process::children(child.id()) {
                rotator = rotator.max(peak(one, "turnlock-"));
            }
            child.try_wait().ok().flatten()
        })?;
        Ok((status.code(), fs::read_to_string(said).unwrap_or_default(), orchestrator, rotator))
    }
}

/// 22 characters, as an identifier of a Keeper record has.
pub(super) fn uid(title: &str) -> String {
    format!("{title:A<22}")
}

/// Runs a program to its end; what it printed.
pub(super) fn finish(command: &mut Command, stdin: &[u8]) -> Result<String> {
    let output = process::run_within(command, stdin, PATIENCE)?;
    if output.succeeded() {
        return Ok(output.stdout);
    }
    Err(LabError::new(format!("a measured program ended with status {}: {}", output.status, output.stderr)))
}

/// A figure in what a program printed as JSON.
pub(super) fn figure(printed: &str, name: &str) -> Result<f64> {
    let told: Option<Value> = serde_json::from_str(printed.trim()).ok();
    let found = told.as_ref().and_then(|told| told.get(name)).and_then(Value::as_f64);
    found.ok_or_else(|| LabError::new(format!("no `{name}` in {printed:?}")))
}

/// The median of so many rounds, in milliseconds.
pub(super) fn median(rounds: usize, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut each = Vec::new();
    for _ in 0..rounds {
        let begun = Instant::now();
        work()?;
        each.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    each.sort_by(f64::total_cmp);
    Ok(each.get(rounds / 2).copied().unwrap_or(f64::NAN))
}

/// CPU seconds of all children that have ended, and of theirs (`proc(5)`,
/// fields 16 and 17 of `stat`).
pub(super) fn process_time() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")
        .map_err(|error| LabError::new(format!("could not read /proc/self/stat: {error}")))?;
    let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let ticks: f64 = after_name.split(' ').skip(13).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
    Ok(ticks / TICKS)
}

/// The highest resident memory of a process so far; 0 where it is gone, or not
/// yet the program of that name: until then it shares its parent's memory.
fn peak(process: u32, name: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let value = |field: &str| status.lines().find_map(|line| line.strip_prefix(field)).map(str::trim);
    if !value("Name:").is_some_and(|own| own.starts_with(name)) {
        return 0.0;
    }
    let kibibytes = value("VmHWM:").and_then(|text| text.trim_end_matches(" kB").parse::<f64>().ok());
    kibibytes.unwrap_or(0.0) * 1024.0 / 1e6
}
