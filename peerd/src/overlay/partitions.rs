//! Finding islands: groups of peers that are well linked among themselves and to nobody else.
//!
//! Neither paper's protocol can leave an island that has filled its views with its own members. Here the root of
//! each island, and nobody else, asks now and then for a few peers from outside the overlay (registry, bootnodes), meets
//! one that is not its neighbour and compares roots. So a healthy network pays one meeting per interval,
//! however large it is, and each of many islands looks for the others by itself. Whoever lost a neighbour without
//! a goodbye meets it again now and then as well: it may be the only one with a way to another island.

use std::time::Duration;

use rand::{Rng, RngExt};

use super::{Contact, PeerId, Time, plumtree::Root};

/// Time between two probes of a root. A guess: half of the time in which islands are to be one again.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(10);
/// The same for a root that has been one for less than [`YOUNG`]: after a failure islands are likely. A guess.
pub const YOUNG_PROBE_INTERVAL: Duration = Duration::from_secs(2);
/// How long a root is young. A guess: the time in which a failed network is to be whole again.
pub const YOUNG: Duration = Duration::from_secs(30);
/// Peers to ask for. A guess: of these, one is met; the others fill the passive view.
pub const PROBE_SAMPLE: usize = 8;

/// What is said at a meeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Which root do you follow? The asker's, and its last beacon.
    Probe(Root, u64),
    /// The answer.
    Reply(Root, u64),
}

/// When to look for other islands, and whom to meet.
#[derive(Debug)]
pub struct Partitions {
    root_since: Option<Time>,
    next_probe: Time,
    waiting: bool,
    meeting: Option<PeerId>,
}

impl Partitions {
    /// Nothing asked yet.
    pub fn new(now: Time) -> Self {
        Self { root_since: None, next_probe: now, waiting: false, meeting: None }
    }

    /// Whether it is time to ask for peers.
    pub fn tick(&mut self, is_root: bool, now: Time, rng: &mut impl Rng) -> bool {
        if !is_root {
            self.root_since = None;
            self.waiting = false;
            return false;
        }
        let since = match self.root_since {
            Some(since) => since,
            None => {
                self.root_since = Some(now);
                // Spread, so that the roots of many islands do not all ask at once. By how much, here and below, is a guess.
                self.next_probe = now + YOUNG_PROBE_INTERVAL.mul_f64(rng.random_range(0.0..1.0));
                now
            }
        };
        if now < self.next_probe {
            return false;
        }
        let young = now < since + YOUNG;
        let interval = if young { YOUNG_PROBE_INTERVAL } else { PROBE_INTERVAL };
        self.next_probe = now + interval.mul_f64(rng.random_range(0.75..1.25));
        self.waiting = true;
        true
    }

    /// When it is.
    pub fn next_deadline(&self, is_root: bool, now: Time) -> Option<Time> {
        match (is_root, self.root_since) {
            (false, _) => None,
            (true, None) => Some(now),
            (true, Some(_)) => Some(self.next_probe),
        }
    }

    /// Whom of the peers found to meet, if they were asked for.
    pub fn found(&mut self, peers: &[Contact], rng: &mut impl Rng, strange: impl Fn(PeerId) -> bool) -> Option<Contact> {
        if !std::mem::take(&mut self.waiting) {
            return None;
        }
        let strange: Vec<&Contact> = peers.iter().filter(|peer| strange(peer.id())).collect();
        let chosen = match strange.len() {
            0 => return None,
            len => strange[rng.random_range(0..len)].clone(),
        };
        self.meeting = Some(chosen.id());
        Some(chosen)
    }

    /// A peer is met that was not asked for: one lost before.
    pub fn meet(&mut self, peer: PeerId) {
        self.meeting = Some(peer);
    }

    /// Whether an answer from `peer` was asked for.
    pub fn answered(&mut self, peer: PeerId) -> bool {
        self.meeting.take_if(|meeting| *meeting == peer).is_some()
    }
}
