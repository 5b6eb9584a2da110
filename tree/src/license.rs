//! LICENSE and licence groups: may the sources be handed on? (PMS 7.3.2, 4.4.4; profiles/license_groups)

use std::collections::{BTreeMap, BTreeSet};

use crate::depstring::{self, GrammarError, Signs, Step};

/// Words of one license_groups file; ::gentoo has about 1,500.
const WORDS_MAX: usize = 100_000;
/// The group whose licences must be accepted one by one, because they restrict handing on.
const EULA: &str = "EULA";
/// The licence of files that come with no permission at all.
const ALL_RIGHTS_RESERVED: &str = "all-rights-reserved";

/// The licence groups of a repository and its masters: name to members, which may be groups again (`@NAME`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LicenseGroups {
    groups: BTreeMap<String, BTreeSet<String>>,
}

impl LicenseGroups {
    /// Reads a `profiles/license_groups` file: a line is a group and its members, `#` begins a comment.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut groups: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut words_left = WORDS_MAX;
        for line in text.lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
            let Some(group) = words.next() else { continue };
            let members: BTreeSet<String> = words.take(words_left).map(str::to_owned).collect();
            words_left = words_left.saturating_sub(members.len() + 1);
            if words_left == 0 {
                break;
            }
            groups.entry(group.to_owned()).or_default().extend(members);
        }
        Self { groups }
    }

    /// Adds the groups of another repository, such as a master; groups of the same name are united.
    pub fn merge(&mut self, other: &Self) {
        for (group, members) in &other.groups {
            self.groups.entry(group.clone()).or_default().extend(members.iter().cloned());
        }
    }

    /// All licences of a group and of the groups within it, however they nest.
    #[must_use]
    pub fn members(&self, group: &str) -> BTreeSet<&str> {
        let mut licences = BTreeSet::new();
        let mut seen = BTreeSet::from([group]);
        let mut open = vec![group];
        while let Some(group) = open.pop() {
            for member in self.groups.get(group).into_iter().flatten() {
                match member.strip_prefix('@') {
                    Some(inner) if seen.insert(inner) => open.push(inner),
                    Some(_) => {}
                    None => {
                        licences.insert(member.as_str());
                    }
                }
            }
        }
        licences
    }
}

/// The LICENSE of an ebuild.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct License {
    text: String,
}

impl License {
    /// The licence with this text; a text that Portage would refuse permits nothing.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self { text: text.to_owned() }
    }

    /// Whether some choice of alternatives avoids every licence that forbids handing on: `all-rights-reserved` and the
    /// members of `@EULA`. Conditionals count as met. Without a licence nothing is permitted.
    #[must_use]
    pub fn may_redistribute(&self, groups: &LicenseGroups) -> bool {
        let eula = groups.members(EULA);
        let free = |licence: &str| licence != ALL_RIGHTS_RESERVED && !eula.contains(licence);
        // A level is (any of, the answer so far); the answer of "all of" begins true, of "any of" false.
        let mut levels = vec![(false, true)];
        let walked = depstring::walk(&self.text, Signs::AnyOf, |step| {
            let answer = match step {
                Step::OpenAll => {
                    levels.push((false, true));
                    return Ok(());
                }
                Step::OpenAny => {
                    levels.push((true, false));
                    return Ok(());
                }
                Step::Close => levels.pop().is_some_and(|(_, answer)| answer),
                Step::Word(licence) => free(licence),
                Step::Arrow(_) => false,
            };
            if let Some((any, so_far)) = levels.last_mut() {
                *so_far = if *any { *so_far || answer } else { *so_far && answer };
            }
            Ok::<(), GrammarError>(())
        });
        walked.is_ok() && !self.text.trim().is_empty() && levels.first().is_some_and(|(_, answer)| *answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups() -> LicenseGroups {
        LicenseGroups::parse(
            "# comment\nFREE GPL-2 MIT # more\nEULA NVIDIA @GAMES\nGAMES quake @EULA @MISSING\n\nEULA unRAR\n",
        )
    }

    #[test]
    fn a_file_may_be_handed_on_if_a_choice_permits_it() {
        for (text, expected) in [
            ("MIT", true),
            ("MIT GPL-2", true),
            ("NVIDIA", false),
            ("quake", false),
            ("unRAR", false),
            ("all-rights-reserved", false),
            ("MIT NVIDIA", false),
            ("|| ( MIT NVIDIA )", true),
            ("|| ( quake NVIDIA )", false),
            ("|| ( ( MIT quake ) NVIDIA )", false),
            ("|| ( ( MIT quake ) ( GPL-2 MIT ) )", true),
            ("|| ( || ( quake MIT ) NVIDIA ) MIT", true),
            ("cuda? ( NVIDIA ) MIT", false),
            ("!cuda? ( NVIDIA ) MIT", false),
            ("|| ( cuda? ( NVIDIA ) MIT )", true),
            ("", false),
            ("  ", false),
            ("|| MIT", false),
            ("( MIT", false),
        ] {
            assert_eq!(License::new(text).may_redistribute(&groups()), expected, "{text:?}");
        }
    }

    #[test]
    fn the_groups_of_a_master_count() {
        let mut own = LicenseGroups::parse("EULA mine");
        assert!(License::new("NVIDIA").may_redistribute(&own));
        own.merge(&groups());
        assert!(!License::new("NVIDIA").may_redistribute(&own) && !License::new("mine").may_redistribute(&own));
    }

    #[test]
    fn groups_that_contain_each_other_end() {
        assert_eq!(groups().members("GAMES"), BTreeSet::from(["NVIDIA", "quake", "unRAR"]));
        assert_eq!(groups().members("NONE"), BTreeSet::new());
    }

    #[test]
    fn deep_nesting_is_refused_not_followed() {
        let text = format!("{} MIT {}", "( ".repeat(100_000), ") ".repeat(100_000));
        assert!(!License::new(&text).may_redistribute(&groups()));
    }
}
