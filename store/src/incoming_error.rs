//! Why bytes do not come in, are not appended, or do not become a blob.

use thiserror::Error;
use tree::digest::{Digest, Sha512};

use crate::GetError;
use crate::disk::PathError;
use crate::human::human;
use crate::index::IndexError;

/// Why bytes cannot come in.
#[derive(Debug, Error)]
pub enum IncomingError {
    /// They are held: ask for the blob.
    #[error("{} is held already", .0.short())]
    AlreadyHeld(Digest),
    /// Another writer brings them.
    #[error("{} is being written already", .0.short())]
    AlreadyIncoming(Digest),
    /// They would never fit, whatever gc removes.
    #[error("{} are more than the {} that the store may hold", human(*size), human(*max))]
    LargerThanStore {
        /// Bytes wanted.
        size: u64,
        /// Bytes allowed.
        max: u64,
    },
    /// They would take what is left to others on the disk.
    #[error("{} do not fit: the disk has {} left, and {} are to stay free", human(*needed), human(*free), human(*free_min))]
    NoRoom {
        /// Bytes still to come.
        needed: u64,
        /// Bytes the disk has left.
        free: u64,
        /// Bytes that are to stay free.
        free_min: u64,
    },
    /// The partial cannot be opened or read.
    #[error("cannot open an incoming: {0}")]
    Disk(#[from] PathError),
    /// The index does not answer.
    #[error(transparent)]
    Index(#[from] IndexError),
}

impl IncomingError {
    /// Whether there is no space, so that gc, or doing without the store, may help.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            Self::LargerThanStore { .. } | Self::NoRoom { .. } => true,
            Self::Disk(error) => error.is_full(),
            Self::Index(error) => error.is_full(),
            Self::AlreadyHeld(_) | Self::AlreadyIncoming(_) => false,
        }
    }
}

impl From<GetError> for IncomingError {
    fn from(error: GetError) -> Self {
        match error {
            GetError::Index(error) => Self::Index(error),
            GetError::Disk(error) => Self::Disk(error),
        }
    }
}

/// Why bytes are not appended; what was appended before stays.
#[derive(Debug, Error)]
pub enum AppendError {
    /// They are more than were said to come.
    #[error("more than {limit} bytes came")]
    TooLong {
        /// The size wanted, or the most that is taken of an unknown one.
        limit: u64,
    },
    /// The disk has no space.
    #[error("the disk is full: {0}")]
    NoSpace(#[source] PathError),
    /// The disk has less than is to stay free.
    #[error("the disk has {} left, and {} are to stay free", human(*free), human(*free_min))]
    BelowFreeMin {
        /// Bytes the disk has left.
        free: u64,
        /// Bytes that are to stay free.
        free_min: u64,
    },
    /// The disk does not take them.
    #[error("cannot write an incoming: {0}")]
    Disk(#[source] PathError),
}

impl AppendError {
    /// Whether there is no space, so that gc, or doing without the store, may help.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::NoSpace(_) | Self::BelowFreeMin { .. })
    }

    pub(crate) fn from_disk(error: PathError) -> Self {
        if error.is_full() { Self::NoSpace(error) } else { Self::Disk(error) }
    }
}

/// Why bytes do not become a blob.
#[derive(Debug, Error)]
pub enum FinishError {
    /// Bytes are missing; those that came are left for later.
    #[error("{actual} of {expected} bytes came")]
    Short {
        /// Bytes wanted.
        expected: u64,
        /// Bytes that came.
        actual: u64,
    },
    /// These are other bytes; they are gone.
    #[error("expected the bytes of {expected}, got those of {actual}")]
    Mismatch {
        /// The digest wanted.
        expected: Digest,
        /// The digest of what came.
        actual: Digest,
    },
    /// The BLAKE2B is right and the SHA-512 is not: whoever wanted this named two different things. The bytes are gone.
    #[error("expected the bytes of SHA-512 {expected}, got those of {actual}")]
    Sha512Mismatch {
        /// The sum wanted.
        expected: Sha512,
        /// The sum of what came.
        actual: Sha512,
    },
    /// The disk does not do its part.
    #[error("cannot keep what came in: {0}")]
    Disk(#[from] PathError),
    /// The index does not do its part.
    #[error(transparent)]
    Index(#[from] IndexError),
}

impl FinishError {
    /// Whether there is no space, so that gc may help.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            Self::Disk(error) => error.is_full(),
            Self::Index(error) => error.is_full(),
            Self::Short { .. } | Self::Mismatch { .. } | Self::Sha512Mismatch { .. } => false,
        }
    }
}
