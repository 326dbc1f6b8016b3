//! The rotator oracle on a stand-in for Oracle Database (`lab/oracle/server.py`
//! says what it does not prove): the promises of every rotator, and what only
//! Oracle can break. Oracle's driver for Python tells which password works.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a broken expectation of a test program is its failure"
)]

mod promises;
mod world;

use std::{fs, path::PathBuf};

use lab::{OracleOptions, OracleServer};
use promises::Target;
use serde_json::json;
use world::{Fields, World};

const OLD: &str = "Old-And-Tired-1";

/// It remembers failed log-ins for so many seconds, by its records' word.
struct Server<const WINDOW: u32 = 86_400>(OracleServer);

impl<const WINDOW: u32> Server<WINDOW> {
    fn new() -> Self {
        <Self as Target>::start(&promises::NAMES)
    }

    /// The same account at the port that speaks in clear.
    fn in_clear(&self, login: &str) -> Fields {
        let mut fields = self.fields(login).without("turnlock:ca");
        fields.url = Some(format!("oracle://127.0.0.1:{}", self.0.port()));
        fields
    }

    /// In which way the last change was asked for.
    fn last_way(&self) -> String {
        self.0.changes().unwrap().last().unwrap()["way"].as_str().unwrap().to_owned()
    }
}

/// A record's login as the server keeps it.
fn stored(login: &str) -> String {
    match login.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(name) => name.to_owned(),
        None => login.to_uppercase(),
    }
}

impl<const WINDOW: u32> Target for Server<WINDOW> {
    const PLUGIN: &'static str = "oracle";
    const SCHEME: &'static str = "oracle";
    const SERVER: &'static str = "Oracle Database 19.";
    const HELD_AFTER: [u64; 3] = [0, 900, 2000];
    const COST_OF_A_WRONG_SECRET: usize = if WINDOW > 0 { 1 } else { 2 };

    fn hostile_logins() -> Vec<String> {
        [
            "Mixed_Case$1",
            "\"MiXeD\"",
            "\"with blanks\"",
            "\"it's; DROP USER sys;--\"",
            "\"ALTER\"",
            "user",
            "\"Größe \u{1F4A3} ﬁ\"",
            "\"1st\"",
            "\"-hyphen\"",
            "\"user@tenant/x\"",
            "c##common",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    fn hostile_passwords() -> Vec<String> {
        promises::HOSTILE_PASSWORDS.iter().filter(|one| !one.contains('"')).map(|one| (*one).to_owned()).collect()
    }

    fn start(names: &[&str]) -> Self {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let server = OracleServer::start(OracleOptions { names, ..OracleOptions::default() }).unwrap();
        server.set_profile(json!({"attempts": if WINDOW > 0 { 3 } else { 0 }})).unwrap();
        server.set_database(json!({"longest": 1024})).unwrap();
        Self(server)
    }
    fn port(&self) -> u16 {
        self.0.secure_port()
    }
    fn ca(&self) -> PathBuf {
        self.0.ca_path()
    }
    fn create(&self, login: &str, password: &str) {
        self.0.create_user(&stored(login), password).unwrap();
    }
    fn create_admin(&self, login: &str, password: &str) {
        self.0.create_admin(&stored(login), password).unwrap();
    }
    fn set_password(&self, login: &str, password: &str) {
        self.0.set(&stored(login), json!({"password": password})).unwrap();
    }
    fn accepts(&self, login: &str, password: &str) -> bool {
        // What the test's own questions cost a user is no fault of Turnlock.
        let accepted = self.0.accepts(&stored(login), password).unwrap();
        self.0.set(&stored(login), json!({"failures": 0, "locked": null})).unwrap();
        accepted
    }
    fn failed_logins(&self) -> usize {
        self.0.failed_logins()
    }
    fn log(&self) -> String {
        self.0.log()
    }
    fn pause(&self) {
        self.0.pause();
    }
    fn resume(&self) {
        self.0.resume();
    }
    fn stop(&mut self) {
        self.0.stop().unwrap();
    }
    fn restart(&mut self) {
        self.0.restart().unwrap();
    }
    fn fields_at(&self, login: &str, port: u16) -> Fields {
        Fields {
            login: login.to_owned(),
            url: Some(format!("oracle://127.0.0.1:{port}")),
            custom: vec![
                self.trusted(),
                format!("cmdr:db={}", OracleServer::SERVICE),
                format!("turnlock:lockout_window={WINDOW}"),
                "turnlock:max_bytes=1024".to_owned(),
            ],
        }
    }
}

mod where_users_are_locked {
    crate::promises::promises!(crate::Server: where_accounts_are_locked
        + a_target_out_of_reach_or_a_stranger_is_shown_no_secret
    );
}

/// Who tries past passwords, or hangs, again and again must not be counted.
mod where_users_are_never_locked {
    crate::promises::promises!(crate::Server<0>: where_accounts_are_never_locked);
}

fn with_app() -> (Server, World) {
    let server = Server::new();
    server.create("app", OLD);
    let world = World::new();
    world.add("App", &server.fields("app"), OLD);
    (server, world)
}

#[track_caller]
fn rotates(server: &Server, world: &World, title: &str, login: &str) {
    let old = world.password(title);
    world.ok(&["rotate", title]);
    let new = world.password(title);
    assert!(new != old && server.accepts(login, &new) && !server.accepts(login, &old));
    world.nothing_is_open();
}

/// Oracle's driver verifies certificate and name, or speaks in clear: there is
/// nothing in between, unlike at other targets.
#[test]
fn tcps_is_believed_only_as_far_as_told() {
    let server: Server = Target::start(&["localhost"]);
    server.create("app", OLD);
    let world = World::new();
    let at = |host: &str| {
        let mut fields = server.fields("app");
        fields.url = Some(format!("oracle://{host}:{}", server.0.secure_port()));
        fields
    };
    world.add("Wrong name", &at("127.0.0.1"), OLD);
    world.add("Unknown", &at("localhost").without("turnlock:ca").with(server.mistrusted(world.turnlock.home())), OLD);
    world.add("System", &at("localhost").without("turnlock:ca").with("turnlock:tls=verify-full"), OLD);
    world.add("No file", &at("localhost").without("turnlock:ca").with("turnlock:ca=/nowhere/ca.pem"), OLD);
    for title in ["Wrong name", "Unknown", "System", "No file"] {
        for command in ["rotate", "check", "verify"] {
            let mut arguments = vec![command, title];
            if command == "rotate" {
                arguments.push("--with-duplicates");
            }
            let refused = world.fails(3, &arguments);
            assert_eq!(refused["kind"], "tls", "{arguments:?}: {refused}");
        }
    }
    assert!(!server.log().contains("APP"), "a log-in was tried before the server was believed: {}", server.log());
    let world = World::new();
    world.add("App", &at("localhost"), OLD);
    rotates(&server, &world, "App", "app");
    let pem = fs::read_to_string(server.ca()).unwrap();
    world.ok(&["edit", "App", "--set", &format!("turnlock:ca={pem}")]);
    rotates(&server, &world, "App", "app");
    for mode in ["require", "verify-ca"] {
        world.ok(&["edit", "App", "--set", &format!("turnlock:tls={mode}")]);
        assert_eq!(world.fails(3, &["rotate", "App"])["kind"], "invalid_input");
    }
}

#[test]
fn a_wallet_may_hold_the_authority() {
    let (server, world) = with_app();
    let wallet = world.turnlock.home().join("Wallet");
    fs::create_dir(&wallet).unwrap();
    fs::copy(server.ca(), wallet.join("ewallet.pem")).unwrap();
    let by_field = format!("turnlock:wallet={}", wallet.display());
    world.ok(&["edit", "App", "--unset", "turnlock:ca", "--set", &by_field]);
    rotates(&server, &world, "App", "app");
    let dsn = format!(
        "cmdr:dsn=tcps://127.0.0.1:{}/{}?wallet_location={}&retry_count=1",
        server.0.secure_port(),
        OracleServer::SERVICE,
        wallet.display()
    );
    world.ok(&["edit", "App", "--unset", "turnlock:wallet", "--set", &dsn]);
    rotates(&server, &world, "App", "app");
    let dsn = format!(
        "cmdr:dsn=tcps://127.0.0.1:{}/{}?wallet_location=/nowhere",
        server.0.secure_port(),
        OracleServer::SERVICE
    );
    world.ok(&["edit", "App", "--set", &dsn]);
    assert_eq!(world.fails(3, &["rotate", "App"])["kind"], "invalid_input");
}

/// The log-in exchange carries the password, never a statement, so that no
/// trace of the server's and nobody on the way sees it, with TLS or without.
#[test]
fn a_change_of_ones_own_is_no_statement() {
    let (server, world) = with_app();
    rotates(&server, &world, "App", "app");
    assert_eq!(server.last_way(), "call");
    world.add("In clear", &server.in_clear("app"), &world.password("App"));
    world.ok(&["rotate", "In clear"]);
    assert_eq!(server.last_way(), "call");
    assert!(server.accepts("app", &world.password("In clear")));
    assert!(server.0.statements().unwrap().is_empty(), "{:?}", server.0.statements());
    let found = &world.json(&["check", "In clear"])[0]["findings"];
    assert!(found["findings"][0]["message"].as_str().unwrap().contains("not verified"), "{found}");
}

#[test]
fn every_way_to_name_the_database_leads_there() {
    let (server, world) = with_app();
    let (port, service, sid) = (server.0.secure_port(), OracleServer::SERVICE, OracleServer::SID);
    for dsn in [
        format!("tcps://127.0.0.1:{port}/{service}"),
        format!(
            "(DESCRIPTION=(ADDRESS=(PROTOCOL=tcps)(HOST=127.0.0.1)(PORT={port}))(CONNECT_DATA=(SERVICE_NAME={service})))"
        ),
        format!(
            "(description = (address_list = (address = (protocol=tcps)(host=127.0.0.1)(port={port})))(connect_data = (sid={sid})))"
        ),
    ] {
        world.ok(&["edit", "App", "--set", &format!("cmdr:dsn={dsn}")]);
        rotates(&server, &world, "App", "app");
    }
    world.ok(&["edit", "App", "--unset", "cmdr:dsn", "--unset", "cmdr:db", "--set", &format!("cmdr:sid={sid}")]);
    rotates(&server, &world, "App", "app");
    for (field, value) in [("cmdr:sid", "OTHER"), ("cmdr:db", "other.test")] {
        world.ok(&["edit", "App", "--unset", "cmdr:sid", "--set", &format!("{field}={value}")]);
        let refused = world.fails(3, &["rotate", "App"]);
        assert_eq!((&refused["kind"], &refused["state"]), (&json!("not_found"), &json!("unchanged")), "{refused}");
    }
    // Commander's `dsn` could hold a password; an error must not repeat it.
    world.ok(&["edit", "App", "--set", "cmdr:dsn=app/S3cret-In-A-Dsn@db/orders"]);
    let refused = world.fails(3, &["rotate", "App"]);
    assert_eq!(refused["kind"], "invalid_input");
    assert!(!refused.to_string().contains("S3cret"), "{refused}");
}

#[test]
fn every_state_of_a_user_is_told_apart() {
    let server: Server = Server::new();
    server.create_admin("boss", OLD);
    let world = World::new();
    world.add("Boss", &server.fields("boss"), OLD);
    for (login, state, kind, says) in [
        ("locked", json!({"locked": "LOCKED"}), "locked_out", "is locked"),
        ("timed", json!({"locked": "LOCKED(TIMED)"}), "locked_out", "is locked"),
        ("nobody", json!({"privileges": []}), "permission", "may not log in"),
    ] {
        server.create(login, OLD);
        server.0.set(&stored(login), state).unwrap();
        world.add(login, &server.fields(login), OLD);
        let refused = world.fails(3, &["rotate", login]);
        assert_eq!((&refused["kind"], &refused["state"]), (&json!(kind), &json!("unchanged")), "{refused}");
        assert!(refused["error"].as_str().unwrap().contains(says), "{refused}");
    }
    let admin = ["edit", "locked", "--set", "turnlock:admin=Boss"];
    world.ok(&admin);
    let found = world.run(&["check", "locked", "-o", "json"]);
    assert_eq!(found.status, 3, "{}", found.stdout);
    assert!(found.stdout.contains("set `unlock = true`"), "{}", found.stdout);
    world.ok(&["edit", "locked", "--set", "turnlock:unlock=true"]);
    rotates(&server, &world, "locked", "locked");
    assert_eq!(server.last_way(), "sql");
    // The account itself has not that right.
    world.ok(&["edit", "locked", "--unset", "turnlock:admin"]);
    assert_eq!(world.fails(3, &["rotate", "locked"])["kind"], "invalid_input");
}

/// Commander cannot log in then, and so cannot help.
#[test]
fn an_expired_password_is_changed_by_logging_in() {
    let (server, world) = with_app();
    server.0.set("APP", json!({"expired": "EXPIRED"})).unwrap();
    assert_eq!(world.json(&["verify", "App"])[0]["outcome"], "accepted");
    rotates(&server, &world, "App", "app");
    assert_eq!(server.last_way(), "login");
    server.0.set("APP", json!({"expired": "EXPIRED(GRACE)"})).unwrap();
    let found = world.json(&["check", "App"])[0]["findings"].to_string();
    assert!(found.contains("expires soon"), "{found}");
    rotates(&server, &world, "App", "app");
    assert_eq!(server.last_way(), "call");
}

#[test]
fn the_profile_refuses_and_nothing_changes() {
    let (server, before_us) = with_app();
    server.0.set_profile(json!({"verify": {"length": 12}, "remembered": 5})).unwrap();
    rotates(&server, &before_us, "App", "app");
    // This vault does not know what was used before; the server does.
    let world = World::new();
    world.add("App", &server.fields("app"), &before_us.password("App"));
    let before = (world.content(), world.password("App"));
    for (password, rule) in [("Short-1-A", "ORA-28003"), (OLD, "ORA-28007")] {
        let refused = world.fails_with(3, &["rotate", "App", "--password", "-"], password);
        assert_eq!((&refused["kind"], &refused["state"]), (&json!("policy"), &json!("unchanged")), "{refused}");
        assert!(refused.to_string().contains(rule), "{rule}: {refused}");
    }
    assert_eq!(world.content(), before.0);
    assert!(server.accepts("app", &before.1));
    rotates(&server, &world, "App", "app");
}

#[test]
fn passwords_keep_to_bytes_not_letters() {
    let (server, world) = with_app();
    server.0.set_database(json!({"longest": 30})).unwrap();
    world.ok(&["edit", "App", "--unset", "turnlock:max_bytes"]);
    // 18 letters, 32 bytes.
    let refused = world.fails_with(3, &["rotate", "App", "--password", "-"], &format!("Ab-1{}", "ß".repeat(14)));
    assert_eq!((&refused["kind"], &refused["state"]), (&json!("policy"), &json!("unchanged")), "{refused}");
    assert!(server.0.changes().unwrap().is_empty(), "the server was not even asked");
    world.ok(&["edit", "App", "--set", "cmdr:length=64", "--set", "cmdr:rules=4,4,4,4"]);
    world.ok(&["rotate", "App"]);
    assert_eq!(world.password("App").len(), 30, "the safe length, whatever the record wishes");
    server.0.set_database(json!({"longest": 1024})).unwrap();
    world.ok(&["edit", "App", "--set", "turnlock:max_bytes=1024"]);
    rotates(&server, &world, "App", "app");
    assert_eq!(world.password("App").len(), 64);
}

#[test]
fn an_admins_reset_does_not_travel_in_clear_unless_told() {
    let (server, world) = with_app();
    server.create_admin("boss", OLD);
    world.add("Boss", &server.fields("boss"), OLD);
    let mut elsewhere = server.in_clear("app").with("turnlock:admin=Boss");
    // No loopback address, and nothing listens there: it is refused before.
    elsewhere.url = Some("oracle://192.0.2.1:1521".to_owned());
    world.add("Far", &elsewhere, OLD);
    let refused = world.fails(3, &["rotate", "Far"]);
    assert_eq!((&refused["kind"], &refused["state"]), (&json!("tls"), &json!("unchanged")), "{refused}");
}

#[test]
fn what_the_driver_cannot_do_it_says() {
    let (server, world) = with_app();
    world.add("In clear", &server.in_clear("app"), OLD);
    server.0.set_database(json!({"encryption_required": true})).unwrap();
    let refused = world.fails(3, &["rotate", "In clear"]);
    assert_eq!((&refused["kind"], &refused["state"]), (&json!("unsupported"), &json!("unchanged")), "{refused}");
    assert!(refused["hint"].as_str().unwrap().contains("driver = thick"), "{refused}");
    server.0.set_database(json!({"encryption_required": false})).unwrap();
    rotates(&server, &world, "App", "app");
    world.ok(&["edit", "App", "--set", "turnlock:driver=thick"]);
    let refused = world.fails(3, &["rotate", "App"]);
    assert_eq!((&refused["kind"], &refused["state"]), (&json!("unsupported"), &json!("unchanged")), "{refused}");
}

#[test]
fn a_wrong_password_in_the_vault_locks_nobody_out() {
    let server: Server = Server::new();
    server.create("app", OLD);
    let world = World::new();
    world.add("App", &server.fields("app"), "Not-The-Right-1");
    for command in [["rotate", "App"], ["rotate", "App"], ["verify", "App"], ["check", "App"], ["rotate", "App"]] {
        world.fails(3, &command);
    }
    assert_eq!(server.0.state("APP").unwrap()["failures"], 2, "the third would lock it");
    assert!(server.accepts("app", OLD));
}

/// The driver would print every packet then, a reset's with the new password.
#[test]
fn the_drivers_own_debugging_is_refused() {
    let (server, world) = with_app();
    let account = json!({
        "host": "127.0.0.1", "port": server.0.secure_port(), "db": OracleServer::SERVICE, "login": "app",
        "ca": server.ca(),
    });
    let input = json!({"account": account, "current": {"password": OLD}}).to_string();
    let mut rotate = world.turnlock.program("turnlock-oracle", &["rotate"]).unwrap();
    let output = lab::process::run(rotate.env("RSO_DEBUG_PACKETS", "1"), input.as_bytes()).unwrap();
    assert_eq!(output.status, 2, "{}", output.stdout);
    assert!(output.stdout.contains("RSO_DEBUG_PACKETS") && server.0.changes().unwrap().is_empty(), "{}", output.stdout);
}
