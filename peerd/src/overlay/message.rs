//! Messages between linked peers, and the overlay's events and actions.

use std::time::Duration;

use super::{
    Contact, Misbehaviour, PeerId, link, membership, partitions,
    plumtree::{self, Gossip},
};

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
    /// The time of [`Overlay::next_deadline`](super::Overlay::next_deadline) has come.
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
