//! What the swarm is told at its start, and every limit with its reason.

use libp2p::Multiaddr;
use std::time::Duration;

/// How this machine takes part. `Config::default()` listens nowhere, speaks to nobody and has safe limits.
#[derive(Clone, Debug)]
pub struct Config {
    /// Addresses to listen on; port 0 means any free port.
    pub listen: Vec<Multiaddr>,
    /// Peers to keep a connection to, with or without a trailing `/p2p/ID`.
    pub peers: Vec<Multiaddr>,
    /// Whether to look for peers on the local network by multicast DNS.
    pub mdns: bool,
    /// Whether holdings are exchanged with connected peers (LAN peers, and those listed in [`Config::peers`]).
    pub exchange: bool,
    /// Whether blobs and claims are given to peers that are neither on the local network nor listed in [`Config::peers`].
    pub serve_wan: bool,
    /// Upload ceiling over all peers; `None` is no ceiling.
    pub upload_bytes_per_second_max: Option<u64>,
    /// What this program calls itself to peers.
    pub agent: String,
    /// How long [`super::Swarm::open`] waits for the answer to a request, dialling included.
    pub first_answer: Duration,
    /// How long a body may bring no byte before it counts as stalled; how little it may bring stands in the room `body`.
    pub silence_max: Duration,
    /// Connections altogether; more are refused.
    pub connections_max: u32,
    /// Holdings remembered of one peer (4 bytes each).
    pub holdings_per_peer_max: usize,
    /// Holdings remembered of all peers together (4 bytes each).
    pub holdings_max: usize,
    /// Provider records kept for the DHT on behalf of one peer.
    pub records_per_peer_max: u32,
    /// Provider records kept for the DHT altogether (about 45 bytes each).
    pub records_max: usize,
    /// Bodies sent at the same time, over all peers.
    pub uploads_max: usize,
    /// Blob streams one peer may have open here, idle ones included.
    pub blob_streams_per_peer_max: usize,
    /// Streams for claims one peer may have open here, idle ones included.
    pub claim_streams_per_peer_max: usize,
    /// Questions for claims answered at the same time, over all peers; a place of their own, so that long bodies do not keep them out.
    pub claim_answers_max: usize,
    /// Streams for questions of a group one peer may have open here, idle ones included.
    pub group_streams_per_peer_max: usize,
    /// Questions of groups answered at the same time, over all peers.
    pub group_answers_max: usize,
    /// How often every announced digest is advertised again in the DHT. Records live 26 h.
    pub advert_interval: Duration,
    /// Resident memory of the whole program above which new connections are refused.
    pub memory_bytes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            peers: Vec::new(),
            mdns: false,
            exchange: true,
            serve_wan: false,
            upload_bytes_per_second_max: None,
            agent: "peerage".to_owned(),
            first_answer: Duration::from_secs(5),
            silence_max: Duration::from_secs(5),
            connections_max: 400,
            // A full distfiles mirror holds about 80 000 files.
            holdings_per_peer_max: 1_000_000,
            holdings_max: 8_000_000,
            records_per_peer_max: 100_000,
            records_max: 2_000_000,
            uploads_max: 64,
            blob_streams_per_peer_max: 8,
            claim_streams_per_peer_max: 8,
            claim_answers_max: 64,
            group_streams_per_peer_max: 8,
            group_answers_max: 64,
            advert_interval: Duration::from_secs(12 * 3600),
            memory_bytes_max: 2 << 30,
        }
    }
}
