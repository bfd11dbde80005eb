//! Which address a peer advertises for others to dial.

use super::NodeConfig;
#[cfg(feature = "mdns")]
use crate::discovery::address_on_the_lan;
use p2pdi::{endpoint::Endpoint, field::InvalidField};
use std::net::{IpAddr, SocketAddr, UdpSocket};

impl NodeConfig {
    /// The endpoint to advertise for a server that listens on `bound`: [`NodeConfig::advertise`], or else an address of this machine.
    ///
    /// # Errors
    /// When `bound` is a wildcard address and no setting tells which of this machine's addresses others can reach.
    pub fn endpoint(&self, bound: SocketAddr) -> Result<Endpoint, InvalidField> {
        if let Some(endpoint) = &self.advertise {
            return Ok(endpoint.clone());
        }
        let bootnodes = self.bootnodes.iter().flat_map(|bootnode| bootnode.endpoints());
        let others: Vec<_> = self.registry.iter().chain(bootnodes).collect();
        #[cfg(feature = "mdns")]
        if self.lan && bound.ip().is_unspecified() {
            // The route to a registry on this machine is loopback, which others on the LAN cannot dial.
            let towards = others.iter().filter_map(|endpoint| local_address_towards(endpoint)).find(|ip| !ip.is_loopback());
            if let Some(ip) = towards.or_else(|| address_on_the_lan(bound.is_ipv6())) {
                return Ok(SocketAddr::new(ip, bound.port()).into());
            }
        }
        reachable_endpoint(bound, others)
    }
}

/// The endpoint others dial for a server bound to `bound`: `bound` itself, or for a wildcard address the local address of the first
/// route to one of `others`.
///
/// # Errors
/// When `bound` is a wildcard address and there is a route to none of `others`.
pub fn reachable_endpoint<'a>(
    bound: SocketAddr,
    others: impl IntoIterator<Item = &'a Endpoint>,
) -> Result<Endpoint, InvalidField> {
    if !bound.ip().is_unspecified() {
        return Ok(bound.into());
    }
    let ip = others.into_iter().find_map(local_address_towards).ok_or_else(|| {
        InvalidField::new(
            "advertise",
            format!("{bound} is a wildcard address, which cannot be dialled; give the one that others reach with --advertise HOST:PORT"),
        )
    })?;
    Ok(SocketAddr::new(ip, bound.port()).into())
}

/// The local address of the route to `endpoint`. Sends nothing: connecting a UDP socket only asks the routing table.
pub fn local_address_towards(endpoint: &Endpoint) -> Option<IpAddr> {
    let any = if endpoint.host().contains(':') { "[::]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect((endpoint.host(), endpoint.port())).ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn a_wildcard_address_is_never_advertised() {
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 80));
        assert!(reachable_endpoint(any, []).is_err());
        let registry = "127.0.0.1:7800".parse().unwrap();
        assert_eq!(reachable_endpoint(any, [&registry]).unwrap().as_str(), "127.0.0.1:80");
    }
}
