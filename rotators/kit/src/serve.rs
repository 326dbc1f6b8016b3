//! Serve mode: JSON-RPC 2.0 over standard input and output, one request at a
//! time.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use serde_json::value::RawValue;
use turnlock_protocol::message::{CancelParams, Hello, Notification, Reply, RpcError, code, object};
use turnlock_protocol::{Fault, Incoming, Kind, Operation, RequestId, VERSIONS};
use zeroize::Zeroizing;

use crate::dispatch::{Call, RawResult};
use crate::host::Host;
use crate::input::{self, Line};
use crate::output::Output;
use crate::rotator::Rotator;
use crate::threshold::PermitState;

/// The one operation that is being performed.
struct Running {
    id: u64,
    permit: Rc<Cell<PermitState>>,
    work: Pin<Box<dyn Future<Output = Result<RawResult, RpcError>>>>,
}

/// Serves until standard input ends. Returns the exit status.
pub(crate) async fn serve<R: Rotator>(output: Output) -> u8 {
    let output = Rc::new(output);
    let host = Rc::new(Host::serving(Rc::clone(&output)));
    let mut lines = input::lines();
    let mut running: Option<Running> = None;

    let hello = Hello {
        protocol: VERSIONS.to_vec(),
        plugin: R::PLUGIN.to_owned(),
        version: R::VERSION.to_owned(),
        operations: Operation::ALL.iter().map(|operation| operation.name().to_owned()).collect(),
    };
    if output.line(&Notification::new("hello", hello)).is_err() {
        return 3;
    }

    loop {
        tokio::select! {
            biased;
            outcome = finished(&mut running) => {
                let id = running.take().map_or(0, |done| done.id);
                answer(&output, RequestId::Host(id), outcome);
            }
            line = lines.recv() => match line {
                Some(Line::Text(line)) => {
                    if !take::<R>(line, &output, &host, &mut running) {
                        conclude(&output, &host, running).await;
                        return 2;
                    }
                }
                Some(Line::TooLong) => {
                    let _ = output.line(&Reply::error(None, RpcError::new(code::INVALID_REQUEST, "the line is longer than 1 MiB")));
                    conclude(&output, &host, running).await;
                    return 2;
                }
                None => {
                    conclude(&output, &host, running).await;
                    return 0;
                }
            },
        }
    }
}

/// Nothing more can come from the host: behind the permit the change is
/// finished, before it this means cancel.
async fn conclude(output: &Output, host: &Host, running: Option<Running>) {
    host.left();
    match running {
        Some(running) if running.permit.get() == PermitState::NotGiven => {
            cancelled(output, running);
        }
        Some(running) => answer(output, RequestId::Host(running.id), running.work.await),
        None => {}
    }
}

/// Takes one line. False when the peer can no longer be understood.
fn take<R: Rotator>(
    line: Zeroizing<Vec<u8>>,
    output: &Rc<Output>,
    host: &Rc<Host>,
    running: &mut Option<Running>,
) -> bool {
    let refuse = |id, code, message: &str| {
        let _ = output.line(&Reply::error(id, RpcError::new(code, message)));
    };
    match Incoming::parse(&line) {
        Err(malformed) => {
            refuse(None, code::PARSE, &malformed.to_string());
            return false;
        }
        Ok(Incoming::Result { id, result }) => host.answered(&id, result),
        Ok(Incoming::Error { id, .. }) => host.refused(id.as_ref()),
        Ok(Incoming::Notification { method: "cancel", params }) => cancel(params, output, running),
        Ok(Incoming::Notification { .. }) => {}
        Ok(Incoming::Request { id: id @ RequestId::Rotator(_), .. }) => {
            refuse(Some(id), code::INVALID_REQUEST, "a host's request ids are integers");
        }
        Ok(Incoming::Request { id: RequestId::Host(id), method, .. }) => match Operation::named(method) {
            _ if running.is_some() => {
                refuse(Some(RequestId::Host(id)), code::INVALID_REQUEST, "one request at a time");
            }
            None => {
                refuse(Some(RequestId::Host(id)), code::METHOD_NOT_FOUND, "this rotator does not know that operation")
            }
            Some(operation) => {
                let permit = Rc::new(Cell::new(PermitState::NotGiven));
                let call = Call { host: Rc::clone(host), id, permit: Rc::clone(&permit) };
                // The line itself goes along, read once more there: its params
                // are secret, and a copy of them would have to be cleared too.
                let work = Box::pin(async move {
                    let params = match Incoming::parse(&line) {
                        Ok(Incoming::Request { params, .. }) => params,
                        _ => None,
                    };
                    call.perform::<R>(operation, params).await
                });
                *running = Some(Running { id, permit, work });
            }
        },
    }
    true
}

/// Cancels before the permit. Behind it the reply of the operation decides.
fn cancel(params: Option<&RawValue>, output: &Output, running: &mut Option<Running>) {
    let asked = params.and_then(|params| object::<CancelParams>(params).ok());
    let matches = |running: &mut Running| {
        asked.as_ref().is_some_and(|asked| asked.id == running.id) && running.permit.get() == PermitState::NotGiven
    };
    if let Some(running) = running.take_if(matches) {
        cancelled(output, running);
    }
}

/// Drops what is running in front of the threshold, and says so.
fn cancelled(output: &Output, running: Running) {
    let id = RequestId::Host(running.id);
    drop(running);
    let fault = Fault::new(Kind::Cancelled, "cancelled by the host before anything changed");
    let _ = output.line(&Reply::error(Some(id), fault));
}

/// A broken pipe changes nothing here: the end of input follows.
fn answer(output: &Output, id: RequestId, outcome: Result<RawResult, RpcError>) {
    let _ = match outcome {
        Ok(result) => output.line(&Reply::result(id, result)),
        Err(error) => output.line(&Reply::error(Some(id), error)),
    };
}

/// Waits for the running operation; for ever when there is none.
async fn finished(running: &mut Option<Running>) -> Result<RawResult, RpcError> {
    match running {
        Some(running) => running.work.as_mut().await,
        None => std::future::pending().await,
    }
}
