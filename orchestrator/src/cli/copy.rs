//! `turnlock vault copy`

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use serde_json::json;
use zeroize::Zeroizing;

use super::Context;
use crate::engine::{Engine, durable};
use crate::failure::{Failure, exit};
use crate::record::Record;
use crate::resolve;
use crate::rotators::Rotators;
use crate::stage::Past;
use crate::vault::{Acquired, LeaseRequest, Stored, Summary, Vault, VaultError};

/// Long enough for one record on a slow line.
const TTL_MS: u64 = 120_000;

#[derive(Debug, Args)]
#[command(after_help = "\
The named key opens both, where both are files; --to-key-file names another one for TO.
Exit status 6 when some records were not copied.

Examples:
  turnlock vault copy vault.db ksm:ksm.json
  turnlock vault copy ksm:ksm.json vault.db --key-file vault.key")]
pub(super) struct Copy {
    /// Where they are: a vault's file, or ksm:FILE
    from: PathBuf,
    /// Where they shall be as well; a vault that is there already
    to: PathBuf,
    /// Open TO with this key file
    #[arg(long, value_name = "FILE")]
    to_key_file: Option<PathBuf>,
}

pub(super) async fn run(context: &Context, copy: Copy) -> Result<u8, Failure> {
    let from = context.vault_at(&copy.from).await?;
    let to = context.vault_by(&copy.to, copy.to_key_file.as_deref()).await?;
    let (catalogue, _) = Rotators::new(&context.config).catalogue().await;
    let records = super::list::sorted(from.as_ref(), |_| true)?;
    context.report.begin_progress(Some(records.len() as u64));
    let (mut copied, mut failed) = (0, 0);
    for record in &records {
        if context.stop.is_cancelled() {
            return Err(Failure::new(format!("interrupted after {copied} records; what was copied stays there"))
                .hint("turnlock vault copy again tells of those that are there already"));
        }
        context.report.step(&record.title, "copying");
        let identities = |record: &Record| resolve::identities(record, &catalogue);
        match durable(|| one(from.as_ref(), to.as_ref(), record, &identities)) {
            Ok(()) => copied += 1,
            Err(error) => {
                failed += 1;
                context.report.failure(&Failure::from(error).about(&record.title));
            }
        }
        context.report.advance();
    }
    context.report.end_progress();
    context.report.answer(&json!({"copied": copied, "failed": failed}), || {
        format!("{copied} of {} records copied and compared field by field", records.len())
    });
    if copied > 0 {
        context.report.warn("both vaults hold these accounts now: rotate with one of the two only");
    }
    Ok(if failed == 0 { exit::DONE } else { exit::SOME_FAILED })
}

/// Copies one record while nobody can rotate it, and reads it back.
fn one(
    from: &dyn Vault,
    to: &dyn Vault,
    record: &Summary,
    identities: &dyn Fn(&Record) -> Vec<crate::plan::Identity>,
) -> Result<(), VaultError> {
    let uid = &record.uid;
    let alone = LeaseRequest {
        records: vec![uid.clone()],
        account: None,
        admin: None,
        owner: Engine::owner_of_this_run(),
        ttl_ms: TTL_MS,
    };
    let busy = || VaultError::NotCopied { uid: uid.clone(), what: "it is being rotated".to_owned() };
    let lease = match from.acquire(&alone) {
        Ok(Acquired::Granted(lease)) => Some(lease),
        Ok(Acquired::Busy(_)) => return Err(busy()),
        // Nobody can rotate it, then.
        Err(VaultError::ReadOnly(_)) => None,
        Err(error) => return Err(error),
    };
    let copied = (|| {
        let (stored, history) = (from.read(uid)?, from.history(uid)?);
        to.receive(&stored, &history, &identities(&stored.record))?;
        let (read, past) = (to.read(uid)?, to.history(uid)?);
        let differences = differences(&stored, &history, &read, &past);
        if differences.is_empty() {
            return Ok(());
        }
        let what = format!("what arrived there is not the same: {}", differences.join(", "));
        Err(VaultError::NotCopied { uid: uid.clone(), what })
    })();
    // A lease that cannot be given back runs out.
    drop(lease.map(|lease| from.release(&lease)));
    copied
}

/// The names of what is not the same. Folders and the right to write are the
/// other vault's own.
fn differences(one: &Stored, history: &[Past], other: &Stored, past: &[Past]) -> Vec<&'static str> {
    let (record, there) = (&one.record, &other.record);
    let compared = [
        ("uid", record.uid == there.uid),
        ("title", record.title == there.title),
        ("notes", same(&record.notes, &there.notes)),
        ("fields", same(&record.body, &there.body)),
        ("further keys", same(&record.extra, &there.extra)),
        ("open attempts", same(&one.stage, &other.stage)),
        ("clean-ups", same(&one.pending, &other.pending)),
        ("learned limits", same(&one.learned, &other.learned)),
        ("time of the last rotation", one.rotated_at == other.rotated_at),
        ("proof", one.unverified == other.unverified),
        ("parked", one.parked == other.parked),
        ("hooks", one.untold == other.untold),
        ("history", same(history, past)),
    ];
    compared.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect()
}

fn same<T: Serialize + ?Sized>(one: &T, other: &T) -> bool {
    let text = |value: &T| {
        let mut json = Zeroizing::new(Vec::with_capacity(16 * 1024));
        serde_json::to_writer(&mut *json, value).ok().map(|()| json)
    };
    matches!((text(one), text(other)), (Some(one), Some(other)) if one == other)
}
