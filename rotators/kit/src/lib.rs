//! What rotators share: implement [`Rotator`], call [`run`], and the result is
//! a complete program that speaks the rotator protocol in both its modes,
//! hardens itself, and never lets a secret out by accident.
//!
//! ```no_run
//! # use std::process::ExitCode;
//! # fn example<Postgresql: turnlock_kit::Rotator>() -> ExitCode {
//! turnlock_kit::run::<Postgresql>()
//! # }
//! ```

mod cleared;
pub mod dialogue;
mod dispatch;
mod harden;
mod host;
mod input;
mod log_in;
#[cfg(feature = "many")]
pub mod many;
mod one_shot;
mod output;
mod rotator;
mod schema;
mod scrub;
mod serve;
#[cfg_attr(unix, path = "unix.rs")]
#[cfg_attr(windows, path = "windows.rs")]
mod system;
mod threshold;
#[cfg(feature = "tls")]
pub mod tls;

use std::process::ExitCode;

pub use log_in::{Lockout, NotIn};
pub use one_shot::SystemRandom;
pub use rotator::{Change, CredentialField, PASSWORD, Rotator, WorkingSet};
pub use threshold::{Crossed, Done, Threshold};
pub use turnlock_protocol as protocol;
pub use turnlock_protocol::operation::{
    Admin, CredentialState, Finding, Findings, Finished, HostOutcome, HostVerdict, MayRotate, Orphans, Prepared,
    Severity, Verdict, Verdicts,
};
pub use turnlock_protocol::{
    Applied, Credential, Fault, Hosts, Kind, Mark, Origin, Overlap, PasswordLimits, Policy, Secret, Traits, VerifyBy,
};

/// The whole program of a rotator: reads the arguments, serves or performs one
/// operation, and says how it went.
pub fn run<R: Rotator>() -> ExitCode {
    harden::this_process();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::to_people(&format!("cannot start: {error}"));
            return ExitCode::from(1);
        }
    };
    let status = runtime.block_on(one_shot::command_line::<R>(std::env::args_os().skip(1).collect()));
    // A thread may still be waiting on standard input; the program is done.
    runtime.shutdown_background();
    ExitCode::from(status)
}
