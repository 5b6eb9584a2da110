//! How slow a body may be before its place goes to somebody else: one measure for all that is read from others or written to them.
//!
//! Liveness is bytes in a span, not "any byte": who drips one in four seconds is alive and holds a place for months.

use std::time::Duration;
use tokio::time::Instant;

/// The slowest that is borne. The first span is the grace: nothing but silence is judged before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Floor {
    /// The longest wait for a single byte.
    pub silence: Duration,
    /// In every span of waiting at least [`Floor::least`] bytes must come.
    pub span: Duration,
    /// Those bytes.
    pub least: u64,
}

/// Too little came, or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes in {} s", waited.as_secs())]
pub struct TooSlow {
    /// What was waited.
    pub waited: Duration,
    /// What came in that time.
    pub bytes: u64,
}

/// How a body flows, counting only the time spent waiting for the other end: a caller that is slow itself blames nobody. Pure.
#[derive(Debug)]
pub struct Pace {
    floor: Floor,
    waiting_since: Option<Instant>,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// Nothing waited for yet.
    #[must_use]
    pub fn new(floor: Floor) -> Self {
        Self { floor, waiting_since: None, waited: Duration::ZERO, bytes: 0 }
    }

    /// What is borne.
    #[must_use]
    pub fn floor(&self) -> Floor {
        self.floor
    }

    /// Until when to wait for the next bytes. A wait that was cancelled goes on where it was.
    pub fn deadline(&mut self, now: Instant) -> Instant {
        *self.waiting_since.get_or_insert(now) + self.floor.silence
    }

    /// Bytes came, or could be written.
    ///
    /// # Errors
    /// When a span has passed in which too few did.
    pub fn took(&mut self, bytes: u64, now: Instant) -> Result<(), TooSlow> {
        self.bytes = self.bytes.saturating_add(bytes);
        // Empty pieces are no sign of life.
        if bytes > 0
            && let Some(since) = self.waiting_since.take()
        {
            self.waited = self.waited.saturating_add(now.saturating_duration_since(since));
        }
        if self.waited < self.floor.span {
            return Ok(());
        }
        let seen = TooSlow { waited: self.waited, bytes: self.bytes };
        (self.waited, self.bytes) = (Duration::ZERO, 0);
        if seen.bytes < self.floor.least { Err(seen) } else { Ok(()) }
    }

    /// Nothing came until the deadline.
    #[must_use]
    pub fn silent(&self) -> TooSlow {
        TooSlow { waited: self.floor.silence, bytes: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOR: Floor = Floor { silence: Duration::from_secs(5), span: Duration::from_secs(30), least: 15_000 };

    #[test]
    fn only_the_time_spent_waiting_counts() {
        let (mut pace, mut now) = (Pace::new(FLOOR), Instant::now());
        for _ in 0..100 {
            assert_eq!(pace.deadline(now), now + Duration::from_secs(5));
            assert_eq!(pace.took(1, now), Ok(()));
            now += Duration::from_secs(60);
        }
    }

    #[test]
    fn a_cancelled_wait_goes_on_where_it_was() {
        let (mut pace, now) = (Pace::new(FLOOR), Instant::now());
        let deadline = pace.deadline(now);
        assert_eq!(pace.deadline(now + Duration::from_secs(2)), deadline);
    }

    /// Every way of dripping that is never silent is found out within two spans, and never before one.
    #[test]
    fn whoever_drips_is_found_out_at_the_end_of_a_span() {
        for (every_ms, bytes) in [(4000, 1), (1000, 1), (100, 1), (1000, 499), (2500, 1000), (4999, 2100)] {
            let (mut pace, start) = (Pace::new(FLOOR), Instant::now());
            let mut now = start;
            let slow = (0..10_000).find_map(|_| {
                pace.deadline(now);
                now += Duration::from_millis(every_ms);
                pace.took(bytes, now).err()
            });
            assert!(slow.is_some_and(|slow| slow.bytes < FLOOR.least), "{bytes} bytes every {every_ms} ms");
            let took = now - start;
            assert!(took >= FLOOR.span && took < FLOOR.span * 2, "{took:?}");
        }
    }

    #[test]
    fn who_keeps_the_pace_is_never_left_and_a_burst_does_not_buy_a_drip() {
        let (mut pace, mut now) = (Pace::new(FLOOR), Instant::now());
        let mut wait = |pace: &mut Pace, seconds: u64, bytes: u64| {
            pace.deadline(now);
            now += Duration::from_secs(seconds);
            pace.took(bytes, now)
        };
        assert!((0..1000).all(|_| wait(&mut pace, 1, 500).is_ok()));
        assert!(wait(&mut pace, 1, 100_000_000).is_ok());
        let dripped = (0..30).take_while(|_| wait(&mut pace, 4, 1).is_ok()).count();
        assert!(dripped < 16, "{dripped}");
    }
}
