//! Naming a process so that it can be proven dead.

use std::fs;

use rustix::process::{Pid, Signal, kill_process_group};

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

    /// Ends it with its children, where it is a rotator that is known to run
    /// here: each leads a process group of its own.
    pub(crate) fn kill(&self) {
        let leader = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        if let (Life::Alive, Some(leader)) = (self.life(), leader) {
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

pub(crate) fn boot_id() -> String {
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

    #[test]
    fn a_rotator_is_ended_also_while_it_is_stopped() {
        use std::os::unix::process::{CommandExt, ExitStatusExt};
        #[expect(clippy::disallowed_methods, reason = "a process that stands for a rotator")]
        let mut child = std::process::Command::new("sleep").arg("60").process_group(0).spawn().unwrap();
        let rotator = Process::of(child.id());
        kill_process_group(Pid::from_child(&child), Signal::STOP).unwrap();
        // Another process that has its id now is left alone.
        Process { started: rotator.started - 1, ..rotator.clone() }.kill();
        assert!(child.try_wait().unwrap().is_none());
        rotator.kill();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        assert_eq!(rotator.life(), Life::Dead);
    }
}
