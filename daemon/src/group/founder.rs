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
    pub(super) fn admit(&self, peer: &PeerId, secret: &[u8], name: &str) -> Result<SignedRoster, JoinRefusal> {
        let digest = Digest::of(secret);
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
        let found = self.ticket_rows()?.into_iter().find(|(known, _)| known == digest);
        let (Some((_, row)), Some(key)) = (found, key_of(peer)) else { return Ok(Err(JoinRefusal::Unknown)) };
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
