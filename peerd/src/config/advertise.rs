//! Which address a peer advertises for others to dial.

use super::{NodeConfig, route::local_address_towards};
#[cfg(feature = "mdns")]
use crate::discovery::address_on_the_lan;
use crate::identity::OwnContact;
use p2pdi::{contact::Contact, endpoint::Endpoint, field::InvalidField, id::PeerId};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

impl NodeConfig {
    /// The contact to advertise for a server that listens on `bound`. Its endpoint is [`NodeConfig::advertise`] or `bound`; for a wildcard
    /// address it is the local address of the first route to the registry or a bootnode, or an address on the LAN, worked out anew
    /// while the peer runs.
    ///
    /// # Errors
    /// When `bound` is a wildcard address and no setting tells which of this machine's addresses others can reach.
    pub fn own_contact(&self, id: PeerId, bound: SocketAddr) -> Result<OwnContact, InvalidField> {
        let contact = |endpoint| Contact::new(id, self.name.clone(), endpoint);
        if let Some(endpoint) = &self.advertise {
            return Ok(OwnContact::fixed(contact(endpoint.clone())));
        }
        if !bound.ip().is_unspecified() {
            return Ok(OwnContact::fixed(contact(bound.into())));
        }
        let bootnodes = self.bootnodes.iter().flat_map(|bootnode| bootnode.endpoints());
        let others: Vec<_> = self.registries.iter().chain(bootnodes).cloned().collect();
        if others.is_empty() && !self.lan {
            return reachable_endpoint(bound, &others).map(|endpoint| OwnContact::fixed(contact(endpoint)));
        }
        let (routes, lan) = (self.routes.clone(), self.lan);
        let derive = move || {
            // The route to a registry on this machine is loopback, which others on the LAN cannot dial.
            let mut towards = others.iter().filter_map(|endpoint| routes.find(endpoint));
            let ip = if lan { towards.find(|ip| !ip.is_loopback()).or_else(|| on_the_lan(bound)) } else { None };
            let ip = ip.or_else(|| others.iter().find_map(|endpoint| routes.find(endpoint)))?;
            Some(SocketAddr::new(ip, bound.port()).into())
        };
        // While there is no other address, peers on this machine can dial this one.
        let loopback = if bound.is_ipv6() { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
        Ok(OwnContact::derived(contact(SocketAddr::new(loopback, bound.port()).into()), Arc::new(derive)))
    }
}

#[cfg(feature = "mdns")]
fn on_the_lan(bound: SocketAddr) -> Option<IpAddr> {
    address_on_the_lan(bound.is_ipv6())
}

#[cfg(not(feature = "mdns"))]
fn on_the_lan(_: SocketAddr) -> Option<IpAddr> {
    None
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_address_is_never_advertised() {
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 80));
        assert!(reachable_endpoint(any, []).is_err());
        let registry = "127.0.0.1:7800".parse().unwrap();
        assert_eq!(reachable_endpoint(any, [&registry]).unwrap().as_str(), "127.0.0.1:80");
    }
}
