//! The rotator ssh on real sshd with PAM: the promises of every rotator, and
//! what only hosts can break.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a broken expectation of a test program is its failure"
)]

mod promises;
mod world;

use std::{
    fs,
    path::{Path, PathBuf},
};

use lab::{Passwd, RemoteLogin, UnixHost, UnixHostOptions};
use promises::Target;
use serde_json::json;
use world::{Fields, World};

const OLD: &str = "Old-And-Tired-1";

impl Target for UnixHost {
    const PLUGIN: &'static str = "ssh";
    const SCHEME: &'static str = "ssh";
    const SERVER: &'static str = "OpenSSH_";
    const STRANGER: &'static str = "host_key";

    fn hostile_logins() -> Vec<String> {
        // What Debian lets exist at all: no colon, comma, slash or blank.
        ["it's", "a\"b$(reboot)", "x;y&z|`id`", "größe", "%s\\n"].map(str::to_owned).into()
    }

    fn start(_: &[&str]) -> Self {
        UnixHost::start(UnixHostOptions::default()).unwrap()
    }
    fn port(&self) -> u16 {
        UnixHost::port(self)
    }
    fn ca(&self) -> PathBuf {
        panic!("SSH knows host keys and no authority")
    }
    fn trusted(&self) -> String {
        format!("turnlock:known_host={}", self.fingerprint().unwrap())
    }
    fn mistrusted(&self, _: &Path) -> String {
        format!("turnlock:known_host={}", UnixHost::start(UnixHostOptions::default()).unwrap().fingerprint().unwrap())
    }
    fn create(&self, login: &str, password: &str) {
        self.create_user(login, password).unwrap();
    }
    fn create_admin(&self, login: &str, password: &str) {
        self.create_user(login, password).unwrap();
        self.allow_sudo(login, true).unwrap();
    }
    fn set_password(&self, login: &str, password: &str) {
        UnixHost::set_password(self, login, password).unwrap();
    }
    fn accepts(&self, login: &str, password: &str) -> bool {
        UnixHost::accepts(self, login, password).unwrap()
    }
    fn failed_logins(&self) -> usize {
        UnixHost::failed_logins(self)
    }
    fn log(&self) -> String {
        UnixHost::log(self)
    }
    fn pause(&self) {
        UnixHost::pause(self);
    }
    fn resume(&self) {
        UnixHost::resume(self);
    }
    fn stop(&mut self) {
        UnixHost::stop(self).unwrap();
    }
    fn restart(&mut self) {
        UnixHost::restart(self).unwrap();
    }
}

mod on_openssh {
    crate::promises::promises!(lab::UnixHost:
        the_new_secret_works_and_the_old_one_stops,
        a_healthy_rotation_spends_no_failed_log_in,
        a_wrong_current_secret_changes_nothing_and_is_told_apart,
        a_target_out_of_reach_or_a_stranger_is_shown_no_secret,
        an_admin_resets_an_account_whose_secret_is_lost,
        an_admin_without_the_right_changes_nothing,
        hostile_logins_survive,
        hostile_passwords_survive,
        a_second_and_a_third_run_are_harmless,
        check_changes_nothing_and_says_what_it_found,
        verify_finds_drift_and_history_repairs_it,
        a_connection_cut_at_any_byte_loses_nothing,
        no_secret_is_seen_anywhere,
        a_held_rotation_shows_no_secret,
        orchestrator_and_rotator_cannot_be_looked_into,
        two_runs_on_one_account_rotate_it_once,
    );
}

fn start(options: UnixHostOptions) -> UnixHost {
    UnixHost::start(options).unwrap()
}

/// A record of `app` at this host, in a world of its own.
fn with_app(host: &UnixHost) -> World {
    host.create_user("app", OLD).unwrap();
    let world = World::new();
    world.add("App", &host.fields("app"), OLD);
    world
}

#[track_caller]
fn rotates(host: &UnixHost, world: &World) {
    let old = world.password("App");
    world.ok(&["rotate", "App"]);
    let new = world.password("App");
    assert!(UnixHost::accepts(host, "app", &new).unwrap() && !UnixHost::accepts(host, "app", &old).unwrap());
    world.nothing_is_open();
}

/// Commander cannot rotate any Unix host on Python 3.11: its patterns do not compile there.
#[test]
fn every_dialogue_of_passwd_is_understood() {
    for options in [
        UnixHostOptions { keyboard_interactive: true, ..UnixHostOptions::default() },
        UnixHostOptions { passwd: Passwd::Rhel, ..UnixHostOptions::default() },
        UnixHostOptions { passwd: Passwd::Busybox, ..UnixHostOptions::default() },
        UnixHostOptions { remote_login: RemoteLogin::Dropbear, ..UnixHostOptions::default() },
        UnixHostOptions { quality: Some("minlen=10 dictcheck=0".to_owned()), ..UnixHostOptions::default() },
        UnixHostOptions { sshd: vec!["PermitTTY no".to_owned()], ..UnixHostOptions::default() },
    ] {
        let host = start(options.clone());
        let world = with_app(&host);
        rotates(&host, &world);
        assert_eq!(host.failed_logins(), 1, "only this test's own question: {options:?}");
        rotates(&host, &world);
    }
}

#[test]
fn a_password_that_the_rules_forbid_is_refused_with_their_words_and_changes_nothing() {
    for options in [
        UnixHostOptions { quality: Some("minlen=12 dictcheck=0".to_owned()), ..UnixHostOptions::default() },
        UnixHostOptions { passwd: Passwd::Rhel, ..UnixHostOptions::default() },
    ] {
        let host = start(options);
        let world = with_app(&host);
        let refused = world.fails_with(3, &["rotate", "App", "--password", "-"], "Sh0rt!");
        assert_eq!((&refused["kind"], &refused["state"]), (&json!("policy"), &json!("unchanged")), "{refused}");
        assert!(refused["causes"].to_string().contains("shorter"), "{refused}");
        assert!(UnixHost::accepts(&host, "app", OLD).unwrap());
        assert!(!UnixHost::accepts(&host, "app", "Sh0rt!").unwrap());
        assert_eq!(world.password("App"), OLD);
        world.nothing_is_open();
    }
}

#[test]
fn a_password_used_before_is_refused_with_the_hosts_words() {
    let host = start(UnixHostOptions {
        quality: Some("minlen=8 dictcheck=0".to_owned()),
        history: Some(5),
        ..UnixHostOptions::default()
    });
    let world = with_app(&host);
    world.ok_with(&["rotate", "App", "--password", "-"], "Second-Password-22");
    world.ok_with(&["rotate", "App", "--password", "-"], "Third-Password-333");
    // Turnlock's own history would refuse it first: another record does not know it.
    let other = World::new();
    other.add("App", &host.fields("app"), "Third-Password-333");
    let refused = other.fails_with(3, &["rotate", "App", "--password", "-"], "Second-Password-22");
    assert_eq!((&refused["kind"], &refused["state"]), (&json!("policy"), &json!("unchanged")), "{refused}");
    assert!(refused["causes"].to_string().contains("already used"), "{refused}");
    assert!(UnixHost::accepts(&host, "app", "Third-Password-333").unwrap());
}

/// Commander gets stuck at hosts that want a new password at the log-in.
#[test]
fn an_expired_password_is_renewed_at_the_log_in() {
    for keyboard_interactive in [true, false] {
        let host = start(UnixHostOptions { keyboard_interactive, ..UnixHostOptions::default() });
        let world = with_app(&host);
        host.expire("app").unwrap();
        if keyboard_interactive {
            let found = &world.json(&["check", "App"])[0]["findings"]["findings"];
            assert!(found.to_string().contains("has expired"), "{found}");
            assert_eq!(world.json(&["verify", "App"])[0]["outcome"], "accepted");
        }
        rotates(&host, &world);
        assert!(host.log().contains("expired") || host.log().contains("root enforced"), "{}", host.log());
    }
}

#[test]
fn a_locked_a_closed_and_a_wrong_one_are_told_apart() {
    let host = start(UnixHostOptions { keyboard_interactive: true, lockout: Some(3), ..UnixHostOptions::default() });
    let world = with_app(&host);
    for _ in 0..3 {
        assert!(!UnixHost::accepts(&host, "app", "Wrong-One-1").unwrap());
    }
    let locked = world.fails(3, &["rotate", "App"]);
    assert_eq!((&locked["kind"], &locked["state"]), (&json!("locked_out"), &json!("unchanged")), "{locked}");
    host.run(&["faillock", "--user", "app", "--reset"], b"").unwrap();
    rotates(&host, &world);
    host.close("app").unwrap();
    let closed = world.fails(3, &["rotate", "App"]);
    assert!(["permission", "authentication"].contains(&closed["kind"].as_str().unwrap()), "{closed}");
    world.nothing_is_open();
}

/// Commander takes any host key, twice.
#[test]
fn a_changed_host_key_stops_everything_before_a_secret_is_sent() {
    let mut host = start(UnixHostOptions::default());
    host.create_user("app", OLD).unwrap();
    let world = World::new();
    let known = world.turnlock.home().join(".ssh");
    fs::create_dir(&known).unwrap();
    let add = |title: &str, custom: &[String]| {
        let fields = Fields { custom: custom.to_vec(), ..host.fields("app") };
        world.add(title, &fields, OLD);
    };
    add("Unknown", &[]);
    let unknown = world.fails(3, &["rotate", "Unknown"]);
    assert_eq!((&unknown["kind"], &unknown["state"]), (&json!("host_key"), &json!("unchanged")), "{unknown}");
    assert!(unknown["error"].to_string().contains(&host.fingerprint().unwrap()), "{unknown}");
    assert!(unknown["hint"].to_string().contains("turnlock:known_host=SHA256:"), "{unknown}");
    // The user's own known_hosts counts.
    write(&known.join("known_hosts"), &host.known_hosts_line().unwrap());
    world.ok(&["rotate", "Unknown"]);
    let before = host.log().matches("app").count();
    host.replace_host_key().unwrap();
    for command in ["rotate", "check", "verify"] {
        let changed = world.fails(3, &[command, "Unknown"]);
        assert_eq!(changed["kind"], "host_key", "{changed}");
        assert!(changed["error"].to_string().contains("has changed"), "{changed}");
    }
    assert_eq!(host.log().matches("app").count(), before, "the stranger learned the login");
    world.nothing_is_open();
}

#[expect(clippy::disallowed_methods, reason = "a test's own throw-away file")]
fn write(path: &Path, content: &str) {
    fs::write(path, content).unwrap();
}

#[test]
fn a_jump_host_carries_the_whole_rotation() {
    let host = start(UnixHostOptions::default());
    let bastion = start(UnixHostOptions::default());
    bastion.create_user("hop", "Hop-Over-It-1").unwrap();
    let world = with_app(&host);
    world.ok(&[
        "edit",
        "App",
        "--set",
        &format!("turnlock:jump=hop@127.0.0.1:{}", UnixHost::port(&bastion)),
        "--set",
        &format!("turnlock:jump_known_host={}", bastion.fingerprint().unwrap()),
        "--set",
        "cmdr:jump_password=Hop-Over-It-1",
    ]);
    rotates(&host, &world);
    assert!(bastion.log().matches("Accepted password for hop").count() >= 2, "{}", bastion.log());
    world.ok(&["verify", "App"]);
    world.ok(&["check", "App"]);
    rotates(&host, &world);
    assert_eq!(bastion.failed_logins(), 0);

    let app = world.password("App");
    bastion.set_password("hop", "Somebody-Changed-1").unwrap();
    let refused = world.fails(3, &["rotate", "App"]);
    assert_eq!((&refused["kind"], &refused["state"]), (&json!("unreachable"), &json!("unchanged")), "{refused}");
    assert!(refused["error"].to_string().contains("jump host"), "{refused}");
    let stranger = format!("turnlock:jump_known_host={}", host.fingerprint().unwrap());
    world.ok(&["edit", "App", "--set", &stranger]);
    let refused = world.fails(3, &["rotate", "App"]);
    assert_eq!(refused["kind"], "host_key", "{refused}");
    assert!(UnixHost::accepts(&host, "app", &app).unwrap());
}

#[test]
fn an_admin_is_root_or_uses_sudo_with_or_without_a_password_or_a_key() {
    let host = start(UnixHostOptions::default());
    let world = with_app(&host);
    host.set_password("root", "Root-Of-It-All-1").unwrap();
    host.create_user("free", "Free-To-Do-It-1").unwrap();
    host.allow_sudo("free", false).unwrap();
    host.create_user("asked", "Asked-For-It-1").unwrap();
    host.allow_sudo("asked", true).unwrap();
    for (admin, password) in [("root", "Root-Of-It-All-1"), ("free", "Free-To-Do-It-1"), ("asked", "Asked-For-It-1")] {
        world.add(admin, &host.fields(admin), password);
        world.ok(&["edit", "App", "--set", &format!("turnlock:admin={admin}")]);
        world.edit_password("App", "Nobody-Knows-It-1");
        world.ok(&["check", "App"]);
        world.ok(&["rotate", "App"]);
        assert!(UnixHost::accepts(&host, "app", &world.password("App")).unwrap(), "{admin}");
    }
    // The admin's key, and what sudo asks for.
    let key = world.turnlock.home().join("admin_key");
    let made = lab::process::run(
        lab::process::clean_command("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "key phrase", "-f"]).arg(&key),
        b"",
    );
    assert_eq!(made.unwrap().status, 0);
    host.authorize("asked", fs::read(key.with_extension("pub")).unwrap()).unwrap();
    let text = fs::read_to_string(&key).unwrap();
    world.add("By key", &host.fields("asked").with(format!("cmdr:private_key={text}")), "key phrase");
    world.ok(&["edit", "App", "--set", "turnlock:admin=By key"]);
    let before = world.password("App");
    let refused = world.fails(3, &["rotate", "App"]);
    assert_eq!(refused["kind"], "permission", "sudo's password is not the key's: {refused}");
    world.ok(&["edit", "By key", "--set", "cmdr:sudo_password=Asked-For-It-1"]);
    world.ok(&["rotate", "App"]);
    assert!(UnixHost::accepts(&host, "app", &world.password("App")).unwrap());
    assert_ne!(world.password("App"), before);

    // A wrong password for sudo, and an account that is not there.
    world.ok(&["edit", "By key", "--set", "cmdr:sudo_password=Not-What-It-Is-1"]);
    let refused = world.fails(3, &["rotate", "App"]);
    assert_eq!((&refused["kind"], &refused["state"]), (&json!("authentication"), &json!("unchanged")), "{refused}");
    world.add("Nobody", &host.fields("no-such-one").with("turnlock:admin=root"), "x");
    assert_eq!(world.fails(3, &["rotate", "Nobody"])["kind"], "not_found");
}

/// Commander writes both passwords into a command line at the Windows host.
#[test]
fn at_a_windows_host_the_secrets_come_on_standard_input() {
    let host = start(UnixHostOptions::default());
    host.create_windows_user("app", OLD).unwrap();
    let world = World::new();
    world.add("App", &host.fields("app").with("cmdr:os=windows"), OLD);
    world.ok(&["rotate", "App"]);
    let new = world.password("App");
    let commands = host.windows_commands("app");
    assert!(commands.starts_with("powershell -NoProfile -NonInteractive -EncodedCommand "), "{commands}");
    assert!(!commands.contains(&new) && !commands.contains(OLD), "{commands}");
    world.ok(&["verify", "App"]);
    let refused = world.fails_with(3, &["rotate", "App", "--password", "-"], "Sh0rt!");
    assert_eq!((&refused["kind"], &refused["state"]), (&json!("policy"), &json!("unchanged")), "{refused}");
    assert_eq!(world.password("App"), new);
}

/// A host that asks nobody for anything proves nothing.
#[test]
fn a_host_that_lets_anybody_in_is_not_believed() {
    let host =
        start(UnixHostOptions { sshd: vec!["PermitEmptyPasswords yes".to_owned()], ..UnixHostOptions::default() });
    let world = with_app(&host);
    host.run(&["passwd", "-d", "app"], b"").unwrap();
    for command in ["rotate", "verify"] {
        let refused = world.fails(3, &[command, "App"]);
        assert_eq!(refused["kind"], "unsupported", "{refused}");
    }
    world.nothing_is_open();
}

#[test]
fn no_secret_is_seen_on_the_host_either() {
    let (old, new) = ("canary+OLD/4f8=Yellow", "canary+NEW/9c1=Yellow");
    let host = start(UnixHostOptions::default());
    let world = World::new();
    host.create_user("app", old).unwrap();
    host.create_user("app2", old).unwrap();
    host.create_user("boss", old).unwrap();
    host.allow_sudo("boss", true).unwrap();
    world.add("App", &host.fields("app"), old);
    world.add("Boss", &host.fields("boss"), old);
    world.add("App2", &host.fields("app2").with("turnlock:admin=Boss"), old);
    let watch = host.watch().unwrap();
    for title in ["App", "App2"] {
        world.ok_with(&["rotate", title, "--password", "-"], new);
    }
    let seen = watch.end();
    assert!(seen.iter().any(|line| line.contains("passwd")), "the watch saw no passwd: {seen:?}");
    assert!(seen.iter().all(|line| !line.contains("canary+")), "a command line or an environment holds a secret");
    assert!(!host.log().contains("canary+"), "{}", host.log());
    let found = host.run(&["grep", "-rl", "canary+", "/home", "/var/log", "/tmp/turnlock", "/run"], b"").unwrap();
    assert_eq!(found.stdout, "", "a file in the box holds a secret");
}
