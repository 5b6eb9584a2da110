//! Bytes on their way in: one writer for each digest, no byte more than was said, and nothing becomes a blob but what
//! was wanted.

use std::fs;

use store::{AppendError, FinishError, IncomingError, Options, Store, Wanted};
use tree::digest::{Digest, Sha512};

use crate::stage::{add, bytes_of, content, fresh, options, verify, wanted};

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
