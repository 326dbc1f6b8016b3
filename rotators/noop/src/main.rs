//! The program `turnlock-noop`.

use std::process::ExitCode;

fn main() -> ExitCode {
    turnlock_kit::run::<turnlock_noop::Noop>()
}
