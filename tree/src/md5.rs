//! MD5 sums of text, as md5-cache notes them. They tell whether an entry belongs to its ebuild and protect nothing.

use std::fmt;
use std::str::FromStr;

use ::md5::{Digest as _, Md5 as Md5Hasher};
use thiserror::Error;

/// Why a text is not an MD5 sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("expected the 32 small hex digits of an MD5 sum")]
pub struct ParseMd5Error;

/// An MD5 sum.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Md5([u8; 16]);

impl Md5 {
    /// The sum of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Md5Hasher::digest(bytes).into())
    }
}

impl FromStr for Md5 {
    type Err = ParseMd5Error;

    /// Small letters only: Portage compares the texts.
    fn from_str(text: &str) -> Result<Self, ParseMd5Error> {
        let bytes = text.as_bytes();
        if bytes.len() != 32 {
            return Err(ParseMd5Error);
        }
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            _ => Err(ParseMd5Error),
        };
        let mut sum = [0; 16];
        for (byte, pair) in sum.iter_mut().zip(bytes.chunks_exact(2)) {
            let [high, low] = pair else { return Err(ParseMd5Error) };
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Ok(Self(sum))
    }
}

impl fmt::Display for Md5 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Md5 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Md5({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_spelled_as_md5sum_spells_it() {
        let sum = Md5::of(b"");
        assert_eq!(sum.to_string(), "d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(sum.to_string().parse(), Ok(sum));
        for wrong in [
            "",
            "D41D8CD98F00B204E9800998ECF8427E",
            "d41d8cd98f00b204e9800998ecf8427",
            "g41d8cd98f00b204e9800998ecf8427e",
        ] {
            assert_eq!(wrong.parse::<Md5>(), Err(ParseMd5Error), "{wrong}");
        }
    }
}
