//! How often a target may be told a credential that it could refuse. Targets
//! lock accounts after a few such log-ins, so they are counted in the vault,
//! durably and before each of them, and given back when they cost nothing.

use turnlock_protocol::{Fault, Kind};

use crate::engine::{Engine, durable};
use crate::plan::{Identity, Plan};
use crate::vault::VaultError;

/// Where accounts are locked, two refusals within the target's own window are
/// as many as we dare: three are the strictest threshold in use.
const WHERE_ACCOUNTS_ARE_LOCKED: u32 = 2;
/// Elsewhere it only has to end a loop.
const ELSEWHERE: (u64, u32) = (600_000, 60);

/// One log-in that may fail, already counted.
#[must_use]
pub(crate) struct LogIn<'a> {
    engine: &'a Engine,
    who: Identity,
}

/// Counts a question about one of the account's own credentials.
pub(crate) fn question<'a>(engine: &'a Engine, plan: &Plan) -> Result<LogIn<'a>, Fault> {
    let (window, limit) = allowed(plan);
    spend(engine, plan.identity.clone(), window, limit)
}

/// Counts the proof of a credential that the target has just taken. It is not
/// refused, only remembered should the target go back on its word.
pub(crate) fn proof<'a>(engine: &'a Engine, plan: &Plan) -> Result<Option<LogIn<'a>>, Fault> {
    if !plan.traits.lockout_sensitive {
        return Ok(None);
    }
    spend(engine, plan.identity.clone(), allowed(plan).0, u32::MAX).map(Some)
}

/// Counts the log-in of whoever does the work of a change or a check. An admin
/// may serve many accounts at once, so of one that is not yet known to be
/// refused nothing is counted beforehand.
pub(crate) fn work<'a>(engine: &'a Engine, plan: &Plan) -> Result<Work<'a>, Fault> {
    if !plan.traits.lockout_sensitive {
        return Ok(Work::NotCounted);
    }
    let (window, limit) = allowed(plan);
    let Some(admin) = &plan.admin else {
        return question(engine, plan).map(Work::Own);
    };
    let who = Identity { login: admin.login.clone(), ..plan.identity.clone() };
    spend(engine, who.clone(), window, limit)?.cost_nothing();
    Ok(Work::OfAnAdmin { engine, who, window })
}

/// A log-in of whoever does the work.
pub(crate) enum Work<'a> {
    /// Nobody locks accounts there.
    NotCounted,
    /// The account's own, already counted.
    Own(LogIn<'a>),
    /// An admin's, counted when it was refused.
    OfAnAdmin {
        /// Who keeps the count.
        engine: &'a Engine,
        /// The admin's account.
        who: Identity,
        /// In milliseconds.
        window: u64,
    },
}

impl Work<'_> {
    /// It went well.
    pub(crate) fn accepted(self) {
        if let Self::Own(log_in) = self {
            log_in.accepted();
        }
    }

    /// Nobody came to it.
    pub(crate) fn was_not_made(self) {
        if let Self::Own(log_in) = self {
            log_in.cost_nothing();
        }
    }

    /// It did not go well, or nobody knows.
    pub(crate) fn failed(self, fault: &Fault) {
        match self {
            Self::Own(log_in) => log_in.failed(fault),
            // A count that cannot be written has been told to the target already.
            Self::OfAnAdmin { engine, who, window } if fault.kind == Kind::Authentication => {
                drop(spend(engine, who, window, u32::MAX));
            }
            Self::OfAnAdmin { .. } | Self::NotCounted => {}
        }
    }
}

impl LogIn<'_> {
    /// The target let us in, which ends its own count.
    pub(crate) fn accepted(self) {
        // A count that stays too high only makes us more careful.
        drop(durable(|| self.engine.vault.forgive(&self.who)));
    }

    /// Nothing was told to the target.
    fn cost_nothing(self) {
        drop(durable(|| self.engine.vault.refund(&self.who)));
    }

    /// There was no verdict, or a bad one. It stays counted unless nothing was
    /// shown to the target, or what it said is no word on the password.
    pub(crate) fn failed(self, fault: &Fault) {
        use Kind::{Conflict, HostKey, InvalidInput, NotFound, Permission, Policy, Tls, Unreachable, Unsupported};
        let free = [Conflict, HostKey, InvalidInput, NotFound, Permission, Policy, Tls, Unreachable, Unsupported];
        if free.contains(&fault.kind) {
            self.cost_nothing();
        }
    }
}

fn allowed(plan: &Plan) -> (u64, u32) {
    if plan.traits.lockout_sensitive {
        (plan.traits.lockout_window_ms.max(1), WHERE_ACCOUNTS_ARE_LOCKED)
    } else {
        ELSEWHERE
    }
}

fn spend(engine: &Engine, who: Identity, window: u64, limit: u32) -> Result<LogIn<'_>, Fault> {
    match durable(|| engine.vault.spend(&who, window, limit)) {
        Ok(()) => Ok(LogIn { engine, who }),
        Err(error @ VaultError::BudgetSpent { .. }) => {
            Err(Fault::new(Kind::LockedOut, format!("{error}: {who} was refused too often to ask again"))
                .hint("correct the password in the vault, and wait: one more refusal could lock the account"))
        }
        Err(error) => Err(Fault::new(Kind::Internal, error.to_string())),
    }
}
