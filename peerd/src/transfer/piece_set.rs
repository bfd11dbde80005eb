//! A set of pieces of one document, and its form on the wire and on disk.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use p2pdi::{content::Pieces, field::InvalidField};

/// Which pieces of a document of a known number of pieces are in a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PieceSet {
    /// Bit `7 - i % 8` of byte `i / 8` belongs to piece `i` (BEP 3); unused bits are zero.
    bits: Vec<u8>,
    count: usize,
    len: usize,
}

impl PieceSet {
    /// No piece of a document of `count` pieces.
    pub fn empty(count: usize) -> Self {
        Self { bits: vec![0; count.div_ceil(8)], count, len: 0 }
    }

    /// All of `count` pieces.
    pub fn full(count: usize) -> Self {
        let mut set = Self::empty(count);
        for piece in 0..count {
            set.insert(piece);
        }
        set
    }

    /// Reads the field `pieces` of a message.
    ///
    /// # Errors
    /// When its length is not that of `count` pieces, or an unused bit is set.
    pub fn from_field(count: usize, bits: &[u8]) -> Result<Self, InvalidField> {
        if bits.is_empty() {
            return Ok(Self::empty(count));
        }
        let expected = count.div_ceil(8);
        if bits.len() != expected {
            let problem = format!("has {} bytes; {count} pieces have {expected}", bits.len());
            return Err(InvalidField::new("pieces", problem));
        }
        let unused = expected * 8 - count;
        if bits.last().is_some_and(|last| last.trailing_zeros() < u32::try_from(unused).unwrap_or(0)) {
            return Err(InvalidField::new("pieces", "has a bit for a piece that does not exist"));
        }
        let len = bits.iter().map(|byte| byte.count_ones() as usize).sum();
        Ok(Self { bits: bits.to_vec(), count, len })
    }

    /// The form on the wire and on disk.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bits
    }

    /// Pieces of the document.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Pieces in the set.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Bytes of the pieces in the set, of a document that is divided into `pieces`.
    pub fn bytes(&self, pieces: Pieces) -> u64 {
        // All but the last are of one size.
        let last = self.count.checked_sub(1).filter(|last| self.contains(*last)).map(|last| pieces.range(last));
        let full = self.len - usize::from(last.is_some());
        full as u64 * pieces.piece_size() + last.map_or(0, |range| range.end - range.start)
    }

    /// Whether no piece is in the set.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether all pieces are in the set.
    pub fn is_full(&self) -> bool {
        self.len == self.count
    }

    /// Whether `piece` is in the set; not if there is no such piece.
    pub fn contains(&self, piece: usize) -> bool {
        piece < self.count && self.bits[piece / 8] & mask(piece) != 0
    }

    /// Adds `piece`; returns whether it is new. A piece that does not exist is ignored.
    pub fn insert(&mut self, piece: usize) -> bool {
        let is_new = piece < self.count && !self.contains(piece);
        if is_new {
            self.bits[piece / 8] |= mask(piece);
            self.len += 1;
        }
        is_new
    }

    /// Removes `piece`; returns whether it was there.
    pub fn remove(&mut self, piece: usize) -> bool {
        let was_there = self.contains(piece);
        if was_there {
            self.bits[piece / 8] &= !mask(piece);
            self.len -= 1;
        }
        was_there
    }

    /// The pieces in the set, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        (0..self.count).filter(|piece| self.contains(*piece))
    }

    /// The pieces that are not in the set, in ascending order.
    pub fn missing(&self) -> impl Iterator<Item = usize> {
        (0..self.count).filter(|piece| !self.contains(*piece))
    }
}

fn mask(piece: usize) -> u8 {
    0x80 >> (piece % 8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2pdi::content::PIECE_SIZE_MIN;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_set_survives_its_form_on_the_wire(count in 1_usize..200, pieces in prop::collection::vec(0_usize..200, 0..50)) {
            let mut set = PieceSet::empty(count);
            for piece in &pieces {
                set.insert(*piece);
            }
            let expected: Vec<_> = (0..count).filter(|piece| pieces.contains(piece)).collect();
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), expected);
            prop_assert_eq!(PieceSet::from_field(count, set.as_bytes()).unwrap(), set.clone());
            prop_assert_eq!(set.len() + set.missing().count(), count);
            let divided = Pieces::of_size(count as u64 * PIECE_SIZE_MIN - 1).unwrap();
            let bytes: u64 = set.iter().map(|piece| divided.range(piece)).map(|range| range.end - range.start).sum();
            prop_assert_eq!(set.bytes(divided), bytes);
        }
    }

    #[test]
    fn fields_of_the_wrong_length_or_with_bits_beyond_the_end_are_refused() {
        assert!(PieceSet::from_field(9, &[0xff]).is_err());
        assert!(PieceSet::from_field(9, &[0xff, 0x40]).is_err());
        assert!(PieceSet::from_field(9, &[0xff, 0x80]).unwrap().is_full());
        assert!(PieceSet::from_field(9, &[]).unwrap().is_empty());
        assert!(PieceSet::full(16).is_full());
        assert_eq!(PieceSet::from_field(16, &[0xff, 0xff]).unwrap(), PieceSet::full(16));
    }

    #[test]
    fn removed_pieces_are_missing_again() {
        let mut set = PieceSet::full(3);
        assert!(set.remove(1) && !set.remove(1) && !set.insert(7));
        assert_eq!(set.missing().collect::<Vec<_>>(), [1]);
    }
}
