//! What a rotator asks of a driver, and how a driver that blocks, hangs or
//! panics is kept apart from everything else.

use std::cell::Cell;
use std::fmt;
use std::panic;
use std::sync::Once;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use turnlock_kit::Secret;

/// A log-in has this long to end, connecting included.
const WITHIN: Duration = Duration::from_secs(30);

/// One connection that is logged in. Its calls block.
pub(crate) trait Connection: Send {
    /// Changes the account's own password, encrypted and without any SQL.
    fn change_password(&mut self, user: &str, old: &Secret, new: &Secret) -> Result<(), Failed>;
    /// Executes one statement.
    fn execute(&mut self, statement: &str) -> Result<(), Failed>;
    /// The first column of a query's first row, as text.
    fn text(&mut self, query: &str, parameter: Option<&str>) -> Result<Option<String>, Failed>;
    /// The server's release.
    fn version(&mut self) -> Result<String, Failed>;
    /// Whether the log-in warned that the password expires soon.
    fn expires_soon(&self) -> bool;
}

/// Why a driver did not do what it was asked.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) why: Why,
    /// In the driver's words.
    pub(crate) cause: String,
}

/// What a caller tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// The database said so, by this number of an ORA message.
    Database(u32),
    /// The listener refused, by this number.
    Listener(u32),
    /// The connection could not be made, or broke.
    Connection,
    /// The server is not believed.
    Tls,
    /// The fields of the account are not understood.
    Input,
    /// The driver cannot do what this server wants.
    Driver,
    /// There was no end.
    Hung,
}

impl fmt::Display for Failed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.cause)
    }
}

impl std::error::Error for Failed {}

thread_local! {
    /// Where a driver's panic is told.
    static DEATH: Cell<Option<oneshot::Sender<String>>> = const { Cell::new(None) };
}

/// Does what blocks on a thread of its own. A driver that panics ends its
/// thread, also where a panic would end the program; one that hangs is left.
pub(crate) async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failed> + Send + 'static,
) -> Result<T, Failed> {
    let (answer, answered) = oneshot::channel();
    let (death, died) = oneshot::channel();
    catch_panics();
    let started = thread::Builder::new().name("oracle driver".to_owned()).spawn(move || {
        DEATH.set(Some(death));
        // Nobody waits any more where this cannot be sent.
        drop(answer.send(work()));
        DEATH.take()
    });
    if let Err(error) = started {
        return Err(Failed { why: Why::Driver, cause: error.to_string() });
    }
    tokio::select! {
        biased;
        Ok(result) = answered => result,
        Ok(place) = died => Err(Failed { why: Why::Driver, cause: format!("the driver panicked at {place}") }),
        () = tokio::time::sleep(WITHIN) => {
            Err(Failed { why: Why::Hung, cause: format!("no answer within {} s", WITHIN.as_secs()) })
        }
    }
}

/// Lets a driver's thread tell in its panic hook where it was, which holds no
/// secret. Where a panic aborts the program the thread stays there for good.
fn catch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| match DEATH.take() {
            None => usual(info),
            Some(death) => {
                let place = info.location().map(|place| format!("{}:{}", place.file(), place.line()));
                drop(death.send(place.unwrap_or_default()));
                while cfg!(panic = "abort") {
                    thread::park();
                }
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_driver_that_panics_is_an_error_that_says_where() {
        let failed = apart(|| -> Result<(), Failed> { panic!("hunter2") }).await.unwrap_err();
        assert_eq!(failed.why, Why::Driver);
        assert!(failed.cause.contains("driver.rs:") && !failed.cause.contains("hunter2"), "{}", failed.cause);
        assert_eq!(apart(|| Ok(7)).await.unwrap(), 7);
    }
}
