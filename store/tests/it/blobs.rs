//! What is held: it comes back as it came, also after the store was closed and opened.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use store::{Event, GcTarget, NextEventError, OpenStoreError, Store};
use tree::digest::Digest;

use crate::stage::{add, bytes_of, content, fresh, options, verify};

/// Around a step of hashing, and the smallest.
const INTERESTING_SIZES: &[usize] = &[0, 1, 4096, (256 << 10) - 1, 256 << 10, (256 << 10) + 1, 1_500_000];

#[test]
fn bytes_of_every_size_come_back_and_survive_reopening() {
    let (dir, store) = fresh();
    let all: Vec<Vec<u8>> = INTERESTING_SIZES.iter().map(|size| bytes_of(*size as u64, *size)).collect();
    for bytes in &all {
        assert_eq!(content(&add(&store, bytes)), *bytes);
    }
    let stats = store.stats();
    drop(store);
    let store = Store::open(dir.path(), options()).unwrap();
    assert_eq!((store.stats().blobs, store.stats().bytes), (stats.blobs, stats.bytes));
    for bytes in &all {
        let blob = store.get(&Digest::of(bytes)).unwrap().unwrap();
        assert_eq!(content(&blob), *bytes);
        assert_eq!(fs::metadata(blob.path()).unwrap().permissions().mode() & 0o777, 0o444);
        assert_eq!(store.size_of(&blob.digest()), Some(bytes.len() as u64));
    }
    assert!(verify(&store).is_sound());
    assert_eq!(store.get(&Digest::of(b"absent")).unwrap().map(|blob| blob.size()), None);
}

#[test]
fn a_second_open_is_refused_in_so_many_words_and_works_after_the_first_ends() {
    let (dir, store) = fresh();
    match Store::open(dir.path(), options()) {
        Err(error @ OpenStoreError::InUse(_)) => assert!(error.to_string().contains("open in another process")),
        other => panic!("{other:?}"),
    }
    drop(store);
    assert!(Store::open(dir.path(), options()).is_ok());
}

#[test]
fn the_list_goes_on_after_the_last_of_a_page() {
    let (_dir, store) = fresh();
    let mut all: Vec<(Digest, u64)> = (0..10).map(|seed| (add(&store, &bytes_of(seed, 100)).digest(), 100)).collect();
    all.sort();
    let mut listed = Vec::new();
    while let page @ [_, ..] = store.list(listed.last().map(|(digest, _)| digest), 3).as_slice() {
        assert!(page.len() <= 3);
        listed.extend_from_slice(page);
    }
    assert_eq!(listed, all);
    assert_eq!(store.list(None, 0), []);
}

#[test]
fn events_say_what_came_and_went_until_the_store_closes() {
    let (_dir, store) = fresh();
    let events = store.subscribe();
    let digest = add(&store, b"abc").digest();
    store.gc(GcTarget::Bytes(0), false).unwrap();
    assert_eq!(events.next_within(Duration::ZERO), Ok(Event::Added(digest, 3)));
    assert_eq!(events.next_within(Duration::ZERO), Ok(Event::Removed(digest)));
    drop(store);
    assert_eq!(events.next_within(Duration::ZERO), Err(NextEventError::Closed));
}

#[test]
fn many_blobs_do_not_make_opening_look_at_each() {
    let (dir, store) = fresh();
    for seed in 0..50 {
        add(&store, &bytes_of(seed, 10));
    }
    drop(store);
    // Were any file looked at, its absence would be noticed.
    fs::remove_dir_all(dir.path().join("blobs")).unwrap();
    let store = Store::open(dir.path(), options()).unwrap();
    assert_eq!(store.stats().blobs, 50);
}
