//! Who is asked for one distfile, in which order, and what is remembered of how it went.

use crate::fetcher::FIND_MAX;
use crate::flight::ObtainError;
use crate::stats::Source;
use crate::swarm::{self, Offence, Swarm};
use crate::tasks::Tasks;
use bytes::Bytes;
use libp2p::PeerId;
use mirrors::{Candidate, FetchError, Mirrors, Origin, Patience, Report, Rounds};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tree::digest::Digest;

/// Openings of one flight, successful or not; a bound for hostile cases, far above any honest one.
const OPENINGS_MAX: usize = 64;
/// A peer that does not answer by then is left while others may have it: a dead one must cost less than 100 ms.
const ANSWER_WITH_OTHERS: Duration = Duration::from_millis(90);
/// A peer that is the last hope gets more.
const ANSWER_ALONE: Duration = Duration::from_secs(3);

/// Who brought bytes of a partial.
#[derive(Clone, Debug)]
pub enum Contributor {
    /// An earlier run of the daemon.
    Earlier,
    /// A peer.
    Peer(PeerId),
    /// A mirror or a host of SRC_URI.
    Http(Candidate),
}

impl Contributor {
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Earlier, Self::Earlier) => true,
            (Self::Peer(one), Self::Peer(two)) => one == two,
            (Self::Http(one), Self::Http(two)) => one == two,
            _ => false,
        }
    }
}

/// A source that has begun to answer.
#[derive(Debug)]
pub struct Opened {
    body: OpenBody,
    started: Instant,
    received: u64,
}

#[derive(Debug)]
enum OpenBody {
    Peer(PeerId, swarm::Body, u64),
    Http(Candidate, Box<mirrors::Body>),
}

/// Why a source broke off.
#[derive(Debug, thiserror::Error)]
pub enum BrokeOff {
    /// A peer did.
    #[error(transparent)]
    Peer(#[from] swarm::BodyError),
    /// A mirror or upstream did.
    #[error(transparent)]
    Http(#[from] FetchError),
}

impl Opened {
    fn new(body: OpenBody) -> Self {
        Self { body, started: Instant::now(), received: 0 }
    }

    /// What kind of source it is.
    #[must_use]
    pub fn source(&self) -> Source {
        match &self.body {
            OpenBody::Peer(..) => Source::Peer,
            OpenBody::Http(candidate, _) => match candidate.origin() {
                Origin::Mirror(_) => Source::Mirror,
                Origin::Upstream(_) => Source::Upstream,
            },
        }
    }

    /// Who it is.
    #[must_use]
    pub fn contributor(&self) -> Contributor {
        match &self.body {
            OpenBody::Peer(peer, ..) => Contributor::Peer(*peer),
            OpenBody::Http(candidate, _) => Contributor::Http(candidate.clone()),
        }
    }

    /// First byte it sends: what was asked, or 0 when it cannot resume.
    #[must_use]
    pub fn offset(&self) -> u64 {
        match &self.body {
            OpenBody::Peer(_, _, offset) => *offset,
            OpenBody::Http(_, body) => body.offset(),
        }
    }

    /// The whole size, as a peer says it; an HTTP source is only asked when the size is known.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        match &self.body {
            OpenBody::Peer(_, body, _) => Some(body.size()),
            OpenBody::Http(..) => None,
        }
    }

    /// The next bytes, none at the end.
    ///
    /// Cancel safe: yes; bytes that were on the way are lost with the source.
    ///
    /// # Errors
    /// When the source breaks off or is silent for too long.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, BrokeOff> {
        let chunk = match &mut self.body {
            OpenBody::Peer(_, body, _) => body.chunk().await?,
            OpenBody::Http(_, body) => body.chunk().await?,
        };
        self.received += chunk.as_ref().map_or(0, |bytes| bytes.len() as u64);
        Ok(chunk)
    }
}

/// The question to the DHT: asked when no connected peer has it, or the first one that should have it did not give it.
enum Search {
    NotAsked,
    Asked(oneshot::Receiver<Vec<PeerId>>),
    Answered,
}

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
    /// Peers that did not answer in the short time given while there were others: they are asked again, patiently, when
    /// the others have failed.
    late: Vec<PeerId>,
    rounds: Rounds,
    search: Search,
    excluded: Vec<Contributor>,
    one_alone: bool,
    opened: usize,
    last: Option<String>,
    /// A mirror whose turn it is once the peers before it have been asked.
    postponed: Option<(Candidate, Patience)>,
    /// True once nobody else is left: peers then get [`ANSWER_ALONE`].
    patient: bool,
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
        let mut sources = Self {
            digest,
            swarm: swarm.clone(),
            mirrors: mirrors.clone(),
            wanted,
            tasks: tasks.clone(),
            peers: swarm.holders(&digest).into(),
            silent: Vec::new(),
            late: Vec::new(),
            rounds: Rounds::new(candidates),
            search: Search::NotAsked,
            excluded: Vec::new(),
            one_alone: false,
            opened: 0,
            last: None,
            postponed: None,
            patient: false,
        };
        if sources.peers.is_empty() {
            sources.start_search();
        }
        sources
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
        while self.opened < OPENINGS_MAX {
            if let Some(peer) = self.next_peer() {
                if let Some(opened) = self.open_peer(peer, from).await {
                    return Some(opened);
                }
            } else if let Some((candidate, patience)) = self.postponed.take().or_else(|| self.rounds.next()) {
                if patience == Patience::Long && self.more_peers().await {
                    // Whom the DHT named, and slow peers, come before waiting long for slow mirrors.
                    self.postponed = Some((candidate, patience));
                    continue;
                }
                if let Some(opened) = self.open_http(candidate, from, patience).await {
                    return Some(opened);
                }
            } else if !self.more_peers().await {
                break;
            }
        }
        None
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

    fn next_peer(&mut self) -> Option<PeerId> {
        loop {
            let peer = self.peers.pop_front()?;
            if !self.is_excluded(&Contributor::Peer(peer)) {
                return Some(peer);
            }
        }
    }

    fn is_excluded(&self, who: &Contributor) -> bool {
        self.excluded.iter().any(|excluded| excluded.is(who))
    }

    async fn open_peer(&mut self, peer: PeerId, from: u64) -> Option<Opened> {
        self.opened += 1;
        let patience = if self.patient { ANSWER_ALONE } else { ANSWER_WITH_OTHERS };
        match self.swarm.open_within(peer, &self.digest, from, patience).await {
            Ok(body) if self.wanted.as_ref().is_some_and(|wanted| wanted.distfile.size != body.size()) => {
                // The Manifest says how large it is; who says otherwise has another file, or none.
                self.swarm.blame(peer, Offence::WrongBytes);
                self.start_search();
                self.last = Some(format!("peer {peer} has another size"));
                None
            }
            Ok(body) => Some(Opened::new(OpenBody::Peer(peer, body, from))),
            Err(error) => {
                tracing::debug!(%peer, digest = ?self.digest, %error, "peer does not give it");
                match error.offence() {
                    Some(Offence::Stalled) if !self.patient => self.late.push(peer),
                    Some(offence) => self.swarm.blame(peer, offence),
                    None => {}
                }
                self.start_search();
                let told = format!("peer {peer}: {error}");
                // That somebody simply does not have it says less than what a mirror said.
                match error.offence() {
                    Some(_) => self.last = Some(told),
                    None => drop(self.last.get_or_insert(told)),
                }
                None
            }
        }
    }

    async fn open_http(&mut self, candidate: Candidate, from: u64, patience: Patience) -> Option<Opened> {
        let wanted = self.wanted.as_ref()?;
        if self.is_excluded(&Contributor::Http(candidate.clone())) {
            return None;
        }
        self.opened += 1;
        match self.mirrors.open(&candidate, wanted, from, patience).await {
            Ok(body) => Some(Opened::new(OpenBody::Http(candidate, Box::new(body)))),
            Err(error) => {
                tracing::debug!(%candidate, digest = ?self.digest, %error, "source does not give it");
                self.mirrors.report(&candidate, Report::Failed(&error));
                self.rounds.failed(&error);
                self.last = Some(format!("{candidate}: {error}"));
                None
            }
        }
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
                self.swarm.blame(*peer, error.offence());
            }
            // A body only gives errors of its own kind.
            _ => {}
        }
    }

    /// All bytes were there and the digest was wrong.
    pub fn wrong(&mut self, contributors: &[Contributor]) {
        match contributors {
            [Contributor::Peer(peer)] => {
                tracing::warn!(%peer, digest = ?self.digest, "peer sent wrong bytes");
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
                return;
            }
        }
        self.excluded.extend_from_slice(contributors);
    }

    /// Everyone once more from the first byte, mirrors first.
    fn start_over_alone(&mut self) {
        self.one_alone = true;
        let candidates = self.wanted.as_ref().map(|wanted| self.mirrors.plan(wanted)).unwrap_or_default();
        // Peers come after the mirrors now.
        self.late = self.swarm.holders(&self.digest);
        self.peers.clear();
        self.rounds = Rounds::new(candidates);
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
    async fn a_peer_that_claims_another_size_is_passed_over_and_blamed() {
        for lie in [CONTENT.len() as u64 + 1, CONTENT.len() as u64 - 1, 0, u64::MAX] {
            let (opened, banned) = first_of_a_peer_that_claims(lie).await;
            // A size that no blob has is no answer at all, which costs less.
            assert!(opened.is_none() && banned == (lie < u64::MAX), "{lie}: {opened:?}");
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
