//! What a peer remembers of a route.

use super::message::Target;
use crate::overlay::Time;
use p2pdi::{contact::Contact, id::PeerId};
use std::collections::BTreeSet;

/// A seek or a relayed message.
#[derive(Debug)]
pub(super) struct Route {
    /// The neighbour to send the reply to; `None`: this peer is the originator.
    pub(super) from: Option<PeerId>,
    pub(super) to: Target,
    pub(super) state: RouteState,
    /// When it is forgotten, if not before.
    pub(super) expires: Time,
    /// A seek. It is remembered until it expires, so that it is not forwarded again.
    pub(super) is_seek: bool,
}

/// A route that a seek has found.
#[derive(Debug)]
pub(super) struct CachedRoute {
    pub(super) contact: Contact,
    /// The next hop.
    pub(super) next: PeerId,
    pub(super) expires: Time,
    /// When the oldest message without a reply was sent along it.
    pub(super) unanswered_since: Option<Time>,
}

#[derive(Debug)]
pub(super) enum RouteState {
    /// No neighbour has found the target yet.
    Seeking {
        /// Neighbours that have not replied.
        pending: BTreeSet<PeerId>,
        /// A neighbour replied that it was busy.
        busy: bool,
    },
    /// There is a route.
    Found {
        /// The next hop.
        next: PeerId,
        /// The target; not known without a seek.
        peer: Option<Contact>,
        /// Neighbours that have not replied. If one of them finds another peer, two peers have this name.
        pending: BTreeSet<PeerId>,
    },
    /// There is no route, or its link ended.
    Broken,
}

impl RouteState {
    /// A route via `next` to a target that is not known.
    pub(super) fn via(next: PeerId) -> Self {
        Self::Found { next, peer: None, pending: BTreeSet::new() }
    }
}
