//! What a display shows of a plan.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use super::{
    event::{EndedBy, HolderId},
    planner::Planner,
};
use std::time::{Duration, Instant};

/// A fetch without a byte for this long waits for something.
const WAITING_AFTER: Duration = Duration::from_secs(1);

/// One holder, as a fetch sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HolderStatus {
    /// Which one.
    pub holder: HolderId,
    /// It has a piece that this peer lacks, and may be asked.
    pub useful: bool,
    /// Bytes a second, while something is requested from it; 0 otherwise, or if unknown.
    pub bytes_per_second: u64,
    /// Requests in flight.
    pub requests: usize,
    /// Bytes of them that are still to arrive.
    pub outstanding_bytes: u64,
    /// When its last byte arrived.
    pub last_byte: Option<Instant>,
    /// Verified bytes that it sent.
    pub verified_bytes: u64,
    /// It was waited for too long: its pieces are requested from others too.
    pub silent: bool,
    /// It failed, and is not asked before this time.
    pub paused_until: Option<Instant>,
    /// Why it is not asked any more, if so.
    pub dropped: Option<EndedBy>,
}

/// Why nothing arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// No holder is known that has a missing piece and may be asked.
    NoHolder,
    /// The holder that was heard last, or asked first, sends nothing.
    Silent {
        /// Which one.
        holder: HolderId,
        /// Since its last byte, or since the request.
        since: Instant,
    },
    /// All useful holders failed; the first of them is asked again at this time.
    Paused {
        /// Which one.
        holder: HolderId,
        /// When it is asked again.
        until: Instant,
    },
}

impl Planner {
    /// All holders, in the order of their numbers. Those that were removed are not among them.
    #[expect(clippy::cast_possible_truncation, reason = "bytes a second")]
    pub fn holders(&self, now: Instant) -> Vec<HolderStatus> {
        let status = self.holders.iter().map(|(id, holder)| HolderStatus {
            holder: *id,
            useful: holder.is_useful(),
            bytes_per_second: match holder.requests.is_empty() {
                true => 0,
                false => holder.meter.rate_at(now).unwrap_or(0.0) as u64,
            },
            requests: holder.requests.len(),
            outstanding_bytes: holder.rest,
            last_byte: holder.last_byte,
            verified_bytes: holder.verified_bytes,
            silent: holder.silent,
            paused_until: holder.patience.paused_until().filter(|until| *until > now),
            dropped: holder.dropped,
        });
        status.collect()
    }

    /// Holders that have a piece that this peer lacks, and may be asked.
    pub fn useful_holders(&self) -> usize {
        self.holders.values().filter(|holder| holder.is_useful()).count()
    }

    /// Copies of the rarest piece among the holders, and how many pieces have so few.
    pub fn rarest(&self) -> (usize, usize) {
        let whole = self.holders.values().filter(|holder| holder.is_whole() && holder.dropped.is_none()).count();
        let copies = || (0..self.pieces.count()).map(|piece| self.wanted.copies(piece));
        let least = copies().min().unwrap_or(0);
        (whole + least as usize, copies().filter(|copies| *copies == least).count())
    }

    /// Why nothing arrives; `None` while something does, or before it should.
    pub fn why_waiting(&self, now: Instant) -> Option<Waiting> {
        let useful = || self.holders.iter().filter(|(_, holder)| holder.is_useful());
        if self.is_complete() {
            return None;
        }
        if useful().next().is_none() {
            return Some(Waiting::NoHolder);
        }
        let awaited = useful().filter_map(|(id, holder)| Some((holder.awaited?, *id))).max();
        if let Some((since, holder)) = awaited {
            let waits = now.saturating_duration_since(since) > WAITING_AFTER;
            return waits.then_some(Waiting::Silent { holder, since });
        }
        let paused = useful().filter_map(|(id, holder)| Some((holder.patience.paused_until()?, *id)));
        paused.min().map(|(until, holder)| Waiting::Paused { holder, until })
    }
}
