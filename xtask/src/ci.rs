//! `cargo xtask ci`: what must be green before a change goes in.

use lab::{LabError, Result};

use crate::{
    cargo, dependencies,
    say::step,
    show,
    test::{self, vaults},
    tidy, windows,
};

/// The features that are off by default.
const OPTIONAL: [&str; 2] = ["--features", "turnlock-azureadpwd/rbac,turnlock-oracle/thick"];

/// Cheap checks first; ends at the first that fails.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    if let Some(word) = arguments.first() {
        return Err(LabError::new(format!("`cargo xtask ci` takes no arguments, and got `{word}`")));
    }
    step("check the format", || show(&mut cargo(&["fmt", "--all", "--check"])))?;
    step("check the format of the vault programs", || show(vaults("fmt").arg("--check")))?;
    step("check the repository's rules", || tidy::run(&[]))?;
    step("check the dependencies", || dependencies::run(&[]))?;
    step("check the lints", || {
        show(
            cargo(&["clippy", "--workspace", "--all-targets", "--quiet"]).args(OPTIONAL).args(["--", "-D", "warnings"]),
        )
    })?;
    step("check the lints of the vault programs", || {
        show(vaults("clippy").args(["--target-dir", "target", "--locked", "--quiet", "--", "-D", "warnings"]))
    })?;
    step("check the documentation", || {
        show(cargo(&["doc", "--workspace", "--no-deps", "--quiet"]).args(OPTIONAL).env("RUSTDOCFLAGS", "-D warnings"))
    })?;
    step("test", || test::run(&[]))?;
    step("test the features that are off by default", || {
        // All of the workspace, of which the tests with these names: so everything else is there already.
        show(cargo(&["test", "--workspace", "--quiet"]).args(OPTIONAL).args(["--test", "rbac", "--test", "thick"]))
    })?;
    step("windows", || windows::run(&[]))
}
