//! A network of peers that fetch one document, simulated with a seed: the planner and the offers are the product's; links are a fluid
//! that flows share max-min fair, and messages have a delay. No protocol overhead.
//!
//! A holder sends the requests of one peer one after the other, and those of all peers at once.

mod node;
mod rates;
pub mod scenario;

use node::{Message, Node, Pair, Sending};
use p2pdi::content::Pieces;
use peerd::transfer::plan::{Action, EndedBy, Event, Has, HolderId, MemberId, PlanConfig, Planner, RequestId};
use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::SmallRng};
use rates::{Flow, Rates};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap},
    rc::Rc,
    time::{Duration, Instant},
};

/// Microseconds since the beginning.
pub type Micros = u64;
pub const SECOND: Micros = 1_000_000;
/// How often news of verified pieces and lists of offers are sent.
const NEWS_EVERY: Micros = 50_000;

/// One peer of a network.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// Bytes a second.
    pub up: f64,
    pub down: f64,
    pub whole: bool,
    /// It speaks Availability: others may fetch too.
    pub in_swarm: bool,
    pub zone: u8,
    /// When it appears, and when it vanishes.
    pub joins: Micros,
    pub leaves: Option<Micros>,
    /// The share of its pieces that are wrong.
    pub lies: f64,
    /// From when it sends nothing any more, although it stays.
    pub stalls: Option<Micros>,
}

/// What is not the same in all scenarios.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub pieces: Pieces,
    pub plan: PlanConfig,
    /// One way, between any two peers.
    pub delay: Micros,
    /// The fluid's step.
    pub step: Micros,
    /// Bytes of one message: only whole ones arrive.
    pub message: u64,
    /// Whether whole peers say what they would like to be asked for, and others too.
    pub seeds_offer: bool,
    pub all_offer: bool,
    /// Peers that one holder sends to at the same time; the next one begins when one of them has its piece.
    pub slots: usize,
    /// Nobody is waited for longer.
    pub deadline: Micros,
}

enum What {
    Join(usize),
    Leave(usize),
    News(usize),
    /// A request, a shorter end or a cancel arrives at the holder.
    Asked(usize, usize, Message),
    /// The answer begins, or bytes of it arrive; whether the last of them is wrong.
    Began(usize, RequestId),
    Arrived(usize, RequestId, u64, bool),
    Gained(usize, usize, Rc<[usize]>),
    AskFor(usize, usize, Vec<usize>),
}

pub struct Network {
    pub settings: Settings,
    pub now: Micros,
    origin: Instant,
    rng: SmallRng,
    pub nodes: Vec<Node>,
    neighbours: Vec<Vec<usize>>,
    pairs: Vec<Pair>,
    pair_of: HashMap<(usize, usize), usize>,
    queue: BinaryHeap<(Reverse<(Micros, u64)>, usize)>,
    whats: Vec<Option<What>>,
    free: Vec<usize>,
    sequence: u64,
    rates: Rates,
    up: Vec<f64>,
    down: Vec<f64>,
}

impl Network {
    /// `links[i]` are the peers that peer `i` knows; symmetric.
    pub fn new(settings: Settings, peers: &[Peer], links: Vec<Vec<usize>>, seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let nodes = peers.iter().map(|peer| Node::new(*peer, &settings, rng.next_u64())).collect();
        let mut new = Self {
            settings,
            now: 0,
            origin: Instant::now(),
            rng,
            nodes,
            neighbours: links,
            pairs: Vec::new(),
            pair_of: HashMap::new(),
            queue: BinaryHeap::new(),
            whats: Vec::new(),
            free: Vec::new(),
            sequence: 0,
            rates: Rates::default(),
            up: peers.iter().map(|peer| peer.up).collect(),
            down: peers.iter().map(|peer| peer.down).collect(),
        };
        for (index, peer) in peers.iter().enumerate() {
            new.at(peer.joins, What::Join(index));
            let phase = new.rng.random_range(0..NEWS_EVERY);
            new.at(peer.joins + phase, What::News(index));
            if let Some(leaves) = peer.leaves {
                new.at(leaves, What::Leave(index));
            }
        }
        new
    }

    fn at(&mut self, time: Micros, what: What) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.whats.push(None);
            self.whats.len() - 1
        });
        self.whats[slot] = Some(what);
        self.sequence += 1;
        self.queue.push((Reverse((time, self.sequence)), slot));
    }

    fn instant(&self, time: Micros) -> Instant {
        self.origin + Duration::from_micros(time)
    }

    /// Runs until every peer that fetches and stays has everything.
    pub fn run(&mut self) {
        let mut touched = BTreeSet::new();
        while self.now < self.settings.deadline && self.nodes.iter().any(Node::is_fetching) {
            self.now += self.settings.step;
            while let Some((Reverse((time, _)), slot)) =
                self.queue.peek().copied().filter(|(Reverse((time, _)), _)| *time <= self.now)
            {
                self.queue.pop();
                self.free.push(slot);
                let what = self.whats[slot].take().unwrap();
                self.happens(what, time, &mut touched);
            }
            let now = self.instant(self.now);
            let due = |node: &Node| node.planner.as_ref().is_some_and(|planner| planner.next_timer().is_some_and(|at| at <= now));
            touched.extend((0..self.nodes.len()).filter(|index| due(&self.nodes[*index])));
            for index in std::mem::take(&mut touched) {
                self.act(index);
            }
            self.flow();
        }
    }

    fn happens(&mut self, what: What, time: Micros, touched: &mut BTreeSet<usize>) {
        let at = self.instant(time);
        match what {
            What::Join(index) => self.join(index, touched),
            What::Leave(index) => self.leave(index, touched),
            What::News(index) => self.news(index),
            What::Asked(from, to, message) => self.asked(from, to, message),
            What::Began(to, request) => {
                self.nodes[to].tell(Event::Began { request }, at);
            }
            What::Arrived(to, request, bytes, wrong) => {
                self.nodes[to].arrived(request, bytes, wrong, at, time);
                touched.insert(to);
            }
            What::Gained(to, from, pieces) => {
                let event = Event::Gained { holder: holder(from), pieces: pieces.to_vec() };
                self.nodes[to].tell(event, at);
                if let Some(offers) = &mut self.nodes[to].offers {
                    pieces.iter().for_each(|piece| offers.gained(MemberId(from as u32), *piece));
                }
                touched.insert(to);
            }
            What::AskFor(to, from, pieces) => {
                self.nodes[to].tell(Event::AskFor { holder: holder(from), pieces }, at);
                touched.insert(to);
            }
        }
    }

    fn join(&mut self, index: usize, touched: &mut BTreeSet<usize>) {
        self.nodes[index].present = true;
        let now = self.instant(self.now);
        for other in self.neighbours[index].clone() {
            if self.nodes[other].present {
                for (to, from) in [(index, other), (other, index)] {
                    let peer = self.nodes[from].peer;
                    let has = if peer.whole { Has::All } else { Has::Pieces(self.nodes[from].announced.clone()) };
                    let near = peer.zone == self.nodes[to].peer.zone;
                    self.nodes[to].tell(Event::HolderAdded { holder: holder(from), near, has, in_swarm: peer.in_swarm }, now);
                    if !peer.in_swarm {
                        // It was asked what the document is.
                        let delay = Duration::from_micros(2 * self.settings.delay);
                        self.nodes[to].tell(Event::Delay { holder: holder(from), delay }, now);
                    }
                    let announced = self.nodes[from].announced.clone();
                    if let (Some(offers), false) = (&mut self.nodes[to].offers, peer.whole) {
                        offers.joined(MemberId(from as u32), announced);
                    }
                    touched.insert(to);
                }
            }
        }
    }

    fn leave(&mut self, index: usize, touched: &mut BTreeSet<usize>) {
        self.nodes[index].present = false;
        self.nodes[index].planner = None;
        let now = self.instant(self.now);
        for other in self.neighbours[index].clone() {
            for (from, to) in [(index, other), (other, index)] {
                if let Some(pair) = self.pair_of.get(&(from, to)) {
                    self.pairs[*pair].queue.clear();
                }
            }
            self.nodes[other].lose(holder(index), now);
            if let Some(offers) = &mut self.nodes[other].offers {
                offers.left(MemberId(index as u32));
            }
            touched.insert(other);
        }
    }

    /// Sends what a peer verified since the last time, and its lists.
    fn news(&mut self, index: usize) {
        if !self.nodes[index].present {
            return;
        }
        let later = self.now + self.settings.delay;
        let gained: Rc<[usize]> = std::mem::take(&mut self.nodes[index].news).into();
        for piece in gained.iter() {
            self.nodes[index].announced.insert(*piece);
        }
        let lists = self.nodes[index].offers.as_mut().map(|offers| offers.lists()).unwrap_or_default();
        if !gained.is_empty() {
            for other in self.neighbours[index].clone() {
                if self.nodes[other].present {
                    self.at(later, What::Gained(other, index, gained.clone()));
                }
            }
        }
        for (member, pieces) in lists {
            self.at(later, What::AskFor(member.0 as usize, index, pieces));
        }
        self.at(self.now + NEWS_EVERY, What::News(index));
    }

    /// A message of `from` arrives at the holder `to`.
    fn asked(&mut self, from: usize, to: usize, message: Message) {
        if !self.nodes[to].present || !self.nodes[from].present {
            return;
        }
        let next = self.pairs.len();
        let pair = *self.pair_of.entry((to, from)).or_insert(next);
        if pair == next {
            self.pairs.push(Pair::new(to, from));
        }
        let member = MemberId(from as u32);
        let piece_size = self.settings.pieces.piece_size();
        match message {
            Message::Request { request, run, in_turn } => {
                assert!(run.clone().all(|piece| self.nodes[to].announced(piece)), "a peer is asked for what it lacks");
                if let Some(offers) = &mut self.nodes[to].offers {
                    offers.requested(member, run.clone());
                }
                let (start, end) = (self.settings.pieces.range(run.start).start, self.settings.pieces.range(run.end - 1).end);
                let window = self.settings.plan.stream_window;
                if self.pairs[pair].queue.is_empty() {
                    self.sequence += 1;
                    self.pairs[pair].since = self.sequence;
                }
                self.pairs[pair].queue.push_back(Sending {
                    request,
                    at: start,
                    told: start,
                    end,
                    begun: false,
                    in_turn,
                    allowed: window as f64,
                });
            }
            Message::End { request, end } => {
                let queue = &mut self.pairs[pair].queue;
                if let Some(place) = queue.iter().position(|sending| sending.request == request) {
                    let old = (queue[place].end.div_ceil(piece_size)) as usize;
                    queue[place].end = end.max(queue[place].at).min(queue[place].end);
                    let unsent = (queue[place].end.div_ceil(piece_size)) as usize..old;
                    if end <= queue[place].told {
                        queue.remove(place);
                    }
                    if let Some(offers) = &mut self.nodes[to].offers {
                        offers.ended(member, unsent);
                    }
                }
            }
        }
    }

    /// Lets the planner of a peer act.
    fn act(&mut self, index: usize) {
        let now = self.instant(self.now);
        let later = self.now + self.settings.delay;
        loop {
            let Some(planner) = &mut self.nodes[index].planner else { return };
            let actions = planner.next_actions(now);
            let mut ended = false;
            for action in actions {
                if let Some((to, message)) = self.nodes[index].execute(action, &self.settings, now, &mut ended) {
                    self.at(later, What::Asked(index, to, message));
                }
            }
            self.nodes[index].check_limits(&self.settings);
            let timer = self.nodes[index].planner.as_ref().and_then(Planner::next_timer);
            assert!(timer.is_none_or(|at| at > now), "a timer in the past");
            if !ended {
                return;
            }
        }
    }

    fn sends(&self, pair: &Pair) -> bool {
        !pair.queue.is_empty() && self.nodes[pair.from].peer.stalls.is_none_or(|stalls| self.now < stalls)
    }

    /// Those of the pairs that have a slot at their holder: the ones that wait longest.
    fn with_slot(&self, mut pairs: Vec<usize>) -> Vec<usize> {
        if self.settings.slots < self.nodes.len() {
            pairs.sort_by_key(|pair| (self.pairs[*pair].from, self.pairs[*pair].since));
            let (mut last, mut count) = (usize::MAX, 0);
            pairs.retain(|pair| {
                count = if self.pairs[*pair].from == last { count + 1 } else { 1 };
                last = self.pairs[*pair].from;
                count <= self.settings.slots
            });
        }
        pairs
    }

    /// Lets all uploads flow for one step.
    fn flow(&mut self) {
        let active: Vec<usize> = (0..self.pairs.len()).filter(|pair| self.sends(&self.pairs[*pair])).collect();
        let active = self.with_slot(active);
        let round_trip = self.round_trip();
        let mut flows: Vec<_> = active
            .iter()
            .map(|pair| {
                let pair = &self.pairs[*pair];
                let limit = (pair.queue.len() as u64 * self.settings.plan.stream_window) as f64 / round_trip;
                Flow { from: pair.from, to: pair.to, limit, rate: 0.0 }
            })
            .collect();
        self.rates.share(&self.up, &self.down, &mut flows);
        for (pair, flow) in active.into_iter().zip(flows) {
            self.send(pair, flow.rate * self.settings.step as f64 / SECOND as f64);
        }
    }

    /// In seconds.
    fn round_trip(&self) -> f64 {
        (2 * self.settings.delay).max(200) as f64 / SECOND as f64
    }

    /// One holder sends up to `budget` bytes to one peer: the first of the requests that are served in turn, and all others, share it.
    fn send(&mut self, pair: usize, budget: f64) {
        self.pairs[pair].budget += budget;
        let window = self.settings.plan.stream_window as f64;
        let opened = window * self.settings.step as f64 / SECOND as f64 / self.round_trip();
        for sending in &mut self.pairs[pair].queue {
            sending.allowed = (sending.allowed + opened).min(window);
        }
        loop {
            let queue = &self.pairs[pair].queue;
            let in_turn = queue.iter().position(|sending| sending.in_turn);
            let may_send = |place: &usize| {
                let sending = &queue[*place];
                sending.allowed >= 1.0 && (!sending.in_turn || Some(*place) == in_turn)
            };
            let active: Vec<_> = (0..queue.len()).filter(may_send).collect();
            let share = self.pairs[pair].budget / active.len() as f64;
            if active.is_empty() {
                self.pairs[pair].budget = 0.0;
            }
            if active.is_empty() || share < 1.0 {
                return;
            }
            self.pairs[pair].budget = 0.0;
            for place in active.into_iter().rev() {
                let now = share.min(self.pairs[pair].queue[place].allowed);
                let left = self.send_one(pair, place, now);
                self.pairs[pair].budget += share - now + left;
            }
        }
    }

    /// Sends up to `budget` bytes of one request; returns what is left.
    fn send_one(&mut self, pair: usize, place: usize, mut budget: f64) -> f64 {
        let (from, to) = (self.pairs[pair].from, self.pairs[pair].to);
        let later = self.now + self.settings.delay;
        while budget >= 1.0 {
            let sending = &mut self.pairs[pair].queue[place];
            let (request, begins) = (sending.request, !std::mem::replace(&mut sending.begun, true));
            let mark = (sending.told + self.settings.message).min(sending.end);
            let bytes = (budget as u64).min(mark - sending.at);
            sending.at += bytes;
            sending.allowed -= bytes as f64;
            budget -= bytes as f64;
            let message = (sending.at == mark).then(|| mark - std::mem::replace(&mut sending.told, mark));
            let is_done = sending.at >= sending.end;
            if is_done {
                self.pairs[pair].queue.remove(place);
                self.sequence += 1;
                self.pairs[pair].since = self.sequence;
            }
            self.nodes[from].sent += bytes;
            if begins {
                self.at(later, What::Began(to, request));
            }
            if let Some(bytes) = message {
                let lies = self.nodes[from].peer.lies;
                let wrong = lies > 0.0 && self.rng.random_bool(lies);
                self.at(later, What::Arrived(to, request, bytes, wrong));
            }
            if is_done {
                break;
            }
        }
        budget
    }

    /// Bytes that all peers received of what they had or requested elsewhere too, in parts of the document.
    pub fn wasted(&self) -> f64 {
        let stay = self.nodes.iter().filter(|node| node.present);
        let (received, had): (u64, u64) = stay.fold((0, 0), |(received, had), node| (received + node.received, had + node.had()));
        received.saturating_sub(had) as f64 / self.settings.pieces.size() as f64
    }
}

/// The number by which all others know a peer.
pub fn holder(index: usize) -> HolderId {
    HolderId(index as u32)
}

/// The requests of a fetching peer, as its driver knows them.
pub type Requests = BTreeMap<RequestId, node::Asked>;

/// The end of a request, as its driver reports it.
pub fn ended(request: RequestId, by: EndedBy) -> Event {
    Event::Ended { request, by }
}

/// Whether an action is a search.
pub fn is_search(action: &Action) -> bool {
    matches!(action, Action::Search)
}

/// A planner as a peer of the network has it.
pub fn planner(settings: &Settings, seed: u64) -> Planner {
    Planner::new(settings.pieces, seed, settings.plan)
}
