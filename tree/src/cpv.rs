//! `Cp` is a category and a package name, `Cpv` adds the version, `Slot` is the slot and sub-slot of an ebuild.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::name::{Category, PackageName, ParseNameError, SlotName};
use crate::version::{self, ParseVersionError, Version};

/// Why a text is neither a cp nor a cpv.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParseCpvError {
    /// There is no slash.
    #[error("{text:?} has no category: expected category/package")]
    NoCategory {
        /// The text, shortened.
        text: String,
    },
    /// A cpv was expected and the text does not end in a version.
    #[error("{text:?} does not end in a version: expected package-version")]
    NoVersion {
        /// The text, shortened.
        text: String,
    },
    /// The category or the package name is wrong.
    #[error(transparent)]
    Name(#[from] ParseNameError),
    /// The version is wrong.
    #[error(transparent)]
    Version(#[from] ParseVersionError),
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

/// A category and a package name: `dev-libs/openssl`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cp {
    /// The category.
    pub category: Category,
    /// The package name.
    pub name: PackageName,
}

impl FromStr for Cp {
    type Err = ParseCpvError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (category, name) =
            text.split_once('/').ok_or_else(|| ParseCpvError::NoCategory { text: shortened(text) })?;
        Ok(Self { category: category.parse()?, name: name.parse()? })
    }
}

impl fmt::Display for Cp {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.category, self.name)
    }
}

/// One version of a package: `dev-libs/openssl-3.5.1-r1`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cpv {
    /// Category and package name.
    pub cp: Cp,
    /// The version with its revision.
    pub version: Version,
}

impl Cpv {
    /// The name of the ebuild without its suffix and of its md5-cache entry, PMS's `PF`: `openssl-3.5.1-r1`.
    #[must_use]
    pub fn pf(&self) -> String {
        format!("{}-{}", self.cp.name, self.version)
    }

    /// The cpv of a category and a `PF`.
    ///
    /// # Errors
    /// When the text is not a package name, a hyphen and a version.
    pub fn from_pf(category: &Category, pf: &str) -> Result<Self, ParseCpvError> {
        let (name, version) =
            version::split_package_version(pf).ok_or_else(|| ParseCpvError::NoVersion { text: shortened(pf) })?;
        Ok(Self { cp: Cp { category: category.clone(), name: name.parse()? }, version: version.parse()? })
    }
}

impl FromStr for Cpv {
    type Err = ParseCpvError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (category, pf) = text.split_once('/').ok_or_else(|| ParseCpvError::NoCategory { text: shortened(text) })?;
        Self::from_pf(&category.parse()?, pf)
    }
}

impl fmt::Display for Cpv {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}-{}", self.cp, self.version)
    }
}

/// The slot of an ebuild, with its sub-slot if one is written: `0/1.1` (PMS 7.2).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    /// The slot.
    pub slot: SlotName,
    /// The sub-slot, when written; else it is the slot.
    pub subslot: Option<SlotName>,
}

impl Slot {
    /// The sub-slot, which is the slot where none is written.
    #[must_use]
    pub fn effective_subslot(&self) -> &SlotName {
        self.subslot.as_ref().unwrap_or(&self.slot)
    }
}

impl FromStr for Slot {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((slot, subslot)) => Ok(Self { slot: slot.parse()?, subslot: Some(subslot.parse()?) }),
            None => Ok(Self { slot: text.parse()?, subslot: None }),
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subslot {
            Some(subslot) => write!(out, "{}/{subslot}", self.slot),
            None => write!(out, "{}", self.slot),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_begins_where_only_a_version_follows() {
        for (text, name, version) in [
            ("a/foo-1", "foo", "1"),
            ("a/foo-bar-1.2_rc3-r4", "foo-bar", "1.2_rc3-r4"),
            ("a/font-adobe-100dpi-1.0", "font-adobe-100dpi", "1.0"),
            ("a/gtk+-2.24", "gtk+", "2.24"),
            ("a/foo-r1-2", "foo-r1", "2"),
            ("a/foo--1", "foo-", "1"),
        ] {
            let cpv: Cpv = text.parse().unwrap();
            assert_eq!((cpv.cp.name.as_str(), cpv.version.as_str(), cpv.to_string().as_str()), (name, version, text));
            assert_eq!(Cpv::from_pf(&cpv.cp.category, &cpv.pf()), Ok(cpv));
        }
    }

    #[test]
    fn ambiguous_and_incomplete_texts_are_refused() {
        for bad in ["", "/", "a", "a/", "a/foo", "a/foo-1-2", "a/-1", "a/b/c-1", "a/foo-1-r", "a/1", "../foo-1"] {
            assert!(bad.parse::<Cpv>().is_err(), "{bad:?}");
        }
        assert!("a/foo-1".parse::<Cp>().is_err() && "a/b/c".parse::<Cp>().is_err() && "foo".parse::<Cp>().is_err());
    }

    #[test]
    fn a_missing_sub_slot_is_the_slot() {
        let slot: Slot = "0/1.1".parse().unwrap();
        assert_eq!((slot.to_string().as_str(), slot.effective_subslot().as_str()), ("0/1.1", "1.1"));
        assert_eq!("3".parse::<Slot>().unwrap().effective_subslot().as_str(), "3");
        for bad in ["", "/", "0/", "/0", "0/1/2", ":0", "0="] {
            assert!(bad.parse::<Slot>().is_err(), "{bad:?}");
        }
    }
}
