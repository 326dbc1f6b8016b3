//! Keeper as the vault: the stand-in for its cloud, the promise with records
//! that lie there, and every way in which it can fail.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a broken expectation of a test program is its failure"
)]

mod world;

use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
    path::PathBuf,
    time::{Duration, Instant},
};

use lab::{
    Ksm, Postgresql, PostgresqlOptions,
    interposer::{Interposer, Kill, MessageDirection, Victim, When},
    process, wait_until,
};
use serde_json::{Value, json};
use world::{World, error_of};

const OLD: &str = "Old-And-Tired-1";
const SOON: Duration = Duration::from_secs(20);
/// How a shell, and the lab, tells of a process that SIGKILL ended.
const KILLED: i32 = 128 + 9;

/// A vault at Keeper, and a home that is one of its devices.
struct Keeper {
    ksm: Ksm,
    world: World,
    folder: String,
}

impl Keeper {
    fn new() -> Self {
        let keeper = Self::unbound();
        keeper.world.ok_with(&["vault", "init", "--token-file", "-"], &keeper.ksm.token().unwrap());
        keeper
    }

    fn unbound() -> Self {
        let ksm = Ksm::start().unwrap();
        let folder = ksm.folder("Infra", None).unwrap();
        let mut world = World::without_vault();
        world.vault = Some(format!("ksm:{}", world.turnlock.home().join("ksm.json").display()));
        let keeper = Self { ksm, world, folder };
        keeper.configure("");
        // What the service's key is has to be known before anything can be asked.
        process::write_file(&keeper.config(), keeper.ksm.server_key().unwrap().to_string()).unwrap();
        keeper
    }

    fn config(&self) -> PathBuf {
        self.world.turnlock.home().join("ksm.json")
    }

    fn configure(&self, more: &str) {
        let ca = self.ksm.ca_path();
        self.world.configure(&format!("[vault]\nca = {ca:?}\n{more}"));
    }

    /// A record without a target behind it.
    fn noop(&self, title: &str) -> String {
        self.put(title, json!([text("cmdr:plugin", "noop")]), json!({}))
    }

    /// A record of the account `app`.
    fn app(&self, title: &str, server: &Postgresql) -> String {
        let url = format!("postgres://127.0.0.1:{}", server.port());
        let ca = server.ca_path().display().to_string();
        self.put(title, json!([text("turnlock:ca", &ca), text("Owner", "the team")]), json!({"url": url}))
    }

    fn put(&self, title: &str, custom: Value, with: Value) -> String {
        let url = with["url"].as_str().map_or(json!([]), |url| json!([url]));
        let data = json!({"title": title, "type": "login", "fields": [
            {"type": "passkey", "value": []}, {"type": "login", "value": ["app"]},
            {"type": "password", "value": [OLD], "complexity": {"length": 24}},
            {"type": "url", "value": url}, {"type": "fileRef", "value": []}, {"type": "oneTimeCode", "value": []}],
            "custom": custom, "notes": "as it was"});
        self.ksm.record(&data, json!({"folder": self.folder})).unwrap()
    }

    /// The password as it lies at Keeper.
    fn password(&self, uid: &str) -> String {
        password_in(&self.ksm.look(uid).unwrap()["data"])
    }

    /// What stands beside the record.
    fn state(&self, uid: &str) -> Value {
        state_in(&self.ksm.look(uid).unwrap()["data"])
    }

    /// Every password that the record holds, wherever it stands in it.
    fn every_password(&self, uid: &str) -> Vec<String> {
        let state = self.state(uid);
        let of = |list: &str, key: &str| -> Vec<String> {
            let all = state[list].as_array().cloned().unwrap_or_default();
            let found = all.iter().filter_map(|one| one.pointer(key)?.as_str().map(str::to_owned));
            found.collect()
        };
        let mut all = vec![self.password(uid)];
        all.extend(of("stage", "/candidate/password"));
        all.extend(of("stage", "/plan/current/password"));
        all.extend(of("history", "/credential/password"));
        all
    }

    /// Nothing is open, at Keeper as in what Turnlock says of it.
    #[track_caller]
    fn settled(&self, uid: &str) {
        let state = self.state(uid);
        for open in ["stage", "lease", "transaction", "pending", "parked"] {
            assert!(state.get(open).is_none(), "{open}: {state}");
        }
        assert_eq!(self.ksm.look(uid).unwrap()["open"], false);
        self.world.nothing_is_open();
    }

    #[track_caller]
    fn agreed(&self, uid: &str, server: &Postgresql) -> String {
        let now = self.password(uid);
        assert!(server.accepts("app", &now).unwrap(), "the server refuses what the vault holds");
        self.settled(uid);
        now
    }
}

fn text(label: &str, value: &str) -> Value {
    json!({"type": "text", "label": label, "value": [value]})
}

fn password_in(data: &Value) -> String {
    let fields = data["fields"].as_array().unwrap();
    let field = fields.iter().find(|field| field["type"] == "password").unwrap();
    field["value"][0].as_str().unwrap().to_owned()
}

fn state_in(data: &Value) -> Value {
    let custom = data["custom"].as_array().unwrap();
    let field = custom.iter().find(|field| field["label"] == "turnlock:state");
    field.map_or(Value::Null, |field| serde_json::from_str(field["value"][0].as_str().unwrap()).unwrap())
}

/// The record as a person sees it: without what stands beside it, and its password.
fn rest_of(data: &Value) -> Value {
    let mut rest = data.clone();
    rest["custom"].as_array_mut().unwrap().retain(|field| field["label"] != "turnlock:state");
    for field in rest["fields"].as_array_mut().unwrap() {
        if field["type"] == "password" {
            field["value"] = json!([]);
        }
    }
    rest
}

fn server() -> Postgresql {
    let server = Postgresql::start(PostgresqlOptions::default()).unwrap();
    server.create_role("app", OLD).unwrap();
    server
}

#[test]
fn the_stand_in_is_what_keepers_own_sdk_takes_it_for() {
    let ksm = Ksm::start().unwrap();
    let infra = ksm.folder("Infra", None).unwrap();
    let below = ksm.folder("Databases", Some(&infra)).unwrap();
    let data = |title: &str| {
        json!({"title": title, "type": "login", "fields": [
            {"type": "login", "value": ["app"]}, {"type": "password", "value": [OLD]}], "custom": [text("k", "v")]})
    };
    let uid = ksm.record(&data("in a folder"), json!({"folder": below})).unwrap();
    let alone = ksm.record(&data("shared alone"), json!({"editable": false})).unwrap();
    let sdk = |question: Value| ksm.through_sdk(&question);
    let read = || password_in(&sdk(json!({"do": "get", "uids": [uid]})).unwrap()[0]["data"]);
    let put = |password: &str, with: Value| {
        let mut question = json!({"do": "password", "uid": uid, "password": password});
        question.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
        sdk(question)
    };

    // Bound by the first request, and from then on by the configuration alone.
    let all = sdk(json!({"do": "get"})).unwrap();
    assert_eq!(all.as_array().unwrap().len(), 2, "{all}");
    ksm.new_client();
    assert_eq!(read(), OLD);
    let one = sdk(json!({"do": "get", "uids": [alone]})).unwrap();
    assert_eq!((&one[0]["title"], &one[0]["editable"]), (&json!("shared alone"), &json!(false)));
    assert_eq!(sdk(json!({"do": "notation", "path": format!("keeper://{uid}/custom_field/k")})).unwrap(), "v");
    let folders = sdk(json!({"do": "folders"})).unwrap();
    assert_eq!(folders[1], json!({"uid": below, "parent": infra, "name": "Databases"}));

    put("New-1", json!({})).unwrap();
    assert_eq!(read(), "New-1");
    let stale = put("New-2", json!({"revision": 1})).unwrap_err().to_string();
    assert!(stale.contains("out_of_sync"), "{stale}");
    let denied = sdk(json!({"do": "password", "uid": alone, "password": "x"})).unwrap_err().to_string();
    assert!(denied.contains("permission_denied"), "{denied}");

    for (reads, meanwhile) in [("visible", "New-3"), ("hidden", "New-1")] {
        ksm.pending(reads).unwrap();
        put("New-3", json!({"transaction": "rotation"})).unwrap();
        assert_eq!(read(), meanwhile);
        let second = put("New-4", json!({})).unwrap_err().to_string();
        assert!(second.contains("a transaction is open"), "{second}");
        sdk(json!({"do": "complete", "uid": uid, "rollback": true})).unwrap();
        assert_eq!(read(), "New-1");
        assert!(sdk(json!({"do": "complete", "uid": uid, "rollback": false})).is_err(), "there is none");
        put("New-3", json!({"transaction": "rotation"})).unwrap();
        assert_eq!(ksm.expire().unwrap(), 1);
        assert_eq!(read(), "New-1");
    }
    put("New-3", json!({"transaction": "rotation"})).unwrap();
    sdk(json!({"do": "complete", "uid": uid, "rollback": false})).unwrap();
    assert_eq!(read(), "New-3");

    let throttled = json!({"error": "throttled", "retry_after": 0.1});
    ksm.fault(json!({"at": "get_secret", "what": "refuse", "status": 403, "body": throttled, "times": 2})).unwrap();
    assert_eq!(read(), "New-3");
    let hint = json!({"error": "key", "key_id": 9, "message": "invalid key id"});
    ksm.fault(json!({"at": "get_secret", "what": "refuse", "status": 401, "body": hint})).unwrap();
    assert_eq!(read(), "New-3");

    ksm.remove_devices().unwrap();
    let removed = sdk(json!({"do": "get"})).unwrap_err().to_string();
    assert!(removed.contains("access_denied"), "{removed}");
}

#[test]
fn a_one_time_token_is_bound_once_and_nothing_of_it_lies_around() {
    let keeper = Keeper::unbound();
    let (ksm, world) = (&keeper.ksm, &keeper.world);
    let uid = keeper.noop("Door");
    let token = ksm.token().unwrap();
    let needed = world.fails(2, &["vault", "init"]);
    assert!(needed["hint"].as_str().unwrap().contains("--token-file"), "{needed}");
    let early = world.fails(3, &["list"]);
    assert!(early["error"].as_str().unwrap().contains("not bound"), "{early}");
    let wrong = world.fails_with(3, &["vault", "init", "--token-file", "-"], "nonsense:!!");
    assert!(wrong["error"].as_str().unwrap().contains("no one-time token"), "{wrong}");

    // The answer to the very request that uses the token up is lost.
    ksm.fault(json!({"at": "get_secret", "what": "cut after"})).unwrap();
    let lost = world.fails_with(3, &["vault", "init", "--token-file", "-"], &token);
    assert!(lost["error"].as_str().unwrap().contains("lost"), "{lost}");
    assert!(fs::read_to_string(keeper.config()).unwrap().contains("privateKey"), "the device's key is kept first");
    ksm.heal().unwrap();
    assert_eq!(world.json(&["list"])[0]["uid"], uid.as_str());
    let config = fs::read_to_string(keeper.config()).unwrap();
    assert_eq!(fs::metadata(keeper.config()).unwrap().permissions().mode() & 0o777, 0o600);
    let secret = token.rsplit(':').next().unwrap();
    assert!(config.contains("appKey") && !config.contains(secret), "the used token is gone");
    let twice = world.fails_with(3, &["vault", "init", "--token-file", "-"], &ksm.token().unwrap());
    assert!(twice["error"].as_str().unwrap().contains("bound already"), "{twice}");
    assert_eq!(fs::read_to_string(keeper.config()).unwrap(), config);

    // The same in base64, and as what systemd hands over, where nothing can be written.
    let packed = world.turnlock.home().join("ksm.b64");
    process::write_file(&packed, base64(config.as_bytes())).unwrap();
    let place = format!("ksm:{}", packed.display());
    assert_eq!(world.json(&["--vault", &place, "list"]).len(), 1);
    let credentials = world.turnlock.home().join("credentials");
    fs::create_dir(&credentials).unwrap();
    fs::copy(keeper.config(), credentials.join("turnlock.vault")).unwrap();
    let mut command = world.command(&["--vault", "ksm:", "rotate", "Door"]);
    command.env("CREDENTIALS_DIRECTORY", &credentials);
    let rotated = process::run(&mut command, b"").unwrap();
    assert_eq!(rotated.status, 0, "{}", rotated.stderr);
    assert_ne!(keeper.password(&uid), OLD);
    let none = world.fails(2, &["--vault", "ksm:", "list"]);
    assert!(none["hint"].as_str().unwrap().contains("turnlock.vault"), "{none}");

    // A hint that another of Keeper's keys is to be used is followed, and kept.
    let mut own: Value = serde_json::from_str(&config).unwrap();
    own.as_object_mut().unwrap().remove("serverPublicKey");
    own["serverPublicKeyId"] = json!("10");
    process::write_file(&keeper.config(), own.to_string()).unwrap();
    ksm.fault(json!({"at": "get_secret", "what": "refuse", "status": 401,
        "body": {"error": "key", "key_id": 9, "message": "invalid key id"}}))
        .unwrap();
    world.fails(3, &["list"]);
    assert!(ksm.log().contains("get_secret with key 10 refuse\n") && ksm.log().contains("get_secret with key 9\n"));
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |chunk: &[u8]| {
        let number = chunk.iter().fold(0u32, |number, byte| number << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        let letter = |at: usize| {
            if at > chunk.len() { '=' } else { char::from(LETTERS[(number >> (18 - 6 * at)) as usize & 63]) }
        };
        (0..4).map(letter).collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}

#[test]
fn a_rotation_is_committed_where_keepers_own_sdk_reads_it() {
    let server = server();
    let keeper = Keeper::new();
    let (ksm, world) = (&keeper.ksm, &keeper.world);
    let uid = keeper.app("App", &server);
    let before = ksm.look(&uid).unwrap()["data"].clone();
    let listed = world.json(&["list"]);
    assert_eq!((&listed[0]["plugin"], &listed[0]["folders"][0]), (&json!("postgresql"), &json!("Infra")));
    ksm.heal().unwrap();
    world.ok(&["rotate", "infra/app"]);

    // One look at everything, to find the record and others of its account; the rest is about the record.
    let requests = ksm.requests().unwrap();
    assert_eq!(requests.iter().filter(|name| *name == "get_folders").count(), 1, "{requests:?}");
    assert!(requests.len() <= 24, "{} requests: {requests:?}", requests.len());
    let new = keeper.agreed(&uid, &server);
    assert_ne!(new, OLD);
    let read = ksm.through_sdk(&json!({"do": "get", "uids": [uid]})).unwrap();
    assert_eq!(password_in(&read[0]["data"]), new);
    assert_eq!(rest_of(&read[0]["data"]), rest_of(&before), "nothing else of the record has changed");
    assert_eq!(world.past("App", "previous"), [OLD]);
    assert!(new.len() == 24, "the record's own rule");
    let shown = world.ok(&["show", "App"]).stdout;
    assert!(!shown.contains("turnlock:state") && !shown.contains(&new), "{shown}");
    // A person changes it in Keeper; it is one of ours to prove and to rotate all the same.
    server.set_password("app", "By-Hand-In-Keeper-1").unwrap();
    ksm.edit(&uid, json!({"fields": {"password": "By-Hand-In-Keeper-1"}, "data": {"notes": "by hand"}})).unwrap();
    world.ok(&["verify", "App"]);
    world.ok(&["rotate", "App"]);
    keeper.agreed(&uid, &server);
    assert_eq!(ksm.look(&uid).unwrap()["data"]["notes"], "by hand");
    assert_eq!(world.past("App", "previous")[0], "By-Hand-In-Keeper-1");
    world.ok(&["audit", "verify"]);
    let audit = world.ok(&["audit", "export"]).stdout;
    assert_eq!(world::lines(&audit).iter().filter(|row| row["what"] == "committed").count(), 2, "{audit}");
    for secret in [OLD, &new, "By-Hand"] {
        assert!(!audit.contains(secret));
    }
}

#[test]
fn what_we_may_not_write_is_refused_before_anything_else() {
    let server = server();
    let keeper = Keeper::new();
    let (ksm, world) = (&keeper.ksm, &keeper.world);
    let uid = keeper.app("App", &server);
    ksm.edit(&uid, json!({"set": {"editable": false}})).unwrap();
    ksm.heal().unwrap();
    let refused = world.fails(2, &["rotate", "App"]);
    assert!(refused["error"].as_str().unwrap().contains("App"), "{refused}");
    let writes = ksm.requests().unwrap().into_iter().filter(|name| !name.starts_with("get_")).count();
    assert_eq!(writes, 0);
    assert!(server.accepts("app", OLD).unwrap());
    assert_eq!(world.json(&["vault", "check"])[0]["read_only"], 1);

    // The same for a folder that is shared to be read only: none of it is begun.
    for title in ["One", "Two"] {
        let uid = keeper.noop(title);
        ksm.edit(&uid, json!({"set": {"editable": false}})).unwrap();
    }
    ksm.heal().unwrap();
    let several = world.run(&["rotate", "--folder", "Infra", "--force", "-o", "json"]);
    assert_eq!(several.status, 6, "{}", several.stderr);
    let told = world::lines(&several.stdout);
    let read_only = |one: &Value| one["error"].as_str().is_some_and(|error| error.contains("read-only in its vault"));
    assert_eq!(told.iter().filter(|one| read_only(one)).count(), 3, "{told:?}");
    assert!(several.stderr.contains("no copy of the vault ksm:"), "{}", several.stderr);
    let writes = ksm.requests().unwrap().into_iter().filter(|name| !name.starts_with("get_")).count();
    assert_eq!(writes, 0);

    // Taken away while the rotation is under way: nothing is lost, and it goes on when it is given back.
    ksm.edit(&uid, json!({"set": {"editable": true}})).unwrap();
    server.set_parameter("synchronous_standby_names", "nobody").unwrap();
    let running = world.start(&["rotate", "App", "-o", "json"]);
    changed_behind(&server);
    ksm.edit(&uid, json!({"set": {"editable": false}})).unwrap();
    server.reset_parameter("synchronous_standby_names").unwrap();
    let error = error_of(4, &["rotate", "App"], &running.end());
    assert_eq!(error["state"], "live", "{error}");
    assert!(keeper.every_password(&uid).iter().any(|one| server.accepts("app", one).unwrap()));
    world.run(&["recover"]);
    assert_eq!(keeper.password(&uid), OLD);
    ksm.edit(&uid, json!({"set": {"editable": true}})).unwrap();
    world.ok(&["recover"]);
    assert_ne!(keeper.agreed(&uid, &server), OLD);
}

/// Waits until the server has made a change that it does not acknowledge.
fn changed_behind(server: &Postgresql) {
    wait_until("a commit to wait for a standby", SOON, || {
        let waiting = server.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep';");
        waiting.is_ok_and(|count| count != "0").then_some(())
    })
    .unwrap();
}

/// A rotation writes: the lease, the stage, the permit, the commit, the lease given back.
const STAGE: u32 = 2;
const COMMIT: u32 = 4;

#[test]
fn a_vault_that_is_down_at_stage_leaves_the_target_alone_and_at_commit_the_candidate_in_the_vault() {
    let server = server();
    let mut keeper = Keeper::new();
    let uid = keeper.app("App", &server);
    let down = |from: u32| json!({"at": "any", "what": "cut before", "number": from, "times": 1000});
    let updates_until = |keeper: &Keeper, write: u32| {
        // The request before which it goes down is counted on a rotation that nothing happens to.
        keeper.ksm.heal().unwrap();
        keeper.world.ok(&["rotate", "App"]);
        keeper.ksm.heal().unwrap();
        keeper.world.ok(&["rotate", "App"]);
        let requests = keeper.ksm.requests().unwrap();
        let updates = requests.iter().enumerate().filter(|(_, name)| *name == "update_secret").map(|(at, _)| at);
        u32::try_from(updates.take(write as usize).last().unwrap() + 1).unwrap()
    };
    let at = updates_until(&keeper, STAGE);
    let before = keeper.agreed(&uid, &server);
    keeper.ksm.heal().unwrap();
    keeper.ksm.fault(down(at)).unwrap();
    let error = keeper.world.fails(3, &["rotate", "App"]);
    assert_eq!(error["state"], "unchanged", "{error}");
    assert!(server.accepts("app", &before).unwrap());
    keeper.ksm.heal().unwrap();

    let at = updates_until(&keeper, COMMIT);
    let before = keeper.agreed(&uid, &server);
    keeper.ksm.heal().unwrap();
    keeper.ksm.fault(down(at)).unwrap();
    let error = keeper.world.fails(4, &["rotate", "App"]);
    assert_eq!(error["state"], "live", "{error}");
    assert!(error["hint"].as_str().unwrap().contains("turnlock recover"), "{error}");
    assert!(!server.accepts("app", &before).unwrap());
    keeper.ksm.heal().unwrap();
    let candidate = keeper.state(&uid)["stage"][0]["candidate"]["password"].as_str().unwrap().to_owned();
    assert!(server.accepts("app", &candidate).unwrap());

    // As long as it is down, nothing is made worse; a killed service comes back with what it held.
    keeper.ksm.stop().unwrap();
    let error = keeper.world.fails(3, &["rotate", "App"]);
    assert!(error["error"].as_str().unwrap().contains("cannot be reached"), "{error}");
    keeper.ksm.restart().unwrap();
    assert_eq!(keeper.world.run(&["status"]).status, 3);
    keeper.world.ok(&["recover"]);
    assert_eq!(keeper.agreed(&uid, &server), candidate);
}

#[test]
fn lost_answers_and_refusals_at_every_write_lose_nothing() {
    let server = server();
    let keeper = Keeper::new();
    let (ksm, world) = (&keeper.ksm, &keeper.world);
    let uid = keeper.app("App", &server);
    world.ok(&["rotate", "App"]);
    let mut rounds = 0;
    let conflict = json!({"error": "out_of_sync", "message": "somebody was faster"});
    for reads in ["visible", "hidden"] {
        ksm.pending(reads).unwrap();
        // Five updates and one end of a transaction, which is all that reads may tell differently.
        for number in if reads == "visible" { 1..=6 } else { 4..=5 } {
            for fault in [
                json!({"what": "cut before"}),
                json!({"what": "cut after"}),
                json!({"what": "refuse", "status": 500, "body": {"error": "oops"}}),
                json!({"what": "refuse", "status": 400, "body": conflict}),
            ] {
                let round = format!("{fault} at write {number}, {reads}");
                let mut order = json!({"at": "write", "number": number});
                order.as_object_mut().unwrap().extend(fault.as_object().unwrap().clone());
                ksm.heal().unwrap();
                ksm.fault(order).unwrap();
                let before = keeper.password(&uid);
                let ended = world.run(&["rotate", "App"]);
                assert_eq!(ended.status, 0, "{round}: {}", ended.stderr);
                let now = keeper.password(&uid);
                assert!(now != before && server.accepts("app", &now).unwrap(), "{round}");
                assert!(keeper.every_password(&uid).contains(&before), "{round}: the old one is in the history");
                let state = keeper.state(&uid);
                assert!(state.get("stage").is_none() && state.get("lease").is_none(), "{round}: {state}");
                rounds += 1;
            }
        }
    }
    assert_eq!(rounds, 32);
    ksm.heal().unwrap();
    keeper.settled(&uid);
}

#[test]
fn a_person_who_edits_meanwhile_loses_nothing_and_is_told_what_cannot_go_together() {
    let server = server();
    let keeper = Keeper::new();
    let (ksm, world) = (&keeper.ksm, &keeper.world);
    let uid = keeper.app("App", &server);
    server.set_parameter("synchronous_standby_names", "nobody").unwrap();
    let running = world.start(&["rotate", "App"]);
    changed_behind(&server);
    ksm.edit(&uid, json!({"data": {"title": "Renamed", "notes": "meanwhile"}})).unwrap();
    server.reset_parameter("synchronous_standby_names").unwrap();
    let ended = running.end();
    assert_eq!(ended.status, 0, "{}", ended.stderr);
    let new = keeper.agreed(&uid, &server);
    let data = ksm.look(&uid).unwrap()["data"].clone();
    assert_eq!((&data["title"], &data["notes"]), (&json!("Renamed"), &json!("meanwhile")));

    server.set_parameter("synchronous_standby_names", "nobody").unwrap();
    let running = world.start(&["rotate", "Renamed", "-o", "json"]);
    changed_behind(&server);
    ksm.edit(&uid, json!({"fields": {"password": "By-Somebody-Else-1"}})).unwrap();
    server.reset_parameter("synchronous_standby_names").unwrap();
    let error = error_of(5, &["rotate", "Renamed"], &running.end());
    assert_eq!(error["state"], "parked", "{error}");
    let held = keeper.every_password(&uid);
    assert!(held.contains(&"By-Somebody-Else-1".to_owned()) && held.contains(&new));
    assert_eq!(world.run(&["status"]).status, 3);
    world.ok(&["resolve", "Renamed", "--use", "candidate"]);
    keeper.agreed(&uid, &server);
    assert!(world.past("Renamed", "previous").contains(&"By-Somebody-Else-1".to_owned()));
}

#[test]
fn a_service_that_asks_to_slow_down_is_obeyed_and_may_be_given_up() {
    let keeper = Keeper::new();
    let (ksm, world) = (&keeper.ksm, &keeper.world);
    let uid = keeper.noop("Door");
    let slow = |seconds: f64| json!({"error": "throttled", "retry_after": seconds});
    ksm.heal().unwrap();
    ksm.fault(json!({"at": "write", "what": "refuse", "status": 403, "body": slow(0.2), "times": 2, "number": 2}))
        .unwrap();
    let rotated = world.ok(&["rotate", "Door"]);
    assert!(rotated.stderr.contains("slow down"), "{}", rotated.stderr);
    keeper.settled(&uid);
    let before = keeper.password(&uid);

    ksm.heal().unwrap();
    ksm.fault(json!({"at": "write", "what": "refuse", "status": 403, "body": slow(60.0), "times": 9, "number": 2}))
        .unwrap();
    let began = Instant::now();
    let running = world.start(&["rotate", "Door"]);
    wait_until("the service to ask to slow down", SOON, || {
        ksm.requests().unwrap().iter().filter(|name| *name == "update_secret").nth(1).map(|_| ())
    })
    .unwrap();
    running.signal("INT");
    let ended = running.end();
    assert_eq!(ended.status, 130, "{}", ended.stderr);
    assert!(ended.stderr.contains("interrupted"), "{}", ended.stderr);
    assert!(began.elapsed() < Duration::from_secs(50));
    assert_eq!(keeper.password(&uid), before);
    ksm.heal().unwrap();
    world.ok(&["rotate", "Door"]);
    keeper.settled(&uid);
}

#[test]
fn several_records_of_one_account_are_committed_together_or_settled_together() {
    let server = server();
    let keeper = Keeper::new();
    let (ksm, world) = (&keeper.ksm, &keeper.world);
    let (uid, twin) = (keeper.app("App", &server), keeper.app("Twin", &server));
    let refused = world.fails(2, &["rotate", "App"]);
    assert!(refused["hint"].as_str().unwrap().contains("--with-duplicates"), "{refused}");
    world.ok(&["rotate", "App", "--with-duplicates"]);
    let new = keeper.agreed(&uid, &server);
    assert_eq!(keeper.agreed(&twin, &server), new);
    assert_eq!(
        (world.past("App", "previous"), world.past("Twin", "previous")),
        (vec![OLD.to_owned()], vec![OLD.to_owned()])
    );

    // The first of the two commits is made, and then the service is gone.
    ksm.heal().unwrap();
    world.ok(&["rotate", "App", "--with-duplicates"]);
    let requests = ksm.requests().unwrap();
    let first = requests.iter().position(|name| name == "finalize_secret_update").unwrap() + 3;
    let before = keeper.agreed(&uid, &server);
    ksm.heal().unwrap();
    ksm.fault(json!({"at": "any", "what": "cut before", "number": first, "times": 1000})).unwrap();
    let error = world.fails(4, &["rotate", "App", "--with-duplicates"]);
    assert_eq!(error["state"], "live", "{error}");
    ksm.heal().unwrap();
    assert_eq!(keeper.password(&uid), before);
    let live = keeper.password(&twin);
    assert!(live != before && server.accepts("app", &live).unwrap());
    world.ok(&["recover"]);
    assert_eq!((keeper.agreed(&uid, &server), keeper.agreed(&twin, &server)), (live.clone(), live));
    let times = world.past("Twin", "previous").into_iter().filter(|one| *one == before).count();
    assert_eq!(times, 1, "a commit that is made again remembers what it replaced once");
}

#[test]
fn a_run_that_was_paused_past_its_lease_is_fenced_by_the_records_revision() {
    let server = server();
    let keeper = Keeper::new();
    let (ksm, world) = (&keeper.ksm, &keeper.world);
    let uid = keeper.app("App", &server);
    server.set_parameter("synchronous_standby_names", "nobody").unwrap();
    let paused = world.start(&["rotate", "App", "--timeout", "2", "-o", "json"]);
    changed_behind(&server);
    paused.signal("STOP");
    let theirs = keeper.state(&uid)["stage"][0]["candidate"]["password"].as_str().unwrap().to_owned();
    server.reset_parameter("synchronous_standby_names").unwrap();
    let busy = world.fails(3, &["rotate", "App"]);
    assert!(busy["hint"].as_str().unwrap().contains("--wait"), "{busy}");
    let taken = world.start(&["rotate", "App", "--wait", "--timeout", "2"]).end();
    assert_eq!(taken.status, 0, "{}", taken.stderr);
    let new = keeper.agreed(&uid, &server);
    assert_ne!(new, theirs);
    assert_eq!(world.past("App", "previous"), [theirs.as_str(), OLD]);
    let before = ksm.look(&uid).unwrap();
    paused.signal("CONT");
    let overtaken = error_of(5, &["rotate", "App"], &paused.end());
    assert_eq!(overtaken["state"], "unknown", "{overtaken}");
    assert_eq!(ksm.look(&uid).unwrap(), before, "it has written nothing");
}

#[test]
fn a_transaction_that_somebody_left_open_or_that_ran_out_is_no_copy_of_anything() {
    let server = server();
    let keeper = Keeper::new();
    let (ksm, world) = (&keeper.ksm, &keeper.world);
    let uid = keeper.app("App", &server);
    for reads in ["visible", "hidden"] {
        for expires in [false, true] {
            let round = format!("{reads}, runs out: {expires}");
            ksm.pending(reads).unwrap();
            ksm.heal().unwrap();
            let before = keeper.password(&uid);
            // The service takes the commit, and is gone before it is made final.
            let gone = json!({"at": "finalize_secret_update", "what": "cut before", "times": 1000});
            ksm.fault(gone).unwrap();
            let ended = world.run(&["rotate", "App"]);
            assert!([3, 4, 5].contains(&ended.status), "{round}: {}", ended.stderr);
            // One that does not show is rolled back by whoever finds it in the way.
            assert_eq!(ksm.look(&uid).unwrap()["open"], reads == "visible", "{round}");
            if expires {
                assert_eq!(ksm.expire().unwrap(), u64::from(reads == "visible"), "{round}");
            }
            ksm.heal().unwrap();
            assert!(keeper.every_password(&uid).iter().any(|one| server.accepts("app", one).unwrap()), "{round}");
            assert_eq!(world.run(&["status"]).status, 3, "{round}");
            world.ok(&["recover"]);
            assert_ne!(keeper.agreed(&uid, &server), before, "{round}");
        }
    }
}

#[test]
fn hooks_are_owed_in_the_record_and_told_from_any_device() {
    let keeper = Keeper::new();
    let (ksm, world) = (&keeper.ksm, &keeper.world);
    let directory = world.turnlock.config_directory().join("turnlock/hooks");
    fs::create_dir_all(&directory).unwrap();
    let (hook, told) = (directory.join("tell"), world.turnlock.home().join("told"));
    let write = |text: String| {
        process::write_file(&hook, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    };
    write("exit 3".to_owned());
    let path = hook.display().to_string();
    let uid = keeper.put("Door", json!([text("cmdr:plugin", "noop"), text("turnlock:hook", &path)]), json!({}));
    let rotated = world.json(&["rotate", "Door"]).remove(0);
    assert_eq!((&rotated["outcome"], &rotated["hooks_open"]), (&json!("rotated"), &json!(true)), "{rotated}");
    let owed = keeper.state(&uid)["untold"].clone();
    assert!(owed.is_object(), "{owed}");
    assert_eq!(world.run(&["status"]).status, 3);

    // Another device finds it in the record, and once told it is owed no more.
    let own = fs::read(keeper.config()).unwrap();
    process::write_file(&keeper.config(), ksm.server_key().unwrap().to_string()).unwrap();
    world.ok_with(&["vault", "init", "--token-file", "-"], &ksm.token().unwrap());
    assert_ne!(fs::read(keeper.config()).unwrap(), own);
    write(format!("cat > {}", told.display()));
    world.ok(&["recover"]);
    let said = fs::read_to_string(&told).unwrap();
    let document: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(document["data"]["title"], "Door", "{said}");
    assert!(!said.contains(&keeper.password(&uid)));
    assert!(keeper.state(&uid).get("untold").is_none());
    keeper.settled(&uid);
}

#[test]
fn a_daemon_rotates_what_is_due_once_and_says_that_no_copy_is_made() {
    let server = server();
    let keeper = Keeper::new();
    let world = &keeper.world;
    let ca = server.ca_path().display().to_string();
    let url = format!("postgres://127.0.0.1:{}", server.port());
    let due = [text("turnlock:ca", &ca), text("turnlock:schedule", "every 30d spread 1s")];
    let uid = keeper.put("App", json!(due), json!({"url": url}));
    // Nobody knows how old it is; what comes by the calendar waits for its day.
    let later =
        keeper.put("Door", json!([text("cmdr:plugin", "noop"), text("turnlock:schedule", "0 3 1 1 *")]), json!({}));

    let socket = world.turnlock.home().join("notified");
    let notified = UnixDatagram::bind(&socket).unwrap();
    notified.set_nonblocking(true).unwrap();
    let mut command = world.command(&["daemon"]);
    command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "60000000");
    let daemon = world::Running::start(&mut command, "");
    wait_until("a rotation", SOON, || (keeper.password(&uid) != OLD).then_some(())).unwrap();
    let mut buffer = [0; 4096];
    wait_until("its next turn", SOON, || {
        let length = notified.recv(&mut buffer).ok()?;
        let text = String::from_utf8_lossy(&buffer[..length]);
        (text.contains("0 at work, 2 ahead") && keeper.state(&uid).get("lease").is_none()).then_some(())
    })
    .unwrap();
    daemon.signal("TERM");
    let ended = daemon.end();
    assert_eq!(ended.status, 0, "{}", ended.stderr);
    assert_eq!(ended.stderr.matches("no copy of the vault ksm:").count(), 1, "{}", ended.stderr);
    keeper.agreed(&uid, &server);
    assert_eq!(world.past("App", "previous"), [OLD], "once");
    assert_eq!(keeper.password(&later), OLD);
    let rest = world.json(&["due", "--all"]);
    assert!(rest.iter().all(|one| one["overdue"] == false), "{rest:?}");
}

#[test]
fn records_are_added_edited_and_imported_as_keeper_keeps_them() {
    let keeper = Keeper::new();
    let (ksm, world) = (&keeper.ksm, &keeper.world);
    ksm.folder("Databases", Some(&keeper.folder)).unwrap();
    let untyped = world.fails(3, &["add", "Old", "--login", "x"]);
    assert!(untyped["error"].as_str().unwrap().contains("typed records only"), "{untyped}");
    let add =
        ["add", "New", "--type", "login", "--login", "me", "--set", "cmdr:plugin=noop", "--folder", "Infra/Databases"];
    let uid = world.json(&add)[0]["record"].as_str().unwrap().to_owned();
    let read = ksm.through_sdk(&json!({"do": "get", "uids": [uid]})).unwrap();
    assert_eq!(read[0]["title"], "New");
    assert_eq!(world.json(&["list"])[0]["folders"][0], "Infra/Databases");
    world.ok_with(&["edit", "New", "--login", "you", "--password", "-"], "First-One-1");
    world.ok_with(&["edit", "New", "--password", "-"], "Second-One-1");
    assert_eq!(world.past("New", "previous"), ["First-One-1"]);
    world.ok(&["rotate", "New"]);
    keeper.settled(&uid);
    ksm.folder("Else", None).unwrap();
    let unknown = world.fails(3, &["add", "There", "--type", "login", "--folder", "Nowhere"]);
    assert!(unknown["hint"].as_str().unwrap().contains("Infra/Databases"), "{unknown}");
    for verb in [&["vault", "backup", "x.db"][..], &["vault", "rekey", "--new-key-file", "x"], &["vault", "adopt"]] {
        let refused = world.fails(2, verb);
        assert!(refused["hint"].as_str().unwrap().contains("service"), "{verb:?}: {refused}");
    }

    // A state that cannot be read is told, and written over by nobody.
    let broken = ksm.look(&uid).unwrap()["data"]["custom"].clone();
    let custom = json!([text("cmdr:plugin", "noop"), {"type": "secret", "label": "turnlock:state", "value": ["{"]}]);
    ksm.edit(&uid, json!({"data": {"custom": custom}})).unwrap();
    let damaged = world.fails(3, &["rotate", "New"]);
    assert!(damaged["error"].as_str().unwrap().contains("turnlock:state"), "{damaged}");
    assert_eq!(world.run(&["vault", "check"]).status, 3);
    ksm.edit(&uid, json!({"data": {"custom": broken}})).unwrap();
    keeper.settled(&uid);
}

#[test]
fn a_vault_is_copied_with_its_history_and_what_is_open() {
    let server = server();
    let keeper = Keeper::new();
    let (ksm, world) = (&keeper.ksm, &keeper.world);
    let uid = keeper.app("App", &server);
    let door = keeper.noop("Door");
    ksm.edit(&door, json!({"set": {"editable": false}})).unwrap();
    world.ok(&["rotate", "App"]);
    // One rotation is cut off behind its change.
    server.set_parameter("synchronous_standby_names", "nobody").unwrap();
    let running = world.start(&["rotate", "App"]);
    changed_behind(&server);
    running.signal("KILL");
    running.end();
    server.reset_parameter("synchronous_standby_names").unwrap();
    let history = world.history("App");

    let local = World::new();
    let here = local.turnlock.vault().display().to_string();
    let there = world.vault.clone().unwrap();
    let key = local.turnlock.key_file().display().to_string();
    let busy = world.run(&["vault", "copy", &there, &here, "--key-file", &key]);
    assert_eq!(busy.status, 6, "a lease is not the copy's to take: {}{}", busy.stdout, busy.stderr);
    world.ok(&["recover"]);
    let live = keeper.agreed(&uid, &server);
    let rest = world.run(&["vault", "copy", &there, &here, "--key-file", &key]);
    assert_eq!(rest.status, 6, "the other one is there by now: {}{}", rest.stdout, rest.stderr);
    assert!(rest.stdout.contains("1 of 2 records copied"), "{}", rest.stdout);
    assert_eq!(local.password("App"), live);
    assert!(local.history("App").len() > history.len());
    assert_eq!(local.password("Door"), OLD);
    local.ok(&["rotate", "App"]);
    let newest = local.password("App");
    assert!(server.accepts("app", &newest).unwrap());

    // Back, into another vault at Keeper; its UID is the same there.
    let other = Keeper::new();
    let back = other.world.vault.clone().unwrap();
    let copied = other.world.json(&["vault", "copy", &here, &back, "--key-file", &key]);
    assert_eq!(copied.last().unwrap()["copied"], 2, "{copied:?}");
    assert_eq!(other.password(&uid), newest);
    assert_eq!(rest_of(&other.ksm.look(&uid).unwrap()["data"]), rest_of(&ksm.look(&uid).unwrap()["data"]));
    assert_eq!(other.world.history("App"), local.history("App"));
    other.world.ok(&["rotate", "App"]);
    other.agreed(&uid, &server);
    let again = other.world.run(&["vault", "copy", &here, &back, "--key-file", &key]);
    assert_eq!(again.status, 6, "what has a history there is not written over: {}", again.stdout);
}

// ── the crash matrix ────────────────────────────────────────────────────────

/// A vault at Keeper that is put back before every round, and a stand-in that
/// kills at a message of the vault's program or of the rotator.
struct Stage {
    keeper: Keeper,
    uid: String,
    program: PathBuf,
    real: PathBuf,
    interposer: Interposer,
    begin: Value,
}

/// Which conversation is cut.
#[derive(Clone, Copy, PartialEq)]
enum With {
    Vault,
    Rotator(&'static str),
}

impl Stage {
    fn new(keeper: Keeper, uid: String, with: With) -> Self {
        let built = lab::bin("turnlock").unwrap();
        let others = built.parent().unwrap();
        let program = keeper.world.turnlock.own_program(&built).unwrap();
        let plugins = keeper.world.turnlock.plugin_directory();
        let vault = lab::bin("turnlock-vault-ksm").unwrap();
        let (real, interposer) = match with {
            With::Vault => (vault.clone(), Interposer::beside(&program, &vault, None).unwrap()),
            With::Rotator(name) => {
                let rotator = lab::bin(&format!("turnlock-{name}")).unwrap();
                (rotator.clone(), Interposer::install(&plugins, &rotator, None).unwrap())
            }
        };
        keeper.configure(&format!("[rotators]\ndirectories = [{plugins:?}, {others:?}]\n"));
        let begin = keeper.ksm.snapshot().unwrap();
        let stage = Self { keeper, uid, program, real, interposer, begin };
        // Describes the rotators, so that a round's first processes are the rotation's.
        assert_eq!(stage.run(&["list"]).status, 0);
        stage
    }

    fn run(&self, arguments: &[&str]) -> lab::Output {
        let mut command = self.keeper.world.turnlock.program_at(&self.program, arguments);
        command.env("TURNLOCK_VAULT", self.keeper.world.vault.as_ref().unwrap());
        process::run(&mut command, b"").unwrap()
    }

    fn begin_round(&self, kill: Option<Kill>, reset: &dyn Fn()) {
        reset();
        self.keeper.ksm.restore(&self.begin).unwrap();
        self.interposer.configure(&self.real, kill).unwrap();
    }

    /// The messages of a whole round: direction, number, and for requests whether they change something.
    fn measure(&self, reset: &dyn Fn()) -> Vec<(MessageDirection, u64, bool)> {
        self.begin_round(None, reset);
        let before = self.interposer.log().unwrap().len();
        let outcome = self.run(&["rotate", "Crash"]);
        assert_eq!(outcome.status, 0, "{}", outcome.stderr);
        let messages = self.interposer.log().unwrap().split_off(before);
        let writes = ["put", "finalize", "threshold", "apply"];
        let mut writing = false;
        let told = messages.iter().map(|one| {
            if let Some(method) = one.method.as_deref() {
                writing = writes.contains(&method);
            }
            (one.direction, one.number, writing)
        });
        told.collect()
    }

    /// Kills either side around every message: before it, where it is a
    /// request or an answer of something that changes, else at one of the two.
    fn every_message(&self, reset: &dyn Fn(), accepts: &dyn Fn(&str) -> bool, only_writes: bool) -> usize {
        let mut rounds = 0;
        for (direction, number, writing) in self.measure(reset) {
            if !writing && (only_writes || direction == MessageDirection::ToRotator) {
                continue;
            }
            for victim in [Victim::Rotator, Victim::Orchestrator] {
                if victim == Victim::Orchestrator && !writing {
                    // It leaves what it left behind the latest change.
                    continue;
                }
                let kill = Kill { victim, direction, number, when: When::Before };
                let round = format!("{kill:?}");
                self.begin_round(Some(kill), reset);
                let outcome = self.run(&["rotate", "Crash"]);
                assert!(self.interposer.has_killed(), "{round}: nobody was killed");
                if victim == Victim::Orchestrator {
                    assert_eq!(outcome.status, KILLED, "{round}: {}", outcome.stderr);
                }
                self.assert_promise(&round, accepts);
                rounds += 1;
            }
        }
        rounds
    }

    fn assert_promise(&self, round: &str, accepts: &dyn Fn(&str) -> bool) {
        let (keeper, uid) = (&self.keeper, &self.uid);
        assert!(keeper.every_password(uid).iter().any(|one| accepts(one)), "{round}: nothing in the vault opens it");
        let recovered = self.run(&["recover"]);
        assert_eq!(recovered.status, 0, "{round}: recover said {}{}", recovered.stdout, recovered.stderr);
        assert!(accepts(&keeper.password(uid)), "{round}: vault and target do not agree");
        let state = keeper.state(uid);
        for open in ["stage", "transaction", "parked"] {
            assert!(state.get(open).is_none(), "{round}: {open} is left: {state}");
        }
        assert_eq!(keeper.ksm.look(uid).unwrap()["open"], false, "{round}");
    }
}

#[test]
fn killed_at_every_message_of_the_vaults_program() {
    let keeper = Keeper::new();
    keeper.ksm.pending("hidden").unwrap();
    let uid = keeper.noop("Crash");
    let stage = Stage::new(keeper, uid, With::Vault);
    let rounds = stage.every_message(&|| (), &|password| !password.is_empty(), false);
    assert!(rounds >= 40, "{rounds} rounds");
}

#[test]
fn killed_at_every_change_of_the_vault_with_a_real_target() {
    let (server, keeper) = (server(), Keeper::new());
    let uid = keeper.app("Crash", &server);
    let stage = Stage::new(keeper, uid, With::Vault);
    let reset = || server.set_password("app", OLD).unwrap();
    let rounds = stage.every_message(&reset, &|password| server.accepts("app", password).unwrap(), true);
    assert!(rounds >= 20, "{rounds} rounds");
}

#[test]
fn killed_at_every_message_of_the_rotator() {
    let (server, keeper) = (server(), Keeper::new());
    let uid = keeper.app("Crash", &server);
    let stage = Stage::new(keeper, uid, With::Rotator("postgresql"));
    let reset = || server.set_password("app", OLD).unwrap();
    let rounds = stage.every_message(&reset, &|password| server.accepts("app", password).unwrap(), false);
    assert!(rounds >= 10, "{rounds} rounds");
}

/// The service is killed at every change, before and after it is on its disk.
#[test]
fn the_service_is_killed_at_every_change() {
    let (server, keeper) = (server(), Keeper::new());
    let uid = keeper.app("Crash", &server);
    let begin = keeper.ksm.snapshot().unwrap();
    for what in ["cut before", "cut after"] {
        // Five updates and one end of a transaction; from then on nobody answers.
        for number in 1..=6 {
            let round = format!("{what} write {number}");
            keeper.ksm.restore(&begin).unwrap();
            server.set_password("app", OLD).unwrap();
            keeper.ksm.fault(json!({"at": "write", "what": what, "number": number})).unwrap();
            keeper.ksm.fault(json!({"at": "write", "what": "cut before", "number": number, "times": 1000})).unwrap();
            let outcome = keeper.world.run(&["rotate", "Crash"]);
            assert!([0, 3, 4, 5].contains(&outcome.status), "{round}: {}", outcome.stderr);
            keeper.ksm.heal().unwrap();
            let held = keeper.every_password(&uid);
            assert!(held.iter().any(|one| server.accepts("app", one).unwrap()), "{round}");
            keeper.world.ok(&["recover"]);
            assert!(server.accepts("app", &keeper.password(&uid)).unwrap(), "{round}");
            assert!(keeper.state(&uid).get("stage").is_none(), "{round}");
        }
    }
}
