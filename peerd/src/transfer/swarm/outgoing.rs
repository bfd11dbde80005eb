//! A request that this peer answers, as its swarm sees it.

use super::state::SharedSwarm;
use crate::transfer::plan::MemberId;
use p2pdi::id::PeerId;
use std::{ops::Range, time::Instant};

/// Bytes on their way to a peer. When dropped, what was not sent is offered to others again.
pub(crate) struct Outgoing {
    swarm: SharedSwarm,
    to: Option<PeerId>,
    member: Option<MemberId>,
    /// Pieces that the request touches.
    pieces: Range<usize>,
    /// Offset of the next byte.
    at: u64,
}

impl Outgoing {
    /// The peer `to` requested a range.
    pub(crate) fn new(swarm: SharedSwarm, to: Option<PeerId>, range: &Range<u64>) -> Self {
        let pieces = swarm.pieces();
        let end = if range.is_empty() { 0 } else { pieces.index_at(range.end - 1) + 1 };
        let touched = pieces.index_at(range.start).min(end)..end;
        let member = swarm.requested(to, touched.clone());
        Self { swarm, to, member, pieces: touched, at: range.start }
    }

    /// The next bytes of the range were sent.
    pub(crate) fn sent(&mut self, bytes: u64) {
        self.at += bytes;
        self.swarm.sent(self.to, bytes, Instant::now());
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        let pieces = self.swarm.pieces();
        let unsent = self.pieces.clone().find(|piece| pieces.range(*piece).end > self.at);
        if let (Some(first), Some(member)) = (unsent, self.member) {
            self.swarm.unsent(member, first..self.pieces.end);
        }
    }
}
