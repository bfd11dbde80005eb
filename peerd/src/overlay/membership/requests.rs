//! Who becomes a neighbour: asking, accepting, refusing, parting.

use p2pdi::contact::Contact;
use rand::Rng;

use super::{
    Action, Actions, Direction, MAX_CONTACTS, MAX_PUT_OUT, Membership, Message, Misbehaviour, Neighbour, Purpose, direction,
};
use crate::overlay::{PeerId, Time};

impl Membership {
    /// The dial has become a link: says what it was for.
    ///
    /// A newcomer's first requests are urgent like a join, and so land anywhere. Were they refused by whoever
    /// is full, newcomers would only find each other, and the network grow long with age.
    pub(super) fn request(&mut self, peer: PeerId, now: Time, rng: &mut impl Rng, out: &mut Actions) {
        let Some(pending) = self.pending.get(&peer) else {
            return;
        };
        if pending.purpose == Purpose::Meet {
            self.pending.remove(&peer);
            out.push(Action::Met(peer));
            return;
        }
        let full = self.active.len() >= self.config.max_active();
        let filled = self.config.outgoing <= self.outgoing();
        let Some(pending) = self.pending.get_mut(&peer) else {
            return;
        };
        if pending.purpose == Purpose::Neighbour && (filled || full) {
            // Several were dialled for one slot, and another was faster.
            self.pending.remove(&peer);
            if let Some(link) = self.links.remove(&peer) {
                let rests = self.passive.rests(peer);
                self.passive.insert_met(link.contact, rests, rng);
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

    /// Whether this peer's request is one that others put somebody out for.
    pub(super) fn is_urgent(&self, purpose: Purpose) -> bool {
        !self.settled || purpose == Purpose::Insist
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
    /// has a free slot in its active view" (HyParView, Active View Management). Here even an urgent one is refused where
    /// too many were put out for others within a second, or who asks was put out itself.
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

    /// Whether there is a slot for `from`, if need be by putting out somebody else who came in.
    fn make_room(&mut self, from: PeerId, urgent: bool, now: Time, rng: &mut impl Rng, out: &mut Actions) -> bool {
        // Both sides dialled: its request crosses ours, and takes the slot that ours was to fill.
        let dialled = self.links.get(&from).is_some_and(|link| link.dialled);
        if dialled && self.pending.contains_key(&from) {
            return self.active.len() < self.config.max_active();
        }
        let incoming = |n: &Neighbour| n.direction == Direction::Incoming;
        let taken = self.active.values().filter(|n| incoming(n)).count();
        let slots = self.config.incoming + if urgent { self.config.reserved } else { 0 };
        if taken < slots && self.active.len() < self.config.max_active() {
            return true;
        }
        if !urgent || self.was_displaced(from, now) {
            return false;
        }
        // However new it is: were the new ones spared, newcomers would only find each other, and the network grow long.
        let Some(peer) = self.random_neighbour(rng, |_, n| incoming(n)) else {
            return false;
        };
        if !self.displacements.try_take(now) {
            return false;
        }
        if self.displaced.len() >= MAX_PUT_OUT {
            self.displaced.shift_remove_index(0);
        }
        self.displaced.insert(peer, now);
        self.put_out(peer, true, now, rng, out);
        self.active.len() < self.config.max_active()
    }

    /// Whether `peer` was put out for another, and has not ceased to ask since.
    fn was_displaced(&mut self, peer: PeerId, now: Time) -> bool {
        // It asks once in `ask_max` at least, and a half later at most.
        let forgotten = 2 * self.config.ask_max;
        match self.displaced.get_mut(&peer) {
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
        let rests = self.passive.rests(peer);
        self.passive.remove(peer);
        self.joined = true;
        let neighbour = Neighbour { contact: link.contact.clone(), direction: direction(link.dialled), since: now, rests };
        if self.active.insert(peer, neighbour).is_none() {
            out.push(Action::NeighbourUp(link.contact.clone()));
        }
        self.failures = 0;
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
        if !self.limit(from, &peers, out) {
            return;
        }
        let asked = self.pending.get(&from).is_some_and(|p| p.requested);
        // Nobody asked for the contacts of other replies.
        let peers = if asked { self.affordable(from, peers, now) } else { Vec::new() };
        if self.active.contains_key(&from) {
            // Our request crossed theirs, which was accepted.
            self.pending.remove(&from);
            if asked && !accepted {
                self.drop_neighbour(from, true, now, rng, out);
            }
        } else if !asked {
            // Too late, or never asked for.
            self.put_out(from, true, now, rng, out);
            return;
        } else if accepted && self.active.len() < self.config.max_active() {
            let insisted = self.pending.get(&from).is_some_and(|p| p.purpose == Purpose::Insist);
            if insisted && self.outgoing() >= self.config.outgoing {
                let own = |_, n: &Neighbour| n.direction == Direction::Outgoing;
                if let Some(peer) = self.random_neighbour(rng, own) {
                    self.put_out(peer, true, now, rng, out);
                }
            }
            self.add_neighbour(from, now, out);
        } else {
            if let Some(pending) = self.pending.remove(&from) {
                let firm = self.is_urgent(pending.purpose);
                let rests = self.passive.rests(from);
                self.passive.insert_met(pending.contact, rests, rng);
                self.rest(from, firm, now);
            }
            if accepted {
                self.put_out(from, true, now, rng, out);
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
        if !self.limit(from, &peers, out) {
            return;
        }
        self.pending.remove(&from);
        let peers = self.affordable(from, peers, now);
        let lost = self.drop_neighbour(from, alive, now, rng, out);
        self.links.remove(&from);
        out.push(Action::Close(from));
        self.remember(peers, rng);
        if lost {
            self.hurry(now);
        }
        if alive {
            // It had no room for this one; it is not turned to again at once, even by who has nobody.
            self.rest(from, true, now);
        } else {
            self.passive.remove(from);
        }
    }

    /// Of the contacts that `from` names, as many as it may name now, or a few messages could fill the passive view.
    pub(super) fn affordable(&mut self, from: PeerId, mut peers: Vec<Contact>, now: Time) -> Vec<Contact> {
        let Some(link) = self.links.get_mut(&from) else {
            return Vec::new();
        };
        let avoided = |peer| self.unreachable.get(&peer).is_some_and(|(_, until)| now < *until);
        peers.retain(|contact| !avoided(contact.id()) && link.contacts.try_take(now));
        peers
    }

    /// Whether a list of contacts is within its limit.
    pub(super) fn limit(&self, from: PeerId, peers: &[Contact], out: &mut Actions) -> bool {
        let within = peers.len() <= MAX_CONTACTS;
        if !within {
            out.push(Action::Misbehaved(from, Misbehaviour::TooManyContacts));
        }
        within
    }
}
