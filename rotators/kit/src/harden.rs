//! No core dump, no debugger, no panic message with a payload, and a standard
//! output that only the protocol can reach.

use std::panic::PanicHookInfo;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

use crate::output;

/// Hardens the running process. What the system refuses is left as it is: a
/// container may forbid these calls, and none of them decides correctness.
pub(crate) fn this_process() {
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    std::panic::set_hook(Box::new(say_where_but_not_what));
}

/// A panic's payload may hold anything, a secret included.
fn say_where_but_not_what(panic: &PanicHookInfo<'_>) {
    match panic.location() {
        Some(place) => output::to_people(&format!("bug: panic at {}:{}", place.file(), place.line())),
        None => output::to_people("bug: panic"),
    }
    std::process::exit(1);
}
