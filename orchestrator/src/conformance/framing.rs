//! What needs no account: hello, description, frames, versions, exit statuses.

use std::fs::OpenOptions;
use std::process::Stdio;

use serde_json::{Map, Value, json};
use turnlock_protocol::message::code;
use turnlock_protocol::{Describe, Kind, MAX_LINE, Operation, RequestId, VERSIONS};

use super::bench::{Bench, CANARY};
use super::dialogue::{self, is_fault};
use super::{Stopped, broken, must};
use crate::catalogue::Catalogue;

/// Without these no rotation can be conducted.
const NEEDED: [Operation; 5] =
    [Operation::Describe, Operation::Plan, Operation::Check, Operation::Apply, Operation::Verify];

pub(super) fn hello(bench: &mut Bench<'_>) -> Result<(), Stopped> {
    let (dialogue, hello) = bench.greeted()?;
    must(hello.plugin == bench.plugin(), || {
        format!("it calls itself {:?}, and was found as {:?}", hello.plugin, bench.plugin())
    })?;
    must(hello.protocol.iter().any(|version| VERSIONS.contains(version)), || {
        format!("it speaks {:?}, and {VERSIONS:?} is needed", hello.protocol)
    })?;
    must(!hello.version.is_empty(), || "it has no version".to_owned())?;
    let lacking = NEEDED.iter().find(|needed| !hello.operations.iter().any(|known| known == needed.name()));
    if let Some(lacking) = lacking {
        return Err(broken(format!("it does not know {}", lacking.name())));
    }
    dialogue.end(0)
}

pub(super) fn describe(bench: &mut Bench<'_>) -> Result<(), Stopped> {
    let mut dialogue = bench.serve()?;
    let again: Describe = dialogue
        .read(Operation::Describe, &Map::new())?
        .map_err(|error| broken(format!("it refused to describe itself again ({})", error.code)))?;
    must(again == bench.describe, || "it describes itself differently the second time".to_owned())?;
    must(again.plugin == bench.plugin(), || format!("it calls itself {:?}", again.plugin))?;
    must(!again.summary.is_empty(), || "its summary is empty".to_owned())?;
    Catalogue::new().insert(again).map_err(|error| broken(error.to_string()))?;
    dialogue.end(0)
}

pub(super) fn one_shot_equals_serve(bench: &mut Bench<'_>) -> Result<(), Stopped> {
    let ended = bench.alone(&["describe"], b"")?;
    ended.must_end_with(0)?;
    match ended.lines::<Describe>()?.as_slice() {
        [alone] if *alone == bench.describe => Ok(()),
        [_] => Err(broken("it describes itself differently in one shot")),
        lines => Err(broken(format!("it wrote {} lines", lines.len()))),
    }
}

pub(super) fn help(bench: &mut Bench<'_>) -> Result<(), Stopped> {
    for argument in ["--help", "--version", "--schema"] {
        let ended = bench.alone(&[argument], b"")?;
        must(ended.status == 0 && !ended.output.is_empty(), || {
            format!("{argument} ended with status {} and wrote {} bytes", ended.status, ended.output.len())
        })?;
        if argument == "--schema" {
            let schema: Value = serde_json::from_slice(&ended.output).map_err(|_| broken("--schema wrote no JSON"))?;
            must(schema == bench.describe.schema, || "--schema wrote another schema than describe".to_owned())?;
        }
    }
    Ok(())
}

pub(super) fn malformed(bench: &mut Bench<'_>) -> Result<(), Stopped> {
    let lines: [&[u8]; 9] = [
        b"canary-5d7e",
        b"",
        b"7",
        b"[]",
        b"[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"describe\"}]",
        b"\xef\xbb\xbf{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"describe\"}",
        b"{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"describe\"}",
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"canary-5d7e",
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\xfe\"}",
    ];
    for line in lines {
        let mut dialogue = bench.serve()?;
        dialogue.send(&[line, b"\n"].concat())?;
        let of_line = |stopped| match stopped {
            Stopped::Broken(what) => broken(format!("{:?}: {what}", String::from_utf8_lossy(line))),
            other => other,
        };
        dialogue.code(None, code::PARSE).map_err(of_line)?;
        dialogue.ends(2).map_err(of_line)?;
    }
    Ok(())
}

pub(super) fn oversized_line(bench: &mut Bench<'_>) -> Result<(), Stopped> {
    let mut dialogue = bench.serve()?;
    // It may stop reading before it has all of it.
    let _ = dialogue.send(&[vec![b'9'; MAX_LINE + 1].as_slice(), b"\n"].concat());
    dialogue.code(None, code::INVALID_REQUEST)?;
    dialogue.ends(2)
}

pub(super) fn longest_line(bench: &mut Bench<'_>) -> Result<(), Stopped> {
    let mut dialogue = bench.serve()?;
    let (head, tail) = (r#"{"jsonrpc":"2.0","id":0,"method":"describe","params":{"pad":""#, "\"}}");
    let pad = "x".repeat(MAX_LINE - head.len() - tail.len());
    dialogue.send(format!("{head}{pad}{tail}\r\n").as_bytes())?;
    dialogue.outcome::<Describe>(0)?.map_err(|error| broken(format!("it refused it with {}", error.code)))?;
    dialogue.end(0)
}

pub(super) fn cut_off_line(bench: &mut Bench<'_>) -> Result<(), Stopped> {
    let mut dialogue = bench.serve()?;
    dialogue.send(br#"{"jsonrpc":"2.0","id":1,"method":"descr"#)?;
    dialogue.end(0)
}

pub(super) fn end_of_input(bench: &mut Bench<'_>) -> Result<(), Stopped> {
    bench.serve()?.end(0)
}

pub(super) fn wrong_types(bench: &mut Bench<'_>) -> Result<(), Stopped> {
    let mut dialogue = bench.serve()?;
    for (method, params) in [
        ("apply", json!(CANARY)),
        ("apply", json!([CANARY])),
        ("apply", json!({"account": CANARY})),
        ("apply", json!({"account": {}, "current": CANARY})),
        ("apply", json!({"account": {}, "current": {"password": {CANARY: 1}}})),
        ("apply", json!({"account": {}, "next": [CANARY]})),
        ("apply", json!({"protocol": CANARY, "account": {}})),
        ("apply", json!({"deadline_ms": CANARY, "account": {}})),
        ("verify", json!({"account": {}, "credential": [CANARY]})),
        ("check", json!({"account": {}, "admin": CANARY})),
        ("plan", Value::Null),
    ] {
        let id = dialogue.request(method, &params)?;
        let error = match dialogue.outcome::<Value>(id)? {
            Err(error) => error,
            Ok(_) => return Err(broken(format!("{method} took params that do not fit"))),
        };
        must(error.code == code::INVALID_PARAMS, || format!("{method} was refused with {}", error.code))?;
        is_fault(&error, Kind::InvalidInput)?;
    }
    dialogue.end(0)
}

pub(super) fn unknown_operation(bench: &mut Bench<'_>) -> Result<(), Stopped> {
    let mut dialogue = bench.serve()?;
    let id = dialogue.request(CANARY, &json!({}))?;
    dialogue.code(Some(RequestId::Host(id)), code::METHOD_NOT_FOUND)?;
    dialogue.say(&json!({"jsonrpc": "2.0", "method": "applause", "params": {"loud": true}}))?;
    dialogue.say(&json!({"jsonrpc": "2.0", "method": "cancel", "params": {"id": 77}}))?;
    dialogue.say(&json!({"jsonrpc": "2.0", "id": "t99", "result": {"proceed": true}}))?;
    still_serves(bench, dialogue)
}

pub(super) fn wrong_id(bench: &mut Bench<'_>) -> Result<(), Stopped> {
    let mut dialogue = bench.serve()?;
    dialogue.say(&json!({"jsonrpc": "2.0", "id": "mine", "method": "describe", "params": {}}))?;
    dialogue.code(Some(RequestId::Rotator("mine".to_owned())), code::INVALID_REQUEST)?;
    still_serves(bench, dialogue)
}

pub(super) fn other_version(bench: &mut Bench<'_>) -> Result<(), Stopped> {
    let mut dialogue = bench.serve()?;
    for version in [0, 99] {
        let params = json!({"protocol": version, "deadline_ms": 5_000, "account": {}});
        let id = dialogue.request("plan", &params)?;
        dialogue.refusal(id, Kind::Unsupported)?;
    }
    still_serves(bench, dialogue)
}

pub(super) fn unknown_fields(bench: &mut Bench<'_>) -> Result<(), Stopped> {
    let mut dialogue = bench.serve()?;
    dialogue.say(&json!({"jsonrpc": "2.0", "id": 50, "method": "describe", "trace": [1, {"a": 2}],
        "params": {"protocol": 1, "deadline_ms": 5_000, "mood": {"deep": [1, 2, 3]}}}))?;
    dialogue.outcome::<Describe>(50)?.map_err(|error| broken(format!("it refused them with {}", error.code)))?;
    dialogue.end(0)
}

pub(super) fn usage(bench: &mut Bench<'_>) -> Result<(), Stopped> {
    let huge = format!("{{\"pad\": \"{}\"}}", "x".repeat(MAX_LINE));
    for (arguments, input) in [
        (&["applause"][..], ""),
        (&["--nonsense"][..], ""),
        (&["check", "check"][..], "{}"),
        (&["rotate"][..], CANARY),
        (&["rotate"][..], "{}"),
        (&["check"][..], "{\"account\": \"canary-5d7e\"}"),
        (&["check"][..], "\u{feff}{}"),
        (&["check"][..], ""),
        (&["check"][..], &huge),
    ] {
        let ended = bench.alone(arguments, input.as_bytes())?;
        must(ended.status == 2, || format!("{arguments:?} with {input:.40?} ended with status {}", ended.status))?;
        bench.look(&ended, "its standard output");
    }
    Ok(())
}

pub(super) fn unwritable_output(bench: &mut Bench<'_>) -> Result<(), Stopped> {
    bench.alone_into(&["describe"], b"", full_disk()?)?.must_end_with(3)
}

/// An output that cannot be written.
pub(super) fn full_disk() -> Result<Stdio, Stopped> {
    let full = OpenOptions::new().write(true).open("/dev/full");
    full.map(Stdio::from).map_err(|_| Stopped::DoesNotApply("this system has no /dev/full"))
}

/// Nothing of what was said has ended or confused it.
fn still_serves(bench: &Bench<'_>, mut dialogue: dialogue::Dialogue) -> Result<(), Stopped> {
    match dialogue.read::<Describe>(Operation::Describe, &Map::new())? {
        Ok(describe) if describe == bench.describe => dialogue.end(0),
        _ => Err(broken("it no longer describes itself")),
    }
}
