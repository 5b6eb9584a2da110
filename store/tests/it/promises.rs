//! What was promised by an `Ok` holds whatever the disk does: any call may fail, all calls from one on may fail, and the
//! power may go at any sync. Afterwards every blob verifies, and every partial resumes or is gone.

use std::io;
use std::path::Path;
use std::sync::Arc;

use store::{GcTarget, IncomingError, PinRoot, RowChange, RowTable, Store};
use tree::digest::Digest;

use crate::faulty_disk::{Fault, FaultyDisk, put};
use crate::stage::{bytes_of, options, scratch, verify, wanted};

fn root() -> PinRoot {
    "kept".parse().unwrap()
}

/// What was promised by the time the disk went wrong: by an `Ok`.
#[derive(Debug, Default)]
struct Promised {
    held: Vec<Digest>,
    gone: Vec<Digest>,
    pinned: bool,
    /// The last step of rows that was promised, 0 for none.
    step: u8,
}

/// What the scenario brings in: one pinned, one in two goes, one imported, one to remove, one for gc.
const PARTS: [(u64, usize); 5] = [(1, 3000), (2, 5000), (3, 2000), (4, 1000), (5, 1500)];

/// Bytes that somebody wants and nobody brings.
const LIE: &[u8] = b"something else";

fn part(number: usize) -> Vec<u8> {
    let (seed, size) = PARTS[number];
    bytes_of(seed, size)
}

fn bring(store: &Store, bytes: &[u8]) -> Option<Digest> {
    let mut incoming = store.incoming(&wanted(bytes)).ok()?;
    for piece in bytes.chunks(700) {
        incoming.append(piece).ok()?;
    }
    incoming.finish().ok().map(|blob| blob.digest())
}

/// Steps of rows that are written. The n-th makes both rows say n and takes a third away or puts it there.
const STEPS: u8 = 3;

/// Writes the next steps, until one is not promised: what it left is not known then, and the next would hide it.
fn write_steps(store: &Store, promised: &mut Promised, upto: u8) {
    for step in promised.step + 1..=upto {
        let row = |table| RowChange { table, key: b"row", value: Some(std::slice::from_ref(&step)) };
        let third = RowChange { key: b"odd", value: (step % 2 == 1).then_some(b"".as_slice()), ..row(RowTable::Trust) };
        if store.put_rows(&[row(RowTable::Binpkgs), third, row(RowTable::Claims)]).is_err() {
            return;
        }
        promised.step = step;
    }
}

/// All rows are of one step, which is the promised one or the one that was asked for next.
fn check_rows(store: &Store, promised: &Promised, story: &str) {
    let said = [RowTable::Binpkgs, RowTable::Claims].map(|table| store.row(table, b"row").unwrap());
    let [binpkg, claim] = said.map(|value| value.map_or(0, |value| value[0]));
    assert_eq!(binpkg, claim, "{story}: half a step of rows");
    assert!((promised.step..=promised.step + 1).contains(&binpkg), "{story}: {binpkg}, not {}", promised.step);
    assert_eq!(store.row(RowTable::Trust, b"odd").unwrap().is_some(), binpkg % 2 == 1, "{story}: the third row");
}

/// Uses the store in every way, goes on after errors, and notes what was promised.
fn scenario(dir: &Path, disk: Arc<FaultyDisk>) -> Promised {
    let mut promised = Promised::default();
    let Ok(store) = Store::open_on(dir, options(), disk) else { return promised };
    let digests: Vec<Digest> = (0..PARTS.len()).map(|number| Digest::of(&part(number))).collect();
    promised.held.extend(bring(&store, &part(0)));
    promised.pinned = store.pin(&digests[0], &root()).is_ok();
    write_steps(&store, &mut promised, 2);
    if let Ok(mut incoming) = store.incoming(&wanted(&part(1)))
        && incoming.append(&part(1)[..2500]).is_ok()
    {
        incoming.keep().unwrap_or_default();
    }
    let source = dir.join("source");
    put(&source, &part(2));
    promised.held.extend(store.import(&source, &wanted(&part(2))).map(|imported| imported.blob.digest()));
    promised.held.extend(bring(&store, &part(3)));
    if let Ok(mut incoming) = store.incoming(&wanted(&part(1))) {
        let len = usize::try_from(incoming.len()).unwrap();
        if incoming.append(&part(1)[len..]).is_ok() {
            promised.held.extend(incoming.finish().map(|blob| blob.digest()));
        }
    }
    // What is asked to go may be there or not, until it is promised that it is not.
    promised.held.retain(|digest| *digest != digests[3]);
    if store.remove(&digests[3]).is_ok_and(|was_held| was_held) {
        promised.gone.push(digests[3]);
    }
    bring(&store, &part(4));
    if let Ok(mut liar) = store.incoming(&wanted(LIE)) {
        liar.append(b"SOMETHING ELSE").unwrap_or_default();
        assert!(liar.finish().is_err());
    }
    // With the others pinned gc finds nothing to take but the last.
    let was_held = store.contains(&digests[4]);
    let pinned = digests[1..3].iter().all(|digest| store.pin(digest, &root()).is_ok());
    if promised.pinned && pinned && store.gc(GcTarget::Bytes(0), false).is_ok() {
        promised.gone.extend(was_held.then_some(digests[4]));
    }
    write_steps(&store, &mut promised, STEPS);
    store.flush().unwrap_or_default();
    promised
}

/// Opens what is left and holds it to what was promised.
fn check(dir: &Path, promised: &Promised, story: &str) {
    let store = Store::open(dir, options()).unwrap_or_else(|error| panic!("{story}: {error}"));
    let listed = store.list(None, 100);
    let bytes = tree::size::total(listed.iter().map(|(_, size)| *size));
    let stats = store.stats();
    assert_eq!((stats.blobs, stats.bytes), (listed.len() as u64, bytes), "{story}: counters");
    for digest in &promised.held {
        assert!(store.get(digest).unwrap().is_some(), "{story}: {digest:?} was promised");
    }
    for digest in &promised.gone {
        assert!(!store.contains(digest), "{story}: {digest:?} was said to be gone");
    }
    check_rows(&store, promised, story);
    if promised.pinned {
        assert!(store.is_pinned(&Digest::of(&part(0))), "{story}: the pin");
    }
    let report = verify(&store);
    assert!(report.is_sound() && report.adopted.is_empty(), "{story}: {report:?}");
    for number in 0..PARTS.len() {
        let whole = part(number);
        match store.incoming(&wanted(&whole)) {
            Ok(mut incoming) => {
                let len = usize::try_from(incoming.len()).unwrap();
                incoming.append(&whole[len..]).unwrap();
                incoming.finish().unwrap_or_else(|error| panic!("{story}: part {number} from {len}: {error}"));
            }
            Err(IncomingError::AlreadyHeld(_)) => {}
            Err(error) => panic!("{story}: {error}"),
        }
    }
    // Wrong bytes that could not be thrown away are still there, and still no blob.
    assert!(!store.contains(&Digest::of(LIE)), "{story}");
    if let Ok(liar) = store.incoming(&wanted(LIE)) {
        liar.discard();
    }
    assert_eq!((store.stats().blobs, store.stats().partials), (PARTS.len() as u64, 0), "{story}");
}

fn counts_of_a_quiet_run() -> (u64, u64) {
    let dir = scratch();
    let disk = FaultyDisk::new(dir.path(), Fault::Never, io::ErrorKind::Other);
    let promised = scenario(dir.path(), Arc::clone(&disk));
    assert_eq!((promised.held.len(), promised.gone.len(), promised.pinned), (3, 2, true));
    assert_eq!(promised.step, STEPS);
    check(dir.path(), &promised, "nothing went wrong");
    disk.counts()
}

/// Making a store is hundreds of calls that are alike; a few of them are enough.
fn calls_worth_failing(calls: u64) -> impl Iterator<Item = u64> {
    (0..calls).filter(|call| !(5..255).contains(call))
}

fn fail_calls(fault: fn(u64) -> Fault, kind: io::ErrorKind, which: u64) {
    let (calls, _) = counts_of_a_quiet_run();
    assert!(calls > 300, "the scenario covers many calls, not {calls}");
    for call in calls_worth_failing(calls).filter(|call| call % 2 == which) {
        let dir = scratch();
        let disk = FaultyDisk::new(dir.path(), fault(call), kind);
        let promised = scenario(dir.path(), disk);
        check(dir.path(), &promised, &format!("{:?}, {kind:?}", fault(call)));
    }
}

#[test]
fn any_even_call_may_fail_once() {
    fail_calls(Fault::Once, io::ErrorKind::Other, 0);
}

#[test]
fn any_odd_call_may_fail_once() {
    fail_calls(Fault::Once, io::ErrorKind::Other, 1);
}

#[test]
fn the_disk_may_be_full_from_any_even_call_on() {
    fail_calls(Fault::From, io::ErrorKind::StorageFull, 0);
}

#[test]
fn the_disk_may_be_full_from_any_odd_call_on() {
    fail_calls(Fault::From, io::ErrorKind::StorageFull, 1);
}

#[test]
fn a_power_cut_at_any_sync_keeps_every_promise() {
    let (_, syncs) = counts_of_a_quiet_run();
    assert!(syncs > 20, "the scenario covers many syncs, not {syncs}");
    for sync in 0..=syncs {
        let dir = scratch();
        let disk = FaultyDisk::new(dir.path(), Fault::PowerCut(sync), io::ErrorKind::Other);
        let promised = scenario(dir.path(), Arc::clone(&disk));
        let image = scratch();
        disk.image(image.path());
        check(image.path(), &promised, &format!("power cut at sync {sync}"));
    }
}
