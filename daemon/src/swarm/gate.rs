//! A limit on connections from one address, which libp2p's own limits do not have.

use libp2p::PeerId;
use libp2p::core::transport::PortUse;
use libp2p::core::{ConnectedPoint, Endpoint, Multiaddr};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
    dummy,
};
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::task::{Context, Poll};

/// Inbound connections from one address. Loopback is free: every node of a test lives there.
const PER_ADDRESS_MAX: u32 = 16;

/// The IP address a multiaddr begins with.
pub(super) fn ip(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.to_ipv4_mapped().map_or(ip.into(), IpAddr::from)),
        _ => None,
    }
}

/// How far away an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    /// This machine.
    Loopback,
    /// Private or link-local (RFC 1918, RFC 3927, RFC 4193, RFC 4291).
    Lan,
    /// Anything else.
    Wide,
}

impl Reach {
    pub(super) fn of(address: &Multiaddr) -> Self {
        match ip(address) {
            // The unspecified address, dialled, is this machine too.
            Some(ip) if ip.is_loopback() || ip.is_unspecified() => Self::Loopback,
            Some(IpAddr::V4(ip)) if ip.is_private() || ip.is_link_local() => Self::Lan,
            Some(IpAddr::V6(ip)) if ip.is_unique_local() || ip.is_unicast_link_local() => Self::Lan,
            _ => Self::Wide,
        }
    }

    /// Whether peers there are on the local network.
    pub(super) fn is_lan(self) -> bool {
        self < Self::Wide
    }
}

/// Of the addresses a peer says it listens on, those that make sense from where we see it: nobody far away is
/// dialled at a private address, or by a name that could lead there. TCP only if there is TCP: it is faster than QUIC and costs less (measured).
pub(super) fn plausible(listens: &[Multiaddr], seen_at: Reach, max: usize) -> Vec<Multiaddr> {
    let near = listens.iter().filter(|address| ip(address).is_some() && Reach::of(address) >= seen_at);
    let near: Vec<&Multiaddr> = near.collect();
    let tcp = |address: &&&Multiaddr| address.iter().any(|part| matches!(part, Protocol::Tcp(_)));
    let some_tcp = near.iter().any(|address| tcp(&address));
    near.iter().filter(|address| !some_tcp || tcp(address)).take(max).map(|address| (*address).clone()).collect()
}

/// Counts connections by address.
#[derive(Default)]
pub(super) struct Gate {
    inbound: HashMap<IpAddr, u32>,
}

/// There are too many connections from one address.
#[derive(Debug, thiserror::Error)]
#[error("more than {PER_ADDRESS_MAX} connections from {address}")]
struct TooMany {
    address: IpAddr,
}

impl Gate {
    fn counted(endpoint: &ConnectedPoint) -> Option<IpAddr> {
        match endpoint {
            ConnectedPoint::Listener { send_back_addr, .. } => ip(send_back_addr).filter(|ip| !ip.is_loopback()),
            ConnectedPoint::Dialer { .. } => None,
        }
    }
}

impl NetworkBehaviour for Gate {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        match ip(remote) {
            Some(address) if self.inbound.get(&address).is_some_and(|count| *count >= PER_ADDRESS_MAX) => {
                Err(ConnectionDenied::new(TooMany { address }))
            }
            _ => Ok(()),
        }
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished { endpoint, .. }) => {
                if let Some(ip) = Self::counted(endpoint) {
                    *self.inbound.entry(ip).or_default() += 1;
                }
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { endpoint, .. }) => {
                let Some(ip) = Self::counted(endpoint) else { return };
                let left = self.inbound.get_mut(&ip).map_or(0, |count| {
                    *count = count.saturating_sub(1);
                    *count
                });
                if left == 0 {
                    self.inbound.remove(&ip);
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn private_and_link_local_addresses_are_the_local_network_and_names_are_not() {
        for text in
            ["/ip4/10.1.2.3/tcp/1", "/ip4/192.168.0.9/udp/1/quic-v1", "/ip6/fd00::1/tcp/1", "/ip6/fe80::1/tcp/1"]
        {
            assert_eq!(Reach::of(&address(text)), Reach::Lan, "{text}");
        }
        assert_eq!(Reach::of(&address("/ip6/::ffff:127.0.0.1/tcp/1")), Reach::Loopback);
        for text in ["/ip4/172.32.0.1/tcp/1", "/ip6/2001:db8::1/tcp/1", "/dns/printer.local/tcp/1"] {
            assert_eq!(Reach::of(&address(text)), Reach::Wide, "{text}");
        }
    }

    #[test]
    fn a_far_peer_cannot_send_us_to_our_own_network_and_tcp_comes_alone() {
        let listens: Vec<Multiaddr> = [
            "/ip4/127.0.0.1/tcp/1",
            "/ip4/0.0.0.0/tcp/1",
            "/dns/localhost/tcp/1",
            "/ip4/10.0.0.1/tcp/1",
            "/ip4/192.0.2.1/udp/1/quic-v1",
            "/ip4/192.0.2.1/tcp/1",
        ]
        .map(address)
        .to_vec();
        assert_eq!(plausible(&listens, Reach::Wide, 8), [address("/ip4/192.0.2.1/tcp/1")]);
        assert_eq!(plausible(&listens, Reach::Lan, 8).len(), 2);
        assert_eq!(plausible(&listens, Reach::Loopback, 2).len(), 2);
        assert_eq!(plausible(&listens[4..5], Reach::Wide, 8).len(), 1);
    }

    #[test]
    fn the_seventeenth_connection_from_one_address_is_denied_until_one_closes() {
        let mut gate = Gate::default();
        let (local, remote) = (address("/ip4/10.0.0.1/tcp/1"), address("/ip4/10.0.0.2/tcp/9"));
        let id = ConnectionId::new_unchecked(1);
        gate.inbound.insert(ip(&remote).unwrap(), PER_ADDRESS_MAX);
        assert!(gate.handle_pending_inbound_connection(id, &local, &remote).is_err());
        assert!(gate.handle_pending_inbound_connection(id, &local, &address("/ip4/10.0.0.3/tcp/9")).is_ok());
        let endpoint = ConnectedPoint::Listener { local_addr: local.clone(), send_back_addr: remote.clone() };
        gate.on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
            peer_id: PeerId::random(),
            connection_id: id,
            endpoint: &endpoint,
            cause: None,
            remaining_established: 0,
        }));
        assert!(gate.handle_pending_inbound_connection(id, &local, &remote).is_ok());
    }
}
