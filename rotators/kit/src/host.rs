//! The other end: an orchestrator over a pipe, or the person who started the
//! program.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use serde_json::value::RawValue;
use tokio::sync::oneshot;
use turnlock_protocol::message::{MintedParams, Permit, Request, Staged, ThresholdParams, object};
use turnlock_protocol::{Credential, RequestId};

use crate::output::Output;

/// Whoever gives permits and takes minted credentials.
#[derive(Debug)]
pub(crate) struct Host {
    output: Rc<Output>,
    mode: Mode,
    /// What the target made since it was last asked for here.
    made: RefCell<Vec<Credential>>,
}

#[derive(Debug)]
enum Mode {
    /// Requests travel as messages; answers come through [`Host::answered`].
    Serving {
        waiting: RefCell<HashMap<String, oneshot::Sender<Box<RawValue>>>>,
        asked: Cell<u64>,
        /// Nobody will answer any more.
        gone: Cell<bool>,
    },
    /// The program answers itself.
    Alone,
}

impl Host {
    pub(crate) fn serving(output: Rc<Output>) -> Self {
        let mode = Mode::Serving { waiting: RefCell::default(), asked: Cell::new(0), gone: Cell::new(false) };
        Self { output, mode, made: RefCell::default() }
    }

    pub(crate) fn alone(output: Rc<Output>) -> Self {
        Self { output, mode: Mode::Alone, made: RefCell::default() }
    }

    /// Whether the change may happen. Silence, a broken pipe and every other
    /// answer mean no.
    pub(crate) async fn permit(&self, request: u64) -> bool {
        match self.ask("threshold", ThresholdParams { id: request }).await {
            Answer::Alone => true,
            Answer::Nothing => false,
            Answer::Json(json) => object::<Permit>(&json).is_ok_and(|permit| permit.proceed),
        }
    }

    /// Whether a minted credential is durable with the host. Alone, the
    /// credential is the first output line, flushed to the disk where it is a file.
    pub(crate) async fn minted(&self, request: u64, next: &Credential) -> bool {
        self.made.borrow_mut().push(next.duplicate());
        match self.ask("minted", MintedParams { id: request, next: next.duplicate() }).await {
            Answer::Alone => self.write_candidate(next),
            Answer::Nothing => false,
            Answer::Json(json) => object::<Staged>(&json).is_ok_and(|answer| answer.staged),
        }
    }

    /// The minted credentials, which are secret although no request held them.
    pub(crate) fn take_made(&self) -> Vec<Credential> {
        self.made.take()
    }

    /// Writes the candidate line of one-shot mode and makes it durable. A
    /// standard output that keeps nothing is no place for it.
    pub(crate) fn write_candidate(&self, candidate: &Credential) -> bool {
        #[derive(serde::Serialize)]
        struct Line<'a> {
            candidate: &'a Credential,
        }
        !self.output.is_lost() && self.output.line(&Line { candidate }).and_then(|()| self.output.sync()).is_ok()
    }

    /// Whether a secret that the target is about to make can be handed over.
    /// Alone, one line is written to find out.
    pub(crate) fn can_take_minted(&self) -> bool {
        match self.mode {
            Mode::Serving { .. } => true,
            Mode::Alone => {
                let line = serde_json::json!({"progress": {"step": "the target makes the new secret"}});
                !self.output.is_lost() && self.output.line(&line).and_then(|()| self.output.sync()).is_ok()
            }
        }
    }

    /// Takes the host's answer to one of our requests.
    pub(crate) fn answered(&self, id: &RequestId, result: &RawValue) {
        if let (Mode::Serving { waiting, .. }, RequestId::Rotator(id)) = (&self.mode, id)
            && let Some(sender) = waiting.borrow_mut().remove(id)
        {
            // The operation may have been cancelled meanwhile.
            let _ = sender.send(result.to_owned());
        }
    }

    /// The host refused one of our requests, or could not read one (no id):
    /// then nothing that waits can count on an answer.
    pub(crate) fn refused(&self, id: Option<&RequestId>) {
        if let Mode::Serving { waiting, .. } = &self.mode {
            match id {
                Some(RequestId::Rotator(id)) => drop(waiting.borrow_mut().remove(id)),
                Some(RequestId::Host(_)) => {}
                None => waiting.borrow_mut().clear(),
            }
        }
    }

    /// The host is gone: nothing is answered any more, neither what waits nor
    /// what will be asked.
    pub(crate) fn left(&self) {
        if let Mode::Serving { waiting, gone, .. } = &self.mode {
            gone.set(true);
            waiting.borrow_mut().clear();
        }
    }

    async fn ask(&self, method: &str, params: impl serde::Serialize) -> Answer {
        let Mode::Serving { waiting, asked, gone } = &self.mode else {
            return Answer::Alone;
        };
        asked.set(asked.get() + 1);
        let id = format!("{}{}", method.chars().next().unwrap_or('r'), asked.get());
        let (sender, receiver) = oneshot::channel();
        waiting.borrow_mut().insert(id.clone(), sender);
        // Said even to a host that is gone: what reads its output may still
        // be there, and a minted secret is nowhere else.
        let said = self.output.line(&Request::new(RequestId::Rotator(id), method, params));
        if said.is_err() || gone.get() {
            return Answer::Nothing;
        }
        receiver.await.map_or(Answer::Nothing, Answer::Json)
    }
}

enum Answer {
    Alone,
    Nothing,
    Json(Box<RawValue>),
}
