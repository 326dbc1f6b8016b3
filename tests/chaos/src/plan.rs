//! What a round does, drawn from one number.

use std::{collections::BTreeSet, fmt, time::Duration};

use fastrand::Rng;
use lab::{
    Direction, Fault, LabError, Result,
    interposer::{Kill, MessageDirection, Victim, When},
    shim::{Cut, Faulty},
};

use crate::target::Kind;

/// How many accounts a round rotates.
pub(crate) const ACCOUNTS: usize = 8;
/// How many connections of an account may meet a fault in one round.
const CONNECTIONS: usize = 4;
/// `errno.h` of Linux.
const ERRORS: [(i32, &str); 3] = [(28, "disk full"), (5, "disk error"), (30, "disk read-only")];

/// A round that can be drawn again: the kind of its target, its seed, and
/// which of its steps are left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// The target.
    pub kind: Kind,
    /// What its steps are drawn from.
    pub seed: u64,
    /// The numbers of the steps that are taken; all without it.
    pub only: Option<BTreeSet<usize>>,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:016x}", self.kind.name(), self.seed)?;
        match &self.only {
            None => Ok(()),
            Some(only) => {
                let numbers: Vec<String> = only.iter().map(ToString::to_string).collect();
                write!(f, ":{}", numbers.join(","))
            }
        }
    }
}

impl Case {
    /// Reads what `Display` wrote.
    ///
    /// # Errors
    /// When it is something else.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || LabError::new(format!("`{text}` is no case: say for example postgresql:00000000000000ff:1,4"));
        let mut parts = text.split(':');
        let kind = parts.next().and_then(Kind::named).ok_or_else(wrong)?;
        let seed = parts.next().and_then(|seed| u64::from_str_radix(seed, 16).ok()).ok_or_else(wrong)?;
        let numbers = |list: &str| {
            list.split(',').filter(|number| !number.is_empty()).map(str::parse).collect::<Result<BTreeSet<usize>, _>>()
        };
        let only = parts.next().map(numbers).transpose().map_err(|_| wrong())?;
        Ok(Self { kind, seed, only })
    }

    /// The round of a campaign with this number.
    pub(crate) fn of(kind: Kind, campaign: u64, round: u64) -> Self {
        // Three numbers become one that has nothing in common with its neighbours'.
        let mut rng = Rng::with_seed(campaign);
        let (one, other) = (rng.u64(..), rng.u64(..) | 1);
        let seed = Rng::with_seed(one ^ other.wrapping_mul(round * 64 + kind as u64 + 1)).u64(..);
        Self { kind, seed, only: None }
    }

    /// What the figures call its faults.
    pub(crate) fn faults(&self) -> Vec<&'static str> {
        self.steps().iter().filter_map(|(_, step)| step.fault()).collect()
    }

    /// Whether it has a fault of this name.
    pub(crate) fn has(&self, fault: &str) -> bool {
        self.faults().contains(&fault)
    }

    /// Everything it does, for people.
    pub fn story(&self) -> Vec<String> {
        self.steps().into_iter().map(|(number, step)| format!("{number}: {step:?}")).collect()
    }

    /// Everything it does.
    pub(crate) fn steps(&self) -> Vec<(usize, Step)> {
        let all = draw(self.kind, &mut Rng::with_seed(self.seed));
        let wanted = |number: &usize| self.only.as_ref().is_none_or(|only| only.contains(number));
        all.into_iter().enumerate().filter(|(number, _)| wanted(number)).collect()
    }
}

/// Something beyond the one run that rotates every account.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// One more run on the same records, with this number.
    Run { number: usize, at: u64, wait: bool },
    /// Somebody edits a record.
    Edit { at: u64, account: usize, what: Edit },
    /// A connection of an account fails.
    Network { account: usize, connection: usize, fault: Fault },
    /// Somebody is struck at a message of an account's rotation.
    Message { account: usize, kill: Kill, signal: &'static str, pause: u64 },
    /// Somebody is struck at a time.
    Signal { at: u64, victim: Struck, signal: &'static str, pause: u64 },
    /// The server hangs, or ends and comes back.
    Server { at: u64, what: Outage },
    /// Disk or clock of a run fail.
    Faulty { run: usize, what: Faulty, name: &'static str },
    /// Another program holds the vault's lock.
    Locked { at: u64, pause: u64 },
    /// The machine of the one run loses its power, with all that was not synced.
    PowerCut { cut: Cut },
    /// Only one account is rotated, by one run.
    Alone { account: usize },
}

/// What somebody changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Edit {
    /// A field that has nothing to do with the rotation.
    Note,
    /// The password, to a wrong one.
    WrongPassword,
}

/// Who is struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Struck {
    /// The run with this number.
    Run(usize),
    /// One of the rotators of the first run: this one, counted round and round.
    Rotator(usize),
}

/// What becomes of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outage {
    /// It stands still for so many milliseconds.
    Pause(u64),
    /// It ends in good order and is started again.
    Restart,
    /// It ends at once and is started again.
    Crash,
}

impl Step {
    /// What it is called in the figures; none where it is no fault.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        Some(match self {
            Self::Run { .. } | Self::Edit { .. } | Self::Alone { .. } => return None,
            Self::Network { fault, .. } => match fault {
                Fault::Cut { .. } => "connection cut",
                Fault::Reset { .. } => "connection reset",
                Fault::Delay { .. } => "bytes delayed",
                Fault::BlackHole { .. } => "black hole",
                Fault::HalfOpen { .. } => "half-open connection",
                Fault::None | Fault::Latency { .. } | Fault::Refuse => return None,
            },
            Self::Message { kill, signal, .. } => match (kill.victim, *signal) {
                (Victim::Orchestrator, "KILL") => "orchestrator killed at a message",
                (Victim::Orchestrator, "TERM") => "orchestrator terminated at a message",
                (Victim::Orchestrator, _) => "orchestrator paused at a message",
                (Victim::Rotator, "KILL") => "rotator killed at a message",
                (Victim::Rotator, "TERM") => "rotator terminated at a message",
                (Victim::Rotator, _) => "rotator paused at a message",
            },
            Self::Signal { victim, signal, .. } => match (victim, *signal) {
                (Struck::Run(_), "KILL") => "orchestrator killed",
                (Struck::Run(_), "TERM") => "orchestrator terminated",
                (Struck::Run(_), _) => "orchestrator paused",
                (Struck::Rotator(_), "KILL") => "rotator killed",
                (Struck::Rotator(_), "TERM") => "rotator terminated",
                (Struck::Rotator(_), _) => "rotator paused",
            },
            Self::Server { what, .. } => match what {
                Outage::Pause(_) => "server paused",
                Outage::Restart => "server restarted",
                Outage::Crash => "server killed",
            },
            Self::Faulty { name, .. } => name,
            Self::Locked { .. } => "vault locked",
            Self::PowerCut { .. } => "power cut",
        })
    }
}

/// The whole of a round. The draws come in one order whatever is left out later.
fn draw(kind: Kind, rng: &mut Rng) -> Vec<Step> {
    let mut steps = Vec::new();
    let chance = |rng: &mut Rng, percent: u32| rng.u32(0..100) < percent;
    // Some disturbances only make sense where nobody else writes to the vault.
    let special = rng.u32(0..100);
    if special < 4 {
        let at = rng.u32(1..7);
        steps.push(Step::Alone { account: rng.usize(0..ACCOUNTS) });
        steps.push(Step::Faulty { run: 0, what: Faulty::Lie { at }, name: "disk lied" });
        return steps;
    }
    if special < 10 {
        let number = rng.u32(1..40);
        let cut = if rng.bool() { Cut::Before(number) } else { Cut::After(number) };
        steps.push(Step::PowerCut { cut });
        networks(kind, rng, &mut steps);
        return steps;
    }

    let runs = pick(rng, [0, 0, 0, 0, 1, 1, 1, 1, 2, 3]);
    for number in 1..=runs {
        steps.push(Step::Run { number, at: rng.u64(0..700), wait: rng.bool() });
    }
    networks(kind, rng, &mut steps);
    for account in 0..ACCOUNTS {
        if chance(rng, 30) {
            steps.push(message(rng, account, Victim::Rotator));
        }
    }
    if chance(rng, 25) {
        let account = rng.usize(0..ACCOUNTS);
        steps.push(message(rng, account, Victim::Orchestrator));
    }
    for percent in [50, 30] {
        if chance(rng, percent) {
            let victim = Struck::Rotator(rng.usize(0..ACCOUNTS));
            let (signal, pause) = signal(rng);
            steps.push(Step::Signal { at: rng.u64(50..1_200), victim, signal, pause });
        }
    }
    if chance(rng, 30) {
        let victim = Struck::Run(rng.usize(0..=runs));
        let (signal, pause) = signal(rng);
        steps.push(Step::Signal { at: rng.u64(50..1_200), victim, signal, pause });
    }
    for run in 0..=runs {
        if chance(rng, 12) {
            let (error, name) = pick(rng, ERRORS);
            let times = pick(rng, [1, 1, 2, 5, 20, 0]);
            steps.push(Step::Faulty { run, what: Faulty::Disk { at: rng.u32(1..220), times, error }, name });
        }
        if chance(rng, 12) {
            let by = pick(rng, [-86_400, -3_600, -30, 30, 3_600, 86_400, 31_536_000]);
            steps.push(Step::Faulty { run, what: Faulty::Clock { at: rng.u32(1..160), by }, name: "clock jump" });
        }
        if chance(rng, 8) {
            let what = Faulty::KilledAt { sync: rng.u32(1..40) };
            steps.push(Step::Faulty { run, what, name: "orchestrator killed at a sync" });
        }
    }
    if chance(rng, 15) {
        steps.push(Step::Locked { at: rng.u64(0..900), pause: rng.u64(20..900) });
    }
    if chance(rng, 10) {
        let what = match rng.u32(0..10) {
            6..8 if kind.comes_back() => Outage::Restart,
            8.. if kind.comes_back() => Outage::Crash,
            _ => Outage::Pause(rng.u64(100..1_500)),
        };
        steps.push(Step::Server { at: rng.u64(50..1_000), what });
    }
    for account in 0..ACCOUNTS {
        if chance(rng, 6) {
            let what = if chance(rng, 75) || kind == Kind::Aws { Edit::Note } else { Edit::WrongPassword };
            steps.push(Step::Edit { at: rng.u64(0..1_500), account, what });
        }
    }
    steps
}

fn networks(kind: Kind, rng: &mut Rng, steps: &mut Vec<Step>) {
    let (up, down) = kind.bytes();
    for account in 0..ACCOUNTS {
        for connection in 0..CONNECTIONS {
            if rng.u32(0..100) >= 40 {
                continue;
            }
            let (direction, bytes) = if rng.bool() { (Direction::ToServer, up) } else { (Direction::ToClient, down) };
            let after = rng.u64(0..bytes);
            let fault = match rng.u32(0..100) {
                0..40 => Fault::Cut { direction, after },
                40..65 => Fault::Reset { direction, after },
                65..88 => Fault::Delay { direction, after, pause: Duration::from_millis(rng.u64(10..400)) },
                88..94 => Fault::BlackHole { direction, after },
                _ => Fault::HalfOpen { direction, after },
            };
            steps.push(Step::Network { account, connection, fault });
        }
    }
}

fn message(rng: &mut Rng, account: usize, victim: Victim) -> Step {
    let direction = if rng.bool() { MessageDirection::ToRotator } else { MessageDirection::FromRotator };
    let when = if rng.bool() { When::Before } else { When::After };
    let kill = Kill { victim, direction, number: rng.u64(1..6), when };
    let (signal, pause) = signal(rng);
    Step::Message { account, kill, signal, pause }
}

fn pick<T: Default, const N: usize>(rng: &mut Rng, of: [T; N]) -> T {
    rng.choice(of).unwrap_or_default()
}

/// A signal, and for a pause its milliseconds: now and then longer than any lease lives.
fn signal(rng: &mut Rng) -> (&'static str, u64) {
    let short = rng.u64(30..700);
    let long = rng.u64(9_000..11_000);
    match rng.u32(0..100) {
        0..60 => ("KILL", 0),
        60..80 => ("TERM", 0),
        80..98 => ("STOP", short),
        _ => ("STOP", long),
    }
}
