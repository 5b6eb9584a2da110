//! Peers to stay connected to: those the user listed, members of a group, and those multicast DNS found. Lost ones are dialled again, ever more rarely.

use libp2p::multiaddr::Protocol;
use libp2p::swarm::ConnectionId;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{Multiaddr, PeerId};
use std::time::Duration;
use tokio::time::Instant;

/// Peers remembered from multicast DNS, which anyone on the network can forge.
const FOUND_MAX: usize = 256;
/// Members of groups: 16 groups of 256.
const KEPT_MAX: usize = 4096;
/// Addresses at which a member is dialled.
const KEPT_ADDRESSES_MAX: usize = 8;
/// Addresses remembered of one of them.
const ADDRESSES_MAX: usize = 4;
/// The pause after the first failure; each further one doubles it.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// No pause is longer.
const RETRY_MAX: Duration = Duration::from_secs(300);
/// A connection that lasted so long was a good one: after it, the pauses begin anew.
const LASTING: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Entry {
    addresses: Vec<Multiaddr>,
    peer: Option<PeerId>,
    listed: bool,
    /// A member of a group.
    kept: bool,
    /// Multicast DNS hears of it.
    found: bool,
    connected: bool,
    dialling: Option<ConnectionId>,
    failures: u32,
    next: Instant,
    /// Since when it is connected.
    since: Instant,
}

impl Entry {
    /// The next dial waits twice as long as the last one did.
    fn back_off(&mut self, now: Instant) {
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.next = now + RETRY_FIRST.saturating_mul(factor).min(RETRY_MAX);
        self.failures = (self.failures + 1).min(16);
    }
}

/// Those peers.
#[derive(Debug, Default)]
pub(super) struct Known {
    entries: Vec<Entry>,
}

/// The peer a multiaddr ends with.
pub(super) fn peer_of(address: &Multiaddr) -> Option<PeerId> {
    match address.iter().last()? {
        Protocol::P2p(peer) => Some(peer),
        _ => None,
    }
}

impl Known {
    pub(super) fn listed(addresses: &[Multiaddr], now: Instant) -> Self {
        let entry = |address: &Multiaddr| Entry {
            addresses: vec![address.clone()],
            peer: peer_of(address),
            listed: true,
            kept: false,
            found: false,
            connected: false,
            dialling: None,
            failures: 0,
            next: now,
            since: now,
        };
        Self { entries: addresses.iter().map(entry).collect() }
    }

    /// Multicast DNS found a peer at an address.
    pub(super) fn found(&mut self, peer: PeerId, address: Multiaddr, connected: bool, now: Instant) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.peer == Some(peer)) {
            entry.found = true;
            if !entry.listed && !entry.addresses.contains(&address) && entry.addresses.len() < ADDRESSES_MAX {
                entry.addresses.push(address);
            }
            return;
        }
        let only_found = |entry: &Entry| !entry.listed && !entry.kept;
        if self.entries.iter().filter(|entry| only_found(entry)).count() >= FOUND_MAX {
            // Whoever forges many cannot answer for them: one that was not there makes room.
            let vain = self.entries.iter().enumerate().filter(|(_, entry)| only_found(entry) && !entry.connected);
            let vain = vain.max_by_key(|(_, entry)| entry.failures).filter(|(_, entry)| entry.failures > 0);
            match vain.map(|(at, _)| at) {
                Some(at) => drop(self.entries.swap_remove(at)),
                None => return,
            }
        }
        let addresses = vec![address];
        let peer = Some(peer);
        self.entries.push(Entry {
            addresses,
            peer,
            listed: false,
            kept: false,
            found: true,
            connected,
            dialling: None,
            failures: 0,
            next: now,
            since: now,
        });
    }

    /// Stays connected to a member of a group, which was last seen at these addresses; a second word takes the place of the first.
    pub(super) fn keep(&mut self, peer: PeerId, addresses: &[Multiaddr], connected: bool, now: Instant) {
        let addresses: Vec<Multiaddr> = addresses.iter().take(KEPT_ADDRESSES_MAX).cloned().collect();
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.peer == Some(peer)) {
            entry.kept = true;
            if !entry.listed && !addresses.is_empty() && entry.addresses != addresses {
                entry.addresses = addresses;
                entry.next = now;
            }
            return;
        }
        let kept = self.entries.iter().filter(|entry| entry.kept).count();
        if kept < KEPT_MAX && !addresses.is_empty() {
            self.entries.push(Entry {
                addresses,
                peer: Some(peer),
                listed: false,
                kept: true,
                found: false,
                connected,
                dialling: None,
                failures: 0,
                next: now,
                since: now,
            });
        }
    }

    /// Does not stay connected to a member any longer.
    pub(super) fn let_go(&mut self, peer: &PeerId) {
        for entry in self.entries.iter_mut().filter(|entry| entry.peer == Some(*peer)) {
            entry.kept = false;
        }
        self.entries.retain(|entry| entry.listed || entry.found || entry.peer != Some(*peer));
    }

    /// Multicast DNS has not heard of a peer for long, or it is none of ours.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        for entry in self.entries.iter_mut().filter(|entry| entry.peer == Some(*peer)) {
            entry.found = false;
        }
        self.entries.retain(|entry| entry.listed || entry.kept || entry.peer != Some(*peer));
    }

    /// Whether the user named this peer.
    pub(super) fn is_listed(&self, peer: &PeerId) -> bool {
        self.entries.iter().any(|entry| entry.listed && entry.peer == Some(*peer))
    }

    /// What is to be dialled now, and whether the user named it.
    pub(super) fn due(&mut self, now: Instant) -> Vec<(DialOpts, bool)> {
        let due =
            self.entries.iter_mut().filter(|entry| !entry.connected && entry.dialling.is_none() && entry.next <= now);
        due.map(|entry| {
            // A listed address without a peer is dialled as it stands: another machine may answer there today.
            let named =
                entry.peer.filter(|peer| !entry.listed || entry.addresses.first().and_then(peer_of) == Some(*peer));
            let opts = match named {
                Some(peer) => DialOpts::peer_id(peer)
                    .addresses(entry.addresses.clone())
                    .condition(PeerCondition::Disconnected)
                    .build(),
                None => {
                    let address = entry.addresses.first().cloned().unwrap_or_else(Multiaddr::empty);
                    DialOpts::unknown_peer_id().address(address).build()
                }
            };
            entry.dialling = Some(opts.connection_id());
            (opts, entry.listed || entry.kept)
        })
        .collect()
    }

    /// A connection is there. Whether it is worth anything shows later: who shakes hands and hangs up is dialled ever more
    /// rarely too.
    pub(super) fn established(&mut self, connection: ConnectionId, peer: PeerId, now: Instant) {
        for entry in &mut self.entries {
            if entry.dialling == Some(connection) {
                entry.peer = Some(peer);
                entry.dialling = None;
            }
            if entry.peer == Some(peer) && !entry.connected {
                entry.connected = true;
                entry.since = now;
            }
        }
    }

    /// A dial came to nothing.
    pub(super) fn failed(&mut self, connection: ConnectionId, now: Instant) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.dialling == Some(connection)) {
            entry.dialling = None;
            entry.back_off(now);
        }
    }

    /// The last connection to a peer is gone.
    pub(super) fn closed(&mut self, peer: &PeerId, now: Instant) {
        for entry in self.entries.iter_mut().filter(|entry| entry.peer == Some(*peer)) {
            if std::mem::take(&mut entry.connected) && now.saturating_duration_since(entry.since) >= LASTING {
                entry.failures = 0;
            }
            entry.back_off(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_lost_peer_is_dialled_again_with_growing_pauses_up_to_five_minutes() {
        let mut now = Instant::now();
        let mut known = Known::listed(&[address("/ip4/127.0.0.1/tcp/1")], now);
        let mut pauses = Vec::new();
        for _ in 0..12 {
            let dialled = known.due(now);
            assert_eq!(dialled.len(), 1);
            assert!(known.due(now).is_empty(), "one dial at a time");
            known.failed(dialled[0].0.connection_id(), now);
            let started = now;
            while known.entries[0].next > now {
                now += RETRY_FIRST;
            }
            pauses.push(now - started);
        }
        assert!(pauses.is_sorted());
        assert_eq!((pauses[0], *pauses.last().unwrap()), (RETRY_FIRST, RETRY_MAX));
    }

    #[test]
    fn a_connected_peer_is_left_alone_until_it_is_lost() {
        let now = Instant::now();
        let peer = PeerId::random();
        let mut known = Known::listed(&[address("/ip4/127.0.0.1/tcp/1")], now);
        let dialled = known.due(now);
        known.established(dialled[0].0.connection_id(), peer, now);
        assert!(known.is_listed(&peer));
        assert!(known.due(now + RETRY_MAX).is_empty());
        known.closed(&peer, now);
        assert!(known.due(now).is_empty());
        assert_eq!(known.due(now + RETRY_FIRST).len(), 1);
    }

    #[test]
    fn who_shakes_hands_and_hangs_up_is_dialled_ever_more_rarely_until_a_connection_lasts() {
        let mut now = Instant::now();
        let peer = PeerId::random();
        let mut known = Known::listed(&[address("/ip4/127.0.0.1/tcp/1")], now);
        let mut lost_after = |lasted: Duration| {
            let dialled = known.due(now);
            assert_eq!(dialled.len(), 1);
            known.established(dialled[0].0.connection_id(), peer, now);
            now += lasted / 2;
            known.established(ConnectionId::new_unchecked(7), peer, now); // It dialled us as well.
            now += lasted / 2;
            known.closed(&peer, now);
            let pause = known.entries[0].next - now;
            now += pause;
            pause
        };
        let pauses: Vec<u64> = (0..11).map(|_| lost_after(Duration::from_secs(2)).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(lost_after(LASTING), RETRY_FIRST);
        assert_eq!(lost_after(Duration::ZERO), RETRY_FIRST * 2);
    }

    #[test]
    fn forged_discoveries_make_room_for_a_neighbour_once_nobody_answered() {
        let (now, mut known) = (Instant::now(), Known::default());
        let at = |n: u32| address(&format!("/ip4/10.0.0.1/tcp/{n}"));
        for n in 0..1000 {
            known.found(PeerId::random(), at(n), false, now);
        }
        let neighbour = PeerId::random();
        known.found(neighbour, at(1), false, now);
        assert!(
            known.entries.iter().all(|entry| entry.peer != Some(neighbour)),
            "nothing is known against any of them"
        );
        for (opts, named) in known.due(now) {
            assert!(!named);
            known.failed(opts.connection_id(), now);
        }
        known.found(neighbour, at(1), false, now);
        assert!(known.entries.iter().any(|entry| entry.peer == Some(neighbour)));
        assert_eq!(known.entries.len(), FOUND_MAX);
    }

    #[test]
    fn forged_discoveries_are_bounded_and_never_push_out_a_listed_peer() {
        let now = Instant::now();
        let listed = PeerId::random();
        let named = address("/ip4/127.0.0.1/tcp/1").with_p2p(listed).unwrap();
        let mut known = Known::listed(&[named], now);
        let crowd: Vec<PeerId> = (0..1000).map(|_| PeerId::random()).collect();
        for peer in crowd.iter().chain([&listed]) {
            for port in 1..20 {
                known.found(*peer, address(&format!("/ip4/127.0.0.1/tcp/{port}")), false, now);
            }
        }
        assert_eq!(known.entries.len(), FOUND_MAX + 1);
        assert!(known.entries.iter().all(|entry| entry.addresses.len() <= ADDRESSES_MAX));
        known.forget(&listed);
        known.forget(&crowd[0]);
        assert_eq!(known.entries.len(), FOUND_MAX);
        assert!(known.is_listed(&listed) && !known.is_listed(&crowd[1]));
    }
}
