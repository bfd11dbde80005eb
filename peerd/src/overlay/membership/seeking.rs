//! Filling the outgoing part: candidates from the passive view, help from outside.

use p2pdi::contact::Contact;
use rand::{Rng, RngExt};

use super::{Action, Actions, Direction, Membership, Neighbour, Pending, Purpose};
use crate::overlay::Time;

/// Dials and requests under way at once: all outgoing slots, four times over. A guess.
const MAX_PENDING: usize = 16;
/// Candidates dialled at once for one slot, at most. A guess: `MAX_PENDING` by the outgoing slots.
const MAX_DIALS_PER_SLOT: usize = 4;
/// Dials that have to fail in a row for one more at a time. A guess: as many as there are slots.
const FAILURES_PER_STEP: usize = 4;
impl Membership {
    pub(super) fn outgoing(&self) -> usize {
        let outgoing = |n: &&Neighbour| n.direction == Direction::Outgoing;
        self.active.values().filter(outgoing).count()
    }

    /// Outgoing slots that nobody fills, as far as there is room. Where both sides dialled, an outgoing neighbour becomes an incoming
    /// one; a peer that had no room for another and sought one all the same would dial and close for ever.
    pub(super) fn open_slots(&self) -> usize {
        let room = self.config.max_active().saturating_sub(self.active.len());
        self.config.outgoing.saturating_sub(self.outgoing()).min(room)
    }

    /// How many more to dial for them. Where dials fail, most of those known are dead, and several are
    /// tried for each slot.
    pub(super) fn missing(&self) -> usize {
        let each = 1 + (self.failures / FAILURES_PER_STEP).min(MAX_DIALS_PER_SLOT - 1);
        let under_way = |p: &&Pending| p.purpose != Purpose::Meet;
        let under_way = self.pending.values().filter(under_way).count();
        let wanted = (self.open_slots() * each).min(MAX_PENDING);
        wanted.saturating_sub(under_way)
    }

    /// Takes contacts up into the passive view.
    pub(super) fn remember(&mut self, peers: impl IntoIterator<Item = Contact>, rng: &mut impl Rng) {
        for contact in peers {
            if contact.id() != self.me && !self.active.contains_key(&contact.id()) {
                self.passive.insert(contact, rng);
            }
        }
    }

    /// Dials candidates for open outgoing slots; asks outside when there are none.
    pub(super) fn seek(&mut self, now: Time, rng: &mut impl Rng, out: &mut Actions) {
        if self.leaving {
            return;
        }
        // A newcomer joins through one contact in HyParView (p. 6), and the others learn of it by the walk. Two is a guess: one may be dead.
        let at_once = if self.joined { MAX_PENDING } else { 2 };
        while self.missing() > 0 && self.pending.len() < at_once {
            let free = |id| !self.pending.contains_key(&id) && !self.links.contains_key(&id);
            let Some(contact) = self.passive.pick(now, rng, free) else {
                break;
            };
            self.dial(contact, Purpose::Neighbour, now, rng, out);
        }
        if self.missing() == 0 || (!self.joined && !self.pending.is_empty()) {
            return;
        }
        if now >= self.next_ask {
            out.push(Action::AskForPeers(self.config.ask_sample));
            self.asked_at = Some(now);
            // Spread, so that peers that lost each other at once do not all ask at once. By how much is a guess.
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
                if pending.purpose == Purpose::Meet || purpose == Purpose::Insist {
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

    /// After a loss, what was put off is tried again, and help may be had at once if nobody is left: but no more often than once in
    /// `ask_min`, or a peer that accepts everybody and then breaks the link could make this one ask without a pause.
    pub(super) fn hurry(&mut self, now: Time) {
        if self.active.is_empty() {
            self.settled = false;
            self.next_ask = self.asked_at.map_or(now, |at| now.max(at + self.config.ask_min));
            self.ask_wait = self.config.ask_min;
            self.passive.wake();
        }
    }
}
