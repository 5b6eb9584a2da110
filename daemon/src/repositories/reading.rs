//! Reading packages: what their Manifests and ebuilds say becomes rows of the catalog.

use super::opened::{Stamps, Tree};
use std::collections::BTreeMap;
use store::{CatalogEntry, CatalogUri, PackageEntries};
use tree::cpv::Cp;
use tree::mdcache::MdEntry;
use tree::repo::{EbuildRepo, Package, Stamp};
use tree::uri::Exempt;

/// Threads that read packages.
const THREADS_MAX: usize = 8;
/// The stamp of a package whose ebuilds nobody could be asked about: no package has it, so the next look asks again.
pub(super) const UNSETTLED: [u8; 16] = [0; 16];

/// A package that is new or changed.
#[derive(Clone, Debug)]
pub(super) struct Changed {
    pub(super) cp: Cp,
    pub(super) files: Stamp,
    pub(super) before: Before,
}

/// What the catalog had of a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// Nothing.
    Unknown,
    /// Only that its Manifest names files.
    Unsettled,
    /// All that its ebuilds said.
    Known,
}

/// All catalog rows of one package.
pub(super) struct Rows {
    package: String,
    stamp: [u8; 16],
    inherited: String,
    entries: Vec<CatalogEntry>,
}

impl Rows {
    pub(super) fn new(tree: &Tree, stamps: &mut Stamps<'_>, package: &Package, files: Stamp) -> Self {
        for problem in &package.problems {
            tracing::debug!(repository = %tree.repo.name(), package = %package.cp, problem, "part of a package was left out");
        }
        Self {
            package: package.cp.to_string(),
            stamp: stamps.of(files, &package.inherited),
            inherited: package.inherited.clone(),
            entries: package.entries.iter().map(|entry| row(tree, &package.cp, entry)).collect(),
        }
    }

    /// As [`Rows::new`], for a package whose ebuilds nobody could be asked about: of its files no more is known than that
    /// a Manifest names them, so they are asked of Gentoo's mirrors and shared with nobody.
    pub(super) fn unsettled(tree: &Tree, package: &Package) -> Self {
        let entries = package.entries.iter().map(|entry| row(tree, &package.cp, entry)).collect();
        Self { package: package.cp.to_string(), stamp: UNSETTLED, inherited: String::new(), entries }
    }

    pub(super) fn borrowed(&self) -> PackageEntries<'_> {
        PackageEntries { package: &self.package, stamp: self.stamp, inherited: &self.inherited, entries: &self.entries }
    }
}

/// Reads packages on as many threads as there are cores: a first index is bound by parsing.
pub(super) fn read_packages(repo: &EbuildRepo, batch: &[Changed]) -> Vec<(Package, Changed)> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(THREADS_MAX);
    let share = batch.len().div_ceil(threads).max(1);
    let read_part = |part: &[Changed]| -> Vec<(Package, Changed)> {
        part.iter().filter_map(|changed| Some((read_package(repo, &changed.cp)?, changed.clone()))).collect()
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

/// Reads packages again with what Portage said of their ebuilds. Gives back the ebuilds that it said nothing of.
pub(super) fn with_answers(
    repo: &EbuildRepo,
    packages: &mut [(Package, Changed)],
    answers: &BTreeMap<Cp, BTreeMap<String, MdEntry>>,
) -> Vec<String> {
    let mut unanswered = Vec::new();
    for (package, _) in packages {
        if let Some(given) = answers.get(&package.cp) {
            match repo.package_with(&package.cp, given) {
                Ok(whole) => *package = whole,
                Err(error) => tracing::warn!(package = %package.cp, %error, "cannot read a package"),
            }
        }
        unanswered.extend(package.without_metadata.iter().map(|pf| format!("{}/{pf}", package.cp.category)));
    }
    unanswered
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
