//! Keeper Secrets Manager as a vault of Turnlock.
//!
//! `serve.rs` speaks with Turnlock, one JSON message a line; `keeper.rs`
//! speaks with Keeper, by its own SDK; `fault.rs` holds what can go wrong
//! between the two. The contract is told in `docs/vaults.md`.

mod fault;
mod keeper;
mod serve;

use std::io::Write;
use std::process::ExitCode;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

fn main() -> ExitCode {
    harden();
    if std::env::args().nth(1).as_deref() == Some("serve") {
        return serve::serve();
    }
    let usage = "turnlock-vault-ksm serve: Keeper Secrets Manager as a vault of turnlock, which starts it itself";
    let _ = writeln!(std::io::stderr(), "{usage}");
    ExitCode::from(2)
}

/// No core dump, no debugger, and no panic message with a payload. The SDK
/// logs payloads in clear, so nobody listens to its log either.
fn harden() {
    // What the system refuses is left as it is: none of it decides correctness.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    log::set_max_level(log::LevelFilter::Off);
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(std::io::stderr(), "bug: panic at {place}");
    }));
}
