//! A moment whose age a clock that is set wrong cannot change, as long as the
//! machine has not been started anew.

use std::fs;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::process::boot_id;

/// When something happened, by the clock of the day and by the time since the
/// machine was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Moment {
    at: Timestamp,
    /// Which start of which machine; empty where the system does not tell.
    boot: String,
    up_ms: i64,
}

impl Moment {
    /// This moment, which the clock of the day calls so.
    pub(crate) fn called(at: Timestamp) -> Self {
        let up = fs::read_to_string("/proc/uptime").ok();
        let seconds = up.as_deref().and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
        let boot = if seconds.is_some() { boot_id() } else { String::new() };
        Self { at, boot, up_ms: (seconds.unwrap_or(0.0) * 1e3) as i64 }
    }

    /// How long before `now` it was. Within one start of the machine that is
    /// what its own time says; otherwise the clocks of the day have to do, and
    /// what they put into the future is young.
    pub(crate) fn age(&self, now: &Self) -> SignedDuration {
        if !self.boot.is_empty() && self.boot == now.boot {
            return SignedDuration::from_millis(now.up_ms - self.up_ms);
        }
        now.at.duration_since(self.at)
    }

    /// What the clock of the day shows so much later.
    pub(crate) fn after(&self, wait: SignedDuration) -> Timestamp {
        self.at.checked_add(wait).unwrap_or(Timestamp::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_jumps_makes_nothing_older_or_younger() {
        let now = Moment::called(Timestamp::now());
        assert!(!now.boot.is_empty() && now.up_ms > 0, "{now:?}");
        let day = SignedDuration::from_hours(24);
        for jumped in [now.at + day, now.at - day] {
            let then = Moment { at: jumped, up_ms: now.up_ms - 1_500, boot: now.boot.clone() };
            assert_eq!(then.age(&now), SignedDuration::from_millis(1_500));
        }
        let elsewhere = Moment { boot: "another".to_owned(), at: now.at - day, up_ms: 7 };
        assert_eq!(elsewhere.age(&now), day);
    }
}
