//! Which messages came before.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use std::collections::{BTreeSet, VecDeque};

/// Ids remembered, 32 bytes each: a second try comes within seconds.
const SEEN_MAX: usize = 4_096;

/// The latest message ids.
#[derive(Debug, Default)]
pub(super) struct Seen {
    ids: BTreeSet<[u8; 16]>,
    order: VecDeque<[u8; 16]>,
}

impl Seen {
    /// Whether no message with this id came before. What is no id never came before.
    pub(super) fn first(&mut self, id: &[u8]) -> bool {
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
    fn an_id_counts_once_for_a_while() {
        let mut seen = Seen::default();
        let id = |n: u128| n.to_be_bytes();
        assert!(seen.first(&id(0)) && !seen.first(&id(0)));
        assert!(seen.first(&[]) && seen.first(&[]));
        for n in 1..=SEEN_MAX as u128 {
            assert!(seen.first(&id(n)));
        }
        assert!(seen.first(&id(0)));
        assert_eq!(seen.ids.len(), SEEN_MAX);
    }
}
