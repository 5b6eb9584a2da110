//! Bytes on their way in: written as they come, hashed as they are written, a [`Blob`] only when the digest is right.
//!
//! How they become a blob, so that a crash anywhere leaves either a partial or a blob:
//! 1. the bytes are sealed (mode 0444) and synced under `incoming/`;
//! 2. the index notes, synced, that they are about to arrive;
//! 3. the file is renamed to its place under `blobs/`, and that directory is synced;
//! 4. the index gets the blob's row, in the batch that takes the note away.
//!
//! A crash before 3 leaves a partial; one after it leaves the note, by which the next open finds the file.
//! Partials are not trusted: whoever takes one up hashes it first.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tree::digest::{Digest, Hasher};

use crate::blob::{Blob, hash_file};
use crate::disk::{At as _, PathError};
use crate::incoming_error::{AppendError, FinishError, IncomingError};
use crate::pin::IncomingTicket;
use crate::reader::{IncomingReader, Written};
use crate::record::BlobRecord;
use crate::{Event, GetError, Store, Wanted, scrub};

/// Between two looks at how full the disk is.
const FREE_CHECK_BYTES: u64 = 16 << 20;
/// Smaller ones are written before reserving would pay.
const RESERVE_MIN_BYTES: u64 = 1 << 20;

/// The one writer of some bytes that are wanted. Dropping it keeps what came for later.
#[must_use = "dropping it leaves the bytes unfinished"]
pub struct Incoming {
    store: Store,
    wanted: Wanted,
    path: PathBuf,
    file: File,
    hasher: Hasher,
    written: Arc<Written>,
    resumed: u64,
    reserved: bool,
    next_free_check: u64,
    /// The file is a second name of somebody else's: nothing writes to it.
    linked: bool,
    /// What came is called by its own digest; `wanted.digest` is only the key of its writer.
    unnamed: bool,
    /// Nothing is left to keep: the bytes became a blob or are gone.
    settled: bool,
    /// Declared last: the next writer may start only after everything else is given up.
    _ticket: IncomingTicket,
    /// Of the digest that an unnamed one turned out to have; the key's is held beside it, since its file is still in use.
    name_ticket: Option<IncomingTicket>,
}

impl Incoming {
    pub(crate) fn begin(store: &Store, wanted: &Wanted) -> Result<Self, IncomingError> {
        let inner = &*store.inner;
        let digest = wanted.digest;
        let ticket = inner.in_use.begin_incoming(&digest).ok_or(IncomingError::AlreadyIncoming(digest))?;
        if inner.index.blob(&digest)?.is_some() || scrub::adopt(inner, &digest)?.is_some() {
            return Err(IncomingError::AlreadyHeld(digest));
        }
        Self::open(store, wanted, inner.layout.incoming(&digest), ticket)
    }

    pub(crate) fn begin_unnamed(store: &Store, key: &Digest, size: Option<u64>) -> Result<Self, IncomingError> {
        let inner = &*store.inner;
        let ticket = inner.in_use.begin_incoming(key).ok_or(IncomingError::AlreadyIncoming(*key))?;
        let wanted = Wanted { digest: *key, size, sha512: None };
        let mut incoming = Self::open(store, &wanted, inner.layout.unnamed(key), ticket)?;
        incoming.unnamed = true;
        incoming.restart().map_err(|error| match error {
            AppendError::NoSpace(error) | AppendError::Disk(error) => IncomingError::Disk(error),
            AppendError::TooLong { .. } | AppendError::BelowFreeMin { .. } => IncomingError::AlreadyIncoming(*key),
        })?;
        Ok(incoming)
    }

    fn open(store: &Store, wanted: &Wanted, path: PathBuf, ticket: IncomingTicket) -> Result<Self, IncomingError> {
        let inner = &*store.inner;
        if let (Some(size), Some(max)) = (wanted.size, inner.options.size_max_bytes)
            && size > max
        {
            return Err(IncomingError::LargerThanStore { size, max });
        }
        let file = inner.disk.open_partial(&path).at(&path)?;
        let mut incoming = Self {
            store: store.clone(),
            wanted: *wanted,
            path,
            file,
            hasher: Hasher::new(false),
            written: Arc::default(),
            resumed: 0,
            reserved: false,
            next_free_check: 0,
            linked: false,
            unnamed: false,
            settled: false,
            _ticket: ticket,
            name_ticket: None,
        };
        incoming.take_up()?;
        incoming.check_room()?;
        Ok(incoming)
    }

    /// Hashes what an earlier writer left, or wipes it when it is longer than can be right.
    fn take_up(&mut self) -> Result<(), PathError> {
        self.hasher = self.new_hasher();
        if self.file.metadata().at(&self.path)?.len() > self.limit() {
            self.store.inner.disk.truncate(&self.file, &self.path, 0).at(&self.path)?;
        }
        self.resumed = hash_file(&self.file, &mut self.hasher, |_| true).at(&self.path)?;
        self.written.len.store(self.resumed, Ordering::Release);
        self.next_free_check = self.resumed.saturating_add(FREE_CHECK_BYTES);
        Ok(())
    }

    fn check_room(&self) -> Result<(), IncomingError> {
        let inner = &*self.store.inner;
        let needed = self.wanted.size.unwrap_or_default().saturating_sub(self.len());
        let free = inner.disk.free_bytes(&self.path_dir()).at(&self.path)?;
        let free_min = inner.options.free_min_bytes;
        if needed.saturating_add(free_min) > free {
            return Err(IncomingError::NoRoom { needed, free, free_min });
        }
        Ok(())
    }

    fn path_dir(&self) -> PathBuf {
        self.store.inner.layout.incoming_dir()
    }

    fn new_hasher(&self) -> Hasher {
        Hasher::new(self.store.inner.options.check_sha512 && self.wanted.sha512.is_some())
    }

    fn limit(&self) -> u64 {
        self.wanted.size.unwrap_or(self.store.inner.options.incoming_max_bytes)
    }

    /// The digest wanted.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.wanted.digest
    }

    /// Bytes that came so far: the place the next ones belong to.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "an empty one is nothing special")]
    pub fn len(&self) -> u64 {
        self.written.len.load(Ordering::Acquire)
    }

    /// Bytes wanted in all, if that is known.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        self.wanted.size
    }

    /// Bytes of [`Self::len`] that an earlier writer left: nobody of now is to blame for them.
    #[must_use]
    pub fn resumed(&self) -> u64 {
        self.resumed
    }

    /// Says how many bytes there are, once somebody knows. What came must not be more; a size that is known does not change.
    pub fn set_size(&mut self, size: u64) -> Result<(), AppendError> {
        let limit = self.limit();
        let fits = self.wanted.size.is_none_or(|known| known == size);
        if !fits || size > limit || self.len() > size {
            return Err(AppendError::TooLong { limit: size.min(limit) });
        }
        self.wanted.size = Some(size);
        Ok(())
    }

    /// Takes the next bytes. After an error none of them count, and the same may be tried again.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), AppendError> {
        let len = self.len();
        let limit = self.limit();
        let count = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let new_len = len.checked_add(count).filter(|new_len| *new_len <= limit);
        let new_len = new_len.ok_or(AppendError::TooLong { limit })?;
        self.reserve()?;
        if new_len >= self.next_free_check {
            self.check_free()?;
            self.next_free_check = new_len.saturating_add(FREE_CHECK_BYTES);
        }
        let disk = &*self.store.inner.disk;
        disk.append(&self.file, &self.path, len, bytes).at(&self.path).map_err(AppendError::from_disk)?;
        self.hasher.update(bytes);
        self.written.len.store(new_len, Ordering::Release);
        Ok(())
    }

    fn reserve(&mut self) -> Result<(), AppendError> {
        let Some(size) = self.wanted.size.filter(|size| !self.reserved && *size >= RESERVE_MIN_BYTES) else {
            return Ok(());
        };
        let inner = &*self.store.inner;
        let free = inner.disk.free_bytes(&self.path_dir()).at(&self.path).map_err(AppendError::from_disk)?;
        let free_min = inner.options.free_min_bytes;
        if size.saturating_sub(self.len()).saturating_add(free_min) > free {
            // A size that only a peer has said must not take the whole disk at once.
            return Err(AppendError::BelowFreeMin { free, free_min });
        }
        inner.disk.reserve(&self.file, &self.path, size).at(&self.path).map_err(AppendError::from_disk)?;
        self.reserved = true;
        Ok(())
    }

    fn check_free(&self) -> Result<(), AppendError> {
        let inner = &*self.store.inner;
        let free = inner.disk.free_bytes(&self.path_dir()).at(&self.path).map_err(AppendError::Disk)?;
        let free_min = inner.options.free_min_bytes;
        if free < free_min { Err(AppendError::BelowFreeMin { free, free_min }) } else { Ok(()) }
    }

    /// Throws away what came and starts at the first byte. Those who read along get an error from now on.
    pub fn restart(&mut self) -> Result<(), AppendError> {
        self.written.restarts.fetch_add(1, Ordering::AcqRel);
        self.written.len.store(0, Ordering::Release);
        self.hasher = self.new_hasher();
        self.resumed = 0;
        self.reserved = false;
        self.next_free_check = FREE_CHECK_BYTES;
        let disk = &*self.store.inner.disk;
        disk.truncate(&self.file, &self.path, 0).at(&self.path).map_err(AppendError::from_disk)
    }

    /// Reads along while the bytes come. **They are not verified**; see [`IncomingReader`].
    pub fn reader(&self) -> Result<IncomingReader, PathError> {
        let file = self.store.inner.disk.open_read(&self.path).at(&self.path)?;
        let restarts = self.written.restarts.load(Ordering::Acquire);
        Ok(IncomingReader { file, written: Arc::clone(&self.written), restarts })
    }

    /// Makes a blob of what came, if its digest is right. After `Ok` it survives a power cut.
    pub fn finish(self) -> Result<Blob, FinishError> {
        self.finish_telling(|| {})
    }

    /// As [`Self::finish`]; `verified` is called once the digest is known to be right. Bringing the bytes to the disk takes
    /// as long again, and those who only read along need not wait for it.
    pub fn finish_telling(mut self, verified: impl FnOnce()) -> Result<Blob, FinishError> {
        let len = self.len();
        if let Some(expected) = self.wanted.size
            && len < expected
        {
            return Err(FinishError::Short { expected, actual: len });
        }
        let (actual, sha512) = std::mem::replace(&mut self.hasher, Hasher::new(false)).finish();
        if self.unnamed
            && let Some(held) = self.take_name(actual)?
        {
            return Ok(held);
        }
        let expected = self.wanted.digest;
        if actual != expected {
            self.wipe();
            return Err(FinishError::Mismatch { expected, actual });
        }
        if let (Some(expected), Some(actual)) = (self.wanted.sha512, sha512)
            && expected != actual
        {
            self.wipe();
            return Err(FinishError::Sha512Mismatch { expected, actual });
        }
        verified();
        let synced = self.seal(len);
        if synced.is_err() {
            // After a failed sync the kernel may show bytes that the disk never got: nothing of them is worth keeping.
            self.wipe();
        }
        synced?;
        self.move_in(len)
    }

    /// Calls what came by its digest. Answers the blob instead when that is held; what came is thrown away then.
    fn take_name(&mut self, digest: Digest) -> Result<Option<Blob>, FinishError> {
        let (store, place) = (self.store.clone(), self.store.inner.layout.blob(&digest));
        let busy = || io::Error::from(io::ErrorKind::ResourceBusy);
        let ticket = store.inner.in_use.begin_incoming(&digest).ok_or_else(busy).at(&place)?;
        let from_get = |error: GetError| match error {
            GetError::Index(error) => FinishError::Index(error),
            GetError::Disk(error) => FinishError::Disk(error),
        };
        scrub::adopt_if_missing(&store.inner, &digest).map_err(from_get)?;
        if let Some(held) = store.get(&digest).map_err(from_get)? {
            self.wipe();
            return Ok(Some(held));
        }
        self.name_ticket = Some(ticket);
        self.wanted.digest = digest;
        Ok(None)
    }

    fn seal(&self, len: u64) -> Result<(), PathError> {
        let disk = &*self.store.inner.disk;
        // A failed append may have left bytes behind the end, and space is given back.
        if !self.linked {
            disk.truncate(&self.file, &self.path, len).at(&self.path)?;
        }
        disk.seal(&self.file, &self.path).at(&self.path)?;
        disk.sync(&self.file, &self.path).at(&self.path)
    }

    fn move_in(&mut self, len: u64) -> Result<Blob, FinishError> {
        let inner = &*self.store.inner;
        let digest = self.wanted.digest;
        let record = BlobRecord { size: len, added_secs: inner.options.clock.now_secs() };
        inner.index.arrive(&digest, record)?;
        let (place, dir) = (inner.layout.blob(&digest), inner.layout.blob_dir(&digest));
        inner.disk.rename(&self.path, &place).at(&place)?;
        // From here on there is no partial: should the rest fail, the next incoming or open adopts the file.
        self.settled = true;
        inner.disk.sync_dir(&dir).at(&dir)?;
        let file = inner.disk.open_read(&place).at(&place)?;
        let busy = || io::Error::from(io::ErrorKind::ResourceBusy);
        let guard = inner.in_use.open(&digest).ok_or_else(busy).at(&place)?;
        inner.index.settle(&digest, record, false)?;
        inner.feeds.tell(Event::Added(digest, len));
        let metadata = file.metadata().at(&place)?;
        Ok(Blob::new(&metadata, file, place, digest, guard))
    }

    /// Leaves what came on the disk for the next writer.
    pub fn keep(mut self) -> Result<(), PathError> {
        self.settle_partial()
    }

    /// Throws away what came.
    pub fn discard(mut self) {
        self.wipe();
    }

    fn settle_partial(&mut self) -> Result<(), PathError> {
        self.settled = true;
        let disk = &*self.store.inner.disk;
        let len = self.len();
        if len == 0 || self.linked || self.unnamed {
            return disk.remove(&self.path).at(&self.path);
        }
        let kept = disk.truncate(&self.file, &self.path, len).and_then(|()| disk.sync(&self.file, &self.path));
        kept.at(&self.path).inspect_err(|_| self.wipe())
    }

    fn wipe(&mut self) {
        self.settled = true;
        if let Err(error) = self.store.inner.disk.remove(&self.path).at(&self.path) {
            tracing::warn!(%error, "a partial stays that should go; its next writer hashes it");
        }
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Takes the bytes that a reflink put into the file, after hashing them there.
    pub(crate) fn take_reflinked(&mut self) -> Result<(), PathError> {
        self.take_up()
    }

    /// Takes, instead of the partial, a second name of another file, after hashing it there.
    pub(crate) fn take_linked(&mut self, file: File, path: PathBuf) -> Result<(), PathError> {
        self.wipe();
        self.settled = false;
        self.linked = true;
        self.file = file;
        self.path = path;
        self.hasher = self.new_hasher();
        let len = hash_file(&self.file, &mut self.hasher, |_| true).at(&self.path)?;
        self.written.len.store(len, Ordering::Release);
        Ok(())
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.settled
            && let Err(error) = self.settle_partial()
        {
            tracing::warn!(%error, "a partial is lost");
        }
    }
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Incoming({}, {} bytes)", self.wanted.digest.short(), self.len())
    }
}
