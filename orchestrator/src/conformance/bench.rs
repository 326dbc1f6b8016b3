//! What the scenarios stand on: the rotator, the account, and an eye on
//! everything that is said.

use std::cell::RefCell;
use std::process::{Command, Stdio};
use std::rc::Rc;

use serde::Serialize;
use serde_json::{Map, Value};
use turnlock_protocol::message::{Hello, RpcError};
use turnlock_protocol::operation::{
    Account, Admin, ApplyParams, ApplyResult, CheckParams, FinishParams, Finished, PlanParams, PlanResult,
    PrepareParams, Prepared, Verdict, Verdicts, VerifyParams,
};
use turnlock_protocol::{
    Applied, Credential, Describe, Kind, Operation, Origin, Overlap, Policy, Secret, Traits, VerifyBy,
};

use super::dialogue::{self, DEADLINE_MS, Dialogue, Ended, Said};
use super::subject::Subject;
use super::{Stopped, broken, must};
use crate::failure::Failure;
use crate::generate;
use crate::rotators::{Rotator, Rotators};

/// A value that must not be repeated where it is misplaced.
pub(super) const CANARY: &str = "canary-5d7e";

/// The rotator under test, and the account it may change.
pub(super) struct Bench<'a> {
    rotators: &'a Rotators,
    rotator: &'a Rotator,
    pub(super) describe: Describe,
    subject: Option<Subject>,
    watch: Rc<Watch>,
}

/// Looks for secrets where none may be.
pub(super) struct Watch {
    secrets: RefCell<Vec<String>>,
    seen: RefCell<Option<String>>,
}

/// Params of `rotate`.
#[derive(Serialize)]
pub(super) struct RotateParams {
    account: Account,
    current: Credential,
    policy: Policy,
    #[serde(skip_serializing_if = "Option::is_none")]
    admin: Option<Admin>,
}

/// What the target says of a credential.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Accepted,
    Refused,
    CannotAsk(Kind),
}

impl<'a> Bench<'a> {
    pub(super) fn new(rotators: &'a Rotators, rotator: &'a Rotator, subject: Option<Subject>) -> Result<Self, Failure> {
        let watch = Rc::new(Watch { secrets: RefCell::new(vec![CANARY.to_owned()]), seen: RefCell::new(None) });
        let unfit = |what: String| Failure::new(format!("{} cannot be tested: {what}", rotator.program));
        let mut command = rotators.command(rotator).map_err(|error| unfit(error.to_string()))?;
        let described = Dialogue::start(&mut command, &watch)
            .and_then(|(mut dialogue, _)| dialogue.read(Operation::Describe, &Map::new()));
        let describe = match described {
            Ok(Ok(describe)) => describe,
            Ok(Err(error)) => return Err(unfit(format!("it refuses to describe itself ({})", error.code))),
            Err(Stopped::Broken(what)) => return Err(unfit(what)),
            Err(Stopped::DoesNotApply(why)) => return Err(unfit(why.to_owned())),
        };
        let bench = Self { rotators, rotator, describe, subject, watch };
        bench.learn_secrets();
        Ok(bench)
    }

    pub(super) fn plugin(&self) -> &str {
        &self.rotator.plugin
    }

    pub(super) fn has_subject(&self) -> bool {
        self.subject.is_some()
    }

    pub(super) fn subject(&self) -> Result<&Subject, Stopped> {
        self.subject.as_ref().ok_or(Stopped::DoesNotApply("it needs an account: --account names its file"))
    }

    fn subject_mut(&mut self) -> Result<&mut Subject, Stopped> {
        self.subject.as_mut().ok_or(Stopped::DoesNotApply("it needs an account: --account names its file"))
    }

    fn command(&self) -> Result<Command, Stopped> {
        self.rotators.command(self.rotator).map_err(|error| broken(format!("it cannot be started: {error}")))
    }

    /// A new conversation, and what it said first.
    pub(super) fn greeted(&self) -> Result<(Dialogue, Hello), Stopped> {
        Dialogue::start(&mut self.command()?, &self.watch)
    }

    /// A new conversation.
    pub(super) fn serve(&self) -> Result<Dialogue, Stopped> {
        self.greeted().map(|(dialogue, _)| dialogue)
    }

    /// One operation for one process.
    pub(super) fn alone(&self, arguments: &[&str], input: &[u8]) -> Result<Ended, Stopped> {
        self.alone_into(arguments, input, Stdio::piped())
    }

    /// The same, with another standard output.
    pub(super) fn alone_into(&self, arguments: &[&str], input: &[u8], output: Stdio) -> Result<Ended, Stopped> {
        dialogue::call(self.command()?.args(arguments), input, output, &self.watch)
    }

    /// Nothing that a program wrote may hold a secret or a misplaced value.
    pub(super) fn look(&self, ended: &Ended, what: &str) {
        self.watch.look(&ended.output, what);
    }

    /// The traits of the account.
    pub(super) fn traits(&self, dialogue: &mut Dialogue) -> Result<Traits, Stopped> {
        let subject = self.subject()?;
        let params = PlanParams { account: subject.account().clone(), admin: subject.admin() };
        let plan: PlanResult = succeeded(dialogue.read(Operation::Plan, &params)?, "plan")?;
        Ok(plan.traits)
    }

    pub(super) fn check_params(&self, account: Account) -> Result<CheckParams, Stopped> {
        let subject = self.subject()?;
        Ok(CheckParams { account, current: subject.current().duplicate(), admin: subject.admin() })
    }

    /// A candidate, by its origin; none where the target makes it.
    pub(super) fn candidate(&self, dialogue: &mut Dialogue, traits: &Traits) -> Result<Option<Credential>, Stopped> {
        let subject = self.subject()?;
        let mut policy = subject.policy().clone();
        if traits.origin != Origin::Orchestrator || traits.policy_from_target {
            let params = PrepareParams {
                account: subject.account().clone(),
                current: Some(subject.current().duplicate()),
                policy: policy.clone(),
                admin: subject.admin(),
            };
            let prepared: Prepared = succeeded(dialogue.read(Operation::Prepare, &params)?, "prepare")?;
            if let Some(next) = prepared.next {
                return Ok(Some(self.completed(next)?));
            }
            policy = prepared.policy.unwrap_or(policy);
        }
        match traits.origin {
            Origin::Orchestrator => {
                let password = drawn(&policy.within(&traits.password))?;
                Ok(Some(self.completed(Credential::password(password))?))
            }
            Origin::Rotator => Err(broken("prepare made no candidate although its traits say so")),
            Origin::Target => Ok(None),
        }
    }

    /// With those fields of the current credential that a rotation leaves alone.
    fn completed(&self, next: Credential) -> Result<Credential, Stopped> {
        let fields = self.fields("write-back");
        Ok(next.keeping(self.subject()?.current(), |name| fields.iter().any(|field| field == name)))
    }

    /// The names in a credential of the properties with this mark.
    fn fields(&self, mark: &str) -> Vec<String> {
        let marked = |(name, property): (&String, &Value)| {
            let field = property.get("x-turnlock-field").and_then(Value::as_str).unwrap_or(name);
            (property.get("x-turnlock").and_then(Value::as_str) == Some(mark)).then(|| field.to_owned())
        };
        self.properties().into_iter().flatten().filter_map(marked).collect()
    }

    pub(super) fn properties(&self) -> Option<&Map<String, Value>> {
        self.describe.schema.get("properties")?.as_object()
    }

    /// The params of a change to this candidate.
    pub(super) fn apply_params(&self, next: Option<&Credential>) -> Result<ApplyParams, Stopped> {
        let subject = self.subject()?;
        Ok(ApplyParams {
            account: subject.account().clone(),
            current: subject.current().duplicate(),
            next: next.map(Credential::duplicate),
            admin: subject.admin(),
            attempt: "conformance".to_owned(),
        })
    }

    /// The params of the whole story in one shot, whose secret is still to be made.
    pub(super) fn rotate_params(&self) -> Result<RotateParams, Stopped> {
        let subject = self.subject()?;
        Ok(RotateParams {
            account: subject.account().clone(),
            current: subject.current().duplicate(),
            policy: subject.policy().clone(),
            admin: subject.admin(),
        })
    }

    /// A conversation that has asked for a change, and when it has to have ended.
    pub(super) fn asking(&mut self) -> Result<(Dialogue, u64), Stopped> {
        let account = self.subject()?.account().clone();
        self.asking_for(account, DEADLINE_MS)
    }

    /// The same with other terms. The candidate is kept, for there are
    /// rotators that do not wait for a permit.
    pub(super) fn asking_for(&mut self, account: Account, deadline_ms: u64) -> Result<(Dialogue, u64), Stopped> {
        let mut dialogue = self.serve()?;
        let traits = self.traits(&mut dialogue)?;
        let next = self.candidate(&mut dialogue, &traits)?;
        let params = ApplyParams { account, ..self.apply_params(next.as_ref())? };
        if let Some(next) = next {
            self.begin(next)?;
        }
        let asked = dialogue.ask(Operation::Apply, &params, deadline_ms)?;
        Ok((dialogue, asked))
    }

    /// A change from its beginning to its end. `behind` happens right behind the permit.
    pub(super) fn change(
        &mut self,
        behind: impl FnOnce(&mut Dialogue, u64) -> Result<(), Stopped>,
    ) -> Result<Dialogue, Stopped> {
        let (mut dialogue, asked) = self.asking()?;
        dialogue.permit(asked)?;
        behind(&mut dialogue, asked)?;
        self.applied(&mut dialogue, asked)?;
        Ok(dialogue)
    }

    /// The candidate stands in the account's file from here on.
    pub(super) fn begin(&mut self, next: Credential) -> Result<(), Stopped> {
        self.subject_mut()?.begin(next)?;
        self.learn_secrets();
        Ok(())
    }

    /// The candidate is the current credential.
    pub(super) fn commit(&mut self) -> Result<(), Stopped> {
        self.subject_mut()?.commit()
    }

    /// Hears a change to its successful end.
    pub(super) fn applied(&mut self, dialogue: &mut Dialogue, asked: u64) -> Result<(), Stopped> {
        let result: ApplyResult = loop {
            match dialogue.hear()? {
                Said::Minted { id, next } => {
                    let next = self.completed(next)?;
                    self.begin(next)?;
                    // Its input may be closed: then it does not wait.
                    let _ = dialogue.answer(&id, &serde_json::json!({"staged": true}));
                }
                Said::Result { id: turnlock_protocol::RequestId::Host(answered), line } if answered == asked => {
                    break dialogue::result(&line)?;
                }
                // Garbage was answered in between.
                Said::Error { id: None, .. } => {}
                other => return Err(broken(format!("it should have made the change, and it {other}"))),
            }
        };
        if let Some(host) = result.hosts.iter().find(|host| host.applied != Applied::Yes) {
            return Err(broken(format!("the host {} did not take the change", host.host)));
        }
        if let Some(next) = result.next {
            let next = self.completed(next)?;
            self.begin(next)?;
        }
        self.commit()
    }

    /// Asks the target about a credential, on a process of its own.
    pub(super) fn ask(&self, credential: &Credential) -> Result<Answer, Stopped> {
        let mut dialogue = self.serve()?;
        let params = self.verify_params(credential)?;
        let answer = match dialogue.read::<Verdicts>(Operation::Verify, &params)? {
            Ok(Verdicts { verdict: Verdict::Accepted, .. }) => Answer::Accepted,
            Ok(_) => Answer::Refused,
            Err(error) => Answer::CannotAsk(error.data.map_or(Kind::Internal, |fault| fault.kind)),
        };
        dialogue.end(0)?;
        Ok(answer)
    }

    fn verify_params(&self, credential: &Credential) -> Result<VerifyParams, Stopped> {
        let subject = self.subject()?;
        Ok(VerifyParams {
            account: subject.account().clone(),
            credential: credential.duplicate(),
            admin: if self.describe.traits.verify == VerifyBy::Admin { subject.admin() } else { None },
        })
    }

    /// The target still takes the current credential: what was begun was not made.
    pub(super) fn nothing_changed(&mut self) -> Result<(), Stopped> {
        if self.describe.traits.verify != VerifyBy::None {
            let answer = self.ask(self.subject()?.current())?;
            must(answer == Answer::Accepted, || {
                format!("nothing should have changed, and the current credential is {answer:?}")
            })?;
        }
        self.subject_mut()?.abandon()
    }

    /// The target takes the account's new credential and, where they do not
    /// overlap, no longer this old one.
    pub(super) fn changed(&self, previous: &Credential, traits: &Traits) -> Result<(), Stopped> {
        if traits.verify == VerifyBy::None {
            return Ok(());
        }
        let answer = self.ask(self.subject()?.current())?;
        must(answer == Answer::Accepted, || format!("the new credential should work, and it is {answer:?}"))?;
        let is_telling = traits.overlap == Overlap::None && !traits.lockout_sensitive && traits.settle_ms == 0;
        if is_telling && !previous.is_empty() {
            let answer = self.ask(previous)?;
            must(answer == Answer::Refused, || format!("the old credential should be refused, and it is {answer:?}"))?;
        }
        Ok(())
    }

    /// Removes what an old credential left behind, where the target has such a thing.
    pub(super) fn finish(&self, previous: &Credential, traits: &Traits) -> Result<(), Stopped> {
        if !traits.finish || previous.is_empty() {
            return Ok(());
        }
        let mut dialogue = self.serve()?;
        let asked = dialogue.ask(Operation::Finish, &self.finish_params(previous)?, DEADLINE_MS)?;
        loop {
            match dialogue.hear()? {
                Said::Threshold { id, .. } => dialogue.answer(&id, &serde_json::json!({"proceed": true}))?,
                Said::Result { id: turnlock_protocol::RequestId::Host(answered), line } if answered == asked => {
                    let _: Finished = dialogue::result(&line)?;
                    return dialogue.end(0);
                }
                other => return Err(broken(format!("it should have finished, and it {other}"))),
            }
        }
    }

    pub(super) fn finish_params(&self, previous: &Credential) -> Result<FinishParams, Stopped> {
        let subject = self.subject()?;
        Ok(FinishParams {
            account: subject.account().clone(),
            current: subject.current().duplicate(),
            previous: previous.duplicate(),
            admin: subject.admin(),
            in_grace: false,
        })
    }

    /// Finds out what became of a change that was begun, so that the file is
    /// right before anything else is tried.
    pub(super) fn settle(&mut self) -> Result<(), Stopped> {
        let Some(begun) = self.subject()?.begun().map(Credential::duplicate) else {
            return Ok(());
        };
        let answer = self.ask(&begun)?;
        match answer {
            Answer::Accepted => self.commit(),
            Answer::Refused => self.subject_mut()?.abandon(),
            Answer::CannotAsk(kind) => Err(broken(format!(
                "an earlier change was left open, and what became of it cannot be asked ({kind}); both are in the account's file"
            ))),
        }
    }

    /// Everything that must not be said from now on. Fields that are not
    /// marked `writeOnly`, such as an access key's id, are no secrets.
    fn learn_secrets(&self) {
        let Some(subject) = &self.subject else {
            return;
        };
        let public: Vec<&str> = self
            .properties()
            .into_iter()
            .flatten()
            .filter(|(_, property)| property.get("writeOnly") != Some(&Value::Bool(true)))
            .map(|(name, property)| property.get("x-turnlock-field").and_then(Value::as_str).unwrap_or(name))
            .collect();
        let fields = subject.credentials().flat_map(Credential::fields).filter(|(name, _)| !public.contains(name));
        for (_, secret) in fields {
            self.watch.learn(secret);
        }
    }
}

impl Watch {
    /// Remembers a secret, a key line by line.
    fn learn(&self, secret: &Secret) {
        #[expect(clippy::disallowed_methods, reason = "what must not be said has to be looked for")]
        let lines = secret.expose().lines().filter(|line| line.len() >= 6 && !line.starts_with("-----"));
        let mut secrets = self.secrets.borrow_mut();
        for line in lines {
            if !secrets.iter().any(|known| known == line) {
                secrets.push(line.to_owned());
            }
        }
    }

    /// Remembers where a secret was seen first.
    pub(super) fn look(&self, bytes: &[u8], place: &str) {
        let text = String::from_utf8_lossy(bytes);
        let held = |secret: &String| {
            let escaped = serde_json::to_string(secret).unwrap_or_default();
            text.contains(secret.as_str()) || text.contains(escaped.trim_matches('"'))
        };
        if self.secrets.borrow().iter().any(held) {
            self.seen.borrow_mut().get_or_insert_with(|| place.to_owned());
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        use zeroize::Zeroize as _;
        self.secrets.borrow_mut().iter_mut().for_each(|secret| secret.zeroize());
    }
}

/// The scenario over all that was said.
pub(super) fn no_secret(bench: &mut Bench<'_>) -> Result<(), Stopped> {
    match bench.watch.seen.borrow().as_deref() {
        None => Ok(()),
        Some(place) => Err(broken(format!("a secret or a misplaced value stood in {place}"))),
    }
}

/// A new password.
pub(super) fn drawn(policy: &Policy) -> Result<Secret, Stopped> {
    generate::candidate(policy, &[]).map_err(|error| broken(format!("no candidate can be made: {error}")))
}

/// The result of an operation that has to succeed with the account that was given.
pub(super) fn succeeded<R>(outcome: Result<R, RpcError>, operation: &str) -> Result<R, Stopped> {
    outcome.map_err(|error| {
        let kind = error.data.map_or_else(|| error.code.to_string(), |fault| fault.kind.to_string());
        broken(format!("{operation} failed with this account ({kind})"))
    })
}

/// Params as bytes for one shot.
pub(super) fn bytes(params: &impl Serialize) -> Result<zeroize::Zeroizing<Vec<u8>>, Stopped> {
    let mut bytes = zeroize::Zeroizing::new(Vec::with_capacity(8 * 1024));
    serde_json::to_writer(&mut *bytes, params).map_err(|_| broken("params cannot be written as JSON"))?;
    Ok(bytes)
}
