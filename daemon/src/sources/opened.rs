//! A source that has begun to answer, who it is, and why it broke off.

use crate::stats::Source;
use crate::swarm;
use bytes::Bytes;
use libp2p::PeerId;
use mirrors::{Candidate, FetchError, Origin};
use std::time::Instant;

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
    pub(super) fn is(&self, other: &Self) -> bool {
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
    pub(super) body: OpenBody,
    pub(super) started: Instant,
    pub(super) received: u64,
}

#[derive(Debug)]
pub(super) enum OpenBody {
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
    pub(super) fn new(body: OpenBody) -> Self {
        Self { body, started: Instant::now(), received: 0 }
    }

    /// Nobody else is left who would be faster.
    pub(super) fn be_patient(&mut self) {
        if let OpenBody::Peer(_, body, _) = &mut self.body {
            body.be_patient();
        }
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
