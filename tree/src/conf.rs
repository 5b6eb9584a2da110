//! Portage's configuration, as far as it is read here: make.conf (make.conf(5)) and, in a room of its own, repos.conf.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::getconfig;

pub use crate::confine::ReadFileError;
pub use crate::custom_mirrors::CustomMirrors;
pub use crate::expand::ExpandError;
pub use crate::getconfig::{ConfFault, GetConfigError};
pub use crate::ini::ParseIniError;
pub use crate::repos_conf::{LeftOut, LeftOutWhy, LoadReposConfError, Origin, RepoConf, RepoVariables, ReposConf};

/// Files of a configuration directory.
const FILES_MAX: usize = 1024;
/// Directories of version control that are not hidden, which Portage passes over.
const VCS_DIRECTORIES: [&str; 3] = ["CVS", "RCS", "SCCS"];

/// Why make.conf cannot be used.
#[derive(Debug, Error)]
#[error("cannot use make.conf")]
pub struct LoadMakeConfError(#[from] pub GetConfigError);

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
        let mut values = first_values(config_root);
        for place in make_conf_places(config_root) {
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

/// What may be used in make.conf before anything is set there.
pub(crate) fn first_values(config_root: &Path) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("EPREFIX".to_owned(), String::new()),
        ("PORTAGE_CONFIGROOT".to_owned(), config_root.to_string_lossy().into_owned()),
    ])
}

/// The files or directories that make up make.conf, in the order in which they are read.
pub(crate) fn make_conf_places(config_root: &Path) -> Vec<PathBuf> {
    let old = config_root.join("etc/make.conf");
    let new = config_root.join("etc/portage/make.conf");
    let mut places = vec![config_root.join("usr/share/portage/config/make.globals")];
    // The old place is often a link to the new one, which is then read once.
    if fs::canonicalize(&old).ok() != fs::canonicalize(&new).ok() {
        places.push(old);
    }
    places.push(new);
    places
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
