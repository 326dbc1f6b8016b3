//! The program `turnlock-ssh`.

use std::process::ExitCode;

fn main() -> ExitCode {
    turnlock_kit::run::<turnlock_ssh::Ssh>()
}
