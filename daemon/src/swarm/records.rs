//! The provider records this machine keeps for the DHT, in tens of bytes each.
//!
//! libp2p's own store takes nearly 4 KB a record and refuses the 1025th key (measured). Here a record is the first
//! 16 bytes of a key, the number of a provider and a time, in one B-tree; who the providers are stands in a table of its own.
//! Records are only pointers: a wrong one costs a question in vain.

use super::wire::{KEY_BYTES, Key};
use libp2p::kad::store::{Error as StoreError, RecordStore, Result as StoreResult};
use libp2p::kad::{ProviderRecord, Record, RecordKey};
use libp2p::{Multiaddr, PeerId};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a record lives without being told again: two announcements of 12 h and some delay.
pub(super) const RECORD_LIFE: Duration = Duration::from_secs(26 * 3600);
/// Bytes of a key that are kept; two keys that share them are taken for one another.
const HEAD_BYTES: usize = 16;
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

/// The records, bounded in total and for each provider.
#[derive(Debug)]
pub(super) struct Records {
    started: Instant,
    total_max: usize,
    per_provider_max: u32,
    /// Values are expiry times in seconds since `started`.
    places: BTreeMap<Place, u32>,
    providers: Vec<Option<Provider>>,
    free: Vec<u32>,
    numbers: HashMap<PeerId, u32>,
    cursor: Place,
}

#[derive(Debug)]
struct Provider {
    peer: PeerId,
    addresses: Box<[Multiaddr]>,
    count: u32,
}

impl Records {
    pub(super) fn new(total_max: usize, per_provider_max: u32) -> Self {
        Self {
            started: Instant::now(),
            total_max,
            per_provider_max,
            places: BTreeMap::new(),
            providers: Vec::new(),
            free: Vec::new(),
            numbers: HashMap::new(),
            cursor: ([0; HEAD_BYTES], [0; 4]),
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

    fn number(&mut self, peer: PeerId) -> Option<u32> {
        if let Some(number) = self.numbers.get(&peer) {
            return Some(*number);
        }
        let provider = Some(Provider { peer, addresses: Box::default(), count: 0 });
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
        Some(number)
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
    pub(super) fn add(&mut self, peer: PeerId, keys: &[Key], addresses: &[Multiaddr], now: Instant) -> u32 {
        let Some(number) = self.number(peer) else { return 0 };
        let expiry = self.seconds(now + RECORD_LIFE);
        let mut count = self.provider(number).map_or(0, |provider| provider.count);
        let mut taken = 0;
        for key in keys {
            let place = (Self::head(key), number.to_be_bytes());
            if let Some(old) = self.places.get_mut(&place) {
                *old = expiry;
            } else if count < self.per_provider_max && self.places.len() < self.total_max {
                self.places.insert(place, expiry);
                count += 1;
            } else {
                continue;
            }
            taken += 1;
        }
        if let Some(provider) = self.provider_mut(number) {
            provider.count = count;
        }
        self.set_addresses(&peer, addresses);
        self.release_if_unused(number);
        taken
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
        }
        self.release_if_unused(number);
    }

    fn release_if_unused(&mut self, number: u32) {
        let Some(peer) = self.provider(number).filter(|provider| provider.count == 0).map(|provider| provider.peer)
        else {
            return;
        };
        self.numbers.remove(&peer);
        if let Some(slot) = usize::try_from(number).ok().and_then(|at| self.providers.get_mut(at)) {
            *slot = None;
            self.free.push(number);
        }
    }

    /// Who provides a key, with the addresses known, at most 20.
    pub(super) fn providers_of(&self, key: &Key, now: Instant) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let head = Self::head(key);
        let seconds = self.seconds(now);
        let found = self.places.range((head, [0; 4])..=(head, [0xff; 4])).filter(|(_, expiry)| **expiry > seconds);
        let named = found.filter_map(|((_, number), _)| self.provider(u32::from_be_bytes(*number)));
        named.take(PROVIDERS_PER_ANSWER_MAX).map(|provider| (provider.peer, provider.addresses.to_vec())).collect()
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
        self.cursor = next.unwrap_or(([0; HEAD_BYTES], [0; 4]));
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

    fn add_provider(&mut self, record: ProviderRecord) -> StoreResult<()> {
        let key = Key::try_from(record.key.as_ref()).map_err(|_| StoreError::ValueTooLarge)?;
        match lock(&self.records).add(record.provider, &[key], &record.addresses, Instant::now()) {
            0 => Err(StoreError::MaxProvidedKeys),
            _ => Ok(()),
        }
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

/// Whether a DHT key can be one of ours.
pub(super) fn is_key(key: &RecordKey) -> bool {
    key.as_ref().len() == KEY_BYTES
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
    fn one_provider_cannot_take_more_than_its_quota_nor_all_more_than_the_total() {
        let mut records = Records::new(150, 100);
        let (greedy, other, now) = (PeerId::random(), PeerId::random(), Instant::now());
        let keys: Vec<Key> = (0..500).map(key).collect();
        assert_eq!(records.add(greedy, &keys, &[], now), 100);
        assert_eq!(records.add(other, &keys, &[], now), 50);
        assert_eq!(records.len(), 150);
        assert_eq!(records.add(greedy, &keys[..100], &[], now), 100, "renewing is always possible");
        assert_eq!(records.remove(&greedy, &keys), 100);
        assert_eq!(records.add(other, &keys[50..150], &[], now), 50 + 50 - 50);
    }

    #[test]
    fn records_end_after_their_life_and_their_provider_with_them() {
        let mut records = Records::new(100_000, 100_000);
        let (peer, now) = (PeerId::random(), Instant::now());
        let keys: Vec<Key> = (0..40_000).map(key).collect();
        assert_eq!(records.add(peer, &keys, &[], now), 40_000);
        let late = now + RECORD_LIFE + Duration::from_secs(1);
        assert_eq!(records.providers_of(&keys[3], late), vec![]);
        records.add(peer, &keys[..1], &[], late);
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
            records.add(PeerId::random(), &[key(1)], &vec![address.clone(); 9], now);
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
        records.add(first, &[key(1)], &[], now);
        records.remove(&first, &[key(1)]);
        records.add(second, &[key(2)], &[], now);
        assert!(records.providers_of(&key(1), now).is_empty());
        assert_eq!(records.providers_of(&key(2), now)[0].0, second);
    }
}
