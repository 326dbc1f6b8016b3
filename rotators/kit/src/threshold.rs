use std::cell::Cell;
use std::rc::Rc;

use tokio::time::Instant;
use turnlock_protocol::operation::{ApplyResult, HostOutcome};
use turnlock_protocol::{Applied, Credential, Fault, Kind};

use crate::host::Host;

/// What is known about the permit of the running operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PermitState {
    /// Nobody asked; nothing changed.
    NotGiven,
    /// The target may have changed.
    Given,
    /// Given, but the target itself definitely refused the one change that was sent.
    DefinitelyRefused,
}

impl PermitState {
    /// What a failure in this state proves.
    pub(crate) fn applied(self) -> Applied {
        match self {
            Self::NotGiven | Self::DefinitelyRefused => Applied::No,
            Self::Given => Applied::Unknown,
        }
    }
}

/// The line behind which the target changes. Everything before
/// [`Threshold::cross`] must only read.
#[derive(Debug)]
pub struct Threshold {
    pub(crate) host: Rc<Host>,
    pub(crate) request: u64,
    pub(crate) state: Rc<Cell<PermitState>>,
    pub(crate) deadline: Instant,
}

impl Threshold {
    /// Asks the host for its permit and waits. Right after the permit the
    /// deadline is checked once more.
    ///
    /// # Errors
    /// `cancelled` when the host does not permit, `timeout` when the permit
    /// came too late; nothing was changed.
    pub async fn cross(self) -> Result<Crossed, Fault> {
        if !self.host.permit(self.request).await {
            return Err(Fault::new(Kind::Cancelled, "the host did not permit the change"));
        }
        if Instant::now() >= self.deadline {
            return Err(Fault::new(Kind::Timeout, "the permit came after the deadline"));
        }
        self.state.set(PermitState::Given);
        Ok(Crossed { host: self.host, request: self.request, state: self.state })
    }
}

/// Proof of a permit: the only way to make a [`Done`].
#[derive(Debug)]
pub struct Crossed {
    host: Rc<Host>,
    request: u64,
    state: Rc<Cell<PermitState>>,
}

impl Crossed {
    /// The target accepted the change.
    pub fn done(self) -> Done {
        Done { result: ApplyResult::default() }
    }

    /// The target gave a definite answer that proves nothing changed, and the
    /// change was sent exactly once. Only answers on the rotator's documented
    /// list may come here, and the operation ends with the fault.
    pub fn definitely_refused(&self, fault: Fault) -> Fault {
        self.state.set(PermitState::DefinitelyRefused);
        fault
    }

    /// The target made the new credential: hands it to the host and waits
    /// until it is durable there.
    ///
    /// # Errors
    /// `cancelled` when the host did not stage it. Nobody holds the secret
    /// then: remove it from the target, and return the error.
    pub async fn minted(self, next: Credential) -> Result<Done, Fault> {
        if !self.host.minted(self.request, &next).await {
            return Err(Fault::new(Kind::Cancelled, "the host did not stage the credential the target made"));
        }
        Ok(Done { result: ApplyResult { next: Some(next), ..ApplyResult::default() } })
    }
}

/// The value that means success of `apply`.
#[derive(Debug)]
pub struct Done {
    pub(crate) result: ApplyResult,
}

impl Done {
    /// With something a person should know although it worked.
    #[must_use]
    pub fn warning(mut self, warning: impl Into<String>) -> Self {
        self.result.warnings.push(warning.into());
        self
    }

    /// With one outcome for each host.
    #[must_use]
    pub fn hosts(mut self, hosts: Vec<HostOutcome>) -> Self {
        self.result.hosts = hosts;
        self
    }
}
