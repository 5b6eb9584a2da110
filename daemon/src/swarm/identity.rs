//! Who this machine is to its peers: an ed25519 key, from which the peer id follows.

use libp2p::PeerId;
use libp2p::identity::Keypair;

/// The longest stored identity; libp2p's protobuf form of an ed25519 key has 68 bytes.
const IDENTITY_LENGTH_MAX: usize = 256;

/// The key of this machine. Whoever has it can speak as this machine, so it is kept in a file only its owner reads.
#[derive(Clone)]
pub struct Identity(Keypair);

impl Identity {
    /// A new key from the system's random source.
    #[must_use]
    pub fn generate() -> Self {
        Self(Keypair::generate_ed25519())
    }

    /// The key that [`Identity::to_bytes`] wrote.
    ///
    /// # Errors
    /// When the bytes are no libp2p private key (protobuf, ed25519).
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, IdentityError> {
        if bytes.len() > IDENTITY_LENGTH_MAX {
            return Err(IdentityError::TooLong { length: bytes.len() });
        }
        Keypair::from_protobuf_encoding(bytes).map(Self).map_err(|_| IdentityError::NotAKey { length: bytes.len() })
    }

    /// The form to keep in a file: libp2p's protobuf encoding of the private key. A secret.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.to_protobuf_encoding().expect("an ed25519 key always has a protobuf form")
    }

    /// The name under which peers know this machine: the public key itself.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.0.public().to_peer_id()
    }

    /// The key for signatures over what this machine says of its builds.
    #[must_use]
    pub fn signing_key(&self) -> ed25519_dalek::SigningKey {
        let pair = self.0.clone().try_into_ed25519().expect("every identity is an ed25519 key");
        let secret = pair.secret();
        let bytes = secret.as_ref().try_into().expect("an ed25519 secret has 32 bytes");
        ed25519_dalek::SigningKey::from_bytes(bytes)
    }

    /// The key for libp2p's handshakes.
    pub(super) fn keypair(&self) -> &Keypair {
        &self.0
    }
}

impl std::fmt::Debug for Identity {
    /// Shows the public half only.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({})", self.peer_id())
    }
}

/// Why bytes are not an identity.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IdentityError {
    /// Far longer than any key.
    #[error("an identity of {length} bytes, expected at most {IDENTITY_LENGTH_MAX}")]
    TooLong {
        /// How many bytes there were.
        length: usize,
    },
    /// Not the protobuf form of an ed25519 private key.
    #[error("{length} bytes that are no ed25519 private key in libp2p's protobuf form")]
    NotAKey {
        /// How many bytes there were.
        length: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_the_same_peer_again() {
        let identity = Identity::generate();
        let again = Identity::from_bytes(&identity.to_bytes()).unwrap();
        assert_eq!(again.peer_id(), identity.peer_id());
    }

    #[test]
    fn a_cut_or_foreign_key_is_refused_and_debug_shows_no_secret() {
        let identity = Identity::generate();
        let bytes = identity.to_bytes();
        assert!(Identity::from_bytes(&bytes[..bytes.len() - 1]).is_err());
        assert!(Identity::from_bytes(b"").is_err());
        assert_eq!(Identity::from_bytes(&[0; 300]).unwrap_err(), IdentityError::TooLong { length: 300 });
        assert_eq!(format!("{identity:?}"), format!("Identity({})", identity.peer_id()));
    }
}
