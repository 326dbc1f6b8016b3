//! Rotators in containers: an image is believed by its content, spoken with as
//! a process is, and nothing of it is left running.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a broken expectation of a test program is its failure"
)]

mod world;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
    time::{Duration, UNIX_EPOCH},
};

use lab::{
    AccountOptions, MysqlOptions, Postgresql, PostgresqlOptions, bin,
    containers::Podman,
    mariadb,
    process::{self, write_file},
    wait_until,
};
use serde_json::{Value, json};
use world::{Fields, World};

const SECRET: &str = "Canary-Secret-77";
/// Containers start slowly where everything else runs, too.
const SOON: Duration = Duration::from_secs(120);
/// What is built once for all of these tests.
const SHIPPED: [&str; 4] = ["turnlock", "noop", "postgresql", "mysql"];

/// Images in a place of their own, kept from run to run.
static PODMAN: LazyLock<Podman> = LazyLock::new(|| Podman::apart(&place()).unwrap());

fn place() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("podman")
}

/// An image as `cargo xtask images` makes it, with its digest.
fn shipped(short_name: &str) -> String {
    let name = format!("localhost/turnlock/{short_name}");
    let programs = SHIPPED.map(|name| if name == "turnlock" { name.to_owned() } else { format!("turnlock-{name}") });
    let from: Vec<PathBuf> = programs.iter().map(|program| bin(program).unwrap()).collect();
    // Its commit is written on an image.
    let mut git = process::command("git");
    git.args(["rev-parse", "HEAD"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    let commit = process::run(&mut git, b"").unwrap().stdout;
    let built = once("shipped", &commit, &from, || build(&SHIPPED));
    let row = built.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap();
    format!("{name}@{}", row.split_whitespace().last().unwrap())
}

fn build(names: &[&str]) -> String {
    let mut images = process::command(bin("xtask").unwrap());
    images.args(["images", "--quick"]).args(names).envs(PODMAN.environment());
    let told = process::run_within(&mut images, b"", Duration::from_secs(280)).unwrap();
    assert!(told.succeeded(), "{}{}", told.stdout, told.stderr);
    told.stderr
}

/// What building told: every test is a process of its own, and the first one
/// that finds something else than the last build had builds for all.
fn once(name: &str, commit: &str, from: &[PathBuf], build: impl FnOnce() -> String) -> String {
    fs::create_dir_all(place()).unwrap();
    let lock = File::create(place().join(format!("{name}.lock"))).unwrap();
    lock.lock().unwrap();
    let state = |file: &PathBuf| {
        let about = fs::metadata(file).unwrap();
        format!("{} {:?}\n", about.len(), about.modified().unwrap().duration_since(UNIX_EPOCH).unwrap())
    };
    let states = || from.iter().map(state).fold(commit.to_owned(), |states, state| states + &state);
    let kept = place().join(format!("{name}.built"));
    let before = fs::read_to_string(&kept).unwrap_or_default();
    if let Some(told) = before.strip_prefix(&states()) {
        return told.to_owned();
    }
    let told = build();
    // Building may have built the programs, too.
    write_file(&kept, states() + &told).unwrap();
    told
}

/// The image of a rotator that hangs behind its permit.
fn stall() -> String {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("lab/containers/stall.c");
    let digest = once("stall", "", std::slice::from_ref(&source), || {
        let context = tempfile::tempdir().unwrap();
        let mut compiler = process::command("cc");
        compiler.args(["-static", "-O1", "-Wall", "-Wextra", "-Werror"]).arg(&source);
        compiler.arg("-o").arg(context.path().join("stall"));
        assert!(process::run(&mut compiler, b"").unwrap().succeeded());
        let file = "FROM scratch\nCOPY stall /stall\nENTRYPOINT [\"/stall\"]\n";
        write_file(&context.path().join("Containerfile"), file).unwrap();
        let mut build = PODMAN.buildah();
        build.args(["build", "--quiet", "--isolation=chroot", "--tag=localhost/stall"]).arg(context.path());
        let built = process::run_within(&mut build, b"", SOON).unwrap();
        assert!(built.succeeded(), "{}", built.stderr);
        podman(&["image", "inspect", "--format={{.Digest}}", "localhost/stall"])
    });
    format!("localhost/stall@{}", digest.trim())
}

/// Held by the one test that may have containers of `stall`.
fn alone_with_stall() -> File {
    let lock = File::create(place().join("alone.lock")).unwrap();
    lock.lock().unwrap();
    lock
}

fn podman(arguments: &[&str]) -> String {
    let told = process::run_within(PODMAN.command().args(arguments), b"", SOON).unwrap();
    assert!(told.succeeded(), "podman {arguments:?}: {}", told.stderr);
    told.stdout
}

/// A vault whose rotators run from these images.
fn world_of(images: &[(&str, String)]) -> World {
    let world = World::new();
    let listed: String = images.iter().map(|(plugin, image)| format!("{plugin} = \"{image}\"\n")).collect();
    world.configure(&format!("[rotators]\nruntime = \"podman\"\n[rotators.images]\n{listed}"));
    world
}

/// With a record that a plugin without a target rotates.
fn world_with(plugin: &str, image: String) -> World {
    let world = world_of(&[(plugin, image)]);
    world.add(plugin, &door(plugin), SECRET);
    world
}

fn door(plugin: &str) -> Fields {
    Fields { login: "door".to_owned(), ..Fields::default() }.with(format!("cmdr:plugin={plugin}"))
}

/// `turnlock` that finds the tests' podman.
fn command(world: &World, arguments: &[&str]) -> Command {
    let mut command = world.command(arguments);
    command.envs(PODMAN.environment());
    command
}

fn run(world: &World, arguments: &[&str]) -> lab::Output {
    process::run_within(&mut command(world, arguments), b"", SOON).unwrap()
}

/// What `turnlock … -o json` reports as its error.
fn error(world: &World, status: i32, arguments: &[&str]) -> Value {
    world::error_of(status, arguments, &run(world, &[arguments, &["-o", "json"]].concat()))
}

/// Nothing of ours runs any more, and nothing is left of it.
fn nothing_is_left(plugin: &str) {
    let filter = format!("--filter=name=turnlock-{plugin}-");
    wait_until("the containers to be gone", SOON, || {
        podman(&["ps", "--all", "--quiet", &filter]).is_empty().then_some(())
    })
    .unwrap();
}

/// As an image's page says: no orchestrator, no log, no shell.
#[test]
fn an_image_is_a_rotator_and_the_same_however_often_it_is_built() {
    let noop = shipped("noop");
    let mut shell = PODMAN.command();
    shell.args(["run", "--rm", "--log-driver=none", "--entrypoint=/bin/sh", &noop]);
    assert_ne!(process::run_within(&mut shell, b"", SOON).unwrap().status, 0);
    let image: Value = serde_json::from_str(&podman(&["image", "inspect", &noop])).unwrap();
    let settings = &image[0]["Config"];
    assert_eq!(settings["User"], "65532:65532");
    assert_eq!(settings["Entrypoint"], json!(["/usr/bin/turnlock-noop"]));
    assert_eq!(settings["Labels"]["org.opencontainers.image.title"], "turnlock-noop");

    let again = build(&["noop"]);
    assert!(again.contains(noop.rsplit('@').next().unwrap()), "{noop}: {again}");
}

/// The lines of docs/containers.md, as they stand there.
#[test]
fn the_page_is_true() {
    let world = World::without_vault();
    let home = world.turnlock.home();
    shipped("turnlock");
    write_file(&home.join("params.json"), r#"{"account": {"login": "door"}}"#).unwrap();
    let record =
        json!({"title": "Door", "login": "door", "password": SECRET, "custom_fields": {"cmdr:plugin": "noop"}});
    write_file(&home.join("export.json"), json!({"records": [record]}).to_string()).unwrap();
    podman(&["volume", "rm", "--force", "turnlock"]);
    let page = include_str!("../docs/containers.md");
    let lines: Vec<&str> = page.lines().filter(|line| line.starts_with("    podman ")).collect();
    assert_eq!(lines.len(), 5, "{lines:?}");
    let mut said = String::new();
    for line in lines {
        let mut shell = process::clean_command("sh");
        shell.args(["-c", line]).current_dir(home).envs(PODMAN.environment()).env("HOME", home);
        let done = process::run_within(&mut shell, b"", SOON).unwrap();
        assert_eq!(done.status, 0, "{line}: {}{}", done.stdout, done.stderr);
        said.push_str(&done.stdout);
    }
    let result = fs::read_to_string(home.join("result.ndjson")).unwrap();
    let told = world::lines(&result);
    assert_eq!(told[0]["candidate"], told[1]["next"]);
    assert!(said.contains("rotated Door") && !said.contains(SECRET), "{said}");
}

#[test]
fn accounts_of_postgresql_and_mariadb_are_rotated_from_images_as_by_programs() {
    let images = ["noop", "postgresql", "mysql"].map(|plugin| (plugin, shipped(plugin)));
    let world = world_of(&images);
    world.add("noop", &door("noop"), SECRET);
    let postgresql = Postgresql::start(PostgresqlOptions::default()).unwrap();
    let mariadb = mariadb::start(MysqlOptions::default()).unwrap();
    postgresql.create_role("app", SECRET).unwrap();
    mariadb.create_account("app", "%", SECRET, AccountOptions::default()).unwrap();
    for (title, scheme, port, ca) in [
        ("Orders", "postgres", postgresql.port(), postgresql.ca_path()),
        ("Shop", "mariadb", mariadb.port(), mariadb.ca_path()),
    ] {
        // A file of this machine means nothing in a container.
        let ca = format!("--set=turnlock:ca={}", fs::read_to_string(ca).unwrap());
        let url = format!("--url={scheme}://127.0.0.1:{port}");
        let mut add = command(&world, &["add", title, "--login=app", "--password=-", &url, &ca]);
        let added = process::run_within(&mut add, SECRET.as_bytes(), SOON).unwrap();
        assert_eq!(added.status, 0, "{}", added.stderr);
    }
    let rotated = run(&world, &["rotate", "--match", ".", "--force"]);
    assert_eq!(rotated.status, 0, "{}{}", rotated.stdout, rotated.stderr);
    for title in ["Orders", "Shop", "noop"] {
        assert_ne!(world.password(title), SECRET, "{title}: {}", rotated.stdout);
    }
    assert!(postgresql.accepts("app", &world.password("Orders")).unwrap());
    assert!(mariadb.accepts("app", &world.password("Shop")).unwrap());
    assert!(!postgresql.accepts("app", SECRET).unwrap() && !mariadb.accepts("app", SECRET).unwrap());
    // What each said of itself is kept by its image's content.
    let plugins = run(&world, &["plugins", "-o", "json"]);
    assert_eq!(world::lines(&plugins.stdout).len(), 3, "{}{}", plugins.stdout, plugins.stderr);
    let doctor = run(&world, &["doctor", "-o", "json"]);
    assert_eq!(doctor.status, 0, "{}{}", doctor.stdout, doctor.stderr);
    for (plugin, _) in images {
        nothing_is_left(plugin);
    }
    world.nothing_is_open();
}

#[test]
fn only_a_pinned_image_that_is_here_is_run() {
    let elsewhere = format!("localhost/turnlock/noop@sha256:{}", "0".repeat(64));
    let world = world_with("noop", elsewhere);
    let refused = error(&world, 2, &["rotate", "noop"]);
    assert_eq!(world.password("noop"), SECRET);
    let described = error(&world, 3, &["plugins", "describe", "noop"]);
    assert!(described["error"].as_str().unwrap().contains("not on this machine"), "{described}{refused}");
    assert!(described["hint"].as_str().unwrap().contains("podman pull"), "{described}");
    let unnamed = error(&world, 3, &["plugins", "describe", "postgresql"]);
    assert!(unnamed["hint"].as_str().unwrap().contains("[rotators.images]"), "{unnamed}");

    for (toml, word) in [
        ("[rotators]\nruntime = \"podman\"\n[rotators.images]\nnoop = \"localhost/turnlock/noop:0.1.0\"\n", "sha256"),
        ("[rotators.images]\nnoop = \"localhost/turnlock/noop:0.1.0\"\n", "runtime"),
        ("[rotators]\nruntime = \"docker\"\n", "podman"),
    ] {
        world.configure(toml);
        let refused = error(&world, 2, &["list"]);
        assert!(refused.to_string().contains(word), "{refused}");
    }
}

/// podman dies at once when it is killed, and the container goes on: so the
/// container itself is ended, and only its death counts.
#[test]
fn a_rotator_that_hangs_in_its_container_is_ended_before_anybody_asks_the_target() {
    let world = world_with("stall", stall());
    let _alone = alone_with_stall();
    let ended = run(&world, &["rotate", "stall", "--timeout", "3"]);
    // The stand-in takes any secret, so the candidate is found to be live.
    assert_eq!(ended.status, 0, "{}{}", ended.stdout, ended.stderr);
    nothing_is_left("stall");
    world.nothing_is_open();
}

#[test]
fn a_rotator_whose_orchestrator_was_killed_is_waited_for() {
    let world = world_with("stall", stall());
    let _alone = alone_with_stall();
    let begun = world::Running::start(&mut command(&world, &["rotate", "stall", "--timeout", "600"]), "");
    let permitted = |attempts: Vec<Value>| attempts.iter().any(|attempt| !attempt["permit"].is_null());
    wait_until("the permit", SOON, || permitted(world.json(&["show", "stall", "--stage"])).then_some(())).unwrap();
    let running = || podman(&["ps", "--quiet", "--filter=name=turnlock-stall-"]);
    let first = running();
    begun.signal("KILL");
    begun.end();

    let mut recovering = world::Running::start(&mut command(&world, &["recover"]), "");
    // It asks nobody while the rotator of the other run may still change the target.
    wait_until("both rotators", SOON, || (running().lines().count() == 2).then_some(())).unwrap();
    assert!(!recovering.has_ended());
    podman(&["kill", "--signal=KILL", first.trim()]);
    let recovered = recovering.end();
    assert_eq!(recovered.status, 0, "{}{}", recovered.stdout, recovered.stderr);
    nothing_is_left("stall");
    world.nothing_is_open();
}
