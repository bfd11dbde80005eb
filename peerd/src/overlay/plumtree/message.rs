//! Messages of Plumtree, and the events and actions of its state machine.

use std::time::Duration;

use bytes::Bytes;
use p2pdi::v1::Signature;

use super::Beacon;
use crate::overlay::{Misbehaviour, PeerId};

/// Unique id of a broadcast: origin, incarnation, sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId {
    /// The peer that sent it.
    pub origin: PeerId,
    /// The incarnation of the origin.
    pub incarnation: u64,
    /// Counts the broadcasts of that incarnation, from 1.
    pub sequence: u64,
}

/// A broadcast on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gossip {
    /// Its id.
    pub id: MessageId,
    /// Links travelled, including the one that it is on.
    pub hops: u32,
    /// Time since it was sent, without the latency of links.
    pub age: Duration,
    /// The payload.
    pub payload: Bytes,
    /// The origin's signature without its chain, if the network has signatures. It is passed on and never read here.
    pub signature: Option<Signature>,
}

/// IHAVE for one broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advert {
    /// Its id.
    pub id: MessageId,
    /// Time since it was sent.
    pub age: Duration,
}

/// A message between neighbours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Maintains the tree.
    Beacon(Beacon),
    /// GOSSIP: a broadcast.
    Gossip(Gossip),
    /// IHAVE: broadcasts that the sender has.
    Advertise(Vec<Advert>),
    /// GRAFT: asks for broadcasts.
    Graft {
        /// The broadcasts to send.
        ids: Vec<MessageId>,
        /// Make the link eager: push broadcasts from now on.
        push: bool,
    },
    /// PRUNE: make the link lazy, do not push.
    Prune,
}

/// Input of the state machine.
#[derive(Clone, Debug)]
pub enum Event {
    /// A new neighbour, or a new link to an existing one.
    NeighbourUp(PeerId),
    /// A peer is no longer a neighbour.
    NeighbourDown(PeerId),
    /// A message arrived.
    Received {
        /// The sender.
        from: PeerId,
        /// The message.
        message: Message,
    },
    /// [`super::Plumtree::next_deadline`] has passed.
    Tick,
}

/// Output of the state machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this message.
    Send(PeerId, Message),
    /// Deliver this broadcast, which this neighbour sent.
    Deliver(PeerId, Gossip),
    /// A peer broke the protocol.
    Misbehaved(PeerId, Misbehaviour),
}

/// Counters of broadcasts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Received for the first time and delivered.
    pub delivered: u64,
    /// Received again, and not delivered.
    pub duplicates: u64,
    /// Not delivered: too old to tell whether it is a duplicate, from before this peer started, or with an implausible id.
    pub stale: u64,
    /// Not delivered: its link sent too many new origins.
    pub refused: u64,
    /// Pulled from a neighbour.
    pub pulled: u64,
    /// Advertised, pulled without an answer, and given up.
    pub forgotten: u64,
    /// Sent to neighbours, pushed or pulled.
    pub sent: u64,
}
