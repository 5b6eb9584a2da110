//! The `[offload]` section: what other machines build for this one, and what it builds for them.

use super::config::Picker;
use serde::Deserialize;
use std::fmt;

/// Which packages members of the group are asked to build without `--on` being said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OffloadPolicy {
    /// None.
    #[default]
    Never,
    /// Those that nobody has built.
    Misses,
}

impl fmt::Display for OffloadPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Never => "never",
            Self::Misses => "misses",
        })
    }
}

/// A client that restarts, or that moves from one network to another, is back by then.
const LEASE_S: u64 = 120;

/// How work is shared with other machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffloadConfig {
    /// Which packages others are asked to build.
    pub builds: OffloadPolicy,
    /// Seconds for which a build for another machine goes on when nothing is heard of that one.
    pub lease_s: u64,
    /// Builds for others at the same time; 0 refuses them all. Never more than `build.jobs_max` run in all.
    pub jobs_max: usize,
}

/// The section as the file spells it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct OffloadSection {
    pub(super) builds: Option<OffloadPolicy>,
    pub(super) jobs_max: Option<usize>,
    pub(super) lease_s: Option<u64>,
}

impl OffloadConfig {
    /// What the file says, or what is usual.
    pub(super) fn merge(file: &OffloadSection, build_jobs_max: usize, picker: &mut Picker) -> Self {
        Self {
            builds: picker.pick("offload.builds", None, file.builds, OffloadPolicy::Never, ToString::to_string),
            jobs_max: picker.pick("offload.jobs_max", None, file.jobs_max, build_jobs_max, ToString::to_string),
            lease_s: picker.pick("offload.lease_s", None, file.lease_s, LEASE_S, ToString::to_string),
        }
    }

    /// Refuses values that parse but cannot be meant: the key, and what is wrong with it.
    pub(super) fn check(&self) -> Result<(), (&'static str, &'static str)> {
        if self.jobs_max > 64 {
            return Err(("offload.jobs_max", "must be from 0 to 64; with 0 nothing is built for others"));
        }
        if !(1..=86_400).contains(&self.lease_s) {
            return Err(("offload.lease_s", "must be from 1 second to a day"));
        }
        Ok(())
    }
}
