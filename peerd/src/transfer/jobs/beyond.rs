//! What a mirror of everybody knows of peers of which nothing is learned: the index of others has room for some of a large network only.
//!
//! Now and then some of them are asked. In a network of 1,000 peers, each is asked by one mirror about every 20 minutes.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use super::offers::Offer;
use crate::{documents::remote_index::RemoteIndex, holders::source::Source};
use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

/// Time between two rounds; a quarter more or less, so that mirrors that start together do not ask together.
const EVERY: Duration = Duration::from_secs(300);
/// Most peers asked in one round.
const ASKED_MAX: usize = 256;
/// Rounds whose answers are kept: what they found may have to wait for its turn.
const ROUNDS_KEPT: usize = 4;

/// What those that were asked share.
#[derive(Debug, Clone)]
pub(super) struct Beyond {
    next: Instant,
    /// The latest last.
    rounds: VecDeque<Arc<Vec<Offer>>>,
}

impl Beyond {
    /// Nothing yet. `random`: from 0 to 1. A peer that has just started learns of others first.
    pub(super) fn new(now: Instant, random: f64) -> Self {
        Self { next: now + EVERY.mul_f64(random.clamp(0.0, 1.0)), rounds: VecDeque::new() }
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        now >= self.next
    }

    /// What was found.
    pub(super) fn offers(&self) -> impl Iterator<Item = &Offer> {
        self.rounds.iter().flat_map(|round| round.iter())
    }

    /// Takes the answers of a round. `random`: from 0 to 1.
    pub(super) fn add(&mut self, offers: Vec<Offer>, now: Instant, random: f64) {
        self.next = now + EVERY.mul_f64(0.75 + random.clamp(0.0, 1.0) / 2.0);
        self.rounds.push_back(Arc::new(offers));
        while self.rounds.len() > ROUNDS_KEPT {
            self.rounds.pop_front();
        }
    }
}

/// Those of which nothing is learned, as many as are asked in one round. `peers`: in random order.
pub(super) fn unlearned(peers: Vec<Source>, remote: &RemoteIndex) -> Vec<Source> {
    let is_unlearned = |peer: &Source| peer.name.as_ref().is_none_or(|name| !remote.has(name));
    peers.into_iter().filter(is_unlearned).take(ASKED_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    #[test]
    fn some_of_the_peers_of_which_nothing_is_learned_are_asked_now_and_then() {
        let peer = |n: usize| Source::new(format!("p{n}").parse().ok(), format!("127.0.0.1:{}", 1_000 + n).parse().unwrap());
        assert_eq!(unlearned((0..1_000).map(peer).collect(), &RemoteIndex::new(SystemTime::now())).len(), ASKED_MAX);
        let now = Instant::now();
        let mut beyond = Beyond::new(now, 0.5);
        assert!(!beyond.is_due(now) && beyond.is_due(now + EVERY / 2));
        for _ in 0..=ROUNDS_KEPT {
            beyond.add(Vec::new(), now, 1.0);
        }
        assert!(!beyond.is_due(now + EVERY) && beyond.is_due(now + EVERY * 5 / 4));
        assert_eq!((beyond.rounds.len(), beyond.offers().count()), (ROUNDS_KEPT, 0));
    }
}
