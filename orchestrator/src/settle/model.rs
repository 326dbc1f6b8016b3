//! Every interleaving of two runs that rotate one account, their rotators, a
//! vault and a target, with faults: a breadth-first search over all states,
//! with the real [`next_step`] as what a run decides by.
//!
//! The vault here keeps what `vault.rs` says a vault does: fences, attempts,
//! refusals. Each call to it and each message is one step, and a run or a
//! rotator may die between any two. [`Safeguard`] takes one thing away that the
//! promise rests on; the search then has to find out.

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use turnlock_protocol::{Fault, Kind, VerifyBy};

use super::{Facts, Step, Sure, next_step};

/// A credential: 0 was the current one first, every attempt draws the next.
type Secret = u8;

/// What the promise rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Safeguard {
    /// The candidate is durable before the rotator is asked to change anything.
    StageFirst,
    /// What was staged is read back.
    ReadBack,
    /// The permit is noted before it is given.
    NotePermit,
    /// An earlier rotator is waited for before the target is asked.
    WaitForRotator,
    /// A candidate becomes current only when the target has accepted it.
    ProveCommit,
    /// A candidate is given up only when the target refuses it and accepts the old one.
    ProveAbandon,
    /// A target that may not agree with itself yet is asked again.
    AskAgain,
    /// Where both are refused, the candidate is asked once more.
    AskOnceMore,
    /// Where both are refused, earlier candidates are asked for.
    AskAbandoned,
    /// What is given up is kept.
    KeepAbandoned,
    /// A stale holder of a lease can write nothing.
    Fence,
    /// What is open is settled before anything new begins.
    SettleFirst,
}

/// What kind of account it is.
#[derive(Debug, Clone, Copy, Default)]
struct Setting {
    /// An admin may reset it.
    admin: bool,
    /// The target may answer with what it was before, for a while.
    lags: bool,
    /// Failed log-ins count: who never noted a permit asks for the current one first.
    locks: bool,
    /// How many faults happen at most.
    faults: u8,
    /// How many runs there are.
    runs: usize,
}

/// Everything there is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    /// What the target holds, and what a log-in sees.
    holds: Secret,
    shows: Secret,
    vault: Vault,
    runs: Vec<Run>,
    rotators: Vec<Rotator>,
    /// Changes that were sent, and whose rotator is gone.
    in_flight: Vec<Secret>,
    /// Those of them that have landed, which may be after everybody was asked.
    landed_late: u32,
    faults: u8,
    drawn: Secret,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Vault {
    current: Secret,
    stage: Vec<Attempt>,
    abandoned: u32,
    previous: u32,
    holder: Option<usize>,
    fence: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Attempt {
    candidate: Secret,
    current: Secret,
    permit: Option<usize>,
    is_readable: bool,
    is_parked: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Run {
    at: At,
    only_recovers: bool,
    fence: u8,
    candidate: Secret,
    current: Secret,
    rotator: usize,
    known: Known,
}

/// Where a run is; what it does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum At {
    Dead,
    Ended,
    Acquire,
    Look,
    Stage,
    ReadBack,
    Call,
    Threshold,
    GivePermit,
    Await,
    Quiet,
    Do(Step),
    AdoptEarlier,
    Release,
}

/// [`Facts`] that can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Known {
    sure: Sure,
    candidate: Heard,
    current: Heard,
    abandoned: Heard,
    asked_again: bool,
    in_between: bool,
    can_reset: bool,
    current_first: bool,
    applied_again: bool,
    /// Refused for its current credential, before any permit.
    authentication: bool,
    /// An earlier attempt is being settled, not this run's own.
    is_earlier: bool,
    /// The candidate is being sent again.
    sends_again: bool,
    /// Nobody's knowledge, but the truth: the target held the candidate when it
    /// refused the current one.
    was_live: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Heard {
    NotAsked,
    Accepted,
    Refused,
    CannotAsk,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Rotator {
    of: usize,
    candidate: Secret,
    current: Secret,
    by_admin: bool,
    state: Working,
}

/// How far a rotator is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Working {
    LoggingIn,
    Asks,
    Permitted,
    Changed,
    /// It has answered: success, a definite refusal behind the permit, or a
    /// failure before it.
    Said(Answer),
    Dead,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Answer {
    Success,
    DefiniteNo,
    NotAuthenticated,
    NotPermitted,
}

/// What the search found, and how one gets there.
#[derive(Debug)]
struct Broken {
    rule: &'static str,
    path: Vec<What>,
}

const IN_THE_VAULT: &str = "what the target accepts is in the vault";
const NOTHING_DEAD: &str = "with nothing open, what the target accepts is current or abandoned";
const GIVEN_UP: &str = "what is given up is not live, and nobody is about to make it so";
const PARKED: &str = "a person is called only if no credential in the vault works";
const ALONE: &str = "a permit is given to the only open attempt";
const SETTLES: &str = "without further faults everything settles";

impl Setting {
    fn begin(self) -> World {
        let run = Run {
            at: At::Acquire,
            only_recovers: false,
            fence: 0,
            candidate: 0,
            current: 0,
            rotator: 0,
            known: Known::of(Sure::Unknown),
        };
        World {
            holds: 0,
            shows: 0,
            vault: Vault::default(),
            runs: vec![run; self.runs],
            rotators: Vec::new(),
            in_flight: Vec::new(),
            landed_late: 0,
            faults: self.faults,
            drawn: 0,
        }
    }

    /// Searches everything. How many states there are, or what is broken.
    fn search(self, without: Option<Safeguard>) -> Result<usize, Broken> {
        let model = Model { setting: self, without };
        let mut seen = HashSet::new();
        let mut came_from: Vec<(usize, What)> = vec![(0, What::End)];
        let mut queue = VecDeque::from([(0, self.begin())]);
        seen.insert(fingerprint(&self.begin()));
        while let Some((number, world)) = queue.pop_front() {
            let next = model.successors(&world).map_err(|(rule, last)| told(rule, &came_from, number, last))?;
            if next.is_empty() {
                model.converges(&world).map_err(|rule| told(rule, &came_from, number, What::End))?;
            }
            for (what, next) in next {
                model.holds(&next).map_err(|rule| told(rule, &came_from, number, what))?;
                if seen.insert(fingerprint(&next)) {
                    came_from.push((number, what));
                    queue.push_back((came_from.len() - 1, next));
                }
            }
        }
        Ok(seen.len())
    }
}

/// A broken rule, and the way from the beginning to the step that broke it.
fn told(rule: &'static str, came_from: &[(usize, What)], mut at: usize, last: What) -> Broken {
    let mut path = vec![last];
    while at != 0 {
        path.push(came_from[at].1);
        at = came_from[at].0;
    }
    path.reverse();
    Broken { rule, path }
}

/// So long that two states do not share one.
fn fingerprint(world: &World) -> u128 {
    let part = |salt: u64| {
        let mut hasher = DefaultHasher::new();
        salt.hash(&mut hasher);
        world.hash(&mut hasher);
        u128::from(hasher.finish())
    };
    part(1) << 64 | part(2)
}

struct Model {
    setting: Setting,
    without: Option<Safeguard>,
}

type Steps = Vec<(What, World)>;

/// What happens in a step.
#[derive(Debug, Clone, Copy)]
#[expect(dead_code, reason = "shown where a search fails")]
enum What {
    Run(usize, At),
    Dies(usize, At),
    BeginsAgain(usize),
    StagesInVain(usize),
    Rotator(usize, &'static str),
    LandsLate(Secret),
    Agrees,
    /// Nothing more does.
    End,
}

impl Model {
    fn has(&self, safeguard: Safeguard) -> bool {
        self.without != Some(safeguard)
    }

    /// What must be so in every state.
    fn holds(&self, world: &World) -> Result<(), &'static str> {
        let vault = &world.vault;
        let kept = vault.abandoned | vault.previous | bit(vault.current);
        let staged = vault.stage.iter().any(|attempt| attempt.is_readable && attempt.candidate == world.holds);
        if kept & bit(world.holds) == 0 && !staged {
            return Err(IN_THE_VAULT);
        }
        let is_over = world.runs.iter().all(|run| matches!(run.at, At::Dead | At::Ended));
        let is_quiet = world.rotators.iter().all(|rotator| matches!(rotator.state, Working::Dead | Working::Said(_)));
        // A change that lands late may undo a later one; what it made live is in the history.
        let found = vault.abandoned | world.landed_late | bit(vault.current);
        if is_over && is_quiet && vault.stage.is_empty() && found & bit(world.holds) == 0 {
            return Err(NOTHING_DEAD);
        }
        Ok(())
    }

    /// From where nothing happens any more, one more run without faults settles everything.
    fn converges(&self, world: &World) -> Result<(), &'static str> {
        if world.vault.stage.iter().any(|attempt| !attempt.is_readable) {
            return Ok(());
        }
        let mut world = world.clone();
        world.faults = 0;
        (world.runs[0].at, world.runs[0].only_recovers) = (At::Acquire, true);
        for _ in 0..500 {
            match self.successors(&world).map_err(|(rule, _)| rule)?.pop() {
                Some((_, next)) => world = next,
                None if world.vault.stage.iter().all(|attempt| attempt.is_parked) => return Ok(()),
                None => break,
            }
        }
        Err(SETTLES)
    }

    /// Everything that may happen next.
    fn successors(&self, world: &World) -> Result<Steps, (&'static str, What)> {
        let mut steps = Vec::new();
        for (number, at) in world.runs.iter().map(|run| run.at).enumerate() {
            let before = steps.len();
            self.run(world, number, &mut steps).map_err(|rule| (rule, What::Run(number, at)))?;
            if steps.len() > before && world.faults > 0 && !matches!(at, At::Acquire | At::Dead | At::Ended) {
                let mut next = world.clone();
                next.faults -= 1;
                next.runs[number].at = At::Dead;
                steps.push((What::Dies(number, at), next));
            }
            if at == At::Dead {
                let mut next = world.clone();
                next.runs[number].at = At::Acquire;
                next.runs[number].only_recovers = true;
                steps.push((What::BeginsAgain(number), next));
            }
        }
        for number in 0..world.rotators.len() {
            self.rotator(world, number, &mut steps);
        }
        for (number, candidate) in world.in_flight.iter().enumerate() {
            let mut next = world.clone();
            next.in_flight.remove(number);
            next.landed_late |= bit(*candidate);
            self.change(&mut next, *candidate);
            steps.push((What::LandsLate(*candidate), next));
        }
        if world.shows != world.holds {
            let mut next = world.clone();
            next.shows = next.holds;
            steps.push((What::Agrees, next));
        }
        Ok(steps)
    }

    fn change(&self, world: &mut World, candidate: Secret) {
        if !self.setting.lags {
            world.shows = candidate;
        }
        world.holds = candidate;
    }

    /// A rotator's next step, if it has one.
    fn rotator(&self, world: &World, number: usize, steps: &mut Steps) {
        let rotator = &world.rotators[number];
        let mut to = |what: &'static str, state: Working, costs: u8, more: &dyn Fn(&mut World)| {
            if world.faults >= costs {
                let mut next = world.clone();
                next.faults -= costs;
                next.rotators[number].state = state;
                more(&mut next);
                steps.push((What::Rotator(number, what), next));
            }
        };
        let nothing: &dyn Fn(&mut World) = &|_| ();
        let change: &dyn Fn(&mut World) = &|next| self.change(next, rotator.candidate);
        let host_is_gone = !matches!(world.runs[rotator.of].at, At::Threshold | At::GivePermit | At::Await)
            || world.runs[rotator.of].rotator != number;
        match rotator.state {
            Working::LoggingIn => {
                let state = if rotator.by_admin || world.shows == rotator.current {
                    Working::Asks
                } else if world.shows == rotator.candidate {
                    Working::Said(Answer::Success)
                } else {
                    Working::Said(Answer::NotAuthenticated)
                };
                to("has logged in", state, 0, nothing);
                to("dies logging in", Working::Dead, 1, nothing);
            }
            Working::Asks if host_is_gone => to("hears no more and ends", Working::Dead, 0, nothing),
            Working::Asks => to("dies asking", Working::Dead, 1, nothing),
            Working::Permitted => {
                to("makes the change", Working::Changed, 0, change);
                to("dies before the change", Working::Dead, 1, nothing);
                to("dies with the change on its way", Working::Dead, 1, &|next| next.in_flight.push(rotator.candidate));
                to("is refused for the candidate", Working::Said(Answer::DefiniteNo), 1, nothing);
                to("claims a change it did not make", Working::Said(Answer::Success), 1, nothing);
            }
            Working::Changed => {
                to("answers", Working::Said(Answer::Success), 0, nothing);
                to("dies behind the change", Working::Dead, 1, nothing);
                to("denies the change", Working::Said(Answer::DefiniteNo), 1, nothing);
            }
            Working::Said(_) | Working::Dead => {}
        }
    }

    /// A run's next step, if it has one.
    fn run(&self, world: &World, number: usize, steps: &mut Steps) -> Result<(), &'static str> {
        let run = &world.runs[number];
        let mut next = world.clone();
        let at = match run.at {
            At::Dead | At::Ended => return Ok(()),
            At::Acquire => {
                // Its own lease is the one of the process that it was before it died.
                match world.vault.holder.filter(|holder| *holder != number).map(|holder| world.runs[holder].at) {
                    None | Some(At::Dead | At::Ended) => {}
                    // Alive, and its renewal number has stood still for a whole time to live.
                    Some(_) if world.faults > 0 && self.setting.runs > 1 => next.faults -= 1,
                    Some(_) => return Ok(()),
                }
                next.vault.fence += 1;
                next.vault.holder = Some(number);
                next.runs[number].fence = next.vault.fence;
                At::Look
            }
            At::Look => match world.vault.stage.first() {
                Some(open) if self.has(Safeguard::SettleFirst) || run.only_recovers => {
                    if !open.is_readable || (open.is_parked && !run.only_recovers) {
                        At::Release
                    } else {
                        let mine = &mut next.runs[number];
                        (mine.candidate, mine.current) = (open.candidate, open.current);
                        mine.known = self.at_first(open, Sure::Unknown);
                        mine.known.is_earlier = true;
                        At::Quiet
                    }
                }
                _ if run.only_recovers => At::Release,
                _ => {
                    next.drawn += 1;
                    let mine = &mut next.runs[number];
                    (mine.candidate, mine.current) = (next.drawn, next.vault.current);
                    mine.known = Known::of(Sure::Unknown);
                    // One rotation a run: whatever comes now, it only settles.
                    mine.only_recovers = true;
                    if self.has(Safeguard::StageFirst) { At::Stage } else { At::Call }
                }
            },
            At::Stage if !self.may_write(world, number) || world.vault.current != run.current => At::Release,
            At::Stage => {
                let attempt = Attempt {
                    candidate: run.candidate,
                    current: run.current,
                    permit: None,
                    is_readable: true,
                    is_parked: false,
                };
                if world.faults > 0 {
                    let mut lost = next.clone();
                    lost.faults -= 1;
                    lost.vault.stage.push(Attempt { is_readable: false, ..attempt.clone() });
                    lost.runs[number].at = At::ReadBack;
                    steps.push((What::StagesInVain(number), lost));
                }
                next.vault.stage.push(attempt);
                At::ReadBack
            }
            At::ReadBack => match world.attempt(run.candidate) {
                Some(attempt) if !attempt.is_readable && self.has(Safeguard::ReadBack) => {
                    if self.may_write(world, number) {
                        next.close(run.candidate);
                    }
                    At::Release
                }
                _ => At::Call,
            },
            At::Call => {
                next.rotators.push(Rotator {
                    of: number,
                    candidate: run.candidate,
                    current: run.current,
                    by_admin: self.setting.admin,
                    state: Working::LoggingIn,
                });
                next.runs[number].rotator = next.rotators.len() - 1;
                At::Threshold
            }
            At::Threshold => match world.rotators[run.rotator].state {
                Working::LoggingIn | Working::Permitted | Working::Changed => return Ok(()),
                Working::Asks => {
                    let staged = world.vault.stage.iter().any(|attempt| attempt.candidate == run.candidate);
                    if self.may_write(world, number) && (staged || !self.has(Safeguard::StageFirst)) {
                        if world.vault.stage.len() > 1 {
                            return Err(ALONE);
                        }
                        if self.has(Safeguard::NotePermit)
                            && let Some(open) = next.attempt_mut(run.candidate)
                        {
                            open.permit = Some(run.rotator);
                        }
                        At::GivePermit
                    } else {
                        next.rotators[run.rotator].state = Working::Said(Answer::NotPermitted);
                        self.heard(&mut next, number, Sure::NoPermit)
                    }
                }
                Working::Said(Answer::Success) => self.heard(&mut next, number, Sure::Yes),
                Working::Said(answer) => {
                    next.runs[number].known.authentication = answer == Answer::NotAuthenticated;
                    self.heard(&mut next, number, Sure::NoPermit)
                }
                Working::Dead => self.heard(&mut next, number, Sure::NoPermit),
            },
            At::GivePermit => {
                if next.rotators[run.rotator].state == Working::Asks {
                    next.rotators[run.rotator].state = Working::Permitted;
                }
                At::Await
            }
            At::Await => match world.rotators[run.rotator].state {
                Working::Said(Answer::Success) => self.heard(&mut next, number, Sure::Yes),
                Working::Said(_) => self.heard(&mut next, number, Sure::No),
                Working::Dead => self.heard(&mut next, number, Sure::Unknown),
                _ => return Ok(()),
            },
            At::Quiet => {
                let Some(open) = world.attempt(run.candidate) else {
                    return self.goes_on(next, number, At::Release, steps);
                };
                let busy = |rotator: &usize| {
                    matches!(
                        world.rotators[*rotator].state,
                        Working::LoggingIn | Working::Asks | Working::Permitted | Working::Changed
                    )
                };
                if run.known.sure == Sure::Unknown
                    && self.has(Safeguard::WaitForRotator)
                    && open.permit.as_ref().is_some_and(busy)
                {
                    return Ok(());
                }
                At::Do(self.decided(run.known))
            }
            At::Do(step) => return self.perform(world, number, step, steps),
            At::AdoptEarlier => {
                let found = world.accepted_of(world.vault.abandoned);
                if let Some(found) = found.filter(|_| self.may_write(world, number)) {
                    next.adopt(found);
                }
                At::Release
            }
            At::Release => {
                if world.vault.holder == Some(number) && self.may_write(world, number) {
                    next.vault.holder = None;
                }
                At::Ended
            }
        };
        self.goes_on(next, number, at, steps)
    }

    fn goes_on(&self, mut next: World, number: usize, at: At, steps: &mut Steps) -> Result<(), &'static str> {
        let what = What::Run(number, next.runs[number].at);
        next.runs[number].at = at;
        steps.push((what, next));
        Ok(())
    }

    /// The rotator has answered, or never will.
    fn heard(&self, next: &mut World, number: usize, sure: Sure) -> At {
        let run = next.runs[number].clone();
        if !self.has(Safeguard::StageFirst) && next.attempt(run.candidate).is_none() {
            next.vault.stage.push(Attempt {
                candidate: run.candidate,
                current: run.current,
                permit: Some(run.rotator),
                is_readable: true,
                is_parked: false,
            });
        }
        if run.known.sends_again {
            let known = &mut next.runs[number].known;
            known.sends_again = false;
            if sure != Sure::Yes {
                return At::Release;
            }
            (known.sure, known.candidate) = (Sure::Yes, Heard::NotAsked);
            return At::Do(self.decided(*known));
        }
        let Some(open) = next.attempt(run.candidate).cloned() else {
            return At::Release;
        };
        let authentication = run.known.authentication;
        next.runs[number].known = Known { authentication, ..self.at_first(&open, sure) };
        At::Quiet
    }

    /// What `settle` knows when it begins.
    fn at_first(&self, open: &Attempt, sure: Sure) -> Known {
        Known {
            asked_again: !self.setting.lags || self.setting.locks,
            in_between: open.permit.is_some(),
            can_reset: self.setting.admin && open.permit.is_some(),
            current_first: self.setting.locks && open.permit.is_none(),
            ..Known::of(sure)
        }
    }

    /// What the real table says, if nobody has meddled with it.
    fn decided(&self, known: Known) -> Step {
        let step = next_step(&known.facts());
        let lacks = |safeguard| !self.has(safeguard);
        match step {
            Step::AskCandidate if known.sure == Sure::Yes && lacks(Safeguard::ProveCommit) => {
                Step::Commit { verified: true }
            }
            Step::AskCandidate if known.sure == Sure::Unknown && lacks(Safeguard::ProveAbandon) => Step::Abandon,
            Step::WaitAndAskAgain if lacks(Safeguard::AskAgain) => Step::Abandon,
            Step::AskOnceMore if lacks(Safeguard::AskOnceMore) => self.decided(Known { in_between: false, ..known }),
            Step::AskAbandoned if lacks(Safeguard::AskAbandoned) && known.can_reset => Step::Reset,
            Step::AskAbandoned if lacks(Safeguard::AskAbandoned) => Step::Park,
            step => step,
        }
    }

    fn perform(&self, world: &World, number: usize, step: Step, steps: &mut Steps) -> Result<(), &'static str> {
        let run = &world.runs[number];
        let mut next = world.clone();
        let asks = matches!(
            step,
            Step::AskCandidate | Step::AskCurrent | Step::AskOnceMore | Step::AskAbandoned | Step::WaitAndAskAgain
        );
        if asks && world.faults > 0 {
            let mut deaf = world.clone();
            deaf.faults -= 1;
            let known = &mut deaf.runs[number].known;
            match step {
                Step::AskCurrent => known.current = Heard::CannotAsk,
                Step::AskAbandoned => known.abandoned = Heard::CannotAsk,
                _ => known.candidate = Heard::CannotAsk,
            }
            let at = At::Do(self.decided(*known));
            self.goes_on(deaf, number, at, steps)?;
        }
        let said = |secret: Secret| if world.shows == secret { Heard::Accepted } else { Heard::Refused };
        let known = &mut next.runs[number].known;
        let at = match step {
            Step::AskCandidate => {
                known.candidate = said(run.candidate);
                At::Do(self.decided(*known))
            }
            Step::AskCurrent => {
                known.current = said(run.current);
                known.was_live = known.current == Heard::Refused && world.shows == run.candidate;
                At::Do(self.decided(*known))
            }
            // The settle time is over when the target agrees with itself.
            Step::WaitAndAskAgain if world.shows != world.holds => return Ok(()),
            Step::WaitAndAskAgain => {
                (known.asked_again, known.candidate) = (true, said(run.candidate));
                At::Do(self.decided(*known))
            }
            Step::AskOnceMore => {
                (known.in_between, known.candidate) = (false, said(run.candidate));
                At::Do(self.decided(*known))
            }
            Step::AskAbandoned => {
                let found = world.accepted_of(world.vault.abandoned);
                known.abandoned = if found.is_some() { Heard::Accepted } else { Heard::Refused };
                At::Do(self.decided(*known))
            }
            Step::Reset | Step::ApplyAgain => {
                (known.can_reset, known.applied_again, known.sends_again) = (false, true, true);
                At::Call
            }
            _ if !self.may_write(world, number) => At::Release,
            Step::Commit { .. } => {
                if next.close(run.candidate) {
                    next.vault.previous |= bit(next.vault.current);
                    next.vault.current = run.candidate;
                }
                self.closed(run)
            }
            Step::AdoptAbandoned => {
                if let Some(found) = world.accepted_of(world.vault.abandoned) {
                    next.adopt(found);
                }
                At::Release
            }
            Step::Erase => {
                if world.attempt(run.candidate).is_some_and(|open| open.permit.is_some()) {
                    At::Release
                } else {
                    next.close(run.candidate);
                    self.closed(run)
                }
            }
            Step::Abandon => {
                let on_its_way = |rotator: &Rotator| {
                    rotator.candidate == run.candidate && matches!(rotator.state, Working::Permitted | Working::Changed)
                };
                let is_proof = run.known.sure != Sure::No && world.landed_late & bit(run.candidate) == 0;
                if is_proof && (world.holds == run.candidate || world.rotators.iter().any(on_its_way)) {
                    return Err(GIVEN_UP);
                }
                if next.close(run.candidate) && self.has(Safeguard::KeepAbandoned) {
                    next.vault.abandoned |= bit(run.candidate);
                }
                self.closed(run)
            }
            Step::Park => {
                let all = world.vault.abandoned | bit(run.candidate) | bit(world.vault.current);
                let is_told = world.landed_late & bit(world.holds) == 0;
                let was_asked = run.known.was_live && world.holds == run.candidate;
                if world.shows == world.holds && all & bit(world.holds) != 0 && (is_told || was_asked) {
                    return Err(PARKED);
                }
                if let Some(open) = next.attempt_mut(run.candidate) {
                    open.is_parked = true;
                }
                At::Release
            }
            Step::Leave => At::Release,
            // One host: there is nothing to take back.
            Step::Revert => At::Release,
        };
        self.goes_on(next, number, at, steps)
    }

    /// An earlier attempt is settled and the run goes on; its own ends it.
    fn closed(&self, run: &Run) -> At {
        if run.known.is_earlier {
            At::Look
        } else if run.known.authentication && run.known.sure == Sure::NoPermit && !self.setting.admin {
            At::AdoptEarlier
        } else {
            At::Release
        }
    }

    fn may_write(&self, world: &World, number: usize) -> bool {
        !self.has(Safeguard::Fence) || world.runs[number].fence == world.vault.fence
    }
}

impl World {
    fn attempt(&self, candidate: Secret) -> Option<&Attempt> {
        self.vault.stage.iter().find(|open| open.candidate == candidate)
    }

    fn attempt_mut(&mut self, candidate: Secret) -> Option<&mut Attempt> {
        self.vault.stage.iter_mut().find(|open| open.candidate == candidate)
    }

    /// Takes an attempt from the stage. Whether it was there.
    fn close(&mut self, candidate: Secret) -> bool {
        let before = self.vault.stage.len();
        self.vault.stage.retain(|open| open.candidate != candidate);
        self.vault.stage.len() < before
    }

    /// An earlier candidate becomes current, and what is open is given up.
    fn adopt(&mut self, found: Secret) {
        self.vault.previous |= bit(self.vault.current);
        self.vault.current = found;
        self.vault.abandoned &= !bit(found);
        for open in std::mem::take(&mut self.vault.stage) {
            self.vault.abandoned |= bit(open.candidate);
        }
    }

    fn accepted_of(&self, set: u32) -> Option<Secret> {
        (set & bit(self.shows) != 0).then_some(self.shows)
    }
}

impl Known {
    fn of(sure: Sure) -> Self {
        Self {
            sure,
            candidate: Heard::NotAsked,
            current: Heard::NotAsked,
            abandoned: Heard::NotAsked,
            asked_again: false,
            in_between: false,
            can_reset: false,
            current_first: false,
            applied_again: false,
            authentication: false,
            is_earlier: false,
            sends_again: false,
            was_live: false,
        }
    }

    fn facts(self) -> Facts {
        let real = |heard| match heard {
            Heard::NotAsked => super::Heard::NotAsked,
            Heard::Accepted => super::Heard::Accepted,
            Heard::Refused => super::Heard::Refused,
            Heard::CannotAsk => super::Heard::CannotAsk(Box::new(Fault::new(Kind::Unreachable, "down"))),
        };
        Facts {
            known: self.sure,
            candidate: real(self.candidate),
            current: real(self.current),
            asked_again: self.asked_again,
            in_between: self.in_between,
            abandoned: real(self.abandoned),
            can_reset: self.can_reset,
            verify: VerifyBy::Login,
            current_first: self.current_first,
            applied_again: self.applied_again,
            overlap: false,
        }
    }
}

fn bit(secret: Secret) -> u32 {
    1 << secret
}

const ONE: Setting = Setting { admin: false, lags: false, locks: false, faults: 3, runs: 1 };
const TWO: Setting = Setting { runs: 2, ..ONE };
/// Two faults; `cargo xtask fuzz` asks for three.
#[expect(clippy::disallowed_methods, reason = "how far the search goes is no setting of the product")]
fn faults() -> u8 {
    std::env::var("TURNLOCK_MODEL_FAULTS").map_or(2, |faults| faults.parse().unwrap())
}

/// Two runs, every kind of account, faults wherever they can be: nothing breaks.
#[test]
fn no_interleaving_loses_a_credential() {
    let (faults, mut states) = (faults(), 0);
    for admin in [false, true] {
        for (lags, locks) in [(false, false), (true, false), (false, true)] {
            let setting = Setting { admin, lags, locks, faults, ..TWO };
            states += setting.search(None).unwrap_or_else(|broken| panic!("{setting:?}: {broken:#?}"));
        }
    }
    let told = told_number(if faults == 2 { "two faults: " } else { "with three: " });
    assert_eq!(told, states, "docs/model.md tells how many states there are");
}

const PAGE: &str = include_str!("../../../docs/model.md");

/// The number that docs/model.md has behind these words.
fn told_number(words: &str) -> usize {
    let rest = PAGE.split_once(words).map(|(_, rest)| rest).unwrap_or_default();
    let digits = rest.chars().take_while(|c| c.is_ascii_digit() || *c == ',').filter(|c| *c != ',');
    digits.collect::<String>().parse().unwrap()
}

/// The last column of docs/model.md's table: how many steps it takes to break a rule.
fn told_steps() -> Vec<usize> {
    PAGE.lines().filter_map(|line| line.strip_suffix(" |")?.rsplit_once("| ")?.1.parse().ok()).collect()
}

/// Each safeguard, and the rule that breaks without it.
#[test]
fn every_safeguard_is_missed() {
    use Safeguard as S;
    let mut steps = Vec::new();
    for (without, setting, rule) in [
        (S::StageFirst, ONE, IN_THE_VAULT),
        (S::ReadBack, ONE, IN_THE_VAULT),
        (S::NotePermit, TWO, GIVEN_UP),
        (S::WaitForRotator, TWO, GIVEN_UP),
        (S::ProveCommit, ONE, NOTHING_DEAD),
        (S::ProveAbandon, ONE, GIVEN_UP),
        (S::AskAgain, Setting { lags: true, ..ONE }, GIVEN_UP),
        (S::AskOnceMore, ONE, PARKED),
        (S::AskAbandoned, TWO, PARKED),
        (S::KeepAbandoned, ONE, IN_THE_VAULT),
        (S::Fence, TWO, ALONE),
        (S::SettleFirst, TWO, ALONE),
    ] {
        match setting.search(Some(without)) {
            Ok(states) => panic!("nothing misses {without:?} in {states} states"),
            Err(broken) => {
                assert_eq!(broken.rule, rule, "{without:?}: {:#?}", broken.path);
                steps.push(broken.path.len());
            }
        }
    }
    assert_eq!(told_steps(), steps, "docs/model.md tells how many steps each takes");
}
