//! The connected peers: who they are, what they hold, how they behave, and how much each may have open here.

use super::config::Config;
use super::holdings::PeerHoldings;
use super::records::lock;
use super::scores::{Scores, Traffic};
use super::state::{Protocol, State};
use super::streams::Pipe;
use super::wire::{BlobRequest, ClaimsRequest, GroupRequest, Have, Key};
use crate::budget::{Class, Limits, Shares, Who};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use libp2p::{Multiaddr, PeerId};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Idle streams of a protocol kept open to one peer, so that the next blob starts without a handshake and with a wide window.
const IDLE_STREAMS_MAX: usize = 8;
/// How long an idle stream is kept: shorter than the other side waits for a request, so that requests do not meet its end.
const IDLE_STREAM_LIFE: Duration = Duration::from_secs(45);
/// Streams on which one peer may tell what it holds: the old and the new one while it connects again.
const HAVE_STREAMS_MAX: u32 = 2;
/// Adverts of a peer in a minute that are looked at, however many come from its origin.
const ADVERTS_HEEDED: u32 = 4;
/// Adverts taken from one peer in a minute.
const ADVERTS_PER_MINUTE_MAX: u32 = 32;
/// The longest agent text kept, in characters.
const AGENT_LENGTH_MAX: usize = 64;
/// Dialogues that one peer may have begun: each is a build that it gave, and most of them wait.
const DIALOGUES_PER_PEER_MAX: usize = 32;

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
    /// How many digests it says it holds: blobs, and fingerprints it has claims on.
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
    /// For whom what it holds is counted, and how much that is.
    counted: Option<(Who, u64)>,
    rtt: Option<Duration>,
    traffic: Arc<Traffic>,
    /// The number of the task that tells this peer what we hold.
    told: Option<u64>,
    /// The number of the stream whose word on holdings counts.
    have_stream: u64,
    have_streams: u32,
    idle: Vec<Idle>,
    blob_places: Arc<Semaphore>,
    claim_places: Arc<Semaphore>,
    group_places: Arc<Semaphore>,
    build_places: Arc<Semaphore>,
    adverts: u32,
    adverts_since: Instant,
}

/// A stream at the next question's place.
struct Idle {
    since: Instant,
    protocol: Protocol,
    pipe: Pipe,
}

pub(super) struct Table {
    peers: HashMap<PeerId, Peer>,
    scores: Scores,
    /// What all hold.
    held: Shares,
    have_streams: u64,
    tellers: u64,
}

impl State {
    /// A peer of ours is connected (again, or from another address too). True when it was not before.
    pub(super) fn joined(self: &Arc<Self>, peer: PeerId, mut joined: Joined) -> bool {
        joined.agent = joined.agent.chars().filter(|c| !c.is_control()).take(AGENT_LENGTH_MAX).collect();
        let now = Instant::now();
        joined.listed |= self.holdings().is_member(&peer);
        let exchange = self.config().exchange && (joined.lan || joined.listed);
        let new = {
            let mut table = lock(&self.table);
            let traffic = table.scores.traffic(peer, now);
            match table.peers.get_mut(&peer) {
                Some(known) => {
                    known.joined = Joined { lan: joined.lan || known.joined.lan, ..joined };
                    false
                }
                None => {
                    table.peers.insert(peer, Peer::new(joined, traffic, self.config(), now));
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
        let number = {
            let mut table = lock(&self.table);
            table.tellers += 1;
            let number = table.tellers;
            let Some(known) = table.peers.get_mut(&peer).filter(|known| known.told.is_none()) else { return };
            known.told = Some(number);
            number
        };
        self.tasks().spawn("swarm have", super::have::tell(Arc::clone(self), peer, number));
    }

    /// Whether this task still is the one that tells a peer: not once it was gone, even if it is back and another tells it.
    pub(super) fn is_told_by(&self, peer: &PeerId, number: u64) -> bool {
        lock(&self.table).peers.get(peer).is_some_and(|known| known.told == Some(number))
    }

    /// A telling task ended although the peer may still be there.
    pub(super) fn untold(&self, peer: &PeerId, number: u64) {
        if let Some(known) = lock(&self.table).peers.get_mut(peer).filter(|known| known.told == Some(number)) {
            known.told = None;
        }
    }

    /// The last connection to a peer is gone.
    pub(super) fn left(&self, peer: &PeerId) {
        let gone = {
            let mut table = lock(&self.table);
            let gone = table.peers.remove(peer);
            if let Some((who, count)) = gone.as_ref().and_then(|known| known.counted) {
                table.held.give_back(&who, count);
            }
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

    /// A peer opened a stream: serves it in a task of its own, as long as it has a place among the streams of all.
    pub(super) fn inbound(self: &Arc<Self>, peer: PeerId, protocol: Protocol, pipe: Pipe) {
        let Some(place) = self.streams().enter_or_push(self.who(&peer)) else {
            return tracing::debug!(%peer, ?protocol, "too many streams of strangers");
        };
        let (name, work) = self.serving(peer, protocol, pipe);
        self.tasks().spawn(name, async move {
            tokio::select! {
                () = place.ended() => tracing::debug!(%peer, ?protocol, "a stream gave way to another one"),
                () = work => {}
            }
        });
    }

    /// What is done on a stream that a peer opened.
    fn serving(
        self: &Arc<Self>,
        peer: PeerId,
        protocol: Protocol,
        pipe: Pipe,
    ) -> (&'static str, BoxFuture<'static, ()>) {
        let state = Arc::clone(self);
        match protocol {
            Protocol::Blob => ("swarm blob", super::asking::serve::<BlobRequest>(state, peer, pipe).boxed()),
            Protocol::Claims => ("swarm claims", super::asking::serve::<ClaimsRequest>(state, peer, pipe).boxed()),
            Protocol::Group => ("swarm group", super::asking::serve::<GroupRequest>(state, peer, pipe).boxed()),
            Protocol::Build => {
                let place = state.places(&peer, protocol).and_then(|places| places.try_acquire_owned().ok());
                let heard = async move {
                    match place {
                        Some(_place) => state.holdings().converse(peer, super::Dialogue::new(pipe)).await,
                        None => tracing::debug!(%peer, "too many dialogues"),
                    }
                };
                ("swarm dialogue", heard.boxed())
            }
            Protocol::Advert => ("swarm advert", super::announce::receive(state, peer, pipe).boxed()),
            Protocol::Have => {
                // Who tells is told, but only a peer we would also give blobs to: what this machine holds is nobody else's
                // business, and of no use to them.
                if self.config().exchange && self.serves(&peer) {
                    self.tell_peer(peer);
                }
                ("swarm heard", super::have::hear(state, peer, pipe).boxed())
            }
        }
    }

    /// Whether blobs and claims are given to this peer.
    pub(super) fn serves(&self, peer: &PeerId) -> bool {
        let near = lock(&self.table).peers.get(peer).is_some_and(|known| known.joined.lan);
        (near || self.config().serve_wan || self.is_named(peer)) && !self.is_banned(peer)
    }

    /// The places for streams on which a peer asks, idle ones included. None for a peer that is gone, and for protocols of which it
    /// asks nothing.
    pub(super) fn places(&self, peer: &PeerId, protocol: Protocol) -> Option<Arc<Semaphore>> {
        let table = lock(&self.table);
        let known = table.peers.get(peer)?;
        match protocol {
            Protocol::Blob => Some(Arc::clone(&known.blob_places)),
            Protocol::Claims => Some(Arc::clone(&known.claim_places)),
            Protocol::Group => Some(Arc::clone(&known.group_places)),
            Protocol::Build => Some(Arc::clone(&known.build_places)),
            Protocol::Have | Protocol::Advert => None,
        }
    }

    /// Counts one advert of a peer; false when it sends too many.
    pub(super) fn advert_allowed(&self, peer: &PeerId) -> bool {
        let now = Instant::now();
        let mut table = lock(&self.table);
        let Some(known) = table.peers.get_mut(peer) else { return false };
        if now.saturating_duration_since(known.adverts_since) >= Duration::from_secs(60) {
            (known.adverts, known.adverts_since) = (0, now);
        }
        known.adverts = known.adverts.saturating_add(1);
        known.adverts <= ADVERTS_PER_MINUTE_MAX
    }

    /// Whether an advert of a peer is looked at: its first ones always, so that the many of an origin leave something to the few.
    pub(super) fn advert_heeded(&self, peer: &PeerId) -> bool {
        let first = lock(&self.table).peers.get(peer).is_some_and(|known| known.adverts <= ADVERTS_HEEDED);
        let who = self.who(peer);
        let allowed = self.advert_allowed_from(who.origin);
        first || allowed || who.class == Class::Named
    }

    /// Where a connected peer says it listens.
    pub(super) fn listens_of(&self, peer: &PeerId) -> Vec<Multiaddr> {
        lock(&self.table).peers.get(peer).map(|known| known.joined.listens.clone()).unwrap_or_default()
    }

    // What they hold.

    /// A peer begins to tell what it holds; only its newest stream counts, and a third at the same time is refused.
    ///
    /// A list costs memory: only those are heard whom we would give blobs to, which are all that were asked for.
    pub(super) fn have_stream(&self, peer: &PeerId) -> Option<u64> {
        if !self.serves(peer) {
            return None;
        }
        let mut table = lock(&self.table);
        table.have_streams += 1;
        let number = table.have_streams;
        let known = table.peers.get_mut(peer).filter(|known| known.have_streams < HAVE_STREAMS_MAX)?;
        known.have_stream = number;
        known.have_streams += 1;
        Some(number)
    }

    /// Takes what a peer said. False when another stream has taken over or the peer is gone.
    ///
    /// A long change is merged outside of the lock that everybody needs: in that moment the peer is not known to hold anything.
    pub(super) fn heard(&self, peer: &PeerId, number: u64, have: Have) -> bool {
        let who = self.who(peer);
        let taken = lock(&self.table).take_held(peer, number, who);
        let Some((mut held, room)) = taken else { return false };
        held.apply(have, room.min(self.config().holdings_per_peer_max));
        let counts = lock(&self.table).put_held(peer, number, held);
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
        known.held.remove(key.prefix());
    }

    pub(super) fn holders(&self, key: &Key) -> Vec<PeerId> {
        let prefix = key.prefix();
        let table = lock(&self.table);
        let holding = table.peers.iter().filter(|(_, known)| known.held.contains(prefix)).map(|(peer, _)| *peer);
        let holding = holding.collect();
        drop(table);
        self.best_first(holding)
    }

    // Streams and scores.

    /// An idle stream to a peer, from an earlier request.
    pub(super) fn idle_pipe(&self, peer: &PeerId, protocol: Protocol) -> Option<Pipe> {
        let mut table = lock(&self.table);
        let idle = &mut table.peers.get_mut(peer)?.idle;
        let newest = idle.iter().rposition(|idle| idle.protocol == protocol)?;
        Some(idle.remove(newest).pipe)
    }

    /// Closes streams that have been idle for long: they would keep their connections open for ever.
    pub(super) fn drop_idle(&self, now: Instant) {
        let mut table = lock(&self.table);
        let old = |idle: &mut Idle| now.saturating_duration_since(idle.since) >= IDLE_STREAM_LIFE;
        let dropped: Vec<_> = table.peers.values_mut().flat_map(|known| known.idle.extract_if(.., old)).collect();
        drop(table); // The streams close outside the lock.
        drop(dropped);
    }

    /// Keeps a stream on which an answer has been read to its end.
    pub(super) fn keep_pipe(&self, peer: &PeerId, protocol: Protocol, pipe: Pipe) {
        let mut table = lock(&self.table);
        let like_it = |known: &Peer| known.idle.iter().filter(|idle| idle.protocol == protocol).count();
        if let Some(known) = table.peers.get_mut(peer).filter(|known| like_it(known) < IDLE_STREAMS_MAX) {
            known.idle.push(Idle { since: Instant::now(), protocol, pipe });
        } else {
            drop(table);
            drop(pipe);
        }
    }

    pub(super) fn traffic(&self, peer: PeerId) -> Arc<Traffic> {
        lock(&self.table).scores.traffic(peer, Instant::now())
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
    fn new(joined: Joined, traffic: Arc<Traffic>, config: &Config, now: Instant) -> Self {
        Self {
            joined,
            held: PeerHoldings::default(),
            counted: None,
            rtt: None,
            traffic,
            told: None,
            have_stream: 0,
            have_streams: 0,
            idle: Vec::new(),
            blob_places: Arc::new(Semaphore::new(config.blob_streams_per_peer_max)),
            claim_places: Arc::new(Semaphore::new(config.claim_streams_per_peer_max)),
            group_places: Arc::new(Semaphore::new(config.group_streams_per_peer_max)),
            build_places: Arc::new(Semaphore::new(DIALOGUES_PER_PEER_MAX)),
            adverts: 0,
            adverts_since: now,
        }
    }
}

impl Table {
    pub(super) fn new(holdings_max: usize) -> Self {
        let all = u64::try_from(holdings_max).unwrap_or(u64::MAX);
        // A full mirror holds about 80 000 files; a stranger may have three times as much to tell, and the named all there is.
        let held = Limits { origin: all / 8, identity: all / 32, ..Limits::of(all) };
        Self { peers: HashMap::new(), scores: Scores::default(), held: Shares::new(held), have_streams: 0, tellers: 0 }
    }

    /// What a peer holds, to be changed outside of the lock, and how much it may be.
    fn take_held(&mut self, peer: &PeerId, number: u64, who: Who) -> Option<(PeerHoldings, usize)> {
        let known = self.peers.get_mut(peer).filter(|known| known.have_stream == number)?;
        let (was, count) = known.counted.unwrap_or((who, 0));
        self.held.give_back(&was, count);
        let room = self.held.room(&who);
        self.held.take(&who, count);
        known.counted = Some((who, count));
        Some((std::mem::take(&mut known.held), usize::try_from(room).unwrap_or(usize::MAX)))
    }

    /// Puts it back, changed.
    fn put_held(&mut self, peer: &PeerId, number: u64, held: PeerHoldings) -> bool {
        let Some(known) = self.peers.get_mut(peer).filter(|known| known.have_stream == number) else { return false };
        if let Some((who, count)) = known.counted {
            let now = u64::try_from(held.len()).unwrap_or(u64::MAX);
            self.held.give_back(&who, count);
            self.held.take(&who, now);
            known.counted = Some((who, now));
        }
        known.held = held;
        true
    }

    pub(super) fn scores(&self) -> &Scores {
        &self.scores
    }

    pub(super) fn scores_mut(&mut self) -> &mut Scores {
        &mut self.scores
    }

    /// Whether the user named this peer, as far as is known here.
    pub(super) fn is_listed(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(|known| known.joined.listed)
    }

    /// Where a peer is connected from, or was dialled.
    pub(super) fn address(&self, peer: &PeerId) -> Option<&Multiaddr> {
        self.peers.get(peer).map(|known| &known.joined.address)
    }

    /// Whether a peer is on the local network, and its round trip.
    pub(super) fn nearness(&self, peer: &PeerId) -> (bool, Duration) {
        let known = self.peers.get(peer);
        let rtt = known.and_then(|known| known.rtt).unwrap_or(Duration::MAX);
        (known.is_some_and(|known| known.joined.lan), rtt)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::{Held, Holdings, Offence};
    use crate::tasks::Tasks;
    use tree::digest::Digest;

    struct Nothing;

    impl Holdings for Nothing {
        fn open(&self, _: &Digest, _: &PeerId) -> Option<Held> {
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
        let state =
            state(Config { exchange: false, holdings_max: 100, holdings_per_peer_max: 80, ..Config::default() });
        let peers = [peer(&state, true, true), peer(&state, true, true)];
        let list = || Have::Snapshot { first: true, prefixes: (0..1000).collect() };
        for peer in &peers {
            let number = state.have_stream(peer).unwrap();
            assert!(state.heard(peer, number, list()));
            assert!(state.heard(peer, number, list()), "a list told again replaces the first");
        }
        assert_eq!(peers.map(|peer| lock(&state.table).peers[&peer].held.len()), [80, 20]);
        state.left(&peers[0]);
        assert_eq!(lock(&state.table).held.len(), 20);
    }

    #[test]
    fn strangers_that_claim_everything_leave_room_for_what_the_others_hold() {
        let state = state(Config { exchange: false, holdings_max: 3200, ..Config::default() });
        let tell = |peer: &PeerId| {
            let number = state.have_stream(peer).unwrap();
            assert!(state.heard(peer, number, Have::Snapshot { first: true, prefixes: (0..5000).collect() }));
            lock(&state.table).peers[peer].held.len()
        };
        let crowd: Vec<usize> = (0..64).map(|_| tell(&peer(&state, true, false))).collect();
        assert_eq!((crowd[0], tree::size::total(crowd.iter().map(|held| *held as u64))), (100, 400), "of one origin");
        let listed = peer(&state, true, true);
        assert_eq!(tell(&listed), 2800);
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
    fn what_strangers_from_afar_say_they_hold_is_not_heard() {
        let quiet = state(Config { exchange: false, ..Config::default() });
        let far = peer(&quiet, false, false);
        assert_eq!(quiet.have_stream(&far), None);
        let named = peer(&quiet, false, true);
        assert!(quiet.have_stream(&named).is_some());
        let open = state(Config { exchange: false, serve_wan: true, ..Config::default() });
        let far = peer(&open, false, false);
        assert!(open.have_stream(&far).is_some());
    }

    #[tokio::test]
    async fn who_told_a_peer_before_it_was_gone_does_not_tell_it_beside_another() {
        let (state, mut commands) = State::new(PeerId::random(), Config::default(), Arc::new(Nothing), &Tasks::new());
        let peer = peer(&state, true, false);
        let told = || lock(&state.table).peers[&peer].told.unwrap();
        let old = told();
        state.left(&peer);
        let address = Multiaddr::empty();
        state.joined(peer, Joined { address, agent: String::new(), lan: true, listed: false, listens: Vec::new() });
        let new = told();
        assert!(state.is_told_by(&peer, new) && !state.is_told_by(&peer, old));
        let ended = futures::FutureExt::now_or_never(crate::swarm::have::tell(Arc::clone(&state), peer, old));
        assert!(ended.is_some() && commands.try_recv().is_err(), "it opens no stream any more");
        state.untold(&peer, old);
        assert_eq!(told(), new);
        state.untold(&peer, new);
        assert_eq!(lock(&state.table).peers[&peer].told, None);
    }

    #[test]
    fn idle_streams_are_few_and_do_not_live_for_ever() {
        let state = state(Config { exchange: false, ..Config::default() });
        let peer = peer(&state, true, false);
        for _ in 0..9 {
            state.keep_pipe(&peer, Protocol::Blob, Pipe::new(futures::io::Cursor::new(Vec::new())));
        }
        state.keep_pipe(&peer, Protocol::Claims, Pipe::new(futures::io::Cursor::new(Vec::new())));
        assert!(state.idle_pipe(&peer, Protocol::Claims).is_some(), "each protocol has its own");
        assert!(state.idle_pipe(&peer, Protocol::Claims).is_none(), "and only its own");
        assert!(state.idle_pipe(&peer, Protocol::Blob).is_some());
        state.drop_idle(Instant::now());
        assert_eq!(lock(&state.table).peers[&peer].idle.len(), IDLE_STREAMS_MAX - 1);
        state.drop_idle(Instant::now() + IDLE_STREAM_LIFE);
        assert!(state.idle_pipe(&peer, Protocol::Blob).is_none());
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
    fn many_of_one_origin_leave_adverts_to_the_few_and_the_named_always_have_theirs() {
        let state = state(Config { exchange: false, ..Config::default() });
        let heeded =
            |peer: &PeerId| (0..32).filter(|_| state.advert_allowed(peer) && state.advert_heeded(peer)).count();
        let crowd: Vec<usize> = (0..100).map(|_| heeded(&peer(&state, true, false))).collect();
        assert_eq!((crowd[0], crowd[99]), (32, 4));
        assert_eq!(heeded(&peer(&state, true, true)), 32);
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
