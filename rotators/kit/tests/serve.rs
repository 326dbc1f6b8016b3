//! Serve mode, as a host meets it.

#[cfg(test)]
mod harness;

use harness::{NEW, OLD, Serving, Target, call, kind_and_applied};
use serde_json::{Value, json};

fn says(kind: &str, applied: &str) -> (String, String) {
    (kind.to_owned(), applied.to_owned())
}

#[test]
fn it_says_hello_first_and_describes_itself_the_same_way_in_both_modes() {
    let mut rotator = Serving::start("database");
    assert_eq!(rotator.hello["method"], "hello");
    assert_eq!(
        rotator.hello["params"],
        json!({
            "protocol": [1],
            "plugin": "database",
            "version": "9.8.7",
            "operations": ["describe", "plan", "check", "prepare", "apply", "verify", "finish", "revert"],
        })
    );
    rotator.ask("describe", &json!({}));
    let reply = rotator.hear();
    let alone = call("database", &["describe"], "");
    assert_eq!(alone.status, 0);
    assert_eq!(reply["result"], alone.last());
    assert_eq!(reply["result"]["version"], "9.8.7");
    let schema = &reply["result"]["schema"]["properties"];
    assert_eq!(schema["login"]["x-turnlock"], "account");
    assert_eq!(schema["timeout"]["x-turnlock"], "account");
    assert_eq!(schema["password"]["x-turnlock"], "write-back");
    assert_eq!(rotator.end().status, 0);
}

#[test]
fn a_change_is_made_behind_the_permit_only() {
    let target = Target::holding(OLD);
    let mut rotator = Serving::start("database");
    let id = rotator.ask("apply", &target.change(json!({})));
    let threshold = rotator.hear();
    assert_eq!(threshold["params"], json!({"id": id}));
    assert_eq!(target.holds(), OLD);
    rotator.say(&json!({"jsonrpc": "2.0", "id": threshold["id"], "result": {"proceed": true}}));
    let reply = rotator.hear();
    assert_eq!(reply["id"], id);
    assert_eq!(reply["result"], json!({"warnings": ["it is only a file"]}));
    assert_eq!(target.holds(), NEW);

    rotator
        .ask("verify", &json!({"protocol": 1, "account": target.account(json!({})), "credential": {"password": NEW}}));
    assert_eq!(rotator.hear()["result"], json!({"verdict": "accepted"}));
    rotator.ask(
        "finish",
        &json!({"protocol": 1, "account": target.account(json!({})), "current": {"password": NEW}, "previous": {"password": OLD}}),
    );
    rotator.permit();
    assert_eq!(rotator.hear()["result"], json!({"removed": ["the retained password"]}));
    let ended = rotator.end();
    assert_eq!((ended.status, ended.stdout.as_str(), ended.stderr.as_str()), (0, "", ""));
}

#[test]
fn only_proceed_true_is_a_permit() {
    for answer in [
        json!({"proceed": false}),
        json!({"proceed": "true"}),
        json!({"proceed": 1}),
        json!({}),
        json!([true]),
        json!(true),
        Value::Null,
    ] {
        let target = Target::holding(OLD);
        let mut rotator = Serving::start("database");
        rotator.ask("apply", &target.change(json!({})));
        rotator.answer_threshold(&answer);
        assert_eq!(kind_and_applied(&rotator.hear()), says("cancelled", "no"), "{answer}");
        assert_eq!(target.holds(), OLD);
        assert_eq!(rotator.end().status, 0);
    }
}

#[test]
fn an_error_answer_is_no_permit() {
    for with_id in [true, false] {
        let target = Target::holding(OLD);
        let mut rotator = Serving::start("database");
        rotator.ask("apply", &target.change(json!({})));
        let id = rotator.hear()["id"].clone();
        let id = if with_id { id } else { Value::Null };
        rotator.say(&json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "no"}}));
        assert_eq!(kind_and_applied(&rotator.hear()), says("cancelled", "no"));
        assert_eq!(target.holds(), OLD);
    }
}

#[test]
fn a_garbled_answer_is_no_permit() {
    let target = Target::holding(OLD);
    let mut rotator = Serving::start("database");
    rotator.ask("apply", &target.change(json!({})));
    rotator.hear();
    rotator.send("}garbage\n");
    let ended = rotator.left();
    assert_eq!(ended.status, 2);
    let replies = ended.lines();
    assert_eq!(replies[0]["id"], Value::Null);
    assert_eq!(replies[0]["error"]["code"], -32700);
    assert_eq!(kind_and_applied(&replies[1]), says("cancelled", "no"));
    assert_eq!(replies.len(), 2);
    assert_eq!(target.holds(), OLD);
}

#[test]
fn applied_says_what_the_permit_and_the_answer_prove() {
    for (case, kind, permit, expected) in [
        ("fail-before", "unreachable", false, says("unreachable", "no")),
        ("fail-before", "timeout", false, says("timeout", "no")),
        ("fail-after", "unreachable", true, says("unreachable", "unknown")),
        ("fail-after", "policy", true, says("policy", "unknown")),
        ("fail-after", "invalid_input", true, says("invalid_input", "unknown")),
        ("refuse-after", "policy", true, says("policy", "no")),
        ("refuse-after", "permission", true, says("permission", "no")),
    ] {
        let target = Target::holding(OLD);
        let mut rotator = Serving::start("database");
        rotator.ask("apply", &target.change(json!({"case": case, "kind": kind})));
        if permit {
            rotator.permit();
        }
        let reply = rotator.hear();
        assert_eq!(kind_and_applied(&reply), expected, "{case} {kind}");
        let retryable = reply["error"]["data"]["retryable"] == json!(true);
        let worth_it = matches!(kind, "unreachable" | "timeout");
        assert_eq!(retryable, worth_it && expected.1 == "no", "{case} {kind}");
        assert_eq!(target.holds(), OLD);
    }
}

#[test]
fn the_deadline_ends_it_and_applied_says_on_which_side() {
    for (case, applied) in [("hang-before", "no"), ("hang-after", "unknown")] {
        let target = Target::holding(OLD);
        let mut rotator = Serving::start("database");
        let mut params = target.change(json!({"case": case}));
        params["deadline_ms"] = json!(300);
        rotator.ask("apply", &params);
        if case == "hang-after" {
            rotator.permit();
        }
        let reply = rotator.hear();
        assert_eq!(kind_and_applied(&reply), says("timeout", applied));
        assert_eq!(reply["error"]["message"], "apply took longer than 300 ms");
        // It serves on.
        rotator.ask("describe", &json!({}));
        assert_eq!(rotator.hear()["result"]["plugin"], "database");
    }
}

#[test]
fn a_permit_that_does_not_come_is_a_timeout_and_one_that_comes_late_changes_nothing() {
    let target = Target::holding(OLD);
    let mut rotator = Serving::start("database");
    let mut params = target.change(json!({}));
    params["deadline_ms"] = json!(300);
    rotator.ask("apply", &params);
    let threshold = rotator.hear();
    assert_eq!(kind_and_applied(&rotator.hear()), says("timeout", "no"));
    rotator.say(&json!({"jsonrpc": "2.0", "id": threshold["id"], "result": {"proceed": true}}));
    rotator.ask("describe", &json!({}));
    assert_eq!(rotator.hear()["result"]["plugin"], "database");
    assert_eq!(target.holds(), OLD);
}

#[test]
fn the_accounts_timeout_shortens_the_deadline_and_never_lengthens_it() {
    let target = Target::holding(OLD);
    let mut rotator = Serving::start("database");
    rotator.ask("apply", &target.change(json!({"case": "hang-before", "timeout": 1})));
    assert_eq!(rotator.hear()["error"]["message"], "apply took longer than 1000 ms");
    let mut params = target.change(json!({"case": "hang-before", "timeout": 3600}));
    params["deadline_ms"] = json!(200);
    rotator.ask("apply", &params);
    assert_eq!(rotator.hear()["error"]["message"], "apply took longer than 200 ms");
    for wrong in [json!("soon"), json!(0), json!(-1)] {
        rotator.ask("apply", &target.change(json!({"timeout": wrong})));
        assert_eq!(kind_and_applied(&rotator.hear()), says("invalid_input", "no"));
    }
}

#[test]
fn a_deadline_without_end_is_no_defect() {
    let target = Target::holding(OLD);
    let mut rotator = Serving::start("database");
    let mut params = target.change(json!({}));
    params["deadline_ms"] = json!(u64::MAX);
    rotator.ask("apply", &params);
    rotator.permit();
    assert!(rotator.hear()["result"].is_object());
}

#[test]
fn cancel_before_the_permit_is_answered_once_and_changes_nothing() {
    for case in ["hang-before", "succeed"] {
        let target = Target::holding(OLD);
        let mut rotator = Serving::start("database");
        let id = rotator.ask("apply", &target.change(json!({"case": case})));
        let threshold = (case == "succeed").then(|| rotator.hear());
        rotator.say(&json!({"jsonrpc": "2.0", "method": "cancel", "params": {"id": id}}));
        let reply = rotator.hear();
        assert_eq!(reply["id"], id);
        assert_eq!(kind_and_applied(&reply), says("cancelled", "no"));
        if let Some(threshold) = threshold {
            rotator.say(&json!({"jsonrpc": "2.0", "id": threshold["id"], "result": {"proceed": true}}));
        }
        assert_eq!(rotator.end().stdout, "");
        assert_eq!(target.holds(), OLD);
    }
}

#[test]
fn cancel_behind_the_permit_leaves_the_word_to_the_operation() {
    let target = Target::holding(OLD);
    let mut rotator = Serving::start("database");
    let id = rotator.ask("apply", &target.change(json!({"slow_ms": 200})));
    rotator.permit();
    rotator.say(&json!({"jsonrpc": "2.0", "method": "cancel", "params": {"id": id}}));
    let reply = rotator.hear();
    assert_eq!(reply["id"], id);
    assert!(reply["result"].is_object(), "{reply}");
    assert_eq!(rotator.end().stdout, "");
    assert_eq!(target.holds(), NEW);
}

#[test]
fn cancel_of_something_else_cancels_nothing() {
    let target = Target::holding(OLD);
    let mut rotator = Serving::start("database");
    let id = rotator.ask("apply", &target.change(json!({})));
    let threshold = rotator.hear();
    for params in [json!({"id": id + 7}), json!({}), json!("x"), Value::Null] {
        rotator.say(&json!({"jsonrpc": "2.0", "method": "cancel", "params": params}));
    }
    rotator.say(&json!({"jsonrpc": "2.0", "method": "applause"}));
    rotator.say(&json!({"jsonrpc": "2.0", "id": threshold["id"], "result": {"proceed": true, "why": "new"}}));
    assert!(rotator.hear()["result"].is_object());
}

#[test]
fn the_end_of_input_before_the_permit_means_cancel() {
    for case in ["hang-before", "succeed"] {
        let target = Target::holding(OLD);
        let mut rotator = Serving::start("database");
        rotator.ask("apply", &target.change(json!({"case": case})));
        if case == "succeed" {
            rotator.hear();
        }
        let ended = rotator.end();
        assert_eq!(ended.status, 0);
        let replies = ended.lines();
        assert_eq!(replies.len(), 1, "{replies:?}");
        assert_eq!(kind_and_applied(&replies[0]), says("cancelled", "no"));
        assert_eq!(target.holds(), OLD);
    }
}

#[test]
fn the_end_of_input_behind_the_permit_lets_the_change_be_finished() {
    let target = Target::holding(OLD);
    let mut rotator = Serving::start("database");
    rotator.ask("apply", &target.change(json!({"slow_ms": 300})));
    rotator.permit();
    let ended = rotator.end();
    assert_eq!(ended.status, 0);
    assert!(ended.last()["result"].is_object(), "{ended:?}");
    assert_eq!(target.holds(), NEW);
}

#[test]
fn garbage_behind_the_permit_lets_the_change_be_finished_too() {
    let target = Target::holding(OLD);
    let mut rotator = Serving::start("database");
    rotator.ask("apply", &target.change(json!({"slow_ms": 200})));
    rotator.permit();
    rotator.send("garbage\n");
    let ended = rotator.left();
    assert_eq!(ended.status, 2);
    let replies = ended.lines();
    assert_eq!(replies[0]["id"], Value::Null);
    assert!(replies[1]["result"].is_object());
    assert_eq!(target.holds(), NEW);
}

#[test]
fn the_deadline_also_ends_what_goes_on_behind_the_end_of_input() {
    let target = Target::holding(OLD);
    let mut rotator = Serving::start("database");
    let mut params = target.change(json!({"case": "hang-after"}));
    params["deadline_ms"] = json!(400);
    rotator.ask("apply", &params);
    rotator.permit();
    let ended = rotator.end();
    assert_eq!(ended.status, 0);
    assert_eq!(kind_and_applied(&ended.last()), says("timeout", "unknown"));
}

#[test]
fn what_is_no_message_is_answered_without_an_id_and_ends_it() {
    let long = "9".repeat((1 << 20) + 1);
    for (line, code) in [
        ("not json-canary", -32700),
        ("\u{feff}{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"describe\"}", -32700),
        ("[]", -32700),
        ("7", -32700),
        ("{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"describe\"}", -32700),
        ("{\"jsonrpc\":\"2.0\",\"id\":-1,\"method\":\"describe\"}", -32700),
        ("{\"jsonrpc\":\"2.0\",\"id\":1.5,\"method\":\"describe\"}", -32700),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"canary", -32700),
        ("", -32700),
        (&long, -32600),
    ] {
        let mut rotator = Serving::start("database");
        rotator.send(format!("{line}\n"));
        let ended = rotator.left();
        assert_eq!(ended.status, 2, "{:.60}", line);
        let reply = ended.last();
        assert_eq!(ended.lines().len(), 1);
        assert!(reply.get("id").is_some_and(Value::is_null));
        assert_eq!(reply["error"]["code"], code, "{:.60}", line);
        assert!(!ended.stdout.contains("canary") && !ended.stderr.contains("canary"));
    }
    let mut rotator = Serving::start("database");
    rotator.send(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\xfe\"}\n");
    assert_eq!(rotator.left().status, 2);
}

#[test]
fn the_longest_line_is_read_and_crlf_is_a_line_end() {
    let mut rotator = Serving::start("database");
    let head = r#"{"jsonrpc":"2.0","id":1,"method":"describe","params":{"pad":""#;
    let tail = "\"}}";
    let pad = "x".repeat((1 << 20) - head.len() - tail.len());
    rotator.send(format!("{head}{pad}{tail}\r\n"));
    assert_eq!(rotator.hear()["result"]["plugin"], "database");
}

#[test]
fn params_that_do_not_fit_are_told_by_place_and_never_by_value() {
    let target = Target::holding(OLD);
    let mut rotator = Serving::start("database");
    for (method, params) in [
        ("apply", json!("canary-7")),
        ("apply", json!(["canary-7"])),
        ("apply", json!({"account": "canary-7"})),
        ("apply", json!({"account": {}, "current": "canary-7"})),
        ("apply", json!({"account": {}, "current": {"password": {"canary-7": 1}}})),
        ("apply", json!({"account": {}, "attempt": ["canary-7"]})),
        ("apply", json!({"protocol": "canary-7"})),
        ("apply", json!({"deadline_ms": "canary-7"})),
        ("verify", json!({"account": {}, "credential": ["canary-7"]})),
        ("prepare", json!({"account": {}, "policy": "canary-7"})),
        ("prepare", json!({"account": {}, "policy": {"length": "canary-7"}})),
        ("finish", json!({"account": {}, "current": {"canary-7": 5}})),
        ("revert", json!({"account": {}, "orphans": "canary-7"})),
        ("check", json!({"account": {}, "admin": "canary-7"})),
        ("check", target.change(json!({"port": "canary-7"}))),
        ("check", target.change(json!({"case": "canary-7"}))),
        ("check", json!({"account": {"login": "canary-7"}})),
        ("plan", Value::Null),
    ] {
        rotator.ask(method, &params);
        let text = rotator.hear_text();
        let reply: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(reply["error"]["code"], -32602, "{params} {text}");
        assert_eq!(kind_and_applied(&reply), says("invalid_input", "no"));
        assert!(!text.contains("canary"), "{text}");
        assert!(reply["error"]["data"]["hint"].is_string());
    }
    rotator.ask("check", &target.change(json!({"port": "canary-7"})));
    assert!(rotator.hear()["error"]["message"].as_str().unwrap().contains("\"port\" does not fit"));
    rotator.ask("check", &json!({"account": {"login": "x"}}));
    assert!(rotator.hear()["error"]["message"].as_str().unwrap().contains("\"target\" is missing"));
    let ended = rotator.end();
    assert!(!ended.stderr.contains("canary"));
}

#[test]
fn what_it_does_not_know_is_refused_or_ignored() {
    let target = Target::holding(OLD);
    let mut rotator = Serving::start("database");
    rotator.ask("rotate", &json!({}));
    assert_eq!(rotator.hear()["error"]["code"], -32601);
    rotator.ask("canary", &json!({}));
    let text = rotator.hear_text();
    assert!(text.contains("-32601") && !text.contains("canary"));

    let mut params = target.change(json!({"colour": "blue"}));
    params["mood"] = json!({"deep": [1, 2, 3]});
    params["current"]["other"] = json!("x");
    rotator.ask("check", &params);
    assert_eq!(rotator.hear()["result"]["authenticated"], true);

    rotator.say(&json!({"jsonrpc": "2.0", "id": 50, "method": "describe", "trace": "x"}));
    assert_eq!(rotator.hear()["id"], 50);
    rotator.say(&json!({"jsonrpc": "2.0", "id": "mine", "method": "describe"}));
    let reply = rotator.hear();
    assert_eq!((&reply["id"], &reply["error"]["code"]), (&json!("mine"), &json!(-32600)));
    rotator.say(&json!({"jsonrpc": "2.0", "id": "t99", "result": {"proceed": true}}));
    rotator.say(&json!({"jsonrpc": "2.0", "id": 77, "result": null}));

    for version in [0, 2, 99] {
        params["protocol"] = json!(version);
        rotator.ask("check", &params);
        let reply = rotator.hear();
        assert_eq!(kind_and_applied(&reply), says("unsupported", "no"));
        assert!(reply["error"]["message"].as_str().unwrap().contains(&version.to_string()));
    }
}

#[test]
fn one_request_at_a_time() {
    let target = Target::holding(OLD);
    let mut rotator = Serving::start("database");
    let first = rotator.ask("apply", &target.change(json!({})));
    let threshold = rotator.hear();
    let second = rotator.ask("describe", &json!({}));
    let reply = rotator.hear();
    assert_eq!((&reply["id"], &reply["error"]["code"]), (&json!(second), &json!(-32600)));
    rotator.say(&json!({"jsonrpc": "2.0", "id": threshold["id"], "result": {"proceed": true}}));
    let reply = rotator.hear();
    assert_eq!(reply["id"], first);
    assert!(reply["result"].is_object());
}

#[test]
fn a_second_apply_finds_the_wanted_state_and_asks_for_it_once() {
    let target = Target::holding(NEW);
    let mut rotator = Serving::start("database");
    rotator.ask("apply", &target.change(json!({})));
    assert_eq!(rotator.hear()["result"], json!({"warnings": ["the target had this secret already"]}));
    assert_eq!(target.log(), ["refused", "accepted"]);
    assert_eq!(target.holds(), NEW);
}

#[test]
fn nothing_is_asked_where_asking_could_lock_or_proves_nothing() {
    for (account, kind) in [(json!({"lockout": true}), "authentication"), (json!({"unasked": true}), "authentication")]
    {
        let target = Target::holding(NEW);
        let mut rotator = Serving::start("database");
        rotator.ask("apply", &target.change(account.clone()));
        assert_eq!(kind_and_applied(&rotator.hear()), says(kind, "no"), "{account}");
        assert_eq!(target.log(), ["refused"]);
    }
    let target = Target::holding("a third one");
    let mut rotator = Serving::start("database");
    rotator.ask("apply", &target.change(json!({})));
    assert_eq!(kind_and_applied(&rotator.hear()), says("authentication", "no"));
    assert_eq!(target.log(), ["refused", "refused"]);
}

#[test]
fn finish_and_revert_refuse_to_remove_what_is_current() {
    let target = Target::holding(NEW);
    let mut rotator = Serving::start("database");
    for method in ["finish", "revert"] {
        let same =
            json!({"account": target.account(json!({})), "current": {"password": NEW}, "previous": {"password": NEW}});
        rotator.ask(method, &same);
        assert_eq!(kind_and_applied(&rotator.hear()), says("invalid_input", "no"));
    }
    rotator.ask(
        "revert",
        &json!({"account": target.account(json!({})), "current": {"password": NEW}, "previous": {"password": OLD}}),
    );
    assert_eq!(kind_and_applied(&rotator.hear()), says("unsupported", "no"));
    rotator.ask("revert", &json!({"account": target.account(json!({})), "previous": {"password": OLD}, "orphans": {"existing": [], "began_ms_ago": 1}}));
    assert_eq!(kind_and_applied(&rotator.hear()), says("unsupported", "no"));
}

#[test]
fn no_secret_leaves_in_an_error_and_none_in_a_panic() {
    let target = Target::holding(OLD);
    let mut rotator = Serving::start("database");
    rotator.ask("apply", &target.change(json!({"case": "quote"})));
    let text = rotator.hear_text();
    assert!(!text.contains("canary"), "{text}");
    assert_eq!(text.matches("[secret]").count(), 3, "{text}");

    // Shorter than six characters, or part of what is known anyway: replacing
    // would show where it was, so causes are dropped.
    for next in ["abc12", "app", "passw"] {
        let mut params = target.change(json!({"case": "quote", "login": "app passwd"}));
        params["next"]["password"] = json!(next);
        rotator.ask("apply", &params);
        assert_eq!(rotator.hear()["error"]["data"].get("causes"), None);
    }

    rotator.ask("apply", &target.change(json!({"case": "panic-before"})));
    let ended = rotator.left();
    assert_eq!(ended.status, 1);
    assert_eq!(ended.stdout, "");
    assert!(ended.stderr.starts_with("bug: panic at "), "{}", ended.stderr);
    assert!(!ended.stderr.contains("canary") && !ended.stderr.contains("payload"));
    assert_eq!(target.holds(), OLD);

    let mut rotator = Serving::start("database");
    rotator.ask("apply", &target.change(json!({"case": "panic-after"})));
    rotator.permit();
    let ended = rotator.left();
    assert_eq!((ended.status, ended.stdout.as_str()), (1, ""));
    assert!(!ended.stderr.contains("canary"));
}

#[test]
fn a_stray_print_reaches_people_and_not_the_host() {
    let target = Target::holding(OLD);
    let mut rotator = Serving::start("database");
    rotator.ask("apply", &target.change(json!({"case": "print"})));
    rotator.permit();
    assert!(rotator.hear()["result"].is_object());
    let ended = rotator.end();
    assert_eq!(ended.stdout, "");
    assert_eq!(ended.stderr, "stray app\n");
}

#[cfg(unix)]
#[test]
fn the_process_can_neither_be_dumped_nor_traced() {
    let target = Target::holding(OLD);
    let mut rotator = Serving::start("database");
    rotator.ask("check", &target.change(json!({"port": 99})));
    assert_eq!(rotator.hear()["result"]["findings"][0]["message"], "port=Some(99) dumpable=false core=Some(0)");
}

#[test]
fn a_message_that_the_end_of_input_cuts_off_is_none() {
    let mut rotator = Serving::start("database");
    rotator.send(r#"{"jsonrpc":"2.0","id":1,"method":"descr"#);
    let ended = rotator.end();
    assert_eq!((ended.status, ended.stdout.as_str()), (0, ""));
}

#[test]
fn many_requests_over_one_pipe_are_answered_in_order() {
    let target = Target::holding(OLD);
    let mut rotator = Serving::start("database");
    for round in 0..50 {
        let (old, new) = if round % 2 == 0 { (OLD, NEW) } else { (NEW, OLD) };
        let mut params = target.change(json!({}));
        params["current"]["password"] = json!(old);
        params["next"]["password"] = json!(new);
        let id = rotator.ask("apply", &params);
        rotator.permit();
        assert_eq!(rotator.hear()["id"], id);
        assert_eq!(target.holds(), new);
    }
}
