//! `lab-misbehaver`: a rotator that keeps a password in a file, in every way
//! in which no rotator may. Copied under the name `turnlock-misbehaver`; which
//! way, the file `way` beside it says. `tests/misbehaver.rs` has the list.

#![expect(clippy::indexing_slicing, reason = "serde_json's index by name panics for no value that is read")]

use std::{
    fs,
    io::{self, BufRead, Write},
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    time::Duration,
};

use lab::process::command;
use serde_json::{Value, json};

/// More than a pipe, a line or a patience takes.
const FLOOD: usize = 64 << 20;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("hold") {
        // Only here to keep somebody else's standard output open.
        silent();
    }
    let way = std::env::current_exe().ok().and_then(|own| fs::read_to_string(own.with_file_name("way")).ok());
    match serve(way.unwrap_or_default().trim()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn serve(way: &str) -> io::Result<()> {
    let mut protocol = json!([1]);
    let mut plugin = "misbehaver";
    match way {
        "silent-at-start" => silent(),
        "dies-at-start" => return Err(io::ErrorKind::Other.into()),
        "garbage-for-hello" => say_line("Welcome to the misbehaver, version 1")?,
        "endless-hello" => endless()?,
        "other-plugin" => plugin = "postgresql",
        "other-version" => protocol = json!([2, 3]),
        _ => {}
    }
    let operations = ["describe", "plan", "check", "apply", "verify"];
    let hello = json!({"protocol": protocol, "plugin": plugin, "version": "0", "operations": operations});
    say(&json!({"jsonrpc": "2.0", "method": "hello", "params": hello}))?;
    while let Some(request) = hear()? {
        let params = &request["params"];
        let result = match request["method"].as_str() {
            Some("describe") => describe(),
            Some("plan") => json!({"traits": describe()["traits"]}),
            Some("verify") if way == "proves-what-is-not-so" => json!({"verdict": "accepted"}),
            Some("verify") => {
                let accepted = holds(params).as_deref() == params["credential"]["password"].as_str();
                json!({"verdict": if accepted { "accepted" } else { "refused" }})
            }
            Some("apply") => {
                apply(way, &request)?;
                continue;
            }
            _ => json!({}),
        };
        answer(&request, &result)?;
    }
    if way == "ignores-the-end-of-input" {
        silent();
    }
    Ok(())
}

fn describe() -> Value {
    json!({
        "plugin": "misbehaver",
        "version": "0",
        "summary": "Does everything wrong.",
        "schema": {"type": "object", "required": ["login", "target"], "properties": {
            "login": {"type": "string", "x-turnlock": "account"},
            "target": {"type": "string", "x-turnlock": "account"},
            "password": {"type": "string", "writeOnly": true, "x-turnlock": "write-back"},
        }},
        "traits": {"origin": "orchestrator", "overlap": "none", "needs_current": true, "admin_reset": false,
            "verify": "login", "hosts": "one"},
    })
}

fn apply(way: &str, request: &Value) -> io::Result<()> {
    let params = &request["params"];
    if holds(params).as_deref() != params["current"]["password"].as_str() {
        return refuse(request, "authentication", "no");
    }
    // Before the permit, or instead of asking for one.
    match way {
        "dies-before-the-permit" => std::process::exit(9),
        "silent-before-the-permit" => silent(),
        "garbage-before-the-permit" => return say_line("\u{1b}[2Jgarbage"),
        "success-without-asking" => return answer(request, &json!({})),
        "changes-without-asking" => {
            change(params)?;
            return answer(request, &json!({}));
        }
        "asks-with-a-number" => {
            return say(&json!({"jsonrpc": "2.0", "id": 7, "method": "threshold", "params": {"id": 1}}));
        }
        "answers-another-request" => {
            return say(&json!({"jsonrpc": "2.0", "id": 4_000, "result": {}}));
        }
        "asks-what-no-host-knows" => {
            say(&json!({"jsonrpc": "2.0", "id": "x1", "method": "secrets_of_others", "params": {}}))?;
            hear()?;
        }
        "hands-over-what-was-not-minted" => {
            let minted = json!({"id": request["id"], "next": {"password": "Minted-by-nobody-1"}});
            say(&json!({"jsonrpc": "2.0", "id": "m1", "method": "minted", "params": minted}))?;
            hear()?;
        }
        "floods-the-log" => {
            io::stderr().write_all(&vec![b'x'; FLOOD])?;
            for step in 0..50_000 {
                let params = json!({"id": request["id"], "step": format!("{step} {}", "x".repeat(200))});
                say(&json!({"jsonrpc": "2.0", "method": "progress", "params": params}))?;
            }
        }
        "asks-twice" => permit(request)?,
        _ => {}
    }
    permit(request)?;
    // Behind it, before the change.
    match way {
        "dies-before-the-change" => std::process::exit(9),
        "silent-before-the-change" => silent(),
        "ends-without-a-result" => std::process::exit(0),
        "success-without-a-change" | "proves-what-is-not-so" => return answer(request, &json!({})),
        _ => {}
    }
    change(params)?;
    // The target has the new secret from here on.
    match way {
        "dies-behind-the-change" => std::process::exit(9),
        "silent-behind-the-change" => silent(),
        "garbage-behind-the-change" => say_line("{\"jsonrpc\": \"2.0\", \"id\": 1, \"resu"),
        "half-an-answer" => {
            write!(io::stdout().lock(), "{{\"jsonrpc\": \"2.0\", \"id\"")?;
            io::stdout().flush()?;
            std::process::exit(0)
        }
        "endless-answer" => endless(),
        "a-result-that-does-not-fit" => answer(request, &json!({"hosts": "all of them"})),
        "denies-the-change" => refuse(request, "policy", "no"),
        "an-error-without-data" => {
            say(&json!({"jsonrpc": "2.0", "id": request["id"], "error": {"code": -32603, "message": "oops"}}))
        }
        "answers-with-another-secret" => answer(request, &json!({"next": {"password": "Another-secret-0"}})),
        "leaves-a-child-behind" => {
            // It keeps the pipe open, so that the end of output never comes.
            command(std::env::current_exe()?).arg("hold").stdin(Stdio::null()).spawn().map_err(io::Error::other)?;
            std::process::exit(9)
        }
        _ => answer(request, &json!({})),
    }
}

/// Waits for the permit; stops as it must without one.
fn permit(request: &Value) -> io::Result<()> {
    say(&json!({"jsonrpc": "2.0", "id": "t1", "method": "threshold", "params": {"id": request["id"]}}))?;
    if hear()?.is_some_and(|answer| answer["result"]["proceed"] == true) {
        return Ok(());
    }
    refuse(request, "cancelled", "no")?;
    Err(io::ErrorKind::PermissionDenied.into())
}

fn target(params: &Value) -> PathBuf {
    PathBuf::from(params["account"]["target"].as_str().unwrap_or_default())
}

fn holds(params: &Value) -> Option<String> {
    fs::read_to_string(target(params)).ok()
}

fn change(params: &Value) -> io::Result<()> {
    let target: &Path = &target(params);
    lab::process::write_file(target, params["next"]["password"].as_str().unwrap_or_default()).map_err(io::Error::other)
}

fn answer(request: &Value, result: &Value) -> io::Result<()> {
    say(&json!({"jsonrpc": "2.0", "id": request["id"], "result": result}))
}

fn refuse(request: &Value, kind: &str, applied: &str) -> io::Result<()> {
    let error = json!({"code": -32000, "message": "as it says", "data": {"kind": kind, "applied": applied}});
    say(&json!({"jsonrpc": "2.0", "id": request["id"], "error": error}))
}

/// The next message, or nothing for one that is none; none at the end.
fn hear() -> io::Result<Option<Value>> {
    let mut line = Vec::new();
    let length = io::stdin().lock().read_until(b'\n', &mut line)?;
    Ok((length > 0).then(|| serde_json::from_slice(&line).unwrap_or_default()))
}

fn say(message: &Value) -> io::Result<()> {
    say_line(&message.to_string())
}

fn say_line(line: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{line}")?;
    output.flush()
}

/// A line that does not end; the reader's patience does.
fn endless() -> io::Result<()> {
    let mut output = io::stdout().lock();
    loop {
        output.write_all(&[b'x'; 1 << 16])?;
    }
}

/// Says nothing more, and does not go away.
fn silent() -> ! {
    loop {
        std::thread::park_timeout(Duration::from_secs(3_600));
    }
}
