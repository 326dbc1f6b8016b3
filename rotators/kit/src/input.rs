//! Standard input, line by line, without keeping copies.

use std::io::{self, BufRead, Read};

use tokio::sync::mpsc;
use turnlock_protocol::MAX_LINE;
use zeroize::Zeroizing;

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
pub(crate) fn lines() -> mpsc::UnboundedReceiver<Line> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        loop {
            // Sized so that it does not grow, and leave copies behind, for any usual message.
            let mut line = Zeroizing::new(Vec::with_capacity(16 * 1024));
            let limit = MAX_LINE as u64 + 2;
            match stdin.by_ref().take(limit).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            if line.last() == Some(&b'\n') {
                line.pop();
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
            }
            let too_long = line.len() > MAX_LINE;
            let message = if too_long {
                Line::TooLong
            } else {
                Line::Text(line)
            };
            if sender.send(message).is_err() || too_long {
                return;
            }
        }
    });
    receiver
}

/// Everything on standard input, for one-shot mode.
pub(crate) fn everything() -> io::Result<Zeroizing<Vec<u8>>> {
    let mut text = Zeroizing::new(Vec::with_capacity(64 * 1024));
    io::stdin()
        .lock()
        .take(MAX_LINE as u64 + 1)
        .read_to_end(&mut text)?;
    if text.len() > MAX_LINE {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the params are larger than 1 MiB",
        ));
    }
    Ok(text)
}
