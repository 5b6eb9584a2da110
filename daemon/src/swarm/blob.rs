//! Serving blobs (`/peerage/blob/1`): each request is answered with a header and raw bytes.

use super::ReadAt;
use super::asking::{Question, in_time, say};
use super::state::{Protocol, State};
use super::streams::Pipe;
use super::wire::{BlobAnswer, BlobRequest};
use crate::buffers::{Buffer, STEP_BYTES};
use bytes::Bytes;
use futures::{AsyncWriteExt as _, StreamExt as _};
use libp2p::PeerId;
use mirrors::{Floor, Pace, TooSlow};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The slowest reader that keeps a place: 9 KB/s.
const SENT: Floor = Floor { silence: Duration::from_secs(15), span: Duration::from_secs(30), least: STEP_BYTES as u64 };
/// Steps being read before they can leave, so that a transfer does not wait for the blocking pool.
const READ_AHEAD: usize = 3;

impl Question for BlobRequest {
    type Answer = BlobAnswer;
    const PROTOCOL: Protocol = Protocol::Blob;

    fn busy() -> BlobAnswer {
        BlobAnswer::Busy
    }

    async fn answer(&self, state: &Arc<State>, peer: PeerId, pipe: &mut Pipe) -> io::Result<()> {
        if !state.serves(&peer) {
            return say(pipe, &BlobAnswer::Refused).await;
        }
        let Some(held) = state.held(self.digest, peer).await else { return say(pipe, &BlobAnswer::NotHeld).await };
        if self.offset > held.size {
            return say(pipe, &BlobAnswer::OutOfRange { size: held.size }).await;
        }
        let Some(upload) = state.uploads().enter_or_push(state.who(&peer)) else {
            return say(pipe, &BlobAnswer::Busy).await;
        };
        say(pipe, &BlobAnswer::Body { size: held.size }).await?;
        let end = self.offset.saturating_add(self.length).min(held.size);
        tokio::select! {
            () = upload.ended() => Err(io::Error::other("its place was given to another peer")),
            sent = send(state, peer, pipe, Arc::from(held.reader), self.offset..end) => sent,
        }
    }
}

/// Sends a range, while the next steps are read ahead on the blocking pool.
async fn send(
    state: &State,
    peer: PeerId,
    pipe: &mut Pipe,
    reader: Arc<dyn ReadAt>,
    range: std::ops::Range<u64>,
) -> io::Result<()> {
    let traffic = state.traffic(peer);
    let mut pace = Pace::new(SENT);
    let end = range.end;
    let starts = futures::stream::iter(range.step_by(STEP_BYTES));
    let mut steps = starts.map(|at| read_step(Arc::clone(&reader), at, end)).buffered(READ_AHEAD);
    while let Some(step) = steps.next().await {
        let step = step?;
        if let Some(pause) = state.upload_pause(step.len()) {
            tokio::time::sleep(pause).await;
        }
        write_all(pipe, &step, &mut pace).await?;
        traffic.add_served(step.len());
    }
    in_time(pipe.flush()).await
}

/// Writes a step as fast as the peer reads, and no slower than the pace.
async fn write_all(pipe: &mut Pipe, mut step: &[u8], pace: &mut Pace) -> io::Result<()> {
    let too_slow =
        |slow: TooSlow| io::Error::new(io::ErrorKind::TimedOut, format!("the peer reads too slowly: {slow}"));
    while !step.is_empty() {
        let deadline = pace.deadline(Instant::now());
        let Ok(written) = tokio::time::timeout_at(deadline, pipe.write(step)).await else {
            return Err(too_slow(pace.silent()));
        };
        let written = written?;
        step = step.get(written..).filter(|_| written > 0).ok_or(io::ErrorKind::WriteZero)?;
        pace.took(written as u64, Instant::now()).map_err(too_slow)?;
    }
    Ok(())
}

/// Reads one whole step.
async fn read_step(reader: Arc<dyn ReadAt>, at: u64, end: u64) -> io::Result<Bytes> {
    let wanted = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX).min(STEP_BYTES);
    crate::blocking::run(move || {
        let mut step = Buffer::take(wanted);
        let (mut at, mut filled) = (at, 0);
        while let Some(rest) = step.room().get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match reader.read_at(at, rest)? {
                // Shorter than its size: the stream is cut, so that the peer does not wait.
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => (at, filled) = (at + length as u64, filled + length),
            }
        }
        Ok(step.freeze(filled))
    })
    .await
}
