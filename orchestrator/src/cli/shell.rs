//! `turnlock completions` and `turnlock man`

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
#[command(after_help = "Examples:\n  turnlock man > /usr/share/man/man1/turnlock.1\n  turnlock man rotate | man -l -")]
pub(super) struct Man {
    /// The page of this command instead of the program's
    command: Option<String>,
}

pub(super) fn completions(context: &Context, completions: &Completions) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(completions.shell, &mut super::Arguments::command(), "turnlock", &mut script);
    written(context, &script)
}

pub(super) fn man(context: &Context, man: &Man) -> Result<u8, Failure> {
    let mut program = super::Arguments::command();
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
