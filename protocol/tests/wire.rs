//! The wire, pinned: one golden file for each message, both directions.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "the helpers of tests fail like tests")]

#[cfg(test)]
mod vocabulary;

use serde::Serialize;
use serde_json::{Map, Value, json};
use turnlock_protocol::message::{
    CancelParams, Hello, LogParams, MintedParams, Notification, Permit, ProgressParams, Reply, Request, RpcError,
    Staged, ThresholdParams, code,
};
use turnlock_protocol::operation::{
    Admin, ApplyParams, ApplyResult, CheckParams, CredentialState, Finding, Findings, FinishParams, Finished,
    HostOutcome, HostVerdict, MayRotate, Operation, Orphans, PlanParams, PlanResult, PrepareParams, Prepared,
    RevertParams, Severity, Terms, Verdict, Verdicts, VerifyParams,
};
use turnlock_protocol::{
    Applied, Count, Credential, Describe, Fault, Hosts, Incoming, Kind, Malformed, Origin, Overlap, PasswordLimits,
    Policy, RequestId, Secret, Traits, VerifyBy,
};

use vocabulary::{Asked, compare_or_write, file, names_in, reread};

/// One message: its file's name, what it carries, and its line.
struct Message {
    name: &'static str,
    carries: &'static str,
    line: String,
}

const HOST: RequestId = RequestId::Host(1);

fn rotator() -> RequestId {
    RequestId::Rotator("t1".into())
}

fn ask(name: &'static str, operation: Operation, carries: &'static str, params: impl Serialize) -> Message {
    let terms = Terms::within(30_000);
    let request = Request::new(HOST, operation.name(), Asked { terms, params });
    Message { name, carries, line: serde_json::to_string(&request).unwrap() }
}

fn request(name: &'static str, method: &str, carries: &'static str, params: impl Serialize) -> Message {
    let request = Request::new(rotator(), method, params);
    Message { name, carries, line: serde_json::to_string(&request).unwrap() }
}

fn say(name: &'static str, method: &str, carries: &'static str, params: impl Serialize) -> Message {
    let line = serde_json::to_string(&Notification::new(method, params)).unwrap();
    Message { name, carries, line }
}

fn reply(name: &'static str, id: RequestId, carries: &'static str, result: impl Serialize) -> Message {
    let line = serde_json::to_string(&Reply::result(id, result)).unwrap();
    Message { name, carries, line }
}

fn error(name: &'static str, id: Option<RequestId>, error: impl Into<RpcError>) -> Message {
    let line = serde_json::to_string(&Reply::error(id, error)).unwrap();
    Message { name, carries: "error", line }
}

fn account() -> Map<String, Value> {
    let account = json!({"host": "db1.example.com", "port": 5432, "login": "app"});
    account.as_object().cloned().unwrap_or_default()
}

fn password(text: &str) -> Credential {
    Credential::password(Secret::new(text.into()))
}

fn key(id: &str, secret: &str) -> Credential {
    Credential::empty()
        .with("access_key_id", Secret::new(id.into()))
        .with("secret_access_key", Secret::new(secret.into()))
}

fn admin() -> Option<Admin> {
    let account = json!({"db": "postgres"});
    Some(Admin {
        login: "dba".into(),
        credential: password("admin-secret"),
        account: account.as_object().cloned().unwrap_or_default(),
    })
}

fn policy() -> Policy {
    Policy {
        length: 24,
        upper: Count::AtLeast(2),
        lower: Count::AtLeast(1),
        digits: Count::Exactly(4),
        symbols: Count::Exactly(0),
        symbol_set: "!@#".into(),
        limits: limits(),
    }
}

fn limits() -> PasswordLimits {
    PasswordLimits { min_length: Some(12), max_length: Some(30), forbidden: "\"\u{0}".into() }
}

fn traits() -> Traits {
    Traits {
        origin: Origin::Target,
        overlap: Overlap::Both,
        needs_current: true,
        admin_reset: true,
        verify: VerifyBy::Admin,
        lockout_sensitive: true,
        lockout_window_ms: 1_800_000,
        settle_ms: 10_000,
        hosts: Hosts::Many,
        policy_from_target: true,
        finish: true,
        publishes: true,
        password: limits(),
    }
}

fn fault() -> Fault {
    let mut fault = Fault::new(Kind::Policy, "db1.example.com refuses this password for \"app\"")
        .hint("ask for at least 12 characters");
    fault.retry_after_ms = Some(1500);
    fault.causes = vec!["db error".into(), "ERROR: password is too short".into()];
    fault.learned = Some(Box::new(PasswordLimits { min_length: Some(12), ..PasswordLimits::default() }));
    fault
}

fn messages() -> Vec<Message> {
    let outcome = |host: &str, applied, message: Option<&str>| HostOutcome {
        host: host.into(),
        applied,
        message: message.map(str::to_owned),
    };
    let verdict = |host: &str, verdict, message: Option<&str>| HostVerdict {
        host: host.into(),
        verdict,
        message: message.map(str::to_owned),
    };
    vec![
        say(
            "hello",
            "hello",
            "hello.params",
            Hello {
                protocol: vec![1],
                plugin: "postgresql".into(),
                version: "0.1.0".into(),
                operations: Operation::ALL.map(|operation| operation.name().to_owned()).to_vec(),
            },
        ),
        ask("describe.request", Operation::Describe, "describe.params", json!({})),
        reply(
            "describe.result",
            HOST,
            "describe.result",
            Describe {
                plugin: "postgresql".into(),
                version: "0.1.0".into(),
                summary: "Rotates the password of a PostgreSQL role.".into(),
                schema: json!({
                    "type": "object",
                    "properties": {
                        "host": {"type": "string", "x-turnlock": "account"},
                        "aws_key_id": {"type": "string", "x-turnlock": "write-back", "x-turnlock-field": "access_key_id"},
                    },
                    "required": ["host"],
                }),
                default_port: Some(5432),
                ports: vec![6432],
                url_schemes: vec!["postgres".into(), "postgresql".into()],
                environment: vec!["PGSSLROOTCERT".into()],
                traits: traits(),
            },
        ),
        ask("plan.request", Operation::Plan, "plan.params", PlanParams { account: account(), admin: admin() }),
        reply("plan.result", HOST, "plan.result", PlanResult { traits: Traits::password() }),
        ask(
            "check.request",
            Operation::Check,
            "check.params",
            CheckParams { account: account(), current: password("old-secret"), admin: admin() },
        ),
        reply(
            "check.result",
            HOST,
            "check.result",
            Findings {
                server: Some("PostgreSQL 17.2".into()),
                tls: Some("TLS, certificate and name verified".into()),
                authenticated: true,
                may_rotate: MayRotate::Yes,
                findings: [Severity::Info, Severity::Warning, Severity::Error]
                    .map(|severity| Finding { severity, message: "the password is valid until 2027-01-01".into() })
                    .to_vec(),
            },
        ),
        ask(
            "prepare.request",
            Operation::Prepare,
            "prepare.params",
            PrepareParams {
                account: account(),
                current: Some(password("old-secret")),
                policy: policy(),
                admin: admin(),
            },
        ),
        reply(
            "prepare.result.policy",
            HOST,
            "prepare.result",
            Prepared { policy: Some(policy()), ..Prepared::default() },
        ),
        reply(
            "prepare.result.next",
            HOST,
            "prepare.result",
            Prepared {
                next: Some(
                    Credential::empty()
                        .with("private_key", Secret::new("-----BEGIN OPENSSH PRIVATE KEY-----\n…\n".into()))
                        .with("public_key", Secret::new("ssh-ed25519 AAAA…".into())),
                ),
                ..Prepared::default()
            },
        ),
        reply(
            "prepare.result.existing",
            HOST,
            "prepare.result",
            Prepared { existing: vec!["AKIAOLD".into()], ..Prepared::default() },
        ),
        ask(
            "apply.request",
            Operation::Apply,
            "apply.params",
            ApplyParams {
                account: account(),
                current: password("old-secret"),
                next: Some(password("new-\"secret\"")),
                admin: admin(),
                attempt: "01JD8K".into(),
            },
        ),
        ask(
            "apply.request.minted",
            Operation::Apply,
            "apply.params",
            ApplyParams {
                account: account(),
                current: key("AKIAOLD", "old-secret"),
                next: None,
                admin: None,
                attempt: "01JD8K".into(),
            },
        ),
        reply("apply.result", HOST, "apply.result", ApplyResult::default()),
        reply(
            "apply.result.minted",
            HOST,
            "apply.result",
            ApplyResult { next: Some(key("AKIANEW", "new-secret")), ..ApplyResult::default() },
        ),
        reply(
            "apply.result.hosts",
            HOST,
            "apply.result",
            ApplyResult {
                next: None,
                hosts: vec![
                    outcome("a.example.com", Applied::Yes, None),
                    outcome("b.example.com", Applied::No, Some("permission denied")),
                    outcome("c.example.com", Applied::Unknown, Some("connection lost")),
                ],
                warnings: vec!["a.example.com: the file was not owned by its user".into()],
            },
        ),
        ask(
            "verify.request",
            Operation::Verify,
            "verify.params",
            VerifyParams { account: account(), credential: password("new-secret"), admin: admin() },
        ),
        reply("verify.result.accepted", HOST, "verify.result", Verdicts::accepted()),
        reply("verify.result.expired", HOST, "verify.result", Verdicts::accepted_but(CredentialState::Expired)),
        reply("verify.result.must_change", HOST, "verify.result", Verdicts::accepted_but(CredentialState::MustChange)),
        reply("verify.result.refused", HOST, "verify.result", Verdicts::refused()),
        reply(
            "verify.result.hosts",
            HOST,
            "verify.result",
            Verdicts {
                hosts: vec![
                    verdict("a.example.com", Some(Verdict::Accepted), None),
                    verdict("b.example.com", Some(Verdict::Refused), None),
                    verdict("c.example.com", None, Some("c.example.com does not answer")),
                ],
                ..Verdicts::refused()
            },
        ),
        ask(
            "finish.request",
            Operation::Finish,
            "finish.params",
            FinishParams {
                account: account(),
                current: key("AKIANEW", "new-secret"),
                previous: key("AKIAOLD", "old-secret"),
                admin: admin(),
                in_grace: true,
            },
        ),
        reply(
            "finish.result",
            HOST,
            "finish.result",
            Finished {
                removed: vec!["access key AKIAOLD".into()],
                left: None,
                warnings: vec!["it was last used 3 minutes ago".into()],
            },
        ),
        ask(
            "revert.request",
            Operation::Revert,
            "revert.params",
            RevertParams {
                account: account(),
                current: password("new-secret"),
                previous: password("old-secret"),
                admin: admin(),
                orphans: None,
            },
        ),
        ask(
            "revert.request.orphans",
            Operation::Revert,
            "revert.params",
            RevertParams {
                account: account(),
                current: Credential::empty(),
                previous: key("AKIAOLD", "old-secret"),
                admin: None,
                orphans: Some(Orphans { existing: vec!["AKIAOLD".into()], began_ms_ago: 42_000, ended_ms_ago: 2_000 }),
            },
        ),
        reply(
            "revert.result",
            HOST,
            "revert.result",
            Finished { removed: vec!["a public key on a.example.com".into()], ..Finished::default() },
        ),
        reply(
            "revert.result.left",
            HOST,
            "revert.result",
            Finished {
                left: Some(Credential::empty().with("access_key_id", Secret::new("AKIAORPHAN".into()))),
                warnings: vec!["access key AKIAORPHAN is inactive now".into()],
                ..Finished::default()
            },
        ),
        request("threshold.request", "threshold", "threshold.params", ThresholdParams { id: 1 }),
        reply("threshold.permit", rotator(), "threshold.result", Permit { proceed: true }),
        reply("threshold.refusal", rotator(), "threshold.result", Permit { proceed: false }),
        request(
            "minted.request",
            "minted",
            "minted.params",
            MintedParams { id: 1, next: key("AKIANEW", "new-secret") },
        ),
        reply("minted.staged", rotator(), "minted.result", Staged { staged: true }),
        say("progress", "progress", "progress.params", ProgressParams { id: 1, step: "logging in".into() }),
        say(
            "log",
            "log",
            "log.params",
            LogParams { id: Some(1), level: "warning".into(), message: "the server's clock is 40 s behind".into() },
        ),
        say("cancel", "cancel", "cancel.params", CancelParams { id: 1 }),
        error("error.fault", Some(HOST), fault()),
        error(
            "error.unreachable",
            Some(HOST),
            Fault::new(Kind::Unreachable, "db1.example.com:5432 could not be reached"),
        ),
        error(
            "error.unknown",
            Some(HOST),
            Fault {
                applied: Applied::Unknown,
                retryable: false,
                ..Fault::new(Kind::Timeout, "apply took longer than 30000 ms")
            },
        ),
        error(
            "error.no_such_operation",
            Some(HOST),
            RpcError::new(code::METHOD_NOT_FOUND, "this rotator does not know that operation"),
        ),
        error("error.busy", Some(HOST), RpcError::new(code::INVALID_REQUEST, "one request at a time")),
        error("error.garbled", None, RpcError::new(code::PARSE, Malformed { line: 1, column: 17 }.to_string())),
        error(
            "error.no_such_request",
            Some(rotator()),
            RpcError::new(code::METHOD_NOT_FOUND, "this host does not know that request"),
        ),
    ]
}

/// What a message carries, as text.
fn cargo(line: &str) -> Result<String, Malformed> {
    Ok(match Incoming::parse(line.as_bytes())? {
        Incoming::Request { params, .. } | Incoming::Notification { params, .. } => {
            params.map_or_else(String::new, |params| params.get().to_owned())
        }
        Incoming::Result { result, .. } => result.get().to_owned(),
        Incoming::Error { error, .. } => serde_json::to_string(&error).unwrap(),
    })
}

fn read(message: &Message, line: &str) -> Result<String, Malformed> {
    reread(message.carries, &cargo(line)?).unwrap().map_err(|error| Malformed::from(&error))
}

#[test]
fn every_message_is_what_its_golden_file_says() {
    let messages = messages();
    for message in &messages {
        let value: Value = serde_json::from_str(&message.line).unwrap();
        assert_eq!(value.to_string(), message.line, "objects keep their order here");
        let pretty = serde_json::to_string_pretty(&value).unwrap() + "\n";
        compare_or_write(&file(&format!("wire/{}.json", message.name)), &pretty);
    }
    let mut names: Vec<String> = messages.iter().map(|message| format!("{}.json", message.name)).collect();
    names.sort();
    assert_eq!(names_in("wire"), names);
}

#[test]
fn every_golden_file_is_read_back_into_its_type() {
    for message in messages() {
        let golden = std::fs::read_to_string(file(&format!("wire/{}.json", message.name))).unwrap();
        let golden: Value = serde_json::from_str(&golden).unwrap();
        let line = golden.to_string();
        assert_eq!(read(&message, &line).unwrap(), cargo(&message.line).unwrap(), "{}", message.name);
    }
}

#[test]
fn a_message_keeps_its_id_and_its_method() {
    for message in messages() {
        let value: Value = serde_json::from_str(&message.line).unwrap();
        let (id, method) = match Incoming::parse(message.line.as_bytes()).unwrap() {
            Incoming::Request { id, method, .. } => (Some(id), Some(method)),
            Incoming::Notification { method, .. } => (None, Some(method)),
            Incoming::Result { id, .. } => (Some(id), None),
            Incoming::Error { id, .. } => (id, None),
        };
        let id = id.map_or(Value::Null, |id| serde_json::to_value(id).unwrap());
        assert_eq!(value.get("id").unwrap_or(&Value::Null), &id, "{}", message.name);
        assert_eq!(value.get("method").and_then(Value::as_str), method);
    }
}

/// Fields whose content is open: a newer peer's extra field there would be an
/// account's, a credential's or a schema's.
const OPEN: [&str; 11] =
    ["account", "current", "next", "previous", "left", "credential", "schema", "upper", "lower", "digits", "symbols"];

fn with_extras(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut new: Map<String, Value> = Map::new();
            new.insert("x-newer".into(), json!({"deep": ["canary", 1, null]}));
            for (name, field) in fields {
                let open = OPEN.contains(&name.as_str());
                new.insert(name.clone(), if open { field.clone() } else { with_extras(field) });
            }
            Value::Object(new)
        }
        Value::Array(items) => Value::Array(items.iter().map(with_extras).collect()),
        other => other.clone(),
    }
}

#[test]
fn fields_of_a_newer_peer_are_ignored_everywhere() {
    for message in messages() {
        let value: Value = serde_json::from_str(&message.line).unwrap();
        let line = with_extras(&value).to_string();
        assert!(line.contains("x-newer"));
        assert_eq!(read(&message, &line).unwrap(), cargo(&message.line).unwrap(), "{}", message.name);
    }
}

/// The same value with one thing in it replaced by another type, for each
/// thing in it.
fn broken(value: &Value) -> Vec<Value> {
    let other = match value {
        Value::String(_) | Value::Object(_) | Value::Array(_) => json!(424_242_424_242_u64),
        _ => json!("canary-424242"),
    };
    let mut all = vec![other];
    match value {
        Value::Object(fields) => {
            for (name, field) in fields.iter().filter(|(name, _)| !OPEN.contains(&name.as_str())) {
                for new in broken(field) {
                    let mut fields = fields.clone();
                    fields.insert(name.clone(), new);
                    all.push(Value::Object(fields));
                }
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                for new in broken(item) {
                    let mut items = items.clone();
                    items[at] = new;
                    all.push(Value::Array(items));
                }
            }
        }
        _ => {}
    }
    all
}

#[test]
fn wrong_types_are_told_by_place_and_never_by_value() {
    let mut seen = 0;
    for message in messages() {
        let value: Value = serde_json::from_str(&message.line).unwrap();
        for part in ["params", "result", "error"] {
            let Some(inner) = value.get(part) else {
                continue;
            };
            for new in broken(inner) {
                let mut value = value.clone();
                value[part] = new;
                let line = value.to_string();
                let malformed = read(&message, &line).expect_err(&line);
                assert!(malformed.column > 0 && malformed.line == 1, "{line}");
                let text = format!("{malformed} {malformed:?}");
                assert!(!text.contains("canary") && !text.contains("424242"), "{text}");
                seen += 1;
            }
        }
    }
    assert!(seen > 200, "{seen}");
}

#[test]
fn a_secret_of_the_wrong_type_is_told_by_place_too() {
    for wrong in [r#"["canary"]"#, r#"{"canary": 1}"#, "424242", "null", "true"] {
        let params = format!(r#"{{"account": {{}}, "credential": {{"password": {wrong}}}}}"#);
        let error = reread("verify.params", &params).unwrap().unwrap_err();
        let text = Malformed::from(&error).to_string();
        assert!(text.starts_with("not a valid message at line 1, column "));
        assert!(!text.contains("canary") && !text.contains("424242"));
    }
}

#[test]
fn what_is_no_frame_is_malformed() {
    for line in [
        "",
        "canary",
        "[]",
        "7",
        "null",
        "{}",
        r#"{"jsonrpc": "2.0"}"#,
        r#"{"jsonrpc": "2.0", "id": 1}"#,
        r#"{"jsonrpc": "1.0", "id": 1, "method": "canary"}"#,
        r#"{"jsonrpc": 2, "id": 1, "method": "canary"}"#,
        r#"{"id": 1, "method": "canary"}"#,
        r#"{"jsonrpc": "2.0", "id": 1, "method": 7}"#,
        r#"{"jsonrpc": "2.0", "id": -1, "method": "canary"}"#,
        r#"{"jsonrpc": "2.0", "id": 1.5, "method": "canary"}"#,
        r#"{"jsonrpc": "2.0", "id": {"canary": 1}, "method": "canary"}"#,
        r#"{"jsonrpc": "2.0", "id": 1, "method": "canary", "result": 1}"#,
        r#"{"jsonrpc": "2.0", "id": 1, "result": 1, "error": {"code": 1, "message": "canary"}}"#,
        r#"{"jsonrpc": "2.0", "result": {"canary": 1}}"#,
        r#"{"jsonrpc": "2.0", "id": 1, "id": 2, "method": "canary"}"#,
        r#"{"jsonrpc": "2.0", "id": 1, "method": "canary"} {}"#,
        "\u{feff}{\"jsonrpc\": \"2.0\", \"id\": 1, \"method\": \"canary\"}",
        // Serde alone would read it field by field.
        r#"["2.0", "t1", null, null, {"proceed": true}, null]"#,
    ] {
        let malformed = Incoming::parse(line.as_bytes()).expect_err(line);
        assert!(!malformed.to_string().contains("canary"));
    }
    assert!(Incoming::parse(b"{\"jsonrpc\":\"2.0\",\"method\":\"\xff\"}").is_err());
}

#[test]
fn null_is_a_result_and_a_null_beside_an_error_is_none() {
    let parse = |line: &'static str| Incoming::parse(line.as_bytes()).unwrap();
    assert!(matches!(
        parse(r#"{"jsonrpc":"2.0","id":"t1","result":null}"#),
        Incoming::Result { result, .. } if result.get() == "null"
    ));
    assert!(matches!(
        parse(r#"{"jsonrpc":"2.0","id":1,"result":null,"error":{"code":1,"message":"x"}}"#),
        Incoming::Error { id: Some(RequestId::Host(1)), .. }
    ));
    assert!(matches!(parse(r#"{"jsonrpc":"2.0","id":1,"result":{},"error":null}"#), Incoming::Result { .. }));
}

#[test]
fn words_of_a_newer_peer_are_read_as_the_careful_choice() {
    let fault: Fault = serde_json::from_str(r#"{"kind": "quantum", "applied": "partly"}"#).unwrap();
    assert_eq!((fault.kind, fault.applied, fault.retryable), (Kind::Unknown, Applied::Unknown, false));
    let fault: Fault = serde_json::from_str("{}").unwrap();
    assert_eq!((fault.kind, fault.applied), (Kind::Unknown, Applied::Unknown));

    let verdicts: Verdicts = serde_json::from_str(r#"{"verdict": "accepted", "state": "sleepy"}"#).unwrap();
    assert_eq!(verdicts.state, Some(CredentialState::Other));
    let findings: Findings =
        serde_json::from_str(r#"{"may_rotate": "tuesdays", "findings": [{"severity": "grave", "message": "m"}]}"#)
            .unwrap();
    assert_eq!(findings.may_rotate, MayRotate::Unknown);
    assert_eq!(findings.findings[0].severity, Severity::Warning);
    let log: LogParams = serde_json::from_str(r#"{"level": "shout", "message": "m"}"#).unwrap();
    assert_eq!(log.level, "shout");
}

#[test]
fn no_word_of_a_newer_peer_is_taken_for_a_verdict_a_permit_or_a_trait() {
    assert!(serde_json::from_str::<Verdicts>(r#"{"verdict": "mostly"}"#).is_err());
    assert!(serde_json::from_str::<Verdicts>("{}").is_err());
    for answer in ["{}", "null", "true", r#"{"proceed": "true"}"#, r#"{"proceed": 1}"#, r#"{"proceed": null}"#] {
        assert!(serde_json::from_str::<Permit>(answer).is_err(), "{answer}");
    }
    assert!(serde_json::from_str::<Staged>(r#"{"staged": "yes"}"#).is_err());
    for name in ["origin", "overlap", "verify", "hosts"] {
        let mut traits = serde_json::to_value(traits()).unwrap();
        traits[name] = json!("newer");
        assert!(serde_json::from_value::<Traits>(traits).is_err(), "{name}");
    }
}

#[test]
fn a_bare_error_code_claims_nothing_about_the_target() {
    for (code, kind) in [
        (code::METHOD_NOT_FOUND, Kind::Unsupported),
        (code::PARSE, Kind::InvalidInput),
        (code::INVALID_REQUEST, Kind::InvalidInput),
        (code::INVALID_PARAMS, Kind::InvalidInput),
        (code::FAULT, Kind::Internal),
        (-32603, Kind::Internal),
        (7, Kind::Internal),
    ] {
        let fault = RpcError::new(code, "what").into_fault();
        assert_eq!((fault.kind, fault.applied, fault.retryable), (kind, Applied::Unknown, false));
        assert_eq!(fault.message, "what");
    }
    let fault = RpcError::from(fault()).into_fault();
    assert_eq!(fault, self::fault());
}

#[test]
fn every_kind_has_one_name_and_is_read_by_it() {
    for kind in [
        Kind::InvalidInput,
        Kind::Unreachable,
        Kind::Tls,
        Kind::HostKey,
        Kind::Authentication,
        Kind::Permission,
        Kind::Policy,
        Kind::LockedOut,
        Kind::RateLimited,
        Kind::NotFound,
        Kind::Conflict,
        Kind::Timeout,
        Kind::Cancelled,
        Kind::Unsupported,
        Kind::Internal,
        Kind::Unknown,
    ] {
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        assert_eq!(serde_json::from_value::<Kind>(json!(kind.name())).unwrap(), kind);
    }
    for operation in Operation::ALL {
        assert_eq!(serde_json::to_value(operation).unwrap(), operation.name());
        assert_eq!(Operation::named(operation.name()), Some(operation));
    }
}

#[test]
fn absent_terms_mean_version_1_and_thirty_seconds() {
    assert_eq!(serde_json::from_str::<Terms>("{}").unwrap(), Terms::within(30_000));
}
