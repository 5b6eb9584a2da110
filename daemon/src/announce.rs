//! The bridge from store to swarm: what is verified here and may be shared is announced, what is gone is withdrawn.

use crate::blocking;
use crate::builds::substitute::{all_claims, kept_claims};
use crate::builds::trust::Trust;
use crate::gives::{Gives, Sharing, What};
use crate::group::Groups;
use crate::swarm::{Dialogue, Held, Holdings, PeerId, ReadAt, Swarm, Topic};
use futures::future::BoxFuture;
use std::collections::HashSet;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use store::{Blob, Events, Store, Touched};
use tree::digest::Digest;

/// Digests taken from the store's list in one step.
const PAGE: usize = 4096;

/// Finds the answer to a member's question; None refuses it. Whether the peer may ask this is for it to say.
pub type Answerer = dyn Fn(PeerId, Vec<u8>) -> BoxFuture<'static, Option<Vec<u8>>> + Send + Sync;

/// Hears a peer that would give this machine a build.
pub type Converser = dyn Fn(PeerId, Dialogue) -> BoxFuture<'static, ()> + Send + Sync;

/// What this node gives to others, as the swarm asks for it: [`Gives`] says what to whom.
pub struct Shared {
    store: Store,
    gives: Gives,
    groups: Arc<Groups>,
    queries: OnceLock<Box<Answerer>>,
    dialogues: OnceLock<Box<Converser>>,
    given_bytes: Arc<AtomicU64>,
    /// What the swarm was told that is here.
    announced: Mutex<HashSet<Digest>>,
}

impl Shared {
    /// Of this store. Reads the claims: blocking.
    #[must_use]
    pub fn new(store: &Store, sharing: Sharing, groups: Arc<Groups>, trust: Arc<Trust>) -> Self {
        Self {
            store: store.clone(),
            gives: Gives::new(store, sharing, Arc::clone(&groups), trust, &all_claims(store)),
            groups,
            queries: OnceLock::new(),
            dialogues: OnceLock::new(),
            given_bytes: Arc::default(),
            announced: Mutex::default(),
        }
    }

    /// What goes to whom.
    #[must_use]
    pub fn gives(&self) -> &Gives {
        &self.gives
    }

    /// Says who answers questions of [`Topic::Query`] from now on; the first to say it stays.
    pub fn answer_queries(&self, answerer: Box<Answerer>) {
        if self.queries.set(answerer).is_err() {
            tracing::error!("queries are answered already");
        }
    }

    /// Says who hears the dialogues of peers from now on; the first to say it stays.
    pub fn hear_dialogues(&self, converser: Box<Converser>) {
        if self.dialogues.set(converser).is_err() {
            tracing::error!("dialogues are heard already");
        }
    }

    /// Bytes read to be given to peers since the start.
    #[must_use]
    pub fn given_bytes(&self) -> u64 {
        self.given_bytes.load(Ordering::Relaxed)
    }

    /// All that is announced now, held and allowed. Looks at every blob: blocking.
    fn list(&self) -> Vec<Digest> {
        let mut all: Vec<Digest> = Vec::new();
        if self.gives.announces_builds() {
            all.extend(&self.gives.claimed().fingerprints);
        }
        let mut after = None;
        loop {
            let page = self.store.list(after.as_ref(), PAGE);
            let Some((last, _size)) = page.last() else { return all };
            after = Some(*last);
            all.extend(page.iter().map(|(digest, _size)| *digest).filter(|digest| self.gives.is_for_all(digest)));
        }
    }

    fn lock_announced(&self) -> MutexGuard<'_, HashSet<Digest>> {
        self.announced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True when a digest is one of those that are announced now if they are held.
    fn announces(&self, digest: &Digest) -> bool {
        let gives = &self.gives;
        gives.is_for_all(digest) || gives.announces_builds() && gives.claimed().fingerprints.contains(digest)
    }
}

struct OpenBlob {
    blob: Blob,
    given_bytes: Arc<AtomicU64>,
}

impl ReadAt for OpenBlob {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let count = self.blob.read_at(offset, into)?;
        self.given_bytes.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

impl Holdings for Shared {
    fn open(&self, digest: &Digest, peer: &PeerId) -> Option<Held> {
        if !self.gives.may_give(What::Blob(digest), peer) {
            return None;
        }
        let blob = crate::domain::held(&self.store, digest)?;
        let given_bytes = Arc::clone(&self.given_bytes);
        Some(Held { size: blob.size(), reader: Box::new(OpenBlob { blob, given_bytes }) })
    }

    fn claims(&self, fingerprint: &Digest, peer: &PeerId) -> Vec<Vec<u8>> {
        if !self.gives.may_give(What::Claims(fingerprint), peer) {
            return Vec::new();
        }
        kept_claims(&self.store, fingerprint).iter().map(|claim| claim.as_bytes().to_vec()).collect()
    }

    fn converse(&self, peer: PeerId, dialogue: Dialogue) -> BoxFuture<'static, ()> {
        match self.dialogues.get() {
            Some(converser) => converser(peer, dialogue),
            None => Box::pin(std::future::ready(())),
        }
    }

    fn is_member(&self, peer: &PeerId) -> bool {
        self.groups.role(peer).is_some()
    }

    fn answer(&self, peer: PeerId, topic: Topic, question: Vec<u8>) -> BoxFuture<'static, Option<Vec<u8>>> {
        match (topic, self.queries.get()) {
            (Topic::Group, _) => {
                let groups = Arc::clone(&self.groups);
                Box::pin(blocking::run(move || groups.answer(&peer, &question)))
            }
            (Topic::Query, Some(answerer)) => answerer(peer, question),
            (Topic::Query, None) => Box::pin(std::future::ready(None)),
        }
    }

    fn announced(&self) -> Vec<Digest> {
        // Listed under the lock: what comes or goes meanwhile is noted after this, not before.
        let mut announced = self.lock_announced();
        let all = self.list();
        announced.extend(&all);
        all
    }
}

/// Keeps the announcements true: each change costs by what changed.
pub struct Announcer {
    shared: Arc<Shared>,
}

impl Announcer {
    /// Of what is shared; the swarm lists it by itself when it starts.
    #[must_use]
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// What is given to others.
    #[must_use]
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// One blob came or went.
    pub fn note(&self, swarm: &Swarm, digest: Digest, held: bool) {
        let mut announced = self.shared.lock_announced();
        if held && self.shared.announces(&digest) {
            if announced.insert(digest) {
                swarm.announce(&[digest]);
            }
        } else if announced.remove(&digest) {
            swarm.withdraw(&[digest]);
        }
    }

    /// Looks again at what the repositories say otherwise than before. Blocking.
    pub fn follow_catalog(&self, swarm: &Swarm) {
        match self.shared.store.catalog().take_touched() {
            Touched::Digests(digests) => {
                for digest in digests {
                    // A fingerprint is no blob, and no repository says anything of it.
                    self.note(swarm, digest, self.shared.store.contains(&digest));
                }
            }
            Touched::Many => self.compare(swarm),
        }
    }

    /// Compares everything: after events were lost, or most of the catalog was written. Blocking.
    pub fn compare(&self, swarm: &Swarm) {
        // Listed under the lock: what comes or goes meanwhile is noted after this, not before.
        let mut announced = self.shared.lock_announced();
        let now: HashSet<Digest> = self.shared.list().into_iter().collect();
        let gone: Vec<Digest> = announced.difference(&now).copied().collect();
        let new: Vec<Digest> = now.difference(&announced).copied().collect();
        if !gone.is_empty() {
            swarm.withdraw(&gone);
        }
        if !new.is_empty() {
            swarm.announce(&new);
        }
        *announced = now;
    }
}

impl std::fmt::Debug for Announcer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = self.shared.lock_announced().len();
        write!(f, "Announcer({count} announced)")
    }
}

/// Follows the store's events until the daemon stops. The first are subscribed to before the swarm lists what is here, so that
/// nothing is missed between; without them everything is compared first.
pub async fn follow(store: Store, events: Option<Events>, swarm: Swarm, announcer: Arc<Announcer>) {
    let missed = events.is_none();
    let mut events = Some(events.unwrap_or_else(|| store.subscribe()));
    if missed {
        let (comparing, told) = (Arc::clone(&announcer), swarm.clone());
        blocking::run(move || comparing.compare(&told)).await;
    }
    while let Some(feed) = events.take() {
        let (swarm, announcer) = (swarm.clone(), Arc::clone(&announcer));
        // The wait is short so that the blocking pool is free to end when the daemon stops.
        events = blocking::run(move || {
            match feed.next_within(EVENT_WAIT) {
                Ok(store::Event::Added(digest, _size)) => announcer.note(&swarm, digest, true),
                Ok(store::Event::Removed(digest)) => announcer.note(&swarm, digest, false),
                Ok(store::Event::Lost) => announcer.compare(&swarm),
                Err(store::NextEventError::Quiet) => {}
                Err(store::NextEventError::Closed) => return None,
            }
            Some(feed)
        })
        .await;
    }
}

/// How long one look at the store's feed waits.
const EVENT_WAIT: std::time::Duration = std::time::Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builds::claim::{Claim, SignedClaim};
    use crate::builds::substitute::claim_key;
    use crate::config_build::BuildShare;
    use crate::group::Role;
    use crate::swarm::Identity;
    use std::time::Duration;
    use store::{Options, RowTable, Wanted};

    const PACKAGE: &[u8] = b"a signed package";

    struct Node {
        _dir: tempfile::TempDir,
        store: Store,
        groups: Arc<Groups>,
        trust: Arc<Trust>,
        claim: SignedClaim,
    }

    impl Node {
        /// A node that built one package.
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(dir.path(), Options { free_min_bytes: 0, ..Options::default() }).unwrap();
            let identity = Identity::generate();
            let groups = Arc::new(Groups::open(&store, identity.clone()).unwrap());
            let trust = Arc::new(Trust::open(&store, Arc::clone(&groups)).unwrap());
            let digest = Digest::of(PACKAGE);
            let mut incoming = store.incoming(&Wanted { digest, size: None, sha512: None }).unwrap();
            incoming.append(PACKAGE).unwrap();
            incoming.finish().unwrap();
            let claim = Claim {
                fingerprint: Digest::of(b"recipe"),
                cpv: "app-misc/one-1.0".parse().unwrap(),
                repo: "gentoo".to_owned(),
                slot: "0/0".to_owned(),
                digest,
                size: PACKAGE.len() as u64,
                image: Digest::of(b"image"),
                made_at: 1,
            };
            let claim = claim.sign(&identity);
            store.put_row(RowTable::Claims, &claim_key(&claim), claim.as_bytes()).unwrap();
            Self { _dir: dir, store, groups, trust, claim }
        }

        fn shared(&self, builds: BuildShare) -> Shared {
            let sharing = Sharing { distfiles: true, builds };
            Shared::new(&self.store, sharing, Arc::clone(&self.groups), Arc::clone(&self.trust))
        }

        /// A member with this role.
        fn member(&self, role: Role) -> PeerId {
            let peer = Identity::generate().peer_id();
            let (ticket, _) = self.groups.invite(role, Duration::from_secs(60), None, &[]).unwrap();
            self.groups.admit(&peer, &ticket.secret, "member").unwrap();
            peer
        }

        /// Whether a peer is given the package, and the claim on it.
        fn gives(&self, shared: &Shared, peer: &PeerId) -> [bool; 2] {
            let claims = shared.claims(&self.claim.claim.fingerprint, peer);
            [shared.open(&self.claim.claim.digest, peer).is_some(), claims == [self.claim.as_bytes()]]
        }
    }

    #[test]
    fn packages_are_for_members_and_trusted_keys_and_nobody_hears_of_them() {
        let node = Node::new();
        let shared = node.shared(BuildShare::Group);
        let (member, trusted, stranger) = (node.member(Role::Fetch), Identity::generate().peer_id(), PeerId::random());
        node.trust.set(&trusted.to_string(), &["app-misc/other".to_owned()]).unwrap();
        assert_eq!(node.gives(&shared, &member), [true; 2]);
        assert_eq!(node.gives(&shared, &trusted), [true; 2]);
        assert_eq!(node.gives(&shared, &stranger), [false; 2]);
        assert!(shared.announced().is_empty() && !shared.announces(&node.claim.claim.fingerprint));
        assert!(shared.is_member(&member) && !shared.is_member(&trusted));
        node.groups.revoke(&member).unwrap();
        node.groups.block(&trusted).unwrap();
        assert_eq!(node.gives(&shared, &member), [false; 2]);
        assert_eq!(node.gives(&shared, &trusted), [false; 2]);
    }

    #[test]
    fn the_user_may_give_packages_to_everybody_near_or_to_nobody() {
        let node = Node::new();
        let (member, stranger) = (node.member(Role::Sign), PeerId::random());
        let (lan, none) = (node.shared(BuildShare::Lan), node.shared(BuildShare::None));
        assert_eq!(node.gives(&lan, &stranger), [true; 2]);
        assert_eq!(lan.announced().len(), 2, "package and fingerprint");
        assert_eq!(node.gives(&none, &member), [false; 2]);
        assert!(none.announced().is_empty());
    }

    #[test]
    fn restricted_distfiles_are_for_members_of_any_role_and_nobody_hears_of_them() {
        let node = Node::new();
        let digest = Digest::of(PACKAGE);
        let (member, trusted, stranger) = (node.member(Role::Fetch), Identity::generate().peer_id(), PeerId::random());
        node.trust.set(&trusted.to_string(), &["*/*".to_owned()]).unwrap();
        let shared = node.shared(BuildShare::None);
        assert!(shared.open(&digest, &member).is_none(), "no Manifest names it");
        let row = store::CatalogEntry {
            digest,
            size: PACKAGE.len() as u64,
            sha512: None,
            name: "one-1.0.bin".to_owned(),
            repo: "gentoo".to_owned(),
            package: "app-misc/one".to_owned(),
            uris: Vec::new(),
            may_mirror: false,
            may_fetch: false,
            may_announce: false,
            ebuilds: vec!["one-1.0".to_owned()],
        };
        node.store.catalog().replace_package("gentoo", "app-misc/one", [1; 16], &[row]).unwrap();
        assert!(shared.open(&digest, &member).is_some());
        assert!(shared.open(&digest, &trusted).is_none() && shared.open(&digest, &stranger).is_none());
        assert!(shared.announced().is_empty() && !shared.announces(&digest));
        let nothing = Sharing { distfiles: false, builds: BuildShare::Group };
        let silent = Shared::new(&node.store, nothing, Arc::clone(&node.groups), Arc::clone(&node.trust));
        node.store.delete_row(RowTable::Claims, &claim_key(&node.claim)).unwrap();
        let silent_without_claim = Shared::new(&node.store, nothing, Arc::clone(&node.groups), Arc::clone(&node.trust));
        assert!(silent.open(&digest, &member).is_some(), "as a package");
        assert!(silent_without_claim.open(&digest, &member).is_none(), "share.distfiles is false");
        node.groups.revoke(&member).unwrap();
        assert!(shared.open(&digest, &member).is_none(), "it was taken off the group");
    }

    #[tokio::test]
    async fn queries_are_refused_until_somebody_answers_them() {
        let node = Node::new();
        let shared = node.shared(BuildShare::Group);
        let peer = PeerId::random();
        assert_eq!(shared.answer(peer, Topic::Query, b"abc".to_vec()).await, None);
        shared.answer_queries(Box::new(move |from, question| {
            Box::pin(std::future::ready((from == peer).then_some(question)))
        }));
        assert_eq!(shared.answer(peer, Topic::Query, b"abc".to_vec()).await, Some(b"abc".to_vec()));
        assert_eq!(shared.answer(PeerId::random(), Topic::Query, b"abc".to_vec()).await, None);
    }
}
