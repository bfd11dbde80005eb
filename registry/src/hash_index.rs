//! An index of slots by hash.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use hashbrown::HashTable;

/// Part of a hash, and a slot.
type IndexEntry = (u32, u32);

/// Slots by a part of the hash of what they hold. It grows without reading the slots, and whoever looks something up compares it with
/// what is in the slot.
#[derive(Default)]
pub(crate) struct HashIndex(HashTable<IndexEntry>);

/// hashbrown takes the bucket from the low bits and the tag from the high bits.
fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

impl HashIndex {
    /// Slots under `hash`: nearly always one or none.
    pub(crate) fn slots(&self, hash: u32) -> impl Iterator<Item = u32> {
        self.0.iter_hash(spread(hash)).filter(move |(found, _)| *found == hash).map(|(_, slot)| *slot)
    }

    /// Adds `slot` under `hash`.
    pub(crate) fn insert(&mut self, hash: u32, slot: u32) {
        self.0.insert_unique(spread(hash), (hash, slot), |(hash, _)| spread(*hash));
    }

    /// Removes `slot` from under `hash`. Says whether it was there.
    pub(crate) fn remove(&mut self, hash: u32, slot: u32) -> bool {
        let Ok(entry) = self.0.find_entry(spread(hash), |entry| *entry == (hash, slot)) else { return false };
        entry.remove();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_with_equal_hashes_are_kept_apart() {
        let mut index = HashIndex::default();
        for slot in 0..1_000 {
            index.insert(slot / 2, slot);
        }
        assert!(index.remove(7, 14) && !index.remove(7, 14) && !index.remove(8, 15));
        assert_eq!(index.slots(7).collect::<Vec<_>>(), [15]);
        assert_eq!(index.slots(8).count(), 2);
        assert_eq!(index.slots(1_000).count(), 0);
    }
}
