//! `turnlock plugins`

use clap::{Args, Subcommand};
use serde_json::json;

use super::Context;
use crate::failure::{Failure, exit};
use crate::rotators::Rotators;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  turnlock plugins\n  turnlock plugins describe postgresql")]
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
    }
    Ok(exit::DONE)
}
