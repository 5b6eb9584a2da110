//! The founder's part: tickets, who came with them, and who is taken off the roster.
//!
//! Of a ticket only the digest of its secret is kept. Who joins with it and the roster that says so are written in one step: a crash
//! leaves both or neither, and a ticket lets in one machine only. The same machine asking again gets the same answer, so that an
//! answer that was lost does no harm.

use super::roster::{MEMBERS_MAX, NAME_BYTES_MAX, Roster, RosterMember, SignedRoster, is_name};
use super::ticket::{ADDRESSES_MAX, SECRET_BYTES, Ticket};
use super::words::JoinRefusal;
use super::{GroupError, Groups, Role, key_of, roster_key};
use crate::stats::now_s;
use crate::swarm::{Multiaddr, PeerId};
use rand::RngCore as _;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::time::Duration;
use store::RowTable;
use tree::digest::Digest;

const TICKET_ROW: u8 = b't';
/// Tickets that are kept, open or not.
const TICKETS_MAX: usize = 1000;
/// Tickets that ended so long ago are forgotten when a new one is made.
const FORGET_AFTER_S: u64 = 30 * 86_400;
/// No ticket is good for longer.
pub const TICKET_LIFE_MAX: Duration = Duration::from_secs(7 * 86_400);
/// Hex digits that name a ticket for people.
const ID_CHARS: usize = 8;
/// The form of a ticket's row.
const VERSION: u8 = 1;

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TicketRow {
    v: u8,
    role: Role,
    /// What the founder's user wants the machine to be called.
    name: Option<String>,
    made_at: u64,
    until: u64,
    revoked: bool,
    used_by: Option<ByteBuf>,
}

/// What became of a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TicketState {
    /// Nobody came yet.
    Open,
    /// Somebody joined with it.
    Used,
    /// Nobody came in time.
    Expired,
    /// The user took it back.
    Revoked,
}

/// A ticket of this founder, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invitation {
    /// Eight hex digits.
    pub id: String,
    /// What who joins may do.
    pub role: Role,
    /// What became of it.
    pub state: TicketState,
    /// Who joined with it.
    pub used_by: Option<PeerId>,
    /// Seconds since the epoch.
    pub expires_at: u64,
}

impl TicketRow {
    fn state(&self, now_s: u64) -> TicketState {
        match (&self.used_by, self.revoked) {
            (Some(_), _) => TicketState::Used,
            (None, true) => TicketState::Revoked,
            (None, false) if now_s >= self.until => TicketState::Expired,
            (None, false) => TicketState::Open,
        }
    }

    fn used_by(&self) -> Option<PeerId> {
        self.used_by.as_ref().and_then(|bytes| PeerId::from_bytes(bytes).ok())
    }

    fn encode(&self) -> Vec<u8> {
        serde_ipld_dagcbor::to_vec(self).expect("text, numbers and bytes always have a DAG-CBOR form")
    }
}

fn ticket_key(digest: &Digest) -> Vec<u8> {
    [&[TICKET_ROW], digest.as_bytes().as_slice()].concat()
}

fn id_of(digest: &Digest) -> String {
    digest.to_string().chars().take(ID_CHARS).collect()
}

impl Groups {
    /// Makes a ticket for one machine; the first one founds this node's group. Blocking.
    ///
    /// # Errors
    /// When life or name cannot be meant, there are too many tickets or groups, or the store does not keep it.
    pub fn invite(
        &self,
        role: Role,
        life: Duration,
        name: Option<&str>,
        addresses: &[Multiaddr],
    ) -> Result<(Ticket, Invitation), GroupError> {
        if life.is_zero() || life > TICKET_LIFE_MAX {
            return Err(GroupError::Life);
        }
        if let Some(name) = name.filter(|name| !is_name(name)) {
            return Err(GroupError::name(name));
        }
        let key = key_of(&self.local()).ok_or(GroupError::Key)?;
        let mut secret = [0; SECRET_BYTES];
        rand::rngs::OsRng.fill_bytes(&mut secret);
        let now = now_s();
        let addresses: Vec<Multiaddr> = addresses.iter().take(ADDRESSES_MAX).cloned().collect();
        let expires_at = now + life.as_secs();
        let ticket = Ticket { founder: self.local(), key, addresses, secret, role, expires_at };
        let name = name.map(str::to_owned);
        let row = TicketRow { v: VERSION, role, name, made_at: now, until: expires_at, revoked: false, used_by: None };
        self.change(|view, rows| {
            let kept = self.ticket_rows()?;
            let old = |row: &TicketRow| row.state(now) != TicketState::Open && row.until + FORGET_AFTER_S < now;
            for (digest, _) in kept.iter().filter(|(_, row)| old(row)) {
                rows.push((ticket_key(digest), None));
            }
            if kept.len() - rows.len() >= TICKETS_MAX {
                return Err(GroupError::TooMany { what: "tickets", max: TICKETS_MAX });
            }
            if !view.rosters.contains_key(&self.local()) {
                view.room()?;
                let members = vec![self.founder_entry(key, now)];
                self.reissue(view, rows, Roster { founder: self.local(), serial: 0, members });
            }
            rows.push((ticket_key(&ticket.digest()), Some(row.encode())));
            Ok(())
        })?;
        let id = id_of(&ticket.digest());
        Ok((ticket, Invitation { id, role, state: TicketState::Open, used_by: None, expires_at }))
    }

    fn founder_entry(&self, key: [u8; 32], since: u64) -> RosterMember {
        RosterMember { peer: self.local(), key, name: self.own_name().to_owned(), role: Role::Sign, since }
    }

    /// Signs the roster with the next serial and puts it where it belongs.
    fn reissue(&self, view: &mut super::View, rows: &mut super::Rows, mut roster: Roster) {
        roster.serial += 1;
        let signed = roster.sign(self.identity());
        rows.push((roster_key(&self.local()), Some(signed.as_bytes().to_vec())));
        view.rosters.insert(self.local(), signed);
    }

    fn ticket_rows(&self) -> Result<Vec<(Digest, TicketRow)>, GroupError> {
        let rows = self.store().rows(RowTable::Groups, &[TICKET_ROW], None, TICKETS_MAX)?;
        let read = |(key, value): &(Vec<u8>, Vec<u8>)| {
            let digest = Digest::from_bytes(key.get(1..)?.try_into().ok()?);
            let row: TicketRow = serde_ipld_dagcbor::from_slice(value).ok()?;
            (row.v == VERSION).then_some((digest, row))
        };
        Ok(rows.iter().filter_map(read).collect())
    }

    fn ticket_row(&self, digest: &Digest) -> Option<TicketRow> {
        let value = self.store().row(RowTable::Groups, &ticket_key(digest)).ok()??;
        serde_ipld_dagcbor::from_slice(&value).ok().filter(|row: &TicketRow| row.v == VERSION)
    }

    /// The tickets of this founder, the newest first. Blocking.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn invitations(&self) -> Result<Vec<Invitation>, GroupError> {
        let (mut rows, now) = (self.ticket_rows()?, now_s());
        rows.sort_by_key(|(_, row)| std::cmp::Reverse((row.made_at, row.until)));
        let invitation = |(digest, row): &(Digest, TicketRow)| Invitation {
            id: id_of(digest),
            role: row.role,
            state: row.state(now),
            used_by: row.used_by(),
            expires_at: row.until,
        };
        Ok(rows.iter().map(invitation).collect())
    }

    /// Takes a ticket back, by its id or its whole text. Blocking.
    ///
    /// # Errors
    /// When there is no such ticket, somebody joined with it already, or the store does not keep it.
    pub fn revoke_ticket(&self, named: &str) -> Result<(), GroupError> {
        let whole = named.parse::<Ticket>().ok().map(|ticket| ticket.digest());
        let named = named.trim().to_ascii_lowercase();
        self.change(|_, rows| {
            let kept = self.ticket_rows()?;
            let fits = |digest: &Digest| match &whole {
                Some(whole) => digest == whole,
                None => named.len() >= ID_CHARS && digest.to_string().starts_with(&named),
            };
            let (digest, row) = kept.iter().find(|(digest, _)| fits(digest)).ok_or(GroupError::NoTicket)?;
            if let Some(peer) = row.used_by() {
                return Err(GroupError::TicketUsed { peer });
            }
            rows.push((ticket_key(digest), Some(TicketRow { revoked: true, ..row.clone() }.encode())));
            Ok(())
        })
    }

    /// Lets a machine in that shows a secret, or says why not. Blocking.
    ///
    /// # Errors
    /// See [`JoinRefusal`].
    pub(crate) fn admit(&self, peer: &PeerId, secret: &[u8], name: &str) -> Result<SignedRoster, JoinRefusal> {
        let digest = Digest::of(secret);
        // Strangers who guess do not make changes wait.
        if self.ticket_row(&digest).is_none() {
            return Err(JoinRefusal::Unknown);
        }
        let mut refused = None;
        let done = self.change(|view, rows| {
            let admitted = self.admitted(view, rows, peer, &digest, name)?;
            refused = admitted.err();
            Ok(())
        });
        match (done, refused) {
            (Ok(()), None) => self.roster_of(&self.local()).ok_or(JoinRefusal::Broken),
            (Ok(()), Some(why)) => Err(why),
            (Err(error), _) => {
                tracing::error!(%peer, %error, "a machine with a ticket could not be let in");
                Err(JoinRefusal::Broken)
            }
        }
    }

    fn admitted(
        &self,
        view: &mut super::View,
        rows: &mut super::Rows,
        peer: &PeerId,
        digest: &Digest,
        name: &str,
    ) -> Result<Result<(), JoinRefusal>, GroupError> {
        let (Some(row), Some(key)) = (self.ticket_row(digest), key_of(peer)) else {
            return Ok(Err(JoinRefusal::Unknown));
        };
        let Some(own) = view.rosters.get(&self.local()) else { return Ok(Err(JoinRefusal::Unknown)) };
        let known = own.roster.member(peer);
        match row.used_by() {
            Some(user) if user != *peer => return Ok(Err(JoinRefusal::Used)),
            Some(_) if known.is_some() => return Ok(Ok(())),
            Some(_) => return Ok(Err(JoinRefusal::Revoked)),
            None if row.revoked => return Ok(Err(JoinRefusal::Revoked)),
            None if row.state(now_s()) == TicketState::Expired => return Ok(Err(JoinRefusal::Expired)),
            None if known.is_none() && own.roster.members.len() >= MEMBERS_MAX => return Ok(Err(JoinRefusal::Full)),
            None if *peer == self.local() => return Ok(Err(JoinRefusal::Unknown)),
            None => {}
        }
        let mut roster = own.roster.clone();
        roster.members.retain(|member| member.peer != *peer);
        let wanted = row.name.as_deref().unwrap_or(name);
        let name = free_name(&roster, wanted, peer);
        tracing::info!(%peer, name, role = %row.role, "a machine joined the group");
        roster.members.push(RosterMember { peer: *peer, key, name, role: row.role, since: now_s() });
        self.reissue(view, rows, roster);
        let used = TicketRow { used_by: Some(ByteBuf::from(peer.to_bytes())), ..row };
        rows.push((ticket_key(digest), Some(used.encode())));
        Ok(Ok(()))
    }

    /// Takes a machine off this founder's roster; false when it is not on it, and of the founder itself. Blocking.
    ///
    /// # Errors
    /// When the store does not keep it.
    pub fn revoke(&self, peer: &PeerId) -> Result<bool, GroupError> {
        if *peer == self.local() {
            return Ok(false);
        }
        let mut was = false;
        self.change(|view, rows| {
            let Some(own) = view.rosters.get(&self.local()) else { return Ok(()) };
            let mut roster = own.roster.clone();
            let before = roster.members.len();
            roster.members.retain(|member| member.peer != *peer);
            was = roster.members.len() < before;
            if was {
                tracing::info!(%peer, "taken off the roster");
                self.reissue(view, rows, roster);
            }
            Ok(())
        })?;
        Ok(was)
    }
}

/// The name, or with a number behind it when another member has it.
fn free_name(roster: &Roster, wanted: &str, peer: &PeerId) -> String {
    let wanted = if is_name(wanted) { wanted.to_owned() } else { super::short_id(peer) };
    let taken = |name: &str| roster.members.iter().any(|member| member.name == name);
    let numbered = (2..).map(|number: usize| {
        let end = format!("-{number}");
        let start: String = wanted.chars().take(NAME_BYTES_MAX - end.len()).collect();
        format!("{start}{end}")
    });
    // Some number is free: there are fewer members than numbers.
    std::iter::once(wanted.clone()).chain(numbered).find(|name| !taken(name)).unwrap_or(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::{Accepted, FindMemberError};
    use crate::swarm::Identity;
    use store::Store;

    const LONG: Duration = Duration::from_secs(600);

    struct Node {
        dir: tempfile::TempDir,
        identity: Identity,
        groups: Groups,
    }

    impl Node {
        fn new(name: &str) -> Self {
            let (dir, identity) = (tempfile::tempdir().unwrap(), Identity::generate());
            let groups = open(&dir, &identity).named(name);
            Self { dir, identity, groups }
        }

        fn id(&self) -> PeerId {
            self.identity.peer_id()
        }

        /// The same after a restart.
        fn again(self) -> Self {
            let Self { dir, identity, groups } = self;
            drop(groups);
            let groups = open(&dir, &identity);
            Self { dir, identity, groups }
        }

        fn joins(&self, founder: &Self, role: Role) -> Ticket {
            let (ticket, _) = founder.groups.invite(role, LONG, None, &[]).unwrap();
            let name = self.groups.own_name().to_owned();
            let roster = founder.groups.admit(&self.id(), &ticket.secret, &name).unwrap();
            self.groups.enter(roster).unwrap();
            ticket
        }

        fn roster(&self, founder: &Self) -> SignedRoster {
            self.groups.roster_of(&founder.id()).unwrap()
        }
    }

    fn open(dir: &tempfile::TempDir, identity: &Identity) -> Groups {
        let store = Store::open(dir.path(), store::Options::default()).unwrap();
        Groups::open(&store, identity.clone()).unwrap()
    }

    #[test]
    fn a_ticket_lets_one_machine_in_and_says_the_same_to_it_again() {
        let (founder, weak, late) = (Node::new("strong"), Node::new("weak"), Node::new("late"));
        let ticket = weak.joins(&founder, Role::Build);
        assert_eq!(founder.groups.role(&weak.id()), Some(Role::Build));
        assert_eq!(weak.groups.role(&founder.id()), Some(Role::Sign));
        let admit = |node: &Node| founder.groups.admit(&node.id(), &ticket.secret, "x");
        assert_eq!(admit(&weak).unwrap(), founder.roster(&founder), "a lost answer does no harm");
        assert_eq!(admit(&late), Err(JoinRefusal::Used));
        assert_eq!(founder.groups.admit(&late.id(), &[0; SECRET_BYTES], "x"), Err(JoinRefusal::Unknown));
        let invitation = &founder.groups.invitations().unwrap()[0];
        assert_eq!((invitation.state, invitation.used_by), (TicketState::Used, Some(weak.id())));
        assert!(matches!(founder.groups.revoke_ticket(&invitation.id), Err(GroupError::TicketUsed { .. })));
        assert!(founder.groups.revoke(&weak.id()).unwrap());
        let again = founder.groups.admit(&weak.id(), &ticket.secret, "x");
        assert_eq!(again, Err(JoinRefusal::Revoked), "a used ticket is no way back in");
    }

    #[test]
    fn all_of_it_survives_a_restart() {
        let (founder, weak) = (Node::new("strong"), Node::new("weak"));
        let ticket = weak.joins(&founder, Role::Fetch);
        let (open, _) = founder.groups.invite(Role::Sign, LONG, Some("named"), &[]).unwrap();
        assert!(weak.groups.block(&founder.id()).unwrap());
        let (founder, weak) = (founder.again(), weak.again());
        assert_eq!((weak.groups.role(&founder.id()), weak.groups.is_blocked(&founder.id())), (None, true));
        assert!(weak.groups.unblock(&founder.id()).unwrap() && !weak.groups.unblock(&founder.id()).unwrap());
        assert_eq!(weak.groups.role(&founder.id()), Some(Role::Sign));
        let late = Node::new("late");
        assert_eq!(founder.groups.admit(&late.id(), &ticket.secret, "x"), Err(JoinRefusal::Used));
        founder.groups.admit(&late.id(), &open.secret, "late").unwrap();
        assert_eq!(founder.groups.find("named"), Ok(late.id()), "the founder's word on the name counts");
    }

    #[test]
    fn tickets_expire_are_taken_back_and_are_good_for_a_week_at_most() {
        let (founder, weak) = (Node::new("strong"), Node::new("weak"));
        let week = TICKET_LIFE_MAX + Duration::from_secs(1);
        for life in [Duration::ZERO, week] {
            assert!(matches!(founder.groups.invite(Role::Fetch, life, None, &[]), Err(GroupError::Life)));
        }
        assert!(matches!(founder.groups.invite(Role::Fetch, LONG, Some("a b"), &[]), Err(GroupError::Name { .. })));
        assert!(founder.groups.groups().is_empty(), "nothing is founded by a mistake");
        let (by_id, first) = founder.groups.invite(Role::Fetch, LONG, None, &[]).unwrap();
        let (by_text, _) = founder.groups.invite(Role::Fetch, LONG, None, &[]).unwrap();
        founder.groups.revoke_ticket(&first.id).unwrap();
        founder.groups.revoke_ticket(&by_text.to_string()).unwrap();
        for ticket in [by_id, by_text] {
            assert_eq!(founder.groups.admit(&weak.id(), &ticket.secret, "x"), Err(JoinRefusal::Revoked));
        }
        assert!(matches!(founder.groups.revoke_ticket("00000000"), Err(GroupError::NoTicket)));
        let (old, _) = founder.groups.invite(Role::Fetch, LONG, None, &[]).unwrap();
        let row = TicketRow { until: now_s(), ..founder.groups.ticket_row(&old.digest()).unwrap() };
        founder.groups.store().put_row(RowTable::Groups, &ticket_key(&old.digest()), &row.encode()).unwrap();
        assert_eq!(founder.groups.admit(&weak.id(), &old.secret, "x"), Err(JoinRefusal::Expired));
        assert_eq!(founder.groups.groups().len(), 1);
    }

    #[test]
    fn a_roster_never_goes_back_and_who_is_off_it_leaves() {
        let (founder, weak, other) = (Node::new("strong"), Node::new("weak"), Node::new("other"));
        weak.joins(&founder, Role::Build);
        let old = founder.roster(&founder);
        other.joins(&founder, Role::Sign);
        let with_both = founder.roster(&founder);
        assert_eq!(weak.groups.accept(with_both.clone()).unwrap(), Accepted::Newer);
        assert_eq!(weak.groups.role(&other.id()), Some(Role::Sign));
        assert_eq!(weak.groups.accept(old).unwrap(), Accepted::Nothing);
        assert_eq!(weak.groups.role(&other.id()), Some(Role::Sign), "a replayed roster does nothing");
        assert!(founder.groups.revoke(&weak.id()).unwrap());
        let without = founder.roster(&founder);
        assert_eq!(other.groups.accept(without.clone()).unwrap(), Accepted::Newer);
        assert_eq!(other.groups.role(&weak.id()), None);
        assert_eq!(weak.groups.accept(without).unwrap(), Accepted::Left);
        assert_eq!((weak.groups.members(), weak.groups.groups()), (Vec::new(), Vec::new()));
        assert_eq!(weak.groups.accept(with_both).unwrap(), Accepted::Nothing, "a group that was left stays left");
        assert!(!founder.groups.revoke(&founder.id()).unwrap(), "the founder stays");
        assert!(!founder.groups.leave(&founder.id()).unwrap());
        let weak = weak.again();
        assert!(weak.groups.groups().is_empty());
    }

    #[test]
    fn equal_names_get_numbers_and_a_strange_one_the_end_of_the_id() {
        let (founder, one, two, strange) = (Node::new("box"), Node::new("box"), Node::new("box"), Node::new("box"));
        one.joins(&founder, Role::Fetch);
        two.joins(&founder, Role::Fetch);
        assert_eq!(founder.groups.find("box-2"), Ok(one.id()));
        assert_eq!(founder.groups.find("box-3"), Ok(two.id()));
        let (ticket, _) = founder.groups.invite(Role::Fetch, LONG, None, &[]).unwrap();
        founder.groups.admit(&strange.id(), &ticket.secret, "../\u{1b}[31m").unwrap();
        assert_eq!(founder.groups.name(&strange.id()), crate::group::short_id(&strange.id()));
        let long = "x".repeat(NAME_BYTES_MAX);
        let roster = founder.roster(&founder).roster;
        let taken =
            Roster { members: vec![RosterMember { name: long.clone(), ..roster.members[0].clone() }], ..roster };
        let free = free_name(&taken, &long, &one.id());
        assert!(is_name(&free) && free.ends_with("x-2"), "{free}");
    }

    #[test]
    fn a_blocked_member_is_nobody_here_but_its_user_can_still_be_told_of_it() {
        let (founder, weak, other) = (Node::new("strong"), Node::new("weak"), Node::new("other"));
        weak.joins(&founder, Role::Build);
        other.joins(&founder, Role::Sign);
        weak.groups.accept(founder.roster(&founder)).unwrap();
        assert!(weak.groups.block(&other.id()).unwrap());
        assert_eq!(weak.groups.role(&other.id()), None);
        assert!(matches!(weak.groups.find("other"), Err(FindMemberError::Unknown { .. })));
        assert_eq!(weak.groups.find_even_blocked("other"), Ok(other.id()));
        let everyone = weak.groups.everyone();
        assert_eq!(everyone.iter().filter(|(_, blocked)| *blocked).count(), 1);
        assert_eq!(everyone.len(), 2);
    }

    #[test]
    fn a_machine_is_in_sixteen_groups_at_most() {
        let weak = Node::new("weak");
        for number in 0..crate::group::GROUPS_MAX {
            let founder = Node::new(&format!("strong{number}"));
            weak.joins(&founder, Role::Build);
        }
        let founder = Node::new("strong");
        let (ticket, _) = founder.groups.invite(Role::Build, LONG, None, &[]).unwrap();
        let roster = founder.groups.admit(&weak.id(), &ticket.secret, "weak").unwrap();
        assert!(matches!(weak.groups.enter(roster), Err(GroupError::TooMany { max: 16, .. })));
        assert!(matches!(weak.groups.invite(Role::Build, LONG, None, &[]), Err(GroupError::TooMany { max: 16, .. })));
    }
}
