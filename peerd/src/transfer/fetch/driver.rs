//! Fills the store of one document from all of its holders at once: connects the planner, the streams, the swarm and the search.

mod members;
mod requests;

use super::{
    download::SourceError,
    fault_log,
    fetch_metrics::{FetchMetrics, Stalls},
    freed_memory,
    holder_table::{Holder, HolderTable, Index},
    leads::Leads,
    opened::{Opened, OpenedRun},
    progress::{HolderProgress, Progress, Waiting},
    run::{Control, RunEvent},
    source_selection::{Fault, SourceReport},
};
use crate::{
    connections::channels::ChannelPool,
    holders::source::Source,
    transfer::{
        piece_set::PieceSet,
        plan::{Action, EndedBy, Event, HolderId, PlanConfig, Planner, RequestId},
        store::{error::WriteError, piece_store::PieceStore, piece_table::PieceChange},
        swarm::{exchange::ExchangeError, news::Seen, state::SharedSwarm},
        throttle::Throttle,
    },
};
use p2pdi::content::Pieces;
use std::{
    collections::BTreeMap,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{sleep_until, timeout},
};

/// Events of streams waiting for the driver: more than it handles before it looks at anything else.
const EVENTS_QUEUE: usize = 256;
/// How long to wait for the tracker's first answer before the first request: some round trips.
const COMPANY_TIMEOUT: Duration = Duration::from_millis(300);
/// How often what displays show is updated at most.
const SHOW_INTERVAL: Duration = Duration::from_millis(250);
/// How often the driver looks whether something moves, besides after each event.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// How one document is filled.
pub(super) struct Setting<'a> {
    pub(super) channels: &'a ChannelPool,
    pub(super) swarm: SharedSwarm,
    pub(super) store: Arc<PieceStore>,
    pub(super) progress: Arc<Progress>,
    pub(super) metrics: FetchMetrics,
    /// How long a holder may stay silent before its requests end.
    pub(super) stall: Duration,
    /// Limits the rate of what arrives.
    pub(super) limit: Throttle,
    /// How long to go on without a holder that has a missing piece.
    pub(super) patience: Duration,
}

/// Why the store could not be filled.
#[derive(Debug)]
pub(super) enum Unfilled {
    /// The disk refused.
    Disk(WriteError),
    /// No holder could deliver what is missing.
    NoHolders,
}

pub(super) struct Driver<'a> {
    setting: Setting<'a>,
    leads: Leads,
    planner: Planner,
    holders: HolderTable,
    requests: BTreeMap<RequestId, Request>,
    /// The stream of the whole document that told what it is.
    opened: Option<(HolderId, OpenedRun)>,
    events: mpsc::Sender<(RequestId, RunEvent)>,
    incoming: mpsc::Receiver<(RequestId, RunEvent)>,
    /// Dropped with the driver, which ends its streams.
    streams: JoinSet<()>,
    dials: JoinSet<(Index, ExchangeEnd)>,
    seen: Seen,
    /// Pieces of an earlier fetch that are not checked yet.
    pending: PieceSet,
    /// Verified pieces that were counted, and credited to the holder that sent them.
    counted: PieceSet,
    /// Since when no holder has a missing piece.
    without_holders: Option<Instant>,
    /// When dropped holders were last asked again.
    retried: Instant,
    /// When displays were last updated.
    shown: Instant,
    stalls: Stalls,
}

type ExchangeEnd = Result<(), ExchangeError>;

struct Request {
    holder: HolderId,
    pieces: Range<usize>,
    /// Bytes of it that arrived.
    arrived: u64,
    control: Control,
}

impl Request {
    /// Whether all of a piece arrived with it.
    fn brought(&self, piece: usize, all: Pieces) -> bool {
        let start = all.range(self.pieces.start).start;
        self.pieces.contains(&piece) && all.range(piece).end <= start + self.arrived
    }
}

impl<'a> Driver<'a> {
    pub(super) fn new(setting: Setting<'a>, leads: Leads, seed: u64) -> Self {
        let config = setting.limit.bytes_per_second().map_or_else(PlanConfig::default, PlanConfig::limited);
        let planner = Planner::new(setting.store.pieces(), seed, config);
        let (events, incoming) = mpsc::channel(EVENTS_QUEUE);
        Self {
            setting,
            leads,
            planner,
            holders: HolderTable::default(),
            requests: BTreeMap::new(),
            opened: None,
            events,
            incoming,
            streams: JoinSet::new(),
            dials: JoinSet::new(),
            seen: Seen::default(),
            pending: PieceSet::empty(0),
            counted: PieceSet::empty(0),
            without_holders: None,
            retried: Instant::now(),
            shown: Instant::now(),
            stalls: Stalls::default(),
        }
    }

    /// Fills the store. `first`: the holder that named the document. `sources`: others that are said to have the whole.
    pub(super) async fn fill(mut self, first: Option<Opened>, sources: Vec<Source>) -> (Result<(), Unfilled>, Vec<SourceReport>) {
        freed_memory::keep();
        let filled = self.run(first, sources).await;
        (filled, self.holders.reports())
    }

    async fn run(&mut self, first: Option<Opened>, sources: Vec<Source>) -> Result<(), Unfilled> {
        let mut news = self.setting.swarm.member_news();
        let mut stored = self.setting.store.subscribe();
        let mut company = self.setting.swarm.company();
        // A fetch that is alone takes everything in one run; the tracker's answer is one round trip away.
        let _late = timeout(COMPANY_TIMEOUT, company.wait_for(Option::is_some)).await.map(drop);
        // Pieces that are still to be checked are requested only once they turn out to be missing.
        (self.pending, self.counted) = (stored.pending().clone(), stored.verified().clone());
        for piece in stored.verified().iter().chain(self.pending.iter()) {
            self.planner.handle(Event::Verified { piece, request: None }, Instant::now());
        }
        if let Some(opened) = first {
            self.add(&opened.source, opened.is_whole, "");
            self.take_over(opened, sources.is_empty() && *company.borrow() != Some(true));
        }
        for source in &sources {
            self.add(source, true, "");
        }
        loop {
            news.mark_unchanged();
            for member in self.setting.swarm.news(&mut self.seen) {
                self.member(member);
            }
            let has_company = *company.borrow_and_update() == Some(true) && !self.holders.are_unreachable();
            self.planner.handle(Event::Company(has_company), Instant::now());
            self.act();
            if self.setting.store.is_complete() {
                self.count_rest();
                return Ok(());
            }
            let now = Instant::now();
            self.retry_dropped(now);
            self.check_patience(now)?;
            self.show(now);
            let timer = self.planner.next_timer().unwrap_or(now + CHECK_INTERVAL).min(now + CHECK_INTERVAL);
            tokio::select! {
                Some((request, event)) = self.incoming.recv() => {
                    self.event(request, event)?;
                    // What came meanwhile, before the planner looks again.
                    for _ in 1..EVENTS_QUEUE {
                        let Ok((request, event)) = self.incoming.try_recv() else { break };
                        self.event(request, event)?;
                    }
                }
                _ = news.changed() => {}
                _ = company.changed() => {}
                Some(change) = stored.next() => self.stored(change),
                Some(ended) = self.dials.join_next() => {
                    if let Ok((index, ended)) = ended {
                        self.dial_ended(index, ended);
                    }
                }
                found = self.leads.next() => self.found(found),
                () = sleep_until(timer.into()) => {}
            }
        }
    }

    /// Executes what the planner decides.
    fn act(&mut self) {
        for action in self.planner.next_actions(Instant::now()) {
            match action {
                Action::Request { request, holder, pieces, in_turn } => self.request(request, holder, pieces, in_turn),
                Action::Shorten { request, end } => {
                    if let Some(running) = self.requests.get(&request) {
                        running.control.shorten(end);
                    }
                }
                Action::Cancel { request } => {
                    if let Some(running) = self.requests.get(&request) {
                        running.control.cancel();
                    }
                }
                Action::Drop { holder, by } => self.drop_holder(holder, by),
                Action::Search => self.setting.swarm.want_more(self.planner.useful_holders() == 0),
            }
        }
    }

    fn event(&mut self, request: RequestId, event: RunEvent) -> Result<(), Unfilled> {
        let now = Instant::now();
        let Some(running) = self.requests.get(&request) else { return Ok(()) };
        let holder = running.holder;
        let index = self.holders.by_planned(holder);
        match event {
            RunEvent::Began => self.planner.handle(Event::Began { request }, now),
            RunEvent::Queued => {
                if let Some(index) = index {
                    self.holders.get_mut(index).is_queued = true;
                }
            }
            RunEvent::Arrived(bytes) => {
                if let Some(running) = self.requests.get_mut(&request) {
                    running.arrived += bytes;
                }
                self.setting.progress.received(bytes, now);
                self.setting.metrics.received(bytes);
                if let Some(index) = index {
                    let holder = self.holders.get_mut(index);
                    holder.received.add(bytes, now);
                    holder.last_byte = Some(now);
                    holder.is_queued = false;
                    if std::mem::take(&mut holder.is_on_trial) {
                        self.leads.useful(&holder.source);
                    }
                    let peer = holder.member.map(|(_, peer)| peer);
                    self.setting.swarm.received(peer, bytes, now);
                }
                self.planner.handle(Event::Arrived { request, bytes }, now);
            }
            RunEvent::Verified(piece) => {
                let is_new = self.count(piece, index, Some(request));
                self.setting.metrics.piece(is_new);
            }
            RunEvent::Ended(ended) => {
                let (store, all) = (&self.setting.store, self.setting.store.pieces());
                let brought = |piece: &usize| running.brought(*piece, all) && store.has_pieces(*piece..*piece + 1);
                let pieces: Vec<_> = running.pieces.clone().filter(brought).collect();
                let cancelled = running.control.is_cancelled();
                // A piece that two streams received was perhaps verified after this one had sent it.
                for piece in pieces {
                    self.count(piece, index, Some(request));
                }
                self.requests.remove(&request);
                if let Some(index) = index {
                    self.count_requests(index);
                }
                let by = match ended.map_err(Unfilled::Disk)? {
                    Ok(()) if cancelled => EndedBy::Cancel,
                    Ok(()) => EndedBy::Completion,
                    Err(error) => {
                        self.setting.metrics.failed(&error);
                        if let Some(index) = index {
                            let failed = self.holders.get_mut(index);
                            fault_log::request_failed(&failed.source, &error);
                            failed.error = Some(error.to_string());
                            failed.says_gone |= error.is_gone();
                            if error.is_lie() && self.holders.get(index).planned != Some(holder) {
                                // The planner knows it by another number by now, or not at all.
                                self.ban(index, error.to_string());
                            }
                        }
                        match ended_by(&error) {
                            // It says that it has pieces: a member that just finished, or restarts.
                            EndedBy::FinalFault if matches!(error, SourceError::Refused(_)) && self.is_member(index) => {
                                EndedBy::TransientFault
                            }
                            by => by,
                        }
                    }
                };
                self.planner.handle(Event::Ended { request, by }, now);
            }
        }
        Ok(())
    }

    /// A piece is verified; `from` sent it. Returns whether it is new.
    fn count(&mut self, piece: usize, from: Option<Index>, request: Option<RequestId>) -> bool {
        if self.pending.contains(piece) || !self.counted.insert(piece) {
            return false;
        }
        let range = self.setting.store.pieces().range(piece);
        if let Some(index) = from {
            let entry = self.holders.get_mut(index);
            entry.bytes += range.end - range.start;
            entry.error = None;
        }
        self.setting.progress.advance(range.end - range.start);
        self.setting.swarm.gained(piece);
        self.planner.handle(Event::Verified { piece, request }, Instant::now());
        true
    }

    /// Counts what streams reported before the store was complete and was not looked at yet, and pieces that they did not report before.
    fn count_rest(&mut self) {
        while let Ok((request, event)) = self.incoming.try_recv() {
            // The only error is of a write, of bytes that are there already: the document is whole.
            let _already_whole = self.event(request, event);
        }
        for piece in 0..self.setting.store.pieces().count() {
            let all = self.setting.store.pieces();
            let sender = self.requests.values().find(|running| running.brought(piece, all)).map(|running| running.holder);
            if self.count(piece, sender.and_then(|holder| self.holders.by_planned(holder)), None) && sender.is_some() {
                self.setting.metrics.piece(true);
            }
        }
    }

    fn is_member(&self, index: Option<Index>) -> bool {
        index.is_some_and(|index| self.holders.get(index).member.is_some())
    }

    /// The store checked pieces of an earlier fetch, or lost some.
    fn stored(&mut self, change: PieceChange) {
        let now = Instant::now();
        for piece in change.verified {
            // Those that arrive are reported by their streams.
            if self.pending.remove(piece) {
                let range = self.setting.store.pieces().range(piece);
                self.counted.insert(piece);
                self.setting.progress.resume(range.end - range.start);
                self.setting.swarm.gained(piece);
            }
        }
        for piece in change.missing.into_iter().chain(change.lost) {
            self.pending.remove(piece);
            self.counted.remove(piece);
            if !self.setting.store.has_pieces(piece..piece + 1) {
                self.planner.handle(Event::Lost { piece }, now);
            }
        }
        for piece in change.pending {
            self.pending.insert(piece);
        }
    }

    fn count_requests(&self, index: Index) {
        let holder = self.holders.get(index);
        let (Some(planned), Some((_, peer))) = (holder.planned, holder.member) else { return };
        self.setting.swarm.set_requests(peer, self.requests_of(planned));
    }

    /// Ends the fetch when nobody who has a missing piece was found for too long.
    fn check_patience(&mut self, now: Instant) -> Result<(), Unfilled> {
        let has_holders = self.planner.useful_holders() > 0 && !self.holders.are_on_trial();
        if has_holders || !self.pending.is_empty() {
            self.without_holders = None;
            return Ok(());
        }
        let since = *self.without_holders.get_or_insert(now);
        let is_over = self.leads.is_exhausted() && self.requests.is_empty() && !self.holders.are_dialling();
        let patience = if is_over { self.setting.patience } else { PATIENCE_MAX };
        if now.saturating_duration_since(since) >= patience.max(self.setting.patience) {
            Err(Unfilled::NoHolders)
        } else {
            Ok(())
        }
    }

    /// Updates what displays of the fetch show, now and then.
    fn show(&mut self, now: Instant) {
        if now.saturating_duration_since(self.shown) < SHOW_INTERVAL {
            return;
        }
        self.shown = now;
        let used: Vec<_> =
            self.holders.indexes().map(|index| self.holders.get(index)).filter(|holder| self.is_used(holder)).collect();
        let waiting = match used.as_slice() {
            _ if !self.pending.is_empty() => Some(Waiting::Check),
            [] if self.planner.useful_holders() == 0 => Some(Waiting::Holders),
            used => {
                let names = |holders: &mut dyn Iterator<Item = &&Holder>| {
                    holders.map(|holder| holder.source.label().to_owned()).collect()
                };
                let (queued, asked): (Vec<_>, Vec<_>) = used.iter().copied().partition(|holder| holder.is_queued);
                match (asked.is_empty(), queued.is_empty()) {
                    (true, false) => Some(Waiting::Turn { at: names(&mut queued.iter()) }),
                    (true, true) => None,
                    (false, _) => Some(Waiting::Data { from: names(&mut asked.iter()) }),
                }
            }
        };
        let in_use = used.iter().map(|holder| self.progress_of(holder, now)).collect();
        let progress = &self.setting.progress;
        progress.set_holders(in_use, self.holders.indexes().len());
        progress.set_sources(self.holders.reports());
        progress.set_searching(self.leads.is_searching());
        let (sent, sent_per_second) = self.setting.swarm.sent_so_far(now);
        progress.set_sent(sent, sent_per_second);
        self.stalls.look(&self.setting.metrics, progress.idle(now), waiting.as_ref());
        progress.set_waiting(waiting);
        self.setting.swarm.set_waiting(progress.snapshot().why_idle().unwrap_or_default());
    }

    /// Whether something is requested from a holder.
    fn is_used(&self, holder: &Holder) -> bool {
        holder.planned.is_some_and(|planned| self.requests_of(planned) > 0)
    }

    /// Requests to a holder that have not ended.
    fn requests_of(&self, planned: HolderId) -> u32 {
        let count = self.requests.values().filter(|running| running.holder == planned).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    fn progress_of(&self, holder: &Holder, now: Instant) -> HolderProgress {
        HolderProgress {
            bytes: holder.bytes,
            bytes_per_second: holder.received.clone().rate(now),
            requests: holder.planned.map_or(0, |planned| self.requests_of(planned)),
            idle: holder.last_byte.map(|at| now.saturating_duration_since(at)),
            ..HolderProgress::new(holder.source.clone())
        }
    }
}

/// How long to go on without a useful holder while a search or a request is under way.
const PATIENCE_MAX: Duration = Duration::from_secs(30);

fn ended_by(error: &SourceError) -> EndedBy {
    match error {
        SourceError::WrongBytes(piece) => EndedBy::WrongPiece(*piece),
        SourceError::PiecesMissing(_) => EndedBy::PiecesMissing,
        error => match error.fault() {
            Fault::Transient => EndedBy::TransientFault,
            Fault::Busy => error.retry_after().map_or(EndedBy::Busy, EndedBy::BusyFor),
            Fault::Final => EndedBy::FinalFault,
        },
    }
}
