//! The ebuild repositories and the catalog made of them: refreshed by comparing stamps, so that nothing is read that
//! did not change.

use crate::api;
use crate::config::Config;
use crate::stats::now_s;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};
use store::{Catalog, CatalogEntry, CatalogUri, PackageEntries, Store};
use tokio_util::sync::CancellationToken;
use tree::conf::ReposConf;
use tree::cpv::Cp;
use tree::digest::Hasher;
use tree::mdcache::MdEntry;
use tree::repo::{EbuildRepo, Package, Stamp};
use tree::thirdparty::ThirdPartyMirrors;
use tree::uri::Exempt;

/// Packages read and written in one go: bounds memory, and one batch is one write of the index.
const BATCH_PACKAGES: usize = 64;
/// Threads that read packages.
const THREADS_MAX: usize = 8;
/// The licence group whose members forbid to hand a distfile on.
const FORBIDDING_GROUP: &str = "EULA";
/// A refresh asked for by a request that names something unknown happens at most this often.
const EAGER_REFRESH: Duration = Duration::from_secs(5);
/// Such a request waits this long for a refresh under way, and is then answered from what is known.
const EAGER_WAIT: Duration = Duration::from_millis(800);

/// Where metadata comes from for ebuilds that have no md5-cache entry: real Portage, when it is here.
pub trait AskMetadata: Send + Sync + std::fmt::Debug {
    /// Metadata of the ebuilds (PF) of packages of the repository at `repo`; what Portage does not know is left out. None
    /// when there was no answer at all, so that it is asked again.
    fn ask(&self, repo: &Path, ebuilds: &[(Cp, Vec<String>)]) -> Option<BTreeMap<Cp, BTreeMap<String, MdEntry>>>;
}

/// The repositories of this node, in the order of their priority, foremost first.
#[derive(Debug)]
pub struct Repositories {
    config: Config,
    state: RwLock<Arc<Vec<api::Repository>>>,
    thirdparty: RwLock<ThirdPartyMirrors>,
    turns: Mutex<Turns>,
    turn_ended: Condvar,
    metadata: Option<Arc<dyn AskMetadata>>,
    stopping: CancellationToken,
}

/// Who refreshes now, and when that was last done.
#[derive(Debug, Default)]
struct Turns {
    running: bool,
    last: Option<Instant>,
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
            thirdparty: RwLock::default(),
            turns: Mutex::default(),
            turn_ended: Condvar::new(),
            metadata,
            stopping,
        }
    }

    /// What is known of each repository.
    #[must_use]
    pub fn list(&self) -> Arc<Vec<api::Repository>> {
        Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The hosts behind `mirror://`, of all repositories.
    #[must_use]
    pub fn thirdparty(&self) -> ThirdPartyMirrors {
        self.thirdparty.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// True once they have been read.
    #[must_use]
    pub fn are_read(&self) -> bool {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner).last.is_some()
    }

    /// Opens every repository, foremost first. A repository that cannot be opened is reported, not skipped silently.
    fn open(&self) -> (Vec<Tree>, Vec<api::Repository>) {
        let (mut opened, mut broken) = (Vec::new(), Vec::new());
        let mut report = |path: &Path, problem: String| {
            tracing::warn!(path = %path.display(), problem, "cannot read a repository");
            broken.push(api::Repository {
                name: path.file_name().map_or_else(|| "?".to_owned(), |name| name.to_string_lossy().into_owned()),
                path: path.display().to_string(),
                packages: 0,
                refreshed: now_s(),
                problem: Some(problem),
            });
        };
        let paths = match self.paths() {
            Ok(paths) => paths,
            Err(problem) => {
                report(&self.config.config_root.join("etc/portage/repos.conf"), problem);
                Vec::new()
            }
        };
        for path in paths {
            match EbuildRepo::open(&path) {
                // Two of one name would take each other's rows away at every refresh.
                Ok(repo) if opened.iter().any(|other: &EbuildRepo| other.name() == repo.name()) => {
                    report(&path, format!("another repository is called {} too", repo.name()));
                }
                Ok(repo) => opened.push(repo),
                Err(error) => report(&path, error.to_string()),
            }
        }
        let all_opened = broken.is_empty();
        let roots: Vec<PathBuf> = opened.iter().map(|repo| repo.path().to_owned()).collect();
        let opened = opened.into_iter().map(|repo| repo.beside(roots.clone())).collect();
        (with_masters(opened, all_opened), broken)
    }

    fn paths(&self) -> Result<Vec<PathBuf>, String> {
        if let Some(repos) = &self.config.repos {
            return Ok(repos.clone());
        }
        let conf = ReposConf::load(&self.config.config_root).map_err(|error| error.to_string())?;
        // repos.conf lists the lowest priority first; here the foremost comes first.
        Ok(conf.repos.iter().rev().map(|repo| repo.location.clone()).collect())
    }

    /// Sorts catalog rows: those of the foremost repository first.
    #[must_use]
    pub fn in_order(&self, mut entries: Vec<CatalogEntry>) -> Vec<CatalogEntry> {
        let repositories = self.list();
        let rank = |name: &str| repositories.iter().position(|repo| repo.name == name).unwrap_or(usize::MAX);
        entries.sort_by_key(|entry| rank(&entry.repo));
        entries
    }

    /// For a request that names something unknown: waits a moment for a refresh under way, or refreshes unless that was
    /// done a moment ago. Blocking.
    pub fn refresh_eagerly(&self, store: &Store) -> Refreshed {
        let turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.turn_ended.wait_timeout_while(turns, EAGER_WAIT, |turns| turns.running);
        let (mut turns, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if turns.running || turns.last.is_some_and(|at| at.elapsed() < EAGER_REFRESH) {
            return Refreshed::default();
        }
        turns.running = true;
        drop(turns);
        self.run(store)
    }

    /// Compares every repository with the catalog and reads what is new or changed. Blocking; one at a time.
    pub fn refresh(&self, store: &Store) -> Refreshed {
        let turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.turn_ended.wait_while(turns, |turns| turns.running);
        waited.unwrap_or_else(PoisonError::into_inner).running = true;
        self.run(store)
    }

    /// The refresh itself, by whoever has the turn.
    fn run(&self, store: &Store) -> Refreshed {
        let (repos, broken) = self.open();
        let mut thirdparty = ThirdPartyMirrors::default();
        let mut done = Refreshed::default();
        let mut list = Vec::new();
        for tree in &repos {
            thirdparty.merge(tree.repo.thirdparty());
            list.push(self.refresh_one(tree, store.catalog(), &mut done));
        }
        if broken.is_empty() {
            // Only when all could be opened is a repository that is not there known to be gone.
            forget_others(store.catalog(), &list, &mut done);
        }
        list.extend(broken);
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(list);
        *self.thirdparty.write().unwrap_or_else(PoisonError::into_inner) = thirdparty;
        *self.turns.lock().unwrap_or_else(PoisonError::into_inner) =
            Turns { running: false, last: Some(Instant::now()) };
        self.turn_ended.notify_all();
        if done.changed() {
            tracing::info!(read = done.read, removed = done.removed, "repositories refreshed");
        }
        done
    }

    fn refresh_one(&self, tree: &Tree, catalog: &Catalog, done: &mut Refreshed) -> api::Repository {
        let repo = &tree.repo;
        let mut row = api::Repository {
            name: repo.name().to_string(),
            path: repo.path().display().to_string(),
            packages: 0,
            refreshed: now_s(),
            problem: None,
        };
        let result = self.compare(tree, catalog, done);
        match result {
            Ok(packages) => row.packages = packages,
            Err(problem) => {
                tracing::warn!(repository = row.name, problem, "cannot refresh a repository");
                row.problem = Some(problem);
            }
        }
        row
    }

    fn compare(&self, tree: &Tree, catalog: &Catalog, done: &mut Refreshed) -> Result<usize, String> {
        let name = tree.repo.name().to_string();
        let mut known = catalog.stamps(&name);
        let scanned = tree.repo.scan().map_err(|error| error.to_string())?;
        let packages = scanned.len();
        let changed: Vec<(Cp, Stamp)> = scanned
            .into_iter()
            .map(|(cp, stamp)| (cp, tree.stamp(stamp)))
            .filter(|(cp, stamp)| known.remove(&cp.to_string()) != Some(stamp.0))
            .collect();
        for batch in changed.chunks(BATCH_PACKAGES) {
            if self.stopping.is_cancelled() {
                return Err("the daemon is stopping".to_owned());
            }
            let rows = self.read_batch(tree, batch);
            let borrowed: Vec<_> = rows.iter().map(Rows::borrowed).collect();
            catalog.replace_packages(&name, &borrowed).map_err(|error| error.to_string())?;
            done.read += rows.len();
        }
        for package in gone(known) {
            catalog.remove_package(&name, &package).map_err(|error| error.to_string())?;
            done.removed += 1;
        }
        Ok(packages)
    }

    /// Reads packages, and asks Portage once for all the metadata that no md5-cache has.
    fn read_batch(&self, tree: &Tree, batch: &[(Cp, Stamp)]) -> Vec<Rows> {
        let repo = &tree.repo;
        let mut packages = read_packages(repo, batch);
        let lacking: Vec<(Cp, Vec<String>)> = packages
            .iter()
            .filter(|(package, _)| !package.without_metadata.is_empty())
            .map(|(package, _)| (package.cp.clone(), package.without_metadata.clone()))
            .collect();
        if let Some(metadata) = self.metadata.as_ref().filter(|_| !lacking.is_empty()) {
            let Some(answers) = metadata.ask(repo.path(), &lacking) else {
                // Left out, they keep no stamp, so the next refresh asks again.
                packages.retain(|(package, _)| package.without_metadata.is_empty());
                return packages.iter().map(|(package, stamp)| rows(tree, package, *stamp)).collect();
            };
            for (package, _) in &mut packages {
                let Some(given) = answers.get(&package.cp) else { continue };
                match repo.package_with(&package.cp, given) {
                    Ok(whole) => *package = whole,
                    Err(error) => tracing::warn!(package = %package.cp, %error, "cannot read a package"),
                }
            }
        }
        packages.iter().map(|(package, stamp)| rows(tree, package, *stamp)).collect()
    }
}

/// Reads packages on as many threads as there are cores: a first index is bound by parsing.
fn read_packages(repo: &EbuildRepo, batch: &[(Cp, Stamp)]) -> Vec<(Package, Stamp)> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(THREADS_MAX);
    let share = batch.len().div_ceil(threads).max(1);
    let read_part = |part: &[(Cp, Stamp)]| -> Vec<(Package, Stamp)> {
        part.iter().filter_map(|(cp, stamp)| Some((read_package(repo, cp)?, *stamp))).collect()
    };
    if batch.len() < threads {
        return read_part(batch);
    }
    std::thread::scope(|scope| {
        let workers: Vec<_> = batch.chunks(share).map(|part| scope.spawn(move || read_part(part))).collect();
        // A worker that panicked has a bug the caller shall see.
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

/// None for a package that cannot be read: it then keeps no stamp, so the next refresh tries again.
fn read_package(repo: &EbuildRepo, cp: &Cp) -> Option<Package> {
    match repo.package(cp) {
        Ok(package) => Some(package),
        Err(error) => {
            tracing::warn!(repository = %repo.name(), package = %cp, %error, "cannot read a package");
            None
        }
    }
}

/// All catalog rows of one package.
struct Rows {
    package: String,
    stamp: [u8; 16],
    entries: Vec<CatalogEntry>,
}

impl Rows {
    fn borrowed(&self) -> PackageEntries<'_> {
        PackageEntries { package: &self.package, stamp: self.stamp, entries: &self.entries }
    }
}

fn rows(tree: &Tree, package: &Package, stamp: Stamp) -> Rows {
    let repo = &tree.repo;
    for problem in &package.problems {
        tracing::debug!(repository = %repo.name(), package = %package.cp, problem, "part of a package was left out");
    }
    let entries = package.entries.iter().map(|entry| row(tree, &package.cp, entry)).collect();
    Rows { package: package.cp.to_string(), stamp: stamp.0, entries }
}

/// One repository at one moment, with what it has of its masters.
struct Tree {
    repo: EbuildRepo,
    /// False when a master could not be read: its licence groups, which forbid, are then not known, so nothing of this
    /// repository is announced.
    complete: bool,
}

impl Tree {
    /// The stamp of a package, with all that decides about it beside its own files: when a master appears, or a licence
    /// becomes one that forbids, every package is read again.
    fn stamp(&self, stamp: Stamp) -> Stamp {
        let mut rules = Hasher::new(false);
        rules.update(&[u8::from(self.complete)]);
        for licence in self.repo.license_groups().members(FORBIDDING_GROUP) {
            rules.update(licence.as_bytes());
            rules.update(b" ");
        }
        let (rules, _) = rules.finish();
        let mut mixed = stamp.0;
        mixed.iter_mut().zip(rules.as_bytes()).for_each(|(byte, rule)| *byte ^= rule);
        Stamp(mixed)
    }
}

/// A repository has the licence groups and mirrors of its masters beside its own. One that does not say who they are has
/// the main repository, which is the hindmost, as Portage takes it.
fn with_masters(repos: Vec<EbuildRepo>, all_opened: bool) -> Vec<Tree> {
    let inherit = |mut repo: EbuildRepo| {
        let named = |other: &&EbuildRepo| repo.masters().contains(other.name());
        let (masters, complete): (Vec<&EbuildRepo>, bool) = if repo.says_masters() {
            let masters: Vec<_> = repos.iter().filter(named).collect();
            let complete = masters.len() >= repo.masters().len();
            (masters, complete)
        } else {
            (repos.last().into_iter().collect(), all_opened)
        };
        let own = repo.name().clone();
        for master in masters.into_iter().filter(|master| *master.name() != own) {
            repo.inherit(master);
        }
        Tree { repo, complete }
    };
    repos.iter().cloned().map(inherit).collect()
}

fn gone(known: HashMap<String, [u8; 16]>) -> Vec<String> {
    let mut packages: Vec<_> = known.into_keys().collect();
    packages.sort_unstable();
    packages
}

fn forget_others(catalog: &Catalog, here: &[api::Repository], done: &mut Refreshed) {
    let known = catalog.repos();
    for name in known.iter().filter(|name| !here.iter().any(|repo| &repo.name == *name)) {
        match catalog.remove_repo(name) {
            Ok(_rows) => done.removed += 1,
            Err(error) => tracing::warn!(repository = name, %error, "cannot forget a repository"),
        }
    }
}

fn row(tree: &Tree, cp: &Cp, entry: &tree::repo::PackageDistfile) -> CatalogEntry {
    let uri = |source: &tree::uri::SrcEntry| {
        let exempt = match source.exempt {
            Exempt::None => 0,
            Exempt::Fetch => 1,
            Exempt::Mirror => 2,
        };
        source.uri.clone().map(|uri| CatalogUri { uri, exempt })
    };
    CatalogEntry {
        digest: entry.distfile.blake2b,
        size: entry.distfile.size,
        sha512: entry.distfile.sha512,
        name: entry.distfile.name.to_string(),
        repo: tree.repo.name().to_string(),
        package: cp.to_string(),
        uris: entry.sources.iter().filter_map(uri).collect(),
        may_mirror: entry.sharing.mirror,
        may_fetch: entry.sharing.fetch,
        may_announce: entry.sharing.announce && tree.complete,
        ebuilds: entry.ebuilds.clone(),
    }
}
