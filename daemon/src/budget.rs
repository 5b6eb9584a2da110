//! Shares everything that strangers could use up: transfers, uploads, connections, streams, answers and records are counted by who holds them.
//!
//! Identities cost nothing, so nobody is counted by identity alone: first by [`Class`], of which each has places that no lower
//! one can take, then by [`Origin`], then by identity. Where something is full, who holds most gives way to who holds less
//! ([`Shares::ask`]); [`Places`] does that for things that are held for a while.

mod rates;

pub use rates::Rates;

use libp2p::PeerId;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What somebody is to this machine, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Anybody.
    Stranger,
    /// Brought bytes that were right.
    Good,
    /// The user named it: a member of a group, a listed peer, this machine's own clients.
    Named,
}

/// Where somebody comes from, so far as it costs something to come from elsewhere: an IPv4 network of 256 addresses, or a single
/// address of a private one, in which the honest are neighbours of the others; an IPv6 network of 64 bits, in which a machine
/// chooses the rest itself (RFC 4862), as it does all but the first 10 of a link-local one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin(Option<IpAddr>);

impl Origin {
    /// Of this address.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        Self(Some(match ip {
            IpAddr::V4(ip) if ip.is_private() || ip.is_loopback() || ip.is_link_local() => ip.into(),
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                IpAddr::from([a, b, c, 0])
            }
            IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
                Some(ip) => return Self::of(ip.into()),
                None if ip.is_loopback() => ip.into(),
                None => {
                    let bits = if ip.is_unicast_link_local() { 10 } else { 64 };
                    Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << (128 - bits))).into()
                }
            },
        }))
    }
}

/// Who asks for a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Who {
    /// What it is to this machine.
    pub class: Class,
    /// Where it comes from.
    pub origin: Origin,
    /// Its identity, where it has one.
    pub peer: Option<PeerId>,
}

impl Who {
    /// This machine's own user, or what is done for it.
    pub const OWN: Self = Self { class: Class::Named, origin: Origin(None), peer: None };

    /// Nobody in particular, of this class.
    #[must_use]
    pub fn any(class: Class) -> Self {
        Self { class, ..Self::OWN }
    }
}

/// How much there is, and how much of it for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// In all.
    pub all: u64,
    /// For strangers and the good together: what is above is for those whom the user named.
    pub unnamed: u64,
    /// For strangers.
    pub strangers: u64,
    /// For the strangers of one origin.
    pub origin: u64,
    /// For one identity that is a stranger.
    pub identity: u64,
}

impl Limits {
    /// The usual parts: a half for strangers, of which one origin may have three quarters, and a quarter that only the named can have.
    #[must_use]
    pub const fn of(all: u64) -> Self {
        Self { all, unnamed: part(all, 6), strangers: part(all, 4), origin: part(all, 3), identity: part(all, 2) }
    }
}

/// So many eighths, and at least one.
const fn part(all: u64, eighths: u64) -> u64 {
    let part = all / 8 * eighths + all % 8 * eighths / 8;
    if part == 0 { 1 } else { part }
}

/// What comes of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// There is room.
    Free,
    /// There is, once one of these has given up one of its own.
    Instead(Who),
    /// There is none: nobody who may be made to give way has more than who asks.
    Full,
}

/// What somebody has more than who asks: the greater, the sooner it gives way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Excess {
    /// It is of a lower class.
    lower: bool,
    /// All that its origin has.
    origin: u64,
    /// All that it has.
    identity: u64,
    /// How many it gives up before both have as many.
    pub gives_way: u64,
}

#[derive(Debug, Default)]
struct Count {
    all: u64,
    of: HashMap<Option<PeerId>, u64>,
}

#[derive(Debug, Default)]
struct ClassCount {
    all: u64,
    of: HashMap<Origin, Count>,
}

/// Who holds how many. Only counts: what is held stands elsewhere.
#[derive(Debug)]
pub struct Shares {
    limits: Limits,
    held: BTreeMap<Class, ClassCount>,
}

impl Shares {
    /// Nothing held.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, held: BTreeMap::new() }
    }

    /// How many are held.
    #[must_use]
    pub fn len(&self) -> u64 {
        tree::size::total(self.held.values().map(|class| class.all))
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn of_class(&self, class: Class) -> u64 {
        self.held.get(&class).map_or(0, |held| held.all)
    }

    /// How many this origin holds, in its class.
    #[must_use]
    pub fn of_origin(&self, who: &Who) -> u64 {
        self.count(who).map_or(0, |count| count.all)
    }

    /// How many this very one holds.
    #[must_use]
    pub fn of_identity(&self, who: &Who) -> u64 {
        self.count(who).and_then(|count| count.of.get(&who.peer)).copied().unwrap_or(0)
    }

    fn count(&self, who: &Who) -> Option<&Count> {
        self.held.get(&who.class)?.of.get(&who.origin)
    }

    /// How many more of a countable thing this one may have now without anybody's giving way.
    #[must_use]
    pub fn room(&self, who: &Who) -> u64 {
        let limits = &self.limits;
        let mut room = limits.all.saturating_sub(self.len());
        if who.class < Class::Named {
            let unnamed = self.of_class(Class::Stranger).saturating_add(self.of_class(Class::Good));
            room = room.min(limits.unnamed.saturating_sub(unnamed));
        }
        if who.class == Class::Stranger {
            room = room.min(limits.strangers.saturating_sub(self.of_class(Class::Stranger)));
            room = room.min(limits.origin.saturating_sub(self.of_origin(who)));
            if who.peer.is_some() {
                room = room.min(limits.identity.saturating_sub(self.of_identity(who)));
            }
        }
        room
    }

    /// Whether this one may have one more.
    #[must_use]
    pub fn ask(&self, who: &Who) -> Answer {
        if self.room(who) > 0 {
            return Answer::Free;
        }
        let limits = &self.limits;
        if who.class == Class::Stranger && who.peer.is_some() && self.of_identity(who) >= limits.identity {
            return Answer::Full;
        }
        let origin_full = who.class == Class::Stranger && self.of_origin(who) >= limits.origin;
        let gives_way = if origin_full { self.neighbour(who) } else { self.lower(who).or_else(|| self.equal(who)) };
        gives_way.map_or(Answer::Full, Answer::Instead)
    }

    /// Whether one less of `other`, who is of no higher class, would be room for `who`, where there is none.
    fn would_help(&self, who: &Who, other: &Who) -> bool {
        if who.class == Class::Stranger {
            if who.peer.is_some() && self.of_identity(who) >= self.limits.identity {
                return other == who;
            }
            if self.of_origin(who) >= self.limits.origin {
                return (other.class, other.origin) == (who.class, who.origin);
            }
        }
        other.class <= who.class
    }

    /// Who holds most of a lower class.
    fn lower(&self, who: &Who) -> Option<Who> {
        self.held.range(..who.class).find_map(|(class, held)| largest(*class, held))
    }

    /// Who holds most of the same class, if it would still hold no less than who asks: of the origin that holds most, or of the own.
    fn equal(&self, who: &Who) -> Option<Who> {
        let held = self.held.get(&who.class)?;
        let (origin, most) = held.of.iter().max_by_key(|(_, count)| count.all)?;
        if most.all >= self.of_origin(who).saturating_add(2) && *origin != who.origin {
            return largest(who.class, held);
        }
        self.neighbour(who)
    }

    /// Who holds most of the same origin, if it would still hold no less than who asks.
    fn neighbour(&self, who: &Who) -> Option<Who> {
        let (peer, most) = self.count(who)?.of.iter().max_by_key(|(_, count)| **count)?;
        (*most >= self.of_identity(who).saturating_add(2)).then_some(Who { peer: *peer, ..*who })
    }

    /// How much more `other` has than `who`, where what it gives up would be room for who asks; None where it need not give way.
    #[must_use]
    pub fn excess(&self, who: &Who, other: &Who) -> Option<Excess> {
        if !self.would_help(who, other) {
            return None;
        }
        let lower = other.class < who.class;
        let (origin, identity) = (self.of_origin(other), self.of_identity(other));
        let gives_way = match (other.class, other.origin) == (who.class, who.origin) {
            _ if lower => identity,
            true => identity.saturating_sub(self.of_identity(who)) / 2,
            false => (origin.saturating_sub(self.of_origin(who)) / 2).min(identity),
        };
        (gives_way > 0).then_some(Excess { lower, origin, identity, gives_way })
    }

    /// Counts so many more.
    pub fn take(&mut self, who: &Who, many: u64) {
        let class = self.held.entry(who.class).or_default();
        class.all = class.all.saturating_add(many);
        let origin = class.of.entry(who.origin).or_default();
        origin.all = origin.all.saturating_add(many);
        let own = origin.of.entry(who.peer).or_default();
        *own = own.saturating_add(many);
    }

    /// Counts so many less.
    pub fn give_back(&mut self, who: &Who, many: u64) {
        let Some(class) = self.held.get_mut(&who.class) else { return };
        let Some(origin) = class.of.get_mut(&who.origin) else { return };
        let Some(own) = origin.of.get_mut(&who.peer) else { return };
        let many = many.min(*own);
        *own -= many;
        if *own == 0 {
            origin.of.remove(&who.peer);
        }
        origin.all = origin.all.saturating_sub(many);
        if origin.of.is_empty() {
            class.of.remove(&who.origin);
        }
        class.all = class.all.saturating_sub(many);
    }
}

/// The identity that holds most, of the origin that does.
fn largest(class: Class, held: &ClassCount) -> Option<Who> {
    let (origin, count) = held.of.iter().max_by_key(|(_, count)| count.all)?;
    let (peer, _) = count.of.iter().max_by_key(|(_, count)| **count)?;
    Some(Who { class, origin: *origin, peer: *peer })
}

/// Milliseconds that mean "it waits for us": such a place is never idle.
const OURS: u64 = u64::MAX;

#[derive(Debug)]
struct Seat {
    ended: CancellationToken,
    /// When its holder last did something, in milliseconds since the places were made; or [`OURS`].
    moved_ms: AtomicU64,
}

struct Waiter {
    who: Who,
    seated: oneshot::Sender<Place>,
}

struct Held {
    shares: Shares,
    seats: BTreeMap<u64, (Who, Arc<Seat>)>,
    waiting: VecDeque<Waiter>,
    next: u64,
}

/// Places that are held for a while. Clones are the same places.
#[derive(Clone)]
pub struct Places {
    held: Arc<Mutex<Held>>,
    since: Instant,
    /// A place that was not used for so long goes to whoever asks, unless its holder is of a higher class.
    idle_max: Duration,
}

/// A place, given back when dropped.
#[must_use = "dropping it gives it back"]
pub struct Place {
    places: Places,
    number: u64,
    seat: Arc<Seat>,
}

impl Places {
    /// Nobody holds one.
    #[must_use]
    pub fn new(limits: Limits, idle_max: Duration) -> Self {
        let held = Held { shares: Shares::new(limits), seats: BTreeMap::new(), waiting: VecDeque::new(), next: 0 };
        Self { held: Arc::new(Mutex::new(held)), since: Instant::now(), idle_max }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(OURS - 1)
    }

    /// How many are held.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.lock().shares.len()
    }

    /// Whether nobody holds one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A place if one is free.
    #[must_use]
    pub fn enter(&self, who: Who) -> Option<Place> {
        let mut held = self.lock();
        (held.shares.room(&who) > 0).then(|| self.seat(&mut held, who))
    }

    /// A place if one is free, or can be had from who holds more, or holds one in idleness: that one's place ends
    /// ([`Place::ended`]).
    #[must_use]
    pub fn enter_or_push(&self, who: Who) -> Option<Place> {
        let mut held = self.lock();
        let gone = match held.shares.ask(&who) {
            Answer::Free => None,
            Answer::Instead(victim) => Some(held.idlest(|other| *other == victim)?),
            Answer::Full => Some(self.idle_for(&held, &who)?),
        };
        if let Some(number) = gone {
            held.end(number);
        }
        Some(self.seat(&mut held, who))
    }

    /// The place that was idle for longest, of those whose end would make room.
    fn idle_for(&self, held: &Held, who: &Who) -> Option<u64> {
        let number = held.idlest(|other| held.shares.would_help(who, other))?;
        let moved = held.seats.get(&number)?.1.moved_ms.load(Ordering::Relaxed);
        let idle = Duration::from_millis(self.now_ms().saturating_sub(moved));
        (moved != OURS && idle >= self.idle_max).then_some(number)
    }

    /// A place as soon as there is one. Who came first is first, except that a class that has none does not keep others waiting.
    ///
    /// Cancel safe: yes.
    pub async fn enter_when_free(&self, who: Who) -> Place {
        let seated = {
            let mut held = self.lock();
            if held.shares.room(&who) > 0 {
                return self.seat(&mut held, who);
            }
            let (seated, place) = oneshot::channel();
            held.waiting.push_back(Waiter { who, seated });
            place
        };
        match seated.await {
            Ok(place) => place,
            // The queue lives as long as the places; written out only because the type says so.
            Err(_gone) => std::future::pending().await,
        }
    }

    fn seat(&self, held: &mut Held, who: Who) -> Place {
        let (number, seat) = held.sit(who, self.now_ms());
        Place { places: self.clone(), number, seat }
    }

    /// Seats those who wait and now can be; what could not be handed over is dropped by the caller, outside the lock.
    fn seat_waiting(&self) {
        loop {
            let unheard = {
                let mut held = self.lock();
                held.waiting.retain(|waiter| !waiter.seated.is_closed());
                let can = |waiter: &Waiter| held.shares.room(&waiter.who) > 0;
                let Some(at) = held.waiting.iter().position(can) else { return };
                let Some(waiter) = held.waiting.remove(at) else { return };
                let place = self.seat(&mut held, waiter.who);
                waiter.seated.send(place)
            };
            drop(unheard);
        }
    }
}

impl Held {
    fn sit(&mut self, who: Who, now_ms: u64) -> (u64, Arc<Seat>) {
        self.shares.take(&who, 1);
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        let seat = Arc::new(Seat { ended: CancellationToken::new(), moved_ms: AtomicU64::new(now_ms) });
        self.seats.insert(number, (who, Arc::clone(&seat)));
        (number, seat)
    }

    fn idlest(&self, of: impl Fn(&Who) -> bool) -> Option<u64> {
        let those = self.seats.iter().filter(|(_, (who, _))| of(who));
        those.min_by_key(|(_, (_, seat))| seat.moved_ms.load(Ordering::Relaxed)).map(|(number, _)| *number)
    }

    fn end(&mut self, number: u64) -> bool {
        let Some((who, seat)) = self.seats.remove(&number) else { return false };
        self.shares.give_back(&who, 1);
        seat.ended.cancel();
        true
    }
}

impl Place {
    /// Resolves when somebody else has got it: what was done in it must end.
    ///
    /// Cancel safe: yes.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        self.seat.ended.clone().cancelled_owned()
    }

    /// Whether somebody else has got it.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.seat.ended.is_cancelled()
    }

    /// Its holder did something.
    pub fn moved(&self) {
        self.seat.moved_ms.store(self.places.now_ms(), Ordering::Relaxed);
    }

    /// Its holder waits for this machine: it is not idle, whatever it does.
    pub fn is_ours(&self) {
        self.seat.moved_ms.store(OURS, Ordering::Relaxed);
    }

    /// Counts for somebody else from now on, if there is room for that one.
    #[must_use]
    pub fn becomes(&self, who: Who) -> bool {
        let changed = {
            let mut held = self.places.lock();
            let Some((was, seat)) = held.seats.remove(&self.number) else { return false };
            held.shares.give_back(&was, 1);
            let can = held.shares.room(&who) > 0;
            let now = if can { who } else { was };
            held.shares.take(&now, 1);
            held.seats.insert(self.number, (now, seat));
            can
        };
        self.places.seat_waiting();
        changed
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let was_held = self.places.lock().end(self.number);
        if was_held {
            self.places.seat_waiting();
        }
    }
}

impl std::fmt::Debug for Places {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Places({} held)", self.len())
    }
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Place({})", self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    const LIMITS: Limits = Limits { all: 64, unnamed: 48, strangers: 32, origin: 16, identity: 8 };

    fn who(class: Class, address: [u8; 4]) -> Who {
        Who { class, origin: Origin::of(address.into()), peer: Some(PeerId::random()) }
    }

    fn stranger(last: u8) -> Who {
        who(Class::Stranger, [10, 0, 0, last])
    }

    fn places() -> Places {
        Places::new(LIMITS, Duration::from_secs(10))
    }

    /// Takes all it can with one identity after another, each of which asks until it is refused.
    fn fill(places: &Places, mut next: impl FnMut() -> Who) -> Vec<Place> {
        let mut held = Vec::new();
        for who in std::iter::repeat_with(&mut next).take(500) {
            held.extend((0..100).map_while(|_| places.enter_or_push(who)));
        }
        held
    }

    #[test]
    fn networks_are_counted_where_addresses_cost_nothing_and_neighbours_apart() {
        let origin = |text: &str| Origin::of(text.parse().unwrap());
        for (one, other) in [
            ("192.0.2.1", "192.0.2.254"),
            ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2"),
            ("fe80::1", "fe80:0:0:abcd::1"),
            ("::ffff:192.0.2.9", "192.0.2.7"),
        ] {
            assert_eq!(origin(one), origin(other), "{one} {other}");
        }
        for (one, other) in [
            ("192.0.2.1", "192.0.3.1"),
            ("10.0.0.1", "10.0.0.2"),
            ("127.0.0.1", "127.0.0.2"),
            ("2001:db8:0:1::1", "2001:db8:0:2::1"),
            ("::1", "::2"),
        ] {
            assert_ne!(origin(one), origin(other), "{one} {other}");
        }
    }

    /// Every budget has these rules: a house full of strangers, by few and by many addresses, busy or idle, and whoever else comes.
    #[test]
    fn whoever_comes_to_a_house_full_of_strangers_gets_a_place() {
        for addresses in [1, 2, 4, 50] {
            let places = places();
            let mut n = 0_u8;
            let mut crowd = fill(&places, || {
                n = n.wrapping_add(1);
                stranger(n % addresses)
            });
            assert!(places.len() <= LIMITS.strangers, "{addresses}: {}", places.len());
            for class in [Class::Good, Class::Named] {
                let kept: Vec<_> = (0..8).map(|_| places.enter_or_push(who(class, [10, 0, 0, 1]))).collect();
                assert!(kept.iter().all(Option::is_some), "{class:?} beside {addresses} addresses");
                crowd.extend(kept.into_iter().flatten());
            }
            // With more addresses than places nobody of them has more than the one that comes: only idleness helps then.
            assert_eq!(places.enter_or_push(stranger(200)).is_some(), addresses < 50, "beside {addresses} addresses");
        }
    }

    #[test]
    fn the_named_get_all_there_is_and_strangers_nothing_that_is_kept_for_them() {
        let places = places();
        let mut n = 0_u8;
        let mut next = || {
            n = n.wrapping_add(1);
            n
        };
        let strangers = fill(&places, || stranger(next()));
        let good = fill(&places, || who(Class::Good, [192, 0, 2, next()]));
        assert_eq!(places.len(), LIMITS.unnamed);
        let named: Vec<_> = (0..100).map_while(|_| places.enter_or_push(who(Class::Named, [10, 0, 0, 1]))).collect();
        assert!(named.len() >= 64, "{}", named.len());
        drop((strangers, good));
        assert!(places.len() <= LIMITS.all);
        assert!(places.enter(stranger(1)).is_none(), "the house is full of those whom the user named");
    }

    #[test]
    fn who_holds_most_gives_way_to_who_holds_nothing_and_not_the_other_way() {
        let places = places();
        let (greedy, other) = (stranger(1), Who { peer: Some(PeerId::random()), ..stranger(1) });
        let held: Vec<_> = (0..8).filter_map(|_| places.enter_or_push(greedy)).collect();
        let more: Vec<_> = (0..8).filter_map(|_| places.enter_or_push(other)).collect();
        assert_eq!((held.len(), more.len()), (8, 8));
        let third = Who { peer: Some(PeerId::random()), ..greedy };
        let newcomer = places.enter_or_push(third).unwrap();
        let ended = held.iter().chain(&more).filter(|place| place.ended().now_or_never().is_some()).count();
        assert_eq!(ended, 1, "one of the sixteen gave way");
        assert!(newcomer.ended().now_or_never().is_none());
        assert!(places.enter_or_push(greedy).is_none() || places.enter_or_push(other).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn idle_places_go_to_whoever_asks_and_those_that_wait_for_us_do_not() {
        let places = Places::new(Limits::of(8), Duration::from_secs(10));
        let crowd: Vec<_> = (0..8).filter_map(|n| places.enter_or_push(stranger(n))).collect();
        assert_eq!(crowd.len(), 4);
        assert!(places.enter_or_push(stranger(9)).is_none());
        crowd[0].is_ours();
        tokio::time::advance(Duration::from_secs(11)).await;
        crowd[1].moved();
        let in_time: Vec<_> = (20..24).filter_map(|n| places.enter_or_push(stranger(n))).collect();
        assert_eq!(in_time.len(), 2, "two were idle");
        let ended: Vec<_> = crowd.iter().map(|place| place.ended().now_or_never().is_some()).collect();
        assert_eq!(ended, [false, false, true, true]);
    }

    #[tokio::test]
    async fn who_waits_is_seated_when_there_is_room_and_passes_those_whose_class_has_none() {
        let places = Places::new(Limits { all: 2, unnamed: 1, strangers: 1, origin: 1, identity: 1 }, Duration::MAX);
        let (one, two) = (places.enter(Who::any(Class::Stranger)).unwrap(), places.enter(Who::OWN).unwrap());
        let mut strange = Box::pin(places.enter_when_free(Who::any(Class::Stranger)));
        let mut own = Box::pin(places.enter_when_free(Who::OWN));
        assert!((&mut strange).now_or_never().is_none() && (&mut own).now_or_never().is_none());
        drop(two);
        let own = own.now_or_never().expect("a place for this machine");
        assert!((&mut strange).now_or_never().is_none());
        assert!(!own.becomes(Who::any(Class::Stranger)), "that class has none left");
        drop(one);
        let strange = strange.now_or_never().expect("a place for strangers");
        assert!(strange.becomes(Who::OWN) && own.becomes(Who::any(Class::Stranger)));
        drop((own, strange));
        assert!(places.is_empty());
    }

    #[test]
    fn counts_come_back_to_nothing() {
        let mut shares = Shares::new(LIMITS);
        let all: Vec<Who> = (0..40).map(stranger).collect();
        for (n, who) in all.iter().enumerate() {
            shares.take(who, n as u64);
        }
        assert_eq!(shares.len(), tree::size::total(0..40));
        for who in &all {
            shares.give_back(who, u64::MAX);
        }
        assert!(shares.is_empty() && shares.held.values().all(|class| class.of.is_empty()));
    }
}
