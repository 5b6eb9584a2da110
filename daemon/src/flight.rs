//! Single flight: any number of clients that want one digest wait on one transfer, and may follow its bytes.
//!
//! A flight is entered in the table when the first client asks and leaves it when it ends, so the table is as large as
//! the transfers under way. **Relay rule**: followers may read [`Progress::relayable`] bytes, which never reaches the
//! end before the digest is verified, and which stays where it is while any byte came from a peer (a peer's word is
//! worth nothing until the digest says so), except after [`HOLD_MAX`], because Portage's wget leaves after 60 silent
//! seconds.

use crate::panics::Panicked;
use crate::stats::Source;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use store::{Blob, IncomingReader, Wanted};
use tokio::sync::watch;
use tree::digest::Digest;

/// The last bytes of a body are held back until the digest is verified: a wrong file never ends cleanly.
pub const HELD_BACK_BYTES: u64 = 64 * 1024;
/// A file up to this size is held back whole for a moment: most are, and a client that never saw a wrong byte gets the
/// right file from the next source. wget puts what comes after a broken connection to what it has, even when it is sent
/// the whole file anew.
pub const HELD_WHOLE_BYTES: u64 = 4 * 1024 * 1024;
/// That moment; a slow transfer is relayed after it.
pub const HELD_WHOLE_FOR: Duration = Duration::from_secs(5);
/// How long bytes of peers are held back; far enough below the 60 s after which Portage's wget leaves.
pub const HOLD_MAX: Duration = Duration::from_secs(20);
/// How to make room in the store.
pub const ROOM_HINT: &str = "`peer gc --size SIZE` lets go of what was not used for longest, and store.free_min and store.size_max in \
                             peer.toml say what it keeps to";
/// Transfers waiting or running; more are refused, so that a flood of requests costs no memory.
const FLIGHTS_MAX: usize = 4096;

/// Why a distfile could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ObtainError {
    /// Every source that may be asked was asked.
    #[error("nobody has it: {tried} sources were asked{}", last.as_ref().map(|l| format!("; the last said: {l}")).unwrap_or_default())]
    Nobody {
        /// Sources asked.
        tried: usize,
        /// What the last one said.
        last: Option<String>,
    },
    /// The store's filesystem has no room.
    #[error("the disk of the store is full: {why}; {ROOM_HINT}")]
    DiskFull {
        /// What the store said.
        why: String,
    },
    /// The store failed in another way.
    #[error("the store failed: {why}")]
    Store {
        /// What it said.
        why: String,
    },
    /// Too many transfers at once.
    #[error("too many transfers at once ({FLIGHTS_MAX})")]
    Busy,
    /// The daemon is being stopped.
    #[error("the daemon is stopping")]
    Stopping,
    /// The transfer ended in a panic.
    #[error(transparent)]
    Fault(#[from] Panicked),
}

/// How a flight ended.
#[derive(Clone, Debug)]
pub enum End {
    /// Verified; brought (at last) by this source.
    Have(Blob, Source),
    /// Not to be had.
    Failed(Arc<ObtainError>),
}

/// How far a flight is.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Bytes in the partial.
    pub received: u64,
    /// Bytes a follower may read now.
    pub relayable: u64,
    /// Size, when known.
    pub size: Option<u64>,
    /// True once the digest is known to be right, while the bytes are still being brought to the disk: all may be read.
    pub verified: bool,
    /// Who brings bytes now.
    pub source: Option<Source>,
    /// How often all bytes were thrown away. A follower that has sent bytes of an earlier count must break off.
    pub restarts: u32,
    /// A way to read the partial.
    pub reader: Option<Arc<IncomingReader>>,
    /// Set once, at the end.
    pub end: Option<End>,
}

/// One transfer under way.
#[derive(Debug)]
pub struct Flight {
    /// Distfile name, or the short digest when no Manifest names it.
    pub name: String,
    /// What is wanted.
    pub wanted: Wanted,
    /// When it began.
    pub started: Instant,
    progress: watch::Sender<Progress>,
    followers: AtomicUsize,
}

impl Flight {
    /// How far it is now.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.progress.borrow().clone()
    }

    /// How many wait for it.
    #[must_use]
    pub fn followers(&self) -> usize {
        self.followers.load(Ordering::Relaxed)
    }

    /// Changes the progress and wakes the followers.
    pub fn update(&self, change: impl FnOnce(&mut Progress)) {
        self.progress.send_modify(change);
    }
}

/// A client's view of a flight.
#[derive(Debug)]
pub struct Follower {
    flight: Arc<Flight>,
    progress: watch::Receiver<Progress>,
}

impl Follower {
    fn new(flight: &Arc<Flight>) -> Self {
        flight.followers.fetch_add(1, Ordering::Relaxed);
        Self { flight: Arc::clone(flight), progress: flight.progress.subscribe() }
    }

    /// The flight itself.
    #[must_use]
    pub fn flight(&self) -> &Flight {
        &self.flight
    }

    /// Waits until `enough` holds or the flight has ended, and gives the progress then.
    ///
    /// Cancel safe: yes.
    pub async fn wait_until(&mut self, mut enough: impl FnMut(&Progress) -> bool) -> Progress {
        match self.progress.wait_for(|progress| progress.end.is_some() || enough(progress)).await {
            Ok(progress) => progress.clone(),
            // The sender lives in the flight, which this follower holds; written out only because the type says so.
            Err(_closed) => self.flight.progress(),
        }
    }

    /// Waits for the end.
    ///
    /// Cancel safe: yes.
    pub async fn end(&mut self) -> End {
        match self.wait_until(|_| false).await.end {
            Some(end) => end,
            None => End::Failed(Arc::new(ObtainError::Stopping)),
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.flight.followers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The flights under way.
#[derive(Debug, Default)]
pub struct Flights {
    table: Mutex<HashMap<Digest, Arc<Flight>>>,
}

impl Flights {
    /// Joins the flight for `wanted`, or makes it and lets `start` run it.
    ///
    /// # Errors
    /// [`ObtainError::Busy`] when [`FLIGHTS_MAX`] flights are under way.
    pub fn join(&self, name: &str, wanted: &Wanted, start: impl FnOnce(Arc<Flight>)) -> Result<Follower, ObtainError> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let busy = table.len() >= FLIGHTS_MAX;
        let (follower, fresh) = match table.entry(wanted.digest) {
            Entry::Occupied(entry) => (Follower::new(entry.get()), None),
            Entry::Vacant(_) if busy => return Err(ObtainError::Busy),
            Entry::Vacant(entry) => {
                let flight = Arc::new(Flight {
                    name: name.to_owned(),
                    wanted: *wanted,
                    started: Instant::now(),
                    progress: watch::Sender::new(Progress { size: wanted.size, ..Progress::default() }),
                    followers: AtomicUsize::new(0),
                });
                entry.insert(Arc::clone(&flight));
                (Follower::new(&flight), Some(flight))
            }
        };
        drop(table);
        if let Some(flight) = fresh {
            start(flight);
        }
        Ok(follower)
    }

    /// Ends a flight: it leaves the table before its followers hear of the end, so that a client that asks again after
    /// a failure starts anew.
    pub fn end(&self, flight: &Flight, end: End) {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).remove(&flight.wanted.digest);
        flight.update(|progress| progress.end = Some(end));
    }

    /// Ends a flight, should nothing else do so before the answer is dropped: nobody waits for one that is lost.
    #[must_use]
    pub fn landing<'a>(&'a self, flight: &'a Flight) -> Landing<'a> {
        Landing { flights: self, flight }
    }

    /// The flights under way, longest first.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Flight>> {
        let mut flights: Vec<_> =
            self.table.lock().unwrap_or_else(PoisonError::into_inner).values().map(Arc::clone).collect();
        flights.sort_by_key(|flight| flight.started);
        flights
    }
}

/// See [`Flights::landing`].
#[derive(Debug)]
pub struct Landing<'a> {
    flights: &'a Flights,
    flight: &'a Flight,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        if self.flight.progress.borrow().end.is_none() {
            let why = if std::thread::panicking() { ObtainError::Fault(Panicked) } else { ObtainError::Stopping };
            self.flights.end(self.flight, End::Failed(Arc::new(why)));
        }
    }
}

impl Progress {
    /// Bytes that may be read now of an answer that ends before byte `end`: its last byte waits for the digest, whatever
    /// part of the file it is.
    #[must_use]
    pub fn readable(&self, end: u64) -> u64 {
        self.relayable.min(if self.verified { end } else { end.saturating_sub(1) })
    }

    /// All bytes are thrown away.
    pub fn restart(&mut self) {
        self.received = 0;
        self.relayable = 0;
        self.restarts += 1;
    }
}

/// How many bytes of an unverified partial may be read by followers.
///
/// `tainted` says that a peer (or an earlier run of the daemon) brought some of them.
#[must_use]
pub fn relayable(received: u64, size: Option<u64>, tainted: bool, age: Duration) -> u64 {
    let Some(size) = size else { return 0 };
    let held_for = match (tainted, size <= HELD_WHOLE_BYTES) {
        (true, _) => HOLD_MAX,
        (false, true) => HELD_WHOLE_FOR,
        (false, false) => Duration::ZERO,
    };
    if age >= held_for { received.min(size.saturating_sub(HELD_BACK_BYTES)) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(n: u8) -> Wanted {
        Wanted { digest: Digest::of(&[n]), size: Some(1), sha512: None }
    }

    #[test]
    fn the_second_client_joins_the_first_ones_flight() {
        let flights = Flights::default();
        let mut started = 0;
        let first = flights.join("a", &wanted(1), |_| started += 1).unwrap();
        let second = flights.join("a", &wanted(1), |_| started += 1).unwrap();
        let third = flights.join("b", &wanted(2), |_| started += 1).unwrap();
        assert_eq!(started, 2);
        assert_eq!((first.flight().followers(), third.flight().followers()), (2, 1));
        drop(second);
        assert_eq!(first.flight().followers(), 1);
    }

    #[tokio::test]
    async fn an_ended_flight_is_out_of_the_table_when_its_followers_hear_of_it() {
        let flights = Flights::default();
        let mut running = None;
        let mut follower = flights.join("a", &wanted(1), |flight| running = Some(flight)).unwrap();
        flights.end(&running.unwrap(), End::Failed(Arc::new(ObtainError::Nobody { tried: 0, last: None })));
        assert!(matches!(follower.end().await, End::Failed(_)));
        assert!(flights.list().is_empty());
        let mut again = false;
        let _follower = flights.join("a", &wanted(1), |_| again = true).unwrap();
        assert!(again);
    }

    #[tokio::test]
    async fn a_flight_that_is_lost_in_a_panic_ends() {
        let flights = Arc::new(Flights::default());
        let (mut running, tasks) = (None, crate::tasks::Tasks::new());
        let mut follower = flights.join("a", &wanted(1), |flight| running = Some(flight)).unwrap();
        let (flying, flight) = (Arc::clone(&flights), running.unwrap());
        tasks.spawn("transfer", async move {
            let _landing = flying.landing(&flight);
            panic!("a test's own panic");
        });
        let End::Failed(error) = follower.end().await else { panic!("nothing was brought") };
        assert!(matches!(*error, ObtainError::Fault(_)), "{error}");
        assert!(flights.list().is_empty(), "who asks again begins anew");
    }

    #[test]
    fn the_last_bytes_and_bytes_of_peers_are_held_back() {
        let size = Some(10_000_000);
        let now = Duration::ZERO;
        assert_eq!(relayable(500_000, size, false, now), 500_000);
        assert_eq!(relayable(10_000_000, size, false, now), 10_000_000 - HELD_BACK_BYTES);
        assert_eq!(relayable(500_000, size, true, now), 0);
        assert_eq!(relayable(500_000, size, true, HOLD_MAX), 500_000);
        assert_eq!(relayable(900_000, Some(1_000_000), false, now), 0, "a small file is held back whole");
        assert_eq!(relayable(900_000, Some(1_000_000), false, HELD_WHOLE_FOR), 900_000, "but not for ever");
        assert_eq!(relayable(10, Some(10), false, HOLD_MAX), 0);
        assert_eq!(relayable(10, None, false, now), 0);
    }

    #[test]
    fn more_flights_than_the_bound_are_refused() {
        let flights = Flights::default();
        let mut followers = Vec::new();
        for n in 0..FLIGHTS_MAX {
            let wanted = Wanted { digest: Digest::of(&n.to_le_bytes()), size: None, sha512: None };
            followers.push(flights.join("x", &wanted, |_| {}).unwrap());
        }
        assert!(matches!(flights.join("y", &wanted(9), |_| {}), Err(ObtainError::Busy)));
    }
}
