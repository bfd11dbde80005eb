//! Peers to dial when links are missing: bootnodes, peers announced on the LAN, and neighbours that were lost.

use super::reconnect::Reconnect;
use crate::{
    discovery::{Bootnodes, LanPeers},
    overlay::{PeerId, Time},
};
use p2pdi::contact::Contact;

/// All candidates, by where they come from.
pub(super) struct Candidates {
    pub(super) bootnodes: Bootnodes,
    pub(super) lan_peers: LanPeers,
    pub(super) reconnect: Reconnect,
}

impl Candidates {
    /// There is no link at all: bootnodes and LAN peers are tried again soon.
    pub(super) fn need_links(&mut self, now: Time) {
        self.bootnodes.retry_now(now);
        self.lan_peers.retry_now(now);
    }

    /// `peer` is a neighbour now.
    pub(super) fn on_neighbour_up(&mut self, peer: PeerId) {
        self.lan_peers.linked(peer);
        self.reconnect.forget(peer);
    }

    /// `peer` is no neighbour any more.
    pub(super) fn on_neighbour_down(&mut self, peer: PeerId, now: Time) {
        self.lan_peers.unlinked(peer, now);
    }

    /// `contact` answers where `gone` was dialled. Returns whether `gone` was a lost neighbour or a bootnode: then this is probably the
    /// same peer with a new id.
    pub(super) fn has_new_id(&mut self, gone: PeerId, contact: &Contact) -> bool {
        self.reconnect.forget(gone) | self.bootnodes.renewed(gone, contact)
    }
}
