//! Standard input, line by line, without keeping copies.

use std::io::{self, Read};
use std::ops::Range;

use tokio::sync::mpsc;
use turnlock_protocol::MAX_LINE;
use zeroize::Zeroizing;

use crate::cleared::Cleared;
use crate::system;

/// Lines read ahead of the one being worked on. A host that floods its rotator
/// waits at its own end of the pipe.
const AHEAD: usize = 8;

/// One line, its line end removed; or why there is none.
#[derive(Debug)]
pub(crate) enum Line {
    /// A line.
    Text(Zeroizing<Vec<u8>>),
    /// Longer than the protocol allows; nothing after it can be trusted.
    TooLong,
}

/// Reads lines on a thread of its own: standard input can be a file, a pipe or
/// a terminal, and only a thread reads them all alike. The channel closes at
/// the end of input.
pub(crate) fn lines() -> mpsc::Receiver<Line> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    std::thread::spawn(move || {
        let mut lines = Lines::of(Stdin);
        while let Some(line) = lines.next() {
            let last = matches!(line, Line::TooLong);
            if sender.blocking_send(line).is_err() || last {
                return;
            }
        }
    });
    receiver
}

/// Everything on standard input, for one-shot mode.
pub(crate) fn everything() -> io::Result<Zeroizing<Vec<u8>>> {
    let mut text = Cleared::with_capacity(64 * 1024);
    let mut chunk = Zeroizing::new(vec![0; 16 * 1024]);
    loop {
        let read = match Stdin.read(&mut chunk) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
            Ok(0) => return Ok(text.into_bytes()),
            Ok(read) => read,
        };
        text.extend(chunk.get(..read).unwrap_or_default());
        if text.len() > MAX_LINE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the params are larger than 1 MiB"));
        }
    }
}

/// Standard input without the buffer that std keeps for it and never clears.
struct Stdin;

impl Read for Stdin {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        system::read_stdin(buffer)
    }
}

struct Lines<R> {
    from: R,
    chunk: Zeroizing<Vec<u8>>,
    held: Range<usize>,
}

impl<R: Read> Lines<R> {
    fn of(from: R) -> Self {
        Self { from, chunk: Zeroizing::new(vec![0; 16 * 1024]), held: 0..0 }
    }

    /// The next line; none at the end, also where the end cuts a line off: a
    /// message ends with its line end.
    fn next(&mut self) -> Option<Line> {
        let mut line = Cleared::with_capacity(16 * 1024);
        loop {
            if self.held.is_empty() {
                match self.from.read(&mut self.chunk) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Ok(0) | Err(_) => return None,
                    Ok(read) => self.held = 0..read,
                }
            }
            let held = self.chunk.get(self.held.clone()).unwrap_or_default();
            let end = held.iter().position(|byte| *byte == b'\n');
            let part = held.get(..end.unwrap_or(held.len())).unwrap_or_default();
            line.extend(part);
            self.held.start += part.len() + usize::from(end.is_some());
            if end.is_some() {
                let mut line = line.into_bytes();
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return Some(if line.len() > MAX_LINE { Line::TooLong } else { Line::Text(line) });
            }
            // One more byte may be the CR of its line end.
            if line.len() > MAX_LINE + 1 {
                return Some(Line::TooLong);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8]) -> Vec<Option<Vec<u8>>> {
        let mut lines = Lines::of(text);
        std::iter::from_fn(|| lines.next())
            .map(|line| match line {
                Line::Text(text) => Some(text.to_vec()),
                Line::TooLong => None,
            })
            .collect()
    }

    #[test]
    fn lines_end_with_lf_or_crlf_and_a_line_cut_off_is_none() {
        assert_eq!(all(b"one\ntwo\r\n\nthr"), [Some(b"one".to_vec()), Some(b"two".to_vec()), Some(Vec::new())]);
    }

    #[test]
    fn the_longest_line_passes_and_one_more_byte_does_not() {
        for (end, more, passes) in [("\n", 0, true), ("\r\n", 0, true), ("\n", 1, false), ("\r\n", 1, false)] {
            let mut text = vec![b'x'; MAX_LINE + more];
            text.extend_from_slice(end.as_bytes());
            let lines = all(&text);
            assert_eq!(lines.first().is_some_and(Option::is_some), passes, "{end:?} {more}");
        }
        assert_eq!(all(&vec![b'x'; MAX_LINE + 2]).first(), Some(&None));
    }
}
