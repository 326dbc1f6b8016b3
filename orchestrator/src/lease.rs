//! One rotation at a time: taking leases, also from the dead.

use std::time::Duration;

use crate::engine::{Engine, durable};
use crate::failure::{Failure, State};
use crate::plan::{Identity, Plan};
use crate::process::Life;
use crate::record::Uid;
use crate::vault::{Acquired, Holder, Lease, LeaseRequest};

/// How much longer a lease lives than one operation and its settling can take.
const MARGIN_MS: u64 = 5_000;
/// How often a lease that belongs to somebody out of sight is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often one that stands by looks whether it is needed.
const LOOK_FOR_A_SCHEDULER_EVERY: Duration = Duration::from_secs(2);

/// Takes the leases of one rotation: the record and its duplicates, the
/// account, and shared the admin's record.
///
/// A holder whose process is dead on this very machine is replaced at once.
/// One that is alive, or out of sight, keeps its lease: with `wait` it is
/// watched, and replaced only when its renewal number has not moved for a
/// whole time to live by our own monotonic clock.
///
/// # Errors
/// A failure that names the holder; nothing changed.
pub async fn take(engine: &Engine, records: Vec<Uid>, plan: Option<&Plan>, title: &str) -> Result<Lease, Failure> {
    take_beside(engine, records, plan, title, false).await
}

/// The same for a record beside which something may be `open`: a vault that
/// cannot be written then does not say that nothing has changed.
///
/// # Errors
/// Like [`take`].
pub async fn take_beside(
    engine: &Engine,
    records: Vec<Uid>,
    plan: Option<&Plan>,
    title: &str,
    open: bool,
) -> Result<Lease, Failure> {
    let unwritable = |error| {
        let failure = Failure::from(error);
        if open { failure.state(State::Unknown) } else { failure }
    };
    let ttl_ms = plan.map_or(60_000, |plan| plan.deadline_ms + plan.traits.settle_ms) + MARGIN_MS;
    let request = LeaseRequest {
        records,
        account: plan.map(|plan| plan.identity.clone()),
        admin: plan.and_then(|plan| plan.admin_uid.clone()),
        owner: engine.owner.clone(),
        ttl_ms,
    };
    loop {
        let holders = match durable(|| engine.vault.acquire(&request)).map_err(unwritable)? {
            Acquired::Granted(lease) => return Ok(lease),
            Acquired::Busy(holders) => holders,
        };
        let dead = holders.iter().all(|holder| holder.owner.process.life() == Life::Dead);
        if !dead {
            if !engine.wait {
                return Err(busy(title, &holders));
            }
            engine.progress(title, "waiting for another run");
            if !unmoved(engine, &request, &holders).await? {
                continue;
            }
        }
        if let Acquired::Granted(lease) = durable(|| engine.vault.seize(&request, &holders)).map_err(unwritable)? {
            return Ok(lease);
        }
    }
}

/// Watches holders until one of them moves or ends (false), or all have been
/// still for their time to live (true).
async fn unmoved(engine: &Engine, request: &LeaseRequest, holders: &[Holder]) -> Result<bool, Failure> {
    let ttl = Duration::from_millis(holders.iter().map(|holder| holder.ttl_ms).max().unwrap_or(0));
    let since = tokio::time::Instant::now();
    while since.elapsed() < ttl {
        if engine.stopping() {
            return Err(Failure::new("interrupted while waiting for another run"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
        match durable(|| engine.vault.acquire(request))? {
            Acquired::Granted(lease) => {
                durable(|| engine.vault.release(&lease))?;
                return Ok(false);
            }
            Acquired::Busy(now) if now != holders => return Ok(false),
            Acquired::Busy(_) => {}
        }
    }
    Ok(true)
}

/// How long the one who schedules may be silent before another one does.
const SCHEDULER_TTL_MS: u64 = 60_000;

/// Waits until nobody else schedules this vault, and takes that upon itself;
/// none when it was asked to stop before. It is held as an account is, one that
/// no rotator has, and renewed by whoever holds it.
///
/// # Errors
/// What the vault says.
pub async fn schedule(engine: &Engine, mut waits_for: impl FnMut(&Holder)) -> Result<Option<Lease>, Failure> {
    let (plugin, login) = ("turnlock".to_owned(), "scheduler".to_owned());
    let account = Identity { plugin, host: String::new(), port: 0, login, record: None };
    let request = LeaseRequest {
        records: Vec::new(),
        account: Some(account),
        admin: None,
        owner: engine.owner.clone(),
        ttl_ms: SCHEDULER_TTL_MS,
    };
    let mut seen: Option<(Vec<Holder>, tokio::time::Instant)> = None;
    while !engine.stopping() {
        let holders = match durable(|| engine.vault.acquire(&request))? {
            Acquired::Granted(lease) => return Ok(Some(lease)),
            Acquired::Busy(holders) => holders,
        };
        let since = match &seen {
            Some((before, since)) if *before == holders => *since,
            _ => tokio::time::Instant::now(),
        };
        let ttl = Duration::from_millis(holders.iter().map(|holder| holder.ttl_ms).max().unwrap_or(0));
        let dead = holders.iter().all(|holder| holder.owner.process.life() == Life::Dead);
        if (dead || since.elapsed() >= ttl)
            && let Acquired::Granted(lease) = durable(|| engine.vault.seize(&request, &holders))?
        {
            return Ok(Some(lease));
        }
        if let Some(holder) = holders.first() {
            waits_for(holder);
        }
        seen = Some((holders, since));
        tokio::select! {
            () = tokio::time::sleep(LOOK_FOR_A_SCHEDULER_EVERY) => {}
            () = engine.stop.cancelled() => {}
        }
    }
    Ok(None)
}

fn busy(title: &str, holders: &[Holder]) -> Failure {
    let who = holders.first().map_or_else(String::new, |holder| {
        format!(" by process {} on {}", holder.owner.process.pid, holder.owner.machine)
    });
    let failure = Failure::new(format!("\"{title}\" or its account is being rotated{who}"));
    Failure { again: Some(Duration::ZERO), ..failure.hint("let it end, or repeat with --wait") }
}
