//! The provider records this machine keeps for the DHT, in tens of bytes each.
//!
//! libp2p's own store takes nearly 4 KB a record and refuses the 1025th key (measured). Here a record is the first
//! 16 bytes of a key, the number of a provider and a time, in one B-tree; who the providers are stands in a table of its own.
//! Records are only pointers: a wrong one costs a question in vain. They stay for a day after who brought them has hung up, so they
//! are shared like places: by class, origin and provider ([`crate::budget`]); where there is no room, a record of who has most goes.

use super::wire::Key;
use crate::budget::{Class, Limits, Origin, Shares, Who};
use libp2p::kad::store::{Error as StoreError, RecordStore, Result as StoreResult};
use libp2p::kad::{ProviderRecord, Record, RecordKey};
use libp2p::{Multiaddr, PeerId};
use rand::RngCore as _;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a record lives without being told again: two announcements of 12 h and some delay.
pub(super) const RECORD_LIFE: Duration = Duration::from_secs(26 * 3600);
/// Bytes of a key that are kept; two keys that share them are taken for one another.
const HEAD_BYTES: usize = 16;
/// Providers kept for one key, and those of one origin among them.
const PROVIDERS_PER_KEY_MAX: usize = 64;
/// See [`PROVIDERS_PER_KEY_MAX`].
const PROVIDERS_PER_KEY_OF_ORIGIN_MAX: usize = 48;
/// Different providers remembered of one origin.
const PROVIDERS_PER_ORIGIN_MAX: u32 = 8192;
/// Providers that give way to one message.
const GIVE_WAY_MAX: usize = 16;
/// Records looked at to find a provider that gives way, and one of its records. Whoever has most is found soon.
const GIVE_WAY_STEPS: usize = 32;
/// Providers handed out for one key, as many as the DHT replicates.
const PROVIDERS_PER_ANSWER_MAX: usize = 20;
/// Different providers remembered.
const PROVIDERS_MAX: usize = 65_536;
/// Addresses remembered of one provider.
const ADDRESSES_MAX: usize = 4;
/// The longest address remembered, in bytes.
const ADDRESS_LENGTH_MAX: usize = 128;
/// Records looked at in one call of [`Records::expire`], so that the event loop never waits long.
const EXPIRE_STEP: usize = 16_384;

/// A record's place: half a key, and the provider's number (spread over bytes so that no padding is stored).
type Place = ([u8; HEAD_BYTES], [u8; 4]);

/// Before every other.
const FIRST: Place = ([0; HEAD_BYTES], [0; 4]);

/// An eighth for one origin: who tells of a whole mirror has a quarter of that.
fn limits(total_max: usize, per_provider_max: u32) -> Limits {
    let all = u64::try_from(total_max).unwrap_or(u64::MAX);
    let origin = (all / 8).max(u64::from(per_provider_max).min(all / 2));
    Limits { origin, identity: u64::from(per_provider_max), ..Limits::of(all) }
}

/// The records, bounded in total and for each provider.
#[derive(Debug)]
pub(super) struct Records {
    started: Instant,
    per_provider_max: u32,
    shares: Shares,
    of_origin: HashMap<Origin, u32>,
    /// Values are expiry times in seconds since `started`.
    places: BTreeMap<Place, u32>,
    providers: Vec<Option<Provider>>,
    free: Vec<u32>,
    numbers: HashMap<PeerId, u32>,
    cursor: Place,
    /// Where the search for a record that gives way goes on.
    hand: Place,
}

#[derive(Debug)]
struct Provider {
    peer: PeerId,
    who: Who,
    addresses: Box<[Multiaddr]>,
    count: u32,
}

impl Records {
    pub(super) fn new(total_max: usize, per_provider_max: u32) -> Self {
        Self {
            started: Instant::now(),
            per_provider_max,
            shares: Shares::new(limits(total_max, per_provider_max)),
            of_origin: HashMap::new(),
            places: BTreeMap::new(),
            providers: Vec::new(),
            free: Vec::new(),
            numbers: HashMap::new(),
            cursor: FIRST,
            hand: FIRST,
        }
    }

    /// How many records there are.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    fn head(key: &Key) -> [u8; HEAD_BYTES] {
        let (head, _) = key.0.split_first_chunk().expect("a key is longer than its head");
        *head
    }

    fn seconds(&self, now: Instant) -> u32 {
        u32::try_from(now.saturating_duration_since(self.started).as_secs()).unwrap_or(u32::MAX)
    }

    fn provider(&self, number: u32) -> Option<&Provider> {
        self.providers.get(usize::try_from(number).ok()?)?.as_ref()
    }

    fn provider_mut(&mut self, number: u32) -> Option<&mut Provider> {
        self.providers.get_mut(usize::try_from(number).ok()?)?.as_mut()
    }

    /// The number of a provider, which may be new, and what it is from now on.
    fn number(&mut self, peer: PeerId, who: Who) -> Option<u32> {
        if let Some(number) = self.numbers.get(&peer).copied() {
            if let Some(provider) = self.provider_mut(number)
                && provider.who != who
            {
                let (was, count) = (provider.who, u64::from(provider.count));
                provider.who = who;
                self.shares.give_back(&was, count);
                self.shares.take(&who, count);
                self.count_provider(&was, false);
                self.count_provider(&who, true);
            }
            return Some(number);
        }
        if self.of_origin.get(&who.origin).is_some_and(|count| *count >= PROVIDERS_PER_ORIGIN_MAX) {
            return None;
        }
        let provider = Some(Provider { peer, who, addresses: Box::default(), count: 0 });
        let number = match self.free.pop() {
            Some(number) => {
                *self.providers.get_mut(usize::try_from(number).ok()?)? = provider;
                number
            }
            None if self.providers.len() < PROVIDERS_MAX => {
                self.providers.push(provider);
                u32::try_from(self.providers.len() - 1).ok()?
            }
            None => return None,
        };
        self.numbers.insert(peer, number);
        self.count_provider(&who, true);
        Some(number)
    }

    fn count_provider(&mut self, who: &Who, more: bool) {
        let count = self.of_origin.entry(who.origin).or_default();
        *count = if more { count.saturating_add(1) } else { count.saturating_sub(1) };
        if *count == 0 {
            self.of_origin.remove(&who.origin);
        }
    }

    /// Remembers where a provider listens, if it has records here.
    pub(super) fn set_addresses(&mut self, peer: &PeerId, addresses: &[Multiaddr]) {
        let Some(number) = self.numbers.get(peer).copied() else { return };
        let short = addresses.iter().filter(|address| address.len() <= ADDRESS_LENGTH_MAX);
        let kept: Box<[Multiaddr]> = short.take(ADDRESSES_MAX).cloned().collect();
        if let Some(provider) = self.provider_mut(number).filter(|_| !kept.is_empty()) {
            provider.addresses = kept;
        }
    }

    /// Keeps records for a provider, or renews them. Answers how many were taken: the quotas may refuse the rest.
    pub(super) fn add(&mut self, peer: PeerId, who: Who, keys: &[Key], addresses: &[Multiaddr], now: Instant) -> u32 {
        let who = Who { peer: Some(peer), ..who };
        let Some(number) = self.number(peer, who) else { return 0 };
        let expiry = self.seconds(now + RECORD_LIFE);
        let (mut fresh, mut seen) = (Vec::new(), HashSet::new());
        let mut taken = 0;
        for key in keys {
            let place = (Self::head(key), number.to_be_bytes());
            if let Some(old) = self.places.get_mut(&place) {
                *old = expiry;
                taken += 1;
            } else if self.has_room_at(&place, &who) && seen.insert(place) {
                fresh.push(place);
            }
        }
        let wanted = u32::try_from(fresh.len()).unwrap_or(u32::MAX);
        let granted = self.make_room(number, &who, wanted);
        let few = usize::try_from(granted).unwrap_or(usize::MAX);
        self.places.extend(fresh.into_iter().take(few).map(|place| (place, expiry)));
        if let Some(provider) = self.provider_mut(number) {
            provider.count = provider.count.saturating_add(granted);
        }
        self.set_addresses(&peer, addresses);
        self.release_if_unused(number);
        taken + granted
    }

    /// Whether one more provider of a key is kept.
    fn has_room_at(&self, place: &Place, who: &Who) -> bool {
        let (mut all, mut of_origin) = (0, 0);
        for (_, number) in self.places.range((place.0, [0; 4])..=(place.0, [0xff; 4])).map(|(place, _)| place) {
            all += 1;
            let same = |provider: &Provider| provider.who.origin == who.origin;
            of_origin += usize::from(self.provider(u32::from_be_bytes(*number)).is_some_and(same));
        }
        let (all_max, of_origin_max) = match who.class {
            // The named are few.
            Class::Named => (2 * PROVIDERS_PER_KEY_MAX, 2 * PROVIDERS_PER_KEY_MAX),
            _ => (PROVIDERS_PER_KEY_MAX, PROVIDERS_PER_KEY_OF_ORIGIN_MAX),
        };
        all < all_max && of_origin < of_origin_max
    }

    /// Counts so many more records for a provider as there is room for, if need be in the place of those who have more.
    fn make_room(&mut self, number: u32, who: &Who, wanted: u32) -> u32 {
        let has = self.provider(number).map_or(u32::MAX, |provider| provider.count);
        let wanted = wanted.min(self.per_provider_max.saturating_sub(has));
        let mut granted = u32::try_from(self.shares.room(who)).unwrap_or(u32::MAX).min(wanted);
        self.shares.take(who, u64::from(granted));
        for _ in 0..GIVE_WAY_MAX {
            let missing = wanted - granted;
            let victim = if missing == 0 { None } else { self.one_that_gives_way(who) };
            let Some((victim, many)) = victim else { break };
            let gone = self.drop_some(victim, u32::try_from(many).unwrap_or(u32::MAX).min(missing));
            self.shares.take(who, u64::from(gone));
            granted += gone;
            if gone == 0 {
                break;
            }
        }
        granted
    }

    /// Of the providers of the next few records the one that has most, and how many of its records go before it has no more than who
    /// asks. The hand goes round all records.
    fn one_that_gives_way(&mut self, who: &Who) -> Option<(u32, u64)> {
        let seen: Vec<Place> = self.round().take(GIVE_WAY_STEPS).collect();
        self.hand = seen.last().copied().unwrap_or(FIRST);
        let more = seen.into_iter().filter_map(|(_, number)| {
            let number = u32::from_be_bytes(number);
            let held_by = self.provider(number)?.who;
            Some((self.shares.excess(who, &held_by)?, number))
        });
        let (excess, number) = more.max_by_key(|(excess, _)| *excess)?;
        Some((number, excess.gives_way))
    }

    /// Once round all records, beginning after the hand.
    fn round(&self) -> impl Iterator<Item = Place> {
        let after = self.places.range((Bound::Excluded(self.hand), Bound::Unbounded));
        after.chain(self.places.range(..=self.hand)).map(|(place, _)| *place)
    }

    /// Drops so many of the next records of a provider, or those that are met soon. Answers how many.
    fn drop_some(&mut self, number: u32, many: u32) -> u32 {
        let many = usize::try_from(many).unwrap_or(usize::MAX);
        let steps = many.saturating_mul(GIVE_WAY_STEPS).saturating_add(GIVE_WAY_STEPS);
        let (mut gone, mut hand) = (Vec::new(), self.hand);
        for place in self.round().take(steps) {
            hand = place;
            if place.1 == number.to_be_bytes() {
                gone.push(place);
                if gone.len() == many {
                    break;
                }
            }
        }
        self.hand = hand;
        for place in &gone {
            self.places.remove(place);
        }
        let gone = u32::try_from(gone.len()).unwrap_or(u32::MAX);
        self.uncount(number, gone);
        gone
    }

    /// Drops records of a provider. Answers how many there were.
    pub(super) fn remove(&mut self, peer: &PeerId, keys: &[Key]) -> u32 {
        let Some(number) = self.numbers.get(peer).copied() else { return 0 };
        let places = &mut self.places;
        let gone = keys.iter().filter(|key| places.remove(&(Self::head(key), number.to_be_bytes())).is_some()).count();
        let gone = u32::try_from(gone).unwrap_or(u32::MAX);
        self.uncount(number, gone);
        gone
    }

    fn uncount(&mut self, number: u32, gone: u32) {
        if let Some(provider) = self.provider_mut(number) {
            provider.count = provider.count.saturating_sub(gone);
            let who = provider.who;
            self.shares.give_back(&who, u64::from(gone));
        }
        self.release_if_unused(number);
    }

    fn release_if_unused(&mut self, number: u32) {
        let unused = self.provider(number).filter(|provider| provider.count == 0);
        let Some((peer, who)) = unused.map(|provider| (provider.peer, provider.who)) else { return };
        self.numbers.remove(&peer);
        self.count_provider(&who, false);
        if let Some(slot) = usize::try_from(number).ok().and_then(|at| self.providers.get_mut(at)) {
            *slot = None;
            self.free.push(number);
        }
    }

    /// Who provides a key, with the addresses known, at most 20: whom the user named and the good first, then of each origin one
    /// after another, and not the same each time where there are more.
    pub(super) fn providers_of(&self, key: &Key, now: Instant) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let head = Self::head(key);
        let seconds = self.seconds(now);
        let found = self.places.range((head, [0; 4])..=(head, [0xff; 4])).filter(|(_, expiry)| **expiry > seconds);
        let mut named: Vec<&Provider> =
            found.filter_map(|((_, number), _)| self.provider(u32::from_be_bytes(*number))).collect();
        let start = usize::try_from(rand::rngs::OsRng.next_u32()).unwrap_or(0).checked_rem(named.len()).unwrap_or(0);
        named.rotate_left(start);
        let mut turns: HashMap<Origin, usize> = HashMap::new();
        let mut ranked: Vec<(std::cmp::Reverse<Class>, usize, &Provider)> = named
            .into_iter()
            .map(|provider| {
                let turn = turns.entry(provider.who.origin).or_default();
                *turn += 1;
                (std::cmp::Reverse(provider.who.class), *turn, provider)
            })
            .collect();
        ranked.sort_by_key(|(class, turn, _)| (*class, *turn));
        let first = ranked.into_iter().take(PROVIDERS_PER_ANSWER_MAX);
        first.map(|(_, _, provider)| (provider.peer, provider.addresses.to_vec())).collect()
    }

    /// Drops the expired among the next few thousand records; called often, it goes round all of them.
    pub(super) fn expire(&mut self, now: Instant) {
        let seconds = self.seconds(now);
        let (mut expired, mut next) = (Vec::new(), None);
        for (seen, (place, expiry)) in self.places.range(self.cursor..).enumerate() {
            if seen == EXPIRE_STEP {
                next = Some(*place);
                break;
            }
            if *expiry <= seconds {
                expired.push(*place);
            }
        }
        self.cursor = next.unwrap_or(FIRST);
        for place in expired {
            self.places.remove(&place);
            self.uncount(u32::from_be_bytes(place.1), 1);
        }
    }
}

/// The records as the DHT's code sees them. The event loop's Kademlia and the adverts that arrive share them.
#[derive(Clone, Debug)]
pub(super) struct KadRecords {
    pub(super) local: PeerId,
    pub(super) records: Arc<Mutex<Records>>,
    pub(super) announced: Arc<Mutex<super::holdings::Announced>>,
}

/// Locks; a thread that panicked while holding the lock ends the program anyway.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RecordStore for KadRecords {
    type RecordsIter<'a> = std::iter::Empty<Cow<'a, Record>>;
    type ProvidedIter<'a> = std::iter::Empty<Cow<'a, ProviderRecord>>;

    fn get(&self, _: &RecordKey) -> Option<Cow<'_, Record>> {
        None
    }

    /// No values: the DHT of this swarm says who provides what, nothing else.
    fn put(&mut self, _: Record) -> StoreResult<()> {
        Err(StoreError::MaxRecords)
    }

    fn remove(&mut self, _: &RecordKey) {}

    fn records(&self) -> Self::RecordsIter<'_> {
        std::iter::empty()
    }

    /// Nothing: what others bring is taken where it is known who they are, see `dht` and `announce`.
    fn add_provider(&mut self, _: ProviderRecord) -> StoreResult<()> {
        Err(StoreError::MaxProvidedKeys)
    }

    fn providers(&self, key: &RecordKey) -> Vec<ProviderRecord> {
        let Ok(short) = Key::try_from(key.as_ref()) else { return Vec::new() };
        let mut found: Vec<ProviderRecord> = lock(&self.records)
            .providers_of(&short, Instant::now())
            .into_iter()
            .map(|(peer, addresses)| ProviderRecord::new(key.clone(), peer, addresses))
            .collect();
        if lock(&self.announced).contains(&short) {
            // Without addresses: libp2p fills in the local ones.
            found.insert(0, ProviderRecord::new(key.clone(), self.local, Vec::new()));
        }
        found
    }

    /// Nothing: our own keys are advertised by region, see `announce`, not one by one.
    fn provided(&self) -> Self::ProvidedIter<'_> {
        std::iter::empty()
    }

    fn remove_provider(&mut self, key: &RecordKey, provider: &PeerId) {
        if let Ok(key) = Key::try_from(key.as_ref()) {
            lock(&self.records).remove(provider, &[key]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> Key {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.wrapping_mul(2_654_435_761).to_be_bytes());
        bytes[4..8].copy_from_slice(&n.to_be_bytes());
        Key(bytes)
    }

    const STRANGER: Who = Who { class: Class::Stranger, ..Who::OWN };

    fn stranger(last: u8) -> Who {
        Who { class: Class::Stranger, origin: Origin::of([10, 0, 0, last].into()), peer: None }
    }

    /// B-tree leaves hold 11 entries, at least half full except while they are built in order; inner ones add under a tenth.
    #[test]
    fn a_record_takes_at_most_sixty_four_bytes() {
        let entry = size_of::<Place>() + size_of::<u32>();
        assert_eq!(entry, 24);
        let leaf = 11 * entry + 16;
        // Random insertion leaves nodes about 69 % full; 6 of 11 is the worst that splitting produces.
        assert!(leaf / 6 + leaf / 60 <= 64, "{} bytes a record at worst", leaf / 6 + leaf / 60);
    }

    #[test]
    fn one_provider_cannot_take_more_than_its_quota_nor_strangers_more_than_a_half() {
        let mut records = Records::new(300, 100);
        let (greedy, other, now) = (PeerId::random(), PeerId::random(), Instant::now());
        let keys: Vec<Key> = (0..500).map(key).collect();
        assert_eq!(records.add(greedy, stranger(1), &keys, &[], now), 100);
        assert_eq!(records.add(greedy, stranger(1), &keys[..100], &[], now), 100, "renewing is always possible");
        let shared = records.add(other, stranger(2), &keys, &[], now);
        assert!((70..=76).contains(&shared), "the half is full: the greedy one gives way, to an even share: {shared}");
        assert_eq!(records.len(), 150);
        assert_eq!(records.add(PeerId::random(), Who::OWN, &keys, &[], now), 100, "there is a half for others");
        assert_eq!(records.remove(&greedy, &keys) + records.remove(&other, &keys), 150);
        assert_eq!(records.len(), 100);
    }

    /// 21 identities of one machine filled two million records for 26 hours.
    #[test]
    fn a_table_full_of_one_machines_records_has_room_for_everybody_else() {
        let mut records = Records::new(20_000, 1000);
        let now = Instant::now();
        let many = |seed: u32, count: u32| -> Vec<Key> { (0..count).map(|n| key(seed * 100_000 + n)).collect() };
        for id in 0..20 {
            records.add(PeerId::random(), stranger(1), &many(id, 1000), &[], now);
        }
        assert!(records.len() <= 20_000 / 8 + 1000, "one origin holds {}", records.len());
        for neighbour in [stranger(2), stranger(1), Who::OWN] {
            let (peer, keys) = (PeerId::random(), many(50, 80));
            assert_eq!(records.add(peer, neighbour, &keys, &[], now), 80, "{neighbour:?}");
            assert!(keys.iter().all(|key| records.providers_of(key, now).iter().any(|(other, _)| *other == peer)));
        }
        let total = records.places.len() as u64;
        assert_eq!(records.shares.len(), total, "what gave way is not counted any more");
        let counts = records.providers.iter().flatten().map(|provider| u64::from(provider.count));
        let counted = tree::size::total(counts);
        assert_eq!(counted, total);
    }

    /// The twenty that came first were the answer for a day.
    #[test]
    fn a_key_is_not_won_by_who_comes_first() {
        let mut records = Records::new(100_000, 1000);
        let (now, wanted) = (Instant::now(), key(7));
        for _ in 0..500 {
            records.add(PeerId::random(), stranger(1), &[wanted], &[], now);
        }
        let (near, good, named) = (PeerId::random(), PeerId::random(), PeerId::random());
        records.add(near, stranger(2), &[wanted], &[], now);
        records.add(good, Who { class: Class::Good, ..stranger(1) }, &[key(8)], &[], now);
        records.add(named, Who { class: Class::Named, ..stranger(1) }, &[wanted], &[], now);
        for _ in 0..10 {
            let answer: Vec<PeerId> = records.providers_of(&wanted, now).into_iter().map(|(peer, _)| peer).collect();
            assert_eq!((answer.len(), answer.first()), (20, Some(&named)));
            assert!(answer[1..3].contains(&near), "one of each origin first");
        }
    }

    #[test]
    fn providers_of_one_origin_are_as_few_as_they_may_be() {
        let mut records = Records::new(100_000, 10);
        let now = Instant::now();
        for n in 0..PROVIDERS_PER_ORIGIN_MAX + 10 {
            records.add(PeerId::random(), stranger(1), &[key(n)], &[], now);
        }
        assert_eq!(records.numbers.len(), PROVIDERS_PER_ORIGIN_MAX as usize);
        assert_eq!(records.add(PeerId::random(), stranger(2), &[key(1)], &[], now), 1);
    }

    #[test]
    fn records_end_after_their_life_and_their_provider_with_them() {
        let mut records = Records::new(400_000, 100_000);
        let (peer, now) = (PeerId::random(), Instant::now());
        let keys: Vec<Key> = (0..40_000).map(key).collect();
        assert_eq!(records.add(peer, STRANGER, &keys, &[], now), 40_000);
        let late = now + RECORD_LIFE + Duration::from_secs(1);
        assert_eq!(records.providers_of(&keys[3], late), vec![]);
        records.add(peer, STRANGER, &keys[..1], &[], late);
        for _ in 0..3 {
            records.expire(late);
        }
        assert_eq!(records.len(), 1);
        assert_eq!(records.providers_of(&keys[0], late).len(), 1);
        assert_eq!(records.remove(&peer, &keys[..1]), 1);
        assert!(records.numbers.is_empty());
        assert_eq!(records.free.len(), records.providers.len());
    }

    #[test]
    fn providers_come_with_their_addresses_and_at_most_twenty() {
        let mut records = Records::new(1000, 1000);
        let now = Instant::now();
        let address: Multiaddr = "/ip4/127.0.0.1/tcp/4".parse().unwrap();
        for _ in 0..30 {
            records.add(PeerId::random(), STRANGER, &[key(1)], &vec![address.clone(); 9], now);
        }
        let found = records.providers_of(&key(1), now);
        assert_eq!(found.len(), 20);
        assert!(found.iter().all(|(_, addresses)| addresses.len() == ADDRESSES_MAX));
        assert!(records.providers_of(&key(2), now).is_empty());
    }

    #[test]
    fn a_number_used_again_does_not_inherit_records() {
        let mut records = Records::new(1000, 1000);
        let (first, second, now) = (PeerId::random(), PeerId::random(), Instant::now());
        records.add(first, STRANGER, &[key(1)], &[], now);
        records.remove(&first, &[key(1)]);
        records.add(second, STRANGER, &[key(2)], &[], now);
        assert!(records.providers_of(&key(1), now).is_empty());
        assert_eq!(records.providers_of(&key(2), now)[0].0, second);
    }
}
