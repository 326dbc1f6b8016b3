//! What the kit asks of Windows.

#![expect(
    unsafe_code,
    reason = "std has no safe call for the five of Windows below; none of them takes a pointer to memory"
)]

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::os::windows::io::{AsHandle, AsRawHandle};

use windows_sys::Win32::Foundation::{HANDLE_FLAG_INHERIT, SetHandleInformation};
use windows_sys::Win32::Storage::FileSystem::{FILE_TYPE_DISK, FILE_TYPE_PIPE, GetFileType};
use windows_sys::Win32::System::Console::{STD_OUTPUT_HANDLE, SetStdHandle};
use windows_sys::Win32::System::Diagnostics::Debug::{
    SEM_FAILCRITICALERRORS, SEM_NOGPFAULTERRORBOX, SetErrorMode, THREAD_ERROR_MODE,
};
use windows_sys::Win32::System::ErrorReporting::{WER_FAULT_REPORTING_FLAG_NOHEAP, WerSetFlags};

/// No dialogue that waits for a person who is not there, and no report of a crash.
const QUIET: THREAD_ERROR_MODE = SEM_FAILCRITICALERRORS | SEM_NOGPFAULTERRORBOX;

/// A crash makes no report, or else one without the heap. Windows has no
/// counterpart of a process that cannot be dumped: an administrator who set up
/// LocalDumps gets them, and a debugger of the same user is not kept out.
pub(crate) fn forbid_dumps() {
    // SAFETY: takes a number and changes only how errors are reported.
    unsafe { SetErrorMode(QUIET) };
    // SAFETY: as above.
    let _ = unsafe { WerSetFlags(WER_FAULT_REPORTING_FLAG_NOHEAP) };
}

/// Takes standard output over: from now on it is standard error, for Rust and
/// for the programs that this one starts. The C runtime's descriptor 1 keeps
/// the old one, so a rotator must not link C code that prints.
pub(crate) fn take_stdout() -> io::Result<File> {
    let stdout = io::stdout();
    // The duplicate cannot be inherited, and no longer can the original.
    let kept = stdout.as_handle().try_clone_to_owned()?;
    // SAFETY: the handle is the process's own. A process without standard
    // output has nothing to inherit, and the refusal changes nothing.
    unsafe { SetHandleInformation(stdout.as_raw_handle(), HANDLE_FLAG_INHERIT, 0) };
    // SAFETY: standard error's handle is never closed, so it stays valid under its second name.
    match unsafe { SetStdHandle(STD_OUTPUT_HANDLE, io::stderr().as_raw_handle()) } {
        0 => Err(io::Error::last_os_error()),
        _ => Ok(File::from(kept)),
    }
}

/// Whether everything written is lost: `NUL`, or no standard output at all.
/// Other devices than a console count as lost, too.
pub(crate) fn is_lost(output: &File) -> bool {
    !matches!(kind(output), FILE_TYPE_DISK | FILE_TYPE_PIPE) && !output.is_terminal()
}

/// Whether what is written can be made durable. Flushing a pipe would wait
/// for its reader.
pub(crate) fn is_on_disk(output: &File) -> io::Result<bool> {
    Ok(kind(output) == FILE_TYPE_DISK)
}

/// Reads standard input, and keeps no copy. A console's input comes in its own code page.
pub(crate) fn read_stdin(buffer: &mut [u8]) -> io::Result<usize> {
    File::from(io::stdin().as_handle().try_clone_to_owned()?).read(buffer)
}

fn kind(output: &File) -> u32 {
    // SAFETY: the handle is borrowed from an open file for the length of the call.
    unsafe { GetFileType(output.as_raw_handle()) }
}

#[cfg(test)]
mod tests {
    use windows_sys::Win32::System::Diagnostics::Debug::GetErrorMode;

    use super::*;

    #[test]
    fn a_crash_is_not_reported() {
        forbid_dumps();
        // SAFETY: only reads.
        assert_eq!(unsafe { GetErrorMode() } & QUIET, QUIET);
    }

    #[test]
    fn a_device_that_keeps_nothing_is_told_from_a_file_and_a_pipe() {
        let null = File::options().write(true).open("NUL").unwrap();
        assert!(is_lost(&null) && !is_on_disk(&null).unwrap());
        let file = tempfile::tempfile().unwrap();
        assert!(!is_lost(&file) && is_on_disk(&file).unwrap());
        let (_reader, writer) = io::pipe().unwrap();
        let pipe = File::from(std::os::windows::io::OwnedHandle::from(writer));
        assert!(!is_lost(&pipe) && !is_on_disk(&pipe).unwrap());
    }
}
