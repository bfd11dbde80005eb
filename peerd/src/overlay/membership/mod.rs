//! HyParView: the active view (the neighbours that this peer is linked to) and the passive view (contacts in reserve).
//!
//! Leitão, Pereira, Rodrigues: *HyParView: a membership protocol for reliable gossip-based broadcast*
//! (DSN 2007, pp. 419–429; other page numbers are those of the technical report, see [`Config`]). It knows nothing of the
//! broadcasts on the links. Differences from the paper:
//!
//! - The active view has an outgoing and an incoming part (see [`Config::outgoing`]), so that peers that
//!   only dial in cannot fill it, and some incoming slots are reserved for newcomers.
//! - A peer asks before it becomes a neighbour and gets a reply; a refusal carries contacts to try instead.
//! - A forwarded join ends at a peer that needs a neighbour (in the paper it evicts a random one instead),
//!   since the newcomer also dials peers on its own.
//! - The reply to a shuffle travels back along its walk, so that it needs no new link.
//! - An urgent (high priority) request is refused too if many neighbours were evicted recently, or if its sender was evicted itself.
//! - A peer without candidates asks outside (registry, bootnodes), at once and then with growing pauses, until
//!   its outgoing part is full.

mod config;
mod message;
mod outgoing;
mod passive;
mod requests;
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

/// Which side dialled the link to a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// This peer.
    Outgoing,
    /// The other side.
    Incoming,
}

#[derive(Debug)]
struct Neighbour {
    contact: Contact,
    direction: Direction,
    since: Time,
    /// How often in a row it had refused this peer before.
    refusals: u32,
}

#[derive(Debug)]
struct Link {
    contact: Contact,
    incarnation: u64,
    dialled: bool,
    since: Time,
    /// Rate of the contacts that the other side sends.
    contacts: TokenBucket,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// Fill the outgoing part.
    Neighbour,
    /// Become a neighbour even if the outgoing part is full.
    Force,
    /// Only link; do not become a neighbour.
    Connect,
}

#[derive(Debug)]
struct Pending {
    contact: Contact,
    purpose: Purpose,
    deadline: Time,
    /// The request is sent; before that, the dial is in progress.
    requested: bool,
}

/// Links at once, to neighbours or not: all neighbours of the largest sensible configuration, and as many
/// peers about to be asked or refused. Past it, incoming links are closed, but not dialled ones. A guess.
pub const MAX_LINKS: usize = 64;

/// Contacts accepted from one link per second. A guess: with fast shuffles, one ends at each peer every five seconds, with eight
/// contacts, over any of its links.
const CONTACTS_PER_SECOND: u32 = 1;
/// The same in a burst: one full message.
const CONTACTS_AT_ONCE: u32 = 16;
const _: () = assert!(CONTACTS_AT_ONCE as usize == MAX_CONTACTS);
/// Evicted peers that are remembered. A guess: far more than keep asking.
const MAX_EVICTED: usize = 256;
/// Unreachable peers that are remembered. A guess: the dead peers that others still name after a mass failure.
const MAX_UNREACHABLE: usize = 256;

/// The state machine of HyParView.
#[derive(Debug)]
pub struct Membership {
    me: PeerId,
    contact: Contact,
    config: Config,
    active: BTreeMap<PeerId, Neighbour>,
    passive: PassiveView,
    links: BTreeMap<PeerId, Link>,
    pending: BTreeMap<PeerId, Pending>,
    evictions: TokenBucket,
    /// Peers that were evicted for another, and when each last asked. Their requests evict no peer; otherwise peers that know only this
    /// one would evict each other without end.
    evicted: IndexMap<PeerId, Time>,
    /// Peers that could not be dialled: failures in a row, and until when their contacts are not accepted from others.
    unreachable: IndexMap<PeerId, (u32, Time)>,
    next_shuffle: Time,
    shuffle_nonce: u64,
    /// When to ask for peers again, and the pause after that.
    next_ask: Time,
    asked_at: Option<Time>,
    ask_wait: Duration,
    /// Another peer has accepted this one at least once.
    joined: bool,
    /// The outgoing part has been full, and this peer has not lost all neighbours since.
    settled: bool,
    /// Dials that failed since the last neighbour was found.
    failed_dials: usize,
    leaving: bool,
}

type Actions = Vec<Action>;

impl Membership {
    /// A peer with empty views. `now`: any time before the first event.
    pub fn new(contact: Contact, config: Config, now: Time) -> Self {
        Self {
            me: contact.id(),
            active: BTreeMap::new(),
            passive: PassiveView::new(config.passive),
            links: BTreeMap::new(),
            pending: BTreeMap::new(),
            evictions: TokenBucket::new(config.evictions_per_second, now),
            evicted: IndexMap::new(),
            unreachable: IndexMap::new(),
            next_shuffle: now + config.fast_shuffle_interval,
            shuffle_nonce: 0,
            next_ask: now,
            asked_at: None,
            ask_wait: config.ask_min,
            joined: false,
            settled: false,
            failed_dials: 0,
            leaving: false,
            contact,
            config,
        }
    }

    /// The neighbours, each with the side that dialled.
    pub fn neighbours(&self) -> impl Iterator<Item = (&Contact, Direction)> {
        self.active.values().map(|n| (&n.contact, n.direction))
    }

    /// Whether `peer` is a neighbour.
    pub fn is_neighbour(&self, peer: PeerId) -> bool {
        self.active.contains_key(&peer)
    }

    /// Whether a dial or a request to `peer` is in progress.
    pub fn is_pending(&self, peer: PeerId) -> bool {
        self.pending.contains_key(&peer)
    }

    /// The passive view.
    pub fn passive(&self) -> &PassiveView {
        &self.passive
    }

    /// How many more peers it would dial now if it had their contacts.
    pub fn wanted(&self) -> usize {
        if self.leaving { 0 } else { self.dials_needed() }
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Handles `event` and appends the actions to `out`.
    pub fn handle(&mut self, event: Event, now: Time, rng: &mut impl Rng, out: &mut Actions) {
        match event {
            Event::LinkUp { peer, incarnation, dialled } => self.on_link_up(peer, incarnation, dialled, now, rng, out),
            Event::LinkDown { peer } => self.on_link_down(peer, now, rng, out),
            Event::DialFailed { peer } => {
                // If the peer is linked by its own dial and was asked on that link, its reply still counts.
                let requested = self.pending.get(&peer).is_some_and(|pending| pending.requested);
                if !requested && let Some(pending) = self.pending.remove(&peer) {
                    self.passive.remove(peer);
                    if pending.purpose != Purpose::Connect {
                        self.failed_dials = self.failed_dials.saturating_add(1);
                    }
                    self.mark_unreachable(peer, now);
                }
            }
            Event::Received { from, message } => self.on_message(from, message, now, rng, out),
            Event::PeersFound(peers) => {
                // A fresh sample is better than old entries, and peers that could not be dialled before may be reachable now.
                self.remember(peers, rng);
            }
            Event::Join(contact) => self.dial(contact, Purpose::Force, now, rng, out),
            Event::Connect(contact) => self.dial(contact, Purpose::Connect, now, rng, out),
            Event::Merge(peer) => {
                if let Some(link) = self.links.get(&peer) {
                    let contact = link.contact.clone();
                    self.dial(contact, Purpose::Force, now, rng, out);
                }
            }
            Event::Drop(peer) => {
                if self.active.contains_key(&peer) {
                    self.disconnect(peer, true, now, rng, out);
                    self.passive.remove(peer);
                    self.after_loss(now);
                }
            }
            Event::Tick => self.on_tick(now, rng, out),
            Event::Leave => self.leave(now, rng, out),
        }
        self.fill_outgoing(now, rng, out);
    }

    /// When [`Event::Tick`] is next due; `None` after a leave.
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
        if self.dials_needed() > 0 {
            if self.joined || self.pending.is_empty() {
                next = next.min(self.next_ask);
            }
            if let Some(eligible) = self.passive.next_eligible(now) {
                next = next.min(eligible);
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
            let refused_urgent = self.is_urgent(pending.purpose);
            self.pending.remove(&peer);
            self.back_off(peer, refused_urgent, now);
        }
        if self.drop_neighbour(peer, false, now, rng, out) {
            self.after_loss(now);
        }
    }

    /// Removes `peer` from the active view, and adds it to the passive view if `keep`. Returns whether it was a neighbour.
    fn drop_neighbour(&mut self, peer: PeerId, keep: bool, now: Time, rng: &mut impl Rng, out: &mut Actions) -> bool {
        let Some(neighbour) = self.active.remove(&peer) else {
            return false;
        };
        out.push(Action::NeighbourDown(peer));
        if keep {
            let stayed = now.saturating_sub(neighbour.since) >= self.config.ask_max;
            let refusals = if stayed { 0 } else { neighbour.refusals };
            self.passive.insert_linked(neighbour.contact, refusals, rng);
        }
        true
    }

    /// Rejects the contact of a peer that could not be dialled for a while, because others keep naming it.
    fn mark_unreachable(&mut self, peer: PeerId, now: Time) {
        let times = self.unreachable.get(&peer).map_or(0, |(times, _)| *times);
        let pause = self.refusal_pauses().pause(times);
        if self.unreachable.len() >= MAX_UNREACHABLE && times == 0 {
            self.unreachable.shift_remove_index(0);
        }
        self.unreachable.insert(peer, (times.saturating_add(1), now + pause));
    }

    fn refusal_pauses(&self) -> Policy {
        Policy { first: self.config.refused_pause, longest: self.config.ask_max }
    }

    /// Does not ask a peer for a while that refused or evicted this one.
    fn back_off(&mut self, peer: PeerId, refused_urgent: bool, now: Time) {
        let pauses = self.refusal_pauses();
        self.passive.back_off(peer, refused_urgent, pauses, now);
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
        let expired: Vec<PeerId> =
            self.pending.iter().filter(|(_, pending)| pending.deadline <= now).map(|(peer, _)| *peer).collect();
        for peer in expired {
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
                self.config.fast_shuffle_interval
            } else {
                self.config.shuffle_interval
            };
            // Jitter, so that peers that started together do not all shuffle together. Its range is a guess.
            self.next_shuffle = now + wait.mul_f64(rng.random_range(0.75..1.25));
        }
    }

    fn leave(&mut self, now: Time, rng: &mut impl Rng, out: &mut Actions) {
        self.leaving = true;
        let all: Vec<PeerId> = self.active.keys().copied().collect();
        for peer in all {
            self.disconnect(peer, false, now, rng, out);
        }
        self.pending.clear();
    }

    /// Tells a peer that it is no longer a neighbour, and names other peers.
    fn disconnect(&mut self, peer: PeerId, alive: bool, now: Time, rng: &mut impl Rng, out: &mut Actions) {
        let peers = self.sample_for(peer, rng);
        self.drop_neighbour(peer, alive, now, rng, out);
        self.links.remove(&peer);
        out.push(Action::Send(peer, Message::Disconnect { alive, peers }));
        out.push(Action::Close(peer));
    }

    /// Contacts to send to `peer`.
    fn sample_for(&self, peer: PeerId, rng: &mut impl Rng) -> Vec<Contact> {
        let mut peers = self.passive.sample(self.config.shuffle_passive, rng);
        peers.extend(self.sample_active(self.config.shuffle_active, peer, rng));
        peers.retain(|contact| contact.id() != peer);
        peers
    }

    fn sample_active(&self, count: usize, except: PeerId, rng: &mut impl Rng) -> Vec<Contact> {
        let others: Vec<&Contact> =
            self.active.iter().filter(|(peer, _)| **peer != except).map(|(_, neighbour)| &neighbour.contact).collect();
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
