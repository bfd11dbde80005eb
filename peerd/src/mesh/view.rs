//! The mesh as one peer sees it.

use crate::overlay::{membership::Direction, wire};
use p2pdi::{
    contact::Contact,
    name::PeerName,
    v1::{ListPeersResponse, MeshStatus, Neighbour},
};

/// A peer's links, the peers it could dial, and counts.
#[derive(Debug, Clone)]
pub struct View {
    /// This peer.
    pub me: Contact,
    /// Its neighbours, and which side opened the link.
    pub neighbours: Vec<(Contact, Direction)>,
    /// All linked peers, neighbours or not.
    pub linked: Vec<Contact>,
    /// The passive view: peers to dial when a neighbour is lost.
    pub others: Vec<Contact>,
    /// Bootnodes that have answered at least once.
    pub bootnodes: Vec<Contact>,
    /// Peers announced on the LAN: unverified until there is a link.
    pub lan_peers: Vec<Contact>,
    /// Other peers with this peer's name, lowest id first.
    pub name_conflicts: Vec<Contact>,
    /// Another peer owns this peer's name: by the registry's word, or else by its lower id.
    pub yields_name: bool,
    /// Counts.
    pub status: MeshStatus,
}

impl View {
    pub(super) fn new(me: Contact) -> Self {
        Self {
            me,
            neighbours: Vec::new(),
            linked: Vec::new(),
            others: Vec::new(),
            bootnodes: Vec::new(),
            lan_peers: Vec::new(),
            name_conflicts: Vec::new(),
            yields_name: false,
            status: MeshStatus::default(),
        }
    }

    /// Whether there is a link to the peer called `name`.
    pub fn is_linked(&self, name: &PeerName) -> bool {
        self.linked.iter().any(|contact| contact.name() == name)
    }

    /// The other peer that owns this peer's name and gets the messages that the mesh routes to it. `None` when this peer owns it.
    pub fn yields_to(&self) -> Option<&Contact> {
        self.name_conflicts.first().filter(|_| self.yields_name)
    }

    /// Every other known peer; some more than once. Without those that were only announced on the LAN.
    pub fn known(&self) -> impl Iterator<Item = &Contact> {
        let neighbours = self.neighbours.iter().map(|(contact, _)| contact);
        neighbours.chain(&self.name_conflicts).chain(&self.linked).chain(&self.others).chain(&self.bootnodes)
    }

    /// The peer called `name`: a linked one or a bootnode first, then one of the passive view, then one announced on the LAN. Of several
    /// in one of these lists, the one with the lowest id.
    pub fn find(&self, name: &PeerName) -> Option<&Contact> {
        let lowest = |contacts: &'_ [Contact]| -> Option<usize> {
            let named = contacts.iter().enumerate().filter(|(_, contact)| contact.name() == name);
            named.min_by_key(|(_, contact)| contact.id()).map(|(index, _)| index)
        };
        // Linked peers and bootnodes said hello themselves; the others are unverified, and anyone on the LAN can announce any name.
        let lists = [&self.linked, &self.bootnodes, &self.others, &self.lan_peers];
        lists.into_iter().find_map(|contacts| lowest(contacts).and_then(|index| contacts.get(index)))
    }

    /// The answer to ListPeers, without the fields that other parts of the peer know.
    pub fn list(&self) -> ListPeersResponse {
        let neighbour = |(contact, direction): &(Contact, Direction)| Neighbour {
            peer: Some(wire::contact(contact)),
            outgoing: *direction == Direction::Outgoing,
        };
        ListPeersResponse {
            peer: Some(wire::contact(&self.me)),
            neighbours: self.neighbours.iter().map(neighbour).collect(),
            others: self.others.iter().map(wire::contact).collect(),
            load: None,
            documents: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overlay::PeerId;

    #[test]
    fn a_peer_announced_on_the_lan_is_found_by_name_if_no_other_has_it_but_is_not_known() {
        let contact = |id, name: &str| Contact::parse(PeerId::from_u128(id), name, "10.0.0.1:1").unwrap();
        let mut view = View::new(contact(9, "me"));
        view.lan_peers = vec![contact(1, "a"), contact(2, "b")];
        view.others = vec![contact(3, "A")];
        let found = |name: &str| view.find(&name.parse().unwrap()).map(|contact| contact.id().as_u128());
        assert_eq!((found("a"), found("b"), found("c")), (Some(3), Some(2), None));
        assert_eq!(view.known().count(), 1);
    }
}
