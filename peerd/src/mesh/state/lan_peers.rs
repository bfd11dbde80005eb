//! Turning to peers that were seen on the LAN.

use super::State;
use crate::{
    discovery::LanEvent,
    overlay::{Event, PeerId, Time},
};
use p2pdi::contact::Contact;

impl State {
    pub(in crate::mesh) fn on_sight(&mut self, sight: LanEvent) {
        let now = self.now();
        self.lan_peers.saw(sight, now);
        self.turn_to_nearby();
        self.changed = true;
    }

    /// Hands the least loaded to the overlay, as many as it has use for, the best one first.
    pub(super) fn turn_to_nearby(&mut self) {
        let wanted = self.overlay.membership().wanted();
        for contact in self.offered(wanted) {
            self.tell_overlay(Event::PeersFound(vec![contact]));
        }
    }

    /// Up to `count` that are not linked yet.
    pub(super) fn offered(&mut self, count: usize) -> Vec<Contact> {
        let now = self.now();
        let (membership, links) = (self.overlay.membership(), &self.links);
        let linked = |peer: PeerId| membership.is_neighbour(peer) || links.contains_key(&peer);
        self.lan_peers.offer(count, now, linked, rand::random)
    }

    /// When there is somebody to turn to next, if the overlay has use for anybody.
    pub(super) fn next_nearby(&self) -> Option<Time> {
        let linked = |peer: PeerId| self.overlay.membership().is_neighbour(peer) || self.links.contains_key(&peer);
        (self.overlay.membership().wanted() > 0).then(|| self.lan_peers.next_deadline(linked)).flatten()
    }
}
