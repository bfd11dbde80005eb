//! The broadcast tree: which neighbour is the parent, towards the root, and which are children.
//!
//! In the paper, the first message of the first sender forms the tree. The paths of other senders through
//! it are longer than necessary, and swapping links for one sender (the paper's optimization) makes them
//! longer for the next. Here one tree serves all senders, and the beacons of its root
//! form it: each peer's parent is the neighbour with the fewest hops
//! to the root, as in IEEE 802.1D; the root's sequence numbers mark stale beacons, as in DSDV.
//! A broadcast travels at most up to the root and down again, over each tree link
//! once. The tree affects speed only: broadcasts that it loses are recovered by the adverts along all other links.
//!
//! Each partition has its own root, so beacons also tell partitions apart.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use rand::{Rng, RngExt};

use super::config::{Config, MAX_BEACON_SEQUENCE, MAX_DEPTH};
use crate::overlay::{PeerId, Time};

/// A root. The smaller one wins: the one that started first, then the one with the lower id. So a newcomer never
/// replaces a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Root {
    /// Its incarnation: when it started, by its own clock.
    pub incarnation: u64,
    /// Its id.
    pub id: PeerId,
}

/// A peer's position in the tree, sent to its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beacon {
    /// The root it follows.
    pub root: Root,
    /// Counts the beacons of the root.
    pub sequence: u64,
    /// Links between the sender and the root.
    pub hops: u32,
    /// The receiver is the parent of the sender.
    pub parent: bool,
}

/// Roots remembered as gone. A guess: more than fail within one expiry.
const MAX_RETIRED: usize = 32;
/// How long they are remembered. A guess: until all other peers have noticed as well. Not permanently, since
/// a forged sequence number may have retired them.
const RETIRED_FOR: Duration = Duration::from_secs(30);
/// Beacons of a root that a peer may miss in a row; a larger gap is a forgery. A guess: half an hour.
const MAX_MISSED: u64 = 1_000;
/// Sequence numbers that a root skips at most when a neighbour reports a higher one than its own: peers that missed as many more
/// beacons still accept the next one.
const MAX_CATCH_UP: u64 = MAX_MISSED / 2;
/// Beacons by which two peers of one partition may differ. A guess: a beacon crosses the network before the next one is sent.
const MAX_LAG: u64 = 1;

#[derive(Debug, Default)]
struct Edge {
    received: Option<Beacon>,
    sent: Option<Beacon>,
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
    /// Sequence number of this peer's own last beacon, or the one to continue from.
    own_sequence: u64,
    /// Sequence number of the last beacon that it sent as the root.
    own_sent: u64,
    root_heard_at: Time,
    expiry: Duration,
    next_beacon: Time,
    edges: BTreeMap<PeerId, Edge>,
    retired: VecDeque<(Root, u64, Time)>,
    out: Vec<(PeerId, Beacon)>,
}

impl Tree {
    /// A tree of this peer alone.
    pub fn new(me: Root, config: Config, now: Time) -> Self {
        Self {
            me,
            root: me,
            sequence: 0,
            hops: 0,
            parent: None,
            own_sequence: 0,
            own_sent: 0,
            root_heard_at: now,
            expiry: config.root_expiry,
            next_beacon: now,
            edges: BTreeMap::new(),
            retired: VecDeque::new(),
            out: Vec::new(),
            config,
        }
    }

    /// The root, and the sequence number of its last beacon.
    pub fn root(&self) -> (Root, u64) {
        (self.root, self.sequence)
    }

    /// Whether this peer is the root of its partition, as far as it knows.
    pub fn is_root(&self) -> bool {
        self.root == self.me
    }

    /// The neighbour towards the root.
    pub fn parent(&self) -> Option<PeerId> {
        self.parent
    }

    /// Number of links to the root.
    pub fn hops(&self) -> u32 {
        self.hops
    }

    /// Whether the link to `peer` is a link of the tree.
    pub fn is_branch(&self, peer: PeerId) -> bool {
        self.parent == Some(peer) || self.is_child(peer)
    }

    fn is_child(&self, peer: PeerId) -> bool {
        let received = self.edges.get(&peer).and_then(|edge| edge.received);
        received.is_some_and(|beacon| beacon.parent)
    }

    /// Whether a peer with this `root` and `sequence` is in another partition.
    pub fn is_other_partition(&self, root: Root, sequence: u64) -> bool {
        root != self.root || sequence.abs_diff(self.sequence) > MAX_LAG
    }

    /// Takes the beacons to send.
    pub fn drain(&mut self) -> impl Iterator<Item = (PeerId, Beacon)> + '_ {
        self.out.drain(..)
    }

    /// A new neighbour, or a new link to an existing one.
    pub fn up(&mut self, peer: PeerId) {
        self.edges.insert(peer, Edge::default());
        if self.parent == Some(peer) {
            self.find_parent();
        }
        self.send_beacon(peer);
    }

    /// A peer is no longer a neighbour.
    pub fn down(&mut self, peer: PeerId) {
        self.edges.remove(&peer);
        if self.edges.is_empty() {
            // A partition of one peer: the next neighbour is in another partition, and both advertise all that they store.
            self.become_root();
        } else if self.parent == Some(peer) {
            self.find_parent();
        }
    }

    fn become_root(&mut self) {
        self.root = self.me;
        self.sequence = self.own_sequence;
        self.parent = None;
        self.hops = 0;
    }

    /// Sends the beacon to `peer` again, which seems to have missed it.
    pub fn resend(&mut self, peer: PeerId) {
        if let Some(edge) = self.edges.get_mut(&peer) {
            edge.sent = None;
        }
        self.send_beacon(peer);
    }

    /// A beacon arrived. Returns whether it is the first one of a neighbour in another partition.
    pub fn on_beacon(&mut self, from: PeerId, beacon: Beacon, now: Time, rng: &mut impl Rng) -> bool {
        let Some(edge) = self.edges.get_mut(&from) else {
            return false;
        };
        let first = edge.received.is_none();
        edge.received = Some(beacon);
        let other_partition = first && self.is_other_partition(beacon.root, beacon.sequence);
        if beacon.root == self.me {
            // A neighbour has a higher sequence number than this root: catch up, so that the next beacon is new to all; but by at
            // most as many as peers accept, or one forged number would make them reject all of this root's beacons.
            self.own_sequence = self.own_sequence.max(beacon.sequence.min(self.own_sent.saturating_add(MAX_CATCH_UP)));
        } else if self.is_retired(beacon.root, beacon.sequence) {
            self.send_beacon(from);
        } else if beacon.root < self.root {
            if beacon.hops < MAX_DEPTH {
                self.follow(from, beacon, now, rng);
            }
        } else if beacon.root > self.root {
            self.send_beacon(from);
        } else {
            self.on_same_root(from, beacon, now, rng);
        }
        other_partition
    }

    fn on_same_root(&mut self, from: PeerId, beacon: Beacon, now: Time, rng: &mut impl Rng) {
        let ahead = beacon.sequence.checked_sub(self.sequence);
        if ahead.is_none_or(|ahead| ahead > MAX_MISSED) {
            return;
        }
        let is_new = beacon.sequence > self.sequence;
        if is_new {
            self.sequence = beacon.sequence;
            self.on_root_heard(now, rng);
        }
        let hops = beacon.hops.saturating_add(1);
        let usable = !beacon.parent && hops <= MAX_DEPTH;
        if self.parent == Some(from) {
            if usable {
                self.hops = hops;
            } else {
                self.find_parent();
            }
        } else if usable && (hops < self.hops || self.parent_is_stale()) {
            let old = self.parent.replace(from);
            self.hops = hops;
            if !is_new {
                self.send_beacon(from);
                if let Some(old) = old {
                    self.send_beacon(old);
                }
            }
        }
        if is_new {
            self.send_beacons();
        }
    }

    /// Whether there is no parent, or it is two beacons behind.
    fn parent_is_stale(&self) -> bool {
        let Some(parent) = self.parent else {
            return true;
        };
        let received = self.edges.get(&parent).and_then(|edge| edge.received);
        !received.is_some_and(|b| b.root == self.root && b.sequence.saturating_add(1) >= self.sequence)
    }

    fn on_root_heard(&mut self, now: Time, rng: &mut impl Rng) {
        self.root_heard_at = now;
        // Jitter, so that not all peers become a root at once when theirs fails. Its range is a guess.
        let jitter = rng.random_range(1.0..1.3);
        self.expiry = self.config.root_expiry.mul_f64(jitter);
    }

    fn follow(&mut self, from: PeerId, beacon: Beacon, now: Time, rng: &mut impl Rng) {
        self.root = beacon.root;
        self.sequence = beacon.sequence;
        self.on_root_heard(now, rng);
        if beacon.parent {
            self.parent = None;
            self.hops = MAX_DEPTH;
        } else {
            self.parent = Some(from);
            self.hops = beacon.hops.saturating_add(1);
        }
        self.send_beacons();
    }

    /// Chooses a neighbour that is not further from the root, and so cannot be a descendant of this peer.
    fn find_parent(&mut self) {
        let is_candidate =
            |b: &Beacon| b.root == self.root && b.sequence.saturating_add(1) >= self.sequence && b.hops <= self.hops && !b.parent;
        let best = self
            .edges
            .iter()
            .filter(|(peer, _)| self.parent != Some(**peer))
            .filter_map(|(peer, edge)| edge.received.filter(is_candidate).map(|b| (b.hops, *peer)))
            .min();
        let old = std::mem::replace(&mut self.parent, best.map(|(_, peer)| peer));
        match best {
            Some((hops, peer)) => {
                self.hops = hops.saturating_add(1);
                self.send_beacon(peer);
            }
            None => {
                // All neighbours are children of this peer or further from the root. Tell them that it has no path to the
                // root; otherwise they would keep it as their parent, and it would stay without one.
                self.hops = MAX_DEPTH;
                self.send_beacons();
            }
        }
        if let Some(old) = old {
            self.send_beacon(old);
        }
    }

    fn is_retired(&self, root: Root, sequence: u64) -> bool {
        sequence > MAX_BEACON_SEQUENCE || self.retired.iter().any(|(gone, last, _)| *gone == root && sequence <= *last)
    }

    /// Sends the next beacon if this peer is the root, or detects that the root is gone.
    pub fn tick(&mut self, now: Time, rng: &mut impl Rng) {
        self.retired.retain(|(_, _, at)| now < *at + RETIRED_FOR);
        if self.is_root() {
            if now >= self.next_beacon {
                self.next_beacon = now + self.config.beacon_interval;
                self.own_sequence = self.own_sequence.saturating_add(1);
                self.own_sent = self.own_sequence;
                self.sequence = self.own_sequence;
                self.root_heard_at = now;
                self.send_beacons();
            }
        } else if now >= self.root_heard_at + self.expiry {
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
            .edges
            .iter()
            .filter_map(|(peer, edge)| Some((edge.received?, *peer)))
            .filter(|(b, _)| b.root < self.me && b.hops < MAX_DEPTH && !b.parent)
            .filter(|(b, _)| !self.is_retired(b.root, b.sequence))
            .min_by_key(|(b, peer)| (b.root, b.hops, *peer));
        match best {
            Some((beacon, peer)) => self.follow(peer, beacon, now, rng),
            None => {
                self.own_sequence = self.own_sequence.saturating_add(1);
                self.own_sent = self.own_sequence;
                self.become_root();
                self.next_beacon = now + self.config.beacon_interval;
                self.send_beacons();
            }
        }
    }

    /// When [`Tree::tick`] is next due.
    pub fn next_deadline(&self) -> Time {
        if self.is_root() { self.next_beacon } else { self.root_heard_at + self.expiry }
    }

    fn send_beacons(&mut self) {
        let peers: Vec<PeerId> = self.edges.keys().copied().collect();
        for peer in peers {
            self.send_beacon(peer);
        }
    }

    fn send_beacon(&mut self, peer: PeerId) {
        let beacon = Beacon { root: self.root, sequence: self.sequence, hops: self.hops, parent: self.parent == Some(peer) };
        if let Some(edge) = self.edges.get_mut(&peer)
            && edge.sent != Some(beacon)
        {
            edge.sent = Some(beacon);
            self.out.push((peer, beacon));
        }
    }
}
