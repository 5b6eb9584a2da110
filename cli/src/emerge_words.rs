//! The words of `emerge`, as far as `peer emerge` must understand them: what is to be installed, and whether anything is.
//!
//! Whatever is not understood goes straight to emerge: it decides what its words mean.

use daemon::api_builds::PlanOption;
use std::ffi::OsString;
use std::path::PathBuf;

/// Options that may have a value in a word of its own: `y`, `n` or a number (`_emerge.main.insert_optional_args`).
const MAY_HAVE_VALUE: &[&str] = &[
    "alert",
    "ask",
    "autounmask",
    "autounmask-continue",
    "autounmask-keep-keywords",
    "autounmask-keep-masks",
    "autounmask-only",
    "autounmask-unrestricted-atoms",
    "autounmask-write",
    "binpkg-changed-deps",
    "binpkg-respect-use",
    "binpkg-respect-user-patches",
    "buildpkg",
    "changed-deps",
    "changed-deps-report",
    "changed-slot",
    "complete-graph",
    "deep",
    "depclean-lib-check",
    "fail-clean",
    "fuzzy-search",
    "getbinpkg",
    "getbinpkgonly",
    "ignore-world",
    "jobs",
    "jobs-tmpdir-require-free-gb",
    "keep-going",
    "load-average",
    "package-moves",
    "quiet",
    "quiet-build",
    "quiet-fail",
    "read-news",
    "rebuild-if-new-rev",
    "rebuild-if-new-slot",
    "rebuild-if-new-ver",
    "rebuild-if-unbuilt",
    "rebuilt-binaries",
    "select",
    "selective",
    "use-ebuild-visibility",
    "usepkg",
    "usepkg-exclude-live",
    "usepkgonly",
    "verbose",
    "verbose-missing-ebuilds",
    "verbose-slot-rebuilds",
    "with-test-deps",
];
/// Options that have a value.
const HAVE_VALUE: &[&str] = &[
    "accept-properties",
    "accept-restrict",
    "autounmask-backtrack",
    "autounmask-license",
    "autounmask-use",
    "backtrack",
    "buildpkg-exclude",
    "color",
    "complete-graph-if-new-use",
    "complete-graph-if-new-ver",
    "config-root",
    "dynamic-deps",
    "exclude",
    "getbinpkg-exclude",
    "getbinpkg-include",
    "ignore-built-slot-operator-deps",
    "ignore-soname-deps",
    "implicit-system-deps",
    "merge-wait-scope",
    "misspell-suggestions",
    "pkg-format",
    "rebuild-exclude",
    "rebuild-ignore",
    "rebuilt-binaries-timestamp",
    "regex-search-auto",
    "reinstall",
    "reinstall-atoms",
    "search-index",
    "search-similarity",
    "useoldpkg-atoms",
    "usepkg-exclude",
    "usepkg-include",
    "with-bdeps",
    "with-bdeps-auto",
];
/// Options without a value that change nothing of what is foreseen.
const PLAIN: &[&str] = &[
    "alphabetical",
    "ask-enter-invalid",
    "changed-use",
    "columns",
    "cols",
    "debug",
    "digest",
    "emptytree",
    "ignore-default-opts",
    "newrepo",
    "newuse",
    "noconfmem",
    "noreplace",
    "nospinner",
    "oneshot",
    "pretend",
    "quiet-repo-display",
    "quiet-unmerge-warn",
    "tree",
    "unordered-display",
    "update",
    "update-if-installed",
    "verbose-conflicts",
];
/// Short options and what they are called; those with the long name "" are not about installing what is named.
const SHORT: &[(char, &str)] = &[
    ('1', "oneshot"),
    ('A', "alert"),
    ('a', "ask"),
    ('b', "buildpkg"),
    ('D', "deep"),
    ('d', "debug"),
    ('e', "emptytree"),
    ('G', "getbinpkgonly"),
    ('g', "getbinpkg"),
    ('j', "jobs"),
    ('K', "usepkgonly"),
    ('k', "usepkg"),
    ('l', "load-average"),
    ('N', "newuse"),
    ('n', "noreplace"),
    ('p', "pretend"),
    ('q', "quiet"),
    ('t', "tree"),
    ('U', "changed-use"),
    ('u', "update"),
    ('v', "verbose"),
    ('w', "select"),
    ('X', "exclude"),
];
/// Which of them the plan is made with.
const PLANNED: &[(&str, PlanOption)] = &[
    ("update", PlanOption::Update),
    ("deep", PlanOption::Deep),
    ("newuse", PlanOption::Newuse),
    ("changed-use", PlanOption::ChangedUse),
    ("emptytree", PlanOption::Emptytree),
];
/// With these the user has said where binary packages are taken from.
const SAY_BINARIES: &[&str] = &["getbinpkg", "getbinpkgonly", "usepkg", "usepkgonly"];

/// What a command line of emerge asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// What is to be installed: atoms and sets, as emerge takes them.
    pub(crate) atoms: Vec<String>,
    /// How the plan is made.
    pub(crate) options: Vec<PlanOption>,
    /// Whether emerge only shows, or asks first: then nothing is made before.
    pub(crate) looks: bool,
    /// Whether the user said where binary packages are taken from.
    pub(crate) says_binaries: bool,
    /// Where Portage's configuration is, if the words say so.
    pub(crate) config_root: Option<PathBuf>,
}

/// Puts `--` behind the verb `emerge`, so that every word that follows is for emerge, as `--help` and `--quiet` are.
pub(crate) fn set_apart(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut apart = Vec::new();
    let mut words = words.peekable();
    apart.extend(words.next());
    while let Some(word) = words.next() {
        let text = word.to_string_lossy().into_owned();
        apart.push(word);
        if text == "--control" {
            apart.extend(words.next());
        } else if !text.starts_with('-') {
            if text == "emerge" {
                apart.push("--".into());
            }
            break;
        }
    }
    apart.extend(words);
    apart
}

/// Reads the words. None when they install nothing, or are not understood as a whole.
pub(crate) fn read(words: &[String]) -> Option<Asked> {
    let mut asked = Asked::default();
    let mut words = words.iter().peekable();
    let mut only_atoms = false;
    while let Some(word) = words.next() {
        if only_atoms || !word.starts_with('-') {
            asked.atoms.push(atom(word)?);
        } else if word == "--" {
            only_atoms = true;
        } else if let Some(long) = word.strip_prefix("--") {
            let (name, value) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
            let value = match value {
                None if MAY_HAVE_VALUE.contains(&name) => words.next_if(|next| is_value(next)).cloned(),
                None if HAVE_VALUE.contains(&name) => Some(words.next()?.clone()),
                given => given.map(str::to_owned),
            };
            asked.take(name, value.as_deref())?;
        } else {
            let mut letters = word.chars().skip(1).peekable();
            let alone = word.chars().count() == 2;
            while let Some(letter) = letters.next() {
                let (_, name) = SHORT.iter().find(|(short, _)| *short == letter)?;
                let mut value = None;
                if HAVE_VALUE.contains(name) || ["jobs", "load-average", "deep"].contains(name) {
                    let mut number = String::new();
                    while let Some(digit) = letters.next_if(|c| c.is_ascii_digit() || *c == '.') {
                        number.push(digit);
                    }
                    value = Some(number).filter(|number| !number.is_empty());
                }
                if value.is_none() && alone {
                    value = if HAVE_VALUE.contains(name) {
                        Some(words.next()?.clone())
                    } else if MAY_HAVE_VALUE.contains(name) {
                        words.next_if(|next| is_value(next)).cloned()
                    } else {
                        None
                    };
                }
                asked.take(name, value.as_deref())?;
            }
        }
    }
    if asked.atoms.is_empty() { None } else { Some(asked) }
}

impl Asked {
    /// One option; None when it is not known to leave the plan as it is.
    fn take(&mut self, name: &str, value: Option<&str>) -> Option<()> {
        if !(MAY_HAVE_VALUE.contains(&name) || HAVE_VALUE.contains(&name) || PLAIN.contains(&name)) {
            return None;
        }
        if name == "config-root" {
            self.config_root = value.map(PathBuf::from);
        }
        let on = value != Some("n");
        self.looks |= on && ["pretend", "ask"].contains(&name);
        self.says_binaries |= SAY_BINARIES.contains(&name);
        let planned = PLANNED.iter().find(|(option, _)| *option == name).map(|(_, option)| *option);
        if let Some(option) = planned.filter(|option| on && !self.options.contains(option)) {
            self.options.push(option);
        }
        Some(())
    }
}

/// What an optional value looks like.
fn is_value(word: &str) -> bool {
    matches!(word, "y" | "n") || word.parse::<f64>().is_ok()
}

/// None for files and paths, which only emerge knows what to do with.
fn atom(word: &str) -> Option<String> {
    match word {
        "world" | "system" | "selected" => Some(format!("@{word}")),
        path if path.starts_with(['/', '.'])
            || path.ends_with(".ebuild")
            || path.ends_with(".tar")
            || path.ends_with(".tbz2")
            || path.ends_with(".xpak") =>
        {
            None
        }
        _ => Some(word.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn what_is_installed_and_how_is_read_as_emerge_reads_it() {
        use PlanOption::{ChangedUse, Deep, Emptytree, Newuse, Update};
        for (line, atoms, options, looks, says) in [
            ("htop", "htop", vec![], false, false),
            ("-uDN @world", "@world", vec![Update, Deep, Newuse], false, false),
            ("-auDU world", "@world", vec![Update, Deep, ChangedUse], true, false),
            ("--ask=n -u a/b", "a/b", vec![Update], false, false),
            ("--ask n a/b", "a/b", vec![], false, false),
            ("-a n a/b", "a/b", vec![], false, false),
            ("-pv --jobs 4 -l 2.5 -j4 a/b c/d", "a/b c/d", vec![], true, false),
            ("--exclude x/y -X z/z --deep 3 a/b", "a/b", vec![Deep], false, false),
            ("-gK a/b", "a/b", vec![], false, true),
            ("--getbinpkg=n =a/b-1:0[ssl,-nls]", "=a/b-1:0[ssl,-nls]", vec![], false, true),
            ("-1 -- a/b", "a/b", vec![], false, false),
            ("--emptytree a/b", "a/b", vec![Emptytree], false, false),
        ] {
            let asked = read(&split(line)).unwrap_or_else(|| panic!("{line} installs something"));
            let got = (asked.atoms.join(" "), asked.options, asked.looks, asked.says_binaries);
            assert_eq!(got, (atoms.to_owned(), options, looks, says), "{line}");
        }
        assert_eq!(read(&split("--config-root /x a/b")).unwrap().config_root, Some("/x".into()));
    }

    #[test]
    fn everything_else_goes_straight_to_emerge() {
        for line in [
            "",
            "--sync",
            "--search htop",
            "-s htop",
            "-S htop",
            "-C a/b",
            "--depclean",
            "-c a/b",
            "--info",
            "-V",
            "--version",
            "--resume",
            "-r",
            "-f a/b",
            "--fetchonly a/b",
            "-B a/b",
            "-o a/b",
            "-O a/b",
            "--root /mnt a/b",
            "--help",
            "-h",
            "./one-1.0.ebuild",
            "/usr/lib/libz.so",
            "--unknown a/b",
            "--config a/b",
            "--deselect a/b",
            "-W a/b",
            "--exclude",
        ] {
            assert_eq!(read(&split(line)), None, "{line}");
        }
    }

    #[test]
    fn every_word_behind_the_verb_is_set_apart() {
        let apart = |line: &str| -> String {
            let words = set_apart(line.split(' ').map(OsString::from));
            words.iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(apart("peer emerge --help -q"), "peer emerge -- --help -q");
        assert_eq!(apart("peer --control emerge --quiet emerge -p x"), "peer --control emerge --quiet emerge -- -p x");
        assert_eq!(apart("peer build emerge"), "peer build emerge");
        assert_eq!(apart("peer"), "peer");
    }
}
