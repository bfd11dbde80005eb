//! Messages of HyParView, and the events and actions of its state machine.

use crate::overlay::{Misbehaviour, PeerId};
use p2pdi::contact::Contact;

/// A message between peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// JOIN: the sender is new.
    Join,
    /// FORWARDJOIN: the contact of a newcomer on a random walk.
    ForwardJoin {
        /// The newcomer.
        newcomer: Contact,
        /// Remaining hops.
        ttl: u32,
    },
    /// NEIGHBOR: asks the receiver to become a neighbour.
    Request {
        /// High priority: the sender has no neighbour, or merges two partitions.
        urgent: bool,
    },
    /// Answers `Join` and `Request`.
    Reply {
        /// The two are neighbours now.
        accepted: bool,
        /// Contacts for the receiver's passive view.
        peers: Vec<Contact>,
    },
    /// DISCONNECT: the two are no longer neighbours.
    Disconnect {
        /// The sender stays in the network.
        alive: bool,
        /// Contacts for the receiver's passive view.
        peers: Vec<Contact>,
    },
    /// SHUFFLE: contacts on a random walk.
    Shuffle {
        /// Chosen by the origin.
        nonce: u64,
        /// Ids of the peers on the walk, the origin first.
        path: Vec<PeerId>,
        /// Remaining hops.
        ttl: u32,
        /// Contacts for the passive view of the last peer on the walk.
        peers: Vec<Contact>,
    },
    /// SHUFFLEREPLY: travels back along the path of its shuffle.
    ShuffleReply {
        /// Chosen by the origin.
        nonce: u64,
        /// Ids of the peers on the walk, the origin first.
        path: Vec<PeerId>,
        /// Contacts for the passive view of the origin.
        peers: Vec<Contact>,
    },
}

/// Input of the state machine.
#[derive(Clone, Debug)]
pub enum Event {
    /// A link came up, or replaced an older one.
    LinkUp {
        /// The peer at the other end.
        peer: Contact,
        /// Its incarnation.
        incarnation: u64,
        /// This side dialled.
        dialled: bool,
    },
    /// A link ended.
    LinkDown {
        /// The peer at the other end.
        peer: PeerId,
    },
    /// A dial failed.
    DialFailed {
        /// The peer that was dialled.
        peer: PeerId,
    },
    /// A message arrived.
    Received {
        /// The sender.
        from: PeerId,
        /// The message.
        message: Message,
    },
    /// Contacts from outside the overlay.
    PeersFound(Vec<Contact>),
    /// Become a neighbour of this peer, even if the outgoing part is full.
    Join(Contact),
    /// Link to this peer without becoming its neighbour; ends with [`Action::Connected`] if that succeeds.
    Connect(Contact),
    /// Become a neighbour of a linked peer: it is in another partition.
    Merge(PeerId),
    /// End being a neighbour of this peer, and remove it from the passive view.
    Drop(PeerId),
    /// [`super::Membership::next_deadline`] has passed.
    Tick,
    /// Say goodbye to all neighbours.
    Leave,
}

/// Output of the state machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Dial this peer; the result is `LinkUp` or `DialFailed`.
    Dial(Contact),
    /// Send this message.
    Send(PeerId, Message),
    /// Close the link, after the messages that wait to be sent on it.
    Close(PeerId),
    /// The link for [`Event::Connect`] is up.
    Connected(PeerId),
    /// A new neighbour.
    NeighbourUp(Contact),
    /// A peer is no longer a neighbour.
    NeighbourDown(PeerId),
    /// Find this many peers outside the overlay.
    AskForPeers(usize),
    /// A peer broke the protocol.
    Misbehaved(PeerId, Misbehaviour),
}
