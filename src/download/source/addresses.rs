//! Which addresses a download may connect to, and a resolver that gives no others.
//!
//! Where internal addresses are refused, names resolve to what is left: the address that was checked is the one
//! that is connected to, so that a name cannot change in between.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::net::lookup_host;

use super::cause::Barrier;

/// Metadata services that clouds have outside the link-local ranges.
const METADATA: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe)),
];

/// Names of this machine and of metadata services, for requests whose names a proxy resolves.
const INTERNAL_NAMES: [&str; 5] =
    ["localhost", "metadata", "metadata.google.internal", "instance-data", "instance-data.ec2.internal"];

/// Whether an address is of this machine, of its link, or of its cloud's metadata service.
pub(super) fn is_internal(address: IpAddr) -> bool {
    METADATA.contains(&address)
        || match address {
            IpAddr::V4(address) => is_internal_v4(address),
            IpAddr::V6(address) => is_internal_v6(address),
        }
}

fn is_internal_v4(address: Ipv4Addr) -> bool {
    // 0.0.0.0/8 is this host, 240.0.0.0/4 is reserved and ends with the broadcast address.
    address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.octets()[0] == 0
        || address.octets()[0] >= 240
}

fn is_internal_v6(address: Ipv6Addr) -> bool {
    // fd00:ec2::/32 are the local services of EC2.
    let own = address.is_loopback()
        || address.is_unspecified()
        || address.is_multicast()
        || address.is_unicast_link_local()
        || matches!(address.segments(), [0xfd00, 0x0ec2, ..]);
    own || embedded(address).into_iter().flatten().any(|address| is_internal(IpAddr::V4(address)))
}

/// The IPv4 addresses that a translator or a tunnel may make of an IPv6 address.
fn embedded(address: Ipv6Addr) -> [Option<Ipv4Addr>; 2] {
    let parts = address.segments();
    let v4 = |high: u16, low: u16| Some(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    let last = v4(parts[6], parts[7]);
    match parts {
        // Compatible, mapped, translated (RFC 2765), NAT64, and ISATAP.
        [0, 0, 0, 0, 0, 0 | 0xffff, ..]
        | [0, 0, 0, 0, 0xffff, 0, ..]
        | [0x64, 0xff9b, 0, 0, 0, 0, ..]
        | [_, _, _, _, 0 | 0x200, 0x5efe, ..] => [last, None],
        // NAT64 with a prefix of the network's own: where the address stands depends on the prefix' length.
        [0x64, 0xff9b, 1, high, middle, low, ..] => [last, v4(high, (middle << 8) | (low >> 8))],
        [0x2002, high, low, ..] => [v4(high, low), None],
        // Teredo: the client's address is inverted.
        [0x2001, 0, high, low, ..] => [v4(high, low), v4(!parts[6], !parts[7])],
        _ => [None, None],
    }
}

/// The address that a host is, however it was written.
pub(super) fn literal(url: &Url) -> Option<IpAddr> {
    url.host_str()?.trim_matches(['[', ']']).parse().ok()
}

/// Refuses a host that is an internal address. A name is left to the resolver, or to the proxy that resolves it:
/// here only names that are known to be internal can be refused.
pub(super) fn check(url: &Url) -> Result<(), Barrier> {
    let host = url.host_str().unwrap_or_default();
    let found = match literal(url) {
        Some(address) => is_internal(address).then(|| address.to_string()),
        None => is_internal_name(host).then(|| "a name of this machine or its cloud".to_owned()),
    };
    found.map_or(Ok(()), |address| Err(Barrier::Address { host: host.to_owned(), address }))
}

fn is_internal_name(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    INTERNAL_NAMES.contains(&name.as_str()) || name.ends_with(".localhost")
}

/// Of the addresses of a name those that may be connected to.
fn allowed(host: &str, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Barrier> {
    let refused = found.first().map(|first| first.ip().to_string()).unwrap_or_default();
    let allowed: Vec<_> = found.into_iter().filter(|address| !is_internal(address.ip())).collect();
    if allowed.is_empty() {
        return Err(Barrier::Address { host: host.to_owned(), address: refused });
    }
    Ok(allowed)
}

/// Resolves names as the system does, and leaves out internal addresses where they are refused.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resolver {
    /// Whether internal addresses are left out.
    pub(super) refuses_internal: bool,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let refuses_internal = self.refuses_internal;
        Box::pin(async move {
            let host = name.as_str();
            let unknown = |why: String| Barrier::NoAddress { host: host.to_owned(), why };
            let found = lookup_host((host, 0)).await.map_err(|error| unknown(error.to_string()))?;
            let found: Vec<SocketAddr> = found.collect();
            if found.is_empty() {
                return Err(unknown("it has no address".to_owned()).into());
            }
            let found = if refuses_internal { allowed(host, found)? } else { found };
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_machine_its_link_and_its_metadata_service_are_internal_in_every_form() {
        for address in [
            "127.0.0.1",
            "127.255.255.254",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "169.254.170.23",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "::1",
            "::",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "::ffff:0:127.0.0.1",
            "64:ff9b::169.254.169.254",
            "64:ff9b::7f00:1",
            "64:ff9b:1::169.254.169.254",
            "64:ff9b:1:a9fe:a9:fe00::",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "2001:0:7f00:1::",
            "2001::8000:0:5601:5601",
            "2001:db8::5efe:127.0.0.1",
            "::ffff:100.100.100.200",
        ] {
            assert!(is_internal(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn public_and_private_addresses_are_not_internal() {
        for address in [
            "93.184.216.34",
            "10.96.0.1",
            "172.18.0.2",
            "192.168.1.1",
            "100.64.0.1",
            "223.0.0.1",
            "2606:4700::1111",
            "fd12::1",
            "64:ff9b::808:808",
            "2002:808:808::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(!is_internal(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn a_host_is_refused_however_its_address_is_written() {
        for host in [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f.1",
            "0177.0.0.1",
            "0",
            "[::1]",
            "[::ffff:7f00:1]",
            "[fe80::1]",
            "169.254.169.254",
            "169.254.43518",
            "0xA9FEA9FE",
            "127。0。0。1",
            "localhost",
            "LOCALHOST.",
            "a.localhost",
            "metadata.google.internal",
            "metadata.google.internal.",
        ] {
            let url = Url::parse(&format!("http://{host}/x")).unwrap();
            assert!(matches!(check(&url), Err(Barrier::Address { .. })), "{host}");
        }
        for host in ["hub.example", "10.0.0.1", "[2606:4700::1111]", "localhost.example", "mylocalhost"] {
            assert_eq!(check(&Url::parse(&format!("http://{host}/x")).unwrap()), Ok(()), "{host}");
        }
    }

    #[test]
    fn of_a_names_addresses_only_those_that_are_not_internal_are_left() {
        let of = |addresses: &[&str]| {
            addresses.iter().map(|one| SocketAddr::new(one.parse().unwrap(), 0)).collect()
        };
        let left = |addresses: &[&str]| allowed("rebind.example", of(addresses));
        assert_eq!(left(&["127.0.0.1", "93.184.216.34", "::1"]), Ok(of(&["93.184.216.34"])));
        let error = left(&["169.254.169.254", "fe80::1"]).unwrap_err();
        assert_eq!(
            error,
            Barrier::Address { host: "rebind.example".into(), address: "169.254.169.254".into() }
        );
    }
}
