//! The conformance kit, pointed at every rotator there is: ours, the kit's own
//! fixtures, the example in Python, and one that misbehaves.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a broken expectation of a test program is its failure"
)]

mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    thread,
};

use lab::{Postgresql, PostgresqlOptions, bin, process::write_file};
use serde_json::{Value, json};
use world::{World, lines};

/// Every plugin has its folder, and its program beside this one.
fn plugins() -> Vec<String> {
    let rotators = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("rotators");
    let mut plugins: Vec<String> = fs::read_dir(rotators)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|folder| folder.join("src/main.rs").is_file())
        .map(|folder| folder.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    plugins.sort();
    plugins
}

/// What became of every scenario.
struct Tried {
    status: i32,
    findings: BTreeMap<String, Value>,
}

fn test(world: &World, program: &Path, account: Option<&Path>) -> Tried {
    let mut arguments = vec!["plugins", "test", program.to_str().unwrap(), "-o", "json"];
    if let Some(account) = account {
        arguments.extend(["--account", account.to_str().unwrap()]);
    }
    let output = world.run(&arguments);
    let findings = lines(&output.stdout).into_iter();
    let findings: BTreeMap<_, _> =
        findings.map(|finding| (finding["scenario"].as_str().unwrap().to_owned(), finding)).collect();
    assert!(findings.len() > 30, "{}{}", output.stdout, output.stderr);
    Tried { status: output.status, findings }
}

impl Tried {
    fn with_outcome(&self, outcome: &str) -> Vec<&str> {
        let those = self.findings.iter().filter(|(_, finding)| finding["outcome"] == outcome);
        those.map(|(scenario, _)| scenario.as_str()).collect()
    }

    /// Nothing failed, and nothing but this was left out.
    #[track_caller]
    fn passed_all_but(&self, left_out: &[&str]) {
        let failed: Vec<_> = self.findings.values().filter(|finding| finding["outcome"] == "failed").collect();
        assert!(failed.is_empty(), "{failed:#?}");
        assert_eq!(self.status, 0);
        assert_eq!(self.with_outcome("not_tried"), left_out);
    }
}

/// An account's file, and the password that stands in it as the current one.
fn account(world: &World, content: &Value) -> PathBuf {
    let file = world.turnlock.home().join("account.json");
    write_file(&file, content.to_string()).unwrap();
    file
}

fn current(file: &Path) -> Value {
    let content: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    assert_eq!(content.get("next"), None, "nothing is left open");
    content["current"].clone()
}

#[test]
fn every_rotator_of_ours_passes_what_needs_no_account() {
    let plugins = plugins();
    assert!(plugins.len() > 10, "{plugins:?}");
    let world = World::without_vault();
    for plugin in plugins {
        let tried = test(&world, &bin(&format!("turnlock-{plugin}")).unwrap(), None);
        let failed: Vec<_> = tried.findings.values().filter(|finding| finding["outcome"] == "failed").collect();
        assert!(failed.is_empty(), "{plugin}: {failed:#?}");
        assert_eq!((tried.status, tried.with_outcome("passed").len()), (0, 17), "{plugin}");
    }
}

#[test]
fn noop_passes_with_an_account() {
    let world = World::without_vault();
    let file = account(&world, &json!({"account": {"login": "door code"}}));
    let tried = test(&world, &bin("turnlock-noop").unwrap(), Some(&file));
    tried.passed_all_but(&["finish", "not-staged", "verify"]);
    assert!(current(&file)["password"].is_string());
}

#[test]
fn postgresql_passes_on_a_real_server() {
    let server = Postgresql::start(PostgresqlOptions::default()).unwrap();
    server.create_role("app", "Canary-Old-11").unwrap();
    let world = World::without_vault();
    let file = account(
        &world,
        &json!({
            "account": {"host": "127.0.0.1", "port": server.port(), "login": "app", "db": "postgres", "ca": server.ca_path()},
            "current": {"password": "Canary-Old-11"},
        }),
    );
    let tried = test(&world, &bin("turnlock-postgresql").unwrap(), Some(&file));
    tried.passed_all_but(&["finish", "not-staged"]);
    let current = current(&file)["password"].as_str().unwrap().to_owned();
    assert!(server.accepts("app", &current).unwrap());
    assert!(!server.accepts("app", "Canary-Old-11").unwrap());
}

/// Between them the kit's fixtures have everything that a rotator can have, so
/// that no scenario is one that nobody passes.
#[test]
fn every_scenario_is_passed_by_a_fixture() {
    let world = World::without_vault();
    let target = world.turnlock.home().join("target");
    let mut passed = BTreeSet::new();
    for (plugin, held, content, left_out) in [
        (
            "database",
            "Canary-Old-11",
            json!({
                "account": {"login": "app", "target": target, "finish": true},
                "current": {"password": "Canary-Old-11"},
            }),
            &["not-staged"][..],
        ),
        (
            "awskey",
            "AKIAOLD Canary-Old-11 used 90\n",
            json!({
                "account": {"login": "app", "target": target},
                "current": {"access_key_id": "AKIAOLD", "secret_access_key": "Canary-Old-11"},
            }),
            &["apply-twice", "cancel-behind-permit", "end-behind-permit", "garbage-behind-permit"],
        ),
    ] {
        let program = world.turnlock.plugin_directory().join(format!("turnlock-{plugin}"));
        fs::copy(bin("kit-fixture").unwrap(), &program).unwrap();
        write_file(&target, held).unwrap();
        let file = account(&world, &content);
        let tried = test(&world, &program, Some(&file));
        tried.passed_all_but(left_out);
        passed.extend(tried.with_outcome("passed").into_iter().map(str::to_owned));
        assert_ne!(current(&file), content["current"]);
    }
    let protocol = include_str!("../PROTOCOL.md").split("\n## Conformance").nth(1).unwrap();
    let scenarios = protocol.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    assert_eq!(passed, scenarios.map(str::to_owned).collect());
}

/// The example for authors, which shares no line with the kit.
#[test]
fn the_example_in_python_passes() {
    let world = World::without_vault();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs/examples/turnlock-dovecot");
    let program = world.turnlock.plugin_directory().join("turnlock-dovecot");
    fs::copy(example, &program).unwrap();
    let users = world.turnlock.home().join("users");
    // The salted hash, in Dovecot's form, of "Canary-Old-11".
    let hash = "{SSHA512}wwwitk6Q3N6e0nWx7iN+e3S1RQfiUH4NPUL8ZXfBe9EDsOjNO/46Y9TCrYEB4HAEQak/gSdI9A0qgsUrPoFRRgobLD0=";
    write_file(&users, format!("other:{{PLAIN}}x:5000:5000::/home/other::\napp:{hash}:5000:5000::/home/app::\n"))
        .unwrap();
    let content = json!({
        "account": {"login": "app", "passwd_file": users},
        "current": {"password": "Canary-Old-11"},
    });
    let file = account(&world, &content);
    let tried = test(&world, &program, Some(&file));
    tried.passed_all_but(&["finish", "not-staged"]);
    assert_ne!(current(&file)["password"], "Canary-Old-11");
    let text = fs::read_to_string(&users).unwrap();
    assert!(text.starts_with("other:{PLAIN}x:5000:5000::/home/other::\napp:{SSHA512}"), "{text}");
    assert!(text.ends_with(":5000:5000::/home/app::\n") && !text.contains(hash), "{text}");
}

/// A kit that finds nothing proves nothing. Each way at the same time, for the
/// kit waits for a rotator that heeds no deadline.
#[test]
fn what_misbehaves_is_found() {
    let first = World::without_vault();
    let misbehaver = first.turnlock.plugin_directory().join("turnlock-misbehaver");
    fs::copy(bin("lab-misbehaver").unwrap(), &misbehaver).unwrap();
    let ways = [
        ("changes-without-asking", &["apply", "permit-refused", "end-before-permit"][..]),
        ("success-without-asking", &["apply", "permit-garbage"][..]),
        ("dies-behind-the-change", &["apply", "apply-twice"][..]),
        ("garbage-behind-the-change", &["apply"][..]),
        ("other-plugin", &["hello"][..]),
    ];
    let found: BTreeSet<String> = thread::scope(|scope| {
        let misbehaver = &misbehaver;
        let tries = ways.map(|(way, scenarios)| scope.spawn(move || found_of(misbehaver, way, scenarios)));
        tries.into_iter().flat_map(|tried| tried.join().unwrap()).collect()
    });
    assert!(found.len() > 10, "{found:?}");
}

/// What fails when the misbehaver behaves in this way; these scenarios must.
fn found_of(misbehaver: &Path, way: &str, scenarios: &[&str]) -> Vec<String> {
    let world = World::without_vault();
    let plugins = world.turnlock.plugin_directory();
    let program = plugins.join("turnlock-misbehaver");
    fs::hard_link(misbehaver, &program).unwrap();
    write_file(&plugins.join("way"), way).unwrap();
    let target = world.turnlock.home().join("target");
    write_file(&target, "Canary-Old-11").unwrap();
    let content = json!({
        "account": {"login": "app", "target": target},
        "current": {"password": "Canary-Old-11"},
    });
    let file = account(&world, &content);
    let tried = test(&world, &program, Some(&file));
    assert_eq!(tried.status, 3, "{way}");
    let failed = tried.with_outcome("failed");
    assert!(scenarios.iter().all(|scenario| failed.contains(scenario)), "{way}: {failed:?}");
    // Whatever it did, the account is not lost.
    let kept = fs::read_to_string(&file).unwrap();
    assert!(kept.contains(&fs::read_to_string(&target).unwrap()), "{way}");
    failed.into_iter().map(str::to_owned).collect()
}
