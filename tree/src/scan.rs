//! Which packages a repository has, and whether one changed since: directories and stats only, no file is read.

use std::collections::HashMap;
use std::fs::{self, DirEntry, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::confine::Bounds;
use crate::cpv::Cp;
use crate::name::{Category, PackageName};
use crate::version;

/// Packages of one repository; ::gentoo has about 19,000.
const PACKAGES_MAX: usize = 500_000;
/// Entries of one directory.
pub(crate) const DIRECTORY_ENTRIES_MAX: usize = 500_000;

/// Directories at the top of a repository that are no categories.
const NOT_CATEGORIES: [&str; 8] =
    ["distfiles", "eclass", "licenses", "local", "metadata", "packages", "profiles", "scripts"];

/// Why a repository cannot be scanned.
#[derive(Debug, Error)]
pub enum ScanRepoError {
    /// A directory cannot be read.
    #[error("cannot read the directory {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// More than 500,000 packages, or too many entries in one directory.
    #[error("{} has too many entries", path.display())]
    TooMany {
        /// The directory.
        path: PathBuf,
    },
}

/// A sum over name, mtime, size, inode and ctime of a package's Manifest, ebuilds and md5-cache entries. Equal stamps of one
/// package at two moments: nothing of it changed between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(pub [u8; 16]);

/// What a stamp sums up of one file.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Trace {
    name: Box<str>,
    numbers: [i128; 4],
}

impl Trace {
    pub(crate) fn new(name: &str, stat: &Metadata) -> Self {
        let ns = |seconds: i64, ns: i64| i128::from(seconds) * 1_000_000_000 + i128::from(ns);
        let numbers = [
            ns(stat.mtime(), stat.mtime_nsec()),
            i128::from(stat.size()),
            i128::from(stat.ino()),
            ns(stat.ctime(), stat.ctime_nsec()),
        ];
        Self { name: name.into(), numbers }
    }

    pub(crate) fn add_to(&self, state: &mut blake2b_simd::State) {
        state.update(self.name.as_bytes()).update(&[0]);
        for number in self.numbers {
            state.update(&number.to_le_bytes());
        }
    }
}

fn stamp(mut traces: Vec<Trace>) -> Stamp {
    // The order of a directory is the file system's affair.
    traces.sort_unstable();
    let mut state = blake2b_simd::Params::new().hash_length(16).to_state();
    traces.iter().for_each(|trace| trace.add_to(&mut state));
    Stamp(first_16(&state.finalize()))
}

pub(crate) fn first_16(sum: &blake2b_simd::Hash) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (byte, summed) in bytes.iter_mut().zip(sum.as_bytes()) {
        *byte = *summed;
    }
    bytes
}

/// The entries of a directory whose names are UTF-8; none where there is no such directory.
pub(crate) fn entries(path: &Path) -> Result<Vec<(String, DirEntry)>, ScanRepoError> {
    let failed = |source| ScanRepoError::Directory { path: path.to_owned(), source };
    let directory = match fs::read_dir(path) {
        Ok(directory) => directory,
        // Gone since its parent was read, or never there: a repository may be synchronised at this moment.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(failed(error)),
    };
    let mut entries = Vec::new();
    for entry in directory {
        let entry = entry.map_err(failed)?;
        if entries.len() >= DIRECTORY_ENTRIES_MAX {
            return Err(ScanRepoError::TooMany { path: path.to_owned() });
        }
        if let Ok(name) = entry.file_name().into_string() {
            entries.push((name, entry));
        }
    }
    Ok(entries)
}

fn is_directory(entry: &DirEntry, bounds: &Bounds) -> bool {
    entry.file_type().is_ok_and(|kind| {
        kind.is_dir() || kind.is_symlink() && bounds.follow(&entry.path()).is_ok_and(|real| real.is_dir())
    })
}

/// What is at an entry, behind a link that stays within the repositories.
fn about(entry: &DirEntry, bounds: &Bounds) -> Option<Metadata> {
    let own = entry.metadata().ok()?;
    if own.is_symlink() { fs::metadata(bounds.follow(&entry.path()).ok()?).ok() } else { Some(own) }
}

/// All packages below `root` that have a Manifest, in order; with `bare` also those that have ebuilds only.
pub(crate) fn scan(
    root: &Path,
    bounds: &Bounds,
    has_md5_cache: bool,
    bare: bool,
) -> Result<Vec<(Cp, Stamp)>, ScanRepoError> {
    let mut packages = Vec::new();
    for (name, entry) in entries(root)? {
        if NOT_CATEGORIES.contains(&name.as_str()) || !is_directory(&entry, bounds) {
            continue;
        }
        if let Ok(category) = name.parse::<Category>() {
            scan_category((root, bounds), &category, (has_md5_cache, bare), &mut packages)?;
        }
    }
    packages.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
    Ok(packages)
}

fn scan_category(
    (root, bounds): (&Path, &Bounds),
    category: &Category,
    (has_md5_cache, bare): (bool, bool),
    packages: &mut Vec<(Cp, Stamp)>,
) -> Result<(), ScanRepoError> {
    let directory = root.join(category.as_str());
    let packages_found = entries(&directory)?;
    // A directory like "files" at the top is no category: nothing in it has a Manifest, and no cache is read for it.
    let mut cache = None;
    for (name, entry) in packages_found {
        if !is_directory(&entry, bounds) {
            continue;
        }
        let Ok(name) = name.parse::<PackageName>() else { continue };
        let package = directory.join(name.as_str());
        let manifest = fs::metadata(package.join("Manifest")).ok().filter(Metadata::is_file);
        if manifest.is_none() && !bare {
            continue;
        }
        let mut traces = ebuild_traces(&package, bounds)?;
        // Ebuilds without distfiles need none in a repository of thin Manifests.
        if manifest.is_none() && traces.is_empty() {
            continue;
        }
        if packages.len() >= PACKAGES_MAX {
            return Err(ScanRepoError::TooMany { path: root.to_owned() });
        }
        traces.extend(manifest.map(|stat| Trace::new("Manifest", &stat)));
        if has_md5_cache {
            if cache.is_none() {
                cache = Some(cache_traces(&root.join("metadata/md5-cache").join(category.as_str()), bounds)?);
            }
            traces.extend(cache.as_mut().and_then(|cache| cache.remove(name.as_str())).unwrap_or_default());
        }
        packages.push((Cp { category: category.clone(), name }, stamp(traces)));
    }
    Ok(())
}

/// The traces of a category's md5-cache entries, by package name.
fn cache_traces(directory: &Path, bounds: &Bounds) -> Result<HashMap<String, Vec<Trace>>, ScanRepoError> {
    let mut traces: HashMap<String, Vec<Trace>> = HashMap::new();
    for (pf, entry) in entries(directory)? {
        let Some((name, _)) = version::split_package_version(&pf) else { continue };
        let Some(stat) = about(&entry, bounds) else { continue };
        traces.entry(name.to_owned()).or_default().push(Trace::new(&pf, &stat));
    }
    Ok(traces)
}

fn ebuild_traces(directory: &Path, bounds: &Bounds) -> Result<Vec<Trace>, ScanRepoError> {
    let found = entries(directory)?;
    let ebuilds = found.iter().filter(|(name, _)| name.ends_with(".ebuild"));
    Ok(ebuilds.filter_map(|(name, entry)| Some(Trace::new(name, &about(entry, bounds)?))).collect())
}
