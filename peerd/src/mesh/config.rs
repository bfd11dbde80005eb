//! What a peer's mesh is made with.

use super::signatures::Signatures;
use crate::{connections::channels::ChannelPool, discovery::Bootnode, inbox::LocalDelivery, session::Session};
use p2pdi::{contact::Contact, network::NetworkName};

/// Settings of the mesh, and the parts of the peer it uses.
pub struct MeshConfig {
    /// This peer.
    pub me: Contact,
    /// Its network: it is linked to peers of that one only.
    pub network: NetworkName,
    /// Its incarnation, as [`StateFolder::next_incarnation`](crate::identity::StateFolder::next_incarnation) returns it.
    pub incarnation: u64,
    /// The clock when that was read, in milliseconds since 1970.
    pub clock: u64,
    /// Takes messages for this peer.
    pub delivery: LocalDelivery,
    /// Lists the peers that the registry knows.
    pub session: Session,
    /// Peers to dial first.
    pub bootnodes: Vec<Bootnode>,
    /// Dials the peers that links lead to.
    pub channels: ChannelPool,
    /// Signs and checks; `None` without TLS.
    pub signatures: Option<Signatures>,
}
