//! Whom builds for others are made for, and who of them is there to hear of it: what nobody hears of for too long is ended.

use super::lock;
use crate::builds::jobs::Entry;
use crate::domain::Domain;
use crate::swarm::PeerId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;
use tree::digest::Digest;

/// Foreign jobs that may wait for each one that may run.
const WAITING_FACTOR: usize = 4;
/// How often it is looked whether somebody listens, at most.
const LOOK_PERIOD: Duration = Duration::from_secs(5);

/// What is made for whom.
type Wanted = (Digest, PeerId);

/// The queue of builds for others: which fingerprints are made for whom, and in how many dialogues that client listens. What
/// is made for one is nobody else's, also where the recipe is the same.
#[derive(Debug)]
pub(in crate::builds) struct Guests {
    jobs_max: usize,
    waiting: Mutex<HashMap<Wanted, usize>>,
}

impl Guests {
    pub(super) fn new(jobs_max: usize) -> Self {
        Self { jobs_max, waiting: Mutex::default() }
    }

    /// A client waits for a fingerprint, which has a place in the queue from now on; None when there is no room for more.
    pub(super) fn place(&self, fingerprint: &Digest, client: PeerId) -> Option<Place<'_>> {
        let new = !self.has(fingerprint, &client);
        self.welcome(fingerprint, client).then(|| Place {
            guests: self,
            wanted: (*fingerprint, client),
            given_back: new,
        })
    }

    fn welcome(&self, fingerprint: &Digest, client: PeerId) -> bool {
        let mut waiting = lock(&self.waiting);
        let room = self.jobs_max.saturating_mul(1 + WAITING_FACTOR);
        if !waiting.contains_key(&(*fingerprint, client)) && waiting.len() >= room {
            return false;
        }
        waiting.entry((*fingerprint, client)).or_default();
        true
    }

    /// A client listens to how its build goes on, as long as the answer lives.
    pub(super) fn listen(&self, fingerprint: Digest, client: PeerId) -> Listening<'_> {
        if let Some(dialogues) = lock(&self.waiting).get_mut(&(fingerprint, client)) {
            *dialogues = dialogues.saturating_add(1);
        }
        Listening { guests: self, wanted: (fingerprint, client) }
    }

    /// Whether the client listens.
    fn is_heard(&self, wanted: &Wanted) -> bool {
        lock(&self.waiting).get(wanted).is_some_and(|dialogues| *dialogues > 0)
    }

    /// It was made or not, or is not wanted: nobody waits any more.
    pub(super) fn farewell(&self, fingerprint: &Digest, client: &PeerId) {
        lock(&self.waiting).remove(&(*fingerprint, *client));
    }

    /// Whether a client asked for just this.
    pub(in crate::builds) fn has(&self, fingerprint: &Digest, client: &PeerId) -> bool {
        lock(&self.waiting).contains_key(&(*fingerprint, *client))
    }

    /// How many packages are made for others, or wait for it.
    #[must_use]
    pub(super) fn count(&self) -> usize {
        lock(&self.waiting).len()
    }
}

/// A place in the queue of foreign jobs; it is free again with this, unless a job has it by then.
pub(super) struct Place<'a> {
    guests: &'a Guests,
    wanted: Wanted,
    given_back: bool,
}

impl Place<'_> {
    /// A job has it now, and gives it back when it ends.
    pub(super) fn taken(mut self) {
        self.given_back = false;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.given_back {
            self.guests.farewell(&self.wanted.0, &self.wanted.1);
        }
    }
}

/// A client hears of its build.
pub(super) struct Listening<'a> {
    guests: &'a Guests,
    wanted: Wanted,
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        if let Some(dialogues) = lock(&self.guests.waiting).get_mut(&self.wanted) {
            *dialogues = dialogues.saturating_sub(1);
        }
    }
}

/// Keeps a build for another machine as long as somebody hears of it, and for the time of a lease after; lets go of its place
/// in the queue when it ended.
pub(super) fn keep(domain: &Arc<Domain>, entry: &Arc<Entry>, fingerprint: Digest, client: PeerId) {
    let (domain, entry) = (Arc::clone(domain), Arc::clone(entry));
    let tasks = domain.tasks.clone();
    tasks.spawn("guest", async move {
        let guests = &domain.builds.offload.guests;
        let lease = Duration::from_secs(domain.config.offload.lease_s);
        let mut heard = Instant::now();
        while tokio::time::timeout(LOOK_PERIOD.min(lease), entry.end()).await.is_err() {
            if guests.is_heard(&(fingerprint, client)) {
                heard = Instant::now();
            } else if heard.elapsed() >= lease {
                let name = entry.now().client_name.unwrap_or_else(|| "whom it is for".to_owned());
                entry
                    .cancel_because(format!("nothing was heard of {name} for {} s (offload.lease_s)", lease.as_secs()));
                break;
            }
        }
        entry.end().await;
        guests.farewell(&fingerprint, &client);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: u8) -> Digest {
        Digest::of(&[n])
    }

    #[test]
    fn a_queue_has_an_end_and_what_is_made_for_one_is_another_place_than_the_same_for_another() {
        let (guests, one, two) = (Guests::new(1), PeerId::random(), PeerId::random());
        for n in 0..4 {
            assert!(guests.welcome(&digest(n), one));
        }
        assert!(guests.welcome(&digest(0), two), "the same recipe for another");
        assert!(!guests.welcome(&digest(5), two) && guests.welcome(&digest(0), one), "what has a place keeps it");
        guests.farewell(&digest(0), &one);
        assert!(!guests.has(&digest(0), &one) && guests.has(&digest(0), &two));
        assert!(guests.welcome(&digest(5), two));
        assert!(!Guests::new(0).welcome(&digest(0), one), "this one builds for nobody");
    }

    #[test]
    fn a_build_is_heard_of_as_long_as_its_client_listens_and_by_nobody_else() {
        let (guests, one, two) = (Guests::new(1), PeerId::random(), PeerId::random());
        let place = guests.place(&digest(0), one).unwrap();
        let heard = |client| guests.is_heard(&(digest(0), client));
        assert!(!heard(one), "a place is no ear");
        let (first, second) = (guests.listen(digest(0), one), guests.listen(digest(0), one));
        guests.place(&digest(0), two).unwrap().taken();
        let of_other = guests.listen(digest(0), two);
        drop(first);
        assert!(heard(one) && heard(two));
        drop(second);
        assert!(!heard(one) && heard(two) && guests.has(&digest(0), &one), "it may come back");
        drop(of_other);
        place.taken();
        assert_eq!(guests.count(), 2);
    }
}
