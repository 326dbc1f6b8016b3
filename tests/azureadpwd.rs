//! The rotator azureadpwd on a stand-in for Entra ID and Graph
//! (`lab/entra/server.py` says what it does not prove): the promises of every
//! rotator as far as a target can keep them that nobody can ask, and what only
//! these services can break. MSAL tells which password works.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a broken expectation of a test program is its failure"
)]

mod promises;
mod world;

use std::{
    io::{Read, Write},
    net::TcpListener,
    path::PathBuf,
    time::Duration,
};

use lab::{
    Direction, Entra, Fault,
    entra::{ApplicationCertificate, TENANT},
    process, wait_until,
};
use promises::Target;
use serde_json::{Value, json};
use world::{Fields, World};

const OLD: &str = "Old-And-Tired-1";
/// The application that a record names itself.
const APPLICATION: &str = "7d3e9a10-5c1b-4b6e-9a57-0c6a4f1d2b33";
const SECRET: &str = "an-Application's~Secret+1/2=";

struct Tenant(Entra);

impl Tenant {
    /// With one user, and a record of it.
    fn with_app() -> (Self, World) {
        let tenant = Self::start(&promises::NAMES);
        tenant.create("app", OLD);
        let world = World::new();
        world.add("App", &tenant.fields("app"), OLD);
        (tenant, world)
    }

    /// A record's fields without an application.
    fn nobodys(&self, login: &str, host: &str, port: u16) -> Fields {
        let place = format!("https://{host}:{port}");
        Fields { login: login.to_owned(), url: None, custom: Vec::new() }
            .with("cmdr:plugin=azureadpwd")
            .with(format!("cmdr:azure_tenant_id={TENANT}"))
            .with(format!("turnlock:login_endpoint={place}"))
            .with(format!("turnlock:graph_endpoint={place}"))
            .with(self.trusted())
    }

    fn changes(&self, login: &str) -> i64 {
        self.0.user(login, "changes").unwrap().as_i64().unwrap()
    }
}

fn of_an_application(fields: Fields) -> Fields {
    fields.with(format!("cmdr:azure_client_id={APPLICATION}")).with(format!("cmdr:azure_secret={SECRET}"))
}

impl Target for Tenant {
    const PLUGIN: &'static str = "azureadpwd";
    const SCHEME: &'static str = "https";
    const SERVER: &'static str = "Microsoft Entra ID";
    const CAN_BE_ASKED: bool = false;
    const ADMIN_IS_AN_ACCOUNT: bool = false;

    fn hostile_logins() -> Vec<String> {
        [
            "ann_partner.example#EXT#@contoso.example",
            "o'hara@contoso.example",
            "a!b^c~d.e-f_g@contoso.example",
            "100%25/../x?y=1&z#@contoso.example",
            "$amy's@contoso.example",
            // As far as MSAL goes, which puts the name into a header.
            "größe ß@contoso.example",
            "with blanks",
            "..@contoso.example",
            "back\\slash;semi,comma",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    /// Entra ID takes ASCII only.
    fn hostile_passwords() -> Vec<String> {
        let most: String = "aB3$%'\"\\ ".chars().cycle().take(256).collect();
        [
            r#"1t's "Quoted" \ 'twice' \\ over"#,
            r"'; DROP USER x;-- \'; \0 \x00 \n %s %n %% %00 \u0041",
            "$(reboot) `id` ${HOME} $$ $1 {0} {} <!-- & | > /dev/null",
            "  1 Space at both ends  ",
            "-1-Begins-With-A-Hyphen",
            "{\"passwordProfile\": null}-1-A",
            "8Charac!",
            &most,
        ]
        .map(str::to_owned)
        .to_vec()
    }

    fn start(names: &[&str]) -> Self {
        let entra = Entra::start(names).unwrap();
        entra.create_application(APPLICATION, SECRET).unwrap();
        Self(entra)
    }
    fn port(&self) -> u16 {
        self.0.port()
    }
    fn ca(&self) -> PathBuf {
        self.0.ca_path()
    }
    fn create(&self, login: &str, password: &str) {
        self.0.create_user(login, password).unwrap();
    }
    fn create_admin(&self, login: &str, password: &str) {
        self.0.create_application(login, password).unwrap();
    }
    fn create_without_rights(&self, login: &str, password: &str) {
        self.0.create_application(login, password).unwrap();
        self.0.set_application(login, json!({"permissions": ["User.Read.All"], "roles": []})).unwrap();
    }
    fn set_password(&self, login: &str, password: &str) {
        self.0.set_user(login, json!({"password": password})).unwrap();
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
    fn fields_at(&self, login: &str, port: u16) -> Fields {
        of_an_application(self.nobodys(login, "127.0.0.1", port))
    }
    fn fields_by(&self, login: &str, host: &str) -> Fields {
        of_an_application(self.nobodys(login, host, self.port()))
    }
    fn fields_of_admin(&self, login: &str) -> Fields {
        Fields { login: login.to_owned(), ..Fields::default() }
    }
    fn fields_of_reset(&self, login: &str, admin: &str) -> Fields {
        self.nobodys(login, "127.0.0.1", self.port()).with(format!("turnlock:admin={admin}"))
    }
}

/// All but two: nobody shows a user's password to these services, so that a
/// wrong one is not noticed, and none that was changed behind our back.
mod promised {
    crate::promises::promises!(crate::Tenant:
        the_new_secret_works_and_the_old_one_stops,
        a_healthy_rotation_spends_no_failed_log_in,
        a_target_out_of_reach_or_a_stranger_is_shown_no_secret,
        an_admin_resets_an_account_whose_secret_is_lost,
        an_admin_without_the_right_changes_nothing,
        hostile_logins_survive,
        hostile_passwords_survive,
        a_second_and_a_third_run_are_harmless,
        check_changes_nothing_and_says_what_it_found,
        tls_is_believed_only_as_far_as_told,
        a_connection_cut_at_any_byte_loses_nothing,
        no_secret_is_seen_anywhere,
        a_held_rotation_shows_no_secret,
        orchestrator_and_rotator_cannot_be_looked_into,
        two_runs_on_one_account_rotate_it_once,
    );
}

/// The vault's password works, and the one before does not.
#[track_caller]
fn rotates(tenant: &Tenant, world: &World, title: &str, login: &str) -> String {
    let old = world.password(title);
    let rotated = world.ok(&["rotate", title]);
    let new = world.password(title);
    assert!(new != old && tenant.accepts(login, &new) && !tenant.accepts(login, &old));
    world.nothing_is_open();
    rotated.stdout + &rotated.stderr
}

/// Nothing changed, and nothing was staged.
#[track_caller]
fn refuses(tenant: &Tenant, world: &World, kind: &str, words: &[&str]) -> Value {
    let (before, changes) = (world.content(), tenant.changes("app"));
    let refused = world.fails(3, &["rotate", "App"]);
    assert_eq!((&refused["kind"], &refused["state"]), (&json!(kind), &json!("unchanged")), "{refused}");
    for word in words {
        assert!(refused.to_string().contains(word), "{word}: {refused}");
    }
    assert!(refused["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{refused}");
    assert_eq!((world.content(), tenant.changes("app")), (before, changes));
    world.nothing_is_open();
    refused
}

#[test]
fn nobody_can_be_asked_and_everybody_is_told_so() {
    let (tenant, world) = Tenant::with_app();
    assert!(rotates(&tenant, &world, "App", "app").contains("not proven: this target cannot be asked"));
    assert_eq!(world.json(&["show", "App"])[0]["unverified"], true);
    assert_eq!(world.json(&["verify", "App"])[0]["outcome"], "not_asked");
    let found = world.ok(&["check", "App", "-o", "json"]).stdout;
    assert!(found.contains("not proven by a log-in"), "{found}");
    // The record's own password is needed by nobody.
    world.edit_password("App", "Not-The-Right-1");
    rotates(&tenant, &world, "App", "app");
}

#[test]
fn every_refusal_of_the_log_in_is_told_apart() {
    let (tenant, world) = Tenant::with_app();
    let set = |field: &str| world.ok(&["edit", "App", "--set", field]);
    set("cmdr:azure_secret=not-the-secret");
    refuses(&tenant, &world, "authentication", &["AADSTS7000215", APPLICATION, "not the secret's id"]);
    assert_eq!(tenant.failed_logins(), 1, "a wrong secret is shown once");
    set(&format!("cmdr:azure_secret={SECRET}"));
    tenant.0.set_application(APPLICATION, json!({"expired": true})).unwrap();
    refuses(&tenant, &world, "authentication", &["AADSTS7000222", "has expired"]);
    tenant.0.set_application(APPLICATION, json!({"expired": false, "disabled": true})).unwrap();
    refuses(&tenant, &world, "not_found", &["AADSTS7000112", APPLICATION]);
    tenant.0.set_application(APPLICATION, json!({"disabled": false})).unwrap();
    set("cmdr:azure_client_id=nobody");
    refuses(&tenant, &world, "not_found", &["AADSTS700016", "nobody"]);
    set(&format!("cmdr:azure_client_id={APPLICATION}"));
    set("cmdr:azure_tenant_id=fabrikam.example");
    refuses(&tenant, &world, "not_found", &["AADSTS90002", "azure_tenant_id"]);
    set("cmdr:azure_tenant_id=contoso.example");
    rotates(&tenant, &world, "App", "app");
}

#[test]
fn an_unknown_cloud_is_refused_and_every_known_one_gets_its_own_tokens() {
    let (tenant, world) = Tenant::with_app();
    let seen = tenant.log().len();
    for unknown in ["germany", "AzureGermanCloud", "globl"] {
        world.ok(&["edit", "App", "--set", &format!("cmdr:azure_cloud={unknown}")]);
        for command in ["rotate", "check"] {
            let refused = world.fails(2, &[command, "App"]);
            let text = refused.to_string();
            assert!(text.contains("azure_cloud") && text.contains("usgov"), "{refused}");
        }
    }
    assert_eq!(tenant.log().len(), seen, "nobody was asked");
    // Commander's words for them, too. A token of one cloud is none in another.
    for (name, cloud) in [
        ("usgov", "usgov"),
        ("AzureUSGovernment", "usgov"),
        ("China", "china"),
        ("AzureCloud", "global"),
        ("Global", "global"),
    ] {
        world.ok(&["edit", "App", "--set", &format!("cmdr:azure_cloud={name}")]);
        tenant.0.set(json!({"cloud": if cloud == "china" { "global" } else { "china" }})).unwrap();
        refuses(&tenant, &world, "not_found", &["AADSTS500011", "azure_cloud"]);
        tenant.0.set(json!({"cloud": cloud})).unwrap();
        rotates(&tenant, &world, "App", "app");
        let found = world.json(&["check", "App"])[0].to_string();
        assert!(found.contains(&format!("cloud {cloud}")), "{found}");
    }
}

#[test]
fn a_missing_or_contradictory_field_is_named_before_anybody_is_asked() {
    let (tenant, world) = Tenant::with_app();
    let seen = tenant.log().len();
    for (set, unset, status, words) in [
        (None, "cmdr:azure_tenant_id", 2, "cmdr:azure_tenant_id"),
        (None, "cmdr:azure_secret", 3, "cmdr:azure_secret"),
        (None, "cmdr:azure_client_id", 3, "cmdr:azure_client_id"),
        (Some("cmdr:azure_certificate=-----BEGIN NOTHING-----"), "", 3, "azure_certificate"),
        (Some("turnlock:graph_endpoint=http://127.0.0.1:1"), "", 3, "graph_endpoint"),
        (Some("turnlock:tls=disable"), "", 3, "in clear"),
        (Some("cmdr:azure_tenant_id=None/x"), "", 3, "azure_tenant_id"),
    ] {
        let world = World::new();
        let mut fields = tenant.fields("app").without(if unset.is_empty() { "-" } else { unset });
        if let Some(set) = set {
            fields = fields.without(set.split('=').next().unwrap()).with(set);
        }
        world.add("App", &fields, OLD);
        for command in ["rotate", "check"] {
            let refused = world.run(&[command, "App", "-o", "json"]);
            let expected = if refused.stdout.contains("invalid_input") { [2, 3] } else { [status, status] };
            assert!(expected.contains(&refused.status), "{words}: {} {}", refused.status, refused.stdout);
            assert!(refused.stdout.contains(words), "{words}: {}{}", refused.stdout, refused.stderr);
        }
    }
    world.nothing_is_open();
    assert_eq!(tenant.log().len(), seen, "somebody was asked: {}", tenant.log());
}

#[test]
fn a_certificate_is_as_good_as_a_secret() {
    let (tenant, world) = Tenant::with_app();
    let (own, other) = (ApplicationCertificate::new().unwrap(), ApplicationCertificate::new().unwrap());
    tenant.0.set_application(APPLICATION, json!({"secret": null, "certificate": own.certificate})).unwrap();
    world.ok(&["edit", "App", "--unset", "cmdr:azure_secret"]);
    let certificate = |pem: &str| {
        world.ok(&["edit", "App", "--set", &format!("cmdr:azure_certificate={pem}")]);
    };
    certificate(&own.pem());
    rotates(&tenant, &world, "App", "app");
    assert!(world.ok(&["check", "App"]).stdout.contains("may rotate"));
    certificate(&format!("{}{}", own.key, own.certificate));
    rotates(&tenant, &world, "App", "app");

    certificate(&other.pem());
    refuses(&tenant, &world, "authentication", &["AADSTS700027", "certificate"]);
    let log = tenant.log().len();
    let elliptic = lab::Authority::new().unwrap().issue(&["app"]).unwrap();
    for (pem, words) in [
        (format!("{}{}", own.certificate, other.key), "not the certificate's"),
        (own.certificate.clone(), "no private key"),
        (own.key.clone(), "no certificate"),
        (format!("{}{}", elliptic.certificate, elliptic.key), "not RSA"),
    ] {
        certificate(&pem);
        let refused = refuses(&tenant, &world, "invalid_input", &["azure_certificate", words]);
        assert!(!refused.to_string().contains(&own.key[40..60]), "{refused}");
    }
    assert_eq!(tenant.log().len(), log, "a certificate that cannot be used is not shown");
}

#[test]
fn a_guest_is_the_one_who_was_meant() {
    let (tenant, world) = Tenant::with_app();
    // Whose address the predecessor's ended in, at the `#`.
    let (short, guest) = ("ann_partner.example", "ann_partner.example#EXT#@contoso.example");
    tenant.create(short, OLD);
    tenant.create(guest, OLD);
    tenant.0.set_user(guest, json!({"type": "Guest"})).unwrap();
    world.add("Guest", &tenant.fields(guest), OLD);
    rotates(&tenant, &world, "Guest", guest);
    assert!(tenant.accepts(short, OLD), "somebody else's password changed");
    assert!(world.ok(&["check", "Guest"]).stdout.contains("is a guest"));
    // Without the right to look users up, the address alone has to be right.
    tenant.0.set_application(APPLICATION, json!({"permissions": ["User-PasswordProfile.ReadWrite.All"]})).unwrap();
    rotates(&tenant, &world, "Guest", guest);
    assert!(tenant.accepts(short, OLD), "somebody else's password changed");
    assert!(
        tenant.log().contains("PATCH /v1.0/users/ann_partner.example%23EXT%23@contoso.example"),
        "{}",
        tenant.log()
    );
    // An object id does as well.
    let id = tenant.0.user(guest, "id").unwrap().as_str().unwrap().to_owned();
    world.add("By id", &tenant.fields(&id), OLD);
    rotates(&tenant, &world, "By id", guest);
    // Nobody is nobody, whoever comes next to it.
    world.ok(&["edit", "App", "--login", "nobody@contoso.example"]);
    refuses(&tenant, &world, "not_found", &["nobody@contoso.example"]);
}

#[test]
fn graph_that_tells_of_somebody_else_is_not_believed() {
    let (tenant, world) = Tenant::with_app();
    let other = json!({"id": "1", "userPrincipalName": "other@contoso.example"});
    tenant.0.fault("user", json!({"what": "body", "body": other.to_string()}), 1).unwrap();
    refuses(&tenant, &world, "not_found", &["somebody else"]);
}

#[test]
fn a_refused_permission_names_what_to_grant() {
    let (tenant, world) = Tenant::with_app();
    let least = "User-PasswordProfile.ReadWrite.All";
    for rights in [json!({"permissions": ["User.Read.All"], "roles": []}), json!({"permissions": [least], "roles": []})]
    {
        tenant.0.set_application(APPLICATION, rights.clone()).unwrap();
        refuses(&tenant, &world, "permission", &["Authorization_RequestDenied", least, "User Administrator"]);
        let found = world.run(&["check", "App", "-o", "json"]).stdout;
        assert!(found.contains("User Administrator") && !found.contains(r#""may_rotate":"yes""#), "{rights}: {found}");
    }
    // An administrator's password takes more, and whoever reads the hint knows what.
    tenant.0.set_application(APPLICATION, json!({"permissions": [least], "roles": ["User Administrator"]})).unwrap();
    tenant.0.set_user("app", json!({"administrator": true})).unwrap();
    refuses(&tenant, &world, "permission", &["Privileged Authentication Administrator"]);
    tenant.0.set_application(APPLICATION, json!({"roles": ["Privileged Authentication Administrator"]})).unwrap();
    rotates(&tenant, &world, "App", "app");
}

#[test]
fn an_application_that_may_do_far_more_is_a_warning() {
    let (tenant, world) = Tenant::with_app();
    assert!(!world.ok(&["check", "App"]).stdout.contains("far more"));
    let much = json!({
        "permissions": ["Directory.ReadWrite.All", "RoleManagement.ReadWrite.Directory"], "roles": ["Global Administrator"],
    });
    tenant.0.set_application(APPLICATION, much).unwrap();
    let found = &world.json(&["check", "App"])[0]["findings"]["findings"];
    let warning = found.as_array().unwrap().iter().find(|finding| finding["severity"] == "warning").unwrap();
    for word in ["far more", "RoleManagement.ReadWrite.Directory", "Global Administrator"] {
        assert!(warning.to_string().contains(word), "{warning}");
    }
}

#[test]
fn check_says_what_the_user_is() {
    let (tenant, world) = Tenant::with_app();
    tenant.0.set_user("app", json!({"enabled": false, "synced": true})).unwrap();
    let found = world.ok(&["check", "App"]).stdout;
    assert!(found.contains("is disabled") && found.contains("comes from a domain"), "{found}");
}

#[test]
fn the_services_rules_for_passwords_are_known_beforehand_and_their_refusal_is_definite() {
    let (tenant, world) = Tenant::with_app();
    let (before, seen) = (world.content(), tenant.log().len());
    for (password, rule) in
        [("Short-1", "at least 8"), ("Größe-Und-Länge-1", "ASCII"), ("This-Is-My-App-1", "user's name")]
    {
        let output = world.run_with(&["rotate", "App", "--password", "-", "-o", "json"], password);
        assert!([2, 3].contains(&output.status) && output.stdout.contains(rule), "{rule}: {}", output.stdout);
        assert!(!output.stdout.contains(password), "{}", output.stdout);
    }
    let rules = world.run(&["rotate", "App", "--rules", "10,10,0,0", "-o", "json"]);
    assert!(rules.status != 0 && rules.stdout.contains("demands three"), "{}", rules.stdout);
    assert_eq!((world.content(), tenant.log().len()), (before, seen), "nobody was asked");
    world.ok(&["rotate", "App", "--rules", "8,8,0,4"]);

    // A tenant's own banned words: refused, nothing changed, and another one is drawn once.
    let banned = json!({"error": {"code": "Request_BadRequest", "message": "The specified password is banned."}});
    let fault = json!({"what": "body", "status": 400, "body": banned.to_string()});
    tenant.0.fault("change", fault.clone(), 2).unwrap();
    let changes = tenant.changes("app");
    let refused = world.fails(3, &["rotate", "App"]);
    assert_eq!((&refused["kind"], &refused["state"]), (&json!("policy"), &json!("unchanged")), "{refused}");
    assert_eq!(tenant.changes("app"), changes);
    world.nothing_is_open();
    tenant.0.fault("change", fault, 1).unwrap();
    rotates(&tenant, &world, "App", "app");
}

#[test]
fn a_busy_service_is_waited_for_as_long_as_it_says() {
    let (tenant, world) = Tenant::with_app();
    let busy = json!({"what": "status", "status": 429, "retry_after": 1});
    // What only reads is asked again; the change, too: 429 is documented as not processed.
    for at in ["token", "user", "change"] {
        tenant.0.fault(at, busy.clone(), 1).unwrap();
        let told = rotates(&tenant, &world, "App", "app");
        assert_eq!(told.contains("made us wait for 1 s"), at == "change", "{at}: {told}");
    }
    tenant.0.fault("token", json!({"what": "status", "status": 503, "retry_after": 0}), 2).unwrap();
    rotates(&tenant, &world, "App", "app");

    // Longer than anybody waits: told, and when to come back.
    let changes = tenant.changes("app");
    let long = json!({"what": "status", "status": 429, "retry_after": 3600});
    for at in ["token", "change"] {
        tenant.0.fault(at, long.clone(), 1).unwrap();
        let params = refuses(&tenant, &world, "rate_limited", &["429", "3600 s"]);
        assert!(params["error"].as_str().unwrap().contains("Entra ID") || at == "change", "{params}");
    }
    assert_eq!(tenant.changes("app"), changes);
}

/// The protocol's own field, which a scheduler of one's own reads.
#[test]
fn a_scheduler_is_told_when_to_come_back() {
    let (tenant, world) = Tenant::with_app();
    tenant.0.fault("change", json!({"what": "status", "status": 429, "retry_after": 90}), 1).unwrap();
    let mut params = one_shot(&tenant);
    params["next"] = json!({"password": "Another-One-2"});
    let mut apply = world.turnlock.program("turnlock-azureadpwd", &["apply"]).unwrap();
    let output = process::run(&mut apply, params.to_string().as_bytes()).unwrap();
    let told: Value = serde_json::from_str(output.stdout.lines().last().unwrap()).unwrap();
    let data = &told["error"]["data"];
    assert_eq!((output.status, &data["kind"], &data["applied"]), (3, &json!("rate_limited"), &json!("no")), "{told}");
    assert_eq!((&data["retry_after_ms"], &data["retryable"]), (&json!(90_000), &json!(true)), "{told}");
}

/// 503 may come after the change: it is never taken for a refusal, and what is
/// sent again is the same password.
#[test]
fn what_may_have_been_done_is_sent_again_until_the_answer_is_definite() {
    for fault in [
        json!({"what": "status", "status": 503, "retry_after": 1}),
        json!({"what": "status", "status": 503, "retry_after": 1, "apply": true}),
        json!({"what": "status", "status": 500, "apply": true}),
        json!({"what": "body", "status": 403, "body": "<html>a gateway's own page</html>"}),
        json!({"what": "cut before"}),
        json!({"what": "cut after"}),
    ] {
        let (tenant, world) = Tenant::with_app();
        tenant.0.fault("change", fault.clone(), 1).unwrap();
        world.ok(&["rotate", "App"]);
        assert!(tenant.accepts("app", &world.password("App")), "{fault}");
        world.nothing_is_open();

        // Twice in a row: the attempt stays open, and the next run ends it with the same candidate.
        tenant.0.fault("change", fault.clone(), 2).unwrap();
        let output = world.run(&["rotate", "App", "-o", "json"]);
        assert_eq!(output.status, 5, "{fault}: {}{}", output.stdout, output.stderr);
        let staged = world.staged("App");
        assert_eq!(staged.len(), 1, "{fault}");
        assert!(world.every_password("App").iter().any(|password| tenant.accepts("app", password)), "{fault}");
        world.ok(&["recover"]);
        assert_eq!(world.password("App"), staged[0], "{fault}: another one was drawn");
        assert!(tenant.accepts("app", &staged[0]), "{fault}");
        world.nothing_is_open();
    }
}

#[test]
fn what_was_lost_and_then_refused_is_for_a_person_who_is_told_how() {
    let (tenant, world) = Tenant::with_app();
    for (lost, chosen) in [("cut after", "candidate"), ("cut before", "current"), ("cut after", ""), ("cut before", "")]
    {
        let before = world.password("App");
        tenant.0.fault("change", json!({"what": lost}), 1).unwrap();
        tenant
            .0
            .fault("change", json!({"what": "status", "status": 403, "code": "Authorization_RequestDenied"}), 1)
            .unwrap();
        let parked = world.fails(5, &["rotate", "App"]);
        assert_eq!(parked["state"], "parked", "{parked}");
        assert!(parked["error"].as_str().unwrap().contains("whose answer was lost"), "{parked}");
        assert!(parked["hint"].as_str().unwrap().contains("--unverified"), "{parked}");
        let staged = world.staged("App");
        assert!([&before, &staged[0]].into_iter().any(|password| tenant.accepts("app", password)));
        if chosen.is_empty() {
            // The right is back: what is sent again is the same.
            world.ok(&["recover"]);
            assert_eq!(world.password("App"), staged[0]);
        } else {
            assert_ne!(world.run(&["resolve", "App", "--use", chosen]).status, 0, "proven by nobody");
            world.ok(&["resolve", "App", "--use", chosen, "--unverified"]);
        }
        assert!(tenant.accepts("app", &world.password("App")), "{lost}");
        world.nothing_is_open();
        rotates(&tenant, &world, "App", "app");
    }
}

#[test]
fn a_redirect_is_never_followed_with_what_is_secret() {
    let (tenant, world) = Tenant::with_app();
    let elsewhere = Tenant::start(&promises::NAMES);
    elsewhere.create("app", OLD);
    let to = format!("https://127.0.0.1:{}", elsewhere.port());
    // Even a service whose certificate is believed is somebody else.
    world.ok(&["edit", "App", "--set", "turnlock:tls=require"]);
    for status in [301, 302, 303, 307, 308] {
        for at in ["token", "user"] {
            let redirect = json!({"what": "redirect", "status": status, "to": format!("{to}/v1.0/users/app")});
            tenant.0.fault(at, redirect, 1).unwrap();
            refuses(&tenant, &world, "unsupported", &["sends us to 127.0.0.1", "not followed"]);
        }
        tenant
            .0
            .fault("change", json!({"what": "redirect", "status": status, "to": format!("{to}/v1.0/users/app")}), 1)
            .unwrap();
        rotates(&tenant, &world, "App", "app");
    }
    assert_eq!(elsewhere.log(), "ready\n", "somebody else was spoken to");
    assert!(elsewhere.accepts("app", OLD));
}

#[test]
fn what_is_no_answer_is_said_to_be_none() {
    let (tenant, world) = Tenant::with_app();
    for (fault, words) in [
        (json!({"what": "body", "body": "<html>please log in to this hotel</html>"}), "not with a token"),
        (json!({"what": "body", "body": "{}"}), "not with a token"),
        (json!({"what": "body", "body": r#"{"token_type": "mac", "access_token": "x"}"#}), "not with a token"),
        (json!({"what": "body", "body": "[1, 2", "status": 400}), "nothing that it is known for"),
        (json!({"what": "huge", "bytes": 3_000_000}), "more than 1 MiB"),
    ] {
        tenant.0.fault("token", fault, 1).unwrap();
        refuses(&tenant, &world, "unsupported", &[words, "Entra ID"]);
    }
    for at in ["user", "change"] {
        tenant.0.fault(at, json!({"what": "huge", "bytes": 3_000_000}), 1).unwrap();
        if at == "user" {
            refuses(&tenant, &world, "unsupported", &["more than 1 MiB", "Microsoft Graph"]);
        } else {
            rotates(&tenant, &world, "App", "app");
        }
    }
    // A token that no header can hold, and one that Graph does not take.
    let odd = json!({"token_type": "Bearer", "access_token": "a\nb"});
    tenant.0.fault("token", json!({"what": "body", "body": odd.to_string()}), 1).unwrap();
    refuses(&tenant, &world, "unsupported", &["no header can"]);
    tenant.0.set(json!({"lifetime": -1})).unwrap();
    refuses(&tenant, &world, "authentication", &["InvalidAuthenticationToken", "graph_endpoint"]);
}

/// Someone between us and the service repeats what it was told.
#[test]
fn a_service_that_repeats_our_secrets_is_not_quoted() {
    let (tenant, world) = Tenant::with_app();
    let echo =
        json!({"error": "invalid_client", "error_codes": [1], "error_description": format!("you said {SECRET}")});
    tenant.0.fault("token", json!({"what": "body", "status": 401, "body": echo.to_string()}), 1).unwrap();
    let refused = refuses(&tenant, &world, "authentication", &["you said"]);
    assert!(!refused.to_string().contains(SECRET), "{refused}");
    let echo = json!({"error": {"code": "accessDenied", "message": "Bearer eyJhbGciOiJub25lIn0.eyJhIjoxfQ.x"}});
    tenant.0.fault("change", json!({"what": "body", "status": 403, "body": echo.to_string()}), 1).unwrap();
    let refused = refuses(&tenant, &world, "permission", &["accessDenied"]);
    assert!(!refused.to_string().contains("eyJ"), "{refused}");
}

#[test]
fn the_authentication_methods_reset_is_waited_for() {
    let (tenant, world) = Tenant::with_app();
    world.ok(&["edit", "App", "--set", "turnlock:azure_reset=authentication-methods"]);
    refuses(&tenant, &world, "permission", &["UserAuthenticationMethod.ReadWrite.All"]);
    let rights = json!({"permissions": ["UserAuthenticationMethod.ReadWrite.All", "User.Read.All"]});
    tenant.0.set_application(APPLICATION, rights).unwrap();
    assert!(world.ok(&["check", "App"]).stdout.contains("has to change the password"));
    rotates(&tenant, &world, "App", "app");
    assert_eq!(tenant.0.user("app", "must_change").unwrap(), true);
    // One that ends badly, or never, is not taken for done.
    let failed = json!({"id": "1", "status": "failed", "statusDetail": "the domain refused it"});
    tenant.0.fault("operation", json!({"what": "body", "body": failed.to_string()}), 2).unwrap();
    let open = world.fails(5, &["rotate", "App"]);
    assert!(open.to_string().contains("the domain refused it"), "{open}");
    world.ok(&["recover"]);
    assert!(tenant.accepts("app", &world.password("App")));
    tenant.0.set(json!({"polls": 1000})).unwrap();
    let open = world.fails(5, &["rotate", "App", "--timeout", "3"]);
    assert_eq!(open["state"], "unknown", "{open}");
    tenant.0.set(json!({"polls": 0})).unwrap();
    world.ok(&["recover"]);
    assert!(tenant.accepts("app", &world.password("App")));
}

/// The service is held with the change in its hands, and the whole machine goes away.
#[test]
fn a_change_in_flight_when_everything_dies_is_sent_again() {
    let (tenant, world) = Tenant::with_app();
    tenant.0.fault("change", json!({"what": "hold"}), 1).unwrap();
    let running = world.start(&["rotate", "App", "-o", "json"]);
    wait_until("the change to arrive", Duration::from_secs(30), || {
        tenant.log().contains("fault at change: hold").then_some(())
    })
    .unwrap();
    let staged = world.staged("App");
    let rotator = running.rotator();
    running.signal("KILL");
    process::signal(rotator, "KILL");
    assert_eq!(running.end().status, 128 + 9);
    tenant.0.heal().unwrap();
    world.ok(&["recover"]);
    assert_eq!([world.password("App")], staged[..]);
    assert!(tenant.accepts("app", &staged[0]) && !tenant.accepts("app", OLD));
    world.nothing_is_open();
}

/// What one-shot mode is told.
fn one_shot(tenant: &Tenant) -> Value {
    let place = format!("https://127.0.0.1:{}", tenant.port());
    json!({
        "account": {
            "login": "app", "azure_tenant_id": TENANT, "login_endpoint": place, "graph_endpoint": place,
            "ca": tenant.ca().display().to_string(),
        },
        "admin": {"login": APPLICATION, "credential": {"client_secret": SECRET}},
    })
}

/// Alone, in a script: the candidate comes first, and the last line says that it was not proven.
#[test]
fn without_an_orchestrator_it_says_that_nothing_was_proven() {
    let (tenant, world) = Tenant::with_app();
    let mut rotate = world.turnlock.program("turnlock-azureadpwd", &["rotate"]).unwrap();
    let output = process::run(&mut rotate, one_shot(&tenant).to_string().as_bytes()).unwrap();
    assert_eq!((output.status, output.stderr.as_str()), (0, ""), "{}", output.stdout);
    let lines = world::lines(&output.stdout);
    let password = lines[0]["candidate"]["password"].as_str().unwrap();
    assert_eq!((&lines[1]["rotated"], &lines[1]["verified"]), (&json!(true), &json!(false)));
    assert!(tenant.accepts("app", password) && !tenant.accepts("app", OLD));
}

/// Every line that the program and its libraries can log, at the most talkative level.
#[test]
fn no_secret_is_in_any_log_line_of_any_library() {
    let (tenant, world) = Tenant::with_app();
    let certificate = ApplicationCertificate::new().unwrap();
    let mut seen = 0;
    for with in ["secret", "certificate", "wrong secret", "cut", "refused"] {
        let mut params = one_shot(&tenant);
        let secret = if with == "wrong secret" { "canary+WRONG/77=Yellow%Bird" } else { SECRET };
        params["admin"]["credential"] = json!({"client_secret": secret});
        params["next"] = json!({"password": "canary+NEW/9c1=Yellow%Bird"});
        match with {
            "certificate" => {
                tenant.0.set_application(APPLICATION, json!({"certificate": certificate.certificate})).unwrap();
                params["admin"]["credential"] = json!({"certificate": certificate.pem()});
            }
            "cut" => tenant.0.fault("change", json!({"what": "cut after"}), 1).unwrap(),
            "refused" => {
                tenant.0.fault("change", json!({"what": "status", "status": 403, "code": "accessDenied"}), 1).unwrap()
            }
            _ => {}
        }
        for operation in ["check", "apply"] {
            let mut program = world.turnlock.program("examples/azureadpwd-talkative", &[operation]).unwrap();
            let output = process::run(&mut program, params.to_string().as_bytes()).unwrap();
            seen +=
                output.stderr.lines().filter(|line| line.starts_with("TRACE ") || line.starts_with("DEBUG ")).count();
            let key_line = certificate.key.lines().nth(3).unwrap();
            for canary in [secret, "canary+", "Yellow", "%2BNEW", "eyJ", "Bearer", key_line] {
                let lines = output.stderr.lines().chain(output.stdout.lines());
                let found: Vec<&str> = lines.filter(|line| line.contains(canary)).collect();
                assert!(found.is_empty(), "{with}, {operation}: {canary} in {found:?}");
            }
        }
    }
    assert!(seen > 50, "only {seen} lines were logged: the sweep proves nothing");
}

/// A proxy sees where we go and nothing else; it is used where the environment names one.
#[test]
fn a_proxy_is_asked_for_the_way_only() {
    let (tenant, world) = Tenant::with_app();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    let heard = std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let mut heard = [0; 4096];
        let length = connection.read(&mut heard).unwrap();
        connection.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").unwrap();
        String::from_utf8_lossy(&heard[..length]).into_owned()
    });
    let check = |no_proxy: &str| {
        let mut check = world.command(&["check", "App", "-o", "json"]);
        check.env("HTTPS_PROXY", &proxy).env("NO_PROXY", no_proxy);
        process::run(&mut check, b"").unwrap()
    };
    let around = check("127.0.0.1");
    assert_eq!(around.status, 0, "{}{}", around.stdout, around.stderr);
    let refused = check("");
    assert!(refused.status == 3 && refused.stdout.contains(r#""unreachable""#), "{}", refused.stdout);
    let heard = heard.join().unwrap();
    assert!(heard.starts_with(&format!("CONNECT 127.0.0.1:{} HTTP/1.1", tenant.port())), "{heard}");
    assert!(!heard.contains(SECRET) && !heard.contains("client_secret"), "{heard}");
}

/// The log-in is at one place and Graph at another: each is believed for itself.
#[test]
fn each_service_is_believed_for_itself() {
    let (tenant, world) = Tenant::with_app();
    let stranger = Tenant::start(&promises::NAMES);
    stranger.create("app", OLD);
    let graph = format!("turnlock:graph_endpoint=https://127.0.0.1:{}", stranger.port());
    world.ok(&["edit", "App", "--set", &graph]);
    refuses(&tenant, &world, "tls", &["Microsoft Graph", "`ca`"]);
    assert!(!stranger.log().contains("users"), "{}", stranger.log());
}

/// Graph goes away between the permit and the change: nothing can have been sent.
#[test]
fn a_connection_that_never_was_is_a_definite_answer() {
    let (tenant, world) = Tenant::with_app();
    let proxy = tenant.proxy();
    let graph = format!("turnlock:graph_endpoint=https://127.0.0.1:{}", proxy.port());
    world.ok(&["edit", "App", "--set", &graph]);
    rotates(&tenant, &world, "App", "app");
    let connections = proxy.connections();
    tenant.0.fault("user", json!({"what": "hold"}), 1).unwrap();
    let running = world.start(&["rotate", "App", "-o", "json"]);
    wait_until("Graph to be asked for the user", Duration::from_secs(30), || {
        (tenant.log().contains("fault at user: hold") && proxy.connections() > connections).then_some(())
    })
    .unwrap();
    // The connection that is open lives on, and the next one is refused.
    proxy.set(Fault::Refuse).unwrap();
    let (old, changes) = (world.password("App"), tenant.changes("app"));
    tenant.0.heal().unwrap();
    let output = running.end();
    let refused = world::error_of(3, &["rotate"], &output);
    assert_eq!((&refused["kind"], &refused["state"]), (&json!("unreachable"), &json!("unchanged")), "{refused}");
    assert_eq!((world.password("App"), tenant.changes("app")), (old, changes));
    world.nothing_is_open();
    proxy.set(Fault::Cut { direction: Direction::ToClient, after: 0 }).unwrap();
    assert_eq!(world.fails(3, &["rotate", "App"])["state"], "unchanged");
}
