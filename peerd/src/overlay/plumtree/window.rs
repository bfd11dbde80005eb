//! Detection of duplicates: a window of sequence numbers for each origin (as for anti-replay in IPsec, RFC 4303).

use std::collections::VecDeque;

use indexmap::IndexMap;

use super::{MAX_SEQUENCE_AHEAD, MAX_STORED, MAX_WINDOW_WORDS, MessageId};
use crate::overlay::PeerId;

/// Size of the window behind the highest sequence number seen. Older ones count as seen. As many as a neighbour stores; otherwise a
/// peer that missed them could not accept them after the latest.
pub const WINDOW: u64 = MAX_STORED as u64;

/// Sequence numbers in a word.
const BITS: u64 = u64::BITS as u64;

/// The sequence numbers seen of one origin. Without gaps it needs a single word; a gap stays until it
/// is filled or too old.
#[derive(Debug)]
struct Window {
    incarnation: u64,
    highest: u64,
    /// Index of a word; all numbers of earlier words count as seen.
    floor: u64,
    /// Index of the first of `words`; no number between `floor` and it has been seen.
    first: u64,
    /// Bit `i` of a word is set if its `i`th number has been seen.
    words: VecDeque<u64>,
    /// Used since it was last considered for eviction.
    referenced: bool,
}

impl Window {
    fn new(incarnation: u64, sequence: u64) -> Self {
        let word = sequence / BITS;
        let floor = sequence.saturating_sub(WINDOW - 1) / BITS;
        // Sequences start at 1. Number 0 counts as seen, or the first word would never be complete.
        let seen = u64::from(word == 0);
        Self { incarnation, highest: sequence, floor, first: word, words: VecDeque::from([seen]), referenced: false }
    }

    fn contains(&self, sequence: u64) -> bool {
        let word = sequence / BITS;
        if word < self.floor || self.highest.checked_sub(sequence).is_some_and(|behind| behind >= WINDOW) {
            return true;
        }
        let index = word.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        index.and_then(|index| self.words.get(index)).is_some_and(|seen| seen >> (sequence % BITS) & 1 == 1)
    }

    /// Marks a number that has not been seen.
    fn insert(&mut self, sequence: u64) {
        let word = sequence / BITS;
        self.highest = self.highest.max(sequence);
        self.floor = self.floor.max(self.highest.saturating_sub(WINDOW - 1) / BITS);
        while self.first < self.floor && self.words.pop_front().is_some() {
            self.first += 1;
        }
        if self.words.is_empty() {
            self.first = word;
        }
        // Neither loop adds more words than the window has, since the floor bounds both ends.
        while word < self.first {
            self.words.push_front(0);
            self.first -= 1;
        }
        while self.first + self.words.len() as u64 <= word {
            self.words.push_back(0);
        }
        let index = usize::try_from(word - self.first).unwrap_or(usize::MAX);
        if let Some(seen) = self.words.get_mut(index) {
            *seen |= 1 << (sequence % BITS);
        }
        while self.first == self.floor && self.words.front() == Some(&u64::MAX) {
            self.words.pop_front();
            self.first += 1;
            self.floor += 1;
        }
    }
}

/// The windows of the most recent origins.
///
/// Eviction follows the second-chance (clock) algorithm of page replacement, so that a broadcast of a known origin costs no
/// bookkeeping.
#[derive(Debug, Default)]
pub struct Windows {
    windows: IndexMap<PeerId, Window>,
    /// Each origin once, in the order of eviction.
    queue: VecDeque<PeerId>,
    /// Words in all windows.
    words: usize,
    capacity: usize,
}

impl Windows {
    /// At most `capacity` origins, with [`MAX_WINDOW_WORDS`] words in total.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, ..Self::default() }
    }

    /// Number of origins.
    pub fn len(&self) -> usize {
        self.windows.len()
    }

    /// Whether there is no origin.
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// Words in all windows.
    pub fn words(&self) -> usize {
        self.words
    }

    /// Whether there is a window for `origin`.
    pub fn contains_origin(&self, origin: PeerId) -> bool {
        self.windows.contains_key(&origin)
    }

    /// Whether the sequence of `id` is at most [`MAX_SEQUENCE_AHEAD`] above the highest one of its origin and incarnation.
    pub fn accepts(&self, id: &MessageId) -> bool {
        let known = self.windows.get(&id.origin).filter(|window| window.incarnation == id.incarnation);
        known.is_none_or(|window| id.sequence.saturating_sub(window.highest) <= MAX_SEQUENCE_AHEAD)
    }

    /// Whether `id` has been seen, or is too old to tell.
    pub fn contains(&self, id: &MessageId) -> bool {
        let Some(window) = self.windows.get(&id.origin) else {
            return false;
        };
        id.incarnation < window.incarnation || id.incarnation == window.incarnation && window.contains(id.sequence)
    }

    /// Marks `id` as seen; returns `false` if it was already.
    pub fn insert(&mut self, id: &MessageId) -> bool {
        let Some(window) = self.windows.get_mut(&id.origin) else {
            let mut window = Window::new(id.incarnation, id.sequence);
            window.insert(id.sequence);
            self.words += window.words.len();
            self.windows.insert(id.origin, window);
            self.queue.push_back(id.origin);
            self.make_room(id.origin);
            return true;
        };
        if id.incarnation < window.incarnation || id.incarnation == window.incarnation && window.contains(id.sequence) {
            return false;
        }
        let before = window.words.len();
        if window.incarnation < id.incarnation {
            *window = Window::new(id.incarnation, id.sequence);
        }
        window.insert(id.sequence);
        window.referenced = true;
        self.words = self.words + window.words.len() - before;
        if window.words.len() > before {
            self.make_room(id.origin);
        }
        true
    }

    /// Evicts origins until the limits are met, but not `latest`.
    fn make_room(&mut self, latest: PeerId) {
        while (self.windows.len() > self.capacity || self.words > MAX_WINDOW_WORDS) && self.windows.len() > 1 {
            let Some(origin) = self.queue.pop_front() else {
                return;
            };
            match self.windows.get_mut(&origin) {
                Some(window) if window.referenced || origin == latest => {
                    window.referenced = false;
                    self.queue.push_back(origin);
                }
                _ => {
                    let evicted = self.windows.swap_remove(&origin);
                    self.words -= evicted.map_or(0, |window| window.words.len());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(origin: u128, incarnation: u64, sequence: u64) -> MessageId {
        MessageId { origin: PeerId::from_u128(origin), incarnation, sequence }
    }

    #[test]
    fn a_sequence_is_new_once_even_out_of_order() {
        let mut windows = Windows::new(8);
        for sequence in [5, 3, 4, 70, 6, 69, 10_000, 9_999, 9_000] {
            assert!(windows.insert(&id(1, 1, sequence)), "{sequence}");
            assert!(!windows.insert(&id(1, 1, sequence)), "{sequence} again");
        }
        assert!(!windows.insert(&id(1, 1, 70)), "behind the window");
    }

    #[test]
    fn a_new_incarnation_starts_a_new_window_and_older_ones_count_as_seen() {
        let mut windows = Windows::new(8);
        assert!(windows.insert(&id(1, 1, 500)));
        assert!(windows.insert(&id(1, 2, 1)));
        assert!(!windows.insert(&id(1, 1, 501)));
        assert!(windows.insert(&id(1, 2, 2)));
    }

    #[test]
    fn the_least_recently_used_origin_is_evicted() {
        let mut windows = Windows::new(2);
        for (sequence, origin) in [1, 2, 1, 3].into_iter().enumerate() {
            windows.insert(&id(origin, 1, 1 + sequence as u64));
        }
        let known = [1, 2, 3].map(|origin| windows.contains_origin(PeerId::from_u128(origin)));
        assert_eq!((known, windows.queue.len()), ([true, false, true], 2));
    }

    #[test]
    fn a_thousand_missed_broadcasts_are_accepted_after_later_ones() {
        let mut windows = Windows::new(8);
        windows.insert(&id(1, 1, 1));
        for sequence in (1_002..1_010).chain(2..1_002) {
            assert!(windows.insert(&id(1, 1, sequence)), "{sequence}");
        }
        assert!((1..1_010).all(|sequence| windows.contains(&id(1, 1, sequence))));
    }

    #[test]
    fn a_sequence_without_gaps_needs_one_word() {
        let mut windows = Windows::new(8);
        for sequence in 1..100_000 {
            assert!(windows.insert(&id(1, 1, sequence)));
            assert!(windows.words() <= 1);
        }
        for sequence in (1..10_000).map(|part| part * WINDOW) {
            windows.insert(&id(2, 1, sequence));
        }
        assert!(windows.words() <= 2 + (WINDOW / BITS) as usize);
    }

    #[test]
    fn gaps_of_many_origins_stay_within_the_limit() {
        let mut windows = Windows::new(MAX_WINDOW_WORDS);
        for origin in 0..MAX_WINDOW_WORDS as u128 / 32 {
            windows.insert(&id(origin, 1, 1));
            windows.insert(&id(origin, 1, WINDOW - 1));
            assert!(windows.words() <= MAX_WINDOW_WORDS);
        }
        let held: usize = windows.windows.values().map(|window| window.words.len()).sum();
        assert_eq!((held, windows.queue.len()), (windows.words(), windows.len()));
    }

    proptest! {
        #[test]
        fn a_window_agrees_with_a_set(sequences in proptest::collection::vec(1u64..3 * WINDOW, 1..200)) {
            let mut windows = Windows::new(1);
            let mut seen = std::collections::BTreeSet::new();
            let mut highest = 0;
            for sequence in sequences {
                let old = !seen.is_empty() && sequence + WINDOW <= highest;
                let new = !old && seen.insert(sequence);
                prop_assert_eq!(windows.insert(&id(9, 0, sequence)), new);
                highest = highest.max(sequence);
            }
        }

        #[test]
        fn no_sequence_number_overflows(sequences in proptest::collection::vec(any::<u64>(), 1..50)) {
            let mut windows = Windows::new(1);
            for sequence in sequences {
                windows.insert(&id(9, sequence, sequence));
                windows.insert(&id(9, u64::MAX, sequence));
            }
        }
    }
}
