//! Misbehaving peers: how often they misbehaved, and which of them are banned.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use crate::overlay::{PeerId, Time};
use p2pdi::backoff::Policy;
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// How long a peer is banned after its link was closed for what it sent, doubled each time. A guess: few lines in the log,
/// and a peer that was repaired is back within a minute.
const BAN: Policy = Policy { first: Duration::from_secs(30), longest: Duration::from_secs(600) };
/// Peers remembered, some 100 bytes each; one more pushes out the oldest.
const REMEMBERED_MAX: usize = 1_024;

/// Bans, and a count.
#[derive(Debug, Default)]
pub(super) struct Abuse {
    bans: BTreeMap<PeerId, Ban>,
    /// The oldest first.
    order: VecDeque<PeerId>,
    misbehaviour: u64,
}

#[derive(Debug)]
struct Ban {
    until: Time,
    count: u32,
}

impl Abuse {
    /// Counts a violation of the protocol.
    pub(super) fn record(&mut self) {
        self.misbehaviour += 1;
    }

    /// How often [`Abuse::record`] was called.
    pub(super) fn misbehaviour(&self) -> u64 {
        self.misbehaviour
    }

    /// Bans `peer` from now on; returns for how long.
    pub(super) fn ban(&mut self, peer: PeerId, now: Time) -> Duration {
        let earlier = self.bans.get(&peer).map_or(0, |ban| ban.count);
        let pause = BAN.pause(earlier);
        if self.bans.insert(peer, Ban { until: now + pause, count: earlier.saturating_add(1) }).is_none() {
            self.order.push_back(peer);
        }
        if self.order.len() > REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.bans.remove(&oldest);
        }
        pause
    }

    /// Whether `peer` is banned.
    pub(super) fn is_banned(&self, peer: PeerId, now: Time) -> bool {
        self.bans.get(&peer).is_some_and(|ban| now < ban.until)
    }

    /// Ends the ban of `peer`: the operator asked for a link to it.
    pub(super) fn lift_ban(&mut self, peer: PeerId) {
        if let Some(ban) = self.bans.get_mut(&peer) {
            ban.until = Time::ZERO;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ban_is_longer_than_the_one_before_up_to_a_bound() {
        let (mut abuse, peer) = (Abuse::default(), PeerId::from_u128(1));
        let mut now = Time::from_secs(5);
        assert!(!abuse.is_banned(peer, now));
        let mut pauses = Vec::new();
        for _ in 0..20 {
            let pause = abuse.ban(peer, now);
            assert!(abuse.is_banned(peer, now + pause / 2));
            now += pause;
            assert!(!abuse.is_banned(peer, now));
            pauses.push(pause);
        }
        assert!(pauses.is_sorted() && pauses[0] == BAN.first && pauses[19] == BAN.longest);
        abuse.ban(peer, now);
        abuse.lift_ban(peer);
        assert!(!abuse.is_banned(peer, now));
    }

    #[test]
    fn the_number_of_bans_is_bounded() {
        let mut abuse = Abuse::default();
        for number in 0..3 * REMEMBERED_MAX {
            abuse.ban(PeerId::from_u128(number as u128), Time::ZERO);
        }
        assert_eq!((abuse.bans.len(), abuse.order.len()), (REMEMBERED_MAX, REMEMBERED_MAX));
    }
}
