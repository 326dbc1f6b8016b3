//! The rotator with every log line of every library on standard error: a test
//! looks for secrets in them. The program itself installs no logger at all.

use std::io::Write;
use std::process::ExitCode;

use log::{LevelFilter, Log, Metadata, Record};

struct Everything;

impl Log for Everything {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &Record<'_>) {
        // Nobody is left to be told that standard error is gone.
        let _ = writeln!(std::io::stderr(), "{} {}: {}", record.level(), record.target(), record.args());
    }
    fn flush(&self) {}
}

fn main() -> ExitCode {
    if log::set_logger(&Everything).is_ok() {
        log::set_max_level(LevelFilter::Trace);
    }
    turnlock_kit::run::<turnlock_awspswd::AwsPswd>()
}
