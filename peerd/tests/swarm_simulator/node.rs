//! One peer of the network: the driver of its planner, and what it sends.

use super::{Micros, Peer, Requests, Settings, ended, holder, planner};
use p2pdi::content::Pieces;
use peerd::transfer::plan::{Action, EndedBy, Event, HolderId, Offers, PieceSet, Planner, RequestId};
use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    time::Instant,
};

/// What a fetching peer says to a holder.
#[derive(Debug, Clone)]
pub enum Message {
    Request {
        request: RequestId,
        run: Range<usize>,
        in_turn: bool,
    },
    /// Nothing beyond this byte is wanted.
    End {
        request: RequestId,
        end: u64,
    },
}

/// A request, as its holder knows it.
#[derive(Debug)]
pub struct Sending {
    pub request: RequestId,
    /// The next byte to send, and up to where whole messages are sent.
    pub at: u64,
    pub told: u64,
    pub end: u64,
    pub begun: bool,
    pub in_turn: bool,
}

/// What one holder sends to one peer.
#[derive(Debug)]
pub struct Pair {
    pub from: usize,
    pub to: usize,
    pub queue: VecDeque<Sending>,
    pub budget: f64,
    /// Where it is in the line for a slot.
    pub since: u64,
}

impl Pair {
    pub fn new(from: usize, to: usize) -> Self {
        Self { from, to, queue: VecDeque::new(), budget: 0.0, since: 0 }
    }
}

/// A request, as its driver knows it.
#[derive(Debug)]
pub struct Asked {
    holder: HolderId,
    start: usize,
    end: usize,
    /// The next byte that arrives.
    at: u64,
    next_piece: usize,
}

pub struct Node {
    pub peer: Peer,
    pub present: bool,
    pub planner: Option<Planner>,
    pub offers: Option<Offers>,
    pieces: Pieces,
    requests: Requests,
    /// What it verified, and what it told others.
    pub news: Vec<usize>,
    pub announced: PieceSet,
    pub sent: u64,
    pub received: u64,
    /// When it had everything.
    pub done: Option<Micros>,
    pub searches: usize,
    pub dropped: Vec<HolderId>,
    /// Bytes from each holder.
    pub from: BTreeMap<HolderId, u64>,
    /// The most at any time.
    pub in_flight_max: usize,
}

impl Node {
    pub fn new(peer: Peer, settings: &Settings, seed: u64) -> Self {
        let offers = match peer.whole {
            true => settings.seeds_offer.then(|| Offers::new(settings.pieces, seed)),
            false => {
                settings.all_offer.then(|| Offers::of_part(settings.pieces, &PieceSet::empty(settings.pieces.count()), seed))
            }
        };
        Self {
            peer,
            present: false,
            planner: (!peer.whole).then(|| planner(settings, seed)),
            offers,
            pieces: settings.pieces,
            requests: Requests::new(),
            news: Vec::new(),
            announced: PieceSet::empty(settings.pieces.count()),
            sent: 0,
            received: 0,
            done: None,
            searches: 0,
            dropped: Vec::new(),
            from: BTreeMap::new(),
            in_flight_max: 0,
        }
    }

    pub fn is_fetching(&self) -> bool {
        self.planner.as_ref().is_some_and(|planner| !planner.is_complete())
    }

    /// Whether others may know that it has a piece.
    pub fn announced(&self, piece: usize) -> bool {
        self.peer.whole || self.announced.contains(piece)
    }

    /// Verified bytes.
    pub fn had(&self) -> u64 {
        let length = |piece| self.pieces.range(piece).end - self.pieces.range(piece).start;
        self.planner.as_ref().map_or(0, |planner| planner.verified().iter().map(length).sum())
    }

    pub fn tell(&mut self, event: Event, now: Instant) {
        if let Some(planner) = &mut self.planner {
            planner.handle(event, now);
        }
    }

    /// A holder is gone.
    pub fn lose(&mut self, gone: HolderId, now: Instant) {
        let requests: Vec<_> = self.requests.iter().filter(|(_, asked)| asked.holder == gone).map(|(id, _)| *id).collect();
        for request in requests {
            self.requests.remove(&request);
            self.tell(ended(request, EndedBy::TransientFault), now);
        }
        self.tell(Event::HolderRemoved { holder: gone }, now);
    }

    pub fn arrived(&mut self, request: RequestId, bytes: u64, wrong: bool, now: Instant, time: Micros) {
        self.received += bytes;
        let Some(asked) = self.requests.get_mut(&request) else { return };
        *self.from.entry(asked.holder).or_default() += bytes;
        asked.at += bytes;
        let mut verified = Vec::new();
        while asked.next_piece < asked.end && self.pieces.range(asked.next_piece).end <= asked.at {
            verified.push(asked.next_piece);
            asked.next_piece += 1;
        }
        let is_done = asked.next_piece >= asked.end;
        self.tell(Event::Arrived { request, bytes }, now);
        if let (true, Some(piece)) = (wrong, verified.first()) {
            self.requests.remove(&request);
            self.tell(ended(request, EndedBy::WrongPiece(*piece)), now);
            return;
        }
        for piece in verified {
            let Some(planner) = &mut self.planner else { return };
            if !planner.verified().contains(piece) {
                self.news.push(piece);
                if let Some(offers) = &mut self.offers {
                    offers.verified(piece);
                }
            }
            planner.handle(Event::Verified { piece, request: Some(request) }, now);
            if planner.is_complete() {
                self.done.get_or_insert(time);
            }
        }
        if is_done {
            self.requests.remove(&request);
            self.tell(ended(request, EndedBy::Completion), now);
        }
    }

    /// Executes an action; returns what is to be sent, and to whom. `ended`: a request ended with it.
    pub fn execute(
        &mut self,
        action: Action,
        settings: &Settings,
        now: Instant,
        ended_now: &mut bool,
    ) -> Option<(usize, Message)> {
        match action {
            Action::Request { request, holder, pieces: run, in_turn } => {
                let planner = self.planner.as_ref().unwrap();
                assert!(
                    !run.is_empty() && run.clone().all(|piece| !planner.verified().contains(piece)),
                    "a verified piece is requested"
                );
                assert!(!self.dropped.contains(&holder), "a dropped holder is asked");
                let at = settings.pieces.range(run.start).start;
                self.requests.insert(request, Asked { holder, start: run.start, end: run.end, at, next_piece: run.start });
                for piece in run.clone() {
                    let times = self.requests.values().filter(|asked| (asked.start..asked.end).contains(&piece)).count();
                    assert!(times <= 2, "piece {piece} is requested {times} times");
                }
                Some((holder.0 as usize, Message::Request { request, run, in_turn }))
            }
            Action::Shorten { request, end } => {
                let asked = self.requests.get_mut(&request)?;
                assert!(end > asked.start && end < asked.end);
                asked.end = end;
                let to = asked.holder;
                if asked.next_piece >= end {
                    self.requests.remove(&request);
                    self.tell(ended(request, EndedBy::Completion), now);
                    *ended_now = true;
                }
                Some((to.0 as usize, Message::End { request, end: settings.pieces.range(end - 1).end }))
            }
            Action::Cancel { request } => {
                let asked = self.requests.remove(&request)?;
                self.tell(ended(request, EndedBy::Cancel), now);
                *ended_now = true;
                Some((asked.holder.0 as usize, Message::End { request, end: 0 }))
            }
            Action::Drop { holder, .. } => {
                self.dropped.push(holder);
                self.requests.retain(|_, asked| asked.holder != holder);
                None
            }
            Action::Search => {
                self.searches += 1;
                None
            }
        }
    }

    /// The limits of flight hold.
    pub fn check_limits(&mut self, settings: &Settings) {
        let mut each: BTreeMap<HolderId, usize> = BTreeMap::new();
        let mut bytes = 0;
        for asked in self.requests.values() {
            *each.entry(asked.holder).or_default() += 1;
            bytes += settings.pieces.range(asked.end - 1).end.saturating_sub(asked.at).min(settings.plan.stream_window);
        }
        assert!(self.requests.len() <= settings.plan.requests_max);
        assert!(each.values().all(|requests| *requests <= settings.plan.requests_of_sole_holder));
        assert!(
            bytes <= settings.plan.in_flight_max_bytes.max(settings.plan.in_flight_long_max_bytes) || self.requests.len() == 1
        );
        self.in_flight_max = self.in_flight_max.max(self.requests.len());
    }

    /// Bytes that arrived from one peer.
    pub fn received_from(&self, index: usize) -> u64 {
        self.from.get(&holder(index)).copied().unwrap_or(0)
    }
}
