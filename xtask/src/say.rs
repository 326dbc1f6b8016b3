//! What xtask says to the person at the terminal, on standard error; what a machine asked for goes to standard output.

use std::{
    io::{self, Write},
    time::Instant,
};

use lab::Result;

/// One line, or several.
pub(crate) fn line(text: &str) {
    // A terminal that is gone is no reason to fail.
    drop(writeln!(io::stderr(), "{text}"));
}

/// What was asked for.
pub(crate) fn answer(text: &str) {
    drop(writeln!(io::stdout(), "{text}"));
}

/// Says what happens, does it, and says how long it took.
pub(crate) fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    line(&format!("==> {what}"));
    let begun = Instant::now();
    let done = work();
    let verdict = if done.is_ok() { "done" } else { "failed" };
    line(&format!("    {what}: {verdict} in {:.1} s", begun.elapsed().as_secs_f64()));
    done
}
