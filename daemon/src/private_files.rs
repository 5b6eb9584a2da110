//! Files that decide who may do what: private keys, which nobody else may read or have written, and the control socket,
//! which is never there with more rights than it keeps.

use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use tokio::net::{UnixListener, UnixStream};

/// Who else may do something with a file.
const OTHERS_BITS: u32 = 0o077;

/// Why a private file is not used.
#[derive(Debug, thiserror::Error)]
pub enum PrivateFileError {
    /// The disk, or rights.
    #[error("cannot use {path}")]
    Path {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others than its owner may read or change it.
    #[error(
        "others may use {path} (mode {mode:o}): take it back with `chmod 600` and think of who may have it already"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Another user made it, who knows what is in it.
    #[error("{path} belongs to user {owner}, and not to the one who runs the daemon: whose key it is, is not known")]
    NotOurs {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// Nothing of the kind that is meant.
    #[error("{path} is not a file of at most {limit} bytes")]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// Bytes.
        limit: u64,
    },
}

/// The content of a file that only its owner, this user or root, may read; none when there is no such file.
///
/// # Errors
/// When it cannot be read, is none, is too large, or others may use it.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, PrivateFileError> {
    let failed = |source| PrivateFileError::Path { path: path.to_owned(), source };
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(failed)?,
    };
    // Of what was opened, not of what lies there by now.
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() || metadata.len() > limit {
        return Err(PrivateFileError::NotAFile { path: path.to_owned(), limit });
    }
    if metadata.mode() & OTHERS_BITS != 0 {
        return Err(PrivateFileError::Exposed { path: path.to_owned(), mode: metadata.mode() & 0o7777 });
    }
    if ![0, rustix::process::geteuid().as_raw()].contains(&metadata.uid()) {
        return Err(PrivateFileError::NotOurs { path: path.to_owned(), owner: metadata.uid() });
    }
    let mut content = Vec::new();
    file.take(limit).read_to_end(&mut content).map_err(failed)?;
    Ok(Some(content))
}

/// Whether somebody answers at a socket, or nobody does and it may be put in the place of what lies there.
///
/// # Errors
/// When something else than a socket lies there.
pub(crate) async fn is_answered(path: &Path) -> Result<bool, PrivateFileError> {
    match UnixStream::connect(path).await {
        Ok(_answers) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        // A dead daemon's socket, and nothing else that may lie there.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && is_socket(path) => Ok(false),
        Err(source) => Err(PrivateFileError::Path { path: path.to_owned(), source }),
    }
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

/// Listens at a socket that has its mode before anybody can find it: it is made in a directory that nobody else may enter,
/// and then moved into the place of what lies at `path`.
///
/// # Errors
/// When it cannot be made there.
pub(crate) fn bind_socket(path: &Path, mode: u32) -> Result<UnixListener, PrivateFileError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // As short as can be: the path of a socket has at most 107 bytes.
    let hidden = folder.join(format!(".{}", std::process::id()));
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| PrivateFileError::Path { path, source }
    };
    // One that another process of this number left when it was killed.
    match std::fs::remove_dir_all(&hidden) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&hidden)(error)),
        _ => {}
    }
    DirBuilder::new().mode(0o700).create(&hidden).map_err(failed(&hidden))?;
    let made = hidden.join("s");
    let bound = UnixListener::bind(&made).map_err(failed(path)).and_then(|listener| {
        std::fs::set_permissions(&made, Permissions::from_mode(mode)).map_err(failed(path))?;
        std::fs::rename(&made, path).map_err(failed(path))?;
        Ok(listener)
    });
    if let Err(error) = std::fs::remove_dir_all(&hidden) {
        tracing::warn!(path = %hidden.display(), %error, "a directory of the start is left over");
    }
    bound
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_others_may_use_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        assert!(read(&path, 10).unwrap().is_none());
        store::write_atomically(&path, b"secret", 0o600).unwrap();
        for mode in 0..0o1000 {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            match read(&path, 10) {
                Ok(content) => {
                    assert_eq!(mode & 0o077, 0, "{mode:o}");
                    assert_eq!(content.unwrap(), b"secret");
                }
                Err(PrivateFileError::Exposed { mode: told, .. }) => {
                    assert!(told == mode && mode & 0o077 != 0, "{mode:o}");
                }
                // Its owner has no right to it.
                Err(PrivateFileError::Path { .. }) => assert_eq!(mode & 0o400, 0, "{mode:o}"),
                Err(error) => panic!("{mode:o}: {error}"),
            }
        }
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(read(&path, 5), Err(PrivateFileError::NotAFile { .. })));
        assert!(matches!(read(dir.path(), 5), Err(PrivateFileError::NotAFile { .. })));
    }

    #[tokio::test]
    async fn a_socket_is_there_with_its_mode_and_in_the_place_of_a_dead_ones() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.sock");
        for _ in 0..2 {
            let listener = bind_socket(&path, 0o660).unwrap();
            assert_eq!(std::fs::symlink_metadata(&path).unwrap().mode() & 0o7777, 0o660);
            assert!(is_answered(&path).await.unwrap());
            drop(listener);
            assert!(!is_answered(&path).await.unwrap(), "nobody answers at what is left of it");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
        let file = dir.path().join("file");
        store::write_atomically(&file, b"", 0o644).unwrap();
        assert!(is_answered(&file).await.is_err());
    }
}
