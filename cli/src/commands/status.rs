//! `peer status`: what the node is and does now, one fact a line.

use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use clap::Args;
use daemon::api::Status;

/// Show what the node is and does now.
#[derive(Debug, Args)]
#[command(long_about = "Show what the node is and does now, one fact a line: a key and its value.\n\n\
    Sizes are bytes. Lines `served SOURCE ANSWERS BYTES`, `missed REASON ANSWERS`, `repository NAME PACKAGES PATH`, \
    `looking REPOSITORY READ OF` while repositories are read, `transfer NAME RECEIVED SIZE SOURCE` and `mirror HOST OK FAILED BYTES COOLING_S` repeat.")]
pub(crate) struct StatusArgs {}

pub(crate) async fn run(_: &StatusArgs, client: &Client, out: &Output) -> Result<Exit, Failure> {
    let status: Status = client.get("show the status", "/v1/status").await?;
    if out.json() {
        out.object(&status)?;
    } else {
        node(&status, out)?;
        traffic(&status, out)?;
    }
    if let Some(look) = status.look.as_ref().filter(|look| look.first) {
        out.say(&format!("{look}; what is not known yet is answered with 503, and Portage goes on to the next mirror"));
    }
    for warning in &status.warnings {
        out.say(&format!("warning: {warning}"));
    }
    Ok(Exit::Done)
}

fn node(status: &Status, out: &Output) -> Result<(), Failure> {
    let budget = status.size_max_bytes.map_or("none".to_owned(), |bytes| bytes.to_string());
    for (key, value) in [
        ("version", status.version.clone()),
        ("peer_id", status.peer_id.clone()),
        ("uptime_s", status.uptime_s.to_string()),
        ("http", status.http.join(" ")),
        ("p2p", status.p2p.join(" ")),
        ("binhost", status.binhost.clone()),
        ("peers", status.peers.to_string()),
        ("blobs", status.blobs.to_string()),
        ("bytes", status.bytes.to_string()),
        ("size_max_bytes", budget),
        ("partial_bytes", status.partial_bytes.to_string()),
        ("disk_free_bytes", status.disk_free_bytes.to_string()),
        ("quarantined", status.quarantined.to_string()),
        ("pins", status.pins.to_string()),
        ("distfiles_indexed", status.distfiles_indexed.to_string()),
        ("given_bytes", status.given_bytes.to_string()),
    ] {
        out.fact(&format!("{key} {value}"))?;
    }
    Ok(())
}

fn traffic(status: &Status, out: &Output) -> Result<(), Failure> {
    for (source, served) in &status.served {
        out.fact(&format!("served {source} {} {}", served.answers, served.bytes))?;
    }
    for (reason, answers) in &status.misses {
        out.fact(&format!("missed {reason} {answers}"))?;
    }
    for repository in &status.repositories {
        let problem = repository.problem.as_ref().map(|problem| format!(" problem: {problem}")).unwrap_or_default();
        out.fact(&format!("repository {} {} {}{problem}", repository.name, repository.packages, repository.path))?;
    }
    if let Some(look) = &status.look {
        out.fact(&format!("looking {} {} {}", look.repository, look.read, look.of))?;
    }
    for transfer in &status.transfers {
        let size = transfer.size.map_or("?".to_owned(), |size| size.to_string());
        let source = transfer.source.as_deref().unwrap_or("?");
        out.fact(&format!("transfer {} {} {size} {source}", transfer.name, transfer.received))?;
    }
    for mirror in &status.mirrors {
        let (ok, failed) = (mirror.ok, mirror.failed);
        out.fact(&format!("mirror {} {ok} {failed} {} {}", mirror.host, mirror.bytes, mirror.cooling_s))?;
    }
    Ok(())
}
