//! When a credential is due.
//!
//! ```text
//! every 30d
//! every 90d in Sat,Sun 22:00-06:00 Europe/Berlin
//! 0 3 * * Sun Europe/Berlin spread 2h
//! ```
//!
//! Pure: whoever asks says what time it is. The same record is always due at
//! the same instant, whoever asks and however often.

mod cron;
mod window;

use std::fmt;
use std::str::FromStr;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp};
use sha2::{Digest, Sha256};

use self::cron::Cron;
use self::window::Window;
use crate::record::Uid;

/// A rotation that lies further in the future than this was dated by a clock
/// that was wrong: it tells nothing.
const A_WRONG_CLOCK: SignedDuration = SignedDuration::from_hours(24);
/// How long a record whose rotation failed is left alone: after the first time…
const FIRST_REST: SignedDuration = SignedDuration::from_mins(1);
/// …and at most. In between each rest is four times the one before.
const LONGEST_REST: SignedDuration = SignedDuration::from_hours(6);

/// How often a credential is replaced, and at which hours.
#[derive(Debug, Clone)]
pub struct Schedule {
    rhythm: Rhythm,
    window: Option<Window>,
    zone: TimeZone,
    spread: SignedDuration,
}

#[derive(Debug, Clone)]
enum Rhythm {
    Every(Span),
    Cron(Box<Cron>),
}

/// What a vault remembers of a record's rotations.
#[derive(Debug, Clone, Copy, Default)]
pub struct Past {
    /// When its credential was last replaced.
    pub rotated: Option<Timestamp>,
    /// Since when it has the schedule it has.
    pub scheduled: Option<Timestamp>,
    /// When its rotation failed last, and how often in a row.
    pub failed: Option<(Timestamp, u32)>,
}

/// Why a text is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// Neither `every` nor cron.
    #[error("a schedule is `every` and a time such as 30d, or the five fields of cron")]
    Rhythm,
    /// `every` without a time that can be added to a date.
    #[error("`every` needs a time of at least a minute, such as 12h, 30d or 3mo")]
    Every,
    /// Five words that are not cron's.
    #[error("`{0}` is no field of cron, at least not at its place")]
    Cron(String),
    /// Cron's fields never come true together.
    #[error("the cron expression never comes true")]
    Never,
    /// A window that cannot be read.
    #[error("a window is days and hours, such as Mon-Fri 22:00-04:00; `{0}` is neither")]
    Window(String),
    /// A window for cron, which says itself when.
    #[error("cron says itself when: a window goes with `every`")]
    WindowOfCron,
    /// A time zone that this machine does not know.
    #[error("`{0}` is no time zone that this machine knows")]
    Zone(String),
    /// A spread that is no time.
    #[error("`spread` needs a time from a second to a week, such as 2h")]
    Spread,
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let mut words: Vec<&str> = text.split_whitespace().collect();
        let spread = match words.iter().position(|word| word.eq_ignore_ascii_case("spread")) {
            None => SignedDuration::ZERO,
            Some(at) => time_of(words.split_off(at).get(1..).unwrap_or_default()).ok_or(ScheduleError::Spread)?,
        };
        let in_a_window = words.iter().position(|word| word.eq_ignore_ascii_case("in"));
        let mut hours = in_a_window.map(|at| words.split_off(at));
        let zone = zone_at_the_end(hours.as_mut().unwrap_or(&mut words))?;
        let window = hours
            .map(|words| Window::of(words.get(1..).unwrap_or_default()).map_err(ScheduleError::Window))
            .transpose()?;
        let rhythm = match words.as_slice() {
            [every, time @ ..] if every.eq_ignore_ascii_case("every") => {
                let span: Span = time.join(" ").parse().map_err(|_| ScheduleError::Every)?;
                let shortest = Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC).checked_add(span);
                if !shortest.is_ok_and(|then| then.timestamp().as_second() >= 60) {
                    return Err(ScheduleError::Every);
                }
                Rhythm::Every(span)
            }
            [_, _, _, _, _] if window.is_some() => return Err(ScheduleError::WindowOfCron),
            [minute, hour, day, month, weekday] => {
                let cron = Cron::of([minute, hour, day, month, weekday]).map_err(ScheduleError::Cron)?;
                Rhythm::Cron(Box::new(cron))
            }
            _ => return Err(ScheduleError::Rhythm),
        };
        let schedule = Self { rhythm, window, zone, spread };
        schedule.after(Timestamp::UNIX_EPOCH).ok_or(ScheduleError::Never)?;
        Ok(schedule)
    }
}

impl Schedule {
    /// When a record is due. It may lie in the past; none where the calendar
    /// ends before it.
    pub fn due(&self, uid: &Uid, past: &Past, now: Timestamp) -> Option<Timestamp> {
        let believed = |at: &Timestamp| at.duration_since(now) <= A_WRONG_CLOCK;
        let scheduled = past.scheduled.filter(believed);
        let due = match (past.rotated.filter(believed), &self.rhythm) {
            (Some(rotated), Rhythm::Every(_)) => self.after(rotated)?,
            // Nobody knows how old it is.
            (None, Rhythm::Every(_)) => self.begin(scheduled.unwrap_or(now))?,
            (rotated, Rhythm::Cron(_)) => match rotated.max(scheduled) {
                Some(since) => self.after(since)?,
                None => now,
            },
        };
        let due = self.spread(uid, due);
        let rested = past.failed.filter(|(at, _)| believed(at)).map(|(at, times)| {
            let rest = FIRST_REST.saturating_mul(4_i32.saturating_pow(times.saturating_sub(1)));
            at.saturating_add(rest.min(LONGEST_REST)).unwrap_or(at)
        });
        Some(rested.map_or(due, |rested| due.max(rested)))
    }

    /// The first instant from `at` on at which a rotation may begin.
    pub fn begin(&self, at: Timestamp) -> Option<Timestamp> {
        match &self.window {
            None => Some(at),
            Some(window) => window.from(at, &self.zone).map(|open| open.start),
        }
    }

    /// The next time behind an instant, the same for all records.
    fn after(&self, since: Timestamp) -> Option<Timestamp> {
        let next = match &self.rhythm {
            Rhythm::Every(span) => since.to_zoned(self.zone.clone()).checked_add(*span).ok()?.timestamp(),
            Rhythm::Cron(cron) => cron.after(since, &self.zone)?,
        };
        self.begin(next)
    }

    /// Moves a record's turn into the time over which all are spread, without
    /// leaving the window.
    fn spread(&self, uid: &Uid, due: Timestamp) -> Timestamp {
        let rest = match &self.window {
            None => self.spread,
            Some(window) => window
                .from(due, &self.zone)
                .map_or(SignedDuration::ZERO, |open| self.spread.min(open.end.duration_since(due))),
        };
        let Some(seconds) = u64::try_from(rest.as_secs()).ok().filter(|seconds| *seconds > 0) else {
            return due;
        };
        let turn = draw(uid, due) % seconds;
        due.saturating_add(SignedDuration::from_secs(turn.cast_signed())).unwrap_or(due)
    }
}

/// A number that is the same whenever this record and this instant meet.
fn draw(uid: &Uid, at: Timestamp) -> u64 {
    let digest = Sha256::new().chain_update(uid.as_str()).chain_update(at.as_second().to_be_bytes()).finalize();
    digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn time_of(words: &[&str]) -> Option<SignedDuration> {
    let time: SignedDuration = words.join(" ").parse().ok()?;
    (SignedDuration::from_secs(1)..=SignedDuration::from_hours(7 * 24)).contains(&time).then_some(time)
}

/// Takes a time zone off the end of the words; without one it is UTC, the same
/// on every machine.
fn zone_at_the_end(words: &mut Vec<&str>) -> Result<TimeZone, ScheduleError> {
    let named = |word: &&str| {
        word.eq_ignore_ascii_case("utc")
            || word.contains('/') && word.chars().any(char::is_alphabetic) && !word.contains([',', '*', ':'])
    };
    match words.pop_if(|word| named(word)) {
        None => Ok(TimeZone::UTC),
        Some(name) => TimeZone::get(name).map_err(|_| ScheduleError::Zone(name.to_owned())),
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rhythm {
            Rhythm::Every(span) => write!(f, "every {span:#}")?,
            Rhythm::Cron(cron) => write!(f, "{cron}")?,
        }
        if let Some(window) = &self.window {
            write!(f, " in {window}")?;
        }
        if let Some(name) = self.zone.iana_name() {
            write!(f, " {name}")?;
        }
        if !self.spread.is_zero() {
            write!(f, " spread {:#}", self.spread)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
