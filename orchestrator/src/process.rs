//! Naming a process so that it can be proven dead.

use std::fs;

use crate::stage::Process;

/// What is known about a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// It runs.
    Alive,
    /// It does not run any more: another boot, or its id is free or taken by
    /// a younger process.
    Dead,
    /// It belongs to another machine or pid namespace; only time can tell.
    OutOfSight,
}

impl Process {
    /// This process.
    pub(crate) fn this() -> Self {
        Self::of(std::process::id())
    }

    /// A child of this process.
    pub(crate) fn of(pid: u32) -> Self {
        Self { boot: boot_id(), namespace: pid_namespace(), pid, started: start_time(pid).unwrap_or(0) }
    }

    /// Whether it still runs.
    pub(crate) fn life(&self) -> Life {
        if self.boot.is_empty() || self.namespace.is_empty() || self.started == 0 {
            return Life::OutOfSight;
        }
        if self.boot != boot_id() {
            // A boot id of another machine looks the same as one of an earlier
            // boot of this one.
            return Life::OutOfSight;
        }
        if self.namespace != pid_namespace() {
            return Life::OutOfSight;
        }
        match start_time(self.pid) {
            Some(started) if started == self.started => Life::Alive,
            _ => Life::Dead,
        }
    }
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

fn pid_namespace() -> String {
    fs::read_link("/proc/self/ns/pid").map(|link| link.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Start time in ticks since boot, from `/proc/PID/stat` (proc(5), field 22);
/// none for a process that is gone or only waits to be reaped.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in parentheses, which may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_an_older_one_of_the_same_id_is_dead() {
        let this = Process::this();
        assert_eq!(this.life(), Life::Alive);
        assert_eq!(Process { started: this.started - 1, ..this.clone() }.life(), Life::Dead);
        assert_eq!(Process { boot: "another".into(), ..this }.life(), Life::OutOfSight);
    }
}
