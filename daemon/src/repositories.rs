//! The ebuild repositories and the catalog made of them: refreshed by comparing stamps, so that nothing is read that
//! did not change.
//!
//! A look has two passes. The first reads what lies on the disk. The second asks Portage for the metadata that no md5-cache
//! has, ebuild by ebuild, which may take minutes: nobody waits for it, and what the first pass found is served meanwhile.

mod opened;
mod passes;
mod reading;

use crate::api;
use crate::config::Config;
use crate::stats::now_s;
use opened::{Opened, Tree};
use passes::{Passes, Telling, Work};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};
use store::{Catalog, CatalogEntry, Store};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tree::cpv::Cp;
use tree::mdcache::MdEntry;
use tree::repo::EbuildRepo;
use tree::thirdparty::ThirdPartyMirrors;

/// A refresh asked for by a request that names something unknown happens at most this often.
const EAGER_REFRESH: Duration = Duration::from_secs(5);
/// And takes at most this part of the time, 1 in 50: anybody may name what is unknown.
const EAGER_SHARE: u32 = 50;
/// Requests wait for a refresh until it is this old, all together: emerge asks for one file after the other.
const EAGER_WAIT: Duration = Duration::from_millis(800);

/// Where metadata comes from for ebuilds that have no md5-cache entry of theirs: real Portage, when it is here.
pub trait AskMetadata: Send + Sync + std::fmt::Debug {
    /// Metadata of the ebuilds (PF) of packages of the repository at `repo`; what Portage does not know is left out.
    ///
    /// # Errors
    /// When there is no answer at all, so that it is asked again later; why.
    fn ask(
        &self,
        repo: &Path,
        ebuilds: &[(Cp, Vec<String>)],
    ) -> Result<BTreeMap<Cp, BTreeMap<String, MdEntry>>, String>;
}

/// The repositories of this node, in the order of their priority, foremost first.
#[derive(Debug)]
pub struct Repositories {
    config: Config,
    state: RwLock<Arc<Vec<api::Repository>>>,
    trees: RwLock<Arc<Vec<EbuildRepo>>>,
    left_out: RwLock<Arc<Vec<String>>>,
    thirdparty: RwLock<ThirdPartyMirrors>,
    turns: Mutex<Turns>,
    turn_ended: Condvar,
    metadata: Option<Arc<dyn AskMetadata>>,
    stopping: CancellationToken,
    look: watch::Sender<Option<api::Look>>,
    first: watch::Sender<bool>,
}

/// Who refreshes now, and when that was begun and last done.
#[derive(Debug, Default)]
struct Turns {
    running: bool,
    began: Option<Instant>,
    last: Option<Instant>,
    /// How long the last one took, if it changed nothing.
    took: Duration,
}

/// What a refresh did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refreshed {
    /// Packages read because they are new or changed.
    pub read: usize,
    /// Packages that are gone.
    pub removed: usize,
}

impl Refreshed {
    /// True when the catalog is another than before.
    #[must_use]
    pub fn changed(self) -> bool {
        self != Self::default()
    }
}

impl Repositories {
    /// None read yet.
    #[must_use]
    pub fn new(config: Config, metadata: Option<Arc<dyn AskMetadata>>, stopping: CancellationToken) -> Self {
        Self {
            config,
            state: RwLock::default(),
            trees: RwLock::default(),
            left_out: RwLock::default(),
            thirdparty: RwLock::default(),
            turns: Mutex::default(),
            turn_ended: Condvar::new(),
            metadata,
            stopping,
            look: watch::Sender::new(None),
            first: watch::Sender::new(false),
        }
    }

    /// What is known of each repository.
    #[must_use]
    pub fn list(&self) -> Arc<Vec<api::Repository>> {
        Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Those that can be read, as they were at the last look, foremost first.
    #[must_use]
    pub fn opened(&self) -> Arc<Vec<EbuildRepo>> {
        Arc::clone(&self.trees.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the configuration has that Portage passes over, one sentence each.
    #[must_use]
    pub fn left_out(&self) -> Arc<Vec<String>> {
        Arc::clone(&self.left_out.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The hosts behind `mirror://`, of all repositories.
    #[must_use]
    pub fn thirdparty(&self) -> ThirdPartyMirrors {
        self.thirdparty.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// True once they have been read.
    #[must_use]
    pub fn are_read(&self) -> bool {
        *self.first.borrow()
    }

    /// How far the look is that is under way; changes while it goes on.
    #[must_use]
    pub fn looking(&self) -> watch::Receiver<Option<api::Look>> {
        self.look.subscribe()
    }

    /// Until they have been read for the first time.
    ///
    /// Cancel safe: yes.
    pub async fn first_look(&self) {
        let mut first = self.first.subscribe();
        // The sender lives as long as this.
        let _seen = first.wait_for(|done| *done).await;
    }

    /// Sorts catalog rows: those of the foremost repository first.
    #[must_use]
    pub fn in_order(&self, mut entries: Vec<CatalogEntry>) -> Vec<CatalogEntry> {
        let repositories = self.list();
        let rank = |name: &str| repositories.iter().position(|repo| repo.name == name).unwrap_or(usize::MAX);
        entries.sort_by_key(|entry| rank(&entry.repo));
        entries
    }

    /// Opens them without reading their packages. Blocking.
    pub fn find(&self, store: &Store) {
        drop(self.open(store));
    }

    /// For a request that names something unknown: takes the turn, unless a refresh is under way or was done a moment ago.
    /// Who got it must call [`Repositories::run`].
    #[must_use]
    pub fn claim_eagerly(&self) -> bool {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = EAGER_REFRESH.max(turns.took.saturating_mul(EAGER_SHARE));
        if turns.running || turns.last.is_some_and(|at| at.elapsed() < pause) {
            return false;
        }
        (turns.running, turns.began) = (true, Some(Instant::now()));
        true
    }

    /// Waits for the refresh under way, until that is 800 ms old. Blocking.
    pub fn wait_a_moment(&self) {
        let turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let left = turns.began.map_or(Duration::ZERO, |began| EAGER_WAIT.saturating_sub(began.elapsed()));
        drop(self.turn_ended.wait_timeout_while(turns, left, |turns| turns.running));
    }

    /// Compares every repository with the catalog and reads what is new or changed. `follow` hears of it after each step:
    /// when the repositories are opened, and after each pass. Blocking; one at a time.
    pub fn refresh(&self, store: &Store, follow: impl Fn(Refreshed)) -> Refreshed {
        let turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.turn_ended.wait_while(turns, |turns| turns.running);
        let mut turns = waited.unwrap_or_else(PoisonError::into_inner);
        (turns.running, turns.began) = (true, Some(Instant::now()));
        drop(turns);
        self.run(store, follow)
    }

    /// The refresh itself, by whoever has the turn.
    pub fn run(&self, store: &Store, follow: impl Fn(Refreshed)) -> Refreshed {
        let _turn = Turn(self);
        let opened = self.open(store);
        follow(Refreshed::default());
        let passes = Passes {
            metadata: self.metadata.as_ref(),
            stopping: &self.stopping,
            catalog: store.catalog(),
            telling: Telling::new(self, now_s()),
        };
        let mut work: Vec<Work<'_>> = opened.trees.iter().map(Work::new).collect();
        let (mut first, mut second) = (Refreshed::default(), Refreshed::default());
        for one in &mut work {
            one.attempt(|one| passes.compare(one, &mut first));
        }
        if opened.broken.is_empty() && !self.stopping.is_cancelled() {
            // Only when all could be opened is a repository that is not there known to be gone.
            forget_others(store.catalog(), &work, &mut first);
        }
        self.show(&work, &opened);
        follow(first);
        if work.iter().any(|one| !one.lacking.is_empty()) {
            for one in &mut work {
                one.attempt(|one| passes.ask(one, &mut second));
            }
            self.show(&work, &opened);
            follow(second);
        }
        let done = Refreshed { read: first.read + second.read, removed: first.removed + second.removed };
        self.end(done);
        done
    }

    fn end(&self, done: Refreshed) {
        self.look.send_replace(None);
        // A daemon that stops has not read them.
        self.first.send_if_modified(|first| !std::mem::replace(first, *first || !self.stopping.is_cancelled()));
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        // Reading what changed is no reason to look more rarely.
        let quiet = turns.began.filter(|_| !done.changed());
        turns.took = quiet.map_or(Duration::ZERO, |began| began.elapsed());
        drop(turns);
        if done.changed() {
            tracing::info!(read = done.read, removed = done.removed, "repositories refreshed");
        }
    }

    /// Opens every repository and shows what there is. What is wrong is logged when it is new.
    fn open(&self, store: &Store) -> Opened {
        let opened = Opened::now(&self.config);
        let mut thirdparty = ThirdPartyMirrors::default();
        opened.trees.iter().for_each(|tree| thirdparty.merge(tree.repo.thirdparty()));
        *self.thirdparty.write().unwrap_or_else(PoisonError::into_inner) = thirdparty;
        let left_out: Vec<String> = opened.left_out.iter().map(ToString::to_string).collect();
        let mut known = self.left_out.write().unwrap_or_else(PoisonError::into_inner);
        for problem in left_out.iter().filter(|problem| !known.contains(problem)) {
            tracing::warn!(problem, "part of the configuration of the repositories is passed over");
        }
        *known = Arc::new(left_out);
        drop(known);
        let before = self.list();
        for broken in &opened.broken {
            if !before.iter().any(|repo| repo.problem.as_ref() == Some(&broken.problem)) {
                tracing::warn!(path = %broken.path.display(), problem = broken.problem, "cannot read a repository");
            }
        }
        let repos = opened.trees.iter().map(|tree| tree.repo.clone()).collect();
        *self.trees.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(repos);
        let row = |tree: &Tree| {
            let shown = before.iter().find(|repo| repo.name == tree.repo.name().as_str());
            let packages = shown.map(|repo| repo.packages);
            // What the last index knows is served, so it is shown too.
            let packages = packages.unwrap_or_else(|| store.catalog().stamps(tree.repo.name().as_str()).len());
            repository(tree, packages, shown.and_then(|repo| repo.problem.clone()))
        };
        self.set(opened.trees.iter().map(row), &opened);
        opened
    }

    fn show(&self, work: &[Work<'_>], opened: &Opened) {
        let before = self.list();
        for one in work {
            let known = before.iter().find(|repo| repo.name == one.tree.repo.name().as_str());
            if let Some(problem) = &one.problem
                && known.is_none_or(|known| known.problem.as_ref() != Some(problem))
            {
                tracing::warn!(repository = %one.tree.repo.name(), problem, "cannot read all of a repository");
            }
        }
        self.set(work.iter().map(|one| repository(one.tree, one.packages, one.problem.clone())), opened);
    }

    fn set(&self, rows: impl Iterator<Item = api::Repository>, opened: &Opened) {
        let broken = opened.broken.iter().map(|broken| api::Repository {
            name: opened::called(&broken.path),
            path: broken.path.display().to_string(),
            packages: 0,
            refreshed: now_s(),
            problem: Some(broken.problem.clone()),
        });
        let list = Arc::new(rows.chain(broken).collect());
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = list;
    }
}

/// Gives the turn back, even when the refresh ends in a panic: others wait for it.
struct Turn<'a>(&'a Repositories);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut turns = self.0.turns.lock().unwrap_or_else(PoisonError::into_inner);
        (turns.running, turns.last) = (false, Some(Instant::now()));
        drop(turns);
        self.0.turn_ended.notify_all();
    }
}

fn repository(tree: &Tree, packages: usize, problem: Option<String>) -> api::Repository {
    api::Repository {
        name: tree.repo.name().to_string(),
        path: tree.repo.path().display().to_string(),
        packages,
        refreshed: now_s(),
        problem,
    }
}

fn forget_others(catalog: &Catalog, here: &[Work<'_>], done: &mut Refreshed) {
    let known = catalog.repos();
    let is_here = |name: &String| here.iter().any(|one| one.tree.repo.name().as_str() == name);
    for name in known.iter().filter(|name| !is_here(name)) {
        match catalog.remove_repo(name) {
            Ok(_rows) => done.removed += 1,
            Err(error) => tracing::warn!(repository = name, %error, "cannot forget a repository"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, Surroundings};
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[test]
    fn a_refresh_that_panics_gives_its_turn_back() {
        let dir = tempfile::tempdir().unwrap();
        let overrides = Overrides {
            data_dir: Some(dir.path().join("data")),
            config_root: Some(dir.path().to_owned()),
            ..Overrides::default()
        };
        let (config, _) = Config::load(&overrides, &Surroundings::default()).unwrap();
        let store = Store::open(&dir.path().join("store"), store::Options::default()).unwrap();
        let repositories = Repositories::new(config, None, CancellationToken::new());
        let refreshed =
            catch_unwind(AssertUnwindSafe(|| repositories.refresh(&store, |_| panic!("a test's own panic"))));
        assert!(refreshed.is_err());
        assert_eq!(repositories.refresh(&store, |_| {}), Refreshed::default(), "nobody waits for ever");
    }
}
