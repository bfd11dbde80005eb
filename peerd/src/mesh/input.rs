//! What tasks report to the state of the mesh.

use super::link::{EstablishedLink, OpenError};
use crate::overlay::PeerId;
use p2pdi::{contact::Contact, endpoint::Endpoint, v1::LinkFrame};
use std::net::IpAddr;

/// The result of a task.
#[expect(clippy::large_enum_variant, reason = "nearly all are frames: a box would be an allocation for each")]
pub(super) enum Input {
    /// A handshake succeeded.
    Opened(Box<EstablishedLink>, Purpose),
    /// A dial or a handshake failed.
    OpenFailed(Purpose, OpenError),
    /// Peers that the registry, the bootnodes and the LAN offer.
    PeersFound(Vec<Contact>),
    /// The reply of a message handler, for the neighbour that relayed the message.
    Reply(PeerId, LinkFrame),
}

/// Why a link is opened.
pub(super) enum Purpose {
    /// The overlay wants a link to this peer.
    Overlay(PeerId),
    /// It leads to the bootnode at this index of the list.
    Bootnode(usize),
    /// Callers asked to join the peer there.
    Join(Endpoint),
    /// To check whether this peer, which has the name of this one, is alive.
    NameConflict(PeerId),
    /// The other side opened it, from this address.
    Accepted(Option<IpAddr>),
}
