//! What peers say to each other, byte for byte: DAG-CBOR messages in frames with a length in front.
//!
//! A frame is a big-endian `u32` length and so many bytes of DAG-CBOR (a map with the version in `v`). The length is
//! checked against the message's own maximum before anything is allocated. A later version gets a new protocol name,
//! so unknown fields are refused here.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

mod claims;
mod group;

pub use claims::{CLAIM_BYTES_MAX, CLAIMS_MAX, ClaimsAnswer, ClaimsRequest};
pub use group::{ANSWER_BYTES_MAX, GroupAnswer, GroupRequest, QUESTION_BYTES_MAX, Topic};

use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::io;
use std::time::Duration;
use tree::digest::Digest;
use tree::size::{SIZE_MAX, believed};

/// The version of every message below.
pub const VERSION: u8 = 1;
/// Bytes of a digest that name it in the DHT.
pub const KEY_BYTES: usize = 32;
/// Prefixes in one frame of holdings.
pub const HAVE_PREFIXES_MAX: usize = 65_536;
/// Keys in one advert.
pub const ADVERT_KEYS_MAX: usize = 8192;
/// A frame that has begun must end in this time, so that half-sent ones do not pile up.
const FRAME_TIME_MAX: Duration = Duration::from_secs(30);

/// A frame is read in parts of so many bytes.
const FRAME_PART_BYTES: usize = 16 * 1024;

/// Where a digest lives in the DHT: its first 32 bytes. Who finds a provider still checks the whole digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub [u8; KEY_BYTES]);

impl Key {
    /// The 32 bits by which holdings are told to connected peers.
    #[must_use]
    pub fn prefix(&self) -> u32 {
        let [a, b, c, d, ..] = self.0;
        u32::from_be_bytes([a, b, c, d])
    }
}

impl From<&Digest> for Key {
    fn from(digest: &Digest) -> Self {
        let (key, _) = digest.as_bytes().split_first_chunk().expect("a digest is longer than a key");
        Self(*key)
    }
}

impl TryFrom<&[u8]> for Key {
    type Error = DecodeError;

    fn try_from(bytes: &[u8]) -> Result<Self, DecodeError> {
        bytes.try_into().map(Self).map_err(|_| DecodeError::KeyLength { length: bytes.len() })
    }
}

/// A message of one of our protocols.
pub trait Message: Sized {
    /// The longest encoding; longer frames are refused before they are read.
    const LENGTH_MAX: usize;

    /// The DAG-CBOR form.
    fn encode(&self) -> Vec<u8>;

    /// # Errors
    /// When the bytes are not exactly one such message of this version.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError>;
}

/// Asks for a part of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobRequest {
    /// Which blob.
    pub digest: Digest,
    /// The first byte wanted.
    pub offset: u64,
    /// How many bytes at most; `u64::MAX` is "to the end".
    pub length: u64,
}

/// Answers a [`BlobRequest`]. After [`BlobAnswer::Body`], `min(length, size - offset)` raw bytes follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlobAnswer {
    /// The bytes follow.
    Body {
        /// The size of the whole blob in bytes.
        size: u64,
    },
    /// Not held here (any more).
    NotHeld,
    /// Held, but too many streams are open.
    Busy,
    /// The offset lies beyond the end.
    OutOfRange {
        /// The size of the whole blob in bytes.
        size: u64,
    },
    /// This peer is not served here.
    Refused,
}

/// What the sender holds, as sorted 32-bit prefixes of digests without repetition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Have {
    /// A part of the whole list; `first` empties what was told before.
    Snapshot {
        /// Whether a new list begins.
        first: bool,
        /// Prefixes held.
        prefixes: Vec<u32>,
    },
    /// A change.
    Delta {
        /// Prefixes held from now on.
        added: Vec<u32>,
        /// Prefixes no longer held.
        removed: Vec<u32>,
    },
}

impl Have {
    /// How many prefixes it names.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Snapshot { prefixes, .. } => prefixes.len(),
            Self::Delta { added, removed } => added.len().saturating_add(removed.len()),
        }
    }

    /// Whether it names none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Asks the receiver to keep, or to drop, provider records that name the sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advert {
    /// Whether the records are to be dropped.
    pub withdraw: bool,
    /// The keys, at most [`ADVERT_KEYS_MAX`].
    pub keys: Vec<Key>,
}

/// Answers an [`Advert`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdvertAnswer {
    /// How many of the keys were taken.
    pub accepted: u32,
}

/// Why bytes are not a message.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not DAG-CBOR, or not of this shape.
    #[error("not a message of ours: {reason}")]
    Shape {
        /// What the decoder said.
        reason: String,
    },
    /// Another version.
    #[error("version {version} of a message, expected {VERSION}")]
    Version {
        /// The version found.
        version: u8,
    },
    /// An answer with a status no one defined, or without its size.
    #[error("status {status} is not an answer")]
    Status {
        /// The status found.
        status: u8,
    },
    /// A blob that is larger than any.
    #[error("a blob of {size} bytes, expected at most {SIZE_MAX}")]
    Size {
        /// The size found.
        size: u64,
    },
    /// A digest or key of another length.
    #[error("a key of {length} bytes")]
    KeyLength {
        /// The length found.
        length: usize,
    },
    /// More entries than one message may have.
    #[error("{count} entries in one message, expected at most {max}")]
    TooMany {
        /// How many there were.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// An entry is longer than it may be.
    #[error("an entry of {length} bytes, expected at most {max}")]
    EntryLength {
        /// The length found.
        length: usize,
        /// The longest lawful one.
        max: usize,
    },
    /// Prefixes out of order or repeated.
    #[error("prefixes are not in strictly rising order")]
    Unsorted,
}

/// Why no message came or went.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The stream broke or ended.
    #[error("the stream broke: {0}")]
    Stream(#[source] io::Error),
    /// The other end announced more than the message may have.
    #[error("a frame of {length} bytes, expected at most {max}")]
    TooLong {
        /// The length announced.
        length: usize,
        /// The longest lawful one.
        max: usize,
    },
    /// The frame holds something else.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// Reads one message, waiting for its beginning as long as the caller likes. Cancel safe: no (a part of a frame may be lost: drop the stream then).
///
/// # Errors
/// When the stream breaks, or what came is not such a message.
pub(super) async fn read_frame<M: Message>(stream: &mut (impl AsyncRead + Unpin)) -> Result<M, FrameError> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await.map_err(FrameError::Stream)?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > M::LENGTH_MAX {
        return Err(FrameError::TooLong { length, max: M::LENGTH_MAX });
    }
    let read = tokio::time::timeout(FRAME_TIME_MAX, read_body(stream, length)).await;
    let bytes = read.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(FrameError::Stream)?;
    Ok(M::decode(&bytes)?)
}

/// The bytes of a frame. Memory is taken as they come, not as they are promised.
async fn read_body(stream: &mut (impl AsyncRead + Unpin), length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while bytes.len() < length {
        let come = bytes.len();
        bytes.resize(length.min(come.saturating_add(FRAME_PART_BYTES)), 0);
        let room = bytes.get_mut(come..).unwrap_or_default();
        stream.read_exact(room).await?;
    }
    Ok(bytes)
}

/// Writes one message and flushes. Cancel safe: no.
///
/// # Errors
/// When the stream breaks.
pub(super) async fn write_frame(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &impl Message,
) -> Result<(), io::Error> {
    let body = message.encode();
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    let mut frame = Vec::with_capacity(body.len().saturating_add(4));
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&body);
    stream.write_all(&frame).await?;
    stream.flush().await
}

/// A CBOR byte string.
struct Raw<'a>(&'a [u8]);

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Raw<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrowed;
        impl<'de> de::Visitor<'de> for Borrowed {
            type Value = Raw<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a byte string")
            }

            fn visit_borrowed_bytes<E: de::Error>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
                Ok(Raw(bytes))
            }
        }
        deserializer.deserialize_bytes(Borrowed)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestForm<'a> {
    v: u8,
    #[serde(borrow)]
    d: Raw<'a>,
    o: u64,
    l: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AnswerForm {
    v: u8,
    s: u8,
    z: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HaveForm<'a> {
    v: u8,
    s: u8,
    #[serde(borrow)]
    a: Raw<'a>,
    #[serde(borrow)]
    r: Raw<'a>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AdvertForm<'a> {
    v: u8,
    w: bool,
    #[serde(borrow)]
    k: Raw<'a>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CountForm {
    v: u8,
    n: u32,
}

fn to_cbor(form: &impl Serialize) -> Vec<u8> {
    serde_ipld_dagcbor::to_vec(form).expect("numbers and byte strings always have a DAG-CBOR form")
}

fn from_cbor<'a, F: Deserialize<'a>>(bytes: &'a [u8], version: impl Fn(&F) -> u8) -> Result<F, DecodeError> {
    let form: F =
        serde_ipld_dagcbor::from_slice(bytes).map_err(|error| DecodeError::Shape { reason: error.to_string() })?;
    match version(&form) {
        VERSION => Ok(form),
        version => Err(DecodeError::Version { version }),
    }
}

impl Message for BlobRequest {
    const LENGTH_MAX: usize = 128;

    fn encode(&self) -> Vec<u8> {
        to_cbor(&RequestForm { v: VERSION, d: Raw(self.digest.as_bytes()), o: self.offset, l: self.length })
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let form: RequestForm<'_> = from_cbor(bytes, |form: &RequestForm<'_>| form.v)?;
        let digest = form.d.0.try_into().map_err(|_| DecodeError::KeyLength { length: form.d.0.len() })?;
        Ok(Self { digest: Digest::from_bytes(digest), offset: form.o, length: form.l })
    }
}

impl Message for BlobAnswer {
    const LENGTH_MAX: usize = 64;

    fn encode(&self) -> Vec<u8> {
        let (s, z) = match *self {
            Self::Body { size } => (0, size),
            Self::NotHeld => (1, 0),
            Self::Busy => (2, 0),
            Self::OutOfRange { size } => (3, size),
            Self::Refused => (4, 0),
        };
        to_cbor(&AnswerForm { v: VERSION, s, z })
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let form: AnswerForm = from_cbor(bytes, |form: &AnswerForm| form.v)?;
        believed(form.z).ok_or(DecodeError::Size { size: form.z })?;
        match (form.s, form.z) {
            (0, size) => Ok(Self::Body { size }),
            (1, 0) => Ok(Self::NotHeld),
            (2, 0) => Ok(Self::Busy),
            (3, size) => Ok(Self::OutOfRange { size }),
            (4, 0) => Ok(Self::Refused),
            (status, _) => Err(DecodeError::Status { status }),
        }
    }
}

fn pack(prefixes: &[u32]) -> Vec<u8> {
    prefixes.iter().flat_map(|prefix| prefix.to_be_bytes()).collect()
}

fn unpack(bytes: &[u8]) -> Result<Vec<u32>, DecodeError> {
    let (quads, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(DecodeError::KeyLength { length: rest.len() });
    }
    if quads.len() > HAVE_PREFIXES_MAX {
        return Err(DecodeError::TooMany { count: quads.len(), max: HAVE_PREFIXES_MAX });
    }
    let prefixes: Vec<u32> = quads.iter().map(|quad| u32::from_be_bytes(*quad)).collect();
    if prefixes.is_sorted_by(|a, b| a < b) { Ok(prefixes) } else { Err(DecodeError::Unsorted) }
}

impl Message for Have {
    const LENGTH_MAX: usize = HAVE_PREFIXES_MAX * 4 + 64;

    fn encode(&self) -> Vec<u8> {
        let (s, a, r) = match self {
            Self::Delta { added, removed } => (0, pack(added), pack(removed)),
            Self::Snapshot { first: true, prefixes } => (1, pack(prefixes), Vec::new()),
            Self::Snapshot { first: false, prefixes } => (2, pack(prefixes), Vec::new()),
        };
        to_cbor(&HaveForm { v: VERSION, s, a: Raw(&a), r: Raw(&r) })
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let form: HaveForm<'_> = from_cbor(bytes, |form: &HaveForm<'_>| form.v)?;
        let (added, removed) = (unpack(form.a.0)?, unpack(form.r.0)?);
        match form.s {
            0 => Ok(Self::Delta { added, removed }),
            status @ (1 | 2) if removed.is_empty() => Ok(Self::Snapshot { first: status == 1, prefixes: added }),
            status => Err(DecodeError::Status { status }),
        }
    }
}

impl Message for Advert {
    const LENGTH_MAX: usize = ADVERT_KEYS_MAX * KEY_BYTES + 64;

    fn encode(&self) -> Vec<u8> {
        let keys: Vec<u8> = self.keys.iter().flat_map(|key| key.0).collect();
        to_cbor(&AdvertForm { v: VERSION, w: self.withdraw, k: Raw(&keys) })
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let form: AdvertForm<'_> = from_cbor(bytes, |form: &AdvertForm<'_>| form.v)?;
        let (keys, rest) = form.k.0.as_chunks::<KEY_BYTES>();
        if !rest.is_empty() {
            return Err(DecodeError::KeyLength { length: rest.len() });
        }
        if keys.len() > ADVERT_KEYS_MAX {
            return Err(DecodeError::TooMany { count: keys.len(), max: ADVERT_KEYS_MAX });
        }
        Ok(Self { withdraw: form.w, keys: keys.iter().map(|key| Key(*key)).collect() })
    }
}

impl Message for AdvertAnswer {
    const LENGTH_MAX: usize = 32;

    fn encode(&self) -> Vec<u8> {
        to_cbor(&CountForm { v: VERSION, n: self.accepted })
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let form: CountForm = from_cbor(bytes, |form: &CountForm| form.v)?;
        Ok(Self { accepted: form.n })
    }
}

/// Every parser of this room over the same bytes, for fuzzing: nothing may panic, and what parses is written back to
/// something that parses to the same.
///
/// # Panics
/// When a message that parsed does not survive being written and read again: that is the bug to find.
pub fn exercise(bytes: &[u8]) {
    fn check<M: Message + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
        if let Ok(message) = M::decode(bytes) {
            let again = message.encode();
            assert!(again.len() <= M::LENGTH_MAX, "a message longer than its own maximum");
            assert_eq!(M::decode(&again).expect("our own encoding parses"), message);
        }
    }
    check::<BlobRequest>(bytes);
    check::<BlobAnswer>(bytes);
    check::<Have>(bytes);
    check::<Advert>(bytes);
    check::<AdvertAnswer>(bytes);
    check::<ClaimsRequest>(bytes);
    check::<ClaimsAnswer>(bytes);
    check::<GroupRequest>(bytes);
    check::<GroupAnswer>(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Strategy, any, prop, prop_oneof, proptest};

    fn prefixes() -> impl Strategy<Value = Vec<u32>> {
        prop::collection::btree_set(any::<u32>(), 0..200).prop_map(|set| set.into_iter().collect())
    }

    fn answers() -> impl Strategy<Value = BlobAnswer> {
        prop_oneof![
            (0..=SIZE_MAX).prop_map(|size| BlobAnswer::Body { size }),
            (0..=SIZE_MAX).prop_map(|size| BlobAnswer::OutOfRange { size }),
            prop_oneof![
                proptest::strategy::Just(BlobAnswer::NotHeld),
                proptest::strategy::Just(BlobAnswer::Busy),
                proptest::strategy::Just(BlobAnswer::Refused),
            ],
        ]
    }

    #[test]
    fn a_size_that_no_blob_has_is_no_answer() {
        for size in [0, 1 << 31, 1 << 32, SIZE_MAX, SIZE_MAX + 1, 1 << 63, u64::MAX] {
            for answer in [BlobAnswer::Body { size }, BlobAnswer::OutOfRange { size }] {
                assert_eq!(BlobAnswer::decode(&answer.encode()).is_ok(), size <= SIZE_MAX, "{size}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_request_comes_back(content in any::<[u8; 8]>(), offset: u64, length: u64) {
            let request = BlobRequest { digest: Digest::of(&content), offset, length };
            let bytes = request.encode();
            assert!(bytes.len() <= BlobRequest::LENGTH_MAX);
            assert_eq!(BlobRequest::decode(&bytes).unwrap(), request);
        }

        #[test]
        fn an_answer_comes_back(answer in answers()) {
            assert_eq!(BlobAnswer::decode(&answer.encode()).unwrap(), answer);
        }

        #[test]
        fn holdings_come_back(first: bool, a in prefixes(), b in prefixes()) {
            for have in [Have::Snapshot { first, prefixes: a.clone() }, Have::Delta { added: a, removed: b }] {
                assert_eq!(Have::decode(&have.encode()).unwrap(), have);
            }
        }

        #[test]
        fn an_advert_comes_back(withdraw: bool, keys in prop::collection::vec(any::<[u8; 32]>(), 0..100), n: u32) {
            let advert = Advert { withdraw, keys: keys.into_iter().map(Key).collect() };
            assert_eq!(Advert::decode(&advert.encode()).unwrap(), advert);
            assert_eq!(AdvertAnswer::decode(&AdvertAnswer { accepted: n }.encode()).unwrap().accepted, n);
        }

        #[test]
        fn garbage_is_an_error_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            exercise(&bytes);
        }

        #[test]
        fn a_message_with_one_byte_changed_does_no_harm(at in 0_usize..60, to: u8, a in prefixes(), b in prefixes()) {
            for mut bytes in [
                Have::Delta { added: a.clone(), removed: b.clone() }.encode(),
                BlobAnswer::Body { size: 1 << 40 }.encode(),
                BlobRequest { digest: Digest::of(b"x"), offset: 7, length: u64::MAX }.encode(),
            ] {
                let at = at % bytes.len();
                bytes[at] = to;
                exercise(&bytes);
            }
        }
    }

    #[test]
    fn the_fullest_messages_fit_their_frames() {
        let most: Vec<u32> = (0..65_536).collect();
        assert!(Have::Snapshot { first: true, prefixes: most.clone() }.encode().len() <= Have::LENGTH_MAX);
        let keys = vec![Key([7; 32]); ADVERT_KEYS_MAX];
        assert!(Advert { withdraw: true, keys }.encode().len() <= Advert::LENGTH_MAX);
    }

    #[test]
    fn another_version_an_unknown_status_and_unsorted_prefixes_are_named() {
        let version = to_cbor(&CountForm { v: 2, n: 1 });
        assert!(matches!(AdvertAnswer::decode(&version), Err(DecodeError::Version { version: 2 })));
        let status = to_cbor(&AnswerForm { v: 1, s: 9, z: 0 });
        assert!(matches!(BlobAnswer::decode(&status), Err(DecodeError::Status { status: 9 })));
        let twice = Have::Delta { added: vec![5, 5], removed: vec![] }.encode();
        assert!(matches!(Have::decode(&twice), Err(DecodeError::Unsorted)));
    }

    #[tokio::test]
    async fn a_frame_that_claims_four_gigabytes_is_refused_before_it_is_read() {
        let mut bytes: &[u8] = &[0xff; 4];
        let refused = read_frame::<BlobRequest>(&mut bytes).await;
        assert!(matches!(refused, Err(FrameError::TooLong { max: 128, .. })));
    }
}
