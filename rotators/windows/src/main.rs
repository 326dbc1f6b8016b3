//! The program `turnlock-windows`.

use std::process::ExitCode;

fn main() -> ExitCode {
    turnlock_kit::run::<turnlock_windows::Windows>()
}
