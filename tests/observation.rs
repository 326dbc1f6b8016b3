//! What watches a vault: figures that a real parser reads, a page that holds
//! no secret and runs nobody's script, logs that a real journal takes, and
//! heads of the audit chain that were kept elsewhere.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a broken expectation of a test program is its failure"
)]

mod world;

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    time::Duration,
};

use lab::{Output, process, process::write_file, python, wait_until};
use serde_json::{Value, json};
use world::{Fields, World, lines};

const SECRET: &str = "Canary-Secret-83";
const PATIENCE: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(30);

fn noop(title: &str) -> Fields {
    Fields { login: title.to_owned(), ..Fields::default() }.with("cmdr:plugin=noop")
}

fn file(world: &World, name: &str) -> PathBuf {
    world.turnlock.home().join(name)
}

/// What a script in Python makes of a text.
fn read_by(script: &str, text: &str) -> Value {
    let mut python = python::script(script, &[]).unwrap();
    let output = process::run(&mut python, text.as_bytes()).unwrap();
    assert_eq!(output.status, 0, "{}{text}", output.stderr);
    serde_json::from_str(&output.stdout).unwrap()
}

/// Reads as Prometheus does, and as node_exporter does with a textfile: two parsers, one outcome.
const METRICS: &str = r#"
import json, sys
from prometheus_client import openmetrics, parser
import prometheus_client.openmetrics.parser
text = sys.stdin.read()
strict = list(openmetrics.parser.text_string_to_metric_families(text))
list(parser.text_string_to_metric_families(text))
json.dump({
    "types": {family.name: family.type for family in strict},
    "values": {sample.name + json.dumps(sample.labels): sample.value for family in strict for sample in family.samples},
}, sys.stdout)
"#;

#[test]
fn figures_are_open_metrics_and_tell_no_names() {
    let world = World::new();
    for title in ["One", "Two", "Three"] {
        world.add(title, &noop(title), SECRET);
    }
    world.ok(&["rotate", "One"]);
    world.ok(&["rotate", "Two"]);
    let path = file(&world, "turnlock.prom");
    for _ in 0..2 {
        world.ok(&["report", "--metrics-file", path.to_str().unwrap()]);
    }
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    let text = fs::read_to_string(&path).unwrap();
    assert!(!text.contains(SECRET) && !text.contains("Three"), "{text}");
    let metrics = read_by(METRICS, &text);
    let value = |name: &str| metrics["values"][name].as_f64();
    for (name, expected) in [
        (r#"turnlock_records{"plugin": "noop"}"#, 3.0),
        (r#"turnlock_never_rotated{"plugin": "noop"}"#, 1.0),
        (r#"turnlock_rotations_total{"outcome": "rotated"}"#, 2.0),
        (r#"turnlock_rotation_duration_seconds_bucket{"le": "+Inf"}"#, 2.0),
        ("turnlock_rotation_duration_seconds_count{}", 2.0),
        (r#"turnlock_open_items{"state": "parked"}"#, 0.0),
        ("turnlock_overdue{}", 0.0),
    ] {
        assert_eq!(value(name), Some(expected), "{name}: {text}");
    }
    assert_eq!(metrics["types"]["turnlock_rotation_duration_seconds"], "histogram", "{text}");
    assert!(value("turnlock_observed_timestamp_seconds{}") >= value("turnlock_last_rotation_timestamp_seconds{}"));
    // Beside it lies nothing half-written, and where it cannot be written that is told.
    let beside = fs::read_dir(path.parent().unwrap()).unwrap().flatten();
    assert_eq!(beside.filter(|entry| entry.file_name().to_string_lossy().contains("turnlock.prom")).count(), 1);
    world.fails(3, &["report", "--metrics-file", "/proc/turnlock.prom"]);
}

/// One request in plain HTTP: the status, and the body.
fn ask(port: u16, method: &str, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(SOON))?;
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Ok((status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()))
}

#[test]
fn a_daemon_answers_those_who_watch_it() {
    let world = World::new();
    world.add("Door", &noop("Door").with("turnlock:schedule=every 30d"), SECRET);
    let port = lab::ports::free().unwrap();
    let path = file(&world, "turnlock.prom");
    let listen = format!("127.0.0.1:{port}");
    let arguments = ["daemon", "--metrics-listen", &listen, "--metrics-file", path.to_str().unwrap()];
    let daemon = world.start(&[&arguments[..], &["--overdue-limit", "1s"]].concat());
    let rotated = || {
        let (status, text) = ask(port, "GET", "/metrics").ok()?;
        (status == 200 && text.contains(r#"rotations_total{outcome="rotated"} 1"#)).then_some(text)
    };
    let text = wait_until("the daemon to have rotated", SOON, rotated).unwrap();
    assert_eq!(read_by(METRICS, &text)["values"][r#"turnlock_records{"plugin": "noop"}"#], 1.0);
    assert!(!text.contains("Door") && !text.contains(SECRET));
    wait_until("the file to be written", SOON, || path.exists().then_some(())).unwrap();
    let (status, health) = ask(port, "GET", "/health").unwrap();
    let health: Value = serde_json::from_str(&health).unwrap();
    assert_eq!((status, &health["ok"], &health["scheduler"]["ok"]), (200, &json!(true), &json!(true)), "{health}");
    for (method, path, expected) in [("GET", "/", 404), ("POST", "/metrics", 405), ("HEAD", "/health", 200)] {
        assert_eq!(ask(port, method, path).unwrap().0, expected, "{method} {path}");
    }
    // One that asks and says nothing more holds nobody up.
    let silent = TcpStream::connect(("127.0.0.1", port)).unwrap();
    assert_eq!(ask(port, "GET", "/health").unwrap().0, 200);
    drop(silent);

    // A record whose time has passed, and whose target cannot be reached.
    let nobody = format!("postgres://127.0.0.1:{}/db", lab::ports::free().unwrap());
    let fields = Fields { login: "app".to_owned(), url: Some(nobody), ..Fields::default() };
    world.add("Late", &fields.with("turnlock:schedule=every 30d"), SECRET);
    let ill = || {
        let (status, health) = ask(port, "GET", "/health").ok()?;
        (status == 503).then(|| serde_json::from_str::<Value>(&health).unwrap())
    };
    let health = wait_until("the daemon to be late", SOON, ill).unwrap();
    assert_eq!((&health["overdue"]["ok"], &health["vault"]["ok"]), (&json!(false), &json!(true)), "{health}");
    daemon.signal("TERM");
    assert_eq!(daemon.end().status, 0);
    let taken = world.fails(3, &["daemon", "--metrics-listen", "192.0.2.1:9"]);
    assert!(taken["hint"].as_str().unwrap().contains("--metrics-listen"), "{taken}");
}

/// Every tag with its attributes, and every text, as an HTML parser sees them.
const PAGE: &str = r#"
import html.parser, json, sys
class Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen = {"tags": {}, "attributes": [], "texts": [], "raw": {}}
        self.within = None
    def handle_starttag(self, tag, attributes):
        self.seen["tags"][tag] = self.seen["tags"].get(tag, 0) + 1
        self.seen["attributes"] += [[tag, name, value] for name, value in attributes]
        self.within = tag if tag in ("script", "style") else None
    def handle_endtag(self, tag):
        self.within = None
    def handle_data(self, data):
        if self.within:
            self.seen["raw"][self.within] = data
        elif data.strip():
            self.seen["texts"].append(data.strip())
page = Page()
page.feed(sys.stdin.read())
import base64, hashlib
page.seen["hashes"] = {tag: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for tag, text in page.seen["raw"].items()}
json.dump(page.seen, sys.stdout)
"#;

#[test]
fn the_page_holds_no_secret_and_runs_nobodys_script() {
    const HOSTILE: [&str; 5] = [
        "</title><script>alert(1)</script>",
        "\"><img src=x onerror=alert(1)>",
        "' onmouseover='alert(1)",
        "&lt;b&gt; & <!-- ]]> </style>",
        "\u{202e}evil\u{2028}\u{0}null",
    ];
    let world = World::new();
    for title in &HOSTILE[..4] {
        world.add(title, &noop(title).with("turnlock:hook=/nowhere"), SECRET);
    }
    let records = json!([{"title": HOSTILE[4], "uid": "AAAAAAAAAAAAAAAAAAAAAA", "login": "x", "password": SECRET,
        "folders": [{"folder": "<svg onload=alert(2)>"}], "custom_fields": {"cmdr:plugin": "noop"}}]);
    world.ok_with(&["import", "keeper", "-"], &records.to_string());
    world.ok(&["rotate", "-m", ".", "--force"]);
    let path = file(&world, "report.html");
    world.ok(&["report", "--html", path.to_str().unwrap()]);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let html = fs::read_to_string(&path).unwrap();
    assert!(!html.contains(SECRET));
    for title in &HOSTILE[..4] {
        assert!(!html.contains(&world.password(title)));
    }
    let page = read_by(PAGE, &html);
    // What came from records is text and nothing else.
    let allowed = "html head meta title style body header h1 h2 p bdi time main ul li strong span small section figure \
        figcaption svg desc line g rect text div table thead tr th tbody td code label input output footer script";
    for tag in page["tags"].as_object().unwrap().keys() {
        assert!(allowed.split_whitespace().any(|one| one == tag), "{tag}: {html}");
    }
    for tag in ["script", "style", "title", "main", "h1"] {
        assert!(page["tags"][tag] == 1 || tag == "title", "{tag}: {}", page["tags"]);
    }
    for attribute in page["attributes"].as_array().unwrap() {
        let name = attribute[1].as_str().unwrap();
        assert!(
            !name.starts_with("on") && !["src", "href", "style", "srcset", "action"].contains(&name),
            "{attribute}"
        );
    }
    let texts: Vec<&str> = page["texts"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    for title in &HOSTILE[..4] {
        assert!(texts.contains(title), "{title}: {texts:?}");
    }
    // An unclosed shape would swallow the ones behind it.
    assert!(html.matches("<rect").count() > 2);
    assert_eq!(html.matches("<rect").count(), html.matches("</rect>").count());
    // It fetches nothing: its policy allows its own style and script, and nothing else at all.
    let policy = page["attributes"].as_array().unwrap().iter().find_map(|attribute| {
        attribute[2].as_str().filter(|value| value.starts_with("default-src 'none'")).map(str::to_owned)
    });
    let policy = policy.unwrap();
    for tag in ["style", "script"] {
        assert!(policy.contains(&format!("{tag}-src 'sha256-{}'", page["hashes"][tag].as_str().unwrap())), "{policy}");
    }
    assert!(!html.contains("http://") && !html.contains("https://"), "{html}");
    assert!(texts.contains(&"hooks owed") && texts.iter().any(|text| text.contains("cannot be run")), "{texts:?}");
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
