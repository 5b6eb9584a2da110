//! Offload: another machine of the group builds a package, with this machine's exact configuration.
//!
//! In reading order: [`wire`] is what both ends say; [`client`] gives one package away, in one [`attempt`] after another; [`builder`]
//! is the other end, [`versions`] plans there with the versions of dependencies that the client has, [`difference`] says why the
//! two do not agree; [`their_domain`] has the client's configuration there; [`guests`] knows whom what is built for others is for, and ends what nobody waits for; [`transfer`] moves the blocks of a domain and the package between exactly these two.
//!
//! **Invariants.** What a builder made counts only if its word does ([`super::trust`]) and only for the fingerprint that was
//! asked. Only the client's own job publishes, once. A builder that is lost costs time and nothing else: the package is
//! offered again, then to the next one, then built here. A failing ebuild is not tried elsewhere.

mod attempt;
pub(super) mod builder;
pub(super) mod client;
mod difference;
mod guests;
mod log;
mod their_domain;
mod transfer;
mod versions;
mod wire;

use super::foreign::Foreigners;
use crate::config::Config;
use crate::config_offload::OffloadPolicy;
use crate::domain::Domain;
use crate::group::FindMemberError;
use crate::swarm::PeerId;
use guests::Guests;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tree::cpv::Cpv;

/// Between two signs of life.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// The other end is lost when nothing came for so long.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// Builders are reached in this time.
const REACH_MAX: Duration = Duration::from_secs(10);
/// A builder that fails so often in a row, each time as fast as this, is left alone for a while.
const FAST_FAILURES_MAX: u32 = 5;
const FAST: Duration = Duration::from_secs(10);
const GROUNDED_FOR: Duration = Duration::from_secs(3600);
/// Names in one line.
const NAMED_MAX: usize = 3;
/// Builders whose conduct is remembered; a group has at most some hundred.
const REMEMBERED_MAX: usize = 1000;

/// Where what nobody has is built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum On {
    /// As the configuration says.
    #[default]
    Policy,
    /// Here.
    Local,
    /// At any member that builds for others, else here.
    Any,
    /// There and nowhere else.
    Peer(PeerId),
}

/// Spelled for people.
const LOCAL: &str = "local";
const ANY: &str = "any";

impl On {
    /// What a user asks for: a word, or a member by name or peer id.
    ///
    /// # Errors
    /// When no member is called so.
    pub fn find(domain: &Domain, text: Option<&str>) -> Result<Self, FindMemberError> {
        match text {
            None => Ok(Self::Policy),
            Some(LOCAL) => Ok(Self::Local),
            Some(ANY) => Ok(Self::Any),
            // A builder may be trusted without being of a group.
            Some(text) => match (text.parse::<PeerId>(), domain.groups.find(text)) {
                (_, Ok(peer)) | (Ok(peer), Err(_)) => Ok(Self::Peer(peer)),
                (Err(_), Err(error)) => Err(error),
            },
        }
    }

    /// As a job has it.
    pub(super) fn word(self) -> Option<String> {
        match self {
            Self::Policy => None,
            Self::Local => Some(LOCAL.to_owned()),
            Self::Any => Some(ANY.to_owned()),
            Self::Peer(peer) => Some(peer.to_string()),
        }
    }

    /// What [`On::word`] said.
    pub(super) fn of_word(word: Option<&str>) -> Self {
        match word {
            None => Self::Policy,
            Some(ANY) => Self::Any,
            Some(word) => word.parse().map_or(Self::Local, Self::Peer),
        }
    }

    /// Whether others are asked at all.
    pub(super) fn asks_others(self, config: &Config) -> bool {
        match self {
            Self::Policy => config.offload.builds == OffloadPolicy::Misses,
            Self::Local => false,
            Self::Any | Self::Peer(_) => true,
        }
    }
}

impl fmt::Display for On {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.word().unwrap_or_else(|| "by policy".to_owned()))
    }
}

/// A builder that is left alone for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grounded {
    /// Who.
    pub peer: PeerId,
    /// For so many more seconds.
    pub for_s: u64,
    /// What it did last.
    pub why: String,
}

#[derive(Clone, Debug, Default)]
struct Conduct {
    failures: u32,
    until: Option<Instant>,
    why: String,
}

/// What both ends remember.
#[derive(Debug)]
pub(super) struct Offload {
    pub(super) foreigners: Foreigners,
    /// Places of foreign jobs that run.
    pub(super) slots: Semaphore,
    /// Held while blocks of a domain are put into the store.
    lending: Mutex<()>,
    /// What others wait for here.
    pub(super) guests: Guests,
    conduct: Mutex<HashMap<PeerId, Conduct>>,
    /// Our jobs at each builder.
    given: Mutex<HashMap<PeerId, usize>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Offload {
    /// Nothing is remembered yet. Blocking.
    pub(super) fn new(config: &Config) -> Self {
        Self {
            foreigners: Foreigners::below(super::inside::absolute(&config.data_dir).join("domains")),
            slots: Semaphore::new(config.offload.jobs_max),
            lending: Mutex::default(),
            guests: Guests::new(config.offload.jobs_max),
            conduct: Mutex::default(),
            given: Mutex::default(),
        }
    }

    /// A builder did what it should.
    fn praise(&self, peer: &PeerId) {
        lock(&self.conduct).remove(peer);
    }

    /// A builder failed, and not the ebuild, so long after it was asked.
    fn note_failure(&self, peer: PeerId, after: Duration, why: &str) {
        let mut conduct = lock(&self.conduct);
        if conduct.len() >= REMEMBERED_MAX && !conduct.contains_key(&peer) {
            return;
        }
        let of_peer = conduct.entry(peer).or_default();
        why.clone_into(&mut of_peer.why);
        of_peer.failures = if after < FAST { of_peer.failures + 1 } else { 0 };
        if of_peer.failures >= FAST_FAILURES_MAX {
            tracing::warn!(%peer, why, "a builder failed {FAST_FAILURES_MAX} times at once and is left alone for an hour");
            *of_peer = Conduct { failures: 0, until: Some(Instant::now() + GROUNDED_FOR), why: why.to_owned() };
        }
    }

    /// Why a builder is not asked now.
    pub(super) fn grounded(&self, peer: &PeerId) -> Option<Grounded> {
        let mut conduct = lock(&self.conduct);
        let of_peer = conduct.get_mut(peer)?;
        let left = of_peer.until?.saturating_duration_since(Instant::now());
        if left.is_zero() {
            of_peer.until = None;
            return None;
        }
        Some(Grounded { peer: *peer, for_s: left.as_secs(), why: of_peer.why.clone() })
    }

    fn given(&self, peer: &PeerId) -> usize {
        lock(&self.given).get(peer).copied().unwrap_or(0)
    }

    /// Counts a job of ours at a builder, as long as the answer lives.
    fn give(&self, peer: PeerId) -> Given<'_> {
        *lock(&self.given).entry(peer).or_default() += 1;
        Given { offload: self, peer }
    }
}

struct Given<'a> {
    offload: &'a Offload,
    peer: PeerId,
}

impl Drop for Given<'_> {
    fn drop(&mut self) {
        let mut given = lock(&self.offload.given);
        if let Some(count) = given.get_mut(&self.peer) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                given.remove(&self.peer);
            }
        }
    }
}

/// Whether what a builder says of this package counts here.
fn word_counts(domain: &Domain, peer: &PeerId, cpv: &Cpv, slot: &str) -> bool {
    domain.builds.trust.counts(peer, cpv, slot) && !domain.builds.caught.has(peer)
}

/// The connected builders whose word counts for a package and that are not grounded, those with the fewest of our jobs first.
pub(super) fn builders(domain: &Domain, cpv: &Cpv, slot: &str) -> Vec<PeerId> {
    let offload = &domain.builds.offload;
    let peers = domain.swarm.peers().into_iter().map(|peer| peer.peer_id);
    let mut able: Vec<PeerId> =
        peers.filter(|peer| word_counts(domain, peer, cpv, slot) && offload.grounded(peer).is_none()).collect();
    able.sort_by_key(|peer| (offload.given(peer), *peer));
    able
}

/// Why nobody is asked to build a package now, for people.
pub(super) fn why_nobody(domain: &Domain, cpv: &Cpv, slot: &str) -> String {
    let trusted = domain.builds.trust.builders(cpv, slot);
    let connected: BTreeSet<PeerId> = domain.swarm.peers().into_iter().map(|peer| peer.peer_id).collect();
    let names = |peers: &[&PeerId]| {
        peers.iter().take(NAMED_MAX).map(|peer| domain.groups.name(peer)).collect::<Vec<_>>().join(", ")
    };
    let (there, away): (Vec<&PeerId>, Vec<&PeerId>) = trusted.iter().partition(|peer| connected.contains(peer));
    match (there.as_slice(), away.as_slice()) {
        ([], []) => "no machine is trusted to build it".to_owned(),
        ([], away) => format!("{} is not connected", names(away)),
        (there, _) => format!("{} failed before and is left alone for a while", names(there)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offload(jobs_max: usize) -> Offload {
        Offload {
            foreigners: Foreigners::default(),
            slots: Semaphore::new(jobs_max),
            lending: Mutex::default(),
            guests: Guests::new(jobs_max),
            conduct: Mutex::default(),
            given: Mutex::default(),
        }
    }

    #[test]
    fn a_builder_that_fails_at_once_five_times_is_grounded_and_one_success_is_forgiveness() {
        let (offload, peer) = (offload(1), PeerId::random());
        let fast = Duration::from_secs(1);
        for _ in 0..4 {
            offload.note_failure(peer, fast, "broken pipe");
        }
        offload.praise(&peer);
        for _ in 0..4 {
            offload.note_failure(peer, fast, "broken pipe");
        }
        offload.note_failure(peer, Duration::from_secs(600), "the power went");
        for _ in 0..4 {
            offload.note_failure(peer, fast, "broken pipe");
        }
        assert!(offload.grounded(&peer).is_none());
        offload.note_failure(peer, fast, "broken pipe");
        let grounded = offload.grounded(&peer).unwrap();
        assert!(grounded.for_s > 3500 && grounded.why == "broken pipe", "{grounded:?}");
    }

    #[test]
    fn where_to_build_is_read_as_it_was_written() {
        for on in [On::Policy, On::Local, On::Any, On::Peer(PeerId::random())] {
            assert_eq!(On::of_word(on.word().as_deref()), on);
        }
    }

    #[test]
    fn jobs_at_a_builder_are_counted_as_long_as_they_last() {
        let (offload, peer) = (offload(1), PeerId::random());
        let one = offload.give(peer);
        let two = offload.give(peer);
        assert_eq!(offload.given(&peer), 2);
        drop((one, two));
        assert_eq!(offload.given(&peer), 0);
    }
}
