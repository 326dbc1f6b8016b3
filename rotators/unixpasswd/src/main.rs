//! The program `turnlock-unixpasswd`.

use std::process::ExitCode;

fn main() -> ExitCode {
    turnlock_kit::run::<turnlock_unixpasswd::UnixPasswd>()
}
