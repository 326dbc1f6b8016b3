//! A small campaign on every change: the same rounds each time, drawn from one seed.

use std::{fs, path::Path};

use chaos::{Campaign, Case, Kind};
use lab::process;

/// Every kind of server, so many faults in all.
const FAULTS: u64 = 300;

#[test]
fn three_hundred_faults_lose_nothing() {
    let targets = vec![Kind::Postgresql, Kind::Mariadb, Kind::Openldap];
    let campaign = Campaign { faults: FAULTS, seed: 1, targets, with: None, jobs: 3, turnlock: None };
    let ended = campaign.play(&|text| eprintln!("{text}")).unwrap();
    for line in ended.figures.lines() {
        eprintln!("{line}");
    }
    if let Some((broken, case)) = ended.broken {
        panic!("{broken}\n  cargo xtask chaos --replay {case}");
    }
    assert!(ended.figures.faults(None) >= FAULTS);
    assert!(ended.figures.rotated > 0 && ended.figures.recovered > 0, "nothing went on beneath the faults");
}

/// A build without a safeguard that silently became a whole one would prove nothing.
#[test]
fn every_safeguard_that_can_be_taken_away_is_still_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let patches: Vec<_> = fs::read_dir(root.join("tests/chaos/broken")).unwrap().flatten().collect();
    assert_eq!(patches.len(), 4);
    for patch in patches {
        let mut git = process::clean_command("git");
        git.args(["apply", "--check"]).arg(patch.path()).current_dir(&root);
        let checked = process::run(&mut git, b"").unwrap();
        assert!(checked.succeeded(), "{}: {}", patch.path().display(), checked.stderr);
    }
}

#[test]
fn a_case_is_read_as_it_was_written() {
    for text in ["postgresql:00000000000000ff", "ssh:ffffffffffffffff:1,4,17"] {
        assert_eq!(Case::parse(text).unwrap().to_string(), text);
    }
    for text in ["", "postgresql", "sybase:0000000000000001", "ssh:xyz", "ssh:1:a"] {
        assert!(Case::parse(text).is_err(), "{text}");
    }
}
