//! Peers that violate the protocol.

use super::State;
use crate::overlay::{Misbehaviour, PeerId};
use p2pdi::log_limit::Line;

/// Invalid frames on one link after which it is closed and its peer banned for a while: more than a bug causes.
const MISBEHAVIOUR_MAX: u32 = 1_000;

impl State {
    pub(super) fn on_misbehaviour(&mut self, peer: PeerId, what: Misbehaviour) {
        self.abuse.record();
        let Some(link) = self.links.get_mut(peer) else { return };
        link.misbehaved += 1;
        if link.misbehaved == 1
            && let Some(Line { suppressed }) = self.logs.misbehaved.line()
        {
            tracing::warn!(peer = %link.contact.name(), endpoint = %link.contact.endpoint(), suppressed, "a peer {what}");
        }
        if link.misbehaved >= MISBEHAVIOUR_MAX {
            self.ban(peer, what);
        }
    }

    /// Closes the link to a peer because of what it sent, and bans it for a while.
    pub(super) fn ban(&mut self, peer: PeerId, what: Misbehaviour) {
        let now = self.now();
        let pause = self.abuse.ban(peer, now);
        if let Some(link) = self.links.get(peer)
            && let Some(Line { suppressed }) = self.logs.banned.line()
        {
            tracing::warn!(peer = %link.contact.name(), endpoint = %link.contact.endpoint(), times = link.misbehaved, ?pause, suppressed, "a peer {what}; banning it for a while");
        }
        self.link_lost(peer);
        self.candidates.reconnect.forget(peer);
    }
}
