//! The local address of a route to another host.

use p2pdi::endpoint::Endpoint;
use std::{
    fmt,
    net::{IpAddr, UdpSocket},
    sync::Arc,
};

/// Finds the local address of the route to an endpoint: [`local_address_towards`], unless a program knows better.
#[derive(Clone)]
pub struct RouteLookup(Arc<Lookup>);

type Lookup = dyn Fn(&Endpoint) -> Option<IpAddr> + Send + Sync;

impl RouteLookup {
    /// Calls `lookup`, which may block.
    pub fn new(lookup: impl Fn(&Endpoint) -> Option<IpAddr> + Send + Sync + 'static) -> Self {
        Self(Arc::new(lookup))
    }
}

impl RouteLookup {
    /// The local address from which `endpoint` would be reached.
    pub(super) fn find(&self, endpoint: &Endpoint) -> Option<IpAddr> {
        (self.0)(endpoint)
    }
}

impl Default for RouteLookup {
    fn default() -> Self {
        Self::new(local_address_towards)
    }
}

impl fmt::Debug for RouteLookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RouteLookup")
    }
}

/// The local address of the route to `endpoint`. Sends nothing: connecting a UDP socket only asks the routing table.
pub fn local_address_towards(endpoint: &Endpoint) -> Option<IpAddr> {
    let any = if endpoint.host().contains(':') { "[::]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect((endpoint.host(), endpoint.port())).ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_unspecified())
}
