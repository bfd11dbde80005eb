//! Which holders of a document answer a question that all peers hear, and when.
//!
//! Each holder decides for itself, so that about as many answer as the question asks for. It estimates how many others hold the document from
//! the peers whose documents it knows, and answers with that probability. A holder that knows of no other one always answers: it may be the only
//! one. The draw is a hash of the question and of the holder's id, so a question that arrives twice is decided in the same way.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use p2pdi::{content::ContentHash, id::PeerId};
use std::time::Duration;

/// Bytes of a question's id.
pub(super) const QUESTION_BYTES: usize = 16;
/// Answers are spread over this time, so that they do not arrive at once.
pub(super) const SPREAD: Duration = Duration::from_millis(300);
/// Most answers that a question may ask for: whatever it asks for, it cannot make many peers send to one.
pub(super) const ANSWERS_MAX: u32 = 8;

/// What a holder knows of the other holders.
#[derive(Debug, Clone, Copy)]
pub(super) struct Estimate {
    /// Peers of the network.
    pub(super) peers: usize,
    /// Those of them whose documents it knows.
    pub(super) known: usize,
    /// Those of these that hold the document.
    pub(super) holding: usize,
}

impl Estimate {
    /// How many peers hold the document, the one that estimates included.
    fn holders(self) -> u64 {
        let others = (self.peers as u64).saturating_mul(self.holding as u64) / (self.known as u64).max(1);
        others.max(self.holding as u64).saturating_add(1)
    }
}

/// After what time the holder `me` answers a question that asks for `answers`; `None`: it leaves that to others.
pub(super) fn answers_after(question: &[u8; QUESTION_BYTES], me: PeerId, answers: u32, estimate: Estimate) -> Option<Duration> {
    let drawn = ContentHash::of(&[&question[..], &me.as_bytes()[..]].concat());
    let drawn = drawn.as_bytes();
    let number = |at: usize| drawn.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
    let (lot, moment) = (number(0) % estimate.holders(), number(8));
    let spread = u64::try_from(SPREAD.as_millis()).unwrap_or(u64::MAX);
    (lot < u64::from(answers.clamp(1, ANSWERS_MAX))).then(|| Duration::from_millis(moment % spread))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answering(question: u8, holders: u64, estimate: Estimate) -> usize {
        let me = |n: u64| PeerId::from_bytes(u128::from(n).to_be_bytes());
        (0..holders).filter(|n| answers_after(&[question; QUESTION_BYTES], me(*n), 5, estimate).is_some()).count()
    }

    #[test]
    fn about_five_of_a_thousand_holders_answer() {
        // Half of the network holds it, and each knows 64 peers.
        let estimate = Estimate { peers: 2_000, known: 64, holding: 32 };
        let counts: Vec<_> = (0..100).map(|question| answering(question, 1_000, estimate)).collect();
        let sum: usize = counts.iter().sum();
        assert!((350..650).contains(&sum), "{sum} answers to 100 questions");
        assert!(counts.iter().all(|count| *count <= 20), "{counts:?}");
        assert!(counts.iter().filter(|count| **count == 0).count() <= 5, "{counts:?}");
    }

    #[test]
    fn the_only_holder_answers_whatever_the_size_of_the_network() {
        for (peers, known) in [(1, 0), (2, 1), (10_000, 64), (10_000, 0)] {
            assert_eq!(answering(7, 1, Estimate { peers, known, holding: 0 }), 1);
        }
    }

    proptest! {
        #[test]
        fn the_choice_is_the_same_each_time_and_in_time(question: [u8; 16], me: [u8; 16], answers: u32, peers: usize, known: usize, holding: usize) {
            let choose = || answers_after(&question, PeerId::from_bytes(me), answers, Estimate { peers, known, holding });
            prop_assert_eq!(choose(), choose());
            prop_assert!(choose().is_none_or(|after| after < SPREAD));
        }
    }
}
