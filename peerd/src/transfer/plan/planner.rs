//! The books of a plan, and how events change them.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use super::{
    config::{ASK_FOR_MAX, CHECK_EVERY, PlanConfig, REQUESTS_PER_PIECE},
    event::{Action, EndedBy, Event, Has, HolderId, RequestId},
    holder::Holder,
    request::Request,
    wanted::Wanted,
};
use crate::transfer::piece_set::PieceSet;
use p2pdi::content::Pieces;
use rand::{SeedableRng as _, rngs::SmallRng};
use std::{collections::BTreeMap, ops::Range, time::Instant};

/// Which piece of one document is requested from which holder, and when.
#[derive(Debug)]
pub struct Planner {
    pub(super) pieces: Pieces,
    pub(super) config: PlanConfig,
    pub(super) rng: SmallRng,
    pub(super) verified: PieceSet,
    /// Pieces of the partial file that are being checked: not requested before the result is known.
    checking: PieceSet,
    pub(super) wanted: Wanted,
    /// The requests for each piece, at most [`REQUESTS_PER_PIECE`].
    asked: Vec<[Option<RequestId>; REQUESTS_PER_PIECE]>,
    pub(super) holders: BTreeMap<HolderId, Holder>,
    pub(super) requests: BTreeMap<RequestId, Request>,
    next_request: u64,
    /// Results of events, in order.
    pub(super) actions: Vec<Action>,
    /// At the last look, one holder was the only one.
    pub(super) was_exclusive: bool,
    /// Others are known to fetch too.
    pub(super) has_company: bool,
    /// The delay of the only holder was measured with a second request.
    pub(super) is_probed: bool,
    pub(super) last_search: Option<Instant>,
    pub(super) next_check: Option<Instant>,
    pub(super) timer: Option<Instant>,
}

impl Planner {
    /// The plan of a fetch that has nothing yet. The same seed and events give the same actions.
    pub fn new(pieces: Pieces, seed: u64, config: PlanConfig) -> Self {
        let count = pieces.count();
        let mut rng = SmallRng::seed_from_u64(seed);
        Self {
            pieces,
            config,
            verified: PieceSet::empty(count),
            checking: PieceSet::empty(count),
            wanted: Wanted::all(count, &mut rng),
            rng,
            asked: vec![[None; REQUESTS_PER_PIECE]; count],
            holders: BTreeMap::new(),
            requests: BTreeMap::new(),
            next_request: 0,
            actions: Vec::new(),
            was_exclusive: false,
            has_company: false,
            is_probed: false,
            last_search: None,
            next_check: None,
            timer: None,
        }
    }

    /// Whether all pieces are verified.
    pub fn is_complete(&self) -> bool {
        self.verified.is_full()
    }

    /// The verified pieces.
    pub fn verified(&self) -> &PieceSet {
        &self.verified
    }

    /// When [`Planner::next_actions`] must be called at the latest, without another event.
    pub fn next_timer(&self) -> Option<Instant> {
        self.timer
    }

    /// Something happened. Events of requests and holders that ended earlier are ignored, except that a verified piece counts.
    pub fn handle(&mut self, event: Event, now: Instant) {
        match event {
            Event::HolderAdded { holder, near, has, in_swarm } => self.add(holder, Holder::new(near, has, in_swarm)),
            Event::Delay { holder, delay } => {
                if let Some(holder) = self.holders.get_mut(&holder) {
                    holder.meter.answered(delay, now);
                    // No request has to measure it.
                    self.is_probed = true;
                }
            }
            Event::Company(has_company) => self.has_company = has_company,
            Event::Gained { holder, pieces } => pieces.into_iter().for_each(|piece| self.gained(holder, piece)),
            Event::BecameWhole { holder } => self.became_whole(holder),
            Event::AskFor { holder, pieces } => {
                if let Some(holder) = self.holders.get_mut(&holder) {
                    holder.ask_for = pieces.into_iter().take(ASK_FOR_MAX).collect();
                }
            }
            Event::HolderRemoved { holder } => {
                self.release_all(holder);
                self.forget_copies(holder);
                self.holders.remove(&holder);
            }
            Event::Began { request } => self.began(request, now),
            Event::Arrived { request, bytes } => self.arrived(request, bytes, now),
            Event::Checking { pieces } => {
                for piece in pieces.iter().filter(|piece| !self.verified.contains(*piece)).collect::<Vec<_>>() {
                    self.checking.insert(piece);
                    self.unwant(piece);
                }
            }
            Event::Verified { piece, request } => self.verified_piece(piece, request),
            Event::Lost { piece } => self.lost(piece),
            Event::Ended { request, by } => self.ended(request, by, now),
        }
    }

    fn add(&mut self, id: HolderId, mut holder: Holder) {
        if self.holders.contains_key(&id) {
            return;
        }
        if let Has::Pieces(pieces) = &holder.has {
            if pieces.count() != self.pieces.count() {
                return;
            }
            pieces.iter().for_each(|piece| self.wanted.add_copy(piece, &mut self.rng));
        }
        holder.useful = self.verified.missing().filter(|piece| holder.has(*piece)).count();
        holder.wanted = self.wanted.rarest_first().filter(|piece| holder.has(*piece)).count();
        self.holders.insert(id, holder);
    }

    fn gained(&mut self, id: HolderId, piece: usize) {
        let Some(holder) = self.holders.get_mut(&id) else { return };
        let Has::Pieces(pieces) = &mut holder.has else { return };
        if pieces.insert(piece) && holder.dropped.is_none() {
            holder.useful += usize::from(!self.verified.contains(piece));
            holder.wanted += usize::from(self.wanted.contains(piece));
            self.wanted.add_copy(piece, &mut self.rng);
        }
    }

    fn became_whole(&mut self, id: HolderId) {
        self.forget_copies(id);
        let Some(holder) = self.holders.get_mut(&id) else { return };
        holder.has = Has::All;
        holder.useful = self.verified.count() - self.verified.len();
        holder.wanted = self.wanted.len();
    }

    /// The copies of a holder do not count any more.
    fn forget_copies(&mut self, id: HolderId) {
        let Some(holder) = self.holders.get(&id) else { return };
        if let (Has::Pieces(pieces), None) = (&holder.has, holder.dropped) {
            pieces.iter().for_each(|piece| self.wanted.remove_copy(piece, &mut self.rng));
        }
    }

    fn began(&mut self, id: RequestId, now: Instant) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        let Some(holder) = self.holders.get_mut(&request.holder) else { return };
        request.began = true;
        let (sent, alone, holder_id) = (request.sent, request.alone, request.holder);
        // If everything else has arrived, this answer was not waiting behind it.
        let pieces = &self.pieces;
        let is_arriving = |other: &Request| other.holder == holder_id && other.began && other.rest(pieces) > 0;
        let alone = alone || !self.requests.iter().any(|(other, request)| *other != id && is_arriving(request));
        holder.meter.began(sent, alone, now);
        (holder.awaited, holder.silent) = (Some(now), false);
    }

    fn arrived(&mut self, id: RequestId, bytes: u64, now: Instant) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        let Some(holder) = self.holders.get_mut(&request.holder) else { return };
        let before = request.head(&self.pieces);
        holder.rest = holder.rest.saturating_sub(bytes.min(request.rest(&self.pieces)));
        request.bytes += bytes;
        let since = *request.piece_since.get_or_insert(holder.awaited.unwrap_or(now));
        if request.head(&self.pieces) > before {
            holder.piece_took(now.saturating_duration_since(since));
            request.piece_since = Some(now);
        }
        holder.meter.arrived(bytes, now);
        (holder.awaited, holder.last_byte, holder.silent) = (Some(now), Some(now), false);
    }

    fn verified_piece(&mut self, piece: usize, by: Option<RequestId>) {
        self.checking.remove(piece);
        if !self.verified.insert(piece) {
            return;
        }
        self.unwant(piece);
        for holder in self.holders.values_mut().filter(|holder| holder.has(piece)) {
            holder.useful = holder.useful.saturating_sub(1);
        }
        let source = by.and_then(|by| self.requests.get(&by)).map(|request| request.holder);
        if let Some(holder) = source.and_then(|source| self.holders.get_mut(&source)) {
            let range = self.pieces.range(piece);
            holder.verified_bytes += range.end - range.start;
            holder.patience.progressed();
        }
        for loser in std::mem::take(&mut self.asked[piece]).into_iter().flatten().filter(|request| Some(*request) != by) {
            self.give_up_verified(loser, piece);
        }
    }

    /// A request is for a piece that is verified already: ends it before that piece if something else is to arrive first, or at once
    /// if nothing else is to arrive. A piece in the middle of a run that is arriving cannot be left out.
    fn give_up_verified(&mut self, id: RequestId, piece: usize) {
        let Some(request) = self.requests.get(&id) else { return };
        if (request.start..request.end).all(|piece| self.verified.contains(piece)) {
            self.cancel(id);
        } else if piece > request.head(&self.pieces) {
            self.shorten(id, piece);
        }
    }

    fn lost(&mut self, piece: usize) {
        self.checking.remove(piece);
        if self.verified.remove(piece) {
            for holder in self.holders.values_mut().filter(|holder| holder.dropped.is_none() && holder.has(piece)) {
                holder.useful += 1;
            }
        }
        if piece < self.pieces.count() && self.requests_of(piece).count() == 0 {
            self.want(piece);
        }
    }

    fn ended(&mut self, id: RequestId, by: EndedBy, now: Instant) {
        let Some((holder, start, end)) = self.requests.get(&id).map(|request| (request.holder, request.start, request.end))
        else {
            return;
        };
        self.release(id);
        let Some(state) = self.holders.get_mut(&holder) else { return };
        match by {
            EndedBy::Completion | EndedBy::Cancel => {}
            EndedBy::TransientFault | EndedBy::Busy | EndedBy::BusyFor(_) => {
                state.run_max = 1;
                let dropped = state.patience.failed(by != EndedBy::TransientFault, now);
                if let EndedBy::BusyFor(wait) = by {
                    state.patience.not_before(now + wait);
                }
                if dropped {
                    self.drop_holder(holder, by);
                }
            }
            EndedBy::PiecesMissing => {
                for piece in (start..end).filter(|piece| !self.verified.contains(*piece)).collect::<Vec<_>>() {
                    self.lost_by(holder, piece);
                }
            }
            EndedBy::FinalFault | EndedBy::WrongPiece(_) => self.drop_holder(holder, by),
        }
    }

    /// A holder does not have a piece any more.
    fn lost_by(&mut self, id: HolderId, piece: usize) {
        let Some(holder) = self.holders.get_mut(&id) else { return };
        if let Has::All = holder.has {
            let pieces = PieceSet::full(self.pieces.count());
            pieces.iter().for_each(|piece| self.wanted.add_copy(piece, &mut self.rng));
            holder.has = Has::Pieces(pieces);
        }
        let Has::Pieces(pieces) = &mut holder.has else { return };
        if pieces.remove(piece) {
            holder.useful -= usize::from(!self.verified.contains(piece));
            holder.wanted -= usize::from(self.wanted.contains(piece));
            self.wanted.remove_copy(piece, &mut self.rng);
        }
    }

    fn drop_holder(&mut self, id: HolderId, by: EndedBy) {
        self.release_all(id);
        self.forget_copies(id);
        if let Some(holder) = self.holders.get_mut(&id) {
            (holder.dropped, holder.useful, holder.wanted) = (Some(by), 0, 0);
            self.actions.push(Action::Drop { holder: id, by });
        }
    }

    /// The requests for a piece.
    pub(super) fn requests_of(&self, piece: usize) -> impl Iterator<Item = RequestId> + '_ {
        self.asked[piece].iter().flatten().copied()
    }

    /// Whether a piece is requested from a holder.
    pub(super) fn is_asked(&self, piece: usize, holder: HolderId) -> bool {
        self.requests_of(piece).any(|request| self.requests.get(&request).is_some_and(|request| request.holder == holder))
    }

    /// A piece is to be requested (once more).
    pub(super) fn want(&mut self, piece: usize) {
        if !self.verified.contains(piece) && !self.checking.contains(piece) && self.wanted.insert(piece, &mut self.rng) {
            for holder in self.holders.values_mut().filter(|holder| holder.dropped.is_none() && holder.has(piece)) {
                holder.wanted += 1;
            }
        }
    }

    fn unwant(&mut self, piece: usize) {
        if self.wanted.remove(piece) {
            for holder in self.holders.values_mut().filter(|holder| holder.dropped.is_none() && holder.has(piece)) {
                holder.wanted -= 1;
            }
        }
    }

    /// Takes over a request that was sent before there was a plan, with its number from now on: of `run`, the pieces from its first one on
    /// that are wanted. `None`: the first one is not.
    pub fn adopt(&mut self, holder: HolderId, run: Range<usize>, sent: Instant) -> Option<(RequestId, Range<usize>)> {
        let state = self.holders.get(&holder)?;
        let may = |piece: &usize| self.wanted.contains(*piece) && state.has(*piece);
        let end = (run.start..run.end.min(self.pieces.count())).take_while(may).last()? + 1;
        let alone = state.requests.is_empty();
        // It measures the delay, and if there are others who can help it is cut.
        (self.is_probed, self.was_exclusive) = (true, true);
        self.next_check.get_or_insert(sent + CHECK_EVERY);
        let run = run.start..end;
        Some((self.add_request(holder, run.clone(), alone, sent)?, run))
    }

    /// Requests a run. Each of its pieces has a free place among the requests of its piece.
    pub(super) fn request(&mut self, holder: HolderId, run: Range<usize>, in_turn: bool, now: Instant) {
        let Some(state) = self.holders.get(&holder) else { return };
        let is_probe = self.was_exclusive && state.requests.len() == 1 && !self.is_probed;
        let alone = state.requests.is_empty() || is_probe;
        self.is_probed |= is_probe;
        if let Some(request) = self.add_request(holder, run.clone(), alone, now) {
            self.actions.push(Action::Request { request, holder, pieces: run, in_turn });
        }
    }

    fn add_request(&mut self, holder: HolderId, run: Range<usize>, alone: bool, sent: Instant) -> Option<RequestId> {
        let state = self.holders.get_mut(&holder)?;
        let id = RequestId(self.next_request);
        self.next_request += 1;
        if state.requests.is_empty() {
            state.awaited = Some(sent);
        }
        state.requests.push(id);
        state.rest += self.pieces.range(run.end - 1).end - self.pieces.range(run.start).start;
        state.run_max = state.run_max.max(2 * run.len());
        for piece in run.clone() {
            self.unwant(piece);
            if let Some(free) = self.asked[piece].iter_mut().find(|place| place.is_none()) {
                *free = Some(id);
            }
        }
        let (start, end) = (run.start, run.end);
        self.requests.insert(id, Request { holder, start, end, bytes: 0, sent, alone, began: false, piece_since: None });
        Some(id)
    }

    /// Ends a request before piece `end`.
    pub(super) fn shorten(&mut self, id: RequestId, end: usize) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        if end <= request.start {
            self.cancel(id);
        } else if end < request.end {
            let before = request.rest(&self.pieces);
            let cut = end..std::mem::replace(&mut request.end, end);
            if let Some(holder) = self.holders.get_mut(&request.holder) {
                holder.rest = holder.rest.saturating_sub(before - request.rest(&self.pieces));
            }
            self.actions.push(Action::Shorten { request: id, end });
            cut.for_each(|piece| self.release_piece(id, piece));
        }
    }

    pub(super) fn cancel(&mut self, id: RequestId) {
        if self.requests.contains_key(&id) {
            self.actions.push(Action::Cancel { request: id });
            self.release(id);
        }
    }

    fn release_all(&mut self, holder: HolderId) {
        let requests = self.holders.get(&holder).map(|holder| holder.requests.clone());
        requests.into_iter().flatten().for_each(|request| self.release(request));
    }

    /// A request is over: what it did not bring is to be requested again.
    fn release(&mut self, id: RequestId) {
        let Some(request) = self.requests.remove(&id) else { return };
        if let Some(holder) = self.holders.get_mut(&request.holder) {
            holder.requests.retain(|other| *other != id);
            holder.rest = holder.rest.saturating_sub(request.rest(&self.pieces));
            if holder.requests.is_empty() {
                holder.meter.idle();
                holder.awaited = None;
            }
        }
        (request.start..request.end).for_each(|piece| self.release_piece(id, piece));
    }

    fn release_piece(&mut self, id: RequestId, piece: usize) {
        for place in self.asked[piece].iter_mut().filter(|place| **place == Some(id)) {
            *place = None;
        }
        if self.requests_of(piece).count() == 0 {
            self.want(piece);
        }
    }
}
