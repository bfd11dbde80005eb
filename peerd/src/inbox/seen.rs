//! Recognises messages that arrive twice, by their ids.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use std::collections::{BTreeSet, VecDeque};

/// Ids remembered, 32 bytes each: a sender retries within seconds.
const SEEN_MAX: usize = 4_096;

/// The latest message ids.
#[derive(Debug, Default)]
pub(super) struct Seen {
    ids: BTreeSet<[u8; 16]>,
    order: VecDeque<[u8; 16]>,
}

impl Seen {
    /// Remembers an id; returns whether it is new. An id that is not 16 bytes long always is.
    pub(super) fn insert(&mut self, id: &[u8]) -> bool {
        let Ok(id) = <[u8; 16]>::try_from(id) else { return true };
        if !self.ids.insert(id) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > SEEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_new_until_it_is_remembered_and_after_it_is_forgotten() {
        let mut seen = Seen::default();
        let id = |n: u128| n.to_be_bytes();
        assert!(seen.insert(&id(0)) && !seen.insert(&id(0)));
        assert!(seen.insert(&[]) && seen.insert(&[]));
        for n in 1..=SEEN_MAX as u128 {
            assert!(seen.insert(&id(n)));
        }
        assert!(seen.insert(&id(0)));
        assert_eq!(seen.ids.len(), SEEN_MAX);
    }
}
