//! The rotator adpasswd on a real Active Directory domain controller and a real
//! OpenLDAP: the promises of every rotator, and what only directories can break.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a broken expectation of a test program is its failure"
)]

mod promises;
mod world;

use std::{path::PathBuf, time::Duration};

use lab::interposer::{Interposer, Kill, MessageDirection, Victim, When};
use lab::{DomainController, DomainOptions, NameServer, Openldap, OpenldapOptions, Proxy, process, wait_until};
use promises::Target;
use serde_json::{Value, json};
use world::{Fields, World};

const OLD: &str = "Old-And-Tired-1";
const NEW: &str = "Brand-New-And-Long-2";

/// A domain controller behind a door at 127.0.0.1, where every test looks for
/// its server. It counts failed log-ins for so many seconds, by its records' word.
struct Domain<const WINDOW: u32 = 1800> {
    controller: DomainController,
    door: Proxy,
}

impl<const WINDOW: u32> Domain<WINDOW> {
    fn with(options: DomainOptions) -> Self {
        // A test changes a password as often as it likes.
        let policy = [vec![("minPwdAge", "0"), ("pwdProperties", "0")], options.policy].concat();
        let controller = DomainController::start(DomainOptions { policy, ..options }).unwrap();
        let door = Proxy::start(controller.address()).unwrap();
        Self { controller, door }
    }

    fn of(policy: &[(&'static str, &'static str)]) -> Self {
        Self::with(DomainOptions { policy: policy.to_vec(), ..DomainOptions::default() })
    }

    fn create(&self, login: &str) {
        self.controller.create(login, OLD).unwrap();
    }

    /// How often the account was told a wrong password since the last right one.
    fn wrong_passwords(&self, login: &str) -> String {
        self.controller.attribute(&self.controller.dn(login), "badPwdCount").unwrap().concat()
    }
}

impl<const WINDOW: u32> Target for Domain<WINDOW> {
    const PLUGIN: &'static str = "adpasswd";
    const SCHEME: &'static str = "ldaps";
    const SERVER: &'static str = "Active Directory (Samba), dc1.lab.test";
    const COST_OF_A_WRONG_SECRET: usize = if WINDOW > 0 { 1 } else { 2 };

    fn hostile_logins() -> Vec<String> {
        // Active Directory lets none of "/\[]:;|=,+*?<> be in a name.
        ["paren)(x (y", "#lead & amp", "spaß ﬁ", "o'hara {x} %s", "-hyphen", "$(id)`id`"].map(str::to_owned).into()
    }

    fn start(names: &[&str]) -> Self {
        Self::with(DomainOptions {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            policy: vec![("lockoutThreshold", if WINDOW > 0 { "3" } else { "0" })],
            ..DomainOptions::default()
        })
    }
    fn port(&self) -> u16 {
        self.door.port()
    }
    fn ca(&self) -> PathBuf {
        self.controller.ca_path()
    }
    fn create(&self, login: &str, password: &str) {
        self.controller.create(login, password).unwrap();
    }
    fn create_admin(&self, login: &str, password: &str) {
        self.controller.create_admin(login, password).unwrap();
    }
    fn set_password(&self, login: &str, password: &str) {
        self.controller.set_password(login, password).unwrap();
    }
    fn accepts(&self, login: &str, password: &str) -> bool {
        // What the test's own questions cost an account is no fault of Turnlock.
        let accepted = self.controller.accepts(login, password).unwrap();
        self.controller.modify(&self.controller.dn(login), "lockoutTime", &["0"]).unwrap();
        accepted
    }
    fn failed_logins(&self) -> usize {
        self.controller.failed_logins()
    }
    fn log(&self) -> String {
        self.controller.log()
    }
    fn pause(&self) {
        self.controller.pause();
    }
    fn resume(&self) {
        self.controller.resume();
    }
    fn stop(&mut self) {
        self.controller.stop().unwrap();
    }
    fn restart(&mut self) {
        self.controller.restart().unwrap();
    }
    fn fields_at(&self, login: &str, port: u16) -> Fields {
        Fields {
            login: login.to_owned(),
            url: Some(format!("ldaps://127.0.0.1:{port}")),
            custom: vec![self.trusted(), format!("turnlock:lockout_window={WINDOW}")],
        }
    }
}

impl Target for Openldap {
    const PLUGIN: &'static str = "adpasswd";
    const SCHEME: &'static str = "ldaps";
    const SERVER: &'static str = "OpenLDAP";
    const TELLS_RIGHTS: bool = false;

    fn hostile_logins() -> Vec<String> {
        ["paren)(cn=*", "back\\slash", "#lead, comma + plus", "spaß ﬁ", "\"quoted\" <;=>", "*", "a=b"]
            .map(str::to_owned)
            .into()
    }

    fn start(names: &[&str]) -> Self {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Openldap::start(OpenldapOptions { names, ..OpenldapOptions::default() }).unwrap()
    }
    fn port(&self) -> u16 {
        Openldap::port(self)
    }
    fn ca(&self) -> PathBuf {
        self.ca_path()
    }
    fn create(&self, login: &str, password: &str) {
        Openldap::create(self, login, password).unwrap();
    }
    fn create_admin(&self, login: &str, password: &str) {
        Openldap::create_admin(self, login, password).unwrap();
    }
    fn set_password(&self, login: &str, password: &str) {
        Openldap::set_password(self, login, password).unwrap();
    }
    fn accepts(&self, login: &str, password: &str) -> bool {
        let admin = login == "boss";
        Openldap::accepts(self, &if admin { self.admin_dn(login) } else { self.dn(login) }, password).unwrap()
    }
    fn failed_logins(&self) -> usize {
        Openldap::failed_logins(self)
    }
    fn log(&self) -> String {
        Openldap::log(self)
    }
    fn pause(&self) {
        Openldap::pause(self);
    }
    fn resume(&self) {
        Openldap::resume(self);
    }
    fn stop(&mut self) {
        Openldap::stop(self).unwrap();
    }
    fn restart(&mut self) {
        Openldap::restart(self).unwrap();
    }
    fn fields_at(&self, login: &str, port: u16) -> Fields {
        Fields {
            login: login.to_owned(),
            url: Some(format!("ldaps://127.0.0.1:{port}")),
            custom: vec![self.trusted(), "turnlock:lockout_window=0".to_owned()],
        }
    }
}

mod on_active_directory {
    crate::promises::promises!(crate::Domain: where_accounts_are_locked
        + a_target_out_of_reach_or_a_stranger_is_shown_no_secret
        + tls_is_believed_only_as_far_as_told
    );
}

/// Who tries past passwords, or hangs, again and again must not be counted.
mod on_active_directory_that_never_locks {
    crate::promises::promises!(crate::Domain<0>: where_accounts_are_never_locked);
}

mod on_openldap {
    crate::promises::promises!(lab::Openldap);
}

/// Rotates a record, and asks the directory which password it takes.
#[track_caller]
fn rotates<T: Target>(target: &T, world: &World, title: &str, login: &str) {
    let old = world.password(title);
    world.ok(&["rotate", title]);
    let new = world.password(title);
    assert!(new != old && target.accepts(login, &new) && !target.accepts(login, &old));
    world.nothing_is_open();
}

/// Commander never recognises a DN, and its search takes a login as a pattern.
#[test]
fn every_way_to_write_a_login_leads_to_its_account() {
    let domain = Domain::<1800>::of(&[]);
    domain.create("app");
    let dn = domain.controller.dn("app");
    domain.controller.modify(&dn, "userPrincipalName", &["mail.name@corp.example"]).unwrap();
    let logins = ["app", "app@lab.test", "mail.name@corp.example", r"LAB\app", r"lab\APP", &dn];
    for login in logins {
        let world = World::new();
        world.add("App", &domain.fields(login), OLD);
        rotates(&domain, &world, "App", "app");
        domain.set_password("app", OLD);
    }
    let world = World::new();
    world.add("App", &domain.fields("whatever").with(format!("cmdr:userdn={dn}")), OLD);
    rotates(&domain, &world, "App", "app");
    // An admin is written in as many ways.
    domain.create_admin("boss", OLD);
    for login in ["boss", "boss@lab.test", r"LAB\boss", &domain.controller.dn("boss")] {
        let world = World::new();
        world.add("Boss", &domain.fields(login), OLD);
        world.add("App", &domain.fields("app").with("turnlock:admin=Boss"), "Nobody-Knows-It-1");
        world.ok(&["rotate", "App"]);
        assert!(domain.accepts("app", &world.password("App")));
    }
}

/// A directory that never locks may be asked for every past password, also by a person's decision.
#[test]
fn a_past_password_is_looked_for_as_the_record_allows() {
    let server = Openldap::start(OpenldapOptions::default()).unwrap();
    let world = World::new();
    server.create("app", OLD).unwrap();
    world.add("App", &server.fields("app"), OLD);
    for number in 1..=3 {
        world.ok_with(&["edit", "App", "--password", "-"], &format!("Mistaken-{number}\n"));
    }
    world.ok(&["restore", "App"]);
    assert_eq!(world.password("App"), OLD);
    for number in 4..=6 {
        world.ok_with(&["edit", "App", "--password", "-"], &format!("Mistaken-{number}\n"));
    }
    world.ok(&["verify", "App", "--try-history"]);
    assert_eq!(world.password("App"), OLD);
    world.nothing_is_open();
}

#[test]
fn a_login_selects_itself_or_nobody() {
    let domain = Domain::<1800>::of(&[]);
    domain.create("app");
    domain.create_admin("boss", OLD);
    let server = Openldap::start(OpenldapOptions::default()).unwrap();
    server.create("app", OLD).unwrap();
    server.create_admin("boss", OLD).unwrap();
    let logins = [
        "ap*",
        "*",
        "app)(objectClass=*",
        "*)(sAMAccountName=app",
        "app)(|(uid=*",
        r"\61pp",
        r"OTHER\app",
        "app@other.test",
        "#app",
        "app,",
        "аpp",
        "CN=ap*,CN=Users,DC=lab,DC=test",
        "uid=ap*,ou=people,dc=lab,dc=test",
        "CN=Users,DC=lab,DC=test",
    ];
    for login in logins {
        let world = World::new();
        world.add("Boss", &domain.fields("boss"), OLD);
        world.add("Theirs", &domain.fields(login).with("turnlock:admin=Boss"), OLD);
        let refused = world.fails(3, &["rotate", "Theirs"]);
        assert!(
            ["not_found", "permission", "unsupported"].contains(&refused["kind"].as_str().unwrap()),
            "{login}: {refused}"
        );
        world.add("Boss there", &Target::fields(&server, "boss"), OLD);
        world.add("There", &Target::fields(&server, login).with("turnlock:admin=Boss there"), OLD);
        let refused = world.fails(3, &["rotate", "There"]);
        assert!(["not_found", "permission"].contains(&refused["kind"].as_str().unwrap()), "{login}: {refused}");
        world.nothing_is_open();
    }
    for who in ["app", "boss"] {
        assert!(domain.accepts(who, OLD), "{who}");
        assert!(Target::accepts(&server, who, OLD), "{who}");
    }
}

#[test]
fn no_login_and_no_proof_without_a_name_and_a_password() {
    let domain = Domain::<1800>::of(&[]);
    domain.create("app");
    let server = Openldap::start(OpenldapOptions::default()).unwrap();
    server.create("app", OLD).unwrap();
    let asked = (domain.controller.log().len(), Openldap::failed_logins(&server));
    let world = World::new();
    for (port, ca) in [(domain.door.port(), domain.ca()), (Openldap::port(&server), Openldap::ca_path(&server))] {
        // LDAP takes an empty password for a log-in of nobody, which succeeds.
        for (login, password) in [("app\u{0}x", OLD), ("", OLD), ("app", "")] {
            let request = json!({
                "account": {"host": "127.0.0.1", "port": port, "login": login, "ca": ca},
                "credential": {"password": password},
            });
            let mut rotator = world.turnlock.program("turnlock-adpasswd", &["verify"]).unwrap();
            let output = lab::process::run(&mut rotator, request.to_string().as_bytes()).unwrap();
            assert_ne!(output.status, 0, "{}", output.stdout);
            assert!(output.stdout.contains("invalid_input"), "{login:?} {}{}", output.stdout, output.stderr);
        }
    }
    assert_eq!((domain.controller.log().len(), Openldap::failed_logins(&server)), asked);
}

/// A rule's refusal names the rule, and nothing has changed.
#[track_caller]
fn refused_by_policy<T: Target>(target: &T, world: &World, account: [&str; 2], wish: Wish<'_>, rule: &str) {
    let [title, login] = account;
    let before = world.content();
    let refused = match wish {
        Wish::Password(password) => world.fails_with(3, &["rotate", title, "--password", "-"], password),
        Wish::Rules(rules) => world.fails(3, &["rotate", title, "--rules", rules]),
    };
    assert_eq!((&refused["kind"], &refused["state"]), (&json!("policy"), &json!("unchanged")), "{refused}");
    assert!(refused.to_string().contains(rule), "{rule}: {refused}");
    assert_eq!(world.content(), before);
    assert!(target.accepts(login, OLD));
    world.nothing_is_open();
}

enum Wish<'a> {
    Password(&'a str),
    Rules(&'a str),
}

#[test]
fn the_domains_policy_refuses_and_nothing_changes() {
    let domain = Domain::<1800>::of(&[("minPwdLength", "12"), ("pwdHistoryLength", "5"), ("pwdProperties", "1")]);
    domain.create("app");
    domain.create("served");
    domain.create_admin("boss", OLD);
    let world = World::new();
    world.add("Boss", &domain.fields("boss"), OLD);
    world.add("App", &domain.fields("app"), OLD);
    world.add("Served", &domain.fields("served").with("turnlock:admin=Boss"), OLD);
    for account in [["App", "app"], ["Served", "served"]] {
        refused_by_policy(&domain, &world, account, Wish::Password("Short-1"), "at least 12 characters");
        refused_by_policy(&domain, &world, account, Wish::Rules("0,20,0,0"), "three classes");
    }
    domain.set_password("app", NEW);
    domain.set_password("app", OLD);
    refused_by_policy(&domain, &world, ["App", "app"], Wish::Password(NEW), "none of the last 5");
    let found = world.json(&["check", "App"])[0]["findings"]["findings"].to_string();
    assert!(found.contains("at least 12 characters"), "{found}");
    rotates(&domain, &world, "App", "app");

    // A day must pass between two changes of one's own; an admin need not wait.
    domain.controller.set_policy("minPwdAge", &["-864000000000"]).unwrap();
    let young = world.fails(3, &["rotate", "App"]);
    assert_eq!((&young["kind"], &young["state"]), (&json!("policy"), &json!("unchanged")), "{young}");
    assert!(young.to_string().contains("too recently"), "{young}");
    assert!(domain.accepts("app", &world.password("App")));
    assert_eq!(world.run(&["check", "App"]).status, 3);
    rotates(&domain, &world, "Served", "served");
}

#[test]
fn openldaps_policy_refuses_and_nothing_changes() {
    let policy = vec![("pwdMinLength", "12"), ("pwdInHistory", "3"), ("pwdSafeModify", "FALSE")];
    let server = Openldap::start(OpenldapOptions { policy, ..OpenldapOptions::default() }).unwrap();
    server.create("app", OLD).unwrap();
    let world = World::new();
    world.add("App", &Target::fields(&server, "app"), OLD);
    refused_by_policy(&server, &world, ["App", "app"], Wish::Password("Short-1"), "too short");
    rotates(&server, &world, "App", "app");
    server.set_policy("pwdMinAge", &["86400"]).unwrap();
    let young = world.fails(3, &["rotate", "App"]);
    assert_eq!((&young["kind"], &young["state"]), (&json!("policy"), &json!("unchanged")), "{young}");
    assert!(young.to_string().contains("too recently"), "{young}");
    server.set_policy("pwdMinAge", &["0"]).unwrap();
    server.set_policy("pwdAllowUserChange", &["FALSE"]).unwrap();
    let not_allowed = world.fails(3, &["rotate", "App"]);
    assert_eq!((&not_allowed["kind"], &not_allowed["state"]), (&json!("permission"), &json!("unchanged")));
    assert!(Target::accepts(&server, "app", &world.password("App")));
    world.nothing_is_open();
}

/// Three wrong passwords lock, two would be counted; a rotation costs one.
#[test]
fn a_wrong_password_in_the_vault_locks_nobody_out() {
    let domain = Domain::<1800>::of(&[("lockoutThreshold", "3")]);
    domain.create("app");
    let world = World::new();
    world.add("App", &domain.fields("app"), "Not-The-Right-1");
    for command in [["rotate", "App"], ["rotate", "App"], ["verify", "App"], ["check", "App"], ["rotate", "App"]] {
        let refused = world.fails(3, &command).to_string();
        assert!(!refused.contains("data 775"), "{refused}");
        world.run(&["recover"]);
    }
    let wrong: u32 = domain.wrong_passwords("app").parse().unwrap();
    assert_eq!(wrong, 2, "the third would lock the account");
    assert!(domain.controller.accepts("app", OLD).unwrap());
    // Neither does one in an admin's record, whatever it is used for.
    domain.create_admin("boss", OLD);
    world.add("Boss", &domain.fields("boss"), "Not-The-Right-1");
    for number in 0..4 {
        domain.create(&format!("served{number}"));
        let title = format!("Served {number}");
        world.add(&title, &domain.fields(&format!("served{number}")).with("turnlock:admin=Boss"), OLD);
        world.fails(3, &["rotate", &title]);
    }
    assert_eq!(domain.wrong_passwords("boss"), "2");
    assert!(domain.controller.accepts("boss", OLD).unwrap());
}

/// Two refusals fit into a window, and to settle an attempt may take more questions: one that was
/// refused before, or the third that is needed, must not keep it open for ever.
#[test]
fn an_open_attempt_is_settled_however_few_questions_a_window_allows() {
    const SECONDS: u32 = 3;
    let window = "-30000000";
    let domain = Domain::<SECONDS>::of(&[
        ("lockoutThreshold", "3"),
        ("lockoutDuration", window),
        ("lockOutObservationWindow", window),
    ]);
    for (login, moved) in [("kept", false), ("moved", true)] {
        domain.create(login);
        let world = World::new();
        world.add("App", &domain.fields(login), "Mistaken-1");
        world.fails(3, &["verify", "App"]);
        world.ok_with(&["edit", "App", "--password", "-"], OLD);
        killed_before_the_change(&world);
        assert_eq!(world.staged("App").len(), 1);
        if moved {
            domain.controller.set_password(login, NEW).unwrap();
        }
        let recovered = |how: &str| {
            wait_until("the attempt to be settled", Duration::from_secs(30), || {
                let recovered = world.run(&["recover", "App", "-o", "json"]);
                let is_parked = world::lines(&recovered.stdout).iter().any(|line| line["state"] == "parked");
                let outcome = if is_parked { "parked" } else { "settled" };
                (outcome == how && (is_parked || recovered.status == 0)).then_some(())
            })
            .unwrap();
        };
        // Only what the domain refuses altogether needs a person.
        recovered(if moved { "parked" } else { "settled" });
        let locked = domain.controller.attribute(&domain.controller.dn(login), "lockoutTime").unwrap().concat();
        assert!(["", "0"].contains(&locked.as_str()), "{login} was locked out at {locked}");
        assert!(domain.accepts(login, if moved { NEW } else { OLD }));
        if moved {
            domain.controller.set_password(login, OLD).unwrap();
            recovered("settled");
        }
        assert_eq!(world.password("App"), OLD);
        world.nothing_is_open();
    }
}

/// Begins a rotation whose rotator ends when it is told to go.
fn killed_before_the_change(world: &World) {
    let program = world.turnlock.own_program(&lab::bin("turnlock").unwrap()).unwrap();
    let rotator = lab::bin("turnlock-adpasswd").unwrap();
    let kill = Kill { victim: Victim::Rotator, direction: MessageDirection::ToRotator, number: 3, when: When::Before };
    let interposer = Interposer::beside(&program, &rotator, Some(kill)).unwrap();
    let mut rotate = world.turnlock.program_at(&program, &["rotate", "App"]);
    let output = process::run(rotate.env("TURNLOCK_KEY_FILE", world.turnlock.key_file()), b"").unwrap();
    assert!(output.status == 5 && interposer.has_killed(), "{}", output.stderr);
}

#[test]
fn every_state_of_an_account_is_told_apart() {
    let domain = Domain::<1800>::of(&[("lockoutThreshold", "3")]);
    domain.create_admin("boss", OLD);
    let world = World::new();
    world.add("Boss", &domain.fields("boss"), OLD);
    for login in ["locked", "disabled", "expired", "must"] {
        domain.create(login);
        world.add(login, &domain.fields(login), OLD);
        world.add(&format!("{login} reset"), &domain.fields(login).with("turnlock:admin=Boss"), OLD);
    }
    for _ in 0..3 {
        assert!(!domain.controller.accepts("locked", "wrong").unwrap());
    }
    domain.controller.disable("disabled").unwrap();
    domain.controller.expire_account("expired").unwrap();
    domain.controller.demand_change("must").unwrap();
    let before = world.content();
    for (login, kind, says) in [
        ("locked", "locked_out", "is locked"),
        ("disabled", "permission", "is disabled"),
        ("expired", "permission", "has expired"),
        ("must", "permission", "must be changed"),
    ] {
        for command in ["rotate", "check", "verify"] {
            if (login, command) == ("must", "verify") {
                continue;
            }
            let refused =
                world.fails(3, &[command, login, "--with-duplicates"][..if command == "rotate" { 3 } else { 2 }]);
            assert_eq!(refused["kind"], kind, "{command}: {refused}");
            if (login, command) == ("locked", "verify") {
                // Asked twice: that is enough for half an hour.
                continue;
            }
            assert!(refused["error"].as_str().unwrap().contains(says), "{command}: {refused}");
            assert!(!refused["hint"].as_str().unwrap().is_empty());
        }
        if login != "must" {
            let reset = world.fails(3, &["rotate", &format!("{login} reset"), "--with-duplicates"]);
            assert_eq!(reset["kind"], kind, "by an admin: {reset}");
        }
    }
    assert_eq!(world.json(&["verify", "must"])[0]["outcome"], "accepted");
    assert_eq!(world.content(), before);

    // An admin ends two of these states.
    world.ok(&["edit", "locked reset", "--set", "turnlock:unlock=true"]);
    for login in ["locked", "must"] {
        let title = format!("{login} reset");
        world.ok(&["rotate", &title, "--with-duplicates"]);
        assert!(domain.controller.accepts(login, &world.password(&title)).unwrap());
        assert_eq!(world.password(login), world.password(&title));
    }
    let set = domain.controller.attribute(&domain.controller.dn("must"), "pwdLastSet").unwrap();
    assert_ne!(set, ["0"], "nobody has to change what a machine uses");
    world.ok(&["edit", "must reset", "--set", "turnlock:must_change=true"]);
    world.ok(&["rotate", "must reset", "--with-duplicates"]);
    assert_eq!(domain.controller.attribute(&domain.controller.dn("must"), "pwdLastSet").unwrap(), ["0"]);
    world.nothing_is_open();
}

#[test]
fn openldap_tells_its_states_apart() {
    let policy = vec![("pwdMaxFailure", "3"), ("pwdLockout", "TRUE"), ("pwdMustChange", "TRUE")];
    let server = Openldap::start(OpenldapOptions { policy, ..OpenldapOptions::default() }).unwrap();
    let world = World::new();
    for login in ["locked", "must"] {
        server.create(login, OLD).unwrap();
        world.add(login, &Target::fields(&server, login), OLD);
    }
    for _ in 0..3 {
        assert!(!server.accepts(&server.dn("locked"), "wrong").unwrap());
    }
    for command in ["rotate", "check", "verify"] {
        let refused = world.fails(3, &[command, "locked"]);
        assert_eq!(refused["kind"], "locked_out", "{command}: {refused}");
    }
    // What an admin has reset, its owner changes.
    server.modify(&server.dn("must"), "pwdReset", &["TRUE"]).unwrap();
    let found = world.json(&["check", "must"])[0]["findings"]["findings"].to_string();
    assert!(found.contains("changed after a reset"), "{found}");
    rotates(&server, &world, "must", "must");
    assert!(server.attribute(&server.dn("must"), "pwdReset").unwrap().is_empty());
}

/// A change that is delegated needs no more than the one right the README names.
#[test]
fn a_delegated_admin_needs_one_right() {
    let domain = Domain::<1800>::of(&[]);
    domain.create("app");
    domain.create("helpdesk");
    let sid = domain.controller.sid("helpdesk").unwrap();
    domain.controller.allow("app", &format!("(OA;;CR;00299570-246d-11d0-a768-00aa006e0529;;{sid})")).unwrap();
    let world = World::new();
    world.add("Helpdesk", &domain.fields("helpdesk"), OLD);
    world.add("App", &domain.fields("app").with("turnlock:admin=Helpdesk"), "Nobody-Knows-It-1");
    world.ok(&["rotate", "App"]);
    assert!(domain.accepts("app", &world.password("App")));
}

/// Windows and Samba go on taking the old password for an hour by default.
#[test]
fn an_old_password_that_still_works_is_no_failed_rotation() {
    let settings = vec!["old password allowed period = 60".to_owned()];
    let domain = Domain::<1800>::with(DomainOptions { settings, ..DomainOptions::default() });
    domain.create("app");
    let world = World::new();
    world.add("App", &domain.fields("app"), OLD);
    let mut old = OLD.to_owned();
    for _ in 0..2 {
        world.ok(&["rotate", "App"]);
        let new = world.password("App");
        assert!(new != old && domain.accepts("app", &new));
        old = new;
    }
    world.nothing_is_open();
}

#[test]
fn starttls_is_as_good_as_tls_and_never_left_out() {
    let server = Openldap::start(OpenldapOptions::default()).unwrap();
    server.create("app", OLD).unwrap();
    let world = World::new();
    let mut fields = Target::fields(&server, "app").with("turnlock:starttls=true").with("cmdr:plugin=adpasswd");
    fields.url = Some(format!("ldap://{}:{}", server.starttls_host(), server.port()));
    world.add("App", &fields, OLD);
    rotates(&server, &world, "App", "app");
    assert!(world.json(&["check", "App"])[0]["findings"]["tls"].as_str().unwrap().contains("verified"));
    world.ok(&["edit", "App", "--set", &server.mistrusted(world.turnlock.home())]);
    assert_eq!(world.fails(3, &["rotate", "App"])["kind"], "tls");

    // In clear: refused by whoever is asked, and by us where the directory would take it.
    let domain = Domain::<1800>::of(&[]);
    domain.create("app");
    let mut clear = domain.fields("app").with("turnlock:tls=disable");
    clear.url = Some(format!("ldap://{}:389", domain.controller.host()));
    let failed = domain.failed_logins();
    let world = World::new();
    world.add("App", &clear, OLD);
    assert_eq!(world.fails(3, &["rotate", "App"])["kind"], "tls");
    let mut started = domain.fields("app");
    started.url = clear.url;
    let world = World::new();
    world.add("Started", &started, OLD);
    rotates(&domain, &world, "Started", "app");
    assert_eq!(domain.failed_logins(), failed + 1, "of the test itself");
}

/// The second controller never hears of the change, as one that lags behind.
#[test]
fn a_domain_is_asked_at_its_one_controller_for_passwords() {
    let names = vec!["dc1.lab.test".to_owned()];
    let first = Domain::<1800>::with(DomainOptions { names: names.clone(), ..DomainOptions::default() });
    let second = DomainController::start(DomainOptions::default()).unwrap();
    first.create("app");
    let service = "_ldap._tcp.pdc._msdcs.lab.test";
    let addresses = [("dc1.lab.test", first.controller.host()), ("lab.test", second.host())];
    let addresses = addresses.each_ref().map(|(name, address)| (*name, address.as_str()));
    let dns = NameServer::start(&addresses, &[(service, "dc1.lab.test")]).unwrap();
    let fields = Fields {
        login: "app".to_owned(),
        url: Some("ldaps://lab.test".to_owned()),
        custom: vec![first.trusted(), "cmdr:plugin=adpasswd".to_owned()],
    };
    let asked = second.log().len();
    let world = World::at(dns.home().unwrap());
    world.add("App", &fields, OLD);
    rotates(&first, &world, "App", "app");
    assert!(world.json(&["check", "App"])[0]["findings"]["server"].as_str().unwrap().contains("dc1.lab.test"));
    assert_eq!(second.log().len(), asked, "{}", second.log());

    // Without that record it is not guessed which of them to ask.
    let dns = NameServer::start(&[("lab.test", &first.controller.host())], &[]).unwrap();
    let mut unnamed = fields.clone().with("turnlock:tls=verify-ca");
    unnamed.login = "app".to_owned();
    let world = World::at(dns.home().unwrap());
    world.add("App", &unnamed, OLD);
    let failed = first.failed_logins();
    let refused = world.fails(3, &["rotate", "App"]);
    assert_eq!(refused["kind"], "unreachable", "{refused}");
    assert!(refused["error"].as_str().unwrap().contains("is a domain"), "{refused}");

    // Nor is a controller believed whose name is no name of the domain.
    let evil =
        NameServer::start(&[("dc1.evil.test", &first.controller.host())], &[(service, "dc1.evil.test")]).unwrap();
    let world = World::at(evil.home().unwrap());
    world.add("App", &fields, OLD);
    let refused = world.fails(3, &["rotate", "App"]);
    assert_eq!(refused["kind"], "tls", "{refused}");
    assert_eq!(first.failed_logins(), failed);
}

/// A directory that lets no stranger search wants the DN.
#[test]
fn a_directory_that_hides_its_entries_is_told_the_dn() {
    let rule = "access to dn.subtree=\"ou=people,dc=lab,dc=test\" attrs=entry,uid,cn by users read by * none";
    let settings = vec![rule.to_owned()];
    let server = Openldap::start(OpenldapOptions { settings, ..OpenldapOptions::default() }).unwrap();
    server.create("app", OLD).unwrap();
    let world = World::new();
    world.add("App", &Target::fields(&server, "app"), OLD);
    let refused = world.fails(3, &["rotate", "App"]);
    assert_eq!(refused["kind"], "not_found", "{refused}");
    assert!(refused["hint"].as_str().unwrap().contains("userdn"), "{refused}");
    world.ok(&["edit", "App", "--set", &format!("cmdr:userdn={}", server.dn("app"))]);
    rotates(&server, &world, "App", "app");
}

/// Keeper's records say `tls_verify`, and a verified certificate is what they get unless they say otherwise.
#[test]
fn keepers_word_for_tls_is_understood() {
    let domain = Domain::<1800>::of(&[]);
    domain.create("app");
    let world = World::new();
    let fields = |word: &str| domain.fields("app").without("turnlock:ca").with(format!("cmdr:tls_verify={word}"));
    world.add("App", &fields("required"), OLD);
    assert_eq!(world.fails(3, &["rotate", "App"])["kind"], "tls");
    world.ok(&["edit", "App", "--set", "cmdr:tls_verify=none"]);
    let found: Value = world.json(&["check", "App"])[0]["findings"].clone();
    assert!(found.to_string().contains("not checked"), "{found}");
    rotates(&domain, &world, "App", "app");
}
