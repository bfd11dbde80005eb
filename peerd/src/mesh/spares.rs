//! Second links of peers that dialled twice at once.
//!
//! A peer that dials another twice, such as for a bootnode and for what the registry lists, keeps the link that is complete first on its side, and
//! closes the others. On the other side another one may be first: were each side to close all but its first link, none would be left. So whoever is
//! dialled holds what comes after the first, unread, until the dialler has closed all but one.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use crate::overlay::{PeerId, Time};
use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    time::Duration,
};

/// How long a link is held: its dialler decides as soon as its own handshakes are complete, which takes a round trip after this side's.
const HELD: Duration = Duration::from_secs(2);
/// Links held for each peer: one dial more than there are reasons to dial a peer (the overlay, a bootnode, a join, a name that is in doubt).
const HELD_MAX: usize = 5;

/// Links that came after the first of their peer, in the order in which they came.
pub(super) struct Spares<L>(BTreeMap<PeerId, VecDeque<Spare<L>>>);

struct Spare<L> {
    link: L,
    /// The address that it was opened from.
    caller: Option<IpAddr>,
    until: Time,
}

impl<L> Default for Spares<L> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<L> Spares<L> {
    /// Holds a link of `peer`, or closes it if as many are held for that peer as may be.
    pub(super) fn hold(&mut self, peer: PeerId, link: L, caller: Option<IpAddr>, now: Time) {
        let held = self.0.entry(peer).or_default();
        if held.len() < HELD_MAX {
            held.push_back(Spare { link, caller, until: now + HELD });
        }
    }

    /// The next link of a peer, and the address that it was opened from.
    pub(super) fn take(&mut self, peer: PeerId) -> Option<(L, Option<IpAddr>)> {
        let held = self.0.get_mut(&peer)?;
        let next = held.pop_front().map(|spare| (spare.link, spare.caller));
        if held.is_empty() {
            self.0.remove(&peer);
        }
        next
    }

    /// Closes those of a peer.
    pub(super) fn remove(&mut self, peer: PeerId) {
        self.0.remove(&peer);
    }

    /// Closes what was held long enough.
    pub(super) fn expire(&mut self, now: Time) {
        self.0.retain(|_, held| {
            held.retain(|spare| now < spare.until);
            !held.is_empty()
        });
    }

    /// When [`Spares::expire`] has something to close.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.0.values().flatten().map(|spare| spare.until).min()
    }

    /// Closes all.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(byte: u8) -> PeerId {
        PeerId::from_u128(byte.into())
    }

    #[test]
    fn the_links_of_a_peer_come_back_in_their_order_up_to_a_limit() {
        let mut spares = Spares::default();
        (0..=HELD_MAX).for_each(|link| spares.hold(peer(1), link, None, Time::ZERO));
        spares.hold(peer(2), 99, None, Time::ZERO);
        let taken: Vec<_> = std::iter::from_fn(|| spares.take(peer(1))).map(|(link, _)| link).collect();
        assert_eq!(taken, Vec::from_iter(0..HELD_MAX));
        spares.remove(peer(2));
        assert!(spares.0.is_empty());
    }

    #[test]
    fn a_link_is_held_for_a_while_only() {
        let mut spares = Spares::default();
        let second = Duration::from_secs(1);
        spares.hold(peer(1), "early", None, Time::ZERO);
        spares.hold(peer(1), "late", None, second);
        assert_eq!(spares.next_deadline(), Some(HELD));
        spares.expire(HELD);
        assert_eq!((spares.next_deadline(), spares.take(peer(1))), (Some(second + HELD), Some(("late", None))));
        assert_eq!(spares.next_deadline(), None);
    }
}
