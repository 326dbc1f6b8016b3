//! The vault's side of the promise, with the real programs: damage, a full
//! disk, a lock, edits, copies, keys, and runs that get in each other's way.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a broken expectation of a test program is its failure"
)]

mod world;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

use lab::{
    Postgresql, PostgresqlOptions,
    process::{self, write_file},
    wait_until,
};
use serde_json::json;
use world::{Fields, Running, World, error_of};

const OLD: &str = "Old-And-Tired-1";
const SOON: Duration = Duration::from_secs(20);

fn server() -> Postgresql {
    Postgresql::start(PostgresqlOptions::default()).unwrap()
}

fn fields(server: &Postgresql, login: &str) -> Fields {
    Fields {
        login: login.to_owned(),
        url: Some(format!("postgres://127.0.0.1:{}", server.port())),
        custom: vec![format!("turnlock:ca={}", server.ca_path().display())],
    }
}

/// The role `app`, and a record `App` that can log in to it.
fn with_app(world: &World, server: &Postgresql) {
    server.create_role("app", OLD).unwrap();
    world.add("App", &fields(server, "app"), OLD);
}

/// A record without a target behind it.
fn noop(world: &World, title: &str) {
    let fields = Fields { login: title.to_owned(), ..Fields::default() }.with("cmdr:plugin=noop");
    world.add(title, &fields, OLD);
}

/// Starts a rotation whose change the server makes and does not acknowledge.
fn held_behind_the_change(world: &World, server: &Postgresql, arguments: &[&str]) -> Running {
    server.set_parameter("synchronous_standby_names", "nobody").unwrap();
    let running = world.start(arguments);
    wait_until("a commit to wait for a standby", SOON, || {
        let waiting = server.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep';");
        waiting.is_ok_and(|count| count != "0").then_some(())
    })
    .unwrap();
    running
}

fn go_on(server: &Postgresql) {
    server.reset_parameter("synchronous_standby_names").unwrap();
}

/// The promise, at this instant.
#[track_caller]
fn nothing_is_lost(world: &World, server: &Postgresql) {
    let held = world.every_password("App");
    assert!(held.iter().any(|one| server.accepts("app", one).unwrap()), "the server takes none of the vault's secrets");
}

#[track_caller]
fn agreed(world: &World, server: &Postgresql) -> String {
    let now = world.password("App");
    assert!(server.accepts("app", &now).unwrap(), "the server refuses what the vault holds");
    world.nothing_is_open();
    now
}

type Files = BTreeMap<String, Vec<u8>>;

/// Everything that lies in the vault's directory, but what SQLite makes there to
/// read at all: the shared memory, and a log without content.
fn bytes_of(world: &World) -> Files {
    files_in(&world.turnlock.vault_directory())
}

fn files_in(directory: &Path) -> Files {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let files = entries.map(|path| (name(&path), fs::read(&path).unwrap()));
    files.filter(|(name, bytes)| !(name.ends_with("-shm") || name.ends_with("-wal") && bytes.is_empty())).collect()
}

/// Puts these files back, each as the same file of the file system.
fn put_back(world: &World, files: &Files) {
    put_back_in(&world.turnlock.vault_directory(), files);
}

fn put_back_in(directory: &Path, files: &Files) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if !files.contains_key(path.file_name().unwrap().to_str().unwrap()) {
            fs::remove_file(path).unwrap();
        }
    }
    for (name, bytes) in files {
        write_file(&directory.join(name), bytes).unwrap();
    }
}

/// Runs a command on a damaged vault: it is refused in words, and not a byte changes.
#[track_caller]
fn refused_and_left_alone(world: &World, what: &str, arguments: &[&str], words: &[&str]) {
    let before = bytes_of(world);
    let output = world.run(&[arguments, &["-o", "json"]].concat());
    // Beside an open attempt nobody says that nothing has changed.
    let status = if output.status == 5 && output.stdout.contains("unknown") { 5 } else { 3 };
    let error = error_of(status, arguments, &output);
    let said = error["error"].as_str().unwrap();
    assert!(words.iter().any(|word| said.contains(word)), "{what}: {arguments:?}: {error}");
    assert!(error["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{what}: {arguments:?}: {error}");
    assert!(bytes_of(world) == before, "{what}: {arguments:?} wrote to the vault");
}

const EVERY_WAY_IN: [&[&str]; 12] = [
    &["list"],
    &["export"],
    &["show", "Door 1"],
    &["rotate", "Door 1"],
    &["recover"],
    &["add", "Another", "--login", "x"],
    &["edit", "Door 1", "--login", "x"],
    &["vault", "check"],
    &["vault", "rekey", "--new-key-file", "new.key"],
    &["vault", "backup", "backup.db"],
    &["vault", "adopt", "--unverified"],
    &["audit", "verify"],
];

#[test]
fn a_wrong_key_is_told_and_nothing_is_written() {
    let world = World::new();
    noop(&world, "Door 1");
    let home = world.turnlock.home().to_owned();
    let stranger = World::new();
    let wrong = home.join("wrong.key");
    fs::copy(stranger.turnlock.key_file(), &wrong).unwrap();
    let passphrase = home.join("passphrase");
    write_file(&passphrase, "guessed\n").unwrap();
    let recovery = home.join("recovery");
    write_file(&recovery, "guessed\n").unwrap();
    let (empty, text) = (home.join("empty.key"), home.join("text.key"));
    write_file(&empty, "").unwrap();
    write_file(&text, "what a person may type\n").unwrap();
    let open = home.join("open.key");
    fs::copy(world.turnlock.key_file(), &open).unwrap();
    fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let named = |file: &Path| file.to_str().unwrap().to_owned();
    for (option, file, word) in [
        ("--key-file", named(&wrong), "does not open"),
        ("--passphrase-file", named(&passphrase), "does not open"),
        ("--recovery-key-file", named(&recovery), "recovery key"),
        ("--key-file", named(&empty), "empty.key"),
        ("--key-file", named(&text), "text.key"),
        ("--key-file", named(&open), "open.key"),
        ("--key-file", named(&home.join("nowhere.key")), "nowhere.key"),
        ("--passphrase-file", named(&home.join("nowhere")), "nowhere"),
    ] {
        for arguments in EVERY_WAY_IN {
            let arguments = [arguments, &[option, &file]].concat();
            refused_and_left_alone(&world, word, &arguments, &[word]);
        }
    }
    assert!(!home.join("backup.db").exists());
    world.ok(&["vault", "check"]);
}

#[test]
fn a_damaged_file_is_told_and_never_written_over() {
    let world = World::new();
    for number in 1..=3 {
        noop(&world, &format!("Door {number}"));
        world.ok(&["rotate", &format!("Door {number}")]);
    }
    let whole = bytes_of(&world);
    assert_eq!(whole.keys().collect::<Vec<_>>(), ["vault.db"]);
    let content = world.content();
    let old = world.ok(&["show", "Door 2", "--field", "password"]).stdout;
    let file = &whole["vault.db"];
    let memory = world.turnlock.state_directory().join("turnlock");
    let remembered = files_in(&memory);
    let damage = |bytes: Vec<u8>| {
        put_back(&world, &Files::from([("vault.db".to_owned(), bytes)]));
        put_back_in(&memory, &remembered);
    };

    for length in [0, 1, 100, 511, 512, 4095, 4096, file.len() / 2, file.len() - 4096, file.len() - 1] {
        damage(file[..length].to_vec());
        for arguments in EVERY_WAY_IN {
            refused_and_left_alone(&world, &format!("cut to {length} bytes"), arguments, &["damaged"]);
        }
        let over = world.fails(3, &["vault", "init"]);
        assert!(over["error"].as_str().unwrap().contains("exists already"), "{over}");
        assert_eq!(bytes_of(&world)["vault.db"], file[..length]);
    }

    // The header byte by byte, then the beginning, the middle and the end of every page.
    let in_pages = (1..file.len() / 4096).flat_map(|page| [3, 2500].map(|at| page * 4096 + at));
    let (mut found, mut harmless) = (0, 0);
    for at in (0..100).step_by(4).chain(in_pages) {
        let mut flipped = file.clone();
        flipped[at] ^= 1 << (at % 8);
        damage(flipped.clone());
        let what = format!("byte {at} flipped");
        let checked = world.run(&["vault", "check", "-o", "json"]);
        assert!(bytes_of(&world)["vault.db"] == flipped, "{what}: a check wrote to the vault");
        if checked.status == 0 {
            assert_eq!(world.content(), content, "{what}");
            harmless += 1;
            continue;
        }
        found += 1;
        assert_eq!(checked.status, 3, "{what}: {}{}", checked.stdout, checked.stderr);
        let told = world::lines(&checked.stdout);
        let problems = told[0]["problems"].as_array().is_some_and(|problems| !problems.is_empty());
        assert!(problems || told[0]["error"].is_string(), "{what}: {told:?}");
        // What does not come across the damage may go on; what does ends and leaves it as it is.
        for arguments in
            [&["export"][..], &["edit", "Door 3", "--login", "x"], &["vault", "rekey", "--new-key-file", "vault.key"]]
        {
            let output = world.run(arguments);
            if output.status == 0 {
                damage(flipped.clone());
            } else {
                assert_eq!(output.status, 3, "{what}: {arguments:?}: {}", output.stderr);
                // A damaged index loses a record that a list still shows.
                let told = ["damaged", "no record"].iter().any(|word| output.stderr.contains(word));
                assert!(told, "{what}: {arguments:?}: {}", output.stderr);
                assert!(bytes_of(&world)["vault.db"] == flipped, "{what}: {arguments:?} wrote to the vault");
            }
        }
        // A rotation is several transactions, and may meet it in a later one.
        let rotated = world.run(&["rotate", "Door 2"]);
        if rotated.status != 0 {
            assert!([3, 4, 5].contains(&rotated.status), "{what}: {}", rotated.stderr);
            let told = ["damaged", "no record"].iter().any(|word| rotated.stderr.contains(word));
            assert!(told, "{what}: {}", rotated.stderr);
            let shown = world.run(&["show", "Door 2", "--field", "password"]);
            assert!(shown.status != 0 || shown.stdout == old, "{what}: {}{}", shown.stdout, shown.stderr);
        }
    }
    assert!(found > harmless, "{found} found, {harmless} harmless");
    damage(file.clone());
    assert_eq!(world.content(), content);
    world.ok(&["rotate", "Door 1"]);
}

/// After a kill the candidate is in the log alone, and it is the live one.
#[test]
fn a_damaged_log_is_told_and_never_thrown_away() {
    let server = server();
    let world = World::new();
    with_app(&world, &server);
    let running = held_behind_the_change(&world, &server, &["rotate", "App"]);
    let rotator = running.rotator();
    running.signal("KILL");
    assert_eq!(running.end().status, 137);
    go_on(&server);
    wait_until("the rotator to end", SOON, || (!Path::new(&format!("/proc/{rotator}/exe")).exists()).then_some(()))
        .unwrap();
    let killed = bytes_of(&world);
    let log = &killed["vault.db-wal"];
    let candidate = world.staged("App").remove(0);
    assert!(server.accepts("app", &candidate).unwrap() && !server.accepts("app", OLD).unwrap());

    for at in [0, 9, 17, 25, 40, 3000, log.len() / 3, log.len() / 2, log.len() - 4000, log.len() - 1] {
        let mut damaged = killed.clone();
        damaged.get_mut("vault.db-wal").unwrap()[at] ^= 0x10;
        for arguments in [&["rotate", "App"][..], &["verify", "App"], &["resolve", "App", "--use", "current"]] {
            put_back(&world, &damaged);
            refused_and_left_alone(&world, &format!("byte {at} of the log"), arguments, &["damaged", "restored"]);
        }
        let checked = world.run(&["vault", "check"]);
        assert!(checked.stderr.contains("turnlock vault adopt"), "byte {at}: {}{}", checked.stdout, checked.stderr);
        assert!(bytes_of(&world) == damaged, "byte {at}: a check wrote to the vault");
        // The way out asks the server, counts that, and so writes: the log is kept.
        let doubtful = world.fails(3, &["vault", "adopt"]);
        assert!(doubtful["hint"].as_str().unwrap().contains("--unverified"), "byte {at}: {doubtful}");
        assert!(
            bytes_of(&world).iter().any(|(name, bytes)| name.contains("-wal") && *bytes == damaged["vault.db-wal"])
        );
    }
    put_back(&world, &killed);
    world.ok(&["recover"]);
    assert_eq!(agreed(&world, &server), candidate);
}

/// A small file system of its own for the vault; gone with the value.
struct Disk(PathBuf);

impl Disk {
    /// A new home whose vault lies on it.
    fn with_vault() -> (Self, World) {
        let world = World::without_vault();
        let disk = Self(world.turnlock.vault_directory());
        let mounted = disk.ask("mount", &["-t", "tmpfs", "-o", "size=512k,mode=0700", "turnlock-lab"]);
        assert!(
            mounted.is_ok(),
            "this test needs the right to mount a tmpfs: run it as root, in a container with CAP_SYS_ADMIN ({mounted:?})"
        );
        world.ok(&["vault", "init"]);
        (disk, world)
    }

    fn ask(&self, program: &str, arguments: &[&str]) -> Result<(), String> {
        let mut command = process::clean_command(process::need_program(program).unwrap());
        let output = process::run(command.args(arguments).arg(&self.0), b"").unwrap();
        if output.succeeded() { Ok(()) } else { Err(output.stderr) }
    }

    /// Leaves not a byte free.
    fn fill(&self) {
        let mut filler = File::create(self.0.join("filler")).unwrap();
        while filler.write_all(&[0; 4096]).is_ok() {}
    }

    fn free(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(self.ask("umount", &["-l"]));
    }
}

#[test]
fn a_full_disk_before_the_stage_and_before_the_permit_changes_nothing() {
    let server = server();
    let (disk, world) = Disk::with_vault();
    with_app(&world, &server);
    let before = world.content();
    disk.fill();
    for command in ["rotate", "verify"] {
        let full = world.fails(3, &[command, "App"]);
        assert!(full["error"].as_str().unwrap().contains("full"), "{full}");
        assert_eq!(full["state"], "unchanged", "{full}");
        assert!(full["hint"].as_str().unwrap().contains("free space"), "{full}");
    }
    disk.free();
    assert_eq!(world.content(), before);
    world.nothing_is_open();

    server.pause();
    let running = world.start(&["rotate", "App", "-o", "json"]);
    wait_until("a stage", SOON, || world.staged("App").first().map(|_| ())).unwrap();
    disk.fill();
    nothing_is_lost_but_asleep(&world);
    server.resume();
    let full = error_of(3, &["rotate", "App"], &running.end());
    assert_eq!(full["state"], "unchanged", "{full}");
    assert!(server.accepts("app", OLD).unwrap(), "a permit was given that is nowhere written down");
    disk.free();
    world.ok(&["recover"]);
    assert_eq!(agreed(&world, &server), OLD);
    assert_eq!(world.content(), before);
    assert_eq!(world.past("App", "abandoned").len(), 1, "after a restart nobody knows that no permit was given");
    world.ok(&["rotate", "App"]);
    assert_ne!(agreed(&world, &server), OLD);
}

/// While nobody can be asked: the old credential is current, the new one staged.
#[track_caller]
fn nothing_is_lost_but_asleep(world: &World) {
    assert_eq!(world.password("App"), OLD);
    assert_eq!(world.staged("App").len(), 1);
}

#[test]
fn a_full_disk_between_stage_and_commit_leaves_the_live_secret_in_the_stage() {
    let server = server();
    let (disk, world) = Disk::with_vault();
    with_app(&world, &server);
    let running = held_behind_the_change(&world, &server, &["rotate", "App", "-o", "json"]);
    let candidate = world.staged("App").remove(0);
    disk.fill();
    go_on(&server);
    let live = error_of(4, &["rotate", "App"], &running.end());
    assert_eq!(live["state"], "live", "{live}");
    assert_eq!(live["hint"].as_str().map(|hint| hint.contains("turnlock recover")), Some(true), "{live}");
    assert!(server.accepts("app", &candidate).unwrap() && !server.accepts("app", OLD).unwrap());
    nothing_is_lost(&world, &server);
    // As long as it is full nothing is said to be unchanged, and nothing is tried.
    for command in [&["recover"][..], &["rotate", "App"], &["resolve", "App", "--use", "candidate"]] {
        let still = world.run(&[command, &["-o", "json"]].concat());
        let known = if still.status == 4 { 4 } else { 5 };
        let still = error_of(known, command, &still);
        assert_ne!(still["state"], "unchanged", "{command:?}: {still}");
        assert!(still["error"].as_str().unwrap().contains("full"), "{command:?}: {still}");
        nothing_is_lost(&world, &server);
    }
    assert_eq!(world.run(&["status"]).status, 3);
    disk.free();
    assert_eq!(world.json(&["recover"])[0]["outcome"], "committed");
    assert_eq!(agreed(&world, &server), candidate);
    world.ok(&["audit", "verify"]);
}

#[test]
fn a_read_only_vault_rotates_nothing_and_shows_what_it_holds() {
    let server = server();
    let (disk, world) = Disk::with_vault();
    with_app(&world, &server);
    let before = bytes_of(&world);
    disk.ask("mount", &["-o", "remount,ro"]).unwrap();
    for command in [&["rotate", "App"][..], &["edit", "App", "--login", "x"], &["add", "B"], &["verify", "App"]] {
        let refused = world.fails(3, command);
        let said = refused["error"].as_str().unwrap();
        assert!(said.contains("read-only") || said.contains("cannot be opened"), "{command:?}: {refused}");
        assert!(refused["hint"].as_str().unwrap().contains("permissions"), "{command:?}: {refused}");
    }
    assert!(server.accepts("app", OLD).unwrap());
    disk.ask("mount", &["-o", "remount,rw"]).unwrap();
    assert!(bytes_of(&world) == before);
    world.ok(&["rotate", "App"]);
    assert_ne!(agreed(&world, &server), OLD);
}

/// Another program that holds the vault's lock until it is told to let go.
struct Lock(Child);

impl Lock {
    fn take(world: &World) -> Self {
        const HOLD: &str = "import sqlite3, sys
vault = sqlite3.connect(sys.argv[1], isolation_level=None)
vault.execute('BEGIN IMMEDIATE')
print('held', flush=True)
sys.stdin.read()";
        let mut command = process::clean_command(process::need_program("python3").unwrap());
        command.args(["-I", "-c", HOLD]).arg(world.turnlock.vault());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "held\n");
        Self(child)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn a_lock_of_another_program_is_told_and_loses_nothing() {
    let server = server();
    let world = World::new();
    with_app(&world, &server);
    let other = World::new();
    server.create_role("app2", OLD).unwrap();
    other.add("App", &fields(&server, "app2"), OLD);
    let lock = Lock::take(&other);
    let early = other.start(&["rotate", "App", "-o", "json"]);

    let running = held_behind_the_change(&world, &server, &["rotate", "App", "-o", "json"]);
    let late = Lock::take(&world);
    go_on(&server);
    let locked = error_of(4, &["rotate", "App"], &running.end());
    assert!(locked["error"].as_str().unwrap().contains("another program"), "{locked}");
    nothing_is_lost(&world, &server);
    let candidate = world.staged("App").remove(0);
    drop(late);
    world.ok(&["recover"]);
    assert_eq!(agreed(&world, &server), candidate);

    let locked = error_of(3, &["rotate", "App"], &early.end());
    assert!(locked["error"].as_str().unwrap().contains("another program"), "{locked}");
    assert!(locked["hint"].as_str().unwrap().contains("who else uses the vault"), "{locked}");
    drop(lock);
    assert_eq!(other.password("App"), OLD);
    assert!(server.accepts("app2", OLD).unwrap());
    other.nothing_is_open();
}

#[test]
fn an_edit_meanwhile_survives_and_one_of_the_credential_is_refused() {
    let server = server();
    let world = World::new();
    with_app(&world, &server);
    let running = held_behind_the_change(&world, &server, &["rotate", "App"]);
    let candidate = world.staged("App").remove(0);
    world.ok(&["edit", "App", "--title", "Renamed", "--set", "colour=blue"]);
    let before = world.content();
    let import = world.turnlock.home().join("export.json");
    write_file(&import, &before).unwrap();
    let import = import.to_str().unwrap();
    for command in [
        &["edit", "Renamed", "--password", "-"][..],
        &["edit", "Renamed", "--login", "other"],
        &["edit", "Renamed", "--set", "cmdr:port=1"],
        &["edit", "Renamed", "--unset", "turnlock:ca"],
        &["import", "keeper", import],
    ] {
        let refused = world.fails_with(3, command, "Typed-Over-It-1");
        assert!(refused["error"].as_str().unwrap().contains("open rotation"), "{command:?}: {refused}");
        assert!(refused["hint"].as_str().unwrap().contains("turnlock recover"), "{command:?}: {refused}");
        assert_eq!(world.content(), before, "{command:?}");
    }
    go_on(&server);
    let ended = running.end();
    assert_eq!(ended.status, 0, "{}", ended.stderr);
    assert_eq!(world.password("Renamed"), candidate);
    assert!(server.accepts("app", &candidate).unwrap());
    assert_eq!(world.json(&["show", "Renamed", "--field", "colour"])[0]["value"], "blue");
    assert_eq!(world.past("Renamed", "previous"), [OLD]);
    world.nothing_is_open();
}

#[test]
fn of_many_runs_at_once_each_one_that_says_so_has_rotated() {
    let server = server();
    let world = World::new();
    with_app(&world, &server);
    let racing: Vec<_> = (0..6).map(|_| world.start(&["rotate", "App", "-o", "json"])).collect();
    let waiting = world.start(&["rotate", "App", "--wait", "-o", "json"]);
    let mut rotated = 0;
    for running in racing {
        let ended = running.end();
        if ended.status == 0 {
            rotated += 1;
        } else {
            let busy = error_of(3, &["rotate", "App"], &ended);
            let said = busy["error"].as_str().unwrap();
            assert!(said.contains("is being rotated by process") || said.contains("changed meanwhile"), "{busy}");
            assert!(busy["hint"].is_string(), "{busy}");
        }
    }
    let waited = waiting.end();
    assert_eq!(waited.status, 0, "{}", waited.stdout);
    agreed(&world, &server);
    let past = world.past("App", "previous");
    assert_eq!(past.len(), rotated + 1, "each success has left one credential behind");
    assert!(past.iter().all(|old| !server.accepts("app", old).unwrap()));
    world.ok(&["audit", "verify"]);
}

#[test]
fn two_records_of_one_account_are_rotated_together_or_not_at_all() {
    let server = server();
    let world = World::new();
    with_app(&world, &server);
    // The same account in other words.
    let mut other = fields(&server, "app").with(format!("cmdr:port={}", server.port())).with("cmdr:plugin=postgresql");
    other.url = None;
    world.add("Twin", &other.with("cmdr:host=127.0.0.1"), OLD);
    let uid = |title: &str| world.json(&["show", title])[0]["uid"].as_str().unwrap().to_owned();
    let before = world.content();
    for (title, twin) in [("App", "Twin"), ("Twin", "App")] {
        let refused = world.fails(2, &["rotate", title]);
        assert_eq!(refused["causes"], json!([uid(twin)]), "{refused}");
        assert!(refused["hint"].as_str().unwrap().contains("--with-duplicates"), "{refused}");
        let found = world.json(&["check", title]);
        assert!(found[0]["remarks"].to_string().contains("--with-duplicates"), "{found:?}");
    }
    assert_eq!(world.content(), before);
    assert!(server.accepts("app", OLD).unwrap());

    // A third one, which keeps its password elsewhere.
    let typed = ["add", "Typed", "--type", "databaseCredentials", "--login=app", "--password", "-"];
    let (url, ca) = (fields(&server, "app").url.unwrap(), format!("turnlock:ca={}", server.ca_path().display()));
    world.ok_with(&[&typed[..], &["--url", &url, "--set", &ca]].concat(), OLD);

    // Held, so that the second run meets the first one.
    server.pause();
    let first = world.start(&["rotate", "App", "--with-duplicates", "-o", "json"]);
    wait_until("a stage", SOON, || world.staged("App").first().map(|_| ())).unwrap();
    let busy = world.fails(3, &["rotate", "Twin", "--with-duplicates"]);
    assert!(busy["error"].as_str().unwrap().contains(&format!("by process {}", first.id())), "{busy}");
    server.resume();
    let ended = first.end();
    assert_eq!(ended.status, 0, "{}", ended.stdout);
    let new = agreed(&world, &server);
    for title in ["App", "Twin", "Typed"] {
        assert_eq!(world.password(title), new, "{title}");
        assert_eq!(world.past(title, "previous"), [OLD], "{title}");
    }

    // Killed between the change and the commit, both are settled together.
    let running = held_behind_the_change(&world, &server, &["rotate", "Twin", "--with-duplicates"]);
    let candidate = world.staged("Twin").remove(0);
    running.signal("KILL");
    running.end();
    go_on(&server);
    world.ok(&["recover"]);
    assert_eq!(agreed(&world, &server), candidate);
    for title in ["Twin", "Typed"] {
        assert_eq!(world.password(title), candidate, "{title}");
    }

    // Parked together, they are resolved together.
    let running = held_behind_the_change(&world, &server, &["rotate", "Twin", "--with-duplicates"]);
    let candidate = world.staged("Twin").remove(0);
    running.signal("KILL");
    running.end();
    go_on(&server);
    wait_until("the change", SOON, || server.accepts("app", &candidate).unwrap().then_some(())).unwrap();
    server.set_password("app", "Behind-Your-Back-1").unwrap();
    assert_eq!(world.fails(5, &["recover"])["state"], "parked");
    world.ok_with(&["resolve", "Twin", "--use", "password", "--password", "-"], "Behind-Your-Back-1");
    for title in ["App", "Twin", "Typed"] {
        assert_eq!(world.password(title), "Behind-Your-Back-1", "{title}");
    }
    assert_eq!(world.past("Twin", "abandoned"), [candidate]);
    let candidate = agreed(&world, &server);

    // One that is given to another account meanwhile keeps that account's password.
    let running = held_behind_the_change(&world, &server, &["rotate", "Typed", "--with-duplicates"]);
    world.ok_with(&["edit", "Twin", "--login", "else", "--password", "-"], "Somebody-Elses-1");
    go_on(&server);
    assert_eq!(running.end().status, 0);
    let new = agreed(&world, &server);
    assert_ne!(new, candidate);
    assert_eq!(world.password("Typed"), new);
    assert_eq!(world.password("Twin"), "Somebody-Elses-1");
    world.ok(&["rotate", "App", "--with-duplicates"]);
    assert_eq!(world.password("Typed"), agreed(&world, &server));
}

#[test]
fn a_restored_vault_rotates_nothing_until_it_is_adopted() {
    let server = server();
    let world = World::new();
    with_app(&world, &server);
    world.ok(&["vault", "backup", "backup.db"]);
    let copied = bytes_of(&world);
    world.ok(&["rotate", "App"]);
    let live = world.password("App");
    let backup = world.turnlock.home().join("backup.db");
    let backed_up = Files::from([("vault.db".to_owned(), fs::read(&backup).unwrap())]);

    for (how, files) in [("copied by hand", &copied), ("made by vault backup", &backed_up)] {
        put_back(&world, files);
        let content = world.content();
        for command in [
            &["rotate", "App"][..],
            &["rotate", "App", "--wait"],
            &["verify", "App"],
            &["restore", "App"],
            &["recover"],
        ] {
            if command == ["recover"] {
                assert!(world.run(command).stderr.contains("nothing is open"));
                continue;
            }
            let refused = world.fails(3, command);
            assert!(refused["error"].as_str().unwrap().contains("backup"), "{how}: {command:?}: {refused}");
            assert!(refused["hint"].as_str().unwrap().contains("turnlock vault adopt"), "{how}: {refused}");
        }
        assert!(world.run(&["status"]).stderr.contains("turnlock vault adopt"), "{how}");
        assert!(world.json(&["vault", "check"])[0]["adopt"].as_str().unwrap().contains("backup"), "{how}");
        // What it holds is dead, so proving it fails, and it stays as it is.
        let doubtful = world.fails(3, &["vault", "adopt"]);
        assert!(doubtful["error"].as_str().unwrap().contains("1 of 1"), "{how}: {doubtful}");
        world.fails(3, &["rotate", "App"]);
        assert_eq!(world.content(), content, "{how}");
        assert!(server.accepts("app", &live).unwrap(), "{how}");
    }
    // A person knows the live secret, so nothing is lost.
    assert_eq!(world.json(&["vault", "adopt", "--unverified"])[0]["unproven"], 1);
    let dead = world.fails(3, &["rotate", "App"]);
    assert_eq!(dead["kind"], "authentication", "{dead}");
    world.ok_with(&["resolve", "App", "--use", "password", "--password", "-"], &live);
    assert_eq!(agreed(&world, &server), live);
    world.ok(&["rotate", "App"]);
    let newest = agreed(&world, &server);

    // One from before the last change that is still true needs no insisting.
    let current = bytes_of(&world);
    world.ok(&["edit", "App", "--title", "App"]);
    world.ok(&["verify", "App"]);
    put_back(&world, &current);
    world.fails(3, &["rotate", "App"]);
    assert_eq!(world.json(&["vault", "adopt"])[0]["unproven"], 0);
    world.ok(&["rotate", "App"]);
    assert_ne!(agreed(&world, &server), newest);
}

#[test]
fn of_a_vault_and_its_copy_only_one_rotates() {
    let server = server();
    let world = World::new();
    with_app(&world, &server);
    world.ok(&["verify", "App"]);
    let copy = world.turnlock.home().join("copy.db");
    fs::copy(world.turnlock.vault(), &copy).unwrap();
    let copy = ["--vault", copy.to_str().unwrap()];
    let on_copy = |arguments: &[&'static str]| [arguments, &copy].concat();
    let refused = world.fails(3, &on_copy(&["rotate", "App"]));
    assert!(refused["error"].as_str().unwrap().contains("a copy of a vault"), "{refused}");
    assert!(refused["hint"].as_str().unwrap().contains("turnlock vault adopt"), "{refused}");
    assert!(server.accepts("app", OLD).unwrap());
    world.ok(&["rotate", "App"]);
    agreed(&world, &server);
    world.fails(3, &on_copy(&["vault", "adopt"]));
    let live = world.password("App");
    world.ok_with(&on_copy(&["vault", "adopt", "--unverified"]), "");
    world.ok_with(&on_copy(&["resolve", "App", "--use", "password", "--password", "-"]), &live);
    world.ok(&on_copy(&["rotate", "App"]));
    // Now the other one is the copy, and its secret is dead.
    let refused = world.fails(3, &["rotate", "App"]);
    assert!(refused["error"].as_str().unwrap().contains("a copy of a vault"), "{refused}");
    let shown = world.json(&on_copy(&["show", "App", "--field", "password"]));
    assert!(server.accepts("app", shown[0]["value"].as_str().unwrap()).unwrap());
    assert!(!server.accepts("app", &world.password("App")).unwrap());
}

#[test]
fn a_run_that_was_paused_past_its_lease_commits_nothing() {
    let server = server();
    let world = World::new();
    with_app(&world, &server);
    let paused = held_behind_the_change(&world, &server, &["rotate", "App", "--timeout", "2", "-o", "json"]);
    paused.signal("STOP");
    let theirs = world.staged("App").remove(0);
    go_on(&server);
    let busy = world.fails(3, &["rotate", "App"]);
    assert!(busy["hint"].as_str().unwrap().contains("--wait"), "{busy}");
    let taker = world.start(&["rotate", "App", "--wait", "--timeout", "2"]);
    let taken = taker.end();
    assert_eq!(taken.status, 0, "{}", taken.stderr);
    let new = agreed(&world, &server);
    assert_ne!(new, theirs);
    // What the paused run had changed was found and committed before it was replaced.
    assert_eq!(world.past("App", "previous"), [theirs.as_str(), OLD]);
    let before = (world.content(), world.history("App"));

    paused.signal("CONT");
    let overtaken = error_of(5, &["rotate", "App"], &paused.end());
    assert_eq!(overtaken["state"], "unknown", "{overtaken}");
    assert!(overtaken["hint"].as_str().unwrap().contains("turnlock recover"), "{overtaken}");
    assert_eq!((world.content(), world.history("App")), before);
    assert_eq!(agreed(&world, &server), new);
    let audit = world.ok(&["audit", "export"]).stdout;
    let committed = world::lines(&audit).iter().filter(|row| row["what"] == "committed").count();
    assert_eq!(committed, 2, "{audit}");
    world.ok(&["audit", "verify"]);
}

/// Runs with this one way in instead of the world's own.
fn with_key(world: &World, key: [&str; 2], arguments: &[&str], stdin: &str) -> lab::Output {
    world.run_with(&[arguments, &key].concat(), stdin)
}

#[test]
fn each_key_opens_until_it_is_replaced_and_not_a_moment_longer() {
    let world = World::without_vault();
    let home = world.turnlock.home();
    let named = |name: &str| home.join(name).to_str().unwrap().to_owned();
    write_file(&home.join("words"), "correct horse battery staple\nand a line that is none of it\n").unwrap();
    write_file(&home.join("prefix"), "correct horse battery\n").unwrap();
    let (words, prefix, new, other) = (named("words"), named("prefix"), named("new.key"), named("other.key"));
    let (by_words, by_prefix) = (["--passphrase-file", &words], ["--passphrase-file", &prefix]);
    let made = with_key(&world, by_words, &["vault", "init", "--recovery-key", "-q"], "");
    assert_eq!(made.status, 0, "{}", made.stderr);
    let recovery = made.stdout.lines().last().unwrap().to_owned();
    let by_recovery = ["--recovery-key-file", "-"];
    let opens = |key: [&str; 2], stdin: &str| with_key(&world, key, &["vault", "check"], stdin).status;
    assert_eq!(with_key(&world, by_words, &["add", "Door", "--set", "cmdr:plugin=noop"], "").status, 0);
    assert_eq!((opens(by_words, ""), opens(by_recovery, &recovery), opens(by_prefix, "")), (0, 0, 3));
    assert_eq!(opens(by_recovery, &recovery.to_lowercase()), 0, "a person types it from paper");
    assert_eq!(with_key(&world, by_words, &["vault", "backup", "old.db"], "").status, 0);
    let content = with_key(&world, by_words, &["export"], "").stdout;

    // The recovery key is enough to make new keys; then all the old ones end.
    let rekeyed =
        with_key(&world, by_recovery, &["vault", "rekey", "--new-key-file", &new, "--recovery-key"], &recovery);
    assert_eq!(rekeyed.status, 0, "{}", rekeyed.stderr);
    let recovery_2 = rekeyed.stdout.lines().last().unwrap().to_owned();
    assert_ne!(recovery_2, recovery);
    let by_new = ["--key-file", new.as_str()];
    assert_eq!((opens(by_new, ""), opens(by_recovery, &recovery_2)), (0, 0));
    assert_eq!((opens(by_words, ""), opens(by_recovery, &recovery)), (3, 3));
    assert_eq!(with_key(&world, by_new, &["export"], "").stdout, content);
    assert_eq!(with_key(&world, by_new, &["rotate", "Door"], "").status, 0, "it is still this machine's vault");

    // A backup keeps the keys it was made under.
    let on_backup = ["--vault", "old.db", "export"];
    assert_eq!(with_key(&world, by_words, &on_backup, "").stdout, content);
    assert_eq!(with_key(&world, by_new, &on_backup, "").status, 3);
    let backup = fs::read(home.join("old.db")).unwrap();
    let over = with_key(&world, by_new, &["vault", "backup", "old.db"], "");
    assert!(over.status == 3 && over.stderr.contains("exists already"), "{}", over.stderr);
    assert!(fs::read(home.join("old.db")).unwrap() == backup);

    // Without a new recovery key there is none; back to words.
    let last = with_key(&world, by_new, &["vault", "rekey", "--new-passphrase-file", &words], "");
    assert_eq!(last.status, 0, "{}", last.stderr);
    assert_eq!((opens(by_words, ""), opens(by_new, ""), opens(by_recovery, &recovery_2)), (0, 3, 3));
    let none = with_key(&world, ["--key-file", &other], &["vault", "rekey", "--new-key-file", &new], "");
    assert!(none.status == 3 && !home.join("other.key").exists(), "{}", none.stderr);
    // A new key whose file cannot be read replaces nothing.
    let nowhere = with_key(&world, by_words, &["vault", "rekey", "--new-passphrase-file", "nowhere"], "");
    assert_eq!(nowhere.status, 3, "{}", nowhere.stderr);
    assert_eq!(opens(by_words, ""), 0);
}

/// Values that stand nowhere in clear, not even between a change and its commit.
#[test]
fn nothing_that_is_written_holds_a_secret_in_clear() {
    const NEEDLES: [&str; 6] =
        ["Canary-Old-41", "Canary-New-42", "canary-login", "canary-notes-43", "canary-custom-44", "Canary-Title-45"];
    let server = server();
    let world = World::new();
    server.create_role("canary-login", "Canary-Old-41").unwrap();
    let records = json!([{"title": "App", "uid": "AAAAAAAAAAAAAAAAAAAAAA", "login": "canary-login",
        "password": "Canary-Old-41", "login_url": format!("postgres://127.0.0.1:{}", server.port()),
        "notes": "canary-notes-43", "custom_fields": {"turnlock:ca": server.ca_path(), "Pin": "canary-custom-44"}},
        {"title": "Canary-Title-45"}]);
    let found = |files: &Files| -> Vec<String> {
        let holds = |bytes: &[u8], needle: &str| bytes.windows(needle.len()).any(|window| window == needle.as_bytes());
        let all = files.iter().flat_map(|(name, bytes)| {
            NEEDLES.iter().filter(|needle| holds(bytes, needle)).map(move |needle| format!("{needle} in {name}"))
        });
        all.collect()
    };
    let planted = Files::from([("planted".to_owned(), records.to_string().into_bytes())]);
    assert_eq!(found(&planted).len(), 5, "the search finds what it should");

    world.ok_with(&["import", "keeper", "-"], &records.to_string());
    assert_eq!(found(&bytes_of(&world)), [""; 0]);
    server.set_parameter("synchronous_standby_names", "nobody").unwrap();
    let running = world.start_with(&["rotate", "App", "--password", "-"], "Canary-New-42");
    wait_until("the permit", SOON, || {
        let stage = world.json(&["show", "App", "--stage"]);
        stage.first().filter(|attempt| attempt["permit"].is_string()).map(|_| ())
    })
    .unwrap();
    let open = bytes_of(&world);
    assert!(open["vault.db-wal"].len() > 4096, "the log holds the stage");
    assert_eq!(found(&open), [""; 0]);
    running.signal("KILL");
    running.end();
    go_on(&server);
    world.ok(&["recover"]);
    assert_eq!(world.password("App"), "Canary-New-42");
    world.ok(&["vault", "rekey", "--new-key-file", "new.key"]);
    fs::rename(world.turnlock.home().join("new.key"), world.turnlock.key_file()).unwrap();
    world.ok(&["vault", "backup", "backup.db"]);
    assert_eq!(found(&bytes_of(&world)), [""; 0]);
    let backup = fs::read(world.turnlock.home().join("backup.db")).unwrap();
    let mut rest = files_in(&world.turnlock.state_directory().join("turnlock"));
    rest.insert("backup".to_owned(), backup);
    assert_eq!(found(&rest), [""; 0]);

    // The audit names accounts for people, and no secret.
    let audit = world.ok(&["audit", "export"]).stdout;
    assert!(audit.contains("canary-login") && audit.contains("committed"), "{audit}");
    let secrets = found(&Files::from([("audit".to_owned(), audit.into_bytes())]));
    assert_eq!(secrets, ["canary-login in audit"]);
}
