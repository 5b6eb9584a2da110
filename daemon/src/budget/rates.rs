//! Counts what costs work at once and is not held: so much in a minute for each of those who cause it.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;
use tokio::time::Instant;

/// At most so many of something in a minute for each key: what costs work at once and is not held.
#[derive(Debug)]
pub struct Rates<K> {
    per_minute: u32,
    keys_max: usize,
    since: Instant,
    counts: HashMap<K, u32>,
}

impl<K: Hash + Eq> Rates<K> {
    /// Nothing counted; of more keys than `keys_max` in a minute none is counted, and none allowed.
    #[must_use]
    pub fn new(per_minute: u32, keys_max: usize) -> Self {
        Self { per_minute, keys_max, since: Instant::now(), counts: HashMap::new() }
    }

    /// Counts one; false when there are too many.
    pub fn allow(&mut self, key: K, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= Duration::from_secs(60) {
            self.counts.clear();
            self.since = now;
        }
        if self.counts.len() >= self.keys_max && !self.counts.contains_key(&key) {
            return false;
        }
        let count = self.counts.entry(key).or_default();
        *count = count.saturating_add(1);
        *count <= self.per_minute
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_kept_for_each_and_begins_anew() {
        let (mut rates, now) = (Rates::new(3, 2), Instant::now());
        assert_eq!((0..10).filter(|_| rates.allow(1, now)).count(), 3);
        assert!(rates.allow(2, now) && !rates.allow(3, now), "more keys than are counted");
        assert!(rates.allow(3, now + Duration::from_secs(60)));
    }
}
