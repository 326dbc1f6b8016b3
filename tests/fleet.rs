//! Many records at once, and the daemon: on a real PostgreSQL, asserted by
//! logging in.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a broken expectation of a test program is its failure"
)]

mod world;

use std::{
    net::SocketAddr,
    os::unix::net::UnixDatagram,
    process::{Command, Stdio},
    time::Duration,
};

use lab::{
    Direction, Fault, Postgresql, PostgresqlOptions, Proxy, process,
    shim::{Faulty, FaultyShim},
    wait_until,
};
use serde_json::{Value, json};
use world::{Running, World, lines};

const OLD: &str = "Old-And-Tired-1";
const SOON: Duration = Duration::from_secs(30);
/// What a daemon may need for a few records on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(80);

/// A server with so many roles, `app0` and so on.
fn server(roles: usize) -> Postgresql {
    let server = Postgresql::start(PostgresqlOptions::default()).unwrap();
    let roles: Vec<String> = (0..roles).map(|n| format!("CREATE ROLE app{n} LOGIN PASSWORD '{OLD}';")).collect();
    server.sql(&roles.join("\n")).unwrap();
    server
}

/// A record of a role, as an import knows it.
fn record(server: &Postgresql, login: &str, port: u16, custom: &[(&str, &str)]) -> Value {
    let mut fields = json!({"turnlock:ca": server.ca_path()});
    for (name, value) in custom {
        fields[*name] = json!(value);
    }
    json!({"title": login, "uid": format!("{login:A<22}"), "login": login, "password": OLD,
        "login_url": format!("postgres://127.0.0.1:{port}/postgres"), "custom_fields": fields})
}

fn import(world: &World, records: &[Value]) {
    world.ok_with(&["import", "keeper", "-"], &json!({"shared_folders": [], "records": records}).to_string());
}

fn new_password_works(world: &World, server: &Postgresql, login: &str) -> bool {
    let new = world.password(login);
    new != OLD && server.accepts(login, &new).unwrap() && !server.accepts(login, OLD).unwrap()
}

#[test]
fn one_run_rotates_everything_while_one_target_is_dead_and_one_hangs() {
    const GOOD: usize = 180;
    const DEAD: usize = 20;
    let (server, world) = (server(GOOD + DEAD + 4), World::new());
    let address = SocketAddr::from(([127, 0, 0, 1], server.port()));
    let (dead, hangs) = (Proxy::start(address).unwrap(), Proxy::start(address).unwrap());
    dead.set(Fault::Refuse).unwrap();
    hangs.set(Fault::BlackHole { direction: Direction::ToServer, after: 0 }).unwrap();
    let records: Vec<Value> = (0..GOOD + DEAD + 4)
        .map(|number| {
            let login = format!("app{number}");
            match number {
                _ if number < GOOD => record(&server, &login, server.port(), &[]),
                _ if number < GOOD + DEAD => record(&server, &login, dead.port(), &[]),
                _ => record(&server, &login, hangs.port(), &[("cmdr:timeout", "2")]),
            }
        })
        .collect();
    import(&world, &records);

    let arguments = ["rotate", "--match", "^app", "--force", "--jobs", "16", "--per-host", "16"];
    let ended = world.start(&arguments).end();
    assert_eq!(ended.status, 6, "{}{}", ended.stdout, ended.stderr);
    let rotated = ended.stdout.lines().filter(|line| line.starts_with("rotated app")).count();
    assert_eq!(rotated, GOOD, "{}", ended.stderr);
    assert!(ended.stderr.contains(&format!("{GOOD} of {} done", GOOD + DEAD + 4)), "{}", ended.stderr);
    // The summary names both targets. Neither was asked more than three times.
    for (port, count) in [(dead.port(), DEAD), (hangs.port(), 4)] {
        let target = format!("postgresql 127.0.0.1:{port} ");
        let rows = ended.stderr.lines().filter_map(|line| line.trim().strip_prefix(&target));
        let counts: Vec<usize> =
            rows.flat_map(|row| row.split_whitespace().take(2)).map(|count| count.parse().unwrap()).collect();
        assert_eq!(counts.iter().sum::<usize>(), count, "{}", ended.stderr);
        let failed: usize = counts.iter().step_by(2).sum();
        assert!((1..=3).contains(&failed), "{}", ended.stderr);
    }
    assert!(hangs.connections() <= 3, "{}", hangs.connections());

    // Nothing is lost and nothing is open: each password in the vault is the one that works.
    world.nothing_is_open();
    dead.set(Fault::None).unwrap();
    hangs.set(Fault::None).unwrap();
    let proven = world.json(&["verify", "--all", "--jobs", "16", "--per-host", "16"]);
    assert_eq!(proven.len(), GOOD + DEAD + 4);
    assert!(proven.iter().all(|one| one["outcome"] == "accepted"));
    for login in ["app0", "app91", "app179"] {
        assert!(new_password_works(&world, &server, login), "{login}");
    }
    assert_eq!(world.password(&format!("app{GOOD}")), OLD);
    let copies: Vec<_> =
        std::fs::read_dir(world.turnlock.state_directory().join("turnlock/backups")).unwrap().collect();
    assert_eq!(copies.len(), 1, "one backup from before the run");

    // What failed can be asked for, and what was rotated is left alone.
    let again = world.run(&["rotate", "--failed", "--dry-run", "-o", "json"]);
    let again = lines(&again.stdout);
    assert!((2..=6).contains(&again.len()) && again.iter().all(|one| one["why"].as_str().unwrap().contains("failed")));
    let rotated = lines(&world.run(&["rotate", "--failed", "--force", "-o", "json"]).stdout);
    assert!(rotated.iter().all(|one| one["outcome"] == "rotated"), "{rotated:?}");
    world.fails(2, &["rotate", "--failed", "--force"]);
    world.ok(&["audit", "verify"]);
}

#[test]
fn an_admin_and_all_that_it_administers_are_rotated_in_one_run() {
    let (server, world) = (server(12), World::new());
    server.create_role("boss", OLD).unwrap();
    server.sql("ALTER ROLE boss SUPERUSER;").unwrap();
    let mut records: Vec<Value> = (0..12)
        .map(|number| {
            // A role that does not know its own password any more needs its admin.
            let login = format!("app{number}");
            let mut record =
                record(&server, &login, server.port(), &[("turnlock:admin", "boss"), ("turnlock:tag", "apps")]);
            record["password"] = json!("Forgotten-1");
            record
        })
        .collect();
    records.push(record(&server, "boss", server.port(), &[]));
    import(&world, &records);

    // What drifted is found, and what has an admin is repaired.
    let found = world.run(&["verify", "--tag", "apps", "--jobs", "4", "-o", "json"]);
    assert_eq!(found.status, 6, "{}", found.stderr);
    assert!(lines(&found.stdout).iter().all(|one| one["kind"] == "authentication" && one["outcome"] == "failed"));
    let repaired = world.json(&["verify", "app0", "--reconcile"]);
    assert_eq!(repaired[0]["outcome"], "reconciled");
    assert!(server.accepts("app0", &world.password("app0")).unwrap());

    let rotated = world.json(&["rotate", "--plugin-is", "postgresql", "--force", "--jobs", "8"]);
    assert_eq!(rotated.len(), 13);
    assert!(rotated.iter().all(|one| one["outcome"] == "rotated"), "{rotated:?}");
    assert_eq!(rotated[12]["title"], "boss", "the admin comes last");
    for login in ["boss", "app1", "app11"] {
        assert!(server.accepts(login, &world.password(login)).unwrap(), "{login}");
    }
    world.nothing_is_open();
}

#[test]
fn a_fleet_stops_where_it_is_told_to_and_selects_what_it_is_told_to() {
    let (server, world) = (server(6), World::new());
    let mut records: Vec<Value> =
        (0..6).map(|number| record(&server, &format!("app{number}"), server.port(), &[])).collect();
    for record in &mut records[..4] {
        record["password"] = json!("Forgotten-1");
        record["folders"] = json!([{"folder": "old\\ones"}]);
    }
    import(&world, &records);
    let ended = world.run(&["rotate", "--folder", "OLD", "--force", "--max-failures", "25%", "-o", "json"]);
    assert_eq!(ended.status, 6, "{}{}", ended.stdout, ended.stderr);
    let outcomes: Vec<Value> = lines(&ended.stdout).into_iter().map(|one| one["outcome"].clone()).collect();
    assert_eq!(outcomes, ["failed", "failed", "not_tried", "not_tried"]);
    assert_eq!(world.json(&["rotate", "--failed", "--dry-run"]).len(), 2);
    assert_eq!(world.json(&["rotate", "--failed", "--match", "app1", "--dry-run"]).len(), 1);
    world.fails(2, &["rotate", "--folder", "ol", "--force"]);
    for wrong in [["--jobs", "0"], ["--max-failures", "many"], ["--jitter", "soon"]] {
        assert_eq!(world.run(&[&["rotate", "--match", "app", "--force"], &wrong[..]].concat()).status, 2);
    }
    world.nothing_is_open();
}

/// A daemon as systemd starts it.
struct Service {
    daemon: Running,
    notified: UnixDatagram,
}

impl Service {
    fn start(world: &World, name: &str) -> Self {
        let path = world.turnlock.home().join(name);
        let notified = UnixDatagram::bind(&path).unwrap();
        notified.set_nonblocking(true).unwrap();
        let mut command: Command = world.command(&["daemon"]);
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "60000000");
        Self { daemon: Running::start(&mut command, ""), notified }
    }

    #[track_caller]
    fn hears(&self, wanted: &str) {
        let mut buffer = [0; 4096];
        wait_until(&format!("the daemon to say {wanted}"), SOON, || {
            let length = self.notified.recv(&mut buffer).ok()?;
            String::from_utf8_lossy(&buffer[..length]).lines().any(|line| line.starts_with(wanted)).then_some(())
        })
        .unwrap();
    }
}

#[test]
fn one_daemon_rotates_what_is_due_another_one_stands_by_and_both_speak_to_systemd() {
    let (server, world) = (server(4), World::new());
    let schedule = |text| record(&server, "app0", server.port(), &[("turnlock:schedule", text)]);
    let mut records = vec![schedule("every 30d")];
    for (number, text) in [(1, "every 90d spread 1s"), (2, "0 3 1 1 *"), (3, "every now and then")] {
        let login = format!("app{number}");
        records.push(record(&server, &login, server.port(), &[("turnlock:schedule", text)]));
    }
    import(&world, &records);
    let due = world.run(&["due", "-o", "json"]);
    assert_eq!(due.status, 3, "one schedule cannot be read: {}", due.stdout);
    let due = lines(&due.stdout);
    assert_eq!(due.iter().filter(|one| one["overdue"] == true).count(), 2, "{due:?}");
    assert!(due.iter().any(|one| one["note"].as_str().is_some_and(|note| note.contains("every now and then"))));
    let check = world.run(&["check", "app3"]);
    assert!(check.status == 0 && check.stdout.contains("turnlock:schedule `every now and then`"), "{check:?}");

    let first = Service::start(&world, "first");
    first.hears("READY=1");
    let rotated = || {
        let all = lines(&world.run(&["due", "--all", "-o", "json"]).stdout);
        all.iter().filter(|one| !one["rotated_at"].is_null()).count()
    };
    wait_until("both to be rotated", PATIENCE, || (rotated() == 2).then_some(())).unwrap();
    assert!(["app0", "app1"].iter().all(|login| new_password_works(&world, &server, login)));
    assert!(["app2", "app3"].iter().all(|login| world.password(login) == OLD));
    let next = lines(&world.run(&["due", "--within", "31d", "-o", "json"]).stdout);
    assert!(next.iter().any(|one| one["title"] == "app0" && one["overdue"] == false), "{next:?}");

    let second = Service::start(&world, "second");
    second.hears("STATUS=standing by");
    second.hears("WATCHDOG=1");
    first.daemon.signal("HUP");
    first.hears("RELOADING=1");
    first.hears("READY=1");
    // A record that comes while it runs is seen.
    let login = "late";
    server.create_role(login, OLD).unwrap();
    import(&world, &[record(&server, login, server.port(), &[("turnlock:schedule", "every 30d")])]);
    wait_until("the new one to be rotated", PATIENCE, || (rotated() == 3).then_some(())).unwrap();

    first.daemon.signal("TERM");
    first.hears("STOPPING=1");
    let ended = first.daemon.end();
    assert_eq!(ended.status, 0, "{}", ended.stderr);
    second.hears("STATUS=0 at work");
    second.daemon.signal("TERM");
    assert_eq!(second.daemon.end().status, 0);
    world.nothing_is_open();
}

#[test]
fn a_daemon_proves_what_it_is_told_to_and_repairs_what_an_admin_can() {
    let (server, world) = (server(2), World::new());
    server.sql(&format!("CREATE ROLE boss SUPERUSER LOGIN PASSWORD '{OLD}';")).unwrap();
    let mut drifted = record(&server, "app0", server.port(), &[("turnlock:admin", "boss")]);
    drifted["password"] = json!("Forgotten-1");
    import(
        &world,
        &[drifted, record(&server, "app1", server.port(), &[]), record(&server, "boss", server.port(), &[])],
    );
    world.configure("[daemon]\nverify = \"every 30d\"\nreconcile = true\n");

    let service = Service::start(&world, "prover");
    wait_until("app0 to be repaired", PATIENCE, || {
        let now = world.password("app0");
        (now != "Forgotten-1" && server.accepts("app0", &now).unwrap()).then_some(())
    })
    .unwrap();
    let proven = || world.ok(&["audit", "export"]).stdout.matches("\"proven\"").count();
    wait_until("the others to be proven", PATIENCE, || (proven() >= 2).then_some(())).unwrap();
    service.daemon.signal("TERM");
    assert_eq!(service.daemon.end().status, 0);
    assert!(["app1", "boss"].iter().all(|login| world.password(login) == OLD), "what works was changed");
    world.nothing_is_open();
}

#[test]
fn a_daemon_goes_on_when_the_clock_is_set() {
    let (server, world) = (server(2), World::new());
    let records: Vec<Value> = (0..2)
        .map(|number| record(&server, &format!("app{number}"), server.port(), &[("turnlock:schedule", "every 30d")]))
        .collect();
    import(&world, &records);
    world.ok(&["rotate", "--match", "app", "--force"]);
    let before = [world.password("app0"), world.password("app1")];
    assert!(world.run(&["due", "-o", "json"]).stdout.is_empty(), "nothing is due for thirty days");

    let note = world.turnlock.home().join("clock");
    let jump = Faulty::Clock { at: 20, by: 31 * 86_400 };
    let mut command = world.command(&["daemon"]);
    command.envs(FaultyShim::build().unwrap().environment(world.turnlock.home(), &note, &[jump]));
    let daemon = Running::start(&mut command, "");
    wait_until("both to be rotated again", PATIENCE, || {
        let changed = (0..2).all(|number| {
            let (login, now) = (format!("app{number}"), world.password(&format!("app{number}")));
            now != before[number] && server.accepts(&login, &now).unwrap()
        });
        changed.then_some(())
    })
    .unwrap();
    assert!(std::fs::read_to_string(&note).unwrap().trim().ends_with("clock"), "the clock was never set");
    daemon.signal("TERM");
    assert_eq!(daemon.end().status, 0);
    world.nothing_is_open();
    world.ok(&["audit", "verify"]);
}

/// How often the daemon is killed; more by hand.
fn kills() -> u64 {
    process::environment("TURNLOCK_KILLS").and_then(|kills| kills.parse().ok()).unwrap_or(12)
}

#[test]
fn a_daemon_that_is_killed_again_and_again_converges() {
    let kills = kills();
    let roles = usize::try_from(kills).unwrap().max(12);
    let (server, world) = (server(roles), World::new());
    let records: Vec<Value> = (0..roles)
        .map(|number| record(&server, &format!("app{number}"), server.port(), &[("turnlock:schedule", "every 30d")]))
        .collect();
    import(&world, &records);
    let rotated = || {
        let all = lines(&world.run(&["due", "--all", "-o", "json"]).stdout);
        all.iter().filter(|one| !one["rotated_at"].is_null()).count()
    };
    let start = || {
        let mut command = world.command(&["daemon"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    for kill in 0..kills {
        let mut daemon = start();
        // At a moment that nobody chose: some rotators after it began, and a little.
        wait_until("a rotator to start", PATIENCE, || {
            daemon
                .try_wait()
                .unwrap()
                .is_some()
                .then_some(())
                .or((!process::children(daemon.id()).is_empty()).then_some(()))
        })
        .unwrap();
        let begun = std::time::Instant::now();
        let moment = Duration::from_micros(kill * 7_919 % 90_000);
        wait_until("the moment", SOON, || (begun.elapsed() >= moment).then_some(())).unwrap();
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        if rotated() == roles {
            break;
        }
    }
    let mut daemon = start();
    wait_until("everything to be rotated", PATIENCE * 4, || (rotated() == roles).then_some(())).unwrap();
    process::signal(daemon.id(), "TERM");
    assert_eq!(process::status_number(daemon.wait().unwrap()), 0);
    world.nothing_is_open();
    for number in 0..roles {
        assert!(new_password_works(&world, &server, &format!("app{number}")), "app{number}");
    }
    world.ok(&["audit", "verify"]);
}
