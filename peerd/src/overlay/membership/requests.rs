//! Neighbour requests: asking, accepting, refusing, disconnecting.

use p2pdi::contact::Contact;
use rand::Rng;

use super::{
    Action, Actions, Direction, MAX_CONTACTS, MAX_EVICTED, Membership, Message, Misbehaviour, Neighbour, Purpose, direction,
};
use crate::overlay::{PeerId, Time};

impl Membership {
    /// The dialled link is up: sends the request it was dialled for.
    ///
    /// A newcomer's first requests are urgent, like a join, so that any peer accepts them. If full peers refused them,
    /// newcomers would only link to each other, and the diameter of the network would grow with age.
    pub(super) fn request(&mut self, peer: PeerId, now: Time, rng: &mut impl Rng, out: &mut Actions) {
        let Some(pending) = self.pending.get(&peer) else {
            return;
        };
        if pending.purpose == Purpose::Connect {
            self.pending.remove(&peer);
            out.push(Action::Connected(peer));
            return;
        }
        let full = self.active.len() >= self.config.max_active();
        let filled = self.config.outgoing <= self.outgoing();
        let Some(pending) = self.pending.get_mut(&peer) else {
            return;
        };
        if pending.purpose == Purpose::Neighbour && (filled || full) {
            // Several peers were dialled for one slot, and another was faster.
            self.pending.remove(&peer);
            if let Some(link) = self.links.remove(&peer) {
                let refusals = self.passive.refusals(peer);
                self.passive.insert_linked(link.contact, refusals, rng);
            }
            out.push(Action::Close(peer));
            return;
        }
        pending.requested = true;
        pending.deadline = now + self.config.request_timeout;
        let purpose = pending.purpose;
        let urgent = self.is_urgent(purpose);
        let message = if self.joined { Message::Request { urgent } } else { Message::Join };
        out.push(Action::Send(peer, message));
    }

    /// Whether this peer's request may evict a neighbour of the receiver.
    pub(super) fn is_urgent(&self, purpose: Purpose) -> bool {
        !self.settled || purpose == Purpose::Force
    }

    /// "A node that receives a join request will start by adding the new node to its active view, even
    /// if it has to drop a random node from it" and sends a forward join to all others (HyParView, p. 6).
    pub(super) fn on_join(&mut self, from: PeerId, now: Time, rng: &mut impl Rng, out: &mut Actions) {
        let known = self.active.contains_key(&from);
        if !self.accept(from, true, now, rng, out) || known {
            return;
        }
        let Some(newcomer) = self.active.get(&from).map(|n| n.contact.clone()) else {
            return;
        };
        for peer in self.active.keys().filter(|peer| **peer != from) {
            let message = Message::ForwardJoin { newcomer: newcomer.clone(), ttl: self.config.active_walk };
            out.push(Action::Send(*peer, message));
        }
    }

    /// "A node q that receives a high priority neighbor request will always accept the request, even if it has to drop a random
    /// member from its active view […]. If a node q receives a low priority Neighbor request, it will only accept the request if it
    /// has a free slot in its active view" (HyParView, Active View Management). Here even an urgent request is refused if
    /// too many neighbours were evicted within a second, or if its sender was evicted itself.
    pub(super) fn on_request(&mut self, from: PeerId, urgent: bool, now: Time, rng: &mut impl Rng, out: &mut Actions) {
        self.accept(from, urgent, now, rng, out);
    }

    fn accept(&mut self, from: PeerId, urgent: bool, now: Time, rng: &mut impl Rng, out: &mut Actions) -> bool {
        let accepted = self.active.contains_key(&from) || self.make_room(from, urgent, now, rng, out);
        let peers = self.sample_for(from, rng);
        out.push(Action::Send(from, Message::Reply { accepted, peers }));
        if accepted {
            self.add_neighbour(from, now, out);
        } else if !self.pending.contains_key(&from) {
            self.links.remove(&from);
            out.push(Action::Close(from));
        }
        accepted
    }

    /// Whether there is a slot for `from`; an urgent request may evict an incoming neighbour.
    fn make_room(&mut self, from: PeerId, urgent: bool, now: Time, rng: &mut impl Rng, out: &mut Actions) -> bool {
        // Both sides dialled: its request crosses ours and takes the slot that ours was meant for.
        let dialled = self.links.get(&from).is_some_and(|link| link.dialled);
        if dialled && self.pending.contains_key(&from) {
            return self.active.len() < self.config.max_active();
        }
        let incoming = |n: &Neighbour| n.direction == Direction::Incoming;
        let used = self.active.values().filter(|n| incoming(n)).count();
        let slots = self.config.incoming + if urgent { self.config.reserved } else { 0 };
        if used < slots && self.active.len() < self.config.max_active() {
            return true;
        }
        if !urgent || self.was_evicted(from, now) {
            return false;
        }
        // Recent neighbours are not spared: newcomers would only link to each other, and the diameter would grow.
        let Some(peer) = self.random_neighbour(rng, |_, n| incoming(n)) else {
            return false;
        };
        if !self.evictions.try_take(now) {
            return false;
        }
        if self.evicted.len() >= MAX_EVICTED {
            self.evicted.shift_remove_index(0);
        }
        self.evicted.insert(peer, now);
        self.disconnect(peer, true, now, rng, out);
        self.active.len() < self.config.max_active()
    }

    /// Whether `peer` was evicted for another and has kept asking since.
    fn was_evicted(&mut self, peer: PeerId, now: Time) -> bool {
        // It asks at least once per `ask_max`, plus jitter.
        let forgotten = 2 * self.config.ask_max;
        match self.evicted.get_mut(&peer) {
            Some(asked) if now < *asked + forgotten => {
                *asked = now;
                true
            }
            _ => false,
        }
    }

    pub(super) fn add_neighbour(&mut self, peer: PeerId, now: Time, out: &mut Actions) {
        let Some(link) = self.links.get(&peer) else {
            return;
        };
        self.pending.remove(&peer);
        let refusals = self.passive.refusals(peer);
        self.passive.remove(peer);
        self.joined = true;
        let neighbour = Neighbour { contact: link.contact.clone(), direction: direction(link.dialled), since: now, refusals };
        if self.active.insert(peer, neighbour).is_none() {
            out.push(Action::NeighbourUp(link.contact.clone()));
        }
        self.failed_dials = 0;
        if self.open_slots() == 0 {
            self.settled = true;
            self.ask_wait = self.config.ask_min;
        }
    }

    pub(super) fn on_reply(
        &mut self,
        from: PeerId,
        accepted: bool,
        peers: Vec<Contact>,
        now: Time,
        rng: &mut impl Rng,
        out: &mut Actions,
    ) {
        if !self.check_count(from, &peers, out) {
            return;
        }
        let asked = self.pending.get(&from).is_some_and(|p| p.requested);
        // Contacts of an unsolicited reply are ignored.
        let peers = if asked { self.within_contact_rate(from, peers, now) } else { Vec::new() };
        if self.active.contains_key(&from) {
            // Our request crossed theirs, which was accepted.
            self.pending.remove(&from);
            if asked && !accepted {
                self.drop_neighbour(from, true, now, rng, out);
            }
        } else if !asked {
            // The reply is late or unsolicited.
            self.disconnect(from, true, now, rng, out);
            return;
        } else if accepted && self.active.len() < self.config.max_active() {
            let forced = self.pending.get(&from).is_some_and(|p| p.purpose == Purpose::Force);
            if forced && self.outgoing() >= self.config.outgoing {
                let own = |_, n: &Neighbour| n.direction == Direction::Outgoing;
                if let Some(peer) = self.random_neighbour(rng, own) {
                    self.disconnect(peer, true, now, rng, out);
                }
            }
            self.add_neighbour(from, now, out);
        } else {
            if let Some(pending) = self.pending.remove(&from) {
                let refused_urgent = self.is_urgent(pending.purpose);
                let refusals = self.passive.refusals(from);
                self.passive.insert_linked(pending.contact, refusals, rng);
                self.back_off(from, refused_urgent, now);
            }
            if accepted {
                self.disconnect(from, true, now, rng, out);
            } else {
                self.links.remove(&from);
                out.push(Action::Close(from));
            }
        }
        self.remember(peers, rng);
    }

    pub(super) fn on_disconnect(
        &mut self,
        from: PeerId,
        alive: bool,
        peers: Vec<Contact>,
        now: Time,
        rng: &mut impl Rng,
        out: &mut Actions,
    ) {
        if !self.check_count(from, &peers, out) {
            return;
        }
        self.pending.remove(&from);
        let peers = self.within_contact_rate(from, peers, now);
        let lost = self.drop_neighbour(from, alive, now, rng, out);
        self.links.remove(&from);
        out.push(Action::Close(from));
        self.remember(peers, rng);
        if lost {
            self.after_loss(now);
        }
        if alive {
            // It is full; this peer does not ask it again at once, even without any neighbour.
            self.back_off(from, true, now);
        } else {
            self.passive.remove(from);
        }
    }

    /// The contacts that `from` named, up to its rate limit, so that a few messages cannot fill the passive view.
    pub(super) fn within_contact_rate(&mut self, from: PeerId, mut peers: Vec<Contact>, now: Time) -> Vec<Contact> {
        let Some(link) = self.links.get_mut(&from) else {
            return Vec::new();
        };
        let is_unreachable = |peer| self.unreachable.get(&peer).is_some_and(|(_, until)| now < *until);
        peers.retain(|contact| !is_unreachable(contact.id()) && link.contacts.try_take(now));
        peers
    }

    /// Whether a list of contacts is within [`MAX_CONTACTS`]; reports its sender if not.
    pub(super) fn check_count(&self, from: PeerId, peers: &[Contact], out: &mut Actions) -> bool {
        let within = peers.len() <= MAX_CONTACTS;
        if !within {
            out.push(Action::Misbehaved(from, Misbehaviour::TooManyContacts));
        }
        within
    }
}
