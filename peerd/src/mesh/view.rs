//! How the mesh looks from one peer.

use crate::overlay::{membership::Direction, wire};
use p2pdi::{
    contact::Contact,
    name::PeerName,
    v1::{ListPeersResponse, MeshStatus, Neighbour},
};

/// A peer's links, whom it would turn to, and counts.
#[derive(Debug, Clone)]
pub struct View {
    /// This peer.
    pub me: Contact,
    /// Its neighbours, with who made the link.
    pub neighbours: Vec<(Contact, Direction)>,
    /// All peers with an open link, neighbours or not.
    pub linked: Vec<Contact>,
    /// Contacts to fall back on.
    pub others: Vec<Contact>,
    /// Bootnodes that have answered once.
    pub bootnodes: Vec<Contact>,
    /// Peers that announce themselves on the LAN: hearsay, until there is a link.
    pub lan_peers: Vec<Contact>,
    /// Others that go by this peer's name, lowest id first.
    pub name_conflicts: Vec<Contact>,
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
            status: MeshStatus::default(),
        }
    }

    /// Whether there is a link to the peer called `name`.
    pub fn is_linked(&self, name: &PeerName) -> bool {
        self.linked.iter().any(|contact| contact.name() == name)
    }

    /// The peer that gets the messages for this one's name, if that is not this one itself: of several with one name, the one with the
    /// lowest id.
    pub fn yields_to(&self) -> Option<&Contact> {
        self.name_conflicts.first().filter(|namesake| namesake.id() < self.me.id())
    }

    /// Every other peer that is known of; some more than once. Not those that were only seen on the LAN.
    pub fn known(&self) -> impl Iterator<Item = &Contact> {
        let neighbours = self.neighbours.iter().map(|(contact, _)| contact);
        neighbours.chain(&self.name_conflicts).chain(&self.linked).chain(&self.others).chain(&self.bootnodes)
    }

    /// The peer called `name`: one that is linked, or was; else one that others speak of. Of several of a kind, the one with the lowest id.
    pub fn find(&self, name: &PeerName) -> Option<&Contact> {
        let lowest = |contacts: &'_ [Contact]| -> Option<usize> {
            let named = contacts.iter().enumerate().filter(|(_, contact)| contact.name() == name);
            named.min_by_key(|(_, contact)| contact.id()).map(|(index, _)| index)
        };
        // Those that greeted this peer go before hearsay, and anybody on the LAN can announce any name.
        let classes = [&self.linked, &self.bootnodes, &self.others, &self.lan_peers];
        classes.into_iter().find_map(|contacts| lowest(contacts).and_then(|index| contacts.get(index)))
    }

    /// As the contract says it.
    pub fn list(&self) -> ListPeersResponse {
        let neighbour = |(contact, direction): &(Contact, Direction)| Neighbour {
            peer: Some(wire::contact(contact)),
            outgoing: *direction == Direction::Outgoing,
        };
        ListPeersResponse {
            peer: Some(wire::contact(&self.me)),
            neighbours: self.neighbours.iter().map(neighbour).collect(),
            others: self.others.iter().map(wire::contact).collect(),
            // The mesh does not know how busy its peer is.
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
    fn who_was_only_seen_on_the_lan_is_found_by_name_where_nobody_else_has_it_and_is_not_known() {
        let contact = |id, name: &str| Contact::parse(PeerId::from_u128(id), name, "10.0.0.1:1").unwrap();
        let mut view = View::new(contact(9, "me"));
        view.lan_peers = vec![contact(1, "a"), contact(2, "b")];
        view.others = vec![contact(3, "A")];
        let found = |name: &str| view.find(&name.parse().unwrap()).map(|contact| contact.id().as_u128());
        assert_eq!((found("a"), found("b"), found("c")), (Some(3), Some(2), None));
        assert_eq!(view.known().count(), 1);
    }
}
