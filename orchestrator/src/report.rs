//! Everything that is printed: tables and sentences for people, JSON for
//! machines. The only file that prints.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::config;
use crate::failure::Failure;
use crate::fleet::{Job, Tally};
use crate::log::{Level, Log};
use crate::rotate::Rotated;

/// How to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Tables and sentences.
    Human,
    /// One JSON value, or one a line for lists that grow.
    Json,
}

/// Speaks to whoever called.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    format: Format,
    color: bool,
    quiet: bool,
    log: Log,
    progress: Arc<Mutex<Option<ProgressBar>>>,
    lost: Arc<AtomicBool>,
}

impl Report {
    /// Answers in this format, and logs; colour only on a terminal.
    pub(crate) fn new(format: Format, log: Log) -> Self {
        let for_people = format == Format::Human && log.is_for_people();
        let color = for_people && io::stderr().is_terminal() && !config::no_color();
        let quiet = !log.wants(Level::Info) || !log.is_for_people();
        Self { format, color, quiet, log, progress: Arc::default(), lost: Arc::default() }
    }

    /// Whether a program reads the answer.
    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Whether standard output is a person's terminal.
    pub(crate) fn stdout_is_terminal(&self) -> bool {
        io::stdout().is_terminal()
    }

    /// Writes one JSON value on one line, or for people the sentence.
    pub(crate) fn answer(&self, value: &impl Serialize, sentence: impl FnOnce() -> String) {
        match self.format {
            Format::Json => self.raw(&serde_json::to_string(value).unwrap_or_default()),
            Format::Human => self.raw(&harmless(&sentence())),
        }
    }

    /// Writes rows: as a table for people, as one JSON object a line for machines.
    pub(crate) fn rows<R: Serialize>(
        &self,
        headings: &[&str],
        rows: &[R],
        cells: impl Fn(&R) -> Vec<String>,
        none: &str,
    ) {
        match self.format {
            Format::Json => {
                for row in rows {
                    self.raw(&serde_json::to_string(row).unwrap_or_default());
                }
            }
            Format::Human if rows.is_empty() => self.note(none),
            Format::Human => {
                let mut table = Table::new();
                table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
                table.set_header(headings.iter().map(|heading| heading.to_uppercase()));
                for row in rows {
                    table.add_row(cells(row).iter().map(|cell| harmless(cell)));
                }
                self.raw(&table.trim_fmt());
            }
        }
    }

    /// Writes a text to standard output as it is.
    pub(crate) fn raw(&self, text: &str) {
        self.suspended(|| {
            let written = writeln!(io::stdout().lock(), "{text}");
            // A reader that went away (`| head`) is no failure of ours.
            if written.is_err_and(|error| error.kind() != io::ErrorKind::BrokenPipe) {
                self.lost.store(true, Ordering::Relaxed);
            }
        });
    }

    /// Whether an answer could not be written, although somebody waits for it.
    pub(crate) fn has_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Writes a line whose loss must not go unnoticed: a full disk is told. A
    /// reader that went away has what it wanted.
    pub(crate) fn deliver(&self, text: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        match writeln!(out, "{text}").and_then(|()| out.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(unwritable(&error)),
            _ => Ok(()),
        }
    }

    /// Writes bytes to standard output as they are, without a line end.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> io::Result<()> {
        self.stdout().write_all(bytes)
    }

    /// Standard output itself, for an answer that is longer than memory.
    pub(crate) fn stdout(&self) -> impl Write {
        io::stdout().lock()
    }

    /// Says something on standard error that is no result.
    pub(crate) fn note(&self, text: &str) {
        self.tell(Level::Info, &harmless(text), &Map::new());
    }

    /// Says something that must not be overlooked.
    pub(crate) fn warn(&self, text: &str) {
        if !self.log.is_for_people() {
            self.tell(Level::Warn, &harmless(text), &Map::new());
        } else if self.log.wants(Level::Warn) {
            self.err(&format!("{} {}", self.paint("33", "warning:"), harmless(text)));
        }
    }

    /// Tells why something was not done, what is true now, and what to do.
    pub(crate) fn failure(&self, failure: &Failure) {
        // What a program cannot be told, a person is.
        if self.format == Format::Json && self.deliver(&failure_json(failure).to_string()).is_ok() {
            return;
        }
        if !self.log.is_for_people() {
            self.tell(Level::Error, &harmless(&failure.message), &failure_fields(failure));
            return;
        }
        self.err(&format!("{} {}", self.paint("31", "error:"), harmless(&failure.message)));
        for cause in &failure.causes {
            self.err(&format!("  caused by: {}", harmless(cause)));
        }
        if !failure.usage {
            self.err(&format!("  state: {}", failure.truth()));
        }
        if let Some(hint) = &failure.hint {
            self.err(&format!("  {} {}", self.paint("36", "hint:"), harmless(hint)));
        }
    }

    /// Tells of a record that was rotated.
    pub(crate) fn rotated(&self, rotated: &Rotated) {
        if self.format == Format::Json {
            let value = json!({"record": rotated.uid, "title": rotated.title, "account": rotated.account,
                "outcome": "rotated", "verified": rotated.verified, "warnings": rotated.warnings,
                "finish_open": rotated.finish_open, "hooks_open": rotated.hooks_open});
            self.raw(&value.to_string());
            return;
        }
        if !self.log.is_for_people() {
            let fields = json!({"record": rotated.uid, "title": rotated.title, "account": rotated.account,
                "verified": rotated.verified, "warnings": rotated.warnings, "finish_open": rotated.finish_open,
                "hooks_open": rotated.hooks_open});
            self.tell(Level::Info, "rotated", &fields.as_object().cloned().unwrap_or_default());
            return;
        }
        let proof = if rotated.verified { "proven by a new log-in" } else { "not proven: this target cannot be asked" };
        let what = harmless(&format!("{}  {}", rotated.title, rotated.account));
        self.raw(&format!("{} {what}  ({proof})", self.paint_out("32", "rotated")));
        for warning in &rotated.warnings {
            self.warn(&format!("{}: {warning}", rotated.title));
        }
    }

    /// Tells of a record of a fleet on which something was not done.
    pub(crate) fn failed(&self, job: &Job, failure: &Failure, outcome: &str) {
        if self.format == Format::Json {
            let mut value = failure_json(failure);
            if let Some(value) = value.as_object_mut() {
                value.insert("record".to_owned(), json!(job.uid));
                value.insert("title".to_owned(), json!(job.title));
                value.insert("outcome".to_owned(), json!(outcome));
            }
            self.raw(&value.to_string());
            return;
        }
        if self.log.is_for_people() {
            self.failure(failure);
            return;
        }
        let mut fields = failure_fields(failure);
        fields.insert("record".to_owned(), json!(job.uid));
        fields.insert("title".to_owned(), json!(job.title));
        self.tell(Level::Error, &harmless(&failure.message), &fields);
    }

    /// Tells what came of a fleet, and where it was in trouble.
    pub(crate) fn tally(&self, tally: &Tally, tried_again: u64) {
        if self.format == Format::Json {
            return;
        }
        let seconds = tally.took().as_secs_f64().max(0.001);
        let mut counts = format!("{} of {} done, {} failed", tally.done, tally.ended(), tally.failed);
        for (count, what) in [(tally.not_tried, "not tried"), (tried_again, "tried again")] {
            if count > 0 {
                counts.push_str(&format!(", {count} {what}"));
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = tally.ended() as f64 / seconds;
        self.note(&format!("{counts}, in {seconds:.1} s ({rate:.1}/s)"));
        let mut table = Table::new();
        table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header(["TARGET", "FAILED", "NOT TRIED", "WHY"]);
        for (site, trouble) in tally.troubles() {
            let (failed, not_tried) = (trouble.failed.to_string(), trouble.not_tried.to_string());
            table.add_row([harmless(&site.to_string()), failed, not_tried, harmless(&trouble.why)]);
        }
        if table.row_count() > 0 {
            self.note(&table.trim_fmt());
        }
    }

    /// Shows that something is going on: a spinner, or with a count a bar.
    pub(crate) fn begin_progress(&self, count: Option<u64>) {
        if self.format == Format::Json || self.quiet || !io::stderr().is_terminal() {
            return;
        }
        let bar = match count {
            Some(count) => ProgressBar::new(count),
            None => ProgressBar::new_spinner(),
        };
        let bar = MultiProgress::with_draw_target(ProgressDrawTarget::stderr()).add(bar);
        let template =
            if count.is_some() { "{bar:30} {pos}/{len}  {per_sec}  {eta} left  {msg}" } else { "{spinner} {msg}" };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        if let Ok(mut progress) = self.progress.lock() {
            *progress = Some(bar);
        }
    }

    /// What is being done now.
    pub(crate) fn step(&self, title: &str, step: &str) {
        if self.log.wants(Level::Debug) {
            let fields = json!({"title": title, "step": step});
            let line = harmless(&format!("{title}: {step}"));
            self.tell(Level::Debug, &line, &fields.as_object().cloned().unwrap_or_default());
        }
        if let Ok(progress) = self.progress.lock()
            && let Some(bar) = progress.as_ref()
        {
            bar.set_message(format!("{title}: {step}"));
        }
    }

    /// One more of the count is done.
    pub(crate) fn advance(&self) {
        if let Ok(progress) = self.progress.lock()
            && let Some(bar) = progress.as_ref()
        {
            bar.inc(1);
        }
    }

    /// Takes the spinner or bar away.
    pub(crate) fn end_progress(&self) {
        if let Ok(mut progress) = self.progress.lock()
            && let Some(bar) = progress.take()
        {
            bar.finish_and_clear();
        }
    }

    /// One line of the log, with what programs look for.
    fn tell(&self, level: Level, message: &str, fields: &Map<String, Value>) {
        if self.log.wants(level)
            && let Some(line) = self.log.line(level, message, fields)
        {
            self.err(&line);
        }
    }

    fn err(&self, text: &str) {
        self.suspended(|| {
            let _ = writeln!(io::stderr().lock(), "{text}");
        });
    }

    fn suspended(&self, write: impl FnOnce()) {
        match self.progress.lock() {
            Ok(progress) => match progress.as_ref() {
                Some(bar) => bar.suspend(write),
                None => write(),
            },
            Err(_) => write(),
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code};1m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn paint_out(&self, code: &str, text: &str) -> String {
        if self.color && io::stdout().is_terminal() { self.paint(code, text) } else { text.to_owned() }
    }
}

/// Nobody will read what was to be read.
pub(crate) fn unwritable(error: &io::Error) -> Failure {
    Failure::new("standard output cannot be written").caused_by(error).hint("free the disk it goes to, then repeat")
}

/// A text without control characters: titles and server messages come from
/// elsewhere and shall not drive the terminal.
fn harmless(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let shown: Box<dyn Iterator<Item = char>> = match c {
                '\n' | '\t' => Box::new(std::iter::once(c)),
                c if c.is_control() => Box::new(c.escape_default()),
                c => Box::new(std::iter::once(c)),
            };
            shown
        })
        .collect()
}

fn failure_json(failure: &Failure) -> serde_json::Value {
    json!({"error": failure.message, "state": failure.state, "kind": failure.kind, "causes": failure.causes,
        "hint": failure.hint, "exit_status": failure.exit_status()})
}

/// What a log says of a failure besides its message.
fn failure_fields(failure: &Failure) -> Map<String, Value> {
    let fields = failure_json(failure).as_object().cloned().unwrap_or_default();
    fields.into_iter().filter(|(name, _)| name != "error").collect()
}

/// Prints what cannot wait for a report: a panic's place, never its payload.
pub(crate) fn bug(place: &str) {
    let _ =
        writeln!(io::stderr().lock(), "bug: panic at {place}: please report it; turnlock recover settles what is open");
}
