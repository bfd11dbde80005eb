//! Reconnects to neighbours that were lost without a goodbye.
//!
//! A network partition looks like the death of the neighbours on the other side, and they may be all that this side knows of it. So every
//! peer that lost neighbours dials them again, with growing pauses: it cannot know which of them still connects the two sides.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use crate::overlay::{PeerId, Time};
use p2pdi::{
    backoff::{Backoff, Policy},
    contact::Contact,
};
use std::{collections::VecDeque, time::Duration};

/// Lost neighbours remembered: as many as a large passive view.
const LOST_MAX: usize = 64;
/// Pauses between two dials of one neighbour. The first is a guess: by then the overlay has replaced it, and a short failure is over. The
/// longest joins a network that was partitioned for hours within minutes; a dead neighbour costs one dial each.
const PAUSES: Policy = Policy { first: Duration::from_secs(10), longest: Duration::from_secs(600) };
/// Pause between dials of two neighbours: the overlay compares roots with one peer at a time, and a dial takes no longer than this
/// (`membership::Config::dial_timeout`).
const SPACING: Duration = Duration::from_secs(4);
/// Links after which a neighbour is forgotten: it is alive and in this network. A guess: at the first, the network may still be merging.
const LINKS_MAX: u32 = 3;

/// The lost neighbours.
#[derive(Default)]
pub(super) struct Reconnect {
    lost: VecDeque<Entry>,
    /// Nothing is dialled before this time.
    not_before: Time,
}

struct Entry {
    contact: Contact,
    dial_at: Time,
    backoff: Backoff,
    /// Links since it was lost.
    links: u32,
}

impl Reconnect {
    /// Remembers a neighbour that was just lost. If there are too many, the oldest is forgotten.
    pub(super) fn remember(&mut self, contact: Contact, now: Time, random: f64) {
        if let Some(known) = self.lost.iter_mut().find(|entry| entry.contact.id() == contact.id()) {
            (known.contact, known.links) = (contact, 0);
            return;
        }
        if self.lost.len() >= LOST_MAX {
            self.lost.pop_front();
        }
        let mut backoff = PAUSES.start();
        self.lost.push_back(Entry { contact, dial_at: now + backoff.next(random), backoff, links: 0 });
    }

    /// There is a link to it.
    pub(super) fn linked(&mut self, peer: PeerId) {
        self.lost.iter_mut().filter(|entry| entry.contact.id() == peer).for_each(|entry| entry.links += 1);
        self.lost.retain(|entry| entry.links < LINKS_MAX);
    }

    /// It is a neighbour again, or must not be dialled. Returns whether it was remembered.
    pub(super) fn forget(&mut self, peer: PeerId) -> bool {
        let before = self.lost.len();
        self.lost.retain(|entry| entry.contact.id() != peer);
        self.lost.len() < before
    }

    /// Up to `count` of them, in turn.
    pub(super) fn sample(&mut self, count: usize) -> Vec<Contact> {
        let count = count.min(self.lost.len());
        self.lost.rotate_left(count);
        self.lost.iter().rev().take(count).map(|entry| entry.contact.clone()).collect()
    }

    /// The neighbour to dial now.
    pub(super) fn due(&mut self, now: Time, random: f64) -> Option<Contact> {
        if now < self.not_before {
            return None;
        }
        let entry = self.lost.iter_mut().filter(|entry| entry.dial_at <= now).min_by_key(|entry| entry.dial_at)?;
        entry.dial_at = now + entry.backoff.next(random);
        self.not_before = now + SPACING;
        Some(entry.contact.clone())
    }

    /// When to dial the next one.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.lost.iter().map(|entry| entry.dial_at).min().map(|at| at.max(self.not_before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contact(id: u128) -> Contact {
        Contact::parse(PeerId::from_u128(id), &format!("p{id}"), "10.0.0.1:1").unwrap()
    }

    #[test]
    fn lost_neighbours_are_dialled_one_at_a_time_with_growing_pauses_until_they_are_linked_again() {
        let mut reconnect = Reconnect::default();
        for id in 1..=3 {
            reconnect.remember(contact(id), Time::ZERO, 0.5);
        }
        let (mut now, mut dials) = (Time::ZERO, Vec::new());
        while now < Duration::from_secs(7_200) {
            now = reconnect.next_deadline().unwrap();
            dials.push((now, reconnect.due(now, 0.5).unwrap().id()));
            assert!(reconnect.due(now, 0.5).is_none(), "two at once");
        }
        for id in 1..=3 {
            let times: Vec<_> = dials.iter().filter(|(_, peer)| *peer == PeerId::from_u128(id)).map(|(at, _)| *at).collect();
            let pauses: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
            assert!(times[0] < PAUSES.first * 2 && pauses.last().unwrap() <= &(PAUSES.longest * 2), "{times:?}");
            assert!((12..40).contains(&times.len()), "{times:?}");
        }
        // One whose links keep breaking is not dialled sooner for it.
        let before = reconnect.next_deadline();
        for id in 1..=3 {
            reconnect.remember(contact(id), now, 0.5);
        }
        assert_eq!(reconnect.next_deadline(), before);
        // One that is alive, but does not become a neighbour, is forgotten.
        for _ in 0..LINKS_MAX {
            assert_eq!(reconnect.sample(9).len(), 3);
            reconnect.linked(PeerId::from_u128(3));
        }
        reconnect.remember(contact(3), now, 0.5);
        assert!(reconnect.forget(PeerId::from_u128(1)) && !reconnect.forget(PeerId::from_u128(1)));
        assert_eq!(reconnect.sample(9).len(), 2);
        assert_ne!(reconnect.sample(1), reconnect.sample(1));
        for id in 10..1_000 {
            reconnect.remember(contact(id), now, 0.5);
        }
        assert_eq!(reconnect.sample(usize::MAX).len(), LOST_MAX);
    }
}
