//! The other end: an orchestrator over a pipe, or the person who started the
//! program.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use tokio::sync::oneshot;
use turnlock_protocol::message::{MintedParams, Permit, Request, Staged, ThresholdParams};
use turnlock_protocol::{Credential, RequestId};

use crate::output::Output;

/// Whoever gives permits and takes minted credentials.
#[derive(Debug)]
pub(crate) struct Host {
    output: Rc<Output>,
    mode: Mode,
}

#[derive(Debug)]
enum Mode {
    /// Requests travel as messages; answers come through [`Host::answered`].
    Serving {
        waiting: RefCell<HashMap<String, oneshot::Sender<String>>>,
        asked: Cell<u64>,
    },
    /// The program answers itself.
    Alone,
}

impl Host {
    pub(crate) fn serving(output: Rc<Output>) -> Self {
        let mode = Mode::Serving {
            waiting: RefCell::default(),
            asked: Cell::new(0),
        };
        Self { output, mode }
    }

    pub(crate) fn alone(output: Rc<Output>) -> Self {
        Self {
            output,
            mode: Mode::Alone,
        }
    }

    /// Whether the change may happen. Silence, a broken pipe and every other
    /// answer mean no.
    pub(crate) async fn permit(&self, request: u64) -> bool {
        match self.ask("threshold", ThresholdParams { id: request }).await {
            Answer::Alone => true,
            Answer::Nothing => false,
            Answer::Json(json) => {
                serde_json::from_str::<Permit>(&json).is_ok_and(|permit| permit.proceed)
            }
        }
    }

    /// Whether a minted credential is durable with the host. Alone, the
    /// credential is the first output line, flushed to the disk where it is a file.
    pub(crate) async fn minted(&self, request: u64, next: &Credential) -> bool {
        match self
            .ask(
                "minted",
                MintedParams {
                    id: request,
                    next: next.duplicate(),
                },
            )
            .await
        {
            Answer::Alone => self.write_candidate(next),
            Answer::Nothing => false,
            Answer::Json(json) => {
                serde_json::from_str::<Staged>(&json).is_ok_and(|answer| answer.staged)
            }
        }
    }

    /// Writes the candidate line of one-shot mode and makes it durable.
    pub(crate) fn write_candidate(&self, candidate: &Credential) -> bool {
        #[derive(serde::Serialize)]
        struct Line<'a> {
            candidate: &'a Credential,
        }
        self.output
            .line(&Line { candidate })
            .and_then(|()| self.output.sync())
            .is_ok()
    }

    /// Takes the host's answer to one of our requests.
    pub(crate) fn answered(&self, id: &RequestId, result: &str) {
        if let (Mode::Serving { waiting, .. }, RequestId::Rotator(id)) = (&self.mode, id)
            && let Some(sender) = waiting.borrow_mut().remove(id)
        {
            // The operation may have been cancelled meanwhile.
            let _ = sender.send(result.to_owned());
        }
    }

    /// The host refused one of our requests, or is gone (no id).
    pub(crate) fn refused(&self, id: Option<&RequestId>) {
        if let Mode::Serving { waiting, .. } = &self.mode {
            match id {
                Some(RequestId::Rotator(id)) => drop(waiting.borrow_mut().remove(id)),
                _ => waiting.borrow_mut().clear(),
            }
        }
    }

    async fn ask(&self, method: &str, params: impl serde::Serialize) -> Answer {
        let Mode::Serving { waiting, asked } = &self.mode else {
            return Answer::Alone;
        };
        asked.set(asked.get() + 1);
        let id = format!("{}{}", method.chars().next().unwrap_or('r'), asked.get());
        let (sender, receiver) = oneshot::channel();
        waiting.borrow_mut().insert(id.clone(), sender);
        if self
            .output
            .line(&Request::new(RequestId::Rotator(id), method, params))
            .is_err()
        {
            return Answer::Nothing;
        }
        receiver.await.map_or(Answer::Nothing, Answer::Json)
    }
}

enum Answer {
    Alone,
    Nothing,
    Json(String),
}
