//! Which pieces are requested next from a holder.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use super::{
    config::{PROBE_WINDOWS, RANDOM_PIECES, RUN_TIME},
    event::HolderId,
    holder::Holder,
    planner::Planner,
};
use std::ops::Range;

/// Tries to find a random piece that a holder has, before the rarest is taken.
const RANDOM_TRIES: usize = 16;
/// A run goes on over pieces that have at most this many copies more than its first.
const NEARLY_AS_RARE: u32 = 1;

/// Why the first piece of a run was chosen: which pieces may follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    /// The holder asks for it.
    AskedFor,
    /// Few have it.
    Rare,
    /// All holders are whole, and nobody else fetches: any order is as good, and this one is best for the disk.
    Lowest,
}

impl Planner {
    /// The run to request next from a holder.
    pub(super) fn choose_run(&mut self, id: HolderId, exclusive: bool) -> Option<Range<usize>> {
        let max = match exclusive {
            true => self.exclusive_limit(&self.holders[&id]),
            false => self.run_limit(&self.holders[&id], false),
        };
        let (start, why) = self.first_piece(id, exclusive)?;
        let holder = &self.holders[&id];
        let follows = |piece: usize| match why {
            First::AskedFor => holder.ask_for.contains(&piece),
            First::Rare => self.wanted.copies(piece) <= self.wanted.copies(start) + NEARLY_AS_RARE,
            First::Lowest => true,
        };
        let count = self.pieces.count();
        let mut end = start + 1;
        while end < count && end - start < max && self.may_ask(id, holder, end) && follows(end) {
            end += 1;
        }
        Some(start..end)
    }

    /// Pieces of the longest run to request from an only holder: all, but for one if a second request is to measure the delay. On a long path
    /// one window: a stream sends no more in a round trip, and many of them fill the path, one after the other.
    fn exclusive_limit(&self, holder: &Holder) -> usize {
        if holder.is_far() {
            return usize::try_from(self.config.stream_window / self.pieces.piece_size()).unwrap_or(1).max(1);
        }
        let missing = self.wanted.len();
        let probes = !self.is_probed && missing as u64 * self.pieces.piece_size() >= PROBE_WINDOWS * self.config.stream_window;
        missing - usize::from(probes && missing > 1)
    }

    fn may_ask(&self, id: HolderId, holder: &Holder, piece: usize) -> bool {
        self.wanted.contains(piece) && holder.has(piece) && !self.is_asked(piece, id)
    }

    fn first_piece(&mut self, id: HolderId, exclusive: bool) -> Option<(usize, First)> {
        if exclusive {
            let may = |piece: &usize| self.may_ask(id, &self.holders[&id], *piece);
            return self.wanted.ascending().find(may).map(|piece| (piece, First::Lowest));
        }
        if let Some(holder) = self.holders.get_mut(&id) {
            while holder.ask_for.front().is_some_and(|piece| self.verified.contains(*piece)) {
                holder.ask_for.pop_front();
            }
        }
        let is_swarm = self.is_swarm();
        let tries = if is_swarm && self.verified.len() < RANDOM_PIECES { RANDOM_TRIES } else { 0 };
        let random: Vec<_> = (0..tries).filter_map(|_| self.wanted.any(&mut self.rng)).collect();
        let holder = &self.holders[&id];
        let may = |piece: &usize| self.may_ask(id, holder, *piece);
        if let Some(piece) = holder.ask_for.iter().copied().find(may) {
            return Some((piece, First::AskedFor));
        }
        if !is_swarm && self.holders.values().all(|holder| holder.is_whole() || !holder.is_useful()) {
            return self.wanted.ascending().find(|piece| may(piece)).map(|piece| (piece, First::Lowest));
        }
        let rarest = || self.wanted.rarest_first().find(may);
        random.into_iter().find(may).or_else(rarest).map(|piece| (piece, First::Rare))
    }

    /// Pieces of the longest run to request: what takes [`RUN_TIME`], and no more than leaves something for each of the others.
    /// `exclusive`: the others are further streams of the same holder.
    #[expect(clippy::cast_possible_truncation, reason = "numbers of pieces")]
    pub(super) fn run_limit(&self, holder: &Holder, exclusive: bool) -> usize {
        let (piece, window) = (self.pieces.piece_size(), self.config.stream_window);
        let bytes = holder.meter.rate().unwrap_or(0.0) * RUN_TIME.as_secs_f64();
        if exclusive {
            // As long as its window at least: so many are in flight that the round trip before its first bytes carries others.
            let streams = holder.requests.len() + 1;
            let least = window as f64;
            let share = (holder.rest / piece) as usize / streams;
            return (((bytes / streams as f64).max(least) / piece as f64) as usize).min(share).max(1);
        }
        let sharers = self.useful_holders().max(1) * ((holder.rest / window) as usize + 1);
        let share = self.wanted.len() / (2 * sharers);
        ((bytes / piece as f64) as usize).min(holder.run_max).min(share).max(1)
    }
}
