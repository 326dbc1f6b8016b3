//! The program `turnlock-awspswd`.

use std::process::ExitCode;

fn main() -> ExitCode {
    turnlock_kit::run::<turnlock_awspswd::AwsPswd>()
}
