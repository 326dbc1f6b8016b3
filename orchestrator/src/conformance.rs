//! The conformance kit: whether a rotator, written by anybody in any language,
//! keeps what PROTOCOL.md says it must.
//!
//! [`SCENARIOS`] is the one list. Each is a sentence, the section that says so,
//! and the function that tries it on a process of its own. Those that change
//! something need an account that is there to be changed; its file
//! (`subject.rs`) is kept like a vault: before a change the candidate stands in it.

mod account;
mod bench;
mod dialogue;
mod framing;
mod permit;
mod subject;

use std::fmt;
use std::path::Path;

use serde::Serialize;

use crate::failure::Failure;
use crate::rotators::{Rotator, Rotators};

use bench::Bench;
use subject::Subject;

/// One thing that a rotator must do.
pub struct Scenario {
    /// Its name, the same for ever.
    pub id: &'static str,
    /// The heading in PROTOCOL.md that says so, as a link names it.
    pub section: &'static str,
    /// What is right.
    pub says: &'static str,
    /// Whether it has to change an account, or to log in to it.
    pub needs_account: bool,
    run: fn(&mut Bench<'_>) -> Result<(), Stopped>,
}

/// Why a scenario did not come to its end.
#[derive(Debug)]
enum Stopped {
    /// The rotator did something else.
    Broken(String),
    /// It does not concern this rotator, or this account.
    DoesNotApply(&'static str),
}

/// What became of a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The rotator did what is right.
    Passed,
    /// It did not.
    Failed,
    /// It was not tried.
    NotTried,
}

/// One line of the report.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// The scenario.
    pub scenario: &'static str,
    /// What became of it.
    pub outcome: Outcome,
    /// What is right.
    pub says: &'static str,
    /// What was seen instead, or why it was not tried.
    pub detail: Option<String>,
    /// Where PROTOCOL.md says so.
    pub section: String,
}

const fn alone(
    id: &'static str,
    section: &'static str,
    says: &'static str,
    run: fn(&mut Bench<'_>) -> Result<(), Stopped>,
) -> Scenario {
    Scenario { id, section, says, needs_account: false, run }
}

const fn with_account(
    id: &'static str,
    section: &'static str,
    says: &'static str,
    run: fn(&mut Bench<'_>) -> Result<(), Stopped>,
) -> Scenario {
    Scenario { id, section, says, needs_account: true, run }
}

/// Every scenario, in the order in which they are tried.
pub const SCENARIOS: &[Scenario] = &[
    alone("hello", "serve", "it says hello first, in time, under its own name", framing::hello),
    alone(
        "describe",
        "describe-and-its-schema",
        "its schema can be used, and every property has its mark",
        framing::describe,
    ),
    alone(
        "one-shot-equals-serve",
        "one-shot",
        "it describes itself in one shot as it does when it serves",
        framing::one_shot_equals_serve,
    ),
    alone("help", "one-shot", "--help, --version and --schema are answered on standard output", framing::help),
    alone(
        "malformed",
        "serve",
        "what is no message is answered without an id, repeats nothing, and ends it with 2",
        framing::malformed,
    ),
    alone(
        "oversized-line",
        "serve",
        "a line of more than 1 MiB is answered without an id and ends it with 2",
        framing::oversized_line,
    ),
    alone("longest-line", "serve", "a line of 1 MiB is read, and CRLF ends a line", framing::longest_line),
    alone("cut-off-line", "serve", "a message that the end of input cuts off is none", framing::cut_off_line),
    alone("end-of-input", "serve", "it ends with 0 when its input ends", framing::end_of_input),
    alone(
        "wrong-types",
        "errors",
        "params that do not fit are told by their place and never by their value",
        framing::wrong_types,
    ),
    alone(
        "unknown-operation",
        "versions",
        "an operation that is not known is refused, and a notification ignored",
        framing::unknown_operation,
    ),
    alone("wrong-id", "serve", "a request whose id is a string is no host's", framing::wrong_id),
    alone(
        "other-version",
        "versions",
        "a version that is not spoken is refused as unsupported",
        framing::other_version,
    ),
    alone("unknown-fields", "versions", "fields that are not known are ignored", framing::unknown_fields),
    alone(
        "usage",
        "exit-statuses",
        "what cannot be understood in one shot ends with 2 and repeats nothing",
        framing::usage,
    ),
    alone(
        "unwritable-output",
        "exit-statuses",
        "an answer that cannot be written is a failure",
        framing::unwritable_output,
    ),
    with_account("plan", "traits", "the traits of the account are told", account::plan),
    with_account("check", "operations", "check tells what it found and changes nothing", account::check),
    with_account(
        "verify",
        "operations",
        "verify accepts the right credential and does not accept a wrong one",
        account::verify,
    ),
    with_account(
        "account-field",
        "versions",
        "a field of the account that is not known is ignored",
        account::unknown_account_field,
    ),
    with_account("permit-refused", "the-threshold", "without a permit nothing changes", permit::refused),
    with_account("permit-garbage", "the-threshold", "only proceed: true is a permit", permit::garbage),
    with_account("permit-error", "the-threshold", "an error is no permit", permit::error),
    with_account(
        "cancel-before-permit",
        "serve",
        "cancel before the permit ends the operation with one reply",
        permit::cancelled_before,
    ),
    with_account("end-before-permit", "serve", "the end of input before the permit means cancel", permit::end_before),
    with_account(
        "sigterm-before-permit",
        "serve",
        "SIGTERM before the permit ends it, and nothing changes",
        permit::terminated_before,
    ),
    with_account(
        "one-at-a-time",
        "serve",
        "a second request meanwhile is refused, and the first goes on",
        permit::one_at_a_time,
    ),
    with_account("deadline", "serve", "at the deadline it answers timeout", permit::deadline),
    with_account("account-timeout", "serve", "the account's timeout shortens the deadline", permit::account_timeout),
    with_account(
        "apply",
        "operations",
        "behind the permit the target takes the candidate, and no longer the old one",
        account::apply,
    ),
    with_account("apply-twice", "operations", "a change that is there already is a success", account::apply_twice),
    with_account(
        "cancel-behind-permit",
        "serve",
        "cancel behind the permit leaves the word to the operation",
        permit::cancelled_behind,
    ),
    with_account(
        "end-behind-permit",
        "serve",
        "the end of input behind the permit lets the change be finished and answered",
        permit::end_behind,
    ),
    with_account(
        "garbage-behind-permit",
        "serve",
        "what is no message behind the permit lets the change be finished, too",
        permit::garbage_behind,
    ),
    with_account(
        "not-staged",
        "minted-secrets",
        "a minted secret that nobody holds is removed again",
        permit::not_staged,
    ),
    with_account(
        "finish",
        "operations",
        "finish removes the old credential and never the current one",
        account::finish,
    ),
    with_account("rotate", "one-shot", "rotate writes the candidate first and the result last", account::rotate),
    with_account(
        "rotate-unwritable",
        "one-shot",
        "a candidate that cannot be written changes nothing",
        account::rotate_unwritable,
    ),
    alone("no-secret", "errors", "no secret stood in anything that was said but in results", bench::no_secret),
];

/// Tries every scenario on a rotator.
///
/// # Errors
/// When the rotator cannot be started at all, or the account's file cannot be used.
pub fn test(rotators: &Rotators, rotator: &Rotator, account: Option<&Path>) -> Result<Vec<Finding>, Failure> {
    let subject = account.map(Subject::read).transpose()?;
    let mut bench = Bench::new(rotators, rotator, subject)?;
    Ok(SCENARIOS.iter().map(|scenario| scenario.tried(&mut bench)).collect())
}

impl Scenario {
    fn tried(&self, bench: &mut Bench<'_>) -> Finding {
        let ended = match (self.needs_account, bench.has_subject()) {
            (true, false) => Err(Stopped::DoesNotApply("it needs an account: --account names its file")),
            (true, true) => bench.settle().and_then(|()| (self.run)(bench)),
            (false, _) => (self.run)(bench),
        };
        let (outcome, detail) = match ended {
            Ok(()) => (Outcome::Passed, None),
            Err(Stopped::Broken(what)) => (Outcome::Failed, Some(what)),
            Err(Stopped::DoesNotApply(why)) => (Outcome::NotTried, Some(why.to_owned())),
        };
        Finding {
            scenario: self.id,
            outcome,
            says: self.says,
            detail,
            section: format!("PROTOCOL.md#{}", self.section),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passed => "passed",
            Self::Failed => "FAILED",
            Self::NotTried => "not tried",
        })
    }
}

fn broken(what: impl Into<String>) -> Stopped {
    Stopped::Broken(what.into())
}

/// A scenario goes on only if this is so.
fn must(holds: bool, else_said: impl FnOnce() -> String) -> Result<(), Stopped> {
    if holds { Ok(()) } else { Err(Stopped::Broken(else_said())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROTOCOL: &str = include_str!("../../PROTOCOL.md");

    /// The table in PROTOCOL.md and this list are the same.
    #[test]
    fn the_list_is_the_one_of_the_protocol() {
        let row = |line: &str| {
            let mut cells = line.strip_prefix("| `")?.split(" | ");
            let id = cells.next()?.strip_suffix('`')?.to_owned();
            let says = cells.next()?.to_owned();
            let section = cells.next()?.split("](#").nth(1)?.split(')').next()?.to_owned();
            Some((id, says, section))
        };
        let conformance = PROTOCOL.split("\n## Conformance").nth(1).unwrap();
        let told: Vec<_> = conformance.lines().filter_map(row).collect();
        let ours: Vec<_> =
            SCENARIOS.iter().map(|one| (one.id.to_owned(), one.says.to_owned(), one.section.to_owned())).collect();
        assert_eq!(told, ours);
    }

    #[test]
    fn every_section_is_a_heading_of_the_protocol() {
        let anchors: Vec<String> = PROTOCOL
            .lines()
            .filter(|line| line.starts_with('#'))
            .map(|line| line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-"))
            .collect();
        for scenario in SCENARIOS {
            assert!(anchors.iter().any(|anchor| anchor == scenario.section), "{}", scenario.section);
        }
    }

    #[test]
    fn no_two_scenarios_share_a_name() {
        let mut ids: Vec<_> = SCENARIOS.iter().map(|scenario| scenario.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), SCENARIOS.len());
    }
}
