//! What a rotator does with an account: asks it, changes it, cleans up.

use serde::Deserialize;
use serde_json::json;
use turnlock_protocol::operation::{CheckParams, Findings};
use turnlock_protocol::{Credential, Hosts, Kind, Operation, Origin, VerifyBy};

use super::bench::{Answer, Bench, bytes, drawn, succeeded};
use super::dialogue::{DEADLINE_MS, Said};
use super::framing::full_disk;
use super::{Stopped, broken, must};

pub(super) fn plan(bench: &mut Bench<'_>) -> Result<(), Stopped> {
    let mut dialogue = bench.serve()?;
    let (one, widest) = (bench.traits(&mut dialogue)?, &bench.describe.traits);
    must(one.origin == widest.origin, || "the account's secret has another origin than describe says".to_owned())?;
    must(one.hosts == Hosts::One || widest.hosts == Hosts::Many, || {
        "the account has many hosts, and describe says one".to_owned()
    })?;
    must(!one.finish || widest.finish, || "the account has a finish, and describe says none".to_owned())?;
    dialogue.end(0)
}

pub(super) fn check(bench: &mut Bench<'_>) -> Result<(), Stopped> {
    let mut dialogue = bench.serve()?;
    let params = bench.check_params(bench.subject()?.account().clone())?;
    let _: Findings = succeeded(dialogue.read(Operation::Check, &params)?, "check")?;
    dialogue.end(0)?;
    bench.nothing_changed()
}

pub(super) fn verify(bench: &mut Bench<'_>) -> Result<(), Stopped> {
    if bench.describe.traits.verify == VerifyBy::None {
        return Err(Stopped::DoesNotApply("this target cannot be asked"));
    }
    let current = bench.subject()?.current().duplicate();
    must(bench.ask(&current)? == Answer::Accepted, || "the current credential is not accepted".to_owned())?;
    // Another password; a key cannot be made up here.
    if current.get("password").is_none() {
        return Ok(());
    }
    let wrong = current.with("password", drawn(bench.subject()?.policy())?);
    match bench.ask(&wrong)? {
        Answer::Refused | Answer::CannotAsk(Kind::LockedOut) => Ok(()),
        other => Err(broken(format!("a wrong password should be refused, and it is {other:?}"))),
    }
}

pub(super) fn unknown_account_field(bench: &mut Bench<'_>) -> Result<(), Stopped> {
    let mut account = bench.subject()?.account().clone();
    account.insert("colour_of_the_rack".to_owned(), json!({"deep": [1, 2, 3]}));
    let params: CheckParams = bench.check_params(account)?;
    let mut dialogue = bench.serve()?;
    let _: Findings = succeeded(dialogue.read(Operation::Check, &params)?, "check")?;
    dialogue.end(0)
}

pub(super) fn apply(bench: &mut Bench<'_>) -> Result<(), Stopped> {
    let previous = bench.subject()?.current().duplicate();
    let mut dialogue = bench.change(|_, _| Ok(()))?;
    let traits = bench.traits(&mut dialogue)?;
    dialogue.end(0)?;
    bench.finish(&previous, &traits)?;
    bench.changed(&previous, &traits)
}

pub(super) fn apply_twice(bench: &mut Bench<'_>) -> Result<(), Stopped> {
    let previous = bench.subject()?.current().duplicate();
    let mut dialogue = bench.serve()?;
    let traits = bench.traits(&mut dialogue)?;
    if traits.lockout_sensitive && bench.subject()?.admin().is_none() {
        return Err(Stopped::DoesNotApply("a failed log-in may lock this account"));
    }
    let Some(next) = bench.candidate(&mut dialogue, &traits)? else {
        return Err(Stopped::DoesNotApply("this target makes another secret each time"));
    };
    let params = bench.apply_params(Some(&next))?;
    bench.begin(next)?;
    for again in [false, true] {
        let asked = dialogue.ask(Operation::Apply, &params, DEADLINE_MS)?;
        match dialogue.hear()? {
            Said::Threshold { id, .. } => {
                dialogue.answer(&id, &json!({"proceed": true}))?;
                bench.applied(&mut dialogue, asked)?;
            }
            Said::Result { .. } if again => bench.commit()?,
            other => return Err(broken(format!("it should have made the change, and it {other}"))),
        }
    }
    dialogue.end(0)?;
    bench.finish(&previous, &traits)?;
    bench.changed(&previous, &traits)
}

pub(super) fn finish(bench: &mut Bench<'_>) -> Result<(), Stopped> {
    let mut dialogue = bench.serve()?;
    let traits = bench.traits(&mut dialogue)?;
    if !traits.finish {
        return Err(Stopped::DoesNotApply("nothing is left behind on this target"));
    }
    let current = bench.subject()?.current().duplicate();
    let asked = dialogue.ask(Operation::Finish, &bench.finish_params(&current)?, DEADLINE_MS)?;
    dialogue.refusal(asked, Kind::InvalidInput)?;
    dialogue.end(0)?;
    let previous = current;
    bench.change(|_, _| Ok(()))?.end(0)?;
    bench.finish(&previous, &traits)?;
    // What is gone already is a success.
    bench.finish(&previous, &traits)?;
    bench.nothing_changed()?;
    if traits.verify != VerifyBy::None && !traits.lockout_sensitive && traits.settle_ms == 0 {
        let answer = bench.ask(&previous)?;
        must(answer != Answer::Accepted, || "the old credential still works after finish".to_owned())?;
    }
    Ok(())
}

/// A line of the one-shot story.
#[derive(Deserialize)]
struct Told {
    candidate: Option<Credential>,
    rotated: Option<bool>,
    next: Option<Credential>,
}

pub(super) fn rotate(bench: &mut Bench<'_>) -> Result<(), Stopped> {
    let mut dialogue = bench.serve()?;
    let traits = bench.traits(&mut dialogue)?;
    dialogue.end(0)?;
    let previous = bench.subject()?.current().duplicate();
    let ended = bench.alone(&["rotate"], &bytes(&bench.rotate_params()?)?)?;
    let told: Vec<Told> = ended.lines()?;
    // Whatever else is wrong, the secret that works now must not be lost.
    if let Some(candidate) = told.iter().find_map(|line| line.candidate.as_ref()) {
        bench.begin(candidate.duplicate())?;
    }
    ended.must_end_with(0)?;
    let (Some(candidate), Some(last)) = (told.iter().position(|line| line.candidate.is_some()), told.last()) else {
        return Err(broken("it wrote no line with the candidate"));
    };
    must(candidate + 1 < told.len() && last.rotated == Some(true), || {
        "its last line is not the result of a rotation".to_owned()
    })?;
    must(candidate == 0 || traits.origin == Origin::Target, || "its first line is not the candidate".to_owned())?;
    let Some(next) = &last.next else {
        return Err(broken("its result does not hold the new credential"));
    };
    bench.begin(next.duplicate())?;
    bench.commit()?;
    bench.changed(&previous, &traits)
}

pub(super) fn rotate_unwritable(bench: &mut Bench<'_>) -> Result<(), Stopped> {
    let params = bytes(&bench.rotate_params()?)?;
    bench.alone_into(&["rotate"], &params, full_disk()?)?.must_end_with(3)?;
    bench.nothing_changed()
}
