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
//! what others ask; `changes` is how they change; [`founder`] lets machines in and takes them off; [`words`] is what members say to each
//! other, [`talk`] both ends of it, and [`gossip`] keeps members connected and rosters the same; [`explain`] says why somebody counts.
//!
//! # What holds
//! - A node is its key, never its address or name: a stranger behind the address of a member is a stranger.
//! - Only the founder invites, revokes and signs. A roster is persisted before it is used, and never gives way to a lower serial.
//! - Who is blocked here has no role here, whatever a roster says.

mod changes;
pub mod explain;
pub mod founder;
pub mod gossip;
mod role;
pub mod roster;
pub mod talk;
pub mod ticket;
pub mod words;

pub use changes::{Accepted, GroupError};
pub use role::{ParseRoleError, Role};

use crate::swarm::{Identity, Multiaddr, PeerId};
use changes::{Rows, read_addresses, roster_key};
use libp2p::identity::PublicKey;
use roster::{Roster, SignedRoster};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};
use store::{IndexError, RowTable, Store};
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

    /// As [`Groups::find`], blocked machines included: for what a user says of them.
    ///
    /// # Errors
    /// When it is nobody, or several.
    pub fn find_even_blocked(&self, text: &str) -> Result<PeerId, FindMemberError> {
        let named = |(member, _): &(Member, bool)| (member.name == text).then_some(member.peer);
        let blocked: BTreeSet<PeerId> =
            self.everyone().iter().filter(|(_, blocked)| *blocked).filter_map(named).collect();
        match (self.find(text), blocked.first()) {
            (Err(FindMemberError::Unknown { .. }), Some(peer)) => Ok(*peer),
            (found, _) => found,
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
        assert_eq!(crate::statement::peer_id(&key), Some(peer));
        assert_eq!(key_of(&PeerId::random()), None);
    }
}
