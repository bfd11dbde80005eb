//! The pieces that are to be requested, the rarest first.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use rand::{Rng, RngExt as _};

const ABSENT: u32 = u32::MAX;

/// The pieces that are to be requested, in the order of their copies. Every operation is O(copies).
#[derive(Debug)]
pub(super) struct Wanted {
    /// Copies of each piece among the holders that are not whole.
    copies: Vec<u32>,
    /// The wanted pieces, by their copies; in random order among those with as many.
    order: Vec<u32>,
    /// Where each piece is in `order`, or [`ABSENT`].
    places: Vec<u32>,
    /// Where the pieces with `i` copies begin in `order`.
    starts: Vec<usize>,
    /// No piece before this one is wanted.
    lowest: usize,
}

impl Wanted {
    /// All of `count` pieces, without a copy.
    pub(super) fn all<R: Rng>(count: usize, rng: &mut R) -> Self {
        let mut new = Self { copies: vec![0; count], order: Vec::new(), places: vec![ABSENT; count], starts: vec![0], lowest: 0 };
        for piece in 0..count {
            new.insert(piece, rng);
        }
        new
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    pub(super) fn contains(&self, piece: usize) -> bool {
        self.places.get(piece).is_some_and(|place| *place != ABSENT)
    }

    /// Copies of a piece among the holders that are not whole.
    pub(super) fn copies(&self, piece: usize) -> u32 {
        self.copies[piece]
    }

    /// The wanted pieces, the rarest first.
    pub(super) fn rarest_first(&self) -> impl Iterator<Item = usize> + '_ {
        self.order.iter().map(|piece| *piece as usize)
    }

    /// Any of the wanted pieces.
    pub(super) fn any<R: Rng>(&self, rng: &mut R) -> Option<usize> {
        (!self.order.is_empty()).then(|| self.order[rng.random_range(0..self.order.len())] as usize)
    }

    /// The wanted pieces in ascending order.
    pub(super) fn ascending(&self) -> impl Iterator<Item = usize> + '_ {
        (self.lowest..self.places.len()).filter(|piece| self.places[*piece] != ABSENT)
    }

    /// Wants a piece; returns whether that is new.
    pub(super) fn insert<R: Rng>(&mut self, piece: usize, rng: &mut R) -> bool {
        if self.places.get(piece).is_none_or(|place| *place != ABSENT) {
            return false;
        }
        let copies = self.copies[piece] as usize;
        while self.starts.len() <= copies {
            self.starts.push(self.order.len());
        }
        let mut hole = self.order.len();
        self.order.push(0);
        for bucket in (copies + 1..self.starts.len()).rev() {
            let first = self.starts[bucket];
            if first != hole {
                self.place(self.order[first], hole);
            }
            hole = first;
            self.starts[bucket] += 1;
        }
        self.place_piece(piece, hole);
        self.shuffle(copies, hole, rng);
        self.lowest = self.lowest.min(piece);
        true
    }

    /// Wants a piece no more; returns whether it was wanted.
    pub(super) fn remove(&mut self, piece: usize) -> bool {
        if !self.contains(piece) {
            return false;
        }
        let mut hole = self.places[piece] as usize;
        for bucket in self.copies[piece] as usize..self.starts.len() {
            let end = self.starts.get(bucket + 1).copied().unwrap_or(self.order.len());
            if end > hole + 1 {
                self.place(self.order[end - 1], hole);
                hole = end - 1;
            }
            if let Some(next) = self.starts.get_mut(bucket + 1) {
                *next -= 1;
            }
        }
        self.order.pop();
        self.places[piece] = ABSENT;
        while self.places.get(self.lowest) == Some(&ABSENT) {
            self.lowest += 1;
        }
        true
    }

    /// One more holder that is not whole has a piece.
    pub(super) fn add_copy<R: Rng>(&mut self, piece: usize, rng: &mut R) {
        let copies = self.copies[piece] as usize;
        self.copies[piece] += 1;
        if self.contains(piece) {
            if self.starts.len() <= copies + 1 {
                self.starts.push(self.order.len());
            }
            let last = self.starts[copies + 1] - 1;
            self.swap(self.places[piece] as usize, last);
            self.starts[copies + 1] = last;
            self.shuffle(copies + 1, last, rng);
        }
    }

    /// One holder less that is not whole has a piece.
    pub(super) fn remove_copy<R: Rng>(&mut self, piece: usize, rng: &mut R) {
        let copies = self.copies[piece] as usize;
        self.copies[piece] -= 1;
        if self.contains(piece) {
            let first = self.starts[copies];
            self.swap(self.places[piece] as usize, first);
            self.starts[copies] += 1;
            self.shuffle(copies - 1, first, rng);
        }
    }

    /// Swaps the piece at `place` with any of those with as many copies.
    fn shuffle<R: Rng>(&mut self, copies: usize, place: usize, rng: &mut R) {
        let end = self.starts.get(copies + 1).copied().unwrap_or(self.order.len());
        let other = rng.random_range(self.starts[copies]..end);
        self.swap(place, other);
    }

    fn swap(&mut self, a: usize, b: usize) {
        let (at_a, at_b) = (self.order[a], self.order[b]);
        self.place(at_a, b);
        self.place(at_b, a);
    }

    fn place(&mut self, piece: u32, place: usize) {
        self.place_piece(piece as usize, place);
    }

    #[expect(clippy::cast_possible_truncation, reason = "at most 8,192 pieces")]
    fn place_piece(&mut self, piece: usize, place: usize) {
        self.order[place] = piece as u32;
        self.places[piece] = place as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::{SeedableRng as _, rngs::SmallRng};

    proptest! {
        #[test]
        fn pieces_stay_in_the_order_of_their_copies(steps in prop::collection::vec((0_u8..4, 0_usize..12), 0..200)) {
            let mut rng = SmallRng::seed_from_u64(1);
            let mut wanted = Wanted::all(12, &mut rng);
            let (mut expected, mut copies) = (vec![true; 12], vec![0_u32; 12]);
            for (step, piece) in steps {
                match step {
                    0 => prop_assert_eq!(wanted.insert(piece, &mut rng), !std::mem::replace(&mut expected[piece], true)),
                    1 => prop_assert_eq!(wanted.remove(piece), std::mem::replace(&mut expected[piece], false)),
                    2 => {
                        wanted.add_copy(piece, &mut rng);
                        copies[piece] += 1;
                    }
                    _ if copies[piece] > 0 => {
                        wanted.remove_copy(piece, &mut rng);
                        copies[piece] -= 1;
                    }
                    _ => {}
                }
                let order: Vec<_> = wanted.rarest_first().collect();
                prop_assert!(order.is_sorted_by_key(|piece| copies[*piece]), "{order:?} {copies:?}");
                let ascending: Vec<_> = (0..12).filter(|piece| expected[*piece]).collect();
                prop_assert_eq!(wanted.ascending().collect::<Vec<_>>(), ascending.clone());
                prop_assert_eq!(order.len(), ascending.len());
                prop_assert!(order.iter().all(|piece| expected[*piece] && wanted.contains(*piece)));
            }
        }
    }
}
