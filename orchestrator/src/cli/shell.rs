//! `turnlock completions` and `turnlock man`

use std::path::PathBuf;

use clap::{Args, CommandFactory};

use super::Context;
use crate::failure::{Failure, exit};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  turnlock completions bash > /etc/bash_completion.d/turnlock")]
pub(super) struct Completions {
    /// The shell
    shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  turnlock man rotate | man -l -\n  turnlock man --directory /usr/local/share/man/man1"
)]
pub(super) struct Man {
    /// The page of this command instead of the program's
    command: Option<String>,
    /// Write every page into this directory instead
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    directory: Option<PathBuf>,
}

pub(super) fn completions(context: &Context, completions: &Completions) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(completions.shell, &mut super::Arguments::command(), "turnlock", &mut script);
    written(context, &script)
}

pub(super) fn man(context: &Context, man: &Man) -> Result<u8, Failure> {
    let mut program = super::Arguments::command();
    if let Some(directory) = &man.directory {
        clap_mangen::generate_to(program, directory).map_err(|error| {
            Failure::new(format!("{} cannot be written", directory.display()))
                .caused_by(&error)
                .hint("name a directory that is there")
        })?;
        return Ok(exit::DONE);
    }
    program.build();
    let command = match &man.command {
        None => program,
        Some(name) => program.find_subcommand(name).cloned().ok_or_else(|| {
            Failure::usage(format!("there is no command \"{name}\"")).hint("turnlock --help lists them")
        })?,
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(command)
        .render(&mut page)
        .map_err(|error| Failure::new("the page cannot be written").caused_by(&error))?;
    written(context, &page)
}

fn written(context: &Context, text: &[u8]) -> Result<u8, Failure> {
    match context.report.bytes(text) {
        // A pager that was closed has seen enough.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(crate::report::unwritable(&error)),
        _ => Ok(exit::DONE),
    }
}
