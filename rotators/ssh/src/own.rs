//! An account's own password: `passwd` asks, and the dialogue answers. On
//! some hosts the log-in itself is the place where an expired one is changed.

use turnlock_kit::{Done, Fault, Finding, Kind, MayRotate, Secret, Severity, Threshold, dialogue};
use turnlock_secureshell::{ForcedChange, Session, Terminal};

use crate::Account;

/// No secret is in it: everybody on that host can read it.
const PASSWD: &str = "LC_ALL=C exec passwd";

/// Changes it by `passwd`.
pub(crate) async fn by_passwd(
    session: &Session,
    account: &Account,
    current: &Secret,
    next: &Secret,
    threshold: Threshold,
) -> Result<Done, Fault> {
    let mut program = session.start(PASSWD, Terminal::Wanted).await?;
    let who = format!("\"{}\" at {}", account.login, account.host);
    dialogue::change(&mut program, current, next, threshold, &who).await.map_err(|fault| match fault.kind {
        Kind::Unsupported => fault.hint("name an admin record, which needs no dialogue"),
        _ => fault,
    })
}

/// Changes it while logging in, where the host wants that.
pub(crate) async fn at_the_login(
    forced: ForcedChange,
    current: &Secret,
    next: &Secret,
    threshold: Threshold,
) -> Result<Done, Fault> {
    let ready = forced.until_it_asks_for_the_new_one(current).await?;
    let crossed = threshold.cross().await?;
    match ready.give(next).await {
        Ok(()) => Ok(crossed.done()),
        Err(fault) if fault.kind == Kind::Policy => Err(crossed.definitely_refused(fault)),
        Err(fault) => Err(fault),
    }
}

/// Whether `passwd` is there and the rules let it.
pub(crate) async fn may_rotate(session: &Session, findings: &mut Vec<Finding>) -> Result<MayRotate, Fault> {
    let ran = session.run("command -v passwd", b"").await?;
    if ran.status == Some(0) {
        return Ok(MayRotate::Yes);
    }
    findings.push(Finding {
        severity: Severity::Error,
        message: "the host has no passwd for this account, or runs no commands for it: name an admin".to_owned(),
    });
    Ok(MayRotate::No)
}
