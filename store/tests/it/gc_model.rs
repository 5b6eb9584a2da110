//! Gc against a model: whatever is added, opened, used and pinned meanwhile, it takes exactly what it may.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use store::{Blob, Clock, GcTarget, Options, PinRoot, Store};
use tree::digest::Digest;

use crate::stage::{add, bytes_of, content, options, verify};

#[derive(Debug, Clone)]
enum Step {
    Add(u64),
    Open(u64),
    Close(u64),
    Use(u64),
    Pin(u64, bool),
    Unpin(bool),
    Gc(GcTarget),
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
        2 => (0..4000_u64).prop_map(|limit| Step::Gc(GcTarget::Bytes(limit))),
        3 => Just(Step::Gc(GcTarget::Budget)),
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

/// Seconds for which the budget spares what came in.
const GRACE: u64 = 2;
/// Bytes the store may hold: less than half of what all eight blobs take together.
const BUDGET: u64 = 2000;

#[derive(Default)]
struct Model {
    held: BTreeMap<Digest, Modelled>,
    open: BTreeMap<Digest, Vec<Blob>>,
    pins: [Vec<Digest>; 2],
    now: u64,
}

impl Model {
    /// Whether neither a pin nor a reader keeps it.
    fn is_free(&self, digest: &Digest) -> bool {
        let pinned = self.pins.iter().flatten().any(|pinned| pinned == digest);
        let open = self.open.get(digest).is_some_and(|open| !open.is_empty());
        !pinned && !open
    }

    fn check_gc(&mut self, store: &Store, target: GcTarget) -> Result<(), TestCaseError> {
        let (limit, grace) = match target {
            GcTarget::Budget => (BUDGET, GRACE),
            GcTarget::Bytes(limit) => (limit, 0),
        };
        let bytes = tree::size::total(self.held.values().map(|blob| blob.size));
        let free = self.held.keys().copied().filter(|digest| self.is_free(digest));
        let (mut order, young): (Vec<Digest>, Vec<Digest>) =
            free.partition(|digest| self.held[digest].added + grace <= self.now);
        let young_bytes = tree::size::total(young.iter().map(|digest| self.held[digest].size));
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
        let report = store.gc(target, false).unwrap();
        let removed: Vec<Digest> = report.removed.iter().map(|item| item.digest).collect();
        prop_assert_eq!(&removed, &expected);
        prop_assert_eq!(report.missed_bytes, left.saturating_sub(limit));
        prop_assert_eq!(report.kept_young_bytes, young_bytes);
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
        let size_max_bytes = Some(BUDGET);
        let store = Store::open(dir.path(), Options { size_max_bytes, clock, grace, ..options() }).unwrap();
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
                Step::Gc(target) => model.check_gc(&store, target)?,
            }
        }
        prop_assert!(verify(&store).is_sound());
    }
}
