//! The two passes of a look: what lies on the disk, and what Portage must be asked about.

use super::opened::Tree;
use super::reading::{Before, Changed, Rows, UNSETTLED, read_packages, with_answers};
use super::{AskMetadata, Refreshed, Repositories};
use crate::api;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use store::Catalog;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tree::cpv::Cp;

/// Packages read and written in one go: bounds memory, and one batch is one write of the index.
const BATCH_PACKAGES: usize = 64;
/// Time between two lines of the log about a look that takes long.
const TELL_PERIOD: Duration = Duration::from_secs(10);
/// Ebuilds without metadata that are named in the log.
const NAMED_MAX: usize = 5;

/// What one repository has to read.
pub(super) struct Work<'a> {
    pub(super) tree: &'a Tree,
    changed: Vec<Changed>,
    /// Those whose ebuilds Portage is asked about.
    pub(super) lacking: Vec<Changed>,
    pub(super) packages: usize,
    pub(super) problem: Option<String>,
}

/// What both passes of a look need.
pub(super) struct Passes<'a> {
    pub(super) metadata: Option<&'a Arc<dyn AskMetadata>>,
    pub(super) stopping: &'a CancellationToken,
    pub(super) catalog: &'a Catalog,
    pub(super) telling: Telling<'a>,
}

impl Passes<'_> {
    /// The first pass: what changed, and all of it that can be read from the disk.
    pub(super) fn compare(&self, work: &mut Work<'_>, done: &mut Refreshed) -> Result<(), String> {
        let catalog = self.catalog;
        let name = work.tree.repo.name().to_string();
        let mut known = catalog.stamps(&name);
        let mut stamps = work.tree.stamps();
        let scanned = work.tree.repo.scan().map_err(|error| error.to_string())?;
        work.packages = scanned.len();
        for (cp, files) in scanned {
            let before = match known.remove(&cp.to_string()) {
                None => Before::Unknown,
                Some(known) if known.stamp == UNSETTLED => Before::Unsettled,
                Some(known) if known.stamp == stamps.of(files, &known.inherited) => continue,
                Some(_) => Before::Known,
            };
            work.changed.push(Changed { cp, files, before });
        }
        let mut gone: Vec<String> = known.into_keys().collect();
        gone.sort_unstable();
        for package in gone {
            catalog.remove_package(&name, &package).map_err(|error| error.to_string())?;
            done.removed += 1;
        }
        let (total, mut read) = (work.changed.len(), 0);
        for batch in work.changed.chunks(BATCH_PACKAGES) {
            self.telling.tell(&name, read, total, false);
            self.stopped()?;
            let packages = read_packages(&work.tree.repo, batch);
            let asks = |package: &tree::repo::Package| self.metadata.is_some() && !package.without_metadata.is_empty();
            let (lacking, whole): (Vec<_>, Vec<_>) = packages.into_iter().partition(|(package, _)| asks(package));
            let rows: Vec<Rows> = whole
                .iter()
                .map(|(package, changed)| Rows::new(work.tree, &mut stamps, package, changed.files))
                .collect();
            // What was allowed before may be forbidden now: until Portage has said, nothing of it is shared.
            let known = lacking.iter().filter(|(_, changed)| changed.before == Before::Known);
            let unsettled = known.map(|(package, _)| Rows::unsettled(work.tree, package));
            let rows: Vec<Rows> = rows.into_iter().chain(unsettled).collect();
            write(catalog, &name, &rows)?;
            done.read += rows.len();
            work.lacking.extend(lacking.into_iter().map(|(_, changed)| changed));
            read += batch.len();
        }
        Ok(())
    }

    /// The second pass: asks Portage about the ebuilds whose metadata no md5-cache has.
    pub(super) fn ask(&self, work: &mut Work<'_>, done: &mut Refreshed) -> Result<(), String> {
        let Some(metadata) = self.metadata.filter(|_| !work.lacking.is_empty()) else { return Ok(()) };
        let (repo, name) = (&work.tree.repo, work.tree.repo.name().to_string());
        let mut stamps = work.tree.stamps();
        let (total, mut read, mut stale, mut unanswered) = (work.lacking.len(), 0, 0, Vec::new());
        let mut refused: Option<String> = None;
        for batch in work.lacking.chunks(BATCH_PACKAGES) {
            self.telling.tell(&name, read, total, true);
            self.stopped()?;
            let mut packages = read_packages(repo, batch);
            stale = packages.iter().fold(stale, |sum: usize, (package, _)| sum.saturating_add(package.stale));
            let questions: Vec<(Cp, Vec<String>)> = packages
                .iter()
                .map(|(package, _)| (package.cp.clone(), package.without_metadata.clone()))
                .filter(|(_, ebuilds)| !ebuilds.is_empty())
                .collect();
            // Who gave no answer once is not asked a hundred times: the next look does.
            if refused.is_none() {
                match metadata.ask(repo.path(), &questions) {
                    Ok(answers) => unanswered.extend(with_answers(repo, &mut packages, &answers)),
                    Err(why) => refused = Some(why),
                }
            }
            self.stopped()?;
            let settled = refused.is_none();
            let rows: Vec<Rows> = packages
                .iter()
                .map(|(package, changed)| {
                    if settled {
                        Rows::new(work.tree, &mut stamps, package, changed.files)
                    } else {
                        Rows::unsettled(work.tree, package)
                    }
                })
                .collect();
            write(self.catalog, &name, &rows)?;
            done.read += packages.iter().filter(|(_, changed)| settled || changed.before == Before::Unknown).count();
            read += batch.len();
        }
        tell_what_was_asked(&name, stale, &unanswered);
        match refused {
            None => Ok(()),
            Some(why) => {
                let packages = if total == 1 { "package" } else { "packages" };
                Err(format!(
                    "the ebuilds of {total} {packages} have no md5-cache entry of theirs and Portage cannot be asked \
                     about them ({why}), so their files are asked of Gentoo's mirrors only and shared with nobody"
                ))
            }
        }
    }

    fn stopped(&self) -> Result<(), String> {
        if self.stopping.is_cancelled() { Err("the daemon is stopping".to_owned()) } else { Ok(()) }
    }
}

impl<'a> Work<'a> {
    pub(super) fn new(tree: &'a Tree) -> Self {
        Self { tree, changed: Vec::new(), lacking: Vec::new(), packages: 0, problem: None }
    }

    /// A step of it; after a problem there is no other.
    pub(super) fn attempt(&mut self, step: impl FnOnce(&mut Self) -> Result<(), String>) {
        if self.problem.is_none() {
            self.problem = step(self).err();
        }
    }
}

/// Says how far a look is.
pub(super) struct Telling<'a> {
    look: &'a watch::Sender<Option<api::Look>>,
    first: bool,
    since: u64,
    logged: Mutex<Instant>,
}

impl<'a> Telling<'a> {
    pub(super) fn new(repositories: &'a Repositories, since: u64) -> Self {
        let first = !repositories.are_read();
        Self { look: &repositories.look, first, since, logged: Mutex::new(Instant::now()) }
    }

    fn tell(&self, repository: &str, read: usize, of: usize, asking: bool) {
        let look =
            api::Look { repository: repository.to_owned(), read, of, asking, first: self.first, since: self.since };
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.elapsed() >= TELL_PERIOD {
            *logged = Instant::now();
            tracing::info!("{look}");
        }
        self.look.send_replace(Some(look));
    }
}

fn write(catalog: &Catalog, repo: &str, rows: &[Rows]) -> Result<(), String> {
    let borrowed: Vec<_> = rows.iter().map(Rows::borrowed).collect();
    catalog.replace_packages(repo, &borrowed).map_err(|error| error.to_string())
}

fn tell_what_was_asked(repository: &str, stale: usize, unanswered: &[String]) {
    if stale > 0 {
        tracing::info!(
            repository,
            entries = stale,
            "md5-cache entries were made from other ebuilds or eclasses, so Portage was asked: egencache --update makes them new"
        );
    }
    if !unanswered.is_empty() {
        let named = unanswered.iter().take(NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join(" ");
        tracing::warn!(
            repository,
            ebuilds = unanswered.len(),
            named,
            "Portage knows no metadata of some ebuilds: their files are asked of Gentoo's mirrors only and shared with nobody"
        );
    }
}
