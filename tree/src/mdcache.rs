//! One entry of `metadata/md5-cache`: what an ebuild declares, without running it (PMS 14.3).

use thiserror::Error;

use crate::md5::Md5;

/// Bytes of one entry; the largest real ones name thousands of Go modules in SRC_URI.
pub const ENTRY_BYTES_MAX: usize = 4 << 20;
/// Lines of one entry; Portage writes fewer than 30.
pub const LINES_MAX: usize = 256;
/// Eclasses of one entry.
pub const ECLASSES_MAX: usize = 1024;

/// Why an md5-cache entry cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParseMdEntryError {
    /// Larger than [`ENTRY_BYTES_MAX`].
    #[error("an md5-cache entry of {found} bytes")]
    TooLarge {
        /// Bytes of the entry.
        found: usize,
    },
    /// More than [`LINES_MAX`] lines.
    #[error("an md5-cache entry of more than {LINES_MAX} lines")]
    TooManyLines,
    /// Not UTF-8.
    #[error("an md5-cache entry that is not UTF-8")]
    NotUtf8,
    /// A line without `=`.
    #[error("expected KEY=VALUE in line {line} of an md5-cache entry")]
    NoValue {
        /// The line, from 1.
        line: usize,
    },
    /// Nothing there at all: an entry that was being written when the machine stopped.
    #[error("an empty md5-cache entry")]
    Empty,
}

/// What an ebuild declares; a missing key is an empty text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MdEntry {
    /// EAPI; `0` where nothing is written.
    pub eapi: String,
    /// SLOT with sub-slot; `0` where nothing is written.
    pub slot: String,
    /// SRC_URI as written.
    pub src_uri: String,
    /// RESTRICT as written.
    pub restrict: String,
    /// LICENSE as written.
    pub license: String,
    /// KEYWORDS as written.
    pub keywords: String,
    /// IUSE as written.
    pub iuse: String,
    /// DESCRIPTION.
    pub description: String,
    /// HOMEPAGE as written.
    pub homepage: String,
    /// The inherited eclasses with the sums that they had; None where they are not written as they should be.
    pub eclasses: Option<Vec<(String, Md5)>>,
    /// Their names, as Portage answers, which tells no sums.
    pub inherited: Vec<String>,
    /// The sum of the ebuild that this was made from.
    pub md5: Option<Md5>,
}

/// Pairs of a name and a sum, parted by tabs.
fn eclasses(text: &str) -> Option<Vec<(String, Md5)>> {
    let text = text.trim();
    if text.is_empty() {
        return Some(Vec::new());
    }
    let words: Vec<&str> = text.split('\t').take(2 * ECLASSES_MAX + 1).collect();
    let pair = |pair: &[&str]| match pair {
        [name, sum] => Some(((*name).to_owned(), sum.parse().ok()?)),
        _ => None,
    };
    words.chunks(2).map(pair).collect()
}

impl Default for MdEntry {
    fn default() -> Self {
        let (zero, empty) = (|| "0".to_owned(), String::new);
        Self {
            eapi: zero(),
            slot: zero(),
            src_uri: empty(),
            restrict: empty(),
            license: empty(),
            keywords: empty(),
            iuse: empty(),
            description: empty(),
            homepage: empty(),
            eclasses: Some(Vec::new()),
            inherited: Vec::new(),
            md5: None,
        }
    }
}

impl MdEntry {
    /// Reads an entry. Keys that are not kept are passed over; of a repeated key the last counts, as for Portage.
    ///
    /// # Errors
    /// When the text is not lines of `KEY=VALUE` within the limits of this module.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseMdEntryError> {
        if bytes.len() > ENTRY_BYTES_MAX {
            return Err(ParseMdEntryError::TooLarge { found: bytes.len() });
        }
        let text = std::str::from_utf8(bytes).map_err(|_| ParseMdEntryError::NotUtf8)?;
        if text.trim().is_empty() {
            return Err(ParseMdEntryError::Empty);
        }
        let mut entry = Self::default();
        for (index, line) in text.split_terminator('\n').enumerate() {
            if index >= LINES_MAX {
                return Err(ParseMdEntryError::TooManyLines);
            }
            let (key, value) = line.split_once('=').ok_or(ParseMdEntryError::NoValue { line: index + 1 })?;
            entry.set(key, value);
        }
        Ok(entry)
    }

    /// The names of the inherited eclasses, as far as they are known.
    pub fn names_of_eclasses(&self) -> impl Iterator<Item = &str> {
        let summed = self.eclasses.iter().flatten().map(|(name, _)| name.as_str());
        summed.chain(self.inherited.iter().map(String::as_str))
    }

    fn set(&mut self, key: &str, value: &str) {
        let field = match key {
            "EAPI" => &mut self.eapi,
            "SLOT" => &mut self.slot,
            "SRC_URI" => &mut self.src_uri,
            "RESTRICT" => &mut self.restrict,
            "LICENSE" => &mut self.license,
            "KEYWORDS" => &mut self.keywords,
            "IUSE" => &mut self.iuse,
            "DESCRIPTION" => &mut self.description,
            "HOMEPAGE" => &mut self.homepage,
            "_eclasses_" => {
                self.eclasses = eclasses(value);
                return;
            }
            // Not in md5-cache: Portage answers so, which makes it of `_eclasses_`.
            "INHERITED" => {
                self.inherited = value.split_whitespace().take(ECLASSES_MAX).map(str::to_owned).collect();
                return;
            }
            "_md5_" => {
                self.md5 = value.parse().ok();
                return;
            }
            _ => return,
        };
        if !(value.is_empty() && matches!(key, "EAPI" | "SLOT")) {
            value.clone_into(field);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_entry() {
        let entry = MdEntry::parse(
            b"BDEPEND=dev-lang/rust\nDESCRIPTION=a = b\nEAPI=8\nIUSE=+x debug\nKEYWORDS=~amd64\nLICENSE=|| ( MIT Apache-2.0 )\n\
              RESTRICT=mirror\nSLOT=0/1\nSRC_URI=https://example.org/?a=b -> c.tar\n_eclasses_=cargo\t00000000000000000000000000000001\trust\td41d8cd98f00b204e9800998ecf8427e\n\
              _md5_=d41d8cd98f00b204e9800998ecf8427e\n",
        )
        .unwrap();
        assert_eq!(entry.description, "a = b");
        assert_eq!(entry.src_uri, "https://example.org/?a=b -> c.tar");
        assert_eq!((entry.eapi.as_str(), entry.slot.as_str(), entry.restrict.as_str()), ("8", "0/1", "mirror"));
        assert_eq!((entry.license.as_str(), entry.keywords.as_str()), ("|| ( MIT Apache-2.0 )", "~amd64"));
        assert_eq!((entry.iuse.as_str(), entry.md5), ("+x debug", Some(Md5::of(b""))));
        assert_eq!(entry.names_of_eclasses().collect::<Vec<_>>(), ["cargo", "rust"]);
    }

    #[test]
    fn eclasses_that_are_not_pairs_of_a_name_and_a_sum_are_garbled() {
        let sum = "d41d8cd98f00b204e9800998ecf8427e";
        for (text, names) in [
            (String::new(), Some(0)),
            (format!("a\t{sum}"), Some(1)),
            (format!("a\t{sum}\tb\t{sum}\t"), Some(2)),
            (format!("a\t{sum}\tb"), None),
            (format!("a\t/eclass\t{sum}"), None),
            ("a\t1764236400".to_owned(), None),
        ] {
            let entry = MdEntry::parse(format!("SLOT=0\n_eclasses_={text}\n").as_bytes()).unwrap();
            assert_eq!(entry.eclasses.map(|eclasses| eclasses.len()), names, "{text:?}");
        }
        let asked = MdEntry::parse(b"INHERITED=a b\n").unwrap();
        assert_eq!(asked.names_of_eclasses().collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn missing_and_empty_keys_have_their_defaults() {
        let entry = MdEntry::parse(b"SLOT=\n").unwrap();
        assert_eq!(entry, MdEntry::default());
        assert_eq!((entry.eapi.as_str(), entry.slot.as_str()), ("0", "0"));
    }

    #[test]
    fn broken_entries_are_refused() {
        assert_eq!(MdEntry::parse(b""), Err(ParseMdEntryError::Empty));
        assert_eq!(MdEntry::parse(b"\n\n"), Err(ParseMdEntryError::Empty));
        assert_eq!(MdEntry::parse(b"SLOT=0\nnothing"), Err(ParseMdEntryError::NoValue { line: 2 }));
        assert_eq!(MdEntry::parse(b"\xff=\n"), Err(ParseMdEntryError::NotUtf8));
        assert_eq!(MdEntry::parse("A=b\n".repeat(257).as_bytes()), Err(ParseMdEntryError::TooManyLines));
        let large = vec![b'='; ENTRY_BYTES_MAX + 1];
        assert_eq!(MdEntry::parse(&large), Err(ParseMdEntryError::TooLarge { found: ENTRY_BYTES_MAX + 1 }));
    }
}
