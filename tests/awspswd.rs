//! The rotator awspswd on moto (`lab/aws/server.py` says what that does not
//! prove): the promises of every rotator as far as a target can keep them that
//! nobody can ask, and what only IAM can break. Whether a password works is
//! told by what moto keeps: it has no console to open.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a broken expectation of a test program is its failure"
)]

mod promises;
mod world;

use std::path::PathBuf;

use lab::{AccessKey, Aws, process};
use promises::Target;
use serde_json::{Value, json};
use world::{Fields, World};

const OLD: &str = "Old-And-Tired-1";
/// Whose key a record holds that is nobody's own.
const MANAGER: &str = "manager";

struct Console(Aws);

impl Console {
    /// With one user, and a record of it.
    fn with_app() -> (Self, World) {
        let console = Self::start(&promises::NAMES);
        console.create("app", OLD);
        let world = World::new();
        world.add("App", &console.fields("app"), OLD);
        (console, world)
    }

    fn key(&self, login: &str) -> AccessKey {
        self.0.keys(login).unwrap().remove(0)
    }

    /// A record's fields without anybody who signs.
    fn nobodys(&self, login: &str, host: &str, port: u16) -> Fields {
        Fields { login: login.to_owned(), ..Fields::default() }
            .with("cmdr:plugin=awspswd")
            .with(format!("turnlock:endpoint=https://{host}:{port}"))
            .with(self.trusted())
    }

    fn signed(&self, fields: Fields, by: &str) -> Fields {
        let key = self.key(by);
        fields.with(format!("cmdr:aws_key_id={}", key.id)).with(format!("cmdr:aws_key_secret={}", key.secret))
    }

    fn changes(&self) -> usize {
        let is_change = |line: &&str| ["Update", "Create", "Change"].iter().any(|word| line.starts_with(word));
        self.0.log().lines().filter(is_change).count()
    }
}

impl Target for Console {
    const PLUGIN: &'static str = "awspswd";
    const SCHEME: &'static str = "https";
    const SERVER: &'static str = "AWS (";
    const CAN_BE_ASKED: bool = false;
    const ADMIN_IS_AN_ACCOUNT: bool = false;
    const TELLS_RIGHTS: bool = false;

    /// All that IAM takes in a name.
    fn hostile_logins() -> Vec<String> {
        ["ann+ops=x,y.z@contoso.example", "_-_", "UPPER", "a=b&Action=DeleteUser", &"l".repeat(64)]
            .map(str::to_owned)
            .to_vec()
    }

    /// Latin-1, as far as the default policy takes it.
    fn hostile_passwords() -> Vec<String> {
        let most: String = "aB3$é%'\"\\ ".chars().cycle().take(128).collect();
        [
            r#"1T's "Quoted" \ 'twice' \\ over"#,
            r"'; DROP USER x;-- \'; \0 \x00 \n %s %n %% %00 \u0041",
            "$(reboot) `Id` ${HOME} $$ $1 {0} {} <!-- & | > /dev/null",
            "  1 Space at both ends  ",
            "-1-Begins-With-A-Hyphen",
            "Grüße-Öl-ß-é-9&Action=DeleteUser&UserName=app+x%20",
            "8Charac!",
            &most,
        ]
        .map(str::to_owned)
        .to_vec()
    }

    fn start(names: &[&str]) -> Self {
        let aws = Aws::start(names).unwrap();
        aws.create_user(MANAGER, None).unwrap();
        aws.allow(MANAGER, &["iam:GetUser", "iam:*LoginProfile", "iam:GetAccountPasswordPolicy"]).unwrap();
        aws.create_key(MANAGER, None).unwrap();
        Self(aws)
    }
    fn port(&self) -> u16 {
        self.0.port()
    }
    fn ca(&self) -> PathBuf {
        self.0.ca_path()
    }
    fn create(&self, login: &str, password: &str) {
        self.0.create_user(login, Some(password)).unwrap();
    }
    fn create_admin(&self, login: &str, secret: &str) {
        self.0.create_user(login, None).unwrap();
        self.0.allow(login, &["iam:*"]).unwrap();
        self.0.create_key(login, Some(secret)).unwrap();
    }
    fn create_without_rights(&self, login: &str, secret: &str) {
        self.0.create_user(login, None).unwrap();
        self.0.allow(login, &["iam:Get*"]).unwrap();
        self.0.create_key(login, Some(secret)).unwrap();
    }
    fn set_password(&self, login: &str, password: &str) {
        self.0.set_password(login, Some(password)).unwrap();
    }
    fn accepts(&self, login: &str, password: &str) -> bool {
        self.0.password(login).unwrap().as_deref() == Some(password)
    }
    fn failed_logins(&self) -> usize {
        self.0.failures()
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
        self.signed(self.nobodys(login, "127.0.0.1", port), MANAGER)
    }
    fn fields_by(&self, login: &str, host: &str) -> Fields {
        self.signed(self.nobodys(login, host, self.port()), MANAGER)
    }
    /// The key's secret is the record's password.
    fn fields_of_admin(&self, login: &str) -> Fields {
        Fields { login: login.to_owned(), ..Fields::default() }.with(format!("cmdr:aws_key_id={}", self.key(login).id))
    }
    fn fields_of_reset(&self, login: &str, admin: &str) -> Fields {
        self.nobodys(login, "127.0.0.1", self.port()).with(format!("turnlock:admin={admin}"))
    }
}

/// All but three: nobody shows a user's password to IAM, so that a wrong one
/// is not noticed, none that was changed behind our back, and what somebody
/// may do is told by trying only.
mod promised {
    crate::promises::promises!(crate::Console:
        the_new_secret_works_and_the_old_one_stops,
        a_healthy_rotation_spends_no_failed_log_in,
        a_target_out_of_reach_or_a_stranger_is_shown_no_secret,
        an_admin_resets_an_account_whose_secret_is_lost,
        an_admin_without_the_right_changes_nothing,
        hostile_logins_survive,
        hostile_passwords_survive,
        a_second_and_a_third_run_are_harmless,
        tls_is_believed_only_as_far_as_told,
        a_connection_cut_at_any_byte_loses_nothing,
        no_secret_is_seen_anywhere,
        a_held_rotation_shows_no_secret,
        orchestrator_and_rotator_cannot_be_looked_into,
        two_runs_on_one_account_rotate_it_once,
    );
}

#[track_caller]
fn rotates(console: &Console, world: &World) -> String {
    let old = world.password("App");
    let rotated = world.ok(&["rotate", "App"]);
    let new = world.password("App");
    assert!(new != old && console.accepts("app", &new) && !console.accepts("app", &old));
    world.nothing_is_open();
    rotated.stdout + &rotated.stderr
}

/// Nothing changed, and nothing was staged.
#[track_caller]
fn refuses(console: &Console, world: &World, kind: &str, words: &[&str]) -> Value {
    let (before, password) = (world.content(), console.0.password("app").unwrap());
    let refused = world.fails(3, &["rotate", "App"]);
    assert_eq!((&refused["kind"], &refused["state"]), (&json!(kind), &json!("unchanged")), "{refused}");
    for word in words {
        assert!(refused.to_string().contains(word), "{word}: {refused}");
    }
    assert_eq!((world.content(), console.0.password("app").unwrap()), (before, password));
    world.nothing_is_open();
    refused
}

#[test]
fn a_user_without_console_access_gets_it_only_where_that_is_asked_for() {
    let (console, world) = Console::with_app();
    console.0.set_password("app", None).unwrap();
    let changes = console.changes();
    refuses(&console, &world, "conflict", &["no password", "create_login_profile"]);
    let check = world.run(&["check", "App", "-o", "json"]);
    assert!(check.status == 3 && check.stdout.contains(r#""may_rotate":"no""#), "{}", check.stdout);
    assert_eq!(console.changes(), changes, "nobody was given anything");
    world.ok(&["edit", "App", "--set", "turnlock:create_login_profile=true"]);
    assert!(world.ok(&["check", "App"]).stdout.contains("cannot open the console yet"));
    world.ok(&["rotate", "App"]);
    assert!(console.accepts("app", &world.password("App")));
    // And from then on it is a change like any other.
    rotates(&console, &world);
    // Who is not there is told apart from who has no password.
    world.ok(&["edit", "App", "--login", "nobody"]);
    let missing = world.fails(3, &["rotate", "App"]);
    assert_eq!(missing["kind"], "not_found", "{missing}");
}

#[test]
fn the_accounts_policy_shapes_what_is_drawn() {
    let (console, world) = Console::with_app();
    world.ok(&["edit", "App", "--set", "cmdr:rules=0,1,0,0"]);
    let refused = world.fails(3, &["rotate", "App"]);
    assert!(refused.to_string().contains("demands three"), "{refused}");
    world.ok(&["edit", "App", "--unset", "cmdr:rules"]);
    for policy in [
        json!({"length": 33, "upper": true, "lower": true, "numbers": true, "symbols": true}),
        json!({"length": 8}),
        json!({"length": 128, "symbols": true}),
    ] {
        console.0.set_password_policy(policy.clone()).unwrap();
        for _ in 0..3 {
            rotates(&console, &world);
        }
        let length = u64::try_from(world.password("App").chars().count()).unwrap();
        assert_eq!(length, policy.get("length").and_then(Value::as_u64).unwrap().max(20), "{policy}");
    }
    let check = world.ok(&["check", "App"]).stdout;
    assert!(check.contains("128 characters or more, symbols among them"), "{check}");
    // One's own password that the account does not take is refused before AWS is asked.
    let old = world.password("App");
    let refused = world.fails_with(2, &["rotate", "App", "--password", "-"], "Too-Short-1");
    assert!(refused.to_string().contains("at least 128 characters"), "{refused}");
    assert!(console.accepts("app", &old));
    // A policy that nobody may read, and that asks for more than everybody's: one try is refused, another one made.
    console.0.allow(MANAGER, &["iam:GetUser", "iam:*LoginProfile"]).unwrap();
    let refused = refuses(&console, &world, "policy", &["PasswordPolicyViolation"]);
    assert!(!refused.to_string().contains(&old));
    console.0.set_password_policy(json!({"length": 12, "symbols": true, "numbers": true})).unwrap();
    rotates(&console, &world);
}

#[test]
fn a_user_changes_its_own_password_by_showing_the_old_one() {
    let (console, world) = Console::with_app();
    console.0.allow("app", &["iam:ChangePassword", "iam:GetAccountPasswordPolicy"]).unwrap();
    let own = console.0.create_key("app", None).unwrap();
    world.ok(&["edit", "App", "--set", &format!("cmdr:aws_key_id={}", own.id)]);
    world.ok(&["edit", "App", "--set", &format!("cmdr:aws_key_secret={}", own.secret)]);
    rotates(&console, &world);
    rotates(&console, &world);
    assert!(console.log().contains("ChangePassword") && !console.log().contains("UpdateLoginProfile"));
    // AWS does not tell a wrong password from a missing right, so neither do we.
    let right = world.password("App");
    world.edit_password("App", "Not-The-Right-1");
    refuses(&console, &world, "permission", &["old one is wrong", "iam:ChangePassword"]);
    world.edit_password("App", &right);
    rotates(&console, &world);
}

#[test]
fn a_lost_answer_is_asked_for_again_and_a_definite_one_is_not() {
    let (console, world) = Console::with_app();
    for lost in ["cut after", "cut before"] {
        console.0.fault("UpdateLoginProfile", json!({"what": lost}), 1).unwrap();
        let changes = console.changes();
        rotates(&console, &world);
        assert_eq!(console.changes(), changes + 2, "{lost}: the same password, once more");
    }
    let refusal = |status: u16, code: &str| json!({"what": "status", "status": status, "code": code});
    for (status, code, kind) in [
        (403, "AccessDenied", "permission"),
        (400, "Throttling", "rate_limited"),
        (409, "EntityTemporarilyUnmodifiable", "conflict"),
    ] {
        console.0.fault("UpdateLoginProfile", refusal(status, code), 1).unwrap();
        let changes = console.changes();
        refuses(&console, &world, kind, &[]);
        assert_eq!(console.changes(), changes + 1, "{code}");
    }
    console.0.fault("GetLoginProfile", refusal(503, "ServiceUnavailable"), 2).unwrap();
    rotates(&console, &world);
}

#[test]
fn a_role_that_may_not_be_assumed_is_named() {
    let (console, world) = Console::with_app();
    world.ok(&["edit", "App", "--set", "cmdr:aws_assume_role=arn:aws:iam::123456789012:role/nobodys"]);
    refuses(&console, &world, "permission", &["role/nobodys", "sts:AssumeRole"]);
    let role = console.0.create_role("users", MANAGER, None, &["iam:*"]).unwrap();
    console.0.allow(MANAGER, &["sts:AssumeRole"]).unwrap();
    world.ok(&["edit", "App", "--set", &format!("cmdr:aws_assume_role={role}")]);
    rotates(&console, &world);
}

/// See the same test of awskey.
#[test]
fn no_library_logs_a_secret_at_any_level() {
    let (console, world) = Console::with_app();
    let key = console.key(MANAGER);
    let mut seen = 0;
    for with in ["right", "refused", "cut"] {
        match with {
            "refused" => console
                .0
                .fault("UpdateLoginProfile", json!({"what": "status", "status": 400, "code": "Throttling"}), 1)
                .unwrap(),
            "cut" => console.0.fault("UpdateLoginProfile", json!({"what": "cut after"}), 1).unwrap(),
            _ => {}
        }
        let params = json!({
            "account": {"login": "app", "endpoint": format!("https://127.0.0.1:{}", console.port()), "ca": console.ca()},
            "current": {
                "password": "canary+OLD/4f8=Yellow%Bird", "access_key_id": key.id, "secret_access_key": key.secret,
            },
            "next": {"password": "canary+NEW/9c1=Yellow%Bird"},
            "attempt": "1",
        });
        for operation in ["check", "apply"] {
            let mut program = world.turnlock.program("examples/awspswd-talkative", &[operation]).unwrap();
            let output = process::run(&mut program, params.to_string().as_bytes()).unwrap();
            seen +=
                output.stderr.lines().filter(|line| line.starts_with("TRACE ") || line.starts_with("DEBUG ")).count();
            for canary in [key.secret.as_str(), "canary", "Yellow"] {
                let lines = output.stderr.lines().chain(output.stdout.lines());
                let found: Vec<&str> = lines.filter(|line| line.contains(canary)).collect();
                assert!(found.is_empty(), "{with}, {operation}: {canary} in {found:?}");
            }
        }
    }
    assert!(seen > 50, "only {seen} lines were logged: the sweep proves nothing");
}
