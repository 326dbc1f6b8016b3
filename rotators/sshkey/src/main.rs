//! The program `turnlock-sshkey`.

use std::process::ExitCode;

fn main() -> ExitCode {
    turnlock_kit::run::<turnlock_sshkey::SshKey>()
}
