//! Buffers that leave no copy of a secret behind: a vector that grows by
//! itself frees its old memory as it is.

use std::io::{self, Write};

use serde::Serialize;
use zeroize::Zeroizing;

/// Bytes that are cleared when they are dropped and whenever they move.
#[derive(Debug)]
pub(crate) struct Cleared(Zeroizing<Vec<u8>>);

impl Cleared {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self(Zeroizing::new(Vec::with_capacity(capacity)))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        let needed = self.0.len() + bytes.len();
        if needed > self.0.capacity() {
            let capacity = needed.max(self.0.capacity() * 2);
            let mut bigger = Zeroizing::new(Vec::with_capacity(capacity));
            bigger.extend_from_slice(&self.0);
            self.0 = bigger;
        }
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn into_bytes(self) -> Zeroizing<Vec<u8>> {
        self.0
    }
}

impl Write for Cleared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A value as JSON.
pub(crate) fn json(value: &impl Serialize) -> serde_json::Result<Zeroizing<Vec<u8>>> {
    let mut buffer = Cleared::with_capacity(4096);
    serde_json::to_writer(&mut buffer, value)?;
    Ok(buffer.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_in_parts_comes_out_whole() {
        let mut buffer = Cleared::with_capacity(3);
        for part in ["ab", "", "cdefgh", "i"] {
            buffer.extend(part.as_bytes());
        }
        assert_eq!(buffer.len(), 9);
        assert_eq!(buffer.into_bytes().as_slice(), b"abcdefghi");
    }
}
