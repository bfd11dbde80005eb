//! The latest signatures of the roots of the broadcast tree: a peer passes them on with its beacons.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use crate::overlay::{PeerId, plumtree::Root};
use p2pdi::v1::Signature;
use std::collections::BTreeMap;

/// Roots remembered, some 200 bytes each: more than partitions that meet at once. A guess.
const ROOTS_MAX: usize = 64;

/// One signature of each root: that of its latest beacon.
#[derive(Debug, Default)]
pub(super) struct RootSignatures {
    latest: BTreeMap<PeerId, Latest>,
}

#[derive(Debug)]
struct Latest {
    incarnation: u64,
    sequence: u64,
    signature: Signature,
}

impl RootSignatures {
    /// Keeps the signature of a beacon, unless a later one is known. One root too many takes the place of another, but not of `followed`.
    pub(super) fn learn(&mut self, root: Root, sequence: u64, signature: Signature, followed: PeerId) {
        let Root { id, incarnation } = root;
        if self.latest.get(&id).is_some_and(|known| (known.incarnation, known.sequence) >= (incarnation, sequence)) {
            return;
        }
        if self.latest.len() >= ROOTS_MAX && !self.latest.contains_key(&id) {
            let other = self.latest.keys().copied().find(|other| *other != followed);
            other.and_then(|other| self.latest.remove(&other));
        }
        self.latest.insert(id, Latest { incarnation, sequence, signature });
    }

    /// The signature of this beacon of `root`.
    pub(super) fn get(&self, root: Root, sequence: u64) -> Option<&Signature> {
        let latest = self.latest.get(&root.id)?;
        ((latest.incarnation, latest.sequence) == (root.incarnation, sequence)).then_some(&latest.signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(id: u128, incarnation: u64) -> Root {
        Root { id: PeerId::from_u128(id), incarnation }
    }

    fn signature(scheme: u32) -> Signature {
        Signature { scheme, ..Signature::default() }
    }

    #[test]
    fn the_latest_signature_of_a_root_is_kept() {
        let mut signatures = RootSignatures::default();
        let followed = PeerId::from_u128(1);
        for (incarnation, sequence) in [(1, 5), (1, 4), (2, 1), (1, 9)] {
            signatures.learn(root(1, incarnation), sequence, signature(sequence as u32), followed);
        }
        assert_eq!(signatures.get(root(1, 2), 1), Some(&signature(1)));
        assert_eq!([(1, 5), (2, 4)].map(|(incarnation, sequence)| signatures.get(root(1, incarnation), sequence)), [None, None]);
    }

    #[test]
    fn the_number_of_roots_is_bounded_and_the_root_that_is_followed_stays() {
        let mut signatures = RootSignatures::default();
        for id in 0..1_000 {
            signatures.learn(root(id, 1), 1, signature(1), PeerId::from_u128(0));
        }
        assert_eq!(signatures.latest.len(), ROOTS_MAX);
        assert!(signatures.get(root(0, 1), 1).is_some() && signatures.get(root(999, 1), 1).is_some());
    }
}
