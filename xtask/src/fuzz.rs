//! `cargo xtask fuzz`: every property test with many more inputs than the
//! tests take, and the model of a rotation with one more fault. They are the
//! very programs that the tests are, so that nothing is built twice.

use std::time::Instant;

use lab::{LabError, Result};

use crate::{
    cargo,
    say::{line, step},
    show,
};

/// What is fuzzed: the package, the tests, and how many times as many inputs
/// as were asked for, because some take a process each.
const TARGETS: &[(&str, &str, &str, f64)] = &[
    ("frames and policies", "turnlock-protocol", "test(fuzz_)", 10.0),
    ("the passwd dialogue", "turnlock-kit", "test(fuzz_dialogue)", 10.0),
    ("a rotator that hears anything", "turnlock-kit", "test(fuzz_serve) | test(fuzz_one_shot)", 0.1),
    ("a host that hears anything", "turnlock", "test(fuzz_host)", 0.1),
    ("records of other tools", "turnlock", "test(fuzz_import) | test(keeper::)", 1.0),
    ("rules, hosts, URLs and options", "turnlock", "test(no_text_makes) | test(resolution_never_panics)", 1.0),
    ("authorized_keys", "turnlock-sshkey", "test(any_bytes) | test(other_lines_stay)", 10.0),
    ("known_hosts", "turnlock-secureshell", "test(any_text) | test(a_pattern_of_stars)", 10.0),
    ("every interleaving, with three faults", "turnlock", "test(settle::model)", 0.0),
];

/// Runs them one after the other; the first failure ends it.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let asked: u32 = match arguments {
        [] => 20_000,
        [number] => number.parse().map_err(|_| LabError::new(format!("`{number}` is no number of inputs")))?,
        _ => return Err(LabError::new("`cargo xtask fuzz` takes the number of inputs, and nothing more")),
    };
    for (what, package, tests, factor) in TARGETS {
        let begun = Instant::now();
        let inputs = (f64::from(asked) * factor) as u32;
        let nextest =
            ["nextest", "run", "--profile", "fuzz", "--workspace", "--lib", "--test", "fuzz", "--cargo-quiet"];
        step(what, || {
            let mut command = cargo(&nextest);
            command.args(["-E", &format!("package({package}) and ({tests})")]);
            show(command.env("PROPTEST_CASES", inputs.max(1).to_string()).env("TURNLOCK_MODEL_FAULTS", "3"))
        })?;
        line(&format!("{what}: {} inputs each, {} s", inputs, begun.elapsed().as_secs()));
    }
    Ok(())
}
