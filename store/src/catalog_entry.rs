//! What a row of the catalog says, and why rows are refused.

use thiserror::Error;
use tree::digest::{Digest, Sha512};

use crate::index::IndexError;

/// Largest row. The largest of the Gentoo tree has some kilobytes.
pub(crate) const ROW_BYTES_MAX: usize = 1 << 20;

/// Where a distfile may be had, as SRC_URI says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogUri {
    /// The address, as in SRC_URI: `mirror://` is not expanded.
    pub uri: String,
    /// Which RESTRICT the prefix of the address lifts (PMS, `fetch+` and `mirror+`), as the writer of the row coded it.
    pub exempt: u8,
}

/// One DIST line of one package, with what the ebuilds say about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogEntry {
    /// BLAKE2B of the distfile.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// Its SHA-512, if the Manifest has it.
    pub sha512: Option<Sha512>,
    /// Its file name.
    pub name: String,
    /// Name of the ebuild repository.
    pub repo: String,
    /// Category and package name, with a slash between.
    pub package: String,
    /// Where it may be had, in the order of SRC_URI.
    pub uris: Vec<CatalogUri>,
    /// Whether mirrors may have it.
    pub may_mirror: bool,
    /// Whether it may be had without a person.
    pub may_fetch: bool,
    /// Whether it may be offered to peers.
    pub may_announce: bool,
    /// The ebuilds that want it.
    pub ebuilds: Vec<String>,
}

/// All rows of one package, for [`Catalog::replace_packages`](crate::Catalog::replace_packages).
#[derive(Debug, Clone, Copy)]
pub struct PackageEntries<'a> {
    /// Category and package name, with a slash between.
    pub package: &'a str,
    /// What the rows were made from, so that they need not be made again.
    pub stamp: [u8; 16],
    /// What beside the package's own files the stamp was made of: the names of its eclasses, as the writer spells them.
    pub inherited: &'a str,
    /// The rows; their repository and package are those given beside.
    pub entries: &'a [CatalogEntry],
}

/// What is noted of a package beside its rows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PackageStamp {
    /// What the rows were made from.
    pub stamp: [u8; 16],
    /// As [`PackageEntries::inherited`].
    pub inherited: String,
}

/// Why the catalog is not changed.
#[derive(Debug, Error)]
pub enum CatalogError {
    /// A name cannot be part of a key.
    #[error("{name:?} cannot be kept: expected 1 to 255 bytes without NUL")]
    Name {
        /// The name.
        name: String,
    },
    /// A row belongs to another package.
    #[error("a row of {found} among those of {expected}")]
    Foreign {
        /// Package whose rows are replaced.
        expected: String,
        /// Package of the row.
        found: String,
    },
    /// A row is larger than any real one.
    #[error("the row of {name:?} has {bytes} bytes, at most {ROW_BYTES_MAX} are kept")]
    Large {
        /// File name of the row.
        name: String,
        /// Bytes of the row.
        bytes: usize,
    },
    /// The index does not answer.
    #[error(transparent)]
    Index(#[from] IndexError),
}
