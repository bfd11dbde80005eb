//! The network as its peers describe it.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use crate::overlay::{PeerId, wire};
use p2pdi::contact::Contact;
use p2pdi::v1::{ListPeersResponse, Load};
use std::collections::{BTreeMap, BTreeSet};

/// Neighbours taken from one answer: several times what a peer links to by itself, and too few for one answer to fill a picture.
const NEIGHBOURS_MAX: usize = 64;
/// Peers without a place in the picture that are counted: past it, "at least" is all that anybody wants to know.
const BEYOND_MAX: usize = 10_000;

/// Peers and the links between them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    peers_max: usize,
    peers: BTreeMap<PeerId, Seen>,
    /// The lower id first.
    links: BTreeSet<(PeerId, PeerId)>,
    beyond: BTreeSet<PeerId>,
}

/// A peer in the picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// Who it is: as it says itself, or as others say.
    pub contact: Contact,
    /// What it says of itself, if it was asked.
    pub standing: Reachability,
    /// Links between it and where the picture begins; `None` where no link is known to lead to it.
    pub hops: Option<u32>,
}

/// Whether a peer answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Reachability {
    /// Others name it; it was not asked.
    Named,
    /// It was asked and did not answer: it is about to be gone, or out of reach.
    Silent,
    /// It said whom it is linked to.
    Answers {
        /// How busy it is.
        load: Load,
        /// Documents it shares.
        documents: u64,
    },
}

impl Snapshot {
    /// An empty picture with room for so many peers.
    pub fn with_room_for(peers_max: usize) -> Self {
        Self { peers_max, ..Self::default() }
    }

    /// The peers, by id.
    pub fn peers(&self) -> &BTreeMap<PeerId, Seen> {
        &self.peers
    }

    /// The links, the lower id first. Both ends are in the picture.
    pub fn links(&self) -> &BTreeSet<(PeerId, PeerId)> {
        &self.links
    }

    /// Peers that were named and had no place.
    pub fn beyond(&self) -> usize {
        self.beyond.len()
    }

    /// Whether a peer was named and had no place.
    pub fn is_beyond(&self, id: PeerId) -> bool {
        self.beyond.contains(&id)
    }

    /// Puts a peer into the picture that somebody named. Returns whether it is new and has a place.
    pub fn name(&mut self, contact: &Contact, hops: Option<u32>) -> bool {
        let id = contact.id();
        if let Some(seen) = self.peers.get_mut(&id) {
            seen.hops = [seen.hops, hops].into_iter().flatten().min();
            return false;
        }
        if self.peers.len() >= self.peers_max {
            if self.beyond.len() < BEYOND_MAX {
                self.beyond.insert(id);
            }
            return false;
        }
        self.peers.insert(id, Seen { contact: contact.clone(), standing: Reachability::Named, hops });
        true
    }

    /// Takes what a peer says of itself. Returns whom it named that was not in the picture. What cannot be is left out, and a second
    /// answer in the name of one peer says nothing.
    pub fn answer(&mut self, answer: ListPeersResponse) -> Vec<Contact> {
        let ListPeersResponse { peer, neighbours, load, documents, .. } = answer;
        let Some(me) = peer.and_then(|peer| wire::read_contact(peer).ok()) else { return Vec::new() };
        self.name(&me, None);
        let Some(seen) = self.peers.get_mut(&me.id()) else { return Vec::new() };
        if matches!(seen.standing, Reachability::Answers { .. }) {
            return Vec::new();
        }
        let id = me.id();
        let hops = seen.hops.map(|hops| hops.saturating_add(1));
        seen.contact = me;
        seen.standing = Reachability::Answers { load: load.unwrap_or_default(), documents };
        let mut new = Vec::new();
        let named = neighbours.into_iter().take(NEIGHBOURS_MAX).filter_map(|neighbour| neighbour.peer);
        for contact in named.filter_map(|contact| wire::read_contact(contact).ok()) {
            let other = contact.id();
            if other == id {
                continue;
            }
            if self.name(&contact, hops) {
                new.push(contact);
            }
            if self.peers.contains_key(&other) {
                self.links.insert((id.min(other), id.max(other)));
            }
        }
        new
    }

    /// The peer was asked and did not answer.
    pub fn silent(&mut self, id: PeerId) {
        if let Some(seen) = self.peers.get_mut(&id).filter(|seen| seen.standing == Reachability::Named) {
            seen.standing = Reachability::Silent;
        }
    }

    /// How many links each peer has, by id; peers without any are not there.
    pub fn degrees(&self) -> BTreeMap<PeerId, usize> {
        let mut degrees = BTreeMap::new();
        for (a, b) in &self.links {
            *degrees.entry(*a).or_default() += 1;
            *degrees.entry(*b).or_default() += 1;
        }
        degrees
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2pdi::v1::{self, Neighbour};

    fn contact(id: u128) -> Contact {
        Contact::parse(PeerId::from_u128(id), &format!("p{id}"), &format!("127.0.0.1:{id}")).unwrap()
    }

    fn says(id: u128, neighbours: impl IntoIterator<Item = u128>) -> ListPeersResponse {
        let neighbour = |id| Neighbour { peer: Some(wire::contact(&contact(id))), outgoing: true };
        ListPeersResponse {
            peer: Some(wire::contact(&contact(id))),
            neighbours: neighbours.into_iter().map(neighbour).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn answers_make_a_picture_with_distances() {
        let mut snapshot = Snapshot::with_room_for(10);
        assert!(snapshot.name(&contact(1), Some(0)));
        assert_eq!(snapshot.answer(says(1, [2, 1])), [contact(2)]);
        assert_eq!(snapshot.answer(says(2, [1, 3])), [contact(3)]);
        snapshot.silent(PeerId::from_u128(3));
        snapshot.silent(PeerId::from_u128(1));
        let seen: Vec<_> = snapshot.peers().values().map(|seen| (seen.hops, seen.standing.clone())).collect();
        let answers = Reachability::Answers { load: Load::default(), documents: 0 };
        assert_eq!(seen, [(Some(0), answers.clone()), (Some(1), answers), (Some(2), Reachability::Silent)]);
        assert_eq!((snapshot.links().len(), snapshot.degrees()[&PeerId::from_u128(2)]), (2, 2));
    }

    #[test]
    fn no_answer_fills_a_picture_speaks_twice_or_breaks_it() {
        let mut snapshot = Snapshot::with_room_for(80);
        snapshot.name(&contact(1), Some(0));
        assert_eq!(snapshot.answer(says(1, 2..1_000)).len(), NEIGHBOURS_MAX);
        assert!(snapshot.answer(says(1, 1_000..1_010)).is_empty(), "somebody else in its name");
        assert_eq!(snapshot.answer(says(2, 2_000..2_100)).len(), 80 - 65);
        assert_eq!(snapshot.beyond(), NEIGHBOURS_MAX - (80 - 65));
        assert!(snapshot.links().iter().all(|(a, b)| snapshot.peers().contains_key(a) && snapshot.peers().contains_key(b)));
        let odd = v1::Contact { id: vec![1].into(), name: "<script>".into(), endpoint: "?".into() };
        let neighbours = vec![Neighbour { peer: Some(odd.clone()), outgoing: true }, Neighbour::default()];
        assert!(snapshot.answer(ListPeersResponse { peer: Some(odd), ..Default::default() }).is_empty());
        assert!(snapshot.answer(ListPeersResponse { neighbours, ..says(3, []) }).is_empty());
    }
}
