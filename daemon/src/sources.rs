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
    Http(Candidate, mirrors::Body),
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

/// Everyone who may be asked for one distfile.
pub struct Sources {
    digest: Digest,
    swarm: Swarm,
    mirrors: Mirrors,
    wanted: Option<mirrors::Source>,
    peers: VecDeque<PeerId>,
    rounds: Rounds,
    found: Option<oneshot::Receiver<Vec<PeerId>>>,
    excluded: Vec<Contributor>,
    one_alone: bool,
    opened: usize,
    last: Option<String>,
}

impl Sources {
    /// Peers for `digest`, and HTTP where `wanted` says what and whom may be asked.
    #[must_use]
    pub fn new(digest: Digest, swarm: &Swarm, mirrors: &Mirrors, wanted: Option<mirrors::Source>, tasks: &Tasks) -> Self {
        let candidates = wanted.as_ref().map(|wanted| mirrors.plan(wanted)).unwrap_or_default();
        let (tell, found) = oneshot::channel();
        let asking = swarm.clone();
        tasks.spawn("find providers", async move {
            // A flight that has ended does not listen any more.
            let _gone = tell.send(asking.find(&digest, FIND_MAX).await);
        });
        Self {
            digest,
            swarm: swarm.clone(),
            mirrors: mirrors.clone(),
            wanted,
            peers: swarm.holders(&digest).into(),
            rounds: Rounds::new(candidates),
            found: Some(found),
            excluded: Vec::new(),
            one_alone: false,
            opened: 0,
            last: None,
        }
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
            } else if let Some((candidate, patience)) = self.rounds.next() {
                if patience == Patience::Long
                    && let Some(found) = self.found.take()
                {
                    // Whom the DHT named comes before waiting long for slow mirrors.
                    self.add_found(found).await;
                }
                if let Some(opened) = self.open_http(candidate, from, patience).await {
                    return Some(opened);
                }
            } else if let Some(found) = self.found.take() {
                self.add_found(found).await;
            } else {
                break;
            }
        }
        None
    }

    fn next_peer(&mut self) -> Option<PeerId> {
        loop {
            let peer = self.peers.pop_front()?;
            if !self.is_excluded(&Contributor::Peer(peer)) {
                return Some(peer);
            }
        }
    }

    async fn add_found(&mut self, found: oneshot::Receiver<Vec<PeerId>>) {
        // The search has its own deadline, FIND_MAX; a closed channel means the daemon stops.
        self.peers.extend(found.await.unwrap_or_default());
    }

    fn is_excluded(&self, who: &Contributor) -> bool {
        self.excluded.iter().any(|excluded| excluded.is(who))
    }

    async fn open_peer(&mut self, peer: PeerId, from: u64) -> Option<Opened> {
        self.opened += 1;
        let others = !self.peers.is_empty() || self.rounds.candidates() > 0;
        let patience = if others { ANSWER_WITH_OTHERS } else { ANSWER_ALONE };
        match self.swarm.open_within(peer, &self.digest, from, patience).await {
            Ok(body) => Some(Opened::new(OpenBody::Peer(peer, body, from))),
            Err(error) => {
                tracing::debug!(%peer, digest = ?self.digest, %error, "peer does not give it");
                if let Some(offence) = error.offence() {
                    self.swarm.blame(peer, offence);
                }
                self.last = Some(format!("peer {peer}: {error}"));
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
            Ok(body) => Some(Opened::new(OpenBody::Http(candidate, body))),
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
        let (tell, found) = oneshot::channel();
        // Peers come after the mirrors now, so they go where those of the DHT are waited for.
        let _gone = tell.send(self.swarm.holders(&self.digest));
        self.peers.clear();
        self.rounds = Rounds::new(candidates);
        self.found = Some(found);
    }

    /// The error for "everyone was asked".
    #[must_use]
    pub fn nobody(&self) -> ObtainError {
        ObtainError::Nobody { tried: self.opened, last: self.last.clone() }
    }
}
