//! HyParView: which peers this one is linked to, and whom it can fall back on.
//!
//! Leitão, Pereira, Rodrigues: *HyParView: a membership protocol for reliable gossip-based broadcast*
//! (DSN 2007, pp. 419–429; pages elsewhere are those of the technical report, see [`Config`]). It knows nothing of what is sent along the links. Where it departs from the paper:
//!
//! - The active view has an outgoing and an incoming part (see [`Config::outgoing`]), so that a peer that
//!   only takes links cannot fill it, and some incoming slots are kept for newcomers.
//! - A peer is asked before it becomes a neighbour and answers; refusals carry contacts to turn to.
//! - A forwarded join ends at a peer that needs a neighbour (the paper's puts out a random one instead),
//!   since the newcomer seeks its own links as well.
//! - The answer to a shuffle travels back along its walk, so that no link is made for it.
//! - Who asks urgently is refused, too, where many were put out at once, or it was put out itself.
//! - A peer that runs out of candidates asks outside (registry, bootnodes), at once and then ever more seldom, until
//!   its outgoing part is full.

mod config;
mod message;
mod passive;
mod requests;
mod seeking;
#[cfg(test)]
mod tests;
mod walks;

use std::{collections::BTreeMap, time::Duration};

use indexmap::IndexMap;
use p2pdi::backoff::Policy;
use rand::{Rng, RngExt};

pub use config::{Config, MAX_CONTACTS, MAX_WALK};
pub use message::{Action, Event, Message};
pub use passive::PassiveView;

use super::{Contact, Misbehaviour, PeerId, Time, TokenBucket};

/// Who made the link to a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// This peer did.
    Outgoing,
    /// The other side did.
    Incoming,
}

#[derive(Debug)]
struct Neighbour {
    contact: Contact,
    direction: Direction,
    since: Time,
    /// How often in a row it had put off this peer before.
    rests: u32,
}

#[derive(Debug)]
struct Link {
    contact: Contact,
    incarnation: u64,
    dialled: bool,
    since: Time,
    /// For contacts that the other side names.
    contacts: TokenBucket,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// Fill the outgoing part.
    Neighbour,
    /// Become a neighbour even if the outgoing part is full.
    Insist,
    /// Only be linked.
    Meet,
}

#[derive(Debug)]
struct Pending {
    contact: Contact,
    purpose: Purpose,
    deadline: Time,
    /// The request is on its way; before that, the dial.
    requested: bool,
}

/// Links, neighbours or not, held at once: all neighbours of the largest sensible set-up and as many
/// that are about to be asked or refused. Past it what comes in is closed, but not what was dialled. A guess.
pub const MAX_LINKS: usize = 64;

/// Contacts taken from one link per second. A guess: of a hungry view's shuffles, one ends at each peer every five seconds, with eight
/// contacts, over any of its links.
const CONTACTS_PER_SECOND: u32 = 1;
/// The same at once: a full message.
const CONTACTS_AT_ONCE: u32 = 16;
const _: () = assert!(CONTACTS_AT_ONCE as usize == MAX_CONTACTS);
/// Peers remembered that were put out for others. A guess: far more than ask again and again.
const MAX_PUT_OUT: usize = 256;
/// Peers remembered that could not be dialled. A guess: what others name of the dead after a failure of most.
const MAX_UNREACHABLE: usize = 256;

/// The membership machine.
#[derive(Debug)]
pub struct Membership {
    me: PeerId,
    contact: Contact,
    config: Config,
    active: BTreeMap<PeerId, Neighbour>,
    passive: PassiveView,
    links: BTreeMap<PeerId, Link>,
    pending: BTreeMap<PeerId, Pending>,
    displacements: TokenBucket,
    /// Who was put out for another, and when it last asked: it puts out nobody in turn, or peers that have only this one to turn to
    /// would put out each other for ever.
    displaced: IndexMap<PeerId, Time>,
    /// Whom it could not dial, how often in a row, and until when it does not take their contact from others.
    unreachable: IndexMap<PeerId, (u32, Time)>,
    next_shuffle: Time,
    shuffle_nonce: u64,
    /// When help may be asked for again, and the wait after that.
    next_ask: Time,
    asked_at: Option<Time>,
    ask_wait: Duration,
    /// Somebody has accepted this peer once.
    joined: bool,
    /// Its outgoing part has been full, and it has not lost everyone since.
    settled: bool,
    /// Dials that failed since the last one that did not.
    failures: usize,
    leaving: bool,
}

type Actions = Vec<Action>;

impl Membership {
    /// A peer with empty views. `now` is any time before the first event.
    pub fn new(contact: Contact, config: Config, now: Time) -> Self {
        Self {
            me: contact.id(),
            active: BTreeMap::new(),
            passive: PassiveView::new(config.passive),
            links: BTreeMap::new(),
            pending: BTreeMap::new(),
            displacements: TokenBucket::new(config.displacements_per_second, now),
            displaced: IndexMap::new(),
            unreachable: IndexMap::new(),
            next_shuffle: now + config.hungry_shuffle_interval,
            shuffle_nonce: 0,
            next_ask: now,
            asked_at: None,
            ask_wait: config.ask_min,
            joined: false,
            settled: false,
            failures: 0,
            leaving: false,
            contact,
            config,
        }
    }

    /// The neighbours, each with who made the link.
    pub fn neighbours(&self) -> impl Iterator<Item = (&Contact, Direction)> {
        self.active.values().map(|n| (&n.contact, n.direction))
    }

    /// Whether `peer` is a neighbour.
    pub fn is_neighbour(&self, peer: PeerId) -> bool {
        self.active.contains_key(&peer)
    }

    /// Whether `peer` is dialled, or asked to be a neighbour, and has not answered yet.
    pub fn is_pending(&self, peer: PeerId) -> bool {
        self.pending.contains_key(&peer)
    }

    /// The contacts to fall back on.
    pub fn passive(&self) -> &PassiveView {
        &self.passive
    }

    /// How many more peers it would dial now, if it knew them.
    pub fn wanted(&self) -> usize {
        if self.leaving { 0 } else { self.missing() }
    }

    /// The limits it keeps to.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Takes note of `event` and adds what is to be done to `out`.
    pub fn handle(&mut self, event: Event, now: Time, rng: &mut impl Rng, out: &mut Actions) {
        match event {
            Event::LinkUp { peer, incarnation, dialled } => self.on_link_up(peer, incarnation, dialled, now, rng, out),
            Event::LinkDown { peer } => self.on_link_down(peer, now, rng, out),
            Event::DialFailed { peer } => {
                // One that has a link by another way, and was asked on it, still answers.
                let waits = self.pending.get(&peer).is_some_and(|pending| pending.requested);
                if !waits && let Some(pending) = self.pending.remove(&peer) {
                    self.passive.remove(peer);
                    if pending.purpose != Purpose::Meet {
                        self.failures = self.failures.saturating_add(1);
                    }
                    self.avoid(peer, now);
                }
            }
            Event::Received { from, message } => self.on_message(from, message, now, rng, out),
            Event::PeersFound(peers) => {
                // Freshly sampled, so worth more than what is there, and what could not be dialled may be now.
                self.remember(peers, rng);
            }
            Event::Join(contact) => self.dial(contact, Purpose::Insist, now, rng, out),
            Event::Meet(contact) => self.dial(contact, Purpose::Meet, now, rng, out),
            Event::Bridge(peer) => {
                if let Some(link) = self.links.get(&peer) {
                    let contact = link.contact.clone();
                    self.dial(contact, Purpose::Insist, now, rng, out);
                }
            }
            Event::Part(peer) => {
                if self.active.contains_key(&peer) {
                    self.put_out(peer, true, now, rng, out);
                    self.passive.remove(peer);
                    self.hurry(now);
                }
            }
            Event::Tick => self.on_tick(now, rng, out),
            Event::Leave => self.leave(now, rng, out),
        }
        self.seek(now, rng, out);
    }

    /// When it wants a [`Event::Tick`].
    pub fn next_deadline(&self, now: Time) -> Option<Time> {
        if self.leaving {
            return None;
        }
        let mut next = self.next_shuffle;
        for pending in self.pending.values() {
            next = next.min(pending.deadline);
        }
        for (peer, link) in &self.links {
            if !self.active.contains_key(peer) && !self.pending.contains_key(peer) {
                next = next.min(link.since + self.config.idle_link);
            }
        }
        if self.missing() > 0 {
            if self.joined || self.pending.is_empty() {
                next = next.min(self.next_ask);
            }
            if let Some(awake) = self.passive.next_awake(now) {
                next = next.min(awake);
            }
        }
        Some(next)
    }

    fn on_link_up(
        &mut self,
        contact: Contact,
        incarnation: u64,
        dialled: bool,
        now: Time,
        rng: &mut impl Rng,
        out: &mut Actions,
    ) {
        let peer = contact.id();
        if peer == self.me || self.leaving {
            out.push(Action::Close(peer));
            return;
        }
        let expected = self.links.contains_key(&peer) || self.pending.contains_key(&peer);
        if !expected && self.links.len() >= MAX_LINKS {
            out.push(Action::Close(peer));
            return;
        }
        let before = self.links.get(&peer).map(|link| link.incarnation);
        if before.is_some_and(|before| before != incarnation) {
            self.drop_neighbour(peer, false, now, rng, out);
        }
        if let Some(neighbour) = self.active.get_mut(&peer) {
            neighbour.direction = direction(dialled);
            neighbour.contact = contact.clone();
        }
        self.unreachable.swap_remove(&peer);
        let contacts = TokenBucket::holding(CONTACTS_AT_ONCE, CONTACTS_PER_SECOND, now);
        let link = Link { contact, incarnation, dialled, since: now, contacts };
        self.links.insert(peer, link);
        if self.pending.contains_key(&peer) {
            self.request(peer, now, rng, out);
        }
    }

    fn on_link_down(&mut self, peer: PeerId, now: Time, rng: &mut impl Rng, out: &mut Actions) {
        self.links.remove(&peer);
        if let Some(pending) = self.pending.get(&peer)
            && pending.requested
        {
            let firm = self.is_urgent(pending.purpose);
            self.pending.remove(&peer);
            self.rest(peer, firm, now);
        }
        if self.drop_neighbour(peer, false, now, rng, out) {
            self.hurry(now);
        }
    }

    /// Takes `peer` out of the active view, and into the passive one if it is to be kept.
    fn drop_neighbour(&mut self, peer: PeerId, keep: bool, now: Time, rng: &mut impl Rng, out: &mut Actions) -> bool {
        let Some(neighbour) = self.active.remove(&peer) else {
            return false;
        };
        out.push(Action::NeighbourDown(peer));
        if keep {
            let stayed = now.saturating_sub(neighbour.since) >= self.config.ask_max;
            let rests = if stayed { 0 } else { neighbour.rests };
            self.passive.insert_met(neighbour.contact, rests, rng);
        }
        true
    }

    /// Does not take the contact of who could not be dialled from others for a while: they name it again and again.
    fn avoid(&mut self, peer: PeerId, now: Time) {
        let times = self.unreachable.get(&peer).map_or(0, |(times, _)| *times);
        let pause = Policy { first: self.config.refused_pause, longest: self.config.ask_max }.pause(times);
        if self.unreachable.len() >= MAX_UNREACHABLE && times == 0 {
            self.unreachable.shift_remove_index(0);
        }
        self.unreachable.insert(peer, (times.saturating_add(1), now + pause));
    }

    /// Leaves who refused, or put this peer out, alone for a while.
    fn rest(&mut self, peer: PeerId, firm: bool, now: Time) {
        self.passive.rest(peer, firm, self.config.refused_pause, self.config.ask_max, now);
    }

    fn on_message(&mut self, from: PeerId, message: Message, now: Time, rng: &mut impl Rng, out: &mut Actions) {
        if !self.links.contains_key(&from) || self.leaving {
            return;
        }
        match message {
            Message::Join => self.on_join(from, now, rng, out),
            Message::Request { urgent } => self.on_request(from, urgent, now, rng, out),
            Message::Reply { accepted, peers } => {
                self.on_reply(from, accepted, peers, now, rng, out);
            }
            Message::Disconnect { alive, peers } => {
                self.on_disconnect(from, alive, peers, now, rng, out);
            }
            Message::ForwardJoin { newcomer, ttl } => {
                self.on_forward_join(from, newcomer, ttl, now, rng, out);
            }
            Message::Shuffle { nonce, path, ttl, peers } => {
                self.on_shuffle(from, nonce, path, ttl, peers, now, rng, out);
            }
            Message::ShuffleReply { nonce, path, peers } => {
                self.on_shuffle_reply(from, nonce, path, peers, now, rng, out);
            }
        }
    }

    fn on_tick(&mut self, now: Time, rng: &mut impl Rng, out: &mut Actions) {
        let late: Vec<PeerId> =
            self.pending.iter().filter(|(_, pending)| pending.deadline <= now).map(|(peer, _)| *peer).collect();
        for peer in late {
            self.pending.remove(&peer);
            self.passive.remove(peer);
            if self.links.remove(&peer).is_some() {
                out.push(Action::Close(peer));
            }
        }
        let idle: Vec<PeerId> = self
            .links
            .iter()
            .filter(|(peer, link)| {
                !self.active.contains_key(peer) && !self.pending.contains_key(peer) && link.since + self.config.idle_link <= now
            })
            .map(|(peer, _)| *peer)
            .collect();
        for peer in idle {
            self.links.remove(&peer);
            out.push(Action::Close(peer));
        }
        if self.next_shuffle <= now {
            self.shuffle(rng, out);
            let wait = if self.passive.len() * 2 < self.config.passive {
                self.config.hungry_shuffle_interval
            } else {
                self.config.shuffle_interval
            };
            // Spread, so that peers that started together do not all shuffle together. By how much is a guess.
            self.next_shuffle = now + wait.mul_f64(rng.random_range(0.75..1.25));
        }
    }

    fn leave(&mut self, now: Time, rng: &mut impl Rng, out: &mut Actions) {
        self.leaving = true;
        let all: Vec<PeerId> = self.active.keys().copied().collect();
        for peer in all {
            self.put_out(peer, false, now, rng, out);
        }
        self.pending.clear();
    }

    /// Tells a neighbour that it is none any more, and who else there is.
    fn put_out(&mut self, peer: PeerId, alive: bool, now: Time, rng: &mut impl Rng, out: &mut Actions) {
        let peers = self.sample_for(peer, rng);
        self.drop_neighbour(peer, alive, now, rng, out);
        self.links.remove(&peer);
        out.push(Action::Send(peer, Message::Disconnect { alive, peers }));
        out.push(Action::Close(peer));
    }

    /// Contacts to hand to `peer`.
    fn sample_for(&self, peer: PeerId, rng: &mut impl Rng) -> Vec<Contact> {
        let mut peers = self.passive.sample(self.config.shuffle_passive, rng);
        peers.extend(self.sample_active(self.config.shuffle_active, peer, rng));
        peers.retain(|contact| contact.id() != peer);
        peers
    }

    fn sample_active(&self, count: usize, but: PeerId, rng: &mut impl Rng) -> Vec<Contact> {
        let others: Vec<&Contact> =
            self.active.iter().filter(|(peer, _)| **peer != but).map(|(_, neighbour)| &neighbour.contact).collect();
        rand::seq::index::sample(rng, others.len(), count.min(others.len()))
            .into_iter()
            .filter_map(|index| others.get(index).map(|contact| (*contact).clone()))
            .collect()
    }

    fn random_neighbour(&self, rng: &mut impl Rng, wanted: impl Fn(PeerId, &Neighbour) -> bool) -> Option<PeerId> {
        let fits: Vec<PeerId> =
            self.active.iter().filter(|(peer, neighbour)| wanted(**peer, neighbour)).map(|(peer, _)| *peer).collect();
        match fits.len() {
            0 => None,
            len => fits.get(rng.random_range(0..len)).copied(),
        }
    }
}

fn direction(dialled: bool) -> Direction {
    if dialled { Direction::Outgoing } else { Direction::Incoming }
}
