//! Which slot of the file holds which record.
//!
//! Rows of the file are numbered, not named: a burst of new peers then fills a few pages of the B-tree one after the other, where names
//! would touch a page for each peer (measured: a batch of 512 took 4 to 8 times as long with 300,000 records).

use crate::hash_index::HashIndex;
use std::hash::{BuildHasher as _, RandomState};

/// Slots by key, without the keys: a lookup compares the key in the row.
#[derive(Default)]
pub(super) struct Slots {
    /// Randomly seeded: callers choose names, and must not be able to choose ones that collide.
    hasher: RandomState,
    index: HashIndex,
    free: Vec<u32>,
    /// All slots from here on are free.
    end: u32,
}

impl Slots {
    #[expect(clippy::cast_possible_truncation, reason = "a part of the hash is enough")]
    fn hash(&self, key: &str) -> u32 {
        self.hasher.hash_one(key) as u32
    }

    /// Slots that may hold `key`: nearly always one or none.
    pub(super) fn candidates(&self, key: &str) -> impl Iterator<Item = u32> {
        self.index.slots(self.hash(key))
    }

    /// A free slot, for [`Slots::insert`].
    pub(super) fn next_free(&self) -> u32 {
        self.free.last().copied().unwrap_or(self.end)
    }

    /// Notes that `slot` holds `key`. The slot is free, or past the end when the file is read.
    pub(super) fn insert(&mut self, key: &str, slot: u32) {
        self.index.insert(self.hash(key), slot);
        self.occupy(slot);
    }

    /// Notes that `slot` is in use, by a row that is not looked up. It is free, or past the end when the file is read.
    pub(super) fn occupy(&mut self, slot: u32) {
        if self.free.last() == Some(&slot) {
            self.free.pop();
        } else if slot >= self.end {
            self.free.extend((self.end..slot).rev());
            self.end = slot + 1;
        } else if let Some(index) = self.free.iter().rposition(|free| *free == slot) {
            self.free.swap_remove(index);
        }
    }

    /// Notes that `slot` no longer holds `key`.
    pub(super) fn remove(&mut self, key: &str, slot: u32) {
        if self.index.remove(self.hash(key), slot) {
            self.free.push(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_and_removed_slots_are_used_again() {
        let mut slots = Slots::default();
        for (key, slot) in [("a", 0), ("b", 3)] {
            slots.insert(key, slot);
        }
        let mut taken = Vec::new();
        for key in ["c", "d", "e"] {
            let slot = slots.next_free();
            slots.insert(key, slot);
            taken.push(slot);
        }
        assert_eq!(taken, [1, 2, 4]);
        assert_eq!(slots.candidates("b").collect::<Vec<_>>(), [3]);
        slots.remove("b", 3);
        assert_eq!(slots.candidates("b").count(), 0);
        assert_eq!(slots.next_free(), 3);
    }
}
