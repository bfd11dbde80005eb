//! What a walk through a swarm found.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use p2pdi::{
    endpoint::Endpoint,
    v1::{self, SwarmPeer},
};
use std::collections::BTreeMap;

/// What is known of one member.
#[derive(Debug, Clone, Default)]
pub(super) struct Member {
    /// Its name; empty: not known.
    pub(super) name: String,
    /// It has the document in its share.
    pub(super) holds: bool,
    /// Its own answer. `None`: it did not answer, or is in no such swarm.
    pub(super) swarm: Option<v1::Swarm>,
    /// What another member says of it.
    pub(super) reported: Option<SwarmPeer>,
    /// It answered.
    pub(super) answered: bool,
}

impl Member {
    /// Verified bytes that it has, as far as that is known.
    pub(super) fn had(&self) -> Option<u64> {
        let own = self.swarm.as_ref().map(|swarm| swarm.had);
        own.or_else(|| self.reported.as_ref().map(|reported| reported.had))
    }

    /// Whether it has all, as far as that is known.
    pub(super) fn is_whole(&self) -> bool {
        self.holds
            || self.swarm.as_ref().is_some_and(|swarm| swarm.complete)
            || self.reported.as_ref().is_some_and(|by| by.complete)
    }

    /// Whether anything says that it is a member.
    pub(super) fn is_member(&self) -> bool {
        self.holds || self.swarm.is_some() || self.reported.is_some()
    }
}

/// Members by endpoint, and how the document is called.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) members: BTreeMap<Endpoint, Member>,
}

impl Seen {
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}
