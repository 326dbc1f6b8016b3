//! The program `turnlock-postgresql`.

use std::process::ExitCode;

fn main() -> ExitCode {
    turnlock_kit::run::<turnlock_postgresql::Postgresql>()
}
