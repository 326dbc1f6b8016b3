//! The program `turnlock-mssql`.

use std::process::ExitCode;

fn main() -> ExitCode {
    turnlock_kit::run::<turnlock_mssql::Mssql>()
}
