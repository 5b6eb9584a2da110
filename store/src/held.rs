//! The rows of what is held: blobs, when they were used, and those on their way in or out.

use rocksdb::{DBRawIterator, WriteBatch};
use tree::digest::Digest;

use crate::index::{Index, IndexError, Table, digest_of, in_table};
use crate::pin_rows::{PINS_BY_DIGEST, pins_of_digest};
use crate::record::{BlobRecord, MoveRecord, NumberRecord};

/// One blob as the index knows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Surveyed {
    pub(crate) digest: Digest,
    pub(crate) record: BlobRecord,
    pub(crate) used_secs: u64,
    pub(crate) pinned: bool,
}

impl Index {
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
    pub(crate) fn leave(&self, digests: &[Digest], even_pinned: bool) -> Result<Vec<Digest>, IndexError> {
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
            taken.push(*digest);
        }
        if !taken.is_empty() {
            self.write_counted(batch, &mut lock, counters, true)?;
        }
        Ok(taken)
    }

    /// Forgets a move that is done, or given up. Not synced: done twice it does no harm.
    pub(crate) fn end_move(&self, digest: &Digest) -> Result<(), IndexError> {
        let _lock = self.write_lock();
        let mut batch = WriteBatch::default();
        batch.delete_cf(self.table(Table::Moves), digest.as_bytes());
        self.write(batch, false)
    }

    /// Forgets that blobs were leaving, but not that some are arriving again since.
    pub(crate) fn end_leaving(&self, digests: &[Digest]) -> Result<(), IndexError> {
        let _lock = self.write_lock();
        let mut batch = WriteBatch::default();
        let leaving = MoveRecord::Leaving.encode();
        for digest in digests {
            if self.value(Table::Moves, digest.as_bytes())?.is_some_and(|noted| noted == leaving) {
                batch.delete_cf(self.table(Table::Moves), digest.as_bytes());
            }
        }
        if batch.is_empty() { Ok(()) } else { self.write(batch, false) }
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

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use std::sync::Arc;

    use super::*;
    use crate::disk::RealDisk;
    use crate::pin::PinRoot;
    use crate::record::Counters;

    fn fresh() -> (TempDir, Index) {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(&dir.path().join("index"), Arc::new(RealDisk)).unwrap();
        (dir, index)
    }

    fn digests(count: u8) -> Vec<Digest> {
        let mut digests: Vec<Digest> = (0..count).map(|number| Digest::of(&[number])).collect();
        digests.sort();
        digests
    }

    #[test]
    fn a_survey_joins_each_blob_with_its_own_use_and_pin() {
        let (_dir, index) = fresh();
        let digests = digests(8);
        let root: PinRoot = "root".parse().unwrap();
        // Pins and uses of what is held and of what is not, before, between and behind.
        for digest in digests.iter().step_by(2) {
            index.settle(digest, BlobRecord { size: 10, added_secs: 5 }, false).unwrap();
        }
        for digest in [&digests[1], &digests[2], &digests[7]] {
            index.pin(digest, &root, 0).unwrap();
        }
        index.mark_used([(digests[4], 9), (digests[5], 9), (digests[6], 3)]).unwrap();
        let mut found = Vec::new();
        index.survey(|blob| found.push((blob.digest, blob.used_secs, blob.pinned))).unwrap();
        assert_eq!(
            found,
            [(digests[0], 5, false), (digests[2], 5, true), (digests[4], 9, false), (digests[6], 5, false)]
        );
    }

    #[test]
    fn a_blob_settled_twice_is_counted_once() {
        let (_dir, index) = fresh();
        let digest = Digest::of(b"abc");
        for size in [3, 4] {
            index.settle(&digest, BlobRecord { size, added_secs: 0 }, false).unwrap();
        }
        assert_eq!(index.counters(), Counters { blobs: 1, bytes: 4, pinned: 0 });
        assert_eq!(index.leave(&[digest, Digest::of(b"absent")], false).unwrap(), [digest]);
        assert_eq!(index.counters(), Counters::default());
        assert_eq!(index.moves().unwrap(), [(digest, MoveRecord::Leaving)]);
    }

    #[test]
    fn a_garbled_record_names_its_table() {
        let (_dir, index) = fresh();
        let digest = Digest::of(b"abc");
        let mut batch = WriteBatch::default();
        batch.put_cf(index.table(Table::Blobs), digest.as_bytes(), b"\x01\x02");
        index.write(batch, false).unwrap();
        let error = index.blob(&digest).unwrap_err();
        assert_eq!(error.to_string(), "table blobs of the index: record ends early");
    }
}
