//! How the mesh looks from here, for whoever wants to know.

use super::{COUNTS_SHOWN_EVERY, State};
use crate::{
    mesh::View,
    overlay::{Time, wire},
};
use p2pdi::{name::PeerName, v1::MeshStatus};
use std::{collections::BTreeSet, sync::Arc};

impl State {
    /// The names of all other peers this one knows of.
    pub(super) fn known(&self) -> BTreeSet<PeerName> {
        let view = self.view();
        let mesh = view.known().map(|contact| contact.name().clone());
        mesh.chain(self.session.known().all().into_iter().map(|peer| peer.name().clone()))
            .filter(|name| name != self.me.name())
            .collect()
    }

    /// How many they are, a moment ago: too many to be counted for each of a burst of broadcasts.
    pub(super) fn known_count(&mut self, now: Time) -> u64 {
        match self.counted {
            Some((at, count)) if now < at + COUNTS_SHOWN_EVERY => count,
            _ => {
                let count = self.known().len() as u64;
                self.counted = Some((now, count));
                count
            }
        }
    }

    pub(super) fn view(&self) -> View {
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
            misbehaviour: self.misbehaviour,
            namesakes: self.name_conflicts.contacts().map(wire::contact).collect(),
            paused: self.overlay.paused(),
        };
        View {
            me: self.me.clone(),
            neighbours,
            linked: self.links.values().map(|link| link.contact.clone()).collect(),
            others,
            bootnodes: self.bootnodes.contacts().cloned().collect(),
            lan_peers: self.lan_peers.contacts().cloned().collect(),
            name_conflicts: self.name_conflicts.contacts().cloned().collect(),
            status,
        }
    }

    pub(super) fn show(&mut self) {
        self.changed = false;
        self.shown_at = Some(self.now());
        self.shown.send_replace(Arc::new(self.view()));
    }
}
