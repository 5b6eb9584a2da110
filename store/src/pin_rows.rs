//! The rows of the pins: each lies there twice, to be found by its digest and by its root.

use std::collections::BTreeSet;

use rocksdb::WriteBatch;
use tree::digest::Digest;

use crate::index::{Index, IndexError, Table, digest_of};
use crate::pin::{Pin, PinRoot};
use crate::record::{DecodeRecordError, NumberRecord};

/// First byte of the keys in the order of digests.
pub(crate) const PINS_BY_DIGEST: u8 = b'd';
/// First byte of the keys in the order of roots.
const PINS_BY_ROOT: u8 = b'r';

impl Index {
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
}

/// What the keys of all pins of a digest start with.
pub(crate) fn pins_of_digest(digest: &Digest) -> Vec<u8> {
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
