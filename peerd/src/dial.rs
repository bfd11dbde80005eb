//! Connections to other peers, kept for reuse.

use p2pdi::{
    channel::{Channel, RESPONSE_MAX_BYTES, lazy},
    endpoint::Endpoint,
    v1::peer_client::PeerClient,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Connections kept; the least recently used one goes first. Each costs some 40 KiB.
const CONNECTIONS_MAX: usize = 128;

/// Dials peers, and hands out the connection it already has.
#[derive(Clone, Default)]
pub struct Dialer {
    connections: Arc<Mutex<Connections>>,
}

#[derive(Default)]
struct Connections {
    open: BTreeMap<Endpoint, (Channel, u64)>,
    uses: u64,
}

impl Dialer {
    /// A client for the peer at `endpoint`. It connects when first used, and again after a failure.
    pub fn peer(&self, endpoint: &Endpoint) -> PeerClient<Channel> {
        let channel = self.connections.lock().unwrap_or_else(PoisonError::into_inner).get(endpoint);
        PeerClient::new(channel).max_decoding_message_size(RESPONSE_MAX_BYTES)
    }
}

impl Connections {
    fn get(&mut self, endpoint: &Endpoint) -> Channel {
        self.uses += 1;
        if let Some((channel, used)) = self.open.get_mut(endpoint) {
            *used = self.uses;
            return channel.clone();
        }
        if self.open.len() >= CONNECTIONS_MAX {
            let oldest = self.open.iter().min_by_key(|(_, (_, used))| *used).map(|(endpoint, _)| endpoint.clone());
            oldest.and_then(|endpoint| self.open.remove(&endpoint));
        }
        let channel = lazy(endpoint);
        self.open.insert(endpoint.clone(), (channel.clone(), self.uses));
        channel
    }
}
