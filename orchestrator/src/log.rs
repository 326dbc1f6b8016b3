//! What is said beside results, for whoever keeps logs: sentences for people,
//! JSON lines, or entries of systemd's journal with fields of their own.

use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value};

/// Where the journal listens.
const JOURNAL: &str = "/run/systemd/journal/socket";

/// How it is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// Sentences on standard error.
    Human,
    /// One JSON object a line on standard error.
    Json,
    /// Entries of systemd's journal; where there is none, lines with its priorities.
    Journald,
}

/// How much of it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Level {
    /// What failed.
    Error,
    /// Also what must not be overlooked.
    Warn,
    /// Also what was done.
    Info,
    /// Also every step.
    Debug,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }

    /// Syslog's number.
    fn priority(self) -> u8 {
        match self {
            Self::Error => 3,
            Self::Warn => 4,
            Self::Info => 6,
            Self::Debug => 7,
        }
    }
}

/// Where lines go.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    format: LogFormat,
    level: Level,
    journal: Option<Arc<UnixDatagram>>,
}

impl Log {
    /// Lines up to this level.
    pub(crate) fn new(format: LogFormat, level: Level) -> Self {
        let connected = || {
            let socket = UnixDatagram::unbound().ok()?;
            socket.connect(JOURNAL).ok()?;
            Some(Arc::new(socket))
        };
        let journal = if format == LogFormat::Journald { connected() } else { None };
        Self { format, level, journal }
    }

    /// Whether people read it.
    pub(crate) fn is_for_people(&self) -> bool {
        self.format == LogFormat::Human
    }

    /// Whether lines of this level are wanted.
    pub(crate) fn wants(&self, level: Level) -> bool {
        level <= self.level
    }

    /// The line for standard error, where that is the place for it.
    pub(crate) fn line(&self, level: Level, message: &str, fields: &Map<String, Value>) -> Option<String> {
        match self.format {
            LogFormat::Human => Some(message.to_owned()),
            LogFormat::Json => {
                let mut line = Map::new();
                line.insert("at".to_owned(), Value::from(Timestamp::now().to_string()));
                line.insert("level".to_owned(), Value::from(level.name()));
                line.insert("message".to_owned(), Value::from(message));
                line.extend(fields.iter().filter(|(_, value)| !value.is_null()).map(|(k, v)| (k.clone(), v.clone())));
                Some(Value::Object(line).to_string())
            }
            LogFormat::Journald => {
                let entry = entry(level, message, fields);
                let sent = self.journal.as_ref().is_some_and(|journal| journal.send(&entry).is_ok());
                (!sent).then(|| format!("<{}>{}", level.priority(), message.replace('\n', " ")))
            }
        }
    }
}

/// An entry of the journal's own protocol: `NAME=value`, or where the value
/// has several lines, the name, its length, and the value.
fn entry(level: Level, message: &str, fields: &Map<String, Value>) -> Vec<u8> {
    let mut entry = Vec::with_capacity(512);
    let mut add = |name: &str, value: &str| {
        entry.extend_from_slice(name.as_bytes());
        if value.contains('\n') {
            entry.push(b'\n');
            entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            entry.push(b'=');
        }
        entry.extend_from_slice(value.as_bytes());
        entry.push(b'\n');
    };
    add("MESSAGE", message);
    add("PRIORITY", &level.priority().to_string());
    add("SYSLOG_IDENTIFIER", "turnlock");
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        add(&format!("TURNLOCK_{}", name.to_ascii_uppercase()), &text);
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_the_journal_is_what_its_protocol_says() {
        let mut fields = Map::new();
        fields.insert("record".to_owned(), Value::from("AAAA"));
        fields.insert("causes".to_owned(), Value::from("one\ntwo"));
        fields.insert("hint".to_owned(), Value::Null);
        let expected = b"MESSAGE=rotated\nPRIORITY=6\nSYSLOG_IDENTIFIER=turnlock\nTURNLOCK_RECORD=AAAA\n\
            TURNLOCK_CAUSES\n\x07\0\0\0\0\0\0\0one\ntwo\n";
        assert_eq!(entry(Level::Info, "rotated", &fields), expected);
    }
}
