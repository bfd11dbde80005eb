//! All other peers that this one knows of, by whichever way: the registry, or the mesh.

use crate::{
    mesh::{Mesh, View},
    session::KnownPeers,
};
use p2pdi::{contact::Contact, name::PeerName};
use std::{collections::BTreeMap, future::pending};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The other peers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerDirectory {
    /// By name; what the registry says goes before what is heard in the mesh.
    pub peers: BTreeMap<PeerName, Contact>,
    /// Whether these are all there are. If not, a peer that is not among them may well live.
    pub are_all: bool,
}

/// Keeps `told` up to date until `stop`.
pub async fn keep(told: watch::Sender<PeerDirectory>, registered: Option<KnownPeers>, mesh: Mesh, stop: CancellationToken) {
    let (mut views, mut heard_of) = (mesh.views(), BTreeMap::new());
    let mut listings = registered.as_ref().map(KnownPeers::changes);
    let listed = async |listings: &mut Option<watch::Receiver<()>>| match listings {
        Some(listings) => listings.changed().await,
        None => pending().await,
    };
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = listed(&mut listings) => if changed.is_err() { return },
            changed = views.changed() => {
                if changed.is_err() {
                    return;
                }
                // Views change many times a minute, and mostly in their counts.
                let latest = contacts(&views.borrow_and_update());
                if latest == heard_of {
                    continue;
                }
                heard_of = latest;
            }
        }
        let mut peers = heard_of.clone();
        if let Some(registered) = &registered {
            peers.extend(registered.all().into_iter().map(|peer| (peer.name().clone(), peer)));
        }
        // Without a registry nobody knows all.
        let are_all = registered.as_ref().is_some_and(KnownPeers::are_all);
        told.send_replace(PeerDirectory { peers, are_all });
    }
}

/// Those that a view names; of several with one name, the one with the lowest id.
fn contacts(view: &View) -> BTreeMap<PeerName, Contact> {
    let mut contacts = BTreeMap::<PeerName, Contact>::new();
    for contact in view.known().filter(|contact| contact.name() != view.me.name()) {
        let peer = contact.clone();
        match contacts.get(peer.name()) {
            Some(kept) if kept.id() <= peer.id() => {}
            _ => drop(contacts.insert(peer.name().clone(), peer)),
        }
    }
    contacts
}
