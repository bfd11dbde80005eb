//! What is requested a second time, and what is moved to another holder: of silent and slow holders, and at the end.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use super::{
    config::{DUPLICATE_GAIN, IN_TURN_MAX_BYTES, REQUESTS_PER_PIECE, RUN_TIME, RUN_TIME_MAX, SILENT_AFTER, SLOW_PIECE},
    event::{HolderId, RequestId},
    planner::Planner,
    request::Request,
};
use std::time::Instant;

/// Pieces of silent and slow holders that nobody else has may stay wanted; with more wanted ones than this it is not the end.
const END_MAX_WANTED: usize = 16;

impl Planner {
    /// Finds silent holders, slow pieces and, if `share`, runs that take too long.
    pub(super) fn check(&mut self, share: bool, now: Instant) {
        let silent = self.holders.iter_mut().filter_map(|(id, holder)| {
            let since = holder.awaited.filter(|_| !holder.requests.is_empty())?;
            let is_silent =
                holder.silent || now.saturating_duration_since(since) > holder.patience_for_bytes() + self.config.limit_wait;
            if is_silent {
                holder.patience.silent(holder.silent, now);
                holder.silent = true;
            }
            is_silent.then_some(*id)
        });
        for holder in silent.collect::<Vec<_>>() {
            self.ask_elsewhere(holder);
        }
        let slow: Vec<_> = self.requests.iter().filter(|(_, request)| self.is_slow(request, now)).map(|(id, _)| *id).collect();
        for request in slow {
            self.ask_for_head_elsewhere(request);
        }
        if share {
            self.cut_long_runs(0, now);
        }
    }

    /// The pieces of a silent holder may be requested from others.
    fn ask_elsewhere(&mut self, id: HolderId) {
        let Some(holder) = self.holders.get_mut(&id) else { return };
        holder.run_max = 1;
        for request in holder.requests.clone() {
            self.cut(request, 0);
            self.ask_for_head_elsewhere(request);
        }
    }

    /// The piece that a request waits for may be requested from another holder. If both of its requests wait for silent holders, the
    /// older one makes room.
    fn ask_for_head_elsewhere(&mut self, id: RequestId) {
        let Some(request) = self.requests.get(&id) else { return };
        if request.rest(&self.pieces) == 0 {
            return; // It arrived, and is being hashed.
        }
        let piece = request.head(&self.pieces);
        let others: Vec<_> = self.requests_of(piece).collect();
        let is_silent = |id: &RequestId| self.requests.get(id).is_some_and(|request| self.holders[&request.holder].silent);
        let someone = |id: &RequestId| self.requests.get(id).map(|request| request.holder);
        let asked: Vec<_> = others.iter().filter_map(someone).collect();
        let can = self
            .holders
            .iter()
            .any(|(id, holder)| holder.is_useful() && !holder.silent && holder.has(piece) && !asked.contains(id));
        if !can {
            return;
        }
        if others.len() < REQUESTS_PER_PIECE {
            self.want(piece);
        } else if others.iter().all(is_silent)
            && let Some(oldest) = others.iter().min()
        {
            self.cancel(*oldest);
            self.want(piece);
        }
    }

    fn is_slow(&self, request: &Request, now: Instant) -> bool {
        let (Some(since), Some(usual)) = (request.piece_since, self.holders[&request.holder].piece_time) else { return false };
        let taken = now.saturating_duration_since(since);
        taken > SILENT_AFTER && taken > usual.mul_f64(SLOW_PIECE)
    }

    /// Cuts runs that take too long while others could serve their ends; of each run, at least `keep` more bytes arrive.
    #[expect(clippy::cast_possible_truncation, reason = "bytes")]
    pub(super) fn cut_long_runs(&mut self, keep: u64, now: Instant) {
        let long = self.requests.iter().filter_map(|(id, request)| {
            let holder = &self.holders[&request.holder];
            let rate = holder.meter.rate_at(now).unwrap_or(0.0) / holder.requests.len() as f64;
            let too_long = request.rest(&self.pieces) as f64 > rate * RUN_TIME_MAX.as_secs_f64();
            too_long.then_some((*id, keep.max((rate * RUN_TIME.as_secs_f64()) as u64)))
        });
        for (request, keep) in long.collect::<Vec<_>>() {
            self.cut(request, keep);
        }
    }

    /// Cuts a run so that about `keep` more bytes arrive, at least the rest of the piece that is arriving.
    pub(super) fn cut(&mut self, id: RequestId, keep: u64) {
        let Some(request) = self.requests.get(&id) else { return };
        let head = request.head(&self.pieces);
        let more = usize::try_from(keep / self.pieces.piece_size()).unwrap_or(usize::MAX);
        self.shorten(id, head.saturating_add(1).saturating_add(more));
    }

    /// At the end, when every missing piece is requested: holders without a request take over what takes others longest.
    pub(super) fn assist(&mut self, now: Instant) {
        let is_end =
            self.wanted.len() <= END_MAX_WANTED && self.wanted.rarest_first().all(|piece| self.requests_of(piece).count() > 0);
        if !is_end || self.requests.is_empty() {
            return;
        }
        let is_idle = |id: &HolderId| self.holders[id].requests.is_empty() && self.holders[id].is_ready(now);
        let mut idle: Vec<_> = self.holders.keys().copied().filter(is_idle).collect();
        let rate = |id: &HolderId| self.holders[id].meter.rate().unwrap_or(0.0);
        idle.sort_by(|a, b| rate(b).total_cmp(&rate(a)));
        for holder in idle {
            self.assist_by(holder, now);
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "numbers of pieces")]
    fn assist_by(&mut self, id: HolderId, now: Instant) {
        let holder = &self.holders[&id];
        let piece_size = self.pieces.piece_size() as f64;
        let own = match (holder.meter.rate(), holder.meter.delay()) {
            (Some(rate), Some(delay)) => delay.as_secs_f64() + piece_size / rate.max(1.0),
            _ => SILENT_AFTER.as_secs_f64(),
        };
        let can_take = |request: &Request| {
            let last = request.end - 1;
            let is_open = request.rest(&self.pieces) > 0
                && !self.verified.contains(last)
                && self.requests_of(last).count() < REQUESTS_PER_PIECE;
            request.holder != id && is_open && holder.has(last) && !self.is_asked(last, id)
        };
        let candidates =
            self.requests.iter().filter(|(_, request)| can_take(request)).map(|(other, _)| (self.left(*other, now), *other));
        let Some((left, victim)) = candidates.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(left, _)| *left > DUPLICATE_GAIN * own)
        else {
            return;
        };
        let request = &self.requests[&victim];
        let (head, end) = (request.head(&self.pieces), request.end);
        let mut start = end - 1;
        if start > head {
            // The part of the run that this holder sends in the time that the other one needs for its part.
            let theirs = request.rest(&self.pieces) as f64 / left.max(1e-3);
            let part = holder.meter.rate().map_or(0.0, |rate| rate / (rate + theirs));
            let can =
                |piece: &usize| holder.has(*piece) && !self.verified.contains(*piece) && self.requests_of(*piece).count() == 1;
            let take = (((end - head - 1) as f64 * part) as usize).max(1);
            start = (head + 1..end).rev().take_while(can).take(take).last().unwrap_or(start);
            self.shorten(victim, start);
        }
        let bytes = self.pieces.range(end - 1).end - self.pieces.range(start).start;
        if self.requests.len() < self.config.requests_max && self.fits_in_flight(bytes) {
            self.request(id, start..end, bytes <= IN_TURN_MAX_BYTES, now);
        }
    }

    /// Seconds until all of a request arrived, as it looks now.
    fn left(&self, id: RequestId, now: Instant) -> f64 {
        let request = &self.requests[&id];
        let holder = &self.holders[&request.holder];
        if holder.silent {
            return f64::INFINITY;
        }
        let silence = now.saturating_duration_since(holder.awaited.unwrap_or(now)).as_secs_f64();
        let Some(rate) = holder.meter.rate_at(now) else {
            return SILENT_AFTER.as_secs_f64() + 2.0 * silence;
        };
        let before = holder.requests.iter().take_while(|other| **other <= id).filter_map(|other| self.requests.get(other));
        let bytes: u64 = before.map(|request| request.rest(&self.pieces)).sum::<u64>();
        (bytes as f64 / rate.max(1.0) - silence).max(0.0)
    }
}
