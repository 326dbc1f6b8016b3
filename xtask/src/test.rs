//! `cargo xtask test`: the one way in which the tests are run, by people and by CI.

use lab::Result;

use crate::{cargo, say::step, setup, show};

/// Arguments go to nextest; without any, the examples in the documentation run, too.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    setup::ensure(setup::ALL)?;
    // Tests run programs of other packages, which nextest alone would not build.
    step("build the programs", || show(&mut cargo(&["build", "--workspace", "--bins"])))?;
    // Apart: what only examples ask of libraries has no place in the programs.
    step("build the programs that only tests run", || show(&mut cargo(&["build", "--workspace", "--examples"])))?;
    step("run the tests", || show(cargo(&["nextest", "run", "--workspace"]).args(arguments)))?;
    if arguments.is_empty() {
        step("run the documentation's examples", || show(&mut cargo(&["test", "--doc", "--workspace", "--quiet"])))?;
    }
    Ok(())
}
