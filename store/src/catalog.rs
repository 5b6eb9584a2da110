//! The catalog: what the trees name, one row for each DIST line of each package, found by digest, by name and by package.
//!
//! It says nothing about what is held. It is made from the trees and can be made again, so its writes wait for no disk; a crash
//! takes back the last of them, rows and stamps alike, and the stamps then say what to read again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};

use rocksdb::WriteBatch;
use thiserror::Error;
use tree::digest::{Digest, Sha512};

use crate::index::{Index, IndexError, Table};
use crate::record::{CatalogRecord, DecodeRecordError, NumberRecord, Permits};
use crate::{locked, logged};

/// Key of the number of rows among the counters.
const COUNT_KEY: &[u8] = b"catalog";
/// Longest repository, package or file name; file systems have the same bound for one name.
const NAME_BYTES_MAX: usize = 255;
/// Largest row. The largest of the Gentoo tree has some kilobytes.
const ROW_BYTES_MAX: usize = 1 << 20;
/// A batch is written when it has grown to this.
const BATCH_BYTES: usize = 1 << 20;
const STAMP_VERSION: u8 = 1;
const PERMITS_VERSION: u8 = 1;

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

/// All rows of one package, for [`Catalog::replace_packages`].
#[derive(Debug, Clone, Copy)]
pub struct PackageEntries<'a> {
    /// Category and package name, with a slash between.
    pub package: &'a str,
    /// What the rows were made from, so that they need not be made again.
    pub stamp: [u8; 16],
    /// The rows; their repository and package are those given beside.
    pub entries: &'a [CatalogEntry],
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

/// The catalog of an open store.
#[derive(Debug)]
pub struct Catalog {
    index: Arc<Index>,
    /// The number of rows; whoever changes the catalog holds this.
    count: Mutex<u64>,
}

/// Changes that are not written yet.
#[derive(Default)]
struct Pending {
    batch: WriteBatch,
    packages: HashSet<Vec<u8>>,
    count: u64,
}

impl Catalog {
    pub(crate) fn open(index: Arc<Index>) -> Result<Self, IndexError> {
        let count = match index.value(Table::Counters, COUNT_KEY)? {
            None => 0,
            Some(bytes) => NumberRecord::decode(&bytes).map_err(in_counters)?.0,
        };
        Ok(Self { index, count: Mutex::new(count) })
    }

    /// Makes the rows of a package exactly these, and notes what they were made from; all of it or nothing.
    pub fn replace_package(
        &self,
        repo: &str,
        package: &str,
        stamp: [u8; 16],
        entries: &[CatalogEntry],
    ) -> Result<(), CatalogError> {
        self.replace_packages(repo, &[PackageEntries { package, stamp, entries }])
    }

    /// As [`Self::replace_package`] for many packages, several in one write. Each package is replaced whole or not at all.
    pub fn replace_packages(&self, repo: &str, packages: &[PackageEntries<'_>]) -> Result<(), CatalogError> {
        let mut count = locked(&self.count);
        let mut pending = Pending { count: *count, ..Pending::default() };
        for package in packages {
            let key = joined(&[checked(repo)?, checked(package.package)?]);
            let full = pending.batch.size_in_bytes() >= BATCH_BYTES;
            // What is not written yet cannot be compared with.
            if full || pending.packages.contains(&key) {
                *count = self.write(&mut pending)?;
            }
            self.replace(&mut pending, repo, package)?;
            pending.packages.insert(key);
        }
        *count = self.write(&mut pending)?;
        Ok(())
    }

    fn replace(&self, pending: &mut Pending, repo: &str, package: &PackageEntries<'_>) -> Result<(), CatalogError> {
        let rows = new_rows(repo, package)?;
        let stamp_key = joined(&[repo, package.package]);
        // Without a stamp there are no rows: both are written together.
        let old = match self.index.value(Table::Stamps, &stamp_key)? {
            None => Vec::new(),
            Some(_) => self.rows_of(repo, package.package)?,
        };
        for (key, value) in &old {
            match rows.get(key) {
                Some((_, new)) if new == value => {}
                _ => self.delete_row(pending, key, value)?,
            }
        }
        let old: HashMap<&[u8], &[u8]> = old.iter().map(|(key, value)| (key.as_slice(), value.as_slice())).collect();
        for (key, (record, value)) in &rows {
            if old.get(key.as_slice()) != Some(&value.as_slice()) {
                self.put_row(pending, key, record, value);
            }
        }
        let stamp = [&[STAMP_VERSION], package.stamp.as_slice()].concat();
        pending.batch.put_cf(self.index.table(Table::Stamps), stamp_key, stamp);
        Ok(())
    }

    fn put_row(&self, pending: &mut Pending, key: &[u8], record: &CatalogRecord, value: &[u8]) {
        let permits = [PERMITS_VERSION, record.permits.bits()];
        pending.batch.put_cf(self.index.table(Table::Catalog), key, value);
        pending.batch.put_cf(self.index.table(Table::CatalogDigests), digest_key(&record.digest, key), permits);
        pending.batch.put_cf(self.index.table(Table::CatalogNames), name_key(key), b"");
        pending.count = pending.count.saturating_add(1);
    }

    fn delete_row(&self, pending: &mut Pending, key: &[u8], value: &[u8]) -> Result<(), CatalogError> {
        let record = CatalogRecord::decode(value).map_err(in_catalog)?;
        pending.batch.delete_cf(self.index.table(Table::Catalog), key);
        pending.batch.delete_cf(self.index.table(Table::CatalogDigests), digest_key(&record.digest, key));
        pending.batch.delete_cf(self.index.table(Table::CatalogNames), name_key(key));
        pending.count = pending.count.saturating_sub(1);
        Ok(())
    }

    fn write(&self, pending: &mut Pending) -> Result<u64, IndexError> {
        let count = pending.count;
        let mut batch = std::mem::take(pending).batch;
        pending.count = count;
        if !batch.is_empty() {
            batch.put_cf(self.index.table(Table::Counters), COUNT_KEY, NumberRecord(count).encode());
            self.index.write(batch, false)?;
        }
        Ok(count)
    }

    /// Forgets a package of a repository; answers how many rows it had.
    pub fn remove_package(&self, repo: &str, package: &str) -> Result<u64, CatalogError> {
        checked(repo)?;
        self.remove_packages(repo, &[checked(package)?.to_owned()])
    }

    /// Forgets a whole repository; answers how many rows it had.
    pub fn remove_repo(&self, repo: &str) -> Result<u64, CatalogError> {
        let packages: Vec<String> = self.read_stamps(checked(repo)?)?.into_keys().collect();
        self.remove_packages(repo, &packages)
    }

    fn remove_packages(&self, repo: &str, packages: &[String]) -> Result<u64, CatalogError> {
        let mut count = locked(&self.count);
        let mut pending = Pending { count: *count, ..Pending::default() };
        let before = *count;
        for package in packages {
            for (key, value) in self.rows_of(repo, package)? {
                self.delete_row(&mut pending, &key, &value)?;
            }
            pending.batch.delete_cf(self.index.table(Table::Stamps), joined(&[repo, package]));
            if pending.batch.size_in_bytes() >= BATCH_BYTES {
                *count = self.write(&mut pending)?;
            }
        }
        *count = self.write(&mut pending)?;
        Ok(before.saturating_sub(*count))
    }

    /// Forgets everything, also rows that cannot be read.
    pub fn clear(&self) -> Result<(), CatalogError> {
        let mut count = locked(&self.count);
        let mut pending = Pending::default();
        for table in [Table::Catalog, Table::CatalogDigests, Table::CatalogNames, Table::Stamps] {
            // Above every key: names are UTF-8 and digests have 64 bytes.
            pending.batch.delete_range_cf(self.index.table(table), b"".as_slice(), [u8::MAX; 65].as_slice());
        }
        *count = self.write(&mut pending)?;
        Ok(())
    }

    /// What the rows of each package of a repository were made from. Empty, and logged, when the index does not answer.
    #[must_use]
    pub fn stamps(&self, repo: &str) -> HashMap<String, [u8; 16]> {
        logged(self.read_stamps(repo), "stamps").unwrap_or_default()
    }

    fn read_stamps(&self, repo: &str) -> Result<HashMap<String, [u8; 16]>, IndexError> {
        let mut stamps = HashMap::new();
        let prefix = starts(&[repo]);
        self.index.scan(Table::Stamps, &prefix, &prefix, |key, value| {
            let package = text(key.get(prefix.len()..))?.to_owned();
            match value.split_first() {
                Some((&STAMP_VERSION, stamp)) => {
                    let stamp = stamp.try_into().map_err(|_| DecodeRecordError::Short)?;
                    stamps.insert(package, stamp);
                }
                // Of another version: the package is read again.
                _ => {
                    stamps.insert(package, [0; 16]);
                }
            }
            Ok(true)
        })?;
        Ok(stamps)
    }

    /// The repositories that have packages, in the order of their names.
    #[must_use]
    pub fn repos(&self) -> Vec<String> {
        let mut repos: Vec<String> = Vec::new();
        loop {
            // Behind all packages of the last: names have no byte below 1.
            let from = repos.last().map_or_else(Vec::new, |last| [last.as_bytes(), &[1]].concat());
            let mut next = None;
            let scanned = self.index.scan(Table::Stamps, b"", &from, |key, _| {
                next = Some(text(key.split(|byte| *byte == 0).next())?.to_owned());
                Ok(false)
            });
            match (logged(scanned, "repos"), next) {
                (Some(()), Some(repo)) => repos.push(repo),
                _ => return repos,
            }
        }
    }

    /// The rows that name a digest.
    #[must_use]
    pub fn by_digest(&self, digest: &Digest) -> Vec<CatalogEntry> {
        let mut keys = Vec::new();
        let scanned = self.index.scan(Table::CatalogDigests, digest.as_bytes(), digest.as_bytes(), |key, _| {
            keys.push(key.get(digest.as_bytes().len()..).unwrap_or_default().to_vec());
            Ok(true)
        });
        logged(scanned, "by_digest");
        self.entries(&keys)
    }

    /// The rows that name a file.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Vec<CatalogEntry> {
        let mut keys = Vec::new();
        let prefix = starts(&[name]);
        let scanned = self.index.scan(Table::CatalogNames, &prefix, &prefix, |key, _| {
            keys.push([key.get(prefix.len()..).unwrap_or_default(), &[0], name.as_bytes()].concat());
            Ok(true)
        });
        logged(scanned, "by_name");
        self.entries(&keys)
    }

    /// The rows of a package, of one repository or of all.
    #[must_use]
    pub fn by_package(&self, repo: Option<&str>, package: &str) -> Vec<CatalogEntry> {
        let repos = repo.map_or_else(|| self.repos(), |repo| vec![repo.to_owned()]);
        let rows = repos.iter().filter_map(|repo| logged(self.rows_of(repo, package), "by_package")).flatten();
        rows.filter_map(|(key, value)| logged(entry(&key, &value), "by_package")).collect()
    }

    /// Whether some package names the digest and every one that does allows to offer it to peers.
    #[must_use]
    pub fn may_announce(&self, digest: &Digest) -> bool {
        let (mut known, mut allowed) = (false, true);
        let scanned = self.index.scan(Table::CatalogDigests, digest.as_bytes(), digest.as_bytes(), |_, value| {
            known = true;
            allowed &= match value {
                [PERMITS_VERSION, bits] => Permits::from_bits(*bits)?.announce,
                _ => false,
            };
            Ok(allowed)
        });
        logged(scanned, "may_announce").is_some() && known && allowed
    }

    /// How many rows there are: DIST lines of all packages of all repositories.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> u64 {
        *locked(&self.count)
    }

    fn rows_of(&self, repo: &str, package: &str) -> Result<Vec<(Vec<u8>, Vec<u8>)>, IndexError> {
        let mut rows = Vec::new();
        let prefix = starts(&[repo, package]);
        self.index.scan(Table::Catalog, &prefix, &prefix, |key, value| {
            rows.push((key.to_vec(), value.to_vec()));
            Ok(true)
        })?;
        Ok(rows)
    }

    fn entries(&self, keys: &[Vec<u8>]) -> Vec<CatalogEntry> {
        let read = |key: &Vec<u8>| {
            let value = self.index.value(Table::Catalog, key)?;
            value.map(|value| entry(key, &value).map_err(in_catalog)).transpose()
        };
        keys.iter().filter_map(|key| logged(read(key), "entries").flatten()).collect()
    }
}

type Rows = BTreeMap<Vec<u8>, (CatalogRecord, Vec<u8>)>;

/// The rows of a package by their keys. Of two with one name the last counts, as in a Manifest read into a map.
fn new_rows(repo: &str, package: &PackageEntries<'_>) -> Result<Rows, CatalogError> {
    let mut rows = Rows::new();
    for entry in package.entries {
        if (entry.repo.as_str(), entry.package.as_str()) != (repo, package.package) {
            let expected = format!("{}::{repo}", package.package);
            return Err(CatalogError::Foreign { expected, found: format!("{}::{}", entry.package, entry.repo) });
        }
        let record = CatalogRecord {
            digest: entry.digest,
            size: entry.size,
            sha512: entry.sha512,
            permits: Permits { mirror: entry.may_mirror, fetch: entry.may_fetch, announce: entry.may_announce },
            uris: entry.uris.clone(),
            ebuilds: entry.ebuilds.clone(),
        };
        let value = record.encode();
        if value.len() > ROW_BYTES_MAX {
            return Err(CatalogError::Large { name: entry.name.clone(), bytes: value.len() });
        }
        rows.insert(joined(&[repo, package.package, checked(&entry.name)?]), (record, value));
    }
    Ok(rows)
}

fn entry(key: &[u8], value: &[u8]) -> Result<CatalogEntry, DecodeRecordError> {
    let mut names = key.splitn(3, |byte| *byte == 0);
    let mut name = || Ok::<_, DecodeRecordError>(text(names.next())?.to_owned());
    let (repo, package, name) = (name()?, name()?, name()?);
    let CatalogRecord { digest, size, sha512, permits, uris, ebuilds } = CatalogRecord::decode(value)?;
    let Permits { mirror: may_mirror, fetch: may_fetch, announce: may_announce } = permits;
    Ok(CatalogEntry { digest, size, sha512, name, repo, package, uris, may_mirror, may_fetch, may_announce, ebuilds })
}

fn checked(name: &str) -> Result<&str, CatalogError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains('\0') {
        return Err(CatalogError::Name { name: name.chars().take(NAME_BYTES_MAX).collect() });
    }
    Ok(name)
}

/// Names with NUL between.
fn joined(names: &[&str]) -> Vec<u8> {
    names.join("\0").into_bytes()
}

/// What keys start with that have these names and more.
fn starts(names: &[&str]) -> Vec<u8> {
    let mut key = joined(names);
    key.push(0);
    key
}

fn digest_key(digest: &Digest, row_key: &[u8]) -> Vec<u8> {
    [digest.as_bytes().as_slice(), row_key].concat()
}

/// From repository, package, name to name, repository, package.
fn name_key(row_key: &[u8]) -> Vec<u8> {
    let mut parts = row_key.rsplitn(2, |byte| *byte == 0);
    let (name, package) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    [name, &[0], package].concat()
}

fn text(bytes: Option<&[u8]>) -> Result<&str, DecodeRecordError> {
    bytes.and_then(|bytes| std::str::from_utf8(bytes).ok()).ok_or(DecodeRecordError::Field("name"))
}

fn in_catalog(source: DecodeRecordError) -> IndexError {
    IndexError::Record { table: Table::Catalog.name(), source }
}

fn in_counters(source: DecodeRecordError) -> IndexError {
    IndexError::Record { table: Table::Counters.name(), source }
}
