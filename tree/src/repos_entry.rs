//! One repository as its section and its own files describe it, before it is known how it stands among the others.

use std::fs;
use std::path::{Path, PathBuf};

use crate::confine;
use crate::ini::Options;
use crate::repo_layout::{RepoLayout, own_name};
use crate::repos_conf::Origin;

/// Bytes of a file of a repository.
const FILE_BYTES_MAX: usize = 4 << 20;
/// Words of one list in an option.
const NAMES_MAX: usize = 64;

/// One repository while the configuration is read.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) location: Option<PathBuf>,
    pub(crate) is_there: bool,
    pub(crate) priority: Option<i64>,
    pub(crate) aliases: Vec<String>,
    pub(crate) masters: Option<Vec<String>>,
    pub(crate) overrides: Vec<String>,
    pub(crate) origin: Origin,
}

impl Entry {
    /// What options say, and the files of the repository itself. `section` names it where it has no name of its own.
    pub(crate) fn new(section: Option<&str>, options: &Options, origin: Origin) -> Self {
        let location = options.get("location").filter(|location| !location.trim().is_empty()).map(PathBuf::from);
        let there = location.as_deref().filter(|location| location.is_absolute()).and_then(real);
        let is_there = there.is_some();
        let location = there.or(location);
        let text = |file: &str| {
            let root = location.as_ref().filter(|_| is_there)?;
            confine::text_within(root, &root.join(file), FILE_BYTES_MAX).ok().flatten()
        };
        let layout = RepoLayout::parse(&text("metadata/layout.conf").unwrap_or_default());
        let named = text("profiles/repo_name");
        let own = || own_name(named.as_deref(), location.as_deref().unwrap_or(Path::new("")));
        let name = match (layout.name, &named, section) {
            (Some(name), _, _) => name,
            (None, None, Some(section)) => section.to_owned(),
            (None, _, _) => own(),
        };
        let aliases = [layout.aliases, words(options, "aliases").unwrap_or_default()].concat();
        Self {
            name,
            location,
            is_there,
            priority: options.get("priority").and_then(|priority| priority.trim().parse().ok()),
            aliases,
            masters: words(options, "masters").or(layout.masters),
            overrides: words(options, "eclass-overrides").unwrap_or_default(),
            origin,
        }
    }

    /// Its aliases, where `-NAME` takes one away and `-*` all before it.
    pub(crate) fn aliases(&self) -> Vec<String> {
        let mut aliases: Vec<String> = Vec::new();
        for alias in &self.aliases {
            match alias.strip_prefix('-') {
                Some("*") => aliases.clear(),
                Some(gone) => aliases.retain(|alias| alias != gone),
                None if !aliases.contains(alias) => aliases.push(alias.clone()),
                None => {}
            }
        }
        aliases
    }
}

/// The directory at a path, without links.
pub(crate) fn real(path: &Path) -> Option<PathBuf> {
    fs::canonicalize(path).ok().filter(|path| path.is_dir())
}

fn words(options: &Options, option: &str) -> Option<Vec<String>> {
    let text = options.get(option)?;
    Some(text.split_whitespace().take(NAMES_MAX).map(str::to_owned).collect())
}
