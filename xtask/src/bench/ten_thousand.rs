//! Ten thousand roles in one run, while a tenth of the targets is unreachable
//! and one hangs.

use std::{net::SocketAddr, time::Instant};

use lab::{Direction, Fault, LabError, Postgresql, PostgresqlOptions, Proxy, Result};
use serde_json::json;

use super::{
    figures::Figure,
    measure::{BEGIN, Programs, uid},
};

const ROLES: usize = 10_000;
const BATCH: usize = 500;
/// Twenty addresses of one server, so that each is a target of its own.
const TARGETS: usize = 20;
const UNREACHABLE: usize = 2;

pub(super) fn measure(programs: &Programs) -> Result<Vec<Figure>> {
    let server = Postgresql::start(PostgresqlOptions::default())?;
    // One verifier for all, and not too many in one transaction: else the server takes minutes.
    server.create_role("many", BEGIN)?;
    for begin in (0..ROLES).step_by(BATCH) {
        let end = begin + BATCH - 1;
        server.sql(&format!(
            "DO $$ DECLARE verifier text := (SELECT rolpassword FROM pg_authid WHERE rolname = 'many'); BEGIN
                 FOR number IN {begin}..{end} LOOP
                     EXECUTE format('CREATE ROLE many%s LOGIN PASSWORD %L', number, verifier);
                 END LOOP;
             END $$;"
        ))?;
    }
    let address = SocketAddr::from(([127, 0, 0, 1], server.port()));
    let doors: Vec<Proxy> = (0..TARGETS).map(|_| Proxy::start(address)).collect::<Result<_>>()?;
    for door in doors.iter().take(UNREACHABLE) {
        door.set(Fault::Refuse)?;
    }
    // Of each target's roles the hanging one has its share, too.
    let hanging = doors.get(UNREACHABLE).ok_or_else(|| LabError::new("there are too few targets"))?;
    hanging.set(Fault::BlackHole { direction: Direction::ToServer, after: 0 })?;

    let home = programs.home()?;
    home.import((0..ROLES).map(|number| {
        let login = format!("many{number}");
        let port = doors.get(number % TARGETS).map_or(0, Proxy::port);
        json!({"title": login, "uid": uid(&login), "login": login, "password": BEGIN,
            "login_url": format!("postgres://127.0.0.1:{port}/postgres"),
            "custom_fields": {"turnlock:ca": server.ca_path(), "cmdr:timeout": "5"}})
    }))?;
    let reachable = ROLES / TARGETS * (TARGETS - UNREACHABLE - 1);
    let begun = Instant::now();
    let arguments = ["rotate", "--match", ".", "--force", "--jobs", "16", "--per-host", "16"];
    let (_, said, orchestrator, _) = home.watched(&arguments)?;
    let seconds = begun.elapsed().as_secs_f64();
    let done = said.lines().rev().find_map(|line| line.split_once(&format!(" of {ROLES} done"))?.0.trim().parse().ok());
    let done: f64 = done.ok_or_else(|| LabError::new(format!("no summary: {said}")))?;

    for door in &doors {
        door.set(Fault::None)?;
    }
    let proven = Instant::now();
    home.run(&["verify", "--all", "--jobs", "16", "--per-host", "16"])?;
    Ok(vec![
        Figure::at_least("10,000 roles: rotated, of 8,500 that can be reached", done, "", reachable as f64),
        Figure::plain("10,000 roles: how long it took", seconds, "s"),
        Figure::at_most("10,000 roles: peak memory of turnlock", orchestrator, "MB", 64.0),
        Figure::plain(
            "10,000 roles: until each credential in the vault was proven",
            proven.elapsed().as_secs_f64(),
            "s",
        ),
    ])
}
