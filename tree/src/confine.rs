//! Reading files of a repository: bounded, regular files only, and never through a link that leads out of the repositories.
//!
//! A repository is somebody else's, and so are the links in it: one could lead to `/etc/shadow`, or to a pipe. People link
//! packages between repositories all the same (crossdev makes `cross-*/gcc` of `sys-devel/gcc`), and Portage follows. So a
//! link is followed as long as it ends in *a repository that the user configured*: nothing is read that would not be read
//! without it, and what is read there is a Manifest, an ebuild or an md5-cache entry, and is parsed as such. This is the
//! one place that decides it ([`Bounds`]).

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Repositories of one machine.
const REPOSITORIES_MAX: usize = 1000;

/// Why a file was not read.
#[derive(Debug, Error)]
pub enum ReadFileError {
    /// The system refused.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is a directory, a pipe or a device.
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// It leads out of the repositories.
    #[error("{} leads out of the repositories", path.display())]
    Outside {
        /// The path.
        path: PathBuf,
    },
    /// It is larger than allowed.
    #[error("{} has more than {limit} bytes", path.display())]
    TooLarge {
        /// The path.
        path: PathBuf,
        /// The bytes allowed.
        limit: usize,
    },
}

impl ReadFileError {
    /// What was not read.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Io { path, .. } | Self::NotAFile { path } | Self::Outside { path } | Self::TooLarge { path, .. } => {
                path
            }
        }
    }

    /// Whether the file is simply not there.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory))
    }
}

/// The repositories that the links of one may lead into: itself first. All are paths without links.
#[derive(Debug, Clone)]
pub(crate) struct Bounds(Vec<PathBuf>);

impl Bounds {
    /// A repository by itself.
    pub(crate) fn of(root: PathBuf) -> Self {
        Self(vec![root])
    }

    /// With the others that are configured.
    pub(crate) fn with(self, others: impl IntoIterator<Item = PathBuf>) -> Self {
        let mut roots = self.0;
        for other in others {
            if !roots.contains(&other) && roots.len() < REPOSITORIES_MAX {
                roots.push(other);
            }
        }
        Self(roots)
    }

    /// Where a path leads, if that lies in one of them; none where nothing is there.
    pub(crate) fn follow(&self, path: &Path) -> Result<PathBuf, ReadFileError> {
        let real = fs::canonicalize(path).map_err(|source| ReadFileError::Io { path: path.to_owned(), source })?;
        if self.0.iter().any(|root| real.starts_with(root)) {
            Ok(real)
        } else {
            Err(ReadFileError::Outside { path: path.to_owned() })
        }
    }

    /// The whole content of a regular file in one of them.
    pub(crate) fn read(&self, path: &Path, limit: usize) -> Result<Vec<u8>, ReadFileError> {
        read(&self.follow(path)?, limit)
    }
}

/// The whole content of a regular file of at most `limit` bytes.
pub(crate) fn read(path: &Path, limit: usize) -> Result<Vec<u8>, ReadFileError> {
    let failed = |source| ReadFileError::Io { path: path.to_owned(), source };
    // Asked before opening: opening a pipe would wait for its writer.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(ReadFileError::NotAFile { path: path.to_owned() });
    }
    let mut bytes = Vec::new();
    let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path).and_then(|file| file.take(bound).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() > limit {
        return Err(ReadFileError::TooLarge { path: path.to_owned(), limit });
    }
    Ok(bytes)
}

/// The whole content of a regular file that lies within `root`, a path without links.
pub(crate) fn read_within(root: &Path, path: &Path, limit: usize) -> Result<Vec<u8>, ReadFileError> {
    Bounds::of(root.to_owned()).read(path, limit)
}

/// A text file within `root`, or None where there is none; what is not UTF-8 is replaced, as Portage does.
pub(crate) fn text_within(root: &Path, path: &Path, limit: usize) -> Result<Option<String>, ReadFileError> {
    match read_within(root, path, limit) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error),
    }
}
