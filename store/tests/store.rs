//! A store as its user sees it, on a real disk.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "all of this file is a test, its functions too")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use store::{
    AppendError, Blob, Clock, Event, FinishError, GcReason, GcTarget, How, ImportError, ImportOptions, Incoming,
    IncomingError, NextEventError, OpenStoreError, Options, PinRoot, RemoveError, Store, VerifyReport, Wanted,
};
use tempfile::TempDir;
use tree::digest::{Digest, Sha512};

/// Around a step of hashing, and the smallest.
const INTERESTING_SIZES: &[usize] = &[0, 1, 4096, (256 << 10) - 1, 256 << 10, (256 << 10) + 1, 1_500_000];

fn options() -> Options {
    Options { free_min_bytes: 0, grace: Duration::ZERO, ..Options::default() }
}

fn fresh() -> (TempDir, Store) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(dir.path(), options()).expect("a fresh store opens");
    (dir, store)
}

fn bytes_of(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..size).map(|_| next()).collect()
}

fn wanted(bytes: &[u8]) -> Wanted {
    Wanted { digest: Digest::of(bytes), size: Some(bytes.len() as u64), sha512: Some(Sha512::of(bytes)) }
}

fn add(store: &Store, bytes: &[u8]) -> Blob {
    let mut incoming = store.incoming(&wanted(bytes)).expect("an incoming begins");
    for piece in bytes.chunks(100_000) {
        incoming.append(piece).expect("the disk takes bytes");
    }
    incoming.finish().expect("the bytes are right")
}

fn content(blob: &Blob) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(blob.size()).expect("a small blob")];
    blob.file().read_exact_at(&mut bytes, 0).expect("a blob reads");
    bytes
}

fn verify(store: &Store) -> VerifyReport {
    store.verify(None, &mut |_| {}, &AtomicBool::new(false))
}

/// Writes over a blob as a rotting disk would.
fn rot(path: &Path, bytes: &[u8]) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("a blob of ours");
    store::write_atomically(path, bytes, 0o444).expect("a writable directory");
}

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
fn a_digest_has_one_writer_and_no_writer_once_it_is_held() {
    let (_dir, store) = fresh();
    let bytes = bytes_of(1, 1000);
    let first = store.incoming(&wanted(&bytes)).unwrap();
    assert!(matches!(store.incoming(&wanted(&bytes)), Err(IncomingError::AlreadyIncoming(_))));
    drop(first);
    let blob = add(&store, &bytes);
    assert!(
        matches!(store.incoming(&wanted(&bytes)), Err(IncomingError::AlreadyHeld(digest)) if digest == blob.digest())
    );
}

#[test]
fn a_partial_is_taken_up_where_it_was_left_also_after_reopening() {
    let (dir, store) = fresh();
    let bytes = bytes_of(2, 700_000);
    let mut incoming = store.incoming(&wanted(&bytes)).unwrap();
    incoming.append(&bytes[..300_000]).unwrap();
    incoming.keep().unwrap();
    assert_eq!((store.stats().partials, store.stats().partial_bytes), (1, 300_000));
    drop(store);
    let store = Store::open(dir.path(), options()).unwrap();
    let mut incoming = store.incoming(&wanted(&bytes)).unwrap();
    assert_eq!((incoming.len(), incoming.resumed()), (300_000, 300_000));
    incoming.append(&bytes[300_000..]).unwrap();
    assert_eq!(content(&incoming.finish().unwrap()), bytes);
    assert_eq!(store.stats().partials, 0);
}

#[test]
fn a_partial_longer_than_what_is_wanted_is_wiped() {
    let (_dir, store) = fresh();
    let bytes = bytes_of(3, 1000);
    let unsized_want = Wanted { size: None, ..wanted(&bytes) };
    let mut incoming = store.incoming(&unsized_want).unwrap();
    incoming.append(&bytes_of(4, 1001)).unwrap();
    drop(incoming);
    let mut incoming = store.incoming(&wanted(&bytes)).unwrap();
    assert_eq!(incoming.len(), 0);
    incoming.append(&bytes).unwrap();
    assert!(incoming.finish().is_ok());
}

#[test]
fn no_more_bytes_are_taken_than_were_said_to_come() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Options { incoming_max_bytes: 500, ..options() }).unwrap();
    let bytes = bytes_of(5, 100);
    let mut incoming = store.incoming(&wanted(&bytes)).unwrap();
    assert!(matches!(incoming.append(&[0; 101]), Err(AppendError::TooLong { limit: 100 })));
    incoming.append(&bytes).unwrap();
    assert!(matches!(incoming.append(b"x"), Err(AppendError::TooLong { limit: 100 })));
    assert!(incoming.finish().is_ok());
    let mut endless = store.incoming(&Wanted { digest: Digest::of(b"x"), size: None, sha512: None }).unwrap();
    endless.append(&[0; 500]).unwrap();
    assert!(matches!(endless.append(b"x"), Err(AppendError::TooLong { limit: 500 })));
    assert!(endless.set_size(499).is_err());
    endless.set_size(500).unwrap();
    assert!(endless.set_size(400).is_err());
}

#[test]
fn wrong_bytes_never_become_a_blob_and_leave_nothing() {
    let (_dir, store) = fresh();
    let bytes = bytes_of(6, 1000);
    let mut incoming = store.incoming(&wanted(&bytes)).unwrap();
    incoming.append(&bytes_of(7, 1000)).unwrap();
    match incoming.finish() {
        Err(FinishError::Mismatch { expected, actual }) => {
            assert_eq!((expected, actual), (Digest::of(&bytes), Digest::of(&bytes_of(7, 1000))));
        }
        other => panic!("{other:?}"),
    }
    assert!(!store.contains(&Digest::of(&bytes)));
    assert_eq!(store.stats().partials, 0);
}

#[test]
fn missing_bytes_are_counted_and_what_came_is_kept() {
    let (_dir, store) = fresh();
    let bytes = bytes_of(8, 1000);
    let mut incoming = store.incoming(&wanted(&bytes)).unwrap();
    incoming.append(&bytes[..999]).unwrap();
    assert!(matches!(incoming.finish(), Err(FinishError::Short { expected: 1000, actual: 999 })));
    assert_eq!(store.incoming(&wanted(&bytes)).unwrap().resumed(), 999);
}

#[test]
fn a_wrong_sha512_beside_a_right_blake2b_is_refused_when_it_is_checked() {
    let (_dir, store) = fresh();
    let bytes = bytes_of(9, 1000);
    let liar = Wanted { sha512: Some(Sha512::of(b"other")), ..wanted(&bytes) };
    let finish = |store: &Store| {
        let mut incoming = store.incoming(&liar).unwrap();
        incoming.append(&bytes).unwrap();
        incoming.finish()
    };
    assert!(matches!(finish(&store), Err(FinishError::Sha512Mismatch { .. })));
    let dir = tempfile::tempdir().unwrap();
    let careless = Store::open(dir.path(), Options { check_sha512: false, ..options() }).unwrap();
    assert!(finish(&careless).is_ok());
}

#[test]
fn a_reader_follows_until_the_end_and_is_told_of_a_restart() {
    let (_dir, store) = fresh();
    let bytes = bytes_of(10, 5000);
    let mut incoming = store.incoming(&wanted(&bytes)).unwrap();
    incoming.append(b"wrong start").unwrap();
    let stale = incoming.reader().unwrap();
    let mut step = vec![0; 8000];
    assert_eq!(stale.read_at(0, &mut step).unwrap(), 11);
    incoming.restart().unwrap();
    assert_eq!(stale.read_at(0, &mut step).unwrap_err().kind(), std::io::ErrorKind::StaleNetworkFileHandle);
    let reader = incoming.reader().unwrap();
    assert_eq!(reader.read_at(0, &mut step).unwrap(), 0);
    incoming.append(&bytes[..3000]).unwrap();
    assert_eq!((reader.len(), reader.read_at(1000, &mut step).unwrap()), (3000, 2000));
    incoming.append(&bytes[3000..]).unwrap();
    let blob = incoming.finish().unwrap();
    let digest = blob.digest();
    drop(blob);
    assert!(store.remove(&digest).unwrap());
    assert_eq!(reader.read_at(0, &mut step).unwrap(), 5000);
    assert_eq!(step[..5000], bytes);
    assert_eq!(reader.read_at(9000, &mut step).unwrap(), 0);
}

#[test]
fn bytes_that_would_never_fit_are_refused_before_they_come() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = bytes_of(11, 1000);
    let small = Store::open(dir.path(), Options { size_max_bytes: Some(999), ..options() }).unwrap();
    let refused = small.incoming(&wanted(&bytes)).unwrap_err();
    assert!(matches!(refused, IncomingError::LargerThanStore { size: 1000, max: 999 }));
    assert!(refused.is_full());
    drop(small);
    let cautious = Store::open(dir.path(), Options { free_min_bytes: u64::MAX, ..options() }).unwrap();
    let refused = cautious.incoming(&wanted(&bytes)).unwrap_err();
    assert!(matches!(refused, IncomingError::NoRoom { needed: 1000, .. }) && refused.is_full());
    assert_eq!(cautious.stats().partials, 0);
}

#[test]
fn a_file_is_imported_as_it_is_and_only_once() {
    let (dir, store) = fresh();
    let path = dir.path().join("foo-1.tar.xz");
    let bytes = bytes_of(12, 600_000);
    store::write_atomically(&path, &bytes, 0o644).unwrap();
    let unsized_want = Wanted { size: None, ..wanted(&bytes) };
    let imported = store.import(&path, &unsized_want).unwrap();
    assert!(matches!(imported.how, How::Reflinked | How::Copied));
    assert_eq!(content(&imported.blob), bytes);
    store::write_atomically(&path, b"changed since", 0o644).unwrap();
    assert_eq!(content(&imported.blob), bytes);
    assert_eq!(store.import(&path, &wanted(&bytes)).unwrap().how, How::Present);
    assert_eq!(store::digest_of_file(&path).unwrap().2, 13);
}

#[test]
fn a_file_that_is_not_what_is_wanted_is_left_alone() {
    let (dir, store) = fresh();
    let path = dir.path().join("foo-1.tar.xz");
    store::write_atomically(&path, &bytes_of(13, 1000), 0o664).unwrap();
    let want = wanted(&bytes_of(14, 1000));
    for options in [ImportOptions::default(), ImportOptions { hard_link: true }] {
        let refused = store.import_with(&path, &want, options).unwrap_err();
        assert!(matches!(refused, ImportError::Finish(FinishError::Mismatch { .. })), "{refused}");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o664);
        assert_eq!(fs::read(&path).unwrap(), bytes_of(13, 1000));
    }
    assert!(matches!(
        store.import(&path, &wanted(&bytes_of(14, 999))),
        Err(ImportError::WrongSize { expected: 999, actual: 1000 })
    ));
    assert!(matches!(store.import(dir.path(), &want), Err(ImportError::Source(_))));
    assert_eq!(fs::read_dir(dir.path().join("incoming")).unwrap().count(), 0);
}

#[test]
fn a_hard_link_is_made_only_when_asked_for_and_of_a_file_with_one_name() {
    let (dir, store) = fresh();
    let allowed = ImportOptions { hard_link: true };
    for (seed, names) in [(15, 1), (16, 2)] {
        let path = dir.path().join(format!("foo-{seed}.tar.xz"));
        let bytes = bytes_of(seed, 1000);
        store::write_atomically(&path, &bytes, 0o644).unwrap();
        if names == 2 {
            fs::hard_link(&path, dir.path().join("other-name")).unwrap();
        }
        let imported = store.import_with(&path, &wanted(&bytes), allowed).unwrap();
        assert_eq!(content(&imported.blob), bytes);
        match (imported.how, names) {
            (How::Reflinked, _) | (How::HardLinked, 1) | (How::Copied, 2) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn bytes_without_a_name_are_called_by_what_they_are_or_leave_nothing() {
    let (dir, store) = fresh();
    let (key, bytes) = (Digest::of(b"snapshots/x"), bytes_of(80, 300_000));
    let bring = |size| {
        let mut incoming = store.incoming_unnamed(&key, size).unwrap();
        assert!(matches!(store.incoming_unnamed(&key, size), Err(IncomingError::AlreadyIncoming(_))));
        incoming.append(&bytes).unwrap();
        incoming
    };
    let blob = bring(None).finish().unwrap();
    assert_eq!((blob.digest(), content(&blob)), (Digest::of(&bytes), bytes.clone()));
    assert!(!store.contains(&key));
    // Held already: the same blob, and the copy goes.
    assert_eq!(bring(Some(300_000)).finish().unwrap().digest(), blob.digest());
    drop(bring(None));
    assert!(matches!(bring(Some(300_001)).finish(), Err(FinishError::Short { .. })));
    assert_eq!(fs::read_dir(dir.path().join("incoming")).unwrap().count(), 0);
    assert_eq!(store.incoming_unnamed(&key, None).unwrap().len(), 0);
    assert!(verify(&store).is_sound());
    assert_eq!(store.stats().blobs, 1);
}

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

#[test]
fn gc_takes_the_least_recently_used_first_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicU64::new(1000));
    let clock = Clock::Set(Arc::clone(&now));
    let budget = Options { size_max_bytes: Some(2500), grace: Duration::from_secs(50), clock, ..options() };
    let store = Store::open(dir.path(), budget.clone()).unwrap();
    let digests: Vec<Digest> = (50..54)
        .map(|seed| {
            now.fetch_add(10, Ordering::Relaxed);
            add(&store, &bytes_of(seed, 1000)).digest()
        })
        .collect();
    // 1010, 1020, 1030, 1040: all within the grace period.
    let young = store.gc(GcTarget::Budget, false).unwrap();
    assert_eq!((young.removed.len(), young.kept_young_bytes, young.missed_bytes), (0, 4000, 1500));
    now.store(2000, Ordering::Relaxed);
    drop(store.get(&digests[0]).unwrap().unwrap());
    store.pin(&digests[1], &"@world".parse().unwrap()).unwrap();
    // The mark of use survives the end of the process.
    drop(store);
    let store = Store::open(dir.path(), budget).unwrap();
    let pretended = store.gc(GcTarget::Budget, true).unwrap();
    assert_eq!(store.stats().blobs, 4);
    let report = store.gc(GcTarget::Budget, false).unwrap();
    assert_eq!(report.removed, pretended.removed);
    let removed: Vec<Digest> = report.removed.iter().map(|item| item.digest).collect();
    assert_eq!(removed, digests[2..]);
    assert!(report.removed.iter().all(|item| item.reason == GcReason::OverBudget));
    assert_eq!((report.freed_bytes, report.kept_pinned_bytes, report.missed_bytes), (2000, 1000, 0));
    assert_eq!(store.gc(GcTarget::Bytes(0), false).unwrap().removed.len(), 1);
    assert_eq!(store.unpin(&"@world".parse().unwrap()).unwrap(), 1);
    assert_eq!(store.gc(GcTarget::Bytes(0), false).unwrap().removed.len(), 1);
    assert_eq!((store.stats().blobs, store.stats().bytes, store.stats().pinned), (0, 0, 0));
}

#[test]
fn gc_takes_partials_that_nobody_wrote_to_for_long() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Options { partial_keep: Duration::ZERO, ..options() }).unwrap();
    let begin = |seed| {
        let mut incoming = store.incoming(&wanted(&bytes_of(seed, 1000))).unwrap();
        incoming.append(&bytes_of(seed, 1000)[..100]).unwrap();
        incoming
    };
    let (_writing, left): (Incoming, Incoming) = (begin(60), begin(61));
    drop(left);
    let report = store.gc(GcTarget::Budget, false).unwrap();
    assert_eq!((report.removed.len(), report.freed_bytes), (1, 100));
    assert_eq!(
        (report.removed[0].digest, report.removed[0].reason),
        (Digest::of(&bytes_of(61, 1000)), GcReason::StalePartial)
    );
    assert_eq!(store.stats().partials, 1);
}

#[test]
fn what_is_pinned_or_open_is_not_removed() {
    let (_dir, store) = fresh();
    let blob = add(&store, &bytes_of(70, 10));
    let digest = blob.digest();
    assert!(matches!(store.remove(&digest), Err(RemoveError::InUse(_))));
    let root: PinRoot = "mine".parse().unwrap();
    store.pin(&digest, &root).unwrap();
    drop(blob);
    assert!(matches!(store.remove(&digest), Err(RemoveError::Pinned(_))));
    store.unpin(&root).unwrap();
    assert!(store.remove(&digest).unwrap());
    assert!(!store.remove(&digest).unwrap());
}

#[test]
fn pins_are_counted_by_digest_and_listed_by_root() {
    let (dir, store) = fresh();
    let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
    let roots: Vec<PinRoot> = ["x", "xx"].iter().map(|root| root.parse().unwrap()).collect();
    for (digest, root) in [(&a, &roots[0]), (&a, &roots[1]), (&b, &roots[1]), (&a, &roots[0])] {
        store.pin(digest, root).unwrap();
    }
    assert_eq!((store.pins().len(), store.stats().pinned), (3, 2));
    assert_eq!(store.unpin(&roots[0]).unwrap(), 1);
    drop(store);
    let store = Store::open(dir.path(), options()).unwrap();
    assert_eq!((store.pins().len(), store.stats().pinned), (2, 2));
    assert!(store.pins().iter().all(|pin| pin.root == roots[1]));
    assert_eq!((store.unpin(&roots[1]).unwrap(), store.unpin(&roots[1]).unwrap()), (2, 0));
    assert_eq!(store.stats().pinned, 0);
}

#[test]
fn pinning_anew_leaves_exactly_the_new_pins_of_that_root_and_all_of_others() {
    let (_dir, store) = fresh();
    let (a, b, c) = (Digest::of(b"a"), Digest::of(b"b"), Digest::of(b"c"));
    let (mine, other): (PinRoot, PinRoot) = ("mine".parse().unwrap(), "other".parse().unwrap());
    store.repin(&mine, &[a, b]).unwrap();
    store.pin(&a, &other).unwrap();
    store.repin(&mine, &[b, c, c]).unwrap();
    let of = |root: &PinRoot| -> BTreeSet<Digest> {
        store.pins().into_iter().filter(|pin| pin.root == *root).map(|pin| pin.digest).collect()
    };
    assert_eq!((of(&mine), of(&other)), (BTreeSet::from([b, c]), BTreeSet::from([a])));
    assert_eq!((store.pins().len(), store.stats().pinned), (3, 3));
    store.repin(&mine, &[]).unwrap();
    assert_eq!((store.pins().len(), store.stats().pinned), (1, 1));
    assert!(store.is_pinned(&a) && !store.is_pinned(&b));
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

#[derive(Debug, Clone)]
enum Step {
    Add(u64),
    Open(u64),
    Close(u64),
    Use(u64),
    Pin(u64, bool),
    Unpin(bool),
    Gc(u64),
    Tick,
}

fn step() -> impl Strategy<Value = Step> {
    let seed = 0..8_u64;
    prop_oneof![
        4 => seed.clone().prop_map(Step::Add),
        2 => seed.clone().prop_map(Step::Open),
        1 => seed.clone().prop_map(Step::Close),
        2 => seed.clone().prop_map(Step::Use),
        1 => (seed.clone(), any::<bool>()).prop_map(|(seed, root)| Step::Pin(seed, root)),
        1 => any::<bool>().prop_map(Step::Unpin),
        3 => (0..4000_u64).prop_map(Step::Gc),
        2 => Just(Step::Tick),
    ]
}

/// One blob in the model: what gc may think about it.
#[derive(Debug, Clone, Copy)]
struct Modelled {
    size: u64,
    added: u64,
    used: u64,
}

const GRACE: u64 = 2;

#[derive(Default)]
struct Model {
    held: BTreeMap<Digest, Modelled>,
    open: BTreeMap<Digest, Vec<Blob>>,
    pins: [Vec<Digest>; 2],
    now: u64,
}

impl Model {
    fn may_go(&self, digest: &Digest) -> bool {
        let pinned = self.pins.iter().flatten().any(|pinned| pinned == digest);
        let open = self.open.get(digest).is_some_and(|open| !open.is_empty());
        !pinned && !open && self.held[digest].added + GRACE <= self.now
    }

    fn check_gc(&mut self, store: &Store, limit: u64) -> Result<(), TestCaseError> {
        let bytes: u64 = self.held.values().map(|blob| blob.size).sum();
        let mut order: Vec<Digest> = self.held.keys().filter(|digest| self.may_go(digest)).copied().collect();
        order.sort_by_key(|digest| (self.held[digest].used, *digest));
        let mut left = bytes;
        let expected: Vec<Digest> = order
            .into_iter()
            .take_while(|digest| {
                let goes = left > limit;
                if goes {
                    left -= self.held[digest].size;
                }
                goes
            })
            .collect();
        let report = store.gc(GcTarget::Bytes(limit), false).unwrap();
        let removed: Vec<Digest> = report.removed.iter().map(|item| item.digest).collect();
        prop_assert_eq!(&removed, &expected);
        prop_assert_eq!(report.missed_bytes, left.saturating_sub(limit));
        for digest in &removed {
            self.held.remove(digest);
            prop_assert!(store.get(digest).unwrap().is_none());
        }
        prop_assert_eq!(store.stats().bytes, left);
        for (digest, open) in &self.open {
            for blob in open {
                prop_assert_eq!(Digest::of(&content(blob)), *digest);
                prop_assert!(blob.path().exists());
            }
        }
        let held: Vec<Digest> = store.list(None, 100).into_iter().map(|(digest, _)| digest).collect();
        prop_assert_eq!(held, self.held.keys().copied().collect::<Vec<_>>());
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 50, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn gc_never_takes_what_is_pinned_or_open_and_takes_the_rest_in_order(steps in proptest::collection::vec(step(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let now = Arc::new(AtomicU64::new(0));
        let clock = Clock::Set(Arc::clone(&now));
        let grace = Duration::from_secs(GRACE);
        let store = Store::open(dir.path(), Options { clock, grace, ..options() }).unwrap();
        let roots: [PinRoot; 2] = ["first".parse().unwrap(), "second".parse().unwrap()];
        let mut model = Model::default();
        let blob_bytes = |seed: u64| bytes_of(seed, usize::try_from(100 + seed * 150).unwrap());
        for step in steps {
            match step {
                Step::Tick => {
                    model.now += 1;
                    now.store(model.now, Ordering::Relaxed);
                }
                Step::Add(seed) => {
                    let bytes = blob_bytes(seed);
                    let digest = Digest::of(&bytes);
                    if !model.held.contains_key(&digest) {
                        add(&store, &bytes);
                        let added = model.now;
                        model.held.insert(digest, Modelled { size: bytes.len() as u64, added, used: added });
                    }
                }
                Step::Open(seed) | Step::Use(seed) => {
                    let digest = Digest::of(&blob_bytes(seed));
                    let blob = store.get(&digest).unwrap();
                    prop_assert_eq!(blob.is_some(), model.held.contains_key(&digest));
                    if let (Some(blob), Some(held)) = (blob, model.held.get_mut(&digest)) {
                        held.used = model.now;
                        if matches!(step, Step::Open(_)) {
                            model.open.entry(digest).or_default().push(blob);
                        }
                    }
                }
                Step::Close(seed) => {
                    model.open.remove(&Digest::of(&blob_bytes(seed)));
                }
                Step::Pin(seed, root) => {
                    let digest = Digest::of(&blob_bytes(seed));
                    store.pin(&digest, &roots[usize::from(root)]).unwrap();
                    let pins = &mut model.pins[usize::from(root)];
                    if !pins.contains(&digest) {
                        pins.push(digest);
                    }
                }
                Step::Unpin(root) => {
                    let count = store.unpin(&roots[usize::from(root)]).unwrap();
                    prop_assert_eq!(count, model.pins[usize::from(root)].len() as u64);
                    model.pins[usize::from(root)].clear();
                }
                Step::Gc(limit) => model.check_gc(&store, limit)?,
            }
        }
        prop_assert!(verify(&store).is_sound());
    }
}
