//! A rotator that lies, hangs, floods and dies. Whatever it does, a credential
//! that the target accepts is in the vault, no secret is told to anybody, and
//! the next rotation, by a rotator that behaves, goes through.
//!
//! One thing no host can know: that a rotator changes the target without a
//! permit and denies it. The conformance kit finds such a one (`conformance.rs`).

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a broken expectation of a test program is its failure"
)]

mod world;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use lab::{bin, process::write_file};
use world::{Fields, World, error_of};

const OLD: &str = "Canary-Old-11";

/// What the target accepts afterwards.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Live {
    Old,
    New,
}
use Live::{New, Old};

/// Every way: how `turnlock rotate` ends, and what the target accepts then.
/// 0: committed. 3: the vault's current credential is as good as before, or
/// the target's one is kept as abandoned. 5: not known yet, everything kept.
const WAYS: &[(&str, i32, Live)] = &[
    ("behaves", 0, New),
    // It never comes to a conversation.
    ("silent-at-start", 3, Old),
    ("dies-at-start", 3, Old),
    ("garbage-for-hello", 3, Old),
    ("endless-hello", 3, Old),
    ("other-plugin", 3, Old),
    ("other-version", 3, Old),
    // It got no permit, so nothing has changed.
    ("dies-before-the-permit", 3, Old),
    ("silent-before-the-permit", 3, Old),
    ("garbage-before-the-permit", 3, Old),
    ("asks-with-a-number", 3, Old),
    ("answers-another-request", 3, Old),
    // It claims success, and the target is asked.
    ("success-without-asking", 3, Old),
    ("success-without-a-change", 3, Old),
    ("changes-without-asking", 0, New),
    // Its permit was given: the target is asked.
    ("dies-before-the-change", 3, Old),
    ("silent-before-the-change", 3, Old),
    ("ends-without-a-result", 3, Old),
    ("dies-behind-the-change", 0, New),
    ("silent-behind-the-change", 0, New),
    ("garbage-behind-the-change", 0, New),
    ("half-an-answer", 0, New),
    ("endless-answer", 0, New),
    ("a-result-that-does-not-fit", 0, New),
    ("an-error-without-data", 0, New),
    ("leaves-a-child-behind", 0, New),
    // It lies about what it did; what is live is kept, and found again.
    ("denies-the-change", 3, New),
    ("answers-with-another-secret", 0, New),
    ("proves-what-is-not-so", 0, Old),
    // It is only strange.
    ("asks-twice", 0, New),
    ("asks-what-no-host-knows", 0, New),
    ("hands-over-what-was-not-minted", 0, New),
    ("floods-the-log", 0, New),
    ("ignores-the-end-of-input", 0, New),
];

/// A home with the misbehaving rotator, and an account in a file.
struct Stage {
    world: World,
    plugins: PathBuf,
    target: PathBuf,
}

impl Stage {
    fn new(misbehaver: &Path) -> Self {
        let world = World::new();
        let plugins = world.turnlock.plugin_directory();
        fs::hard_link(misbehaver, plugins.join("turnlock-misbehaver")).unwrap();
        let target = world.turnlock.home().join("target");
        write_file(&target, OLD).unwrap();
        let fields = Fields { login: "app".to_owned(), ..Fields::default() }
            .with("cmdr:plugin=misbehaver")
            .with(format!("cmdr:target={}", target.display()))
            .with("turnlock:timeout=5");
        let stage = Self { world, plugins, target };
        stage.behaves("behaves");
        stage.world.ok_with(&stage.with_plugins(&["plugins", "describe", "misbehaver"]), "");
        let set: Vec<String> = fields.custom.clone();
        let mut add = vec!["add", "door", "--password", "-", "--login=app"];
        add.extend(set.iter().flat_map(|field| ["--set", field.as_str()]));
        stage.world.ok_with(&stage.with_plugins(&add), OLD);
        stage
    }

    fn behaves(&self, way: &str) {
        write_file(&self.plugins.join("way"), way).unwrap();
    }

    fn with_plugins<'a>(&'a self, arguments: &[&'a str]) -> Vec<&'a str> {
        [arguments, &["--plugin-dir", self.plugins.to_str().unwrap()]].concat()
    }

    fn live(&self) -> String {
        fs::read_to_string(&self.target).unwrap()
    }
}

fn keeps_the_promise(misbehaver: &Path, way: &str, status: i32, live: Live) {
    let stage = Stage::new(misbehaver);
    stage.behaves(way);
    let rotate = stage.with_plugins(&["rotate", "door", "--force", "-o", "json"]);
    let output = stage.world.run(&rotate);
    if status == 0 {
        assert_eq!(output.status, 0, "{way}: {}{}", output.stdout, output.stderr);
    } else {
        let error = error_of(status, &rotate, &output);
        assert!(error["state"].is_string(), "{way}: {error}");
    }
    let found = stage.live();
    assert_eq!(found == OLD, live == Old, "{way}: {}{}", output.stdout, output.stderr);
    let kept = stage.world.every_password("door");
    assert!(kept.contains(&found), "{way}: what the target accepts is not in the vault");
    for secret in kept.iter().chain([&found]) {
        assert!(!output.stdout.contains(secret) && !output.stderr.contains(secret), "{way} shows a secret");
    }
    assert!(output.stdout.len() + output.stderr.len() < 64 << 10, "{way}: it was passed on without measure");

    // With a rotator that behaves everything goes on.
    stage.behaves("behaves");
    stage.world.run(&stage.with_plugins(&["recover"]));
    if way == "proves-what-is-not-so" {
        // Only such a lie makes a dead credential current; the live one is in the history.
        stage.world.ok(&stage.with_plugins(&["verify", "door", "--try-history"]));
    }
    stage.world.ok(&rotate);
    assert_eq!(stage.world.password("door"), stage.live(), "{way}");
    stage.world.nothing_is_open();
}

/// Several at once, for most of them wait.
fn every_way_that(is: fn(&str) -> bool) {
    let ways: Vec<_> = WAYS.iter().filter(|(way, ..)| is(way)).collect();
    // Copied before any thread starts programs: one that is still being written is busy then.
    let first = World::without_vault();
    let misbehaver = first.turnlock.plugin_directory().join("turnlock-misbehaver");
    fs::copy(bin("lab-misbehaver").unwrap(), &misbehaver).unwrap();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                while let Some((way, status, live)) = ways.get(next.fetch_add(1, Ordering::Relaxed)) {
                    keeps_the_promise(&misbehaver, way, *status, *live);
                }
            });
        }
    });
}

fn waits(way: &str) -> bool {
    ["silent", "leaves", "ignores"].iter().any(|slow| way.starts_with(slow))
}

#[test]
fn one_that_says_nothing_loses_nothing() {
    every_way_that(waits);
}

#[test]
fn one_that_lies_or_dies_loses_nothing() {
    every_way_that(|way| !waits(way));
}

#[test]
fn no_way_is_told_twice() {
    let mut names: Vec<_> = WAYS.iter().map(|(way, ..)| way).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), WAYS.len());
}
