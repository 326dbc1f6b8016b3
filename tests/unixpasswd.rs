//! The rotator unixpasswd on real PAM, su and passwd, in a box whose accounts
//! are not the machine's: run by root, by the account itself, and by somebody
//! else.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a broken expectation of a test program is its failure"
)]

mod promises;
mod world;

use std::path::PathBuf;

use lab::{Passwd, RemoteLogin, UnixHost, UnixHostOptions};
use promises::Target;
use serde_json::json;
use world::{Fields, World};

const OLD: &str = "Old-And-Tired-1";

fn start(options: UnixHostOptions) -> UnixHost {
    UnixHost::start(UnixHostOptions { remote_login: RemoteLogin::None, ..options }).unwrap()
}

fn fields(login: &str) -> Fields {
    Fields { login: login.to_owned(), url: None, custom: vec!["cmdr:plugin=unixpasswd".to_owned()] }
}

/// The accounts of a box, for a Turnlock that is run by root or by `app` itself.
struct Accounts<const BY_ROOT: bool>(UnixHost);

impl<const BY_ROOT: bool> Target for Accounts<BY_ROOT> {
    const PLUGIN: &'static str = "unixpasswd";
    const SCHEME: &'static str = "";
    const SERVER: &'static str = "Linux";

    fn hostile_logins() -> Vec<String> {
        // What Debian lets exist at all: no colon, comma, slash or blank.
        ["it's", "a\"b$(reboot)", "x;y&z|`id`", "größe", "%s\\n"].map(str::to_owned).into()
    }
    fn start(_: &[&str]) -> Self {
        let host = start(UnixHostOptions::default());
        if !BY_ROOT {
            host.create_user("app", OLD).unwrap();
        }
        Self(host)
    }
    fn world(&self) -> World {
        World::within(&self.0, (!BY_ROOT).then_some("app"))
    }
    fn fields(&self, login: &str) -> Fields {
        fields(login)
    }
    fn port(&self) -> u16 {
        panic!("an account of this machine has no port")
    }
    fn ca(&self) -> PathBuf {
        panic!("an account of this machine has no authority")
    }
    fn create(&self, login: &str, password: &str) {
        if self.0.ids(login).is_err() {
            self.0.create_user(login, password).unwrap();
        }
        self.0.set_password(login, password).unwrap();
    }
    fn create_admin(&self, login: &str, password: &str) {
        self.create(login, password);
    }
    fn set_password(&self, login: &str, password: &str) {
        self.0.set_password(login, password).unwrap();
    }
    fn accepts(&self, login: &str, password: &str) -> bool {
        self.0.accepts(login, password).unwrap()
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
}

/// Commander's plugin cannot be run by root: `su` asks root for nothing.
mod by_root {
    crate::promises::promises!(crate::Accounts<true>:
        the_new_secret_works_and_the_old_one_stops,
        hostile_logins_survive,
        hostile_passwords_survive,
        a_second_and_a_third_run_are_harmless,
        verify_finds_drift_and_history_repairs_it,
        orchestrator_and_rotator_cannot_be_looked_into,
    );
}

mod by_the_account {
    crate::promises::promises!(crate::Accounts<false>:
        the_new_secret_works_and_the_old_one_stops,
        a_wrong_current_secret_changes_nothing_and_is_told_apart,
        hostile_passwords_survive,
        a_second_and_a_third_run_are_harmless,
        verify_finds_drift_and_history_repairs_it,
    );
}

#[track_caller]
fn rotates(host: &UnixHost, world: &World) {
    let old = world.password("App");
    world.ok(&["rotate", "App"]);
    let new = world.password("App");
    assert!(host.accepts("app", &new).unwrap() && !host.accepts("app", &old).unwrap());
    world.nothing_is_open();
}

/// A record of `app`, for a Turnlock that `by` runs.
fn with_app(host: &UnixHost, by: Option<&str>) -> World {
    host.create_user("app", OLD).unwrap();
    if let Some(by) = by.filter(|by| *by != "app") {
        host.create_user(by, "Somebody-Else-1").unwrap();
    }
    let world = World::within(host, by);
    world.add("App", &fields("app"), OLD);
    world
}

/// Commander takes "all authentication tokens updated successfully" for a failure.
#[test]
fn rhels_success_is_a_success() {
    let host = start(UnixHostOptions { passwd: Passwd::Rhel, ..UnixHostOptions::default() });
    rotates(&host, &with_app(&host, Some("app")));
}

#[test]
fn somebody_else_goes_through_su() {
    let host = start(UnixHostOptions::default());
    let world = with_app(&host, Some("other"));
    rotates(&host, &world);
    rotates(&host, &world);
    assert_eq!(world.json(&["check", "App"])[0]["findings"]["may_rotate"], "yes");
    world.edit_password("App", "Not-The-Right-1");
    let wrong = world.fails(3, &["rotate", "App"]);
    assert_eq!((&wrong["kind"], &wrong["state"]), (&json!("authentication"), &json!("unchanged")), "{wrong}");
}

#[test]
fn an_expired_password_is_renewed_by_everybody() {
    for by in [None, Some("app"), Some("other")] {
        let host = start(UnixHostOptions::default());
        let world = with_app(&host, by);
        host.expire("app").unwrap();
        assert_eq!(world.json(&["verify", "App"])[0]["outcome"], "accepted", "{by:?}");
        rotates(&host, &world);
    }
}

/// Commander waits for a minute and says nothing of the reason.
#[test]
fn a_refused_password_tells_the_rules_words_and_changes_nothing() {
    for (by, quality) in [
        (Some("app"), "minlen=12 dictcheck=0"),
        (Some("other"), "minlen=12 dictcheck=0"),
        (None, "minlen=12 dictcheck=0 enforce_for_root"),
    ] {
        let host = start(UnixHostOptions { quality: Some(quality.to_owned()), ..UnixHostOptions::default() });
        let world = with_app(&host, by);
        let refused = world.fails_with(3, &["rotate", "App", "--password", "-"], "Sh0rt!");
        assert_eq!((&refused["kind"], &refused["state"]), (&json!("policy"), &json!("unchanged")), "{by:?} {refused}");
        assert!(refused["causes"].to_string().contains("shorter than"), "{refused}");
        assert!(host.accepts("app", OLD).unwrap());
        rotates(&host, &world);
    }
}

#[test]
fn a_password_used_before_is_refused_with_the_rules_words() {
    let options = UnixHostOptions {
        quality: Some("minlen=8 dictcheck=0".to_owned()),
        history: Some(5),
        ..UnixHostOptions::default()
    };
    let host = start(options);
    let world = with_app(&host, Some("app"));
    for next in ["Second-Password-22", "Third-Password-333"] {
        world.ok_with(&["rotate", "App", "--password", "-"], next);
    }
    // Turnlock's own history would refuse it first: another vault does not know it.
    let other = World::within(&host, Some("app"));
    other.add("App", &fields("app"), "Third-Password-333");
    let refused = other.fails_with(3, &["rotate", "App", "--password", "-"], "Second-Password-22");
    assert_eq!((&refused["kind"], &refused["state"]), (&json!("policy"), &json!("unchanged")), "{refused}");
    assert!(refused["causes"].to_string().contains("already used"), "{refused}");
    assert!(host.accepts("app", "Third-Password-333").unwrap());
}

#[test]
fn locked_closed_missing_and_foreign_accounts_are_told_apart() {
    let host = start(UnixHostOptions { lockout: Some(3), ..UnixHostOptions::default() });
    let world = with_app(&host, Some("other"));
    for _ in 0..3 {
        assert!(!host.accepts("app", "Wrong-One-1").unwrap());
    }
    let locked = world.fails(3, &["rotate", "App"]);
    assert_eq!((&locked["kind"], &locked["state"]), (&json!("locked_out"), &json!("unchanged")), "{locked}");
    assert_eq!(world.fails(3, &["check", "App"])["kind"], "locked_out");
    host.run(&["faillock", "--user", "app", "--reset"], b"").unwrap();
    rotates(&host, &world);
    host.close("app").unwrap();
    let closed = world.fails(3, &["rotate", "App"]);
    assert_eq!((&closed["kind"], &closed["state"]), (&json!("permission"), &json!("unchanged")), "{closed}");
    world.add("Nobody", &fields("no-such-one"), OLD);
    assert_eq!(world.fails(3, &["rotate", "Nobody"])["kind"], "not_found");
    world.add("Elsewhere", &fields("elsewhere").with("cmdr:host=web1.example.com"), OLD);
    let elsewhere = world.fails(3, &["check", "Elsewhere"]);
    assert!(elsewhere["hint"].to_string().contains("plugin ssh"), "{elsewhere}");
}

#[test]
fn no_secret_is_seen_in_the_box() {
    let (old, new) = ("canary+OLD/4f8=Yellow", "canary+NEW/9c1=Yellow");
    for by in [None, Some("app"), Some("other")] {
        let host = start(UnixHostOptions::default());
        let world = with_app(&host, by);
        host.set_password("app", old).unwrap();
        world.edit_password("App", old);
        let watch = host.watch().unwrap();
        world.ok_with(&["rotate", "App", "--password", "-"], new);
        world.ok(&["verify", "App"]);
        let seen = watch.end();
        assert!(seen.iter().any(|line| line.contains("turnlock-unixpasswd")), "the watch saw no rotator");
        assert!(seen.iter().all(|line| !line.contains("canary+")), "a command line or an environment holds a secret");
        assert!(host.accepts("app", new).unwrap());
        assert!(!host.log().contains("canary+"), "{}", host.log());
        let found = host.run(&["grep", "-rl", "canary+", "/home", "/var/log", "/run"], b"").unwrap();
        assert_eq!(found.stdout, "", "a file in the box holds a secret");
    }
}

/// Adds a rule in front of, or behind, those of PAM for this service.
fn rule(host: &UnixHost, service: &str, place: &str, rule: &str) {
    let file = format!("/etc/pam.d/{service}");
    let script = format!("sed -i '{place} {rule}' {file} && cp {file} /run/changed");
    let done = host.run(&["sh", "-c", &script], b"").unwrap();
    assert_eq!(done.status, 0, "{}", done.stderr);
}

/// `pam_wheel`, as hardening guides want it, refuses a right password as it does a wrong one.
#[test]
fn a_rule_that_keeps_everybody_from_su_is_no_wrong_password() {
    let host = start(UnixHostOptions::default());
    let world = with_app(&host, None);
    host.run(&["groupadd", "-f", "wheel"], b"").unwrap();
    rule(&host, "su", "1i", "auth required pam_wheel.so use_uid");
    rule(&host, "su", "1i", "auth sufficient pam_rootok.so");
    let unasked = world.fails(3, &["verify", "App"]);
    assert_eq!(unasked["kind"], "unsupported", "{unasked}");
    assert!(unasked["hint"].to_string().contains("pam_wheel"), "{unasked}");
    assert_eq!(world.fails(3, &["check", "App"])["kind"], "unsupported");
}

/// A script that hands the password on, say, fails when pam_unix has written.
#[test]
fn what_a_later_module_refuses_is_not_called_unchanged() {
    for by in [None, Some("app")] {
        let host = start(UnixHostOptions::default());
        let world = with_app(&host, by);
        rule(&host, "common-password", "$a", "password required pam_exec.so quiet /bin/false");
        let output = world.run(&["rotate", "App", "-o", "json"]);
        let new = world.password("App");
        assert!(!host.accepts("app", OLD).unwrap(), "{by:?}: pam_unix has written");
        assert!(output.status == 0 && host.accepts("app", &new).unwrap(), "{by:?}: {}{}", output.stdout, output.stderr);
        world.nothing_is_open();
    }
}

#[test]
fn root_does_not_unlock_what_somebody_has_locked() {
    let host = start(UnixHostOptions::default());
    let world = with_app(&host, None);
    host.run(&["passwd", "-l", "app"], b"").unwrap();
    let before = host.run(&["getent", "shadow", "app"], b"").unwrap().stdout;
    for command in ["rotate", "check", "verify"] {
        let locked = world.fails(3, &[command, "App"]);
        assert_eq!(locked["kind"], "locked_out", "{command}: {locked}");
    }
    assert_eq!(host.run(&["getent", "shadow", "app"], b"").unwrap().stdout, before);
    host.run(&["passwd", "-u", "app"], b"").unwrap();
    rotates(&host, &world);
}

#[test]
fn a_number_is_no_login() {
    let host = start(UnixHostOptions::default());
    let world = with_app(&host, None);
    world.add("Number", &fields(&host.ids("app").unwrap().0.to_string()), OLD);
    assert_eq!(world.fails(3, &["rotate", "Number"])["kind"], "not_found");
}
