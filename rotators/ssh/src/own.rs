//! An account's own password: `passwd` asks, and the dialogue answers. On
//! some hosts the log-in itself is the place where an expired one is changed.

use turnlock_kit::dialogue::{Dialogue, Step, Stopped, refusal_kind};
use turnlock_kit::{Done, Fault, Finding, Kind, MayRotate, Secret, Severity, Threshold};
use turnlock_secureshell::{ForcedChange, Session, Terminal};

use crate::Account;

/// No secret is in it: everybody on that host can read it.
const PASSWD: &str = "LC_ALL=C exec passwd";

/// Changes it by `passwd`. That the current one is right is known when the
/// new one is asked for: only then the permit is asked for, too.
pub(crate) async fn by_passwd(
    session: &Session,
    account: &Account,
    current: &Secret,
    next: &Secret,
    threshold: Threshold,
) -> Result<Done, Fault> {
    let mut dialogue = Dialogue::new(current, next);
    let mut threshold = Some(threshold);
    let mut crossed = None;
    let mut program = session.start(PASSWD, Terminal::Wanted).await?;
    while let Some(heard) = program.hear().await? {
        match dialogue.hear(&heard) {
            None => {}
            Some(Step::Answer(secret)) => program.type_line(secret).await?,
            Some(Step::Threshold) => {
                if let Some(threshold) = threshold.take() {
                    crossed = Some(threshold.cross().await?);
                }
                program.type_line(dialogue.permit()).await?;
            }
            Some(Step::GiveUp) => break,
        }
    }
    dialogue.end();
    let status = program.ran().status;
    match (crossed, dialogue.stopped()) {
        (Some(crossed), Stopped::AfterTheNew) if status == Some(0) => Ok(crossed.done()),
        (Some(crossed), stopped) => {
            let fault = refused(account, dialogue.remarks());
            // It asks for another one, or says what is wrong with this one and
            // ends with a failure: nothing was written then (passwd(1), PAM).
            let definite = match stopped {
                Stopped::AtTheNew => true,
                _ => fault.kind == Kind::Policy && status.is_some_and(|status| status != 0),
            };
            Err(if definite { crossed.definitely_refused(fault) } else { fault })
        }
        (None, _) => Err(not_begun(account, dialogue.remarks(), status)),
    }
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

/// `passwd` did not take the new one.
fn refused(account: &Account, said: &str) -> Fault {
    let who = format!("\"{}\" at {}", account.login, account.host);
    let fault = match refusal_kind(said) {
        Some(Kind::Policy) => Fault::new(Kind::Policy, format!("the host refuses this password for {who}")),
        _ => Fault::new(Kind::Internal, format!("passwd of {who} did not end well")),
    };
    with_remarks(fault, said)
}

/// `passwd` never asked for the new one.
fn not_begun(account: &Account, said: &str, status: Option<u32>) -> Fault {
    let who = format!("\"{}\" at {}", account.login, account.host);
    let fault = match (refusal_kind(said), status) {
        (_, Some(126 | 127)) => {
            Fault::new(Kind::Unsupported, format!("the host has no passwd for {who}")).hint("name an admin record")
        }
        // It let us in with this very password.
        (Some(Kind::Policy), _) => {
            Fault::new(Kind::Policy, format!("the host does not let {who} change its password now"))
        }
        (Some(kind), _) => Fault::new(kind, format!("passwd refused {who}")),
        (None, _) => Fault::new(Kind::Unsupported, format!("passwd of {who} asks nothing that is understood"))
            .hint("a forced command or an unusual passwd cannot be spoken with; name an admin"),
    };
    with_remarks(fault, said)
}

pub(crate) fn with_remarks(mut fault: Fault, said: &str) -> Fault {
    fault.causes.extend(said.lines().map(str::to_owned));
    fault
}
