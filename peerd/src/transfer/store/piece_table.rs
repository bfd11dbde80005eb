//! The states of a document's pieces, shared between the writers, the checks and those who follow what changes.

use super::states::{Check, Claim, PieceStates, WriterId};
use crate::transfer::piece_set::PieceSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// The states of a document's pieces.
#[derive(Debug)]
pub(super) struct PieceTable {
    states: Arc<Mutex<PieceStates>>,
    /// Signalled when a write to the file ends, and when a check does.
    ended: Condvar,
    /// Counts changes of the verified and the unchecked set.
    changed: watch::Sender<u64>,
}

impl PieceTable {
    pub(super) fn new(states: PieceStates) -> Self {
        Self { states: Arc::new(Mutex::new(states)), ended: Condvar::new(), changed: watch::Sender::new(0) }
    }

    pub(super) fn states(&self) -> MutexGuard<'_, PieceStates> {
        lock(&self.states)
    }

    pub(super) fn claim(&self, index: usize, writer: WriterId) -> Claim {
        let mut states = self.states();
        let was_unchecked = states.unchecked().contains(index);
        let claim = states.claim(index, writer);
        drop(states);
        self.notify_if(was_unchecked && matches!(claim, Claim::Granted { .. }));
        claim
    }

    /// As [`PieceStates::take_over`]; waits while the other writer changes the file.
    pub(super) fn take_over(&self, index: usize, writer: WriterId) -> Claim {
        let mut states = self.states();
        loop {
            match states.take_over(index, writer) {
                Claim::Busy => states = self.ended.wait(states).unwrap_or_else(PoisonError::into_inner),
                claim => return claim,
            }
        }
    }

    pub(super) fn begin_write(&self, index: usize, writer: WriterId, zeros: bool) -> bool {
        self.states().begin_write(index, writer, zeros)
    }

    pub(super) fn end_write(&self, index: usize, writer: WriterId) {
        self.states().end_write(index, writer);
        self.ended.notify_all();
    }

    pub(super) fn verify(&self, index: usize, writer: WriterId) -> bool {
        let verified = self.states().verify(index, writer);
        self.notify_if(verified);
        verified
    }

    /// Returns whether the piece is to be checked now.
    pub(super) fn release(&self, index: usize, writer: WriterId) -> bool {
        let unchecked = self.states().release(index, writer);
        self.ended.notify_all();
        self.notify_if(unchecked);
        unchecked
    }

    pub(super) fn next_check(&self) -> Option<Check> {
        self.states().next_check()
    }

    pub(super) fn checked(&self, check: Check, matches: bool) {
        let counts = self.states().checked(check, matches);
        self.ended.notify_all();
        self.notify_if(counts);
    }

    pub(super) fn lose(&self, index: usize) {
        let lost = self.states().lose(index);
        self.notify_if(lost);
    }

    /// Waits until no piece is to be checked any more, those excepted that a writer has.
    pub(super) fn wait_checked(&self) {
        let mut states = self.states();
        while !states.unchecked().is_empty() {
            states = self.ended.wait(states).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(super) fn subscribe(&self) -> PieceChanges {
        let changed = self.changed.subscribe();
        let states = self.states();
        let (verified, unchecked) = (states.verified().clone(), states.unchecked().clone());
        drop(states);
        PieceChanges { states: Arc::clone(&self.states), changed, verified, unchecked }
    }

    fn notify_if(&self, changed: bool) {
        if changed {
            self.changed.send_modify(|count| *count += 1);
        }
    }
}

fn lock(states: &Mutex<PieceStates>) -> MutexGuard<'_, PieceStates> {
    states.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What changed since the last time. Indexes of pieces, ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PieceChange {
    /// Became verified.
    pub(crate) verified: Vec<usize>,
    /// Were verified, and are missing.
    pub(crate) lost: Vec<usize>,
    /// Were checked, and are missing, or a writer has them.
    pub(crate) missing: Vec<usize>,
    /// Are to be checked again, because a writer gave them up.
    pub(crate) pending: Vec<usize>,
}

/// Follows which pieces of a store become verified, or are lost. A slow reader misses nothing: each reading compares what it has seen with
/// what is.
#[derive(Debug)]
pub(crate) struct PieceChanges {
    states: Arc<Mutex<PieceStates>>,
    changed: watch::Receiver<u64>,
    verified: PieceSet,
    unchecked: PieceSet,
}

impl PieceChanges {
    /// The verified pieces that the reader knows of so far.
    pub(crate) fn verified(&self) -> &PieceSet {
        &self.verified
    }

    /// The pieces that are to be checked, as far as the reader knows.
    pub(crate) fn pending(&self) -> &PieceSet {
        &self.unchecked
    }

    /// Waits for a change. `None` once the store is gone and nothing is new. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<PieceChange> {
        loop {
            if let Some(change) = self.take() {
                return Some(change);
            }
            if self.changed.changed().await.is_err() {
                return self.take();
            }
        }
    }

    /// What changed since the last time; `None` if nothing did.
    pub(crate) fn take(&mut self) -> Option<PieceChange> {
        self.changed.mark_unchanged();
        let (verified, unchecked) = {
            let states = lock(&self.states);
            if *states.verified() == self.verified && *states.unchecked() == self.unchecked {
                return None;
            }
            (states.verified().clone(), states.unchecked().clone())
        };
        let mut change = PieceChange::default();
        // Most bytes of eight pieces each are equal.
        let pairs = [(&self.verified, &verified), (&self.unchecked, &unchecked)];
        let differs = |byte: &usize| pairs.iter().any(|(was, is)| was.as_bytes().get(*byte) != is.as_bytes().get(*byte));
        for piece in (0..verified.as_bytes().len()).filter(differs).flat_map(|byte| byte * 8..byte * 8 + 8) {
            let (was, is) = (self.verified.contains(piece), verified.contains(piece));
            let (was_pending, is_pending) = (self.unchecked.contains(piece), unchecked.contains(piece));
            if is && !was {
                change.verified.push(piece);
            } else if was && !is {
                change.lost.push(piece);
            } else if was_pending && !is_pending {
                change.missing.push(piece);
            } else if is_pending && !was_pending {
                change.pending.push(piece);
            }
        }
        (self.verified, self.unchecked) = (verified, unchecked);
        Some(change)
    }
}
