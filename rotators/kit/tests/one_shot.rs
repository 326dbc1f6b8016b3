//! One operation for one process, as a script meets it.

#[cfg(test)]
mod harness;

use std::fs::File;
use std::io::Read;
use std::process::Stdio;

use harness::{NEW, NULL, OLD, Target, call, call_into, merge, opened, without_next};
#[cfg(unix)]
use harness::{call_at_terminal, call_closed, terminal};
use serde_json::{Value, json};

#[test]
fn rotate_is_the_whole_story_and_the_candidate_comes_first() {
    let target = Target::holding(OLD);
    let ended = call("database", &["rotate"], without_next(target.change(json!({"finish": true}))));
    assert_eq!((ended.status, ended.stderr.as_str()), (0, ""));
    let lines = ended.lines();
    assert_eq!(lines.len(), 2);
    let candidate = lines[0]["candidate"]["password"].as_str().unwrap();
    assert_eq!(candidate.len(), 12, "the target's own limit");
    assert_eq!(
        lines[1],
        json!({
            "rotated": true,
            "verified": true,
            "next": {"password": candidate},
            "finished": {"removed": ["the retained password"]},
            "warnings": ["it is only a file"],
        })
    );
    assert_eq!(target.holds(), candidate);
    assert_eq!(target.log(), ["prepared", "accepted", "crossed", "accepted", "finished"]);
}

#[test]
fn a_secret_of_ones_own_is_used_as_it_is() {
    let target = Target::holding(OLD);
    let ended = call("database", &["rotate"], target.change(json!({})).to_string());
    assert_eq!(ended.status, 0);
    assert_eq!(ended.lines().len(), 1);
    assert_eq!(ended.last()["finished"], Value::Null);
    assert_eq!(target.holds(), NEW);
}

#[test]
fn each_operation_answers_with_one_line() {
    let target = Target::holding(OLD);
    let all = |more: Value| {
        let mut params = target.change(json!({}));
        merge(&mut params, more);
        params.to_string()
    };
    for (operation, params, field) in [
        ("describe", String::new(), "plugin"),
        ("plan", all(json!({})), "traits"),
        ("check", all(json!({})), "authenticated"),
        ("prepare", all(json!({})), "policy"),
        ("verify", all(json!({"credential": {"password": "wrong one"}})), "verdict"),
        ("apply", all(json!({})), "warnings"),
        ("finish", all(json!({"current": {"password": NEW}, "previous": {"password": OLD}})), "removed"),
    ] {
        let ended = call("database", &[operation], params);
        assert_eq!((ended.status, ended.stderr.as_str()), (0, ""), "{operation}");
        assert_eq!(ended.lines().len(), 1);
        assert!(ended.last().get(field).is_some(), "{operation}: {}", ended.stdout);
    }
}

#[test]
fn a_standard_output_that_keeps_nothing_changes_nothing() {
    let closed_pipe = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        writer
    };
    let outputs: [(&str, Stdio); 2] = [("null", opened(NULL).into()), ("pipe", closed_pipe().into())];
    for (name, output) in outputs {
        let target = Target::holding(OLD);
        let ended = call_into("database", &["rotate"], without_next(target.change(json!({}))), output);
        assert_eq!(ended.status, 3, "{name} {}", ended.stderr);
        assert!(ended.stderr.contains("nothing was changed"), "{}", ended.stderr);
        assert_eq!(target.holds(), OLD);
        assert_eq!(target.log(), ["prepared"]);
    }
    // The caller knows a secret of its own.
    let target = Target::holding(OLD);
    let ended = call_into("database", &["rotate"], target.change(json!({})).to_string(), opened(NULL));
    assert_eq!((ended.status, target.holds().as_str()), (0, NEW));
}

#[cfg(unix)]
#[test]
fn a_full_disk_and_a_closed_standard_output_change_nothing_either() {
    let target = Target::holding(OLD);
    let rotate = without_next(target.change(json!({})));
    let full = call_into("database", &["rotate"], &rotate, opened("/dev/full"));
    assert!(full.stderr.contains("nothing was changed"), "{}", full.stderr);
    let closed = call_closed("rotate", &rotate);
    assert_eq!((full.status, closed.status, target.holds().as_str()), (3, 3, OLD));
    assert_eq!(target.log(), ["prepared", "prepared"]);
    for output in ["/dev/full", NULL] {
        let target = Target::holding("AKIAOLD old-canary-1111 used 900\n");
        let params = json!({
            "account": target.account(json!({})),
            "current": {"access_key_id": "AKIAOLD", "secret_access_key": OLD},
        });
        let before = target.holds();
        let ended = call_into("awskey", &["rotate"], params.to_string(), opened(output));
        assert_eq!(ended.status, 3);
        assert_eq!(target.holds(), before, "no key was made that nobody would learn");
    }
    let params = target.change(json!({})).to_string();
    assert_eq!(call_into("database", &["describe"], "", opened("/dev/full")).status, 3);
    assert_eq!(call_into("database", &["check"], &params, opened("/dev/full")).status, 3);
    assert_eq!(call_into("database", &["apply"], &params, opened("/dev/full")).status, 4);
    assert_eq!(target.holds(), NEW);
}

#[test]
fn the_candidate_is_in_the_file_before_the_target_is_touched() {
    let target = Target::holding(OLD);
    let kept = target.directory.path().join("result.ndjson");
    let output = File::create(&kept).unwrap();
    let ended = call_into("database", &["rotate"], without_next(target.change(json!({"case": "panic-after"}))), output);
    assert_eq!(ended.status, 1);
    assert!(ended.stderr.starts_with("bug: panic at "));
    assert!(!ended.stderr.contains("canary"));
    let mut text = String::new();
    File::open(kept).unwrap().read_to_string(&mut text).unwrap();
    let line: Value = serde_json::from_str(text.trim_end()).unwrap();
    assert!(line["candidate"]["password"].is_string());
}

#[test]
fn every_exit_status_is_seen() {
    for (case, more, status, applied) in [
        ("succeed", json!({}), 0, None),
        ("fail-before", json!({}), 3, Some("no")),
        ("fail-before", json!({"kind": "invalid_input"}), 2, Some("no")),
        ("refuse-after", json!({"kind": "policy"}), 3, Some("no")),
        ("fail-after", json!({}), 5, Some("unknown")),
        ("partial", json!({}), 5, Some("unknown")),
        ("verify-refuses", json!({}), 5, Some("unknown")),
        ("verify-fails", json!({}), 4, Some("yes")),
        ("finish-fails", json!({"finish": true}), 4, Some("yes")),
        ("panic-before", json!({}), 1, None),
    ] {
        let target = Target::holding(OLD);
        let mut account = json!({"case": case});
        merge(&mut account, more);
        let ended = call("database", &["rotate"], target.change(account).to_string());
        assert_eq!(ended.status, status, "{case} {}", ended.stderr);
        if let Some(applied) = applied {
            let last = ended.last();
            assert_eq!(last["error"]["data"]["applied"], applied, "{case}");
            assert!(ended.stderr.starts_with("error: "), "{}", ended.stderr);
            assert_eq!(last.get("rotated"), None);
        }
        let live = matches!(status, 0 | 4) || matches!(case, "partial" | "verify-refuses");
        assert_eq!(target.holds(), if live { NEW } else { OLD }, "{case}");
        assert!(!target.log().contains(&"finished".to_owned()), "{case}");
    }
    for (arguments, input) in [
        (vec![], ""),
        (vec!["rotate", "check"], ""),
        (vec!["canary"], ""),
        (vec!["--nonsense"], ""),
        (vec!["rotate"], "canary"),
        (vec!["rotate"], "{}"),
        (vec!["check"], "\u{feff}{}"),
        (vec!["check"], ""),
    ] {
        let ended = call("database", &arguments, input);
        assert_eq!(ended.status, 2, "{arguments:?} {input}");
        assert!(ended.stderr.starts_with("error: "));
        assert!(!ended.stdout.contains("canary"));
    }
    let huge = format!("{{\"pad\": \"{}\"}}", "x".repeat(1 << 20));
    assert_eq!(call("database", &["check"], huge).status, 2);
}

#[test]
fn a_partial_change_names_the_hosts_that_lag() {
    let target = Target::holding(OLD);
    let ended = call("database", &["rotate"], target.change(json!({"case": "partial", "finish": true})).to_string());
    assert_eq!(ended.status, 5);
    assert_eq!(ended.last()["error"]["data"]["causes"], json!(["b: not known: connection lost"]));
    assert!(ended.stderr.contains("1 of 2 hosts"), "{}", ended.stderr);
}

#[test]
fn the_deadline_holds_here_too() {
    for (case, status) in [("hang-before", 3), ("hang-after", 5)] {
        let target = Target::holding(OLD);
        let mut params = target.change(json!({"case": case}));
        params["deadline_ms"] = json!(200);
        assert_eq!(call("database", &["rotate"], params.to_string()).status, status);
    }
}

#[test]
fn no_secret_leaves_but_in_the_result() {
    let target = Target::holding(OLD);
    for case in ["quote", "fail-before", "fail-after", "refuse-after", "panic-before"] {
        for operation in ["rotate", "apply"] {
            let ended = call("database", &[operation], target.change(json!({"case": case})).to_string());
            assert!(!ended.stdout.contains("canary"), "{case} {}", ended.stdout);
            assert!(!ended.stderr.contains("canary"), "{case} {}", ended.stderr);
        }
    }
    // The result is the only place: its one line holds the new secret.
    let ended = call("database", &["rotate"], target.change(json!({"case": "print"})).to_string());
    assert_eq!(ended.stdout.matches(NEW).count(), 1);
    assert!(!ended.stdout.contains(OLD) && !ended.stdout.contains("stray"));
    assert_eq!(ended.stderr, "stray app\n");
}

#[test]
fn what_a_target_says_cannot_steer_a_terminal() {
    let target = Target::holding(OLD);
    let account = json!({"case": "fail-before", "login": "a\u{1b}[2J\nerror: fine"});
    let ended = call("database", &["rotate"], target.change(account).to_string());
    assert!(!ended.stderr.contains('\u{1b}'));
    assert_eq!(ended.stderr.lines().count(), 1);
}

#[test]
fn help_version_and_schema_are_answered_on_standard_output() {
    let help = call("database", &["--help"], "");
    assert_eq!((help.status, help.stderr.as_str()), (0, ""));
    for word in ["Keeps a password in a file.", "rotate", "--reveal", "Exit status", "\"login\": \"app\""] {
        assert!(help.stdout.contains(word), "{word}");
    }
    let version = call("database", &["--version"], "");
    assert_eq!((version.status, version.stdout.as_str()), (0, "turnlock-database 9.8.7\n"));
    let schema = call("database", &["--schema"], "");
    let schema: Value = serde_json::from_str(&schema.stdout).unwrap();
    let describe = call("database", &["describe"], "").last();
    assert_eq!(schema, describe["schema"]);
    assert_eq!(schema["required"], json!(["target", "login"]));
}

#[cfg(unix)]
#[test]
fn a_terminal_sees_no_secret_unless_it_is_asked_to_be_revealed() {
    for operation in ["rotate", "apply", "prepare"] {
        let (_person, program) = terminal();
        let target = Target::holding(OLD);
        let ended = call_into("database", &[operation], target.change(json!({})).to_string(), program);
        assert_eq!(ended.status, 2, "{operation}");
        assert!(ended.stderr.contains("--reveal"));
        assert_eq!((target.holds().as_str(), target.log().len()), (OLD, 0));
    }
    let (_person, program) = terminal();
    let target = Target::holding(OLD);
    let params = target.change(json!({})).to_string();
    let ended = call_into("database", &["rotate", "--reveal"], &params, program);
    assert_eq!((ended.status, target.holds().as_str()), (0, NEW));
    let (_person, program) = terminal();
    let check = target.change(json!({})).to_string().replace(OLD, NEW);
    assert_eq!(call_into("database", &["check"], check, program).status, 0);
}

#[cfg(unix)]
#[test]
fn at_a_terminal_without_input_it_says_what_it_is() {
    let (_person, program) = terminal();
    let ended = call_at_terminal("database", &[], program);
    assert_eq!(ended.status, 2);
    assert!(ended.stderr.starts_with("Keeps a password in a file.\n\nUsage: turnlock-database"));
    let (_person, program) = terminal();
    let ended = call_at_terminal("database", &["rotate"], program);
    assert_eq!(ended.status, 2);
    assert!(ended.stderr.contains("is a terminal"));
}
