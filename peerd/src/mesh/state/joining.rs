//! Joins that callers asked for: they end when the overlay has decided whether the peer becomes a neighbour.

use super::State;
use crate::{mesh::joins::JoinFailure, overlay::PeerId};
use p2pdi::{contact::Contact, endpoint::Endpoint};
use std::time::Duration;

/// How much earlier than the join the overlay's request was sent, at most.
const TIMEOUT_SLACK: Duration = Duration::from_millis(200);

impl State {
    /// The handshake with the peer at `endpoint`, which is to be joined, is complete, and the overlay knows of the link.
    pub(super) fn await_joined(&mut self, endpoint: &Endpoint, contact: &Contact) {
        let now = self.now();
        let (peer, membership) = (contact.id(), self.overlay.membership());
        let (is_neighbour, is_pending) = (membership.is_neighbour(peer), membership.is_pending(peer));
        self.joins.answered(endpoint, contact, now);
        if is_neighbour {
            self.joined(peer);
        } else if !is_pending {
            self.not_joined(peer);
        }
    }

    /// A peer has become a neighbour.
    pub(super) fn joined(&mut self, peer: PeerId) {
        let Some(join) = self.joins.take(peer) else { return };
        // Publish first: a caller that gets the result must see the neighbour in the view.
        self.publish();
        join.succeed();
    }

    /// The link to a peer is gone, or the overlay did not ask for it.
    pub(super) fn not_joined(&mut self, peer: PeerId) {
        let Some(join) = self.joins.take(peer) else { return };
        let membership = self.overlay.membership();
        let config = membership.config();
        let why = if membership.neighbours().count() >= config.max_active() {
            JoinFailure::Full("this peer has as many neighbours as it accepts; it is in a mesh already".to_owned())
        } else if self.now() + TIMEOUT_SLACK >= join.since + config.request_timeout {
            JoinFailure::Failed("it said hello, but did not say in time whether it accepts this peer as a neighbour".to_owned())
        } else if self.links.contains(peer) {
            JoinFailure::Full("too many links are being opened; try again later".to_owned())
        } else {
            JoinFailure::Full(
                "it has as many neighbours as it accepts, or closed the link; this peer dials others that it named, \
                 or try again later, or join another peer of that mesh"
                    .to_owned(),
            )
        };
        join.fail(&why);
    }
}
