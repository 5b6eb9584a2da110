//! Counters of what was served and a short memory of transfers that ended, for the status page and `/metrics`.

use crate::api::{Ended, Served};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Transfers remembered after their end.
const RECENT_MAX: usize = 50;

/// Where the bytes of an answer came from: the value of `X-Peer-Source`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// This machine's store.
    Store,
    /// Another node.
    Peer,
    /// A Gentoo mirror.
    Mirror,
    /// A host of SRC_URI.
    Upstream,
}

impl Source {
    /// All of them, in the order a distfile is looked for.
    pub const ALL: [Self; 4] = [Self::Store, Self::Peer, Self::Mirror, Self::Upstream];

    /// The word users see.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Peer => "peer",
            Self::Mirror => "mirror",
            Self::Upstream => "upstream",
        }
    }
}

/// Why an answer was "not found".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// No Manifest names it.
    Unknown,
    /// Nobody who may be asked has it.
    Unavailable,
    /// The Manifests are still being read.
    NotYet,
}

#[derive(Debug, Default)]
struct Counter {
    answers: AtomicU64,
    bytes: AtomicU64,
}

/// What this daemon did since it started.
#[derive(Debug, Default)]
pub struct Stats {
    store: Counter,
    peer: Counter,
    mirror: Counter,
    upstream: Counter,
    unknown: AtomicU64,
    unavailable: AtomicU64,
    not_yet: AtomicU64,
    recent: Mutex<VecDeque<Ended>>,
}

impl Stats {
    fn counter(&self, source: Source) -> &Counter {
        match source {
            Source::Store => &self.store,
            Source::Peer => &self.peer,
            Source::Mirror => &self.mirror,
            Source::Upstream => &self.upstream,
        }
    }

    /// Counts one answer.
    pub fn answered(&self, source: Source) {
        self.counter(source).answers.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts body bytes of answers.
    pub fn sent(&self, source: Source, bytes: u64) {
        self.counter(source).bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts one "not found".
    pub fn missed(&self, miss: Miss) {
        let counter = match miss {
            Miss::Unknown => &self.unknown,
            Miss::Unavailable => &self.unavailable,
            Miss::NotYet => &self.not_yet,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Answers by source; every source is there, zero or not.
    #[must_use]
    pub fn served(&self) -> BTreeMap<String, Served> {
        let row = |source: Source| {
            let counter = self.counter(source);
            let answers = counter.answers.load(Ordering::Relaxed);
            (source.as_str().to_owned(), Served { answers, bytes: counter.bytes.load(Ordering::Relaxed) })
        };
        Source::ALL.into_iter().map(row).collect()
    }

    /// "Not found" by reason.
    #[must_use]
    pub fn misses(&self) -> BTreeMap<String, u64> {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [("unknown", &self.unknown), ("unavailable", &self.unavailable), ("not_yet", &self.not_yet)]
            .map(|(name, counter)| (name, load(counter)))
            .map(|(name, count)| (name.to_owned(), count))
            .into()
    }

    /// Remembers a transfer that ended; the oldest is forgotten.
    pub fn ended(&self, ended: Ended) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.truncate(RECENT_MAX - 1);
        recent.push_front(ended);
    }

    /// The newest first.
    #[must_use]
    pub fn recent(&self) -> Vec<Ended> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// Seconds since the Unix epoch; 0 for a clock before it.
#[must_use]
pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_is_listed_even_when_it_served_nothing() {
        let stats = Stats::default();
        stats.answered(Source::Peer);
        stats.sent(Source::Peer, 7);
        let served = stats.served();
        assert_eq!(served.len(), 4);
        assert_eq!((served["peer"].answers, served["peer"].bytes), (1, 7));
        assert_eq!(served["store"].answers, 0);
    }

    #[test]
    fn only_the_newest_transfers_are_remembered() {
        let stats = Stats::default();
        for n in 0..RECENT_MAX + 5 {
            stats.ended(Ended { name: n.to_string(), size: None, source: None, error: None, at: 0, took_ms: 0 });
        }
        let recent = stats.recent();
        assert_eq!((recent.len(), recent[0].name.as_str()), (RECENT_MAX, "54"));
    }
}
