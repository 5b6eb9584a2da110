//! Jobs: what is to be made, kept in the store so that a restart knows, and watched by whoever waits.
//!
//! A job's row is written when its state changes; its phase and its log are only watched. What was not ended when the
//! daemon stopped waits again, and is begun again from its atom ([`super::resume`]): the tree may have changed meanwhile.

use super::stop::Stop;
use crate::api_builds::{Job, JobState};
use crate::stats::now_s;
use crate::swarm::PeerId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use store::{IndexError, RowError, RowTable, Store};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tree::digest::Digest;

/// Jobs that ended and are still told of; the oldest go first, with their logs.
const ENDED_MAX: usize = 500;
/// Lines that are told of one job.
const TOLD_MAX: usize = 32;
/// Jobs that wait or run.
pub const OPEN_MAX: usize = 10_000;
/// The form of a row written here.
const VERSION: u8 = 1;

/// Why there is no such job.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The store.
    #[error("cannot keep a job")]
    Store(#[from] RowError),
    /// Too many.
    #[error("more than {OPEN_MAX} jobs wait; cancel some")]
    TooMany,
}

#[derive(Serialize, Deserialize)]
struct Row {
    v: u8,
    job: Job,
    /// Whether it is to be built even if the package is held: a restart must know.
    rebuild: bool,
}

/// One job, shared by who runs it and who waits for it.
#[derive(Debug)]
pub struct Entry {
    id: u64,
    rebuild: bool,
    state: watch::Sender<Job>,
    cancel: watch::Sender<bool>,
    /// Why it is cancelled, when it is not its user who did it.
    because: OnceLock<String>,
    /// Whether somebody carries it through, who hears of a cancel and writes the end.
    carried: Mutex<bool>,
    /// Jobs that wait for it.
    awaited: AtomicUsize,
    changed: watch::Sender<u64>,
    store: Store,
}

impl Entry {
    fn new(job: Job, rebuild: bool, store: &Store, changed: &watch::Sender<u64>) -> Arc<Self> {
        Arc::new(Self {
            id: job.id,
            rebuild,
            state: watch::Sender::new(job),
            cancel: watch::Sender::new(false),
            because: OnceLock::new(),
            carried: Mutex::new(false),
            awaited: AtomicUsize::new(0),
            changed: changed.clone(),
            store: store.clone(),
        })
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whether it is built even if the package is held or a trusted peer has it.
    #[must_use]
    pub fn rebuild(&self) -> bool {
        self.rebuild
    }

    /// As it is now.
    #[must_use]
    pub fn now(&self) -> Job {
        self.state.borrow().clone()
    }

    /// Follows it.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Job> {
        self.state.subscribe()
    }

    /// Its user no longer wants it. One that nobody carries yet has ended with this. Blocking.
    pub fn cancel(&self) {
        self.cancel.send_replace(true);
        // Held until the end is written: nobody begins to carry it meanwhile.
        let carried = self.carried.lock().unwrap_or_else(PoisonError::into_inner);
        if !*carried && !self.now().state.is_final() {
            self.keep(|job| {
                job.state = JobState::Cancelled;
                job.reason = self.cancelled_because();
                job.ended_at = Some(now_s());
            });
        }
    }

    /// The same for another reason than its user's word. Blocking.
    pub fn cancel_because(&self, why: String) {
        // The first reason is the one.
        let _second = self.because.set(why);
        self.cancel();
    }

    /// Why it was cancelled, when it was not its user who did it.
    #[must_use]
    pub fn cancelled_because(&self) -> Option<String> {
        self.because.get().cloned()
    }

    /// Another job waits for it, as long as the answer lives.
    #[must_use]
    pub fn awaited(self: &Arc<Self>) -> Awaited {
        self.awaited.fetch_add(1, Ordering::Relaxed);
        Awaited(Arc::clone(self))
    }

    /// Takes it upon oneself to carry it through; false when it has ended, or another does.
    #[must_use]
    pub fn carry(&self) -> bool {
        let mut carried = self.carried.lock().unwrap_or_else(PoisonError::into_inner);
        let free = !*carried && !self.now().state.is_final();
        *carried |= free;
        free
    }

    /// True once the user no longer wants it.
    #[must_use]
    pub fn cancelled(&self) -> watch::Receiver<bool> {
        self.cancel.subscribe()
    }

    /// For blocking work of it: set once the user no longer wants it, or the daemon stops.
    pub(crate) fn stop(&self, stopping: &CancellationToken) -> Stop {
        Stop::when(self.cancelled(), stopping)
    }

    /// Waits for its end.
    ///
    /// Cancel safe: yes.
    pub async fn end(&self) -> Job {
        let mut watched = self.watch();
        match watched.wait_for(|job| job.state.is_final()).await {
            Ok(job) => job.clone(),
            // The sender lives as long as this entry.
            Err(_closed) => self.now(),
        }
    }

    /// Tells of something that is done otherwise than it was foreseen, and why: one line.
    pub fn tell(&self, line: String) {
        tracing::info!(job = self.id, line, "otherwise than foreseen");
        self.show(|job| {
            if job.told.len() < TOLD_MAX && job.told.last() != Some(&line) {
                job.told.push(line);
            }
        });
    }

    /// Changes what watchers see, without writing it.
    pub fn show(&self, change: impl FnOnce(&mut Job)) {
        self.state.send_modify(change);
        self.changed.send_modify(|count| *count += 1);
    }

    /// Changes its state and writes it. Blocking.
    pub fn keep(&self, change: impl FnOnce(&mut Job)) {
        self.show(change);
        if let Err(error) = write(&self.store, &self.now(), self.rebuild) {
            // The work is not lost by it: a restart does it again.
            tracing::error!(job = self.id, %error, "cannot keep the state of a job");
        }
    }
}

/// A job waits for another one, which it began.
#[derive(Debug)]
pub struct Awaited(Arc<Entry>);

impl Awaited {
    /// What is waited for.
    #[must_use]
    pub fn entry(&self) -> &Arc<Entry> {
        &self.0
    }

    /// Whether no other job waits for it.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.0.awaited.load(Ordering::Relaxed) == 1
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.0.awaited.fetch_sub(1, Ordering::Relaxed);
    }
}

fn write(store: &Store, job: &Job, rebuild: bool) -> Result<(), RowError> {
    let row = Row { v: VERSION, job: Job { log_tail: Vec::new(), ..job.clone() }, rebuild };
    let value = serde_ipld_dagcbor::to_vec(&row).expect("text and numbers always have a DAG-CBOR form");
    store.put_row(RowTable::Jobs, &job.id.to_be_bytes(), &value)
}

/// What a new job would make.
#[derive(Clone, Copy, Debug)]
pub struct WantedJob<'a> {
    /// Of the recipe.
    pub fingerprint: &'a Digest,
    /// `category/name-version`.
    pub cpv: &'a str,
    /// The ebuild repository.
    pub repo: &'a str,
    /// Built even if the package is held.
    pub rebuild: bool,
    /// Where it is to be built, as [`Job::on`] has it.
    pub on: Option<&'a str>,
    /// The machine it is for, when that is another one.
    pub client: Option<PeerId>,
    /// What people call that machine.
    pub client_name: Option<&'a str>,
}

/// All jobs of this machine.
#[derive(Debug)]
pub struct Jobs {
    store: Store,
    dir: PathBuf,
    table: Mutex<Table>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Table {
    entries: BTreeMap<u64, Arc<Entry>>,
    next: u64,
}

impl Jobs {
    /// Reads what is kept. Blocking.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn open(store: &Store, dir: &Path) -> Result<Self, IndexError> {
        let changed = watch::Sender::new(0);
        let mut table = Table { next: 1, ..Table::default() };
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = store.rows(RowTable::Jobs, b"", after.as_deref(), usize::MAX)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            for (key, value) in page {
                let row = serde_ipld_dagcbor::from_slice(&value).ok().filter(|row: &Row| row.v == VERSION);
                let Some(Row { job, rebuild, .. }) = row else {
                    tracing::warn!(?key, "a job's row cannot be read and is passed over");
                    continue;
                };
                table.next = table.next.max(job.id.saturating_add(1));
                let job = if job.state.is_final() { job } else { waiting_again(job) };
                table.entries.insert(job.id, Entry::new(job, rebuild, store, &changed));
            }
        }
        Ok(Self { store: store.clone(), dir: dir.to_owned(), table: Mutex::new(table), changed })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a job keeps its log and, while it runs, its work.
    #[must_use]
    pub fn dir_of(&self, id: u64) -> PathBuf {
        self.dir.join(id.to_string())
    }

    /// Where all jobs are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where a job's log is.
    #[must_use]
    pub fn log_of(&self, id: u64) -> PathBuf {
        self.dir_of(id).join("log")
    }

    /// By number.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<Arc<Entry>> {
        self.table().entries.get(&id).cloned()
    }

    /// The newest first.
    #[must_use]
    pub fn list(&self, max: usize) -> Vec<Job> {
        self.table().entries.values().rev().take(max).map(|entry| entry.now()).collect()
    }

    /// Jobs that are not ended, oldest first.
    #[must_use]
    pub fn open_ones(&self) -> Vec<Arc<Entry>> {
        let open = |entry: &&Arc<Entry>| !entry.state.borrow().state.is_final();
        self.table().entries.values().filter(open).cloned().collect()
    }

    /// The jobs that make this now, oldest first: at most one for this machine and one for each client.
    #[must_use]
    pub fn open_of(&self, fingerprint: &Digest) -> Vec<Arc<Entry>> {
        let fingerprint = fingerprint.to_string();
        let makes = |entry: &&Arc<Entry>| {
            let job = entry.state.borrow();
            !job.state.is_final() && job.fingerprint == fingerprint
        };
        self.table().entries.values().filter(makes).cloned().collect()
    }

    /// Changes whenever any job does.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The job that makes this, joined or new; true when it is new, so that the caller runs it. Blocking.
    ///
    /// # Errors
    /// When too many wait, or it cannot be kept.
    pub fn join(&self, wanted: &WantedJob<'_>) -> Result<(Arc<Entry>, bool), JobError> {
        let WantedJob { fingerprint, cpv, repo, rebuild, on, client, client_name } = wanted;
        let (fingerprint, rebuild) = (fingerprint.to_string(), *rebuild);
        let for_whom = client.map(|client| client.to_string());
        let mut table = self.table();
        let mut open = 0;
        for entry in table.entries.values() {
            let job = entry.state.borrow();
            if !job.state.is_final() {
                open += 1;
                // What is made for one machine is nobody else's.
                if job.fingerprint == fingerprint && job.client == for_whom {
                    return Ok((Arc::clone(entry), false));
                }
            }
        }
        if open >= OPEN_MAX {
            return Err(JobError::TooMany);
        }
        let id = table.next;
        table.next += 1;
        let job = Job {
            cpv: (*cpv).to_owned(),
            repo: (*repo).to_owned(),
            fingerprint,
            on: on.map(str::to_owned),
            client: for_whom,
            client_name: client_name.map(str::to_owned),
            log_path: self.log_of(id).display().to_string(),
            ..queued(id)
        };
        write(&self.store, &job, rebuild)?;
        let entry = Entry::new(job, rebuild, &self.store, &self.changed);
        table.entries.insert(id, Arc::clone(&entry));
        drop(table);
        self.changed.send_modify(|count| *count += 1);
        Ok((entry, true))
    }

    /// Forgets the oldest of those that ended, as far as there are too many; answers their numbers, whose directories may go. Blocking.
    pub fn forget_old(&self) -> Vec<u64> {
        let mut table = self.table();
        let ended: Vec<u64> = table
            .entries
            .values()
            .filter(|entry| entry.state.borrow().state.is_final())
            .map(|entry| entry.id)
            .collect();
        let gone: Vec<u64> = ended.iter().take(ended.len().saturating_sub(ENDED_MAX)).copied().collect();
        for id in &gone {
            table.entries.remove(id);
            if let Err(error) = self.store.delete_row(RowTable::Jobs, &id.to_be_bytes()) {
                tracing::warn!(job = id, %error, "an old job cannot be forgotten");
            }
        }
        gone
    }
}

/// A job of which nothing was done yet.
pub(crate) fn queued(id: u64) -> Job {
    Job {
        id,
        cpv: String::new(),
        repo: String::new(),
        fingerprint: String::new(),
        state: JobState::Queued,
        phase: "wait".to_owned(),
        reason: None,
        source: None,
        builder: None,
        builder_name: None,
        on: None,
        client: None,
        client_name: None,
        tried: Vec::new(),
        attempt: 0,
        created_at: now_s(),
        started_at: None,
        ended_at: None,
        digest: None,
        image: None,
        size: None,
        log_bytes: 0,
        log_path: String::new(),
        cpu_ms: None,
        memory_peak_bytes: None,
        log_tail: Vec::new(),
        told: Vec::new(),
    }
}

/// A job that was not ended when the daemon stopped: nothing of it runs any more.
fn waiting_again(job: Job) -> Job {
    Job {
        state: JobState::Queued,
        phase: "wait".to_owned(),
        reason: Some("the daemon was restarted: it is planned again".to_owned()),
        source: None,
        builder: None,
        builder_name: None,
        started_at: None,
        ..job
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::Options;

    fn wanted<'a>(fingerprint: &'a Digest, cpv: &'a str) -> WantedJob<'a> {
        WantedJob { fingerprint, cpv, repo: "gentoo", rebuild: false, on: None, client: None, client_name: None }
    }

    #[test]
    fn one_fingerprint_is_one_job_until_it_ended() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store"), Options::default()).unwrap();
        let jobs = Jobs::open(&store, &dir.path().join("jobs")).unwrap();
        let (first, new) = jobs.join(&wanted(&Digest::of(b"1"), "a/b-1")).unwrap();
        assert!(new);
        let (again, new) = jobs.join(&wanted(&Digest::of(b"1"), "a/b-1")).unwrap();
        assert!(!new && again.id() == first.id());
        assert!(jobs.join(&wanted(&Digest::of(b"2"), "a/b-1")).unwrap().1);
        first.keep(|job| job.state = JobState::Failed);
        let (later, new) = jobs.join(&wanted(&Digest::of(b"1"), "a/b-1")).unwrap();
        assert!(new && later.id() > first.id());
    }

    #[test]
    fn each_machine_has_a_job_of_its_own_for_the_same_recipe() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store"), Options::default()).unwrap();
        let jobs = Jobs::open(&store, &dir.path().join("jobs")).unwrap();
        let fingerprint = Digest::of(b"1");
        let (one, other) = (PeerId::random(), PeerId::random());
        let whose = [None, Some(one), Some(other)];
        let join = |client| jobs.join(&WantedJob { client, ..wanted(&fingerprint, "a/b-1") }).unwrap();
        let begun = whose.map(join);
        assert!(begun.iter().all(|(_, new)| *new));
        for ((entry, _), client) in begun.iter().zip(whose) {
            let (joined, new) = join(client);
            assert!(
                !new && joined.id() == entry.id() && joined.now().client == client.map(|client| client.to_string())
            );
        }
        assert_eq!(jobs.open_of(&fingerprint).len(), 3);
    }

    #[test]
    fn jobs_and_numbers_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store"), Options::default()).unwrap();
        let jobs = Jobs::open(&store, dir.path()).unwrap();
        let (one, _) = jobs.join(&wanted(&Digest::of(b"1"), "a/b-1")).unwrap();
        let (two, _) = jobs.join(&wanted(&Digest::of(b"2"), "a/c-1")).unwrap();
        one.keep(|job| job.state = JobState::Done);
        two.keep(|job| job.state = JobState::Running);
        let again = Jobs::open(&store, dir.path()).unwrap();
        assert_eq!(
            again.list(10).iter().map(|job| (job.id, job.state)).collect::<Vec<_>>(),
            [(2, JobState::Queued), (1, JobState::Done)],
            "nothing runs before it is begun again"
        );
        assert_eq!(again.open_ones().len(), 1);
        assert_eq!(again.join(&wanted(&Digest::of(b"3"), "a/d-1")).unwrap().0.id(), 3);
    }

    #[test]
    fn what_nobody_carries_yet_ends_with_its_cancel_and_is_carried_by_nobody_later() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store"), Options::default()).unwrap();
        let jobs = Jobs::open(&store, dir.path()).unwrap();
        let [queued, carried] = [b"1", b"2"].map(|name| jobs.join(&wanted(&Digest::of(name), "a/b-1")).unwrap().0);
        assert!(carried.carry() && !carried.carry(), "one carries it");
        queued.cancel();
        carried.cancel_because("it was lost".to_owned());
        assert_eq!(queued.now().state, JobState::Cancelled);
        assert!(queued.now().ended_at.is_some() && !queued.carry());
        assert_eq!(carried.now().state, JobState::Queued, "who carries it writes the end");
        assert!(*carried.cancelled().borrow());
        assert_eq!(carried.cancelled_because().as_deref(), Some("it was lost"));
        let again = Jobs::open(&store, dir.path()).unwrap();
        assert_eq!(again.open_ones().iter().map(|entry| entry.id()).collect::<Vec<_>>(), [carried.id()]);
    }
}
