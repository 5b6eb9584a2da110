//! What must stay: pins that the user set, which live in the index, and blobs that are open, which live in memory.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use thiserror::Error;
use tree::digest::Digest;

use crate::locked;

/// Longest name of a pin root in bytes: a line a person can read.
pub const PIN_ROOT_BYTES_MAX: usize = 256;

/// Why something is kept: an atom, a set, a reason in the user's words. 1 to 256 bytes, no control characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PinRoot(String);

/// Why a text is not the name of a pin root.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParsePinRootError {
    /// There is no text.
    #[error("the name of a pin is empty")]
    Empty,
    /// The text is too long.
    #[error("the name of a pin has {found} bytes, at most {PIN_ROOT_BYTES_MAX} are allowed")]
    Long {
        /// Bytes of the text.
        found: usize,
    },
    /// The text would garble a list of pins.
    #[error("the name of a pin has the control character {0:?}")]
    Control(char),
}

impl PinRoot {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PinRoot {
    type Err = ParsePinRootError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err(ParsePinRootError::Empty);
        }
        if text.len() > PIN_ROOT_BYTES_MAX {
            return Err(ParsePinRootError::Long { found: text.len() });
        }
        match text.chars().find(|letter| letter.is_control()) {
            Some(letter) => Err(ParsePinRootError::Control(letter)),
            None => Ok(Self(text.to_owned())),
        }
    }
}

impl fmt::Display for PinRoot {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// One thing kept for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// Why it is kept.
    pub root: PinRoot,
    /// What is kept, or will be once it is held.
    pub digest: Digest,
}

/// Who has what in hand at this moment.
#[derive(Debug, Default)]
pub(crate) struct InUse {
    state: Mutex<State>,
    left: Condvar,
}

#[derive(Debug, Default)]
struct State {
    open: HashMap<Digest, usize>,
    incoming: HashSet<Digest>,
    leaving: HashSet<Digest>,
}

/// Keeps a blob from being removed while somebody reads it.
#[must_use = "the blob may be removed as soon as this is dropped"]
pub struct PinGuard {
    in_use: Arc<InUse>,
    digest: Digest,
}

/// The right to write the bytes of one digest; there is one at a time.
#[must_use = "another writer may start as soon as this is dropped"]
pub(crate) struct IncomingTicket {
    in_use: Arc<InUse>,
    digest: Digest,
}

/// The right to remove one blob: nobody has it open, and nobody gets it until this is dropped.
#[must_use = "the blob may be opened as soon as this is dropped"]
pub(crate) struct LeavingTicket {
    in_use: Arc<InUse>,
    digest: Digest,
}

impl InUse {
    /// None while the blob is being removed.
    pub(crate) fn open(self: &Arc<Self>, digest: &Digest) -> Option<PinGuard> {
        let mut state = locked(&self.state);
        if state.leaving.contains(digest) {
            return None;
        }
        *state.open.entry(*digest).or_default() += 1;
        Some(PinGuard { in_use: Arc::clone(self), digest: *digest })
    }

    /// None when there is a writer. Waits for a removal, which is a few calls to the disk.
    pub(crate) fn begin_incoming(self: &Arc<Self>, digest: &Digest) -> Option<IncomingTicket> {
        let state = locked(&self.state);
        let leaving = |state: &mut State| state.leaving.contains(digest);
        let mut state = self.left.wait_while(state, leaving).unwrap_or_else(PoisonError::into_inner);
        state.incoming.insert(*digest).then(|| IncomingTicket { in_use: Arc::clone(self), digest: *digest })
    }

    /// None when the blob has a writer, is being removed already or, unless `even_open`, is open.
    pub(crate) fn begin_leaving(self: &Arc<Self>, digest: &Digest, even_open: bool) -> Option<LeavingTicket> {
        let mut state = locked(&self.state);
        if state.incoming.contains(digest) || (!even_open && state.open.contains_key(digest)) {
            return None;
        }
        state.leaving.insert(*digest).then(|| LeavingTicket { in_use: Arc::clone(self), digest: *digest })
    }

    pub(crate) fn is_open(&self, digest: &Digest) -> bool {
        let state = locked(&self.state);
        state.open.contains_key(digest) || state.incoming.contains(digest)
    }
}

impl LeavingTicket {
    pub(crate) fn digest(&self) -> &Digest {
        &self.digest
    }
}

impl fmt::Debug for PinGuard {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "PinGuard({})", self.digest.short())
    }
}

impl Drop for PinGuard {
    fn drop(&mut self) {
        let mut state = locked(&self.in_use.state);
        if let Some(count) = state.open.get_mut(&self.digest) {
            *count -= 1;
            if *count == 0 {
                state.open.remove(&self.digest);
            }
        }
    }
}

impl Drop for IncomingTicket {
    fn drop(&mut self) {
        locked(&self.in_use.state).incoming.remove(&self.digest);
    }
}

impl Drop for LeavingTicket {
    fn drop(&mut self) {
        locked(&self.in_use.state).leaving.remove(&self.digest);
        self.in_use.left.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_one_short_line() {
        assert_eq!("".parse::<PinRoot>(), Err(ParsePinRootError::Empty));
        assert_eq!("a\nb".parse::<PinRoot>(), Err(ParsePinRootError::Control('\n')));
        assert_eq!("x".repeat(257).parse::<PinRoot>(), Err(ParsePinRootError::Long { found: 257 }));
        let longest = "x".repeat(256);
        assert_eq!(longest.parse::<PinRoot>().unwrap().to_string(), longest);
    }

    #[test]
    fn an_open_blob_does_not_leave_and_a_leaving_one_does_not_open() {
        let in_use = Arc::new(InUse::default());
        let digest = Digest::of(b"abc");
        let first = in_use.open(&digest).unwrap();
        let second = in_use.open(&digest).unwrap();
        drop(first);
        assert!(in_use.begin_leaving(&digest, false).is_none());
        drop(second);
        let leaving = in_use.begin_leaving(&digest, false).unwrap();
        assert!(in_use.open(&digest).is_none());
        assert!(in_use.begin_leaving(&digest, true).is_none());
        drop(leaving);
        assert!(in_use.open(&digest).is_some());
        assert!(!in_use.is_open(&digest), "the guard above is gone");
    }

    #[test]
    fn there_is_one_writer_and_it_waits_for_the_removal() {
        let in_use = Arc::new(InUse::default());
        let digest = Digest::of(b"abc");
        let leaving = in_use.begin_leaving(&digest, false).unwrap();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| in_use.begin_incoming(&digest).is_some());
            drop(leaving);
            assert!(writer.join().unwrap());
        });
        let first = in_use.begin_incoming(&digest).unwrap();
        assert!(in_use.begin_incoming(&digest).is_none());
        assert!(in_use.begin_leaving(&digest, true).is_none());
        drop(first);
        assert!(in_use.begin_incoming(&digest).is_some());
    }
}
