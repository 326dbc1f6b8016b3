//! The protocol carries what unlike targets need: rotators sketched in memory
//! (`fixture/`), driven the way an orchestrator drives them. What they taught
//! is in `docs/decisions/0002-protocol-signatures.md`.
//!
//! The fixture knows by its name which of them it is, and only Unix lets a
//! caller choose the name.

#![cfg(unix)]

#[cfg(test)]
mod harness;

use harness::{OLD, Serving, Target, call, kind_and_applied, only};
use serde_json::{Value, json};

fn aws(id: &str, secret: &str) -> Value {
    json!({"access_key_id": id, "secret_access_key": secret})
}

#[test]
fn awskey_the_target_mints_and_the_host_stages_before_anything_else() {
    let target = Target::holding("AKIAOLD old-canary-1111 used 900\n");
    let account = target.account(json!({}));
    let old = aws("AKIAOLD", OLD);
    let mut rotator = Serving::start("awskey");

    rotator.ask("prepare", &json!({"account": account, "current": old}));
    assert_eq!(rotator.hear()["result"], json!({"existing": ["AKIAOLD"]}));

    let id = rotator.ask("apply", &json!({"account": account, "current": old, "attempt": "a-1"}));
    rotator.permit();
    let minted = rotator.hear();
    assert_eq!(minted["method"], "minted");
    assert_eq!(minted["params"]["id"], id);
    let next = minted["params"]["next"].clone();
    assert_eq!(next, aws("AKIAMADE1", "minted-canary-4471"));
    rotator.say(&json!({"jsonrpc": "2.0", "id": minted["id"], "result": {"staged": true}}));
    assert_eq!(rotator.hear()["result"], json!({"next": next}));

    rotator.ask("verify", &json!({"account": account, "credential": next}));
    assert_eq!(rotator.hear()["result"], json!({"verdict": "accepted"}));

    for round in ["removes", "has removed"] {
        rotator.ask("finish", &json!({"account": account, "current": next, "previous": old}));
        if round == "removes" {
            rotator.permit();
            assert_eq!(rotator.hear()["result"], json!({"removed": ["access key AKIAOLD"]}));
        } else {
            assert_eq!(rotator.hear()["result"], json!({"removed": []}));
        }
    }
    rotator.ask("verify", &json!({"account": account, "credential": old}));
    assert_eq!(rotator.hear()["result"], json!({"verdict": "refused"}));
}

#[test]
fn awskey_what_the_host_does_not_stage_is_removed_again() {
    for answer in [
        json!({"result": {"staged": false}}),
        json!({"result": {}}),
        json!({"result": null}),
        json!({"error": {"code": -32000, "message": "the vault is full"}}),
    ] {
        let target = Target::holding("AKIAOLD old-canary-1111 used 900\n");
        let before = target.holds();
        let mut rotator = Serving::start("awskey");
        rotator.ask("apply", &json!({"account": target.account(json!({})), "current": aws("AKIAOLD", OLD)}));
        rotator.permit();
        let mut reply = json!({"jsonrpc": "2.0", "id": rotator.hear()["id"]});
        harness::merge(&mut reply, answer);
        rotator.say(&reply);
        let reply = rotator.hear();
        assert_eq!(kind_and_applied(&reply), ("cancelled".into(), "unknown".into()));
        assert_eq!(reply["error"]["data"]["hint"], "look for [secret] of AKIAMADE1");
        assert_eq!(target.holds(), before);
    }
}

#[test]
fn awskey_a_host_that_left_still_gets_the_minted_secret_and_nothing_waits_for_it() {
    let target = Target::holding("AKIAOLD old-canary-1111 used 900\n");
    let mut rotator = Serving::start("awskey");
    rotator.ask("apply", &json!({"account": target.account(json!({})), "current": aws("AKIAOLD", OLD)}));
    rotator.permit();
    let ended = rotator.end();
    let lines = ended.lines();
    assert_eq!((ended.status, lines.len()), (0, 2), "{ended:?}");
    assert_eq!(lines[0]["method"], "minted");
    assert_eq!(kind_and_applied(&lines[1]), ("cancelled".into(), "unknown".into()));
}

#[test]
fn awskey_an_orphan_is_found_by_what_existed_before() {
    let target = Target::holding("AKIAOLD old-canary-1111 used 900\n");
    let account = target.account(json!({"dies_after_create": true}));
    let old = aws("AKIAOLD", OLD);
    let mut rotator = Serving::start("awskey");
    rotator.ask("prepare", &json!({"account": account, "current": old}));
    let existing = rotator.hear()["result"]["existing"].clone();
    rotator.ask("apply", &json!({"account": account, "current": old}));
    rotator.permit();
    assert_eq!(rotator.left().status, 9);
    assert_eq!(target.holds().lines().count(), 2);

    let mut rotator = Serving::start("awskey");
    let revert =
        json!({"account": account, "previous": old, "orphans": {"existing": existing, "began_ms_ago": 60_000}});
    // Nobody can use it any more; removed it is by a finish, later.
    let left = json!({"access_key_id": "AKIAMADE1"});
    for _ in 0..2 {
        rotator.ask("revert", &revert);
        rotator.permit();
        assert_eq!(rotator.hear()["result"], json!({"removed": [], "left": left}));
        let inactive = "AKIAMADE1 minted-canary-4471 inactive 0\n";
        assert_eq!(target.holds(), format!("AKIAOLD old-canary-1111 used 900\n{inactive}"));
    }
    rotator.ask("finish", &json!({"account": account, "current": old, "previous": left}));
    rotator.permit();
    assert_eq!(rotator.hear()["result"], json!({"removed": ["access key AKIAMADE1"]}));
    assert_eq!(target.holds(), "AKIAOLD old-canary-1111 used 900\n");
}

#[test]
fn awskey_a_new_key_is_published_before_the_grace_is_over_and_the_old_one_stays() {
    let keys = "AKIAOLD old-canary-1111 used 900\nAKIANEW new-canary-2222 used 1\n";
    let target = Target::holding(keys);
    let mut finish = json!({
        "account": target.account(json!({"publishes": true})),
        "current": aws("AKIANEW", "new-canary-2222"),
        "previous": aws("AKIAOLD", OLD),
        "in_grace": true,
    });
    let mut rotator = Serving::start("awskey");
    rotator.ask("finish", &finish);
    rotator.permit();
    assert_eq!(rotator.hear()["result"], json!({"removed": []}));
    assert_eq!((target.holds().as_str(), target.log()), (keys, vec!["published AKIANEW".to_owned()]));
    finish["in_grace"] = json!(false);
    rotator.ask("finish", &finish);
    rotator.permit();
    assert_eq!(rotator.hear()["result"], json!({"removed": ["access key AKIAOLD"]}));
    assert_eq!(target.log(), ["published AKIANEW", "published AKIANEW", "removed AKIAOLD"]);
}

#[test]
fn awskey_nothing_is_taken_for_an_orphan_that_may_be_somebodys() {
    let old = aws("AKIAOLD", OLD);
    for (others, expected) in [
        // Made before the attempt, or used: not ours.
        ("AKIAX x unused 700\n", "nothing"),
        ("AKIAX x used 5\n", "nothing"),
        // Made when the attempt could change nothing any more.
        ("AKIAX x unused 1\n", "nothing"),
        // Two of them: a person decides.
        ("AKIAX x unused 5\nAKIAY y unused 6\n", "conflict"),
    ] {
        let target = Target::holding(&format!("AKIAOLD old-canary-1111 used 900\n{others}"));
        let before = target.holds();
        let mut rotator = Serving::start("awskey");
        rotator.ask(
            "revert",
            &json!({
                "account": target.account(json!({})),
                "previous": old,
                "orphans": {"existing": ["AKIAOLD"], "began_ms_ago": 60_000, "ended_ms_ago": 4_000},
            }),
        );
        let reply = rotator.hear();
        if expected == "conflict" {
            assert_eq!(kind_and_applied(&reply), ("conflict".into(), "no".into()));
        } else {
            assert_eq!(reply["result"], json!({"removed": []}));
        }
        assert_eq!(target.holds(), before);
    }
}

#[test]
fn awskey_alone_the_minted_secret_is_written_before_it_is_used() {
    let target = Target::holding("AKIAOLD old-canary-1111 used 900\n");
    let mut params = json!({"account": target.account(json!({})), "current": aws("AKIAOLD", OLD)});
    let ended = call("awskey", &["rotate"], params.to_string());
    assert_eq!((ended.status, ended.stderr.as_str()), (0, ""));
    let lines = ended.lines();
    assert!(lines[0]["progress"]["step"].is_string());
    assert_eq!(lines[1]["candidate"], aws("AKIAMADE1", "minted-canary-4471"));
    assert_eq!(lines[2]["finished"]["removed"], json!(["access key AKIAOLD"]));
    assert_eq!(lines.len(), 3);
    assert_eq!(target.holds(), "AKIAMADE1 minted-canary-4471 unused 0\n");

    params["next"] = aws("AKIAMINE", "mine");
    assert_eq!(call("awskey", &["rotate"], params.to_string()).status, 2);
}

/// Three hosts that know one key, and its owner's account.
fn hosts() -> (Target, Value, Value) {
    let target = Target::holding("");
    for host in ["a", "b", "c"] {
        target.put(host, "from=\"10.0.0.0/8\" ssh-fake 7 me@old\nssh-fake 99 colleague\n");
    }
    let account = json!({"login": "deploy", "hosts": ["a", "b", "c"], "target": target.directory.path()});
    let old = json!({"private_key": "PRIVATE-KEY-canary-7"});
    (target, account, old)
}

#[test]
fn sshkey_lagging_hosts_are_applied_again_verified_alone_and_finished() {
    let (target, account, old) = hosts();
    let mut rotator = Serving::start("sshkey");
    rotator.ask("prepare", &json!({"account": account, "current": old}));
    let next = rotator.hear()["result"]["next"].clone();
    assert!(next["private_key"].is_string() && next["passphrase"].is_string());

    let mut failing = account.clone();
    failing["read_only"] = json!("b");
    rotator.ask("apply", &json!({"account": failing, "current": old, "next": next}));
    rotator.permit();
    assert_eq!(
        rotator.hear()["result"]["hosts"],
        json!([
            {"host": "a", "applied": "yes"},
            {"host": "b", "applied": "no", "message": "b: read-only"},
            {"host": "c", "applied": "yes"},
        ])
    );

    rotator.ask("verify", &json!({"account": account, "credential": next}));
    let verdicts = rotator.hear()["result"].clone();
    assert_eq!(verdicts["verdict"], "refused");
    assert_eq!(verdicts["hosts"][1], json!({"host": "b", "verdict": "refused"}));

    let lagging = only(&account, &["b"]);
    rotator.ask("apply", &json!({"account": lagging, "current": old, "next": next}));
    rotator.permit();
    assert_eq!(rotator.hear()["result"]["hosts"], json!([{"host": "b", "applied": "yes"}]));
    rotator.ask("verify", &json!({"account": lagging, "credential": next}));
    assert_eq!(rotator.hear()["result"]["verdict"], "accepted");

    rotator.ask("finish", &json!({"account": account, "current": next, "previous": old}));
    rotator.permit();
    assert_eq!(rotator.hear()["result"]["removed"].as_array().map(Vec::len), Some(3));
    for host in ["a", "b", "c"] {
        let keys = target.of(host);
        assert!(keys.contains("ssh-fake 99 colleague") && !keys.contains("ssh-fake 7 "), "{keys}");
    }
}

#[test]
fn sshkey_a_host_that_is_down_stops_it_before_anything_changes() {
    let (target, account, old) = hosts();
    std::fs::remove_file(target.directory.path().join("c")).unwrap();
    let before = target.of("a");
    let mut rotator = Serving::start("sshkey");
    let next = json!({"private_key": "PRIVATE-KEY-canary-8"});
    rotator.ask("apply", &json!({"account": account, "current": old, "next": next}));
    assert_eq!(kind_and_applied(&rotator.hear()), ("unreachable".into(), "no".into()));
    assert_eq!((target.of("a"), target.of("b")), (before.clone(), before));
}

#[test]
fn sshkey_a_partial_change_is_reverted_everywhere() {
    let (target, mut account, old) = hosts();
    let before = target.of("a");
    account["read_only"] = json!("b");
    let mut rotator = Serving::start("sshkey");
    let next = json!({"private_key": "PRIVATE-KEY-canary-8"});
    rotator.ask("apply", &json!({"account": account, "current": old, "next": next}));
    rotator.permit();
    rotator.hear();
    rotator.ask("revert", &json!({"account": account, "current": next, "previous": old}));
    rotator.permit();
    assert_eq!(rotator.hear()["result"]["removed"], json!(["a public key on a", "a public key on c"]));
    for host in ["a", "b", "c"] {
        assert_eq!(target.of(host), before);
    }
}

#[test]
fn sshkey_a_finish_that_did_not_reach_every_host_is_open_and_can_be_repeated() {
    let (target, account, old) = hosts();
    let mut rotator = Serving::start("sshkey");
    let next = json!({"private_key": "PRIVATE-KEY-canary-8"});
    rotator.ask("apply", &json!({"account": account, "current": old, "next": next}));
    rotator.permit();
    rotator.hear();
    let finish = |read_only: &str| {
        let mut account = account.clone();
        account["read_only"] = json!(read_only);
        json!({"account": account, "current": next, "previous": old})
    };
    rotator.ask("finish", &finish("b"));
    rotator.permit();
    let reply = rotator.hear();
    assert_eq!(kind_and_applied(&reply).1, "unknown");
    assert_eq!(reply["error"]["data"]["causes"], json!(["b: b: read-only (permission)"]));
    rotator.ask("finish", &finish(""));
    rotator.permit();
    assert_eq!(rotator.hear()["result"]["removed"], json!(["a public key on b"]));
    assert!(!target.of("b").contains("ssh-fake 7 "));
}

#[test]
fn sshkey_alone_the_made_key_is_the_candidate() {
    let (target, account, old) = hosts();
    let ended = call("sshkey", &["rotate"], json!({"account": account, "current": old}).to_string());
    assert_eq!((ended.status, ended.stderr.as_str()), (0, ""));
    let lines = ended.lines();
    assert_eq!(lines[0]["candidate"], lines[1]["next"]);
    assert!(!target.of("a").contains("ssh-fake 7 "));
}

fn application(secret: &str) -> Value {
    json!({"login": "client-1", "credential": {"client_secret": secret}})
}

#[test]
fn azureadpwd_only_the_admin_acts_and_nothing_is_said_to_be_proven() {
    let target = Target::holding("nobody knows");
    let account = target.account(json!({"azure_tenant_id": "t-1"}));
    let next = json!({"password": "next-canary-5"});
    let mut rotator = Serving::start("azureadpwd");

    rotator.ask("describe", &json!({}));
    let properties = rotator.hear()["result"]["schema"]["properties"].clone();
    assert_eq!(properties["azure_secret"]["x-turnlock"], "admin");
    assert_eq!(properties["azure_secret"]["x-turnlock-field"], "client_secret");
    assert_eq!(properties["azure_client_id"]["x-turnlock-field"], "login");
    assert_eq!(properties["azure_tenant_id"]["x-turnlock"], "account");

    rotator.ask("plan", &json!({"account": account}));
    let traits = rotator.hear()["result"]["traits"].clone();
    assert_eq!((&traits["verify"], &traits["needs_current"]), (&json!("none"), &json!(false)));

    rotator.ask("check", &json!({"account": account, "admin": application("client-secret-canary")}));
    let findings = rotator.hear()["result"].clone();
    assert_eq!((&findings["authenticated"], &findings["may_rotate"]), (&json!(false), &json!("unknown")));

    rotator.ask("apply", &json!({"account": account, "next": next}));
    assert_eq!(kind_and_applied(&rotator.hear()), ("invalid_input".into(), "no".into()));

    // A refused application is no reason to think that the user has it already.
    rotator.ask("apply", &json!({"account": account, "next": next, "admin": application("wrong-canary")}));
    assert_eq!(kind_and_applied(&rotator.hear()), ("authentication".into(), "no".into()));

    let apply = json!({"account": account, "next": next, "admin": application("client-secret-canary")});
    for _again in 0..2 {
        rotator.ask("apply", &apply);
        rotator.permit();
        assert_eq!(rotator.hear()["result"], json!({}));
        assert_eq!(target.holds(), "next-canary-5");
    }
    rotator.ask("verify", &json!({"account": account, "credential": next}));
    assert_eq!(kind_and_applied(&rotator.hear()), ("unsupported".into(), "no".into()));
}

#[test]
fn azureadpwd_a_refused_secret_teaches_its_rule() {
    let target = Target::holding("nobody knows");
    let mut rotator = Serving::start("azureadpwd");
    rotator.ask(
        "apply",
        &json!({
            "account": target.account(json!({"azure_tenant_id": "t-1"})),
            "next": {"password": "short"},
            "admin": application("client-secret-canary"),
        }),
    );
    rotator.permit();
    let reply = rotator.hear();
    assert_eq!(kind_and_applied(&reply), ("policy".into(), "no".into()));
    assert_eq!(reply["error"]["data"]["learned"], json!({"min_length": 8}));
    assert_eq!(target.holds(), "nobody knows");
}

#[test]
fn azureadpwd_alone_says_that_it_is_not_verified() {
    let target = Target::holding("nobody knows");
    let params = json!({
        "account": target.account(json!({"azure_tenant_id": "t-1"})),
        "admin": application("client-secret-canary"),
    });
    let ended = call("azureadpwd", &["rotate"], params.to_string());
    assert_eq!((ended.status, ended.stderr.as_str()), (0, ""));
    assert_eq!(ended.last()["verified"], false);
    assert_eq!(ended.last()["next"]["password"], target.holds());
}
