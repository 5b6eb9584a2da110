//! Versions and their order (PMS 3.2, 3.3).

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use thiserror::Error;

/// No version text is longer: it is part of a file name. Its numbers may be as long as fit.
pub const VERSION_BYTES_MAX: usize = 256;

/// Why a text is not a version.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParseVersionError {
    /// Longer than [`VERSION_BYTES_MAX`].
    #[error("a version of {found} bytes: at most 256 are allowed")]
    TooLong {
        /// Bytes of the text.
        found: usize,
    },
    /// It does not follow the grammar of PMS 3.2.
    #[error("{text:?} is not a version: expected something like 1.2.3b_rc4-r5")]
    Grammar {
        /// The text.
        text: String,
    },
}

/// A suffix of a version, in ascending order. A version without suffix stands between `_rc` and `_p`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Suffix {
    Alpha,
    Beta,
    Pre,
    Rc,
    None,
    P,
}

/// A whole number of any length, without leading zeros; zero is the empty text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Number(Box<str>);

impl Number {
    fn new(digits: &str) -> Self {
        Self(digits.trim_start_matches('0').into())
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.len().cmp(&other.0.len()).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A numeric component after the first (PMS algorithm 3.3).
///
/// With a leading zero it is compared as a text without its trailing zeros, and such a text is always below a component
/// that has no leading zero; two without are compared as numbers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Component {
    Fraction(Box<str>),
    Whole(Number),
}

impl Component {
    fn new(digits: &str) -> Self {
        if digits.starts_with('0') {
            Self::Fraction(digits.trim_end_matches('0').into())
        } else {
            Self::Whole(Number::new(digits))
        }
    }
}

/// What decides the order, in the order in which it decides.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key {
    first: Number,
    components: Vec<Component>,
    letter: Option<char>,
    /// Ends with [`Suffix::None`], so that a text that goes on with `_p` is above and with anything else below.
    suffixes: Vec<(Suffix, Number)>,
    revision: Number,
}

/// A version, as written. Equal are those that PMS orders neither way: `1.0` and `1.0-r0`, `1_p` and `1_p0`.
#[derive(Debug, Clone)]
pub struct Version {
    text: Box<str>,
    key: Key,
}

impl Version {
    /// The version as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The text without the revision: `1.2` of `1.2-r3`.
    #[must_use]
    pub fn without_revision(&self) -> &str {
        self.text.split_once('-').map_or(&*self.text, |(version, _)| version)
    }

    /// The text of the revision after `-r`, if one is written.
    #[must_use]
    pub fn revision(&self) -> Option<&str> {
        self.text.split_once("-r").map(|(_, revision)| revision)
    }
}

fn digits_of(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len()))
}

fn parse_suffixes(mut rest: &str) -> Option<(Vec<(Suffix, Number)>, &str)> {
    const SUFFIXES: [(&str, Suffix); 5] =
        [("alpha", Suffix::Alpha), ("beta", Suffix::Beta), ("pre", Suffix::Pre), ("rc", Suffix::Rc), ("p", Suffix::P)];
    let mut suffixes = Vec::new();
    while let Some(after) = rest.strip_prefix('_') {
        // "pre" stands before "p" in the table, so the longer word is taken.
        let (suffix, after) = SUFFIXES.iter().find_map(|(word, suffix)| Some((*suffix, after.strip_prefix(word)?)))?;
        let (digits, after) = digits_of(after);
        suffixes.push((suffix, Number::new(digits)));
        rest = after;
    }
    suffixes.push((Suffix::None, Number::new("")));
    Some((suffixes, rest))
}

fn parse_key(text: &str) -> Option<Key> {
    let (first, mut rest) = digits_of(text);
    if first.is_empty() {
        return None;
    }
    let mut components = Vec::new();
    while let Some(after) = rest.strip_prefix('.') {
        let (digits, after) = digits_of(after);
        if digits.is_empty() {
            return None;
        }
        components.push(Component::new(digits));
        rest = after;
    }
    let letter = rest.chars().next().filter(char::is_ascii_lowercase);
    if letter.is_some() {
        rest = rest.get(1..)?;
    }
    let (suffixes, rest) = parse_suffixes(rest)?;
    let revision = match rest.strip_prefix("-r") {
        Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => Number::new(digits),
        None if rest.is_empty() => Number::new(""),
        _ => return None,
    };
    Some(Key { first: Number::new(first), components, letter, suffixes, revision })
}

/// Splits `foo-bar-1.2-r3` into `foo-bar` and `1.2-r3`, at the last hyphens that leave a version behind them; the first part
/// is not empty but otherwise not looked at.
#[must_use]
pub fn split_package_version(text: &str) -> Option<(&str, &str)> {
    let valid = |at: usize| {
        let (name, version) = (text.get(..at)?, text.get(at + 1..)?);
        (!name.is_empty() && is_version(version)).then_some((name, version))
    };
    // A version holds at most one hyphen, the one of its revision.
    let last = text.rfind('-')?;
    valid(last).or_else(|| valid(text.get(..last)?.rfind('-')?))
}

fn is_version(text: &str) -> bool {
    text.len() <= VERSION_BYTES_MAX && parse_key(text).is_some()
}

impl FromStr for Version {
    type Err = ParseVersionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > VERSION_BYTES_MAX {
            return Err(ParseVersionError::TooLong { found: text.len() });
        }
        let key = parse_key(text).ok_or_else(|| ParseVersionError::Grammar { text: text.to_owned() })?;
        Ok(Self { text: text.into(), key })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&self.text)
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Version {}

impl Hash for Version {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key)
    }
}
