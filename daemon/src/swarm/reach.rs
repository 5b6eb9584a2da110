//! Addresses, and which of those that others tell may be dialled: nobody is sent knocking where it could not have been itself.

use libp2p::core::Multiaddr;
use libp2p::multiaddr::Protocol;
use std::net::IpAddr;

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

/// Whether two addresses of local networks are of the same one, as far as that can be seen from them.
fn same_network(one: IpAddr, other: IpAddr) -> bool {
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => one.octets().get(..3) == other.octets().get(..3),
        (IpAddr::V6(one), IpAddr::V6(other)) => {
            let both_link_local = one.is_unicast_link_local() && other.is_unicast_link_local();
            both_link_local || one.segments().get(..4) == other.segments().get(..4)
        }
        // A machine has addresses of both kinds on one cable.
        (IpAddr::V4(_), IpAddr::V6(v6)) | (IpAddr::V6(v6), IpAddr::V4(_)) => v6.is_unicast_link_local(),
    }
}

/// Whether an address may be dialled that somebody at these places told: a wide one always, one of a local network only if the
/// teller is in the same, this machine's own only if it is on this machine. Never a name, which could lead anywhere, nor
/// what is no address of a single machine.
pub(super) fn may_tell(tellers: &[Multiaddr], address: &Multiaddr) -> bool {
    let Some(told) = ip(address) else { return false };
    let no_machine = told.is_multicast() || matches!(told, IpAddr::V4(ip) if ip.is_broadcast());
    // A peer on this machine may name any address of it.
    let here = || tellers.iter().any(|teller| ip(teller).is_some() && Reach::of(teller) == Reach::Loopback);
    let of_teller = || tellers.iter().filter_map(ip).any(|teller| same_network(teller, told));
    !no_machine
        && match Reach::of(address) {
            // Networks of carriers and of virtual networks, and addresses that hold another one: not near, and not the Internet.
            Reach::Wide => mirrors::Reach::of(told) == mirrors::Reach::World || here() || of_teller(),
            Reach::Loopback => here() && !told.is_unspecified(),
            Reach::Lan => here() || of_teller(),
        }
}

/// Of the addresses a peer says it listens on, those that may be dialled, given where it is seen. TCP only if there is TCP: it is
/// faster than QUIC and costs less (measured).
pub(super) fn plausible(listens: &[Multiaddr], seen_at: &Multiaddr, max: usize) -> Vec<Multiaddr> {
    let seen_at = std::slice::from_ref(seen_at);
    let near: Vec<&Multiaddr> = listens.iter().filter(|address| may_tell(seen_at, address)).collect();
    let tcp = |address: &&&Multiaddr| address.iter().any(|part| matches!(part, Protocol::Tcp(_)));
    let some_tcp = near.iter().any(|address| tcp(&address));
    near.iter().filter(|address| !some_tcp || tcp(address)).take(max).map(|address| (*address).clone()).collect()
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

    /// Who may tell what: every kind of teller, every kind of address.
    #[test]
    fn nobody_sends_us_knocking_where_it_could_not_have_been() {
        let tellers =
            ["/ip4/127.0.0.1/tcp/7", "/ip4/192.168.1.5/tcp/7", "/ip6/fd00:1::5/tcp/7", "/ip4/198.51.100.5/tcp/7"];
        let table: [(&str, [bool; 4]); 19] = [
            ("/ip4/100.64.0.1/tcp/1", [true, false, false, false]),
            ("/ip6/64:ff9b::7f00:1/tcp/1", [true, false, false, false]),
            ("/ip4/192.0.2.1/tcp/1", [true, true, true, true]),
            ("/ip6/2001:db8::1/tcp/1", [true, true, true, true]),
            ("/ip4/192.168.1.9/tcp/1", [true, true, false, false]),
            ("/ip4/192.168.2.9/tcp/1", [true, false, false, false]),
            ("/ip4/10.0.0.1/tcp/22", [true, false, false, false]),
            ("/ip4/169.254.169.254/tcp/80", [true, false, false, false]),
            ("/ip6/fd00:1::9/tcp/1", [true, false, true, false]),
            ("/ip6/fd00:2::9/tcp/1", [true, false, false, false]),
            ("/ip4/127.0.0.1/tcp/631", [true, false, false, false]),
            ("/ip6/::1/tcp/631", [true, false, false, false]),
            ("/ip6/::ffff:127.0.0.1/tcp/631", [true, false, false, false]),
            ("/ip4/0.0.0.0/tcp/1", [false, false, false, false]),
            ("/ip6/::/tcp/1", [false, false, false, false]),
            ("/ip4/255.255.255.255/udp/1/quic-v1", [false, false, false, false]),
            ("/ip4/224.0.0.251/udp/5353/quic-v1", [false, false, false, false]),
            ("/dns/localhost/tcp/1", [false, false, false, false]),
            ("/dnsaddr/example.org", [false, false, false, false]),
        ];
        for (told, may) in table {
            let seen = tellers.map(|teller| may_tell(&[address(teller)], &address(told)));
            assert_eq!(seen, may, "{told}");
        }
        assert!(!may_tell(&[], &address("/ip4/127.0.0.1/tcp/1")));
        assert!(!may_tell(&[address("/dns/far.example/tcp/1")], &address("/ip4/127.0.0.1/tcp/1")));
    }

    #[test]
    fn of_what_a_peer_listens_on_tcp_comes_alone() {
        let listens =
            ["/ip4/192.0.2.1/udp/1/quic-v1", "/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.2/tcp/1"].map(address).to_vec();
        let far = address("/ip4/192.0.2.1/tcp/9");
        assert_eq!(plausible(&listens, &far, 8), listens[1..]);
        assert_eq!(plausible(&listens, &far, 1).len(), 1);
        assert_eq!(plausible(&listens[..1], &far, 8).len(), 1);
    }
}
