//! Portage's configuration, as far as it is read here: repos.conf and make.conf (portage(5), make.conf(5)).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::confine;
use crate::getconfig;
use crate::ini::{Ini, Options};
use crate::name::RepoName;
use crate::repo::repo_name;

pub use crate::confine::ReadFileError;
pub use crate::expand::ExpandError;
pub use crate::getconfig::{ConfFault, GetConfigError};
pub use crate::ini::ParseIniError;

/// Bytes of one repos.conf file.
const FILE_BYTES_MAX: usize = 4 << 20;
/// Files of a configuration directory.
const FILES_MAX: usize = 1024;
/// Priority of the main repository where none is given.
const MAIN_REPO_PRIORITY: i64 = -1000;
/// Directories of version control that are not hidden, which Portage passes over.
const VCS_DIRECTORIES: [&str; 3] = ["CVS", "RCS", "SCCS"];

/// Why repos.conf cannot be used.
#[derive(Debug, Error)]
pub enum LoadReposConfError {
    /// A file is there and cannot be read.
    #[error("cannot read repos.conf")]
    Read(#[source] ReadFileError),
    /// A file is wrong. Portage then uses none of them.
    #[error("{}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: ParseIniError,
    },
    /// The files are wrong together.
    #[error("repos.conf")]
    Values(#[source] ParseIniError),
}

/// Why make.conf cannot be used.
#[derive(Debug, Error)]
#[error("cannot use make.conf")]
pub struct LoadMakeConfError(#[from] pub GetConfigError);

/// One configured repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoConf {
    /// Its name, as profiles/repo_name has it.
    pub name: RepoName,
    /// Its directory, without links.
    pub location: PathBuf,
    /// Its priority: the repository with the highest wins.
    pub priority: i64,
    /// The masters that repos.conf gives it, which override those of its layout.conf.
    pub masters: Option<Vec<RepoName>>,
}

/// The configured repositories.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReposConf {
    /// The repositories, lowest priority first: the main repository stands before its overlays.
    pub repos: Vec<RepoConf>,
    /// The name of the main repository, if one is configured and there.
    pub main_repo: Option<RepoName>,
    /// What was left out and why, for people.
    pub problems: Vec<String>,
}

impl ReposConf {
    /// Loads `usr/share/portage/config/repos.conf` and then `etc/portage/repos.conf` below `config_root`, each a file or a
    /// directory, as Portage does; neither need be there. Locations are taken as they are written, not below `config_root`.
    ///
    /// # Errors
    /// When a file is there and cannot be read, or is wrong.
    pub fn load(config_root: &Path) -> Result<Self, LoadReposConfError> {
        let root = config_root.to_string_lossy();
        let mut ini = Ini::new(&[("EPREFIX", ""), ("EROOT", "/"), ("PORTAGE_CONFIGROOT", &root), ("ROOT", "/")]);
        for place in ["usr/share/portage/config/repos.conf", "etc/portage/repos.conf"] {
            for path in files_below(&config_root.join(place)).map_err(LoadReposConfError::Read)? {
                let bytes = confine::read(&path, FILE_BYTES_MAX).map_err(LoadReposConfError::Read)?;
                ini.read(&String::from_utf8_lossy(&bytes))
                    .map_err(|source| LoadReposConfError::Parse { path, source })?;
            }
        }
        let main_repo = ini.default_value("main-repo");
        let mut conf = Self::default();
        let mut names = BTreeSet::new();
        for (section, options) in ini.sections().map_err(LoadReposConfError::Values)? {
            match repo_of(&section, &options, main_repo.as_deref()) {
                Ok(repo) if names.insert(repo.name.clone()) => conf.repos.push(repo),
                Ok(repo) => conf.problems.push(format!("[{section}]: there is another repository named {}", repo.name)),
                Err(problem) => conf.problems.push(format!("[{section}]: {problem}")),
            }
        }
        conf.repos.sort_by(|left, right| (left.priority, &left.name).cmp(&(right.priority, &right.name)));
        conf.main_repo = main_repo.and_then(|name| name.parse().ok()).filter(|name| names.contains(name));
        Ok(conf)
    }

    /// The repository of this name.
    #[must_use]
    pub fn get(&self, name: &RepoName) -> Option<&RepoConf> {
        self.repos.iter().find(|repo| repo.name == *name)
    }
}

fn repo_of(section: &str, options: &Options, main_repo: Option<&str>) -> Result<RepoConf, String> {
    let location = options.get("location").map(|location| location.trim()).filter(|location| !location.is_empty());
    let location = Path::new(location.ok_or("no location")?);
    if !location.is_absolute() {
        return Err(format!("{} is not an absolute path", location.display()));
    }
    let real = fs::canonicalize(location).ok().filter(|path| path.is_dir());
    let location = real.ok_or_else(|| format!("{} is not a directory", location.display()))?;
    let text = |file: &str| confine::text_within(&location, &location.join(file), FILE_BYTES_MAX).ok().flatten();
    let name = match text("profiles/repo_name") {
        None => section.parse(),
        named => repo_name(named.as_deref(), &location),
    };
    let name: RepoName = name.map_err(|error| error.to_string())?;
    let aliases = options.get("aliases").map(String::as_str).unwrap_or_default();
    if name.as_str() != section && !aliases.split_whitespace().any(|alias| alias == section) {
        return Err(format!("{} is named {name} by its profiles/repo_name", location.display()));
    }
    let given = options.get("priority").and_then(|priority| priority.trim().parse().ok());
    let usual = if main_repo == Some(section) { MAIN_REPO_PRIORITY } else { 0 };
    let masters =
        options.get("masters").map(|names| names.split_whitespace().filter_map(|name| name.parse().ok()).collect());
    Ok(RepoConf { name, location, priority: given.unwrap_or(usual), masters })
}

/// The values of make.conf.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MakeConf {
    values: BTreeMap<String, String>,
}

impl MakeConf {
    /// Loads `usr/share/portage/config/make.globals`, `etc/make.conf` and `etc/portage/make.conf` below `config_root`, each
    /// replacing values of those before; the latter two may be directories, and none need be there. Values that come from the
    /// profile or the environment are not seen.
    ///
    /// # Errors
    /// When a file is there and cannot be read, or is wrong. Portage stops then too.
    pub fn load(config_root: &Path) -> Result<Self, LoadMakeConfError> {
        let mut values = BTreeMap::from([
            ("EPREFIX".to_owned(), String::new()),
            ("PORTAGE_CONFIGROOT".to_owned(), config_root.to_string_lossy().into_owned()),
        ]);
        let old = config_root.join("etc/make.conf");
        let new = config_root.join("etc/portage/make.conf");
        let mut places = vec![config_root.join("usr/share/portage/config/make.globals")];
        // The old place is often a link to the new one, which is then read once.
        if fs::canonicalize(&old).ok() != fs::canonicalize(&new).ok() {
            places.push(old);
        }
        places.push(new);
        for place in places {
            for path in files_below(&place).map_err(GetConfigError::Read)? {
                getconfig::read(&path, &mut values)?;
            }
        }
        Ok(Self { values })
    }

    /// The value of a variable, like `GENTOO_MIRRORS`, `DISTDIR` or `PKGDIR`.
    #[must_use]
    pub fn get(&self, variable: &str) -> Option<&str> {
        self.values.get(variable).map(String::as_str)
    }

    /// All values, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// The file, or all files below the directory, in the order in which Portage reads them: files and directories of one
/// directory sorted together, without hidden ones and backups.
pub(crate) fn files_below(path: &Path) -> Result<Vec<PathBuf>, ReadFileError> {
    let mut files = Vec::new();
    let mut open = vec![path.to_owned()];
    let mut looked_at = 0;
    while let Some(path) = open.pop() {
        looked_at += 1;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with('.') || name.ends_with('~') || looked_at > FILES_MAX {
            continue;
        }
        let stat = match fs::metadata(&path) {
            Ok(stat) => stat,
            // What may not be read must not look like what is not there.
            Err(source) if source.kind() == io::ErrorKind::PermissionDenied => {
                return Err(ReadFileError::Io { path, source });
            }
            Err(_) => continue,
        };
        if stat.is_file() {
            files.push(path);
        } else if stat.is_dir() && !VCS_DIRECTORIES.contains(&name.as_str()) {
            let directory = fs::read_dir(&path).map_err(|source| ReadFileError::Io { path, source })?;
            let mut children: Vec<PathBuf> = directory.flatten().map(|entry| entry.path()).take(FILES_MAX).collect();
            children.sort_unstable_by(|left, right| right.cmp(left));
            open.extend(children);
        }
    }
    Ok(files)
}
