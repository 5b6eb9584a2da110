//! What a failing disk, a power cut, a full disk and a `kill -9` leave: every blob verifies, every partial resumes or is gone.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "all of this file is a test, its functions too")]
#![expect(clippy::print_stdout, reason = "the process to be killed says how far it came")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use store::{Disk, GcTarget, Listed, Options, PinRoot, RealDisk, Store, Wanted};
use tempfile::TempDir;
use tree::digest::Digest;

/// When a disk goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Never,
    /// This call fails, the next ones do not.
    Once(u64),
    /// This call and all after it fail, as when the process is gone.
    From(u64),
    /// This sync and all calls after it fail, and only what was synced before is left.
    PowerCut(u64),
}

/// A real disk that goes wrong when told to, and remembers what was synced.
#[derive(Debug)]
struct FaultyDisk {
    root: PathBuf,
    fault: Fault,
    kind: io::ErrorKind,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    calls: u64,
    syncs: u64,
    dead: bool,
    /// What each file had when it was last synced.
    bytes: BTreeMap<u64, Vec<u8>>,
    /// What each directory had when it was last synced: name → inode.
    names: BTreeMap<PathBuf, u64>,
    /// The index when it was last synced.
    index: BTreeMap<String, Vec<u8>>,
}

impl FaultyDisk {
    fn new(root: &Path, fault: Fault, kind: io::ErrorKind) -> Arc<Self> {
        Arc::new(Self { root: root.to_path_buf(), fault, kind, state: Mutex::default() })
    }

    fn call(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        let fails = state.dead || matches!(self.fault, Fault::Once(n) | Fault::From(n) if n == state.calls);
        state.calls += 1;
        state.dead |= fails && matches!(self.fault, Fault::From(_));
        if fails { Err(self.kind.into()) } else { Ok(()) }
    }

    fn sync_call(&self) -> io::Result<()> {
        self.call()?;
        let mut state = self.state.lock().unwrap();
        if self.fault == Fault::PowerCut(state.syncs) {
            state.dead = true;
            return Err(self.kind.into());
        }
        state.syncs += 1;
        Ok(())
    }

    fn counts(&self) -> (u64, u64) {
        let state = self.state.lock().unwrap();
        (state.calls, state.syncs)
    }

    /// Writes what a power cut leaves into another directory.
    fn image(&self, to: &Path) {
        let state = self.state.lock().unwrap();
        for (path, inode) in &state.names {
            let place = to.join(path.strip_prefix(&self.root).unwrap());
            put(&place, state.bytes.get(inode).map_or(&[], Vec::as_slice));
        }
        for (name, bytes) in &state.index {
            put(&to.join("index").join(name), bytes);
        }
    }
}

fn put(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    store::write_atomically(path, bytes, 0o644).unwrap();
}

impl Disk for FaultyDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.call()?;
        RealDisk.create_dir(path)
    }

    fn open_partial(&self, path: &Path) -> io::Result<File> {
        self.call()?;
        RealDisk.open_partial(path)
    }

    fn open_read(&self, path: &Path) -> io::Result<File> {
        self.call()?;
        RealDisk.open_read(path)
    }

    fn append(&self, file: &File, path: &Path, at: u64, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.call() {
            // A full disk takes some of it.
            RealDisk.append(file, path, at, &bytes[..bytes.len() / 2])?;
            return Err(error);
        }
        RealDisk.append(file, path, at, bytes)
    }

    fn truncate(&self, file: &File, path: &Path, len: u64) -> io::Result<()> {
        self.call()?;
        RealDisk.truncate(file, path, len)
    }

    fn reserve(&self, _file: &File, _path: &Path, _len: u64) -> io::Result<()> {
        self.call()
    }

    fn reflink(&self, _from: &File, _to: &File, _to_path: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call()?;
        RealDisk.hard_link(from, to)
    }

    fn seal(&self, file: &File, path: &Path) -> io::Result<()> {
        self.call()?;
        RealDisk.seal(file, path)
    }

    fn sync(&self, file: &File, _path: &Path) -> io::Result<()> {
        self.sync_call()?;
        let metadata = file.metadata()?;
        let mut bytes = vec![0; usize::try_from(metadata.len()).unwrap()];
        file.read_exact_at(&mut bytes, 0)?;
        self.state.lock().unwrap().bytes.insert(metadata.ino(), bytes);
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.sync_call()?;
        let mut state = self.state.lock().unwrap();
        state.names.retain(|name, _| name.parent() != Some(path));
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if entry.metadata()?.is_file() {
                state.names.insert(entry.path(), entry.metadata()?.ino());
            }
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call()?;
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call()?;
        RealDisk.remove(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Listed>> {
        self.call()?;
        RealDisk.list(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.call()?;
        RealDisk.free_bytes(path)
    }

    fn commit(&self, write: &mut dyn FnMut() -> io::Result<()>, synced: bool) -> io::Result<()> {
        if !synced {
            self.call()?;
            return write();
        }
        self.sync_call()?;
        write()?;
        let mut index = BTreeMap::new();
        for entry in fs::read_dir(self.root.join("index"))? {
            let entry = entry?;
            let name = entry.file_name().into_string().unwrap();
            // RocksDB removes files it is done with while this reads.
            if let Ok(bytes) = fs::read(entry.path())
                && name != "LOCK"
            {
                index.insert(name, bytes);
            }
        }
        self.state.lock().unwrap().index = index;
        Ok(())
    }
}

/// In memory where that can be had: hundreds of stores are made, and their syncs are counted, not needed.
fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a temporary directory")
}

fn options() -> Options {
    Options { free_min_bytes: 0, grace: Duration::ZERO, ..Options::default() }
}

fn blob_bytes(seed: u8, size: usize) -> Vec<u8> {
    (0..size).map(|place| seed ^ place.to_le_bytes()[0] ^ place.to_le_bytes()[1]).collect()
}

fn wanted(bytes: &[u8]) -> Wanted {
    Wanted { digest: Digest::of(bytes), size: Some(bytes.len() as u64), sha512: None }
}

fn root() -> PinRoot {
    "kept".parse().unwrap()
}

/// What was promised by the time the disk went wrong: by an `Ok`.
#[derive(Debug, Default)]
struct Promised {
    held: Vec<Digest>,
    gone: Vec<Digest>,
    pinned: bool,
}

/// What the scenario brings in: one pinned, one in two goes, one imported, one to remove, one for gc.
const PARTS: [(u8, usize); 5] = [(1, 3000), (2, 5000), (3, 2000), (4, 1000), (5, 1500)];

/// Bytes that somebody wants and nobody brings.
const LIE: &[u8] = b"something else";

fn part(number: usize) -> Vec<u8> {
    let (seed, size) = PARTS[number];
    blob_bytes(seed, size)
}

fn bring(store: &Store, bytes: &[u8]) -> Option<Digest> {
    let mut incoming = store.incoming(&wanted(bytes)).ok()?;
    for piece in bytes.chunks(700) {
        incoming.append(piece).ok()?;
    }
    incoming.finish().ok().map(|blob| blob.digest())
}

/// Uses the store in every way, goes on after errors, and notes what was promised.
fn scenario(dir: &Path, disk: Arc<FaultyDisk>) -> Promised {
    let mut promised = Promised::default();
    let Ok(store) = Store::open_on(dir, options(), disk) else { return promised };
    let digests: Vec<Digest> = (0..PARTS.len()).map(|number| Digest::of(&part(number))).collect();
    promised.held.extend(bring(&store, &part(0)));
    promised.pinned = store.pin(&digests[0], &root()).is_ok();
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
    store.flush().unwrap_or_default();
    promised
}

/// Opens what is left and holds it to what was promised.
fn check(dir: &Path, promised: &Promised, story: &str) {
    let store = Store::open(dir, options()).unwrap_or_else(|error| panic!("{story}: {error}"));
    let listed = store.list(None, 100);
    let bytes: u64 = listed.iter().map(|(_, size)| size).sum();
    let stats = store.stats();
    assert_eq!((stats.blobs, stats.bytes), (listed.len() as u64, bytes), "{story}: counters");
    for digest in &promised.held {
        assert!(store.get(digest).unwrap().is_some(), "{story}: {digest:?} was promised");
    }
    for digest in &promised.gone {
        assert!(!store.contains(digest), "{story}: {digest:?} was said to be gone");
    }
    if promised.pinned {
        assert!(store.is_pinned(&Digest::of(&part(0))), "{story}: the pin");
    }
    let report = store.verify(None, &mut |_| {}, &AtomicBool::new(false));
    assert!(report.is_sound() && report.adopted.is_empty(), "{story}: {report:?}");
    for number in 0..PARTS.len() {
        let whole = part(number);
        match store.incoming(&wanted(&whole)) {
            Ok(mut incoming) => {
                let len = usize::try_from(incoming.len()).unwrap();
                incoming.append(&whole[len..]).unwrap();
                incoming.finish().unwrap_or_else(|error| panic!("{story}: part {number} from {len}: {error}"));
            }
            Err(store::IncomingError::AlreadyHeld(_)) => {}
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

#[test]
fn a_full_disk_says_so_and_what_came_stays() {
    let dir = scratch();
    let bytes = blob_bytes(9, 3 << 20);
    // The calls of an incoming: open_partial, free_bytes, reserve, append, append.
    let quiet = FaultyDisk::new(dir.path(), Fault::Never, io::ErrorKind::StorageFull);
    let store = Store::open_on(dir.path(), options(), Arc::clone(&quiet) as Arc<dyn Disk>).unwrap();
    let (opened, _) = quiet.counts();
    drop(store.incoming(&wanted(&bytes)).unwrap());
    drop(store);
    let again = FaultyDisk::new(dir.path(), Fault::Never, io::ErrorKind::StorageFull);
    drop(Store::open_on(dir.path(), options(), Arc::clone(&again) as Arc<dyn Disk>).unwrap());
    assert!(opened > 256, "the directories were made");
    // adopting asks for the file, then: partial, free space, space set aside, first bytes, next bytes.
    let reopened = again.counts().0 - 1;
    for (call, kept) in [(reopened + 3, 0), (reopened + 4, 0), (reopened + 5, 1 << 20)] {
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

#[test]
fn gc_frees_a_disk_on_which_the_index_cannot_write() {
    let dir = scratch();
    let store = Store::open(dir.path(), options()).unwrap();
    let digests: Vec<Digest> = (0..3).filter_map(|number| bring(&store, &part(number))).collect();
    store.pin(&digests[0], &root()).unwrap();
    drop(store);
    let disk = Arc::new(FullIndex::default());
    let store = Store::open_on(dir.path(), options(), Arc::clone(&disk) as Arc<dyn Disk>).unwrap();
    disk.full.store(true, std::sync::atomic::Ordering::Relaxed);
    let report = store.gc(GcTarget::Bytes(0), false).unwrap();
    assert_eq!((report.removed.len(), report.kept_pinned_bytes), (2, 3000));
    assert!(!dir.path().join("blobs").join(&digests[1].to_string()[..2]).join(digests[1].to_string()).exists());
    disk.full.store(false, std::sync::atomic::Ordering::Relaxed);
    for digest in &digests[1..] {
        assert!(store.get(digest).unwrap().is_none());
    }
    assert_eq!((store.stats().blobs, store.stats().bytes), (1, 3000));
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
        if self.full.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        write()
    }
}

/// Says to the test binary that it is the process to be killed, and where its store is.
const VICTIM: &str = "STORE_TEST_VICTIM";
/// Blobs that are ingested in all while processes are killed.
const INGESTS: u32 = 200;

fn nth_blob(number: u32) -> Vec<u8> {
    let size = 1 + usize::try_from(number % 7).unwrap() * 9000;
    number.to_le_bytes().iter().copied().cycle().take(size).collect()
}

/// Ingests from a number on and says after each what it has; is killed at some moment.
fn ingest_until_killed(dir: &Path, first: u32) {
    let store = Store::open(dir, options()).expect("the store opens after a kill");
    for number in first..INGESTS {
        let bytes = nth_blob(number);
        match store.incoming(&wanted(&bytes)) {
            Err(store::IncomingError::AlreadyHeld(_)) => {}
            incoming => {
                let mut incoming = incoming.expect("an incoming begins");
                let len = usize::try_from(incoming.len()).expect("a small partial");
                for piece in bytes[len..].chunks(4000) {
                    incoming.append(piece).expect("bytes are taken");
                }
                drop(incoming.finish().expect("the bytes are right"));
            }
        }
        println!("\nheld {number}");
        io::stdout().flush().expect("the test reads");
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the process to be killed is this test again")]
fn a_kill_at_any_moment_loses_nothing_that_was_acknowledged() {
    if let Ok(victim) = std::env::var(VICTIM) {
        let (first, dir) = victim.split_once(' ').expect("a number and a directory");
        return ingest_until_killed(Path::new(dir), first.parse().expect("a number"));
    }
    let dir = scratch();
    let (mut next, mut round, mut kills) = (0, 0_u32, 0);
    while next < INGESTS {
        round += 1;
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_kill_at_any_moment_loses_nothing_that_was_acknowledged", "--nocapture"])
            .env(VICTIM, format!("{next} {}", dir.path().display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // After some acknowledgements and a little more, which differs from round to round.
        let lives = 1 + round.wrapping_mul(2_654_435_761) % 17;
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let held = lines.by_ref().filter_map(|line| line.strip_prefix("held ")?.parse::<u32>().ok());
        let last = held.take(usize::try_from(lives).unwrap()).last();
        for _ in 0..round.wrapping_mul(40_503) % 2_000_000 {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        kills += u32::from(!child.wait().unwrap().success());
        // What it said while it was being killed counts too.
        let late = lines.filter_map(|line| line.strip_prefix("held ")?.parse::<u32>().ok()).last();
        let acknowledged = late.or(last).map_or(next, |last| last + 1);
        assert!(acknowledged > next, "round {round} got nowhere");
        next = acknowledged;
        check_after_kill(&dir, next, round);
    }
    assert!(kills >= 10, "only {kills} were killed before their end");
}

fn check_after_kill(dir: &TempDir, acknowledged: u32, round: u32) {
    let store = Store::open(dir.path(), options()).unwrap();
    for number in 0..acknowledged {
        assert!(store.contains(&Digest::of(&nth_blob(number))), "round {round}: blob {number} was acknowledged");
    }
    let report = store.verify(None, &mut |_| {}, &AtomicBool::new(false));
    assert!(report.is_sound() && report.adopted.is_empty(), "round {round}: {report:?}");
    assert!(report.checked <= u64::from(acknowledged) + 1);
    assert_eq!(store.stats().blobs, report.checked);
}
