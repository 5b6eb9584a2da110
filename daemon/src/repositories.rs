//! The ebuild repositories and the catalog made of them: refreshed by comparing stamps, so that nothing is read that
//! did not change.

use crate::api;
use crate::config::Config;
use crate::stats::now_s;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};
use store::{Catalog, CatalogEntry, CatalogUri, PackageEntries, Store};
use tree::conf::ReposConf;
use tree::cpv::Cp;
use tree::mdcache::MdEntry;
use tree::repo::{EbuildRepo, Package, Stamp};
use tree::thirdparty::ThirdPartyMirrors;
use tree::uri::Exempt;

/// Packages read and written in one go: bounds memory, and one batch is one write of the index.
const BATCH_PACKAGES: usize = 64;
/// Threads that read packages.
const THREADS_MAX: usize = 8;
/// A refresh asked for by a request that names something unknown happens at most this often.
const EAGER_REFRESH: Duration = Duration::from_secs(5);

/// Where metadata comes from for ebuilds that have no md5-cache entry: real Portage, when it is here.
pub trait AskMetadata: Send + Sync + std::fmt::Debug {
    /// Metadata of the ebuilds (PF) of packages of the repository at `repo`. What cannot be had is left out.
    fn ask(&self, repo: &Path, ebuilds: &[(Cp, Vec<String>)]) -> BTreeMap<Cp, BTreeMap<String, MdEntry>>;
}

/// The repositories of this node, in the order of their priority, foremost first.
#[derive(Debug)]
pub struct Repositories {
    config: Config,
    state: RwLock<Arc<Vec<api::Repository>>>,
    thirdparty: RwLock<ThirdPartyMirrors>,
    refreshing: Mutex<Option<Instant>>,
    metadata: Option<Arc<dyn AskMetadata>>,
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
    pub fn new(config: Config, metadata: Option<Arc<dyn AskMetadata>>) -> Self {
        Self { config, state: RwLock::default(), thirdparty: RwLock::default(), refreshing: Mutex::default(), metadata }
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
        self.refreshing.try_lock().is_ok_and(|last| last.is_some())
    }

    /// Opens every repository, foremost first. A repository that cannot be opened is reported, not skipped silently.
    #[must_use]
    pub fn open(&self) -> (Vec<EbuildRepo>, Vec<api::Repository>) {
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
                Ok(repo) => opened.push(repo),
                Err(error) => report(&path, error.to_string()),
            }
        }
        inherit(&mut opened);
        (opened, broken)
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

    /// Refreshes unless that was done a moment ago: for a request that names something unknown. Blocking.
    pub fn refresh_eagerly(&self, store: &Store) -> Refreshed {
        let last = *self.refreshing.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|at| at.elapsed() < EAGER_REFRESH) { Refreshed::default() } else { self.refresh(store) }
    }

    /// Compares every repository with the catalog and reads what is new or changed. Blocking; one at a time.
    pub fn refresh(&self, store: &Store) -> Refreshed {
        let mut last = self.refreshing.lock().unwrap_or_else(PoisonError::into_inner);
        let (repos, broken) = self.open();
        let mut thirdparty = ThirdPartyMirrors::default();
        let mut done = Refreshed::default();
        let mut list = Vec::new();
        for repo in &repos {
            thirdparty.merge(repo.thirdparty());
            list.push(self.refresh_one(repo, store.catalog(), &mut done));
        }
        if broken.is_empty() {
            // Only when all could be opened is a repository that is not there known to be gone.
            forget_others(store.catalog(), &list, &mut done);
        }
        list.extend(broken);
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(list);
        *self.thirdparty.write().unwrap_or_else(PoisonError::into_inner) = thirdparty;
        *last = Some(Instant::now());
        if done.changed() {
            tracing::info!(read = done.read, removed = done.removed, "repositories refreshed");
        }
        done
    }

    fn refresh_one(&self, repo: &EbuildRepo, catalog: &Catalog, done: &mut Refreshed) -> api::Repository {
        let mut row = api::Repository {
            name: repo.name().to_string(),
            path: repo.path().display().to_string(),
            packages: 0,
            refreshed: now_s(),
            problem: None,
        };
        let result = self.compare(repo, catalog, done);
        match result {
            Ok(packages) => row.packages = packages,
            Err(problem) => {
                tracing::warn!(repository = row.name, problem, "cannot refresh a repository");
                row.problem = Some(problem);
            }
        }
        row
    }

    fn compare(&self, repo: &EbuildRepo, catalog: &Catalog, done: &mut Refreshed) -> Result<usize, String> {
        let name = repo.name().to_string();
        let mut known = catalog.stamps(&name);
        let scanned = repo.scan().map_err(|error| error.to_string())?;
        let packages = scanned.len();
        let changed: Vec<(Cp, Stamp)> =
            scanned.into_iter().filter(|(cp, stamp)| known.remove(&cp.to_string()) != Some(stamp.0)).collect();
        for batch in changed.chunks(BATCH_PACKAGES) {
            let rows = self.read_batch(repo, batch);
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
    fn read_batch(&self, repo: &EbuildRepo, batch: &[(Cp, Stamp)]) -> Vec<Rows> {
        let mut packages = read_packages(repo, batch);
        let lacking: Vec<(Cp, Vec<String>)> = packages
            .iter()
            .filter(|(package, _)| !package.without_metadata.is_empty())
            .map(|(package, _)| (package.cp.clone(), package.without_metadata.clone()))
            .collect();
        if let Some(metadata) = self.metadata.as_ref().filter(|_| !lacking.is_empty()) {
            let answers = metadata.ask(repo.path(), &lacking);
            for (package, _) in &mut packages {
                let Some(given) = answers.get(&package.cp) else { continue };
                match repo.package_with(&package.cp, given) {
                    Ok(whole) => *package = whole,
                    Err(error) => tracing::warn!(package = %package.cp, %error, "cannot read a package"),
                }
            }
        }
        packages.iter().map(|(package, stamp)| rows(repo, package, *stamp)).collect()
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

fn rows(repo: &EbuildRepo, package: &Package, stamp: Stamp) -> Rows {
    for problem in &package.problems {
        tracing::debug!(repository = %repo.name(), package = %package.cp, problem, "part of a package was left out");
    }
    let entries = package.entries.iter().map(|entry| row(repo, &package.cp, entry)).collect();
    Rows { package: package.cp.to_string(), stamp: stamp.0, entries }
}

/// A repository has the licence groups and mirrors of its masters beside its own. One that does not say who they are has
/// the main repository, which is the hindmost, as Portage takes it.
fn inherit(repos: &mut [EbuildRepo]) {
    let all = repos.to_vec();
    for repo in repos {
        let named = |other: &&EbuildRepo| repo.masters().contains(other.name());
        let masters: Vec<&EbuildRepo> =
            if repo.says_masters() { all.iter().filter(named).collect() } else { all.last().into_iter().collect() };
        for master in masters.into_iter().filter(|master| master.name() != repo.name()).collect::<Vec<_>>() {
            repo.inherit(master);
        }
    }
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

fn row(repo: &EbuildRepo, cp: &Cp, entry: &tree::repo::PackageDistfile) -> CatalogEntry {
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
        repo: repo.name().to_string(),
        package: cp.to_string(),
        uris: entry.sources.iter().filter_map(uri).collect(),
        may_mirror: entry.sharing.mirror,
        may_fetch: entry.sharing.fetch,
        may_announce: entry.sharing.announce,
        ebuilds: entry.ebuilds.clone(),
    }
}
