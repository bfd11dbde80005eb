//! The latest values of something, at most so many.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use std::collections::{BTreeMap, VecDeque};

/// Values by key; one more than the limit pushes out the oldest.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    values: BTreeMap<K, V>,
    /// The oldest first.
    order: VecDeque<K>,
    most: usize,
}

impl<K: Ord + Copy, V> Recent<K, V> {
    /// Keeps at most `most` values.
    pub(super) fn new(most: usize) -> Self {
        Self { values: BTreeMap::new(), order: VecDeque::new(), most }
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.values.get(key)
    }

    /// Adds a value, or replaces the one with this key, which keeps its age.
    pub(super) fn insert(&mut self, key: K, value: V) {
        if self.values.insert(key, value).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > self.most
            && let Some(oldest) = self.order.pop_front()
        {
            self.values.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_value_makes_room_for_a_new_one() {
        let mut recent = Recent::new(2);
        for (key, value) in [(1, 'a'), (2, 'b'), (1, 'c'), (3, 'd')] {
            recent.insert(key, value);
        }
        assert_eq!([1, 2, 3].map(|key| recent.get(&key).copied()), [None, Some('b'), Some('d')]);
        assert_eq!((recent.values.len(), recent.order.len()), (2, 2));
    }
}
