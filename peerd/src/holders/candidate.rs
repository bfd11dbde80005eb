//! A peer that may be asked for a document, as the tracker, a search or a member of the swarm names it.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use super::source::Source;
use p2pdi::{
    selector::LABEL_MAX_BYTES,
    v1::{Contact, SwarmPeer},
};

/// A peer that may be asked for a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Whom to dial.
    pub source: Source,
    /// Its label `zone`; empty if it has none or it is not known.
    pub zone: String,
    /// Verified bytes that it had when it last said so.
    pub had: u64,
    /// It said that it has the whole.
    pub complete: bool,
    /// It did not say so itself; another peer, or this one's own search, found it.
    pub reported: bool,
}

impl Candidate {
    /// A holder of the whole that this peer's own search found.
    pub fn found(source: Source, size: u64) -> Self {
        Self { source, zone: String::new(), had: size, complete: true, reported: true }
    }

    /// A member as another peer names it; `None` if it cannot be dialled.
    pub fn parse(peer: SwarmPeer) -> Option<Self> {
        let SwarmPeer { peer, mut zone, had, complete, reported } = peer;
        let Contact { name, endpoint, .. } = peer?;
        if zone.len() > LABEL_MAX_BYTES {
            zone.clear();
        }
        Some(Self { source: Source::new(name.parse().ok(), endpoint.parse().ok()?), zone, had, complete, reported })
    }
}
