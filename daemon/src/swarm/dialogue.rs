//! A dialogue (`/peerage/build/1`): a stream on which both ends say bounded frames whenever they like. What they say is not
//! for this room; a silent end is told apart by who waits for it.

use super::body::OpenError;
use super::state::{Protocol, State};
use super::streams::Pipe;
use super::wire::{DecodeError, FrameError, Message, read_frame, write_frame};
use futures::io::{ReadHalf, WriteHalf};
use futures::stream::BoxStream;
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::PeerId;
use std::io;
use std::time::Duration;

/// Bytes of one frame.
pub const FRAME_BYTES_MAX: usize = 512 * 1024;
/// A frame must leave in this time.
const SAY_TIME_MAX: Duration = Duration::from_secs(15);

struct Frame(Vec<u8>);

impl Message for Frame {
    const LENGTH_MAX: usize = FRAME_BYTES_MAX;

    fn encode(&self) -> Vec<u8> {
        self.0.clone()
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self(bytes.to_vec()))
    }
}

/// One end of a dialogue.
pub struct Dialogue {
    hears: BoxStream<'static, Result<Vec<u8>, FrameError>>,
    says: WriteHalf<Pipe>,
}

impl Dialogue {
    pub(super) fn new(pipe: Pipe) -> Self {
        let (reads, says) = pipe.split();
        // The stream keeps what was read of a frame when nobody waits for the rest of it.
        let hears = futures::stream::unfold(Some(reads), |reads: Option<ReadHalf<Pipe>>| async move {
            let mut reads = reads?;
            match read_frame::<Frame>(&mut reads).await {
                Ok(frame) => Some((Ok(frame.0), Some(reads))),
                Err(error) => Some((Err(error), None)),
            }
        });
        Self { hears: hears.boxed(), says }
    }

    /// The next frame of the other end; None after its end or an error.
    ///
    /// Cancel safe: yes.
    pub async fn hear(&mut self) -> Option<Result<Vec<u8>, FrameError>> {
        self.hears.next().await
    }

    /// Says one frame.
    ///
    /// Cancel safe: no (the dialogue is over then).
    ///
    /// # Errors
    /// When the stream breaks or the other end does not take it in time.
    pub async fn say(&mut self, frame: Vec<u8>) -> io::Result<()> {
        let said = tokio::time::timeout(SAY_TIME_MAX, write_frame(&mut self.says, &Frame(frame))).await;
        said.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Ends it after what was said has left.
    ///
    /// Cancel safe: yes.
    pub async fn end(mut self) {
        let ended = tokio::time::timeout(SAY_TIME_MAX, self.says.close()).await;
        tracing::trace!(?ended, "a dialogue ended");
    }
}

impl std::fmt::Debug for Dialogue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dialogue")
    }
}

/// Begins one with a peer, unless it is banned, and dials it when need be; see [`super::Swarm::converse`].
pub(super) async fn begin(state: &State, peer: PeerId, deadline: Duration) -> Result<Dialogue, OpenError> {
    if state.is_banned(&peer) {
        return Err(OpenError::Banned { peer });
    }
    let opened = tokio::time::timeout(deadline, state.open_pipe(peer, Vec::new(), Protocol::Build)).await;
    let opened = opened.map_err(|_| OpenError::NoAnswer { peer, after: deadline })?;
    opened.map(Dialogue::new).map_err(|source| OpenError::Unreachable { peer, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_util::compat::TokioAsyncReadCompatExt as _;

    #[tokio::test]
    async fn both_ends_say_frames_and_a_long_one_ends_it() {
        let (near, far) = tokio::io::duplex(64);
        let (mut near, mut far) = (Dialogue::new(Pipe::new(near.compat())), Dialogue::new(Pipe::new(far.compat())));
        let said = vec![7; 1000];
        let (sent, heard) = futures::join!(near.say(said.clone()), far.hear());
        sent.unwrap();
        assert_eq!(heard.unwrap().unwrap(), said);
        let (sent, heard) = futures::join!(far.say(Vec::new()), near.hear());
        sent.unwrap();
        assert!(heard.unwrap().unwrap().is_empty());
        let long = async {
            // It cannot leave: the other end hangs up.
            let _cut = near.says.write_all(&[0xff; 4]).await;
        };
        let (heard, ()) = futures::join!(far.hear(), long);
        assert!(matches!(heard, Some(Err(FrameError::TooLong { .. }))));
        assert!(far.hear().await.is_none());
    }
}
