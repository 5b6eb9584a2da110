//! What a member may do.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What a member may do; each includes the former.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Take binary packages and claims, and ask questions.
    Fetch,
    /// Also give builds to do.
    Build,
    /// Also build for others: its claims count.
    Sign,
}

impl Role {
    /// As it is spelled.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fetch => "fetch",
            Self::Build => "build",
            Self::Sign => "sign",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a text is no role.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is no role; expected fetch, build or sign")]
pub struct ParseRoleError {
    text: String,
}

impl FromStr for Role {
    type Err = ParseRoleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = [Self::Fetch, Self::Build, Self::Sign];
        let found = all.into_iter().find(|role| role.as_str() == text);
        found.ok_or_else(|| ParseRoleError { text: text.chars().take(40).collect() })
    }
}
