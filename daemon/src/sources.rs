//! Who is asked for one distfile, in which order, and what is remembered of how it went.
//!
//! Nobody can use up what others need to be asked: strangers have a count of their own, and places of their own among the
//! transfers; a mirror is asked beside them as soon as the first peer did not give the file, and always before "nobody has it".

mod opened;

pub use opened::{BrokeOff, Contributor, Opened};

use crate::budget::{Class, Place, Places, Who};
use crate::fetcher::FIND_MAX;
use crate::flight::ObtainError;
use crate::swarm::{self, Offence, OpenError, Swarm};
use crate::tasks::Tasks;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Either, select};
use libp2p::PeerId;
use mirrors::{Candidate, FetchError, Mirrors, Patience, Report, Rounds};
use opened::OpenBody;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::oneshot;
use tree::digest::Digest;

/// Strangers that one flight asks while others can be asked, and once nobody else is left.
const STRANGERS_MAX: usize = 16;
/// See [`STRANGERS_MAX`].
const STRANGERS_AT_LAST_MAX: usize = 48;
/// Openings at peers that the user named or that did well; each may be asked more than once.
const NAMED_MAX: usize = 64;
/// Wrong files of strangers after which they are asked last.
const LIES_MAX: u32 = 2;
/// A peer that does not answer by then is left while others may have it: a dead one must cost less than 100 ms.
const ANSWER_WITH_OTHERS: Duration = Duration::from_millis(90);
/// A peer that is the last hope gets more.
const ANSWER_ALONE: Duration = Duration::from_secs(3);

/// The question to the DHT: asked when no connected peer has it, or the first one that should have it did not give it.
enum Search {
    NotAsked,
    Asked(oneshot::Receiver<Vec<PeerId>>),
    Answered,
}

type OpeningPeer = (PeerId, BoxFuture<'static, Result<swarm::Body, OpenError>>);
type OpeningHttp = (Candidate, Patience, BoxFuture<'static, Result<mirrors::Body, FetchError>>);

/// Everyone who may be asked for one distfile.
pub struct Sources {
    digest: Digest,
    swarm: Swarm,
    mirrors: Mirrors,
    wanted: Option<mirrors::Source>,
    tasks: Tasks,
    peers: VecDeque<PeerId>,
    /// Peers that may have it without saying so, asked when nobody else is left who would answer at once.
    silent: Vec<PeerId>,
    /// Peers that did not answer in the short time given while there were others, were slow or busy, or did badly before: they
    /// are asked again, patiently, when the others have failed.
    late: Vec<PeerId>,
    /// Peers whose file is shorter than what came so far, of a file whose size nobody proved.
    shorter: Vec<PeerId>,
    /// Strangers for whom there was no place among the transfers, or that were too many.
    crowded: VecDeque<PeerId>,
    rounds: Rounds,
    search: Search,
    excluded: Vec<Contributor>,
    one_alone: bool,
    opened: usize,
    strangers: usize,
    named: usize,
    lies: u32,
    last: Option<String>,
    /// A mirror whose turn it is once the peers before it have been asked.
    postponed: Option<(Candidate, Patience)>,
    /// A peer did not give it: mirrors are asked beside the others.
    failed: bool,
    /// True once nobody else is left: peers then get [`ANSWER_ALONE`].
    patient: bool,
    /// The place among the transfers, which counts for whoever brings the bytes.
    place: Option<Place>,
    places: Option<Places>,
}

impl Sources {
    /// Peers for `digest`, and HTTP where `wanted` says what and whom may be asked.
    #[must_use]
    pub fn new(
        digest: Digest,
        swarm: &Swarm,
        mirrors: &Mirrors,
        wanted: Option<mirrors::Source>,
        tasks: &Tasks,
    ) -> Self {
        let candidates = wanted.as_ref().map(|wanted| mirrors.plan(wanted)).unwrap_or_default();
        let (late, peers): (Vec<_>, Vec<_>) =
            swarm.holders(&digest).into_iter().partition(|peer| swarm.is_doubted(peer));
        let mut sources = Self {
            digest,
            swarm: swarm.clone(),
            mirrors: mirrors.clone(),
            wanted,
            tasks: tasks.clone(),
            peers: peers.into(),
            silent: Vec::new(),
            late,
            shorter: Vec::new(),
            crowded: VecDeque::new(),
            rounds: Rounds::new(candidates),
            search: Search::NotAsked,
            excluded: Vec::new(),
            one_alone: false,
            opened: 0,
            strangers: 0,
            named: 0,
            lies: 0,
            last: None,
            postponed: None,
            failed: false,
            patient: false,
            place: None,
            places: None,
        };
        if sources.peers.is_empty() {
            sources.start_search();
        }
        sources
    }

    /// The place of this flight among the transfers.
    #[must_use]
    pub fn within(mut self, places: &Places, place: Place) -> Self {
        (self.places, self.place) = (Some(places.clone()), Some(place));
        self
    }

    /// Asks these first; whom the swarm says to hold it comes after them.
    #[must_use]
    pub fn first(mut self, first: &[PeerId]) -> Self {
        self.peers.retain(|peer| !first.contains(peer));
        for peer in first.iter().rev() {
            self.peers.push_front(*peer);
        }
        self
    }

    /// Asks these too, which may have it though they told nobody: after mirrors and hosts, together with whom the DHT named.
    #[must_use]
    pub fn silent(mut self, silent: Vec<PeerId>) -> Self {
        self.silent = silent;
        self
    }

    /// Asks the DHT in the background, while mirrors are tried.
    fn start_search(&mut self) {
        if !matches!(self.search, Search::NotAsked) {
            return;
        }
        let (tell, found) = oneshot::channel();
        let (asking, digest) = (self.swarm.clone(), self.digest);
        self.tasks.spawn("find providers", async move {
            // A flight that has ended does not listen any more.
            let _gone = tell.send(asking.find(&digest, FIND_MAX).await);
        });
        self.search = Search::Asked(found);
    }

    /// True when bytes of several sources did not fit together: from now on each source starts from the first byte.
    #[must_use]
    pub fn one_alone(&self) -> bool {
        self.one_alone
    }

    /// The next source that begins to answer from byte `from` (or from 0).
    ///
    /// Cancel safe: yes; the source being opened is then lost.
    pub async fn next(&mut self, from: u64) -> Option<Opened> {
        let (mut peer, mut http): (Option<OpeningPeer>, Option<OpeningHttp>) = (None, None);
        loop {
            peer = peer.or_else(|| self.begin_peer(from));
            if http.is_none() && (peer.is_none() || self.failed) {
                http = self.begin_http(from);
            }
            let waits_long = http.as_ref().is_none_or(|(_, patience, _)| *patience == Patience::Long);
            // Whom the DHT named, and slow peers, come before and beside waiting long for slow mirrors.
            if peer.is_none() && waits_long && self.more_peers().await {
                continue;
            }
            let opened = match (peer.take(), http.take()) {
                (None, None) => match self.wait_for_a_stranger(from).await {
                    Some(waited) => {
                        peer = Some(waited);
                        continue;
                    }
                    None => return None,
                },
                (Some((who, opening)), None) => self.peer_answered(who, from, opening.await),
                (None, Some((candidate, _, opening))) => self.http_answered(candidate, opening.await),
                (Some((who, asking)), Some((candidate, patience, opening))) => match select(asking, opening).await {
                    Either::Left((answered, opening)) => {
                        let opened = self.peer_answered(who, from, answered);
                        match &opened {
                            Some(_) => self.postponed = Some((candidate, patience)),
                            None => http = Some((candidate, patience, opening)),
                        }
                        opened
                    }
                    Either::Right((answered, asking)) => {
                        let opened = self.http_answered(candidate, answered);
                        match &opened {
                            Some(_) => self.peers.push_front(who),
                            None => peer = Some((who, asking)),
                        }
                        opened
                    }
                },
            };
            if opened.is_some() {
                return opened;
            }
        }
    }

    /// Peers that were not asked yet, or not patiently: those the DHT named, the silent ones, and those that were late. False when there
    /// are none left.
    async fn more_peers(&mut self) -> bool {
        if let Search::Asked(found) = std::mem::replace(&mut self.search, Search::Answered) {
            // The search has its own deadline, FIND_MAX; a closed channel means the daemon stops.
            self.peers.extend(found.await.unwrap_or_default());
        }
        self.patient = true;
        self.peers.extend(self.silent.drain(..));
        self.peers.extend(self.late.drain(..));
        !self.peers.is_empty()
    }

    /// Asks the next peer that may be asked, if there is a place for it.
    fn begin_peer(&mut self, from: u64) -> Option<OpeningPeer> {
        loop {
            let peer = self.peers.pop_front()?;
            if self.is_excluded(&Contributor::Peer(peer)) {
                continue;
            }
            let who = self.swarm.who(&peer);
            let strange = who.class == Class::Stranger;
            let too_many = match strange {
                true => self.strangers >= STRANGERS_MAX || self.lies >= LIES_MAX,
                false => self.named >= NAMED_MAX,
            };
            if too_many || !self.counts_for(who) {
                self.failed = true;
                self.crowded.push_back(peer);
                continue;
            }
            self.strangers += usize::from(strange);
            self.named += usize::from(!strange);
            return Some(self.ask_peer(peer, from));
        }
    }

    fn ask_peer(&mut self, peer: PeerId, from: u64) -> OpeningPeer {
        self.opened += 1;
        let patience = if self.patient { ANSWER_ALONE } else { ANSWER_WITH_OTHERS };
        let (swarm, digest) = (self.swarm.clone(), self.digest);
        (peer, async move { swarm.open_within(peer, &digest, from, patience).await }.boxed())
    }

    /// The place among the transfers is for this one from now on. False when there is none for it.
    fn counts_for(&self, who: Who) -> bool {
        self.place.as_ref().is_none_or(|place| place.becomes(who))
    }

    /// Nobody else is left: gives up the place and waits for one that strangers may have.
    async fn wait_for_a_stranger(&mut self, from: u64) -> Option<OpeningPeer> {
        let peer = loop {
            let peer = self.crowded.pop_front().filter(|_| self.strangers < STRANGERS_AT_LAST_MAX)?;
            if !self.is_excluded(&Contributor::Peer(peer)) {
                break peer;
            }
        };
        self.strangers += 1;
        if let Some(places) = &self.places {
            drop(self.place.take());
            self.place = Some(places.enter_when_free(self.swarm.who(&peer)).await);
        }
        Some(self.ask_peer(peer, from))
    }

    fn is_excluded(&self, who: &Contributor) -> bool {
        self.excluded.iter().any(|excluded| excluded.is(who))
    }

    fn peer_answered(&mut self, peer: PeerId, from: u64, answer: Result<swarm::Body, OpenError>) -> Option<Opened> {
        let size = self.wanted.as_ref().map(|wanted| wanted.distfile.size);
        let told = match answer {
            Ok(body) if size.is_none_or(|size| size == body.size()) => {
                let mut opened = Opened::new(OpenBody::Peer(peer, body, from));
                if self.patient {
                    opened.be_patient();
                }
                return Some(opened);
            }
            // The Manifest says how large it is. Whether it is the peer that lies cannot be known without all of its bytes: a wrong
            // Manifest must not have all blamed that have the file.
            Ok(body) => format!("peer {peer} has another size, of {} bytes", body.size()),
            Err(error) => {
                tracing::debug!(%peer, digest = ?self.digest, %error, "peer does not give it");
                if !self.patient && matches!(error, OpenError::NoAnswer { .. } | OpenError::Busy { .. }) {
                    self.late.push(peer);
                }
                if matches!(error, OpenError::OutOfRange { .. }) && from > 0 {
                    self.shorter.push(peer);
                }
                if let Some(offence) = error.offence() {
                    self.swarm.blame(peer, offence);
                }
                format!("peer {peer}: {error}")
            }
        };
        self.failed = true;
        self.start_search();
        // That somebody simply does not have it says less than what a mirror said.
        self.last.get_or_insert(told);
        None
    }

    /// Asks the next candidate of the plan.
    fn begin_http(&mut self, from: u64) -> Option<OpeningHttp> {
        loop {
            let (candidate, patience) = self.postponed.take().or_else(|| self.rounds.next())?;
            let wanted = self.wanted.clone()?;
            if self.is_excluded(&Contributor::Http(candidate.clone())) {
                continue;
            }
            self.opened += 1;
            let (mirrors, asked) = (self.mirrors.clone(), candidate.clone());
            let opening = async move { mirrors.open(&asked, &wanted, from, patience).await };
            return Some((candidate, patience, opening.boxed()));
        }
    }

    fn http_answered(&mut self, candidate: Candidate, answer: Result<mirrors::Body, FetchError>) -> Option<Opened> {
        let error = match answer {
            Ok(body) => {
                // There is always room for what this machine's own user named.
                let _counted = self.counts_for(Who::OWN);
                return Some(Opened::new(OpenBody::Http(candidate, Box::new(body))));
            }
            Err(error) => error,
        };
        tracing::debug!(%candidate, digest = ?self.digest, %error, "source does not give it");
        self.mirrors.report(&candidate, Report::Failed(&error));
        self.rounds.failed(&error);
        self.last = Some(format!("{candidate}: {error}"));
        None
    }

    /// A source sent all it had.
    pub fn served(&mut self, opened: &Opened) {
        if let OpenBody::Http(candidate, _) = &opened.body {
            let elapsed = opened.started.elapsed();
            self.mirrors.report(candidate, Report::Served { bytes: opened.received, elapsed });
        }
    }

    /// A source broke off.
    pub fn broke_off(&mut self, opened: &Opened, broke: &BrokeOff) {
        tracing::info!(source = ?opened.contributor(), digest = ?self.digest, received = opened.received, %broke, "source broke off");
        self.last = Some(broke.to_string());
        match (&opened.body, broke) {
            (OpenBody::Http(candidate, _), BrokeOff::Http(error)) => {
                self.mirrors.report(candidate, Report::Failed(error));
            }
            (OpenBody::Peer(peer, ..), BrokeOff::Peer(error)) => {
                self.failed = true;
                self.start_search();
                if !self.patient && error.offence() == Offence::Slow {
                    self.late.push(*peer);
                }
                self.swarm.blame(*peer, error.offence());
            }
            // A body only gives errors of its own kind.
            _ => {}
        }
    }

    /// All bytes were there and what the digest says.
    pub fn right(&self, contributors: &[Contributor]) {
        if let [Contributor::Peer(peer)] = contributors {
            self.swarm.praise(*peer);
        }
    }

    /// All bytes were there and the digest was wrong. True when it was a stranger that brought them: what strangers do does not
    /// use up the patience with the others.
    pub fn wrong(&mut self, contributors: &[Contributor]) -> bool {
        let mut strange = false;
        match contributors {
            [Contributor::Peer(peer)] => {
                tracing::warn!(%peer, digest = ?self.digest, "peer sent wrong bytes");
                strange = self.swarm.who(peer).class == Class::Stranger;
                self.lies += u32::from(strange);
                self.failed = true;
                self.swarm.blame(*peer, Offence::WrongBytes);
                self.last = Some(format!("peer {peer} sent wrong bytes"));
            }
            [Contributor::Http(candidate)] => {
                tracing::warn!(%candidate, digest = ?self.digest, "source sent wrong bytes");
                self.mirrors.report(candidate, Report::WrongBytes);
                self.last = Some(format!("{candidate} sent wrong bytes"));
            }
            _ => {
                tracing::warn!(?contributors, digest = ?self.digest, "bytes of several sources do not fit together");
                self.last = Some("bytes of several sources did not fit together".to_owned());
                self.start_over_alone();
                return false;
            }
        }
        self.excluded.extend_from_slice(contributors);
        strange
    }

    /// Everyone once more from the first byte, mirrors first.
    fn start_over_alone(&mut self) {
        self.one_alone = true;
        let candidates = self.wanted.as_ref().map(|wanted| self.mirrors.plan(wanted)).unwrap_or_default();
        // Peers come after the mirrors now.
        self.late = self.swarm.holders(&self.digest);
        self.peers.clear();
        self.rounds = Rounds::new(candidates);
        (self.postponed, self.failed) = (None, true);
    }

    /// Asks again, from the first byte, whose file is shorter than what came so far. False when there is nobody.
    pub fn take_shorter(&mut self) -> bool {
        self.peers.extend(self.shorter.drain(..));
        !self.peers.is_empty()
    }

    /// Asks a peer again, from another byte.
    pub fn once_more(&mut self, opened: &Opened) {
        if let OpenBody::Peer(peer, ..) = &opened.body {
            self.peers.push_front(*peer);
        }
    }

    /// The error for a Manifest whose digests are of two files.
    #[must_use]
    pub fn contradiction(&self) -> ObtainError {
        let last = Some("the BLAKE2B of the Manifest is right, and its SHA512 is of another file".to_owned());
        ObtainError::Nobody { tried: self.opened, last }
    }

    /// The error for "everyone was asked".
    #[must_use]
    pub fn nobody(&self) -> ObtainError {
        ObtainError::Nobody { tried: self.opened, last: self.last.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Source;
    use crate::swarm::{Config, Held, Holdings, Identity, Network, ReadAt};
    use std::sync::Arc;
    use tree::distfile::Distfile;

    const CONTENT: &[u8] = b"what the Manifest names";

    /// Holds the file, and says it has this size.
    struct Shelf {
        claims: u64,
    }

    struct Content;

    impl ReadAt for Content {
        fn read_at(&self, offset: u64, into: &mut [u8]) -> std::io::Result<usize> {
            let rest = usize::try_from(offset).ok().and_then(|at| CONTENT.get(at..)).unwrap_or_default();
            let count = rest.len().min(into.len());
            into[..count].copy_from_slice(&rest[..count]);
            Ok(count)
        }
    }

    impl Holdings for Shelf {
        fn open(&self, digest: &Digest, _: &PeerId) -> Option<Held> {
            (*digest == Digest::of(CONTENT)).then(|| Held { size: self.claims, reader: Box::new(Content) })
        }

        fn announced(&self) -> Vec<Digest> {
            vec![Digest::of(CONTENT)]
        }
    }

    fn wanted() -> mirrors::Source {
        let name = "wanted-1.0.bin".parse().unwrap();
        let distfile = Distfile { name, size: CONTENT.len() as u64, blake2b: Digest::of(CONTENT), sha512: None };
        mirrors::Source { distfile, uris: Vec::new(), may_mirror: false, may_fetch: false }
    }

    /// A node that knows one peer, which claims this size, and what it gets from it.
    async fn first_of_a_peer_that_claims(claims: u64) -> (Option<Opened>, bool) {
        let (network, tasks) = (Network::new(), Tasks::new());
        let other = network.join(&Identity::generate(), Config::default(), Arc::new(Shelf { claims }), &tasks).await;
        let config = Config { peers: other.listen_addrs(), ..Config::default() };
        let swarm = network.join(&Identity::generate(), config, Arc::new(Shelf { claims: 0 }), &tasks).await;
        let digest = Digest::of(CONTENT);
        let mut changes = swarm.changes();
        while swarm.holders(&digest).is_empty() {
            changes.changed().await.unwrap();
        }
        let mirrors = Mirrors::new(mirrors::Options::default()).unwrap();
        let mut sources = Sources::new(digest, &swarm, &mirrors, Some(wanted()), &tasks);
        (sources.next(0).await, swarm.is_banned(&other.peer_id()))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_peer_that_claims_another_size_is_passed_over_and_not_blamed_since_the_manifest_may_be_wrong() {
        for other in [CONTENT.len() as u64 + 1, CONTENT.len() as u64 - 1, 0, u64::MAX] {
            let (opened, banned) = first_of_a_peer_that_claims(other).await;
            assert!(opened.is_none() && !banned, "{other}: {opened:?}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_honest_peer_gives_the_file() {
        let (opened, banned) = first_of_a_peer_that_claims(CONTENT.len() as u64).await;
        let mut opened = opened.unwrap();
        assert_eq!((opened.source(), opened.offset(), banned), (Source::Peer, 0, false));
        assert_eq!(opened.chunk().await.unwrap().unwrap(), CONTENT);
    }
}
