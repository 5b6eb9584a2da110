//! Statements: bytes that a node signed with its ed25519 key, of one kind each, as claims and rosters are.
//!
//! A statement proves who said it and nothing more. FORMATS.md has the bytes.

use crate::swarm::{Identity, PeerId};
use ed25519_dalek::{Signature, Signer as _, VerifyingKey};
use libp2p::identity::PublicKey;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// The form written here.
const VERSION: u8 = 1;

/// What is signed begins with its kind, so that a signature can never be taken for one of another kind.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// What stands before the signed bytes, ended by NUL.
    pub domain: &'static [u8],
    /// The longest encoding, in bytes.
    pub bytes_max: usize,
}

/// Why bytes are no statement.
#[derive(Debug, thiserror::Error)]
pub enum ReadStatementError {
    /// More than any of the kind has.
    #[error("{length} bytes, expected at most {max}")]
    TooLong {
        /// How many.
        length: usize,
        /// The bound.
        max: usize,
    },
    /// Not the shape of one.
    #[error("another shape: {0}")]
    Shape(String),
    /// Another form.
    #[error("version {version}, expected {VERSION}")]
    Version {
        /// The version found.
        version: u8,
    },
    /// Not signed by the key it names.
    #[error("the signature is not that of the key it names")]
    Signature,
}

/// One whose signature was checked.
#[derive(Debug)]
pub struct Statement {
    body: ByteBuf,
    /// The public key of who said it.
    pub key: [u8; 32],
    /// Who said it.
    pub peer: PeerId,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    v: u8,
    body: ByteBuf,
    key: ByteBuf,
    sig: ByteBuf,
}

impl Kind {
    /// Signs as this node.
    #[must_use]
    pub fn sign(self, body: &impl Serialize, identity: &Identity) -> Vec<u8> {
        let (body, key) = (to_cbor(body), identity.signing_key());
        let sig = key.sign(&self.signed_bytes(&body)).to_bytes();
        let (v, key) = (VERSION, ByteBuf::from(key.verifying_key().to_bytes()));
        to_cbor(&Envelope { v, body: ByteBuf::from(body), key, sig: ByteBuf::from(sig) })
    }

    /// Checks form and signature.
    ///
    /// # Errors
    /// When it is not one of this kind, or another than the key's owner signed it.
    pub fn read(self, bytes: &[u8]) -> Result<Statement, ReadStatementError> {
        if bytes.len() > self.bytes_max {
            return Err(ReadStatementError::TooLong { length: bytes.len(), max: self.bytes_max });
        }
        let envelope: Envelope = from_cbor(bytes)?;
        if envelope.v != VERSION {
            return Err(ReadStatementError::Version { version: envelope.v });
        }
        let wrong = || ReadStatementError::Signature;
        let key: [u8; 32] = envelope.key.as_slice().try_into().map_err(|_| wrong())?;
        let verifying = VerifyingKey::from_bytes(&key).map_err(|_| wrong())?;
        let sig = Signature::from_slice(&envelope.sig).map_err(|_| wrong())?;
        verifying.verify_strict(&self.signed_bytes(&envelope.body), &sig).map_err(|_| wrong())?;
        Ok(Statement { body: envelope.body, key, peer: peer_id(&key).ok_or_else(wrong)? })
    }

    fn signed_bytes(self, body: &[u8]) -> Vec<u8> {
        [self.domain, body].concat()
    }
}

impl Statement {
    /// What it says.
    ///
    /// # Errors
    /// When that has another shape.
    pub fn body<'a, T: Deserialize<'a>>(&'a self) -> Result<T, ReadStatementError> {
        from_cbor(&self.body)
    }
}

fn to_cbor(form: &impl Serialize) -> Vec<u8> {
    serde_ipld_dagcbor::to_vec(form).expect("text, numbers and bytes always have a DAG-CBOR form")
}

fn from_cbor<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, ReadStatementError> {
    serde_ipld_dagcbor::from_slice(bytes).map_err(|error| ReadStatementError::Shape(error.to_string()))
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

    const WORDS: Kind = Kind { domain: b"words\0", bytes_max: 200 };

    #[test]
    fn what_is_said_comes_back_with_the_peer_id_of_who_said_it() {
        let identity = Identity::generate();
        let read = WORDS.read(&WORDS.sign(&"abc", &identity)).unwrap();
        assert_eq!((read.body::<String>().unwrap().as_str(), read.peer), ("abc", identity.peer_id()));
        assert_eq!(peer_id(&read.key), Some(read.peer));
    }

    #[test]
    fn neither_a_bit_nor_the_key_nor_the_kind_can_be_changed() {
        let [one, two] = [0; 2].map(|_| WORDS.sign(&"abc", &Identity::generate()));
        for at in 0..one.len() {
            let mut bytes = one.clone();
            bytes[at] ^= 1;
            assert!(WORDS.read(&bytes).is_err(), "byte {at}");
        }
        let [mut mixed, other]: [Envelope; 2] =
            [&one, &two].map(|bytes| serde_ipld_dagcbor::from_slice(bytes).unwrap());
        mixed.key = other.key;
        assert!(matches!(WORDS.read(&to_cbor(&mixed)), Err(ReadStatementError::Signature)));
        let others = Kind { domain: b"other words\0", ..WORDS };
        assert!(matches!(others.read(&one), Err(ReadStatementError::Signature)));
    }

    #[test]
    fn what_is_no_statement_is_refused_in_words() {
        assert!(matches!(WORDS.read(b"garbage"), Err(ReadStatementError::Shape(_))));
        assert!(matches!(WORDS.read(&[0; 201]), Err(ReadStatementError::TooLong { .. })));
    }
}
