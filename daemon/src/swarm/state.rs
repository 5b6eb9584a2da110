//! What the handle, the event loop and the tasks of streams know together: peers, scores, announcements, limits.
//!
//! Owned by the swarm as a whole and shared by `Arc`; each mutex guards memory only and is never held across an await.

use super::announce::Pending;
use super::config::Config;
use super::holdings::{Announced, PeerHoldings, deltas};
use super::records::{Records, lock};
use super::scores::{Offence, Scores, Traffic};
use super::streams::Pipe;
use super::wire::{Have, Key};
use super::{Held, Holdings};
use crate::tasks::Tasks;
use libp2p::{Multiaddr, PeerId};
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot, watch};
use tokio::time::Instant;
use tree::digest::Digest;

/// Commands that may wait for the event loop.
const COMMANDS_MAX: usize = 256;
/// Changes of holdings that may wait for a slow peer; one that misses some is told the whole list again.
const DELTAS_MAX: usize = 256;
/// Idle blob streams kept open to one peer, so that the next blob starts without a handshake and with a wide window.
const IDLE_STREAMS_MAX: usize = 4;
/// Streams on which one peer may tell what it holds: the old and the new one while it connects again.
const HAVE_STREAMS_MAX: u32 = 2;
/// Adverts taken from one peer in a minute.
const ADVERTS_PER_MINUTE_MAX: u32 = 32;
/// The longest agent text kept, in characters.
const AGENT_LENGTH_MAX: usize = 64;

/// The protocols that streams are opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Protocol {
    /// Blobs, by request and answer.
    Blob,
    /// What the opener holds.
    Have,
    /// Records for the DHT.
    Advert,
}

/// What the network is asked to do; the libp2p event loop and the in-memory network both understand it.
#[derive(Debug)]
pub(super) enum Command {
    /// Opens a stream, after dialling when need be.
    Open { peer: PeerId, addresses: Vec<Multiaddr>, protocol: Protocol, answer: oneshot::Sender<io::Result<Pipe>> },
    /// Asks the DHT for providers.
    Find { key: Key, answer: oneshot::Sender<Vec<PeerId>> },
    /// Asks the DHT for the peers nearest to a key.
    Closest { key: Key, answer: oneshot::Sender<Vec<(PeerId, Vec<Multiaddr>)>> },
    /// Connects.
    Dial(Multiaddr),
    /// Disconnects a peer that was just banned.
    Shun(PeerId),
}

/// A connected peer, for people and the status page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// Who.
    pub peer_id: PeerId,
    /// Where it is connected from, or was dialled.
    pub addrs: Vec<Multiaddr>,
    /// What it calls its program.
    pub agent: String,
    /// Whether its address is loopback, private or link-local.
    pub lan: bool,
    /// How many blobs it says it holds.
    pub holdings: usize,
    /// How it behaved: higher is better, 0 is a stranger.
    pub score: i64,
    /// The round trip last measured, in milliseconds.
    pub rtt_ms: Option<u64>,
    /// Bytes of blobs sent to it since this program started.
    pub served_bytes: u64,
    /// Bytes of blobs received from it since this program started.
    pub received_bytes: u64,
    /// How often it was blamed.
    pub blamed: u32,
}

/// How a peer came to be connected.
#[derive(Clone, Debug)]
pub(super) struct Joined {
    pub(super) address: Multiaddr,
    pub(super) agent: String,
    pub(super) lan: bool,
    /// The user named it.
    pub(super) listed: bool,
    /// Where it says it listens.
    pub(super) listens: Vec<Multiaddr>,
}

struct Peer {
    joined: Joined,
    held: PeerHoldings,
    rtt: Option<Duration>,
    traffic: Arc<Traffic>,
    /// Whether a task tells this peer what we hold.
    told: bool,
    /// The number of the stream whose word on holdings counts.
    have_stream: u64,
    have_streams: u32,
    idle: Vec<Pipe>,
    blob_streams: u32,
    adverts: u32,
    adverts_since: Instant,
}

#[derive(Default)]
struct Table {
    peers: HashMap<PeerId, Peer>,
    scores: Scores,
    held_total: usize,
    have_streams: u64,
}

/// See the head of this room.
pub(super) struct State {
    local: PeerId,
    config: Config,
    holdings: Arc<dyn Holdings>,
    tasks: Tasks,
    commands: mpsc::Sender<Command>,
    table: Mutex<Table>,
    pub(super) announced: Arc<Mutex<Announced>>,
    pub(super) records: Arc<Mutex<Records>>,
    pub(super) pending: Pending,
    deltas: broadcast::Sender<Arc<Have>>,
    listens: Mutex<Vec<Multiaddr>>,
    uploads: Arc<Semaphore>,
    upload_free_at: Mutex<Instant>,
    routing: AtomicUsize,
    changes: watch::Sender<u64>,
}

impl State {
    pub(super) fn new(
        local: PeerId,
        config: Config,
        holdings: Arc<dyn Holdings>,
        tasks: &Tasks,
    ) -> (Arc<Self>, mpsc::Receiver<Command>) {
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let state = Self {
            local,
            holdings,
            tasks: tasks.clone(),
            commands,
            table: Mutex::default(),
            announced: Arc::default(),
            records: Arc::new(Mutex::new(Records::new(config.records_max, config.records_per_peer_max))),
            pending: Pending::default(),
            deltas: broadcast::channel(DELTAS_MAX).0,
            listens: Mutex::default(),
            uploads: Arc::new(Semaphore::new(config.uploads_max)),
            upload_free_at: Mutex::new(Instant::now()),
            routing: AtomicUsize::new(0),
            changes: watch::channel(0).0,
            config,
        };
        (Arc::new(state), receiver)
    }

    pub(super) fn local(&self) -> PeerId {
        self.local
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    pub(super) fn uploads(&self) -> &Arc<Semaphore> {
        &self.uploads
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(super) fn changed(&self) {
        self.changes.send_modify(|version| *version = version.wrapping_add(1));
    }

    /// Hands a command to the network, waiting while it is busy. Nothing happens when the swarm has ended.
    pub(super) async fn command(&self, command: Command) {
        if self.commands.send(command).await.is_err() {
            tracing::debug!("the swarm has ended");
        }
    }

    /// Hands a command to the network unless it is too busy.
    pub(super) fn try_command(&self, command: Command) {
        if let Err(error) = self.commands.try_send(command) {
            tracing::debug!(%error, "a command was dropped");
        }
    }

    pub(super) async fn open_pipe(&self, peer: PeerId, addresses: Vec<Multiaddr>, protocol: Protocol) -> io::Result<Pipe> {
        let (answer, answered) = oneshot::channel();
        self.command(Command::Open { peer, addresses, protocol, answer }).await;
        answered.await.unwrap_or_else(|_| Err(io::ErrorKind::NotConnected.into()))
    }

    // What we hold.

    /// Looks a blob up on the blocking pool.
    pub(super) async fn held(&self, digest: Digest) -> Option<Held> {
        let holdings = Arc::clone(&self.holdings);
        crate::blocking::run(move || holdings.open(&digest)).await
    }

    /// Takes over what may be announced at the start.
    pub(super) async fn announce_initial(&self) {
        let holdings = Arc::clone(&self.holdings);
        let digests = crate::blocking::run(move || holdings.announced()).await;
        self.announce(&digests);
    }

    pub(super) fn announce(&self, digests: &[Digest]) {
        let (fresh, prefixes) = lock(&self.announced).announce(digests.iter().map(Key::from));
        self.pending.advertise(fresh);
        self.tell(&prefixes, &BTreeSet::new());
    }

    pub(super) fn withdraw(&self, digests: &[Digest]) {
        let (gone, prefixes) = lock(&self.announced).withdraw(digests.iter().map(Key::from));
        self.pending.withdraw(gone);
        self.tell(&BTreeSet::new(), &prefixes);
    }

    fn tell(&self, added: &BTreeSet<u32>, removed: &BTreeSet<u32>) {
        for delta in deltas(added, removed) {
            if self.deltas.send(Arc::new(delta)).is_err() {
                return; // Nobody is connected; who connects later is told the whole list.
            }
        }
    }

    /// Changes from now on, and the list up to now: in this order nothing is missed between them.
    pub(super) fn subscribe(&self) -> (broadcast::Receiver<Arc<Have>>, Vec<Have>) {
        let changes = self.deltas.subscribe();
        (changes, lock(&self.announced).snapshot())
    }

    pub(super) fn announced_count(&self) -> usize {
        lock(&self.announced).len()
    }

    pub(super) fn adverts_waiting(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn record_count(&self) -> usize {
        lock(&self.records).len()
    }

    // Where we are.

    pub(super) fn listen_addrs(&self) -> Vec<Multiaddr> {
        lock(&self.listens).clone()
    }

    pub(super) fn set_listen_addrs(&self, addresses: impl Iterator<Item = Multiaddr>) {
        let named = addresses.filter_map(|address| address.with_p2p(self.local).ok());
        *lock(&self.listens) = named.collect();
    }

    /// How many peers the routing table has.
    pub(super) fn routing(&self) -> usize {
        self.routing.load(Ordering::Relaxed)
    }

    pub(super) fn set_routing(&self, peers: usize) {
        if self.routing.swap(peers, Ordering::Relaxed) < peers {
            self.pending.wake();
        }
    }

    // Who is connected.

    /// A peer of ours is connected (again, or from another address too). True when it was not before.
    pub(super) fn joined(self: &Arc<Self>, peer: PeerId, mut joined: Joined) -> bool {
        joined.agent = joined.agent.chars().filter(|c| !c.is_control()).take(AGENT_LENGTH_MAX).collect();
        let now = Instant::now();
        let exchange = self.config.exchange && (joined.lan || joined.listed);
        let new = {
            let mut table = lock(&self.table);
            let traffic = table.scores.traffic(peer, now);
            match table.peers.get_mut(&peer) {
                Some(known) => {
                    known.joined = Joined { lan: joined.lan || known.joined.lan, ..joined };
                    false
                }
                None => {
                    table.peers.insert(peer, Peer::new(joined, traffic, now));
                    true
                }
            }
        };
        if exchange {
            self.tell_peer(peer);
        }
        self.changed();
        new
    }

    /// Starts the task that tells a peer what we hold, once.
    fn tell_peer(self: &Arc<Self>, peer: PeerId) {
        let first = lock(&self.table).peers.get_mut(&peer).is_some_and(|known| !std::mem::replace(&mut known.told, true));
        if first {
            self.tasks.spawn("swarm have", super::have::tell(Arc::clone(self), peer));
        }
    }

    /// The telling task ended although the peer may still be there.
    pub(super) fn untold(&self, peer: &PeerId) {
        if let Some(known) = lock(&self.table).peers.get_mut(peer) {
            known.told = false;
        }
    }

    /// The last connection to a peer is gone.
    pub(super) fn left(&self, peer: &PeerId) {
        let gone = {
            let mut table = lock(&self.table);
            let gone = table.peers.remove(peer);
            let held = gone.as_ref().map_or(0, |known| known.held.len());
            table.held_total = table.held_total.saturating_sub(held);
            gone
        };
        drop(gone); // Its idle streams close outside the lock.
        self.changed();
    }

    pub(super) fn is_connected(&self, peer: &PeerId) -> bool {
        lock(&self.table).peers.contains_key(peer)
    }

    pub(super) fn set_rtt(&self, peer: &PeerId, rtt: Duration) {
        if let Some(known) = lock(&self.table).peers.get_mut(peer) {
            known.rtt = Some(rtt);
        }
    }

    /// A peer opened a stream: serves it in a task of its own.
    pub(super) fn inbound(self: &Arc<Self>, peer: PeerId, protocol: Protocol, pipe: Pipe) {
        let state = Arc::clone(self);
        match protocol {
            Protocol::Blob => self.tasks.spawn("swarm blob", super::blob::serve(state, peer, pipe)),
            Protocol::Advert => self.tasks.spawn("swarm advert", super::announce::receive(state, peer, pipe)),
            Protocol::Have => {
                // Who tells is told: a listed peer beyond the local network may not have us on its list.
                if self.config.exchange {
                    self.tell_peer(peer);
                }
                self.tasks.spawn("swarm heard", super::have::hear(state, peer, pipe));
            }
        }
    }

    /// Whether blobs are given to this peer.
    pub(super) fn serves(&self, peer: &PeerId) -> bool {
        let now = Instant::now();
        let table = lock(&self.table);
        let near = table.peers.get(peer).is_some_and(|known| known.joined.lan || known.joined.listed);
        (near || self.config.serve_wan) && !table.scores.is_banned(peer, now)
    }

    /// Counts one more blob stream of a peer, unless it has its fill. The count falls when the slot is dropped.
    pub(super) fn blob_slot(self: &Arc<Self>, peer: PeerId) -> Option<BlobSlot> {
        let mut table = lock(&self.table);
        let known = table.peers.get_mut(&peer)?;
        if known.blob_streams >= self.config.blob_streams_per_peer_max {
            return None;
        }
        known.blob_streams += 1;
        Some(BlobSlot { state: Arc::clone(self), peer })
    }

    /// Counts one advert of a peer; false when it sends too many.
    pub(super) fn advert_allowed(&self, peer: &PeerId) -> bool {
        let now = Instant::now();
        let mut table = lock(&self.table);
        let Some(known) = table.peers.get_mut(peer) else { return false };
        if now.saturating_duration_since(known.adverts_since) >= Duration::from_secs(60) {
            (known.adverts, known.adverts_since) = (0, now);
        }
        known.adverts += 1;
        known.adverts <= ADVERTS_PER_MINUTE_MAX
    }

    /// Where a connected peer says it listens.
    pub(super) fn listens_of(&self, peer: &PeerId) -> Vec<Multiaddr> {
        lock(&self.table).peers.get(peer).map(|known| known.joined.listens.clone()).unwrap_or_default()
    }

    /// How long to wait before sending so many bytes more, by the upload ceiling. `None` is not at all: even a sleep of
    /// nothing costs a millisecond, the timer's grain.
    pub(super) fn upload_pause(&self, bytes: usize) -> Option<Duration> {
        let per_second = self.config.upload_bytes_per_second_max?;
        let takes = Duration::from_micros((bytes as u64).saturating_mul(1_000_000) / per_second.max(1));
        let now = Instant::now();
        let mut free_at = lock(&self.upload_free_at);
        let start = (*free_at).max(now);
        *free_at = start + takes;
        Some(start - now).filter(|pause| !pause.is_zero())
    }

    // What they hold.

    /// A peer begins to tell what it holds; only its newest stream counts, and a third at the same time is refused.
    pub(super) fn have_stream(&self, peer: &PeerId) -> Option<u64> {
        let mut table = lock(&self.table);
        table.have_streams += 1;
        let number = table.have_streams;
        let known = table.peers.get_mut(peer).filter(|known| known.have_streams < HAVE_STREAMS_MAX)?;
        known.have_stream = number;
        known.have_streams += 1;
        Some(number)
    }

    /// Takes what a peer said. False when another stream has taken over or the peer is gone.
    pub(super) fn heard(&self, peer: &PeerId, number: u64, have: Have) -> bool {
        let counts = {
            let mut table = lock(&self.table);
            let total = table.held_total;
            let Some(known) = table.peers.get_mut(peer).filter(|known| known.have_stream == number) else { return false };
            let before = known.held.len();
            let free = self.config.holdings_max.saturating_sub(total.saturating_sub(before));
            known.held.apply(have, self.config.holdings_per_peer_max.min(free));
            let after = known.held.len();
            table.held_total = total.saturating_sub(before) + after;
            true
        };
        self.changed();
        counts
    }

    /// The stream by which a peer told what it holds has ended: nothing is known any more.
    pub(super) fn unheard(&self, peer: &PeerId, number: u64) {
        if let Some(known) = lock(&self.table).peers.get_mut(peer) {
            known.have_streams = known.have_streams.saturating_sub(1);
        }
        self.heard(peer, number, Have::Snapshot { first: true, prefixes: Vec::new() });
    }

    /// A peer said it does not hold this.
    pub(super) fn not_held(&self, peer: &PeerId, key: &Key) {
        let mut table = lock(&self.table);
        let Some(known) = table.peers.get_mut(peer) else { return };
        let before = known.held.len();
        known.held.remove(key.prefix());
        let fewer = before - known.held.len();
        table.held_total = table.held_total.saturating_sub(fewer);
    }

    pub(super) fn holders(&self, key: &Key) -> Vec<PeerId> {
        let prefix = key.prefix();
        let table = lock(&self.table);
        let holding = table.peers.iter().filter(|(_, known)| known.held.contains(prefix)).map(|(peer, _)| *peer);
        table.best_first(holding.collect())
    }

    /// Without the banned and ourselves, best score first.
    pub(super) fn best_first(&self, mut peers: Vec<PeerId>) -> Vec<PeerId> {
        peers.retain(|peer| *peer != self.local);
        lock(&self.table).best_first(peers)
    }

    // Streams and scores.

    /// An idle stream to a peer, from an earlier request.
    pub(super) fn idle_pipe(&self, peer: &PeerId) -> Option<Pipe> {
        lock(&self.table).peers.get_mut(peer)?.idle.pop()
    }

    /// Keeps a stream on which a body has been read to its end.
    pub(super) fn keep_pipe(&self, peer: &PeerId, pipe: Pipe) {
        let mut table = lock(&self.table);
        if let Some(known) = table.peers.get_mut(peer).filter(|known| known.idle.len() < IDLE_STREAMS_MAX) {
            known.idle.push(pipe);
        } else {
            drop(table);
            drop(pipe);
        }
    }

    pub(super) fn traffic(&self, peer: PeerId) -> Arc<Traffic> {
        lock(&self.table).scores.traffic(peer, Instant::now())
    }

    pub(super) fn praise(&self, peer: PeerId) {
        lock(&self.table).scores.praise(peer, Instant::now());
    }

    pub(super) fn blame(&self, peer: PeerId, offence: Offence) {
        let banned = lock(&self.table).scores.blame(peer, offence, Instant::now());
        tracing::debug!(%peer, ?offence, banned, "blamed");
        if banned {
            self.try_command(Command::Shun(peer));
        }
        self.changed();
    }

    pub(super) fn is_banned(&self, peer: &PeerId) -> bool {
        lock(&self.table).scores.is_banned(peer, Instant::now())
    }

    pub(super) fn connected(&self) -> usize {
        lock(&self.table).peers.len()
    }

    pub(super) fn peers(&self) -> Vec<PeerInfo> {
        let now = Instant::now();
        let table = lock(&self.table);
        let mut peers: Vec<PeerInfo> = table.peers.iter().map(|(peer, known)| table.info(*peer, known, now)).collect();
        drop(table);
        peers.sort_by_key(|info| info.peer_id);
        peers
    }
}

impl Peer {
    fn new(joined: Joined, traffic: Arc<Traffic>, now: Instant) -> Self {
        Self {
            joined,
            held: PeerHoldings::default(),
            rtt: None,
            traffic,
            told: false,
            have_stream: 0,
            have_streams: 0,
            idle: Vec::new(),
            blob_streams: 0,
            adverts: 0,
            adverts_since: now,
        }
    }
}

impl Table {
    fn best_first(&self, mut peers: Vec<PeerId>) -> Vec<PeerId> {
        let now = Instant::now();
        peers.retain(|peer| !self.scores.is_banned(peer, now));
        peers.sort_by_cached_key(|peer| {
            let known = self.peers.get(peer);
            let far = !known.is_some_and(|known| known.joined.lan);
            let rtt = known.and_then(|known| known.rtt).unwrap_or(Duration::MAX);
            (far, std::cmp::Reverse(self.scores.score(peer, now)), rtt)
        });
        peers
    }

    fn info(&self, peer: PeerId, known: &Peer, now: Instant) -> PeerInfo {
        PeerInfo {
            peer_id: peer,
            addrs: vec![known.joined.address.clone()],
            agent: known.joined.agent.clone(),
            lan: known.joined.lan,
            holdings: known.held.len(),
            score: self.scores.score(&peer, now),
            rtt_ms: known.rtt.map(|rtt| u64::try_from(rtt.as_millis()).unwrap_or(u64::MAX)),
            served_bytes: known.traffic.served(),
            received_bytes: known.traffic.received(),
            blamed: self.scores.blamed(&peer),
        }
    }
}

/// One blob stream of a peer, counted while this lives.
pub(super) struct BlobSlot {
    state: Arc<State>,
    peer: PeerId,
}

impl Drop for BlobSlot {
    fn drop(&mut self) {
        if let Some(known) = lock(&self.state.table).peers.get_mut(&self.peer) {
            known.blob_streams = known.blob_streams.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl Holdings for Nothing {
        fn open(&self, _: &Digest) -> Option<Held> {
            None
        }

        fn announced(&self) -> Vec<Digest> {
            Vec::new()
        }
    }

    fn state(config: Config) -> Arc<State> {
        State::new(PeerId::random(), config, Arc::new(Nothing), &Tasks::new()).0
    }

    fn peer(state: &Arc<State>, lan: bool, listed: bool) -> PeerId {
        let (peer, address) = (PeerId::random(), Multiaddr::empty());
        let agent = "x\u{1b}[31m".repeat(50);
        state.joined(peer, Joined { address, agent, lan, listed, listens: Vec::new() });
        peer
    }

    #[test]
    fn strangers_from_afar_are_served_only_when_asked_for() {
        let quiet = state(Config { exchange: false, ..Config::default() });
        let (near, named, far) = (peer(&quiet, true, false), peer(&quiet, false, true), peer(&quiet, false, false));
        assert!(quiet.serves(&near) && quiet.serves(&named) && !quiet.serves(&far));
        let open = state(Config { exchange: false, serve_wan: true, ..Config::default() });
        let far = peer(&open, false, false);
        assert!(open.serves(&far));
        open.blame(far, Offence::WrongBytes);
        assert!(!open.serves(&far));
    }

    #[test]
    fn what_peers_hold_is_bounded_over_all_of_them() {
        let state = state(Config { exchange: false, holdings_max: 100, holdings_per_peer_max: 80, ..Config::default() });
        let peers = [peer(&state, true, false), peer(&state, true, false)];
        let list = || Have::Snapshot { first: true, prefixes: (0..1000).collect() };
        for peer in &peers {
            let number = state.have_stream(peer).unwrap();
            assert!(state.heard(peer, number, list()));
            assert!(state.heard(peer, number, list()), "a list told again replaces the first");
        }
        assert_eq!(peers.map(|peer| lock(&state.table).peers[&peer].held.len()), [80, 20]);
        state.left(&peers[0]);
        assert_eq!(lock(&state.table).held_total, 20);
    }

    #[test]
    fn an_old_stream_has_no_say_any_more_and_a_third_is_refused() {
        let state = state(Config { exchange: false, ..Config::default() });
        let peer = peer(&state, true, false);
        let (old, new) = (state.have_stream(&peer).unwrap(), state.have_stream(&peer).unwrap());
        assert_eq!(state.have_stream(&peer), None);
        assert!(state.heard(&peer, new, Have::Delta { added: vec![5], removed: vec![] }));
        assert!(!state.heard(&peer, old, Have::Delta { added: vec![6], removed: vec![] }));
        state.unheard(&peer, old);
        assert_eq!(state.peers()[0].holdings, 1);
        assert!(state.have_stream(&peer).is_some());
    }

    #[test]
    fn a_peer_cannot_paint_the_terminal_and_sends_at_most_so_many_adverts() {
        let state = state(Config { exchange: false, ..Config::default() });
        let peer = peer(&state, true, false);
        let agent = &state.peers()[0].agent;
        assert!(agent.len() <= AGENT_LENGTH_MAX && !agent.contains('\u{1b}'));
        let allowed = (0..100).filter(|_| state.advert_allowed(&peer)).count();
        assert_eq!(allowed, 32);
    }

    #[test]
    fn the_upload_ceiling_spreads_steps_over_time() {
        let state = state(Config { upload_bytes_per_second_max: Some(1_000_000), ..Config::default() });
        assert_eq!(state.upload_pause(500_000), None);
        let second = state.upload_pause(500_000).unwrap();
        assert!(second <= Duration::from_millis(500));
        assert!(state.upload_pause(1).unwrap() > second);
    }
}
