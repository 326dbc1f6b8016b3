//! Many rounds on every kind of target, until so many faults came to pass.

use std::{
    collections::BTreeSet,
    fmt,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    thread,
    time::Instant,
};

use lab::{LabError, Result};

use crate::{figures::Figures, lane::Lane, plan::Case, round::play, shrink::shrink, target::Kind};

/// After so many rounds a server and its vault have seen enough.
const ROUNDS_OF_A_LANE: u64 = 40;
/// About as many faults as come to pass meanwhile.
const FAULTS_OF_A_LANE: u64 = 300;
/// Among so many rounds there is every fault.
const RARE: u64 = 1_000;

/// What was asked for.
#[derive(Debug, Clone)]
pub struct Campaign {
    /// How many faults have to come to pass.
    pub faults: u64,
    /// What everything is drawn from.
    pub seed: u64,
    /// On which targets, with their shares; all where there are none.
    pub targets: Vec<Kind>,
    /// Play only rounds that have a fault of this name.
    pub with: Option<String>,
    /// How many servers at once.
    pub jobs: usize,
    /// The `turnlock` to be judged; the one that was built beside this program without it.
    pub turnlock: Option<PathBuf>,
}

/// What must never happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broken {
    /// The target accepts nothing of what is in the vault.
    Lost(String),
    /// Nothing is open, and the vault's current credential does not work.
    Drifted(String),
    /// A person is needed where no person did anything.
    Parked(String),
    /// The target locked an account.
    LockedOut(String),
    /// A secret stands where none belongs.
    Leaked(String),
    /// An edit that was acknowledged is gone.
    Forgotten(String),
    /// The vault is not whole.
    Damaged(String),
    /// It does not come to an end.
    Stuck(String),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, how) = match self {
            Self::Lost(how) => ("a credential is lost", how),
            Self::Drifted(how) => ("vault and target do not agree", how),
            Self::Parked(how) => ("parked without a reason", how),
            Self::LockedOut(how) => ("a lock-out", how),
            Self::Leaked(how) => ("a leak", how),
            Self::Forgotten(how) => ("a lost edit", how),
            Self::Damaged(how) => ("a damaged vault", how),
            Self::Stuck(how) => ("no end", how),
        };
        write!(f, "{what}: {how}")
    }
}

/// How a campaign ended.
#[derive(Debug)]
pub struct Ended {
    /// What was seen.
    pub figures: Figures,
    /// What was broken, and the smallest round that breaks it.
    pub broken: Option<(Broken, Case)>,
}

impl Campaign {
    /// Plays it, and tells of its progress line by line.
    ///
    /// # Errors
    /// When a server or a client could not be used, which says nothing about Turnlock.
    pub fn play(&self, say: &(dyn Fn(&str) + Sync)) -> Result<Ended> {
        self.can_be_played()?;
        let begun = Instant::now();
        let parts = Mutex::new(self.parts());
        let figures = Mutex::new(Figures::default());
        let broken = Mutex::new(None);
        let outcome = thread::scope(|scope| {
            let workers: Vec<_> = (0..self.jobs.max(1))
                .map(|_| {
                    scope.spawn(|| {
                        loop {
                            // Not `while let`, which would hold the lock all the while.
                            let next = lock(&parts).pop();
                            let Some(mut part) = next.filter(|_| lock(&broken).is_none()) else {
                                break;
                            };
                            let kind = part.kind.name();
                            let (seen, found) = self.part(&mut part, say).inspect_err(|error| {
                                say(&format!("{kind}: {error}"));
                                lock(&parts).clear();
                            })?;
                            let mut all = lock(&figures);
                            all.add(&seen);
                            say(&format!(
                                "{kind}: {} faults in {} rounds; {} of {} in all",
                                seen.faults(None),
                                seen.rounds,
                                all.faults(None),
                                self.faults
                            ));
                            drop(all);
                            if found.is_some() {
                                *lock(&broken) = found;
                            }
                            // A lane has an end; what is left of its share goes on with another.
                            let left = part.faults.saturating_sub(seen.faults(None));
                            if left > 0 {
                                lock(&parts).insert(0, Part { faults: left, ..part });
                            }
                        }
                        Ok(())
                    })
                })
                .collect();
            workers.into_iter().try_for_each(|worker| {
                worker.join().unwrap_or_else(|_| Err(LabError::new("a part of the campaign has panicked")))
            })
        });
        outcome?;
        let mut figures = lock(&figures).clone();
        figures.took = begun.elapsed();
        let broken = lock(&broken).take();
        Ok(Ended { figures, broken })
    }

    /// Refuses to wait for a fault that no round ever has.
    fn can_be_played(&self) -> Result<()> {
        let Some(with) = &self.with else { return Ok(()) };
        let cases: Vec<Case> = (0..RARE).map(|round| Case::of(Kind::Postgresql, self.seed, round)).collect();
        if cases.iter().any(|case| case.has(with)) {
            return Ok(());
        }
        let names: BTreeSet<&str> = cases.iter().flat_map(Case::faults).collect();
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        Err(LabError::new(format!("no round has a fault \"{with}\"; there are {names}")))
    }

    /// The shares of the targets, in parts that are played side by side.
    fn parts(&self) -> Vec<Part> {
        let wanted = |kind: &Kind| self.targets.is_empty() || self.targets.contains(kind);
        let shares: Vec<(Kind, u32)> = Kind::ALL.into_iter().filter(|(kind, _)| wanted(kind)).collect();
        let whole: u32 = shares.iter().map(|(_, share)| share).sum();
        let of_a_kind = |(kind, share): (Kind, u32)| {
            let faults = (self.faults * u64::from(share)).div_ceil(u64::from(whole.max(1)));
            let count = faults.div_ceil(FAULTS_OF_A_LANE).max(1);
            (0..count).map(move |round| Part { kind, faults: faults.div_ceil(count), round, step: count })
        };
        shares.into_iter().flat_map(of_a_kind).collect()
    }

    /// Plays a lane of it, and moves it on to its next round.
    fn part(&self, part: &mut Part, say: &(dyn Fn(&str) + Sync)) -> Result<(Figures, Option<(Broken, Case)>)> {
        let mut figures = Figures::default();
        let mut lane = Lane::open(part.kind, self.turnlock.as_deref())?;
        let mut found = None;
        let mut last = None;
        while figures.rounds < ROUNDS_OF_A_LANE && figures.faults(None) < part.faults && found.is_none() {
            let case = Case::of(part.kind, self.seed, part.round);
            part.round += part.step;
            if self.with.as_ref().is_some_and(|with| !case.has(with)) {
                continue;
            }
            last = Some(case.clone());
            found = play(&mut lane, &case, &mut figures)
                .map_err(|error| LabError::new(format!("{case}: {error}")))?
                .map(|broken| (broken, case));
        }
        // Which round it was, nobody knows; the last one is as good as any.
        if let (None, Some(case)) = (&found, last) {
            found = lane.sweep()?.map(|broken| (broken, case));
        }
        drop(lane);
        if let Some((broken, case)) = found {
            say(&format!("{case}: {broken}; looking for the smallest round that does it"));
            let (broken, case) = shrink(&broken, &case, self.turnlock.as_deref(), say)?;
            return Ok((figures, Some((broken, case))));
        }
        Ok((figures, None))
    }
}

/// Plays one case so many times, each on a server of its own, until it breaks something.
///
/// # Errors
/// Like [`Campaign::play`].
pub fn replay(case: &Case, turnlock: Option<&std::path::Path>, times: usize) -> Result<Ended> {
    let mut figures = Figures::default();
    let mut broken = None;
    let begun = Instant::now();
    for _ in 0..times {
        let mut lane = Lane::open(case.kind, turnlock)?;
        broken = play(&mut lane, case, &mut figures)?;
        if broken.is_none() {
            broken = lane.sweep()?;
        }
        if broken.is_some() {
            break;
        }
    }
    figures.took = begun.elapsed();
    Ok(Ended { figures, broken: broken.map(|broken| (broken, case.clone())) })
}

/// A share of a campaign, played on one lane after the other.
#[derive(Debug, Clone, Copy)]
struct Part {
    kind: Kind,
    faults: u64,
    /// The number of its next round.
    round: u64,
    /// How far on the one after that is: those between are other parts'.
    step: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
