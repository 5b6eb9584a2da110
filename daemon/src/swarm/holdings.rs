//! Who holds what, as far as holders tell each other directly: our own announced keys, and what each connected peer said.
//!
//! A peer's holdings are 32-bit prefixes of digests, 4 bytes each, so 80 000 distfiles cost 320 KiB for a peer. Two digests
//! that share a prefix are taken for one another: with 80 000 held, one question in fifty thousand is asked in vain,
//! and costs one quick "not here".

use super::wire::{HAVE_PREFIXES_MAX, Have, Key};
use std::collections::BTreeSet;

/// Changes kept beside the sorted list before they are merged into it: so many, or a part of a long list, so that merging
/// costs a change little however long the list is.
const CHANGES_MAX: usize = 1024;
/// The part of a long list, as its divisor.
const CHANGES_PART: usize = 16;

/// What one connected peer says it holds.
#[derive(Debug, Default)]
pub(super) struct PeerHoldings {
    sorted: Vec<u32>,
    added: BTreeSet<u32>,
    removed: BTreeSet<u32>,
}

impl PeerHoldings {
    pub(super) fn contains(&self, prefix: u32) -> bool {
        self.added.contains(&prefix) || (self.sorted.binary_search(&prefix).is_ok() && !self.removed.contains(&prefix))
    }

    /// How many prefixes are held.
    pub(super) fn len(&self) -> usize {
        self.sorted.len() + self.added.len() - self.removed.len()
    }

    /// Takes what the peer said. What goes beyond `room` entries is left out: the peer is then asked less often, no more.
    ///
    /// A frame costs no more than its own length, since any peer may send many: the parts of a list rise strictly, as
    /// [`Announced::snapshot`] makes them, and a part out of order, or after a change to the list, is dropped.
    pub(super) fn apply(&mut self, have: Have, room: usize) {
        match have {
            Have::Snapshot { first, prefixes } => {
                if first {
                    *self = Self::default();
                }
                if self.added.is_empty() && self.sorted.last() < prefixes.first() {
                    let free = room.saturating_sub(self.len());
                    self.sorted.extend(prefixes.iter().take(free));
                }
            }
            Have::Delta { added, removed } => {
                for prefix in removed {
                    self.remove(prefix);
                }
                for prefix in added {
                    if self.len() < room {
                        self.add(prefix);
                    }
                }
                if self.added.len() + self.removed.len() > CHANGES_MAX.max(self.sorted.len() / CHANGES_PART) {
                    self.merge();
                }
            }
        }
    }

    fn add(&mut self, prefix: u32) {
        if !self.removed.remove(&prefix) && self.sorted.binary_search(&prefix).is_err() {
            self.added.insert(prefix);
        }
    }

    /// Notes that the peer does not hold this (after all).
    pub(super) fn remove(&mut self, prefix: u32) {
        if !self.added.remove(&prefix) && self.sorted.binary_search(&prefix).is_ok() {
            self.removed.insert(prefix);
        }
    }

    fn merge(&mut self) {
        let removed = std::mem::take(&mut self.removed);
        if !removed.is_empty() {
            self.sorted.retain(|prefix| !removed.contains(prefix));
        }
        let added = std::mem::take(&mut self.added);
        if !added.is_empty() {
            self.sorted.extend(added);
            // Stable, because that is linear where two rising runs meet.
            self.sorted.sort();
        }
    }
}

/// What we announce: the keys in order, which is the order of their prefixes too.
#[derive(Debug, Default)]
pub(super) struct Announced {
    keys: BTreeSet<Key>,
}

impl Announced {
    pub(super) fn contains(&self, key: &Key) -> bool {
        self.keys.contains(key)
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = Key> {
        self.keys.iter().copied()
    }

    fn holds_prefix(&self, prefix: u32) -> bool {
        let mut least = [0; super::wire::KEY_BYTES];
        if let Some(head) = least.first_chunk_mut() {
            *head = prefix.to_be_bytes();
        }
        self.keys.range(Key(least)..).next().is_some_and(|key| key.prefix() == prefix)
    }

    /// Adds keys; answers those that are new and the prefixes that are.
    pub(super) fn announce(&mut self, keys: impl Iterator<Item = Key>) -> (Vec<Key>, BTreeSet<u32>) {
        let (mut fresh, mut prefixes) = (Vec::new(), BTreeSet::new());
        for key in keys {
            let known = self.holds_prefix(key.prefix());
            if self.keys.insert(key) {
                fresh.push(key);
                if !known {
                    prefixes.insert(key.prefix());
                }
            }
        }
        (fresh, prefixes)
    }

    /// Takes keys away; answers those that were there and the prefixes nobody else keeps.
    pub(super) fn withdraw(&mut self, keys: impl Iterator<Item = Key>) -> (Vec<Key>, BTreeSet<u32>) {
        let (mut gone, mut prefixes) = (Vec::new(), BTreeSet::new());
        for key in keys {
            if self.keys.remove(&key) {
                gone.push(key);
                if !self.holds_prefix(key.prefix()) {
                    prefixes.insert(key.prefix());
                }
            }
        }
        (gone, prefixes)
    }

    /// The whole list in frames, the first of which starts it anew.
    pub(super) fn snapshot(&self) -> Vec<Have> {
        let mut prefixes: Vec<u32> = self.keys.iter().map(Key::prefix).collect();
        prefixes.dedup();
        if prefixes.is_empty() {
            return vec![Have::Snapshot { first: true, prefixes }];
        }
        let frames = prefixes.chunks(HAVE_PREFIXES_MAX).enumerate();
        frames.map(|(n, part)| Have::Snapshot { first: n == 0, prefixes: part.to_vec() }).collect()
    }
}

/// A change in frames.
pub(super) fn deltas(added: &BTreeSet<u32>, removed: &BTreeSet<u32>) -> Vec<Have> {
    let split = |set: &BTreeSet<u32>| -> Vec<Vec<u32>> {
        let all: Vec<u32> = set.iter().copied().collect();
        // Half a frame each, so that a frame with both stays within one.
        all.chunks(HAVE_PREFIXES_MAX / 2).map(<[u32]>::to_vec).collect()
    };
    let removed = split(removed).into_iter().map(|removed| Have::Delta { added: Vec::new(), removed });
    let added = split(added).into_iter().map(|added| Have::Delta { added, removed: Vec::new() });
    removed.chain(added).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop, proptest};

    fn key(prefix: u32, tail: u8) -> Key {
        let mut bytes = [tail; 32];
        bytes[..4].copy_from_slice(&prefix.to_be_bytes());
        Key(bytes)
    }

    #[test]
    fn a_prefix_that_two_keys_share_goes_with_the_second_one_only() {
        let mut announced = Announced::default();
        let (fresh, added) = announced.announce([key(7, 1), key(7, 2), key(9, 1)].into_iter());
        assert_eq!((fresh.len(), added.into_iter().collect::<Vec<_>>()), (3, vec![7, 9]));
        assert!(announced.announce([key(7, 1)].into_iter()).0.is_empty());
        assert!(announced.withdraw([key(7, 1)].into_iter()).1.is_empty());
        assert_eq!(announced.withdraw([key(7, 2), key(7, 2)].into_iter()).1.into_iter().collect::<Vec<_>>(), [7]);
        assert_eq!(announced.len(), 1);
    }

    #[test]
    fn a_long_list_is_told_in_frames_and_arrives_whole() {
        let mut announced = Announced::default();
        announced.announce((0..70_000).map(|n| key(n, 0)));
        let frames = announced.snapshot();
        assert_eq!(frames.len(), 2);
        let mut peer = PeerHoldings::default();
        peer.apply(Have::Delta { added: vec![99_999], removed: vec![] }, 1_000_000);
        for frame in frames {
            peer.apply(frame, 1_000_000);
        }
        assert_eq!(peer.len(), 70_000);
        assert!(peer.contains(69_999) && !peer.contains(99_999));
    }

    #[test]
    fn a_peer_that_claims_everything_is_remembered_up_to_its_room() {
        let mut peer = PeerHoldings::default();
        peer.apply(Have::Snapshot { first: true, prefixes: (0..60_000).collect() }, 1000);
        assert_eq!(peer.len(), 1000);
        peer.apply(Have::Delta { added: (70_000..72_000).collect(), removed: vec![0, 1] }, 1000);
        assert_eq!(peer.len(), 1000);
    }

    #[test]
    fn a_part_of_a_list_out_of_order_is_dropped_and_what_was_told_stays_whole() {
        let part = |prefixes: &[u32]| Have::Snapshot { first: false, prefixes: prefixes.to_vec() };
        let mut peer = PeerHoldings::default();
        peer.apply(Have::Snapshot { first: true, prefixes: vec![10, 20] }, 1000);
        peer.remove(20); // We asked while the list was still coming.
        peer.apply(part(&[30, 40]), 1000);
        for late in [part(&[]), part(&[5, 50]), part(&[40, 60]), part(&[20])] {
            peer.apply(late, 1000);
        }
        assert_eq!((&peer.sorted[..], peer.len()), (&[10, 20, 30, 40][..], 3));
        peer.apply(Have::Delta { added: vec![50], removed: vec![10] }, 1000);
        peer.apply(part(&[50, 60]), 1000);
        assert_eq!(peer.len(), 3);
        assert!(peer.contains(50) && !peer.contains(60) && !peer.contains(20));
    }

    #[test]
    fn a_long_list_is_not_merged_anew_for_a_few_changes() {
        let mut peer = PeerHoldings::default();
        peer.apply(Have::Snapshot { first: true, prefixes: (0..64_000).collect() }, 1_000_000);
        peer.apply(Have::Delta { added: (70_000..73_000).collect(), removed: (0..1000).collect() }, 1_000_000);
        assert_eq!((peer.sorted.len(), peer.len()), (64_000, 66_000));
        peer.apply(Have::Delta { added: vec![80_000], removed: vec![] }, 1_000_000);
        assert_eq!((peer.sorted.len(), peer.len()), (66_001, 66_001));
        assert!(peer.sorted.is_sorted());
    }

    proptest! {
        #[test]
        fn deltas_do_what_a_set_would_do(
            start in prop::collection::btree_set(0_u32..300, 0..100),
            steps in prop::collection::vec((any::<bool>(), prop::collection::btree_set(0_u32..300, 0..40)), 0..60),
        ) {
            let mut model = start.clone();
            let mut peer = PeerHoldings::default();
            peer.apply(Have::Snapshot { first: true, prefixes: start.into_iter().collect() }, 1000);
            for (add, set) in steps {
                let frames = if add { deltas(&set, &BTreeSet::new()) } else { deltas(&BTreeSet::new(), &set) };
                for frame in frames {
                    peer.apply(frame, 1000);
                }
                for prefix in set {
                    if add { model.insert(prefix); } else { model.remove(&prefix); }
                }
                assert_eq!(peer.len(), model.len());
                assert!((0..300).all(|prefix| peer.contains(prefix) == model.contains(&prefix)));
            }
        }
    }
}
