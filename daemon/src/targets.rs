//! What a user may name: a distfile, a digest, a CID, an atom or a set, and the distfiles that means.

use crate::domain::{Domain, Target};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use store::CatalogEntry;
use tree::atom::Atom;
use tree::cid;
use tree::cpv::Cpv;
use tree::digest::Digest;
use tree::name::DistfileName;

/// A set larger than this is refused: no world file is.
const SET_MAX_BYTES: u64 = 4 * 1024 * 1024;
/// Sets may name sets, this deep.
const SET_DEPTH_MAX: u32 = 8;

/// Why a target names nothing.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum TargetError {
    /// It is spelled like nothing that can be named.
    #[error("{target:?} is no distfile name, digest, CID, atom or set: {why}")]
    Malformed {
        /// As typed.
        target: String,
        /// What is wrong with it.
        why: String,
    },
    /// No Manifest names such a distfile.
    #[error("no Manifest of a repository here names the distfile {target:?}")]
    UnknownDistfile {
        /// As typed.
        target: String,
    },
    /// No repository has a matching ebuild with distfiles.
    #[error("no ebuild with distfiles matches {target:?}")]
    UnknownAtom {
        /// As typed.
        target: String,
    },
    /// The set cannot be read.
    #[error("the set {target} cannot be read: {why}")]
    Set {
        /// As typed.
        target: String,
        /// Why.
        why: String,
    },
}

impl TargetError {
    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Malformed { .. } => Some("an atom names its category, as in app-misc/hello or =app-misc/hello-1.0"),
            Self::UnknownDistfile { .. } | Self::UnknownAtom { .. } => {
                Some("sync the repository that has it; peer status lists the repositories this node reads")
            }
            Self::Set { .. } => Some("sets are @world, @selected, @installed, and the files of /etc/portage/sets"),
        }
    }
}

/// The distfiles that `target` names now. Reads the index and set files: blocking.
///
/// An atom means the highest version that matches it, as Portage would take without masks.
///
/// # Errors
/// When it names nothing.
pub fn resolve(domain: &Domain, target: &str) -> Result<Vec<Target>, TargetError> {
    let mut found = BTreeMap::new();
    resolve_into(domain, target, SET_DEPTH_MAX, &mut found)?;
    Ok(found.into_values().collect())
}

fn resolve_into(
    domain: &Domain,
    target: &str,
    depth: u32,
    found: &mut BTreeMap<Digest, Target>,
) -> Result<(), TargetError> {
    if let Some(set) = target.strip_prefix('@') {
        return resolve_set(domain, target, set, depth, found);
    }
    if let Some(digest) = target.parse().ok().or_else(|| cid::from_cid(target).ok()) {
        found.insert(digest, domain.target(&digest));
        return Ok(());
    }
    if target.contains('/') {
        for target in of_atom(domain, target)? {
            found.insert(target.wanted.digest, target);
        }
        return Ok(());
    }
    let malformed = |why: String| TargetError::Malformed { target: clipped(target), why };
    let name: DistfileName =
        target.parse().map_err(|error: tree::name::ParseNameError| malformed(error.to_string()))?;
    let known =
        domain.by_name(name.as_ref()).ok_or_else(|| TargetError::UnknownDistfile { target: clipped(target) })?;
    found.insert(known.wanted.digest, known);
    Ok(())
}

fn of_atom(domain: &Domain, text: &str) -> Result<Vec<Target>, TargetError> {
    let malformed = |why: String| TargetError::Malformed { target: clipped(text), why };
    let atom: Atom = text.parse().map_err(|error: tree::atom::ParseAtomError| malformed(error.to_string()))?;
    let package = atom.cp.to_string();
    let entries = domain.repositories.in_order(domain.store.catalog().by_package(None, &package));
    let matching = |entry: &CatalogEntry| {
        let cpvs = entry.ebuilds.iter().filter_map(|pf| Cpv::from_pf(&atom.cp.category, pf).ok());
        cpvs.filter(|cpv| atom.matches(cpv, None)).map(|cpv| cpv.version).max()
    };
    let best = entries.iter().filter_map(matching).max();
    let Some(best) = best else { return Err(TargetError::UnknownAtom { target: clipped(text) }) };
    let of_best = |entry: &&CatalogEntry| {
        entry.ebuilds.iter().any(|pf| {
            Cpv::from_pf(&atom.cp.category, pf).is_ok_and(|cpv| cpv.version == best && atom.matches(&cpv, None))
        })
    };
    Ok(entries.iter().filter(of_best).map(|entry| domain.target(&entry.digest)).collect())
}

fn resolve_set(
    domain: &Domain,
    target: &str,
    set: &str,
    depth: u32,
    found: &mut BTreeMap<Digest, Target>,
) -> Result<(), TargetError> {
    let failed = |why: &str| TargetError::Set { target: clipped(target), why: why.to_owned() };
    let depth = depth.checked_sub(1).ok_or_else(|| failed("sets name each other in a circle"))?;
    let root = &domain.config.config_root;
    let atoms = match set {
        "world" | "selected" => read_set(&root.join("var/lib/portage/world")).map_err(|why| failed(&why))?,
        "installed" => installed(&root.join("var/db/pkg")),
        name if name.parse::<DistfileName>().is_ok() => {
            read_set(&root.join("etc/portage/sets").join(name)).map_err(|why| failed(&why))?
        }
        _ => return Err(failed("that is no name of a set")),
    };
    for atom in atoms {
        match resolve_into(domain, &atom, depth, found) {
            // Packages without distfiles, or of a repository that is gone, are normal in a set.
            Ok(()) | Err(TargetError::UnknownAtom { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn read_set(path: &Path) -> Result<Vec<String>, String> {
    let size = std::fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?.len();
    if size > SET_MAX_BYTES {
        return Err(format!("{} is larger than {SET_MAX_BYTES} bytes", path.display()));
    }
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    Ok(lines.filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

/// `=cat/PF` of every entry of the installed-package database.
fn installed(vdb: &Path) -> Vec<String> {
    let list = |dir: PathBuf| -> Vec<(String, PathBuf)> {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path())).collect()
    };
    let mut atoms = Vec::new();
    for (category, path) in list(vdb.to_owned()) {
        // Entries that begin with a dash are half merged.
        for (pf, _) in list(path).into_iter().filter(|(pf, _)| !pf.starts_with(['-', '.'])) {
            atoms.push(format!("={category}/{pf}"));
        }
    }
    atoms.sort_unstable();
    atoms
}

/// What is quoted back to a user of what they typed.
fn clipped(text: &str) -> String {
    text.chars().take(200).collect()
}
