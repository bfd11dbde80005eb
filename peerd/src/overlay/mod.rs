//! The overlay: which peers are linked, and how a broadcast reaches them all.
//!
//! State machines: [`Overlay::handle`] takes an event and the time and returns actions for the driver. Thousands of them
//! can be simulated with a seed.
//!
//! - [`membership`] (HyParView) chooses the links and knows nothing of broadcasts.
//! - [`plumtree`] spreads broadcasts among neighbours and does not know how they were chosen.
//! - [`partitions`] detects and merges partitions of the overlay.
//! - [`routing`] finds routes to peers by name and relays messages along them.
//! - [`link`] checks liveness and rate of each link, whatever messages it carries.
//! - [`wire`] encodes and decodes messages.
//!
//! This file wires them; it decides nothing itself. What is deliberately absent: authentication (the driver's
//! transport knows who is at the other end; the driver signs and checks what others pass on), dialling,
//! queues and the choice of peers that the registry and the bootnodes offer.
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
pub mod wire;

use bytes::Bytes;
use p2pdi::v1::Signature;
use rand::Rng;
use std::time::Duration;

use link::{Finding, Links, Verdict};
use membership::Membership;
pub use message::{Action, CloseReason, Event, Message};
pub use misbehaviour::Misbehaviour;
pub use p2pdi::token_bucket::TokenBucket;
pub use p2pdi::{contact::Contact, id::PeerId};
use partitions::Partitions;
use plumtree::{MessageId, Plumtree};
pub use time::Time;

/// Parameters of both protocols. The same on all peers of a network.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// HyParView.
    pub membership: membership::Config,
    /// Plumtree.
    pub plumtree: plumtree::Config,
    /// Rates of links.
    pub links: link::Config,
}

/// The size of a payload in bytes, more than [`plumtree::MAX_PAYLOAD`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a broadcast may have {limit} bytes, this one has {0}", limit = plumtree::MAX_PAYLOAD)]
pub struct PayloadTooLong(pub usize);

/// The overlay's state machine of one peer.
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
    /// A peer that knows no other; its first [`Event::Tick`] asks for peers.
    ///
    /// `incarnation` must be larger than every earlier one of this peer (see [`crate::identity::incarnation`]).
    pub fn new(me: Contact, incarnation: u64, config: Config, rng: R, now: Time) -> Self {
        Self {
            rng,
            links: Links::new(config.links),
            plumtree: Plumtree::new(me.id(), incarnation, config.plumtree, now),
            membership: Membership::new(me, config.membership, now),
            partitions: Partitions::new(now),
            throttled: 0,
            paused: 0,
            membership_out: Vec::new(),
            plumtree_out: Vec::new(),
        }
    }

    /// Sets what the clock showed at the start, if the incarnation is ahead of it (see [`Plumtree::set_clock`]).
    pub fn set_clock(&mut self, clock: u64) {
        self.plumtree.set_clock(clock);
    }

    /// The active and the passive view.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// The broadcast tree and its counters.
    pub fn plumtree(&self) -> &Plumtree {
        &self.plumtree
    }

    /// Frames dropped because their sender exceeded its rate.
    pub fn throttled(&self) -> u64 {
        self.throttled
    }

    /// How often a link was paused because its sender exceeded its rate.
    pub fn paused(&self) -> u64 {
        self.paused
    }

    /// Whether something arrived on the link to `peer` so recently that it cannot be dead (see [`link::FRESH`]).
    pub fn is_fresh(&self, peer: PeerId, now: Time) -> bool {
        self.links.is_fresh(peer, now)
    }

    /// Broadcasts `payload` to all peers; returns its id and the actions to carry out.
    ///
    /// # Errors
    /// When it is longer than [`plumtree::MAX_PAYLOAD`].
    pub fn broadcast(&mut self, payload: Bytes, now: Time) -> Result<(MessageId, Vec<Action>), PayloadTooLong> {
        self.broadcast_signed(payload, |_, _| None, now)
    }

    /// The same with what `sign` makes of the id and the payload.
    ///
    /// # Errors
    /// As [`Overlay::broadcast`].
    pub fn broadcast_signed(
        &mut self,
        payload: Bytes,
        sign: impl FnOnce(&MessageId, &Bytes) -> Option<Signature>,
        now: Time,
    ) -> Result<(MessageId, Vec<Action>), PayloadTooLong> {
        let length = payload.len();
        let id = self.plumtree.broadcast_signed(payload, sign, now, &mut self.plumtree_out).ok_or(PayloadTooLong(length))?;
        let mut out = Vec::new();
        self.after_plumtree(now, &mut out);
        Ok((id, out))
    }

    /// Handles `event`; returns the actions to carry out.
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
                    // Messages in flight on the old link are lost.
                    self.tree(plumtree::Event::NeighbourUp(id), now, &mut out);
                }
            }
            Event::LinkDown { peer } => {
                self.links.down(peer, now);
                self.member(membership::Event::LinkDown { peer }, now, &mut out);
            }
            Event::DialFailed { peer } => {
                self.member(membership::Event::DialFailed { peer }, now, &mut out);
            }
            Event::Received { from, message, bytes } => self.on_received(from, message, bytes, now, &mut out),
            Event::PeersFound(peers) => {
                let members = &self.membership;
                let is_candidate = |peer| !members.is_neighbour(peer);
                let probed = self.partitions.found(&peers, &mut self.rng, is_candidate);
                if let Some(contact) = probed {
                    self.member(membership::Event::Connect(contact), now, &mut out);
                }
                self.member(membership::Event::PeersFound(peers), now, &mut out);
            }
            Event::Probe(contact) => {
                if !self.membership.is_neighbour(contact.id()) {
                    self.partitions.probe(contact.id());
                    self.member(membership::Event::Connect(contact), now, &mut out);
                }
            }
            Event::Join(contact) => self.member(membership::Event::Join(contact), now, &mut out),
            Event::Tick => self.on_tick(now, &mut out),
            Event::Leave => self.member(membership::Event::Leave, now, &mut out),
        }
        out
    }

    /// When [`Event::Tick`] is due. It may change with every event.
    pub fn next_deadline(&self, now: Time) -> Time {
        let is_root = self.plumtree.tree().is_root();
        [self.links.next_deadline(), self.membership.next_deadline(now), self.partitions.next_deadline(is_root, now)]
            .into_iter()
            .flatten()
            .fold(self.plumtree.next_deadline(), Time::min)
    }

    /// Counts the time that a frame took, whoever handled it; see [`Links::handled`].
    pub fn handled(&mut self, from: PeerId, took: Duration, now: Time) -> Option<Action> {
        let pause = self.links.handled(from, took, now)?;
        self.paused += 1;
        Some(Action::Pause(from, pause))
    }

    /// Counts a frame that the overlay does not handle itself, such as a relayed message, against its sender's rate, and as a sign that
    /// the link is alive. The first value: whether the frame may be handled.
    pub fn admit(&mut self, from: PeerId, bytes: usize, now: Time) -> (bool, Option<Action>) {
        match self.links.received(from, bytes, now) {
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
            Some(Message::Partitions(message)) => self.on_probe(from, message, now, out),
        }
    }

    fn on_probe(&mut self, from: PeerId, message: partitions::Message, now: Time, out: &mut Vec<Action>) {
        let (root, sequence) = self.plumtree.tree().root();
        match message {
            partitions::Message::Probe(..) => {
                let reply = partitions::Message::Reply(root, sequence);
                self.send(from, Message::Partitions(reply), now, out);
            }
            partitions::Message::Reply(root, sequence) => {
                if self.partitions.answered(from) && self.plumtree.tree().is_other_partition(root, sequence) {
                    self.member(membership::Event::Merge(from), now, out);
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
                    self.links.down(peer, now);
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
                    self.links.down(peer, now);
                    out.push(Action::Close(peer, CloseReason::Unneeded));
                }
                membership::Action::Connected(peer) => {
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
                        // Another neighbour in its slot is more useful.
                        self.member(membership::Event::Drop(peer), now, out);
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
