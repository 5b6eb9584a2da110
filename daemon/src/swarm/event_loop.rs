//! The sole owner of the libp2p swarm: takes commands and the swarm's events one at a time, local ones first.

use super::behaviour::{Behaviour, BehaviourEvent, PROTOCOL};
use super::config::Config;
use super::identity::Identity;
use super::known::{Known, peer_of};
use super::peers::Joined;
use super::reach::{Reach, plausible};
use super::records::lock;
use super::state::{Command, Neighbour, Protocol, State};
use super::streams::{Inbound, Pipe, Wanted};
use super::told::is_neighbour;
use super::{Holdings, transport};
use crate::tasks::Tasks;
use futures::StreamExt as _;
use libp2p::core::transport::ListenerId;
use libp2p::kad::QueryId;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{ConnectionId, DialError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, identify, mdns, ping};
use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};

/// How often deadlines and lost peers are looked at.
const TICK: Duration = Duration::from_secs(1);
/// Listeners are bound in this time; binding asks only the kernel.
const BIND_MAX: Duration = Duration::from_secs(10);
/// A connected peer says in this time who it is.
const IDENTIFY_MAX: Duration = Duration::from_secs(15);
/// Streams a peer may open before it has said who it is.
const EARLY_STREAMS_MAX: usize = 8;
/// Addresses of a peer that are used.
const ADDRESSES_MAX: usize = 8;
/// Peers that turned out to be none of ours, not dialled again.
const FOREIGN_MAX: usize = 256;
/// Single dials whose outcome is remembered.
const CHOSEN_MAX: usize = 64;

/// Why the swarm did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartSwarmError {
    /// No keys or transports for encrypted connections.
    #[error("cannot prepare encrypted connections: {reason}")]
    Handshake {
        /// What libp2p said.
        reason: String,
    },
    /// An address is of a kind that cannot be listened on.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// The address asked for.
        address: Multiaddr,
        /// What the transport said.
        reason: String,
    },
    /// The kernel did not give an address.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address asked for.
        address: Multiaddr,
        /// What the kernel said.
        source: io::Error,
    },
}

/// All that the loop reacts to.
enum Event {
    Shutdown,
    Command(Command),
    Tick,
    Swarm(Box<SwarmEvent<BehaviourEvent>>),
}

/// A connected peer that has not said who it is.
struct Stranger {
    since: Instant,
    streams: Vec<(Protocol, Pipe)>,
}

pub(super) struct EventLoop {
    pub(super) swarm: Swarm<Behaviour>,
    pub(super) state: Arc<State>,
    commands: mpsc::Receiver<Command>,
    known: Known,
    pub(super) finds: HashMap<QueryId, oneshot::Sender<Vec<PeerId>>>,
    pub(super) closest: HashMap<QueryId, oneshot::Sender<Vec<Neighbour>>>,
    strangers: HashMap<PeerId, Stranger>,
    addresses: HashMap<PeerId, Multiaddr>,
    foreign: VecDeque<PeerId>,
    /// Dials the user asked for once, and the peers they led to.
    chosen_dials: VecDeque<ConnectionId>,
    chosen: HashSet<PeerId>,
    /// Dials of whom the DHT named, to know what its word was worth.
    pub(super) told_dials: VecDeque<(ConnectionId, PeerId)>,
}

/// Builds the swarm, binds its listeners and starts the loop.
pub(super) async fn start(
    identity: &Identity,
    config: Config,
    holdings: Arc<dyn Holdings>,
    tasks: &Tasks,
) -> Result<Arc<State>, StartSwarmError> {
    let listen = config.listen.clone();
    let known = Known::listed(&config.peers, Instant::now());
    let (state, commands) = State::new(identity.peer_id(), config, holdings, tasks);
    let swarm = transport::build(identity.keypair(), Behaviour::new(identity, &state))?;
    let mut this = EventLoop {
        swarm,
        state: Arc::clone(&state),
        commands,
        known,
        finds: HashMap::new(),
        closest: HashMap::new(),
        strangers: HashMap::new(),
        addresses: HashMap::new(),
        foreign: VecDeque::new(),
        chosen_dials: VecDeque::new(),
        chosen: HashSet::new(),
        told_dials: VecDeque::new(),
    };
    for peer in this.state.config().peers.iter().filter_map(peer_of) {
        this.state.name(peer, true);
    }
    this.bind(&listen).await?;
    state.announce_initial().await;
    tasks.spawn_vital("swarm", this.run());
    tasks.spawn("swarm adverts", super::announce::advertise(Arc::clone(&state)));
    Ok(state)
}

impl EventLoop {
    /// Listens on every address and waits until each has been given its port.
    async fn bind(&mut self, listen: &[Multiaddr]) -> Result<(), StartSwarmError> {
        let mut waiting: HashMap<ListenerId, Multiaddr> = HashMap::new();
        for address in listen {
            let id = self.swarm.listen_on(address.clone());
            let refused = |error: &dyn std::error::Error| StartSwarmError::Listen {
                address: address.clone(),
                reason: error.to_string(),
            };
            waiting.insert(id.map_err(|error| refused(&error))?, address.clone());
        }
        let deadline = Instant::now() + BIND_MAX;
        while let Some(address) = waiting.values().next().cloned() {
            let event = tokio::time::timeout_at(deadline, self.swarm.select_next_some()).await;
            let event = event.map_err(|_| StartSwarmError::Bind { address, source: io::ErrorKind::TimedOut.into() })?;
            match &event {
                SwarmEvent::NewListenAddr { listener_id, .. } => drop(waiting.remove(listener_id)),
                SwarmEvent::ListenerClosed { listener_id, reason: Err(error), .. }
                | SwarmEvent::ListenerError { listener_id, error } => {
                    if let Some(address) = waiting.remove(listener_id) {
                        let source = io::Error::new(error.kind(), error.to_string());
                        return Err(StartSwarmError::Bind { address, source });
                    }
                }
                _ => {}
            }
            self.on_swarm(event);
        }
        Ok(())
    }

    async fn run(mut self) {
        let stop = self.state.tasks().stopping().clone();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let event = tokio::select! {
                biased;
                () = stop.cancelled() => Event::Shutdown,
                command = self.commands.recv() => command.map_or(Event::Shutdown, Event::Command),
                _ = ticks.tick() => Event::Tick,
                event = self.swarm.select_next_some() => Event::Swarm(Box::new(event)),
            };
            match event {
                Event::Shutdown => break,
                Event::Command(command) => self.on_command(command),
                Event::Tick => self.on_tick(),
                Event::Swarm(event) => self.on_swarm(*event),
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Open { peer, addresses, protocol, answer } => {
                self.swarm.behaviour_mut().streams.open(peer, addresses, Wanted::new(protocol, answer));
            }
            Command::Find { key, answer } => self.find(key, answer),
            Command::Closest { key, answer } => self.closest(key, answer),
            Command::Dial(address) => {
                let opts = DialOpts::from(address);
                if self.chosen_dials.len() >= CHOSEN_MAX {
                    self.chosen_dials.pop_front();
                }
                self.chosen_dials.push_back(opts.connection_id());
                self.dial_named(opts);
            }
            Command::Keep { peer, addresses } => {
                let connected = self.swarm.is_connected(&peer);
                self.known.keep(peer, &addresses, connected, Instant::now());
            }
            Command::Part(peer) => self.part(peer),
            Command::Shun(peer) => {
                self.swarm.behaviour_mut().banned.block_peer(peer);
                self.known.forget(&peer);
            }
        }
    }

    /// Dials at an address that the user named: whoever answers there has a place.
    fn dial_named(&mut self, opts: DialOpts) {
        self.swarm.behaviour_mut().gate.expect(opts.connection_id());
        self.dial(opts);
    }

    pub(super) fn dial(&mut self, opts: DialOpts) {
        let connection = opts.connection_id();
        if let Err(error) = self.swarm.dial(opts) {
            tracing::debug!(%error, "not dialled");
            self.known.failed(connection, Instant::now());
        }
    }

    fn on_tick(&mut self) {
        let now = Instant::now();
        for (opts, named) in self.known.due(now) {
            if named { self.dial_named(opts) } else { self.dial(opts) }
        }
        let silent = self.strangers.iter().filter(|(_, stranger)| now >= stranger.since + IDENTIFY_MAX);
        for peer in silent.map(|(peer, _)| *peer).collect::<Vec<_>>() {
            self.drop_foreign(peer);
        }
        let unanswered = self.finds.iter().filter(|(_, answer)| answer.is_closed()).map(|(id, _)| *id);
        for id in unanswered.collect::<Vec<_>>() {
            self.finds.remove(&id);
            self.finish(&id);
        }
        let shunned = self.swarm.connected_peers().filter(|peer| self.state.is_banned(peer)).copied();
        let shunned: Vec<PeerId> = shunned.collect();
        let banned = &mut self.swarm.behaviour_mut().banned;
        for peer in shunned {
            banned.block_peer(peer);
        }
        for peer in banned.blocked_peers().iter().copied().collect::<Vec<_>>() {
            if !self.state.is_banned(&peer) {
                banned.unblock_peer(peer);
            }
        }
        lock(&self.state.records).expire(std::time::Instant::now());
        self.state.drop_idle(now);
        self.count_routing();
    }

    fn on_swarm(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.connected(peer_id, connection_id, endpoint.get_remote_address().clone());
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, cause, .. } => {
                tracing::debug!(peer = %peer_id, ?cause, "disconnected");
                self.strangers.remove(&peer_id);
                self.addresses.remove(&peer_id);
                if self.chosen.remove(&peer_id) && !self.known.is_listed(&peer_id) {
                    self.state.name(peer_id, false);
                }
                self.known.closed(&peer_id, Instant::now());
                self.state.left(&peer_id);
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error } => {
                tracing::debug!(?peer_id, %error, "not connected");
                self.known.failed(connection_id, Instant::now());
                self.chosen_dials.retain(|id| *id != connection_id);
                if let Some(at) = self.told_dials.iter().position(|(id, _)| *id == connection_id)
                    && let Some((_, peer)) = self.told_dials.remove(at)
                    && matches!(error, DialError::Transport(_) | DialError::WrongPeerId { .. })
                {
                    self.state.not_reached(peer);
                }
            }
            SwarmEvent::NewListenAddr { .. }
            | SwarmEvent::ExpiredListenAddr { .. }
            | SwarmEvent::ListenerClosed { .. } => {
                self.state.set_listen_addrs(self.swarm.listeners().cloned());
            }
            SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "a listener failed"),
            _ => {}
        }
    }

    fn connected(&mut self, peer: PeerId, connection: ConnectionId, address: Multiaddr) {
        tracing::debug!(%peer, %address, "connected");
        self.known.established(connection, peer, Instant::now());
        if self.chosen_dials.contains(&connection) {
            self.chosen_dials.retain(|id| *id != connection);
            self.chosen.insert(peer);
        }
        self.told_dials.retain(|(id, _)| *id != connection);
        if self.known.is_listed(&peer) || self.chosen.contains(&peer) {
            self.state.name(peer, true);
        }
        self.addresses.insert(peer, address);
        if !self.state.is_connected(&peer) {
            self.strangers.entry(peer).or_insert_with(|| Stranger { since: Instant::now(), streams: Vec::new() });
        }
    }

    fn on_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Streams(inbound) => self.on_stream(inbound),
            BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }) => self.identified(peer_id, info),
            BehaviourEvent::Kad(event) => self.on_kad(event),
            BehaviourEvent::Ping(event) => self.on_ping(event),
            BehaviourEvent::Mdns(mdns::Event::Discovered(found)) => {
                for (peer, address) in found {
                    if is_neighbour(&address) && !self.foreign.contains(&peer) && !self.state.is_banned(&peer) {
                        let connected = self.swarm.is_connected(&peer);
                        self.known.found(peer, address, connected, Instant::now());
                    }
                }
            }
            BehaviourEvent::Mdns(mdns::Event::Expired(lost)) => {
                for (peer, _) in lost {
                    if !self.swarm.is_connected(&peer) {
                        self.known.forget(&peer);
                    }
                }
            }
            _ => {}
        }
    }

    /// A connection that answers no more is closed, or it would stay until the kernel gives up on it, hours later.
    fn on_ping(&mut self, ping::Event { peer, connection, result }: ping::Event) {
        match result {
            Ok(rtt) => self.state.set_rtt(&peer, rtt),
            Err(failure) if is_end(&failure) => {
                tracing::debug!(%peer, %failure, "no answer any more");
                self.swarm.close_connection(connection);
            }
            Err(failure) => tracing::trace!(%peer, %failure, "round trip not measured"),
        }
    }

    /// Streams of a peer that has not said who it is wait until it has.
    fn on_stream(&mut self, inbound: Inbound) {
        let Inbound { peer, protocol, pipe } = inbound;
        match self.strangers.get_mut(&peer) {
            None => self.state.inbound(peer, protocol, pipe),
            Some(stranger) if stranger.streams.len() < EARLY_STREAMS_MAX => stranger.streams.push((protocol, pipe)),
            Some(_) => tracing::debug!(%peer, "too many streams before identify"),
        }
    }

    fn identified(&mut self, peer: PeerId, info: identify::Info) {
        if info.protocol_version != PROTOCOL {
            tracing::debug!(%peer, version = %info.protocol_version, "not one of ours");
            return self.drop_foreign(peer);
        }
        let Some(address) = self.addresses.get(&peer).cloned() else { return };
        let reach = Reach::of(&address);
        let listens = plausible(&info.listen_addrs, &address, ADDRESSES_MAX);
        super::dht::route(&mut self.swarm.behaviour_mut().kad, peer, &listens, &address);
        lock(&self.state.records).set_addresses(&peer, &listens);
        let listed = self.known.is_listed(&peer) || self.chosen.contains(&peer);
        let stranger = self.strangers.remove(&peer);
        let joined = Joined { address, agent: info.agent_version, lan: reach.is_lan(), listed, listens };
        self.state.joined(peer, joined);
        for (protocol, pipe) in stranger.map(|stranger| stranger.streams).unwrap_or_default() {
            self.state.inbound(peer, protocol, pipe);
        }
        self.count_routing();
    }

    /// Who comes again comes as a stranger.
    fn part(&mut self, peer: PeerId) {
        self.known.let_go(&peer);
        if self.chosen.remove(&peer) && !self.known.is_listed(&peer) {
            self.state.name(peer, false);
        }
        if self.swarm.disconnect_peer_id(peer).is_err() {
            tracing::trace!(%peer, "was gone already");
        }
    }

    fn drop_foreign(&mut self, peer: PeerId) {
        if self.foreign.len() >= FOREIGN_MAX {
            self.foreign.pop_front();
        }
        self.foreign.push_back(peer);
        self.known.forget(&peer);
        self.swarm.behaviour_mut().kad.remove_peer(&peer);
        if self.swarm.disconnect_peer_id(peer).is_err() {
            tracing::trace!(%peer, "was gone already");
        }
    }
}

/// Whether a failed ping means that the connection is dead: not when the peer only does not speak that protocol.
fn is_end(failure: &ping::Failure) -> bool {
    match failure {
        ping::Failure::Timeout | ping::Failure::Other { .. } => true,
        ping::Failure::Unsupported => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_without_answer_ends_a_connection_and_one_not_understood_does_not() {
        assert!(is_end(&ping::Failure::Timeout));
        assert!(is_end(&ping::Failure::Other { error: "broken".into() }));
        assert!(!is_end(&ping::Failure::Unsupported));
    }
}
