//! The program `turnlock-azureadpwd`.

use std::process::ExitCode;

fn main() -> ExitCode {
    turnlock_kit::run::<turnlock_azureadpwd::AzureAdPwd>()
}
