//! This node's binhost: the binary packages it offers to its own Portage, and their index.
//!
//! A package is listed exactly while its blob is held, for Portage gives up where a listed file is missing, and while this
//! machine can use it ([`usable`]), for Portage compares neither processors nor libraries. A change costs a row; the index,
//! which grows with all packages, is made anew when somebody asks for it after a change, or when changes pause, and goes from
//! one [`Generation`] to the next at once. Portage takes a new one only if its time is more than five seconds behind that
//! of the one it has; so each generation that follows one that was served is at least [`STEP_S`] younger, across restarts and
//! whatever the clock does. What is served less often than that never runs ahead of the clock.

mod answers;
pub mod ask;
mod generation;
mod owner;
mod path;
mod row;
mod usable;

pub use answers::OwnPortage;
pub use generation::Generation;
pub use owner::Owner;
pub use path::{parse_path, path_of};
#[cfg(test)]
pub(crate) use row::tests::row as a_row;
pub use row::{BinpkgRow, COMPILED_WITH, DecodeRowError, Demands, Origin, Sums};
pub use usable::{Instance, Reject, RejectKind};

use crate::blocking;
use crate::builds::publish::{links, seekable};
use crate::machine::Machine;
use crate::stats::now_s;
use answers::{Answers, WouldBuild};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;
use store::{Clock, IndexError, PinRoot, RowChange, RowError, RowTable, Store};
use tokio::sync::Notify;
use tree::atom::Atom;
use tree::digest::Digest;
use tree::gpkg::Gpkg;
use tree::packages::PackagesIndex;

/// Seconds between the times of two generations that were served: Portage asks for what is younger than its own by more
/// than five (`portage.util._urlopen.urlopen`).
pub const STEP_S: u64 = 6;
/// Packages that are offered; each costs some kilobytes of memory and of an index that Portage reads as a whole.
pub const PACKAGES_MAX: usize = 50_000;
/// Why the blobs of the packages stay in the store.
pub(crate) const PIN_ROOT: &str = "binary packages of this node";
/// Key of the row that is about the index and not about a package; a package's has the 64 bytes of its digest.
const STATE_KEY: &[u8] = b"generation";
/// Version of the first of these rows.
const STATE_VERSION: u8 = 1;
/// Rows that are read at once.
const PAGE_ROWS: usize = 256;
/// How long one look at the store's feed waits.
const EVENT_WAIT: Duration = Duration::from_millis(500);

/// Why the binhost does not take a change.
#[derive(Debug, thiserror::Error)]
pub enum BinhostError {
    /// The index of the store does not answer.
    #[error("the rows of binary packages cannot be read")]
    Read(#[source] IndexError),
    /// The row is not written.
    #[error("the row of a binary package cannot be written")]
    Write(#[from] RowError),
    /// The blobs are not kept.
    #[error("the blobs of binary packages cannot be pinned")]
    Pin(#[source] IndexError),
    /// There are too many.
    #[error("{PACKAGES_MAX} binary packages are offered already")]
    Full,
}

/// The binary packages and the index of them that is served now.
pub struct Binhost {
    store: Store,
    root: PinRoot,
    machine: Arc<Machine>,
    state: Mutex<State>,
    /// The state that the current index was made from; held while one is made.
    made: Mutex<u64>,
    current: RwLock<Arc<Generation>>,
    changed: Notify,
    looks: ask::Looks,
}

/// What the index is made from. A clone is cheap, and is what an index is made of while the rest goes on.
#[derive(Clone, Default)]
struct State {
    /// Counts the changes.
    version: u64,
    rows: BTreeMap<Digest, Arc<BinpkgRow>>,
    header: BTreeMap<String, String>,
    answers: Arc<Answers>,
    rejected: Arc<BTreeMap<Digest, Vec<Reject>>>,
}

/// What the index was when it was last written: its time, its digest, its header.
type Saved = (u8, u64, String, BTreeMap<String, String>);

impl Binhost {
    /// Reads what is offered, pins it, and makes the index. A row that cannot be read is passed over and stays. Blocking.
    ///
    /// # Errors
    /// When the store does not answer.
    pub fn open(store: &Store, machine: Arc<Machine>) -> Result<Self, BinhostError> {
        let saved = store.row(RowTable::Binpkgs, STATE_KEY).map_err(BinhostError::Read)?;
        let saved = saved.and_then(|bytes| serde_ipld_dagcbor::from_slice::<Saved>(&bytes).ok());
        let (_, timestamp, digest, header) = saved.unwrap_or_default();
        let answers = Answers::decode(&answers::read(store).map_err(BinhostError::Read)?).unwrap_or_default();
        let (rows, answers) = (read_rows(store)?, Arc::new(answers));
        let mut state = State { version: 1, rows, header, answers, rejected: Arc::default() };
        state.judge(&machine);
        let mut current = state.generation(store, timestamp);
        // Nobody knows who saw the last one before this start.
        current.mark_served();
        let known = current.digest().to_string() == digest;
        if !known {
            current = state.generation(store, now(store).max(timestamp + STEP_S));
        }
        let root = PIN_ROOT.parse().expect("the name is short and has no control characters");
        let kept: Vec<Digest> = state.rows.values().flat_map(|row| row.kept()).collect();
        let binhost = Self {
            store: store.clone(),
            root,
            machine,
            state: Mutex::new(state.clone()),
            made: Mutex::new(state.version),
            current: RwLock::new(Arc::new(current)),
            changed: Notify::new(),
            looks: ask::Looks::default(),
        };
        store.repin(&binhost.root, &kept).map_err(BinhostError::Pin)?;
        if !known {
            binhost.save(&binhost.made_last(), &state)?;
        }
        Ok(binhost)
    }

    /// Offers a package, or what is newly known of it. Its blob should be in the store; it is listed once it is. Blocking.
    ///
    /// # Errors
    /// When it cannot be written down.
    pub fn add(&self, row: BinpkgRow) -> Result<(), BinhostError> {
        self.add_with(row, &[])
    }

    /// As [`Binhost::add`], with other rows that must be there exactly if this one is (the claim that it is about). Blocking.
    ///
    /// # Errors
    /// As [`Binhost::add`]; the other rows are there if and only if this one is.
    pub fn add_with(&self, row: BinpkgRow, others: &[RowChange<'_>]) -> Result<(), BinhostError> {
        let mut state = self.state();
        if state.rows.len() >= PACKAGES_MAX && !state.rows.contains_key(&row.digest) {
            return Err(BinhostError::Full);
        }
        // Pinned first: a crash in between leaves a pin too many, which the next start takes away.
        for digest in row.kept() {
            self.store.pin(&digest, &self.root).map_err(BinhostError::Pin)?;
        }
        let (key, value) = (*row.digest.as_bytes(), row.encode());
        let mut changes = vec![RowChange { table: RowTable::Binpkgs, key: &key, value: Some(&value) }];
        changes.extend_from_slice(others);
        self.store.put_rows(&changes)?;
        // Whatever is added was planned with this machine's configuration.
        Arc::make_mut(&mut state.answers).note_planned(row.digest);
        state.rows.insert(row.digest, Arc::new(row));
        state.version += 1;
        self.changed.notify_one();
        Ok(())
    }

    /// Offers a package no longer; its blob may go at the next gc. False when it was not offered. Blocking.
    ///
    /// # Errors
    /// When it cannot be written down.
    pub fn remove(&self, digest: &Digest) -> Result<bool, BinhostError> {
        let mut state = self.state();
        if !state.rows.contains_key(digest) {
            return Ok(false);
        }
        self.store.delete_row(RowTable::Binpkgs, digest.as_bytes())?;
        state.rows.remove(digest);
        Arc::make_mut(&mut state.answers).forget(digest);
        state.version += 1;
        let kept: Vec<Digest> = state.rows.values().flat_map(|row| row.kept()).collect();
        self.store.repin(&self.root, &kept).map_err(BinhostError::Pin)?;
        Ok(true)
    }

    /// Lets go of packages that were built for other machines before a moment, in seconds since the epoch: who wanted them
    /// has them. Which. Blocking.
    ///
    /// # Errors
    /// When the store does not answer.
    pub fn forget_guests(&self, before: u64) -> Result<Vec<Digest>, BinhostError> {
        let old = |row: &&Arc<BinpkgRow>| row.is_guest() && row.added_at < before;
        let gone: Vec<Digest> = self.state().rows.values().filter(old).map(|row| row.digest).collect();
        gone.iter().try_for_each(|digest| self.remove(digest).map(drop))?;
        Ok(gone)
    }

    /// The packages that were built for other machines, and for whom.
    #[must_use]
    pub fn guests(&self) -> Vec<(Digest, Owner)> {
        self.state().rows.values().filter(|row| row.is_guest()).map(|row| (row.digest, row.owner)).collect()
    }

    /// What the index says of all packages: `ARCH`, `CHOST`, `USE_EXPAND` and the like, as Portage's own header has them.
    /// It survives a restart, once an index with it was made.
    pub fn set_header(&self, header: BTreeMap<String, String>) {
        let mut state = self.state();
        if state.header != header {
            state.header = header;
            state.version += 1;
        }
    }

    /// Looks again which blobs are held, and which packages can be used. Blocking.
    ///
    /// # Errors
    /// When a new index cannot be written down.
    pub fn compare(&self) -> Result<(), BinhostError> {
        self.state().version += 1;
        self.make()
    }

    /// A blob came or went; costs little where no package is about it.
    pub fn note(&self, digest: &Digest) {
        let mut state = self.state();
        if state.rows.contains_key(digest) {
            state.version += 1;
        }
    }

    /// The index as it is now. Blocking: it is made anew after a change.
    #[must_use]
    pub fn generation(&self) -> Arc<Generation> {
        report(self.make());
        self.made_last()
    }

    /// The index that was made last.
    fn made_last(&self) -> Arc<Generation> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The index as it is now, to be given to a client: the next one will have a later time. Blocking.
    #[must_use]
    pub fn serve(&self) -> Arc<Generation> {
        report(self.make());
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.mark_served();
        Arc::clone(&current)
    }

    /// What is known of a package.
    #[must_use]
    pub fn row(&self, digest: &Digest) -> Option<BinpkgRow> {
        self.state().rows.get(digest).map(|row| BinpkgRow::clone(row))
    }

    /// All packages, held or not.
    #[must_use]
    pub fn rows(&self) -> Vec<BinpkgRow> {
        self.state().rows.values().map(|row| BinpkgRow::clone(row)).collect()
    }

    /// The packages that a recipe gave and whose blobs are held, the youngest first.
    #[must_use]
    pub fn of_recipe(&self, fingerprint: &Digest) -> Vec<BinpkgRow> {
        let state = self.state();
        let fits = |row: &&Arc<BinpkgRow>| row.fingerprint == *fingerprint && self.store.contains(&row.digest);
        let mut found: Vec<BinpkgRow> = state.rows.values().filter(fits).map(|row| BinpkgRow::clone(row)).collect();
        found.sort_by_key(|row| std::cmp::Reverse(row.added_at));
        found
    }

    /// The packages of an atom whose blobs are held, usable or not, the youngest first.
    #[must_use]
    pub fn instances(&self, atom: &Atom) -> Vec<Instance> {
        self.select(|row| {
            let words = |key: &str| row.entry.get(key).unwrap_or_default().split_ascii_whitespace();
            let is_on = |flag: &str| words("USE").any(|word| word == flag);
            // Flags that IUSE need not name are among those that are on.
            let knows =
                |flag: &str| is_on(flag) || words("IUSE").any(|word| word.trim_start_matches(['+', '-']) == flag);
            atom.matches(row.entry.cpv(), row.entry.get("SLOT").or(Some("0")))
                && atom.repo.as_ref().is_none_or(|repo| Some(repo.as_str()) == row.entry.get("REPO"))
                && atom.use_matches(knows, is_on)
        })
    }

    /// All packages whose blobs are held, usable or not, the youngest first.
    #[must_use]
    pub fn all_instances(&self) -> Vec<Instance> {
        self.select(|_| true)
    }

    fn select(&self, is_wanted: impl Fn(&BinpkgRow) -> bool) -> Vec<Instance> {
        // What was added last is judged, too.
        report(self.make());
        let state = self.state();
        let held = state.rows.values().filter(|row| is_wanted(row) && self.store.contains(&row.digest));
        let rejects = |row: &BinpkgRow| state.rejected.get(&row.digest).cloned().unwrap_or_default();
        let mut all: Vec<Instance> =
            held.map(|row| Instance { rejects: rejects(row), row: BinpkgRow::clone(row) }).collect();
        all.sort_by_key(|instance| std::cmp::Reverse(instance.row.added_at));
        all
    }

    /// This machine, as its Portage is configured; None until it was asked, which it is once there is a package.
    #[must_use]
    pub fn own_portage(&self) -> Option<OwnPortage> {
        self.state().answers.machine.clone()
    }

    /// This machine's processor and libraries.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    fn is_stale(&self, config: &str, ebuilds: &BTreeMap<Digest, u64>) -> bool {
        Arc::make_mut(&mut self.state().answers).are_stale(config, ebuilds)
    }

    /// What Portage would build now for each of these packages. Blocking.
    fn take_answers(
        &self,
        config: String,
        machine: OwnPortage,
        answered: Vec<(Vec<Digest>, Option<WouldBuild>)>,
        ebuilds: &BTreeMap<Digest, u64>,
    ) -> Result<(), BinhostError> {
        let mut state = self.state();
        let State { rows, answers, version, .. } = &mut *state;
        let answers = Arc::make_mut(answers);
        (answers.config, answers.machine) = (config, Some(machine));
        for (packages, would) in &answered {
            for row in packages.iter().filter_map(|digest| rows.get(digest)) {
                let differing = would.as_ref().map(|now| answers::differing(&row.entry, now)).unwrap_or_default();
                answers.note(row.digest, ebuilds.get(&row.digest).copied().unwrap_or(0), differing);
            }
        }
        *version += 1;
        answers::write(&self.store, &answers.encode())?;
        drop(state);
        self.make()
    }

    /// Looks into the packages of rows that an earlier program wrote. Blocking.
    fn describe_old(&self) {
        let old: Vec<Digest> =
            self.state().rows.values().filter(|row| row.demands.is_none()).map(|row| row.digest).collect();
        for digest in old {
            let Some(demands) = demands_of(&self.store, &digest) else { continue };
            let mut state = self.state();
            let Some(known) = state.rows.get_mut(&digest) else { continue };
            let known = Arc::make_mut(known);
            known.demands = Some(demands);
            let (key, value) = (*digest.as_bytes(), known.encode());
            state.version += 1;
            report(self.store.put_row(RowTable::Binpkgs, &key, &value).map_err(BinhostError::Write));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the index anew if something changed since it was made. What changes meanwhile waits for the next time.
    fn make(&self) -> Result<(), BinhostError> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.state().clone();
        if *made == state.version {
            return Ok(());
        }
        state.judge(&self.machine);
        self.state().rejected = Arc::clone(&state.rejected);
        self.switch(&state)?;
        *made = state.version;
        Ok(())
    }

    /// Makes a new generation, if more than its time would be another than in the one that is served.
    fn switch(&self, state: &State) -> Result<(), BinhostError> {
        loop {
            let old = self.made_last();
            let served = old.was_served();
            // Who never saw the old one cannot take the new one for it.
            let timestamp = if served { now(&self.store).max(old.timestamp + STEP_S) } else { old.timestamp };
            let index = state.index(&self.store, timestamp);
            let text = index.to_string();
            if old.says_the_same_as(&text) {
                return Ok(());
            }
            let new = Generation::new(text, timestamp, index.entries().len());
            self.save(&new, state)?;
            let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
            if old.was_served() == served {
                tracing::debug!(timestamp, packages = new.packages, "new Packages index");
                *current = Arc::new(new);
                return Ok(());
            }
        }
    }

    fn save(&self, generation: &Generation, state: &State) -> Result<(), BinhostError> {
        let saved: Saved = (STATE_VERSION, generation.timestamp, generation.digest().to_string(), state.header.clone());
        let saved = serde_ipld_dagcbor::to_vec(&saved).expect("texts and numbers always have a DAG-CBOR form");
        Ok(self.store.put_row(RowTable::Binpkgs, STATE_KEY, &saved)?)
    }
}

impl State {
    fn judge(&mut self, machine: &Machine) {
        self.rejected = Arc::new(usable::judge(&self.rows, machine, &self.answers));
    }

    fn generation(&self, store: &Store, timestamp: u64) -> Generation {
        let index = self.index(store, timestamp);
        Generation::new(index.to_string(), timestamp, index.entries().len())
    }

    /// The index of what is held and can be used.
    fn index(&self, store: &Store, timestamp: u64) -> PackagesIndex {
        let usable = self.rows.values().filter(|row| !self.rejected.contains_key(&row.digest));
        let held = usable.filter(|row| store.size_of(&row.digest) == Some(row.size));
        let entries = held.filter_map(|row| {
            let listed = row.listed();
            listed.inspect_err(|error| tracing::error!(digest = ?row.digest, %error, "a package is not listed")).ok()
        });
        PackagesIndex::new(&self.header, timestamp, entries.collect())
    }
}

impl std::fmt::Debug for Binhost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Binhost({} packages)", self.made_last().packages)
    }
}

fn read_rows(store: &Store) -> Result<BTreeMap<Digest, Arc<BinpkgRow>>, BinhostError> {
    let mut rows = BTreeMap::new();
    let mut after = None;
    loop {
        let page = store.rows(RowTable::Binpkgs, b"", after.as_deref(), PAGE_ROWS).map_err(BinhostError::Read)?;
        let Some((last, _)) = page.last() else { return Ok(rows) };
        after = Some(last.clone());
        for (_, value) in page.iter().filter(|(key, _)| key != STATE_KEY && !key.starts_with(answers::KEY)) {
            match BinpkgRow::decode(value) {
                Ok(_) if rows.len() >= PACKAGES_MAX => return Ok(rows),
                Ok(row) => drop(rows.insert(row.digest, Arc::new(row))),
                Err(error) => tracing::error!(%error, "a row of a binary package cannot be read"),
            }
        }
    }
}

/// What a package needs, out of the package; None when it is not held. A broken one needs nothing that is known. Blocking.
fn demands_of(store: &Store, digest: &Digest) -> Option<Demands> {
    let blob = store.get(digest).ok()??;
    let read = Gpkg::read(seekable(&blob)).and_then(|gpkg| {
        let links = links(store, seekable(&blob), &gpkg)?;
        Ok(Demands::of_gpkg(&gpkg, links))
    });
    Some(
        read.inspect_err(|error| tracing::error!(?digest, %error, "a binary package cannot be read"))
            .unwrap_or_default(),
    )
}

/// The store's clock, which a test can set.
fn now(store: &Store) -> u64 {
    match &store.options().clock {
        Clock::System => now_s(),
        Clock::Set(secs) => secs.load(Ordering::Relaxed),
    }
}

fn report(result: Result<(), BinhostError>) {
    if let Err(error) = result {
        tracing::error!(%error, "the Packages index is not what is held");
    }
}

/// Follows the store's events until the daemon stops: a package whose blob is gone leaves the index.
pub async fn follow(store: Store, binhost: Arc<Binhost>) {
    let mut events = Some(store.subscribe());
    // What came between the start and this subscription.
    let comparing = Arc::clone(&binhost);
    blocking::run(move || report(comparing.compare())).await;
    while let Some(feed) = events.take() {
        let binhost = Arc::clone(&binhost);
        // The wait is short so that the blocking pool is free to end when the daemon stops.
        events = blocking::run(move || {
            match feed.next_within(EVENT_WAIT) {
                Ok(store::Event::Added(digest, _) | store::Event::Removed(digest)) => binhost.note(&digest),
                Ok(store::Event::Lost) => report(binhost.compare()),
                Err(store::NextEventError::Quiet) => report(binhost.make()),
                Err(store::NextEventError::Closed) => return None,
            }
            Some(feed)
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::row::tests::row;
    use super::*;
    use flate2::read::GzDecoder;
    use std::io::Read as _;
    use std::sync::atomic::AtomicU64;
    use store::{GcTarget, Options, Wanted};
    use tempfile::TempDir;

    struct Here {
        dir: TempDir,
        clock: Arc<AtomicU64>,
        store: Store,
    }

    impl Here {
        fn new() -> Self {
            let (dir, clock) = (tempfile::tempdir().unwrap(), Arc::new(AtomicU64::new(1000)));
            let store = open(&dir, &clock);
            Self { dir, clock, store }
        }

        fn binhost(&self) -> Binhost {
            Binhost::open(&self.store, Arc::new(Machine::here())).unwrap()
        }

        /// After a stop of the daemon.
        fn reopened(self) -> Self {
            let Self { dir, clock, store } = self;
            drop(store);
            let store = open(&dir, &clock);
            Self { dir, clock, store }
        }

        fn take_in(&self, blob: &[u8]) {
            let wanted = Wanted { digest: Digest::of(blob), size: None, sha512: None };
            let mut incoming = self.store.incoming(&wanted).unwrap();
            incoming.append(blob).unwrap();
            incoming.finish().unwrap();
        }

        /// The blob's file is lost, as by a broken disk: a pin does not help against that.
        fn lose(&self, blob: &[u8]) {
            let digest = Digest::of(blob);
            let path = self.store.get(&digest).unwrap().expect("it was here").path().to_owned();
            std::fs::remove_file(path).unwrap();
            assert!(self.store.get(&digest).unwrap().is_none());
        }

        fn set_clock(&self, secs: u64) {
            self.clock.store(secs, Ordering::Relaxed);
        }
    }

    fn open(dir: &TempDir, clock: &Arc<AtomicU64>) -> Store {
        let clock = Clock::Set(Arc::clone(clock));
        Store::open(dir.path(), Options { clock, free_min_bytes: 0, ..Options::default() }).unwrap()
    }

    fn text(generation: &Generation) -> String {
        String::from_utf8(generation.text.to_vec()).unwrap()
    }

    #[test]
    fn an_empty_binhost_has_an_index() {
        let here = Here::new();
        let generation = here.binhost().generation();
        assert_eq!(text(&generation), "PACKAGES: 0\nTIMESTAMP: 1000\nVERSION: 0\n\n");
        let mut unpacked = String::new();
        GzDecoder::new(&generation.gzip[..]).read_to_string(&mut unpacked).unwrap();
        assert_eq!(unpacked, text(&generation));
        assert_eq!(generation.modified().seconds(), 1000);
    }

    #[test]
    fn a_package_is_listed_exactly_while_its_blob_is_held() {
        let here = Here::new();
        let binhost = here.binhost();
        let row = row(b"blob", 1);
        binhost.add(row.clone()).unwrap();
        assert_eq!(binhost.generation().packages, 0, "its blob is not here");
        here.take_in(b"blob");
        binhost.note(&row.digest);
        assert_eq!(binhost.generation().packages, 1);
        assert!(text(&binhost.generation()).contains(&format!("PATH: {}\n", path_of(&row.digest))));
        here.lose(b"blob");
        binhost.note(&Digest::of(b"another one"));
        assert_eq!(binhost.generation().packages, 1, "what is no package is not looked at");
        binhost.note(&row.digest);
        assert_eq!((binhost.generation().packages, binhost.rows().len()), (0, 1));
        here.take_in(b"blob");
        binhost.compare().unwrap();
        assert_eq!(binhost.generation().packages, 1, "it came back");
        assert!(binhost.remove(&row.digest).unwrap());
        assert!(!binhost.remove(&row.digest).unwrap());
        assert_eq!((binhost.generation().packages, binhost.row(&row.digest)), (0, None));
    }

    #[test]
    fn a_row_that_says_another_size_than_the_blob_has_is_not_listed() {
        let here = Here::new();
        here.take_in(b"blob");
        let binhost = here.binhost();
        binhost.add(BinpkgRow { size: 5, ..row(b"blob", 1) }).unwrap();
        assert_eq!(binhost.generation().packages, 0);
    }

    #[test]
    fn each_generation_that_follows_a_served_one_is_six_seconds_younger_at_least() {
        let here = Here::new();
        for blob in [b"1", b"2", b"3", b"4", b"5"] {
            here.take_in(blob);
        }
        let binhost = here.binhost();
        let first = binhost.serve().timestamp;
        binhost.add(row(b"1", 1)).unwrap();
        let second = binhost.generation().timestamp;
        assert_eq!(second, first + STEP_S);
        binhost.add(row(b"2", 2)).unwrap();
        assert_eq!(binhost.generation().timestamp, second, "nobody saw the second one");
        assert_eq!(binhost.serve().packages, 2);
        here.set_clock(5000);
        binhost.add(row(b"3", 3)).unwrap();
        assert_eq!(binhost.serve().timestamp, 5000, "the clock is further");
        here.set_clock(10);
        binhost.add(row(b"4", 4)).unwrap();
        assert_eq!(binhost.serve().timestamp, 5000 + STEP_S, "the clock was set back");
        binhost.add(row(b"4", 4)).unwrap();
        assert_eq!(binhost.generation().timestamp, 5000 + STEP_S, "nothing changed");
        assert!(text(&binhost.generation()).contains("TIMESTAMP: 5006\n"));
    }

    #[test]
    fn a_restart_keeps_the_index_and_its_time_if_nothing_changed() {
        let here = Here::new();
        here.take_in(b"1");
        here.take_in(b"2");
        let binhost = here.binhost();
        binhost.set_header([("CHOST".to_owned(), "x86_64-pc-linux-gnu".to_owned())].into());
        binhost.add(row(b"1", 1)).unwrap();
        binhost.add(row(b"2", 2)).unwrap();
        let before = binhost.serve();
        assert!(text(&before).starts_with("CHOST: x86_64-pc-linux-gnu\n"));
        drop(binhost);
        let here = here.reopened();
        here.set_clock(2000);
        let binhost = here.binhost();
        assert_eq!(text(&binhost.generation()), text(&before));
        assert_eq!(binhost.rows().len(), 2);
        drop(binhost);
        here.lose(b"1");
        here.set_clock(10);
        let after = here.binhost().generation();
        assert_eq!((after.packages, after.timestamp), (1, before.timestamp + STEP_S));
    }

    #[test]
    fn a_package_and_what_its_claim_names_are_not_gone_after_gc() {
        let here = Here::new();
        for blob in [&b"signed"[..], b"original", b"something else"] {
            here.take_in(blob);
        }
        let origin = Origin::Substitute { builder: [0; 32], original: Digest::of(b"original") };
        let binhost = here.binhost();
        binhost.add(BinpkgRow { origin, ..row(b"signed", 1) }).unwrap();
        here.set_clock(1_000_000);
        here.store.gc(GcTarget::Bytes(0), false).unwrap();
        let held = |blob: &[u8]| here.store.contains(&Digest::of(blob));
        assert_eq!((held(b"signed"), held(b"original"), held(b"something else")), (true, true, false));
        binhost.remove(&Digest::of(b"signed")).unwrap();
        here.store.gc(GcTarget::Bytes(0), false).unwrap();
        assert_eq!((held(b"signed"), held(b"original")), (false, false));
    }

    #[test]
    fn what_a_crash_leaves_is_put_right_at_the_next_start() {
        let here = Here::new();
        here.take_in(b"signed");
        // A pin without a row, a row without a pin, and a row that is none.
        here.store.pin(&Digest::of(b"lost"), &PIN_ROOT.parse().unwrap()).unwrap();
        let row = row(b"signed", 1);
        here.store.put_row(RowTable::Binpkgs, row.digest.as_bytes(), &row.encode()).unwrap();
        here.store.put_row(RowTable::Binpkgs, b"strange", b"\xff").unwrap();
        here.store.put_row(RowTable::Binpkgs, STATE_KEY, b"\xff").unwrap();
        let binhost = here.binhost();
        assert_eq!(binhost.rows(), std::slice::from_ref(&row));
        assert_eq!(binhost.generation().packages, 1);
        let pinned: Vec<Digest> = here.store.pins().into_iter().map(|pin| pin.digest).collect();
        assert_eq!(pinned, [row.digest]);
    }

    #[test]
    fn a_row_and_its_claim_are_written_together_or_not_at_all() {
        let here = Here::new();
        let binhost = here.binhost();
        let long = vec![0; store::KEY_BYTES_MAX + 1];
        let claim = RowChange { table: RowTable::Claims, key: &long, value: Some(b"claim") };
        assert!(matches!(binhost.add_with(row(b"1", 1), &[claim]), Err(BinhostError::Write(_))));
        assert_eq!(binhost.rows(), []);
        binhost.add_with(row(b"1", 1), &[RowChange { key: b"claim", ..claim }]).unwrap();
        assert!(here.store.row(RowTable::Claims, b"claim").unwrap().is_some());
    }

    #[test]
    fn a_recipes_packages_are_those_that_are_held() {
        let here = Here::new();
        here.take_in(b"1");
        here.take_in(b"2");
        let binhost = here.binhost();
        for (blob, added_at) in [(&b"1"[..], 5), (b"2", 6), (b"3", 7)] {
            binhost.add(BinpkgRow { added_at, ..row(blob, 1) }).unwrap();
        }
        let found: Vec<u64> = binhost.of_recipe(&Digest::of(b"fingerprint")).iter().map(|row| row.added_at).collect();
        assert_eq!(found, [6, 5]);
        assert!(binhost.of_recipe(&Digest::of(b"another")).is_empty());
    }
}
