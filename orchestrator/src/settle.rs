//! The same rotation when something went wrong, now or before a crash: ask the
//! target, then commit, drop or park.
//!
//! [`next_step`] is the whole table. Nothing is assumed, nothing blindly
//! reverted, and nothing that might be alive is erased.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use turnlock_protocol::operation::{
    ApplyParams, ApplyResult, Finished, Orphans, RevertParams, Verdict, Verdicts, VerifyParams,
};
use turnlock_protocol::{Applied, Credential, Fault, Kind, Operation, Origin, Overlap, VerifyBy};

use crate::budget::{self, LogIn};
use crate::child::{Conversation, ReadOnly, Threshold};
use crate::engine::{Engine, durable};
use crate::failure::{Failure, State};
use crate::hooks;
use crate::lease;
use crate::plan::Plan;
use crate::process::Life;
use crate::record::{Record, Uid};
use crate::resolve;
use crate::rotate::{Finish, HoldingTheLease, Left, duplicate, finish_if_due};
use crate::stage::{Attempt, Excluded, PastKind, PermitGiven, Process};
use crate::vault::{Commit, Lease, LeftBehind, Stored, VaultError};

/// How long a process may take to die of SIGKILL.
const DIES_WITHIN: Duration = Duration::from_secs(5);

/// What the host knows of an apply, before anybody is asked.
#[derive(Debug)]
pub enum Known {
    /// This very process gave no permit.
    NoPermit(Fault),
    /// The target definitely refused the one change that was sent.
    DefiniteNo(Fault),
    /// The target took it.
    Yes(ApplyResult),
    /// Anything else; always after a restart.
    Unknown(Option<Fault>),
}

/// How an attempt ended.
#[derive(Debug)]
pub enum Settled {
    /// The candidate is the current credential.
    Committed {
        /// Proven by the target itself.
        verified: bool,
        /// What a person should know.
        warnings: Vec<String>,
    },
    /// The old credential stays current.
    NotChanged(Fault),
}

/// What the target said of one credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// Nothing yet.
    NotAsked,
    /// It opens the account.
    Accepted,
    /// It does not.
    Refused,
    /// Some of its hosts accept it; these do not.
    Partly(Vec<String>),
    /// The account is locked; asking again would make it worse.
    LockedOut,
    /// It could not be asked.
    CannotAsk(Box<Fault>),
}

/// Everything the table looks at.
#[derive(Debug)]
pub struct Facts {
    /// How sure the outcome of apply is.
    pub known: Sure,
    /// What the target said of the candidate.
    pub candidate: Heard,
    /// What the target said of the current credential.
    pub current: Heard,
    /// Whether it was asked again after its settle time.
    pub asked_again: bool,
    /// Whether the change may have been made between the two questions, so that
    /// both credentials were refused although one of them always worked.
    pub in_between: bool,
    /// What it said of all abandoned candidates together.
    pub abandoned: Heard,
    /// Whether an admin may reset the account to the candidate.
    pub can_reset: bool,
    /// How credentials of this account are proven.
    pub verify: VerifyBy,
    /// Whether the current credential is the likelier one, and a refusal of
    /// the other would count towards a lock-out: a permit was never noted, or
    /// the candidate was refused the last time.
    pub current_first: bool,
    /// Whether lagging hosts were given the candidate once more.
    pub applied_again: bool,
    /// Whether old and new can both be valid, so that the new one can be
    /// taken back everywhere.
    pub overlap: bool,
}

/// [`Known`] without its texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sure {
    /// No permit was given.
    NoPermit,
    /// Definitely not applied.
    No,
    /// Definitely applied.
    Yes,
    /// Not known.
    Unknown,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Log in with the candidate.
    AskCandidate,
    /// Log in with the current credential.
    AskCurrent,
    /// Give the target its settle time, then ask again.
    WaitAndAskAgain,
    /// Log in with the candidate once more.
    AskOnceMore,
    /// Log in with abandoned candidates, newest first.
    AskAbandoned,
    /// Send the same candidate again and hear a definite answer.
    ApplyAgain,
    /// Let the admin reset the account to the same candidate.
    Reset,
    /// Take the candidate back on every host.
    Revert,
    /// The candidate becomes current.
    Commit {
        /// Proven by the target.
        verified: bool,
    },
    /// The abandoned candidate that was accepted becomes current.
    AdoptAbandoned,
    /// Erase the candidate: it was never sent.
    Erase,
    /// Close the attempt and keep the candidate.
    Abandon,
    /// Keep everything, call a person.
    Park,
    /// Keep everything; the next run goes on.
    Leave,
}

/// The table: facts → the next step.
pub fn next_step(facts: &Facts) -> Step {
    use Heard::{Accepted, CannotAsk, LockedOut, NotAsked, Partly, Refused};
    match (facts.known, &facts.candidate, &facts.current) {
        (Sure::NoPermit, _, _) => Step::Erase,
        (Sure::No, _, _) => Step::Abandon,
        (Sure::Yes, _, _) if facts.verify == VerifyBy::None => Step::Commit { verified: false },
        (Sure::Unknown, _, _) if facts.verify == VerifyBy::None => Step::ApplyAgain,
        (Sure::Unknown, NotAsked, NotAsked) if facts.current_first => Step::AskCurrent,
        (Sure::Unknown, NotAsked, Accepted) if facts.current_first => Step::Abandon,
        (Sure::Unknown, NotAsked, LockedOut | CannotAsk(_)) if facts.current_first => Step::Leave,
        (_, NotAsked, _) => Step::AskCandidate,
        (_, Accepted, _) => Step::Commit { verified: true },
        (_, LockedOut | CannotAsk(_), _) => Step::Leave,
        (_, Partly(_), _) if !facts.applied_again => Step::ApplyAgain,
        (_, Refused | Partly(_), NotAsked) => Step::AskCurrent,
        (_, Refused | Partly(_), LockedOut | CannotAsk(_)) => Step::Leave,
        (_, Partly(_), Accepted) if facts.overlap => Step::Revert,
        (_, Partly(_), _) | (_, Refused, Partly(_)) => Step::Park,
        // Refused both may be the two halves of a target that is just changing.
        (_, Refused, Accepted | Refused) if !facts.asked_again => Step::WaitAndAskAgain,
        (_, Refused, Accepted) => Step::Abandon,
        (_, Refused, Refused) if facts.in_between => Step::AskOnceMore,
        (_, Refused, Refused) => match facts.abandoned {
            NotAsked => Step::AskAbandoned,
            Accepted => Step::AdoptAbandoned,
            LockedOut | CannotAsk(_) => Step::Leave,
            Refused | Partly(_) if facts.can_reset => Step::Reset,
            Refused | Partly(_) => Step::Park,
        },
    }
}

/// Settles one attempt to its end.
///
/// # Errors
/// When it stays open or is parked; everything is kept, and the state says so.
pub async fn settle(
    engine: &Engine,
    lease: &Lease,
    uid: &Uid,
    attempt: &str,
    known: Known,
    rotator: &mut Conversation,
) -> Result<Settled, Failure> {
    let proven = matches!(known, Known::NoPermit(_) | Known::DefiniteNo(_));
    let settled = settle_known(engine, lease, uid, attempt, known, rotator).await;
    settled.map_err(|failure| match failure.state {
        // A vault that fails in the middle says nothing about the target.
        State::Unchanged if !proven => then_recover(failure).state(State::Unknown),
        _ => failure,
    })
}

async fn settle_known(
    engine: &Engine,
    lease: &Lease,
    uid: &Uid,
    attempt: &str,
    known: Known,
    rotator: &mut Conversation,
) -> Result<Settled, Failure> {
    let stored = durable(|| engine.vault.read(uid))?;
    let attempt =
        stored.stage.iter().find(|open| open.id == attempt).ok_or_else(|| VaultError::NoAttempt(attempt.to_owned()))?;
    let title = stored.record.title.as_str();
    let plan = &attempt.plan;
    let (sure, mut fault, applied) = match known {
        Known::NoPermit(fault) => (Sure::NoPermit, Some(fault), None),
        Known::DefiniteNo(fault) => (Sure::No, Some(fault), None),
        Known::Yes(applied) => (Sure::Yes, None, Some(applied)),
        Known::Unknown(fault) => (Sure::Unknown, fault, None),
    };
    if let Some(applied) = &applied {
        fault = lagging(applied);
    }
    if sure == Sure::Unknown {
        quiet(engine, attempt, title, rotator.process()).await?;
    }
    let Some(mut candidate) = applied.as_ref().and_then(|applied| applied.next.as_ref()).or(attempt.candidate.as_ref())
    else {
        return match &attempt.permit {
            Some(permit) if matches!(sure, Sure::Yes | Sure::Unknown) => {
                nothing_was_learned(engine, lease, &stored, attempt, permit, fault, rotator).await
            }
            _ => close(engine, lease, uid, attempt, "nothing was made", fault, sure),
        };
    };
    let mut warnings = applied.as_ref().map(|applied| applied.warnings.clone()).unwrap_or_default();
    let candidate_is_refused = attempt.excluded.contains(&Excluded::Candidate);
    let current_is_refused = attempt.excluded.contains(&Excluded::Current);
    let mut facts = Facts {
        known: sure,
        candidate: if candidate_is_refused && current_is_refused { Heard::Refused } else { Heard::NotAsked },
        current: if current_is_refused { Heard::Refused } else { Heard::NotAsked },
        asked_again: plan.traits.settle_ms == 0 || plan.traits.lockout_sensitive,
        in_between: attempt.permit.is_some() && !current_is_refused && !candidate_is_refused,
        abandoned: Heard::NotAsked,
        can_reset: plan.admin.is_some() && plan.traits.admin_reset && attempt.permit.is_some(),
        verify: plan.traits.verify,
        current_first: candidate_is_refused || plan.traits.lockout_sensitive && attempt.permit.is_none(),
        applied_again: false,
        overlap: plan.traits.overlap == Overlap::Both,
    };
    if sure == Sure::Unknown && plan.traits.lockout_sensitive {
        tokio::time::sleep(Duration::from_millis(plan.traits.settle_ms)).await;
    }
    let mut adopt = None;
    loop {
        match next_step(&facts) {
            Step::AskCandidate => {
                engine.progress(title, "proving the new credential");
                facts.candidate = match sure {
                    Sure::Yes => prove(engine, plan, candidate, rotator).await,
                    _ => ask_once(engine, lease, uid, attempt, candidate, Excluded::Candidate, rotator).await?,
                };
                // A rotator that answers with another one than was staged may be wrong.
                if let Some(staged) = &attempt.candidate
                    && facts.candidate == Heard::Refused
                    && !staged.same_as(candidate)
                {
                    candidate = staged;
                    facts.candidate = ask(engine, plan, candidate, rotator).await;
                }
            }
            Step::AskCurrent => {
                engine.progress(title, "asking for the old credential");
                facts.current =
                    ask_once(engine, lease, uid, attempt, &plan.current, Excluded::Current, rotator).await?;
            }
            Step::AskOnceMore => {
                facts.in_between = false;
                facts.candidate =
                    ask_once(engine, lease, uid, attempt, candidate, Excluded::Candidate, rotator).await?;
            }
            Step::WaitAndAskAgain => {
                facts.asked_again = true;
                facts.candidate = ask_again(engine, plan, candidate, title, rotator).await;
            }
            Step::AskAbandoned => {
                let settled = Some((lease, attempt));
                (facts.abandoned, adopt) = ask_abandoned(engine, uid, plan, rotator, settled).await?;
            }
            Step::ApplyAgain | Step::Reset => {
                engine.progress(title, "sending the same credential again");
                facts.can_reset = false;
                facts.applied_again = true;
                match apply_again(engine, lease, uid, attempt, candidate, &facts.candidate, rotator).await {
                    Ok(again) => {
                        warnings.extend(again.warnings);
                        facts.known = Sure::Yes;
                        facts.candidate = Heard::NotAsked;
                    }
                    // The hosts that have it can give it back.
                    Err(again) if matches!(facts.candidate, Heard::Partly(_)) => fault = Some(again),
                    Err(again) if again.applied == Applied::No && facts.verify == VerifyBy::None => {
                        // Refused now does not tell what the first sending did.
                        fault = Some(again);
                        return stay_open(engine, lease, uid, attempt, &stored, fault, Step::Park);
                    }
                    Err(again) => {
                        fault = Some(again);
                        return stay_open(engine, lease, uid, attempt, &stored, fault, Step::Leave);
                    }
                }
            }
            Step::Revert => {
                engine.progress(title, "taking the new credential back");
                if let Err(again) = revert(engine, lease, attempt, candidate, rotator).await {
                    fault = Some(again);
                    return stay_open(engine, lease, uid, attempt, &stored, fault, Step::Leave);
                }
                return close(engine, lease, uid, attempt, "not every host took it", fault, sure);
            }
            Step::Commit { verified } => {
                commit(engine, lease, uid, attempt, candidate, verified)?;
                return Ok(Settled::Committed { verified, warnings });
            }
            Step::AdoptAbandoned => {
                let credential = adopt.ok_or_else(|| Failure::new("no abandoned credential was accepted"))?;
                adopt_as_current(
                    engine,
                    lease,
                    uid,
                    plan,
                    &credential,
                    "an abandoned candidate turned out to be live",
                )?;
                warnings
                    .push("an earlier candidate turned out to be live and is the current credential now".to_owned());
                return Ok(Settled::Committed { verified: true, warnings });
            }
            Step::Erase => {
                return close(engine, lease, uid, attempt, "no permit was given", fault, sure);
            }
            Step::Abandon => {
                return close(engine, lease, uid, attempt, "the target did not take it", fault, sure);
            }
            step @ (Step::Park | Step::Leave) => {
                for heard in [facts.candidate, facts.current, facts.abandoned] {
                    if let Heard::CannotAsk(cannot) = heard {
                        fault.get_or_insert(*cannot);
                    }
                }
                let failure = stay_open(engine, lease, uid, attempt, &stored, fault, step);
                return match (sure, failure) {
                    (Sure::Yes, Err(failure)) => Err(failure.state(State::Live)),
                    (_, failure) => failure,
                };
            }
        }
    }
}

/// Settles every open attempt of a record, oldest first.
///
/// # Errors
/// When one of them stays open: then nothing new may begin.
pub async fn everything_open(
    engine: &Engine,
    lease: &Lease,
    uid: &Uid,
    finish: Finish,
) -> Result<Vec<Settled>, Failure> {
    let stored = durable(|| engine.vault.read(uid))?;
    let mut settled = Vec::new();
    for attempt in &stored.stage {
        engine.progress(&stored.record.title, "settling an earlier attempt");
        let mut rotator = engine
            .rotators
            .begin(&attempt.plan.plugin)
            .await
            .map_err(|fault| Failure::from(fault).state(State::Unknown))?;
        settled.push(settle(engine, lease, uid, &attempt.id, Known::Unknown(None), &mut rotator).await?);
        rotator.end().await;
    }
    // Settling may have committed, and left something to clean up.
    let stored = if settled.is_empty() { stored } else { durable(|| engine.vault.read(uid))? };
    if stored.untold.is_some() && !stored.pending.is_empty() {
        // They come before the old credential's end; a failure says so there.
        hooks::tell(engine, lease, std::slice::from_ref(uid), &mut Vec::new()).await;
    }
    let by = finish.by();
    let undone = stored.pending.iter().find(|pending| pending.due <= by || pending.last_failure.is_some());
    if let Some(pending) = undone {
        let mut rotator = engine.rotators.begin(&pending.plan.plugin).await?;
        let mut warnings = Vec::new();
        if finish_if_due(engine, lease, uid, &mut rotator, &mut warnings, finish).await == Left::Undone {
            return Err(Failure::new(format!(
                "an earlier clean-up of \"{}\" is not done: {}",
                stored.record.title,
                warnings.join("; ")
            ))
            .state(State::Committed));
        }
        rotator.end().await;
    }
    if let (Some(parked), true) = (&stored.parked, settled.is_empty()) {
        return Err(Failure::new(format!("\"{}\" is parked: {parked}", stored.record.title))
            .state(State::Parked)
            .hint(format!("turnlock show {uid} --history; then turnlock resolve {uid} --use …")));
    }
    Ok(settled)
}

/// Takes the lease of a record, settles what is open there, and cleans up.
///
/// # Errors
/// Like [`everything_open`].
pub async fn recover(engine: &Engine, uid: &Uid, finish: Finish) -> Result<Vec<Settled>, Failure> {
    let stored = durable(|| engine.vault.read(uid))?;
    let plan = stored.stage.first().map(|attempt| &attempt.plan).or(stored.pending.first().map(|finish| &finish.plan));
    let duplicates = stored.stage.first().map(|attempt| attempt.duplicates.clone()).unwrap_or_default();
    let records: Vec<Uid> = std::iter::once(uid.clone()).chain(duplicates).collect();
    let open = !stored.stage.is_empty();
    let lease = lease::take_beside(engine, records.clone(), plan, &stored.record.title, open).await?;
    let mut settled = everything_open(engine, &lease, uid, finish).await;
    let mut failures = Vec::new();
    if settled.is_ok() && hooks::tell(engine, &lease, &records, &mut failures).await {
        settled = Err(hooks::not_all(&stored.record.title, uid, failures));
    }
    // A lease that cannot be given back runs out or is taken from the dead.
    let _ = durable(|| engine.vault.release(&lease));
    settled
}

/// A failure to begin, or what is open on the record if that is worse.
pub(crate) async fn or(engine: &Engine, uid: &Uid, failure: Failure) -> Failure {
    match durable(|| engine.vault.read(uid)) {
        Ok(stored) if !stored.stage.is_empty() => match recover(engine, uid, Finish::WhenDue).await {
            Ok(_) => failure,
            Err(worse) => worse,
        },
        _ => failure,
    }
}

/// A word on every host that did not take the change.
fn lagging(applied: &ApplyResult) -> Option<Fault> {
    let lagging = applied.hosts.iter().filter(|host| host.applied != Applied::Yes);
    let causes: Vec<String> = lagging
        .map(|host| format!("{}: {}", host.host, host.message.as_deref().unwrap_or("it is not known whether it did")))
        .collect();
    if causes.is_empty() {
        return None;
    }
    let message = format!("{} of {} hosts did not take it", causes.len(), applied.hosts.len());
    Some(Fault { causes, ..Fault::new(Kind::Conflict, message) })
}

/// Waits until the rotator that got this attempt's permit can change nothing
/// any more: it is dead, its time is over, or it is the one that speaks here,
/// which has given the one answer that ends an operation. One that still lives
/// on this machine then is ended: had it been stopped, it would go on where it
/// was, whatever the time.
async fn quiet(engine: &Engine, attempt: &Attempt, title: &str, speaking: &Process) -> Result<(), Failure> {
    let Some(PermitGiven { rotator, until, .. }) = &attempt.permit else {
        return Ok(());
    };
    while rotator != speaking && rotator.life() != Life::Dead && Timestamp::now() < *until {
        if engine.stopping() {
            return Err(Failure::new(format!("interrupted while \"{title}\" was being settled")).state(State::Unknown));
        }
        engine.progress(title, "waiting for an earlier rotator to end");
        let rest = until.duration_since(Timestamp::now()).min(SignedDuration::from_millis(20));
        tokio::time::sleep(rest.unsigned_abs()).await;
    }
    if rotator == speaking {
        return Ok(());
    }
    let since = tokio::time::Instant::now();
    while rotator.life() == Life::Alive {
        if since.elapsed() > DIES_WITHIN {
            return Err(Failure::new(format!(
                "process {}, an earlier rotator of \"{title}\", cannot be ended",
                rotator.pid
            ))
            .state(State::Unknown)
            .hint("end it, then turnlock recover"));
        }
        rotator.kill();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Asks about a credential that may be refused: counted durably first.
pub(crate) async fn ask(engine: &Engine, plan: &Plan, credential: &Credential, rotator: &mut Conversation) -> Heard {
    if credential.is_empty() {
        return Heard::Refused;
    }
    match budget::question(engine, plan) {
        Ok(log_in) => heard(Some(log_in), verify(plan, credential, rotator).await),
        Err(fault) => Heard::CannotAsk(Box::new(fault)),
    }
}

/// The same while an attempt is settled. Where refusals are counted, one is
/// noted, so that the next window of the budget goes on where this one ended.
async fn ask_once(
    engine: &Engine,
    lease: &Lease,
    uid: &Uid,
    attempt: &Attempt,
    credential: &Credential,
    which: Excluded,
    rotator: &mut Conversation,
) -> Result<Heard, VaultError> {
    let heard = ask(engine, &attempt.plan, credential, rotator).await;
    if heard == Heard::Refused && attempt.plan.traits.lockout_sensitive {
        durable(|| engine.vault.exclude(lease, uid, &attempt.id, &which))?;
    }
    Ok(heard)
}

/// Asks again and again, at ever greater intervals, until the target has had
/// its time to agree with itself.
async fn ask_again(
    engine: &Engine,
    plan: &Plan,
    credential: &Credential,
    title: &str,
    rotator: &mut Conversation,
) -> Heard {
    let (mut rest, mut pause) = (plan.traits.settle_ms, 250);
    loop {
        engine.progress(title, "waiting for the target to know the new credential");
        pause = rest.min(pause);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        rest -= pause;
        pause = (pause * 2).min(4_000);
        match ask(engine, plan, credential, rotator).await {
            Heard::Refused if rest > 0 && !engine.stopping() => {}
            heard => return heard,
        }
    }
}

/// Proves a credential that the target has taken.
async fn prove(engine: &Engine, plan: &Plan, credential: &Credential, rotator: &mut Conversation) -> Heard {
    match budget::proof(engine, plan) {
        Ok(log_in) => heard(log_in, verify(plan, credential, rotator).await),
        Err(fault) => Heard::CannotAsk(Box::new(fault)),
    }
}

fn heard(log_in: Option<LogIn<'_>>, heard: Heard) -> Heard {
    match (log_in, &heard) {
        (Some(log_in), Heard::Accepted) => log_in.accepted(),
        (Some(log_in), Heard::CannotAsk(fault)) => log_in.failed(fault),
        _ => {}
    }
    heard
}

async fn verify(plan: &Plan, credential: &Credential, rotator: &mut Conversation) -> Heard {
    let params = VerifyParams {
        account: plan.account.clone(),
        credential: credential.duplicate(),
        admin: if plan.traits.verify == VerifyBy::Admin { duplicate(&plan.admin) } else { None },
    };
    let verdicts: Result<Verdicts, Fault> =
        rotator.call(Operation::Verify, &params, plan.deadline_ms, &mut ReadOnly).await;
    match verdicts {
        Ok(Verdicts { verdict: Verdict::Accepted, .. }) => Heard::Accepted,
        Ok(Verdicts { hosts, .. }) if hosts.iter().any(|host| host.verdict == Some(Verdict::Accepted)) => {
            let lagging = hosts.into_iter().filter(|host| host.verdict != Some(Verdict::Accepted));
            Heard::Partly(lagging.map(|host| host.host).collect())
        }
        Ok(_) => Heard::Refused,
        Err(fault) if fault.kind == Kind::LockedOut => Heard::LockedOut,
        Err(fault) => Heard::CannotAsk(Box::new(fault)),
    }
}

impl Heard {
    /// Accepted, or a failure that says what was heard.
    pub(crate) fn accepted(self) -> Result<(), Failure> {
        match self {
            Self::Accepted => Ok(()),
            Self::Refused | Self::NotAsked => {
                Err(Failure::from(Fault::new(Kind::Authentication, "the target refuses the credential in the vault")))
            }
            Self::Partly(_) => Err(Failure::from(Fault::new(
                Kind::Authentication,
                "some of the hosts refuse the credential in the vault",
            ))),
            Self::LockedOut => Err(Failure::from(Fault::new(Kind::LockedOut, "the account is locked"))),
            Self::CannotAsk(fault) => Err(Failure::from(*fault)),
        }
    }
}

/// Asks every abandoned candidate of this account, newest first. Those that
/// were refused while the same attempt was settled are not asked again where
/// refusals are counted.
pub(crate) async fn ask_abandoned(
    engine: &Engine,
    uid: &Uid,
    plan: &Plan,
    rotator: &mut Conversation,
    settled: Option<(&Lease, &Attempt)>,
) -> Result<(Heard, Option<Credential>), Failure> {
    for past in durable(|| engine.vault.history(uid))? {
        let of_this_account = past.plan.as_ref().is_some_and(|theirs| theirs.identity == plan.identity);
        if past.kind != PastKind::Abandoned || !of_this_account {
            continue;
        }
        let this = Excluded::Abandoned(past.attempt);
        if settled.is_some_and(|(_, attempt)| attempt.excluded.contains(&this)) {
            continue;
        }
        let heard = match settled {
            Some((lease, attempt)) => ask_once(engine, lease, uid, attempt, &past.credential, this, rotator).await?,
            None => ask(engine, plan, &past.credential, rotator).await,
        };
        match heard {
            Heard::Accepted => return Ok((Heard::Accepted, Some(past.credential))),
            Heard::Refused => {}
            other => return Ok((other, None)),
        }
    }
    Ok((Heard::Refused, None))
}

/// Makes an abandoned candidate current if the target accepts it.
pub(crate) async fn adopt_abandoned(
    engine: &Engine,
    lease: &Lease,
    uid: &Uid,
    plan: &Plan,
    rotator: &mut Conversation,
) -> Result<bool, Failure> {
    let (_, found) = ask_abandoned(engine, uid, plan, rotator, None).await?;
    if let Some(credential) = &found {
        adopt_as_current(engine, lease, uid, plan, credential, "an abandoned candidate turned out to be live")?;
    }
    Ok(found.is_some())
}

/// Sends the same candidate again, by the admin where there is one.
async fn apply_again(
    engine: &Engine,
    lease: &Lease,
    uid: &Uid,
    attempt: &Attempt,
    candidate: &Credential,
    heard: &Heard,
    rotator: &mut Conversation,
) -> Result<ApplyResult, Fault> {
    let plan = &attempt.plan;
    let mut account = plan.account.clone();
    if let Heard::Partly(lagging) = heard {
        // The others have it, and would count the old credential as a failed log-in.
        account.insert("hosts".to_owned(), lagging.as_slice().into());
    }
    let params = ApplyParams {
        account,
        current: plan.current.duplicate(),
        next: Some(candidate.duplicate()),
        admin: duplicate(&plan.admin),
        attempt: attempt.id.clone(),
    };
    let mut gate = SameCandidate { engine, lease, uid, attempt };
    rotator.call(Operation::Apply, &params, plan.deadline_ms, &mut gate).await
}

/// Takes the candidate back on every host that has it.
async fn revert(
    engine: &Engine,
    lease: &Lease,
    attempt: &Attempt,
    candidate: &Credential,
    rotator: &mut Conversation,
) -> Result<Finished, Fault> {
    let plan = &attempt.plan;
    let params = RevertParams {
        account: plan.account.clone(),
        current: candidate.duplicate(),
        previous: plan.current.duplicate(),
        admin: duplicate(&plan.admin),
        orphans: None,
    };
    rotator.call(Operation::Revert, &params, plan.deadline_ms, &mut HoldingTheLease { engine, lease }).await
}

/// The candidate is staged already; the permit is noted anew.
struct SameCandidate<'a> {
    engine: &'a Engine,
    lease: &'a Lease,
    uid: &'a Uid,
    attempt: &'a Attempt,
}

impl Threshold for SameCandidate<'_> {
    async fn permit(&mut self, rotator: &Process) -> bool {
        let at = Timestamp::now();
        let time = self.attempt.plan.deadline_ms.saturating_add(self.attempt.plan.traits.settle_ms);
        let until = at
            .saturating_add(SignedDuration::from_millis(i64::try_from(time).unwrap_or(i64::MAX / 2_000)))
            .unwrap_or(at);
        let permit = PermitGiven { at, rotator: rotator.clone(), until };
        !self.engine.stopping()
            && durable(|| self.engine.vault.permit(self.lease, self.uid, &self.attempt.id, &permit)).is_ok()
    }
    async fn minted(&mut self, next: Credential) -> bool {
        durable(|| self.engine.vault.minted(self.lease, self.uid, &self.attempt.id, &next)).is_ok()
    }
    fn progress(&mut self, _step: &str) {}
}

/// Candidate → current. Other people's edits are kept; an edit of what this
/// attempt is about is a conflict, and a person decides.
fn commit(
    engine: &Engine,
    lease: &Lease,
    uid: &Uid,
    attempt: &Attempt,
    candidate: &Credential,
    verified: bool,
) -> Result<(), Failure> {
    let plan = &attempt.plan;
    let to_finish = plan.traits.publishes || (plan.traits.finish && !plan.current.is_empty());
    let finish_due = to_finish.then(|| plan.finish_due(Timestamp::now()));
    let commit =
        Commit { uid, duplicates: &attempt.duplicates, attempt: &attempt.id, unverified: !verified, finish_due };
    let merge = |record: &mut Record| {
        if record.uid == *uid {
            plan.still_describes(record, candidate)?;
            return plan.write(record, candidate);
        }
        write_duplicate(engine, plan, record, candidate)
    };
    match durable(|| engine.vault.commit(lease, &commit, &merge)) {
        Ok(_) => Ok(()),
        Err(error @ VaultError::Conflict { .. }) => {
            let reason = error.to_string();
            durable(|| engine.vault.park(lease, uid, Some(&attempt.id), &reason))
                .map_err(|worse| Failure::from(worse).state(State::Live))?;
            Err(Failure::from(error)
                .state(State::Parked)
                .hint(format!("turnlock show {uid} --stage; then turnlock resolve {uid} --use candidate|current")))
        }
        Err(error) => Err(then_recover(Failure::from(error)).state(State::Live)),
    }
}

/// Writes a credential into another record of the same account, at that
/// record's own places.
pub(crate) fn write_duplicate(
    engine: &Engine,
    plan: &Plan,
    record: &mut Record,
    credential: &Credential,
) -> Result<(), String> {
    if !engine.identities(record).contains(&plan.identity) {
        // Edited meanwhile: it is another account's record now.
        return Ok(());
    }
    let places = resolve::write_back(record, &plan.plugin, &engine.catalogue)
        .ok_or_else(|| "it does not say where its credential belongs".to_owned())?;
    record.write(&places, credential).map_err(|error| error.to_string())
}

/// Whatever has to be done first, the last step is to settle.
fn then_recover(mut failure: Failure) -> Failure {
    failure.hint = Some(match failure.hint.take() {
        Some(hint) => format!("{hint}; then turnlock recover"),
        None => "turnlock recover".to_owned(),
    });
    failure
}

/// Makes a proven credential current although it is not this attempt's.
pub(crate) fn adopt_as_current(
    engine: &Engine,
    lease: &Lease,
    uid: &Uid,
    plan: &Plan,
    credential: &Credential,
    why: &str,
) -> Result<(), Failure> {
    let tell = hooks::owed(engine, uid, plan)?;
    let merge = |record: &mut Record| plan.write(record, credential);
    durable(|| engine.vault.adopt(lease, uid, credential, why, tell, &merge))?;
    Ok(())
}

/// Ends an attempt whose candidate is not live: erased when it was never
/// permitted, else kept as abandoned.
fn close(
    engine: &Engine,
    lease: &Lease,
    uid: &Uid,
    attempt: &Attempt,
    reason: &str,
    fault: Option<Fault>,
    sure: Sure,
) -> Result<Settled, Failure> {
    let fault =
        fault.unwrap_or_else(|| Fault::new(Kind::Cancelled, format!("an earlier attempt changed nothing: {reason}")));
    if sure == Sure::NoPermit {
        durable(|| engine.vault.erase(lease, uid, &attempt.id, &fault.message))?;
    } else {
        // A target that made the candidate still has it.
        let minted = attempt.candidate.as_ref().filter(|_| attempt.plan.traits.origin == Origin::Target);
        let left = minted.map(|candidate| left_behind(attempt, candidate.duplicate()));
        durable(|| engine.vault.abandon(lease, uid, &attempt.id, &fault.message, left.as_ref()))?;
    }
    Ok(Settled::NotChanged(fault))
}

/// What is to be removed from a target, but never at once: somebody may turn
/// out to use it.
fn left_behind(attempt: &Attempt, credential: Credential) -> LeftBehind {
    let now = Timestamp::now();
    let tomorrow = now.saturating_add(SignedDuration::from_hours(24)).unwrap_or(now);
    LeftBehind { credential, due: attempt.plan.finish_due(now).max(tomorrow) }
}

/// Ends an attempt of which no candidate was learned. What the target made
/// without anybody hearing of it is made unusable, and removed later.
async fn nothing_was_learned(
    engine: &Engine,
    lease: &Lease,
    stored: &Stored,
    attempt: &Attempt,
    permit: &PermitGiven,
    fault: Option<Fault>,
    rotator: &mut Conversation,
) -> Result<Settled, Failure> {
    let (plan, uid) = (&attempt.plan, &stored.record.uid);
    engine.progress(&stored.record.title, "looking for what nobody learned of");
    let ago = |then: Timestamp| u64::try_from(Timestamp::now().duration_since(then).as_millis()).unwrap_or(0);
    let params = RevertParams {
        account: plan.account.clone(),
        current: Credential::empty(),
        previous: plan.current.duplicate(),
        admin: duplicate(&plan.admin),
        orphans: Some(Orphans {
            existing: attempt.existing.clone(),
            began_ms_ago: ago(permit.at),
            ended_ms_ago: ago(permit.until),
        }),
    };
    let gate = &mut HoldingTheLease { engine, lease };
    let removed: Result<Finished, Fault> = rotator.call(Operation::Revert, &params, plan.deadline_ms, gate).await;
    match removed {
        Ok(finished) => {
            let lost = || Fault::new(Kind::Cancelled, "an earlier attempt ended before its new credential was learned");
            let mut fault = fault.unwrap_or_else(lost);
            fault.causes.extend(finished.warnings);
            let left = finished.left.map(|left| left_behind(attempt, left));
            durable(|| engine.vault.abandon(lease, uid, &attempt.id, &fault.message, left.as_ref()))?;
            Ok(Settled::NotChanged(fault))
        }
        Err(Fault {
            kind: Kind::Conflict | Kind::Authentication | Kind::Permission | Kind::NotFound,
            message,
            hint,
            ..
        }) => {
            durable(|| engine.vault.park(lease, uid, Some(&attempt.id), &message))?;
            let mut failure =
                Failure::new(format!("\"{}\" needs a person: {message}", stored.record.title)).state(State::Parked);
            let resolve = format!("turnlock show {uid} --stage; then turnlock resolve {uid} --use current");
            failure.hint = Some(hint.map_or_else(|| resolve.clone(), |hint| format!("{hint}; then {resolve}")));
            Err(failure)
        }
        Err(fault) => stay_open(engine, lease, uid, attempt, stored, Some(fault), Step::Leave),
    }
}

/// Leaves the attempt open, or parks it for a person.
fn stay_open(
    engine: &Engine,
    lease: &Lease,
    uid: &Uid,
    attempt: &Attempt,
    stored: &Stored,
    fault: Option<Fault>,
    step: Step,
) -> Result<Settled, Failure> {
    let title = &stored.record.title;
    let mut failure = match fault {
        Some(fault) => Failure::from(fault),
        None => Failure::new(format!("it is not known which credential of \"{title}\" works")),
    };
    if step == Step::Park {
        let (reason, insist) = match attempt.plan.traits.verify {
            VerifyBy::None => ("a change whose answer was lost was refused when it was sent again", " --unverified"),
            _ => ("the target refuses every credential in the vault", ""),
        };
        durable(|| engine.vault.park(lease, uid, Some(&attempt.id), reason))?;
        failure.message = format!("\"{title}\" needs a person: {reason} ({})", failure.message);
        failure.hint =
            Some(format!("turnlock show {uid} --stage --history; then turnlock resolve {uid} --use …{insist}"));
        return Err(failure.state(State::Parked));
    }
    Err(then_recover(failure).state(State::Unknown))
}

/// The credential that stands in a record at the plan's write-back places,
/// over what the plan knew.
pub(crate) fn credential_in(record: &Record, plan: &Plan) -> Credential {
    let mut credential = plan.current.duplicate();
    for write_back in &plan.write_back {
        if let Some(secret) = record.get(&write_back.place) {
            credential = credential.with(&write_back.field, secret.duplicate());
        }
    }
    credential
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(known: Sure) -> Facts {
        Facts {
            known,
            candidate: Heard::NotAsked,
            current: Heard::NotAsked,
            asked_again: false,
            in_between: false,
            abandoned: Heard::NotAsked,
            can_reset: false,
            verify: VerifyBy::Login,
            current_first: false,
            applied_again: false,
            overlap: false,
        }
    }

    fn cannot() -> Heard {
        Heard::CannotAsk(Box::new(Fault::new(Kind::Unreachable, "down")))
    }

    /// The table of the design, row by row.
    #[test]
    fn every_row_of_the_table() {
        use Heard::{Accepted, LockedOut, Partly, Refused};
        let asked = |known, candidate, current| Facts { candidate, current, ..facts(known) };
        assert_eq!(next_step(&facts(Sure::NoPermit)), Step::Erase);
        assert_eq!(next_step(&facts(Sure::No)), Step::Abandon);
        assert_eq!(next_step(&facts(Sure::Yes)), Step::AskCandidate);
        let first = |current| Facts { current, current_first: true, ..facts(Sure::Unknown) };
        assert_eq!(next_step(&first(Heard::NotAsked)), Step::AskCurrent);
        assert_eq!(next_step(&first(Accepted)), Step::Abandon);
        assert_eq!(next_step(&first(Refused)), Step::AskCandidate);
        assert_eq!(next_step(&first(LockedOut)), Step::Leave);
        for known in [Sure::Yes, Sure::Unknown] {
            assert_eq!(next_step(&asked(known, Accepted, Heard::NotAsked)), Step::Commit { verified: true });
            assert_eq!(next_step(&asked(known, cannot(), Heard::NotAsked)), Step::Leave);
            assert_eq!(next_step(&asked(known, LockedOut, Heard::NotAsked)), Step::Leave);
            assert_eq!(next_step(&asked(known, Refused, Heard::NotAsked)), Step::AskCurrent);
            assert_eq!(next_step(&asked(known, Refused, cannot())), Step::Leave);
            assert_eq!(next_step(&asked(known, Refused, LockedOut)), Step::Leave);
            assert_eq!(next_step(&asked(known, Refused, Accepted)), Step::WaitAndAskAgain);
            assert_eq!(next_step(&Facts { asked_again: true, ..asked(known, Refused, Accepted) }), Step::Abandon);
            assert_eq!(next_step(&asked(known, Refused, Refused)), Step::WaitAndAskAgain);
            let both = || Facts { asked_again: true, ..asked(known, Refused, Refused) };
            assert_eq!(next_step(&Facts { in_between: true, ..both() }), Step::AskOnceMore);
            assert_eq!(next_step(&both()), Step::AskAbandoned);
            assert_eq!(next_step(&Facts { abandoned: Accepted, ..both() }), Step::AdoptAbandoned);
            assert_eq!(next_step(&Facts { abandoned: cannot(), ..both() }), Step::Leave);
            assert_eq!(next_step(&Facts { abandoned: Refused, ..both() }), Step::Park);
            assert_eq!(next_step(&Facts { abandoned: Refused, can_reset: true, ..both() }), Step::Reset);
            // Several hosts: the lagging ones once more, else back everywhere.
            let partly = |current, applied_again, overlap| {
                next_step(&Facts { applied_again, overlap, ..asked(known, Partly(Vec::new()), current) })
            };
            assert_eq!(partly(Heard::NotAsked, false, true), Step::ApplyAgain);
            assert_eq!(partly(Heard::NotAsked, true, true), Step::AskCurrent);
            assert_eq!(partly(Accepted, true, true), Step::Revert);
            assert_eq!(partly(Accepted, true, false), Step::Park);
            assert_eq!(partly(Refused, true, true), Step::Park);
            assert_eq!(partly(cannot(), true, true), Step::Leave);
            assert_eq!(next_step(&asked(known, Refused, Partly(Vec::new()))), Step::Park);
        }
        let unaskable = |known| Facts { verify: VerifyBy::None, ..facts(known) };
        assert_eq!(next_step(&unaskable(Sure::Yes)), Step::Commit { verified: false });
        assert_eq!(next_step(&unaskable(Sure::Unknown)), Step::ApplyAgain);
    }

    /// Nothing is erased that had a permit, and nothing is committed unproven
    /// where proof can be had: over every combination of facts.
    #[test]
    fn no_combination_erases_or_commits_without_proof() {
        let heard = || {
            [Heard::NotAsked, Heard::Accepted, Heard::Refused, Heard::Partly(Vec::new()), Heard::LockedOut, cannot()]
        };
        for known in [Sure::NoPermit, Sure::No, Sure::Yes, Sure::Unknown] {
            for candidate in heard() {
                for current in heard() {
                    for abandoned in heard() {
                        for bits in 0..8 {
                            let facts = Facts {
                                candidate: candidate.clone(),
                                current: current.clone(),
                                abandoned: abandoned.clone(),
                                asked_again: bits & 1 != 0,
                                can_reset: bits & 2 != 0,
                                in_between: bits & 4 != 0,
                                ..facts(known)
                            };
                            match next_step(&facts) {
                                Step::Erase => assert_eq!(known, Sure::NoPermit),
                                Step::Commit { verified } => {
                                    assert!(verified && candidate == Heard::Accepted, "{facts:?}");
                                }
                                Step::AdoptAbandoned => assert_eq!(abandoned, Heard::Accepted),
                                _ => {}
                            }
                        }
                    }
                }
            }
        }
    }
}
