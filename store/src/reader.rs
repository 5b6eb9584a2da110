//! Reading along with bytes that are still coming in.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How far the bytes are, for those who read along.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) len: AtomicU64,
    pub(crate) restarts: AtomicU64,
}

/// Reads bytes as they come in, **before they are verified**: only for one who verifies them, or cuts off before the last ones.
///
/// It has its own file handle: it reads on after the incoming became a blob, and also after that was removed.
#[derive(Debug)]
pub struct IncomingReader {
    pub(crate) file: File,
    pub(crate) written: Arc<Written>,
    pub(crate) restarts: u64,
}

impl IncomingReader {
    /// Bytes that can be read now.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "an empty one is nothing special")]
    pub fn len(&self) -> u64 {
        self.written.len.load(Ordering::Acquire)
    }

    /// Reads some bytes from a place on; 0 when none came so far.
    ///
    /// An error of kind `StaleNetworkFileHandle` says that the writer started over: what was read before may be wrong.
    pub fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.len().saturating_sub(offset)).unwrap_or(usize::MAX);
        let count = left.min(bytes.len());
        let read = self.file.read_at(bytes.get_mut(..count).unwrap_or_default(), offset)?;
        // Asked after reading: bytes of before and after a restart never mix unnoticed.
        if self.written.restarts.load(Ordering::Acquire) == self.restarts {
            Ok(read)
        } else {
            Err(io::ErrorKind::StaleNetworkFileHandle.into())
        }
    }
}
