//! Whether a stored credential still works, and what to do where it does not.
//!
//! The target is asked for the current credential first, then for what else
//! could be live; each question is counted in the log-in budget before it is
//! asked.

use turnlock_protocol::{Kind, VerifyBy};

use crate::engine::{Engine, durable};
use crate::failure::{Failure, State};
use crate::hooks;
use crate::lease;
use crate::plan::Plan;
use crate::record::Uid;
use crate::resolve::Options;
use crate::rotate::{Rotated, Wanted, rotate_and_note};
use crate::settle::{self, Heard};
use crate::vault::{Lease, Note};

/// What may be done about a credential that does not work any more.
#[derive(Debug, Clone, Copy, Default)]
pub struct Remedy {
    /// Try the record's past ones.
    pub try_history: bool,
    /// Let the admin set a new one.
    pub reconcile: bool,
}

/// What came of the question.
#[derive(Debug)]
pub enum Proven {
    /// The current credential works.
    Works,
    /// An earlier one works, and is the current one now.
    Adopted,
    /// None worked; the admin has set a new one.
    Reconciled(Rotated),
    /// This target cannot be asked.
    CannotBeAsked,
}

/// Asks the target whether a record's credential still works, and notes the answer.
///
/// # Errors
/// When it does not work and nothing helped, or the target could not be asked.
pub async fn prove(engine: &Engine, uid: &Uid, remedy: Remedy) -> Result<Proven, Failure> {
    let (title, has_admin, outcome) = ask(engine, uid, remedy.try_history).await?;
    let failure = match outcome {
        Ok(proven) => {
            if !matches!(proven, Proven::CannotBeAsked) {
                // What could not be noted is asked once more another day.
                let _ = durable(|| engine.vault.note(uid, &Note::Proven));
            }
            return Ok(proven);
        }
        Err(failure) => failure.about(&title),
    };
    if failure.kind != Some(Kind::Authentication) {
        return Err(failure);
    }
    let _ = durable(|| engine.vault.note(uid, &Note::Drifted(failure.message.clone())));
    if remedy.reconcile && has_admin {
        engine.progress(&title, "letting the admin set a new one");
        return rotate_and_note(engine, uid, &Wanted::default()).await.map(Proven::Reconciled);
    }
    Err(failure.hint(match (has_admin, remedy.try_history) {
        (true, _) => format!("turnlock verify {uid} --reconcile lets its admin set a new one"),
        (false, true) => format!("turnlock resolve {uid} --use password, with the right one"),
        (false, false) => format!("turnlock verify {uid} --try-history, or turnlock resolve {uid} --use password"),
    }))
}

/// The record's title, whether an admin could help, and what the target said.
type Asked = (String, bool, Result<Proven, Failure>);

async fn ask(engine: &Engine, uid: &Uid, try_history: bool) -> Result<Asked, Failure> {
    let (stored, mut plan) = engine.plan_of(uid, &Options::default())?;
    let title = stored.record.title;
    let has_admin = plan.admin.is_some() && plan.traits.admin_reset;
    if plan.traits.verify == VerifyBy::None {
        return Ok((title, has_admin, Ok(Proven::CannotBeAsked)));
    }
    let lease = lease::take(engine, vec![uid.clone()], Some(&plan), &title).await?;
    let outcome = if stored.stage.is_empty() {
        holding(engine, &lease, uid, &mut plan, try_history).await
    } else {
        let failure = Failure::new(format!("\"{title}\" has an open rotation")).state(State::Unknown);
        Err(failure.hint(format!("turnlock recover {uid}")))
    };
    // A lease that cannot be given back runs out or is taken from the dead.
    let _ = durable(|| engine.vault.release(&lease));
    Ok((title, has_admin, outcome))
}

async fn holding(
    engine: &Engine,
    lease: &Lease,
    uid: &Uid,
    plan: &mut Plan,
    try_history: bool,
) -> Result<Proven, Failure> {
    let mut rotator = engine.rotator_for(plan).await?;
    let mut found = None;
    let mut heard = settle::ask(engine, plan, &plan.current, &mut rotator).await;
    if heard == Heard::Refused {
        (heard, found) = settle::ask_abandoned(engine, uid, plan, &mut rotator, None).await?;
    }
    if heard == Heard::Refused && try_history {
        for past in durable(|| engine.vault.history(uid))? {
            heard = settle::ask(engine, plan, &past.credential, &mut rotator).await;
            if heard != Heard::Refused {
                found = Some(past.credential);
                break;
            }
        }
    }
    rotator.end().await;
    match (heard, found) {
        (Heard::Accepted, None) => Ok(Proven::Works),
        (Heard::Accepted, Some(credential)) => {
            let why = "found to be the live one by verify";
            settle::adopt_as_current(engine, lease, uid, plan, &credential, why)?;
            // What fails stays owed: turnlock status shows it.
            hooks::tell(engine, lease, std::slice::from_ref(uid), &mut Vec::new()).await;
            Ok(Proven::Adopted)
        }
        (heard, _) => Err(heard.accepted().err().unwrap_or_else(|| Failure::new("not accepted"))),
    }
}
