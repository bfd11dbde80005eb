//! Which broadcasts have been seen: a window of sequence numbers for each origin.

use std::collections::BTreeMap;

use super::MessageId;
use crate::overlay::PeerId;

/// Sequence numbers told apart behind the highest seen. Older ones count as seen. A guess: more than an
/// origin may have under way.
pub const WINDOW: u64 = 256;

const WORDS: usize = (WINDOW / 64) as usize;

#[derive(Clone, Debug)]
struct Window {
    incarnation: u64,
    highest: u64,
    /// Bit `i` is set if `highest - i` has been seen.
    seen: [u64; WORDS],
    touched: u64,
}

impl Window {
    fn contains(&self, sequence: u64) -> bool {
        match self.highest.checked_sub(sequence) {
            None => false,
            Some(behind) if behind >= WINDOW => true,
            Some(behind) => self.seen[(behind / 64) as usize] >> (behind % 64) & 1 == 1,
        }
    }

    fn insert(&mut self, sequence: u64) {
        if let Some(ahead) = sequence.checked_sub(self.highest) {
            self.shift(ahead);
            self.highest = sequence;
        }
        let behind = self.highest - sequence;
        if behind < WINDOW {
            self.seen[(behind / 64) as usize] |= 1 << (behind % 64);
        }
    }

    fn shift(&mut self, by: u64) {
        if by >= WINDOW {
            self.seen = [0; WORDS];
            return;
        }
        let (words, bits) = ((by / 64) as usize, by % 64);
        for index in (0..WORDS).rev() {
            let mut word = 0;
            if let Some(from) = index.checked_sub(words) {
                word = self.seen[from] << bits;
                if bits > 0 && from > 0 {
                    word |= self.seen[from - 1] >> (64 - bits);
                }
            }
            self.seen[index] = word;
        }
    }
}

/// The windows of the origins heard of last.
#[derive(Debug, Default)]
pub struct Windows {
    windows: BTreeMap<PeerId, Window>,
    /// By the time they were touched, oldest first.
    order: BTreeMap<u64, PeerId>,
    touches: u64,
    capacity: usize,
}

impl Windows {
    /// Remembers at most `capacity` origins.
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

    /// Whether `id` has been seen, or is too old to tell.
    pub fn contains(&self, id: &MessageId) -> bool {
        let Some(window) = self.windows.get(&id.origin) else {
            return false;
        };
        id.incarnation < window.incarnation || id.incarnation == window.incarnation && window.contains(id.sequence)
    }

    /// Marks `id` as seen; `false` if it was.
    pub fn insert(&mut self, id: &MessageId) -> bool {
        if self.contains(id) {
            return false;
        }
        self.touches += 1;
        let fresh = Window { incarnation: id.incarnation, highest: id.sequence, seen: [0; WORDS], touched: self.touches };
        let window = self.windows.entry(id.origin).or_insert(fresh.clone());
        self.order.remove(&window.touched);
        if window.incarnation < id.incarnation {
            *window = fresh;
        }
        window.insert(id.sequence);
        window.touched = self.touches;
        self.order.insert(self.touches, id.origin);
        if self.windows.len() > self.capacity
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.windows.remove(&oldest);
        }
        true
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
        for sequence in [5, 3, 4, 70, 6, 69, 1_000, 999] {
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
        for origin in [1, 2, 1, 3] {
            windows.insert(&id(origin, 1, 7 + origin as u64 + windows.touches));
        }
        assert_eq!(windows.windows.keys().copied().collect::<Vec<_>>(), [PeerId::from_u128(1), PeerId::from_u128(3)]);
        assert_eq!(windows.order.len(), 2);
    }

    proptest! {
        #[test]
        fn a_window_agrees_with_a_set(sequences in proptest::collection::vec(0u64..600, 1..200)) {
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
