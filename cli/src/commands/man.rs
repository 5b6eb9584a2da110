//! `peer man [DIR]`: the manual, generated from the words of the command line.

use crate::args::Peer;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use clap::{Args, CommandFactory as _};
use std::path::PathBuf;

/// Print the manual page, or write one for each verb into a directory.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Write peer.1 and peer-VERB.1 here
    dir: Option<PathBuf>,
}

pub(crate) fn run(args: &ManArgs, out: &Output) -> Result<Exit, Failure> {
    let failed = |error| Failure::local("cannot write the manual", error);
    let peer = Peer::command();
    match &args.dir {
        Some(dir) => {
            std::fs::create_dir_all(dir).map_err(failed)?;
            clap_mangen::generate_to(peer, dir).map_err(failed)?;
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(peer).render(&mut page).map_err(failed)?;
            out.raw(&page)?;
        }
    }
    Ok(Exit::Done)
}
