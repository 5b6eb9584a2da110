//! Bodies as streams of bounded steps: from a verified blob, or along a transfer that is still under way.

use crate::blocking;
use crate::domain::Domain;
use crate::flight::{End, Follower, Progress};
use crate::stats::Source;
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures::stream;
use rustix::io::{ReadWriteFlags, preadv2};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use store::Blob;

/// One step of a body. Larger steps bring no more speed; smaller ones cost CPU.
pub(super) const STEP_BYTES: usize = 256 * 1024;
/// A body that has not grown for this long is broken off: Portage's wget leaves after 60 s and would then start again.
const SILENCE_MAX: Duration = Duration::from_secs(55);

/// Reads up to `wanted` bytes at `offset`; fewer only at the end of the file.
fn read_step(wanted: u64, mut read: impl FnMut(&mut [u8], u64) -> io::Result<usize>) -> io::Result<Bytes> {
    let length = usize::try_from(wanted).unwrap_or(STEP_BYTES).min(STEP_BYTES);
    let mut buffer = BytesMut::zeroed(length);
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match read(rest, filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(filled);
    Ok(buffer.freeze())
}

/// Reads one step of a blob. Blocking.
///
/// # Errors
/// When the disk fails, or the file is shorter than the index says (then nothing of the step is given).
pub(super) fn read_blob(blob: &Blob, offset: u64, wanted: u64) -> io::Result<Bytes> {
    let bytes = read_step(wanted, |buffer, filled| blob.read_at(offset + filled, buffer))?;
    let whole = wanted.min(STEP_BYTES as u64);
    if bytes.len() as u64 == whole { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// One step of a blob if all of it is in the page cache. Never waits for the disk, so it may be called from async code;
/// a trip to the blocking pool costs as much as the copy itself.
fn read_cached(blob: &Blob, offset: u64, wanted: u64) -> Option<Bytes> {
    let length = usize::try_from(wanted).unwrap_or(STEP_BYTES).min(STEP_BYTES);
    let mut buffer = BytesMut::zeroed(length);
    let mut into = [io::IoSliceMut::new(&mut buffer)];
    let count = preadv2(blob.file(), &mut into, offset, ReadWriteFlags::NOWAIT).ok()?;
    (count == length).then(|| buffer.freeze())
}

async fn next_step(blob: &Blob, offset: u64, wanted: u64) -> io::Result<Bytes> {
    if let Some(bytes) = read_cached(blob, offset, wanted) {
        return Ok(bytes);
    }
    let blob = blob.clone();
    blocking::run(move || read_blob(&blob, offset, wanted)).await
}

/// Bytes `first..=last` of a blob, the first step already read; `count` hears of every step that leaves.
pub(super) fn of_blob(
    blob: Blob,
    first_step: Bytes,
    first: u64,
    last: u64,
    count: impl Fn(u64) + Send + 'static,
) -> Body {
    let end = last + 1;
    let state = (blob, Some(first_step), first, count);
    Body::from_stream(stream::try_unfold(state, move |(blob, ready, at, count)| async move {
        if at >= end {
            return Ok::<_, io::Error>(None);
        }
        let bytes = match ready {
            Some(bytes) => bytes,
            None => next_step(&blob, at, end - at).await?,
        };
        count(bytes.len() as u64);
        let next = at + bytes.len() as u64;
        Ok(Some((bytes, (blob, None, next, count))))
    }))
}

/// Bytes `first..=last` of a transfer under way, by the relay rule of [`crate::flight`].
///
/// The connection is broken off, never ended cleanly, when the transfer fails or has to throw away what was relayed.
pub(super) fn of_flight(
    domain: Arc<Domain>,
    follower: Follower,
    restarts: u32,
    first: u64,
    last: u64,
    source: Source,
) -> Body {
    let relay = Relay { domain, follower, restarts, sent: false, at: first, end: last + 1, source };
    Body::from_stream(stream::try_unfold(relay, |mut relay| async move {
        let step = relay.step().await?;
        Ok::<_, io::Error>(step.map(|bytes| (bytes, relay)))
    }))
}

struct Relay {
    domain: Arc<Domain>,
    follower: Follower,
    /// The count of restarts the bytes sent belong to.
    restarts: u32,
    /// True once a byte has left: from then on a restart breaks the connection off.
    sent: bool,
    at: u64,
    end: u64,
    source: Source,
}

impl Relay {
    async fn step(&mut self) -> io::Result<Option<Bytes>> {
        if self.at >= self.end {
            return Ok(None);
        }
        let (at, restarts, sent) = (self.at, self.restarts, self.sent);
        // The last byte of a range waits for the digest too, or a closed range could end cleanly with wrong bytes.
        let last = self.end - 1;
        let more = self
            .follower
            .wait_until(|progress| progress.relayable.min(last) > at || (sent && progress.restarts != restarts));
        let progress = tokio::time::timeout(SILENCE_MAX, more)
            .await
            .map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))?;
        if !self.sent {
            self.restarts = progress.restarts;
        }
        let bytes = self.read(progress).await?;
        self.at += bytes.len() as u64;
        self.sent = true;
        self.domain.stats.sent(self.source, bytes.len() as u64);
        Ok(Some(bytes))
    }

    async fn read(&self, progress: Progress) -> io::Result<Bytes> {
        let (at, wanted) = (self.at, self.end - self.at);
        match progress.end {
            // What was relayed before a restart may have been wrong, even if the file is right now.
            Some(End::Have(blob, _)) if progress.restarts == self.restarts => next_step(&blob, at, wanted).await,
            Some(End::Failed(error)) => Err(io::Error::other(error.to_string())),
            Some(End::Have(..)) => Err(io::ErrorKind::ConnectionAborted.into()),
            None => self.read_partial(progress).await,
        }
    }

    async fn read_partial(&self, progress: Progress) -> io::Result<Bytes> {
        let at = self.at;
        let broken = || io::Error::from(io::ErrorKind::ConnectionAborted);
        let reader = progress.reader.filter(|_| progress.restarts == self.restarts).ok_or_else(broken)?;
        let readable = progress.relayable.min(self.end - 1).saturating_sub(at);
        let bytes =
            blocking::run(move || read_step(readable, |buffer, filled| reader.read_at(at + filled, buffer))).await?;
        // The partial may have been thrown away while it was read: then these bytes are nobody's.
        let unchanged = self.follower.flight().progress().restarts == self.restarts;
        if unchanged && !bytes.is_empty() { Ok(bytes) } else { Err(broken()) }
    }
}
