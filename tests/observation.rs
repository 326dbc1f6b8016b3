//! What watches a vault: logs that a real journal takes, and heads of the
//! audit chain that were kept elsewhere.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a broken expectation of a test program is its failure"
)]

mod world;

use std::{fs, path::PathBuf, time::Duration};

use lab::{Output, process, process::write_file};
use serde_json::json;
use world::{Fields, World, lines};

const SECRET: &str = "Canary-Secret-83";
const PATIENCE: Duration = Duration::from_secs(60);

fn noop(title: &str) -> Fields {
    Fields { login: title.to_owned(), ..Fields::default() }.with("cmdr:plugin=noop")
}

fn file(world: &World, name: &str) -> PathBuf {
    world.turnlock.home().join(name)
}

#[test]
fn logs_are_json_lines_or_sentences_up_to_the_level_that_was_asked_for() {
    let world = World::new();
    world.add("Door", &noop("Door").with("turnlock:hook=/nowhere"), SECRET);
    let logged = |arguments: &[&str]| {
        let output = world.run(&[arguments, &["--log-format", "json"]].concat());
        assert!(!output.stderr.contains(SECRET));
        (output.status, output.stdout, lines(&output.stderr))
    };
    let (status, stdout, log) = logged(&["rotate", "Door"]);
    assert_eq!((status, stdout.as_str()), (0, ""));
    let rotated = log.iter().find(|line| line["message"] == "rotated").unwrap();
    assert_eq!(
        (&rotated["level"], &rotated["title"], &rotated["hooks_open"]),
        (&json!("info"), &json!("Door"), &json!(true))
    );
    assert!(rotated["at"].as_str().is_some_and(|at| at.ends_with('Z') && at.contains('T')), "{rotated}");
    let (status, _, log) = logged(&["rotate", "Nobody"]);
    assert_eq!((status, log.len(), &log[0]["level"], &log[0]["exit_status"]), (2, 1, &json!("error"), &json!(2)));
    assert!(log[0]["hint"].is_string() && log[0]["error"].is_null(), "{log:?}");
    let (_, _, log) = logged(&["rotate", "Door", "--log-level", "debug"]);
    assert!(log.iter().any(|line| line["level"] == "debug" && line["step"] == "staging"), "{log:?}");
    let (_, _, log) = logged(&["rotate", "Door", "--log-level", "error"]);
    assert!(log.is_empty(), "{log:?}");
    // A program that reads results reads them where it did before.
    let (_, stdout, _) = logged(&["rotate", "Door", "-o", "json"]);
    assert_eq!(lines(&stdout)[0]["outcome"], "rotated");
}

/// A journal of its own, in a box that only this program and its children see.
const JOURNAL: &str = r#"
set -eu
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/journal /run/log/journal
/lib/systemd/systemd-journald 2> /dev/null & journal=$!
trap 'kill $journal' EXIT
for try in $(seq 400); do [ -S /run/systemd/journal/socket ] && break; sleep 0.05; done
"$@"
for try in $(seq 400); do
  said=$(journalctl -D /run/log/journal -q -t turnlock -o json || true)
  case $said in *rotated*) printf '%s\n' "$said"; exit 0 ;; esac
  sleep 0.05
done
exit 9
"#;

#[test]
fn a_real_journal_takes_every_field() {
    let world = World::new();
    world.add("Door", &noop("Door"), SECRET);
    let rotate = world.command(&["rotate", "Door", "--log-format", "journald"]);
    let mut boxed = process::clean_command("unshare");
    boxed.args(["-m", "sh", "-c", JOURNAL, "sh"]).arg(rotate.get_program()).args(rotate.get_args());
    boxed.envs(rotate.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let Output { status, stdout, stderr } = process::run_within(&mut boxed, b"", PATIENCE).unwrap();
    assert_eq!(status, 0, "{stdout}{stderr}");
    let entry = lines(&stdout).into_iter().find(|entry| entry["MESSAGE"] == "rotated").unwrap();
    for (field, value) in
        [("PRIORITY", "6"), ("TURNLOCK_TITLE", "Door"), ("TURNLOCK_VERIFIED", "false"), ("_TRANSPORT", "journal")]
    {
        assert_eq!(entry[field], value, "{entry}");
    }
    // Where there is no journal, the lines have its priorities.
    let output = world.run(&["rotate", "Nobody", "--log-format", "journald"]);
    assert!(output.stderr.starts_with("<3>") || output.stderr.is_empty(), "{}", output.stderr);
}

#[test]
fn a_chain_that_was_rewritten_or_put_back_does_not_hold_the_heads_that_were_kept() {
    let world = World::new();
    world.add("Door", &noop("Door"), SECRET);
    let anchors = file(&world, "anchors");
    let anchors = anchors.to_str().unwrap();
    let held = |expected: usize| {
        let proven = &world.json(&["audit", "verify", "--anchors", anchors])[0];
        assert_eq!(proven["anchors"], expected, "{proven}");
    };
    world.ok(&["audit", "anchor", anchors]);
    world.ok(&["rotate", "Door"]);
    let before = fs::read(world.turnlock.vault()).unwrap();
    world.ok(&["rotate", "Door"]);
    let printed = world.ok(&["audit", "anchor", "-"]).stdout;
    assert_eq!(lines(&printed)[0]["head"], world.json(&["audit", "verify"])[0]["head"]);
    world.ok(&["audit", "anchor", anchors]);
    held(2);

    // The same without the vault, from an export.
    let export = file(&world, "audit.ndjson");
    let text = world.ok(&["audit", "export"]).stdout;
    let prove = |text: &str| {
        write_file(&export, text).unwrap();
        world.run(&["audit", "verify", "--exported", export.to_str().unwrap(), "--anchors", anchors, "-o", "json"])
    };
    assert_eq!(prove(&text).status, 0);
    let rows: Vec<&str> = text.lines().collect();
    let without = |gone: usize| {
        let left = rows.iter().enumerate().filter(|(number, _)| *number != gone);
        left.map(|(_, row)| format!("{row}\n")).collect::<String>()
    };
    for (wrong, word) in [
        (text.replace("committed", "comitted"), "broken"),
        (without(2), "broken"),
        (without(rows.len() - 1), "missing"),
        (text.replacen("added", "deleted", 1), "broken"),
        (String::new(), "no row"),
        ("7\n".to_owned(), "no row"),
    ] {
        let refused = prove(&wrong);
        assert!(refused.status == 3 && refused.stdout.contains(word), "{word}: {}", refused.stdout);
    }
    // Every digest fits in a chain that was forged from one row on; the kept head tells.
    let forged = fs::read_to_string(anchors).unwrap().replace("\"head\":\"", "\"head\":\"0");
    let other = file(&world, "others");
    write_file(&other, &forged).unwrap();
    let refused = world.fails(3, &["audit", "verify", "--anchors", other.to_str().unwrap()]);
    assert!(refused["error"].as_str().unwrap().contains("rewritten"), "{refused}");
    assert!(world.run(&["audit", "anchor", other.to_str().unwrap()]).status == 3);

    // A vault of yesterday has lost what the anchor knows of.
    write_file(&world.turnlock.vault(), &before).unwrap();
    let refused = world.fails(3, &["audit", "verify", "--anchors", anchors]);
    assert!(refused["error"].as_str().unwrap().contains("missing"), "{refused}");
    world.fails(2, &["audit", "verify", "--anchors", "nowhere"]);
}
