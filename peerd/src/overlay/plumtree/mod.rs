//! Plumtree: how a broadcast reaches every peer, along a tree where that works and by asking where it does not.
//!
//! Leitão, Pereira, Rodrigues: *Epidemic Broadcast Trees* (SRDS 2007, pp. 301–310). It knows the neighbours that
//! it is told of and nothing of how they are found. A broadcast is pushed along eager links and
//! advertised (IHAVE) along lazy ones; what was advertised and does not come is pulled (GRAFT), which
//! makes the link eager; what comes twice is not wanted from there (PRUNE). Where it departs from
//! the paper:
//!
//! - A broadcast is named by origin, incarnation and sequence number, not by its content.
//! - The eager links of all senders are the branches of one rooted tree (see [`Tree`]), plus what
//!   GRAFT added since. Without a parent, at the root or after a failure, all links are eager.
//! - A new link carries adverts for what came lately, and one between two islands for all that is kept, so
//!   that each side pulls what it missed.

mod config;
mod incarnations;
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
use rand::Rng;

pub use config::*;
pub use incarnations::Incarnations;
pub use message::{Action, Advert, Counts, Event, Gossip, Message, MessageId};
pub use missing::{Due, Missing, Pull};
pub use pull_delay::PullDelay;
pub use store::{Kept, Store};
pub use tree::{Beacon, Root, Tree};
pub use window::{WINDOW, Windows};

use super::{Misbehaviour, PeerId, Time, TokenBucket};

#[derive(Debug)]
struct Edge {
    /// GRAFT made it eager although it is no branch.
    grafted: bool,
    /// PRUNE made it lazy although there is no parent.
    pruned: bool,
    /// To be advertised.
    adverts: Vec<MessageId>,
    /// What arrived before and is kept has not been advertised.
    advertised_from: Time,
    broken_promises: u32,
    /// For origins that nobody has brought before.
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
            new_origins: TokenBucket::holding(NEW_ORIGINS_AT_ONCE, NEW_ORIGINS_PER_SECOND, now),
        }
    }

    /// Adds one to what is to be advertised; what fills a message goes at once.
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
            let kept = store.get(&id)?;
            Some(Advert { id, age: now.saturating_sub(kept.born) })
        }));
        if !adverts.is_empty() {
            out.push(Action::Send(peer, Message::Advertise(adverts)));
        }
    }
}

fn is_eager(tree: &Tree, peer: PeerId, side: &Edge) -> bool {
    tree.is_branch(peer) || side.grafted || tree.parent().is_none() && !side.pruned
}

/// The broadcast machine.
#[derive(Debug)]
pub struct Plumtree {
    me: PeerId,
    incarnations: Incarnations,
    config: Config,
    sides: BTreeMap<PeerId, Edge>,
    tree: Tree,
    seen: Windows,
    store: Store,
    missing: Missing,
    advertise_at: Option<Time>,
    counts: Counts,
}

type Actions = Vec<Action>;

impl Plumtree {
    /// A peer without neighbours. `incarnation` must be larger than in any earlier life of `me`.
    pub fn new(me: PeerId, incarnation: u64, config: Config, now: Time) -> Self {
        Self {
            me,
            incarnations: Incarnations::new(me, incarnation, now),
            sides: BTreeMap::new(),
            tree: Tree::new(Root { incarnation, id: me }, config.clone(), now),
            seen: Windows::new(MAX_ORIGINS),
            store: Store::new(MAX_KEPT, MAX_KEPT_BYTES),
            missing: Missing::new(&config),
            advertise_at: None,
            counts: Counts::default(),
            config,
        }
    }

    /// What the clock said at the start, in milliseconds since 1970: what others call their lives is judged by it. Without it, the
    /// incarnation is taken for it.
    pub fn set_clock(&mut self, clock: u64) {
        self.incarnations.set_clock(clock);
    }

    /// The shape of the tree.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// What its broadcasts are named by: the incarnation it started with, or a later one (see [`Incarnations`]).
    pub fn incarnation(&self) -> u64 {
        self.incarnations.incarnation()
    }

    /// What has happened so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Origins remembered, broadcasts kept, broadcasts missing.
    pub fn sizes(&self) -> (usize, usize, usize) {
        (self.seen.len(), self.store.len(), self.missing.len())
    }

    /// Whether broadcasts are pushed to `peer`.
    pub fn is_eager(&self, peer: PeerId) -> bool {
        self.sides.get(&peer).is_some_and(|side| is_eager(&self.tree, peer, side))
    }

    /// Sends `payload` to all; `None` if it is longer than [`MAX_PAYLOAD`].
    pub fn broadcast(&mut self, payload: Bytes, now: Time, out: &mut Vec<Action>) -> Option<MessageId> {
        if payload.len() > MAX_PAYLOAD {
            return None;
        }
        let id = self.incarnations.name();
        self.seen.insert(&id);
        let kept = Kept { payload, hops: 0, born: now, from: None };
        self.spread(id, kept, now, out);
        Some(id)
    }

    /// Takes note of `event` and adds what is to be done to `out`.
    pub fn handle(&mut self, event: Event, now: Time, rng: &mut impl Rng, out: &mut Actions) {
        let had_parent = self.tree.parent().is_some();
        match event {
            Event::NeighbourUp(peer) => {
                let advertised_from = now.saturating_sub(self.config.lapse());
                self.sides.insert(peer, Edge::new(advertised_from, now));
                self.tree.up(peer);
                // Both may have lost each other, and others, for so short a time that they are no islands to each other.
                self.advertise_kept(peer, advertised_from..Time::MAX, now, out);
            }
            Event::NeighbourDown(peer) => {
                self.sides.remove(&peer);
                self.tree.down(peer);
                self.missing.down(peer);
            }
            Event::Received { from, message } if self.sides.contains_key(&from) => {
                self.on_message(from, message, now, rng, out);
            }
            Event::Received { .. } => {}
            Event::Tick => self.on_tick(now, rng, out),
        }
        if had_parent && self.tree.parent().is_none() {
            // On its own for now: every link counts again.
            self.sides.values_mut().for_each(|side| side.pruned = false);
        }
        for (peer, beacon) in self.tree.drain() {
            out.push(Action::Send(peer, Message::Beacon(beacon)));
        }
    }

    /// When it wants an [`Event::Tick`].
    pub fn next_deadline(&self) -> Time {
        [self.advertise_at, self.missing.next_deadline()].into_iter().flatten().fold(self.tree.next_deadline(), Time::min)
    }

    fn on_message(&mut self, from: PeerId, message: Message, now: Time, rng: &mut impl Rng, out: &mut Actions) {
        match message {
            Message::Beacon(beacon) => {
                if self.tree.on_beacon(from, beacon, now, rng)
                    && let Some(side) = self.sides.get_mut(&from)
                {
                    let rest = Time::ZERO..std::mem::take(&mut side.advertised_from);
                    self.advertise_kept(from, rest, now, out);
                }
            }
            Message::Gossip(gossip) => self.on_gossip(from, gossip, now, out),
            Message::Advertise(adverts) => self.on_adverts(from, adverts, now, out),
            Message::Graft { ids, push } => self.on_graft(from, &ids, push, now, out),
            Message::Prune => {
                if let Some(side) = self.sides.get_mut(&from) {
                    side.grafted = false;
                    side.pruned = true;
                }
                if self.tree.parent() == Some(from) {
                    self.tree.remind(from);
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
        if let Some(side) = self.sides.get_mut(&from) {
            side.broken_promises = side.broken_promises.saturating_sub(1);
        }
        self.missing.gave(from, now);
        if self.seen.contains(&id) {
            self.on_duplicate(from, &id, out);
            return;
        }
        self.missing.arrived(&id, from, self.tree.is_branch(from), now);
        let own = id.origin == self.me;
        self.incarnations.go_on_after(&id, now);
        if own || self.is_stale(gossip.age, now) || !self.believes(&id, now) {
            self.counts.stale += 1;
            return;
        }
        if !self.seen.knows(id.origin)
            && let Some(side) = self.sides.get_mut(&from)
            && !side.new_origins.try_take(now)
        {
            self.counts.refused += 1;
            return;
        }
        self.seen.insert(&id);
        self.counts.delivered += 1;
        let kept =
            Kept { payload: gossip.payload.clone(), hops: gossip.hops, born: now.saturating_sub(gossip.age), from: Some(from) };
        out.push(Action::Deliver(from, gossip));
        self.spread(id, kept, now, out);
    }

    fn believes(&self, id: &MessageId, now: Time) -> bool {
        self.incarnations.believes(id.incarnation, now) && self.seen.believes(id)
    }

    /// From before this peer was there, or so old that nobody should have it any more.
    fn is_stale(&self, age: Duration, now: Time) -> bool {
        age > self.config.retention * 2 || age > self.incarnations.age(now) + self.config.graft_max
    }

    /// Takes a link out of a cycle: this one, unless it is a branch and the one that was faster is not.
    fn on_duplicate(&mut self, from: PeerId, id: &MessageId, out: &mut Actions) {
        self.counts.duplicates += 1;
        let mut prune = from;
        if self.tree.is_branch(from) {
            let Some(first) = self.store.get(id).and_then(|kept| kept.from) else {
                return;
            };
            if first == from || self.tree.is_branch(first) {
                return;
            }
            prune = first;
        }
        if let Some(side) = self.sides.get_mut(&prune) {
            side.grafted = false;
            side.pruned = true;
            out.push(Action::Send(prune, Message::Prune));
        }
    }

    /// Pushes along the eager links, advertises along the others, and keeps it.
    fn spread(&mut self, id: MessageId, kept: Kept, now: Time, out: &mut Actions) {
        let (hops, age, from) = (kept.hops.saturating_add(1), now.saturating_sub(kept.born), kept.from);
        let payload = kept.payload.clone();
        self.store.insert(id, kept, now);
        let mut advertise = false;
        for (peer, side) in &mut self.sides {
            if Some(*peer) == from {
                continue;
            }
            if is_eager(&self.tree, *peer, side) {
                self.counts.sent += 1;
                let gossip = Gossip { id, hops, age, payload: payload.clone() };
                out.push(Action::Send(*peer, Message::Gossip(gossip)));
            } else {
                advertise = true;
                side.advertise(*peer, id, &self.store, now, out);
            }
        }
        if advertise {
            self.advertise_at.get_or_insert(now + self.config.advertise_delay);
        }
    }

    /// Tells a neighbour of what is kept and arrived within a time.
    fn advertise_kept(&mut self, peer: PeerId, within: Range<Time>, now: Time, out: &mut Actions) {
        self.store.expire(now.saturating_sub(self.config.retention));
        let Some(side) = self.sides.get_mut(&peer) else {
            return;
        };
        for id in self.store.arrived(within) {
            side.advertise(peer, id, &self.store, now, out);
        }
        if !side.adverts.is_empty() {
            self.advertise_at.get_or_insert(now + self.config.advertise_delay);
        }
    }

    fn on_adverts(&mut self, from: PeerId, adverts: Vec<Advert>, now: Time, out: &mut Actions) {
        if adverts.len() > MAX_IDS {
            out.push(Action::Misbehaved(from, Misbehaviour::TooManyIds));
            return;
        }
        for Advert { id, age } in adverts {
            self.incarnations.go_on_after(&id, now);
            let known = self.seen.contains(&id) || id.origin == self.me;
            if !known && age <= self.config.retention && !self.is_stale(age, now) && self.believes(&id, now) {
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
        if push && let Some(side) = self.sides.get_mut(&from) {
            side.grafted = true;
            side.pruned = false;
        }
        let mut bytes = 0;
        let mut later = Vec::new();
        for id in ids {
            let Some(kept) = self.store.get(id) else {
                continue;
            };
            bytes += kept.payload.len();
            if bytes > MAX_GRAFT_BYTES {
                later.push(Advert { id: *id, age: now.saturating_sub(kept.born) });
                continue;
            }
            let gossip = Gossip {
                id: *id,
                hops: kept.hops.saturating_add(1),
                age: now.saturating_sub(kept.born),
                payload: kept.payload.clone(),
            };
            self.counts.sent += 1;
            out.push(Action::Send(from, Message::Gossip(gossip)));
        }
        if !later.is_empty() {
            // It comes after what is given, and so says when to ask for the rest.
            out.push(Action::Send(from, Message::Advertise(later)));
        }
    }

    fn on_tick(&mut self, now: Time, rng: &mut impl Rng, out: &mut Actions) {
        self.tree.tick(now, rng);
        if self.advertise_at.is_some_and(|at| at <= now) {
            self.advertise_at = None;
            for (peer, side) in &mut self.sides {
                side.send_adverts(*peer, &self.store, now, out);
            }
        }
        self.store.expire(now.saturating_sub(self.config.retention));
        let due = self.missing.tick(now);
        self.counts.forgotten += due.forgotten as u64;
        for Pull { holder, ids, push } in due.pulls {
            self.counts.pulled += ids.len() as u64;
            if push && let Some(side) = self.sides.get_mut(&holder) {
                side.grafted = true;
                side.pruned = false;
            }
            out.push(Action::Send(holder, Message::Graft { ids, push }));
        }
        // When so much is said that nobody keeps it for long, what was advertised is gone by the time it is asked for.
        let busy = self.store.keeps_for(now).is_some_and(|kept| kept < MAX_ANSWER);
        for peer in due.broken {
            if busy {
                continue;
            }
            let Some(side) = self.sides.get_mut(&peer) else {
                continue;
            };
            side.broken_promises += 1;
            if side.broken_promises >= MAX_BROKEN_PROMISES {
                side.broken_promises = 0;
                out.push(Action::Misbehaved(peer, Misbehaviour::BrokenPromises));
            }
        }
    }
}
