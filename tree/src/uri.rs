//! SRC_URI: which distfiles an ebuild names and where upstream has them (PMS 7.3.2, 8.2.10).

use thiserror::Error;

use crate::depstring::{self, GrammarError, Signs, Step};
use crate::name::{DistfileName, ParseNameError};

/// Entries of one SRC_URI; the largest real ones name a few thousand crates or Go modules.
pub const ENTRIES_MAX: usize = 65_536;
/// Bytes of one URI.
pub const URI_BYTES_MAX: usize = 8192;

/// Why a SRC_URI cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParseSrcUriError {
    /// Brackets, conditionals or arrows are wrong.
    #[error(transparent)]
    Grammar(#[from] GrammarError),
    /// More than [`ENTRIES_MAX`] entries.
    #[error("more than {ENTRIES_MAX} entries")]
    TooMany,
    /// A URI is longer than [`URI_BYTES_MAX`].
    #[error("a URI of {found} bytes")]
    UriTooLong {
        /// Bytes of the URI.
        found: usize,
    },
    /// The last part of a URI, or the name after `->`, cannot name a distfile.
    #[error("no distfile name in {word:?}")]
    Name {
        /// The word, shortened.
        word: String,
        /// What is wrong with the name.
        #[source]
        source: ParseNameError,
    },
}

/// From which restriction an entry is exempt (EAPI 8: `fetch+` and `mirror+`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Exempt {
    /// From none.
    None,
    /// `fetch+`: may be fetched in spite of RESTRICT=fetch, not mirrored.
    Fetch,
    /// `mirror+`: may be fetched and mirrored in spite of RESTRICT.
    Mirror,
}

/// One file of a SRC_URI.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SrcEntry {
    /// The name in DISTDIR: what follows `->`, else the last part of the URI.
    pub name: DistfileName,
    /// The URI without `fetch+` or `mirror+`; `mirror://NAME/PATH` as written. None where only a file name is written.
    pub uri: Option<String>,
    /// What the prefix of the URI exempts it from.
    pub exempt: Exempt,
}

/// A parsed SRC_URI.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SrcUri {
    entries: Vec<SrcEntry>,
}

impl SrcUri {
    /// Reads the text of SRC_URI. All USE conditionals count as met, as for Portage's `ebuild manifest`.
    ///
    /// # Errors
    /// When Portage would refuse it too, or a limit of this module is passed.
    pub fn parse(text: &str) -> Result<Self, ParseSrcUriError> {
        let mut entries: Vec<SrcEntry> = Vec::new();
        // A word becomes an entry when the next step shows whether it is renamed.
        let mut pending: Option<&str> = None;
        depstring::walk(text, Signs::Arrows, |step| {
            if let Step::Arrow(name) = step {
                return pending.take().map_or(Ok(()), |word| push(&mut entries, word, name));
            }
            if let Some(word) = pending.take() {
                push(&mut entries, word, basename(word))?;
            }
            if let Step::Word(word) = step {
                pending = Some(word);
            }
            Ok::<(), ParseSrcUriError>(())
        })?;
        if let Some(word) = pending {
            push(&mut entries, word, basename(word))?;
        }
        Ok(Self { entries })
    }

    /// All entries in the order of the text; a file with several URIs has several entries.
    #[must_use]
    pub fn entries(&self) -> Vec<SrcEntry> {
        self.entries.clone()
    }

    /// All entries without copying them.
    pub fn iter(&self) -> impl Iterator<Item = &SrcEntry> {
        self.entries.iter()
    }
}

fn basename(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

fn push(entries: &mut Vec<SrcEntry>, word: &str, name: &str) -> Result<(), ParseSrcUriError> {
    if entries.len() >= ENTRIES_MAX {
        return Err(ParseSrcUriError::TooMany);
    }
    if word.len() > URI_BYTES_MAX {
        return Err(ParseSrcUriError::UriTooLong { found: word.len() });
    }
    let name =
        name.parse().map_err(|source| ParseSrcUriError::Name { word: word.chars().take(80).collect(), source })?;
    let prefixes = [("fetch+", Exempt::Fetch), ("mirror+", Exempt::Mirror)];
    let (uri, exempt) = prefixes
        .iter()
        .find_map(|(prefix, exempt)| Some((word.strip_prefix(prefix)?, *exempt)))
        .filter(|(uri, _)| has_scheme(uri))
        .unwrap_or((word, Exempt::None));
    entries.push(SrcEntry { name, uri: has_scheme(uri).then(|| uri.to_owned()), exempt });
    Ok(())
}

/// Whether the text begins with a scheme (RFC 3986, 3.1), by which Portage tells a URI from a file name.
fn has_scheme(text: &str) -> bool {
    text.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.chars().all(|character| character.is_ascii_alphanumeric() || matches!(character, '+' | '-' | '.'))
    })
}
