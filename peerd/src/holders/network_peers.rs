//! The network as a running peer knows it, for its searches: the registry, the mesh and the LAN, and the documents it has learned of.

use super::{
    find_peers::{Asked, FindPeers, Learned, PeerSample},
    listed::Listed,
    source::Source,
    who_has::{Questions, learned_of},
};
use crate::{
    documents::{catalog::Catalog, selector::DocumentSelector},
    mesh::Mesh,
    session::Session,
};
use p2pdi::{contact::Contact, name::PeerName};
use rand::seq::SliceRandom as _;
use std::{collections::BTreeMap, convert::Infallible, net::IpAddr};

/// Peers of one network. Cheap to clone.
#[derive(Clone)]
pub struct NetworkPeers {
    session: Session,
    mesh: Mesh,
    catalog: Catalog,
    questions: Questions,
}

impl NetworkPeers {
    pub(crate) fn new(session: Session, mesh: Mesh, catalog: Catalog, questions: Questions) -> Self {
        Self { session, mesh, catalog, questions }
    }

    /// How many peers are known, this one included.
    pub(crate) fn count(&self) -> usize {
        self.session.known().len().max(self.mesh.view().known().count()) + 1
    }

    /// Asks the mesh for a caller from `address` that is no peer of it; see [`Questions::ask_for`].
    pub(crate) async fn ask_for(&self, address: Option<IpAddr>, wanted: &DocumentSelector) -> Option<Vec<(Source, Vec<Listed>)>> {
        self.questions.ask_for(address, wanted).await
    }

    /// Whether every peer of the network is registered and listed.
    fn knows_all(&self) -> bool {
        let known = self.session.known();
        known.are_all() && !known.is_empty()
    }
}

impl FindPeers for NetworkPeers {
    type Error = Infallible;

    /// Random peers of the registry; where there are fewer, those of the mesh and of the LAN, too.
    async fn sample(&self, count: usize) -> Result<PeerSample, Infallible> {
        let registered = if self.knows_all() {
            self.session.known().all()
        } else {
            self.session.sample(u32::try_from(count).unwrap_or(u32::MAX)).await
        };
        let view = self.mesh.view();
        let mut by_name: BTreeMap<PeerName, Contact> = BTreeMap::new();
        for peer in registered.into_iter().chain(view.known().cloned()).chain(view.lan_peers.iter().cloned()) {
            if peer.id() != view.me.id() {
                by_name.entry(peer.name().clone()).or_insert(peer);
            }
        }
        let mut peers: Vec<_> = by_name.values().map(Source::from).collect();
        peers.shuffle(&mut rand::rng());
        let are_all = peers.len() <= count;
        peers.truncate(count);
        Ok(PeerSample { peers, are_all })
    }

    fn learned(&self, wanted: &DocumentSelector) -> Learned {
        let listed = |answers: &[(Source, Vec<Listed>)]| {
            let has = |peer: &Contact| answers.iter().any(|(known, _)| known.name.as_ref() == Some(peer.name()));
            self.knows_all() && self.session.known().all().iter().all(has)
        };
        learned_of(&self.catalog, wanted, listed)
    }

    /// Also when all that are known were asked: there may be others in the mesh.
    async fn ask_all(&self, wanted: &DocumentSelector, _: Asked) -> Vec<(Source, Vec<Listed>)> {
        self.questions.ask(wanted).await
    }
}
