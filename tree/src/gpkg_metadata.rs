//! The metadata of a binary package: one value a key, as Portage keeps it of installed packages too.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use std::collections::BTreeMap;
use std::io::Read;

use crate::cpv::{Cpv, ParseCpvError};
use crate::gpkg::{METADATA_BYTES_MAX, METADATA_KEYS_MAX, ReadGpkgError, shown};
use crate::gpkg_tar::{TarKind, TarStream};
use crate::name::{Category, NAME_BYTES_MAX};

/// The metadata of a package: what Portage keeps in its database of installed packages, one value a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata(BTreeMap<String, Vec<u8>>);

impl Metadata {
    pub(crate) fn read(archive: impl Read) -> Result<Self, ReadGpkgError> {
        const PART: &str = "the metadata";
        let broken = |source| ReadGpkgError::Tar { part: PART, source };
        let mut values = BTreeMap::new();
        let mut archive = TarStream::new(archive);
        while let Some(member) = archive.advance().map_err(broken)? {
            let wrong = |fault| ReadGpkgError::Inner { part: PART, path: shown(&member.path), fault };
            let key = str::from_utf8(&member.path).ok().and_then(|path| path.strip_prefix("metadata/"));
            let key = key.filter(|key| !key.is_empty() && !key.contains('/') && key.len() <= NAME_BYTES_MAX);
            let key = key.ok_or_else(|| wrong("expected metadata/KEY"))?.to_owned();
            if member.kind != TarKind::File {
                return Err(wrong("it is not a file"));
            }
            if member.size > METADATA_BYTES_MAX || values.len() >= METADATA_KEYS_MAX {
                return Err(wrong("there is more than is believed in"));
            }
            let mut value = Vec::new();
            archive.read_to_end(&mut value).map_err(|source| ReadGpkgError::Read { source })?;
            if values.insert(key, value).is_some() {
                return Err(wrong("it is there twice"));
            }
        }
        Ok(Self(values))
    }

    /// The bytes of a key, as they are.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.0.get(key).map(Vec::as_slice)
    }

    /// The text of a key without white space around it; None where it is not UTF-8.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(|value| str::from_utf8(value).ok()).map(str::trim)
    }

    /// The words of a key; none where it is missing.
    pub fn words(&self, key: &str) -> impl Iterator<Item = &str> {
        self.text(key).unwrap_or_default().split_ascii_whitespace()
    }

    /// All keys and their bytes, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_slice()))
    }

    /// Category, name and version of the package.
    ///
    /// # Errors
    /// When `CATEGORY` and `PF` do not make a cpv.
    pub fn cpv(&self) -> Result<Cpv, ParseCpvError> {
        let category: Category = self.text("CATEGORY").unwrap_or_default().parse()?;
        Cpv::from_pf(&category, self.text("PF").unwrap_or_default())
    }

    /// `SLOT` as it is written, `0` where it is missing.
    #[must_use]
    pub fn slot(&self) -> &str {
        self.text("SLOT").filter(|slot| !slot.is_empty()).unwrap_or("0")
    }

    /// The number of this build among those of its cpv on the machine that made it.
    #[must_use]
    pub fn build_id(&self) -> Option<u64> {
        self.text("BUILD_ID")?.parse().ok()
    }

    /// When it was built, in seconds since 1970.
    #[must_use]
    pub fn build_time(&self) -> Option<u64> {
        self.text("BUILD_TIME")?.parse().ok()
    }

    /// The ebuild repository that the ebuild is from.
    #[must_use]
    pub fn repository(&self) -> Option<&str> {
        self.text("repository").filter(|name| !name.is_empty())
    }
}

impl<K: Into<String>, V: Into<Vec<u8>>> FromIterator<(K, V)> for Metadata {
    fn from_iter<T: IntoIterator<Item = (K, V)>>(values: T) -> Self {
        Self(values.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}
