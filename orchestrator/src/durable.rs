//! Writing a file so that it is either the old one or the new one, whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Replaces a file: temporary file beside it with mode 0600, fsync, rename,
/// fsync of the directory.
///
/// # Errors
/// What the file system says; the old file is untouched then.
pub fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    replace(path, 0o600, |file| file.write_all(content))
}

/// The same for a content that is not held as a whole.
///
/// # Errors
/// What the file system or the writing says; the old file is untouched then.
pub fn write_with(path: &Path, content: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    replace(path, 0o600, content)
}

/// The same for a file that everybody may read.
///
/// # Errors
/// Like [`write()`].
pub fn write_for_all(path: &Path, content: &[u8]) -> io::Result<()> {
    replace(path, 0o644, |file| file.write_all(content))
}

fn replace(path: &Path, mode: u32, content: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no file name"))?;
    let mut number = [0u8; 8];
    getrandom::fill(&mut number).map_err(|error| io::Error::other(error.to_string()))?;
    let temporary = directory.join(format!(".{}.{:016x}", name.to_string_lossy(), u64::from_le_bytes(number)));
    let written = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary).and_then(|mut file| {
        let mut buffered = BufWriter::new(&mut file);
        content(&mut buffered)?;
        buffered.flush()?;
        drop(buffered);
        file.sync_all()
    });
    let replaced = written.and_then(|()| fs::rename(&temporary, path)).and_then(|()| File::open(directory)?.sync_all());
    if replaced.is_err() {
        // The error that matters is the first one.
        let _ = fs::remove_file(&temporary);
    }
    replaced
}
