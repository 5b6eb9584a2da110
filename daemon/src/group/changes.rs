//! Every change of what is known of groups: in the store first, then in memory, then told.

use super::roster::SignedRoster;
use super::{ADDRESS_ROW, ADDRESSES_MAX, BLOCK_ROW, BLOCKED_MAX, GROUPS_MAX, Groups, ROSTER_ROW, View, ticket};
use crate::swarm::{Multiaddr, PeerId};
use std::sync::PoisonError;
use store::{IndexError, RowChange, RowError, RowTable};

/// Why a group was not founded, changed, joined or left.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// A name that is none.
    #[error("{text:?} is no name for a machine; expected 1 to 63 letters, digits, dots, underscores and hyphens")]
    Name {
        /// As given.
        text: String,
    },
    /// How long a ticket is to be good.
    #[error("a ticket is good for 1 second to 7 days")]
    Life,
    /// More than anybody needs.
    #[error("there are {max} {what} already, and no more are kept")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The bound.
        max: usize,
    },
    /// There is no such ticket.
    #[error("there is no such ticket here; `peer invite --list` shows them")]
    NoTicket,
    /// Too late to take a ticket back.
    #[error("{peer} joined with that ticket already; `peer trust remove {peer}` takes it off the roster")]
    TicketUsed {
        /// Who.
        peer: PeerId,
    },
    /// This node's key is of a kind that cannot sign rosters.
    #[error("the key of this node cannot sign a roster")]
    Key,
    /// The store cannot be read.
    #[error("cannot read the groups")]
    Read(#[from] IndexError),
    /// The store does not keep it.
    #[error("cannot keep the change of the group")]
    Keep(#[from] RowError),
}

impl GroupError {
    pub(super) fn name(text: &str) -> Self {
        Self::Name { text: text.chars().take(100).collect() }
    }
}

/// What came of a roster that somebody gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It is newer than the one known, and counts from now on.
    Newer,
    /// It says nothing new, or is of a group this node is not in.
    Nothing,
    /// It is newer, and this node is not on it: the group is left.
    Left,
}

/// Rows to be written, with a value, or taken away.
pub(super) type Rows = Vec<(Vec<u8>, Option<Vec<u8>>)>;

impl View {
    /// Refuses one group more than there may be.
    pub(super) fn room(&self) -> Result<(), GroupError> {
        if self.rosters.len() >= GROUPS_MAX {
            return Err(GroupError::TooMany { what: "groups", max: GROUPS_MAX });
        }
        Ok(())
    }
}

impl Groups {
    /// Changes the view by what `make` does to a copy of it, once the rows it names are in the store; nothing changes when either
    /// fails. Blocking.
    pub(super) fn change(
        &self,
        make: impl FnOnce(&mut View, &mut Rows) -> Result<(), GroupError>,
    ) -> Result<(), GroupError> {
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut view, mut rows) = (self.view().clone(), Rows::new());
        make(&mut view, &mut rows)?;
        if rows.is_empty() {
            return Ok(());
        }
        let changes = rows.iter().map(|(key, value)| {
            let (key, value) = (key.as_slice(), value.as_deref());
            RowChange { table: RowTable::Groups, key, value }
        });
        self.store.put_rows(&changes.collect::<Vec<_>>())?;
        view.settle(&self.local());
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = view;
        self.changes.send_modify(|version| *version = version.wrapping_add(1));
        Ok(())
    }

    /// Takes over a roster of a group this node is in, if it is newer. Whoever gave it: its founder signed it. Blocking.
    ///
    /// # Errors
    /// When the store does not keep it.
    pub fn accept(&self, signed: SignedRoster) -> Result<Accepted, GroupError> {
        let mut accepted = Accepted::Nothing;
        self.change(|view, rows| {
            let founder = signed.roster.founder;
            match view.rosters.get(&founder) {
                Some(known) if known.roster.serial < signed.roster.serial => {}
                _ => return Ok(()),
            }
            if signed.roster.member(&self.local()).is_some() {
                accepted = Accepted::Newer;
                put(view, rows, signed);
            } else {
                tracing::warn!(group = %founder, "this machine was taken off the roster and leaves the group");
                accepted = Accepted::Left;
                view.rosters.remove(&founder);
                rows.push((roster_key(&founder), None));
            }
            Ok(())
        })?;
        Ok(accepted)
    }

    /// Joins a group, by the roster its founder gave; whom the user blocked and now joins is blocked no longer. Blocking.
    ///
    /// # Errors
    /// When there are too many groups, or the store does not keep it.
    pub(super) fn enter(&self, signed: SignedRoster) -> Result<(), GroupError> {
        self.change(|view, rows| {
            let founder = signed.roster.founder;
            if view.rosters.get(&founder).is_some_and(|known| known.roster.serial >= signed.roster.serial) {
                return Ok(());
            }
            if !view.rosters.contains_key(&founder) {
                view.room()?;
            }
            if view.blocked.remove(&founder) {
                rows.push((peer_key(BLOCK_ROW, &founder), None));
            }
            put(view, rows, signed);
            Ok(())
        })
    }

    /// Leaves another's group; false when this node is not in it, and of its own. Blocking.
    ///
    /// # Errors
    /// When the store does not keep it.
    pub fn leave(&self, founder: &PeerId) -> Result<bool, GroupError> {
        let mut was = false;
        self.change(|view, rows| {
            was = *founder != self.local() && view.rosters.remove(founder).is_some();
            if was {
                rows.push((roster_key(founder), None));
            }
            Ok(())
        })?;
        Ok(was)
    }

    /// Gives a peer no role here, whatever a roster says; false when it was blocked already. Blocking.
    ///
    /// # Errors
    /// When too many are blocked, or the store does not keep it.
    pub fn block(&self, peer: &PeerId) -> Result<bool, GroupError> {
        let mut new = false;
        self.change(|view, rows| {
            new = view.blocked.insert(*peer);
            if view.blocked.len() > BLOCKED_MAX {
                return Err(GroupError::TooMany { what: "blocked machines", max: BLOCKED_MAX });
            }
            if new {
                rows.push((peer_key(BLOCK_ROW, peer), Some(vec![1])));
            }
            Ok(())
        })?;
        Ok(new)
    }

    /// Lets the rosters say again what a peer may do; false when it was not blocked. Blocking.
    ///
    /// # Errors
    /// When the store does not keep it.
    pub fn unblock(&self, peer: &PeerId) -> Result<bool, GroupError> {
        let mut was = false;
        self.change(|view, rows| {
            was = view.blocked.remove(peer);
            if was {
                rows.push((peer_key(BLOCK_ROW, peer), None));
            }
            Ok(())
        })?;
        Ok(was)
    }

    /// Where a member was seen last.
    #[must_use]
    pub fn addresses(&self, peer: &PeerId) -> Vec<Multiaddr> {
        self.addresses.read().unwrap_or_else(PoisonError::into_inner).get(peer).cloned().unwrap_or_default()
    }

    /// Keeps where a member was seen; true when that is new. Of others nothing is kept. Blocking.
    pub(super) fn saw(&self, peer: &PeerId, seen: &[Multiaddr]) -> bool {
        let seen: Vec<Multiaddr> = seen.iter().take(ADDRESSES_MAX).cloned().collect();
        if seen.is_empty() || self.role(peer).is_none() || self.addresses(peer) == seen {
            return false;
        }
        let value: Vec<Vec<u8>> = seen.iter().map(Multiaddr::to_vec).collect();
        let value: Vec<&serde_bytes::Bytes> = value.iter().map(|bytes| serde_bytes::Bytes::new(bytes)).collect();
        let value = serde_ipld_dagcbor::to_vec(&value).expect("bytes always have a DAG-CBOR form");
        if let Err(error) = self.store.put_row(RowTable::Groups, &peer_key(ADDRESS_ROW, peer), &value) {
            tracing::warn!(%peer, %error, "cannot keep where a member was seen");
        }
        self.addresses.write().unwrap_or_else(PoisonError::into_inner).insert(*peer, seen);
        true
    }
}

fn put(view: &mut View, rows: &mut Rows, signed: SignedRoster) {
    rows.push((roster_key(&signed.roster.founder), Some(signed.as_bytes().to_vec())));
    view.rosters.insert(signed.roster.founder, signed);
}

fn peer_key(row: u8, peer: &PeerId) -> Vec<u8> {
    [&[row], peer.to_bytes().as_slice()].concat()
}

pub(super) fn roster_key(founder: &PeerId) -> Vec<u8> {
    peer_key(ROSTER_ROW, founder)
}

pub(super) fn read_addresses(value: &[u8]) -> Vec<Multiaddr> {
    let list: Vec<serde_bytes::ByteBuf> = serde_ipld_dagcbor::from_slice(value).unwrap_or_default();
    list.iter().take(ADDRESSES_MAX).filter_map(|bytes| ticket::address(bytes)).collect()
}
