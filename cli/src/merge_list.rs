//! The list that emerge shows of what it would do: which packages are on it (`_emerge.resolver.output`).

use std::collections::BTreeSet;
use tree::cpv::Cpv;

/// Bytes of what emerge says that are kept to be read: a list of some thousand packages with all their flags.
const BYTES_MAX: usize = 16 << 20;

/// What emerge says, as it comes.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    bytes: Vec<u8>,
}

/// What is merged and what is removed, whatever it is made from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MergeList {
    merged: BTreeSet<String>,
    removed: BTreeSet<String>,
}

impl Heard {
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        let room = BYTES_MAX.saturating_sub(self.bytes.len());
        self.bytes.extend(bytes.iter().take(room));
    }

    /// The list in it.
    pub(crate) fn list(&self) -> MergeList {
        let mut list = MergeList::default();
        for line in String::from_utf8_lossy(&self.bytes).lines() {
            let line = without_colours(line);
            let Some((kind, package)) = entry(line.trim_end_matches('\r')) else { continue };
            match kind {
                "ebuild" | "binary" => list.merged.insert(package),
                _ => list.removed.insert(package),
            };
        }
        list
    }
}

impl MergeList {
    /// Whether nothing is on it, or nothing that can be read.
    pub(crate) fn is_empty(&self) -> bool {
        self.merged.is_empty()
    }

    /// `category/name-version` of what is merged.
    pub(crate) fn merged(&self) -> Vec<String> {
        self.merged.iter().cloned().collect()
    }

    /// What another list has that this one has not, and the other way round, for people; None when they are the same.
    pub(crate) fn differs(&self, other: &Self) -> Option<String> {
        let new = other.merged.difference(&self.merged).chain(other.removed.difference(&self.removed));
        let gone = self.merged.difference(&other.merged).chain(self.removed.difference(&other.removed));
        let told = new.map(|package| format!("+{package}")).chain(gone.map(|package| format!("-{package}")));
        let told: Vec<String> = told.collect();
        (!told.is_empty()).then(|| told.join(" "))
    }
}

/// One line of the list: its kind, and the package as an ebuild would be called.
fn entry(line: &str) -> Option<(&str, String)> {
    let (bracket, rest) = line.strip_prefix('[')?.split_once(']')?;
    let kind = bracket.split_whitespace().next()?;
    if !["ebuild", "binary", "uninstall"].contains(&kind) {
        return None;
    }
    let mut words = rest.split_whitespace();
    let first = words.next()?;
    // With --columns the version stands by itself.
    let named = match words.next().and_then(|word| word.strip_prefix('[')).and_then(|word| word.strip_suffix(']')) {
        Some(version) if first.parse::<Cpv>().is_err() && !first.contains(':') => format!("{first}-{version}"),
        _ => first.to_owned(),
    };
    // Slot and repository, of which only the verbose list tells.
    let named = named.split(':').next()?;
    if let Ok(cpv) = named.parse::<Cpv>() {
        return Some((kind, cpv.to_string()));
    }
    // A binary package has the number of its build behind its version.
    let (cpv, build) = named.rsplit_once('-')?;
    let numbered = kind == "binary" && build.bytes().all(|digit| digit.is_ascii_digit());
    cpv.parse::<Cpv>().ok().filter(|_| numbered).map(|cpv| (kind, cpv.to_string()))
}

/// The line without ANSI escape sequences (ECMA-48, 5.4).
fn without_colours(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        if letter != '\u{1b}' {
            plain.push(letter);
        } else if letters.next() == Some('[') {
            // Parameters, up to the final byte.
            letters.by_ref().find(|letter| ('@'..='~').contains(letter));
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> MergeList {
        let mut heard = Heard::default();
        text.as_bytes().chunks(7).for_each(|bytes| heard.take(bytes));
        heard.list()
    }

    #[test]
    fn packages_are_read_from_every_kind_of_list() {
        for line in [
            "[ebuild  N     ] app-misc/one-1.0-r1  USE=\"color -debug\" ",
            "[ebuild  N     ] app-misc/one-1.0-r1::main  USE=\"color\" 12 KiB",
            "[ebuild     U  ]  app-misc/one-1.0-r1:0/2::main [0.9:0/1::main] USE=\"x\" 0 KiB",
            "[binary  N     ] app-misc/one-1.0-r1-3::main  USE=\"color\" 0 KiB",
            "[binary   R    ]   app-misc/one-1.0-r1 to /mnt/ ",
            "\u{1b}[32m\u{1b}[1m[\u{1b}[0mebuild  N     ] ",
            "[\u{1b}[32mebuild\u{1b}[39;49;00m  \u{1b}[32;01mN\u{1b}[39;49;00m     ] \u{1b}[32mapp-misc/one-1.0-r1\u{1b}[39;49;00m \r",
            "[ebuild  N     ] app-misc/one        [1.0-r1] ",
            "[binary     U  ] app-misc/one        [1.0-r1-12::main]   [0.9::main] USE=\"x\"",
        ] {
            if line.starts_with('\u{1b}') {
                assert!(list(line).is_empty(), "{line}");
                continue;
            }
            assert_eq!(list(line).merged(), ["app-misc/one-1.0-r1"], "{line}");
        }
        for line in [
            "[blocks b      ] app-misc/one (\"app-misc/one\" is soft blocking app-misc/two-1)",
            "[nomerge       ] app-misc/one-1.0",
            "Calculating dependencies  ... done!",
            "Total: 1 package (1 new), Size of downloads: 0 KiB",
            "[ebuild  N     ]",
            "[ebuild  N     ] nonsense",
            "",
        ] {
            assert!(list(line).is_empty(), "{line}");
        }
    }

    #[test]
    fn two_lists_are_the_same_when_they_have_the_same_packages_from_wherever() {
        let shown = list("[ebuild  N ] a/b-1\n[ebuild  N ] a/c-2\n[uninstall ] a/old-1\n");
        assert_eq!(shown.differs(&list("[uninstall ] a/old-1\n[binary  N ] a/c-2-1\n[ebuild  N ] a/b-1\n")), None);
        let other = list("[ebuild  N ] a/b-1\n[ebuild  N ] a/d-2\n");
        assert_eq!(shown.differs(&other).unwrap(), "+a/d-2 -a/c-2 -a/old-1");
    }
}
