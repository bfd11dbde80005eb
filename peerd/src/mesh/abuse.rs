//! Who is not trusted: peers that were put out for what they sent, and addresses that open too many links.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use crate::overlay::{PeerId, Time};
use p2pdi::{backoff::Policy, name::PeerName};
use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    time::Duration,
};

/// Links one address may be opening at once: a quarter of what all may (`GREETINGS_MAX`), and many peers of one host starting together.
pub(super) const GREETINGS_PER_ADDRESS: usize = 32;
/// Links one address may have open: half of what the overlay holds (`membership::MAX_LINKS`), so that others always find room.
pub(super) const LINKS_PER_ADDRESS: usize = 32;
/// How long a peer is left alone after its link was closed for what it sent; doubled each time up to [`SHUN_MAX`]. A guess: one
/// line in the log now and then, and a peer that was repaired is back in a minute.
const SHUN_FIRST: Duration = Duration::from_secs(30);
/// Longest such time.
const SHUN_MAX: Duration = Duration::from_secs(600);
/// Peers and addresses remembered, some 100 bytes each; past it the oldest is forgotten.
const REMEMBERED_MAX: usize = 1_024;

/// Peers put out, and what addresses did.
#[derive(Debug, Default)]
pub(super) struct Abuse {
    /// Until when, and for the how-manieth time.
    shunned: BTreeMap<PeerId, (Time, u32)>,
    shunned_order: VecDeque<PeerId>,
    /// Links being opened, by address.
    greeting: BTreeMap<IpAddr, usize>,
    /// Addresses that a line in the log was written for.
    named: VecDeque<IpAddr>,
    /// Names that one was written for, since two peers have them.
    doubled: VecDeque<PeerName>,
}

impl Abuse {
    /// Leaves `peer` alone from now on; returns for how long.
    pub(super) fn ban(&mut self, peer: PeerId, now: Time) -> Duration {
        let times = self.shunned.get(&peer).map_or(0, |(_, times)| *times);
        let pause = Policy { first: SHUN_FIRST, longest: SHUN_MAX }.pause(times);
        if self.shunned.insert(peer, (now + pause, times.saturating_add(1))).is_none() {
            self.shunned_order.push_back(peer);
        }
        if self.shunned_order.len() > REMEMBERED_MAX
            && let Some(oldest) = self.shunned_order.pop_front()
        {
            self.shunned.remove(&oldest);
        }
        pause
    }

    /// Whether `peer` is to be left alone.
    pub(super) fn is_banned(&self, peer: PeerId, now: Time) -> bool {
        self.shunned.get(&peer).is_some_and(|(until, _)| now < *until)
    }

    /// Somebody vouches for it.
    pub(super) fn forgive(&mut self, peer: PeerId) {
        if let Some(shunned) = self.shunned.get_mut(&peer) {
            shunned.0 = Time::ZERO;
        }
    }

    /// Whether one more link from this address may be opened; if so, [`Abuse::greeted`] must follow.
    pub(super) fn may_greet(&mut self, ip: IpAddr) -> bool {
        let greeting = self.greeting.entry(ip).or_insert(0);
        let may = *greeting < GREETINGS_PER_ADDRESS;
        if may {
            *greeting += 1;
        }
        may
    }

    /// A link from this address is open, or never will be.
    pub(super) fn greeted(&mut self, ip: IpAddr) {
        if let Some(greeting) = self.greeting.get_mut(&ip) {
            *greeting -= 1;
            if *greeting == 0 {
                self.greeting.remove(&ip);
            }
        }
    }

    /// Whether this address is to be named in the log: the first time.
    pub(super) fn log_once(&mut self, ip: IpAddr) -> bool {
        if self.named.contains(&ip) {
            return false;
        }
        if self.named.len() >= REMEMBERED_MAX {
            self.named.pop_front();
        }
        self.named.push_back(ip);
        true
    }

    /// Whether it is to be said in the log that two peers have this name: the first time.
    pub(super) fn is_news_of(&mut self, name: &PeerName) -> bool {
        if self.doubled.contains(name) {
            return false;
        }
        if self.doubled.len() >= REMEMBERED_MAX {
            self.doubled.pop_front();
        }
        self.doubled.push_back(name.clone());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_left_alone_longer_each_time_and_not_for_ever() {
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
        assert!(pauses.is_sorted() && pauses[0] == SHUN_FIRST && pauses[19] == SHUN_MAX);
        abuse.ban(peer, now);
        abuse.forgive(peer);
        assert!(!abuse.is_banned(peer, now));
    }

    #[test]
    fn nothing_grows_without_bound() {
        let mut abuse = Abuse::default();
        for number in 0..3 * REMEMBERED_MAX {
            abuse.ban(PeerId::from_u128(number as u128), Time::ZERO);
            abuse.log_once(IpAddr::V6(std::net::Ipv6Addr::from_bits(number as u128)));
        }
        assert_eq!((abuse.shunned.len(), abuse.shunned_order.len()), (REMEMBERED_MAX, REMEMBERED_MAX));
        assert_eq!(abuse.named.len(), REMEMBERED_MAX);
    }

    #[test]
    fn one_address_opens_so_many_links_and_others_are_not_its_concern() {
        let mut abuse = Abuse::default();
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        assert!((0..GREETINGS_PER_ADDRESS).all(|_| abuse.may_greet(one)));
        assert!(!abuse.may_greet(one) && abuse.may_greet(other));
        abuse.greeted(one);
        assert!(abuse.may_greet(one));
        (0..GREETINGS_PER_ADDRESS).for_each(|_| abuse.greeted(one));
        abuse.greeted(other);
        assert!(abuse.greeting.is_empty());
    }
}
