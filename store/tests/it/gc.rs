//! What gc takes, in which order, why, and whom it spares.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use store::{Clock, GcReason, GcTarget, Incoming, Options, Store};
use tree::digest::Digest;

use crate::stage::{add, bytes_of, options, wanted};

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

/// Adds a blob of 1000 bytes.
fn add_one(store: &Store, seed: u64) -> Digest {
    add(store, &bytes_of(seed, 1000)).digest()
}

#[test]
fn the_budget_spares_the_young_to_the_last_second_and_a_wish_for_bytes_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicU64::new(1000));
    let clock = Clock::Set(Arc::clone(&now));
    let options = Options { size_max_bytes: Some(1500), grace: Duration::from_secs(50), clock, ..options() };
    let store = Store::open(dir.path(), options).unwrap();
    let old = add_one(&store, 55);
    now.store(1100, Ordering::Relaxed);
    let mut young = [add_one(&store, 56), add_one(&store, 57)];
    young.sort();
    now.store(1149, Ordering::Relaxed);
    // Over the budget by 1500, and all but the old one is within the grace period.
    let report = store.gc(GcTarget::Budget, false).unwrap();
    assert_eq!(report.removed.iter().map(|item| item.digest).collect::<Vec<_>>(), [old]);
    assert_eq!((report.kept_young_bytes, report.missed_bytes), (2000, 500));
    // Of two as long unused the lesser digest goes; a rehearsal says the same.
    for pretend in [true, false] {
        let report = store.gc(GcTarget::Bytes(1000), pretend).unwrap();
        let removed: Vec<_> = report.removed.iter().map(|item| (item.digest, item.reason)).collect();
        assert_eq!(removed, [(young[0], GcReason::Asked)]);
        assert_eq!((report.freed_bytes, report.kept_young_bytes, report.missed_bytes), (1000, 0, 0));
    }
    let youngest = add_one(&store, 58);
    now.store(1150, Ordering::Relaxed);
    // A second later the grace period of what came at 1100 is over.
    let report = store.gc(GcTarget::Budget, false).unwrap();
    assert_eq!(report.removed.iter().map(|item| item.digest).collect::<Vec<_>>(), [young[1]]);
    assert_eq!((report.kept_young_bytes, report.missed_bytes), (1000, 0));
    // A wish for no bytes at all still leaves what is pinned and what is open.
    let (pinned, open) = (add_one(&store, 59), add(&store, &bytes_of(62, 1000)));
    store.pin(&pinned, &"@world".parse().unwrap()).unwrap();
    let report = store.gc(GcTarget::Bytes(0), false).unwrap();
    assert_eq!(report.removed.iter().map(|item| item.digest).collect::<Vec<_>>(), [youngest]);
    assert_eq!((report.kept_pinned_bytes, report.kept_open_bytes, report.missed_bytes), (1000, 1000, 2000));
    assert!(store.contains(&pinned) && store.contains(&open.digest()));
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
