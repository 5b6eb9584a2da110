//! The records of the index, byte by byte: a version first, then fields of fixed order; numbers are little-endian.
//!
//! No derive writes these: what is on the disk changes only when somebody changes this file and raises a version. All records
//! but the stamps are at version 1; a later version adds an arm to `decode`, and old records are still read.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use thiserror::Error;
use tree::digest::{Digest, Sha512};

use crate::catalog_entry::CatalogUri;

/// Why bytes of the index are not the record they should be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeRecordError {
    /// The record ends before its last field.
    #[error("record ends early")]
    Short,
    /// Bytes are left after the last field.
    #[error("record has {0} bytes too many")]
    Trailing(usize),
    /// A later version of this program wrote the record.
    #[error("record version {0} is not known")]
    Version(u8),
    /// A field has a value that no version of this program writes.
    #[error("record has a wrong {0}")]
    Field(&'static str),
}

/// A blob that is held. Key: its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlobRecord {
    pub(crate) size: u64,
    pub(crate) added_secs: u64,
}

impl BlobRecord {
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut out = Encoder::version(1);
        out.number(self.size);
        out.number(self.added_secs);
        out.bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeRecordError> {
        let mut fields = Decoder::new(bytes);
        match fields.byte()? {
            1 => fields.end_with(|fields| Ok(Self { size: fields.number()?, added_secs: fields.number()? })),
            version => Err(DecodeRecordError::Version(version)),
        }
    }
}

/// A number: a count, or a moment as seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NumberRecord(pub(crate) u64);

impl NumberRecord {
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut out = Encoder::version(1);
        out.number(self.0);
        out.bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeRecordError> {
        let mut fields = Decoder::new(bytes);
        match fields.byte()? {
            1 => fields.end_with(|fields| fields.number().map(Self)),
            version => Err(DecodeRecordError::Version(version)),
        }
    }
}

/// A blob on its way between names, so that a crash half way is put right at the next open. Key: its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MoveRecord {
    /// Verified and synced, about to get its name under `blobs/`.
    Arriving(BlobRecord),
    /// Out of the index, about to lose its name.
    Leaving,
}

impl MoveRecord {
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut out = Encoder::version(1);
        match self {
            Self::Arriving(BlobRecord { size, added_secs }) => {
                out.byte(1);
                out.number(size);
                out.number(added_secs);
            }
            Self::Leaving => out.byte(2),
        }
        out.bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeRecordError> {
        let mut fields = Decoder::new(bytes);
        match fields.byte()? {
            1 => fields.end_with(|fields| match fields.byte()? {
                1 => Ok(Self::Arriving(BlobRecord { size: fields.number()?, added_secs: fields.number()? })),
                2 => Ok(Self::Leaving),
                _ => Err(DecodeRecordError::Field("direction")),
            }),
            version => Err(DecodeRecordError::Version(version)),
        }
    }
}

/// What is counted, changed in the same batch as what it counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Blobs held.
    pub(crate) blobs: u64,
    /// Bytes of all blobs held.
    pub(crate) bytes: u64,
    /// Digests with at least one pin.
    pub(crate) pinned: u64,
}

impl Counters {
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut out = Encoder::version(1);
        out.number(self.blobs);
        out.number(self.bytes);
        out.number(self.pinned);
        out.bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeRecordError> {
        let mut fields = Decoder::new(bytes);
        match fields.byte()? {
            1 => fields.end_with(|fields| {
                Ok(Self { blobs: fields.number()?, bytes: fields.number()?, pinned: fields.number()? })
            }),
            version => Err(DecodeRecordError::Version(version)),
        }
    }
}

/// What the rows of a package were made from. Key: repository, package.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct StampRecord {
    pub(crate) stamp: [u8; 16],
    /// Names of eclasses; version 1 had none.
    pub(crate) inherited: String,
}

impl StampRecord {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::version(2);
        out.bytes.extend_from_slice(&self.stamp);
        out.text(&self.inherited);
        out.bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeRecordError> {
        let mut fields = Decoder::new(bytes);
        match fields.byte()? {
            1 => fields.end_with(|fields| Ok(Self { stamp: fields.array()?, inherited: String::new() })),
            2 => fields.end_with(|fields| Ok(Self { stamp: fields.array()?, inherited: fields.text()? })),
            version => Err(DecodeRecordError::Version(version)),
        }
    }
}

/// What one DIST line of one package says, less what its key says. Key: repository, package, name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CatalogRecord {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) sha512: Option<Sha512>,
    pub(crate) permits: Permits,
    pub(crate) uris: Vec<CatalogUri>,
    pub(crate) ebuilds: Vec<String>,
}

/// What RESTRICT leaves allowed, as bits of one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Permits {
    pub(crate) mirror: bool,
    pub(crate) fetch: bool,
    pub(crate) announce: bool,
}

impl Permits {
    pub(crate) fn bits(self) -> u8 {
        u8::from(self.mirror) | u8::from(self.fetch) << 1 | u8::from(self.announce) << 2
    }

    pub(crate) fn from_bits(bits: u8) -> Result<Self, DecodeRecordError> {
        if bits > 0b111 {
            return Err(DecodeRecordError::Field("permit"));
        }
        Ok(Self { mirror: bits & 1 != 0, fetch: bits & 2 != 0, announce: bits & 4 != 0 })
    }
}

impl CatalogRecord {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::version(1);
        out.bytes.extend_from_slice(self.digest.as_bytes());
        out.number(self.size);
        out.byte(self.permits.bits());
        match &self.sha512 {
            None => out.byte(0),
            Some(sha512) => {
                out.byte(1);
                out.bytes.extend_from_slice(sha512.as_bytes());
            }
        }
        out.length(self.uris.len());
        for CatalogUri { uri, exempt } in &self.uris {
            out.byte(*exempt);
            out.text(uri);
        }
        out.length(self.ebuilds.len());
        for ebuild in &self.ebuilds {
            out.text(ebuild);
        }
        out.bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeRecordError> {
        let mut fields = Decoder::new(bytes);
        match fields.byte()? {
            1 => fields.end_with(Self::decode_1),
            version => Err(DecodeRecordError::Version(version)),
        }
    }

    fn decode_1(fields: &mut Decoder<'_>) -> Result<Self, DecodeRecordError> {
        let digest = Digest::from_bytes(fields.array()?);
        let size = fields.number()?;
        let permits = Permits::from_bits(fields.byte()?)?;
        let sha512 = match fields.byte()? {
            0 => None,
            1 => Some(Sha512::from_bytes(fields.array()?)),
            _ => return Err(DecodeRecordError::Field("mark of SHA-512")),
        };
        // No capacity is taken from the count: a wrong one ends at the first missing byte.
        let mut uris = Vec::new();
        for _ in 0..fields.length()? {
            uris.push(CatalogUri { exempt: fields.byte()?, uri: fields.text()? });
        }
        let mut ebuilds = Vec::new();
        for _ in 0..fields.length()? {
            ebuilds.push(fields.text()?);
        }
        Ok(Self { digest, size, sha512, permits, uris, ebuilds })
    }
}

struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    fn version(version: u8) -> Self {
        Self { bytes: vec![version] }
    }

    fn byte(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    fn number(&mut self, number: u64) {
        self.bytes.extend_from_slice(&number.to_le_bytes());
    }

    fn length(&mut self, length: usize) {
        // Callers bound their lists and texts far below this; a longer one would be cut by `catalog` before.
        self.bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.length(text.len());
        self.bytes.extend_from_slice(text.as_bytes());
    }
}

struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn end_with<T>(
        mut self,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeRecordError>,
    ) -> Result<T, DecodeRecordError> {
        let value = read(&mut self)?;
        if self.rest.is_empty() { Ok(value) } else { Err(DecodeRecordError::Trailing(self.rest.len())) }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeRecordError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(DecodeRecordError::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeRecordError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(DecodeRecordError::Short)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8, DecodeRecordError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn number(&mut self) -> Result<u64, DecodeRecordError> {
        self.array().map(u64::from_le_bytes)
    }

    fn length(&mut self) -> Result<u32, DecodeRecordError> {
        self.array().map(u32::from_le_bytes)
    }

    fn text(&mut self) -> Result<String, DecodeRecordError> {
        let length = usize::try_from(self.length()?).map_err(|_| DecodeRecordError::Short)?;
        let bytes = self.take(length)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| DecodeRecordError::Field("text"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn catalog_record() -> CatalogRecord {
        CatalogRecord {
            digest: Digest::of(b"abc"),
            size: 3,
            sha512: Some(Sha512::of(b"abc")),
            permits: Permits { mirror: true, fetch: false, announce: true },
            uris: vec![CatalogUri { uri: "https://example.org/é".to_owned(), exempt: 2 }],
            ebuilds: vec!["dev-libs/foo-1".to_owned(), String::new()],
        }
    }

    #[test]
    fn every_cut_of_a_record_is_short_and_every_longer_one_trails() {
        let whole = catalog_record().encode();
        assert_eq!(CatalogRecord::decode(&whole), Ok(catalog_record()));
        for end in 0..whole.len() {
            assert_eq!(CatalogRecord::decode(&whole[..end]), Err(DecodeRecordError::Short), "cut at {end}");
        }
        let longer = [whole.as_slice(), b"x"].concat();
        assert_eq!(CatalogRecord::decode(&longer), Err(DecodeRecordError::Trailing(1)));
    }

    #[test]
    fn a_later_version_is_named() {
        let mut bytes = BlobRecord { size: 1, added_secs: 2 }.encode();
        bytes[0] = 9;
        assert_eq!(BlobRecord::decode(&bytes), Err(DecodeRecordError::Version(9)));
    }

    #[test]
    fn the_bytes_on_the_disk_are_these() {
        let blob = BlobRecord { size: 0x0102, added_secs: 3 };
        assert_eq!(blob.encode(), [1, 2, 1, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(MoveRecord::Leaving.encode(), [1, 2]);
        assert_eq!(NumberRecord(5).encode(), [1, 5, 0, 0, 0, 0, 0, 0, 0]);
        let stamp = StampRecord { stamp: [7; 16], inherited: "go".to_owned() };
        assert_eq!(stamp.encode(), [&[2][..], &[7; 16], &[2, 0, 0, 0], b"go"].concat());
    }

    #[test]
    fn a_stamp_of_the_first_version_is_still_read() {
        let old = [&[1][..], &[7; 16]].concat();
        assert_eq!(StampRecord::decode(&old), Ok(StampRecord { stamp: [7; 16], inherited: String::new() }));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(size: u64, added_secs: u64, pinned: u64) {
            let blob = BlobRecord { size, added_secs };
            prop_assert_eq!(BlobRecord::decode(&blob.encode()), Ok(blob));
            prop_assert_eq!(MoveRecord::decode(&MoveRecord::Arriving(blob).encode()), Ok(MoveRecord::Arriving(blob)));
            let counters = Counters { blobs: size, bytes: added_secs, pinned };
            prop_assert_eq!(Counters::decode(&counters.encode()), Ok(counters));
        }

        #[test]
        fn whatever_is_decoded_encodes_to_the_same_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(record) = CatalogRecord::decode(&bytes) {
                prop_assert_eq!(record.encode(), bytes.clone());
            }
            if let Ok(record) = MoveRecord::decode(&bytes) {
                prop_assert_eq!(record.encode(), bytes.clone());
            }
            if let Ok(record) = StampRecord::decode(&bytes)
                && bytes.first() == Some(&2)
            {
                prop_assert_eq!(record.encode(), bytes);
            }
        }
    }
}
