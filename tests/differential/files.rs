//! Files that other programs write and read: Commander's own import and export,
//! and KeePassXC's command line.

use std::{collections::BTreeMap, fs, path::PathBuf};

use lab::process;
use serde_json::{Value, json};

use crate::commander::ask_one;
use crate::world::World;

const PASSPHRASE: &str = "A passphrase of a test";
const KEY: &str = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Blbn\n-----END OPENSSH PRIVATE KEY-----\n";

/// What Commander keeps of its own records in every one of its formats.
fn common() -> Value {
    json!({"shared_folders": [{"path": "Infra", "manage_users": true}], "records": [
        {"title": "Orders", "uid": "AAECAwQFBgcICQoLDA0ODw", "login": "app", "password": "pw <&> \"'ß", "login_url": "mysql://db",
            "notes": "one\ntwo", "custom_fields": {"cmdr:plugin": "mysql", "PIN": "4711"},
            "folders": [{"shared_folder": "Infra", "folder": "db\\prod"}]},
        {"title": "Keys", "uid": "EBESExQVFhcYGRobHB0eHw", "$type": "sshKeys", "login": "rot", "password": "pp",
            "custom_fields": {"$keyPair": {"privateKey": KEY, "publicKey": ""}, "$host": {"hostName": "h", "port": "22"},
                "$text:cmdr:plugin": "sshkey"}},
    ]})
}

/// A record's fields by name, as `show` tells them.
fn fields(world: &World, title: &str) -> BTreeMap<String, String> {
    let shown = world.json(&["show", title, "--reveal"]).remove(0);
    let fields = shown["fields"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    fields.iter().map(|field| (text(&field["name"]), text(&field["value"]))).collect()
}

fn file(world: &World, name: &str) -> PathBuf {
    world.turnlock.home().join(name)
}

#[test]
fn what_commander_exports_is_imported() {
    for format in ["json", "csv", "kdbx"] {
        let world = World::new();
        let (from, to) = (file(&world, "from.json"), file(&world, &format!("to.{format}")));
        process::write_file(&from, common().to_string()).unwrap();
        let answer =
            ask_one(json!({"ask": "exports", "path": from, "format": format, "to": to, "passphrase": PASSPHRASE}));
        assert!(answer.get("crashed").is_none(), "{answer}");
        let to = to.to_str().unwrap();
        match format {
            "kdbx" => world.ok_with(&["import", "kdbx", to, "--kdbx-passphrase-file", "-"], PASSPHRASE),
            "csv" => world.ok(&["import", "csv", to]),
            _ => world.ok(&["import", "keeper", to]),
        };
        // Its KDBX export forgets the UIDs.
        let (orders, keys) = match format {
            "kdbx" => (fields(&world, "Orders"), fields(&world, "Keys")),
            _ => (fields(&world, "AAECAwQFBgcICQoLDA0ODw"), fields(&world, "EBESExQVFhcYGRobHB0eHw")),
        };
        for (name, wanted) in [
            ("login", "app"),
            ("password", "pw <&> \"'ß"),
            ("url", "mysql://db"),
            ("notes", "one\ntwo"),
            ("cmdr:plugin", "mysql"),
            ("PIN", "4711"),
        ] {
            assert_eq!(orders.get(name).map(String::as_str), Some(wanted), "{format}: {orders:?}");
        }
        let has = |text: &str| keys.values().any(|value| value.contains(text));
        // Its KDBX export writes a key pair as text of its own making.
        let key = if format == "kdbx" { "b3Blbn" } else { KEY.trim() };
        assert!(has("sshkey") && has(key) && has("22"), "{format}: {keys:?}");
    }
}

#[test]
fn commander_imports_what_is_exported() {
    let world = World::new();
    world.ok_with(&["import", "keeper", "-"], &common().to_string());
    for (form, format) in [("keeper", "json"), ("csv", "csv"), ("kdbx", "kdbx")] {
        let path = file(&world, &format!("export.{format}"));
        let to = path.to_str().unwrap();
        if form == "kdbx" {
            world.ok_with(&["export", "--format", form, "--to", to, "--kdbx-passphrase-file", "-"], PASSPHRASE);
        } else {
            world.ok(&["export", "--format", form, "--to", to]);
        }
        let answer = ask_one(json!({"ask": "imports", "path": path, "format": format, "passphrase": PASSPHRASE}));
        let records = answer["records"].as_array().unwrap_or_else(|| panic!("{form}: {answer}"));
        let record = |uid: &str| records.iter().find(|record| record["uid"] == uid).unwrap();
        let (orders, keys) = (record("AAECAwQFBgcICQoLDA0ODw"), record("EBESExQVFhcYGRobHB0eHw"));
        for (name, wanted) in
            [("login", "app"), ("password", "pw <&> \"'ß"), ("url", "mysql://db"), ("notes", "one\ntwo")]
        {
            assert_eq!(orders[name], wanted, "{form}: {orders}");
        }
        assert!(orders["fields"].to_string().contains("4711"), "{form}: {orders}");
        assert_eq!(keys["type"], "sshKeys", "{form}: {keys}");
        let pair = keys["fields"].as_array().unwrap().iter().find(|field| field[0] == "keyPair").unwrap();
        if form == "kdbx" {
            // Of KDBX it makes a list of lines, also of what it wrote itself.
            let lines: Vec<&str> = pair[2].as_array().unwrap().iter().filter_map(Value::as_str).collect();
            assert_eq!(lines.join("\n"), KEY.trim(), "{form}: {pair}");
        } else {
            assert!(pair[2]["privateKey"].as_str().unwrap().starts_with(KEY.trim()), "{form}: {pair}");
        }
    }
}

#[test]
fn keepassxc_opens_an_export_and_shows_everything() {
    let world = World::new();
    let records = json!([
        {"title": "Orders", "uid": "AAECAwQFBgcICQoLDA0ODw", "login": "app", "password": "First-Secret-1", "notes": "a note",
            "custom_fields": {"cmdr:plugin": "noop", "PIN": "4711 <&>", "cmdr:host": ["a", "b"]},
            "folders": [{"shared_folder": "Infra", "folder": "db\\prod"}]},
        {"title": "Keys", "uid": "not made by Keeper".replace(' ', "-"), "$type": "sshKeys", "login": "rot", "password": "pp",
            "custom_fields": {"$keyPair": {"privateKey": KEY, "publicKey": "ssh-ed25519 AAAA"}}},
    ]);
    world.ok_with(&["import", "keeper", "-"], &records.to_string());
    world.ok(&["rotate", "Orders"]);
    world.ok(&["rotate", "Orders"]);
    let password = world.ok(&["show", "Orders", "--field", "password"]).stdout.trim_end().to_owned();
    let middle = world.json(&["show", "Orders", "--history", "--reveal"]);
    let middle: Vec<String> =
        middle.iter().map(|past| past["credential"]["password"].as_str().unwrap().to_owned()).collect();
    assert_eq!(middle.len(), 2);

    let path = file(&world, "export.kdbx");
    let to = path.to_str().unwrap();
    world.ok_with(&["export", "--format", "kdbx", "--to", to, "--kdbx-passphrase-file", "-"], PASSPHRASE);
    let keepassxc = |arguments: &[&str]| {
        let mut command = process::clean_command("keepassxc-cli");
        command.args(arguments).env("HOME", world.turnlock.home());
        let output = process::run(&mut command, format!("{PASSPHRASE}\n").as_bytes()).unwrap();
        assert!(output.succeeded(), "keepassxc-cli {arguments:?}: {}", output.stderr);
        output.stdout
    };
    let show = |entry: &str, attribute: &str| {
        keepassxc(&["show", "-q", "-s", "-a", attribute, to, entry]).trim_end().to_owned()
    };
    let orders = "Infra/db/prod/Orders";
    assert_eq!(show(orders, "Password"), password);
    assert_eq!(show("Keys", "$keyPair"), KEY.trim_end());
    let xml = keepassxc(&["export", "-q", "-f", "xml", to]);
    let flat: String = xml.split_whitespace().collect::<Vec<_>>().join(" ");
    for (attribute, wanted) in [
        ("UserName", "app"),
        ("Notes", "a note"),
        ("PIN", "4711 &lt;&amp;&gt;"),
        ("cmdr:plugin", "noop"),
        ("cmdr:host", "a"),
        ("cmdr:host#2", "b"),
        ("$keyPair#publicKey", "ssh-ed25519 AAAA"),
    ] {
        let shown = [">", " Protected=\"True\">", " ProtectInMemory=\"True\">"]
            .map(|value| format!("<Key>{attribute}</Key> <Value{value}{wanted}</Value>"));
        assert!(shown.iter().any(|shown| flat.contains(shown)), "{attribute} in {flat}");
    }
    let history: Vec<&str> =
        xml.split("<History>").skip(1).filter_map(|rest| rest.split("</History>").next()).collect();
    let history = history.concat();
    for past in &middle {
        let escaped = past.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
        assert!(history.contains(&escaped), "{past} is not in the history");
    }

    // What KeePassXC changes comes back, with a history of its own.
    keepassxc(&["edit", "-q", "-u", "other", to, orders]);
    let again = World::new();
    again.ok_with(&["import", "kdbx", to, "--kdbx-passphrase-file", "-"], PASSPHRASE);
    assert_eq!(fields(&again, "Orders")["login"], "other");
    assert_eq!(fields(&again, "not-made-by-Keeper"), fields(&world, "not-made-by-Keeper"));
    let text = again.content();
    for past in &middle {
        assert!(text.contains(&serde_json::to_string(past).unwrap()), "the history came back");
    }
    // A wrong passphrase is told, and nothing is imported.
    let refused = again.fails_with(2, &["import", "kdbx", to, "--kdbx-passphrase-file", "-"], "wrong");
    assert!(refused["hint"].as_str().unwrap().contains("--kdbx-passphrase-file"), "{refused}");
    assert_eq!(again.content(), text);
}

#[test]
fn an_import_is_whole_repeatable_and_tells_what_it_does_not_keep() {
    let world = World::new();
    let path = file(&world, "import.json");
    let from = path.to_str().unwrap();
    let write = |content: Value| process::write_file(&path, content.to_string()).unwrap();
    write(common());
    let dry = world.json(&["import", "keeper", from, "--dry-run"]).remove(0);
    assert_eq!((&dry["records"], &dry["rotatable"], &dry["dry_run"]), (&json!(2), &json!(2), &json!(true)), "{dry}");
    assert_eq!(dry["losses"], json!(["'Infra': of this shared folder: manage_users"]));
    let empty = world.content();
    world.ok(&["import", "keeper", from]);
    let once = world.content();
    assert_ne!(once, empty);
    world.ok(&["import", "keeper", from]);
    assert_eq!(world.content(), once);
    for form in ["raw", "keeper"] {
        let other = World::new();
        other.ok_with(&["import", "keeper", "-"], &world.ok(&["export", "--format", form]).stdout);
        assert_eq!(other.content(), once, "{form}");
    }

    // A file that is wrong at its end changes nothing.
    let mut broken = common();
    broken["records"][0]["password"] = json!("overwritten");
    broken["records"].as_array_mut().unwrap().push(json!({"title": "wrong", "uid": "a b"}));
    write(broken);
    world.fails(2, &["import", "keeper", from]);
    assert_eq!(world.content(), once);
    // Attached files are named.
    write(json!([{"title": "with", "uid": "W", "attachments": [{"file_uid": "x", "name": "n"}]}]));
    let told = world.json(&["import", "keeper", from, "--dry-run"]).remove(0);
    assert_eq!(told["losses"], json!(["'with' (W): attached files"]));
}

/// The highest memory of a command, in kilobytes.
fn peak(world: &World, arguments: &[&str]) -> u64 {
    const MEASURE: &str = "import resource, subprocess, sys\n\
        subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n\
        print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)";
    let turnlock = world.command(arguments);
    let mut command = process::clean_command("python3");
    command.args(["-c", MEASURE]).arg(turnlock.get_program()).args(turnlock.get_args());
    command.envs(turnlock.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = process::run_within(&mut command, b"", std::time::Duration::from_secs(240)).unwrap();
    assert!(output.succeeded(), "{arguments:?}: {}", output.stderr);
    output.stdout.trim().parse().unwrap()
}

#[test]
fn memory_does_not_grow_with_the_file() {
    let notes = "n".repeat(64 << 10);
    let measured = |count: usize| {
        let world = World::new();
        let (json, csv) = (file(&world, "many.json"), file(&world, "many.csv"));
        let records: Vec<Value> = (0..count)
            .map(|number| json!({"title": format!("t{number}"), "uid": format!("uid-{number}"), "login": "l", "password": "p", "notes": notes}))
            .collect();
        process::write_file(&json, json!({"records": records}).to_string()).unwrap();
        let path = |path: &PathBuf| path.to_str().unwrap().to_owned();
        let imported = peak(&world, &["import", "keeper", &path(&json)]);
        let exported = peak(&world, &["export", "--format", "csv", "--to", &path(&csv)]);
        let from_csv = peak(&world, &["import", "csv", &path(&csv), "--dry-run"]);
        let to_json = peak(&world, &["export", "--to", &path(&json)]);
        assert!(fs::metadata(&csv).unwrap().len() > (count * notes.len()) as u64);
        [imported, exported, from_csv, to_json]
    };
    // Already the smaller one is larger than the 32 MiB of its file that a vault
    // keeps in memory while it writes.
    let (small, large) = (measured(560), measured(700));
    for (what, (small, large)) in
        ["import keeper", "export csv", "import csv", "export keeper"].iter().zip(small.iter().zip(large))
    {
        // 9 MB more in the file.
        assert!(large < small + 4_000, "{what}: {small} kB for 560 records, {large} kB for 700");
    }
}
