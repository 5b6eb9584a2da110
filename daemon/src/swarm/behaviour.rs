//! What runs on every connection: limits and bans first, then identify, Kademlia, ping, multicast DNS and our streams.

use super::config::Config;
use super::gate::Gate;
use super::identity::Identity;
use super::records::{KadRecords, RECORD_LIFE};
use super::state::State;
use super::streams::Streams;
use super::told::Told;
use libp2p::allow_block_list::{self, BlockedPeers};
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{StreamProtocol, identify, kad, mdns, memory_connection_limits, ping};
use std::sync::Arc;
use std::time::Duration;

/// What identify must answer for a peer to be one of ours; anything else that multicast DNS finds is dropped.
pub(super) const PROTOCOL: &str = "/peerage/1";
const KAD_PROTOCOL: StreamProtocol = StreamProtocol::new("/peerage/kad/1");
/// A DHT query ends in this time.
const QUERY_MAX: Duration = Duration::from_secs(10);

/// Connections that gave way to others and are not closed yet.
const CLOSING_MAX: u32 = 32;

/// The composition; limits come first, so that nothing is spent on a connection that is refused.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    limits: connection_limits::Behaviour,
    memory: memory_connection_limits::Behaviour,
    pub(super) gate: Gate,
    pub(super) banned: allow_block_list::Behaviour<BlockedPeers>,
    pub(super) identify: identify::Behaviour,
    pub(super) kad: Told<kad::Behaviour<KadRecords>>,
    pub(super) ping: ping::Behaviour,
    pub(super) mdns: Told<Toggle<mdns::tokio::Behaviour>>,
    pub(super) streams: Streams,
}

impl Behaviour {
    pub(super) fn new(identity: &Identity, state: &Arc<State>) -> Self {
        let config = state.config();
        let local = identity.peer_id();
        let identify = identify::Config::new(PROTOCOL.to_owned(), identity.keypair().public())
            .with_agent_version(config.agent.clone())
            // What a peer says of its addresses is checked when it is heard, and kept by the routing table only.
            .with_cache_size(0)
            .with_push_listen_addr_updates(true);
        Self {
            limits: connection_limits::Behaviour::new(limits(config)),
            memory: memory_connection_limits::Behaviour::with_max_bytes(config.memory_bytes_max),
            gate: Gate::new(state),
            banned: allow_block_list::Behaviour::default(),
            identify: identify::Behaviour::new(identify),
            kad: Told::by_peers(kademlia(local, state), super::dht::routed),
            ping: ping::Behaviour::new(ping::Config::new()),
            mdns: Told::by_neighbours(multicast(config, local)),
            streams: Streams::default(),
        }
    }
}

fn limits(config: &Config) -> ConnectionLimits {
    ConnectionLimits::default()
        .with_max_pending_incoming(Some(256))
        .with_max_pending_outgoing(Some(64))
        // The gate decides who has a place; those it closes for another are still there for a moment.
        .with_max_established(Some(config.connections_max.saturating_add(CLOSING_MAX)))
        .with_max_established_per_peer(Some(4))
}

fn kademlia(local: libp2p::PeerId, state: &State) -> kad::Behaviour<KadRecords> {
    let records = KadRecords { local, records: Arc::clone(&state.records), announced: Arc::clone(&state.announced) };
    let mut config = kad::Config::new(KAD_PROTOCOL);
    config
        .set_query_timeout(QUERY_MAX)
        .disjoint_query_paths(true)
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_provider_record_ttl(Some(RECORD_LIFE))
        // Our keys are advertised by region; see the room `announce`.
        .set_provider_publication_interval(None)
        .set_publication_interval(None)
        .set_replication_interval(None);
    let mut kad = kad::Behaviour::with_config(local, records, config);
    kad.set_mode(Some(kad::Mode::Server));
    kad
}

fn multicast(config: &Config, local: libp2p::PeerId) -> Toggle<mdns::tokio::Behaviour> {
    if !config.mdns {
        return Toggle::from(None);
    }
    match mdns::tokio::Behaviour::new(mdns::Config::default(), local) {
        Ok(mdns) => Toggle::from(Some(mdns)),
        Err(error) => {
            // A machine without a network still serves itself and the peers it is given.
            tracing::warn!(%error, "no discovery on the local network");
            Toggle::from(None)
        }
    }
}
