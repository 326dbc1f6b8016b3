//! The rotator windows on a real smbd with accounts of its own (Samba; no real
//! Windows is to be had here), and pspasswd on several of them: the promises of
//! every rotator, and what only such machines can break. SMB has no
//! certificates, so nobody is believed by one: a machine proves that it knows
//! the password.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a broken expectation of a test program is its failure"
)]

mod promises;
mod world;

use std::path::{Path, PathBuf};

use lab::{DomainController, DomainOptions, Proxy, SmbOptions, SmbServer};
use promises::Target;
use serde_json::json;
use world::{Fields, World};

const OLD: &str = "Old-And-Tired-1";

/// A machine behind a door at 127.0.0.1, where every test looks for its server.
/// It counts failed log-ins for so many seconds, by its records' word.
/// It is served by the plugin for one machine, or by the one for many.
struct Machine<const WINDOW: u32 = 1800, const MANY: bool = false> {
    server: SmbServer,
    door: Proxy,
}

impl<const WINDOW: u32, const MANY: bool> Machine<WINDOW, MANY> {
    fn with(options: SmbOptions) -> Self {
        let server = SmbServer::start(options).unwrap();
        let door = Proxy::start(server.address()).unwrap();
        Self { server, door }
    }

    fn of(policy: &[(&'static str, &'static str)]) -> Self {
        Self::with(SmbOptions { policy: policy.to_vec(), ..SmbOptions::default() })
    }
}

impl<const WINDOW: u32, const MANY: bool> Target for Machine<WINDOW, MANY> {
    const PLUGIN: &'static str = if MANY { "pspasswd" } else { "windows" };
    const SCHEME: &'static str = "smb";
    const SERVER: &'static str = "Windows, by SMB 3.1.1";
    const HELD_AFTER: [u64; 3] = [0, 300, 700];
    const COST_OF_A_WRONG_SECRET: usize = if WINDOW > 0 { 1 } else { 2 };

    fn hostile_logins() -> Vec<String> {
        // What Debian lets exist at all, and Samba's client does not take for login%password.
        ["it's", "x;y&z", "größe", "$(id)", "a.b-c_d"].map(str::to_owned).into()
    }

    fn start(_: &[&str]) -> Self {
        Self::of(if WINDOW > 0 { &[("bad lockout attempt", "3")] } else { &[] })
    }
    fn port(&self) -> u16 {
        self.door.port()
    }
    fn fields_at(&self, login: &str, port: u16) -> Fields {
        let (url, custom) = if MANY {
            (None, vec!["cmdr:plugin=pspasswd".to_owned(), format!("cmdr:host=127.0.0.1:{port}")])
        } else {
            (Some(format!("smb://127.0.0.1:{port}")), Vec::new())
        };
        Fields { login: login.to_owned(), url, custom }.with(self.trusted())
    }
    fn ca(&self) -> PathBuf {
        panic!("SMB knows no authority")
    }
    fn trusted(&self) -> String {
        format!("turnlock:lockout_window={WINDOW}")
    }
    fn mistrusted(&self, _: &Path) -> String {
        panic!("SMB knows no certificates")
    }
    fn create(&self, login: &str, password: &str) {
        self.server.create(login, password).unwrap();
    }
    fn create_admin(&self, login: &str, password: &str) {
        self.server.create_admin(login, password).unwrap();
    }
    fn set_password(&self, login: &str, password: &str) {
        self.server.set_password(login, password).unwrap();
    }
    fn accepts(&self, login: &str, password: &str) -> bool {
        // What the test's own questions cost an account is no fault of Turnlock.
        let accepted = self.server.accepts(login, password).unwrap();
        self.server.unlock(login).unwrap();
        accepted
    }
    fn failed_logins(&self) -> usize {
        self.server.failed_logins()
    }
    fn log(&self) -> String {
        self.server.log()
    }
    fn pause(&self) {
        self.server.pause();
    }
    fn resume(&self) {
        self.server.resume();
    }
    fn stop(&mut self) {
        self.server.stop().unwrap();
    }
    fn restart(&mut self) {
        self.server.restart().unwrap();
    }
}

mod where_accounts_are_locked {
    crate::promises::promises!(crate::Machine: where_accounts_are_locked);
}

/// Who tries past passwords, or hangs, again and again must not be counted.
mod where_accounts_are_never_locked {
    crate::promises::promises!(crate::Machine<0>: where_accounts_are_never_locked);
}

/// The promises again, for the plugin for many machines.
mod one_of_many {
    crate::promises::promises!(crate::Machine<1800, true>:
        the_new_secret_works_and_the_old_one_stops,
        a_healthy_rotation_spends_no_failed_log_in,
        a_wrong_current_secret_changes_nothing_and_is_told_apart,
        an_admin_resets_an_account_whose_secret_is_lost,
        an_admin_without_the_right_changes_nothing,
        hostile_logins_survive,
        hostile_passwords_survive,
        check_changes_nothing_and_says_what_it_found,
        a_connection_cut_at_any_byte_loses_nothing,
        no_secret_is_seen_anywhere,
        two_runs_on_one_account_rotate_it_once,
    );
}

#[track_caller]
fn rotates(machine: &Machine, world: &World, title: &str, login: &str) {
    let old = world.password(title);
    world.ok(&["rotate", title]);
    let new = world.password(title);
    assert!(new != old && machine.accepts(login, &new) && !machine.accepts(login, &old));
    world.nothing_is_open();
}

#[test]
fn a_machine_out_of_reach_is_shown_nothing() {
    let mut machine = Machine::<1800>::of(&[]);
    machine.create("app", OLD);
    let world = World::new();
    world.add("App", &machine.fields("app"), OLD);
    let before = world.content();
    machine.door.set(lab::Fault::Refuse).unwrap();
    let refused = world.fails(3, &["rotate", "App"]);
    assert_eq!((&refused["kind"], &refused["state"]), (&json!("unreachable"), &json!("unchanged")), "{refused}");
    machine.door.set(lab::Fault::None).unwrap();
    machine.stop();
    assert_eq!(world.fails(3, &["rotate", "App"])["state"], "unchanged");
    machine.restart();
    assert_eq!((machine.failed_logins(), world.content()), (0, before));
    rotates(&machine, &world, "App", "app");
}

/// A server that lets anybody in for a guest knows no password, and proves none.
#[test]
fn a_guest_is_nobody() {
    let settings = ["map to guest = Bad Password", "guest account = nobody", "server smb encrypt = desired"];
    let settings = settings.map(str::to_owned).to_vec();
    let machine: Machine = Machine::with(SmbOptions { settings, ..SmbOptions::default() });
    machine.create("app", OLD);
    let world = World::new();
    world.add("App", &machine.fields("app"), "Not-The-Right-1");
    for command in ["verify", "rotate", "check"] {
        let refused = world.fails(3, &[command, "App"]);
        assert_eq!(refused["kind"], "unsupported", "{command}: {refused}");
    }
    world.edit_password("App", OLD);
    rotates_by_root(&machine, &world);
}

/// The same where smbclient, too, would be let in for a guest.
#[track_caller]
fn rotates_by_root(machine: &Machine, world: &World) {
    let hash = |machine: &Machine| machine.server.describe("app").unwrap();
    let before = hash(machine);
    world.ok(&["rotate", "App"]);
    world.ok(&["verify", "App"]);
    assert_ne!(hash(machine), before);
}

#[test]
fn an_unencrypted_machine_is_not_spoken_with() {
    let settings = vec!["server max protocol = SMB3_02".to_owned()];
    let machine: Machine = Machine::with(SmbOptions { settings, ..SmbOptions::default() });
    machine.create("app", OLD);
    let world = World::new();
    world.add("App", &machine.fields("app"), OLD);
    let refused = world.fails(3, &["rotate", "App"]);
    assert_eq!((&refused["kind"], &refused["state"]), (&json!("unsupported"), &json!("unchanged")), "{refused}");
    assert_eq!(machine.failed_logins(), 0);
}

#[test]
fn the_machines_policy_refuses_and_nothing_changes() {
    let machine = Machine::<1800>::of(&[("min password length", "12"), ("password history", "5")]);
    machine.create("app", OLD);
    let world = World::new();
    world.add("App", &machine.fields("app"), OLD);
    let found = world.json(&["check", "App"])[0]["findings"]["findings"].to_string();
    assert!(found.contains("at least 12 characters"), "{found}");
    let before = world.content();
    let refused = world.fails_with(3, &["rotate", "App", "--password", "-"], "Short-1");
    assert_eq!((&refused["kind"], &refused["state"]), (&json!("policy"), &json!("unchanged")), "{refused}");
    assert!(refused.to_string().contains("at least 12 characters"), "{refused}");
    assert_eq!(world.content(), before);
    rotates(&machine, &world, "App", "app");
    machine.server.set_policy("minimum password age", "86400").unwrap();
    let young = world.fails(3, &["rotate", "App"]);
    assert_eq!((&young["kind"], &young["state"]), (&json!("policy"), &json!("unchanged")), "{young}");
    assert!(young.to_string().contains("86400 s"), "{young}");
    assert!(machine.accepts("app", &world.password("App")));
}

#[test]
fn every_state_of_an_account_is_told_apart() {
    let machine = Machine::<1800>::of(&[("bad lockout attempt", "3")]);
    machine.create_admin("boss", OLD);
    let world = World::new();
    world.add("Boss", &machine.fields("boss"), OLD);
    for login in ["locked", "disabled", "expired", "must"] {
        machine.create(login, OLD);
        world.add(login, &machine.fields(login), OLD);
    }
    for _ in 0..3 {
        assert!(!machine.server.accepts("locked", "wrong").unwrap());
    }
    machine.server.set_flags("disabled", "[D          ]").unwrap();
    machine.server.expire_account("expired").unwrap();
    machine.server.demand_change("must").unwrap();
    for (login, kind, says) in [
        ("locked", "locked_out", "is locked"),
        ("disabled", "permission", "is disabled"),
        ("expired", "permission", "has expired"),
        ("must", "permission", "must be changed"),
    ] {
        let refused = world.fails(3, &["rotate", login]);
        assert_eq!((&refused["kind"], &refused["state"]), (&json!(kind), &json!("unchanged")), "{refused}");
        assert!(refused["error"].as_str().unwrap().contains(says), "{refused}");
        assert!(!refused["hint"].as_str().unwrap().is_empty());
    }
    assert_eq!(world.json(&["verify", "must"])[0]["outcome"], "accepted");
    // An admin's reset ends the last one, and asks for no other change.
    world.ok(&["edit", "must", "--set", "turnlock:admin=Boss"]);
    rotates(&machine, &world, "must", "must");
}

#[test]
fn a_wrong_password_in_the_vault_locks_nobody_out() {
    let machine = Machine::<1800>::of(&[("bad lockout attempt", "3")]);
    machine.create("app", OLD);
    let world = World::new();
    world.add("App", &machine.fields("app"), "Not-The-Right-1");
    for command in [["rotate", "App"], ["rotate", "App"], ["verify", "App"], ["check", "App"], ["rotate", "App"]] {
        world.fails(3, &command);
    }
    assert_eq!(machine.failed_logins(), 2, "the third would lock the account");
    assert!(machine.server.accepts("app", OLD).unwrap());
}

/// A domain controller takes the same calls, and its policy binds admins, too.
#[test]
fn a_domain_controller_takes_the_same_calls() {
    let settings = vec!["server services = s3fs, rpc, ldap, kdc, winbindd".to_owned()];
    let policy = vec![("minPwdAge", "0"), ("minPwdLength", "12"), ("lockoutThreshold", "3")];
    let options = DomainOptions { policy, settings, ..DomainOptions::default() };
    let controller = DomainController::start(options).unwrap();
    controller.create("app", OLD).unwrap();
    controller.create_admin("boss", OLD).unwrap();
    let fields = |login: &str| Fields {
        login: login.to_owned(),
        url: Some(format!("smb://{}", controller.host())),
        custom: vec!["cmdr:plugin=windows".to_owned()],
    };
    let world = World::new();
    world.add("Boss", &fields(r"LAB\boss"), OLD);
    world.add("App", &fields(r"LAB\app"), OLD);
    for (by, short) in [("itself", "Short-1"), ("an admin", "Short-2")] {
        let old = world.password("App");
        let refused = world.fails_with(3, &["rotate", "App", "--password", "-"], short);
        assert_eq!((&refused["kind"], &refused["state"]), (&json!("policy"), &json!("unchanged")), "{by}: {refused}");
        assert!(refused.to_string().contains("at least 12 characters"), "{refused}");
        world.ok(&["rotate", "App"]);
        let new = world.password("App");
        assert!(controller.accepts("app", &new).unwrap() && !controller.accepts("app", &old).unwrap(), "{by}");
        world.ok(&["edit", "App", "--set", "turnlock:admin=Boss"]);
    }
    world.nothing_is_open();
}

/// Three machines with one account each of the same name, and a record of them.
struct Fleet {
    machines: Vec<Machine>,
    world: World,
}

impl Fleet {
    /// Its records say for how many seconds the machines count failed log-ins.
    fn new(admin: bool, window: u32) -> Self {
        let machines: Vec<Machine> =
            (0..3).map(|_| Machine::of(if window > 0 { &[("bad lockout attempt", "3")] } else { &[] })).collect();
        for machine in &machines {
            machine.create("app", OLD);
            machine.create_admin("boss", OLD);
        }
        let world = World::new();
        let import = |uid: &str, title: &str, login: &str, password: &str, admin: bool| {
            let window = window.to_string();
            let mut custom = json!({ "$text:cmdr:plugin": "pspasswd", "$text:turnlock:lockout_window": window });
            let fields = custom.as_object_mut().unwrap();
            for (number, machine) in machines.iter().enumerate() {
                let host = json!({ "hostName": "127.0.0.1", "port": machine.port().to_string() });
                fields.insert(format!("$host:{number}"), host);
            }
            if admin {
                fields.insert("$text:turnlock:admin".to_owned(), json!("Boss"));
            }
            let record = json!({ "records": [{
                "title": title, "uid": uid, "$type": "serverCredentials", "login": login,
                "password": password, "custom_fields": custom,
            }]});
            world.ok_with(&["import", "keeper", "-"], &record.to_string());
        };
        import("AAAAAAAAAAAAAAAAAAAAAA", "Boss", "boss", OLD, false);
        import("BBBBBBBBBBBBBBBBBBBBBA", "App", "app", if admin { "Nobody-Knows-It-1" } else { OLD }, admin);
        Self { machines, world }
    }

    /// Which machines take this password.
    fn accept(&self, password: &str) -> Vec<bool> {
        self.machines.iter().map(|machine| machine.accepts("app", password)).collect()
    }
}

/// Commander's pspasswd needs Windows, and knows one host.
#[test]
fn many_machines_are_changed_together() {
    for admin in [false, true] {
        let fleet = Fleet::new(admin, 1800);
        for _ in 0..2 {
            let old = fleet.world.password("App");
            let checked = fleet.world.json(&["check", "App"])[0]["findings"]["findings"].as_array().unwrap().len();
            assert_eq!(checked, 3, "a word on each");
            fleet.world.ok(&["rotate", "App"]);
            let new = fleet.world.password("App");
            assert_eq!((fleet.accept(&new), fleet.accept(&old)), (vec![true; 3], vec![false; 3]));
        }
        fleet.world.nothing_is_open();
        assert_eq!(fleet.world.json(&["verify", "App"])[0]["outcome"], "accepted");
    }
}

#[test]
fn one_machine_that_is_down_before_leaves_all_as_they_were() {
    let mut fleet = Fleet::new(false, 1800);
    let before = fleet.world.content();
    fleet.machines[2].stop();
    let refused = fleet.world.fails(3, &["rotate", "App"]);
    assert_eq!((&refused["kind"], &refused["state"]), (&json!("unreachable"), &json!("unchanged")), "{refused}");
    let port = fleet.machines[2].port().to_string();
    assert!(refused["causes"].to_string().contains(&port), "{refused}");
    fleet.machines[2].restart();
    assert_eq!((fleet.accept(OLD), fleet.world.content()), (vec![true; 3], before));
}

#[test]
fn rules_of_one_machine_refuse_it_there_and_lose_nothing() {
    let fleet = Fleet::new(false, 0);
    // A rule that cannot be judged beforehand.
    fleet.machines[1].server.set_policy("minimum password age", "86400").unwrap();
    let output = fleet.world.run(&["rotate", "App", "-o", "json"]);
    assert_ne!(output.status, 0, "{}", output.stdout);
    let told = format!("127.0.0.1:{}: ", fleet.machines[1].port());
    assert!(output.stdout.contains(&told) && output.stdout.contains("refuses this password"), "{}", output.stdout);
    let held = fleet.world.every_password("App");
    for (number, machine) in fleet.machines.iter().enumerate() {
        assert!(held.iter().any(|password| machine.accepts("app", password)), "machine {number}");
    }
    // Once it takes it, everything comes together, and who has it already is shown nothing old.
    fleet.machines[1].server.set_policy("minimum password age", "0").unwrap();
    let failed = |number: usize| fleet.machines[number].failed_logins();
    let before = (failed(0), failed(2));
    fleet.world.ok(&["recover", "App"]);
    assert_eq!((failed(0), failed(2)), before, "{}", fleet.machines[0].log());
    let candidate = fleet.world.every_password("App");
    let everywhere = candidate.iter().find(|password| fleet.accept(password) == vec![true; 3]);
    assert!(everywhere.is_some(), "{}", fleet.world.run(&["status"]).stdout);
}

/// A machine that is gone for good must not hold up the others.
#[test]
fn a_person_may_decide_without_a_machine() {
    let mut fleet = Fleet::new(false, 0);
    fleet.machines[1].server.set_policy("minimum password age", "86400").unwrap();
    fleet.world.run(&["rotate", "App"]);
    fleet.machines[1].stop();
    let gone = format!("127.0.0.1:{}", fleet.machines[1].port());
    let resolve = |host: &str| ["resolve", "App", "--use", "candidate", "--without-host", host].map(str::to_owned);
    let wrong = resolve("elsewhere");
    let refused = fleet.world.fails(2, &wrong.each_ref().map(String::as_str));
    assert!(refused["error"].as_str().unwrap().contains(&gone), "{refused}");
    assert_ne!(fleet.world.run(&["resolve", "App", "--use", "candidate"]).status, 0, "it cannot be asked");
    fleet.world.ok(&resolve(&gone).each_ref().map(String::as_str));
    fleet.world.nothing_is_open();
    let new = fleet.world.password("App");
    assert!(fleet.machines[0].accepts("app", &new) && fleet.machines[2].accepts("app", &new));
    fleet.machines[1].restart();
    assert!(fleet.machines[1].accepts("app", OLD) && fleet.world.past("App", "previous").contains(&OLD.to_owned()));
}

#[test]
fn a_machine_cut_off_in_the_middle_loses_nothing() {
    let fleet = Fleet::new(true, 0);
    let door = &fleet.machines[2].door;
    let mut whole = 0;
    for after in (200u64..20_000).step_by(450) {
        door.set(lab::Fault::Cut { direction: lab::Direction::ToServer, after }).unwrap();
        let outcome = fleet.world.run(&["rotate", "App", "--timeout", "10"]);
        door.set(lab::Fault::None).unwrap();
        let held = fleet.world.every_password("App");
        for (number, machine) in fleet.machines.iter().enumerate() {
            let lost = !held.iter().chain([&OLD.to_owned()]).any(|password| machine.accepts("app", password));
            assert!(!lost, "byte {after}, machine {number}: {}", outcome.stderr);
        }
        let recovered = fleet.world.run(&["recover", "App"]);
        assert_eq!(recovered.status, 0, "byte {after}: {}{}", recovered.stdout, recovered.stderr);
        if outcome.status == 0 {
            break;
        }
        whole += 1;
    }
    assert!(whole > 3, "only {whole} cuts were made");
    assert_eq!(fleet.accept(&fleet.world.password("App")), vec![true; 3]);
    fleet.world.nothing_is_open();
}

/// A host has an account of that name, but it is not the one that is meant.
#[test]
fn an_account_of_another_domain_is_not_taken_for_the_machines_own() {
    let machine = Machine::<1800>::of(&[]);
    machine.create("app", OLD);
    machine.create_admin("boss", OLD);
    for admin in [true, false] {
        let world = World::new();
        world.add("Boss", &machine.fields("boss"), OLD);
        let fields = |login: &str| {
            let fields = machine.fields(login);
            if admin { fields.with("turnlock:admin=Boss") } else { fields }
        };
        world.add("Elsewhere", &fields(r"ELSEWHERE\app"), OLD);
        let missing = world.fails(3, &["rotate", "Elsewhere"]);
        assert_eq!((&missing["kind"], &missing["state"]), (&json!("not_found"), &json!("unchanged")), "{missing}");
        assert!(machine.accepts("app", OLD), "the machine's own account was changed");
        for (title, login) in [("Named", r"labhost\app"), ("Dotted", r".\app")] {
            world.add(title, &fields(login), OLD);
            world.ok(&["rotate", title, "--with-duplicates"]);
            assert!(machine.accepts("app", &world.password(title)), "{login}");
            machine.set_password("app", OLD);
        }
    }
}

/// A record of several machines risks no more at each than one of a single machine.
#[test]
fn a_wrong_password_for_many_machines_locks_nobody_out() {
    let fleet = Fleet::new(false, 1800);
    fleet.world.edit_password("App", "Not-The-Right-1");
    for command in [["rotate", "App"], ["rotate", "App"], ["verify", "App"], ["check", "App"], ["rotate", "App"]] {
        fleet.world.fails(3, &command);
    }
    for machine in &fleet.machines {
        assert!(machine.failed_logins() <= 2, "{} refusals; the third would lock the account", machine.failed_logins());
        assert!(machine.server.accepts("app", OLD).unwrap());
    }
}

/// What nobody could prove afterwards is not done.
#[test]
fn an_admin_does_not_reset_what_lets_nobody_in() {
    let machine = Machine::<1800>::of(&[("bad lockout attempt", "3")]);
    machine.create_admin("boss", OLD);
    let world = World::new();
    world.add("Boss", &machine.fields("boss"), OLD);
    for login in ["locked", "disabled"] {
        machine.create(login, OLD);
        world.add(login, &machine.fields(login).with("turnlock:admin=Boss"), OLD);
    }
    for _ in 0..3 {
        assert!(!machine.server.accepts("locked", "wrong").unwrap());
    }
    machine.server.set_flags("disabled", "[D          ]").unwrap();
    for (login, kind) in [("locked", "locked_out"), ("disabled", "permission")] {
        let refused = world.fails(3, &["rotate", login]);
        assert_eq!((&refused["kind"], &refused["state"]), (&json!(kind), &json!("unchanged")), "{refused}");
        assert_eq!(world.password(login), OLD);
    }
    world.nothing_is_open();
}

#[test]
fn the_strictest_machines_rule_is_known_before_the_first_one_changes() {
    let fleet = Fleet::new(false, 1800);
    fleet.machines[1].server.set_policy("min password length", "26").unwrap();
    let short = fleet.world.fails_with(3, &["rotate", "App", "--password", "-"], "Ten-Chars1");
    assert_eq!((&short["kind"], &short["state"]), (&json!("policy"), &json!("unchanged")), "{short}");
    assert_eq!(fleet.accept(OLD), vec![true; 3]);
    // The next candidate is as long as the strictest wants it.
    fleet.world.ok(&["rotate", "App"]);
    let new = fleet.world.password("App");
    assert!(new.chars().count() >= 26, "{new}");
    assert_eq!((fleet.accept(&new), fleet.accept(OLD)), (vec![true; 3], vec![false; 3]));
    fleet.world.nothing_is_open();
}
