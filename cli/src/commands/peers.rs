//! `peer peers [dial ADDR]`: other machines.

use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use clap::{Args, Subcommand};
use daemon::api::{DialRequest, Peers};

/// Show the connected peers, or dial one.
#[derive(Debug, Args)]
#[command(long_about = "Show the connected peers, or dial one.\n\n\
    Prints `ID lan|wan HOLDINGS RTT_MS GIVEN_BYTES RECEIVED_BYTES BLAMED ADDRESS AGENT` for each, and `NAME ROLE` behind it for \
    a member of a group, and `grounded:SECONDSs` for one that is given no builds for so long because it failed too often.")]
pub(crate) struct PeersArgs {
    #[command(subcommand)]
    what: Option<PeersVerb>,
}

#[derive(Debug, Subcommand)]
enum PeersVerb {
    /// Connect to a peer now
    Dial {
        /// Its multiaddr, such as /ip4/192.0.2.7/tcp/8421
        #[arg(value_name = "MULTIADDR")]
        address: String,
    },
}

pub(crate) async fn run(args: &PeersArgs, client: &Client, out: &Output) -> Result<Exit, Failure> {
    let peers: Peers = match &args.what {
        None => client.get("list the peers", "/v1/peers").await?,
        Some(PeersVerb::Dial { address }) => {
            let request = DialRequest { address: address.clone() };
            client.post(&format!("dial {address}"), "/v1/peers/dial", &request).await?
        }
    };
    if out.json() {
        out.object(&peers)?;
        return Ok(Exit::Done);
    }
    for peer in &peers.peers {
        let place = if peer.lan { "lan" } else { "wan" };
        let rtt = peer.rtt_ms.map_or("?".to_owned(), |rtt| rtt.to_string());
        let address = peer.addresses.first().map_or("?", String::as_str);
        let (given, received, blamed) = (peer.given_bytes, peer.received_bytes, peer.blamed);
        let (id, holdings, agent) = (&peer.peer_id, peer.holdings, &peer.agent);
        let mut member = match (&peer.name, &peer.role) {
            (Some(name), Some(role)) => format!(" {name} {role}"),
            _ => String::new(),
        };
        if let Some(seconds) = peer.grounded_s {
            member.push_str(&format!(" grounded:{seconds}s"));
        }
        out.fact(&format!("{id} {place} {holdings} {rtt} {given} {received} {blamed} {address} {agent}{member}"))?;
    }
    if peers.peers.is_empty() {
        out.say("no peers yet; others reach this one at:");
        peers.addresses.iter().for_each(|address| out.say(&format!("  {address}")));
    }
    Ok(Exit::Done)
}
