//! How far an address reaches, and which addresses a redirect may lead to.
//!
//! A mirror is somebody on the Internet. Where it sends us is decided at the address that is connected to, since a name
//! says nothing: `files.example` may resolve to 127.0.0.1, or to the router. So a redirect leads as far out as the server
//! that gave it, or further, and never further in.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// From where an address can be reached; later ones are further out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// This machine alone.
    Machine,
    /// A network that the Internet does not route to: at home, in a company, of a provider's own, of one link.
    Network,
    /// The Internet.
    World,
}

impl Reach {
    /// That of an address (RFC 6890). An IPv4 address inside an IPv6 one counts as itself.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::of_v4(v4),
            IpAddr::V6(v6) => inner_v4(v6).map_or_else(|| Self::of_v6(v6), Self::of_v4),
        }
    }

    fn of_v4(address: Ipv4Addr) -> Self {
        let [a, b, ..] = address.octets();
        match (a, b) {
            (0 | 127, _) => Self::Machine,
            // RFC 1918, link-local with the clouds' metadata services, carriers' NAT, benchmarks, protocol assignments.
            (10, _) | (172, 16..=31) | (192, 168) | (169, 254) | (100, 64..=127) | (198, 18 | 19) => Self::Network,
            (192, 0) if address.octets().get(2) == Some(&0) => Self::Network,
            // Multicast, reserved, broadcast: nobody serves files there.
            (224.., _) => Self::Network,
            _ => Self::World,
        }
    }

    fn of_v6(address: Ipv6Addr) -> Self {
        let [first, ..] = address.segments();
        match first {
            _ if address.is_loopback() || address.is_unspecified() => Self::Machine,
            // Unique local, link-local, the old site-local, multicast.
            0xfc00..=0xfdff | 0xfe80..=0xfeff | 0xff00..=0xffff => Self::Network,
            _ => Self::World,
        }
    }

    /// That of a URL's host by its spelling; none where it is a name that only a lookup can tell.
    pub(crate) fn spelled(url: &Url) -> Option<Self> {
        match url.host()? {
            Host::Ipv4(address) => Some(Self::of(address.into())),
            Host::Ipv6(address) => Some(Self::of(address.into())),
            Host::Domain(name) => {
                let name = name.trim_end_matches('.');
                (name == "localhost" || name.ends_with(".localhost")).then_some(Self::Machine)
            }
        }
    }
}

/// What of IPv4 stands in an IPv6 address: mapped, compatible, NAT64 (RFC 6052), 6to4.
fn inner_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(v4(high, low)),
        // `::` and `::1` are addresses of their own.
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => Some(v4(high, low)),
        [0x2002, high, low, ..] => Some(v4(high, low)),
        _ => None,
    }
}

/// A name led to no address that it may lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LeadsInside;

impl fmt::Display for LeadsInside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name has no address but ones inside this machine or its network")
    }
}

impl std::error::Error for LeadsInside {}

impl LeadsInside {
    /// Whether this is why a request failed.
    pub(crate) fn is_cause_of(error: &(dyn std::error::Error + 'static)) -> bool {
        let mut next = Some(error);
        while let Some(error) = next {
            if error.is::<Self>() {
                return true;
            }
            // An io::Error shows what is in it only when it is asked.
            let within = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            if within.is_some_and(|error| error.is::<Self>()) {
                return true;
            }
            next = error.source();
        }
        false
    }
}

/// The system's lookup, less the addresses that are nearer than it says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NoNearer(pub(crate) Reach);

impl Resolve for NoNearer {
    fn resolve(&self, name: Name) -> Resolving {
        let least = self.0;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let may: Vec<SocketAddr> = found.filter(|address| Reach::of(address.ip()) >= least).collect();
            if may.is_empty() {
                return Err(LeadsInside.into());
            }
            let addresses: Addrs = Box::new(may.into_iter());
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_address_reaches_as_far_as_it_does() {
        for (address, reach) in [
            ("127.0.0.1", Reach::Machine),
            ("127.255.255.254", Reach::Machine),
            ("0.0.0.0", Reach::Machine),
            ("0.1.2.3", Reach::Machine),
            ("::", Reach::Machine),
            ("::1", Reach::Machine),
            ("::ffff:127.0.0.1", Reach::Machine),
            ("::7f00:1", Reach::Machine),
            ("64:ff9b::7f00:1", Reach::Machine),
            ("2002:7f00:1::", Reach::Machine),
            ("10.1.2.3", Reach::Network),
            ("172.16.0.1", Reach::Network),
            ("172.31.255.255", Reach::Network),
            ("192.168.0.1", Reach::Network),
            ("169.254.169.254", Reach::Network),
            ("100.64.0.1", Reach::Network),
            ("192.0.0.170", Reach::Network),
            ("198.18.0.1", Reach::Network),
            ("224.0.0.251", Reach::Network),
            ("255.255.255.255", Reach::Network),
            ("::ffff:192.168.0.1", Reach::Network),
            ("64:ff9b::a00:1", Reach::Network),
            ("2002:c0a8:1::1", Reach::Network),
            ("fc00::1", Reach::Network),
            ("fd12:3456::1", Reach::Network),
            ("fe80::1", Reach::Network),
            ("fec0::1", Reach::Network),
            ("ff02::fb", Reach::Network),
            ("172.15.0.1", Reach::World),
            ("172.32.0.1", Reach::World),
            ("100.63.0.1", Reach::World),
            ("192.0.2.1", Reach::World),
            ("8.8.8.8", Reach::World),
            ("2001:4860:4860::8888", Reach::World),
            ("64:ff9b::808:808", Reach::World),
        ] {
            assert_eq!(Reach::of(address.parse().unwrap()), reach, "{address}");
        }
    }

    #[test]
    fn a_url_says_by_itself_where_an_address_leads_and_a_name_does_not() {
        for (url, reach) in [
            ("http://127.1/", Some(Reach::Machine)),
            ("http://0/", Some(Reach::Machine)),
            ("http://localhost./", Some(Reach::Machine)),
            ("http://a.localhost/", Some(Reach::Machine)),
            ("http://[::ffff:10.0.0.1]/", Some(Reach::Network)),
            ("http://0xa9fea9fe/", Some(Reach::Network)),
            ("http://mirror.example/", None),
            ("http://127.0.0.1.example/", None),
        ] {
            assert_eq!(Reach::spelled(&Url::parse(url).unwrap()), reach, "{url}");
        }
    }

    #[tokio::test]
    async fn a_name_leads_to_no_nearer_address() {
        let name = || "localhost".parse::<Name>().unwrap();
        assert!(NoNearer(Reach::Machine).resolve(name()).await.is_ok());
        for least in [Reach::Network, Reach::World] {
            let Err(error) = NoNearer(least).resolve(name()).await else { panic!("localhost leads into this machine") };
            assert!(LeadsInside::is_cause_of(error.as_ref()), "{error}");
        }
    }
}
