//! The shape of the broadcast tree: which neighbour leads to the root, and which go through this peer.
//!
//! Plumtree's tree is the one its first sender's first message made; every other sender's path through
//! it is longer than need be, and swapping links for one sender (the paper's optimization) makes it
//! worse for the next. So here one tree serves all senders, and is shaped for nobody but
//! its root, by the root's beacons: each peer's parent is the neighbour with the fewest hops
//! to the root, as in IEEE 802.1D, with the root's sequence numbers against stale news, as in DSDV.
//! A broadcast from anywhere then travels up to the root and down again, at most, over each tree link
//! once. The tree is a matter of speed only: what it loses, the adverts along all other links bring back.
//!
//! As each island has its own root, beacons also tell islands apart.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use rand::{Rng, RngExt};

use super::config::{Config, MAX_BEACON_SEQUENCE, MAX_DEPTH};
use crate::overlay::{PeerId, Time};

/// What decides between two roots: the one that started first, then the lower id. A newcomer so never
/// unseats a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Root {
    /// When it started, by its own clock.
    pub incarnation: u64,
    /// Who it is.
    pub id: PeerId,
}

/// One peer's word on its way to the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beacon {
    /// The root it follows.
    pub root: Root,
    /// The root's beacons, counted.
    pub sequence: u64,
    /// Links between the sender and the root.
    pub hops: u32,
    /// The receiver is the sender's parent.
    pub parent: bool,
}

/// Roots remembered as gone. A guess: more than die within one expiry.
const MAX_RETIRED: usize = 32;
/// How long they are. A guess: until all others have noticed as well; not for ever, since
/// what retired them may have been a liar's sequence number.
const RETIRED_FOR: Duration = Duration::from_secs(30);
/// Beacons of a root that may be missed at once; more are a liar's. A guess: half an hour.
const MAX_MISSED: u64 = 1_000;
/// Of those, a root skips at most so many at once if others say that it is behind: who missed as many more still believes it.
const MAX_CATCH_UP: u64 = MAX_MISSED / 2;
/// Beacons two peers of one island may be apart. A guess: a beacon takes less time to cross a network than passes until the next.
const MAX_LAG: u64 = 1;

#[derive(Debug, Default)]
struct Edge {
    heard: Option<Beacon>,
    told: Option<Beacon>,
}

/// The tree as one peer sees it.
#[derive(Debug)]
pub struct Tree {
    me: Root,
    config: Config,
    root: Root,
    sequence: u64,
    hops: u32,
    parent: Option<PeerId>,
    /// The sequence number of this peer's own last beacon, or what it goes on from.
    own_sequence: u64,
    /// That of the last one that was sent.
    own_sent: u64,
    heard_at: Time,
    expiry: Duration,
    next_beacon: Time,
    sides: BTreeMap<PeerId, Edge>,
    retired: VecDeque<(Root, u64, Time)>,
    out: Vec<(PeerId, Beacon)>,
}

impl Tree {
    /// A tree of one.
    pub fn new(me: Root, config: Config, now: Time) -> Self {
        Self {
            me,
            root: me,
            sequence: 0,
            hops: 0,
            parent: None,
            own_sequence: 0,
            own_sent: 0,
            heard_at: now,
            expiry: config.root_expiry,
            next_beacon: now,
            sides: BTreeMap::new(),
            retired: VecDeque::new(),
            out: Vec::new(),
            config,
        }
    }

    /// The root followed and the last beacon heard of it.
    pub fn root(&self) -> (Root, u64) {
        (self.root, self.sequence)
    }

    /// Whether this peer is the root of its island, as far as it knows.
    pub fn is_root(&self) -> bool {
        self.root == self.me
    }

    /// The neighbour that leads to the root.
    pub fn parent(&self) -> Option<PeerId> {
        self.parent
    }

    /// Links to the root.
    pub fn hops(&self) -> u32 {
        self.hops
    }

    /// Whether broadcasts pass along the link to `peer`.
    pub fn is_branch(&self, peer: PeerId) -> bool {
        self.parent == Some(peer) || self.is_child(peer)
    }

    fn is_child(&self, peer: PeerId) -> bool {
        let heard = self.sides.get(&peer).and_then(|side| side.heard);
        heard.is_some_and(|beacon| beacon.parent)
    }

    /// Whether word of `root` at `sequence` comes from another island than this peer's.
    pub fn is_foreign(&self, root: Root, sequence: u64) -> bool {
        root != self.root || sequence.abs_diff(self.sequence) > MAX_LAG
    }

    /// Beacons to be sent.
    pub fn drain(&mut self) -> impl Iterator<Item = (PeerId, Beacon)> + '_ {
        self.out.drain(..)
    }

    /// There is a new neighbour, or a new link to an old one.
    pub fn up(&mut self, peer: PeerId) {
        self.sides.insert(peer, Edge::default());
        if self.parent == Some(peer) {
            self.find_parent();
        }
        self.tell(peer);
    }

    /// A neighbour is gone.
    pub fn down(&mut self, peer: PeerId) {
        self.sides.remove(&peer);
        if self.sides.is_empty() {
            // An island of one; the first neighbour to come is foreign, and both tell all they have.
            self.stand_up();
        } else if self.parent == Some(peer) {
            self.find_parent();
        }
    }

    fn stand_up(&mut self) {
        self.root = self.me;
        self.sequence = self.own_sequence;
        self.parent = None;
        self.hops = 0;
    }

    /// Says again where this peer stands, since `peer` seems not to know.
    pub fn remind(&mut self, peer: PeerId) {
        if let Some(side) = self.sides.get_mut(&peer) {
            side.told = None;
        }
        self.tell(peer);
    }

    /// A neighbour's word. Returns whether it is the first of a neighbour from another island.
    pub fn on_beacon(&mut self, from: PeerId, beacon: Beacon, now: Time, rng: &mut impl Rng) -> bool {
        let Some(side) = self.sides.get_mut(&from) else {
            return false;
        };
        let first = side.heard.is_none();
        side.heard = Some(beacon);
        let foreign = first && self.is_foreign(beacon.root, beacon.sequence);
        if beacon.root == self.me {
            // Somebody is ahead of this peer's own count: catch up, so that the next one is news; but by no more
            // than others follow at once, or one lie would make all of this peer's words unbelievable.
            self.own_sequence = self.own_sequence.max(beacon.sequence.min(self.own_sent.saturating_add(MAX_CATCH_UP)));
        } else if self.is_retired(beacon.root, beacon.sequence) {
            self.tell(from);
        } else if beacon.root < self.root {
            if beacon.hops < MAX_DEPTH {
                self.follow(from, beacon, now, rng);
            }
        } else if beacon.root > self.root {
            self.tell(from);
        } else {
            self.on_same_root(from, beacon, now, rng);
        }
        foreign
    }

    fn on_same_root(&mut self, from: PeerId, beacon: Beacon, now: Time, rng: &mut impl Rng) {
        let ahead = beacon.sequence.checked_sub(self.sequence);
        if ahead.is_none_or(|ahead| ahead > MAX_MISSED) {
            return;
        }
        let news = beacon.sequence > self.sequence;
        if news {
            self.sequence = beacon.sequence;
            self.heard(now, rng);
        }
        let through = beacon.hops.saturating_add(1);
        let usable = !beacon.parent && through <= MAX_DEPTH;
        if self.parent == Some(from) {
            if usable {
                self.hops = through;
            } else {
                self.find_parent();
            }
        } else if usable && (through < self.hops || self.is_lost()) {
            let old = self.parent.replace(from);
            self.hops = through;
            if !news {
                self.tell(from);
                if let Some(old) = old {
                    self.tell(old);
                }
            }
        }
        if news {
            self.tell_all();
        }
    }

    /// Whether the parent is no longer one: gone, or two beacons behind.
    fn is_lost(&self) -> bool {
        let Some(parent) = self.parent else {
            return true;
        };
        let heard = self.sides.get(&parent).and_then(|side| side.heard);
        !heard.is_some_and(|b| b.root == self.root && b.sequence.saturating_add(1) >= self.sequence)
    }

    fn heard(&mut self, now: Time, rng: &mut impl Rng) {
        self.heard_at = now;
        // Not everyone is to stand up at once when the root dies. How far apart is a guess.
        let spread = rng.random_range(1.0..1.3);
        self.expiry = self.config.root_expiry.mul_f64(spread);
    }

    fn follow(&mut self, from: PeerId, beacon: Beacon, now: Time, rng: &mut impl Rng) {
        self.root = beacon.root;
        self.sequence = beacon.sequence;
        self.heard(now, rng);
        if beacon.parent {
            self.parent = None;
            self.hops = MAX_DEPTH;
        } else {
            self.parent = Some(from);
            self.hops = beacon.hops.saturating_add(1);
        }
        self.tell_all();
    }

    /// Falls back on a neighbour that is no further from the root, and so cannot hang on this peer.
    fn find_parent(&mut self) {
        let fits =
            |b: &Beacon| b.root == self.root && b.sequence.saturating_add(1) >= self.sequence && b.hops <= self.hops && !b.parent;
        let best = self
            .sides
            .iter()
            .filter(|(peer, _)| self.parent != Some(**peer))
            .filter_map(|(peer, side)| side.heard.filter(fits).map(|b| (b.hops, *peer)))
            .min();
        let old = std::mem::replace(&mut self.parent, best.map(|(_, peer)| peer));
        match best {
            Some((hops, peer)) => {
                self.hops = hops.saturating_add(1);
                self.tell(peer);
            }
            None => {
                // All neighbours hang on this peer, or are further off. They are told that it leads
                // nowhere, or they would go on hanging on it, and it be without a parent, for ever.
                self.hops = MAX_DEPTH;
                self.tell_all();
            }
        }
        if let Some(old) = old {
            self.tell(old);
        }
    }

    fn is_retired(&self, root: Root, sequence: u64) -> bool {
        sequence > MAX_BEACON_SEQUENCE || self.retired.iter().any(|(gone, last, _)| *gone == root && sequence <= *last)
    }

    /// Sends the root's next beacon, or notices that the root is gone.
    pub fn tick(&mut self, now: Time, rng: &mut impl Rng) {
        self.retired.retain(|(_, _, at)| now < *at + RETIRED_FOR);
        if self.is_root() {
            if now >= self.next_beacon {
                self.next_beacon = now + self.config.beacon_interval;
                self.own_sequence = self.own_sequence.saturating_add(1);
                self.own_sent = self.own_sequence;
                self.sequence = self.own_sequence;
                self.heard_at = now;
                self.tell_all();
            }
        } else if now >= self.heard_at + self.expiry {
            self.retire(now, rng);
        }
    }

    fn retire(&mut self, now: Time, rng: &mut impl Rng) {
        if self.retired.len() >= MAX_RETIRED {
            self.retired.pop_front();
        }
        self.retired.retain(|(root, _, at)| *root != self.root && now < *at + RETIRED_FOR);
        self.retired.push_back((self.root, self.sequence, now));
        let best = self
            .sides
            .iter()
            .filter_map(|(peer, side)| Some((side.heard?, *peer)))
            .filter(|(b, _)| b.root < self.me && b.hops < MAX_DEPTH && !b.parent)
            .filter(|(b, _)| !self.is_retired(b.root, b.sequence))
            .min_by_key(|(b, peer)| (b.root, b.hops, *peer));
        match best {
            Some((beacon, peer)) => self.follow(peer, beacon, now, rng),
            None => {
                self.own_sequence = self.own_sequence.saturating_add(1);
                self.own_sent = self.own_sequence;
                self.stand_up();
                self.next_beacon = now + self.config.beacon_interval;
                self.tell_all();
            }
        }
    }

    /// When [`Tree::tick`] has something to do.
    pub fn next_deadline(&self) -> Time {
        if self.is_root() { self.next_beacon } else { self.heard_at + self.expiry }
    }

    fn tell_all(&mut self) {
        let peers: Vec<PeerId> = self.sides.keys().copied().collect();
        for peer in peers {
            self.tell(peer);
        }
    }

    fn tell(&mut self, peer: PeerId) {
        let beacon = Beacon { root: self.root, sequence: self.sequence, hops: self.hops, parent: self.parent == Some(peer) };
        if let Some(side) = self.sides.get_mut(&peer)
            && side.told != Some(beacon)
        {
            side.told = Some(beacon);
            self.out.push((peer, beacon));
        }
    }
}
