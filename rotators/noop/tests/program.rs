//! The basics that every rotator's program keeps, wherever it runs: one line a
//! message, nothing else on standard output, no secret on standard error, and
//! exit statuses that mean what the help says.

#[cfg(test)]
#[path = "../../kit/tests/harness/program.rs"]
mod program;

use std::process::{Command, Stdio};

use program::{Ended, Serving, call, kind_and_applied};
use serde_json::{Value, json};

const OLD: &str = "old-canary-1111";
const NEW: &str = "new-canary-2222";

#[expect(clippy::disallowed_methods, reason = "the one place that starts the program")]
fn noop(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnlock-noop"));
    command.args(arguments).env_clear();
    command
}

fn alone(operation: &str, input: &str) -> Ended {
    call(&mut noop(&[operation]), input, Stdio::piped())
}

fn params(more: Value) -> Value {
    let mut params = json!({"protocol": 1, "deadline_ms": 15_000, "account": {"login": "door code"}});
    if let (Value::Object(params), Value::Object(more)) = (&mut params, more) {
        params.extend(more);
    }
    params
}

fn change() -> Value {
    params(json!({"current": {"password": OLD}, "next": {"password": NEW}, "attempt": "a-1"}))
}

#[test]
fn each_operation_answers_with_one_line_and_nothing_for_people() {
    let traits = json!({"needs_current": false, "admin_reset": false, "verify": "none"});
    for (operation, input, expected) in [
        ("describe", String::new(), json!({"plugin": "noop"})),
        ("plan", params(json!({})).to_string(), json!({"traits": traits})),
        ("check", change().to_string(), json!({"authenticated": true, "may_rotate": "yes"})),
        ("prepare", change().to_string(), json!({})),
        ("apply", change().to_string(), json!({})),
        ("verify", params(json!({"credential": {"password": NEW}})).to_string(), json!({"verdict": "accepted"})),
    ] {
        let ended = alone(operation, &input);
        assert_eq!((ended.status, ended.stderr.as_str()), (0, ""), "{operation}");
        assert_eq!(ended.lines().len(), 1, "{operation}: {}", ended.stdout);
        assert!(holds(&ended.last(), &expected), "{operation}: {}", ended.stdout);
        assert!(!ended.stdout.contains("canary"), "{operation}: {}", ended.stdout);
    }
}

/// Whether everything expected is there; more may be.
fn holds(found: &Value, expected: &Value) -> bool {
    match expected {
        Value::Object(expected) => expected.iter().all(|(name, expected)| holds(&found[name], expected)),
        expected => found == expected,
    }
}

#[test]
fn rotate_writes_the_new_secret_first_and_the_result_last() {
    let drawn = alone("rotate", &params(json!({"policy": {"length": 40}})).to_string());
    assert_eq!((drawn.status, drawn.stderr.as_str()), (0, ""));
    let [candidate, rotated] = drawn.lines().try_into().unwrap();
    assert_eq!(candidate["candidate"]["password"].as_str().map(str::len), Some(40));
    assert_eq!(rotated["next"], candidate["candidate"]);
    assert_eq!((&rotated["rotated"], &rotated["verified"]), (&json!(true), &json!(false)));

    let given = alone("rotate", &change().to_string());
    assert_eq!((given.status, given.stderr.as_str(), given.lines().len()), (0, "", 1));
    assert_eq!(given.last()["next"], json!({"password": NEW}));
    assert!(!given.stdout.contains(OLD));
}

#[test]
fn every_mistake_has_its_exit_status_and_repeats_no_secret() {
    let null = if cfg!(windows) { "NUL" } else { "/dev/null" };
    let null = std::fs::OpenOptions::new().write(true).open(null).unwrap();
    let lost = call(&mut noop(&["rotate"]), params(json!({})).to_string(), null);
    assert_eq!(lost.status, 3);
    assert!(lost.stderr.contains("nothing was changed"), "{}", lost.stderr);

    for (operation, input) in [
        ("canary", String::new()),
        ("rotate", "canary".to_owned()),
        ("rotate", String::new()),
        ("rotate", change().to_string().replace("\"attempt\"", "\"deadline_ms\": \"canary\", \"attempt\"")),
        ("check", params(json!({"account": {"login": ["canary"]}})).to_string()),
        ("apply", params(json!({"current": {"password": OLD}})).to_string()),
        ("check", format!("{{\"pad\": \"{}\"}}", "x".repeat(1 << 20))),
    ] {
        let ended = alone(operation, &input);
        assert_eq!(ended.status, 2, "{operation} {:.60}", input);
        assert!(ended.stderr.starts_with("error: "), "{}", ended.stderr);
        assert!(ended.lines().iter().all(Value::is_object), "{}", ended.stdout);
        // A misspelled operation is repeated: it is an argument, and no secret may be one.
        assert!(operation == "canary" || !ended.stderr.contains("canary"), "{}", ended.stderr);
        assert!(!ended.stdout.contains("canary"), "{}", ended.stdout);
    }
}

#[test]
fn it_serves_request_after_request_until_its_input_ends() {
    let mut rotator = Serving::of(&mut noop(&["serve"]));
    assert_eq!(rotator.hello["params"]["plugin"], "noop");
    for _again in 0..10 {
        for (method, params) in [
            ("describe", json!({})),
            ("check", change()),
            ("apply", change()),
            ("verify", params(json!({"credential": {"password": NEW}}))),
        ] {
            let id = rotator.ask(method, &params);
            if method == "apply" {
                rotator.permit();
            }
            let reply = rotator.hear();
            assert_eq!(reply["id"], id);
            assert!(reply["result"].is_object(), "{method}: {reply}");
        }
    }
    let ended = rotator.end();
    assert_eq!((ended.status, ended.stdout.as_str(), ended.stderr.as_str()), (0, "", ""));
}

#[test]
fn without_a_permit_the_end_of_input_cancels() {
    let mut rotator = Serving::of(&mut noop(&["serve"]));
    rotator.ask("apply", &change());
    assert_eq!(rotator.hear()["method"], "threshold");
    let ended = rotator.end();
    assert_eq!((ended.status, ended.stderr.as_str()), (0, ""));
    assert_eq!(kind_and_applied(&ended.last()), ("cancelled".into(), "no".into()));
    assert!(!ended.stdout.contains("canary"));
}

#[test]
fn what_is_no_message_ends_it() {
    for line in ["canary", "[]", "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"canary"] {
        let mut rotator = Serving::of(&mut noop(&["serve"]));
        rotator.send(format!("{line}\r\n"));
        let ended = rotator.left();
        assert_eq!((ended.status, ended.lines().len()), (2, 1), "{line}");
        assert_eq!(ended.last()["error"]["code"], -32700);
        assert!(!ended.stdout.contains("canary") && ended.stderr.is_empty(), "{ended:?}");
    }
}
