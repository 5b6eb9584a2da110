//! The messages of `/peerage/claims/1`: a fingerprint, and what is claimed of its recipe's outcome.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use super::{DecodeError, Message, Raw, VERSION, from_cbor, to_cbor};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use tree::digest::Digest;

/// Claims in one answer: so many builders of one recipe are enough to see who differs.
pub const CLAIMS_MAX: usize = 16;
/// Bytes of one claim: keys, digests, a version and a signature take a tenth of it.
pub const CLAIM_BYTES_MAX: usize = 4096;

/// Asks what is known of a recipe's outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimsRequest {
    /// Which recipe.
    pub fingerprint: Digest,
}

/// Answers a [`ClaimsRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimsAnswer {
    /// The claims on it: at most [`CLAIMS_MAX`], of at most [`CLAIM_BYTES_MAX`] bytes each, and none when none are known. What they
    /// say, and whether it is signed, is not looked at here.
    Claims(Vec<Vec<u8>>),
    /// Too many streams are open, or too many are answered.
    Busy,
    /// This peer is not served here.
    Refused,
}

/// CBOR byte strings. Of a list that is too long only the first are kept, and all are counted.
struct RawList<'a> {
    first: Vec<&'a [u8]>,
    count: usize,
}

impl Serialize for RawList<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.first.iter().map(|bytes| Raw(bytes)))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for RawList<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrowed;
        impl<'de> de::Visitor<'de> for Borrowed {
            type Value = RawList<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of byte strings")
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
                let mut list = RawList { first: Vec::new(), count: 0 };
                while let Some(Raw(bytes)) = entries.next_element()? {
                    list.count = list.count.saturating_add(1);
                    if list.count <= CLAIMS_MAX {
                        list.first.push(bytes);
                    }
                }
                Ok(list)
            }
        }
        deserializer.deserialize_seq(Borrowed)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FingerprintForm<'a> {
    v: u8,
    #[serde(borrow)]
    d: Raw<'a>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClaimsForm<'a> {
    v: u8,
    s: u8,
    #[serde(borrow)]
    c: RawList<'a>,
}

impl Message for ClaimsRequest {
    const LENGTH_MAX: usize = 128;

    fn encode(&self) -> Vec<u8> {
        to_cbor(&FingerprintForm { v: VERSION, d: Raw(self.fingerprint.as_bytes()) })
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let form: FingerprintForm<'_> = from_cbor(bytes, |form: &FingerprintForm<'_>| form.v)?;
        let digest = form.d.0.try_into().map_err(|_| DecodeError::KeyLength { length: form.d.0.len() })?;
        Ok(Self { fingerprint: Digest::from_bytes(digest) })
    }
}

impl Message for ClaimsAnswer {
    const LENGTH_MAX: usize = CLAIMS_MAX * (CLAIM_BYTES_MAX + 3) + 64;

    fn encode(&self) -> Vec<u8> {
        let (s, claims) = match self {
            Self::Claims(claims) => (0, claims.as_slice()),
            Self::Busy => (2, [].as_slice()),
            Self::Refused => (4, [].as_slice()),
        };
        let first = claims.iter().map(Vec::as_slice).collect();
        to_cbor(&ClaimsForm { v: VERSION, s, c: RawList { first, count: claims.len() } })
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let form: ClaimsForm<'_> = from_cbor(bytes, |form: &ClaimsForm<'_>| form.v)?;
        if form.c.count > CLAIMS_MAX {
            return Err(DecodeError::TooMany { count: form.c.count, max: CLAIMS_MAX });
        }
        if let Some(long) = form.c.first.iter().find(|claim| claim.len() > CLAIM_BYTES_MAX) {
            return Err(DecodeError::EntryLength { length: long.len(), max: CLAIM_BYTES_MAX });
        }
        match (form.s, form.c.count) {
            (0, _) => Ok(Self::Claims(form.c.first.iter().map(|claim| claim.to_vec()).collect())),
            (2, 0) => Ok(Self::Busy),
            (4, 0) => Ok(Self::Refused),
            (status, _) => Err(DecodeError::Status { status }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::wire::exercise;
    use proptest::prelude::{any, prop, proptest};

    proptest! {
        #[test]
        fn claims_come_back_in_their_order(
            content in any::<[u8; 8]>(),
            claims in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..=CLAIMS_MAX),
        ) {
            let request = ClaimsRequest { fingerprint: Digest::of(&content) };
            assert_eq!(ClaimsRequest::decode(&request.encode()).unwrap(), request);
            for answer in [ClaimsAnswer::Claims(claims), ClaimsAnswer::Busy, ClaimsAnswer::Refused] {
                assert_eq!(ClaimsAnswer::decode(&answer.encode()).unwrap(), answer);
            }
        }

        #[test]
        fn claims_with_one_byte_changed_do_no_harm(at in 0_usize..80, to: u8) {
            for mut bytes in [
                ClaimsRequest { fingerprint: Digest::of(b"x") }.encode(),
                ClaimsAnswer::Claims(vec![vec![1, 2, 3], Vec::new(), vec![4; 40]]).encode(),
            ] {
                let at = at % bytes.len();
                bytes[at] = to;
                exercise(&bytes);
            }
        }
    }

    #[test]
    fn the_fullest_answer_fits_its_frame() {
        let claims = ClaimsAnswer::Claims(vec![vec![0xff; CLAIM_BYTES_MAX]; CLAIMS_MAX]);
        let bytes = claims.encode();
        assert!(bytes.len() <= ClaimsAnswer::LENGTH_MAX);
        assert_eq!(ClaimsAnswer::decode(&bytes).unwrap(), claims);
    }

    #[test]
    fn too_many_and_too_long_claims_and_claims_beside_a_refusal_are_named() {
        let many = ClaimsAnswer::Claims(vec![Vec::new(); 40_000]).encode();
        assert!(many.len() < ClaimsAnswer::LENGTH_MAX, "it comes through the frame");
        assert!(matches!(ClaimsAnswer::decode(&many), Err(DecodeError::TooMany { count: 40_000, max: 16 })));
        let long = ClaimsAnswer::Claims(vec![vec![0; 10], vec![0; 4097]]).encode();
        assert!(matches!(ClaimsAnswer::decode(&long), Err(DecodeError::EntryLength { length: 4097, max: 4096 })));
        for status in [1, 2, 4] {
            let list = RawList { first: vec![b"x"], count: 1 };
            let both = to_cbor(&ClaimsForm { v: 1, s: status, c: list });
            assert!(matches!(ClaimsAnswer::decode(&both), Err(DecodeError::Status { .. })), "{status}");
        }
        let short = to_cbor(&FingerprintForm { v: 1, d: Raw(&[0; 63]) });
        assert!(matches!(ClaimsRequest::decode(&short), Err(DecodeError::KeyLength { length: 63 })));
    }

    #[test]
    fn the_bytes_of_claims_are_those_that_are_written_down() {
        let none = ClaimsAnswer::Claims(Vec::new()).encode();
        assert_eq!(none, b"\xa3\x61c\x80\x61s\x00\x61v\x01");
        let one = ClaimsAnswer::Claims(vec![b"xy".to_vec()]).encode();
        assert_eq!(one, b"\xa3\x61c\x81\x42xy\x61s\x00\x61v\x01");
        let question = ClaimsRequest { fingerprint: Digest::of(b"recipe") }.encode();
        assert_eq!(question[..5], *b"\xa2\x61d\x58\x40");
        assert_eq!(
            (&question[5..69], &question[69..]),
            (Digest::of(b"recipe").as_bytes().as_slice(), &b"\x61v\x01"[..])
        );
    }
}
