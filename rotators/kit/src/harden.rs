//! No dump of memory, as far as the system allows, and no panic message with
//! a payload.

use std::panic::PanicHookInfo;

use crate::{output, system};

/// Hardens the running process. What the system refuses is left as it is: a
/// container may forbid these calls, and none of them decides correctness.
pub(crate) fn this_process() {
    system::forbid_dumps();
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
