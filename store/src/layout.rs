//! Every path of a store, and the version of its format.
//!
//! ```text
//! DIR/
//!   VERSION                   "peer store 3"; written last when a store is made
//!   LOCK                      locked while a process has the store open
//!   index/                    RocksDB: what is held, used, pinned, what the trees name, and rows of the daemon
//!   blobs/ab/<128 hex>        verified bytes, mode 0444; 256 directories, all made with the store
//!   incoming/<128 hex>        bytes that are not verified yet
//!   incoming/<128 hex>.link   a file that is being imported by a second name
//!   incoming/<hex>.unnamed    bytes whose digest is not known before their end; gone at the next open
//!   quarantine/<name>.<secs>  what rotted, and when that was seen; never read again
//! ```
//!
//! One level of 256 directories, not two: at 100,000 blobs a directory has 400 names, which every file system likes, while
//! 65,536 directories of one blob each would cost more space and an fsync of a new directory for nearly every blob.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;
use tree::digest::Digest;

use crate::atomic;
use crate::disk::{At as _, Disk, PathError};

/// The format this program writes, and the newest it reads.
///
/// A store of format 1 has an index without the tables of [`crate::RowTable`], one of format 2 lacks the table of groups. Either is
/// raised as it is opened, before these tables are made: RocksDB does not open an index with tables it was not told of, and an earlier
/// program says so of the version instead.
pub const FORMAT_VERSION: u32 = 3;
/// The oldest format that is raised to this one.
const FORMAT_VERSION_MIN: u32 = 1;
const VERSION_PREFIX: &str = "peer store ";
/// A VERSION file is one short line; more is not read.
const VERSION_BYTES_MAX: u64 = 64;

/// Why the VERSION file does not let this program in.
#[derive(Debug, Error)]
pub enum ReadVersionError {
    /// The file cannot be read or written.
    #[error(transparent)]
    Disk(#[from] PathError),
    /// Another program, or a later version of this one, wrote the store.
    #[error("store format {found:?} is not known, expected \"peer store {FORMAT_VERSION}\"")]
    Unknown {
        /// What the file says, cut to its first line.
        found: String,
    },
}

/// Where things are.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn version(&self) -> PathBuf {
        self.root.join("VERSION")
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("LOCK")
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.root.join("index")
    }

    pub(crate) fn incoming_dir(&self) -> PathBuf {
        self.root.join("incoming")
    }

    pub(crate) fn incoming(&self, digest: &Digest) -> PathBuf {
        self.incoming_dir().join(digest.to_string())
    }

    /// Bytes whose digest nobody knows yet. Never a partial: the next open removes it.
    pub(crate) fn unnamed(&self, key: &Digest) -> PathBuf {
        self.incoming_dir().join(format!("{key}.unnamed"))
    }

    /// A second name of a file that is being imported. Never a partial: its bytes are not ours to change.
    pub(crate) fn link(&self, digest: &Digest) -> PathBuf {
        self.incoming_dir().join(format!("{digest}.link"))
    }

    pub(crate) fn quarantine_dir(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    pub(crate) fn quarantined(&self, name: &str, secs: u64) -> PathBuf {
        self.quarantine_dir().join(format!("{name}.{secs}"))
    }

    /// The directories of the blobs, in the order of the digests.
    pub(crate) fn blob_dirs(&self) -> impl Iterator<Item = PathBuf> + '_ {
        (0..=u8::MAX).map(|first| self.blob_dir_of(first))
    }

    pub(crate) fn blob_dir(&self, digest: &Digest) -> PathBuf {
        let [first, ..] = digest.as_bytes();
        self.blob_dir_of(*first)
    }

    fn blob_dir_of(&self, first: u8) -> PathBuf {
        self.root.join("blobs").join(format!("{first:02x}"))
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blob_dir(digest).join(digest.to_string())
    }

    /// Makes what is missing, or checks the version of what is there and raises it.
    pub(crate) fn prepare(&self, disk: &dyn Disk) -> Result<(), ReadVersionError> {
        match disk.open_read(&self.version()) {
            Ok(mut file) => {
                let found = read_version(&mut file, &self.version())?;
                return if found == FORMAT_VERSION { Ok(()) } else { self.write_version() };
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => Err(error).at(&self.version())?,
        }
        for dir in [self.incoming_dir(), self.quarantine_dir(), self.index()].into_iter().chain(self.blob_dirs()) {
            disk.create_dir(&dir).at(&dir)?;
        }
        for dir in [self.root.join("blobs"), self.root.clone()] {
            disk.sync_dir(&dir).at(&dir)?;
        }
        self.write_version()
    }

    fn write_version(&self) -> Result<(), ReadVersionError> {
        let line = format!("{VERSION_PREFIX}{FORMAT_VERSION}\n");
        Ok(atomic::write_atomically(&self.version(), line.as_bytes(), 0o644)?)
    }
}

fn read_version(file: &mut impl Read, path: &Path) -> Result<u32, ReadVersionError> {
    let mut text = Vec::new();
    file.take(VERSION_BYTES_MAX).read_to_end(&mut text).at(path)?;
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().next().unwrap_or_default();
    match line.strip_prefix(VERSION_PREFIX).and_then(|number| number.parse::<u32>().ok()) {
        Some(found @ FORMAT_VERSION_MIN..=FORMAT_VERSION) => Ok(found),
        _ => Err(ReadVersionError::Unknown { found: line.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::disk::RealDisk;

    #[test]
    fn a_blob_lies_under_the_first_two_digits_of_its_digest() {
        let digest = Digest::of(b"abc");
        let path = Layout::new(Path::new("/s")).blob(&digest);
        assert_eq!(path, Path::new("/s/blobs/ba").join(digest.to_string()));
    }

    #[test]
    fn the_version_is_written_once_and_checked_after() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        layout.prepare(&RealDisk).unwrap();
        layout.prepare(&RealDisk).unwrap();
        assert_eq!(fs::read(layout.version()).unwrap(), b"peer store 3\n");
        assert_eq!(layout.blob_dirs().filter(|dir| dir.is_dir()).count(), 256);
    }

    #[test]
    fn a_later_version_or_another_file_is_refused_by_its_words() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let later = ("peer store 4\n", "peer store 4");
        for (text, found) in [later, ("peer store 0\n", "peer store 0"), ("", ""), ("hello\nworld", "hello")] {
            atomic::write_atomically(&layout.version(), text.as_bytes(), 0o644).unwrap();
            match layout.prepare(&RealDisk) {
                Err(ReadVersionError::Unknown { found: said }) => assert_eq!(said, found),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn the_first_format_is_raised_and_its_blobs_stay() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        layout.prepare(&RealDisk).unwrap();
        atomic::write_atomically(&layout.version(), b"peer store 1\n", 0o644).unwrap();
        let blob = layout.blob(&Digest::of(b"abc"));
        atomic::write_atomically(&blob, b"abc", 0o444).unwrap();
        layout.prepare(&RealDisk).unwrap();
        assert_eq!(fs::read(layout.version()).unwrap(), b"peer store 3\n");
        assert_eq!(fs::read(&blob).unwrap(), b"abc");
    }
}
