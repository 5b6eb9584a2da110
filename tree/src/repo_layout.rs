//! `metadata/layout.conf` of an ebuild repository, as far as it is read here, and by Portage's own rules.

use std::path::Path;

use crate::name::RepoName;

/// Masters, aliases or cache formats that one repository names.
const NAMES_MAX: usize = 64;

/// Metadata that a repository brings for its ebuilds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cache {
    /// `metadata/md5-cache`.
    Md5,
    /// `metadata/cache` of old, compared by times: Portage is asked.
    Pms,
    /// None.
    Absent,
}

/// What a layout.conf says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RepoLayout {
    /// The repositories it builds on; None where nothing is said about them.
    pub(crate) masters: Option<Vec<String>>,
    /// Other names of it.
    pub(crate) aliases: Vec<String>,
    /// The name that counts instead of that in profiles/repo_name.
    pub(crate) name: Option<String>,
    /// The formats of its metadata, the one that is used first.
    formats: Vec<String>,
}

impl RepoLayout {
    /// Reads lines of `KEY = VALUE`; of a key that is there twice the last counts, and lines that are none are passed over.
    pub(crate) fn parse(text: &str) -> Self {
        let value = |wanted: &str| {
            let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
            let pairs = lines.filter_map(|line| line.split_once('='));
            pairs.filter(|(key, _)| key.trim() == wanted).map(|(_, value)| value.trim()).next_back()
        };
        let words = |text: &str| text.split_whitespace().take(NAMES_MAX).map(str::to_owned).collect::<Vec<_>>();
        Self {
            masters: value("masters").map(words),
            aliases: value("aliases").map(words).unwrap_or_default(),
            name: value("repo-name").and_then(valid_name),
            formats: value("cache-formats").map(|formats| words(&formats.to_lowercase())).unwrap_or_default(),
        }
    }

    /// The masters that can be names of repositories.
    pub(crate) fn master_names(&self) -> Option<Vec<RepoName>> {
        let masters = self.masters.as_ref()?;
        Some(masters.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// The metadata that Portage takes: the first format that is named and known, or else what is there.
    pub(crate) fn cache(&self, is_there: impl Fn(&str) -> bool) -> Cache {
        let known = |format: &String| match format.as_str() {
            "md5-dict" => Some(Cache::Md5),
            "pms" => Some(Cache::Pms),
            _ => None,
        };
        let directories = [("metadata/md5-cache", Cache::Md5), ("metadata/cache", Cache::Pms)];
        let found = || directories.into_iter().find(|(directory, _)| is_there(directory)).map(|(_, cache)| cache);
        let named = if self.formats.is_empty() { found() } else { self.formats.iter().find_map(known) };
        match named {
            // Named, and perhaps not there: then no entry is found either.
            Some(Cache::Md5) if !is_there("metadata/md5-cache") => Cache::Absent,
            named => named.unwrap_or(Cache::Absent),
        }
    }
}

/// The name in repo_name, made valid as Portage makes it; a repository without one is called after its directory.
pub(crate) fn own_name(text: Option<&str>, root: &Path) -> String {
    let first = text.map(|text| text.lines().next().unwrap_or_default());
    let directory = format!("x-{}", root.file_name().unwrap_or_default().to_string_lossy());
    first.and_then(valid_name).or_else(|| valid_name(&directory)).unwrap_or_default()
}

/// A name made valid as Portage makes it: what cannot be part of one becomes a hyphen. None when nothing is left.
fn valid_name(text: &str) -> Option<String> {
    let spaced: String =
        text.chars().map(|c| if c.is_alphanumeric() || matches!(c, '_' | '-') { c } else { ' ' }).collect();
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let name = words.join("-").trim_start_matches('-').to_owned();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_known_format_is_used_and_none_named_means_what_is_there() {
        for (text, there, cache) in [
            ("", &["metadata/md5-cache", "metadata/cache"][..], Cache::Md5),
            ("", &["metadata/cache"], Cache::Pms),
            ("", &[], Cache::Absent),
            ("cache-formats =", &["metadata/md5-cache"], Cache::Md5),
            ("cache-formats = PMS md5-dict", &["metadata/md5-cache"], Cache::Pms),
            ("cache-formats = sqlite md5-dict", &["metadata/md5-cache"], Cache::Md5),
            ("cache-formats = sqlite", &["metadata/md5-cache"], Cache::Absent),
            ("cache-formats = md5-dict", &["metadata/cache"], Cache::Absent),
        ] {
            assert_eq!(RepoLayout::parse(text).cache(|name| there.contains(&name)), cache, "{text:?} {there:?}");
        }
    }

    #[test]
    fn the_last_line_of_a_key_counts_and_others_are_passed_over() {
        let layout =
            RepoLayout::parse("masters = a\n  # masters = c\nnothing\nmasters=b  d\nrepo-name = -my repo!\n= x\n");
        assert_eq!(layout.masters, Some(vec!["b".to_owned(), "d".to_owned()]));
        assert_eq!((layout.name.as_deref(), layout.aliases.len()), (Some("my-repo"), 0));
        assert_eq!(RepoLayout::parse("").masters, None);
        assert_eq!(RepoLayout::parse("masters =").masters, Some(Vec::new()));
        assert_eq!(RepoLayout::parse("repo-name = !!").name, None);
    }
}
