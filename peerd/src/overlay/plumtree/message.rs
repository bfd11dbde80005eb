//! What is said about broadcasts: between neighbours, to the broadcast machine and by it.

use std::time::Duration;

use bytes::Bytes;

use super::Beacon;
use crate::overlay::{Misbehaviour, PeerId};

/// Names one broadcast for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId {
    /// Who sent it.
    pub origin: PeerId,
    /// In which of its lives.
    pub incarnation: u64,
    /// The how-manieth of that life.
    pub sequence: u64,
}

/// A broadcast on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gossip {
    /// Its name.
    pub id: MessageId,
    /// Links travelled, the one it is on included.
    pub hops: u32,
    /// Time since it was sent, not counting that on links.
    pub age: Duration,
    /// What was broadcast.
    pub payload: Bytes,
}

/// A broadcast that a neighbour has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advert {
    /// Its name.
    pub id: MessageId,
    /// Time since it was sent.
    pub age: Duration,
}

/// What neighbours say to each other about broadcasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Shapes the tree.
    Beacon(Beacon),
    /// A broadcast.
    Gossip(Gossip),
    /// IHAVE.
    Advertise(Vec<Advert>),
    /// Give me these, and push from now on if `push`.
    Graft {
        /// Which.
        ids: Vec<MessageId>,
        /// And push what comes from now on.
        push: bool,
    },
    /// Do not push.
    Prune,
}

/// What the broadcast machine is told.
#[derive(Clone, Debug)]
pub enum Event {
    /// There is a neighbour, or a new link to an old one.
    NeighbourUp(PeerId),
    /// There is one less.
    NeighbourDown(PeerId),
    /// A neighbour said something.
    Received {
        /// Who said it.
        from: PeerId,
        /// What it said.
        message: Message,
    },
    /// Time has passed.
    Tick,
}

/// What it wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Say this.
    Send(PeerId, Message),
    /// Show this, from that neighbour.
    Deliver(PeerId, Gossip),
    /// A peer said what no peer of ours would say.
    Misbehaved(PeerId, Misbehaviour),
}

/// What has happened so far, in broadcasts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Received for the first time and delivered.
    pub delivered: u64,
    /// Received again, and not delivered.
    pub duplicates: u64,
    /// Received, but too old to be told from new, from before this peer was there, or with a name that cannot be.
    pub stale: u64,
    /// Received, but from one more new origin than a link may bring at a time.
    pub refused: u64,
    /// Pulled from a neighbour.
    pub pulled: u64,
    /// Advertised, asked for in vain and forgotten.
    pub forgotten: u64,
    /// Pushed or given to neighbours.
    pub sent: u64,
}
