//! Many records: a bounded number at once, gently to every target, and one
//! failure stops nobody else.
//!
//! ```text
//! selected → waits for its turn → ⟨ties, breaker, gates⟩ → flies → again later, or ended
//! ```
//!
//! `scheduler.rs` decides, without a clock and without waiting; [`Fleet::next`]
//! does what it says and gives back each record as it ends. What is known of a
//! fleet grows with the records that wait and the targets they are on, not with
//! those that have ended.

mod breaker;
mod gate;
mod rules;
mod scheduler;
mod selection;
mod tally;
mod ties;

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use self::scheduler::{Scheduler, Step};
use crate::failure::{Failure, State};
use crate::record::Uid;

pub use self::rules::{AtMost, Kindness, Rate, Rules};
pub use self::selection::{Selection, Turn as Due, Why, job_of, select, turn};
pub use self::tally::{Tally, Trouble};

/// Where an account is: what gentleness is owed to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Site {
    /// The plugin's name.
    pub plugin: String,
    /// The host; empty where the plugin has none.
    pub host: String,
    /// Its port, 0 where there is none.
    pub port: u16,
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.host.as_str(), self.port) {
            ("", _) => f.write_str(&self.plugin),
            (host, 0) => write!(f, "{} {host}", self.plugin),
            (host, port) if host.contains(':') => write!(f, "{} [{host}]:{port}", self.plugin),
            (host, port) => write!(f, "{} {host}:{port}", self.plugin),
        }
    }
}

/// One record that shall be worked on.
#[derive(Debug, Clone)]
pub struct Job {
    /// The record.
    pub uid: Uid,
    /// Its title.
    pub title: String,
    /// Where its account is.
    pub site: Arc<Site>,
    /// The record of the login that may reset it.
    pub admin: Option<Uid>,
    /// Why it was selected.
    pub why: Why,
}

/// One record that has ended.
#[derive(Debug)]
pub struct Ended<T> {
    /// What was to be done.
    pub job: Job,
    /// What came of it.
    pub outcome: Outcome<T>,
    /// How often it was begun.
    pub tries: u32,
}

/// One record on which nothing was done at the end.
type NotDone = Ended<std::convert::Infallible>;

impl NotDone {
    fn with_outcome<T>(self) -> Ended<T> {
        let outcome = match self.outcome {
            Outcome::Done(never) => match never {},
            Outcome::Failed(failure) => Outcome::Failed(failure),
            Outcome::NotTried(why) => Outcome::NotTried(why),
        };
        Ended { job: self.job, outcome, tries: self.tries }
    }
}

/// What came of a job.
#[derive(Debug)]
pub enum Outcome<T> {
    /// It was done.
    Done(T),
    /// It was tried and failed.
    Failed(Failure),
    /// It was not even begun; nothing changed.
    NotTried(NotTried),
}

/// Why a job was not even begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotTried {
    /// Somebody asked us to stop.
    Interrupted,
    /// More had failed than may.
    TooManyFailed,
    /// Its target did not answer others before it; what it said last.
    Target(Arc<str>),
}

impl NotTried {
    /// The same as a failure that names the record.
    pub fn failure(&self, job: &Job) -> Failure {
        let because = match self {
            Self::Interrupted => "interrupted before it began".to_owned(),
            Self::TooManyFailed => "more had failed than --max-failures allows".to_owned(),
            Self::Target(last) => format!("{} did not answer others before it ({last})", job.site),
        };
        Failure::new(format!("\"{}\" was not tried: {because}", job.title))
    }
}

/// What a fleet does with each record. Called again when it may be tried again.
pub type Work<T> = Arc<dyn Fn(&Job) -> Pin<Box<dyn Future<Output = Result<T, Failure>> + Send>> + Send + Sync>;

/// Jobs that are done as their rules allow.
pub struct Fleet<T> {
    scheduler: Scheduler,
    work: Work<T>,
    stop: CancellationToken,
    flying: JoinSet<Result<T, Failure>>,
    flights: HashMap<Id, u64>,
}

impl<T: Send + 'static> Fleet<T> {
    /// A fleet without a job. Nothing more begins once `stop` was cancelled.
    pub fn new(rules: Rules, stop: CancellationToken, work: Work<T>) -> Self {
        let scheduler = Scheduler::new(rules, Box::new(chance));
        Self { scheduler, work, stop, flying: JoinSet::new(), flights: HashMap::new() }
    }

    /// Adds a job, to begin when it may.
    pub fn push(&mut self, job: Job) {
        self.scheduler.push(job, Instant::now());
    }

    /// How often something was tried again so far.
    pub fn tried_again(&self) -> u64 {
        self.scheduler.tried_again()
    }

    /// Whether nothing waits and nothing flies.
    pub fn is_idle(&self) -> bool {
        self.scheduler.is_idle()
    }

    /// The next record that ends; none when nothing is left to do. A call that
    /// is dropped has lost nothing.
    pub async fn next(&mut self) -> Option<Ended<T>> {
        loop {
            if self.stop.is_cancelled() {
                self.scheduler.stop();
            }
            let until = match self.scheduler.step(Instant::now()) {
                Step::Idle => return None,
                Step::Wait(until) => until,
                Step::NotDone(not_done) => return Some(not_done.with_outcome()),
                Step::Begin(number, job) => {
                    let id = self.flying.spawn((self.work)(&job)).id();
                    self.flights.insert(id, number);
                    continue;
                }
            };
            let pause = async {
                match until {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(landed) = self.flying.join_next_with_id() => {
                    if let Some(ended) = self.land(landed) {
                        return Some(ended);
                    }
                }
                () = pause => {}
                () = self.stop.cancelled(), if !self.stop.is_cancelled() => {}
            }
        }
    }

    fn land(&mut self, landed: Result<(Id, Result<T, Failure>), JoinError>) -> Option<Ended<T>> {
        let (id, outcome) = landed.unwrap_or_else(|error| {
            // What it staged is settled by `recover`.
            let failure = Failure::new(format!("a job ended by itself: {error}"));
            (error.id(), Err(failure.state(State::Unknown).hint("turnlock recover")))
        });
        let number = self.flights.remove(&id)?;
        self.scheduler.land(number, outcome, Instant::now())
    }
}

/// A number from 0 to 1.
pub(crate) fn chance() -> f64 {
    let mut bytes = [0; 4];
    // Without randomness everybody waits for the whole time.
    if getrandom::fill(&mut bytes).is_err() {
        return 1.0;
    }
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}
