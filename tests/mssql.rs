//! The rotator mssql on a stand-in for SQL Server (`lab/mssql/server.py` says
//! what it does not prove): the promises of every rotator, and what only
//! SQL Server can break. FreeTDS tells which password works.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a broken expectation of a test program is its failure"
)]

mod promises;
mod world;

use std::path::PathBuf;

use lab::{SqlServer, SqlServerOptions};
use promises::Target;
use serde_json::json;
use world::{Fields, World};

const OLD: &str = "Old-And-Tired-1";

/// It counts failed log-ins for so many seconds, by its records' word.
struct Server<const WINDOW: u32 = 1800>(SqlServer);

impl<const WINDOW: u32> Server<WINDOW> {
    fn new() -> Self {
        Self(SqlServer::start(SqlServerOptions::default()).unwrap())
    }
}

impl<const WINDOW: u32> Target for Server<WINDOW> {
    const PLUGIN: &'static str = "mssql";
    const SCHEME: &'static str = "mssql";
    const SERVER: &'static str = "SQL Server 16.";
    const HELD_AFTER: [u64; 3] = [0, 300, 700];
    const COST_OF_A_WRONG_SECRET: usize = if WINDOW > 0 { 1 } else { 2 };

    fn hostile_logins() -> Vec<String> {
        vec![
            "with blanks".to_owned(),
            "[brackets]]".to_owned(),
            "it's \"quoted\"; DROP LOGIN sa;--".to_owned(),
            "Größe \u{1F4A3} ﬁ".to_owned(),
            "1st".to_owned(),
            "-hyphen".to_owned(),
            "user@tenant".to_owned(),
            // As many as FreeTDS takes; SQL Server takes 128.
            "]'ß".chars().cycle().take(60).collect::<String>(),
        ]
    }

    fn start(names: &[&str]) -> Self {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let server = SqlServer::start(SqlServerOptions { names, ..SqlServerOptions::default() }).unwrap();
        server.set_policy(json!({"threshold": if WINDOW > 0 { 3 } else { 0 }})).unwrap();
        Self(server)
    }
    fn port(&self) -> u16 {
        self.0.port()
    }
    fn ca(&self) -> PathBuf {
        self.0.ca_path()
    }
    fn create(&self, login: &str, password: &str) {
        self.0.create(login, password).unwrap();
    }
    fn create_admin(&self, login: &str, password: &str) {
        self.0.create_admin(login, password).unwrap();
    }
    fn set_password(&self, login: &str, password: &str) {
        self.0.set(login, json!({"password": password})).unwrap();
    }
    fn accepts(&self, login: &str, password: &str) -> bool {
        // What the test's own questions cost a login is no fault of Turnlock.
        let accepted = self.0.accepts(login, password).unwrap();
        self.0.set(login, json!({"failures": 0, "locked": false})).unwrap();
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
            url: Some(format!("mssql://127.0.0.1:{port}")),
            custom: vec![self.trusted(), format!("turnlock:lockout_window={WINDOW}")],
        }
    }
}

mod where_logins_are_locked {
    crate::promises::promises!(crate::Server: where_accounts_are_locked
        + a_target_out_of_reach_or_a_stranger_is_shown_no_secret
        + tls_is_believed_only_as_far_as_told
    );
}

/// Who tries past passwords, or hangs, again and again must not be counted.
mod where_logins_are_never_locked {
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

#[test]
fn tls_comes_first_where_it_is_told_to() {
    let (server, world) = with_app();
    world.ok(&["edit", "App", "--set", "turnlock:strict=true"]);
    rotates(&server, &world, "App", "app");
    assert!(world.json(&["check", "App"])[0]["findings"]["tls"].as_str().unwrap().contains("verified"));
    world.ok(&["edit", "App", "--set", &server.mistrusted(world.turnlock.home())]);
    assert_eq!(world.fails(3, &["rotate", "App"])["kind"], "tls");
}

#[test]
fn a_password_never_travels_in_clear() {
    let (server, world) = with_app();
    world.ok(&["edit", "App", "--set", "turnlock:tls=disable"]);
    for command in ["rotate", "check", "verify"] {
        assert_eq!(world.fails(3, &[command, "App"])["kind"], "tls", "{command}");
    }
    assert!(!server.log().contains("app"), "{}", server.log());
}

/// Commander connects to port 1433 whatever the record says.
#[test]
fn port_and_instance_are_honoured() {
    let options = SqlServerOptions { instance: Some("SALES".to_owned()), ..SqlServerOptions::default() };
    let server: Server = Server(SqlServer::start(options).unwrap());
    server.create("app", OLD);
    let world = World::new();
    let at = |url: String| Fields { login: "app".to_owned(), url: Some(url), custom: vec![server.trusted()] };
    world.add("By port", &at(format!("mssql://{}:{}", server.0.host(), server.0.port())), OLD);
    rotates(&server, &world, "By port", "app");
    let named = at(format!("mssql://{}", server.0.host())).with("turnlock:instance=sales");
    world.add("By name", &named, &world.password("By port"));
    world.ok(&["verify", "By name"]);
    world.add("Nobody", &at(format!("mssql://{}", server.0.host())).with("turnlock:instance=other"), OLD);
    assert_eq!(world.fails(3, &["check", "Nobody", "--timeout", "3"][..2])["kind"], "unreachable");
}

#[test]
fn every_state_of_a_login_is_told_apart() {
    let server = Server::new();
    server.create_admin("boss", OLD);
    let world = World::new();
    world.add("Boss", &server.fields("boss"), OLD);
    for (login, state, kind, says) in [
        ("locked", json!({"locked": true}), "locked_out", "is locked"),
        ("disabled", json!({"disabled": true}), "permission", "is disabled"),
        ("expired", json!({"expired": true}), "permission", "has expired"),
        ("must", json!({"must_change": true}), "permission", "must be changed"),
        ("homeless", json!({"database": null}), "permission", "may not use its database"),
    ] {
        server.create(login, OLD);
        server.0.set(login, state).unwrap();
        world.add(login, &server.fields(login), OLD);
        let refused = world.fails(3, &["rotate", login]);
        assert_eq!((&refused["kind"], &refused["state"]), (&json!(kind), &json!("unchanged")), "{refused}");
        assert!(refused["error"].as_str().unwrap().contains(says), "{refused}");
    }
    for (login, state) in [("expired", "expired"), ("must", "must_change")] {
        assert_eq!(world.json(&["verify", login])[0]["outcome"], "accepted", "{state}");
    }
    // An admin ends three of them.
    for login in ["locked", "expired", "must"] {
        world.ok(&["edit", login, "--set", "turnlock:admin=Boss"]);
        if login == "locked" {
            let locked = world.fails(3, &["rotate", login]);
            assert_eq!((&locked["kind"], &locked["state"]), (&json!("locked_out"), &json!("unchanged")), "{locked}");
            world.ok(&["edit", login, "--set", "turnlock:unlock=true"]);
        }
        rotates(&server, &world, login, login);
    }
    world.ok(&["edit", "must", "--set", "turnlock:must_change=true"]);
    world.ok(&["rotate", "must"]);
    assert_eq!(server.0.get("must", "must_change").unwrap(), true);
    server.0.set("must", json!({"expiration": false, "must_change": false})).unwrap();
    let refused = world.fails(3, &["rotate", "must"]);
    assert_eq!((&refused["kind"], &refused["state"]), (&json!("invalid_input"), &json!("unchanged")), "{refused}");
}

#[test]
fn the_servers_policy_refuses_and_nothing_changes() {
    let (server, world) = with_app();
    server.0.set_policy(json!({"min_length": 12, "classes": 3, "remembered": 5})).unwrap();
    server.0.set("app", json!({"history": ["Used-Before-Now-3", OLD]})).unwrap();
    let before = world.content();
    for (password, rule) in [
        (Some("Short-1"), "too short"),
        (None, "not complex enough"),
        (Some("Used-Before-Now-3"), "cannot be used at this time"),
    ] {
        let refused = match password {
            Some(password) => world.fails_with(3, &["rotate", "App", "--password", "-"], password),
            None => world.fails(3, &["rotate", "App", "--rules", "10,10,0,0"]),
        };
        assert_eq!((&refused["kind"], &refused["state"]), (&json!("policy"), &json!("unchanged")), "{refused}");
        assert!(refused.to_string().contains(rule), "{rule}: {refused}");
    }
    assert_eq!(world.content(), before);
    assert!(server.accepts("app", OLD));
    rotates(&server, &world, "App", "app");
}

/// What a server does not ask for, it must not be given up: the old password is part of a change of one's own.
#[test]
fn a_change_of_ones_own_proves_the_old_password_again() {
    let (server, world) = with_app();
    world.ok(&["rotate", "App"]);
    assert!(server.log().contains("ALTER LOGIN of 'app' by 'app'"));
    // The lab's server lets nobody change a password without it, but for an admin.
    assert_eq!(server.0.get("app", "admin").unwrap(), false);
}

#[test]
fn a_contained_user_is_altered_in_its_database() {
    let (server, world) = with_app();
    world.ok(&["edit", "App", "--set", "turnlock:contained=true"]);
    let nowhere = world.fails(3, &["rotate", "App"]);
    assert_eq!(nowhere["kind"], "invalid_input", "{nowhere}");
    world.ok(&["edit", "App", "--set", "cmdr:db=orders"]);
    world.ok(&["check", "App"]);
    rotates(&server, &world, "App", "app");
    assert!(server.log().contains("ALTER USER of 'app' by 'app'"), "{}", server.log());
}

#[test]
fn a_windows_account_is_shown_the_way_to_its_plugin() {
    let (server, world) = with_app();
    world.add("Windows", &server.fields(r"CORP\app"), OLD);
    for command in ["rotate", "check", "verify"] {
        let refused = world.fails(3, &[command, "Windows"]);
        assert_eq!(refused["kind"], "unsupported", "{refused}");
        assert!(refused["hint"].as_str().unwrap().contains("adpasswd"), "{refused}");
    }
    assert_eq!(server.failed_logins(), 0);
}

#[test]
fn a_wrong_password_in_the_vault_locks_nobody_out() {
    let server = <Server as Target>::start(&promises::NAMES);
    server.create("app", OLD);
    let world = World::new();
    world.add("App", &server.fields("app"), "Not-The-Right-1");
    for command in [["rotate", "App"], ["rotate", "App"], ["verify", "App"], ["check", "App"], ["rotate", "App"]] {
        world.fails(3, &command);
    }
    assert_eq!(server.0.get("app", "failures").unwrap(), 2, "the third would lock it");
    assert!(server.accepts("app", OLD));
}

/// A stand-in behind another lab's forwarder: what is tried on it is how a real one is made ready.
#[test]
fn a_real_server_may_take_the_stand_ins_place() {
    let real = Server::<1800>::new();
    real.create_admin("boss", OLD);
    let home = World::without_vault();
    let file = home.turnlock.home().join("real.json");
    let about = json!({
        "host": real.0.host(), "port": real.0.port(), "login": "boss", "password": OLD, "ca": real.ca(),
    });
    lab::process::write_file(&file, about.to_string()).unwrap();
    let before = SqlServer::start(SqlServerOptions { real: Some(file), ..SqlServerOptions::default() }).unwrap();
    before.set_policy(json!({"threshold": 0})).unwrap();
    for login in Server::<1800>::hostile_logins() {
        before.create(&login, OLD).unwrap();
        assert!(before.accepts(&login, OLD).unwrap() && real.accepts(&login, OLD));
        before.set(&login, json!({"password": "It's-[New]-2"})).unwrap();
        assert!(!before.accepts(&login, OLD).unwrap() && before.accepts(&login, "It's-[New]-2").unwrap());
    }
    assert_eq!(before.failed_logins(), Server::<1800>::hostile_logins().len());
    before.create_admin("rotator", OLD).unwrap();
    assert_eq!(real.0.get("rotator", "admin").unwrap(), true);
    before.set("rotator", json!({"failures": 0, "locked": false})).unwrap();
    let refused = before.set("rotator", json!({"expired": true})).unwrap_err();
    assert!(refused.to_string().contains("cannot be told"), "{refused}");
}
