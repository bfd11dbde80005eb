//! Random walks along the links: forwarded joins and shuffles.

use p2pdi::contact::Contact;
use rand::Rng;

use super::{Action, Actions, MAX_WALK, Membership, Message, Misbehaviour, Purpose};
use crate::overlay::{PeerId, Time};

impl Membership {
    pub(super) fn on_forward_join(
        &mut self,
        from: PeerId,
        newcomer: Contact,
        ttl: u32,
        now: Time,
        rng: &mut impl Rng,
        out: &mut Actions,
    ) {
        let id = newcomer.id();
        if !self.active.contains_key(&from) || id == self.me || self.active.contains_key(&id) {
            return;
        }
        let ttl = ttl.min(MAX_WALK);
        let next = self.random_neighbour(rng, |peer, _| peer != from && peer != id);
        match next {
            Some(next) if ttl > 0 => {
                if ttl == self.config.passive_walk {
                    let accepted = self.within_contact_rate(from, vec![newcomer.clone()], now);
                    self.remember(accepted, rng);
                }
                let ttl = ttl - 1;
                out.push(Action::Send(next, Message::ForwardJoin { newcomer, ttl }));
            }
            _ => {
                let accepted = self.within_contact_rate(from, vec![newcomer.clone()], now);
                self.remember(accepted, rng);
                if self.dials_needed() > 0 && !self.links.contains_key(&id) {
                    self.dial(newcomer, Purpose::Neighbour, now, rng, out);
                }
            }
        }
    }

    /// Starts a shuffle (HyParView, "Passive View Management").
    pub(super) fn shuffle(&mut self, rng: &mut impl Rng, out: &mut Actions) {
        let Some(first) = self.random_neighbour(rng, |_, _| true) else {
            return;
        };
        let mut peers = vec![self.contact.clone()];
        peers.extend(self.sample_active(self.config.shuffle_active, first, rng));
        peers.extend(self.passive.sample(self.config.shuffle_passive, rng));
        self.shuffle_nonce = self.shuffle_nonce.wrapping_add(1);
        let message = Message::Shuffle { nonce: self.shuffle_nonce, path: vec![self.me], ttl: self.config.shuffle_walk, peers };
        out.push(Action::Send(first, message));
    }

    #[allow(clippy::too_many_arguments)] // the fields of one message
    pub(super) fn on_shuffle(
        &mut self,
        from: PeerId,
        nonce: u64,
        mut path: Vec<PeerId>,
        ttl: u32,
        peers: Vec<Contact>,
        now: Time,
        rng: &mut impl Rng,
        out: &mut Actions,
    ) {
        if !self.active.contains_key(&from) || !self.check_count(from, &peers, out) {
            return;
        }
        if path.len() > MAX_WALK as usize || path.last() != Some(&from) {
            out.push(Action::Misbehaved(from, Misbehaviour::BadPath));
            return;
        }
        let next = self.random_neighbour(rng, |peer, _| !path.contains(&peer));
        match next {
            Some(next) if ttl > 1 && path.len() < MAX_WALK as usize && path[0] != self.me => {
                path.push(self.me);
                let ttl = ttl - 1;
                let message = Message::Shuffle { nonce, path, ttl, peers };
                out.push(Action::Send(next, message));
            }
            _ => {
                if path[0] != self.me {
                    let mut answer = self.passive.sample(peers.len().saturating_sub(1), rng);
                    answer.push(self.contact.clone());
                    let reply = Message::ShuffleReply { nonce, path, peers: answer };
                    out.push(Action::Send(from, reply));
                }
                let peers = self.within_contact_rate(from, peers, now);
                self.remember(peers, rng);
            }
        }
    }

    #[allow(clippy::too_many_arguments)] // the fields of one message
    pub(super) fn on_shuffle_reply(
        &mut self,
        from: PeerId,
        nonce: u64,
        mut path: Vec<PeerId>,
        peers: Vec<Contact>,
        now: Time,
        rng: &mut impl Rng,
        out: &mut Actions,
    ) {
        if !self.active.contains_key(&from) || !self.check_count(from, &peers, out) {
            return;
        }
        if path.len() > MAX_WALK as usize || path.pop() != Some(self.me) {
            out.push(Action::Misbehaved(from, Misbehaviour::BadPath));
            return;
        }
        match path.last().copied() {
            Some(next) if self.active.contains_key(&next) => {
                out.push(Action::Send(next, Message::ShuffleReply { nonce, path, peers }));
            }
            Some(_) => {}
            None if nonce == self.shuffle_nonce => {
                let peers = self.within_contact_rate(from, peers, now);
                self.remember(peers, rng);
            }
            None => {}
        }
    }
}
