//! The overlay: which peers are linked, and how a broadcast reaches them all.
//!
//! State machines: [`Overlay::handle`] takes an event and the time and returns what is to be done; nothing here
//! does I/O, reads a clock or makes its own randomness, so that thousands of them can be simulated with a seed.
//!
//! - [`membership`] (HyParView) decides on links and knows nothing of broadcasts.
//! - [`plumtree`] spreads broadcasts among neighbours and does not know where they come from.
//! - [`partitions`] finds groups of peers that have lost each other.
//! - [`link`] watches each link's health and rate, whatever is said on it.
//! - [`wire`] turns messages into bytes and back.
//!
//! This file wires them; it decides nothing itself. What is deliberately absent: authentication (the driver's
//! transport knows who is at the other end; the origin of a relayed broadcast is taken at its word), dialling,
//! queues and the choice of whom the registry and the bootnodes offer.
//!
//! Pure: no I/O, no clock, no randomness of its own.

pub mod link;
pub mod membership;
mod message;
mod misbehaviour;
pub mod partitions;
pub mod plumtree;
pub mod routing;
mod time;
mod token_bucket;
pub mod wire;

use bytes::Bytes;
use rand::Rng;

use link::{Finding, Links, Verdict};
use membership::Membership;
pub use message::{Action, CloseReason, Event, Message};
pub use misbehaviour::Misbehaviour;
pub use p2pdi::{contact::Contact, id::PeerId};
use partitions::Partitions;
use plumtree::{MessageId, Plumtree};
pub use time::Time;
pub use token_bucket::TokenBucket;

/// All numbers that are the same in a network.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Of the membership protocol.
    pub membership: membership::Config,
    /// Of the broadcast protocol.
    pub plumtree: plumtree::Config,
}

/// A payload past [`plumtree::MAX_PAYLOAD`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a broadcast may have {limit} bytes, this one has {0}", limit = plumtree::MAX_PAYLOAD)]
pub struct PayloadTooLong(pub usize);

/// One peer's part of the overlay.
#[derive(Debug)]
pub struct Overlay<R> {
    rng: R,
    links: Links,
    membership: Membership,
    plumtree: Plumtree,
    partitions: Partitions,
    throttled: u64,
    paused: u64,
    membership_out: Vec<membership::Action>,
    plumtree_out: Vec<plumtree::Action>,
}

impl<R: Rng> Overlay<R> {
    /// A peer that knows nobody; its first [`Event::Tick`] will ask for peers.
    ///
    /// `incarnation` must be larger than in any earlier life of this peer: milliseconds since 1970 at its start, where the clock is right and goes on.
    pub fn new(me: Contact, incarnation: u64, config: Config, rng: R, now: Time) -> Self {
        Self {
            rng,
            links: Links::default(),
            plumtree: Plumtree::new(me.id(), incarnation, config.plumtree, now),
            membership: Membership::new(me, config.membership, now),
            partitions: Partitions::new(now),
            throttled: 0,
            paused: 0,
            membership_out: Vec::new(),
            plumtree_out: Vec::new(),
        }
    }

    /// What the clock said at the start, where the incarnation is ahead of it ([`Plumtree::set_clock`]).
    pub fn set_clock(&mut self, clock: u64) {
        self.plumtree.set_clock(clock);
    }

    /// Who is linked, and whom to fall back on.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// The broadcast tree and its counts.
    pub fn plumtree(&self) -> &Plumtree {
        &self.plumtree
    }

    /// Frames dropped since their sender was over its share.
    pub fn throttled(&self) -> u64 {
        self.throttled
    }

    /// Times that a link was to be paused since its sender was over its share.
    pub fn paused(&self) -> u64 {
        self.paused
    }

    /// Whether something came on the link to `peer` so lately that it cannot be dead.
    pub fn is_fresh(&self, peer: PeerId, now: Time) -> bool {
        self.links.is_fresh(peer, now)
    }

    /// Sends `payload` to all peers.
    pub fn broadcast(&mut self, payload: Bytes, now: Time) -> Result<(MessageId, Vec<Action>), PayloadTooLong> {
        let length = payload.len();
        let id = self.plumtree.broadcast(payload, now, &mut self.plumtree_out).ok_or(PayloadTooLong(length))?;
        let mut out = Vec::new();
        self.after_plumtree(now, &mut out);
        Ok((id, out))
    }

    /// Takes note of `event`; returns what is to be done.
    pub fn handle(&mut self, event: Event, now: Time) -> Vec<Action> {
        let mut out = Vec::new();
        match event {
            Event::LinkUp { peer, incarnation, dialled } => {
                self.links.up(peer.id(), now);
                let id = peer.id();
                let was_neighbour = self.membership.is_neighbour(id);
                let event = membership::Event::LinkUp { peer, incarnation, dialled };
                self.member(event, now, &mut out);
                if was_neighbour && self.membership.is_neighbour(id) {
                    // What was under way on the old link is lost.
                    self.tree(plumtree::Event::NeighbourUp(id), now, &mut out);
                }
            }
            Event::LinkDown { peer } => {
                self.links.down(peer);
                self.member(membership::Event::LinkDown { peer }, now, &mut out);
            }
            Event::DialFailed { peer } => {
                self.member(membership::Event::DialFailed { peer }, now, &mut out);
            }
            Event::Received { from, message, bytes } => self.on_received(from, message, bytes, now, &mut out),
            Event::PeersFound(peers) => {
                let members = &self.membership;
                let strange = |peer| !members.is_neighbour(peer);
                let met = self.partitions.found(&peers, &mut self.rng, strange);
                if let Some(contact) = met {
                    self.member(membership::Event::Meet(contact), now, &mut out);
                }
                self.member(membership::Event::PeersFound(peers), now, &mut out);
            }
            Event::Meet(contact) => {
                if !self.membership.is_neighbour(contact.id()) {
                    self.partitions.meet(contact.id());
                    self.member(membership::Event::Meet(contact), now, &mut out);
                }
            }
            Event::Join(contact) => self.member(membership::Event::Join(contact), now, &mut out),
            Event::Tick => self.on_tick(now, &mut out),
            Event::Leave => self.member(membership::Event::Leave, now, &mut out),
        }
        out
    }

    /// When [`Event::Tick`] is due. Ask again after every event.
    pub fn next_deadline(&self, now: Time) -> Time {
        let is_root = self.plumtree.tree().is_root();
        [self.links.next_deadline(), self.membership.next_deadline(now), self.partitions.next_deadline(is_root, now)]
            .into_iter()
            .flatten()
            .fold(self.plumtree.next_deadline(), Time::min)
    }

    /// Counts a frame that is not the overlay's own, such as a relayed message, against its sender's share, and as a sign of life.
    /// The first value says whether it may be handled.
    pub fn admit(&mut self, from: PeerId, bytes: usize, now: Time) -> (bool, Option<Action>) {
        match self.links.heard(from, bytes, now) {
            None => (false, None),
            Some(Verdict::Pass) => (true, None),
            Some(Verdict::PassThenPause(pause)) => {
                self.paused += 1;
                (true, Some(Action::Pause(from, pause)))
            }
            Some(Verdict::Drop) => {
                self.throttled += 1;
                (false, Some(Action::Misbehaved(from, Misbehaviour::Flooding)))
            }
        }
    }

    fn on_received(&mut self, from: PeerId, message: Option<Message>, bytes: usize, now: Time, out: &mut Vec<Action>) {
        let (admitted, action) = self.admit(from, bytes, now);
        out.extend(action);
        if !admitted {
            return;
        }
        match message {
            None => out.push(Action::Misbehaved(from, Misbehaviour::Unreadable)),
            Some(Message::Link(link::Message::Ping(nonce))) => {
                let pong = Message::Link(link::Message::Pong(nonce));
                self.send(from, pong, now, out);
            }
            Some(Message::Link(link::Message::Pong(_))) => {}
            Some(Message::Membership(message)) => {
                let event = membership::Event::Received { from, message };
                self.member(event, now, out);
            }
            Some(Message::Plumtree(message)) => {
                self.tree(plumtree::Event::Received { from, message }, now, out);
            }
            Some(Message::Partitions(message)) => self.on_meeting(from, message, now, out),
        }
    }

    fn on_meeting(&mut self, from: PeerId, message: partitions::Message, now: Time, out: &mut Vec<Action>) {
        let (root, sequence) = self.plumtree.tree().root();
        match message {
            partitions::Message::Probe(..) => {
                let reply = partitions::Message::Reply(root, sequence);
                self.send(from, Message::Partitions(reply), now, out);
            }
            partitions::Message::Reply(root, sequence) => {
                if self.partitions.answered(from) && self.plumtree.tree().is_foreign(root, sequence) {
                    self.member(membership::Event::Bridge(from), now, out);
                }
            }
        }
    }

    fn on_tick(&mut self, now: Time, out: &mut Vec<Action>) {
        for finding in self.links.tick(now) {
            match finding {
                Finding::Ping(peer, nonce) => {
                    let ping = Message::Link(link::Message::Ping(nonce));
                    out.push(Action::Send(peer, ping));
                }
                Finding::Dead(peer) => {
                    self.links.down(peer);
                    out.push(Action::Close(peer, CloseReason::Silent));
                    self.member(membership::Event::LinkDown { peer }, now, out);
                }
            }
        }
        self.member(membership::Event::Tick, now, out);
        self.tree(plumtree::Event::Tick, now, out);
        let is_root = self.plumtree.tree().is_root();
        if self.partitions.tick(is_root, now, &mut self.rng) {
            out.push(Action::AskForPeers(partitions::PROBE_SAMPLE));
        }
    }

    fn member(&mut self, event: membership::Event, now: Time, out: &mut Vec<Action>) {
        self.membership.handle(event, now, &mut self.rng, &mut self.membership_out);
        let mut actions = std::mem::take(&mut self.membership_out);
        for action in actions.drain(..) {
            match action {
                membership::Action::Dial(contact) => out.push(Action::Dial(contact)),
                membership::Action::Send(to, message) => {
                    self.send(to, Message::Membership(message), now, out);
                }
                membership::Action::Close(peer) => {
                    self.links.down(peer);
                    out.push(Action::Close(peer, CloseReason::Unneeded));
                }
                membership::Action::Met(peer) => {
                    let (root, sequence) = self.plumtree.tree().root();
                    let probe = partitions::Message::Probe(root, sequence);
                    self.send(peer, Message::Partitions(probe), now, out);
                }
                membership::Action::NeighbourUp(contact) => {
                    let peer = contact.id();
                    out.push(Action::NeighbourUp(contact));
                    self.tree(plumtree::Event::NeighbourUp(peer), now, out);
                }
                membership::Action::NeighbourDown(peer) => {
                    out.push(Action::NeighbourDown(peer));
                    self.tree(plumtree::Event::NeighbourDown(peer), now, out);
                }
                membership::Action::AskForPeers(count) => out.push(Action::AskForPeers(count)),
                membership::Action::Misbehaved(peer, what) => {
                    out.push(Action::Misbehaved(peer, what));
                }
            }
        }
        self.membership_out = actions;
    }

    fn tree(&mut self, event: plumtree::Event, now: Time, out: &mut Vec<Action>) {
        self.plumtree.handle(event, now, &mut self.rng, &mut self.plumtree_out);
        self.after_plumtree(now, out);
    }

    fn after_plumtree(&mut self, now: Time, out: &mut Vec<Action>) {
        let mut actions = std::mem::take(&mut self.plumtree_out);
        for action in actions.drain(..) {
            match action {
                plumtree::Action::Send(to, message) => {
                    self.send(to, Message::Plumtree(message), now, out);
                }
                plumtree::Action::Deliver(from, gossip) => {
                    out.push(Action::Deliver { from, gossip });
                }
                plumtree::Action::Misbehaved(peer, what) => {
                    out.push(Action::Misbehaved(peer, what));
                    if what == Misbehaviour::BrokenPromises {
                        // Whoever is a neighbour in its place will have something to give.
                        self.member(membership::Event::Part(peer), now, out);
                    }
                }
            }
        }
        self.plumtree_out = actions;
    }

    fn send(&mut self, to: PeerId, message: Message, now: Time, out: &mut Vec<Action>) {
        self.links.sent(to, now);
        out.push(Action::Send(to, message));
    }
}
