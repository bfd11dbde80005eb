//! Messages between linked peers, and the overlay's events and actions.

use std::time::Duration;

use super::{
    Contact, Misbehaviour, PeerId, link, membership, partitions,
    plumtree::{self, Gossip},
};

/// A message on a link, after both sides have said hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Keep-alive of the link.
    Link(link::Message),
    /// HyParView.
    Membership(membership::Message),
    /// Plumtree.
    Plumtree(plumtree::Message),
    /// Detection of partitions.
    Partitions(partitions::Message),
}

/// Input of the overlay's state machine.
#[derive(Clone, Debug)]
pub enum Event {
    /// Both sides have said hello on a new link. If there was a link to this peer already, the new one replaces
    /// it (see [`link::keep`]), and there is no [`Event::LinkDown`] for the old one.
    LinkUp {
        /// The peer at the other end, as its hello says.
        peer: Contact,
        /// Its incarnation.
        incarnation: u64,
        /// This side dialled.
        dialled: bool,
    },
    /// A link ended, but not by [`Action::Close`].
    LinkDown {
        /// The peer at the other end.
        peer: PeerId,
    },
    /// An [`Action::Dial`] failed.
    DialFailed {
        /// The peer that was dialled.
        peer: PeerId,
    },
    /// A frame arrived.
    Received {
        /// The sender.
        from: PeerId,
        /// The message; `None` if it could not be decoded.
        message: Option<Message>,
        /// Its size in bytes on the wire.
        bytes: usize,
    },
    /// The answer to [`Action::AskForPeers`], or peers found otherwise (LAN).
    PeersFound(Vec<Contact>),
    /// The user or the list of bootnodes wants this peer as a neighbour.
    Join(Contact),
    /// This peer, a former neighbour, may be in another partition: link to it and compare roots.
    Probe(Contact),
    /// [`Overlay::next_deadline`](super::Overlay::next_deadline) has passed.
    Tick,
    /// Leave the overlay: say goodbye and close all links.
    Leave,
}

/// What the driver has to do. Actions for one peer keep their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Dial this peer; the result is [`Event::LinkUp`] or [`Event::DialFailed`].
    Dial(Contact),
    /// Close the link, after the frames that wait to be sent on it.
    Close(PeerId, CloseReason),
    /// Send this message.
    Send(PeerId, Message),
    /// Stop reading from this link for this time.
    Pause(PeerId, Duration),
    /// A broadcast arrived for the first time.
    Deliver {
        /// The neighbour that sent it.
        from: PeerId,
        /// The broadcast.
        gossip: Gossip,
    },
    /// A peer became a neighbour.
    NeighbourUp(Contact),
    /// A peer is no longer a neighbour.
    NeighbourDown(PeerId),
    /// Ask the registry for about this many random peers, add the bootnodes, and report them by [`Event::PeersFound`].
    AskForPeers(usize),
    /// A peer broke the protocol: count and log it. The driver may close the link of a peer that does so often.
    Misbehaved(PeerId, Misbehaviour),
}

/// Why a link is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// It is not needed, or no longer.
    Unneeded,
    /// Nothing arrived on it for [`link::DEAD_AFTER`].
    Silent,
}
