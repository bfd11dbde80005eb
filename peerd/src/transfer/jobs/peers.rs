//! The peers that this one knows, by name and address.

use super::request::From;
use crate::holders::{peer_directory::PeerDirectory, source::Source};
use p2pdi::{contact::Contact, name::PeerName};
use tokio::sync::watch;

/// The peers that this one knows, as they change.
#[derive(Debug, Clone)]
pub(super) struct KnownPeers(watch::Receiver<PeerDirectory>);

impl KnownPeers {
    pub(super) fn new(directory: watch::Receiver<PeerDirectory>) -> Self {
        Self(directory)
    }

    /// Those that `wanted` names and that are known, or have an address; and the first name that is not known.
    pub(super) fn find(&self, wanted: &[From]) -> (Vec<Source>, Option<String>) {
        let directory = self.0.borrow();
        let (mut found, mut missing) = (Vec::new(), None);
        for from in wanted {
            let known = directory.peers.values().find(|contact| from.is(contact));
            match (known, from) {
                (Some(contact), _) => found.push(Source::from(contact)),
                (None, From::Endpoint(endpoint)) => found.push(Source::new(None, endpoint.clone())),
                (None, From::Name(name)) => missing = missing.or_else(|| Some(name.to_string())),
            }
        }
        (found, missing)
    }

    /// The peer of that name, if it is known.
    pub(super) fn contact(&self, name: &PeerName) -> Option<Contact> {
        self.0.borrow().peers.get(name).cloned()
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.borrow().peers.len()
    }

    /// Waits until they change.
    pub(super) async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            // The peer stops.
            std::future::pending::<()>().await;
        }
    }
}
