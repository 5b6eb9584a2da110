//! What of this node goes to whom: one question, [`Gives::may_give`], asked wherever bytes, claims, packages or the log of a
//! build leave it. That somebody can name a thing is no right to it.

use crate::api_builds::Job;
use crate::binhost::{BinpkgRow, Owner};
use crate::builds::claim::SignedClaim;
use crate::builds::trust::Trust;
use crate::config_build::BuildShare;
use crate::group::Groups;
use crate::swarm::PeerId;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use store::Store;
use tree::digest::Digest;

/// Which of its things a node gives to others.
#[derive(Clone, Copy, Debug)]
pub struct Sharing {
    /// Distfiles.
    pub distfiles: bool,
    /// To whom binary packages that a claim names, and the claims.
    pub builds: BuildShare,
}

/// What somebody asks for.
#[derive(Clone, Copy, Debug)]
pub enum What<'a> {
    /// The bytes of a blob.
    Blob(&'a Digest),
    /// The claims that are kept on a recipe.
    Claims(&'a Digest),
    /// A binary package: its bytes, and a receipt for it.
    Package(&'a BinpkgRow),
    /// Word that there is a binary package.
    Word(&'a BinpkgRow),
    /// How a job goes on: its phases and its log.
    Job(&'a Job),
}

/// What this node gives to others: distfiles that every Manifest line naming them allows to share, to anybody near, and those
/// that are restricted to members of its groups, who are not told of them; its own binary packages of which a claim is kept
/// (there is none where RESTRICT or licence forbid it), to members and keys it trusts, or to anybody near if the user says so;
/// what was made for a client, to that client and nobody else; and what it offered to one peer, to that peer.
pub struct Gives {
    store: Store,
    sharing: Sharing,
    groups: Arc<Groups>,
    trust: Arc<Trust>,
    claimed: RwLock<Claimed>,
    /// Packages that were made for others, and for whom.
    made_for: RwLock<HashMap<Digest, Owner>>,
    /// Who was offered which blob, and how often, beside what is given to many.
    offered: RwLock<HashMap<Digest, HashMap<PeerId, usize>>>,
}

/// What the kept claims are about.
#[derive(Default)]
pub(crate) struct Claimed {
    pub(crate) fingerprints: HashSet<Digest>,
    packages: HashSet<Digest>,
}

impl Claimed {
    fn add(&mut self, claim: &SignedClaim) {
        self.fingerprints.insert(claim.claim.fingerprint);
        self.packages.insert(claim.claim.digest);
    }
}

impl Gives {
    /// Of this store, with these kept claims.
    #[must_use]
    pub fn new(
        store: &Store,
        sharing: Sharing,
        groups: Arc<Groups>,
        trust: Arc<Trust>,
        claims: &[SignedClaim],
    ) -> Self {
        let gives = Self {
            store: store.clone(),
            sharing,
            groups,
            trust,
            claimed: RwLock::default(),
            made_for: RwLock::default(),
            offered: RwLock::default(),
        };
        claims.iter().for_each(|claim| gives.note_claim(claim));
        gives
    }

    /// Whether this goes to this peer.
    #[must_use]
    pub fn may_give(&self, what: What<'_>, to: &PeerId) -> bool {
        match what {
            What::Blob(digest) => {
                self.gives_distfile(digest, to)
                    || self.gives_package(digest, self.owner_of(digest), to)
                    || self.is_offered(digest, to)
            }
            What::Claims(fingerprint) => self.gives_builds(to) && self.claimed().fingerprints.contains(fingerprint),
            What::Package(row) => self.gives_package(&row.digest, row.owner, to),
            What::Word(row) => match row.owner {
                Owner::This => self.groups.role(to).is_some(),
                Owner::Client(_) | Owner::Forgotten => self.gives_package(&row.digest, row.owner, to),
            },
            What::Job(job) => self.is_known(to) && job.client.as_deref() == Some(to.to_string().as_str()),
        }
    }

    /// Whether a question of this peer, or of this machine's own user, is answered with word of a package.
    #[must_use]
    pub fn may_tell(&self, row: &BinpkgRow, asked_by: Option<&PeerId>) -> bool {
        asked_by.is_none_or(|peer| self.may_give(What::Word(row), peer))
    }

    /// A claim was kept: what it names may be given from now on, if anything is.
    pub fn note_claim(&self, claim: &SignedClaim) {
        self.claimed.write().unwrap_or_else(PoisonError::into_inner).add(claim);
    }

    /// Whose these packages are.
    pub fn note_packages(&self, packages: impl IntoIterator<Item = (Digest, Owner)>) {
        let guests = packages.into_iter().filter(|(_, owner)| *owner != Owner::This);
        self.made_for.write().unwrap_or_else(PoisonError::into_inner).extend(guests);
    }

    /// These packages are not there any more.
    pub fn forget_packages(&self, gone: &[Digest]) {
        let mut made_for = self.made_for.write().unwrap_or_else(PoisonError::into_inner);
        made_for.retain(|digest, _| !gone.contains(digest));
    }

    /// Gives a blob of the store to this peer, until [`Gives::take_back`].
    pub fn offer(&self, digest: Digest, peer: PeerId) {
        let mut offered = self.offered.write().unwrap_or_else(PoisonError::into_inner);
        let times = offered.entry(digest).or_default().entry(peer).or_default();
        *times = times.saturating_add(1);
    }

    /// Takes back what [`Gives::offer`] gave.
    pub fn take_back(&self, digest: &Digest, peer: &PeerId) {
        let mut offered = self.offered.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(peers) = offered.get_mut(digest) {
            // Another job may have offered the same.
            if let Some(times) = peers.get_mut(peer) {
                *times = times.saturating_sub(1);
                if *times == 0 {
                    peers.remove(peer);
                }
            }
            if peers.is_empty() {
                offered.remove(digest);
            }
        }
    }

    /// True when a blob may be announced: it is given to anybody near.
    #[must_use]
    pub fn is_for_all(&self, digest: &Digest) -> bool {
        self.is_open_distfile(digest)
            || self.announces_builds()
                && self.owner_of(digest) == Owner::This
                && self.claimed().packages.contains(digest)
    }

    /// What only members are given is not announced: neither neighbours nor the DHT learn what is built here.
    pub(crate) fn announces_builds(&self) -> bool {
        self.sharing.builds == BuildShare::Lan
    }

    pub(crate) fn claimed(&self) -> RwLockReadGuard<'_, Claimed> {
        self.claimed.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose a package is. What is no package of another machine is this one's.
    fn owner_of(&self, digest: &Digest) -> Owner {
        let made_for = self.made_for.read().unwrap_or_else(PoisonError::into_inner);
        made_for.get(digest).copied().unwrap_or(Owner::This)
    }

    /// This machine's own goes where its claims go; what was made for a client goes to that client.
    fn gives_package(&self, digest: &Digest, owner: Owner, to: &PeerId) -> bool {
        match owner {
            Owner::This => self.gives_builds(to) && self.claimed().packages.contains(digest),
            Owner::Client(client) => client == *to && self.is_known(to),
            Owner::Forgotten => false,
        }
    }

    /// RESTRICT and licence allow it in every ebuild that names it. One that no Manifest here names may not be given.
    fn is_open_distfile(&self, digest: &Digest) -> bool {
        self.sharing.distfiles && self.store.catalog().may_announce(digest)
    }

    /// RESTRICT and the licences it follows from are about handing on to others. The machines of a group are no others: what
    /// their user brought to one of them by hand is for all of them. Nobody is told of it: who needs it asks every member.
    fn gives_distfile(&self, digest: &Digest, to: &PeerId) -> bool {
        let named = || !self.store.catalog().by_digest(digest).is_empty();
        self.is_open_distfile(digest) || self.sharing.distfiles && self.groups.role(to).is_some() && named()
    }

    /// What was offered to a peer that was taken off the group since is not given.
    fn is_offered(&self, digest: &Digest, to: &PeerId) -> bool {
        let offered = self.offered.read().unwrap_or_else(PoisonError::into_inner);
        self.is_known(to) && offered.get(digest).is_some_and(|peers| peers.contains_key(to))
    }

    /// Whether a peer is given packages and claims on them.
    fn gives_builds(&self, to: &PeerId) -> bool {
        match self.sharing.builds {
            BuildShare::None => false,
            BuildShare::Lan => true,
            BuildShare::Group => self.is_known(to),
        }
    }

    /// A member, or a key that the user listed.
    fn is_known(&self, peer: &PeerId) -> bool {
        self.groups.role(peer).is_some() || self.trust.is_trusted(peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binhost::a_row as row;
    use crate::builds::claim::Claim;
    use crate::group::Role;
    use crate::swarm::Identity;
    use std::time::Duration;
    use store::Options;

    const OWN: &[u8] = b"a package of this machine";
    const BOUND: &[u8] = b"a package that its licence binds";
    const GUEST: &[u8] = b"a package for a client";
    const OLD: &[u8] = b"a package for whom nobody knows";

    struct Node {
        _dir: tempfile::TempDir,
        store: Store,
        groups: Arc<Groups>,
        trust: Arc<Trust>,
        claim: SignedClaim,
    }

    impl Node {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(dir.path(), Options { free_min_bytes: 0, ..Options::default() }).unwrap();
            let identity = Identity::generate();
            let groups = Arc::new(Groups::open(&store, identity.clone()).unwrap());
            let trust = Arc::new(Trust::open(&store, Arc::clone(&groups)).unwrap());
            let claim = Claim {
                fingerprint: row(OWN, 1).fingerprint,
                cpv: "app-misc/one-1.0".parse().unwrap(),
                repo: "gentoo".to_owned(),
                slot: "0/0".to_owned(),
                digest: Digest::of(OWN),
                size: OWN.len() as u64,
                image: Digest::of(b"image"),
                made_at: 1,
            };
            Self { _dir: dir, store, groups, trust, claim: claim.sign(&identity) }
        }

        fn gives(&self, builds: BuildShare) -> Gives {
            let sharing = Sharing { distfiles: true, builds };
            let (groups, trust) = (Arc::clone(&self.groups), Arc::clone(&self.trust));
            Gives::new(&self.store, sharing, groups, trust, std::slice::from_ref(&self.claim))
        }

        fn member(&self, role: Role) -> PeerId {
            let peer = Identity::generate().peer_id();
            let (ticket, _) = self.groups.invite(role, Duration::from_secs(60), None, &[]).unwrap();
            self.groups.admit(&peer, &ticket.secret, "member").unwrap();
            peer
        }
    }

    fn job(client: Option<&PeerId>) -> Job {
        Job { client: client.map(ToString::to_string), ..crate::builds::jobs::queued(1) }
    }

    /// Each thing that there is, each kind of peer, each setting of `build.share`: who is given what.
    #[test]
    fn every_thing_goes_to_whom_it_is_for_and_to_nobody_else() {
        let node = Node::new();
        let (client, member, sign) = (node.member(Role::Build), node.member(Role::Fetch), node.member(Role::Sign));
        let (trusted, stranger) = (Identity::generate().peer_id(), PeerId::random());
        node.trust.set(&trusted.to_string(), &["*/*".to_owned()]).unwrap();
        let gone = node.member(Role::Build);
        let all = [client, member, sign, trusted, stranger, gone];
        let group = [true, true, true, true, false, false];
        for (builds, own) in [(BuildShare::Group, group), (BuildShare::Lan, [true; 6]), (BuildShare::None, [false; 6])]
        {
            let gives = node.gives(builds);
            let guest = BinpkgRow { owner: Owner::Client(client), ..row(GUEST, 1) };
            let of_gone = BinpkgRow { owner: Owner::Client(gone), ..row(b"gone", 1) };
            let old = BinpkgRow { owner: Owner::Forgotten, ..row(OLD, 1) };
            gives.note_packages([&guest, &of_gone, &old].map(|row| (row.digest, row.owner)));
            if node.groups.role(&gone).is_some() {
                assert!(gives.may_give(What::Package(&of_gone), &gone));
                node.groups.revoke(&gone).unwrap();
            }
            // A claim on a guest's package that an earlier program kept gives nothing.
            let claim = Claim { digest: guest.digest, ..node.claim.claim.clone() };
            gives.note_claim(&claim.sign(&Identity::generate()));
            let given = |what: What<'_>| all.map(|peer| gives.may_give(what, &peer));
            let (own_row, bound) = (row(OWN, 1), row(BOUND, 1));
            for (what, expected) in [
                (What::Package(&own_row), own),
                (What::Blob(&own_row.digest), own),
                (What::Claims(&own_row.fingerprint), own),
                (What::Package(&bound), [false; 6]),
                (What::Blob(&bound.digest), [false; 6]),
                (What::Claims(&bound.image), [false; 6]),
                (What::Package(&guest), [true, false, false, false, false, false]),
                (What::Blob(&guest.digest), [true, false, false, false, false, false]),
                (What::Package(&of_gone), [false; 6]),
                (What::Blob(&of_gone.digest), [false; 6]),
                (What::Package(&old), [false; 6]),
                (What::Blob(&old.digest), [false; 6]),
                // Which packages there are, members are told; of those of a client nobody else.
                (What::Word(&own_row), [true, true, true, false, false, false]),
                (What::Word(&guest), [true, false, false, false, false, false]),
                (What::Word(&old), [false; 6]),
                (What::Blob(&Digest::of(b"anything else that is here")), [false; 6]),
                (What::Job(&job(None)), [false; 6]),
                (What::Job(&job(Some(&client))), [true, false, false, false, false, false]),
                (What::Job(&job(Some(&gone))), [false; 6]),
            ] {
                assert_eq!(given(what), expected, "{what:?} with {builds:?}");
            }
            for digest in [GUEST, OLD, BOUND].map(Digest::of) {
                assert!(!gives.is_for_all(&digest));
            }
            assert_eq!(gives.is_for_all(&own_row.digest), builds == BuildShare::Lan);
        }
    }

    #[test]
    fn what_is_offered_to_one_peer_is_for_that_peer_until_it_is_taken_back_as_often() {
        let node = Node::new();
        let gives = node.gives(BuildShare::None);
        let (one, other, digest) = (node.member(Role::Build), node.member(Role::Sign), Digest::of(BOUND));
        let gives_to = |peer: &PeerId| gives.may_give(What::Blob(&digest), peer);
        gives.offer(digest, one);
        gives.offer(digest, one);
        gives.offer(digest, PeerId::random());
        assert!(gives_to(&one) && !gives_to(&other));
        gives.take_back(&digest, &other);
        gives.take_back(&digest, &one);
        assert!(gives_to(&one), "another job lends it still");
        gives.take_back(&digest, &one);
        assert!(!gives_to(&one));
    }
}
