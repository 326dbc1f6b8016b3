//! Log-ins by password at targets that know more answers than yes and no, and
//! that lock accounts.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{CredentialState, Fault, Kind, Traits, Verdicts};

/// Why somebody is not in.
#[derive(Debug)]
pub enum NotIn {
    /// The password is right, but in a state that lets nobody in.
    Right(CredentialState, Fault),
    /// Anything else.
    Other(Fault),
}

impl From<NotIn> for Fault {
    fn from(not_in: NotIn) -> Self {
        match not_in {
            NotIn::Right(_, fault) | NotIn::Other(fault) => fault,
        }
    }
}

impl From<Fault> for NotIn {
    fn from(fault: Fault) -> Self {
        Self::Other(fault)
    }
}

impl NotIn {
    /// What a log-in says of a password, with the state it is in if it was let in with one.
    ///
    /// # Errors
    /// Where the password was not judged.
    pub fn verdict(log_in: Result<Option<CredentialState>, Self>) -> Result<Verdicts, Fault> {
        match log_in {
            Ok(None) => Ok(Verdicts::accepted()),
            Ok(Some(state)) | Err(Self::Right(state, _)) => Ok(Verdicts::accepted_but(state)),
            Err(Self::Other(fault)) if fault.kind == Kind::Authentication => Ok(Verdicts::refused()),
            Err(Self::Other(fault)) => Err(fault),
        }
    }
}

/// What a target's accounts are locked by. Part of an account by `#[serde(flatten)]`.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
pub struct Lockout {
    /// For how many seconds the target counts failed log-ins; 0 where it never locks an account.
    #[serde(default = "half_an_hour")]
    pub lockout_window: u32,
}

impl Default for Lockout {
    fn default() -> Self {
        Self { lockout_window: half_an_hour() }
    }
}

/// What Windows has by default where it locks at all.
fn half_an_hour() -> u32 {
    1800
}

impl Lockout {
    /// The traits of a password that is locked like this.
    pub fn traits(self) -> Traits {
        let locks = self.lockout_window > 0;
        Traits {
            lockout_sensitive: locks,
            lockout_window_ms: u64::from(self.lockout_window) * 1000,
            // A change that was sent is made within this, or not at all.
            settle_ms: if locks { 500 } else { 0 },
            ..Traits::password()
        }
    }
}
