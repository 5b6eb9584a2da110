//! The event loop's dealings with the DHT: questions asked, their answers, and records others bring one by one.

use super::event_loop::EventLoop;
use super::records::lock;
use super::state::Neighbour;
use super::wire::Key;
use libp2p::kad::store::RecordStore;
use libp2p::kad::{self, GetProvidersOk, InboundRequest, QueryId, QueryResult, RecordKey};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{Multiaddr, PeerId};
use std::collections::HashSet;
use tokio::sync::oneshot;

/// DHT questions under way from here; more are answered with nothing.
const QUERIES_MAX: usize = 256;
/// Dials on the DHT's word whose outcome is remembered.
const TOLD_DIALS_MAX: usize = 256;
/// Providers that are dialled as soon as the DHT names them, while it still knows their addresses.
const PROVIDERS_DIALLED_MAX: usize = 8;

impl EventLoop {
    /// Questions answered with nothing: no table to ask, or too many questions.
    fn cannot_ask(&self) -> bool {
        self.state.routing() == 0 || self.finds.len() + self.closest.len() >= QUERIES_MAX
    }

    pub(super) fn find(&mut self, key: Key, answer: oneshot::Sender<Vec<PeerId>>) {
        if self.cannot_ask() {
            return reply(answer, Vec::new());
        }
        let id = self.swarm.behaviour_mut().kad.get_providers(RecordKey::new(&key.0));
        self.finds.insert(id, answer);
    }

    pub(super) fn closest(&mut self, key: Key, answer: oneshot::Sender<Vec<Neighbour>>) {
        if self.cannot_ask() {
            return reply(answer, Vec::new());
        }
        let id = self.swarm.behaviour_mut().kad.get_closest_peers(key.0.to_vec());
        self.closest.insert(id, answer);
    }

    pub(super) fn finish(&mut self, id: &QueryId) {
        if let Some(mut query) = self.swarm.behaviour_mut().kad.query_mut(id) {
            query.finish();
        }
    }

    pub(super) fn count_routing(&mut self) {
        let peers =
            self.swarm.behaviour_mut().kad.kbuckets().map(|bucket| bucket.num_entries()).fold(0, usize::saturating_add);
        self.state.set_routing(peers);
    }

    pub(super) fn on_kad(&mut self, event: kad::Event) {
        match event {
            kad::Event::OutboundQueryProgressed { id, result, step, .. } => self.on_query(id, result, step.last),
            kad::Event::InboundRequest { request: InboundRequest::AddProvider { record: Some(record) } } => {
                // One of ours never sends this; if another program does, the quotas hold all the same.
                if let Ok(key) = Key::try_from(record.key.as_ref())
                    && self.state.advert_allowed(&record.provider)
                    && self.state.advert_heeded(&record.provider)
                {
                    let (peer, who) = (record.provider, self.state.who(&record.provider));
                    let addresses = self.state.listens_of(&peer);
                    lock(&self.state.records).add(peer, who, &[key], &addresses, std::time::Instant::now());
                }
            }
            kad::Event::RoutingUpdated { .. } => self.count_routing(),
            _ => {}
        }
    }

    fn on_query(&mut self, id: QueryId, result: QueryResult, last: bool) {
        match result {
            QueryResult::GetProviders(result) => {
                if let Ok(GetProvidersOk::FoundProviders { providers, .. }) = result {
                    self.found(id, providers);
                }
                if last && let Some(answer) = self.finds.remove(&id) {
                    reply(answer, Vec::new());
                }
            }
            QueryResult::GetClosestPeers(result) if last => {
                let peers = match result {
                    Ok(found) => found.peers,
                    Err(kad::GetClosestPeersError::Timeout { peers, .. }) => peers,
                };
                if let Some(answer) = self.closest.remove(&id) {
                    let near = |peer: kad::PeerInfo| Neighbour { peer: peer.peer_id, addresses: peer.addrs };
                    reply(answer, peers.into_iter().map(near).collect());
                }
            }
            _ => {}
        }
    }

    /// The first providers end the question: whoever answered knew all it knew.
    fn found(&mut self, id: QueryId, providers: HashSet<PeerId>) {
        let local = self.state.local();
        let others = providers.into_iter().filter(|peer| *peer != local).collect();
        let others = self.state.believable(others);
        if others.is_empty() {
            return;
        }
        let Some(answer) = self.finds.remove(&id) else { return };
        // Now, because the DHT's code forgets the addresses it was told when the question ends.
        let missing = others.iter().filter(|peer| !self.swarm.is_connected(peer)).take(PROVIDERS_DIALLED_MAX);
        for peer in missing.copied().collect::<Vec<_>>() {
            let opts = DialOpts::peer_id(peer).condition(PeerCondition::DisconnectedAndNotDialing).build();
            if self.told_dials.len() >= TOLD_DIALS_MAX {
                self.told_dials.pop_front();
            }
            self.told_dials.push_back((opts.connection_id(), peer));
            self.dial(opts);
        }
        self.finish(&id);
        reply(answer, others);
    }
}

/// Puts a peer into the routing table, under the addresses it names now and, if it was dialled, the one it was reached at.
///
/// Whatever it named earlier goes: libp2p keeps every address of a peer for ever, and a peer may name others every second.
pub(super) fn route<S>(kad: &mut kad::Behaviour<S>, peer: PeerId, listens: &[Multiaddr], at: &Multiaddr)
where
    S: RecordStore + Send + 'static,
{
    if listens.is_empty() {
        return; // It adds none, and may well be reached where it was dialled.
    }
    let routed = routed(kad, peer);
    if routed.is_empty() {
        kad.remove_peer(&peer); // It may wait for a place, which collects addresses too.
    }
    for listen in listens {
        kad.add_address(&peer, listen.clone());
    }
    let whole = |address: &Multiaddr| address.clone().with_p2p(peer).ok();
    let kept: Vec<Multiaddr> = listens.iter().chain([at]).filter_map(whole).collect();
    for address in routed.iter().filter(|address| !kept.contains(address)) {
        kad.remove_address(&peer, address);
    }
}

/// The addresses of a peer in the routing table, each with its `/p2p/ID`.
pub(super) fn routed<S>(kad: &mut kad::Behaviour<S>, peer: PeerId) -> Vec<Multiaddr>
where
    S: RecordStore + Send + 'static,
{
    let Some(bucket) = kad.kbucket(peer) else { return Vec::new() };
    let entry = bucket.iter().find(|entry| *entry.node.key.preimage() == peer);
    entry.map_or_else(Vec::new, |entry| entry.node.value.iter().cloned().collect())
}

/// Answers; nobody waiting any more is normal.
fn reply<T>(answer: oneshot::Sender<T>, value: T) {
    if answer.send(value).is_err() {
        tracing::trace!("nobody waits for this answer any more");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p::kad::store::MemoryStore;

    #[test]
    fn a_peer_is_routed_to_where_it_listens_now_however_often_it_changes_its_mind() {
        let (local, peer) = (PeerId::random(), PeerId::random());
        let mut kad = kad::Behaviour::new(local, MemoryStore::new(local));
        let address = |port: u32| -> Multiaddr { format!("/ip4/10.0.0.1/tcp/{port}").parse().unwrap() };
        let dialled = address(9);
        kad.add_address(&peer, dialled.clone());
        for push in 10..1000 {
            route(&mut kad, peer, &[address(push), address(push + 1)], &dialled);
        }
        route(&mut kad, peer, &[], &dialled);
        let mut now = routed(&mut kad, peer);
        now.sort();
        let mut expected = [dialled, address(999), address(1000)].map(|address| address.with_p2p(peer).unwrap());
        expected.sort();
        assert_eq!(now, expected);
    }
}
