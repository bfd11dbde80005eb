//! How many documents may arrive at the same time: few large ones, and of smaller ones as many as their bytes allow: what matters for them are
//! round trips, which only many at once hide.
//!
//! Pure: no I/O, no clock, no randomness of its own.

/// Documents up to this size are limited by their bytes, larger ones by their number: one of more fills a path by itself, 0.8 Gbit/s at a
/// round trip of 80 ms.
const SMALL_BYTES: u64 = 8 * 1024 * 1024;
/// Most bytes of the smaller ones that arrive: 1.3 Gbit/s at a round trip of 100 ms. Those of one piece are received into memory, of the others
/// it is what the connections hold at most; with what the connections read ahead it is in memory twice.
const SMALL_BYTES_AT_ONCE: u64 = 16 * 1024 * 1024;
/// Most of them, however small: enough to hide a round trip of 100 ms each, and fewer than a holder serves to one address.
pub const SMALL_AT_ONCE: usize = 128;

/// Whether a document of `size` bytes is a smaller one. Of unknown size (0), it may be large.
pub fn is_small(size: u64) -> bool {
    (1..=SMALL_BYTES).contains(&size)
}

/// The limits.
#[derive(Debug, Clone, Copy)]
pub struct ArrivingMax {
    /// Large documents.
    pub large: usize,
    /// Smaller ones, as long as their bytes are within a limit.
    pub small: usize,
}

/// What arrives at the moment. Whoever counts a document in counts it out with the same size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Arriving {
    large: usize,
    small: usize,
    small_bytes: u64,
}

impl Arriving {
    /// A document of `size` bytes begins to arrive.
    pub fn add(&mut self, size: u64) {
        match is_small(size) {
            true => (self.small, self.small_bytes) = (self.small + 1, self.small_bytes + size),
            false => self.large += 1,
        }
    }

    /// It has arrived, or its fetch ended.
    pub fn remove(&mut self, size: u64) {
        match is_small(size) {
            true => (self.small, self.small_bytes) = (self.small - 1, self.small_bytes - size),
            false => self.large -= 1,
        }
    }

    /// Whether one more of this size may begin.
    pub fn has_room(&self, size: u64, most: &ArrivingMax) -> bool {
        match is_small(size) {
            true => self.small < most.small && self.small_bytes + size <= SMALL_BYTES_AT_ONCE,
            false => self.large < most.large,
        }
    }

    /// How many arrive.
    pub fn count(&self) -> usize {
        self.large + self.small
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many documents of a size arrive at once.
    fn at_once(size: u64) -> usize {
        let (mut arriving, most) = (Arriving::default(), ArrivingMax { large: 4, small: SMALL_AT_ONCE });
        while arriving.has_room(size, &most) {
            arriving.add(size);
        }
        let count = arriving.count();
        (0..count).for_each(|_| arriving.remove(size));
        assert_eq!(arriving, Arriving::default());
        count
    }

    #[test]
    fn as_many_arrive_as_their_bytes_allow_and_few_large_ones() {
        let sizes = [0, 1, 1_000, 256 << 10, 1536 << 10, SMALL_BYTES, SMALL_BYTES + 1, 1 << 40];
        assert_eq!(sizes.map(at_once), [4, 128, 128, 64, 10, 2, 4, 4]);
    }
}
