//! Neighbours that were lost without a goodbye.
//!
//! A failure of the network looks like their death, and they may be all that is known of its other side. So they are met again now and then,
//! ever more seldom, by every peer that lost some: which of them still has a way to the other side nobody can tell.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use crate::overlay::{PeerId, Time};
use p2pdi::{
    backoff::{Backoff, Policy},
    contact::Contact,
};
use std::{collections::VecDeque, time::Duration};

/// How many are remembered: as many as a large passive view.
const LOST_MAX: usize = 64;
/// First pause before one is met again. A guess: by then the overlay has replaced it, and a short failure is over.
const MEET_FIRST: Duration = Duration::from_secs(10);
/// Longest pause: a network that was apart for hours is one again in minutes, and the dead cost a dial each.
const MEET_MAX: Duration = Duration::from_secs(600);
/// Between two meetings: one at a time compares roots, and a dial takes no longer (`membership::Config::dial_timeout`).
const SPACING: Duration = Duration::from_secs(4);
/// Meetings after which one is let go: it is there, and of this network. A guess: the first may find a network that is still coming together.
const MEETINGS_MAX: u32 = 3;

#[derive(Default)]
pub(super) struct Reconnect {
    reconnect: VecDeque<Entry>,
    /// No meeting before.
    not_before: Time,
}

struct Entry {
    contact: Contact,
    meet_at: Time,
    backoff: Backoff,
    met: u32,
}

impl Reconnect {
    /// One that was just lost; in the place of another, if there are many.
    pub(super) fn remember(&mut self, contact: Contact, now: Time, random: f64) {
        if let Some(known) = self.reconnect.iter_mut().find(|entry| entry.contact.id() == contact.id()) {
            (known.contact, known.met) = (contact, 0);
            return;
        }
        if self.reconnect.len() >= LOST_MAX {
            self.reconnect.pop_front();
        }
        let mut backoff = Policy { first: MEET_FIRST, longest: MEET_MAX }.start();
        self.reconnect.push_back(Entry { contact, meet_at: now + backoff.next(random), backoff, met: 0 });
    }

    /// There is a link to it.
    pub(super) fn met(&mut self, peer: PeerId) {
        self.reconnect.iter_mut().filter(|entry| entry.contact.id() == peer).for_each(|entry| entry.met += 1);
        self.reconnect.retain(|entry| entry.met < MEETINGS_MAX);
    }

    /// It is a neighbour again, or nobody to turn to; says whether it was lost.
    pub(super) fn forget(&mut self, peer: PeerId) -> bool {
        let before = self.reconnect.len();
        self.reconnect.retain(|entry| entry.contact.id() != peer);
        self.reconnect.len() < before
    }

    /// Up to `count` of them, others each time.
    pub(super) fn some(&mut self, count: usize) -> Vec<Contact> {
        let count = count.min(self.reconnect.len());
        self.reconnect.rotate_left(count);
        self.reconnect.iter().rev().take(count).map(|entry| entry.contact.clone()).collect()
    }

    /// Whom to meet now.
    pub(super) fn due(&mut self, now: Time, random: f64) -> Option<Contact> {
        if now < self.not_before {
            return None;
        }
        let entry = self.reconnect.iter_mut().filter(|entry| entry.meet_at <= now).min_by_key(|entry| entry.meet_at)?;
        entry.meet_at = now + entry.backoff.next(random);
        self.not_before = now + SPACING;
        Some(entry.contact.clone())
    }

    /// When somebody is to be met.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.reconnect.iter().map(|entry| entry.meet_at).min().map(|at| at.max(self.not_before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contact(id: u128) -> Contact {
        Contact::parse(PeerId::from_u128(id), &format!("p{id}"), "10.0.0.1:1").unwrap()
    }

    #[test]
    fn the_lost_are_met_one_at_a_time_ever_more_seldom_until_they_are_back() {
        let mut reconnect = Reconnect::default();
        for id in 1..=3 {
            reconnect.remember(contact(id), Time::ZERO, 0.5);
        }
        let (mut now, mut met) = (Time::ZERO, Vec::new());
        while now < Duration::from_secs(7_200) {
            now = reconnect.next_deadline().unwrap();
            met.push((now, reconnect.due(now, 0.5).unwrap().id()));
            assert!(reconnect.due(now, 0.5).is_none(), "two at once");
        }
        for id in 1..=3 {
            let times: Vec<_> = met.iter().filter(|(_, peer)| *peer == PeerId::from_u128(id)).map(|(at, _)| *at).collect();
            let pauses: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
            assert!(times[0] < MEET_FIRST * 2 && pauses.last().unwrap() <= &(MEET_MAX * 2), "{times:?}");
            assert!((12..40).contains(&times.len()), "{times:?}");
        }
        // One that breaks each link is met no sooner for it.
        let before = reconnect.next_deadline();
        for id in 1..=3 {
            reconnect.remember(contact(id), now, 0.5);
        }
        assert_eq!(reconnect.next_deadline(), before);
        // One that is there, and stays no neighbour, is let go.
        for _ in 0..MEETINGS_MAX {
            assert_eq!(reconnect.some(9).len(), 3);
            reconnect.met(PeerId::from_u128(3));
        }
        reconnect.remember(contact(3), now, 0.5);
        assert!(reconnect.forget(PeerId::from_u128(1)) && !reconnect.forget(PeerId::from_u128(1)));
        assert_eq!(reconnect.some(9).len(), 2);
        assert_ne!(reconnect.some(1), reconnect.some(1));
        for id in 10..1_000 {
            reconnect.remember(contact(id), now, 0.5);
        }
        assert_eq!(reconnect.some(usize::MAX).len(), LOST_MAX);
    }
}
