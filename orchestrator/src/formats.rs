//! The files that records come from and go to.
//!
//! A format reads a file from front to back and hands each record to a
//! [`Sink`] as soon as it is whole, and writes record by record: what is held
//! does not grow with the file. Only KDBX is one document by nature.
//! Everything a format cannot keep is told as a [`Loss`], never dropped.

pub mod csv;
mod flat;
pub mod kdbx;
pub mod keeper;
mod loss;

use std::collections::HashMap;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read};

use sha2::{Digest, Sha256};
use turnlock_protocol::{PolicyError, RandomSource};

use self::keeper::json::Node;
use crate::generate;
use crate::record::{Record, RecordError, Uid};

/// Takes what a file holds, one record after the other.
pub trait Sink {
    /// Takes a record. An error ends the reading; why is the sink's own matter.
    fn record(&mut self, record: Record) -> Result<(), Stopped>;

    /// Hears of something that is not kept.
    fn loss(&mut self, loss: Loss);
}

/// A sink takes no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped;

/// Writes records, one after the other.
pub trait Export {
    /// Writes one, and says what of it the format does not keep.
    fn record(&mut self, record: &Record) -> Result<Vec<String>, ExportError>;

    /// Ends the file, flushed.
    fn finish(self: Box<Self>) -> Result<(), ExportError>;
}

/// Why an export could not be written.
#[derive(Debug, thiserror::Error)]
#[error("the export cannot be written: {0}")]
pub struct ExportError(#[from] pub io::Error);

/// Something that is not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// The record, where it is one's.
    pub uid: Option<Uid>,
    /// Its title, or what else the loss belongs to.
    pub title: String,
    /// What is not kept; never a value.
    pub what: String,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}'", self.title.escape_debug())?;
        if let Some(uid) = &self.uid {
            write!(f, " ({uid})")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// A place in a file, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Where {
    /// The record's number, from 1; 0 outside of records.
    pub number: usize,
    /// Its identifier.
    pub uid: Option<String>,
    /// Its title.
    pub title: Option<String>,
    /// The field.
    pub field: Option<String>,
}

impl fmt::Display for Where {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            0 => f.write_str("the file")?,
            number => write!(f, "record {number}")?,
        }
        if let Some(title) = &self.title {
            write!(f, " '{}'", title.escape_debug())?;
        }
        if let Some(uid) = &self.uid {
            write!(f, " ({})", uid.escape_debug())?;
        }
        match &self.field {
            Some(field) => write!(f, ", {}", field.escape_debug()),
            None => Ok(()),
        }
    }
}

/// Why a file cannot be imported. Nothing of its values is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// The storage failed.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// Commander's export with attached files.
    #[error("this is a ZIP archive")]
    Archive,
    /// Not text.
    #[error("line {line} is not UTF-8 text")]
    NotText {
        /// Line, from 1.
        line: u64,
    },
    /// A KDBX file that is none, or a damaged one.
    #[error("this is no KDBX file that can be read: {0}")]
    NotKdbx(String),
    /// A KDBX file whose secrets would come out as something else.
    #[error("it holds an entry whose strings stand behind its history, where they cannot be decrypted")]
    Disordered,
    /// A KDBX file that another passphrase or key file opens.
    #[error("the passphrase or key file does not open it")]
    WrongKey,
    /// Not JSON.
    #[error("this is not JSON: line {line}, column {column}")]
    Syntax {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// One object with the same key twice.
    #[error("a key is there twice: line {line}, column {column}")]
    DuplicateKey {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// JSON, but neither a record nor a list of them.
    #[error("this is neither an export of Keeper nor a record nor a list of records")]
    NotRecords,
    /// A value of another kind than belongs there.
    #[error("{at}: {wanted} belongs here")]
    Shape {
        /// Where.
        at: Box<Where>,
        /// What belongs there.
        wanted: &'static str,
    },
    /// A record that cannot stand in a vault.
    #[error("{at}: {error}")]
    Record {
        /// Where.
        at: Box<Where>,
        /// Why.
        error: RecordError,
    },
    /// Two records with one identifier.
    #[error("{at}: record {first} has the same UID")]
    DuplicateUid {
        /// The second.
        at: Box<Where>,
        /// The first one's number.
        first: usize,
    },
    /// No identifier could be made for a record without one.
    #[error("{0}")]
    NoRandomness(PolicyError),
    /// Whoever takes the records takes no more.
    #[error("the records are not taken")]
    Stopped,
}

impl ImportError {
    fn of_file(field: &str, wanted: &'static str) -> Self {
        Self::Shape { at: Box::new(Where { field: Some(field.to_owned()), ..Where::default() }), wanted }
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "name a file that can be read, or - for standard input",
            Self::NotText { .. } => "save it as UTF-8",
            Self::NotKdbx(_) => "name a database of KeePass 2 or KeePassXC; open and save it there where it is older",
            Self::Disordered => "save it once with KeePassXC or KeePass, which put them before it",
            Self::WrongKey => "name the right ones with --kdbx-passphrase-file and --kdbx-key-file",
            Self::Archive => "unzip -p FILE export.json | turnlock import keeper -",
            Self::Syntax { .. } => "export again, or mend that line",
            Self::DuplicateKey { .. } => "keep one of the two",
            Self::NotRecords => "use the file that Commander's 'export --format json' writes",
            Self::Shape { .. } | Self::Record { .. } => "mend that record in the file, or leave it out",
            Self::DuplicateUid { .. } => "keep one of the two records",
            Self::NoRandomness(_) | Self::Stopped => "try again",
        }
    }
}

/// What every format does with the records it reads: counts them, gives those
/// without a UID one, refuses what cannot stand in a vault or is there twice.
struct Intake<'a> {
    sink: &'a mut dyn Sink,
    random: &'a mut dyn RandomSource,
    number: usize,
    /// The first record of each UID, by a digest of it: few bytes a record.
    seen: HashMap<[u8; 16], usize>,
    nameless: usize,
}

impl<'a> Intake<'a> {
    fn new(sink: &'a mut dyn Sink, random: &'a mut dyn RandomSource) -> Self {
        Self { sink, random, number: 0, seen: HashMap::new(), nameless: 0 }
    }

    fn next_number(&mut self) -> usize {
        self.number += 1;
        self.number
    }

    fn new_uid(&mut self) -> Result<Uid, ImportError> {
        self.nameless += 1;
        generate::uid(self.random).map_err(ImportError::NoRandomness)
    }

    /// Ends a file.
    fn finish(&mut self) {
        let count = self.nameless;
        if count > 0 {
            self.lost(
                "the file",
                &format!("which records they are: {count} without a UID will be new ones at every import"),
            );
        }
    }

    fn lost(&mut self, title: &str, what: &str) {
        self.sink.loss(Loss { uid: None, title: title.to_owned(), what: what.to_owned() });
    }

    fn take(&mut self, record: Record, at: Where, losses: Vec<String>) -> Result<(), ImportError> {
        record.validate().map_err(|error| ImportError::Record { at: Box::new(at.clone()), error })?;
        if let Some(first) = self.seen.insert(digest(record.uid.as_str()), at.number) {
            return Err(ImportError::DuplicateUid { at: Box::new(at), first });
        }
        for what in losses {
            self.sink.loss(Loss { uid: Some(record.uid.clone()), title: record.title.clone(), what });
        }
        self.sink.record(record).map_err(|Stopped| ImportError::Stopped)
    }
}

/// What is read where an object in Commander's form was written.
fn reread(node: Node) -> Option<(Record, Vec<String>)> {
    struct Nothing;
    impl Sink for Nothing {
        fn record(&mut self, _: Record) -> Result<(), Stopped> {
            Err(Stopped)
        }
        fn loss(&mut self, _: Loss) {}
    }
    let (mut sink, mut random) = (Nothing, generate::SystemRandom);
    let (record, _, losses) = Intake::new(&mut sink, &mut random).read(node).ok()?;
    Some((record, losses))
}

/// A text file without the mark that some editors put before it.
fn text(source: impl Read) -> Result<impl BufRead, ImportError> {
    let mut source = BufReader::with_capacity(1 << 16, source);
    let beginning = source.fill_buf().map_err(|error| ImportError::Unreadable(error.to_string()))?;
    if beginning.starts_with(b"PK\x03\x04") {
        return Err(ImportError::Archive);
    }
    if beginning.starts_with(b"\xef\xbb\xbf") {
        source.consume(3);
    }
    Ok(source)
}

/// Enough of a digest to tell texts apart.
fn digest(text: &str) -> [u8; 16] {
    let mut short = [0; 16];
    short.iter_mut().zip(Sha256::digest(text)).for_each(|(to, from)| *to = from);
    short
}

/// A sink that keeps everything, for tests.
#[cfg(test)]
#[derive(Debug, Default)]
struct Imported {
    records: Vec<Record>,
    losses: Vec<Loss>,
}

#[cfg(test)]
impl Sink for Imported {
    fn record(&mut self, record: Record) -> Result<(), Stopped> {
        self.records.push(record);
        Ok(())
    }

    fn loss(&mut self, loss: Loss) {
        self.losses.push(loss);
    }
}
