//! `turnlock resolve` and `turnlock restore`: a person decides which
//! credential is the current one.

use clap::Args;
use serde_json::json;
use turnlock_protocol::Credential;

use super::{Context, open};
use crate::engine::{Engine, durable};
use crate::failure::{Failure, State, exit};
use crate::hooks;
use crate::lease;
use crate::plan::Plan;
use crate::record::{Record, Uid};
use crate::resolve::Options;
use crate::settle::{self, Heard};
use crate::vault::{Lease, Stored};

#[derive(Debug, Args)]
#[command(after_help = "\
Each choice is proven on the target before it is adopted.

Examples:
  turnlock resolve \"Orders database\" --use candidate
  turnlock resolve \"Orders database\" --use past:3
  turnlock resolve \"Orders database\" --use password --password - < secret.txt
  turnlock resolve \"Backup account\" --use candidate --without-host srv3   # which is gone for good")]
pub(super) struct Resolve {
    /// A record: UID, title, folder/title, or an endpoint's name
    name: String,
    /// current, candidate, past:N (a number of show --history), or password
    #[arg(long = "use", value_name = "WHICH")]
    which: String,
    /// With --use password: asks at the terminal, with `-` reads standard input
    #[arg(long, value_name = "-", num_args = 0..=1, default_missing_value = "?")]
    password: Option<String>,
    /// Of a record with many hosts: do not ask this one; may be repeated
    #[arg(long, value_name = "HOST")]
    without_host: Vec<String>,
    /// Adopt it although the target does not accept it or cannot be asked
    #[arg(long)]
    unverified: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  turnlock restore \"Orders database\"        # the newest past credential that works\n  turnlock restore \"Orders database\" --number 3"
)]
pub(super) struct Restore {
    /// A record: UID, title, folder/title, or an endpoint's name
    name: String,
    /// The number of show --history [default: the newest that the target accepts]
    #[arg(long)]
    number: Option<u64>,
    /// Adopt it although the target does not accept it or cannot be asked
    #[arg(long, requires = "number")]
    unverified: bool,
}

pub(super) async fn run(context: &Context, resolve: Resolve) -> Result<u8, Failure> {
    let engine = context.engine(false).await?;
    let mut case = Case::open(&engine, &resolve.name).await?;
    let outcome = match case.without(&resolve.without_host) {
        Ok(()) => case.decide(&engine, &resolve).await,
        Err(failure) => Err(failure),
    };
    case.tell(context, &engine).await;
    case.close(&engine);
    outcome.map_err(|failure| case.told(failure))?;
    context.report.answer(&json!({"record": case.uid, "resolved": resolve.which}), || {
        format!("\"{}\" is settled: its current credential is the {} one", case.stored.record.title, resolve.which)
    });
    Ok(exit::DONE)
}

pub(super) async fn restore(context: &Context, restore: Restore) -> Result<u8, Failure> {
    let engine = context.engine(false).await?;
    let mut case = Case::open(&engine, &restore.name).await?;
    let outcome = case.restore(&engine, &restore).await;
    case.tell(context, &engine).await;
    case.close(&engine);
    let number = outcome.map_err(|failure| case.told(failure))?;
    context.report.answer(&json!({"record": case.uid, "restored": number}), || {
        format!("\"{}\" holds its past credential {number} again", case.stored.record.title)
    });
    Ok(exit::DONE)
}

/// A record under our lease, with the plan its credentials belong to.
struct Case {
    uid: Uid,
    stored: Stored,
    resolved: Plan,
    lease: Lease,
}

impl Case {
    async fn open(engine: &Engine, name: &str) -> Result<Self, Failure> {
        let uid = engine.record_named(name)?.uid;
        let (seen, resolved) = engine.plan_of(&uid, &Options::default())?;
        let open = !seen.stage.is_empty();
        // Records that were rotated together are settled together.
        let together = seen.stage.iter().flat_map(|attempt| attempt.duplicates.iter().cloned());
        let records = std::iter::once(uid.clone()).chain(together).collect();
        let lease = lease::take_beside(engine, records, Some(&resolved), name, open).await?;
        let read = durable(|| engine.vault.read(&uid));
        match read {
            Ok(stored) => Ok(Self { uid, stored, resolved, lease }),
            Err(error) => {
                let _ = durable(|| engine.vault.release(&lease));
                Err(error.into())
            }
        }
    }

    /// Leaves hosts out of what is asked. The record keeps them.
    fn without(&mut self, hosts: &[String]) -> Result<(), Failure> {
        let staged = self.stored.stage.iter_mut().map(|attempt| &mut attempt.plan);
        for plan in staged.chain([&mut self.resolved]) {
            let Some(serde_json::Value::Array(all)) = plan.account.get_mut("hosts") else {
                if hosts.is_empty() {
                    return Ok(());
                }
                return Err(Failure::usage("--without-host is for records with many hosts"));
            };
            for host in hosts {
                let before = all.len();
                all.retain(|one| one.as_str() != Some(host));
                if all.len() == before {
                    let names: Vec<&str> = all.iter().filter_map(serde_json::Value::as_str).collect();
                    return Err(Failure::usage(format!("--without-host {host}: that is none of {}", names.join(", "))));
                }
            }
            if all.is_empty() && !hosts.is_empty() {
                return Err(Failure::usage("--without-host leaves no host to ask").hint("insist with --unverified"));
            }
        }
        Ok(())
    }

    /// The staged plan, where there is one: it knows the endpoint of that day.
    fn plan(&self) -> &Plan {
        self.stored.stage.last().map_or(&self.resolved, |attempt| &attempt.plan)
    }

    /// Makes it current here, and in the records that were rotated together
    /// with this one.
    fn adopt(&self, engine: &Engine, credential: &Credential, why: &str) -> Result<(), Failure> {
        let plan = self.plan();
        // This one last: as long as it is open, the others can be written again.
        for uid in self.stored.stage.last().map_or(&[][..], |attempt| &attempt.duplicates) {
            let write = |record: &mut Record| settle::write_duplicate(engine, plan, record, credential);
            let tell = hooks::owed(engine, uid, plan)?;
            durable(|| engine.vault.adopt(&self.lease, uid, credential, why, tell, &write))?;
        }
        settle::adopt_as_current(engine, &self.lease, &self.uid, plan, credential, why)
    }

    /// Runs the hooks of what was adopted; what fails stays owed.
    async fn tell(&self, context: &Context, engine: &Engine) {
        let together = self.stored.stage.iter().flat_map(|attempt| attempt.duplicates.iter().cloned());
        let records: Vec<Uid> = std::iter::once(self.uid.clone()).chain(together).collect();
        let mut warnings = Vec::new();
        hooks::tell(engine, &self.lease, &records, &mut warnings).await;
        for warning in &warnings {
            context.report.warn(&format!("{}: {warning}", self.stored.record.title));
        }
    }

    fn look(&self) -> String {
        format!("turnlock show {} --stage --history shows what there is", self.uid)
    }

    /// Beside an open attempt nobody can say that nothing has changed.
    fn told(&self, failure: Failure) -> Failure {
        let open = !self.stored.stage.is_empty() && failure.state == State::Unchanged;
        if open { failure.state(State::Unknown) } else { failure }
    }

    fn close(&self, engine: &Engine) {
        // A lease that cannot be given back runs out or is taken from the dead.
        let _ = durable(|| engine.vault.release(&self.lease));
    }

    async fn decide(&mut self, engine: &Engine, resolve: &Resolve) -> Result<(), Failure> {
        let chosen = self.chosen(engine, resolve)?;
        self.prove(engine, &chosen, resolve.unverified).await?;
        self.adopt(engine, &chosen, &format!("a person chose: {}", resolve.which))
    }

    async fn restore(&mut self, engine: &Engine, restore: &Restore) -> Result<u64, Failure> {
        let mut history = durable(|| engine.vault.history(&self.uid))?;
        if let Some(number) = restore.number {
            history.retain(|past| past.number == number);
        }
        let mut last = Failure::usage(format!("\"{}\" has no such past credential", self.stored.record.title))
            .hint(format!("turnlock show {} --history", self.uid));
        for past in history {
            match self.prove(engine, &past.credential, restore.unverified).await {
                Ok(()) => {
                    let why = format!("a person restored past credential {}", past.number);
                    self.adopt(engine, &past.credential, &why)?;
                    return Ok(past.number);
                }
                Err(failure) => last = failure,
            }
        }
        Err(last)
    }

    fn chosen(&self, engine: &Engine, resolve: &Resolve) -> Result<Credential, Failure> {
        let title = &self.stored.record.title;
        match resolve.which.as_str() {
            "current" => Ok(settle::credential_in(&self.stored.record, self.plan())),
            "candidate" => self
                .stored
                .stage
                .iter()
                .rev()
                .find_map(|attempt| attempt.candidate.as_ref())
                .map(Credential::duplicate)
                .ok_or_else(|| Failure::usage(format!("\"{title}\" has no staged candidate")).hint(self.look())),
            "password" => Ok(self.plan().completed(Credential::password(match resolve.password.as_deref() {
                Some("-") => open::first_line(std::path::Path::new("-"))?,
                Some("?") | None => open::prompt_for("Password that the target accepts")?,
                Some(_) => {
                    return Err(Failure::usage(
                        "a password on the command line can be seen by everybody on this machine",
                    )
                    .hint("say --password to be asked, or --password - to give it over standard input"));
                }
            }))),
            which => {
                let number: Option<u64> = which.strip_prefix("past:").and_then(|number| number.parse().ok());
                let number = number.ok_or_else(|| {
                    Failure::usage(format!("--use {which}: say current, candidate, past:N or password"))
                        .hint(self.look())
                })?;
                durable(|| engine.vault.history(&self.uid))?
                    .into_iter()
                    .find(|past| past.number == number)
                    .map(|past| past.credential)
                    .ok_or_else(|| {
                        Failure::usage(format!("\"{title}\" has no past credential {number}")).hint(self.look())
                    })
            }
        }
    }

    async fn prove(&mut self, engine: &Engine, credential: &Credential, unverified: bool) -> Result<(), Failure> {
        if unverified {
            return Ok(());
        }
        let plan = match self.stored.stage.last_mut() {
            Some(attempt) => &mut attempt.plan,
            None => &mut self.resolved,
        };
        let mut rotator = engine.rotator_for(plan).await?;
        let heard = settle::ask(engine, plan, credential, &mut rotator).await;
        rotator.end().await;
        match heard {
            Heard::Accepted => Ok(()),
            heard => Err(heard
                .accepted()
                .err()
                .unwrap_or_else(|| Failure::new("not accepted"))
                .state(State::Parked)
                .hint("choose another one, or insist with --unverified")),
        }
    }
}
