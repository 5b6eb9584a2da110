//! What the handle, the event loop and the tasks of streams know together: peers, scores, announcements, limits.
//!
//! Owned by the swarm as a whole and shared by `Arc`; each mutex guards memory only and is never held across an await.

use super::announce::Pending;
use super::config::Config;
use super::holdings::{Announced, deltas};
use super::peers::Table;
use super::records::{Records, lock};
use super::standing::Standing;
use super::streams::Pipe;
use super::wire::{Have, Key};
use super::{Held, Holdings};
use crate::budget::{Limits, Origin, Places, Rates};
use crate::tasks::Tasks;
use libp2p::{Multiaddr, PeerId};
use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::Instant;
use tree::digest::Digest;

/// Commands that may wait for the event loop.
const COMMANDS_MAX: usize = 256;
/// A connection on which its peer asked nothing for so long makes room for another one, where there is none.
const CONNECTION_IDLE_MAX: Duration = Duration::from_secs(5);
/// Streams that peers have open here: a frame of 256 KiB in each is 256 MiB.
const STREAMS: Limits = Limits { all: 1024, unnamed: 768, strangers: 512, origin: 256, identity: 32 };
/// Adverts taken from one origin in a minute: each costs some 10 ms at most.
const ADVERTS_PER_ORIGIN_MAX: u32 = 128;
/// Origins whose adverts are counted in a minute.
const ADVERT_ORIGINS_MAX: usize = 4096;
/// Changes of holdings that may wait for a slow peer; one that misses some is told the whole list again.
const DELTAS_MAX: usize = 256;

/// The protocols that streams are opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Protocol {
    /// Blobs, by request and answer.
    Blob,
    /// Claims on a recipe, by request and answer.
    Claims,
    /// What a group asks, by request and answer.
    Group,
    /// Builds given to another machine: a dialogue.
    Build,
    /// What the opener holds.
    Have,
    /// Records for the DHT.
    Advert,
}

/// Two thirds for strangers, half of these for one origin; a sixth that only those have whom the user named.
fn connections(all: u32) -> Limits {
    let all = u64::from(all);
    Limits { all, unnamed: all * 5 / 6, strangers: all * 2 / 3, origin: all / 3, identity: 4 }
}

fn places(all: usize) -> Places {
    Places::new(Limits::of(u64::try_from(all).unwrap_or(u64::MAX)), Duration::MAX)
}

/// What the network is asked to do; the libp2p event loop and the in-memory network both understand it.
#[derive(Debug)]
pub(super) enum Command {
    /// Opens a stream, after dialling when need be.
    Open { peer: PeerId, addresses: Vec<Multiaddr>, protocol: Protocol, answer: oneshot::Sender<io::Result<Pipe>> },
    /// Asks the DHT for providers.
    Find { key: Key, answer: oneshot::Sender<Vec<PeerId>> },
    /// Asks the DHT for the peers nearest to a key.
    Closest { key: Key, answer: oneshot::Sender<Vec<Neighbour>> },
    /// Connects.
    Dial(Multiaddr),
    /// Disconnects a peer that was just banned.
    Shun(PeerId),
    /// Stays connected to a peer, and learns where it may be dialled.
    Keep { peer: PeerId, addresses: Vec<Multiaddr> },
    /// Does not stay connected to it any longer, and disconnects.
    Part(PeerId),
}

/// A peer near to a key in the DHT's key space.
#[derive(Clone, Debug)]
pub(super) struct Neighbour {
    pub(super) peer: PeerId,
    pub(super) addresses: Vec<Multiaddr>,
}

/// See the head of this room.
pub(super) struct State {
    local: PeerId,
    config: Config,
    holdings: Arc<dyn Holdings>,
    tasks: Tasks,
    commands: mpsc::Sender<Command>,
    pub(super) table: Mutex<Table>,
    pub(super) announced: Arc<Mutex<Announced>>,
    pub(super) records: Arc<Mutex<Records>>,
    pub(super) pending: Pending,
    deltas: broadcast::Sender<Arc<Have>>,
    listens: Mutex<Vec<Multiaddr>>,
    standing: Mutex<Standing>,
    connections: Places,
    streams: Places,
    uploads: Places,
    claim_answers: Places,
    group_answers: Places,
    adverts: Mutex<Rates<Origin>>,
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
            table: Mutex::new(Table::new(config.holdings_max)),
            announced: Arc::default(),
            records: Arc::new(Mutex::new(Records::new(config.records_max, config.records_per_peer_max))),
            pending: Pending::default(),
            deltas: broadcast::channel(DELTAS_MAX).0,
            listens: Mutex::default(),
            standing: Mutex::default(),
            connections: Places::new(connections(config.connections_max), CONNECTION_IDLE_MAX),
            streams: Places::new(STREAMS, Duration::MAX),
            uploads: places(config.uploads_max),
            claim_answers: places(config.claim_answers_max),
            group_answers: places(config.group_answers_max),
            adverts: Mutex::new(Rates::new(ADVERTS_PER_ORIGIN_MAX, ADVERT_ORIGINS_MAX)),
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

    pub(super) fn standing(&self) -> &Mutex<Standing> {
        &self.standing
    }

    pub(super) fn connections(&self) -> &Places {
        &self.connections
    }

    /// Streams that peers opened.
    pub(super) fn streams(&self) -> &Places {
        &self.streams
    }

    pub(super) fn uploads(&self) -> &Places {
        &self.uploads
    }

    pub(super) fn claim_answers(&self) -> &Places {
        &self.claim_answers
    }

    pub(super) fn group_answers(&self) -> &Places {
        &self.group_answers
    }

    /// Counts one advert; false when its origin sends too many.
    pub(super) fn advert_allowed_from(&self, origin: Origin) -> bool {
        lock(&self.adverts).allow(origin, Instant::now())
    }

    pub(super) fn holdings(&self) -> &dyn Holdings {
        &*self.holdings
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

    pub(super) async fn open_pipe(
        &self,
        peer: PeerId,
        addresses: Vec<Multiaddr>,
        protocol: Protocol,
    ) -> io::Result<Pipe> {
        let (answer, answered) = oneshot::channel();
        self.command(Command::Open { peer, addresses, protocol, answer }).await;
        answered.await.unwrap_or_else(|_| Err(io::ErrorKind::NotConnected.into()))
    }

    // What we hold.

    /// Looks a blob up on the blocking pool.
    pub(super) async fn held(&self, digest: Digest, peer: PeerId) -> Option<Held> {
        let holdings = Arc::clone(&self.holdings);
        crate::blocking::run(move || holdings.open(&digest, &peer)).await
    }

    /// Looks claims up on the blocking pool.
    pub(super) async fn claims(&self, fingerprint: Digest, peer: PeerId) -> Vec<Vec<u8>> {
        let holdings = Arc::clone(&self.holdings);
        crate::blocking::run(move || holdings.claims(&fingerprint, &peer)).await
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
}
