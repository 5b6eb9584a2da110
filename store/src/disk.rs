//! The disk as the store sees it: few verbs, one real disk, and room for one that fails when a test says so.
//!
//! Every change of the disk goes through [`Disk`], the commits of the index too, so that a test can fail the n-th of them or
//! keep only what was synced before it.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, CWD, FallocateFlags, Mode, OFlags};
use thiserror::Error;

/// Mode of a blob: nobody writes to it any more.
pub const BLOB_MODE: u32 = 0o444;
/// Mode of bytes that are not verified yet: nobody else reads them.
const PARTIAL_MODE: u32 = 0o600;

/// What went wrong, and where on the disk.
#[derive(Debug, Error)]
#[error("{}: {source}", path.display())]
pub struct PathError {
    /// The file or directory.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

impl PathError {
    /// Whether the disk, or the quota on it, is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }

    /// Whether there is no such file.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

/// Says at which path an error of the system happened.
pub(crate) trait At<T> {
    fn at(self, path: &Path) -> Result<T, PathError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, path: &Path) -> Result<T, PathError> {
        self.map_err(|source| PathError { path: path.to_path_buf(), source })
    }
}

/// One file of a directory.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Its name within the directory.
    pub name: OsString,
    /// Bytes in it.
    pub size: u64,
    /// When it was last written, seconds since 1970.
    pub modified_secs: u64,
}

/// The verbs of the disk. The handle says what is written, the path beside it is for errors and for tests.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Makes a directory and those above it; nothing when it is there.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Opens for reading and writing bytes that are not verified yet, and makes the file if it is not there.
    fn open_partial(&self, path: &Path) -> io::Result<File>;
    /// Opens a regular file for reading; anything else (a pipe, a device) is an error, never a wait.
    fn open_read(&self, path: &Path) -> io::Result<File>;
    /// Writes all bytes at a place.
    fn append(&self, file: &File, path: &Path, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts the file, and gives back what was reserved behind its end.
    fn truncate(&self, file: &File, path: &Path, len: u64) -> io::Result<()>;
    /// Sets space aside without changing the length; nothing on a file system that cannot.
    fn reserve(&self, file: &File, path: &Path, len: u64) -> io::Result<()>;
    /// Makes `to` share the bytes of `from` (`FICLONE`).
    fn reflink(&self, from: &File, to: &File, to_path: &Path) -> io::Result<()>;
    /// Gives the file a second name.
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes the file read-only for everybody.
    fn seal(&self, file: &File, path: &Path) -> io::Result<()>;
    /// Waits until the bytes are on the disk.
    fn sync(&self, file: &File, path: &Path) -> io::Result<()>;
    /// Waits until the names of a directory are on the disk.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Moves a file to another name, in one step.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Takes a file's name away.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// The regular files of a directory.
    fn list(&self, path: &Path) -> io::Result<Vec<Listed>>;
    /// Bytes that may still be written to the file system of a directory.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
    /// Does one commit of the index; `synced` says that it waits for the disk.
    fn commit(&self, write: &mut dyn FnMut() -> io::Result<()>, synced: bool) -> io::Result<()>;
}

/// The disk of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one place that opens files for writing")]
    fn open_partial(&self, path: &Path) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(PARTIAL_MODE);
        options.custom_flags(flag_bits(OFlags::NOFOLLOW | OFlags::CLOEXEC));
        match options.open(path) {
            // A crash between sealing and renaming leaves a read-only partial.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                fs::set_permissions(path, Permissions::from_mode(PARTIAL_MODE))?;
                options.open(path)
            }
            opened => opened,
        }
    }

    #[expect(clippy::disallowed_methods, reason = "reads only; the flags keep a pipe from blocking")]
    fn open_read(&self, path: &Path) -> io::Result<File> {
        let flags = flag_bits(OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY);
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        if file.metadata()?.is_file() {
            Ok(file)
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
        }
    }

    fn append(&self, file: &File, _path: &Path, at: u64, bytes: &[u8]) -> io::Result<()> {
        file.write_all_at(bytes, at)
    }

    fn truncate(&self, file: &File, _path: &Path, len: u64) -> io::Result<()> {
        file.set_len(len)
    }

    fn reserve(&self, file: &File, _path: &Path, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, 0, len) {
            Err(rustix::io::Errno::NOSPC) => Err(io::ErrorKind::StorageFull.into()),
            Err(rustix::io::Errno::DQUOT) => Err(io::ErrorKind::QuotaExceeded.into()),
            // Everything else only means that this file system does not reserve.
            _ => Ok(()),
        }
    }

    fn reflink(&self, from: &File, to: &File, _to_path: &Path) -> io::Result<()> {
        Ok(rustix::fs::ioctl_ficlone(to, from)?)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn seal(&self, file: &File, _path: &Path) -> io::Result<()> {
        file.set_permissions(Permissions::from_mode(BLOB_MODE))
    }

    fn sync(&self, file: &File, _path: &Path) -> io::Result<()> {
        file.sync_all()
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Listed>> {
        let mut listed = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let metadata = match entry.metadata() {
                // Somebody else took it away since.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                metadata => metadata?,
            };
            if metadata.is_file() {
                let modified_secs = metadata.modified().map_or(0, secs_since_1970);
                listed.push(Listed { name: entry.file_name(), size: metadata.len(), modified_secs });
            }
        }
        Ok(listed)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn commit(&self, write: &mut dyn FnMut() -> io::Result<()>, _synced: bool) -> io::Result<()> {
        write()
    }
}

/// Makes a file that must not be there yet, with exactly this mode.
#[expect(clippy::disallowed_methods, reason = "this is the one place that opens files for writing")]
pub(crate) fn create_new(path: &Path, mode: u32) -> io::Result<File> {
    let flags = flag_bits(OFlags::NOFOLLOW | OFlags::CLOEXEC);
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).custom_flags(flags).open(path)?;
    // The umask may have taken bits away.
    file.set_permissions(Permissions::from_mode(mode))?;
    Ok(file)
}

/// Opens a directory that names are made in; a symlink to one is an error.
pub(crate) fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Gives an open file another name, which must not be there yet.
pub(crate) fn link_at(file: &File, dir: &OwnedFd, name: &str) -> io::Result<()> {
    // By its number, since AT_EMPTY_PATH is for those with CAP_DAC_READ_SEARCH.
    let own = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(rustix::fs::linkat(CWD, own, dir, name, AtFlags::SYMLINK_FOLLOW)?)
}

/// Makes a file that must not be there yet and that nobody writes to by its name, mode 0444.
pub(crate) fn create_at(dir: &OwnedFd, name: &str) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(BLOB_MODE))?);
    // The umask may have taken bits away.
    file.set_permissions(Permissions::from_mode(BLOB_MODE))?;
    Ok(file)
}

/// Opens the lock file of a store, and makes it if it is not there.
#[expect(clippy::disallowed_methods, reason = "this is the one place that opens files for writing")]
pub(crate) fn open_lock(path: &Path) -> io::Result<File> {
    let flags = flag_bits(OFlags::NOFOLLOW | OFlags::CLOEXEC);
    OpenOptions::new().write(true).create(true).truncate(false).mode(PARTIAL_MODE).custom_flags(flags).open(path)
}

/// Seconds from 1970 to a moment; 0 before that.
pub(crate) fn secs_since_1970(moment: SystemTime) -> u64 {
    moment.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn flag_bits(flags: OFlags) -> i32 {
    // The bits of open(2) are an int; all that are used here are far below its sign.
    i32::try_from(flags.bits()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_is_refused_and_never_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert_eq!(RealDisk.open_read(&path).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(RealDisk.open_read(dir.path()).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_partial_is_opened_again_after_it_was_sealed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("partial");
        let file = RealDisk.open_partial(&path).unwrap();
        RealDisk.append(&file, &path, 0, b"abc").unwrap();
        RealDisk.seal(&file, &path).unwrap();
        let again = RealDisk.open_partial(&path).unwrap();
        assert_eq!(again.metadata().unwrap().len(), 3);
    }

    #[test]
    fn a_partial_never_follows_a_link_out_of_the_store() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("partial");
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &path).unwrap();
        assert!(RealDisk.open_partial(&path).is_err());
        assert!(!dir.path().join("elsewhere").exists());
    }

    #[test]
    fn reserved_space_does_not_change_the_length() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("partial");
        let file = RealDisk.open_partial(&path).unwrap();
        RealDisk.reserve(&file, &path, 1 << 20).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 0);
    }
}
