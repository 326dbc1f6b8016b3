//! The program `turnlock-adpasswd`.

use std::process::ExitCode;

fn main() -> ExitCode {
    turnlock_kit::run::<turnlock_adpasswd::Adpasswd>()
}
