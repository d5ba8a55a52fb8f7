//! The addresses that the daemon may connect to because an LFS server names them: public addresses,
//! and addresses in the same kind of network as the LFS server.
//!
//! Each URL is checked twice. [`Guard::allows`] checks the URL itself, which may contain an address
//! or a name that a proxy resolves. The resolver of the HTTP client checks the addresses to which
//! it connects. Without the second check, a name could resolve differently after the first one (DNS
//! rebinding).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// The kind of network that an address is in.
///
/// An LFS server may name public addresses and addresses of its own kind of network, no others.
/// Clouds have their metadata services at link-local addresses, and some in each of the private
/// ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Network {
    Public,
    /// RFC 1918.
    Private,
    /// RFC 6598: behind a carrier's NAT.
    Shared,
    /// RFC 4193.
    UniqueLocal,
    LinkLocal,
    Loopback,
    /// Unspecified, multicast or reserved. The daemon never connects there.
    Special,
}

impl Network {
    pub(super) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::of_v4(address),
            IpAddr::V6(address) => Self::of_v6(address),
        }
    }

    fn of_v4(address: Ipv4Addr) -> Self {
        let octets = address.octets();
        match octets {
            _ if address.is_loopback() => Self::Loopback,
            _ if address.is_link_local() => Self::LinkLocal,
            _ if address.is_private() => Self::Private,
            [100, 64..=127, ..] => Self::Shared,
            [0 | 224..=255, ..] | [192, 0, 0, _] | [198, 18 | 19, ..] => Self::Special,
            _ if address.is_documentation() => Self::Special,
            _ => Self::Public,
        }
    }

    fn of_v6(address: Ipv6Addr) -> Self {
        let segments = address.segments();
        let embedded = |high: u16, low: u16| {
            let [a, b] = high.to_be_bytes();
            let [c, d] = low.to_be_bytes();
            Self::of_v4(Ipv4Addr::new(a, b, c, d))
        };
        match segments {
            _ if address.is_loopback() => Self::Loopback,
            // NAT64 (RFC 6052) and 6to4 addresses lead to the IPv4 address that they contain.
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => embedded(high, low),
            [0xfc00..=0xfdff, ..] => Self::UniqueLocal,
            [0xfe80..=0xfebf, ..] => Self::LinkLocal,
            // Global unicast without the special ranges at its beginning (such as Teredo) and
            // without the addresses for documentation.
            [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Self::Special,
            [0x2000..=0x3fff, ..] => Self::Public,
            _ => Self::Special,
        }
    }
}

/// The rule for addresses. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    /// The kind of network that upstream's LFS server is in.
    server: Network,
    /// The hosts of the proxies in the daemon's environment.
    proxies: Arc<[String]>,
}

impl Guard {
    /// Creates a guard for the responses of a server in a network of the kind `server`.
    pub(super) fn new(server: Network) -> Self {
        Self {
            server,
            proxies: proxies(),
        }
    }

    /// Creates a guard for the responses of the server at `url`, which answered from `address`.
    pub(super) async fn of(url: &Url, address: Option<IpAddr>) -> Self {
        // The peer's address counts only if the server's name resolves to it. Otherwise it is that
        // of a proxy, and a proxy in a private network must not open that network to a public
        // server.
        let addresses = addresses(url).await.unwrap_or_default();
        let own = address.filter(|address| addresses.contains(address));
        Self::new(own.map_or(Network::Public, Network::of))
    }

    /// Returns whether the daemon may request `url`. If this machine can't resolve the name, the
    /// check is left to the resolver of the connection.
    pub(super) async fn allows(&self, url: &Url) -> bool {
        let is_http = matches!(url.scheme(), "http" | "https");
        let addresses = addresses(url).await.unwrap_or_default();
        is_http
            && addresses
                .into_iter()
                .all(|address| self.allows_address(address))
    }

    fn allows_address(&self, address: IpAddr) -> bool {
        match Network::of(address) {
            Network::Special => false,
            Network::Public => true,
            network => network == self.server,
        }
    }
}

/// Returns the addresses of the host in a URL.
async fn addresses(url: &Url) -> Option<Vec<IpAddr>> {
    // A parsed URL spells an address in one way, and has brackets around IPv6.
    let host = url.host_str()?.trim_matches(['[', ']']);
    if let Ok(address) = host.parse() {
        return Some(vec![address]);
    }
    let found = tokio::net::lookup_host((host, 0)).await.ok()?;
    Some(found.map(|address| address.ip()).collect())
}

/// Returns the hosts in the environment variables by which `reqwest` finds proxies.
fn proxies() -> Arc<[String]> {
    let names = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];
    let names = names
        .into_iter()
        .flat_map(|name| [name.to_owned(), name.to_lowercase()]);
    let values = names.filter_map(|name| std::env::var(name).ok());
    let host = |value: String| {
        let url = Url::parse(&value).ok().filter(Url::has_host);
        let url = url.or_else(|| Url::parse(&format!("http://{value}")).ok())?;
        url.host_str().map(str::to_owned)
    };
    values.filter_map(host).collect()
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let name = name.as_str();
            let found = tokio::net::lookup_host((name, 0)).await?;
            let found: Vec<SocketAddr> = found.collect();
            // The operator chose the proxy, so it may be in any network. `allows` has checked the
            // URL that the proxy is asked for.
            let is_proxy = guard.proxies.iter().any(|proxy| proxy == name);
            if is_proxy
                || found
                    .iter()
                    .all(|address| guard.allows_address(address.ip()))
            {
                Ok(Box::new(found.into_iter()) as Addrs)
            } else {
                Err("the daemon may not connect to the address of this host".into())
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_is_in_one_kind_of_network() {
        for (network, addresses) in [
            (
                Network::Public,
                "1.1.1.1 140.82.121.4 2606:50c0:8000::153 64:ff9b::101:101",
            ),
            (
                Network::Private,
                "10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 ::ffff:10.0.0.1",
            ),
            (Network::Private, "64:ff9b::a00:1 2002:a00:1::1"),
            (
                Network::Shared,
                "100.64.0.1 100.100.100.200 100.127.255.255",
            ),
            (Network::UniqueLocal, "fd00:ec2::254 fc00::1"),
            (
                Network::LinkLocal,
                "169.254.169.254 fe80::1 64:ff9b::a9fe:a9fe",
            ),
            (
                Network::Loopback,
                "127.0.0.1 127.1.2.3 ::1 ::ffff:127.0.0.1 2002:7f00:1::1",
            ),
            (
                Network::Special,
                "0.0.0.0 0.1.2.3 :: 224.0.0.1 255.255.255.255 240.0.0.1 ff02::1",
            ),
            (
                Network::Special,
                "192.0.0.1 198.18.0.1 192.0.2.1 2001::1 2001:db8::1 ::7f00:1",
            ),
            (Network::Special, "fec0::1 64:ff9b:1::a00:1 100::1"),
        ] {
            for address in addresses.split(' ') {
                assert_eq!(Network::of(address.parse().unwrap()), network, "{address}");
            }
        }
    }

    #[tokio::test]
    async fn a_server_may_name_public_addresses_and_its_own_kind_of_network() {
        let guard = Guard::new(Network::Private);
        for (url, is_allowed) in [
            ("https://1.1.1.1/x", true),
            ("http://10.1.2.3/x", true),
            ("http://169.254.169.254/x", false),
            ("http://0xa9fea9fe/x", false),
            ("http://2130706433/x", false),
            ("http://[::1]/x", false),
            ("http://[::ffff:127.0.0.1]/x", false),
            ("http://localhost/x", false),
            ("ftp://1.1.1.1/x", false),
            ("file:///etc/passwd", false),
        ] {
            let allowed = guard.allows(&Url::parse(url).unwrap()).await;
            assert_eq!(allowed, is_allowed, "{url}");
        }
    }

    #[tokio::test]
    async fn a_proxys_address_does_not_tell_the_network_of_the_server() {
        let (url, loopback) = (Url::parse("http://localhost:1/").unwrap(), "127.0.0.1");
        let server = async |address: &str| Guard::of(&url, address.parse().ok()).await.server;

        assert_eq!(server(loopback).await, Network::Loopback);
        assert_eq!(server("10.0.0.1").await, Network::Public);
    }
}
