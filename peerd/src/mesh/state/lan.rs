//! Links to peers that are announced on the LAN.

use super::State;
use crate::{
    discovery::LanEvent,
    overlay::{Event, PeerId, Time},
};
use p2pdi::contact::Contact;

impl State {
    pub(in crate::mesh) fn on_lan_event(&mut self, event: LanEvent) {
        let now = self.now();
        self.candidates.lan_peers.on_event(event, now);
        self.offer_lan_peers();
        self.publisher.mark_changed();
    }

    /// Offers the least loaded peers to the overlay, the best one first, as many as it lacks links.
    pub(super) fn offer_lan_peers(&mut self) {
        let wanted = self.overlay.membership().wanted();
        for contact in self.lan_candidates(wanted) {
            self.handle_event(Event::PeersFound(vec![contact]));
        }
    }

    /// Up to `count` peers that are not linked yet.
    pub(super) fn lan_candidates(&mut self, count: usize) -> Vec<Contact> {
        let now = self.now();
        let (membership, links) = (self.overlay.membership(), &self.links);
        let linked = |peer: PeerId| membership.is_neighbour(peer) || links.contains(peer);
        self.candidates.lan_peers.offer(count, now, linked, rand::random)
    }

    /// When to offer the next peer, if the overlay lacks links.
    pub(super) fn next_lan_deadline(&self) -> Option<Time> {
        let (membership, links) = (self.overlay.membership(), &self.links);
        let linked = |peer: PeerId| membership.is_neighbour(peer) || links.contains(peer);
        (membership.wanted() > 0).then(|| self.candidates.lan_peers.next_deadline(linked)).flatten()
    }
}
