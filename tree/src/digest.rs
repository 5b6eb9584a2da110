//! Digests: BLAKE2B-512, by which everything is called, SHA-512 beside it, and one pass that makes both.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use std::fmt;
use std::str::FromStr;

use sha2::Digest as _;
use thiserror::Error;

/// Bytes of a digest; both sums of a Manifest have 512 bits.
pub const DIGEST_BYTES: usize = 64;

/// Why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParseDigestError {
    /// The text does not have 128 characters.
    #[error("a digest has 128 hexadecimal digits, not {found}")]
    Length {
        /// Bytes of the text.
        found: usize,
    },
    /// A character is not a hexadecimal digit.
    #[error("expected a hexadecimal digit at place {place} of a digest")]
    NotHex {
        /// Place of the first wrong character, from 0.
        place: usize,
    },
}

fn parse_hex(text: &str) -> Result<[u8; DIGEST_BYTES], ParseDigestError> {
    let text = text.as_bytes();
    if text.len() != DIGEST_BYTES * 2 {
        return Err(ParseDigestError::Length { found: text.len() });
    }
    let value = |place: usize, digit: u8| match digit {
        b'0'..=b'9' => Ok(digit & 15),
        // The letters begin at 1 in the lower four bits.
        b'a'..=b'f' | b'A'..=b'F' => Ok((digit & 15).saturating_add(9)),
        _ => Err(ParseDigestError::NotHex { place }),
    };
    let mut bytes = [0; DIGEST_BYTES];
    let (pairs, _) = text.as_chunks::<2>();
    for (place, (byte, [high, low])) in bytes.iter_mut().zip(pairs).enumerate() {
        let place = place.saturating_mul(2);
        *byte = value(place, *high)? << 4 | value(place.saturating_add(1), *low)?;
    }
    Ok(bytes)
}

macro_rules! digest_type {
    ($(#[$doc:meta])* $name:ident, $label:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; DIGEST_BYTES]);

        impl $name {
            /// The digest with exactly these bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; DIGEST_BYTES]) -> Self {
                Self(bytes)
            }

            /// The 64 bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; DIGEST_BYTES] {
                &self.0
            }

            /// The first 10 hexadecimal digits, for logs and people.
            #[must_use]
            pub fn short(&self) -> String {
                self.0.iter().take(5).map(|byte| format!("{byte:02x}")).collect()
            }
        }

        impl FromStr for $name {
            type Err = ParseDigestError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                parse_hex(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                // Written for every answer of the mirror: one call instead of one a byte.
                let mut text = [0; 2 * DIGEST_BYTES];
                for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
                    pair.copy_from_slice(&[hex_digit(byte >> 4), hex_digit(byte & 15)]);
                }
                out.write_str(str::from_utf8(&text).unwrap_or_default())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, concat!($label, "({})"), self.short())
            }
        }
    };
}

/// The lower-case digit of a number below 16.
fn hex_digit(number: u8) -> u8 {
    b"0123456789abcdef".get(usize::from(number)).copied().unwrap_or(b'?')
}

digest_type! {
    /// BLAKE2B-512 of some content: its name in the store and on the network. 128 hexadecimal digits (GLEP 74).
    Digest, "Digest"
}

digest_type! {
    /// SHA-512 of some content, the second sum of a Manifest. 128 hexadecimal digits (GLEP 74).
    Sha512, "Sha512"
}

impl Digest {
    /// The digest of bytes at hand.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake2b_simd::blake2b(bytes).as_array())
    }
}

impl Sha512 {
    /// The digest of bytes at hand.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha512::digest(bytes).into())
    }
}

/// Makes both sums in one pass over the content.
#[derive(Debug, Clone)]
pub struct Hasher {
    blake2b: blake2b_simd::State,
    sha512: Option<sha2::Sha512>,
}

impl Hasher {
    /// A hasher that has seen nothing; SHA-512 costs more than BLAKE2B and is made only when asked for.
    #[must_use]
    pub fn new(with_sha512: bool) -> Self {
        Self { blake2b: blake2b_simd::State::new(), sha512: with_sha512.then(sha2::Sha512::new) }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.blake2b.update(bytes);
        if let Some(sha512) = &mut self.sha512 {
            sha512.update(bytes);
        }
    }

    /// The sums of everything taken.
    #[must_use]
    pub fn finish(self) -> (Digest, Option<Sha512>) {
        (Digest(*self.blake2b.finalize().as_array()), self.sha512.map(|sha512| Sha512(sha512.finalize().into())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d1\
                       7d87c5392aab792dc252d5de4533cc9518d38aa8dbf1925ab92386edd4009923";
    const ABC_SHA512: &str = "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                              2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";

    #[test]
    fn the_vectors_of_rfc_7693_and_fips_180() {
        assert_eq!(Digest::of(b"abc").to_string(), ABC);
        assert_eq!(Sha512::of(b"abc").to_string(), ABC_SHA512);
    }

    #[test]
    fn one_pass_in_pieces_makes_the_same_sums() {
        let mut hasher = Hasher::new(true);
        hasher.update(b"a");
        hasher.update(b"");
        hasher.update(b"bc");
        assert_eq!(hasher.finish(), (Digest::of(b"abc"), Some(Sha512::of(b"abc"))));
        assert_eq!(Hasher::new(false).finish(), (Digest::of(b""), None));
    }

    #[test]
    fn upper_case_is_read_and_lower_case_printed() {
        let digest: Digest = ABC.to_uppercase().parse().unwrap();
        assert_eq!(digest.to_string(), ABC);
        assert_eq!(digest.short(), "ba80a53f98");
        assert_eq!(format!("{digest:?}"), "Digest(ba80a53f98)");
    }

    #[test]
    fn a_short_text_says_how_short() {
        assert_eq!("ab".parse::<Digest>(), Err(ParseDigestError::Length { found: 2 }));
        assert_eq!("".parse::<Digest>(), Err(ParseDigestError::Length { found: 0 }));
        assert_eq!(format!("{ABC}0").parse::<Sha512>(), Err(ParseDigestError::Length { found: 129 }));
    }

    #[test]
    fn a_wrong_digit_says_where() {
        let text = format!("{}g", &ABC[..127]);
        assert_eq!(text.parse::<Digest>(), Err(ParseDigestError::NotHex { place: 127 }));
        assert_eq!(format!("+{}", &ABC[..127]).parse::<Digest>(), Err(ParseDigestError::NotHex { place: 0 }));
        let two_byte_letters = "é".repeat(64);
        assert_eq!(two_byte_letters.parse::<Digest>(), Err(ParseDigestError::NotHex { place: 0 }));
    }
}
