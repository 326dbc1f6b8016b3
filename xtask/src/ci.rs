//! `cargo xtask ci`: what must be green before a change goes in.

use lab::{LabError, Result};

use crate::{cargo, say::step, show, test, tidy, windows};

/// Cheap checks first; ends at the first that fails.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    if let Some(word) = arguments.first() {
        return Err(LabError::new(format!("`cargo xtask ci` takes no arguments, and got `{word}`")));
    }
    step("check the format", || show(&mut cargo(&["fmt", "--all", "--check"])))?;
    step("check the repository's rules", || tidy::run(&[]))?;
    step("check the lints", || {
        show(&mut cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]))
    })?;
    step("check and test the features that are off by default", || {
        let features = "turnlock-azureadpwd/rbac,turnlock-oracle/thick";
        let those = ["-p", "turnlock-azureadpwd", "-p", "turnlock-oracle", "--features", features];
        show(cargo(&["clippy", "--all-targets", "--quiet"]).args(those).args(["--", "-D", "warnings"]))?;
        show(cargo(&["test", "--quiet"]).args(those))
    })?;
    step("test", || test::run(&[]))?;
    step("windows", || windows::run(&[]))
}
