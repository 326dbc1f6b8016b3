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
    step("check and test the feature rbac of azureadpwd", || {
        let package = ["-p", "turnlock-azureadpwd", "--features", "rbac"];
        let lints = [&["clippy", "--all-targets", "--quiet"][..], &package, &["--", "-D", "warnings"]].concat();
        show(&mut cargo(&lints))?;
        show(&mut cargo(&[&["test", "--quiet"][..], &package].concat()))
    })?;
    step("test", || test::run(&[]))?;
    step("windows", || windows::run(&[]))
}
