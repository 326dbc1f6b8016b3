//! PostgreSQL: the promises of every rotator, and those that only PostgreSQL can break.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a broken expectation of a test program is its failure"
)]

mod promises;
mod world;

use std::{path::PathBuf, time::Duration};

use lab::{Fault, Postgresql, PostgresqlOptions, wait_until};
use promises::{Target, promises};
use serde_json::json;
use world::World;

const OLD: &str = "Old-And-Tired-1";
const SOON: Duration = Duration::from_secs(20);

impl Target for Postgresql {
    const PLUGIN: &'static str = "postgresql";
    const SCHEME: &'static str = "postgres";
    const SERVER: &'static str = "PostgreSQL 1";

    fn hostile_logins() -> Vec<String> {
        vec![
            r#"it's "odd" \ \\ ;-- %s"#.to_owned(),
            "Robert'); DROP ROLE admin;--".to_owned(),
            "Größe \u{1F4A3} ﬁ".to_owned(),
            "UPPER and lower".to_owned(),
            "-hyphen".to_owned(),
            // As many bytes as PostgreSQL takes.
            "x'\"ß".chars().cycle().take(50).collect::<String>() + "x",
        ]
    }

    fn start(names: &[&str]) -> Self {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Self::start(PostgresqlOptions { names, ..PostgresqlOptions::default() }).unwrap()
    }
    fn port(&self) -> u16 {
        self.port()
    }
    fn ca(&self) -> PathBuf {
        self.ca_path()
    }
    fn create(&self, login: &str, password: &str) {
        self.create_role(login, password).unwrap();
    }
    fn create_admin(&self, login: &str, password: &str) {
        self.create_role(login, password).unwrap();
        self.sql_with("ALTER ROLE :\"login\" SUPERUSER;", &[("login", login)]).unwrap();
    }
    fn set_password(&self, login: &str, password: &str) {
        self.set_password(login, password).unwrap();
    }
    fn accepts(&self, login: &str, password: &str) -> bool {
        self.accepts(login, password).unwrap()
    }
    fn failed_logins(&self) -> usize {
        self.failed_logins()
    }
    fn log(&self) -> String {
        self.log()
    }
    fn pause(&self) {
        self.pause();
    }
    fn resume(&self) {
        self.resume();
    }
    fn stop(&mut self) {
        self.stop().unwrap();
    }
    fn restart(&mut self) {
        self.restart().unwrap();
    }
}

promises!(Postgresql);

fn server() -> Postgresql {
    <Postgresql as Target>::start(&promises::NAMES)
}

/// A server that asks nobody for a password cannot prove one.
#[test]
fn a_server_that_trusts_everyone_never_counts_as_accepted() {
    let server = server();
    let world = World::new();
    server.create_role("app", OLD).unwrap();
    world.add("App", &Target::fields(&server, "app"), OLD);
    server.add_hba("hostssl all app 127.0.0.1/32 trust").unwrap();
    let before = world.content();
    for command in ["rotate", "verify", "check"] {
        let refused = world.fails(3, &[command, "App"]);
        assert_eq!(refused["kind"], "unsupported", "{command}: {refused}");
    }
    // Nor does a wrong secret that trust lets in become a current one.
    world.edit_password("App", "Made-Up-1");
    assert_eq!(world.fails(3, &["rotate", "App"])["kind"], "unsupported");
    assert_eq!(world.fails(3, &["verify", "App", "--try-history"])["kind"], "unsupported");
    world.edit_password("App", OLD);
    assert_eq!(world.content(), before);
    assert!(world.past("App", "previous").iter().all(|past| past == "Made-Up-1" || past == OLD));
    world.nothing_is_open();

    // The trust may begin between the change and its proof: then it is not committed.
    server.add_hba("hostssl all app 127.0.0.1/32 scram-sha-256").unwrap();
    server.set_parameter("synchronous_standby_names", "nobody").unwrap();
    let running = world.start(&["rotate", "App", "-o", "json"]);
    waits_for_a_standby(&server);
    server.add_hba("hostssl all app 127.0.0.1/32 trust").unwrap();
    server.reset_parameter("synchronous_standby_names").unwrap();
    let ended = running.end();
    let error = world::error_of(4, &["rotate", "App"], &ended);
    assert_eq!(error["kind"], "unsupported", "{error}");
    assert_eq!(world.password("App"), OLD, "nothing unproven is committed");
    world.fails(5, &["recover"]);
    assert_eq!(world.password("App"), OLD, "nothing unproven is committed");

    server.add_hba("hostssl all app 127.0.0.1/32 scram-sha-256").unwrap();
    world.ok(&["recover"]);
    let new = world.password("App");
    assert!(new != OLD && server.accepts("app", &new).unwrap() && !server.accepts("app", OLD).unwrap());
    world.nothing_is_open();
}

/// Returns when a change was made that the server does not acknowledge.
fn waits_for_a_standby(server: &Postgresql) {
    wait_until("a commit to wait for a standby", SOON, || {
        let waiting = server.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep';");
        waiting.is_ok_and(|count| count != "0").then_some(())
    })
    .unwrap();
}

#[test]
fn a_change_that_is_never_acknowledged_is_found_and_committed() {
    let server = server();
    let world = World::new();
    server.create_role("app", OLD).unwrap();
    let proxy = server.proxy();
    world.add("App", &server.fields_at("app", proxy.port()).with("cmdr:timeout=2"), OLD);
    server.set_parameter("synchronous_standby_names", "nobody").unwrap();
    let running = world.start(&["rotate", "App", "-o", "json"]);
    waits_for_a_standby(&server);
    // Nobody can be asked while it is not known.
    proxy.set(Fault::Refuse).unwrap();
    let unknown = world::error_of(5, &["rotate", "App"], &running.end());
    assert_eq!(unknown["state"], "unknown", "{unknown}");
    assert!(unknown["hint"].as_str().unwrap().contains("turnlock recover"), "{unknown}");
    assert_eq!(world.password("App"), OLD);
    assert_eq!(world.staged("App").len(), 1);
    let open = world.run(&["status"]);
    assert!(open.status == 3 && open.stdout.contains("turnlock recover"), "{}", open.stdout);
    let still = world.fails(5, &["recover"]);
    assert_eq!(still["state"], "unknown", "{still}");
    let candidate = world.staged("App").remove(0);

    proxy.set(Fault::None).unwrap();
    server.reset_parameter("synchronous_standby_names").unwrap();
    wait_until("the change to be seen", SOON, || server.accepts("app", &candidate).unwrap().then_some(())).unwrap();
    let settled = world.json(&["recover"]);
    assert_eq!(settled[0]["outcome"], "committed");
    assert_eq!(world.password("App"), candidate);
    assert!(!server.accepts("app", OLD).unwrap());
    world.nothing_is_open();
    world.ok(&["audit", "verify"]);
}

/// Both were asked, both answers were true, and a moment later they were not.
#[test]
fn a_change_that_is_seen_only_after_it_was_settled_is_adopted_by_the_next_run() {
    let server = server();
    let world = World::new();
    for (title, login) in [("Verified", "app1"), ("Rotated", "app2")] {
        server.create_role(login, OLD).unwrap();
        world.add(title, &Target::fields(&server, login).with("cmdr:timeout=2"), OLD);
    }
    server.set_parameter("synchronous_standby_names", "nobody").unwrap();
    let both: Vec<_> = ["Verified", "Rotated"].map(|title| world.start(&["rotate", title, "-o", "json"])).into();
    for running in both {
        let abandoned = world::error_of(3, &["rotate"], &running.end());
        assert_eq!(abandoned["state"], "unchanged", "{abandoned}");
    }
    world.nothing_is_open();
    let mut candidates = Vec::new();
    for title in ["Verified", "Rotated"] {
        assert_eq!(world.password(title), OLD);
        candidates.extend(world.past(title, "abandoned"));
    }
    assert_eq!(candidates.len(), 2, "nothing is erased that might be alive");
    server.reset_parameter("synchronous_standby_names").unwrap();
    for (login, candidate) in ["app1", "app2"].iter().zip(&candidates) {
        wait_until("the change to be seen", SOON, || server.accepts(login, candidate).unwrap().then_some(())).unwrap();
        assert!(!server.accepts(login, OLD).unwrap());
    }

    assert_eq!(world.json(&["verify", "Verified"])[0]["outcome"], "adopted");
    assert_eq!(world.password("Verified"), candidates[0]);
    world.ok(&["rotate", "Verified"]);

    world.ok(&["rotate", "Rotated"]);
    for (title, login, candidate) in [("Verified", "app1", &candidates[0]), ("Rotated", "app2", &candidates[1])] {
        let new = world.password(title);
        assert!(new != *candidate && server.accepts(login, &new).unwrap(), "{title}");
        assert!(!server.accepts(login, candidate).unwrap(), "{title}");
    }
    world.nothing_is_open();
}

#[test]
fn no_secret_stays_in_memory_or_in_a_core_dump() {
    promises::no_secret_stays_in_memory(server());
}

#[test]
fn an_expired_role_is_no_wrong_password_for_an_admin_and_days_are_counted_anew() {
    let server = server();
    let world = World::new();
    server.create_role("app", OLD).unwrap();
    Target::create_admin(&server, "boss", OLD);
    world.add("Boss", &Target::fields(&server, "boss"), OLD);
    world.add("App", &Target::fields(&server, "app"), OLD);
    server.sql("ALTER ROLE app VALID UNTIL '2001-01-01';").unwrap();
    let before = world.content();
    // PostgreSQL tells an expired password and a wrong one alike.
    assert_eq!(world.fails(3, &["rotate", "App"])["kind"], "authentication");
    assert_eq!(world.content(), before);

    world.ok(&["edit", "App", "--set", "turnlock:admin=Boss", "--set", "turnlock:valid_days=30"]);
    let found = world.run(&["check", "App", "-o", "json"]);
    assert!(found.status == 3 && found.stdout.contains("expired"), "{}", found.stdout);
    world.ok(&["rotate", "App"]);
    let new = world.password("App");
    assert!(server.accepts("app", &new).unwrap());
    let days = server
        .sql("SELECT round(extract(epoch FROM rolvaliduntil - now()) / 86400) FROM pg_roles WHERE rolname = 'app';");
    assert_eq!(days.unwrap(), "30");
    world.ok(&["edit", "App", "--unset", "turnlock:valid_days"]);
    let until = server.sql("SELECT rolvaliduntil FROM pg_roles WHERE rolname = 'app';").unwrap();
    world.ok(&["rotate", "App"]);
    assert_eq!(server.sql("SELECT rolvaliduntil FROM pg_roles WHERE rolname = 'app';").unwrap(), until);
    assert!(world.ok(&["check", "App"]).stdout.contains("valid until"));
}

#[test]
fn a_role_that_may_not_connect_to_postgres_is_served_elsewhere() {
    let server = server();
    let world = World::new();
    server.create_role("app", OLD).unwrap();
    server.sql("REVOKE CONNECT ON DATABASE postgres FROM PUBLIC;").unwrap();
    world.add("App", &Target::fields(&server, "app"), OLD);
    let nowhere = world.fails(3, &["rotate", "App"]);
    assert_eq!(nowhere["kind"], "not_found", "{nowhere}");
    assert!(nowhere["hint"].as_str().unwrap().contains("`db`"), "{nowhere}");
    let moved = |old: &str| {
        let new = world.password("App");
        server.sql("GRANT CONNECT ON DATABASE postgres TO app;").unwrap();
        assert!(new != old && server.accepts("app", &new).unwrap() && !server.accepts("app", old).unwrap());
        server.sql("REVOKE CONNECT ON DATABASE postgres FROM app;").unwrap();
        new
    };
    // A database of its own name is found, another one is told.
    server.sql("CREATE DATABASE app;").unwrap();
    world.ok(&["rotate", "App"]);
    let old = moved(OLD);
    server.sql("ALTER DATABASE app RENAME TO orders;").unwrap();
    world.ok(&["edit", "App", "--set", "cmdr:db=orders"]);
    world.ok(&["rotate", "App"]);
    let old = moved(&old);
    world.ok(&[
        "edit",
        "App",
        "--unset",
        "cmdr:db",
        "--url",
        &format!("postgres://127.0.0.1:{}/orders", server.port()),
    ]);
    world.ok(&["rotate", "App"]);
    moved(&old);
}

#[test]
fn a_unix_socket_with_scram_and_an_old_digest_both_work() {
    let server = server();
    let world = World::new();
    server.create_role("app", OLD).unwrap();
    let socket = format!("turnlock:unix_socket={}", server.socket_directory().display());
    world.add("Socket", &Target::fields(&server, "app").without("turnlock:ca").with(socket), OLD);
    world.ok(&["rotate", "Socket"]);
    let new = world.password("Socket");
    assert!(new != OLD && server.accepts("app", &new).unwrap() && !server.accepts("app", OLD).unwrap());

    // A server that stores MD5 gets MD5, and its owner is warned.
    server.set_parameter("password_encryption", "md5").unwrap();
    server.add_hba("hostssl all all 127.0.0.1/32 md5").unwrap();
    server.create_role("old'timer", OLD).unwrap();
    world.add("Md5", &Target::fields(&server, "old'timer"), OLD);
    let found = world.ok(&["check", "Md5", "-o", "json"]);
    assert!(found.stdout.contains("md5"), "{}", found.stdout);
    for _ in 0..2 {
        let old = world.password("Md5");
        world.ok(&["rotate", "Md5"]);
        let new = world.password("Md5");
        assert!(server.accepts("old'timer", &new).unwrap() && !server.accepts("old'timer", &old).unwrap());
    }
    let stored = server.sql("SELECT left(rolpassword, 3) FROM pg_authid WHERE rolname = 'old''timer';").unwrap();
    assert_eq!(stored, "md5");
    // And back again.
    server.reset_parameter("password_encryption").unwrap();
    world.ok(&["rotate", "Md5"]);
    assert!(server.accepts("old'timer", &world.password("Md5")).unwrap());
    let stored = server.sql("SELECT left(rolpassword, 13) FROM pg_authid WHERE rolname = 'old''timer';").unwrap();
    assert_eq!(stored, "SCRAM-SHA-256");
}

/// The server's own counts are honoured, and a standby is no place to change a password.
#[test]
fn a_read_only_server_changes_nothing() {
    let server = server();
    let world = World::new();
    server.create_role("app", OLD).unwrap();
    world.add("App", &Target::fields(&server, "app"), OLD);
    server.sql("ALTER ROLE app SET default_transaction_read_only = on;").unwrap();
    let before = world.content();
    let refused = world.fails(3, &["rotate", "App"]);
    assert_eq!((&refused["kind"], &refused["state"]), (&json!("unsupported"), &json!("unchanged")), "{refused}");
    assert_eq!(world.content(), before);
    assert!(server.accepts("app", OLD).unwrap());
    world.nothing_is_open();
}
