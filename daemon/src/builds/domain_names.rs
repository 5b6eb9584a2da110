//! Which variables another machine's configuration may set here: those that its recipe names, and those that only choose
//! packages. `names.txt` is the list, which `variables.py` reads too: what one cuts, the other knows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

/// The list; [`script`] hands it to Python.
const NAMES: &str = include_str!("names.txt");
/// Bytes of one value.
const VALUE_BYTES_MAX: usize = 64 * 1024;
/// The variable whose words are themselves of a list.
const FEATURES: &str = "FEATURES";

/// A script that runs inside: the list of names, `variables.py`, and what is done with them.
macro_rules! script {
    ($file:literal) => {
        concat!("NAMES = r'''", include_str!("names.txt"), "'''\n", include_str!("variables.py"), include_str!($file))
    };
}
pub(super) use script;

static SECTIONS: LazyLock<BTreeMap<&str, BTreeSet<&str>>> = LazyLock::new(|| {
    let mut sections: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut section = "";
    for line in NAMES.lines().map(|line| line.split('#').next().unwrap_or_default().trim()) {
        match line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            Some(name) => section = name,
            None => sections.entry(section).or_default().extend(line.split_ascii_whitespace()),
        }
    }
    sections
});

/// The words of a section; none where there is no such section, so that a mistake in the list forbids.
fn section(name: &str) -> impl Iterator<Item = &'static str> {
    SECTIONS.get(name).into_iter().flatten().copied()
}

fn is_in(name: &str, of: &str) -> bool {
    SECTIONS.get(of).is_some_and(|words| words.contains(name))
}

/// Whether a recipe names a variable that an ebuild gets (`in_recipe` of variables.py).
fn in_recipe(name: &str) -> bool {
    let family = section("unnamed begins").any(|begin| name.starts_with(begin))
        || section("unnamed ends").any(|end| name.ends_with(end));
    !is_in(name, "unnamed") && !family && (!name.starts_with("PORTAGE_") || is_in(name, "portage in image"))
}

/// Whether another machine may set this variable for a build here (`may_be_foreign` of variables.py).
pub(super) fn may_be_foreign(name: &str) -> bool {
    if !crate::config_build::is_variable(name) {
        return false;
    }
    if is_in(name, "chooses") {
        return true;
    }
    let never = is_in(name, "never foreign") || section("never foreign begins").any(|begin| name.starts_with(begin));
    // How Python starts: PYTHON itself and PYTHON_TARGETS are what ebuilds ask for.
    let python = name.strip_prefix("PYTHON").is_some_and(|rest| !rest.is_empty() && !rest.starts_with('_'));
    in_recipe(name) && !never && !python
}

/// Whether another machine may say this value: one line that no shell would run a part of.
pub(super) fn is_value(value: &str) -> bool {
    value.len() <= VALUE_BYTES_MAX && !value.contains(['\0', '\n', '\r', '`']) && !value.contains("$(")
}

/// A line that Portage's `getconfig` reads as this value, as far as a build takes it from another machine.
pub(super) fn line(name: &str, value: &str) -> String {
    if name == FEATURES { quoted(name, &features(value)) } else { quoted(name, value) }
}

/// Those of the words that a recipe names. The rest say how Portage works, which is this machine's own affair.
fn features(words: &str) -> String {
    let mut kept = Vec::new();
    for word in words.split_ascii_whitespace() {
        if word == "-*" {
            kept.extend(section("features in image").map(|feature| format!("-{feature}")));
        } else if is_in(word.strip_prefix('-').unwrap_or(word), "features in image") {
            kept.push(word.to_owned());
        }
    }
    kept.join(" ")
}

/// It removes one layer of backslashes with the quotes and another one where it expands.
fn quoted(name: &str, value: &str) -> String {
    let value = value.replace('\\', "\\\\\\\\").replace('"', "\\\"").replace('$', "\\$");
    format!("{name}=\"{value}\"\n")
}

/// What a line of [`quoted`] says; None for every other line, and for a variable that is not another machine's to set.
pub(super) fn assignment(line: &str) -> Option<(&str, String)> {
    let (name, rest) = line.split_once("=\"")?;
    let rest = rest.strip_suffix('"')?;
    let (mut value, mut rest) = (String::with_capacity(rest.len()), rest);
    while let Some(letter) = rest.chars().next() {
        let (said, spelt) = match letter {
            '\\' if rest.starts_with("\\\\\\\\") => ('\\', "\\\\\\\\"),
            '\\' if rest.starts_with("\\\"") => ('"', "\\\""),
            '\\' if rest.starts_with("\\$") => ('$', "\\$"),
            '\\' | '"' | '$' => return None,
            _ => {
                value.push(letter);
                rest = rest.get(letter.len_utf8()..)?;
                continue;
            }
        };
        value.push(said);
        rest = rest.strip_prefix(spelt)?;
    }
    (may_be_foreign(name) && is_value(&value)).then_some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_another_machines_to_set_when_a_recipe_names_it_or_it_chooses() {
        for name in
            ["CFLAGS", "CC", "USE", "FEATURES", "PYTHON", "PYTHON_TARGETS", "ACCEPT_LICENSE", "LDFLAGS", "MY_OWN"]
        {
            assert!(may_be_foreign(name), "{name}");
        }
        for name in [
            "MAKEOPTS",
            "NINJAOPTS",
            "LESSOPEN",
            "PAGER",
            "EDITOR",
            "PATH",
            "HOME",
            "LD_PRELOAD",
            "BASH_ENV",
            "ENV",
            "PS4",
            "SHELLOPTS",
            "PYTHONPATH",
            "PYTHONSTARTUP",
            "PORTAGE_TMPDIR",
            "PORTAGE_BZIP2_COMMAND",
            "PORTAGE_BASHRC",
            "PORTAGE_LOG_FILTER_FILE_CMD",
            "FETCHCOMMAND_SSH",
            "FETCH_WRAPPER",
            "GCONV_PATH",
            "PKGUSE",
            "USE_ORDER",
            "PROFILE_ONLY_VARIABLES",
            "USE_EXPAND_VALUES_ARCH",
            "http_proxy",
            "PEERAGE_FOREIGN",
            "SANDBOX_WRITE",
            "__x",
            "a b",
            "",
            "A=B",
        ] {
            assert!(!may_be_foreign(name), "{name}");
        }
    }

    #[test]
    fn of_features_only_those_are_taken_that_a_recipe_names() {
        assert_eq!(features("keepwork nostrip -fixlafiles noauto -test digest"), "nostrip -test");
        let all = features("-*");
        assert!(all.contains("-xattr") && !all.contains('*'), "{all}");
    }

    #[test]
    fn a_line_says_the_value_it_was_made_of_and_any_other_line_says_nothing() {
        for value in ["", "-O2 -pipe", "-DX=\"a\"", "a\\b$x ${y} 'z'", "é"] {
            let written = quoted("CFLAGS", value);
            assert_eq!(assignment(written.trim_end()), Some(("CFLAGS", value.to_owned())), "{written}");
        }
        for bad in [
            "source /etc/passwd",
            "CFLAGS=\"$(id)\"",
            "CFLAGS=\"\\$(id)\"",
            "CFLAGS=\"`id`\"",
            "CFLAGS=\"${HOME}\"",
            "CFLAGS=\"a\" b",
            "CFLAGS=\"a\"; b=\"\"",
            "CFLAGS=a",
            "PATH=\"x\"",
            "MAKEOPTS=\"-f x\"",
            "A=\"\\\"",
            "A=\"\\\\\"",
            "export A=\"x\"",
        ] {
            assert_eq!(assignment(bad), None, "{bad}");
        }
    }
}
