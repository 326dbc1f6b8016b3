//! The command line from outside: whatever is wrong is told in words and by an
//! exit status, and changes nothing; whatever is right can be read by machines.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a broken expectation of a test program is its failure"
)]

mod world;

use std::{
    fs,
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use lab::{
    Postgresql, PostgresqlOptions,
    process::{self, write_file},
    wait_until,
};
use rustix::fs::OFlags;
use serde_json::{Value, json};
use world::{Fields, World};

const SECRET: &str = "Canary-Secret-77";
const SOON: Duration = Duration::from_secs(20);

/// A record without a target behind it.
fn noop(world: &World, title: &str) {
    let fields = Fields { login: title.to_owned(), ..Fields::default() }.with("cmdr:plugin=noop");
    world.add(title, &fields, SECRET);
}

/// What is refused, its exit status, and words of the error: its place, its name, its way out.
type Case<'a> = (&'a [&'a str], i32, &'a [&'a str]);

/// Each is refused in all of these words, with a hint, and changes nothing.
#[track_caller]
fn each_is_refused(world: &World, cases: &[Case<'_>]) {
    let before = world.content();
    let mut wrong = Vec::new();
    for (arguments, status, words) in cases {
        let output = world.run(&[arguments, &["-o", "json"][..]].concat());
        let error = output.stdout.lines().last().and_then(|line| serde_json::from_str::<Value>(line).ok());
        let error = error.unwrap_or_default();
        let text = error.to_string();
        let told = words.iter().all(|word| text.contains(word)) && !text.contains(SECRET);
        let way_out = error["hint"].as_str().is_some_and(|hint| !hint.is_empty());
        if output.status != *status || error["exit_status"] != *status || !told || !way_out {
            wrong.push(format!("{arguments:?} ended with {} and {text}{}", output.status, output.stderr));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(world.content(), before);
    world.nothing_is_open();
}

/// Every rotator of this workspace.
const PLUGINS: [&str; 14] = [
    "noop",
    "postgresql",
    "mysql",
    "mssql",
    "oracle",
    "adpasswd",
    "awskey",
    "awspswd",
    "azureadpwd",
    "windows",
    "pspasswd",
    "ssh",
    "sshkey",
    "unixpasswd",
];

#[test]
fn every_wrong_argument_is_refused_and_changes_nothing() {
    let world = World::new();
    noop(&world, "Door");
    noop(&world, "door");
    noop(&world, "Gate");
    world.add("Nothing", &Fields::default(), SECRET);
    let database = |title: &str, custom: &[&str]| {
        let fields = Fields { login: "app".to_owned(), url: Some("postgres://db1".to_owned()), ..Fields::default() };
        world.add(title, &custom.iter().fold(fields, |fields, one| fields.with(*one)), SECRET);
    };
    database("Port", &["cmdr:port=many"]);
    database("Length", &["cmdr:length=long"]);
    database("Rules", &["cmdr:rules=1,2"]);
    database("Plugin", &["cmdr:plugin=../../bin/sh"]);
    database("Missing", &["cmdr:plugin=mongodb"]);
    database("Admin", &["turnlock:admin=Nobody"]);
    world.ok_with(&["add", "No login", "--url", "postgres://db1", "--password", "-"], SECRET);
    let missing = World::without_vault();
    let refused = missing.fails(3, &["list"]);
    assert!(refused["hint"].as_str().unwrap().contains("turnlock vault init"), "{refused}");

    each_is_refused(
        &world,
        &[
            (&["rotate", "Nobody"], 2, &["Nobody", "turnlock list"]),
            (&["rotate", ""], 2, &["turnlock list"]),
            (&["rotate", "Door"], 2, &["2 records are called", "UID"]),
            (&["rotate", "Nothing"], 2, &["Nothing", "cmdr:plugin"]),
            (&["rotate", "Port"], 2, &["Port", "cmdr:port", "65535"]),
            (&["rotate", "Length"], 2, &["Length", "cmdr:length", "number"]),
            (&["rotate", "Rules"], 2, &["Rules", "cmdr:rules", "4 numbers"]),
            (&["rotate", "Plugin"], 2, &["Plugin", "cmdr:plugin", "a-z, 0-9"]),
            (&["rotate", "Missing"], 2, &["Missing", "turnlock-mongodb"]),
            (&["rotate", "Admin"], 2, &["Admin", "Nobody", "turnlock:admin"]),
            (&["rotate", "No login"], 2, &["No login", "login"]),
            (&["check", "No login"], 2, &["No login", "login"]),
            (&["verify", "Rules"], 2, &["Rules", "cmdr:rules"]),
            (&["explain", "Port"], 2, &["Port", "cmdr:port"]),
            (&["rotate", "Gate", "--plugin", "../../bin/sh"], 2, &["--plugin", "a-z, 0-9"]),
            (&["rotate", "Gate", "--plugin", "unheard-of"], 2, &["turnlock-unheard-of"]),
            (&["rotate", "Gate", "--rules", "abc"], 2, &["--rules", "Gate"]),
            (&["rotate", "Gate", "--rules", "0,0,0,0"], 2, &["--rules", "none"]),
            (&["rotate", "Gate", "--rules", "20,-1,-1,-1,-1"], 2, &["--rules"]),
            (&["rotate", "Gate", "--rules", "99999999999,1,1,1"], 2, &["--rules", "4096"]),
            (&["rotate", "Gate", "--length", "4294967295"], 2, &["--length", "4096"]),
            (&["rotate", "Gate", "--passphrase", "1"], 2, &["--passphrase", "5 to 9"]),
            (&["rotate", "Gate", "--timeout", "0"], 2, &["--timeout", "1 to 86400"]),
            (&["rotate", "Gate", "--timeout", "18446744073709551615"], 2, &["--timeout"]),
            (&["rotate", "Gate", "--password", "x"], 2, &["command line", "standard input"]),
            (&["rotate", "Gate", "--password", "-"], 2, &["password"]),
            (&["rotate", "--match", "("], 2, &["--match", "regular expression"]),
            (&["rotate", "--match", "zebra", "--force"], 2, &["no record"]),
            (&["rotate", "-m", "Door"], 2, &["2 records", "--force"]),
            (&["rotate", "-m", "Door", "--force", "--password", "-"], 2, &["one password for several"]),
            (&["list", "--match", "["], 2, &["--match"]),
            (&["show", "Gate", "--field", "colour"], 2, &["Gate", "colour"]),
            (&["add", ""], 2, &["title"]),
            (&["add", "New", "--type", "unheardOf"], 2, &["unheardOf", "databaseCredentials"]),
            (&["add", "New", "--password", "x"], 2, &["command line"]),
            (&["add", "New", "--set", "no value"], 2, &["FIELD=VALUE"]),
            (&["edit", "Gate", "--set", "=value"], 2, &["FIELD=VALUE"]),
            (&["edit", "Gate", "--unset", "colour"], 2, &["Gate", "colour"]),
            (&["edit", "Gate", "--title", " "], 2, &["title"]),
            (&["edit", "Nobody", "--login", "x"], 2, &["Nobody"]),
            (&["resolve", "Gate", "--use", "whatever"], 2, &["whatever", "past:N", "--history"]),
            (&["resolve", "Gate", "--use", "past:-1"], 2, &["past:-1"]),
            (&["resolve", "Gate", "--use", "past:9"], 2, &["Gate", "9"]),
            (&["resolve", "Gate", "--use", "candidate"], 2, &["Gate", "candidate"]),
            (&["resolve", "Gate", "--use", "password", "--password", "x"], 2, &["command line"]),
            (&["restore", "Gate"], 2, &["Gate", "--history"]),
            (&["restore", "Gate", "--number", "9"], 2, &["Gate", "--history"]),
            (&["recover", "Nobody"], 2, &["Nobody"]),
            (&["plugins", "describe", "unheard-of"], 3, &["turnlock-unheard-of", "--plugin-dir"]),
            (&["plugins", "describe", "../sh"], 3, &["../sh"]),
            (&["import", "keeper", "nowhere.json"], 2, &["nowhere.json"]),
            (&["man", "unheard-of"], 2, &["unheard-of"]),
            (&["vault", "init"], 3, &["exists already"]),
            (&["list", "--vault", "nowhere.db"], 3, &["nowhere.db", "turnlock vault init"]),
            (&["list", "--key-file", "nowhere.key"], 3, &["nowhere.key", "--key-file"]),
        ],
    );
}

/// What the parser of the command line itself refuses: usage, before anything is opened.
#[test]
fn what_is_no_command_is_a_usage_error_that_suggests_one() {
    let world = World::new();
    noop(&world, "Gate");
    let before = world.content();
    for (arguments, words) in [
        (&["rotat"][..], &["rotate"][..]),
        (&["vault", "chek"], &["check"]),
        (&["rotate", "Gate", "--lenght", "9"], &["--length"]),
        (&["rotate", "Gate", "--length", "nine"], &["nine", "--length"]),
        (&["rotate", "Gate", "--port", "70000"], &["70000", "--port"]),
        (&["rotate", "Gate", "--reveal"], &["--print"]),
        (&["rotate", "Gate", "--match", "x"], &["--match"]),
        (&["rotate", "Gate", "Door"], &["Door"]),
        (&["check"], &["<NAME>"]),
        (&["check", "Gate", "--all"], &["--all"]),
        (&["restore", "Gate", "--unverified"], &["--number"]),
        (&["resolve", "Gate"], &["--use"]),
        (&["list", "--output", "jsn"], &["jsn", "json"]),
        (&["completions", "tcsh"], &["bash"]),
        (&["audit", "export", "--after", "-1"], &["-1"]),
        (&["import", "xml", "x"], &["xml"]),
        (&["vault", "rekey", "--new-key-file", "a", "--new-passphrase-file", "b"], &["--new-passphrase-file"]),
    ] {
        let output = world.run(arguments);
        assert_eq!((output.status, output.stdout.as_str()), (2, ""), "{arguments:?}: {}", output.stderr);
        for word in words {
            assert!(output.stderr.contains(word), "{arguments:?} does not say {word}: {}", output.stderr);
        }
    }
    assert_eq!(world.content(), before);
}

#[test]
fn a_configuration_that_says_something_unknown_is_refused() {
    let world = World::new();
    for (text, word) in [
        ("vault = ", "line 1"),
        ("[vault]\nkeyfile = 'x'\n", "keyfile"),
        ("[vault]\nkey_file = 7\n", "key_file"),
        ("[rotators]\ndirectories = 'x'\n", "directories"),
        ("[rotators.pin]\nnoop = ['x']\n", "noop"),
        ("[cron]\n", "cron"),
        ("[fleet.plugin.noop]\nrate = '5'\n", "5/s"),
    ] {
        world.configure(text);
        let refused = world.fails(2, &["list"]);
        assert!(refused["error"].as_str().unwrap().contains("turnlock.toml"), "{text}: {refused}");
        assert!(refused["causes"].to_string().contains(word), "{text}: {refused}");
    }
    world.configure("[rotators.pin]\nnoop = '00'\n");
    noop(&world, "Gate");
    assert_eq!(world.run(&["rotate", "Gate", "--plugin", "noop"]).status, 2);
    let unpinned = world.fails(3, &["plugins", "describe", "noop"]);
    assert_eq!(unpinned["kind"], "conflict", "{unpinned}");
}

#[test]
fn a_rotator_that_comes_later_rotates_what_is_there_already() {
    let world = World::new();
    let place = world.turnlock.plugin_directory();
    fs::copy(lab::bin("turnlock").unwrap(), place.join("turnlock")).unwrap();
    let run = |arguments: &[&str], stdin: &str| {
        let mut command = world.turnlock.program_at(&place.join("turnlock"), arguments);
        command.env("TURNLOCK_KEY_FILE", world.turnlock.key_file());
        process::run(&mut command, stdin.as_bytes()).unwrap()
    };
    let record = json!({"title": "Later", "uid": "AAAAAAAAAAAAAAAAAAAAAA", "login": "app", "password": SECRET,
        "login_url": "postgres://127.0.0.1:1/app"});
    assert_eq!(run(&["import", "keeper", "-"], &record.to_string()).status, 0);
    let select = ["rotate", "--match", ".", "--force", "--dry-run", "-o", "json"];
    assert!(!run(&select, "").stdout.contains("Later"));
    fs::copy(lab::bin("turnlock-postgresql").unwrap(), place.join("turnlock-postgresql")).unwrap();
    let found = run(&select, "");
    assert!(found.stdout.contains("\"plugin\":\"postgresql\""), "{}{}", found.stdout, found.stderr);
}

#[test]
fn every_malformed_export_is_refused_by_its_place_and_changes_nothing() {
    let world = World::new();
    let good = json!({"title": "Good", "uid": "AAAAAAAAAAAAAAAAAAAAAA", "password": SECRET});
    world.ok_with(&["import", "keeper", "-"], &good.to_string());
    let before = world.content();
    let one = |key: &str, value: Value| {
        let mut bad = json!({"title": "Bad", "uid": "BBBBBBBBBBBBBBBBBBBBBB", "password": SECRET});
        bad[key] = value;
        json!([good, bad]).to_string().into_bytes()
    };
    let secret = json!([SECRET]);
    let deep = |open: &str, close: &str| (open.repeat(200_000) + &close.repeat(200_000)).into_bytes();
    let huge = format!(r#"[{{"title": "{}", "password": "{SECRET}"}}, 7]"#, "x".repeat(3_000_000));
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("nothing", vec![], "line 1"),
        ("not JSON", b"title,login,password\n".to_vec(), "line 1"),
        ("cut off", one("login", json!("x"))[..90].to_vec(), "column 90"),
        ("two documents", b"[]\n[]".to_vec(), "line 2"),
        ("bad UTF-8", b"[{\"title\": \"\xff\xfe\"}]".to_vec(), "line 1"),
        ("UTF-16", "[]".encode_utf16().flat_map(u16::to_le_bytes).collect(), "line 1"),
        ("half a surrogate", br#"[{"title": "\ud800"}]"#.to_vec(), "line 1"),
        ("a control character", b"[{\"title\": \"a\nb\"}]".to_vec(), "line 2"),
        ("deep lists", deep("[", "]"), "line 1"),
        ("deep objects", deep(r#"{"a":"#, "}"), "line 1"),
        ("never ending", deep("[", ""), "line 1"),
        ("a number", b"7".to_vec(), "neither"),
        ("a text", format!("{SECRET:?}").into_bytes(), "neither"),
        (
            "another object",
            json!({"password": SECRET, "no": 1}).to_string().replace("password", "pass").into_bytes(),
            "neither",
        ),
        ("records is no list", json!({"records": {"a": SECRET}}).to_string().into_bytes(), "records"),
        (
            "shared_folders is no list",
            json!({"records": [], "shared_folders": 7}).to_string().into_bytes(),
            "shared_folders",
        ),
        ("a record is no object", json!([good, SECRET]).to_string().into_bytes(), "record 2"),
        ("huge and wrong at its end", huge.into_bytes(), "record 2"),
        ("title", one("title", secret.clone()), "title"),
        ("uid", one("uid", json!(7)), "uid"),
        ("uid twice", one("uid", good["uid"].clone()), "record 1"),
        ("a key twice", br#"{"title": "a", "title": "b"}"#.to_vec(), "twice"),
        ("login", one("login", secret.clone()), "login"),
        ("password", one("password", json!({"a": SECRET})), "password"),
        ("login_url", one("login_url", secret.clone()), "login_url"),
        ("notes", one("notes", secret.clone()), "notes"),
        ("custom_fields", one("custom_fields", secret.clone()), "custom_fields"),
        ("folders", one("folders", json!([7])), "folders"),
        ("$type", one("$type", secret.clone()), "$type"),
        ("fields", one("fields", secret.clone()), "type"),
        ("custom", one("custom", json!([[SECRET]])), "custom"),
    ];
    let file = world.turnlock.home().join("export.json");
    for (what, bytes, word) in &cases {
        write_file(&file, bytes).unwrap();
        let refused = world.fails(2, &["import", "keeper", file.to_str().unwrap()]);
        let said = refused["error"].as_str().unwrap();
        assert!(said.contains("export.json") && said.contains(word), "{what} does not say {word}: {said}");
        assert!(refused["hint"].is_string(), "{what}: {refused}");
        assert!(!refused.to_string().contains(SECRET), "{what}: {refused}");
        // Over standard input all the same, and a rehearsal is as strict.
        let mut command = world.command(&["import", "keeper", "-", "--dry-run"]);
        assert_eq!(process::run(&mut command, bytes).unwrap().status, 2, "{what}");
        assert_eq!(world.content(), before, "{what}");
    }
}

/// Everything that Keeper can say, as its own JSON: it comes back as it went in.
#[test]
fn import_export_and_import_again_keep_every_field() {
    let records = json!({"shared_folders": [], "records": [
        {"title": "Untyped", "uid": "AAAAAAAAAAAAAAAAAAAAAA", "login": "app", "password": "  pw \"'\\ \u{1F4A3} ",
         "login_url": "postgres://db1:5433/orders", "notes": "two\nlines", "last_modified": 1_750_000_000,
         "custom_fields": {"cmdr:host": ["db1", "db2"], "cmdr:port": "5433", "empty": "", "Größe": "ﬁ", "number": 7},
         "folders": [{"folder": "Infra\\DB"}, {"shared_folder": "Shared\\Team", "folder": "Sub", "can_edit": true}]},
        {"title": "Typed", "uid": "BBBBBBBBBBBBBBBBBBBBBB", "$type": "databaseCredentials", "login": "app",
         "password": "pw", "custom_fields": {"$host": {"hostName": "10.0.0.5", "port": "5432"},
         "$text:cmdr:plugin": "postgresql", "$text:cmdr:plugin:two": "mysql", "$secret:Pin": ["1", "2"],
         "$unheardOf:Label": {"a": [1, null, {"b": true}]}}},
        {"title": "Raw", "record_uid": "CCCCCCCCCCCCCCCCCCCCCC", "type": "sshKeys",
         "fields": [{"type": "login", "value": ["root"]}, {"type": "keyPair", "value": [{"privateKey": "k", "publicKey": "p"}]},
                    {"type": "login", "label": "second", "value": ["other"]}, {"type": "text", "value": []}],
         "custom": [{"type": "text", "label": "cmdr:plugin", "value": ["sshkey"]},
                    {"type": "text", "label": "cmdr:plugin", "value": ["noop"]}]},
        {"title": "", "uid": "DDDDDDDDDDDDDDDDDDDDDD"},
    ]});
    let first = World::new();
    let told = first.ok_with(&["import", "keeper", "-", "-o", "json"], &records.to_string());
    assert_eq!(world::lines(&told.stdout)[0]["losses"], json!([]));
    let exported = first.content();
    let second = World::new();
    second.ok_with(&["import", "keeper", "-"], &exported);
    assert_eq!(second.content(), exported);
    // Over itself nothing changes, and to a file it is the same, for its owner alone.
    second.ok_with(&["import", "keeper", "-"], &exported);
    let file = second.turnlock.home().join("export.json");
    second.ok(&["export", "--to", file.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(&file).unwrap(), exported);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    let all: Value = serde_json::from_str(&exported).unwrap();
    let of = |uid: &str| {
        let found = all["records"].as_array().unwrap().iter().find(|record| record["uid"] == uid);
        found.unwrap_or_else(|| panic!("{uid} is lost")).clone()
    };
    for given in records["records"].as_array().unwrap().iter().take(2) {
        let kept = of(given["uid"].as_str().unwrap());
        for (key, value) in given.as_object().unwrap() {
            if key == "custom_fields" || key == "folders" {
                continue;
            }
            assert_eq!(kept[key], *value, "{key}");
        }
    }
    let untyped = of("AAAAAAAAAAAAAAAAAAAAAA");
    assert_eq!(untyped["custom_fields"]["cmdr:host"], json!(["db1", "db2"]));
    assert_eq!(untyped["folders"], records["records"][0]["folders"]);
    let typed = &of("BBBBBBBBBBBBBBBBBBBBBB")["custom_fields"];
    assert_eq!(typed["$secret:Pin"], json!(["1", "2"]));
    assert_eq!(typed["$unheardOf:Label"], json!({"a": [1, null, {"b": true}]}));
    assert_eq!(first.json(&["show", "Raw", "--field", "second"])[0]["value"], "other");
}

/// A rotator that says what a test wrote down for it, `@` standing for the id.
/// Behind its permit it says what is in `permit`.
const STRANGE: &str = r#"#!/bin/sh
said="$HOME/strange"
cat "$said/hello"
while read -r line; do
    id=${line#*'"id":'}
    id=${id%%,*}
    case $line in
    *'"proceed":true'*) sed "s/@/$apply/" "$said/permit" ;;
    *'"proceed":false'*) sed "s/@/$apply/" "$said/no-permit" ;;
    *'"method":"apply"'*) apply=$id; sed "s/@/$id/" "$said/apply" ;;
    *'"method":"describe"'*) sed "s/@/$id/" "$said/describe" ;;
    *'"method":"plan"'*) sed "s/@/$id/" "$said/plan" ;;
    *'"method":"verify"'*) sed "s/@/$id/" "$said/verify" ;;
    *'"method":"check"'*) sed "s/@/$id/" "$said/check" ;;
    *'"method":"finish"'*) sed "s/@/$id/" "$said/finish" ;;
    *) sed "s/@/$id/" "$said/other" ;;
    esac
done
"#;

const HELLO: &str = r#"{"jsonrpc":"2.0","method":"hello","params":{"protocol":[1],"plugin":"strange","version":"0.1.0","operations":["describe","plan","check","prepare","apply","verify","finish","revert"]}}"#;
const ASKS: &str = r#"{"jsonrpc":"2.0","id":"t1","method":"threshold","params":{"id":@}}"#;

/// A world with that rotator, honest so far, and a record `Odd` of it.
struct Strange {
    world: World,
    said: PathBuf,
}

impl Strange {
    fn new() -> Self {
        let world = World::new();
        let said = world.turnlock.home().join("strange");
        fs::create_dir(&said).unwrap();
        let program = world.turnlock.plugin_directory().join("turnlock-strange");
        write_file(&program, STRANGE).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let plugins = world.turnlock.plugin_directory();
        world.configure(&format!("[rotators]\ndirectories = [{plugins:?}]\n"));
        let strange = Self { world, said };
        strange.be_honest();
        let fields = Fields { login: "odd".to_owned(), ..Fields::default() }.with("cmdr:plugin=strange");
        strange.world.add("Odd", &fields, SECRET);
        strange
    }

    fn says(&self, when: &str, line: impl AsRef<[u8]>) {
        write_file(&self.said.join(when), [line.as_ref(), b"\n"].concat()).unwrap();
    }

    fn result(result: &Value) -> String {
        format!(r#"{{"jsonrpc":"2.0","id":@,"result":{result}}}"#)
    }

    /// Makes it wait where it would say this; see [`Strange::waiting`].
    fn waits(&self, when: &str) {
        let place = self.said.join(when);
        fs::remove_file(&place).unwrap();
        let made = process::run(process::clean_command("mkfifo").arg(&place), b"").unwrap();
        assert!(made.succeeded(), "{}", made.stderr);
    }

    /// Returns once it waits there; it says what is written, and goes on when that is closed.
    fn waiting(&self, when: &str) -> fs::File {
        let mut pipe = fs::OpenOptions::new();
        // Opening it fails until somebody reads from it.
        pipe.write(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
        wait_until("the rotator to come there", SOON, || pipe.open(self.said.join(when)).ok()).unwrap()
    }

    fn traits() -> Value {
        json!({"origin": "orchestrator", "overlap": "none", "needs_current": false, "admin_reset": false,
            "verify": "login", "lockout_sensitive": false, "lockout_window_ms": 0, "settle_ms": 0, "hosts": "one",
            "policy_from_target": false, "finish": false, "password": {}})
    }

    fn be_honest(&self) {
        let (traits, result) = (Self::traits(), Self::result);
        let schema = json!({"type": "object", "properties": {
            "login": {"type": "string", "x-turnlock": "account"},
            "password": {"type": "string", "writeOnly": true, "x-turnlock": "write-back"}}});
        self.says("hello", HELLO);
        self.says(
            "describe",
            result(&json!({"plugin": "strange", "version": "0.1.0", "summary": "Odd.",
            "schema": schema, "url_schemes": [], "traits": traits})),
        );
        self.says("plan", result(&json!({"traits": traits})));
        self.says("check", result(&json!({"authenticated": true, "may_rotate": "yes", "findings": []})));
        self.says("apply", ASKS);
        self.says("permit", result(&json!({})));
        self.says("no-permit", r#"{"jsonrpc":"2.0","id":@,"error":{"code":-32000,"message":"no permit","data":{"kind":"cancelled","applied":"no"}}}"#);
        self.says("verify", result(&json!({"verdict": "accepted"})));
        self.says("other", r#"{"jsonrpc":"2.0","id":@,"error":{"code":-32601,"message":"not known"}}"#);
    }
}

/// Until it is staged, an edit goes first.
#[test]
fn an_edit_before_the_stage_is_kept_and_the_rotation_gives_way() {
    let strange = Strange::new();
    let world = &strange.world;
    let plan = fs::read(strange.said.join("plan")).unwrap();
    strange.waits("plan");
    let running = world.start(&["rotate", "Odd", "-o", "json"]);
    let mut waiting = strange.waiting("plan");
    world.edit_password("Odd", "Typed-Over-It-1");
    waiting.write_all(&plan).unwrap();
    drop(waiting);
    let gave_way = world::error_of(3, &["rotate", "Odd"], &running.end());
    assert!(gave_way["error"].as_str().unwrap().contains("changed meanwhile"), "{gave_way}");
    assert_eq!(world.password("Odd"), "Typed-Over-It-1");
    world.nothing_is_open();
}

/// What it says of a target that nobody can ask.
const DOWN: &str =
    r#"{"jsonrpc":"2.0","id":@,"error":{"code":-32000,"message":"down","data":{"kind":"unreachable","applied":"no"}}}"#;

#[test]
fn every_exit_status_is_the_documented_one() {
    let strange = Strange::new();
    let world = &strange.world;
    noop(world, "Door");
    let statuses = |expected: i32, arguments: &[&str]| {
        let output = world.run(&[arguments, &["-o", "json"]].concat());
        assert_eq!(output.status, expected, "{arguments:?}: {}{}", output.stdout, output.stderr);
        world::lines(&output.stdout)
    };
    statuses(0, &["rotate", "-m", "odd|door", "--force"]);
    // Of several: the most severe, and 6 only where nothing has changed.
    strange.says("apply", "nonsense");
    let some = statuses(6, &["rotate", "-m", "odd|door", "--force"]);
    let mut ends: Vec<_> = some.iter().map(|one| (one["title"].as_str(), one["outcome"].as_str())).collect();
    ends.sort_unstable();
    assert_eq!(ends, [(Some("Door"), Some("rotated")), (Some("Odd"), Some("failed"))]);
    statuses(3, &["rotate", "-m", "odd", "--force"]);
    strange.be_honest();
    strange.says("permit", "nonsense");
    // Another process of it asks at once.
    statuses(0, &["rotate", "Odd"]);
    strange.says("verify", DOWN);
    statuses(5, &["rotate", "-m", "odd|door", "--force", "--jobs", "2"]);
    assert_eq!(statuses(3, &["status"])[0]["state"], "open");
    strange.be_honest();
    statuses(0, &["recover"]);
    // Live, and nobody can be asked for a proof.
    strange.says("verify", DOWN);
    let live = statuses(4, &["rotate", "Odd"]);
    assert_eq!(live[0]["state"], "live", "{live:?}");
    assert!(live[0]["hint"].as_str().unwrap().contains("turnlock recover"), "{live:?}");
    let candidate = world.staged("Odd").remove(0);
    strange.be_honest();
    statuses(0, &["recover", "Odd"]);
    assert_eq!(world.password("Odd"), candidate);

    // A clean-up that is open is a warning, with --strict a status, and done later.
    let mut finishes = Strange::traits();
    finishes["finish"] = json!(true);
    strange.says("plan", Strange::result(&json!({ "traits": finishes })));
    strange.says("finish", r#"{"jsonrpc":"2.0","id":@,"error":{"code":-32000,"message":"busy","data":{"kind":"conflict","applied":"no"}}}"#);
    assert_eq!(statuses(7, &["rotate", "Odd", "--strict"])[0]["finish_open"], true);
    assert_eq!(statuses(3, &["status"])[0]["state"], "finishing");
    assert!(world.run(&["status"]).stdout.contains("turnlock recover"));
    let open = statuses(3, &["recover"]);
    assert_eq!(open[0]["state"], "committed", "{open:?}");
    strange.says("finish", Strange::result(&json!({"removed": ["the old one"]})));
    statuses(0, &["recover"]);
    world.nothing_is_open();
    strange.be_honest();

    // Interrupted before its permit, a rotation is cancelled.
    let before = world.content();
    strange.waits("apply");
    let notes = world.turnlock.home().join("notes");
    let mut command = world.command(&["rotate", "Odd", "-o", "json"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(fs::File::create(&notes).unwrap());
    let child = command.spawn().unwrap();
    let mut waiting = strange.waiting("apply");
    process::signal(child.id(), "INT");
    wait_until("the signal to be heard", SOON, || {
        fs::read_to_string(&notes).unwrap().contains("Ctrl-C again").then_some(())
    })
    .unwrap();
    waiting.write_all(format!("{ASKS}\n").as_bytes()).unwrap();
    drop(waiting);
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert_eq!(ended.status.code(), Some(130), "{said}");
    assert!(said.contains("interrupted before anything changed"), "{said}");
    assert_eq!(world.content(), before);
    assert!(world.past("Odd", "abandoned").is_empty(), "what had no permit is erased");
    world.nothing_is_open();
}

/// Everything a rotator can say that it must not, and what it proves.
#[test]
fn whatever_a_rotator_says_it_is_believed_no_further_than_the_protocol_goes() {
    let strange = Strange::new();
    let world = &strange.world;
    world.ok(&["rotate", "Odd"]);
    let long = vec![b'x'; 1_048_579];
    let garbage: &[(&str, &[u8])] = &[
        ("not JSON", b"good morning"),
        ("cut off", br#"{"jsonrpc":"2.0","id":@,"resu"#),
        ("bad UTF-8", b"{\"jsonrpc\":\"2.0\",\"id\":@,\"result\":\"\xff\"}"),
        ("too long a line", &long),
        ("a batch", br#"[{"jsonrpc":"2.0","id":@,"result":{}}]"#),
        ("another version of JSON-RPC", br#"{"jsonrpc":"1.0","id":@,"result":{}}"#),
        ("an answer to nothing", br#"{"jsonrpc":"2.0","id":99,"result":{}}"#),
        ("neither result nor error", br#"{"jsonrpc":"2.0","id":@}"#),
        ("another shape", br#"{"jsonrpc":"2.0","id":@,"result":[1]}"#),
        ("an error of another shape", br#"{"jsonrpc":"2.0","id":@,"error":"no"}"#),
    ];
    let mut wrong = Vec::new();
    let mut expect = |what: String, status: i32, state: &str, arguments: &[&str]| {
        let output = world.run(&[arguments, &["-o", "json"]].concat());
        let told = output.stdout.lines().last().and_then(|line| serde_json::from_str::<Value>(line).ok());
        let told = told.unwrap_or_default();
        let text = format!("{}{}", output.stdout, output.stderr);
        let named = told["error"].as_str().is_some_and(|error| !error.is_empty());
        if output.status != status || told["state"] != state || !named || text.contains(SECRET) {
            wrong.push(format!("{what}: {arguments:?} ended with {} and {text}", output.status));
        }
    };

    // Where nothing may change, nothing has.
    let before = world.content();
    let hello = |from: &str, to: &str| HELLO.replace(from, to).into_bytes();
    let mut hellos: Vec<(&str, Vec<u8>)> = garbage.iter().map(|(what, line)| (*what, line.to_vec())).collect();
    hellos.push(("another version", hello("[1]", "[2,3]")));
    hellos.push(("no version", hello("[1]", "[]")));
    hellos.push(("another plugin", hello("strange", "noop")));
    hellos.push(("another method", hello("hello", "goodbye")));
    for (what, line) in &hellos {
        strange.says("hello", line);
        expect(format!("hello: {what}"), 3, "unchanged", &["rotate", "Odd"]);
    }
    strange.be_honest();
    for when in ["plan", "check", "verify"] {
        let arguments = if when == "plan" { ["rotate", "Odd"] } else { [when, "Odd"] };
        for (what, line) in garbage {
            strange.says(when, line);
            expect(format!("{when}: {what}"), 3, "unchanged", &arguments);
        }
        strange.be_honest();
    }
    for (what, line) in garbage {
        strange.says("apply", line);
        expect(format!("apply before the permit: {what}"), 3, "unchanged", &["rotate", "Odd"]);
    }
    // Whatever it claims, without a permit nothing has changed.
    for applied in ["yes", "unknown", "perhaps"] {
        let error = json!({"code": -32000, "message": "done", "data": {"kind": "internal", "applied": applied}});
        strange.says("apply", format!(r#"{{"jsonrpc":"2.0","id":@,"error":{error}}}"#));
        expect(format!("apply before the permit: applied {applied}"), 3, "unchanged", &["rotate", "Odd"]);
    }
    strange.says("apply", r#"{"jsonrpc":"2.0","id":@,"method":"threshold","params":{}}"#);
    expect("a request with the host's own kind of id".to_owned(), 3, "unchanged", &["rotate", "Odd"]);
    assert_eq!(world.content(), before);
    world.nothing_is_open();

    // Behind the permit it is not known, until the target itself is asked.
    for (what, line) in garbage {
        strange.be_honest();
        strange.says("permit", line);
        strange.says("verify", DOWN);
        expect(format!("behind the permit: {what}"), 5, "unknown", &["rotate", "Odd"]);
        let old = world.password("Odd");
        let candidate = world.staged("Odd").remove(0);
        strange.be_honest();
        assert_eq!(world.json(&["recover"])[0]["outcome"], "committed", "{what}");
        assert_eq!(world.password("Odd"), candidate, "{what}");
        assert_eq!(world.past("Odd", "previous")[0], old, "{what}");
    }
    world.nothing_is_open();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const PARAMS: &str = r#"{"account": {"login": "app"}, "current": {"password": "Canary-Secret-77"}}"#;

/// The programs that are shipped, called by hand with what does not fit.
#[test]
fn every_rotator_refuses_a_malformed_frame_and_params_that_do_not_fit() {
    let world = World::without_vault();
    let run = |program: &str, arguments: &[&str], stdin: &[u8]| {
        let mut command = world.turnlock.program(program, arguments).unwrap();
        let output = process::run(&mut command, stdin).unwrap();
        assert!(!(output.stdout.clone() + &output.stderr).contains(SECRET), "{program} {arguments:?}: {output:?}");
        output
    };
    let long =
        [b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"describe\",\"params\":\"".as_slice(), &[b'x'; 1 << 20]].concat();
    let line = |method: &str, params: &str| {
        format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"{method}\",\"params\":{params}}}\n").into_bytes()
    };
    let spoken = r#"{"protocol":7,"deadline_ms":1000,"account":{"login":"app"},"current":{}}"#;
    let half = r#"{"protocol":1,"deadline_ms":1000,"current":{"password":"Canary-Secret-77"}}"#;
    for program in PLUGINS.map(|plugin| format!("turnlock-{plugin}")) {
        let program = program.as_str();
        // Bytes, the error's code, its kind, the exit status.
        for (what, bytes, code, kind, status) in [
            ("not JSON", b"Canary-Secret-77\n".to_vec(), -32700, "", 2),
            ("cut off by a line end", b"{\"jsonrpc\":\"2.0\",\"id\":1,\"meth\n".to_vec(), -32700, "", 2),
            ("bad UTF-8", b"{\"jsonrpc\":\"2.0\",\"method\":\"\xff\"}\n".to_vec(), -32700, "", 2),
            ("a batch", b"[]\n".to_vec(), -32700, "", 2),
            ("too long a line", long.clone(), -32600, "", 2),
            ("what fits", line("describe", "{}"), 0, "", 0),
            ("an unknown operation", line("explode", "{}"), -32601, "", 0),
            ("another version", line("check", spoken), -32000, "unsupported", 0),
            ("no account", line("check", half), -32602, "invalid_input", 0),
            ("params of another shape", line("check", r#"["Canary-Secret-77"]"#), -32602, "invalid_input", 0),
        ] {
            let output = run(program, &["serve"], &bytes);
            assert_eq!(output.status, status, "{program}, {what}: {output:?}");
            let said = world::lines(&output.stdout);
            assert_eq!(said[0]["method"], "hello", "{program}, {what}");
            assert_eq!(said.len(), 2, "{program}, {what}: one answer: {said:?}");
            let error = &said[1]["error"];
            if code == 0 {
                assert!(said[1]["result"].is_object(), "{program}, {what}: {said:?}");
                continue;
            }
            assert_eq!(error["code"], code, "{program}, {what}: {said:?}");
            assert_eq!(error["data"]["kind"].as_str().unwrap_or(""), kind, "{program}, {what}: {said:?}");
            assert_eq!(said[1]["id"], if status == 2 { Value::Null } else { json!(1) }, "{program}, {what}");
        }
        let cut = &line("describe", "{}")[..30];
        assert_eq!(world::lines(&run(program, &["serve"], cut).stdout).len(), 1, "{program}: no message, no answer");

        for operation in ["rotate", "check"] {
            let unspoken = run(program, &[operation], spoken.as_bytes());
            assert_eq!(unspoken.status, 3, "{program} {operation}: {unspoken:?}");
            assert_eq!(world::lines(&unspoken.stdout)[0]["error"]["data"]["kind"], "unsupported", "{program}");
        }

        let huge = vec![b' '; (1 << 20) + 1];
        for (what, arguments, stdin) in [
            ("an unknown operation", &["explode"][..], PARAMS.as_bytes()),
            ("two operations", &["check", "verify"], PARAMS.as_bytes()),
            ("nothing", &["rotate"], b""),
            ("cut off", &["rotate"], &PARAMS.as_bytes()[..70]),
            ("a list", &["rotate"], br#"["Canary-Secret-77"]"#),
            ("two objects", &["rotate"], b"{}{}"),
            ("bad UTF-8", &["rotate"], b"{\"account\": \"\xff\"}"),
            ("too much", &["rotate"], &huge),
            ("account is a text", &["rotate"], br#"{"account": "Canary-Secret-77", "current": {}}"#),
            ("a secret that is a number", &["rotate"], br#"{"account": {"login": "a"}, "current": {"password": 7}}"#),
            ("a timeout that is none", &["check"], br#"{"account": {"login": "a", "timeout": "soon"}, "current": {}}"#),
            (
                "a policy that is none",
                &["rotate"],
                br#"{"account": {"login": "a"}, "current": {}, "policy": {"length": -1}}"#,
            ),
        ] {
            let output = run(program, arguments, stdin);
            assert_eq!(output.status, 2, "{program}, {what}: {output:?}");
            assert!(
                output.stdout.contains("error") || output.stderr.contains("error"),
                "{program}, {what}: {output:?}"
            );
            assert!(!output.stdout.contains("candidate"), "{program}, {what}: {output:?}");
        }
    }
}

/// Every way to be read by a machine: JSON line by line, and a secret only where it was asked for.
#[test]
fn every_verb_answers_in_json_and_shows_no_secret_unasked() {
    let world = World::new();
    noop(&world, "Door");
    noop(&world, "Gate");
    let second = "Canary-Second-78";
    world.ok_with(&["add", "Pin", "--folder", "a/b", "--set", "Pin=Canary-Secret-77", "--password", "-"], SECRET);
    let import = world.turnlock.home().join("import.json");
    write_file(&import, json!([{"title": "New", "password": SECRET}]).to_string()).unwrap();
    let import = import.to_str().unwrap();
    // What it is, its input, its exit status, how many lines it answers, and a key of the first.
    for (arguments, stdin, status, count, key) in [
        (&["list"][..], "", 0, 3, "uid"),
        (&["list", "--match", "a/b"], "", 0, 1, "title"),
        (&["show", "Door"], "", 0, 1, "fields"),
        (&["show", "Pin"], "", 0, 1, "fields"),
        (&["show", "Door", "--field", "login"], "", 0, 1, "value"),
        (&["rotate"], "", 0, 2, "plugin"),
        (&["rotate", "Door", "--dry-run"], "", 0, 1, "policy"),
        (&["rotate", "Door", "--password", "-"], second, 0, 1, "outcome"),
        (&["rotate", "Gate", "--print"], "", 0, 2, "outcome"),
        (&["rotate", "-m", "gate|pin", "--force", "--jobs", "2"], "", 0, 1, "outcome"),
        (&["rotate", "-m", "gate", "--force", "--strict"], "", 0, 1, "verified"),
        (&["show", "Door", "--history", "--stage"], "", 0, 1, "credential"),
        (&["check", "Door"], "", 0, 1, "findings"),
        (&["check", "--all"], "", 0, 2, "findings"),
        (&["verify", "Door"], "", 0, 1, "outcome"),
        (&["verify", "--all"], "", 0, 2, "outcome"),
        (&["recover"], "", 0, 0, ""),
        (&["status"], "", 0, 0, ""),
        (&["explain", "Door"], "", 0, 3, "what"),
        (&["plugins"], "", 0, PLUGINS.len(), "plugin"),
        (&["plugins", "list"], "", 0, PLUGINS.len(), "plugin"),
        (&["plugins", "describe", "noop"], "", 0, 1, "schema"),
        (&["import", "keeper", import, "--dry-run"], "", 0, 1, "dry_run"),
        (&["import", "keeper", import], "", 0, 1, "records"),
        (&["edit", "Pin", "--password", "-"], second, 0, 1, "outcome"),
        (&["add", "Another", "--password", "-"], SECRET, 0, 1, "record"),
        (&["resolve", "Door", "--use", "current"], "", 0, 1, "resolved"),
        (&["restore", "Door"], "", 0, 1, "restored"),
        (&["audit", "verify"], "", 0, 1, "head"),
        (&["vault", "check"], "", 0, 1, "problems"),
        (&["vault", "backup", "backup.db"], "", 0, 1, "backup"),
        (&["vault", "adopt", "--unverified"], "", 0, 1, "adopted"),
        (&["rotate", "Nobody"], "", 2, 1, "error"),
    ] {
        let output = world.run_with(&[arguments, &["-o", "json"]].concat(), stdin);
        assert_eq!(output.status, status, "{arguments:?}: {}{}", output.stdout, output.stderr);
        let answers = world::lines(&output.stdout);
        let counted = if arguments[0] == "explain" { answers.len().min(count) } else { answers.len() };
        assert_eq!(counted, count, "{arguments:?}: {}", output.stdout);
        assert!(count == 0 || !answers[0][key].is_null(), "{arguments:?} tells no {key}: {}", output.stdout);
        for secret in [SECRET, second] {
            assert!(!(output.stdout.clone() + &output.stderr).contains(secret), "{arguments:?}: {}", output.stdout);
        }
    }
    let rows = world::lines(&world.ok(&["audit", "export", "-o", "json"]).stdout);
    let after = world::lines(&world.ok(&["audit", "export", "--after", "3"]).stdout);
    assert_eq!(rows[3..], after[..]);
    assert!(rows.len() > 20 && rows[0]["number"] == 1, "{}", rows[0]);
    assert!(!format!("{rows:?}").contains(SECRET) && !format!("{rows:?}").contains(second));
    // Asked for, they are shown.
    assert!(world.ok(&["show", "Pin", "--reveal", "-o", "json"]).stdout.contains(second));
    assert!(world.ok(&["show", "Pin", "--reveal"]).stdout.contains(SECRET));
    assert_eq!(world.ok(&["show", "Pin", "--field", "Pin"]).stdout, format!("{SECRET}\n"));
}

/// The words after `turnlock` of every verb there is, read from the help itself.
fn every_verb(world: &World) -> Vec<Vec<String>> {
    let mut found: Vec<Vec<String>> = vec![vec![]];
    let mut at = 0;
    while let Some(verb) = found.get(at).cloned() {
        let mut arguments: Vec<&str> = verb.iter().map(String::as_str).collect();
        arguments.push("--help");
        let help = world.ok(&arguments).stdout;
        let listed = help.split_once("Commands:\n").map_or("", |(_, rest)| rest.split("\n\n").next().unwrap_or(""));
        let names = listed.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
        let names = names.filter(|name| !name.is_empty() && *name != "help");
        found.extend(names.map(|name| [verb.clone(), vec![name.to_owned()]].concat()));
        at += 1;
    }
    found
}

#[test]
fn every_verb_explains_itself_by_an_example() {
    let world = World::without_vault();
    let verbs = every_verb(&world);
    assert!(verbs.len() > 28, "{verbs:?}");
    assert!(verbs.contains(&vec!["vault".to_owned(), "rekey".to_owned()]), "{verbs:?}");
    for verb in &verbs {
        let mut arguments: Vec<&str> = verb.iter().map(String::as_str).collect();
        arguments.push("--help");
        let help = world.ok(&arguments);
        let example = format!("  turnlock {}", verb.join(" "));
        let examples = help.stdout.split_once("Examples:\n").map_or("", |(_, examples)| examples);
        let words: Vec<&str> = verb.iter().map(String::as_str).collect();
        let shows = examples.lines().any(|line| {
            line.contains("turnlock ") && words.iter().all(|word| line.split_whitespace().any(|part| part == *word))
        });
        assert!(shows, "{example} --help has no example of itself: {}", help.stdout);
        assert_eq!(help.stderr, "");
    }
    assert!(world.ok(&["--version"]).stdout.starts_with("turnlock "));
    let bare = world.run(&[]);
    assert!(bare.status == 2 && bare.stderr.contains("turnlock --help lists every command"), "{bare:?}");
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = world.ok(&["completions", shell]).stdout;
        assert!(script.contains("rekey") && script.contains("dry-run"), "{shell}");
    }
    assert!(world.ok(&["man"]).stdout.contains(".TH"));
    assert!(world.ok(&["man", "rotate"]).stdout.contains("dry\\-run"));
}

#[test]
fn a_rehearsal_changes_nothing_at_all() {
    let world = World::new();
    noop(&world, "Door");
    noop(&world, "Gate");
    let vault = || fs::read(world.turnlock.vault()).unwrap();
    let before = vault();
    let told = world.ok(&["rotate", "Door", "--dry-run", "--length", "33"]);
    assert!(told.stdout.contains("would rotate Door") && told.stdout.contains("33"), "{}", told.stdout);
    let several = world.json(&["rotate", "-m", ".", "--dry-run", "--force"]);
    assert_eq!(several.len(), 2);
    world.fails(2, &["rotate", "Door", "--dry-run", "--rules", "1"]);
    world.ok_with(&["rotate", "Door", "--dry-run", "--password", "-"], "Something-Else-9");
    world.ok_with(&["import", "keeper", "-", "--dry-run"], r#"[{"title": "New"}]"#);
    assert!(vault() == before, "a rehearsal wrote to the vault");
}

#[test]
fn a_reader_that_went_away_is_no_failure_and_no_panic() {
    let world = World::new();
    noop(&world, "Door");
    for arguments in [
        &["list"][..],
        &["list", "-o", "json"],
        &["show", "Door"],
        &["rotate", "Door"],
        &["audit", "export"],
        &["man"],
        &["completions", "bash"],
        &["--help"],
        &["rotate", "--help"],
        &["vault", "check"],
        &["explain", "Door"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = world.command(arguments);
        let child = command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        // The writing end is closed here, too, with the command.
        drop(command);
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && !said.contains("bug:") && !said.contains("panic"), "{arguments:?}: {said}");
    }
    assert_eq!(world.history("Door").len(), 1, "it rotated all the same");
}

#[test]
fn what_cannot_be_written_down_is_told() {
    let world = World::new();
    noop(&world, "Door");
    for arguments in [
        &["audit", "export"][..],
        &["export"],
        &["show", "Door", "--field", "password"],
        &["show", "Door", "--field", "password", "-o", "json"],
        &["man"],
        &["vault", "rekey", "--new-key-file", "vault.key", "--recovery-key"],
    ] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = world.command(arguments);
        let output = command.stdin(Stdio::null()).stdout(full).stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let told = said.contains("cannot be written") && said.contains("No space");
        assert!(output.status.code() == Some(3) && told, "{arguments:?}: {said}");
    }
    // Where the credentials are the news, the status keeps telling of them.
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = world.command(&["list"]).stdin(Stdio::null()).stdout(full).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(0) && said.contains("cannot be written"), "{said}");
    // A recovery key comes in a machine's words, too.
    let rekeyed = world.json(&["vault", "rekey", "--new-key-file", "vault.key", "--recovery-key"]);
    let recovery = rekeyed[0]["recovery_key"].as_str().unwrap();
    world.ok_with(&["list", "--recovery-key-file", "-"], recovery);
}

/// A run that ends without a report.
fn killed(running: world::Running) {
    running.signal("KILL");
    running.end();
}

/// Every way out of a park leads to the credential that the server accepts, and keeps all others.
#[test]
fn a_parked_record_is_told_and_every_way_out_leads_out() {
    let server = Postgresql::start(PostgresqlOptions::default()).unwrap();
    let world = World::new();
    server.create_role("app", "Old-And-Tired-1").unwrap();
    let fields = Fields {
        login: "app".to_owned(),
        url: Some(format!("postgres://127.0.0.1:{}", server.port())),
        custom: vec![format!("turnlock:ca={}", server.ca_path().display())],
    };
    world.add("App", &fields, "Old-And-Tired-1");
    let mut known = vec!["Old-And-Tired-1".to_owned()];
    let ways: [(&str, &[&str]); 6] = [
        ("candidate", &["resolve", "App", "--use", "candidate"]),
        ("current", &["resolve", "App", "--use", "current"]),
        ("past", &["resolve", "App", "--use", "past:1"]),
        ("behind", &["resolve", "App", "--use", "password", "--password", "-"]),
        ("past", &["restore", "App"]),
        ("candidate", &["recover"]),
    ];
    for (round, (alive, way)) in ways.iter().enumerate() {
        let current = world.password("App");
        server.set_parameter("synchronous_standby_names", "nobody").unwrap();
        let running = world.start(&["rotate", "App"]);
        wait_until("a commit to wait for a standby", SOON, || {
            let waiting = server.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep';");
            waiting.is_ok_and(|count| count != "0").then_some(())
        })
        .unwrap();
        let candidate = world.staged("App").remove(0);
        killed(running);
        server.reset_parameter("synchronous_standby_names").unwrap();
        wait_until("the change", SOON, || server.accepts("app", &candidate).unwrap().then_some(())).unwrap();
        let behind = format!("Behind-Your-Back-{round}");
        server.set_password("app", &behind).unwrap();

        // Parked, by whoever comes first, and told by everybody.
        let parked = world.fails(5, &[if round == 0 { "rotate" } else { "recover" }, "App"]);
        assert_eq!(parked["state"], "parked", "{parked}");
        assert!(parked["hint"].as_str().unwrap().contains("turnlock resolve"), "{parked}");
        let status = world.run(&["status", "-o", "json"]);
        let open = world::lines(&status.stdout);
        assert_eq!((status.status, open.len()), (3, 1), "{}", status.stderr);
        assert_eq!((&open[0]["title"], &open[0]["state"]), (&json!("App"), &json!("parked")));
        let table = world.run(&["status"]).stdout;
        assert!(table.contains("parked") && table.contains("turnlock") && table.contains("resolve"), "{table}");
        assert_eq!(world.json(&["list"])[0]["state"], "parked");
        assert_eq!(world.json(&["show", "App"])[0]["open_attempts"], 1);
        assert!(world.json(&["show", "App", "--stage"])[0]["parked"].as_str().unwrap().contains("refuses"));
        assert_eq!(world.fails(5, &["rotate", "App"])["state"], "parked");
        for which in ["candidate", "current"] {
            let refused = world.fails(5, &["resolve", "App", "--use", which]);
            assert!(refused["hint"].as_str().unwrap().contains("--unverified"), "{refused}");
        }
        let wrong = ["resolve", "App", "--use", "password", "--password", "-"];
        world.fails_with(5, &wrong, "No-Such-Luck-1");
        assert_eq!((world.password("App"), world.staged("App")), (current.clone(), vec![candidate.clone()]));

        let right = match *alive {
            "candidate" => candidate.clone(),
            "current" => current.clone(),
            "past" => known[0].clone(),
            _ => behind,
        };
        let right = right.as_str();
        if *alive != "behind" {
            server.set_password("app", right).unwrap();
        }
        let out = world.ok_with(way, right);
        assert!(!(out.stdout + &out.stderr).contains(right), "{way:?}");
        assert_eq!(world.password("App"), right, "{way:?}");
        assert!(server.accepts("app", right).unwrap());
        world.nothing_is_open();
        known.extend([current, candidate, right.to_owned()]);
        let held = world.every_password("App");
        for secret in &known {
            assert!(held.contains(secret), "{way:?} lost a credential");
        }
    }
    // Insisting adopts what nobody accepts, says so, and history still leads back.
    let live = world.password("App");
    let dead =
        world.history("App").iter().find(|past| past["credential"]["password"] != live.as_str()).unwrap().clone();
    let number = dead["number"].to_string();
    world.fails(5, &["restore", "App", "--number", &number]);
    world.ok(&["restore", "App", "--number", &number, "--unverified"]);
    assert_eq!(dead["credential"]["password"], world.password("App").as_str());
    assert_eq!(world.fails(3, &["rotate", "App"])["kind"], "authentication");
    assert_eq!(world.json(&["verify", "App", "--try-history"])[0]["outcome"], "adopted");
    assert_eq!(world.password("App"), live);
    world.ok(&["rotate", "App"]);
    world.ok(&["audit", "verify"]);
}
