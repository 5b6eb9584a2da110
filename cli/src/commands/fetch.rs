//! `peer fetch`: distfiles into the store, and from there into a directory if wanted.

use crate::client::Client;
use crate::commands::no_last_line;
use crate::deliver::deliver;
use crate::exit::{Exit, Failure};
use crate::output::{Output, human};
use clap::Args;
use daemon::api::{FetchLine, FetchRequest, LeftOut};
use std::path::PathBuf;

const DOING: &str = "fetch";

/// Get distfiles into the store, and say where each came from.
#[derive(Debug, Args)]
#[command(long_about = "Get distfiles into the store, and print `SOURCE NAME SIZE DIGEST` for each.\n\n\
    SOURCE is store, peer, mirror or upstream. What has arrived is kept when it is interrupted, and the same command \
    goes on from there. An atom means the version that emerge would take. What a set names and Portage does not take is \
    left out and told, with its file and line. Ends with 1 when something could not be had.")]
pub(crate) struct FetchArgs {
    /// Distfile name, atom (all its distfiles), digest, CID or @set
    #[arg(required = true, value_name = "TARGET")]
    targets: Vec<String>,
    /// Also write the distfiles into this directory
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// What came of it.
#[derive(Default)]
struct Tally {
    here: Vec<(String, String)>,
    bytes: u64,
    done: bool,
    missing: u64,
}

pub(crate) async fn run(args: &FetchArgs, client: &Client, out: &Output) -> Result<Exit, Failure> {
    let work = fetch(args, client, out);
    tokio::select! {
        biased;
        ended = work => ended,
        _ = tokio::signal::ctrl_c() => {
            Err(Failure::Interrupted { kept: "what has arrived is kept; the same command goes on from there".to_owned() })
        }
    }
}

async fn fetch(args: &FetchArgs, client: &Client, out: &Output) -> Result<Exit, Failure> {
    let request = FetchRequest { targets: args.targets.clone() };
    let mut tally = Tally::default();
    client.lines(DOING, "/v1/fetch", &request, |raw, line| hear(raw, line, out, &mut tally)).await?;
    if !tally.done {
        return Err(no_last_line(DOING));
    }
    if let Some(dir) = &args.output {
        for (name, digest) in &tally.here {
            let path = deliver(client, name, digest, dir).await?;
            out.say(&format!("wrote {}", path.display()));
        }
    }
    out.say(&format!("{} here ({}), {} missing", tally.here.len(), human(tally.bytes), tally.missing));
    Ok(if tally.missing == 0 { Exit::Done } else { Exit::No })
}

/// What was left out of a set, in words.
pub(crate) fn left_out_line(left_out: &LeftOut) -> String {
    let LeftOut { target, file, line, text, why } = left_out;
    let place = match (file, line) {
        (Some(file), Some(line)) => format!("{file}:{line}: "),
        (Some(file), None) => format!("{file}: "),
        (None, _) => String::new(),
    };
    let text = if text.is_empty() { String::new() } else { format!("{text}: ") };
    format!("peer: left out of {target}: {place}{text}{why}")
}

fn hear(raw: &str, line: FetchLine, out: &Output, tally: &mut Tally) -> Result<(), Failure> {
    if out.json() {
        out.fact(raw)?;
    }
    match line {
        FetchLine::Progress { name, received, size, source } => out.progress(&name, received, size, source.as_deref()),
        FetchLine::Have { name, digest, size, source } => {
            out.progress_ends(&name);
            if !out.json() {
                out.fact(&format!("{source} {name} {size} {digest}"))?;
            }
            tally.bytes = tally.bytes.saturating_add(size);
            tally.here.push((name, digest));
        }
        FetchLine::LeftOut(left_out) => out.complain(&left_out_line(&left_out)),
        FetchLine::Note { text } => out.say(&format!("note: {text}")),
        FetchLine::Missing { name, error, hint } => {
            out.progress_ends(&name);
            if !out.json() {
                out.complain(&format!("peer: cannot fetch {name}: {error}"));
                hint.iter().for_each(|hint| out.complain(&format!("hint: {hint}")));
            }
        }
        FetchLine::Done { missing, .. } => {
            tally.missing = missing;
            tally.done = true;
        }
    }
    Ok(())
}
