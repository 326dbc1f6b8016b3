//! Days and hours in which something may begin.

use std::fmt;

use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// Days of the week and hours of the day; hours that end before they begin
/// reach into the day after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Window {
    /// Monday first.
    days: [bool; 7],
    from: Time,
    until: Time,
}

/// One time for which it is open.
#[derive(Debug, Clone, Copy)]
pub(super) struct Open {
    pub(super) start: Timestamp,
    pub(super) end: Timestamp,
}

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

impl Window {
    /// Reads `Sat,Sun`, `22:00-06:00`, or both; the error is the word that is neither.
    pub(super) fn of(words: &[&str]) -> Result<Self, String> {
        let (days, hours) = match words {
            [both, hours] => (Some(*both), Some(*hours)),
            [one] if one.contains(':') => (None, Some(*one)),
            [one] => (Some(*one), None),
            _ => return Err(words.join(" ")),
        };
        let days = days.map_or(Ok([true; 7]), |word| days_of(word).ok_or_else(|| word.to_owned()))?;
        let (from, until) = match hours {
            None => (Time::midnight(), Time::midnight()),
            Some(word) => hours_of(word).ok_or_else(|| word.to_owned())?,
        };
        Ok(Self { days, from, until })
    }

    /// The time in which it is open at `at`, cut off there, or the next one.
    pub(super) fn from(&self, at: Timestamp, zone: &TimeZone) -> Option<Open> {
        let mut day = at.to_zoned(zone.clone()).date().yesterday().ok()?;
        // One week, the day before it, and the one behind it.
        for _ in 0..9 {
            if let Some(open) = self.on(day, zone)
                && at < open.end
            {
                return Some(Open { start: open.start.max(at), end: open.end });
            }
            day = day.tomorrow().ok()?;
        }
        None
    }

    /// When it is open from this day on; none where a changed clock swallows it.
    fn on(&self, day: Date, zone: &TimeZone) -> Option<Open> {
        let weekday = usize::try_from(day.weekday().to_monday_zero_offset()).ok()?;
        if !*self.days.get(weekday)? {
            return None;
        }
        let last = if self.until > self.from { day } else { day.checked_add(1.day()).ok()? };
        let instant = |day: Date, time| zone.to_timestamp(day.to_datetime(time)).ok();
        let (start, end) = (instant(day, self.from)?, instant(last, self.until)?);
        (start < end).then_some(Open { start, end })
    }
}

/// `Mon`, `Mon-Fri`, `Sat,Sun`, in any mixture.
fn days_of(word: &str) -> Option<[bool; 7]> {
    let number = |name: &str| DAYS.iter().position(|day| day.eq_ignore_ascii_case(name));
    let mut days = [false; 7];
    for part in word.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        // Fri-Mon goes over the week's end.
        let length = (last + 7 - first) % 7;
        for day in first..=first + length {
            *days.get_mut(day % 7)? = true;
        }
    }
    Some(days)
}

/// `22:00-06:00`; 24:00 is the midnight behind.
fn hours_of(word: &str) -> Option<(Time, Time)> {
    let time = |text: &str| match text {
        "24:00" => Some(Time::midnight()),
        text => {
            let (hour, minute) = text.split_once(':')?;
            let digits = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
            (digits(hour) && digits(minute)).then_some(())?;
            Time::new(hour.parse().ok()?, minute.parse().ok()?, 0, 0).ok()
        }
    };
    let (from, until) = word.split_once('-')?;
    Some((time(from)?, time(until)?))
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = DAYS.iter().zip(self.days).filter(|(_, open)| *open).map(|(day, _)| *day);
        let days: Vec<&str> = days.collect();
        write!(f, "{} {}-{}", days.join(","), self.from.strftime("%H:%M"), self.until.strftime("%H:%M"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(text: &str, zone: &str, at: &str) -> (String, String) {
        let words: Vec<&str> = text.split(' ').collect();
        let zone = TimeZone::get(zone).unwrap();
        let open = Window::of(&words).unwrap().from(at.parse().unwrap(), &zone).unwrap();
        (open.start.to_string(), open.end.to_string())
    }

    fn is(start: &str, end: &str) -> (String, String) {
        (start.to_owned(), end.to_owned())
    }

    #[test]
    fn a_window_is_open_now_or_later_and_reaches_over_midnight() {
        let berlin = "Europe/Berlin";
        // 2026-11-28 is a Saturday.
        let night = is("2026-11-28T21:00:00Z", "2026-11-29T05:00:00Z");
        assert_eq!(open("Sat 22:00-06:00", berlin, "2026-11-26T12:00:00Z"), night);
        let rest = is("2026-11-29T04:59:59Z", "2026-11-29T05:00:00Z");
        assert_eq!(open("Sat 22:00-06:00", berlin, "2026-11-29T04:59:59Z"), rest);
        let next = is("2026-12-05T21:00:00Z", "2026-12-06T05:00:00Z");
        assert_eq!(open("Sat 22:00-06:00", berlin, "2026-11-29T05:00:00Z"), next);
        assert_eq!(open("Fri-Mon", "UTC", "2026-11-26T12:00:00Z").0, "2026-11-27T00:00:00Z");
        assert_eq!(open("Sun", "UTC", "2026-11-26T12:00:00Z"), is("2026-11-29T00:00:00Z", "2026-11-30T00:00:00Z"));
    }

    #[test]
    fn a_window_that_a_changed_clock_swallows_is_left_out() {
        // On 2027-03-28 Berlin's clocks go from 02:00 to 03:00.
        let after = open("02:00-02:30", "Europe/Berlin", "2027-03-27T12:00:00Z");
        assert!(after.0.as_str() > "2027-03-28T00:00:00Z", "{after:?}");
    }

    #[test]
    fn what_is_no_window_is_told() {
        for text in ["Saturday", "22-06", "Mon 25:00-26:00", "a b c", "22:00-6:0", ""] {
            let words: Vec<&str> = text.split(' ').collect();
            assert!(Window::of(&words).is_err(), "{text}");
        }
    }
}
