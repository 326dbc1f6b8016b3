//! The threshold: what is done without a permit, and what behind it.

use std::time::Instant;

use serde_json::{Value, json};
use turnlock_protocol::message::code;
use turnlock_protocol::operation::Account;
use turnlock_protocol::{Kind, Origin, RequestId};

use super::bench::Bench;
use super::dialogue::{DEADLINE_MS, Dialogue, Said, is_fault};
use super::{Stopped, broken, must};

/// Long enough to log in, short enough to wait for.
const SHORT_MS: u64 = 1_500;

pub(super) fn refused(bench: &mut Bench<'_>) -> Result<(), Stopped> {
    answered(bench, &json!({"proceed": false}))
}

pub(super) fn garbage(bench: &mut Bench<'_>) -> Result<(), Stopped> {
    for answer in [json!({"proceed": "true"}), json!({"proceed": 1}), json!({}), json!([true]), Value::Null] {
        answered(bench, &answer)?;
    }
    Ok(())
}

pub(super) fn error(bench: &mut Bench<'_>) -> Result<(), Stopped> {
    let (mut dialogue, asked) = bench.asking()?;
    let threshold = dialogue.threshold(asked)?;
    dialogue.say(&json!({"jsonrpc": "2.0", "id": threshold, "error": {"code": -32603, "message": "no"}}))?;
    dialogue.refusal(asked, Kind::Cancelled)?;
    dialogue.end(0)?;
    bench.nothing_changed()
}

fn answered(bench: &mut Bench<'_>, answer: &Value) -> Result<(), Stopped> {
    let (mut dialogue, asked) = bench.asking()?;
    let threshold = dialogue.threshold(asked)?;
    dialogue.answer(&threshold, answer)?;
    dialogue.refusal(asked, Kind::Cancelled)?;
    dialogue.end(0)?;
    bench.nothing_changed()
}

pub(super) fn cancelled_before(bench: &mut Bench<'_>) -> Result<(), Stopped> {
    let (mut dialogue, asked) = bench.asking()?;
    let threshold = dialogue.threshold(asked)?;
    cancel(&mut dialogue, asked)?;
    dialogue.refusal(asked, Kind::Cancelled)?;
    // Too late: there is nothing to permit any more.
    dialogue.answer(&threshold, &json!({"proceed": true}))?;
    dialogue.end(0)?;
    bench.nothing_changed()
}

pub(super) fn end_before(bench: &mut Bench<'_>) -> Result<(), Stopped> {
    let (mut dialogue, asked) = bench.asking()?;
    dialogue.threshold(asked)?;
    dialogue.close();
    dialogue.refusal(asked, Kind::Cancelled)?;
    dialogue.ends(0)?;
    bench.nothing_changed()
}

pub(super) fn terminated_before(bench: &mut Bench<'_>) -> Result<(), Stopped> {
    let (mut dialogue, asked) = bench.asking()?;
    dialogue.threshold(asked)?;
    dialogue.terminate();
    dialogue.gone()?;
    bench.nothing_changed()
}

pub(super) fn one_at_a_time(bench: &mut Bench<'_>) -> Result<(), Stopped> {
    let (mut dialogue, asked) = bench.asking()?;
    let threshold = dialogue.threshold(asked)?;
    let second = dialogue.request("describe", &json!({}))?;
    dialogue.code(Some(RequestId::Host(second)), code::INVALID_REQUEST)?;
    dialogue.answer(&threshold, &json!({"proceed": false}))?;
    dialogue.refusal(asked, Kind::Cancelled)?;
    dialogue.end(0)?;
    bench.nothing_changed()
}

pub(super) fn deadline(bench: &mut Bench<'_>) -> Result<(), Stopped> {
    let account = bench.subject()?.account().clone();
    without_an_answer(bench, account, SHORT_MS)
}

pub(super) fn account_timeout(bench: &mut Bench<'_>) -> Result<(), Stopped> {
    if bench.properties().is_none_or(|properties| !properties.contains_key("timeout")) {
        return Err(Stopped::DoesNotApply("its accounts have no timeout"));
    }
    let mut account = bench.subject()?.account().clone();
    account.insert("timeout".to_owned(), json!(1));
    without_an_answer(bench, account, DEADLINE_MS)
}

/// Its request for a permit stays unanswered: it has to give up by itself, and
/// long before anybody who waits for it does.
fn without_an_answer(bench: &mut Bench<'_>, account: Account, deadline_ms: u64) -> Result<(), Stopped> {
    let began = Instant::now();
    let (mut dialogue, asked) = bench.asking_for(account, deadline_ms)?;
    // A log-in that takes longer than this ends the same way.
    let error = match dialogue.hear()? {
        Said::Threshold { .. } => dialogue.outcome::<Value>(asked)?.err(),
        Said::Error { error, .. } => Some(error),
        _ => None,
    };
    let error = error.ok_or_else(|| broken("it went on without a permit"))?;
    is_fault(&error, Kind::Timeout)?;
    let took = began.elapsed().as_millis();
    must(took < u128::from(DEADLINE_MS) / 2, || format!("its deadline was shorter, and it took {took} ms"))?;
    dialogue.end(0)?;
    bench.nothing_changed()
}

pub(super) fn cancelled_behind(bench: &mut Bench<'_>) -> Result<(), Stopped> {
    whole(bench, 0, cancel)
}

pub(super) fn end_behind(bench: &mut Bench<'_>) -> Result<(), Stopped> {
    whole(bench, 0, |dialogue, _| {
        dialogue.close();
        Ok(())
    })
}

pub(super) fn garbage_behind(bench: &mut Bench<'_>) -> Result<(), Stopped> {
    whole(bench, 2, |dialogue, _| dialogue.send(b"garbage\n"))
}

/// A change that is made whatever happens behind its permit.
fn whole(
    bench: &mut Bench<'_>,
    status: i32,
    behind: impl FnOnce(&mut Dialogue, u64) -> Result<(), Stopped>,
) -> Result<(), Stopped> {
    let previous = bench.subject()?.current().duplicate();
    let traits = bench.traits(&mut bench.serve()?)?;
    if traits.origin == Origin::Target {
        return Err(Stopped::DoesNotApply("its target makes a secret that only an answered host can keep"));
    }
    let dialogue = bench.change(behind)?;
    if status == 0 {
        dialogue.end(0)?
    } else {
        dialogue.gone()?
    }
    bench.finish(&previous, &traits)?;
    bench.changed(&previous, &traits)
}

pub(super) fn not_staged(bench: &mut Bench<'_>) -> Result<(), Stopped> {
    if bench.describe.traits.origin != Origin::Target {
        return Err(Stopped::DoesNotApply("this target makes no secrets"));
    }
    let (mut dialogue, asked) = bench.asking()?;
    dialogue.permit(asked)?;
    match dialogue.hear()? {
        Said::Minted { id, .. } => dialogue.answer(&id, &json!({"staged": false}))?,
        other => return Err(broken(format!("it should have handed the secret over, and it {other}"))),
    }
    match dialogue.outcome::<Value>(asked)? {
        Err(error) if error.data.as_ref().is_some_and(|fault| fault.kind == Kind::Cancelled) => {}
        Err(error) => {
            return Err(broken(format!("cancelled was expected, and it said {}", Said::Error { id: None, error })));
        }
        Ok(_) => return Err(broken("it went on with a secret that nobody holds")),
    }
    dialogue.end(0)?;
    bench.nothing_changed()
}

fn cancel(dialogue: &mut Dialogue, asked: u64) -> Result<(), Stopped> {
    dialogue.say(&json!({"jsonrpc": "2.0", "method": "cancel", "params": {"id": asked}}))
}
