//! Encoding and decoding of the overlay's messages.
//!
//! Bytes that are no valid message are an [`Error`]; nothing here panics, and no list is read
//! past its limit.

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;

use super::{
    Contact, Message, PeerId, link,
    membership::{self, MAX_CONTACTS, MAX_WALK},
    partitions,
    plumtree::{self, Advert, Beacon, Gossip, MAX_IDS, MAX_PAYLOAD, MessageId, Root},
};
use p2pdi::{
    network::NetworkName,
    v1::{self, link_frame::Body},
};

/// Longest frame in bytes: a full payload, or a full list of adverts, plus 1 KiB for the other fields.
pub const MAX_FRAME: usize = MAX_PAYLOAD + (1 << 10);

/// Why bytes are not a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The size in bytes, more than [`MAX_FRAME`].
    #[error("a frame of {0} bytes is past the limit of {MAX_FRAME}")]
    TooLong(usize),
    /// Not a protobuf message of the contract.
    #[error("not a frame: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// A required field is missing.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// An id that is not 16 bytes.
    #[error("an id has {0} bytes, not 16")]
    Id(usize),
    /// An invalid name or endpoint.
    #[error(transparent)]
    Contact(#[from] p2pdi::field::InvalidField),
    /// A list over its limit.
    #[error("`{0}` has {1} entries, past its limit")]
    TooMany(&'static str, usize),
    /// A frame of an unknown kind (from a newer peer), or one that the overlay does not handle.
    #[error("a frame of an unknown kind")]
    Unknown,
}

type Result<T> = std::result::Result<T, Error>;

/// Encodes a message as bytes.
pub fn encode(message: &Message) -> Bytes {
    frame(message).encode_to_vec().into()
}

/// Decodes a message.
///
/// # Errors
/// When the bytes are no valid message, or over a limit.
pub fn decode(bytes: Bytes) -> Result<Message> {
    if bytes.len() > MAX_FRAME {
        return Err(Error::TooLong(bytes.len()));
    }
    v1::LinkFrame::decode(bytes)?.try_into()
}

/// A message as a frame of the contract.
pub fn frame(message: &Message) -> v1::LinkFrame {
    let body = match message {
        Message::Link(link::Message::Ping(nonce)) => Body::Ping(v1::LinkPing { nonce: *nonce }),
        Message::Link(link::Message::Pong(nonce)) => Body::Pong(v1::LinkPong { nonce: *nonce }),
        Message::Membership(message) => membership_body(message),
        Message::Plumtree(message) => plumtree_body(message),
        Message::Partitions(partitions::Message::Probe(root, sequence)) => {
            Body::Probe(v1::Probe { root: id(root.id), root_incarnation: root.incarnation, sequence: *sequence })
        }
        Message::Partitions(partitions::Message::Reply(root, sequence)) => {
            Body::ProbeReply(v1::ProbeReply { root: id(root.id), root_incarnation: root.incarnation, sequence: *sequence })
        }
    };
    v1::LinkFrame { body: Some(body) }
}

/// The first frame of each side of a link.
pub fn hello(me: &Contact, incarnation: u64, network: &NetworkName) -> v1::LinkFrame {
    let hello = v1::LinkHello { peer: Some(contact(me)), incarnation, network: network.to_string() };
    v1::LinkFrame { body: Some(Body::Hello(hello)) }
}

/// The sender of a hello, its incarnation and its network.
///
/// # Errors
/// When the frame is no hello, or its contact or network is invalid.
pub fn read_hello(frame: v1::LinkFrame) -> Result<(Contact, u64, NetworkName)> {
    let Some(Body::Hello(v1::LinkHello { peer, incarnation, network })) = frame.body else { return Err(Error::Missing("hello")) };
    let network = NetworkName::from_field(&network)?;
    Ok((read_contact(peer.ok_or(Error::Missing("peer"))?)?, incarnation, network))
}

fn membership_body(message: &membership::Message) -> Body {
    use membership::Message as M;
    match message {
        M::Join => Body::Join(v1::Join {}),
        M::ForwardJoin { newcomer, ttl } => Body::ForwardJoin(v1::ForwardJoin { newcomer: Some(contact(newcomer)), ttl: *ttl }),
        M::Request { urgent } => Body::NeighbourRequest(v1::NeighbourRequest { urgent: *urgent }),
        M::Reply { accepted, peers } => Body::NeighbourReply(v1::NeighbourReply { accepted: *accepted, peers: contacts(peers) }),
        M::Disconnect { alive, peers } => Body::Disconnect(v1::Disconnect { alive: *alive, peers: contacts(peers) }),
        M::Shuffle { nonce, path, ttl, peers } => Body::Shuffle(v1::Shuffle {
            nonce: *nonce,
            path: path.iter().copied().map(id).collect(),
            ttl: *ttl,
            peers: contacts(peers),
        }),
        M::ShuffleReply { nonce, path, peers } => Body::ShuffleReply(v1::ShuffleReply {
            nonce: *nonce,
            path: path.iter().copied().map(id).collect(),
            peers: contacts(peers),
        }),
    }
}

fn plumtree_body(message: &plumtree::Message) -> Body {
    use plumtree::Message as M;
    match message {
        M::Beacon(beacon) => Body::Beacon(v1::Beacon {
            root: id(beacon.root.id),
            root_incarnation: beacon.root.incarnation,
            sequence: beacon.sequence,
            hops: beacon.hops,
            parent: beacon.parent,
            signature: None,
        }),
        M::Gossip(gossip) => Body::Broadcast(v1::Broadcast {
            id: Some(message_id(&gossip.id)),
            hops: gossip.hops,
            age_ms: millis(gossip.age),
            payload: gossip.payload.clone(),
            signature: gossip.signature.clone(),
        }),
        M::Advertise(adverts) => Body::Advertise(v1::Advertise { adverts: grouped(adverts) }),
        M::Graft { ids, push } => Body::Graft(v1::Graft { ids: ids.iter().map(message_id).collect(), push: *push }),
        M::Prune => Body::Prune(v1::Prune {}),
    }
}

/// Consecutive adverts of one origin and incarnation share an entry, with the greatest age of theirs.
fn grouped(adverts: &[Advert]) -> Vec<v1::Advert> {
    let mut groups: Vec<v1::Advert> = Vec::new();
    let mut last: Option<(PeerId, u64)> = None;
    for Advert { id: broadcast, age } in adverts {
        let origin = (broadcast.origin, broadcast.incarnation);
        match groups.last_mut() {
            Some(group) if last == Some(origin) => {
                group.sequences.push(broadcast.sequence);
                group.age_ms = group.age_ms.max(millis(*age));
            }
            _ => groups.push(v1::Advert {
                origin: id(broadcast.origin),
                incarnation: broadcast.incarnation,
                sequences: vec![broadcast.sequence],
                age_ms: millis(*age),
            }),
        }
        last = Some(origin);
    }
    groups
}

impl TryFrom<v1::LinkFrame> for Message {
    type Error = Error;

    fn try_from(frame: v1::LinkFrame) -> Result<Self> {
        use membership::Message as M;
        use plumtree::Message as P;
        let member = |message| Ok(Self::Membership(message));
        let tree = |message| Ok(Self::Plumtree(message));
        match frame.body.ok_or(Error::Unknown)? {
            Body::Hello(_)
            | Body::Seek(_)
            | Body::SeekReply(_)
            | Body::Relay(_)
            | Body::RelayReply(_)
            | Body::Acknowledge(_)
            | Body::Namesake(_) => Err(Error::Unknown),
            Body::Ping(ping) => Ok(Self::Link(link::Message::Ping(ping.nonce))),
            Body::Pong(pong) => Ok(Self::Link(link::Message::Pong(pong.nonce))),
            Body::Join(_) => member(M::Join),
            Body::ForwardJoin(forward) => member(M::ForwardJoin {
                newcomer: read_contact(forward.newcomer.ok_or(Error::Missing("newcomer"))?)?,
                ttl: forward.ttl,
            }),
            Body::NeighbourRequest(request) => member(M::Request { urgent: request.urgent }),
            Body::NeighbourReply(reply) => member(M::Reply { accepted: reply.accepted, peers: read_contacts(reply.peers)? }),
            Body::Disconnect(disconnect) => {
                member(M::Disconnect { alive: disconnect.alive, peers: read_contacts(disconnect.peers)? })
            }
            Body::Shuffle(shuffle) => member(M::Shuffle {
                nonce: shuffle.nonce,
                path: read_path(&shuffle.path)?,
                ttl: shuffle.ttl,
                peers: read_contacts(shuffle.peers)?,
            }),
            Body::ShuffleReply(reply) => {
                member(M::ShuffleReply { nonce: reply.nonce, path: read_path(&reply.path)?, peers: read_contacts(reply.peers)? })
            }
            Body::Beacon(beacon) => tree(P::Beacon(Beacon {
                root: read_root(&beacon.root, beacon.root_incarnation)?,
                sequence: beacon.sequence,
                hops: beacon.hops,
                parent: beacon.parent,
            })),
            Body::Broadcast(broadcast) => {
                let length = broadcast.payload.len();
                if length > MAX_PAYLOAD {
                    return Err(Error::TooMany("payload", length));
                }
                tree(P::Gossip(Gossip {
                    id: read_message_id(&broadcast.id.ok_or(Error::Missing("id"))?)?,
                    hops: broadcast.hops,
                    age: Duration::from_millis(broadcast.age_ms),
                    payload: broadcast.payload,
                    signature: broadcast.signature,
                }))
            }
            Body::Advertise(advertise) => tree(P::Advertise(read_adverts(&advertise.adverts)?)),
            Body::Graft(graft) => {
                limit("ids", graft.ids.len(), MAX_IDS)?;
                let ids: Result<_> = graft.ids.iter().map(read_message_id).collect();
                tree(P::Graft { ids: ids?, push: graft.push })
            }
            Body::Prune(_) => tree(P::Prune),
            Body::Probe(probe) => {
                Ok(Self::Partitions(partitions::Message::Probe(read_root(&probe.root, probe.root_incarnation)?, probe.sequence)))
            }
            Body::ProbeReply(reply) => {
                Ok(Self::Partitions(partitions::Message::Reply(read_root(&reply.root, reply.root_incarnation)?, reply.sequence)))
            }
        }
    }
}

fn limit(what: &'static str, length: usize, limit: usize) -> Result<()> {
    if length > limit {
        return Err(Error::TooMany(what, length));
    }
    Ok(())
}

fn id(id: PeerId) -> Bytes {
    id.to_field()
}

fn read_id(bytes: &[u8]) -> Result<PeerId> {
    let bytes = <[u8; 16]>::try_from(bytes).map_err(|_| Error::Id(bytes.len()))?;
    Ok(PeerId::from_bytes(bytes))
}

fn read_root(root: &[u8], incarnation: u64) -> Result<Root> {
    Ok(Root { incarnation, id: read_id(root)? })
}

fn read_path(path: &[Bytes]) -> Result<Vec<PeerId>> {
    limit("path", path.len(), MAX_WALK as usize)?;
    path.iter().map(|id| read_id(id)).collect()
}

fn message_id(broadcast: &MessageId) -> v1::BroadcastId {
    v1::BroadcastId { origin: id(broadcast.origin), incarnation: broadcast.incarnation, sequence: broadcast.sequence }
}

fn read_message_id(broadcast: &v1::BroadcastId) -> Result<MessageId> {
    Ok(MessageId { origin: read_id(&broadcast.origin)?, incarnation: broadcast.incarnation, sequence: broadcast.sequence })
}

fn read_adverts(groups: &[v1::Advert]) -> Result<Vec<Advert>> {
    let count = groups.iter().map(|group| group.sequences.len()).sum();
    limit("adverts", groups.len().max(count), MAX_IDS)?;
    let mut adverts = Vec::with_capacity(count);
    for group in groups {
        let origin = read_id(&group.origin)?;
        let age = Duration::from_millis(group.age_ms);
        adverts.extend(
            group
                .sequences
                .iter()
                .map(|sequence| Advert { id: MessageId { origin, incarnation: group.incarnation, sequence: *sequence }, age }),
        );
    }
    Ok(adverts)
}

/// Encodes the id of a broadcast.
pub fn broadcast_id(broadcast: &MessageId) -> v1::BroadcastId {
    message_id(broadcast)
}

/// Decodes the id of a broadcast.
///
/// # Errors
/// When its origin is not 16 bytes.
pub fn read_broadcast_id(broadcast: &v1::BroadcastId) -> Result<MessageId> {
    read_message_id(broadcast)
}

/// Encodes a contact.
pub fn contact(contact: &Contact) -> v1::Contact {
    v1::Contact { id: id(contact.id()), name: contact.name().to_string(), endpoint: contact.endpoint().to_string() }
}

fn contacts(peers: &[Contact]) -> Vec<v1::Contact> {
    peers.iter().map(contact).collect()
}

/// Decodes and validates a contact.
///
/// # Errors
/// When a field is invalid.
pub fn read_contact(contact: v1::Contact) -> Result<Contact> {
    let id = read_id(&contact.id)?;
    Ok(Contact::parse(id, &contact.name, &contact.endpoint)?)
}

fn read_contacts(peers: Vec<v1::Contact>) -> Result<Vec<Contact>> {
    limit("peers", peers.len(), MAX_CONTACTS)?;
    peers.into_iter().map(read_contact).collect()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
