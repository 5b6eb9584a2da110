//! A file of another machine's domain: its place says its grammar, and what is laid out here is written anew from what was
//! understood. Nothing is copied but patches, whose digests are in the recipe.

use super::domain_names::{assignment, line};
use std::collections::BTreeMap;
use std::path::{Component, Path};
use tree::atom::Atom;
use tree::cpv::Cpv;
use tree::name::{Category, RepoName};

/// Bytes of a place.
const PLACE_BYTES_MAX: usize = 1024;

/// Of `/etc/portage`: files or directories of lines that begin with packages.
const OF_USER: [&str; 10] = [
    "package.accept_keywords",
    "package.accept_restrict",
    "package.env",
    "package.keywords",
    "package.license",
    "package.mask",
    "package.properties",
    "package.provided",
    "package.unmask",
    "package.use",
];
/// Of a profile: the same, and what only profiles have.
const OF_PROFILE: [(&str, Grammar); 21] = [
    ("package.accept_keywords", Grammar::Packages),
    ("package.accept_restrict", Grammar::Packages),
    ("package.keywords", Grammar::Packages),
    ("package.license", Grammar::Packages),
    ("package.mask", Grammar::Packages),
    ("package.properties", Grammar::Packages),
    ("package.provided", Grammar::Provided),
    ("package.unmask", Grammar::Packages),
    ("package.use", Grammar::Packages),
    ("package.use.force", Grammar::Packages),
    ("package.use.mask", Grammar::Packages),
    ("package.use.stable", Grammar::Packages),
    ("package.use.stable.force", Grammar::Packages),
    ("package.use.stable.mask", Grammar::Packages),
    ("packages", Grammar::Packages),
    ("packages.build", Grammar::Packages),
    ("use.force", Grammar::Words),
    ("use.mask", Grammar::Words),
    ("use.stable", Grammar::Words),
    ("use.stable.force", Grammar::Words),
    ("use.stable.mask", Grammar::Words),
];

/// What a file says, line by line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grammar {
    /// A package, and words about it.
    Packages,
    /// A package, and names of files of `env/`.
    Environments,
    /// A package with its version.
    Provided,
    /// Words: flags.
    Words,
    /// `NAME="VALUE"`.
    Assignments,
    /// `REPOSITORY:PATH`.
    Parents,
    /// One word.
    Eapi,
    /// A patch: bytes.
    Patch,
    /// What earlier versions gave, and no build needs.
    Unused,
}

/// What cannot be laid out: which line it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ungrammatical(pub(super) String);

/// A file of a domain by its place below `/etc/portage`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DomainFile<'a> {
    place: &'a str,
    grammar: Grammar,
}

impl<'a> DomainFile<'a> {
    /// None where there is no such place.
    pub(super) fn at(place: &'a str) -> Option<Self> {
        is_plain(place).then(|| grammar(place)).flatten().map(|grammar| Self { place, grammar })
    }

    /// Where it is laid out: one of `env/` under a name that says nothing, as Portage sources what bears a package's name
    /// there. None where it is not laid out at all.
    pub(super) fn place(&self, environments: &Environments) -> Option<String> {
        match self.grammar {
            Grammar::Unused => None,
            Grammar::Assignments if self.place.starts_with(ENV) => environments.place(self.place),
            _ => Some(self.place.to_owned()),
        }
    }

    /// What is written there. Lines of packages and flags that are none are left out, as Portage leaves them out; a variable
    /// or a parent that is none is an error.
    pub(super) fn written_anew(&self, content: &[u8], environments: &Environments) -> Result<Vec<u8>, Ungrammatical> {
        if self.grammar == Grammar::Patch {
            return Ok(content.to_vec());
        }
        let text = std::str::from_utf8(content).map_err(|error| Ungrammatical(error.to_string()))?;
        let mut written = String::with_capacity(text.len());
        for given in text.lines() {
            match self.grammar {
                Grammar::Assignments => {
                    let (name, value) = assignment(given).ok_or_else(|| ungrammatical(given))?;
                    written.push_str(&line(name, &value));
                    continue;
                }
                Grammar::Parents if !is_parent(given) => return Err(ungrammatical(given)),
                _ => {}
            }
            let words: Vec<&str> = given.split_ascii_whitespace().collect();
            if let Some(kept) = kept(self.grammar, &words, environments) {
                written.push_str(&kept.join(" "));
                written.push('\n');
            }
        }
        Ok(written.into_bytes())
    }

    /// The variables that it sets.
    pub(super) fn variables(&self, content: &[u8]) -> Vec<String> {
        if self.grammar != Grammar::Assignments {
            return Vec::new();
        }
        String::from_utf8_lossy(content).lines().filter_map(|line| Some(assignment(line)?.0.to_owned())).collect()
    }
}

const ENV: &str = "env/";

/// The files of `env/` that a domain has, and what each is called here.
#[derive(Clone, Debug, Default)]
pub(super) struct Environments(BTreeMap<String, usize>);

impl Environments {
    /// Of the places of a domain.
    pub(super) fn of<'a>(places: impl Iterator<Item = &'a String>) -> Self {
        let names = places.filter_map(|place| place.strip_prefix(ENV));
        Self(names.enumerate().map(|(number, name)| (name.to_owned(), number)).collect())
    }

    /// As package.env names it here.
    fn name(&self, name: &str) -> Option<String> {
        self.0.get(name).map(|number| format!("of-the-client-{number}"))
    }

    fn place(&self, place: &str) -> Option<String> {
        Some(format!("{ENV}{}", self.name(place.strip_prefix(ENV)?)?))
    }
}

fn ungrammatical(line: &str) -> Ungrammatical {
    Ungrammatical(line.chars().take(200).collect())
}

fn grammar(place: &str) -> Option<Grammar> {
    let (top, rest) = place.split_once('/').map_or((place, None), |(top, rest)| (top, Some(rest)));
    match (top, rest) {
        ("package.env", _) => Some(Grammar::Environments),
        ("package.provided", _) => Some(Grammar::Provided),
        ("patches", Some(rest)) => is_patch(rest).then_some(Grammar::Patch),
        ("env", Some(_)) => Some(Grammar::Assignments),
        ("sets", _) | ("profile", Some("parent")) => Some(Grammar::Unused),
        ("make.profile", Some("parent")) => Some(Grammar::Parents),
        ("profile" | "make.profile", Some("make.defaults")) => Some(Grammar::Assignments),
        ("profile" | "make.profile", Some("eapi")) => Some(Grammar::Eapi),
        ("profile" | "make.profile", Some(rest)) => {
            let kind = rest.split('/').next()?;
            OF_PROFILE.iter().find(|(name, _)| *name == kind).map(|(_, grammar)| *grammar)
        }
        _ => OF_USER.contains(&top).then_some(Grammar::Packages),
    }
}

/// `CATEGORY/PACKAGE/NAME.patch`, where eapply_user looks.
fn is_patch(place: &str) -> bool {
    let parts: Vec<&str> = place.split('/').collect();
    let [category, _package, name] = parts.as_slice() else { return false };
    category.parse::<Category>().is_ok() && (name.ends_with(".patch") || name.ends_with(".diff"))
}

/// A relative path that is spelled in one way only.
pub(super) fn is_plain(path: &str) -> bool {
    let parts = || Path::new(path).components();
    let spelt = parts().filter_map(|part| part.as_os_str().to_str()).collect::<Vec<_>>().join("/");
    !path.is_empty()
        && path.len() <= PLACE_BYTES_MAX
        && !path.contains(['\0', '\n', '\r'])
        && parts().all(|part| matches!(part, Component::Normal(_)))
        && spelt == path
}

/// A line as it is kept.
fn kept(grammar: Grammar, words: &[&str], environments: &Environments) -> Option<Vec<String>> {
    let (first, rest) = words.split_first()?;
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    match grammar {
        Grammar::Packages if is_package(first) && rest.iter().all(|word| is_word(word)) => Some(owned(words)),
        Grammar::Environments if is_package(first) => {
            let names: Vec<String> = rest.iter().filter_map(|name| environments.name(name)).collect();
            (!names.is_empty()).then(|| [owned(&[first]), names].concat())
        }
        Grammar::Provided => first.parse::<Cpv>().is_ok().then(|| owned(&[first])),
        Grammar::Words if words.iter().all(|word| is_word(word)) => Some(owned(words)),
        Grammar::Eapi if rest.is_empty() && is_word(first) => Some(owned(words)),
        Grammar::Parents => Some(owned(words)),
        _ => None,
    }
}

/// An atom, or one with `*` in it as package.use and its like have; in a profile with `-` (which takes one of a parent away)
/// or `*` (of @system) in front.
fn is_package(word: &str) -> bool {
    let word = word.strip_prefix('-').unwrap_or(word);
    let word = word.strip_prefix('*').filter(|rest| !rest.starts_with('/')).unwrap_or(word);
    word.parse::<Atom>().is_ok() || is_pattern(word)
}

fn is_pattern(word: &str) -> bool {
    let named = word.trim_start_matches(['=', '<', '>', '~']);
    let (package, repo) = named.split_once("::").map_or((named, None), |(package, repo)| (package, Some(repo)));
    let (package, slot) = package.split_once(':').map_or((package, None), |(package, slot)| (package, Some(slot)));
    let letters = |text: &str, more: &[char]| {
        !text.is_empty() && text.chars().all(|letter| letter.is_ascii_alphanumeric() || more.contains(&letter))
    };
    let part = ['+', '_', '.', '-', '*'];
    package.split_once('/').is_some_and(|(category, name)| letters(category, &part) && letters(name, &part))
        && slot.is_none_or(|slot| letters(slot, &['+', '_', '.', '-', '*', '/']))
        && repo.is_none_or(|repo| repo.parse::<RepoName>().is_ok())
}

/// A USE flag, a keyword, a licence or a group of them, with what may stand before it; or the name of a USE_EXPAND
/// variable, which ends in a colon.
fn is_word(word: &str) -> bool {
    let bare = word.strip_prefix('-').unwrap_or(word);
    let bare = bare.strip_prefix(['~', '@']).unwrap_or(bare);
    let bare = bare.strip_suffix(':').unwrap_or(bare);
    let first = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let other = |letter: char| first(letter) || matches!(letter, '+' | '@' | '.' | '-');
    matches!(bare, "*" | "**") || bare.starts_with(first) && bare.chars().all(other)
}

fn is_parent(line: &str) -> bool {
    line.split_once(':').is_some_and(|(repo, path)| {
        repo.parse::<RepoName>().is_ok() && is_plain(path) && !path.contains(char::is_whitespace)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn anew(place: &str, content: &str) -> Result<String, Ungrammatical> {
        let file = DomainFile::at(place).unwrap_or_else(|| panic!("{place} is no place"));
        let environments = Environments::of(["env/cc/clang".to_owned(), "env/small".to_owned()].iter());
        file.written_anew(content.as_bytes(), &environments).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn what_is_no_place_of_a_domain_is_none() {
        for place in [
            "make.conf",
            "make.conf/x",
            "repos.conf/x",
            "gnupg/key",
            "../etc/shadow",
            "/etc/shadow",
            "bashrc",
            "bashrc.d/x",
            "env",
            "env//x",
            "env/./x",
            "env/x/",
            "env/../make.conf",
            "savedconfig/a/b",
            "profile",
            "profile//parent",
            "profile/profile.bashrc",
            "profile/package.bashrc",
            "profile/bashrc/x",
            "profile/make.defaults/x",
            "make.profile/profile.bashrc",
            "make.profile/parent/x",
            "make.profile/sub/make.defaults",
            "patches/a/b/run.sh",
            "patches/a/b.patch",
            "patches/a/b/c/d.patch",
            "patches/.a/b/c.patch",
            "binrepos.conf",
            "package.use//../../x",
            "package.use/a\nb",
            "modules",
            "postsync.d/x",
            "color.map",
            "mirrors",
            "categories",
            "",
        ] {
            assert!(DomainFile::at(place).is_none(), "{place}");
        }
    }

    #[test]
    fn each_kind_of_file_is_written_anew_from_what_was_understood() {
        for (place, given, written) in [
            (
                "package.use",
                "a/b c -d\n*/* X: y -*\n>=a/b-1:2::main c\n=a/b-1* c\n",
                "a/b c -d\n*/* X: y -*\n>=a/b-1:2::main c\n=a/b-1* c\n",
            ),
            ("package.use/x", "a/b $(id)\nsource x\n`id` a\na/b c;d\nexport A=1\n", ""),
            ("package.accept_keywords/x", "a/b ~amd64 ** -~x86\n*/*::guru *\n", "a/b ~amd64 ** -~x86\n*/*::guru *\n"),
            ("package.license", "a/b @EULA -GPL-2+\n", "a/b @EULA -GPL-2+\n"),
            ("package.mask", "  a/b  \n<a/b-2\n", "a/b\n<a/b-2\n"),
            ("package.env", "a/b small cc/clang ../x other\na/b other\n", "a/b of-the-client-1 of-the-client-0\n"),
            ("package.provided", "a/b-1\nmake -f x\n", "a/b-1\n"),
            ("profile/package.provided", "a/b-1.2-r3\na/b\n", "a/b-1.2-r3\n"),
            ("profile/packages", "*a/b\n-*a/c\na/d\n*>=a/e-1\n$x\n", "*a/b\n-*a/c\na/d\n*>=a/e-1\n"),
            ("profile/use.mask", "a\n-b\nc/d\n", "a\n-b\n"),
            ("profile/eapi", "8\n", "8\n"),
            ("make.profile/parent", "gentoo:default/linux\n", "gentoo:default/linux\n"),
            (
                "profile/make.defaults",
                "CFLAGS=\"-O2\"\nFEATURES=\"noauto nostrip\"\n",
                "CFLAGS=\"-O2\"\nFEATURES=\"nostrip\"\n",
            ),
            ("env/cc/clang", "CC=\"clang\"\n", "CC=\"clang\"\n"),
            ("patches/a/b/c.patch", "--- `a`\n", "--- `a`\n"),
        ] {
            assert_eq!(anew(place, given).as_deref(), Ok(written), "{place}");
        }
    }

    #[test]
    fn a_variable_or_a_parent_that_is_none_is_an_error() {
        for (place, line) in [
            ("env/small", "X=\"`sed -i s/hello/PWNED1/ mine.c`\""),
            ("env/small", "MAKEOPTS=\"-f /etc/portage/sets/evil.mk\""),
            ("env/small", "source /etc/portage/patches/a/b/c.patch"),
            ("profile/make.defaults", "MAKEOPTS=\"-f /etc/portage/sets/evil.mk\""),
            ("profile/make.defaults", "LESSOPEN=\"|x\""),
            ("make.profile/make.defaults", "PAGER=\"x\""),
            ("make.profile/parent", "../sets"),
            ("make.profile/parent", "/etc"),
            ("make.profile/parent", "gentoo:../../x"),
            ("make.profile/parent", "gentoo:a//b"),
        ] {
            assert!(anew(place, &format!("{line}\n")).is_err(), "{place}: {line}");
        }
    }

    #[test]
    fn files_of_variables_lie_where_no_package_is_called_so_and_what_no_build_needs_lies_nowhere() {
        let places = ["env/app-misc/mine".to_owned(), "env/small".to_owned()];
        let environments = Environments::of(places.iter());
        let at = |place: &str| DomainFile::at(place).unwrap().place(&environments);
        assert_eq!(at("env/app-misc/mine").as_deref(), Some("env/of-the-client-0"));
        assert_eq!(at("env/small").as_deref(), Some("env/of-the-client-1"));
        assert_eq!((at("sets/evil.mk"), at("profile/parent")), (None, None));
        assert_eq!(at("package.use/a").as_deref(), Some("package.use/a"));
    }

    proptest! {
        /// Whatever is said: what is written has the grammar of its place, so that writing it again changes nothing, and no
        /// letter that a shell or make would act upon.
        #[test]
        fn what_is_written_is_understood_the_same_and_runs_nothing(
            place in prop::sample::select(vec!["package.use", "package.mask", "profile/use.mask", "profile/eapi", "package.provided", "profile/packages"]),
            text in "([a-zA-Z0-9/:*~@$`(){};&|<>='\"\\\\ .+_-]{0,40}\n){0,8}",
        ) {
            let once = anew(place, &text).unwrap();
            prop_assert_eq!(anew(place, &once).unwrap(), once.clone());
            prop_assert!(!once.contains(['$', '`', '(', ';', '&', '|', '"', '\'', '\\', '{']), "{}", once);
        }

        #[test]
        fn variables_that_are_written_say_what_was_understood(value in "[ -~é]{0,60}") {
            let written = line("CFLAGS", &value);
            match anew("env/small", &written) {
                Ok(again) => prop_assert_eq!(again, written),
                Err(_) => prop_assert!(value.contains('`') || value.contains("$(")),
            }
        }
    }
}
