//! The program `turnlock-mysql`.

use std::process::ExitCode;

fn main() -> ExitCode {
    turnlock_kit::run::<turnlock_mysql::Mysql>()
}
