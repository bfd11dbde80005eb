//! The mDNS announcement of a peer: how it is built, and how those of others are read and checked.
//!
//! DNS-SD (RFC 6763): one instance of the service [`SERVICE`]. Its SRV record has the port, its host has the addresses, and its TXT
//! record has `id` (32 hexadecimal digits), `name`, `network`, `load` (documents being sent) and `links`.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use super::lan_peers::{AnnouncedPeer, Load};
use crate::overlay::{Contact, PeerId};
use if_addrs::{IfAddr, Interface};
use mdns_sd::{IfKind, ResolvedService, ScopedIp, ServiceInfo};
use p2pdi::{
    endpoint::Endpoint,
    field::{InvalidField, Quoted},
    hex,
    network::NetworkName,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The DNS-SD service type of peers, in the domain of multicast DNS.
pub(super) const SERVICE: &str = "_p2pdi._tcp.local.";
/// Longest part of a peer's name in its instance name: a label has 63 bytes (RFC 1035), less a dash and eight digits.
const INSTANCE_NAME_MAX: usize = 54;

/// Where a peer can be reached, and is therefore announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// On each network of this machine, with its addresses there, but not on loopback.
    Networks {
        /// With IPv6 addresses too.
        v6: bool,
    },
    /// On the network of this address, with this address only.
    Address(IpAddr),
    /// On this machine, with this loopback address.
    Machine(IpAddr),
}

/// The scope and the port that a peer announces when it listens on `bound`. The address that its user advertises takes precedence if
/// it is one of `own`, this machine's addresses; receivers reject any other (see [`read`]).
pub(super) fn scope(bound: SocketAddr, advertised: Option<&Endpoint>, own: &[IpAddr]) -> (Scope, u16) {
    let advertised = advertised.and_then(|endpoint| Some((endpoint.host().parse::<IpAddr>().ok()?, endpoint.port())));
    match advertised.filter(|(ip, _)| own.contains(ip)).unwrap_or((bound.ip(), bound.port())) {
        (ip, port) if ip.is_unspecified() => (Scope::Networks { v6: ip.is_ipv6() }, port),
        (ip, port) if ip.is_loopback() => (Scope::Machine(ip), port),
        (ip, port) => (Scope::Address(ip), port),
    }
}

impl Scope {
    /// Interfaces to disable, and then those to enable again.
    pub(super) fn interfaces(self) -> (Vec<IfKind>, Vec<IfKind>) {
        match self {
            Self::Networks { v6: true } => (vec![IfKind::LoopbackV4, IfKind::LoopbackV6], vec![]),
            Self::Networks { v6: false } => (vec![IfKind::LoopbackV4, IfKind::LoopbackV6, IfKind::IPv6], vec![]),
            Self::Address(ip) => (vec![IfKind::All], vec![IfKind::Addr(ip)]),
            Self::Machine(IpAddr::V4(_)) => (vec![IfKind::All], vec![IfKind::LoopbackV4]),
            Self::Machine(IpAddr::V6(_)) => (vec![IfKind::All], vec![IfKind::LoopbackV6]),
        }
    }
}

/// The announcement of the peer `me` in `network`.
///
/// # Errors
/// When a name in it is invalid in DNS.
pub(super) fn announce(
    me: &Contact,
    network: &NetworkName,
    scope: Scope,
    port: u16,
    load: Load,
) -> Result<ServiceInfo, mdns_sd::Error> {
    let id = me.id().to_string();
    // The id makes the instance unique; the mesh reports two peers with one name.
    let name: String = me.name().as_str().chars().take(INSTANCE_NAME_MAX).collect();
    let instance = format!("{name}-{}", &id[..8]);
    // One host name per peer: several peers share a machine, each with its own addresses.
    let host = format!("p2pdi-{id}.local.");
    let (uploads, links) = (load.uploads.to_string(), load.links.to_string());
    let (name, network) = (me.name().as_str(), network.as_str());
    let text = [("id", id.as_str()), ("name", name), ("network", network), ("load", &uploads), ("links", &links)];
    match scope {
        Scope::Networks { .. } => {
            ServiceInfo::new(SERVICE, &instance, &host, "", port, &text[..]).map(ServiceInfo::enable_addr_auto)
        }
        Scope::Address(ip) | Scope::Machine(ip) => ServiceInfo::new(SERVICE, &instance, &host, ip, port, &text[..]),
    }
}

/// Reads the announcement of another peer of `network`.
///
/// # Errors
/// When it is of another network, a field is missing or invalid, or no address is on a network of this machine's `interfaces`.
pub(super) fn read(
    service: &ResolvedService,
    network: &NetworkName,
    interfaces: &[Interface],
) -> Result<AnnouncedPeer, InvalidField> {
    let text = |key: &'static str| {
        service.get_property_val_str(key).ok_or_else(|| InvalidField::new(key, "is missing from the TXT record"))
    };
    let theirs = NetworkName::from_field(text("network").unwrap_or_default())?;
    if theirs != *network {
        return Err(InvalidField::new("network", format!("is {theirs}, and this peer is of the network {network}")));
    }
    let id = text("id")?;
    let id = hex::decode(id)
        .map(PeerId::from_bytes)
        .ok_or_else(|| InvalidField::new("id", format!("{} is not 32 hexadecimal digits", Quoted(id))))?;
    let name = text("name")?.parse()?;
    // A peer without a load sorts last.
    let number = |key| text(key).ok().and_then(|text| text.parse().ok()).unwrap_or(u32::MAX);
    let load = Load { uploads: number("load"), links: number("links") };
    let mut addresses: Vec<_> =
        service.get_addresses().iter().filter(|address| is_on_link(address, interfaces)).map(ScopedIp::to_ip_addr).collect();
    // IPv4 first, since a wildcard listener of either family accepts it; the order makes the choice stable.
    addresses.sort_unstable();
    let off_link = || InvalidField::new("address", "has none in a network of this machine");
    let address = addresses.first().ok_or_else(off_link)?;
    if service.get_port() == 0 {
        return Err(InvalidField::new("port", "is 0"));
    }
    let endpoint = SocketAddr::new(*address, service.get_port()).to_string().parse()?;
    Ok(AnnouncedPeer { instance: service.get_fullname().to_owned(), contact: Contact::new(id, name, endpoint), load })
}

/// Whether an address is in the subnet of the interface it was received on. Anybody on a LAN can announce any address; this check
/// keeps peers from being made to dial hosts elsewhere, or services of their own machine.
fn is_on_link(address: &ScopedIp, interfaces: &[Interface]) -> bool {
    let heard_on = |index: u32| interfaces.iter().filter(move |interface| interface.index == Some(index));
    match address {
        ScopedIp::V4(address) => {
            let ip = *address.addr();
            address.interface_ids().iter().flat_map(|id| heard_on(id.index)).any(|interface| match &interface.addr {
                IfAddr::V4(own) => {
                    ip.is_loopback() == own.ip.is_loopback()
                        && masked_v4(ip, own.netmask) == masked_v4(own.ip, own.netmask)
                        && own.netmask != Ipv4Addr::UNSPECIFIED
                        // Without a broadcast address, the system reports the interface's own.
                        && (ip == own.ip || Some(ip) != own.broadcast)
                }
                IfAddr::V6(_) => false,
            })
        }
        // An endpoint cannot carry the zone that a link-local address needs.
        ScopedIp::V6(address) => {
            let ip = *address.addr();
            !ip.is_unicast_link_local()
                && heard_on(address.scope_id().index).any(|interface| match &interface.addr {
                    IfAddr::V6(own) => {
                        ip.is_loopback() == own.ip.is_loopback()
                            && masked_v6(ip, own.netmask) == masked_v6(own.ip, own.netmask)
                            && own.netmask != Ipv6Addr::UNSPECIFIED
                    }
                    IfAddr::V4(_) => false,
                })
        }
        _ => false,
    }
}

fn masked_v4(ip: Ipv4Addr, mask: Ipv4Addr) -> u32 {
    u32::from(ip) & u32::from(mask)
}

fn masked_v6(ip: Ipv6Addr, mask: Ipv6Addr) -> u128 {
    u128::from(ip) & u128::from(mask)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mdns_sd::ScopedIpV4;
    use p2pdi::id::PeerId;

    fn me() -> Contact {
        let name = "fff-c.lab".parse().unwrap();
        Contact::new(PeerId::from_u128(0xabc), name, "10.0.0.7:7801".parse().unwrap())
    }

    fn interface(index: u32, ip: &str, mask: &str) -> Interface {
        let addr = if_addrs::Ifv4Addr {
            ip: ip.parse().unwrap(),
            netmask: mask.parse().unwrap(),
            prefixlen: 0,
            broadcast: Some(Ipv4Addr::new(10, 0, 0, 255)),
        };
        Interface {
            name: format!("if{index}"),
            addr: IfAddr::V4(addr),
            index: Some(index),
            oper_status: if_addrs::IfOperStatus::Up,
            is_p2p: false,
        }
    }

    fn interfaces() -> [Interface; 2] {
        [interface(1, "127.0.0.1", "255.0.0.0"), interface(2, "10.0.0.7", "255.255.255.0")]
    }

    /// An announcement received on interface 2.
    fn heard(addresses: &[&str], text: &[(&str, &str)]) -> ResolvedService {
        let info = ServiceInfo::new(SERVICE, "x", "x.local.", "", 7801, text).unwrap();
        let mut service = info.as_resolved_service();
        let on = |ip: &&str| ScopedIp::V4(ScopedIpV4::new(ip.parse().unwrap(), interface_id(2)));
        service.addresses = addresses.iter().map(on).collect();
        service
    }

    fn interface_id(index: u32) -> mdns_sd::InterfaceId {
        mdns_sd::InterfaceId { name: format!("if{index}"), index }
    }

    const ID: &str = "00000000000000000000000000000abc";

    #[test]
    fn an_announcement_is_read_back_as_it_was_built() {
        let load = Load { uploads: 3, links: 5 };
        let info = announce(&me(), &NetworkName::default(), Scope::Address("10.0.0.7".parse().unwrap()), 7801, load).unwrap();
        assert_eq!(info.get_fullname(), "fff-c\\.lab-00000000._p2pdi._tcp.local.");
        let mut service = info.as_resolved_service();
        service.addresses = heard(&["10.0.0.7"], &[]).addresses;
        let announced = read(&service, &NetworkName::default(), &interfaces()).unwrap();
        assert_eq!((announced.contact.id(), announced.contact.name().as_str()), (me().id(), "fff-c.lab"));
        assert_eq!((announced.contact.endpoint().as_str(), announced.load), ("10.0.0.7:7801", load));
        let long = Contact::new(me().id(), format!("{}a", "a.".repeat(100)).parse().unwrap(), me().endpoint().clone());
        assert!(announce(&long, &NetworkName::default(), Scope::Networks { v6: true }, 1, load).is_ok());
    }

    #[test]
    fn an_invalid_announcement_is_rejected_with_the_field_that_is_wrong() {
        for (text, field) in [
            (vec![], "id"),
            (vec![("id", "xyz"), ("name", "a")], "id"),
            (vec![("id", "+0000000000000000000000000000abc"), ("name", "a")], "id"),
            (vec![("id", ID)], "name"),
            (vec![("id", ID), ("name", "two words")], "name"),
            (vec![("id", ID), ("name", "\u{1b}[31m")], "name"),
            (vec![("id", ID), ("name", "a"), ("network", "other")], "network"),
            (vec![("id", ID), ("name", "a"), ("network", "..")], "network"),
        ] {
            assert_eq!(
                read(&heard(&["10.0.0.9"], &text), &NetworkName::default(), &interfaces()).unwrap_err().field,
                field,
                "{text:?}"
            );
        }
        let text = [("id", ID), ("name", "a"), ("load", "many")];
        assert_eq!(read(&heard(&["10.0.0.9"], &text), &NetworkName::default(), &interfaces()).unwrap().load.uploads, u32::MAX);
    }

    #[test]
    fn only_addresses_in_the_subnet_of_the_receiving_interface_are_dialled() {
        let text = [("id", ID), ("name", "a")];
        for ip in ["127.0.0.1", "8.8.8.8", "10.0.1.9", "10.0.0.255", "224.0.0.251", "0.0.0.0"] {
            assert_eq!(read(&heard(&[ip], &text), &NetworkName::default(), &interfaces()).unwrap_err().field, "address", "{ip}");
        }
        let announced =
            read(&heard(&["127.0.0.1", "10.0.0.9", "10.0.0.8"], &text), &NetworkName::default(), &interfaces()).unwrap();
        assert_eq!(announced.contact.endpoint().as_str(), "10.0.0.8:7801");
        // Peers of this machine are received on its loopback interface, with its address.
        let mut own = heard(&[], &text);
        own.addresses = [ScopedIp::V4(ScopedIpV4::new(Ipv4Addr::LOCALHOST, interface_id(1)))].into();
        assert_eq!(read(&own, &NetworkName::default(), &interfaces()).unwrap().contact.endpoint().as_str(), "127.0.0.1:7801");
        own.port = 0;
        assert_eq!(read(&own, &NetworkName::default(), &interfaces()).unwrap_err().field, "port");
    }

    #[test]
    fn a_peer_is_announced_where_it_can_be_reached() {
        let own: Vec<IpAddr> = ["127.0.0.1", "10.0.0.7"].iter().map(|ip| ip.parse().unwrap()).collect();
        let lan = Scope::Address(own[1]);
        for (bound, advertised, expected) in [
            ("127.0.0.1:1", None, (Scope::Machine(own[0]), 1)),
            ("0.0.0.0:1", None, (Scope::Networks { v6: false }, 1)),
            ("[::]:1", None, (Scope::Networks { v6: true }, 1)),
            ("10.0.0.7:1", None, (lan, 1)),
            // An address of another machine is not announced, nor is a host name.
            ("0.0.0.0:1", Some("203.0.113.1:2"), (Scope::Networks { v6: false }, 1)),
            ("0.0.0.0:1", Some("peer-0.peers:2"), (Scope::Networks { v6: false }, 1)),
            ("127.0.0.1:1", Some("10.0.0.7:2"), (lan, 2)),
        ] {
            let advertised: Option<Endpoint> = advertised.map(|text| text.parse().unwrap());
            assert_eq!(scope(bound.parse().unwrap(), advertised.as_ref(), &own), expected, "{bound} {advertised:?}");
        }
    }
}
