//! One account at one machine, up to the moment before its password changes,
//! and the change: by the account itself, or by an admin.

use turnlock_kit::{CredentialState, Fault, Kind, NotIn, PasswordLimits, Secret, WorkingSet};

use crate::accounts::{Resettable, Rules};
use crate::session::{Place, Session};
use crate::status::Refusal;

/// Everything that can be done before a change is done.
pub struct Ready {
    session: Session,
    /// By an admin.
    resettable: Option<Resettable>,
}

impl Ready {
    /// Logs in whoever does the work, and asks for the right to do it.
    ///
    /// # Errors
    /// Why nothing could be changed.
    pub async fn at(place: &Place, login: &str, worker: &WorkingSet<'_>) -> Result<Self, Fault> {
        let mut session = Session::log_in(place, worker.login, worker.password).await?;
        session.speak_of_accounts().await?;
        session.keeps(login).await?;
        let resettable = if worker.is_admin { Some(session.resettable(login).await?) } else { None };
        Ok(Self { session, resettable })
    }

    /// Changes the password, once.
    ///
    /// # Errors
    /// What the machine said, with its rules where it refused the new one, and
    /// whether nothing changed for certain.
    pub async fn change(&mut self, login: &str, old: &Secret, new: &Secret) -> Result<(), Refusal> {
        let changed = match &self.resettable {
            Some(resettable) => self.session.reset(resettable, new).await,
            None => self.session.change(login, old, new).await,
        };
        let Err(mut refusal) = changed else { return Ok(()) };
        if refusal.fault.kind == Kind::Policy
            && let Some(rules) = self.rules().await
        {
            refusal.fault = rules.told(refusal.fault);
        }
        Err(refusal)
    }

    /// Whether a new password is long enough, where the machine tells its rules.
    ///
    /// # Errors
    /// `policy` when it is not.
    pub async fn would_take(&mut self, login: &str, new: &Secret) -> Result<(), Fault> {
        match self.rules().await {
            Some(rules) if !rules.is_long_enough(new) => {
                let message =
                    format!("{} refuses this password for \"{login}\": it is too short", self.session.place());
                Err(rules.told(Fault::new(Kind::Policy, message)))
            }
            _ => Ok(()),
        }
    }

    /// The machine's rules; nothing where it does not tell whoever is logged in.
    pub async fn rules(&mut self) -> Option<Rules> {
        self.session.rules().await
    }
}

/// Proves a password.
///
/// # Errors
/// Why nobody was let in, a right password in a bad state among them.
pub async fn proof(place: &Place, login: &str, password: &Secret) -> Result<Option<CredentialState>, NotIn> {
    Session::log_in(place, login, password).await.map(|_| None)
}

/// What an account's passwords may be.
pub fn limits() -> PasswordLimits {
    // More cannot be typed at a Windows log-in.
    PasswordLimits { min_length: Some(1), max_length: Some(127), forbidden: "\0".to_owned() }
}

/// An empty password would open the account to everybody at its console.
///
/// # Errors
/// `invalid_input` for one.
pub fn is_possible(next: &Secret) -> Result<(), Fault> {
    if next.is_empty() {
        return Err(Fault::new(Kind::InvalidInput, "an empty password would open the account to everybody"));
    }
    Ok(())
}
