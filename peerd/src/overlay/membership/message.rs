//! What is said about membership: between peers, to the membership machine and by it.

use crate::overlay::{Misbehaviour, PeerId};
use p2pdi::contact::Contact;

/// What peers say to each other about membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The sender is new.
    Join,
    /// A newcomer's contact on a random walk with `ttl` hops to go.
    ForwardJoin {
        /// Who is new.
        newcomer: Contact,
        /// Hops to go.
        ttl: u32,
    },
    /// Be my neighbour; `urgent` if the sender has none.
    Request {
        /// The sender has no neighbour, or joins two islands.
        urgent: bool,
    },
    /// Answers `Join` and `Request`.
    Reply {
        /// They are neighbours now.
        accepted: bool,
        /// Others to turn to.
        peers: Vec<Contact>,
    },
    /// No longer neighbours.
    Disconnect {
        /// The sender lives on.
        alive: bool,
        /// Others to turn to.
        peers: Vec<Contact>,
    },
    /// Contacts on a random walk.
    Shuffle {
        /// Made up by the origin.
        nonce: u64,
        /// Ids walked through, the origin first.
        path: Vec<PeerId>,
        /// Hops to go.
        ttl: u32,
        /// Others to turn to.
        peers: Vec<Contact>,
    },
    /// Back along the path of its shuffle.
    ShuffleReply {
        /// Made up by the origin.
        nonce: u64,
        /// Ids walked through, the origin first.
        path: Vec<PeerId>,
        /// Others to turn to.
        peers: Vec<Contact>,
    },
}

/// What membership is told.
#[derive(Clone, Debug)]
pub enum Event {
    /// There is a link, or a new one in the place of the old.
    LinkUp {
        /// Who.
        peer: Contact,
        /// Which of its lives.
        incarnation: u64,
        /// This side dialled.
        dialled: bool,
    },
    /// There is no link any more.
    LinkDown {
        /// Who.
        peer: PeerId,
    },
    /// There will be no link.
    DialFailed {
        /// Who.
        peer: PeerId,
    },
    /// A peer said something.
    Received {
        /// Who said it.
        from: PeerId,
        /// What it said.
        message: Message,
    },
    /// These peers are said to be there.
    PeersFound(Vec<Contact>),
    /// Become this peer's neighbour, whatever else.
    Join(Contact),
    /// Dial this peer, without becoming its neighbour.
    Meet(Contact),
    /// Become the neighbour of a peer that was met: it is of another island.
    Bridge(PeerId),
    /// Be this peer's neighbour no longer, and do not turn to it again by oneself.
    Part(PeerId),
    /// Time has passed.
    Tick,
    /// Say goodbye to all.
    Leave,
}

/// What membership wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make a link; answered by `LinkUp` or `DialFailed`.
    Dial(Contact),
    /// Say this.
    Send(PeerId, Message),
    /// Close the link, after what was said on it.
    Close(PeerId),
    /// A peer that was to be met is linked.
    Met(PeerId),
    /// There is a new neighbour.
    NeighbourUp(Contact),
    /// There is one less.
    NeighbourDown(PeerId),
    /// Find this many peers, outside the overlay.
    AskForPeers(usize),
    /// A peer said what no peer of ours would say.
    Misbehaved(PeerId, Misbehaviour),
}
