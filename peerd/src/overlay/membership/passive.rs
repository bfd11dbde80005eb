//! The passive view: contacts in reserve.

use p2pdi::{backoff::Policy, contact::Contact};

use indexmap::IndexMap;
use rand::{Rng, RngExt};

use crate::overlay::{PeerId, Time};

/// One of this many entries is reserved for peers that this one was linked to. A guess.
const LINKED_SHARE: usize = 3;

#[derive(Debug)]
struct Entry {
    contact: Contact,
    /// It refused or evicted this peer, and is not asked before then.
    not_before: Time,
    /// How often in a row.
    refusals: u32,
    /// It refused even an urgent request.
    refused_urgent: bool,
    /// This peer was linked to it once; other contacts are unverified.
    was_linked: bool,
}

/// A bounded set of contacts for random choice.
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

    /// Number of contacts.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether `peer` is in the view.
    pub fn contains(&self, peer: PeerId) -> bool {
        self.entries.contains_key(&peer)
    }

    /// All contacts.
    pub fn contacts(&self) -> impl Iterator<Item = &Contact> {
        self.entries.values().map(|entry| &entry.contact)
    }

    /// Adds a contact that another peer named. In a full view it replaces a random one, but not a peer that this one was linked to, as
    /// long as those are at most one third. So no peer can fill the view with contacts of its choice.
    pub fn insert(&mut self, contact: Contact, rng: &mut impl Rng) {
        self.add(Entry { contact, not_before: Time::ZERO, refusals: 0, refused_urgent: false, was_linked: false }, rng);
    }

    /// Adds a peer that this one was linked to, and that has refused this one so often in a row.
    pub fn insert_linked(&mut self, contact: Contact, refusals: u32, rng: &mut impl Rng) {
        self.add(Entry { contact, not_before: Time::ZERO, refusals, refused_urgent: false, was_linked: true }, rng);
    }

    fn add(&mut self, new: Entry, rng: &mut impl Rng) {
        let id = new.contact.id();
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.contact = new.contact;
            entry.was_linked |= new.was_linked;
            entry.refusals = entry.refusals.max(new.refusals);
            return;
        }
        if self.capacity == 0 {
            return;
        }
        if self.entries.len() >= self.capacity {
            let linked = self.entries.values().filter(|entry| entry.was_linked).count();
            let spare = linked * LINKED_SHARE <= self.capacity;
            let len = self.entries.len();
            let start = rng.random_range(0..len);
            let unverified = |index: &usize| self.entries.get_index(*index).is_some_and(|(_, entry)| !entry.was_linked);
            let replaced = (0..len).map(|offset| (start + offset) % len).find(|index| !spare || unverified(index));
            self.entries.swap_remove_index(replaced.unwrap_or(start));
        }
        self.entries.insert(id, new);
    }

    /// Removes a contact.
    pub fn remove(&mut self, peer: PeerId) -> Option<Contact> {
        self.entries.swap_remove(&peer).map(|entry| entry.contact)
    }

    /// How often in a row a contact has refused this peer.
    pub fn refusals(&self, peer: PeerId) -> u32 {
        self.entries.get(&peer).map_or(0, |entry| entry.refusals)
    }

    /// Does not pick a contact for a while from `now` on, longer with each refusal, as `pauses` says. `refused_urgent`: it refused even an
    /// urgent request.
    pub fn back_off(&mut self, peer: PeerId, refused_urgent: bool, pauses: Policy, now: Time) {
        if let Some(entry) = self.entries.get_mut(&peer) {
            entry.not_before = now + pauses.pause(entry.refusals);
            entry.refusals = entry.refusals.saturating_add(1);
            entry.refused_urgent = refused_urgent;
        }
    }

    /// Ends the pauses of contacts that may accept an urgent request, now that this peer has no neighbour.
    pub fn end_back_off(&mut self) {
        for entry in self.entries.values_mut().filter(|entry| !entry.refused_urgent) {
            entry.not_before = Time::ZERO;
        }
    }

    /// A random contact that is not in a pause and that `wanted` accepts.
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

    /// When the next pause of a contact ends.
    pub fn next_eligible(&self, now: Time) -> Option<Time> {
        let pauses = self.entries.values().map(|entry| entry.not_before);
        pauses.filter(|until| *until > now).min()
    }

    /// Up to `count` distinct contacts, chosen at random.
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
