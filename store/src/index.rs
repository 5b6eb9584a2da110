//! The index: RocksDB column families as typed tables, one `WriteBatch` for every change, counters changed with what they count.
//!
//! The index, not the directory tree, says what is held. Every change takes the one write lock, so the counters never drift and a
//! pin that was set is seen by the removal that follows.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DBRawIterator, LogLevel,
    WriteBatch, WriteOptions,
};
use thiserror::Error;
use tree::digest::Digest;

use crate::disk::Disk;
use crate::locked;
use crate::pin::{Pin, PinRoot};
use crate::record::{BlobRecord, Counters, DecodeRecordError, MoveRecord, NumberRecord};

/// Blocks of all tables that stay in memory.
const BLOCK_CACHE_BYTES: usize = 4 << 20;
/// What all tables together hold in memory before it is written out.
const WRITE_BUFFERS_BYTES: usize = 6 << 20;
/// What one table holds in memory.
const WRITE_BUFFER_BYTES: usize = 2 << 20;
/// The log that is read again after a crash; bounds how long that takes.
const LOG_BYTES_MAX: u64 = 16 << 20;
/// Files of the index that are open at once.
const OPEN_FILES_MAX: i32 = 128;

/// Why the index does not answer.
#[derive(Debug, Error)]
pub enum IndexError {
    /// It cannot be opened.
    #[error("cannot open the index at {}: {source}", path.display())]
    Open {
        /// Directory of the index.
        path: PathBuf,
        /// What RocksDB said.
        #[source]
        source: rocksdb::Error,
    },
    /// A table cannot be read.
    #[error("cannot read table {table} of the index: {source}")]
    Read {
        /// Name of the table.
        table: &'static str,
        /// What RocksDB said.
        #[source]
        source: rocksdb::Error,
    },
    /// A change cannot be written; nothing of it is.
    #[error("cannot write to the index: {source}")]
    Write {
        /// What RocksDB, or the disk, said.
        #[source]
        source: io::Error,
    },
    /// A record or its key is not one that this program writes.
    #[error("table {table} of the index: {source}")]
    Record {
        /// Name of the table.
        table: &'static str,
        /// What is wrong with the record.
        #[source]
        source: DecodeRecordError,
    },
}

impl IndexError {
    /// Whether the disk is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Write { source } if source.kind() == io::ErrorKind::StorageFull)
    }
}

/// The column families.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    /// digest → [`BlobRecord`]
    Blobs,
    /// digest → [`NumberRecord`], when it was last asked for
    Used,
    /// digest → [`MoveRecord`], what a crash may leave half done
    Moves,
    /// `d` digest root, and `r` length root digest → [`NumberRecord`], since when
    Pins,
    /// name → [`Counters`] or a number
    Counters,
    /// repository NUL package NUL name → `CatalogRecord`
    Catalog,
    /// digest repository NUL package NUL name → permits
    CatalogDigests,
    /// name NUL repository NUL package → nothing
    CatalogNames,
    /// repository NUL package → stamp
    Stamps,
}

impl Table {
    const ALL: [Self; 9] = [
        Self::Blobs,
        Self::Used,
        Self::Moves,
        Self::Pins,
        Self::Counters,
        Self::Catalog,
        Self::CatalogDigests,
        Self::CatalogNames,
        Self::Stamps,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Blobs => "blobs",
            Self::Used => "used",
            Self::Moves => "moves",
            Self::Pins => "pins",
            Self::Counters => "counters",
            Self::Catalog => "catalog",
            Self::CatalogDigests => "catalog-digests",
            Self::CatalogNames => "catalog-names",
            Self::Stamps => "stamps",
        }
    }
}

/// Key of [`Counters`] in its table.
const COUNTERS_KEY: &[u8] = b"store";
const PINS_BY_DIGEST: u8 = b'd';
const PINS_BY_ROOT: u8 = b'r';

/// One blob as the index knows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Surveyed {
    pub(crate) digest: Digest,
    pub(crate) record: BlobRecord,
    pub(crate) used_secs: u64,
    pub(crate) pinned: bool,
}

/// The open index.
#[derive(Debug)]
pub(crate) struct Index {
    db: DB,
    disk: Arc<dyn Disk>,
    counters: Mutex<Counters>,
}

impl Index {
    pub(crate) fn open(path: &Path, disk: Arc<dyn Disk>) -> Result<Self, IndexError> {
        let cache = Cache::new_lru_cache(BLOCK_CACHE_BYTES);
        let tables = Table::ALL.map(|table| ColumnFamilyDescriptor::new(table.name(), table_options(&cache)));
        let db = DB::open_cf_descriptors(&database_options(), path, tables)
            .map_err(|source| IndexError::Open { path: path.to_path_buf(), source })?;
        let index = Self { db, disk, counters: Mutex::default() };
        if let Some(bytes) = index.value(Table::Counters, COUNTERS_KEY)? {
            *index.write_lock() = Counters::decode(&bytes).map_err(in_table(Table::Counters))?;
        }
        Ok(index)
    }

    /// Nobody else changes the index while this is held.
    pub(crate) fn write_lock(&self) -> MutexGuard<'_, Counters> {
        locked(&self.counters)
    }

    pub(crate) fn counters(&self) -> Counters {
        *self.write_lock()
    }

    #[expect(clippy::missing_panics_doc, reason = "the tables are opened with the database")]
    pub(crate) fn table(&self, table: Table) -> &ColumnFamily {
        self.db.cf_handle(table.name()).expect("every table is opened with the database")
    }

    pub(crate) fn value(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        self.db.get_cf(self.table(table), key).map_err(|source| IndexError::Read { table: table.name(), source })
    }

    /// Goes over the rows whose key starts with `prefix`, from key `from` on, while `each` says so.
    pub(crate) fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        from: &[u8],
        mut each: impl FnMut(&[u8], &[u8]) -> Result<bool, DecodeRecordError>,
    ) -> Result<(), IndexError> {
        let mut rows = self.db.raw_iterator_cf(self.table(table));
        rows.seek(from);
        while let Some((key, value)) = rows.item() {
            if !key.starts_with(prefix) || !each(key, value).map_err(in_table(table))? {
                return Ok(());
            }
            rows.next();
        }
        rows.status().map_err(|source| IndexError::Read { table: table.name(), source })
    }

    /// Writes a batch; `synced` waits for the disk. Take [`Self::write_lock`] before reading what the batch is made from.
    pub(crate) fn write(&self, batch: WriteBatch, synced: bool) -> Result<(), IndexError> {
        let mut batch = Some(batch);
        let mut write = || {
            let mut options = WriteOptions::default();
            options.set_sync(synced);
            batch.take().map_or(Ok(()), |batch| self.db.write_opt(batch, &options)).map_err(into_io)
        };
        self.disk.commit(&mut write, synced).map_err(|source| IndexError::Write { source })
    }

    fn write_counted(
        &self,
        mut batch: WriteBatch,
        lock: &mut MutexGuard<'_, Counters>,
        counters: Counters,
        synced: bool,
    ) -> Result<(), IndexError> {
        batch.put_cf(self.table(Table::Counters), COUNTERS_KEY, counters.encode());
        self.write(batch, synced)?;
        **lock = counters;
        Ok(())
    }

    /// Waits until everything written is on the disk.
    pub(crate) fn sync(&self) -> Result<(), IndexError> {
        let mut write = || self.db.flush_wal(true).map_err(into_io);
        self.disk.commit(&mut write, true).map_err(|source| IndexError::Write { source })
    }

    pub(crate) fn blob(&self, digest: &Digest) -> Result<Option<BlobRecord>, IndexError> {
        let bytes = self.value(Table::Blobs, digest.as_bytes())?;
        bytes.map(|bytes| BlobRecord::decode(&bytes)).transpose().map_err(in_table(Table::Blobs))
    }

    /// Up to `limit` blobs in the order of their digests, those after `after`.
    pub(crate) fn blobs_after(
        &self,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Vec<(Digest, BlobRecord)>, IndexError> {
        let mut found = Vec::new();
        let from = after.map_or([].as_slice(), |after| after.as_bytes());
        self.scan(Table::Blobs, b"", from, |key, value| {
            let digest = digest_of(key)?;
            if found.len() < limit && Some(&digest) != after {
                found.push((digest, BlobRecord::decode(value)?));
            }
            Ok(found.len() < limit)
        })?;
        Ok(found)
    }

    /// Says that verified bytes are about to get their name. Synced: after a crash the next open finds the name or forgets it.
    pub(crate) fn arrive(&self, digest: &Digest, record: BlobRecord) -> Result<(), IndexError> {
        let _lock = self.write_lock();
        let mut batch = WriteBatch::default();
        batch.put_cf(self.table(Table::Moves), digest.as_bytes(), MoveRecord::Arriving(record).encode());
        self.write(batch, true)
    }

    /// Says that a blob has its name. After [`Self::arrive`] this need not be synced.
    pub(crate) fn settle(&self, digest: &Digest, record: BlobRecord, synced: bool) -> Result<(), IndexError> {
        let mut lock = self.write_lock();
        let mut counters = *lock;
        let mut batch = WriteBatch::default();
        if let Some(old) = self.blob(digest)? {
            counters.blobs = counters.blobs.saturating_sub(1);
            counters.bytes = counters.bytes.saturating_sub(old.size);
        }
        counters.blobs = counters.blobs.saturating_add(1);
        counters.bytes = counters.bytes.saturating_add(record.size);
        batch.put_cf(self.table(Table::Blobs), digest.as_bytes(), record.encode());
        batch.delete_cf(self.table(Table::Moves), digest.as_bytes());
        self.write_counted(batch, &mut lock, counters, synced)
    }

    /// Takes blobs out and notes that their files are to go; answers those it took. A pinned one stays unless `even_pinned`.
    pub(crate) fn leave(&self, digests: &[Digest], even_pinned: bool) -> Result<Vec<(Digest, u64)>, IndexError> {
        let mut lock = self.write_lock();
        let mut counters = *lock;
        let mut batch = WriteBatch::default();
        let mut taken = Vec::with_capacity(digests.len());
        for digest in digests {
            let Some(record) = self.blob(digest)? else { continue };
            if !even_pinned && self.is_pinned(digest)? {
                continue;
            }
            counters.blobs = counters.blobs.saturating_sub(1);
            counters.bytes = counters.bytes.saturating_sub(record.size);
            batch.delete_cf(self.table(Table::Blobs), digest.as_bytes());
            batch.delete_cf(self.table(Table::Used), digest.as_bytes());
            batch.put_cf(self.table(Table::Moves), digest.as_bytes(), MoveRecord::Leaving.encode());
            taken.push((*digest, record.size));
        }
        if !taken.is_empty() {
            self.write_counted(batch, &mut lock, counters, true)?;
        }
        Ok(taken)
    }

    /// Forgets moves that are done, or given up. Not synced: done twice they do no harm.
    pub(crate) fn end_moves<'a>(&self, digests: impl IntoIterator<Item = &'a Digest>) -> Result<(), IndexError> {
        let _lock = self.write_lock();
        let mut batch = WriteBatch::default();
        for digest in digests {
            batch.delete_cf(self.table(Table::Moves), digest.as_bytes());
        }
        self.write(batch, false)
    }

    /// What a crash left half done; a handful at most.
    pub(crate) fn moves(&self) -> Result<Vec<(Digest, MoveRecord)>, IndexError> {
        let mut moves = Vec::new();
        self.scan(Table::Moves, b"", b"", |key, value| {
            moves.push((digest_of(key)?, MoveRecord::decode(value)?));
            Ok(true)
        })?;
        Ok(moves)
    }

    /// Notes when blobs were last asked for. Not synced: a crash makes some look a little older.
    pub(crate) fn mark_used(&self, used: impl IntoIterator<Item = (Digest, u64)>) -> Result<(), IndexError> {
        let _lock = self.write_lock();
        let mut batch = WriteBatch::default();
        for (digest, secs) in used {
            // A blob that left meanwhile must not leave a row behind.
            if self.blob(&digest)?.is_some() {
                batch.put_cf(self.table(Table::Used), digest.as_bytes(), NumberRecord(secs).encode());
            }
        }
        if batch.is_empty() { Ok(()) } else { self.write(batch, false) }
    }

    pub(crate) fn is_pinned(&self, digest: &Digest) -> Result<bool, IndexError> {
        let mut pinned = false;
        let prefix = pins_of_digest(digest);
        self.scan(Table::Pins, &prefix, &prefix, |_, _| {
            pinned = true;
            Ok(false)
        })?;
        Ok(pinned)
    }

    pub(crate) fn pin(&self, digest: &Digest, root: &PinRoot, now_secs: u64) -> Result<(), IndexError> {
        let mut lock = self.write_lock();
        let mut counters = *lock;
        if !self.is_pinned(digest)? {
            counters.pinned = counters.pinned.saturating_add(1);
        }
        let since = NumberRecord(now_secs).encode();
        let mut batch = WriteBatch::default();
        batch.put_cf(self.table(Table::Pins), pin_by_digest(digest, root), &since);
        batch.put_cf(self.table(Table::Pins), pin_by_root(root, digest), &since);
        self.write_counted(batch, &mut lock, counters, true)
    }

    /// Takes all pins of a root away; answers how many there were.
    pub(crate) fn unpin(&self, root: &PinRoot) -> Result<u64, IndexError> {
        let mut lock = self.write_lock();
        let mut digests = Vec::new();
        let prefix = pins_of_root(root);
        self.scan(Table::Pins, &prefix, &prefix, |key, _| {
            digests.push(digest_of(key.get(prefix.len()..).unwrap_or_default())?);
            Ok(true)
        })?;
        let mut counters = *lock;
        let mut batch = WriteBatch::default();
        let mut count = 0;
        for digest in &digests {
            batch.delete_cf(self.table(Table::Pins), pin_by_digest(digest, root));
            batch.delete_cf(self.table(Table::Pins), pin_by_root(root, digest));
            if self.roots_of(digest)? == 1 {
                counters.pinned = counters.pinned.saturating_sub(1);
            }
            count += 1;
        }
        if count > 0 {
            self.write_counted(batch, &mut lock, counters, true)?;
        }
        Ok(count)
    }

    /// Makes the pins of a root exactly these; all of it or nothing.
    pub(crate) fn repin(&self, root: &PinRoot, digests: &[Digest], now_secs: u64) -> Result<(), IndexError> {
        let mut lock = self.write_lock();
        let mut old = BTreeSet::new();
        let prefix = pins_of_root(root);
        self.scan(Table::Pins, &prefix, &prefix, |key, _| {
            old.insert(digest_of(key.get(prefix.len()..).unwrap_or_default())?);
            Ok(true)
        })?;
        let new: BTreeSet<Digest> = digests.iter().copied().collect();
        let mut counters = *lock;
        let mut batch = WriteBatch::default();
        for digest in old.difference(&new) {
            batch.delete_cf(self.table(Table::Pins), pin_by_digest(digest, root));
            batch.delete_cf(self.table(Table::Pins), pin_by_root(root, digest));
            if self.roots_of(digest)? == 1 {
                counters.pinned = counters.pinned.saturating_sub(1);
            }
        }
        let since = NumberRecord(now_secs).encode();
        for digest in new.difference(&old) {
            if !self.is_pinned(digest)? {
                counters.pinned = counters.pinned.saturating_add(1);
            }
            batch.put_cf(self.table(Table::Pins), pin_by_digest(digest, root), &since);
            batch.put_cf(self.table(Table::Pins), pin_by_root(root, digest), &since);
        }
        self.write_counted(batch, &mut lock, counters, true)
    }

    fn roots_of(&self, digest: &Digest) -> Result<u64, IndexError> {
        let mut count = 0;
        let prefix = pins_of_digest(digest);
        self.scan(Table::Pins, &prefix, &prefix, |_, _| {
            count += 1;
            Ok(true)
        })?;
        Ok(count)
    }

    /// All pins, those of one root together.
    pub(crate) fn pins(&self) -> Result<Vec<Pin>, IndexError> {
        let mut pins = Vec::new();
        self.scan(Table::Pins, &[PINS_BY_ROOT], &[PINS_BY_ROOT], |key, _| {
            pins.push(read_pin(key)?);
            Ok(true)
        })?;
        Ok(pins)
    }

    /// Goes over all blobs in the order of their digests, each with its last use and whether it is pinned.
    pub(crate) fn survey(&self, mut each: impl FnMut(Surveyed)) -> Result<(), IndexError> {
        let mut used = self.db.raw_iterator_cf(self.table(Table::Used));
        used.seek_to_first();
        let mut pins = self.db.raw_iterator_cf(self.table(Table::Pins));
        pins.seek([PINS_BY_DIGEST]);
        // All three are in the order of digests, so each is walked once.
        self.scan(Table::Blobs, b"", b"", |key, value| {
            let record = BlobRecord::decode(value)?;
            let used_secs = match value_at(&mut used, key) {
                Some(value) => NumberRecord::decode(value)?.0,
                None => 0,
            };
            let digest = digest_of(key)?;
            let prefix = pins_of_digest(&digest);
            while pins.key().is_some_and(|pin| pin < prefix.as_slice()) {
                pins.next();
            }
            let pinned = pins.key().is_some_and(|pin| pin.starts_with(&prefix));
            each(Surveyed { digest, record, used_secs: used_secs.max(record.added_secs), pinned });
            Ok(true)
        })?;
        for (rows, table) in [(&used, Table::Used), (&pins, Table::Pins)] {
            rows.status().map_err(|source| IndexError::Read { table: table.name(), source })?;
        }
        Ok(())
    }
}

/// Walks on to a key; keys must be asked for in order.
fn value_at<'a>(rows: &'a mut DBRawIterator<'_>, wanted: &[u8]) -> Option<&'a [u8]> {
    while rows.key().is_some_and(|key| key < wanted) {
        rows.next();
    }
    rows.item().and_then(|(key, value)| (key == wanted).then_some(value))
}

fn pins_of_digest(digest: &Digest) -> Vec<u8> {
    [&[PINS_BY_DIGEST], digest.as_bytes().as_slice()].concat()
}

fn pin_by_digest(digest: &Digest, root: &PinRoot) -> Vec<u8> {
    [&pins_of_digest(digest), root.as_str().as_bytes()].concat()
}

fn pins_of_root(root: &PinRoot) -> Vec<u8> {
    // The length keeps a root from being the start of another; 256 fits.
    let length = u16::try_from(root.as_str().len()).unwrap_or(u16::MAX).to_be_bytes();
    [&[PINS_BY_ROOT], length.as_slice(), root.as_str().as_bytes()].concat()
}

fn pin_by_root(root: &PinRoot, digest: &Digest) -> Vec<u8> {
    [&pins_of_root(root), digest.as_bytes().as_slice()].concat()
}

fn read_pin(key: &[u8]) -> Result<Pin, DecodeRecordError> {
    let wrong = DecodeRecordError::Field("pin");
    let (head, digest) = key.split_last_chunk::<64>().ok_or(wrong.clone())?;
    let root = head.get(3..).and_then(|root| std::str::from_utf8(root).ok()).ok_or(wrong.clone())?;
    Ok(Pin { root: root.parse().map_err(|_| wrong)?, digest: Digest::from_bytes(*digest) })
}

fn digest_of(key: &[u8]) -> Result<Digest, DecodeRecordError> {
    key.try_into().map(Digest::from_bytes).map_err(|_| DecodeRecordError::Field("digest"))
}

fn in_table(table: Table) -> impl Fn(DecodeRecordError) -> IndexError {
    move |source| IndexError::Record { table: table.name(), source }
}

/// RocksDB has no kind of its own for a full disk; it passes on the system's words.
fn into_io(error: rocksdb::Error) -> io::Error {
    let full = error.to_string().contains("No space left on device");
    let kind = if full { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
    io::Error::new(kind, error)
}

fn database_options() -> rocksdb::Options {
    let mut options = rocksdb::Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_db_write_buffer_size(WRITE_BUFFERS_BYTES);
    options.set_max_total_wal_size(LOG_BYTES_MAX);
    options.set_max_open_files(OPEN_FILES_MAX);
    options.set_max_background_jobs(2);
    options.set_table_cache_num_shard_bits(2);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(1 << 20);
    options.set_max_manifest_file_size(1 << 20);
    options.set_log_level(LogLevel::Warn);
    options.set_stats_dump_period_sec(0);
    options.set_skip_stats_update_on_db_open(true);
    options
}

fn table_options(cache: &Cache) -> rocksdb::Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_bloom_filter(10.0, false);
    let mut options = rocksdb::Options::default();
    options.set_block_based_table_factory(&blocks);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_max_write_buffer_number(2);
    options.set_arena_block_size(64 << 10);
    options
}
