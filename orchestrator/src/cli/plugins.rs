//! `turnlock plugins`

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::Context;
use crate::conformance::{self, Outcome};
use crate::failure::{Failure, exit};
use crate::rotators::Rotators;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  turnlock plugins\n  turnlock plugins describe postgresql\n  turnlock plugins test ./turnlock-mine"
)]
pub(super) struct Plugins {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List every rotator that can be found
    #[command(after_help = "Examples:\n  turnlock plugins list --plugin-dir ./rotators")]
    List,
    /// Show what a rotator is and which fields it reads
    #[command(after_help = "Examples:\n  turnlock plugins describe postgresql -o json")]
    Describe {
        /// The plugin's name
        plugin: String,
    },
    /// Try on a rotator, in whatever language, everything that the protocol demands
    #[command(
        long_about = "\
Try on a rotator, in whatever language, everything that the protocol demands.

Most scenarios need no account. The others log in to one and change it some ten
times: make one that is there for nothing else. Its file holds what
`turnlock-PLUGIN rotate` reads (account, current, admin, policy), and is
rewritten before and after each change, so that it always holds the credential
that works.",
        after_help = "\
Examples:
  turnlock plugins test ./turnlock-mine
  turnlock plugins test ./turnlock-mine --account throwaway.json -o json

Exit status: 0 every scenario that was tried passed, 3 one failed."
    )]
    Test {
        /// The program, called turnlock-PLUGIN
        program: PathBuf,
        /// The account it may change
        #[arg(long, value_name = "FILE")]
        account: Option<PathBuf>,
    },
}

pub(super) async fn run(context: &Context, plugins: Plugins) -> Result<u8, Failure> {
    let rotators = Rotators::new(&context.config);
    match plugins.verb {
        None | Some(Verb::List) => {
            let mut rows = Vec::new();
            for name in rotators.names() {
                match rotators.describe(&name).await {
                    Ok(describe) => rows.push(describe),
                    Err(fault) => context.report.failure(&fault.into()),
                }
            }
            context.report.rows(
                &["plugin", "version", "port", "schemes", "what it does"],
                &rows,
                |row| {
                    vec![
                        row.plugin.clone(),
                        row.version.clone(),
                        row.default_port.map_or_else(String::new, |port| port.to_string()),
                        row.url_schemes.join(", "),
                        row.summary.clone(),
                    ]
                },
                "no rotators beside this program; --plugin-dir names further directories",
            );
        }
        Some(Verb::Describe { plugin }) => {
            let describe = rotators.describe(&plugin).await?;
            let fields =
                describe.schema.get("properties").and_then(|fields| fields.as_object()).cloned().unwrap_or_default();
            context.report.answer(&describe, || {
                let mut lines =
                    vec![format!("{} {}  {}", describe.plugin, describe.version, describe.summary), String::new()];
                for (name, field) in &fields {
                    let text = |key: &str| field.get(key).unwrap_or(&json!("")).as_str().unwrap_or("").to_owned();
                    lines.push(format!("  cmdr:{name:14} {:10} {}", text("x-turnlock"), text("description")));
                }
                lines.join("\n")
            });
        }
        Some(Verb::Test { program, account }) => {
            let rotator = rotators.at(&program)?;
            let tried = tokio::task::block_in_place(|| conformance::test(&rotators, &rotator, account.as_deref()))?;
            context.report.rows(
                &["scenario", "outcome", "what is right", "seen", "says"],
                &tried,
                |finding| {
                    let seen = finding.detail.clone().unwrap_or_default();
                    let (scenario, says) = (finding.scenario.to_owned(), finding.says.to_owned());
                    vec![scenario, finding.outcome.to_string(), says, seen, finding.section.clone()]
                },
                "",
            );
            let count = |outcome| tried.iter().filter(|finding| finding.outcome == outcome).count();
            let failed = count(Outcome::Failed);
            context.report.note(&format!(
                "{} passed, {failed} failed, {} not tried",
                count(Outcome::Passed),
                count(Outcome::NotTried)
            ));
            return Ok(if failed == 0 { exit::DONE } else { exit::FAILED });
        }
    }
    Ok(exit::DONE)
}
