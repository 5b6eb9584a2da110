//! Bytes by digest: a content-addressed store that lets in only what matches.
//!
//! The store is sync: what it does is system calls that an async runtime would push to threads anyway, and a call that cannot be
//! cancelled half way is far easier to make safe against a crash. It knows no network and no Gentoo beyond digests and the rows of
//! its [`Catalog`]; whoever is async calls it from a blocking thread.
//!
//! Bytes come in through [`Incoming`] or [`Store::import`] and become a [`Blob`] only when their digest is right. A `kill -9` or a
//! power cut at any moment leaves blobs that verify and partials that resume: `incoming` says how, `gc` for the way out.
//!
//! **Invariant:** nothing here hands out bytes whose digest was not checked, but for [`IncomingReader`], which says so.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;
use tree::digest::{Digest, Sha512};
use tree::size::total;

mod layout;

mod disk;

mod aside;
mod atomic;

mod clock;

mod options;

mod record;

mod index;

mod held;

mod pin_rows;

mod pin;

mod blob;

mod incoming;

mod incoming_error;

mod reader;

mod import;

mod recover;

mod gc;

mod scrub;

mod events;

mod human;

mod catalog;

mod catalog_entry;

mod rows;

mod link;

pub use crate::atomic::write_atomically;
pub use crate::blob::{Blob, digest_of_file};
pub use crate::catalog::{Catalog, Touched};
pub use crate::catalog_entry::{CatalogEntry, CatalogError, CatalogUri, PackageEntries, PackageStamp};
pub use crate::clock::Clock;
pub use crate::disk::{BLOB_MODE, Disk, Listed, PathError, RealDisk};
pub use crate::events::{EVENTS_MAX, Event, Events, NextEventError};
pub use crate::gc::{GcError, GcItem, GcReason, GcReport, GcTarget, RemoveError};
pub use crate::import::{How, ImportError, ImportOptions, Imported};
pub use crate::incoming::Incoming;
pub use crate::incoming_error::{AppendError, FinishError, IncomingError};
pub use crate::index::IndexError;
pub use crate::layout::{FORMAT_VERSION, ReadVersionError};
pub use crate::link::LinkError;
pub use crate::options::Options;
pub use crate::pin::{PIN_ROOT_BYTES_MAX, ParsePinRootError, Pin, PinGuard, PinRoot};
pub use crate::reader::IncomingReader;
pub use crate::record::DecodeRecordError;
pub use crate::rows::{
    KEY_BYTES_MAX, PAGE_BYTES_MAX, PAGE_ROWS_MAX, Row, RowChange, RowError, RowTable, VALUE_BYTES_MAX, WRITE_BYTES_MAX,
};
pub use crate::scrub::{VerifyProgress, VerifyReport};
pub use human::human;

use crate::disk::At as _;
use crate::events::Feeds;
use crate::gc::Usage;
use crate::index::Index;
use crate::layout::Layout;
use crate::pin::InUse;

/// What is to come in, as a Manifest or a claim says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// What the bytes are called.
    pub digest: Digest,
    /// How many there are, if that is known.
    pub size: Option<u64>,
    /// Their other sum, if that is known.
    pub sha512: Option<Sha512>,
}

/// What a store holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Blobs held.
    pub blobs: u64,
    /// Bytes of all blobs.
    pub bytes: u64,
    /// Incoming that are not finished, written to now or left for later.
    pub partials: u64,
    /// Bytes of all partials.
    pub partial_bytes: u64,
    /// Digests with at least one pin, held or not.
    pub pinned: u64,
    /// Files that rotted and were put aside.
    pub quarantined: u64,
    /// Bytes the file system has left; 0 when it does not say.
    pub disk_free_bytes: u64,
}

/// Why a store cannot be opened.
#[derive(Debug, Error)]
pub enum OpenStoreError {
    /// Another process, or another part of this one, has it open.
    #[error("the store at {} is open in another process", .0.display())]
    InUse(PathBuf),
    /// Another program, or a later version of this one, wrote it.
    #[error(transparent)]
    Version(#[from] ReadVersionError),
    /// A file or directory of it does not do what it should.
    #[error(transparent)]
    Disk(#[from] PathError),
    /// The index does not open.
    #[error(transparent)]
    Index(#[from] IndexError),
}

/// Why a blob that may be held cannot be read.
#[derive(Debug, Error)]
pub enum GetError {
    /// The index does not answer.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The file does not open.
    #[error("cannot open a blob: {0}")]
    Disk(#[from] PathError),
}

/// An open store; clones are the same store. It closes when the last clone and the last [`Incoming`] are gone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    layout: Layout,
    options: Options,
    disk: Arc<dyn Disk>,
    in_use: Arc<InUse>,
    usage: Usage,
    feeds: Feeds,
    catalog: Catalog,
    index: Arc<Index>,
    /// Declared last: the lock is given up only after the index is closed.
    _lock: File,
}

impl Store {
    /// Opens the store in a directory, which it makes if need be, and puts right what a crash left half done.
    ///
    /// The time this takes does not depend on how many blobs there are.
    pub fn open(dir: &Path, options: Options) -> Result<Self, OpenStoreError> {
        Self::open_on(dir, options, Arc::new(RealDisk))
    }

    /// As [`Store::open`], on a disk that a test can make fail.
    pub fn open_on(dir: &Path, options: Options, disk: Arc<dyn Disk>) -> Result<Self, OpenStoreError> {
        let layout = Layout::new(dir);
        disk.create_dir(dir).at(dir)?;
        let lock = disk::open_lock(&layout.lock()).at(&layout.lock())?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(OpenStoreError::InUse(dir.to_path_buf())),
            Err(std::fs::TryLockError::Error(source)) => Err(source).at(&layout.lock())?,
        }
        layout.prepare(&*disk)?;
        let index = Arc::new(Index::open(&layout.index(), Arc::clone(&disk))?);
        let catalog = Catalog::open(Arc::clone(&index))?;
        let inner = Inner {
            layout,
            options,
            disk,
            in_use: Arc::default(),
            usage: Usage::default(),
            feeds: Feeds::default(),
            catalog,
            index,
            _lock: lock,
        };
        recover::recover(&inner)?;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The blob, if it is held; that it was asked for counts as its last use.
    ///
    /// When its file is gone or has another size, the blob is forgotten and the answer is None.
    pub fn get(&self, digest: &Digest) -> Result<Option<Blob>, GetError> {
        let inner = &*self.inner;
        let Some(guard) = inner.in_use.open(digest) else { return Ok(None) };
        let Some(record) = inner.index.blob(digest)? else { return Ok(None) };
        let path = inner.layout.blob(digest);
        let sound = match inner.disk.open_read(&path) {
            Ok(file) => {
                let metadata = file.metadata().at(&path)?;
                (metadata.len() == record.size).then_some((file, metadata))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).at(&path)?,
        };
        let Some((file, metadata)) = sound else {
            drop(guard);
            let still_wrong = || !path.metadata().is_ok_and(|metadata| metadata.len() == record.size);
            scrub::put_aside(inner, digest, still_wrong)?;
            return Ok(None);
        };
        inner.usage.mark(&inner.index, digest, inner.options.clock.now_secs());
        Ok(Some(Blob::new(&metadata, file, path, *digest, guard)))
    }

    /// Whether the index has the blob. The file is not looked at: [`Store::get`] does that.
    #[must_use]
    pub fn contains(&self, digest: &Digest) -> bool {
        self.size_of(digest).is_some()
    }

    /// How many bytes the blob has, if the index has it.
    #[must_use]
    pub fn size_of(&self, digest: &Digest) -> Option<u64> {
        let record = self.inner.index.blob(digest);
        logged(record, "size_of").flatten().map(|record| record.size)
    }

    /// The one writer of bytes that are wanted. What an earlier writer left is taken up, when its length can be right.
    pub fn incoming(&self, wanted: &Wanted) -> Result<Incoming, IncomingError> {
        Incoming::begin(self, wanted)
    }

    /// The one writer for `key` of bytes whose digest nobody knows before their end: the blob is called by what came.
    ///
    /// Nothing of it is kept unless it is finished, since nothing says that other bytes would fit to it.
    pub fn incoming_unnamed(&self, key: &Digest, size: Option<u64>) -> Result<Incoming, IncomingError> {
        Incoming::begin_unnamed(self, key, size)
    }

    /// Takes in a file as it is now; see `ImportOptions` for when the disk space can be shared.
    pub fn import(&self, path: &Path, wanted: &Wanted) -> Result<Imported, ImportError> {
        self.import_with(path, wanted, ImportOptions::default())
    }

    /// As [`Store::import`], with the ways that are allowed.
    pub fn import_with(&self, path: &Path, wanted: &Wanted, options: ImportOptions) -> Result<Imported, ImportError> {
        import::import(self, path, wanted, options)
    }

    /// Keeps a digest from gc for a reason, whether it is held yet or not. The pin survives a power cut.
    pub fn pin(&self, digest: &Digest, root: &PinRoot) -> Result<(), IndexError> {
        self.inner.index.pin(digest, root, self.inner.options.clock.now_secs())
    }

    /// Makes a reason keep exactly these digests, whatever it kept before; all of it or nothing.
    pub fn repin(&self, root: &PinRoot, digests: &[Digest]) -> Result<(), IndexError> {
        self.inner.index.repin(root, digests, self.inner.options.clock.now_secs())
    }

    /// Takes a reason away from everything it kept; answers how many digests that were.
    pub fn unpin(&self, root: &PinRoot) -> Result<u64, IndexError> {
        self.inner.index.unpin(root)
    }

    /// All pins, those of one root together. Empty, and logged, when the index does not answer.
    #[must_use]
    pub fn pins(&self) -> Vec<Pin> {
        logged(self.inner.index.pins(), "pins").unwrap_or_default()
    }

    /// Whether any reason keeps the digest. True, and logged, when the index does not answer.
    #[must_use]
    pub fn is_pinned(&self, digest: &Digest) -> bool {
        logged(self.inner.index.is_pinned(digest), "is_pinned").unwrap_or(true)
    }

    /// Removes what may go until the target fits, least recently used first; `pretend` only says what would go.
    pub fn gc(&self, target: GcTarget, pretend: bool) -> Result<GcReport, GcError> {
        gc::gc(&self.inner, target, pretend)
    }

    /// Removes one blob now. False when it is not held.
    pub fn remove(&self, digest: &Digest) -> Result<bool, RemoveError> {
        gc::remove(&self.inner, digest)
    }

    /// Hashes every blob again, puts aside what rotted, and makes index and files agree. Hours for a large store.
    ///
    /// `pace_bytes_per_sec` leaves the disk to others; None is as fast as it goes. Ends soon after `stop` is set.
    pub fn verify(
        &self,
        pace_bytes_per_sec: Option<u64>,
        progress: &mut dyn FnMut(VerifyProgress),
        stop: &std::sync::atomic::AtomicBool,
    ) -> VerifyReport {
        scrub::verify(&self.inner, pace_bytes_per_sec, progress, stop)
    }

    /// What is held, from counters and two short directories.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let inner = &*self.inner;
        let counters = inner.index.counters();
        let partials = inner.partials();
        let quarantined = inner.disk.list(&inner.layout.quarantine_dir()).map_or(0, |files| files.len());
        Stats {
            blobs: counters.blobs,
            bytes: counters.bytes,
            partials: u64::try_from(partials.len()).unwrap_or(u64::MAX),
            partial_bytes: total(partials.iter().map(|(_, partial)| partial.size)),
            pinned: counters.pinned,
            quarantined: u64::try_from(quarantined).unwrap_or(u64::MAX),
            disk_free_bytes: inner.disk.free_bytes(inner.layout.root()).unwrap_or_default(),
        }
    }

    /// Up to `limit` blobs and their sizes in the order of their digests, those after `after`. Logged when the index does not answer.
    #[must_use]
    pub fn list(&self, after: Option<&Digest>, limit: usize) -> Vec<(Digest, u64)> {
        let blobs = logged(self.inner.index.blobs_after(after, limit), "list").unwrap_or_default();
        blobs.into_iter().map(|(digest, record)| (digest, record.size)).collect()
    }

    /// What comes and goes from now on. Subscribe first, then list: nothing is missed then.
    #[must_use]
    pub fn subscribe(&self) -> Events {
        self.inner.feeds.subscribe()
    }

    /// What the trees name.
    #[must_use]
    pub fn catalog(&self) -> &Catalog {
        &self.inner.catalog
    }

    /// Writes down when blobs were last used and waits until the index is on the disk.
    pub fn flush(&self) -> Result<(), IndexError> {
        self.inner.usage.write(&self.inner.index)?;
        self.inner.index.sync()
    }

    /// How the store keeps itself.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.inner.options
    }
}

impl Inner {
    /// The files in `incoming/` that are called by a digest. Empty when the directory cannot be read.
    pub(crate) fn partials(&self) -> Vec<(Digest, Listed)> {
        let listed = self.disk.list(&self.layout.incoming_dir()).unwrap_or_default();
        let named = |file: Listed| Some((file.name.to_str()?.parse().ok()?, file));
        listed.into_iter().filter_map(named).collect()
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Store({})", self.inner.layout.root().display())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let written = self.usage.write(&self.index).and_then(|()| self.index.sync());
        if let Err(error) = written {
            tracing::warn!(%error, "the store closes without its last marks of use");
        }
    }
}

/// Takes a lock whose holder may have panicked: what it guards here is whole between any two statements.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// For questions whose answer has no room for an error.
pub(crate) fn logged<T, E: fmt::Display>(result: Result<T, E>, question: &str) -> Option<T> {
    result.inspect_err(|error| tracing::error!(%error, question, "the index does not answer")).ok()
}
