//! The view of the mesh that other parts of the peer see.

use super::State;
use crate::{
    mesh::view::View,
    overlay::{Time, wire},
};
use p2pdi::{name::PeerName, v1::MeshStatus};
use std::collections::BTreeSet;

impl State {
    /// The names of all other peers that are known.
    pub(super) fn known(&self) -> BTreeSet<PeerName> {
        let view = self.view();
        let mesh = view.known().map(|contact| contact.name().clone());
        mesh.chain(self.session.known().all().into_iter().map(|peer| peer.name().clone()))
            .filter(|name| name != self.me.name())
            .collect()
    }

    /// The number of known peers, as of a moment ago.
    pub(super) fn known_count(&mut self, now: Time) -> u64 {
        self.publisher.known_count(now).unwrap_or_else(|| {
            let count = self.known().len() as u64;
            self.publisher.set_known_count(count, now);
            count
        })
    }

    pub(super) fn publish(&mut self) {
        let view = self.view();
        self.publisher.publish(view, self.now());
    }

    fn view(&self) -> View {
        let membership = self.overlay.membership();
        let neighbours: Vec<_> = membership.neighbours().map(|(contact, direction)| (contact.clone(), direction)).collect();
        let others: Vec<_> = membership.passive().contacts().cloned().collect();
        let counts = self.overlay.plumtree().counts();
        let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let status = MeshStatus {
            links: count(self.links.len()),
            neighbours: count(neighbours.len()),
            others: count(others.len()),
            broadcasts: counts.delivered,
            duplicates: counts.duplicates,
            relayed: self.routing.relayed(),
            throttled: self.overlay.throttled(),
            misbehaviour: self.abuse.misbehaviour(),
            namesakes: self.name_conflicts.contacts().map(wire::contact).collect(),
            paused: self.overlay.paused(),
        };
        View {
            me: self.me.clone(),
            neighbours,
            linked: self.links.contacts().cloned().collect(),
            others,
            bootnodes: self.candidates.bootnodes.contacts().cloned().collect(),
            lan_peers: self.candidates.lan_peers.contacts().cloned().collect(),
            name_conflicts: self.name_conflicts.contacts().cloned().collect(),
            yields_name: self.routing.yields_name(),
            status,
        }
    }
}
