//! The index: RocksDB column families as typed tables, one `WriteBatch` for every change, counters changed with what they count.
//!
//! The index, not the directory tree, says what is held. Every change takes the one write lock, so the counters never drift and a
//! pin that was set is seen by the removal that follows.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, LogLevel, WriteBatch,
    WriteOptions,
};
use thiserror::Error;
use tree::digest::Digest;

use crate::disk::Disk;
use crate::locked;
use crate::record::{Counters, DecodeRecordError};

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
    /// digest → [`crate::record::BlobRecord`]
    Blobs,
    /// digest → [`crate::record::NumberRecord`], when it was last asked for
    Used,
    /// digest → [`crate::record::MoveRecord`], what a crash may leave half done
    Moves,
    /// `d` digest root, and `r` length root digest → [`crate::record::NumberRecord`], since when
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
    /// Rows of the daemon, opaque here: see [`crate::RowTable`].
    Jobs,
    /// As [`Self::Jobs`].
    Binpkgs,
    /// As [`Self::Jobs`].
    Claims,
    /// As [`Self::Jobs`].
    Trust,
    /// As [`Self::Jobs`].
    Groups,
}

impl Table {
    const ALL: [Self; 14] = [
        Self::Blobs,
        Self::Used,
        Self::Moves,
        Self::Pins,
        Self::Counters,
        Self::Catalog,
        Self::CatalogDigests,
        Self::CatalogNames,
        Self::Stamps,
        Self::Jobs,
        Self::Binpkgs,
        Self::Claims,
        Self::Trust,
        Self::Groups,
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
            Self::Jobs => "jobs",
            Self::Binpkgs => "binpkgs",
            Self::Claims => "claims",
            Self::Trust => "trust",
            Self::Groups => "groups",
        }
    }
}

/// Key of [`Counters`] in its table.
const COUNTERS_KEY: &[u8] = b"store";

/// The open index.
#[derive(Debug)]
pub(crate) struct Index {
    pub(crate) db: DB,
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

    pub(crate) fn write_counted(
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
}

pub(crate) fn digest_of(key: &[u8]) -> Result<Digest, DecodeRecordError> {
    key.try_into().map(Digest::from_bytes).map_err(|_| DecodeRecordError::Field("digest"))
}

pub(crate) fn in_table(table: Table) -> impl Fn(DecodeRecordError) -> IndexError {
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
