//! How many documents may arrive at the same time: few large ones, and many small ones within their bytes, since each is received into memory.
//!
//! Pure: no I/O, no clock, no randomness of its own.

/// The limits.
#[derive(Debug, Clone, Copy)]
pub struct ArrivingMax {
    /// Large documents.
    pub large: usize,
    /// Small documents.
    pub small: usize,
    /// Bytes of the small ones; one always may arrive.
    pub small_bytes: u64,
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
    pub fn add(&mut self, is_small: bool, size: u64) {
        match is_small {
            true => (self.small, self.small_bytes) = (self.small + 1, self.small_bytes + size),
            false => self.large += 1,
        }
    }

    /// It has arrived, or its fetch ended.
    pub fn remove(&mut self, is_small: bool, size: u64) {
        match is_small {
            true => (self.small, self.small_bytes) = (self.small - 1, self.small_bytes - size),
            false => self.large -= 1,
        }
    }

    /// Whether one more of this size may begin.
    pub fn has_room(&self, is_small: bool, size: u64, most: &ArrivingMax) -> bool {
        match is_small {
            true => self.small < most.small && (self.small == 0 || self.small_bytes + size <= most.small_bytes),
            false => self.large < most.large,
        }
    }

    /// How many arrive.
    pub fn count(&self) -> usize {
        self.large + self.small
    }
}
