//! Messages of routing and their encoding, and the actions of its state machine.

use crate::overlay::wire;
use bytes::Bytes;
use p2pdi::{
    contact::Contact,
    field::InvalidField,
    id::PeerId,
    name::PeerName,
    v1::{self, Signature, link_frame::Body},
};

/// Id of a seek and of the message that follows it.
pub type RouteId = u128;

/// The peer that a seek or a message is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its name.
    pub name: PeerName,
    /// Its id, if a registry gave it: then other peers with that name do not count.
    pub id: Option<PeerId>,
}

impl Target {
    /// Whether the peer of this contact is meant.
    pub fn is(&self, contact: &Contact) -> bool {
        self.name == *contact.name() && self.has_id(contact)
    }

    /// Whether the peer of this contact has the id that is meant.
    pub(super) fn has_id(&self, contact: &Contact) -> bool {
        self.id.is_none_or(|id| id == contact.id())
    }

    /// From the fields of a message.
    fn read(name: &str, id: &[u8]) -> Result<Self, InvalidField> {
        let id = if id.is_empty() { None } else { Some(PeerId::from_field("to_id", id)?) };
        Ok(Self { name: name.parse()?, id })
    }

    fn id_field(&self) -> Bytes {
        self.id.map(PeerId::to_field).unwrap_or_default()
    }
}

impl From<PeerName> for Target {
    fn from(name: PeerName) -> Self {
        Self { name, id: None }
    }
}

/// A message between peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Asks for a route.
    Seek {
        /// Chosen by the originator.
        id: RouteId,
        /// The target.
        to: Target,
        /// Links travelled.
        hops: u32,
    },
    /// The answer to a seek.
    SeekReply {
        /// Id of the seek.
        id: RouteId,
        /// The target, if there is a route through the sender.
        found: Option<Contact>,
        /// Not all peers were asked because of rate limits; there may still be a route.
        busy: bool,
    },
    /// A message for another peer.
    Relay(Relay),
    /// The answer to a relayed message.
    RelayReply(RelayReply),
    /// Another peer has the same name as the target of a seek.
    Namesake {
        /// Id of the seek.
        id: RouteId,
        /// The other peer.
        peer: Contact,
    },
}

/// A relayed message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relay {
    /// Id of the seek that it follows, or a new one.
    pub id: RouteId,
    /// The receiver.
    pub to: Target,
    /// Its kind: one token, not checked here.
    pub kind: String,
    /// Its content.
    pub body: Bytes,
    /// The name that the sender claims; not checked here.
    pub from: String,
    /// Links travelled.
    pub hops: u32,
    /// 16 bytes or none; not checked here.
    pub message_id: Bytes,
    /// The sender's signature, with its chain; not checked here.
    pub signature: Option<Signature>,
}

/// The answer to a relayed message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayReply {
    /// Id of the message.
    pub id: RouteId,
    /// It reached its receiver.
    pub delivered: bool,
    /// Name of the receiver.
    pub delivered_by: String,
    /// Links that the message travelled.
    pub hops: u32,
    /// Kind of the receiver's reply; empty: no reply.
    pub reply_kind: String,
    /// The receiver's reply.
    pub reply: Bytes,
    /// The receiver's signature, with its chain; not checked here.
    pub signature: Option<Signature>,
}

impl RelayReply {
    /// The message could not be delivered.
    pub(crate) fn lost(id: RouteId) -> Self {
        Self {
            id,
            delivered: false,
            delivered_by: String::new(),
            hops: 0,
            reply_kind: String::new(),
            reply: Bytes::new(),
            signature: None,
        }
    }
}

/// Output of the state machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send this message on a link.
    Send(PeerId, Message),
    /// The route that this peer sought is found.
    Found(RouteId, Contact),
    /// There is no route, or it broke.
    NoRoute(RouteId),
    /// It is not known whether there is a route, because of rate limits.
    Busy(RouteId),
    /// A message for this peer; reply to the neighbour that sent it.
    Deliver(PeerId, Relay),
    /// The answer to a message of this peer.
    Answer(RelayReply),
    /// A neighbour reports another peer with this one's name.
    NameConflict(Contact),
}

impl Message {
    /// Encodes the message as a frame.
    pub fn into_frame(self) -> v1::LinkFrame {
        let field = |id: RouteId| Bytes::copy_from_slice(&id.to_be_bytes());
        let body = match self {
            Self::Seek { id, to, hops } => {
                Body::Seek(v1::Seek { id: field(id), to_id: to.id_field(), to: to.name.to_string(), hops })
            }
            Self::SeekReply { id, found, busy } => {
                let peer = found.as_ref().map(wire::contact);
                Body::SeekReply(v1::SeekReply { id: field(id), found: peer.is_some(), peer, busy })
            }
            Self::Relay(Relay { id, to, kind, body, from, hops, message_id, signature }) => {
                let (to_id, to) = (to.id_field(), to.name.to_string());
                Body::Relay(v1::Relay { id: field(id), to, kind, body, from, hops, message_id, to_id, signature })
            }
            Self::RelayReply(RelayReply { id, delivered, delivered_by, hops, reply_kind, reply, signature }) => {
                Body::RelayReply(v1::RelayReply { id: field(id), delivered, delivered_by, hops, reply_kind, reply, signature })
            }
            Self::Namesake { id, peer } => Body::Namesake(v1::Namesake { id: field(id), peer: Some(wire::contact(&peer)) }),
        };
        v1::LinkFrame { body: Some(body) }
    }

    /// Decodes a message; `None` if `body` is of another protocol.
    ///
    /// # Errors
    /// When a field is invalid.
    pub fn read(body: Body) -> Result<Option<Self>, InvalidField> {
        Ok(Some(match body {
            Body::Seek(v1::Seek { id, to, hops, to_id }) => Self::Seek { id: route(&id)?, to: Target::read(&to, &to_id)?, hops },
            Body::SeekReply(v1::SeekReply { id, found, peer, busy }) => {
                Self::SeekReply { id: route(&id)?, found: contact(peer.filter(|_| found))?, busy }
            }
            Body::Namesake(v1::Namesake { id, peer }) => {
                let peer = contact(peer)?.ok_or_else(|| InvalidField::new("peer", "is missing"))?;
                Self::Namesake { id: route(&id)?, peer }
            }
            Body::Relay(v1::Relay { id, to, kind, body, from, hops, message_id, to_id, signature }) => {
                let to = Target::read(&to, &to_id)?;
                Self::Relay(Relay { id: route(&id)?, to, kind, body, from, hops, message_id, signature })
            }
            Body::RelayReply(v1::RelayReply { id, delivered, delivered_by, hops, reply_kind, reply, signature }) => {
                // Both strings end up on a terminal.
                if delivered {
                    delivered_by.parse::<PeerName>().map_err(|error| error.in_field("delivered_by"))?;
                }
                if !reply_kind.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
                    return Err(InvalidField::new("reply_kind", "is one token"));
                }
                Self::RelayReply(RelayReply { id: route(&id)?, delivered, delivered_by, hops, reply_kind, reply, signature })
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
