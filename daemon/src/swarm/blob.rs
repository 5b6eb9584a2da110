//! Serving blobs (`/peerage/blob/1`): requests one after another on a stream, each answered with a header and raw bytes.

use super::ReadAt;
use super::state::State;
use super::streams::Pipe;
use super::wire::{BlobAnswer, BlobRequest, read_frame, write_frame};
use crate::buffers::{Buffer, STEP_BYTES};
use bytes::Bytes;
use futures::{AsyncWriteExt as _, StreamExt as _};
use libp2p::PeerId;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Steps being read before they can leave, so that a transfer does not wait for the blocking pool.
const READ_AHEAD: usize = 3;
/// A stream beyond the peer's places waits so long for one: those it has just given up may not have been noticed yet.
const PLACE_WAIT_MAX: Duration = Duration::from_millis(250);
/// A stream without a request for so long is closed; longer than a client keeps it idle.
const REQUEST_WAIT_MAX: Duration = Duration::from_secs(60);
/// One step must leave in this time: 256 KiB in 30 s is 9 KB/s.
const STEP_TIME_MAX: Duration = Duration::from_secs(30);

/// Serves one stream to its end. Cancel safe: yes (the stream is cut).
pub(super) async fn serve(state: Arc<State>, peer: PeerId, mut pipe: Pipe) {
    let Some(places) = state.blob_places(&peer) else { return };
    let Ok(Ok(place)) = tokio::time::timeout(PLACE_WAIT_MAX, places.acquire_owned()).await else {
        let refused = refuse(&mut pipe, &BlobAnswer::Busy).await;
        tracing::debug!(%peer, ?refused, "too many blob streams");
        return;
    };
    loop {
        let Ok(asked) = tokio::time::timeout(REQUEST_WAIT_MAX, read_frame::<BlobRequest>(&mut pipe)).await else {
            break;
        };
        let answered = match asked {
            Ok(request) => answer(&state, peer, &mut pipe, &request).await,
            Err(error) => {
                tracing::trace!(%peer, %error, "a blob stream ended");
                break;
            }
        };
        if let Err(error) = answered {
            tracing::debug!(%peer, %error, "a body was not sent to its end");
            break;
        }
    }
    drop(place);
}

/// Reads the request before refusing it, so that the answer is not lost to a reset.
async fn refuse(pipe: &mut Pipe, answer: &BlobAnswer) -> io::Result<()> {
    let asked = tokio::time::timeout(STEP_TIME_MAX, read_frame::<BlobRequest>(pipe)).await;
    if !matches!(asked, Ok(Ok(_))) {
        return Ok(());
    }
    say(pipe, answer).await?;
    pipe.close().await
}

async fn say(pipe: &mut Pipe, answer: &BlobAnswer) -> io::Result<()> {
    in_time(write_frame(pipe, answer)).await
}

async fn in_time<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(STEP_TIME_MAX, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn answer(state: &Arc<State>, peer: PeerId, pipe: &mut Pipe, request: &BlobRequest) -> io::Result<()> {
    if !state.serves(&peer) {
        return say(pipe, &BlobAnswer::Refused).await;
    }
    let Some(held) = state.held(request.digest).await else { return say(pipe, &BlobAnswer::NotHeld).await };
    if request.offset > held.size {
        return say(pipe, &BlobAnswer::OutOfRange { size: held.size }).await;
    }
    let Ok(_upload) = state.uploads().try_acquire() else { return say(pipe, &BlobAnswer::Busy).await };
    say(pipe, &BlobAnswer::Body { size: held.size }).await?;
    let end = request.offset.saturating_add(request.length).min(held.size);
    send(state, peer, pipe, Arc::from(held.reader), request.offset..end).await
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
    let end = range.end;
    let starts = futures::stream::iter(range.step_by(STEP_BYTES));
    let mut steps = starts.map(|at| read_step(Arc::clone(&reader), at, end)).buffered(READ_AHEAD);
    while let Some(step) = steps.next().await {
        let step = step?;
        if let Some(pause) = state.upload_pause(step.len()) {
            tokio::time::sleep(pause).await;
        }
        in_time(pipe.write_all(&step)).await?;
        traffic.add_served(step.len());
    }
    in_time(pipe.flush()).await
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
