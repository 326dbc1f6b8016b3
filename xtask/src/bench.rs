//! `cargo xtask bench`: what a rotation costs beside the bare driver, in one
//! run and on one server. Figures, never a gate: nothing here fails because
//! something was slow.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use lab::{LabError, Postgresql, PostgresqlOptions, Result, Turnlock, process, wait_until};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    cargo,
    demo::aligned,
    say::{line, step},
    setup::{self, Need},
    show,
};

/// Accounts of the fleet.
const FLEET: usize = 200;
/// How often what takes milliseconds is measured; the median counts.
const ROUNDS: usize = 21;
/// Ticks a second in which the kernel counts CPU time for user space, on every Linux.
const TICKS: f64 = 100.0;

/// One measured figure.
#[derive(Serialize)]
struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    /// What was aimed at, for people.
    wanted: Option<String>,
    met: Option<bool>,
}

impl Figure {
    fn plain(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { name: name.into(), value, unit, wanted: None, met: None }
    }

    fn at_most(name: impl Into<String>, value: f64, unit: &'static str, limit: f64) -> Self {
        Self { wanted: Some(format!("≤ {limit:.1}")), met: Some(value <= limit), ..Self::plain(name, value, unit) }
    }

    fn at_least(name: impl Into<String>, value: f64, unit: &'static str, limit: f64) -> Self {
        Self { wanted: Some(format!("≥ {limit:.1}")), met: Some(value >= limit), ..Self::plain(name, value, unit) }
    }
}

/// The verb itself.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let as_json = match words.as_slice() {
        [] => false,
        ["--output" | "-o", "json"] => true,
        _ => return Err(LabError::new("`cargo xtask bench` knows --output json")),
    };
    setup::ensure(&[Need::Compiler, Need::Postgresql])?;
    let programs = step("build release programs, static", Programs::build)?;
    let postgresql = step("start PostgreSQL", || Postgresql::start(PostgresqlOptions::default()))?;
    let mut figures = sizes(&programs)?;
    figures.extend(step("measure starts and flushes", || starts(&programs))?);
    let bench = Bench { programs, postgresql };
    figures.extend(step("measure rotations beside the floor", || bench.rotations())?);
    figures.extend(step("measure vaults of 100 and of 100,000 records", || bench.vaults())?);
    tell(&figures, as_json);
    Ok(())
}

fn tell(figures: &[Figure], as_json: bool) {
    if as_json {
        // The one answer for machines; all else goes to standard error.
        drop(writeln!(std::io::stdout(), "{}", json!(figures)));
        return;
    }
    let mut rows = vec![["FIGURE", "MEASURED", "", "WANTED", ""].map(str::to_owned)];
    rows.extend(figures.iter().map(|figure| {
        [
            figure.name.clone(),
            format!("{:.2}", figure.value),
            figure.unit.to_owned(),
            figure.wanted.clone().unwrap_or_default(),
            figure.met.map_or("", |met| if met { "met" } else { "missed" }).to_owned(),
        ]
    }));
    line("");
    for row in aligned(&rows) {
        line(&row);
    }
}

/// The programs as they are shipped.
struct Programs(PathBuf);

impl Programs {
    fn build() -> Result<Self> {
        let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        // Packed relocations save what would be a tenth of a static position-independent program. The
        // standard library looks for addchdir only where it is linked already; without it every start of a
        // rotator would fork the whole orchestrator instead of spawning.
        let flags = [
            "target-feature=+crt-static",
            "link-arg=-Wl,-z,pack-relative-relocs",
            "link-arg=-Wl,-u,posix_spawn_file_actions_addchdir_np",
        ];
        let flags = format!("target.{triple}.rustflags={:?}", flags.map(|flag| ["-C", flag]).concat());
        // Each by itself: together they would carry the features of all.
        for (package, program) in [
            ("turnlock", "turnlock"),
            ("turnlock-noop", "turnlock-noop"),
            ("turnlock-postgresql", "turnlock-postgresql"),
            ("turnlock-mysql", "turnlock-mysql"),
            ("e2e", "lab-floor"),
        ] {
            let mut build = cargo(&["build", "--quiet", "--release", "--target", &triple, "--config", &flags]);
            show(build.args(["--package", package, "--bin", program]))?;
        }
        let own = std::env::current_exe().map_err(|error| LabError::new(format!("could not find xtask: {error}")))?;
        let target = own.ancestors().nth(2).unwrap_or(Path::new("target"));
        Ok(Self(target.join(triple).join("release")))
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

/// How large the programs are, in megabytes of a million bytes.
fn sizes(programs: &Programs) -> Result<Vec<Figure>> {
    [("turnlock", 6.0), ("turnlock-postgresql", 3.8), ("turnlock-noop", 3.8), ("turnlock-mysql", 5.2)]
        .into_iter()
        .map(|(name, limit)| {
            let file = fs::metadata(programs.at(name)).map_err(|error| LabError::new(format!("no {name}: {error}")))?;
            Ok(Figure::at_most(format!("size of {name}"), file.len() as f64 / 1e6, "MB", limit))
        })
        .collect()
}

/// What it takes to start a program at all, and to flush a file of this disk.
fn starts(programs: &Programs) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for name in ["turnlock", "turnlock-postgresql"] {
        let each = median(ROUNDS, || finish(process::clean_command(programs.at(name)).arg("--version"), b""))?;
        figures.push(Figure::plain(format!("start of {name}"), each, "ms"));
    }
    let home = Turnlock::new_in(&programs.0)?;
    let path = home.home().join("flushed");
    let failed = |error| LabError::new(format!("could not flush {}: {error}", path.display()));
    let mut file = File::create(&path).map_err(failed)?;
    let flush = median(ROUNDS, || file.write_all(&[7; 4096]).and_then(|()| file.sync_data()).map_err(failed))?;
    figures.push(Figure::plain("one flush of the vault's disk", flush, "ms"));
    Ok(figures)
}

/// One server for floor and rotations.
struct Bench {
    programs: Programs,
    postgresql: Postgresql,
}

impl Bench {
    fn rotations(&self) -> Result<Vec<Figure>> {
        let home = self.home()?;
        let logins: Vec<String> = (0..FLEET).map(|number| format!("bench{number}")).collect();
        let mut script = String::new();
        for login in &logins {
            script.push_str(&format!("CREATE ROLE {login} LOGIN PASSWORD '{BEGIN}';\n"));
        }
        self.postgresql.sql(&script)?;

        let accounts: Vec<(String, String)> = logins.iter().map(|login| (login.clone(), BEGIN.to_owned())).collect();
        let mut floors = BTreeMap::new();
        for jobs in [1, 16] {
            floors.insert(jobs, self.floor(&accounts, jobs)?);
        }
        let url = format!("postgres://127.0.0.1:{}/postgres", self.postgresql.port());
        let ca = self.postgresql.ca_path().display().to_string();
        let records = logins.iter().map(|login| {
            json!({"title": login, "uid": uid(login), "login": login, "password": BEGIN, "login_url": url,
                "custom_fields": {"turnlock:ca": ca}})
        });
        self.import(&home, records)?;

        let mut figures = Vec::new();
        let cold_floor = floors.get(&1).map_or(0.0, |floor| floor.median_ms);
        let first = uid("bench0");
        let cpu = process_time()?;
        let cold = median(ROUNDS, || self.turnlock(&home, &["rotate", &first]))?;
        let cpu = (process_time()? - cpu) * 1e3 / ROUNDS as f64;
        figures.push(Figure::plain("floor: connect, change, connect", cold_floor, "ms"));
        figures.push(Figure::plain("one cold rotation", cold, "ms"));
        figures.push(Figure::plain("one cold rotation, CPU of orchestrator and rotator", cpu, "ms"));
        figures.push(Figure::at_most("one cold rotation beyond the floor", cold - cold_floor, "ms", 25.0));
        for (jobs, floor) in &floors {
            let text = jobs.to_string();
            let cpu = process_time()?;
            let begun = Instant::now();
            self.turnlock(&home, &["rotate", "--match", ".", "--force", "--jobs", &text])?;
            let rate = FLEET as f64 / begun.elapsed().as_secs_f64();
            let cpu = (process_time()? - cpu) * 1e3 / FLEET as f64;
            figures.push(Figure::plain(format!("floor, {jobs} at a time"), floor.rate, "/s"));
            figures.push(Figure::plain(format!("floor, {jobs} at a time, CPU each"), floor.cpu_ms, "ms"));
            figures.push(Figure::plain(format!("fleet, {jobs} at a time"), rate, "/s"));
            figures.push(Figure::plain(format!("fleet, {jobs} at a time, CPU each"), cpu, "ms"));
            let name = format!("fleet's rate to the floor's, {jobs} at a time");
            figures.push(match jobs {
                16 => Figure::at_least(name, rate / floor.rate, "", 0.8),
                _ => Figure::plain(name, rate / floor.rate, ""),
            });
        }
        let (orchestrator, rotator) = self.peaks(&home)?;
        figures.push(Figure::plain("peak memory of turnlock, 16 at a time", orchestrator, "MB"));
        figures.push(Figure::at_most("peak memory of a rotator", rotator, "MB", 10.0));
        Ok(figures)
    }

    /// Whether the cost of one rotation grows with the vault around it.
    fn vaults(&self) -> Result<Vec<Figure>> {
        let mut each = Vec::new();
        for count in [100, 100_000] {
            let home = self.home()?;
            let records = (0..count).map(|number| {
                let title = format!("bench{number}");
                json!({"title": title, "uid": uid(&title), "login": title, "password": BEGIN,
                    "custom_fields": {"cmdr:plugin": "noop"}})
            });
            self.import(&home, records)?;
            let one = uid("bench7");
            each.push(median(ROUNDS, || self.turnlock(&home, &["rotate", &one]))?);
        }
        let (small, large) = (each.first().copied().unwrap_or(0.0), each.last().copied().unwrap_or(0.0));
        Ok(vec![
            Figure::plain("noop rotation, 100 records in the vault", small, "ms"),
            Figure::plain("noop rotation, 100,000 records in the vault", large, "ms"),
            Figure::at_most("their ratio", large / small, "", 1.2),
        ])
    }

    /// A home whose vault lies on the disk that holds the build, not in memory.
    fn home(&self) -> Result<Turnlock> {
        let home = Turnlock::new_in(&self.programs.0)?;
        self.turnlock(&home, &["vault", "init"])?;
        Ok(home)
    }

    fn import(&self, home: &Turnlock, records: impl Iterator<Item = Value>) -> Result<()> {
        let export = json!({"shared_folders": [], "records": records.collect::<Vec<_>>()}).to_string();
        finish(&mut self.command(home, &["import", "keeper", "-"]), export.as_bytes())
    }

    fn command(&self, home: &Turnlock, arguments: &[&str]) -> Command {
        let mut command = home.program_at(&self.programs.at("turnlock"), arguments);
        command.env("TURNLOCK_KEY_FILE", home.key_file());
        command
    }

    fn turnlock(&self, home: &Turnlock, arguments: &[&str]) -> Result<()> {
        finish(&mut self.command(home, arguments), b"")
    }

    fn floor(&self, accounts: &[(String, String)], jobs: usize) -> Result<Floor> {
        let mut command = process::clean_command(self.programs.at("lab-floor"));
        command.args([self.postgresql.host(), &self.postgresql.port().to_string()]);
        command.arg(self.postgresql.ca_path()).arg(jobs.to_string());
        let cpu = process_time()?;
        let output = process::run(&mut command, json!(accounts).to_string().as_bytes())?;
        let cpu_ms = (process_time()? - cpu) * 1e3 / accounts.len() as f64;
        let told: Value = serde_json::from_str(output.stdout.trim())
            .map_err(|_| LabError::new(format!("the floor failed: {}", output.stderr)))?;
        let figure = |name: &str| told.get(name).and_then(Value::as_f64).unwrap_or(f64::NAN);
        Ok(Floor { rate: accounts.len() as f64 * 1e3 / figure("wall_ms"), median_ms: figure("median_ms"), cpu_ms })
    }

    /// The highest resident memory of the orchestrator and of any rotator, in
    /// megabytes of a million bytes, over one more run of the fleet.
    fn peaks(&self, home: &Turnlock) -> Result<(f64, f64)> {
        let mut command = self.command(home, &["rotate", "--match", ".", "--force", "--jobs", "16"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|error| LabError::new(format!("could not start turnlock: {error}")))?;
        let (mut orchestrator, mut rotator) = (0.0_f64, 0.0_f64);
        wait_until("the fleet to end", Duration::from_secs(600), || {
            orchestrator = orchestrator.max(peak(child.id(), "turnlock"));
            for one in process::children(child.id()) {
                rotator = rotator.max(peak(one, "turnlock-"));
            }
            child.try_wait().ok().flatten()
        })?;
        Ok((orchestrator, rotator))
    }
}

const BEGIN: &str = "Begin-With-This-1";

struct Floor {
    rate: f64,
    median_ms: f64,
    cpu_ms: f64,
}

/// 22 characters, as an identifier of a Keeper record has.
fn uid(title: &str) -> String {
    format!("{title:A<22}")
}

fn finish(command: &mut Command, stdin: &[u8]) -> Result<()> {
    let output = process::run_within(command, stdin, Duration::from_secs(600))?;
    if output.succeeded() {
        return Ok(());
    }
    Err(LabError::new(format!("a measured program ended with status {}: {}", output.status, output.stderr)))
}

/// The median of so many rounds, in milliseconds.
fn median(rounds: usize, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
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
fn process_time() -> Result<f64> {
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
