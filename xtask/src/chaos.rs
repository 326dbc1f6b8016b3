//! `cargo xtask chaos`: fault campaigns on real servers, and what they are worth: builds of
//! Turnlock that are broken on purpose, which a campaign has to find.

use std::{
    collections::BTreeSet,
    fs,
    hash::{BuildHasher, RandomState},
    path::PathBuf,
};

use chaos::{Campaign, Case, Kind, replay};
use lab::{LabError, Result, process};

use crate::{
    cargo,
    programs::build_plain,
    root,
    say::{answer, line, step},
    setup, show,
};

/// The safeguards that can be taken away, each by a patch of its name beside the harness.
const BROKEN: [&str; 4] = ["stage-after-apply", "discard-without-proof", "no-fencing", "no-read-back"];

/// How often a case is played again.
const TIMES: usize = 5;

/// What was asked for.
struct Wanted {
    faults: u64,
    seed: u64,
    targets: Vec<Kind>,
    with: Option<String>,
    jobs: usize,
    replay: Option<Case>,
    broken: Vec<&'static str>,
    json: bool,
}

/// Plays a campaign, or one case again; fails when something was broken, and of a broken build when nothing was.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let wanted = Wanted::parse(arguments)?;
    setup::ensure(setup::ALL)?;
    step("build the programs", build)?;
    if wanted.broken.is_empty() {
        return judge(&wanted, None);
    }
    for name in &wanted.broken {
        let turnlock = step(&format!("build Turnlock with {name}"), || build_broken(name))?;
        match judge(&wanted, Some(turnlock)) {
            Err(found) => line(&format!("{name} is noticed: {found}")),
            Ok(()) => {
                return Err(LabError::new(format!(
                    "{name}: {} faults did not notice that it is broken",
                    wanted.faults
                )));
            }
        }
    }
    Ok(())
}

fn judge(wanted: &Wanted, turnlock: Option<PathBuf>) -> Result<()> {
    let ended = match &wanted.replay {
        Some(case) => {
            case.story().iter().for_each(|step| line(step));
            replay(case, turnlock.as_deref(), TIMES)?
        }
        None => {
            line(&format!("seed {}", wanted.seed));
            let Wanted { faults, seed, jobs, .. } = *wanted;
            let (targets, with) = (wanted.targets.clone(), wanted.with.clone());
            Campaign { faults, seed, targets, with, jobs, turnlock }.play(&line)?
        }
    };
    match wanted.json {
        true => answer(&ended.figures.json().to_string()),
        false => ended.figures.lines().iter().for_each(|text| line(text)),
    }
    match ended.broken {
        None => {
            line("0 credentials lost, 0 secrets leaked, 0 lock-outs");
            Ok(())
        }
        Some((broken, case)) => Err(LabError::new(format!("{broken}\n  cargo xtask chaos --replay {case}"))),
    }
}

impl Wanted {
    fn parse(arguments: &[String]) -> Result<Self> {
        let mut wanted = Self {
            faults: 300,
            seed: RandomState::new().hash_one(()),
            targets: Vec::new(),
            with: None,
            jobs: 3,
            replay: None,
            broken: Vec::new(),
            json: false,
        };
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let value = words.next().ok_or_else(|| LabError::new(format!("{word} needs a value; {USAGE}")))?;
            let number = || value.parse::<u64>().map_err(|_| LabError::new(format!("{word} {value}: no number")));
            match word.as_str() {
                "--faults" => wanted.faults = number()?,
                "--seed" => wanted.seed = number()?,
                "--jobs" => wanted.jobs = usize::try_from(number()?).unwrap_or(1),
                "--target" => {
                    let kind = |name: &str| {
                        Kind::named(name).ok_or_else(|| LabError::new(format!("there is no target `{name}`")))
                    };
                    wanted.targets = value.split(',').map(kind).collect::<Result<_>>()?;
                }
                "--with" => wanted.with = Some(value.clone()),
                "--replay" => wanted.replay = Some(Case::parse(value)?),
                "--broken" if value == "all" => wanted.broken = BROKEN.to_vec(),
                "--broken" => {
                    let name = BROKEN.into_iter().find(|name| name == value);
                    let names = BROKEN.join(", ");
                    wanted.broken.push(name.ok_or_else(|| LabError::new(format!("--broken is all or of {names}")))?);
                }
                "--output" if value == "json" => wanted.json = true,
                _ => return Err(LabError::new(USAGE)),
            }
        }
        Ok(wanted)
    }
}

const USAGE: &str = "cargo xtask chaos [--faults N] [--seed S] [--target NAME,…] [--with FAULT] [--jobs J] [--output json] \
     [--replay CASE] [--broken NAME|all]";

fn build() -> Result<()> {
    let rotators: BTreeSet<String> = Kind::ALL.iter().map(|(kind, _)| format!("turnlock-{}", kind.plugin())).collect();
    build_plain(["turnlock", "lab-interposer"].into_iter().chain(rotators.iter().map(String::as_str)))
}

/// Builds `turnlock` from a patched copy of this repository. The product itself has no switch
/// that takes a safeguard away; libraries are shared with the usual build, programs are not.
fn build_broken(name: &str) -> Result<PathBuf> {
    let (place, out) = (root().join("target/broken").join(name), root().join("target/broken").join("built").join(name));
    let failed = |error: std::io::Error| LabError::new(format!("could not copy to {}: {error}", place.display()));
    match fs::remove_dir_all(&place) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => fs::create_dir_all(&place).map_err(failed)?,
    }
    let mut copy = process::command("sh");
    copy.args(["-c", "git ls-files -z | xargs -0 cp --parents -t \"$1\"", "sh"]).arg(&place).current_dir(root());
    show(&mut copy)?;
    let mut patch = process::command("git");
    patch.args(["apply", &format!("--directory=target/broken/{name}"), &format!("tests/chaos/broken/{name}.patch")]);
    show(patch.current_dir(root()))?;
    let mut build = cargo(&["build", "--quiet", "--workspace", "--bin", "turnlock"]);
    // The copy's packages have the names and versions of the real ones, and cargo tells builds in one directory
    // apart by these and their profile alone: a number of its own keeps each from being taken for another.
    // And it is built for one short campaign: to optimise it would take longer than it saves.
    let number = BROKEN.iter().position(|broken| *broken == name).unwrap_or(BROKEN.len()) + 1;
    for setting in ["opt-level=0".to_owned(), format!("codegen-units={}", 256 + number)] {
        build.arg("--config").arg(format!("profile.dev.package.turnlock.{setting}"));
    }
    build.current_dir(&place).env("CARGO_TARGET_DIR", &out).env("CARGO_BUILD_BUILD_DIR", root().join("target"));
    show(&mut build)?;
    Ok(out.join("debug/turnlock"))
}
