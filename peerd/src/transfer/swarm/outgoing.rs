//! A request that this peer answers, as its swarm sees it.

use super::state::SharedSwarm;
use crate::transfer::plan::MemberId;
use p2pdi::id::PeerId;
use std::ops::Range;

/// Pieces on their way to a member. When dropped, what was not sent is offered to others again.
pub(crate) struct Outgoing {
    swarm: SharedSwarm,
    to: MemberId,
    /// Pieces that the request touches.
    pieces: Range<usize>,
    /// Offset of the next byte.
    at: u64,
}

impl Outgoing {
    /// The peer `to` requested a range. `None` if it is no member.
    pub(crate) fn new(swarm: SharedSwarm, to: PeerId, range: &Range<u64>) -> Option<Self> {
        let pieces = swarm.pieces();
        let end = if range.is_empty() { 0 } else { pieces.index_at(range.end - 1) + 1 };
        let touched = pieces.index_at(range.start).min(end)..end;
        let to = swarm.requested(to, touched.clone())?;
        Some(Self { swarm, to, pieces: touched, at: range.start })
    }

    /// The next bytes of the range were sent.
    pub(crate) fn sent(&mut self, bytes: u64) {
        self.at += bytes;
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        let pieces = self.swarm.pieces();
        if let Some(first) = self.pieces.clone().find(|piece| pieces.range(*piece).end > self.at) {
            self.swarm.unsent(self.to, first..self.pieces.end);
        }
    }
}
