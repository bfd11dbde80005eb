//! Detection of partitions: groups of peers that are linked among themselves and to no other peer.
//!
//! With the protocols of the papers, a partition cannot heal once the views of its peers hold only its own members. Here
//! the root of each partition, and no other peer, asks periodically for a few peers from outside the overlay (registry,
//! bootnodes), probes one that is not its neighbour and compares roots. So a healthy network costs one probe per interval,
//! however large it is, and each partition searches for the others on its own. A peer that lost a neighbour without a
//! goodbye also probes it from time to time: it may be the only link to another partition.

use std::time::Duration;

use rand::{Rng, RngExt};

use super::{Contact, PeerId, Time, plumtree::Root};

/// Time between two probes of a root. A guess: half of the time in which partitions have to merge.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(10);
/// The same for a root that has been one for less than [`YOUNG`]: partitions are likely after a failure. A guess.
pub const YOUNG_PROBE_INTERVAL: Duration = Duration::from_secs(2);
/// How long a root is young. A guess: the time in which a network has to recover from a failure.
pub const YOUNG: Duration = Duration::from_secs(30);
/// Peers to ask for. A guess: one of them is probed; the others fill the passive view.
pub const PROBE_SAMPLE: usize = 8;

/// Messages of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Asks for the receiver's root. Carries the sender's root and its last beacon's sequence number.
    Probe(Root, u64),
    /// The answer: the receiver's root and its last beacon's sequence number.
    Reply(Root, u64),
}

/// When to search for other partitions, and which peer to probe.
#[derive(Debug)]
pub struct Partitions {
    root_since: Option<Time>,
    next_probe: Time,
    /// Peers were asked for and have not been found yet.
    asked: bool,
    probed: Option<PeerId>,
}

impl Partitions {
    /// No probe yet.
    pub fn new(now: Time) -> Self {
        Self { root_since: None, next_probe: now, asked: false, probed: None }
    }

    /// Whether to ask for peers now.
    pub fn tick(&mut self, is_root: bool, now: Time, rng: &mut impl Rng) -> bool {
        if !is_root {
            self.root_since = None;
            self.asked = false;
            return false;
        }
        let since = match self.root_since {
            Some(since) => since,
            None => {
                self.root_since = Some(now);
                // Jitter, so that the roots of many partitions do not all ask at once. Its range, here and below, is a guess.
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
        self.asked = true;
        true
    }

    /// When [`Partitions::tick`] is next due.
    pub fn next_deadline(&self, is_root: bool, now: Time) -> Option<Time> {
        match (is_root, self.root_since) {
            (false, _) => None,
            (true, None) => Some(now),
            (true, Some(_)) => Some(self.next_probe),
        }
    }

    /// The peer to probe, one at random of `peers` that `is_candidate`; `None` if no peers were asked for.
    pub fn found(&mut self, peers: &[Contact], rng: &mut impl Rng, is_candidate: impl Fn(PeerId) -> bool) -> Option<Contact> {
        if !std::mem::take(&mut self.asked) {
            return None;
        }
        let candidates: Vec<&Contact> = peers.iter().filter(|peer| is_candidate(peer.id())).collect();
        let chosen = match candidates.len() {
            0 => return None,
            len => candidates[rng.random_range(0..len)].clone(),
        };
        self.probed = Some(chosen.id());
        Some(chosen)
    }

    /// A former neighbour is probed, whether or not peers were asked for.
    pub fn probe(&mut self, peer: PeerId) {
        self.probed = Some(peer);
    }

    /// Whether `peer` was probed and has not answered before.
    pub fn answered(&mut self, peer: PeerId) -> bool {
        self.probed.take_if(|probed| *probed == peer).is_some()
    }
}
