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
use std::net::{IpAddr, Ipv6Addr};
use std::task::{Context, Poll};

/// Inbound connections from one IPv4 address. Loopback is free: every node of a test lives there.
const PER_ADDRESS_MAX: u32 = 16;
/// Inbound connections from one IPv6 network, which may be one machine with any number of addresses, or many machines.
const PER_NETWORK_MAX: u32 = 64;

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

/// What inbound connections are counted by: an IPv4 address, or the first address of an IPv6 network.
///
/// A machine chooses the last 64 bits of its IPv6 address itself (RFC 4862), and of a link-local one all but the first 10.
fn origin(address: &Multiaddr) -> Option<IpAddr> {
    let ip = ip(address).filter(|ip| !ip.is_loopback())?;
    let IpAddr::V6(ip) = ip else { return Some(ip) };
    let bits = if ip.is_unicast_link_local() { 10 } else { 64 };
    Some(Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << (128 - bits))).into())
}

/// How many connections there may be from an [`origin`].
fn most(origin: IpAddr) -> u32 {
    if origin.is_ipv4() { PER_ADDRESS_MAX } else { PER_NETWORK_MAX }
}

/// Counts connections by origin.
#[derive(Default)]
pub(super) struct Gate {
    inbound: HashMap<IpAddr, u32>,
}

/// There are too many connections from one origin.
#[derive(Debug, thiserror::Error)]
#[error("more than {} connections from {origin}", most(*origin))]
struct TooMany {
    origin: IpAddr,
}

impl Gate {
    fn counted(endpoint: &ConnectedPoint) -> Option<IpAddr> {
        match endpoint {
            ConnectedPoint::Listener { send_back_addr, .. } => origin(send_back_addr),
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
        match origin(remote) {
            Some(origin) if self.inbound.get(&origin).is_some_and(|count| *count >= most(origin)) => {
                Err(ConnectionDenied::new(TooMany { origin }))
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

    #[test]
    fn a_machine_does_not_get_round_the_limit_with_other_addresses_of_its_network() {
        let mut gate = Gate::default();
        let (local, id) = (address("/ip6/2001:db8::1/tcp/1"), ConnectionId::new_unchecked(1));
        let mut connect = |remote: &str| {
            let endpoint = ConnectedPoint::Listener { local_addr: local.clone(), send_back_addr: address(remote) };
            gate.handle_pending_inbound_connection(id, &local, &address(remote)).inspect(|()| {
                gate.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
                    peer_id: PeerId::random(),
                    connection_id: id,
                    endpoint: &endpoint,
                    failed_addresses: &[],
                    other_established: 0,
                }));
            })
        };
        for machine in 1..=PER_NETWORK_MAX {
            assert!(connect(&format!("/ip6/2001:db8:0:1:{machine:x}::9/tcp/{machine}")).is_ok());
            assert!(connect(&format!("/ip6/fe80:{machine:x}::9/tcp/{machine}")).is_ok());
        }
        for denied in ["/ip6/2001:db8:0:1:abcd:ef01:2345:6789/tcp/1", "/ip6/fe80:0:0:abcd::1/tcp/1"] {
            let error = connect(denied).unwrap_err().downcast::<TooMany>().unwrap();
            assert!(error.to_string().starts_with("more than 64 "), "{error}");
        }
        for allowed in ["/ip6/2001:db8:0:2::9/tcp/1", "/ip4/10.0.0.2/tcp/1", "/ip6/::1/tcp/1"] {
            assert!(connect(allowed).is_ok(), "{allowed}");
        }
    }
}
