//! A claim: "this recipe was built to this digest", signed by the node that says so with its ed25519 key.
//!
//! Distfiles need none: a Manifest names their bytes. A claim proves who said it and nothing more; whether that counts
//! is [`super::trust`]'s question. FORMATS.md has the bytes.

use crate::swarm::{Identity, PeerId};
use ed25519_dalek::{Signature, Signer as _, VerifyingKey};
use libp2p::identity::PublicKey;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use tree::cpv::{Cpv, Slot};
use tree::digest::Digest;
use tree::name::RepoName;

/// The longest encoded claim: some 600 bytes are usual.
pub const CLAIM_BYTES_MAX: usize = 4096;
/// The form written here.
const VERSION: u8 = 1;
/// What is signed begins with this, so that a signature can never be taken for another kind of message.
const DOMAIN: &[u8] = b"peerage claim\0";

/// What a builder says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Of the recipe.
    pub fingerprint: Digest,
    /// What was built.
    pub cpv: Cpv,
    /// The ebuild repository it was built from.
    pub repo: String,
    /// `SLOT/SUBSLOT`.
    pub slot: String,
    /// Of the signed binary package.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// Of what it installs ([`tree::image`]).
    pub image: Digest,
    /// When it was built, seconds since the epoch, by the builder's clock.
    pub made_at: u64,
}

/// A claim whose signature was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedClaim {
    /// What it says.
    pub claim: Claim,
    /// Who says it.
    pub builder: PeerId,
    /// Its public key.
    pub key: [u8; 32],
    bytes: Vec<u8>,
}

/// Why bytes are no claim.
#[derive(Debug, thiserror::Error)]
pub enum ReadClaimError {
    /// More than any claim has.
    #[error("a claim of {length} bytes, expected at most {CLAIM_BYTES_MAX}")]
    TooLong {
        /// How many.
        length: usize,
    },
    /// Not the shape of one.
    #[error("not a claim: {0}")]
    Shape(String),
    /// Another form.
    #[error("version {version} of a claim, expected {VERSION}")]
    Version {
        /// The version found.
        version: u8,
    },
    /// Not signed by the key it names.
    #[error("the signature of a claim is not its builder's")]
    Signature,
    /// A field is not what it should be.
    #[error("{field} of a claim: {why}")]
    Field {
        /// Which.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    v: u8,
    body: ByteBuf,
    key: ByteBuf,
    sig: ByteBuf,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    cpv: String,
    repo: String,
    slot: String,
    size: u64,
    digest: ByteBuf,
    image: ByteBuf,
    fingerprint: ByteBuf,
    made_at: u64,
}

impl Claim {
    /// Signs it as this node.
    #[must_use]
    pub fn sign(self, identity: &Identity) -> SignedClaim {
        let body = Body {
            cpv: self.cpv.to_string(),
            repo: self.repo.clone(),
            slot: self.slot.clone(),
            size: self.size,
            digest: ByteBuf::from(*self.digest.as_bytes()),
            image: ByteBuf::from(*self.image.as_bytes()),
            fingerprint: ByteBuf::from(*self.fingerprint.as_bytes()),
            made_at: self.made_at,
        };
        let body = serde_ipld_dagcbor::to_vec(&body).expect("text, numbers and bytes always have a DAG-CBOR form");
        let key = identity.signing_key();
        let sig = key.sign(&signed_bytes(&body)).to_bytes();
        let envelope = Envelope {
            v: VERSION,
            body: ByteBuf::from(body),
            key: ByteBuf::from(key.verifying_key().to_bytes()),
            sig: ByteBuf::from(sig),
        };
        let bytes = serde_ipld_dagcbor::to_vec(&envelope).expect("bytes always have a DAG-CBOR form");
        SignedClaim { claim: self, builder: identity.peer_id(), key: key.verifying_key().to_bytes(), bytes }
    }
}

impl SignedClaim {
    /// The form for the wire and the store.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl TryFrom<&[u8]> for SignedClaim {
    type Error = ReadClaimError;

    /// Checks form and signature.
    fn try_from(bytes: &[u8]) -> Result<Self, ReadClaimError> {
        if bytes.len() > CLAIM_BYTES_MAX {
            return Err(ReadClaimError::TooLong { length: bytes.len() });
        }
        let envelope: Envelope = from_cbor(bytes)?;
        if envelope.v != VERSION {
            return Err(ReadClaimError::Version { version: envelope.v });
        }
        let key: [u8; 32] = envelope.key.as_slice().try_into().map_err(|_| ReadClaimError::Signature)?;
        let key = VerifyingKey::from_bytes(&key).map_err(|_| ReadClaimError::Signature)?;
        let sig = Signature::from_slice(&envelope.sig).map_err(|_| ReadClaimError::Signature)?;
        key.verify_strict(&signed_bytes(&envelope.body), &sig).map_err(|_| ReadClaimError::Signature)?;
        let body: Body = from_cbor(&envelope.body)?;
        let claim = Claim {
            cpv: body.cpv.parse().map_err(|error| field("cpv", &error))?,
            repo: body.repo.parse::<RepoName>().map_err(|error| field("repo", &error))?.to_string(),
            slot: body.slot.parse::<Slot>().map_err(|error| field("slot", &error))?.to_string(),
            size: body.size,
            digest: digest("digest", &body.digest)?,
            image: digest("image", &body.image)?,
            fingerprint: digest("fingerprint", &body.fingerprint)?,
            made_at: body.made_at,
        };
        let builder = peer_id(key.as_bytes()).ok_or(ReadClaimError::Signature)?;
        Ok(Self { claim, builder, key: key.to_bytes(), bytes: bytes.to_vec() })
    }
}

fn from_cbor<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, ReadClaimError> {
    serde_ipld_dagcbor::from_slice(bytes).map_err(|error| ReadClaimError::Shape(error.to_string()))
}

fn signed_bytes(body: &[u8]) -> Vec<u8> {
    [DOMAIN, body].concat()
}

fn field(field: &'static str, error: &dyn std::error::Error) -> ReadClaimError {
    ReadClaimError::Field { field, why: error.to_string() }
}

fn digest(name: &'static str, bytes: &[u8]) -> Result<Digest, ReadClaimError> {
    let exact = bytes
        .try_into()
        .map_err(|_| ReadClaimError::Field { field: name, why: format!("{} bytes, expected 64", bytes.len()) })?;
    Ok(Digest::from_bytes(exact))
}

/// The name under which the swarm knows a key; none when the bytes are no ed25519 public key.
#[must_use]
pub fn peer_id(key: &[u8; 32]) -> Option<PeerId> {
    let key = libp2p::identity::ed25519::PublicKey::try_from_bytes(key).ok()?;
    Some(PublicKey::from(key).to_peer_id())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim() -> Claim {
        Claim {
            fingerprint: Digest::of(b"recipe"),
            cpv: "app-misc/one-1.0".parse().unwrap(),
            repo: "gentoo".to_owned(),
            slot: "0/1".to_owned(),
            digest: Digest::of(b"gpkg"),
            size: 7,
            image: Digest::of(b"image"),
            made_at: 1_700_000_000,
        }
    }

    #[test]
    fn a_claim_comes_back_with_the_peer_id_of_who_signed_it() {
        let identity = Identity::generate();
        let signed = claim().sign(&identity);
        let read = SignedClaim::try_from(signed.as_bytes()).unwrap();
        assert_eq!((&read.claim, read.builder), (&claim(), identity.peer_id()));
        assert_eq!(read, signed);
    }

    #[test]
    fn no_bit_can_be_changed() {
        let signed = claim().sign(&Identity::generate());
        for at in 0..signed.as_bytes().len() {
            let mut bytes = signed.as_bytes().to_vec();
            bytes[at] ^= 1;
            assert!(SignedClaim::try_from(bytes.as_slice()).is_err(), "byte {at}");
        }
    }

    #[test]
    fn another_key_over_the_same_body_is_not_its_signature() {
        let (one, two) = (claim().sign(&Identity::generate()), claim().sign(&Identity::generate()));
        let mut mixed: Envelope = serde_ipld_dagcbor::from_slice(one.as_bytes()).unwrap();
        let other: Envelope = serde_ipld_dagcbor::from_slice(two.as_bytes()).unwrap();
        mixed.key = other.key;
        let bytes = serde_ipld_dagcbor::to_vec(&mixed).unwrap();
        assert!(matches!(SignedClaim::try_from(bytes.as_slice()), Err(ReadClaimError::Signature)));
    }

    #[test]
    fn what_is_no_claim_is_refused_in_words() {
        assert!(matches!(SignedClaim::try_from(&b"garbage"[..]), Err(ReadClaimError::Shape(_))));
        assert!(matches!(SignedClaim::try_from(&vec![0; 5000][..]), Err(ReadClaimError::TooLong { .. })));
    }
}
