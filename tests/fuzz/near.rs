//! Bytes near those that somebody might send: a file of a corpus with a few
//! edits. A file is added to the corpus when it has found something.

use std::fs;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// What turns one meaning into another.
const WORDS: [&str; 24] = [
    "\n",
    "\r\n",
    "\0",
    "\u{feff}",
    "\u{1b}[2J",
    "\"",
    "\\",
    "\\u0000",
    "\\ud800",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "null",
    "true",
    "-1",
    "0",
    "1e999",
    "18446744073709551616",
    "\"id\":7",
    "\"result\":null",
    "\"method\":\"threshold\"",
];

#[derive(Debug, Clone)]
enum Edit {
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Word(Index, &'static str),
    Cut(Index, usize),
    Repeat(Index, usize),
    Splice(Index, Index, Index),
}

/// A file of a folder of the repository, with up to eight edits.
pub(crate) fn near(folder: &str) -> impl Strategy<Value = Vec<u8>> + use<> {
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().find(|path| path.join("PROTOCOL.md").is_file()).unwrap();
    let mut files: Vec<_> = fs::read_dir(root.join(folder)).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let corpus: Vec<Vec<u8>> = files.iter().filter(|file| file.is_file()).map(|file| fs::read(file).unwrap()).collect();
    assert!(!corpus.is_empty(), "{folder} holds no corpus");
    let edit = prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Edit::Flip(at, byte)),
        (any::<Index>(), vec(any::<u8>(), 1..8)).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        (any::<Index>(), select(&WORDS[..])).prop_map(|(at, word)| Edit::Word(at, word)),
        (any::<Index>(), 1usize..40).prop_map(|(at, length)| Edit::Cut(at, length)),
        (any::<Index>(), 1usize..40).prop_map(|(at, length)| Edit::Repeat(at, length)),
        (any::<Index>(), any::<Index>(), any::<Index>()).prop_map(|(at, file, from)| Edit::Splice(at, file, from)),
    ];
    (any::<Index>(), vec(edit, 0..8)).prop_map(move |(file, edits)| {
        let mut bytes = file.get(&corpus).clone();
        for edit in edits {
            edit.make(&mut bytes, &corpus);
        }
        bytes
    })
}

impl Edit {
    fn make(self, bytes: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let place = |at: Index, bytes: &[u8]| at.index(bytes.len() + 1);
        let part = |at: Index, length: usize, bytes: &[u8]| {
            let start = place(at, bytes);
            start..(start + length).min(bytes.len())
        };
        match self {
            Self::Flip(at, byte) => {
                let at = place(at, bytes);
                if let Some(there) = bytes.get_mut(at) {
                    *there ^= byte;
                }
            }
            Self::Insert(at, more) => {
                let at = place(at, bytes);
                bytes.splice(at..at, more);
            }
            Self::Word(at, word) => {
                let at = place(at, bytes);
                bytes.splice(at..at, word.bytes());
            }
            Self::Cut(at, length) => {
                let part = part(at, length, bytes);
                bytes.drain(part);
            }
            Self::Repeat(at, length) => {
                let part = part(at, length, bytes);
                let (again, end) = (bytes[part.clone()].to_vec(), part.end);
                bytes.splice(end..end, again);
            }
            Self::Splice(at, file, from) => {
                let other = file.get(corpus);
                let at = place(at, bytes);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[place(from, other)..]);
            }
        }
    }
}
