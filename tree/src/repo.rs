//! An ebuild repository on disk: one tree, read as it is at the moment of each question.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::atom::Atom;
use crate::confine::{Bounds, text_within};
use crate::cpv::{Cp, Cpv};
use crate::eclass::Eclasses;
use crate::license::LicenseGroups;
use crate::manifest::{MANIFEST_BYTES_MAX, Manifest};
use crate::md5::Md5;
use crate::mdcache::{ENTRY_BYTES_MAX, MdEntry};
use crate::name::{DistfileName, ParseNameError, RepoName};
use crate::package::{Metadata, with_causes};
use crate::repo_layout::{Cache, RepoLayout, own_name};
use crate::scan;
use crate::thirdparty::ThirdPartyMirrors;
use crate::uri::SrcUri;
use crate::version::Version;

pub use crate::confine::ReadFileError;
pub use crate::package::{Package, PackageDistfile, Sharing};
pub use crate::scan::{ScanRepoError, Stamp};

/// Bytes of one file below `profiles` or of layout.conf.
const PROFILE_FILE_BYTES_MAX: usize = 4 << 20;
/// Bytes of one ebuild; real ones stay below a MiB.
const EBUILD_BYTES_MAX: usize = 16 << 20;
/// The EAPIs that every Portage of today supports; of others it is asked itself.
const EAPIS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
/// Ebuilds of one package.
const EBUILDS_MAX: usize = 10_000;

/// Why a repository cannot be opened.
#[derive(Debug, Error)]
pub enum OpenRepoError {
    /// The directory is not there or cannot be entered.
    #[error("cannot open the repository {}", path.display())]
    Directory {
        /// The path given.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is not a directory.
    #[error("{} is not a directory", path.display())]
    NotADirectory {
        /// The path given.
        path: PathBuf,
    },
    /// One of its own files cannot be read.
    #[error("cannot open the repository {}", path.display())]
    File {
        /// The path given.
        path: PathBuf,
        /// Which file, and why not.
        #[source]
        source: ReadFileError,
    },
    /// The eclasses that its ebuilds inherit cannot be listed.
    #[error("cannot open the repository {}", path.display())]
    Eclasses {
        /// The path given.
        path: PathBuf,
        /// Which directory, and why not.
        #[source]
        source: ScanRepoError,
    },
    /// It has no name that an atom could hold, nor does its directory.
    #[error("the repository {} has no usable name in profiles/repo_name", path.display())]
    Name {
        /// The path given.
        path: PathBuf,
        /// What is wrong with the name.
        #[source]
        source: ParseNameError,
    },
}

/// Why a package cannot be read.
#[derive(Debug, Error)]
pub enum ReadPackageError {
    /// Its Manifest cannot be read.
    #[error("cannot read the Manifest of {cp}")]
    Manifest {
        /// The package.
        cp: Cp,
        /// Why not.
        #[source]
        source: ReadFileError,
    },
    /// Its directory or that of its md5-cache entries cannot be read.
    #[error("cannot read the ebuilds of {cp}")]
    Ebuilds {
        /// The package.
        cp: Cp,
        /// Why not.
        #[source]
        source: ScanRepoError,
    },
}

/// An ebuild that an atom means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The ebuild.
    pub cpv: Cpv,
    /// Its SLOT with sub-slot, where its metadata is known.
    pub slot: Option<String>,
    /// Its KEYWORDS, where its metadata is known.
    pub keywords: Option<String>,
    /// The distfiles it names under any USE flags, each once; none where its metadata is not known.
    pub distfiles: Vec<DistfileName>,
}

/// An ebuild repository.
#[derive(Debug, Clone)]
pub struct EbuildRepo {
    root: PathBuf,
    bounds: Bounds,
    name: RepoName,
    masters: Option<Vec<RepoName>>,
    cache: Cache,
    eclasses: Option<Eclasses>,
    thirdparty: ThirdPartyMirrors,
    license_groups: LicenseGroups,
}

impl EbuildRepo {
    /// Opens the repository in a directory: reads its name, layout.conf, thirdpartymirrors and license_groups.
    ///
    /// # Errors
    /// When the directory is not there, has no usable name, or one of these files is there and cannot be read.
    pub fn open(path: &Path) -> Result<Self, OpenRepoError> {
        Self::open_as(path, None)
    }

    /// As [`EbuildRepo::open`], under the name that the configuration gives it.
    ///
    /// # Errors
    /// As [`EbuildRepo::open`].
    pub fn open_as(path: &Path, name: Option<&RepoName>) -> Result<Self, OpenRepoError> {
        let root =
            fs::canonicalize(path).map_err(|source| OpenRepoError::Directory { path: path.to_owned(), source })?;
        if !root.is_dir() {
            return Err(OpenRepoError::NotADirectory { path: path.to_owned() });
        }
        let text = |file: &str| {
            text_within(&root, &root.join(file), PROFILE_FILE_BYTES_MAX)
                .map_err(|source| OpenRepoError::File { path: path.to_owned(), source })
        };
        let layout = RepoLayout::parse(&text("metadata/layout.conf")?.unwrap_or_default());
        let named = text("profiles/repo_name")?;
        let name = match name {
            Some(name) => Ok(name.clone()),
            None => layout.name.clone().unwrap_or_else(|| own_name(named.as_deref(), &root)).parse(),
        };
        let name = name.map_err(|source| OpenRepoError::Name { path: path.to_owned(), source })?;
        let thirdparty = ThirdPartyMirrors::parse(&text("profiles/thirdpartymirrors")?.unwrap_or_default());
        let license_groups = LicenseGroups::parse(&text("profiles/license_groups")?.unwrap_or_default());
        let cache = layout.cache(|directory| root.join(directory).is_dir());
        let masters = layout.master_names();
        Ok(Self {
            bounds: Bounds::of(root.clone()),
            root,
            name,
            masters,
            cache,
            eclasses: None,
            thirdparty,
            license_groups,
        })
    }

    /// The repository's name.
    #[must_use]
    pub fn name(&self) -> &RepoName {
        &self.name
    }

    /// Its directory, without links.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// The repositories it builds on, as its layout.conf names them; none also where it says nothing.
    #[must_use]
    pub fn masters(&self) -> &[RepoName] {
        self.masters.as_deref().unwrap_or_default()
    }

    /// Whether layout.conf says anything about masters; where it does not, Portage takes the main repository as master.
    #[must_use]
    pub fn says_masters(&self) -> bool {
        self.masters.is_some()
    }

    /// Whether it brings metadata for its ebuilds that Portage takes and that is read here.
    #[must_use]
    pub fn has_md5_cache(&self) -> bool {
        self.cache == Cache::Md5
    }

    /// Says which eclasses its ebuilds inherit: md5-cache entries are compared with them from now on. Until then they are
    /// compared with their ebuilds alone.
    pub fn set_eclasses(&mut self, eclasses: Eclasses) {
        self.eclasses = Some(eclasses);
    }

    /// A sum that is another when one of these eclasses is; `names` are parted by spaces.
    #[must_use]
    pub fn eclass_stamp(&self, names: &str) -> [u8; 16] {
        self.eclasses.as_ref().map(|eclasses| eclasses.stamp(names)).unwrap_or_default()
    }

    /// Its table of third-party mirrors, and those inherited so far.
    #[must_use]
    pub fn thirdparty(&self) -> &ThirdPartyMirrors {
        &self.thirdparty
    }

    /// Its licence groups, and those inherited so far.
    #[must_use]
    pub fn license_groups(&self) -> &LicenseGroups {
        &self.license_groups
    }

    /// The other repositories that are configured: packages that are links into them are packages of this one.
    #[must_use]
    pub fn beside(self, others: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { bounds: self.bounds.with(others), ..self }
    }

    /// Takes over the third-party mirrors and licence groups of a master. To be called before packages are read, for an
    /// overlay's `@EULA` is mostly its master's.
    pub fn inherit(&mut self, master: &Self) {
        self.thirdparty.merge(&master.thirdparty);
        self.license_groups.merge(&master.license_groups);
    }

    /// Every package that has a Manifest, in order, and a stamp that changes when it does. Reads directories and stats files,
    /// nothing else; links to directories are followed within the repositories.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn scan(&self) -> Result<Vec<(Cp, Stamp)>, ScanRepoError> {
        scan::scan(&self.root, &self.bounds, self.has_md5_cache(), false)
    }

    /// As [`EbuildRepo::scan`], with the packages that have ebuilds and no Manifest, as they need none without distfiles.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn scan_all(&self) -> Result<Vec<(Cp, Stamp)>, ScanRepoError> {
        scan::scan(&self.root, &self.bounds, self.has_md5_cache(), true)
    }

    /// The ebuilds of a package as `PF`, oldest version first. A package directory without any ebuild, as in a copy of the
    /// metadata only, has those of its md5-cache entries. None where the package is not there.
    #[must_use]
    pub fn ebuilds(&self, cp: &Cp) -> Vec<String> {
        self.cpvs(cp).unwrap_or_default().iter().map(Cpv::pf).collect()
    }

    /// What an ebuild says it is: DESCRIPTION of its md5-cache entry or, where there is none, of its text, if that needs
    /// no shell to be read.
    #[must_use]
    pub fn description(&self, cpv: &Cpv) -> Option<String> {
        if let Metadata::Known(entry) = self.metadata(cpv) {
            return Some(entry.description);
        }
        let path = self.directory(&cpv.cp).join(format!("{}.ebuild", cpv.pf()));
        let bytes = self.bounds.read(&path, ENTRY_BYTES_MAX).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let said = text.lines().find_map(|line| line.trim_start().strip_prefix("DESCRIPTION="))?;
        let quote = said.chars().next().filter(|quote| ['"', '\''].contains(quote))?;
        let inner = said.get(1..)?.split(quote).next()?;
        if quote == '"' && inner.contains(['$', '`', '\\']) { None } else { Some(inner.to_owned()) }
    }

    /// The ebuilds of a package, oldest first, with their SLOT where their metadata is known.
    ///
    /// # Errors
    /// When a directory is there and cannot be read.
    pub fn versions(&self, cp: &Cp) -> Result<Vec<(Version, Option<String>)>, ReadPackageError> {
        let slot = |cpv: &Cpv| match self.metadata(cpv) {
            Metadata::Known(entry) => Some(entry.slot),
            Metadata::Missing | Metadata::Stale | Metadata::Broken(_) => None,
        };
        Ok(self.cpvs(cp)?.into_iter().map(|cpv| (cpv.version.clone(), slot(&cpv))).collect())
    }

    /// The ebuilds that an atom means, oldest first. None where it names another repository. USE dependencies do not matter.
    ///
    /// # Errors
    /// When a directory is there and cannot be read.
    pub fn find(&self, atom: &Atom) -> Result<Vec<Found>, ReadPackageError> {
        if atom.repo.as_ref().is_some_and(|repo| *repo != self.name) {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for cpv in self.cpvs(&atom.cp)? {
            let entry = match self.metadata(&cpv) {
                Metadata::Known(entry) => Some(entry),
                Metadata::Missing | Metadata::Stale | Metadata::Broken(_) => None,
            };
            if !atom.matches(&cpv, entry.as_ref().map(|entry| entry.slot.as_str())) {
                continue;
            }
            let src_uri = entry.as_ref().and_then(|entry| SrcUri::parse(&entry.src_uri).ok()).unwrap_or_default();
            let mut seen = BTreeSet::new();
            let distfiles =
                src_uri.iter().filter(|source| seen.insert(&source.name)).map(|source| source.name.clone()).collect();
            let (slot, keywords) = entry.map(|entry| (entry.slot, entry.keywords)).unzip();
            found.push(Found { cpv, slot, keywords, distfiles });
        }
        Ok(found)
    }

    /// A package with its distfiles.
    ///
    /// # Errors
    /// When its Manifest is not there, cannot be read, or leads out of the repositories.
    pub fn package(&self, cp: &Cp) -> Result<Package, ReadPackageError> {
        self.package_with(cp, &BTreeMap::new())
    }

    /// A package with its distfiles, where the metadata of ebuilds without an md5-cache entry that belongs to them comes from
    /// elsewhere, by `PF`.
    ///
    /// # Errors
    /// When its Manifest is not there, cannot be read, or leads out of the repositories.
    pub fn package_with(&self, cp: &Cp, given: &BTreeMap<String, MdEntry>) -> Result<Package, ReadPackageError> {
        let path = self.directory(cp).join("Manifest");
        let bytes = self
            .bounds
            .read(&path, MANIFEST_BYTES_MAX)
            .map_err(|source| ReadPackageError::Manifest { cp: cp.clone(), source })?;
        let metadata: Vec<(String, Metadata)> = self
            .cpvs(cp)?
            .iter()
            .map(|cpv| {
                let pf = cpv.pf();
                // What was given is an answer to this very reading: no file is read twice.
                match given.get(&pf) {
                    Some(entry) => (pf, Metadata::Known(Box::new(entry.clone()))),
                    None => (pf, self.metadata(cpv)),
                }
            })
            .collect();
        Ok(Package::assemble(cp.clone(), Manifest::parse(&bytes), &metadata, &self.license_groups))
    }

    fn directory(&self, cp: &Cp) -> PathBuf {
        self.root.join(cp.category.as_str()).join(cp.name.as_str())
    }

    fn cache_directory(&self, cp: &Cp) -> PathBuf {
        self.root.join("metadata/md5-cache").join(cp.category.as_str())
    }

    fn metadata(&self, cpv: &Cpv) -> Metadata {
        if !self.has_md5_cache() {
            return Metadata::Missing;
        }
        let path = self.cache_directory(&cpv.cp).join(cpv.pf());
        match self.bounds.read(&path, ENTRY_BYTES_MAX) {
            // What is not UTF-8 is replaced, as Portage does.
            Ok(bytes) => match MdEntry::parse(String::from_utf8_lossy(&bytes).as_bytes()) {
                Ok(entry) if self.belongs(&entry, cpv) => Metadata::Known(Box::new(entry)),
                Ok(_) => Metadata::Stale,
                Err(error) => Metadata::Broken(error.to_string()),
            },
            Err(error) if error.is_missing() => Metadata::Missing,
            Err(error) => Metadata::Broken(with_causes(&error)),
        }
    }

    /// Whether an entry was made from the ebuild and the eclasses as they are, as Portage compares them. An entry without
    /// an ebuild, as in a copy of the metadata only, has nothing to be compared with.
    fn belongs(&self, entry: &MdEntry, cpv: &Cpv) -> bool {
        let path = self.directory(&cpv.cp).join(format!("{}.ebuild", cpv.pf()));
        let ebuild = match self.bounds.read(&path, EBUILD_BYTES_MAX) {
            Ok(bytes) => Md5::of(&bytes),
            Err(error) if error.is_missing() => return true,
            Err(_) => return false,
        };
        let Some(inherited) = &entry.eclasses else { return false };
        let same = |eclasses: &Eclasses| inherited.iter().all(|(name, sum)| eclasses.md5(name) == Some(*sum));
        // Portage disregards what an EAPI says that it may not know.
        EAPIS.contains(&entry.eapi.trim()) && entry.md5 == Some(ebuild) && self.eclasses.as_ref().is_none_or(same)
    }

    fn cpvs(&self, cp: &Cp) -> Result<Vec<Cpv>, ReadPackageError> {
        let cpv_of = |pf: &str| Cpv::from_pf(&cp.category, pf).ok().filter(|cpv| cpv.cp == *cp);
        let entries = |path: &Path| match self.bounds.follow(path) {
            Err(ReadFileError::Outside { .. }) => Ok(Vec::new()),
            Ok(_) | Err(_) => {
                scan::entries(path).map_err(|source| ReadPackageError::Ebuilds { cp: cp.clone(), source })
            }
        };
        let mut cpvs: Vec<Cpv> = entries(&self.directory(cp))?
            .iter()
            .filter_map(|(name, _)| cpv_of(name.strip_suffix(".ebuild")?))
            .collect();
        if cpvs.is_empty() && self.has_md5_cache() {
            cpvs = entries(&self.cache_directory(cp))?.iter().filter_map(|(pf, _)| cpv_of(pf)).collect();
        }
        cpvs.sort_unstable_by(|left, right| {
            (&left.version, left.version.as_str()).cmp(&(&right.version, right.version.as_str()))
        });
        cpvs.truncate(EBUILDS_MAX);
        Ok(cpvs)
    }
}
