//! Groups: the machines whose users enrolled them, and what each of them may do.
//!
//! # Words
//! A **group** is known by its **founder**, the node whose key signs the group's **roster**: the list of its **members**, with a
//! serial that only rises. A **ticket** lets one machine join, once. A **role** says what a member may do; each includes the former:
//!
//! | role | may |
//! |---|---|
//! | `fetch` | take binary packages and claims from members, and ask them questions |
//! | `build` | also give members builds to do |
//! | `sign` | also build for others: its claims count at every member, for any package |
//!
//! The founder has `sign`. Who joins a group thereby trusts its founder, and every member to which the founder gives `sign`.
//!
//! # In reading order
//! [`roster`] is what a founder signs and [`ticket`] what it hands out; [`Groups`] keeps the rosters of the groups this node is in, and is
//! what others ask; [`founder`] lets machines in and takes them off; [`words`] is what members say to each other, [`talk`] both ends of
//! it, and [`gossip`] keeps members connected and rosters the same; [`explain`] says why somebody counts.
//!
//! # What holds
//! - A node is its key, never its address or name: a stranger behind the address of a member is a stranger.
//! - Only the founder invites, revokes and signs. A roster is persisted before it is used, and never gives way to a lower serial.
//! - Who is blocked here has no role here, whatever a roster says.

pub mod explain;
pub mod founder;
pub mod gossip;
pub mod roster;
pub mod talk;
pub mod ticket;
pub mod words;

use crate::swarm::{Identity, Multiaddr, PeerId};
use libp2p::identity::PublicKey;
use roster::{Roster, SignedRoster};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};
use store::{IndexError, RowChange, RowError, RowTable, Store};
use tokio::sync::watch;

/// Groups one node is in; a person has few.
pub const GROUPS_MAX: usize = 16;
/// Nodes blocked here.
const BLOCKED_MAX: usize = 1000;
/// Keys of rows begin with one of these.
const ROSTER_ROW: u8 = b'r';
const BLOCK_ROW: u8 = b'b';
const ADDRESS_ROW: u8 = b'a';
/// Addresses kept of one member.
const ADDRESSES_MAX: usize = 8;
/// Members whose addresses are kept.
const ADDRESS_ROWS_MAX: usize = GROUPS_MAX * roster::MEMBERS_MAX;
/// What a node without a usable host name is called.
const NAMELESS: &str = "node";
/// Characters of a peer id that name it for people, from its end: it begins as all others do.
const SHORT_ID_CHARS: usize = 8;
/// Fewer characters of an id do not name a node.
const FIND_CHARS_MIN: usize = 4;

/// What a member may do; each includes the former.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Take binary packages and claims, and ask questions.
    Fetch,
    /// Also give builds to do.
    Build,
    /// Also build for others: its claims count.
    Sign,
}

impl Role {
    /// As it is spelled.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fetch => "fetch",
            Self::Build => "build",
            Self::Sign => "sign",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a text is no role.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is no role; expected fetch, build or sign")]
pub struct ParseRoleError {
    text: String,
}

impl FromStr for Role {
    type Err = ParseRoleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = [Self::Fetch, Self::Build, Self::Sign];
        let found = all.into_iter().find(|role| role.as_str() == text);
        found.ok_or_else(|| ParseRoleError { text: text.chars().take(40).collect() })
    }
}

/// Another machine of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub peer: PeerId,
    /// What people call it.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// The founder of the group that gives it this role.
    pub group: PeerId,
    /// Whether it is that founder.
    pub founder: bool,
}

/// Why a text names no member.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum FindMemberError {
    /// Nobody.
    #[error("no member of a group here is called {text:?}; `peer trust list` shows them")]
    Unknown {
        /// As given.
        text: String,
    },
    /// Several.
    #[error("{text:?} may be {}; say the peer id", peers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or "))]
    Ambiguous {
        /// As given.
        text: String,
        /// Who may be meant.
        peers: Vec<PeerId>,
    },
}

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
    fn name(text: &str) -> Self {
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

/// One group, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupInfo {
    /// Its founder.
    pub founder: PeerId,
    /// Whether this node is that.
    pub mine: bool,
    /// Of its roster.
    pub serial: u64,
    /// This node's own role in it.
    pub role: Role,
}

/// Rows to be written, with a value, or taken away.
type Rows = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// The groups of this node. The rosters are in memory and, before that, in the store.
pub struct Groups {
    store: Store,
    identity: Identity,
    /// What this node calls itself to members.
    name: String,
    view: RwLock<View>,
    /// Where members were seen.
    addresses: RwLock<HashMap<PeerId, Vec<Multiaddr>>>,
    /// Held over every change, from reading what is there until it is in the store and in the view.
    changing: Mutex<()>,
    changes: watch::Sender<u64>,
}

/// What is known now.
#[derive(Clone, Default)]
struct View {
    /// By founder.
    rosters: BTreeMap<PeerId, SignedRoster>,
    blocked: BTreeSet<PeerId>,
    /// What follows from both, without this node.
    members: HashMap<PeerId, Member>,
}

impl View {
    /// Refuses one group more than there may be.
    fn room(&self) -> Result<(), GroupError> {
        if self.rosters.len() >= GROUPS_MAX {
            return Err(GroupError::TooMany { what: "groups", max: GROUPS_MAX });
        }
        Ok(())
    }

    /// Makes what follows from the rosters and blocks.
    fn settle(&mut self, local: &PeerId) {
        self.members.clear();
        // This node's own group names its members best.
        let own_first = self.rosters.get(local).into_iter();
        let others = self.rosters.iter().filter(|(founder, _)| *founder != local).map(|(_, signed)| signed);
        for Roster { founder, members, .. } in own_first.chain(others).map(|signed| &signed.roster) {
            for member in members.iter().filter(|member| member.peer != *local && !self.blocked.contains(&member.peer))
            {
                let new = || Member {
                    peer: member.peer,
                    name: member.name.clone(),
                    role: member.role,
                    group: *founder,
                    founder: member.peer == *founder,
                };
                let known = self.members.entry(member.peer).or_insert_with(new);
                if member.role > known.role {
                    *known = Member { name: known.name.clone(), ..new() };
                }
            }
        }
    }
}

impl Groups {
    /// Reads what is kept. A roster that cannot be read is passed over: its group is as if left. Blocking.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn open(store: &Store, identity: Identity) -> Result<Self, IndexError> {
        let mut view = View::default();
        for (key, value) in store.rows(RowTable::Groups, &[ROSTER_ROW], None, GROUPS_MAX)? {
            match SignedRoster::try_from(value.as_slice()) {
                Ok(signed) => drop(view.rosters.insert(signed.roster.founder, signed)),
                Err(error) => tracing::warn!(?key, %error, "a kept roster cannot be read"),
            }
        }
        for (key, _) in store.rows(RowTable::Groups, &[BLOCK_ROW], None, BLOCKED_MAX)? {
            view.blocked.extend(key.get(1..).and_then(|bytes| PeerId::from_bytes(bytes).ok()));
        }
        view.settle(&identity.peer_id());
        let mut addresses = HashMap::new();
        for (key, value) in store.rows(RowTable::Groups, &[ADDRESS_ROW], None, ADDRESS_ROWS_MAX)? {
            let peer = key.get(1..).and_then(|bytes| PeerId::from_bytes(bytes).ok());
            addresses.extend(peer.map(|peer| (peer, read_addresses(&value))));
        }
        Ok(Self {
            store: store.clone(),
            identity,
            name: NAMELESS.to_owned(),
            addresses: RwLock::new(addresses),
            view: RwLock::new(view),
            changing: Mutex::default(),
            changes: watch::channel(0).0,
        })
    }

    /// With what this node calls itself to members; what may not stand in a name becomes a hyphen.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' };
        let name: String = name.trim().chars().map(plain).take(roster::NAME_BYTES_MAX).collect();
        Self { name: if roster::is_name(&name) { name } else { NAMELESS.to_owned() }, ..self }
    }

    /// What this node calls itself to members, unless the user says otherwise.
    #[must_use]
    pub fn own_name(&self) -> &str {
        &self.name
    }

    fn store(&self) -> &Store {
        &self.store
    }

    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn view(&self) -> RwLockReadGuard<'_, View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn local(&self) -> PeerId {
        self.identity.peer_id()
    }

    /// What a peer may do here: the highest of its roles over all groups. None for a stranger, and for one that is blocked.
    #[must_use]
    pub fn role(&self, peer: &PeerId) -> Option<Role> {
        self.view().members.get(peer).map(|member| member.role)
    }

    /// Every other machine of any group that is not blocked here, each once, with its highest role; by name.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        let mut members: Vec<Member> = self.view().members.values().cloned().collect();
        members.sort_by(|a, b| (&a.name, a.peer).cmp(&(&b.name, b.peer)));
        members
    }

    /// Whom a user means: by name, peer id, or characters of an id's end that fit one member only.
    ///
    /// # Errors
    /// When it is nobody, or several.
    pub fn find(&self, text: &str) -> Result<PeerId, FindMemberError> {
        let members = self.members();
        let named = |fits: &dyn Fn(&Member) -> bool| -> Vec<PeerId> {
            members.iter().filter(|member| fits(member)).map(|member| member.peer).collect()
        };
        let ends = |member: &Member| {
            let id = member.peer.to_string();
            id.ends_with(text) || short_id(&member.peer).starts_with(text)
        };
        let mut found = named(&|member| member.name == text || member.peer.to_string() == text);
        if found.is_empty() && text.len() >= FIND_CHARS_MIN {
            found = named(&ends);
        }
        let text = text.chars().take(100).collect();
        match found.as_slice() {
            [] => Err(FindMemberError::Unknown { text }),
            [one] => Ok(*one),
            _ => Err(FindMemberError::Ambiguous { text, peers: found }),
        }
    }

    /// What people call a peer: its name, or the end of its id for a stranger.
    #[must_use]
    pub fn name(&self, peer: &PeerId) -> String {
        self.view().members.get(peer).map_or_else(|| short_id(peer), |member| member.name.clone())
    }

    /// The groups this node is in, its own first.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupInfo> {
        let (view, local) = (self.view(), self.local());
        let info = |signed: &SignedRoster| GroupInfo {
            founder: signed.roster.founder,
            mine: signed.roster.founder == local,
            serial: signed.roster.serial,
            role: signed.roster.member(&local).map_or(Role::Fetch, |member| member.role),
        };
        let mut groups: Vec<GroupInfo> = view.rosters.values().map(info).collect();
        groups.sort_by_key(|group| (!group.mine, group.founder));
        groups
    }

    /// Every other machine of every group, once for each of its groups and blocked ones too: for people.
    #[must_use]
    pub fn everyone(&self) -> Vec<(Member, bool)> {
        let (view, local) = (self.view(), self.local());
        let of = |signed: &SignedRoster| {
            let founder = signed.roster.founder;
            let entries = signed.roster.members.iter().filter(|member| member.peer != local).map(|member| Member {
                peer: member.peer,
                name: member.name.clone(),
                role: member.role,
                group: founder,
                founder: member.peer == founder,
            });
            entries.collect::<Vec<_>>()
        };
        let all = view.rosters.values().flat_map(of);
        all.map(|member| (member.clone(), view.blocked.contains(&member.peer))).collect()
    }

    /// The peers that are blocked here.
    #[must_use]
    pub fn blocked(&self) -> Vec<PeerId> {
        self.view().blocked.iter().copied().collect()
    }

    fn roster_of(&self, founder: &PeerId) -> Option<SignedRoster> {
        self.view().rosters.get(founder).cloned()
    }

    /// Changes the view by what `make` does to a copy of it, once the rows it names are in the store; nothing changes when either
    /// fails. Blocking.
    fn change(&self, make: impl FnOnce(&mut View, &mut Rows) -> Result<(), GroupError>) -> Result<(), GroupError> {
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
    fn enter(&self, signed: SignedRoster) -> Result<(), GroupError> {
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
    fn saw(&self, peer: &PeerId, seen: &[Multiaddr]) -> bool {
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

    /// Whether this machine's user blocked a peer.
    #[must_use]
    pub fn is_blocked(&self, peer: &PeerId) -> bool {
        self.view().blocked.contains(peer)
    }

    /// Changes whenever a roster or a block does: to be waited on instead of polling.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

impl fmt::Debug for Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let view = self.view();
        write!(f, "Groups({} groups, {} members)", view.rosters.len(), view.members.len())
    }
}

fn put(view: &mut View, rows: &mut Rows, signed: SignedRoster) {
    rows.push((roster_key(&signed.roster.founder), Some(signed.as_bytes().to_vec())));
    view.rosters.insert(signed.roster.founder, signed);
}

fn peer_key(row: u8, peer: &PeerId) -> Vec<u8> {
    [&[row], peer.to_bytes().as_slice()].concat()
}

fn roster_key(founder: &PeerId) -> Vec<u8> {
    peer_key(ROSTER_ROW, founder)
}

fn read_addresses(value: &[u8]) -> Vec<Multiaddr> {
    let list: Vec<serde_bytes::ByteBuf> = serde_ipld_dagcbor::from_slice(value).unwrap_or_default();
    list.iter().take(ADDRESSES_MAX).filter_map(|bytes| ticket::address(bytes)).collect()
}

/// The end of a peer id, for people.
#[must_use]
pub fn short_id(peer: &PeerId) -> String {
    let id = peer.to_string();
    let start = id.len().saturating_sub(SHORT_ID_CHARS);
    id.get(start..).unwrap_or(&id).to_owned()
}

/// The ed25519 key that a peer id is made of; none when it is of another kind.
#[must_use]
pub fn key_of(peer: &PeerId) -> Option<[u8; 32]> {
    // Libp2p's identity multihash: the key itself.
    let public = PublicKey::try_decode_protobuf(peer.as_ref().digest()).ok()?.try_into_ed25519().ok()?;
    Some(public.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use roster::RosterMember;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), store::Options::default()).unwrap();
        (dir, store)
    }

    fn keep(store: &Store, founder: &Identity, members: &[(PeerId, &str, Role)]) {
        let row = |(peer, name, role): &(PeerId, &str, Role)| RosterMember {
            peer: *peer,
            key: key_of(peer).unwrap(),
            name: (*name).to_owned(),
            role: *role,
            since: 1,
        };
        let founder_id = founder.peer_id();
        let members = members.iter().chain([&(founder_id, "founder", Role::Sign)]).map(row).collect();
        let signed = Roster { founder: founder_id, serial: 1, members }.sign(founder);
        store.put_row(RowTable::Groups, &roster_key(&founder_id), signed.as_bytes()).unwrap();
    }

    #[test]
    fn a_member_has_its_highest_role_and_is_found_by_name_and_id() {
        let (_dir, store) = store();
        let [me, one, two] = [0; 3].map(|_| Identity::generate());
        let [weak, strong] = [0; 2].map(|_| Identity::generate().peer_id());
        let (id, here) = (me.peer_id(), "here");
        keep(&store, &one, &[(id, here, Role::Fetch), (weak, "weak", Role::Fetch), (strong, "strong", Role::Sign)]);
        keep(&store, &two, &[(id, here, Role::Sign), (weak, "weak", Role::Build)]);
        let groups = Groups::open(&store, me).unwrap();
        assert_eq!(groups.role(&weak), Some(Role::Build));
        assert_eq!(groups.role(&strong), Some(Role::Sign));
        assert_eq!((groups.role(&id), groups.role(&PeerId::random())), (None, None));
        let members = groups.members();
        assert_eq!(
            members.iter().map(|member| member.name.as_str()).collect::<Vec<_>>(),
            ["founder", "founder", "strong", "weak"]
        );
        let found = members.iter().find(|member| member.peer == weak).unwrap();
        assert_eq!((found.group, found.founder), (two.peer_id(), false));
        assert_eq!(groups.find("weak"), Ok(weak));
        assert_eq!(groups.find(&strong.to_string()), Ok(strong));
        assert_eq!(groups.find(&short_id(&strong)), Ok(strong));
        assert!(matches!(groups.find("founder"), Err(FindMemberError::Ambiguous { peers, .. }) if peers.len() == 2));
        assert!(matches!(groups.find(&id.to_string()), Err(FindMemberError::Unknown { .. })));
        assert!(groups.find("").is_err());
        let stranger = PeerId::random();
        assert_eq!((groups.name(&weak), groups.name(&stranger)), ("weak".to_owned(), short_id(&stranger)));
    }

    #[test]
    fn a_key_is_read_from_its_peer_id_and_gives_it_again() {
        let peer = Identity::generate().peer_id();
        let key = key_of(&peer).unwrap();
        assert_eq!(crate::builds::claim::peer_id(&key), Some(peer));
        assert_eq!(key_of(&PeerId::random()), None);
    }
}
