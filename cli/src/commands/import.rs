//! `peer import`: files of this machine into the store.

use crate::client::Client;
use crate::commands::no_last_line;
use crate::exit::{Exit, Failure};
use crate::output::{Output, human};
use clap::Args;
use daemon::api::{ImportLine, ImportRequest};
use std::path::PathBuf;

const DOING: &str = "import";

/// Take existing distfiles into the store.
#[derive(Debug, Args)]
#[command(long_about = "Take existing distfiles into the store, and print `HOW SIZE DIGEST PATH` for each.\n\n\
    HOW is present, reflinked, linked or copied. Only files that some Manifest names are taken. Ends with 5 when a file \
    has other bytes than its Manifest line, with 1 when nothing could be taken. The daemon reads the files, so it must \
    be allowed to.")]
pub(crate) struct ImportArgs {
    /// DISTDIR, another directory, or a file
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Where blocks cannot be shared, link files that the daemon owns instead of copying; they become read-only
    #[arg(long)]
    link: bool,
}

/// What came of it, once the last line is here.
struct Tally {
    imported: u64,
    wrong: u64,
}

pub(crate) async fn run(args: &ImportArgs, client: &Client, out: &Output) -> Result<Exit, Failure> {
    let request = ImportRequest { paths: args.paths.iter().map(absolute).collect::<Result<_, _>>()?, link: args.link };
    let mut tally = None;
    client.lines(DOING, "/v1/import", &request, |raw, line| hear(raw, line, out, &mut tally)).await?;
    match tally {
        None => Err(no_last_line(DOING)),
        Some(Tally { wrong: 1.., .. }) => Ok(Exit::Unverified),
        Some(Tally { imported: 0, .. }) => Ok(Exit::No),
        Some(_) => Ok(Exit::Done),
    }
}

/// The daemon has another working directory.
fn absolute(path: &PathBuf) -> Result<String, Failure> {
    let doing = || format!("cannot import {}", path.display());
    let absolute = std::path::absolute(path).map_err(|error| Failure::local(doing(), error))?;
    absolute.into_os_string().into_string().map_err(|_| Failure::Usage {
        what: format!("{}: the path is not UTF-8", doing()),
        hint: "rename it, or name the directory it lies in".to_owned(),
    })
}

fn hear(raw: &str, line: ImportLine, out: &Output, tally: &mut Option<Tally>) -> Result<(), Failure> {
    if out.json() {
        out.fact(raw)?;
    }
    match line {
        ImportLine::Imported { path, digest, size, how } if !out.json() => {
            out.fact(&format!("{how} {size} {digest} {path}"))?;
        }
        ImportLine::Skipped { path, reason, wrong: true } => {
            out.complain(&format!("peer: cannot import {path}: {reason}"));
        }
        ImportLine::Skipped { path, reason, wrong: false } => out.say(&format!("skipped {path}: {reason}")),
        ImportLine::Imported { .. } => {}
        ImportLine::Done { imported, skipped, wrong, bytes } => {
            out.say(&format!("{imported} in the store ({}), {skipped} skipped, {wrong} of them wrong", human(bytes)));
            *tally = Some(Tally { imported, wrong });
        }
    }
    Ok(())
}
