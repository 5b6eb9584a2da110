//! What may go: unpinned, not open, past the grace period, least recently used first, until the target fits.
//!
//! How a blob goes, so that a crash anywhere leaves either a blob or nothing:
//! 1. the index loses the row and notes, synced, that the file is to go;
//! 2. the file is removed;
//! 3. the directories are synced, each once for all that went from it, and the notes go.
//!
//! A crash after 1 leaves the note, by which the next open removes the file. When the disk is so full that the index cannot write,
//! the files go first: a row without a file is forgotten when somebody asks for it.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use std::cmp::Ordering;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet};
use std::mem;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use thiserror::Error;
use tree::digest::Digest;
use tree::size::total;

use crate::disk::{At as _, PathError};
use crate::index::{Index, IndexError};
use crate::pin::LeavingTicket;
use crate::{Event, Inner, locked};

/// Blobs that go in one batch of the index: one sync for all of them.
const BATCH: usize = 64;
/// Marks of use that wait in memory.
const MARKS_MAX: usize = 1024;

/// How far gc goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GcTarget {
    /// Until blobs and partials fit into `size_max_bytes`, and the disk has `free_min_bytes` left.
    Budget,
    /// Until the blobs have at most this many bytes; the grace period does not count.
    Bytes(u64),
}

/// Why something goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GcReason {
    /// Blobs and partials are more than the store may hold.
    OverBudget,
    /// The disk has less left than is to stay free.
    LowDisk,
    /// More was asked to go.
    Asked,
    /// Nobody wrote to the partial for long.
    StalePartial,
}

/// One thing that goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GcItem {
    /// What it is called.
    pub digest: Digest,
    /// Bytes it takes.
    pub size: u64,
    /// When it was last asked for, or came in; of a partial, when it was last written.
    pub last_used: SystemTime,
    /// Why it goes.
    pub reason: GcReason,
}

/// What gc did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcReport {
    /// What goes, least recently used first.
    pub removed: Vec<GcItem>,
    /// Bytes of all that goes.
    pub freed_bytes: u64,
    /// Bytes that stay because they are pinned.
    pub kept_pinned_bytes: u64,
    /// Bytes that stay because they are open.
    pub kept_open_bytes: u64,
    /// Bytes that stay because they came in within the grace period.
    pub kept_young_bytes: u64,
    /// Bytes by which the target is missed, because nothing else may go.
    pub missed_bytes: u64,
    /// Whether nothing really went.
    pub pretended: bool,
}

/// Why gc stops early; what went before is gone.
#[derive(Debug, Error)]
pub enum GcError {
    /// The index does not answer.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The disk does not do its part.
    #[error("cannot remove a blob: {0}")]
    Disk(#[from] PathError),
}

/// Why a blob is not removed.
#[derive(Debug, Error)]
pub enum RemoveError {
    /// A pin keeps it.
    #[error("{} is pinned", .0.short())]
    Pinned(Digest),
    /// Somebody reads it.
    #[error("{} is in use", .0.short())]
    InUse(Digest),
    /// The store does not do its part.
    #[error(transparent)]
    Gc(#[from] GcError),
}

/// When blobs were last asked for, since that was last written down.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    marks: Mutex<HashMap<Digest, u64>>,
}

impl Usage {
    pub(crate) fn mark(&self, index: &Index, digest: &Digest, now_secs: u64) {
        let mut marks = locked(&self.marks);
        marks.insert(*digest, now_secs);
        if marks.len() >= MARKS_MAX {
            drop(marks);
            if let Err(error) = self.write(index) {
                tracing::warn!(%error, "marks of use are lost; gc may take what was just used");
            }
        }
    }

    pub(crate) fn write(&self, index: &Index) -> Result<(), IndexError> {
        let marks = mem::take(&mut *locked(&self.marks));
        if marks.is_empty() { Ok(()) } else { index.mark_used(marks) }
    }
}

/// One blob that may go; the greatest is the one used last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Candidate {
    used_secs: u64,
    digest: Digest,
    size: u64,
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.used_secs, self.digest).cmp(&(other.used_secs, other.digest))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

pub(crate) fn gc(inner: &Inner, target: GcTarget, pretend: bool) -> Result<GcReport, GcError> {
    let mut report = GcReport { pretended: pretend, ..GcReport::default() };
    take_stale_partials(inner, pretend, &mut report)?;
    let (needed, reason) = needed_bytes(inner, target, &report)?;
    // Without the marks gc still works, only less justly; on a full disk it has to.
    inner.usage.write(&inner.index).or_else(|error| if error.is_full() { Ok(()) } else { Err(error) })?;
    let candidates = survey(inner, needed, grace(inner, target), &mut report)?;
    let (mut freed, mut gone) = (0_u64, Gone::default());
    for batch in candidates.chunks(BATCH) {
        let taken = if pretend { batch.to_vec() } else { remove_batch(inner, batch, &mut gone)? };
        for Candidate { used_secs, digest, size } in taken {
            freed = freed.saturating_add(size);
            report.removed.push(GcItem { digest, size, last_used: moment(used_secs), reason });
        }
    }
    finish_removal(inner, &gone)?;
    report.freed_bytes = report.freed_bytes.saturating_add(freed);
    report.missed_bytes = needed.saturating_sub(freed);
    Ok(report)
}

fn moment(secs: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_secs(secs)).unwrap_or(UNIX_EPOCH)
}

/// Bytes that have to go, and why.
fn needed_bytes(inner: &Inner, target: GcTarget, report: &GcReport) -> Result<(u64, GcReason), GcError> {
    let bytes = inner.index.counters().bytes;
    match target {
        GcTarget::Bytes(limit) => Ok((bytes.saturating_sub(limit), GcReason::Asked)),
        GcTarget::Budget => {
            let partial_bytes = total(inner.partials().iter().map(|(_, partial)| partial.size));
            // What is only pretended to be gone is still there.
            let (held, mut free) = (bytes.saturating_add(partial_bytes), inner.free_bytes()?);
            let mut over = inner.options.size_max_bytes.map_or(0, |max| held.saturating_sub(max));
            if report.pretended {
                over = over.saturating_sub(report.freed_bytes);
                free = free.saturating_add(report.freed_bytes);
            }
            let short = inner.options.free_min_bytes.saturating_sub(free);
            let reason = if over >= short { GcReason::OverBudget } else { GcReason::LowDisk };
            Ok((over.max(short), reason))
        }
    }
}

/// Housekeeping spares what has only just come in; whoever says how much shall stay means it.
fn grace(inner: &Inner, target: GcTarget) -> Duration {
    match target {
        GcTarget::Budget => inner.options.grace,
        GcTarget::Bytes(_) => Duration::ZERO,
    }
}

/// The least recently used blobs that may go and together have the bytes needed, in the order in which they go.
fn survey(inner: &Inner, needed: u64, grace: Duration, report: &mut GcReport) -> Result<Vec<Candidate>, GcError> {
    let now_secs = inner.options.clock.now_secs();
    let grace_secs = grace.as_secs();
    // Holds no more than what is needed, so its size is that of the answer and not of the store.
    let mut candidates = BinaryHeap::new();
    let mut together = 0_u64;
    inner.index.survey(|blob| {
        let size = blob.record.size;
        if blob.pinned {
            report.kept_pinned_bytes = report.kept_pinned_bytes.saturating_add(size);
        } else if inner.in_use.is_open(&blob.digest) {
            report.kept_open_bytes = report.kept_open_bytes.saturating_add(size);
        } else if blob.record.added_secs.saturating_add(grace_secs) > now_secs && grace_secs > 0 {
            report.kept_young_bytes = report.kept_young_bytes.saturating_add(size);
        } else if needed > 0 {
            candidates.push(Candidate { used_secs: blob.used_secs, digest: blob.digest, size });
            together = together.saturating_add(size);
            while let Some(last) = candidates.peek()
                && together.saturating_sub(last.size) >= needed
            {
                together = together.saturating_sub(last.size);
                candidates.pop();
            }
        }
    })?;
    Ok(candidates.into_sorted_vec())
}

/// What went, until its directories are synced and its notes are gone.
#[derive(Debug, Default)]
struct Gone {
    digests: Vec<Digest>,
    dirs: BTreeSet<PathBuf>,
}

/// Removes what nobody opened or pinned meanwhile; answers what is gone.
fn remove_batch(inner: &Inner, batch: &[Candidate], gone: &mut Gone) -> Result<Vec<Candidate>, GcError> {
    let tickets = batch.iter().filter_map(|candidate| inner.in_use.begin_leaving(&candidate.digest, false));
    let taken: HashSet<Digest> = take_away(inner, &tickets.collect::<Vec<_>>(), gone)?.into_iter().collect();
    Ok(batch.iter().filter(|candidate| taken.contains(&candidate.digest)).copied().collect())
}

/// Removes blobs for which the tickets are held, but no pinned one.
fn take_away(inner: &Inner, tickets: &[LeavingTicket], gone: &mut Gone) -> Result<Vec<Digest>, GcError> {
    let digests: Vec<Digest> = tickets.iter().map(|ticket| *ticket.digest()).collect();
    let left = match inner.index.leave(&digests, false) {
        Err(error) if error.is_full() => return take_away_files_first(inner, &digests, gone),
        left => left?,
    };
    for digest in &left {
        inner.feeds.tell(Event::Removed(*digest));
    }
    remove_files(inner, &left, gone)?;
    Ok(left)
}

fn take_away_files_first(inner: &Inner, digests: &[Digest], gone: &mut Gone) -> Result<Vec<Digest>, GcError> {
    let mut going = Vec::new();
    for digest in digests {
        if inner.index.blob(digest)?.is_some() && !inner.index.is_pinned(digest)? {
            going.push(*digest);
        }
    }
    remove_files(inner, &going, gone)?;
    if let Err(error) = inner.index.leave(&going, false) {
        tracing::warn!(%error, "files went and their rows did not; each is forgotten when it is asked for");
    }
    for digest in &going {
        inner.feeds.tell(Event::Removed(*digest));
    }
    Ok(going)
}

fn remove_files(inner: &Inner, digests: &[Digest], gone: &mut Gone) -> Result<(), PathError> {
    for digest in digests {
        let place = inner.layout.blob(digest);
        match inner.disk.remove(&place).at(&place) {
            Err(error) if !error.is_absent() => return Err(error),
            _ => {}
        }
        gone.digests.push(*digest);
        gone.dirs.insert(inner.layout.blob_dir(digest));
    }
    Ok(())
}

/// Syncs each directory once for all that went from it, then forgets the notes.
fn finish_removal(inner: &Inner, gone: &Gone) -> Result<(), GcError> {
    gone.dirs.iter().try_for_each(|dir| inner.disk.sync_dir(dir).at(dir))?;
    match inner.index.end_leaving(&gone.digests) {
        // The notes stay; the next open finds nothing to do for them.
        Err(error) if error.is_full() => Ok(()),
        ended => Ok(ended?),
    }
}

fn take_stale_partials(inner: &Inner, pretend: bool, report: &mut GcReport) -> Result<(), GcError> {
    let now_secs = inner.options.clock.now_secs();
    for (digest, partial) in inner.partials() {
        let kept_until = partial.modified_secs.saturating_add(inner.options.partial_keep.as_secs());
        if kept_until > now_secs {
            continue;
        }
        // Whoever writes to it has the ticket.
        let Some(_ticket) = inner.in_use.begin_incoming(&digest) else { continue };
        if !pretend {
            let path = inner.layout.incoming(&digest);
            match inner.disk.remove(&path).at(&path) {
                Err(error) if !error.is_absent() => return Err(error.into()),
                _ => {}
            }
        }
        report.freed_bytes = report.freed_bytes.saturating_add(partial.size);
        let last_used = moment(partial.modified_secs);
        report.removed.push(GcItem { digest, size: partial.size, last_used, reason: GcReason::StalePartial });
    }
    Ok(())
}

pub(crate) fn remove(inner: &Inner, digest: &Digest) -> Result<bool, RemoveError> {
    let index_says = |error: IndexError| RemoveError::Gc(error.into());
    if inner.index.is_pinned(digest).map_err(index_says)? {
        return Err(RemoveError::Pinned(*digest));
    }
    let ticket = inner.in_use.begin_leaving(digest, false).ok_or(RemoveError::InUse(*digest))?;
    let mut gone = Gone::default();
    let taken = take_away(inner, &[ticket], &mut gone)?;
    finish_removal(inner, &gone)?;
    Ok(!taken.is_empty())
}

impl Inner {
    pub(crate) fn free_bytes(&self) -> Result<u64, PathError> {
        self.disk.free_bytes(self.layout.root()).at(self.layout.root())
    }
}
