//! What a peer is to this machine, where it comes from, and what follows from how it behaved.
//!
//! **Who is blamed for what.** An offence is what a peer did over a stream that is authenticated as its own: bytes that are not
//! what the digest says, a message that is none, silence in a body it began. That it cannot be reached, is slow or busy,
//! or that a connection ended, lowers its rank and never bans it. Whom the user named is never banned.

use super::peers::Table;
use super::reach::ip;
use super::records::lock;
use super::scores::Offence;
use super::state::{Command, State};
use crate::budget::{Class, Origin, Who};
use libp2p::{Multiaddr, PeerId};
use std::collections::HashSet;
use std::time::Duration;
use tokio::time::Instant;

/// Peers whose addresses led nowhere that are remembered; about 100 bytes each.
const UNREACHED_MAX: usize = 1024;
/// How long the DHT is not believed that such a peer provides anything.
const UNREACHED_FOR: Duration = Duration::from_secs(600);
/// A peer of this score or a worse one is asked after the mirrors.
const DOUBTED: i64 = -20;
/// Peers remembered as having done something since the gate last looked.
const MOVED_MAX: usize = 1024;

/// What the swarm knows of peers beside whether they are connected.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// Listed, or dialled because the user said so.
    named: HashSet<PeerId>,
    /// Whom the DHT named at addresses where it was not, and until when that is remembered.
    unreached: Vec<(PeerId, Instant)>,
    moved: HashSet<PeerId>,
}

impl State {
    /// The user named this peer; or does not any longer.
    pub(super) fn name(&self, peer: PeerId, named: bool) {
        let mut standing = lock(self.standing());
        if named {
            standing.named.insert(peer);
        } else {
            standing.named.remove(&peer);
        }
    }

    /// Whether the user named this peer, or enrolled it.
    pub(super) fn is_named(&self, peer: &PeerId) -> bool {
        self.holdings().is_member(peer)
            || lock(self.standing()).named.contains(peer)
            || lock(&self.table).is_listed(peer)
    }

    /// Who a peer is to the budgets.
    pub(super) fn who(&self, peer: &PeerId) -> Who {
        let at = lock(&self.table).address(peer).cloned();
        self.who_at(peer, &at.unwrap_or_else(Multiaddr::empty), false)
    }

    /// As [`State::who`], of a peer at this address; `expected` says that the user named the address.
    pub(super) fn who_at(&self, peer: &PeerId, at: &Multiaddr, expected: bool) -> Who {
        let class = match expected || self.is_named(peer) {
            true => Class::Named,
            false if lock(&self.table).scores().is_good(peer) => Class::Good,
            false => Class::Stranger,
        };
        Who { class, origin: ip(at).map_or_else(Origin::default, Origin::of), peer: Some(*peer) }
    }

    /// A peer did something: its connections are not idle.
    pub(super) fn moved(&self, peer: PeerId) {
        let mut standing = lock(self.standing());
        if standing.moved.len() < MOVED_MAX {
            standing.moved.insert(peer);
        }
    }

    /// Who did something since this was last asked.
    pub(super) fn take_moved(&self) -> HashSet<PeerId> {
        std::mem::take(&mut lock(self.standing()).moved)
    }

    /// The DHT named a peer at addresses where it was not. That is no fault of the peer, but the record is not believed for a while.
    pub(super) fn not_reached(&self, peer: PeerId) {
        let now = Instant::now();
        let mut standing = lock(self.standing());
        standing.unreached.retain(|(other, until)| *other != peer && now < *until);
        if standing.unreached.len() >= UNREACHED_MAX {
            standing.unreached.remove(0);
        }
        standing.unreached.push((peer, now + UNREACHED_FOR));
    }

    /// Of those whom the DHT named: not who was not where it said. Whoever is connected is.
    pub(super) fn believable(&self, mut peers: Vec<PeerId>) -> Vec<PeerId> {
        let now = Instant::now();
        let unreached: HashSet<PeerId> = {
            let standing = lock(self.standing());
            standing.unreached.iter().filter(|(_, until)| now < *until).map(|(peer, _)| *peer).collect()
        };
        peers.retain(|peer| !unreached.contains(peer) || self.is_connected(peer));
        peers
    }

    /// Bytes of a peer were what the digest says.
    pub(super) fn praise(&self, peer: PeerId) {
        lock(&self.table).scores_mut().praise(peer, Instant::now());
    }

    pub(super) fn blame(&self, peer: PeerId, offence: Offence) {
        let named = self.is_named(&peer);
        if !offence.is_proven() && !self.is_connected(&peer) {
            return; // Whatever it was, it was not this peer's word.
        }
        let banned = lock(&self.table).scores_mut().blame(peer, offence, !named, Instant::now());
        tracing::debug!(%peer, ?offence, banned, "blamed");
        if banned {
            self.try_command(Command::Shun(peer));
        }
        self.changed();
    }

    pub(super) fn is_banned(&self, peer: &PeerId) -> bool {
        // Most are not: the members are looked at only for those who are.
        let banned = lock(&self.table).scores().is_banned(peer, Instant::now());
        banned && !self.is_named(peer)
    }

    /// Whether others are asked before this peer, since it did not do well.
    pub(super) fn is_doubted(&self, peer: &PeerId) -> bool {
        lock(&self.table).scores().score(peer, Instant::now()) <= DOUBTED
    }

    /// Without the banned and ourselves: whom the user named and who did well before strangers, the near before the far.
    pub(super) fn best_first(&self, mut peers: Vec<PeerId>) -> Vec<PeerId> {
        peers.retain(|peer| *peer != self.local() && !self.is_banned(peer));
        let mut ranked: Vec<(Class, PeerId)> = peers.into_iter().map(|peer| (self.who(&peer).class, peer)).collect();
        let now = Instant::now();
        let table = lock(&self.table);
        ranked.sort_by_cached_key(|(class, peer)| rank(&table, *class, peer, now));
        drop(table);
        ranked.into_iter().map(|(_, peer)| peer).collect()
    }
}

type Rank = (bool, bool, bool, std::cmp::Reverse<i64>, Duration);

/// The lower, the sooner it is asked.
fn rank(table: &Table, class: Class, peer: &PeerId, now: Instant) -> Rank {
    let score = table.scores().score(peer, now);
    let (lan, rtt) = table.nearness(peer);
    (score <= DOUBTED, class == Class::Stranger, !lan, std::cmp::Reverse(score), rtt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::peers::Joined;
    use crate::swarm::{Config, Held, Holdings};
    use crate::tasks::Tasks;
    use std::sync::{Arc, Mutex};
    use tree::digest::Digest;

    #[derive(Default)]
    struct Members(Mutex<HashSet<PeerId>>);

    impl Holdings for Members {
        fn open(&self, _: &Digest, _: &PeerId) -> Option<Held> {
            None
        }

        fn announced(&self) -> Vec<Digest> {
            Vec::new()
        }

        fn is_member(&self, peer: &PeerId) -> bool {
            self.0.lock().unwrap().contains(peer)
        }
    }

    const ALL: [Offence; 6] =
        [Offence::WrongBytes, Offence::Stalled, Offence::Broken, Offence::Slow, Offence::Refused, Offence::Failing];

    fn state() -> (Arc<State>, Arc<Members>) {
        let members = Arc::new(Members::default());
        let holdings: Arc<dyn Holdings> = Arc::<Members>::clone(&members);
        let config = Config { exchange: false, ..Config::default() };
        (State::new(PeerId::random(), config, holdings, &Tasks::new()).0, members)
    }

    fn peer(state: &Arc<State>, listed: bool) -> PeerId {
        let (peer, address) = (PeerId::random(), "/ip4/10.0.0.9/tcp/1".parse().unwrap());
        state.joined(peer, Joined { address, agent: String::new(), lan: true, listed, listens: Vec::new() });
        peer
    }

    /// Every offence, a hundred times, by everybody: who is banned, and who only comes last.
    #[test]
    fn strangers_are_banned_for_what_is_proven_and_the_named_for_nothing() {
        for offence in ALL {
            let (state, members) = state();
            let (stranger, listed, member) = (peer(&state, false), peer(&state, true), peer(&state, false));
            members.0.lock().unwrap().insert(member);
            for _ in 0..100 {
                for peer in [stranger, listed, member] {
                    state.blame(peer, offence);
                }
            }
            let banned = [stranger, listed, member].map(|peer| state.is_banned(&peer));
            assert_eq!(banned, [offence.is_proven(), false, false], "{offence:?}");
            assert!([listed, member].iter().all(|peer| state.is_doubted(peer)), "{offence:?}");
            let fresh = peer(&state, false);
            assert_eq!(state.best_first(vec![listed, member, fresh]).first(), Some(&fresh), "{offence:?}");
        }
    }

    /// A stranger's answer of the DHT with a dead address banned the absent founder: each dial counted as its offence.
    #[test]
    fn who_is_absent_is_not_blamed_for_what_others_said_of_it() {
        let (state, _) = state();
        let absent = PeerId::random();
        for _ in 0..100 {
            state.blame(absent, Offence::Failing);
            state.blame(absent, Offence::Refused);
            state.not_reached(absent);
        }
        assert!(!state.is_banned(&absent) && !state.is_doubted(&absent));
        assert!(state.believable(vec![absent]).is_empty(), "but the record is not believed");
        let address = "/ip4/10.0.0.9/tcp/1".parse().unwrap();
        let joined = Joined { address, agent: String::new(), lan: true, listed: false, listens: Vec::new() };
        state.joined(absent, joined);
        assert_eq!(state.believable(vec![absent]), [absent]);
    }

    #[test]
    fn a_ban_ends_when_the_user_names_who_is_banned() {
        let (state, members) = state();
        let liar = peer(&state, false);
        state.blame(liar, Offence::WrongBytes);
        assert!(state.is_banned(&liar));
        members.0.lock().unwrap().insert(liar);
        assert!(!state.is_banned(&liar));
    }

    #[test]
    fn the_named_and_the_good_are_asked_before_any_number_of_strangers() {
        let (state, _) = state();
        let strangers: Vec<PeerId> = (0..64).map(|_| peer(&state, false)).collect();
        let (good, listed) = (peer(&state, false), peer(&state, true));
        state.praise(good);
        let all: Vec<PeerId> = strangers.iter().copied().chain([good, listed]).collect();
        let asked = state.best_first(all);
        assert!(asked[..2].contains(&good) && asked[..2].contains(&listed));
        let classes = [strangers[0], good, listed].map(|peer| state.who(&peer).class);
        assert_eq!(classes, [Class::Stranger, Class::Good, Class::Named]);
    }

    #[test]
    fn what_is_remembered_of_the_unreached_is_bounded() {
        let (state, _) = state();
        let all: Vec<PeerId> = (0..UNREACHED_MAX + 10).map(|_| PeerId::random()).collect();
        for peer in &all {
            state.not_reached(*peer);
        }
        assert_eq!(state.believable(all.clone()), all[..10]);
    }
}
