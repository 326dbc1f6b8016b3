//! What every rotator promises, written once and asked of real servers. Whether
//! a promise was kept is told by logging in through the server vendor's own
//! client, never by what Turnlock says of itself.
#![allow(dead_code, reason = "a target that has no TLS, or no network, makes fewer promises")]

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use lab::{Authority, Canaries, Direction, Fault, Proxy, process, wait_until};
use serde_json::{Value, json};

use crate::world::{Fields, Running, World, error_of};

/// A server of one kind, and what a test asks of it.
pub(crate) trait Target: Sized {
    /// The plugin that serves it.
    const PLUGIN: &'static str;
    /// The scheme of its URLs.
    const SCHEME: &'static str;
    /// How its version text begins.
    const SERVER: &'static str;
    /// How many log-ins a wrong current secret costs: itself, and the question
    /// whether the wanted secret is there already.
    const COST_OF_A_WRONG_SECRET: usize = 2;
    /// Whether Turnlock can ask it for a secret. Whoever judges here always can.
    const CAN_BE_ASKED: bool = true;
    /// Whether an admin is an account like the others, so that it can be rotated, too.
    const ADMIN_IS_AN_ACCOUNT: bool = true;
    /// Whether `check` can tell what an admin may do.
    const TELLS_RIGHTS: bool = true;
    /// After how many bytes of its answers a rotation is held and looked at.
    const HELD_AFTER: [u64; 3] = [0, 600, 1100];
    /// What a log-in is refused with where the server is not the one that was meant.
    const STRANGER: &'static str = "tls";
    /// Logins that its own quoting has to survive.
    fn hostile_logins() -> Vec<String>;

    /// Passwords that break whoever quotes, cuts or encodes them wrongly, as far as the target takes them.
    fn hostile_passwords() -> Vec<String> {
        HOSTILE_PASSWORDS.iter().map(|password| (*password).to_owned()).chain([hundred()]).collect()
    }

    /// Starts a server whose certificate bears these names.
    fn start(names: &[&str]) -> Self;
    fn port(&self) -> u16;
    fn ca(&self) -> PathBuf;
    /// Makes an account that can do nothing but log in.
    fn create(&self, login: &str, password: &str);
    /// Makes an account that may reset others.
    fn create_admin(&self, login: &str, password: &str);
    /// Makes an admin that may log in, and nothing else.
    fn create_without_rights(&self, login: &str, password: &str) {
        self.create(login, password);
    }
    /// Gives an account another password behind Turnlock's back.
    fn set_password(&self, login: &str, password: &str);
    /// Whether the account is let in, said by the vendor's own client.
    fn accepts(&self, login: &str, password: &str) -> bool;
    /// How many log-ins the server has refused so far.
    fn failed_logins(&self) -> usize;
    /// Everything the server wrote down, statements included.
    fn log(&self) -> String;
    fn pause(&self);
    fn resume(&self);
    fn stop(&mut self);
    fn restart(&mut self);

    /// A home from which this target can be reached.
    fn world(&self) -> World {
        World::new()
    }

    /// The field that makes a record believe the server.
    fn trusted(&self) -> String {
        format!("turnlock:ca={}", self.ca().display())
    }

    /// The same field, believing another server than this one.
    fn mistrusted(&self, home: &Path) -> String {
        let stranger = home.join("stranger.crt");
        Authority::new().unwrap().write_to(&stranger).unwrap();
        format!("turnlock:ca={}", stranger.display())
    }

    /// A record's fields for this account.
    fn fields(&self, login: &str) -> Fields {
        self.fields_at(login, self.port())
    }

    /// The same account, reached through another port.
    fn fields_at(&self, login: &str, port: u16) -> Fields {
        Fields {
            login: login.to_owned(),
            url: Some(format!("{}://127.0.0.1:{port}", Self::SCHEME)),
            custom: vec![self.trusted()],
        }
    }

    /// The same account, by another name of the server's host.
    fn fields_by(&self, login: &str, host: &str) -> Fields {
        Fields { url: Some(format!("{}://{host}:{}", Self::SCHEME, self.port())), ..self.fields(login) }
    }

    /// The fields of an admin's own record.
    fn fields_of_admin(&self, login: &str) -> Fields {
        self.fields(login)
    }

    /// The fields of an account that an admin's record resets.
    fn fields_of_reset(&self, login: &str, admin: &str) -> Fields {
        self.fields(login).with(format!("turnlock:admin={admin}"))
    }

    fn proxy(&self) -> Proxy {
        Proxy::start(SocketAddr::from(([127, 0, 0, 1], self.port()))).unwrap()
    }
}

/// The names in a server's certificate, unless a promise is about names.
pub(crate) const NAMES: [&str; 2] = ["localhost", "127.0.0.1"];

/// Makes a test of every promise for one target.
macro_rules! promises {
    ($target:ty) => {
        crate::promises::promises!($target:
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
            tls_is_believed_only_as_far_as_told,
            a_connection_cut_at_any_byte_loses_nothing,
            no_secret_is_seen_anywhere,
            a_held_rotation_shows_no_secret,
            orchestrator_and_rotator_cannot_be_looked_into,
            two_runs_on_one_account_rotate_it_once,
        );
    };
    // Where refused log-ins lock an account, those that have to be refused often are another group.
    ($target:ty: where_accounts_are_locked $(+ $more:ident)*) => {
        crate::promises::promises!($target:
            the_new_secret_works_and_the_old_one_stops,
            a_healthy_rotation_spends_no_failed_log_in,
            a_wrong_current_secret_changes_nothing_and_is_told_apart,
            an_admin_resets_an_account_whose_secret_is_lost,
            an_admin_without_the_right_changes_nothing,
            hostile_logins_survive,
            hostile_passwords_survive,
            a_second_and_a_third_run_are_harmless,
            check_changes_nothing_and_says_what_it_found,
            a_connection_cut_at_any_byte_loses_nothing,
            no_secret_is_seen_anywhere,
            orchestrator_and_rotator_cannot_be_looked_into,
            two_runs_on_one_account_rotate_it_once,
            $($more,)*
        );
    };
    ($target:ty: where_accounts_are_never_locked) => {
        crate::promises::promises!($target:
            the_new_secret_works_and_the_old_one_stops,
            a_wrong_current_secret_changes_nothing_and_is_told_apart,
            verify_finds_drift_and_history_repairs_it,
            a_connection_cut_at_any_byte_loses_nothing,
            a_held_rotation_shows_no_secret,
        );
    };
    ($target:ty: $($promise:ident,)+) => {
        $(#[test]
        fn $promise() {
            crate::promises::$promise(<$target as crate::promises::Target>::start(&crate::promises::NAMES));
        })+
    };
}
pub(crate) use promises;

const OLD: &str = "Old-And-Tired-1";

pub(crate) const HOSTILE_PASSWORDS: [&str; 7] = [
    r#"1t's "Quoted" \ 'twice' \\ over"#,
    r"'; DROP USER app;-- \'; \0 \x00 \n %s %n %% %00",
    "$(reboot) `id` ${HOME} $$ $1 {0} {} <!-- & | > /dev/null",
    "Grüße-Öl-ß-é-Ⅸ-ﬁ-ª-9",
    "\u{1F4A3}-Größe-\u{10FFFF}-\u{1D11E}-1",
    "  1 Space at both ends  ",
    "-1-Begins-With-A-Hyphen",
];

fn hundred() -> String {
    "aB3$éß%'\"\\".chars().cycle().take(100).collect()
}

/// Exactly one of a record's two secrets is let in, and it is the vault's.
#[track_caller]
fn only_the_vaults_works<T: Target>(target: &T, world: &World, title: &str, login: &str, old: &str) -> String {
    let new = world.password(title);
    assert_ne!(new, old);
    assert!(target.accepts(login, &new), "the server refuses what the vault holds");
    assert!(!target.accepts(login, old), "the server still takes the old secret");
    new
}

/// Nothing changed: neither the server, nor a record, and nothing is open.
#[track_caller]
fn unchanged<T: Target>(target: &T, world: &World, login: &str, right: &str, before: &str) {
    assert!(target.accepts(login, right), "the server no longer takes the secret it had");
    assert_eq!(world.content(), before, "the vault changed");
    world.nothing_is_open();
}

pub(crate) fn the_new_secret_works_and_the_old_one_stops<T: Target>(target: T) {
    let world = target.world();
    target.create("app", OLD);
    world.add("App", &target.fields("app"), OLD);
    let rotated = world.ok(&["rotate", "App"]);
    let proof = if T::CAN_BE_ASKED { "proven by a new log-in" } else { "not proven: this target cannot be asked" };
    assert!(rotated.stdout.contains(proof), "{}", rotated.stdout);
    let new = only_the_vaults_works(&target, &world, "App", "app", OLD);
    assert_eq!(new.chars().count(), 20);
    assert_eq!(world.past("App", "previous"), [OLD]);
    // One's own secret, and a wished-for length, by a machine's account of it.
    let own = "Mine-And-Only-Mine-7";
    let told = world.ok_with(&["rotate", "App", "--password", "-", "-o", "json"], own);
    let told: Value = serde_json::from_str(told.stdout.trim()).unwrap();
    assert_eq!((&told["outcome"], &told["verified"]), (&json!("rotated"), &json!(T::CAN_BE_ASKED)));
    assert_eq!(only_the_vaults_works(&target, &world, "App", "app", &new), own);
    world.ok(&["rotate", "App", "--length", "33", "--rules", "4,4,4,0"]);
    let long = only_the_vaults_works(&target, &world, "App", "app", own);
    assert!(long.chars().count() == 33 && long.chars().all(|one| one.is_ascii_alphanumeric()), "{long}");
    world.nothing_is_open();
}

pub(crate) fn a_healthy_rotation_spends_no_failed_log_in<T: Target>(target: T) {
    let world = target.world();
    target.create("app", OLD);
    target.create_admin("boss", OLD);
    world.add("App", &target.fields("app"), OLD);
    world.add("Boss", &target.fields_of_admin("boss"), OLD);
    world.add("Reset", &target.fields_of_reset("app2", "Boss"), OLD);
    target.create("app2", OLD);
    let before = target.failed_logins();
    for step in
        [&["rotate", "App"][..], &["check", "App"], &["rotate", "App"], &["verify", "App"], &["rotate", "Reset"]]
    {
        world.ok(step);
        assert_eq!(target.failed_logins(), before, "{step:?}");
    }
}

pub(crate) fn a_wrong_current_secret_changes_nothing_and_is_told_apart<T: Target>(target: T) {
    let world = target.world();
    target.create("app", OLD);
    world.add("App", &target.fields("app"), "Not-The-Right-1");
    let before = world.content();
    let failed = target.failed_logins();

    let wrong = world.fails(3, &["rotate", "App"]);
    assert_eq!((&wrong["kind"], &wrong["state"]), (&json!("authentication"), &json!("unchanged")), "{wrong}");
    assert_eq!(target.failed_logins(), failed + T::COST_OF_A_WRONG_SECRET, "{}", target.log());
    unchanged(&target, &world, "app", OLD, &before);

    // What a person reads names the record's target and what to do.
    let read = world.run(&["rotate", "App"]);
    assert!(read.stderr.contains("\"app\"") && read.stderr.contains("state:"), "{}", read.stderr);
    assert!(
        !read.stderr.contains("the credential in the vault is still the current one"),
        "it never was: {}",
        read.stderr
    );
}

pub(crate) fn a_target_out_of_reach_or_a_stranger_is_shown_no_secret<T: Target>(mut target: T) {
    let world = target.world();
    target.create("app", OLD);
    let proxy = target.proxy();
    world.add("App", &target.fields_at("app", proxy.port()), "Not-The-Right-1");
    let before = world.content();
    let failed = target.failed_logins();

    proxy.set(Fault::Refuse).unwrap();
    let refused = world.fails(3, &["rotate", "App"]);
    assert_eq!(refused["kind"], "unreachable", "{refused}");
    unchanged(&target, &world, "app", OLD, &before);
    proxy.set(Fault::None).unwrap();

    proxy.set(Fault::BlackHole { direction: Direction::ToClient, after: 0 }).unwrap();
    let silent = world.fails(3, &["rotate", "App", "--timeout", "1"]);
    assert!(["timeout", "unreachable"].contains(&silent["kind"].as_str().unwrap()), "{silent}");
    unchanged(&target, &world, "app", OLD, &before);
    proxy.set(Fault::None).unwrap();

    world.ok(&["edit", "App", "--set", &target.mistrusted(world.turnlock.home())]);
    let before = world.content();
    let stranger = world.fails(3, &["rotate", "App"]);
    assert_eq!(stranger["kind"], T::STRANGER, "{stranger}");
    unchanged(&target, &world, "app", OLD, &before);

    target.stop();
    let stopped = world.fails(3, &["rotate", "App"]);
    assert_eq!(stopped["state"], "unchanged", "{stopped}");
    target.restart();
    unchanged(&target, &world, "app", OLD, &before);
    assert_eq!(target.failed_logins(), failed, "the wrong secret was never tried");
}

pub(crate) fn an_admin_resets_an_account_whose_secret_is_lost<T: Target>(target: T) {
    let world = target.world();
    target.create("app", OLD);
    target.create_admin("boss", "Boss-Of-It-All-1");
    world.add("Boss", &target.fields_of_admin("boss"), "Boss-Of-It-All-1");
    world.add("App", &target.fields_of_reset("app", "Boss"), "Nobody-Knows-It-1");
    world.ok(&["rotate", "App"]);
    only_the_vaults_works(&target, &world, "App", "app", OLD);
    assert!(!T::ADMIN_IS_AN_ACCOUNT || target.accepts("boss", "Boss-Of-It-All-1"));
    assert_eq!(world.password("Boss"), "Boss-Of-It-All-1");

    // By the admin's UID as well, and the admin rotates like anybody.
    let uid = world.json(&["show", "Boss"])[0]["uid"].as_str().unwrap().to_owned();
    world.ok(&["edit", "App", "--set", &format!("turnlock:admin={uid}")]);
    if T::ADMIN_IS_AN_ACCOUNT {
        world.ok(&["rotate", "Boss"]);
        only_the_vaults_works(&target, &world, "Boss", "boss", "Boss-Of-It-All-1");
    }
    let old = world.password("App");
    world.ok(&["rotate", "App"]);
    only_the_vaults_works(&target, &world, "App", "app", &old);

    // An admin whose own secret is wrong changes nothing, and it is the admin who is named.
    let app = world.password("App");
    world.edit_password("Boss", "Not-The-Boss-1");
    let before = world.content();
    let wrong = world.fails(3, &["rotate", "App"]);
    assert_eq!(wrong["kind"], "authentication", "{wrong}");
    assert!(wrong["error"].as_str().unwrap().contains("boss"), "{wrong}");
    unchanged(&target, &world, "app", &app, &before);
}

pub(crate) fn an_admin_without_the_right_changes_nothing<T: Target>(target: T) {
    let world = target.world();
    target.create("app", OLD);
    target.create_without_rights("norights", "Nobody-At-All-1");
    world.add("Nobody", &target.fields_of_admin("norights"), "Nobody-At-All-1");
    world.add("App", &target.fields_of_reset("app", "Nobody"), OLD);
    let before = world.content();
    let refused = world.fails(3, &["rotate", "App"]);
    assert_eq!((&refused["kind"], &refused["state"]), (&json!("permission"), &json!("unchanged")), "{refused}");
    unchanged(&target, &world, "app", OLD, &before);
    let may = world.run(&["check", "App", "-o", "json"]);
    if !T::TELLS_RIGHTS {
        assert!(may.stdout.contains(r#""may_rotate":"unknown""#), "{}", may.stdout);
        return;
    }
    assert_eq!(may.status, 3, "check sees it before a rotation does: {}{}", may.stdout, may.stderr);
}

pub(crate) fn hostile_logins_survive<T: Target>(target: T) {
    let world = target.world();
    for (number, login) in T::hostile_logins().iter().enumerate() {
        let title = format!("Account {number}");
        target.create(login, OLD);
        world.add(&title, &target.fields(login), OLD);
        let mut old = OLD.to_owned();
        for _ in 0..2 {
            world.ok(&["rotate", &title]);
            old = only_the_vaults_works(&target, &world, &title, login, &old);
        }
        assert_eq!(world.json(&["show", &title, "--field", "login"])[0]["value"], **login);
    }
    world.nothing_is_open();
}

pub(crate) fn hostile_passwords_survive<T: Target>(target: T) {
    let passwords = T::hostile_passwords();
    let world = target.world();
    target.create("app", OLD);
    world.add("App", &target.fields("app"), OLD);
    // Each replaces the one before: all are used as the current secret, too.
    let mut old = OLD.to_owned();
    for password in &passwords {
        world.ok_with(&["rotate", "App", "--password", "-"], password);
        assert_eq!(&world.password("App"), password);
        old = only_the_vaults_works(&target, &world, "App", "app", &old);
        world.ok(&["verify", "App"]);
    }
    world.ok(&["rotate", "App"]);
    only_the_vaults_works(&target, &world, "App", "app", &old);

    // Made by somebody else's client, not by us.
    for password in passwords.iter().map(String::as_str).chain(["only small letters\tand a tab"]) {
        target.set_password("app", password);
        world.edit_password("App", password);
        world.ok(&["rotate", "App"]);
        only_the_vaults_works(&target, &world, "App", "app", password);
    }
}

pub(crate) fn a_second_and_a_third_run_are_harmless<T: Target>(target: T) {
    let world = target.world();
    target.create("app", OLD);
    world.add("App", &target.fields("app"), OLD);
    let mut every = vec![OLD.to_owned()];
    for round in 1..=3 {
        world.ok(&["rotate", "App"]);
        let new = world.password("App");
        assert!(!every.contains(&new));
        for old in &every {
            assert!(!target.accepts("app", old), "round {round}");
        }
        assert!(target.accepts("app", &new), "round {round}");
        let mut past = every.clone();
        past.reverse();
        assert_eq!(world.past("App", "previous"), past);
        every.push(new);
    }
    // What was used before is not used again.
    let again = world.fails_with(2, &["rotate", "App", "--password", "-"], OLD);
    assert!(again["error"].as_str().unwrap().contains("used before"), "{again}");
    assert!(target.accepts("app", every.last().unwrap()));
    world.nothing_is_open();
    world.ok(&["audit", "verify"]);
    world.ok(&["recover"]);
    assert_eq!(&world.password("App"), every.last().unwrap());
}

pub(crate) fn check_changes_nothing_and_says_what_it_found<T: Target>(target: T) {
    let world = target.world();
    target.create("app", OLD);
    world.add("App", &target.fields("app"), OLD);
    let before = world.content();
    let found = &world.json(&["check", "App"])[0];
    let findings = &found["findings"];
    assert!(findings["server"].as_str().unwrap().starts_with(T::SERVER), "{found}");
    assert!(findings["tls"].as_str().unwrap().contains("verified"), "{found}");
    assert_eq!(findings["may_rotate"], "yes", "{found}");
    unchanged(&target, &world, "app", OLD, &before);
    assert!(world.history("App").is_empty());
    assert!(world.ok(&["check", "App"]).stdout.contains("may rotate"));
    // Neither does a rehearsal.
    world.ok(&["rotate", "App", "--dry-run"]);
    unchanged(&target, &world, "app", OLD, &before);
    target.set_password("app", "Behind-Your-Back-1");
    if T::CAN_BE_ASKED {
        let wrong = world.fails(3, &["check", "App"]);
        assert_eq!(wrong["kind"], "authentication", "{wrong}");
    }
}

pub(crate) fn verify_finds_drift_and_history_repairs_it<T: Target>(target: T) {
    let world = target.world();
    target.create("app", OLD);
    world.add("App", &target.fields("app"), OLD);
    assert_eq!(world.json(&["verify", "App"])[0]["outcome"], "accepted");
    world.ok(&["rotate", "App"]);
    let new = world.password("App");

    target.set_password("app", "Behind-Your-Back-1");
    let before = world.content();
    let drift = world.fails(3, &["verify", "App"]);
    assert!(drift["error"].as_str().unwrap().contains("refuses"), "{drift}");
    assert!(drift["hint"].as_str().unwrap().contains("--try-history"), "{drift}");
    let read = world.run(&["verify", "App"]);
    assert!(!read.stderr.contains("the credential in the vault is still the current one"), "{}", read.stderr);
    assert_eq!(world.fails(3, &["verify", "App", "--try-history"])["exit_status"], 3);
    assert_eq!(world.content(), before);

    // A server that was restored from a backup.
    target.set_password("app", OLD);
    world.fails(3, &["verify", "App"]);
    assert_eq!(world.json(&["verify", "App", "--try-history"])[0]["outcome"], "adopted");
    assert_eq!(world.password("App"), OLD);
    assert!(world.past("App", "previous").contains(&new), "what was replaced is kept");
    world.ok(&["rotate", "App"]);
    only_the_vaults_works(&target, &world, "App", "app", OLD);
    world.nothing_is_open();
}

/// The server's certificate names its address and `db.test`, but not `localhost`.
pub(crate) fn tls_is_believed_only_as_far_as_told<T: Target>(_: T) {
    let target = T::start(&["127.0.0.1", "db.test"]);
    let world = World::new();
    let login = "tls_app";
    let stranger = world.turnlock.home().join("stranger.crt");
    Authority::new().unwrap().write_to(&stranger).unwrap();
    let with_ca = |ca: &str| target.fields(login).without("turnlock:ca").with(format!("turnlock:ca={ca}"));
    let elsewhere = target.fields_by(login, "localhost");
    world.add("Wrong host", &elsewhere, OLD);
    world.add("Wrong name", &target.fields(login).with("turnlock:server_name=else.test"), OLD);
    world.add("Unknown", &with_ca(stranger.to_str().unwrap()), OLD);
    world.add("No file", &with_ca("/nowhere/ca.pem"), OLD);
    world.add("System", &target.fields(login).without("turnlock:ca").with("turnlock:tls=verify-full"), OLD);
    let before = world.content();
    for title in ["Wrong host", "Wrong name", "Unknown", "No file", "System"] {
        for command in ["rotate", "check", "verify"].into_iter().take(if T::CAN_BE_ASKED { 3 } else { 2 }) {
            let mut arguments = vec![command, title];
            if command == "rotate" {
                // Records of one account: only their trust differs.
                arguments.push("--with-duplicates");
            }
            let refused = world.fails(3, &arguments);
            assert_eq!(refused["kind"], "tls", "{arguments:?}: {refused}");
        }
    }
    assert_eq!(world.content(), before);
    assert!(!target.log().contains(login), "a log-in was tried before the server was believed: {}", target.log());
    world.nothing_is_open();

    target.create(login, OLD);
    let world = World::new();
    world.add("App", &elsewhere.with("turnlock:server_name=db.test"), OLD);
    let found = &world.json(&["check", "App"])[0]["findings"]["findings"];
    assert!(found.as_array().unwrap().iter().all(|finding| finding["severity"] == "info"), "{found}");
    world.ok(&["rotate", "App"]);
    let mut old = only_the_vaults_works(&target, &world, "App", login, OLD);
    world.ok(&["edit", "App", "--unset", "turnlock:server_name"]);
    for (mode, word) in [("verify-ca", "whatever its name"), ("require", "not checked")] {
        world.ok(&["edit", "App", "--set", &format!("turnlock:tls={mode}")]);
        world.ok(&["rotate", "App"]);
        old = only_the_vaults_works(&target, &world, "App", login, &old);
        let found = &world.json(&["check", "App"])[0]["findings"]["findings"];
        let warns =
            |finding: &Value| finding["severity"] == "warning" && finding["message"].as_str().unwrap().contains(word);
        assert!(found.as_array().unwrap().iter().any(warns), "{mode}: {found}");
    }
    // The authority may be the record's own text instead of a file.
    let pem = fs::read_to_string(target.ca()).unwrap();
    world.ok(&["edit", "App", "--set", "turnlock:tls=verify-ca", "--set", &format!("turnlock:ca={pem}")]);
    world.ok(&["rotate", "App"]);
    only_the_vaults_works(&target, &world, "App", login, &old);
}

pub(crate) fn a_connection_cut_at_any_byte_loses_nothing<T: Target>(target: T) {
    let world = target.world();
    target.create("app", OLD);
    let proxy = target.proxy();
    world.add("App", &target.fields_at("app", proxy.port()).with("cmdr:timeout=5"), OLD);
    for (direction, step) in [(Direction::ToServer, 150), (Direction::ToClient, 300)] {
        let mut after = 1;
        let whole = loop {
            proxy.set(Fault::Cut { direction, after }).unwrap();
            let outcome = world.run(&["rotate", "App"]);
            proxy.set(Fault::None).unwrap();
            let held = world.every_password("App");
            let alive = held.iter().any(|password| target.accepts("app", password));
            assert!(alive, "after byte {after} {direction:?}: the server takes none of the vault's secrets");
            if outcome.status == 0 {
                break after;
            }
            assert!([3, 4, 5].contains(&outcome.status), "byte {after} {direction:?}: {}", outcome.stderr);
            if outcome.status == 3 {
                assert!(
                    target.accepts("app", &world.password("App")),
                    "byte {after} {direction:?}: status 3 promises it"
                );
            }
            world.ok(&["recover"]);
            world.ok(&["verify", "App"]);
            assert!(target.accepts("app", &world.password("App")), "byte {after} {direction:?}: recovered");
            world.nothing_is_open();
            after += step;
        };
        assert!(whole > 4 * step, "{direction:?}: only {whole} bytes were ever cut");
    }
    let old = world.password("App");
    world.ok(&["rotate", "App"]);
    only_the_vaults_works(&target, &world, "App", "app", &old);
    world.ok(&["audit", "verify"]);
}

// Three secrets that are easily found again, also encoded.
const CANARY_OLD: &str = "canary+OLD/4f8=Yellow%Bird";
const CANARY_NEW: &str = "canary+NEW/9c1=Yellow%Bird";
const CANARY_ADMIN: &str = "canary+ADMIN/77=Yellow%Bird";

#[track_caller]
fn absent(canaries: &Canaries, place: &str, hay: impl AsRef<[u8]>) {
    if let Some(found) = canaries.found_in(hay.as_ref()) {
        panic!("{place} holds {found}");
    }
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

/// What anybody may read of a process: its arguments and its environment.
fn seen_of(process: u32) -> Vec<(String, Vec<u8>)> {
    ["cmdline", "environ", "comm", "status"]
        .map(|file| {
            let place = format!("/proc/{process}/{file}");
            // Not being let in is even better than finding nothing.
            let seen = fs::read(&place).unwrap_or_default();
            (place, seen)
        })
        .into()
}

#[track_caller]
fn leaves_no_core(process: u32) {
    let limits = fs::read_to_string(format!("/proc/{process}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    let words: Vec<&str> = core.split_whitespace().collect();
    assert_eq!(words[4..6], ["0", "0"], "{core}");
}

pub(crate) fn no_secret_is_seen_anywhere<T: Target>(target: T) {
    let canaries = Canaries::of([CANARY_OLD, CANARY_NEW, CANARY_ADMIN]).unwrap();
    let world = target.world();
    target.create("app", CANARY_OLD);
    target.create("app2", OLD);
    target.create_admin("boss", CANARY_ADMIN);
    world.add("App", &target.fields("app"), CANARY_OLD);
    world.add("Boss", &target.fields_of_admin("boss"), CANARY_ADMIN);
    world.add("App2", &target.fields_of_reset("app2", "Boss"), CANARY_OLD);
    let baseline = target.log().len();

    let commands: [(&[&str], &str); 22] = [
        (&["rotate", "App", "--dry-run", "--password", "-"], CANARY_NEW),
        (&["rotate", "App", "--password", "-", "--print"], CANARY_NEW),
        (&["rotate", "App2"], ""),
        (&["rotate", "App2", "-o", "json"], ""),
        (&["rotate", "App2", "-q"], ""),
        (&["rotate"], ""),
        (&["check", "--all"], ""),
        (&["check", "App", "-o", "json"], ""),
        (&["verify", "--all"], ""),
        (&["list", "-o", "json"], ""),
        (&["show", "App"], ""),
        (&["show", "App", "-o", "json"], ""),
        (&["show", "App", "--history", "--stage"], ""),
        (&["show", "App", "--history", "--stage", "-o", "json"], ""),
        (&["explain", "App"], ""),
        (&["explain", "App2", "-o", "json"], ""),
        (&["status", "-o", "json"], ""),
        (&["vault", "check"], ""),
        (&["audit", "export"], ""),
        (&["rotate", "App", "--password", CANARY_NEW], ""),
        (&["add", "Third", "--password", CANARY_NEW], ""),
        (&["rotate", "App", "--password", "-"], CANARY_OLD),
    ];
    for (command, stdin) in commands {
        let output = run_talkatively(&world, command, stdin);
        absent(&canaries, &format!("output of {command:?}"), output.stdout + &output.stderr);
    }
    assert_eq!(world.password("App"), CANARY_NEW);
    assert!(target.accepts("app", CANARY_NEW));

    // Wrong secrets are as little told as right ones, to the server's log, too.
    target.set_password("app", OLD);
    for command in [&["rotate", "App"][..], &["verify", "App", "--try-history"], &["check", "App"]] {
        let output = world.run(command);
        assert!(!T::CAN_BE_ASKED || output.status == 3, "{command:?}");
        absent(&canaries, &format!("output of {command:?}"), output.stdout + &output.stderr);
    }
    absent(&canaries, "the server's log", &target.log().as_bytes()[baseline..]);

    for file in files_below(world.turnlock.home()) {
        absent(&canaries, &file.display().to_string(), fs::read(&file).unwrap());
        absent(&canaries, "a file's name", file.display().to_string());
    }
    assert!(files_below(&world.temporary()).is_empty(), "nothing is left in the temporary directory");
}

/// Runs a command with everything on that makes libraries talk.
fn run_talkatively(world: &World, arguments: &[&str], stdin: &str) -> lab::Output {
    let mut command = world.command(arguments);
    command.envs([("RUST_LOG", "trace"), ("RUST_BACKTRACE", "full"), ("SSLKEYLOGFILE", "tmp/keys")]);
    process::run_within(&mut command, stdin.as_bytes(), Duration::from_secs(90)).unwrap()
}

/// Held at several bytes of its conversation with the target, a rotation is looked at from outside.
pub(crate) fn a_held_rotation_shows_no_secret<T: Target>(target: T) {
    let canaries = Canaries::of([CANARY_OLD, CANARY_NEW]).unwrap();
    let world = target.world();
    target.create("app", CANARY_OLD);
    let proxy = target.proxy();
    world.add("App", &target.fields_at("app", proxy.port()), CANARY_OLD);
    let baseline = target.log().len();
    for after in T::HELD_AFTER {
        proxy.set(Fault::BlackHole { direction: Direction::ToClient, after }).unwrap();
        let arguments = ["rotate", "App", "--timeout", "2", "--password", "-", "-o", "json"];
        let connections = proxy.connections();
        let running = world.start_with(&arguments, CANARY_NEW);
        let rotator = running.rotator();
        wait_until("the rotator to connect", Duration::from_secs(20), || {
            (proxy.connections() > connections).then_some(())
        })
        .unwrap();
        for process in [running.id(), rotator] {
            leaves_no_core(process);
            for (place, seen) in seen_of(process) {
                absent(&canaries, &place, seen);
            }
        }
        let output = running.end();
        assert!([3, 5].contains(&output.status), "{}{}", output.stdout, output.stderr);
        absent(&canaries, "output of a held rotation", output.stdout + &output.stderr);
        proxy.set(Fault::None).unwrap();
        let output = world.ok(&["recover"]);
        absent(&canaries, "output of recover", output.stdout + &output.stderr);
    }
    absent(&canaries, "the server's log", &target.log().as_bytes()[baseline..]);
}

/// The kernel gives the files of a process that must not be looked at to root,
/// whoever runs it.
pub(crate) fn orchestrator_and_rotator_cannot_be_looked_into<T: Target>(_: T) {
    let world = World::new();
    for (program, arguments) in
        [("turnlock", &["import", "keeper", "-"][..]), (&format!("turnlock-{}", T::PLUGIN), &["serve"])]
    {
        let mut command = world.turnlock.program(program, arguments).unwrap();
        let user = process::User::for_server("nobody").unwrap();
        process::run_as(&mut command, user.as_ref());
        command.current_dir("/").stdin(std::process::Stdio::piped());
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let mut child = command.spawn().unwrap();
        let place = format!("/proc/{}", child.id());
        let hides = || fs::metadata(format!("{place}/environ")).is_ok_and(|file| file.uid() == 0);
        let limits = || fs::read_to_string(format!("{place}/limits")).unwrap_or_default();
        let no_core =
            || limits().lines().any(|line| line.split_whitespace().eq("Max core file size 0 0 bytes".split(' ')));
        // Both: a program that has just become another one is hidden for an instant, too.
        let hidden =
            wait_until("the program to hide", Duration::from_secs(10), || (hides() && no_core()).then_some(()));
        let limits = limits();
        drop(child.kill());
        drop(child.wait());
        hidden.unwrap_or_else(|error| panic!("{program}: {error}; {limits}"));
    }
}

/// One record is rotated, the next one hangs: what does the orchestrator's memory hold of the first? And
/// when it is made to die, does it leave that memory behind?
pub(crate) fn no_secret_stays_in_memory<T: Target>(target: T) {
    let world = target.world();
    for login in ["first", "second"] {
        target.create(login, CANARY_OLD);
    }
    let proxy = target.proxy();
    proxy.set(Fault::BlackHole { direction: Direction::ToClient, after: 0 }).unwrap();
    world.add("App 1", &target.fields("first"), CANARY_OLD);
    world.add("App 2", &target.fields_at("second", proxy.port()).with("cmdr:timeout=60"), "Never-Looked-At-1");

    let arguments = ["rotate", "--match", "App", "--force", "-o", "json"];
    let said = world.temporary().join("said");
    let mut command = process::clean_command("/bin/sh");
    let turnlock = world.command(&arguments);
    command.envs(turnlock.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.args(["-c", "ulimit -c unlimited; exec \"$@\"", "sh"]).arg(turnlock.get_program());
    command.args(turnlock.get_args()).current_dir(world.temporary());
    command.stdin(std::process::Stdio::null()).stdout(fs::File::create(&said).unwrap());
    let mut child = command.spawn().unwrap();
    wait_until("the second rotation to hang", Duration::from_secs(60), || {
        let first_is_done = fs::read_to_string(&said).unwrap_or_default().contains("\"rotated\"");
        (first_is_done && proxy.connections() > 0).then_some(())
    })
    .unwrap();
    process::signal(child.id(), "STOP");
    let new = world.password("App 1");
    let canaries = Canaries::of([CANARY_OLD, &new]).unwrap();
    let found = in_memory(child.id(), &canaries);
    assert!(in_memory(std::process::id(), &canaries) != [""; 0], "the search finds this test's own");

    process::signal(child.id(), "ABRT");
    process::signal(child.id(), "CONT");
    let status = child.wait().unwrap();
    let dumped = std::os::unix::process::ExitStatusExt::core_dumped(&status);
    let left = files_below(&world.temporary());
    assert!(!dumped && left == [said], "a core was dumped: {status} {left:?}");
    assert_eq!(found, [""; 0], "the orchestrator's memory");
}

/// What a process's writable memory holds of secrets, and where.
fn in_memory(process: u32, canaries: &Canaries) -> Vec<String> {
    use std::os::unix::fs::FileExt;
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let memory = fs::File::open(format!("/proc/{process}/mem")).unwrap();
    let mut found = Vec::new();
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (range, rights) = (words.next().unwrap(), words.next().unwrap());
        let (from, to) = range.split_once('-').unwrap();
        let [from, to] = [from, to].map(|number| u64::from_str_radix(number, 16).unwrap());
        if !rights.starts_with("rw") || to - from > 256 << 20 {
            continue;
        }
        let mut bytes = vec![0; (to - from) as usize];
        // Some mappings cannot be read, such as those of devices.
        let length = memory.read_at(&mut bytes, from).unwrap_or(0);
        found.extend(canaries.all_in(&bytes[..length]).map(|one| {
            let around = &bytes[one.at.saturating_sub(40)..(one.at + 60).min(length)];
            format!("{} at {:x} in {line}: …{}…", one.what, from + one.at as u64, around.escape_ascii())
        }));
    }
    found
}

/// A paused server holds the rotation; whoever comes second gives way.
pub(crate) fn two_runs_on_one_account_rotate_it_once<T: Target>(target: T) {
    let world = target.world();
    target.create("app", OLD);
    world.add("App", &target.fields("app"), OLD);
    target.pause();
    let first: Running = world.start(&["rotate", "App", "-o", "json"]);
    first.rotator();
    wait_until("the first to hold the lease", Duration::from_secs(20), || {
        let second = world.run(&["rotate", "App", "-o", "json"]);
        let busy = second.status == 3 && second.stdout.contains("is being rotated");
        if second.status == 3 {
            error_of(3, &["rotate", "App"], &second);
        }
        busy.then_some(())
    })
    .unwrap();
    assert_eq!(world.password("App"), OLD);
    target.resume();
    let ended = first.end();
    assert_eq!(ended.status, 0, "{}{}", ended.stdout, ended.stderr);
    only_the_vaults_works(&target, &world, "App", "app", OLD);
    assert_eq!(world.history("App").len(), 1, "it was rotated once");
    world.nothing_is_open();
}
