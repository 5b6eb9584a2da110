//! The catalog: what the trees name, one row for each DIST line of each package, found by digest, by name and by package.
//!
//! It says nothing about what is held. It is made from the trees and can be made again, so its writes wait for no disk; a crash
//! takes back the last of them, rows and stamps alike, and the stamps then say what to read again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};

use rocksdb::WriteBatch;
use tree::digest::Digest;

use crate::catalog_entry::{CatalogEntry, CatalogError, PackageEntries, PackageStamp, ROW_BYTES_MAX};
use crate::index::{Index, IndexError, Table};
use crate::record::{CatalogRecord, DecodeRecordError, NumberRecord, Permits, StampRecord};
use crate::{locked, logged};

/// Key of the number of rows among the counters.
const COUNT_KEY: &[u8] = b"catalog";
/// Longest repository, package or file name; file systems have the same bound for one name.
const NAME_BYTES_MAX: usize = 255;
/// A batch is written when it has grown to this.
const BATCH_BYTES: usize = 1 << 20;
const PERMITS_VERSION: u8 = 1;

/// Digests whose changes are told one by one; of more it is only told that there were many.
const TOUCHED_MAX: usize = 32_768;

/// The catalog of an open store.
#[derive(Debug)]
pub struct Catalog {
    index: Arc<Index>,
    /// The number of rows; whoever changes the catalog holds this.
    count: Mutex<u64>,
    touched: Mutex<Touched>,
}

/// What rows that were written or deleted name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    /// These.
    Digests(HashSet<Digest>),
    /// More than are worth to be looked at one by one.
    Many,
}

impl Default for Touched {
    fn default() -> Self {
        Self::Digests(HashSet::new())
    }
}

impl Touched {
    fn add(&mut self, more: HashSet<Digest>) {
        match self {
            Self::Digests(digests) if digests.len().saturating_add(more.len()) <= TOUCHED_MAX => digests.extend(more),
            _ => *self = Self::Many,
        }
    }
}

/// Changes that are not written yet.
#[derive(Default)]
struct Pending {
    batch: WriteBatch,
    packages: HashSet<Vec<u8>>,
    count: u64,
    digests: HashSet<Digest>,
}

impl Catalog {
    pub(crate) fn open(index: Arc<Index>) -> Result<Self, IndexError> {
        let count = match index.value(Table::Counters, COUNT_KEY)? {
            None => 0,
            Some(bytes) => NumberRecord::decode(&bytes).map_err(in_counters)?.0,
        };
        Ok(Self { index, count: Mutex::new(count), touched: Mutex::default() })
    }

    /// Makes the rows of a package exactly these, and notes what they were made from; all of it or nothing.
    pub fn replace_package(
        &self,
        repo: &str,
        package: &str,
        stamp: [u8; 16],
        entries: &[CatalogEntry],
    ) -> Result<(), CatalogError> {
        self.replace_packages(repo, &[PackageEntries { package, stamp, inherited: "", entries }])
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
        let stamp = StampRecord { stamp: package.stamp, inherited: package.inherited.to_owned() };
        pending.batch.put_cf(self.index.table(Table::Stamps), stamp_key, stamp.encode());
        Ok(())
    }

    fn put_row(&self, pending: &mut Pending, key: &[u8], record: &CatalogRecord, value: &[u8]) {
        pending.digests.insert(record.digest);
        let permits = [PERMITS_VERSION, record.permits.bits()];
        pending.batch.put_cf(self.index.table(Table::Catalog), key, value);
        pending.batch.put_cf(self.index.table(Table::CatalogDigests), digest_key(&record.digest, key), permits);
        pending.batch.put_cf(self.index.table(Table::CatalogNames), name_key(key), b"");
        pending.count = pending.count.saturating_add(1);
    }

    fn delete_row(&self, pending: &mut Pending, key: &[u8], value: &[u8]) -> Result<(), CatalogError> {
        let record = CatalogRecord::decode(value).map_err(in_catalog)?;
        pending.digests.insert(record.digest);
        pending.batch.delete_cf(self.index.table(Table::Catalog), key);
        pending.batch.delete_cf(self.index.table(Table::CatalogDigests), digest_key(&record.digest, key));
        pending.batch.delete_cf(self.index.table(Table::CatalogNames), name_key(key));
        pending.count = pending.count.saturating_sub(1);
        Ok(())
    }

    fn write(&self, pending: &mut Pending) -> Result<u64, IndexError> {
        let count = pending.count;
        let Pending { mut batch, digests, .. } = std::mem::take(pending);
        pending.count = count;
        if !batch.is_empty() {
            // Before they are written: to look at one too often does no harm.
            locked(&self.touched).add(digests);
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
        *locked(&self.touched) = Touched::Many;
        for table in [Table::Catalog, Table::CatalogDigests, Table::CatalogNames, Table::Stamps] {
            // Above every key: names are UTF-8 and digests have 64 bytes.
            pending.batch.delete_range_cf(self.index.table(table), b"".as_slice(), [u8::MAX; 65].as_slice());
        }
        *count = self.write(&mut pending)?;
        Ok(())
    }

    /// What the rows of each package of a repository were made from. Empty, and logged, when the index does not answer.
    #[must_use]
    pub fn stamps(&self, repo: &str) -> HashMap<String, PackageStamp> {
        logged(self.read_stamps(repo), "stamps").unwrap_or_default()
    }

    fn read_stamps(&self, repo: &str) -> Result<HashMap<String, PackageStamp>, IndexError> {
        let mut stamps = HashMap::new();
        let prefix = starts(&[repo]);
        self.index.scan(Table::Stamps, &prefix, &prefix, |key, value| {
            let package = text(key.get(prefix.len()..))?.to_owned();
            let StampRecord { stamp, inherited } = match StampRecord::decode(value) {
                // Of a later version: the package is read again.
                Err(DecodeRecordError::Version(_)) => StampRecord::default(),
                decoded => decoded?,
            };
            stamps.insert(package, PackageStamp { stamp, inherited });
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

    /// What was written or deleted since this was last asked, or since the store was opened.
    #[must_use]
    pub fn take_touched(&self) -> Touched {
        std::mem::take(&mut *locked(&self.touched))
    }

    /// How many rows there are: DIST lines of all packages of all repositories.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> u64 {
        *locked(&self.count)
    }

    fn rows_of(&self, repo: &str, package: &str) -> Result<Vec<Row>, IndexError> {
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

/// Key and value of a row as they lie on the disk.
type Row = (Vec<u8>, Vec<u8>);
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

#[cfg(test)]
mod tests {
    use tempfile::TempDir;
    use tree::digest::Sha512;

    use super::*;
    use crate::{CatalogUri, Options, Store};

    fn fresh() -> (TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Options::default()).unwrap();
        (dir, store)
    }

    fn row(repo: &str, package: &str, name: &str) -> CatalogEntry {
        CatalogEntry {
            digest: Digest::of(name.as_bytes()),
            size: 7,
            sha512: Some(Sha512::of(name.as_bytes())),
            name: name.to_owned(),
            repo: repo.to_owned(),
            package: package.to_owned(),
            uris: vec![CatalogUri { uri: format!("https://example.org/{name}"), exempt: 1 }],
            may_mirror: true,
            may_fetch: true,
            may_announce: true,
            ebuilds: vec![format!("{package}-1")],
        }
    }

    const GENTOO: &str = "gentoo";
    const FOO: &str = "dev-libs/foo";

    #[test]
    fn a_row_is_found_by_digest_by_name_and_by_package() {
        let (_dir, store) = fresh();
        let catalog = store.catalog();
        let (foo, bar) = (row(GENTOO, FOO, "foo-1.tar.xz"), row("guru", "dev-libs/foo-bar", "foo-1.tar.xz"));
        catalog.replace_package(GENTOO, FOO, [1; 16], std::slice::from_ref(&foo)).unwrap();
        catalog.replace_package("guru", "dev-libs/foo-bar", [2; 16], std::slice::from_ref(&bar)).unwrap();
        let both = vec![foo.clone(), bar.clone()];
        assert_eq!(catalog.by_digest(&foo.digest), both);
        assert_eq!(catalog.by_name("foo-1.tar.xz"), both);
        assert_eq!(catalog.by_name("foo-1.tar"), []);
        assert_eq!(catalog.by_package(None, FOO), std::slice::from_ref(&foo));
        assert_eq!(catalog.by_package(Some("guru"), "dev-libs/foo-bar"), [bar]);
        assert_eq!(catalog.by_package(Some("guru"), FOO), []);
        assert_eq!(catalog.repos(), [GENTOO, "guru"]);
        assert_eq!(catalog.len(), 2);
    }

    #[test]
    fn replacing_leaves_the_new_rows_and_nothing_of_the_old() {
        let (dir, store) = fresh();
        let catalog = store.catalog();
        let (kept, old) = (row(GENTOO, FOO, "kept"), row(GENTOO, FOO, "old"));
        let mut changed = row(GENTOO, FOO, "changed");
        catalog.replace_package(GENTOO, FOO, [1; 16], &[kept.clone(), old.clone(), changed.clone()]).unwrap();
        let digest_before = changed.digest;
        changed.digest = Digest::of(b"other bytes");
        let new = row(GENTOO, FOO, "new");
        catalog.replace_package(GENTOO, FOO, [2; 16], &[kept.clone(), changed.clone(), new.clone()]).unwrap();
        assert_eq!(catalog.len(), 3);
        assert_eq!((catalog.by_digest(&digest_before), catalog.by_name("old")), (vec![], vec![]));
        assert_eq!(catalog.by_digest(&changed.digest), std::slice::from_ref(&changed));
        assert_eq!(catalog.by_package(None, FOO), [changed, kept, new]);
        let stamp = PackageStamp { stamp: [2; 16], inherited: String::new() };
        assert_eq!(catalog.stamps(GENTOO), HashMap::from([(FOO.to_owned(), stamp)]));
        drop(store);
        let store = Store::open(dir.path(), Options::default()).unwrap();
        assert_eq!((store.catalog().len(), store.catalog().stamps(GENTOO).len()), (3, 1));
    }

    #[test]
    fn what_changed_is_told_once_and_by_digest() {
        let (_dir, store) = fresh();
        let catalog = store.catalog();
        let told = |names: &[&str]| Touched::Digests(names.iter().map(|name| row(GENTOO, FOO, name).digest).collect());
        assert_eq!(catalog.take_touched(), told(&[]));
        let rows = [row(GENTOO, FOO, "stays"), row(GENTOO, FOO, "goes")];
        catalog.replace_package(GENTOO, FOO, [1; 16], &rows).unwrap();
        assert_eq!(catalog.take_touched(), told(&["stays", "goes"]));
        catalog.replace_package(GENTOO, FOO, [2; 16], &[rows[0].clone(), row(GENTOO, FOO, "new")]).unwrap();
        assert_eq!(catalog.take_touched(), told(&["goes", "new"]), "not what stays as it was");
        // The same file, allowed otherwise.
        let bound = CatalogEntry { may_announce: false, ..rows[0].clone() };
        catalog.replace_package(GENTOO, FOO, [3; 16], &[bound]).unwrap();
        assert_eq!(catalog.take_touched(), told(&["stays", "new"]));
        catalog.remove_repo(GENTOO).unwrap();
        assert_eq!(catalog.take_touched(), told(&["stays"]));
        assert_eq!(catalog.take_touched(), told(&[]));
        let many: Vec<_> = (0..=TOUCHED_MAX).map(|number| row(GENTOO, FOO, &number.to_string())).collect();
        catalog.replace_package(GENTOO, FOO, [4; 16], &many).unwrap();
        assert_eq!(catalog.take_touched(), Touched::Many);
    }

    #[test]
    fn many_packages_at_once_are_the_same_as_one_by_one() {
        let (_dir, store) = fresh();
        let catalog = store.catalog();
        let long_uri = CatalogUri { uri: "x".repeat(40_000), exempt: 0 };
        let packages: Vec<String> = (0..60).map(|number| format!("dev-libs/p{number}")).collect();
        // Large enough for several writes, and with one package twice.
        let rows: Vec<Vec<CatalogEntry>> = packages
            .iter()
            .map(|package| vec![CatalogEntry { uris: vec![long_uri.clone()], ..row(GENTOO, package, package) }])
            .collect();
        let mut bulk: Vec<PackageEntries<'_>> = packages
            .iter()
            .zip(&rows)
            .map(|(package, entries)| PackageEntries { package, stamp: [3; 16], inherited: "cargo rust", entries })
            .collect();
        bulk.push(PackageEntries { package: &packages[0], stamp: [4; 16], inherited: "", entries: &[] });
        catalog.replace_packages(GENTOO, &bulk).unwrap();
        assert_eq!(catalog.len(), 59);
        let stamps = catalog.stamps(GENTOO);
        assert_eq!((stamps[&packages[0]].stamp, stamps[&packages[0]].inherited.as_str()), ([4; 16], ""));
        assert_eq!((stamps[&packages[1]].stamp, stamps[&packages[1]].inherited.as_str()), ([3; 16], "cargo rust"));
        assert_eq!(catalog.by_package(None, &packages[0]), []);
        assert_eq!(catalog.by_name(&packages[1]), rows[1]);
    }

    #[test]
    fn a_package_or_a_repository_leaves_with_all_its_rows() {
        let (_dir, store) = fresh();
        let catalog = store.catalog();
        for (repo, package) in [(GENTOO, FOO), (GENTOO, "dev-libs/foo-bar"), ("gentoo-zh", FOO)] {
            catalog
                .replace_package(repo, package, [1; 16], &[row(repo, package, "a"), row(repo, package, "b")])
                .unwrap();
        }
        assert_eq!(catalog.remove_package(GENTOO, FOO).unwrap(), 2);
        assert_eq!(catalog.remove_package(GENTOO, FOO).unwrap(), 0);
        assert_eq!(catalog.by_name("a").len(), 2);
        assert_eq!(catalog.remove_repo(GENTOO).unwrap(), 2);
        assert_eq!(catalog.repos(), ["gentoo-zh"]);
        assert_eq!((catalog.len(), catalog.by_digest(&Digest::of(b"a")).len()), (2, 1));
        catalog.clear().unwrap();
        assert_eq!((catalog.len(), catalog.by_name("a"), catalog.repos().len()), (0, vec![], 0));
    }

    #[test]
    fn what_one_package_forbids_is_not_announced_and_neither_is_the_unknown() {
        let (_dir, store) = fresh();
        let catalog = store.catalog();
        let free = row(GENTOO, FOO, "foo");
        assert!(!catalog.may_announce(&free.digest));
        catalog.replace_package(GENTOO, FOO, [1; 16], std::slice::from_ref(&free)).unwrap();
        assert!(catalog.may_announce(&free.digest));
        let bound = CatalogEntry { may_announce: false, ..row("guru", FOO, "foo") };
        catalog.replace_package("guru", FOO, [1; 16], &[bound]).unwrap();
        assert!(!catalog.may_announce(&free.digest));
        catalog.remove_repo("guru").unwrap();
        assert!(catalog.may_announce(&free.digest));
    }

    #[test]
    fn names_that_would_garble_keys_are_refused_and_nothing_is_written() {
        let (_dir, store) = fresh();
        let catalog = store.catalog();
        let good = row(GENTOO, FOO, "good");
        for name in ["", "a\0b", &"x".repeat(256)] {
            let bad = row(GENTOO, FOO, name);
            let refused = catalog.replace_package(GENTOO, FOO, [1; 16], &[good.clone(), bad]);
            assert!(matches!(refused, Err(CatalogError::Name { .. })), "{name:?}");
            assert!(catalog.replace_package(name, FOO, [1; 16], &[]).is_err());
            assert!(catalog.remove_package(GENTOO, name).is_err());
        }
        let foreign = catalog.replace_package(GENTOO, FOO, [1; 16], &[row("guru", FOO, "foreign")]);
        assert!(matches!(foreign, Err(CatalogError::Foreign { .. })));
        let large = CatalogEntry { ebuilds: vec!["x".repeat(ROW_BYTES_MAX)], ..good };
        let refused = catalog.replace_package(GENTOO, FOO, [1; 16], &[large]);
        assert!(matches!(refused, Err(CatalogError::Large { .. })));
        assert_eq!((catalog.len(), catalog.stamps(GENTOO).len()), (0, 0));
    }
}
