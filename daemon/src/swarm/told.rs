//! A behaviour whose addresses others told, so that each is checked before it is dialled.
//!
//! libp2p does not say who told what. So what the DHT names is dialled only if every connected peer could have told it: as soon as
//! somebody from afar is connected, nothing on the local network is dialled on the DHT's word. Addresses that were checked
//! already, in the routing table, and peers that multicast DNS or the user named, have ways of their own.

use super::reach::{Reach, may_tell};
use libp2p::PeerId;
use libp2p::core::transport::PortUse;
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::task::{Context, Poll};

/// Who may have told the addresses of a behaviour.
enum By<B> {
    /// Any connected peer; beside those that the behaviour had checked.
    Peers(fn(&mut B, PeerId) -> Vec<Multiaddr>),
    /// Machines on the cable, without any proof.
    Neighbours,
}

/// See the head of this room.
pub(super) struct Told<B> {
    inner: B,
    by: By<B>,
    tellers: HashMap<ConnectionId, Multiaddr>,
}

impl<B> Told<B> {
    /// What peers tell; `checked` gives the addresses of a peer that were checked when they were taken.
    pub(super) fn by_peers(inner: B, checked: fn(&mut B, PeerId) -> Vec<Multiaddr>) -> Self {
        Self { inner, by: By::Peers(checked), tellers: HashMap::new() }
    }

    /// What multicast packets tell.
    pub(super) fn by_neighbours(inner: B) -> Self {
        Self { inner, by: By::Neighbours, tellers: HashMap::new() }
    }

    fn checked(&mut self, peer: Option<PeerId>, mut addresses: Vec<Multiaddr>) -> Vec<Multiaddr> {
        match self.by {
            By::Neighbours => addresses.retain(is_neighbour),
            By::Peers(checked) => {
                let known = peer.map(|peer| checked(&mut self.inner, peer)).unwrap_or_default();
                let tellers = &self.tellers;
                addresses.retain(|address| {
                    let one = |teller: &Multiaddr| may_tell(std::slice::from_ref(teller), address);
                    known.contains(address)
                        || (tellers.values().all(one) && (!tellers.is_empty() || may_tell(&[], address)))
                });
            }
        }
        addresses
    }
}

/// Whether multicast DNS may lead there: to an address of a machine, and never to one of this machine.
pub(super) fn is_neighbour(address: &Multiaddr) -> bool {
    Reach::of(address) != Reach::Loopback && may_tell(std::slice::from_ref(address), address)
}

impl<B> Deref for Told<B> {
    type Target = B;

    fn deref(&self) -> &B {
        &self.inner
    }
}

impl<B> DerefMut for Told<B> {
    fn deref_mut(&mut self) -> &mut B {
        &mut self.inner
    }
}

impl<B: NetworkBehaviour> NetworkBehaviour for Told<B> {
    type ConnectionHandler = B::ConnectionHandler;
    type ToSwarm = B::ToSwarm;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.inner.handle_pending_inbound_connection(connection, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        let told = self.inner.handle_pending_outbound_connection(connection, peer, addresses, role)?;
        Ok(self.checked(peer, told))
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_outbound_connection(connection, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match &event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished { connection_id, endpoint, .. }) => {
                self.tellers.insert(*connection_id, endpoint.get_remote_address().clone());
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. }) => {
                self.tellers.remove(connection_id);
            }
            _ => {}
        }
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        self.inner.on_connection_handler_event(peer, connection, event);
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.inner.poll(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    /// A routing table.
    struct Table(Vec<Multiaddr>);

    fn checked_of(table: &mut Table, _: PeerId) -> Vec<Multiaddr> {
        table.0.clone()
    }

    #[test]
    fn one_peer_from_afar_is_enough_for_the_dht_to_lead_nowhere_on_the_local_network() {
        let table = address("/ip4/192.168.7.7/tcp/1");
        let told: Vec<Multiaddr> = ["/ip4/127.0.0.1/tcp/1", "/ip4/192.168.1.9/tcp/1", "/ip4/192.0.2.1/tcp/1"]
            .map(address)
            .into_iter()
            .chain([table.clone()])
            .collect();
        let mut behaviour = Told::by_peers(Table(vec![table]), checked_of);
        let peer = Some(PeerId::random());
        let mut dialled = |tellers: &[&str]| {
            let connections = tellers.iter().enumerate();
            behaviour.tellers =
                connections.map(|(n, teller)| (ConnectionId::new_unchecked(n), address(teller))).collect();
            let dialled = behaviour.checked(peer, told.clone());
            told.iter().map(|address| dialled.contains(address)).collect::<Vec<_>>()
        };
        assert_eq!(dialled(&["/ip4/127.0.0.1/tcp/7"]), [true, true, true, true]);
        assert_eq!(dialled(&["/ip4/192.168.1.5/tcp/7"]), [false, true, true, true]);
        assert_eq!(dialled(&["/ip4/192.168.1.5/tcp/7", "/ip4/192.0.2.7/tcp/7"]), [false, false, true, true]);
        assert_eq!(dialled(&["/ip4/127.0.0.1/tcp/7", "/ip4/192.0.2.7/tcp/7"]), [false, false, true, true]);
        assert_eq!(dialled(&[]), [false, false, true, true]);
    }

    #[test]
    fn multicast_leads_neither_to_this_machine_nor_to_names() {
        let told = [
            "/ip4/192.168.1.9/tcp/1",
            "/ip6/2001:db8::1/tcp/1",
            "/ip4/127.0.0.1/tcp/1",
            "/ip4/0.0.0.0/tcp/1",
            "/ip4/224.0.0.251/tcp/1",
            "/dns/a.example/tcp/1",
        ]
        .map(address);
        let mut behaviour = Told::by_neighbours(Table(Vec::new()));
        assert_eq!(behaviour.checked(None, told.to_vec()), told[..2]);
    }
}
