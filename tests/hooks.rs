//! Hooks: consumers learn of a new credential, once it is committed and
//! whatever is killed, and nobody learns more than it should.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a broken expectation of a test program is its failure"
)]

mod world;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use lab::{
    Receiver, WEBHOOK_KEY, process,
    process::write_file,
    shim::{self, Cut, Shim},
    wait_until,
};
use serde_json::Value;
use world::{Fields, World};

const SOON: Duration = Duration::from_secs(20);
const FIRST: &str = "First-Secret-71";
const KILLED: i32 = 128 + 9;

/// A world with a directory for hooks, and a record without a target.
fn world() -> World {
    let world = World::new();
    fs::create_dir_all(directory(&world)).unwrap();
    world
}

/// Where records may name commands.
fn directory(world: &World) -> PathBuf {
    world.turnlock.config_directory().join("turnlock/hooks")
}

/// Puts a shell script there; gives its path.
fn script(world: &World, name: &str, text: &str) -> String {
    let path = directory(world).join(name);
    write_file(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

fn door(world: &World, hook: &str) {
    let fields = Fields { login: "door".to_owned(), ..Fields::default() }.with("cmdr:plugin=noop");
    world.add("Door", &fields.with(format!("turnlock:hook={hook}")), FIRST);
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The states that `turnlock status` tells of.
fn open(world: &World) -> Vec<String> {
    let status = world.run(&["status", "-o", "json"]);
    assert_eq!(status.status, if status.stdout.is_empty() { 0 } else { 3 }, "{}", status.stderr);
    world::lines(&status.stdout).iter().map(|item| item["state"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_command_is_told_of_the_account_and_of_the_secret_only_where_the_record_says_so() {
    let world = world();
    let told = world.turnlock.home().join("told");
    let text = format!("exec >> {} 2>&1; cat; pwd; ls -A; echo \"$@\"; env; echo; exit 0", told.display());
    let hook = script(&world, "tell", &text);
    door(&world, &format!("{hook}  one two"));
    world.ok(&["rotate", "Door"]);
    world.nothing_is_open();
    let said = read(&told);
    let document: Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
    assert_eq!(document["type"], "credential.rotated");
    for (field, value) in [("title", "Door"), ("plugin", "noop"), ("login", "door"), ("hook", hook.as_str())] {
        assert_eq!(document["data"][field], value, "{said}");
    }
    assert!(document["data"]["secret"].is_null() && document["data"]["verified"] == false, "{said}");
    assert!(!said.contains(&world.password("Door")) && !said.contains(FIRST), "{said}");
    // Nothing but what it is told: an empty directory, its arguments, what the shell itself sets.
    let rest: Vec<&str> = said.lines().skip(1).collect();
    assert!(rest[0].contains("empty") && rest[1] == "one two", "{said}");
    assert!(!said.contains("TURNLOCK") && !said.contains("HOME=") && !said.contains("XDG_"), "{said}");

    fs::remove_file(&told).unwrap();
    world.ok(&["edit", "Door", "--set", "turnlock:hook_secret=true"]);
    world.ok(&["rotate", "Door"]);
    let document: Value = serde_json::from_str(read(&told).lines().next().unwrap()).unwrap();
    assert_eq!(document["data"]["secret"], serde_json::json!({"password": world.password("Door")}));
    // It was told nowhere else.
    let audit = world.ok(&["audit", "export"]).stdout;
    assert!(audit.contains("hooks run") && !audit.contains(&world.password("Door")), "{audit}");
}

#[test]
fn a_hook_that_fails_takes_nothing_back_and_runs_again_alone() {
    let world = world();
    let (well, ill, log) = ("well", "ill", world.turnlock.home().join("log"));
    let well = script(&world, well, &format!("echo well >> {}", log.display()));
    let ill = script(&world, ill, &format!("echo ill >> {}; echo 'no such consumer' >&2; exit 3", log.display()));
    door(&world, &format!("{well}\n{ill}"));
    let rotated = world.ok(&["rotate", "Door", "-o", "json"]);
    let outcome = &world::lines(&rotated.stdout)[0];
    assert_eq!((&outcome["outcome"], &outcome["hooks_open"]), (&"rotated".into(), &true.into()), "{outcome}");
    let warning = outcome["warnings"][0].as_str().unwrap();
    assert!(
        warning.contains(&ill) && warning.contains("status 3") && warning.contains("no such consumer"),
        "{warning}"
    );
    assert_ne!(world.password("Door"), FIRST);
    assert_eq!(open(&world), ["hooks"]);
    let shown = world.run(&["status"]).stdout;
    assert!(shown.contains("turnlock hooks retry") && shown.contains("status 3"), "{shown}");
    // Tried three times, and the one that succeeded once.
    let tries = |what: &str| read(&log).lines().filter(|line| *line == what).count();
    assert_eq!((tries("well"), tries("ill")), (1, 3));

    let refused = world.fails(3, &["hooks", "retry", "Door"]);
    assert_eq!(refused["state"], "committed");
    assert!(refused["hint"].as_str().unwrap().contains("turnlock hooks retry"), "{refused}");
    assert_eq!(world.run(&["recover", "Door"]).status, 3);
    assert_eq!(world.run(&["rotate", "Door", "--strict"]).status, 7);
    script(&world, "ill", &format!("echo mended >> {}", log.display()));
    assert_eq!(world.json(&["hooks", "retry"])[0]["outcome"], "told");
    assert_eq!((tries("well"), tries("mended")), (2, 1), "one for each rotation");
    world.nothing_is_open();
    world.ok(&["hooks", "retry", "Door", "--again"]);
    assert_eq!((tries("well"), tries("mended")), (3, 2));
    // A record whose hook cannot be mended is let go by taking the hook out of it.
    script(&world, "ill", "exit 1");
    world.ok(&["rotate", "Door"]);
    world.ok(&["edit", "Door", "--set", &format!("turnlock:hook={well}")]);
    world.ok(&["recover"]);
    world.nothing_is_open();
    world.ok(&["audit", "verify"]);
}

/// A rotator that leaves something behind, and writes down when that is removed.
const TOY: &str = r#"#!/usr/bin/python3
import json, pathlib, sys
def say(**message):
    print(json.dumps({"jsonrpc": "2.0"} | message), flush=True)
traits = {"origin": "orchestrator", "overlap": "both", "needs_current": True, "admin_reset": False, "verify": "login",
    "lockout_sensitive": False, "lockout_window_ms": 0, "settle_ms": 0, "hosts": "one", "policy_from_target": False, "finish": True}
schema = {"type": "object", "properties": {"login": {"type": "string", "x-turnlock": "account"},
    "password": {"type": "string", "writeOnly": True, "x-turnlock": "write-back"}}}
say(method="hello", params={"protocol": [1], "plugin": "toy", "version": "1", "operations": ["describe", "plan", "check", "apply", "verify", "finish"]})
for line in sys.stdin:
    request = json.loads(line)
    if request["method"] in ("apply", "finish"):
        say(id="t", method="threshold", params={"id": request["id"]})
        assert json.loads(sys.stdin.readline())["result"]["proceed"]
    if request["method"] == "finish":
        with (pathlib.Path(__file__).parent / "log").open("a") as log:
            log.write("finish\n")
    say(id=request["id"], result={
        "describe": {"plugin": "toy", "version": "1", "summary": "A toy.", "schema": schema, "url_schemes": [], "environment": [], "traits": traits},
        "plan": {"traits": traits}, "apply": {}, "verify": {"verdict": "accepted"}, "finish": {"removed": ["it"]},
    }[request["method"]])
"#;

#[test]
fn what_the_old_credential_left_behind_stays_until_all_hooks_have_run() {
    let world = world();
    let plugins = world.turnlock.plugin_directory();
    let (toy, log) = (plugins.join("turnlock-toy"), plugins.join("log"));
    write_file(&toy, TOY).unwrap();
    fs::set_permissions(&toy, fs::Permissions::from_mode(0o755)).unwrap();
    world.configure(&format!("[rotators]\ndirectories = ['{}']\n", plugins.display()));
    let hook = script(&world, "hook", "exit 1");
    let fields = Fields { login: "door".to_owned(), ..Fields::default() }.with("cmdr:plugin=toy");
    world.add("Door", &fields.with(format!("turnlock:hook={hook}")), FIRST);
    let warned = world.ok(&["rotate", "Door"]).stderr;
    assert!(warned.contains("not cleaned up yet") && warned.contains("turnlock hooks retry"), "{warned}");
    assert_eq!((read(&log).as_str(), open(&world)), ("", vec!["hooks".to_owned(), "finishing".to_owned()]));
    assert_eq!(world.run(&["recover"]).status, 3);
    assert_eq!(read(&log), "");
    script(&world, "hook", &format!("echo hook >> {}", log.display()));
    world.ok(&["recover"]);
    assert_eq!(read(&log), "hook\nfinish\n");
    world.nothing_is_open();
    // And where nothing fails, in the same order.
    world.ok(&["rotate", "Door"]);
    assert_eq!(read(&log), "hook\nfinish\nhook\nfinish\n");
    world.nothing_is_open();
}

#[test]
fn a_program_that_others_choose_is_not_run() {
    let world = world();
    let marker = world.turnlock.home().join("ran");
    let text = format!("touch {}", marker.display());
    let good = script(&world, "good", &text);
    let elsewhere = world.turnlock.home().join("elsewhere");
    fs::copy(&good, &elsewhere).unwrap();
    let open_to_all = script(&world, "open", &text);
    fs::set_permissions(&open_to_all, fs::Permissions::from_mode(0o777)).unwrap();
    let plain = script(&world, "plain", &text);
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o644)).unwrap();
    let link = directory(&world).join("link");
    std::os::unix::fs::symlink("/bin/sh", &link).unwrap();
    door(&world, &good);
    for (hook, word) in [
        (elsewhere.to_str().unwrap(), "directories for hooks"),
        (link.to_str().unwrap(), "directories for hooks"),
        ("/bin/sh -c id", "directories for hooks"),
        (&open_to_all, "others may write"),
        (&plain, "is no program"),
        ("/nowhere/at/all", "cannot be run"),
        ("good", "absolute path"),
        ("../hooks/good", "absolute path"),
        ("http://localhost/", "https://"),
    ] {
        world.ok(&["edit", "Door", "--set", &format!("turnlock:hook={hook}")]);
        let listed = world.run(&["hooks", "list", "Door", "-o", "json"]);
        assert_eq!(listed.status, 3, "{hook}: {}", listed.stdout);
        assert!(
            world::lines(&listed.stdout)[0]["problem"].as_str().unwrap().contains(word),
            "{hook}: {}",
            listed.stdout
        );
        let output = world.ok(&["rotate", "Door"]);
        assert!(output.stderr.contains(word), "{hook}: {}", output.stderr);
        assert_eq!(open(&world), ["hooks"]);
    }
    assert!(!marker.exists());
    world.ok(&["edit", "Door", "--set", &format!("turnlock:hook={good}")]);
    world.ok(&["recover"]);
    assert!(marker.exists());
    for wrong in ["[hooks]\nrun = 1\n", "[hooks.global.a]\n", "[hooks.global.a]\nwebhook = 'http://x'\n"] {
        world.configure(wrong);
        let refused = world.fails(2, &["list"]);
        assert!(["turnlock.toml", "hooks.global.a"].iter().any(|word| refused.to_string().contains(word)), "{refused}");
    }
}

#[test]
fn a_hook_that_hangs_is_killed_with_all_that_it_started() {
    let world = world();
    let pids = world.turnlock.home().join("pids");
    let hang = format!("sleep 600 & echo $! >> {}; echo $$ >> {0}; wait", pids.display());
    door(&world, &script(&world, "hang", &hang));
    world.ok(&["edit", "Door", "--set", "turnlock:hook_timeout=1"]);
    let output = world.ok(&["rotate", "Door"]);
    assert!(output.stderr.contains("did not end within 1 s"), "{}", output.stderr);
    assert_eq!(read(&pids).lines().count(), 6);
    for pid in read(&pids).lines() {
        let gone = || (!Path::new("/proc").join(pid).join("exe").exists()).then_some(());
        wait_until("a killed hook to be gone", SOON, gone).unwrap();
    }
    // One that ends and leaves something running, as a restarted service, is not waited for.
    world.ok(&["edit", "Door", "--set", &format!("turnlock:hook={}", script(&world, "leave", "sleep 600 & exit 0"))]);
    world.ok(&["recover"]);
    world.nothing_is_open();
}

/// Killed at every flush with the loss of what was not flushed: whenever the
/// password has changed, the consumer learns the one that is current.
#[test]
fn whatever_is_killed_the_consumer_ends_up_with_the_current_password() {
    let shim = Shim::build().unwrap();
    let mut killed = 0;
    for number in 1.. {
        let world = world();
        let list = world.turnlock.home().join("list");
        let hook = script(&world, "list", &format!("/usr/bin/jq -r .data.secret.password > {}", list.display()));
        door(&world, &hook);
        world.ok(&["edit", "Door", "--set", "turnlock:hook_secret=true"]);
        let (vault, shadow) = (world.turnlock.vault_directory(), world.turnlock.home().join("shadow"));
        let count = world.turnlock.home().join("count");
        let cut = Cut::After(number);
        let environment = shim.environment(&vault, &shadow, Some(cut), &count).unwrap();
        let mut command = world.command(&["rotate", "Door"]);
        let status = process::run(command.envs(environment), b"").unwrap().status;
        if status == 0 {
            break;
        }
        assert_eq!(status, KILLED);
        killed += 1;
        shim::roll_back(&vault, &shadow).unwrap();
        world.ok(&["recover", "--wait"]);
        world.nothing_is_open();
        let password = world.password("Door");
        let known = if password == FIRST { String::new() } else { format!("{password}\n") };
        assert_eq!(read(&list), known, "killed at flush {number}");
    }
    assert!(killed > 5, "{killed} flushes");
}

#[test]
fn a_webhook_is_signed_believed_and_never_told_the_secret() {
    let receiver = Receiver::start(&["localhost"]).unwrap();
    let world = world();
    let secret = receiver.url("T0123/capability");
    let file = |path: &Path| path.to_str().unwrap().to_owned();
    let global = format!("[hooks.global.chat]\nwebhook = '{secret}'\ntimeout = 10\n");
    let signed = format!("key_file = '{}'\n", file(&receiver.key_path()));
    let believed = format!("ca = '{}'\n", file(&receiver.ca_path()));
    world.configure(&format!("{global}{signed}{believed}"));
    let fields = Fields { login: "door".to_owned(), ..Fields::default() }.with("cmdr:plugin=noop");
    world.add("Door", &fields.with("turnlock:hook_secret=true"), FIRST);

    let heard = |count: usize| {
        let heard = receiver.heard().unwrap();
        assert_eq!(heard.len(), count, "{heard:?}");
        heard
    };
    world.ok(&["rotate", "Door"]);
    let one = &heard(1)[0];
    assert_eq!((&one["proven"], &one["path"]), (&true.into(), &"/T0123/capability".into()));
    let body: Value = serde_json::from_str(one["body"].as_str().unwrap()).unwrap();
    assert_eq!((&body["data"]["title"], &body["data"]["hook"]), (&"Door".into(), &"chat".into()));
    assert!(body["data"]["secret"].is_null());
    assert!(!one.to_string().contains(&world.password("Door")) && !one.to_string().contains(FIRST));

    // A receiver that is busy is asked again, as the same message.
    receiver.answer(&["503", "429", "200"]).unwrap();
    world.ok(&["rotate", "Door"]);
    let three = heard(3);
    assert!(three.iter().all(|one| one["id"] == three[0]["id"] && one["proven"] == true), "{three:?}");
    // One that refuses or sends us away is not; neither is followed.
    let elsewhere = format!("to {}", receiver.url("elsewhere"));
    for (answer, word) in [("403", "403"), (elsewhere.as_str(), "not followed")] {
        receiver.answer(&[answer]).unwrap();
        let warned = world.ok(&["rotate", "Door"]).stderr;
        assert!(warned.contains(word) && !warned.contains("T0123"), "{warned}");
        assert_eq!(heard(1)[0]["path"], "/T0123/capability");
    }
    // The address is a secret: no list, log or chain of events shows more than its host.
    let said = [&["status"][..], &["hooks", "list"], &["audit", "export"], &["show", "Door"]]
        .map(|words| world.run(words).stdout);
    assert!(!said.concat().contains("T0123"), "{said:?}");
    receiver.answer(&["204"]).unwrap();
    world.ok(&["hooks", "retry"]);
    heard(1);

    // Somebody else's certificate, or somebody else's name.
    world.configure(&format!("{global}{signed}"));
    let warned = world.ok(&["rotate", "Door"]).stderr;
    assert!(warned.contains("is not believed"), "{warned}");
    world.configure(&format!("{global}{signed}{believed}").replace("localhost", "127.0.0.1"));
    assert!(world.ok(&["rotate", "Door"]).stderr.contains("is not believed"));
    heard(0);

    // A record's own, believed by the system's authorities, signed with a key of the record.
    world.configure("");
    world.ok(&[
        "edit",
        "Door",
        "--set",
        &format!("turnlock:hook={secret}"),
        "--set",
        &format!("turnlock:hook_key={WEBHOOK_KEY}"),
    ]);
    let mut rotate = world.command(&["rotate", "Door"]);
    let output = process::run(rotate.env("SSL_CERT_FILE", receiver.ca_path()), b"").unwrap();
    assert_eq!((output.status, output.stderr.contains("hook")), (0, false), "{}", output.stderr);
    assert_eq!(heard(1)[0]["proven"], true);
    for wrong in ["whsec_c2hvcnQ=", "plain"] {
        world.ok(&["edit", "Door", "--set", &format!("turnlock:hook_key={wrong}")]);
        let warned = world.ok(&["rotate", "Door"]).stderr;
        assert!(warned.contains("24 bytes") && !warned.contains(wrong), "{warned}");
    }
    heard(0);
}

/// A script of docs/hooks.md, put where it says, with stand-ins for what it calls.
fn example(world: &World, name: &str, stand_ins: &[(&str, &str)]) -> String {
    let page = include_str!("../docs/hooks.md");
    let block = page
        .split("```sh\n#!/bin/sh\n")
        .skip(1)
        .filter_map(|block| block.split("```").next())
        .find(|block| block.starts_with(&format!("# /etc/turnlock/hooks/{name} ")))
        .unwrap_or_else(|| panic!("docs/hooks.md has no {name}"));
    let mut text = block.to_owned();
    for (program, stand_in) in stand_ins {
        assert!(text.contains(program), "{name} does not call {program}");
        text = text.replace(program, stand_in);
    }
    script(world, name, &text)
}

#[test]
fn the_examples_of_the_page_do_what_they_say() {
    let world = world();
    let home = world.turnlock.home().to_owned();
    let file = |name: &str| home.join(name).to_str().unwrap().to_owned();
    let note = |name: &str| {
        let program = script(&world, name, &format!("echo \"$@\" > {0}.words; cat > {0}.input", file(name)));
        assert!(Path::new(&program).exists());
        program
    };
    let password = "Quote1\"back\\slash and 'this'";

    // PgBouncer's list: other users stay, one whose name begins alike too, the file's mode as well.
    let list = home.join("userlist.txt");
    let others = "\"doorman\" \"keep\"\n\"admin\" \"SCRAM-SHA-256$4096:x\"\n";
    write_file(&list, format!("\"door\" \"old\"\n{others}")).unwrap();
    fs::set_permissions(&list, fs::Permissions::from_mode(0o640)).unwrap();
    door(&world, &format!("{} {}", example(&world, "pgbouncer-userlist", &[]), list.display()));
    world.ok(&["edit", "Door", "--set", "turnlock:hook_secret=true"]);
    world.ok_with(&["rotate", "Door", "--password", "-"], password);
    assert_eq!(read(&list), format!("{others}\"door\" \"Quote1\"\"back\\slash and 'this'\"\n"));
    assert_eq!(fs::metadata(&list).unwrap().permissions().mode() & 0o777, 0o640);
    world.nothing_is_open();

    // kubectl is a stand-in, which takes down what a cluster would be asked.
    let kubectl = note("kubectl");
    let hook = example(&world, "kubernetes-secret", &[("/usr/bin/kubectl", &kubectl)]);
    world.ok(&["edit", "Door", "--set", &format!("turnlock:hook={hook} shop door-login")]);
    world.ok(&["rotate", "Door"]);
    let manifest: Value = serde_json::from_str(&read(&home.join("kubectl.input"))).unwrap();
    assert_eq!((&manifest["kind"], &manifest["metadata"]["name"]), (&"Secret".into(), &"door-login".into()));
    assert_eq!(manifest["stringData"], serde_json::json!({"username": "door", "password": world.password("Door")}));
    assert!(!read(&home.join("kubectl.words")).contains(&world.password("Door")));

    // systemctl is a stand-in, too.
    let systemctl = note("systemctl");
    let hook = example(&world, "restart-service", &[("/usr/bin/systemctl", &systemctl)]);
    world.ok(&[
        "edit",
        "Door",
        "--set",
        &format!("turnlock:hook={hook} orders.service"),
        "--unset",
        "turnlock:hook_secret",
    ]);
    world.ok(&["rotate", "Door"]);
    assert_eq!(read(&home.join("systemctl.words")), "restart -- orders.service\n");
    world.ok(&["edit", "Door", "--set", &format!("turnlock:hook={hook} --force")]);
    assert!(world.ok(&["rotate", "Door"]).stderr.contains("--force is no service"));
}
