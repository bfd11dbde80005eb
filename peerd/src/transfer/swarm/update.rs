//! Messages of an Availability stream, checked.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use crate::{
    holders::{candidate::Candidate, source::Source},
    transfer::{piece_set::PieceSet, plan::Has},
};
use p2pdi::{
    content::{ContentHash, Pieces},
    endpoint::Endpoint,
    field::InvalidField,
    id::PeerId,
    name::PeerName,
    selector::LABEL_MAX_BYTES,
    v1,
};

/// Most members named in one message.
pub(super) const PEERS_MAX: usize = 50;
/// Most pieces in one `ask_for`: a second's worth on a fast link.
const ASK_FOR_MAX: usize = 256;

/// A member of a swarm, by its own word: who it is, and where it can be dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// Its id.
    pub(crate) id: PeerId,
    /// Its name.
    pub(crate) name: PeerName,
    /// Where it serves; `None`: nowhere.
    pub(crate) endpoint: Option<Endpoint>,
    /// Its label `zone`; empty without one.
    pub(crate) zone: String,
}

impl Member {
    /// As a source to fetch from, if it serves anything.
    pub(crate) fn source(&self) -> Option<Source> {
        self.endpoint.clone().map(|endpoint| Source::new(Some(self.name.clone()), endpoint))
    }
}

/// The first message of a side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Start {
    /// The document.
    pub(crate) hash: ContentHash,
    /// How it is divided.
    pub(crate) pieces: Pieces,
    /// The sender.
    pub(crate) member: Member,
    /// What it has.
    pub(crate) has: Has,
}

/// Any later message of a side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Update {
    /// Pieces verified since the last message.
    pub(crate) gained: Vec<usize>,
    /// All are verified.
    pub(crate) complete: bool,
    /// Pieces that the sender would like to be asked for.
    pub(crate) ask_for: Option<Vec<usize>>,
    /// Other members.
    pub(crate) peers: Vec<Candidate>,
    /// The sender leaves.
    pub(crate) leaving: bool,
}

impl Start {
    /// Checks the first message of the other side.
    ///
    /// # Errors
    /// When it has no `start`, or one of its fields is invalid.
    pub(crate) fn read(update: &v1::AvailabilityUpdate) -> Result<Self, InvalidField> {
        let start = update.start.as_ref().ok_or_else(|| InvalidField::new("start", "is missing; send it first"))?;
        let hash = ContentHash::from_field(&start.blake3)?;
        let pieces = Pieces::of_size(start.size)?;
        let contact = start.peer.as_ref().ok_or_else(|| InvalidField::new("peer", "is missing; say who you are"))?;
        let endpoint = if contact.endpoint.is_empty() { None } else { Some(contact.endpoint.parse()?) };
        let member = Member {
            id: PeerId::from_field("peer.id", &contact.id)?,
            name: contact.name.parse()?,
            endpoint,
            zone: read_zone(&start.zone)?,
        };
        let has = match start.complete {
            true => Has::All,
            false => Has::Pieces(PieceSet::from_field(pieces.count(), &start.pieces)?),
        };
        Ok(Self { hash, pieces, member, has })
    }

    /// The first message of this side.
    pub(crate) fn write(&self) -> v1::AvailabilityUpdate {
        let (bits, complete) = match &self.has {
            Has::All => (bytes::Bytes::new(), true),
            Has::Pieces(set) if set.is_full() => (bytes::Bytes::new(), true),
            Has::Pieces(set) if set.is_empty() => (bytes::Bytes::new(), false),
            Has::Pieces(set) => (bytes::Bytes::copy_from_slice(set.as_bytes()), false),
        };
        let Member { id, name, endpoint, zone } = &self.member;
        let peer = v1::Contact {
            id: id.to_field(),
            name: name.to_string(),
            endpoint: endpoint.as_ref().map(ToString::to_string).unwrap_or_default(),
        };
        let start = v1::AvailabilityStart {
            blake3: self.hash.to_field(),
            size: self.pieces.size(),
            peer: Some(peer),
            zone: zone.clone(),
            pieces: bits,
            complete,
        };
        v1::AvailabilityUpdate { start: Some(start), ..Default::default() }
    }
}

impl Update {
    /// Checks a later message about a document of `pieces`. Members that cannot be dialled are left out.
    ///
    /// # Errors
    /// When it has a second `start`, names a piece that does not exist, or names too many of something.
    pub(crate) fn read(update: v1::AvailabilityUpdate, pieces: Pieces) -> Result<Self, InvalidField> {
        if update.start.is_some() {
            return Err(InvalidField::new("start", "was sent already; it is in the first message only"));
        }
        let checked = |field: &'static str, list: Vec<u32>, most: usize| {
            if list.len() > most {
                return Err(InvalidField::new(field, format!("has {} pieces; at most {most} are allowed", list.len())));
            }
            let list: Vec<_> = list.into_iter().map(|piece| usize::try_from(piece).unwrap_or(usize::MAX)).collect();
            match list.iter().find(|piece| **piece >= pieces.count()) {
                Some(piece) => {
                    Err(InvalidField::new(field, format!("names piece {piece}; the document has {} pieces", pieces.count())))
                }
                None => Ok(list),
            }
        };
        if update.peers.len() > PEERS_MAX {
            let problem = format!("has {} members; at most {PEERS_MAX} are allowed", update.peers.len());
            return Err(InvalidField::new("peers", problem));
        }
        Ok(Self {
            gained: checked("gained", update.gained, pieces.count())?,
            complete: update.complete,
            ask_for: update.ask_for.map(|list| checked("ask_for", list.pieces, ASK_FOR_MAX)).transpose()?,
            peers: update.peers.into_iter().filter_map(Candidate::parse).collect(),
            leaving: update.leaving,
        })
    }
}

fn read_zone(zone: &str) -> Result<String, InvalidField> {
    if zone.len() > LABEL_MAX_BYTES {
        return Err(InvalidField::new("zone", format!("{} bytes long; at most {LABEL_MAX_BYTES} fit", zone.len())));
    }
    Ok(zone.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(has: Has) -> Start {
        let member = Member {
            id: PeerId::from_bytes([7; 16]),
            name: "a".parse().unwrap(),
            endpoint: Some("192.0.2.1:7801".parse().unwrap()),
            zone: "z1".to_owned(),
        };
        Start { hash: ContentHash::of(b"x"), pieces: Pieces::of_size(3 * 262_144).unwrap(), member, has }
    }

    #[test]
    fn a_start_survives_the_wire() {
        let mut some = PieceSet::empty(3);
        some.insert(1);
        for has in [Has::All, Has::Pieces(some), Has::Pieces(PieceSet::empty(3))] {
            let start = start(has);
            assert_eq!(Start::read(&start.write()).unwrap(), start);
        }
        let full = start(Has::Pieces(PieceSet::full(3)));
        assert_eq!(Start::read(&full.write()).unwrap().has, Has::All);
    }

    #[test]
    fn messages_that_break_the_contract_are_refused_with_their_field() {
        let field = |result: Result<Update, InvalidField>| result.unwrap_err().field.to_owned();
        let pieces = Pieces::of_size(3 * 262_144).unwrap();
        let read = |update| Update::read(update, pieces);
        assert_eq!(field(read(start(Has::All).write())), "start");
        assert_eq!(field(read(v1::AvailabilityUpdate { gained: vec![3], ..Default::default() })), "gained");
        let ask_for = Some(v1::AskFor { pieces: vec![9] });
        assert_eq!(field(read(v1::AvailabilityUpdate { ask_for, ..Default::default() })), "ask_for");
        let peers = vec![v1::SwarmPeer::default(); PEERS_MAX + 1];
        assert_eq!(field(read(v1::AvailabilityUpdate { peers, ..Default::default() })), "peers");
        let mut bad = start(Has::All).write();
        bad.start.as_mut().unwrap().zone = "z".repeat(64);
        assert!(Start::read(&bad).is_err());
        assert!(Start::read(&v1::AvailabilityUpdate::default()).is_err());
    }

    #[test]
    fn members_that_cannot_be_dialled_are_left_out() {
        let contact = |endpoint: &str| v1::Contact { endpoint: endpoint.to_owned(), name: "b".to_owned(), ..Default::default() };
        let peer = |endpoint| v1::SwarmPeer { peer: Some(contact(endpoint)), ..Default::default() };
        let peers = vec![peer(""), peer("0.0.0.0:1"), peer("192.0.2.1:0"), peer("192.0.2.1:7801"), v1::SwarmPeer::default()];
        let pieces = Pieces::of_size(1).unwrap();
        let read = Update::read(v1::AvailabilityUpdate { peers, ..Default::default() }, pieces).unwrap();
        assert_eq!(read.peers.len(), 1);
    }
}
