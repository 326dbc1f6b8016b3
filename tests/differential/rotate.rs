//! The command `rotate` itself: names, endpoints, matches, refusals.

use serde_json::{Value, json};

use crate::commander::{ask, ask_one};
use crate::world::World;

const OLD: &str = "Old-Secret-1";

fn raw(uid: &str, title: &str, options: &[(&str, &str)]) -> Value {
    let custom: Vec<Value> =
        options.iter().map(|(name, value)| json!({"name": name, "value": value, "type": "text"})).collect();
    json!({"uid": uid, "title": title, "secret1": "app", "secret2": OLD, "custom": custom})
}

fn world(records: &[Value]) -> World {
    let world = World::new();
    world.ok_with(&["import", "keeper", "-"], &serde_json::to_string(records).unwrap());
    world
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[test]
fn names_endpoints_and_descriptions() {
    let both = raw(
        "AAAAAAAAAAAAAAAAAAAAAA",
        "Both",
        &[
            ("cmdr:plugin", "noop"),
            ("cmdr:plugin:second", "noop"),
            ("cmdr:plugin:second:description", "The second way"),
        ],
    );
    let mut plain = raw("BBBBBBBBBBBBBBBBBBBBBB", "Plain", &[("cmdr:plugin", "noop")]);
    plain["folders"] = json!([{"folder": "servers\\dev"}]);
    let records = [both, plain];
    let asked = |arguments: Value| json!({"ask": "command", "records": records, "arguments": arguments});
    // What was found once is found again in another vault with the same revision: the last two.
    let other = [raw("CCCCCCCCCCCCCCCCCCCCCC", "Elsewhere", &[("cmdr:plugin", "noop")])];
    let theirs = ask(&[
        asked(json!({"name": "both"})),
        asked(json!({"name": "SECOND"})),
        asked(json!({"name": "plain"})),
        asked(json!({"name": "servers/dev/plain"})),
        asked(json!({})),
        json!({"ask": "command", "records": other, "arguments": {"name": "plain"}, "fresh": false}),
    ]);
    let [by_title, by_endpoint, by_other_case, by_folder, listed, stale] = theirs.as_slice() else {
        panic!("{theirs:?}");
    };
    let world = world(&records);

    // The default of a record that has other endpoints cannot be called by its title.
    assert_eq!(by_title["calls"], json!([]), "{by_title}");
    assert!(by_title["log"].as_str().unwrap().contains("more than one"), "{by_title}");
    let ours = world.ok(&["rotate", "both", "--dry-run"]).stdout;
    assert!(ours.contains("would rotate Both"), "{ours}");

    // An endpoint's name and a title, whatever their case.
    assert_eq!(by_endpoint["calls"][0]["rotate_name"], "second");
    assert!(world.ok(&["rotate", "SECOND", "--dry-run"]).stdout.contains("would rotate Both"));
    assert_eq!(by_other_case["calls"][0]["uid"], "BBBBBBBBBBBBBBBBBBBBBB");
    assert!(world.ok(&["rotate", "plain", "--dry-run"]).stdout.contains("would rotate Plain"));

    // A folder's path, which Commander documents and does not find.
    assert_eq!(by_folder["calls"], json!([]), "{by_folder}");
    assert!(world.ok(&["rotate", "servers/dev/plain", "--dry-run"]).stdout.contains("would rotate Plain"));

    // The list: descriptions are stored under one name and looked up by another.
    let endpoints = listed["endpoints"].as_array().unwrap();
    assert_eq!(endpoints.len(), 3);
    assert!(endpoints.iter().all(|endpoint| endpoint[2] == ""), "{listed}");
    let rows = lines(&world.ok(&["rotate", "-o", "json"]).stdout);
    assert_eq!(rows.len(), 3, "{rows:?}");
    let second = rows.iter().find(|row| row["name"] == "second").unwrap();
    assert_eq!(second["description"], "The second way");
    assert!(world.ok(&["rotate"]).stdout.contains("The second way"));

    // A failed rotation is no failure of the command.
    assert_eq!(by_other_case["outcome"], Value::Null);

    assert_eq!(stale["calls"][0]["uid"], "BBBBBBBBBBBBBBBBBBBBBB", "{stale}");
    let elsewhere = self::world(&other);
    elsewhere.fails(2, &["rotate", "plain"]);
}

#[test]
fn matches_take_every_option_along() {
    let records = [raw("AAAAAAAAAAAAAAAAAAAAAA", "Prod one", &[("cmdr:plugin", "noop")])];
    let arguments = json!({"match": "prod", "force": true, "length": 31, "password": "One-For-All-1"});
    let theirs = ask_one(json!({"ask": "command", "records": records, "arguments": arguments}));
    assert!(theirs["calls"][0].get("length").is_none(), "{theirs}");
    assert_eq!(theirs["calls"][0]["new_password"], "One-For-All-1", "although it is documented to be ignored");

    let two = [records[0].clone(), raw("BBBBBBBBBBBBBBBBBBBBBB", "Prod two", &[("cmdr:plugin", "noop")])];
    let world = world(&two);
    let rows =
        lines(&world.ok(&["rotate", "--match", "prod", "--force", "--length", "31", "--dry-run", "-o", "json"]).stdout);
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert!(rows.iter().all(|row| row["policy"].as_str().unwrap().contains("31")), "{rows:?}");
    // One password for several, and one on the command line.
    world.fails(2, &["rotate", "--match", "prod", "--force", "--password", "-"]);
    world.fails(2, &["rotate", "Prod one", "--password", "One-For-All-1"]);
    // Nobody can be asked.
    let refused = world.fails(2, &["rotate", "--match", "prod"]);
    assert!(refused["hint"].as_str().unwrap().contains("--force"), "{refused}");
}

#[test]
fn matches_are_asked_for_and_what_was_rotated_is_shown() {
    let titles = ["Prod one", "Prod three", "Prod two"];
    let records: Vec<Value> =
        titles.iter().map(|title| raw(&title.replace(' ', "-"), title, &[("cmdr:plugin", "noop")])).collect();
    let world = world(&records);
    // `script` is a terminal for one command.
    let turnlock = world.command(&[]);
    let line = format!("{} rotate --match '^prod' --print", turnlock.get_program().display());
    let mut command = lab::process::clean_command("script");
    command.args(["-qec", &line, "/dev/null"]).current_dir(world.turnlock.home());
    command.envs(turnlock.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = lab::process::run(&mut command, b"y\nn\nYES\n").unwrap();
    for title in titles {
        assert!(output.stdout.contains(&format!("Rotate \"{title}\"?")), "{}", output.stdout);
    }
    let password = |title: &str| world.ok(&["show", title, "--field", "password"]).stdout.trim_end().to_owned();
    let kept: Vec<bool> = titles.iter().map(|title| password(title) == OLD).collect();
    assert_eq!(kept, [false, true, false], "{}", output.stdout);
    assert!(output.stdout.contains("(hidden)") && !output.stdout.contains(&password("Prod one")), "{}", output.stdout);

    let shown = world.ok(&["rotate", "Prod three", "--print", "--reveal"]).stdout;
    assert!(shown.contains(&password("Prod three")), "{shown}");
}

#[test]
fn what_both_refuse_before_anything_changes() {
    let record = raw("AAAAAAAAAAAAAAAAAAAAAA", "One", &[("cmdr:plugin", "noop")]);
    // A record that cannot be written.
    let theirs = ask(&[
        json!({"ask": "rotate", "record": record, "writable": false}),
        json!({"ask": "rotate", "record": record, "writable": true, "new_password": OLD}),
        json!({"ask": "rotate", "record": record, "writable": true, "new_password": "!short"}),
        json!({"ask": "load", "plugin": "commands"}),
    ]);
    let [read_only, same, by_hand, module] = theirs.as_slice() else { panic!("{theirs:?}") };
    assert_eq!((&read_only["done"], &read_only["rotated"]), (&json!(false), &Value::Null), "{read_only}");
    // The password it has already.
    assert_eq!((&same["done"], &same["rotated"]), (&json!(false), &Value::Null), "{same}");
    let world = world(std::slice::from_ref(&record));
    let output = world.run_with(&["rotate", "One", "--password", "-", "-o", "json"], &format!("{OLD}\n"));
    assert_eq!(output.status, 2, "{} {}", output.stdout, output.stderr);

    // Given by hand, a password is not adjusted by Commander; here it keeps the rules or is refused.
    assert_eq!(by_hand["rotated"], "!short", "{by_hand}");
    let output = world.run_with(&["rotate", "One", "--password", "-", "-o", "json"], "!short\n");
    assert_eq!(output.status, 2, "{} {}", output.stdout, output.stderr);

    // A name of a module is loaded as a plugin.
    assert_eq!(module["loaded"], true);
    world.fails(2, &["rotate", "One", "--plugin", "commands"]);
}

#[test]
fn a_configuration_for_automatic_execution_is_run() {
    let records = [raw("AAAAAAAAAAAAAAAAAAAAAA", "Orders database", &[("cmdr:plugin", "noop")])];
    let world = world(&records);
    let config = world.turnlock.home().join("config.json");
    let write = |content: Value| lab::process::write_file(&config, content.to_string()).unwrap();
    let config = config.to_str().unwrap();
    let password = || world.ok(&["show", "Orders database", "--field", "password"]).stdout;

    write(json!({"user": "ops@example.com", "password": "Keepers-Own-1",
        "commands": ["sync-down", "@rotate 'Orders database' --length 33", "list"]}));
    let output = world.run(&["run", "--config", config]);
    assert_eq!(output.status, 0, "{}", output.stderr);
    assert!(output.stdout.contains("rotated Orders database"), "{}", output.stdout);
    for told in ["sync-down: left out", "list: left out", "a password in clear"] {
        assert!(output.stderr.contains(told), "{told}: {}", output.stderr);
    }
    assert!(!(output.stdout + &output.stderr).contains("Keepers-Own-1"));
    assert_eq!(password().trim_end().chars().count(), 33);

    // What fails does not stop the others, and is told by the status.
    write(json!({"commands": ["rotate Nobody", "rotate 'Orders database' --length 34"]}));
    let output = world.run(&["run", "--config", config]);
    assert_eq!(output.status, 6, "{}", output.stderr);
    assert_eq!(password().trim_end().chars().count(), 34);

    // Again and again, until it is told to stop.
    write(json!({"commands": ["rotate 'Orders database' --length 35"], "timedelay": "1"}));
    let mut child = world.command(&["run", "--config", config]).stdout(std::process::Stdio::null()).spawn().unwrap();
    let rotations =
        || lines(&world.ok(&["audit", "export"]).stdout).iter().filter(|row| row["what"] == "committed").count();
    let before = rotations();
    lab::wait_until("two more rounds", std::time::Duration::from_secs(60), || {
        (rotations() >= before + 2).then_some(())
    })
    .unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));

    for (content, word) in [
        ("{", "no configuration"),
        ("{}", "no commands"),
        (r#"{"commands":["rotate x"],"timedelay":"soon"}"#, "timedelay"),
    ] {
        lab::process::write_file(std::path::Path::new(config), content).unwrap();
        let output = world.run(&["run", "--config", config]);
        assert!(output.status == 2 && output.stderr.contains(word), "{content}: {}", output.stderr);
    }
}
