//! The command line, and one operation for one process: for scripts and
//! containers.

use std::cell::Cell;
use std::ffi::OsString;
use std::io::{IsTerminal, stdin};
use std::rc::Rc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::Instant;
use turnlock_protocol::message::RpcError;
use turnlock_protocol::operation::{
    Account, Admin, ApplyParams, ApplyResult, FinishParams, Finished, HostOutcome, PlanParams, PlanResult,
    PrepareParams, Prepared, Verdict, Verdicts, VerifyParams,
};
use turnlock_protocol::{
    Applied, Credential, Fault, Kind, Mark, Operation, Origin, Policy, PolicyError, RandomSource, VerifyBy, field,
};
use zeroize::Zeroizing;

use crate::cleared::json;
use crate::dispatch::{Call, RawResult, read, spoken};
use crate::host::Host;
use crate::output::{self, Output};
use crate::rotator::Rotator;
use crate::threshold::PermitState;
use crate::{input, schema, serve};

/// The exit statuses of one-shot mode.
mod status {
    pub(super) const DONE: u8 = 0;
    pub(super) const USAGE: u8 = 2;
    pub(super) const NOTHING_CHANGED: u8 = 3;
    pub(super) const LIVE: u8 = 4;
    pub(super) const UNKNOWN: u8 = 5;
}

/// Understands the arguments and does what they say. Returns the exit status.
pub(crate) async fn command_line<R: Rotator>(arguments: Vec<OsString>) -> u8 {
    let words: Option<Vec<&str>> = arguments.iter().map(|word| word.to_str()).collect();
    let Some(mut words) = words else {
        return usage::<R>("the arguments are not UTF-8");
    };
    let reveal = words.contains(&"--reveal");
    words.retain(|word| *word != "--reveal");
    match words.as_slice() {
        [] if stdin().is_terminal() => {
            output::to_people(&help::<R>());
            status::USAGE
        }
        [] => usage::<R>("no operation given"),
        ["--help" | "-h" | "help"] => {
            output::answer_people(&help::<R>());
            status::DONE
        }
        ["--version" | "-V"] => {
            output::answer_people(&format!("turnlock-{} {}", R::PLUGIN, R::VERSION));
            status::DONE
        }
        ["--schema"] => {
            let schema = schema::describe::<R>().schema;
            output::answer_people(&serde_json::to_string_pretty(&schema).unwrap_or_default());
            status::DONE
        }
        ["serve"] => match Output::take_stdout() {
            Ok(output) => serve::serve::<R>(output).await,
            Err(error) => usage::<R>(&format!("standard output cannot be used: {error}")),
        },
        ["rotate"] => one_shot::<R>(None, reveal).await,
        [word] => match Operation::named(word) {
            Some(operation) => one_shot::<R>(Some(operation), reveal).await,
            None => usage::<R>(&format!("there is no operation \"{word}\"")),
        },
        _ => usage::<R>("one operation at a time"),
    }
}

/// Performs one operation, or with none the whole rotation.
async fn one_shot<R: Rotator>(operation: Option<Operation>, reveal: bool) -> u8 {
    let output = match Output::take_stdout() {
        Ok(output) => Rc::new(output),
        Err(error) => return usage::<R>(&format!("standard output cannot be used: {error}")),
    };
    let shows_secrets = matches!(operation, None | Some(Operation::Prepare | Operation::Apply));
    if shows_secrets && output.is_terminal() && !reveal {
        return usage::<R>("the result holds a secret and standard output is a terminal: redirect it, or say --reveal");
    }
    if operation != Some(Operation::Describe) && stdin().is_terminal() {
        return usage::<R>("the params are read from standard input, which is a terminal");
    }
    let text =
        if operation == Some(Operation::Describe) { Ok(Zeroizing::new(b"{}".to_vec())) } else { input::everything() };
    let text = match text {
        Ok(text) => text,
        Err(error) => return usage::<R>(&format!("standard input cannot be read: {error}")),
    };
    let params: &RawValue = match serde_json::from_slice(&text) {
        Ok(params) => params,
        Err(error) => {
            let place = turnlock_protocol::Malformed::from(&error);
            let fault = Fault::new(
                Kind::InvalidInput,
                format!("standard input is not JSON at line {}, column {}", place.line, place.column),
            );
            return failed(&output, fault.into(), None);
        }
    };
    let story = Story { host: Rc::new(Host::alone(Rc::clone(&output))) };
    match operation {
        Some(operation) => match story.perform::<R>(operation, params).await {
            Ok(result) => {
                let changes = matches!(operation, Operation::Apply | Operation::Finish | Operation::Revert);
                written(&output, &result, changes)
            }
            Err(error) => failed(&output, error, None),
        },
        None => story.rotate::<R>(params, &output).await,
    }
}

/// Params of `rotate`, which has no counterpart on the wire.
#[derive(Deserialize)]
struct RotateParams {
    account: Account,
    #[serde(default)]
    current: Credential,
    #[serde(default)]
    next: Option<Credential>,
    #[serde(default)]
    admin: Option<Admin>,
    #[serde(default)]
    policy: Policy,
    #[serde(default = "version_one")]
    protocol: u32,
    #[serde(default = "thirty_seconds")]
    deadline_ms: u64,
}

fn version_one() -> u32 {
    1
}

fn thirty_seconds() -> u64 {
    30_000
}

/// The last line of a rotation that worked.
#[derive(Serialize)]
struct Rotated<'a> {
    rotated: bool,
    verified: bool,
    next: &'a Credential,
    finished: Option<Finished>,
    warnings: Vec<String>,
}

/// The rotation of one process, for people without an orchestrator.
struct Story {
    host: Rc<Host>,
}

impl Story {
    async fn perform<R: Rotator>(&self, operation: Operation, params: &RawValue) -> Result<RawResult, RpcError> {
        let permit = Rc::new(Cell::new(PermitState::NotGiven));
        Call { host: Rc::clone(&self.host), id: 0, permit }.perform::<R>(operation, Some(params)).await
    }

    /// Performs an operation with typed params and a typed result.
    async fn ask<R: Rotator, T: DeserializeOwned>(
        &self,
        operation: Operation,
        params: &impl Serialize,
        deadline_ms: u64,
    ) -> Result<T, RpcError> {
        #[derive(Serialize)]
        struct WithTerms<'a, P> {
            protocol: u32,
            deadline_ms: u64,
            #[serde(flatten)]
            params: &'a P,
        }
        let defect = || RpcError::from(Fault::new(Kind::Internal, "params or result could not be carried over"));
        let params = json(&WithTerms { protocol: 1, deadline_ms, params }).map_err(|_| defect())?;
        let params: &RawValue = serde_json::from_slice(&params).map_err(|_| defect())?;
        let result = self.perform::<R>(operation, params).await?;
        result.parse().map_err(|_| defect())
    }

    /// prepare → the candidate is written → apply → verify → finish.
    async fn rotate<R: Rotator>(&self, params: &RawValue, output: &Output) -> u8 {
        let params: RotateParams = match read(params) {
            Ok(params) => params,
            Err(fault) => return failed(output, fault.into(), None),
        };
        let RotateParams { account, current, next, admin, policy, protocol, deadline_ms } = params;
        if let Err(fault) = spoken(protocol) {
            return failed(output, fault.into(), None);
        }

        let plan = PlanParams { account: account.clone(), admin: duplicate(&admin) };
        let traits = match self.ask::<R, PlanResult>(Operation::Plan, &plan, deadline_ms).await {
            Ok(plan) => plan.traits,
            Err(error) => return failed(output, error, None),
        };
        if traits.origin == Origin::Target && next.is_some() {
            let fault =
                Fault::new(Kind::InvalidInput, "this target makes the new secret itself").hint("leave `next` out");
            return failed(output, fault.into(), None);
        }
        let prepare = PrepareParams {
            account: account.clone(),
            current: Some(current.duplicate()),
            policy,
            admin: duplicate(&admin),
        };
        let prepared: Prepared = match self.ask::<R, _>(Operation::Prepare, &prepare, deadline_ms).await {
            Ok(prepared) => prepared,
            Err(error) => return failed(output, error, None),
        };
        let given = next.is_some();
        let whole = |secret: &Credential| {
            secret.duplicate().keeping(&current, |name| {
                R::CREDENTIAL.iter().any(|field| field.name == name && field.mark == Mark::WriteBack)
            })
        };
        let candidate = match next.or(prepared.next) {
            Some(candidate) => Some(candidate),
            None if traits.origin == Origin::Target => None,
            None if traits.origin == Origin::Rotator => {
                let fault = Fault::new(Kind::Internal, "`prepare` made no secret although this rotator makes them");
                return failed(output, fault.into(), None);
            }
            None => {
                let policy = prepared.policy.unwrap_or(prepare.policy).within(&traits.password);
                match policy.draw(&mut SystemRandom) {
                    Ok(secret) => Some(Credential::password(secret)),
                    Err(error) => {
                        return failed(
                            output,
                            Fault::new(Kind::InvalidInput, format!("no secret can be made: {error}")).into(),
                            None,
                        );
                    }
                }
            }
        };
        if let (false, Some(candidate)) = (given, &candidate)
            && !self.host.write_candidate(candidate)
        {
            output::to_people(
                "error: the new secret could not be written to standard output, so nothing was changed\n  \
                 hint: redirect standard output to a file or a pipe",
            );
            return status::NOTHING_CHANGED;
        }

        let apply = ApplyParams {
            account: account.clone(),
            current: current.duplicate(),
            next: candidate.as_ref().map(whole),
            admin: duplicate(&admin),
            attempt: String::new(),
        };
        let applied: ApplyResult = match self.ask::<R, _>(Operation::Apply, &apply, deadline_ms).await {
            Ok(applied) => applied,
            Err(error) => return failed(output, error, None),
        };
        let lagging: Vec<String> =
            applied.hosts.iter().filter(|host| host.applied != Applied::Yes).map(outcome).collect();
        if !lagging.is_empty() {
            let mut fault = Fault::new(
                Kind::Conflict,
                format!("{} of {} hosts did not take the change", lagging.len(), applied.hosts.len()),
            )
            .hint("apply the same secret again for these hosts, or revert it on all of them");
            fault.applied = Applied::Unknown;
            fault.causes = lagging;
            return failed(output, fault.into(), Some(status::UNKNOWN));
        }
        let Some(live) = applied.next.or(candidate) else {
            let fault = Fault::new(Kind::Internal, "the change was made but no new credential came back");
            return failed(output, fault.into(), Some(status::UNKNOWN));
        };

        let verified = traits.verify != VerifyBy::None;
        if verified {
            let verify = VerifyParams { account: account.clone(), credential: whole(&live), admin: duplicate(&admin) };
            let asked_until = Instant::now() + Duration::from_millis(traits.settle_ms);
            let heard = loop {
                let heard = self.ask::<R, Verdicts>(Operation::Verify, &verify, deadline_ms).await;
                let refused = heard.as_ref().is_ok_and(|verdicts| verdicts.verdict == Verdict::Refused);
                if !refused || traits.lockout_sensitive || Instant::now() >= asked_until {
                    break heard;
                }
                // The target may take its time to agree with itself.
                tokio::time::sleep(Duration::from_millis(500)).await;
            };
            match heard {
                Ok(verdicts) if verdicts.verdict == Verdict::Accepted => {}
                Ok(_) => {
                    let mut fault =
                        Fault::new(Kind::Authentication, "the target took the change and then refused the new secret");
                    fault.applied = Applied::Unknown;
                    return failed(output, fault.into(), Some(status::UNKNOWN));
                }
                Err(mut error) => {
                    if let Some(fault) = &mut error.data {
                        fault.applied = Applied::Yes;
                    }
                    return failed(output, error, Some(status::LIVE));
                }
            }
        }

        let mut finished = None;
        if traits.publishes || (traits.finish && !current.is_empty()) {
            let (live, previous) = (whole(&live), current.duplicate());
            let finish = FinishParams { account, current: live, previous, admin, in_grace: false };
            match self.ask::<R, Finished>(Operation::Finish, &finish, deadline_ms).await {
                Ok(done) => finished = Some(done),
                Err(mut error) => {
                    if let Some(fault) = &mut error.data {
                        fault.applied = Applied::Yes;
                    }
                    return failed(output, error, Some(status::LIVE));
                }
            }
        }
        let rotated = Rotated { rotated: true, verified, next: &live, finished, warnings: applied.warnings };
        written(output, &rotated, true)
    }
}

fn outcome(host: &HostOutcome) -> String {
    let known = match host.applied {
        Applied::Yes => "changed",
        Applied::No => "not changed",
        Applied::Unknown => "not known",
    };
    match &host.message {
        Some(message) => format!("{}: {known}: {message}", host.host),
        None => format!("{}: {known}", host.host),
    }
}

fn duplicate(admin: &Option<Admin>) -> Option<Admin> {
    admin.as_ref().map(|admin| Admin {
        login: admin.login.clone(),
        credential: admin.credential.duplicate(),
        account: admin.account.clone(),
    })
}

/// Writes the result as the last line, and tells the exit status.
fn written(output: &Output, result: &impl Serialize, changed: bool) -> u8 {
    match output.line(result).and_then(|()| output.sync()) {
        Ok(()) => status::DONE,
        Err(error) if changed => {
            output::to_people(&format!("the change is made, but its result could not be written: {error}"));
            status::LIVE
        }
        Err(error) => {
            output::to_people(&format!("the result could not be written: {error}; nothing was changed"));
            status::NOTHING_CHANGED
        }
    }
}

/// Writes the error as the last line, once more for people, and tells its
/// exit status.
fn failed(output: &Output, error: RpcError, status: Option<u8>) -> u8 {
    #[derive(Serialize)]
    struct Line<'a> {
        error: &'a RpcError,
    }
    let line = output.line(&Line { error: &error });
    let fault = error.into_fault();
    output::to_people(&format!("error: {}", one_line(&fault.message)));
    for cause in &fault.causes {
        output::to_people(&format!("  caused by: {}", one_line(cause)));
    }
    if let Some(hint) = &fault.hint {
        output::to_people(&format!("  hint: {}", one_line(hint)));
    }
    if let Err(error) = line {
        output::to_people(&format!("  and standard output cannot be written: {error}"));
    }
    status.unwrap_or(match (fault.kind, fault.applied) {
        (Kind::InvalidInput, Applied::No) => status::USAGE,
        (_, Applied::No) => status::NOTHING_CHANGED,
        (_, Applied::Yes) => status::LIVE,
        (_, Applied::Unknown) => status::UNKNOWN,
    })
}

/// What a target said may hold line ends and a terminal's control sequences.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn usage<R: Rotator>(problem: &str) -> u8 {
    output::to_people(&format!("error: {problem}\n  hint: turnlock-{} --help shows how to call it", R::PLUGIN));
    status::USAGE
}

/// The operating system's source of randomness.
#[derive(Debug)]
pub struct SystemRandom;

impl RandomSource for SystemRandom {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), PolicyError> {
        getrandom::fill(buffer).map_err(|_| PolicyError::NoRandomness)
    }
}

fn help<R: Rotator>() -> String {
    let plugin = R::PLUGIN;
    let fields = |of_admin: bool| {
        let fields =
            R::CREDENTIAL.iter().filter(|field| (field.mark == Mark::Admin) == of_admin && field.name != "login");
        fields.map(|field| format!("\"{}\": \"…\"", field.name)).collect::<Vec<_>>().join(", ")
    };
    let secret_fields = fields(false);
    let admin = match fields(true) {
        none if none.is_empty() => none,
        fields => format!(",\n   \"admin\": {{\"login\": \"…\", \"credential\": {{{fields}}}}}"),
    };
    let password = if R::CREDENTIAL.iter().any(|field| field.name == field::PASSWORD) {
        "\n\
         With a policy of your own, or a secret of your own:\n  \
         {…, \"policy\": {\"length\": 32, \"symbols\": {\"exactly\": 0}}}\n  \
         {…, \"next\": {\"password\": \"…\"}}\n"
    } else {
        ""
    };
    format!(
        "{summary}\n\
         \n\
         Usage: turnlock-{plugin} <operation> [--reveal] < params.json > result.ndjson\n\
         \n\
         Operations:\n  \
         rotate    make a new secret, change it on the target, prove it, clean up\n  \
         check     log in and tell what could go wrong; changes nothing\n  \
         verify    ask the target whether it accepts a credential\n  \
         describe  what this rotator is, as JSON; also: plan, prepare, apply, finish, revert\n  \
         serve     speak JSON-RPC over standard input and output, for an orchestrator\n\
         \n\
         Options:\n  \
         --reveal   write secrets even where standard output is a terminal\n  \
         --schema   the JSON Schema of what a record may say to this plugin\n  \
         --version, --help\n\
         \n\
         Example params:\n  \
         {{\"account\": {account},\n   \
         \"current\": {{{secret_fields}}}{admin}}}\n\
         {password}\
         \n\
         rotate writes the new secret to standard output before it touches the target;\n\
         the last line is the result, or {{\"error\": …}}.\n\
         \n\
         Exit status: 0 done, 2 usage or invalid input, 3 failed and nothing changed,\n\
         4 the new credential is live but something is left to do, 5 unknown: ask the\n\
         target with verify, 1 a bug.",
        summary = R::SUMMARY,
        account = R::EXAMPLE_ACCOUNT,
    )
}
