//! binrepos.conf (portage(5)): where `emerge --getbinpkg` asks for binary packages, as Portage's `BinRepoConfigLoader`
//! reads it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::conf::files_below;
use crate::confine::{self, ReadFileError};
use crate::ini::{Ini, Options, ParseIniError};

/// Bytes of one file.
const FILE_BYTES_MAX: usize = 4 << 20;

/// Why binrepos.conf cannot be used. Portage then uses none of it, or ends.
#[derive(Debug, Error)]
pub enum LoadBinReposError {
    /// A file is there and cannot be read.
    #[error(transparent)]
    Read(#[from] ReadFileError),
    /// A file is wrong. Portage then uses none of them.
    #[error("{}: {source}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong, and in which line.
        source: ParseIniError,
    },
    /// A value refers to what is not there. Portage then ends.
    #[error("{}: {source}", path.display())]
    Values {
        /// The file or directory.
        path: PathBuf,
        /// Which value.
        source: ParseIniError,
    },
}

/// One binhost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BinRepo {
    /// Its section; none for one that PORTAGE_BINHOST names.
    pub name: Option<String>,
    /// Its address, without slashes at the end.
    pub sync_uri: String,
    /// Those with a higher one are asked first.
    pub priority: i64,
    /// Whether signatures are asked for; none where it does not say.
    pub verify_signature: Option<bool>,
    /// Whether Portage goes on with its copy of the index.
    pub frozen: bool,
    /// The command that fetches from it, where it has one of its own.
    pub fetchcommand: Option<String>,
}

/// The binhosts of a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BinRepos {
    /// The binhosts, lowest priority first.
    pub repos: Vec<BinRepo>,
    /// What was left out and why, for people.
    pub problems: Vec<String>,
}

impl BinRepos {
    /// Loads `usr/share/portage/config/binrepos.conf` and then `etc/portage/binrepos.conf` below `config_root`, each a file
    /// or a directory, as Portage does; neither need be there. `portage_binhost` is the value of PORTAGE_BINHOST.
    ///
    /// # Errors
    /// When a file is there and cannot be read, or is wrong.
    pub fn load(config_root: &Path, portage_binhost: &str) -> Result<Self, LoadBinReposError> {
        let root = config_root.to_string_lossy();
        let root = format!("{}/", root.trim_end_matches('/'));
        let mut ini = Ini::new(&[
            ("frozen", "false"),
            ("EPREFIX", ""),
            ("EROOT", "/"),
            ("PORTAGE_CONFIGROOT", &root),
            ("ROOT", "/"),
        ]);
        let own = config_root.join("etc/portage/binrepos.conf");
        for place in [&config_root.join("usr/share/portage/config/binrepos.conf"), &own] {
            for path in files_below(place)? {
                let bytes = confine::read(&path, FILE_BYTES_MAX)?;
                let read = ini.read(&String::from_utf8_lossy(&bytes));
                read.map_err(|source| LoadBinReposError::Parse { path, source })?;
            }
        }
        let sections = ini.sections().map_err(|source| LoadBinReposError::Values { path: own, source })?;
        let mut loaded = Self::default();
        for (name, options) in sections {
            match of_section(&name, &options) {
                Some(repo) => loaded.repos.push(repo),
                None => loaded.problems.push(format!("[{name}]: no sync-uri")),
            }
        }
        loaded.add_implicit(portage_binhost);
        loaded.repos.sort_by(|left, right| (left.priority, &left.name).cmp(&(right.priority, &right.name)));
        Ok(loaded)
    }

    /// Hosts that only PORTAGE_BINHOST names, the last of them with priority 1.
    fn add_implicit(&mut self, portage_binhost: &str) {
        let mut known: BTreeSet<String> = self.repos.iter().map(|repo| repo.sync_uri.clone()).collect();
        let mut priority = 0;
        for uri in portage_binhost.split_whitespace().rev() {
            let sync_uri = uri.trim_end_matches('/').to_owned();
            if known.insert(sync_uri.clone()) {
                priority += 1;
                let (verify_signature, frozen, fetchcommand) = (None, false, None);
                self.repos.push(BinRepo { name: None, sync_uri, priority, verify_signature, frozen, fetchcommand });
            }
        }
    }

    /// The binhost at an address that is asked first.
    #[must_use]
    pub fn at(&self, sync_uri: &str) -> Option<&BinRepo> {
        let wanted = sync_uri.trim_end_matches('/');
        self.repos.iter().rev().find(|repo| repo.sync_uri == wanted)
    }
}

fn of_section(name: &str, options: &Options) -> Option<BinRepo> {
    let is_yes = |value: &String| matches!(value.to_lowercase().as_str(), "true" | "yes");
    Some(BinRepo {
        name: Some(name.to_owned()),
        sync_uri: options.get("sync-uri")?.trim_end_matches('/').to_owned(),
        priority: options.get("priority").and_then(|value| python_int(value)).unwrap_or(0),
        verify_signature: options.get("verify-signature").map(is_yes),
        frozen: options.get("frozen").is_some_and(is_yes),
        fetchcommand: options.get("fetchcommand").cloned(),
    })
}

/// A number as Python's `int` takes it: a sign, and single underscores between digits.
fn python_int(text: &str) -> Option<i64> {
    let text = text.trim();
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if !digits.split('_').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit())) {
        return None;
    }
    let magnitude = digits.replace('_', "").parse().unwrap_or(i64::MAX);
    Some(if is_negative { -magnitude } else { magnitude })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_python() {
        for (text, number) in [
            ("9999", Some(9999)),
            (" +1_000 ", Some(1000)),
            ("-3", Some(-3)),
            ("007", Some(7)),
            ("99999999999999999999", Some(i64::MAX)),
            ("1__0", None),
            ("_1", None),
            ("1.5", None),
            ("high", None),
            ("", None),
        ] {
            assert_eq!(python_int(text), number, "{text:?}");
        }
    }
}
