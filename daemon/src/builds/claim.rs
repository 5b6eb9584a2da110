//! A claim: "this recipe was built to this digest", signed by the node that says so with its ed25519 key.
//!
//! A **receipt** says the same to one client, whose configuration it was built by, and is good for nobody else: it is of
//! another kind, so that it can never be taken for a claim, whoever hands it on.
//!
//! Distfiles need none: a Manifest names their bytes. A claim proves who said it and nothing more; whether that counts
//! is [`super::trust`]'s question. FORMATS.md has the bytes.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use crate::sizes::SaidSize;
use crate::statement::{Kind, ReadStatementError};
use crate::swarm::{Identity, PeerId};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use tree::cpv::{Cpv, Slot};
use tree::digest::Digest;
use tree::manifest::DISTFILE_BYTES_MAX;
use tree::name::RepoName;

/// The longest encoded claim: some 600 bytes are usual.
pub const CLAIM_BYTES_MAX: usize = 4096;
const KIND: Kind = Kind { domain: b"peerage claim\0", bytes_max: CLAIM_BYTES_MAX };
const RECEIPT: Kind = Kind { domain: b"peerage receipt\0", bytes_max: CLAIM_BYTES_MAX };

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
    /// To whom alone it says so: then it is a receipt, which is kept by nobody and given to nobody.
    pub client: Option<PeerId>,
    bytes: Vec<u8>,
}

/// Why bytes are no claim.
#[derive(Debug, thiserror::Error)]
pub enum ReadClaimError {
    /// Not one that its builder signed.
    #[error("not a claim: {0}")]
    Statement(#[from] ReadStatementError),
    /// A receipt that was given to another client.
    #[error("a receipt for another machine")]
    Client,
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
    size: SaidSize<DISTFILE_BYTES_MAX>,
    digest: ByteBuf,
    image: ByteBuf,
    fingerprint: ByteBuf,
    made_at: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReceiptBody {
    claim: Body,
    client: ByteBuf,
}

impl Claim {
    /// Signs it as this node, before everybody.
    #[must_use]
    pub fn sign(self, identity: &Identity) -> SignedClaim {
        let bytes = KIND.sign(&self.body(), identity);
        self.signed(identity, None, bytes)
    }

    /// Signs it as this node, before one client.
    #[must_use]
    pub fn receipt(self, client: PeerId, identity: &Identity) -> SignedClaim {
        let body = ReceiptBody { claim: self.body(), client: ByteBuf::from(client.to_bytes()) };
        let bytes = RECEIPT.sign(&body, identity);
        self.signed(identity, Some(client), bytes)
    }

    fn signed(self, identity: &Identity, client: Option<PeerId>, bytes: Vec<u8>) -> SignedClaim {
        let key = identity.signing_key().verifying_key().to_bytes();
        SignedClaim { claim: self, builder: identity.peer_id(), key, client, bytes }
    }

    fn body(&self) -> Body {
        Body {
            cpv: self.cpv.to_string(),
            repo: self.repo.clone(),
            slot: self.slot.clone(),
            // What this node has itself is within the bound; one that were not would be refused by who reads it.
            size: self.size.try_into().unwrap_or_default(),
            digest: ByteBuf::from(*self.digest.as_bytes()),
            image: ByteBuf::from(*self.image.as_bytes()),
            fingerprint: ByteBuf::from(*self.fingerprint.as_bytes()),
            made_at: self.made_at,
        }
    }
}

impl TryFrom<Body> for Claim {
    type Error = ReadClaimError;

    fn try_from(body: Body) -> Result<Self, ReadClaimError> {
        Ok(Self {
            cpv: body.cpv.parse().map_err(|error| field("cpv", &error))?,
            repo: body.repo.parse::<RepoName>().map_err(|error| field("repo", &error))?.to_string(),
            slot: body.slot.parse::<Slot>().map_err(|error| field("slot", &error))?.to_string(),
            size: body.size.get(),
            digest: digest("digest", &body.digest)?,
            image: digest("image", &body.image)?,
            fingerprint: digest("fingerprint", &body.fingerprint)?,
            made_at: body.made_at,
        })
    }
}

impl SignedClaim {
    /// The form for the wire and the store.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads a receipt: checks form, signature, and that it was given to this client. A builder of an earlier version says it as
    /// a claim, which is taken for a receipt: what was made for this machine is nobody else's, whatever form it has.
    ///
    /// # Errors
    /// When it is none, or another client's.
    pub fn of_receipt(bytes: &[u8], client: &PeerId) -> Result<Self, ReadClaimError> {
        if let Ok(claim) = Self::try_from(bytes) {
            return Ok(Self { client: Some(*client), ..claim });
        }
        let statement = RECEIPT.read(bytes)?;
        let body: ReceiptBody = statement.body()?;
        if body.client.as_slice() != client.to_bytes() {
            return Err(ReadClaimError::Client);
        }
        let claim = body.claim.try_into()?;
        Ok(Self { claim, builder: statement.peer, key: statement.key, client: Some(*client), bytes: bytes.to_vec() })
    }
}

impl TryFrom<&[u8]> for SignedClaim {
    type Error = ReadClaimError;

    /// Checks form and signature.
    fn try_from(bytes: &[u8]) -> Result<Self, ReadClaimError> {
        let statement = KIND.read(bytes)?;
        let body: Body = statement.body()?;
        let claim = body.try_into()?;
        Ok(Self { claim, builder: statement.peer, key: statement.key, client: None, bytes: bytes.to_vec() })
    }
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

    /// A claim that a client was given for its own configuration was believed by everybody to whom that client handed it.
    #[test]
    fn a_receipt_is_good_for_its_client_and_is_never_a_claim() {
        let (identity, client) = (Identity::generate(), PeerId::random());
        let receipt = claim().receipt(client, &identity);
        let read = SignedClaim::of_receipt(receipt.as_bytes(), &client).unwrap();
        assert_eq!((&read.claim, read.builder, read.client), (&claim(), identity.peer_id(), Some(client)));
        assert!(matches!(SignedClaim::of_receipt(receipt.as_bytes(), &PeerId::random()), Err(ReadClaimError::Client)));
        assert!(SignedClaim::try_from(receipt.as_bytes()).is_err(), "it is no claim");
        let plain = SignedClaim::of_receipt(claim().sign(&identity).as_bytes(), &client).unwrap();
        assert_eq!(plain.client, Some(client), "of an earlier version, and handed on no more than a receipt");
    }

    #[test]
    fn a_size_that_no_package_has_is_refused() {
        for size in [DISTFILE_BYTES_MAX + 1, 1 << 63, u64::MAX] {
            #[derive(Serialize)]
            struct Said {
                cpv: String,
                repo: String,
                slot: String,
                size: u64,
                digest: ByteBuf,
                image: ByteBuf,
                fingerprint: ByteBuf,
                made_at: u64,
            }
            let Body { cpv, repo, slot, digest, image, fingerprint, made_at, .. } = claim().body();
            let said = Said { cpv, repo, slot, size, digest, image, fingerprint, made_at };
            let bytes = KIND.sign(&said, &Identity::generate());
            assert!(SignedClaim::try_from(bytes.as_slice()).is_err(), "{size}");
        }
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
    fn what_is_no_claim_is_refused_in_words() {
        assert!(matches!(SignedClaim::try_from(&b"garbage"[..]), Err(ReadClaimError::Statement(_))));
        assert!(matches!(SignedClaim::try_from(&vec![0; 5000][..]), Err(ReadClaimError::Statement(_))));
    }
}
