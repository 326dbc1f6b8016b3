//! One rotation, from record to commit:
//!
//! lease → resolve → prepare → STAGE → apply ⟨permit⟩ → verify → COMMIT → hooks → finish → release

use jiff::{SignedDuration, Timestamp};
use turnlock_protocol::operation::{Admin, ApplyParams, ApplyResult, FinishParams, Finished, PrepareParams, Prepared};
use turnlock_protocol::{Applied, Credential, Fault, Kind, Operation, Origin, Secret};

use crate::budget;
use crate::child::{Conversation, Threshold};
use crate::engine::{Engine, durable};
use crate::failure::{Failure, State};
use crate::generate::{self, SystemRandom};
use crate::hooks;
use crate::lease;
use crate::plan::Plan;
use crate::record::Uid;
use crate::resolve::{self, Options};
use crate::settle::{self, Known, Settled};
use crate::stage::{Attempt, PermitGiven, Process, STAGE_FORMAT};
use crate::vault::{CleanUp, Lease, Note, Stored};

/// How often one rotation may draw another candidate after the target refused
/// one and told why.
const ATTEMPTS: usize = 2;

/// A rotation that was asked for.
#[derive(Debug, Default)]
pub struct Wanted {
    /// What the command line says over the record.
    pub options: Options,
    /// Commit all records of the account together.
    pub with_duplicates: bool,
}

/// A rotation that was done.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Rotated {
    /// The record.
    pub uid: Uid,
    /// Its title.
    pub title: String,
    /// The account, for people.
    pub account: String,
    /// Whether the target itself proved the new credential.
    pub verified: bool,
    /// What a person should know although it worked.
    pub warnings: Vec<String>,
    /// Whether something of the old credential is still to be removed.
    pub finish_open: bool,
    /// Whether somebody is still to be told of the new one.
    pub hooks_open: bool,
}

/// Rotates one record.
///
/// # Errors
/// A failure whose state says which credential works now.
pub async fn rotate(engine: &Engine, uid: &Uid, wanted: &Wanted) -> Result<Rotated, Failure> {
    let (stored, plan) = match engine.plan_of(uid, &wanted.options) {
        Ok(found) => found,
        // A record that no longer resolves may still have something open.
        Err(failure) => return Err(settle::or(engine, uid, failure).await),
    };
    let duplicates = duplicates(engine, uid, &plan, wanted.with_duplicates)?;
    let records = std::iter::once(uid.clone()).chain(duplicates.iter().cloned()).collect();
    let open = !stored.stage.is_empty();
    // It starts while the lease becomes durable, and is told nothing before that.
    let starting = async { if open { None } else { Some(engine.rotators.begin(&plan.plugin).await) } };
    let taking = lease::take_beside(engine, records, Some(&plan), &stored.record.title, open);
    let (started, lease) = tokio::join!(starting, taking);
    let lease = lease?;
    let outcome = holding(engine, uid, wanted, &duplicates, &lease, &plan, started).await;
    // A lease that cannot be given back runs out or is taken from the dead.
    let _ = durable(|| engine.vault.release(&lease));
    outcome
}

/// The same, and a failure that the target or its rotator told is remembered:
/// the record can be selected by it, and rests before its next turn.
///
/// # Errors
/// Like [`rotate`].
pub async fn rotate_and_note(engine: &Engine, uid: &Uid, wanted: &Wanted) -> Result<Rotated, Failure> {
    let outcome = rotate(engine, uid, wanted).await;
    if let Err(failure) = &outcome
        && failure.kind.is_some_and(|kind| kind != Kind::Cancelled)
    {
        // The failure is told to whoever asked, whether it can be noted or not.
        let _ = durable(|| engine.vault.note(uid, &Note::Failed(failure.message.clone())));
    }
    outcome
}

async fn holding(
    engine: &Engine,
    uid: &Uid,
    wanted: &Wanted,
    duplicates: &[Uid],
    lease: &Lease,
    seen: &Plan,
    started: Option<Result<Conversation, Fault>>,
) -> Result<Rotated, Failure> {
    settle::everything_open(engine, lease, uid, Finish::WhenDue).await?;
    let (mut stored, mut plan) = engine.plan_of(uid, &wanted.options)?;
    if plan.identity != seen.identity || plan.admin_uid != seen.admin_uid {
        return Err(
            Failure::new(format!("\"{}\" was edited meanwhile", stored.record.title)).hint("repeat the command")
        );
    }
    let title = stored.record.title.clone();
    engine.progress(&title, "starting the rotator");
    let mut rotator = match started {
        Some(started) => started?,
        None => engine.rotators.begin(&plan.plugin).await?,
    };
    engine.ask_traits(&mut rotator, &mut plan).await?;
    let traits = plan.traits.clone();

    for last in (0..ATTEMPTS).map(|attempt| attempt + 1 == ATTEMPTS) {
        plan.traits = traits.clone();
        let attempt = prepare(engine, &mut rotator, plan, &stored, &wanted.options, duplicates).await?;
        let log_in =
            budget::work(engine, &attempt.plan).map_err(|fault| Failure::from(fault).state(State::Unchanged))?;
        let mut gate = Gate::new(engine, lease, uid, &attempt, &title);
        engine.progress(&title, "staging");
        if let Err(failure) = stage(engine, lease, uid, &stored, &attempt) {
            log_in.was_not_made();
            return Err(failure);
        }
        engine.progress(&title, "changing");
        let known = apply(&mut rotator, &attempt, &mut gate).await;
        // With the permit it was given back: a rotator asks for that when it is logged in.
        if let Known::NoPermit(fault) = &known {
            log_in.failed(fault);
        }
        if rotator.is_over()
            && let Ok(another) = engine.rotators.begin(&attempt.plan.plugin).await
        {
            rotator = another;
        }
        match settle::settle(engine, lease, uid, &attempt.id, known, &mut rotator).await? {
            Settled::Committed { verified, mut warnings } => {
                let hooks_open = hooks::tell(engine, lease, &attempt.tell, &mut warnings).await;
                let left = finish_if_due(engine, lease, uid, &mut rotator, &mut warnings, Finish::WhenDue).await;
                rotator.end().await;
                warnings.splice(0..0, attempt.plan.remarks.iter().cloned());
                let account = attempt.plan.identity.to_string();
                let finish_open = left != Left::Nothing;
                return Ok(Rotated { uid: uid.clone(), title, account, verified, warnings, finish_open, hooks_open });
            }
            Settled::NotChanged(fault) if !last && learned(engine, lease, uid, &attempt, &fault)? => {}
            Settled::NotChanged(fault)
                if !last && fault.kind == Kind::Authentication && attempt.plan.admin.is_none() =>
            {
                // A change of an earlier attempt may have landed after it was given up.
                engine.progress(&title, "asking for earlier candidates");
                if !settle::adopt_abandoned(engine, lease, uid, &attempt.plan, &mut rotator).await? {
                    rotator.end().await;
                    return Err(not_changed(fault, uid, &attempt.plan));
                }
            }
            Settled::NotChanged(fault) => {
                rotator.end().await;
                return Err(not_changed(fault, uid, &attempt.plan));
            }
        }
        (stored, plan) = engine.plan_of(uid, &wanted.options)?;
    }
    Err(Failure::new(format!("the target refused every new secret for \"{title}\"")))
}

/// A definite no, with a way out where a stored credential is to blame.
fn not_changed(fault: Fault, uid: &Uid, plan: &Plan) -> Failure {
    let refused = fault.kind == Kind::Authentication && fault.hint.is_none();
    let failure = Failure::from(fault).state(State::Unchanged);
    match &plan.admin_uid {
        _ if !refused => failure,
        Some(admin) => failure.hint(format!("turnlock edit {admin} --password - corrects the admin's record")),
        None => failure.hint(format!(
            "turnlock verify {uid} --try-history tries its past credentials, turnlock edit {uid} --password - corrects it"
        )),
    }
}

/// Whether the target refused the candidate itself, so that another one may
/// do. What it told of its rule is remembered.
fn learned(engine: &Engine, lease: &Lease, uid: &Uid, attempt: &Attempt, fault: &Fault) -> Result<bool, Failure> {
    if fault.kind != Kind::Policy || attempt.plan.supplied.is_some() {
        return Ok(false);
    }
    if let Some(limits) = &fault.learned {
        durable(|| engine.vault.learn(lease, uid, limits))?;
    }
    Ok(true)
}

/// Makes the attempt: the candidate by its origin, and the plan that goes with it.
async fn prepare(
    engine: &Engine,
    rotator: &mut Conversation,
    mut plan: Plan,
    stored: &Stored,
    options: &Options,
    duplicates: &[Uid],
) -> Result<Attempt, Failure> {
    let mut prepared = Prepared::default();
    if plan.traits.origin != Origin::Orchestrator || plan.traits.policy_from_target {
        let params = PrepareParams {
            account: plan.account.clone(),
            current: Some(plan.current.duplicate()),
            policy: plan.policy.clone(),
            admin: duplicate(&plan.admin),
        };
        prepared = rotator.call(Operation::Prepare, &params, plan.deadline_ms, &mut crate::child::ReadOnly).await?;
    }
    if let Some(policy) = prepared.policy.take() {
        plan.policy = policy;
    }
    plan.policy = plan.policy.within(&plan.traits.password);
    let history = durable(|| engine.vault.history(&stored.record.uid))?;
    let used: Vec<&Secret> = history
        .iter()
        .map(|past| &past.credential)
        .chain([&plan.current])
        .chain(stored.stage.iter().filter_map(|attempt| attempt.candidate.as_ref()))
        .flat_map(Credential::fields)
        .map(|(_, secret)| secret)
        .collect();
    let title = &stored.record.title;
    let candidate = match (prepared.next, plan.traits.origin) {
        (Some(next), _) => Some(next),
        (None, Origin::Target) => None,
        (None, Origin::Rotator) => {
            return Err(Failure::new(format!("turnlock-{} prepared no new credential for \"{title}\"", plan.plugin)));
        }
        (None, Origin::Orchestrator) => Some(Credential::password(match &plan.supplied {
            Some(supplied) => {
                plan.policy
                    .validate(supplied)
                    .map_err(|error| Failure::usage(format!("the password you gave cannot be used: {error}")))?;
                supplied.duplicate()
            }
            None => match resolve::passphrase_words(&stored.record, options)? {
                Some(words) => generate::passphrase(
                    words,
                    &diceware_wordlists::EFF_LONG_WORDLIST,
                    &plan.policy,
                    &used,
                    &mut SystemRandom,
                ),
                None => generate::candidate(&plan.policy, &used),
            }
            .map_err(|error| Failure::new(format!("no new secret can be made for \"{title}\": {error}")))?,
        })),
    };
    if let Some(candidate) = &candidate
        && candidate.fields().any(|(_, secret)| used.iter().any(|old| old.same_as(secret)))
    {
        return Err(Failure::usage(format!("the new secret of \"{title}\" was used before")).hint("choose another one"));
    }
    let mut id = [0u8; 12];
    getrandom::fill(&mut id).map_err(|_| Failure::new("the system's source of randomness failed"))?;
    Ok(Attempt {
        format: STAGE_FORMAT,
        id: id.iter().map(|byte| format!("{byte:02x}")).collect(),
        staged_at: Timestamp::now(),
        candidate: candidate.map(|candidate| plan.completed(candidate)),
        plan,
        existing: prepared.existing,
        duplicates: duplicates.to_vec(),
        tell: hooks::of_all(engine, &stored.record, duplicates)?,
        permit: None,
        parked: None,
        excluded: Vec::new(),
    })
}

/// Nothing may change before this has returned: the candidate is durable, and
/// what is durable can be read.
fn stage(engine: &Engine, lease: &Lease, uid: &Uid, stored: &Stored, attempt: &Attempt) -> Result<(), Failure> {
    durable(|| engine.vault.stage(lease, uid, stored.revision, attempt))?;
    let read = durable(|| engine.vault.read_back(uid, &attempt.id))?;
    let same = match (&read.candidate, &attempt.candidate) {
        (Some(read), Some(written)) => read.same_as(written),
        (None, None) => true,
        _ => false,
    };
    if same && read.plan.account == attempt.plan.account {
        return Ok(());
    }
    durable(|| engine.vault.erase(lease, uid, &attempt.id, "could not be read back"))?;
    Err(Failure::new(format!("the vault did not keep what was staged for \"{}\"", stored.record.title))
        .hint("turnlock vault check"))
}

/// Changes the target, and tells what is known afterwards.
async fn apply(rotator: &mut Conversation, attempt: &Attempt, gate: &mut Gate<'_>) -> Known {
    let plan = &attempt.plan;
    let params = ApplyParams {
        account: plan.account.clone(),
        current: plan.current.duplicate(),
        next: attempt.candidate.as_ref().map(Credential::duplicate),
        admin: duplicate(&plan.admin),
        attempt: attempt.id.clone(),
    };
    let result: Result<ApplyResult, Fault> = rotator.call(Operation::Apply, &params, plan.deadline_ms, gate).await;
    match result {
        Ok(result) => Known::Yes(result),
        Err(fault) if !gate.permitted => Known::NoPermit(gate.refusal.take().unwrap_or(fault)),
        Err(fault) if fault.applied == Applied::No => Known::DefiniteNo(fault),
        Err(fault) => Known::Unknown(Some(fault)),
    }
}

/// Answers the rotator at the threshold.
struct Gate<'a> {
    engine: &'a Engine,
    lease: &'a Lease,
    uid: &'a Uid,
    attempt: &'a str,
    title: &'a str,
    until: SignedDuration,
    permitted: bool,
    /// Why no permit was given, when that was our own decision.
    refusal: Option<Fault>,
}

impl<'a> Gate<'a> {
    fn new(engine: &'a Engine, lease: &'a Lease, uid: &'a Uid, attempt: &'a Attempt, title: &'a str) -> Self {
        let until = attempt.plan.deadline_ms.saturating_add(attempt.plan.traits.settle_ms);
        let until = SignedDuration::from_millis(i64::try_from(until).unwrap_or(i64::MAX / 2_000));
        Self { engine, lease, uid, attempt: &attempt.id, title, until, permitted: false, refusal: None }
    }
}

impl Threshold for Gate<'_> {
    async fn permit(&mut self, rotator: &Process) -> bool {
        if self.engine.stopping() {
            self.refusal = Some(Fault::new(
                Kind::Cancelled,
                format!("\"{}\" was interrupted before anything changed", self.title),
            ));
            return false;
        }
        let at = Timestamp::now();
        let until = at.saturating_add(self.until).unwrap_or(at);
        let permit = PermitGiven { at, rotator: rotator.clone(), until };
        match durable(|| self.engine.vault.permit(self.lease, self.uid, self.attempt, &permit)) {
            Ok(()) => {
                self.permitted = true;
                true
            }
            Err(error) => {
                self.refusal = Some(Fault::new(Kind::Cancelled, format!("no permit for \"{}\": {error}", self.title)));
                false
            }
        }
    }

    async fn minted(&mut self, next: Credential) -> bool {
        durable(|| self.engine.vault.minted(self.lease, self.uid, self.attempt, &next)).is_ok()
    }

    fn progress(&mut self, step: &str) {
        self.engine.progress(self.title, step);
    }
}

/// What cleaning up has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Left {
    /// Nothing.
    Nothing,
    /// What is not due yet.
    Later,
    /// What could not be done.
    Undone,
}

/// When what old credentials left behind is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// When its grace is over.
    WhenDue,
    /// Now, whatever its grace.
    Now,
}

impl Finish {
    /// Until when it must have been due.
    pub(crate) fn by(self) -> Timestamp {
        match self {
            Self::WhenDue => Timestamp::now(),
            Self::Now => Timestamp::MAX,
        }
    }
}

/// Removes what the old credentials left behind, where that is due,
/// and publishes the new one at once where the rotator does such a thing. Its
/// failure never fails the rotation.
pub(crate) async fn finish_if_due(
    engine: &Engine,
    lease: &Lease,
    uid: &Uid,
    rotator: &mut Conversation,
    warnings: &mut Vec<String>,
    finish: Finish,
) -> Left {
    let by = finish.by();
    let (pending, untold) = match durable(|| engine.vault.read(uid)) {
        Ok(stored) => (stored.pending, stored.untold.is_some()),
        Err(error) => {
            warnings.push(error.to_string());
            return Left::Undone;
        }
    };
    let mut left = Left::Nothing;
    if untold && !pending.is_empty() {
        warnings.push(format!("not cleaned up yet: its hooks have not all run (turnlock hooks retry {uid})"));
    }
    for finish in pending {
        // Whoever has not heard of the new credential may still use the old one.
        let in_grace = untold || finish.due > by;
        if in_grace {
            left = left.max(Left::Later);
            if !finish.plan.traits.publishes {
                continue;
            }
        }
        let done = finish_one(engine, lease, uid, &finish, in_grace, rotator).await;
        let outcome = match &done {
            Ok(_) if in_grace => CleanUp::Waits,
            Ok(_) => CleanUp::Done,
            Err(failure) => CleanUp::Failed(&failure.message),
        };
        if let Err(error) = durable(|| engine.vault.finished(lease, uid, &finish.attempt, outcome)) {
            warnings.push(error.to_string());
            left = Left::Undone;
        }
        match done {
            Ok(finished) => warnings.extend(finished.warnings),
            Err(failure) => {
                warnings.push(format!("not cleaned up yet: {failure}"));
                left = Left::Undone;
            }
        }
    }
    left
}

async fn finish_one(
    engine: &Engine,
    lease: &Lease,
    uid: &Uid,
    finish: &crate::stage::PendingFinish,
    in_grace: bool,
    rotator: &mut Conversation,
) -> Result<Finished, Failure> {
    let stored = durable(|| engine.vault.read(uid))?;
    let plan = &finish.plan;
    let current = settle::credential_in(&stored.record, plan);
    let alive = stored.stage.iter().filter_map(|attempt| attempt.candidate.as_ref()).chain([&current]);
    if alive.into_iter().any(|alive| shares_a_secret(plan, alive, &finish.previous)) {
        return Err(Failure::new("what would be removed is still in use"));
    }
    settle::ask(engine, plan, &current, rotator).await.accepted()?;
    let params = FinishParams {
        account: plan.account.clone(),
        current,
        previous: finish.previous.duplicate(),
        admin: duplicate(&plan.admin),
        in_grace,
    };
    let mut gate = HoldingTheLease { engine, lease };
    Ok(rotator.call(Operation::Finish, &params, plan.deadline_ms, &mut gate).await?)
}

/// Whether a secret that was replaced is in use again.
fn shares_a_secret(plan: &Plan, one: &Credential, other: &Credential) -> bool {
    let rotated = one.fields().filter(|(name, _)| plan.rotates(name));
    rotated.into_iter().any(|(name, secret)| other.get(name).is_some_and(|theirs| theirs.same_as(secret)))
}

/// Cleaning up needs no stage, only that we still hold the lease.
pub(crate) struct HoldingTheLease<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) lease: &'a Lease,
}

impl Threshold for HoldingTheLease<'_> {
    async fn permit(&mut self, _rotator: &Process) -> bool {
        !self.engine.stopping() && durable(|| self.engine.vault.renew(self.lease)).is_ok()
    }
    async fn minted(&mut self, _next: Credential) -> bool {
        false
    }
    fn progress(&mut self, _step: &str) {}
}

/// Other records of the same account. Rotating one of them alone would leave
/// the others with a dead secret.
fn duplicates(engine: &Engine, uid: &Uid, plan: &Plan, with_duplicates: bool) -> Result<Vec<Uid>, Failure> {
    let mut others = durable(|| engine.vault.same_account(&plan.identity))?;
    others.retain(|other| other != uid);
    if others.is_empty() || with_duplicates {
        return Ok(others);
    }
    let mut failure =
        Failure::usage(format!("{} other record(s) hold the same account {}", others.len(), plan.identity))
            .hint("rotate them together with --with-duplicates, or remove all but one");
    failure.causes = others.iter().map(ToString::to_string).collect();
    Err(failure)
}

/// A second holder of an admin's login.
pub(crate) fn duplicate(admin: &Option<Admin>) -> Option<Admin> {
    admin.as_ref().map(|admin| Admin {
        login: admin.login.clone(),
        credential: admin.credential.duplicate(),
        account: admin.account.clone(),
    })
}
