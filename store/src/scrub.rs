//! Hashing what is held again, quietly: what rotted goes to `quarantine/`, and index and files are made to agree.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tree::digest::{Digest, Hasher};

use crate::blob::hash_file;
use crate::disk::{At as _, PathError};
use crate::index::IndexError;
use crate::record::BlobRecord;
use crate::{Event, GetError, Inner};

/// Rows that are read at a time, so that no snapshot of the index is held for hours.
const PAGE: usize = 256;
/// Longest sleep between two looks at `stop`.
const NAP: Duration = Duration::from_millis(100);

/// How far a verification is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyProgress {
    /// Blobs done.
    pub blobs: u64,
    /// Blobs there were at the start.
    pub blobs_total: u64,
    /// Bytes hashed.
    pub bytes: u64,
    /// Bytes there were at the start.
    pub bytes_total: u64,
    /// The blob just done.
    pub digest: Digest,
}

/// What a verification found.
#[derive(Debug, Default)]
pub struct VerifyReport {
    /// Blobs that were hashed.
    pub checked: u64,
    /// Bytes that were hashed.
    pub checked_bytes: u64,
    /// Blobs whose bytes were no longer theirs: in quarantine, and held no more.
    pub rotten: Vec<Digest>,
    /// Blobs whose file was gone: held no more.
    pub missing: Vec<Digest>,
    /// Files that the index did not have and that are what their name says: held now.
    pub adopted: Vec<Digest>,
    /// Files among the blobs that are not what their name says, or have another kind of name: in quarantine.
    pub strays: Vec<PathBuf>,
    /// Blobs that could not be read, or not be put aside: as they were.
    pub unreadable: Vec<PathError>,
    /// Why the index ended the verification early.
    pub failed: Option<IndexError>,
    /// Whether it was told to stop.
    pub stopped: bool,
}

impl VerifyReport {
    /// Whether everything was looked at and was as it should be.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let Self { rotten, missing, strays, unreadable, failed, stopped, .. } = self;
        let found = rotten.is_empty() && missing.is_empty() && strays.is_empty() && unreadable.is_empty();
        found && failed.is_none() && !stopped
    }
}

/// Hashes at most so many bytes a second.
struct Pace<'a> {
    bytes_per_sec: Option<u64>,
    started: Instant,
    bytes: u64,
    stop: &'a AtomicBool,
}

impl Pace<'_> {
    /// Waits until so many more bytes are due; false when it is told to stop.
    fn spend(&mut self, count: usize) -> bool {
        self.bytes = self.bytes.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        while let Some(wait) = self.early() {
            if self.stop.load(Ordering::Relaxed) {
                return false;
            }
            thread::sleep(wait.min(NAP));
        }
        !self.stop.load(Ordering::Relaxed)
    }

    fn early(&self) -> Option<Duration> {
        let millis = self.bytes.saturating_mul(1000).checked_div(self.bytes_per_sec?)?;
        Duration::from_millis(millis).checked_sub(self.started.elapsed()).filter(|wait| !wait.is_zero())
    }
}

/// What hashing one file said.
enum Checked {
    Sound,
    Rotten,
    Missing,
    Stopped,
}

pub(crate) fn verify(
    inner: &Inner,
    pace_bytes_per_sec: Option<u64>,
    progress: &mut dyn FnMut(VerifyProgress),
    stop: &AtomicBool,
) -> VerifyReport {
    let mut report = VerifyReport::default();
    let mut pace = Pace { bytes_per_sec: pace_bytes_per_sec, started: Instant::now(), bytes: 0, stop };
    let verified = verify_rows(inner, &mut pace, progress, &mut report)
        .and_then(|()| if report.stopped { Ok(()) } else { verify_files(inner, &mut pace, &mut report) });
    report.failed = verified.err();
    report
}

fn verify_rows(
    inner: &Inner,
    pace: &mut Pace<'_>,
    progress: &mut dyn FnMut(VerifyProgress),
    report: &mut VerifyReport,
) -> Result<(), IndexError> {
    let total = inner.index.counters();
    let mut after = None;
    loop {
        let page = inner.index.blobs_after(after.as_ref(), PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = Some(*last);
        for (digest, record) in page {
            match check(inner, &digest, record, pace) {
                Ok(Checked::Sound) => {
                    report.checked += 1;
                    report.checked_bytes = report.checked_bytes.saturating_add(record.size);
                }
                Ok(Checked::Stopped) => {
                    report.stopped = true;
                    return Ok(());
                }
                Ok(found @ (Checked::Rotten | Checked::Missing)) => match put_aside(inner, &digest, || true) {
                    Ok(false) => {}
                    Ok(true) if matches!(found, Checked::Rotten) => report.rotten.push(digest),
                    Ok(true) => report.missing.push(digest),
                    Err(GetError::Index(error)) => return Err(error),
                    Err(GetError::Disk(error)) => report.unreadable.push(error),
                },
                Err(error) => report.unreadable.push(error),
            }
            progress(VerifyProgress {
                blobs: report.checked,
                blobs_total: total.blobs,
                bytes: report.checked_bytes,
                bytes_total: total.bytes,
                digest,
            });
        }
    }
}

fn check(inner: &Inner, digest: &Digest, record: BlobRecord, pace: &mut Pace<'_>) -> Result<Checked, PathError> {
    let place = inner.layout.blob(digest);
    let file = match inner.disk.open_read(&place).at(&place) {
        Err(error) if error.is_absent() => return Ok(Checked::Missing),
        file => file?,
    };
    let mut stopped = false;
    let mut hasher = Hasher::new(false);
    let size = hash_file(&file, &mut hasher, |count| {
        stopped = !pace.spend(count);
        !stopped
    })
    .at(&place)?;
    if stopped {
        return Ok(Checked::Stopped);
    }
    let sound = size == record.size && hasher.finish().0 == *digest;
    Ok(if sound { Checked::Sound } else { Checked::Rotten })
}

/// Takes a blob that is not what it should be out of the index, and its file, if there is one, to the quarantine.
///
/// Done even when it is open or pinned: bad bytes help nobody. False when it is being removed or written, was not held, or
/// `still_wrong`, asked when nobody can change it any more, says that it was replaced meanwhile.
pub(crate) fn put_aside(inner: &Inner, digest: &Digest, still_wrong: impl FnOnce() -> bool) -> Result<bool, GetError> {
    let Some(_ticket) = inner.in_use.begin_leaving(digest, true) else { return Ok(false) };
    if !still_wrong() {
        return Ok(false);
    }
    if inner.index.leave(&[*digest], true)?.is_empty() {
        return Ok(false);
    }
    inner.feeds.tell(Event::Removed(*digest));
    let place = inner.layout.blob(digest);
    match quarantine(inner, &place, &digest.to_string()) {
        Err(error) if !error.is_absent() => return Err(error.into()),
        _ => {}
    }
    tracing::warn!(digest = %digest.short(), "a blob was not what its name says and is held no more");
    inner.index.end_move(digest)?;
    Ok(true)
}

fn quarantine(inner: &Inner, path: &Path, name: &str) -> Result<(), PathError> {
    let aside = inner.layout.quarantined(name, inner.options.clock.now_secs());
    inner.disk.rename(path, &aside).at(path)
}

/// Looks for files that the index does not have.
fn verify_files(inner: &Inner, pace: &mut Pace<'_>, report: &mut VerifyReport) -> Result<(), IndexError> {
    for dir in inner.layout.blob_dirs() {
        let files = match inner.disk.list(&dir).at(&dir) {
            Ok(files) => files,
            Err(error) => {
                report.unreadable.push(error);
                continue;
            }
        };
        for file in files {
            let path = dir.join(&file.name);
            let digest: Option<Digest> = file.name.to_str().and_then(|name| name.parse().ok());
            let Some(digest) = digest.filter(|digest| inner.layout.blob(digest) == path) else {
                put_stray_aside(inner, path, report);
                continue;
            };
            // The writer of a digest may be between the file and the row.
            let Some(_ticket) = inner.in_use.begin_incoming(&digest) else { continue };
            if inner.index.blob(&digest)?.is_some() {
                continue;
            }
            if !pace.spend(usize::try_from(file.size).unwrap_or(usize::MAX)) {
                report.stopped = true;
                return Ok(());
            }
            match adopt(inner, &digest) {
                Ok(Some(_)) => report.adopted.push(digest),
                Ok(None) => report.strays.push(path),
                Err(GetError::Index(error)) => return Err(error),
                Err(GetError::Disk(error)) => report.unreadable.push(error),
            }
        }
    }
    Ok(())
}

fn put_stray_aside(inner: &Inner, path: PathBuf, report: &mut VerifyReport) {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match quarantine(inner, &path, &name) {
        Ok(()) => report.strays.push(path),
        Err(error) => report.unreadable.push(error),
    }
}

/// As [`adopt`], for a digest whose row may be there.
pub(crate) fn adopt_if_missing(inner: &Inner, digest: &Digest) -> Result<(), GetError> {
    if inner.index.blob(digest)?.is_none() {
        adopt(inner, digest)?;
    }
    Ok(())
}

/// Takes a file that the index does not have, if its bytes are what its name says; puts it aside otherwise.
///
/// The caller holds the ticket of the digest. None when there is no such file, or it is put aside.
pub(crate) fn adopt(inner: &Inner, digest: &Digest) -> Result<Option<BlobRecord>, GetError> {
    let place = inner.layout.blob(digest);
    let file: File = match inner.disk.open_read(&place).at(&place) {
        Err(error) if error.is_absent() => return Ok(None),
        file => file?,
    };
    let mut hasher = Hasher::new(false);
    let size = hash_file(&file, &mut hasher, |_| true).at(&place)?;
    if hasher.finish().0 != *digest {
        quarantine(inner, &place, &digest.to_string())?;
        return Ok(None);
    }
    let dir = inner.layout.blob_dir(digest);
    inner.disk.seal(&file, &place).at(&place)?;
    inner.disk.sync(&file, &place).at(&place)?;
    inner.disk.sync_dir(&dir).at(&dir)?;
    let record = BlobRecord { size, added_secs: inner.options.clock.now_secs() };
    inner.index.settle(digest, record, true)?;
    inner.feeds.tell(Event::Added(*digest, size));
    Ok(Some(record))
}
