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
/// Points fall by half in this time, so that an old hiccup is forgiven.
const POINTS_HALF_LIFE: Duration = Duration::from_secs(600);
/// The first ban; each further one is twice as long.
const BAN_FIRST: Duration = Duration::from_secs(600);
/// No ban is longer.
const BAN_MAX: Duration = Duration::from_secs(24 * 3600);
/// Good deeds count up to here, so that a long friendship cannot outweigh a lie.
const GOOD_MAX: u32 = 50;

/// What a peer did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Offence {
    /// It sent bytes that do not match the digest: a ban at once.
    WrongBytes,
    /// It fell silent in the middle of a body or did not answer in time.
    Stalled,
    /// It broke the connection, or what it said was no message of ours.
    Broken,
    /// It would not serve.
    Refused,
}

impl Offence {
    fn points(self) -> u32 {
        match self {
            Self::WrongBytes => POINTS_BAN,
            Self::Stalled => 20,
            Self::Broken => 10,
            Self::Refused => 2,
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
    points: u32,
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
            points_at: now,
            good: 0,
            bans: 0,
            banned_until: None,
            blamed: 0,
            traffic: Arc::new(Traffic::default()),
        }
    }

    fn points_now(&self, now: Instant) -> u32 {
        let halvings = now.saturating_duration_since(self.points_at).as_secs() / POINTS_HALF_LIFE.as_secs();
        u32::try_from(halvings).ok().and_then(|n| self.points.checked_shr(n)).unwrap_or(0)
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

    /// Remembers an offence. True when the peer is banned by it (now, if it was not before).
    pub(super) fn blame(&mut self, peer: PeerId, offence: Offence, now: Instant) -> bool {
        let entry = self.entry(peer, now);
        entry.points = entry.points_now(now).saturating_add(offence.points());
        entry.points_at = now;
        entry.blamed = entry.blamed.saturating_add(1);
        if entry.points < POINTS_BAN || entry.is_banned(now) {
            return false;
        }
        let factor = 1_u32.checked_shl(entry.bans).unwrap_or(u32::MAX);
        entry.banned_until = Some(now + BAN_FIRST.saturating_mul(factor).min(BAN_MAX));
        entry.bans = entry.bans.saturating_add(1).min(16);
        entry.points = 0;
        entry.good = 0;
        true
    }

    /// Remembers a body that arrived whole.
    pub(super) fn praise(&mut self, peer: PeerId, now: Instant) {
        let entry = self.entry(peer, now);
        entry.good = entry.good.saturating_add(1).min(GOOD_MAX);
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
            assert!(scores.blame(peer, Offence::WrongBytes, now));
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
        assert!(!scores.blame(peer, Offence::Stalled, now));
        assert_eq!(scores.score(&peer, now), -20);
        assert_eq!(scores.score(&peer, now + POINTS_HALF_LIFE), -10);
        assert_eq!(scores.score(&peer, now + POINTS_HALF_LIFE * 40), 0);
        let banned = (0..4).filter(|_| scores.blame(peer, Offence::Stalled, now)).count();
        assert_eq!(banned, 1);
        assert!(scores.is_banned(&peer, now));
        assert_eq!(scores.blamed(&peer), 5);
    }

    #[test]
    fn memory_is_bounded_and_the_banned_are_forgotten_last() {
        let (mut scores, now) = (Scores::default(), Instant::now());
        let liar = PeerId::random();
        scores.blame(liar, Offence::WrongBytes, now);
        for _ in 0..REMEMBERED_MAX + 50 {
            scores.praise(PeerId::random(), now);
        }
        assert_eq!(scores.entries.len(), REMEMBERED_MAX);
        assert!(scores.is_banned(&liar, now));
    }
}
