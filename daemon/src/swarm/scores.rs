//! Who behaved how: a local score for each peer, and bans that grow with repetition. Nothing of this is told to others.

use libp2p::PeerId;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Peers remembered; the least interesting is forgotten for a new one. About 150 bytes each.
const REMEMBERED_MAX: usize = 4096;
/// Points at which a peer is banned.
const POINTS_BAN: u32 = 100;
/// More points than these are not counted, so that a peer that is never banned can be forgiven within a day.
const POINTS_MAX: u32 = 10_000;
/// Points fall by half in this time, so that an old hiccup is forgiven.
const POINTS_HALF_LIFE: Duration = Duration::from_secs(600);
/// The first ban; each further one is twice as long.
const BAN_FIRST: Duration = Duration::from_secs(600);
/// No ban is longer.
const BAN_MAX: Duration = Duration::from_secs(24 * 3600);
/// Good deeds count up to here, so that a long friendship cannot outweigh a lie.
const GOOD_MAX: u32 = 50;

/// What a peer did wrong, or not well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Offence {
    /// It sent bytes that do not match the digest: a ban at once.
    WrongBytes,
    /// It fell silent in the middle of a body.
    Stalled,
    /// What it said was no message of ours, or it ended a body before the size it had said.
    Broken,
    /// It sent less than others would.
    Slow,
    /// It would not serve, or not now.
    Refused,
    /// It did not answer in time, or the connection to it ended.
    Failing,
}

impl Offence {
    fn points(self) -> u32 {
        match self {
            Self::WrongBytes => POINTS_BAN,
            Self::Stalled => 20,
            Self::Broken => 10,
            Self::Slow | Self::Failing => 5,
            Self::Refused => 2,
        }
    }

    /// Whether it shows that the peer means ill or is broken, and leads to a ban. What may as well be the network's doing, or what
    /// another said of the peer, only lowers its rank.
    #[must_use]
    pub fn is_proven(self) -> bool {
        match self {
            Self::WrongBytes | Self::Stalled | Self::Broken => true,
            Self::Slow | Self::Refused | Self::Failing => false,
        }
    }
}

/// Bytes exchanged with one peer since this program started.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    served: AtomicU64,
    received: AtomicU64,
}

impl Traffic {
    pub(super) fn add_served(&self, bytes: usize) {
        self.served.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn add_received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct Entry {
    /// Of proven offences.
    points: u32,
    /// Of all the others.
    demerits: u32,
    points_at: Instant,
    good: u32,
    bans: u32,
    banned_until: Option<Instant>,
    blamed: u32,
    traffic: Arc<Traffic>,
}

impl Entry {
    fn new(now: Instant) -> Self {
        Self {
            points: 0,
            demerits: 0,
            points_at: now,
            good: 0,
            bans: 0,
            banned_until: None,
            blamed: 0,
            traffic: Arc::new(Traffic::default()),
        }
    }

    /// What is left of points by now.
    fn left(&self, points: u32, now: Instant) -> u32 {
        let halvings = now.saturating_duration_since(self.points_at).as_secs() / POINTS_HALF_LIFE.as_secs();
        u32::try_from(halvings).ok().and_then(|n| points.checked_shr(n)).unwrap_or(0)
    }

    /// All points by now, proven or not.
    fn points_now(&self, now: Instant) -> u32 {
        self.left(self.points, now).saturating_add(self.left(self.demerits, now))
    }

    fn is_banned(&self, now: Instant) -> bool {
        self.banned_until.is_some_and(|until| now < until)
    }
}

/// The memory of how peers behaved.
#[derive(Debug, Default)]
pub(super) struct Scores {
    entries: HashMap<PeerId, Entry>,
}

impl Scores {
    fn entry(&mut self, peer: PeerId, now: Instant) -> &mut Entry {
        if self.entries.len() >= REMEMBERED_MAX && !self.entries.contains_key(&peer) {
            self.forget_one(now);
        }
        self.entries.entry(peer).or_insert_with(|| Entry::new(now))
    }

    /// Makes room: those in good standing go before the banned, and of those the ones whose ban ends first.
    fn forget_one(&mut self, now: Instant) {
        let least = self.entries.iter().min_by_key(|(_, entry)| {
            (entry.is_banned(now), entry.bans, entry.banned_until, entry.points_now(now), entry.good)
        });
        if let Some(peer) = least.map(|(peer, _)| *peer) {
            self.entries.remove(&peer);
        }
    }

    /// Remembers an offence. True when the peer is banned by it (now, if it was not before), which `may_ban` allows.
    pub(super) fn blame(&mut self, peer: PeerId, offence: Offence, may_ban: bool, now: Instant) -> bool {
        let entry = self.entry(peer, now);
        (entry.points, entry.demerits) = (entry.left(entry.points, now), entry.left(entry.demerits, now));
        let kind = if offence.is_proven() { &mut entry.points } else { &mut entry.demerits };
        *kind = kind.saturating_add(offence.points()).min(POINTS_MAX);
        entry.points_at = now;
        entry.blamed = entry.blamed.saturating_add(u32::from(offence.is_proven()));
        if offence == Offence::WrongBytes {
            entry.good = 0;
        }
        if entry.points < POINTS_BAN || entry.is_banned(now) || !may_ban {
            return false;
        }
        let factor = 1_u32.checked_shl(entry.bans).unwrap_or(u32::MAX);
        entry.banned_until = Some(now + BAN_FIRST.saturating_mul(factor).min(BAN_MAX));
        entry.bans = entry.bans.saturating_add(1).min(16);
        entry.points = 0;
        entry.good = 0;
        true
    }

    /// Remembers bytes that were what the digest says.
    pub(super) fn praise(&mut self, peer: PeerId, now: Instant) {
        let entry = self.entry(peer, now);
        entry.good = entry.good.saturating_add(1).min(GOOD_MAX);
    }

    /// Whether the peer brought bytes that were right, and none that were wrong since.
    pub(super) fn is_good(&self, peer: &PeerId) -> bool {
        self.entries.get(peer).is_some_and(|entry| entry.good > 0)
    }

    pub(super) fn is_banned(&self, peer: &PeerId, now: Instant) -> bool {
        self.entries.get(peer).is_some_and(|entry| entry.is_banned(now))
    }

    /// Higher is better; 0 for a stranger.
    pub(super) fn score(&self, peer: &PeerId, now: Instant) -> i64 {
        self.entries.get(peer).map_or(0, |entry| i64::from(entry.good) - i64::from(entry.points_now(now)))
    }

    /// How often the peer was blamed.
    pub(super) fn blamed(&self, peer: &PeerId) -> u32 {
        self.entries.get(peer).map_or(0, |entry| entry.blamed)
    }

    pub(super) fn traffic(&mut self, peer: PeerId, now: Instant) -> Arc<Traffic> {
        Arc::clone(&self.entry(peer, now).traffic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_bytes_ban_at_once_and_longer_each_time_up_to_a_day() {
        let (mut scores, peer, mut now) = (Scores::default(), PeerId::random(), Instant::now());
        let mut last = Duration::ZERO;
        for _ in 0..12 {
            assert!(scores.blame(peer, Offence::WrongBytes, true, now));
            let mut banned = Duration::ZERO;
            while scores.is_banned(&peer, now) {
                now += BAN_FIRST;
                banned += BAN_FIRST;
            }
            assert!(banned >= last && banned <= BAN_MAX);
            last = banned;
        }
        assert_eq!(last, BAN_MAX);
    }

    #[test]
    fn a_hiccup_is_forgiven_but_a_series_is_not() {
        let (mut scores, peer, now) = (Scores::default(), PeerId::random(), Instant::now());
        assert!(!scores.blame(peer, Offence::Stalled, true, now));
        assert_eq!(scores.score(&peer, now), -20);
        assert_eq!(scores.score(&peer, now + POINTS_HALF_LIFE), -10);
        assert_eq!(scores.score(&peer, now + POINTS_HALF_LIFE * 40), 0);
        let banned = (0..4).filter(|_| scores.blame(peer, Offence::Stalled, true, now)).count();
        assert_eq!(banned, 1);
        assert!(scores.is_banned(&peer, now));
        assert_eq!(scores.blamed(&peer), 5);
    }

    #[test]
    fn what_is_not_proven_never_bans_and_one_who_may_not_be_banned_falls_and_rises_again() {
        let (mut scores, peer, now) = (Scores::default(), PeerId::random(), Instant::now());
        for offence in [Offence::Slow, Offence::Refused, Offence::Failing] {
            assert!(!(0..1000).any(|_| scores.blame(peer, offence, true, now)));
        }
        let low = scores.score(&peer, now);
        assert!(low < -1000 && !scores.is_banned(&peer, now));
        assert!(!(0..1000).any(|_| scores.blame(peer, Offence::WrongBytes, false, now)));
        assert!(scores.score(&peer, now) < low && !scores.is_banned(&peer, now));
        assert_eq!(scores.score(&peer, now + Duration::from_secs(24 * 3600)), 0);
        scores.praise(peer, now);
        assert!(scores.is_good(&peer));
        scores.blame(peer, Offence::WrongBytes, false, now);
        assert!(!scores.is_good(&peer));
    }

    #[test]
    fn memory_is_bounded_and_the_banned_are_forgotten_last() {
        let (mut scores, now) = (Scores::default(), Instant::now());
        let liar = PeerId::random();
        scores.blame(liar, Offence::WrongBytes, true, now);
        for _ in 0..REMEMBERED_MAX + 50 {
            scores.praise(PeerId::random(), now);
        }
        assert_eq!(scores.entries.len(), REMEMBERED_MAX);
        assert!(scores.is_banned(&liar, now));
    }
}
