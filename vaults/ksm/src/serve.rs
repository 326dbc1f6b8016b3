//! Speaking with Turnlock: JSON-RPC, one message a line, one request at a time.

use std::io::{self, BufRead, Read, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::fault::{Fault, Kind};
use crate::keeper::{self, Keeper};

/// The longest line that is read.
const MAX_LINE: u64 = 1 << 20;

#[derive(Deserialize)]
struct Binding {
    token: String,
    config: Option<String>,
}

#[derive(Deserialize)]
struct Opening {
    config: String,
    ca: Option<String>,
}

#[derive(Deserialize)]
struct Uids {
    uids: Vec<String>,
}

#[derive(Deserialize)]
struct One {
    uid: String,
}

#[derive(Deserialize)]
struct Change {
    uid: String,
    revision: i64,
    data: Value,
    #[serde(default)]
    transaction: bool,
}

#[derive(Deserialize)]
struct Creation {
    uid: String,
    folder: Option<String>,
    data: Value,
}

/// Serves until its input ends.
pub(crate) fn serve() -> ExitCode {
    say(&json!({"jsonrpc": "2.0", "method": "hello", "params": {"protocol": [1], "vault": "ksm",
        "version": env!("CARGO_PKG_VERSION"),
        "operations": ["bind", "open", "list", "get", "put", "finalize", "rollback", "create", "delete"]}}));
    let cancelled = Arc::new(AtomicBool::new(false));
    let (sender, requests) = mpsc::channel();
    let flag = Arc::clone(&cancelled);
    thread::spawn(move || read_requests(&sender, &flag));
    let mut keeper = None;
    for request in requests {
        // One that was taken back before it began was given up for good.
        let outcome =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| answer(&request, &mut keeper, &cancelled)))
                .unwrap_or_else(|_| {
                    // What it was in the middle of is not known.
                    Err(Fault::new(Kind::Internal, "Keeper's SDK could not read what the service sent").unknown())
                });
        cancelled.store(false, Ordering::Relaxed);
        say(&match outcome {
            Ok(result) => json!({"jsonrpc": "2.0", "id": request.id, "result": result}),
            Err(fault) => json!({"jsonrpc": "2.0", "id": request.id,
                "error": {"code": -32000, "message": fault.message, "data": fault}}),
        });
    }
    ExitCode::SUCCESS
}

/// Tells of something that people wait for.
pub(crate) fn progress(step: &str) {
    say(&json!({"jsonrpc": "2.0", "method": "progress", "params": {"step": step}}));
}

struct Request {
    id: u64,
    method: String,
    params: Value,
}

/// Reads lines on a thread of its own, so that a request can be taken back
/// while it is under way.
fn read_requests(sender: &mpsc::Sender<Request>, cancelled: &AtomicBool) {
    let mut input = io::stdin().lock();
    loop {
        let mut line = Vec::new();
        match (&mut input).take(MAX_LINE + 1).read_until(b'\n', &mut line) {
            Ok(1..) if line.last() == Some(&b'\n') => {}
            // The end, or a line that is cut or too long: nothing that follows can be understood.
            _ => return,
        }
        let Ok(mut message) = serde_json::from_slice::<Value>(&line) else { return };
        let method = message.get("method").and_then(Value::as_str).unwrap_or_default().to_owned();
        match message.get("id").and_then(Value::as_u64) {
            Some(id) => {
                let params = message.get_mut("params").map(Value::take).unwrap_or_else(|| json!({}));
                if sender.send(Request { id, method, params }).is_err() {
                    return;
                }
            }
            None if method == "cancel" => cancelled.store(true, Ordering::Relaxed),
            None => {}
        }
    }
}

fn answer(request: &Request, keeper: &mut Option<Keeper>, cancelled: &Arc<AtomicBool>) -> Result<Value, Fault> {
    match request.method.as_str() {
        "bind" => {
            let Binding { token, config } = read(request)?;
            return Ok(json!({"config": keeper::bind(&token, config.as_deref())?}));
        }
        "open" => {
            let Opening { config, ca } = read(request)?;
            let opened = keeper.insert(Keeper::open(&config, ca.as_deref(), Arc::clone(cancelled))?);
            opened.make_sure()?;
            return Ok(json!({"config": opened.changed_config()}));
        }
        _ => {}
    }
    let Some(keeper) = keeper else {
        return Err(Fault::new(Kind::InvalidInput, "the first request is open"));
    };
    match request.method.as_str() {
        "list" => {
            let records = keeper.list()?;
            for record in &records {
                say(&json!({"jsonrpc": "2.0", "method": "record", "params": record}));
            }
            Ok(json!({"records": records.len()}))
        }
        "get" => {
            let Uids { uids } = read(request)?;
            Ok(json!({"records": keeper.get(uids)?}))
        }
        "put" => {
            let Change { uid, revision, data, transaction } = read(request)?;
            keeper.put(&uid, revision, &data, transaction).map(|()| json!({}))
        }
        "finalize" => keeper.complete(&read::<One>(request)?.uid, false).map(|()| json!({})),
        "rollback" => keeper.complete(&read::<One>(request)?.uid, true).map(|()| json!({})),
        "create" => {
            let Creation { uid, folder, data } = read(request)?;
            keeper.create(&uid, folder.as_deref(), &data).map(|()| json!({}))
        }
        "delete" => keeper.delete(&read::<One>(request)?.uid).map(|()| json!({})),
        method => Err(Fault::new(Kind::Unsupported, format!("\"{method}\" is not known here"))),
    }
}

/// Reads params; an error repeats nothing of them.
fn read<T: DeserializeOwned>(request: &Request) -> Result<T, Fault> {
    serde_json::from_value(request.params.clone())
        .map_err(|_| Fault::new(Kind::InvalidInput, format!("the params of {} do not fit", request.method)))
}

/// One line; when nobody reads it any more, the input ends soon.
fn say(message: &Value) {
    let mut line = message.to_string().into_bytes();
    line.push(b'\n');
    let mut out = io::stdout().lock();
    let _ = out.write_all(&line).and_then(|()| out.flush());
}
