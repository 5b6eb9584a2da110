//! Rot, lost files and a lost index: what is found, what is put aside, and what can be had again.

use std::fs;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use store::{Event, IncomingError, Store};
use tree::digest::Digest;

use crate::stage::{add, bytes_of, content, fresh, options, rot, verify, wanted};

#[test]
fn a_rotten_blob_is_put_aside_and_can_be_had_again() {
    let (dir, store) = fresh();
    let (good, bad) = (bytes_of(17, 1000), bytes_of(18, 1000));
    add(&store, &good);
    let blob = add(&store, &bad);
    let events = store.subscribe();
    let mut flipped = bad.clone();
    flipped[500] ^= 1;
    rot(blob.path(), &flipped);
    drop(blob);
    let report = verify(&store);
    assert_eq!(report.rotten, [Digest::of(&bad)]);
    assert_eq!((report.checked, report.is_sound()), (1, false));
    assert_eq!(events.next_within(Duration::ZERO), Ok(Event::Removed(Digest::of(&bad))));
    assert!(!store.contains(&Digest::of(&bad)) && store.contains(&Digest::of(&good)));
    let stats = store.stats();
    assert_eq!((stats.blobs, stats.bytes, stats.quarantined), (1, 1000, 1));
    let aside = fs::read_dir(dir.path().join("quarantine")).unwrap().next().unwrap().unwrap();
    assert_eq!(fs::read(aside.path()).unwrap(), flipped);
    add(&store, &bad);
    assert!(verify(&store).is_sound());
}

#[test]
fn a_blob_whose_file_is_gone_or_cut_is_forgotten_when_asked_for() {
    let (_dir, store) = fresh();
    for (seed, cut) in [(19, false), (20, true)] {
        let bytes = bytes_of(seed, 1000);
        let blob = add(&store, &bytes);
        if cut {
            rot(blob.path(), &bytes[..999]);
        } else {
            fs::remove_file(blob.path()).unwrap();
        }
        let digest = blob.digest();
        drop(blob);
        assert!(store.contains(&digest));
        assert!(store.get(&digest).unwrap().is_none());
        assert!(!store.contains(&digest));
        assert_eq!((store.stats().blobs, store.stats().bytes), (0, 0));
        add(&store, &bytes);
        store.remove(&digest).unwrap();
    }
    assert_eq!(store.stats().quarantined, 1);
}

#[test]
fn files_and_index_are_made_to_agree_when_the_index_is_lost() {
    let (dir, store) = fresh();
    let bytes: Vec<Vec<u8>> = (30..34).map(|seed| bytes_of(seed, 1000)).collect();
    let paths: Vec<_> = bytes.iter().map(|bytes| add(&store, bytes).path().to_path_buf()).collect();
    drop(store);
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    rot(&paths[1], &bytes_of(99, 1000));
    store::write_atomically(&dir.path().join("blobs/00/foreign"), b"?", 0o644).unwrap();
    let store = Store::open(dir.path(), options()).unwrap();
    assert_eq!(store.stats().blobs, 0);
    // The writer of one finds it there.
    assert!(matches!(store.incoming(&wanted(&bytes[0])), Err(IncomingError::AlreadyHeld(_))));
    assert_eq!(content(&store.get(&Digest::of(&bytes[0])).unwrap().unwrap()), bytes[0]);
    let report = verify(&store);
    assert_eq!((report.adopted.len(), report.strays.len()), (2, 2));
    assert_eq!((store.stats().blobs, store.stats().bytes, store.stats().quarantined), (3, 3000, 2));
    assert!(verify(&store).is_sound());
}

#[test]
fn a_verification_stops_when_told_to() {
    let (_dir, store) = fresh();
    add(&store, &bytes_of(40, 1000));
    let report = store.verify(Some(1), &mut |_| {}, &AtomicBool::new(true));
    assert!(report.stopped && !report.is_sound());
}
