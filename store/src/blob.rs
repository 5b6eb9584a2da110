//! Verified bytes. A [`Blob`] exists only for bytes whose digest was checked, and stays readable as long as somebody holds it.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use std::fmt;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tree::digest::{Digest, Hasher, Sha512};
use tree::moment::Moment;

use crate::disk::{At as _, Disk as _, PathError, RealDisk};
use crate::pin::PinGuard;

/// An open blob: cheap to clone, never removed by gc while one is alive.
#[derive(Clone)]
pub struct Blob {
    opened: Arc<Opened>,
}

struct Opened {
    digest: Digest,
    size: u64,
    file: File,
    path: PathBuf,
    modified: Option<Moment>,
    _guard: PinGuard,
}

impl Blob {
    pub(crate) fn new(metadata: &Metadata, file: File, path: PathBuf, digest: Digest, guard: PinGuard) -> Self {
        let (size, modified) = (metadata.len(), metadata.modified().ok().and_then(Moment::of));
        Self { opened: Arc::new(Opened { digest, size, file, path, modified, _guard: guard }) }
    }

    /// What the bytes are called.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.opened.digest
    }

    /// How many bytes there are.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.opened.size
    }

    /// When its file was written, if the file system says so and it is a time that can be said elsewhere: an imported file
    /// keeps its own, which may be any.
    #[must_use]
    pub fn modified(&self) -> Option<Moment> {
        self.opened.modified
    }

    /// Reads some bytes from a place on; 0 at the end or behind it. Several may read at once.
    pub fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        self.opened.file.read_at(bytes, offset)
    }

    /// The open file, for reading. Use places, not its cursor: it is shared.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.opened.file
    }

    /// Where the bytes lie, mode 0444, for as long as this is held.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.opened.path
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Blob({}, {} bytes)", self.opened.digest.short(), self.opened.size)
    }
}

/// Steps in which files are hashed: large enough for the disk, small enough for memory.
pub(crate) const STEP_BYTES: usize = 256 << 10;

/// Hashes a file from its start to its end; answers how many bytes that were. `each` sees every step and may end it early.
pub(crate) fn hash_file(file: &File, hasher: &mut Hasher, mut each: impl FnMut(usize) -> bool) -> io::Result<u64> {
    let mut step = vec![0; STEP_BYTES];
    let mut offset: u64 = 0;
    loop {
        let count = match file.read_at(&mut step, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            count => count?,
        };
        let bytes = step.get(..count).unwrap_or_default();
        hasher.update(bytes);
        offset = offset.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        if count == 0 || !each(count) {
            return Ok(offset);
        }
    }
}

/// The sums and the size of a file as it is now; a file that is written to meanwhile has sums of neither state.
pub fn digest_of_file(path: &Path) -> Result<(Digest, Sha512, u64), PathError> {
    let file = RealDisk.open_read(path).at(path)?;
    let mut hasher = Hasher::new(true);
    let size = hash_file(&file, &mut hasher, |_| true).at(path)?;
    match hasher.finish() {
        (digest, Some(sha512)) => Ok((digest, sha512, size)),
        // The hasher was told to make both.
        (_, None) => Err(io::Error::other("no SHA-512 was made")).at(path),
    }
}
