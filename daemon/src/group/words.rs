//! What members say to each other about groups (topic `group` of `/peerage/group/1`): DAG-CBOR, refused when it is anything else.

use super::ticket::address;
use crate::swarm::wire::{ANSWER_BYTES_MAX, QUESTION_BYTES_MAX};
use crate::swarm::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// Addresses of one member that are told.
const TOLD_ADDRESSES_MAX: usize = 4;
/// Members whose addresses are told in one answer; beside the longest roster they fit.
const TOLD_MEMBERS_MAX: usize = 256;

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum Ask {
    /// A ticket is shown to its founder.
    Join { secret: ByteBuf, name: String },
    /// The roster of this founder is known with this serial, 0 for not at all: is there a newer one?
    Roster { group: ByteBuf, serial: u64 },
    /// A roster that the other may not have yet.
    Give { roster: ByteBuf },
    /// Who asks wants to be in this founder's group no longer.
    Leave {},
}

/// Where a member was seen. A hint: nothing of it is signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Seen {
    peer: ByteBuf,
    addrs: Vec<ByteBuf>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum Said {
    /// The roster, newer than what was known.
    Roster { roster: ByteBuf, seen: Vec<Seen> },
    /// Nothing newer; this is the serial known here.
    Current { serial: u64, seen: Vec<Seen> },
    /// Who asks is not in this group, as far as is known here.
    Stranger {},
    /// The ticket does not let in.
    Refused { why: JoinRefusal },
    /// What was given is taken.
    Taken {},
}

/// Why a founder does not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "lowercase")]
pub enum JoinRefusal {
    /// It never was one of this founder.
    #[error("its founder does not know this ticket")]
    Unknown,
    /// Another machine joined with it.
    #[error("the ticket is used: another machine joined with it")]
    Used,
    /// Its time is over.
    #[error("the ticket is expired")]
    Expired,
    /// The founder's user took it back, or took the machine that joined with it off the roster.
    #[error("the ticket is revoked")]
    Revoked,
    /// The group has no place left.
    #[error("the group is full")]
    Full,
    /// The founder cannot write it down.
    #[error("the founder cannot let anybody in now: something is wrong with its store")]
    Broken,
}

impl Seen {
    pub(super) fn new(peer: &PeerId, addresses: &[Multiaddr]) -> Self {
        let addrs = addresses.iter().take(TOLD_ADDRESSES_MAX).map(|address| ByteBuf::from(address.to_vec())).collect();
        Self { peer: ByteBuf::from(peer.to_bytes()), addrs }
    }

    /// Whose addresses these are; None when it is nobody's.
    pub(super) fn read(&self) -> Option<(PeerId, Vec<Multiaddr>)> {
        let peer = PeerId::from_bytes(&self.peer).ok()?;
        Some((peer, self.addrs.iter().take(TOLD_ADDRESSES_MAX).filter_map(|bytes| address(bytes)).collect()))
    }
}

impl Ask {
    pub(super) fn encode(&self) -> Vec<u8> {
        to_cbor(self)
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        (bytes.len() <= QUESTION_BYTES_MAX).then(|| serde_ipld_dagcbor::from_slice(bytes).ok()).flatten()
    }
}

impl Said {
    /// With fewer addresses when they do not fit.
    pub(super) fn encode(mut self) -> Vec<u8> {
        if let Self::Roster { seen, .. } | Self::Current { seen, .. } = &mut self {
            seen.truncate(TOLD_MEMBERS_MAX);
        }
        let bytes = to_cbor(&self);
        if bytes.len() <= ANSWER_BYTES_MAX {
            return bytes;
        }
        if let Self::Roster { seen, .. } | Self::Current { seen, .. } = &mut self {
            seen.clear();
        }
        to_cbor(&self)
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        (bytes.len() <= ANSWER_BYTES_MAX).then(|| serde_ipld_dagcbor::from_slice(bytes).ok()).flatten()
    }
}

fn to_cbor(words: &impl Serialize) -> Vec<u8> {
    serde_ipld_dagcbor::to_vec(words).expect("text, numbers and bytes always have a DAG-CBOR form")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop, proptest};

    fn asks() -> [Ask; 4] {
        let bytes = || ByteBuf::from(vec![7; 16]);
        [
            Ask::Join { secret: bytes(), name: "weak".to_owned() },
            Ask::Roster { group: bytes(), serial: 9 },
            Ask::Give { roster: bytes() },
            Ask::Leave {},
        ]
    }

    fn answers() -> [Said; 5] {
        let address: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
        let seen = || vec![Seen::new(&PeerId::random(), &vec![address.clone(); 9])];
        [
            Said::Roster { roster: ByteBuf::from(vec![1]), seen: seen() },
            Said::Current { serial: 3, seen: seen() },
            Said::Stranger {},
            Said::Refused { why: JoinRefusal::Expired },
            Said::Taken {},
        ]
    }

    #[test]
    fn every_word_comes_back() {
        for ask in asks() {
            assert_eq!(Ask::decode(&ask.encode()), Some(ask));
        }
        for said in answers() {
            assert_eq!(Said::decode(&said.clone().encode()), Some(said));
        }
        let Said::Current { seen, .. } = &answers()[1] else { panic!() };
        assert_eq!(seen[0].read().unwrap().1.len(), TOLD_ADDRESSES_MAX);
    }

    proptest! {
        #[test]
        fn garbage_is_refused_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..100), at in 0_usize..60, to: u8) {
            assert_eq!(Ask::decode(&bytes), None);
            for ask in asks() {
                let mut changed = ask.encode();
                let at = at % changed.len();
                changed[at] = to;
                let _either = Ask::decode(&changed);
            }
            for said in answers() {
                let mut changed = said.encode();
                let at = at % changed.len();
                changed[at] = to;
                let _either = Said::decode(&changed).map(Said::encode);
            }
        }
    }
}
