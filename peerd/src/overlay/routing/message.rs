//! What is said about ways, and how it travels.

use crate::overlay::wire;
use bytes::Bytes;
use p2pdi::{
    contact::Contact,
    field::InvalidField,
    id::PeerId,
    name::PeerName,
    v1::{self, link_frame::Body},
};

/// Names one seek and the message that follows it.
pub type RouteId = u128;

/// What peers say to each other about ways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Which way?
    Seek {
        /// Made up by who asks.
        id: RouteId,
        /// Who is looked for.
        to: PeerName,
        /// Links travelled.
        hops: u32,
    },
    /// This way, or not this way.
    SeekReply {
        /// Of the seek.
        id: RouteId,
        /// Who was looked for.
        found: Option<Contact>,
        /// Not all were asked, since too much is asked; perhaps it is this way all the same.
        busy: bool,
    },
    /// A message on its way.
    Relay(Relay),
    /// What became of it.
    RelayReply(RelayReply),
    /// Another peer has the name of the one that was found this way.
    Namesake {
        /// Of the seek.
        id: RouteId,
        /// The other peer.
        peer: Contact,
    },
}

/// A message on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relay {
    /// Of the seek it follows, or a new one.
    pub id: RouteId,
    /// Who it is for.
    pub to: PeerName,
    /// One token, not checked here.
    pub kind: String,
    /// What it says.
    pub body: Bytes,
    /// The sender, as it calls itself; not checked here.
    pub from: String,
    /// Peers that passed it on.
    pub hops: u32,
    /// 16 bytes or none; not checked here.
    pub message_id: Bytes,
}

/// What became of a relayed message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayReply {
    /// Of the message.
    pub id: RouteId,
    /// It arrived.
    pub delivered: bool,
    /// Name of who has it.
    pub delivered_by: String,
    /// Peers that passed it on.
    pub hops: u32,
    /// Kind of the receiver's answer; empty: none.
    pub reply_kind: String,
    /// The receiver's answer.
    pub reply: Bytes,
}

impl RelayReply {
    /// The way is broken.
    pub(super) fn lost(id: RouteId) -> Self {
        Self { id, delivered: false, delivered_by: String::new(), hops: 0, reply_kind: String::new(), reply: Bytes::new() }
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Say this on a link.
    Send(PeerId, Message),
    /// The way that this peer asked for is known.
    Found(RouteId, Contact),
    /// There is none, or it broke.
    NoWay(RouteId),
    /// Whether there is one is not known: too much is asked just now.
    Busy(RouteId),
    /// A message for this peer; answer whoever brought it.
    Deliver(PeerId, Relay),
    /// This peer's message arrived.
    Answer(RelayReply),
    /// Somebody says that this peer has the name of another.
    Namesake(Contact),
}

impl Message {
    /// As it travels.
    pub fn into_frame(self) -> v1::LinkFrame {
        let field = |id: RouteId| Bytes::copy_from_slice(&id.to_be_bytes());
        let body = match self {
            Self::Seek { id, to, hops } => Body::Seek(v1::Seek { id: field(id), to: to.to_string(), hops }),
            Self::SeekReply { id, found, busy } => {
                let peer = found.as_ref().map(wire::contact);
                Body::SeekReply(v1::SeekReply { id: field(id), found: peer.is_some(), peer, busy })
            }
            Self::Relay(Relay { id, to, kind, body, from, hops, message_id }) => {
                Body::Relay(v1::Relay { id: field(id), to: to.to_string(), kind, body, from, hops, message_id })
            }
            Self::RelayReply(RelayReply { id, delivered, delivered_by, hops, reply_kind, reply }) => {
                Body::RelayReply(v1::RelayReply { id: field(id), delivered, delivered_by, hops, reply_kind, reply })
            }
            Self::Namesake { id, peer } => Body::Namesake(v1::Namesake { id: field(id), peer: Some(wire::contact(&peer)) }),
        };
        v1::LinkFrame { body: Some(body) }
    }

    /// What travelled; `None` where `body` is about something else.
    ///
    /// # Errors
    /// When a field cannot be what it should.
    pub fn read(body: Body) -> Result<Option<Self>, InvalidField> {
        Ok(Some(match body {
            Body::Seek(v1::Seek { id, to, hops }) => Self::Seek { id: route(&id)?, to: to.parse()?, hops },
            Body::SeekReply(v1::SeekReply { id, found, peer, busy }) => {
                Self::SeekReply { id: route(&id)?, found: contact(peer.filter(|_| found))?, busy }
            }
            Body::Namesake(v1::Namesake { id, peer }) => {
                let peer = contact(peer)?.ok_or_else(|| InvalidField::new("peer", "is missing"))?;
                Self::Namesake { id: route(&id)?, peer }
            }
            Body::Relay(v1::Relay { id, to, kind, body, from, hops, message_id }) => {
                Self::Relay(Relay { id: route(&id)?, to: to.parse()?, kind, body, from, hops, message_id })
            }
            Body::RelayReply(v1::RelayReply { id, delivered, delivered_by, hops, reply_kind, reply }) => {
                // They go on to whoever asked, and to a terminal.
                if delivered {
                    delivered_by.parse::<PeerName>().map_err(|error| error.in_field("delivered_by"))?;
                }
                if !reply_kind.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
                    return Err(InvalidField::new("reply_kind", "is one token"));
                }
                Self::RelayReply(RelayReply { id: route(&id)?, delivered, delivered_by, hops, reply_kind, reply })
            }
            _ => return Ok(None),
        }))
    }
}

fn contact(peer: Option<v1::Contact>) -> Result<Option<Contact>, InvalidField> {
    peer.map(wire::read_contact).transpose().map_err(|error| InvalidField::new("peer", error.to_string()))
}

fn route(id: &[u8]) -> Result<RouteId, InvalidField> {
    PeerId::from_field("id", id).map(PeerId::as_u128)
}
