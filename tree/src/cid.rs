//! A digest spelled as CIDv1 and as multihash, and back.

use cid::Cid;
use multihash::Multihash;
use thiserror::Error;

use crate::digest::{DIGEST_BYTES, Digest};

/// The multicodec code of blake2b-512.
pub const BLAKE2B_512: u64 = 0xb240;
/// The multicodec code of raw bytes.
pub const RAW: u64 = 0x55;
/// A CIDv1 of ours has 70 bytes, in base 36 or base 32 at most 118 letters; other bases are not much longer.
const CID_TEXT_MAX: usize = 256;

/// Why a text or some bytes do not name a BLAKE2B-512 digest.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParseCidError {
    /// Not a CID at all.
    #[error("{text:?} is not a CID")]
    NotACid {
        /// The text, shortened.
        text: String,
    },
    /// Not a multihash at all.
    #[error("not a multihash")]
    NotAMultihash,
    /// The content is not raw bytes but, for instance, a DAG node.
    #[error("a CID of raw bytes (codec 0x55) was expected, this one has codec {codec:#x}")]
    Codec {
        /// The multicodec code that was found.
        codec: u64,
    },
    /// Another hash function.
    #[error("a blake2b-512 digest (0xb240) was expected, this is {code:#x}")]
    HashFunction {
        /// The multicodec code that was found.
        code: u64,
    },
    /// Not 64 bytes.
    #[error("a blake2b-512 digest has 64 bytes, this one {found}")]
    Length {
        /// Bytes that were found.
        found: usize,
    },
}

fn multihash(digest: &Digest) -> Multihash<64> {
    Multihash::wrap(BLAKE2B_512, digest.as_bytes()).expect("64 bytes fit a multihash of 64 bytes")
}

fn digest_of(multihash: &Multihash<64>) -> Result<Digest, ParseCidError> {
    if multihash.code() != BLAKE2B_512 {
        return Err(ParseCidError::HashFunction { code: multihash.code() });
    }
    let bytes: [u8; DIGEST_BYTES] =
        multihash.digest().try_into().map_err(|_| ParseCidError::Length { found: multihash.digest().len() })?;
    Ok(Digest::from_bytes(bytes))
}

/// The CIDv1 of raw bytes with this digest.
#[must_use]
pub fn to_cid(digest: &Digest) -> Cid {
    Cid::new_v1(RAW, multihash(digest))
}

/// The digest that a CID names.
///
/// # Errors
/// When the text is no CID, or one of something else than raw bytes under BLAKE2B-512.
pub fn from_cid(text: &str) -> Result<Digest, ParseCidError> {
    let not_a_cid = || ParseCidError::NotACid { text: text.chars().take(80).collect() };
    if text.len() > CID_TEXT_MAX {
        return Err(not_a_cid());
    }
    let cid = Cid::try_from(text).map_err(|_| not_a_cid())?;
    if cid.codec() != RAW {
        return Err(ParseCidError::Codec { codec: cid.codec() });
    }
    digest_of(cid.hash())
}

/// The digest as a multihash in bytes: how other content-addressed programs spell it.
#[must_use]
pub fn multihash_bytes(digest: &Digest) -> Vec<u8> {
    multihash(digest).to_bytes()
}

/// The digest that a multihash in bytes names.
///
/// # Errors
/// When the bytes are no multihash, or one of another function than BLAKE2B-512.
pub fn from_multihash(bytes: &[u8]) -> Result<Digest, ParseCidError> {
    digest_of(&Multihash::from_bytes(bytes).map_err(|_| ParseCidError::NotAMultihash)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_survives_both_spellings() {
        let digest = Digest::of(b"hello");
        let text = to_cid(&digest).to_string();
        assert!(text.starts_with("bafk"), "{text}");
        assert_eq!(from_cid(&text), Ok(digest));
        assert_eq!(from_multihash(&multihash_bytes(&digest)), Ok(digest));
    }

    #[test]
    fn the_multihash_begins_with_the_code_and_the_length() {
        // 0xb240 as unsigned varint, then 64.
        assert_eq!(multihash_bytes(&Digest::of(b""))[..4], [0xc0, 0xe4, 0x02, 64]);
    }

    #[test]
    fn other_functions_codecs_and_lengths_are_refused() {
        let sha256 = "bafkreifzjut3te7nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e";
        assert_eq!(from_cid(sha256), Err(ParseCidError::HashFunction { code: 0x12 }));
        let dag = Cid::new_v1(0x71, multihash(&Digest::of(b""))).to_string();
        assert_eq!(from_cid(&dag), Err(ParseCidError::Codec { codec: 0x71 }));
        let short = Multihash::<64>::wrap(BLAKE2B_512, &[0; 32]).unwrap();
        assert_eq!(from_multihash(&short.to_bytes()), Err(ParseCidError::Length { found: 32 }));
        assert!(matches!(from_cid("QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG"), Err(ParseCidError::Codec { .. })));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "b", "hello", "\u{0}", "bafkö"] {
            assert!(matches!(from_cid(text), Err(ParseCidError::NotACid { .. })), "{text:?}");
        }
        assert!(from_cid(&"b".repeat(100_000)).is_err());
        assert_eq!(from_multihash(&[]), Err(ParseCidError::NotAMultihash));
        let mut long = multihash_bytes(&Digest::of(b""));
        long.push(0);
        assert_eq!(from_multihash(&long), Err(ParseCidError::NotAMultihash));
    }
}
