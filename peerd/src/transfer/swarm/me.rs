//! This peer, as it introduces itself to the members of all swarms.

use super::update::Member;
use crate::identity::OwnContact;
use p2pdi::{endpoint::Endpoint, id::PeerId, name::PeerName};

/// The label that says where a peer is: peers of one zone prefer each other.
pub const ZONE_LABEL: &str = "zone";

/// This peer, as it introduces itself to the members of all swarms.
#[derive(Clone)]
pub(crate) struct Me {
    /// Its id.
    pub(crate) id: PeerId,
    /// Its name.
    pub(crate) name: PeerName,
    /// Where it serves, as of now; `None`: nowhere.
    pub(crate) serves_at: Option<OwnContact>,
    /// Its label `zone`; empty without one.
    pub(crate) zone: String,
}

impl Me {
    /// This peer, serving at its endpoint.
    pub(crate) fn serving(own: OwnContact, zone: String) -> Self {
        let contact = own.get();
        Self { id: contact.id(), name: contact.name().clone(), serves_at: Some(own), zone }
    }

    pub(super) fn endpoint(&self) -> Option<Endpoint> {
        self.serves_at.as_ref().map(|own| own.get().endpoint().clone())
    }

    pub(super) fn member(&self) -> Member {
        Member { id: self.id, name: self.name.clone(), endpoint: self.endpoint(), zone: self.zone.clone() }
    }
}
