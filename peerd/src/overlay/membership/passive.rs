//! The passive view: contacts to fall back on.

use indexmap::IndexMap;
use rand::{Rng, RngExt};

use crate::overlay::{Contact, PeerId, Time};

#[derive(Debug)]
struct Entry {
    contact: Contact,
    /// It refused, or could not be reached, and is left alone until then.
    not_before: Time,
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

    /// Adds a contact, in the place of a random one if the view is full.
    pub fn insert(&mut self, contact: Contact, rng: &mut impl Rng) {
        let id = contact.id();
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.contact = contact;
            return;
        }
        if self.capacity == 0 {
            return;
        }
        if self.entries.len() >= self.capacity {
            self.entries.swap_remove_index(rng.random_range(0..self.entries.len()));
        }
        let not_before = Time::ZERO;
        self.entries.insert(id, Entry { contact, not_before });
    }

    /// Forgets a contact.
    pub fn remove(&mut self, peer: PeerId) -> Option<Contact> {
        self.entries.swap_remove(&peer).map(|entry| entry.contact)
    }

    /// Leaves a contact alone for a while.
    pub fn rest(&mut self, peer: PeerId, until: Time) {
        if let Some(entry) = self.entries.get_mut(&peer) {
            entry.not_before = until;
        }
    }

    /// Ends all rests: circumstances have changed.
    pub fn wake(&mut self) {
        for entry in self.entries.values_mut() {
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
