//! A roster: who belongs to a group and what each may do, signed by the group's founder. FORMATS.md has the bytes.
//!
//! A roster proves what the founder said with this serial, and nothing of later ones: [`super::Groups`] never goes back to a lower one.

use super::Role;
use crate::statement::{Kind, ReadStatementError, peer_id};
use crate::swarm::{Identity, PeerId};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::collections::BTreeSet;

/// The longest encoded roster; 256 members of the longest names have half of it.
pub const ROSTER_BYTES_MAX: usize = 64 << 10;
/// Members of one group, its founder included.
pub const MEMBERS_MAX: usize = 256;
/// The longest name of a node, as the longest label of a host name.
pub const NAME_BYTES_MAX: usize = 63;
const KIND: Kind = Kind { domain: b"peerage roster\0", bytes_max: ROSTER_BYTES_MAX };

/// One machine of a roster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RosterMember {
    /// Who.
    pub peer: PeerId,
    /// Its public key.
    pub key: [u8; 32],
    /// What people call it.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// When it was enrolled, seconds since the epoch, by the founder's clock.
    pub since: u64,
}

/// What a founder says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roster {
    /// Whose group it is.
    pub founder: PeerId,
    /// Rises with every change.
    pub serial: u64,
    /// The members, the founder among them, in the order of their keys.
    pub members: Vec<RosterMember>,
}

/// A roster whose signature was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedRoster {
    /// What it says.
    pub roster: Roster,
    bytes: Vec<u8>,
}

/// Why bytes are no roster.
#[derive(Debug, thiserror::Error)]
pub enum ReadRosterError {
    /// Not one that somebody signed.
    #[error("not a roster: {0}")]
    Statement(#[from] ReadStatementError),
    /// Signed by another node than the founder it names.
    #[error("the signature of a roster is not its founder's")]
    Signature,
    /// A member is not what it should be.
    #[error("{what} of a roster")]
    Member {
        /// What is wrong.
        what: &'static str,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    group: ByteBuf,
    serial: u64,
    members: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    key: ByteBuf,
    name: String,
    role: Role,
    since: u64,
}

impl Roster {
    /// Who has this name among the members, if anybody.
    #[must_use]
    pub fn member(&self, peer: &PeerId) -> Option<&RosterMember> {
        self.members.iter().find(|member| member.peer == *peer)
    }

    /// Signs it as this node, which must be the founder.
    #[must_use]
    pub(super) fn sign(mut self, identity: &Identity) -> SignedRoster {
        self.members.sort_by_key(|member| member.key);
        let key = identity.signing_key();
        let entry = |member: &RosterMember| Entry {
            key: ByteBuf::from(member.key),
            name: member.name.clone(),
            role: member.role,
            since: member.since,
        };
        let body = Body {
            group: ByteBuf::from(key.verifying_key().to_bytes()),
            serial: self.serial,
            members: self.members.iter().map(entry).collect(),
        };
        let bytes = KIND.sign(&body, identity);
        SignedRoster { roster: self, bytes }
    }
}

impl SignedRoster {
    /// The form for the wire and the store.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl TryFrom<&[u8]> for SignedRoster {
    type Error = ReadRosterError;

    /// Checks form, signature and members.
    fn try_from(bytes: &[u8]) -> Result<Self, ReadRosterError> {
        let statement = KIND.read(bytes)?;
        let (body, founder): (Body, PeerId) = (statement.body()?, statement.peer);
        if body.group.as_slice() != statement.key {
            return Err(ReadRosterError::Signature);
        }
        let roster = Roster { founder, serial: body.serial, members: members(body.members, &founder)? };
        Ok(Self { roster, bytes: bytes.to_vec() })
    }
}

fn members(entries: Vec<Entry>, founder: &PeerId) -> Result<Vec<RosterMember>, ReadRosterError> {
    let wrong = |what| ReadRosterError::Member { what };
    if entries.len() > MEMBERS_MAX {
        return Err(wrong("too many members"));
    }
    let (mut members, mut names) = (Vec::with_capacity(entries.len()), BTreeSet::new());
    for entry in entries {
        let key: [u8; 32] = entry.key.as_slice().try_into().map_err(|_| wrong("a key of another length"))?;
        let peer = peer_id(&key).ok_or_else(|| wrong("a key that is none"))?;
        if !is_name(&entry.name) || !names.insert(entry.name.clone()) {
            return Err(wrong("a name that is none, or twice"));
        }
        members.push(RosterMember { peer, key, name: entry.name, role: entry.role, since: entry.since });
    }
    if !members.is_sorted_by(|a, b| a.key < b.key) {
        return Err(wrong("members out of order, or twice"));
    }
    match members.iter().find(|member| member.peer == *founder) {
        Some(member) if member.role == Role::Sign => Ok(members),
        _ => Err(wrong("no founder")),
    }
}

/// Whether a text may name a node: 1 to 63 of ASCII letters, digits, dot, underscore and hyphen.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::key_of;

    fn member(peer: PeerId, name: &str, role: Role) -> RosterMember {
        RosterMember { peer, key: key_of(&peer).unwrap(), name: name.to_owned(), role, since: 7 }
    }

    fn roster(identity: &Identity, more: &[(&str, Role)]) -> Roster {
        let founder = identity.peer_id();
        let others = more.iter().map(|(name, role)| member(Identity::generate().peer_id(), name, *role));
        let members = others.chain([member(founder, "founder", Role::Sign)]).collect();
        Roster { founder, serial: 3, members }
    }

    #[test]
    fn a_roster_comes_back_as_its_founder_signed_it_and_no_bit_can_be_changed() {
        let identity = Identity::generate();
        let signed = roster(&identity, &[("weak", Role::Fetch), ("strong", Role::Sign)]).sign(&identity);
        assert_eq!(SignedRoster::try_from(signed.as_bytes()).unwrap(), signed);
        for at in 0..signed.as_bytes().len() {
            let mut bytes = signed.as_bytes().to_vec();
            bytes[at] ^= 1;
            assert!(SignedRoster::try_from(bytes.as_slice()).is_err(), "byte {at}");
        }
    }

    #[test]
    fn the_fullest_roster_fits_and_one_more_does_not() {
        let identity = Identity::generate();
        let names: Vec<String> = (0..MEMBERS_MAX).map(|n| format!("{n:063}")).collect();
        let all: Vec<(&str, Role)> = names.iter().map(|name| (name.as_str(), Role::Build)).collect();
        let full = roster(&identity, &all[1..]).sign(&identity);
        assert!(SignedRoster::try_from(full.as_bytes()).is_ok(), "{} bytes", full.as_bytes().len());
        let over = roster(&identity, &all).sign(&identity);
        assert!(matches!(SignedRoster::try_from(over.as_bytes()), Err(ReadRosterError::Member { .. })));
    }

    #[test]
    fn a_founder_must_be_in_its_own_roster_and_names_and_members_are_there_once() {
        let identity = Identity::generate();
        let good = roster(&identity, &[("a", Role::Fetch), ("b", Role::Fetch)]);
        let refused = |change: &dyn Fn(&mut Roster)| {
            let mut roster = good.clone();
            change(&mut roster);
            SignedRoster::try_from(roster.sign(&identity).as_bytes()).unwrap_err().to_string()
        };
        assert_eq!(refused(&|roster| roster.members.retain(|m| m.name != "founder")), "no founder of a roster");
        for wrong in ["", "a b", "ä", "../a", "b"] {
            let rename = |roster: &mut Roster| roster.members[0].name = wrong.to_owned();
            assert!(refused(&rename).contains("a name that is none, or twice"), "{wrong}");
        }
        let twice = |roster: &mut Roster| {
            let again = RosterMember { name: "c".to_owned(), ..roster.members[0].clone() };
            roster.members.push(again);
        };
        assert!(refused(&twice).contains("out of order, or twice"));
    }

    #[test]
    fn another_key_cannot_speak_for_a_group() {
        let (founder, thief) = (Identity::generate(), Identity::generate());
        let stolen = roster(&founder, &[]).sign(&thief);
        assert!(SignedRoster::try_from(stolen.as_bytes()).is_err());
    }
}
