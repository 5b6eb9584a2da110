//! Steps of bodies on their way between disk and network: pieces of memory that are used again.
//!
//! A body of a gigabyte takes four thousand steps. Fetching each from the allocator, zeroed, costs a fifth of the whole
//! transfer; the few that are on the way at one time are kept here instead.

use bytes::Bytes;
use std::sync::{Mutex, PoisonError};

/// Bytes of one buffer: one step of a body.
pub const STEP_BYTES: usize = 256 * 1024;
/// Buffers kept for the next step; those beyond go back to the allocator.
const KEPT_MAX: usize = 32;

static KEPT: Mutex<Vec<Box<[u8]>>> = Mutex::new(Vec::new());

/// A buffer of up to [`STEP_BYTES`] whose old content means nothing.
#[derive(Debug)]
pub struct Buffer {
    bytes: Box<[u8]>,
    length: usize,
}

impl Buffer {
    /// A buffer of `length` bytes, at most [`STEP_BYTES`].
    #[must_use]
    pub fn take(length: usize) -> Self {
        let length = length.min(STEP_BYTES);
        // A short one is cheap to make; keeping a large one for it would waste memory.
        if length <= STEP_BYTES / 2 {
            return Self { bytes: vec![0; length].into(), length };
        }
        let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Self { bytes: kept.unwrap_or_else(|| vec![0; STEP_BYTES].into()), length }
    }

    /// All of it, to be written.
    pub fn room(&mut self) -> &mut [u8] {
        self.bytes.get_mut(..self.length).unwrap_or_default()
    }

    /// The first `filled` bytes; the memory comes back here when the last handle to them is gone.
    #[must_use]
    pub fn freeze(mut self, filled: usize) -> Bytes {
        self.length = filled.min(self.length);
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.bytes.len() == STEP_BYTES {
            let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() < KEPT_MAX {
                kept.push(std::mem::take(&mut self.bytes));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_what_is_given() {
        for length in [0, 1, STEP_BYTES / 2, STEP_BYTES, STEP_BYTES + 1] {
            let mut buffer = Buffer::take(length);
            let length = length.min(STEP_BYTES);
            assert_eq!(buffer.room().len(), length);
            buffer.room().fill(7);
            let filled = length / 3;
            assert_eq!(buffer.freeze(filled), vec![7; filled]);
        }
    }

    #[test]
    fn no_more_than_the_bound_is_kept() {
        let buffers: Vec<_> = (0..2 * KEPT_MAX).map(|_| Buffer::take(STEP_BYTES)).collect();
        drop(buffers);
        assert!(KEPT.lock().unwrap().len() <= KEPT_MAX);
    }
}
