//! Rows of the daemon: tables of the index whose keys and values mean nothing to the store.
//!
//! Jobs, binary packages, claims and trust must survive what blobs survive, and a claim must never be there without the binary
//! package it is about; so they lie in the same index, and many rows are written in one step. What a value means, and its version,
//! is for who writes it.

use rocksdb::WriteBatch;
use thiserror::Error;

use crate::Store;
use crate::index::{Index, IndexError, Table};

/// Longest key: a name of a repository, a package and a version (255 bytes each) beside a digest fit.
pub const KEY_BYTES_MAX: usize = 1024;
/// Longest value: as a row of the catalog; what a binary package says of itself for `Packages` is far less.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// Bytes of keys and values that one step writes: it is in memory twice, and in the log that is read again after a crash.
pub const WRITE_BYTES_MAX: usize = 4 << 20;
/// Rows that one answer holds, however many are asked for.
pub const PAGE_ROWS_MAX: usize = 4096;
/// Bytes of keys and values behind which an answer takes no further row; it has at least one when there is one.
pub const PAGE_BYTES_MAX: usize = 4 << 20;

/// Key and value of a row.
pub type Row = (Vec<u8>, Vec<u8>);

/// The tables whose rows the daemon makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowTable {
    /// Builds that were asked for.
    Jobs,
    /// Binary packages of this node.
    Binpkgs,
    /// Who says which binary package a recipe gives.
    Claims,
    /// Whose claims are believed.
    Trust,
    /// Machines whose users enrolled them: rosters, tickets, addresses.
    Groups,
}

impl RowTable {
    fn table(self) -> Table {
        match self {
            Self::Jobs => Table::Jobs,
            Self::Binpkgs => Table::Binpkgs,
            Self::Claims => Table::Claims,
            Self::Trust => Table::Trust,
            Self::Groups => Table::Groups,
        }
    }
}

/// What becomes of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowChange<'a> {
    /// Where the row is.
    pub table: RowTable,
    /// What it is called.
    pub key: &'a [u8],
    /// What it says from now on; None takes it away.
    pub value: Option<&'a [u8]>,
}

/// Why rows are not written; none of them is.
#[derive(Debug, Error)]
pub enum RowError {
    /// The index does not write.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The key is empty or too long.
    #[error("the key of a row has {0} bytes, not 1 to {KEY_BYTES_MAX}")]
    Key(usize),
    /// The value is too long.
    #[error("a row has {0} bytes, more than {VALUE_BYTES_MAX}")]
    Value(usize),
    /// All rows together are too long.
    #[error("the rows of one step have more than {WRITE_BYTES_MAX} bytes")]
    Write,
}

impl RowError {
    /// Whether the disk is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Index(error) if error.is_full())
    }
}

impl Store {
    /// What a row says, if it is there.
    pub fn row(&self, table: RowTable, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        self.inner.index.value(table.table(), key)
    }

    /// Writes a row, over what it said before. It survives a power cut.
    pub fn put_row(&self, table: RowTable, key: &[u8], value: &[u8]) -> Result<(), RowError> {
        self.put_rows(&[RowChange { table, key, value: Some(value) }])
    }

    /// Takes a row away; nothing when it is not there. It survives a power cut.
    pub fn delete_row(&self, table: RowTable, key: &[u8]) -> Result<(), RowError> {
        self.put_rows(&[RowChange { table, key, value: None }])
    }

    /// Writes and takes away rows of any tables in one step: after a crash at any moment all of it is done or nothing, and after `Ok`
    /// all of it. Of two changes of one row the later counts.
    pub fn put_rows(&self, changes: &[RowChange<'_>]) -> Result<(), RowError> {
        if changes.is_empty() {
            return Ok(());
        }
        let index: &Index = &self.inner.index;
        let mut batch = WriteBatch::default();
        for change in changes {
            check(change)?;
            match change.value {
                Some(value) => batch.put_cf(index.table(change.table.table()), change.key, value),
                None => batch.delete_cf(index.table(change.table.table()), change.key),
            }
            if batch.size_in_bytes() > WRITE_BYTES_MAX {
                return Err(RowError::Write);
            }
        }
        Ok(index.write(batch, true)?)
    }

    /// Rows whose keys start with `prefix`, in the order of their keys, those after the key `after`: at most `max`, and never more
    /// than [`PAGE_ROWS_MAX`] rows or much more than [`PAGE_BYTES_MAX`]. Only an empty answer says that there are no more.
    pub fn rows(
        &self,
        table: RowTable,
        prefix: &[u8],
        after: Option<&[u8]>,
        max: usize,
    ) -> Result<Vec<Row>, IndexError> {
        let max = max.min(PAGE_ROWS_MAX);
        let (mut page, mut bytes) = (Vec::new(), 0_usize);
        // The next key of all is the same with a byte 0 behind it.
        let next = after.map_or_else(Vec::new, |after| [after, &[0]].concat());
        let from = if next.as_slice() > prefix { next.as_slice() } else { prefix };
        if max == 0 {
            return Ok(page);
        }
        self.inner.index.scan(table.table(), prefix, from, |key, value| {
            page.push((key.to_vec(), value.to_vec()));
            bytes = bytes.saturating_add(key.len()).saturating_add(value.len());
            Ok(page.len() < max && bytes < PAGE_BYTES_MAX)
        })?;
        Ok(page)
    }
}

fn check(change: &RowChange<'_>) -> Result<(), RowError> {
    if change.key.is_empty() || change.key.len() > KEY_BYTES_MAX {
        return Err(RowError::Key(change.key.len()));
    }
    match change.value.map(<[u8]>::len) {
        Some(bytes) if bytes > VALUE_BYTES_MAX => Err(RowError::Value(bytes)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::Options;

    fn fresh() -> (TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Options::default()).unwrap();
        (dir, store)
    }

    const ALL: [RowTable; 5] = [RowTable::Jobs, RowTable::Binpkgs, RowTable::Claims, RowTable::Trust, RowTable::Groups];

    #[test]
    fn rows_of_every_table_survive_reopening_and_do_not_mix() {
        let (dir, store) = fresh();
        for (number, table) in (0_u8..).zip(ALL) {
            store.put_row(table, b"key", &[number]).unwrap();
        }
        store.put_row(RowTable::Jobs, b"empty", b"").unwrap();
        store.delete_row(RowTable::Trust, b"key").unwrap();
        store.delete_row(RowTable::Trust, b"never there").unwrap();
        drop(store);
        let store = Store::open(dir.path(), Options::default()).unwrap();
        let found = ALL.map(|table| store.row(table, b"key").unwrap());
        assert_eq!(found, [Some(vec![0]), Some(vec![1]), Some(vec![2]), None, Some(vec![4])]);
        assert_eq!(store.row(RowTable::Jobs, b"empty").unwrap(), Some(Vec::new()));
        assert_eq!(store.row(RowTable::Jobs, b"ke").unwrap(), None);
    }

    #[test]
    fn pages_follow_one_another_and_end_with_the_prefix() {
        let (_dir, store) = fresh();
        let keys: [&[u8]; 7] = [b"a", b"b", b"b\0", b"b\0\0", b"b\xff", b"b\xff\xff", b"c"];
        for key in keys {
            store.put_row(RowTable::Claims, key, key).unwrap();
        }
        for max in [1, 2, 5, usize::MAX] {
            let (mut all, mut after): (Vec<Vec<u8>>, Option<Vec<u8>>) = (Vec::new(), None);
            loop {
                let page = store.rows(RowTable::Claims, b"b", after.as_deref(), max).unwrap();
                assert!(page.len() <= max);
                let Some((last, _)) = page.last() else { break };
                after = Some(last.clone());
                all.extend(page.into_iter().map(|(key, _)| key));
            }
            assert_eq!(all, keys[1..6], "{max} a page");
        }
        assert_eq!(store.rows(RowTable::Claims, b"b", Some(b"a"), 9).unwrap().len(), 5);
        assert_eq!(store.rows(RowTable::Claims, b"b", Some(b"c"), 9).unwrap(), []);
        assert_eq!(store.rows(RowTable::Claims, b"", None, 0).unwrap(), []);
        assert_eq!(store.rows(RowTable::Claims, b"", None, 9).unwrap().len(), 7);
        assert_eq!(store.rows(RowTable::Jobs, b"", None, 9).unwrap(), []);
    }

    #[test]
    fn a_page_of_large_rows_is_short_and_the_next_goes_on() {
        let (_dir, store) = fresh();
        let large = vec![7; VALUE_BYTES_MAX];
        for number in 0_u8..6 {
            store.put_row(RowTable::Binpkgs, &[number], &large).unwrap();
        }
        let first = store.rows(RowTable::Binpkgs, b"", None, 100).unwrap();
        assert_eq!(first.len(), 4);
        let (last, _) = first.last().unwrap();
        assert_eq!(store.rows(RowTable::Binpkgs, b"", Some(last), 100).unwrap().len(), 2);
    }

    #[test]
    fn one_wrong_row_keeps_all_of_its_step_from_being_written() {
        let (_dir, store) = fresh();
        let (long_key, large) = (vec![1; KEY_BYTES_MAX + 1], vec![2; VALUE_BYTES_MAX + 1]);
        let good = RowChange { table: RowTable::Jobs, key: b"good", value: Some(b"1") };
        let refused = |changes: &[RowChange<'_>]| store.put_rows(changes).unwrap_err();
        assert!(matches!(refused(&[good, RowChange { key: &long_key, ..good }]), RowError::Key(1025)));
        assert!(matches!(refused(&[good, RowChange { key: b"", value: None, ..good }]), RowError::Key(0)));
        assert!(matches!(refused(&[good, RowChange { value: Some(&large), ..good }]), RowError::Value(_)));
        let whole = &large[1..];
        let keys: Vec<[u8; 1]> = (0..5).map(|number| [number]).collect();
        let many: Vec<RowChange<'_>> =
            keys.iter().map(|key| RowChange { key, value: Some(whole), ..good }).chain([good]).collect();
        assert!(matches!(refused(&many), RowError::Write));
        assert_eq!(store.rows(RowTable::Jobs, b"", None, 9).unwrap(), []);
        store.put_rows(&[]).unwrap();
        store.put_rows(&[good, RowChange { value: None, ..good }]).unwrap();
        assert_eq!(store.row(RowTable::Jobs, b"good").unwrap(), None);
    }

    /// As a program of an earlier format leaves a store: an index without these tables.
    fn lower(dir: &std::path::Path, format: u32, without: &[RowTable]) {
        let path = dir.join("index");
        let tables = rocksdb::DB::list_cf(&rocksdb::Options::default(), &path).unwrap();
        let mut index = rocksdb::DB::open_cf(&rocksdb::Options::default(), &path, tables).unwrap();
        for table in without {
            index.drop_cf(table.table().name()).unwrap();
        }
        drop(index);
        crate::write_atomically(&dir.join("VERSION"), format!("peer store {format}\n").as_bytes(), 0o644).unwrap();
    }

    #[test]
    fn stores_of_earlier_formats_open_with_what_they_hold_and_take_rows() {
        for (format, missing) in [(1, ALL.as_slice()), (2, &[RowTable::Groups])] {
            let (dir, store) = fresh();
            let pin = "kept".parse().unwrap();
            store.pin(&tree::digest::Digest::of(b"abc"), &pin).unwrap();
            store.put_row(RowTable::Trust, b"key", b"1").unwrap();
            drop(store);
            lower(dir.path(), format, missing);
            let store = Store::open(dir.path(), Options::default()).unwrap();
            let trust = (format == 2).then(|| b"1".to_vec());
            assert_eq!((store.pins().len(), store.row(RowTable::Trust, b"key").unwrap()), (1, trust));
            store.put_row(RowTable::Groups, b"a", b"1").unwrap();
            drop(store);
            let store = Store::open(dir.path(), Options::default()).unwrap();
            assert_eq!(store.row(RowTable::Groups, b"a").unwrap(), Some(b"1".to_vec()));
        }
    }
}
