//! What is known of a peer and outlives the process.

use super::{Labels, Registrations};
use p2pdi::{cookie::CookieHash, id::PeerId};
use std::net::{IpAddr, Ipv6Addr};

/// A peer as a store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// As it was spelt at the latest registration.
    pub name: Box<str>,
    /// `HOST:PORT`; empty for an observer.
    pub endpoint: Box<str>,
    /// For those who select by them.
    pub labels: Labels,
    /// Made once by the peer.
    pub id: PeerId,
    /// Recognises the peer's cookie.
    pub cookie: CookieHash,
    /// Where the latest registration came from ([`mapped`]).
    pub address: Ipv6Addr,
    /// Milliseconds since 1970.
    pub first_registered_ms: u64,
    /// Milliseconds since 1970.
    pub last_registered_ms: u64,
    /// Milliseconds since 1970.
    pub last_active_ms: u64,
    /// How often in the last 30 days.
    pub registrations: Registrations,
    /// Whether it had a lease when this was written.
    pub active: bool,
}

/// One form for all addresses, so that 127.0.0.1 and ::ffff:127.0.0.1 are the same caller.
pub fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}
