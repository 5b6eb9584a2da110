//! The configured repositories: repos.conf (portage(5)), PORTDIR and PORTDIR_OVERLAY, by the rules of Portage's own
//! `RepoConfigLoader` (`portage/repository/config.py`): the same names, order, masters and main repository.
//!
//! What Portage passes over is told with its place.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use crate::conf::files_below;
use crate::confine::{self, ReadFileError};
use crate::eclass::{EclassDir, Eclasses};
use crate::ini::ParseIniError;
use crate::name::{ParseNameError, RepoName};
use crate::repo::{EbuildRepo, OpenRepoError};
use crate::repos_loading::Loading;
use crate::shell_words::SplitWordsError;

/// Bytes of one repos.conf file.
const FILE_BYTES_MAX: usize = 4 << 20;
/// Repositories of one machine; all overlays that are listed publicly are some 400.
pub(crate) const REPOS_MAX: usize = 4096;

/// Why the configuration of the repositories cannot be used at all.
#[derive(Debug, Error)]
pub enum LoadReposConfError {
    /// A file is there and cannot be read.
    #[error("cannot read repos.conf")]
    Read(#[source] ReadFileError),
}

/// Where something is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// In a file, at a line from 1 where it has one.
    File {
        /// The file.
        path: PathBuf,
        /// The line.
        line: Option<usize>,
    },
    /// In a variable of make.conf or the environment.
    Variable(&'static str),
    /// In a text that was given.
    Given,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line: Some(line) } => write!(f, "{} line {line}", path.display()),
            Self::File { path, line: None } => write!(f, "{}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Given => f.write_str("the given repositories"),
        }
    }
}

/// Something that Portage passes over, or takes otherwise than it may be meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Where it is written.
    pub origin: Origin,
    /// The section, if it is one.
    pub section: Option<String>,
    /// Why.
    pub why: LeftOutWhy,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if let Some(section) = &self.section {
            write!(f, "[{section}]: ")?;
        }
        write!(f, "{}", self.why)
    }
}

/// Why something is left out.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LeftOutWhy {
    /// One fault voids all files.
    #[error("{0}; Portage then uses no repos.conf at all")]
    Faulty(ParseIniError),
    /// make.conf, which may have PORTDIR and PORTDIR_OVERLAY.
    #[error("PORTDIR and PORTDIR_OVERLAY are not known: {0}")]
    MakeConf(String),
    /// No location.
    #[error("it has no location")]
    NoLocation,
    /// The location is no directory.
    #[error("{} is not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// The location depends on where a program was started.
    #[error("{} is not an absolute path", .0.display())]
    Relative(PathBuf),
    /// The repository calls itself otherwise and names no such alias.
    #[error("the repository at {} is named {name}, so the section must be [{name}]", location.display())]
    OtherName {
        /// The repository's name.
        name: String,
        /// Where it is.
        location: PathBuf,
    },
    /// The name could not stand in an atom.
    #[error("the repository at {} has no usable name: {source}", location.display())]
    Name {
        /// Where it is.
        location: PathBuf,
        /// What is wrong with it.
        source: ParseNameError,
    },
    /// Another repository has the name.
    #[error("the name {name} already means the repository at {}", by.display())]
    Taken {
        /// The name.
        name: String,
        /// Where the other one is.
        by: PathBuf,
    },
    /// A later source replaces it.
    #[error("{variable} replaces its location {}", location.display())]
    Replaced {
        /// Which variable.
        variable: &'static str,
        /// What was configured before.
        location: PathBuf,
    },
    /// A master that is not configured.
    #[error("its master {0:?} is not configured, so eclasses and licence groups of that are not known")]
    NoMaster(String),
    /// The main repository is not configured.
    #[error("main-repo {0:?} is not configured")]
    NoMain(String),
    /// Words that cannot be told apart.
    #[error(transparent)]
    Words(#[from] SplitWordsError),
    /// More repositories than anyone has.
    #[error("more than {REPOS_MAX} repositories")]
    TooMany,
}

/// One configured repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoConf {
    /// Its name.
    pub name: RepoName,
    /// Its directory, without links.
    pub location: PathBuf,
    /// Its priority: the repository with the highest wins.
    pub priority: i64,
    /// The repositories it builds on, by the names under which they are configured; a main repository that is missing is
    /// one too.
    pub masters: Vec<RepoName>,
    /// Whether all its masters are configured.
    pub has_all_masters: bool,
    /// The repositories whose eclasses its ebuilds inherit, the last before the others.
    pub eclasses_of: Vec<PathBuf>,
    /// Where it is configured.
    pub origin: Origin,
}

impl RepoConf {
    /// Opens the repository under its name, with the eclasses that it may inherit. `known` are eclasses that were listed
    /// already, by repository: many have the same masters.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(&self, known: &mut BTreeMap<PathBuf, Arc<EclassDir>>) -> Result<EbuildRepo, OpenRepoError> {
        let mut repo = EbuildRepo::open_as(&self.location, Some(&self.name))?;
        let mut eclasses = Vec::new();
        for place in &self.eclasses_of {
            let directory = match known.get(place) {
                Some(directory) => Arc::clone(directory),
                None => Arc::new(EclassDir::open(place).map_err(|source| {
                    let path = self.location.clone();
                    OpenRepoError::Eclasses { path, source }
                })?),
            };
            known.insert(place.clone(), Arc::clone(&directory));
            eclasses.push(directory);
        }
        repo.set_eclasses(Eclasses::new(eclasses));
        Ok(repo)
    }
}

/// The configured repositories.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReposConf {
    /// The repositories that are there, lowest priority first: the main repository stands before its overlays.
    pub repos: Vec<RepoConf>,
    /// The name of the main repository, if one is configured, whether it is there or not.
    pub main_repo: Option<RepoName>,
    /// Every location as it is written, also of what was left out: the links that lead to a repository.
    pub written: Vec<PathBuf>,
    /// What was left out and why.
    pub problems: Vec<LeftOut>,
}

/// What an environment says about the repositories, which counts before all files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RepoVariables {
    /// `PORTAGE_REPOSITORIES`: the text that is read instead of every repos.conf.
    pub repositories: Option<String>,
    /// `PORTDIR`.
    pub portdir: Option<String>,
    /// `PORTDIR_OVERLAY`.
    pub portdir_overlay: Option<String>,
}

impl ReposConf {
    /// Loads `usr/share/portage/config/repos.conf` and then `etc/portage/repos.conf` below `config_root`, each a file or a
    /// directory, and PORTDIR and PORTDIR_OVERLAY of make.conf, as Portage does; nothing of it need be there. Locations are
    /// taken as they are written, not below `config_root`.
    ///
    /// # Errors
    /// When a file is there and cannot be read.
    pub fn load(config_root: &Path) -> Result<Self, LoadReposConfError> {
        Self::load_in(config_root, &RepoVariables::default())
    }

    /// As [`ReposConf::load`], in an environment that has these variables.
    ///
    /// # Errors
    /// When a file is there and cannot be read.
    pub fn load_in(config_root: &Path, variables: &RepoVariables) -> Result<Self, LoadReposConfError> {
        let mut loading = Loading::new(config_root);
        if let Some(text) = &variables.repositories {
            loading.text(text);
            return Ok(loading.finish());
        }
        for place in ["usr/share/portage/config/repos.conf", "etc/portage/repos.conf"] {
            for path in files_below(&config_root.join(place)).map_err(LoadReposConfError::Read)? {
                let bytes = confine::read(&path, FILE_BYTES_MAX).map_err(LoadReposConfError::Read)?;
                loading.file(path, &bytes);
            }
        }
        loading.sections();
        loading.variables(config_root, variables);
        Ok(loading.finish())
    }

    /// Reads a text as Portage reads `PORTAGE_REPOSITORIES`: nothing else counts.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut loading = Loading::new(Path::new("/"));
        loading.text(text);
        loading.finish()
    }

    /// A repos.conf that means these repositories and no others, for a Portage that shall read nothing else.
    #[must_use]
    pub fn to_text(&self) -> String {
        let main = self.main_repo.iter().map(|name| format!("main-repo = {name}\n"));
        let section = |repo: &RepoConf| {
            let masters: Vec<&str> = repo.masters.iter().map(RepoName::as_str).collect();
            let location = repo.location.display().to_string().replace('%', "%%");
            let (name, priority, masters) = (&repo.name, repo.priority, masters.join(" "));
            format!("[{name}]\nlocation = {location}\npriority = {priority}\nmasters = {masters}\n")
        };
        let header = std::iter::once("[DEFAULT]\n".to_owned());
        header.chain(main).chain(self.repos.iter().map(section)).collect()
    }

    /// The repository of this name.
    #[must_use]
    pub fn get(&self, name: &RepoName) -> Option<&RepoConf> {
        self.repos.iter().find(|repo| repo.name == *name)
    }
}
