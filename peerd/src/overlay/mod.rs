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
pub mod partitions;
pub mod plumtree;
pub mod routing;
pub mod wire;

use std::time::Duration;

use bytes::Bytes;
use rand::Rng;

use link::{Finding, Links, Verdict};
use membership::Membership;
pub use p2pdi::{contact::Contact, id::PeerId};
use partitions::Partitions;
use plumtree::{Gossip, MessageId, Plumtree};

/// Time since a start of the driver's choosing; never goes back.
pub type Time = Duration;

/// What one peer says to another on a link, after both have said hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// About the link itself.
    Link(link::Message),
    /// About who is linked to whom.
    Membership(membership::Message),
    /// About broadcasts.
    Plumtree(plumtree::Message),
    /// About islands.
    Partitions(partitions::Message),
}

/// Why a frame was dropped and its sender named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Misbehaviour {
    /// Not a frame, or with a field that cannot be.
    #[error("sent a frame that cannot be read")]
    Unreadable,
    /// A message longer than is taken; what follows it cannot be found.
    #[error("sent a frame past the limit")]
    FrameTooLong,
    /// A greeting that cannot be true.
    #[error("greeted with what cannot be")]
    WrongGreeting,
    /// More contacts than a message may carry.
    #[error("sent more contacts than a message may carry")]
    TooManyContacts,
    /// More ids than a message may carry.
    #[error("sent more ids than a message may carry")]
    TooManyIds,
    /// A shuffle that did not come the way it says.
    #[error("sent a shuffle that did not come the way it says")]
    BadPath,
    /// A broadcast past [`plumtree::MAX_PAYLOAD`].
    #[error("sent a broadcast past the limit")]
    PayloadTooLong,
    /// Advertised many broadcasts and did not give them.
    #[error("advertised broadcasts and did not give them")]
    BrokenPromises,
    /// Kept sending although it was throttled.
    #[error("sent more than its share")]
    Flooding,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// Both sides have said hello on a new link. If there was one to this peer already, this is the
    /// one that stays (see [`link::keep`]), and no [`Event::LinkDown`] is given for the other.
    LinkUp {
        /// Who is at the other end, by its hello.
        peer: Contact,
        /// Which of its lives.
        incarnation: u64,
        /// This side dialled.
        dialled: bool,
    },
    /// A link ended, but not by [`Action::Close`].
    LinkDown {
        /// Who was at the other end.
        peer: PeerId,
    },
    /// An [`Action::Dial`] came to nothing.
    DialFailed {
        /// Who was to be dialled.
        peer: PeerId,
    },
    /// A frame arrived.
    Received {
        /// From whom.
        from: PeerId,
        /// What it said; `None` if that could not be read.
        message: Option<Message>,
        /// Its size in bytes on the wire.
        bytes: usize,
    },
    /// The answer to [`Action::AskForPeers`], or peers that turned up by themselves (LAN).
    PeersFound(Vec<Contact>),
    /// A person or a bootnode list wants this peer as a neighbour.
    Join(Contact),
    /// This peer, lost before, may be of another island by now: see whether it is there, and compare roots.
    Meet(Contact),
    /// The time of [`Overlay::next_deadline`] has come.
    Tick,
    /// Say goodbye; nothing but closing of links follows.
    Leave,
}

/// What is to be done. In order, for each peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make a link to this peer, and say [`Event::LinkUp`] or [`Event::DialFailed`] in the end.
    Dial(Contact),
    /// Close the link, after sending what was to be sent on it.
    Close(PeerId, CloseReason),
    /// Send this frame.
    Send(PeerId, Message),
    /// Read nothing from this link for so long.
    Pause(PeerId, Duration),
    /// A broadcast arrived, for the first time.
    Deliver {
        /// Which neighbour brought it.
        from: PeerId,
        /// The broadcast.
        gossip: Gossip,
    },
    /// A peer became a neighbour.
    NeighbourUp(Contact),
    /// A peer is no longer a neighbour.
    NeighbourDown(PeerId),
    /// Find about this many peers at random from the registry, and the bootnodes, and say [`Event::PeersFound`].
    AskForPeers(usize),
    /// Drop, count and log it; a driver may close the link of who is named often.
    Misbehaved(PeerId, Misbehaviour),
}

/// Why a link is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// It is not needed (any more).
    Unneeded,
    /// Nothing was heard on it for [`link::DEAD_AFTER`].
    Silent,
}

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
