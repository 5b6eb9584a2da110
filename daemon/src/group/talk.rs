//! Both ends of what members say to each other: joining with a ticket, asking for newer rosters, giving them, leaving.
//!
//! Who asks is known by its key (the connection proves it), and a roster by its founder's signature: so a roster may come from anybody.
//! That this node is no longer a member is believed of the founder only.

use super::roster::{SignedRoster, is_name};
use super::ticket::Ticket;
use super::words::{Ask, JoinRefusal, Said, Seen};
use super::{GroupError, Groups, Role, key_of};
use crate::blocking;
use crate::domain::Domain;
use crate::statement::peer_id;
use crate::swarm::{Multiaddr, OpenError, PeerId, Topic, believable};
use serde_bytes::ByteBuf;
use std::sync::Arc;
use std::time::Duration;

/// How long the founder is waited for: dialling takes a while from far away.
const JOIN_MAX: Duration = Duration::from_secs(20);
/// How long a member is waited for.
const TALK_MAX: Duration = Duration::from_secs(5);

/// Why this node did not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The ticket is this node's own.
    #[error("this is a ticket of this very machine: use it on the one that is to join")]
    Own,
    /// The name cannot be one.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// Nobody was there.
    #[error("the founder cannot be reached at {}: {why}", list(addresses))]
    Unreached {
        /// Where it was looked for.
        addresses: Vec<Multiaddr>,
        /// What happened.
        why: String,
    },
    /// It said no.
    #[error("{0}")]
    Refused(JoinRefusal),
    /// It said something else.
    #[error("the founder's answer is no roster with this machine on it")]
    Garbled,
}

/// What people need of it; libp2p's own words tell every attempt at every address twice.
fn in_short(error: &OpenError) -> String {
    match error {
        OpenError::Unreachable { .. } => "nobody with the key of the ticket answers there".to_owned(),
        OpenError::NoAnswer { after, .. } => format!("no answer within {} s", after.as_secs()),
        other => other.to_string(),
    }
}

fn list(addresses: &[Multiaddr]) -> String {
    if addresses.is_empty() {
        return "any address: the ticket has none".to_owned();
    }
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A group that was joined.
#[derive(Clone, Debug)]
pub struct Joined {
    /// Its founder.
    pub group: PeerId,
    /// What this node may do in it.
    pub role: Role,
    /// What this node is called in it.
    pub name: String,
}

impl Groups {
    /// Answers a peer, whoever it is. Blocking.
    #[must_use]
    pub(crate) fn answer(&self, peer: &PeerId, question: &[u8]) -> Option<Vec<u8>> {
        let said = match Ask::decode(question)? {
            Ask::Join { secret, name } => match self.admit(peer, &secret, &name) {
                Ok(signed) => self.roster_answer(&signed, peer),
                Err(why) => Said::Refused { why },
            },
            Ask::Roster { group, serial } => self.newer(peer, &group, serial)?,
            // Reading a roster costs: only who is on one may give one.
            Ask::Give { roster } if self.is_on_a_roster(peer) => self.given(peer, &roster)?,
            Ask::Give { .. } => return None,
            Ask::Leave {} => {
                let left = self.revoke(peer);
                if let Err(error) = &left {
                    tracing::error!(%peer, %error, "a member cannot leave");
                }
                left.is_ok().then_some(Said::Taken {})?
            }
        };
        Some(said.encode())
    }

    fn is_on_a_roster(&self, peer: &PeerId) -> bool {
        self.view().rosters.values().any(|signed| signed.roster.member(peer).is_some())
    }

    fn roster_answer(&self, signed: &SignedRoster, to: &PeerId) -> Said {
        Said::Roster { roster: ByteBuf::from(signed.as_bytes()), seen: self.seen(signed, to) }
    }

    /// Where the members of a group were seen, for one of them.
    fn seen(&self, signed: &SignedRoster, to: &PeerId) -> Vec<Seen> {
        let others = signed.roster.members.iter().filter(|member| member.peer != *to);
        let seen = others.map(|member| (member.peer, self.addresses(&member.peer)));
        seen.filter(|(_, addresses)| !addresses.is_empty()).map(|(peer, seen)| Seen::new(&peer, &seen)).collect()
    }

    /// Names and addresses are told to members only.
    fn newer(&self, peer: &PeerId, group: &[u8], serial: u64) -> Option<Said> {
        let founder = peer_id(group.try_into().ok()?)?;
        let known = self.roster_of(&founder);
        if known.is_none() && founder == self.local() {
            // A founder that lost its store does not know who is in: its word would scatter the group.
            return None;
        }
        let Some(signed) = known.filter(|signed| signed.roster.member(peer).is_some()) else {
            return Some(Said::Stranger {});
        };
        if self.is_blocked(peer) {
            return None;
        }
        Some(if signed.roster.serial > serial {
            self.roster_answer(&signed, peer)
        } else {
            Said::Current { serial: signed.roster.serial, seen: self.seen(&signed, peer) }
        })
    }

    fn given(&self, peer: &PeerId, roster: &[u8]) -> Option<Said> {
        let signed = SignedRoster::try_from(roster);
        let accepted = signed.map_err(|error| tracing::info!(%peer, %error, "a peer gave something that is no roster"));
        match self.accept(accepted.ok()?) {
            Ok(_) => Some(Said::Taken {}),
            Err(error) => {
                tracing::error!(%error, "a newer roster cannot be kept");
                None
            }
        }
    }

    /// Takes hints of where members are: such as who tells may lead us to. Blocking.
    fn hear_of(&self, from: &PeerId, seen: &[Seen]) {
        let teller = self.addresses(from);
        for (peer, told) in seen.iter().filter_map(Seen::read).filter(|(peer, _)| *peer != self.local()) {
            let addresses = believable(&told, &teller);
            // What was seen here counts more than what is told.
            if self.addresses(&peer).is_empty() {
                self.saw(&peer, &addresses);
            }
        }
    }
}

/// Joins the group of a ticket. The member that is told is this node, by its own name unless another is said.
///
/// Cancel safe: yes; the founder may have written this node down then, and says the same again.
///
/// # Errors
/// See [`JoinError`].
pub async fn join(domain: &Arc<Domain>, ticket: &Ticket, name: Option<&str>) -> Result<Joined, JoinError> {
    let groups = &domain.groups;
    if ticket.founder == groups.local() {
        return Err(JoinError::Own);
    }
    let name = name.unwrap_or(groups.own_name());
    if !is_name(name) {
        return Err(GroupError::name(name).into());
    }
    let ask = Ask::Join { secret: ByteBuf::from(ticket.secret), name: name.to_owned() };
    let addresses = ticket.addresses.clone();
    let answer = domain.swarm.ask_at(ticket.founder, addresses.clone(), Topic::Group, ask.encode(), JOIN_MAX).await;
    let answer = answer.map_err(|error| {
        tracing::info!(founder = %ticket.founder, %error, "not joined");
        JoinError::Unreached { addresses: addresses.clone(), why: in_short(&error) }
    })?;
    let (roster, seen) = match Said::decode(&answer) {
        Some(Said::Roster { roster, seen }) => (roster, seen),
        Some(Said::Refused { why }) => return Err(JoinError::Refused(why)),
        _ => return Err(JoinError::Garbled),
    };
    let (groups, founder) = (Arc::clone(groups), ticket.founder);
    blocking::run(move || {
        let signed = SignedRoster::try_from(roster.as_slice()).map_err(|_| JoinError::Garbled)?;
        let own = signed.roster.member(&groups.local()).cloned().ok_or(JoinError::Garbled)?;
        if signed.roster.founder != founder {
            return Err(JoinError::Garbled);
        }
        groups.enter(signed)?;
        groups.saw(&founder, &addresses);
        groups.hear_of(&founder, &seen);
        Ok(Joined { group: founder, role: own.role, name: own.name })
    })
    .await
}

/// Makes the rosters of all groups that are shared with a member the same here and there, as far as it answers.
///
/// Cancel safe: yes.
pub(super) async fn compare(domain: &Arc<Domain>, peer: PeerId) {
    let shared: Vec<SignedRoster> = {
        let view = domain.groups.view();
        view.rosters.values().filter(|signed| signed.roster.member(&peer).is_some()).cloned().collect()
    };
    let at = domain.swarm.addresses_of(&peer);
    let groups = Arc::clone(&domain.groups);
    blocking::run(move || groups.saw(&peer, &at)).await;
    for signed in shared {
        if let Err(error) = compare_one(domain, peer, signed).await {
            tracing::debug!(%peer, %error, "a member does not speak of its group");
            return;
        }
    }
}

async fn compare_one(domain: &Arc<Domain>, peer: PeerId, known: SignedRoster) -> Result<(), OpenError> {
    let founder = known.roster.founder;
    let Some(key) = key_of(&founder) else { return Ok(()) };
    let ask = Ask::Roster { group: ByteBuf::from(key), serial: known.roster.serial };
    let answer = domain.swarm.ask(peer, Topic::Group, ask.encode(), TALK_MAX).await?;
    let groups = Arc::clone(&domain.groups);
    match Said::decode(&answer) {
        Some(Said::Roster { roster, seen }) => {
            blocking::run(move || {
                let taken = groups.given(&peer, &roster);
                groups.hear_of(&peer, &seen);
                taken.is_some()
            })
            .await;
        }
        Some(Said::Current { serial, seen }) => {
            if serial < known.roster.serial {
                give(domain, peer, &known).await?;
            }
            blocking::run(move || groups.hear_of(&peer, &seen)).await;
        }
        // Only the founder's word takes this node out; a member may not have heard of it yet.
        Some(Said::Stranger {}) if peer == founder => {
            let left = blocking::run(move || groups.leave(&founder)).await;
            tracing::warn!(group = %founder, ?left, "the founder says this machine is no member: the group is left");
        }
        Some(Said::Stranger {}) => give(domain, peer, &known).await?,
        _ => tracing::debug!(%peer, "a member says something else than was asked"),
    }
    Ok(())
}

/// Gives a roster to a peer: a member that has not heard of a change, or who was taken off.
///
/// Cancel safe: yes.
pub(super) async fn give(domain: &Arc<Domain>, peer: PeerId, signed: &SignedRoster) -> Result<(), OpenError> {
    let ask = Ask::Give { roster: ByteBuf::from(signed.as_bytes()) };
    domain.swarm.ask(peer, Topic::Group, ask.encode(), TALK_MAX).await.map(drop)
}

/// Leaves another's group, and tells its founder if it can be reached; false when this node is not in it.
///
/// Cancel safe: yes.
///
/// # Errors
/// When the store does not keep it.
pub async fn leave(domain: &Arc<Domain>, founder: PeerId) -> Result<bool, GroupError> {
    let groups = Arc::clone(&domain.groups);
    let was = groups.roster_of(&founder).is_some() && founder != groups.local();
    if was {
        let told = domain.swarm.ask(founder, Topic::Group, Ask::Leave {}.encode(), TALK_MAX).await;
        tracing::debug!(%founder, told = told.is_ok(), "leaving a group");
    }
    // The founder's new roster may have come in between: then this node has left already.
    blocking::run(move || groups.leave(&founder)).await.map(|left| left || was)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::ticket::SECRET_BYTES;
    use crate::swarm::Identity;
    use store::Store;

    fn groups(name: &str) -> (tempfile::TempDir, Groups) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), store::Options::default()).unwrap();
        (dir, Groups::open(&store, Identity::generate()).unwrap().named(name))
    }

    fn asks(to: &Groups, peer: &PeerId, ask: &Ask) -> Option<Said> {
        to.answer(peer, &ask.encode()).map(|said| Said::decode(&said).unwrap())
    }

    fn roster_of(founder: &Groups, serial: u64) -> Ask {
        Ask::Roster { group: ByteBuf::from(key_of(&founder.local()).unwrap()), serial }
    }

    /// A founder, and a member that joined over its words.
    fn two() -> (tempfile::TempDir, Groups, tempfile::TempDir, Groups) {
        let ((one, founder), (two, member)) = (groups("strong"), groups("weak"));
        let life = Duration::from_secs(60);
        let (ticket, _) = founder.invite(Role::Build, life, None, &[]).unwrap();
        let join = Ask::Join { secret: ByteBuf::from(ticket.secret), name: "weak".to_owned() };
        let Some(Said::Roster { roster, .. }) = asks(&founder, &member.local(), &join) else { panic!() };
        member.enter(SignedRoster::try_from(roster.as_slice()).unwrap()).unwrap();
        (one, founder, two, member)
    }

    #[test]
    fn names_and_addresses_are_for_members() {
        let (_one, founder, _two, member) = two();
        let address: Multiaddr = "/ip4/192.0.2.9/tcp/1".parse().unwrap();
        assert!(founder.saw(&member.local(), std::slice::from_ref(&address)));
        let stranger = Identity::generate().peer_id();
        assert!(!founder.saw(&stranger, &[address]), "of strangers nothing is kept");
        for serial in [0, 99] {
            assert_eq!(asks(&founder, &stranger, &roster_of(&founder, serial)), Some(Said::Stranger {}));
        }
        let guess = Ask::Join { secret: ByteBuf::from(vec![0; SECRET_BYTES]), name: "x".to_owned() };
        assert_eq!(asks(&founder, &stranger, &guess), Some(Said::Refused { why: JoinRefusal::Unknown }));
        let given = Ask::Give { roster: ByteBuf::from(founder.roster_of(&founder.local()).unwrap().as_bytes()) };
        assert_eq!(asks(&founder, &stranger, &given), None);
        assert_eq!(founder.answer(&stranger, b"garbage"), None);
        assert_eq!(
            asks(&founder, &member.local(), &roster_of(&founder, 2)),
            Some(Said::Current { serial: 2, seen: Vec::new() })
        );
        assert!(matches!(asks(&founder, &member.local(), &roster_of(&founder, 1)), Some(Said::Roster { .. })));
    }

    #[test]
    fn a_founder_that_lost_its_store_sends_nobody_away() {
        let ((_one, founder), stranger) = (groups("strong"), Identity::generate().peer_id());
        assert_eq!(asks(&founder, &stranger, &roster_of(&founder, 7)), None);
    }

    #[test]
    fn a_member_that_leaves_is_off_the_roster() {
        let (_one, founder, _two, member) = two();
        assert_eq!(asks(&founder, &member.local(), &Ask::Leave {}), Some(Said::Taken {}));
        assert_eq!(founder.role(&member.local()), None);
        assert_eq!(asks(&founder, &member.local(), &roster_of(&founder, 0)), Some(Said::Stranger {}));
    }

    #[test]
    fn who_is_taken_off_hears_it_from_whoever_has_the_roster() {
        let (_one, founder, _two, member) = two();
        founder.revoke(&member.local()).unwrap();
        let without = founder.roster_of(&founder.local()).unwrap();
        let given = Ask::Give { roster: ByteBuf::from(without.as_bytes()) };
        assert_eq!(asks(&member, &founder.local(), &given), Some(Said::Taken {}));
        assert!(member.groups().is_empty() && member.role(&founder.local()).is_none());
    }

    #[test]
    fn where_members_are_is_a_hint_that_gives_way_to_what_was_seen() {
        let (_one, founder, _two, member) = two();
        let addresses = |texts: &[&str]| -> Vec<Multiaddr> { texts.iter().map(|text| text.parse().unwrap()).collect() };
        let third = Identity::generate().peer_id();
        let life = Duration::from_secs(60);
        let (ticket, _) = founder.invite(Role::Sign, life, None, &[]).unwrap();
        founder.admit(&third, &ticket.secret, "third").unwrap();
        member.accept(founder.roster_of(&founder.local()).unwrap()).unwrap();
        member.saw(&founder.local(), &addresses(&["/ip4/192.0.2.1/tcp/1"]));
        let told = Seen::new(&third, &addresses(&["/ip4/127.0.0.1/tcp/9", "/ip4/192.0.2.3/tcp/1"]));
        let self_told = Seen::new(&member.local(), &addresses(&["/ip4/192.0.2.66/tcp/1"]));
        let stranger = Seen::new(&Identity::generate().peer_id(), &addresses(&["/ip4/192.0.2.77/tcp/1"]));
        member.hear_of(&founder.local(), &[told, self_told, stranger.clone()]);
        assert_eq!(member.addresses(&third), addresses(&["/ip4/192.0.2.3/tcp/1"]), "no loopback from afar");
        assert!(member.addresses(&member.local()).is_empty());
        assert!(member.addresses(&stranger.read().unwrap().0).is_empty());
        let seen = addresses(&["/ip4/192.0.2.4/tcp/1"]);
        assert!(member.saw(&third, &seen) && !member.saw(&third, &seen));
        member.hear_of(&founder.local(), &[Seen::new(&third, &addresses(&["/ip4/192.0.2.3/tcp/1"]))]);
        assert_eq!(member.addresses(&third), seen);
    }
}
