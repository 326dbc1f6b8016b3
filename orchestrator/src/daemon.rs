//! Rotating what falls due, until told to stop.
//!
//! ```text
//! stand by until nobody else schedules → look → settle, rotate, prove what is due → look again → give way
//! ```
//!
//! All that must outlive this process is in the vault: it may be killed at any
//! instant, and another one goes on.

mod agenda;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

use self::agenda::Agenda;
use crate::backup::Backups;
use crate::drift::{self, Proven, Remedy};
use crate::engine::{Engine, durable};
use crate::failure::Failure;
use crate::fleet::{self, Ended, Fleet, Outcome, Rules, Why, Work};
use crate::lease;
use crate::record::Uid;
use crate::rotate::{Finish, Rotated, Wanted, rotate_and_note};
use crate::schedule::Schedule;
use crate::settle;
use crate::vault::{Holder, Lease, RecordState, VaultError};

/// How often it looks up even where nothing is due: at the clock, at the vault,
/// and whether it still is the one.
const LOOK_UP_EVERY: Duration = Duration::from_secs(5);
/// How often it shows that it is still the one; a third of the lease's time to live.
const RENEW_EVERY: Duration = Duration::from_secs(20);
/// How often what is open is tried to be settled.
const SETTLE_EVERY: Duration = Duration::from_secs(60);
/// How long it settles at its end before it leaves the rest to the next one.
const SETTLE_AT_THE_END: Duration = Duration::from_secs(30);
/// How old a backup may be when many records change day by day.
const BACKUP_EVERY: Duration = Duration::from_secs(24 * 3_600);

/// What a daemon goes by.
#[derive(Clone)]
pub struct Orders {
    /// What it works with.
    pub engine: Arc<Engine>,
    /// How many at once, and how gently.
    pub rules: Rules,
    /// When every credential is proven again.
    pub verify: Option<Schedule>,
    /// Whether one that does not work any more is reset through its admin.
    pub reconcile: bool,
    /// Where the vault is copied to before records change.
    pub backups: Backups,
}

/// What a daemon did with a record.
#[derive(Debug)]
pub enum Done {
    /// Its credential was replaced.
    Rotated(Rotated),
    /// Its credential was proven.
    Proven(Proven),
    /// What was open has been settled.
    Settled,
}

/// What a daemon tells while it runs.
#[derive(Debug)]
pub enum Event<'a> {
    /// Somebody else schedules this vault; it waits. Told again and again.
    StandsBy(&'a Holder),
    /// It is the one now.
    Active,
    /// A record has ended.
    Ended(&'a Ended<Done>),
    /// It lives. Told again and again.
    Beats {
        /// Records whose turn lies ahead.
        ahead: usize,
        /// Records that wait or are under way.
        at_work: usize,
        /// When the next one begins.
        next: Option<Timestamp>,
    },
    /// A copy of the vault that was due is not its to make, and why.
    NoBackup(String),
    /// Something of its own did not work; it goes on and tries again.
    Trouble(&'a Failure),
    /// It goes by new orders now.
    Reloaded,
    /// It ends.
    Stops,
}

/// Whom a daemon serves.
pub trait Master {
    /// Hears what happens.
    fn hear(&mut self, event: Event<'_>);

    /// Reads the orders again.
    fn read_orders(&self, old: &Orders) -> impl Future<Output = Result<Orders, Failure>> + Send;
}

/// Runs until the engine's `stop`. When `reload` is notified it reads its
/// orders again, once what is under way has ended.
///
/// # Errors
/// What the vault says where nothing can be scheduled at all.
pub async fn run(mut orders: Orders, reload: &Notify, master: &mut impl Master) -> Result<(), Failure> {
    let engine = Arc::clone(&orders.engine);
    while let Some(lease) = lease::schedule(&engine, |holder| master.hear(Event::StandsBy(holder))).await? {
        master.hear(Event::Active);
        loop {
            match Active::new(&orders, &lease).run(reload, master).await {
                Left::Fenced => break,
                Left::Reload => match master.read_orders(&orders).await {
                    Ok(new) => {
                        orders = new;
                        master.hear(Event::Reloaded);
                    }
                    Err(failure) => master.hear(Event::Trouble(&failure)),
                },
                Left::Stopped => {
                    master.hear(Event::Stops);
                    // What is not settled by then waits for the next run.
                    let _ = timeout(SETTLE_AT_THE_END, settle_all(&orders.engine)).await;
                    let _ = durable(|| engine.vault.release(&lease));
                    return Ok(());
                }
            }
        }
    }
    master.hear(Event::Stops);
    Ok(())
}

async fn settle_all(engine: &Engine) {
    for (uid, state, _) in open(engine).unwrap_or_default() {
        if state == RecordState::Open {
            // What stays open is shown by `turnlock status`.
            let _ = settle::recover(engine, &uid, Finish::WhenDue).await;
        }
    }
}

/// Records beside which something is open that could be settled now.
fn open(engine: &Engine) -> Result<Vec<(Uid, RecordState, String)>, Failure> {
    let items = durable(|| engine.vault.open_items())?;
    let now = Timestamp::now();
    let ready = items.into_iter().filter(|item| match item.state {
        RecordState::Open => true,
        RecordState::Finishing | RecordState::Hooks => item.due.is_none_or(|due| due <= now),
        RecordState::Parked | RecordState::Settled => false,
    });
    Ok(ready.map(|item| (item.uid, item.state, item.title)).collect())
}

/// Why it is not active any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Stopped,
    Reload,
    Fenced,
}

/// A daemon that is the one.
struct Active<'a> {
    orders: &'a Orders,
    lease: &'a Lease,
    fleet: Fleet<Done>,
    agenda: Agenda,
    /// Records that wait or are under way.
    at_work: HashSet<Uid>,
    renew_at: Instant,
    settle_at: Instant,
    backed_up: Option<Instant>,
    /// Why there is no copy, until that is told.
    no_backup: Option<String>,
}

impl<'a> Active<'a> {
    fn new(orders: &'a Orders, lease: &'a Lease) -> Self {
        let now = Instant::now();
        Self {
            fleet: Fleet::new(orders.rules.clone(), orders.engine.stop.clone(), work(orders)),
            agenda: Agenda::default(),
            at_work: HashSet::new(),
            renew_at: now + RENEW_EVERY,
            settle_at: now,
            backed_up: None,
            no_backup: None,
            orders,
            lease,
        }
    }

    async fn run(mut self, reload: &Notify, master: &mut impl Master) -> Left {
        let stop = &self.orders.engine.stop;
        let mut leaving = None;
        loop {
            match self.is_still_the_one() {
                Ok(true) => {}
                Ok(false) => leaving = Some(Left::Fenced),
                Err(failure) => master.hear(Event::Trouble(&failure)),
            }
            if leaving.is_none()
                && let Err(failure) = self.look()
            {
                master.hear(Event::Trouble(&failure));
            }
            if let Some(why) = self.no_backup.take() {
                master.hear(Event::NoBackup(why));
            }
            if let Some(left) = leaving
                && self.fleet.is_idle()
            {
                return left;
            }
            let (ahead, next) = (self.agenda.len(), self.agenda.next());
            master.hear(Event::Beats { ahead, at_work: self.at_work.len(), next });
            let until = Instant::now() + self.until_the_next_look(next);
            tokio::select! {
                Some(ended) = self.fleet.next(), if !self.fleet.is_idle() => {
                    master.hear(Event::Ended(&ended));
                    self.at_work.remove(&ended.job.uid);
                    if leaving.is_none() && let Err(failure) = self.place_again(&ended) {
                        master.hear(Event::Trouble(&failure));
                    }
                }
                () = sleep_until(until) => {}
                () = reload.notified(), if leaving.is_none() => leaving = Some(Left::Reload),
                () = stop.cancelled(), if leaving != Some(Left::Stopped) => leaving = Some(Left::Stopped),
            }
        }
    }

    fn is_still_the_one(&mut self) -> Result<bool, Failure> {
        let now = Instant::now();
        if now < self.renew_at {
            return Ok(true);
        }
        self.renew_at = now + RENEW_EVERY;
        match durable(|| self.orders.engine.vault.renew(self.lease)) {
            Err(VaultError::Fenced) => Ok(false),
            renewed => Ok(renewed.map(|()| true)?),
        }
    }

    /// Puts everything to work whose time has come.
    fn look(&mut self) -> Result<(), Failure> {
        let engine = &self.orders.engine;
        if Instant::now() >= self.settle_at {
            self.settle_at = Instant::now() + SETTLE_EVERY;
            for (uid, ..) in open(engine)? {
                self.put_to_work(&uid, Why::Open)?;
            }
        }
        self.agenda.look(engine, self.orders.verify.as_ref())?;
        while let Some(uid) = self.agenda.take(Timestamp::now()) {
            self.turn_of(&uid)?;
        }
        Ok(())
    }

    /// A record's time has come, unless it was edited or rotated meanwhile.
    fn turn_of(&mut self, uid: &Uid) -> Result<(), Failure> {
        let engine = &self.orders.engine;
        let Some(summary) = agenda::summary(engine, uid)? else { return Ok(()) };
        let now = Timestamp::now();
        match agenda::turn(&summary, self.orders.verify.as_ref(), now) {
            Some(turn) if turn.begin <= now => self.put_to_work(uid, turn.why),
            Some(turn) => {
                self.agenda.place(&summary, turn, turn.begin);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn put_to_work(&mut self, uid: &Uid, why: Why) -> Result<(), Failure> {
        let engine = &self.orders.engine;
        let Some(summary) = agenda::summary(engine, uid)?.filter(|_| !self.at_work.contains(uid)) else {
            return Ok(());
        };
        let changes = !matches!(why, Why::Open) && (!matches!(why, Why::Proof) || self.orders.reconcile);
        if changes && self.backed_up.is_none_or(|at| at.elapsed() >= BACKUP_EVERY) {
            self.no_backup = durable(|| self.orders.backups.take(engine.vault.as_ref()))?.not_made();
            self.backed_up = Some(Instant::now());
        }
        self.at_work.insert(uid.clone());
        self.fleet.push(fleet::job_of(engine, summary, why)?);
        Ok(())
    }

    /// A record that has ended has its next turn.
    fn place_again(&mut self, ended: &Ended<Done>) -> Result<(), Failure> {
        let Some(summary) = agenda::summary(&self.orders.engine, &ended.job.uid)? else { return Ok(()) };
        let now = Timestamp::now();
        if let Some(turn) = agenda::turn(&summary, self.orders.verify.as_ref(), now) {
            // What failed without a word of the target would fail at once again.
            let failed = !matches!(ended.outcome, Outcome::Done(_));
            let at = if failed { turn.begin.max(agenda::after_a_rest(now)) } else { turn.begin };
            self.agenda.place(&summary, turn, at);
        }
        Ok(())
    }

    fn until_the_next_look(&self, next: Option<Timestamp>) -> Duration {
        let until = next.map(|next| next.duration_since(Timestamp::now()));
        let until = until.map_or(LOOK_UP_EVERY, |until| Duration::try_from(until).unwrap_or_default());
        // Never at once again: what could not be put to work waits a little.
        until.clamp(Duration::from_millis(20), LOOK_UP_EVERY)
    }
}

/// What is done with a record depends on why it is there.
fn work(orders: &Orders) -> Work<Done> {
    let (engine, reconcile) = (Arc::clone(&orders.engine), orders.reconcile);
    Arc::new(move |job| {
        let (engine, uid, why) = (Arc::clone(&engine), job.uid.clone(), job.why);
        Box::pin(async move {
            match why {
                Why::Open => settle::recover(&engine, &uid, Finish::WhenDue).await.map(|_| Done::Settled),
                Why::Proof => {
                    let remedy = Remedy { try_history: false, reconcile };
                    drift::prove(&engine, &uid, remedy).await.map(Done::Proven)
                }
                Why::Asked | Why::Due(_) | Why::Failed(_) => {
                    rotate_and_note(&engine, &uid, &Wanted::default()).await.map(Done::Rotated)
                }
            }
        })
    })
}
