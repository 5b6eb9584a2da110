//! A ticket: what one machine needs to join a group, once, as one word that can be typed, sent, or shown as a QR code.
//!
//! `peer1` and lower-case base32 (RFC 4648, without padding) of DAG-CBOR and 4 bytes of its BLAKE2B, so that a slip is noticed
//! before anybody is asked. Upper case reads the same: QR codes hold it in less space. The secret in it is as good as a password.

use super::Role;
use crate::statement::peer_id;
use crate::swarm::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::fmt;
use std::str::FromStr;
use tree::digest::Digest;

/// What every ticket begins with.
const PREFIX: &str = "peer1";
/// Bytes of the secret.
pub const SECRET_BYTES: usize = 16;
/// Addresses in one ticket.
pub const ADDRESSES_MAX: usize = 8;
/// Bytes of one address.
const ADDRESS_BYTES_MAX: usize = 128;
/// The longest text that is looked at.
const TEXT_BYTES_MAX: usize = 4096;
/// Bytes of the check at the end.
const CHECK_BYTES: usize = 4;
/// The form written here.
const VERSION: u8 = 1;
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// The one-time secret of a ticket.
pub type Secret = [u8; SECRET_BYTES];

/// Lets one machine join a group.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    /// Whose group it is.
    pub founder: PeerId,
    /// Its public key.
    pub key: [u8; 32],
    /// Where it listens, without its peer id.
    pub addresses: Vec<Multiaddr>,
    /// Shown to the founder once.
    pub secret: Secret,
    /// What who joins may do.
    pub role: Role,
    /// Until when it is good, seconds since the epoch, by the founder's clock.
    pub expires_at: u64,
}

/// Why a text is no ticket.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParseTicketError {
    /// Something else.
    #[error("that is no ticket: one begins with `{PREFIX}` and is a single word of letters and digits")]
    NotATicket,
    /// Cut off or mistyped.
    #[error("the ticket was cut off or mistyped: its check does not fit; copy the whole word")]
    Check,
    /// Of a later program.
    #[error("the ticket is of version {version}, this program knows {VERSION}")]
    Version {
        /// The version found.
        version: u8,
    },
    /// Well-formed, and yet not what a ticket says.
    #[error("{field} of the ticket is not what it should be")]
    Field {
        /// Which.
        field: &'static str,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    v: u8,
    key: ByteBuf,
    addrs: Vec<ByteBuf>,
    secret: ByteBuf,
    role: Role,
    until: u64,
}

impl Ticket {
    /// By what the founder keeps it: who reads its store cannot join with that.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.secret)
    }
}

impl fmt::Debug for Ticket {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({} of {})", self.role, self.founder)
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let form = Form {
            v: VERSION,
            key: ByteBuf::from(self.key),
            addrs: self.addresses.iter().take(ADDRESSES_MAX).map(|address| ByteBuf::from(address.to_vec())).collect(),
            secret: ByteBuf::from(self.secret),
            role: self.role,
            until: self.expires_at,
        };
        let mut bytes = serde_ipld_dagcbor::to_vec(&form).map_err(|_| fmt::Error)?;
        let check = check(&bytes);
        bytes.extend_from_slice(&check);
        write!(f, "{PREFIX}{}", base32(&bytes))
    }
}

impl FromStr for Ticket {
    type Err = ParseTicketError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text.len() > TEXT_BYTES_MAX {
            return Err(ParseTicketError::NotATicket);
        }
        let text = text.to_ascii_lowercase();
        let code = text.strip_prefix(PREFIX).ok_or(ParseTicketError::NotATicket)?;
        let bytes = from_base32(code).ok_or(ParseTicketError::NotATicket)?;
        let (body, end) = bytes.split_last_chunk::<CHECK_BYTES>().ok_or(ParseTicketError::Check)?;
        if check(body) != *end {
            return Err(ParseTicketError::Check);
        }
        let form: Form = serde_ipld_dagcbor::from_slice(body).map_err(|_| ParseTicketError::Check)?;
        if form.v != VERSION {
            return Err(ParseTicketError::Version { version: form.v });
        }
        let field = |field| ParseTicketError::Field { field };
        let key: [u8; 32] = form.key.as_slice().try_into().map_err(|_| field("the key"))?;
        let founder = peer_id(&key).ok_or(field("the key"))?;
        let secret: Secret = form.secret.as_slice().try_into().map_err(|_| field("the secret"))?;
        if form.addrs.len() > ADDRESSES_MAX {
            return Err(field("the number of addresses"));
        }
        let addresses = form.addrs.iter().map(|bytes| address(bytes).ok_or(field("an address")));
        let addresses = addresses.collect::<Result<_, _>>()?;
        Ok(Self { founder, key, addresses, secret, role: form.role, expires_at: form.until })
    }
}

/// An address from the wire or the store, of a length that is usual.
pub(super) fn address(bytes: &[u8]) -> Option<Multiaddr> {
    (bytes.len() <= ADDRESS_BYTES_MAX).then(|| Multiaddr::try_from(bytes.to_vec()).ok()).flatten()
}

fn check(bytes: &[u8]) -> [u8; CHECK_BYTES] {
    let digest = Digest::of(bytes);
    let [a, b, c, d, ..] = *digest.as_bytes();
    [a, b, c, d]
}

fn base32(bytes: &[u8]) -> String {
    let (mut text, mut bits, mut held) = (String::with_capacity(bytes.len() * 8 / 5 + 1), 0_u32, 0_u32);
    let mut push = |five: u32| text.extend(ALPHABET.get((five & 31) as usize).map(|byte| char::from(*byte)));
    for byte in bytes {
        held = (held << 8 | u32::from(*byte)) & 0xfff;
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            push(held >> bits);
        }
    }
    if bits > 0 {
        push(held << (5 - bits));
    }
    text
}

/// None for other characters, and for bits at the end that no byte has.
fn from_base32(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut bits, mut held) = (Vec::with_capacity(text.len() * 5 / 8), 0_u32, 0_u32);
    for byte in text.bytes() {
        let five = ALPHABET.iter().position(|known| *known == byte)?;
        held = (held << 5 | u32::try_from(five).ok()?) & 0xfff;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(held >> bits & 0xff).ok()?);
        }
    }
    (bits < 5 && held & ((1 << bits) - 1) == 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::key_of;
    use crate::swarm::Identity;
    use proptest::prelude::{any, prop, proptest};

    fn ticket() -> Ticket {
        let founder = Identity::generate().peer_id();
        let addresses = ["/ip4/192.0.2.7/tcp/8421", "/ip6/fd00::1/udp/8421/quic-v1"].map(|text| text.parse().unwrap());
        Ticket {
            founder,
            key: key_of(&founder).unwrap(),
            addresses: addresses.to_vec(),
            secret: [9; SECRET_BYTES],
            role: Role::Build,
            expires_at: 1_800_000_000,
        }
    }

    #[test]
    fn a_ticket_is_one_word_that_reads_back_in_either_case() {
        let ticket = ticket();
        let text = ticket.to_string();
        assert!(text.starts_with("peer1") && text.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{text}");
        assert!(text.len() < 300, "{} characters", text.len());
        assert_eq!(text.parse::<Ticket>().unwrap(), ticket);
        assert_eq!(format!(" {}\n", text.to_ascii_uppercase()).parse::<Ticket>().unwrap(), ticket);
        assert!(!format!("{ticket:?}").contains("9, 9"));
    }

    #[test]
    fn a_slip_of_one_character_and_a_lost_end_are_noticed() {
        let text = ticket().to_string();
        for at in PREFIX.len()..text.len() {
            let mut slip = text.clone().into_bytes();
            slip[at] = if slip[at] == b'a' { b'b' } else { b'a' };
            assert!(String::from_utf8(slip).unwrap().parse::<Ticket>().is_err(), "character {at}");
            assert!(text[..at].parse::<Ticket>().is_err(), "cut at {at}");
        }
        for other in ["", "peer1", "peer2abc", "hello world", "peer10189"] {
            assert!(other.parse::<Ticket>().is_err(), "{other}");
        }
    }

    #[test]
    fn base32_is_the_one_of_the_rfc() {
        for (plain, coded) in [("", ""), ("f", "my"), ("fo", "mzxq"), ("foobar", "mzxw6ytboi")] {
            assert_eq!(base32(plain.as_bytes()), coded);
            assert_eq!(from_base32(coded).unwrap(), plain.as_bytes());
        }
        assert_eq!((from_base32("mz"), from_base32("m"), from_base32("m1")), (None, None, None));
    }

    proptest! {
        #[test]
        fn any_bytes_survive_base32(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            assert_eq!(from_base32(&base32(&bytes)).unwrap(), bytes);
        }

        #[test]
        fn no_text_breaks_the_reader(text in "peer1[a-z2-7]{0,200}") {
            assert!(text.parse::<Ticket>().is_err());
        }
    }
}
