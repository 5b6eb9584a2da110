//! The `[build]` section: where builds get their system from and what they may use up.

use super::config::Size;
use serde::{Deserialize, Deserializer, de};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Names in `build.variables`; a user writes them by hand.
const VARIABLES_MAX: usize = 200;

/// How packages are built on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildConfig {
    /// The system seen inside the sandbox, read-only: this machine's, or an unpacked stage.
    pub root: PathBuf,
    /// More of this machine that is seen inside, read-only.
    pub binds: Vec<ExtraBind>,
    /// Builds at the same time.
    pub jobs_max: usize,
    /// Memory of one build.
    pub memory_max: Size,
    /// Disk of one build.
    pub disk_max: Size,
    /// Processes of one build.
    pub processes_max: u32,
    /// Seconds one build may take.
    pub time_max_s: u64,
    /// Names of variables of make.conf and package.env that ebuilds see, besides those that Portage and profiles know.
    pub variables: Vec<String>,
    /// What `peer emerge` does with packages that nobody has.
    pub on_miss: OnMiss,
    /// Whom binary packages, and claims for them, are given to.
    pub share: BuildShare,
}

/// Whom binary packages, and claims for them, are given to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildShare {
    /// Members of this machine's groups, and keys in `peer trust`; nothing of them is announced.
    Group,
    /// Any peer on the local network and listed ones too; they are announced.
    Lan,
    /// Nobody.
    None,
}

impl fmt::Display for BuildShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Group => "group",
            Self::Lan => "lan",
            Self::None => "none",
        })
    }
}

impl<'de> Deserialize<'de> for BuildShare {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;
        impl de::Visitor<'_> for Words {
            type Value = BuildShare;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"group\", \"lan\" or \"none\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<BuildShare, E> {
                match text {
                    "group" => Ok(BuildShare::Group),
                    "lan" => Ok(BuildShare::Lan),
                    "none" => Ok(BuildShare::None),
                    other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
                }
            }

            // What it was before there were groups.
            fn visit_bool<E: de::Error>(self, shared: bool) -> Result<BuildShare, E> {
                let now = if shared {
                    "\"lan\" gives packages to every peer on the local network, as true did, \"group\" to members only"
                } else {
                    "\"none\" gives them to nobody, as false did"
                };
                Err(E::custom(format_args!("build.share is a word now: {now}")))
            }
        }
        deserializer.deserialize_any(Words)
    }
}

/// What `peer emerge` does with packages that nobody has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnMiss {
    /// Leave them to emerge, which builds them where it installs them.
    #[default]
    Emerge,
    /// Build them first, in the sandbox.
    Sandbox,
}

impl fmt::Display for OnMiss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Emerge => "emerge",
            Self::Sandbox => "sandbox",
        })
    }
}

/// The section as the file spells it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct BuildSection {
    pub(super) root: Option<PathBuf>,
    pub(super) binds: Option<Vec<ExtraBind>>,
    pub(super) jobs_max: Option<usize>,
    pub(super) memory_max: Option<Size>,
    pub(super) disk_max: Option<Size>,
    pub(super) processes_max: Option<u32>,
    pub(super) time_max_s: Option<u64>,
    pub(super) variables: Option<Vec<String>>,
    pub(super) on_miss: Option<OnMiss>,
    pub(super) share: Option<BuildShare>,
}

impl BuildConfig {
    /// Refuses values that parse but cannot be meant: the key, and what is wrong with it.
    pub(super) fn check(&self) -> Result<(), (&'static str, &'static str)> {
        if !self.root.is_absolute() {
            return Err(("build.root", "must be an absolute path"));
        }
        if !(1..=64).contains(&self.jobs_max) {
            return Err(("build.jobs_max", "must be from 1 to 64"));
        }
        if self.memory_max.0 < 64 << 20 {
            return Err(("build.memory_max", "must be at least 64 MiB: a compiler does not run with less"));
        }
        if self.disk_max.0 < 16 << 20 {
            return Err(("build.disk_max", "must be at least 16 MiB"));
        }
        if !(16..=1 << 20).contains(&self.processes_max) {
            return Err(("build.processes_max", "must be from 16 to 1048576"));
        }
        if !(10..=7 * 86_400).contains(&self.time_max_s) {
            return Err(("build.time_max_s", "must be from 10 seconds to a week"));
        }
        if self.variables.len() > VARIABLES_MAX || !self.variables.iter().all(|name| is_variable(name)) {
            return Err(("build.variables", "must be at most 200 names of shell variables"));
        }
        Ok(())
    }
}

/// Whether a shell can have a variable of this name.
pub(crate) fn is_variable(name: &str) -> bool {
    let mut letters = name.chars();
    letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
        && name.len() <= 100
}

/// A directory or file of this machine that builds see: `/opt/tool`, or `/opt/tool:/usr/lib/tool` to see it elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtraBind {
    /// Where it is.
    pub source: PathBuf,
    /// Where it is seen.
    pub target: PathBuf,
}

/// Why a text is no bind.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is not SOURCE or SOURCE:TARGET with absolute paths")]
pub struct ParseBindError {
    text: String,
}

impl FromStr for ExtraBind {
    type Err = ParseBindError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (source, target) = text.split_once(':').unwrap_or((text, text));
        let plain = |path: &Path| {
            path.is_absolute() && !path.components().any(|part| matches!(part, std::path::Component::ParentDir))
        };
        let bind = Self { source: source.into(), target: target.into() };
        if plain(&bind.source) && plain(&bind.target) && !target.contains(':') {
            return Ok(bind);
        }
        Err(ParseBindError { text: text.chars().take(200).collect() })
    }
}

impl fmt::Display for ExtraBind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.source.display())?;
        if self.target == self.source { Ok(()) } else { write!(f, ":{}", self.target.display()) }
    }
}

impl<'de> Deserialize<'de> for ExtraBind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bind_is_one_or_two_absolute_paths() {
        for (text, good) in [
            ("/opt", true),
            ("/opt/a:/usr/lib/a", true),
            ("opt", false),
            ("/opt:relative", false),
            ("/opt/../etc/shadow", false),
            ("/a:/b:/c", false),
            ("", false),
        ] {
            let parsed = text.parse::<ExtraBind>();
            assert_eq!(parsed.is_ok(), good, "{text}");
            if let Ok(bind) = parsed {
                assert_eq!(bind.to_string(), text);
            }
        }
    }
}
