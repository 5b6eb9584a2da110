//! A distfile: the name, size and digests that a Manifest gives for one source archive.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use std::fmt;

use crate::digest::{Digest, Sha512};
use crate::name::DistfileName;

/// One source archive as a Manifest names it. Prints as its DIST line, without the line's end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Distfile {
    /// The name in DISTDIR, after any renaming in SRC_URI.
    pub name: DistfileName,
    /// Bytes of the content.
    pub size: u64,
    /// The content's BLAKE2B-512, its name in the store.
    pub blake2b: Digest,
    /// The content's SHA-512, if the Manifest has it.
    pub sha512: Option<Sha512>,
}

impl fmt::Display for Distfile {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "DIST {} {} BLAKE2B {}", self.name, self.size, self.blake2b)?;
        match &self.sha512 {
            Some(sha512) => write!(out, " SHA512 {sha512}"),
            None => Ok(()),
        }
    }
}
