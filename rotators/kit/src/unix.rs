//! What the kit asks of a Unix.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// No core dump, and no debugger of the same user.
pub(crate) fn forbid_dumps() {
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
}

/// Takes standard output over: from now on descriptor 1 is standard error.
pub(crate) fn take_stdout() -> io::Result<File> {
    let kept = rustix::io::fcntl_dupfd_cloexec(io::stdout().as_fd(), 3)?;
    rustix::stdio::dup2_stdout(io::stderr().as_fd())?;
    Ok(File::from(kept))
}

/// Whether everything written is lost: `/dev/null`, which is also what a
/// process gets whose standard output was closed when it started.
pub(crate) fn is_lost(output: &File) -> bool {
    let lost = || -> io::Result<bool> {
        let found = output.metadata()?;
        let null = std::fs::metadata("/dev/null")?;
        Ok(found.file_type().is_char_device() && found.rdev() == null.rdev())
    };
    lost().unwrap_or(false)
}

/// Whether what is written can be made durable.
pub(crate) fn is_on_disk(output: &File) -> io::Result<bool> {
    Ok(output.metadata()?.is_file())
}

/// Reads standard input, and keeps no copy.
pub(crate) fn read_stdin(buffer: &mut [u8]) -> io::Result<usize> {
    Ok(rustix::io::read(rustix::stdio::stdin(), buffer)?)
}
