//! Filling the outgoing part of the active view: candidates from the passive view, then from outside the overlay.

use p2pdi::contact::Contact;
use rand::{Rng, RngExt};

use super::{Action, Actions, Direction, Membership, Neighbour, Pending, Purpose};
use crate::overlay::Time;

/// Dials and requests in progress at once: four for each outgoing slot. A guess.
const MAX_PENDING: usize = 16;
/// Candidates dialled at once for one slot, at most. A guess: `MAX_PENDING` divided by the outgoing slots.
const MAX_DIALS_PER_SLOT: usize = 4;
/// Failed dials in a row that add one candidate per slot. A guess: the number of slots.
const FAILURES_PER_STEP: usize = 4;
impl Membership {
    pub(super) fn outgoing(&self) -> usize {
        let outgoing = |n: &&Neighbour| n.direction == Direction::Outgoing;
        self.active.values().filter(outgoing).count()
    }

    /// Free outgoing slots, as far as the active view has room. If both sides dialled, an outgoing neighbour becomes an incoming
    /// one; a peer with a full active view that kept dialling would dial and close endlessly.
    pub(super) fn open_slots(&self) -> usize {
        let room = self.config.max_active().saturating_sub(self.active.len());
        self.config.outgoing.saturating_sub(self.outgoing()).min(room)
    }

    /// How many more candidates to dial for the free slots. If dials fail, most contacts are dead, and several are
    /// tried for each slot.
    pub(super) fn dials_needed(&self) -> usize {
        let each = 1 + (self.failed_dials / FAILURES_PER_STEP).min(MAX_DIALS_PER_SLOT - 1);
        let for_a_slot = |p: &&Pending| p.purpose != Purpose::Connect;
        let in_progress = self.pending.values().filter(for_a_slot).count();
        let wanted = (self.open_slots() * each).min(MAX_PENDING);
        wanted.saturating_sub(in_progress)
    }

    /// Adds contacts to the passive view.
    pub(super) fn remember(&mut self, peers: impl IntoIterator<Item = Contact>, rng: &mut impl Rng) {
        for contact in peers {
            if contact.id() != self.me && !self.active.contains_key(&contact.id()) {
                self.passive.insert(contact, rng);
            }
        }
    }

    /// Dials candidates for free outgoing slots; asks outside the overlay when there are none.
    pub(super) fn fill_outgoing(&mut self, now: Time, rng: &mut impl Rng, out: &mut Actions) {
        if self.leaving {
            return;
        }
        // In HyParView a newcomer joins through one contact (p. 6), and the forwarded join makes it known. Two is a guess: one may be dead.
        let at_once = if self.joined { MAX_PENDING } else { 2 };
        while self.dials_needed() > 0 && self.pending.len() < at_once {
            let free = |id| !self.pending.contains_key(&id) && !self.links.contains_key(&id);
            let Some(contact) = self.passive.pick(now, rng, free) else {
                break;
            };
            self.dial(contact, Purpose::Neighbour, now, rng, out);
        }
        if self.dials_needed() == 0 || (!self.joined && !self.pending.is_empty()) {
            return;
        }
        if now >= self.next_ask {
            out.push(Action::AskForPeers(self.config.ask_sample));
            self.asked_at = Some(now);
            // Jitter, so that peers that lost each other at once do not all ask at once. Its range is a guess.
            let jitter = rng.random_range(0.75..1.25);
            self.next_ask = now + self.ask_wait.mul_f64(jitter);
            self.ask_wait = (self.ask_wait * 2).min(self.config.ask_max);
        }
    }

    pub(super) fn dial(&mut self, contact: Contact, purpose: Purpose, now: Time, rng: &mut impl Rng, out: &mut Actions) {
        let peer = contact.id();
        if peer == self.me || self.active.contains_key(&peer) || self.leaving {
            return;
        }
        let linked = self.links.contains_key(&peer);
        let full = self.pending.len() >= MAX_PENDING && purpose == Purpose::Neighbour;
        let most = 2 * MAX_PENDING;
        let full = full || self.pending.len() >= most;
        match self.pending.get_mut(&peer) {
            Some(pending) => {
                if pending.purpose == Purpose::Connect || purpose == Purpose::Force {
                    pending.purpose = purpose;
                }
                if !linked || pending.requested {
                    return;
                }
            }
            None if full => return,
            None => {
                let pending =
                    Pending { contact: contact.clone(), purpose, deadline: now + self.config.dial_timeout, requested: false };
                self.pending.insert(peer, pending);
                if !linked {
                    out.push(Action::Dial(contact));
                }
            }
        }
        if linked {
            self.request(peer, now, rng, out);
        }
    }

    /// A neighbour was lost. If none is left, this peer asks for peers at once, and contacts that refused are tried again: but at most
    /// once per `ask_min`, since a peer that accepts and then closes the link could otherwise make this one ask without a pause.
    pub(super) fn after_loss(&mut self, now: Time) {
        if self.active.is_empty() {
            self.settled = false;
            self.next_ask = self.asked_at.map_or(now, |at| now.max(at + self.config.ask_min));
            self.ask_wait = self.config.ask_min;
            self.passive.end_back_off();
        }
    }
}
