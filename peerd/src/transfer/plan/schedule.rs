//! When which holder is asked for more.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use super::{
    config::{CHECK_EVERY, IN_TURN_MAX_BYTES, LEAD_TIME, LONG_DELAY, MESSAGE_MAX_BYTES, PROBE_WINDOWS, PlanConfig, first_bytes},
    event::{Action, HolderId},
    holder::{Holder, seconds},
    planner::Planner,
};
use rand::RngExt as _;
use std::time::{Duration, Instant};

/// Near holders that are asked for each far one at the same time, if they are not clearly slower: so most requests stay near.
const NEAR_PER_FAR: usize = 3;
/// Far holders are not held back if they are this many times faster.
const FAR_FASTER: f64 = 2.0;
/// More than a stream carries in one delay is in flight on a long path, so that noise does not make it less; twice as much while the
/// rate grows, as in TCP's slow start.
const WINDOW_GAIN: f64 = 1.25;
const WINDOW_GAIN_GROWING: f64 = 2.0;

impl Planner {
    /// What is to be done now, in this order. Called after every event and at [`Planner::next_timer`].
    pub fn next_actions(&mut self, now: Instant) -> Vec<Action> {
        if !self.is_complete() {
            let sole = self.sole_holder();
            self.leave_exclusive_mode(sole.is_some(), now);
            if self.next_check.is_none_or(|at| at <= now) {
                self.check(sole.is_none(), now);
                self.next_check = Some(now + CHECK_EVERY);
            }
            self.assign(sole, now);
            if sole.is_none() {
                self.assist(now);
            }
            self.search(now);
        }
        self.timer = self.compute_timer(now);
        std::mem::take(&mut self.actions)
    }

    /// The only useful holder, if nobody else fetches: a fetch from it need not leave anything to others.
    fn sole_holder(&self) -> Option<HolderId> {
        let mut useful = self.holders.iter().filter(|(_, holder)| holder.is_useful());
        let (id, _) = useful.next()?;
        let is_alone = useful.next().is_none() && !self.is_swarm();
        is_alone.then_some(*id)
    }

    /// Whether others fetch too.
    pub(super) fn is_swarm(&self) -> bool {
        self.has_company || self.holders.values().any(|holder| holder.in_swarm && holder.dropped.is_none())
    }

    /// A run over everything is cut when somebody else can help or needs pieces.
    fn leave_exclusive_mode(&mut self, is_exclusive: bool, now: Instant) {
        if self.was_exclusive && !is_exclusive {
            self.cut_long_runs(self.config.stream_window, now);
        }
        self.was_exclusive = is_exclusive;
    }

    /// Requests what may be requested now, from the least loaded holders first.
    fn assign(&mut self, sole: Option<HolderId>, now: Instant) {
        let mut order: Vec<_> = Vec::new();
        for (id, holder) in &self.holders {
            if holder.wanted > 0 && holder.is_ready(now) && self.has_room(holder, sole.is_some(), now) {
                let load = if holder.requests.is_empty() { 0.0 } else { self.load(holder) };
                order.push((holder.near, load, self.rng.random::<u32>(), *id));
            }
        }
        order.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.total_cmp(&b.1)).then(a.2.cmp(&b.2)));
        while !order.is_empty() {
            order.retain(|(.., id)| {
                let holder = &self.holders[id];
                let may = holder.wanted > 0 && self.has_room(holder, sole.is_some(), now) && self.may_be_far(*id, now);
                may && self.assign_one(*id, sole, now)
            });
        }
        if let Some(id) = sole.filter(|id| self.holders[id].is_far()) {
            while self.holders[&id].is_ready(now)
                && self.has_room(&self.holders[&id], true, now)
                && self.split_longest_run(id, now)
            {}
        }
    }

    /// Requests the end of a holder's longest run with a stream of its own; returns whether that is worth it. What the holder may have
    /// sent already is left to the run: nothing is sent twice.
    fn split_longest_run(&mut self, id: HolderId, now: Instant) -> bool {
        let holder = &self.holders[&id];
        let runs =
            holder.requests.iter().filter_map(|request| self.requests.get(request).map(|run| (run.rest(&self.pieces), *request)));
        let Some((rest, longest)) = runs.max() else { return false };
        let (piece, window) = (self.pieces.piece_size(), self.config.stream_window);
        let count = self
            .run_limit(holder, true)
            .min(usize::try_from(rest.saturating_sub(window + MESSAGE_MAX_BYTES) / piece).unwrap_or(usize::MAX));
        let bytes = count as u64 * piece;
        if bytes < window / 2 || self.requests.len() >= self.config.requests_max || !self.fits_in_flight(bytes) {
            return false;
        }
        let end = self.requests[&longest].end;
        self.shorten(longest, end - count);
        self.request(id, end - count..end, bytes <= IN_TURN_MAX_BYTES, now);
        true
    }

    /// Requests one run from a holder; returns whether there was one.
    fn assign_one(&mut self, id: HolderId, sole: Option<HolderId>, now: Instant) -> bool {
        if self.requests.len() >= self.config.requests_max {
            return false;
        }
        let Some(run) = self.choose_run(id, sole.is_some()) else { return false };
        let bytes = self.pieces.range(run.end - 1).end - self.pieces.range(run.start).start;
        if !self.fits_in_flight(bytes) {
            return false;
        }
        self.request(id, run, bytes <= IN_TURN_MAX_BYTES, now);
        true
    }

    /// Whether a request of so many bytes keeps the bytes in flight within the limit. One request always does.
    pub(super) fn fits_in_flight(&self, bytes: u64) -> bool {
        let in_flight: u64 = self.requests.values().map(|request| self.in_window(request.rest(&self.pieces))).sum();
        in_flight == 0 || in_flight + self.in_window(bytes) <= self.in_flight_max()
    }

    /// Most bytes in flight: more on a long path to an only holder, since it carries them.
    fn in_flight_max(&self) -> u64 {
        let PlanConfig { in_flight_max_bytes: most, in_flight_long_max_bytes: long, stream_window, .. } = self.config;
        let sole = self.sole_holder().and_then(|id| self.holders.get(&id));
        let delay = |holder: &Holder| holder.meter.delay().filter(|delay| *delay >= LONG_DELAY);
        let Some((holder, delay)) = sole.and_then(|holder| Some((holder, delay(holder)?))) else { return most };
        let carries = holder.meter.rate().map_or_else(|| first_bytes(delay, stream_window), |rate| carried(holder, rate, delay));
        carries.clamp(most, long.max(most))
    }

    fn in_window(&self, bytes: u64) -> u64 {
        bytes.min(self.config.stream_window)
    }

    /// Bytes that are still to arrive from a holder, of each request at most one flow-control window.
    fn windows(&self, holder: &Holder) -> u64 {
        let requests = holder.requests.iter().filter_map(|request| self.requests.get(request));
        requests.map(|request| self.in_window(request.rest(&self.pieces))).sum()
    }

    /// How long a holder is busy with what is requested, in seconds.
    fn load(&self, holder: &Holder) -> f64 {
        holder.meter.rate().map_or(f64::INFINITY, |rate| holder.rest as f64 / rate.max(1.0))
    }

    /// Whether the next request is due: what is still to arrive takes no longer than the request needs to get there.
    fn has_room(&self, holder: &Holder, exclusive: bool, now: Instant) -> bool {
        if holder.requests.is_empty() {
            return true;
        }
        let PlanConfig { requests_per_holder, requests_of_sole_holder, .. } = self.config;
        if holder.requests.len() >= if exclusive { requests_of_sole_holder } else { requests_per_holder } {
            return false;
        }
        if self.dry_at(holder).is_some_and(|at| at <= now) {
            return true;
        }
        let window = self.config.stream_window;
        if exclusive && !self.is_probed && holder.requests.len() == 1 && holder.rest >= (PROBE_WINDOWS - 1) * window {
            return true;
        }
        let Some(delay) = holder.meter.delay().filter(|delay| *delay >= LONG_DELAY) else { return false };
        let windows = self.windows(holder);
        let carries = holder.meter.rate().map_or(0, |rate| carried(holder, rate, delay));
        windows <= carries || (exclusive && windows < first_bytes(delay, window))
    }

    /// When the next request to a holder is due, going by its rate. Bytes of a message only count when all of it arrived, so up to one
    /// message is taken for on its way.
    fn dry_at(&self, holder: &Holder) -> Option<Instant> {
        let (rate, delay) = (holder.meter.rate()?, holder.meter.delay()?);
        let enough = rate * (delay + LEAD_TIME).as_secs_f64();
        let excess = (holder.rest as f64 - enough).max(0.0);
        (excess <= MESSAGE_MAX_BYTES as f64).then_some(holder.awaited? + seconds(excess / rate.max(1.0)))
    }

    /// Whether a holder is near, or so few far ones are asked that this one may be. What nobody else has is always taken.
    fn may_be_far(&self, id: HolderId, now: Instant) -> bool {
        let holder = &self.holders[&id];
        let is_source =
            holder.is_whole() && self.holders.values().filter(|holder| holder.is_whole() && holder.is_useful()).count() == 1;
        let is_sole = |piece: &usize| is_source && self.wanted.contains(*piece) && self.wanted.copies(*piece) == 0;
        if holder.near || holder.ask_for.iter().any(is_sole) {
            return true;
        }
        let near = || self.holders.values().filter(|other| other.near && other.is_ready(now));
        if near().next().is_none() {
            return true;
        }
        let mean = |rates: &mut dyn Iterator<Item = f64>| {
            let (sum, count) = rates.fold((0.0, 0.0), |(sum, count), rate| (sum + rate, count + 1.0));
            (count > 0.0).then_some(sum / count)
        };
        let rate_near = mean(&mut near().filter_map(|other| other.meter.rate()));
        if let (Some(far), Some(near)) = (holder.meter.rate(), rate_near)
            && far > FAR_FASTER * near
        {
            return true;
        }
        let others = self.holders.iter().filter(|(other, state)| **other != id && !state.near && !state.requests.is_empty());
        let asked_near = near().filter(|other| !other.requests.is_empty()).count();
        others.count() < (asked_near / NEAR_PER_FAR).max(1)
    }

    /// Looks for more holders if few are useful.
    fn search(&mut self, now: Instant) {
        if self.search_at().is_some_and(|at| at <= now) || (self.last_search.is_none() && self.lacks_holders()) {
            self.last_search = Some(now);
            self.actions.push(Action::Search);
        }
    }

    fn lacks_holders(&self) -> bool {
        self.useful_holders() < self.config.holders_wanted
    }

    /// When the next search is due, after an earlier one.
    fn search_at(&self) -> Option<Instant> {
        let every = match self.useful_holders() {
            0 => self.config.search_every_without_holder,
            _ => self.config.search_every,
        };
        self.lacks_holders().then_some(self.last_search? + every)
    }

    fn compute_timer(&self, now: Instant) -> Option<Instant> {
        if self.is_complete() {
            return None;
        }
        let check = (!self.requests.is_empty()).then_some(self.next_check).flatten();
        let holders = self.holders.values().filter(|holder| holder.is_useful()).flat_map(|holder| {
            let dry = if holder.wanted > 0 { self.dry_at(holder) } else { None };
            [dry, holder.patience.paused_until()]
        });
        let fallback = now + Duration::from_secs(1);
        [check, self.search_at(), Some(fallback)].into_iter().chain(holders).flatten().filter(|at| *at > now).min()
    }
}

/// Bytes to have in flight with a holder at this rate.
#[expect(clippy::cast_possible_truncation, reason = "bytes")]
fn carried(holder: &Holder, rate: f64, delay: Duration) -> u64 {
    let gain = if holder.meter.grows() { WINDOW_GAIN_GROWING } else { WINDOW_GAIN };
    (gain * rate * delay.as_secs_f64()) as u64
}
