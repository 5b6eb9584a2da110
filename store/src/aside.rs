//! Files without a name, for bytes that are too many for memory and of no worth afterwards.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use tree::digest::Digest;

use crate::Store;
use crate::disk::{At as _, PathError};

/// Those that were made by this process: each is another name until it has none.
static MADE: AtomicU64 = AtomicU64::new(0);

impl Store {
    /// An empty file of the store's file system that is gone when it is closed. Refused when less than
    /// [`crate::Options::free_min_bytes`] are free.
    ///
    /// # Errors
    /// When the disk does not give it.
    pub fn aside(&self) -> Result<File, PathError> {
        let (disk, layout) = (&*self.inner.disk, &self.inner.layout);
        let dir = layout.incoming_dir();
        if disk.free_bytes(&dir).at(&dir)? < self.inner.options.free_min_bytes {
            return Err(io::Error::from(io::ErrorKind::StorageFull)).at(&dir);
        }
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        // A crash between the two leaves what the next open takes away.
        let path = layout.unnamed(&Digest::of(format!("aside {number}").as_bytes()));
        let file = disk.open_partial(&path).at(&path)?;
        disk.remove(&path).at(&path)?;
        disk.truncate(&file, &path, 0).at(&path)?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _, SeekFrom, Write as _};

    use crate::{Options, Store};

    #[test]
    fn what_is_put_aside_has_no_name_and_can_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Options { free_min_bytes: 0, ..Options::default() }).unwrap();
        let (mut one, mut other) = (store.aside().unwrap(), store.aside().unwrap());
        one.write_all(b"abc").unwrap();
        other.write_all(b"x").unwrap();
        one.seek(SeekFrom::Start(0)).unwrap();
        let mut read = String::new();
        one.read_to_string(&mut read).unwrap();
        assert_eq!(read, "abc");
        assert_eq!(std::fs::read_dir(dir.path().join("incoming")).unwrap().count(), 0);
        let full = Options { free_min_bytes: u64::MAX, ..Options::default() };
        drop(store);
        assert!(Store::open(dir.path(), full).unwrap().aside().unwrap_err().is_full());
    }
}
