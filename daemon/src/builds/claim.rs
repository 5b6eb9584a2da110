//! A claim: "this recipe was built to this digest", signed by the node that says so with its ed25519 key.
//!
//! Distfiles need none: a Manifest names their bytes. A claim proves who said it and nothing more; whether that counts
//! is [`super::trust`]'s question. FORMATS.md has the bytes.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use crate::statement::{Kind, ReadStatementError};
use crate::swarm::{Identity, PeerId};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use tree::cpv::{Cpv, Slot};
use tree::digest::Digest;
use tree::name::RepoName;
use tree::size::{SIZE_MAX, believed};

/// The longest encoded claim: some 600 bytes are usual.
pub const CLAIM_BYTES_MAX: usize = 4096;
const KIND: Kind = Kind { domain: b"peerage claim\0", bytes_max: CLAIM_BYTES_MAX };

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
    /// Not one that its builder signed.
    #[error("not a claim: {0}")]
    Statement(#[from] ReadStatementError),
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
        let bytes = KIND.sign(&body, identity);
        SignedClaim {
            claim: self,
            builder: identity.peer_id(),
            key: identity.signing_key().verifying_key().to_bytes(),
            bytes,
        }
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
        let statement = KIND.read(bytes)?;
        let body: Body = statement.body()?;
        let claim = Claim {
            cpv: body.cpv.parse().map_err(|error| field("cpv", &error))?,
            repo: body.repo.parse::<RepoName>().map_err(|error| field("repo", &error))?.to_string(),
            slot: body.slot.parse::<Slot>().map_err(|error| field("slot", &error))?.to_string(),
            size: believed(body.size).ok_or_else(|| too_large(body.size))?,
            digest: digest("digest", &body.digest)?,
            image: digest("image", &body.image)?,
            fingerprint: digest("fingerprint", &body.fingerprint)?,
            made_at: body.made_at,
        };
        Ok(Self { claim, builder: statement.peer, key: statement.key, bytes: bytes.to_vec() })
    }
}

fn field(field: &'static str, error: &dyn std::error::Error) -> ReadClaimError {
    ReadClaimError::Field { field, why: error.to_string() }
}

fn too_large(size: u64) -> ReadClaimError {
    ReadClaimError::Field { field: "size", why: format!("{size} bytes, expected at most {SIZE_MAX}") }
}

fn digest(name: &'static str, bytes: &[u8]) -> Result<Digest, ReadClaimError> {
    let exact = bytes
        .try_into()
        .map_err(|_| ReadClaimError::Field { field: name, why: format!("{} bytes, expected 64", bytes.len()) })?;
    Ok(Digest::from_bytes(exact))
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
    fn a_size_that_nobody_can_mean_is_refused() {
        for (size, good) in [(0, true), (SIZE_MAX, true), (SIZE_MAX + 1, false), (1 << 63, false), (u64::MAX, false)] {
            let signed = Claim { size, ..claim() }.sign(&Identity::generate());
            assert_eq!(SignedClaim::try_from(signed.as_bytes()).is_ok(), good, "{size}");
        }
    }

    #[test]
    fn what_is_no_claim_is_refused_in_words() {
        assert!(matches!(SignedClaim::try_from(&b"garbage"[..]), Err(ReadClaimError::Statement(_))));
        assert!(matches!(SignedClaim::try_from(&vec![0; 5000][..]), Err(ReadClaimError::Statement(_))));
    }
}
