//! `cargo xtask test`: the one way in which the tests are run, by people and by CI.

use std::process::Command;

use lab::Result;

use crate::{cargo, say::step, setup, show};

/// A verb of cargo for Keeper's vault program, a workspace of its own: what it
/// asks of serde_json would change how everything else reads numbers.
pub(crate) fn vaults(verb: &str) -> Command {
    let mut command = cargo(&[verb]);
    command.args(["--manifest-path", "vaults/ksm/Cargo.toml"]);
    command
}

/// Arguments go to nextest; without any, the examples in the documentation run, too.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    setup::ensure(setup::ALL)?;
    // Tests run programs of other packages, which nextest alone would not build.
    step("build the programs", || show(&mut cargo(&["build", "--workspace", "--bins", "--examples"])))?;
    step("build the vault programs", || show(vaults("build").args(["--target-dir", "target"])))?;
    // They wait for servers a fifth of their time.
    let threads = std::thread::available_parallelism().map_or(1, usize::from) * 3 / 2;
    step("run the tests", || {
        let mut nextest = cargo(&["nextest", "run", "--workspace"]);
        // By environment, so that an argument goes before it.
        show(nextest.args(arguments).env("NEXTEST_TEST_THREADS", threads.to_string()))
    })?;
    if arguments.is_empty() {
        step("run the documentation's examples", || show(&mut cargo(&["test", "--doc", "--workspace", "--quiet"])))?;
    }
    Ok(())
}
