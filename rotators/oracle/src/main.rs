//! The program `turnlock-oracle`.

use std::process::ExitCode;

fn main() -> ExitCode {
    turnlock_kit::run::<turnlock_oracle::Oracle>()
}
