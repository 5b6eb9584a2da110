//! How bytes travel: TCP first, with TLS preferred over Noise and yamux over both; QUIC beside it.
//!
//! Yamux's default lets one connection open 512 streams with 256 KiB credit each; here it is 64. Buffers are left alone: tuning
//! them gained nothing (measured).

use super::behaviour::Behaviour;
use super::cipher::Tls;
use super::event_loop::StartSwarmError;
use libp2p::identity::Keypair;
use libp2p::{SwarmBuilder, dns, noise, tcp, yamux};
use std::time::Duration;

/// Streams of one connection at the same time.
const STREAMS_MAX: usize = 64;
/// A connection on which nothing is open is closed after this; dialling again costs more than keeping it.
const IDLE_MAX: Duration = Duration::from_secs(90);

fn muxer() -> yamux::Config {
    let mut config = yamux::Config::default();
    config.set_max_num_streams(STREAMS_MAX);
    config
}

/// The swarm with all transports; nothing listens yet.
pub(super) fn build(keypair: &Keypair, behaviour: Behaviour) -> Result<libp2p::Swarm<Behaviour>, StartSwarmError> {
    let base = || {
        SwarmBuilder::with_existing_identity(keypair.clone())
            .with_tokio()
            .with_tcp(tcp::Config::default().nodelay(true), (Tls::new, noise::Config::new), muxer)
            .map(|tcp| tcp.with_quic())
            .map_err(|source| StartSwarmError::Handshake { reason: source.to_string() })
    };
    let configure = |config: libp2p::swarm::Config| config.with_idle_connection_timeout(IDLE_MAX);
    let swarm = match base()?.with_dns() {
        Ok(resolving) => {
            resolving.with_behaviour(|_| behaviour).map(|built| built.with_swarm_config(configure).build())
        }
        Err(error) => {
            // A machine without resolv.conf: addresses still work, names do not.
            tracing::info!(%error, "names of peers cannot be resolved");
            let without = base()?.with_dns_config(dns::ResolverConfig::default(), dns::ResolverOpts::default());
            without.with_behaviour(|_| behaviour).map(|built| built.with_swarm_config(configure).build())
        }
    };
    swarm.map_err(|source| StartSwarmError::Handshake { reason: source.to_string() })
}
