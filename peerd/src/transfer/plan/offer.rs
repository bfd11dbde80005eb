//! Which pieces a holder would like to be asked for: a seed spreads what nobody has yet evenly over those that fetch from it.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use super::wanted::Wanted;
use crate::transfer::piece_set::PieceSet;
use p2pdi::content::Pieces;
use rand::{SeedableRng as _, rngs::SmallRng};
use std::collections::{BTreeMap, BTreeSet};

/// A list lasts for this long at the member's rate, in seconds: lists are sent at most 20 times a second, and have to get there.
const LIST_SECONDS: f64 = 0.25;
/// Bounds of a list.
const LIST_MIN: usize = 4;
const LIST_MAX: usize = 64;

/// A member of the swarm that fetches from this peer. The caller numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u32);

#[derive(Debug)]
struct Member {
    has: PieceSet,
    /// Pieces that it requested and that are not sent yet.
    requested: BTreeSet<usize>,
    /// Pieces that it should ask for, in this order.
    list: Vec<usize>,
    bytes_per_second: f64,
    changed: bool,
}

/// The lists of all members of one swarm. They are disjoint.
#[derive(Debug)]
pub struct Offers {
    pieces: Pieces,
    rng: SmallRng,
    /// Pieces of this peer that are on no list, by their copies among the members; one that is on its way to a member is a copy.
    free: Wanted,
    own: PieceSet,
    owners: Vec<Option<MemberId>>,
    members: BTreeMap<MemberId, Member>,
    /// Pieces with more copies are on no list.
    copies_max: u32,
}

impl Offers {
    /// No members yet; a peer that has all pieces.
    pub fn new(pieces: Pieces, seed: u64) -> Self {
        let count = pieces.count();
        let mut rng = SmallRng::seed_from_u64(seed);
        let free = Wanted::all(count, &mut rng);
        Self { pieces, rng, free, own: PieceSet::full(count), owners: vec![None; count], members: BTreeMap::new(), copies_max: 0 }
    }

    /// The same for a peer that has only some pieces.
    pub fn of_part(pieces: Pieces, own: &PieceSet, seed: u64) -> Self {
        let mut new = Self::new(pieces, seed);
        for piece in own.missing() {
            new.own.remove(piece);
            new.free.remove(piece);
        }
        new
    }

    /// This peer verified another piece.
    pub fn verified(&mut self, piece: usize) {
        if self.own.insert(piece) {
            self.free.insert(piece, &mut self.rng);
        }
    }

    /// A member fetches from this peer, and has these pieces.
    pub fn joined(&mut self, member: MemberId, has: PieceSet) {
        self.left(member);
        if has.count() == self.pieces.count() {
            let (requested, list) = (BTreeSet::new(), Vec::new());
            self.members.insert(
                member,
                Member { has: PieceSet::empty(has.count()), requested, list, bytes_per_second: 0.0, changed: false },
            );
            has.iter().for_each(|piece| self.gained(member, piece));
        }
    }

    /// A member verified a piece.
    pub fn gained(&mut self, member: MemberId, piece: usize) {
        let Some(state) = self.members.get_mut(&member) else { return };
        if state.has.insert(piece) && !state.requested.remove(&piece) {
            self.add_copy(piece);
        }
    }

    /// A member requested pieces.
    pub fn requested(&mut self, member: MemberId, pieces: impl IntoIterator<Item = usize>) {
        for piece in pieces {
            let Some(state) = self.members.get_mut(&member) else { return };
            if piece < self.pieces.count() && !state.has.contains(piece) && state.requested.insert(piece) {
                self.add_copy(piece);
            }
        }
    }

    /// A request of a member ended. What was sent of it is a copy once the member says so; the rest is none any more.
    pub fn ended(&mut self, member: MemberId, unsent: impl IntoIterator<Item = usize>) {
        for piece in unsent {
            let Some(state) = self.members.get_mut(&member) else { return };
            if state.requested.remove(&piece) {
                self.free.remove_copy(piece, &mut self.rng);
            }
        }
    }

    /// A member does not fetch from this peer any more.
    pub fn left(&mut self, member: MemberId) {
        let Some(state) = self.members.remove(&member) else { return };
        state.has.iter().chain(state.requested).for_each(|piece| self.free.remove_copy(piece, &mut self.rng));
        state.list.into_iter().for_each(|piece| self.free_piece(piece));
    }

    /// How fast this peer sends to a member, as measured.
    pub fn rate(&mut self, member: MemberId, bytes_per_second: f64) {
        if let Some(state) = self.members.get_mut(&member) {
            state.bytes_per_second = bytes_per_second;
        }
    }

    /// Fills the lists; returns those that changed since the last call. Called at most 20 times a second.
    #[expect(clippy::cast_possible_truncation, reason = "a number of pieces, clamped")]
    pub fn lists(&mut self) -> Vec<(MemberId, Vec<usize>)> {
        let rarest = |free: &Wanted| free.rarest_first().next().filter(|piece| free.copies(*piece) <= self.copies_max);
        let mut open: Vec<_> = self.members.iter().map(|(id, member)| (member.list.len(), *id)).collect();
        open.sort_unstable();
        let mut open: Vec<_> = open.into_iter().map(|(_, id)| id).collect();
        while !open.is_empty() && rarest(&self.free).is_some() {
            let shortest = open.iter().map(|id| self.members[id].list.len()).min().unwrap_or(0);
            open.retain(|id| {
                let Some(member) = self.members.get_mut(id) else { return false };
                if member.list.len() > shortest {
                    return true;
                }
                let wants = (member.bytes_per_second * LIST_SECONDS / self.pieces.piece_size() as f64) as usize;
                if member.list.len() >= wants.clamp(LIST_MIN, LIST_MAX) {
                    return false;
                }
                let rare = self.free.rarest_first().take_while(|piece| self.free.copies(*piece) <= self.copies_max);
                let Some(piece) = rare.into_iter().find(|piece| !member.has.contains(*piece)) else { return false };
                self.free.remove(piece);
                self.owners[piece] = Some(*id);
                member.list.push(piece);
                member.changed = true;
                true
            });
        }
        let changed =
            |(id, member): (&MemberId, &mut Member)| std::mem::take(&mut member.changed).then(|| (*id, member.list.clone()));
        self.members.iter_mut().filter_map(changed).collect()
    }

    /// A piece has one more copy, or is on its way: it is on nobody's list any more.
    fn add_copy(&mut self, piece: usize) {
        self.free.add_copy(piece, &mut self.rng);
        if let Some(owner) = self.owners[piece] {
            if let Some(member) = self.members.get_mut(&owner) {
                member.list.retain(|other| *other != piece);
                member.changed = true;
            }
            self.free_piece(piece);
        }
    }

    fn free_piece(&mut self, piece: usize) {
        self.owners[piece] = None;
        if self.own.contains(piece) {
            self.free.insert(piece, &mut self.rng);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pieces(count: u64) -> Pieces {
        Pieces::of_size(count * p2pdi::content::PIECE_SIZE_MIN).unwrap()
    }

    fn is_disjoint(offers: &Offers) -> bool {
        let all: Vec<_> = offers.members.values().flat_map(|member| &member.list).collect();
        all.iter().collect::<BTreeSet<_>>().len() == all.len()
    }

    #[test]
    fn a_seed_hands_every_piece_to_one_member_and_evenly() {
        let mut offers = Offers::new(pieces(100), 1);
        (0..4).for_each(|member| offers.joined(MemberId(member), PieceSet::empty(100)));
        let mut given = vec![Vec::new(); 4];
        loop {
            let lists = offers.lists();
            if lists.iter().all(|(_, list)| list.is_empty()) {
                break;
            }
            for (member, list) in lists {
                if let Some(piece) = list.first() {
                    given[member.0 as usize].push(*piece);
                    offers.requested(member, [*piece]);
                    offers.gained(member, *piece);
                }
            }
        }
        assert!(given.iter().all(|given| (24..=26).contains(&given.len())), "{given:?}");
        let all: BTreeSet<_> = given.iter().flatten().collect();
        assert_eq!(all.len(), 100);
    }

    #[test]
    fn what_a_member_took_away_with_it_is_offered_again() {
        let mut offers = Offers::new(pieces(8), 1);
        (0..2).for_each(|member| offers.joined(MemberId(member), PieceSet::empty(8)));
        offers.lists();
        offers.requested(MemberId(0), 0..6);
        offers.requested(MemberId(1), 6..8);
        offers.lists();
        offers.left(MemberId(0));
        offers.ended(MemberId(1), [7]);
        let lists = offers.lists();
        assert_eq!(lists.iter().map(|(_, list)| list.len()).sum::<usize>(), 4);
        assert!(!lists[0].1.contains(&6));
    }

    #[test]
    fn a_fast_member_gets_a_longer_list() {
        let mut offers = Offers::new(pieces(1_000), 1);
        (0..2).for_each(|member| offers.joined(MemberId(member), PieceSet::empty(1_000)));
        offers.rate(MemberId(1), 1e7);
        let lists: Vec<_> = offers.lists().into_iter().map(|(_, list)| list.len()).collect();
        assert_eq!(lists, [4, 9]);
    }

    proptest! {
        #[test]
        fn lists_are_disjoint_and_name_what_nobody_has(steps in prop::collection::vec((0_u8..6, 0_u32..5, 0_usize..30), 0..200)) {
            let mut offers = Offers::new(pieces(30), 1);
            for (step, member, piece) in steps {
                let member = MemberId(member);
                match step {
                    0 => offers.joined(member, PieceSet::empty(30)),
                    1 => offers.left(member),
                    2 => offers.gained(member, piece),
                    3 => offers.requested(member, [piece]),
                    4 => offers.ended(member, [piece]),
                    _ => drop(offers.lists()),
                }
                prop_assert!(is_disjoint(&offers));
                let had = |piece: &usize| offers.members.values().any(|member| member.has.contains(*piece) || member.requested.contains(piece));
                prop_assert!(!offers.members.values().flat_map(|member| &member.list).any(had));
            }
        }
    }
}
