//! Whole small files, written so that a crash leaves the old or the new one: temporary file, fsync, rename, fsync of the directory.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::Path;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::disk::{self, At as _, Disk as _, PathError, RealDisk};

/// Tells temporary files of one process apart.
static TEMPORARY: AtomicU64 = AtomicU64::new(0);

/// Puts bytes at a path, whatever was there, with exactly this mode (as in chmod(2)).
///
/// After `Ok` the bytes survive a power cut; after an error the old file, or none, is still there.
pub fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> Result<(), PathError> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidFilename)).at(path);
    };
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let mut temporary_name = OsString::from(".");
    temporary_name.push(name);
    temporary_name.push(format!(".{}.{}", process::id(), TEMPORARY.fetch_add(1, Ordering::Relaxed)));
    let temporary = dir.join(temporary_name);
    let written = write_new(&temporary, bytes, mode).and_then(|()| RealDisk.rename(&temporary, path));
    if let Err(error) = written {
        // Nothing more can be done about a temporary file that does not go.
        RealDisk.remove(&temporary).unwrap_or_default();
        return Err(error).at(path);
    }
    RealDisk.sync_dir(dir).at(dir)
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = match disk::create_new(path, mode) {
        // Of an earlier process with our number, which is gone.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            RealDisk.remove(path)?;
            disk::create_new(path, mode)?
        }
        created => created?,
    };
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_new_bytes_replace_the_old_with_the_mode_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.key");
        write_atomically(&path, b"old, and longer", 0o644).unwrap();
        write_atomically(&path, b"new", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_failure_leaves_the_old_and_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("taken");
        fs::create_dir(&path).unwrap();
        assert!(write_atomically(&path, b"new", 0o600).is_err());
        assert!(path.is_dir());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(write_atomically(Path::new("/"), b"", 0o600).is_err());
    }
}
