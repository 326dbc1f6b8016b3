//! The lab's one error: a sentence for the person who reads a failed test.

use std::{fmt, io};

/// A sentence that says what the lab could not do, and why.
pub struct LabError(String);

/// What every step in the lab returns.
pub type Result<T, E = LabError> = std::result::Result<T, E>;

impl LabError {
    /// An error that says `sentence`.
    pub fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }
}

impl fmt::Display for LabError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// Tests unwrap, and `unwrap` prints `Debug`: the sentence should survive it with its line breaks.
impl fmt::Debug for LabError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LabError {}

/// Turns an I/O error into a sentence that names what was being done.
pub(crate) trait Context<T> {
    /// `could not <what>: <the system's reason>`
    fn could_not(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn could_not(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| LabError::new(format!("could not {}: {error}", what())))
    }
}
