//! A seeded simulator of whole networks of pure state machines, both ours and iroh-gossip's.
//!
//! Time is simulated. Each pair of peers has a fixed latency, so that links keep the order of messages unless
//! [`Faults::jitter`] is set. The links of a killed peer end after one latency, as when the system resets the connections of a dead
//! process; after [`Network::unplug`] they stay silent, as when its machine lost power.
//! The registry returns random samples and lists dead peers until their leases expire.

#![allow(dead_code)] // the test and the benchmark use different parts

mod events;
pub mod iroh;
pub mod ours;
pub mod scenario;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Microseconds since the start.
pub type Micros = u64;
/// A peer's position in the network's list.
pub type Index = u32;

/// One second.
pub const SECOND: Micros = 1_000_000;
/// Latencies of links, unless a network is given others. iroh-gossip's simulator draws from this range by default, and from the
/// lower half of it in the scenarios that it is published with.
pub const LATENCY: std::ops::Range<Micros> = 10_000..100_000;
const REGISTRY_LATENCY: Micros = 20_000;
/// A lease of 30 s, kept alive every 10 s: a dead peer is listed for another 20 to 30 s.
const LISTED_AFTER_DEATH: std::ops::Range<Micros> = 20 * SECOND..30 * SECOND;
/// How long a dial to an unplugged machine takes to fail.
const DIAL_TIMEOUT: Micros = 3 * SECOND;

/// Input of a simulated peer.
pub enum Input<M> {
    Start(Vec<Index>),
    LinkUp { peer: Index, incarnation: u64, dialled: bool },
    LinkDown(Index),
    DialFailed(Index),
    Received { from: Index, message: M },
    Found(Vec<Index>),
    Broadcast(u64),
    Timer(u64),
    Leave,
}

/// Output of a simulated peer.
pub enum Output<M> {
    Dial(Index),
    Close(Index),
    Send(Index, M),
    /// Stop reading from a link for this time.
    Pause(Index, Micros),
    Ask(usize),
    /// Give the peer [`Input::Timer`] with this number at this time.
    Timer(Micros, u64),
    Delivered {
        broadcast: u64,
        hops: u32,
    },
    Misbehaved(Index),
}

/// The kind of a message, for the counters.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Payload,
    Control,
}

/// A state machine that can be simulated.
pub trait Node: Sized {
    type Message: Clone;
    /// Whether a dial opens a link, or the first message does (iroh-gossip).
    const DIALS: bool;
    fn new(me: Index, incarnation: u64, seed: u64, now: Micros) -> Self;
    fn handle(&mut self, input: Input<Self::Message>, now: Micros, out: &mut Vec<Output<Self::Message>>);
    /// The current neighbours.
    fn neighbours(&self) -> Vec<Index>;
    fn kind(message: &Self::Message) -> Kind;
    fn size(message: &Self::Message) -> usize;
    /// The message, encoded and decoded again.
    fn recode(message: Self::Message) -> Self::Message;
}

/// Faults of single messages.
#[derive(Clone, Copy, Default)]
pub struct Faults {
    /// Share of messages lost.
    pub loss: f64,
    /// Share of messages that arrive twice.
    pub duplicates: f64,
    /// Each message is delayed by a random time up to this, so that messages overtake each other.
    pub jitter: Micros,
}

enum Event<M> {
    Start(Index, Vec<Index>),
    Dial { from: Index, to: Index, link: u64 },
    Dialled { from: Index, to: Index, link: u64 },
    DialFailed { from: Index, to: Index },
    Down { at: Index, peer: Index, link: u64 },
    Message { from: Index, to: Index, link: u64, message: M },
    Found(Index, Vec<Index>),
    Timer(Index, u64, u64),
}

struct Slot<N> {
    node: Option<N>,
    incarnation: u64,
    links: BTreeMap<Index, u64>,
    paused: BTreeMap<Index, Micros>,
    unplugged: bool,
    partition: u8,
    listed_until: Micros,
}

/// What happened to one broadcast.
#[derive(Clone)]
pub struct BroadcastRecord {
    pub origin: Index,
    pub sent_at: Micros,
    /// When each peer received it; `Micros::MAX` if it did not.
    pub received_at: Vec<Micros>,
    pub last_hop: u32,
    pub duplicates: u32,
}

/// Counters of all peers.
#[derive(Clone, Copy, Default, Debug)]
pub struct Traffic {
    pub payloads: u64,
    pub controls: u64,
    pub bytes: u64,
    pub asks: u64,
    pub dials: u64,
    pub misbehaved: u64,
    pub pauses: u64,
}

/// A network of simulated peers.
pub struct Network<N: Node> {
    pub now: Micros,
    seed: u64,
    pub rng: ChaCha8Rng,
    slots: Vec<Slot<N>>,
    queue: BinaryHeap<Reverse<(Micros, u64, usize)>>,
    events: Vec<Option<Event<N::Message>>>,
    free: Vec<usize>,
    count: u64,
    links: u64,
    pub broadcasts: Vec<BroadcastRecord>,
    /// The number of the first one. Payloads are unique, because iroh-gossip identifies broadcasts by their content.
    first_broadcast: u64,
    pub traffic: Traffic,
    /// Whether messages are encoded and decoded, and bytes are counted.
    pub encode: bool,
    pub faults: Faults,
    latencies: std::ops::Range<Micros>,
    listed: Vec<Index>,
    out: Vec<Output<N::Message>>,
}

impl<N: Node> Network<N> {
    /// An empty network with latencies in [`LATENCY`].
    pub fn new(seed: u64) -> Self {
        Self::with_latencies(seed, LATENCY)
    }

    /// An empty network with latencies in this range.
    pub fn with_latencies(seed: u64, latencies: std::ops::Range<Micros>) -> Self {
        Self {
            latencies,
            now: 0,
            seed,
            rng: ChaCha8Rng::seed_from_u64(seed),
            slots: Vec::new(),
            queue: BinaryHeap::new(),
            events: Vec::new(),
            free: Vec::new(),
            count: 0,
            links: 0,
            broadcasts: Vec::new(),
            first_broadcast: 0,
            traffic: Traffic::default(),
            encode: false,
            faults: Faults::default(),
            listed: Vec::new(),
            out: Vec::new(),
        }
    }

    /// Adds a peer that starts at once, with a sample of two existing peers.
    pub fn add(&mut self) -> Index {
        let index = self.slots.len() as Index;
        self.slots.push(Slot {
            node: None,
            incarnation: 0,
            links: BTreeMap::new(),
            paused: BTreeMap::new(),
            unplugged: false,
            partition: 0,
            listed_until: Micros::MAX,
        });
        self.start(index);
        index
    }

    /// Starts a peer, or restarts it without any state but its id.
    pub fn start(&mut self, index: Index) {
        let contacts = self.sample(index, 2);
        let seed = self.rng.next_u64();
        let slot = &mut self.slots[index as usize];
        slot.incarnation = self.now + 1;
        slot.unplugged = false;
        slot.listed_until = Micros::MAX;
        slot.node = Some(N::new(index, slot.incarnation, seed, self.now));
        if !self.listed.contains(&index) {
            self.listed.push(index);
        }
        self.schedule(0, Event::Start(index, contacts));
    }

    /// A peer's process dies, and the system closes its connections.
    pub fn kill(&mut self, index: Index) {
        let slot = &mut self.slots[index as usize];
        slot.node = None;
        slot.listed_until = self.now + self.rng.random_range(LISTED_AFTER_DEATH);
        for (peer, link) in std::mem::take(&mut slot.links) {
            let late = self.latency(index, peer) + 1;
            if !N::DIALS {
                self.slots[peer as usize].links.remove(&index);
            }
            self.schedule(late, Event::Down { at: peer, peer: index, link });
        }
    }

    /// A peer's machine loses power: its connections stay open and silent.
    pub fn unplug(&mut self, index: Index) {
        let slot = &mut self.slots[index as usize];
        slot.node = None;
        slot.unplugged = true;
        slot.links.clear();
        slot.listed_until = self.now + self.rng.random_range(LISTED_AFTER_DEATH);
    }

    /// A peer says goodbye and ends.
    pub fn leave(&mut self, index: Index) {
        self.feed(index, Input::Leave);
        self.kill(index);
        self.slots[index as usize].listed_until = self.now;
    }

    /// Moves a peer to a partition; no message passes between partitions.
    pub fn set_partition(&mut self, index: Index, partition: u8) {
        self.slots[index as usize].partition = partition;
    }

    /// The peers that are alive.
    pub fn alive(&self) -> Vec<Index> {
        let indexes = 0..self.slots.len() as Index;
        indexes.filter(|index| self.node(*index).is_some()).collect()
    }

    /// The state machine of a peer, if it is alive.
    pub fn node(&self, index: Index) -> Option<&N> {
        self.slots[index as usize].node.as_ref()
    }

    /// A random peer that is alive.
    pub fn random_peer(&mut self) -> Index {
        assert!(self.slots.iter().any(|slot| slot.node.is_some()), "no peer is alive");
        loop {
            let index = self.rng.random_range(0..self.slots.len());
            if self.slots[index].node.is_some() {
                return index as Index;
            }
        }
    }

    /// Broadcasts from `origin`; returns the broadcast's number.
    pub fn broadcast(&mut self, origin: Index) -> usize {
        let number = self.broadcasts.len();
        let mut received_at = vec![Micros::MAX; self.slots.len()];
        received_at[origin as usize] = self.now;
        self.broadcasts.push(BroadcastRecord { origin, sent_at: self.now, received_at, last_hop: 0, duplicates: 0 });
        let number_of_all = self.first_broadcast + number as u64;
        self.feed(origin, Input::Broadcast(number_of_all));
        number
    }

    /// Forgets all broadcasts and counters.
    pub fn reset(&mut self) {
        self.first_broadcast += self.broadcasts.len() as u64;
        self.broadcasts.clear();
        self.traffic = Traffic::default();
    }

    /// Sends a message to a peer as if from `from`, on their link.
    pub fn inject(&mut self, from: Index, to: Index, message: N::Message) {
        if let Some(link) = self.slots[from as usize].links.get(&to).copied() {
            self.send(from, to, link, message);
        }
    }

    /// Share of `peers` that received the broadcast by `deadline`.
    pub fn reliability(&self, number: usize, peers: &[Index], deadline: Micros) -> f64 {
        let record = &self.broadcasts[number];
        let received = |peer: &&Index| record.received_at.get(**peer as usize).is_some_and(|at| *at <= deadline);
        peers.iter().filter(received).count() as f64 / peers.len().max(1) as f64
    }

    /// Mean number of links per peer.
    pub fn mean_degree(&self) -> f64 {
        let alive = self.alive();
        let links: usize = alive.iter().filter_map(|index| self.node(*index)).map(|node| node.neighbours().len()).sum();
        links as f64 / alive.len().max(1) as f64
    }

    /// Sizes of the connected components of the graph of neighbours, largest first.
    pub fn components(&self) -> Vec<usize> {
        let mut seen = vec![false; self.slots.len()];
        let mut sizes = Vec::new();
        for start in self.alive() {
            if std::mem::replace(&mut seen[start as usize], true) {
                continue;
            }
            let (mut stack, mut size) = (vec![start], 0);
            while let Some(index) = stack.pop() {
                size += 1;
                let Some(node) = self.node(index) else {
                    continue;
                };
                for peer in node.neighbours() {
                    let linked = self.node(peer).is_some_and(|n| n.neighbours().contains(&index));
                    if linked && !std::mem::replace(&mut seen[peer as usize], true) {
                        stack.push(peer);
                    }
                }
            }
            sizes.push(size);
        }
        sizes.sort_unstable_by_key(|size| Reverse(*size));
        sizes
    }

    /// Runs the network for `duration`.
    pub fn run(&mut self, duration: Micros) {
        let end = self.now + duration;
        while let Some(Reverse((at, _, entry))) = self.queue.peek().copied() {
            if at > end {
                break;
            }
            self.queue.pop();
            self.now = at;
            self.free.push(entry);
            if let Some(event) = self.events[entry].take() {
                self.process(event);
            }
        }
        self.now = end;
    }

    fn schedule(&mut self, wait: Micros, event: Event<N::Message>) {
        let entry = match self.free.pop() {
            Some(entry) => {
                self.events[entry] = Some(event);
                entry
            }
            None => {
                self.events.push(Some(event));
                self.events.len() - 1
            }
        };
        self.count += 1;
        self.queue.push(Reverse((self.now + wait, self.count, entry)));
    }

    /// The latency of a pair of peers; always the same.
    fn latency(&self, a: Index, b: Index) -> Micros {
        let pair = u64::from(a.min(b)) << 32 | u64::from(a.max(b));
        let mut x = pair ^ self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for _ in 0..2 {
            x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            x ^= x >> 31;
        }
        self.latencies.start + x % (self.latencies.end - self.latencies.start)
    }

    /// Whether no message can pass between two peers.
    fn is_cut(&self, a: Index, b: Index) -> bool {
        let (a, b) = (&self.slots[a as usize], &self.slots[b as usize]);
        a.partition != b.partition || a.unplugged || b.unplugged
    }

    /// The registry's sample for `asker`.
    fn sample(&mut self, asker: Index, count: usize) -> Vec<Index> {
        let now = self.now;
        let slots = &self.slots;
        self.listed.retain(|index| slots[*index as usize].listed_until > now);
        let mut sample: Vec<Index> = Vec::new();
        for _ in 0..2 * count {
            if self.listed.is_empty() || sample.len() >= count {
                break;
            }
            let index = self.listed[self.rng.random_range(0..self.listed.len())];
            if index != asker && !sample.contains(&index) {
                sample.push(index);
            }
        }
        sample
    }
}
