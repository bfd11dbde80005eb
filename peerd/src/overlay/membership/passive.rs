//! The passive view: contacts to fall back on.

use p2pdi::{backoff::Policy, contact::Contact};
use std::time::Duration;

use indexmap::IndexMap;
use rand::{Rng, RngExt};

use crate::overlay::{PeerId, Time};

/// One in so many places is kept for contacts that were met. A guess.
const MET_SHARE: usize = 3;

#[derive(Debug)]
struct Entry {
    contact: Contact,
    /// It refused, or put this peer out, and is left alone until then.
    not_before: Time,
    /// How often in a row.
    rests: u32,
    /// It has no room even for who has nobody.
    firm: bool,
    /// This peer was linked to it once; others are hearsay.
    met: bool,
}

/// A bounded set of contacts from which any can be drawn at random.
#[derive(Debug)]
pub struct PassiveView {
    entries: IndexMap<PeerId, Entry>,
    capacity: usize,
}

impl PassiveView {
    /// An empty view.
    pub fn new(capacity: usize) -> Self {
        Self { entries: IndexMap::new(), capacity }
    }

    /// How many contacts there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether `peer` is among them.
    pub fn contains(&self, peer: PeerId) -> bool {
        self.entries.contains_key(&peer)
    }

    /// All contacts.
    pub fn contacts(&self) -> impl Iterator<Item = &Contact> {
        self.entries.values().map(|entry| &entry.contact)
    }

    /// Adds a contact that others name, in the place of a random one if the view is full: but not of one that was met, as long as
    /// those are no more than a third. So nobody can fill the view with contacts of its choice.
    pub fn insert(&mut self, contact: Contact, rng: &mut impl Rng) {
        self.add(Entry { contact, not_before: Time::ZERO, rests: 0, firm: false, met: false }, rng);
    }

    /// Adds a contact that this peer was linked to, and that has put off this one so often.
    pub fn insert_met(&mut self, contact: Contact, rests: u32, rng: &mut impl Rng) {
        self.add(Entry { contact, not_before: Time::ZERO, rests, firm: false, met: true }, rng);
    }

    fn add(&mut self, new: Entry, rng: &mut impl Rng) {
        let id = new.contact.id();
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.contact = new.contact;
            entry.met |= new.met;
            entry.rests = entry.rests.max(new.rests);
            return;
        }
        if self.capacity == 0 {
            return;
        }
        if self.entries.len() >= self.capacity {
            let met = self.entries.values().filter(|entry| entry.met).count();
            let spare = met * MET_SHARE <= self.capacity;
            let len = self.entries.len();
            let start = rng.random_range(0..len);
            let hearsay = |index: &usize| self.entries.get_index(*index).is_some_and(|(_, entry)| !entry.met);
            let place = (0..len).map(|offset| (start + offset) % len).find(|index| !spare || hearsay(index));
            self.entries.swap_remove_index(place.unwrap_or(start));
        }
        self.entries.insert(id, new);
    }

    /// Forgets a contact.
    pub fn remove(&mut self, peer: PeerId) -> Option<Contact> {
        self.entries.swap_remove(&peer).map(|entry| entry.contact)
    }

    /// How often in a row a contact has put off this peer.
    pub fn rests(&self, peer: PeerId) -> u32 {
        self.entries.get(&peer).map_or(0, |entry| entry.rests)
    }

    /// Leaves a contact alone from `now` on: first for `pause`, then for twice as long each time, up to `longest`. `firm` if it
    /// has no room even for who has nobody.
    pub fn rest(&mut self, peer: PeerId, firm: bool, pause: Duration, longest: Duration, now: Time) {
        if let Some(entry) = self.entries.get_mut(&peer) {
            entry.not_before = now + Policy { first: pause, longest }.pause(entry.rests);
            entry.rests = entry.rests.saturating_add(1);
            entry.firm = firm;
        }
    }

    /// Ends the rests of those who may have room after all, now that this peer has nobody.
    pub fn wake(&mut self) {
        for entry in self.entries.values_mut().filter(|entry| !entry.firm) {
            entry.not_before = Time::ZERO;
        }
    }

    /// A random contact that is not at rest and that `wanted` accepts.
    pub fn pick(&self, now: Time, rng: &mut impl Rng, wanted: impl Fn(PeerId) -> bool) -> Option<Contact> {
        let len = self.entries.len();
        if len == 0 {
            return None;
        }
        let start = rng.random_range(0..len);
        (0..len)
            .filter_map(|offset| self.entries.get_index((start + offset) % len))
            .find(|(id, entry)| entry.not_before <= now && wanted(**id))
            .map(|(_, entry)| entry.contact.clone())
    }

    /// When the first contact at rest is to be had again.
    pub fn next_awake(&self, now: Time) -> Option<Time> {
        let rests = self.entries.values().map(|entry| entry.not_before);
        rests.filter(|until| *until > now).min()
    }

    /// Up to `count` different contacts at random.
    pub fn sample(&self, count: usize, rng: &mut impl Rng) -> Vec<Contact> {
        let len = self.entries.len();
        let count = count.min(len);
        rand::seq::index::sample(rng, len, count)
            .into_iter()
            .filter_map(|index| self.entries.get_index(index))
            .map(|(_, entry)| entry.contact.clone())
            .collect()
    }
}
