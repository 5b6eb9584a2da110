//! The Packages index of a binhost: a header and one block a binary package, as Portage writes and reads it
//! (`portage.getbinpkg.PackageIndex`, `portage.dbapi.bintree`).
//!
//! Keys that would let an index lead Portage elsewhere (`BASE_URI`, `FETCHCOMMAND`, `RESUMECOMMAND`, `PKGINDEX_URI`) are
//! unknown here: they are neither read nor written.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use std::collections::BTreeMap;
use std::fmt;

use thiserror::Error;

use crate::cpv::{Cpv, ParseCpvError};
use crate::gpkg::Metadata;

/// Bytes of an index that are read; Gentoo's own has about 20 MB.
pub const INDEX_BYTES_MAX: usize = 128 << 20;
/// Entries of an index.
pub const ENTRIES_MAX: usize = 500_000;
/// Keys of the header; Portage writes about thirty and one for each variable of `USE_EXPAND_IMPLICIT`.
pub const HEADER_KEYS_MAX: usize = 256;
/// Bytes of a key.
pub const KEY_BYTES_MAX: usize = 128;
/// Bytes of a value; `REQUIRES` of large packages has some ten thousand.
pub const VALUE_BYTES_MAX: usize = 256 << 10;

/// The keys of an entry in the order in which Portage writes them: that of its internal names, which differ for the three
/// that are translated.
const KEYS: [(&str, &str); 28] = [
    ("BDEPEND", "BDEPEND"),
    ("BUILD_ID", "BUILD_ID"),
    ("BUILD_TIME", "BUILD_TIME"),
    ("CHOST", "CHOST"),
    ("CPV", "CPV"),
    ("DEFINED_PHASES", "DEFINED_PHASES"),
    ("DEPEND", "DEPEND"),
    ("DESCRIPTION", "DESC"),
    ("EAPI", "EAPI"),
    ("IDEPEND", "IDEPEND"),
    ("IUSE", "IUSE"),
    ("KEYWORDS", "KEYWORDS"),
    ("LICENSE", "LICENSE"),
    ("MD5", "MD5"),
    ("PATH", "PATH"),
    ("PDEPEND", "PDEPEND"),
    ("PROPERTIES", "PROPERTIES"),
    ("PROVIDES", "PROVIDES"),
    ("RDEPEND", "RDEPEND"),
    ("REQUIRES", "REQUIRES"),
    ("RESTRICT", "RESTRICT"),
    ("SHA1", "SHA1"),
    ("SIZE", "SIZE"),
    ("SLOT", "SLOT"),
    ("USE", "USE"),
    ("USER_PATCHES", "USER_PATCHES"),
    ("_mtime_", "MTIME"),
    ("repository", "REPO"),
];

/// The keys that are copied out of a package's metadata, by the names that they have there.
const METADATA_KEYS: [&str; 20] = [
    "BDEPEND",
    "BUILD_TIME",
    "CHOST",
    "DEFINED_PHASES",
    "DEPEND",
    "EAPI",
    "IDEPEND",
    "IUSE",
    "KEYWORDS",
    "LICENSE",
    "PDEPEND",
    "PROPERTIES",
    "PROVIDES",
    "RDEPEND",
    "repository",
    "REQUIRES",
    "RESTRICT",
    "SLOT",
    "USE",
    "USER_PATCHES",
];

/// What a key means where an entry does not have it, beside the empty text.
const DEFAULTS: [(&str, &str); 2] = [("EAPI", "0"), ("SLOT", "0")];
/// Keys that an entry takes from the header where it does not have them.
const INHERITED: [&str; 2] = ["CHOST", "REPO"];

/// Why there is no entry for a package.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MakeEntryError {
    /// It does not say which package it is.
    #[error("the metadata names no package")]
    Cpv(#[from] ParseCpvError),
    /// A number is none; Portage stops at such an entry.
    #[error("{key} is {value:?}: expected a number")]
    Number {
        /// The key.
        key: &'static str,
        /// Its value, shortened.
        value: String,
    },
    /// A path that could lead Portage out of its directory, or that is no gpkg's.
    #[error("{path:?} cannot be the PATH of a gpkg: expected names with slashes between them that end in .gpkg.tar")]
    Path {
        /// The path, shortened.
        path: String,
    },
    /// A value is longer than is believed in.
    #[error("{key} has {found} bytes: at most {VALUE_BYTES_MAX} are written")]
    TooLong {
        /// The key.
        key: String,
        /// Bytes of its value.
        found: usize,
    },
    /// A key that an index does not have, or that has no value.
    #[error("{key:?} is not a key of a Packages index, or has no value")]
    Key {
        /// The key, shortened.
        key: String,
    },
}

/// What an entry says of the file and the package itself does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageFile {
    /// Where the file is below the binhost's address, without escapes: Portage asks for it as it is written.
    pub path: String,
    /// Bytes of the file.
    pub size: u64,
    /// MD5 in hexadecimal digits.
    pub md5: String,
    /// SHA-1 in hexadecimal digits.
    pub sha1: String,
    /// When the file changed, in seconds since 1970; Portage takes another time for another file.
    pub mtime: u64,
}

/// One binary package of an index. Its keys are those of the index file, and each has a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageEntry {
    cpv: Cpv,
    keys: BTreeMap<String, String>,
}

impl PackageEntry {
    /// The entry for a gpkg as Portage makes it. Several builds of one cpv can stand in one index; they differ in `BUILD_ID`,
    /// `BUILD_TIME`, `SIZE` or `MTIME`.
    ///
    /// # Errors
    /// When the package does not say which one it is, or with a value Portage would stop at.
    pub fn from_metadata(metadata: &Metadata, file: &PackageFile) -> Result<Self, MakeEntryError> {
        let mut keys = BTreeMap::new();
        for key in METADATA_KEYS {
            let value = String::from_utf8_lossy(metadata.get(key).unwrap_or_default());
            keys.insert(written_name(key).to_owned(), one_line(&value));
        }
        keys.insert("CPV".to_owned(), metadata.cpv()?.to_string());
        keys.insert("BUILD_ID".to_owned(), metadata.text("BUILD_ID").unwrap_or_default().to_owned());
        keys.insert("PATH".to_owned(), file.path.clone());
        keys.insert("SIZE".to_owned(), file.size.to_string());
        keys.insert("MD5".to_owned(), file.md5.clone());
        keys.insert("SHA1".to_owned(), file.sha1.clone());
        keys.insert("MTIME".to_owned(), file.mtime.to_string());
        keys.retain(|_, value| !value.is_empty());
        Self::from_keys(keys)
    }

    /// The entry with these keys and values.
    ///
    /// # Errors
    /// When a key is unknown or empty, `CPV` is missing or wrong, or with a value Portage would stop at.
    pub fn from_keys(keys: BTreeMap<String, String>) -> Result<Self, MakeEntryError> {
        let text = |key: &str| keys.get(key).map(String::as_str).unwrap_or_default();
        for (key, value) in &keys {
            if value.len() > VALUE_BYTES_MAX {
                return Err(MakeEntryError::TooLong { key: shown(key), found: value.len() });
            }
            let known = KEYS.iter().any(|(_, written)| written == key);
            if !known || value.is_empty() || value.contains(breaks_line) {
                return Err(MakeEntryError::Key { key: shown(key) });
            }
        }
        for key in ["BUILD_ID", "BUILD_TIME", "SIZE", "MTIME"] {
            let value = text(key);
            if !value.bytes().all(|byte| byte.is_ascii_digit()) || value.len() > 19 {
                return Err(MakeEntryError::Number { key, value: shown(value) });
            }
        }
        let path = text("PATH");
        if !path.is_empty() && !is_safe_path(path) {
            return Err(MakeEntryError::Path { path: shown(path) });
        }
        let cpv = text("CPV").parse()?;
        Ok(Self { cpv, keys })
    }

    /// Which package it is.
    #[must_use]
    pub const fn cpv(&self) -> &Cpv {
        &self.cpv
    }

    /// The value of a key by its name in the file (`REPO`, `MTIME`, `DESC`).
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.keys.get(key).map(String::as_str)
    }

    /// All keys and their values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.keys.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The same package at another place.
    ///
    /// # Errors
    /// When the path is not one of a gpkg below the binhost's address.
    pub fn with_path(mut self, path: String) -> Result<Self, MakeEntryError> {
        if !is_safe_path(&path) {
            return Err(MakeEntryError::Path { path: shown(&path) });
        }
        self.keys.insert("PATH".to_owned(), path);
        Ok(self)
    }

    fn number(&self, key: &str) -> u64 {
        self.get(key).and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    fn write(&self, header: &BTreeMap<String, String>, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (_, key) in KEYS {
            let Some(value) = self.get(key) else { continue };
            let default = DEFAULTS.contains(&(key, value));
            let inherited = INHERITED.contains(&key) && header.get(key).is_some_and(|own| own == value);
            if !default && !inherited {
                writeln!(out, "{key}: {value}")?;
            }
        }
        writeln!(out)
    }
}

/// An index: what holds for all packages, and the packages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PackagesIndex {
    header: BTreeMap<String, String>,
    entries: Vec<PackageEntry>,
}

impl PackagesIndex {
    /// An index of format 0. `header` has what the machines that use it need beside (`ARCH`, `CHOST`, `USE_EXPAND`…);
    /// keys that are none are left out, and so are those that would lead elsewhere or keep Portage from asking again.
    #[must_use]
    pub fn new(header: &BTreeMap<String, String>, timestamp: u64, mut entries: Vec<PackageEntry>) -> Self {
        let mut kept: BTreeMap<String, String> = header
            .iter()
            .map(|(key, value)| (key.clone(), one_line(value)))
            .filter(|(key, value)| {
                is_key(key)
                    && !matches!(key.as_str(), "URI" | "TTL" | "DOWNLOAD_TIMESTAMP")
                    && !value.is_empty()
                    && value.len() <= VALUE_BYTES_MAX
            })
            .take(HEADER_KEYS_MAX)
            .collect();
        kept.insert("VERSION".to_owned(), "0".to_owned());
        kept.insert("TIMESTAMP".to_owned(), timestamp.to_string());
        kept.insert("PACKAGES".to_owned(), entries.len().to_string());
        let order = |entry: &PackageEntry| {
            (
                entry.cpv.clone(),
                entry.number("BUILD_ID"),
                entry.number("BUILD_TIME"),
                entry.get("PATH").map(str::to_owned),
            )
        };
        entries.sort_by_cached_key(order);
        Self { header: kept, entries }
    }

    /// The keys of the header.
    #[must_use]
    pub const fn header(&self) -> &BTreeMap<String, String> {
        &self.header
    }

    /// The packages.
    #[must_use]
    pub fn entries(&self) -> &[PackageEntry] {
        &self.entries
    }

    /// When it was made, in seconds since 1970; a newer one has a larger number.
    #[must_use]
    pub fn timestamp(&self) -> Option<u64> {
        self.header.get("TIMESTAMP")?.parse().ok()
    }

    /// Reads an index as Portage does: lines without a colon and unknown keys of an entry are passed over, the later of two
    /// lines for one key counts (an empty value is none), and the first block without any key ends it. Entries that [`PackageEntry::from_keys`]
    /// refuses are left out.
    ///
    /// # Errors
    /// When it is larger than the limits of this module.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseIndexError> {
        let over = |what, limit| ParseIndexError { what, limit };
        if bytes.len() > INDEX_BYTES_MAX {
            return Err(over("bytes", INDEX_BYTES_MAX));
        }
        let text = String::from_utf8_lossy(bytes);
        let mut lines = text.split('\n').map(|line| line.trim_end_matches('\r'));
        let mut header = BTreeMap::new();
        for (key, value) in block(&mut lines) {
            if is_key(key) && value.len() <= VALUE_BYTES_MAX && !value.contains(breaks_line) {
                header.insert(key.to_owned(), value.to_owned());
            }
            if header.len() > HEADER_KEYS_MAX {
                return Err(over("keys in its header", HEADER_KEYS_MAX));
            }
        }
        let mut entries = Vec::new();
        loop {
            let keys: BTreeMap<String, String> = block(&mut lines)
                .filter_map(|(key, value)| {
                    let (_, written) = KEYS.iter().find(|(name, written)| *name == key || *written == key)?;
                    Some(((*written).to_owned(), value.to_owned()))
                })
                .collect();
            if keys.is_empty() {
                break;
            }
            entries.extend(complete(keys, &header));
            if entries.len() > ENTRIES_MAX {
                return Err(over("entries", ENTRIES_MAX));
            }
        }
        Ok(Self { header, entries })
    }
}

impl fmt::Display for PackagesIndex {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, value) in self.header.iter().filter(|(_, value)| !value.is_empty()) {
            writeln!(out, "{key}: {value}")?;
        }
        writeln!(out)?;
        self.entries.iter().try_for_each(|entry| entry.write(&self.header, out))
    }
}

/// An index is larger than is believed in.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the Packages index has more than {limit} {what}")]
pub struct ParseIndexError {
    what: &'static str,
    limit: usize,
}

/// The keys and values up to the next empty line.
fn block<'a>(lines: &mut impl Iterator<Item = &'a str>) -> impl Iterator<Item = (&'a str, &'a str)> {
    lines.by_ref().take_while(|line| !line.is_empty()).filter_map(|line| {
        let (key, value) = line.split_once(':')?;
        let mut rest = value.chars();
        rest.next();
        Some((key, rest.as_str()))
    })
}

/// An entry with what it takes from the header and what holds where nothing is said.
fn complete(mut keys: BTreeMap<String, String>, header: &BTreeMap<String, String>) -> Option<PackageEntry> {
    keys.retain(|_, value| !value.is_empty());
    for key in INHERITED {
        if let Some(value) = header.get(key).filter(|value| !value.is_empty()) {
            keys.entry(key.to_owned()).or_insert_with(|| value.clone());
        }
    }
    for (key, value) in DEFAULTS {
        keys.entry(key.to_owned()).or_insert_with(|| value.to_owned());
    }
    PackageEntry::from_keys(keys).ok()
}

fn written_name(key: &str) -> &str {
    KEYS.iter().find(|(name, _)| *name == key).map_or(key, |(_, written)| written)
}

fn is_key(key: &str) -> bool {
    (1..=KEY_BYTES_MAX).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Whether some reader of lines in Python takes this for the end of a line, or a terminal for a command.
fn breaks_line(character: char) -> bool {
    character.is_control() || matches!(character, '\u{2028}' | '\u{2029}')
}

/// The words with one space between them: Python's `" ".join(text.split())`.
fn one_line(text: &str) -> String {
    let between = |character: char| character.is_whitespace() || matches!(character, '\u{1c}'..='\u{1f}');
    let words: Vec<&str> = text.split(between).filter(|word| !word.is_empty()).collect();
    words.join(" ").chars().filter(|character| !breaks_line(*character)).collect()
}

fn is_safe_path(path: &str) -> bool {
    path.len() <= 1024
        && path.ends_with(".gpkg.tar")
        && path.split('/').all(|name| !name.is_empty() && !name.starts_with('.'))
        && path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._+-@".contains(&byte))
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata() -> Metadata {
        [
            ("CATEGORY", "dev-libs"),
            ("PF", "greet-2-r1"),
            ("BUILD_ID", "3\n"),
            ("BUILD_TIME", "1700000000\n"),
            ("CHOST", "x86_64-pc-linux-gnu\n"),
            ("EAPI", "8\n"),
            ("RDEPEND", "a/b\n\t\u{b}a/c\u{1f}\r\n"),
            ("SLOT", "0\n"),
            ("repository", "gentoo\n"),
            ("CFLAGS", "-O2\n"),
        ]
        .into_iter()
        .collect()
    }

    fn file() -> PackageFile {
        let digits = |count: usize| "0".repeat(count);
        PackageFile { path: "ab/cd.gpkg.tar".to_owned(), size: 5, md5: digits(32), sha1: digits(40), mtime: 7 }
    }

    fn made(change: impl Fn(&mut BTreeMap<String, String>)) -> Result<PackageEntry, MakeEntryError> {
        let mut keys = PackageEntry::from_metadata(&metadata(), &file()).unwrap().keys;
        change(&mut keys);
        PackageEntry::from_keys(keys)
    }

    #[test]
    fn an_entry_leaves_out_what_is_a_default_or_in_the_header() {
        let header = [
            ("CHOST", "x86_64-pc-linux-gnu"),
            ("URI", "http://evil.invalid"),
            ("TTL", "9"),
            ("A B", "x"),
            ("ARCH", ""),
        ];
        let header = header.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let entry = PackageEntry::from_metadata(&metadata(), &file()).unwrap();
        let index = PackagesIndex::new(&header, 12, vec![entry]);
        let text = format!(
            "CHOST: x86_64-pc-linux-gnu\nPACKAGES: 1\nTIMESTAMP: 12\nVERSION: 0\n\n\
             BUILD_ID: 3\nBUILD_TIME: 1700000000\nCPV: dev-libs/greet-2-r1\nEAPI: 8\nMD5: {}\nPATH: ab/cd.gpkg.tar\n\
             RDEPEND: a/b a/c\nSHA1: {}\nSIZE: 5\nMTIME: 7\nREPO: gentoo\n\n",
            "0".repeat(32),
            "0".repeat(40)
        );
        assert_eq!(index.to_string(), text);
        assert_eq!(PackagesIndex::parse(text.as_bytes()).unwrap(), index);
    }

    #[test]
    fn an_empty_index_is_an_index() {
        let index = PackagesIndex::new(&BTreeMap::new(), 1, Vec::new());
        assert_eq!(index.to_string(), "PACKAGES: 0\nTIMESTAMP: 1\nVERSION: 0\n\n");
        assert_eq!(index.timestamp(), Some(1));
    }

    #[test]
    fn versions_stand_in_their_order() {
        let entry = |pf: &str, id: &str| {
            made(|keys| {
                keys.insert("CPV".to_owned(), format!("dev-libs/{pf}"));
                keys.insert("BUILD_ID".to_owned(), id.to_owned());
            })
            .unwrap()
        };
        let entries = vec![entry("greet-10", "1"), entry("greet-9", "10"), entry("greet-9", "9"), entry("a-1", "1")];
        let index = PackagesIndex::new(&BTreeMap::new(), 1, entries);
        let order: Vec<String> =
            index.entries().iter().map(|entry| format!("{} {}", entry.cpv(), entry.get("BUILD_ID").unwrap())).collect();
        assert_eq!(order, ["dev-libs/a-1 1", "dev-libs/greet-9 9", "dev-libs/greet-9 10", "dev-libs/greet-10 1"]);
    }

    #[test]
    fn paths_that_could_lead_elsewhere_are_refused() {
        for path in [
            "../x.gpkg.tar",
            "/etc/x.gpkg.tar",
            "a//x.gpkg.tar",
            "a/../x.gpkg.tar",
            "a/.x.gpkg.tar",
            "a/x.tbz2",
            "a/x gpkg.gpkg.tar",
            "http://evil.invalid/x.gpkg.tar",
            "a/%2e%2e/x.gpkg.tar",
            "a/x?.gpkg.tar",
        ] {
            let found = made(|keys| drop(keys.insert("PATH".to_owned(), path.to_owned())));
            assert!(matches!(found, Err(MakeEntryError::Path { .. })), "{path}");
            assert!(made(|_| {}).unwrap().with_path(path.to_owned()).is_err(), "{path}");
        }
    }

    #[test]
    fn values_that_would_stop_portage_are_refused() {
        for (key, value) in
            [("SIZE", "x"), ("MTIME", "-1"), ("BUILD_ID", "1 2"), ("BUILD_TIME", "99999999999999999999")]
        {
            let found = made(|keys| drop(keys.insert(key.to_owned(), value.to_owned())));
            assert!(matches!(found, Err(MakeEntryError::Number { .. })), "{key}");
        }
        for (key, value) in
            [("FETCHCOMMAND", "rm"), ("BASE_URI", "x"), ("USE", ""), ("USE", "a\nPATH: x"), ("USE", "a\u{2028}b")]
        {
            let found = made(|keys| drop(keys.insert(key.to_owned(), value.to_owned())));
            assert!(matches!(found, Err(MakeEntryError::Key { .. })), "{key}: {value}");
        }
        let long = made(|keys| drop(keys.insert("USE".to_owned(), "x".repeat(VALUE_BYTES_MAX + 1))));
        assert!(matches!(long, Err(MakeEntryError::TooLong { .. })));
        assert!(matches!(made(|keys| drop(keys.remove("CPV"))), Err(MakeEntryError::Cpv(_))));
        let nameless: Metadata = [("PF", "a-1")].into_iter().collect();
        assert!(PackageEntry::from_metadata(&nameless, &file()).is_err());
    }

    #[test]
    fn an_index_larger_than_is_believed_in_is_refused() {
        let many: String = (0..=HEADER_KEYS_MAX).map(|key| format!("K{key}: x\n")).collect();
        assert!(PackagesIndex::parse(many.as_bytes()).is_err());
        assert!(PackagesIndex::parse(&vec![b'x'; INDEX_BYTES_MAX + 1]).is_err());
    }
}
