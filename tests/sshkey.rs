//! The rotator sshkey on real sshd: whatever happens to a host, none of them
//! ends with neither key, and no record with a key that opens nothing.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a broken expectation of a test program is its failure"
)]

mod world;

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use lab::{Direction, Fault, Output, Proxy, RemoteLogin, UnixHost, UnixHostOptions, process};
use serde_json::{Value, json};
use world::World;

fn start() -> UnixHost {
    let host = UnixHost::start(UnixHostOptions::default()).unwrap();
    host.create_user("deploy", "Only-For-Its-Sake-1").unwrap();
    host
}

/// A key pair as ssh-keygen makes it.
fn keygen(world: &World, name: &str, arguments: &[&str]) -> PathBuf {
    let path = world.turnlock.home().join(name);
    let mut keygen = process::clean_command("ssh-keygen");
    keygen.args(["-q", "-C", "it's the old one", "-f"]).arg(&path).args(arguments);
    let made = process::run(&mut keygen, b"").unwrap();
    assert_eq!(made.status, 0, "{}", made.stderr);
    path
}

fn public(key: &Path) -> String {
    fs::read_to_string(key.with_extension("pub")).unwrap()
}

/// A typed record with a key pair, as Keeper's export has it.
fn import(world: &World, key: Option<&Path>, passphrase: &str, hosts: &[String], fingerprints: &[String], more: Value) {
    let mut custom = json!({ "$text:cmdr:plugin": "sshkey" });
    let fields = custom.as_object_mut().unwrap();
    if let Some(key) = key {
        let text = fs::read_to_string(key).unwrap();
        fields.insert("$keyPair".to_owned(), json!({ "privateKey": text, "publicKey": public(key) }));
    }
    for (number, host) in hosts.iter().enumerate() {
        let (name, port) = host.rsplit_once(':').unwrap();
        fields.insert(format!("$host:{number}"), json!({ "hostName": name, "port": port }));
    }
    fields.insert("$text:turnlock:known_host".to_owned(), json!(fingerprints.join(",")));
    fields.extend(more.as_object().unwrap().clone());
    let record = json!({ "records": [{
        "title": "Key", "uid": "AAAAAAAAAAAAAAAAAAAAAA", "$type": "sshKeys", "login": "deploy",
        "password": passphrase, "custom_fields": custom,
    }]});
    world.ok_with(&["import", "keeper", "-"], &record.to_string());
}

/// The record as the vault holds it now.
fn record(world: &World) -> Value {
    let exported: Value = serde_json::from_str(&world.content()).unwrap();
    exported["records"][0].clone()
}

/// A private key from the vault, in a file without passphrase as ssh wants it.
fn key_file(world: &World, name: &str, text: &str, passphrase: &str) -> PathBuf {
    let path = world.turnlock.home().join(name);
    process::write_file(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let mut keygen = process::clean_command("ssh-keygen");
    keygen.args(["-q", "-p", "-P", passphrase, "-N", "", "-f"]).arg(&path);
    let opened = process::run(&mut keygen, b"").unwrap();
    assert_eq!(opened.status, 0, "{}", opened.stderr);
    path
}

/// The vault's current key.
fn current(world: &World) -> PathBuf {
    let record = record(world);
    let text = record["custom_fields"]["$keyPair"]["privateKey"].as_str().unwrap().to_owned();
    key_file(world, "current", &text, record["password"].as_str().unwrap_or_default())
}

/// Every key of the vault that may be alive.
fn every_key(world: &World) -> Vec<PathBuf> {
    let mut keys = vec![current(world)];
    let past = world.json(&["show", "Key", "--history", "--stage", "--reveal"]);
    for (number, row) in past.iter().enumerate() {
        for kind in ["candidate", "credential"] {
            if let Some(text) = row[kind]["private_key"].as_str() {
                let passphrase = row[kind]["passphrase"].as_str().unwrap_or_default();
                keys.push(key_file(world, &format!("key-{number}"), text, passphrase));
            }
        }
    }
    keys
}

fn place(host: &UnixHost) -> String {
    format!("{}:{}", host.host(), host.port())
}

/// Hosts that know a key among other lines, and a record of it.
struct Fleet {
    world: World,
    hosts: Vec<UnixHost>,
    old: PathBuf,
}

const OTHERS: &str = "# Somebody's comment, don't touch\r\n\nssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKJFmnq5Bh9Cra2y8fJj2/0jwFX9zzTL9qAsLNl+g1d8 o'connor\n";

impl Fleet {
    fn of(count: usize) -> Self {
        Self::through(count, |_, host| place(host))
    }

    /// The same with one's own idea of where a host is.
    fn through(count: usize, mut reach: impl FnMut(usize, &UnixHost) -> String) -> Self {
        let world = World::new();
        let old = keygen(&world, "old", &["-t", "ed25519", "-N", ""]);
        let hosts: Vec<UnixHost> = (0..count).map(|_| start()).collect();
        for host in &hosts {
            host.authorize("deploy", format!("{OTHERS}{}", public(&old))).unwrap();
        }
        let places: Vec<String> = hosts.iter().enumerate().map(|(number, host)| reach(number, host)).collect();
        let known: Vec<String> = hosts.iter().map(|host| host.fingerprint().unwrap()).collect();
        import(&world, Some(&old), "", &places, &known, json!({}));
        Self { world, hosts, old }
    }

    /// All hosts take the vault's key and no other of ours; other lines are as they were.
    #[track_caller]
    fn has_rotated(&self) {
        let current = current(&self.world);
        for (number, host) in self.hosts.iter().enumerate() {
            assert!(host.accepts_key("deploy", &current).unwrap(), "host {number} refuses the vault's key");
            assert!(!host.accepts_key("deploy", &self.old).unwrap(), "host {number} still takes the old key");
            let keys = String::from_utf8(host.authorized_keys("deploy").unwrap()).unwrap();
            assert!(keys.starts_with(OTHERS) && keys.lines().count() == OTHERS.lines().count() + 1, "{keys}");
        }
        self.world.nothing_is_open();
    }

    #[track_caller]
    fn is_unchanged(&self) {
        for (number, host) in self.hosts.iter().enumerate() {
            let keys = String::from_utf8(host.authorized_keys("deploy").unwrap()).unwrap();
            assert_eq!(keys, format!("{OTHERS}{}", public(&self.old)), "host {number}");
        }
        assert_eq!(
            record(&self.world)["custom_fields"]["$keyPair"]["privateKey"],
            fs::read_to_string(&self.old).unwrap()
        );
        self.world.nothing_is_open();
    }
}

/// Commander compares whole lines, so that an old key with a comment stays;
/// it strips apostrophes from everybody's lines.
#[test]
fn an_old_key_with_a_comment_is_gone_and_apostrophes_stay() {
    let fleet = Fleet::of(5);
    let rotated = fleet.world.ok(&["rotate", "Key"]);
    assert!(rotated.stdout.contains("proven by a new log-in"), "{}", rotated.stdout);
    fleet.has_rotated();
    let record = record(&fleet.world);
    let pair = &record["custom_fields"]["$keyPair"];
    assert!(pair["publicKey"].as_str().unwrap().ends_with("it's the old one"), "{pair}");
    // Once more, and a look at it.
    fleet.world.ok(&["check", "Key"]);
    fleet.world.ok(&["verify", "Key"]);
    fleet.world.ok(&["rotate", "Key"]);
    fleet.has_rotated();
    assert_eq!(fleet.hosts.iter().map(UnixHost::failed_logins).sum::<usize>(), 10, "only this test's own questions");
}

/// Commander replaces the record's key although a host is down, or never knew it.
#[test]
fn a_host_that_is_down_is_no_success_and_changes_nothing() {
    let mut fleet = Fleet::of(5);
    fleet.hosts[2].stop().unwrap();
    let down = fleet.world.fails(3, &["rotate", "Key"]);
    assert_eq!((&down["kind"], &down["state"]), (&json!("unreachable"), &json!("unchanged")), "{down}");
    assert!(down["causes"].to_string().contains(&place(&fleet.hosts[2])), "{down}");
    fleet.is_unchanged();
    fleet.hosts[2].restart().unwrap();
    fleet.hosts[3].authorize("deploy", OTHERS).unwrap();
    let refused = fleet.world.fails(3, &["rotate", "Key"]);
    assert_eq!((&refused["kind"], &refused["state"]), (&json!("authentication"), &json!("unchanged")), "{refused}");
    fleet.hosts[3].authorize("deploy", format!("{OTHERS}{}", public(&fleet.old))).unwrap();
    fleet.is_unchanged();
    fleet.world.ok(&["rotate", "Key"]);
    fleet.has_rotated();
}

/// Five hosts, of which the third is reached through a proxy that can fail it.
fn with_a_weak_third() -> (Fleet, Proxy) {
    let mut proxy = None;
    let fleet = Fleet::through(5, |number, host| {
        if number != 2 {
            return place(host);
        }
        let started = Proxy::start(SocketAddr::from(([127, 0, 0, 1], host.port()))).unwrap();
        let reach = format!("127.0.0.1:{}", started.port());
        proxy = Some(started);
        reach
    });
    fleet.world.ok(&["edit", "Key", "--set", "cmdr:timeout=10"]);
    (fleet, proxy.unwrap())
}

impl Fleet {
    /// What must hold at every instant, and after the host is back.
    #[track_caller]
    fn holds(&self, outcome: &Output, when: &str) {
        let said = format!("{when}: status {}: {}{}", outcome.status, outcome.stdout, outcome.stderr);
        let alive = every_key(&self.world);
        for (number, host) in self.hosts.iter().enumerate() {
            let opens = alive.iter().any(|key| host.accepts_key("deploy", key).unwrap());
            assert!(opens, "host {number} takes none of the vault's keys; {said}");
        }
        let everywhere = || {
            let current = current(&self.world);
            self.hosts.iter().all(|host| host.accepts_key("deploy", &current).unwrap())
        };
        // Status 3 says that nothing has changed, 0 that the new key is everybody's.
        assert!(![0, 3].contains(&outcome.status) || everywhere(), "{said}");
        let recovered = self.world.run(&["recover"]);
        assert_eq!(recovered.status, 0, "{said}; then {}{}", recovered.stdout, recovered.stderr);
        assert!(everywhere(), "{said}; recovered");
        self.world.nothing_is_open();
    }
}

/// Commander has switched host 1 when host 2 fails, and says that all is well.
#[test]
fn a_host_that_dies_before_during_or_after_any_phase_keeps_a_key_that_the_vault_has() {
    let (fleet, proxy) = with_a_weak_third();
    let mut outcomes = Vec::new();
    // Connections are for: the change, its proof, a look before the clean-up, the clean-up.
    for lived in 0..=4 {
        proxy.set(if lived == 0 { Fault::Refuse } else { Fault::None }).unwrap();
        let before = proxy.connections();
        let running = fleet.world.start(&["rotate", "Key"]);
        if lived > 0 {
            lab::wait_until("the third host to be asked", std::time::Duration::from_secs(20), || {
                (proxy.connections() >= before + lived).then_some(())
            })
            .unwrap();
            proxy.set(Fault::Refuse).unwrap();
        }
        let outcome = running.end();
        proxy.set(Fault::None).unwrap();
        outcomes.push((outcome.status, outcome.stderr.contains("not cleaned up yet")));
        fleet.holds(&outcome, &format!("after {lived} connections"));
    }
    assert_eq!(outcomes[0], (3, false), "{outcomes:?}");
    assert!([4, 5].contains(&outcomes[1].0), "applied, not proven: {outcomes:?}");
    assert!(outcomes.contains(&(0, true)), "committed, not cleaned up: {outcomes:?}");
    assert_eq!(outcomes[4], (0, false), "{outcomes:?}");
    fleet.has_rotated();
}

#[test]
fn a_host_whose_connection_breaks_at_any_byte_of_the_change_keeps_a_key_that_the_vault_has() {
    let (fleet, proxy) = with_a_weak_third();
    for (direction, step) in [(Direction::ToServer, 900), (Direction::ToClient, 1100)] {
        let mut after = 1;
        loop {
            proxy.set(Fault::Cut { direction, after }).unwrap();
            let outcome = fleet.world.run(&["rotate", "Key"]);
            proxy.set(Fault::None).unwrap();
            fleet.holds(&outcome, &format!("byte {after} {direction:?}"));
            if outcome.status == 0 {
                break;
            }
            after += step;
        }
        assert!(after > 3 * step, "only {after} bytes were ever cut");
    }
    fleet.world.ok(&["rotate", "Key"]);
    fleet.has_rotated();
}

#[test]
fn every_kind_and_format_of_key_is_rotated_and_written_in_openssh_format() {
    let host = start();
    for (arguments, kind, passphrase) in [
        (&["-t", "ed25519", "-N", "a phrase"][..], "ssh-ed25519", "a phrase"),
        (&["-t", "rsa", "-b", "2048", "-m", "PEM", "-N", ""], "ssh-rsa", ""),
        (&["-t", "rsa", "-b", "3072", "-m", "PKCS8", "-N", ""], "ssh-rsa", ""),
        (&["-t", "rsa", "-b", "2048", "-m", "PEM", "-N", "a phrase"], "ssh-rsa", "a phrase"),
        (&["-t", "ecdsa", "-b", "384", "-N", ""], "ecdsa-sha2-nistp384", ""),
        (&["-t", "ecdsa", "-b", "256", "-m", "PKCS8", "-N", "a phrase"], "ecdsa-sha2-nistp256", "a phrase"),
        (&["-t", "ecdsa", "-b", "521", "-N", ""], "ecdsa-sha2-nistp521", ""),
    ] {
        let world = World::new();
        let old = keygen(&world, "old", arguments);
        host.authorize("deploy", public(&old)).unwrap();
        import(&world, Some(&old), passphrase, &[place(&host)], &[host.fingerprint().unwrap()], json!({}));
        world.ok(&["rotate", "Key"]);
        let record = record(&world);
        let pair = &record["custom_fields"]["$keyPair"];
        assert!(pair["publicKey"].as_str().unwrap().starts_with(&format!("{kind} ")), "{arguments:?}");
        assert!(pair["privateKey"].as_str().unwrap().starts_with("-----BEGIN OPENSSH"), "{arguments:?}");
        let now = record["password"].as_str().unwrap_or_default();
        assert_eq!(now.is_empty(), passphrase.is_empty(), "{arguments:?}");
        assert_ne!((now, 1), (passphrase, usize::from(!passphrase.is_empty())), "the passphrase is a new one");
        assert!(host.accepts_key("deploy", &current(&world)).unwrap(), "{arguments:?}");
        let keys = host.authorized_keys("deploy").unwrap();
        assert_eq!(keys.iter().filter(|byte| **byte == b'\n').count(), 1, "{arguments:?}");
        if kind == "ssh-rsa" {
            let shown =
                process::run(process::clean_command("ssh-keygen").arg("-lf").arg(current(&world)), b"").unwrap();
            assert!(shown.stdout.starts_with("3072 "), "{}", shown.stdout);
        }
        world.nothing_is_open();
    }
}

#[test]
fn a_wrong_passphrase_or_no_key_at_all_is_told_and_changes_nothing() {
    let world = World::new();
    let old = keygen(&world, "old", &["-t", "ed25519", "-N", "a phrase"]);
    import(&world, Some(&old), "another phrase", &["127.0.0.1:1".to_owned()], &["SHA256:x".to_owned()], json!({}));
    let wrong = world.fails(3, &["rotate", "Key"]);
    assert!(wrong["error"].to_string().contains("private key cannot be read"), "{wrong}");
    let world = World::new();
    import(&world, None, "", &["127.0.0.1:1".to_owned()], &["SHA256:x".to_owned()], json!({}));
    let none = world.fails(3, &["rotate", "Key"]);
    assert!(none["hint"].to_string().contains("take the hosts out"), "{none}");
    world.nothing_is_open();
}

#[test]
fn a_first_run_without_hosts_makes_a_key_and_says_what_to_install() {
    let world = World::new();
    import(&world, None, "", &[], &["SHA256:x".to_owned()], json!({}));
    let made = world.ok(&["rotate", "Key"]);
    let record = record(&world);
    let public = record["custom_fields"]["$keyPair"]["publicKey"].as_str().unwrap().to_owned();
    assert!((made.stdout + &made.stderr).contains(&public), "the key to install is shown");
    let host = start();
    host.authorize("deploy", format!("{public}\n")).unwrap();
    assert!(host.accepts_key("deploy", &current(&world)).unwrap());
}

#[test]
fn options_links_modes_and_other_places_survive() {
    let host = UnixHost::start(UnixHostOptions {
        sshd: vec!["AuthorizedKeysFile .ssh/authorized_keys /home/deploy/elsewhere/keys".to_owned()],
        ..UnixHostOptions::default()
    })
    .unwrap();
    host.create_user("deploy", "Only-For-Its-Sake-1").unwrap();
    let world = World::new();
    let old = keygen(&world, "old", &["-t", "ed25519", "-N", ""]);
    let options =
        "from=\"127.0.0.1,!10.0.0.9\",command=\"/bin/sh -c \\\"$SSH_ORIGINAL_COMMAND\\\"\",no-agent-forwarding";
    // The last line has no ending, and the file is a link.
    host.authorize("deploy", format!("{OTHERS}{options}  {}", public(&old).trim_end())).unwrap();
    let run = |script: &str| -> Output {
        let ran = host.run(&["sh", "-ec", script], b"").unwrap();
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        ran
    };
    run("cd /home/deploy; mkdir elsewhere; mv .ssh/authorized_keys elsewhere/keys; chmod 640 elsewhere/keys; \
         chown -R deploy: elsewhere; ln -s ../elsewhere/keys .ssh/authorized_keys");
    import(&world, Some(&old), "", &[place(&host)], &[host.fingerprint().unwrap()], json!({}));
    world.ok(&["rotate", "Key"]);
    let file = host.homes().join("deploy/elsewhere/keys");
    let content = fs::read_to_string(&file).unwrap();
    let last = content.strip_prefix(OTHERS).unwrap();
    assert!(last.starts_with(&format!("{options}  ssh-ed25519 ")) && last.ends_with("it's the old one"), "{content}");
    let meta = fs::metadata(&file).unwrap();
    assert_eq!((meta.mode() & 0o777, meta.uid()), (0o640, host.ids("deploy").unwrap().0));
    assert!(fs::symlink_metadata(host.homes().join("deploy/.ssh/authorized_keys")).unwrap().is_symlink());
    assert!(host.accepts_key("deploy", &current(&world)).unwrap());
    assert_eq!(run("ls -A /home/deploy/elsewhere").stdout, "keys\n", "nothing is left beside it");

    run("rm /home/deploy/.ssh/authorized_keys");
    let lost = world.fails(3, &["rotate", "Key"]);
    assert!(lost["causes"].to_string().contains("does not stand in .ssh/authorized_keys"), "{lost}");
    world.ok(&["edit", "Key", "--set", "cmdr:authorized_keys=/home/deploy/elsewhere/keys"]);
    world.ok(&["rotate", "Key"]);
    assert!(host.accepts_key("deploy", &current(&world)).unwrap());
}

/// Commander does not check host keys, and leaves entries in the user's known_hosts.
#[test]
fn a_changed_host_key_stops_everything_and_known_hosts_is_not_written() {
    let mut fleet = Fleet::of(3);
    fleet.hosts[1].replace_host_key().unwrap();
    for command in ["rotate", "check", "verify"] {
        let changed = fleet.world.fails(3, &[command, "Key"]);
        assert_eq!(changed["kind"], "host_key", "{changed}");
    }
    fleet.is_unchanged();
    assert!(!fleet.world.turnlock.home().join(".ssh").exists());
}

/// Commander writes the decrypted key into a temporary file for ssh.
#[test]
fn the_private_key_touches_no_disk_and_no_command_line() {
    for remote_login in [RemoteLogin::OpenSsh, RemoteLogin::Dropbear] {
        let host = UnixHost::start(UnixHostOptions { remote_login, ..UnixHostOptions::default() }).unwrap();
        host.create_user("deploy", "Only-For-Its-Sake-1").unwrap();
        let world = World::new();
        let old = keygen(&world, "old", &["-t", "ed25519", "-N", "canary phrase 77"]);
        host.authorize("deploy", public(&old)).unwrap();
        import(&world, Some(&old), "canary phrase 77", &[place(&host)], &[host.fingerprint().unwrap()], json!({}));
        let text = fs::read_to_string(&old).unwrap();
        let middle = text.lines().nth(2).unwrap().to_owned();
        fs::remove_file(&old).unwrap();
        let watch = host.watch().unwrap();
        let output = world.ok(&["rotate", "Key", "-o", "json"]);
        let record = record(&world);
        let new =
            record["custom_fields"]["$keyPair"]["privateKey"].as_str().unwrap().lines().nth(2).unwrap().to_owned();
        let phrase = record["password"].as_str().unwrap().to_owned();
        for secret in [&middle, &new, &phrase, &"canary phrase".to_owned()] {
            assert!(!(output.stdout.clone() + &output.stderr).contains(secret.as_str()));
            for file in files_below(world.turnlock.home()).into_iter().chain(files_below(&host.homes())) {
                let bytes = fs::read(&file).unwrap();
                let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
                assert!(!found, "{} holds a secret", file.display());
            }
            assert!(!host.log().contains(secret.as_str()));
        }
        let seen = watch.end();
        assert!(seen.iter().all(|line| ![&middle, &new, &phrase].iter().any(|secret| line.contains(secret.as_str()))));
        assert!(host.accepts_key("deploy", &current(&world)).unwrap());
    }
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries
        .filter(|path| !path.is_symlink())
        .flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] })
        .filter(|path| path.is_file())
        .collect()
}

#[test]
fn a_colleague_who_edits_the_file_meanwhile_loses_nothing() {
    let fleet = Fleet::of(1);
    let host = &fleet.hosts[0];
    // The colleague's editor runs whenever sshd starts a session for us.
    let line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMrPv4HtmCyVLnlzzLlnGXuFPdzP5W9kAAsA2Td+RpRp colleague";
    let script = format!("grep -q colleague ~/.ssh/authorized_keys || echo '{line}' >>~/.ssh/authorized_keys\n");
    process::write_file(&host.homes().join("deploy/.bashrc"), script).unwrap();
    fleet.world.ok(&["rotate", "Key"]);
    let keys = String::from_utf8(host.authorized_keys("deploy").unwrap()).unwrap();
    assert!(keys.contains(line) && keys.starts_with(OTHERS), "{keys}");
    assert!(host.accepts_key("deploy", &current(&fleet.world)).unwrap());
    assert!(!host.accepts_key("deploy", &fleet.old).unwrap());
}

#[test]
fn verify_finds_drift_and_history_repairs_it() {
    let fleet = Fleet::of(2);
    assert_eq!(fleet.world.json(&["verify", "Key"])[0]["outcome"], "accepted");
    fleet.world.ok(&["rotate", "Key"]);
    // Hosts that were restored from a backup.
    for host in &fleet.hosts {
        host.authorize("deploy", format!("{OTHERS}{}", public(&fleet.old))).unwrap();
    }
    let drift = fleet.world.fails(3, &["verify", "Key"]);
    assert!(drift["error"].to_string().contains("refuses"), "{drift}");
    assert_eq!(fleet.world.json(&["verify", "Key", "--try-history"])[0]["outcome"], "adopted");
    fleet.is_unchanged();
    fleet.world.ok(&["rotate", "Key"]);
    fleet.has_rotated();
}

#[test]
fn two_runs_on_one_key_rotate_it_once() {
    let fleet = Fleet::of(2);
    fleet.hosts[1].pause();
    let first = fleet.world.start(&["rotate", "Key", "-o", "json"]);
    first.rotator();
    lab::wait_until("the first to hold the lease", std::time::Duration::from_secs(20), || {
        let second = fleet.world.run(&["rotate", "Key", "-o", "json"]);
        (second.status == 3 && second.stdout.contains("is being rotated")).then_some(())
    })
    .unwrap();
    fleet.hosts[1].resume();
    let ended = first.end();
    assert_eq!(ended.status, 0, "{}{}", ended.stdout, ended.stderr);
    assert_eq!(fleet.world.history("Key").len(), 1, "it was rotated once");
    fleet.has_rotated();
}
