//! Whose turn is when.
//!
//! Every record with a turn ahead has one place. The vault is looked through
//! again only when something in it has changed, or once a minute where it does
//! not tell that, and the seldomer the longer that takes.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use crate::engine::{Engine, durable};
use crate::failure::Failure;
use crate::fleet::{self, Why};
use crate::record::Uid;
use crate::schedule::{Past, Schedule};
use crate::vault::{Revision, Summary};

/// The shortest time between two looks through the whole vault.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// The same where the vault does not tell that something has changed.
const LOOK_ANYWAY_AFTER: Duration = Duration::from_secs(60);
/// A look may take one part in so many of the time.
const SHARE_OF_LOOKING: u32 = 50;
/// A turn that passed longer ago than this was missed: nobody was there.
const MISSED: SignedDuration = SignedDuration::from_secs(60);
/// All that were missed together are spread: a second for each…
const SPREAD_EACH: SignedDuration = SignedDuration::from_secs(1);
/// …and not more than this.
const LONGEST_SPREAD: SignedDuration = SignedDuration::from_secs(3_600);
/// A clock that went on by so much more or less than time did was set.
const SET: SignedDuration = SignedDuration::from_secs(60);
/// How long a record rests that failed without a word of its target.
const REST: SignedDuration = SignedDuration::from_secs(300);

/// Places by time and by record.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    times: BTreeSet<(Timestamp, Uid)>,
    places: HashMap<Uid, Place>,
    looked: Option<Looked>,
    clock: Option<(Timestamp, Instant)>,
}

/// One record's place, and what it was computed from.
#[derive(Debug)]
struct Place {
    at: Timestamp,
    due: Timestamp,
    revision: Revision,
}

#[derive(Debug)]
struct Looked {
    generation: Option<u64>,
    at: Instant,
    took: Duration,
}

/// A record's next turn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    /// What for.
    pub(super) why: Why,
    /// When it is due, or was.
    pub(super) due: Timestamp,
    /// When it may begin; not before now.
    pub(super) begin: Timestamp,
}

impl Agenda {
    /// Looks through the vault where something has changed.
    pub(super) fn look(&mut self, engine: &Engine, verify: Option<&Schedule>) -> Result<(), Failure> {
        let now = Timestamp::now();
        if self.clock_was_set(now) {
            // What looks overdue now has not been waited for.
            *self = Self { clock: self.clock, ..Self::default() };
        }
        let generation = durable(|| engine.vault.generation())?;
        if let Some(looked) = &self.looked {
            let shortest = if generation.is_some() { LOOK_AGAIN_AFTER } else { LOOK_ANYWAY_AFTER };
            let unchanged = generation.is_some() && looked.generation == generation;
            if unchanged || looked.at.elapsed() < shortest.max(looked.took * SHARE_OF_LOOKING) {
                return Ok(());
            }
        }
        let began = Instant::now();
        let mut missed = Vec::new();
        let mut seen = 0_usize;
        durable(|| {
            engine.vault.list(&mut |summary| {
                if let Some(turn) = turn(&summary, verify, now) {
                    seen += 1;
                    match self.places.get(&summary.uid) {
                        Some(place) if place.due == turn.due && place.revision == summary.revision => {}
                        _ if now.duration_since(turn.due) > MISSED => missed.push((summary, turn)),
                        _ => self.place(&summary, turn, turn.begin),
                    }
                }
                true
            })
        })?;
        let spread = SPREAD_EACH.saturating_mul(i32::try_from(missed.len()).unwrap_or(i32::MAX)).min(LONGEST_SPREAD);
        for (summary, turn) in missed {
            let wait = spread.mul_f64(fleet::chance());
            self.place(&summary, turn, turn.begin.saturating_add(wait).unwrap_or(turn.begin));
        }
        self.looked = Some(Looked { generation, at: Instant::now(), took: began.elapsed() });
        Ok(())
    }

    fn clock_was_set(&mut self, now: Timestamp) -> bool {
        let (then, since) = *self.clock.get_or_insert((now, Instant::now()));
        let passed = SignedDuration::try_from(since.elapsed()).unwrap_or(SignedDuration::MAX);
        let off = now.duration_since(then).saturating_sub(passed).abs();
        self.clock = Some((now, Instant::now()));
        off > SET
    }

    /// Gives a record its place, the only one it has.
    pub(super) fn place(&mut self, summary: &Summary, turn: Turn, at: Timestamp) {
        let place = Place { at, due: turn.due, revision: summary.revision };
        if let Some(old) = self.places.insert(summary.uid.clone(), place) {
            self.times.remove(&(old.at, summary.uid.clone()));
        }
        self.times.insert((at, summary.uid.clone()));
    }

    /// Takes a record whose time has come.
    pub(super) fn take(&mut self, now: Timestamp) -> Option<Uid> {
        let (at, _) = self.times.first()?;
        if *at > now {
            return None;
        }
        let (_, uid) = self.times.pop_first()?;
        self.places.remove(&uid);
        Some(uid)
    }

    /// When the next one begins.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.times.first().map(|(at, _)| *at)
    }

    /// How many lie ahead.
    pub(super) fn len(&self) -> usize {
        self.times.len()
    }
}

/// A record's next turn: to be rotated, or to be proven if that comes first.
pub(super) fn turn(summary: &Summary, verify: Option<&Schedule>, now: Timestamp) -> Option<Turn> {
    summary.plugin.as_ref()?;
    let rotation = fleet::turn(summary, now).and_then(|turn| {
        let (due, begin) = (turn.due?, turn.begin?);
        Some(Turn { why: Why::Due(due), due, begin })
    });
    let proof = verify.and_then(|verify| {
        let fate = &summary.fate;
        let past = Past { rotated: fate.rotated_at.max(fate.asked_at), ..Past::default() };
        let due = verify.due(&summary.uid, &past, now)?;
        Some(Turn { why: Why::Proof, due, begin: verify.begin(due.max(now))? })
    });
    [rotation, proof].into_iter().flatten().min_by_key(|turn| turn.begin)
}

/// What the vault says of one record now.
pub(super) fn summary(engine: &Engine, uid: &Uid) -> Result<Option<Summary>, Failure> {
    let found = durable(|| engine.vault.find(uid.as_str()))?;
    Ok(found.into_iter().find(|summary| summary.uid == *uid))
}

pub(super) fn after_a_rest(now: Timestamp) -> Timestamp {
    now.saturating_add(REST).unwrap_or(now)
}
