//! `turnlock audit`

use clap::Subcommand;
use serde_json::json;

use super::Context;
use crate::engine::durable;
use crate::failure::{Failure, exit};
use crate::vault::Vault;

#[derive(Debug, Subcommand)]
pub(super) enum Audit {
    /// Prove that no row was changed, added or removed; prints the chain's head
    #[command(after_help = "Examples:\n  turnlock audit verify -o json")]
    Verify,
    /// Write the rows as JSON lines
    #[command(after_help = "Examples:\n  turnlock audit export --after 1000 >> audit.ndjson")]
    Export {
        /// Only rows after this number
        #[arg(long, default_value_t = 0)]
        after: u64,
    },
}

pub(super) async fn run(context: &Context, audit: Audit) -> Result<u8, Failure> {
    let vault = context.vault()?;
    match audit {
        Audit::Verify => {
            let (rows, head) = durable(|| vault.audit_verify())?;
            context
                .report
                .answer(&json!({"rows": rows, "head": head}), || format!("{rows} rows, unbroken; head {head}"));
        }
        Audit::Export { after } => {
            let mut told = Ok(());
            durable(|| {
                vault.audit_rows(after.saturating_add(1), &mut |row| {
                    told = context.report.deliver(&serde_json::to_string(&row).unwrap_or_default());
                    told.is_ok()
                })
            })?;
            told?;
        }
    }
    Ok(exit::DONE)
}
