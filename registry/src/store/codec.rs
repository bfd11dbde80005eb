//! A peer as bytes: protobuf, so that a later version can add fields and still read what this one wrote.

use crate::table::{Labels, PackedStrings, Peer, Registrations};
use p2pdi::{cookie::CookieHash, endpoint::Endpoint, id::PeerId, name::PeerName};
use prost::Message;
use std::net::Ipv6Addr;

#[derive(Clone, PartialEq, Message)]
struct Stored {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    endpoint: String,
    #[prost(bytes = "vec", tag = "3")]
    labels: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    id: Vec<u8>,
    #[prost(bytes = "vec", tag = "5")]
    cookie_hash: Vec<u8>,
    #[prost(bytes = "vec", tag = "6")]
    address: Vec<u8>,
    #[prost(uint64, tag = "7")]
    first_registered_ms: u64,
    #[prost(uint64, tag = "8")]
    last_registered_ms: u64,
    #[prost(uint64, tag = "9")]
    last_active_ms: u64,
    /// Days since 1970 and the registrations on each, alternating.
    #[prost(uint32, repeated, tag = "10")]
    registrations: Vec<u32>,
    #[prost(bool, tag = "11")]
    active: bool,
    /// Which change of its transaction it was, in a store that gives all changes of one the same revision.
    #[prost(uint32, tag = "12")]
    index: u32,
}

pub(super) fn encode(peer: &Peer) -> Vec<u8> {
    encode_at(peer, 0)
}

/// The peer as the change `index` of its transaction.
pub(super) fn encode_at(peer: &Peer, index: u32) -> Vec<u8> {
    let stored = Stored {
        name: peer.strings.name().into(),
        endpoint: peer.strings.endpoint().into(),
        labels: peer.strings.labels().as_bytes().into(),
        id: peer.id.as_bytes().into(),
        cookie_hash: peer.cookie.as_bytes().into(),
        address: peer.address.octets().into(),
        first_registered_ms: peer.first_registered_ms,
        last_registered_ms: peer.last_registered_ms,
        last_active_ms: peer.last_active_ms,
        registrations: peer.registrations.days().flat_map(|(day, count)| [day, count]).collect(),
        active: peer.active,
        index,
    };
    stored.encode_to_vec()
}

/// Whether these bytes are a peer of this name, compared without case.
pub(super) fn has_name(bytes: &[u8], name: &str) -> bool {
    Stored::decode(bytes).is_ok_and(|stored| stored.name.eq_ignore_ascii_case(name))
}

/// Why bytes are no peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// They are no record at all: the file is damaged.
    Damaged(String),
    /// They are a record that the rules of this version refuse. Another version may have accepted it.
    Refused {
        /// The name in the record, which may be what is refused.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// Which change of its transaction it was.
#[cfg(feature = "etcd")]
pub(super) fn index_of(bytes: &[u8]) -> u32 {
    Stored::decode(bytes).map_or(0, |stored| stored.index)
}

/// The peer, or what is wrong with the bytes.
pub(super) fn decode(bytes: &[u8]) -> Result<Peer, Unreadable> {
    decode_at(bytes).map(|(peer, _)| peer)
}

/// The peer, and which change of its transaction it was.
pub(super) fn decode_at(bytes: &[u8]) -> Result<(Peer, u32), Unreadable> {
    let stored = Stored::decode(bytes).map_err(|error| Unreadable::Damaged(error.to_string()))?;
    let (name, index) = (stored.name.clone(), stored.index);
    validated(stored).map(|peer| (peer, index)).map_err(|problem| Unreadable::Refused { name, problem })
}

/// A record of a backup.
pub(crate) fn write_record(peer: &Peer) -> Vec<u8> {
    encode(peer)
}

/// The peer of a record of a backup, or what is wrong with it.
pub(crate) fn read_record(bytes: &[u8]) -> Result<Peer, String> {
    decode(bytes).map_err(|unreadable| match unreadable {
        Unreadable::Damaged(problem) => problem,
        Unreadable::Refused { name, problem } => format!("{name:?}: {problem}"),
    })
}

fn validated(stored: Stored) -> Result<Peer, String> {
    let name: PeerName = stored.name.parse().map_err(|error| format!("{error}"))?;
    let endpoint: Endpoint = stored.endpoint.parse().map_err(|error| format!("{error}"))?;
    let cookie: [u8; 16] = stored.cookie_hash.try_into().map_err(|_| "cookie_hash: not 16 bytes")?;
    let address: [u8; 16] = stored.address.try_into().map_err(|_| "address: not 16 bytes")?;
    let labels = Labels::from_bytes(&stored.labels).ok_or("labels: malformed")?;
    Ok(Peer {
        strings: PackedStrings::new(name.as_str(), endpoint.as_str(), &labels),
        id: PeerId::from_field("id", &stored.id).map_err(|error| error.to_string())?,
        cookie: CookieHash::from_bytes(cookie),
        address: Ipv6Addr::from(address),
        first_registered_ms: stored.first_registered_ms,
        last_registered_ms: stored.last_registered_ms,
        last_active_ms: stored.last_active_ms,
        registrations: Registrations::from_days(stored.registrations.chunks_exact(2).map(|pair| (pair[0], pair[1]))),
        active: stored.active,
    })
}

/// A record of this peer under another name, which need not be valid.
#[cfg(test)]
pub(super) fn renamed(peer: &Peer, name: &str) -> Vec<u8> {
    let mut stored = Stored::decode(encode(peer).as_slice()).expect("what was written can be read");
    stored.name = name.into();
    stored.encode_to_vec()
}

/// For any bytes: reading them does not panic, and what is read is written and read again as the same. For tests and fuzz targets.
#[cfg(any(test, feature = "fuzzing"))]
#[allow(clippy::expect_used, reason = "what it finds is a fault")]
pub fn check_any_bytes(bytes: &[u8]) {
    if let Ok(peer) = decode(bytes) {
        let written = encode(&peer);
        let again = decode(&written).expect("what was written can be read");
        assert_eq!(encode(&again), written);
        let wall_ms = peer.last_registered_ms;
        let mut registrations = peer.registrations;
        registrations.add(wall_ms);
        assert!(registrations.count(wall_ms) > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    /// Mostly as long as it should be.
    fn sixteen() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![9 => vec(any::<u8>(), 16), 1 => vec(any::<u8>(), 0..20)]
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..200)) {
            check_any_bytes(&bytes);
        }

        #[test]
        fn any_fields_are_read_or_refused(
            name in "[a-z]{1,3}(\\.[a-z-]{0,3})?",
            port in any::<u16>(),
            (labels, address) in (prop_oneof![Just(vec![]), vec(0_u8..3, 0..8)], sixteen()),
            (id, cookie_hash) in (sixteen(), sixteen()),
            times in any::<[u64; 3]>(),
            registrations in vec(any::<u32>(), 0..6),
            active in any::<bool>(),
        ) {
            let stored = Stored {
                name, endpoint: format!("host:{port}"), labels, id, cookie_hash, address,
                first_registered_ms: times[0], last_registered_ms: times[1], last_active_ms: times[2],
                registrations, active, index: 0,
            };
            check_any_bytes(&stored.encode_to_vec());
        }
    }
}
