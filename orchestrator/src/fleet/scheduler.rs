//! Who begins next. Pure: whoever asks says what time it is and does the work,
//! so that a test turns the clock.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::breaker::Breaker;
use super::gate::Gates;
use super::ties::Ties;
use super::{Ended, Job, NotDone, NotTried, Outcome, Rules, Site};
use crate::failure::{Failure, State};

/// How often one record is tried again in one run.
const TRIES_AGAIN: u32 = 3;
/// How long it waits before that at first; each time twice as long…
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// …but not longer than this, unless the target asked for it.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A fleet may try again so often in all, and once more for every tenth record.
/// More would double the load on what is already in trouble.
const TRIES_AGAIN_IN_ALL: u64 = 10;

/// A number from 0 to 1, another one each time.
pub(super) type Chance = Box<dyn FnMut() -> f64 + Send>;

/// What waits, what flies, and what is believed of targets.
pub(super) struct Scheduler {
    rules: Rules,
    chance: Chance,
    stopped: bool,
    targets: Vec<Target>,
    known: HashMap<Arc<Site>, usize>,
    gates: Gates,
    /// Targets that something waits for, each once, in the order of their
    /// turns; apart for each plugin, so that one that must wait is passed over
    /// at once.
    turns: VecDeque<Turns>,
    /// Targets that are left alone until an instant.
    resting: BinaryHeap<Reverse<(Instant, usize)>>,
    later: BinaryHeap<Reverse<Later>>,
    ties: Ties,
    flights: HashMap<u64, Flight>,
    begun: u64,
    total: u64,
    failed: u64,
    tried_again: u64,
}

/// The targets of one plugin whose turn will come.
struct Turns {
    plugin: usize,
    targets: VecDeque<usize>,
}

/// One target, and what waits for it.
struct Target {
    waiting: VecDeque<Waiting>,
    /// It has its place in the turns, or rests.
    in_line: bool,
    flying: usize,
    breaker: Breaker,
    host: usize,
    plugin: usize,
}

/// A job that is to begin.
pub(super) struct Waiting {
    pub(super) job: Job,
    tries: u32,
    /// How it failed, when it is tried again.
    last: Option<Box<Failure>>,
    /// It is part of a circle of admins, which it breaks.
    pub(super) breaks_a_circle: bool,
}

/// A job that must not begin yet.
struct Later {
    at: Instant,
    number: u64,
    waiting: Waiting,
}

/// A job that has begun.
struct Flight {
    waiting: Waiting,
    target: usize,
}

/// What is to be done next.
pub(super) enum Step {
    /// Begin this job, and say under this number how it ended.
    Begin(u64, Job),
    /// Tell of this one.
    NotDone(NotDone),
    /// Wait for one to end, or until then.
    Wait(Option<Instant>),
    /// Nothing is left.
    Idle,
}

/// What one plugin's turn came to.
enum Turn {
    Step(Step),
    /// Somebody had it, and waits for somebody else now.
    Again,
    NotBefore(Instant),
    Nobody,
}

/// Whether something may begin.
pub(super) enum May {
    /// Now.
    Begin,
    /// Never: this is what the target said last.
    Never(Arc<str>),
    /// Not before then.
    NotBefore(Instant),
    /// When another one has ended.
    NotYet,
}

impl Scheduler {
    pub(super) fn new(rules: Rules, chance: Chance) -> Self {
        Self {
            gates: Gates::new(&rules),
            rules,
            chance,
            stopped: false,
            targets: Vec::new(),
            known: HashMap::new(),
            turns: VecDeque::new(),
            resting: BinaryHeap::new(),
            later: BinaryHeap::new(),
            ties: Ties::default(),
            flights: HashMap::new(),
            begun: 0,
            total: 0,
            failed: 0,
            tried_again: 0,
        }
    }

    /// Adds a job, to begin when it may and at a moment of its own.
    pub(super) fn push(&mut self, job: Job, now: Instant) {
        self.total += 1;
        self.ties.expect(&job);
        let waiting = Waiting { job, tries: 0, last: None, breaks_a_circle: false };
        match self.rules.jitter.mul_f64((self.chance)()) {
            Duration::ZERO => self.queue(waiting),
            jitter => self.put_off(waiting, now + jitter),
        }
    }

    /// Nothing more begins.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
    }

    /// How often something was tried again so far.
    pub(super) fn tried_again(&self) -> u64 {
        self.tried_again
    }

    /// Whether nothing waits and nothing flies.
    pub(super) fn is_idle(&self) -> bool {
        self.flights.is_empty() && !self.something_waits() && self.ties.is_empty()
    }

    fn something_waits(&self) -> bool {
        let turns = self.turns.iter().any(|turns| !turns.targets.is_empty());
        turns || !self.resting.is_empty() || !self.later.is_empty()
    }

    /// What is to be done now.
    pub(super) fn step(&mut self, now: Instant) -> Step {
        if let Some(why) = self.over() {
            return match self.take_any() {
                Some(waiting) => Step::NotDone(self.never_begun(waiting, why)),
                None if self.flights.is_empty() => Step::Idle,
                None => Step::Wait(None),
            };
        }
        self.wake(now);
        let mut until = None;
        let mut plugins = self.turns.len();
        while plugins > 0 && self.flights.len() < self.rules.jobs.max(1) {
            plugins -= 1;
            self.turns.rotate_left(1);
            match self.turn(now) {
                Turn::Step(step) => return step,
                Turn::Again => plugins = self.turns.len(),
                Turn::NotBefore(at) => until = Some(until.map_or(at, |until: Instant| until.min(at))),
                Turn::Nobody => {}
            }
        }
        if self.flights.is_empty() && !self.something_waits() {
            return match self.ties.break_a_circle() {
                Some(waiting) => {
                    self.queue(waiting);
                    self.step(now)
                }
                None => Step::Idle,
            };
        }
        let rests = self.resting.peek().map(|Reverse((at, _))| *at);
        let later = self.later.peek().map(|Reverse(later)| later.at);
        Step::Wait([until, rests, later].into_iter().flatten().min())
    }

    /// Gives what has waited long enough its place again.
    fn wake(&mut self, now: Instant) {
        while self.later.peek().is_some_and(|Reverse(later)| later.at <= now) {
            if let Some(Reverse(later)) = self.later.pop() {
                self.queue(later.waiting);
            }
        }
        while self.resting.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            if let Some(Reverse((_, target))) = self.resting.pop() {
                self.line_up(target);
            }
        }
    }

    /// Lets one target of the plugin whose turn it is begin a job.
    fn turn(&mut self, now: Instant) -> Turn {
        let Some(Turns { plugin, targets }) = self.turns.front_mut() else { return Turn::Nobody };
        match self.gates.may_begin(*plugin, now) {
            May::Begin => {}
            May::NotBefore(at) => return Turn::NotBefore(at),
            _ => return Turn::Nobody,
        }
        for _ in 0..targets.len() {
            let Some(number) = targets.pop_front() else { break };
            let Some(target) = self.targets.get_mut(number) else { continue };
            let may = match target.breaker.may_begin(target.flying, now) {
                May::Begin => self.gates.may_begin(target.host, now),
                may => may,
            };
            let why = match may {
                May::NotBefore(at) => {
                    self.resting.push(Reverse((at, number)));
                    continue;
                }
                May::NotYet => {
                    targets.push_back(number);
                    continue;
                }
                May::Begin => None,
                May::Never(why) => Some(NotTried::Target(why)),
            };
            let waiting = target.waiting.pop_front();
            target.in_line = !target.waiting.is_empty();
            if target.in_line {
                targets.push_back(number);
            }
            match (why, waiting) {
                (Some(why), Some(waiting)) => {
                    return Turn::Step(Step::NotDone(self.never_begun(waiting, why)));
                }
                (None, Some(waiting)) => {
                    return match self.ties.ask(waiting) {
                        Some(free) => Turn::Step(self.begin(free, number, now)),
                        None => Turn::Again,
                    };
                }
                (_, None) => {}
            }
        }
        Turn::Nobody
    }

    fn begin(&mut self, mut waiting: Waiting, target: usize, now: Instant) -> Step {
        waiting.tries += 1;
        self.ties.began(&waiting.job);
        if let Some(target) = self.targets.get_mut(target) {
            target.flying += 1;
            self.gates.began([target.host, target.plugin], now);
        }
        self.begun += 1;
        let job = waiting.job.clone();
        self.flights.insert(self.begun, Flight { waiting, target });
        Step::Begin(self.begun, job)
    }

    /// What has come down ends, or will be tried again.
    pub(super) fn land<T>(&mut self, number: u64, outcome: Result<T, Failure>, now: Instant) -> Option<Ended<T>> {
        let Flight { mut waiting, target } = self.flights.remove(&number)?;
        if let Some(target) = self.targets.get_mut(target) {
            target.flying -= 1;
            target.breaker.heard(outcome.as_ref().err(), target.flying, now);
            self.gates.ended([target.host, target.plugin], outcome.as_ref().err(), now);
        }
        let failure = match outcome {
            Ok(done) => return Some(self.end(waiting, Outcome::Done(done))),
            Err(failure) => failure,
        };
        let Some(pause) = self.pause_before_another(&failure, waiting.tries) else {
            return Some(self.end(waiting, Outcome::Failed(failure)));
        };
        self.tried_again += 1;
        for free in self.ties.rests(&waiting.job) {
            self.queue(free);
        }
        waiting.last = Some(Box::new(failure));
        self.put_off(waiting, now + pause);
        None
    }

    /// How long to wait before the same is tried again: only where it is proven
    /// that nothing changed, and the same may succeed later.
    fn pause_before_another(&mut self, failure: &Failure, tries: u32) -> Option<Duration> {
        let asked_for = failure.again.filter(|_| failure.state == State::Unchanged)?;
        let in_all = TRIES_AGAIN_IN_ALL + self.total / 10;
        if !self.rules.tries_again || tries > TRIES_AGAIN || self.tried_again >= in_all || self.over().is_some() {
            return None;
        }
        let doubled = FIRST_PAUSE.saturating_mul(1 << (tries - 1).min(16)).min(LONGEST_PAUSE);
        Some(asked_for.max(doubled.mul_f64(0.5 + (self.chance)() / 2.0)))
    }

    /// Why nothing more begins, if nothing does.
    fn over(&self) -> Option<NotTried> {
        if self.stopped {
            return Some(NotTried::Interrupted);
        }
        let too_many = self.rules.max_failures.is_some_and(|most| most.is_less_than(self.failed, self.total));
        too_many.then_some(NotTried::TooManyFailed)
    }

    fn never_begun(&mut self, mut waiting: Waiting, why: NotTried) -> NotDone {
        match waiting.last.take() {
            // It was begun, and would have been again.
            Some(last) => self.end(waiting, Outcome::Failed(*last)),
            None => self.end(waiting, Outcome::NotTried(why)),
        }
    }

    fn end<T>(&mut self, waiting: Waiting, outcome: Outcome<T>) -> Ended<T> {
        self.failed += u64::from(matches!(outcome, Outcome::Failed(_)));
        for free in self.ties.ended(&waiting.job) {
            self.queue(free);
        }
        Ended { job: waiting.job, outcome, tries: waiting.tries }
    }

    fn queue(&mut self, waiting: Waiting) {
        let number = match self.known.get(&waiting.job.site) {
            Some(number) => *number,
            None => {
                let site = Arc::clone(&waiting.job.site);
                let (host, plugin) = self.gates.of(&site);
                let (waiting, breaker) = (VecDeque::new(), Breaker::default());
                self.targets.push(Target { waiting, in_line: false, flying: 0, breaker, host, plugin });
                self.known.insert(site, self.targets.len() - 1);
                self.targets.len() - 1
            }
        };
        let Some(target) = self.targets.get_mut(number) else { return };
        target.waiting.push_back(waiting);
        if !target.in_line {
            target.in_line = true;
            self.line_up(number);
        }
    }

    fn line_up(&mut self, number: usize) {
        let Some(plugin) = self.targets.get(number).map(|target| target.plugin) else { return };
        match self.turns.iter_mut().find(|turns| turns.plugin == plugin) {
            Some(turns) => turns.targets.push_back(number),
            None => self.turns.push_back(Turns { plugin, targets: VecDeque::from([number]) }),
        }
    }

    fn put_off(&mut self, waiting: Waiting, at: Instant) {
        let number = self.total + self.tried_again;
        self.later.push(Reverse(Later { at, number, waiting }));
    }

    /// Whatever waits, wherever.
    fn take_any(&mut self) -> Option<Waiting> {
        if let Some(Reverse(later)) = self.later.pop() {
            return Some(later.waiting);
        }
        while let Some(Reverse((_, target))) = self.resting.pop() {
            self.line_up(target);
        }
        let mut turns = self.turns.iter_mut().map(|turns| &mut turns.targets);
        let Some(targets) = turns.find(|targets| !targets.is_empty()) else { return self.ties.take_any() };
        let target = targets.front().and_then(|number| self.targets.get_mut(*number))?;
        let waiting = target.waiting.pop_front();
        target.in_line = !target.waiting.is_empty();
        if !target.in_line {
            targets.pop_front();
        }
        waiting
    }
}

impl PartialEq for Later {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Later {}

impl PartialOrd for Later {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Later {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

#[cfg(test)]
mod tests;
