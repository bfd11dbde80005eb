//! One request in flight.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use super::event::HolderId;
use p2pdi::content::Pieces;
use std::time::Instant;

/// A request for a run of pieces, which arrive in order.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) holder: HolderId,
    pub(super) start: usize,
    /// The first piece after the run; becomes less when the run is shortened.
    pub(super) end: usize,
    /// Bytes that arrived.
    pub(super) bytes: u64,
    pub(super) sent: Instant,
    /// Nothing else was requested from the holder when this was, or what was does not delay it.
    pub(super) alone: bool,
    /// Its answer began.
    pub(super) began: bool,
    /// Since when the piece is awaited that is arriving now: its first byte, or the end of the piece before it.
    pub(super) piece_since: Option<Instant>,
}

impl Request {
    /// Where the next byte belongs in the document.
    pub(super) fn offset(&self, pieces: &Pieces) -> u64 {
        pieces.range(self.start).start + self.bytes
    }

    /// The piece that is arriving; `end` if all bytes arrived.
    pub(super) fn head(&self, pieces: &Pieces) -> usize {
        pieces.index_at(self.offset(pieces)).max(self.start).min(self.end)
    }

    /// Bytes that are still to arrive.
    pub(super) fn rest(&self, pieces: &Pieces) -> u64 {
        self.rest_up_to(self.end, pieces)
    }

    /// Bytes that are still to arrive of the pieces before `end`.
    pub(super) fn rest_up_to(&self, end: usize, pieces: &Pieces) -> u64 {
        let end = if end > self.start { pieces.range(end - 1).end } else { pieces.range(self.start).start };
        end.saturating_sub(self.offset(pieces))
    }
}
