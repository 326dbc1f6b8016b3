//! The program `turnlock-pspasswd`.

use std::process::ExitCode;

fn main() -> ExitCode {
    turnlock_kit::run::<turnlock_pspasswd::Pspasswd>()
}
