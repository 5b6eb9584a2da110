//! A second name of a blob, in a directory of the daemon, for a sandbox to read.
//!
//! The name is of the very file that the blob has open, not of whatever lies at its path by then.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::AtFlags;
use thiserror::Error;

use crate::blob::{Blob, STEP_BYTES};
use crate::disk::{self, At as _, PathError};
use crate::import::How;

/// Longest name; file systems have the same bound.
const NAME_BYTES_MAX: usize = 255;

/// Why a blob does not get another name.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The name would leave the directory, hide, or is none.
    #[error("{0:?} is no name for a file of a sandbox")]
    Name(String),
    /// The directory does not take it; when the name is taken, the kind is `AlreadyExists`.
    #[error("cannot give a blob another name: {0}")]
    Disk(#[from] PathError),
}

impl LinkError {
    /// Whether there is no space, so that gc may help.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Disk(error) if error.is_full())
    }
}

impl Blob {
    /// Gives the blob's file a second name in a directory: a hard link where that can be, else a reflink, else a copy; mode 0444.
    ///
    /// The name has no slash and no leading dot and is not taken yet, by a symlink neither; `dir` is a directory and no symlink.
    /// It is for a job that a crash ends: nothing is synced.
    ///
    /// **A hard link is the blob itself.** Whoever owns it can chmod and change it, so it may be seen only through a mount that is
    /// read-only to its reader, and the directory must be out of the reach of anybody else.
    pub fn link_to(&self, dir: &Path, name: &str) -> Result<How, LinkError> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.starts_with('.') || name.contains(['/', '\0']) {
            return Err(LinkError::Name(name.chars().take(NAME_BYTES_MAX).collect()));
        }
        let place = dir.join(name);
        let dir = disk::open_dir(dir).at(dir)?;
        match disk::link_at(self.file(), &dir, name) {
            Ok(()) => return Ok(How::HardLinked),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(error).at(&place)?,
            // Another file system, one without links, too many links, or no right to make one.
            Err(_) => {}
        }
        Ok(self.copy_to(&dir, name).at(&place)?)
    }

    fn copy_to(&self, dir: &OwnedFd, name: &str) -> io::Result<How> {
        let copy = disk::create_at(dir, name)?;
        let filled = match rustix::fs::ioctl_ficlone(&copy, self.file()) {
            Ok(()) => Ok(How::Reflinked),
            Err(_) => self.copy_into(copy).map(|()| How::Copied),
        };
        if filled.is_err() {
            rustix::fs::unlinkat(dir.as_fd(), name, AtFlags::empty()).unwrap_or_default();
        }
        filled
    }

    fn copy_into(&self, mut copy: File) -> io::Result<()> {
        use io::Write as _;
        let (mut step, mut offset) = (vec![0; STEP_BYTES], 0_u64);
        loop {
            let count = match self.read_at(offset, &mut step) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                count => count?,
            };
            copy.write_all(step.get(..count).unwrap_or_default())?;
            offset = offset.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
            match count {
                0 if offset == self.size() => return Ok(()),
                // Somebody cut the file since it was opened.
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use tempfile::TempDir;
    use tree::digest::Digest;

    use super::*;
    use crate::{Options, Store, Wanted};

    fn blob_of(bytes: &[u8]) -> (TempDir, Store, Blob) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Options { free_min_bytes: 0, ..Options::default() }).unwrap();
        let wanted = Wanted { digest: Digest::of(bytes), size: None, sha512: None };
        let mut incoming = store.incoming(&wanted).unwrap();
        incoming.append(bytes).unwrap();
        let blob = incoming.finish().unwrap();
        (dir, store, blob)
    }

    #[test]
    fn a_blob_has_a_second_name_and_stays_when_that_is_taken_away() {
        let (dir, store, blob) = blob_of(b"abc");
        let job = dir.path().join("job");
        fs::create_dir(&job).unwrap();
        assert_eq!(blob.link_to(&job, "foo-1.tar.xz").unwrap(), How::HardLinked);
        let place = job.join("foo-1.tar.xz");
        let (ours, theirs) = (blob.file().metadata().unwrap(), fs::metadata(&place).unwrap());
        assert_eq!((ours.ino(), theirs.permissions().mode() & 0o777), (theirs.ino(), 0o444));
        fs::remove_dir_all(&job).unwrap();
        assert!(store.get(&blob.digest()).unwrap().is_some());
    }

    #[test]
    fn on_another_file_system_a_copy_is_made_that_only_reads() {
        let bytes: Vec<u8> = (0..STEP_BYTES * 2 + 1).map(|at| at.to_le_bytes()[0]).collect();
        let (_dir, _store, blob) = blob_of(&bytes);
        let Ok(other) = tempfile::tempdir_in("/dev/shm") else { return };
        if fs::metadata(other.path()).unwrap().dev() == blob.file().metadata().unwrap().dev() {
            return;
        }
        assert_eq!(blob.link_to(other.path(), "foo").unwrap(), How::Copied);
        let place = other.path().join("foo");
        assert_eq!(fs::read(&place).unwrap(), bytes);
        assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o444);
    }

    #[test]
    fn a_copy_takes_no_name_that_is_taken_and_has_every_byte() {
        let bytes = vec![9; STEP_BYTES + 1];
        let (dir, _store, blob) = blob_of(&bytes);
        let opened = disk::open_dir(dir.path()).unwrap();
        assert!(matches!(blob.copy_to(&opened, "foo").unwrap(), How::Copied | How::Reflinked));
        assert_eq!(fs::read(dir.path().join("foo")).unwrap(), bytes);
        assert_eq!(blob.copy_to(&opened, "foo").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        let file = disk::create_at(&opened, "bar").unwrap();
        blob.copy_into(file).unwrap();
        assert_eq!(fs::read(dir.path().join("bar")).unwrap(), bytes);
    }

    #[test]
    fn names_that_leave_the_directory_or_hide_are_refused() {
        let (dir, _store, blob) = blob_of(b"abc");
        let job = dir.path().join("job");
        fs::create_dir(&job).unwrap();
        for name in ["", ".", "..", ".hidden", "a/b", "../escaped", "/abs", "a\0b", &"x".repeat(256)] {
            assert!(matches!(blob.link_to(&job, name), Err(LinkError::Name(_))), "{name:?}");
        }
        assert_eq!(fs::read_dir(&job).unwrap().count(), 0);
        assert!(blob.link_to(&job, &"x".repeat(255)).is_ok());
    }

    #[test]
    fn a_link_or_a_file_in_the_way_is_neither_followed_nor_replaced() {
        let (dir, _store, blob) = blob_of(b"abc");
        let (job, elsewhere) = (dir.path().join("job"), dir.path().join("elsewhere"));
        fs::create_dir(&job).unwrap();
        std::os::unix::fs::symlink(&elsewhere, job.join("dangling")).unwrap();
        fs::hard_link(blob.path(), job.join("taken")).unwrap();
        for name in ["dangling", "taken"] {
            match blob.link_to(&job, name) {
                Err(LinkError::Disk(error)) => assert_eq!(error.source.kind(), io::ErrorKind::AlreadyExists),
                other => panic!("{name}: {other:?}"),
            }
        }
        assert!(!elsewhere.exists());
        std::os::unix::fs::symlink(&job, dir.path().join("linked-job")).unwrap();
        assert!(matches!(blob.link_to(&dir.path().join("linked-job"), "foo"), Err(LinkError::Disk(_))));
        assert!(!job.join("foo").exists());
    }
}
