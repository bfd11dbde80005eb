//! Which broadcasts have been seen: a window of sequence numbers for each origin.

use std::collections::VecDeque;

use indexmap::IndexMap;

use super::{MAX_KEPT, MAX_SEQUENCE_AHEAD, MAX_WINDOW_WORDS, MessageId};
use crate::overlay::PeerId;

/// Sequence numbers told apart behind the highest seen. Older ones count as seen. As many as a neighbour keeps, or a peer that
/// missed them could not take them once it has heard the latest.
pub const WINDOW: u64 = MAX_KEPT as u64;

/// Numbers in a word.
const BITS: u64 = u64::BITS as u64;

/// What was seen of one origin. Most say one thing after the other and need a single word; a gap is kept until it
/// is filled or too old.
#[derive(Debug)]
struct Window {
    incarnation: u64,
    highest: u64,
    /// All numbers of the words before this one count as seen.
    floor: u64,
    /// Which word the first of `words` is; of those from `floor` to here, none has been seen.
    first: u64,
    /// Bit `i` of a word is set if its `i`th number has been seen.
    words: VecDeque<u64>,
    /// Heard of since its turn to be forgotten came last.
    heard: bool,
}

impl Window {
    fn new(incarnation: u64, sequence: u64) -> Self {
        let word = sequence / BITS;
        let floor = sequence.saturating_sub(WINDOW - 1) / BITS;
        // Broadcasts are counted from 1. Were 0 waited for, the first word would never be complete.
        let seen = u64::from(word == 0);
        Self { incarnation, highest: sequence, floor, first: word, words: VecDeque::from([seen]), heard: false }
    }

    fn contains(&self, sequence: u64) -> bool {
        let word = sequence / BITS;
        if word < self.floor || self.highest.checked_sub(sequence).is_some_and(|behind| behind >= WINDOW) {
            return true;
        }
        let place = word.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        place.and_then(|place| self.words.get(place)).is_some_and(|seen| seen >> (sequence % BITS) & 1 == 1)
    }

    /// Marks a number that was not seen.
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
        // Neither loop makes more words than the window has: the floor is below both ends.
        while word < self.first {
            self.words.push_front(0);
            self.first -= 1;
        }
        while self.first + self.words.len() as u64 <= word {
            self.words.push_back(0);
        }
        let place = usize::try_from(word - self.first).unwrap_or(usize::MAX);
        if let Some(seen) = self.words.get_mut(place) {
            *seen |= 1 << (sequence % BITS);
        }
        while self.first == self.floor && self.words.front() == Some(&u64::MAX) {
            self.words.pop_front();
            self.first += 1;
            self.floor += 1;
        }
    }
}

/// The windows of the origins heard of last.
///
/// Who is forgotten is found by giving everybody heard of since its last turn another one (the "second chance" of page
/// replacement), so that a broadcast of a known origin costs no bookkeeping.
#[derive(Debug, Default)]
pub struct Windows {
    windows: IndexMap<PeerId, Window>,
    /// Each origin once, the next to be looked at first.
    turns: VecDeque<PeerId>,
    /// Of all windows together.
    words: usize,
    capacity: usize,
}

impl Windows {
    /// Remembers at most `capacity` origins, in [`MAX_WINDOW_WORDS`].
    pub fn new(capacity: usize) -> Self {
        Self { capacity, ..Self::default() }
    }

    /// How many origins are remembered.
    pub fn len(&self) -> usize {
        self.windows.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// Words held for all of them.
    pub fn words(&self) -> usize {
        self.words
    }

    /// Whether anything is remembered of `origin`.
    pub fn knows(&self, origin: PeerId) -> bool {
        self.windows.contains_key(&origin)
    }

    /// Whether `id` is not further ahead of what is known of its origin than [`MAX_SEQUENCE_AHEAD`].
    pub fn believes(&self, id: &MessageId) -> bool {
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

    /// Marks `id` as seen; `false` if it was.
    pub fn insert(&mut self, id: &MessageId) -> bool {
        let Some(window) = self.windows.get_mut(&id.origin) else {
            let mut window = Window::new(id.incarnation, id.sequence);
            window.insert(id.sequence);
            self.words += window.words.len();
            self.windows.insert(id.origin, window);
            self.turns.push_back(id.origin);
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
        window.heard = true;
        self.words = self.words + window.words.len() - before;
        if window.words.len() > before {
            self.make_room(id.origin);
        }
        true
    }

    /// Forgets origins until the rest is within the limits, but not `latest`.
    fn make_room(&mut self, latest: PeerId) {
        while (self.windows.len() > self.capacity || self.words > MAX_WINDOW_WORDS) && self.windows.len() > 1 {
            let Some(origin) = self.turns.pop_front() else {
                return;
            };
            match self.windows.get_mut(&origin) {
                Some(window) if window.heard || origin == latest => {
                    window.heard = false;
                    self.turns.push_back(origin);
                }
                _ => {
                    let gone = self.windows.swap_remove(&origin);
                    self.words -= gone.map_or(0, |window| window.words.len());
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
    fn a_restarted_origin_counts_from_the_start_and_its_past_is_over() {
        let mut windows = Windows::new(8);
        assert!(windows.insert(&id(1, 1, 500)));
        assert!(windows.insert(&id(1, 2, 1)));
        assert!(!windows.insert(&id(1, 1, 501)));
        assert!(windows.insert(&id(1, 2, 2)));
    }

    #[test]
    fn the_origin_not_heard_of_for_longest_is_forgotten() {
        let mut windows = Windows::new(2);
        for (sequence, origin) in [1, 2, 1, 3].into_iter().enumerate() {
            windows.insert(&id(origin, 1, 1 + sequence as u64));
        }
        let known = [1, 2, 3].map(|origin| windows.knows(PeerId::from_u128(origin)));
        assert_eq!((known, windows.turns.len()), ([true, false, true], 2));
    }

    #[test]
    fn a_thousand_missed_can_be_taken_after_what_came_next() {
        let mut windows = Windows::new(8);
        windows.insert(&id(1, 1, 1));
        for sequence in (1_002..1_010).chain(2..1_002) {
            assert!(windows.insert(&id(1, 1, sequence)), "{sequence}");
        }
        assert!((1..1_010).all(|sequence| windows.contains(&id(1, 1, sequence))));
    }

    #[test]
    fn who_says_one_thing_after_the_other_needs_one_word() {
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
    fn gaps_of_many_origins_stay_in_bounds() {
        let mut windows = Windows::new(MAX_WINDOW_WORDS);
        for origin in 0..MAX_WINDOW_WORDS as u128 / 32 {
            windows.insert(&id(origin, 1, 1));
            windows.insert(&id(origin, 1, WINDOW - 1));
            assert!(windows.words() <= MAX_WINDOW_WORDS);
        }
        let held: usize = windows.windows.values().map(|window| window.words.len()).sum();
        assert_eq!((held, windows.turns.len()), (windows.words(), windows.len()));
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
