//! `peer daemon`: runs the node until SIGTERM or SIGINT; SIGHUP reads the repositories again.

use crate::Around;
use crate::args::{Globals, NodeFlags};
use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use ::daemon::api::{Ready, Status};
use ::daemon::config::Config;
use clap::Args;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Run the node: mirror, status page and swarm.
#[derive(Debug, Args)]
#[command(long_about = "Run the node in the foreground: mirror, status page and swarm.\n\n\
    When it serves it prints one line of JSON with its addresses. SIGTERM ends it cleanly, SIGHUP reads the \
    repositories again.")]
pub(crate) struct DaemonArgs {
    #[command(flatten)]
    pub(crate) node: NodeFlags,
    /// What to log to standard error, such as `info` or `daemon=debug,libp2p=warn`
    #[arg(long, value_name = "FILTER", env = "PEER_LOG", hide_env_values = true, default_value = "info")]
    log: String,
}

pub(crate) async fn run(args: &DaemonArgs, globals: &Globals, around: &Around, out: &Output) -> Result<Exit, Failure> {
    let (config, _) = Config::load(&args.node.overrides(globals), &around.surroundings).map_err(Failure::Config)?;
    start_log(&args.log, around)?;
    let listen = |kind| signal(kind).map_err(|error| Failure::local("cannot listen for signals", error));
    let (term, interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let refresh = refresh_on_hangup(listen(SignalKind::hangup())?, config.control.clone());
    let ready = |ready: &Ready| {
        // It serves all the same: whoever started it may not care to read.
        if let Err(failure) = out.object(ready) {
            tracing::warn!(%failure, "nobody reads the ready line");
        }
    };
    let life = ::daemon::run(config, around.path.clone(), ready, first_of(term, interrupt));
    tokio::select! {
        biased;
        ended = life => ended.map_err(Failure::Run)?,
        () = refresh => {}
    }
    Ok(Exit::Done)
}

fn start_log(filter: &str, around: &Around) -> Result<(), Failure> {
    let colours = std::io::stderr().is_terminal() && !around.no_color;
    let filter = EnvFilter::try_new(filter).map_err(|error| Failure::Usage {
        what: format!("--log {filter:?} is not a filter: {error}"),
        hint: "say `info`, `debug` or such as `daemon=debug,libp2p=warn`".to_owned(),
    })?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours).init();
    Ok(())
}

async fn first_of(mut term: Signal, mut interrupt: Signal) {
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Never ends: the daemon is asked like anybody would ask it, over its own socket.
async fn refresh_on_hangup(mut hangup: Signal, control: PathBuf) {
    let client = Client::at(control);
    while hangup.recv().await.is_some() {
        if let Err(failure) = client.post::<Status>("read the repositories again", "/v1/refresh", &()).await {
            tracing::warn!(%failure, "SIGHUP did not help");
        }
    }
    std::future::pending::<()>().await;
}
