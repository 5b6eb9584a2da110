//! Atoms: which ebuilds are meant (PMS 8.3, package dependency specification).

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::cpv::{Cp, Cpv, ParseCpvError, Slot};
use crate::name::{ParseNameError, RepoName, SlotName, UseFlag};
use crate::version::Version;

/// Bytes of an atom's text; USE dependencies make the longest.
pub const ATOM_BYTES_MAX: usize = 4096;

/// Why a text is not an atom.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParseAtomError {
    /// Longer than [`ATOM_BYTES_MAX`].
    #[error("an atom of {found} bytes")]
    TooLong {
        /// Bytes of the text.
        found: usize,
    },
    /// There is no category.
    #[error("{text:?} has no category: write category/package")]
    Unqualified {
        /// The text.
        text: String,
    },
    /// `!` or `!!` in front: says what must not be there.
    #[error("{text:?} is a blocker and names nothing to get")]
    Blocker {
        /// The text.
        text: String,
    },
    /// An operator, and no version behind the package.
    #[error("{text:?} has an operator and no version")]
    NoVersion {
        /// The text.
        text: String,
    },
    /// A version, and no operator in front.
    #[error("{text:?} has a version and no operator: write ={text}")]
    NoOperator {
        /// The text.
        text: String,
    },
    /// `*` stands at the end of another operator's version than `=`.
    #[error("{text:?}: only \"=\" takes a \"*\" after the version")]
    Glob {
        /// The text.
        text: String,
    },
    /// A USE dependency is wrong.
    #[error("{text:?} is not a USE dependency")]
    UseDependency {
        /// What stands in the brackets.
        text: String,
    },
    /// The category, package or version is wrong.
    #[error(transparent)]
    Cpv(#[from] ParseCpvError),
    /// The slot or repository is wrong.
    #[error(transparent)]
    Name(#[from] ParseNameError),
}

/// How the version of an atom is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operator {
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `=`
    Equal,
    /// `=` with `*` at the end: all versions that begin like this, at the boundary of a component.
    EqualGlob,
    /// `~`: any revision of exactly this version; a revision written behind it does not matter, as for Portage.
    AnyRevision,
    /// `>=`
    GreaterOrEqual,
    /// `>`
    Greater,
}

/// The slot part of an atom.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotDependency {
    /// The slot, if one is named.
    pub slot: Option<Slot>,
    /// `=` or `*` behind it, which matter for rebuilding and not for matching.
    pub operator: Option<char>,
}

/// One USE dependency, as in `[-doc(+)?]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UseDependency {
    /// What stands before the flag: nothing, `-` or `!`.
    pub prefix: Option<char>,
    /// The flag.
    pub flag: UseFlag,
    /// What counts where the ebuild does not know the flag: `(+)` is true.
    pub default: Option<bool>,
    /// What stands behind the flag: nothing, `?` or `=`.
    pub suffix: Option<char>,
}

/// An atom: a package, and optionally versions, a slot, a repository and USE flags.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Atom {
    /// Category and package name.
    pub cp: Cp,
    /// Operator and version, if there are any.
    pub version: Option<(Operator, Version)>,
    /// The slot part, if there is one.
    pub slot: Option<SlotDependency>,
    /// The repository, if one is named.
    pub repo: Option<RepoName>,
    /// The USE dependencies in their order.
    pub use_dependencies: Vec<UseDependency>,
}

impl Atom {
    /// Whether a cpv is meant, as Portage's `match_from_list` decides.
    ///
    /// `slot` is the ebuild's SLOT with sub-slot where it is known; where it is not, or is none, every slot fits. The
    /// repository and the USE dependencies are left to who knows them.
    #[must_use]
    pub fn matches(&self, cpv: &Cpv, slot: Option<&str>) -> bool {
        self.cp == cpv.cp && self.version_matches(&cpv.version) && self.slot_matches(slot)
    }

    /// Whether a built package has the USE flags that are asked for, as Portage's `dbapi._match_use` decides: which flags it
    /// knows, and which are on. What depends on the flags of another package (`foo?`) counts only as a flag to be known.
    #[must_use]
    pub fn use_matches(&self, knows: impl Fn(&str) -> bool, is_on: impl Fn(&str) -> bool) -> bool {
        self.use_dependencies.iter().all(|dependency| {
            let flag = dependency.flag.as_str();
            match (knows(flag), dependency.default, dependency.suffix) {
                (false, None, _) => false,
                (_, _, Some(_)) => true,
                (true, _, None) => is_on(flag) == dependency.prefix.is_none(),
                (false, Some(default), None) => default == dependency.prefix.is_none(),
            }
        })
    }

    fn version_matches(&self, found: &Version) -> bool {
        let Some((operator, wanted)) = &self.version else { return true };
        let order = found.cmp(wanted);
        match operator {
            Operator::Less => order == Ordering::Less,
            Operator::LessOrEqual => order != Ordering::Greater,
            Operator::Equal => order == Ordering::Equal,
            Operator::GreaterOrEqual => order != Ordering::Less,
            Operator::Greater => order == Ordering::Greater,
            // Portage compares the texts too: ~1.0 does not mean 1.00.
            Operator::AnyRevision => found.without_revision() == wanted.without_revision(),
            Operator::EqualGlob => begins_like(found.as_str(), wanted.as_str()),
        }
    }

    fn slot_matches(&self, found: Option<&str>) -> bool {
        let Some(wanted) = self.slot.as_ref().and_then(|slot| slot.slot.as_ref()) else { return true };
        let Some(Ok(found)) = found.map(str::parse::<Slot>) else { return true };
        wanted.slot == found.slot && wanted.subslot.as_ref().is_none_or(|subslot| subslot == found.effective_subslot())
    }
}

/// Whether a version begins like another, at the boundary of a component: 1* does not mean 10.
///
/// Both are compared as texts, but for leading zeros of the first component, as Portage does.
fn begins_like(found: &str, wanted: &str) -> bool {
    let (found, wanted) = (without_leading_zeros(found), without_leading_zeros(wanted));
    let Some(rest) = found.strip_prefix(wanted) else { return false };
    let (Some(next), Some(last)) = (rest.chars().next(), wanted.chars().next_back()) else { return true };
    matches!(next, '.' | '_' | '-') || last.is_ascii_digit() != next.is_ascii_digit()
}

/// The version without leading zeros, of which one stays where no digit follows.
fn without_leading_zeros(version: &str) -> &str {
    let stripped = version.trim_start_matches('0');
    if stripped.starts_with(|first: char| first.is_ascii_digit()) {
        return stripped;
    }
    version.get((version.len() - stripped.len()).saturating_sub(1)..).unwrap_or(version)
}

impl FromStr for Atom {
    type Err = ParseAtomError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > ATOM_BYTES_MAX {
            return Err(ParseAtomError::TooLong { found: text.len() });
        }
        if text.starts_with('!') {
            return Err(ParseAtomError::Blocker { text: text.to_owned() });
        }
        let (rest, use_dependencies) = match text.strip_suffix(']').and_then(|inner| inner.split_once('[')) {
            Some((rest, inner)) => (rest, parse_use_dependencies(inner)?),
            None => (text, Vec::new()),
        };
        let (rest, repo) = match rest.split_once("::") {
            Some((rest, repo)) => (rest, Some(repo.parse()?)),
            None => (rest, None),
        };
        let (rest, slot) = match rest.split_once(':') {
            Some((rest, slot)) => (rest, Some(parse_slot(slot)?)),
            None => (rest, None),
        };
        let (cp, version) = parse_package(rest)?;
        Ok(Self { cp, version, slot, repo, use_dependencies })
    }
}

fn parse_package(text: &str) -> Result<(Cp, Option<(Operator, Version)>), ParseAtomError> {
    const OPERATORS: [(&str, Operator); 6] = [
        ("<=", Operator::LessOrEqual),
        (">=", Operator::GreaterOrEqual),
        ("<", Operator::Less),
        (">", Operator::Greater),
        ("=", Operator::Equal),
        ("~", Operator::AnyRevision),
    ];
    let found = OPERATORS.iter().find_map(|(sign, operator)| Some((*operator, text.strip_prefix(sign)?)));
    let package = found.map_or(text, |(_, package)| package);
    if !package.contains('/') {
        return Err(ParseAtomError::Unqualified { text: package.to_owned() });
    }
    let Some((operator, package)) = found else {
        return match package.parse::<Cp>() {
            Err(_) if package.parse::<Cpv>().is_ok() => Err(ParseAtomError::NoOperator { text: package.to_owned() }),
            cp => Ok((cp?, None)),
        };
    };
    let (operator, package) = match (package.strip_suffix('*'), operator) {
        (Some(package), Operator::Equal) => (Operator::EqualGlob, package),
        (Some(_), _) => return Err(ParseAtomError::Glob { text: text.to_owned() }),
        (None, operator) => (operator, package),
    };
    if package.parse::<Cp>().is_ok() {
        return Err(ParseAtomError::NoVersion { text: text.to_owned() });
    }
    let Cpv { cp, version } = package.parse()?;
    Ok((cp, Some((operator, version))))
}

fn parse_slot(text: &str) -> Result<SlotDependency, ParseAtomError> {
    // "*" stands alone, "=" behind a slot too.
    let (name, operator) = match (text, text.strip_suffix('=')) {
        ("*", _) => ("", Some('*')),
        (_, Some(name)) => (name, Some('=')),
        (_, None) => (text, None),
    };
    if name.is_empty() && operator.is_some() {
        return Ok(SlotDependency { slot: None, operator });
    }
    Ok(SlotDependency { slot: Some(name.parse()?), operator })
}

fn parse_use_dependencies(text: &str) -> Result<Vec<UseDependency>, ParseAtomError> {
    let parse = |text: &str| {
        let wrong = || ParseAtomError::UseDependency { text: text.to_owned() };
        let (rest, suffix) = match text.strip_suffix(['?', '=']) {
            Some(rest) => (rest, text.chars().next_back()),
            None => (text, None),
        };
        let (rest, default) = match (rest.strip_suffix("(+)"), rest.strip_suffix("(-)")) {
            (Some(rest), _) => (rest, Some(true)),
            (_, Some(rest)) => (rest, Some(false)),
            _ => (rest, None),
        };
        let (flag, prefix) = match rest.strip_prefix(['-', '!']) {
            Some(flag) => (flag, rest.chars().next()),
            None => (rest, None),
        };
        // "-" stands alone, "!" only before what has a suffix.
        if !matches!((prefix, suffix), (None, _) | (Some('-'), None) | (Some('!'), Some(_))) {
            return Err(wrong());
        }
        Ok(UseDependency { prefix, flag: flag.parse().map_err(|_| wrong())?, default, suffix })
    };
    text.split(',').map(parse).collect()
}

impl fmt::Display for UseDependency {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(prefix) = self.prefix {
            write!(out, "{prefix}")?;
        }
        write!(out, "{}", self.flag)?;
        match self.default {
            Some(true) => out.write_str("(+)")?,
            Some(false) => out.write_str("(-)")?,
            None => {}
        }
        self.suffix.map_or(Ok(()), |suffix| write!(out, "{suffix}"))
    }
}

impl fmt::Display for Atom {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            None => write!(out, "{}", self.cp)?,
            Some((operator, version)) => {
                let sign = match operator {
                    Operator::Less => "<",
                    Operator::LessOrEqual => "<=",
                    Operator::Equal | Operator::EqualGlob => "=",
                    Operator::AnyRevision => "~",
                    Operator::GreaterOrEqual => ">=",
                    Operator::Greater => ">",
                };
                let star = if *operator == Operator::EqualGlob { "*" } else { "" };
                write!(out, "{sign}{}-{version}{star}", self.cp)?;
            }
        }
        if let Some(SlotDependency { slot, operator }) = &self.slot {
            out.write_str(":")?;
            if let Some(slot) = slot {
                write!(out, "{slot}")?;
            }
            if let Some(operator) = operator {
                write!(out, "{operator}")?;
            }
        }
        if let Some(repo) = &self.repo {
            write!(out, "::{repo}")?;
        }
        for (index, dependency) in self.use_dependencies.iter().enumerate() {
            write!(out, "{}{dependency}", if index == 0 { "[" } else { "," })?;
        }
        if self.use_dependencies.is_empty() { Ok(()) } else { out.write_str("]") }
    }
}

/// The slot names of an atom, for questions by slot.
impl SlotDependency {
    /// The slot's name, if one is named.
    #[must_use]
    pub fn name(&self) -> Option<&SlotName> {
        self.slot.as_ref().map(|slot| &slot.slot)
    }
}
