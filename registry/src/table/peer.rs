//! The stored part of a record.

use super::{labels::Labels, moment::Now, registrations::Registrations};
use p2pdi::{cookie::CookieHash, id::PeerId};
use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

/// A peer as a store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its name, endpoint and labels.
    pub strings: PackedStrings,
    /// Generated once by the peer.
    pub id: PeerId,
    /// Hash of the peer's cookie.
    pub cookie: CookieHash,
    /// Where the latest registration came from ([`to_ipv6`]).
    pub address: Ipv6Addr,
    /// Milliseconds since 1970.
    pub first_registered_ms: u64,
    /// Milliseconds since 1970.
    pub last_registered_ms: u64,
    /// Milliseconds since 1970.
    pub last_active_ms: u64,
    /// Registrations of the last 30 days.
    pub registrations: Registrations,
    /// Whether it has a lease.
    pub active: bool,
}

impl Peer {
    /// One that registers for the first time now, and has no lease yet.
    pub(super) fn new(strings: PackedStrings, id: PeerId, cookie: CookieHash, address: Ipv6Addr, now: Now) -> Self {
        Self {
            strings,
            id,
            cookie,
            address,
            first_registered_ms: now.wall_ms,
            last_registered_ms: now.wall_ms,
            last_active_ms: now.wall_ms,
            registrations: Registrations::default(),
            active: false,
        }
    }
}

/// Name, endpoint and labels in one allocation. With three, the pointers and the allocator's overhead would take an eighth of the
/// memory that a peer may cost.
#[derive(Clone, PartialEq, Eq)]
pub struct PackedStrings(Box<[u8]>);

/// Length of the name (one byte) and of the endpoint (two), then both, then the labels.
const HEADER: usize = 3;

impl PackedStrings {
    /// Packs validated strings: a name is at most 253 bytes long, an endpoint little longer.
    pub fn new(name: &str, endpoint: &str, labels: &Labels<'_>) -> Self {
        let name = &name.as_bytes()[..name.len().min(usize::from(u8::MAX))];
        let endpoint = &endpoint.as_bytes()[..endpoint.len().min(usize::from(u16::MAX))];
        let mut bytes = Vec::with_capacity(HEADER + name.len() + endpoint.len() + labels.as_bytes().len());
        bytes.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        bytes.extend(u16::try_from(endpoint.len()).unwrap_or(u16::MAX).to_le_bytes());
        for part in [name, endpoint, labels.as_bytes()] {
            bytes.extend_from_slice(part);
        }
        Self(bytes.into())
    }

    fn parts(&self) -> (&[u8], &[u8], &[u8]) {
        let (header, rest) = self.0.split_at(HEADER);
        let (name, rest) = rest.split_at(usize::from(header[0]));
        let (endpoint, labels) = rest.split_at(usize::from(u16::from_le_bytes([header[1], header[2]])));
        (name, endpoint, labels)
    }

    /// The name as spelt at the latest registration.
    pub fn name(&self) -> &str {
        std::str::from_utf8(self.parts().0).unwrap_or_default()
    }

    /// `HOST:PORT`; empty for an observer.
    pub fn endpoint(&self) -> &str {
        std::str::from_utf8(self.parts().1).unwrap_or_default()
    }

    /// Labels that queries can select by.
    pub fn labels(&self) -> Labels<'_> {
        Labels::trusted(self.parts().2)
    }
}

impl fmt::Debug for PackedStrings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} with {:?}", self.name(), self.endpoint(), self.labels().iter().collect::<Vec<_>>())
    }
}

/// The address as IPv6, so that 127.0.0.1 and ::ffff:127.0.0.1 are the same caller.
pub fn to_ipv6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}
