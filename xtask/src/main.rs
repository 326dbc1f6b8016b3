//! `cargo xtask <verb>`: everything a contributor does here, one file a verb.

mod bench;
mod bill;
mod chaos;
mod ci;
mod demo;
mod dependencies;
mod dist;
mod fuzz;
mod images;
mod lab_verb;
mod programs;
mod say;
mod setup;
mod test;
mod tidy;
mod windows;

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use lab::{LabError, Result, process};

/// A verb: its name, its arguments, what it does, and the function that does it.
struct Verb {
    name: &'static str,
    arguments: &'static str,
    does: &'static str,
    run: fn(&[String]) -> Result<()>,
}

const VERBS: &[Verb] = &[
    Verb {
        name: "setup",
        arguments: "[--check | --refresh-mysql]",
        does: "install what tests and demo need",
        run: setup::run,
    },
    Verb { name: "demo", arguments: "", does: "the main job on real servers: import, rotate, prove", run: demo::run },
    Verb {
        name: "test",
        arguments: "[nextest arguments]",
        does: "build everything and run every test",
        run: test::run,
    },
    Verb {
        name: "bench",
        arguments: "[--quick] [PART…]",
        does: "measure rotations beside the bare driver",
        run: bench::run,
    },
    Verb {
        name: "chaos",
        arguments: "--faults N [--seed S] [--target T,…] [--jobs J]",
        does: "rotate on real servers while everything fails, and prove that nothing is lost",
        run: chaos::run,
    },
    Verb { name: "windows", arguments: "", does: "lint, build and test for Windows, under wine", run: windows::run },
    Verb { name: "ci", arguments: "", does: "format, lints, tidy, test, windows: what CI runs", run: ci::run },
    Verb {
        name: "dependencies",
        arguments: "",
        does: "check licences, bans and sources of every crate",
        run: dependencies::run,
    },
    Verb {
        name: "fuzz",
        arguments: "[inputs]",
        does: "property tests with many inputs, the whole model: minutes",
        run: fuzz::run,
    },
    Verb {
        name: "dist",
        arguments: "[--quick] [NAME…]",
        does: "tarball, Debian package, bill of materials, checksums",
        run: dist::run,
    },
    Verb {
        name: "images",
        arguments: "[--quick] [NAME…]",
        does: "an image of each rotator, and one of everything",
        run: images::run,
    },
    Verb { name: "tidy", arguments: "", does: "check the repository's own rules", run: tidy::run },
    Verb {
        name: "lab",
        arguments: "postgresql | mariadb | mysql | ssh | openldap | oracle | samba | smb",
        does: "start a server and say how to connect, until Ctrl-C",
        run: lab_verb::run,
    },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        None => {
            say::line(&usage());
            ExitCode::from(2)
        }
        Some((word, _)) if ["--help", "-h", "help"].contains(&word.as_str()) => {
            say::line(&usage());
            ExitCode::SUCCESS
        }
        Some((word, rest)) => match VERBS.iter().find(|verb| verb.name == word) {
            None => {
                say::line(&format!("xtask has no verb `{word}`\n\n{}", usage()));
                ExitCode::from(2)
            }
            Some(verb) => match (verb.run)(rest) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    say::line(&format!("error: {error}"));
                    ExitCode::FAILURE
                }
            },
        },
    }
}

fn usage() -> String {
    let verbs: Vec<String> = VERBS
        .iter()
        .map(|verb| format!("  {:<36} {}", format!("{} {}", verb.name, verb.arguments), verb.does))
        .collect();
    format!("usage: cargo xtask <verb>\n\n{}", verbs.join("\n"))
}

/// The repository's root.
fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// cargo, in the repository's root.
fn cargo(arguments: &[&str]) -> Command {
    let mut cargo = process::command(process::environment("CARGO").unwrap_or_else(|| "cargo".to_owned()));
    cargo.args(arguments).current_dir(root());
    cargo
}

/// Runs a command whose output the person at the terminal sees.
fn show(command: &mut Command) -> Result<()> {
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let words = words.join(" ");
    let status = command.status().map_err(|error| LabError::new(format!("could not start `{words}`: {error}")))?;
    if status.success() {
        return Ok(());
    }
    Err(LabError::new(format!("`{words}` ended with status {}", process::status_number(status))))
}
