//! `peer pin add|remove|list`: what is kept and helped to mirror.

use crate::client::Client;
use crate::commands::fetch::left_out_line;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use clap::{Args, Subcommand};
use daemon::api::{PinRequest, Pins};

/// Keep distfiles and help to mirror them.
#[derive(Debug, Args)]
#[command(long_about = "Keep distfiles and help to mirror them.\n\n\
    Prints `TARGET DISTFILES HELD HELD_BYTES` for each pin. Ends with 1 when a target names nothing.")]
pub(crate) struct PinArgs {
    #[command(subcommand)]
    what: PinVerb,
}

#[derive(Debug, Subcommand)]
enum PinVerb {
    /// Keep these: gc never takes them
    Add(Targets),
    /// Keep these no longer
    Remove(Targets),
    /// Show the pins
    List,
}

#[derive(Debug, Args)]
struct Targets {
    /// Distfile name, atom (all its distfiles), digest, CID or @set
    #[arg(required = true, value_name = "TARGET")]
    targets: Vec<String>,
}

pub(crate) async fn run(args: &PinArgs, client: &Client, out: &Output) -> Result<Exit, Failure> {
    let pins = match &args.what {
        PinVerb::Add(targets) => change("pin", targets, false, client).await?,
        PinVerb::Remove(targets) => change("unpin", targets, true, client).await?,
        PinVerb::List => client.get("list the pins", "/v1/pins").await?,
    };
    if out.json() {
        out.object(&pins)?;
    } else {
        for pin in &pins.pins {
            out.fact(&format!("{} {} {} {}", pin.target, pin.distfiles, pin.held, pin.held_bytes))?;
        }
    }
    let what = if matches!(args.what, PinVerb::Remove(_)) { "is not pinned" } else { "names nothing" };
    pins.left_out.iter().for_each(|left_out| out.complain(&left_out_line(left_out)));
    pins.notes.iter().for_each(|note| out.say(&format!("note: {note}")));
    for target in &pins.unknown {
        let Some(problem) = pins.problems.iter().find(|problem| problem.target == *target) else {
            out.complain(&format!("peer: {target} {what}"));
            continue;
        };
        out.complain(&format!("peer: cannot pin {target}: {}", problem.error));
        problem.hint.iter().for_each(|hint| out.complain(&format!("hint: {hint}")));
    }
    Ok(if pins.unknown.is_empty() { Exit::Done } else { Exit::No })
}

async fn change(doing: &str, targets: &Targets, remove: bool, client: &Client) -> Result<Pins, Failure> {
    client.post(doing, "/v1/pins", &PinRequest { targets: targets.targets.clone(), remove }).await
}
