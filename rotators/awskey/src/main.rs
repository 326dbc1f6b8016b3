//! The program `turnlock-awskey`.

use std::process::ExitCode;

fn main() -> ExitCode {
    turnlock_kit::run::<turnlock_awskey::AwsKey>()
}
