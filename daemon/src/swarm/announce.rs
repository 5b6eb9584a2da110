//! Bringing our keys to the DHT by region, and taking those of others.
//!
//! One provide operation a key costs 50 to 100 KB on the wire (measured); 80 000 of them would be gigabytes. Here the keys are
//! kept in the order of the DHT's key space: for the first one waiting the nearest peers are looked up once, and they are told all keys of
//! the region that these peers are known to cover, up to 8192 in one `/peerage/advert/1` message.

use super::records::lock;
use super::state::{Command, Neighbour, Protocol, State};
use super::streams::Pipe;
use super::wire::{ADVERT_KEYS_MAX, Advert, AdvertAnswer, FrameError, Key, read_frame, write_frame};
use crate::budget::Who;
use futures::StreamExt as _;
use libp2p::kad::{K_VALUE, KBucketKey};
use libp2p::{Multiaddr, PeerId};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

/// After a change, others are waited for so long before the region is looked up.
const GATHER: Duration = Duration::from_millis(500);
/// The pause after a region, so that a full cycle is a murmur and not a burst.
const REGION_PAUSE: Duration = Duration::from_millis(250);
/// The pause when a region took nearly as many adverts as a peer accepts in a minute.
const LARGE_REGION_PAUSE: Duration = Duration::from_secs(60);
/// Keys brought to a region in one go; 16 adverts, half of what a peer accepts in a minute.
const REGION_KEYS_MAX: usize = 16 * ADVERT_KEYS_MAX;
/// The pause when nobody took a region.
const RETRY_PAUSE: Duration = Duration::from_secs(30);
/// A lookup of the nearest peers ends in this time.
const CLOSEST_MAX: Duration = Duration::from_secs(20);
/// One peer takes its adverts in this time, dialling included.
const ADVERT_MAX: Duration = Duration::from_secs(20);
/// Peers told at the same time.
const ADVERTS_AT_ONCE: usize = 4;
/// When the network has doubled, everything is told again, but not more often than this.
const GROWTH_PAUSE: Duration = Duration::from_secs(600);
/// An advert stream without an advert for so long is closed.
const NEXT_ADVERT_MAX: Duration = Duration::from_secs(30);

/// Keys of an advert that are taken under one lock: half a millisecond.
const KEYS_AT_ONCE: usize = 512;

/// Where a key lies in the DHT's key space: its SHA-256.
type Position = [u8; 32];

fn position(bytes: &[u8]) -> Position {
    let hashed = KBucketKey::new(bytes.to_vec());
    hashed.hashed_bytes().try_into().expect("the key space has 32 bytes")
}

/// How many leading bits two positions share.
fn shared_bits(a: &Position, b: &Position) -> u32 {
    let differing = a.iter().zip(b).position(|(a, b)| a != b);
    let Some(at) = differing else { return 256 };
    let bits = a.get(at).zip(b.get(at)).map_or(0, |(a, b)| (a ^ b).leading_zeros());
    u32::try_from(at).unwrap_or(0) * 8 + bits
}

/// What there is to say about a key.
#[derive(Debug)]
struct Waiting {
    key: Key,
    withdraw: bool,
    /// Whether any neighbour may know that we provide it.
    told: bool,
}

/// Keys that wait to be advertised, or withdrawn, in the order of the key space.
#[derive(Debug, Default)]
pub(super) struct Pending {
    waiting: Mutex<BTreeMap<Position, Waiting>>,
    woken: Notify,
}

impl Pending {
    /// Keys that nobody was told of, or that were taken back since.
    pub(super) fn advertise(&self, keys: Vec<Key>) {
        self.add(keys, false, false);
    }

    /// Keys that were told, once more.
    fn advertise_again(&self, keys: Vec<Key>) {
        self.add(keys, false, true);
    }

    /// Takes keys back. One that nobody was told of is forgotten: its withdrawal would be the first word of it.
    pub(super) fn withdraw(&self, keys: Vec<Key>) {
        self.add(keys, true, true);
    }

    /// `told` holds for keys that do not wait; of one that waits it is known.
    fn add(&self, keys: Vec<Key>, withdraw: bool, told: bool) {
        // Hashed outside the lock.
        let placed: Vec<(Position, Key)> = keys.into_iter().map(|key| (position(&key.0), key)).collect();
        if placed.is_empty() {
            return;
        }
        let mut waiting = lock(&self.waiting);
        for (position, key) in placed {
            match waiting.entry(position) {
                Entry::Vacant(place) => {
                    place.insert(Waiting { key, withdraw, told });
                }
                Entry::Occupied(place) if withdraw && !place.get().told => {
                    place.remove();
                }
                Entry::Occupied(mut place) => place.get_mut().withdraw = withdraw,
            }
        }
        drop(waiting);
        self.wake();
    }

    pub(super) fn len(&self) -> usize {
        lock(&self.waiting).len()
    }

    /// There is something new: keys, or peers to tell.
    pub(super) fn wake(&self) {
        self.woken.notify_one();
    }

    fn first(&self) -> Option<(Position, Key)> {
        lock(&self.waiting).first_key_value().map(|(position, waiting)| (*position, waiting.key))
    }

    /// The keys that share `bits` leading bits with a position, in order, at most `max`. From now on they count as told,
    /// since some peer may be even if not all are.
    fn region(&self, at: &Position, bits: u32, max: usize) -> Vec<(Position, Key, bool)> {
        let mut waiting = lock(&self.waiting);
        let from = waiting.range_mut(*at..);
        let inside = from.take_while(|(position, _)| shared_bits(position, at) >= bits).take(max);
        let tell = |(position, waiting): (&Position, &mut Waiting)| {
            waiting.told = true;
            (*position, waiting.key, waiting.withdraw)
        };
        inside.map(tell).collect()
    }

    /// These were told; what was changed in the meantime stays.
    fn done(&self, told: &[(Position, Key, bool)]) {
        let mut waiting = lock(&self.waiting);
        for (position, _, withdraw) in told {
            if waiting.get(position).is_some_and(|waiting| waiting.withdraw == *withdraw) {
                waiting.remove(position);
            }
        }
    }
}

/// Advertises for as long as the swarm lives. Cancel safe: yes.
pub(super) async fn advertise(state: Arc<State>) {
    let mut cycle_at = Instant::now() + state.config().advert_interval;
    let (mut told_peers, mut grown_at) = (0, Instant::now());
    loop {
        let now = Instant::now();
        let grown = told_peers > 0 && state.routing() >= 2 * told_peers && now >= grown_at + GROWTH_PAUSE;
        if now >= cycle_at || grown {
            let keys = lock(&state.announced).keys().collect();
            state.pending.advertise_again(keys);
            cycle_at = now + state.config().advert_interval;
            (told_peers, grown_at) = (state.routing(), now);
        }
        let Some((at, key)) = state.pending.first().filter(|_| state.routing() > 0) else {
            wait(&state, cycle_at).await;
            continue;
        };
        let pause = match region(&state, &at, key).await {
            Some(adverts) => {
                told_peers = told_peers.max(state.routing());
                if adverts * 2 > REGION_KEYS_MAX / ADVERT_KEYS_MAX { LARGE_REGION_PAUSE } else { REGION_PAUSE }
            }
            None => RETRY_PAUSE,
        };
        tokio::time::sleep(pause).await;
    }
}

/// Waits for keys or peers, then a moment for more of them.
async fn wait(state: &State, cycle_at: Instant) {
    let woken = tokio::time::timeout_at(cycle_at, state.pending.woken.notified()).await;
    if woken.is_ok() {
        tokio::time::sleep(GATHER).await;
    }
}

/// Tells the peers nearest to a key all waiting keys they cover. Answers how many adverts each got, if anyone took them.
async fn region(state: &Arc<State>, at: &Position, key: Key) -> Option<usize> {
    let (answer, answered) = oneshot::channel();
    state.command(Command::Closest { key, answer }).await;
    let mut near = tokio::time::timeout(CLOSEST_MAX, answered).await.ok()?.ok()?;
    near.retain(|near| near.peer != state.local());
    if near.is_empty() {
        return None; // Nobody is told.
    }
    let told = state.pending.region(at, covered_bits(at, &near), REGION_KEYS_MAX);
    let adverts = Arc::new(adverts(&told));
    let telling = near.into_iter().map(|Neighbour { peer, addresses }| {
        let (state, adverts) = (Arc::clone(state), Arc::clone(&adverts));
        async move { tokio::time::timeout(ADVERT_MAX, tell(&state, peer, addresses, &adverts)).await }
    });
    let outcomes: Vec<_> = futures::stream::iter(telling).buffer_unordered(ADVERTS_AT_ONCE).collect().await;
    let taken = outcomes.iter().filter(|outcome| matches!(outcome, Ok(Ok(())))).count();
    tracing::debug!(keys = told.len(), peers = outcomes.len(), taken, "advertised a region");
    if taken == 0 {
        return None;
    }
    state.pending.done(&told);
    state.changed();
    Some(adverts.len())
}

/// How many leading bits of a position name a region whose every peer is in `near`, the nearest peers to that position.
///
/// The farthest found shares `n` bits; whoever shares more is nearer than it, and so was found. Fewer than the usual
/// number found are all there are.
fn covered_bits(at: &Position, near: &[Neighbour]) -> u32 {
    if near.len() + 1 < K_VALUE.get() {
        return 0;
    }
    let shared = near.iter().map(|near| shared_bits(&position(&near.peer.to_bytes()), at));
    shared.min().map_or(0, |bits| bits + 1)
}

fn adverts(told: &[(Position, Key, bool)]) -> Vec<Advert> {
    let of = |withdraw: bool| -> Vec<Advert> {
        let keys: Vec<Key> = told.iter().filter(|(_, _, verb)| *verb == withdraw).map(|(_, key, _)| *key).collect();
        keys.chunks(ADVERT_KEYS_MAX).map(|keys| Advert { withdraw, keys: keys.to_vec() }).collect()
    };
    [of(false), of(true)].concat()
}

async fn tell(state: &State, peer: PeerId, addresses: Vec<Multiaddr>, adverts: &[Advert]) -> Result<(), FrameError> {
    let mut pipe = state.open_pipe(peer, addresses, Protocol::Advert).await.map_err(FrameError::Stream)?;
    for advert in adverts {
        write_frame(&mut pipe, advert).await.map_err(FrameError::Stream)?;
        let answer: AdvertAnswer = read_frame(&mut pipe).await?;
        tracing::trace!(%peer, keys = advert.keys.len(), accepted = answer.accepted, "advert answered");
    }
    Ok(())
}

fn take(state: &State, peer: &PeerId, who: Who, keys: &[Key], withdraw: bool, addresses: &[Multiaddr]) -> u32 {
    let mut records = lock(&state.records);
    match withdraw {
        true => records.remove(peer, keys),
        false => records.add(*peer, who, keys, addresses, std::time::Instant::now()),
    }
}

/// Takes the adverts on one stream. Cancel safe: yes.
pub(super) async fn receive(state: Arc<State>, peer: PeerId, mut pipe: Pipe) {
    loop {
        let read = tokio::time::timeout(NEXT_ADVERT_MAX, read_frame::<Advert>(&mut pipe)).await;
        let Ok(Ok(advert)) = read else { break };
        if !state.advert_allowed(&peer) {
            tracing::debug!(%peer, "too many adverts");
            break;
        }
        let (addresses, who) = (state.listens_of(&peer), state.who(&peer));
        let mut accepted = 0;
        // In parts, so that nobody waits long for the lock.
        let heeded = state.advert_heeded(&peer);
        for keys in advert.keys.chunks(KEYS_AT_ONCE).filter(|_| heeded) {
            accepted += take(&state, &peer, who, keys, advert.withdraw, &addresses);
            tokio::task::yield_now().await;
        }
        state.changed();
        let answered = tokio::time::timeout(NEXT_ADVERT_MAX, write_frame(&mut pipe, &AdvertAnswer { accepted })).await;
        if !matches!(answered, Ok(Ok(()))) {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(n: u32) -> Vec<Key> {
        (0..n).map(|n| Key(std::array::from_fn(|i| n.to_be_bytes()[i % 4] ^ u8::try_from(i).unwrap()))).collect()
    }

    #[test]
    fn shared_bits_are_counted_across_bytes() {
        let (a, mut b) = ([0; 32], [0; 32]);
        assert_eq!(shared_bits(&a, &b), 256);
        b[2] = 0b0001_0000;
        assert_eq!(shared_bits(&a, &b), 19);
        b[0] = 0x80;
        assert_eq!(shared_bits(&a, &b), 0);
    }

    #[test]
    fn a_small_network_is_one_region_and_a_large_one_covers_only_what_was_found() {
        let at = position(b"somewhere");
        let few: Vec<_> = (0..5).map(|_| Neighbour { peer: PeerId::random(), addresses: vec![] }).collect();
        assert_eq!(covered_bits(&at, &few), 0);
        let mut all: Vec<PeerId> = (0..2000).map(|_| PeerId::random()).collect();
        all.sort_by_key(|peer| std::cmp::Reverse(shared_bits(&position(&peer.to_bytes()), &at)));
        let near: Vec<_> = all[..20].iter().map(|peer| Neighbour { peer: *peer, addresses: vec![] }).collect();
        let bits = covered_bits(&at, &near);
        let inside = all.iter().filter(|peer| shared_bits(&position(&peer.to_bytes()), &at) >= bits).count();
        assert!(bits > 3 && inside <= 20, "{inside} peers share {bits} bits");
    }

    #[test]
    fn regions_go_round_all_keys_and_a_key_withdrawn_meanwhile_stays() {
        let pending = Pending::default();
        pending.advertise(keys(500));
        let mut seen = 0;
        let (first, key) = pending.first().unwrap();
        let region = pending.region(&first, 4, usize::MAX);
        assert!(region.len() > 5 && region.len() < 100);
        pending.withdraw(vec![key]);
        pending.done(&region);
        assert_eq!(pending.len(), 500 - region.len() + 1);
        assert_eq!(pending.region(&first, 256, 1), [(first, key, true)]);
        while let Some((at, _)) = pending.first() {
            let region = pending.region(&at, 4, 7);
            seen += region.len();
            pending.done(&region);
        }
        assert_eq!(seen, 500 - (region.len() - 1));
    }

    #[test]
    fn a_key_withdrawn_before_anybody_was_told_is_forgotten_and_one_that_was_told_is_withdrawn() {
        let pending = Pending::default();
        let all = keys(3);
        pending.advertise(all.clone());
        pending.withdraw(vec![all[0]]);
        assert_eq!(pending.len(), 2, "the first was never told");
        let (at, told) = pending.first().unwrap();
        assert_eq!(pending.region(&at, 256, 1).len(), 1); // Told to some, but not done.
        pending.withdraw(all.clone());
        let left: Vec<(Key, bool)> = lock(&pending.waiting).values().map(|w| (w.key, w.withdraw)).collect();
        assert!(left.contains(&(told, true)) && left.contains(&(all[0], true)) && left.len() == 2, "{left:?}");
        pending.advertise(vec![told]);
        pending.withdraw(vec![told]);
        assert_eq!(pending.len(), 2, "announced again in between, it is still known to some");
        let cycle = Pending::default();
        cycle.advertise_again(all.clone());
        cycle.withdraw(all);
        assert_eq!(cycle.len(), 3, "all were told in the last cycle");
    }

    #[test]
    fn no_advert_is_longer_than_a_message_may_be() {
        let told: Vec<_> = keys(20_000).into_iter().map(|key| (position(&key.0), key, key.0[3] == 7)).collect();
        let adverts = adverts(&told);
        assert!(adverts.iter().all(|advert| (1..=ADVERT_KEYS_MAX).contains(&advert.keys.len())));
        assert_eq!(adverts.iter().flat_map(|advert| &advert.keys).count(), 20_000);
    }
}
