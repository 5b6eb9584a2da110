//! Fetching blobs: a request to one peer, and the bytes it sends, as far as they come.

use super::asking::ask;
use super::scores::{Offence, Traffic};
use super::state::{Protocol, State};
use super::streams::Pipe;
use super::wire::{BlobAnswer, BlobRequest, FrameError, Key};
use crate::buffers::{Buffer, STEP_BYTES};
use bytes::Bytes;
use futures::AsyncRead as _;
use libp2p::PeerId;
use mirrors::{Floor, Pace, TooSlow};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;
use tree::digest::Digest;

/// The slowest that is borne while others can be asked: 6.5 KB/s. The silence is the one of the configuration.
const BRISK: Floor = Floor { silence: Duration::from_secs(5), span: Duration::from_secs(10), least: 64 * 1024 };
/// The slowest that is borne of the last one who has it: 500 bytes a second.
const BORNE: Floor = Floor { silence: Duration::from_secs(5), span: Duration::from_secs(30), least: 15_000 };
/// Less than so much in a span is not slowness but a drip that means to hold a place.
const DRIP_BYTES: u64 = 4096;

/// Why a peer did not begin to send, or gave no claims.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It is banned here.
    #[error("{peer} is banned for what it did before")]
    Banned {
        /// Who.
        peer: PeerId,
    },
    /// It could not be connected to, or the stream could not be opened.
    #[error("{peer} cannot be reached: {source}")]
    Unreachable {
        /// Who.
        peer: PeerId,
        /// What the transport said.
        source: io::Error,
    },
    /// It does not hold the blob. Never of claims: to have none is an answer.
    #[error("{peer} does not hold it")]
    NotHeld {
        /// Who.
        peer: PeerId,
    },
    /// It has too many streams open.
    #[error("{peer} is busy")]
    Busy {
        /// Who.
        peer: PeerId,
    },
    /// Its blob is shorter than the first byte asked for. Never of claims.
    #[error("{peer} has only {size} bytes of it, byte {from} was asked for")]
    OutOfRange {
        /// Who.
        peer: PeerId,
        /// The whole size, as the peer says.
        size: u64,
        /// The byte asked for.
        from: u64,
    },
    /// It does not serve us.
    #[error("{peer} does not serve this machine")]
    Refused {
        /// Who.
        peer: PeerId,
    },
    /// No answer in time.
    #[error("{peer} did not answer within {} ms", after.as_millis())]
    NoAnswer {
        /// Who.
        peer: PeerId,
        /// The deadline.
        after: Duration,
    },
    /// It answered with something else, or hung up.
    #[error("{peer} gave no answer that makes sense: {source}")]
    Broken {
        /// Who.
        peer: PeerId,
        /// What came instead.
        source: FrameError,
    },
}

impl OpenError {
    /// What to hold against the peer, if anything.
    #[must_use]
    pub fn offence(&self) -> Option<Offence> {
        match self {
            Self::Banned { .. } | Self::NotHeld { .. } | Self::OutOfRange { .. } => None,
            // It does not speak this protocol: it is of another version, which is no fault.
            Self::Unreachable { source, .. } if source.kind() == io::ErrorKind::Unsupported => None,
            Self::Broken { source: FrameError::TooLong { .. } | FrameError::Decode(_), .. } => Some(Offence::Broken),
            Self::Busy { .. } | Self::Refused { .. } => Some(Offence::Refused),
            // The network, or who named its address, may be to blame for these.
            Self::Unreachable { .. } | Self::Broken { .. } | Self::NoAnswer { .. } => Some(Offence::Failing),
        }
    }
}

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// Nothing came for too long.
    #[error("{peer} sent nothing for {} ms after byte {at}", after.as_millis())]
    Stalled {
        /// Who.
        peer: PeerId,
        /// The next byte that was waited for.
        at: u64,
        /// The deadline.
        after: Duration,
    },
    /// Less came than others would send.
    #[error("{peer} is too slow after byte {at}: {slow}")]
    Slow {
        /// Who.
        peer: PeerId,
        /// The next byte that was waited for.
        at: u64,
        /// How slow.
        slow: TooSlow,
    },
    /// The connection broke, or the peer hung up.
    #[error("{peer} broke off at byte {at}: {source}")]
    Broken {
        /// Who.
        peer: PeerId,
        /// The next byte that was waited for.
        at: u64,
        /// What the transport said.
        source: io::Error,
    },
}

impl BodyError {
    /// What to blame the peer for.
    #[must_use]
    pub fn offence(&self) -> Offence {
        match self {
            Self::Slow { slow, .. } if slow.bytes >= DRIP_BYTES => Offence::Slow,
            Self::Stalled { .. } | Self::Slow { .. } => Offence::Stalled,
            // It ended the body itself, before the size that it had said.
            Self::Broken { source, .. } if source.kind() == io::ErrorKind::UnexpectedEof => Offence::Broken,
            Self::Broken { .. } => Offence::Failing,
        }
    }

    /// The next byte that was waited for: where another peer can go on.
    #[must_use]
    pub fn at(&self) -> u64 {
        match self {
            Self::Stalled { at, .. } | Self::Slow { at, .. } | Self::Broken { at, .. } => *at,
        }
    }
}

/// Asks a peer for a blob from a byte on; see [`super::Swarm::open_within`].
pub(super) async fn open(
    state: &Arc<State>,
    peer: PeerId,
    digest: &Digest,
    from: u64,
    first_answer: Duration,
) -> Result<Body, OpenError> {
    let request = BlobRequest { digest: *digest, offset: from, length: u64::MAX };
    let (pipe, answer) = ask(state, peer, &request, first_answer).await?;
    let size = match answer {
        BlobAnswer::Body { size } if from <= size => size,
        BlobAnswer::Body { size } | BlobAnswer::OutOfRange { size } => {
            return Err(OpenError::OutOfRange { peer, size, from });
        }
        BlobAnswer::NotHeld => {
            state.not_held(&peer, &Key::from(digest));
            state.keep_pipe(&peer, Protocol::Blob, pipe);
            return Err(OpenError::NotHeld { peer });
        }
        BlobAnswer::Busy => return Err(OpenError::Busy { peer }),
        BlobAnswer::Refused => return Err(OpenError::Refused { peer }),
    };
    let traffic = state.traffic(peer);
    let pace = Pace::new(Floor { silence: state.config().silence_max, ..BRISK });
    Ok(Body { state: Arc::clone(state), traffic, peer, size, at: from, pipe: Some(pipe), pace })
}

/// The bytes one peer sends, from the byte asked for to the end. Unverified.
pub struct Body {
    state: Arc<State>,
    traffic: Arc<Traffic>,
    peer: PeerId,
    size: u64,
    at: u64,
    pipe: Option<Pipe>,
    pace: Pace,
}

impl Body {
    /// Who sends.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// The size of the whole blob in bytes, as the peer says: to be compared before reading on.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The place in the blob of the next byte.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.at
    }

    /// Nobody else can be asked: this one is borne even if it is slow.
    pub fn be_patient(&mut self) {
        self.pace = Pace::new(Floor { silence: self.state.config().silence_max, ..BORNE });
    }

    /// The next bytes, at most 256 KiB and as many as have come; `None` at the end of the blob.
    ///
    /// Cancel safe: yes (bytes already read are given by the next call).
    ///
    /// # Errors
    /// When nothing, or too little, comes for too long or the stream breaks. The body is over then.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        let (peer, at, after) = (self.peer, self.at, self.pace.floor().silence);
        let missing = self.size - at;
        if missing == 0 {
            self.finish();
            return Ok(None);
        }
        let Some(pipe) = self.pipe.as_mut() else {
            return Err(BodyError::Broken { peer, at, source: io::ErrorKind::NotConnected.into() });
        };
        let wanted = usize::try_from(missing).unwrap_or(usize::MAX).min(STEP_BYTES);
        let mut buffer = Buffer::take(wanted);
        let room = buffer.room();
        let read = std::future::poll_fn(|context| fill(pipe, context, room));
        let deadline = self.pace.deadline(Instant::now());
        let error = match tokio::time::timeout_at(deadline, read).await {
            Ok(Ok(0)) => BodyError::Broken { peer, at, source: io::ErrorKind::UnexpectedEof.into() },
            Ok(Ok(length)) => {
                self.at += length as u64;
                self.traffic.add_received(length);
                match self.pace.took(length as u64, Instant::now()) {
                    Ok(()) => return Ok(Some(buffer.freeze(length))),
                    Err(slow) => BodyError::Slow { peer, at, slow },
                }
            }
            Ok(Err(source)) => BodyError::Broken { peer, at, source },
            Err(_) => BodyError::Stalled { peer, at, after },
        };
        self.pipe = None;
        Err(error)
    }

    /// The stream is at the next request's place: it is kept for that.
    fn finish(&mut self) {
        if let Some(pipe) = self.pipe.take() {
            self.state.keep_pipe(&self.peer, Protocol::Blob, pipe);
        }
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Body({} at {} of {})", self.peer, self.at, self.size)
    }
}

/// Reads what has come, waiting only for the first byte: a fast peer fills the buffer, a slow one is not waited for.
fn fill(pipe: &mut Pipe, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
    let mut filled = 0;
    while let Some(room) = buffer.get_mut(filled..).filter(|room| !room.is_empty()) {
        match Pin::new(&mut *pipe).poll_read(context, room) {
            Poll::Ready(Ok(0)) => break,
            Poll::Ready(Ok(length)) => filled += length,
            // What has come is handed out first; the error comes again with the next read.
            Poll::Ready(Err(_)) | Poll::Pending if filled > 0 => break,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        }
    }
    Poll::Ready(Ok(filled))
}
