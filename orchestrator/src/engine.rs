//! What every run holds: the vault, the rotators, who we are, and whether we
//! were asked to stop.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use turnlock_protocol::operation::{PlanParams, PlanResult};
use turnlock_protocol::{Fault, Operation};

use crate::catalogue::Catalogue;
use crate::child::{Conversation, ReadOnly};
use crate::failure::Failure;
use crate::hooks::Hooks;
use crate::plan::Plan;
use crate::record::{Record, Uid};
use crate::resolve::{self, Options};
use crate::rotate::duplicate;
use crate::rotators::Rotators;
use crate::stage::Process;
use crate::vault::{Owner, Stored, Summary, Vault, VaultError};

/// Is told a record's title and what is being done with it.
pub type Progress = Arc<dyn Fn(&str, &str) + Send + Sync>;

/// Everything a rotation needs besides its record.
pub struct Engine {
    /// The vault.
    pub vault: Arc<dyn Vault>,
    /// Where rotators are found.
    pub rotators: Rotators,
    /// What they say of themselves.
    pub catalogue: Catalogue,
    /// Who is told of a new credential.
    pub hooks: Hooks,
    /// Who we are to other runs.
    pub owner: Owner,
    /// Cancelled by Ctrl-C: what has no permit yet is given up.
    pub stop: CancellationToken,
    /// Whether to wait for other runs instead of giving way at once.
    pub wait: bool,
    /// Told what is being done, by record title.
    pub progress: Progress,
}

impl Engine {
    /// This run as others see it.
    pub fn owner_of_this_run() -> Owner {
        let mut run = [0u8; 8];
        // Without randomness the process alone has to tell runs apart.
        let _ = getrandom::fill(&mut run);
        Owner {
            process: Process::this(),
            machine: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            run: format!("{:016x}", u64::from_le_bytes(run)),
        }
    }

    /// Whether somebody asked us to stop.
    pub fn stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// The one record a person means.
    pub fn record_named(&self, name: &str) -> Result<Summary, Failure> {
        let mut found = durable(|| self.vault.find(name))?;
        match (found.pop(), found.is_empty()) {
            (None, _) => Err(Failure::usage(format!("no record is called \"{name}\""))
                .hint("turnlock list shows every record with its UID")),
            (Some(one), true) => Ok(one),
            (Some(last), false) => {
                found.push(last);
                let mut failure = Failure::usage(format!("{} records are called \"{name}\"", found.len()))
                    .hint("name the one you mean by its UID");
                failure.causes = found
                    .iter()
                    .map(|one| {
                        format!("{}  {}  {}", one.uid, one.title, one.folders.first().map_or("/", String::as_str))
                    })
                    .collect();
                Err(failure)
            }
        }
    }

    /// A record with its admin record, where it names one.
    pub fn read_with_admin(&self, uid: &Uid) -> Result<(Stored, Option<Record>), Failure> {
        let stored = durable(|| self.vault.read(uid))?;
        let admin = match resolve::admin_of(&stored.record) {
            None => None,
            Some(name) => {
                let summary = self.record_named(&name).map_err(|failure| {
                    let mut failure = failure;
                    failure.message = format!("the admin record of \"{}\": {}", stored.record.title, failure.message);
                    failure.hint("correct turnlock:admin: a UID or a title")
                })?;
                Some(durable(|| self.vault.read(&summary.uid))?.record)
            }
        };
        Ok((stored, admin))
    }

    /// What a rotation of this record would do now.
    pub fn resolve(&self, stored: &Stored, admin: Option<&Record>, options: &Options) -> Result<Plan, Failure> {
        let mut plan = resolve::resolve(&stored.record, options, &self.catalogue, admin, &stored.learned)?;
        plan.remarks.extend(self.hooks.problems(&stored.record));
        Ok(plan)
    }

    /// The record and its plan, read without a lease.
    pub fn plan_of(&self, uid: &Uid, options: &Options) -> Result<(Stored, Plan), Failure> {
        let (stored, admin) = self.read_with_admin(uid)?;
        let plan = self.resolve(&stored, admin.as_ref(), options)?;
        Ok((stored, plan))
    }

    /// The accounts a record resolves to by itself and by each of its endpoints.
    pub fn identities(&self, record: &Record) -> Vec<crate::plan::Identity> {
        resolve::identities(record, &self.catalogue)
    }

    /// A rotator for this plan, which knows the account's traits from then on.
    pub async fn rotator_for(&self, plan: &mut Plan) -> Result<Conversation, Fault> {
        let mut rotator = self.rotators.begin(&plan.plugin).await?;
        self.ask_traits(&mut rotator, plan).await?;
        Ok(rotator)
    }

    /// From then on the plan's traits are those of its very account, and no
    /// longer the widest of any account of that plugin.
    pub async fn ask_traits(&self, rotator: &mut Conversation, plan: &mut Plan) -> Result<(), Fault> {
        let params = PlanParams { account: plan.account.clone(), admin: duplicate(&plan.admin) };
        let told: PlanResult = rotator.call(Operation::Plan, &params, plan.deadline_ms, &mut ReadOnly).await?;
        plan.traits = told.traits;
        Ok(())
    }

    /// Tells what is being done.
    pub fn progress(&self, title: &str, step: &str) {
        (self.progress)(title, step);
    }
}

/// Calls the vault, which blocks until what it did is durable. Other tasks of
/// this thread move to another one meanwhile.
pub(crate) fn durable<T>(call: impl FnOnce() -> Result<T, VaultError>) -> Result<T, VaultError> {
    tokio::task::block_in_place(call)
}
