//! Files that are there already, taken in without copying where the file system can share.
//!
//! What is hashed is always what is kept: our reflink, our copy, our link; never the source, which may change meanwhile.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use thiserror::Error;

use crate::blob::{Blob, STEP_BYTES};
use crate::disk::{At as _, PathError};
use crate::incoming::Incoming;
use crate::incoming_error::{AppendError, FinishError, IncomingError};
use crate::{GetError, Store, Wanted};

/// Which ways a file may be taken in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImportOptions {
    /// Also share the file itself, by a second name, when it cannot be reflinked.
    ///
    /// Off by default, because the file then belongs to two: it becomes read-only (mode 0444) under its old name too, and a program
    /// that has it open for writing, or its owner after a chmod, can still change the blob, which only a scrub notices.
    /// Done only when the file is ours, has one name, and lies on the store's file system; a copy is made otherwise.
    pub hard_link: bool,
}

/// How a file was taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// The bytes were held before; the file was not looked at.
    Present,
    /// The file system shares the bytes until somebody writes.
    Reflinked,
    /// The file has a second name in the store.
    HardLinked,
    /// The bytes are there twice.
    Copied,
}

/// A file that was taken in.
#[derive(Debug)]
pub struct Imported {
    /// Its bytes, verified.
    pub blob: Blob,
    /// What it cost.
    pub how: How,
}

/// Why a file is not taken in; it is as it was.
#[derive(Debug, Error)]
pub enum ImportError {
    /// The file cannot be read.
    #[error("cannot read {0}")]
    Source(#[source] PathError),
    /// The file has another size than is wanted.
    #[error("the file has {actual} bytes, expected {expected}")]
    WrongSize {
        /// Bytes wanted.
        expected: u64,
        /// Bytes of the file.
        actual: u64,
    },
    /// The store does not start.
    #[error(transparent)]
    Incoming(#[from] IncomingError),
    /// The store does not take the bytes.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The bytes are not those that are wanted, or cannot be kept.
    #[error(transparent)]
    Finish(#[from] FinishError),
    /// The bytes are held but cannot be opened.
    #[error(transparent)]
    Get(#[from] GetError),
}

impl ImportError {
    /// Whether there is no space, so that gc may help.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            Self::Incoming(error) => error.is_full(),
            Self::Append(error) => error.is_full(),
            Self::Finish(error) => error.is_full(),
            Self::Source(_) | Self::WrongSize { .. } | Self::Get(_) => false,
        }
    }
}

pub(crate) fn import(
    store: &Store,
    path: &Path,
    wanted: &Wanted,
    options: ImportOptions,
) -> Result<Imported, ImportError> {
    if let Some(blob) = store.get(&wanted.digest)? {
        return Ok(Imported { blob, how: How::Present });
    }
    let source = store.inner.disk.open_read(path).at(path).map_err(ImportError::Source)?;
    let metadata = source.metadata().at(path).map_err(ImportError::Source)?;
    let expected = wanted.size.unwrap_or(metadata.len());
    if metadata.len() != expected {
        return Err(ImportError::WrongSize { expected, actual: metadata.len() });
    }
    let mut incoming = match store.incoming(&Wanted { size: Some(expected), ..*wanted }) {
        // A file without a row was adopted just now.
        Err(IncomingError::AlreadyHeld(digest)) => {
            let blob = store.get(&digest)?.ok_or(IncomingError::AlreadyHeld(digest))?;
            return Ok(Imported { blob, how: How::Present });
        }
        incoming => incoming?,
    };
    incoming.restart()?;
    let filled = fill(store, &mut incoming, (path, &source, &metadata), options);
    let imported = match filled {
        Ok(how) => incoming.finish().map(|blob| Imported { blob, how }).map_err(ImportError::Finish),
        Err(error) => {
            incoming.discard();
            Err(error)
        }
    };
    if imported.is_err() && options.hard_link {
        // It may have been sealed for nothing.
        source.set_permissions(metadata.permissions()).unwrap_or_default();
    }
    imported
}

fn fill(
    store: &Store,
    incoming: &mut Incoming,
    (path, source, metadata): (&Path, &File, &Metadata),
    options: ImportOptions,
) -> Result<How, ImportError> {
    let disk = &*store.inner.disk;
    if disk.reflink(source, incoming.file(), incoming.path()).is_ok() {
        incoming.take_reflinked().map_err(FinishError::Disk)?;
        return Ok(How::Reflinked);
    }
    if options.hard_link && hard_link(store, incoming, path, metadata)? {
        return Ok(How::HardLinked);
    }
    let mut step = vec![0; STEP_BYTES];
    loop {
        let count = match source.read_at(&mut step, incoming.len()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            count => count.at(path).map_err(ImportError::Source)?,
        };
        if count == 0 {
            return Ok(How::Copied);
        }
        incoming.append(step.get(..count).unwrap_or_default())?;
    }
}

/// Gives the file a second name beside the partials and takes that; false when that is not safe or not possible.
///
/// The name is not a partial's: after a crash nobody takes it up and writes to it, and the next open removes it.
fn hard_link(store: &Store, incoming: &mut Incoming, path: &Path, metadata: &Metadata) -> Result<bool, ImportError> {
    let ours = metadata.uid() == rustix::process::geteuid().as_raw();
    if !ours || metadata.nlink() != 1 {
        return Ok(false);
    }
    let disk = &*store.inner.disk;
    let link = store.inner.layout.link(&incoming.digest());
    let linked = disk.hard_link(path, &link).and_then(|()| disk.open_read(&link));
    let identity = |of: &Metadata| (of.dev(), of.ino());
    let same = |file: &File| file.metadata().is_ok_and(|now| identity(&now) == identity(metadata));
    match linked {
        Ok(file) if same(&file) => {
            // Sealed before it is hashed: who opens it for writing from here on is refused.
            disk.seal(&file, &link).at(&link).map_err(FinishError::Disk)?;
            incoming.take_linked(file, link).map_err(FinishError::Disk)?;
            Ok(true)
        }
        // Another file was put at the path meanwhile, or the file system has no links.
        _ => {
            disk.remove(&link).unwrap_or_default();
            Ok(false)
        }
    }
}
