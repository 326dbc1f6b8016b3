//! The first minutes: what a newcomer types, mistypes or leaves out ends in
//! words that say what to type next.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a broken expectation of a test program is its failure"
)]

mod world;

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use lab::{
    Output, Turnlock,
    process::{self, write_file},
};
use serde_json::Value;
use world::{Fields, World};

/// `turnlock` as a newcomer has it: nothing is named anywhere.
fn plain(home: &Turnlock, arguments: &[&str]) -> Command {
    let mut command = home.command(arguments).unwrap();
    command.env_remove("TURNLOCK_VAULT");
    command
}

fn run(home: &Turnlock, arguments: &[&str], stdin: &str) -> Output {
    process::run(&mut plain(home, arguments), stdin.as_bytes()).unwrap()
}

/// What `turnlock` says at a terminal, where `typed` is typed.
fn at_a_terminal(home: &Turnlock, arguments: &[&str], typed: &str) -> Output {
    let command = plain(home, arguments);
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| format!("'{}'", word.to_str().unwrap()))
        .collect();
    let mut script = process::clean_command("script");
    script.args(["--quiet", "--return", "--echo=never", "--command", &words.join(" "), "/dev/null"]);
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            script.env(name, value);
        }
    }
    process::run(script.current_dir(home.home()), typed.as_bytes()).unwrap()
}

#[test]
fn the_guide_leads_from_nothing_to_a_rotated_record() {
    let home = Turnlock::new().unwrap();
    let bare = run(&home, &[], "");
    assert_eq!((bare.status, bare.stdout.as_str()), (2, ""), "{}", bare.stderr);
    let steps: Vec<&str> = bare.stderr.lines().filter_map(|line| line.strip_prefix("  turnlock ")).collect();
    assert!(steps.len() == 5 && bare.stderr.contains("turnlock doctor"), "{}", bare.stderr);

    // Typed as they stand there; a record without a target takes the database's place.
    let init: Vec<&str> = steps[0].split_whitespace().collect();
    assert_eq!(run(&home, &init, "").status, 0, "{steps:?}");
    let key = fs::metadata(home.config_directory().join("turnlock/vault.key")).unwrap();
    assert_eq!(key.permissions().mode() & 0o777, 0o600);
    assert!(steps[2].starts_with("add \"Orders database\" --login app"), "{steps:?}");
    let add = ["add", "Orders database", "--login", "app", "--set", "cmdr:plugin=noop", "--password", "-"];
    assert_eq!(run(&home, &add, "first").status, 0);
    for step in &steps[3..] {
        let words: Vec<&str> = step.split_once(' ').map(|(verb, rest)| vec![verb, rest.trim_matches('"')]).unwrap();
        let done = run(&home, &words, "");
        assert_eq!(done.status, 0, "{words:?}: {}", done.stderr);
    }
    let bare = run(&home, &[], "");
    assert!(bare.status == 2 && bare.stderr.contains("turnlock status"), "{}", bare.stderr);
    let doctor = run(&home, &["doctor"], "");
    assert_eq!(doctor.status, 0, "{}{}", doctor.stdout, doctor.stderr);
}

#[test]
fn whatever_is_missing_is_told_with_the_way_out() {
    let home = Turnlock::new().unwrap();
    let told = |arguments: &[&str], words: &[&str]| {
        let output = run(&home, arguments, "");
        assert!(output.status == 2 || output.status == 3, "{arguments:?}: {output:?}");
        for word in words {
            assert!(output.stderr.contains(word), "{arguments:?} does not say {word}: {}", output.stderr);
        }
    };
    told(&["list"], &["there is no vault", "hint: turnlock vault init"]);
    told(&["vault", "init"], &["there is no terminal to ask at", "--key-file", "--passphrase-file"]);

    write_file(&home.home().join("right"), "correct horse").unwrap();
    write_file(&home.home().join("wrong"), "battery staple").unwrap();
    assert_eq!(run(&home, &["--passphrase-file", "right", "vault", "init"], "").status, 0);
    told(&["--passphrase-file", "wrong", "list"], &["does not open", "the passphrase of this vault"]);
    told(&["list"], &["no key was named and there is no terminal", "--passphrase-file"]);
    told(&["--key-file", "gone", "list"], &["there is no key file gone", "--recovery-key-file"]);

    let add =
        ["--passphrase-file", "right", "add", "Shop", "--login=app", "--set=cmdr:plugin=postgresq", "--password", "-"];
    assert_eq!(run(&home, &add, "first").status, 0);
    told(&["--passphrase-file", "right", "rotate", "Shop"], &["turnlock-postgresq", "hint:"]);
}

#[test]
fn a_passphrase_is_asked_for_at_a_terminal_and_not_shown() {
    let home = Turnlock::new().unwrap();
    let made = at_a_terminal(&home, &["vault", "init"], "correct horse\ncorrect horse\n");
    assert!(made.status == 0 && made.stdout.contains("New passphrase"), "{made:?}");
    let wrong = at_a_terminal(&home, &["list"], "battery staple\n");
    assert!(wrong.status == 3 && wrong.stdout.contains("does not open"), "{wrong:?}");
    let right = at_a_terminal(&home, &["list"], "correct horse\n");
    assert!(right.status == 0 && right.stdout.contains("no records"), "{right:?}");
    for output in [made, wrong, right] {
        assert!(!output.stdout.contains("horse") && !output.stdout.contains("staple"), "{output:?}");
    }
}

#[test]
fn the_doctor_finds_what_is_wrong() {
    let world = World::new();
    world.add("Door", &Fields { login: "door".to_owned(), ..Fields::default() }.with("cmdr:plugin=noop"), "first");
    let findings = |expected: i32| -> Vec<Value> {
        let output = world.run(&["doctor", "-o", "json"]);
        assert_eq!(output.status, expected, "{}{}", output.stdout, output.stderr);
        world::lines(&output.stdout)
    };
    let wrong = |what: &str, words: &str| {
        let findings = findings(3);
        let found = |finding: &&Value| finding["verdict"] == "wrong" && finding["what"] == what;
        let finding =
            findings.iter().find(found).unwrap_or_else(|| panic!("nothing wrong with the {what}: {findings:?}"));
        assert!(finding.to_string().contains(words), "{finding}");
        assert!(finding["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{finding}");
    };
    let fine = findings(0);
    for what in ["program", "configuration", "rotator", "state", "vault", "key", "disk", "clock"] {
        assert!(fine.iter().any(|finding| finding["what"] == what && finding["verdict"] == "fine"), "{what}: {fine:?}");
    }

    let mode = |file: &std::path::Path, mode| fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
    mode(&world.turnlock.key_file(), 0o644);
    wrong("key", "chmod 600");
    mode(&world.turnlock.key_file(), 0o600);
    mode(&world.turnlock.vault(), 0o640);
    wrong("vault", "open to others");
    mode(&world.turnlock.vault(), 0o600);

    let rotator = world.turnlock.plugin_directory().join("turnlock-broken");
    write_file(&rotator, "#!/bin/sh\necho nonsense\n").unwrap();
    mode(&rotator, 0o755);
    let plugins = world.turnlock.plugin_directory();
    world.configure(&format!("[rotators]\ndirectories = [{plugins:?}]\n"));
    wrong("rotator", "turnlock-broken");
    mode(&rotator, 0o777);
    wrong("rotator", "others may write");
    fs::remove_file(&rotator).unwrap();

    findings(0);
    fs::remove_file(world.turnlock.vault()).unwrap();
    wrong("vault", "turnlock vault init");
}
