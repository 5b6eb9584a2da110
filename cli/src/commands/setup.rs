//! `peer setup [--undo]`: shows, then writes, the lines that make Portage ask this node.

use crate::Around;
use crate::args::{Globals, NodeFlags};
use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::question;
use clap::Args;
use daemon::api::Status;
use daemon::config::Config;
use daemon::setup::{self, Edit, Portage, Targets};
use std::net::SocketAddr;

/// Show, then write, the lines that make Portage ask this node.
#[derive(Debug, Args)]
#[command(
    long_about = "Show, then write, the lines that make Portage ask this node: GENTOO_MIRRORS in make.conf, `local` in mirrors, and a section of binrepos.conf.\n\n\
    Prints the change as a unified diff and asks before it writes. Your own mirrors stay, after this node. \
    --undo takes the lines out again and leaves everything else byte for byte as it is."
)]
pub(crate) struct SetupArgs {
    /// Take the lines out again
    #[arg(long)]
    undo: bool,
    /// Write without asking
    #[arg(long, short)]
    yes: bool,
    /// Only show what would be written
    #[arg(long, short, conflicts_with = "yes")]
    pretend: bool,
    #[command(flatten)]
    node: NodeFlags,
}

pub(crate) async fn run(args: &SetupArgs, globals: &Globals, around: &Around, out: &Output) -> Result<Exit, Failure> {
    let (config, _) = Config::load(&args.node.overrides(globals), &around.surroundings).map_err(Failure::Config)?;
    let portage = Portage { config_root: config.config_root.clone() };
    let edits = if args.undo {
        setup::plan_undo(&portage).map_err(Failure::Setup)?
    } else {
        plan(&portage, &config, &Client::new(globals, around), out).await?
    };
    show(&edits, out)?;
    if edits.is_empty() {
        out.say("nothing to change");
        return Ok(Exit::Done);
    }
    if args.pretend {
        return Ok(Exit::Done);
    }
    if !args.yes && !confirmed(out)? {
        out.say("nothing was written");
        return Ok(Exit::No);
    }
    setup::apply(&edits).map_err(Failure::Setup)?;
    for edit in &edits {
        out.say(&format!("{} {}", if edit.after.is_some() { "wrote" } else { "removed" }, edit.path.display()));
    }
    Ok(Exit::Done)
}

async fn plan(portage: &Portage, config: &Config, client: &Client, out: &Output) -> Result<Vec<Edit>, Failure> {
    let http = http_address(config, client).await?;
    let mut edits = setup::plan(portage, &Targets { http }).map_err(Failure::Setup)?;
    let binhost = peer_id(http, config, client).await.and_then(|peer_id| setup::binhost_url(http, &peer_id));
    match binhost {
        Some(url) => edits.extend(setup::plan_binhost(portage, &url).map_err(Failure::Setup)?),
        None => out.complain(
            "peer: binrepos.conf is left as it is: the binhost's address has the node's id in it, and the node has none \
             before its first start. Start it, then run this again.",
        ),
    }
    Ok(edits)
}

/// Whose binhost answers at this address: the running daemon knows, if it is the one, else the key in its data directory.
async fn peer_id(http: SocketAddr, config: &Config, client: &Client) -> Option<String> {
    let status: Option<Status> = client.get("learn the daemon's id", "/v1/status").await.ok();
    let running = status.filter(|status| status.http.iter().any(|address| address.parse() == Ok(http)));
    running.map(|status| status.peer_id).or_else(|| daemon::peer_id_of(&config.data_dir))
}

/// The address Portage shall ask; only the running daemon knows it when the configuration leaves the port open.
async fn http_address(config: &Config, client: &Client) -> Result<SocketAddr, Failure> {
    if let Some(address) = config.http.first().filter(|address| address.port() != 0) {
        return Ok(*address);
    }
    let status: Status = client.get("learn the daemon's address", "/v1/status").await?;
    let address = status.http.first().and_then(|address| address.parse().ok());
    address.ok_or_else(|| Failure::Garbled {
        doing: "learn the daemon's address".to_owned(),
        why: "the daemon names none".to_owned(),
    })
}

fn show(edits: &[Edit], out: &Output) -> Result<(), Failure> {
    if out.json() {
        let edits: Vec<_> = edits
            .iter()
            .map(|edit| serde_json::json!({ "path": edit.path, "before": edit.before, "after": edit.after }))
            .collect();
        return out.object(&serde_json::json!({ "edits": edits }));
    }
    edits.iter().try_for_each(|edit| out.text(&edit.diff()))
}

fn confirmed(out: &Output) -> Result<bool, Failure> {
    if !question::can_be_asked() {
        return Err(Failure::Usage {
            what: "cannot ask whether to write this: standard input is not a terminal".to_owned(),
            hint: "say --yes to write it, or --pretend to only see it".to_owned(),
        });
    }
    question::confirmed("Write this?", out)
}
