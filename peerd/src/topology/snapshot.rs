//! Peers and links of the network, as peers describe them in their answers.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use crate::overlay::{PeerId, wire};
use p2pdi::contact::Contact;
use p2pdi::v1::{ListPeersResponse, Load};
use std::collections::{BTreeMap, BTreeSet};

/// Neighbours accepted in one answer: several times as many as a peer links to, and too few for one answer to fill a snapshot.
const NEIGHBOURS_MAX: usize = 64;
/// Peers counted that do not fit in the snapshot: past it, the count is a lower bound.
const BEYOND_MAX: usize = 10_000;

/// Peers and the links between them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    peers_max: usize,
    peers: BTreeMap<PeerId, SnapshotPeer>,
    /// Pairs with the lower id first.
    links: BTreeSet<(PeerId, PeerId)>,
    /// Peers that do not fit.
    beyond: BTreeSet<PeerId>,
}

/// A peer in a snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct SnapshotPeer {
    /// Its contact: from its own answer, otherwise from those of others.
    pub contact: Contact,
    /// Whether it answers.
    pub reachability: Reachability,
    /// Links between it and the peer that made the snapshot; `None` if no path is known.
    pub hops: Option<u32>,
}

/// Whether a peer answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Reachability {
    /// Other peers name it; it was not asked.
    Named,
    /// It was asked and did not answer.
    Silent,
    /// It answered with its neighbours.
    Answers {
        /// Its load.
        load: Load,
        /// Documents it shares.
        documents: u64,
    },
}

impl Snapshot {
    /// An empty snapshot of at most this many peers.
    pub fn with_capacity(peers_max: usize) -> Self {
        Self { peers_max, ..Self::default() }
    }

    /// The peers, by id.
    pub fn peers(&self) -> &BTreeMap<PeerId, SnapshotPeer> {
        &self.peers
    }

    /// The links, as pairs with the lower id first. Both ends are in the snapshot.
    pub fn links(&self) -> &BTreeSet<(PeerId, PeerId)> {
        &self.links
    }

    /// The number of peers that were named and did not fit.
    pub fn beyond(&self) -> usize {
        self.beyond.len()
    }

    /// Whether a peer was named and did not fit.
    pub fn is_beyond(&self, id: PeerId) -> bool {
        self.beyond.contains(&id)
    }

    /// Adds a peer that was named, `hops` links away. Returns whether it is new and fits.
    pub fn add(&mut self, contact: &Contact, hops: Option<u32>) -> bool {
        let id = contact.id();
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.hops = [peer.hops, hops].into_iter().flatten().min();
            return false;
        }
        if self.peers.len() >= self.peers_max {
            if self.beyond.len() < BEYOND_MAX {
                self.beyond.insert(id);
            }
            return false;
        }
        self.peers.insert(id, SnapshotPeer { contact: contact.clone(), reachability: Reachability::Named, hops });
        true
    }

    /// Adds a peer's answer about itself. Returns the new peers it named. Invalid contacts are left out, and a second answer in the name
    /// of one peer is ignored.
    pub fn add_answer(&mut self, answer: ListPeersResponse) -> Vec<Contact> {
        let ListPeersResponse { peer, neighbours, load, documents, .. } = answer;
        let Some(me) = peer.and_then(|peer| wire::read_contact(peer).ok()) else { return Vec::new() };
        self.add(&me, None);
        let Some(entry) = self.peers.get_mut(&me.id()) else { return Vec::new() };
        if matches!(entry.reachability, Reachability::Answers { .. }) {
            return Vec::new();
        }
        let id = me.id();
        let hops = entry.hops.map(|hops| hops.saturating_add(1));
        entry.contact = me;
        entry.reachability = Reachability::Answers { load: load.unwrap_or_default(), documents };
        let mut new = Vec::new();
        let named = neighbours.into_iter().take(NEIGHBOURS_MAX).filter_map(|neighbour| neighbour.peer);
        for contact in named.filter_map(|contact| wire::read_contact(contact).ok()) {
            let other = contact.id();
            if other == id {
                continue;
            }
            if self.add(&contact, hops) {
                new.push(contact);
            }
            if self.peers.contains_key(&other) {
                self.links.insert((id.min(other), id.max(other)));
            }
        }
        new
    }

    /// The peer was asked and did not answer.
    pub fn set_silent(&mut self, id: PeerId) {
        if let Some(peer) = self.peers.get_mut(&id).filter(|peer| peer.reachability == Reachability::Named) {
            peer.reachability = Reachability::Silent;
        }
    }

    /// The number of links of each peer, by id; without peers that have none.
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

    fn answer(id: u128, neighbours: impl IntoIterator<Item = u128>) -> ListPeersResponse {
        let neighbour = |id| Neighbour { peer: Some(wire::contact(&contact(id))), outgoing: true };
        ListPeersResponse {
            peer: Some(wire::contact(&contact(id))),
            neighbours: neighbours.into_iter().map(neighbour).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn answers_add_peers_with_distances() {
        let mut snapshot = Snapshot::with_capacity(10);
        assert!(snapshot.add(&contact(1), Some(0)));
        assert_eq!(snapshot.add_answer(answer(1, [2, 1])), [contact(2)]);
        assert_eq!(snapshot.add_answer(answer(2, [1, 3])), [contact(3)]);
        snapshot.set_silent(PeerId::from_u128(3));
        snapshot.set_silent(PeerId::from_u128(1));
        let peers: Vec<_> = snapshot.peers().values().map(|peer| (peer.hops, peer.reachability.clone())).collect();
        let answers = Reachability::Answers { load: Load::default(), documents: 0 };
        assert_eq!(peers, [(Some(0), answers.clone()), (Some(1), answers), (Some(2), Reachability::Silent)]);
        assert_eq!((snapshot.links().len(), snapshot.degrees()[&PeerId::from_u128(2)]), (2, 2));
    }

    #[test]
    fn an_answer_cannot_fill_a_snapshot_count_twice_or_add_invalid_contacts() {
        let mut snapshot = Snapshot::with_capacity(80);
        snapshot.add(&contact(1), Some(0));
        assert_eq!(snapshot.add_answer(answer(1, 2..1_000)).len(), NEIGHBOURS_MAX);
        assert!(snapshot.add_answer(answer(1, 1_000..1_010)).is_empty(), "a second answer in its name");
        assert_eq!(snapshot.add_answer(answer(2, 2_000..2_100)).len(), 80 - 65);
        assert_eq!(snapshot.beyond(), NEIGHBOURS_MAX - (80 - 65));
        assert!(snapshot.links().iter().all(|(a, b)| snapshot.peers().contains_key(a) && snapshot.peers().contains_key(b)));
        let odd = v1::Contact { id: vec![1].into(), name: "<script>".into(), endpoint: "?".into() };
        let neighbours = vec![Neighbour { peer: Some(odd.clone()), outgoing: true }, Neighbour::default()];
        assert!(snapshot.add_answer(ListPeersResponse { peer: Some(odd), ..Default::default() }).is_empty());
        assert!(snapshot.add_answer(ListPeersResponse { neighbours, ..answer(3, []) }).is_empty());
    }
}
