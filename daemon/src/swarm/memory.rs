//! The in-memory twin of the libp2p network, for tests: the same handle, protocols and commands over pipes in one process.
//!
//! What it does not imitate: handshakes, limits of connections, and the DHT's routing. A node finds every record that any other
//! node of the network keeps.

use super::config::Config;
use super::identity::Identity;
use super::known::peer_of;
use super::peers::Joined;
use super::records::lock;
use super::state::{Command, Neighbour, Protocol, State};
use super::streams::Pipe;
use super::{Holdings, Swarm};
use crate::tasks::Tasks;
use libp2p::multiaddr::Protocol as Part;
use libp2p::{Multiaddr, PeerId};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot};
use tokio_util::compat::TokioAsyncReadCompatExt as _;

/// Bytes in flight on one pipe.
const PIPE_BYTES: usize = 256 << 10;

/// A network of swarms in this process. Clones are the same network.
#[derive(Clone, Default)]
pub struct Network {
    nodes: Arc<Mutex<Nodes>>,
    far_apart: bool,
}

#[derive(Default)]
struct Nodes {
    states: BTreeMap<PeerId, Arc<State>>,
    /// How many ever joined.
    joined: u64,
    /// Pairs in both directions.
    connections: BTreeSet<(PeerId, PeerId)>,
}

impl Network {
    /// A network without nodes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A network without nodes, none of which will be on the local network of another.
    #[must_use]
    pub fn far_apart() -> Self {
        Self { far_apart: true, ..Self::default() }
    }

    /// A new node, connected to `config.peers`. It leaves the network when `tasks` are shut down.
    ///
    /// Cancel safe: yes.
    pub async fn join(&self, identity: &Identity, config: Config, holdings: Arc<dyn Holdings>, tasks: &Tasks) -> Swarm {
        let peers = config.peers.clone();
        let (state, commands) = State::new(identity.peer_id(), config, holdings, tasks);
        let number = self.add(&state);
        state.set_listen_addrs(std::iter::once(Multiaddr::empty().with(Part::Memory(number))));
        state.announce_initial().await;
        let leave = Leave { network: self.clone(), local: state.local() };
        for peer in peers.iter().filter_map(peer_of) {
            state.name(peer, true);
            self.connect(state.local(), peer);
        }
        tasks.spawn("memory swarm", run(leave, commands));
        tasks.spawn("swarm adverts", super::announce::advertise(Arc::clone(&state)));
        Swarm { state }
    }

    /// Answers the number of the node.
    fn add(&self, state: &Arc<State>) -> u64 {
        let mut nodes = self.lock();
        nodes.states.insert(state.local(), Arc::clone(state));
        nodes.joined += 1;
        nodes.joined
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self, peer: &PeerId) -> Option<Arc<State>> {
        self.lock().states.get(peer).cloned()
    }

    /// Connects two nodes unless one of them is gone or has banned the other.
    fn connect(&self, a: PeerId, b: PeerId) -> bool {
        let (Some(first), Some(second)) = (self.state(&a), self.state(&b)) else { return false };
        if a == b || first.is_banned(&b) || second.is_banned(&a) {
            return false;
        }
        let new = {
            let mut nodes = self.lock();
            nodes.connections.insert((b, a));
            nodes.connections.insert((a, b))
        };
        if new {
            for (here, there) in [(&first, &second), (&second, &first)] {
                here.joined(there.local(), self.joined(there));
                here.set_routing(here.connected());
            }
        }
        true
    }

    fn disconnect(&self, a: PeerId, b: PeerId) {
        let was = {
            let mut nodes = self.lock();
            nodes.connections.remove(&(b, a));
            nodes.connections.remove(&(a, b))
        };
        for (here, there) in [(a, b), (b, a)] {
            if let Some(state) = self.state(&here).filter(|_| was) {
                state.left(&there);
                state.set_routing(state.connected());
            }
        }
    }

    fn neighbours(&self, of: PeerId) -> Vec<PeerId> {
        let from = (of, PeerId::from_bytes(&[0, 0]).unwrap_or(of));
        let nodes = self.lock();
        nodes.connections.range(from..).take_while(|(here, _)| *here == of).map(|(_, there)| *there).collect()
    }

    fn open(&self, from: PeerId, to: PeerId, protocol: Protocol) -> io::Result<Pipe> {
        if !self.connect(from, to) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let state = self.state(&to).ok_or(io::ErrorKind::ConnectionRefused)?;
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        state.inbound(from, protocol, Pipe::new(far.compat()));
        Ok(Pipe::new(near.compat()))
    }

    fn others(&self, than: PeerId) -> Vec<Arc<State>> {
        if self.neighbours(than).is_empty() {
            return Vec::new();
        }
        self.lock().states.values().filter(|state| state.local() != than).cloned().collect()
    }

    fn joined(&self, there: &State) -> Joined {
        let listens = there.listen_addrs();
        let address = listens.first().cloned().unwrap_or_else(Multiaddr::empty);
        Joined { address, agent: there.config().agent.clone(), lan: !self.far_apart, listed: false, listens }
    }

    fn on_command(&self, local: PeerId, command: Command) {
        match command {
            Command::Open { peer, protocol, answer, .. } => reply(answer, self.open(local, peer, protocol)),
            Command::Find { key, answer } => {
                let now = std::time::Instant::now();
                let kept =
                    self.others(local).into_iter().flat_map(|state| lock(&state.records).providers_of(&key, now));
                let mut found: Vec<PeerId> = kept.map(|(peer, _)| peer).collect();
                found.sort_unstable();
                found.dedup();
                reply(answer, found);
            }
            Command::Closest { answer, .. } => {
                let others = self.others(local).into_iter();
                let others = others.map(|state| Neighbour { peer: state.local(), addresses: Vec::new() });
                reply(answer, others.collect());
            }
            Command::Dial(address) => {
                if let Some(peer) = peer_of(&address) {
                    self.connect(local, peer);
                }
            }
            Command::Shun(peer) | Command::Part(peer) => self.disconnect(local, peer),
            Command::Keep { peer, .. } => {
                self.connect(local, peer);
            }
        }
    }
}

fn reply<T>(answer: oneshot::Sender<T>, value: T) {
    if answer.send(value).is_err() {
        tracing::trace!("nobody waits for this answer any more");
    }
}

async fn run(leave: Leave, mut commands: mpsc::Receiver<Command>) {
    while let Some(command) = commands.recv().await {
        leave.network.on_command(leave.local, command);
    }
}

/// Takes a node out of the network when its task is dropped.
struct Leave {
    network: Network,
    local: PeerId,
}

impl Drop for Leave {
    fn drop(&mut self) {
        for peer in self.network.neighbours(self.local) {
            self.network.disconnect(self.local, peer);
        }
        let gone = self.network.lock().states.remove(&self.local);
        drop(gone);
    }
}
