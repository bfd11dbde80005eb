//! What is known of each piece of a document under way: missing, not checked yet, claimed by a writer, or verified.
//!
//! A verified piece stays verified, and nobody writes to it, unless its bytes turn out to be lost.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use crate::transfer::piece_set::PieceSet;
use std::collections::VecDeque;

/// Which writer of a store it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WriterId(pub(super) u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Missing,
    /// An earlier fetch may have written it. The ticket differs each time, so that the result of a check that a writer overtook does not
    /// count.
    Unchecked {
        ticket: u64,
    },
    /// A writer receives it.
    Claimed {
        writer: WriterId,
        /// Whether the writer is in a call that changes the file.
        writing: bool,
        /// Whether it was not checked yet: then it is again, if the writer gives it up.
        unchecked: bool,
    },
    Verified,
}

/// An answer to a writer that wants a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// It has the piece now. `fresh`: nothing was written there, so the file has a hole, which reads as zeros.
    Granted { fresh: bool },
    /// Another writer has it.
    Taken,
    /// Another writer has it, and is changing the file at this moment.
    Busy,
    /// It is verified.
    Verified,
}

/// A piece whose bytes in the file are to be hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Check {
    pub(super) index: usize,
    pub(super) ticket: u64,
    /// The file has a hole there: the piece is all zeros.
    pub(super) hole: bool,
}

/// The state of each piece.
#[derive(Debug)]
pub(super) struct PieceStates {
    states: Vec<Piece>,
    verified: PieceSet,
    unchecked: PieceSet,
    /// Where nothing was written yet.
    fresh: PieceSet,
    /// Pieces to check; those that a writer took meanwhile are skipped.
    checks: VecDeque<usize>,
    last_ticket: u64,
}

impl PieceStates {
    /// `fresh`: the pieces where the file has a hole. `unchecked`: the pieces to check, the first one first.
    pub(super) fn new(verified: PieceSet, fresh: PieceSet, unchecked: &[usize]) -> Self {
        let mut states = vec![Piece::Missing; verified.count()];
        for piece in verified.iter() {
            states[piece] = Piece::Verified;
        }
        let mut new = Self {
            unchecked: PieceSet::empty(verified.count()),
            states,
            verified,
            fresh,
            checks: VecDeque::new(),
            last_ticket: 0,
        };
        for piece in unchecked {
            if new.states.get(*piece) == Some(&Piece::Missing) {
                new.set_unchecked(*piece);
            }
        }
        new
    }

    pub(super) fn verified(&self) -> &PieceSet {
        &self.verified
    }

    pub(super) fn unchecked(&self) -> &PieceSet {
        &self.unchecked
    }

    /// Whether a piece may still have to be written, and has nothing in the file that would have to be kept.
    pub(super) fn needs_room(&self, index: usize) -> bool {
        match self.states.get(index) {
            Some(Piece::Missing | Piece::Claimed { .. }) => true,
            Some(Piece::Unchecked { .. }) => self.fresh.contains(index),
            Some(Piece::Verified) | None => false,
        }
    }

    /// Whether a piece needs no room in the file: it is to be written anew, or it is all zeros and was never written.
    pub(super) fn is_hole(&self, index: usize) -> bool {
        self.needs_room(index) || self.verified.contains(index) && self.fresh.contains(index)
    }

    /// The first run of pieces that no writer has and that need no check.
    #[cfg(test)]
    pub(super) fn next_missing(&self) -> Option<std::ops::Range<usize>> {
        let first = self.states.iter().position(|piece| *piece == Piece::Missing)?;
        let run = self.states[first..].iter().take_while(|piece| **piece == Piece::Missing).count();
        Some(first..first + run)
    }

    /// Gives a piece to a writer unless another one has it.
    pub(super) fn claim(&mut self, index: usize, writer: WriterId) -> Claim {
        match self.states.get(index) {
            Some(Piece::Missing | Piece::Unchecked { .. }) => self.grant(index, writer),
            Some(Piece::Claimed { writing: true, .. }) => Claim::Busy,
            Some(Piece::Claimed { .. }) => Claim::Taken,
            Some(Piece::Verified) | None => Claim::Verified,
        }
    }

    /// Gives a piece to a writer that has all of its bytes, whoever has it, unless that one is changing the file at this moment.
    pub(super) fn take_over(&mut self, index: usize, writer: WriterId) -> Claim {
        match self.claim(index, writer) {
            Claim::Taken => self.grant(index, writer),
            answer => answer,
        }
    }

    fn grant(&mut self, index: usize, writer: WriterId) -> Claim {
        let was = self.states[index];
        let unchecked = matches!(was, Piece::Unchecked { .. } | Piece::Claimed { unchecked: true, .. });
        self.unchecked.remove(index);
        self.states[index] = Piece::Claimed { writer, writing: false, unchecked };
        Claim::Granted { fresh: self.fresh.contains(index) }
    }

    /// Whether a writer still has the piece. If so, it may change the file there until [`Self::end_write`]. `zeros`: it changes nothing, or
    /// makes a hole.
    pub(super) fn begin_write(&mut self, index: usize, writer: WriterId, zeros: bool) -> bool {
        match self.states.get_mut(index) {
            Some(Piece::Claimed { writer: claimer, writing, .. }) if *claimer == writer => {
                *writing = true;
                if !zeros {
                    self.fresh.remove(index);
                }
                true
            }
            _ => false,
        }
    }

    /// The writer's change of the file is over.
    pub(super) fn end_write(&mut self, index: usize, writer: WriterId) {
        if let Some(Piece::Claimed { writer: claimer, writing, .. }) = self.states.get_mut(index)
            && *claimer == writer
        {
            *writing = false;
        }
    }

    /// The bytes that a writer wrote match the piece's hash. Returns whether it still had the piece.
    pub(super) fn verify(&mut self, index: usize, writer: WriterId) -> bool {
        let has = matches!(self.states.get(index), Some(Piece::Claimed { writer: claimer, .. }) if *claimer == writer);
        if has {
            self.set_verified(index);
        }
        has
    }

    /// A writer gives up a piece. Returns whether the piece is to be checked now.
    pub(super) fn release(&mut self, index: usize, writer: WriterId) -> bool {
        if let Some(Piece::Claimed { writer: claimer, unchecked, .. }) = self.states.get(index).copied()
            && claimer == writer
        {
            if unchecked {
                self.set_unchecked(index);
                return true;
            }
            self.states[index] = Piece::Missing;
        }
        false
    }

    /// The next piece to check. Any number of checks may be under way.
    pub(super) fn next_check(&mut self) -> Option<Check> {
        while let Some(index) = self.checks.pop_front() {
            if let Piece::Unchecked { ticket } = self.states[index] {
                return Some(Check { index, ticket, hole: self.fresh.contains(index) });
            }
        }
        None
    }

    /// The result of a check. Returns whether it still counts.
    pub(super) fn checked(&mut self, check: Check, matches: bool) -> bool {
        let counts = self.states.get(check.index) == Some(&Piece::Unchecked { ticket: check.ticket });
        if counts && matches {
            self.set_verified(check.index);
        } else if counts {
            self.unchecked.remove(check.index);
            self.states[check.index] = Piece::Missing;
        }
        counts
    }

    /// The bytes of a verified piece are lost. Returns whether it was verified.
    pub(super) fn lose(&mut self, index: usize) -> bool {
        let lost = self.verified.remove(index);
        if lost {
            self.states[index] = Piece::Missing;
            self.fresh.remove(index);
        }
        lost
    }

    fn set_verified(&mut self, index: usize) {
        self.unchecked.remove(index);
        self.verified.insert(index);
        self.states[index] = Piece::Verified;
    }

    fn set_unchecked(&mut self, index: usize) {
        self.last_ticket += 1;
        self.states[index] = Piece::Unchecked { ticket: self.last_ticket };
        self.unchecked.insert(index);
        self.checks.push_back(index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: WriterId = WriterId(1);
    const SECOND: WriterId = WriterId(2);

    fn set(count: usize, pieces: &[usize]) -> PieceSet {
        let mut set = PieceSet::empty(count);
        for piece in pieces {
            set.insert(*piece);
        }
        set
    }

    #[test]
    fn a_claimed_piece_is_taken_over_only_between_two_writes_and_its_first_writer_may_write_no_more() {
        let mut states = PieceStates::new(set(2, &[1]), set(2, &[0]), &[]);
        assert_eq!(states.claim(0, FIRST), Claim::Granted { fresh: true });
        assert_eq!((states.claim(0, SECOND), states.claim(1, SECOND)), (Claim::Taken, Claim::Verified));
        assert!(states.begin_write(0, FIRST, false));
        assert_eq!(states.take_over(0, SECOND), Claim::Busy);
        states.end_write(0, FIRST);
        assert_eq!(states.take_over(0, SECOND), Claim::Granted { fresh: false });
        assert!(!states.begin_write(0, FIRST, false) && !states.verify(0, FIRST));
        states.release(0, FIRST);
        assert!(states.begin_write(0, SECOND, false) && states.verify(0, SECOND));
        assert!(states.verified().is_full() && states.next_missing().is_none());
        assert!(states.lose(0) && !states.lose(0));
        assert_eq!(states.next_missing(), Some(0..1));
    }

    #[test]
    fn the_result_of_a_check_that_a_writer_overtook_does_not_count() {
        let mut states = PieceStates::new(set(3, &[]), set(3, &[2]), &[2, 0]);
        assert_eq!((states.unchecked().clone(), states.next_missing()), (set(3, &[0, 2]), Some(1..2)));
        let (hole, data) = (states.next_check().unwrap(), states.next_check().unwrap());
        assert_eq!((hole.index, hole.hole, data.index, data.hole), (2, true, 0, false));
        assert_eq!(states.next_check(), None);
        assert_eq!(states.claim(0, FIRST), Claim::Granted { fresh: false });
        assert!(!states.checked(data, true), "a writer has it");
        states.release(0, FIRST);
        assert!(!states.checked(data, true), "it is to be checked anew");
        let again = states.next_check().unwrap();
        assert!(states.checked(again, false) && states.checked(hole, true));
        assert_eq!((states.verified(), states.next_missing()), (&set(3, &[2]), Some(0..2)));
        assert!(states.unchecked().is_empty());
    }
}
