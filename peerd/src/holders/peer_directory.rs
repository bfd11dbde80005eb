//! The peers that this one knows, from the registry and from the mesh.

use crate::{
    mesh::{Mesh, View},
    session::KnownPeers,
};
use p2pdi::{contact::Contact, name::PeerName};
use std::{collections::BTreeMap, future::pending};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// All known peers but this one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PeerDirectory {
    /// By name. A record of the registry replaces one of the mesh.
    pub(crate) peers: BTreeMap<PeerName, Contact>,
    /// Whether `peers` has every active peer. If not, a peer that is missing here can still be active.
    pub(crate) is_complete: bool,
}

/// Keeps `directory` up to date until `stop`.
pub(crate) async fn keep(
    directory: watch::Sender<PeerDirectory>,
    registered: Option<KnownPeers>,
    mesh: Mesh,
    stop: CancellationToken,
) {
    let (mut views, mut in_mesh) = (mesh.views(), BTreeMap::new());
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
                // Views change many times a minute, mostly in their counters only.
                let latest = contacts(&views.borrow_and_update());
                if latest == in_mesh {
                    continue;
                }
                in_mesh = latest;
            }
        }
        let mut peers = in_mesh.clone();
        if let Some(registered) = &registered {
            peers.extend(registered.all().into_iter().map(|peer| (peer.name().clone(), peer)));
        }
        // Only a registry knows all peers.
        let is_complete = registered.as_ref().is_some_and(KnownPeers::are_all);
        directory.send_replace(PeerDirectory { peers, is_complete });
    }
}

/// The peers in a view, by name. Of several peers with one name, the one with the lowest id.
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
