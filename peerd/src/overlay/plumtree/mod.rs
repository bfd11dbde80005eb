//! Plumtree: broadcasts along a tree of eager links, repaired by adverts along all others.
//!
//! Leitão, Pereira, Rodrigues: *Epidemic Broadcast Trees* (SRDS 2007, pp. 301–310). It gets the set of neighbours
//! and does not know how they were chosen. A broadcast is pushed along eager links and
//! advertised (IHAVE) along lazy ones. A broadcast that was advertised and does not arrive is pulled (GRAFT), which
//! makes the link eager; a duplicate makes its link lazy (PRUNE). Differences from the paper:
//!
//! - A broadcast is identified by origin, incarnation and sequence number, not by its content.
//! - The eager links of all senders are the branches of one rooted tree (see [`Tree`]), plus those that
//!   GRAFT added. Without a parent, at the root or after a failure, all links are eager.
//! - A new link carries adverts of recent broadcasts, and one between two partitions adverts of all stored broadcasts, so
//!   that each side pulls what it missed.

mod config;
mod incarnation;
mod message;
mod missing;
mod pull_delay;
mod store;
#[cfg(test)]
mod tests;
mod tree;
mod window;

use std::{collections::BTreeMap, ops::Range, time::Duration};

use bytes::Bytes;
use p2pdi::v1::Signature;
use rand::Rng;

pub use config::*;
pub use incarnation::OwnIncarnation;
pub use message::{Action, Advert, Counts, Event, Gossip, Message, MessageId};
pub use missing::{Due, Missing, Pull};
pub use pull_delay::PullDelay;
pub use store::{Store, Stored};
pub use tree::{Beacon, Root, Tree};
pub use window::{WINDOW, Windows};

use super::{Misbehaviour, PeerId, Time, TokenBucket};

#[derive(Debug)]
struct Edge {
    /// GRAFT made it eager although it is not a branch of the tree.
    grafted: bool,
    /// PRUNE made it lazy although this peer has no parent.
    pruned: bool,
    /// Adverts that wait to be sent.
    adverts: Vec<MessageId>,
    /// Stored broadcasts that arrived before this time have not been advertised.
    advertised_from: Time,
    /// Broadcasts that the neighbour advertised and did not send, more than it sent.
    broken_promises: u32,
    /// Rate of broadcasts from new origins.
    new_origins: TokenBucket,
}

impl Edge {
    fn new(advertised_from: Time, now: Time) -> Self {
        Self {
            grafted: false,
            pruned: false,
            adverts: Vec::new(),
            advertised_from,
            broken_promises: 0,
            new_origins: TokenBucket::holding(NEW_ORIGINS_BURST, NEW_ORIGINS_PER_SECOND, now),
        }
    }

    /// Queues an advert; a full message is sent at once.
    fn advertise(&mut self, peer: PeerId, id: MessageId, store: &Store, now: Time, out: &mut Actions) {
        self.adverts.push(id);
        if self.adverts.len() >= MAX_IDS {
            self.send_adverts(peer, store, now, out);
        }
    }

    fn send_adverts(&mut self, peer: PeerId, store: &Store, now: Time, out: &mut Actions) {
        if self.adverts.is_empty() {
            return;
        }
        let mut adverts = Vec::with_capacity(self.adverts.len());
        adverts.extend(self.adverts.drain(..).filter_map(|id| {
            let stored = store.get(&id)?;
            Some(Advert { id, age: now.saturating_sub(stored.sent_at) })
        }));
        if !adverts.is_empty() {
            out.push(Action::Send(peer, Message::Advertise(adverts)));
        }
    }
}

fn is_eager(tree: &Tree, peer: PeerId, edge: &Edge) -> bool {
    tree.is_branch(peer) || edge.grafted || tree.parent().is_none() && !edge.pruned
}

/// The state machine of Plumtree.
#[derive(Debug)]
pub struct Plumtree {
    me: PeerId,
    own: OwnIncarnation,
    config: Config,
    edges: BTreeMap<PeerId, Edge>,
    tree: Tree,
    seen: Windows,
    store: Store,
    missing: Missing,
    advertise_at: Option<Time>,
    counts: Counts,
}

type Actions = Vec<Action>;

impl Plumtree {
    /// A peer without neighbours. `incarnation` must be larger than every earlier one of `me`.
    pub fn new(me: PeerId, incarnation: u64, config: Config, now: Time) -> Self {
        Self {
            me,
            own: OwnIncarnation::new(me, incarnation, now),
            edges: BTreeMap::new(),
            tree: Tree::new(Root { incarnation, id: me }, config.clone(), now),
            seen: Windows::new(MAX_ORIGINS),
            store: Store::new(MAX_STORED, MAX_STORED_BYTES),
            missing: Missing::new(&config),
            advertise_at: None,
            counts: Counts::default(),
            config,
        }
    }

    /// Sets what the clock showed at the start, in milliseconds since 1970; incarnations of others are checked against it. Without this
    /// call, it is the incarnation.
    pub fn set_clock(&mut self, clock: u64) {
        self.own.set_clock(clock);
    }

    /// The broadcast tree.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The incarnation in the ids of its broadcasts: the one it started with, or a later one (see [`OwnIncarnation`]).
    pub fn incarnation(&self) -> u64 {
        self.own.incarnation()
    }

    /// The counters.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Numbers of known origins, stored broadcasts and missing broadcasts.
    pub fn sizes(&self) -> (usize, usize, usize) {
        (self.seen.len(), self.store.len(), self.missing.len())
    }

    /// Whether broadcasts are pushed to `peer`.
    pub fn is_eager(&self, peer: PeerId) -> bool {
        self.edges.get(&peer).is_some_and(|edge| is_eager(&self.tree, peer, edge))
    }

    /// Broadcasts `payload`; `None` if it is longer than [`MAX_PAYLOAD`].
    pub fn broadcast(&mut self, payload: Bytes, now: Time, out: &mut Vec<Action>) -> Option<MessageId> {
        self.broadcast_signed(payload, |_, _| None, now, out)
    }

    /// Broadcasts `payload` with what `sign` makes of its id and itself; `None` if it is longer than [`MAX_PAYLOAD`].
    pub fn broadcast_signed(
        &mut self,
        payload: Bytes,
        sign: impl FnOnce(&MessageId, &Bytes) -> Option<Signature>,
        now: Time,
        out: &mut Vec<Action>,
    ) -> Option<MessageId> {
        if payload.len() > MAX_PAYLOAD {
            return None;
        }
        let id = self.own.next_id();
        self.seen.insert(&id);
        let signature = sign(&id, &payload);
        let stored = Stored { payload, signature, hops: 0, sent_at: now, from: None };
        self.spread(id, stored, now, out);
        Some(id)
    }

    /// Handles `event` and appends the actions to `out`.
    pub fn handle(&mut self, event: Event, now: Time, rng: &mut impl Rng, out: &mut Actions) {
        let had_parent = self.tree.parent().is_some();
        match event {
            Event::NeighbourUp(peer) => {
                let advertised_from = now.saturating_sub(self.config.undetected_split());
                self.edges.insert(peer, Edge::new(advertised_from, now));
                self.tree.up(peer);
                // The two may have lost each other for so short a time that they do not notice a partition.
                self.advertise_stored(peer, advertised_from..Time::MAX, now, out);
            }
            Event::NeighbourDown(peer) => {
                self.edges.remove(&peer);
                self.tree.down(peer);
                self.missing.down(peer);
            }
            Event::Received { from, message } if self.edges.contains_key(&from) => {
                self.on_message(from, message, now, rng, out);
            }
            Event::Received { .. } => {}
            Event::Tick => self.on_tick(now, rng, out),
        }
        if had_parent && self.tree.parent().is_none() {
            // Without a parent, all links are eager.
            self.edges.values_mut().for_each(|edge| edge.pruned = false);
        }
        for (peer, beacon) in self.tree.drain() {
            out.push(Action::Send(peer, Message::Beacon(beacon)));
        }
    }

    /// When [`Event::Tick`] is next due.
    pub fn next_deadline(&self) -> Time {
        [self.advertise_at, self.missing.next_deadline()].into_iter().flatten().fold(self.tree.next_deadline(), Time::min)
    }

    fn on_message(&mut self, from: PeerId, message: Message, now: Time, rng: &mut impl Rng, out: &mut Actions) {
        match message {
            Message::Beacon(beacon) => {
                if self.tree.on_beacon(from, beacon, now, rng)
                    && let Some(edge) = self.edges.get_mut(&from)
                {
                    let older = Time::ZERO..std::mem::take(&mut edge.advertised_from);
                    self.advertise_stored(from, older, now, out);
                }
            }
            Message::Gossip(gossip) => self.on_gossip(from, gossip, now, out),
            Message::Advertise(adverts) => self.on_adverts(from, adverts, now, out),
            Message::Graft { ids, push } => self.on_graft(from, &ids, push, now, out),
            Message::Prune => {
                if let Some(edge) = self.edges.get_mut(&from) {
                    edge.grafted = false;
                    edge.pruned = true;
                }
                if self.tree.parent() == Some(from) {
                    self.tree.resend(from);
                }
            }
        }
    }

    fn on_gossip(&mut self, from: PeerId, gossip: Gossip, now: Time, out: &mut Actions) {
        let id = gossip.id;
        if gossip.payload.len() > MAX_PAYLOAD {
            out.push(Action::Misbehaved(from, Misbehaviour::PayloadTooLong));
            return;
        }
        if let Some(edge) = self.edges.get_mut(&from) {
            edge.broken_promises = edge.broken_promises.saturating_sub(1);
        }
        self.missing.gave(from, now);
        if self.seen.contains(&id) {
            self.on_duplicate(from, &id, out);
            return;
        }
        self.missing.arrived(&id, from, self.tree.is_branch(from), now);
        let own = id.origin == self.me;
        self.own.continue_after(&id, now);
        if own || self.is_stale(gossip.age, now) || !self.accepts(&id, now) {
            self.counts.stale += 1;
            return;
        }
        if !self.seen.contains_origin(id.origin)
            && let Some(edge) = self.edges.get_mut(&from)
            && !edge.new_origins.try_take(now)
        {
            self.counts.refused += 1;
            return;
        }
        self.seen.insert(&id);
        self.counts.delivered += 1;
        let stored = Stored {
            payload: gossip.payload.clone(),
            signature: gossip.signature.clone(),
            hops: gossip.hops,
            sent_at: now.saturating_sub(gossip.age),
            from: Some(from),
        };
        out.push(Action::Deliver(from, gossip));
        self.spread(id, stored, now, out);
    }

    fn accepts(&self, id: &MessageId, now: Time) -> bool {
        self.own.accepts(id.incarnation, now) && self.seen.accepts(id)
    }

    /// Whether a broadcast is from before this peer started, or so old that no peer should store it any more.
    fn is_stale(&self, age: Duration, now: Time) -> bool {
        age > self.config.retention * 2 || age > self.own.age(now) + self.config.graft_max
    }

    /// Breaks a cycle by pruning a link: the one of the duplicate, unless it is a branch and the one that was faster is not.
    fn on_duplicate(&mut self, from: PeerId, id: &MessageId, out: &mut Actions) {
        self.counts.duplicates += 1;
        let mut prune = from;
        if self.tree.is_branch(from) {
            let Some(first) = self.store.get(id).and_then(|stored| stored.from) else {
                return;
            };
            if first == from || self.tree.is_branch(first) {
                return;
            }
            prune = first;
        }
        if let Some(edge) = self.edges.get_mut(&prune) {
            edge.grafted = false;
            edge.pruned = true;
            out.push(Action::Send(prune, Message::Prune));
        }
    }

    /// Stores a broadcast, pushes it along the eager links and advertises it along the lazy ones.
    fn spread(&mut self, id: MessageId, stored: Stored, now: Time, out: &mut Actions) {
        let (hops, age, from) = (stored.hops.saturating_add(1), now.saturating_sub(stored.sent_at), stored.from);
        let (payload, signature) = (stored.payload.clone(), stored.signature.clone());
        self.store.insert(id, stored, now);
        let mut advertise = false;
        for (peer, edge) in &mut self.edges {
            if Some(*peer) == from {
                continue;
            }
            if is_eager(&self.tree, *peer, edge) {
                self.counts.sent += 1;
                let gossip = Gossip { id, hops, age, payload: payload.clone(), signature: signature.clone() };
                out.push(Action::Send(*peer, Message::Gossip(gossip)));
            } else {
                advertise = true;
                edge.advertise(*peer, id, &self.store, now, out);
            }
        }
        if advertise {
            self.advertise_at.get_or_insert(now + self.config.advertise_delay);
        }
    }

    /// Advertises the stored broadcasts that arrived `within` a time range to a neighbour.
    fn advertise_stored(&mut self, peer: PeerId, within: Range<Time>, now: Time, out: &mut Actions) {
        self.store.expire(now.saturating_sub(self.config.retention));
        let Some(edge) = self.edges.get_mut(&peer) else {
            return;
        };
        for id in self.store.arrived(within) {
            edge.advertise(peer, id, &self.store, now, out);
        }
        if !edge.adverts.is_empty() {
            self.advertise_at.get_or_insert(now + self.config.advertise_delay);
        }
    }

    fn on_adverts(&mut self, from: PeerId, adverts: Vec<Advert>, now: Time, out: &mut Actions) {
        if adverts.len() > MAX_IDS {
            out.push(Action::Misbehaved(from, Misbehaviour::TooManyIds));
            return;
        }
        for Advert { id, age } in adverts {
            self.own.continue_after(&id, now);
            let known = self.seen.contains(&id) || id.origin == self.me;
            if !known && age <= self.config.retention && !self.is_stale(age, now) && self.accepts(&id, now) {
                let backlog = age > self.config.graft_max * 2;
                self.missing.advertised(id, age, from, backlog, now);
            }
        }
    }

    fn on_graft(&mut self, from: PeerId, ids: &[MessageId], push: bool, now: Time, out: &mut Actions) {
        if ids.len() > MAX_IDS {
            out.push(Action::Misbehaved(from, Misbehaviour::TooManyIds));
            return;
        }
        if push && let Some(edge) = self.edges.get_mut(&from) {
            edge.grafted = true;
            edge.pruned = false;
        }
        let mut bytes = 0;
        let mut later = Vec::new();
        for id in ids {
            let Some(stored) = self.store.get(id) else {
                continue;
            };
            bytes += stored.payload.len();
            if bytes > MAX_GRAFT_BYTES {
                later.push(Advert { id: *id, age: now.saturating_sub(stored.sent_at) });
                continue;
            }
            let gossip = Gossip {
                id: *id,
                hops: stored.hops.saturating_add(1),
                age: now.saturating_sub(stored.sent_at),
                payload: stored.payload.clone(),
                signature: stored.signature.clone(),
            };
            self.counts.sent += 1;
            out.push(Action::Send(from, Message::Gossip(gossip)));
        }
        if !later.is_empty() {
            // Sent after the payloads, it tells the neighbour when to pull the rest.
            out.push(Action::Send(from, Message::Advertise(later)));
        }
    }

    fn on_tick(&mut self, now: Time, rng: &mut impl Rng, out: &mut Actions) {
        self.tree.tick(now, rng);
        if self.advertise_at.is_some_and(|at| at <= now) {
            self.advertise_at = None;
            for (peer, edge) in &mut self.edges {
                edge.send_adverts(*peer, &self.store, now, out);
            }
        }
        self.store.expire(now.saturating_sub(self.config.retention));
        let due = self.missing.tick(now);
        self.counts.forgotten += due.forgotten as u64;
        for Pull { holder, ids, push } in due.pulls {
            self.counts.pulled += ids.len() as u64;
            if push && let Some(edge) = self.edges.get_mut(&holder) {
                edge.grafted = true;
                edge.pruned = false;
            }
            out.push(Action::Send(holder, Message::Graft { ids, push }));
        }
        // If broadcasts are so frequent that no peer stores them for long, they are gone by the time they are pulled.
        let busy = self.store.effective_retention(now).is_some_and(|stored| stored < MAX_ANSWER_DELAY);
        for peer in due.broken_promises {
            if busy {
                continue;
            }
            let Some(edge) = self.edges.get_mut(&peer) else {
                continue;
            };
            edge.broken_promises += 1;
            if edge.broken_promises >= MAX_BROKEN_PROMISES {
                edge.broken_promises = 0;
                out.push(Action::Misbehaved(peer, Misbehaviour::BrokenPromises));
            }
        }
    }
}
