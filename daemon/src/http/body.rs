//! Bodies as streams of bounded steps: from a verified blob, or along a transfer that is still under way.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use crate::blocking;
use crate::buffers::{Buffer, STEP_BYTES};
use crate::domain::Domain;
use crate::flight::{End, Follower, Progress};
use crate::stats::Source;
use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use rustix::io::{ReadWriteFlags, preadv2};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use store::Blob;

/// One step, at least.
const STEP_MIN_BYTES: usize = 32 * 1024;
/// All steps together: with many clients the steps become smaller, so that slow ones do not cost memory.
const STEPS_BYTES: usize = 8 * 1024 * 1024;
/// A body that has not grown for this long is broken off: Portage's wget leaves after 60 s and would then start again.
const SILENCE_MAX: Duration = Duration::from_secs(55);

/// Bodies under way in this process.
static BODIES: AtomicUsize = AtomicUsize::new(0);

/// Counts a body while it is under way.
struct Underway;

impl Underway {
    fn begin() -> Self {
        BODIES.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        BODIES.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes of the next step when `wanted` are left.
fn step_bytes(wanted: u64) -> usize {
    let share = STEPS_BYTES.checked_div(BODIES.load(Ordering::Relaxed)).unwrap_or(STEP_BYTES);
    let step = share.clamp(STEP_MIN_BYTES, STEP_BYTES);
    usize::try_from(wanted).map_or(step, |wanted| wanted.min(step))
}

/// Reads up to `length` bytes; fewer only at the end of the file.
fn read_step(length: usize, mut read: impl FnMut(&mut [u8], u64) -> io::Result<usize>) -> io::Result<Bytes> {
    let mut buffer = Buffer::take(length);
    let mut filled = 0;
    while let Some(rest) = buffer.room().get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match read(rest, filled as u64) {
            Ok(0) => break,
            Ok(count) => filled = usize::saturating_add(filled, count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(buffer.freeze(filled))
}

/// Reads one step of a blob. Blocking.
///
/// # Errors
/// When the disk fails, or the file is shorter than the index says (then nothing of the step is given).
pub(super) fn read_blob(blob: &Blob, offset: u64, wanted: u64) -> io::Result<Bytes> {
    let length = step_bytes(wanted);
    let bytes = read_step(length, |buffer, filled| blob.read_at(offset.saturating_add(filled), buffer))?;
    if bytes.len() == length { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// One step of a blob if all of it is in the page cache. Never waits for the disk, so it may be called from async code;
/// a trip to the blocking pool costs as much as the copy itself.
pub(super) fn read_cached(blob: &Blob, offset: u64, wanted: u64) -> Option<Bytes> {
    let length = step_bytes(wanted);
    let mut buffer = Buffer::take(length);
    let mut into = [io::IoSliceMut::new(buffer.room())];
    let count = preadv2(blob.file(), &mut into, offset, ReadWriteFlags::NOWAIT).ok()?;
    (count == length).then(|| buffer.freeze(count))
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
    let end = last.saturating_add(1);
    let state = (blob, Some(first_step), first, count, Underway::begin());
    Body::from_stream(stream::try_unfold(state, move |(blob, ready, at, count, underway)| async move {
        if at >= end {
            return Ok::<_, io::Error>(None);
        }
        let bytes = match ready {
            Some(bytes) => bytes,
            None => next_step(&blob, at, end.saturating_sub(at)).await?,
        };
        count(bytes.len() as u64);
        let next = at.saturating_add(bytes.len() as u64);
        Ok(Some((bytes, (blob, None, next, count, underway))))
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
    let relay = Relay {
        domain,
        follower,
        restarts,
        sent: false,
        at: first,
        end: last.saturating_add(1),
        source,
        _underway: Underway::begin(),
    };
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
    _underway: Underway,
}

impl Relay {
    async fn step(&mut self) -> io::Result<Option<Bytes>> {
        if self.at >= self.end {
            return Ok(None);
        }
        let (at, restarts, sent) = (self.at, self.restarts, self.sent);
        let end = self.end;
        let more =
            self.follower.wait_until(|progress| progress.readable(end) > at || (sent && progress.restarts != restarts));
        let progress = tokio::time::timeout(SILENCE_MAX, more)
            .await
            .map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))?;
        if !self.sent {
            self.restarts = progress.restarts;
        }
        let bytes = self.read(progress).await?;
        self.at = self.at.saturating_add(bytes.len() as u64);
        self.sent = true;
        self.domain.stats.sent(self.source, bytes.len() as u64);
        Ok(Some(bytes))
    }

    async fn read(&self, progress: Progress) -> io::Result<Bytes> {
        let (at, wanted) = (self.at, self.end.saturating_sub(self.at));
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
        let readable = progress.readable(self.end).saturating_sub(at);
        let reader = progress.reader.filter(|_| progress.restarts == self.restarts).ok_or_else(broken)?;
        let length = step_bytes(readable);
        let bytes = blocking::run(move || {
            read_step(length, |buffer, filled| reader.read_at(at.saturating_add(filled), buffer))
        })
        .await?;
        // The partial may have been thrown away while it was read: then these bytes are nobody's.
        let unchanged = self.follower.flight().progress().restarts == self.restarts;
        if unchanged && !bytes.is_empty() { Ok(bytes) } else { Err(broken()) }
    }
}
