//! This machine's network interfaces, and its address on the LAN.

use if_addrs::Interface;
use std::{net::IpAddr, time::Duration};
use tokio::time::Instant;

/// How long a list of interfaces is used before it is read again.
const INTERFACES_FRESH: Duration = Duration::from_secs(5);

/// This machine's network interfaces; empty if the system does not report them.
pub(super) fn interfaces() -> Vec<Interface> {
    if_addrs::get_if_addrs().unwrap_or_default()
}

/// The address at which others on the LAN reach a peer that listens on a wildcard address: the source address of the route to the
/// multicast group, or else any address of this machine on a network. `v6_too`: IPv6 addresses count.
pub(crate) fn address_on_the_lan(v6_too: bool) -> Option<IpAddr> {
    let is_usable = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local(),
        IpAddr::V6(ip) => v6_too && !ip.is_loopback() && !ip.is_unicast_link_local(),
    };
    let source = || {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
        // Sends nothing: `connect` on a UDP socket only consults the routing table.
        socket.connect("224.0.0.251:5353").ok()?;
        socket.local_addr().ok().map(|address| address.ip())
    };
    let mut all: Vec<_> = interfaces().iter().map(Interface::ip).filter(is_usable).collect();
    // IPv4 first; the order makes the choice stable.
    all.sort_unstable();
    source().filter(is_usable).or_else(|| all.first().copied())
}

/// This machine's interfaces, read again when they are older than [`INTERFACES_FRESH`].
#[derive(Default)]
pub(super) struct InterfaceCache {
    interfaces: Vec<Interface>,
    read_at: Option<Instant>,
}

impl InterfaceCache {
    pub(super) fn interfaces(&mut self) -> &[Interface] {
        if self.read_at.is_none_or(|at| at.elapsed() > INTERFACES_FRESH) {
            (self.interfaces, self.read_at) = (interfaces(), Some(Instant::now()));
        }
        &self.interfaces
    }
}
