//! What a fleet may do at once, how fast, and when it stops.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

/// How a fleet behaves.
#[derive(Debug, Clone)]
pub struct Rules {
    /// How many records at once.
    pub jobs: usize,
    /// How many of them at one host.
    pub per_host: usize,
    /// Each record begins at a moment of its own within this time.
    pub jitter: Duration,
    /// Whether what failed and changed nothing is tried again.
    pub tries_again: bool,
    /// When more than this failed, nothing more begins.
    pub max_failures: Option<AtMost>,
    /// What is said of single hosts.
    pub hosts: BTreeMap<String, Kindness>,
    /// What is said of single plugins.
    pub plugins: BTreeMap<String, Kindness>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            jobs: 1,
            per_host: 8,
            jitter: Duration::ZERO,
            tries_again: true,
            max_failures: None,
            hosts: BTreeMap::new(),
            plugins: BTreeMap::new(),
        }
    }
}

/// How one host or plugin wants to be treated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kindness {
    /// How many rotations at once.
    pub at_once: Option<usize>,
    /// How fast they may follow each other.
    pub rate: Option<Rate>,
}

/// So many in a time, evenly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Rate {
    /// The time between two of them.
    pub apart: Duration,
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let seconds = |unit: &str| {
            Some(match unit {
                "s" => 1,
                "m" => 60,
                "h" => 3_600,
                _ => return None,
            })
        };
        let read = text
            .split_once('/')
            .and_then(|(count, unit)| Some((count.trim().parse::<u32>().ok()?, seconds(unit.trim())?)));
        match read {
            Some((count @ 1.., seconds)) => Ok(Self { apart: Duration::from_secs(seconds) / count }),
            _ => Err(format!("`{text}` is no rate: write 5/s, 30/m or 100/h")),
        }
    }
}

impl TryFrom<String> for Rate {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// How many may fail.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum AtMost {
    /// So many.
    Number(u64),
    /// So many of a hundred, of all that were selected.
    Percent(f64),
}

impl AtMost {
    pub(super) fn is_less_than(self, failed: u64, total: u64) -> bool {
        match self {
            Self::Number(most) => failed > most,
            #[expect(clippy::cast_precision_loss, reason = "no fleet has so many records that it would matter")]
            Self::Percent(most) => failed as f64 * 100.0 > most * total as f64,
        }
    }
}

impl FromStr for AtMost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = match text.strip_suffix('%') {
            Some(percent) => percent.parse().ok().filter(|percent| (0.0..=100.0).contains(percent)).map(Self::Percent),
            None => text.parse().ok().map(Self::Number),
        };
        read.ok_or_else(|| "write a number such as 20, or a share such as 5%".to_owned())
    }
}

impl fmt::Display for AtMost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_shares_are_read_or_told() {
        assert_eq!("5/s".parse::<Rate>().unwrap().apart, Duration::from_millis(200));
        assert_eq!("30/m".parse::<Rate>().unwrap().apart, Duration::from_secs(2));
        for text in ["", "5", "0/s", "5/d", "-1/s", "5/s/s"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
        let most = |text: &str| text.parse::<AtMost>().unwrap();
        assert!(!most("5%").is_less_than(5, 100) && most("5%").is_less_than(6, 100));
        assert!(!most("0").is_less_than(0, 100) && most("0").is_less_than(1, 100));
        assert!("101%".parse::<AtMost>().is_err() && "many".parse::<AtMost>().is_err());
    }
}
