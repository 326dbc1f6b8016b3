//! Rotations one by one and many at once: beside the bare driver, beside
//! Commander's plugins and beside OpenBao, on the same server.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use chaos::{Kind, Target};
use lab::{Fault, MysqlOptions, Postgresql, PostgresqlOptions, Proxy, Result, process};
use serde_json::{Value, json};

use super::{
    ROUNDS,
    figures::Figure,
    measure::{BEGIN, Home, Programs, figure, finish, median, process_time, uid},
    rivals::{Commander, Openbao},
};

/// Accounts of PostgreSQL's fleet.
const FLEET: usize = 200;
/// Accounts of a fleet whose accounts are costly to make.
const SMALL_FLEET: usize = 48;
/// How often Commander is started for one account.
const STARTS: usize = 7;
/// What is put before the targets, there and back together.
const DELAY: Duration = Duration::from_millis(20);

/// Accounts on one server, and a vault that knows them.
struct Fleet {
    home: Home,
    logins: Vec<String>,
}

impl Fleet {
    /// Makes so many accounts, reached through this port.
    fn furnish(programs: &Programs, target: &dyn Target, prefix: &str, count: usize, port: u16) -> Result<Self> {
        let logins: Vec<String> = (0..count).map(|number| format!("{prefix}{number}")).collect();
        for login in &logins {
            target.create(login, BEGIN)?;
        }
        let mut records = Vec::new();
        for login in &logins {
            let (url, custom) = target.record(login, port)?;
            records.push(json!({"title": login, "uid": uid(login), "login": login, "password": BEGIN,
                "login_url": url, "custom_fields": custom}));
        }
        let home = programs.home()?;
        home.import(records.into_iter())?;
        Ok(Self { home, logins })
    }

    /// Rotates all, so many at a time: how many a second, and the CPU milliseconds of each.
    fn rotate(&self, jobs: usize) -> Result<(f64, f64)> {
        let jobs = jobs.to_string();
        let (cpu, begun) = (process_time()?, Instant::now());
        self.home.run(&["rotate", "--match", ".", "--force", "--jobs", &jobs, "--per-host", &jobs])?;
        let count = self.logins.len() as f64;
        Ok((count / begun.elapsed().as_secs_f64(), (process_time()? - cpu) * 1e3 / count))
    }

    /// Rotates the first one, started anew each time: milliseconds.
    fn cold(&self) -> Result<f64> {
        let first = self.logins.first().map(|login| uid(login)).unwrap_or_default();
        median(ROUNDS, || self.home.run(&["rotate", &first]))
    }
}

/// Accounts of Commander's own: it has no vault here, so it is told old and new passwords.
fn for_commander(target: &dyn Target, prefix: &str, count: usize) -> Result<Vec<String>> {
    let logins: Vec<String> = (0..count).map(|number| format!("{prefix}{number}")).collect();
    logins.iter().try_for_each(|login| target.create(login, BEGIN))?;
    Ok(logins)
}

pub(super) fn postgresql(programs: &Programs) -> Result<Vec<Figure>> {
    let server = Postgresql::start(PostgresqlOptions::default())?;
    let fleet = Fleet::furnish(programs, &server, "bench", FLEET, server.port())?;
    let mut figures = Vec::new();

    let floor_accounts = for_commander(&server, "floor", FLEET)?;
    let floor = |jobs: usize| Floor::measure(programs, &server, &floor_accounts, jobs);
    let one = floor(1)?;
    let cpu = process_time()?;
    let cold = fleet.cold()?;
    let cpu = (process_time()? - cpu) * 1e3 / ROUNDS as f64;
    figures.push(Figure::plain("floor: connect, change, connect", one.median_ms, "ms"));
    figures.push(Figure::plain("one cold rotation", cold, "ms"));
    figures.push(Figure::plain("one cold rotation, CPU of orchestrator and rotator", cpu, "ms"));
    figures.push(Figure::at_most("one cold rotation beyond the floor", cold - one.median_ms, "ms", 25.0));

    for jobs in [1, 16] {
        let floor = floor(jobs)?;
        let (rate, cpu_ms) = fleet.rotate(jobs)?;
        figures.push(Figure::plain(format!("floor, {jobs} at a time"), floor.rate, "/s"));
        figures.push(Figure::plain(format!("floor, {jobs} at a time, CPU each"), floor.cpu_ms, "ms"));
        figures.push(Figure::plain(format!("fleet, {jobs} at a time"), rate, "/s"));
        figures.push(Figure::plain(format!("fleet, {jobs} at a time, CPU each"), cpu_ms, "ms"));
        let rates = format!("fleet's rate to the floor's, {jobs} at a time");
        let times = format!("fleet's CPU to the floor's, {jobs} at a time");
        if jobs == 16 {
            figures.push(Figure::at_least(rates, rate / floor.rate, "", 0.9));
            figures.push(Figure::at_most(times, cpu_ms / floor.cpu_ms, "", 1.25));
        } else {
            figures.push(Figure::plain(rates, rate / floor.rate, ""));
            figures.push(Figure::plain(times, cpu_ms / floor.cpu_ms, ""));
        }
    }
    let arguments = ["rotate", "--match", ".", "--force", "--jobs", "16", "--per-host", "16"];
    let (_, _, orchestrator, rotator) = fleet.home.watched(&arguments)?;
    figures.push(Figure::plain("peak memory of turnlock, 16 at a time", orchestrator, "MB"));
    figures.push(Figure::at_most("peak memory of a rotator", rotator, "MB", 10.0));

    let commander = Commander::new("postgresql");
    let logins = for_commander(&server, "keeper", FLEET)?;
    let serial = commander.serial(server.port(), &logins, BEGIN, AFTER)?;
    let starts = for_commander(&server, "started", STARTS)?;
    let started = commander.cold(server.port(), &starts, BEGIN, AFTER)?;
    figures.push(Figure::plain("Commander's plugin, one after the other in one process", serial, "/s"));
    figures.push(Figure::plain("Commander's plugin, started for one account", started, "ms"));
    figures.push(Figure::at_least("its time to that of one cold rotation", started / cold, "", 10.0));

    // The same with a network in between.
    let far = Proxy::start(SocketAddr::from(([127, 0, 0, 1], server.port())))?;
    far.set(Fault::Latency { each_way: DELAY / 2 })?;
    let fleet = Fleet::furnish(programs, &server, "far", FLEET, far.port())?;
    let (rate, _) = fleet.rotate(16)?;
    let serial = commander.serial(far.port(), logins.get(..SMALL_FLEET).unwrap_or(&logins), AFTER, BEGIN)?;
    figures.push(Figure::plain("20 ms away: fleet, 16 at a time", rate, "/s"));
    figures.push(Figure::plain("20 ms away: Commander, one after the other", serial, "/s"));
    figures.push(Figure::at_least("20 ms away: their ratio", rate / serial, "", 10.0));

    let logins = for_commander(&server, "bao", FLEET)?;
    let bao = Openbao { server: &server, logins: &logins };
    for (jobs, rate) in bao.rates(&[1, 16])? {
        figures.push(Figure::plain(format!("OpenBao's rotate-role, {jobs} at a time"), rate, "/s"));
    }
    Ok(figures)
}

/// The password that Commander sets.
const AFTER: &str = "Then-Comes-This-2";

pub(super) fn others(programs: &Programs) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();

    let server = lab::mariadb::start(MysqlOptions::default())?;
    let fleet = Fleet::furnish(programs, &server, "bench", FLEET, server.port())?;
    let cold = fleet.cold()?;
    let logins = for_commander(&server, "keeper", FLEET)?;
    let starts = for_commander(&server, "started", STARTS)?;
    for login in logins.iter().chain(&starts) {
        // Without this right it cannot change even its own account.
        server.sql(&format!("GRANT CREATE USER ON *.* TO {login}@'%'"))?;
    }
    let commander = Commander::new("mysql");
    let serial = commander.serial(server.port(), &logins, BEGIN, AFTER)?;
    let started = commander.cold(server.port(), &starts, BEGIN, AFTER)?;
    figures.extend(fleet.told("MariaDB", cold)?);
    figures.push(Figure::plain("MariaDB: Commander's plugin, one after the other in one process", serial, "/s"));
    figures.push(Figure::plain("MariaDB: Commander's plugin, started for one account", started, "ms"));
    figures.push(Figure::at_least("MariaDB: its time to that of one cold rotation", started / cold, "", 10.0));
    drop(fleet);
    drop(server);

    let server = Kind::Openldap.start()?;
    let fleet = Fleet::furnish(programs, &*server, "bench", FLEET, server.address().port())?;
    figures.extend(fleet.told("OpenLDAP", fleet.cold()?)?);
    drop(fleet);
    drop(server);

    let server = Kind::Ssh.start()?;
    let fleet = Fleet::furnish(programs, &*server, "bench", SMALL_FLEET, server.address().port())?;
    let cold = fleet.cold()?;
    let starts = for_commander(&*server, "started", STARTS)?;
    let started = Commander::new("ssh").cold(server.address().port(), &starts, BEGIN, AFTER)?;
    figures.extend(fleet.told("SSH", cold)?);
    figures.push(Figure::plain("SSH: Commander's plugin, started for one account", started, "ms"));
    figures.push(Figure::at_least("SSH: its time to that of one cold rotation", started / cold, "", 4.0));
    Ok(figures)
}

impl Fleet {
    /// The figures that every kind of target has.
    fn told(&self, what: &str, cold: f64) -> Result<Vec<Figure>> {
        let mut figures = vec![Figure::plain(format!("{what}: one cold rotation"), cold, "ms")];
        for jobs in [1, 8] {
            let (rate, cpu_ms) = self.rotate(jobs)?;
            figures.push(Figure::plain(format!("{what}: fleet, {jobs} at a time"), rate, "/s"));
            figures.push(Figure::plain(format!("{what}: fleet, {jobs} at a time, CPU each"), cpu_ms, "ms"));
        }
        Ok(figures)
    }
}

/// What the bare driver needs for the same.
struct Floor {
    rate: f64,
    median_ms: f64,
    cpu_ms: f64,
}

impl Floor {
    fn measure(programs: &Programs, server: &Postgresql, logins: &[String], jobs: usize) -> Result<Self> {
        let mut command = process::clean_command(programs.at("lab-floor"));
        command.args([server.host(), &server.port().to_string()]);
        command.arg(server.ca_path()).arg(jobs.to_string());
        let accounts: Vec<Value> = logins.iter().map(|login| json!([login, BEGIN])).collect();
        let cpu = process_time()?;
        let printed = finish(&mut command, json!(accounts).to_string().as_bytes())?;
        let count = accounts.len() as f64;
        let cpu_ms = (process_time()? - cpu) * 1e3 / count;
        Ok(Self { rate: count * 1e3 / figure(&printed, "wall_ms")?, median_ms: figure(&printed, "median_ms")?, cpu_ms })
    }
}
