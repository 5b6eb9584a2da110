//! A full disk: it is said, what came stays, and gc can make room again.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use store::{Disk, GcTarget, Listed, RealDisk, Store};
use tree::digest::Digest;

use crate::faulty_disk::{Fault, FaultyDisk};
use crate::stage::{add, bytes_of, options, scratch, wanted};

#[test]
fn a_full_disk_says_so_and_what_came_stays() {
    let dir = scratch();
    let bytes = bytes_of(9, 3 << 20);
    // The calls of an incoming: open_partial, free_bytes, free_bytes, reserve, append, append.
    let quiet = FaultyDisk::new(dir.path(), Fault::Never, io::ErrorKind::StorageFull);
    let store = Store::open_on(dir.path(), options(), Arc::clone(&quiet) as Arc<dyn Disk>).unwrap();
    let (opened, _) = quiet.counts();
    drop(store.incoming(&wanted(&bytes)).unwrap());
    drop(store);
    let again = FaultyDisk::new(dir.path(), Fault::Never, io::ErrorKind::StorageFull);
    drop(Store::open_on(dir.path(), options(), Arc::clone(&again) as Arc<dyn Disk>).unwrap());
    assert!(opened > 256, "the directories were made");
    // adopting asks for the file, then: partial, free space, free space again, space set aside, first bytes, next bytes.
    let reopened = again.counts().0 - 1;
    for (call, kept) in [(reopened + 3, 0), (reopened + 4, 0), (reopened + 5, 0), (reopened + 6, 1 << 20)] {
        let disk = FaultyDisk::new(dir.path(), Fault::Once(call), io::ErrorKind::StorageFull);
        let store = Store::open_on(dir.path(), options(), disk).unwrap();
        let mut incoming = store.incoming(&wanted(&bytes)).unwrap();
        let refused = bytes.chunks(1 << 20).find_map(|piece| incoming.append(piece).err()).expect("the disk was full");
        assert!(refused.is_full(), "{refused}");
        assert_eq!(incoming.len(), kept, "call {call}");
        // Space came free: the same bytes again.
        let len = usize::try_from(incoming.len()).unwrap();
        incoming.append(&bytes[len..]).unwrap();
        let digest = incoming.finish().unwrap().digest();
        store.remove(&digest).unwrap();
    }
}

/// A disk whose index has no space, while files can still be removed.
#[derive(Debug, Default)]
struct FullIndex {
    full: AtomicBool,
}

macro_rules! as_the_real_disk {
    ($($name:ident($($arg:ident: $kind:ty),*) -> $out:ty;)*) => {
        $(fn $name(&self, $($arg: $kind),*) -> io::Result<$out> { RealDisk.$name($($arg),*) })*
    };
}

impl Disk for FullIndex {
    as_the_real_disk! {
        create_dir(path: &Path) -> ();
        open_partial(path: &Path) -> File;
        open_read(path: &Path) -> File;
        append(file: &File, path: &Path, at: u64, bytes: &[u8]) -> ();
        truncate(file: &File, path: &Path, len: u64) -> ();
        reserve(file: &File, path: &Path, len: u64) -> ();
        reflink(from: &File, to: &File, to_path: &Path) -> ();
        hard_link(from: &Path, to: &Path) -> ();
        seal(file: &File, path: &Path) -> ();
        sync(file: &File, path: &Path) -> ();
        sync_dir(path: &Path) -> ();
        rename(from: &Path, to: &Path) -> ();
        remove(path: &Path) -> ();
        list(path: &Path) -> Vec<Listed>;
        free_bytes(path: &Path) -> u64;
    }

    fn commit(&self, write: &mut dyn FnMut() -> io::Result<()>, _synced: bool) -> io::Result<()> {
        if self.full.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        write()
    }
}

#[test]
fn gc_frees_a_disk_on_which_the_index_cannot_write() {
    let dir = scratch();
    let store = Store::open(dir.path(), options()).unwrap();
    let digests: Vec<Digest> = (1..4).map(|seed| add(&store, &bytes_of(seed, 1000)).digest()).collect();
    store.pin(&digests[0], &"kept".parse().unwrap()).unwrap();
    drop(store);
    let disk = Arc::new(FullIndex::default());
    let store = Store::open_on(dir.path(), options(), Arc::clone(&disk) as Arc<dyn Disk>).unwrap();
    disk.full.store(true, Ordering::Relaxed);
    let report = store.gc(GcTarget::Bytes(0), false).unwrap();
    assert_eq!((report.removed.len(), report.kept_pinned_bytes), (2, 1000));
    assert!(!dir.path().join("blobs").join(&digests[1].to_string()[..2]).join(digests[1].to_string()).exists());
    disk.full.store(false, Ordering::Relaxed);
    for digest in &digests[1..] {
        assert!(store.get(digest).unwrap().is_none());
    }
    assert_eq!((store.stats().blobs, store.stats().bytes), (1, 1000));
}
