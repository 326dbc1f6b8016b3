//! The five fields of cron, as crontab(5) has them: minute, hour, day of the
//! month, month, day of the week.
//!
//! An hour that a changed clock leaves out is made up for by the one behind it;
//! one that is there twice counts once.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::{AmbiguousOffset, TimeZone};

/// The longest that a date can be waited for: 29 February, over a century's end.
const LONGEST_WAIT_DAYS: usize = 9 * 366;
/// No clock is set by more than so many hours.
const LARGEST_STEP: i8 = 3;

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// A cron expression.
#[derive(Debug, Clone)]
pub(super) struct Cron {
    minutes: Field,
    hours: Field,
    days: Field,
    months: Field,
    weekdays: Field,
    text: String,
}

/// The numbers that one field names, as bits.
#[derive(Debug, Clone, Copy)]
struct Field {
    numbers: u64,
    /// It begins with `*`, so that the other field of days decides alone.
    any: bool,
}

impl Cron {
    /// Reads five fields; the error is the one that cannot be read.
    pub(super) fn of(fields: [&str; 5]) -> Result<Self, String> {
        let [minutes, hours, days, months, weekdays] = fields;
        let mut weekdays = Field::of(weekdays, 0, 7, 0, &DAYS)?;
        // Sunday is 0 and 7.
        weekdays.numbers |= weekdays.numbers >> 7;
        Ok(Self {
            minutes: Field::of(minutes, 0, 59, 0, &[])?,
            hours: Field::of(hours, 0, 23, 0, &[])?,
            days: Field::of(days, 1, 31, 0, &[])?,
            months: Field::of(months, 1, 12, 1, &MONTHS)?,
            weekdays,
            text: fields.join(" "),
        })
    }

    /// The first instant behind another one; none where it never comes.
    pub(super) fn after(&self, since: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        // What was left out the evening before may be made up for today.
        let mut day = since.to_zoned(zone.clone()).date().yesterday().ok()?;
        for _ in 0..LONGEST_WAIT_DAYS {
            if let Some(at) = self.names(day).then(|| self.on(day, since, zone)).flatten() {
                return Some(at);
            }
            day = day.tomorrow().ok()?;
        }
        None
    }

    fn names(&self, day: Date) -> bool {
        let in_month = self.days.has(day.day());
        let in_week = self.weekdays.has(day.weekday().to_sunday_zero_offset());
        // Where both are said, either will do.
        let said = if self.days.any || self.weekdays.any { in_month && in_week } else { in_month || in_week };
        said && self.months.has(day.month())
    }

    fn on(&self, day: Date, since: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let then = since.to_zoned(zone.clone());
        let first_hour = if then.date() == day { then.hour() - LARGEST_STEP } else { 0 };
        let mut first: Option<Timestamp> = None;
        for hour in (0..24).filter(|hour| *hour >= first_hour && self.hours.has(*hour)) {
            for minute in (0..60).filter(|minute| self.minutes.has(*minute)) {
                let named = zone.to_ambiguous_timestamp(day.at(hour, minute, 0, 0));
                let left_out = matches!(named.offset(), AmbiguousOffset::Gap { .. });
                let Some(at) = named.compatible().ok().filter(|at| *at > since) else { continue };
                first = Some(first.map_or(at, |first| first.min(at)));
                // Only what was left out can come behind what is named later.
                if !left_out {
                    return first;
                }
            }
        }
        first
    }
}

impl Field {
    /// Reads `*`, `5`, `1-5`, `*/2`, `10-50/20` and lists of them, and names
    /// that count from `first_name` on.
    fn of(text: &str, least: u8, most: u8, first_name: usize, names: &[&str]) -> Result<Self, String> {
        let number = |word: &str| {
            let named = names.iter().position(|name| name.eq_ignore_ascii_case(word));
            let number = named.map_or_else(|| word.parse().ok(), |place| u8::try_from(place + first_name).ok());
            number.filter(|number| (least..=most).contains(number))
        };
        let part = |part: &str| {
            let (range, step) = part.split_once('/').map_or((part, "1"), |(range, step)| (range, step));
            let (first, last) = match range.split_once('-') {
                _ if range == "*" => (least, most),
                Some((first, last)) => (number(first)?, number(last)?),
                None if range == part => (number(range)?, number(range)?),
                None => return None,
            };
            let step: usize = step.parse().ok().filter(|step| *step > 0)?;
            (first <= last).then(|| (first..=last).step_by(step).fold(0_u64, |bits, number| bits | 1 << number))
        };
        let parts: Option<Vec<u64>> = text.split(',').map(part).collect();
        let numbers = parts.ok_or_else(|| text.to_owned())?.into_iter().fold(0, |all, part| all | part);
        Ok(Self { numbers, any: text.starts_with('*') })
    }

    fn has(self, number: i8) -> bool {
        u32::try_from(number).is_ok_and(|number| self.numbers.checked_shr(number).unwrap_or(0) & 1 == 1)
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(fields: &str, since: &str, count: usize) -> Vec<String> {
        let fields: Vec<&str> = fields.split(' ').collect();
        let cron = Cron::of(fields.try_into().unwrap()).unwrap();
        let mut at: Timestamp = since.parse().unwrap();
        let mut turns = Vec::new();
        for _ in 0..count {
            at = cron.after(at, &TimeZone::UTC).unwrap();
            turns.push(at.strftime("%a %Y-%m-%d %H:%M").to_string());
        }
        turns
    }

    #[test]
    fn fields_mean_what_crontab_says() {
        let since = "2026-11-28T12:00:00Z";
        assert_eq!(
            turns("*/20 12 * * *", since, 3),
            ["Sat 2026-11-28 12:20", "Sat 2026-11-28 12:40", "Sun 2026-11-29 12:00"]
        );
        assert_eq!(turns("0 3 * * Sun", since, 2), ["Sun 2026-11-29 03:00", "Sun 2026-12-06 03:00"]);
        assert_eq!(turns("0 3 * * 7", since, 1), turns("0 3 * * 0", since, 1));
        assert_eq!(
            turns("30 4 1,15 * Fri", since, 3),
            ["Tue 2026-12-01 04:30", "Fri 2026-12-04 04:30", "Fri 2026-12-11 04:30"]
        );
        assert_eq!(turns("0 0 29 feb *", since, 2), ["Tue 2028-02-29 00:00", "Sun 2032-02-29 00:00"]);
        assert_eq!(turns("10-50/20 0 1 Jan-Mar/2 *", since, 4)[2..], ["Fri 2027-01-01 00:50", "Mon 2027-03-01 00:10"]);
        assert_eq!(turns("0 0 */10 * 1-5", since, 2), ["Tue 2026-12-01 00:00", "Fri 2026-12-11 00:00"]);
    }

    #[test]
    fn what_is_no_field_is_told() {
        for (fields, wrong) in [
            (["60", "*", "*", "*", "*"], "60"),
            (["*", "24", "*", "*", "*"], "24"),
            (["*", "*", "0", "*", "*"], "0"),
            (["*", "*", "*", "Smarch", "*"], "Smarch"),
            (["*", "*", "*", "*", "8"], "8"),
            (["5/2", "*", "*", "*", "*"], "5/2"),
            (["*/0", "*", "*", "*", "*"], "*/0"),
            (["5-1", "*", "*", "*", "*"], "5-1"),
            (["1,,2", "*", "*", "*", "*"], "1,,2"),
        ] {
            assert_eq!(Cron::of(fields).unwrap_err(), wrong);
        }
        let never = Cron::of(["0", "0", "30", "2", "*"]).unwrap();
        assert_eq!(never.after(Timestamp::UNIX_EPOCH, &TimeZone::UTC), None);
    }
}
