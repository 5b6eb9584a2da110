//! Pins: counted by digest, listed by root, and stronger than any removal.

use std::collections::BTreeSet;

use store::{PinRoot, RemoveError, Store};
use tree::digest::Digest;

use crate::stage::{add, bytes_of, fresh, options};

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
