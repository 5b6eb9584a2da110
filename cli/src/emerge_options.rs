//! The command line of `emerge`, taken apart as Portage does it (`_emerge.main.parse_opts`): values that need not be said are put
//! in, then it is Python's `argparse`, with long options cut short and short ones in a bunch.

use Value::{Needed, OneOf, Whole, WholeOrYesNo, YesNo};
use std::iter::Peekable;
use std::slice::Iter;

/// Options and actions without a value.
const FLAGS: &[&str] = &[
    "alphabetical",
    "ask-enter-invalid",
    "buildpkgonly",
    "changed-use",
    "columns",
    "debug",
    "digest",
    "emptytree",
    "verbose-conflicts",
    "fetchonly",
    "fetch-all-uri",
    "ignore-default-opts",
    "noconfmem",
    "newrepo",
    "newuse",
    "nobindeps",
    "nodeps",
    "noreplace",
    "nospinner",
    "oneshot",
    "onlydeps",
    "pretend",
    "quiet-repo-display",
    "quiet-unmerge-warn",
    "resume",
    "searchdesc",
    "skipfirst",
    "tree",
    "unordered-display",
    "update",
    "update-if-installed",
    "cols",
    "skip-first",
    "clean",
    "check-news",
    "config",
    "depclean",
    "help",
    "info",
    "list-sets",
    "metadata",
    "moo",
    "prune",
    "rage-clean",
    "regen",
    "search",
    "status",
    "sync",
    "unmerge",
    "version",
];
/// Short ones of those.
const SHORT_FLAGS: &[(char, &str)] = &[
    ('1', "oneshot"),
    ('B', "buildpkgonly"),
    ('c', "depclean"),
    ('C', "unmerge"),
    ('d', "debug"),
    ('e', "emptytree"),
    ('f', "fetchonly"),
    ('F', "fetch-all-uri"),
    ('h', "help"),
    ('n', "noreplace"),
    ('N', "newuse"),
    ('o', "onlydeps"),
    ('O', "nodeps"),
    ('p', "pretend"),
    ('P', "prune"),
    ('r', "resume"),
    ('s', "search"),
    ('S', "searchdesc"),
    ('t', "tree"),
    ('u', "update"),
    ('U', "changed-use"),
    ('V', "version"),
];

/// What value an option has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    /// It must be said.
    Needed,
    /// It must be said, and is `y` or `n`.
    Answer,
    /// One of these, which must be said.
    OneOf(&'static [&'static str]),
    /// `y` or `n`, which need not be said.
    YesNo,
    /// A whole number that need not be said.
    Whole,
    /// The same, or `y` or `n`.
    WholeOrYesNo,
    /// A number that need not be said.
    Number,
    /// One of these, which need not be said.
    Kind(&'static [&'static str]),
}

/// Options with a value, and their short forms.
const VALUED: &[(&str, Option<char>, Value)] = &[
    ("alert", Some('A'), YesNo),
    ("ask", Some('a'), YesNo),
    ("autounmask", None, YesNo),
    ("autounmask-backtrack", None, Value::Answer),
    ("autounmask-continue", None, YesNo),
    ("autounmask-only", None, YesNo),
    ("autounmask-license", None, Value::Answer),
    ("autounmask-unrestricted-atoms", None, YesNo),
    ("autounmask-use", None, Value::Answer),
    ("autounmask-keep-keywords", None, YesNo),
    ("autounmask-keep-masks", None, YesNo),
    ("autounmask-write", None, YesNo),
    ("accept-properties", None, Needed),
    ("accept-restrict", None, Needed),
    ("backtrack", None, Needed),
    ("binpkg-changed-deps", None, YesNo),
    ("binpkg-respect-use", None, YesNo),
    ("binpkg-respect-user-patches", None, YesNo),
    ("buildpkg", Some('b'), YesNo),
    ("buildpkg-exclude", None, Needed),
    ("changed-deps", None, YesNo),
    ("changed-deps-report", None, YesNo),
    ("changed-slot", None, YesNo),
    ("circular-deps-report", None, Value::Kind(&["text", "json"])),
    ("config-root", None, Needed),
    ("color", None, Value::Answer),
    ("complete-graph", None, YesNo),
    ("complete-graph-if-new-use", None, Value::Answer),
    ("complete-graph-if-new-ver", None, Value::Answer),
    ("deep", Some('D'), Whole),
    ("depclean-lib-check", None, YesNo),
    ("deselect", Some('W'), YesNo),
    ("dynamic-deps", None, Value::Answer),
    ("exclude", Some('X'), Needed),
    ("fail-clean", None, YesNo),
    ("fuzzy-search", None, YesNo),
    ("ignore-built-slot-operator-deps", None, Value::Answer),
    ("ignore-soname-deps", None, Value::Answer),
    ("ignore-world", None, YesNo),
    ("implicit-system-deps", None, Value::Answer),
    ("jobs", Some('j'), WholeOrYesNo),
    ("jobs-tmpdir-require-free-gb", None, Whole),
    ("keep-going", None, YesNo),
    ("load-average", Some('l'), Value::Number),
    ("merge-wait-scope", None, OneOf(&["deep", "system", "toolchain", "none"])),
    ("misspell-suggestions", None, Value::Answer),
    ("with-bdeps", None, Value::Answer),
    ("with-bdeps-auto", None, Value::Answer),
    ("reinstall", None, OneOf(&["changed-use"])),
    ("reinstall-atoms", None, Needed),
    ("getbinpkg", Some('g'), YesNo),
    ("getbinpkgonly", Some('G'), YesNo),
    ("getbinpkg-exclude", None, Needed),
    ("getbinpkg-include", None, Needed),
    ("usepkg-exclude", None, Needed),
    ("usepkg-include", None, Needed),
    ("onlydeps-with-ideps", None, YesNo),
    ("onlydeps-with-rdeps", None, YesNo),
    ("rebuild-exclude", None, Needed),
    ("rebuild-ignore", None, Needed),
    ("package-moves", None, YesNo),
    ("prefix", None, Needed),
    ("pkg-format", None, Needed),
    ("quickpkg-direct", None, Value::Answer),
    ("quickpkg-direct-root", None, Needed),
    ("quiet", Some('q'), YesNo),
    ("quiet-build", None, YesNo),
    ("quiet-fail", None, YesNo),
    ("read-news", None, YesNo),
    ("rebuild-if-new-slot", None, YesNo),
    ("rebuild-if-new-rev", None, YesNo),
    ("rebuild-if-new-ver", None, YesNo),
    ("rebuild-if-unbuilt", None, YesNo),
    ("rebuilt-binaries", None, YesNo),
    ("rebuilt-binaries-timestamp", None, Needed),
    ("regex-search-auto", None, Value::Answer),
    ("root", None, Needed),
    ("root-deps", None, Value::Kind(&["rdeps"])),
    ("search-index", None, Value::Answer),
    ("search-similarity", None, Needed),
    ("select", Some('w'), YesNo),
    ("selective", None, YesNo),
    ("sync-submodule", None, Needed),
    ("sysroot", None, Needed),
    ("use-ebuild-visibility", None, YesNo),
    ("useoldpkg-atoms", None, Needed),
    ("usepkg", Some('k'), YesNo),
    ("usepkgonly", Some('K'), YesNo),
    ("usepkg-exclude-live", None, YesNo),
    ("verbose", Some('v'), YesNo),
    ("verbose-missing-ebuilds", None, YesNo),
    ("verbose-slot-rebuilds", None, YesNo),
    ("with-test-deps", None, YesNo),
];
/// Short options that take numbers, in the order in which Portage looks for them within a bunch.
const SHORT_NUMBERS: &str = "Djl";
/// And those that take `y` or `n`, which nothing in a bunch is taken for.
const SHORT_ANSWERS: &str = "aAbgGkKqvwW";
/// What stands for a value that was not said.
const UNSAID: &str = "True";

impl Value {
    /// Whether a word that follows is the value of an option that need not have one.
    fn may_be(self, word: &str) -> bool {
        let whole = || whole(word);
        match self {
            Self::YesNo => matches!(word, "y" | "n"),
            Self::Whole => whole(),
            Self::WholeOrYesNo => whole() || matches!(word, "y" | "n"),
            Self::Number => word.trim().parse::<f64>().is_ok_and(|number| number >= 0.0),
            Self::Kind(kinds) => kinds.contains(&word),
            Self::Needed | Self::Answer | Self::OneOf(_) => false,
        }
    }

    /// Whether the value need not be said.
    fn is_optional(self) -> bool {
        !matches!(self, Self::Needed | Self::Answer | Self::OneOf(_))
    }

    /// Whether argparse takes this as the value.
    fn takes(self, value: &str) -> bool {
        match self {
            Self::Needed | Self::Whole | Self::WholeOrYesNo | Self::Number => true,
            Self::Answer => matches!(value, "y" | "n"),
            Self::OneOf(all) => all.contains(&value),
            Self::YesNo => matches!(value, UNSAID | "y" | "n"),
            Self::Kind(kinds) => value == UNSAID || kinds.contains(&value),
        }
    }
}

/// As Python's `int`: spaces around, a plus, underscores between digits.
fn whole(word: &str) -> bool {
    let digits = word.trim();
    let digits = digits.strip_prefix('+').unwrap_or(digits);
    !digits.is_empty()
        && !digits.starts_with('_')
        && !digits.ends_with('_')
        && !digits.contains("__")
        && digits.chars().all(|letter| letter.is_ascii_digit() || letter == '_')
}

/// One option of a command line, by its long name without dashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) name: &'static str,
    /// None for one that has no value.
    pub(crate) value: Option<String>,
}

/// A command line taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parsed {
    /// In the order in which they were said.
    pub(crate) options: Vec<Choice>,
    /// Everything else.
    pub(crate) others: Vec<String>,
}

/// Takes a command line apart; None where emerge says that it is wrong.
pub(crate) fn parse(words: &[String]) -> Option<Parsed> {
    let words = with_unsaid(words);
    let mut parsed = Parsed::default();
    let mut words = words.iter().peekable();
    while let Some(word) = words.next() {
        if word == "--" {
            parsed.others.extend(words.by_ref().cloned());
        } else if !word.starts_with('-') || word == "-" {
            parsed.others.push(word.clone());
        } else if word.starts_with("--") {
            long(word, &mut words, &mut parsed)?;
        } else {
            bunch(word, &mut words, &mut parsed)?;
        }
    }
    Some(parsed)
}

fn long(word: &str, words: &mut Peekable<Iter<'_, String>>, parsed: &mut Parsed) -> Option<()> {
    let said = word.strip_prefix("--")?;
    let (name, value) = said.split_once('=').map_or((said, None), |(name, value)| (name, Some(value)));
    let all = || FLAGS.iter().copied().chain(VALUED.iter().map(|(name, ..)| *name));
    let name = match all().find(|known| *known == name) {
        Some(known) => known,
        None => {
            let mut begin = all().filter(|known| known.starts_with(name));
            // More than one is a mistake.
            begin.next().filter(|_| begin.next().is_none())?
        }
    };
    let Some((_, _, kind)) = VALUED.iter().find(|(known, ..)| *known == name) else {
        parsed.options.push(Choice { name, value: None });
        return value.is_none().then_some(());
    };
    take(name, *kind, value.map(str::to_owned), words, parsed)
}

/// Options of one letter each; the first that has a value takes the rest of the word.
fn bunch(word: &str, words: &mut Peekable<Iter<'_, String>>, parsed: &mut Parsed) -> Option<()> {
    let mut letters = word.chars();
    letters.next();
    while let Some(letter) = letters.next() {
        if let Some((_, name)) = SHORT_FLAGS.iter().find(|(short, _)| *short == letter) {
            parsed.options.push(Choice { name, value: None });
            continue;
        }
        let (name, _, kind) = VALUED.iter().find(|(_, short, _)| *short == Some(letter))?;
        let rest = letters.as_str();
        let value = (!rest.is_empty()).then(|| rest.strip_prefix('=').unwrap_or(rest).to_owned());
        return take(name, *kind, value, words, parsed);
    }
    Some(())
}

fn take(
    name: &'static str,
    kind: Value,
    value: Option<String>,
    words: &mut Peekable<Iter<'_, String>>,
    parsed: &mut Parsed,
) -> Option<()> {
    let value = match value {
        Some(value) => value,
        None => words.next_if(|next| !next.starts_with('-') || *next == "-")?.clone(),
    };
    let fits = kind.takes(&value);
    parsed.options.push(Choice { name, value: Some(value) });
    fits.then_some(())
}

/// Puts in the values that were not said (`insert_optional_args`).
fn with_unsaid(words: &[String]) -> Vec<String> {
    let mut ahead: Vec<String> = words.iter().rev().cloned().collect();
    let mut all = Vec::new();
    while let Some(word) = ahead.pop() {
        let optional = |kind: &Value| kind.is_optional();
        let known = word.strip_prefix("--").and_then(|name| VALUED.iter().find(|(known, ..)| *known == name));
        if let Some(kind) = known.map(|(_, _, kind)| *kind).filter(optional) {
            all.push(word);
            let next = ahead.pop_if(|next| kind.may_be(next));
            all.push(next.unwrap_or_else(|| UNSAID.to_owned()));
            continue;
        }
        let short = Some(&word).filter(|word| word.starts_with('-') && !word.starts_with("--"));
        let in_word = |letters: &str| letters.chars().find(|letter| short.is_some_and(|word| word.contains(*letter)));
        let number = in_word(SHORT_NUMBERS);
        let Some(letter) = number.or_else(|| in_word(SHORT_ANSWERS)) else {
            all.push(word);
            continue;
        };
        let kind = match letter {
            'l' => Value::Number,
            _ if number.is_some() => Whole,
            _ => YesNo,
        };
        all.push(format!("-{letter}"));
        let rest = word.strip_prefix('-').unwrap_or_default();
        let behind = rest.strip_prefix(letter);
        let value = match behind {
            Some("") => ahead.pop_if(|next| kind.may_be(next)),
            Some(value) if number.is_some() && kind.may_be(value) => Some(value.to_owned()),
            // What is left may have another one.
            Some(others) => {
                ahead.push(format!("-{others}"));
                None
            }
            None => {
                ahead.push(format!("-{}", rest.replace(letter, "")));
                None
            }
        };
        all.push(value.unwrap_or_else(|| UNSAID.to_owned()));
    }
    all
}

impl Parsed {
    /// Whether an option without value was said.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.options.iter().any(|option| option.name == name)
    }

    /// The value of an option, as it was said last.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.options.iter().rev().find(|option| option.name == name)?.value.as_deref()
    }

    /// Whether an option that may be `n` is on.
    pub(crate) fn is_on(&self, name: &str) -> bool {
        matches!(self.value(name), Some(UNSAID | "y"))
    }

    /// The same line in long words, without these options.
    pub(crate) fn without(&self, names: &[&str]) -> Vec<String> {
        let kept = self.options.iter().filter(|option| !names.contains(&option.name));
        let word = |option: &Choice| match &option.value {
            None => format!("--{}", option.name),
            Some(value) => format!("--{}={value}", option.name),
        };
        kept.map(word).chain(self.others.iter().cloned()).collect()
    }
}
