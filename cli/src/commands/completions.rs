//! `peer completions SHELL`.

use crate::args::Peer;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use clap::{Args, CommandFactory as _};

/// Print the completions for a shell.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// Which shell
    shell: clap_complete::Shell,
}

pub(crate) fn run(args: &CompletionsArgs, out: &Output) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Peer::command(), "peer", &mut script);
    out.raw(&script)?;
    Ok(Exit::Done)
}
