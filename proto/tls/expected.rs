//! Whom a client expects at the other end of a connection.

use crate::{endpoint::Endpoint, name::PeerName};

/// Whom a client expects. The address where a peer was found proves nothing: addresses change, and tunnels and NATs stand between.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Expected {
    /// Anyone of the network: any certificate of its CA. The client learns the name from it.
    Anyone,
    /// The peer that may use this name.
    Peer(PeerName),
    /// The registry that is dialled at this endpoint. Its certificate has the SPIFFE id `spiffe://NETWORK/registry`, or it is for the
    /// endpoint's host name or address and says of no peer or operator that it is theirs.
    Registry(Endpoint),
}
