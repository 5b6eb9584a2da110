//! Numbers of bytes that others say: bounded where they are read, so that what is done with them cannot go wrong.

use serde::{Deserialize, Serialize};

/// A number of bytes as another node, a package or a repository says it, at most `MAX`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct SaidSize<const MAX: u64>(u64);

/// More than anything of the kind has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{said} bytes, expected at most {max}")]
pub struct TooLarge {
    /// What was said.
    pub said: u64,
    /// The bound.
    pub max: u64,
}

impl<const MAX: u64> SaidSize<MAX> {
    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl<const MAX: u64> TryFrom<u64> for SaidSize<MAX> {
    type Error = TooLarge;

    fn try_from(said: u64) -> Result<Self, TooLarge> {
        if said > MAX { Err(TooLarge { said, max: MAX }) } else { Ok(Self(said)) }
    }
}

impl<const MAX: u64> From<SaidSize<MAX>> for u64 {
    fn from(size: SaidSize<MAX>) -> Self {
        size.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers at which arithmetic goes wrong.
    const EDGES: [u64; 9] = [0, 1, (1 << 31) - 1, 1 << 31, 1 << 32, i64::MAX as u64, 1 << 63, (1 << 63) + 1, u64::MAX];

    #[test]
    fn a_size_is_read_up_to_its_bound_and_no_further() {
        const MAX: u64 = 1 << 32;
        for said in EDGES {
            let bytes = serde_ipld_dagcbor::to_vec(&said).unwrap();
            let read = serde_ipld_dagcbor::from_slice::<SaidSize<MAX>>(&bytes);
            assert_eq!(read.as_ref().map(|size| size.get()).ok(), (said <= MAX).then_some(said), "{said}");
            let text = said.to_string();
            assert_eq!(serde_json::from_str::<SaidSize<MAX>>(&text).is_ok(), said <= MAX, "{said}");
            if let Ok(size) = read {
                assert_eq!(serde_ipld_dagcbor::to_vec(&size).unwrap(), bytes, "written as it was read");
            }
        }
    }
}
